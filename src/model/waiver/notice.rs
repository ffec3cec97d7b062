//! What whoever reads results has to know of the waivers in them.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::Serialize;

use super::{SOON, WAIVER_EXPIRED, WAIVER_UNMATCHED, WAIVERS_REFUSED, WAIVERS_UNSIGNED};
use crate::base::text::brief;
use crate::model::outcome::Outcome;
use crate::model::record::{Event, TaskRecord};

/// What is to be known of a waiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum NoticeState {
    /// A file of waivers did not count.
    Refused,
    /// A file of waivers counted although nobody signed it.
    Unsigned,
    /// It has expired: what it was for counts as failed in newer results.
    Expired,
    /// It counted when the result was recorded, and has expired since.
    ExpiredSince,
    /// It expires soon.
    ExpiresSoon,
    /// It fits none of the latest results.
    Unmatched,
}

impl NoticeState {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Refused, Self::Unsigned, Self::Expired, Self::ExpiredSince, Self::ExpiresSoon, Self::Unmatched];

    /// The word in documents.
    pub fn word(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Unsigned => "unsigned",
            Self::Expired => "expired",
            Self::ExpiredSince => "expired-since",
            Self::ExpiresSoon => "expires-soon",
            Self::Unmatched => "unmatched",
        }
    }

    fn of_event(what: &str) -> Option<Self> {
        match what {
            WAIVERS_REFUSED => Some(Self::Refused),
            WAIVERS_UNSIGNED => Some(Self::Unsigned),
            WAIVER_EXPIRED => Some(Self::Expired),
            WAIVER_UNMATCHED => Some(Self::Unmatched),
            _ => None,
        }
    }
}

/// One thing that is to be known of waivers.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct WaiverNotice {
    /// What.
    pub state: NoticeState,
    /// A sentence.
    pub detail: String,
}

/// All that is to be known of the waivers of these results at `now`: what their runs noted, and what expires soon or has
/// since. In a fixed order, each once.
pub fn notices<'r>(
    records: impl IntoIterator<Item = &'r TaskRecord>,
    events: &[Event],
    now: Timestamp,
) -> Vec<WaiverNotice> {
    let mut runs = BTreeSet::new();
    let mut waived: BTreeMap<(&str, Timestamp), u64> = BTreeMap::new();
    for record in records {
        runs.insert(record.run.to_string());
        for finding in &record.findings {
            if let Outcome::Waived { id, until, .. } = &finding.outcome {
                *waived.entry((id, *until)).or_default() += 1;
            }
        }
    }
    let noted = events.iter().filter(|event| runs.contains(&event.subject)).filter_map(|event| {
        let state = NoticeState::of_event(&event.what)?;
        Some(WaiverNotice { state, detail: event.detail.clone() })
    });
    let ending = waived.into_iter().filter_map(|((id, until), count)| {
        let name = if id.is_empty() { "a waiver".to_owned() } else { format!("waiver `{}`", brief(id)) };
        let of = if count == 1 { "1 control".to_owned() } else { format!("{count} controls") };
        let left = until.duration_since(now);
        if until <= now {
            let detail = format!("{name}, by which {of} counted as waived, expired at {until}; scan again");
            Some(WaiverNotice { state: NoticeState::ExpiredSince, detail })
        } else if left <= SOON {
            let detail = format!("{name}, by which {of} count as waived, expires at {until}");
            Some(WaiverNotice { state: NoticeState::ExpiresSoon, detail })
        } else {
            None
        }
    });
    noted.chain(ending).collect::<BTreeSet<_>>().into_iter().collect()
}
