//! The ledger: whether it can be read and written, whether it is whole, whose cluster it is of, what its clock was; and the
//! room for results beside it.

use std::path::{Path, PathBuf};

use jiff::{SignedDuration, Timestamp};

use super::check::{Check, chain};
use super::expiry::words;
use super::leftovers::Runs;
use crate::base::exit::ExitClass;
use crate::base::quantity::bytes_for_people;
use crate::base::text::brief;
use crate::ledger::{LedgerError, LedgerReader, VerifyReport, Writer, writer};
use crate::model::record::{Event, Trigger};
use crate::stage::scan::CLUSTER_EVENT;

/// By so much the last entry may be ahead of the clock: a time service that corrects a drift.
const DRIFT: SignedDuration = SignedDuration::from_secs(60);

/// What was seen of a ledger that is there.
pub(super) struct Ledger {
    pub(super) reader: LedgerReader,
    pub(super) verified: Result<VerifyReport, LedgerError>,
    pub(super) writer: Result<Writer, LedgerError>,
    pub(super) events: Result<Vec<Event>, LedgerError>,
    pub(super) runs: Option<Runs>,
    /// How many of its runs are files that were imported.
    pub(super) imports: usize,
}

/// Looks at the ledger at this path; `None` where there is none.
pub(super) fn look(path: &Path) -> Result<Option<Ledger>, LedgerError> {
    if !path.exists() {
        return Ok(None);
    }
    let reader = LedgerReader::open(path)?;
    let (verified, writer, events) = (reader.verify(), writer(path), reader.events());
    let mut imports = 0;
    let runs = match (reader.runs(usize::MAX), &events) {
        (Ok(all), Ok(events)) => {
            imports = all.iter().filter(|run| matches!(run.start.trigger, Trigger::Import { .. })).count();
            let mut runs = Runs::default();
            for run in all {
                // Without a writer nothing goes on, whatever has no end.
                let going = run.end.is_none() && matches!(writer, Ok(Writer::Held { .. }));
                if going {
                    runs.running.insert(run.start.run)
                } else {
                    runs.over.insert(run.start.run)
                };
            }
            runs.account(events);
            Some(runs)
        }
        _ => None,
    };
    Ok(Some(Ledger { reader, verified, writer, events, runs, imports }))
}

/// `cluster` is the UID of the cluster that is connected to.
pub(super) fn judge(path: &Path, ledger: &Ledger, cluster: Option<&str>, now: Timestamp) -> Vec<Check> {
    const NAME: &str = "ledger";
    let subject = path.display().to_string();
    let mut checks = Vec::new();
    checks.push(match &ledger.verified {
        Ok(report) if report.is_intact() => {
            let imported = match ledger.imports {
                0 => String::new(),
                some => format!(", {some} of these imported: gapscan did not run those scans"),
            };
            let detail = format!("it is intact: {} entries, {} runs{imported}", report.entries, report.runs);
            Check::ok(NAME, &subject, detail)
        }
        Ok(report) => {
            let first = report.problems.first().map(|one| format!("{}: {}", one.place, one.what)).unwrap_or_default();
            let more = report.problems.len() as u64 + report.problems_omitted;
            Check::bad(NAME, &subject, format!("it is not intact, {more} problems, the first: {first}"))
                .with_class(ExitClass::Ledger)
                .with_remedy("`gapscan ledger verify` lists them all; results from it are not to be believed")
        }
        Err(error) => Check::failed(NAME, &subject, error),
    });
    checks.push(match &ledger.writer {
        Ok(Writer::Free) => Check::ok(NAME, &subject, "it could be written to"),
        Ok(Writer::Held { pid }) => Check::ok(NAME, &subject, format!("process {} writes to it", brief(pid))),
        Err(error) => Check::failed(NAME, &subject, error).with_class(ExitClass::Ledger),
    });
    match &ledger.events {
        Ok(events) => checks.extend(of_cluster(&subject, events, cluster)),
        Err(error) => checks.push(Check::unseen(NAME, &subject, error)),
    }
    checks.push(match ledger.reader.last_at() {
        Ok(last) => clock(&subject, last, now),
        Err(error) => Check::unseen("ledger-clock", &subject, &error),
    });
    checks
}

/// A ledger is of one cluster: targets are named within it.
fn of_cluster(subject: &str, events: &[Event], cluster: Option<&str>) -> Option<Check> {
    let first = events.iter().find(|event| event.what == CLUSTER_EVENT)?;
    let uid = cluster?;
    Some(if first.subject == uid {
        Check::ok("ledger", subject, "it is of this cluster")
    } else {
        let detail = format!("it is of another cluster, {} (UID {})", first.detail, first.subject);
        Check::bad("ledger", subject, detail)
            .with_class(ExitClass::Usage)
            .with_remedy("each cluster has a ledger of its own: name another with --ledger")
    })
}

fn clock(subject: &str, last: Timestamp, now: Timestamp) -> Check {
    const NAME: &str = "ledger-clock";
    let ahead = last.duration_since(now);
    if ahead > DRIFT {
        let detail = format!("its last entry is of {last}, {} ahead of this machine's clock", words(ahead));
        return Check::bad(NAME, subject, detail)
            .with_class(ExitClass::Ledger)
            .with_remedy("set the clock right: nothing that is recorded now would be believed to be later");
    }
    Check::ok(NAME, subject, format!("its last entry is of {last}, and now it is {now}"))
}

/// The folder that a ledger is in or would be.
pub(super) fn folder(path: &Path) -> PathBuf {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new(".")).to_owned()
}

/// Where there is no ledger yet: whether one could be made.
pub(super) fn judge_absent(path: &Path) -> Check {
    let (subject, folder) = (path.display().to_string(), folder(path));
    // A file without a name: nothing is left of it.
    match tempfile::tempfile_in(&folder) {
        Ok(_) => Check::ok("ledger", subject, "there is none yet; the first scan makes it"),
        Err(error) => {
            let detail = format!("there is none, and none can be made in `{}`: {error}", folder.display());
            Check::bad("ledger", subject, detail)
                .with_class(ExitClass::Ledger)
                .with_remedy("name another with --ledger")
        }
    }
}

/// Whether the ledger could not even be opened.
pub(super) fn judge_unopened(path: &Path, error: &LedgerError) -> Check {
    Check::failed("ledger", path.display().to_string(), error)
}

/// A large result is there twice for a moment: as it came, and in the ledger.
pub(super) fn judge_space(folder: &Path, result_bytes: u64) -> Check {
    const NAME: &str = "spool-space";
    let subject = folder.display().to_string();
    match rustix::fs::statvfs(folder) {
        Ok(found) => space(subject, found.f_bavail.saturating_mul(found.f_frsize), result_bytes),
        Err(error) => Check::unknown(NAME, subject, format!("it can't be asked: {}", chain(&error))),
    }
}

fn space(subject: String, free: u64, result_bytes: u64) -> Check {
    const NAME: &str = "spool-space";
    /// What SQLite and its log need for anything at all.
    const LEAST: u64 = 64 << 20;
    let (shown, wanted) = (bytes_for_people(free), bytes_for_people(result_bytes.saturating_mul(2)));
    let remedy = "make room in the folder of the ledger";
    match free {
        free if free < LEAST => {
            let check = Check::bad(NAME, subject, format!("{shown} are free: the ledger can't go on"));
            check.with_class(ExitClass::Ledger).with_remedy(remedy)
        }
        free if free < result_bytes.saturating_mul(2) => {
            let detail = format!("{shown} are free: a result of the largest size takes {wanted} for a moment");
            Check::warn(NAME, subject, detail).with_remedy(remedy)
        }
        _ => Check::ok(NAME, subject, format!("{shown} are free; the largest result takes {wanted} for a moment")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::check::State;
    use super::*;
    use crate::ledger::Ledger as Written;

    fn time(text: &str) -> Timestamp {
        text.parse().expect("a time")
    }

    #[test]
    fn a_ledger_is_judged_without_being_written_to() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("ledger.sqlite");
        assert!(look(&path).expect("looked").is_none());
        assert_eq!(judge_absent(&path).state, State::Ok);
        assert!(!path.exists());
        let now = time("2026-01-01T00:00:00Z");
        let mut written = Written::open(&path, now).expect("a ledger");
        let event = Event {
            at: now,
            what: CLUSTER_EVENT.to_owned(),
            subject: "uid-1".to_owned(),
            due: None,
            detail: "context `a`".to_owned(),
        };
        written.event(&event).expect("recorded");
        let states = |cluster, now| {
            let seen = look(&path).expect("looked").expect("there");
            judge(&path, &seen, cluster, now).into_iter().map(|check| check.state).collect::<Vec<_>>()
        };
        use State::{Bad, Ok};
        assert_eq!(states(Some("uid-1"), now), [Ok, Ok, Ok, Ok], "this process writes to it");
        drop(written);
        assert_eq!(states(None, now), [Ok, Ok, Ok]);
        assert_eq!(states(Some("uid-2"), now), [Ok, Ok, Bad, Ok]);
        assert_eq!(states(None, time("2025-12-31T00:00:00Z")), [Ok, Ok, Bad]);
        std::fs::remove_file(folder.path().join("ledger.sqlite.head")).expect("removed");
        assert_eq!(states(None, now)[0], Bad, "its tail could be gone");
    }

    #[test]
    fn room_for_the_largest_result_is_looked_for() {
        let state = |free| space("f".to_owned(), free, 100 << 20).state;
        assert_eq!((state(1), state(100 << 20), state(200 << 20)), (State::Bad, State::Warn, State::Ok));
    }
}
