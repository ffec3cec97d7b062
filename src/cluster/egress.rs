//! A service that a scanner may talk to: its address, and the pods behind it.
//!
//! A policy is matched after a service's address was translated, so that an allowance is for what is behind it. That is named by
//! the labels that the service selects its pods by, and not by addresses: networks that tell pods by identities never match a pod
//! by its address (Cilium), and a pod that replaces another one has its labels. EndpointSlices are not asked: whoever can write them
//! in a namespace could have a service lead to a node, to the cloud's metadata, or out of the cluster (CVE-2021-25740), and a
//! service that leads where such a slice says, and nowhere else, is refused.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use k8s_openapi::api::core::v1::{Pod, Service, ServicePort as PortOfService};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::{Value, json};

use super::client::Cluster;
use super::error::ClusterError;
use super::network::{self, PodPeer};
use super::object::{Kind, ObjectRef};
use super::objects::list;
use crate::base::text::brief;
use crate::model::scanner::ServicePort;

/// Pods that a service selects, at most.
const PODS: usize = 1000;

/// A service of the cluster that a scan's pod may talk to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination {
    /// What the scanner's definition calls it.
    pub name: String,
    /// Which one it is.
    pub service: ServicePort,
    /// Its own addresses.
    pub addresses: BTreeSet<IpAddr>,
    /// The labels of its pods; never none.
    pub selector: BTreeMap<String, String>,
    /// Where those that are ready listen now.
    pub pods: BTreeSet<SocketAddr>,
}

impl Destination {
    /// What the placeholder stands for: `SERVICE.NAMESPACE.svc:PORT`.
    pub fn authority(&self) -> String {
        format!("{}:{}", self.service.host(), self.service.port())
    }

    /// All addresses by which the scanner may be seen to talk to it: most networks translate the service's to a pod's outside the
    /// scanner's pod, some inside.
    pub fn peers(&self) -> impl Iterator<Item = SocketAddr> {
        let own = self.addresses.iter().map(|ip| SocketAddr::new(*ip, self.service.port()));
        own.chain(self.pods.iter().copied())
    }
}

/// What makes the destinations' names known in a pod, without a name server, which a pod of a scan can't reach.
pub(super) fn host_aliases(destinations: &[Destination]) -> Value {
    let mut names: BTreeMap<IpAddr, BTreeSet<String>> = BTreeMap::new();
    for destination in destinations {
        for ip in &destination.addresses {
            names.entry(*ip).or_default().insert(destination.service.host());
        }
    }
    names.iter().map(|(ip, hosts)| json!({ "ip": ip.to_string(), "hostnames": hosts })).collect()
}

/// The policy that lets pods with one label through to the destinations' pods, at their ports.
pub(super) fn allowance(from: (&str, &str), destinations: &[Destination]) -> Value {
    let peers = destinations.iter().map(|to| PodPeer {
        namespace: to.service.namespace(),
        labels: &to.selector,
        ports: to.pods.iter().map(SocketAddr::port).collect(),
    });
    network::egress_to_pods(from, &peers.collect::<Vec<_>>())
}

/// Finds out where the service is now: one request for it, and one for its pods.
///
/// # Errors
/// When there is no such service or port, or it leads to anything but pods of its namespace that have their own network; when the
/// cluster denies it or can't be reached.
pub async fn destination(cluster: &Cluster, name: &str, service: &ServicePort) -> Result<Destination, ClusterError> {
    let namespace = service.namespace();
    let refused = |why: String| ClusterError::Egress { service: service.to_string(), why };
    let object = ObjectRef::namespaced(Kind::Service, namespace, service.service());
    let found: Service = match cluster.get(&format!("read {object}"), object.path()).await {
        Err(ClusterError::Missing { .. }) => return Err(refused("there is no such service".to_owned())),
        outcome => outcome?,
    };
    let Selected { addresses, selector, port } = selected(&found, service.port()).map_err(refused)?;
    let labels: Vec<String> = selector.iter().map(|(label, value)| format!("{label}={value}")).collect();
    let (what, path) = (format!("look at the pods of {object}"), Kind::Pod.collection(Some(namespace)));
    let pods = list::<Pod>(cluster, &what, &path, &[("labelSelector", labels.join(",").as_str())], PODS).await?;
    let pods = listening(&pods, &port).map_err(refused)?;
    Ok(Destination { name: name.to_owned(), service: service.clone(), addresses, selector, pods })
}

/// What a service says of one of its ports.
#[derive(Debug, PartialEq, Eq)]
struct Selected {
    addresses: BTreeSet<IpAddr>,
    selector: BTreeMap<String, String>,
    /// The port of its pods, or its name in them.
    port: IntOrString,
}

fn selected(service: &Service, port: u16) -> Result<Selected, String> {
    let spec = service.spec.clone().unwrap_or_default();
    if spec.type_.as_deref() == Some("ExternalName") {
        return Err("it is a name for somebody outside the cluster".to_owned());
    }
    let selector = spec.selector.unwrap_or_default();
    if selector.is_empty() {
        return Err("it selects no pods, so that it leads where somebody's EndpointSlice says".to_owned());
    }
    let addresses = spec.cluster_ips.or_else(|| Some(vec![spec.cluster_ip?])).unwrap_or_default();
    let addresses: BTreeSet<IpAddr> = addresses
        .iter()
        .map(|ip| ip.parse().map_err(|_| "it has no address of its own (it is headless)".to_owned()))
        .collect::<Result<_, _>>()?;
    if addresses.is_empty() {
        return Err("it has no address yet".to_owned());
    }
    if let Some(ip) = addresses.iter().find(|ip| !is_plain(**ip)) {
        return Err(format!("its address {ip} can be none of a service"));
    }
    let ports = spec.ports.unwrap_or_default();
    let tcp =
        |one: &&PortOfService| one.port == i32::from(port) && matches!(one.protocol.as_deref(), None | Some("TCP"));
    let found = ports.iter().find(tcp).ok_or_else(|| format!("it has no port {port} by TCP"))?;
    let port = found.target_port.clone().unwrap_or(IntOrString::Int(found.port));
    Ok(Selected { addresses, selector, port })
}

/// Where those of the pods that are ready listen, by this port or by what it is called in them.
fn listening(pods: &[Pod], port: &IntOrString) -> Result<BTreeSet<SocketAddr>, String> {
    let mut found = BTreeSet::new();
    for pod in pods {
        let name = brief(pod.metadata.name.as_deref().unwrap_or_default());
        let spec = pod.spec.clone().unwrap_or_default();
        // Ready or not: the labels are let through to.
        if spec.host_network == Some(true) {
            return Err(format!("its pod `{name}` has its node's network, so that the node would be let through to"));
        }
        if !is_ready(pod) {
            continue;
        }
        let number = match port {
            IntOrString::Int(number) => Some(*number),
            IntOrString::String(called) => {
                let sidecars = spec.init_containers.iter().flatten();
                let ports =
                    spec.containers.iter().chain(sidecars).flat_map(|container| container.ports.iter().flatten());
                let mut ports = ports.filter(|port| matches!(port.protocol.as_deref(), None | Some("TCP")));
                ports.find(|port| port.name.as_ref() == Some(called)).map(|port| port.container_port)
            }
        };
        // A pod without a port of that name is not behind the service.
        let Some(number) = number else { continue };
        let number = u16::try_from(number).ok().filter(|number| *number != 0);
        let number = number.ok_or_else(|| format!("its pod `{name}` can't listen at such a port"))?;
        let status = pod.status.clone().unwrap_or_default();
        for ip in status.pod_ips.into_iter().flatten().map(|ip| ip.ip).chain(status.pod_ip) {
            let plain = ip.parse().ok().filter(|ip| is_plain(*ip));
            let ip = plain.ok_or_else(|| format!("its pod `{name}` can't be at {}", brief(&ip)))?;
            found.insert(SocketAddr::new(ip, number));
        }
    }
    match found.is_empty() {
        true => Err("no pod behind it is ready".to_owned()),
        false => Ok(found),
    }
}

fn is_ready(pod: &Pod) -> bool {
    let mut conditions = pod.status.iter().filter_map(|status| status.conditions.as_ref()).flatten();
    let ready = conditions.any(|one| one.type_ == "Ready" && one.status == "True");
    ready && pod.metadata.deletion_timestamp.is_none()
}

/// Whether this can be the address of a pod or a service: one of one machine, beyond the next cable.
fn is_plain(ip: IpAddr) -> bool {
    let local = match ip {
        IpAddr::V4(ip) => ip.is_link_local() || ip.is_broadcast(),
        IpAddr::V6(ip) => ip.is_unicast_link_local() || ip.to_ipv4_mapped().is_some(),
    };
    !(local || ip.is_loopback() || ip.is_multicast() || ip.is_unspecified())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(spec: Value) -> Service {
        serde_json::from_value(json!({ "spec": spec })).expect("a service")
    }

    /// A pod that is ready, with what it says otherwise.
    fn pod(spec: Value, status: Value) -> Pod {
        let mut pod = json!({
            "metadata": { "name": "a" },
            "spec": { "containers": [{ "name": "c", "ports": [{ "name": "api", "containerPort": 8080 }] }] },
            "status": { "podIP": "10.0.0.1", "conditions": [{ "type": "Ready", "status": "True" }] },
        });
        for (at, changes) in [("spec", spec), ("status", status)] {
            for (field, value) in changes.as_object().expect("fields") {
                pod[at][field] = value.clone();
            }
        }
        serde_json::from_value(pod).expect("a pod")
    }

    fn at(pods: &[Pod], port: Value) -> Result<Vec<String>, String> {
        let port = serde_json::from_value(port).expect("a port");
        listening(pods, &port).map(|found| found.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn a_service_is_one_of_the_cluster_that_selects_its_pods() {
        let ports = json!([{ "port": 6060, "targetPort": "api" }, { "port": 53, "protocol": "UDP" }, { "port": 80 }]);
        let app = json!({ "app": "clair" });
        let plain = json!({ "clusterIP": "10.96.0.9", "selector": app, "ports": ports });
        let found = selected(&service(plain.clone()), 6060).expect("a service");
        assert_eq!((found.addresses.len(), found.port), (1, IntOrString::String("api".to_owned())));
        assert_eq!(selected(&service(plain), 80).expect("a service").port, IntOrString::Int(80));
        let both = json!(["10.96.0.9", "fd00::9"]);
        let dual = service(json!({ "clusterIP": "10.96.0.9", "clusterIPs": both, "selector": app, "ports": ports }));
        assert_eq!(selected(&dual, 6060).expect("a service").addresses.len(), 2);
        for (spec, port, why) in [
            (json!({ "type": "ExternalName", "externalName": "example.org" }), 443, "outside the cluster"),
            (json!({ "clusterIP": "10.96.0.9", "ports": ports }), 6060, "it selects no pods"),
            (json!({ "clusterIP": "10.96.0.9", "selector": {}, "ports": ports }), 6060, "it selects no pods"),
            (json!({ "clusterIP": "None", "selector": app, "ports": ports }), 6060, "headless"),
            (json!({ "selector": app, "ports": ports }), 6060, "no address yet"),
            (json!({ "clusterIP": "169.254.169.254", "selector": app, "ports": ports }), 6060, "none of a service"),
            (json!({ "clusterIP": "10.96.0.9", "selector": app, "ports": ports }), 6061, "no port 6061"),
            (json!({ "clusterIP": "10.96.0.9", "selector": app, "ports": ports }), 53, "no port 53 by TCP"),
        ] {
            let refused = selected(&service(spec), port).expect_err(why);
            assert!(refused.contains(why), "{refused}");
        }
    }

    #[test]
    fn behind_a_service_are_ready_pods_with_a_network_of_their_own_and_nothing_else() {
        let plain = || pod(json!({}), json!({}));
        let dual =
            pod(json!({}), json!({ "podIPs": [{ "ip": "10.0.0.2" }, { "ip": "fd00::2" }], "podIP": "10.0.0.2" }));
        let other = pod(json!({ "containers": [{ "name": "c" }] }), json!({ "podIP": "10.0.0.3" }));
        let tired = pod(json!({}), json!({ "conditions": [{ "type": "Ready", "status": "False" }] }));
        let mut going = pod(json!({}), json!({ "podIP": "10.0.0.5" }));
        going.metadata.deletion_timestamp = serde_json::from_value(json!("2026-01-01T00:00:00Z")).expect("a time");
        let all = [plain(), dual, other, going];
        let named = ["10.0.0.1:8080", "10.0.0.2:8080", "[fd00::2]:8080"].map(str::to_owned);
        assert_eq!(at(&all, json!("api")).expect("pods"), named);
        let numbered = at(&all, json!(9090)).expect("pods");
        assert!(numbered.contains(&"10.0.0.3:9090".to_owned()) && numbered.len() == 4, "{numbered:?}");
        for (pods, port, why) in [
            (vec![], json!(1), "no pod behind it is ready"),
            (vec![tired], json!(1), "no pod behind it is ready"),
            (vec![plain()], json!("metrics"), "no pod behind it is ready"),
            (vec![plain()], json!(0), "can't listen at such a port"),
            (vec![plain(), pod(json!({ "hostNetwork": true }), json!({}))], json!("api"), "its node's network"),
            (
                vec![plain(), pod(json!({ "hostNetwork": true }), json!({ "conditions": [] }))],
                json!(1),
                "its node's network",
            ),
            (vec![pod(json!({}), json!({ "podIP": "127.0.0.1" }))], json!(1), "can't be at 127.0.0.1"),
            (vec![pod(json!({}), json!({ "podIP": "169.254.169.254" }))], json!(1), "can't be at 169.254.169.254"),
        ] {
            let refused = at(&pods, port).expect_err(why);
            assert!(refused.contains(why), "{refused}");
        }
    }

    #[test]
    fn a_pod_knows_the_names_and_is_let_through_to_the_pods() {
        let destination = |name: &str, ips: &[&str], pods: &[&str]| Destination {
            name: name.to_owned(),
            service: format!("security/{name}:6060").parse().expect("a port"),
            addresses: ips.iter().map(|ip| ip.parse().expect("an address")).collect(),
            selector: BTreeMap::from([("app".to_owned(), name.to_owned())]),
            pods: pods.iter().map(|pod| pod.parse().expect("an address")).collect(),
        };
        let both = [
            destination("clair", &["10.96.0.9"], &["10.0.0.1:8080", "10.0.0.2:8080"]),
            destination("feed", &["10.96.0.7", "fd00::7"], &["10.0.0.3:443"]),
        ];
        assert_eq!(
            host_aliases(&both),
            json!([
                { "ip": "10.96.0.7", "hostnames": ["feed.security.svc"] },
                { "ip": "10.96.0.9", "hostnames": ["clair.security.svc"] },
                { "ip": "fd00::7", "hostnames": ["feed.security.svc"] },
            ])
        );
        assert_eq!(both[0].authority(), "clair.security.svc:6060");
        let peers: Vec<String> = both[0].peers().map(|at| at.to_string()).collect();
        assert_eq!(peers, ["10.96.0.9:6060", "10.0.0.1:8080", "10.0.0.2:8080"]);
        let namespace = json!({ "matchLabels": { "kubernetes.io/metadata.name": "security" } });
        let rule = |app: &str, port: u16| {
            json!({
                "to": [{ "namespaceSelector": namespace, "podSelector": { "matchLabels": { "app": app } } }],
                "ports": [{ "protocol": "TCP", "port": port }],
            })
        };
        let allowed = allowance(("scan", "1"), &both);
        assert_eq!(allowed["spec"]["egress"], json!([rule("clair", 8080), rule("feed", 443)]));
        assert_eq!(allowed["spec"]["podSelector"], json!({ "matchLabels": { "scan": "1" } }));
    }
}
