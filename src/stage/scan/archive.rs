//! An image as an archive, for a scanner that reads layers: what its manifest says that it consists of, and the registry that has
//! it.
//!
//! What is in a manifest that nobody can vouch for, and where it ends:
//! * layers that registries need not have (foreign, non-distributable), or that are to be fetched from elsewhere (`urls`): not
//!   evaluated; nobody fetches them;
//! * layers in a form that the scanner's definition does not name, or that nobody knows: not evaluated, before anything is sent;
//! * sizes beyond what a node is to hold: likewise, from the manifest's sizes; blobs that are longer are noticed while they stream.

use std::fmt;
use std::io;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use serde_json::{Value, json};
use tokio::io::AsyncRead;

use super::image::{Descriptor, Platformed, registry_failed};
use super::unit::NotDone;
use crate::base::digest::Digest;
use crate::base::limits::Limits;
use crate::base::text::brief;
use crate::cluster::job::{BlobSource, ImageArchive, ImageManifest, SourceError};
use crate::model::reason::Reason;
use crate::model::scanner::{ArchiveNeeds, LayerForm};
use crate::registry::{Client, RegistryError, Repository};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";

/// What Docker's media types are in an OCI image (image-spec, media-types.md, "Compatibility Matrix").
const TRANSLATED: [(&str, &str); 5] = [
    (DOCKER_MANIFEST, MANIFEST),
    ("application/vnd.docker.container.image.v1+json", "application/vnd.oci.image.config.v1+json"),
    ("application/vnd.docker.image.rootfs.diff.tar", "application/vnd.oci.image.layer.v1.tar"),
    ("application/vnd.docker.image.rootfs.diff.tar.gzip", "application/vnd.oci.image.layer.v1.tar+gzip"),
    ("application/vnd.docker.image.rootfs.diff.tar.zstd", "application/vnd.oci.image.layer.v1.tar+zstd"),
];

/// The archive of an image, and what is to be noted of it.
///
/// # Errors
/// When it can't be had whole, the scanner could not read it, or it is larger than the limit.
pub(super) fn archive(
    image: &Platformed,
    needs: &ArchiveNeeds,
    limits: &Limits,
) -> Result<(ImageArchive, Option<String>), NotDone> {
    let source = Registry { client: image.client.clone(), repository: image.reference.repository.clone() };
    let parts = Parts {
        bytes: &image.bytes,
        media_type: &image.media_type,
        config: &image.manifest.config,
        layers: &image.manifest.layers,
    };
    parts.archive(needs, limits, Arc::new(source))
}

/// What an image consists of.
struct Parts<'a> {
    bytes: &'a [u8],
    media_type: &'a str,
    config: &'a Descriptor,
    layers: &'a [Descriptor],
}

impl Parts<'_> {
    fn archive(
        &self,
        needs: &ArchiveNeeds,
        limits: &Limits,
        source: Arc<dyn BlobSource>,
    ) -> Result<(ImageArchive, Option<String>), NotDone> {
        for (at, layer) in self.layers.iter().enumerate() {
            fits(at + 1, layer, needs)?;
        }
        let blobs: Vec<(Digest, u64)> =
            std::iter::once(self.config).chain(self.layers).map(|blob| (blob.digest, blob.size)).collect();
        let large = |detail: String| NotDone::new(Reason::TargetTooLarge, detail);
        if let Some((digest, size)) = blobs.iter().find(|(_, size)| *size > limits.blob_bytes) {
            return Err(large(format!("its blob {digest} has {size} bytes, and {} are allowed", limits.blob_bytes)));
        }
        let (manifest, note) = self.manifest();
        let unclear = || NotDone::new(Reason::ImageUnreadable, "its manifest gives one blob two sizes");
        let archive = ImageArchive::new(manifest, &blobs, source).ok_or_else(unclear)?;
        if archive.bytes() > limits.archive_bytes {
            return Err(large(format!(
                "as an archive it has {} bytes, and the scanner is given at most {}; a scanner that reads the image's files as \
                 they are mounted needs none",
                archive.bytes(),
                limits.archive_bytes
            )));
        }
        Ok((archive, note))
    }

    /// The manifest as it is; of Docker's, which readers of OCI layouts need not know, what says the same in OCI's words.
    fn manifest(&self) -> (ImageManifest, Option<String>) {
        let as_it_is =
            || ImageManifest { bytes: Bytes::copy_from_slice(self.bytes), media_type: self.media_type.to_owned() };
        if self.media_type != DOCKER_MANIFEST {
            return (as_it_is(), None);
        }
        let Ok(mut manifest) = serde_json::from_slice::<Value>(self.bytes) else { return (as_it_is(), None) };
        let translate = |value: &mut Value| {
            let known = TRANSLATED.iter().find(|(docker, _)| value["mediaType"] == *docker);
            if let Some((_, oci)) = known {
                value["mediaType"] = json!(oci);
            }
        };
        translate(&mut manifest);
        translate(&mut manifest["config"]);
        manifest["layers"].as_array_mut().into_iter().flatten().for_each(translate);
        let bytes = Bytes::from(manifest.to_string());
        let note = format!(
            "its manifest is Docker's: the scanner was given the OCI manifest of the same configuration and layers, {}",
            Digest::of(&bytes)
        );
        (ImageManifest { bytes, media_type: MANIFEST.to_owned() }, Some(note))
    }
}

/// Whether the registry has this layer in a form that the scanner reads.
fn fits(number: usize, layer: &Descriptor, needs: &ArchiveNeeds) -> Result<(), NotDone> {
    let media_type = brief(&layer.media_type);
    let unreadable = |why: String| Err(NotDone::new(Reason::ImageUnreadable, format!("its layer {number} {why}")));
    let foreign = ["foreign", "nondistributable"].iter().any(|word| layer.media_type.contains(word));
    if foreign || !layer.urls.is_empty() {
        return unreadable(format!(
            "is to be fetched from elsewhere than its registry (`{media_type}`), which nobody does"
        ));
    }
    match LayerForm::of(&layer.media_type) {
        None => unreadable(format!("is of media type `{media_type}`, which is not known")),
        Some(form) if needs.layers.contains(&form) => Ok(()),
        Some(form) => {
            let known: Vec<String> = needs.layers.iter().map(ToString::to_string).collect();
            unreadable(format!(
                "is stored as {form}, and the scanner's definition says that it reads {} (approaches.image.archive.layers)",
                known.join(", ")
            ))
        }
    }
}

/// The registry that has an image's blobs.
struct Registry {
    client: Client,
    repository: Repository,
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Registry").field(&self.repository).finish()
    }
}

#[async_trait]
impl BlobSource for Registry {
    async fn open(&self, digest: &Digest, size: u64) -> Result<Box<dyn AsyncRead + Send + Unpin>, SourceError> {
        match self.client.blob(&self.repository, digest, size).await {
            Ok(blob) => Ok(Box::new(blob)),
            Err(error) => Err(SourceError { reason: reason(&error), error: error.into() }),
        }
    }

    fn reason(&self, error: &io::Error) -> Reason {
        let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<RegistryError>());
        inner.map_or(Reason::RegistryUnreachable, reason)
    }
}

/// What it means for an image that one of its blobs can't be had.
fn reason(error: &RegistryError) -> Reason {
    match error {
        // The manifest is there: what it names is missing.
        error if error.is_not_found() => Reason::ImageUnreadable,
        other => registry_failed(other).reason,
    }
}

#[cfg(test)]
mod tests;
