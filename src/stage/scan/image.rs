//! Reaching an image: its manifest by digest, one streaming pass over each layer, each layer once however many images of the
//! run share it.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context as Wake, Poll};

use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use serde::Deserialize;
use tokio::io::{AsyncRead, AsyncReadExt, ReadBuf};
use tokio::sync::OnceCell;
use tokio_util::io::SyncIoBridge;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::known::{CONFIG, CONFIG_NAME, KnownImage};
use super::unit::{Context, NotDone, Reached, Task, facts_evidence, judge_system};
use crate::base::digest::Digest;
use crate::base::text::{brief, key_read_otherwise};
use crate::model::evidence::Evidence;
use crate::model::provenance::Approach;
use crate::model::reason::Reason;
use crate::model::target::Target;
use crate::native::facts::image::{LayerFacts, diff_ids, merge, read_layer};
use crate::registry::{Client, ManifestBody, Reference, RegistryError};

/// How many layers of an image are read at once: one is inflated while another is on its way.
const AT_ONCE: usize = 2;

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
    /// What was chosen, where there was a choice.
    pub(crate) note: Option<String>,
    pub(super) client: Client,
    pub(super) manifest: Manifest,
    /// The manifest, byte for byte.
    pub(super) bytes: Vec<u8>,
    /// Its media type.
    pub(super) media_type: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Manifest {
    pub(super) config: Descriptor,
    pub(super) layers: Vec<Descriptor>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Descriptor {
    #[serde(default)]
    pub(super) media_type: String,
    pub(super) digest: Digest,
    pub(super) size: u64,
    #[serde(default)]
    pub(super) urls: Vec<String>,
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

pub(super) fn registry_failed(error: &RegistryError) -> NotDone {
    let reason = match error {
        RegistryError::Digest { .. } => Reason::ImageUnreadable,
        RegistryError::Unauthorized { .. } => Reason::AccessDenied,
        error if error.is_not_found() => Reason::TargetNotFound,
        _ => Reason::RegistryUnreachable,
    };
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
    let mut note = None;
    if shape(&found.bytes, &found.media_type)? == Shape::Index {
        let index: Index = serde_json::from_slice(&found.bytes).map_err(|e| unreadable(&e))?;
        let digest = choose(&index, architecture(), &reference)?;
        if index.manifests.len() > 1 {
            let count = index.manifests.len();
            note =
                Some(format!("of the {count} entries of its index, the one for linux/{} was scanned", architecture()));
        }
        found = client.manifest(&reference.repository, &digest.into()).await.map_err(|e| registry_failed(&e))?;
        if shape(&found.bytes, &found.media_type)? == Shape::Index {
            return Err(NotDone::new(Reason::ImageUnreadable, "an index in an index"));
        }
    }
    let ManifestBody { bytes, digest, media_type } = found;
    let manifest: Manifest = serde_json::from_slice(&bytes).map_err(|e| unreadable(&e))?;
    Ok(Platformed { reference: reference.pinned(digest), digest, note, client, manifest, bytes, media_type })
}

/// The one image of an index that a node of this architecture runs.
fn choose(index: &Index, architecture: &str, reference: &Reference) -> Result<Digest, NotDone> {
    // An index of one image that names no platform stands for that image, as it does for runtimes.
    if let [only @ IndexEntry { platform: None, .. }] = &index.manifests[..] {
        return Ok(only.digest);
    }
    let fits = |e: &&IndexEntry| e.platform.as_ref().is_some_and(|p| p.os == "linux" && p.architecture == architecture);
    let fitting: BTreeSet<Digest> = index.manifests.iter().filter(fits).map(|e| e.digest).collect();
    let mut fitting = fitting.into_iter();
    match (fitting.next(), fitting.len()) {
        (Some(digest), 0) => Ok(digest),
        (None, _) => {
            Err(NotDone::new(Reason::TargetNotFound, format!("`{reference}` has no image for linux/{architecture}")))
        }
        // Which of them runs depends on who is asked, and on the processor.
        (Some(_), more) => Err(NotDone::new(
            Reason::ImageUnreadable,
            format!(
                "`{reference}` has {} images for linux/{architecture}; name the one that is meant by its digest",
                more + 1
            ),
        )),
    }
}

/// What a manifest is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    Image,
    Index,
}

/// What a manifest is, if nobody can read it as anything else: what it is served as, what it calls itself and what it holds
/// must agree (CVE-2021-41190), and so must its keys, however their case is treated.
fn shape(bytes: &[u8], media_type: &str) -> Result<Shape, NotDone> {
    const KNOWN: [&str; 13] = [
        "schemaVersion",
        "mediaType",
        "config",
        "layers",
        "manifests",
        "digest",
        "size",
        "platform",
        "os",
        "architecture",
        "variant",
        "urls",
        "data",
    ];
    let refuse = |why: String| NotDone::new(Reason::ImageUnreadable, why);
    let value: serde_json::Value = serde_json::from_slice(bytes).map_err(|e| unreadable(&e))?;
    if let Some(key) = key_read_otherwise(&value, &KNOWN, &["config", "layers", "manifests", "platform"]) {
        return Err(refuse(format!("whoever runs the image may take its manifest's key `{}` for another", brief(key))));
    }
    if let Some(named) = value.get("mediaType")
        && named.as_str() != Some(media_type)
    {
        return Err(refuse(format!(
            "it is served as `{}` and calls itself {}",
            brief(media_type),
            brief(&named.to_string())
        )));
    }
    let as_index = media_type.contains("index") || media_type.contains("manifest.list");
    let holds = |key: &str| value.get(key).is_some();
    match (as_index, holds("manifests"), holds("layers") || holds("config") || holds("fsLayers")) {
        (true, true, false) => Ok(Shape::Index),
        (false, false, true) => Ok(Shape::Image),
        _ => Err(refuse(format!("what it is served as, `{}`, is not what it holds", brief(media_type)))),
    }
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
    let Target::Image { reference, .. } = target else {
        let why = NotDone::new(Reason::TargetUnsupported, "it is no image");
        return Reached::nothing(target.clone(), Approach::Image, why);
    };
    reach_as(target, reference, tasks, context).await
}

/// Judges the image of this reference in the name of `target`, which may be a container that runs it.
pub(crate) async fn reach_as(target: &Target, reference: &str, tasks: &[Task], context: &Context) -> Reached {
    let image = match resolve(reference, context).await {
        Ok(image) => image,
        Err(why) => return Reached::nothing(target.clone(), Approach::Image, why),
    };
    let target = match target {
        Target::Image { reference, .. } => Target::Image { reference: reference.clone(), digest: Some(image.digest) },
        other => other.clone(),
    };
    let manifest = Evidence::new("manifest", "application/vnd.oci.image.manifest.v1+json", image.bytes.clone());
    if let Some(KnownImage { facts, mut evidence, note }) = context.known.image(&image.digest) {
        evidence.push(manifest);
        return Reached {
            evidence,
            notes: image.note.into_iter().chain([note]).collect(),
            verdict: Ok(judge_system(&facts, tasks, &target, &context.limits)),
            ..Reached::nothing(target, Approach::Image, NotDone::new(Reason::InternalError, "not judged"))
        };
    }
    match collect(&image, context).await {
        Ok((facts, config)) => Reached {
            evidence: vec![facts_evidence(&facts), manifest, config],
            notes: image.note.into_iter().collect(),
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
    let mut reading = Vec::with_capacity(contents.len());
    for (descriptor, content) in image.manifest.layers.iter().zip(contents) {
        reading.push(layer(image, descriptor, content, context));
    }
    let layers: Vec<Arc<LayerFacts>> = stream::iter(reading).buffered(AT_ONCE).try_collect().await?;
    let facts = merge(&layers, &bytes, limits).map_err(|e| NotDone::because(e.reason(), &e))?;
    Ok((facts, Evidence::new(CONFIG_NAME, CONFIG, bytes)))
}

/// The facts of one layer, which are read by whoever of the run asks for them first.
async fn layer(
    image: &Platformed,
    descriptor: &Descriptor,
    content: Digest,
    context: &Context,
) -> Result<Arc<LayerFacts>, NotDone> {
    let cell = context.layers.cell(descriptor.digest, content);
    let once = || async {
        match read(image, descriptor, content, context).await {
            // The registry may answer the next one who asks.
            Err(why) if why.reason == Reason::RegistryUnreachable => Err(why),
            settled => Ok(settled),
        }
    };
    cell.get_or_try_init(once).await?.clone()
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

    const IMAGE: &str = "application/vnd.oci.image.manifest.v1+json";
    const INDEX: &str = "application/vnd.oci.image.index.v1+json";

    #[test]
    fn a_manifest_is_what_it_is_served_as_calls_itself_and_holds() {
        let of = |text: &str, media_type| shape(text.as_bytes(), media_type).map_err(|why| why.reason);
        assert_eq!(of(r#"{"config": {}, "layers": []}"#, IMAGE), Ok(Shape::Image));
        assert_eq!(of(r#"{"manifests": []}"#, INDEX), Ok(Shape::Index));
        let annotated = r#"{"config": {}, "layers": [], "annotations": {"Layers": "two"}}"#;
        assert_eq!(of(annotated, IMAGE), Ok(Shape::Image));
        for (text, media_type) in [
            (r#"{"config": {}, "layers": [], "manifests": []}"#.to_owned(), IMAGE),
            (r#"{"config": {}, "layers": [], "manifests": []}"#.to_owned(), INDEX),
            (r#"{"manifests": []}"#.to_owned(), IMAGE),
            (r#"{"config": {}, "layers": []}"#.to_owned(), INDEX),
            (format!(r#"{{"mediaType": "{INDEX}", "config": {{}}, "layers": []}}"#), IMAGE),
            (r#"{"config": {}, "layers": [], "Layers": []}"#.to_owned(), IMAGE),
            (r#"{"config": {"digest": "a", "Digest": "b"}, "layers": []}"#.to_owned(), IMAGE),
            (r#"{"manifests": [{"platform": {"OS": "linux"}}]}"#.to_owned(), INDEX),
            ("[]".to_owned(), IMAGE),
            ("{".to_owned(), IMAGE),
            (String::new(), IMAGE),
        ] {
            assert_eq!(of(&text, media_type), Err(Reason::ImageUnreadable), "{text} as {media_type}");
        }
    }

    #[test]
    fn of_an_index_only_an_unmistakable_image_is_taken() {
        let reference: Reference = "registry.example/a:1".parse().expect("a reference");
        let chosen = |entries: &[(&str, Option<&str>)]| {
            let manifests = entries
                .iter()
                .map(|(content, architecture)| IndexEntry {
                    digest: Digest::of(content),
                    platform: architecture.map(|a| Platform { os: "linux".to_owned(), architecture: a.to_owned() }),
                })
                .collect();
            choose(&Index { manifests }, "amd64", &reference).map_err(|why| why.reason)
        };
        assert_eq!(chosen(&[("a", None)]), Ok(Digest::of("a")));
        assert_eq!(chosen(&[("b", Some("arm64")), ("a", Some("amd64")), ("c", None)]), Ok(Digest::of("a")));
        assert_eq!(chosen(&[("a", Some("amd64")), ("a", Some("amd64"))]), Ok(Digest::of("a")));
        assert_eq!(chosen(&[("a", Some("amd64")), ("b", Some("amd64"))]), Err(Reason::ImageUnreadable));
        assert_eq!(chosen(&[("a", None), ("b", None)]), Err(Reason::TargetNotFound));
        assert_eq!(chosen(&[]), Err(Reason::TargetNotFound));
    }
}
