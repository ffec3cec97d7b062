//! The verdict of a profile on the objects of a cluster.
//!
//! A rule is judged on every object that it matches. It fails if one fails; it is not evaluated if none fails and one could
//! not be judged, or if a resource could not be listed as a whole; it is not applicable if everything was listed and
//! nothing is left after the match conditions; only otherwise it passes.

use std::collections::BTreeMap;

use cel::common::types::CelNull;
use cel::common::value::Val;
use serde_json::{Map, Value as Json, json};

use super::expression::on_a_large_stack;
use super::judge::{Verdict, not_started, verdict};
use super::rule::{Rule, Subject};
use super::scope::Scope;
use super::value::{self, Owned};
use crate::base::limits::Limits;
use crate::model::finding::{Detail, Finding};
use crate::model::outcome::Outcome;
use crate::model::reason::Reason;
use crate::native::facts::cluster::{ClusterFacts, Resource};
use crate::native::profile::RuleProfile;

/// Kinds of the resources that rules name often; lists of objects don't carry them.
const KINDS: &[(&str, &str)] = &[
    ("clusterrolebindings", "ClusterRoleBinding"),
    ("clusterroles", "ClusterRole"),
    ("cronjobs", "CronJob"),
    ("daemonsets", "DaemonSet"),
    ("deployments", "Deployment"),
    ("ingresses", "Ingress"),
    ("jobs", "Job"),
    ("namespaces", "Namespace"),
    ("networkpolicies", "NetworkPolicy"),
    ("nodes", "Node"),
    ("persistentvolumes", "PersistentVolume"),
    ("pods", "Pod"),
    ("replicasets", "ReplicaSet"),
    ("rolebindings", "RoleBinding"),
    ("roles", "Role"),
    ("serviceaccounts", "ServiceAccount"),
    ("services", "Service"),
    ("statefulsets", "StatefulSet"),
];

/// One object that is judged.
struct Candidate {
    name: String,
    namespace: Option<String>,
    value: Owned,
}

/// What was listed of one subject.
#[derive(Default)]
struct Listing {
    candidates: Vec<Candidate>,
    /// Why it is not there, or not whole.
    missing: Option<(Reason, String)>,
}

/// Judges the objects of a cluster: one finding for each control, in the profile's order.
///
/// What is kept of offending objects is bounded by `limits.finding_details`, the work for each rule on each object by
/// `limits.rule_steps`.
pub fn judge_cluster(profile: &RuleProfile, facts: &ClusterFacts, limits: &Limits) -> Vec<Finding> {
    on_a_large_stack(|| judge_here(profile, facts, limits)).unwrap_or_else(|error| not_started(profile, &error))
}

fn judge_here(profile: &RuleProfile, facts: &ClusterFacts, limits: &Limits) -> Vec<Finding> {
    let mut listings: BTreeMap<&Subject, Listing> = BTreeMap::new();
    for subject in profile.rules().iter().flat_map(|rule| &rule.subjects) {
        listings.entry(subject).or_insert_with(|| list(subject, facts));
    }
    let namespaces: BTreeMap<String, Owned> = objects(facts, &Resource::namespaces())
        .iter()
        .filter_map(|object| Some((name_of(object)?.to_owned(), value::of_json(object))))
        .collect();
    let namespaces_missing = facts.missing.get(&Resource::namespaces().to_string());
    let judge = |rule: &Rule| {
        let mut sum = Sum::default();
        for subject in rule.subjects.iter() {
            let Some(listing) = listings.get(subject) else { continue };
            sum.missing.extend(listing.missing.clone());
            for candidate in &listing.candidates {
                // As in the API server, an object outside of namespaces has null for one.
                let namespace: Option<&dyn Val> = match &candidate.namespace {
                    None => Some(&CelNull),
                    Some(name) => namespaces.get(name).map(AsRef::as_ref),
                };
                let mut scope =
                    Scope::new(rule.dialect, candidate.value.as_ref(), namespace, &rule.variables, limits.rule_steps);
                sum.add(&candidate.name, verdict(rule, &mut scope, &candidate.name, limits));
            }
        }
        if let Some(why) = namespaces_missing.filter(|_| rule.asks_namespace()) {
            sum.missing.push((why.reason, format!("namespaces could not be listed: {}", why.detail)));
        }
        sum.finding(rule, limits)
    };
    profile.rules().iter().map(judge).collect()
}

/// The sum of verdicts on single objects.
#[derive(Default)]
struct Sum {
    passed: u64,
    failed: Vec<Detail>,
    failed_omitted: u64,
    not_applicable: BTreeMap<String, u64>,
    not_evaluated: Vec<(Reason, Detail)>,
    missing: Vec<(Reason, String)>,
}

impl Sum {
    fn add(&mut self, object: &str, verdict: Verdict) {
        match verdict {
            Verdict::Passed => self.passed += 1,
            Verdict::Failed { details, omitted, named } => {
                self.failed_omitted += omitted;
                self.failed.extend(details.into_iter().map(|detail| match named {
                    true => Detail::new(format!("{object}: {}", detail.subject), detail.message),
                    false => detail,
                }));
            }
            Verdict::NotApplicable(reason) => *self.not_applicable.entry(reason).or_default() += 1,
            Verdict::NotEvaluated(trouble) => {
                self.not_evaluated.push((trouble.reason(), Detail::new(object, trouble.detail())));
            }
        }
    }

    fn finding(mut self, rule: &Rule, limits: &Limits) -> Finding {
        let id = &rule.control.id;
        let limit = limits.finding_details;
        let unjudged = |(reason, detail): (Reason, Detail)| {
            Detail::new(detail.subject, format!("not evaluated ({reason}): {}", detail.message))
        };
        if !self.failed.is_empty() {
            self.failed.sort_by(|a, b| (&a.subject, &a.message).cmp(&(&b.subject, &b.message)));
            let details = self.failed.into_iter().chain(self.not_evaluated.into_iter().map(unjudged));
            let mut finding = Finding::new(id, Outcome::Failed).with_details(details, limit);
            finding.details_omitted += self.failed_omitted;
            return finding;
        }
        if let Some((reason, why)) = self.missing.into_iter().next() {
            return Finding::new(id, Outcome::not_evaluated(reason, why));
        }
        if let Some((reason, first)) = self.not_evaluated.first() {
            let count = self.not_evaluated.len();
            let why = format!("{count} of the objects could not be judged; {}: {}", first.subject, first.message);
            return Finding::new(id, Outcome::not_evaluated(*reason, why))
                .with_details(self.not_evaluated.into_iter().map(unjudged), limit);
        }
        if self.passed > 0 {
            return Finding::new(id, Outcome::Passed);
        }
        let subjects = rule.subjects.iter().map(Subject::word).collect::<Vec<_>>().join(", ");
        let reason = match self.not_applicable.into_iter().next() {
            Some((reason, _)) => format!("for no object in {subjects}: {reason}"),
            None => format!("the cluster has none of {subjects}"),
        };
        Finding::new(id, Outcome::NotApplicable { reason })
    }
}

fn objects<'f>(facts: &'f ClusterFacts, resource: &Resource) -> &'f [Json] {
    facts.resources.get(&resource.to_string()).map_or(&[], Vec::as_slice)
}

fn name_of(object: &Json) -> Option<&str> {
    object.pointer("/metadata/name").and_then(Json::as_str)
}

fn namespace_of(object: &Json) -> Option<&str> {
    object.pointer("/metadata/namespace").and_then(Json::as_str)
}

/// Why a resource can't be relied on to be whole.
fn missing(facts: &ClusterFacts, resource: &Resource) -> Option<(Reason, String)> {
    let key = resource.to_string();
    match facts.missing.get(&key) {
        Some(why) => Some((why.reason, format!("{key} could not be listed: {}", why.detail))),
        None if facts.resources.contains_key(&key) => None,
        None => Some((Reason::FactMissing, format!("{key} was not listed"))),
    }
}

fn list(subject: &Subject, facts: &ClusterFacts) -> Listing {
    match subject {
        Subject::Host | Subject::Container | Subject::Image => Listing {
            missing: Some((Reason::TargetUnsupported, "the rule judges systems".to_owned())),
            ..Listing::default()
        },
        Subject::Objects(resource) => {
            let kind = KINDS.iter().find(|(plural, _)| *plural == resource.resource).map(|(_, kind)| *kind);
            let candidates = objects(facts, resource).iter().map(|object| candidate(object, resource, kind)).collect();
            Listing { candidates, missing: missing(facts, resource) }
        }
        Subject::NamespaceFacts => namespaces_with_policies(facts),
    }
}

fn candidate(object: &Json, resource: &Resource, kind: Option<&str>) -> Candidate {
    let mut object = object.clone();
    // Objects in a list have no type of their own, and what the API server shows to a rule has.
    if let Some(fields) = object.as_object_mut() {
        fields.entry("apiVersion").or_insert_with(|| Json::String(resource.api_version()));
        if let Some(kind) = kind {
            fields.entry("kind").or_insert_with(|| Json::String(kind.to_owned()));
        }
    }
    let word = object.get("kind").and_then(Json::as_str).unwrap_or(&resource.resource);
    let name = name_of(&object).unwrap_or("without a name");
    let namespace = namespace_of(&object).map(str::to_owned);
    let full = match &namespace {
        Some(namespace) => format!("{word}/{namespace}/{name}"),
        None => format!("{word}/{name}"),
    };
    Candidate { name: full, namespace, value: value::of_json(&object) }
}

/// Each namespace as `{metadata, networkPolicies}`: what a rule on one object can't see, because it is in others.
fn namespaces_with_policies(facts: &ClusterFacts) -> Listing {
    let policies = Resource::network_policies();
    let missing = missing(facts, &Resource::namespaces()).or_else(|| missing(facts, &policies));
    // Without all policies every verdict would be a guess: a namespace's default-deny may be the one that is missing.
    if missing.is_some() {
        return Listing { candidates: Vec::new(), missing };
    }
    let candidates = objects(facts, &Resource::namespaces()).iter().map(|namespace| {
        let name = name_of(namespace).unwrap_or("without a name");
        let own = objects(facts, &policies).iter().filter(|policy| namespace_of(policy) == Some(name));
        let object = json!({
            "metadata": namespace.get("metadata").cloned().unwrap_or_else(|| Json::Object(Map::new())),
            "networkPolicies": own.cloned().collect::<Vec<_>>(),
        });
        Candidate {
            name: format!("Namespace/{name}"),
            namespace: Some(name.to_owned()),
            value: value::of_json(&object),
        }
    });
    Listing { candidates: candidates.collect(), missing: None }
}
