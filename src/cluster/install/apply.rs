//! Applying manifests by server-side apply, and waiting for what they make.
//!
//! Nothing is forced: where somebody else set a field to another value, the API server names them, and nothing of that
//! object is changed.

use std::time::Duration;

use hyper::http::Method;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::Pod;
use serde_json::Value;

use super::remove::installed;
use super::runner::{COMPONENT, RUNNER};
use super::{INSTANCE, Manifest};
use crate::cluster::client::{Call, Cluster};
use crate::cluster::error::ClusterError;
use crate::cluster::object::{self, Kind, ObjectRef};
use crate::cluster::objects::list;
use crate::cluster::patience::Patience;
use crate::cluster::pod::{self, Stage};

/// As who gapscan applies.
const MANAGER: &str = "gapscan";

/// How long the image may take to be pulled, the volume to be bound and the runner to open its ledger.
const START: Duration = Duration::from_secs(300);

/// How often the runner is looked at while it starts.
const LOOK: Duration = Duration::from_secs(1);

/// What became of one object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It was not there.
    Created,
    /// It was another.
    Changed,
    /// It was as it is to be.
    Unchanged,
    /// An earlier installation made it, and this one has no use for it.
    Removed,
}

/// One object, and what became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// As `kind/namespace/name`.
    pub object: String,
    /// What became of it.
    pub change: Change,
}

/// Applies the manifests in their order, then removes what an earlier installation of this namespace made and these do not
/// name. The volume is never removed.
///
/// # Errors
/// When the cluster refuses or can't be reached; what was applied before stays. A field that somebody else has set otherwise
/// is a [`ClusterError::Conflict`] that names them.
///
/// # Cancel safety
/// Dropped half-way, some objects are applied and the rest is as before; applied again it goes on.
pub async fn apply(cluster: &Cluster, namespace: &str, manifests: &[Manifest]) -> Result<Vec<Applied>, ClusterError> {
    let mut applied = Vec::new();
    for manifest in manifests {
        let change = one(cluster, manifest).await?;
        applied.push(Applied { object: manifest.object.to_string(), change });
    }
    for (object, uid) in installed(cluster, namespace).await? {
        let wanted = manifests.iter().any(|manifest| manifest.object == object);
        if wanted || object.kind == Kind::PersistentVolumeClaim {
            continue;
        }
        object::delete(cluster, &object, Some(&uid)).await?;
        applied.push(Applied { object: object.to_string(), change: Change::Removed });
    }
    Ok(applied)
}

async fn one(cluster: &Cluster, manifest: &Manifest) -> Result<Change, ClusterError> {
    let object = &manifest.object;
    let before = match cluster.get::<Value>(&format!("read {object}"), object.path()).await {
        Ok(there) => Some(there),
        Err(ClusterError::Missing { .. }) => None,
        Err(error) => return Err(error),
    };
    let call = Call {
        what: format!("apply {object}"),
        method: Method::PATCH,
        path: format!("{}?fieldManager={MANAGER}&fieldValidation=Strict", object.path()),
        // JSON is YAML.
        body: Some(manifest.body.to_string().into_bytes()),
    };
    let after: Value = cluster.call(call).await?;
    Ok(match before {
        None => Change::Created,
        Some(before) if is_same(object.kind, &before, &after) => Change::Unchanged,
        Some(_) => Change::Changed,
    })
}

/// Whether nothing of the object was changed, but for who is noted to have set what: the API server may put these notes in
/// another order.
fn is_same(kind: Kind, before: &Value, after: &Value) -> bool {
    if before["metadata"]["resourceVersion"] == after["metadata"]["resourceVersion"] {
        return true;
    }
    let content = |object: &Value| {
        let mut content = object.clone();
        for (part, fields) in [("/metadata", &["managedFields", "resourceVersion"][..]), ("", &["status"])] {
            if let Some(map) = content.pointer_mut(part).and_then(Value::as_object_mut) {
                fields.iter().for_each(|field| drop(map.remove(*field)));
            }
        }
        content
    };
    // What is in a secret is not known here.
    kind != Kind::Secret && content(before) == content(after)
}

/// Waits until the runner of this namespace, as it was applied last, is ready.
///
/// # Errors
/// When it ends, can't be started, or does not become ready in five minutes: what it waits for is named.
pub async fn ready(cluster: &Cluster, namespace: &str) -> Result<(), ClusterError> {
    let object = ObjectRef::namespaced(Kind::StatefulSet, namespace, RUNNER);
    let mut patience = Patience::new("the runner", START);
    loop {
        let set: StatefulSet = cluster.get(&format!("read {object}"), object.path()).await?;
        if is_ready(&set) {
            return Ok(());
        }
        let why = waits_for(cluster, namespace, &set, &mut patience).await?;
        patience.wait(&why, LOOK).await?;
    }
}

fn is_ready(set: &StatefulSet) -> bool {
    let Some(status) = &set.status else { return false };
    let generation = set.metadata.generation;
    generation.is_some()
        && status.observed_generation == generation
        && status.ready_replicas == Some(1)
        && status.updated_replicas == Some(1)
        && status.current_revision == status.update_revision
}

/// What the runner's pod waits for, for people.
async fn waits_for(
    cluster: &Cluster,
    namespace: &str,
    set: &StatefulSet,
    patience: &mut Patience,
) -> Result<String, ClusterError> {
    let pods = pods(cluster, namespace).await?;
    let newest = set.status.as_ref().and_then(|status| status.update_revision.as_deref());
    let revision = |pod: &Pod| pod.metadata.labels.as_ref()?.get("controller-revision-hash").cloned();
    let pod = pods.iter().find(|pod| revision(pod).as_deref() == newest && pod.metadata.deletion_timestamp.is_none());
    let Some(pod) = pod else { return Ok("it has no pod of the newest revision".to_owned()) };
    Ok(match pod::stage(pod, RUNNER, "1Gi") {
        Stage::Starting(why) => why,
        Stage::Running => "its ledger can't be read yet".to_owned(),
        // It is restarted, and may do better then, unless it can't be started at all.
        Stage::Ended(error @ (ClusterError::ImagePull { .. } | ClusterError::NotStarted { .. })) => {
            patience.bear(error, pod::credentials(pod))?
        }
        Stage::Ended(error) => error.to_string(),
    })
}

/// The pods of the runner.
pub(super) async fn pods(cluster: &Cluster, namespace: &str) -> Result<Vec<Pod>, ClusterError> {
    let selector = format!("{INSTANCE}={namespace},{COMPONENT}={RUNNER}");
    let path = Kind::Pod.collection(Some(namespace));
    let query = [("labelSelector", selector.as_str())];
    list::<Pod>(cluster, "find the runner's pod", &path, &query, 100).await
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn notes_about_who_set_what_are_no_change_and_content_is() {
        let object = |version: &str, time: &str, data: &str| {
            json!({ "metadata": { "resourceVersion": version, "managedFields": [{ "time": time }] }, "data": data,
                    "status": time })
        };
        let before = object("1", "a", "x");
        assert!(is_same(Kind::ConfigMap, &before, &object("2", "b", "x")));
        assert!(!is_same(Kind::ConfigMap, &before, &object("2", "a", "y")));
        assert!(!is_same(Kind::Secret, &before, &object("2", "a", "x")), "its content is not seen");
        assert!(is_same(Kind::Secret, &before, &before));
    }
}
