//! Registries that say one thing and do another. Behind each is one that takes a manifest without looking for what it names,
//! so that nobody but the load itself can notice.

use std::sync::atomic::{AtomicBool, Ordering};

use axum::body::Body;

use super::*;
use crate::registry::serve::{Parts, ServeConfig, Server, Tls};

/// Bytes that two images share.
const SHARED: [u8; 1024] = [7; 1024];

async fn believing() -> Scene {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("registry");
    let address = "127.0.0.1:0".parse().expect("an address");
    let config = ServeConfig { parts: Parts::Optional, ..ServeConfig::new(&data, address, Tls::PlainHttp) };
    let server = Server::start(config).await.expect("a registry");
    let sample = Sample::new();
    Scene { remembered: sample.remembered(), sample, data, server, _folder: folder }
}

fn created(digest: &Digest) -> Response {
    let response = Response::builder().status(201).header("docker-content-digest", digest.to_string());
    response.body(Body::empty()).expect("an answer")
}

/// Loads the usual images from a file through this rule, and gives why it was refused.
async fn refused(
    scene: &Scene,
    read_back: ReadBack,
    rule: impl Fn(&Seen, usize) -> Option<Response> + Send + Sync + 'static,
) -> LoadError {
    let between = Between::start(Some(scene.server.address()), rule).await;
    let archive = Arc::new(Flat(scene.sample.bytes(1).await));
    let loaded = scene.load_archive(&client(plain(between.address)), "enclave", archive, read_back).await;
    let error = loaded.map(drop).expect_err("the load says that something lacks");
    scene.assert_nothing_tagged().await;
    error
}

#[tokio::test]
async fn a_registry_that_says_201_and_stores_nothing() {
    let shared = Digest::of(SHARED);
    let swallow = move |seen: &Seen, _: usize| {
        (seen.method == "PUT" && seen.query.contains(&shared.hex())).then(|| created(&shared))
    };
    refused(&believing().await, ReadBack::Sample, swallow).await;
}

#[tokio::test]
async fn a_registry_that_says_201_and_does_not_keep_the_metadata() {
    let honest = Scene::new().await;
    let loaded = honest.load_file(&honest.client(), &honest.sample.bytes(1).await).await.expect("loaded");
    assert!(loaded.bundle().metadata().len() > 3);
    // Every file in turn; those of another sample are others.
    for number in 0..loaded.bundle().metadata().len() {
        let scene = believing().await;
        let bytes = scene.sample.bytes(1).await;
        let files = scene.sample.verify(&bytes).await.expect("verified");
        let digest = Digest::of(files.metadata().values().nth(number).expect("a file"));
        let swallow = move |seen: &Seen, _: usize| {
            (seen.method == "PUT" && seen.query.contains(&digest.hex())).then(|| created(&digest))
        };
        refused(&scene, ReadBack::Sample, swallow).await;
    }
}

#[tokio::test]
async fn a_registry_that_says_that_it_mounted_and_did_not() {
    let shared = Digest::of(SHARED);
    let pretend = move |seen: &Seen, _: usize| {
        (seen.method == "POST" && seen.query.contains("mount=") && seen.query.contains(&shared.hex()))
            .then(|| created(&shared))
    };
    refused(&believing().await, ReadBack::All, pretend).await;
}

#[tokio::test]
async fn a_registry_that_mounts_something_else() {
    let other = Digest::of(b"something else");
    let mistake =
        move |seen: &Seen, _: usize| (seen.method == "POST" && seen.query.contains("mount=")).then(|| created(&other));
    let error = refused(&believing().await, ReadBack::Sample, mistake).await;
    assert_eq!(error.class(), ExitClass::Refused, "{error}");
}

#[tokio::test]
async fn a_registry_that_says_that_it_has_what_it_has_not() {
    let (shared, path) = (Digest::of(SHARED), format!("/blobs/{}", Digest::of(SHARED)));
    let pretend = move |seen: &Seen, _: usize| {
        let asked = seen.method == "HEAD" && seen.path.ends_with(&path);
        asked.then(|| {
            let response = Response::builder().header("content-length", SHARED.len());
            response.header("docker-content-digest", shared.to_string()).body(Body::empty()).expect("an answer")
        })
    };
    refused(&believing().await, ReadBack::All, pretend).await;
}

#[tokio::test]
async fn a_registry_that_names_another_digest_than_was_pushed() {
    for what in ["/blobs/uploads/", "/manifests/"] {
        let other = Digest::of(b"something else");
        let mistake = move |seen: &Seen, _: usize| seen.is("PUT", what).then(|| created(&other));
        let error = refused(&believing().await, ReadBack::Sample, mistake).await;
        assert_eq!(error.class(), ExitClass::Refused, "{error}");
    }
}

#[tokio::test]
async fn a_registry_that_changes_a_manifest_between_push_and_read_back() {
    let change = |seen: &Seen, _: usize| {
        seen.is("GET", "/images/web/manifests/").then(|| {
            let response = Response::builder().header("content-type", oci::MANIFEST);
            response.body(Body::from("{}")).expect("an answer")
        })
    };
    let error = refused(&believing().await, ReadBack::Sample, change).await;
    assert_eq!(error.class(), ExitClass::Refused, "{error}");
}

#[tokio::test]
async fn a_tag_that_goes_while_a_load_is_under_way_is_there_at_its_end() {
    let scene = Scene::new().await;
    let _ = scene.load_file(&scene.client(), &scene.sample.bytes(1).await).await.expect("loaded");
    // The images are those of version 1, so that their own tag is where it must be when the load begins.
    let removed = Arc::new(AtomicBool::new(false));
    let tag = scene.data.join("repositories/enclave/images/web/_tags").join(NAME);
    assert!(tag.is_file());
    let rule = {
        let removed = Arc::clone(&removed);
        move |seen: &Seen, _: usize| {
            if seen.is("PUT", "/manifests/") && !removed.swap(true, Ordering::SeqCst) {
                std::fs::remove_file(&tag).expect("removed");
            }
            None
        }
    };
    let between = Between::start(Some(scene.server.address()), rule).await;
    let loaded = scene.load_file(&client(plain(between.address)), &scene.sample.bytes(2).await).await.expect("loaded");
    assert!(removed.load(Ordering::SeqCst));
    assert!(loaded.tags().iter().any(|tag| tag.repository == "images/web" && tag.tag == NAME && tag.moved));
    let web = "enclave/images/web".parse().expect("a repository");
    scene.client().resolve(&web, &NAME.parse().expect("a tag")).await.expect("it is there");
}

#[tokio::test]
async fn a_registry_that_says_that_a_tag_points_where_it_does_not() {
    let scene = Scene::new().await;
    let bytes = scene.sample.bytes(1).await;
    let _ = scene.load_file(&scene.client(), &bytes).await.expect("loaded");
    let repository = "enclave/images/web".parse().expect("a repository");
    let right = scene.client().resolve(&repository, &NAME.parse().expect("a tag")).await.expect("a tag");
    std::fs::remove_file(scene.data.join("repositories/enclave/images/web/_tags").join(NAME)).expect("removed");
    let path = format!("/images/web/manifests/{NAME}");
    let pretend = move |seen: &Seen, _: usize| {
        (seen.method == "HEAD" && seen.path.ends_with(&path)).then(|| {
            let response = Response::builder().header("content-type", oci::MANIFEST);
            response.header("docker-content-digest", right.to_string()).body(Body::empty()).expect("an answer")
        })
    };
    let between = Between::start(Some(scene.server.address()), pretend).await;
    let archive = Arc::new(Flat(bytes));
    let _ =
        scene.load_archive(&client(plain(between.address)), "enclave", archive, ReadBack::All).await.expect("loaded");
    scene.client().resolve(&repository, &NAME.parse().expect("a tag")).await.expect("it was put back");
}
