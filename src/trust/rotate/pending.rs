//! A root that is being signed: what it changes, who signed it, and who still must.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use serde::Deserialize;
use tough::schema::{RoleType, Root, Signed};

use super::local::{NewKey, find_key};
use crate::base::text::brief;
use crate::trust::error::TrustError;
use crate::trust::key::{RoleKey, hex};
use crate::trust::metadata;
use crate::trust::root::{POLICY_FIELD, ROLES, RootPolicy, role_name};

/// A root that is being signed.
#[derive(Clone, Debug)]
pub struct PendingRoot {
    pub(super) before: Root,
    pub(super) signed: Signed<Root>,
    pub(super) new_keys: Vec<(PathBuf, NewKey)>,
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

    pub(super) fn sign_with(&mut self, keys: &[Arc<RoleKey>]) -> Result<Vec<String>, TrustError> {
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
    pub(super) fn check(&self) -> Result<(), TrustError> {
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
