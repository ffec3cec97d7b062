//! From a verified bundle into a registry, and back from there at every run.
//!
//! One forward pass: a blob goes up while it is read and verified, so a pipe is as good as a file, and neither memory nor
//! disk grows with the bundle. The order makes any interruption harmless: nothing is sent before the signed metadata
//! verified; a blob is completed only when its digest did; manifests go up only with the [`VerifiedBundle`] in hand; the
//! version is remembered before the first tag moves; and the tag that a run starts from moves last. A load that was
//! interrupted is repeated and finds most of its work done.

pub mod base;
pub mod dry_run;
mod error;
pub mod mapping;
pub mod receipt;
mod vouch;

use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use futures::stream::{self, StreamExt, TryStreamExt};
use jiff::Timestamp;
use tokio::io::AsyncRead;
use tokio_util::io::InspectReader;

pub use error::LoadError;
pub use vouch::read_catalog;

use crate::base::digest::Digest;
use crate::base::limits::Limits;
use crate::base::progress::{Progress, Step};
use crate::base::quantity::bytes_for_people;
use crate::bundle::graph::PushManifest;
use crate::bundle::oci;
use crate::bundle::reader::{BlobReader, BundleReader, VerifiedBundle};
use crate::model::catalog::CATALOG_REPOSITORY;
use crate::registry::reference::NameError;
use crate::registry::{Client, ManifestName, Mount, Prefix, RegistryError, Repository, Tag};
use crate::trust::remembered::Remembered;
use crate::trust::root::TrustRoot;
use vouch::metadata_tag;

/// Where a bundle is loaded to, and what it must satisfy.
#[derive(Clone, Copy, Debug)]
pub struct Load<'a> {
    /// The registry.
    pub client: &'a Client,
    /// The registry again, and the path in it that repositories are put below.
    pub prefix: &'a Prefix,
    /// The pinned root.
    pub root: &'a TrustRoot,
    /// The versions that were accepted before.
    pub remembered: &'a Remembered,
    /// Bounds on what the bundle may be.
    pub limits: &'a Limits,
    /// What time it is.
    pub now: Timestamp,
    /// Requests that may run at the same time beside the stream of blobs.
    pub jobs: NonZeroUsize,
    /// Where progress is shown.
    pub progress: &'a Progress,
}

/// The proof that a bundle was verified and is in the registry, and what that took. Only [`Load::run`] makes one.
#[derive(Debug)]
pub struct LoadedBundle {
    bundle: VerifiedBundle,
    counts: Counts,
    elapsed: Duration,
}

/// What was done; bytes are those of blobs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Blobs that were sent.
    pub pushed: u64,
    /// Their bytes.
    pub pushed_bytes: u64,
    /// Blobs that the repository had already.
    pub skipped: u64,
    /// Their bytes.
    pub skipped_bytes: u64,
    /// Blobs that the registry took from another of its repositories.
    pub mounted: u64,
    /// Blobs that were copied from one repository to another, because the registry does not mount.
    pub copied: u64,
    /// Manifests that were sent.
    pub manifests: u64,
    /// Tags that were moved.
    pub tags: u64,
}

impl LoadedBundle {
    /// The bundle.
    pub fn bundle(&self) -> &VerifiedBundle {
        &self.bundle
    }

    /// What was done.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// How long it took.
    pub fn elapsed(&self) -> Duration {
        self.elapsed
    }
}

impl Load<'_> {
    /// Verifies the bundle that `source` yields and puts it into the registry.
    ///
    /// # Errors
    /// When the bundle is refused: then no tag was moved, and no repository is touched unless its metadata verified. When
    /// the registry fails: then the same can be repeated.
    ///
    /// # Cancel safety
    /// Dropped at any time, it leaves blobs and manifests that nothing points to, and can be repeated.
    pub async fn run<R: AsyncRead + Unpin + Send>(&self, source: R) -> Result<LoadedBundle, LoadError> {
        let started = Instant::now();
        let mut counts = Counts::default();
        let mut reader = BundleReader::open(source, self.root, self.remembered, self.limits, self.now).await?;
        let (number, total) = reader.blob_totals();
        let name = format!("{} {}", reader.bundle().name, reader.bundle().version);
        self.progress.say(format!(
            "bundle {name}: signatures verified; {} items, {number} blobs, {}",
            reader.items().len().saturating_sub(1),
            bytes_for_people(total)
        ));
        let manifests = reader.manifests().to_vec();

        let step = self.progress.bytes(format!("blobs of {name}"), total);
        let catalog_repository = self.prefix.repository(CATALOG_REPOSITORY)?;
        let (descriptor, bytes) = reader.catalog_blob();
        self.push_bytes(&catalog_repository, &descriptor.digest, &bytes, &mut counts).await?;
        while let Some(blob) = reader.next_blob().await? {
            self.blob(blob, &step, &mut counts).await?;
        }
        let bundle = reader.finish().await?;
        step.done(format!(
            "{} pushed ({}), {} there already, {} mounted",
            counts.pushed,
            bytes_for_people(counts.pushed_bytes),
            counts.skipped,
            counts.mounted + counts.copied
        ));

        for manifest in &manifests {
            self.manifest(manifest, &mut counts).await?;
        }
        let metadata = self.metadata_artifact(&bundle, &catalog_repository, &mut counts).await?;
        bundle.remember()?;
        self.tag(
            &catalog_repository,
            &metadata_tag(&bundle.catalog_manifest())?,
            oci::MANIFEST,
            &metadata,
            &mut counts,
        )
        .await?;
        for tag in bundle.tags() {
            let manifest =
                manifests.iter().find(|m| m.digest == tag.digest).expect("a tag is for a manifest of the bundle");
            let repository = self.prefix.repository(&tag.repository)?;
            self.tag(&repository, &tag.tag.parse()?, &tag.media_type, &manifest.bytes, &mut counts).await?;
        }
        Ok(LoadedBundle { bundle, counts, elapsed: started.elapsed() })
    }

    /// Puts one blob into every repository that needs it.
    async fn blob<R: AsyncRead + Unpin + Send>(
        &self,
        mut blob: BlobReader<'_, R>,
        step: &Step,
        counts: &mut Counts,
    ) -> Result<(), LoadError> {
        let descriptor = blob.descriptor().clone();
        let (digest, size) = (descriptor.digest, descriptor.size);
        let repositories = self.repositories(&blob.repositories())?;
        let (have, mut missing) = self.sort_out(&repositories, &digest, size).await?;
        counts.skipped += have.len() as u64;
        counts.skipped_bytes += size * have.len() as u64;
        let from = match (have.into_iter().next(), missing.is_empty()) {
            (None, true) => None,
            (None, false) => {
                let first = missing.remove(0);
                let content = InspectReader::new(&mut blob, |bytes| step.advance(bytes.len() as u64));
                match self.client.push_blob(&first, &digest, size, content).await {
                    Ok(()) => {}
                    Err(error @ RegistryError::Content { .. }) => {
                        // The reader knows better than the connection what is wrong with the bundle.
                        blob.skip().await?;
                        return Err(error.into());
                    }
                    Err(error) => return Err(error.into()),
                }
                counts.pushed += 1;
                counts.pushed_bytes += size;
                Some(first)
            }
            (from, _) => {
                blob.skip().await?;
                step.advance(size);
                from
            }
        };
        let Some(from) = from else { return Ok(()) };
        let from = &from;
        let outcomes: Vec<Mount> = stream::iter(missing)
            .map(|repository| async move { self.bring_from(&repository, &digest, size, from).await })
            .buffer_unordered(self.jobs.get())
            .try_collect()
            .await?;
        for outcome in outcomes {
            match outcome {
                Mount::Mounted => counts.mounted += 1,
                Mount::Declined => counts.copied += 1,
            }
        }
        Ok(())
    }

    /// The repositories that have the blob, and those that don't, in their order.
    async fn sort_out(
        &self,
        repositories: &[Repository],
        digest: &Digest,
        size: u64,
    ) -> Result<(Vec<Repository>, Vec<Repository>), LoadError> {
        let there: Vec<bool> = stream::iter(repositories)
            .map(|repository| self.client.blob_exists(repository, digest, size))
            .buffered(self.jobs.get())
            .try_collect()
            .await?;
        let (have, missing): (Vec<_>, Vec<_>) = repositories.iter().cloned().zip(there).partition(|(_, there)| *there);
        let names = |pairs: Vec<(Repository, bool)>| pairs.into_iter().map(|(repository, _)| repository).collect();
        Ok((names(have), names(missing)))
    }

    /// Brings a blob from one repository to another without the bundle: it has passed by.
    async fn bring_from(
        &self,
        to: &Repository,
        digest: &Digest,
        size: u64,
        from: &Repository,
    ) -> Result<Mount, RegistryError> {
        let outcome = self.client.mount(to, digest, from).await?;
        if outcome == Mount::Mounted && self.client.blob_exists(to, digest, size).await? {
            return Ok(Mount::Mounted);
        }
        let content = self.client.blob(from, digest, size).await?;
        self.client.push_blob(to, digest, size, content).await?;
        Ok(Mount::Declined)
    }

    async fn push_bytes(
        &self,
        repository: &Repository,
        digest: &Digest,
        bytes: &[u8],
        counts: &mut Counts,
    ) -> Result<(), LoadError> {
        let size = bytes.len() as u64;
        if self.client.blob_exists(repository, digest, size).await? {
            counts.skipped += 1;
            counts.skipped_bytes += size;
        } else {
            self.client.push_blob(repository, digest, size, bytes).await?;
            counts.pushed += 1;
            counts.pushed_bytes += size;
        }
        Ok(())
    }

    async fn manifest(&self, manifest: &PushManifest, counts: &mut Counts) -> Result<(), LoadError> {
        let repositories = self.repositories(&manifest.repositories)?;
        let pushed: Vec<bool> = stream::iter(&repositories)
            .map(|repository| self.manifest_in(repository, &manifest.media_type, &manifest.bytes))
            .buffer_unordered(self.jobs.get())
            .try_collect()
            .await?;
        counts.manifests += pushed.into_iter().filter(|pushed| *pushed).count() as u64;
        Ok(())
    }

    /// Whether the manifest had to be sent.
    async fn manifest_in(
        &self,
        repository: &Repository,
        media_type: &str,
        bytes: &[u8],
    ) -> Result<bool, RegistryError> {
        let digest = Digest::of(bytes);
        if self.client.manifest_exists(repository, &digest).await? {
            return Ok(false);
        }
        self.client.push_manifest(repository, &ManifestName::Digest(digest), media_type, bytes).await?;
        Ok(true)
    }

    async fn tag(
        &self,
        repository: &Repository,
        tag: &Tag,
        media_type: &str,
        manifest: &[u8],
        counts: &mut Counts,
    ) -> Result<(), LoadError> {
        let now = match self.client.resolve(repository, tag).await {
            Ok(digest) => Some(digest),
            Err(error) if error.is_not_found() => None,
            Err(error) => return Err(error.into()),
        };
        if now != Some(Digest::of(manifest)) {
            self.client.push_manifest(repository, &ManifestName::Tag(tag.clone()), media_type, manifest).await?;
            counts.tags += 1;
        }
        Ok(())
    }

    fn repositories(&self, names: &[String]) -> Result<Vec<Repository>, NameError> {
        names.iter().map(|name| self.prefix.repository(name)).collect()
    }
}

#[cfg(test)]
mod tests;
