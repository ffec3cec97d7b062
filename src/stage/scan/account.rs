//! What is recorded where nothing was evaluated: of tasks that were never begun, of runs that died, of runs that never were.

use std::collections::BTreeSet;

use jiff::Timestamp;

use crate::ledger::{Ledger, LedgerError};
use crate::model::profile::Profile;
use crate::model::provenance::{Approach, Engine, Provenance};
use crate::model::reason::Reason;
use crate::model::record::{CheckedTask, ExpectedTask, RunEnd, RunId, RunStart, TaskRecord, Trigger};
use crate::model::target::Target;

/// A task that has no result yet, with what is needed to say so.
#[derive(Clone, Debug)]
pub(crate) struct Unaccounted {
    pub(crate) target: Target,
    pub(crate) engine: String,
    pub(crate) profile: Profile,
}

impl Unaccounted {
    pub(crate) fn expected(&self) -> ExpectedTask {
        ExpectedTask {
            target: self.target.clone(),
            engine: self.engine.clone(),
            profile: self.profile.reference(),
            incarnation: None,
            workload: None,
        }
    }

    /// Whether this is the result that was expected.
    pub(crate) fn is_answered_by(&self, record: &TaskRecord) -> bool {
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
            imported: None,
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
    close_interrupted_but(None, ledger, now)
}

/// [`close_interrupted`], but for one run that is to be resumed.
///
/// # Errors
/// When the ledger can't be read or written.
pub(crate) fn close_interrupted_but(
    resumed: Option<RunId>,
    ledger: &mut Ledger,
    now: Timestamp,
) -> Result<Vec<RunId>, LedgerError> {
    let mut closed = Vec::new();
    for (start, missing) in ledger.unfinished_runs()? {
        if Some(start.run) == resumed {
            continue;
        }
        close(&start, missing, "the runner ended before this was done", ledger, now)?;
        closed.push(start.run);
    }
    Ok(closed)
}

/// Ends a run as interrupted, with what is missing of it not evaluated. Returns the records of that.
pub(crate) fn close(
    start: &RunStart,
    missing: Vec<ExpectedTask>,
    detail: &str,
    ledger: &mut Ledger,
    now: Timestamp,
) -> Result<Vec<TaskRecord>, LedgerError> {
    let mut records = Vec::with_capacity(missing.len());
    for task in missing {
        records.extend(not_done(start.run, task, Reason::RunnerInterrupted, detail, ledger)?);
    }
    ledger.end_run(start.run, RunEnd::Interrupted, now)?;
    Ok(records)
}

/// Records that this task of a run has no result, and why. A task by a profile that the ledger does not have can't be: then
/// nothing is recorded, and the run can't be ended.
pub(crate) fn not_done(
    run: RunId,
    task: ExpectedTask,
    reason: Reason,
    detail: &str,
    ledger: &mut Ledger,
) -> Result<Option<TaskRecord>, LedgerError> {
    let Some(profile) = ledger.profile(&task.profile.digest)? else { return Ok(None) };
    let record = Unaccounted { target: task.target, engine: task.engine, profile }.not_done(run, reason, detail);
    ledger.record(&record)?;
    Ok(Some(record.record().clone()))
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
        // Nothing of it was used.
        bundle: None,
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
