//! The documents that come before the large blobs: read, checked against what is signed, and against each other.

use std::collections::BTreeMap;

use bytes::Bytes;
use tokio::io::AsyncRead;

use super::catalog;
use super::contents::{Contents, OCI_LAYOUT};
use super::error::BundleError;
use super::graph::Graph;
use super::input::Input;
use super::notice;
use super::oci;
use crate::base::digest::Digest;
use crate::base::limits::Limits;
use crate::model::catalog::{CATALOG_REPOSITORY, Catalog};
use crate::model::provenance::BundleRef;

/// The image layout, manifests and catalog of a bundle, as its metadata says that they are.
pub(super) struct Front {
    /// The bytes of `index.json`.
    pub(super) index: Vec<u8>,
    /// The bytes of the documents.
    pub(super) documents: BTreeMap<Digest, Bytes>,
    pub(super) graph: Graph,
    pub(super) catalog: Catalog,
    pub(super) catalog_bytes: Bytes,
}

impl Front {
    /// Reads everything after the metadata, up to the first large blob.
    pub(super) async fn read<R: AsyncRead + Unpin + Send>(
        input: &mut Input<R>,
        contents: &Contents,
        bundle: &BundleRef,
        limits: &Limits,
    ) -> Result<Self, BundleError> {
        if input.entry(&contents.layout).await? != oci::LAYOUT {
            let reason = "it is not that of an OCI image layout 1.0.0".to_owned();
            return Err(BundleError::Layout { entry: OCI_LAYOUT, reason });
        }
        let index = input.entry(&contents.index).await?;
        let mut documents = BTreeMap::new();
        for entry in &contents.documents {
            documents.insert(entry.digest, Bytes::from(input.entry(entry).await?));
        }
        let graph = Graph::build(contents, &index, &documents, limits)?;
        let missing = || BundleError::Catalog("there is none in the bundle".to_owned());
        let digest = graph.index().get(CATALOG_REPOSITORY).ok_or_else(missing)?.digest;
        let layer = catalog::layer(digest, graph.manifest(&digest).ok_or_else(missing)?)?.digest;
        let catalog_bytes = documents.get(&layer).ok_or_else(missing)?.clone();
        let catalog = catalog::parse(&catalog_bytes, bundle, contents.created)?;
        catalog::check_items(&catalog, graph.index())?;
        notice::check(&catalog.notices, contents)?;
        Ok(Self { index, documents, graph, catalog, catalog_bytes })
    }
}
