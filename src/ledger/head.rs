//! How far a ledger has come, and the file beside it that remembers this.
//!
//! The head file is written after each commit, so that it is never ahead of an untouched database, and may be behind by what
//! one commit appended when the writer was killed between the two writes.

use std::path::Path;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::checkpoint::{self, CheckpointSigner, Purpose};
use super::error::LedgerError;
use super::schema::beside;
use crate::base::digest::Digest;
use crate::base::file;

/// The last entry of a ledger. Whoever keeps one can tell later whether the ledger still holds all that it held then.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Head {
    /// The ledger.
    pub ledger: Uuid,
    /// The number of its last entry.
    pub seq: u64,
    /// The digest of its last entry, which covers all entries before it.
    pub digest: Digest,
}

/// The content of the head file: JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct HeadFile {
    #[serde(flatten)]
    pub(super) head: Head,
    pub(super) signature: String,
}

/// What the head file says of the database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// Both are at the same entry.
    Level,
    /// The database has so many entries more.
    Behind(u64),
    /// There is no head file.
    Missing,
    /// The database is not the one, or not all of it, that the head file was written for.
    Contradicts(String),
}

/// Replaces the head file of the ledger at `path`.
pub(super) fn write(path: &Path, head: &Head, signer: &dyn CheckpointSigner) -> Result<(), LedgerError> {
    let signature = checkpoint::sign(signer, Purpose::HeadFile, head)
        .map_err(|detail| LedgerError::Key { path: beside(path, "key"), detail })?;
    let content = HeadFile { head: head.clone(), signature };
    let json = serde_json::to_vec(&content).expect("strings and numbers always have a JSON form");
    file::write_atomic(&beside(path, "head"), &json, 0o644)
        .map_err(|source| LedgerError::File { path: path.to_owned(), source })
}

/// The head file of the ledger at `path`, if there is one.
pub(super) fn read(path: &Path) -> Result<Option<HeadFile>, LedgerError> {
    let head_path = beside(path, "head");
    if !head_path.exists() {
        return Ok(None);
    }
    let json = file::read_capped(&head_path, 64 << 10)
        .map_err(|source| LedgerError::File { path: path.to_owned(), source })?;
    serde_json::from_slice(&json).map(Some).map_err(|error| LedgerError::Head {
        path: path.to_owned(),
        detail: format!("its head file can't be read: {error}"),
    })
}

/// Compares the head file with the database, whose last entry is `head`, whose runner has the public key `key`, and
/// whose entries have the digests that `digest_of` gives.
pub(super) fn compare(
    file: Option<&HeadFile>,
    key: &str,
    head: &Head,
    digest_of: impl FnOnce(u64) -> rusqlite::Result<Option<Digest>>,
) -> rusqlite::Result<Standing> {
    let Some(file) = file else { return Ok(Standing::Missing) };
    let at = file.head.seq;
    if file.head.ledger != head.ledger {
        let (says, is) = (file.head.ledger, head.ledger);
        return Ok(Standing::Contradicts(format!(
            "its head file is of ledger {says}, and the database is ledger {is}"
        )));
    }
    if !checkpoint::is_signed(Purpose::HeadFile, &file.head, key, &file.signature) {
        return Ok(Standing::Contradicts("its head file is not signed by the runner's key".to_owned()));
    }
    if at > head.seq {
        let end = head.seq;
        return Ok(Standing::Contradicts(format!(
            "it had come to entry {at}, and the database ends at entry {end}: the tail was removed, or this is an older copy"
        )));
    }
    if digest_of(at)? != Some(file.head.digest) {
        return Ok(Standing::Contradicts(format!("its entry {at} is not the one that the head file names")));
    }
    Ok(if at == head.seq { Standing::Level } else { Standing::Behind(head.seq - at) })
}
