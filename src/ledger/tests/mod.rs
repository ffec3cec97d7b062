//! A ledger as a runner uses it, and everything that HOSTILE.md says may happen to one.

mod crash;
mod tamper;

use std::path::{Path, PathBuf};

use jiff::Timestamp;

use super::*;
use crate::base::exit::{Classify, ExitClass};
use crate::model::control::{Control, Severity};
use crate::model::evidence::Evidence;
use crate::model::finding::Finding;
use crate::model::outcome::{Outcome, Status};
use crate::model::profile::Profile;
use crate::model::provenance::{Approach, Engine, Provenance};
use crate::model::reason::Reason;
use crate::model::record::{CheckedTask, Event, ExpectedTask, RunEnd, RunId, RunStart, Trigger};
use crate::model::target::Target;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + second).expect("a time")
}

fn profile() -> Profile {
    let control = |id: &str| Control {
        id: id.to_owned(),
        title: format!("Title of {id}"),
        description: String::new(),
        check: String::new(),
        fix: String::new(),
        severity: Severity::High,
        references: Vec::new(),
    };
    Profile {
        name: "sample".to_owned(),
        version: "1".to_owned(),
        title: "Sample".to_owned(),
        summary: String::new(),
        controls: ["a", "b", "c"].map(control).to_vec(),
    }
}

fn node(name: &str) -> Target {
    Target::Node { name: name.to_owned(), uid: None }
}

fn start(targets: &[&str], second: i64) -> RunStart {
    let expected = |name: &&str| ExpectedTask {
        target: node(name),
        engine: "builtin".to_owned(),
        profile: profile().reference(),
        incarnation: None,
        workload: None,
    };
    RunStart {
        run: RunId::new(),
        trigger: Trigger::Manual,
        started: at(second),
        requested: vec!["cluster".to_owned()],
        classification: None,
        bundle: None,
        expected: targets.iter().map(expected).collect(),
    }
}

fn provenance(second: i64) -> Provenance {
    Provenance {
        gapscan: "0".to_owned(),
        engine: Engine { name: "builtin".to_owned(), version: String::new(), image: None },
        bundle: None,
        content: Vec::new(),
        approach: Approach::Objects,
        imported: None,
        identity: None,
        network: None,
        cleanup: None,
        started: at(second),
        finished: at(second),
    }
}

fn task(run: RunId, target: &str, second: i64, last: Outcome) -> CheckedTask {
    let findings =
        vec![Finding::new("a", Outcome::Passed), Finding::new("b", Outcome::Failed), Finding::new("c", last)];
    let evidence = vec![
        Evidence::new("facts", "application/json", "facts, ".repeat(100).into_bytes()),
        Evidence::new("stderr", "text/plain", target.as_bytes().to_vec()),
    ];
    CheckedTask::new(run, node(target), profile(), provenance(second), findings, evidence, Vec::new())
        .expect("all controls are accounted for")
}

/// A folder with a ledger of one whole run of two targets.
fn sample() -> (tempfile::TempDir, PathBuf, RunId) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("ledger");
    let mut ledger = Ledger::open(&path, at(0)).expect("a new ledger");
    let run = a_run(&mut ledger, 1);
    (folder, path, run)
}

fn a_run(ledger: &mut Ledger, second: i64) -> RunId {
    let start = start(&["n1", "n2"], second);
    ledger.begin_run(&start, &[profile()]).expect("begin");
    ledger.record(&task(start.run, "n2", second + 2, Outcome::Passed)).expect("n2");
    let unknown = Outcome::not_evaluated(Reason::Timeout, "after 5 s");
    ledger.record(&task(start.run, "n1", second + 1, unknown)).expect("n1");
    ledger.end_run(start.run, RunEnd::Completed, at(second + 3)).expect("end");
    start.run
}

fn verify(path: &Path) -> VerifyReport {
    LedgerReader::open(path).expect("open").verify().expect("verify")
}

#[track_caller]
fn assert_intact(path: &Path) -> VerifyReport {
    let report = verify(path);
    assert!(report.is_intact(), "{:#?}", report.problems);
    report
}

/// The places of all problems that verification finds.
fn problems(path: &Path) -> Vec<(Option<u64>, String)> {
    verify(path).problems.into_iter().map(|problem| (problem.entry, problem.place)).collect()
}

#[test]
fn what_is_recorded_is_read_back_and_verifies() {
    let (_folder, path, run) = sample();
    let report = assert_intact(&path);
    // The first entry, a profile, the start, two results, the end, a checkpoint.
    assert_eq!((report.entries, report.runs, report.tasks, report.checkpoints), (7, 1, 2, 1));
    assert_eq!(report.evidence, 3, "the facts of both are the same and kept once");
    assert_eq!(report.unfinished, []);

    let reader = LedgerReader::open(&path).expect("open");
    let runs = reader.runs(10).expect("runs");
    assert_eq!(runs.len(), 1);
    assert_eq!((runs[0].start.run, runs[0].tasks, runs[0].coverage.expected()), (run, 2, 6));
    assert_eq!(runs[0].end.as_ref().map(|end| end.end), Some(RunEnd::Completed));
    assert_eq!(runs[0].coverage.count(Status::NotEvaluated), 1);
    assert_eq!(reader.run(run).expect("run").as_ref(), runs.first());
    assert_eq!(reader.run(RunId::new()).expect("no run"), None);

    let tasks = reader.tasks_of(run).expect("tasks");
    assert_eq!(&tasks[1], task(run, "n2", 3, Outcome::Passed).record());
    assert_eq!(reader.latest().expect("latest"), tasks);
    assert_eq!(reader.profile(&profile().digest()).expect("profile"), Some(profile()));
    let facts = tasks[0].evidence[0].digest;
    assert_eq!(reader.evidence(&facts).expect("evidence"), Some("facts, ".repeat(100).into_bytes()));
    assert_eq!(reader.evidence(&crate::base::digest::Digest::of(b"none")).expect("none"), None);
    assert_eq!(reader.targets().expect("targets"), ["node/n1", "node/n2"]);
}

#[test]
fn history_says_what_changed() {
    let (_folder, path, _) = sample();
    let mut ledger = Ledger::open(&path, at(100)).expect("open again");
    let next = start(&["n1"], 100);
    ledger.begin_run(&next, &[]).expect("the profile is known");
    ledger.record(&task(next.run, "n1", 101, Outcome::Failed)).expect("n1");
    let history = ledger.reader().history("node/n1").expect("history");
    assert_eq!(history.iter().map(|t| t.coverage.count(Status::Failed)).collect::<Vec<_>>(), [1, 2]);
    let changes = ledger.reader().changes(history[0].seq, history[1].seq).expect("changes");
    let before = Some(Status::NotEvaluated);
    assert_eq!(changes, [Change { control: "c".to_owned(), before, after: Some(Status::Failed) }]);
    let latest = ledger.reader().latest().expect("latest");
    assert_eq!(latest.iter().map(|t| t.run == next.run).collect::<Vec<_>>(), [true, false]);
}

#[test]
fn the_latest_is_the_last_answer_to_the_same_question_and_never_half_of_one() {
    let (_folder, path, first) = sample();
    let mut ledger = Ledger::open(&path, at(100)).expect("open again");
    let latest = |ledger: &Ledger| -> Vec<(String, RunId)> {
        let tasks = ledger.reader().latest().expect("latest");
        tasks.iter().map(|task| (task.target.key(), task.run)).collect()
    };
    let key = |name: &str| format!("node/{name}");
    // The same question, and one of the targets is gone: while the run goes on, nothing of what was known is hidden.
    let mut again = start(&["n1"], 100);
    again.requested = ledger.reader().run(first).expect("read").expect("it is there").start.requested;
    ledger.begin_run(&again, &[]).expect("begin");
    ledger.record(&task(again.run, "n1", 101, Outcome::Failed)).expect("n1");
    assert_eq!(latest(&ledger), [(key("n1"), again.run), (key("n2"), first)]);
    ledger.end_run(again.run, RunEnd::Completed, at(102)).expect("end");
    assert_eq!(latest(&ledger), [(key("n1"), again.run)]);
    // Another question replaces nothing but what it answers itself.
    let mut other = start(&["n3"], 103);
    other.requested = vec!["node/n3".to_owned()];
    ledger.begin_run(&other, &[]).expect("begin");
    let unknown = Outcome::not_evaluated(Reason::RunnerInterrupted, "told to stop");
    ledger.record(&task(other.run, "n3", 104, unknown)).expect("n3");
    ledger.end_run(other.run, RunEnd::Drained, at(105)).expect("end");
    assert_eq!(latest(&ledger), [(key("n1"), again.run), (key("n3"), other.run)]);
    // A run by which nothing could be evaluated does not leave old verdicts standing as if they were its own.
    let mut silent = start(&["*"], 106);
    silent.requested = again.requested.clone();
    ledger.begin_run(&silent, &[]).expect("begin");
    let unknown = Outcome::not_evaluated(Reason::ApiUnreachable, "no answer");
    ledger.record(&task(silent.run, "*", 107, unknown)).expect("*");
    ledger.end_run(silent.run, RunEnd::Completed, at(108)).expect("end");
    assert_eq!(latest(&ledger), [(key("*"), silent.run), (key("n3"), other.run)]);
}

#[test]
fn evidence_is_compressed_where_that_helps() {
    let (_folder, path, _) = sample();
    let conn = rusqlite::Connection::open(&path).expect("open");
    let list: Vec<(String, u64, u64)> = conn
        .prepare("SELECT encoding, length, length(bytes) FROM evidence ORDER BY length DESC")
        .and_then(|mut s| s.query_map([], |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?)))?.collect())
        .expect("rows");
    assert_eq!(list[0].0, "deflate");
    assert!(list[0].2 < list[0].1);
    assert_eq!(list[1], ("identity".to_owned(), 2, 2));
}

#[test]
fn contradictions_are_refused_and_leave_no_trace() {
    let (_folder, path, done) = sample();
    let mut ledger = Ledger::open(&path, at(100)).expect("open");
    let entries = ledger.reader().head().expect("head").seq;
    let refused = |result: Result<(), LedgerError>| {
        let error = result.expect_err("must be refused");
        assert!(matches!(error, LedgerError::Contradiction { .. }), "{error}");
        assert_eq!(error.class(), ExitClass::Bug);
        error.to_string()
    };
    let one = start(&["n1", "n2"], 100);
    refused(ledger.record(&task(one.run, "n1", 100, Outcome::Passed)));
    refused(ledger.record(&task(done, "n1", 100, Outcome::Passed)));
    refused(ledger.end_run(done, RunEnd::Completed, at(100)));
    refused(ledger.begin_run(&start(&["n1", "n1"], 100), &[profile()]));
    let mut unknown = start(&["n1"], 100);
    unknown.expected[0].profile.digest = crate::base::digest::Digest::of(b"another");
    refused(ledger.begin_run(&unknown, &[profile()]));
    assert_eq!(ledger.reader().head().expect("head").seq, entries);

    ledger.begin_run(&one, &[]).expect("begin");
    refused(ledger.begin_run(&one, &[]));
    refused(ledger.record(&task(one.run, "n3", 100, Outcome::Passed)));
    ledger.record(&task(one.run, "n1", 100, Outcome::Passed)).expect("n1");
    assert!(refused(ledger.record(&task(one.run, "n1", 100, Outcome::Failed))).contains("has a result"));
    assert!(refused(ledger.end_run(one.run, RunEnd::Completed, at(101))).contains("1 of its tasks"));
    drop(ledger);
    assert_intact(&path);
}

#[test]
fn a_run_that_died_is_closed_by_the_next_process() {
    let (_folder, path, _) = sample();
    let dead = start(&["n1", "n2"], 50);
    let mut ledger = Ledger::open(&path, at(50)).expect("open");
    ledger.begin_run(&dead, &[]).expect("begin");
    ledger.record(&task(dead.run, "n1", 51, Outcome::Passed)).expect("n1");
    drop(ledger);
    assert_eq!(assert_intact(&path).unfinished, [dead.run]);

    let mut ledger = Ledger::open(&path, at(60)).expect("open");
    let unfinished = ledger.unfinished_runs().expect("unfinished");
    assert_eq!(unfinished, [(dead.clone(), vec![dead.expected[1].clone()])]);
    for (start, missing) in unfinished {
        for expected in missing {
            let profile = ledger.profile(&expected.profile.digest).expect("read").expect("known");
            let reason = Reason::RunnerInterrupted;
            let provenance = provenance(60);
            let task =
                CheckedTask::not_evaluated(start.run, expected.target, profile, provenance, reason, "", Vec::new());
            ledger.record(&task).expect("record");
        }
        ledger.end_run(start.run, RunEnd::Interrupted, at(61)).expect("end");
    }
    assert_eq!(ledger.unfinished_runs().expect("unfinished"), []);
    let tasks = ledger.reader().tasks_of(dead.run).expect("tasks");
    assert_eq!(tasks[1].coverage.count(Status::NotEvaluated), 3);
    assert_eq!(assert_intact(&path).unfinished, []);
}

#[test]
fn a_second_writer_is_refused_and_readers_are_not() {
    let (_folder, path, _) = sample();
    let first = Ledger::open(&path, at(100)).expect("open");
    let error = Ledger::open(&path, at(100)).expect_err("two writers");
    assert_eq!(error.class(), ExitClass::Ledger);
    assert!(error.to_string().contains(&format!("process {}", std::process::id())), "{error}");
    assert_eq!(LedgerReader::open(&path).expect("reader").runs(10).expect("runs").len(), 1);
    assert_intact(&path);
    drop(first);
    let _ = Ledger::open(&path, at(100)).expect("the lock went with its holder");
}

#[test]
fn a_clock_that_moves_back_is_noted() {
    let (_folder, path, _) = sample();
    let mut ledger = Ledger::open(&path, at(-1000)).expect("open");
    let noted = |ledger: &Ledger| ledger.reader().events().expect("events").len();
    assert_eq!(noted(&ledger), 1);
    assert_eq!(ledger.reader().events().expect("events")[0].what, "clock-moved-back");
    assert!(ledger.reader().last_at().expect("a time") >= at(0), "the time that was seen before is not forgotten");
    let said =
        Event { at: at(-999), what: "note".to_owned(), subject: String::new(), due: None, detail: String::new() };
    ledger.event(&said).expect("event");
    assert_eq!(noted(&ledger), 2, "it is noted once, not with every event after it");
    let begun = start(&["n1"], -998);
    ledger.begin_run(&begun, &[]).expect("begin");
    ledger.record(&task(begun.run, "n1", -2000, Outcome::Passed)).expect("n1");
    assert_eq!(noted(&ledger), 3, "a result that ended before its run began");
    drop(ledger);
    assert_intact(&path);
    let _ = Ledger::open(&path, at(10)).expect("open");
    assert_intact(&path);
}

#[test]
fn a_file_that_is_no_ledger_and_one_of_a_newer_gapscan_are_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let text = folder.path().join("text");
    std::fs::write(&text, "something else, and long enough to be looked at\n".repeat(50)).expect("write");
    let other = folder.path().join("other");
    rusqlite::Connection::open(&other).and_then(|c| c.execute_batch("CREATE TABLE t (x)")).expect("other");
    for path in [&text, &other] {
        let before = std::fs::read(path).expect("read");
        for error in [Ledger::open(path, at(0)).map(drop), LedgerReader::open(path).map(drop)] {
            let error = error.expect_err("no ledger");
            assert!(matches!(error, LedgerError::NotLedger { .. }), "{error:?}");
            assert_eq!(error.class(), ExitClass::Ledger);
        }
        assert_eq!(std::fs::read(path).expect("read"), before, "it was not touched");
    }
    assert!(matches!(LedgerReader::open(&folder.path().join("none")), Err(LedgerError::Absent { .. })));

    let (_folder, path, _) = sample();
    rusqlite::Connection::open(&path).and_then(|c| c.pragma_update(None, "user_version", 2)).expect("newer");
    for error in [Ledger::open(&path, at(9)).map(drop), LedgerReader::open(&path).map(drop)] {
        assert!(matches!(error, Err(LedgerError::Newer { found: 2, known: 1, .. })), "{error:?}");
    }
}

#[test]
fn what_is_kept_can_only_be_appended_to() {
    let (_folder, path, _) = sample();
    let conn = rusqlite::Connection::open(&path).expect("open");
    for table in ["entry", "evidence", "profile", "run", "run_end", "task", "finding", "task_evidence"] {
        for sql in [format!("DELETE FROM {table}"), format!("UPDATE {table} SET rowid = rowid")] {
            let sql = if table == "finding" || table == "task_evidence" { sql.replace("rowid", "seq") } else { sql };
            let error = conn.execute_batch(&sql).expect_err(&sql);
            assert!(error.to_string().contains("append-only"), "{sql}: {error}");
        }
    }
}
