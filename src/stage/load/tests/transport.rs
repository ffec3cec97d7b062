//! Parts, deltas, rehearsals, room, and registries that store something else.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::body::Body;

use super::*;
use crate::base::quantity::Span;
use crate::bundle::BundleError;
use crate::bundle::contents::BaseRef;
use crate::bundle::media::{Media, NobodyToAsk};
use crate::bundle::parts::{Lack, PartSet};
use crate::model::receipt::ReceiptBlob;
use crate::stage::load::incomplete::Incomplete;
use crate::trust::TrustError;
use crate::trust::root::RootPlan;

impl Scene {
    async fn load_parts(&self, client: &Client, media: &Media) -> Result<LoadedBundle, LoadError> {
        let prefix: Prefix = format!("{}/enclave", client.registry()).parse().expect("a prefix");
        let (limits, progress) = (Limits::default(), Progress::quiet());
        self.request(client, &prefix, &limits, &progress, self.sample.now).run_parts(media, None::<NobodyToAsk>).await
    }

    async fn rehearse(&self, client: &Client, bytes: &[u8]) -> Result<super::super::dry_run::Rehearsal, LoadError> {
        let prefix: Prefix = format!("{}/enclave", client.registry()).parse().expect("a prefix");
        let (limits, progress) = (Limits::default(), Progress::quiet());
        let load = self.request(client, &prefix, &limits, &progress, self.sample.now);
        load.rehearse_file(Arc::new(Flat(bytes.to_vec()))).await
    }

    fn parts(&self, bytes: &[u8], part_bytes: usize) -> PathBuf {
        let folder = self.sample.folder.path().join("media");
        std::fs::create_dir_all(&folder).expect("a folder");
        for (at, piece) in bytes.chunks(part_bytes).enumerate() {
            std::fs::write(folder.join(format!("out.tar.{:03}", at + 1)), piece).expect("a part");
        }
        folder
    }
}

fn media(folder: &Path) -> Media {
    let places = [folder.to_owned()];
    Media::new(&PartSet::find(&places).expect("parts"), &places)
}

fn incomplete(error: LoadError) -> Box<Incomplete> {
    match error {
        LoadError::Incomplete(incomplete) => incomplete,
        other => panic!("{other:?}"),
    }
}

fn writes(between: &Between) -> Vec<String> {
    let changes = |seen: &Seen| !matches!(seen.method.as_str(), "GET" | "HEAD");
    between.seen().into_iter().filter(changes).map(|seen| format!("{} {}", seen.method, seen.path)).collect()
}

fn base_of(loaded: &LoadedBundle) -> (BaseRef, BTreeMap<Digest, String>) {
    let bundle = loaded.bundle().bundle();
    let base = BaseRef { bundle: bundle.name.clone(), version: bundle.version, content: bundle.digest };
    let place = |blob: &ReceiptBlob| {
        blob.repositories.keys().find(|name| *name != CATALOG_REPOSITORY).map(|name| (blob.digest, name.clone()))
    };
    (base, loaded.blobs().iter().filter_map(place).collect())
}

/// The usual images, and one more.
fn more(name: &str, layer: &[u8]) -> Images {
    let mut images = Images::usual();
    let image = images.image(&[layer]);
    images.item(&format!("images/{name}"), image);
    images
}

#[tokio::test]
async fn parts_are_loaded_as_the_whole_is_and_missing_ones_are_named() {
    let scene = Scene::new().await;
    let client = scene.client();
    let bytes = scene.sample.bytes(1).await;
    // The documents are in the first parts; the last is left out, and one in the middle of the blobs.
    let folder = scene.parts(&bytes, 1024);
    let count = bytes.len().div_ceil(1024) as u32;
    let part = |number: u32| folder.join(format!("out.tar.{number:03}"));
    let (gone, last) = (count - 4, count);
    for number in [gone, last] {
        std::fs::rename(part(number), folder.join(format!("kept-{number}"))).expect("taken out");
    }
    let error = scene.load_parts(&client, &media(&folder)).await.expect_err("incomplete");
    assert_eq!(error.class(), ExitClass::Unreachable);
    let trouble = incomplete(error);
    assert!(!trouble.blobs.is_empty() && !trouble.broken.is_empty());
    let numbers: Vec<u32> = trouble.parts.as_ref().expect("parts").numbers().collect();
    assert!(numbers.contains(&gone), "{numbers:?}");
    assert!(trouble.remedy().contains(&gone.to_string()), "{}", trouble.remedy());
    scene.assert_nothing_tagged().await;

    // With the first of them back, the other one is all that lacks; then the load goes on where it was.
    std::fs::rename(folder.join(format!("kept-{gone}")), part(gone)).expect("put in");
    let trouble = incomplete(scene.load_parts(&client, &media(&folder)).await.expect_err("incomplete"));
    let lacking = trouble.parts.expect("parts").lacking;
    assert_eq!(lacking, [(last, Lack::Absent)]);
    std::fs::rename(folder.join(format!("kept-{last}")), part(last)).expect("put in");
    let loaded = scene.load_parts(&client, &media(&folder)).await.expect("loaded");
    assert!(loaded.counts().skipped > 0, "{:?}", loaded.counts());
    assert_loaded(&client, &scene, 1).await;

    // Without the first part nothing can begin, and nothing is sent.
    std::fs::remove_file(part(1)).expect("removed");
    let trouble = incomplete(scene.load_parts(&client, &media(&folder)).await.expect_err("incomplete"));
    assert_eq!(trouble.parts.expect("parts").lacking, [(1, Lack::Absent)]);
}

#[tokio::test]
async fn parts_of_two_bundles_mixed() {
    let scene = Scene::new().await;
    let client = scene.client();
    let stranger = Sample::new();
    let other = std::fs::read(stranger.file_of(more("other", &[3; 30_000]), 1).await).expect("a bundle");
    let bytes = std::fs::read(scene.sample.file_of(more("one", &[4; 20_000]), 1).await).expect("a bundle");
    let folder = scene.parts(&bytes, 4096);
    // A whole part of the large layer comes from the other bundle.
    let at = bytes.windows(20_000).position(|w| w.iter().all(|b| *b == 4)).expect("the layer");
    let number = at.div_ceil(4096) as u32 + 2;
    let foreign = &other[(number as usize - 1) * 4096..][..4096];
    std::fs::write(folder.join(format!("out.tar.{number:03}")), foreign).expect("mixed");
    let error = scene.load_parts(&client, &media(&folder)).await.expect_err("refused");
    assert_eq!(error.class(), ExitClass::Refused, "{error}");
    let trouble = incomplete(error);
    let parts = trouble.parts.expect("parts");
    assert!(parts.numbers().any(|found| found == number), "{parts}");
    scene.assert_nothing_tagged().await;
}

#[tokio::test]
async fn a_damaged_part_is_named_by_its_number() {
    let scene = Scene::new().await;
    let client = scene.client();
    let bytes = std::fs::read(scene.sample.file_of(more("large", &[8; 20_000]), 1).await).expect("a bundle");
    let folder = scene.parts(&bytes, 2048);
    // In the middle of the large layer, which lies over many parts: only the sums know which one it is.
    let at = bytes.windows(20_000).position(|w| w.iter().all(|b| *b == 8)).expect("the layer") + 9000;
    let number = (at / 2048) as u32 + 1;
    let path = folder.join(format!("out.tar.{number:03}"));
    let sums: String = (0..bytes.len().div_ceil(2048))
        .map(|n| {
            let piece = &bytes[n * 2048..bytes.len().min((n + 1) * 2048)];
            format!("{}  out.tar.{:03}\n", Digest::of(piece).hex(), n + 1)
        })
        .collect();
    let mut damaged = std::fs::read(&path).expect("the part");
    damaged[at % 2048] ^= 1;
    std::fs::write(&path, damaged).expect("damaged");
    let trouble = incomplete(scene.load_parts(&client, &media(&folder)).await.expect_err("refused"));
    assert_eq!(trouble.broken, ["images/large"]);
    assert!(trouble.parts.expect("parts").numbers().count() > 5, "nobody knows which");
    std::fs::write(folder.join("out.tar.sha256"), sums).expect("sums");
    let trouble = incomplete(scene.load_parts(&client, &media(&folder)).await.expect_err("refused"));
    assert_eq!(trouble.class(), ExitClass::Refused);
    assert_eq!(trouble.parts.as_ref().expect("parts").numbers().collect::<Vec<_>>(), [number]);
    assert!(trouble.to_string().contains(&format!("damaged: part {number} of")), "{trouble}");
    scene.assert_nothing_tagged().await;
}

#[tokio::test]
async fn what_a_damaged_or_cut_stream_brought_is_told_blob_by_blob() {
    let scene = Scene::new().await;
    let client = scene.client();
    let bytes = scene.sample.bytes(1).await;
    let web = Digest::of(b"web");
    let at = bytes.windows(516).position(|w| w.starts_with(b"web") && w[3..512].iter().all(|b| *b == 0)).expect("it");
    let mut damaged = bytes.clone();
    damaged[at] ^= 1;
    let trouble = incomplete(scene.load(&client, &damaged).await.expect_err("refused"));
    assert_eq!(trouble.blobs.iter().map(|blob| blob.digest).collect::<Vec<_>>(), [web], "and no other");
    assert!(trouble.blobs[0].is_damaged());
    assert_eq!(trouble.broken, ["images/many", "images/web"]);
    assert!(trouble.whole.contains(&"images/twin".to_owned()));
    assert!(trouble.lines()[0].starts_with("damaged   sha256:"), "{:?}", trouble.lines());
    scene.assert_nothing_tagged().await;

    let cut = scene.load(&client, &bytes[..bytes.len() - 3000]).await.expect_err("refused");
    assert_eq!(cut.class(), ExitClass::Refused);
    let trouble = incomplete(cut);
    assert!(trouble.blobs.iter().all(|blob| !blob.is_damaged()) && !trouble.blobs.is_empty());
    scene.assert_nothing_tagged().await;
    scene.load(&client, &bytes).await.expect("loaded");
}

#[tokio::test]
async fn deltas_of_deltas_are_loaded_upon_their_bases() {
    let scene = Scene::new().await;
    let client = scene.client();
    let first = scene.load(&client, &scene.sample.bytes(1).await).await.expect("loaded");
    let (base, there) = base_of(&first);
    let second = scene.sample.delta_of(more("two", b"second"), 2, base, &there).await;
    assert!(second.len() < scene.sample.bytes(1).await.len());
    let second = scene.load_file(&client, &second).await.expect("loaded");
    assert_eq!(second.bundle().base().map(|base| base.version), Some(1));
    assert_loaded(&client, &scene, 2).await;
    // The receipt of a delta lists everything, so that the next one can be built from it alone.
    let (base, there) = base_of(&second);
    assert!(there.contains_key(&Digest::of(b"web")));
    let third = scene.sample.delta_of(more("three", b"third"), 3, base, &there).await;
    // An item that moved needs what the base has elsewhere: it is mounted.
    let third = scene.load(&client, &third).await.expect("loaded");
    assert_eq!(third.counts().pushed, 3, "{:?}", third.counts());
    assert_loaded(&client, &scene, 3).await;
}

#[tokio::test]
async fn what_a_delta_leaves_out_is_mounted_where_it_is_needed() {
    let scene = Scene::new().await;
    let client = scene.client();
    let first = scene.load(&client, &scene.sample.bytes(1).await).await.expect("loaded");
    let (base, there) = base_of(&first);
    let mut images = Images::usual();
    let again = images.image(&[&[42; 700]]);
    images.item("images/again", again);
    let delta = scene.sample.delta_of(images, 2, base, &there).await;
    let loaded = scene.load_file(&client, &delta).await.expect("loaded");
    let blob = loaded.blobs().iter().find(|blob| blob.digest == Digest::of([42; 700])).expect("it");
    assert_eq!(blob.repositories["images/again"], Outcome::Mounted);
    assert_eq!(blob.repositories["dependencies/database"], Outcome::Present);
    assert_loaded(&client, &scene, 2).await;
}

#[tokio::test]
async fn delta_with_its_base_absent_or_another_base_of_the_same_name() {
    let scene = Scene::new().await;
    let base_bytes = scene.sample.bytes(1).await;
    let elsewhere = Scene::new().await;
    let loaded = {
        // The same bundle in another registry, so that a receipt of it is there.
        let prefix: Prefix = format!("{}/enclave", elsewhere.server.address()).parse().expect("a prefix");
        let (limits, progress, client) = (Limits::default(), Progress::quiet(), elsewhere.client());
        let load = scene.request(&client, &prefix, &limits, &progress, scene.sample.now);
        load.run_file(Arc::new(Flat(base_bytes.clone()))).await.expect("loaded")
    };
    let (base, there) = base_of(&loaded);
    let delta = scene.sample.delta_of(more("two", b"second"), 2, base.clone(), &there).await;

    let between = Between::start(Some(scene.server.address()), |_, _| None).await;
    let watched = client(plain(between.address));
    for refused in [scene.load(&watched, &delta).await, scene.load_file(&watched, &delta).await] {
        let error = refused.expect_err("refused");
        assert!(matches!(error, LoadError::BaseAbsent { .. }), "{error}");
        assert_eq!(error.class(), ExitClass::Refused);
    }
    assert!(matches!(scene.rehearse(&watched, &delta).await, Err(LoadError::BaseAbsent { .. })));
    assert_eq!(writes(&between), Vec::<String>::new(), "the registry saw no write");

    // Another content of the same name and version was loaded here.
    let nothing = Remembered::nothing();
    let other = std::fs::read(scene.sample.file_of(more("other", b"other"), 1).await).expect("a bundle");
    let prefix: Prefix = format!("{}/enclave", scene.server.address()).parse().expect("a prefix");
    let (limits, progress, direct) = (Limits::default(), Progress::quiet(), scene.client());
    let load = Load { remembered: &nothing, ..scene.request(&direct, &prefix, &limits, &progress, scene.sample.now) };
    load.run_file(Arc::new(Flat(other))).await.expect("loaded");
    between.forget();
    let error = scene.load_file(&watched, &delta).await.expect_err("refused");
    assert!(matches!(&error, LoadError::OtherBase { found, .. } if *found != base.content), "{error}");
    assert_eq!(error.class(), ExitClass::Refused);
    assert_eq!(writes(&between), Vec::<String>::new(), "the registry saw no write");
}

#[tokio::test]
async fn blobs_of_the_base_that_are_gone_are_named_before_anything_is_written() {
    let scene = Scene::new().await;
    let direct = scene.client();
    let first = scene.load(&direct, &scene.sample.bytes(1).await).await.expect("loaded");
    let (base, there) = base_of(&first);
    let delta = scene.sample.delta_of(more("two", b"second"), 2, base, &there).await;
    let gone = Digest::of(b"web");
    let between = Between::start(Some(scene.server.address()), move |seen, _| {
        (seen.method == "HEAD" && seen.path.ends_with(&gone.hex())).then(|| status(404))
    })
    .await;
    let error = scene.load_file(&client(plain(between.address)), &delta).await.expect_err("refused");
    let LoadError::BaseBlobs { gone: named, .. } = &error else { panic!("{error:?}") };
    assert_eq!(named.iter().map(|(digest, _)| *digest).collect::<Vec<_>>(), [gone]);
    assert!(error.to_string().contains(&gone.to_string()), "{error}");
    assert_eq!(writes(&between), Vec::<String>::new());
}

#[tokio::test]
async fn an_old_base_is_a_base_all_the_same() {
    let mut plan = RootPlan::default();
    plan.validity.values_mut().for_each(|span| *span = Span::days(73_000));
    let scene = Scene::of(Sample::with_validity(plan)).await;
    let direct = scene.client();
    let base = scene.sample.file_for(Images::usual(), 1, Span::days(36_500)).await;
    let base_bytes = std::fs::read(base).expect("a bundle");
    let first = scene.load(&direct, &base_bytes).await.expect("loaded");
    let (base, there) = base_of(&first);
    let delta = scene.sample.delta_for(more("two", b"second"), 2, base, &there, Span::days(73_000)).await;
    // The base has expired and the delta has not. It is named by its content, whatever its signatures say.
    let later: Timestamp = "2150-01-01T00:00:00Z".parse().expect("a time");
    let error = scene.load_at(&direct, &base_bytes, later).await.expect_err("the base itself can't be loaded any more");
    assert!(matches!(error, LoadError::Bundle(BundleError::Trust(TrustError::Expired { .. }))), "{error}");
    scene.load_at(&direct, &delta, later).await.expect("loaded");
}

#[tokio::test]
async fn a_rehearsal_says_what_the_load_then_does_and_writes_nothing() {
    let scene = Scene::new().await;
    let between = Between::start(Some(scene.server.address()), |_, _| None).await;
    let watched = client(plain(between.address));
    let bytes = scene.sample.bytes(1).await;
    let state = scene.sample.folder.path().join("state");
    let before = scene.rehearse(&watched, &bytes).await.expect("rehearsed");
    assert_eq!(writes(&between), Vec::<String>::new());
    assert!(!state.exists(), "nothing was remembered");
    assert_eq!(scene.repositories(), 0);
    let loaded = scene.load_file(&watched, &bytes).await.expect("loaded");
    let counts = loaded.counts();
    assert_eq!((before.blobs.push, before.blobs.mount), (counts.pushed, counts.mounted));
    assert_eq!(before.tags.len() as u64, counts.tags);
    assert!(before.items.iter().all(|item| !item.present));

    let after = scene.rehearse(&watched, &bytes).await.expect("rehearsed");
    assert_eq!((after.blobs.push, after.blobs.mount, after.tags.len()), (0, 0, 0));
    assert!(after.items.iter().all(|item| item.present));
    // It ends as the load would.
    let mut damaged = bytes.clone();
    let end = damaged.len() - 1100;
    damaged[end] ^= 1;
    assert_eq!(scene.rehearse(&watched, &damaged).await.expect_err("refused").class(), ExitClass::Refused);
    scene.load_file(&watched, &scene.sample.bytes(2).await).await.expect("loaded");
    assert_eq!(scene.rehearse(&watched, &bytes).await.expect_err("rolled back").class(), ExitClass::Refused);
}

#[tokio::test]
async fn too_little_room_is_said_with_numbers_before_anything_is_sent() {
    let scene = Scene::new().await;
    let room = |bytes: u64| {
        let answer = format!("{{\"availableBytes\": {bytes}}}");
        move |seen: &Seen, _: usize| {
            seen.path.ends_with("/_gapscan/space").then(|| Response::new(Body::from(answer.clone())))
        }
    };
    let bytes = scene.sample.bytes(1).await;
    let little = Between::start(Some(scene.server.address()), room(1000)).await;
    let error = scene.load_file(&client(plain(little.address)), &bytes).await.expect_err("no room");
    assert!(matches!(error, LoadError::Space { available: 1000, needed, .. } if needed > 1000), "{error}");
    assert_eq!(error.class(), ExitClass::Unreachable);
    assert!(error.to_string().contains("(1000 bytes) are free"), "{error}");
    assert!(matches!(scene.rehearse(&client(plain(little.address)), &bytes).await, Err(LoadError::Space { .. })));
    assert_eq!(writes(&little), Vec::<String>::new());
    let enough = Between::start(Some(scene.server.address()), room(1 << 30)).await;
    scene.load_file(&client(plain(enough.address)), &bytes).await.expect("loaded");
    // What is there already needs no room.
    scene.load_file(&client(plain(little.address)), &bytes).await.expect("loaded again");
}

#[tokio::test]
async fn a_registry_that_said_201_and_stored_other_bytes() {
    let scene = Scene::new().await;
    let lying = Arc::new(AtomicBool::new(true));
    let wanted = Digest::of([7; 1024]);
    let rule = {
        let lying = Arc::clone(&lying);
        move |seen: &Seen, _: usize| {
            let asked = seen.method == "GET" && seen.path.ends_with(&format!("/blobs/{wanted}"));
            (asked && lying.load(Ordering::SeqCst)).then(|| Response::new(Body::from(vec![6; 1024])))
        }
    };
    let between = Between::start(Some(scene.server.address()), rule).await;
    let watched = client(plain(between.address));
    let bytes = scene.sample.bytes(1).await;
    // Of so little, a sample is everything that was sent.
    let error = scene.load_file(&watched, &bytes).await.expect_err("refused");
    assert_eq!(error.class(), ExitClass::Refused, "{error}");
    scene.assert_nothing_tagged().await;
    // What was there before is read only when everything is asked for.
    let archive = || Arc::new(Flat(bytes.clone()));
    let error = scene.load_archive(&watched, "enclave", archive(), ReadBack::All).await.expect_err("refused");
    assert_eq!(error.class(), ExitClass::Refused, "{error}");
    scene.assert_nothing_tagged().await;
    lying.store(false, Ordering::SeqCst);
    scene.load_archive(&watched, "enclave", archive(), ReadBack::All).await.expect("loaded");
}

#[tokio::test]
async fn a_receipt_calls_nothing_mounted_that_was_there() {
    let scene = Scene::new().await;
    let client = scene.client();
    let bytes = scene.sample.bytes(1).await;
    // An interrupted load had brought this blob into all its repositories, and had tagged nothing.
    let (web, size) = (Digest::of(b"web"), 3);
    for name in ["enclave/images/many", "enclave/images/web"] {
        let repository = name.parse().expect("a repository");
        let blob = Blob { repository: &repository, digest: &web, size };
        client.push_stream(blob, b"web".as_slice(), None, None).await.expect("pushed");
    }
    let loaded = scene.load(&client, &bytes).await.expect("loaded");
    let outcomes = |loaded: &LoadedBundle, digest| {
        let blob = loaded.blobs().iter().find(|blob| blob.digest == digest).expect("it");
        blob.repositories.clone().into_iter().collect::<Vec<_>>()
    };
    let present = |name: &str| (name.to_owned(), Outcome::Present);
    assert_eq!(outcomes(&loaded, web), [present("images/many"), present("images/web")]);
    // And when everything is looked at again, everything was there.
    let archive = || Arc::new(Flat(bytes.clone()));
    let again = scene.load_archive(&client, "enclave", archive(), ReadBack::All).await.expect("loaded");
    assert!(again.blobs().iter().flat_map(|blob| blob.repositories.values()).all(|it| *it == Outcome::Present));
    assert_eq!((again.counts().pushed, again.counts().mounted), (0, 0));
    // What is not there is still mounted, and said to be.
    let elsewhere = scene.load_archive(&client, "elsewhere", archive(), ReadBack::Sample).await.expect("loaded");
    let mounted = outcomes(&elsewhere, web);
    assert_eq!(mounted[1], ("images/web".to_owned(), Outcome::Mounted), "{mounted:?}");
}
