//! What is to be different in the next root.

use std::path::PathBuf;

use jiff::Timestamp;
use tough::schema::decoded::{Decoded, Hex};
use tough::schema::key::Key;
use tough::schema::{RoleType, Root};

use crate::base::quantity::Span;
use crate::trust::error::TrustError;
use crate::trust::root::{self, POLICY_FIELD, RootPolicy, role_name};

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

pub(super) fn add(root: &mut Root, role: RoleType, id: Decoded<Hex>, key: Key, what: &str) -> Result<(), TrustError> {
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

pub(super) fn set_validity(
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
