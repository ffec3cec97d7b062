//! What follows the blobs: manifests, the metadata that vouches for the catalog, and tags, which move last.

use std::collections::{BTreeMap, BTreeSet};

use futures::stream::{self, StreamExt, TryStreamExt};

use super::error::LoadError;
use super::place::{Origin, Placer, Wanted};
use super::survey::Survey;
use super::vouch::{EMPTY, metadata_manifest, metadata_tag};
use super::{Done, Load, ReadBack};
use crate::base::digest::Digest;
use crate::bundle::graph::{Item, PushManifest};
use crate::bundle::oci;
use crate::bundle::reader::VerifiedBundle;
use crate::model::catalog::CATALOG_REPOSITORY;
use crate::model::receipt::{Outcome, ReceiptItem, ReceiptTag};
use crate::registry::{AboutSubject, ManifestName, RegistryError, Repository, Tag};

impl Load<'_> {
    /// Puts all manifests where they must be, children before parents; gives those that were sent.
    pub(super) async fn manifests(
        &self,
        manifests: &[PushManifest],
        survey: &Survey,
        done: &mut Done,
    ) -> Result<BTreeSet<(String, Digest)>, LoadError> {
        let mut by_repository: BTreeMap<&str, Vec<&PushManifest>> = BTreeMap::new();
        for manifest in manifests {
            for repository in manifest.repositories.iter().filter(|name| !survey.is_complete(name)) {
                by_repository.entry(repository).or_default().push(manifest);
            }
        }
        let pushed: Vec<Vec<(String, Digest)>> = stream::iter(by_repository)
            .map(|(name, manifests)| async move {
                let repository = self.prefix.repository(name)?;
                let mut pushed = Vec::new();
                for manifest in manifests {
                    if self.manifest_in(&repository, manifest, survey.is_known(name)).await? {
                        pushed.push((name.to_owned(), manifest.digest));
                    }
                }
                Ok::<_, LoadError>(pushed)
            })
            .buffer_unordered(self.jobs.get())
            .try_collect()
            .await?;
        let pushed: BTreeSet<_> = pushed.into_iter().flatten().collect();
        done.manifests += pushed.len() as u64;
        Ok(pushed)
    }

    /// Whether the manifest had to be sent. It is asked for first only where an earlier load may have put it.
    async fn manifest_in(
        &self,
        repository: &Repository,
        manifest: &PushManifest,
        ask: bool,
    ) -> Result<bool, RegistryError> {
        let there = ask && self.client.manifest_exists(repository, &manifest.digest).await?;
        if !there {
            let name = ManifestName::Digest(manifest.digest);
            self.client.push_manifest(repository, &name, &manifest.media_type, &manifest.bytes).await?;
        }
        if let Some(subject) = &manifest.subject {
            let about = AboutSubject {
                subject,
                artifact_type: manifest.artifact_type.as_deref(),
                annotations: &manifest.annotations,
            };
            let size = manifest.bytes.len() as u64;
            self.client.list_referrer(repository, &manifest.digest, &manifest.media_type, size, about).await?;
        }
        Ok(!there)
    }

    /// Keeps the metadata beside the catalog.
    pub(super) async fn metadata(
        &self,
        bundle: &VerifiedBundle,
        placer: &Placer,
        done: &mut Done,
    ) -> Result<(), LoadError> {
        if placer.survey.has_metadata() {
            return Ok(());
        }
        let repository = self.prefix.repository(CATALOG_REPOSITORY)?;
        let files = bundle.metadata().values().map(|bytes| bytes.as_slice()).chain([EMPTY]);
        for bytes in files {
            let (digest, size) = (Digest::of(bytes), bytes.len() as u64);
            let there = self.client.blob_exists(&repository, &digest, size).await?;
            if !there {
                let origin = Origin::Memory(bytes.to_vec().into());
                let repositories = vec![CATALOG_REPOSITORY.to_owned()];
                let wanted = Wanted { digest, size, repositories, origin };
                done.sent_bytes += placer.spread(&wanted, BTreeMap::new()).await?.sent_bytes;
            }
            // It is small, and every run needs all of it.
            if !there || self.read_back == ReadBack::All {
                self.read_blob_back(&repository, &digest, size).await?;
            }
        }
        let manifest = metadata_manifest(bundle.metadata());
        let name = ManifestName::Digest(Digest::of(&manifest));
        self.client.push_manifest(&repository, &name, oci::MANIFEST, &manifest).await?;
        done.manifests += 1;
        Ok(())
    }

    /// Moves the tags: that of the metadata, those of the version, those of the newest version; the catalog's last.
    pub(super) async fn tags(
        &self,
        bundle: &VerifiedBundle,
        manifests: &[PushManifest],
        survey: &Survey,
        done: &mut Done,
    ) -> Result<(), LoadError> {
        let catalog = self.prefix.repository(CATALOG_REPOSITORY)?;
        if !survey.has_metadata() {
            let tag = metadata_tag(&bundle.catalog_manifest())?;
            let manifest = metadata_manifest(bundle.metadata());
            self.client.push_manifest(&catalog, &ManifestName::Tag(tag), oci::MANIFEST, &manifest).await?;
        }
        let wrote = done.manifests > 0 || done.sent_bytes > 0;
        let tags = bundle.tags();
        // One group after the other, and within a group at once.
        let mut groups: Vec<Vec<&crate::bundle::reader::Tag>> = Vec::new();
        for tag in tags {
            match groups.last_mut() {
                Some(group)
                    if group.iter().all(|other| other.tag == tag.tag && other.repository != CATALOG_REPOSITORY)
                        && tag.repository != CATALOG_REPOSITORY =>
                {
                    group.push(tag);
                }
                _ => groups.push(vec![tag]),
            }
        }
        for group in groups {
            let moved: Vec<ReceiptTag> = stream::iter(group)
                .map(|tag| async move {
                    let repository = self.prefix.repository(&tag.repository)?;
                    let name: Tag = tag.tag.parse()?;
                    let before = survey.tag(&tag.repository, &tag.tag) == Some(tag.digest);
                    let moved = !(before && self.still_tagged(&repository, &name, &tag.digest, wrote).await?);
                    if moved {
                        let manifest = manifests
                            .iter()
                            .find(|manifest| manifest.digest == tag.digest)
                            .expect("a tag is for a manifest of the bundle");
                        let name = ManifestName::Tag(name);
                        self.client.push_manifest(&repository, &name, &tag.media_type, &manifest.bytes).await?;
                    }
                    Ok::<_, LoadError>(ReceiptTag { repository: tag.repository.clone(), tag: tag.tag.clone(), moved })
                })
                .buffered(self.jobs.get())
                .try_collect()
                .await?;
            done.tags.extend(moved);
        }
        Ok(())
    }

    /// Whether a tag that pointed to this manifest when the load began still does. Where much was sent since, that may be
    /// hours ago, and another load may have moved it, or somebody removed it.
    async fn still_tagged(
        &self,
        repository: &Repository,
        tag: &Tag,
        digest: &Digest,
        wrote: bool,
    ) -> Result<bool, LoadError> {
        match (self.read_back, wrote) {
            (ReadBack::All, _) => match self.client.manifest(repository, &ManifestName::Tag(tag.clone())).await {
                Ok(found) => Ok(found.digest == *digest),
                Err(error) if error.is_not_found() => Ok(false),
                Err(error) => Err(error.into()),
            },
            (ReadBack::Sample, true) => Ok(self.tag_now(repository, tag).await? == Some(*digest)),
            (ReadBack::Sample, false) => Ok(true),
        }
    }
}

/// What came of each item: that of its own manifest.
pub(super) fn item_outcomes(items: &[Item], survey: &Survey, pushed: &BTreeSet<(String, Digest)>) -> Vec<ReceiptItem> {
    items
        .iter()
        .map(|item| {
            let sent =
                !survey.is_complete(&item.repository) && pushed.contains(&(item.repository.clone(), item.digest));
            let outcome = if sent { Outcome::Pushed } else { Outcome::Present };
            ReceiptItem { repository: item.repository.clone(), digest: item.digest, outcome }
        })
        .collect()
}
