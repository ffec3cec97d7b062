//! What a load would do, without doing it: the bundle is verified whole, the registry is asked what it has, and nothing is
//! written, neither there nor here. It ends as the load would.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::stream::{self, StreamExt, TryStreamExt};
use serde::Serialize;
use tokio::io::AsyncRead;

use super::Load;
use super::base::BaseThere;
use super::error::LoadError;
use super::from_parts::in_parts;
use super::incomplete::Incomplete;
use super::mapping::Mapping;
use crate::base::digest::Digest;
use crate::bundle::media::{Media, NobodyToAsk};
use crate::bundle::read_at::{FromStart, ReadAt};
use crate::bundle::reader::BundleReader;
use crate::model::provenance::BundleRef;
use crate::registry::Tag;

/// What is read from an archive at a time.
const READ_BYTES: usize = 256 << 10;

/// What a load would do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Rehearsal {
    /// The bundle, verified to its last byte.
    pub bundle: BundleRef,
    /// `HOST[:PORT][/PREFIX]`
    pub registry: String,
    /// The content digest of the base of a delta, which is there with all that is left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub base: Option<Digest>,
    /// The items, by repository below the prefix.
    pub items: Vec<PlannedItem>,
    /// The tags that would move.
    pub tags: Vec<PlannedTag>,
    /// The blobs, counted by what would become of them in each repository that needs them.
    pub blobs: PlannedBlobs,
    /// The version that would be remembered: older ones would be refused from then on.
    pub remembers: u64,
    /// How many bytes the registry can still take, where it tells.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub available_bytes: Option<u64>,
}

/// What would become of an item.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PlannedItem {
    /// Its repository below the prefix.
    pub repository: String,
    /// The digest of its manifest or index.
    pub digest: Digest,
    /// Whether the manifest is there.
    pub present: bool,
    /// How many bytes of its blobs would be sent for it.
    pub push_bytes: u64,
}

/// A tag that would move.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PlannedTag {
    /// The repository below the prefix.
    pub repository: String,
    /// The tag.
    pub tag: String,
    /// Where it points now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<Digest>,
    /// Where it would point.
    pub to: Digest,
}

/// Blobs by what would become of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PlannedBlobs {
    /// Would be sent.
    pub push: u64,
    /// Their bytes: what the registry must have room for.
    pub push_bytes: u64,
    /// Would be taken by the registry from another of its repositories.
    pub mount: u64,
    /// Are there.
    pub present: u64,
    /// Their bytes.
    pub present_bytes: u64,
}

impl Load<'_> {
    /// Verifies the bundle that `source` yields, and says what loading it would do.
    ///
    /// # Errors
    /// As the load would: when the bundle is refused, its base is not there, the registry can't be asked or has too little
    /// room.
    ///
    /// # Cancel safety
    /// Nothing is written, so it can be dropped at any time.
    pub async fn rehearse<R: AsyncRead + Unpin + Send>(&self, source: R) -> Result<Rehearsal, LoadError> {
        let mapping = Mapping::new(self.prefix)?;
        let mut reader = BundleReader::open(source, self.root, self.remembered, self.limits, self.now).await?;
        let base = self.base(reader.head()).await?;
        let items = reader.items();
        let mut wanted: Vec<(Digest, u64, Vec<String>)> = Vec::new();
        let (catalog, _) = reader.catalog_blob();
        wanted.push((catalog.digest, catalog.size, reader.blob_repositories(&catalog.digest)));
        for (digest, _, size) in base.iter().flat_map(BaseThere::blobs) {
            wanted.push((*digest, size, reader.blob_repositories(digest)));
        }

        let (_, total) = reader.blob_totals();
        let name = format!("{} {}", reader.bundle().name, reader.bundle().version);
        let step = self.progress.bytes(format!("verify {name}"), total);
        while let Some(blob) = reader.next_blob().await? {
            let (digest, size) = (blob.descriptor().digest, blob.descriptor().size);
            wanted.push((digest, size, blob.repositories()));
            blob.skip().await?;
            step.advance(size);
        }
        let bundle = reader.finish().await?;
        step.done("all of it has its signed digest");

        let mut blobs = PlannedBlobs::default();
        let mut sent: BTreeMap<String, u64> = BTreeMap::new();
        let in_base: BTreeMap<&Digest, &str> =
            base.iter().flat_map(BaseThere::blobs).map(|(digest, repository, _)| (digest, repository)).collect();
        for (digest, size, names) in &wanted {
            let there = self.there(&mapping, names, digest, *size).await?;
            let have = there.iter().filter(|there| **there).count() as u64;
            let mut lack = names.len() as u64 - have;
            blobs.present += have;
            blobs.present_bytes += have * size;
            if lack > 0 && have == 0 && !in_base.contains_key(digest) {
                lack -= 1;
                blobs.push += 1;
                blobs.push_bytes += size;
                *sent.entry(names[0].clone()).or_default() += size;
            }
            blobs.mount += lack;
        }
        let available_bytes = self.client.available_bytes().await?;
        if let Some(available) = available_bytes
            && available < blobs.push_bytes
        {
            return Err(LoadError::Space { prefix: self.prefix.clone(), needed: blobs.push_bytes, available });
        }

        let mut planned = Vec::new();
        for item in items {
            let repository = mapping.repository(&item.repository)?;
            let present = self.client.manifest_exists(&repository, &item.digest).await?;
            let push_bytes = sent.get(&item.repository).copied().unwrap_or(0);
            planned.push(PlannedItem { repository: item.repository, digest: item.digest, present, push_bytes });
        }
        let mut tags = Vec::new();
        for tag in bundle.tags() {
            let repository = mapping.repository(&tag.repository)?;
            let from = match self.client.resolve(&repository, &tag.tag.parse::<Tag>()?).await {
                Ok(digest) => Some(digest),
                Err(error) if error.is_not_found() => None,
                Err(error) => return Err(error.into()),
            };
            if from != Some(tag.digest) {
                let (repository, tag_name) = (tag.repository.clone(), tag.tag.clone());
                tags.push(PlannedTag { repository, tag: tag_name, from, to: tag.digest });
            }
        }
        Ok(Rehearsal {
            bundle: bundle.bundle().clone(),
            registry: self.prefix.to_string(),
            base: base.map(|base| base.base().content),
            items: planned,
            tags,
            blobs,
            remembers: bundle.bundle().version,
            available_bytes,
        })
    }

    /// The same for an archive where every byte can be reached.
    ///
    /// # Errors
    /// As [`Load::rehearse`].
    pub async fn rehearse_file(&self, archive: Arc<dyn ReadAt>) -> Result<Rehearsal, LoadError> {
        let stream = tokio::io::BufReader::with_capacity(READ_BYTES, FromStart::new(archive));
        self.rehearse(stream).await
    }

    /// The same for a bundle in parts.
    ///
    /// # Errors
    /// As [`Load::rehearse`]; [`LoadError::Incomplete`] names the parts that are missing or damaged.
    pub async fn rehearse_parts(&self, media: &Media) -> Result<Rehearsal, LoadError> {
        let parts = self.arrange(media, None::<NobodyToAsk>).await?;
        if !parts.lacking().is_empty() {
            return Err(Incomplete::lacking(&parts).into());
        }
        let rehearsed = self.rehearse_file(parts.clone()).await;
        rehearsed.map_err(|error| in_parts(error, &parts))
    }

    async fn there(
        &self,
        mapping: &Mapping<'_>,
        names: &[String],
        digest: &Digest,
        size: u64,
    ) -> Result<Vec<bool>, LoadError> {
        stream::iter(names)
            .map(|name| async move {
                let repository = mapping.repository(name)?;
                Ok(self.client.blob_exists(&repository, digest, size).await?)
            })
            .buffered(self.jobs.get())
            .try_collect()
            .await
    }
}
