//! Signatures of a role: made, added, counted, and each of them looked at.

use serde::Serialize;
use tough::schema::decoded::{Decoded, Hex};
use tough::schema::{Role, Root, Signature, Signed};

use super::form::in_lower_case;
use crate::trust::error::TrustError;
use crate::trust::key::{RoleKey, hex};

/// Refuses any signature that is not by a key of the role in one of `roots`, is out of order or there twice, does not fit,
/// or is not written in lower-case digits. TUF itself only counts the good ones; asking for no others leaves a signed
/// file exactly one form.
///
/// # Errors
/// For the first such signature.
pub fn check_signatures<T: Role + Serialize + Clone>(
    file: &str,
    role: &Signed<T>,
    roots: &[&Root],
) -> Result<(), TrustError> {
    let mut before: Option<&[u8]> = None;
    for signature in &role.signatures {
        let keyid = hex(&signature.keyid);
        if !in_lower_case(&signature.keyid) || !in_lower_case(&signature.sig) {
            let reason = "a signature is not written in lower-case hexadecimal digits".to_owned();
            return Err(TrustError::Metadata { file: file.to_owned(), reason });
        }
        if before.is_some_and(|before| before >= &signature.keyid[..]) {
            let reason = "its signatures are not in the order of their key ids, each once".to_owned();
            return Err(TrustError::Metadata { file: file.to_owned(), reason });
        }
        before = Some(&signature.keyid);
        let naming: Vec<&&Root> = roots
            .iter()
            .filter(|r| r.roles.get(&T::TYPE).is_some_and(|k| k.keyids.contains(&signature.keyid)))
            .collect();
        if naming.is_empty() {
            return Err(TrustError::UnknownKey { file: file.to_owned(), keyid });
        }
        let alone = Signed { signed: role.signed.clone(), signatures: vec![signature.clone()] };
        if !naming.iter().any(|root| asking_for_one::<T>(root).verify_role(&alone).is_ok()) {
            return Err(TrustError::Signature { file: file.to_owned(), keyid });
        }
    }
    Ok(())
}

/// The same root when it asks for one signature, so that signatures can be looked at one by one.
fn asking_for_one<T: Role>(root: &Root) -> Root {
    let mut root = root.clone();
    if let Some(keys) = root.roles.get_mut(&T::TYPE) {
        keys.threshold = std::num::NonZeroU64::MIN;
    }
    root
}

pub(in crate::trust) fn meets_threshold<T: Role + Serialize>(
    file: &str,
    role: &Signed<T>,
    root: &Root,
) -> Result<(), TrustError> {
    root.verify_role(role).map_err(|_| {
        let keys = root.roles.get(&T::TYPE);
        TrustError::Threshold {
            file: file.to_owned(),
            found: keys.map_or(0, |k| role.signatures.iter().filter(|s| k.keyids.contains(&s.keyid)).count() as u64),
            threshold: keys.map_or(1, |k| k.threshold.get()),
        }
    })
}

/// Signs a role with these keys, which must be those of the role; the signatures are in the order of the key ids.
///
/// # Errors
/// When the role has no canonical form.
pub fn sign<T: Role + Serialize>(role: T, keys: &[&RoleKey]) -> Result<Signed<T>, TrustError> {
    let message =
        role.canonical_form().map_err(|e| TrustError::Metadata { file: T::TYPE.to_string(), reason: e.to_string() })?;
    let mut signatures: Vec<Signature> =
        keys.iter().map(|key| Signature { keyid: key.id().clone(), sig: key.sign(&message).into() }).collect();
    signatures.sort_by(|a, b| a.keyid[..].cmp(&b.keyid[..]));
    signatures.dedup_by(|a, b| a.keyid == b.keyid);
    Ok(Signed { signed: role, signatures })
}

/// Adds a signature by this key in its place; one by the same key that is there stays. Says whether it was added.
pub(in crate::trust) fn insert_signature<T>(role: &mut Signed<T>, keyid: &Decoded<Hex>, signature: Vec<u8>) -> bool {
    match role.signatures.binary_search_by(|s| s.keyid[..].cmp(&keyid[..])) {
        Ok(_) => false,
        Err(at) => {
            role.signatures.insert(at, Signature { keyid: keyid.clone(), sig: signature.into() });
            true
        }
    }
}

/// The exact bytes that signatures of a role are made over: the canonical JSON (OLPC) of `signed`.
///
/// # Errors
/// When it has no such form.
pub(in crate::trust) fn payload<T: Role + Serialize>(role: &Signed<T>) -> Result<Vec<u8>, TrustError> {
    role.signed.canonical_form().map_err(|e| TrustError::Metadata { file: T::TYPE.to_string(), reason: e.to_string() })
}
