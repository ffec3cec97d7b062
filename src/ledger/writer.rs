//! Writing a ledger.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use rusqlite::{Connection, TransactionBehavior};

use super::append::Tail;
use super::chain::{self, Body, Genesis, RunEnded};
use super::checkpoint::{self, Checkpoint, CheckpointSigner, Purpose, RunnerKey};
use super::error::LedgerError;
use super::head::{self, Head, Standing};
use super::lock::WriterLock;
use super::query::{self, LedgerReader, TaskKey, task_key};
use super::schema::{self, Found, beside};
use super::{append, evidence};
use crate::base::digest::Digest;
use crate::model::profile::Profile;
use crate::model::record::{CheckedTask, Event, ExpectedTask, RunEnd, RunId, RunStart};

/// How far a time may lie before that of the last entry without being called a clock that was moved back: what is recorded
/// by several tasks at once does not arrive in the order in which it was stamped.
const INTERLEAVING: Duration = Duration::from_secs(5);

/// A ledger that this process, and no other, may append to until it is dropped.
///
/// Each method that records is one transaction: when it gives an error, nothing of it was recorded, except that an error
/// which names the head file comes after the commit.
pub struct Ledger {
    reader: LedgerReader,
    signer: Box<dyn CheckpointSigner>,
    tail: Tail,
    /// The latest time that a caller named, to notice a clock that is moved back while the ledger is open.
    clock: Timestamp,
    open_runs: HashMap<RunId, OpenRun>,
    _lock: WriterLock,
}

/// A run that goes on.
struct OpenRun {
    started: Timestamp,
    /// The expected tasks that have no result yet.
    missing: HashSet<TaskKey>,
    recorded: HashSet<TaskKey>,
}

impl Ledger {
    /// Opens the ledger at `path` for writing, and makes it where there is none. `now` is noted if it lies before the last
    /// entry.
    ///
    /// # Errors
    /// When another process writes to it; when it can't be opened or made; when it is no ledger, or a newer gapscan made it;
    /// when the key is missing or another; when the database does not hold all that the head file says.
    pub fn open(path: &Path, now: Timestamp) -> Result<Self, LedgerError> {
        if path.is_dir() {
            return Err(LedgerError::Folder { path: path.to_owned() });
        }
        let lock = WriterLock::take(path)?;
        let head_file = head::read(path)?;
        let gone = |seq: u64| LedgerError::Head {
            path: path.to_owned(),
            detail: format!("it had come to entry {seq}, and the database is empty or gone"),
        };
        if let Some(file) = head_file.as_ref().filter(|_| !path.exists()) {
            return Err(gone(file.head.seq));
        }
        let (mut conn, found) = schema::open_for_writing(path)?;
        let key_path = beside(path, "key");
        let Found::Ledger(version) = found else {
            if let Some(file) = head_file {
                return Err(gone(file.head.seq));
            }
            // A process that was killed right after it made the key has left one without a ledger.
            let key = if key_path.exists() { RunnerKey::load(&key_path)? } else { RunnerKey::create(&key_path)? };
            let tail = create(&mut conn, &key, now).map_err(LedgerError::write(path, "make the first entry"))?;
            return Self {
                reader: LedgerReader { conn, path: path.to_owned() },
                signer: Box::new(key),
                clock: now,
                tail,
                open_runs: HashMap::new(),
                _lock: lock,
            }
            .with_head_written();
        };
        if version < schema::KNOWN {
            let migrated = (|| {
                let transaction = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
                schema::migrate(&transaction, version)?;
                transaction.commit()
            })();
            migrated.map_err(LedgerError::write(path, "bring the schema up to date"))?;
        }
        let key = RunnerKey::load(&key_path)?;
        let read_ends = || -> rusqlite::Result<(Genesis, Head, Timestamp)> {
            let (head, at) = query::head(&conn)?;
            Ok((query::genesis(&conn)?, head, at))
        };
        let (genesis, head, at) = read_ends().map_err(LedgerError::read(path, "read its first and last entry"))?;
        if checkpoint::key_text(&key) != genesis.key {
            let detail = "it is not the key that this ledger began with".to_owned();
            return Err(LedgerError::Key { path: key_path, detail });
        }
        let digest_of = |seq| Ok(append::entry_at(&conn, seq)?.map(|entry| entry.digest));
        let standing = head::compare(head_file.as_ref(), &genesis.key, &head, digest_of)
            .map_err(LedgerError::read(path, "read the entry of the head file"))?;
        let behind = match standing {
            Standing::Level => 0,
            Standing::Behind(by) => by,
            // Killed after the first commit, before the head file was there.
            Standing::Missing if head.seq == 1 => 1,
            Standing::Missing => {
                let detail =
                    "its head file is missing, so that nothing says whether the tail is still there".to_owned();
                return Err(LedgerError::Head { path: path.to_owned(), detail });
            }
            Standing::Contradicts(detail) => return Err(LedgerError::Head { path: path.to_owned(), detail }),
        };
        let mut ledger = Self {
            reader: LedgerReader { conn, path: path.to_owned() },
            signer: Box::new(key),
            clock: at,
            tail: Tail { head: head.clone(), at },
            open_runs: HashMap::new(),
            _lock: lock,
        };
        if behind > 0 && head.seq > 1 {
            let detail = format!(
                "the last {behind} entries up to entry {} were committed, but not in the head file: the writer was killed in \
                 between, or somebody else appended them",
                head.seq
            );
            ledger.append("note where the head file stood", now, |tail, conn| {
                let what = "head-behind".to_owned();
                let subject = head.ledger.to_string();
                tail.append(conn, now, &Body::Event(Event { at: now, what, subject, due: None, detail })).map(|_| ())
            })?;
        } else {
            ledger.append("note the clock", now, |_, _| Ok(()))?;
        }
        if behind > 0 { ledger.with_head_written() } else { Ok(ledger) }
    }

    /// What is recorded so far.
    pub fn reader(&self) -> &LedgerReader {
        &self.reader
    }

    /// Records what a run is to do, before it does any of it, with the profiles that it goes by.
    ///
    /// # Errors
    /// When it can't be written; when the run was begun before, expects a task twice, or expects one by a profile that is
    /// neither in `profiles` nor in the ledger.
    pub fn begin_run(&mut self, start: &RunStart, profiles: &[Profile]) -> Result<(), LedgerError> {
        let what = format!("begin run {}", start.run);
        let contradiction = |why: String| self.contradiction(&what, why);
        if self.reader.run(start.run)?.is_some() {
            return Err(contradiction("it was begun before".to_owned()));
        }
        let mut missing = HashSet::new();
        if let Some(twice) = start.expected.iter().find(|task| !missing.insert(task_key(task))) {
            let (target, engine, profile) = (&twice.target, &twice.engine, &twice.profile.name);
            return Err(contradiction(format!("it expects `{target}` by {engine} and {profile} twice")));
        }
        let mut new: Vec<(Digest, &Profile)> = Vec::new();
        for task in &start.expected {
            let digest = task.profile.digest;
            if new.iter().any(|(known, _)| *known == digest) || self.reader.profile(&digest)?.is_some() {
                continue;
            }
            match profiles.iter().find(|profile| profile.digest() == digest) {
                Some(profile) => new.push((digest, profile)),
                None => return Err(contradiction(format!("the profile `{}` is not given", task.profile.name))),
            }
        }
        self.append(&what, start.started, |tail, conn| {
            for (_, profile) in new {
                tail.append(conn, start.started, &Body::Profile(profile.clone()))?;
            }
            tail.append(conn, start.started, &Body::RunStart(start.clone())).map(|_| ())
        })?;
        let recorded = HashSet::new();
        self.open_runs.insert(start.run, OpenRun { started: start.started, missing, recorded });
        Ok(())
    }

    /// Records the result of one task with its evidence.
    ///
    /// # Errors
    /// When it can't be written; when its run was not begun or has ended, does not expect it, or has its result.
    pub fn record(&mut self, task: &CheckedTask) -> Result<(), LedgerError> {
        let record = task.record();
        let (target, engine) = (record.target.key(), record.provenance.engine.name.clone());
        let what = format!("record the result of `{target}` by {engine} and {}", record.profile.name);
        let key = (target, engine, record.profile.digest);
        let started = {
            let run = self.open_run(record.run, &what)?;
            let (expected, recorded) = (run.missing.contains(&key), run.recorded.contains(&key));
            let started = run.started;
            match (expected, recorded) {
                (true, _) => started,
                (false, true) => return Err(self.contradiction(&what, "it has a result in this run".to_owned())),
                (false, false) => return Err(self.contradiction(&what, "this run does not expect it".to_owned())),
            }
        };
        let finished = record.provenance.known_at();
        let set_back = finished < started;
        let (kept, folder) = (task.evidence(), self.reader.folder().to_owned());
        self.append_plain(&what, |tail, conn| {
            if set_back {
                let detail = format!("run {} began at {started}, and a task of it ended at {finished}", record.run);
                tail.append(conn, finished, &clock_moved_back(tail.head.ledger.to_string(), finished, detail))?;
            }
            for evidence in kept {
                evidence::keep(conn, evidence, &folder)?;
            }
            tail.append(conn, finished, &Body::Task(Box::new(record.clone()))).map(|_| ())
        })?;
        if let Some(run) = self.open_runs.get_mut(&record.run) {
            run.missing.remove(&key);
            run.recorded.insert(key);
        }
        Ok(())
    }

    /// Records the end of a run, and a signed checkpoint after it.
    ///
    /// # Errors
    /// When it can't be written; when the run was not begun or has ended, or expects a task that has no result.
    pub fn end_run(&mut self, run: RunId, end: RunEnd, at: Timestamp) -> Result<(), LedgerError> {
        let what = format!("end run {run}");
        let missing = self.open_run(run, &what)?.missing.len();
        if missing > 0 {
            return Err(self.contradiction(&what, format!("{missing} of its tasks have no result")));
        }
        self.append(&what, at, |tail, conn| {
            tail.append(conn, at, &Body::RunEnd(RunEnded { run, end, at })).map(|_| ())
        })?;
        self.open_runs.remove(&run);
        self.checkpoint(at)
    }

    /// Records an event.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn event(&mut self, event: &Event) -> Result<(), LedgerError> {
        self.append(&format!("record event `{}`", crate::base::text::brief(&event.what)), event.at, |tail, conn| {
            tail.append(conn, event.at, &Body::Event(event.clone())).map(|_| ())
        })
    }

    /// Appends a signature over all entries so far.
    ///
    /// # Errors
    /// When it can't be signed or written.
    pub fn checkpoint(&mut self, at: Timestamp) -> Result<(), LedgerError> {
        let head = self.tail.head.clone();
        let signature = checkpoint::sign(&*self.signer, Purpose::Checkpoint, &head)
            .map_err(|detail| LedgerError::Key { path: beside(&self.reader.path, "key"), detail })?;
        self.append_plain("make a checkpoint", |tail, conn| {
            tail.append(conn, at, &Body::Checkpoint(Checkpoint { head, signature })).map(|_| ())
        })
    }

    /// [`LedgerReader::unfinished_runs`]. When a runner starts, these died: it records
    /// [`crate::model::reason::Reason::RunnerInterrupted`] for what is missing and ends them as [`RunEnd::Interrupted`].
    ///
    /// # Errors
    /// When they can't be read.
    pub fn unfinished_runs(&self) -> Result<Vec<(RunStart, Vec<ExpectedTask>)>, LedgerError> {
        self.reader.unfinished_runs()
    }

    /// [`LedgerReader::profile`]
    ///
    /// # Errors
    /// When it can't be read.
    pub fn profile(&self, digest: &Digest) -> Result<Option<Profile>, LedgerError> {
        self.reader.profile(digest)
    }

    fn open_run(&mut self, run: RunId, what: &str) -> Result<&OpenRun, LedgerError> {
        if !self.open_runs.contains_key(&run) {
            // Begun by a process before this one.
            let unfinished = self.reader.unfinished_runs()?;
            let Some((start, missing)) = unfinished.into_iter().find(|(start, _)| start.run == run) else {
                return Err(self.contradiction(what, format!("run {run} was not begun, or has ended")));
            };
            let missing: HashSet<TaskKey> = missing.iter().map(task_key).collect();
            let recorded = start.expected.iter().map(task_key).filter(|key| !missing.contains(key)).collect();
            self.open_runs.insert(run, OpenRun { started: start.started, missing, recorded });
        }
        Ok(&self.open_runs[&run])
    }

    fn contradiction(&self, what: &str, why: String) -> LedgerError {
        LedgerError::Contradiction { path: self.reader.path.clone(), what: what.to_owned(), why }
    }

    /// Appends what `fill` appends in one transaction, preceded by an event if the time `at` that the caller's clock shows
    /// lies before what it showed last.
    fn append(
        &mut self,
        what: &str,
        at: Timestamp,
        fill: impl FnOnce(&mut Tail, &Connection) -> rusqlite::Result<()>,
    ) -> Result<(), LedgerError> {
        let last = self.clock;
        let set_back = at.checked_add(INTERLEAVING).is_ok_and(|latest| latest < last);
        self.append_plain(what, |tail, conn| {
            if set_back {
                let detail = format!("the clock showed {last} before, and shows {at} now");
                tail.append(conn, at, &clock_moved_back(tail.head.ledger.to_string(), at, detail))?;
            }
            fill(tail, conn)
        })?;
        self.clock = if set_back { at } else { last.max(at) };
        Ok(())
    }

    fn append_plain(
        &mut self,
        what: &str,
        fill: impl FnOnce(&mut Tail, &Connection) -> rusqlite::Result<()>,
    ) -> Result<(), LedgerError> {
        let mut tail = self.tail.clone();
        let commit = || {
            let transaction = self.reader.conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
            fill(&mut tail, &transaction)?;
            transaction.commit()
        };
        commit().map_err(LedgerError::write(&self.reader.path, what))?;
        let moved = tail.head.seq > self.tail.head.seq;
        self.tail = tail;
        if moved { head::write(&self.reader.path, &self.tail.head, &*self.signer) } else { Ok(()) }
    }

    fn with_head_written(self) -> Result<Self, LedgerError> {
        head::write(&self.reader.path, &self.tail.head, &*self.signer)?;
        Ok(self)
    }
}

impl std::fmt::Debug for Ledger {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ledger").field("path", &self.reader.path).field("tail", &self.tail).finish_non_exhaustive()
    }
}

fn clock_moved_back(subject: String, at: Timestamp, detail: String) -> Body {
    Body::Event(Event { at, what: "clock-moved-back".to_owned(), subject, due: None, detail })
}

/// Makes the tables and the first entry in one transaction: a file that has the one has the other.
fn create(conn: &mut Connection, signer: &dyn CheckpointSigner, now: Timestamp) -> rusqlite::Result<Tail> {
    let transaction = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
    schema::migrate(&transaction, 0)?;
    let ledger = checkpoint::new_ledger_id();
    let mut tail = Tail { head: Head { ledger, seq: 0, digest: chain::before_first() }, at: now };
    let genesis = Genesis {
        ledger,
        created: now,
        schema: schema::KNOWN,
        gapscan: env!("CARGO_PKG_VERSION").to_owned(),
        key: checkpoint::key_text(signer),
    };
    tail.append(&transaction, now, &Body::Genesis(genesis))?;
    transaction.commit()?;
    Ok(tail)
}
