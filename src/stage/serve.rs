//! Runs a plan's scans by their schedules, and keeps account of every due time: run, missed, or overlapped.

pub mod endpoint;
mod metrics;
mod pulse;

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::plan::{Access, Plan, PlannedScan};
use super::scan::account::{close_interrupted, record_absent_run};
use super::scan::dispatch::{Stop, Stopping};
use super::scan::{ResumeRequest, ScanError, ScanRequest, by_itself, newest_unfinished, resume, scan};
use super::schedule::{Missed, Schedule};
use crate::base::progress::Progress;
use crate::ledger::{Ledger, LedgerError};
use crate::model::reason::Reason;
use crate::model::record::{Event, RunStart, Trigger};
use crate::trust::remembered::OnLoss;

pub use pulse::Pulse;

/// A due time that is seen this late, while the runner had nothing else to do, was missed: the machine slept, or the clock
/// was set. Well above the step in which the clock is read, so that an ordinary wake-up is never late.
const GRACE: SignedDuration = SignedDuration::from_secs(60);

/// The clock is read again at least this often, because a machine that sleeps or is set to another time wakes no timer.
const STEP: Duration = Duration::from_secs(20);

/// A due time further in the future than this was handled by a clock that was wrong. Taken at its word, nothing would be due
/// until then. Below it the clock was corrected, and what was run is not run again.
const ASTRAY: SignedDuration = SignedDuration::from_hours(24);

/// Due times are counted up to this many; beyond it the record says "at least".
const COUNT_LIMIT: usize = 10_000;

/// What the next moment asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// Nothing is due.
    Wait,
    /// This due time is to be run now; so many before it were passed over.
    Run { due: Timestamp, passed_over: usize },
    /// The last of so many due times went by while no runner was there.
    Missed { last: Timestamp, count: usize },
}

/// What is asked for at `now`, when all due times up to `handled` are accounted for. `late` is the moment from which on the
/// runner was free to look: a due time before it that the runner was only too busy for is run late, not missed.
pub(crate) fn turn(schedule: &Schedule, handled: Timestamp, free_since: Timestamp, now: Timestamp) -> Turn {
    let passed = schedule.passed(handled, now, COUNT_LIMIT);
    let Some(last) = passed.last else { return Turn::Wait };
    let waited_since = last.max(free_since);
    if now.duration_since(waited_since) > GRACE {
        Turn::Missed { last, count: passed.count }
    } else {
        Turn::Run { due: last, passed_over: passed.count - 1 }
    }
}

struct Entry {
    scan: PlannedScan,
    schedule: Schedule,
    subject: String,
    handled: Timestamp,
    /// A due time that fell into a blackout and is to be made up for.
    owed: Option<Timestamp>,
}

/// What the record says of a due time already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// Nothing: it is due now.
    Due,
    /// That it was not run, which it is made up for.
    Recorded,
}

/// Events by which the ledger remembers that a run is owed.
const BLACKOUT_OVER: &str = "blackout-over";

/// Why serving ended.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The ledger can't be written.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The plan has nothing to do by schedule.
    #[error("serve plan `{0}`: none of its scans has a schedule")]
    Nothing(String),
}

impl crate::base::exit::Classify for ServeError {
    fn class(&self) -> crate::base::exit::ExitClass {
        match self {
            Self::Ledger(error) => error.class(),
            Self::Nothing(_) => crate::base::exit::ExitClass::Usage,
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
    serve_with(plan, access, ledger, stop, progress, &Pulse::new(Timestamp::now())).await
}

/// The same, with a pulse by which others see that the loop turns.
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
) -> Result<(), ServeError> {
    let started = Timestamp::now();
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
    if entries.is_empty() {
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

impl Entry {
    /// Runs what was due; in a blackout it is recorded, and owed where the schedule makes up for what was missed.
    async fn run(
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
                progress.say(format!(
                    "{}: run {} ended: {}",
                    self.subject,
                    summary.run,
                    super::scan::words(summary.coverage)
                ));
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

    fn missed(
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
    fn set_right(
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

    fn overlapped(&self, last: Timestamp, count: usize, ledger: &mut Ledger) -> Result<(), ServeError> {
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

/// The runs of this scan, the newest first, each with its due time.
fn runs_of(ledger: &Ledger, subject: &str) -> Result<Vec<(Timestamp, RunStart)>, LedgerError> {
    let runs = ledger.reader().runs(usize::MAX)?;
    Ok(runs
        .into_iter()
        .filter_map(|run| match &run.start.trigger {
            Trigger::Schedule { plan, due } if plan == subject => Some((*due, run.start)),
            Trigger::Schedule { .. } | Trigger::Manual => None,
        })
        .collect())
}

/// The last run of this scan that expected anything.
fn last_run(ledger: &Ledger, subject: &str) -> Result<Option<RunStart>, LedgerError> {
    Ok(runs_of(ledger, subject)?.into_iter().map(|(_, start)| start).find(|start| !start.expected.is_empty()))
}

/// The due times of this scan that the ledger accounts for.
fn handled_dues(ledger: &Ledger, subject: &str) -> Result<Vec<Timestamp>, LedgerError> {
    let by_runs = runs_of(ledger, subject)?.into_iter().map(|(due, _)| due);
    let by_events = ledger.reader().events()?.into_iter().filter(|e| e.subject == subject).filter_map(|e| e.due);
    Ok(by_runs.chain(by_events).collect())
}

/// The due time of this scan that fell into a blackout and was not made up for, if there is one.
fn owed(events: &[Event], subject: &str) -> Option<Timestamp> {
    let about =
        |e: &&Event| e.subject == subject && [Reason::Blackout.code(), BLACKOUT_OVER].contains(&e.what.as_str());
    events.iter().filter(about).max_by_key(|e| e.at).filter(|e| e.what == Reason::Blackout.code())?.due
}

/// The latest of these that a clock which was right can have seen.
fn latest_believed(dues: &[Timestamp], now: Timestamp) -> Option<Timestamp> {
    dues.iter().copied().filter(|due| !is_astray(*due, now)).max()
}

fn is_astray(due: Timestamp, now: Timestamp) -> bool {
    due.duration_since(now) > ASTRAY
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hourly() -> Schedule {
        serde_json::from_str(r#"{"cron": "0 * * * *", "timeZone": "UTC"}"#).expect("a good schedule")
    }

    fn time(text: &str) -> Timestamp {
        format!("2026-03-01T{text}Z").parse().expect("a timestamp")
    }

    #[test]
    fn what_is_due_is_run_once() {
        let turn = |handled, now| turn(&hourly(), time(handled), time("00:00:00"), time(now));
        assert_eq!(turn("01:00:00", "01:59:59"), Turn::Wait);
        assert_eq!(turn("01:00:00", "02:00:10"), Turn::Run { due: time("02:00:00"), passed_over: 0 });
        assert_eq!(turn("02:00:00", "02:00:20"), Turn::Wait);
    }

    #[test]
    fn a_machine_that_slept_missed_it() {
        let seen = turn(&hourly(), time("01:00:00"), time("01:10:00"), time("04:30:00"));
        assert_eq!(seen, Turn::Missed { last: time("04:00:00"), count: 3 });
    }

    #[test]
    fn a_runner_that_was_busy_runs_late_and_says_what_it_passed_over() {
        let seen = turn(&hourly(), time("01:00:00"), time("04:30:00"), time("04:30:01"));
        assert_eq!(seen, Turn::Run { due: time("04:00:00"), passed_over: 2 });
    }

    #[test]
    fn a_clock_set_back_runs_nothing_twice() {
        assert_eq!(turn(&hourly(), time("04:00:00"), time("04:30:00"), time("02:30:00")), Turn::Wait);
    }
    #[test]
    fn a_clock_that_was_far_ahead_once_does_not_silence_a_schedule() {
        let now = time("02:30:00");
        let far: Timestamp = "2099-01-01T00:00:00Z".parse().expect("a timestamp");
        assert!(is_astray(far, now) && !is_astray(time("04:00:00"), now));
        assert_eq!(latest_believed(&[time("01:00:00"), far, time("00:00:00")], now), Some(time("01:00:00")));
        assert_eq!(latest_believed(&[far], now), None);
    }

    const HEAD: &str = "apiVersion: gapscan/v1\nkind: Plan\nname: p\n";

    fn served(folder: &std::path::Path, text: &str) -> (Plan, Access, Ledger) {
        let path = folder.join("plan.yaml");
        std::fs::write(&path, format!("{HEAD}{text}")).expect("the plan is written");
        let plan = Plan::load(&path, &crate::base::limits::Limits::default()).expect("a plan");
        let access = Access {
            ledger: folder.join("ledger.sqlite"),
            cluster: plan.cluster.clone(),
            bundle: None,
            registries: plan.registries.clone(),
        };
        let ledger = Ledger::open(&access.ledger, Timestamp::now()).expect("a ledger");
        (plan, access, ledger)
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_is_due_in_a_blackout_is_recorded_and_made_up_for_once() {
        let folder = tempfile::tempdir().expect("a folder");
        // One that begins each second, so that it is always there.
        let text = "policy: {blackout: [{cron: '* * * * * *', timeZone: UTC, duration: 1h}]}\nscans:\n- {name: s, \
                    targets: [host], schedule: {cron: '0 0 1 1 *', timeZone: UTC, missed: run}}\n";
        let (mut plan, access, mut ledger) = served(folder.path(), text);
        let (_tell, stop) = tokio::sync::watch::channel(Stopping::No);
        let entry = |ledger: &Ledger| Entry {
            scan: plan.scans[0].clone(),
            schedule: plan.scans[0].schedule.clone().expect("it has one"),
            subject: "p/s".to_owned(),
            handled: time("00:00:00"),
            owed: owed(&ledger.reader().events().expect("events"), "p/s"),
        };
        let (mut first, progress) = (entry(&ledger), Progress::quiet());
        let due = (time("01:00:00"), Standing::Due);
        first.run(due, &plan, &access, &mut ledger, stop.clone(), &progress).await.expect("it is recorded");
        assert!(ledger.reader().runs(10).expect("runs").is_empty(), "nothing was started, and nothing was known of it");
        // Whoever comes next knows of it from the ledger.
        let mut next = entry(&ledger);
        assert_eq!((first.owed, next.owed), (Some(due.0), Some(due.0)));
        plan.policy.blackout.clear();
        let made_up = (due.0, Standing::Recorded);
        next.run(made_up, &plan, &access, &mut ledger, stop, &progress).await.expect("it runs");
        assert_eq!(next.owed, None);
        let events = ledger.reader().events().expect("events");
        assert_eq!(owed(&events, "p/s"), None);
        assert!(events.iter().any(|e| e.what == "blackout" && e.due == Some(due.0)), "{events:?}");
        let runs = ledger.reader().runs(10).expect("runs");
        assert_eq!(runs.len(), 1);
        assert!(matches!(&runs[0].start.trigger, Trigger::Schedule { due: of, .. } if *of == due.0));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_schedule_with_a_due_time_from_a_wrong_clock_goes_on_and_says_so() {
        let folder = tempfile::tempdir().expect("a folder");
        let text = "scans:\n- {name: s, targets: [host], schedule: {cron: '* * * * * *', timeZone: UTC}}\n";
        let (plan, access, mut ledger) = served(folder.path(), text);
        let far: Timestamp = "2199-01-01T00:00:00Z".parse().expect("a timestamp");
        let event = Event {
            at: Timestamp::now(),
            what: "schedule-overlap".to_owned(),
            subject: "p/s".to_owned(),
            due: Some(far),
            detail: String::new(),
        };
        ledger.event(&event).expect("recorded");
        let (tell, stop) = tokio::sync::watch::channel(Stopping::No);
        tell.send(Stopping::Drain).expect("somebody listens");
        serve(&plan, &access, &mut ledger, stop, &Progress::quiet()).await.expect("it ends in order");
        let events = ledger.reader().events().expect("events");
        assert!(events.iter().any(|e| e.what == "schedule-clock-moved-back" && e.subject == "p/s"), "{events:?}");
    }
}
