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
use crate::native::facts::cluster::{ClusterFacts, Object, Resource};
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

/// Judges the objects of a cluster: one finding for each control, in the profile's order.
///
/// What is kept of offending objects is bounded by `limits.finding_details`, the work for each rule on each object by
/// `limits.rule_steps`. Of all objects one at a time is made a tree.
pub fn judge_cluster(profile: &RuleProfile, facts: &ClusterFacts, limits: &Limits) -> Vec<Finding> {
    on_a_large_stack(|| judge_here(profile, facts, limits)).unwrap_or_else(|error| not_started(profile, &error))
}

fn judge_here(profile: &RuleProfile, facts: &ClusterFacts, limits: &Limits) -> Vec<Finding> {
    let namespaces: BTreeMap<String, Owned> = objects(facts, &Resource::namespaces())
        .iter()
        .map(Object::tree)
        .filter_map(|object| Some((name_of(&object)?.to_owned(), value::of_json(&object))))
        .collect();
    let mut by_subject: BTreeMap<&Subject, Vec<usize>> = BTreeMap::new();
    for (at, rule) in profile.rules().iter().enumerate() {
        for subject in rule.subjects.iter() {
            by_subject.entry(subject).or_default().push(at);
        }
    }
    let mut sums: Vec<Sum> = profile.rules().iter().map(|_| Sum::default()).collect();
    for (subject, rules) in by_subject {
        let missing = each(subject, facts, &mut |candidate| {
            // As in the API server, an object outside of namespaces has null for one.
            let namespace: Option<&dyn Val> = match &candidate.namespace {
                None => Some(&CelNull),
                Some(name) => namespaces.get(name).map(AsRef::as_ref),
            };
            for &at in &rules {
                let rule = &profile.rules()[at];
                let mut scope =
                    Scope::new(rule.dialect, candidate.value.as_ref(), namespace, &rule.variables, limits.rule_steps);
                sums[at].add(&candidate.name, verdict(rule, &mut scope, &candidate.name, limits));
            }
        });
        for &at in &rules {
            sums[at].missing.extend(missing.clone());
        }
    }
    let namespaces_missing = facts.missing.get(&Resource::namespaces().to_string());
    let finding = |(rule, mut sum): (&Rule, Sum)| {
        if let Some(why) = namespaces_missing.filter(|_| rule.asks_namespace()) {
            sum.missing.push((why.reason, format!("namespaces could not be listed: {}", why.detail)));
        }
        sum.finding(rule, limits)
    };
    profile.rules().iter().zip(sums).map(finding).collect()
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

fn objects<'f>(facts: &'f ClusterFacts, resource: &Resource) -> &'f [Object] {
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

/// Gives every object of the subject to `judge`. The answer is why there may be more of them than it was given.
fn each(subject: &Subject, facts: &ClusterFacts, judge: &mut dyn FnMut(Candidate)) -> Option<(Reason, String)> {
    match subject {
        Subject::Host | Subject::Container | Subject::Image => {
            Some((Reason::TargetUnsupported, "the rule judges systems".to_owned()))
        }
        Subject::Objects(resource) => {
            let kind = KINDS.iter().find(|(plural, _)| *plural == resource.resource).map(|(_, kind)| *kind);
            for object in objects(facts, resource) {
                judge(candidate(object.tree(), resource, kind));
            }
            missing(facts, resource)
        }
        Subject::NamespaceFacts => each_namespace(facts, judge),
    }
}

fn candidate(mut object: Json, resource: &Resource, kind: Option<&str>) -> Candidate {
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
fn each_namespace(facts: &ClusterFacts, judge: &mut dyn FnMut(Candidate)) -> Option<(Reason, String)> {
    let policies = Resource::network_policies();
    let missing = missing(facts, &Resource::namespaces()).or_else(|| missing(facts, &policies));
    // Without all policies every verdict would be a guess: a namespace's default-deny may be the one that is missing.
    if missing.is_some() {
        return missing;
    }
    let mut policies_of: BTreeMap<String, Vec<Json>> = BTreeMap::new();
    for policy in objects(facts, &policies).iter().map(Object::tree) {
        if let Some(namespace) = namespace_of(&policy) {
            policies_of.entry(namespace.to_owned()).or_default().push(policy);
        }
    }
    for mut namespace in objects(facts, &Resource::namespaces()).iter().map(Object::tree) {
        let name = name_of(&namespace).unwrap_or("without a name").to_owned();
        let metadata = namespace.get_mut("metadata").map_or_else(|| Json::Object(Map::new()), Json::take);
        let object = json!({ "metadata": metadata, "networkPolicies": policies_of.get(&name).unwrap_or(&Vec::new()) });
        judge(Candidate { name: format!("Namespace/{name}"), namespace: Some(name), value: value::of_json(&object) });
    }
    None
}
