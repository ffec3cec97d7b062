//! Signing with the role keys of a folder.

use std::fs;
use std::path::{Path, PathBuf};

use serde::Serialize;
use tough::schema::{Role, RoleType, Root, Signed};

use super::error::TrustError;
use super::key::RoleKey;
use super::metadata;
use super::passphrase::{Passphrase, PassphraseSource, Purpose};
use super::root::role_name;
use crate::base::file::FileError;

/// The keys that sign bundles: those of the roles targets, snapshot and timestamp. Root keys are not touched.
#[derive(Debug)]
pub struct Signer {
    folder: PathBuf,
    root: Root,
    keys: Vec<(RoleType, RoleKey)>,
}

impl Signer {
    /// Opens the files `targets-*.pem`, `snapshot-*.pem` and `timestamp-*.pem` in `folder` that belong to `root`, and
    /// checks that they are enough for its thresholds.
    ///
    /// # Errors
    /// When a key can't be opened, or some role lacks keys.
    pub fn open(folder: &Path, root: &Root, passphrase: &PassphraseSource) -> Result<Self, TrustError> {
        let failed = |source| FileError::Read { path: folder.to_owned(), source };
        let mut paths: Vec<PathBuf> = fs::read_dir(folder)
            .map_err(failed)?
            .map(|entry| entry.map(|e| e.path()))
            .collect::<Result<_, _>>()
            .map_err(failed)?;
        paths.sort();
        // The same passphrase opens them all: it is asked for once.
        let mut known: Option<Passphrase> = None;
        let mut ask = || match &known {
            Some(passphrase) => Ok(passphrase.clone()),
            None => passphrase.get(Purpose::Open).inspect(|p| known = Some(p.clone())),
        };
        let mut keys = Vec::new();
        for role in [RoleType::Targets, RoleType::Snapshot, RoleType::Timestamp] {
            let wanted = root.roles.get(&role);
            let prefix = format!("{}-", role_name(role));
            for path in &paths {
                let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
                if name.starts_with(&prefix) && name.ends_with(".pem") {
                    let key = RoleKey::read(path, &mut ask)?;
                    if wanted.is_some_and(|w| w.keyids.contains(key.id())) {
                        keys.push((role, key));
                    }
                }
            }
            let found = keys.iter().filter(|(r, _)| *r == role).count() as u64;
            let threshold = wanted.map_or(1, |w| w.threshold.get());
            if found < threshold {
                let folder = folder.to_owned();
                return Err(TrustError::KeysMissing { role: role_name(role), threshold, found, folder });
            }
        }
        Ok(Self { folder: folder.to_owned(), root: root.clone(), keys })
    }

    /// The root that the keys belong to.
    pub fn root(&self) -> &Root {
        &self.root
    }

    /// Signs a role with all its keys.
    ///
    /// # Errors
    /// When there are no keys for this role, or it has no canonical form.
    pub fn sign<T: Role + Serialize>(&self, role: T) -> Result<Signed<T>, TrustError> {
        let keys: Vec<&RoleKey> = self.keys.iter().filter(|(r, _)| *r == T::TYPE).map(|(_, key)| key).collect();
        if keys.is_empty() {
            let folder = self.folder.clone();
            return Err(TrustError::KeysMissing { role: role_name(T::TYPE), threshold: 1, found: 0, folder });
        }
        metadata::sign(role, &keys)
    }

    /// The signatures of all keys of a role over a message that is no metadata: the key's id in hexadecimal digits and the
    /// signature, ECDSA over SHA-256 in DER, in the order of the ids.
    pub fn sign_detached(&self, role: RoleType, message: &[u8]) -> Vec<(String, Vec<u8>)> {
        let mut signatures: Vec<(String, Vec<u8>)> =
            self.keys.iter().filter(|(of, _)| *of == role).map(|(_, key)| (key.id_hex(), key.sign(message))).collect();
        signatures.sort();
        signatures.dedup();
        signatures
    }
}
