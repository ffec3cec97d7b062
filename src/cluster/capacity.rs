//! How much CPU the nodes have to give.

use k8s_openapi::api::core::v1::Node;

use super::client::Cluster;
use super::error::ClusterError;
use super::objects::list;
use crate::base::limits::Limits;

/// What one node has to give to pods.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// The node's name.
    pub node: String,
    /// Its allocatable CPU, in thousandths of a core.
    pub cpu_millis: u64,
    /// Whether new pods may be put on it: it is not cordoned.
    pub schedulable: bool,
}

impl Capacity {
    /// What the API server says of the node; `None` where it says nothing of its CPU.
    fn of(node: &Node) -> Option<Self> {
        let allocatable = node.status.as_ref()?.allocatable.as_ref()?;
        Some(Self {
            node: node.metadata.name.clone()?,
            cpu_millis: millis(&allocatable.get("cpu")?.0)?,
            schedulable: node.spec.as_ref().is_none_or(|spec| spec.unschedulable != Some(true)),
        })
    }
}

/// What each node has to give. A node that does not say it is not in the list.
///
/// # Errors
/// When the cluster denies to list its nodes, or can't be reached.
pub async fn capacities(cluster: &Cluster, limits: &Limits) -> Result<Vec<Capacity>, ClusterError> {
    let nodes = list::<Node>(cluster, "ask for the CPU of the nodes", "/api/v1/nodes", &[], limits.fact_items).await?;
    Ok(nodes.iter().filter_map(Capacity::of).collect())
}

/// A CPU quantity of Kubernetes in thousandths of a core, what is less than one rounded up; `None` for anything else.
pub fn millis(quantity: &str) -> Option<u64> {
    let number = quantity.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let per_core = match &quantity[number.len()..] {
        "" => 1e3,
        "m" => 1.0,
        "u" => 1e-3,
        "n" => 1e-6,
        "k" => 1e6,
        _ => return None,
    };
    let millis = (number.parse::<f64>().ok()? * per_core).ceil();
    // Beyond this it is no machine.
    (0.0..=1e12).contains(&millis).then_some(millis as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_read_as_kubernetes_writes_them() {
        for (text, expected) in
            [("2", 2000), ("500m", 500), ("0.1", 100), ("1500000u", 1500), ("1n", 1), ("0", 0), ("1.0005", 1001)]
        {
            assert_eq!(millis(text), Some(expected), "{text}");
        }
        for text in ["", "m", "1Gi", "-1", "1e400", "inf", "NaN", "one"] {
            assert_eq!(millis(text), None, "{text}");
        }
    }

    #[test]
    fn a_cordoned_node_gives_nothing_to_new_pods() {
        let node = |unschedulable: bool| -> Node {
            let node = serde_json::json!({ "metadata": { "name": "a" }, "spec": { "unschedulable": unschedulable },
                "status": { "allocatable": { "cpu": "2", "memory": "1Gi" } } });
            serde_json::from_value(node).expect("a node")
        };
        let of = |unschedulable| Capacity::of(&node(unschedulable)).expect("it says its CPU");
        assert_eq!(of(false), Capacity { node: "a".to_owned(), cpu_millis: 2000, schedulable: true });
        assert!(!of(true).schedulable);
        assert_eq!(Capacity::of(&Node::default()), None);
    }
}
