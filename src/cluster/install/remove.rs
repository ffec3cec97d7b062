//! Removing an installation: everything that carries its labels, the runner first, so that it can remove what its scans made
//! while it still has the rights to.

use std::time::Duration;

use serde_json::Value;

use super::INSTANCE;
use super::apply::pods;
use crate::cluster::client::{Cluster, poll_until};
use crate::cluster::error::ClusterError;
use crate::cluster::object::{self, Kind, MANAGED_BY, MANAGED_BY_VALUE, ObjectRef, RUN};
use crate::cluster::objects::list;

/// The kinds that an installation makes, in the order of their removal: bindings of policies before policies, rights before
/// what has them, the namespace at last.
const KINDS: [Kind; 14] = [
    Kind::StatefulSet,
    Kind::Service,
    Kind::ValidatingAdmissionPolicyBinding,
    Kind::ValidatingAdmissionPolicy,
    Kind::ClusterRoleBinding,
    Kind::RoleBinding,
    Kind::ClusterRole,
    Kind::Role,
    Kind::ServiceAccount,
    Kind::Secret,
    Kind::ConfigMap,
    Kind::NetworkPolicy,
    Kind::PersistentVolumeClaim,
    Kind::Namespace,
];

/// How long the runner may take to end: its grace period, and what the kubelet needs.
const RUNNER_END: Duration = Duration::from_secs(240);

/// What becomes of the volume with the ledger, the state and the runner's key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Data {
    /// It stays, and with it its namespace.
    Keep,
    /// It goes, and with it every result.
    Delete,
}

/// What became of an installation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    /// Objects that are gone now, as `kind/namespace/name`.
    pub removed: Vec<String>,
    /// Objects that stay because the volume does.
    pub kept: Vec<String>,
    /// Objects that could not be removed, or seen to be gone.
    pub remaining: Vec<String>,
    /// Namespaces of runs that are still there: of runs that go on elsewhere, or that died.
    pub runs: Vec<String>,
}

/// Removes the installation of this namespace and waits until it is gone. One that is not there is no error.
///
/// # Errors
/// When the cluster denies to list, or can't be reached.
///
/// # Cancel safety
/// Dropped half-way, some objects are gone; asked again it goes on.
pub async fn remove(cluster: &Cluster, namespace: &str, data: Data) -> Result<Removed, ClusterError> {
    let mut outcome = Removed::default();
    let there = installed(cluster, namespace).await?;
    let holds_data = data == Data::Keep && there.iter().any(|(object, _)| object.kind == Kind::PersistentVolumeClaim);
    let mut going = Vec::new();
    for (object, uid) in there {
        let stays = matches!(object.kind, Kind::PersistentVolumeClaim | Kind::Namespace);
        if holds_data && stays {
            outcome.kept.push(object.to_string());
            continue;
        }
        object::delete(cluster, &object, Some(&uid)).await?;
        if object.kind == Kind::StatefulSet && !ended(cluster, namespace).await? {
            outcome.remaining.push(format!("pod/{namespace}/{}-0", object.name));
        }
        going.push((object, uid));
    }
    for (object, uid) in going {
        let gone = object::gone(cluster, &object, Some(&uid), object::GONE).await?;
        let list = if gone { &mut outcome.removed } else { &mut outcome.remaining };
        list.push(object.to_string());
    }
    let selector = format!("{MANAGED_BY}={MANAGED_BY_VALUE},{RUN}");
    let found = find(cluster, Kind::Namespace, &Kind::Namespace.collection(None), &selector).await?;
    outcome.runs = found.into_iter().map(|(object, _)| object.name).collect();
    Ok(outcome)
}

/// Whether the runner's pod is gone in time.
async fn ended(cluster: &Cluster, namespace: &str) -> Result<bool, ClusterError> {
    let ended =
        poll_until(RUNNER_END, || async { Ok(pods(cluster, namespace).await?.is_empty().then_some(())) }).await?;
    Ok(ended.is_some())
}

/// Everything that carries the installation's labels, with its UID, in the order of removal. Of secrets only their metadata
/// is asked for.
pub(super) async fn installed(cluster: &Cluster, namespace: &str) -> Result<Vec<(ObjectRef, String)>, ClusterError> {
    let selector = format!("{MANAGED_BY}={MANAGED_BY_VALUE},{INSTANCE}={namespace},!{RUN}");
    let mut all = Vec::new();
    for kind in KINDS {
        let path = match kind {
            Kind::Role | Kind::RoleBinding => kind.collection(None),
            kind if kind.is_namespaced() => kind.collection(Some(namespace)),
            kind => kind.collection(None),
        };
        all.extend(find(cluster, kind, &path, &selector).await?);
    }
    Ok(all)
}

async fn find(
    cluster: &Cluster,
    kind: Kind,
    path: &str,
    selector: &str,
) -> Result<Vec<(ObjectRef, String)>, ClusterError> {
    let what = format!("look for what is installed ({kind:?})");
    let found = list::<Value>(cluster, &what, path, &[("labelSelector", selector)], 10_000).await?;
    let object = |value: &Value| {
        let metadata = &value["metadata"];
        let (name, uid) = (metadata["name"].as_str()?, metadata["uid"].as_str()?.to_owned());
        let object = match metadata["namespace"].as_str() {
            Some(namespace) => ObjectRef::namespaced(kind, namespace, name),
            None => ObjectRef::cluster_wide(kind, name),
        };
        Some((object, uid))
    };
    Ok(found.iter().filter_map(object).collect())
}
