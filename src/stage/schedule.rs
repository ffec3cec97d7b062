//! Schedules: when a scan is due, and which due times were missed.

use croner::Cron;
use croner::parser::{CronParser, Seconds};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A cron entry with its time zone. In the zone's doubled hour an entry with a fixed time runs once, at the first of the two;
/// in the skipped hour it runs at the first time after it; entries with a wildcard in minutes or hours follow the wall clock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "RawSchedule", into = "RawSchedule")]
pub struct Schedule {
    raw: RawSchedule,
    cron: Cron,
    zone: TimeZone,
}

/// What is done about a due time that passed while no runner ran. It is always recorded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Missed {
    /// Nothing more: what was expected stays not evaluated until the next due time.
    #[default]
    Record,
    /// One run is made up for as soon as a runner is there.
    Run,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct RawSchedule {
    cron: String,
    time_zone: String,
    #[serde(default)]
    missed: Missed,
}

/// Why a schedule can't be used.
#[derive(Debug, thiserror::Error)]
pub enum ScheduleError {
    /// The cron expression.
    #[error("`{}` is no cron expression, as `30 2 * * 1-5` for minute, hour, day, month, weekday: {reason}", crate::base::text::brief(.cron))]
    Cron {
        /// As written.
        cron: String,
        /// Why.
        reason: String,
    },
    /// The zone.
    #[error("`{}` is no time zone: write a name of the IANA database, as `Europe/Berlin` or `UTC`", crate::base::text::brief(.0))]
    Zone(String),
    /// A schedule that is never due would be silently green.
    #[error("`{}` is never due", crate::base::text::brief(.0))]
    Never(String),
}

impl TryFrom<RawSchedule> for Schedule {
    type Error = ScheduleError;

    fn try_from(raw: RawSchedule) -> Result<Self, ScheduleError> {
        let cron = CronParser::builder().seconds(Seconds::Optional).build().parse(&raw.cron).map_err(|e| {
            ScheduleError::Cron { cron: raw.cron.clone(), reason: e.to_string().trim_end_matches('.').to_owned() }
        })?;
        let zone = TimeZone::get(&raw.time_zone).map_err(|_| ScheduleError::Zone(raw.time_zone.clone()))?;
        let schedule = Self { raw, cron, zone };
        // Any fixed moment serves to find out whether the expression has a next time at all.
        match schedule.next_after(Timestamp::UNIX_EPOCH) {
            Some(_) => Ok(schedule),
            None => Err(ScheduleError::Never(schedule.raw.cron)),
        }
    }
}

impl From<Schedule> for RawSchedule {
    fn from(schedule: Schedule) -> Self {
        schedule.raw
    }
}

impl Schedule {
    /// From a cron expression and a name of a time zone.
    ///
    /// # Errors
    /// When either is none, or when it is never due.
    pub fn new(cron: String, time_zone: String, missed: Missed) -> Result<Self, ScheduleError> {
        RawSchedule { cron, time_zone, missed }.try_into()
    }

    /// The cron expression, as written.
    pub fn cron(&self) -> &str {
        &self.raw.cron
    }

    /// The name of its time zone, as written.
    pub fn time_zone(&self) -> &str {
        &self.raw.time_zone
    }

    /// The first due time after `moment`; `None` where there is none any more.
    pub fn next_after(&self, moment: Timestamp) -> Option<Timestamp> {
        let local = moment.to_zoned(self.zone.clone());
        self.cron.find_next_occurrence(&local, false).ok().map(|due| due.timestamp())
    }

    /// The due times after `handled` and not after `now`: how many, and the last of them. Counts up to `limit`.
    pub fn passed(&self, handled: Timestamp, now: Timestamp, limit: usize) -> Passed {
        let mut passed = Passed { count: 0, last: None };
        let mut moment = handled;
        while passed.count < limit {
            match self.next_after(moment) {
                Some(due) if due <= now && due > moment => {
                    passed.count += 1;
                    passed.last = Some(due);
                    moment = due;
                }
                _ => break,
            }
        }
        passed
    }

    /// What is done about missed due times.
    pub fn missed(&self) -> Missed {
        self.raw.missed
    }

    /// As written, for people: `0 2 * * * Europe/Berlin`.
    pub fn words(&self) -> String {
        format!("{} {}", self.raw.cron, self.raw.time_zone)
    }
}

/// Due times that passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Passed {
    /// How many.
    pub count: usize,
    /// The last of them.
    pub last: Option<Timestamp>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(cron: &str, zone: &str) -> Schedule {
        RawSchedule { cron: cron.to_owned(), time_zone: zone.to_owned(), missed: Missed::Record }
            .try_into()
            .expect("a good schedule")
    }

    fn time(text: &str) -> Timestamp {
        text.parse().expect("a timestamp")
    }

    #[test]
    fn a_due_time_is_that_of_its_zone() {
        let nightly = schedule("0 2 * * *", "Europe/Berlin");
        assert_eq!(nightly.next_after(time("2026-01-10T12:00:00Z")), Some(time("2026-01-11T01:00:00Z")));
        assert_eq!(nightly.next_after(time("2026-07-10T12:00:00Z")), Some(time("2026-07-11T00:00:00Z")));
    }

    #[test]
    fn the_skipped_hour_is_not_lost_and_the_doubled_hour_counts_once() {
        let nightly = schedule("30 2 * * *", "Europe/Berlin");
        // On 2026-03-29 the clock goes from 02:00 to 03:00: the run is not lost.
        let spring = nightly.passed(time("2026-03-28T12:00:00Z"), time("2026-03-29T12:00:00Z"), 10);
        assert_eq!(spring.count, 1, "{spring:?}");
        // On 2026-10-25 it goes from 03:00 back to 02:00: the run is not doubled.
        let autumn = nightly.passed(time("2026-10-24T12:00:00Z"), time("2026-10-25T12:00:00Z"), 10);
        assert_eq!(autumn, Passed { count: 1, last: Some(time("2026-10-25T00:30:00Z")) });
    }

    #[test]
    fn missed_times_are_counted_to_the_last() {
        let hourly = schedule("0 * * * *", "UTC");
        let passed = hourly.passed(time("2026-01-01T00:00:00Z"), time("2026-01-01T05:30:00Z"), 100);
        assert_eq!(passed, Passed { count: 5, last: Some(time("2026-01-01T05:00:00Z")) });
        assert_eq!(hourly.passed(time("2026-01-01T05:00:00Z"), time("2026-01-01T05:30:00Z"), 100).count, 0);
        assert_eq!(
            hourly.passed(time("2026-01-01T05:00:00Z"), time("2025-01-01T00:00:00Z"), 100).count,
            0,
            "clock back"
        );
    }

    #[test]
    fn a_schedule_that_is_none_or_never_due_is_refused() {
        let read = |cron: &str, zone: &str| {
            Schedule::try_from(RawSchedule { cron: cron.to_owned(), time_zone: zone.to_owned(), missed: Missed::Run })
        };
        assert!(matches!(read("61 * * * *", "UTC"), Err(ScheduleError::Cron { .. })));
        assert!(matches!(read("0 2 * * *", "Mars/Olympus"), Err(ScheduleError::Zone(_))));
        assert!(matches!(read("0 0 30 2 *", "UTC"), Err(ScheduleError::Never(_))));
    }
}
