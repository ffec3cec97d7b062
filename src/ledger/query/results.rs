//! Results of tasks: the latest, those of a run or a target, and what changed from one to another.

use std::collections::{HashMap, HashSet};

use jiff::Timestamp;
use rusqlite::Row;

use super::{LedgerReader, body_at, coverage, parsed};
use crate::base::digest::Digest;
use crate::ledger::append::damaged;
use crate::ledger::chain::Body;
use crate::ledger::error::LedgerError;
use crate::model::coverage::Coverage;
use crate::model::outcome::Status;
use crate::model::profile::ProfileRef;
use crate::model::provenance::BundleRef;
use crate::model::record::{RunId, TaskRecord};

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
    /// The latest result of each (target, engine, profile name), in the order of these. A run that ended replaces all earlier
    /// runs of its series ([`crate::model::record::RunStart::series`]): a pod that is gone, or a cluster that did not answer then, is not in the
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

    fn tasks(&self, sql: &str, params: impl rusqlite::Params) -> rusqlite::Result<Vec<TaskRecord>> {
        let mut tasks = Vec::new();
        for seq in self.seqs(sql, params)? {
            if let Body::Task(task) = body_at(&self.conn, seq)? {
                tasks.push(*task);
            }
        }
        Ok(tasks)
    }
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

fn status(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<Status>> {
    let Some(code) = row.get::<_, Option<String>>(column)? else { return Ok(None) };
    serde_json::from_value(serde_json::Value::String(code)).map(Some).map_err(damaged)
}
