//! The signed metadata of a bundle: all its bytes follow from the contents, the keys and the time of the lock.

use std::collections::HashMap;
use std::num::NonZeroU64;

use jiff::Timestamp;
use tough::schema::{Metafile, RoleType, Snapshot as SnapshotRole, Timestamp as TimestampRole};

use super::{BuildError, Signing};
use crate::bundle::contents::Contents;
use crate::trust::metadata::{self, SPEC_VERSION, TIMESTAMP_FILE};

/// Metadata files with their names, in the order of the archive.
pub(super) type NamedFiles = Vec<(String, Vec<u8>)>;

/// The signed metadata files in their order in the archive, and when the first expires. All times follow from the
/// creation, so that a second builder signs the same.
pub(super) fn sign(contents: &Contents, signing: &Signing<'_>) -> Result<(NamedFiles, Timestamp), BuildError> {
    let policy = signing.root.policy()?;
    let until = |role: RoleType| policy.until(role, contents.created, signing.valid_for);
    let version = NonZeroU64::new(contents.version).filter(|v| v.get() <= metadata::MAX_VERSION).ok_or_else(|| {
        BuildError::Definition(format!("use version {}: it must be 1 to {}", contents.version, metadata::MAX_VERSION))
    })?;
    // Neither length nor hash: a second person may add a signature to a file that another one speaks of. What is signed
    // is pinned all the same, for every version is remembered with its content.
    let meta = |name: &str| {
        HashMap::from([(name.to_owned(), Metafile { length: None, hashes: None, version, _extra: HashMap::new() })])
    };
    let signer = signing.signer;
    let targets_until = until(RoleType::Targets)?;
    let targets = metadata::to_bytes(&signer.sign(contents.to_targets(targets_until)?)?);
    let mut snapshot = SnapshotRole::new(SPEC_VERSION.to_owned(), version, until(RoleType::Snapshot)?);
    snapshot.meta = meta("targets.json");
    let mut expires = targets_until.min(snapshot.expires);
    let snapshot = metadata::to_bytes(&signer.sign(snapshot)?);
    let mut timestamp = TimestampRole::new(SPEC_VERSION.to_owned(), version, until(RoleType::Timestamp)?);
    timestamp.meta = meta("snapshot.json");
    expires = expires.min(timestamp.expires);
    let timestamp = metadata::to_bytes(&signer.sign(timestamp)?);

    let mut files: NamedFiles =
        signing.chain.iter().enumerate().map(|(i, bytes)| (metadata::root_file(i as u64 + 1), bytes.clone())).collect();
    files.push((TIMESTAMP_FILE.to_owned(), timestamp));
    files.push((format!("{version}.snapshot.json"), snapshot));
    files.push((format!("{version}.targets.json"), targets));
    Ok((files, expires))
}
