//! `gapscan history`: what the ledger says over time.

use std::collections::HashMap;

use clap::Args as Arguments;
use serde::Serialize;

use super::access::LedgerPath;
use super::table::{self, COUNTS, Format, Table, counts, lies_below, when};
use crate::base::exit::{ExitClass, Outcome};
use crate::ledger::{Change, LedgerReader, RunRecord, TaskSummary};
use crate::model::coverage::Coverage;
use crate::model::outcome::Status;
use crate::model::profile::ProfileRef;
use crate::model::record::{RunEnd, RunId, Trigger};

/// How many changes of one result a table shows.
const SHOWN: usize = 10;

/// Show runs over time, or the results of one target and what changed between them
#[derive(Debug, Arguments)]
pub(super) struct Args {
    #[command(flatten)]
    ledger: LedgerPath,
    /// The target as results name it, or what it lies below: host, cluster, image/REF, node/NAME, pod/NS/NAME, ns/NAME
    #[arg(value_name = "TARGET")]
    target: Option<String>,
    /// How many runs, or results of each target and profile, the newest first
    #[arg(short = 'n', long, value_name = "COUNT", default_value_t = 20)]
    limit: usize,
    /// How to print it
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    output: Format,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct RunView {
    run: RunId,
    trigger: Trigger,
    started: jiff::Timestamp,
    ended: Option<jiff::Timestamp>,
    end: Option<RunEnd>,
    /// When it was taken up again after its runner had died.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    resumed: Vec<jiff::Timestamp>,
    requested: Vec<String>,
    tasks_expected: usize,
    tasks_recorded: u64,
    coverage: Coverage,
    score: Option<u64>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ResultView {
    entry: u64,
    run: RunId,
    target: String,
    engine: String,
    profile: ProfileRef,
    finished: jiff::Timestamp,
    coverage: Coverage,
    score: Option<u64>,
    /// Absent for the first result.
    changes: Option<Vec<ChangeView>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ChangeView {
    control: String,
    before: Option<Status>,
    after: Option<Status>,
}

impl Args {
    /// Prints the history. Succeeds when it could be read.
    pub(super) fn run(self) -> Outcome {
        let reader = LedgerReader::open(&self.ledger.path)?;
        match &self.target {
            None => self.runs(&reader)?,
            Some(target) => self.results(&reader, target)?,
        }
        Ok(ExitClass::Success)
    }

    fn runs(&self, reader: &LedgerReader) -> Outcome<()> {
        let runs: Vec<RunView> = reader.runs(self.limit)?.into_iter().map(run_view).collect();
        if self.output == Format::Json {
            return table::emit_json(&runs);
        }
        if runs.is_empty() {
            eprintln!("no run");
            return Ok(());
        }
        let mut list = Table::new(&[&["STARTED"], &COUNTS[..], &["RUN"]].concat());
        for run in &runs {
            let trigger = match &run.trigger {
                Trigger::Manual => "by hand".to_owned(),
                Trigger::Schedule { plan, .. } => format!("by plan {plan}"),
                Trigger::Import { user } => format!("imported by {user}"),
                Trigger::Alerts { source } => format!("alerts of {source}"),
            };
            let end = match run.end {
                Some(RunEnd::Completed) => "completed",
                Some(RunEnd::Drained) => "stopped",
                Some(RunEnd::Interrupted) => "died, closed later",
                None => "no end",
            };
            let tasks = format!("{} of {} tasks", run.tasks_recorded, run.tasks_expected);
            let resumed = match run.resumed.len() {
                0 => String::new(),
                1 => ", resumed once".to_owned(),
                times => format!(", resumed {times} times"),
            };
            let text = format!("{}\n{trigger}, {end}{resumed}, {tasks}", run.run);
            list.row([when(run.started)].into_iter().chain(counts(&run.coverage)).chain([text]));
        }
        table::emit(&list.render(0))
    }

    fn results(&self, reader: &LedgerReader, asked: &str) -> Outcome<()> {
        let mut views = Vec::new();
        for target in reader.targets()?.iter().filter(|key| lies_below(key, asked)) {
            let mut by_profile: Vec<Vec<TaskSummary>> = Vec::new();
            let mut index: HashMap<(String, String), usize> = HashMap::new();
            for task in reader.history(target)? {
                let at = *index.entry((task.engine.clone(), task.profile.name.clone())).or_insert(by_profile.len());
                if at == by_profile.len() {
                    by_profile.push(Vec::new());
                }
                by_profile[at].push(task);
            }
            for tasks in by_profile {
                for at in (0..tasks.len()).rev().take(self.limit) {
                    let before = at.checked_sub(1).map(|before| tasks[before].seq);
                    let changes = before.map(|before| reader.changes(before, tasks[at].seq)).transpose()?;
                    views.push(result_view(&tasks[at], changes));
                }
            }
        }
        if views.is_empty() {
            return Err(table::no_result(asked));
        }
        if self.output == Format::Json {
            return table::emit_json(&views);
        }
        table::emit(&render(&views))
    }
}

fn render(views: &[ResultView]) -> String {
    let mut text = String::new();
    let title = |view: &ResultView| format!("{}, {} by {}", view.target, view.profile.name, view.engine);
    for group in views.chunk_by(|a, b| title(a) == title(b)) {
        let gap = if text.is_empty() { "" } else { "\n" };
        text += &format!("{gap}{}\n", crate::base::text::printable(&title(&group[0])));
        let mut list = Table::new(&[&["WHEN"], &COUNTS[..], &["CHANGES"]].concat());
        for view in group {
            let row = [when(view.finished)].into_iter().chain(counts(&view.coverage));
            list.row(row.chain([changes(view.changes.as_deref())]));
        }
        text += &list.render(2);
    }
    text
}

fn changes(changes: Option<&[ChangeView]>) -> String {
    let Some(changes) = changes else { return "first result".to_owned() };
    if changes.is_empty() {
        return "none".to_owned();
    }
    let word = |status: Option<Status>| status.map_or("not expected".to_owned(), |status| status.to_string());
    let line = |change: &ChangeView| {
        let control = change.control.split_whitespace().collect::<Vec<_>>().join(" ");
        format!("{control}: {}, was {}", word(change.after), word(change.before))
    };
    let mut lines: Vec<String> = changes.iter().take(SHOWN).map(line).collect();
    if changes.len() > SHOWN {
        lines.push(format!("and {} more", changes.len() - SHOWN));
    }
    lines.join("\n")
}

fn run_view(record: RunRecord) -> RunView {
    let RunRecord { start, end, resumed, tasks, coverage } = record;
    RunView {
        run: start.run,
        trigger: start.trigger,
        started: start.started,
        ended: end.as_ref().map(|end| end.at),
        end: end.map(|end| end.end),
        resumed,
        requested: start.requested,
        tasks_expected: start.expected.len(),
        tasks_recorded: tasks,
        coverage,
        score: coverage.score(),
    }
}

fn result_view(task: &TaskSummary, changes: Option<Vec<Change>>) -> ResultView {
    let view = |change: Change| ChangeView { control: change.control, before: change.before, after: change.after };
    ResultView {
        entry: task.seq,
        run: task.run,
        target: task.target.clone(),
        engine: task.engine.clone(),
        profile: task.profile.clone(),
        finished: task.finished,
        coverage: task.coverage,
        score: task.coverage.score(),
        changes: changes.map(|changes| changes.into_iter().map(view).collect()),
    }
}
