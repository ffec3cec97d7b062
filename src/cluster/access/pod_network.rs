//! The network that an ephemeral container finds itself in: its target's, with all that this one may do.
//!
//! NetworkPolicies select pods, not containers, so nothing can be denied to the ephemeral container alone. What restricts the
//! pod is looked at before the container is started, and recorded. Where policy asks for it, a temporary policy cuts the pod off;
//! what that means, and when it can't be done:
//! * **the application in the pod has no network for as long as this takes**. New connections are not made, in neither direction;
//!   whether those that are there go on is the network's matter;
//! * policies add up: where another one allows the pod anything, denying is without effect, and so it is not done;
//! * it is for exactly one pod: a policy selects by labels, and where another pod of the namespace has all labels of this one, it is
//!   not done either. (Each pod of a StatefulSet has a label of its own; replicas of a Deployment have not.)
//! * a pod in the node's network is beyond all policies.
//!
//! A runner that is killed meanwhile leaves the policy behind. It has a label of its own, by which the next run finds it.

use k8s_openapi::api::core::v1::Pod;

use crate::cluster::client::Cluster;
use crate::cluster::error::ClusterError;
use crate::cluster::namespace::ScanNamespace;
use crate::cluster::network::restriction::{Labels, Restrictions, of_pod};
use crate::cluster::network::{self, standing};
use crate::cluster::object::{Inventory, Kind, ObjectRef};
use crate::cluster::objects::list;

/// The label of a policy that cuts a pod off.
pub(crate) const CUTS: &str = "gapscan.dev/cuts-off";

/// Pods of one namespace that are looked through for another one with the same labels.
const MOST: usize = 100_000;

/// What is known of a pod's network.
#[derive(Clone, Debug)]
pub(crate) struct PodNetwork {
    namespace: String,
    pod: String,
    labels: Labels,
    of_node: bool,
    restrictions: Restrictions,
}

/// Looks at the pod and at the policies of its namespace.
///
/// # Errors
/// When the pod is gone, the cluster denies it or can't be reached.
pub(crate) async fn look(cluster: &Cluster, namespace: &str, pod: &str) -> Result<PodNetwork, ClusterError> {
    let object = ObjectRef::namespaced(Kind::Pod, namespace, pod);
    let found: Pod = cluster.get(&format!("read {object}"), object.path()).await?;
    let policies = standing::of_namespace(cluster, namespace).await?;
    let labels = found.metadata.labels.unwrap_or_default();
    Ok(PodNetwork {
        namespace: namespace.to_owned(),
        pod: pod.to_owned(),
        of_node: found.spec.and_then(|spec| spec.host_network).unwrap_or_default(),
        restrictions: of_pod(&policies, &labels),
        labels,
    })
}

impl PodNetwork {
    /// What it means for who shares it, for the record.
    pub(crate) fn note(&self) -> String {
        let holds = match self.of_node {
            true => "the node's, which no network policy restricts".to_owned(),
            false => format!("its pod's: {}", self.restrictions),
        };
        format!("the ephemeral container shared the network of its target, which is {holds}")
    }

    /// Why the pod can't be cut off by a policy of its own, as far as the policies tell.
    fn obstacle(&self) -> Option<String> {
        if self.of_node {
            return Some("it is in the node's network, which no policy restricts".to_owned());
        }
        if self.labels.is_empty() {
            return Some("it has no labels, and a policy selects by labels".to_owned());
        }
        let names = self.restrictions.can_be_cut().err()?;
        Some(format!("other policies allow it something, which no policy takes away: {}", names.join(", ")))
    }
}

/// Cuts the pod off from the network, by a policy beside it that is to be removed with the inventory. Gives the note for the
/// record, or why it was not done; then nothing was made.
///
/// # Errors
/// When the cluster refuses or can't be reached. What was made until then is in the inventory.
pub(crate) async fn cut(
    cluster: &Cluster,
    home: &ScanNamespace,
    network: &PodNetwork,
    scan: u32,
    inventory: &mut Inventory,
) -> Result<Result<String, String>, ClusterError> {
    let PodNetwork { namespace, pod, labels, .. } = network;
    if let Some(why) = network.obstacle() {
        return Ok(Err(why));
    }
    let selector: Vec<String> = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let selector = selector.join(",");
    let query = [("labelSelector", selector.as_str())];
    let what = format!("look for pods with the labels of `{namespace}/{pod}`");
    let same = list::<Pod>(cluster, &what, &Kind::Pod.collection(Some(namespace)), &query, MOST).await?;
    let others = same.iter().filter(|one| one.metadata.name.as_deref() != Some(pod)).count();
    if others > 0 {
        return Ok(Err(format!("{others} more pods have all of its labels, and would be cut off as well")));
    }
    let name = format!("gapscan-{}-{scan}", home.run().short());
    let object = ObjectRef::namespaced(Kind::NetworkPolicy, namespace, &name);
    let mut policy = network::deny(labels);
    policy["metadata"]["labels"][CUTS] = serde_json::json!("pod");
    inventory.create(cluster, object, policy).await?;
    // What was made meanwhile counts, and so does what became of the pod's labels.
    let now = look(cluster, namespace, pod).await?;
    if !now.restrictions.is_cut() || now.labels != *labels {
        return Ok(Err(format!("it is not cut off by `{name}`: {}", now.restrictions)));
    }
    Ok(Ok(format!(
        "while it was looked at, the pod was cut off from the network by `{namespace}/{name}`, and with it the application"
    )))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::cluster::client::testing::Api;

    const POLICIES: &str = "/apis/networking.k8s.io/v1/namespaces/shop/networkpolicies";

    fn api(pods: &[(&str, Value)], policies: &[(&str, Value)]) -> Api {
        let api = Api::default();
        for (name, labels) in pods {
            let pod = json!({ "metadata": { "name": name, "labels": labels }, "spec": { "containers": [] } });
            api.put(&format!("/api/v1/namespaces/shop/pods/{name}"), pod);
        }
        for (name, spec) in policies {
            api.put(&format!("{POLICIES}/{name}"), json!({ "metadata": { "name": name }, "spec": spec }));
        }
        api
    }

    async fn refusal(api: &Api) -> String {
        let network = look(&api.cluster(), "shop", "api-0").await.expect("it is there");
        network.obstacle().expect("it can't be done")
    }

    #[tokio::test]
    async fn what_restricts_the_pod_is_said() {
        let deny = json!({ "podSelector": {}, "policyTypes": ["Ingress", "Egress"] });
        let api = api(&[("api-0", json!({ "app": "api" }))], &[("deny", deny)]);
        let network = look(&api.cluster(), "shop", "api-0").await.expect("it is there");
        assert!(network.note().ends_with("its pod's: egress is denied by `deny`; ingress is denied by `deny`"));
        assert!(network.obstacle().is_none());
    }

    #[tokio::test]
    async fn a_pod_that_can_not_be_cut_off_is_left_alone() {
        let web = json!({ "podSelector": {}, "ingress": [{}] });
        let allowed = api(&[("api-0", json!({ "app": "api" }))], &[("web", web)]);
        assert!(refusal(&allowed).await.ends_with("takes away: web"));
        assert!(refusal(&api(&[("api-0", json!({}))], &[])).await.contains("no labels"));
        let of_node = Api::default();
        let pod = json!({ "metadata": { "name": "api-0", "labels": { "a": "b" } },
                          "spec": { "containers": [], "hostNetwork": true } });
        of_node.put("/api/v1/namespaces/shop/pods/api-0", pod);
        assert!(refusal(&of_node).await.contains("the node's network"));
    }
}
