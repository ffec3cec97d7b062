//! `gapscan serve` as a process: scans by the clock, drains on SIGTERM, and owns up to the times that it missed.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use gapscan::ledger::{LedgerReader, RunRecord};
use gapscan::model::outcome::Status;
use gapscan::model::record::{RunEnd, Trigger};

fn serve(folder: &Path) -> Child {
    Command::new(env!("CARGO_BIN_EXE_gapscan"))
        .args(["serve", "-f"])
        .arg(folder.join("plan.yaml"))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("gapscan runs")
}

fn terminate(mut child: Child) {
    let killed = Command::new("kill").args(["-TERM", &child.id().to_string()]).status().expect("kill runs");
    assert!(killed.success());
    assert_eq!(child.wait().expect("gapscan ends").code(), Some(0), "it drains and ends in order");
}

/// Waits until the ledger shows what is asked for, at most a minute.
#[track_caller]
fn wait_for(ledger: &Path, what: &str, condition: impl Fn(&LedgerReader) -> bool) {
    let end = Instant::now() + Duration::from_secs(60);
    while !LedgerReader::open(ledger).is_ok_and(|reader| condition(&reader)) {
        assert!(Instant::now() < end, "{what} did not come about in a minute");
        std::thread::yield_now();
    }
}

fn runs(reader: &LedgerReader) -> Vec<RunRecord> {
    reader.runs(usize::MAX).expect("the ledger can be read")
}

#[test]
fn scans_run_when_due_and_missed_times_are_recorded() {
    let folder = tempfile::tempdir().expect("a folder");
    let ledger = folder.path().join("ledger.sqlite");
    // Every second, so that the test need not wait for the minute.
    let plan = "apiVersion: gapscan/v1\nkind: Plan\nname: quick\nledger: ledger.sqlite\nscans:\n- name: host\n  \
                targets: [host]\n  schedule: {cron: '* * * * * *', timeZone: UTC}\n";
    fs::write(folder.path().join("plan.yaml"), plan).expect("the plan is written");

    let first = serve(folder.path());
    let ended = |r: &LedgerReader| runs(r).iter().filter(|run| run.end.is_some()).count();
    wait_for(&ledger, "a scheduled run", |r| ended(r) >= 1);
    terminate(first);
    let before = runs(&LedgerReader::open(&ledger).expect("the ledger is there"));
    assert!(before.iter().all(|run| run.end.is_some()), "nothing is left unaccounted for");
    assert!(
        before.iter().all(|run| matches!(&run.start.trigger, Trigger::Schedule { plan, .. } if plan == "quick/host"))
    );

    // A due time goes by while no runner is there.
    let stopped = jiff::Timestamp::now();
    while jiff::Timestamp::now().duration_since(stopped) < jiff::SignedDuration::from_secs(2) {
        std::thread::yield_now();
    }
    let second = serve(folder.path());
    wait_for(&ledger, "the record of what was missed", |r| {
        r.events().is_ok_and(|events| events.iter().any(|e| e.what == "schedule-missed" && e.due.is_some()))
    });
    wait_for(&ledger, "a run after it", |r| runs(r).len() >= before.len() + 2 && ended(r) >= before.len() + 2);
    terminate(second);

    let reader = LedgerReader::open(&ledger).expect("the ledger is there");
    assert!(reader.verify().expect("the ledger can be checked").is_intact());
    let all = runs(&reader);
    let missed: Vec<&RunRecord> = all
        .iter()
        .filter(|run| {
            run.coverage.expected() > 0 && run.coverage.count(Status::NotEvaluated) == run.coverage.expected()
        })
        .collect();
    assert!(!missed.is_empty(), "what was expected of the missed run counts as not evaluated");
    assert!(all.iter().all(|run| run.end.as_ref().is_some_and(|end| end.end != RunEnd::Interrupted)));
}

#[test]
fn a_killed_runner_is_accounted_for_by_the_next() {
    let folder = tempfile::tempdir().expect("a folder");
    let ledger = folder.path().join("ledger.sqlite");
    let plan = "apiVersion: gapscan/v1\nkind: Plan\nname: quick\nledger: ledger.sqlite\nscans:\n- name: host\n  \
                targets: [host]\n  schedule: {cron: '* * * * * *', timeZone: UTC}\n";
    fs::write(folder.path().join("plan.yaml"), plan).expect("the plan is written");
    let mut first = serve(folder.path());
    // Killed as soon as a run has begun; whether it ends before the signal comes is a matter of luck, and both are right.
    wait_for(&ledger, "a run", |r| !runs(r).is_empty());
    first.kill().expect("it can be killed");
    first.wait().expect("it ends");
    let begun = runs(&LedgerReader::open(&ledger).expect("the ledger is there")).len();

    let second = serve(folder.path());
    wait_for(&ledger, "a run after it", |r| runs(r).iter().filter(|run| run.end.is_some()).count() > begun);
    terminate(second);
    let reader = LedgerReader::open(&ledger).expect("the ledger is there");
    assert!(reader.verify().expect("the ledger can be checked").is_intact());
    for run in runs(&reader) {
        assert!(run.end.is_some(), "run {} is left open", run.start.run);
        let tasks = reader.tasks_of(run.start.run).expect("its tasks can be read");
        assert_eq!(tasks.len(), run.start.expected.len(), "each expected task has one record");
    }
}
