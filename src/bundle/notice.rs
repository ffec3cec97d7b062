//! Notices as they are written into `bundle.yaml` and found in a catalog.

use super::contents::Contents;
use super::error::BundleError;
use super::name::is_name;
use crate::base::text::brief;
use crate::model::notice::{Notices, Permit, Revocation};
use crate::trust::metadata::MAX_VERSION;

/// Notices of each kind in one bundle.
const MAX_NOTICES: usize = 1000;
/// Bytes of a reason.
const MAX_REASON: usize = 500;

/// What is wrong with notices, a sentence each.
pub(super) fn problems(notices: &Notices) -> Vec<String> {
    let mut problems = Vec::new();
    if notices.revocations.len() > MAX_NOTICES || notices.permits.len() > MAX_NOTICES {
        problems.push(format!("there are more than {MAX_NOTICES} revocations or permits"));
    }
    for (at, revocation) in notices.revocations.iter().take(MAX_NOTICES).enumerate() {
        problems.extend(of_revocation(revocation).map(|problem| format!("revocation {}: {problem}", at + 1)));
    }
    for (at, permit) in notices.permits.iter().take(MAX_NOTICES).enumerate() {
        problems.extend(of_permit(permit).map(|problem| format!("permit {}: {problem}", at + 1)));
    }
    problems
}

/// Refuses a bundle with a notice that revokes something which it is made of: nobody could keep what it says.
pub(super) fn check(notices: &Notices, contents: &Contents) -> Result<(), BundleError> {
    let entries = || contents.entries().chain(contents.base_blobs.iter().map(|blob| &blob.entry));
    let own = notices.revocations.iter().filter_map(|revocation| revocation.item);
    match own.into_iter().find(|item| entries().any(|entry| entry.digest == *item)) {
        Some(item) => Err(BundleError::Catalog(format!("it revokes {item}, which is in it"))),
        None => Ok(()),
    }
}

fn of_revocation(revocation: &Revocation) -> Option<String> {
    let Revocation { bundle, version, content, item, reason } = revocation;
    match (bundle, version, content, item) {
        (Some(name), Some(version), None, None) => of_bundle(name, *version).or_else(|| of_reason(reason)),
        (Some(name), None, Some(_), None) => of_bundle(name, 1).or_else(|| of_reason(reason)),
        (None, None, None, Some(_)) => of_reason(reason),
        _ => Some("it names a bundle with either its version or its content, or an item alone".to_owned()),
    }
}

fn of_permit(permit: &Permit) -> Option<String> {
    of_bundle(&permit.bundle, permit.version).or_else(|| of_reason(&permit.reason))
}

fn of_bundle(name: &str, version: u64) -> Option<String> {
    if !is_name(name) {
        return Some(format!("`{}` can't be the name of a bundle", brief(name)));
    }
    (!(1..=MAX_VERSION).contains(&version)).then(|| format!("version {version} must be 1 to {MAX_VERSION}"))
}

fn of_reason(reason: &str) -> Option<String> {
    let unfit = reason.trim().is_empty() || reason.len() > MAX_REASON || reason.contains(char::is_control);
    unfit.then(|| format!("the reason must be one line of at most {MAX_REASON} bytes"))
}
