//! A service that a scanner may talk to: its address, and the addresses of the pods behind it, as they are now.
//!
//! A policy is matched after a service's address was translated, so that an allowance has to name what is behind it. That is
//! what others write: whoever can change EndpointSlices in a namespace could have a service lead to a node, to the cloud's
//! metadata, or out of the cluster (CVE-2021-25740). So an address counts only where it is that of a pod of the service's
//! namespace with a network of its own, as the pod's own status says, which the kubelet writes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use k8s_openapi::api::core::v1::{Pod, Service, ServicePort as PortOfService};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde_json::{Value, json};

use super::client::Cluster;
use super::error::ClusterError;
use super::object::{Kind, ObjectRef};
use super::objects::list;
use crate::base::text::brief;
use crate::model::scanner::ServicePort;

/// The label of an EndpointSlice that names its service.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// EndpointSlices of a service, at most: each has up to 1000 endpoints.
const SLICES: usize = 100;

/// Pods behind a service, at most: each is asked for, and each is a rule of a policy.
const PODS: usize = 64;

/// A service of the cluster that a scan's pod may talk to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination {
    /// What the scanner's definition calls it.
    pub name: String,
    /// Which one it is.
    pub service: ServicePort,
    /// Its own addresses.
    pub addresses: BTreeSet<IpAddr>,
    /// Where its pods listen.
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

/// Finds out where the service is now: one request for it, one for what is behind it, and one for each of these pods.
///
/// # Errors
/// When there is no such service or port, or it leads to anything but pods of its namespace; when the cluster denies it or
/// can't be reached.
pub async fn destination(cluster: &Cluster, name: &str, service: &ServicePort) -> Result<Destination, ClusterError> {
    let namespace = service.namespace();
    let refused = |why: String| ClusterError::Egress { service: service.to_string(), why };
    let object = ObjectRef::namespaced(Kind::Service, namespace, service.service());
    let found: Service = match cluster.get(&format!("read {object}"), object.path()).await {
        Err(ClusterError::Missing { .. }) => return Err(refused("there is no such service".to_owned())),
        outcome => outcome?,
    };
    let (addresses, port) = of_service(&found, service.port()).map_err(refused)?;
    let what = format!("look at what is behind {object}");
    let path = format!("/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices");
    let label = format!("{SERVICE_NAME}={}", service.service());
    let slices = list::<EndpointSlice>(cluster, &what, &path, &[("labelSelector", label.as_str())], SLICES).await?;
    let behind = endpoints(&slices, port.as_deref(), namespace).map_err(refused)?;
    let mut pods = BTreeSet::new();
    for (name, at) in &behind {
        let object = ObjectRef::namespaced(Kind::Pod, namespace, *name);
        let pod: Pod = match cluster.get(&format!("read {object}"), object.path()).await {
            // It went away since the list was read: nobody is let through to where it was.
            Err(ClusterError::Missing { .. }) => continue,
            outcome => outcome?,
        };
        is_of(&pod, name, at).map_err(refused)?;
        pods.extend(at);
    }
    if pods.is_empty() {
        return Err(refused("no pod behind it is ready".to_owned()));
    }
    Ok(Destination { name: name.to_owned(), service: service.clone(), addresses, pods })
}

/// The service's own addresses, and the name of this port of it.
fn of_service(service: &Service, port: u16) -> Result<(BTreeSet<IpAddr>, Option<String>), String> {
    let spec = service.spec.clone().unwrap_or_default();
    if spec.type_.as_deref() == Some("ExternalName") {
        return Err("it is a name for somebody outside the cluster".to_owned());
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
    match ports.iter().find(tcp) {
        Some(found) => Ok((addresses, found.name.clone())),
        None => Err(format!("it has no port {port} by TCP")),
    }
}

/// Where the ready pods behind this port of a service listen, by their names.
fn endpoints<'s>(
    slices: &'s [EndpointSlice],
    port: Option<&str>,
    namespace: &str,
) -> Result<BTreeMap<&'s str, BTreeSet<SocketAddr>>, String> {
    let mut found: BTreeMap<&str, BTreeSet<SocketAddr>> = BTreeMap::new();
    for slice in slices {
        let named = |name: Option<&str>| name.unwrap_or_default() == port.unwrap_or_default();
        let ports = slice.ports.iter().flatten().filter(|one| named(one.name.as_deref()));
        let ports = ports.filter(|one| matches!(one.protocol.as_deref(), None | Some("TCP")));
        let ports: Vec<u16> = ports.filter_map(|one| u16::try_from(one.port?).ok().filter(|port| *port != 0)).collect();
        for endpoint in slice.endpoints.iter().flatten() {
            let ready = endpoint.conditions.as_ref().and_then(|conditions| conditions.ready);
            if ready == Some(false) || ports.is_empty() {
                continue;
            }
            let first = endpoint.addresses.first().map_or("nothing", String::as_str);
            let target = endpoint.target_ref.as_ref().filter(|target| {
                target.kind.as_deref() == Some("Pod") && target.namespace.as_deref().is_none_or(|of| of == namespace)
            });
            let Some(pod) = target.and_then(|target| target.name.as_deref()) else {
                return Err(format!("{} is behind it, which is no pod of its namespace", brief(first)));
            };
            for ip in &endpoint.addresses {
                let ip: IpAddr = ip.parse().map_err(|_| format!("{} is behind it, which is no address", brief(ip)))?;
                found.entry(pod).or_default().extend(ports.iter().map(|port| SocketAddr::new(ip, *port)));
            }
        }
    }
    match found.len() {
        0..=PODS => Ok(found),
        more => Err(format!("{more} pods are behind it, and at most {PODS} are let through to")),
    }
}

/// Sees that these are addresses of the pod, and of nobody else.
fn is_of(pod: &Pod, name: &str, at: &BTreeSet<SocketAddr>) -> Result<(), String> {
    let name = brief(name);
    if pod.spec.as_ref().and_then(|spec| spec.host_network) == Some(true) {
        return Err(format!("its pod `{name}` has its node's network, so that the node would be let through to"));
    }
    let status = pod.status.clone().unwrap_or_default();
    let ips = status.pod_ips.into_iter().flatten().map(|ip| ip.ip).chain(status.pod_ip);
    let ips: BTreeSet<IpAddr> = ips.filter_map(|ip| ip.parse().ok()).filter(|ip| is_plain(*ip)).collect();
    match at.iter().find(|at| !ips.contains(&at.ip())) {
        None => Ok(()),
        Some(other) => Err(format!("{} is behind it, which is not the address of pod `{name}`", other.ip())),
    }
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

    fn slice(ports: Value, endpoints: Value) -> EndpointSlice {
        let slice = json!({ "addressType": "IPv4", "ports": ports, "endpoints": endpoints });
        serde_json::from_value(slice).expect("a slice")
    }

    fn pod(name: &str, ips: &[&str]) -> Value {
        json!({ "addresses": ips, "targetRef": { "kind": "Pod", "namespace": "security", "name": name } })
    }

    #[test]
    fn a_service_is_one_of_the_cluster_with_the_port_that_is_meant() {
        let ports = json!([{ "name": "api", "port": 6060 }, { "name": "udp", "port": 53, "protocol": "UDP" }]);
        let plain = service(json!({ "clusterIP": "10.96.0.9", "ports": ports }));
        let (addresses, port) = of_service(&plain, 6060).expect("a service");
        assert_eq!((addresses.len(), port.as_deref()), (1, Some("api")));
        let dual = service(json!({ "clusterIP": "10.96.0.9", "clusterIPs": ["10.96.0.9", "fd00::9"], "ports": ports }));
        assert_eq!(of_service(&dual, 6060).expect("a service").0.len(), 2);
        for (spec, port, why) in [
            (json!({ "type": "ExternalName", "externalName": "example.org" }), 443, "outside the cluster"),
            (json!({ "clusterIP": "None", "ports": ports }), 6060, "headless"),
            (json!({ "ports": ports }), 6060, "no address yet"),
            (json!({ "clusterIP": "169.254.169.254", "ports": ports }), 6060, "none of a service"),
            (json!({ "clusterIP": "10.96.0.9", "ports": ports }), 6061, "no port 6061"),
            (json!({ "clusterIP": "10.96.0.9", "ports": ports }), 53, "no port 53 by TCP"),
        ] {
            let refused = of_service(&service(spec), port).expect_err(why);
            assert!(refused.contains(why), "{refused}");
        }
    }

    #[test]
    fn behind_a_service_are_ready_pods_of_its_namespace_and_nothing_else() {
        let ports = json!([{ "name": "api", "port": 8080 }, { "name": "metrics", "port": 9090 }]);
        let mut tired = pod("c", &["10.0.0.3"]);
        tired["conditions"] = json!({ "ready": false });
        let there = [slice(ports.clone(), json!([pod("a", &["10.0.0.1"]), pod("b", &["10.0.0.2"]), tired]))];
        let found = endpoints(&there, Some("api"), "security").expect("pods");
        let all: Vec<String> = found.values().flatten().map(ToString::to_string).collect();
        assert_eq!(all, ["10.0.0.1:8080", "10.0.0.2:8080"]);
        assert!(endpoints(&there, Some("other"), "security").expect("no such port").is_empty());
        assert!(endpoints(&[], None, "security").expect("nothing").is_empty());

        let elsewhere =
            json!({ "addresses": ["10.0.0.9"], "targetRef": { "kind": "Pod", "namespace": "shop", "name": "x" } });
        let node = json!({ "addresses": ["10.0.0.9"], "targetRef": { "kind": "Node", "name": "x" } });
        for (endpoint, why) in [
            (json!({ "addresses": ["169.254.169.254"] }), "169.254.169.254 is behind it, which is no pod"),
            (elsewhere, "no pod of its namespace"),
            (node, "no pod of its namespace"),
            (pod("a", &["example.org"]), "no address"),
        ] {
            let refused =
                endpoints(&[slice(ports.clone(), json!([endpoint]))], Some("api"), "security").expect_err(why);
            assert!(refused.contains(why), "{refused}");
        }
        let many: Vec<Value> = (0..=PODS).map(|n| pod(&format!("p{n}"), &["10.0.0.1"])).collect();
        let refused = endpoints(&[slice(ports, json!(many))], Some("api"), "security").expect_err("too many");
        assert!(refused.contains("65 pods"), "{refused}");
    }

    #[test]
    fn an_address_is_a_pods_where_the_pod_says_so() {
        let at = |text: &str| BTreeSet::from([text.parse::<SocketAddr>().expect("an address")]);
        let pod = |spec: Value, status: Value| -> Pod {
            serde_json::from_value(json!({ "spec": spec, "status": status })).expect("a pod")
        };
        let plain = json!({ "containers": [] });
        let status = json!({ "podIP": "10.0.0.1", "podIPs": [{ "ip": "10.0.0.1" }, { "ip": "fd00::1" }] });
        let one = pod(plain.clone(), status.clone());
        assert_eq!(is_of(&one, "a", &at("10.0.0.1:1")), Ok(()));
        assert_eq!(is_of(&one, "a", &at("[fd00::1]:1")), Ok(()));
        let other = is_of(&one, "a", &at("10.0.0.2:1")).expect_err("somebody else's");
        assert!(other.contains("10.0.0.2 is behind it, which is not the address of pod `a`"), "{other}");
        let node = pod(json!({ "containers": [], "hostNetwork": true }), status);
        assert!(is_of(&node, "a", &at("10.0.0.1:1")).expect_err("a node's").contains("its node's network"));
        let liar = pod(plain, json!({ "podIP": "127.0.0.1" }));
        assert!(is_of(&liar, "a", &at("127.0.0.1:1")).is_err());
    }

    #[test]
    fn names_are_known_in_the_pod_by_the_services_addresses() {
        let destination = |name: &str, ips: &[&str]| Destination {
            name: name.to_owned(),
            service: format!("security/{name}:6060").parse().expect("a port"),
            addresses: ips.iter().map(|ip| ip.parse().expect("an address")).collect(),
            pods: BTreeSet::from(["10.0.0.1:8080".parse().expect("an address")]),
        };
        let both = [destination("clair", &["10.96.0.9"]), destination("feed", &["10.96.0.7", "fd00::7"])];
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
        assert_eq!(peers, ["10.96.0.9:6060", "10.0.0.1:8080"]);
    }
}
