//! Reading a ledger.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use rusqlite::{Connection, Row};

use super::append::{self, damaged};
use super::chain::{Body, Genesis, RunEnded};
use super::error::LedgerError;
use super::evidence::{self, Kept};
use super::head::Head;
use super::schema;
use crate::base::digest::Digest;
use crate::model::coverage::Coverage;
use crate::model::outcome::Status;
use crate::model::profile::{Profile, ProfileRef};
use crate::model::provenance::BundleRef;
use crate::model::record::{Event, ExpectedTask, RUN_RESUMED, RunId, RunStart, TaskRecord};

/// A ledger to read from. It sees what was committed before each call, also while another process writes.
///
/// Each body that it hands out has the digest that was recorded with it. Whether the digests are those of one whole chain
/// that the runner signed, only [`LedgerReader::verify`] says.
#[derive(Debug)]
pub struct LedgerReader {
    pub(super) conn: Connection,
    pub(super) path: PathBuf,
}

/// One run as a whole.
#[derive(Clone, Debug, PartialEq)]
pub struct RunRecord {
    /// What it was to do.
    pub start: RunStart,
    /// How it ended; absent while it goes on, and when it died and nobody has closed it yet.
    pub end: Option<RunEnded>,
    /// When it was taken up again after its runner had died, the oldest first.
    pub resumed: Vec<Timestamp>,
    /// How many of its expected tasks have a result.
    pub tasks: u64,
    /// The sum over these.
    pub coverage: Coverage,
}

/// The result of one task without its findings.
#[derive(Clone, Debug, PartialEq)]
pub struct TaskSummary {
    /// The number of its entry: names this result in [`LedgerReader::task`] and [`LedgerReader::changes`].
    pub seq: u64,
    /// The run that it belongs to.
    pub run: RunId,
    /// [`crate::model::target::Target::key`]
    pub target: String,
    /// The engine's or scanner's name.
    pub engine: String,
    /// By which profile.
    pub profile: ProfileRef,
    /// When it began.
    pub started: Timestamp,
    /// When it ended.
    pub finished: Timestamp,
    /// The count of outcomes.
    pub coverage: Coverage,
}

/// A control that did not end as before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The control's id.
    pub control: String,
    /// How it ended before; absent where it was not expected.
    pub before: Option<Status>,
    /// How it ended now; absent where it is not expected any more.
    pub after: Option<Status>,
}

const SUMMARY: &str = "seq, run, target, engine, profile, profile_version, profile_digest, started, finished, \
     passed, failed, not_applicable, waived, not_evaluated, expected";

/// The latest result of each (target, engine, profile name).
const LATEST: &str = "SELECT max(task.seq) FROM task JOIN run ON run.run = task.run \
     WHERE NOT EXISTS (SELECT 1 FROM run AS later JOIN run_end ON run_end.run = later.run \
                       WHERE later.series = run.series AND later.seq > run.seq) \
     GROUP BY target, engine, profile ORDER BY target, engine, profile";

impl LedgerReader {
    /// Opens the ledger at `path`, which is not changed by anything that is done with the reader.
    ///
    /// # Errors
    /// When there is none, it can't be read, it is no ledger, or a newer gapscan made it.
    pub fn open(path: &Path) -> Result<Self, LedgerError> {
        Ok(Self { conn: schema::open_for_reading(path)?, path: path.to_owned() })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The folder that it is in.
    pub fn folder(&self) -> &Path {
        self.path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
    }

    /// The first entry: which ledger this is.
    ///
    /// # Errors
    /// When it can't be read.
    pub fn genesis(&self) -> Result<Genesis, LedgerError> {
        genesis(&self.conn).map_err(self.failed("read the first entry"))
    }

    /// How far the ledger has come.
    ///
    /// # Errors
    /// When it can't be read.
    pub fn head(&self) -> Result<Head, LedgerError> {
        head(&self.conn).map(|(head, _)| head).map_err(self.failed("read the last entry"))
    }

    /// The time of the last entry, and so the latest that was recorded: entries keep the order of their times, also where the
    /// clock is set back.
    ///
    /// # Errors
    /// When it can't be read.
    pub fn last_at(&self) -> Result<Timestamp, LedgerError> {
        head(&self.conn).map(|(_, at)| at).map_err(self.failed("read the last entry"))
    }

    /// The newest runs, the newest first, at most `limit`.
    ///
    /// # Errors
    /// When they can't be read.
    pub fn runs(&self, limit: usize) -> Result<Vec<RunRecord>, LedgerError> {
        let sql = "SELECT seq FROM run ORDER BY seq DESC LIMIT ?";
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let read = || -> rusqlite::Result<Vec<RunRecord>> {
            let resumed = self.resumptions()?;
            self.seqs(sql, [limit])?.into_iter().map(|seq| self.run_at(seq, &resumed)).collect()
        };
        read().map_err(self.failed("list runs"))
    }

    /// One run.
    ///
    /// # Errors
    /// When it can't be read.
    pub fn run(&self, run: RunId) -> Result<Option<RunRecord>, LedgerError> {
        let read = || -> rusqlite::Result<Option<RunRecord>> {
            let seqs = self.seqs("SELECT seq FROM run WHERE run = ?", [run.to_string()])?;
            seqs.first().map(|seq| self.run_at(*seq, &self.resumptions()?)).transpose()
        };
        read().map_err(self.failed(format!("read run {run}")))
    }

    /// The latest result of each (target, engine, profile name), in the order of these. A run that ended replaces all earlier
    /// runs of its series ([`RunStart::series`]): a pod that is gone, or a cluster that did not answer then, is not in the
    /// latest results for ever.
    ///
    /// # Errors
    /// When they can't be read.
    pub fn latest(&self) -> Result<Vec<TaskRecord>, LedgerError> {
        self.tasks(LATEST, []).map_err(self.failed("read the latest results"))
    }

    /// Those of [`LedgerReader::latest`] in which something is waived.
    ///
    /// # Errors
    /// When they can't be read.
    pub fn latest_waived(&self) -> Result<Vec<TaskRecord>, LedgerError> {
        let sql = format!("SELECT seq FROM task WHERE waived > 0 AND seq IN ({LATEST}) ORDER BY seq");
        self.tasks(&sql, []).map_err(self.failed("read the latest results with waivers"))
    }

    /// The results of one run, in the order of target, engine and profile.
    ///
    /// # Errors
    /// When they can't be read.
    pub fn tasks_of(&self, run: RunId) -> Result<Vec<TaskRecord>, LedgerError> {
        let sql = "SELECT seq FROM task WHERE run = ? ORDER BY target, engine, profile, seq";
        self.tasks(sql, [run.to_string()]).map_err(self.failed(format!("read results of run {run}")))
    }

    /// One result by the number of its entry.
    ///
    /// # Errors
    /// When it can't be read.
    pub fn task(&self, seq: u64) -> Result<Option<TaskRecord>, LedgerError> {
        self.tasks("SELECT seq FROM task WHERE seq = ?", [seq])
            .map(|mut tasks| tasks.pop())
            .map_err(self.failed(format!("read result {seq}")))
    }

    /// The newest result that rests on the evidence of this digest.
    ///
    /// # Errors
    /// When it can't be read.
    pub fn newest_resting_on(&self, evidence: &Digest) -> Result<Option<TaskRecord>, LedgerError> {
        let sql = "SELECT seq FROM task_evidence WHERE digest = ? ORDER BY seq DESC LIMIT 1";
        self.tasks(sql, [evidence.to_string()])
            .map(|mut tasks| tasks.pop())
            .map_err(self.failed(format!("read what rests on {evidence}")))
    }

    /// Earlier results of the same target, engine and profile that were come by in another way than this one, the newest of
    /// each way, of the last few.
    ///
    /// # Errors
    /// When they can't be read.
    pub fn in_other_ways(&self, record: &TaskRecord) -> Result<Vec<TaskRecord>, LedgerError> {
        // Somebody who goes back and forth has both among so many.
        let sql = "SELECT seq FROM task WHERE target = ? AND engine = ? AND profile = ? ORDER BY seq DESC LIMIT 4";
        let (target, engine) = (record.target.key(), &record.provenance.engine.name);
        let mut tasks = self
            .tasks(sql, [&target, engine, &record.profile.name])
            .map_err(self.failed(format!("read results of {}", crate::base::text::brief(&target))))?;
        let mut ways = HashSet::from([record.provenance.approach]);
        tasks.retain(|task| ways.insert(task.provenance.approach));
        Ok(tasks)
    }

    /// The results of one target ([`crate::model::target::Target::key`]) that rest on the evidence of this digest, the oldest
    /// first.
    ///
    /// # Errors
    /// When they can't be read.
    pub fn resting_on(&self, evidence: &Digest, target: &str) -> Result<Vec<TaskRecord>, LedgerError> {
        let sql = "SELECT DISTINCT task.seq FROM task_evidence JOIN task ON task.seq = task_evidence.seq \
             WHERE task_evidence.digest = ? AND task.target = ? ORDER BY task.seq";
        self.tasks(sql, [evidence.to_string(), target.to_owned()])
            .map_err(self.failed(format!("read what rests on {evidence}")))
    }

    /// The profile of this name that was recorded last.
    ///
    /// # Errors
    /// When it can't be read.
    pub fn newest_profile(&self, name: &str) -> Result<Option<Profile>, LedgerError> {
        let read = || -> rusqlite::Result<Option<Profile>> {
            for seq in self.seqs("SELECT seq FROM profile WHERE name = ? ORDER BY seq DESC LIMIT 1", [name])? {
                if let Body::Profile(profile) = body_at(&self.conn, seq)? {
                    return Ok(Some(profile));
                }
            }
            Ok(None)
        };
        read().map_err(self.failed(format!("read profile {}", crate::base::text::brief(name))))
    }

    /// All results of one target ([`crate::model::target::Target::key`]), the oldest first.
    ///
    /// # Errors
    /// When they can't be read.
    pub fn history(&self, target: &str) -> Result<Vec<TaskSummary>, LedgerError> {
        let read = || {
            let sql = format!("SELECT {SUMMARY} FROM task WHERE target = ? ORDER BY seq");
            let mut statement = self.conn.prepare_cached(&sql)?;
            statement.query_map([target], summary)?.collect::<rusqlite::Result<Vec<_>>>()
        };
        read().map_err(self.failed("read history"))
    }

    /// The keys of all targets that have a result, in order.
    ///
    /// # Errors
    /// When they can't be read.
    pub fn targets(&self) -> Result<Vec<String>, LedgerError> {
        let read = || {
            let mut statement = self.conn.prepare_cached("SELECT DISTINCT target FROM task ORDER BY target")?;
            statement.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<Vec<_>>>()
        };
        read().map_err(self.failed("list targets"))
    }

    /// The controls that ended otherwise in the result `after` than in the result `before`, in the order of their ids.
    ///
    /// # Errors
    /// When they can't be read.
    pub fn changes(&self, before: u64, after: u64) -> Result<Vec<Change>, LedgerError> {
        let read = || {
            let sql = "SELECT coalesce(b.control, a.control) AS control, b.status, a.status
                FROM (SELECT control, status FROM finding WHERE seq = ?1) AS b
                FULL JOIN (SELECT control, status FROM finding WHERE seq = ?2) AS a ON a.control = b.control
                WHERE a.status IS NOT b.status ORDER BY 1";
            let mut statement = self.conn.prepare_cached(sql)?;
            statement
                .query_map([before, after], |row| {
                    Ok(Change { control: row.get(0)?, before: status(row, 1)?, after: status(row, 2)? })
                })?
                .collect::<rusqlite::Result<Vec<_>>>()
        };
        read().map_err(self.failed("compare results"))
    }

    /// The bundles that the last results by each engine and profile come from, each with the time of the last one. What was
    /// used last is among them, and with it the highest version, for nobody goes back without a permit.
    ///
    /// # Errors
    /// When they can't be read.
    pub fn bundles(&self) -> Result<Vec<(BundleRef, Timestamp)>, LedgerError> {
        let sql = "SELECT max(seq) FROM task GROUP BY engine, profile_digest ORDER BY 1";
        let tasks = self.tasks(sql, []).map_err(self.failed("list the bundles of results"))?;
        let mut latest: HashMap<BundleRef, Timestamp> = HashMap::new();
        for task in tasks {
            if let Some(bundle) = task.provenance.bundle {
                let at = latest.entry(bundle).or_insert(task.provenance.finished);
                *at = task.provenance.finished.max(*at);
            }
        }
        let mut bundles: Vec<_> = latest.into_iter().collect();
        bundles.sort_by(|(a, _), (b, _)| {
            (&a.name, a.version, a.digest, a.root).cmp(&(&b.name, b.version, b.digest, b.root))
        });
        Ok(bundles)
    }

    /// All events, the oldest first.
    ///
    /// # Errors
    /// When they can't be read.
    pub fn events(&self) -> Result<Vec<Event>, LedgerError> {
        let read = || -> rusqlite::Result<Vec<Event>> {
            let mut events = Vec::new();
            for seq in self.seqs("SELECT seq FROM event ORDER BY seq", [])? {
                if let Body::Event(event) = body_at(&self.conn, seq)? {
                    events.push(event);
                }
            }
            Ok(events)
        };
        read().map_err(self.failed("read events"))
    }

    /// The profile of this digest.
    ///
    /// # Errors
    /// When it can't be read.
    pub fn profile(&self, digest: &Digest) -> Result<Option<Profile>, LedgerError> {
        let read = || -> rusqlite::Result<Option<Profile>> {
            for seq in self.seqs("SELECT seq FROM profile WHERE digest = ?", [digest.to_string()])? {
                if let Body::Profile(profile) = body_at(&self.conn, seq)? {
                    return Ok(Some(profile));
                }
            }
            Ok(None)
        };
        read().map_err(self.failed(format!("read profile {digest}")))
    }

    /// The evidence of this digest: exactly the bytes that have it.
    ///
    /// # Errors
    /// When it can't be read, and when what is kept does not have that digest.
    pub fn evidence(&self, digest: &Digest) -> Result<Option<Vec<u8>>, LedgerError> {
        let mut bytes = Vec::new();
        let fetched = evidence::fetch(&self.conn, digest, &mut bytes);
        match fetched.map_err(self.failed(format!("read evidence {digest}")))? {
            Kept::Absent => Ok(None),
            Kept::Whole => Ok(Some(bytes)),
            Kept::Damaged(detail) => Err(LedgerError::Evidence { path: self.path.clone(), digest: *digest, detail }),
        }
    }

    /// Runs that have no end, the oldest first, each with those of its tasks that have no result: what a runner that died
    /// left behind, or what one that is alive still does.
    ///
    /// # Errors
    /// When they can't be read.
    pub fn unfinished_runs(&self) -> Result<Vec<(RunStart, Vec<ExpectedTask>)>, LedgerError> {
        let read = || -> rusqlite::Result<Vec<_>> {
            let sql = "SELECT seq FROM run WHERE run NOT IN (SELECT run FROM run_end) ORDER BY seq";
            let mut unfinished = Vec::new();
            for seq in self.seqs(sql, [])? {
                if let Body::RunStart(start) = body_at(&self.conn, seq)? {
                    let done = done(&self.conn, start.run)?;
                    let missing =
                        start.expected.iter().filter(|task| !done.contains(&task_key(task))).cloned().collect();
                    unfinished.push((start, missing));
                }
            }
            Ok(unfinished)
        };
        read().map_err(self.failed("list unfinished runs"))
    }

    pub(super) fn failed(&self, what: impl Into<String>) -> impl FnOnce(rusqlite::Error) -> LedgerError {
        LedgerError::read(&self.path, what)
    }

    fn seqs(&self, sql: &str, params: impl rusqlite::Params) -> rusqlite::Result<Vec<u64>> {
        self.conn.prepare_cached(sql)?.query_map(params, |row| row.get(0))?.collect()
    }

    fn tasks(&self, sql: &str, params: impl rusqlite::Params) -> rusqlite::Result<Vec<TaskRecord>> {
        let mut tasks = Vec::new();
        for seq in self.seqs(sql, params)? {
            if let Body::Task(task) = body_at(&self.conn, seq)? {
                tasks.push(*task);
            }
        }
        Ok(tasks)
    }

    /// When each run was resumed, for those that were: one look at all events.
    fn resumptions(&self) -> rusqlite::Result<HashMap<String, Vec<Timestamp>>> {
        let mut all: HashMap<String, Vec<Timestamp>> = HashMap::new();
        for seq in self.seqs("SELECT seq FROM event WHERE what = ? ORDER BY seq", [RUN_RESUMED])? {
            if let Body::Event(event) = body_at(&self.conn, seq)? {
                all.entry(event.subject).or_default().push(event.at);
            }
        }
        Ok(all)
    }

    fn run_at(&self, seq: u64, resumed: &HashMap<String, Vec<Timestamp>>) -> rusqlite::Result<RunRecord> {
        let Body::RunStart(start) = body_at(&self.conn, seq)? else {
            return Err(rusqlite::Error::QueryReturnedNoRows);
        };
        let run = start.run.to_string();
        let mut end = None;
        for seq in self.seqs("SELECT seq FROM run_end WHERE run = ?", [&run])? {
            if let Body::RunEnd(ended) = body_at(&self.conn, seq)? {
                end = Some(ended);
            }
        }
        let (tasks, coverage) = self
            .conn
            .prepare_cached(
                "SELECT count(*), total(passed), total(failed), total(not_applicable), total(waived), total(not_evaluated),
                    total(expected) FROM task WHERE run = ?",
            )?
            .query_row([&run], |row| Ok((row.get(0)?, coverage(|at| Ok(row.get::<_, f64>(at + 1)? as u64))?)))?;
        let resumed = resumed.get(&run).cloned().unwrap_or_default();
        Ok(RunRecord { start, end, resumed, tasks, coverage })
    }
}

/// What tells one task of a run from another.
pub(super) type TaskKey = (String, String, Digest);

pub(super) fn task_key(task: &ExpectedTask) -> TaskKey {
    (task.target.key(), task.engine.clone(), task.profile.digest)
}

/// The tasks of a run that have a result.
pub(super) fn done(conn: &Connection, run: RunId) -> rusqlite::Result<HashSet<TaskKey>> {
    conn.prepare_cached("SELECT target, engine, profile_digest FROM task WHERE run = ?")?
        .query_map([run.to_string()], |row| Ok((row.get(0)?, row.get(1)?, parsed(row, 2)?)))?
        .collect()
}

/// The body of an entry that must be there, and must be the one that was recorded: what was edited is never handed out.
pub(super) fn body_at(conn: &Connection, seq: u64) -> rusqlite::Result<Body> {
    let entry = append::entry_at(conn, seq)?.ok_or(rusqlite::Error::QueryReturnedNoRows)?.checked()?;
    Body::parse(&entry.kind, &entry.body).map_err(damaged)
}

pub(super) fn genesis(conn: &Connection) -> rusqlite::Result<Genesis> {
    match body_at(conn, 1)? {
        Body::Genesis(genesis) => Ok(genesis),
        _ => Err(rusqlite::Error::QueryReturnedNoRows),
    }
}

/// The end of the chain, and the time of its last entry.
pub(super) fn head(conn: &Connection) -> rusqlite::Result<(Head, Timestamp)> {
    let ledger = genesis(conn)?.ledger;
    let last = append::last_entry(conn)?.ok_or(rusqlite::Error::QueryReturnedNoRows)?.checked()?;
    let at = last.at.parse().map_err(damaged)?;
    Ok((Head { ledger, seq: last.seq, digest: last.digest }, at))
}

fn summary(row: &Row<'_>) -> rusqlite::Result<TaskSummary> {
    Ok(TaskSummary {
        seq: row.get(0)?,
        run: parsed(row, 1)?,
        target: row.get(2)?,
        engine: row.get(3)?,
        profile: ProfileRef { name: row.get(4)?, version: row.get(5)?, digest: parsed(row, 6)? },
        started: parsed(row, 7)?,
        finished: parsed(row, 8)?,
        coverage: coverage(|at| row.get(at + 9))?,
    })
}

/// Coverage from its columns passed, failed, not_applicable, waived, not_evaluated and expected, in this order.
fn coverage(column: impl Fn(usize) -> rusqlite::Result<u64>) -> rusqlite::Result<Coverage> {
    let json = serde_json::json!({
        "passed": column(0)?, "failed": column(1)?, "notApplicable": column(2)?,
        "waived": column(3)?, "notEvaluated": column(4)?, "expected": column(5)?,
    });
    serde_json::from_value(json).map_err(damaged)
}

fn parsed<T: std::str::FromStr<Err: std::error::Error + Send + Sync + 'static>>(
    row: &Row<'_>,
    column: usize,
) -> rusqlite::Result<T> {
    row.get::<_, String>(column)?.parse().map_err(damaged)
}

fn status(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<Status>> {
    let Some(code) = row.get::<_, Option<String>>(column)? else { return Ok(None) };
    serde_json::from_value(serde_json::Value::String(code)).map(Some).map_err(damaged)
}
