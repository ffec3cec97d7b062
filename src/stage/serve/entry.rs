//! One scan of the plan: it is run when it is due, and every due time that brings no evaluation is recorded.

use jiff::Timestamp;

use super::ServeError;
use super::dues::{BLACKOUT_OVER, last_run};
use super::turn::COUNT_LIMIT;
use crate::base::progress::Progress;
use crate::ledger::Ledger;
use crate::model::reason::Reason;
use crate::model::record::{Event, Trigger};
use crate::stage::plan::{Access, Plan, PlannedScan};
use crate::stage::scan::account::record_absent_run;
use crate::stage::scan::dispatch::Stop;
use crate::stage::scan::{ScanError, ScanRequest, scan, words};
use crate::stage::schedule::{Missed, Schedule};
use crate::trust::remembered::OnLoss;

/// One of the plan's scans, and how far its due times are accounted for.
pub(super) struct Entry {
    pub(super) scan: PlannedScan,
    pub(super) schedule: Schedule,
    pub(super) subject: String,
    pub(super) handled: Timestamp,
    /// A due time that fell into a blackout and is to be made up for.
    pub(super) owed: Option<Timestamp>,
}

/// What the record says of a due time already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// Nothing: it is due now.
    Due,
    /// That it was not run, which it is made up for.
    Recorded,
}

impl Entry {
    /// Runs what was due; in a blackout it is recorded, and owed where the schedule makes up for what was missed.
    pub(super) async fn run(
        &mut self,
        (due, standing): (Timestamp, Standing),
        plan: &Plan,
        access: &Access,
        ledger: &mut Ledger,
        stop: Stop,
        progress: &Progress,
    ) -> Result<(), ServeError> {
        let trigger = Trigger::Schedule { plan: self.subject.clone(), due };
        if let Some(until) = plan.policy.blackout_until(Timestamp::now()) {
            let detail = format!("it was due at {due}, and nothing is started in a blackout, until {until} at least");
            progress.say(format!("{}: {detail}", self.subject));
            self.owed = (self.schedule.missed() == Missed::Run).then_some(due);
            let (reason, what) = (Reason::Blackout, Reason::Blackout.code());
            return match standing {
                Standing::Due => self.absent(trigger, due, reason, what, &detail, ledger),
                Standing::Recorded => Ok(ledger.event(&self.event(due, what, detail))?),
            };
        }
        if let Some(owed) = self.owed.take() {
            let detail = format!("what was due at {owed} in a blackout is made up for");
            ledger.event(&self.event(owed, BLACKOUT_OVER, detail))?;
        }
        progress.say(format!("{}: due at {due}, starting", self.subject));
        let request = ScanRequest {
            trigger: trigger.clone(),
            selection: self.scan.selection.clone(),
            access: access.clone(),
            policy: plan.policy.clone(),
            // Nobody is there to say that a loss is meant.
            on_loss: OnLoss::Refuse,
        };
        match scan(request, ledger, stop, progress).await {
            Ok(summary) => {
                progress.say(format!("{}: run {} ended: {}", self.subject, summary.run, words(summary.coverage)));
                Ok(())
            }
            Err(ScanError::Ledger(error)) => Err(error.into()),
            Err(error) => {
                let (reason, detail) = (error.reason(), error.chain());
                progress.say(format!("{}: failed to {detail}", self.subject));
                self.absent(trigger, due, reason, "scan-failed", &detail, ledger)
            }
        }
    }

    pub(super) fn missed(
        &self,
        last: Timestamp,
        count: usize,
        ledger: &mut Ledger,
        progress: &Progress,
    ) -> Result<(), ServeError> {
        let detail = format!("{} due, the last at {last}, while no runner was there to run it", times(count));
        progress.say(format!("{}: missed: {detail}", self.subject));
        let trigger = Trigger::Schedule { plan: self.subject.clone(), due: last };
        self.absent(trigger, last, Reason::ScheduleMissed, Reason::ScheduleMissed.code(), &detail, ledger)
    }

    /// Goes on from `handled`, since the clock had gone `astray`.
    pub(super) fn set_right(
        &mut self,
        astray: Timestamp,
        handled: Timestamp,
        ledger: &mut Ledger,
        progress: &Progress,
    ) -> Result<(), ServeError> {
        let detail = format!("the record has a due time of {astray}, which is yet to come: the clock was wrong then");
        progress.say(format!("{}: {detail}", self.subject));
        let (at, what) = (Timestamp::now(), "schedule-clock-moved-back".to_owned());
        ledger.event(&Event { at, what, subject: self.subject.clone(), due: None, detail })?;
        self.handled = handled;
        Ok(())
    }

    pub(super) fn overlapped(&self, last: Timestamp, count: usize, ledger: &mut Ledger) -> Result<(), ServeError> {
        let detail = format!("{} due, the last at {last}, while a run was still going on", times(count));
        ledger.event(&self.event(last, Reason::ScheduleOverlap.code(), detail))?;
        Ok(())
    }

    /// Records that a due time brought no evaluation: an event, and everything that the last run did as not evaluated.
    fn absent(
        &self,
        trigger: Trigger,
        due: Timestamp,
        reason: Reason,
        what: &str,
        detail: &str,
        ledger: &mut Ledger,
    ) -> Result<(), ServeError> {
        ledger.event(&self.event(due, what, detail.to_owned()))?;
        if let Some(last) = last_run(ledger, &self.subject)? {
            record_absent_run(ledger, trigger, &last, reason, detail, Timestamp::now())?;
        }
        Ok(())
    }

    fn event(&self, due: Timestamp, what: &str, detail: String) -> Event {
        Event { at: Timestamp::now(), what: what.to_owned(), subject: self.subject.clone(), due: Some(due), detail }
    }
}

fn times(count: usize) -> String {
    match count {
        1 => "1 time was".to_owned(),
        n if n >= COUNT_LIMIT => format!("at least {n} times were"),
        n => format!("{n} times were"),
    }
}
