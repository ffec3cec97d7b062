//! NetworkPolicies: deny all, and the few allowances that one task needs. Pure: they say what, others apply it.

use serde_json::{Value, json};

/// No traffic in either direction, for every pod of the namespace.
///
/// A scan needs no allowance beside it: the kubelet pulls images and carries exec, and neither is the pod's traffic.
pub(crate) fn default_deny() -> Value {
    json!({ "spec": { "podSelector": {}, "policyTypes": ["Ingress", "Egress"] } })
}

/// Egress from pods with one label to pods with another, on one TCP port, in the same namespace.
pub(crate) fn egress(from: (&str, &str), to: &[(&str, &str)], port: u16) -> Value {
    json!({ "spec": {
        "podSelector": selector(from),
        "policyTypes": ["Egress"],
        "egress": [{ "to": peers(to), "ports": [{ "protocol": "TCP", "port": port }] }],
    } })
}

/// Ingress to pods with one label from pods with others, on one TCP port, in the same namespace.
pub(crate) fn ingress(to: (&str, &str), from: &[(&str, &str)], port: u16) -> Value {
    json!({ "spec": {
        "podSelector": selector(to),
        "policyTypes": ["Ingress"],
        "ingress": [{ "from": peers(from), "ports": [{ "protocol": "TCP", "port": port }] }],
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
        for policy in [default_deny(), egress(("a", "1"), &[("b", "2")], 80), ingress(("a", "1"), &[("b", "2")], 80)] {
            let read: NetworkPolicy = serde_json::from_value(policy.clone()).expect("a policy");
            let again = serde_json::to_value(read).expect("the same");
            assert_eq!(again["spec"], policy["spec"]);
        }
        // An empty `ingress` or `egress` list with its type named denies all; so does the absent list.
        assert!(default_deny()["spec"].get("egress").is_none());
    }
}
