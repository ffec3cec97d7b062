//! Waivers: whether each file counts, and whether what is in it still does.

use super::check::Check;
use super::expiry::Clock;
use crate::base::text::brief;
use crate::model::waiver::Standing;
use crate::stage::waivers::check::{CheckedFile, CheckedWaiver};

const NAME: &str = "waivers";
/// So many waivers are named.
const NAMED: usize = 5;

/// What one file is worth. Pure.
pub(super) fn judge(file: &CheckedFile, clock: Clock) -> Check {
    let subject = file.file.display().to_string();
    if !file.counts {
        let why = file.problems.join("; ");
        return Check::refused(NAME, subject, format!("none of its waivers count: {why}"))
            .with_remedy("correct it, and have it signed by `gapscan waive sign`; `gapscan waive check` tells more");
    }
    let of = |fits: &dyn Fn(&CheckedWaiver) -> bool| -> Vec<&str> {
        file.waivers.iter().filter(|waiver| fits(waiver)).map(|waiver| waiver.waiver.id.as_str()).collect()
    };
    let near = |waiver: &CheckedWaiver| {
        waiver.standing == Standing::Counts && waiver.waiver.expires.duration_since(clock.now) <= clock.near
    };
    let unmatched = |waiver: &CheckedWaiver| {
        waiver.standing != Standing::Expired && waiver.fits.as_ref().is_some_and(Vec::is_empty)
    };
    let mut told: Vec<String> = Vec::new();
    for (what, ids) in [
        ("expired", of(&|waiver| waiver.standing == Standing::Expired)),
        ("end later than policy allows, and do not count yet", of(&|waiver| waiver.standing == Standing::TooFar)),
        ("expire soon", of(&near)),
        ("fit none of the latest results", of(&unmatched)),
    ] {
        if !ids.is_empty() {
            let named: Vec<String> = ids.iter().take(NAMED).map(|id| brief(id)).collect();
            let more = match ids.len().saturating_sub(NAMED) {
                0 => String::new(),
                more => format!(" and {more} more"),
            };
            told.push(format!("these {what}: {}{more}", named.join(", ")));
        }
    }
    if file.approved_by.is_empty() {
        told.push("nobody signed it, and policy accepts it without".to_owned());
    }
    let all = format!("{} waivers, approved by {}", file.waivers.len(), file.approved_by.len());
    match told.is_empty() {
        true => Check::ok(NAME, subject, all),
        false => Check::warn(NAME, subject, format!("{all}; {}", told.join("; ")))
            .with_remedy("renew or remove them; `gapscan waive check` tells more"),
    }
}
