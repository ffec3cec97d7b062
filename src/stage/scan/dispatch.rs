//! The dispatcher owns the run: it records what is expected before anything starts, hands out the work, and records each
//! result as it comes. Whatever happens to a piece of work, each of its tasks ends with exactly one record.

use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;
use tokio::sync::watch;
use tokio::task::{Id, JoinSet, block_in_place};

use super::unit::{Context, Unit};
use crate::base::progress::Progress;
use crate::ledger::{Ledger, LedgerError};
use crate::model::coverage::Coverage;
use crate::model::outcome::Status;
use crate::model::profile::Profile;
use crate::model::provenance::{Approach, Engine, Provenance};
use crate::model::reason::Reason;
use crate::model::record::{CheckedTask, ExpectedTask, RunEnd, RunId, RunStart, TaskRecord, Trigger};
use crate::model::target::Target;

/// Whether a run should go on. Cheap to clone; the sender is held by whoever listens for signals.
pub type Stop = watch::Receiver<Stopping>;

/// How urgently a run is asked to stop.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stopping {
    /// Not at all.
    #[default]
    No,
    /// Start nothing new; what runs may end by itself.
    Drain,
    /// End what runs, too.
    Abort,
}

/// What a run came to.
#[derive(Clone, Debug)]
pub struct RunSummary {
    /// The run.
    pub run: RunId,
    /// How it ended.
    pub end: RunEnd,
    /// All outcomes together.
    pub coverage: Coverage,
    /// Each task's target, engine, profile and outcomes, in the order in which they ended.
    pub tasks: Vec<TaskRecord>,
}

/// Runs all `units` of one run and records every result.
///
/// # Errors
/// When the ledger can't be written: then the run stops at once, for a result that can't be recorded must not be made.
///
/// # Cancel safety
/// Dropped half-way, the run stays unfinished in the ledger, and [`close_interrupted`] accounts for it later.
pub(crate) async fn dispatch(
    start: RunStart,
    units: Vec<Unit>,
    context: Arc<Context>,
    ledger: &mut Ledger,
    mut stop: Stop,
    progress: &Progress,
) -> Result<RunSummary, LedgerError> {
    let run = start.run;
    let profiles: Vec<Profile> = distinct_profiles(&units);
    block_in_place(|| ledger.begin_run(&start, &profiles))?;

    let total: usize = units.iter().map(|u| u.tasks.len()).sum();
    let mut waiting = units.into_iter();
    let mut running: JoinSet<Vec<CheckedTask>> = JoinSet::new();
    let mut owned: HashMap<Id, Vec<Unaccounted>> = HashMap::new();
    let mut summary =
        RunSummary { run, end: RunEnd::Completed, coverage: Coverage::default(), tasks: Vec::with_capacity(total) };

    loop {
        while running.len() < context.policy.parallel && *stop.borrow() == Stopping::No {
            let Some(unit) = waiting.next() else { break };
            let tasks = unit.unaccounted();
            let context = Arc::clone(&context);
            let handle = running.spawn(async move { unit.perform(&context, run).await });
            owned.insert(handle.id(), tasks);
        }
        if running.is_empty() {
            break;
        }
        let ended = tokio::select! {
            ended = running.join_next_with_id() => ended,
            () = until_abort(&mut stop) => {
                running.abort_all();
                running.join_next_with_id().await
            }
        };
        let Some(ended) = ended else { break };
        let results = match ended {
            Ok((id, results)) => {
                owned.remove(&id);
                results
            }
            Err(error) => {
                let (reason, detail) = if error.is_cancelled() {
                    (Reason::RunnerInterrupted, "the run was told to stop at once".to_owned())
                } else {
                    (Reason::InternalError, format!("the task panicked: {error}"))
                };
                owned
                    .remove(&error.id())
                    .unwrap_or_default()
                    .into_iter()
                    .map(|t| t.not_done(run, reason, &detail))
                    .collect()
            }
        };
        for task in results {
            keep(ledger, &task, &mut summary, total, progress)?;
        }
    }
    for unit in waiting {
        summary.end = RunEnd::Drained;
        for task in unit.unaccounted() {
            let task =
                task.not_done(run, Reason::RunnerInterrupted, "the run was told to stop before this was started");
            keep(ledger, &task, &mut summary, total, progress)?;
        }
    }
    if *stop.borrow() == Stopping::Abort {
        summary.end = RunEnd::Drained;
    }
    block_in_place(|| ledger.end_run(run, summary.end, Timestamp::now()))?;
    Ok(summary)
}

/// Waits until the run is told to stop at once; for ever where it never is.
async fn until_abort(stop: &mut Stop) {
    if stop.wait_for(|s| *s == Stopping::Abort).await.is_err() {
        std::future::pending::<()>().await;
    }
}

fn keep(
    ledger: &mut Ledger,
    task: &CheckedTask,
    summary: &mut RunSummary,
    total: usize,
    progress: &Progress,
) -> Result<(), LedgerError> {
    block_in_place(|| ledger.record(task))?;
    let record = task.record();
    summary.coverage = summary.coverage.plus(record.coverage);
    summary.tasks.push(record.clone());
    progress.say(format!("[{}/{total}] {}", summary.tasks.len(), line(record)));
    Ok(())
}

/// One line on a result: what counts first.
fn line(record: &TaskRecord) -> String {
    let counts: Vec<String> = Status::ALL
        .iter()
        .filter(|s| record.coverage.count(**s) > 0)
        .map(|s| format!("{} {s}", record.coverage.count(*s)))
        .collect();
    format!("{}  {}: {}", record.target, record.profile.name, counts.join(", "))
}

fn distinct_profiles(units: &[Unit]) -> Vec<Profile> {
    let mut seen = std::collections::HashSet::new();
    units.iter().flat_map(|u| &u.tasks).filter(|t| seen.insert(t.profile.digest())).map(|t| t.profile.clone()).collect()
}

/// A task that has no result yet, with what is needed to say so.
#[derive(Clone, Debug)]
pub(crate) struct Unaccounted {
    pub(crate) target: Target,
    pub(crate) engine: String,
    pub(crate) profile: Profile,
}

impl Unaccounted {
    pub(crate) fn expected(&self) -> ExpectedTask {
        ExpectedTask { target: self.target.clone(), engine: self.engine.clone(), profile: self.profile.reference() }
    }

    /// The record that nothing of this was evaluated.
    pub(crate) fn not_done(self, run: RunId, reason: Reason, detail: &str) -> CheckedTask {
        let now = Timestamp::now();
        let provenance = Provenance {
            gapscan: env!("CARGO_PKG_VERSION").to_owned(),
            engine: Engine { name: self.engine, version: String::new(), image: None },
            bundle: None,
            content: Vec::new(),
            approach: Approach::None,
            identity: None,
            network: None,
            cleanup: None,
            started: now,
            finished: now,
        };
        CheckedTask::not_evaluated(run, self.target, self.profile, provenance, reason, detail, Vec::new())
    }
}

/// Accounts for runs that died: every task that they did not finish is recorded as not evaluated, and they are ended as
/// interrupted. Returns them.
///
/// # Errors
/// When the ledger can't be read or written.
pub fn close_interrupted(ledger: &mut Ledger, now: Timestamp) -> Result<Vec<RunId>, LedgerError> {
    let mut closed = Vec::new();
    for (start, missing) in ledger.unfinished_runs()? {
        for task in missing {
            let Some(profile) = ledger.profile(&task.profile.digest)? else { continue };
            let lost = Unaccounted { target: task.target, engine: task.engine, profile };
            let record = lost.not_done(start.run, Reason::RunnerInterrupted, "the runner ended before this was done");
            ledger.record(&record)?;
        }
        ledger.end_run(start.run, RunEnd::Interrupted, now)?;
        closed.push(start.run);
    }
    Ok(closed)
}

/// Records that a scan did not take place at all: everything that its last run did is expected of it again, and not
/// evaluated. Where it never ran, nothing is known to be expected, and only the event that the caller records tells of it.
///
/// # Errors
/// When the ledger can't be read or written.
pub fn record_absent_run(
    ledger: &mut Ledger,
    trigger: Trigger,
    last: &RunStart,
    reason: Reason,
    detail: &str,
    now: Timestamp,
) -> Result<RunId, LedgerError> {
    let mut lost = Vec::with_capacity(last.expected.len());
    for task in &last.expected {
        if let Some(profile) = ledger.profile(&task.profile.digest)? {
            lost.push(Unaccounted { target: task.target.clone(), engine: task.engine.clone(), profile });
        }
    }
    let start = RunStart {
        run: RunId::new(),
        trigger,
        started: now,
        requested: last.requested.clone(),
        expected: lost.iter().map(Unaccounted::expected).collect(),
    };
    let profiles: Vec<Profile> = lost.iter().map(|l| l.profile.clone()).collect();
    ledger.begin_run(&start, &profiles)?;
    for task in lost {
        ledger.record(&task.not_done(start.run, reason, detail))?;
    }
    ledger.end_run(start.run, RunEnd::Completed, now)?;
    Ok(start.run)
}
