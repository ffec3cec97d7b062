//! Reduces what a scanner reported to exactly one finding for each control that was expected.

use std::collections::HashMap;

use super::Parsed;
use super::collect::{Account, Collector};
use crate::base::text::brief;
use crate::model::finding::Finding;
use crate::model::outcome::{Outcome, Status};
use crate::model::profile::Profile;
use crate::model::reason::Reason;
use crate::model::scanner::{Unmentioned, is_own_control};
use crate::model::tally::Tally;

/// How many names of controls, or of other things, notes list.
const NAMED: usize = 20;

/// Exactly one finding for each control of `profile`, in its order:
/// * what the scanner reported is taken, as [`Collector`] puts it together;
/// * what it did not report is [`Reason::ControlMissing`], or passed, where the scanner's definition vouches for that and the
///   result tells of nothing that was not evaluated;
/// * what it reported and nobody expected is named in a note;
/// * when all is not applicable, the content was for something else, and all is [`Reason::WrongTarget`]: a profile none of
///   which has a bearing on a target was not evaluated on it.
pub(crate) fn reduce(mut collected: Collector, profile: &Profile, unmentioned: Unmentioned) -> Parsed {
    let accounts = collected.accounts();
    let mut reported: Tally = accounts.iter().map(|account| account.finding.outcome.status()).collect();
    let mut by_control: HashMap<String, Account> =
        accounts.into_iter().map(|account| (account.id.clone(), account)).collect();
    let mut notes = collected.notes();
    for gap in collected.gaps.iter().take(NAMED) {
        notes.push(format!("not evaluated: {}: {} ({})", brief(&gap.subject), gap.detail, gap.reason));
    }
    if collected.gaps.len() > NAMED {
        notes.push(format!("and {} more that were not evaluated", collected.gaps.len() - NAMED));
    }
    let mut silent = 0_usize;
    let mut findings: Vec<Finding> = profile
        .controls
        .iter()
        .map(|control| match by_control.remove(&control.id) {
            Some(account) => account.finding,
            None if unmentioned == Unmentioned::Passed && collected.gaps.is_empty() && !is_own_control(&control.id) => {
                silent += 1;
                // The definition says it in the scanner's place.
                reported.add(Status::Passed);
                Finding::new(&*control.id, Outcome::Passed)
            }
            None => Finding::new(
                &*control.id,
                Outcome::not_evaluated(Reason::ControlMissing, "the scanner's result does not mention it"),
            ),
        })
        .collect();
    if silent > 0 {
        notes.push(format!(
            "{silent} controls passed because the result does not mention them: the scanner's definition says that it tells \
             of failures alone"
        ));
    }
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
    let scanner = collected.scanner;
    Parsed { findings, notes, scanner_version: scanner.version, database_built: scanner.database_built, reported }
}

#[cfg(test)]
pub(crate) mod tests;
