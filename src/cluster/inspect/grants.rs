//! What is there of runs: objects that carry a run's label, and whoever is bound to a role from a namespace of a run, whatever
//! the binding's own labels say.

use jiff::Timestamp;
use serde_json::Value;

use crate::cluster::client::Cluster;
use crate::cluster::error::ClusterError;
use crate::cluster::object::{Kind, MANAGED_BY, MANAGED_BY_VALUE, RUN};
use crate::cluster::objects::list;
use crate::model::record::RunId;

/// The kinds that are looked at. What else a run makes lies in its namespace and goes with that.
const KINDS: [Kind; 9] = [
    Kind::Namespace,
    Kind::ClusterRoleBinding,
    Kind::ClusterRole,
    Kind::RoleBinding,
    Kind::Role,
    Kind::Pod,
    Kind::ServiceAccount,
    Kind::Job,
    Kind::NetworkPolicy,
];

/// Objects of one kind at most. A run has some hundred.
const MOST: usize = 100_000;

/// One object of gapscan's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Marked {
    /// `kind/namespace/name`
    pub object: String,
    /// Whether it grants something.
    pub grants: bool,
    /// The run that it is labelled with, in words that may not be a run's.
    pub run: String,
    /// When it was made; absent where the server does not say it in a way that can be read.
    pub created: Option<Timestamp>,
}

impl Marked {
    /// The run, where its label names one.
    pub fn run_id(&self) -> Option<RunId> {
        self.run.parse().ok()
    }
}

/// What was found.
#[derive(Debug, Default)]
pub struct Found {
    /// What carries the label of a run.
    pub marked: Vec<Marked>,
    /// Bindings to accounts in a namespace that is named as those of runs are, and that carry no label of a run.
    pub unlabelled: Vec<String>,
    /// Kinds that this identity may not list, and kinds that could not be listed.
    pub unseen: Vec<Unseen>,
}

/// A kind that was not seen.
#[derive(Debug)]
pub struct Unseen {
    /// Its plural.
    pub kind: String,
    /// Whether what is not seen could grant something, or hold what is not seen otherwise.
    pub matters: bool,
    /// Why.
    pub error: ClusterError,
}

/// Looks for what runs made, in the whole cluster.
pub async fn look(cluster: &Cluster) -> Found {
    let mut found = Found::default();
    for kind in KINDS {
        let binds = matches!(kind, Kind::RoleBinding | Kind::ClusterRoleBinding);
        let selector = format!("{MANAGED_BY}={MANAGED_BY_VALUE},{RUN}");
        let labelled = [("labelSelector", selector.as_str())];
        // Labels can be taken off; who is bound can't be hidden.
        let query: &[(&str, &str)] = if binds { &[] } else { &labelled };
        let path = kind.collection(None);
        let plural = path.rsplit('/').next().unwrap_or_default().to_owned();
        match list::<Value>(cluster, &format!("look for {plural} of runs"), &path, query, MOST).await {
            Ok(objects) => {
                for object in &objects {
                    let shown = name(&plural, object);
                    match object["metadata"]["labels"][RUN].as_str() {
                        Some(run) => found.marked.push(Marked {
                            object: shown,
                            grants: binds,
                            run: run.to_owned(),
                            created: object["metadata"]["creationTimestamp"].as_str().and_then(|at| at.parse().ok()),
                        }),
                        None if binds && names_a_run(object) => found.unlabelled.push(shown),
                        None => {}
                    }
                }
            }
            Err(error) => {
                let inside = matches!(kind, Kind::Pod | Kind::ServiceAccount | Kind::Job | Kind::NetworkPolicy);
                let matters = !inside || !matches!(error, ClusterError::Denied { .. });
                found.unseen.push(Unseen { kind: plural, matters, error });
            }
        }
    }
    found
}

fn name(plural: &str, object: &Value) -> String {
    let kind = plural
        .strip_suffix("ies")
        .map_or_else(|| plural.strip_suffix('s').unwrap_or(plural).to_owned(), |stem| format!("{stem}y"));
    let text = |key: &str| object["metadata"][key].as_str().unwrap_or_default();
    match text("namespace") {
        "" => format!("{kind}/{}", text("name")),
        namespace => format!("{kind}/{namespace}/{}", text("name")),
    }
}

/// Whether one of the subjects is an account in a namespace of a run: `gapscan-` and eight hexadecimal digits.
fn names_a_run(binding: &Value) -> bool {
    let of_run = |namespace: &str| {
        let rest = namespace.strip_prefix("gapscan-").unwrap_or_default();
        let rest = rest.strip_suffix("-node").unwrap_or(rest);
        !rest.is_empty() && rest.len() == RunId::new().short().len() && rest.bytes().all(|b| b.is_ascii_hexdigit())
    };
    let subjects = binding["subjects"].as_array().map(Vec::as_slice).unwrap_or_default();
    subjects.iter().any(|one| one["kind"] == "ServiceAccount" && one["namespace"].as_str().is_some_and(of_run))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::cluster::client::testing::Api;

    #[tokio::test]
    async fn grants_are_found_by_label_and_by_whom_they_are_for() {
        let run = RunId::new();
        let api = Api::default();
        let rbac = "/apis/rbac.authorization.k8s.io/v1";
        let home = format!("gapscan-{}", run.short());
        let subject = json!([{ "kind": "ServiceAccount", "name": "x", "namespace": home }]);
        let labels = json!({ "app.kubernetes.io/managed-by": "gapscan", "gapscan.dev/run": run.to_string() });
        let time = "2026-01-01T00:00:00Z";
        api.put(
            &format!("{rbac}/namespaces/shop/rolebindings/a"),
            json!({ "metadata": { "name": "a", "namespace": "shop", "labels": labels, "creationTimestamp": time },
                    "subjects": subject }),
        );
        api.put(&format!("{rbac}/clusterrolebindings/b"), json!({ "metadata": { "name": "b" }, "subjects": subject }));
        api.put(
            &format!("{rbac}/clusterrolebindings/c"),
            json!({ "metadata": { "name": "c" },
                    "subjects": [{ "kind": "ServiceAccount", "name": "x", "namespace": "gapscan-production" }] }),
        );
        api.deny("/api/v1/namespaces");
        let found = look(&api.cluster()).await;
        assert_eq!(found.marked.len(), 1, "{found:?}");
        assert_eq!((found.marked[0].object.as_str(), found.marked[0].grants), ("rolebinding/shop/a", true));
        assert_eq!(found.marked[0].run_id(), Some(run));
        assert_eq!(found.unlabelled, ["clusterrolebinding/b"]);
        let unseen = found.unseen.iter().find(|one| one.kind == "namespaces").expect("denied");
        assert!(unseen.matters, "a namespace may hold anything");
    }
}
