//! Blackouts: times of the week in which nothing is started, whatever is due.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::schedule::{Missed, Schedule, ScheduleError};
use crate::base::quantity::Span;

/// A longer blackout is a mistake in its notation, or a plan that should not be served at all.
const LONGEST: Span = Span::days(31);

/// A time that comes again and again, as a cron entry with its time zone for when it begins, and how long it lasts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "RawBlackout", into = "RawBlackout")]
pub struct Blackout {
    begins: Schedule,
    duration: Span,
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct RawBlackout {
    cron: String,
    time_zone: String,
    duration: Span,
}

/// Why a blackout can't be used.
#[derive(Debug, thiserror::Error)]
pub enum BlackoutError {
    /// When it begins.
    #[error(transparent)]
    Begins(#[from] ScheduleError),
    /// How long it lasts.
    #[error("a blackout lasts between 1s and {LONGEST}, and not {0}")]
    Duration(Span),
}

impl TryFrom<RawBlackout> for Blackout {
    type Error = BlackoutError;

    fn try_from(raw: RawBlackout) -> Result<Self, BlackoutError> {
        if raw.duration < Span::seconds(1) || raw.duration > LONGEST {
            return Err(BlackoutError::Duration(raw.duration));
        }
        Ok(Self { begins: Schedule::new(raw.cron, raw.time_zone, Missed::Record)?, duration: raw.duration })
    }
}

impl From<Blackout> for RawBlackout {
    fn from(blackout: Blackout) -> Self {
        Self {
            cron: blackout.begins.cron().to_owned(),
            time_zone: blackout.begins.time_zone().to_owned(),
            duration: blackout.duration,
        }
    }
}

impl Blackout {
    /// Until when it lasts, where it does at `now`; where one begins before another has ended, that of the earlier.
    pub fn until(&self, now: Timestamp) -> Option<Timestamp> {
        let earliest = now.checked_sub(self.duration.duration()).ok()?;
        let begun = self.begins.next_after(earliest).filter(|begun| *begun <= now)?;
        begun.checked_add(self.duration.duration()).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blackout(text: &str) -> Result<Blackout, serde_json::Error> {
        serde_json::from_str(text)
    }

    fn time(text: &str) -> Timestamp {
        text.parse().expect("a timestamp")
    }

    #[test]
    fn it_lasts_from_its_first_moment_until_before_its_end_in_its_own_zone() {
        let office = r#"{"cron": "0 8 * * 1-5", "timeZone": "Europe/Berlin", "duration": "10h"}"#;
        let office = blackout(office).expect("a good blackout");
        // A Monday in winter: 08:00 in Berlin is 07:00 UTC.
        let end = Some(time("2026-01-12T17:00:00Z"));
        assert_eq!(office.until(time("2026-01-12T06:59:59Z")), None);
        assert_eq!(office.until(time("2026-01-12T07:00:00Z")), end);
        assert_eq!(office.until(time("2026-01-12T16:59:59Z")), end);
        assert_eq!(office.until(time("2026-01-12T17:00:00Z")), None);
        assert_eq!(office.until(time("2026-01-11T12:00:00Z")), None, "on Sundays nothing is closed");
        assert_eq!(office.until(time("2026-07-13T06:00:00Z")), Some(time("2026-07-13T16:00:00Z")), "in summer");
    }

    #[test]
    fn one_that_never_or_always_is_is_refused() {
        for (cron, zone, duration) in [
            ("0 8 * * *", "UTC", "0s"),
            ("0 8 * * *", "UTC", "32d"),
            ("0 0 30 2 *", "UTC", "1h"),
            ("0 8 * * *", "Mars/Olympus", "1h"),
        ] {
            let text = format!(r#"{{"cron": "{cron}", "timeZone": "{zone}", "duration": "{duration}"}}"#);
            assert!(blackout(&text).is_err(), "{text}");
        }
        assert!(blackout(r#"{"cron": "0 8 * * *", "timeZone": "UTC", "duration": "1h", "missed": "run"}"#).is_err());
    }

    #[test]
    fn reads_what_it_writes() {
        let text = r#"{"cron":"0 8 * * 1-5","timeZone":"UTC","duration":"10h"}"#;
        assert_eq!(serde_json::to_string(&blackout(text).expect("good")).expect("JSON"), text);
    }
}
