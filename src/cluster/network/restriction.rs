//! What the NetworkPolicies of a namespace mean for one of its pods (networking.k8s.io/v1). Pure.
//!
//! They are additive: a pod that any of them selects in a direction may do there what some of them allows, and nothing else; a pod
//! that none selects may do all. So none can take away what another one gives.

use std::collections::BTreeMap;
use std::fmt;

use k8s_openapi::api::networking::v1::{NetworkPolicy, NetworkPolicySpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::core::{Selector, SelectorExt as _};

/// The labels of an object.
pub(crate) type Labels = BTreeMap<String, String>;

/// Whether a selector matches these labels; without one, all. One that can't be understood, as no API server stores it, is taken to
/// match where `doubtful` says so.
pub(crate) fn selects(selector: Option<&LabelSelector>, labels: &Labels, doubtful: bool) -> bool {
    let Some(selector) = selector else { return true };
    Selector::try_from(selector.clone()).map_or(doubtful, |selector| selector.matches(labels))
}

/// What holds for a pod in one direction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Restriction {
    /// No policy selects it: everything is allowed.
    None,
    /// These policies select it, and none allows anything.
    All(Vec<String>),
    /// What these policies allow gets through, and nothing else.
    But(Vec<String>),
}

/// What holds for a pod in both directions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Restrictions {
    pub(crate) ingress: Restriction,
    pub(crate) egress: Restriction,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    Ingress,
    Egress,
}

/// What the policies, all those of the pod's namespace, mean for a pod with these labels.
pub(crate) fn of_pod(policies: &[NetworkPolicy], labels: &Labels) -> Restrictions {
    let side = |direction| {
        // A selector that can't be understood restricts nothing for sure, but may allow.
        let of = |policy: &&NetworkPolicy, doubtful| {
            let spec = policy.spec.as_ref();
            spec.is_some_and(|spec| applies(spec, direction) && selects(spec.pod_selector.as_ref(), labels, doubtful))
        };
        let name = |policy: &NetworkPolicy| policy.metadata.name.clone().unwrap_or_default();
        let allowing: Vec<String> = policies
            .iter()
            .filter(|policy| of(policy, true) && policy.spec.as_ref().is_some_and(|spec| allows(spec, direction)))
            .map(name)
            .collect();
        let selecting: Vec<String> = policies.iter().filter(|policy| of(policy, false)).map(name).collect();
        match (selecting.is_empty(), allowing.is_empty()) {
            (true, _) => Restriction::None,
            (false, true) => Restriction::All(selecting),
            (false, false) => Restriction::But(allowing),
        }
    };
    Restrictions { ingress: side(Direction::Ingress), egress: side(Direction::Egress) }
}

/// Whether a policy allows anything in either direction, to whatever pod.
pub(crate) fn allows_anything(spec: &NetworkPolicySpec) -> bool {
    [Direction::Ingress, Direction::Egress].into_iter().any(|direction| allows(spec, direction))
}

fn allows(spec: &NetworkPolicySpec, direction: Direction) -> bool {
    applies(spec, direction)
        && match direction {
            Direction::Ingress => spec.ingress.as_ref().is_some_and(|rules| !rules.is_empty()),
            Direction::Egress => spec.egress.as_ref().is_some_and(|rules| !rules.is_empty()),
        }
}

/// Without types a policy is of ingress, and of egress where it has rules for it.
fn applies(spec: &NetworkPolicySpec, direction: Direction) -> bool {
    match (&spec.policy_types, direction) {
        (Some(types), Direction::Ingress) if !types.is_empty() => types.iter().any(|one| one == "Ingress"),
        (Some(types), Direction::Egress) if !types.is_empty() => types.iter().any(|one| one == "Egress"),
        (_, Direction::Ingress) => true,
        (_, Direction::Egress) => spec.egress.as_ref().is_some_and(|rules| !rules.is_empty()),
    }
}

impl Restrictions {
    /// Whether a policy that denies all would cut the pod off: no other one allows anything.
    pub(crate) fn can_be_cut(&self) -> Result<(), &[String]> {
        [&self.egress, &self.ingress].into_iter().try_for_each(|side| match side {
            Restriction::None | Restriction::All(_) => Ok(()),
            Restriction::But(names) => Err(names.as_slice()),
        })
    }

    /// Whether nothing at all gets through in either direction.
    pub(crate) fn is_cut(&self) -> bool {
        matches!((&self.ingress, &self.egress), (Restriction::All(_), Restriction::All(_)))
    }
}

impl fmt::Display for Restrictions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "egress {}; ingress {}", self.egress, self.ingress)
    }
}

impl fmt::Display for Restriction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("is not restricted, since no policy selects the pod"),
            Self::All(by) => write!(f, "is denied by {}", listed(by)),
            Self::But(by) => write!(f, "is what {} allow{}", listed(by), if by.len() == 1 { "s" } else { "" }),
        }
    }
}

/// The first few names, for people.
fn listed(names: &[String]) -> String {
    const SHOWN: usize = 5;
    let shown: Vec<String> = names.iter().take(SHOWN).map(|name| format!("`{name}`")).collect();
    match names.len().saturating_sub(SHOWN) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn policy(name: &str, spec: Value) -> NetworkPolicy {
        serde_json::from_value(json!({ "metadata": { "name": name }, "spec": spec })).expect("a policy")
    }

    fn pod(policies: &[NetworkPolicy]) -> Restrictions {
        of_pod(policies, &Labels::from([("app".to_owned(), "api".to_owned())]))
    }

    #[test]
    fn what_policies_mean_for_a_pod_is_what_kubernetes_says() {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<String>>();
        let deny = policy("deny", json!({ "podSelector": {}, "policyTypes": ["Ingress", "Egress"] }));
        let other = policy("other", json!({ "podSelector": { "matchLabels": { "app": "web" } }, "egress": [{}] }));
        assert_eq!(pod(std::slice::from_ref(&other)).egress, Restriction::None, "it selects another pod");
        assert_eq!(pod(&[deny.clone(), other.clone()]).egress, Restriction::All(names(&["deny"])));
        assert!(pod(&[deny.clone(), other.clone()]).is_cut());

        let dns = policy(
            "dns",
            json!({ "podSelector": {}, "policyTypes": ["Egress"], "egress": [{ "ports": [{ "port": 53 }] }] }),
        );
        let both = pod(&[deny.clone(), dns.clone()]);
        assert_eq!(both.egress, Restriction::But(names(&["dns"])), "what one allows no other takes away");
        assert_eq!(both.ingress, Restriction::All(names(&["deny"])));
        assert_eq!(both.can_be_cut().expect_err("one allows"), names(&["dns"]));
        assert_eq!(both.to_string(), "egress is what `dns` allows; ingress is denied by `deny`");

        // Types that are left out: ingress always, egress where there are rules for it.
        let implied = policy("implied", json!({ "podSelector": {} }));
        assert_eq!(pod(std::slice::from_ref(&implied)).ingress, Restriction::All(names(&["implied"])));
        assert_eq!(pod(std::slice::from_ref(&implied)).egress, Restriction::None);
        // Rules of a direction that the policy is not of mean nothing.
        let idle = policy("idle", json!({ "podSelector": {}, "policyTypes": ["Ingress"], "egress": [{}] }));
        assert_eq!(pod(&[idle]).egress, Restriction::None);
    }

    #[test]
    fn every_operator_of_a_selector_counts() {
        let with = |operator: &str, values: Option<&[&str]>| {
            let mut term = json!({ "key": "app", "operator": operator });
            if let Some(values) = values {
                term["values"] = json!(values);
            }
            policy("x", json!({ "podSelector": { "matchExpressions": [term] } }))
        };
        let selected = |policy: NetworkPolicy| pod(&[policy]).ingress != Restriction::None;
        assert!(selected(with("In", Some(&["api", "x"]))) && !selected(with("In", Some(&["web"]))));
        assert!(selected(with("NotIn", Some(&["web"]))) && !selected(with("NotIn", Some(&["api"]))));
        assert!(selected(with("Exists", None)) && !selected(with("DoesNotExist", None)));
        // One from a newer Kubernetes restricts nothing for sure; if it allows, nothing is cut off.
        let newer = policy(
            "new",
            json!({ "egress": [{}], "podSelector": { "matchExpressions": [{ "key": "app", "operator": "Like" }] } }),
        );
        let deny = policy("deny", json!({ "podSelector": {}, "policyTypes": ["Egress"] }));
        assert_eq!(pod(std::slice::from_ref(&newer)).egress, Restriction::None);
        assert!(pod(&[newer, deny]).can_be_cut().is_err());
    }
}
