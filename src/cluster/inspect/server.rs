//! The API server: its version, its clock, what it knows how to do. What can't be told by its version alone is tried with
//! requests that it only checks (`dryRun=All`): nothing is made.

use std::collections::{BTreeMap, BTreeSet};

use hyper::http::{self, Method};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node;
use kube::client::Body;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::cluster::client::{Call, Cluster, unreachable};
use crate::cluster::error::ClusterError;
use crate::cluster::objects::list;
use crate::cluster::pod;

/// The name under which pods are tried.
const NAME: &str = "gapscan-doctor";

/// An image that nobody pulls: no pod comes of it.
const IMAGE: &str = "registry.invalid/none@sha256:0000000000000000000000000000000000000000000000000000000000000000";

/// The label of a namespace that says what its pods must keep to.
const ENFORCE: &str = "pod-security.kubernetes.io/enforce";

/// The API groups that are looked at, with their versions.
const GROUPS: [&str; 5] =
    ["v1", "batch/v1", "networking.k8s.io/v1", "discovery.k8s.io/v1", "admissionregistration.k8s.io/v1"];

/// What the API server made of something that was tried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tried {
    /// It took it as it was.
    Kept,
    /// It took it without what was tried.
    Dropped,
    /// It refused it, in these words.
    Refused(String),
    /// It was not tried, for this reason.
    Not(String),
}

/// One node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeFacts {
    /// Its name.
    pub name: String,
    /// The kubelet's version, as `v1.36.2`.
    pub kubelet: String,
    /// The container runtime with its version, as `containerd://2.1.4`.
    pub runtime: String,
    /// Whether it says that it is ready.
    pub ready: bool,
}

/// What was seen.
#[derive(Debug)]
pub struct ServerFacts {
    /// As `v1.36.3`.
    pub version: String,
    /// Its minor version, where it is a number.
    pub minor: Option<u32>,
    /// The resources of each API group and version, or why they are not known.
    pub resources: BTreeMap<&'static str, Result<BTreeSet<String>, String>>,
    /// An image as a volume of a pod.
    pub image_volume: Tried,
    /// A container that starts before the others and goes on beside them.
    pub native_sidecar: Tried,
    /// A privileged pod, in a namespace that allows only restricted ones: to be refused.
    pub privileged: Tried,
    /// The nodes, or why they are not known.
    pub nodes: Result<Vec<NodeFacts>, ClusterError>,
}

/// Looks at the API server. `restricted` is a namespace that enforces the restricted Pod Security Standard, where one is
/// known; otherwise one is looked for.
///
/// # Errors
/// When the API server does not tell its version.
pub async fn look(cluster: &Cluster, restricted: Option<&str>) -> Result<ServerFacts, ClusterError> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Version {
        minor: String,
        git_version: String,
    }
    let version: Version = cluster.get("read the API server's version", "/version".to_owned()).await?;
    let mut resources = BTreeMap::new();
    for group in GROUPS {
        resources.insert(group, known(cluster, group).await.map_err(|error| error.to_string()));
    }
    let (image_volume, native_sidecar) = features(cluster).await;
    Ok(ServerFacts {
        minor: version.minor.trim_end_matches(|c: char| !c.is_ascii_digit()).parse().ok(),
        version: version.git_version,
        resources,
        image_volume,
        native_sidecar,
        privileged: privileged(cluster, restricted).await,
        nodes: nodes(cluster).await,
    })
}

/// What the API server's clock says, to the second (RFC 9110, `Date`).
///
/// # Errors
/// When it does not answer.
pub async fn clock(cluster: &Cluster) -> Result<Option<Timestamp>, ClusterError> {
    let what = "read the API server's clock";
    let request = http::Request::get("/version").body(Body::empty());
    let request = request.map_err(|error| ClusterError::malformed(what, error))?;
    let after = cluster.api_call();
    let answer = tokio::time::timeout(after, cluster.raw().send(request)).await;
    let answer = answer.map_err(|_| ClusterError::NoAnswer { what: what.to_owned(), after })?;
    let answer = answer.map_err(|error| unreachable(what, error))?;
    let date = answer.headers().get(http::header::DATE).and_then(|value| value.to_str().ok());
    Ok(date.and_then(http_date))
}

/// The one form that is sent today: `Sun, 06 Nov 1994 08:49:37 GMT`.
fn http_date(text: &str) -> Option<Timestamp> {
    let text = text.strip_suffix(" GMT")?;
    let time = jiff::civil::DateTime::strptime("%a, %d %b %Y %H:%M:%S", text).ok()?;
    Some(time.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp())
}

async fn known(cluster: &Cluster, group: &str) -> Result<BTreeSet<String>, ClusterError> {
    #[derive(Deserialize)]
    struct List {
        #[serde(default)]
        resources: Vec<Resource>,
    }
    #[derive(Deserialize)]
    struct Resource {
        name: String,
    }
    let path = if group.contains('/') { format!("/apis/{group}") } else { format!("/api/{group}") };
    match cluster.get::<List>(&format!("read what {group} has"), path).await {
        Ok(list) => Ok(list.resources.into_iter().map(|resource| resource.name).collect()),
        // The server has nothing of the kind.
        Err(ClusterError::Missing { .. }) => Ok(BTreeSet::new()),
        Err(error) => Err(error),
    }
}

/// Has the API server check a pod that asks for both. A server that has a field's feature switched off drops the field.
async fn features(cluster: &Cluster) -> (Tried, Tried) {
    let mut specification = restricted_pod();
    specification["initContainers"] = json!([container("beside")]);
    specification["initContainers"][0]["restartPolicy"] = json!("Always");
    specification["volumes"] =
        json!([{ "name": "image", "image": { "reference": IMAGE, "pullPolicy": "IfNotPresent" } }]);
    match try_pod(cluster, "default", &specification).await {
        Ok(made) => {
            let kept = |is: bool| if is { Tried::Kept } else { Tried::Dropped };
            let volumes = made["spec"]["volumes"].as_array().map(Vec::as_slice).unwrap_or_default();
            let volume = volumes.iter().any(|volume| volume["image"]["reference"] == IMAGE);
            let sidecar = made["spec"]["initContainers"][0]["restartPolicy"] == "Always";
            (kept(volume), kept(sidecar))
        }
        Err(error) => {
            let tried = refusal(&error);
            (tried.clone(), tried)
        }
    }
}

/// Has the API server check a pod that no restricted namespace may take.
async fn privileged(cluster: &Cluster, restricted: Option<&str>) -> Tried {
    let namespace = match restricted {
        Some(namespace) => namespace.to_owned(),
        None => {
            let query = [("labelSelector", "pod-security.kubernetes.io/enforce=restricted")];
            let what = "look for a namespace with the restricted standard";
            match list::<Value>(cluster, what, "/api/v1/namespaces", &query, 100_000).await {
                Ok(found) => match found.iter().find_map(|one| one["metadata"]["name"].as_str()) {
                    Some(name) => name.to_owned(),
                    None => return Tried::Not(format!("no namespace has the label {ENFORCE}=restricted")),
                },
                Err(error) => return Tried::Not(error.to_string()),
            }
        }
    };
    let mut specification = restricted_pod();
    specification["containers"][0]["securityContext"] = json!({ "privileged": true });
    match try_pod(cluster, &namespace, &specification).await {
        Ok(_) => Tried::Kept,
        Err(error) => refusal(&error),
    }
}

fn refusal(error: &ClusterError) -> Tried {
    match error {
        ClusterError::Denied { code: 403, message, .. } | ClusterError::Rejected { message, .. } => {
            Tried::Refused(message.clone())
        }
        other => Tried::Not(other.to_string()),
    }
}

fn restricted_pod() -> Value {
    let mut specification = pod::specification(json!([container("main")]));
    // Every namespace has this account; a pod of an account that is not there would be refused for that.
    specification["serviceAccountName"] = json!("default");
    specification
}

fn container(name: &str) -> Value {
    json!({ "name": name, "image": IMAGE, "command": ["/none"], "securityContext": pod::security() })
}

async fn try_pod(cluster: &Cluster, namespace: &str, specification: &Value) -> Result<Value, ClusterError> {
    let body = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": { "name": NAME, "namespace": namespace }, "spec": specification,
    });
    let call = Call {
        what: format!("have a pod checked in namespace {namespace}"),
        method: Method::POST,
        path: format!("/api/v1/namespaces/{namespace}/pods?dryRun=All&fieldValidation=Strict"),
        body: Some(body.to_string().into_bytes()),
    };
    cluster.call(call).await
}

async fn nodes(cluster: &Cluster) -> Result<Vec<NodeFacts>, ClusterError> {
    let nodes = list::<Node>(cluster, "list nodes", "/api/v1/nodes", &[], 100_000).await?;
    let facts = |node: Node| {
        let status = node.status.unwrap_or_default();
        let info = status.node_info.unwrap_or_default();
        let conditions = status.conditions.unwrap_or_default();
        NodeFacts {
            name: node.metadata.name.unwrap_or_default(),
            kubelet: info.kubelet_version,
            runtime: info.container_runtime_version,
            ready: conditions.iter().any(|one| one.type_ == "Ready" && one.status == "True"),
        }
    };
    Ok(nodes.into_iter().map(facts).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_is_read_from_the_header() {
        let at = http_date("Sun, 06 Nov 1994 08:49:37 GMT").expect("a date");
        assert_eq!(at.to_string(), "1994-11-06T08:49:37Z");
        for wrong in ["Sunday, 06-Nov-94 08:49:37 GMT", "Sun, 06 Nov 1994 08:49:37", ""] {
            assert_eq!(http_date(wrong), None, "{wrong}");
        }
    }
}
