//! Roots: what one must be to do its work, and how they follow each other.

use tough::schema::key::Key;
use tough::schema::{RoleType, Root, Signed};

use super::SPEC_VERSION;
use super::form::{in_lower_case, parse, root_file};
use super::signatures::{check_signatures, meets_threshold};
use crate::base::digest::Digest;
use crate::trust::error::TrustError;
use crate::trust::public;
use crate::trust::root::TrustRoot;

/// Refuses a root that could not do its work: another specification, weak keys, thresholds that can't be reached.
///
/// # Errors
/// With what is wrong.
pub fn check_root(file: &str, root: &Root) -> Result<(), TrustError> {
    let refuse = |reason: String| Err(TrustError::Metadata { file: file.to_owned(), reason });
    if root.spec_version != SPEC_VERSION || !root.consistent_snapshot {
        return refuse(format!("it must follow TUF {SPEC_VERSION} with consistent snapshots"));
    }
    if root.keys.values().any(|key| !matches!(key, Key::Ecdsa { .. } | Key::Ed25519 { .. })) {
        return refuse("it names a key that is neither ECDSA P-256 nor Ed25519".to_owned());
    }
    // A key in another spelling has another id, and could count twice towards a threshold.
    if root.keys.values().any(|key| !is_in_one_form(key)) {
        return refuse("it names a key in another form than the one that gapscan writes".to_owned());
    }
    for role in [RoleType::Root, RoleType::Targets, RoleType::Snapshot, RoleType::Timestamp] {
        let Some(keys) = root.roles.get(&role) else { return refuse(format!("it has no role {role}")) };
        let mut ids: Vec<&[u8]> = keys.keyids.iter().map(|id| &id[..]).collect();
        ids.sort_unstable();
        ids.dedup();
        if ids.len() != keys.keyids.len() || keys.keyids.iter().any(|id| !root.keys.contains_key(id)) {
            return refuse(format!("the keys of role {role} are there twice or not at all"));
        }
        if keys.threshold.get() > ids.len() as u64 {
            return refuse(format!("role {role} asks for {} of {} keys", keys.threshold, ids.len()));
        }
    }
    Ok(())
}

/// Whether a key has no field of its own and its public half is written as this program writes it: PEM with the uncompressed
/// point for ECDSA P-256, 64 lower-case digits for Ed25519.
fn is_in_one_form(key: &Key) -> bool {
    match key {
        Key::Ecdsa { keyval, _extra, .. } => {
            let (written, _) = public::of_point(&keyval.public);
            // 4 is the mark of an uncompressed point (SEC 1, section 2.3.3).
            keyval.public.len() == 65
                && keyval.public[0] == 4
                && serde_json::to_value(key).ok() == serde_json::to_value(written).ok()
        }
        Key::Ed25519 { keyval, _extra, .. } => {
            keyval.public.len() == 32 && _extra.is_empty() && keyval._extra.is_empty() && in_lower_case(&keyval.public)
        }
        Key::Rsa { .. } | Key::EcdsaOld { .. } => false,
    }
}

/// Verifies a chain of roots `1.root.json`, `2.root.json`, ...: each is signed by its own keys and by those of the one
/// before, no version is left out, and the pinned root is one of them. Gives the last.
///
/// # Errors
/// When any of this does not hold.
pub fn verify_roots(files: &[&[u8]], pinned: &TrustRoot) -> Result<Signed<Root>, TrustError> {
    let mut last: Option<Signed<Root>> = None;
    for (index, bytes) in files.iter().enumerate() {
        let version = index as u64 + 1;
        let root = verify_root(&root_file(version), version, bytes, last.as_ref().map(|l| &l.signed))?;
        if version == pinned.version() && *bytes != pinned.bytes() {
            return Err(TrustError::OtherRoot(format!(
                "its root {version} has the fingerprint {}, and the pinned one has {}",
                Digest::of(bytes),
                pinned.fingerprint()
            )));
        }
        last = Some(root);
    }
    match last {
        Some(last) if last.signed.version.get() >= pinned.version() => Ok(last),
        last => Err(TrustError::OtherRoot(format!(
            "it ends at root {}, and the pinned root is {}",
            last.map_or(0, |l| l.signed.version.get()),
            pinned.version()
        ))),
    }
}

/// Verifies that these bytes are the next root after `before`, as [`verify_roots`] does for each step of a chain.
///
/// # Errors
/// When they are not.
pub(in crate::trust) fn verify_rotation(before: &Root, bytes: &[u8]) -> Result<Signed<Root>, TrustError> {
    let file = root_file(before.version.get().saturating_add(1));
    verify_root(&file, before.version.get().saturating_add(1), bytes, Some(before))
}

fn verify_root(file: &str, version: u64, bytes: &[u8], before: Option<&Root>) -> Result<Signed<Root>, TrustError> {
    let root: Signed<Root> = parse(file, bytes)?;
    check_root(file, &root.signed)?;
    if root.signed.version.get() != version {
        let reason = format!("it says that it is version {}", root.signed.version);
        return Err(TrustError::Metadata { file: file.to_owned(), reason });
    }
    let mut roots = vec![&root.signed];
    roots.extend(before);
    check_signatures(file, &root, &roots)?;
    for root_of in roots {
        meets_threshold(file, &root, root_of)?;
    }
    Ok(root)
}
