//! Whether the schedule's loop is alive: it says so itself at each turn, and while a run goes on the ledger says it.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use jiff::{SignedDuration, Timestamp};

use super::super::plan::Policy;

/// Without a run the loop turns every twenty seconds; reading a bundle before a run takes a while.
const IDLE: SignedDuration = SignedDuration::from_mins(5);

/// What a piece of work may take besides its deadline: its pod starts, its result is held, it is cleaned up.
const BESIDES: SignedDuration = SignedDuration::from_mins(20);

/// When the loop turned last. Clones are of the same loop.
#[derive(Clone, Debug)]
pub struct Pulse(Arc<AtomicI64>);

impl Pulse {
    /// Of a loop that begins now.
    pub fn new(now: Timestamp) -> Self {
        Self(Arc::new(AtomicI64::new(now.as_second())))
    }

    pub(super) fn beat(&self, now: Timestamp) {
        self.0.store(now.as_second(), Ordering::Relaxed);
    }

    pub(super) fn last(&self) -> Timestamp {
        Timestamp::from_second(self.0.load(Ordering::Relaxed)).unwrap_or(Timestamp::UNIX_EPOCH)
    }
}

/// Why the loop counts as stuck; `None` where it does not. `run` is when something was last recorded of a run that goes on.
pub(super) fn stuck(beat: Timestamp, run: Option<Timestamp>, policy: &Policy, now: Timestamp) -> Option<String> {
    let silent = now.duration_since(beat);
    if silent <= IDLE {
        return None;
    }
    let Some(recorded) = run else {
        return Some(format!("the schedule's loop has not turned for {} s, and no run goes on", silent.as_secs()));
    };
    let span =
        |span: crate::base::quantity::Span| SignedDuration::try_from(span.duration()).unwrap_or(SignedDuration::MAX);
    let allowed = span(policy.deadline).saturating_add(span(policy.breakers.patience)).saturating_add(BESIDES);
    // The loop turned before the run began, or something of it was recorded since.
    let since = now.duration_since(recorded.max(beat));
    (since > allowed).then(|| format!("a run goes on, and nothing of it was recorded for {} s", since.as_secs()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loop_that_is_busy_is_not_stuck_and_one_that_is_silent_is() {
        let at = |minute: i64| Timestamp::from_second(minute * 60).expect("a time");
        let policy = Policy::default();
        let stuck = |beat, run, now| stuck(at(beat), run, &policy, at(now)).is_some();
        assert!(!stuck(100, None, 105));
        assert!(stuck(100, None, 106));
        assert!(!stuck(100, Some(at(101)), 140), "a deadline of a quarter of an hour, and patience");
        assert!(!stuck(100, Some(at(300)), 340), "a long run that goes on");
        assert!(stuck(100, Some(at(101)), 142));
        assert!(!stuck(100, Some(at(90)), 139), "the run of before is no measure");
    }
}
