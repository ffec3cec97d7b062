//! The files of the state: small JSON documents, each replaced whole.

use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::base::digest::Digest;
use crate::base::file::{self, FileError};
use crate::base::text::brief;
use crate::model::notice::{Notices, Permit};
use crate::trust::error::TrustError;

/// Bytes of one file; the notices of a lineage are the largest.
const STATE_FILE_BYTES: u64 = 16 << 20;
/// Notices of each kind that one lineage may have.
const MAX_KEPT: usize = 10_000;

/// What is remembered of a bundle's name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Seen {
    /// The highest version.
    pub(super) version: u64,
    /// Its content.
    pub(super) content: Digest,
    /// The latest time seen.
    pub(super) clock: Timestamp,
    /// An older version that is used by a permit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) permitted: Option<Permit>,
    /// Permits that were used and are not over yet, by their ids.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) used: Vec<UsedPermit>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct UsedPermit {
    pub(super) id: Digest,
    pub(super) until: Timestamp,
}

/// What is remembered of a lineage.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct SeenRoot {
    pub(super) version: u64,
    pub(super) digest: Digest,
}

/// The files of one lineage and one name.
#[derive(Debug)]
pub(super) struct Files {
    pub(super) lineage: PathBuf,
    pub(super) bundle: PathBuf,
    /// No bundle's name has a capital letter.
    pub(super) root: PathBuf,
    pub(super) notices: PathBuf,
    pub(super) lock: PathBuf,
}

impl Files {
    pub(super) fn new(folder: &Path, lineage: &Digest, name: &str) -> Result<Self, TrustError> {
        let unfit = name.is_empty()
            || name.len() > 63
            || !name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
            || name.starts_with('-');
        if unfit {
            let reason = format!("`{}` can't be the name of a bundle", brief(name));
            return Err(TrustError::State { path: folder.to_owned(), reason });
        }
        let lineage = folder.join(lineage.hex());
        Ok(Self {
            bundle: lineage.join(format!("{name}.json")),
            root: lineage.join("ROOT"),
            notices: lineage.join("NOTICES"),
            lock: lineage.join("LOCK"),
            lineage,
        })
    }

    /// The notices that were kept, and those of one more bundle. Permits that are over are let go.
    pub(super) fn with_notices(&self, kept: &Notices, more: &Notices, now: Timestamp) -> Result<Notices, TrustError> {
        let mut all = kept.clone();
        for revocation in &more.revocations {
            if !all.revocations.contains(revocation) {
                all.revocations.push(revocation.clone());
            }
        }
        for permit in &more.permits {
            if !all.permits.contains(permit) {
                all.permits.push(permit.clone());
            }
        }
        all.permits.retain(|permit| permit.until >= now);
        if all.revocations.len() > MAX_KEPT || all.permits.len() > MAX_KEPT {
            let reason = format!("there would be more than {MAX_KEPT} notices under one root");
            return Err(TrustError::StateFull { path: self.notices.clone(), reason });
        }
        Ok(all)
    }
}

pub(super) fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, TrustError> {
    // Only a file that is certainly not there means that nothing is known; one that can't be reached is an error.
    if !path.try_exists().map_err(|source| FileError::Read { path: path.to_owned(), source })? {
        return Ok(None);
    }
    let bytes = file::read_capped(path, STATE_FILE_BYTES)?;
    // A file that can't be understood is no reason to begin anew: that is what an attacker would wish for.
    serde_json::from_slice(&bytes)
        .map(Some)
        .map_err(|e| TrustError::State { path: path.to_owned(), reason: e.to_string() })
}

pub(super) fn write<T: Serialize>(path: &Path, seen: &T) -> Result<(), TrustError> {
    let json = serde_json::to_vec(seen).expect("numbers and strings have a JSON form");
    // What can't be read again would refuse every bundle from then on.
    if json.len() as u64 > STATE_FILE_BYTES {
        let reason = format!("it would have more than {STATE_FILE_BYTES} bytes");
        return Err(TrustError::StateFull { path: path.to_owned(), reason });
    }
    Ok(file::write_atomic(path, &json, 0o600)?)
}
