//! SARIF 2.1.0 (OASIS): static analysis results of any tool.
//!
//! A rule is a control, a result is a finding. The meaning of a result's `kind` (section 3.27.9) here:
//!
//! | kind | counts as |
//! |---|---|
//! | fail, or none | failed |
//! | pass | passed |
//! | notApplicable | not applicable |
//! | open, review, informational | not evaluated, `scanner-skipped` |
//! | any other word | not evaluated, `status-unknown` |
//!
//! A rule that a tool lists and has no result of is not evaluated: nothing in the file says that it passed. A suppressed
//! result counts as the tool gave it, which is noted: waivers are gapscan's, and expire. One that a baseline says is absent
//! is left out, which is counted. A run that did not end well, that tells of errors or that warns of anything is a gap.
//!
//! Results may come before the rules that they refer to, so that the file is read twice.
//!
//! Identity of a finding: its fingerprints where it has any, else its partial fingerprints; without either the artifact's
//! URI, the logical location, the message, and which one it is of those that have all of these in common. Always the tool's
//! name and the rule's id.

mod found;
mod rule;
mod run;

use self::found::found;
use self::run::{Run, run};
use super::ResultsError;
use super::event::{Budget, Numbers, Out};
use super::json::{Json, Kind};
use crate::base::limits::Limits;
use crate::base::spool::Content;
use crate::base::text::brief;
use crate::model::reason::Reason;

const FORMAT: &str = "SARIF";

/// Reads a log file.
pub(crate) fn read<C: Content + ?Sized>(content: &C, out: &mut Out<'_>, limits: &Limits) -> Result<(), ResultsError> {
    let runs = self::runs(content, limits)?;
    for (number, run) in runs.iter().enumerate() {
        out.scanner(run.tool.clone(), run.version.clone(), None);
        for rule in &run.rules {
            out.control(rule.declared())?;
        }
        for (reason, problem) in &run.problems {
            out.gap(format!("run {}", number + 1), *reason, problem.as_str())?;
        }
    }
    let mut json = Json::new(content.reader(), FORMAT, limits.result_bytes);
    let (mut suppressed, mut absent, mut at) = (0_u64, 0_u64, 0);
    json.object(|json, key| match key {
        "runs" => json.array(|json| {
            let empty = Run::default();
            let run = runs.get(at).unwrap_or(&empty);
            at += 1;
            let mut numbers = Numbers::default();
            let mut has_results = false;
            json.object(|json, key| match key {
                "results" => {
                    has_results = json.kind()? == Kind::Array;
                    json.array(|json| {
                        let found = found(json)?;
                        if found.absent {
                            absent += 1;
                            return Ok(());
                        }
                        suppressed += u64::from(found.suppressed);
                        out.finding(found.report(run, &mut numbers))
                    })
                }
                _ => json.skip(),
            })?;
            if has_results {
                return Ok(());
            }
            // Section 3.14.23: without results, or with null, the tool did not look.
            out.gap(format!("run {at}"), Reason::NoOutput, "the run has no list of results: the tool did not look")
        }),
        _ => json.skip(),
    })?;
    json.end()?;
    if suppressed > 0 {
        out.note(format!("{suppressed} results are suppressed in the file, and count as the tool gave them"));
    }
    if absent > 0 {
        out.note(format!("{absent} results are of an earlier run, and absent in this one"));
    }
    Ok(())
}

/// All runs without their results.
fn runs<C: Content + ?Sized>(content: &C, limits: &Limits) -> Result<Vec<Run>, ResultsError> {
    let mut json = Json::new(content.reader(), FORMAT, limits.result_bytes);
    if json.kind()? != Kind::Object {
        return Err(json.foreign("it is no object"));
    }
    let (mut runs, mut version, mut budget) = (None, None, Budget::of(limits));
    json.object(|json, key| match key {
        "version" => json.scalar().map(|text| version = text),
        "runs" => {
            if json.kind()? != Kind::Array {
                return Err(json.foreign("its runs are no list"));
            }
            let mut found = Vec::new();
            json.array(|json| {
                budget.hold(size_of::<Run>())?;
                run(json, &mut budget).map(|run| found.push(run))
            })?;
            runs = Some(found);
            Ok(())
        }
        _ => json.skip(),
    })?;
    json.end()?;
    match (version.as_deref(), runs) {
        (Some("2.1.0"), Some(runs)) => Ok(runs),
        (Some(other), Some(_)) => Err(json.foreign(format!("its version is `{}`, and 2.1.0 is read", brief(other)))),
        _ => Err(json.foreign("it has no version or no runs")),
    }
}

#[cfg(test)]
mod tests;
