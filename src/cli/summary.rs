//! What a scan came to, for stdout: a line for each target and profile, and what kept anything from being evaluated.

use std::collections::BTreeMap;

use serde::Serialize;

use super::table::{self, COUNTS, Format, Table, counts};
use crate::base::exit::Outcome;
use crate::model::coverage::Coverage;
use crate::model::outcome::Outcome as Verdict;
use crate::model::profile::ProfileRef;
use crate::model::record::{RunEnd, RunId, TaskRecord};
use crate::stage::scan::RunSummary;

/// How many reasons of one result a table shows.
const SHOWN: usize = 3;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct RunView<'s> {
    run: RunId,
    end: RunEnd,
    coverage: Coverage,
    score: Option<u64>,
    waivers_refused: usize,
    results: Vec<ResultView<'s>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ResultView<'s> {
    target: String,
    engine: &'s str,
    profile: &'s ProfileRef,
    coverage: Coverage,
    score: Option<u64>,
}

/// Prints the runs, as a table or as a JSON list.
pub(super) fn print(runs: &[RunSummary], format: Format) -> Outcome<()> {
    match format {
        Format::Json => table::emit_json(&runs.iter().map(view).collect::<Vec<_>>()),
        Format::Table => table::emit(&runs.iter().map(render).collect::<Vec<_>>().join("\n")),
    }
}

fn view(run: &RunSummary) -> RunView<'_> {
    RunView {
        run: run.run,
        end: run.end,
        coverage: run.coverage,
        score: run.coverage.score(),
        waivers_refused: run.waivers_refused,
        results: run.tasks.iter().map(result).collect(),
    }
}

fn result(task: &TaskRecord) -> ResultView<'_> {
    ResultView {
        target: task.target.key(),
        engine: &task.provenance.engine.name,
        profile: &task.profile,
        coverage: task.coverage,
        score: task.coverage.score(),
    }
}

fn render(run: &RunSummary) -> String {
    let mut list = Table::new(&[&COUNTS[..], &["TARGET"]].concat());
    // Tasks end in any order; targets are looked for by name.
    let mut tasks: Vec<&TaskRecord> = run.tasks.iter().collect();
    tasks.sort_by_cached_key(|task| (task.target.key(), task.profile.name.clone()));
    for task in &tasks {
        let mut lines = vec![task.target.key(), format!("{} by {}", task.profile.name, task.provenance.engine.name)];
        lines.extend(reasons(task));
        list.row(counts(&task.coverage).into_iter().chain([lines.join("\n")]));
    }
    if tasks.len() != 1 {
        let end = match run.end {
            RunEnd::Completed => "",
            RunEnd::Drained => ", stopped before its end",
            RunEnd::Interrupted => ", interrupted",
        };
        list.row(counts(&run.coverage).into_iter().chain([format!("run {}{end}", run.run)]));
    }
    let mut text = list.render(0);
    if run.waivers_refused > 0 {
        let files = table::count(run.waivers_refused, "file");
        text += &format!("{files} of waivers did not count: `gapscan waive check` says why\n");
    }
    text
}

/// Why controls were not evaluated, what holds for the most of them first.
fn reasons(task: &TaskRecord) -> Vec<String> {
    let mut found: BTreeMap<String, usize> = BTreeMap::new();
    for finding in &task.findings {
        if let Verdict::NotEvaluated { reason, detail } = &finding.outcome {
            let detail = detail.split_whitespace().collect::<Vec<_>>().join(" ");
            let separator = if detail.is_empty() { "" } else { ": " };
            *found.entry(format!("{reason}{separator}{detail}")).or_default() += 1;
        }
    }
    let mut found: Vec<(String, usize)> = found.into_iter().collect();
    found.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let more = found.len().saturating_sub(SHOWN);
    let mut lines: Vec<String> =
        found.into_iter().take(SHOWN).map(|(why, count)| format!("- {count} not evaluated, {why}")).collect();
    if more > 0 {
        lines.push(format!("- and {} more", table::count(more, "reason")));
    }
    lines
}
