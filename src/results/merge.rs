//! Reduces what a scanner reported to exactly one finding for each control that was expected.

use std::collections::HashMap;

use super::{Parsed, Reported};
use crate::base::limits::Limits;
use crate::base::text::brief;
use crate::model::finding::{Detail, Finding};
use crate::model::outcome::{Outcome, Status};
use crate::model::profile::Profile;
use crate::model::reason::Reason;
use crate::model::scanner::is_own_control;

/// How many names of controls one note lists.
const NAMED: usize = 20;

/// Exactly one finding for each control of `profile`, in its order:
/// * what the scanner reported once is taken;
/// * what it reported twice alike is taken once, with the details of both;
/// * what it reported twice with verdicts that differ is [`Reason::ControlAmbiguous`];
/// * what it did not report is [`Reason::ControlMissing`];
/// * what it reported and nobody expected is named in a note;
/// * when all is not applicable, the content was for something else, and all is [`Reason::WrongTarget`]: a profile none of
///   which has a bearing on a target was not evaluated on it.
pub(crate) fn reduce(reported: Reported, profile: &Profile, limits: &Limits) -> Parsed {
    let Reported { findings, mut notes, scanner_version, database_built } = reported;
    let mut by_control: HashMap<String, Vec<Finding>> = HashMap::new();
    for finding in findings {
        by_control.entry(finding.control.clone()).or_default().push(finding);
    }
    let mut findings: Vec<Finding> = profile
        .controls
        .iter()
        .map(|control| match by_control.remove(&control.id) {
            None => Finding::new(
                &*control.id,
                Outcome::not_evaluated(Reason::ControlMissing, "the scanner's result does not mention it"),
            ),
            Some(reports) => one(&control.id, reports, limits),
        })
        .collect();
    // What gapscan itself judges is not the scanner's to report, and says nothing about what the content is for.
    let scanners = || findings.iter().filter(|f| !is_own_control(&f.control));
    let all = scanners().count();
    if all > 0 && scanners().all(|f| f.outcome.status() == Status::NotApplicable) {
        notes.push(format!("all {all} controls were reported as not applicable: the content is for another target"));
        for finding in findings.iter_mut().filter(|f| !is_own_control(&f.control)) {
            let said = match &finding.outcome {
                Outcome::NotApplicable { reason } => reason.clone(),
                _ => String::new(),
            };
            let detail = format!("the scanner reported all {all} controls as not applicable: {said}");
            finding.outcome = Outcome::not_evaluated(Reason::WrongTarget, detail);
        }
    }
    if !by_control.is_empty() {
        let mut names: Vec<&String> = by_control.keys().collect();
        names.sort();
        let listed: Vec<String> = names.iter().take(NAMED).map(|name| brief(name)).collect();
        let more = if names.len() > NAMED { format!(" and {} more", names.len() - NAMED) } else { String::new() };
        let count = names.len();
        notes.push(format!(
            "{count} controls were reported that the profile does not have: {}{more}",
            listed.join(", ")
        ));
    }
    Parsed { findings, notes, scanner_version, database_built }
}

/// One finding from one or more reports about the same control.
fn one(control: &str, mut reports: Vec<Finding>, limits: &Limits) -> Finding {
    if reports.len() == 1 {
        let mut only = reports.remove(0);
        let excess = only.details.len().saturating_sub(limits.finding_details);
        only.details.truncate(limits.finding_details);
        only.details_omitted += excess as u64;
        return only;
    }
    let verdict = reports[0].outcome.status();
    let outcome = if reports.iter().all(|report| report.outcome.status() == verdict) {
        reports[0].outcome.clone()
    } else {
        let words: Vec<String> = reports.iter().take(NAMED).map(|r| r.outcome.status().to_string()).collect();
        Outcome::not_evaluated(Reason::ControlAmbiguous, format!("it was reported as {}", words.join(", ")))
    };
    let omitted: u64 = reports.iter().map(|report| report.details_omitted).sum();
    let details: Vec<Detail> = reports.into_iter().flat_map(|report| report.details).collect();
    let mut finding = Finding::new(control, outcome).with_details(details, limits.finding_details);
    finding.details_omitted += omitted;
    finding
}

#[cfg(test)]
pub(crate) mod tests;
