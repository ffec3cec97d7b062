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

#[cfg(test)]
mod tests {
    use jiff::{SignedDuration, Timestamp};

    use super::*;
    use crate::stage::doctor::check::State;

    fn file(expires: &str, fits: usize) -> CheckedFile {
        let text = format!(
            "apiVersion: gapscan/v1\nkind: Waivers\nwaivers:\n- {{id: w, controls: [a], profile: p, targets: all, reason: r, \
             requestedBy: b, expires: {expires}}}\n"
        );
        let waiver = crate::model::waiver::read(std::path::Path::new("w.yaml"), &text).expect("a document").remove(0);
        let fit = crate::stage::waivers::check::Fit {
            target: "host".to_owned(),
            control: "a".to_owned(),
            outcome: crate::model::outcome::Status::Failed,
        };
        let standing = waiver.standing(None, clock().now);
        let waivers = vec![CheckedWaiver {
            waiver,
            standing,
            expires_soon: false,
            fits: Some(vec![fit; fits]),
            more: 0,
            unchanged: 0,
        }];
        CheckedFile {
            file: "w.yaml".into(),
            digest: None,
            counts: true,
            problems: Vec::new(),
            approved_by: vec!["a".to_owned(), "b".to_owned()],
            threshold: 2,
            signatures_that_do_not_fit: Vec::new(),
            signatures_by_others: Vec::new(),
            waivers,
        }
    }

    fn clock() -> Clock {
        let now: Timestamp = "2027-01-15T00:00:00Z".parse().expect("a time");
        Clock { now, near: SignedDuration::from_hours(24 * 30) }
    }

    #[test]
    fn what_does_not_count_is_refused_and_what_will_not_for_long_is_a_warning() {
        let state = |file: &CheckedFile| judge(file, clock()).state;
        let good = file("2027-06-01", 1);
        assert_eq!(state(&good), State::Ok);
        assert_eq!(state(&file("2027-01-20", 1)), State::Warn, "soon");
        assert_eq!(state(&file("2027-01-01", 1)), State::Warn, "expired");
        assert_eq!(state(&file("2027-06-01", 0)), State::Warn, "fits nothing");
        assert_eq!(state(&CheckedFile { approved_by: Vec::new(), ..good.clone() }), State::Warn, "unsigned");
        let refused = CheckedFile { counts: false, problems: vec!["it is bad".to_owned()], ..good };
        assert_eq!(state(&refused), State::Bad);
        assert!(judge(&refused, clock()).detail.contains("it is bad"));
    }
}
