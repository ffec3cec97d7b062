//! What is verified before the first large blob is read, and the proof that is made of it in the end.

use std::collections::BTreeMap;

use bytes::Bytes;
use jiff::Timestamp;
use tokio::io::AsyncRead;

use super::catalog;
use super::contents::{BaseBlob, BaseRef, Contents, Entry, OCI_LAYOUT, content_digest};
use super::error::BundleError;
use super::graph::{Companion, Graph, Item, PushManifest};
use super::input::Input;
use super::notice;
use super::oci;
use super::reader::BlobDescriptor;
use crate::base::digest::Digest;
use crate::base::limits::Limits;
use crate::model::catalog::{CATALOG_MEDIA_TYPE, CATALOG_REPOSITORY, Catalog};
use crate::model::provenance::BundleRef;
use crate::trust::TrustError;
use crate::trust::metadata::{self, MetadataFiles, VerifiedMetadata};
use crate::trust::remembered::{Candidate, Offer, Remembered, Use};
use crate::trust::root::TrustRoot;

/// The verified beginning of a bundle: metadata, image layout, manifests and catalog.
pub struct Head {
    verified: VerifiedMetadata,
    offer: Offer,
    bundle: BundleRef,
    pub(super) contents: Contents,
    graph: Graph,
    catalog: Catalog,
    catalog_bytes: Bytes,
}

impl Head {
    /// Reads and verifies everything up to the first large blob.
    pub(super) async fn read<R: AsyncRead + Unpin + Send>(
        input: &mut Input<R>,
        root: &TrustRoot,
        remembered: &Remembered,
        limits: &Limits,
        now: Timestamp,
    ) -> Result<Self, BundleError> {
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
            return Err(BundleError::Layout { entry: OCI_LAYOUT, reason });
        }
        let index = input.entry(&contents.index).await?;
        let mut documents = BTreeMap::new();
        for entry in &contents.documents {
            documents.insert(entry.digest, Bytes::from(input.entry(entry).await?));
        }
        let graph = Graph::build(&contents, &index, &documents, limits)?;
        let (catalog, catalog_bytes) = find_catalog(&graph, &documents, &bundle, contents.created)?;
        catalog::check_items(&catalog, graph.index())?;
        notice::check(&catalog.notices, &contents)?;
        Ok(Self { verified, offer, bundle, contents, graph, catalog, catalog_bytes })
    }

    /// The proof, once every blob was verified, or vouched for: `unread` are the latter, in the order of the archive.
    pub(super) fn verified(self, bytes: u64, unread: Vec<Digest>) -> VerifiedBundle {
        let catalog_manifest = self.catalog_manifest();
        VerifiedBundle {
            tags: self.tags(),
            bundle: self.bundle,
            created: self.contents.created,
            catalog: self.catalog,
            catalog_manifest,
            metadata: self.verified.files().clone(),
            offer: self.offer,
            bytes,
            expires: self.verified.expires(),
            left_out: self.contents.base_blobs.iter().map(|blob| blob.entry.clone()).collect(),
            base: self.contents.base,
            unread,
        }
    }

    /// The digest of the catalog artifact's manifest.
    pub fn catalog_manifest(&self) -> Digest {
        // `Head::read` has found the catalog there.
        self.graph.index()[CATALOG_REPOSITORY].digest
    }

    /// The tags that are moved once everything is there, in their order.
    pub fn tags(&self) -> Vec<Tag> {
        tags(&self.bundle, &self.items(), &self.catalog, self.graph.companions())
    }

    /// The metadata files by name.
    pub fn metadata(&self) -> &MetadataFiles {
        self.verified.files()
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

    /// The exact JSON of the catalog: a blob of the catalog artifact that does not come by in [`super::reader::BundleReader::next_blob`] and is none of [`super::random::BundleFile::blobs`].
    pub fn catalog_blob(&self) -> (BlobDescriptor, Bytes) {
        let descriptor = BlobDescriptor {
            digest: Digest::of(&self.catalog_bytes),
            size: self.catalog_bytes.len() as u64,
            media_type: CATALOG_MEDIA_TYPE.to_owned(),
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

    /// The bytes that each repository needs, those of companions among them; blobs that several need count for each.
    pub fn sizes(&self) -> BTreeMap<String, u64> {
        self.graph.sizes(&self.contents)
    }

    /// A manifest of the bundle, parsed.
    pub fn manifest(&self, digest: &Digest) -> Option<&oci::Manifest> {
        self.graph.manifest(digest)
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

    /// The large blobs of the archive, in its order.
    pub fn blobs(&self) -> &[Entry] {
        &self.contents.blobs
    }

    /// The number of large blobs in the archive and their bytes together.
    pub fn blob_totals(&self) -> (usize, u64) {
        (self.contents.blobs.len(), self.contents.blobs.iter().map(|e| e.size).sum())
    }
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

/// The proof that a whole bundle was verified. Only [`super::reader::BundleReader::finish`] and
/// [`super::random::BundleFile::finish`] make one, the latter also where the registry was known to have some of the blobs:
/// those were not read from this archive, and [`VerifiedBundle::unread`] names them.
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
    base: Option<BaseRef>,
    left_out: Vec<Entry>,
    unread: Vec<Digest>,
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

    /// What it is a delta against; `None` for a whole one.
    pub fn base(&self) -> Option<&BaseRef> {
        self.base.as_ref()
    }

    /// The blobs that a delta leaves out: nothing was seen of them but their digests.
    pub fn left_out(&self) -> &[Entry] {
        &self.left_out
    }

    /// The blobs of the archive that were not read, because the registry was known to have them; sorted. What this archive
    /// holds for them is unknown.
    pub fn unread(&self) -> &[Digest] {
        &self.unread
    }

    /// Remembers the version, so that no older one is accepted any more, and what it says about others. To be called before
    /// any tag moves.
    ///
    /// # Errors
    /// When a newer version was remembered meanwhile, or the file can't be written.
    pub fn remember(&self) -> Result<(), TrustError> {
        self.offer.remember(&self.catalog.notices, Use::First)
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
