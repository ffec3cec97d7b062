//! What a scanner's result says of what was expected, by the scanner's definition: the same for a scan and for a trial of the
//! definition without a cluster.

use crate::base::limits::Limits;
use crate::base::spool::Content;
use crate::cluster::agent::protocol::Asked;
use crate::model::finding::Finding;
use crate::model::outcome::Outcome;
use crate::model::profile::Profile;
use crate::model::reason::Reason;
use crate::model::scanner::{BlindSpot, ExitMeaning, Reading, ScannerDocument, Unmentioned, is_own_control};
use crate::results::{self, Parsed, ResultsError};

/// Reads a result in the format that the definition names, and reduces it to one finding for each control of the profile:
/// * what passes in a blind spot of the scanner is not evaluated;
/// * where the exit code and the result can't both be true, what passed, or was said not to apply, is not evaluated
///   ([`Reason::ExitContradicted`]), and a note says so. What failed stays failed.
///
/// `ended` is the exit code with what it means; `None` where nobody knows it, and nothing is compared. Controls that gapscan
/// judges itself are not touched.
///
/// # Errors
/// When the bytes are no whole result in this format; [`ResultsError::reason`] says as what all controls then count.
pub fn judge<C: Content + ?Sized>(
    scanner: &ScannerDocument,
    ended: Option<(u8, ExitMeaning)>,
    content: &C,
    profile: &Profile,
    limits: &Limits,
) -> Result<Parsed, ResultsError> {
    let mut reading = Reading::from(&scanner.result);
    // Silence says something only of a scan that is known to be whole.
    if !ended.is_some_and(|(_, meaning)| meaning.is_whole()) {
        reading.unmentioned = Unmentioned::NotEvaluated;
    }
    let mut parsed = results::parse(reading, content, profile, limits)?;
    parsed.findings.iter_mut().for_each(|finding| withhold(finding, &scanner.blind_spots));
    if let Some((code, meaning)) = ended
        && let Some(why) = meaning.contradiction(&parsed.reported)
    {
        let detail = format!("the scanner ended with exit code {code}, which means `{}`, and {why}", meaning.word());
        parsed.findings.iter_mut().for_each(|finding| take_back(finding, &detail, parsed.reported.total()));
        parsed.notes.push(format!("exit code and result contradict each other: {detail}"));
    }
    Ok(parsed)
}

/// Takes back what passed where the scanner is blind.
fn withhold(finding: &mut Finding, spots: &[BlindSpot]) {
    if finding.outcome == Outcome::Passed
        && let Some(spot) = spots.iter().find(|spot| spot.covers(&finding.control))
    {
        let detail = format!("the scanner says that it passed, and can't tell: {}", spot.why);
        finding.outcome = Outcome::not_evaluated(Reason::FactMissing, detail);
    }
}

/// Takes back what speaks for the target in a result that can't be believed. `reported` is how many controls it names at all.
fn take_back(finding: &mut Finding, detail: &str, reported: u64) {
    let believed = match &finding.outcome {
        Outcome::Passed | Outcome::NotApplicable { .. } => false,
        // That a control is missing says nothing where there is none at all.
        Outcome::NotEvaluated { reason: Reason::ControlMissing, .. } => reported > 0,
        Outcome::Failed | Outcome::Waived { .. } | Outcome::NotEvaluated { .. } => true,
    };
    if !believed && !is_own_control(&finding.control) {
        finding.outcome = Outcome::not_evaluated(Reason::ExitContradicted, detail);
    }
}

/// The scanner's version, and what has to be said of it. What its result says of itself counts; where that is nothing, what it
/// answered when it was asked does.
pub(crate) fn version(
    scanner: &ScannerDocument,
    said: Option<String>,
    asked: Option<&Asked>,
) -> (String, Option<String>) {
    let answer = match (&scanner.version, asked) {
        (None, _) | (_, None) => return (said.unwrap_or_default(), None),
        (Some(question), Some(Asked::Answered { printed })) => {
            question.find(printed).ok_or_else(|| "there is no version in what it printed".to_owned())
        }
        (Some(_), Some(Asked::Unanswered { detail })) => Err(detail.clone()),
    };
    match (said, answer) {
        (Some(said), Ok(answer)) if !same(&said, &answer) => {
            let note = format!("the scanner's result says version {said}, and the scanner, when asked, {answer}");
            (said, Some(note))
        }
        (Some(said), Ok(_)) => (said, None),
        (None, Ok(answer)) => (answer, None),
        (said, Err(why)) => {
            (said.unwrap_or_default(), Some(format!("the scanner did not say its version when it was asked: {why}")))
        }
    }
}

/// Whether two texts name one version: a `v` in front means nothing, and one may say more than the other.
fn same(one: &str, other: &str) -> bool {
    let (one, other) = (one.trim_start_matches('v'), other.trim_start_matches('v'));
    one.starts_with(other) || other.starts_with(one)
}

#[cfg(test)]
mod tests;
