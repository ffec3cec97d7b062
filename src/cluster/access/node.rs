//! Looking at a node from a Job on it: which nodes a Job may be put on, and what it may do there. Pure.
//!
//! The Job's pod sees the node's whole file system, and with it the node's `/proc`, in which the processes and sockets of the
//! node are. It gets nothing else of the node's: no network, no process namespace, no device. Its first process is root,
//! because most of what is worth looking at is root's, and has one capability, which lets it read what is others'.
//!
//! What could go wrong, and where it is stopped:
//! * the scanner changes the node: its mount is read-only, and so is everything mounted below it where the node's runtime
//!   can do that (`recursiveReadOnly`); where it can't, the record says so;
//! * the scanner talks to somebody: it has the pod's network, which the namespace's policies deny;
//! * the Job comes to another node, or to one that was closed to it: the scheduler puts it on the node of this name only, and
//!   respects taints. (A pod with `spec.nodeName` would bypass both the scheduler and taints.)
//! * a scanner judges the pod's network for the node's: `/proc/sys/net` speaks of the network of whoever reads it, wherever it
//!   is mounted. It is hidden, and a rule on it finds nothing.

mod toleration;

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{Node, Pod, Taint};
use serde_json::{Value, json};

pub use toleration::{Toleration, TolerationError};

use crate::base::text::brief;
use crate::cluster::pod;
use crate::cluster::targets::statuses;
use crate::model::reason::Reason;
use crate::model::scanner::Capability;

/// Where the node's files are in the scanner's container, for gapscan's own collector.
pub const ROOT: &str = "/host";

/// What reading needs, where files are not root's and their modes keep root out, too: capabilities(7).
const READ_ALL: &str = "DAC_READ_SEARCH";

/// What decides whether a node can be reached.
#[derive(Clone, Debug, PartialEq)]
pub struct NodeFacts {
    /// Why it is not ready, as Kubernetes says it; absent where its kubelet says that it is, and said so lately.
    pub unready: Option<String>,
    /// It is for Windows.
    pub windows: bool,
    /// Its taints; that of a cordoned node among them.
    pub taints: Vec<Taint>,
}

impl NodeFacts {
    /// What the API server says of the node.
    pub fn of(node: &Node) -> Self {
        let label = |name: &str| node.metadata.labels.as_ref().and_then(|labels| labels.get(name));
        let conditions = node.status.as_ref().and_then(|status| status.conditions.as_ref());
        let unready = match conditions.into_iter().flatten().find(|condition| condition.type_ == "Ready") {
            Some(ready) if ready.status == "True" => None,
            Some(ready) => Some(ready.message.clone().unwrap_or_default()),
            None => Some("its kubelet says nothing".to_owned()),
        };
        let spec = node.spec.clone().unwrap_or_default();
        let mut taints = spec.taints.unwrap_or_default();
        // A controller taints it a moment after it was cordoned.
        if spec.unschedulable == Some(true) && !taints.iter().any(|taint| taint.key == CORDONED) {
            taints.push(Taint { key: CORDONED.to_owned(), effect: "NoSchedule".to_owned(), ..Taint::default() });
        }
        Self { unready, windows: label("kubernetes.io/os").is_some_and(|os| os == "windows"), taints }
    }

    /// Why no Job can be put on the node, with what can be done about it; `None` where one can.
    pub fn obstacle(&self, tolerated: &[Toleration]) -> Option<(Reason, String)> {
        if self.windows {
            return Some((
                Reason::TargetUnsupported,
                "it is for Windows, and the collector knows Linux only".to_owned(),
            ));
        }
        // It is tainted for that, too, and to tolerate the taint would not help.
        if let Some(why) = &self.unready {
            return Some((Reason::TargetNotRunning, format!("it is not ready: {}", brief(why))));
        }
        let keeps_off =
            |taint: &&Taint| taint.effect != "PreferNoSchedule" && !tolerated.iter().any(|t| t.covers(taint));
        let left: Vec<&Taint> = self.taints.iter().filter(keeps_off).collect();
        let named: Vec<String> = left.iter().map(|taint| brief(&written(taint))).collect();
        if named.is_empty() {
            return None;
        }
        let cordoned = if left.iter().any(|taint| taint.key == CORDONED) { "it is cordoned; " } else { "" };
        let remedies: Vec<String> = named.iter().map(|taint| format!("--tolerate {taint}")).collect();
        let detail = format!("{cordoned}its taints keep a Job off it; to scan it all the same: {}", remedies.join(" "));
        Some((Reason::ScannerNotStarted, detail))
    }
}

/// The taint of a node that was cordoned.
const CORDONED: &str = "node.kubernetes.io/unschedulable";

/// As kubectl writes it, and as [`Toleration`] reads it.
fn written(taint: &Taint) -> String {
    match taint.value.as_deref().filter(|value| !value.is_empty()) {
        Some(value) => format!("{}={value}:{}", taint.key, taint.effect),
        None => format!("{}:{}", taint.key, taint.effect),
    }
}

/// Where a Job is put.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodePlace {
    /// The node's name.
    pub node: String,
    /// The taints that do not keep it off.
    pub tolerated: Vec<Toleration>,
}

impl NodePlace {
    /// Makes a pod's specification one for this node alone.
    pub(crate) fn bind(&self, specification: &mut Value) {
        let here = json!({ "key": "metadata.name", "operator": "In", "values": [self.node] });
        specification["affinity"] = json!({ "nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": { "nodeSelectorTerms": [{ "matchFields": [here] }] },
        } });
        let tolerations: Vec<Value> = self.tolerated.iter().map(Toleration::manifest).collect();
        if !tolerations.is_empty() {
            specification["tolerations"] = json!(tolerations);
        }
    }
}

/// The node's file system as a volume, and an empty one to hide part of it.
pub(crate) fn volumes() -> [Value; 2] {
    [
        json!({ "name": FILES, "hostPath": { "path": "/", "type": "Directory" } }),
        json!({ "name": NOTHING, "emptyDir": { "sizeLimit": "1Mi" } }),
    ]
}

/// The node's files, mounted so that nothing can be written through them. What is mounted on the node later does not appear.
pub(crate) fn mounts(path: &str) -> [Value; 2] {
    [
        json!({ "name": FILES, "mountPath": path, "readOnly": true, "recursiveReadOnly": "IfPossible" }),
        json!({ "name": NOTHING, "mountPath": format!("{path}/proc/sys/net"), "readOnly": true }),
    ]
}

/// The names of the volumes.
const FILES: &str = "target";
const NOTHING: &str = "nothing";

/// The scanner's security context: root who may read everything and change nothing, and see what its definition asks to see.
pub(crate) fn security(capabilities: &[Capability]) -> Value {
    let mut context = pod::security();
    context["runAsUser"] = json!(0);
    context["runAsGroup"] = json!(0);
    context["runAsNonRoot"] = json!(false);
    let asked: BTreeSet<&str> = capabilities.iter().map(|capability| capability.name()).collect();
    let added: Vec<&str> = [READ_ALL].into_iter().chain(asked).collect();
    context["capabilities"]["add"] = json!(added);
    context
}

/// What has to be said where the node's runtime could not mount all of it read-only.
pub(crate) fn writable_below(pod: &Pod, container: &str, path: &str) -> Option<String> {
    let all = statuses(pod);
    let mounts = all.get(container).into_iter().flat_map(|status| status.volume_mounts.iter().flatten());
    let whole = mounts
        .filter(|mount| mount.mount_path == path)
        .any(|mount| mount.recursive_read_only.as_deref() == Some("Enabled"));
    (!whole).then(|| {
        "the node's runtime mounts its root read-only, but not what is mounted below it: root in the scanner's container could \
         have written there"
            .to_owned()
    })
}

#[cfg(test)]
mod tests;
