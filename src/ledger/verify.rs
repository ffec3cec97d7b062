//! Checking a whole ledger against itself.

use std::collections::{BTreeMap, HashMap, HashSet};

use jiff::Timestamp;
use rusqlite::Connection;
use rusqlite::types::Value;
use serde::Serialize;
use uuid::Uuid;

use super::append::{self, COLUMNS};
use super::chain::{self, Body, Entry};
use super::checkpoint::{self, Purpose};
use super::derive::{self, Table};
use super::error::{LedgerError, is_damage};
use super::evidence::{self, Kept};
use super::head::{self, Head, HeadFile, Standing};
use super::query::{LedgerReader, TaskKey, task_key};
use super::schema;
use crate::base::digest::Digest;
use crate::model::coverage::Coverage;
use crate::model::profile::Profile;
use crate::model::record::{RunId, TaskRecord};

/// How many problems are listed; one wrong digest near the beginning must not fill the screen.
const LISTED: usize = 100;

/// What a check of a whole ledger found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct VerifyReport {
    /// Whether nothing is wrong.
    pub intact: bool,
    /// The ledger, where its first entry can be read.
    pub ledger: Option<Uuid>,
    /// The last entry, where there is one.
    pub head: Option<Head>,
    /// Entries that were read.
    pub entries: u64,
    /// Runs among them.
    pub runs: u64,
    /// Results among them.
    pub tasks: u64,
    /// Signed checkpoints among them whose signature holds.
    pub checkpoints: u64,
    /// Pieces of evidence that have the digest they are kept by.
    pub evidence: u64,
    /// Entries that were committed after the head file was written.
    pub after_head_file: u64,
    /// Runs without an end.
    pub unfinished: Vec<RunId>,
    /// What is wrong, at most the first hundred.
    pub problems: Vec<Problem>,
    /// How many problems more there are.
    pub problems_omitted: u64,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Problem {
    /// The entry that it is about, where it is about one.
    pub entry: Option<u64>,
    /// Where: `chain`, `entry`, `checkpoint`, `head`, `schema`, `file`, `evidence`, `run`, or the name of a table.
    pub place: String,
    /// What, in a sentence.
    pub what: String,
}

impl VerifyReport {
    /// Whether nothing is wrong.
    pub fn is_intact(&self) -> bool {
        self.intact
    }

    fn add(&mut self, entry: Option<u64>, place: impl Into<String>, what: impl Into<String>) {
        self.intact = false;
        if self.problems.len() < LISTED {
            self.problems.push(Problem { entry, place: place.into(), what: what.into() });
        } else {
            self.problems_omitted += 1;
        }
    }
}

impl LedgerReader {
    /// Checks the whole ledger: the file's pages, the schema, the chain, signatures, the head file, evidence, coverage sums, that
    /// no run lost or doubled a task, and that every table for queries says what the entries say.
    ///
    /// # Errors
    /// Only when nothing can be said, because the file can't be read at all. Whatever is wrong with it is in the report.
    pub fn verify(&self) -> Result<VerifyReport, LedgerError> {
        let mut report = VerifyReport { intact: true, ..VerifyReport::default() };
        // The head file first: a writer may go on, and then the database is ahead of it, never behind.
        let head_file = match head::read(&self.path) {
            Ok(file) => file,
            Err(LedgerError::Head { detail, .. }) => {
                report.add(None, "head", detail);
                None
            }
            Err(other) => return Err(other),
        };
        // One snapshot for all that follows.
        let transaction = self.conn.unchecked_transaction().map_err(self.failed("verify"))?;
        let mut check = Check::new(&transaction, report);
        let outcome = check.run(head_file.as_ref());
        let mut report = check.report;
        match outcome {
            Ok(()) => Ok(report),
            Err(error) if is_damage(&error) => {
                report.add(None, "file", format!("it is damaged: {error}"));
                Ok(report)
            }
            Err(error) => Err(self.failed("verify")(error)),
        }
    }
}

struct Check<'c> {
    conn: &'c Connection,
    report: VerifyReport,
    key: Option<String>,
    profiles: HashMap<Digest, Profile>,
    runs: HashMap<RunId, Expected>,
    /// How many rows follow from the entries, by table.
    rows: BTreeMap<Table, u64>,
    named_evidence: HashSet<Digest>,
}

#[derive(Default)]
struct Expected {
    missing: HashSet<TaskKey>,
    ended: bool,
}

impl<'c> Check<'c> {
    fn new(conn: &'c Connection, report: VerifyReport) -> Self {
        Self {
            conn,
            report,
            key: None,
            profiles: HashMap::new(),
            runs: HashMap::new(),
            rows: BTreeMap::new(),
            named_evidence: HashSet::new(),
        }
    }

    fn run(&mut self, head_file: Option<&HeadFile>) -> rusqlite::Result<()> {
        self.file()?;
        for difference in schema::differences(self.conn)? {
            self.report.add(None, "schema", difference);
        }
        self.entries()?;
        self.row_counts()?;
        self.evidence()?;
        self.head(head_file)?;
        let mut unfinished: Vec<RunId> = self.runs.iter().filter(|(_, e)| !e.ended).map(|(run, _)| *run).collect();
        unfinished.sort();
        self.report.unfinished = unfinished;
        Ok(())
    }

    fn file(&mut self) -> rusqlite::Result<()> {
        for pragma in ["integrity_check", "foreign_key_check"] {
            let mut statement = self.conn.prepare(&format!("PRAGMA {pragma}"))?;
            let mut rows = statement.query([])?;
            while let Some(row) = rows.next()? {
                let what = match row.get::<_, Value>(0)? {
                    Value::Text(text) if text == "ok" => continue,
                    Value::Text(text) if pragma == "integrity_check" => text,
                    Value::Text(table) => format!("a row of the table {table} names one that is not there"),
                    other => format!("{other:?}"),
                };
                self.report.add(None, "file", what);
            }
        }
        Ok(())
    }

    fn entries(&mut self) -> rusqlite::Result<()> {
        let mut statement = self.conn.prepare(&format!("SELECT {COLUMNS} FROM entry ORDER BY seq"))?;
        let mut rows = statement.query([])?;
        let (mut seq, mut digest, mut at) = (0, chain::before_first(), None);
        while let Some(row) = rows.next()? {
            let entry = append::entry(row)?;
            self.link(&entry, seq, &digest);
            self.time(&entry, &mut at);
            self.body(&entry, &digest)?;
            (seq, digest) = (entry.seq, entry.digest);
            self.report.entries += 1;
        }
        match self.report.ledger {
            Some(ledger) => self.report.head = Some(Head { ledger, seq, digest }),
            None => self.report.add(Some(1), "chain", "the first entry, which names the ledger, is missing"),
        }
        Ok(())
    }

    fn link(&mut self, entry: &Entry, before: u64, digest: &Digest) {
        let seq = entry.seq;
        if seq != before + 1 {
            let last = seq - 1;
            let lost = if last == before + 1 {
                format!("entry {last} is")
            } else {
                format!("entries {} to {last} are", before + 1)
            };
            self.report.add(Some(seq), "chain", format!("{lost} missing before it"));
        } else if entry.prev != *digest {
            self.report.add(Some(seq), "chain", "it does not follow from the entry before it");
        }
        if chain::digest(seq, &entry.kind, &entry.at, &entry.prev, &entry.body) != entry.digest {
            self.report.add(Some(seq), "entry", "its content does not have its digest: it was edited");
        }
    }

    fn time(&mut self, entry: &Entry, last: &mut Option<Timestamp>) {
        match entry.at.parse::<Timestamp>() {
            Err(error) => self.report.add(Some(entry.seq), "entry", format!("its time can't be read: {error}")),
            Ok(at) if last.is_some_and(|last| at < last) => {
                self.report.add(Some(entry.seq), "entry", "its time is before that of the entry before it");
            }
            Ok(at) => *last = Some(at),
        }
    }

    fn body(&mut self, entry: &Entry, before: &Digest) -> rusqlite::Result<()> {
        let seq = entry.seq;
        let body = match Body::parse(&entry.kind, &entry.body) {
            Ok(body) => body,
            Err(error) => {
                let kind = crate::base::text::brief(&entry.kind);
                self.report.add(Some(seq), "entry", format!("its body is no {kind}: {error}"));
                return Ok(());
            }
        };
        match &body {
            Body::Genesis(genesis) if seq == 1 => {
                self.report.ledger = Some(genesis.ledger);
                self.key = Some(genesis.key.clone());
            }
            Body::Genesis(_) => self.report.add(Some(seq), "chain", "it is a first entry, and not the first"),
            Body::RunStart(start) => {
                self.report.runs += 1;
                let missing = start.expected.iter().map(task_key).collect();
                self.runs.insert(start.run, Expected { missing, ended: false });
            }
            Body::Profile(profile) => {
                self.profiles.insert(Digest::of(&entry.body), profile.clone());
            }
            Body::Task(task) => {
                self.report.tasks += 1;
                self.task(seq, task);
            }
            Body::RunEnd(ended) => {
                let what = match self.runs.get_mut(&ended.run) {
                    None => Some("it ends a run that was not begun".to_owned()),
                    Some(run) if run.ended => Some("it ends a run that had ended".to_owned()),
                    Some(run) => {
                        run.ended = true;
                        let lost = run.missing.len();
                        (lost > 0).then(|| format!("run {} ended without a result for {lost} of its tasks", ended.run))
                    }
                };
                if let Some(what) = what {
                    self.report.add(Some(seq), "run", what);
                }
            }
            Body::Event(_) => {}
            Body::Checkpoint(checkpoint) => {
                let head = &checkpoint.head;
                let key = self.key.as_deref().unwrap_or_default();
                if Some(head.ledger) != self.report.ledger || head.seq + 1 != seq || head.digest != *before {
                    self.report.add(Some(seq), "checkpoint", "what it signs is not the entry before it");
                } else if checkpoint::is_signed(Purpose::Checkpoint, head, key, &checkpoint.signature) {
                    self.report.checkpoints += 1;
                } else {
                    self.report.add(Some(seq), "checkpoint", "it is not signed by the runner's key");
                }
            }
        }
        self.rows(seq, &body)
    }

    fn task(&mut self, seq: u64, task: &TaskRecord) {
        match self.profiles.get(&task.profile.digest) {
            None => self.report.add(Some(seq), "run", "its profile is not in the ledger before it"),
            Some(profile) => match Coverage::of(profile, &task.findings) {
                Ok(coverage) if coverage == task.coverage => {}
                Ok(_) => self.report.add(Some(seq), "run", "its counts are not those of its findings"),
                Err(error) => self.report.add(Some(seq), "run", format!("its findings do not {error}")),
            },
        }
        let key = (task.target.key(), task.provenance.engine.name.clone(), task.profile.digest);
        match self.runs.get_mut(&task.run) {
            None => self.report.add(Some(seq), "run", "it belongs to a run that was not begun"),
            Some(run) if run.ended => self.report.add(Some(seq), "run", "it was recorded after its run had ended"),
            Some(run) => {
                if !run.missing.remove(&key) {
                    self.report.add(Some(seq), "run", "its run does not expect it, or has another result for it");
                }
            }
        }
        self.named_evidence.extend(task.evidence.iter().map(|kept| kept.digest));
    }

    /// Compares the rows for queries that follow from one entry with those that are there.
    fn rows(&mut self, seq: u64, body: &Body) -> rusqlite::Result<()> {
        let mut expected: BTreeMap<Table, Vec<Vec<Value>>> = BTreeMap::new();
        for row in derive::rows(seq, body) {
            expected.entry(row.table).or_default().push(row.values);
        }
        for (table, rows) in expected {
            *self.rows.entry(table).or_default() += rows.len() as u64;
            let mut statement = self.conn.prepare_cached(table.select())?;
            let columns = statement.column_count();
            let found: Vec<Vec<Value>> = statement
                .query_map([seq], |row| (0..columns).map(|column| row.get(column)).collect())?
                .collect::<rusqlite::Result<_>>()?;
            if found != rows {
                let what = match found.len().cmp(&rows.len()) {
                    std::cmp::Ordering::Less => format!("{} of its rows are missing", rows.len() - found.len()),
                    std::cmp::Ordering::Greater => format!("{} rows are too many", found.len() - rows.len()),
                    std::cmp::Ordering::Equal => "a row does not say what the entry says: it was edited".to_owned(),
                };
                self.report.add(Some(seq), table.name(), what);
            }
        }
        Ok(())
    }

    /// Finds rows for queries that follow from no entry.
    fn row_counts(&mut self) -> rusqlite::Result<()> {
        for table in Table::ALL {
            let expected = self.rows.get(&table).copied().unwrap_or(0);
            let count: u64 =
                self.conn.query_row(&format!("SELECT count(*) FROM {}", table.name()), [], |row| row.get(0))?;
            if count > expected {
                self.report.add(None, table.name(), format!("{} rows in it follow from no entry", count - expected));
            }
        }
        Ok(())
    }

    fn evidence(&mut self) -> rusqlite::Result<()> {
        let digests: Vec<String> = {
            let mut statement = self.conn.prepare("SELECT digest FROM evidence ORDER BY rowid")?;
            statement.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?
        };
        let mut kept = HashSet::new();
        for text in digests {
            let Ok(digest) = text.parse::<Digest>() else {
                self.report.add(None, "evidence", format!("`{}` is no digest", crate::base::text::brief(&text)));
                continue;
            };
            kept.insert(digest);
            match evidence::fetch(self.conn, &digest, &mut std::io::sink())? {
                Kept::Whole => self.report.evidence += 1,
                Kept::Absent => self.report.add(None, "evidence", format!("{digest} is not there")),
                Kept::Damaged(what) => self.report.add(None, "evidence", format!("{digest}: {what}")),
            }
            if !self.named_evidence.contains(&digest) {
                self.report.add(None, "evidence", format!("{digest} belongs to no result"));
            }
        }
        let mut missing: Vec<Digest> = self.named_evidence.difference(&kept).copied().collect();
        missing.sort();
        for digest in missing {
            self.report.add(None, "evidence", format!("{digest} is missing"));
        }
        Ok(())
    }

    fn head(&mut self, file: Option<&HeadFile>) -> rusqlite::Result<()> {
        let (Some(head), Some(key)) = (self.report.head.clone(), self.key.clone()) else { return Ok(()) };
        let digest_of = |seq| Ok(append::entry_at(self.conn, seq)?.map(|entry| entry.digest));
        match head::compare(file, &key, &head, digest_of)? {
            Standing::Level => {}
            Standing::Behind(by) => self.report.after_head_file = by,
            Standing::Missing if self.report.problems.iter().any(|problem| problem.place == "head") => {}
            Standing::Missing => {
                let what = "the head file is missing, so that nothing says whether the tail is still there";
                self.report.add(None, "head", what);
            }
            Standing::Contradicts(detail) => self.report.add(Some(head.seq), "head", detail),
        }
        Ok(())
    }
}
