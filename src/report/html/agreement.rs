//! Results that answer one question, side by side.

use super::shown::{Shown, When};
use crate::model::agreement::{Common, Comparison};
use crate::model::outcome::Status;

/// How many controls of one comparison are listed.
const MAX_CONTROLS: usize = 50;

/// Results that answer one question, as the page shows them.
#[derive(Debug)]
pub(super) struct ComparisonView {
    pub(super) what: Shown,
    pub(super) profile: Shown,
    pub(super) compared: u64,
    pub(super) differing: usize,
    pub(super) sides: Vec<Shown>,
    pub(super) rows: Vec<RowView>,
    pub(super) more: usize,
}

/// One control that they don't agree about.
#[derive(Debug)]
pub(super) struct RowView {
    pub(super) control: Shown,
    /// How it ended on each side: the class of its icon, and a word.
    pub(super) ended: Vec<(&'static str, String)>,
}

/// Those that say more than the results do by themselves.
pub(super) fn views(compared: &[Comparison]) -> Vec<ComparisonView> {
    compared.iter().filter_map(view).collect()
}

fn view(comparison: &Comparison) -> Option<ComparisonView> {
    let (what, is_one_target) = match &comparison.common {
        Common::Replicas { .. } if !comparison.is_inconsistent() => return None,
        Common::Replicas { workload, container } => (format!("Replicas of {workload}, container {container}"), false),
        Common::Approaches { target } => (target.clone(), true),
    };
    let sides = comparison.sides.iter().map(|side| match is_one_target {
        true => Shown::line(&format!("{} by {}, {}", side.approach.word(), side.engine, When::new(side.finished))),
        false => Shown::line(&side.target),
    });
    let rows = comparison.differences.iter().take(MAX_CONTROLS).map(|difference| RowView {
        control: Shown::line(&difference.control),
        ended: difference.outcomes.iter().map(|ended| word(*ended)).collect(),
    });
    Some(ComparisonView {
        what: Shown::line(&what),
        profile: Shown::line(&comparison.profile),
        compared: comparison.compared,
        differing: comparison.differences.len(),
        sides: sides.collect(),
        rows: rows.collect(),
        more: comparison.differences.len().saturating_sub(MAX_CONTROLS),
    })
}

fn word(ended: Option<Status>) -> (&'static str, String) {
    let class = match ended {
        Some(Status::Failed) => "failed",
        Some(Status::NotEvaluated) => "open",
        Some(Status::Waived) => "waived",
        Some(Status::Passed) => "passed",
        Some(Status::NotApplicable) | None => "na",
    };
    (class, ended.map_or("not in it".to_owned(), |status| status.to_string()))
}
