//! What stands in a run's namespaces, held against what gapscan put there itself, and what above them may override it.
//!
//! A policy that gapscan makes carries a seal: an HMAC over its namespace, its name and what it says, by a key that lives as long as
//! the process. So its own are told from those of others, whoever in this process made them and whenever, and a change of
//! one breaks its seal.

use std::collections::BTreeSet;
use std::sync::OnceLock;

use aws_lc_rs::hmac;
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::api::networking::v1::{NetworkPolicy, NetworkPolicySpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use serde::Deserialize;
use serde_json::Value;

use super::restriction::{Labels, allows_anything, selects};
use crate::cluster::client::Cluster;
use crate::cluster::error::ClusterError;
use crate::cluster::object::{Kind, ObjectRef};
use crate::cluster::objects::list;

/// The policy that each namespace of a run begins with.
pub(crate) const DEFAULT_DENY: &str = "default-deny";

/// The annotation of the seal.
pub(crate) const SEAL: &str = "gapscan.dev/seal";

/// Policies in one namespace, at most: more is an accident.
const MOST: usize = 10_000;

/// The group of the policies that stand above NetworkPolicies (network-policy-api.sigs.k8s.io).
pub(crate) const ABOVE: &str = "policy.networking.k8s.io";

/// The seal of a policy with this specification; `None` for what is no specification of one.
pub(crate) fn seal(namespace: &str, name: &str, specification: &Value) -> Option<String> {
    let specification: NetworkPolicySpec = serde_json::from_value(specification.clone()).ok()?;
    Some(base16(sign(namespace, name, &specification).as_ref()))
}

fn sign(namespace: &str, name: &str, specification: &NetworkPolicySpec) -> hmac::Tag {
    static KEY: OnceLock<hmac::Key> = OnceLock::new();
    let key = KEY.get_or_init(|| {
        let mut bytes = [0; 32];
        aws_lc_rs::rand::fill(&mut bytes).expect("the operating system gives random numbers");
        hmac::Key::new(hmac::HMAC_SHA256, &bytes)
    });
    let specification = serde_json::to_string(specification).expect("it has text keys only");
    hmac::sign(key, format!("{namespace}/{name}\n{specification}").as_bytes())
}

fn base16(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A policy of somebody else's.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Foreign {
    namespace: String,
    name: String,
    /// Its UID and what it says, so that one that was changed or made anew is another.
    content: String,
    allows: bool,
}

/// What stands in the run's namespaces.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Standing {
    /// The namespaces whose default-deny is not there as gapscan made it.
    bare: BTreeSet<String>,
    foreign: BTreeSet<Foreign>,
}

/// Looks at the policies of these namespaces: one request for each.
///
/// # Errors
/// When the cluster denies it or can't be reached.
pub(crate) async fn look(cluster: &Cluster, namespaces: &[&str]) -> Result<Standing, ClusterError> {
    let mut standing = Standing::default();
    for namespace in namespaces {
        standing.add(namespace, &of_namespace(cluster, namespace).await?);
    }
    Ok(standing)
}

/// All NetworkPolicies of a namespace.
///
/// # Errors
/// When the cluster denies it or can't be reached.
pub(crate) async fn of_namespace(cluster: &Cluster, namespace: &str) -> Result<Vec<NetworkPolicy>, ClusterError> {
    let what = format!("look at the network policies of namespace `{namespace}`");
    let found = list(cluster, &what, &Kind::NetworkPolicy.collection(Some(namespace)), &[], MOST).await?;
    Ok(found)
}

impl Standing {
    fn add(&mut self, namespace: &str, policies: &[NetworkPolicy]) {
        let mut denied = false;
        for policy in policies {
            let name = policy.metadata.name.clone().unwrap_or_default();
            let specification = policy.spec.clone().unwrap_or_default();
            let mark = policy.metadata.annotations.as_ref().and_then(|annotations| annotations.get(SEAL));
            let own = base16(sign(namespace, &name, &specification).as_ref());
            // Timing tells nothing here: who sees the answer has seen the seal.
            if mark == Some(&own) {
                denied |= name == DEFAULT_DENY;
                continue;
            }
            let content = serde_json::to_string(&specification).expect("it has text keys only");
            self.foreign.insert(Foreign {
                namespace: namespace.to_owned(),
                name,
                content: format!("{} {content}", policy.metadata.uid.clone().unwrap_or_default()),
                allows: allows_anything(&specification),
            });
        }
        if !denied {
            self.bare.insert(namespace.to_owned());
        }
    }

    /// What is otherwise than it was, in words; `None` where nothing is.
    pub(crate) fn changed_since(&self, before: &Self) -> Option<String> {
        let mut changes = Vec::new();
        for namespace in self.bare.difference(&before.bare) {
            changes.push(format!("`{namespace}/{DEFAULT_DENY}` is gone, or is not what it was"));
        }
        for namespace in before.bare.difference(&self.bare) {
            changes.push(format!("`{namespace}/{DEFAULT_DENY}` is there again"));
        }
        let names = |all: &BTreeSet<Foreign>| -> BTreeSet<String> {
            all.iter().map(|one| format!("{}/{}", one.namespace, one.name)).collect()
        };
        let (now, then) = (names(&self.foreign), names(&before.foreign));
        changes.extend(now.difference(&then).map(|name| format!("`{name}` was made, or changed, by somebody else")));
        changes.extend(then.difference(&now).map(|name| format!("`{name}` of somebody else's is gone")));
        if changes.is_empty() && self.foreign != before.foreign {
            changes.push("what somebody else's policies say was changed".to_owned());
        }
        (!changes.is_empty()).then(|| changes.join("; "))
    }

    /// Why this can't isolate anything, whatever a canary sees: what is allowed may be something that it does not try.
    pub(crate) fn refutes(&self) -> Option<String> {
        let mut why: Vec<String> = self
            .bare
            .iter()
            .map(|namespace| format!("`{namespace}/{DEFAULT_DENY}` is not there as it was made"))
            .collect();
        let allowing = self.foreign.iter().filter(|foreign| foreign.allows);
        why.extend(allowing.map(|one| {
            format!("`{}/{}`, which is none of gapscan's, allows what gapscan did not ask for", one.namespace, one.name)
        }));
        (!why.is_empty()).then(|| why.join("; "))
    }

    /// The policies of others that allow nothing, for the record.
    pub(crate) fn note(&self) -> Option<String> {
        let names: Vec<String> = self
            .foreign
            .iter()
            .filter(|foreign| !foreign.allows)
            .map(|one| format!("`{}/{}`", one.namespace, one.name))
            .collect();
        (!names.is_empty())
            .then(|| format!("beside gapscan's there are policies that allow nothing: {}", names.join(", ")))
    }
}

/// What stands above NetworkPolicies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Above {
    /// The API has no such objects, or none that could let anything through here; in words.
    Nothing(String),
    /// These may let through what NetworkPolicies deny, as `kind/name`.
    MayAllow(Vec<String>),
}

#[derive(Deserialize)]
struct Group {
    versions: Vec<Version>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Version {
    group_version: String,
}

#[derive(Deserialize)]
struct Resources {
    resources: Vec<Resource>,
}

#[derive(Deserialize)]
struct Resource {
    name: String,
    kind: String,
}

/// Looks for AdminNetworkPolicies and ClusterNetworkPolicies that are about pods of this namespace and allow something. Their
/// verdict comes before that of NetworkPolicies; those of the baseline come after it and can't override anything.
///
/// # Errors
/// When it can't be found out.
pub(crate) async fn above(cluster: &Cluster, namespace: &str) -> Result<Above, ClusterError> {
    let what = "look for policies above NetworkPolicies";
    let group: Group = match cluster.get(what, format!("/apis/{ABOVE}")).await {
        Err(ClusterError::Missing { .. }) => {
            return Ok(Above::Nothing("the API has no policies above NetworkPolicies".to_owned()));
        }
        outcome => outcome?,
    };
    let object = ObjectRef::cluster_wide(Kind::Namespace, namespace);
    let home: Namespace = cluster.get(&format!("read {object}"), object.path()).await?;
    let labels = home.metadata.labels.unwrap_or_default();
    let (mut seen, mut allowing) = (0, BTreeSet::new());
    for version in &group.versions {
        let root = format!("/apis/{}", version.group_version);
        let served: Resources = cluster.get(what, root.clone()).await?;
        for resource in &served.resources {
            if !matches!(resource.kind.as_str(), "AdminNetworkPolicy" | "ClusterNetworkPolicy")
                || resource.name.contains('/')
            {
                continue;
            }
            let found = list::<Value>(cluster, what, &format!("{root}/{}", resource.name), &[], MOST).await?;
            seen += found.len();
            let about = found.iter().filter(|policy| may_allow(policy, &labels));
            let name = |policy: &Value| policy["metadata"]["name"].as_str().unwrap_or_default().to_owned();
            allowing.extend(about.map(|policy| format!("{}/{}", resource.kind.to_lowercase(), name(policy))));
        }
    }
    Ok(match allowing.is_empty() {
        true => Above::Nothing(format!("{seen} policies stand above NetworkPolicies, and none allows anything here")),
        false => Above::MayAllow(allowing.into_iter().collect()),
    })
}

/// Whether a policy allows something to pods of a namespace with these labels, or may: what can't be read does.
fn may_allow(policy: &Value, namespace: &Labels) -> bool {
    let spec = &policy["spec"];
    if spec["tier"].as_str() == Some("Baseline") {
        return false;
    }
    let subject = &spec["subject"];
    let selector = match (&subject["namespaces"], &subject["pods"]) {
        // Which pods there will be is not known before.
        (Value::Null, pods @ Value::Object(_)) => &pods["namespaceSelector"],
        (namespaces, _) => namespaces,
    };
    let about = match serde_json::from_value::<Option<LabelSelector>>(selector.clone()) {
        Ok(selector) => selects(selector.as_ref(), namespace, true),
        Err(_) => true,
    };
    let allows = |direction: &str| match &spec[direction] {
        Value::Null => false,
        Value::Array(rules) => rules.iter().any(|rule| !matches!(rule["action"].as_str(), Some("Deny" | "Pass"))),
        _ => true,
    };
    about && (allows("ingress") || allows("egress"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::network;
    use serde_json::json;

    fn own(name: &str, policy: &Value) -> NetworkPolicy {
        let seal = seal("ns", name, &policy["spec"]).expect("a policy");
        let metadata = json!({ "name": name, "uid": "u", "annotations": { SEAL: seal } });
        serde_json::from_value(json!({ "metadata": metadata, "spec": policy["spec"] })).expect("a policy")
    }

    fn standing(policies: &[NetworkPolicy]) -> Standing {
        let mut standing = Standing::default();
        standing.add("ns", policies);
        standing
    }

    #[test]
    fn what_gapscan_makes_and_removes_itself_changes_nothing() {
        let deny = own(DEFAULT_DENY, &network::default_deny());
        let allow = own("scan-1", &network::egress(("a", "1"), &[("b", "2")], 80));
        let before = standing(std::slice::from_ref(&deny));
        assert_eq!(before.refutes(), None);
        assert_eq!(standing(&[deny, allow]).changed_since(&before), None);
    }

    #[test]
    fn what_others_make_change_or_remove_is_seen() {
        let deny = own(DEFAULT_DENY, &network::default_deny());
        let allow = own("scan-1", &network::egress(("a", "1"), &[("b", "2")], 80));
        let before = standing(&[deny.clone(), allow.clone()]);
        let open = network::egress(("a", "1"), &[("b", "2")], 443);

        // Of another name, or with other rules, a seal is none.
        let mut widened = allow.clone();
        widened.spec = serde_json::from_value(open["spec"].clone()).expect("a specification");
        let mut renamed = allow.clone();
        renamed.metadata.name = Some("other".to_owned());
        for changed in [widened, renamed] {
            let now = standing(&[deny.clone(), changed]);
            assert!(now.changed_since(&before).is_some_and(|why| why.contains("by somebody else")), "{now:?}");
            assert!(now.refutes().is_some_and(|why| why.contains("did not ask for")));
        }
        let gone = standing(std::slice::from_ref(&allow));
        assert!(gone.changed_since(&before).is_some_and(|why| why.contains("default-deny` is gone")));
        assert!(gone.refutes().is_some());

        // One that only denies is a change, and takes nothing away from the proof.
        let mut strict = deny.clone();
        strict.metadata.name = Some("strict".to_owned());
        let now = standing(&[deny.clone(), strict.clone()]);
        assert!(now.changed_since(&before).is_some() && now.refutes().is_none(), "{now:?}");
        assert!(now.note().is_some_and(|note| note.contains("ns/strict")));
        strict.metadata.uid = Some("anew".to_owned());
        assert!(standing(&[deny, strict]).changed_since(&now).is_some_and(|why| why.contains("was changed")));
    }

    #[test]
    fn of_what_stands_above_only_what_may_allow_something_here_counts() {
        let labels = Labels::from([("gapscan.dev/run".to_owned(), "x".to_owned())]);
        let may = |spec: Value| may_allow(&json!({ "spec": spec }), &labels);
        let rule = |action: &str| json!([{ "action": action }]);
        let all = json!({ "namespaces": {} });
        assert!(may(json!({ "subject": all, "egress": rule("Allow") })), "AdminNetworkPolicy");
        assert!(may(json!({ "subject": all, "tier": "Admin", "ingress": rule("Accept") })), "ClusterNetworkPolicy");
        assert!(may(
            json!({ "subject": { "pods": { "namespaceSelector": {}, "podSelector": {} } }, "egress": rule("Allow") })
        ));
        assert!(may(json!({ "subject": all, "egress": rule("Permit") })), "an action that is not known");
        assert!(may(json!({ "egress": rule("Allow") })), "a subject that is not known");
        assert!(!may(json!({ "subject": all, "egress": rule("Deny"), "ingress": rule("Pass") })));
        assert!(!may(json!({ "subject": all, "tier": "Baseline", "egress": rule("Accept") })), "it comes after");
        let other = json!({ "namespaces": { "matchLabels": { "team": "x" } } });
        assert!(!may(json!({ "subject": other, "egress": rule("Allow") })));
    }
}
