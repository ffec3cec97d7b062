//! Breakers: where the same thing fails again and again, it is left alone for a while, then tried by one alone, and left
//! alone for longer if that fails too. Pure state machines: the time is that since the run began, and comes as an argument.
//!
//! There is one breaker for the whole cluster, and one for each registry, node, workload and target. What a reason says of each of
//! them is in [`signs`]; that of a node or a workload needs several different targets that fail, so that one bad target
//! stops nobody else.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::num::NonZeroUsize;
use std::time::Duration;

use super::budget::Place;
use crate::model::provenance::Approach;
use crate::model::reason::Reason;
use crate::stage::plan::BreakerPolicy;

/// The time since the run began.
pub(crate) type Elapsed = Duration;

/// A breaker that was tried in vain is tried again at least this often, so that what is back is noticed soon.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// What a breaker is for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Scope {
    /// The API server.
    Cluster,
    /// A registry, as `HOST[:PORT]`.
    Registry(String),
    /// A node.
    Node(String),
    /// What the pods of a workload have in common.
    Workload(String),
    /// A target.
    Target(String),
}

impl Scope {
    /// Whether it is asked by a request of the run's own when it is time to try, so that no target is risked for it.
    pub(crate) fn has_own_probe(&self) -> bool {
        match self {
            Self::Cluster | Self::Registry(_) => true,
            Self::Node(_) | Self::Workload(_) | Self::Target(_) => false,
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cluster => f.write_str("the cluster"),
            Self::Registry(host) => write!(f, "registry `{host}`"),
            Self::Node(name) => write!(f, "node `{name}`"),
            Self::Workload(name) => write!(f, "workload `{name}`"),
            Self::Target(key) => write!(f, "target `{key}`"),
        }
    }
}

/// What a result says of something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sign {
    /// It works.
    Works,
    /// It fails, by this reason.
    Fails(Reason),
    /// Nothing.
    Nothing,
}

/// What a result says of all that it depended on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Signs {
    cluster: Sign,
    registry: Sign,
    /// Of the node, and of the workload.
    node: Sign,
    target: Sign,
}

impl Signs {
    fn of(&self, scope: &Scope) -> Sign {
        match scope {
            Scope::Cluster => self.cluster,
            Scope::Registry(_) => self.registry,
            Scope::Node(_) | Scope::Workload(_) => self.node,
            Scope::Target(_) => self.target,
        }
    }
}

/// What the end of a piece of work says: it was judged, or not for this reason, and this was the way that led to it.
pub(crate) fn signs(approach: Approach, outcome: Result<(), Reason>) -> Signs {
    use Sign::{Fails, Nothing, Works};
    let registry = match (approach, outcome) {
        // A node that can't pull may have a reason of its own; if so, the registry's own probe soon says that it is there.
        (_, Err(reason @ (Reason::RegistryUnreachable | Reason::ImagePullFailed))) => Fails(reason),
        (Approach::Image | Approach::ImageArchive, Ok(()) | Err(Reason::ImageUnreadable | Reason::TargetNotFound)) => {
            Works
        }
        // What runs in a pod may have come from the node's own store.
        _ => Nothing,
    };
    let signs = |cluster, node, target| Signs { cluster, registry, node, target };
    match approach {
        Approach::Exec
        | Approach::Debug
        | Approach::Sidecar
        | Approach::Node
        | Approach::ImageVolume
        | Approach::ImageArchive
        | Approach::Objects => {}
        // What the registry or this machine gave says nothing of the cluster.
        Approach::Image | Approach::Local | Approach::Imported | Approach::Alerts | Approach::None => {
            return signs(Nothing, Nothing, Nothing);
        }
    }
    let Err(reason) = outcome else { return signs(Works, Works, Works) };
    let fails = Fails(reason);
    match reason {
        Reason::ApiUnreachable => signs(fails, Nothing, Nothing),
        // A broken connection to a command, or one that hangs: the API server may be the cause, or the node.
        Reason::CollectorFailed | Reason::Timeout => signs(Nothing, fails, fails),
        Reason::ImagePullFailed | Reason::ScannerNotStarted | Reason::ScannerEvicted => signs(Works, fails, fails),
        Reason::TargetGone | Reason::TargetChanged | Reason::TargetNotRunning => signs(Works, Nothing, fails),
        Reason::OutputTruncated => signs(Works, Nothing, fails),
        Reason::ScannerFailed
        | Reason::ScannerOutOfMemory
        | Reason::NoOutput
        | Reason::OutputTooLarge
        | Reason::OutputUnparsable
        | Reason::WrongTarget => signs(Works, Works, fails),
        Reason::NoShell
        | Reason::ToolMissing
        | Reason::FactMissing
        | Reason::FactTruncated
        | Reason::RuleError
        | Reason::RuleBudget
        | Reason::ControlMissing
        | Reason::ExitContradicted
        | Reason::ControlAmbiguous
        | Reason::ScannerSkipped
        | Reason::StatusUnknown
        | Reason::UnreadablePaths => signs(Works, Works, Works),
        // Either it was known before anything was tried, or it may come from elsewhere.
        Reason::TargetNotFound
        | Reason::TargetUnsupported
        | Reason::TargetTooLarge
        | Reason::AccessDenied
        | Reason::RegistryUnreachable
        | Reason::ImageUnreadable
        | Reason::DatabaseStale
        | Reason::InputMissing
        | Reason::PolicyNotEnforced
        | Reason::BundleUnverified
        | Reason::BreakerOpen
        | Reason::RunnerInterrupted
        | Reason::ScheduleMissed
        | Reason::ScheduleOverlap
        | Reason::Blackout
        | Reason::InternalError => signs(Nothing, Nothing, Nothing),
    }
}

/// When a breaker opens, and for how long.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rule {
    /// So many failures without a success between them open it.
    pub(crate) failures: NonZeroUsize,
    /// So long it is left alone, before one may try.
    pub(crate) pause: Duration,
    /// So long after it opened, what waits for it is given up.
    pub(crate) patience: Duration,
}

/// What a breaker answers to whoever wants to start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Go.
    Pass,
    /// Go, as the only one: on this it depends whether others may.
    Probe,
    /// Ask again at this time; without one, when the probe has ended.
    Wait(Option<Elapsed>),
    /// It has been open for too long, after this.
    Refuse(Reason),
}

/// One breaker.
#[derive(Clone, Debug)]
pub(crate) struct Breaker {
    rule: Rule,
    state: State,
    /// A probe is under way. It outlives the state that it was meant for, so that there are never two.
    probing: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    /// All may go. Who failed since somebody succeeded.
    Closed { failed: BTreeSet<String> },
    /// Nobody may go but a probe, and that not before `until`.
    Open { since: Elapsed, until: Elapsed, pause: Duration, last: Reason },
}

impl Breaker {
    pub(crate) fn new(rule: Rule) -> Self {
        Self { rule, state: State::Closed { failed: BTreeSet::new() }, probing: false }
    }

    pub(crate) fn is_open(&self) -> bool {
        matches!(self.state, State::Open { .. })
    }

    pub(crate) fn ask(&self, now: Elapsed) -> Answer {
        let State::Open { since, until, last, .. } = self.state else { return Answer::Pass };
        let end = since.saturating_add(self.rule.patience);
        if self.probing {
            Answer::Wait(None)
        } else if now >= until && until < end {
            // However late it is asked: each pause has its probe.
            Answer::Probe
        } else if now >= end {
            Answer::Refuse(last)
        } else {
            Answer::Wait(Some(until.min(end)))
        }
    }

    /// Starts the probe that [`Self::ask`] allowed.
    pub(crate) fn begin_probe(&mut self) {
        self.probing = true;
    }

    /// Takes note of how something ended that was no probe; `who` tells different failures from repeated ones.
    pub(crate) fn seen(&mut self, sign: Sign, who: &str, now: Elapsed) {
        match (sign, &mut self.state) {
            (Sign::Nothing, _) => {}
            (Sign::Works, _) => self.state = State::Closed { failed: BTreeSet::new() },
            (Sign::Fails(last), State::Closed { failed }) => {
                failed.insert(who.to_owned());
                if failed.len() >= self.rule.failures.get() {
                    let pause = self.rule.pause;
                    self.state = State::Open { since: now, until: now.saturating_add(pause), pause, last };
                }
            }
            // It began before the breaker opened, and says nothing new.
            (Sign::Fails(_), State::Open { .. }) => {}
        }
    }

    /// Takes note of how the probe ended.
    pub(crate) fn probed(&mut self, sign: Sign, who: &str, now: Elapsed) {
        self.probing = false;
        match (sign, &mut self.state) {
            (Sign::Works, _) | (_, State::Closed { .. }) => self.seen(sign, who, now),
            (Sign::Nothing, State::Open { until, pause, .. }) => *until = now.saturating_add(*pause),
            (Sign::Fails(reason), State::Open { until, pause, last, .. }) => {
                *pause = pause.saturating_mul(2).min(LONGEST_PAUSE.max(*pause));
                *until = now.saturating_add(*pause);
                *last = reason;
            }
        }
    }
}

/// The right to start one piece of work. It is given back when that has ended.
#[derive(Debug)]
#[must_use = "a probe that is never given back keeps its breaker open for ever"]
pub(crate) struct Permit {
    scopes: Vec<(Scope, Part)>,
    who: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Plain,
    Probe,
}

/// A breaker that changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) scope: Scope,
    pub(crate) now: Now,
}

/// What it changed to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Now {
    /// Nobody may go, after this.
    Open(Reason),
    /// All may go again.
    Closed,
}

impl Change {
    /// The kebab-case word for it in events.
    pub(crate) fn word(&self) -> &'static str {
        match self.now {
            Now::Open(_) => "breaker-opened",
            Now::Closed => "breaker-closed",
        }
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.now {
            Now::Open(reason) => write!(f, "{}: left alone for a while after repeated failures ({reason})", self.scope),
            Now::Closed => write!(f, "{}: works again", self.scope),
        }
    }
}

/// All breakers of a run.
#[derive(Debug)]
pub(crate) struct Breakers {
    policy: BreakerPolicy,
    each: BTreeMap<Scope, Breaker>,
    /// Numbers what ends, where it is the number of failures that counts and not whose they are.
    ended: u64,
}

impl Breakers {
    pub(crate) fn new(policy: BreakerPolicy) -> Self {
        Self { policy, each: BTreeMap::new(), ended: 0 }
    }

    /// Whether anything has to wait.
    pub(crate) fn is_any_open(&self) -> bool {
        self.each.values().any(Breaker::is_open)
    }

    /// What all breakers of this place together answer.
    pub(crate) fn ask(&self, place: &Place, now: Elapsed) -> Answer {
        let mut all = Answer::Pass;
        if self.is_any_open() {
            for scope in scopes(place) {
                let answer = match (self.each.get(&scope).map_or(Answer::Pass, |b| b.ask(now)), &scope) {
                    // It is asked by itself, which costs no target.
                    (Answer::Probe, scope) if scope.has_own_probe() => Answer::Wait(None),
                    (answer, _) => answer,
                };
                all = worse(all, answer);
            }
        }
        all
    }

    /// Why what waits at this place is given up.
    pub(crate) fn refusal(&self, place: &Place, now: Elapsed) -> Option<String> {
        scopes(place).into_iter().find_map(|scope| match self.each.get(&scope)?.ask(now) {
            Answer::Refuse(last) => {
                let patience = self.policy.patience;
                Some(format!("{scope} was left alone after repeated failures, the last by {last}, and did not work again within {patience}"))
            }
            Answer::Pass | Answer::Probe | Answer::Wait(_) => None,
        })
    }

    /// Starts something that was answered [`Answer::Pass`] or [`Answer::Probe`].
    pub(crate) fn begin(&mut self, place: &Place, now: Elapsed) -> Permit {
        let mut parts = Vec::new();
        for scope in scopes(place) {
            let part = match self.each.get_mut(&scope) {
                Some(breaker) if breaker.ask(now) == Answer::Probe => {
                    breaker.begin_probe();
                    Part::Probe
                }
                _ => Part::Plain,
            };
            parts.push((scope, part));
        }
        Permit { scopes: parts, who: place.target.clone() }
    }

    /// Takes note of how it ended, and tells what changed.
    pub(crate) fn ended(&mut self, permit: Permit, signs: Signs, now: Elapsed) -> Vec<Change> {
        self.ended += 1;
        let number = self.ended.to_string();
        let mut changes = Vec::new();
        for (scope, part) in permit.scopes {
            let who = match &scope {
                Scope::Cluster | Scope::Registry(_) | Scope::Target(_) => &number,
                Scope::Node(_) | Scope::Workload(_) => &permit.who,
            };
            let sign = signs.of(&scope);
            let rule = self.rule(&scope);
            let breaker = self.each.entry(scope.clone()).or_insert_with(|| Breaker::new(rule));
            changes.extend(told(scope, breaker, |breaker| match part {
                Part::Plain => breaker.seen(sign, who, now),
                Part::Probe => breaker.probed(sign, who, now),
            }));
        }
        changes
    }

    /// What it is time to ask whether it is there again; somebody must ask each of them, and say so to [`Self::probed`].
    pub(crate) fn begin_probes(&mut self, now: Elapsed) -> Vec<Scope> {
        let mut begun = Vec::new();
        for (scope, breaker) in &mut self.each {
            if scope.has_own_probe() && breaker.ask(now) == Answer::Probe {
                breaker.begin_probe();
                begun.push(scope.clone());
            }
        }
        begun
    }

    /// Takes note of what was said by whoever was asked.
    pub(crate) fn probed(&mut self, scope: Scope, sign: Sign, now: Elapsed) -> Option<Change> {
        let breaker = self.each.get_mut(&scope)?;
        told(scope, breaker, |breaker| breaker.probed(sign, "probe", now))
    }

    /// When some breaker may answer otherwise without anything having ended.
    pub(crate) fn next_change(&self, now: Elapsed) -> Option<Elapsed> {
        let at = |breaker: &Breaker| match breaker.ask(now) {
            Answer::Wait(at) => at,
            Answer::Pass | Answer::Probe | Answer::Refuse(_) => None,
        };
        self.each.values().filter_map(at).min()
    }

    fn rule(&self, scope: &Scope) -> Rule {
        let policy = &self.policy;
        let failures = match scope {
            Scope::Cluster => policy.cluster,
            Scope::Registry(_) => policy.registry,
            Scope::Node(_) => policy.node,
            Scope::Workload(_) => policy.workload,
            Scope::Target(_) => policy.target,
        };
        Rule { failures, pause: policy.pause.duration(), patience: policy.patience.duration() }
    }
}

fn told(scope: Scope, breaker: &mut Breaker, change: impl FnOnce(&mut Breaker)) -> Option<Change> {
    let before = breaker.is_open();
    change(breaker);
    match (before, &breaker.state) {
        (false, State::Open { last, .. }) => Some(Change { scope, now: Now::Open(*last) }),
        (true, State::Closed { .. }) => Some(Change { scope, now: Now::Closed }),
        _ => None,
    }
}

/// The breakers that something at this place depends on.
fn scopes(place: &Place) -> Vec<Scope> {
    let registry = place.registry.clone().map(Scope::Registry).into_iter();
    let Some(part) = &place.cluster else { return registry.collect() };
    let node = part.node.clone().map(Scope::Node);
    let workload = part.workload.clone().map(Scope::Workload);
    let own = [Scope::Cluster, Scope::Target(place.target.clone())];
    own.into_iter().chain(registry).chain(node).chain(workload).collect()
}

/// What counts of two answers: who is refused by one need not wait for the other, and who waits for one probes no other.
fn worse(one: Answer, other: Answer) -> Answer {
    match (one, other) {
        (Answer::Refuse(reason), _) | (_, Answer::Refuse(reason)) => Answer::Refuse(reason),
        (Answer::Wait(None), _) | (_, Answer::Wait(None)) => Answer::Wait(None),
        (Answer::Wait(Some(one)), Answer::Wait(Some(other))) => Answer::Wait(Some(one.max(other))),
        (Answer::Wait(at), _) | (_, Answer::Wait(at)) => Answer::Wait(at),
        (Answer::Probe, _) | (_, Answer::Probe) => Answer::Probe,
        (Answer::Pass, Answer::Pass) => Answer::Pass,
    }
}

#[cfg(test)]
mod tests;
