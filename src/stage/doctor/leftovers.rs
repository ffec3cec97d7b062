//! What is left of runs in the cluster, and what the ledger says of their end: that no grant is left is known only by both.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};

use super::check::{Check, Omitted, chain};
use crate::cluster::inspect::grants::{Found, Marked};
use crate::model::record::{Event, RunId};
use crate::stage::scan::ABANDONED;

/// What the ledger knows of runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Runs {
    /// They go on: they have no end, and a process writes to the ledger.
    pub(super) running: BTreeSet<RunId>,
    /// They are over.
    pub(super) over: BTreeSet<RunId>,
    /// What they made is seen to be gone.
    pub(super) clean: BTreeSet<RunId>,
    /// Of these it could not all be seen.
    pub(super) unclean: BTreeSet<RunId>,
}

impl Runs {
    /// What events say of the end of these runs; the later one counts.
    pub(super) fn account(&mut self, events: &[Event]) {
        for event in events {
            let Ok(run) = event.subject.parse::<RunId>() else { continue };
            match event.what.as_str() {
                "cleanup-verified" => {
                    self.unclean.remove(&run);
                    self.clean.insert(run);
                }
                "cleanup-incomplete" => {
                    self.clean.remove(&run);
                    self.unclean.insert(run);
                }
                _ => {}
            }
        }
    }
}

enum Standing {
    Running,
    /// Nothing says that its run is over, and it is young.
    Unknown,
    Left,
}

fn standing(marked: &Marked, runs: Option<&Runs>, now: Timestamp) -> Standing {
    let run = marked.run_id();
    let known =
        |of: fn(&Runs) -> &BTreeSet<RunId>| run.is_some_and(|run| runs.is_some_and(|runs| of(runs).contains(&run)));
    if known(|runs| &runs.running) {
        return Standing::Running;
    }
    if known(|runs| &runs.over) || run.is_none() {
        return Standing::Left;
    }
    let abandoned = SignedDuration::try_from(ABANDONED).unwrap_or(SignedDuration::MAX);
    match marked.created {
        Some(created) if now.duration_since(created) <= abandoned => Standing::Unknown,
        Some(_) => Standing::Left,
        None => Standing::Unknown,
    }
}

/// `runs` is what the ledger knows; `None` where there is no ledger.
pub(super) fn judge(subject: &str, found: &Found, runs: Option<&Runs>, now: Timestamp) -> (Vec<Check>, Vec<Omitted>) {
    let mut checks = Vec::new();
    for (name, what, grants) in [("leftover-grants", "grants", true), ("leftover-objects", "objects", false)] {
        let (mut left, mut doubtful, mut running) = (Vec::new(), Vec::new(), 0);
        for marked in found.marked.iter().filter(|one| one.grants == grants) {
            match standing(marked, runs, now) {
                Standing::Running => running += 1,
                Standing::Unknown => doubtful.push(marked.object.clone()),
                Standing::Left => left.push(marked.object.clone()),
            }
        }
        if grants {
            left.extend(found.unlabelled.iter().map(|one| format!("{one} (its label is gone)")));
        }
        let unseen: Vec<String> = found
            .unseen
            .iter()
            .filter(|one| one.matters && is_grant(&one.kind) == grants)
            .map(|one| format!("{}: {}", one.kind, chain(&one.error)))
            .collect();
        checks.push(if !left.is_empty() {
            Check::bad(name, subject, format!("{what} of runs that are over: {}", some(&left)))
                .with_remedy("the next `gapscan scan` of the cluster removes what runs of its ledger left, and what is older than a day; else remove them by hand")
        } else if !unseen.is_empty() {
            Check::unknown(name, subject, unseen.join("; "))
        } else if !doubtful.is_empty() {
            let detail = format!("{what} of runs that this ledger does not know: {}", some(&doubtful));
            Check::warn(name, subject, detail).with_remedy("see whether another runner scans this cluster")
        } else {
            let running = if running > 0 { format!(", but {running} of runs that go on") } else { String::new() };
            Check::ok(name, subject, format!("no {what} of runs are left{running}"))
        });
    }
    let denied = found.unseen.iter().filter(|one| !one.matters);
    let omitted = denied.map(|one| {
        let why = "this identity may not list them; in namespaces of runs they go with these, which were looked for";
        Omitted::new(format!("{} of runs", one.kind), why)
    });
    (checks, omitted.collect())
}

/// What the ledger says of how runs ended, beside what is there now.
pub(super) fn judge_recorded(subject: &str, runs: &Runs, found: Option<&Found>) -> Check {
    const NAME: &str = "ledger-cleanup";
    let (clean, unclean) = (runs.clean.len(), runs.unclean.len());
    if unclean == 0 {
        let detail = format!("of {clean} runs that made something in the cluster, all is recorded to be gone");
        return Check::ok(NAME, subject, detail);
    }
    let detail = format!("of {clean} runs all is recorded to be gone, and of {unclean} it could not be seen then");
    let still =
        |found: &Found| found.marked.iter().any(|one| one.run_id().is_some_and(|run| runs.unclean.contains(&run)));
    match found {
        Some(found) if found.unseen.iter().all(|one| !one.matters) && !still(found) => {
            Check::ok(NAME, subject, format!("{detail}; nothing of them is there now"))
        }
        Some(found) if still(found) => Check::bad(NAME, subject, format!("{detail}, and some of it is still there")),
        Some(_) | None => Check::unknown(NAME, subject, format!("{detail}, and it can't be seen now either")),
    }
}

fn is_grant(kind: &str) -> bool {
    kind.ends_with("rolebindings")
}

fn some(objects: &[String]) -> String {
    const SHOWN: usize = 8;
    let shown = objects.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(", ");
    match objects.len().saturating_sub(SHOWN) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::check::State;
    use super::*;
    use crate::cluster::error::ClusterError;
    use crate::cluster::inspect::grants::Unseen;

    fn at(hour: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + hour * 3600).expect("a time")
    }

    fn marked(run: RunId, grants: bool, hour: i64) -> Marked {
        Marked { object: "rolebinding/shop/x".to_owned(), grants, run: run.to_string(), created: Some(at(hour)) }
    }

    fn states(found: &Found, runs: Option<&Runs>) -> Vec<State> {
        judge("c", found, runs, at(100)).0.into_iter().map(|check| check.state).collect()
    }

    #[test]
    fn what_is_left_is_told_from_what_goes_on_and_from_what_is_not_known() {
        use State::{Bad, Ok, Unknown, Warn};
        let (running, over, other) = (RunId::new(), RunId::new(), RunId::new());
        let runs = Runs { running: BTreeSet::from([running]), over: BTreeSet::from([over]), ..Runs::default() };
        let with = |one: Marked| Found { marked: vec![one], ..Found::default() };
        assert_eq!(states(&Found::default(), Some(&runs)), [Ok, Ok]);
        assert_eq!(states(&with(marked(running, true, 99)), Some(&runs)), [Ok, Ok]);
        assert_eq!(states(&with(marked(over, true, 99)), Some(&runs)), [Bad, Ok]);
        assert_eq!(states(&with(marked(over, false, 99)), Some(&runs)), [Ok, Bad]);
        assert_eq!(states(&with(marked(other, true, 99)), Some(&runs)), [Warn, Ok], "of another runner, perhaps");
        assert_eq!(states(&with(marked(other, true, 70)), Some(&runs)), [Bad, Ok], "no run takes that long");
        assert_eq!(states(&with(marked(over, true, 99)), None), [Warn, Ok], "nobody says that it is over");
        let unlabelled = Found { unlabelled: vec!["clusterrolebinding/x".to_owned()], ..Found::default() };
        assert_eq!(states(&unlabelled, Some(&runs)), [Bad, Ok]);
        let unseen = |kind: &str, matters| Found {
            unseen: vec![Unseen {
                kind: kind.to_owned(),
                matters,
                error: ClusterError::Missing { what: "x".to_owned() },
            }],
            ..Found::default()
        };
        assert_eq!(states(&unseen("clusterrolebindings", true), Some(&runs)), [Unknown, Ok]);
        assert_eq!(states(&unseen("namespaces", true), Some(&runs)), [Ok, Unknown]);
        let (checks, omitted) = judge("c", &unseen("jobs", false), Some(&runs), at(100));
        assert!(checks.iter().all(|check| check.state == Ok) && omitted.len() == 1);
    }

    #[test]
    fn the_record_and_what_is_there_are_held_together() {
        let (clean, unclean) = (RunId::new(), RunId::new());
        let event = |run: RunId, what: &str| Event {
            at: at(0),
            what: what.to_owned(),
            subject: run.to_string(),
            due: None,
            detail: String::new(),
        };
        let mut runs = Runs::default();
        runs.account(&[event(clean, "cleanup-incomplete"), event(clean, "cleanup-verified")]);
        assert_eq!(judge_recorded("l", &runs, None).state, State::Ok);
        runs.account(&[event(unclean, "cleanup-incomplete")]);
        assert_eq!((runs.clean.len(), runs.unclean.len()), (1, 1));
        assert_eq!(judge_recorded("l", &runs, None).state, State::Unknown);
        assert_eq!(judge_recorded("l", &runs, Some(&Found::default())).state, State::Ok);
        let there = Found { marked: vec![marked(unclean, false, 0)], ..Found::default() };
        assert_eq!(judge_recorded("l", &runs, Some(&there)).state, State::Bad);
    }
}
