//! The next root: what changes, who must sign it, and how it comes into its folder.
//!
//! A root is signed to the thresholds of the root before it and of its own (TUF specification, 5.3.4). Where the keys are on
//! several machines it is carried around as `N.root.json.pending`, which has the form of a root and too few signatures;
//! each machine adds its own. What a hostile or careless courier may try, and where it ends: a pending root with another
//! version, weak keys or thresholds out of reach ([`RootFolder::pending`]); a signature that does not fit, or by a key that
//! may not sign it (`PendingRoot::check`); a change that nobody wanted ([`PendingRoot::changes`] says in words what is
//! signed); a process that is killed (every file is written whole, `N.root.json` before `root.json`, and the next call
//! mends the rest).

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use serde::Deserialize;
use tough::schema::decoded::{Decoded, Hex};
use tough::schema::{RoleType, Root, Signed};

use super::error::TrustError;
use super::key::{RoleKey, hex};
use super::metadata::{self, SMALL_METADATA_BYTES};
use super::passphrase::{Passphrase, PassphraseSource, Purpose};
use super::public;
use super::root::{self, KEYS_FOLDER, POLICY_FIELD, ROLES, RootPolicy, TrustRoot, role_name};
use super::signer::key_files;
use crate::base::file::{self, FileError};
use crate::base::quantity::Span;
use crate::base::text::brief;

/// What is to be different in the next root.
#[derive(Clone, Debug, Default)]
pub struct RootChange {
    /// Roles that get a new key, made here.
    pub add: Vec<RoleType>,
    /// Public keys in PEM that were made elsewhere, with their roles.
    pub add_public: Vec<(RoleType, PathBuf)>,
    /// Keys to remove: `ROLE-N` as their files here are named, or at least eight digits of an id.
    pub remove: Vec<String>,
    /// How many signatures a role asks for.
    pub threshold: Vec<(RoleType, u64)>,
    /// How long metadata of a role stays valid; for `root`, until when the root itself does, counted from now.
    pub validity: Vec<(RoleType, Span)>,
}

impl RootChange {
    /// Whether it asks for nothing.
    pub fn is_empty(&self) -> bool {
        self.add.is_empty()
            && self.add_public.is_empty()
            && self.remove.is_empty()
            && self.threshold.is_empty()
            && self.validity.is_empty()
    }
}

/// Where the keys of this machine are and how they are opened.
#[derive(Clone, Debug)]
pub struct LocalKeys {
    /// Where the passphrase comes from.
    pub passphrase: PassphraseSource,
    /// Whether new keys are written without one.
    pub protection: Protection,
}

/// How a new key file is protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protection {
    /// By the passphrase.
    Passphrase,
    /// By nothing.
    Unencrypted,
}

/// A folder with a chain of roots, which nobody else changes meanwhile.
#[derive(Debug)]
pub struct RootFolder {
    folder: PathBuf,
    newest: TrustRoot,
    _lock: File,
}

/// A root that is being signed.
#[derive(Clone, Debug)]
pub struct PendingRoot {
    before: Root,
    signed: Signed<Root>,
    new_keys: Vec<(PathBuf, NewKey)>,
}

/// A key whose file is still to be written.
#[derive(Clone, Debug)]
struct NewKey {
    key: Arc<RoleKey>,
    passphrase: Option<Passphrase>,
}

/// What came of it.
#[derive(Clone, Debug)]
pub enum Rotated {
    /// It has all signatures and is the newest root.
    Done(Box<TrustRoot>),
    /// Signatures are missing; it lies there until they came.
    Waiting(PathBuf),
}

/// Signatures that a root still needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    /// The version of the root whose root keys are asked.
    pub of: u64,
    /// How many of them signed.
    pub found: u64,
    /// How many must.
    pub threshold: u64,
    /// The ids of those that did not.
    pub keys: Vec<String>,
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
        let this = Self { folder: folder.to_owned(), newest, _lock: lock };
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
        if self.pending_path().exists() {
            return Err(refuse(format!(
                "`{}` waits for signatures; add them with --sign, or remove that file to begin anew",
                self.pending_path().display()
            )));
        }
        let mut opened = Opened::new(&local.passphrase);
        let before = self.newest.root();
        let mut keys = self.root_keys(before, &mut opened)?;
        let mut next = before.clone();
        next.version = before.version.checked_add(1).ok_or_else(|| refuse("there is no higher version".to_owned()))?;
        for name in &change.remove {
            self.remove(&mut next, name, &mut opened)?;
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
            let passphrase = match local.protection {
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
        let keys = self.folder.join(KEYS_FOLDER);
        if !pending.new_keys.is_empty() {
            fs::create_dir_all(&keys).map_err(|source| FileError::Write { path: keys.clone(), source })?;
        }
        // Before the root that names them: a key without a root is of no use, a root without its key could be the end.
        for (path, new) in &pending.new_keys {
            new.key.write(path, new.passphrase.as_ref())?;
        }
        let bytes = metadata::to_bytes(&pending.signed);
        if bytes.len() as u64 > SMALL_METADATA_BYTES {
            return Err(TrustError::RootPlan(format!("it would have more than {SMALL_METADATA_BYTES} bytes")));
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

impl PendingRoot {
    /// What it will say.
    pub fn root(&self) -> &Root {
        &self.signed.signed
    }

    /// The exact bytes that are to be signed.
    ///
    /// # Errors
    /// When they can't be made.
    pub fn payload(&self) -> Result<Vec<u8>, TrustError> {
        metadata::payload(&self.signed)
    }

    /// What is different from the root before, a line each.
    pub fn changes(&self) -> Vec<String> {
        let (before, after) = (&self.before, &self.signed.signed);
        let mut lines = Vec::new();
        for role in ROLES {
            let name = role_name(role);
            let ids = |root: &Root| -> BTreeSet<String> {
                root.roles.get(&role).map(|r| r.keyids.iter().map(|id| hex(id)).collect()).unwrap_or_default()
            };
            let (old, new) = (ids(before), ids(after));
            lines.extend(new.difference(&old).map(|id| format!("{name}: key {id} is added")));
            lines.extend(old.difference(&new).map(|id| format!("{name}: key {id} is removed")));
            let threshold = |root: &Root| root.roles.get(&role).map_or(0, |r| r.threshold.get());
            if threshold(before) != threshold(after) {
                lines.push(format!("{name}: asks for {} signatures, before {}", threshold(after), threshold(before)));
            }
        }
        if before.expires != after.expires {
            lines.push(format!("root: expires {}, before {}", after.expires, before.expires));
        }
        let policy = |root: &Root| {
            root._extra.get(POLICY_FIELD).and_then(|value| RootPolicy::deserialize(value).ok()).unwrap_or_default()
        };
        let (old, new) = (policy(before), policy(after));
        for (role, span) in &new.validity {
            if old.validity.get(role) != Some(span) {
                let was = old.validity.get(role).map_or("nothing".to_owned(), |span| span.to_string());
                lines.push(format!("{}: metadata is valid for {span}, before {was}", brief(role)));
            }
        }
        lines.extend(
            old.validity
                .keys()
                .filter(|role| !new.validity.contains_key(*role))
                .map(|role| format!("{}: how long metadata is valid is not limited any more", brief(role))),
        );
        for field in before._extra.keys().chain(after._extra.keys()).collect::<BTreeSet<_>>() {
            if field != POLICY_FIELD && before._extra.get(field) != after._extra.get(field) {
                lines.push(format!("the field `{}`, which this gapscan does not know, is other", brief(field)));
            }
        }
        lines
    }

    /// Adds a signature that was made elsewhere. The key is named by its id or at least eight digits of it. Says whether it
    /// was not there yet.
    ///
    /// # Errors
    /// When the key may not sign this root, or the signature does not fit.
    pub fn add(&mut self, key: &str, signature: Vec<u8>) -> Result<bool, TrustError> {
        let id = find_key(&self.before, key).or_else(|_| find_key(&self.signed.signed, key))?;
        let mut with = self.clone();
        if !metadata::insert_signature(&mut with.signed, &id, signature) {
            return Ok(false);
        }
        with.check()?;
        *self = with;
        Ok(true)
    }

    fn sign_with(&mut self, keys: &[Arc<RoleKey>]) -> Result<Vec<String>, TrustError> {
        let message = self.payload()?;
        let mut signed = Vec::new();
        for key in keys {
            if metadata::insert_signature(&mut self.signed, key.id(), key.sign(&message)) {
                signed.push(key.id_hex());
            }
        }
        self.check()?;
        Ok(signed)
    }

    /// The signatures that are still to come; none when it is a root.
    pub fn missing(&self) -> Vec<Missing> {
        let have: BTreeSet<&[u8]> = self.signed.signatures.iter().map(|s| &s.keyid[..]).collect();
        let of = |root: &Root| {
            let role = root.roles.get(&RoleType::Root)?;
            let (there, absent): (Vec<_>, Vec<_>) = role.keyids.iter().partition(|id| have.contains(&id[..]));
            let (found, threshold) = (there.len() as u64, role.threshold.get());
            (found < threshold).then(|| Missing {
                of: root.version.get(),
                found,
                threshold,
                keys: absent.into_iter().map(|id| hex(id)).collect(),
            })
        };
        [of(&self.before), of(&self.signed.signed)].into_iter().flatten().collect()
    }

    /// Refuses what could not become the next root.
    fn check(&self) -> Result<(), TrustError> {
        let next = &self.signed.signed;
        let file = metadata::root_file(self.before.version.get() + 1);
        metadata::check_root(&file, next)?;
        if next.version.get() != self.before.version.get() + 1 {
            let reason = format!("it is version {}, and {} is next", next.version, self.before.version.get() + 1);
            return Err(TrustError::Metadata { file, reason });
        }
        metadata::check_signatures(&file, &self.signed, &[&self.before, next])
    }
}

/// The passphrase of the keys here, asked for once.
struct Opened<'a> {
    source: &'a PassphraseSource,
    known: Option<Passphrase>,
    keys: BTreeMap<PathBuf, Arc<RoleKey>>,
}

impl<'a> Opened<'a> {
    fn new(source: &'a PassphraseSource) -> Self {
        Self { source, known: None, keys: BTreeMap::new() }
    }

    fn passphrase(&mut self, purpose: Purpose) -> Result<Passphrase, TrustError> {
        if let Some(known) = &self.known {
            return Ok(known.clone());
        }
        let passphrase = self.source.get(purpose)?;
        self.known = Some(passphrase.clone());
        Ok(passphrase)
    }

    fn read(&mut self, path: &Path) -> Result<Arc<RoleKey>, TrustError> {
        if let Some(key) = self.keys.get(path) {
            return Ok(Arc::clone(key));
        }
        let key = Arc::new(RoleKey::read(path, &mut || self.passphrase(Purpose::Open))?);
        self.keys.insert(path.to_owned(), Arc::clone(&key));
        Ok(key)
    }
}

/// The one key of a root whose id begins with these digits.
///
/// # Errors
/// When they are fewer than eight, or fit no key or several.
pub(super) fn find_key(root: &Root, prefix: &str) -> Result<Decoded<Hex>, TrustError> {
    let refuse = |reason: &str| TrustError::NoSuchKey { key: brief(prefix), reason: reason.to_owned() };
    if prefix.len() < 8 || !prefix.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
        return Err(refuse("a key is named by at least eight lower-case hexadecimal digits of its id"));
    }
    let mut found = root.keys.keys().filter(|id| hex(id).starts_with(prefix));
    match (found.next(), found.next()) {
        (Some(id), None) => Ok(id.clone()),
        (None, _) => Err(refuse("the root has no such key")),
        (Some(_), Some(_)) => Err(refuse("several keys of the root begin so")),
    }
}

fn add(
    root: &mut Root,
    role: RoleType,
    id: Decoded<Hex>,
    key: tough::schema::key::Key,
    what: &str,
) -> Result<(), TrustError> {
    let Some(keys) = root.roles.get_mut(&role) else {
        return Err(TrustError::RootPlan(format!("it has no role {}", role_name(role))));
    };
    if keys.keyids.contains(&id) {
        return Err(TrustError::RootPlan(format!("`{what}` is a key of {} already", role_name(role))));
    }
    keys.keyids.push(id.clone());
    keys.keyids.sort_by(|a, b| a[..].cmp(&b[..]));
    root.keys.insert(id, key);
    Ok(())
}

fn set_validity(
    root: &mut Root,
    policy: &RootPolicy,
    validity: &[(RoleType, Span)],
    now: Timestamp,
) -> Result<(), TrustError> {
    let mut policy = policy.clone();
    for (role, span) in validity {
        if *role == RoleType::Root {
            root.expires = root::expiry(now, *span)?;
        } else {
            policy.validity.insert(role_name(*role).to_owned(), *span);
        }
    }
    if root.expires <= now {
        return Err(TrustError::RootPlan(format!(
            "it would be expired, as the one before is since {}; say how long it is to be valid, as --expires root=3650d",
            root.expires
        )));
    }
    let policy = serde_json::to_value(policy).expect("a map of strings has a JSON form");
    root._extra.insert(POLICY_FIELD.to_owned(), policy);
    Ok(())
}

#[cfg(test)]
mod tests;
