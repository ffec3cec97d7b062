//! Whether a ledger could be written to, found out without writing an entry.

use std::path::Path;

use super::checkpoint::{self, RunnerKey};
use super::error::LedgerError;
use super::lock::WriterLock;
use super::query;
use super::schema::{self, beside};

/// Who may write to a ledger now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Writer {
    /// This process could.
    Free,
    /// A process that runs does, with this number as it says.
    Held {
        /// The process.
        pid: String,
    },
}

/// Sees whether the ledger at `path`, which must be there, could be written to: its lock is taken for a moment, its key is
/// the one that it began with, and the database takes a transaction, which is taken back.
///
/// # Errors
/// When it could not.
pub fn writer(path: &Path) -> Result<Writer, LedgerError> {
    if !path.exists() {
        return Err(LedgerError::Absent { path: path.to_owned() });
    }
    let _lock = match WriterLock::take(path) {
        Ok(lock) => lock,
        Err(LedgerError::Locked { pid, .. }) => return Ok(Writer::Held { pid }),
        Err(error) => return Err(error),
    };
    let (conn, _) = schema::open_for_writing(path)?;
    let genesis = query::genesis(&conn).map_err(LedgerError::read(path, "read its first entry"))?;
    let key_path = beside(path, "key");
    let key = RunnerKey::load(&key_path)?;
    if checkpoint::key_text(&key) != genesis.key {
        let detail = "it is not the key that this ledger began with".to_owned();
        return Err(LedgerError::Key { path: key_path, detail });
    }
    conn.execute_batch("BEGIN IMMEDIATE; ROLLBACK").map_err(LedgerError::write(path, "begin a transaction"))?;
    Ok(Writer::Free)
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::ledger::Ledger;

    #[test]
    fn it_is_seen_who_may_write() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("l.sqlite");
        assert!(matches!(writer(&path), Err(LedgerError::Absent { .. })));
        assert!(!path.exists(), "looking makes none");
        let ledger = Ledger::open(&path, Timestamp::UNIX_EPOCH).expect("a ledger");
        assert_eq!(writer(&path).expect("held"), Writer::Held { pid: std::process::id().to_string() });
        let before = ledger.reader().head().expect("a head");
        drop(ledger);
        assert_eq!(writer(&path).expect("free"), Writer::Free);
        let ledger = Ledger::open(&path, Timestamp::UNIX_EPOCH).expect("a ledger");
        assert_eq!(ledger.reader().head().expect("a head"), before, "nothing was written");
        drop(ledger);
        std::fs::remove_file(folder.path().join("l.sqlite.key")).expect("removed");
        assert!(writer(&path).is_err());
    }
}
