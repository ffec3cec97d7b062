//! Power loss, full disks, read-only folders.

use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use super::*;
use crate::ledger::schema::beside;

/// Names the ledger that [`child`] writes to.
const CHILD_LEDGER: &str = "GAPSCAN_TEST_CHILD_LEDGER";

/// Not a test by itself: the process that [`a_runner_killed_at_any_moment_loses_nothing_that_was_acknowledged`] kills. It
/// records events for ever and prints the number of each once it is recorded.
#[test]
fn child() {
    let Some(path) = std::env::var_os(CHILD_LEDGER) else { return };
    let mut ledger = Ledger::open(Path::new(&path), at(0)).expect("open");
    for number in 0.. {
        let run = a_run(&mut ledger, number);
        println!("\nrecorded {run}");
    }
}

#[test]
fn a_runner_killed_at_any_moment_loses_nothing_that_was_acknowledged() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("ledger");
    let mut acknowledged = Vec::new();
    for round in 0..8 {
        let mut child = Command::new(std::env::current_exe().expect("this test"))
            .args(["--exact", "ledger::tests::crash::child", "--nocapture", "--test-threads=1"])
            .env(CHILD_LEDGER, &path)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("start");
        let lines = BufReader::new(child.stdout.take().expect("its output")).lines();
        // Killed after another number of lines, and so at another moment, in every round.
        let mut seen = 0;
        for line in lines.map_while(Result::ok) {
            if let Some(run) = line.strip_prefix("recorded ") {
                acknowledged.push(run.parse::<RunId>().expect("a run"));
                seen += 1;
                if seen > round % 3 {
                    break;
                }
            }
        }
        child.kill().expect("SIGKILL");
        child.wait().expect("gone");
        assert!(seen > 0, "the child recorded nothing");

        let report = assert_intact(&path);
        assert!(report.unfinished.len() <= round + 1);
        let reader = LedgerReader::open(&path).expect("open");
        for run in &acknowledged {
            assert!(reader.run(*run).expect("read").is_some_and(|run| run.end.is_some()), "{run} was lost");
        }
    }
    let _ = Ledger::open(&path, at(1_000_000)).expect("open after all this");
}

#[test]
fn a_commit_that_the_head_file_does_not_know_yet_is_kept_and_noted() {
    let (_folder, path, _) = sample();
    let head = std::fs::read(beside(&path, "head")).expect("read");
    let mut ledger = Ledger::open(&path, at(100)).expect("open");
    a_run(&mut ledger, 100);
    drop(ledger);
    std::fs::write(beside(&path, "head"), head).expect("as if killed before the head file was written");
    assert_eq!(assert_intact(&path).after_head_file, 5);
    let ledger = Ledger::open(&path, at(200)).expect("open");
    assert_eq!(ledger.reader().events().expect("events")[0].what, "head-behind");
    drop(ledger);
    assert_eq!(assert_intact(&path).after_head_file, 0);
}

#[test]
fn a_ledger_killed_while_it_was_made_is_made_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("ledger");
    let _ = checkpoint::RunnerKey::create(&beside(&path, "key")).expect("only the key");
    std::fs::write(&path, []).expect("and an empty file");
    let _ = Ledger::open(&path, at(0)).expect("made");
    std::fs::remove_file(beside(&path, "head")).expect("killed before the head file");
    let _ = Ledger::open(&path, at(1)).expect("opened");
    assert_intact(&path);
}

#[test]
fn a_write_ahead_log_that_was_cut_is_noticed() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("ledger");
    let mut ledger = Ledger::open(&path, at(0)).expect("open");
    a_run(&mut ledger, 1);
    // The files as a machine that lost power leaves them: nothing was moved from the log to the database yet.
    let copy = folder.path().join("copy");
    let log = std::fs::read(folder.path().join("ledger-wal")).expect("a log");
    for extension in ["head", "key"] {
        std::fs::copy(beside(&path, extension), beside(&copy, extension)).expect("copy");
    }
    std::fs::copy(&path, &copy).expect("copy");
    let put = |length: usize| {
        let _ = std::fs::remove_file(folder.path().join("copy-shm"));
        std::fs::copy(&path, &copy).expect("copy");
        std::fs::write(folder.path().join("copy-wal"), &log[..length]).expect("write");
    };
    put(log.len());
    assert_intact(&copy);
    for length in [log.len() - 1, log.len() / 2, 100, 0] {
        put(length);
        let error = Ledger::open(&copy, at(9)).expect_err("the tail is gone");
        assert_eq!(error.class(), ExitClass::Ledger, "{error}");
        put(length);
        match LedgerReader::open(&copy).and_then(|reader| reader.verify()) {
            Ok(report) => assert!(!report.is_intact(), "cut to {length}"),
            Err(error) => assert_eq!(error.class(), ExitClass::Ledger, "cut to {length}: {error}"),
        }
    }
}

#[test]
fn a_full_disk_is_an_error_and_nothing_is_recorded_by_halves() {
    let (_folder, path, _) = sample();
    let mut ledger = Ledger::open(&path, at(100)).expect("open");
    let begun = start(&["n1"], 100);
    ledger.begin_run(&begun, &[]).expect("begin");
    let pages: u64 = ledger.reader().conn.pragma_query_value(None, "page_count", |r| r.get(0)).expect("pages");
    ledger.reader().conn.pragma_update_and_check(None, "max_page_count", pages, |_| Ok(())).expect("limit");
    let large = Evidence::new("result", "text/plain", (0..100_000_u32).flat_map(u32::to_be_bytes).collect::<Vec<u8>>());
    let findings = ["a", "b", "c"].map(|id| Finding::new(id, Outcome::Passed)).to_vec();
    let task = CheckedTask::new(begun.run, node("n1"), profile(), provenance(101), findings, vec![large], Vec::new())
        .expect("a task");
    let error = ledger.record(&task).expect_err("no room");
    assert!(matches!(error, LedgerError::Write { .. }), "{error:?}");
    assert_eq!(error.class(), ExitClass::Ledger);
    assert!(error.remedy().is_some_and(|remedy| remedy.contains("free space")));
    assert_eq!(assert_intact(&path).tasks, 2);
    ledger.reader().conn.pragma_update_and_check(None, "max_page_count", pages + 1000, |_| Ok(())).expect("room");
    ledger.record(&task).expect("recorded once there is room");
    assert_eq!(assert_intact(&path).tasks, 3);
}

#[test]
fn a_read_only_folder_can_be_read_and_not_written() {
    let (folder, path, _) = sample();
    let nowhere = folder.path().join("missing/ledger");
    assert_eq!(Ledger::open(&nowhere, at(0)).expect_err("no folder").class(), ExitClass::Ledger);

    let mode = |mode| std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(mode)).expect("chmod");
    let files = || std::fs::read_dir(folder.path()).expect("list").map(|f| f.expect("file").path()).collect::<Vec<_>>();
    std::fs::remove_file(beside(&path, "lock")).expect("remove");
    for file in files() {
        std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o400)).expect("chmod");
    }
    mode(0o500);
    // The superuser may write everywhere: then only the reading is tried.
    if std::fs::write(folder.path().join("probe"), []).is_err() {
        let error = Ledger::open(&path, at(9)).expect_err("read-only");
        assert_eq!(error.class(), ExitClass::Ledger, "{error}");
    }
    assert_intact(&path);
    mode(0o700);
}
