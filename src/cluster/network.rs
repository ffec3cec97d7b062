//! NetworkPolicies: deny all, and the few allowances that one task needs. Pure: they say what, others apply it.

pub(crate) mod restriction;
pub(crate) mod standing;

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use serde_json::{Value, json};

/// No traffic in either direction, for every pod of the namespace.
///
/// A scan needs no allowance beside it: the kubelet pulls images and carries exec, and neither is the pod's traffic.
pub(crate) fn default_deny() -> Value {
    json!({ "spec": { "podSelector": {}, "policyTypes": ["Ingress", "Egress"] } })
}

/// No traffic in either direction for the pods with all these labels.
pub(crate) fn deny(labels: &restriction::Labels) -> Value {
    json!({ "spec": { "podSelector": { "matchLabels": labels }, "policyTypes": ["Ingress", "Egress"] } })
}

/// Egress from pods with one label to pods with another, on one TCP port, in the same namespace.
pub(crate) fn egress(from: (&str, &str), to: &[(&str, &str)], port: u16) -> Value {
    json!({ "spec": {
        "podSelector": selector(from),
        "policyTypes": ["Egress"],
        "egress": [{ "to": peers(to), "ports": [{ "protocol": "TCP", "port": port }] }],
    } })
}

/// Egress from pods with one label to these addresses and ports by TCP, and to nothing else. An address is named as itself: what
/// is behind a service's address has to be resolved before, since most networks match policies after it was translated.
pub(crate) fn egress_to(from: (&str, &str), to: &BTreeSet<SocketAddr>) -> Value {
    let block = |ip: IpAddr| match ip {
        IpAddr::V4(ip) => format!("{ip}/32"),
        IpAddr::V6(ip) => format!("{ip}/128"),
    };
    let rule = |at: &SocketAddr| json!({ "to": [{ "ipBlock": { "cidr": block(at.ip()) } }], "ports": [{ "protocol": "TCP", "port": at.port() }] });
    json!({ "spec": {
        "podSelector": selector(from),
        "policyTypes": ["Egress"],
        "egress": to.iter().map(rule).collect::<Vec<_>>(),
    } })
}

/// Pods of some namespace, at some of their ports.
#[derive(Clone, Debug)]
pub(crate) struct PodPeer<'a> {
    pub(crate) namespace: &'a str,
    /// All of these.
    pub(crate) labels: &'a restriction::Labels,
    /// By TCP.
    pub(crate) ports: BTreeSet<u16>,
}

/// The label of each namespace that is its name, which the API server holds to be so.
const NAMESPACE: &str = "kubernetes.io/metadata.name";

/// Egress from pods with one label to these pods of any namespaces, and to nothing else.
pub(crate) fn egress_to_pods(from: (&str, &str), to: &[PodPeer<'_>]) -> Value {
    let rule = |peer: &PodPeer<'_>| {
        let pods = json!({ "matchLabels": peer.labels });
        let ports: Vec<Value> = peer.ports.iter().map(|port| json!({ "protocol": "TCP", "port": port })).collect();
        json!({
            "to": [{ "namespaceSelector": selector((NAMESPACE, peer.namespace)), "podSelector": pods }],
            "ports": ports,
        })
    };
    json!({ "spec": {
        "podSelector": selector(from),
        "policyTypes": ["Egress"],
        "egress": to.iter().map(rule).collect::<Vec<_>>(),
    } })
}

/// Ingress to pods with one label from pods with others, on these TCP ports, in the same namespace.
pub(crate) fn ingress(to: (&str, &str), from: &[(&str, &str)], ports: &[u16]) -> Value {
    let ports: Vec<Value> = ports.iter().map(|port| json!({ "protocol": "TCP", "port": port })).collect();
    json!({ "spec": {
        "podSelector": selector(to),
        "policyTypes": ["Ingress"],
        "ingress": [{ "from": peers(from), "ports": ports }],
    } })
}

fn selector((label, value): (&str, &str)) -> Value {
    json!({ "matchLabels": { label: value } })
}

fn peers(labels: &[(&str, &str)]) -> Vec<Value> {
    labels.iter().map(|label| json!({ "podSelector": selector(*label) })).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::networking::v1::NetworkPolicy;

    #[test]
    fn every_field_is_one_that_kubernetes_knows() {
        let servers = BTreeSet::from(["10.0.0.1:6443", "[fd00::1]:6443"].map(|at| at.parse().expect("an address")));
        let labels = restriction::Labels::from([("b".to_owned(), "2".to_owned())]);
        for policy in [
            default_deny(),
            egress(("a", "1"), &[("b", "2")], 80),
            ingress(("a", "1"), &[("b", "2")], &[80, 81]),
            deny(&restriction::Labels::from([("a".to_owned(), "1".to_owned())])),
            egress_to(("a", "1"), &servers),
            egress_to_pods(("a", "1"), &[PodPeer { namespace: "n", labels: &labels, ports: BTreeSet::from([1, 2]) }]),
        ] {
            let read: NetworkPolicy = serde_json::from_value(policy.clone()).expect("a policy");
            let again = serde_json::to_value(read).expect("the same");
            assert_eq!(again["spec"], policy["spec"]);
        }
        // An empty `ingress` or `egress` list with its type named denies all; so does the absent list.
        assert!(default_deny()["spec"].get("egress").is_none());
    }

    #[test]
    fn an_allowance_names_each_address_with_its_own_port() {
        let to = BTreeSet::from(["10.0.0.1:6443", "[fd00::1]:8443"].map(|at| at.parse().expect("an address")));
        let rules = egress_to(("a", "1"), &to)["spec"]["egress"].clone();
        assert_eq!(
            rules,
            json!([
                { "to": [{ "ipBlock": { "cidr": "10.0.0.1/32" } }], "ports": [{ "protocol": "TCP", "port": 6443 }] },
                { "to": [{ "ipBlock": { "cidr": "fd00::1/128" } }], "ports": [{ "protocol": "TCP", "port": 8443 }] },
            ])
        );
        assert_eq!(egress_to(("a", "1"), &BTreeSet::new())["spec"]["egress"], json!([]), "no address allows nothing");
    }
}
