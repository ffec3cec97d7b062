//! The signed metadata, kept in the registry beside the catalog that it vouches for, and both read back.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::json;
use tokio::io::AsyncReadExt;

use super::error::LoadError;
use crate::base::digest::Digest;
use crate::base::limits::Limits;
use crate::bundle::catalog::verify_catalog;
use crate::bundle::oci::{self, Descriptor};
use crate::model::catalog::{CATALOG_MEDIA_TYPE, CATALOG_REPOSITORY, Catalog};
use crate::model::provenance::BundleRef;
use crate::registry::reference::NameError;
use crate::registry::{Client, ManifestName, Prefix, RegistryError, Repository, Tag};
use crate::trust::metadata::MetadataFiles;
use crate::trust::remembered::Remembered;
use crate::trust::root::TrustRoot;

/// The artifact type of the metadata that is kept beside a catalog, and the media type of its files.
const METADATA_ARTIFACT: &str = "application/vnd.gapscan.metadata.v1";
const METADATA_FILE: &str = "application/vnd.gapscan.metadata.file.v1+json";
/// The annotation that names a file (image-spec, annotations.md).
const TITLE: &str = "org.opencontainers.image.title";
/// Metadata files besides roots: timestamp, snapshot and targets.
const ROLES: u64 = 3;
/// The config of an artifact that has none (image-spec, manifest.md, "Guidance for an Empty Descriptor").
pub(super) const EMPTY: &[u8] = b"{}";

/// The manifest of the artifact that keeps the metadata beside the catalog, with a layer for each file.
pub(super) fn metadata_manifest(files: &MetadataFiles) -> Vec<u8> {
    let layers: Vec<_> = files
        .iter()
        .map(|(name, bytes)| {
            json!({
                "mediaType": METADATA_FILE,
                "digest": Digest::of(bytes),
                "size": bytes.len(),
                "annotations": { TITLE: name },
            })
        })
        .collect();
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": oci::MANIFEST,
        "artifactType": METADATA_ARTIFACT,
        "config": Descriptor::of(oci::EMPTY, EMPTY),
        "layers": layers,
    });
    serde_json::to_vec(&manifest).expect("a JSON value always has a text")
}

/// The tag of the metadata that vouches for this catalog manifest. It follows from the digest, so that metadata of one
/// version can't be found with the catalog of another while a load moves the tags.
pub(super) fn metadata_tag(catalog: &Digest) -> Result<Tag, NameError> {
    format!("sha256-{}.metadata", catalog.hex()).parse()
}

/// The parts of an artifact's manifest that are read back before anything is verified.
#[derive(Deserialize)]
pub(super) struct Artifact {
    pub(super) layers: Vec<Layer>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Layer {
    media_type: String,
    digest: Digest,
    size: u64,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

/// A loaded bundle's catalog, read back from the registry and verified as if it came from the bundle.
///
/// # Errors
/// When there is none, the registry fails, or anything does not verify: then nothing that the registry says may be used.
#[allow(clippy::too_many_arguments)]
pub async fn read_catalog(
    client: &Client,
    prefix: &Prefix,
    name: &str,
    root: &TrustRoot,
    remembered: &Remembered,
    limits: &Limits,
    now: Timestamp,
) -> Result<(BundleRef, Catalog), LoadError> {
    let foreign =
        |reason: &str| LoadError::Foreign { name: name.to_owned(), prefix: prefix.clone(), reason: reason.to_owned() };
    let absent = |error: RegistryError| match error.is_not_found() {
        true => LoadError::Absent { name: name.to_owned(), prefix: prefix.clone() },
        false => error.into(),
    };
    let repository = prefix.repository(CATALOG_REPOSITORY)?;
    let manifest = client.manifest(&repository, &ManifestName::Tag(name.parse()?)).await.map_err(absent)?;
    let artifact: Artifact = serde_json::from_slice(&manifest.bytes).map_err(|_| foreign("it is no artifact"))?;
    let [layer] = artifact.layers.as_slice() else { return Err(foreign("it has not the catalog as its one layer")) };
    if layer.media_type != CATALOG_MEDIA_TYPE || layer.size > limits.metadata_bytes {
        return Err(foreign("its layer is no catalog, or too large for one"));
    }
    let catalog = read_blob(client, &repository, layer).await?;

    let files = match kept_metadata(client, &repository, &manifest.digest, limits).await? {
        Kept::Files(files) => files,
        Kept::Absent => return Err(foreign("the metadata that vouches for it is missing")),
        Kept::Foreign(reason) => return Err(foreign(reason)),
    };
    let (bundle, catalog) = verify_catalog(files, &manifest.bytes, &catalog, root, remembered, limits, now).await?;
    if bundle.name != name {
        return Err(foreign("it is another bundle's"));
    }
    Ok((bundle, catalog))
}

/// What the registry keeps beside a catalog. Nothing of it is verified.
pub(super) enum Kept {
    /// Metadata files by name.
    Files(MetadataFiles),
    /// Nothing.
    Absent,
    /// Something that was not put there by a load.
    Foreign(&'static str),
}

/// The metadata files that are kept beside the catalog with this manifest, within the limits.
pub(super) async fn kept_metadata(
    client: &Client,
    repository: &Repository,
    catalog: &Digest,
    limits: &Limits,
) -> Result<Kept, LoadError> {
    let metadata = match client.manifest(repository, &ManifestName::Tag(metadata_tag(catalog)?)).await {
        Ok(metadata) => metadata,
        Err(error) if error.is_not_found() => return Ok(Kept::Absent),
        Err(error) => return Err(error.into()),
    };
    let Ok(artifact) = serde_json::from_slice::<Artifact>(&metadata.bytes) else {
        return Ok(Kept::Foreign("its metadata is no artifact"));
    };
    if artifact.layers.len() as u64 > limits.root_rotations + ROLES {
        return Ok(Kept::Foreign("its metadata has too many files"));
    }
    let mut files = MetadataFiles::new();
    for layer in &artifact.layers {
        let Some(title) = layer.annotations.get(TITLE) else {
            return Ok(Kept::Foreign("one of its metadata files has no name"));
        };
        if layer.media_type != METADATA_FILE || layer.size > limits.metadata_bytes || files.contains_key(title) {
            return Ok(Kept::Foreign("one of its metadata files is none, is there twice, or is too large"));
        }
        files.insert(title.clone(), read_blob(client, repository, layer).await?);
    }
    Ok(Kept::Files(files))
}

pub(super) async fn read_blob(client: &Client, repository: &Repository, layer: &Layer) -> Result<Vec<u8>, LoadError> {
    let mut bytes = Vec::new();
    let mut reader = client.blob(repository, &layer.digest, layer.size).await?;
    match reader.read_to_end(&mut bytes).await {
        Ok(_) => Ok(bytes),
        Err(error) => Err(RegistryError::from_reader(error, repository, &layer.digest).into()),
    }
}
