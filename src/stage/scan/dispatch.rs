//! The dispatcher owns the run: it records what is expected before anything starts, hands out the work, and records each
//! result as it comes. Whatever happens to a piece of work, each of its tasks ends with exactly one record.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use jiff::Timestamp;
use tokio::sync::watch;
use tokio::task::{Id, JoinSet, block_in_place};

use super::unit::{Context, NotDone, Unit};
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

/// Records what a run is to do, before anything of it is begun: from here on nothing of it can get lost.
///
/// # Errors
/// When the ledger can't be written.
pub(crate) fn begin(start: &RunStart, units: &[Unit], ledger: &mut Ledger) -> Result<(), LedgerError> {
    let profiles = distinct_profiles(units);
    block_in_place(|| ledger.begin_run(start, &profiles))
}

/// Runs all `units` of a run that was begun, and records every result.
///
/// # Errors
/// When the ledger can't be written: then the run stops at once, for a result that can't be recorded must not be made.
/// Nothing of the run goes on when this returns.
///
/// # Cancel safety
/// Dropped half-way, the run stays unfinished in the ledger, and [`close_interrupted`] accounts for it later.
pub(crate) async fn dispatch(
    run: RunId,
    units: Vec<Unit>,
    context: Arc<Context>,
    ledger: &mut Ledger,
    stop: Stop,
    progress: &Progress,
) -> Result<RunSummary, LedgerError> {
    let (parallel, total) = (context.policy.parallel, units.iter().map(|u| u.tasks.len()).sum());
    let work = units.into_iter().map(|unit| {
        let (tasks, context) = (unit.unaccounted(), Arc::clone(&context));
        (tasks, async move { unit.perform(&context, run).await })
    });
    Dispatcher::new(run, total, ledger, progress).finish(work, parallel, stop).await
}

/// Keeps account of one run.
struct Dispatcher<'a> {
    ledger: &'a mut Ledger,
    progress: &'a Progress,
    summary: RunSummary,
    total: usize,
}

impl<'a> Dispatcher<'a> {
    fn new(run: RunId, total: usize, ledger: &'a mut Ledger, progress: &'a Progress) -> Self {
        let summary = RunSummary { run, end: RunEnd::Completed, coverage: Coverage::default(), tasks: Vec::new() };
        Self { ledger, progress, summary, total }
    }

    async fn finish<F>(
        mut self,
        work: impl Iterator<Item = (Vec<Unaccounted>, F)>,
        parallel: usize,
        stop: Stop,
    ) -> Result<RunSummary, LedgerError>
    where
        F: Future<Output = Vec<CheckedTask>> + Send + 'static,
    {
        let mut running = JoinSet::new();
        let outcome = self.work_off(work, parallel, stop, &mut running).await;
        // After an error some still run. They are over, and have let go of all that the run shares, before it is cleaned up.
        running.shutdown().await;
        outcome.map(|()| self.summary)
    }

    async fn work_off<F>(
        &mut self,
        mut waiting: impl Iterator<Item = (Vec<Unaccounted>, F)>,
        parallel: usize,
        mut stop: Stop,
        running: &mut JoinSet<Vec<CheckedTask>>,
    ) -> Result<(), LedgerError>
    where
        F: Future<Output = Vec<CheckedTask>> + Send + 'static,
    {
        let mut owned: HashMap<Id, Vec<Unaccounted>> = HashMap::new();
        loop {
            while running.len() < parallel && *stop.borrow() == Stopping::No {
                let Some((tasks, work)) = waiting.next() else { break };
                owned.insert(running.spawn(work).id(), tasks);
            }
            let ended = tokio::select! {
                ended = running.join_next_with_id() => ended,
                () = until(&mut stop, Stopping::Abort) => {
                    running.abort_all();
                    running.join_next_with_id().await
                }
            };
            let Some(ended) = ended else { break };
            let (id, results, reason, detail) = match ended {
                Ok((id, results)) => (id, results, Reason::InternalError, "the task ended without a result".to_owned()),
                Err(error) if error.is_cancelled() => {
                    (error.id(), Vec::new(), Reason::RunnerInterrupted, "the run was told to stop at once".to_owned())
                }
                Err(error) => (error.id(), Vec::new(), Reason::InternalError, format!("the task panicked: {error}")),
            };
            let mut missing = owned.remove(&id).unwrap_or_default();
            for task in &results {
                missing.retain(|expected| !expected.is_answered_by(task.record()));
                self.keep(task)?;
            }
            for task in missing {
                self.keep(&task.not_done(self.summary.run, reason, &detail))?;
            }
        }
        for (tasks, _) in waiting {
            self.summary.end = RunEnd::Drained;
            for task in tasks {
                let detail = "the run was told to stop before this was started";
                self.keep(&task.not_done(self.summary.run, Reason::RunnerInterrupted, detail))?;
            }
        }
        if *stop.borrow() == Stopping::Abort {
            self.summary.end = RunEnd::Drained;
        }
        block_in_place(|| self.ledger.end_run(self.summary.run, self.summary.end, Timestamp::now()))
    }

    fn keep(&mut self, task: &CheckedTask) -> Result<(), LedgerError> {
        block_in_place(|| self.ledger.record(task))?;
        let record = task.record();
        self.summary.coverage = self.summary.coverage.plus(record.coverage);
        self.summary.tasks.push(record.clone());
        self.progress.say(format!("[{}/{}] {}", self.summary.tasks.len(), self.total, line(record)));
        Ok(())
    }
}

/// Waits until the run is told to stop at least so urgently; for ever where it never is.
async fn until(stop: &mut Stop, urgency: Stopping) {
    if stop.wait_for(|s| *s >= urgency).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// What `work` comes to, unless the run is told to stop before it is done: then it is dropped.
pub(super) async fn unless_stopped<T>(
    stop: &mut Stop,
    work: impl Future<Output = Result<T, NotDone>>,
) -> Result<T, NotDone> {
    tokio::select! {
        biased;
        () = until(stop, Stopping::Drain) => {
            Err(NotDone::new(Reason::RunnerInterrupted, "the run was told to stop while the cluster was prepared for it"))
        }
        done = work => done,
    }
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

    /// Whether this is the result that was expected.
    fn is_answered_by(&self, record: &TaskRecord) -> bool {
        self.target.key() == record.target.key()
            && self.engine == record.provenance.engine.name
            && self.profile.digest() == record.profile.digest
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

/// So many of the newest runs are asked whether they are over; what older ones left is old enough to be removed as such.
const RECENT: usize = 100;

/// The newest runs of this ledger that are over, however they ended and whoever accounted for them: what they left in a
/// cluster is nobody's any more.
///
/// # Errors
/// When the ledger can't be read.
pub(crate) fn runs_over(ledger: &Ledger) -> Result<BTreeSet<RunId>, LedgerError> {
    let runs = ledger.reader().runs(RECENT)?;
    Ok(runs.into_iter().filter(|run| run.end.is_some()).map(|run| run.start.run).collect())
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
        classification: last.classification.clone(),
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

#[cfg(test)]
mod tests;
