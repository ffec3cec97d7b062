//! What a moment asks for, by the schedule and what was done before. Pure: it takes the clock as an argument.

use jiff::{SignedDuration, Timestamp};

use crate::stage::schedule::Schedule;

/// A due time that is seen this late, while the runner had nothing else to do, was missed: the machine slept, or the clock
/// was set. Well above the step in which the clock is read, so that an ordinary wake-up is never late.
const GRACE: SignedDuration = SignedDuration::from_secs(60);

/// A due time further in the future than this was handled by a clock that was wrong. Taken at its word, nothing would be due
/// until then. Below it the clock was corrected, and what was run is not run again.
const ASTRAY: SignedDuration = SignedDuration::from_hours(24);

/// Due times are counted up to this many; beyond it the record says "at least".
pub(super) const COUNT_LIMIT: usize = 10_000;

/// What the next moment asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// Nothing is due.
    Wait,
    /// This due time is to be run now; so many before it were passed over.
    Run { due: Timestamp, passed_over: usize },
    /// The last of so many due times went by while no runner was there.
    Missed { last: Timestamp, count: usize },
}

/// What is asked for at `now`, when all due times up to `handled` are accounted for. `late` is the moment from which on the
/// runner was free to look: a due time before it that the runner was only too busy for is run late, not missed.
pub(super) fn turn(schedule: &Schedule, handled: Timestamp, free_since: Timestamp, now: Timestamp) -> Turn {
    let passed = schedule.passed(handled, now, COUNT_LIMIT);
    let Some(last) = passed.last else { return Turn::Wait };
    let waited_since = last.max(free_since);
    if now.duration_since(waited_since) > GRACE {
        Turn::Missed { last, count: passed.count }
    } else {
        Turn::Run { due: last, passed_over: passed.count - 1 }
    }
}

/// The latest of these that a clock which was right can have seen.
pub(super) fn latest_believed(dues: &[Timestamp], now: Timestamp) -> Option<Timestamp> {
    dues.iter().copied().filter(|due| !is_astray(*due, now)).max()
}

pub(super) fn is_astray(due: Timestamp, now: Timestamp) -> bool {
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
}
