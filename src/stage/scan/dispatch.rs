//! The dispatcher owns the run: it records what is expected before anything starts, hands out the work as the budget and the
//! breakers allow, and records each result as it comes. Whatever happens to a piece of work, each of its tasks ends with
//! exactly one record.

mod prober;

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::watch;
use tokio::task::{AbortHandle, Id, JoinError, JoinSet, block_in_place};
use tokio::time::Instant;

use self::prober::{Prober, prober};
use super::account::Unaccounted;
use super::breaker::{Answer, Breakers, Change, Elapsed, Permit, Scope, Sign, signs};
use super::budget::{Budget, CpuBudget, Place, Queue, Slot};
use super::unit::{Context, Done, NotDone, Repeat, Unit};
use crate::base::progress::Progress;
use crate::ledger::{Ledger, LedgerError};
use crate::model::coverage::Coverage;
use crate::model::outcome::Status;
use crate::model::profile::Profile;
use crate::model::provenance::Approach;
use crate::model::reason::Reason;
use crate::model::record::{CheckedTask, Event, RunEnd, RunId, RunStart, TaskRecord};
use crate::stage::plan::Policy;
use crate::stage::waivers::Waiving;

/// Before a piece of work is tried again it waits so long, and by chance up to twice: what failed together is not to come
/// back together.
const AGAIN: Duration = Duration::from_secs(2);

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
    /// How many files of waivers were named and do not count.
    pub waivers_refused: usize,
}

/// Records what a run is to do, before anything of it is begun: from here on nothing of it can get lost.
///
/// # Errors
/// When the ledger can't be written.
pub(crate) fn begin(start: &RunStart, units: &[Unit], ledger: &mut Ledger) -> Result<(), LedgerError> {
    let profiles = distinct_profiles(units);
    block_in_place(|| ledger.begin_run(start, &profiles))
}

/// Runs all `units` of a run that was begun, and records every result after the waivers. `earlier` are the results that the
/// run has already, where it is resumed.
///
/// # Errors
/// When the ledger can't be written: then the run stops at once, for a result that can't be recorded must not be made.
/// Nothing of the run goes on when this returns.
///
/// # Cancel safety
/// Dropped half-way, the run stays unfinished in the ledger, and [`super::account::close_interrupted`] accounts for it later.
pub(crate) async fn dispatch(
    run: RunId,
    units: Vec<Unit>,
    earlier: Vec<TaskRecord>,
    context: Arc<Context>,
    (ledger, waiving): (&mut Ledger, &mut Waiving),
    stop: Stop,
    progress: &Progress,
) -> Result<RunSummary, LedgerError> {
    let policy = &context.policy;
    let cluster = context.session.as_ref().and_then(|session| session.as_ref().ok()).map(|s| s.cluster.clone());
    let prober = prober(cluster, Arc::clone(&context));
    let mut dispatcher = Dispatcher::new(run, (policy, context.cpu.clone()), Some(prober), ledger, progress);
    dispatcher.has(earlier);
    dispatcher.go_by(waiving);
    for unit in units {
        let (place, tasks) = (unit.place(&context), unit.unaccounted());
        let (unit, context) = (Arc::new(unit), Arc::clone(&context));
        let work = move || -> Attempt {
            let (unit, context) = (Arc::clone(&unit), Arc::clone(&context));
            Box::pin(async move { unit.perform(&context, run).await })
        };
        dispatcher.add(place, tasks, Box::new(work));
    }
    dispatcher.finish(stop).await
}

/// One attempt at a piece of work.
type Attempt = Pin<Box<dyn Future<Output = Done> + Send>>;

/// What is to be done, and what must be recorded of it.
struct Piece {
    tasks: Vec<Unaccounted>,
    work: Box<dyn Fn() -> Attempt + Send>,
    /// What the first attempt came to, where there may be a second.
    earlier: Option<(Vec<CheckedTask>, NotDone)>,
}

/// What ended.
enum Ended {
    Piece(Done),
    Probe(Scope, Sign),
}

/// Keeps account of one run.
struct Dispatcher<'a> {
    ledger: &'a mut Ledger,
    progress: &'a Progress,
    policy: &'a Policy,
    summary: RunSummary,
    total: usize,
    began: Instant,
    /// What is tried again waits so long at least.
    again: Duration,
    queue: Queue<Piece>,
    breakers: Breakers,
    prober: Option<Prober>,
    probing: HashMap<Id, (Scope, AbortHandle)>,
    going: HashMap<Id, (Slot, Permit, Piece)>,
    waiving: Option<&'a mut Waiving>,
}

impl<'a> Dispatcher<'a> {
    fn new(
        run: RunId,
        (policy, cpu): (&'a Policy, CpuBudget),
        prober: Option<Prober>,
        ledger: &'a mut Ledger,
        progress: &'a Progress,
    ) -> Self {
        let summary = RunSummary {
            run,
            end: RunEnd::Completed,
            coverage: Coverage::default(),
            tasks: Vec::new(),
            waivers_refused: 0,
        };
        let in_all = NonZeroUsize::new(policy.parallel).unwrap_or(NonZeroUsize::MIN);
        let budget = Budget { in_all, per_node: policy.per_node, per_workload: policy.per_workload, cpu };
        Self {
            ledger,
            progress,
            policy,
            summary,
            total: 0,
            began: Instant::now(),
            again: AGAIN,
            queue: Queue::new(budget),
            breakers: Breakers::new(policy.breakers),
            prober,
            probing: HashMap::new(),
            going: HashMap::new(),
            waiving: None,
        }
    }

    /// Results are recorded after these waivers.
    fn go_by(&mut self, waiving: &'a mut Waiving) {
        self.summary.waivers_refused = waiving.refused();
        self.waiving = Some(waiving);
    }

    /// Counts results that the run has already.
    fn has(&mut self, earlier: Vec<TaskRecord>) {
        self.total += earlier.len();
        for record in earlier {
            self.summary.coverage = self.summary.coverage.plus(record.coverage);
            self.summary.tasks.push(record);
        }
    }

    fn add(&mut self, place: Place, tasks: Vec<Unaccounted>, work: Box<dyn Fn() -> Attempt + Send>) {
        self.total += tasks.len();
        self.queue.push(place, Piece { tasks, work, earlier: None }, Duration::ZERO);
    }

    async fn finish(mut self, stop: Stop) -> Result<RunSummary, LedgerError> {
        let mut running = JoinSet::new();
        let outcome = self.work_off(stop, &mut running).await;
        // After an error some still run. They are over, and have let go of all that the run shares, before it is cleaned up.
        running.shutdown().await;
        outcome.map(|()| self.summary)
    }

    async fn work_off(&mut self, stop: Stop, running: &mut JoinSet<Ended>) -> Result<(), LedgerError> {
        let (mut draining, mut aborting) = (stop.clone(), stop.clone());
        loop {
            let urgency = *stop.borrow();
            let mut wake = None;
            match urgency {
                Stopping::No => {
                    // One moment for all three: what is found to wait is woken.
                    let now = self.began.elapsed();
                    self.give_up(now)?;
                    self.start(now, running);
                    wake = self.breakers.next_change(now).into_iter().chain(self.queue.next_due(now)).min();
                }
                Stopping::Drain | Stopping::Abort => {
                    self.probing.values().for_each(|(_, probe)| probe.abort());
                }
            }
            if running.is_empty() && (wake.is_none() || self.queue.is_empty()) {
                break;
            }
            let ended = tokio::select! {
                ended = running.join_next_with_id(), if !running.is_empty() => ended,
                () = tokio::time::sleep_until(self.began + wake.unwrap_or_default()), if wake.is_some() => continue,
                () = until(&mut draining, Stopping::Drain), if urgency == Stopping::No => continue,
                () = until(&mut aborting, Stopping::Abort) => {
                    running.abort_all();
                    running.join_next_with_id().await
                }
            };
            if let Some(ended) = ended {
                self.ended(ended, urgency)?;
            }
        }
        let stopped = *stop.borrow() != Stopping::No;
        for (piece, ()) in self.queue.give_up(|_| Some(())) {
            let (reason, detail) = match stopped {
                true => (Reason::RunnerInterrupted, "the run was told to stop before this was started"),
                false => (Reason::InternalError, "nothing was left that it could wait for"),
            };
            self.summary.end = if stopped { RunEnd::Drained } else { self.summary.end };
            self.not_started(piece, reason, detail)?;
        }
        if *stop.borrow() == Stopping::Abort {
            self.summary.end = RunEnd::Drained;
        }
        block_in_place(|| self.ledger.end_run(self.summary.run, self.summary.end, Timestamp::now()))
    }

    /// Records what can't be started any more.
    fn give_up(&mut self, now: Elapsed) -> Result<(), LedgerError> {
        if let Some(why) = in_blackout(self.policy) {
            for (piece, ()) in self.queue.give_up(|_| Some(())) {
                self.not_started(piece, why.reason, &why.detail)?;
            }
        }
        let breakers = &self.breakers;
        if breakers.is_any_open() {
            for (piece, why) in self.queue.give_up(|place| breakers.refusal(place, now)) {
                self.not_started(piece, Reason::BreakerOpen, &why)?;
            }
        }
        Ok(())
    }

    /// Starts all that may start now.
    fn start(&mut self, now: Elapsed, running: &mut JoinSet<Ended>) {
        if !self.queue.is_empty()
            && let Some(prober) = &self.prober
        {
            for scope in self.breakers.begin_probes(now) {
                let (asking, asked) = (prober(&scope), scope.clone());
                let probe = running.spawn(async move { Ended::Probe(asked, asking.await) });
                self.probing.insert(probe.id(), (scope, probe));
            }
        }
        loop {
            let breakers = &self.breakers;
            let may = |place: &Place| matches!(breakers.ask(place, now), Answer::Pass | Answer::Probe);
            let Some((slot, piece)) = self.queue.next(now, may) else { break };
            let permit = self.breakers.begin(slot.place(), now);
            let work = (piece.work)();
            let id = running.spawn(async move { Ended::Piece(work.await) }).id();
            self.going.insert(id, (slot, permit, piece));
        }
    }

    fn ended(&mut self, ended: Result<(Id, Ended), JoinError>, urgency: Stopping) -> Result<(), LedgerError> {
        let now = self.began.elapsed();
        let (id, done, reason, detail) = match ended {
            Ok((id, Ended::Probe(scope, sign))) => {
                self.probing.remove(&id);
                return self.probed(scope, sign, now);
            }
            Ok((id, Ended::Piece(done))) => {
                (id, Some(done), Reason::InternalError, "the task ended without a result".to_owned())
            }
            Err(error) if error.is_cancelled() => {
                (error.id(), None, Reason::RunnerInterrupted, "the run was told to stop at once".to_owned())
            }
            Err(error) => (error.id(), None, Reason::InternalError, format!("the task panicked: {error}")),
        };
        // A probe was ended with the run, or it panicked.
        if let Some((scope, _)) = self.probing.remove(&id) {
            return self.probed(scope, Sign::Nothing, now);
        }
        let Some((slot, permit, mut piece)) = self.going.remove(&id) else { return Ok(()) };
        let place = self.queue.ended(slot);
        let outcome = done.as_ref().map_or(Err(reason), |d| d.outcome.as_ref().map(|_| ()).map_err(|why| why.reason));
        let approach = done.as_ref().map_or(Approach::None, |d| d.approach);
        for change in self.breakers.ended(permit, signs(approach, outcome), now) {
            self.tell(&change)?;
        }
        for event in done.iter().flat_map(|done| &done.events) {
            self.progress.say(&event.detail);
            block_in_place(|| self.ledger.event(event))?;
        }
        let (results, repeat) = match done {
            Some(Done { results, outcome: Err(why), repeat, .. }) => (results, (repeat == Repeat::Safe).then_some(why)),
            Some(Done { results, .. }) => (results, None),
            None => (Vec::new(), None),
        };
        match (repeat, piece.earlier.take()) {
            (Some(why), None) if urgency == Stopping::No => {
                piece.earlier = Some((results, why));
                self.queue.push(place, piece, now + jittered(self.again, chance()));
                Ok(())
            }
            (_, Some((_, before))) => {
                let note =
                    format!("this is the second attempt; the first ended by {}: {}", before.reason, before.detail);
                let results = results.into_iter().map(|task| task.with_note(&note)).collect();
                self.settle(piece.tasks, results, reason, &detail)
            }
            (_, None) => self.settle(piece.tasks, results, reason, &detail),
        }
    }

    fn probed(&mut self, scope: Scope, sign: Sign, now: Elapsed) -> Result<(), LedgerError> {
        match self.breakers.probed(scope, sign, now) {
            Some(change) => self.tell(&change),
            None => Ok(()),
        }
    }

    /// Records a piece of work that is not begun, or not begun again.
    fn not_started(&mut self, piece: Piece, reason: Reason, detail: &str) -> Result<(), LedgerError> {
        let (results, detail) = match piece.earlier {
            Some((results, _)) => {
                let note = format!("it was not tried again: {reason}: {detail}");
                (results.into_iter().map(|task| task.with_note(&note)).collect(), note)
            }
            None => (Vec::new(), detail.to_owned()),
        };
        self.settle(piece.tasks, results, reason, &detail)
    }

    /// Records the results of a piece of work, and of each task that has none, why.
    fn settle(
        &mut self,
        mut missing: Vec<Unaccounted>,
        results: Vec<CheckedTask>,
        reason: Reason,
        detail: &str,
    ) -> Result<(), LedgerError> {
        for task in results {
            missing.retain(|expected| !expected.is_answered_by(task.record()));
            self.keep(task)?;
        }
        for task in missing {
            self.keep(task.not_done(self.summary.run, reason, detail))?;
        }
        Ok(())
    }

    fn keep(&mut self, task: CheckedTask) -> Result<(), LedgerError> {
        let task = match &mut self.waiving {
            Some(waiving) => waiving.apply(task, Timestamp::now()),
            None => task,
        };
        block_in_place(|| self.ledger.record(&task))?;
        let record = task.record();
        self.summary.coverage = self.summary.coverage.plus(record.coverage);
        self.summary.tasks.push(record.clone());
        self.progress.say(format!("[{}/{}] {}", self.summary.tasks.len(), self.total, line(record)));
        Ok(())
    }

    fn tell(&mut self, change: &Change) -> Result<(), LedgerError> {
        self.progress.say(change.to_string());
        let event = Event {
            at: Timestamp::now(),
            what: change.word().to_owned(),
            subject: self.summary.run.to_string(),
            due: None,
            detail: change.to_string(),
        };
        block_in_place(|| self.ledger.event(&event))
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

/// Why nothing may be started now, if that is so.
pub(super) fn in_blackout(policy: &Policy) -> Option<NotDone> {
    let until = policy.blackout_until(Timestamp::now())?;
    let detail = format!("nothing is started in a blackout, which lasts until {until} at least");
    Some(NotDone::new(Reason::Blackout, detail))
}

/// Between `least` and twice of it.
fn jittered(least: Duration, chance: u16) -> Duration {
    least + least * u32::from(chance) / u32::from(u16::MAX)
}

fn chance() -> u16 {
    let mut bytes = [0; 2];
    aws_lc_rs::rand::fill(&mut bytes).expect("the operating system gives random numbers");
    u16::from_ne_bytes(bytes)
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

#[cfg(test)]
mod tests;
