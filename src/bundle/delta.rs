//! What a delta is made against: the signed receipt of a load says what a registry has.
//!
//! A receipt comes from an enclave and decides what is left out of a bundle. It can't make content wrong (what is left out
//! is signed all the same, and a load asks its registry for it); a false one would make a bundle that no load accepts. So
//! it must be signed by the key that the user names, and be of a lower version of the same bundle under the same root.

use std::collections::BTreeMap;
use std::path::Path;

use super::assembly::Assembled;
use super::contents::{BaseRef, Contents};
use super::name::is_repository;
use super::writer::BuildError;
use crate::base::digest::Digest;
use crate::base::exit::{Classify, ExitClass};
use crate::base::file;
use crate::model::receipt::{LoadReceipt, RECEIPT_KIND, RECEIPT_MEDIA_TYPE};
use crate::trust::envelope;
use crate::trust::public::read_public_key;

/// Bytes of a receipt: about 100,000 blobs.
const RECEIPT_BYTES: u64 = 64 << 20;

/// A bundle that a registry has, by a receipt that was verified.
#[derive(Clone, Debug)]
pub struct DeltaBase {
    reference: BaseRef,
    /// Each blob with its length and a repository that has it.
    there: BTreeMap<Digest, (u64, String)>,
}

/// What a delta has not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftOut {
    /// What it was made against.
    pub base: BaseRef,
    /// How many blobs.
    pub blobs: usize,
    /// Their bytes.
    pub bytes: u64,
}

/// The bundle that is to be built, as far as its base must fit it.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its version.
    pub version: u64,
    /// The fingerprints of its chain of roots.
    pub roots: &'a [Digest],
}

impl DeltaBase {
    /// Reads the receipt at `path`, which must be signed by the key in the file `key` and fit what is wanted.
    ///
    /// # Errors
    /// When it can't be read, is no such receipt, or is of a bundle that can't be the base.
    pub fn read(path: &Path, key: &Path, wanted: Wanted<'_>) -> Result<Self, BuildError> {
        let sealed = file::read_capped(path, RECEIPT_BYTES)?;
        let point = read_public_key(key)?;
        let refuse = |class, reason: String, remedy: &str| BuildError::Base {
            path: path.to_owned(),
            reason,
            remedy: remedy.to_owned(),
            class,
        };
        let payload = envelope::open("receipt", &sealed, RECEIPT_MEDIA_TYPE, &point).map_err(|error| {
            let remedy = "name the receipt that `gapscan load` wrote, and with --base-key the public key of the runner that \
                          loaded";
            refuse(error.class(), error.to_string(), remedy)
        })?;
        let again = "load the bundle again in the enclave and take the receipt of that load";
        let receipt: LoadReceipt =
            serde_json::from_slice(&payload).map_err(|e| refuse(ExitClass::Refused, e.to_string(), again))?;
        if receipt.kind != RECEIPT_KIND {
            let kind = crate::base::text::brief(&receipt.kind);
            return Err(refuse(ExitClass::Refused, format!("it is a `{kind}`, and no {RECEIPT_KIND}"), again));
        }
        let bundle = &receipt.bundle;
        if bundle.name != wanted.name {
            let name = crate::base::text::brief(&bundle.name);
            let reason = format!("it is of the bundle `{name}`, and this one is `{}`", wanted.name);
            return Err(refuse(ExitClass::Usage, reason, "name a receipt of this bundle"));
        }
        if !wanted.roots.contains(&bundle.root) {
            let reason = format!("the bundle that was loaded is of another root, {}", bundle.root);
            let remedy = "build with the keys of that root, or a newer one of its chain";
            return Err(refuse(ExitClass::Usage, reason, remedy));
        }
        if bundle.version == 0 || bundle.version >= wanted.version {
            let reason = format!("it is of version {}, and this is version {}", bundle.version, wanted.version);
            let remedy = "name the receipt of a lower version, or give this bundle a higher one and lock it again";
            return Err(refuse(ExitClass::Usage, reason, remedy));
        }
        let place = |repositories: &BTreeMap<String, _>| repositories.keys().find(|name| is_repository(name)).cloned();
        let blobs = receipt.blobs.iter();
        let there = blobs.filter_map(|blob| Some((blob.digest, (blob.size, place(&blob.repositories)?)))).collect();
        let reference = BaseRef { bundle: bundle.name.clone(), version: bundle.version, content: bundle.digest };
        Ok(Self { reference, there })
    }

    /// The blobs of these contents that the base brought, each with a repository that has it.
    fn brought(&self, contents: &Contents) -> BTreeMap<Digest, String> {
        // A blob of another length can't be the same; it stays.
        let fits = |entry: &super::contents::Entry| {
            let (size, repository) = self.there.get(&entry.digest)?;
            (*size == entry.size).then(|| (entry.digest, repository.clone()))
        };
        contents.blobs.iter().filter_map(fits).collect()
    }
}

impl Assembled {
    /// The same as a delta against `base`, and what it leaves out.
    #[must_use]
    pub fn against(self, base: &DeltaBase) -> (Self, LeftOut) {
        let there = base.brought(&self.contents);
        let delta = self.leave_out(base.reference.clone(), &there);
        let left_out = &delta.contents.base_blobs;
        let said = LeftOut {
            base: base.reference.clone(),
            blobs: left_out.len(),
            bytes: left_out.iter().map(|blob| blob.entry.size).sum(),
        };
        (delta, said)
    }
}

#[cfg(test)]
mod tests;
