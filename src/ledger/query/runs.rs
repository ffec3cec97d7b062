//! Runs: what they were to do, how far they came, how they ended.

use std::collections::HashMap;

use jiff::Timestamp;

use super::{LedgerReader, body_at, coverage, done, task_key};
use crate::ledger::chain::{Body, RunEnded};
use crate::ledger::error::LedgerError;
use crate::model::coverage::Coverage;
use crate::model::record::{ExpectedTask, RUN_RESUMED, RunId, RunStart};

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

impl LedgerReader {
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
