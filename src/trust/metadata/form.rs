//! The one form of metadata as files, and the names of the files.

use serde::Serialize;
use serde::de::DeserializeOwned;
use tough::schema::decoded::{Decoded, Hex};
use tough::schema::{Role, Signed, Snapshot as SnapshotRole, Timestamp as TimestampRole};

use crate::trust::error::TrustError;
use crate::trust::key::hex;

/// The name of the timestamp file.
pub const TIMESTAMP_FILE: &str = "timestamp.json";

/// The one form in which metadata is written: JSON without blanks, keys sorted.
pub fn to_bytes<T: Serialize>(signed: &Signed<T>) -> Vec<u8> {
    let value = serde_json::to_value(signed).expect("metadata is strings, numbers and maps, which have a JSON form");
    serde_json::to_vec(&value).expect("a JSON value always has a text")
}

/// Reads metadata and refuses every form but that of [`to_bytes`].
///
/// # Errors
/// When it is no metadata of this role, or not in that form.
pub fn parse<T: Role + Serialize + DeserializeOwned>(file: &str, bytes: &[u8]) -> Result<Signed<T>, TrustError> {
    let refuse = |reason: String| TrustError::Metadata { file: file.to_owned(), reason };
    let signed: Signed<T> = serde_json::from_slice(bytes).map_err(|e| refuse(e.to_string()))?;
    if to_bytes(&signed) != bytes {
        return Err(refuse("it is not in canonical form (compact JSON with sorted keys, each once)".to_owned()));
    }
    Ok(signed)
}

pub(super) fn in_lower_case(digits: &Decoded<Hex>) -> bool {
    serde_json::to_value(digits).is_ok_and(|text| text == hex(digits))
}

/// `N.root.json`
pub fn root_file(version: u64) -> String {
    format!("{version}.root.json")
}

/// The name of the snapshot file that a timestamp file speaks of. Nothing is verified by this.
///
/// # Errors
/// When it is no timestamp file, or speaks of none.
pub fn snapshot_file(timestamp: &[u8]) -> Result<String, TrustError> {
    let role: Signed<TimestampRole> = parse(TIMESTAMP_FILE, timestamp)?;
    match role.signed.meta.get("snapshot.json") {
        Some(meta) => Ok(format!("{}.snapshot.json", meta.version)),
        None => Err(TrustError::Metadata {
            file: TIMESTAMP_FILE.to_owned(),
            reason: "it names no snapshot.json".to_owned(),
        }),
    }
}

/// The name of the targets file that a snapshot file speaks of. Nothing is verified by this.
///
/// # Errors
/// When it is no snapshot file, or speaks of none.
pub fn targets_file(name: &str, snapshot: &[u8]) -> Result<String, TrustError> {
    let role: Signed<SnapshotRole> = parse(name, snapshot)?;
    match role.signed.meta.get("targets.json") {
        Some(meta) => Ok(format!("{}.targets.json", meta.version)),
        None => Err(TrustError::Metadata { file: name.to_owned(), reason: "it names no targets.json".to_owned() }),
    }
}
