//! Appending entries, with the rows that follow from them, inside one transaction.

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, Row, params, params_from_iter};

use super::chain::{self, Body, Entry};
use super::derive;
use super::head::Head;
use crate::base::digest::Digest;

/// The end of the chain, as a transaction moves it on. Whoever holds one takes the new end only after the commit.
#[derive(Clone, Debug)]
pub(super) struct Tail {
    pub(super) head: Head,
    /// The time of the last entry.
    pub(super) at: Timestamp,
}

impl Tail {
    /// Appends one entry. Its time is `at`, or that of the entry before it where `at` is earlier: the order of entries is
    /// also the order of their times, and what a body says of times is kept as it is.
    pub(super) fn append(&mut self, conn: &Connection, at: Timestamp, body: &Body) -> rusqlite::Result<u64> {
        let at = at.max(self.at);
        let seq = self.head.seq + 1;
        let (kind, time, json) = (body.kind(), at.to_string(), body.to_json());
        let digest = chain::digest(seq, kind, &time, &self.head.digest, &json);
        conn.prepare_cached("INSERT INTO entry VALUES (?, ?, ?, ?, ?, ?)")?.execute(params![
            seq,
            kind,
            time,
            self.head.digest.bytes(),
            digest.bytes(),
            json
        ])?;
        for row in derive::rows(seq, body) {
            conn.prepare_cached(row.table.insert())?.execute(params_from_iter(row.values))?;
        }
        self.head = Head { ledger: self.head.ledger, seq, digest };
        self.at = at;
        Ok(seq)
    }
}

/// The columns that [`entry`] reads, in their order.
pub(super) const COLUMNS: &str = "seq, kind, at, prev, digest, body";

/// Reads one row of the table `entry`, unchecked.
pub(super) fn entry(row: &Row<'_>) -> rusqlite::Result<Entry> {
    Ok(Entry {
        seq: row.get(0)?,
        kind: row.get(1)?,
        at: row.get(2)?,
        prev: Digest::from_bytes(row.get(3)?),
        digest: Digest::from_bytes(row.get(4)?),
        body: row.get(5)?,
    })
}

/// A body that is not the one that was recorded.
#[derive(Debug, thiserror::Error)]
#[error("the content of entry {0} does not have its digest: it was edited")]
struct Edited(u64);

impl Entry {
    /// The same entry if its content has its digest.
    pub(super) fn checked(self) -> rusqlite::Result<Self> {
        let digest = chain::digest(self.seq, &self.kind, &self.at, &self.prev, &self.body);
        if digest == self.digest { Ok(self) } else { Err(damaged(Edited(self.seq))) }
    }
}

/// The entry of this number, unchecked.
pub(super) fn entry_at(conn: &Connection, seq: u64) -> rusqlite::Result<Option<Entry>> {
    conn.prepare_cached(&format!("SELECT {COLUMNS} FROM entry WHERE seq = ?"))?.query_row([seq], entry).optional()
}

/// The last entry, unchecked.
pub(super) fn last_entry(conn: &Connection) -> rusqlite::Result<Option<Entry>> {
    conn.prepare_cached(&format!("SELECT {COLUMNS} FROM entry ORDER BY seq DESC LIMIT 1"))?
        .query_row([], entry)
        .optional()
}

/// A damaged body as the error that a damaged row gives.
pub(super) fn damaged(error: impl std::error::Error + Send + Sync + 'static) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(5, rusqlite::types::Type::Blob, Box::new(error))
}
