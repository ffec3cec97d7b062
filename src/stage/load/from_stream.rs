//! The blobs of a bundle that streams by: each goes up while it is read, and small ones while the next are read.

use std::collections::{BTreeMap, BTreeSet};

use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::task::JoinSet;
use tokio_util::io::InspectReader;

use super::Load;
use super::base::BaseThere;
use super::error::LoadError;
use super::incomplete::{Incomplete, PutAside};
use super::place::{Origin, Placed, Placer, Wanted};
use super::prepare::Prepared;
use crate::base::digest::Digest;
use crate::bundle::BundleError;
use crate::bundle::head::Head;
use crate::bundle::reader::{BlobReader, BundleReader};
use crate::model::catalog::CATALOG_REPOSITORY;
use crate::model::receipt::Outcome;
use crate::registry::{Blob, RegistryError};

/// Blobs up to this size are held in memory and go up while the stream goes on. There are as many of them at a time as jobs.
const HELD_BYTES: u64 = 1 << 20;

impl Load<'_> {
    /// Puts all blobs where they must be, in the order in which they come. One that does not have its digest is put aside, and
    /// the others go on: a stream may not come a second time, so what is told of it must be told of all of it.
    pub(super) async fn blobs_from_stream<R: AsyncRead + Unpin + Send>(
        &self,
        mut reader: BundleReader<R>,
        prepared: &Prepared,
        placer: &Placer,
    ) -> Result<(BundleReader<R>, Vec<Placed>), LoadError> {
        let mut work = Work { under_way: JoinSet::new(), placed: Vec::new(), jobs: self.jobs.get() };
        for wanted in self.blobs_elsewhere(reader.head(), prepared) {
            work.begin(placer, wanted, None).await?;
        }
        let mut verified = BTreeSet::new();
        let mut reasons: BTreeMap<Digest, BundleError> = BTreeMap::new();
        let cause = loop {
            match self.next_from_stream(&mut reader, placer, &mut work).await {
                Ok(None) => break None,
                Ok(Some(digest)) => {
                    verified.insert(digest);
                }
                Err(LoadError::Bundle(error)) => match error {
                    BundleError::Digest { expected, .. } if reader.pass_over() => {
                        reasons.insert(expected, error);
                    }
                    error => break Some(error),
                },
                Err(error) => return Err(error),
            }
        };
        while let Some(joined) = work.under_way.join_next().await {
            work.placed.push(joined.map_err(broke_off)??);
        }
        if cause.is_none() && reasons.is_empty() {
            return Ok((reader, work.placed));
        }
        let head = reader.head();
        let mut aside = Vec::new();
        for entry in head.blobs().iter().filter(|entry| !verified.contains(&entry.digest)) {
            aside.push(PutAside { reason: reasons.remove(&entry.digest), ..Incomplete::not_seen(head, entry) });
        }
        Err(Incomplete { cause, ..Incomplete::of(head, aside) }.into())
    }

    /// The next blob, verified, and in the registry or on the way there; `None` after the last.
    async fn next_from_stream<R: AsyncRead + Unpin + Send>(
        &self,
        reader: &mut BundleReader<R>,
        placer: &Placer,
        work: &mut Work,
    ) -> Result<Option<Digest>, LoadError> {
        let Some(mut blob) = reader.next_blob().await? else { return Ok(None) };
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
            work.begin(placer, wanted, None).await?;
            return Ok(Some(descriptor.digest));
        }
        let found = placer.find(&wanted).await?;
        let done = match wanted.repositories.first() {
            Some(name) if found.is_empty() => {
                let sent_bytes = self.send_passing(blob, &wanted, name, placer).await?;
                Done { repositories: BTreeMap::from([(name.clone(), Outcome::Pushed)]), sent_bytes }
            }
            _ => {
                blob.skip().await?;
                placer.counter.advance(wanted.size);
                Done { repositories: found, sent_bytes: 0 }
            }
        };
        if let Some(name) = done.repositories.keys().next() {
            wanted.origin = Origin::Registry(name.clone());
        }
        work.begin(placer, wanted, Some(done)).await?;
        Ok(Some(descriptor.digest))
    }

    /// Sends a blob while it streams by; gives the bytes that it took.
    async fn send_passing<R: AsyncRead + Unpin + Send>(
        &self,
        mut blob: BlobReader<'_, R>,
        wanted: &Wanted,
        name: &str,
        placer: &Placer,
    ) -> Result<u64, LoadError> {
        let Wanted { digest, size, .. } = wanted;
        let to = self.prefix.repository(name)?;
        let counter = placer.counter.clone();
        let content = InspectReader::new(&mut blob, |bytes| counter.advance(bytes.len() as u64));
        let pushed = Blob { repository: &to, digest, size: *size };
        match self.client.push_stream(pushed, content, None, placer.sessions.as_ref()).await {
            Ok(sent) => Ok(sent.bytes),
            // The reader knows better than the connection what is wrong with the bundle.
            Err(RegistryError::Content { action, source }) => {
                blob.skip().await?;
                Err(RegistryError::Content { action, source }.into())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// The blobs that don't stream by: the catalog, which was read with the manifests, and those of a delta's base.
    pub(super) fn blobs_elsewhere(&self, head: &Head, prepared: &Prepared) -> Vec<Wanted> {
        let (descriptor, bytes) = head.catalog_blob();
        let catalog = Wanted {
            digest: descriptor.digest,
            size: descriptor.size,
            repositories: vec![CATALOG_REPOSITORY.to_owned()],
            origin: Origin::Memory(bytes),
        };
        let base = prepared.base.iter().flat_map(BaseThere::blobs).map(|(digest, repository, size)| Wanted {
            digest: *digest,
            size,
            repositories: head.blob_repositories(digest),
            origin: Origin::Base(repository.to_owned()),
        });
        std::iter::once(catalog).chain(base).collect()
    }
}

/// What was done of a blob while it streamed by.
struct Done {
    repositories: BTreeMap<String, Outcome>,
    sent_bytes: u64,
}

/// Blobs on their way into the registry.
struct Work {
    under_way: JoinSet<Result<Placed, LoadError>>,
    placed: Vec<Placed>,
    jobs: usize,
}

impl Work {
    /// Begins with a blob once fewer than the allowed number are under way.
    async fn begin(&mut self, placer: &Placer, wanted: Wanted, done: Option<Done>) -> Result<(), LoadError> {
        while self.under_way.len() >= self.jobs {
            if let Some(joined) = self.under_way.join_next().await {
                self.placed.push(joined.map_err(broke_off)??);
            }
        }
        let placer = placer.clone();
        self.under_way.spawn(async move {
            match done {
                None => placer.place(&wanted).await,
                Some(done) => {
                    let mut placed = placer.spread(&wanted, done.repositories).await?;
                    placed.sent_bytes += done.sent_bytes;
                    Ok(placed)
                }
            }
        });
        Ok(())
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
