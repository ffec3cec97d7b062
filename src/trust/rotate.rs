//! The next root: what changes, who must sign it, and how it comes into its folder.
//!
//! A root is signed to the thresholds of the root before it and of its own (TUF specification, 5.3.4). Where the keys are on
//! several machines it is carried around as `N.root.json.pending`, which has the form of a root and too few signatures;
//! each machine adds its own. What a hostile or careless courier may try, and where it ends: a pending root with another
//! version, weak keys or thresholds out of reach ([`RootFolder::pending`]); a signature that does not fit, or by a key that
//! may not sign it (`PendingRoot::check`); a change that nobody wanted ([`PendingRoot::changes`] says in words what is
//! signed); a process that is killed (every file is written whole, `N.root.json` before `root.json`, and the next call
//! mends the rest).

mod change;
mod local;
mod pending;

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use tough::schema::{RoleType, Root, Signed};

use self::change::{add, set_validity};
use self::local::{NewKey, Opened};
use super::error::TrustError;
use super::key::RoleKey;
use super::metadata::{self, SMALL_METADATA_BYTES};
use super::passphrase::Purpose;
use super::public;
use super::root::{self, KEYS_FOLDER, ROLES, TrustRoot, role_name};
use super::signer::key_files;
use crate::base::file::{self, FileError};
use crate::base::text::brief;

pub use self::change::RootChange;
pub(super) use self::local::find_key;
pub use self::local::{LocalKeys, Protection};
pub use self::pending::{Missing, PendingRoot};

/// A folder with a chain of roots, which nobody else changes meanwhile.
#[derive(Debug)]
pub struct RootFolder {
    folder: PathBuf,
    newest: TrustRoot,
    /// How many roots a chain may have.
    rotations: u64,
    _lock: File,
}

/// What came of it.
#[derive(Clone, Debug)]
pub enum Rotated {
    /// It has all signatures and is the newest root.
    Done(Box<TrustRoot>),
    /// Signatures are missing; it lies there until they came.
    Waiting(PathBuf),
}

impl RootFolder {
    /// Opens a folder that `gapscan trust init` made, and finishes what a killed process left half-way.
    ///
    /// # Errors
    /// When it has no root, or its roots are no chain.
    pub fn open(folder: &Path, rotations: u64) -> Result<Self, TrustError> {
        let failed = |source| FileError::Read { path: folder.to_owned(), source };
        let lock = File::open(folder).map_err(failed)?;
        lock.lock().map_err(failed)?;
        let first = folder.join(metadata::root_file(1));
        let current = folder.join("root.json");
        let pinned = TrustRoot::read(if current.exists() { &current } else { &first })?;
        let chain = root::read_chain(folder, &pinned, rotations)?;
        let newest = TrustRoot::from_bytes(chain.last().cloned().unwrap_or_default())?;
        if newest.bytes() != pinned.bytes() || !current.exists() {
            file::write_atomic(&current, newest.bytes(), 0o644)?;
        }
        let this = Self { folder: folder.to_owned(), newest, rotations, _lock: lock };
        this.remove_pending(this.newest.version())?;
        Ok(this)
    }

    /// The newest root.
    pub fn newest(&self) -> &TrustRoot {
        &self.newest
    }

    /// Where the next root waits for signatures.
    pub fn pending_path(&self) -> PathBuf {
        self.pending_of(self.newest.version() + 1)
    }

    fn pending_of(&self, version: u64) -> PathBuf {
        self.folder.join(format!("{}.pending", metadata::root_file(version)))
    }

    fn remove_pending(&self, version: u64) -> Result<(), TrustError> {
        let path = self.pending_of(version);
        match fs::remove_file(&path) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            Err(source) => Err(FileError::Write { path, source }.into()),
        }
    }

    /// The next root, where one waits for signatures.
    ///
    /// # Errors
    /// When what waits is not the next root.
    pub fn pending(&self) -> Result<Option<PendingRoot>, TrustError> {
        let path = self.pending_path();
        if !path.exists() {
            return Ok(None);
        }
        let file = path.file_name().and_then(|n| n.to_str()).unwrap_or_default().to_owned();
        let signed: Signed<Root> = metadata::parse(&file, &file::read_capped(&path, SMALL_METADATA_BYTES)?)?;
        let pending = PendingRoot { before: self.newest.root().clone(), signed, new_keys: Vec::new() };
        pending.check()?;
        Ok(Some(pending))
    }

    /// The next root as the change asks for, signed with the root keys that are here. Nothing is written yet.
    ///
    /// # Errors
    /// When the change makes no sense, another root waits for signatures, or a key can't be opened.
    pub fn begin(&self, change: &RootChange, local: &LocalKeys, now: Timestamp) -> Result<PendingRoot, TrustError> {
        let refuse = TrustError::RootPlan;
        if change.is_empty() {
            return Err(refuse("nothing is to be different in it".to_owned()));
        }
        if self.newest.version() >= self.rotations {
            // No reader would follow it, and this folder could not be opened any more.
            return Err(refuse(format!(
                "a chain has at most {} roots; begin another one with `gapscan trust init`, and pin it",
                self.rotations
            )));
        }
        if self.pending_path().exists() {
            return Err(refuse(format!(
                "`{}` waits for signatures; add them with --sign, or remove that file to begin anew",
                self.pending_path().display()
            )));
        }
        let mut opened = Opened::new(&local.passphrase);
        let before = self.newest.root();
        let mut keys = self.root_keys(before, &mut opened)?;
        let (next, new_keys) = self.changed(change, local.protection, &mut opened, now)?;
        let unusable = |error: TrustError| match error {
            TrustError::Metadata { reason, .. } => TrustError::RootPlan(reason),
            other => other,
        };
        let mut pending =
            PendingRoot { before: before.clone(), signed: Signed { signed: next, signatures: Vec::new() }, new_keys };
        pending.check().map_err(unusable)?;
        if pending.changes().is_empty() {
            return Err(refuse("nothing would be different in it".to_owned()));
        }
        let root_role = pending.signed.signed.roles.get(&RoleType::Root);
        let new_root_keys = pending
            .new_keys
            .iter()
            .filter(|(_, new)| root_role.is_some_and(|role| role.keyids.contains(new.key.id())))
            .map(|(_, new)| Arc::clone(&new.key));
        keys.extend(new_root_keys);
        pending.sign_with(&keys)?;
        Ok(pending)
    }

    /// What the next root says, and the keys that are made for it.
    fn changed(
        &self,
        change: &RootChange,
        protection: Protection,
        opened: &mut Opened<'_>,
        now: Timestamp,
    ) -> Result<(Root, Vec<(PathBuf, NewKey)>), TrustError> {
        let refuse = TrustError::RootPlan;
        let before = self.newest.root();
        let mut next = before.clone();
        next.version = before.version.checked_add(1).ok_or_else(|| refuse("there is no higher version".to_owned()))?;
        for name in &change.remove {
            self.remove(&mut next, name, opened)?;
        }
        for (role, path) in &change.add_public {
            let (key, id) = public::of_point(&public::read_public_key(path)?);
            add(&mut next, *role, id, key, &path.display().to_string())?;
        }
        let mut new_keys: Vec<(PathBuf, NewKey)> = Vec::new();
        for role in &change.add {
            let key = RoleKey::generate();
            let path = self.new_key_file(before, *role, &new_keys)?;
            add(&mut next, *role, key.id().clone(), key.public().clone(), &path.display().to_string())?;
            let passphrase = match protection {
                Protection::Unencrypted => None,
                Protection::Passphrase => Some(opened.passphrase(Purpose::Choose)?),
            };
            new_keys.push((path, NewKey { key: Arc::new(key), passphrase }));
        }
        for (role, threshold) in &change.threshold {
            let threshold =
                NonZeroU64::new(*threshold).ok_or_else(|| refuse("a role asks for at least 1 signature".to_owned()))?;
            next.roles.entry(*role).and_modify(|keys| keys.threshold = threshold);
        }
        set_validity(&mut next, &self.newest.policy()?, &change.validity, now)?;
        // A key that no role has any more is gone.
        let used: BTreeSet<Vec<u8>> = next.roles.values().flat_map(|r| r.keyids.iter().map(|id| id.to_vec())).collect();
        next.keys.retain(|id, _| used.contains(&id[..]));
        Ok((next, new_keys))
    }

    /// Adds the signatures of the root keys that are here. Gives the ids of those that signed now.
    ///
    /// # Errors
    /// When a key can't be opened.
    pub fn sign(&self, pending: &mut PendingRoot, local: &LocalKeys) -> Result<Vec<String>, TrustError> {
        let mut opened = Opened::new(&local.passphrase);
        let mut keys = self.root_keys(&pending.before, &mut opened)?;
        keys.extend(self.root_keys(&pending.signed.signed, &mut opened)?);
        pending.sign_with(&keys)
    }

    /// Writes it: as the newest root when it has all signatures, and otherwise to wait for them.
    ///
    /// # Errors
    /// When a file can't be written; then the roots that were there are still there.
    pub fn keep(&self, pending: &PendingRoot) -> Result<Rotated, TrustError> {
        pending.check()?;
        let bytes = metadata::to_bytes(&pending.signed);
        if bytes.len() as u64 > SMALL_METADATA_BYTES {
            return Err(TrustError::RootPlan(format!("it would have more than {SMALL_METADATA_BYTES} bytes")));
        }
        let keys = self.folder.join(KEYS_FOLDER);
        if !pending.new_keys.is_empty() {
            fs::create_dir_all(&keys).map_err(|source| FileError::Write { path: keys.clone(), source })?;
        }
        // Before the root that names them: a key without a root is of no use, a root without its key could be the end.
        for (path, new) in &pending.new_keys {
            new.key.write(path, new.passphrase.as_ref())?;
        }
        if !pending.missing().is_empty() {
            file::write_atomic(&self.pending_path(), &bytes, 0o644)?;
            return Ok(Rotated::Waiting(self.pending_path()));
        }
        let version = pending.signed.signed.version.get();
        let newest = TrustRoot::from_bytes(bytes)?;
        metadata::verify_rotation(self.newest.root(), newest.bytes())?;
        file::write_new(&self.folder.join(metadata::root_file(version)), newest.bytes(), 0o644)?;
        file::write_atomic(&self.folder.join("root.json"), newest.bytes(), 0o644)?;
        self.remove_pending(version)?;
        Ok(Rotated::Done(Box::new(newest)))
    }

    /// The root keys that are here and that `root` names.
    fn root_keys(&self, root: &Root, opened: &mut Opened<'_>) -> Result<Vec<Arc<RoleKey>>, TrustError> {
        let folder = self.folder.join(KEYS_FOLDER);
        let mut keys = Vec::new();
        if !folder.is_dir() {
            return Ok(keys);
        }
        for path in key_files(&folder, RoleType::Root)? {
            let key = opened.read(&path)?;
            if root.roles.get(&RoleType::Root).is_some_and(|role| role.keyids.contains(key.id())) {
                keys.push(key);
            }
        }
        Ok(keys)
    }

    fn new_key_file(&self, before: &Root, role: RoleType, taken: &[(PathBuf, NewKey)]) -> Result<PathBuf, TrustError> {
        let folder = self.folder.join(KEYS_FOLDER);
        let mut files = if folder.is_dir() { key_files(&folder, role)? } else { Vec::new() };
        files.extend(taken.iter().map(|(path, _)| path.clone()));
        let prefix = format!("{}-", role_name(role));
        let number = |path: &PathBuf| path.file_stem()?.to_str()?.strip_prefix(&prefix)?.parse::<u64>().ok();
        // Other machines may have the keys with the numbers up to that of all keys.
        let known = before.roles.get(&role).map_or(0, |keys| keys.keyids.len() as u64);
        let next = files.iter().filter_map(number).max().unwrap_or(0).max(known).saturating_add(1);
        Ok(folder.join(format!("{prefix}{next}.pem")))
    }

    fn remove(&self, next: &mut Root, name: &str, opened: &mut Opened<'_>) -> Result<(), TrustError> {
        let from_file = ROLES.into_iter().find(|role| {
            name.strip_prefix(role_name(*role))
                .and_then(|rest| rest.strip_prefix('-'))
                .is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
        });
        let (roles, id) = match from_file {
            Some(role) => {
                let path = self.folder.join(KEYS_FOLDER).join(format!("{name}.pem"));
                (vec![role], opened.read(&path)?.id().clone())
            }
            None => (ROLES.to_vec(), find_key(next, name)?),
        };
        let mut found = false;
        for role in roles {
            if let Some(keys) = next.roles.get_mut(&role) {
                let before = keys.keyids.len();
                keys.keyids.retain(|other| *other != id);
                found |= keys.keyids.len() < before;
            }
        }
        match found {
            true => Ok(()),
            false => Err(TrustError::RootPlan(format!("key `{}` is not in the root that there is", brief(name)))),
        }
    }
}

#[cfg(test)]
mod tests;
