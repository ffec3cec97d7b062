//! Reading and verifying a bundle in one forward pass with constant memory.
//!
//! What a hostile archive may try, and where it stops:
//!
//! * any name, link, device, mode, owner, sparse or extended header, duplicate, reordered, missing or added entry, size in
//!   another spelling: no header is parsed. The one that must come next is computed from the signed metadata, and 512
//!   bytes are compared (`Input::expect_header`);
//! * the metadata's own headers, whose sizes are not signed: recomputed from the name that must come and the claimed size,
//!   within a bound, and compared all the same (`Input::small_file`);
//! * something hidden in padding, after the end, a second archive, truncation: `Input::padding`, [`BundleReader::finish`];
//! * changed content: each entry's digest is checked before its last bytes are handed on ([`BlobReader`]);
//! * hostile metadata: [`crate::trust::metadata`]; hostile manifests: [`super::graph`];
//! * nothing is written to disk, and nothing is proven before [`BundleReader::finish`].

use std::collections::BTreeMap;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use jiff::Timestamp;
use tokio::io::{AsyncRead, ReadBuf};

use super::archive;
use super::catalog;
use super::contents::{BaseBlob, BaseRef, Contents, content_digest};
use super::error::BundleError;
use super::graph::{Companion, Graph, Item, PushManifest};
use super::input::Input;
use super::oci;
use crate::base::digest::{Digest, Hasher};
use crate::base::limits::Limits;
use crate::model::catalog::{CATALOG_REPOSITORY, Catalog};
use crate::model::provenance::BundleRef;
use crate::trust::TrustError;
use crate::trust::metadata::{self, MetadataFiles, VerifiedMetadata};
use crate::trust::remembered::{Candidate, Offer, Remembered, Use};
use crate::trust::root::TrustRoot;

/// What is read at once when a blob is skipped.
const SKIP_BYTES: usize = 256 << 10;

/// A bundle whose metadata, manifests and catalog were verified, and whose blobs stream by.
pub struct BundleReader<R> {
    input: Input<R>,
    verified: VerifiedMetadata,
    offer: Offer,
    bundle: BundleRef,
    contents: Contents,
    graph: Graph,
    catalog: Catalog,
    catalog_bytes: Bytes,
    /// How many blobs were begun.
    begun: usize,
    current: Option<Current>,
    failed: Option<BundleError>,
    dead: bool,
    scratch: Vec<u8>,
}

/// What is left of the blob under way.
struct Current {
    remaining: u64,
    hasher: Hasher,
}

/// A blob of the bundle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlobDescriptor {
    /// Its digest.
    pub digest: Digest,
    /// Its length in bytes.
    pub size: u64,
    /// Its media type.
    pub media_type: String,
}

/// One blob while it streams by: exactly its bytes, and the last of them only after the digest was found right. A reader
/// that sees an error never had the whole content. What is not read is read and verified by the next call on the
/// [`BundleReader`].
pub struct BlobReader<'a, R> {
    bundle: &'a mut BundleReader<R>,
    descriptor: BlobDescriptor,
}

/// A tag that may be moved once everything was verified and pushed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tag {
    /// The repository, below the prefix.
    pub repository: String,
    /// The tag: `NAME.VERSION` of the bundle, and `NAME` for its newest version. A bundle's name has no dot, so that the two
    /// never collide. A chart has the tag of its own version besides, by which Helm asks for it: it has two dots or more.
    /// A companion that is found by a tag has that one.
    pub tag: String,
    /// The digest of the manifest or index.
    pub digest: Digest,
    /// Its media type.
    pub media_type: String,
    /// Its length in bytes.
    pub size: u64,
}

/// The proof that a whole bundle was verified. Only [`BundleReader::finish`] makes one.
#[derive(Debug)]
pub struct VerifiedBundle {
    bundle: BundleRef,
    created: Timestamp,
    catalog: Catalog,
    catalog_manifest: Digest,
    metadata: MetadataFiles,
    tags: Vec<Tag>,
    offer: Offer,
    bytes: u64,
    expires: Timestamp,
}

impl VerifiedBundle {
    /// When the first of its metadata expires.
    pub fn expires(&self) -> Timestamp {
        self.expires
    }

    /// Which bundle it is.
    pub fn bundle(&self) -> &BundleRef {
        &self.bundle
    }

    /// When it was locked.
    pub fn created(&self) -> Timestamp {
        self.created
    }

    /// What is in it.
    pub fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    /// The digest of the catalog artifact's manifest.
    pub fn catalog_manifest(&self) -> Digest {
        self.catalog_manifest
    }

    /// The metadata files by name, to be kept with the catalog, so that [`super::catalog::verify_catalog`] can verify it again.
    pub fn metadata(&self) -> &MetadataFiles {
        &self.metadata
    }

    /// The tags to move, the catalog's last: whoever finds the bundle by its name finds all of it.
    pub fn tags(&self) -> &[Tag] {
        &self.tags
    }

    /// The length of the whole archive in bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Remembers the version, so that no older one is accepted any more, and what it says about others. To be called before any tag moves.
    ///
    /// # Errors
    /// When a newer version was remembered meanwhile, or the file can't be written.
    pub fn remember(&self) -> Result<(), TrustError> {
        self.offer.remember(&self.catalog.notices, Use::First)
    }
}

impl<R: AsyncRead + Unpin + Send> BundleReader<R> {
    /// Reads and verifies everything up to the first large blob: metadata, image layout, manifests and catalog.
    ///
    /// # Errors
    /// When anything is not as the pinned root, the remembered versions, the clock `now` and the limits ask for.
    pub async fn open(
        reader: R,
        root: &TrustRoot,
        remembered: &Remembered,
        limits: &Limits,
        now: Timestamp,
    ) -> Result<Self, BundleError> {
        let mut input = Input { reader, offset: 0 };
        let files = input.metadata(limits).await?;
        let verified = metadata::verify(files, root, limits, now).await?;
        let contents = Contents::from_targets(verified.targets(), limits)?;
        let content = content_digest(verified.targets());
        let offer = remembered.check(Candidate::of(&verified, &contents.name, content, contents.created), now)?;
        let bundle = BundleRef {
            name: contents.name.clone(),
            version: contents.version,
            digest: content,
            root: verified.fingerprint(),
        };

        if input.entry(&contents.layout).await? != oci::LAYOUT {
            let reason = "it is not that of an OCI image layout 1.0.0".to_owned();
            return Err(BundleError::Layout { entry: super::contents::OCI_LAYOUT, reason });
        }
        let index = input.entry(&contents.index).await?;
        let mut documents = BTreeMap::new();
        for entry in &contents.documents {
            documents.insert(entry.digest, Bytes::from(input.entry(entry).await?));
        }
        let graph = Graph::build(&contents, &index, &documents, limits)?;
        let (catalog, catalog_bytes) = find_catalog(&graph, &documents, &bundle, contents.created)?;
        catalog::check_items(&catalog, graph.index())?;
        Ok(Self {
            input,
            verified,
            offer,
            bundle,
            contents,
            graph,
            catalog,
            catalog_bytes,
            begun: 0,
            current: None,
            failed: None,
            dead: false,
            scratch: Vec::new(),
        })
    }

    /// Which bundle it is.
    pub fn bundle(&self) -> &BundleRef {
        &self.bundle
    }

    /// When it was locked.
    pub fn created(&self) -> Timestamp {
        self.contents.created
    }

    /// What is in it.
    pub fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    /// The exact JSON of the catalog: a blob of the catalog artifact that does not come by in [`BundleReader::next_blob`].
    pub fn catalog_blob(&self) -> (BlobDescriptor, Bytes) {
        let descriptor = BlobDescriptor {
            digest: Digest::of(&self.catalog_bytes),
            size: self.catalog_bytes.len() as u64,
            media_type: crate::model::catalog::CATALOG_MEDIA_TYPE.to_owned(),
        };
        (descriptor, self.catalog_bytes.clone())
    }

    /// The version of the newest root in the bundle.
    pub fn root_version(&self) -> u64 {
        self.verified.root_version()
    }

    /// When the first of its metadata expires.
    pub fn expires(&self) -> Timestamp {
        self.verified.expires()
    }

    /// The images and artifacts of the bundle, by repository.
    pub fn items(&self) -> Vec<Item> {
        self.graph
            .index()
            .iter()
            .map(|(repository, d)| Item {
                repository: repository.clone(),
                digest: d.digest,
                media_type: d.media_type.clone(),
                size: d.size,
            })
            .collect()
    }

    /// Signatures, SBOMs and the like that travel with the items, by repository.
    pub fn companions(&self) -> &[Companion] {
        self.graph.companions()
    }

    /// How many bytes this repository needs: manifests, configurations and layers, those of companions among them.
    pub fn bytes_of(&self, repository: &str) -> u64 {
        self.graph.bytes_of(repository, &self.contents)
    }

    /// All manifests in the order in which they can be pushed: children before the indexes that name them.
    pub fn manifests(&self) -> &[PushManifest] {
        self.graph.manifests()
    }

    /// The repositories that need this blob, sorted.
    pub fn blob_repositories(&self, blob: &Digest) -> Vec<String> {
        self.graph.blob_repositories(blob)
    }

    /// What a delta bundle was made against; `None` for a whole one.
    pub fn base(&self) -> Option<&BaseRef> {
        self.contents.base.as_ref()
    }

    /// The blobs that are signed and not in the archive: the registry must have them before anything is written to it.
    pub fn base_blobs(&self) -> &[BaseBlob] {
        &self.contents.base_blobs
    }

    /// The number of large blobs in the archive and their bytes together.
    pub fn blob_totals(&self) -> (usize, u64) {
        (self.contents.blobs.len(), self.contents.blobs.iter().map(|e| e.size).sum())
    }

    /// The next large blob, or `None` after the last. What is left of the one before is read and verified first.
    ///
    /// # Errors
    /// When the one before did not have its digest, the header is not the one that must come, or reading fails. Every
    /// later call fails too.
    pub async fn next_blob(&mut self) -> Result<Option<BlobReader<'_, R>>, BundleError> {
        self.complete_current().await?;
        let Some(entry) = self.contents.blobs.get(self.begun).cloned() else { return Ok(None) };
        let header = self.input.expect_header(&entry.name, entry.size).await;
        self.or_die(header)?;
        self.begun += 1;
        self.current = Some(Current { remaining: entry.size, hasher: Hasher::new() });
        if entry.size == 0 {
            let checked = self.check_digest();
            self.or_die(checked)?;
        }
        let descriptor = BlobDescriptor { digest: entry.digest, size: entry.size, media_type: entry.media_type };
        Ok(Some(BlobReader { bundle: self, descriptor }))
    }

    /// Ends the reading: the end marker, and nothing after it. Gives the proof.
    ///
    /// # Errors
    /// When a blob was not asked for yet, or the archive does not end where it must.
    pub async fn finish(mut self) -> Result<VerifiedBundle, BundleError> {
        self.complete_current().await?;
        if self.begun < self.contents.blobs.len() {
            return Err(BundleError::Unread(self.contents.blobs.len() - self.begun));
        }
        let offset = self.input.offset;
        let mut end = archive::END;
        self.input.exact("the end marker", &mut end).await?;
        if end != archive::END {
            return Err(BundleError::EndMarker { offset });
        }
        let bytes = self.input.offset;
        if self.input.some(&mut [0]).await? != 0 {
            return Err(BundleError::Trailing { offset: bytes });
        }
        let catalog_manifest = self.graph.index()[CATALOG_REPOSITORY].digest;
        Ok(VerifiedBundle {
            tags: tags(&self.bundle, &self.items(), &self.catalog, self.graph.companions()),
            bundle: self.bundle,
            created: self.contents.created,
            catalog: self.catalog,
            catalog_manifest,
            metadata: self.verified.files().clone(),
            offer: self.offer,
            bytes,
            expires: self.verified.expires(),
        })
    }

    /// Reads what is left of the blob under way, and its padding.
    async fn complete_current(&mut self) -> Result<(), BundleError> {
        if self.dead {
            return Err(self.failed.take().unwrap_or(BundleError::Dead));
        }
        if self.current.is_none() {
            return Ok(());
        }
        self.scratch.resize(SKIP_BYTES, 0);
        let mut scratch = std::mem::take(&mut self.scratch);
        let read = loop {
            let mut buffer = ReadBuf::new(&mut scratch);
            match std::future::poll_fn(|cx| self.poll_current(cx, &mut buffer)).await {
                Ok(()) if buffer.filled().is_empty() => break Ok(()),
                Ok(()) => {}
                Err(error) => break Err(error),
            }
        };
        self.scratch = scratch;
        if let Err(error) = read {
            return Err(self.failed.take().unwrap_or(BundleError::Io { offset: self.input.offset, source: error }));
        }
        self.current = None;
        let entry = self.contents.blobs[self.begun - 1].clone();
        let padding = self.input.padding(&entry.name, entry.size).await;
        self.or_die(padding)
    }

    fn or_die<T>(&mut self, result: Result<T, BundleError>) -> Result<T, BundleError> {
        self.dead |= result.is_err();
        result
    }

    /// Compares the digest of the blob under way, all of which was read.
    fn check_digest(&mut self) -> Result<(), BundleError> {
        let entry = &self.contents.blobs[self.begun - 1];
        let found = self.current.as_mut().map(|c| std::mem::take(&mut c.hasher).finish());
        if found == Some(entry.digest) {
            return Ok(());
        }
        Err(BundleError::Digest {
            entry: entry.name.clone(),
            offset: self.input.offset,
            expected: entry.digest,
            found: found.unwrap_or_else(|| Digest::of([])),
        })
    }

    /// Reads a part of the blob under way. The part that ends it is handed on only when the digest is right.
    fn poll_current(&mut self, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.dead {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, "the bundle was refused")));
        }
        let Some(current) = &mut self.current else { return Poll::Ready(Ok(())) };
        let want = usize::try_from(current.remaining).unwrap_or(usize::MAX).min(buffer.remaining());
        if want == 0 {
            return Poll::Ready(Ok(()));
        }
        let mut part = ReadBuf::new(buffer.initialize_unfilled_to(want));
        let polled = ready!(Pin::new(&mut self.input.reader).poll_read(cx, &mut part));
        let count = part.filled().len();
        self.input.offset += count as u64;
        let result = match polled {
            Err(source) => Err(BundleError::Io { offset: self.input.offset, source }),
            Ok(()) if count == 0 => {
                let entry = self.contents.blobs[self.begun - 1].name.clone();
                Err(BundleError::Truncated { entry, offset: self.input.offset })
            }
            Ok(()) => {
                current.hasher.update(part.filled());
                current.remaining -= count as u64;
                if current.remaining == 0 { self.check_digest() } else { Ok(()) }
            }
        };
        match result {
            Ok(()) => {
                buffer.advance(count);
                Poll::Ready(Ok(()))
            }
            Err(error) => {
                let shown = io::Error::new(io::ErrorKind::InvalidData, error.to_string());
                self.dead = true;
                self.failed = Some(error);
                Poll::Ready(Err(shown))
            }
        }
    }
}

impl<R: AsyncRead + Unpin + Send> BlobReader<'_, R> {
    /// Which blob it is.
    pub fn descriptor(&self) -> &BlobDescriptor {
        &self.descriptor
    }

    /// The repositories that need it, sorted.
    pub fn repositories(&self) -> Vec<String> {
        self.bundle.blob_repositories(&self.descriptor.digest)
    }

    /// Reads and verifies the rest without handing it on, as for a blob that the registry has already.
    ///
    /// # Errors
    /// When it does not have its digest, or reading fails.
    pub async fn skip(self) -> Result<(), BundleError> {
        self.bundle.complete_current().await
    }
}

impl<R: AsyncRead + Unpin + Send> AsyncRead for BlobReader<'_, R> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.get_mut().bundle.poll_current(cx, buffer)
    }
}

fn find_catalog(
    graph: &Graph,
    documents: &BTreeMap<Digest, Bytes>,
    bundle: &BundleRef,
    created: Timestamp,
) -> Result<(Catalog, Bytes), BundleError> {
    let missing = || BundleError::Catalog("there is none in the bundle".to_owned());
    let digest = graph.index().get(CATALOG_REPOSITORY).ok_or_else(missing)?.digest;
    let manifest = graph.manifest(&digest).ok_or_else(missing)?;
    let bytes = documents.get(&catalog::layer(digest, manifest)?.digest).ok_or_else(missing)?;
    Ok((catalog::parse(bytes, bundle, created)?, bytes.clone()))
}

fn tags(bundle: &BundleRef, items: &[Item], catalog: &Catalog, companions: &[Companion]) -> Vec<Tag> {
    let of = |item: &Item, tag: String| Tag {
        repository: item.repository.clone(),
        tag,
        digest: item.digest,
        media_type: item.media_type.clone(),
        size: item.size,
    };
    let versioned = format!("{}.{}", bundle.name, bundle.version);
    // Companions first: whoever finds an item by its tag and asks for its signature must find that, too.
    let found_by_tag = companions.iter().filter_map(|companion| {
        Some(Tag {
            repository: companion.repository.clone(),
            tag: companion.tag.clone()?,
            digest: companion.digest,
            media_type: companion.media_type.clone(),
            size: companion.size,
        })
    });
    let charts = catalog.charts.iter().filter_map(|chart| {
        let item = items.iter().find(|item| item.repository == chart.item.repository)?;
        Some(of(item, chart.tag()))
    });
    let (catalog, others): (Vec<&Item>, Vec<&Item>) = items.iter().partition(|i| i.repository == CATALOG_REPOSITORY);
    // The name alone is the newest version that was loaded; the catalog under that name is what a run begins with.
    let ordered = || others.iter().chain(&catalog);
    let versions = ordered().map(|item| of(item, versioned.clone()));
    found_by_tag.chain(charts).chain(versions).chain(ordered().map(|item| of(item, bundle.name.clone()))).collect()
}
