//! Reading a ledger.

mod results;
mod runs;

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use rusqlite::{Connection, Row};

use super::append::{self, damaged};
use super::chain::{Body, Genesis};
use super::error::LedgerError;
use super::evidence::{self, Kept};
use super::head::Head;
use super::schema;
use crate::base::digest::Digest;
use crate::model::coverage::Coverage;
use crate::model::profile::Profile;
use crate::model::record::{Event, ExpectedTask, RunId};

pub use results::{Change, TaskSummary};
pub use runs::RunRecord;

/// A ledger to read from. It sees what was committed before each call, also while another process writes.
///
/// Each body that it hands out has the digest that was recorded with it. Whether the digests are those of one whole chain
/// that the runner signed, only [`LedgerReader::verify`] says.
#[derive(Debug)]
pub struct LedgerReader {
    pub(super) conn: Connection,
    pub(super) path: PathBuf,
}

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

    pub(super) fn failed(&self, what: impl Into<String>) -> impl FnOnce(rusqlite::Error) -> LedgerError {
        LedgerError::read(&self.path, what)
    }

    fn seqs(&self, sql: &str, params: impl rusqlite::Params) -> rusqlite::Result<Vec<u64>> {
        self.conn.prepare_cached(sql)?.query_map(params, |row| row.get(0))?.collect()
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
