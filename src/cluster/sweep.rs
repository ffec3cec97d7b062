//! Removing what runs left that were killed before they could: found by labels, never by name.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;

use super::access::pod_network::CUTS;
use super::client::Cluster;
use super::error::ClusterError;
use super::object::{self, Kind, MANAGED_BY, MANAGED_BY_VALUE, ObjectRef, RUN};
use super::objects::list;
use crate::model::record::RunId;

/// The kinds that are looked for, in the order of their removal: first what cuts somebody's pod off, then rights. What lies in a
/// scan namespace goes with it.
const KINDS: [Kind; 6] =
    [Kind::NetworkPolicy, Kind::ClusterRoleBinding, Kind::RoleBinding, Kind::ClusterRole, Kind::Role, Kind::Namespace];

/// What the sweeper found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Objects that are gone now, as `kind/namespace/name`.
    pub removed: Vec<String>,
    /// Objects that could not be removed or seen to be gone.
    pub remaining: Vec<String>,
}

/// Removes every object that a run of gapscan made, if that run is in `dead` or the object is older than `age`. The age
/// protects runs of other machines, which are not known here: it should be longer than any run takes.
///
/// Objects without a run's label, as those of an installation, are left alone.
///
/// # Errors
/// When the cluster denies to list, or can't be reached.
pub async fn sweep(
    cluster: &Cluster,
    dead: &BTreeSet<RunId>,
    age: Duration,
    now: Timestamp,
) -> Result<Swept, ClusterError> {
    let selector = format!("{MANAGED_BY}={MANAGED_BY_VALUE},{RUN}");
    let query = [("labelSelector", selector.as_str())];
    let mut left = Vec::new();
    for kind in KINDS {
        let what = format!("look for what earlier runs left ({kind:?})");
        let found = list::<Value>(cluster, &what, &kind.collection(None), &query, 100_000).await?;
        left.extend(found.iter().filter_map(|object| leftover(kind, object, dead, age, now)));
    }
    let mut swept = Swept::default();
    for (object, uid) in &left {
        if let Err(error) = object::delete(cluster, object, Some(uid)).await {
            tracing::warn!(%object, error = %error, "can't remove");
        }
    }
    for (object, uid) in left {
        let list = match object::gone(cluster, &object, Some(&uid), object::GONE).await {
            Ok(true) => &mut swept.removed,
            Ok(false) | Err(_) => &mut swept.remaining,
        };
        list.push(object.to_string());
    }
    Ok(swept)
}

/// The object with its UID, if it is one to remove. What can't be read well enough to be sure is left.
fn leftover(
    kind: Kind,
    object: &Value,
    dead: &BTreeSet<RunId>,
    age: Duration,
    now: Timestamp,
) -> Option<(ObjectRef, String)> {
    let metadata = &object["metadata"];
    // Those in a scan's namespace are what keeps its pods in, as long as there are any.
    if kind == Kind::NetworkPolicy && metadata["labels"][CUTS].is_null() {
        return None;
    }
    let run: RunId = metadata["labels"][RUN].as_str()?.parse().ok()?;
    let created: Timestamp = metadata["creationTimestamp"].as_str()?.parse().ok()?;
    let old = now.duration_since(created) > jiff::SignedDuration::try_from(age).ok()?;
    if !dead.contains(&run) && !old {
        return None;
    }
    let name = metadata["name"].as_str()?;
    let reference = match metadata["namespace"].as_str() {
        Some(namespace) => ObjectRef::namespaced(kind, namespace, name),
        None => ObjectRef::cluster_wide(kind, name),
    };
    Some((reference, metadata["uid"].as_str()?.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn of_policies_only_those_that_cut_a_pod_off_are_removed_by_themselves() {
        let now: Timestamp = "2026-01-01T12:00:00Z".parse().expect("a time");
        let run = RunId::new();
        let policy = |label: &str| {
            let labels = json!({ RUN: run.to_string(), label: "pod" });
            let object = json!({ "metadata": { "name": "x", "namespace": "shop", "uid": "u", "labels": labels,
                                               "creationTimestamp": "2026-01-01T11:59:00Z" } });
            leftover(Kind::NetworkPolicy, &object, &BTreeSet::from([run]), Duration::from_secs(3600), now)
        };
        assert!(policy(CUTS).is_some());
        assert!(policy("other").is_none(), "a default-deny goes with its namespace, after its pods");
    }

    #[test]
    fn only_objects_of_dead_runs_and_old_ones_are_left_over() {
        let now: Timestamp = "2026-01-01T12:00:00Z".parse().expect("a time");
        let (dead, unknown) = (RunId::new(), RunId::new());
        let known_dead = BTreeSet::from([dead]);
        let object = |run: Option<RunId>, created: &str| {
            let mut object =
                json!({ "metadata": { "name": "x", "namespace": "shop", "uid": "u", "creationTimestamp": created } });
            if let Some(run) = run {
                object["metadata"]["labels"][RUN] = json!(run.to_string());
            }
            leftover(Kind::Role, &object, &known_dead, Duration::from_secs(3600), now)
        };
        let (found, uid) = object(Some(unknown), "2026-01-01T10:00:00Z").expect("it is old");
        assert_eq!((found.to_string().as_str(), uid.as_str()), ("role/shop/x", "u"));
        assert!(object(Some(unknown), "2026-01-01T11:30:00Z").is_none(), "it is young, and its run may be alive");
        assert!(object(Some(dead), "2026-01-01T11:30:00Z").is_some(), "its run is known to be dead");
        assert!(object(None, "2026-01-01T10:00:00Z").is_none(), "it is of no run");
        assert!(object(Some(unknown), "yesterday").is_none(), "its age is not known");
    }
}
