//! The network of the runner's namespace: nothing in either direction, but egress to the API server and to the registries; and
//! where results come by upload, ingress from the pods that send them to the one port where they are taken.
//!
//! Addresses and no names: policies are matched after a service's address was translated, and a runner that asks no name
//! server needs no way to one. Where an address changes, `install` run again writes the new one.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU16;

use serde_json::{Value, json};

use super::{Manifest, Settings};
use crate::cluster::job::SENDER;
use crate::cluster::network::default_deny;
use crate::cluster::object::{Kind, MANAGED_BY, MANAGED_BY_VALUE, ObjectRef, RUN};

pub(super) fn policies(settings: &Settings) -> Vec<Manifest> {
    let policy = |name: &str, body| {
        Manifest::new(settings, ObjectRef::namespaced(Kind::NetworkPolicy, &settings.namespace, name), body)
    };
    let of_registries = settings
        .registries
        .iter()
        .flat_map(|host| host.addresses.iter().map(|address| SocketAddr::new(*address, host.port)));
    let wanted: BTreeSet<SocketAddr> = settings.servers.iter().copied().chain(of_registries).collect();
    let mut all = vec![policy("default-deny", default_deny()), policy("runner", egress(&wanted))];
    all.extend(settings.upload_port.map(|port| policy("results", senders(port))));
    all
}

/// Ingress to the runner's one port from pods of scans that send their results, wherever a run has them, and from nobody else.
fn senders(port: NonZeroU16) -> Value {
    let (label, value) = SENDER;
    let runs = json!([
        { "key": MANAGED_BY, "operator": "In", "values": [MANAGED_BY_VALUE] },
        { "key": RUN, "operator": "Exists" },
    ]);
    json!({ "spec": {
        "podSelector": { "matchLabels": { super::runner::COMPONENT: super::runner::RUNNER } },
        "policyTypes": ["Ingress"],
        "ingress": [{
            "from": [{
                "namespaceSelector": { "matchExpressions": runs },
                "podSelector": { "matchLabels": { label: value } },
            }],
            "ports": [{ "protocol": "TCP", "port": port }],
        }],
    } })
}

/// Egress to these addresses from the runner, and to nothing else.
fn egress(wanted: &BTreeSet<SocketAddr>) -> Value {
    let mut by_port: BTreeMap<u16, Vec<Value>> = BTreeMap::new();
    for address in wanted {
        let bits = match address.ip() {
            IpAddr::V4(_) => 32,
            IpAddr::V6(_) => 128,
        };
        let block = json!({ "ipBlock": { "cidr": format!("{}/{bits}", address.ip()) } });
        by_port.entry(address.port()).or_default().push(block);
    }
    let rules: Vec<Value> = by_port
        .into_iter()
        .map(|(port, to)| json!({ "to": to, "ports": [{ "protocol": "TCP", "port": port }] }))
        .collect();
    json!({ "spec": {
        "podSelector": { "matchLabels": { super::runner::COMPONENT: super::runner::RUNNER } },
        "policyTypes": ["Egress"],
        "egress": rules,
    } })
}
