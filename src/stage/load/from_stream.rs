//! The blobs of a bundle that streams by: each goes up while it is read, and small ones while the next are read.

use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::task::JoinSet;
use tokio_util::io::InspectReader;

use super::Load;
use super::error::LoadError;
use super::place::{Origin, Placed, Placer, Wanted};
use crate::bundle::BundleError;
use crate::bundle::head::Head;
use crate::bundle::reader::{BlobReader, BundleReader};
use crate::model::catalog::CATALOG_REPOSITORY;
use crate::model::receipt::Outcome;
use crate::registry::RegistryError;

/// Blobs up to this size are held in memory and go up while the stream goes on. There are as many of them at a time as jobs.
const HELD_BYTES: u64 = 1 << 20;

impl Load<'_> {
    /// Puts all blobs where they must be, in the order in which they come.
    pub(super) async fn blobs_from_stream<R: AsyncRead + Unpin + Send>(
        &self,
        mut reader: BundleReader<R>,
        placer: &Placer,
    ) -> Result<(BundleReader<R>, Vec<Placed>), LoadError> {
        let mut under_way = JoinSet::new();
        let mut placed = Vec::new();
        for wanted in self.blobs_elsewhere(reader.head()) {
            self.begin(&mut under_way, &mut placed, placer, wanted, None).await?;
        }
        while let Some(mut blob) = reader.next_blob().await? {
            let descriptor = blob.descriptor().clone();
            let mut wanted = Wanted {
                digest: descriptor.digest,
                size: descriptor.size,
                repositories: blob.repositories(),
                origin: Origin::Registry(String::new()),
            };
            if descriptor.size <= HELD_BYTES {
                let mut bytes = Vec::with_capacity(descriptor.size as usize);
                match blob.read_to_end(&mut bytes).await {
                    Ok(_) => wanted.origin = Origin::Memory(bytes.into()),
                    Err(error) => return Err(why(blob, error).await),
                }
                self.begin(&mut under_way, &mut placed, placer, wanted, None).await?;
                continue;
            }
            let mut found = placer.find(&wanted).await?;
            if found.is_empty()
                && let Some(name) = wanted.repositories.first()
            {
                let counter = placer.counter.clone();
                let content = InspectReader::new(&mut blob, |bytes| counter.advance(bytes.len() as u64));
                let to = self.prefix.repository(name)?;
                match self.client.push_blob(&to, &wanted.digest, wanted.size, content).await {
                    Ok(()) => {}
                    // The reader knows better than the connection what is wrong with the bundle.
                    Err(RegistryError::Content { action, source }) => {
                        blob.skip().await?;
                        return Err(RegistryError::Content { action, source }.into());
                    }
                    Err(error) => return Err(error.into()),
                }
                found.insert(name.clone(), Outcome::Pushed);
            } else {
                blob.skip().await?;
            }
            if let Some(name) = found.keys().next() {
                wanted.origin = Origin::Registry(name.clone());
            }
            self.begin(&mut under_way, &mut placed, placer, wanted, Some(found)).await?;
        }
        while let Some(joined) = under_way.join_next().await {
            placed.push(joined.map_err(broke_off)??);
        }
        Ok((reader, placed))
    }

    /// Begins with a blob once fewer than the allowed number are under way.
    async fn begin(
        &self,
        under_way: &mut JoinSet<Result<Placed, LoadError>>,
        placed: &mut Vec<Placed>,
        placer: &Placer,
        wanted: Wanted,
        found: Option<std::collections::BTreeMap<String, Outcome>>,
    ) -> Result<(), LoadError> {
        while under_way.len() >= self.jobs.get() {
            if let Some(joined) = under_way.join_next().await {
                placed.push(joined.map_err(broke_off)??);
            }
        }
        let placer = placer.clone();
        under_way.spawn(async move {
            match found {
                None => placer.place(&wanted).await,
                Some(found) => {
                    let pushed = found.values().any(|outcome| *outcome == Outcome::Pushed);
                    let mut done = placer.spread(&wanted, found).await?;
                    done.sent_bytes += if pushed { wanted.size } else { 0 };
                    Ok(done)
                }
            }
        });
        Ok(())
    }

    /// The blobs that don't stream by: the catalog, which was read with the manifests, and those of a delta's base.
    pub(super) fn blobs_elsewhere(&self, head: &Head) -> Vec<Wanted> {
        let (descriptor, bytes) = head.catalog_blob();
        let catalog = Wanted {
            digest: descriptor.digest,
            size: descriptor.size,
            repositories: vec![CATALOG_REPOSITORY.to_owned()],
            origin: Origin::Memory(bytes),
        };
        let base = head.base_blobs().iter().map(|blob| Wanted {
            digest: blob.entry.digest,
            size: blob.entry.size,
            repositories: head.blob_repositories(&blob.entry.digest),
            origin: Origin::Registry(blob.repository.clone()),
        });
        std::iter::once(catalog).chain(base).collect()
    }
}

/// What the reader says of a blob that could not be read.
async fn why<R: AsyncRead + Unpin + Send>(blob: BlobReader<'_, R>, error: std::io::Error) -> LoadError {
    match blob.skip().await {
        Err(error) => error.into(),
        Ok(()) => BundleError::Io { offset: 0, source: error }.into(),
    }
}

fn broke_off(error: tokio::task::JoinError) -> LoadError {
    BundleError::Io { offset: 0, source: std::io::Error::other(error) }.into()
}
