mod liar;
mod transport;

use std::path::PathBuf;

use axum::response::Response;
use serde_json::json;

use super::vouch::{Artifact, metadata_tag, read_blob};
use super::*;
use crate::base::digest::Digest;
use crate::base::exit::{Classify, ExitClass, Failure};
use crate::bundle::oci::{self, Descriptor};
use crate::bundle::sample::{Images, NAME, Sample};
use crate::model::catalog::{CATALOG_MEDIA_TYPE, CATALOG_REPOSITORY};
use crate::registry::serve::RunningServer;
use crate::registry::testing::{Between, DockerRegistry, Seen, client, embedded, plain, status};
use crate::registry::{Blob, ManifestName, Tag};

/// An archive in memory.
struct Flat(Vec<u8>);

impl ReadAt for Flat {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> std::io::Result<usize> {
        let rest = usize::try_from(offset).ok().and_then(|offset| self.0.get(offset..)).unwrap_or_default();
        // Less than asked for, as a part that ends there would give.
        let count = rest.len().min(buffer.len()).min(1000);
        buffer[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    }

    fn bytes(&self) -> u64 {
        self.0.len() as u64
    }
}

/// A sample, a registry for it, and what was remembered.
struct Scene {
    sample: Sample,
    remembered: Remembered,
    data: PathBuf,
    server: RunningServer,
    _folder: tempfile::TempDir,
}

impl Scene {
    async fn new() -> Self {
        Self::of(Sample::new()).await
    }

    async fn of(sample: Sample) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let data = folder.path().join("registry");
        let server = embedded(&data).await;
        Self { remembered: sample.remembered(), sample, data, server, _folder: folder }
    }

    async fn load(&self, client: &Client, bytes: &[u8]) -> Result<LoadedBundle, LoadError> {
        self.load_at(client, bytes, self.sample.now).await
    }

    /// The same from a file.
    async fn load_file(&self, client: &Client, bytes: &[u8]) -> Result<LoadedBundle, LoadError> {
        let archive = Arc::new(Flat(bytes.to_vec()));
        self.load_archive(client, "enclave", archive, ReadBack::Sample).await
    }

    async fn load_archive(
        &self,
        client: &Client,
        below: &str,
        archive: Arc<dyn ReadAt>,
        read_back: ReadBack,
    ) -> Result<LoadedBundle, LoadError> {
        let prefix: Prefix = format!("{}/{below}", client.registry()).parse().expect("a prefix");
        let (limits, progress) = (Limits::default(), Progress::quiet());
        let load = Load { read_back, ..self.request(client, &prefix, &limits, &progress, self.sample.now) };
        load.run_file(archive).await
    }

    fn request<'a>(
        &'a self,
        client: &'a Client,
        prefix: &'a Prefix,
        limits: &'a Limits,
        progress: &'a Progress,
        now: Timestamp,
    ) -> Load<'a> {
        Load {
            client,
            prefix,
            root: &self.sample.root,
            remembered: &self.remembered,
            limits,
            now,
            jobs: NonZeroUsize::new(2).expect("not zero"),
            progress,
            sessions: None,
            read_back: ReadBack::Sample,
        }
    }

    async fn load_at(&self, client: &Client, bytes: &[u8], now: Timestamp) -> Result<LoadedBundle, LoadError> {
        let prefix: Prefix = format!("{}/enclave", client.registry()).parse().expect("a prefix");
        let (limits, progress) = (Limits::default(), Progress::quiet());
        let load = self.request(client, &prefix, &limits, &progress, now);
        // Through a pipe that holds less than a block of the archive at a time, as a data diode might.
        let (mut inlet, outlet) = tokio::io::duplex(300);
        let feed = async {
            // A refused bundle is not read to its end.
            let _ = tokio::io::AsyncWriteExt::write_all(&mut inlet, bytes).await;
            drop(inlet);
        };
        let (result, ()) = tokio::join!(load.run_stream(outlet), feed);
        result
    }

    fn client(&self) -> Client {
        client(plain(self.server.address()))
    }

    fn repositories(&self) -> usize {
        std::fs::read_dir(self.data.join("repositories")).expect("the folder").count()
    }

    async fn assert_nothing_tagged(&self) {
        self.assert_nothing_tagged_below("enclave").await;
    }

    async fn assert_nothing_tagged_below(&self, below: &str) {
        let client = self.client();
        for repository in
            ["catalog", "images/gapscan", "images/web", "images/twin", "images/many", "dependencies/database"]
        {
            let repository = format!("{below}/{repository}").parse().expect("a repository");
            assert!(client.tags(&repository).await.expect("tags").is_empty(), "{repository}");
        }
    }
}

async fn assert_loaded(client: &Client, scene: &Scene, version: u64) {
    let prefix: Prefix = format!("{}/enclave", client.registry()).parse().expect("a prefix");
    let (bundle, catalog) = read_catalog(
        client,
        &prefix,
        NAME,
        &scene.sample.root,
        &scene.remembered,
        &Limits::default(),
        scene.sample.now,
    )
    .await
    .expect("the catalog");
    assert_eq!((bundle.name.as_str(), bundle.version), (NAME, version));
    for item in crate::bundle::catalog::items(&catalog) {
        let repository = prefix.repository(&item.repository).expect("a repository");
        let tag: Tag = format!("{NAME}.{version}").parse().expect("a tag");
        assert_eq!(client.resolve(&repository, &tag).await.expect("tagged"), item.digest);
        let manifest = client.manifest(&repository, &item.digest.into()).await.expect("the manifest");
        assert_eq!(manifest.media_type, item.media_type);
        let Ok(artifact) = serde_json::from_slice::<Artifact>(&manifest.bytes) else { continue };
        for layer in &artifact.layers {
            read_blob(client, &repository, layer).await.expect("a verified layer");
        }
    }
}

#[tokio::test]
async fn a_bundle_from_a_pipe_is_loaded_shares_its_layers_and_verifies_again_from_the_registry() {
    let scene = Scene::new().await;
    let client = scene.client();
    let loaded = scene.load(&client, &scene.sample.bytes(3).await).await.expect("loaded");
    assert!(loaded.counts().mounted > 0, "{:?}", loaded.counts());
    assert_eq!(loaded.counts().copied, 0);
    assert_loaded(&client, &scene, 3).await;
}

#[tokio::test]
async fn a_bundle_from_a_file_is_loaded_and_the_second_time_no_blob_of_it_is_read() {
    let scene = Scene::new().await;
    let between = Between::start(Some(scene.server.address()), |_, _| None).await;
    let client = client(plain(between.address));
    let bytes = scene.sample.bytes(3).await;
    let loaded = scene.load_file(&client, &bytes).await.expect("loaded");
    assert!(loaded.counts().mounted > 0, "{:?}", loaded.counts());
    assert_eq!((loaded.counts().copied, loaded.bundle().unread().len()), (0, 0));
    let sent: u64 = loaded.blobs().iter().map(|blob| blob.size).sum();
    assert!(loaded.counts().pushed_bytes >= sent, "the metadata beside the catalog is sent too");
    assert!(loaded.blobs().iter().any(|blob| blob.read_back));
    assert_loaded(&client, &scene, 3).await;

    between.forget();
    let again = scene.load_file(&client, &bytes).await.expect("loaded again");
    assert_eq!((again.counts().pushed, again.counts().manifests, again.counts().tags), (0, 0, 0));
    let large = loaded.blobs().len() - 1;
    assert_eq!(again.bundle().unread().len(), large, "all but the catalog, which is read with the manifests");
    let requests = between.seen();
    assert!(requests.iter().all(|seen| seen.method == "HEAD"), "{requests:?}");
    assert_eq!(requests.len(), 2 * again.items().len() + 1);

    // Everything is read and read back when that is asked for.
    let archive = Arc::new(Flat(bytes));
    let all = scene.load_archive(&client, "enclave", archive, ReadBack::All).await.expect("loaded again");
    assert!(all.bundle().unread().is_empty());
    assert!(all.blobs().iter().all(|blob| blob.read_back));
}

/// An archive of which a range can't be read.
struct WithHole(Flat, std::ops::Range<u64>);

impl ReadAt for WithHole {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> std::io::Result<usize> {
        let end = offset + buffer.len() as u64;
        if offset < self.1.end && end > self.1.start {
            return Err(std::io::Error::other("part 2 is missing"));
        }
        self.0.read_at(buffer, offset)
    }

    fn bytes(&self) -> u64 {
        self.0.bytes()
    }
}

/// An archive of which one byte is another when it is read than it was when it was written; and whether it was read.
struct Changing(Flat, std::ops::Range<u64>, std::sync::atomic::AtomicBool);

impl ReadAt for Changing {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> std::io::Result<usize> {
        let count = self.0.read_at(buffer, offset)?;
        let here = offset..offset + count as u64;
        let at = self.1.end - 1;
        if here.contains(&at) {
            buffer[(at - offset) as usize] ^= 1;
            self.2.store(true, std::sync::atomic::Ordering::Relaxed);
        }
        Ok(count)
    }

    fn bytes(&self) -> u64 {
        self.0.bytes()
    }
}

#[tokio::test]
async fn a_file_that_changes_while_it_is_loaded_tags_nothing() {
    let scene = Scene::new().await;
    let client = scene.client();
    let bytes = scene.sample.bytes(1).await;
    let at = bytes.windows(1024).position(|window| *window == [7; 1024]).expect("a layer") as u64;
    let archive = Arc::new(Changing(Flat(bytes.clone()), at..at + 1024, false.into()));
    let error = scene.load_archive(&client, "enclave", archive.clone(), ReadBack::Sample).await.expect_err("refused");
    assert!(archive.2.load(std::sync::atomic::Ordering::Relaxed), "the change was read");
    assert_eq!(error.class(), ExitClass::Refused, "{error}");
    scene.assert_nothing_tagged().await;
    // Whoever loads the file as it was finds nothing of the other bytes.
    scene.load_file(&client, &bytes).await.expect("loaded");
    assert_loaded(&client, &scene, 1).await;
}

#[tokio::test]
async fn where_a_part_is_missing_all_else_is_loaded_and_the_blobs_are_named() {
    let scene = Scene::new().await;
    let client = scene.client();
    let bytes = scene.sample.bytes(1).await;
    let from = bytes.len() as u64 - 3000;
    let archive = Arc::new(WithHole(Flat(bytes.clone()), from..bytes.len() as u64));
    let error = scene.load_archive(&client, "enclave", archive, ReadBack::Sample).await.expect_err("incomplete");
    let LoadError::Incomplete(missing) = &error else { panic!("{error:?}") };
    assert!(!missing.blobs.is_empty());
    let digests: Vec<Digest> = missing.blobs.iter().map(|blob| blob.digest).collect();
    let message = Failure::from(error).to_string();
    assert!(message.contains("part 2 is missing"), "{message}");
    scene.assert_nothing_tagged().await;

    let loaded = scene.load_file(&client, &bytes).await.expect("loaded");
    let pushed = |blob: &&crate::model::receipt::ReceiptBlob| blob.repositories.values().any(|o| *o == Outcome::Pushed);
    let now: Vec<Digest> = loaded.blobs().iter().filter(pushed).map(|blob| blob.digest).collect();
    assert_eq!(
        {
            let mut now = now;
            now.sort();
            now
        },
        {
            let mut digests = digests;
            digests.sort();
            digests
        }
    );
    assert_loaded(&client, &scene, 1).await;
}

#[tokio::test]
async fn docker_registry_takes_a_bundle_too() {
    let Some(registry) = DockerRegistry::start().await else { return };
    let scene = Scene::new().await;
    let client = client(plain(registry.address));
    let bytes = scene.sample.bytes(1).await;
    let loaded = scene.load(&client, &bytes).await.expect("loaded");
    assert!(loaded.counts().mounted > 0, "{:?}", loaded.counts());
    assert_loaded(&client, &scene, 1).await;
    let again = scene.load(&client, &bytes).await.expect("loaded again");
    assert_eq!((again.counts().pushed, again.counts().manifests, again.counts().tags), (0, 0, 0));
}

#[tokio::test]
async fn what_somebody_removed_under_a_loaded_item_is_brought_back_when_everything_is_looked_at() {
    let scene = Scene::new().await;
    let client = scene.client();
    let bytes = scene.sample.bytes(1).await;
    let _ = scene.load_file(&client, &bytes).await.expect("loaded");
    let shared = Digest::of([7; 1024]);
    let places = ["images/many", "images/twin", "images/web"];
    for place in places {
        let http = reqwest::Client::builder().no_proxy().build().expect("a client");
        let url = format!("http://{}/v2/enclave/{place}/blobs/{shared}", scene.server.address());
        assert!(http.delete(url).send().await.expect("an answer").status().is_success());
        let archive = Arc::new(Flat(bytes.clone()));
        let _ = scene.load_archive(&client, "enclave", archive, ReadBack::All).await.expect("loaded again");
        for place in places {
            let repository = format!("enclave/{place}").parse().expect("a repository");
            assert!(client.blob_exists(&repository, &shared, 1024).await.expect("an answer"), "{place}");
        }
    }
}

#[tokio::test]
async fn a_second_load_sends_nothing() {
    let scene = Scene::new().await;
    let between = Between::start(Some(scene.server.address()), |_, _| None).await;
    let client = client(plain(between.address));
    let bytes = scene.sample.bytes(1).await;
    scene.load(&client, &bytes).await.expect("loaded");
    between.forget();
    scene.load(&client, &bytes).await.expect("loaded again");
    let sent: Vec<_> =
        between.seen().into_iter().filter(|seen| !matches!(seen.method.as_str(), "GET" | "HEAD")).collect();
    assert!(sent.is_empty(), "{sent:?}");
}

#[tokio::test]
async fn a_shared_layer_goes_up_once_and_is_copied_where_the_registry_does_not_mount() {
    let mut images = Images::new();
    let base: &[u8] = &[9; 70_000];
    let gapscan = images.image(&[b"the program"]);
    images.item("images/gapscan", gapscan);
    for name in ["a", "b", "c"] {
        let image = images.image(&[base, name.as_bytes()]);
        images.item(&format!("images/{name}"), image);
    }
    let scene = Scene::new().await;
    let bytes = std::fs::read(scene.sample.file_of(images, 1).await).expect("the bundle");
    let digest = Digest::of(base);
    let uploads = |between: &Between| {
        // What goes to the upload that the registry forgot is sent again.
        let sent =
            |seen: &&Seen| seen.method == "PUT" && seen.query.contains(&digest.hex()) && !seen.path.ends_with("gone");
        between.seen().iter().filter(sent).count()
    };

    let mounting = Between::start(Some(scene.server.address()), |_, _| None).await;
    scene.load(&client(plain(mounting.address)), &bytes).await.expect("loaded");
    assert_eq!(uploads(&mounting), 1);

    let other = Scene::new().await;
    let declining = Between::start(Some(other.server.address()), |seen, _| {
        (seen.method == "POST" && seen.query.contains("mount=")).then(|| {
            Response::builder()
                .status(202)
                .header("location", format!("{}gone", seen.path))
                .body(axum::body::Body::empty())
                .expect("an answer")
        })
    })
    .await;
    let counts = scene.load(&client(plain(declining.address)), &bytes).await.expect("loaded").counts();
    assert!(counts.copied + counts.pushed >= 3, "{counts:?}");
    assert_eq!(uploads(&declining), 3);
    assert_loaded(&other.client(), &scene, 1).await;
}

#[tokio::test]
async fn a_byte_flipped_anywhere_is_refused_and_nothing_is_tagged() {
    let scene = Scene::new().await;
    let client = scene.client();
    let whole = scene.sample.bytes(1).await;
    // In the metadata: nothing is sent at all.
    for offset in [700, 3000] {
        let mut bytes = whole.clone();
        bytes[offset] ^= 1;
        let error = scene.load(&client, &bytes).await.expect_err("refused");
        assert_eq!(Failure::from(error).class(), ExitClass::Refused, "byte {offset}");
        let error = scene.load_file(&client, &bytes).await.expect_err("refused");
        assert_eq!(Failure::from(error).class(), ExitClass::Refused, "byte {offset}");
        assert_eq!(scene.repositories(), 0);
    }
    // In blobs, headers, padding, the end: blobs before it may be there, but nothing points to them.
    let step = whole.len() / 23;
    for offset in (0..whole.len()).step_by(step).chain([whole.len() - 1, whole.len() - 1025]) {
        let mut bytes = whole.clone();
        bytes[offset] ^= 0x80;
        let error = scene.load(&client, &bytes).await.expect_err("refused");
        assert_eq!(Failure::from(error).class(), ExitClass::Refused, "byte {offset}");
        // Into repositories that have none of it: what a repository has is not read from a file.
        let below = format!("file-{offset}");
        let archive = Arc::new(Flat(bytes));
        let error = scene.load_archive(&client, &below, archive, ReadBack::Sample).await.expect_err("refused");
        assert_eq!(Failure::from(error).class(), ExitClass::Refused, "byte {offset}");
        scene.assert_nothing_tagged_below(&below).await;
        scene.assert_nothing_tagged().await;
    }
    // The refusals left nothing behind that hinders the right bundle.
    scene.load(&client, &whole).await.expect("loaded");
    assert_loaded(&client, &scene, 1).await;
}

#[tokio::test]
async fn a_cut_or_longer_bundle_is_refused_and_nothing_is_tagged() {
    let scene = Scene::new().await;
    let client = scene.client();
    let whole = scene.sample.bytes(1).await;
    let longer = [whole.as_slice(), &[0; 512]].concat();
    let cuts = (0..whole.len()).step_by(whole.len() / 17).map(|end| whole[..end].to_vec());
    for bytes in cuts.chain([whole[..whole.len() - 1].to_vec(), longer]) {
        let error = scene.load(&client, &bytes).await.expect_err("refused");
        assert_eq!(Failure::from(error).class(), ExitClass::Refused, "{} bytes", bytes.len());
        let error = scene.load_file(&client, &bytes).await.expect_err("refused");
        assert_eq!(Failure::from(error).class(), ExitClass::Refused, "{} bytes", bytes.len());
        scene.assert_nothing_tagged().await;
    }
}

#[tokio::test]
async fn old_expired_and_foreign_bundles_touch_nothing() {
    let scene = Scene::new().await;
    let client = scene.client();
    let newer = scene.sample.bytes(2).await;
    let older = scene.sample.bytes(1).await;
    let late: Timestamp = "2200-01-01T00:00:00Z".parse().expect("a time");
    let expired = scene.load_at(&client, &newer, late).await.expect_err("expired");
    assert_eq!(Failure::from(expired).class(), ExitClass::Refused);
    let stranger = Sample::new();
    let foreign = scene.load(&client, &stranger.bytes(1).await).await.expect_err("another root's");
    assert_eq!(Failure::from(foreign).class(), ExitClass::Refused);
    assert_eq!(scene.repositories(), 0, "neither was looked at any further");

    scene.load(&client, &newer).await.expect("loaded");
    let before = client.tags(&"enclave/catalog".parse().expect("a repository")).await.expect("tags");
    let rollback = scene.load(&client, &older).await.expect_err("rolled back");
    assert_eq!(Failure::from(rollback).class(), ExitClass::Refused);
    assert_eq!(client.tags(&"enclave/catalog".parse().expect("a repository")).await.expect("tags"), before);
    assert_loaded(&client, &scene, 2).await;
}

#[tokio::test]
async fn a_load_that_broke_off_is_taken_up_again() {
    let scene = Scene::new().await;
    let bytes = scene.sample.bytes(1).await;
    // The registry dies at each request that changes something, one later each time.
    for survived in 0.. {
        assert!(survived < 200, "every load broke off");
        let left = std::sync::atomic::AtomicUsize::new(survived);
        let dying = Between::start(Some(scene.server.address()), move |seen, _| {
            let changes = !matches!(seen.method.as_str(), "GET" | "HEAD");
            let spent = changes
                && left
                    .fetch_update(std::sync::atomic::Ordering::SeqCst, std::sync::atomic::Ordering::SeqCst, |n| {
                        n.checked_sub(1)
                    })
                    .is_err();
            spent.then(|| status(400))
        })
        .await;
        match scene.load(&client(plain(dying.address)), &bytes).await {
            Ok(_) => break,
            Err(error) => assert_eq!(Failure::from(error).class(), ExitClass::Unreachable),
        }
    }
    assert_loaded(&scene.client(), &scene, 1).await;
}

#[tokio::test]
async fn a_catalog_that_was_changed_in_the_registry_is_refused() {
    let scene = Scene::new().await;
    let client = scene.client();
    scene.load(&client, &scene.sample.bytes(1).await).await.expect("loaded");
    let prefix: Prefix = format!("{}/enclave", client.registry()).parse().expect("a prefix");
    let repository = prefix.repository(CATALOG_REPOSITORY).expect("a repository");
    let read = async |name: &str| {
        let limits = Limits::default();
        read_catalog(&client, &prefix, name, &scene.sample.root, &scene.remembered, &limits, scene.sample.now).await
    };
    assert!(matches!(read("another").await, Err(LoadError::Absent { .. })));

    // Somebody with write access puts a catalog of his own under the tag, once without metadata and once with the real one.
    let catalog = b"{\"name\":\"sample\"}".as_slice();
    let blob = Blob { repository: &repository, digest: &Digest::of(catalog), size: catalog.len() as u64 };
    client.push_stream(blob, catalog, None, None).await.expect("a blob");
    let manifest = serde_json::to_vec(&json!({
        "schemaVersion": 2, "mediaType": oci::MANIFEST, "config": Descriptor::of(oci::EMPTY, b"{}"),
        "layers": [Descriptor::of(CATALOG_MEDIA_TYPE, catalog)],
    }))
    .expect("JSON");
    let real =
        client.manifest(&repository, &ManifestName::Tag(NAME.parse().expect("a tag"))).await.expect("the catalog");
    let vouches = client
        .manifest(&repository, &ManifestName::Tag(metadata_tag(&real.digest).expect("a tag")))
        .await
        .expect("the metadata");
    let tag = |tag: Tag| ManifestName::Tag(tag);
    client
        .push_manifest(&repository, &tag(NAME.parse().expect("a tag")), oci::MANIFEST, &manifest)
        .await
        .expect("pushed");
    assert_eq!(read(NAME).await.expect_err("refused").class(), ExitClass::Refused);
    let own = tag(metadata_tag(&Digest::of(&manifest)).expect("a tag"));
    client.push_manifest(&repository, &own, oci::MANIFEST, &vouches.bytes).await.expect("pushed");
    assert_eq!(read(NAME).await.expect_err("refused").class(), ExitClass::Refused);
}

#[tokio::test]
async fn a_catalog_of_another_bundle_under_the_name_is_refused() {
    let scene = Scene::new().await;
    let client = scene.client();
    scene.load(&client, &scene.sample.bytes(1).await).await.expect("loaded");
    let prefix: Prefix = format!("{}/enclave", client.registry()).parse().expect("a prefix");
    let repository = prefix.repository(CATALOG_REPOSITORY).expect("a repository");
    // All of it is signed, and whoever moves the tag only chooses which bundle a run starts from.
    let name = |text: &str| ManifestName::Tag(text.parse().expect("a tag"));
    let real = client.manifest(&repository, &name(NAME)).await.expect("the catalog");
    client.push_manifest(&repository, &name("another"), oci::MANIFEST, &real.bytes).await.expect("pushed");
    let limits = Limits::default();
    let Scene { sample, remembered, .. } = &scene;
    let read = read_catalog(&client, &prefix, "another", &sample.root, remembered, &limits, sample.now).await;
    assert_eq!(read.expect_err("refused").class(), ExitClass::Refused);
}
