//! The verdict of a rule on one object, and of a profile on a system.
//!
//! | what happens | what it ends as |
//! |---|---|
//! | a match condition is false | not applicable, with the condition's name |
//! | a match condition errs and none is false | not evaluated |
//! | a validation is false | failed, also when another one errs |
//! | a validation errs and none is false | not evaluated |
//! | it asks for a fact that is absent, or for a path that could not be seen | not evaluated, with the collector's reason |
//! | all validations are true but offending items are named | not evaluated: the rule contradicts itself |
//! | it asks for a fact that is not whole | failed if it names an offending item; not evaluated otherwise |
//! | it uses up its budget | not evaluated |
//!
//! `failurePolicy` has no say: an error is never a pass and never a failure.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use cel::common::types::CelString;
use serde_json::Value as Json;

use super::expression::on_a_large_stack;
use super::object::{FactsObject, Partial};
use super::rule::{Rule, Subject};
use super::scope::{Scope, Trouble};
use super::value::Owned;
use crate::base::limits::Limits;
use crate::model::finding::{Detail, Finding};
use crate::model::outcome::Outcome;
use crate::model::reason::Reason;
use crate::model::target::TargetKind;
use crate::native::facts::Missing;
use crate::native::profile::RuleProfile;

/// How one rule ended on one object.
#[derive(Debug, PartialEq)]
pub(super) enum Verdict {
    /// Every validation holds.
    Passed,
    /// A validation does not hold.
    Failed {
        /// The offenders, or what the validation says.
        details: Vec<Detail>,
        /// How many more there are.
        omitted: u64,
        /// Whether the details are offending items.
        named: bool,
    },
    /// A condition does not hold.
    NotApplicable(String),
    /// Anything else.
    NotEvaluated(Trouble),
}

/// Judges one object. `subject` is what it is called where a rule names no items.
pub(super) fn verdict(rule: &Rule, scope: &mut Scope<'_>, subject: &str, limits: &Limits) -> Verdict {
    let mut trouble = None;
    for (name, condition) in &rule.conditions {
        match scope.boolean(condition) {
            Ok(true) => {}
            Ok(false) => return Verdict::NotApplicable(format!("the condition `{name}` does not hold")),
            Err(found) => trouble = trouble.or(Some(found)),
        }
    }
    if let Some(trouble) = trouble {
        return Verdict::NotEvaluated(trouble);
    }
    let mut messages = Vec::new();
    for validation in &rule.validations {
        match scope.boolean(&validation.expression) {
            Ok(true) => {}
            Ok(false) => {
                // As in the API server: the expression's text if it gives one, else the fixed one, else the rule.
                let made = validation.message_expression.as_ref().and_then(|e| scope.string(e).ok());
                let fixed = || validation.message.clone();
                let message = made.filter(|m| !m.trim().is_empty()).or_else(fixed);
                messages.push(message.unwrap_or_else(|| format!("does not hold: {}", validation.expression.source)));
            }
            Err(found) => trouble = trouble.or(Some(found)),
        }
    }
    let items = rule.items.as_ref().map(|items| scope.list(items));
    match (messages.is_empty(), trouble, items) {
        (true, Some(trouble), _) | (true, None, Some(Err(trouble))) => Verdict::NotEvaluated(trouble),
        (true, None, Some(Ok(items))) if !items.is_empty() => Verdict::NotEvaluated(Trouble::Rule {
            message: format!("it holds, but names offending items: {}", items.len()),
        }),
        (true, None, _) => Verdict::Passed,
        (false, _, Some(Ok(items))) if !items.is_empty() => {
            let omitted = items.len().saturating_sub(limits.finding_details) as u64;
            // The verdict stands. What it took is not to be missing when the offenders are named.
            scope.refill(limits.rule_steps);
            let details = name_items(rule, scope, items, &messages.join("; "), limits.finding_details);
            Verdict::Failed { details, omitted, named: true }
        }
        (false, _, _) => {
            let details = messages.into_iter().map(|message| Detail::new(subject, message)).collect();
            Verdict::Failed { details, omitted: 0, named: false }
        }
    }
}

/// The first items by name, with what was seen of each.
fn name_items(rule: &Rule, scope: &mut Scope<'_>, mut items: Vec<Owned>, message: &str, limit: usize) -> Vec<Detail> {
    let plain = |item: &Owned| item.downcast_ref::<CelString>().map(|text| text.inner().to_owned());
    // Keys of a map come in no order; the same facts must give the same finding.
    items.sort_by_cached_key(plain);
    let mut details = Vec::new();
    for item in items.into_iter().take(limit) {
        let fallback = plain(&item);
        scope.set_item(item);
        let made = rule.item.as_ref().and_then(|e| scope.string(e).ok());
        let subject = made.or(fallback).unwrap_or_else(|| "an item without a name".to_owned());
        let seen = rule.seen.as_ref().and_then(|e| scope.string(e).ok());
        details.push(Detail::new(subject, seen.unwrap_or_else(|| message.to_owned())));
    }
    details.sort_by(|a, b| a.subject.cmp(&b.subject));
    details
}

/// Judges the facts of a system of this kind: one finding for each control, in the profile's order.
///
/// `facts` is `SystemFacts` as JSON. What is kept of offending items is bounded by `limits.finding_details`, the work for
/// each rule by `limits.rule_steps`.
pub fn judge_system(profile: &RuleProfile, facts: &Json, kind: TargetKind, limits: &Limits) -> Vec<Finding> {
    on_a_large_stack(|| judge_here(profile, facts, kind, limits)).unwrap_or_else(|error| not_started(profile, &error))
}

/// The findings when the thread that was to evaluate did not.
pub(super) fn not_started(profile: &RuleProfile, error: &std::io::Error) -> Vec<Finding> {
    let outcome = || Outcome::not_evaluated(Reason::InternalError, format!("evaluate rules in a thread: {error}"));
    profile.rules().iter().map(|rule| Finding::new(&rule.control.id, outcome())).collect()
}

fn judge_here(profile: &RuleProfile, facts: &Json, kind: TargetKind, limits: &Limits) -> Vec<Finding> {
    let partial: Partial = Arc::new(Mutex::new(BTreeMap::new()));
    let missing = match facts.get("missing") {
        None => Ok(BTreeMap::new()),
        Some(missing) => serde_json::from_value::<BTreeMap<String, Missing>>(missing.clone()),
    };
    let (Some(facts), Ok(missing)) = (facts.as_object(), missing) else {
        let unreadable =
            || Outcome::not_evaluated(Reason::CollectorFailed, "the facts are not in a form that is known");
        return profile.rules().iter().map(|rule| Finding::new(&rule.control.id, unreadable())).collect();
    };
    let object = FactsObject::new(facts, &missing, &partial);
    let judge = |rule: &Rule| {
        let id = &rule.control.id;
        if !rule.subjects.iter().any(|subject| subject.fits(kind)) {
            return Finding::new(id, Outcome::NotApplicable { reason: format!("the rule does not judge a {kind}") });
        }
        partial.lock().unwrap_or_else(PoisonError::into_inner).clear();
        let mut scope = Scope::new(rule.dialect, &object, None, &rule.variables, limits.rule_steps);
        let verdict = verdict(rule, &mut scope, kind.word(), limits);
        let not_whole = partial.lock().unwrap_or_else(PoisonError::into_inner).clone().into_iter().next();
        match (verdict, not_whole) {
            (Verdict::Failed { details, omitted, named: true }, _)
            | (Verdict::Failed { details, omitted, .. }, None) => {
                let mut finding = Finding::new(id, Outcome::Failed).with_details(details, limits.finding_details);
                finding.details_omitted += omitted;
                finding
            }
            (Verdict::NotEvaluated(trouble), _) => Finding::new(id, not_evaluated(&trouble, &missing)),
            (_, Some((fact, (reason, why)))) => {
                Finding::new(id, Outcome::not_evaluated(reason, format!("`{fact}` is not whole: {why}")))
            }
            (Verdict::Passed, None) => Finding::new(id, Outcome::Passed),
            (Verdict::NotApplicable(reason), None) => Finding::new(id, Outcome::NotApplicable { reason }),
        }
    };
    profile.rules().iter().map(judge).collect()
}

/// An absent fact has the collector's reason, where the collector gave one.
fn not_evaluated(trouble: &Trouble, missing: &BTreeMap<String, Missing>) -> Outcome {
    match trouble {
        Trouble::Absent { fact } => match missing.get(fact) {
            Some(why) => Outcome::not_evaluated(why.reason, format!("`{fact}` is missing: {}", why.detail)),
            None => Outcome::not_evaluated(trouble.reason(), trouble.detail()),
        },
        other => Outcome::not_evaluated(other.reason(), other.detail()),
    }
}

impl Subject {
    /// The word for messages.
    pub(super) fn word(&self) -> String {
        match self {
            Self::Host => "hosts".to_owned(),
            Self::Container => "containers".to_owned(),
            Self::Image => "images".to_owned(),
            Self::NamespaceFacts => "namespaces".to_owned(),
            Self::Objects(resource) => resource.to_string(),
        }
    }
}
