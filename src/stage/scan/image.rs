//! Reaching an image: its manifest by digest, one streaming pass over each layer, each layer once however many images of the
//! run share it.

use std::collections::HashMap;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context as Wake, Poll};

use serde::Deserialize;
use tokio::io::{AsyncRead, AsyncReadExt, ReadBuf};
use tokio::sync::OnceCell;
use tokio_util::io::SyncIoBridge;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::unit::{Context, NotDone, Reached, Task, facts_evidence, judge_system};
use crate::base::digest::Digest;
use crate::model::evidence::Evidence;
use crate::model::provenance::Approach;
use crate::model::reason::Reason;
use crate::model::target::Target;
use crate::native::facts::image::{LayerFacts, diff_ids, merge, read_layer};
use crate::registry::{Client, ManifestBody, Reference, RegistryError};

/// One cell for each layer: whoever comes first reads it, the others wait.
type Cell = Arc<OnceCell<Result<Arc<LayerFacts>, NotDone>>>;

/// The facts of layers that were read in this run, by the digest of the blob and of its content.
#[derive(Default)]
pub(crate) struct LayerCache(Mutex<HashMap<(Digest, Digest), Cell>>);

impl LayerCache {
    fn cell(&self, blob: Digest, content: Digest) -> Cell {
        // A panic elsewhere leaves the map as it was.
        let mut cells = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(cells.entry((blob, content)).or_default())
    }
}

/// An image for this machine's platform.
pub(crate) struct Platformed {
    /// The reference, pinned to the manifest.
    pub(crate) reference: Reference,
    /// The manifest's digest.
    pub(crate) digest: Digest,
    client: Client,
    manifest: Manifest,
    bytes: Vec<u8>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Manifest {
    config: Descriptor,
    layers: Vec<Descriptor>,
}

#[derive(Deserialize)]
struct Descriptor {
    digest: Digest,
    size: u64,
}

#[derive(Deserialize)]
struct Index {
    manifests: Vec<IndexEntry>,
}

#[derive(Deserialize)]
struct IndexEntry {
    digest: Digest,
    #[serde(default)]
    platform: Option<Platform>,
}

#[derive(Deserialize)]
struct Platform {
    os: String,
    architecture: String,
}

fn registry_failed(error: &RegistryError) -> NotDone {
    let reason = if error.is_not_found() { Reason::TargetNotFound } else { Reason::RegistryUnreachable };
    NotDone::because(reason, error)
}

fn unreadable(error: &(dyn std::error::Error + 'static)) -> NotDone {
    NotDone::because(Reason::ImageUnreadable, error)
}

/// Asks the registry what this reference is now, for Linux on this machine's architecture.
pub(crate) async fn resolve(reference: &str, context: &Context) -> Result<Platformed, NotDone> {
    let reference: Reference =
        reference.parse().map_err(|e| NotDone::because(Reason::TargetNotFound, &e as &dyn std::error::Error))?;
    let name = reference
        .manifest()
        .ok_or_else(|| NotDone::new(Reason::TargetNotFound, format!("`{reference}` has neither a tag nor a digest")))?;
    let client = context
        .registries
        .client(&reference.registry)
        .map_err(|e| NotDone::because(Reason::RegistryUnreachable, &e))?;
    let mut found = client.manifest(&reference.repository, &name).await.map_err(|e| registry_failed(&e))?;
    if is_index(&found) {
        let index: Index = serde_json::from_slice(&found.bytes).map_err(|e| unreadable(&e))?;
        let architecture = architecture();
        let fits =
            |e: &&IndexEntry| e.platform.as_ref().is_some_and(|p| p.os == "linux" && p.architecture == architecture);
        // An index of one image that names no platform stands for that image, as it does for runtimes.
        let entry = match &index.manifests[..] {
            [only @ IndexEntry { platform: None, .. }] => Some(only),
            entries => entries.iter().find(fits),
        };
        let entry = entry.ok_or_else(|| {
            NotDone::new(Reason::TargetNotFound, format!("`{reference}` has no image for linux/{architecture}"))
        })?;
        found = client.manifest(&reference.repository, &entry.digest.into()).await.map_err(|e| registry_failed(&e))?;
        if is_index(&found) {
            return Err(NotDone::new(Reason::ImageUnreadable, "an index in an index"));
        }
    }
    let ManifestBody { bytes, digest, .. } = found;
    let manifest: Manifest = serde_json::from_slice(&bytes).map_err(|e| unreadable(&e))?;
    Ok(Platformed { reference: reference.pinned(digest), digest, client, manifest, bytes })
}

/// Whether it is an index by what it says and by what it is; a document that could be read as both counts as none, and does
/// not parse as a manifest either (CVE-2021-41190).
fn is_index(manifest: &ManifestBody) -> bool {
    let by_type = manifest.media_type.contains("index") || manifest.media_type.contains("manifest.list");
    let value: serde_json::Value = serde_json::from_slice(&manifest.bytes).unwrap_or_default();
    by_type && value.get("layers").is_none() && value.get("config").is_none()
}

/// This machine's architecture as OCI platforms write it (Go's GOARCH).
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

pub(crate) async fn reach(target: &Target, tasks: &[Task], context: &Context) -> Reached {
    let nothing = |why| Reached::nothing(target.clone(), Approach::Image, why);
    let Target::Image { reference, .. } = target else {
        return nothing(NotDone::new(Reason::TargetUnsupported, "it is no image"));
    };
    let image = match resolve(reference, context).await {
        Ok(image) => image,
        Err(why) => return nothing(why),
    };
    let target = Target::Image { reference: reference.clone(), digest: Some(image.digest) };
    let manifest = Evidence::new("manifest", "application/vnd.oci.image.manifest.v1+json", image.bytes.clone());
    match collect(&image, context).await {
        Ok((facts, config)) => Reached {
            evidence: vec![facts_evidence(&facts), manifest, config],
            verdict: Ok(judge_system(&facts, tasks, &target, &context.limits)),
            ..Reached::nothing(target, Approach::Image, NotDone::new(Reason::InternalError, "not judged"))
        },
        Err(why) => Reached { evidence: vec![manifest], ..Reached::nothing(target, Approach::Image, why) },
    }
}

async fn collect(
    image: &Platformed,
    context: &Context,
) -> Result<(crate::native::facts::SystemFacts, Evidence), NotDone> {
    let limits = &context.limits;
    let config = &image.manifest.config;
    if config.size > limits.manifest_bytes {
        let detail = format!("its configuration has {} bytes, and {} are allowed", config.size, limits.manifest_bytes);
        return Err(NotDone::new(Reason::ImageUnreadable, detail));
    }
    let mut bytes = Vec::new();
    let mut blob = image
        .client
        .blob(&image.reference.repository, &config.digest, config.size)
        .await
        .map_err(|e| registry_failed(&e))?;
    blob.read_to_end(&mut bytes).await.map_err(|e| NotDone::because(Reason::RegistryUnreachable, &e))?;
    let contents = diff_ids(&bytes, limits).map_err(|e| NotDone::because(e.reason(), &e))?;
    if contents.len() != image.manifest.layers.len() {
        let detail = format!(
            "its manifest has {} layers, and its configuration {}",
            image.manifest.layers.len(),
            contents.len()
        );
        return Err(NotDone::new(Reason::ImageUnreadable, detail));
    }
    let mut layers = Vec::with_capacity(contents.len());
    for (descriptor, content) in image.manifest.layers.iter().zip(contents) {
        let cell = context.layers.cell(descriptor.digest, content);
        let facts = cell.get_or_init(|| read(image, descriptor, content, context)).await;
        layers.push(Arc::clone(facts.as_ref().map_err(Clone::clone)?));
    }
    let facts = merge(&layers, &bytes, limits).map_err(|e| NotDone::because(e.reason(), &e))?;
    Ok((facts, Evidence::new("image-config", "application/vnd.oci.image.config.v1+json", bytes)))
}

/// A blob that ends in an error as soon as nobody waits for it any more: a run that is stopped, or a deadline, ends a task,
/// and not the thread that reads for it. Without this the thread would read on while the process ends around it.
struct WhileWanted<R> {
    blob: R,
    unwanted: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl<R: AsyncRead + Unpin> AsyncRead for WhileWanted<R> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Wake<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.unwanted.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::ConnectionAborted, "nobody waits for it any more")));
        }
        Pin::new(&mut self.blob).poll_read(cx, buf)
    }
}

async fn read(
    image: &Platformed,
    descriptor: &Descriptor,
    content: Digest,
    context: &Context,
) -> Result<Arc<LayerFacts>, NotDone> {
    let blob = image
        .client
        .blob(&image.reference.repository, &descriptor.digest, descriptor.size)
        .await
        .map_err(|e| registry_failed(&e))?;
    let limits = context.limits.clone();
    // Inflating and hashing is work for a thread that may block; the bridge feeds it from the connection.
    let wanted = CancellationToken::new();
    let bridge = SyncIoBridge::new(WhileWanted { blob, unwanted: Box::pin(wanted.clone().cancelled_owned()) });
    let _wanted = wanted.drop_guard();
    let facts = tokio::task::spawn_blocking(move || read_layer(bridge, &content, &limits))
        .await
        .map_err(|e| NotDone::because(Reason::InternalError, &e))?;
    facts.map(Arc::new).map_err(|e| NotDone::because(e.reason(), &e))
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn a_reader_that_nobody_waits_for_ends() {
        // It is open, and never gives a byte.
        let (_open, blob) = tokio::io::duplex(8);
        let wanted = CancellationToken::new();
        let mut bridge = SyncIoBridge::new(WhileWanted { blob, unwanted: Box::pin(wanted.clone().cancelled_owned()) });
        let reading = tokio::task::spawn_blocking(move || bridge.read(&mut [0]));
        drop(wanted.drop_guard());
        let error = reading.await.expect("the thread ends").expect_err("there is nothing to read");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionAborted);
    }
}
