//! Runs a plan's scans by their schedules, and keeps account of every due time: run, missed, or overlapped.

mod dues;
pub mod endpoint;
mod entry;
pub mod falco;
mod metrics;
mod pulse;
mod turn;

use std::time::Duration;

use jiff::Timestamp;

use self::dues::{handled_dues, owed};
use self::entry::{Entry, Standing};
use self::falco::{Intake, IntakeError};
use self::turn::{COUNT_LIMIT, Turn, is_astray, latest_believed, turn};
use super::plan::{Access, Plan, PlannedScan};
use super::scan::account::close_interrupted;
use super::scan::dispatch::{Stop, Stopping};
use super::scan::{ResumeRequest, ScanError, by_itself, newest_unfinished, resume};
use super::schedule::Missed;
use crate::base::progress::Progress;
use crate::ledger::{Ledger, LedgerError};
use crate::model::record::Trigger;
use crate::trust::remembered::OnLoss;

pub use pulse::Pulse;

/// The clock is read again at least this often, because a machine that sleeps or is set to another time wakes no timer.
const STEP: Duration = Duration::from_secs(20);

/// Why serving ended.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The ledger can't be written.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The plan has nothing to do by schedule.
    #[error("serve plan `{0}`: none of its scans has a schedule")]
    Nothing(String),
    /// Alerts can't be taken.
    #[error(transparent)]
    Intake(#[from] IntakeError),
}

impl crate::base::exit::Classify for ServeError {
    fn class(&self) -> crate::base::exit::ExitClass {
        match self {
            Self::Ledger(error) => error.class(),
            Self::Nothing(_) => crate::base::exit::ExitClass::Usage,
            Self::Intake(error) => error.class(),
        }
    }

    fn remedy(&self) -> Option<String> {
        match self {
            Self::Ledger(error) => error.remedy(),
            Self::Nothing(_) => None,
            Self::Intake(error) => error.remedy(),
        }
    }
}

/// Serves the plan until it is told to stop. A scan that fails to start is recorded and tried again at its next due time.
///
/// # Errors
/// When no scan has a schedule, or the ledger can't be written.
pub async fn serve(
    plan: &Plan,
    access: &Access,
    ledger: &mut Ledger,
    stop: Stop,
    progress: &Progress,
) -> Result<(), ServeError> {
    serve_with(plan, access, ledger, stop, progress, &Pulse::new(Timestamp::now()), None).await
}

/// The same, with a pulse by which others see that the loop turns, and a place where alerts come in.
///
/// # Errors
/// As [`serve`].
pub async fn serve_with(
    plan: &Plan,
    access: &Access,
    ledger: &mut Ledger,
    mut stop: Stop,
    progress: &Progress,
    pulse: &Pulse,
    intake: Option<&Intake>,
) -> Result<(), ServeError> {
    let started = Timestamp::now();
    // What a process before this one took is gone on with before its runs are closed as interrupted.
    let record = |ledger: &mut Ledger| intake.map_or(Ok(()), |intake| intake.record_due(ledger, progress));
    record(ledger)?;
    take_up(plan, access, ledger, stop.clone(), progress).await?;
    for run in close_interrupted(ledger, Timestamp::now())? {
        progress.say(format!("run {run} had died; what it did not do is recorded as not evaluated"));
    }
    let mut entries = Vec::new();
    for scan in &plan.scans {
        if let Some(schedule) = &scan.schedule {
            let subject = format!("{}/{}", plan.name, scan.name);
            let dues = handled_dues(ledger, &subject)?;
            let handled = latest_believed(&dues, started).unwrap_or(started);
            let owed = if schedule.missed() == Missed::Run { owed(&ledger.reader().events()?, &subject) } else { None };
            let mut entry = Entry { scan: scan.clone(), schedule: schedule.clone(), subject, handled, owed };
            if let Some(astray) = dues.into_iter().max().filter(|due| is_astray(*due, started)) {
                entry.set_right(astray, handled, ledger, progress)?;
            }
            entries.push(entry);
        }
    }
    if entries.is_empty() && intake.is_none() {
        return Err(ServeError::Nothing(plan.name.clone()));
    }
    for entry in &entries {
        let next = entry.schedule.next_after(started).map_or("never".to_owned(), |t| t.to_string());
        progress.say(format!("{}: {}, next at {next}", entry.subject, entry.schedule.words()));
    }

    // What was due before the runner came is missed however short ago it was: nobody was there.
    for entry in &mut entries {
        let passed = entry.schedule.passed(entry.handled, started, COUNT_LIMIT);
        if let Some(last) = passed.last {
            entry.missed(last, passed.count, ledger, progress)?;
            entry.handled = last;
            if entry.schedule.missed() == Missed::Run {
                entry.run((last, Standing::Recorded), plan, access, ledger, stop.clone(), progress).await?;
            }
        }
    }

    let mut free_since = Timestamp::now();
    while *stop.borrow() == Stopping::No {
        pulse.beat(Timestamp::now());
        record(ledger)?;
        let mut ran = false;
        for entry in &mut entries {
            if *stop.borrow() != Stopping::No {
                break;
            }
            let now = Timestamp::now();
            if is_astray(entry.handled, now) {
                entry.set_right(entry.handled, now, ledger, progress)?;
            }
            if let Some(due) = entry.owed
                && plan.policy.blackout_until(now).is_none()
            {
                entry.run((due, Standing::Recorded), plan, access, ledger, stop.clone(), progress).await?;
                ran = true;
                continue;
            }
            match turn(&entry.schedule, entry.handled, free_since, now) {
                Turn::Wait => {}
                Turn::Missed { last, count } => {
                    entry.missed(last, count, ledger, progress)?;
                    entry.handled = last;
                    if entry.schedule.missed() == Missed::Run {
                        entry.run((last, Standing::Recorded), plan, access, ledger, stop.clone(), progress).await?;
                        ran = true;
                    }
                }
                Turn::Run { due, passed_over } => {
                    if passed_over > 0 {
                        entry.overlapped(due, passed_over, ledger)?;
                    }
                    entry.handled = due;
                    entry.run((due, Standing::Due), plan, access, ledger, stop.clone(), progress).await?;
                    let passed = entry.schedule.passed(due, Timestamp::now(), COUNT_LIMIT);
                    if let Some(last) = passed.last {
                        entry.overlapped(last, passed.count, ledger)?;
                        entry.handled = last;
                    }
                    ran = true;
                }
            }
        }
        if ran {
            free_since = Timestamp::now();
            continue;
        }
        let now = Timestamp::now();
        let next = entries.iter().filter_map(|e| e.schedule.next_after(e.handled.max(now))).min();
        let wait = next
            .and_then(|t| Duration::try_from(t.duration_since(now)).ok())
            .map_or(STEP, |d| d.clamp(Duration::from_millis(10), STEP));
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            stopped = stop.wait_for(|s| *s != Stopping::No) => {
                if stopped.is_err() {
                    break;
                }
            }
        }
    }
    progress.say("stopped: nothing is left running");
    Ok(())
}

/// Takes up the newest run that has no end, if it is one of this plan's schedules, asks what the plan still asks, and policy
/// says so. What comes of it otherwise is closed by whoever called.
async fn take_up(
    plan: &Plan,
    access: &Access,
    ledger: &mut Ledger,
    stop: Stop,
    progress: &Progress,
) -> Result<(), ServeError> {
    let newest = match newest_unfinished(ledger) {
        Ok(newest) => newest,
        Err(ScanError::Ledger(error)) => return Err(error.into()),
        Err(_) => None,
    };
    let Some(run) = newest else { return Ok(()) };
    let Trigger::Schedule { plan: subject, .. } = &run.start.trigger else { return Ok(()) };
    let asks_the_same = |scan: &PlannedScan| {
        *subject == format!("{}/{}", plan.name, scan.name)
            && scan.schedule.is_some()
            && scan.selection.words() == run.start.requested
    };
    if !plan.scans.iter().any(asks_the_same) || !by_itself(&run, &plan.policy.resume, Timestamp::now()) {
        return Ok(());
    }
    progress.say(format!("{subject}: run {} had died and is resumed", run.start.run));
    let request = ResumeRequest { access: access.clone(), policy: plan.policy.clone(), on_loss: OnLoss::Refuse };
    match resume(request, ledger, stop, progress).await {
        Ok(summary) => {
            let words = super::scan::words(summary.coverage);
            progress.say(format!("{subject}: run {} ended: {words}", summary.run));
            Ok(())
        }
        Err(ScanError::Ledger(error)) => Err(error.into()),
        Err(error) => {
            progress.say(format!("{subject}: failed to resume run {}: {}", run.start.run, error.chain()));
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests;
