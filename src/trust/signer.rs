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
    wanted: Wanted,
}

/// Which keys must be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// At least one of targets, and as many of snapshot and timestamp as the root asks for: other people's signatures on
    /// targets may come later.
    Begin,
    /// As many of snapshot and timestamp as the root asks for: all signatures on targets come later.
    BeginWithoutTargets,
    /// At least one of any role.
    Add,
}

impl Signer {
    /// Opens the files `targets-*.pem`, `snapshot-*.pem` and `timestamp-*.pem` in `folder` that belong to `root`, and
    /// checks that they are enough to build a bundle: see [`Wanted::Begin`].
    ///
    /// # Errors
    /// When a key can't be opened, or some role lacks keys.
    pub fn open(folder: &Path, root: &Root, passphrase: &PassphraseSource) -> Result<Self, TrustError> {
        Self::open_wanting(folder, root, passphrase, Wanted::Begin)
    }

    /// The same with other keys that must be there.
    ///
    /// # Errors
    /// When a key can't be opened, or some role lacks keys.
    pub fn open_wanting(
        folder: &Path,
        root: &Root,
        passphrase: &PassphraseSource,
        wanted: Wanted,
    ) -> Result<Self, TrustError> {
        // The same passphrase opens them all: it is asked for once.
        let mut known: Option<Passphrase> = None;
        let mut ask = || match &known {
            Some(passphrase) => Ok(passphrase.clone()),
            None => passphrase.get(Purpose::Open).inspect(|p| known = Some(p.clone())),
        };
        let mut keys: Vec<(RoleType, RoleKey)> = Vec::new();
        for role in [RoleType::Targets, RoleType::Snapshot, RoleType::Timestamp] {
            let named = root.roles.get(&role);
            for path in key_files(folder, role)? {
                let key = RoleKey::read(&path, &mut ask)?;
                // One key in two files is one key.
                let known = keys.iter().any(|(of, other)| *of == role && other.id() == key.id());
                if !known && named.is_some_and(|n| n.keyids.contains(key.id())) {
                    keys.push((role, key));
                }
            }
        }
        let signer = Self { folder: folder.to_owned(), root: root.clone(), keys, wanted };
        for role in [RoleType::Targets, RoleType::Snapshot, RoleType::Timestamp] {
            let (found, threshold) = signer.count(role);
            let needed = match (wanted, role) {
                (Wanted::Begin, RoleType::Targets) => 1,
                (Wanted::Add, _) | (Wanted::BeginWithoutTargets, RoleType::Targets) => 0,
                (Wanted::Begin | Wanted::BeginWithoutTargets, _) => threshold,
            };
            if found < needed {
                return Err(signer.missing(role));
            }
        }
        if signer.keys.is_empty() {
            return Err(signer.missing(RoleType::Targets));
        }
        Ok(signer)
    }

    fn missing(&self, role: RoleType) -> TrustError {
        let (found, threshold) = self.count(role);
        TrustError::KeysMissing { role: role_name(role), threshold, found, folder: self.folder.clone() }
    }

    /// How many keys of a role are here, and how many signatures the root asks for.
    pub fn count(&self, role: RoleType) -> (u64, u64) {
        let found = self.keys.iter().filter(|(of, _)| *of == role).count() as u64;
        (found, self.root.roles.get(&role).map_or(1, |keys| keys.threshold.get()))
    }

    /// The keys of a role.
    pub fn keys(&self, role: RoleType) -> impl Iterator<Item = &RoleKey> {
        self.keys.iter().filter(move |(of, _)| *of == role).map(|(_, key)| key)
    }

    /// The root that the keys belong to.
    pub fn root(&self) -> &Root {
        &self.root
    }

    /// Signs a role with all its keys.
    ///
    /// # Errors
    /// When there are no keys for this role and there must be some, or it has no canonical form.
    pub fn sign<T: Role + Serialize>(&self, role: T) -> Result<Signed<T>, TrustError> {
        let keys: Vec<&RoleKey> = self.keys(T::TYPE).collect();
        if keys.is_empty() && !(self.wanted == Wanted::BeginWithoutTargets && T::TYPE == RoleType::Targets) {
            return Err(self.missing(T::TYPE));
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

/// The key files of a role in a folder, by name.
pub(super) fn key_files(folder: &Path, role: RoleType) -> Result<Vec<PathBuf>, TrustError> {
    let failed = |source| FileError::Read { path: folder.to_owned(), source };
    let prefix = format!("{}-", role_name(role));
    let mut paths: Vec<PathBuf> = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        if entry.file_name().to_str().is_some_and(|name| name.starts_with(&prefix) && name.ends_with(".pem")) {
            paths.push(entry.path());
        }
    }
    paths.sort();
    Ok(paths)
}
