//! What the ledger says of the due times of one scan.

use jiff::Timestamp;

use crate::ledger::{Ledger, LedgerError};
use crate::model::reason::Reason;
use crate::model::record::{Event, RunStart, Trigger};

/// Events by which the ledger remembers that a run is owed.
pub(super) const BLACKOUT_OVER: &str = "blackout-over";

/// The runs of this scan, the newest first, each with its due time.
fn runs_of(ledger: &Ledger, subject: &str) -> Result<Vec<(Timestamp, RunStart)>, LedgerError> {
    let runs = ledger.reader().runs(usize::MAX)?;
    Ok(runs
        .into_iter()
        .filter_map(|run| match &run.start.trigger {
            Trigger::Schedule { plan, due } if plan == subject => Some((*due, run.start)),
            Trigger::Schedule { .. } | Trigger::Manual | Trigger::Import { .. } | Trigger::Alerts { .. } => None,
        })
        .collect())
}

/// The last run of this scan that expected anything.
pub(super) fn last_run(ledger: &Ledger, subject: &str) -> Result<Option<RunStart>, LedgerError> {
    Ok(runs_of(ledger, subject)?.into_iter().map(|(_, start)| start).find(|start| !start.expected.is_empty()))
}

/// The due times of this scan that the ledger accounts for.
pub(super) fn handled_dues(ledger: &Ledger, subject: &str) -> Result<Vec<Timestamp>, LedgerError> {
    let by_runs = runs_of(ledger, subject)?.into_iter().map(|(due, _)| due);
    let by_events = ledger.reader().events()?.into_iter().filter(|e| e.subject == subject).filter_map(|e| e.due);
    Ok(by_runs.chain(by_events).collect())
}

/// The due time of this scan that fell into a blackout and was not made up for, if there is one.
pub(super) fn owed(events: &[Event], subject: &str) -> Option<Timestamp> {
    let about =
        |e: &&Event| e.subject == subject && [Reason::Blackout.code(), BLACKOUT_OVER].contains(&e.what.as_str());
    events.iter().filter(about).max_by_key(|e| e.at).filter(|e| e.what == Reason::Blackout.code())?.due
}
