//! From what a user asks for to the containers that really run, each with the identity that it has now.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{Container, ContainerState, ContainerStatus, Node, Pod};

use super::access::auto::ContainerFacts;
use super::access::node::NodeFacts;
use super::client::Cluster;
use super::error::ClusterError;
use super::object::{Kind, MANAGED_BY, MANAGED_BY_VALUE, RUN};
use super::objects::list_as;
use crate::base::digest::Digest;
use crate::base::limits::Limits;
use crate::base::text::brief;
use crate::model::reason::Reason;
use crate::model::target::{Target, TargetSpec};

/// Which pods are asked for beside those that are named: none where it has no labels.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selector {
    /// A label selector in kubectl's notation, as `app=web,tier!=db`. With it alone, in all namespaces.
    pub labels: Option<String>,
    /// Only pods of this namespace.
    pub namespace: Option<String>,
}

/// A target that is there.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    /// The target.
    pub target: Target,
    /// Of a container, what decides how it can be reached.
    pub facts: Option<ContainerFacts>,
    /// Of a node, what decides whether it can be reached.
    pub node: Option<NodeFacts>,
    /// Of a container, what controls its pod, as `NAMESPACE/KIND/NAME`; the pod itself where nothing does.
    pub workload: Option<String>,
}

impl Found {
    fn plain(target: Target) -> Self {
        Self { target, facts: None, node: None, workload: None }
    }

    fn node(node: &Node) -> Self {
        let target =
            Target::Node { name: node.metadata.name.clone().unwrap_or_default(), uid: node.metadata.uid.clone() };
        Self { target, facts: None, node: Some(NodeFacts::of(node)), workload: None }
    }
}

/// What was asked for.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Selection {
    /// What runs and can be reached, without duplicates, ordered by key.
    pub found: Vec<Found>,
    /// What was asked for and can't be scanned, with the reason: it is to be recorded as not evaluated.
    pub missed: Vec<(Target, Reason, String)>,
}

/// An image that runs in the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunningImage {
    /// `HOST/REPOSITORY@sha256:…`
    pub reference: String,
    /// The digest of its manifest.
    pub digest: Digest,
    /// The containers that run it, as target keys.
    pub used_by: BTreeSet<String>,
}

/// The images that run in the cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RunningImages {
    /// Those that have a name by which a registry can be asked, by reference.
    pub images: BTreeMap<String, RunningImage>,
    /// Containers whose image has none: target key and what the runtime reports.
    pub unnamed: BTreeSet<(String, String)>,
}

/// Finds the targets that are asked for. `host` and images are none of the cluster's and are passed over.
///
/// Of each pod every container counts, and init containers and ephemeral ones as long as they run. Pods that have finished
/// are passed over unless they are named; gapscan's own pods always are.
///
/// # Errors
/// When the cluster denies to list, or can't be reached.
pub async fn resolve(
    cluster: &Cluster,
    specs: &[TargetSpec],
    selector: &Selector,
    limits: &Limits,
) -> Result<Selection, ClusterError> {
    let mut selection = Selection::default();
    for spec in specs {
        match spec {
            TargetSpec::Host | TargetSpec::Image(_) => {}
            TargetSpec::Cluster => {
                let identity = cluster.identity().await?;
                let target = Target::Cluster { name: identity.name, uid: Some(identity.uid) };
                selection.found.push(Found::plain(target));
            }
            TargetSpec::Node(name) => node(cluster, name, &mut selection).await?,
            TargetSpec::Pod { namespace, pod, container } => {
                named_pod(cluster, namespace, pod, container.as_deref(), &mut selection).await?;
            }
            TargetSpec::Namespace(namespace) => {
                each_pod(cluster, Some(namespace), None, limits, |pod| take(pod, None, &mut selection)).await?;
            }
        }
    }
    if let Some(labels) = &selector.labels {
        let namespace = selector.namespace.as_deref();
        each_pod(cluster, namespace, Some(labels), limits, |pod| take(pod, None, &mut selection)).await?;
    }
    selection.in_order();
    Ok(selection)
}

/// All containers of the cluster, and the images that run in them, of one listing of its pods.
///
/// # Errors
/// When the cluster denies to list, or can't be reached.
pub async fn everything(cluster: &Cluster, limits: &Limits) -> Result<(Selection, RunningImages), ClusterError> {
    let (mut selection, mut images) = (Selection::default(), RunningImages::default());
    each_pod(cluster, None, None, limits, |pod| {
        let before = selection.found.len();
        take(pod, None, &mut selection);
        images.take(pod, &selection.found[before..]);
    })
    .await?;
    selection.in_order();
    Ok((selection, images))
}

/// All nodes of the cluster.
///
/// # Errors
/// When the cluster denies to list, or can't be reached.
pub async fn nodes(cluster: &Cluster, limits: &Limits) -> Result<Vec<Found>, ClusterError> {
    let keep = |_: &_, node: Node| Ok(Some(Found::node(&node)));
    list_as(cluster, "list the nodes", "/api/v1/nodes", &[], limits.fact_items, keep).await
}

/// Gives every pod that has not finished to `look`, except for gapscan's own. Should the list have to be begun again, `look`
/// has seen some pods twice.
async fn each_pod(
    cluster: &Cluster,
    namespace: Option<&str>,
    labels: Option<&str>,
    limits: &Limits,
    mut look: impl FnMut(&Pod),
) -> Result<(), ClusterError> {
    let what = match namespace {
        Some(namespace) => format!("list the pods of namespace `{namespace}`"),
        None => "list the pods of all namespaces".to_owned(),
    };
    let query: Vec<(&str, &str)> = labels.map(|labels| ("labelSelector", labels)).into_iter().collect();
    let keep = |_: &_, pod: Pod| {
        if !is_own(&pod) && !is_finished(&pod) {
            look(&pod);
        }
        Ok(None::<()>)
    };
    list_as(cluster, &what, &Kind::Pod.collection(namespace), &query, limits.fact_items, keep).await.map(drop)
}

async fn node(cluster: &Cluster, name: &str, selection: &mut Selection) -> Result<(), ClusterError> {
    let what = format!("read node `{name}`");
    match cluster.get::<Node>(&what, format!("/api/v1/nodes/{name}")).await {
        Ok(node) => selection.found.push(Found::node(&node)),
        Err(ClusterError::Missing { .. }) => {
            let target = Target::Node { name: name.to_owned(), uid: None };
            selection.missed.push((target, Reason::TargetNotFound, "there is no such node".to_owned()));
        }
        Err(error) => return Err(error),
    }
    Ok(())
}

async fn named_pod(
    cluster: &Cluster,
    namespace: &str,
    name: &str,
    container: Option<&str>,
    selection: &mut Selection,
) -> Result<(), ClusterError> {
    let what = format!("read pod `{namespace}/{name}`");
    let path = format!("{}/{name}", Kind::Pod.collection(Some(namespace)));
    let before = (selection.found.len(), selection.missed.len());
    let detail = match cluster.get::<Pod>(&what, path).await {
        Ok(pod) => {
            take(&pod, container, selection);
            "the pod has no such container"
        }
        Err(ClusterError::Missing { .. }) => "there is no such pod",
        Err(error) => return Err(error),
    };
    if before == (selection.found.len(), selection.missed.len()) {
        let target = Target::Container {
            namespace: namespace.to_owned(),
            pod: name.to_owned(),
            container: container.unwrap_or("*").to_owned(),
            uid: None,
            image: None,
            digest: None,
            node: None,
        };
        selection.missed.push((target, Reason::TargetNotFound, detail.to_owned()));
    }
    Ok(())
}

/// Whether the pod is one that a run of gapscan made.
fn is_own(pod: &Pod) -> bool {
    let labels = pod.metadata.labels.as_ref();
    labels.is_some_and(|labels| {
        labels.get(MANAGED_BY).is_some_and(|value| value == MANAGED_BY_VALUE) && labels.contains_key(RUN)
    })
}

fn is_finished(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}

/// What controls the pod, which is what its pods have in common.
fn workload(pod: &Pod) -> String {
    let metadata = &pod.metadata;
    let owner = metadata.owner_references.iter().flatten().find(|owner| owner.controller == Some(true));
    let (kind, name) = match owner {
        Some(owner) => (owner.kind.as_str(), owner.name.as_str()),
        None => ("Pod", metadata.name.as_deref().unwrap_or_default()),
    };
    format!("{}/{kind}/{name}", metadata.namespace.as_deref().unwrap_or_default())
}

/// Adds the pod's containers, or the one of this name, to the selection.
fn take(pod: &Pod, only: Option<&str>, selection: &mut Selection) {
    let statuses = statuses(pod);
    for (container, must_run) in containers(pod) {
        if only.is_some_and(|only| only != container.name) {
            continue;
        }
        let status = statuses.get(container.name.as_str()).copied();
        let running = status.and_then(|status| status.state.as_ref()).is_some_and(|state| state.running.is_some());
        let target = Target::Container {
            namespace: pod.metadata.namespace.clone().unwrap_or_default(),
            pod: pod.metadata.name.clone().unwrap_or_default(),
            container: container.name.clone(),
            uid: pod.metadata.uid.clone(),
            image: container.image.clone(),
            digest: status.and_then(|status| image_digest(&status.image_id)),
            node: pod.spec.as_ref().and_then(|spec| spec.node_name.clone()),
        };
        if running {
            let facts = ContainerFacts::of(pod, &container.name);
            selection.found.push(Found { target, facts, node: None, workload: Some(workload(pod)) });
        } else if must_run || only.is_some() {
            let detail = describe(pod, status.and_then(|status| status.state.as_ref()));
            selection.missed.push((target, Reason::TargetNotRunning, detail));
        }
    }
}

/// The pod's containers, each with whether it is one that runs as long as the pod does. A plain init container is done
/// when the pod runs; one with `restartPolicy: Always` is a sidecar; an ephemeral one is there for a while.
fn containers(pod: &Pod) -> Vec<(Container, bool)> {
    let Some(spec) = &pod.spec else { return Vec::new() };
    let mut all: Vec<(Container, bool)> = spec.containers.iter().cloned().map(|c| (c, true)).collect();
    for init in spec.init_containers.iter().flatten() {
        all.push((init.clone(), init.restart_policy.as_deref() == Some("Always")));
    }
    for debug in spec.ephemeral_containers.iter().flatten() {
        all.push((Container { name: debug.name.clone(), image: debug.image.clone(), ..Container::default() }, false));
    }
    all
}

/// The status of every container, by its name.
pub(crate) fn statuses(pod: &Pod) -> BTreeMap<&str, &ContainerStatus> {
    let Some(status) = &pod.status else { return BTreeMap::new() };
    [&status.container_statuses, &status.init_container_statuses, &status.ephemeral_container_statuses]
        .into_iter()
        .flatten()
        .flatten()
        .map(|status| (status.name.as_str(), status))
        .collect()
}

/// The state of a container that does not run, for people.
pub(crate) fn describe(pod: &Pod, state: Option<&ContainerState>) -> String {
    if let Some(waiting) = state.and_then(|state| state.waiting.as_ref()) {
        let reason = waiting.reason.as_deref().unwrap_or("unknown");
        return format!("it waits: {}{}", brief(reason), after_colon(waiting.message.as_deref()));
    }
    if let Some(ended) = state.and_then(|state| state.terminated.as_ref()) {
        let reason = ended.reason.as_deref().unwrap_or("unknown");
        return format!("it ended with exit code {} ({})", ended.exit_code, brief(reason));
    }
    let status = pod.status.as_ref();
    let phase = status.and_then(|status| status.phase.as_deref()).unwrap_or("unknown");
    let unscheduled = status
        .and_then(|status| status.conditions.as_ref())
        .into_iter()
        .flatten()
        .find(|condition| condition.type_ == "PodScheduled" && condition.status == "False");
    let why = unscheduled.and_then(|condition| condition.message.as_deref());
    format!("its pod is {}{}", brief(phase), after_colon(why))
}

fn after_colon(message: Option<&str>) -> String {
    message.map(|message| format!(": {}", brief(message))).unwrap_or_default()
}

/// The manifest's digest from `containerStatuses[].imageID`. Absent where the runtime reports the id of a configuration
/// (`sha256:…` alone), which no registry knows.
fn image_digest(image_id: &str) -> Option<Digest> {
    image_id.rsplit_once('@')?.1.parse().ok()
}

/// `HOST/REPOSITORY@sha256:…` from an image id, without the prefix that dockershim wrote.
pub(crate) fn image_reference(image_id: &str) -> Option<(String, Digest)> {
    let reference = image_id.split_once("://").map_or(image_id, |(_, rest)| rest);
    let digest = image_digest(reference)?;
    let (name, _) = reference.rsplit_once('@')?;
    name.contains('/').then(|| (reference.to_owned(), digest))
}

impl Selection {
    /// Ordered by key, each once: what was asked for twice, or was listed twice, is there once.
    fn in_order(&mut self) {
        self.found.sort_by_key(|found| found.target.key());
        self.found.dedup();
        self.missed.sort_by_key(|(target, ..)| target.key());
        self.missed.dedup();
    }
}

impl RunningImages {
    /// Adds the images of a pod's containers that run.
    fn take(&mut self, pod: &Pod, running: &[Found]) {
        let statuses = statuses(pod);
        for found in running {
            let Target::Container { container, .. } = &found.target else { continue };
            let id = statuses.get(container.as_str()).map(|status| status.image_id.as_str()).unwrap_or_default();
            let key = found.target.key();
            let Some((reference, digest)) = image_reference(id) else {
                self.unnamed.insert((key, brief(id)));
                continue;
            };
            let image = self.images.entry(reference.clone());
            image.or_insert_with(|| RunningImage { reference, digest, used_by: BTreeSet::new() }).used_by.insert(key);
        }
    }
}

#[cfg(test)]
mod tests;
