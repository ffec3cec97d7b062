//! What waivers make of a result. Pure: findings, waivers, target, profile and time in; findings and notes out.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::{Standing, Waiver, WaiverDocument};
use crate::base::text::brief;
use crate::model::finding::{Detail, Finding};
use crate::model::outcome::{Outcome, Status};
use crate::model::profile::Profile;
use crate::model::target::Target;

/// So many controls are named in a note.
const NAMED: usize = 5;
/// So many waivers that don't count are told of with one finding.
const TOLD: usize = 3;

/// A result after the waivers.
#[derive(Clone, Debug)]
pub struct Applied {
    /// The same findings, of which some that had failed are waived.
    pub findings: Vec<Finding>,
    /// What else waivers have to do with the result.
    pub notes: Vec<String>,
    /// The places of the documents that had to do with it.
    pub documents: Vec<usize>,
}

/// What a waiver came to for a control that it is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Effect {
    Waived,
    NotNeeded,
    NotEvaluated,
    Expired,
    TooFar,
    TooSevere,
}

/// Waives what failed and is in a waiver that counts at `now`. Nothing else changes how it ended: what was not evaluated stays
/// so, and what passed needs no waiver; both is noted. Of several waivers the one that expires last is named.
pub fn apply(
    mut findings: Vec<Finding>,
    documents: &[WaiverDocument],
    target: &Target,
    profile: &Profile,
    now: Timestamp,
) -> Applied {
    let reference = profile.reference();
    let concerned: Vec<(usize, &WaiverDocument, &Waiver)> = documents
        .iter()
        .enumerate()
        .flat_map(|(at, document)| document.waivers.iter().map(move |waiver| (at, document, waiver)))
        .filter(|(_, _, waiver)| waiver.concerns(&reference, target))
        .collect();
    let mut effects: BTreeMap<(usize, Effect), Vec<String>> = BTreeMap::new();
    if !concerned.is_empty() {
        for finding in &mut findings {
            let control = profile.control(&finding.control);
            let mut told = Vec::new();
            let mut chosen: Option<(usize, &WaiverDocument, &Waiver)> = None;
            for (place, (_, document, waiver)) in concerned.iter().enumerate() {
                if !waiver.covers(&finding.control) {
                    continue;
                }
                let standing = waiver.standing(document.longest, now);
                let effect = match (finding.outcome.status(), standing) {
                    (Status::NotEvaluated, Standing::Counts) => Effect::NotEvaluated,
                    (Status::Passed | Status::NotApplicable, Standing::Counts) => Effect::NotNeeded,
                    // Nobody misses it; that it does not count is told elsewhere.
                    (
                        Status::Passed | Status::NotApplicable | Status::NotEvaluated,
                        Standing::Expired | Standing::TooFar,
                    ) => continue,
                    // No engine waives anything.
                    (Status::Waived, _) => continue,
                    (Status::Failed, Standing::Expired) => Effect::Expired,
                    (Status::Failed, Standing::TooFar) => Effect::TooFar,
                    (Status::Failed, Standing::Counts) if waiver.is_too_severe(control) => Effect::TooSevere,
                    (Status::Failed, Standing::Counts) => {
                        if chosen.is_none_or(|(_, _, best)| waiver.expires > best.expires) {
                            chosen = Some((place, document, waiver));
                        }
                        continue;
                    }
                };
                told.push((place, effect));
            }
            match chosen {
                Some((place, document, waiver)) => {
                    finding.outcome = Outcome::Waived {
                        waiver: document.reference.digest,
                        id: waiver.id.clone(),
                        justification: waiver.reason.clone(),
                        until: waiver.expires,
                    };
                    effects.entry((place, Effect::Waived)).or_default().push(finding.control.clone());
                }
                None => {
                    for (place, effect) in &told {
                        effects.entry((*place, *effect)).or_default().push(finding.control.clone());
                    }
                    let failed = finding.outcome.status() == Status::Failed;
                    finding.details.extend(told.iter().filter(|_| failed).take(TOLD).filter_map(|(place, effect)| {
                        let waiver = concerned[*place].2;
                        Some(Detail::new(format!("waiver {}", waiver.id), why(*effect, waiver)?))
                    }));
                }
            }
        }
    }
    let mut documents: Vec<usize> = effects.keys().map(|(place, _)| concerned[*place].0).collect();
    documents.sort_unstable();
    documents.dedup();
    let mut notes: Vec<String> = documents
        .iter()
        .map(|at| concerned.iter().find(|(of, _, _)| of == at).map(|(_, document, _)| *document))
        .filter_map(|document| document.filter(|document| document.reference.approvals.is_empty()))
        .map(|document| {
            format!(
                "the waivers of `{}` are unsigned: policy accepts them as they are",
                brief(&document.reference.file)
            )
        })
        .collect();
    for ((place, effect), controls) in &effects {
        let (_, document, waiver) = concerned[*place];
        notes.extend(note(*effect, document, waiver, controls));
    }
    Applied { findings, notes, documents }
}

/// Why a waiver does not count for a control that failed.
fn why(effect: Effect, waiver: &Waiver) -> Option<String> {
    match effect {
        Effect::Waived | Effect::NotNeeded | Effect::NotEvaluated => None,
        Effect::Expired => Some(format!("it expired at {}, and does not count any more", waiver.expires)),
        Effect::TooFar => {
            Some(format!("it expires at {}, later than policy allows, and does not count yet", waiver.expires))
        }
        Effect::TooSevere => {
            let most = waiver.max_severity.map_or("none", crate::model::control::Severity::word);
            Some(format!("it is for controls of severity {most} at most, and does not count for this one"))
        }
    }
}

fn note(effect: Effect, document: &WaiverDocument, waiver: &Waiver, controls: &[String]) -> Option<String> {
    let named = controls.iter().take(NAMED).map(|id| brief(id)).collect::<Vec<_>>().join(", ");
    let more = match controls.len().saturating_sub(NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let which = format!("waiver `{}` of `{}`", brief(&waiver.id), brief(&document.reference.file));
    let controls = format!("{named}{more}");
    let count = |effect| why(effect, waiver).map(|why| format!("{which}: {why}: {controls}"));
    match effect {
        Effect::Waived => None,
        Effect::NotNeeded => Some(format!("{which} is not needed, for this did not fail: {controls}")),
        Effect::NotEvaluated => {
            Some(format!("{which} is for what was not evaluated, which is never waived: {controls}"))
        }
        Effect::Expired | Effect::TooFar | Effect::TooSevere => count(effect),
    }
}
