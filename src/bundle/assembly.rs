//! Bringing the items of a bundle together: manifests in memory, and for each blob where it comes from.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use super::catalog;
use super::contents::{BaseRef, Contents, Entry};
use super::error::BundleError;
use super::graph::Graph;
use super::oci::{self, BundleIndex, COMPANION_OF, COMPANION_TAG, Descriptor, Manifest, REF_NAME};
use super::source::{Memory, Source};
use super::writer::BuildError;
use crate::base::digest::Digest;
use crate::base::limits::Limits;
use crate::model::catalog::{CATALOG_MEDIA_TYPE, CATALOG_REPOSITORY, Catalog};

/// The items of a bundle that is being built.
pub struct Assembly {
    limits: Limits,
    /// By repository, companions after the item, then by digest: the order of `index.json`.
    index: BTreeMap<(String, bool, Digest), Descriptor>,
    documents: BTreeMap<Digest, (String, Bytes)>,
    blobs: BTreeMap<Digest, (u64, String, Arc<dyn Source>)>,
}

/// A whole bundle, ready to be signed and written.
pub struct Assembled {
    pub(super) contents: Contents,
    pub(super) index: Vec<u8>,
    pub(super) documents: BTreeMap<Digest, Bytes>,
    pub(super) blobs: BTreeMap<Digest, Arc<dyn Source>>,
}

impl Assembled {
    /// The same as a delta against `base` ([`Contents::leave_out`]).
    #[must_use]
    pub fn leave_out(mut self, base: BaseRef, there: &BTreeMap<Digest, String>) -> Self {
        self.contents = self.contents.leave_out(base, there);
        self
    }

    /// What will be in the archive.
    pub fn contents(&self) -> &Contents {
        &self.contents
    }
}

impl Assembly {
    /// Nothing in it yet.
    pub fn new(limits: &Limits) -> Self {
        Self { limits: limits.clone(), index: BTreeMap::new(), documents: BTreeMap::new(), blobs: BTreeMap::new() }
    }

    /// Adds an image or artifact with all that its manifest or index names.
    ///
    /// # Errors
    /// When the source does not give a manifest, or one is not what its descriptor says.
    pub async fn add(
        &mut self,
        repository: &str,
        descriptor: &Descriptor,
        source: &Arc<dyn Source>,
    ) -> Result<(), BuildError> {
        self.collect(descriptor, source).await?;
        let annotations = BTreeMap::from([(REF_NAME.to_owned(), repository.to_owned())]);
        self.list(repository, false, descriptor, annotations);
        Ok(())
    }

    /// Adds a signature, SBOM or the like of the item in this repository, with the tag that it is found by if it has one.
    ///
    /// # Errors
    /// As [`Assembly::add`].
    pub async fn add_companion(
        &mut self,
        repository: &str,
        descriptor: &Descriptor,
        tag: Option<&str>,
        source: &Arc<dyn Source>,
    ) -> Result<(), BuildError> {
        self.collect(descriptor, source).await?;
        let mut annotations = BTreeMap::from([(COMPANION_OF.to_owned(), repository.to_owned())]);
        annotations.extend(tag.map(|tag| (COMPANION_TAG.to_owned(), tag.to_owned())));
        self.list(repository, true, descriptor, annotations);
        Ok(())
    }

    fn list(
        &mut self,
        repository: &str,
        companion: bool,
        descriptor: &Descriptor,
        annotations: BTreeMap<String, String>,
    ) {
        let named = Descriptor { annotations, platform: None, ..descriptor.clone() };
        self.index.insert((repository.to_owned(), companion, descriptor.digest), named);
    }

    async fn collect(&mut self, descriptor: &Descriptor, source: &Arc<dyn Source>) -> Result<(), BuildError> {
        let mut todo = vec![descriptor.clone()];
        while let Some(next) = todo.pop() {
            todo.extend(self.add_manifest(&next, source).await?);
            if self.documents.len() > self.limits.manifests {
                let found = self.documents.len() as u64;
                let what = "the number of manifests".to_owned();
                return Err(BundleError::TooLarge { what, found, limit: self.limits.manifests as u64 }.into());
            }
        }
        Ok(())
    }

    async fn add_manifest(
        &mut self,
        descriptor: &Descriptor,
        source: &Arc<dyn Source>,
    ) -> Result<Vec<Descriptor>, BuildError> {
        let digest = descriptor.digest;
        if self.documents.contains_key(&digest) {
            return Ok(Vec::new());
        }
        let bytes = source.manifest(&digest, self.limits.manifest_bytes).await?;
        let found = Digest::of(&bytes);
        if found != digest || bytes.len() as u64 != descriptor.size {
            return Err(BuildError::Changed { what: format!("manifest {digest}"), expected: digest, found });
        }
        let manifest = Manifest::parse(&descriptor.media_type, &bytes)
            .map_err(|reason| BundleError::Manifest { digest, reason })?;
        self.documents.insert(digest, (descriptor.media_type.clone(), bytes));
        match manifest {
            Manifest::Index { manifests, .. } => Ok(manifests),
            Manifest::Image { config, layers, .. } => {
                for blob in std::iter::once(config).chain(layers) {
                    if blob.size > self.limits.blob_bytes {
                        return Err(BuildError::BlobTooLarge { digest: blob.digest, bytes: blob.size });
                    }
                    let known = self
                        .blobs
                        .entry(blob.digest)
                        .or_insert_with(|| (blob.size, blob.media_type.clone(), Arc::clone(source)));
                    // Several items may call the same bytes by different media types; the smallest stands for all.
                    if blob.media_type < known.1 {
                        known.1 = blob.media_type;
                    }
                }
                Ok(Vec::new())
            }
        }
    }

    /// Adds the catalog and gives the whole, after the same checks that a reader makes.
    ///
    /// # Errors
    /// When the items and the catalog do not fit together.
    pub async fn finish(mut self, catalog: &Catalog) -> Result<Assembled, BuildError> {
        catalog::check(catalog)?;
        let json = serde_json::to_vec(catalog).map_err(|e| BundleError::Catalog(e.to_string()))?;
        let empty = b"{}".as_slice();
        let manifest = serde_json::to_vec(&serde_json::json!({
            "schemaVersion": 2,
            "mediaType": oci::MANIFEST,
            "artifactType": CATALOG_MEDIA_TYPE,
            "config": Descriptor::of(oci::EMPTY, empty),
            "layers": [Descriptor::of(CATALOG_MEDIA_TYPE, &json)],
        }))
        .expect("a JSON value always has a text");
        let mut made = Memory::default();
        made.insert(empty);
        made.insert(json.clone());
        made.insert(manifest.clone());
        let made: Arc<dyn Source> = Arc::new(made);
        self.add(CATALOG_REPOSITORY, &Descriptor::of(oci::MANIFEST, &manifest), &made).await?;

        let index = BundleIndex {
            schema_version: 2,
            media_type: oci::INDEX.to_owned(),
            manifests: self.index.values().cloned().collect(),
        };
        let index = serde_json::to_vec(&index).expect("strings and numbers have a JSON form");
        let mut entries: Vec<Entry> = self
            .documents
            .iter()
            .map(|(digest, (media_type, bytes))| Entry::blob(*digest, bytes.len() as u64, media_type))
            .collect();
        entries
            .extend(self.blobs.iter().map(|(digest, (size, media_type, _))| Entry::blob(*digest, *size, media_type)));
        let contents = Contents::new(catalog.name.clone(), catalog.version, catalog.created, &index, entries);
        let mut documents: BTreeMap<Digest, Bytes> =
            self.documents.into_iter().map(|(digest, (_, bytes))| (digest, bytes)).collect();
        documents.insert(Digest::of(&json), json.into());
        let graph = Graph::build(&contents, &index, &documents, &self.limits)?;
        catalog::check_items(catalog, graph.index())?;
        let blobs = self.blobs.into_iter().map(|(digest, (_, _, source))| (digest, source)).collect();
        Ok(Assembled { contents, index, documents, blobs })
    }
}
