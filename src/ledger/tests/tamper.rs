//! Each attack is done as somebody with the file would: triggers dropped first, and whatever can be repaired is repaired, so
//! that the check that is meant is the one that notices.

use rusqlite::{Connection, params};

use super::*;
use crate::base::digest::Digest;
use crate::ledger::schema::beside;

/// Opens the database as an attacker does: no triggers, no foreign keys.
fn attack(path: &Path) -> Connection {
    let conn = Connection::open(path).expect("open");
    let triggers: Vec<(String, String)> = conn
        .prepare("SELECT name, sql FROM sqlite_schema WHERE type = 'trigger'")
        .and_then(|mut s| s.query_map([], |r| Ok((r.get(0)?, r.get(1)?)))?.collect())
        .expect("triggers");
    conn.pragma_update(None, "foreign_keys", false).expect("pragma");
    for (name, _) in &triggers {
        conn.execute_batch(&format!("DROP TRIGGER {name}")).expect("drop");
    }
    conn
}

/// Puts the triggers back and closes.
fn repair(conn: Connection) {
    for line in include_str!("../schema.sql").split("CREATE TRIGGER").skip(1) {
        conn.execute_batch(&format!("CREATE TRIGGER{line}")).expect("trigger");
    }
    conn.close().expect("close");
}

/// Computes the chain anew from entry `from` on, as somebody without the key can.
fn rechain(conn: &Connection, from: u64) {
    let mut seq = from;
    while let Some(entry) = append::entry_at(conn, seq).expect("entry") {
        let prev = append::entry_at(conn, seq - 1).expect("entry").map_or_else(chain::before_first, |e| e.digest);
        let digest = chain::digest(seq, &entry.kind, &entry.at, &prev, &entry.body);
        conn.execute("UPDATE entry SET prev = ?, digest = ? WHERE seq = ?", params![prev.bytes(), digest.bytes(), seq])
            .expect("update");
        seq += 1;
    }
}

fn seq_of(conn: &Connection, kind: &str) -> u64 {
    conn.query_row("SELECT max(seq) FROM entry WHERE kind = ?", [kind], |r| r.get(0)).expect("an entry")
}

fn some(seq: u64, place: &str) -> (Option<u64>, String) {
    (Some(seq), place.to_owned())
}

#[test]
fn an_edited_entry_is_named() {
    let (_folder, path, _) = sample();
    let conn = attack(&path);
    let seq = seq_of(&conn, "task");
    conn.execute(
        "UPDATE entry SET body = CAST(replace(CAST(body AS TEXT), '\"outcome\":\"failed\"', '\"outcome\":\"passed\"') AS BLOB) WHERE seq = ?",
        [seq],
    )
    .expect("edit");
    repair(conn);
    let found = problems(&path);
    assert!(found.contains(&some(seq, "entry")), "{found:?}");
    assert!(found.contains(&some(seq, "finding")), "{found:?}");
    let error = LedgerReader::open(&path).expect("open").latest().expect_err("it is not handed out either");
    assert!(matches!(error, LedgerError::Corrupt { .. }) && error.class() == ExitClass::Ledger, "{error}");
}

#[test]
fn an_edited_time_or_kind_is_named() {
    for sql in ["UPDATE entry SET at = '2001-01-01T00:00:00Z'", "UPDATE entry SET kind = 'checkpoint'"] {
        let (_folder, path, _) = sample();
        let conn = attack(&path);
        let seq = seq_of(&conn, "run-start");
        conn.execute(&format!("{sql} WHERE seq = {seq}"), []).expect("edit");
        repair(conn);
        assert!(problems(&path).contains(&some(seq, "entry")));
    }
}

#[test]
fn a_history_that_was_chained_anew_has_no_signature() {
    let (_folder, path, _) = sample();
    let conn = attack(&path);
    let seq = seq_of(&conn, "task");
    let body: Vec<u8> = conn.query_row("SELECT body FROM entry WHERE seq = ?", [seq], |r| r.get(0)).expect("body");
    let mut record: crate::model::record::TaskRecord = serde_json::from_slice(&body).expect("a task");
    record.findings[1].outcome = Outcome::Passed;
    record.coverage = crate::model::coverage::Coverage::of(&profile(), &record.findings).expect("coverage");
    let body = serde_json::to_vec(&record).expect("json");
    conn.execute("UPDATE entry SET body = ? WHERE seq = ?", params![body, seq]).expect("edit");
    conn.execute("UPDATE finding SET status = 'passed' WHERE seq = ? AND ordinal = 1", [seq]).expect("edit");
    conn.execute("UPDATE task SET passed = passed + 1, failed = failed - 1 WHERE seq = ?", [seq]).expect("edit");
    rechain(&conn, seq);
    let (last, checkpoint) = (seq_of(&conn, "checkpoint"), seq_of(&conn, "checkpoint"));
    repair(conn);
    assert_eq!(problems(&path), [some(checkpoint, "checkpoint"), some(last, "head")]);
    assert!(matches!(Ledger::open(&path, at(100)), Err(LedgerError::Head { .. })));
}

#[test]
fn a_removed_entry_is_named() {
    let (_folder, path, _) = sample();
    let conn = attack(&path);
    let seq = seq_of(&conn, "task");
    for table in ["finding", "task_evidence", "task", "entry"] {
        conn.execute(&format!("DELETE FROM {table} WHERE seq = ?"), [seq]).expect("delete");
    }
    repair(conn);
    let found = problems(&path);
    assert!(found.contains(&some(seq + 1, "chain")), "{found:?}");
    assert!(found.contains(&some(seq + 1, "run")), "the run lacks a result: {found:?}");
}

#[test]
fn a_removed_tail_is_noticed_and_nothing_is_appended_to_it() {
    let (_folder, path, run) = sample();
    let conn = attack(&path);
    let tasks: Vec<u64> = vec![seq_of(&conn, "task"), seq_of(&conn, "task") - 1];
    for seq in tasks {
        for table in ["finding", "task_evidence", "task"] {
            conn.execute(&format!("DELETE FROM {table} WHERE seq = ?"), [seq]).expect("delete");
        }
    }
    for table in ["run_end", "run"] {
        conn.execute(&format!("DELETE FROM {table}"), []).expect("delete");
    }
    conn.execute("DELETE FROM evidence", []).expect("delete");
    conn.execute("DELETE FROM entry WHERE seq > 2", []).expect("delete");
    repair(conn);
    assert_eq!(LedgerReader::open(&path).expect("open").run(run).expect("run"), None);
    assert_eq!(problems(&path), [some(2, "head")]);
    let error = Ledger::open(&path, at(100)).expect_err("a removed tail");
    assert_eq!(error.class(), ExitClass::Ledger);
    assert!(error.to_string().contains("had come to entry 7") && error.to_string().contains("entry 2"), "{error}");
}

#[test]
fn an_older_copy_another_ledger_and_no_database_are_noticed() {
    let (_folder, path, _) = sample();
    let older = std::fs::read(&path).expect("read");
    let mut ledger = Ledger::open(&path, at(100)).expect("open");
    a_run(&mut ledger, 100);
    drop(ledger);
    assert_intact(&path);
    std::fs::write(&path, older).expect("swap");
    assert_eq!(problems(&path), [some(7, "head")]);
    assert!(matches!(Ledger::open(&path, at(200)), Err(LedgerError::Head { .. })));

    let (_other_folder, other, _) = sample();
    std::fs::copy(&other, &path).expect("swap");
    assert_eq!(problems(&path), [some(7, "head")]);
    assert!(matches!(Ledger::open(&path, at(200)), Err(LedgerError::Key { .. })));

    std::fs::remove_file(&path).expect("remove");
    assert!(matches!(Ledger::open(&path, at(200)), Err(LedgerError::Head { .. })));
    assert!(!path.exists(), "no new ledger in its place");
}

#[test]
fn a_head_file_that_is_missing_edited_or_unreadable_is_noticed() {
    for content in [None, Some("edited"), Some("{")] {
        let (_folder, path, _) = sample();
        let head = beside(&path, "head");
        match content {
            None => std::fs::remove_file(&head).expect("remove"),
            Some("edited") => {
                let text = std::fs::read_to_string(&head).expect("read");
                std::fs::write(&head, text.replace("\"seq\":7", "\"seq\":6")).expect("write");
            }
            Some(other) => std::fs::write(&head, other).expect("write"),
        }
        assert_eq!(problems(&path).into_iter().map(|p| p.1).collect::<Vec<_>>(), ["head"], "{content:?}");
        assert!(matches!(Ledger::open(&path, at(100)), Err(LedgerError::Head { .. })), "{content:?}");
    }
}

#[test]
fn the_runners_key_must_be_there_and_be_the_one() {
    let (_folder, path, _) = sample();
    let key = beside(&path, "key");
    std::fs::remove_file(&key).expect("remove");
    assert_eq!(Ledger::open(&path, at(100)).expect_err("no key").class(), ExitClass::Ledger);
    let _ = checkpoint::RunnerKey::create(&key).expect("another key");
    assert!(matches!(Ledger::open(&path, at(100)), Err(LedgerError::Key { .. })));
    assert_intact(&path);
}

#[test]
fn an_entry_that_somebody_else_appended_is_named() {
    let (_folder, path, _) = sample();
    let conn = attack(&path);
    let (head, last) = query::head(&conn).expect("head");
    let mut tail = append::Tail { head, at: last };
    let event =
        Event { at: last, what: "all-well".to_owned(), subject: String::new(), due: None, detail: String::new() };
    tail.append(&conn, last, &chain::Body::Event(event)).expect("append");
    repair(conn);
    assert_eq!(assert_intact(&path).after_head_file, 1);
    let ledger = Ledger::open(&path, at(100)).expect("open");
    let events = ledger.reader().events().expect("events");
    assert_eq!(events.last().map(|event| event.what.as_str()), Some("head-behind"));
}

#[test]
fn rows_for_queries_that_were_edited_removed_or_added_are_named() {
    for (sql, place) in [
        ("UPDATE finding SET status = 'passed' WHERE status = 'failed'", "finding"),
        ("DELETE FROM finding WHERE status = 'failed'", "finding"),
        ("UPDATE task SET passed = 3, failed = 0, not_evaluated = 0", "task"),
        ("UPDATE run SET expected = 1", "run"),
        ("UPDATE run_end SET how = 'drained'", "run_end"),
        ("DELETE FROM task_evidence", "task_evidence"),
        ("UPDATE profile SET controls = 1", "profile"),
        ("INSERT INTO event VALUES (1, 'x', 'y')", "event"),
        ("UPDATE evidence SET bytes = x'00' WHERE encoding = 'identity'", "evidence"),
        ("UPDATE evidence SET bytes = zeroblob(9) WHERE encoding = 'deflate'", "evidence"),
        ("DELETE FROM evidence", "evidence"),
        ("DROP INDEX task_by_target", "schema"),
        ("CREATE VIEW v AS SELECT 1", "schema"),
    ] {
        let (_folder, path, _) = sample();
        let conn = attack(&path);
        conn.execute_batch(sql).expect(sql);
        repair(conn);
        let found = problems(&path);
        assert!(!found.is_empty() && found.iter().any(|(_, p)| p == place), "{sql}: {found:?}");
    }
    let (_folder, path, _) = sample();
    drop(attack(&path));
    assert!(problems(&path).iter().all(|(_, place)| place == "schema"), "dropped triggers");
    assert_eq!(problems(&path).len(), 18);
}

#[test]
fn evidence_that_is_not_what_it_was_is_never_handed_out() {
    let (_folder, path, _) = sample();
    let conn = attack(&path);
    conn.execute("UPDATE evidence SET bytes = x'0000' WHERE encoding = 'identity' AND length = 2", []).expect("edit");
    repair(conn);
    let reader = LedgerReader::open(&path).expect("open");
    let error = reader.evidence(&Digest::of(b"n1")).expect_err("edited");
    assert!(matches!(error, LedgerError::Evidence { .. }) && error.class() == ExitClass::Ledger);
}

#[test]
fn a_bomb_in_the_evidence_does_not_fill_the_memory() {
    use std::io::Write as _;
    let (_folder, path, _) = sample();
    let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::best());
    for _ in 0..64 {
        encoder.write_all(&[0; 1 << 20]).expect("deflate");
    }
    let bomb = encoder.finish().expect("deflate");
    let conn = attack(&path);
    conn.execute("UPDATE evidence SET bytes = ? WHERE encoding = 'deflate'", [bomb]).expect("edit");
    repair(conn);
    assert!(problems(&path).iter().any(|(_, place)| place == "evidence"));
}

#[test]
fn every_damaged_page_is_an_error_or_a_problem() {
    let (_folder, path, _) = sample();
    let whole = std::fs::read(&path).expect("read");
    let pages = whole.len() / 4096;
    assert!(pages > 10);
    for page in 0..pages {
        let mut damaged = whole.clone();
        damaged[page * 4096..(page + 1) * 4096].fill(0xa5);
        std::fs::write(&path, damaged).expect("write");
        match LedgerReader::open(&path).and_then(|reader| reader.verify()) {
            Ok(report) => assert!(!report.is_intact(), "page {page}"),
            Err(error) => assert_eq!(error.class(), ExitClass::Ledger, "page {page}: {error}"),
        }
    }
    for length in (0..whole.len()).step_by(4096) {
        std::fs::write(&path, &whole[..length]).expect("write");
        match LedgerReader::open(&path).and_then(|reader| reader.verify()) {
            Ok(report) => assert!(!report.is_intact(), "cut to {length}"),
            Err(error) => assert_eq!(error.class(), ExitClass::Ledger, "cut to {length}: {error}"),
        }
    }
}
