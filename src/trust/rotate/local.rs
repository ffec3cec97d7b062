//! The keys of this machine, and how a key is named.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tough::schema::Root;
use tough::schema::decoded::{Decoded, Hex};

use crate::base::text::brief;
use crate::trust::error::TrustError;
use crate::trust::key::{RoleKey, hex};
use crate::trust::passphrase::{Passphrase, PassphraseSource, Purpose};

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

/// A key whose file is still to be written.
#[derive(Clone, Debug)]
pub(super) struct NewKey {
    pub(super) key: Arc<RoleKey>,
    pub(super) passphrase: Option<Passphrase>,
}

/// The passphrase of the keys here, asked for once.
pub(super) struct Opened<'a> {
    source: &'a PassphraseSource,
    known: Option<Passphrase>,
    keys: BTreeMap<PathBuf, Arc<RoleKey>>,
}

impl<'a> Opened<'a> {
    pub(super) fn new(source: &'a PassphraseSource) -> Self {
        Self { source, known: None, keys: BTreeMap::new() }
    }

    pub(super) fn passphrase(&mut self, purpose: Purpose) -> Result<Passphrase, TrustError> {
        if let Some(known) = &self.known {
            return Ok(known.clone());
        }
        let passphrase = self.source.get(purpose)?;
        self.known = Some(passphrase.clone());
        Ok(passphrase)
    }

    pub(super) fn read(&mut self, path: &Path) -> Result<Arc<RoleKey>, TrustError> {
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
pub(in crate::trust) fn find_key(root: &Root, prefix: &str) -> Result<Decoded<Hex>, TrustError> {
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
