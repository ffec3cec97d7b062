//! What a delta was made against must be in the registry, all of it, before anything is written there.
//!
//! What the label of the delta says is signed by the keys that are good now, and it names the base by its content digest,
//! the SHA-256 over the list of all its content. So whatever list of targets the registry keeps is the base's if it has this
//! digest, and no signature on it could say more: not that it has not expired (a base may be old, that is what deltas are
//! for), nor that its keys are still good (they may have been rotated since). The list itself is held to the form of one.
//!
//! What a registry, or somebody who can write to it, may try, and where it ends: another base under the same name and
//! version ([`check_base`] compares the digest); a tag without what belongs to it (`vouch`); blobs
//! that were collected as garbage (each is asked for); a lie about one of them is found by whoever pulls it, or by
//! `--read-back all`.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;

use futures::stream::{self, StreamExt, TryStreamExt};
use tough::schema::{Signed, Targets};

use super::error::LoadError;
use super::vouch::{Kept, kept_metadata};
use crate::base::digest::Digest;
use crate::base::limits::Limits;
use crate::bundle::contents::{BaseBlob, BaseRef, Contents, content_digest};
use crate::model::catalog::CATALOG_REPOSITORY;
use crate::registry::{Client, Prefix, Repository, Tag};

/// The proof that the base of a delta is in the registry, with every blob that the delta leaves out.
#[derive(Clone, Debug)]
pub struct BaseThere {
    base: BaseRef,
    blobs: BTreeMap<Digest, (String, u64)>,
}

impl BaseThere {
    /// The base.
    pub fn base(&self) -> &BaseRef {
        &self.base
    }

    /// The blobs that the delta leaves out, each with a repository below the prefix that has it, and its length.
    pub fn blobs(&self) -> impl Iterator<Item = (&Digest, &str, u64)> {
        self.blobs.iter().map(|(digest, (repository, size))| (digest, repository.as_str(), *size))
    }
}

/// Makes sure that the registry has the base and every blob of it that is left out. Nothing is written.
///
/// # Errors
/// When the base was not loaded below the prefix, or another of the same name and version was; when blobs of it are gone;
/// when the registry can't be asked.
pub async fn check_base(
    client: &Client,
    prefix: &Prefix,
    base: &BaseRef,
    left_out: &[BaseBlob],
    limits: &Limits,
    jobs: NonZeroUsize,
) -> Result<BaseThere, LoadError> {
    let absent = || LoadError::BaseAbsent { base: Box::new(base.clone()), prefix: prefix.clone() };
    let repository = prefix.repository(CATALOG_REPOSITORY)?;
    let tag: Tag = format!("{}.{}", base.bundle, base.version).parse()?;
    let manifest = match client.resolve(&repository, &tag).await {
        Ok(digest) => digest,
        Err(error) if error.is_not_found() => return Err(absent()),
        Err(error) => return Err(error.into()),
    };
    let files = match kept_metadata(client, &repository, &manifest, limits).await? {
        Kept::Files(files) => files,
        Kept::Absent => return Err(absent()),
        Kept::Foreign(reason) => return Err(foreign(base, prefix, reason)),
    };
    let name = format!("{}.targets.json", base.version);
    let bytes = files.get(&name).ok_or_else(|| foreign(base, prefix, "its metadata has no list of targets"))?;
    let targets: Signed<Targets> =
        serde_json::from_slice(bytes).map_err(|_| foreign(base, prefix, "its list of targets can't be read"))?;
    let found = content_digest(&targets.signed);
    if found != base.content {
        return Err(LoadError::OtherBase { base: Box::new(base.clone()), prefix: prefix.clone(), found });
    }
    let contents = Contents::from_targets(&targets.signed, limits)?;
    if contents.name != base.bundle || contents.version != base.version {
        return Err(foreign(base, prefix, "it is another bundle's"));
    }
    if !contents.documents.iter().any(|entry| entry.digest == manifest) {
        return Err(foreign(base, prefix, "its catalog is not among what is signed"));
    }

    let asked: Vec<(Digest, Repository, bool)> = stream::iter(left_out)
        .map(|blob| async move {
            let repository = prefix.repository(&blob.repository)?;
            let (digest, size) = (blob.entry.digest, blob.entry.size);
            let there = client.blob_exists(&repository, &digest, size).await?;
            Ok::<_, LoadError>((digest, repository, there))
        })
        .buffered(jobs.get())
        .try_collect()
        .await?;
    let gone: Vec<(Digest, Repository)> = asked
        .iter()
        .filter(|(.., there)| !there)
        .map(|(digest, repository, _)| (*digest, repository.clone()))
        .collect();
    if !gone.is_empty() {
        let total = left_out.len();
        return Err(LoadError::BaseBlobs { base: Box::new(base.clone()), prefix: prefix.clone(), gone, total });
    }
    let blobs = left_out.iter().map(|blob| (blob.entry.digest, (blob.repository.clone(), blob.entry.size))).collect();
    Ok(BaseThere { base: base.clone(), blobs })
}

fn foreign(base: &BaseRef, prefix: &Prefix, reason: &str) -> LoadError {
    LoadError::Foreign {
        name: format!("{}.{}", base.bundle, base.version),
        prefix: prefix.clone(),
        reason: reason.to_owned(),
    }
}
