//! What ends, and how soon that is.

use jiff::{SignedDuration, Timestamp};

use super::check::Check;
use crate::base::exit::ExitClass;

/// What was looked at, and when it is too near to its end.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    pub(super) now: Timestamp,
    pub(super) near: SignedDuration,
}

/// Judges something by when it begins and ends to be valid.
pub(super) fn judge(
    name: &'static str,
    subject: &str,
    (begin, end): (Option<Timestamp>, Timestamp),
    clock: Clock,
    renew: &str,
) -> Check {
    let Clock { now, near } = clock;
    if begin.is_some_and(|begin| begin > now) {
        let begin = begin.unwrap_or(now);
        return Check::refused(name, subject, format!("it is valid from {begin} on, and now it is {now}"))
            .with_remedy("see that this machine's clock is right");
    }
    let left = end.duration_since(now);
    match left {
        left if left <= SignedDuration::ZERO => {
            Check::refused(name, subject, format!("it expired at {end}")).with_remedy(renew)
        }
        left if left < near => {
            Check::warn(name, subject, format!("it expires at {end}, in {}", words(left))).with_remedy(renew)
        }
        left => Check::ok(name, subject, format!("it expires at {end}, in {}", words(left))),
    }
}

/// The same of something that has no beginning and whose end makes nothing doubtful but itself.
pub(super) fn judge_end(name: &'static str, subject: &str, end: Timestamp, clock: Clock, renew: &str) -> Check {
    let check = judge(name, subject, (None, end), clock, renew);
    if end <= clock.now { check.with_class(ExitClass::Usage) } else { check }
}

/// `45 days`, `7 hours`, `12 minutes`.
pub(super) fn words(span: SignedDuration) -> String {
    let seconds = span.as_secs().unsigned_abs();
    let (number, unit) = match seconds {
        s if s >= 2 * 86_400 => (s / 86_400, "days"),
        s if s >= 2 * 3600 => (s / 3600, "hours"),
        s if s >= 120 => (s / 60, "minutes"),
        s => (s, "seconds"),
    };
    format!("{number} {unit}")
}

#[cfg(test)]
mod tests {
    use super::super::check::State;
    use super::*;

    #[test]
    fn the_end_is_seen_before_it_comes() {
        let at = |day: i64| Timestamp::from_second(day * 86_400).expect("a time");
        let clock = Clock { now: at(100), near: SignedDuration::from_hours(24 * 30) };
        let state =
            |begin: i64, end: i64| judge("trust-root", "x", (Some(at(begin)), at(end)), clock, "renew it").state;
        assert_eq!(state(0, 131), State::Ok);
        assert_eq!(state(0, 130), State::Ok, "thirty days are not less than thirty days");
        assert_eq!(state(0, 129), State::Warn);
        assert_eq!(state(0, 100), State::Bad, "the last second is over");
        assert_eq!(state(101, 200), State::Bad, "not yet");
        assert_eq!(words(SignedDuration::from_secs(90)), "90 seconds");
        assert_eq!(words(SignedDuration::from_hours(47)), "47 hours");
    }
}
