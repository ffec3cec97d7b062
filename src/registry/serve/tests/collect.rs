use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use super::*;

const DAY: Duration = Duration::from_secs(24 * 3600);

/// As if no client had heard of it for this long.
fn age(path: &Path, by: Duration) {
    let file = std::fs::File::options().write(true).open(path).expect("a file");
    file.set_modified(SystemTime::now() - by).expect("a time");
}

fn image(config: &Value, layers: &[Value]) -> Value {
    json!({ "schemaVersion": 2, "mediaType": IMAGE, "config": config, "layers": layers })
}

fn digest_of(manifest: &Value) -> Digest {
    Digest::of(manifest.to_string())
}

async fn collect_now(scene: &Scene) -> Value {
    let answer = scene.http.post(scene.url("/v2/_gapscan/collect")).send().await.expect("an answer");
    assert_eq!(answer.status(), 200);
    serde_json::from_slice(&answer.bytes().await.expect("a body")).expect("JSON")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_load_loses_nothing_while_content_is_collected_again_and_again() {
    let scene = Arc::new(Scene::new().await);
    let rounds = 24_u8;
    // What an earlier load brought and no manifest names, long ago: some of it the next load finds, some nobody wants.
    for round in 0..rounds {
        let old = scene.blob("a", format!("old {round}")).await;
        let digest: Digest = old["digest"].as_str().expect("a text").parse().expect("a digest");
        age(&scene.link("a", "_blobs", &digest), 2 * DAY);
        scene.blob("junk", format!("junk {round}")).await;
        age(&scene.link("junk", "_blobs", &Digest::of(format!("junk {round}"))), 2 * DAY);
    }
    let done = Arc::new(AtomicBool::new(false));
    let hammer = {
        let (scene, done) = (scene.clone(), done.clone());
        tokio::spawn(async move {
            let mut runs = 0;
            while !done.load(Ordering::Relaxed) {
                collect_now(&scene).await;
                runs += 1;
            }
            runs
        })
    };
    let loads: Vec<_> = (0..rounds)
        .map(|round| {
            let scene = scene.clone();
            tokio::spawn(async move {
                let (old, fresh) = (format!("old {round}"), format!("fresh {round}"));
                let url = scene.url(&format!("/v2/a/blobs/{}", Digest::of(&old)));
                // It counts on what it was told is there, and brings the rest.
                let found = scene.http.head(url).send().await.expect("an answer").status() == 200;
                if !found {
                    scene.blob("a", old.clone()).await;
                }
                let config = scene.blob("a", fresh).await;
                let layer =
                    json!({ "mediaType": "application/octet-stream", "digest": Digest::of(&old), "size": old.len() });
                for _ in 0..5 {
                    tokio::task::yield_now().await;
                    collect_now(&scene).await;
                }
                let manifest = image(&config, &[layer]);
                assert_eq!(scene.manifest("a", &format!("v{round}"), IMAGE, &manifest).await, (201, String::new()));
                found
            })
        })
        .collect();
    for load in loads {
        load.await.expect("a load");
    }
    done.store(true, Ordering::Relaxed);
    assert!(hammer.await.expect("the hammer") > 0);
    for round in 0..rounds {
        assert_eq!(scene.status(&format!("/v2/a/manifests/v{round}")).await, 200);
        for content in [format!("old {round}"), format!("fresh {round}")] {
            assert_eq!(scene.status(&format!("/v2/a/blobs/{}", Digest::of(content))).await, 200);
        }
        assert_eq!(scene.status(&format!("/v2/junk/blobs/{}", Digest::of(format!("junk {round}")))).await, 404);
    }
}

#[tokio::test]
async fn a_blob_that_a_client_heard_of_stays_and_content_goes_with_its_last_name() {
    let scene = Scene::new().await;
    let contents = ["heard of by HEAD", "heard of by a mount", "pushed again", "forgotten", "forgotten in one of two"];
    for content in contents {
        scene.blob("a", content).await;
        age(&scene.link("a", "_blobs", &Digest::of(content)), 2 * DAY);
    }
    scene.blob("b", "forgotten in one of two").await;
    let path = |content: &str| format!("/v2/a/blobs/{}", Digest::of(content));
    let head = scene.http.head(scene.url(&path("heard of by HEAD"))).send().await.expect("an answer");
    assert_eq!(head.status(), 200);
    let mount = format!("/v2/c/blobs/uploads/?mount={}&from=a", Digest::of("heard of by a mount"));
    assert_eq!(scene.http.post(scene.url(&mount)).send().await.expect("an answer").status(), 201);
    scene.blob("a", "pushed again").await;
    // Content is as old as its name; here both are.
    for content in ["forgotten", "forgotten in one of two"] {
        let hex = Digest::of(content).hex();
        age(&scene.folder.path().join("blobs/sha256").join(&hex[..2]).join(&hex), DAY);
    }
    let collected = collect_now(&scene).await;
    assert_eq!((&collected["blobs"], &collected["contents"], &collected["bytes"]), (&json!(2), &json!(1), &json!(9)));
    for (content, expected) in contents.into_iter().zip([200, 200, 200, 404, 404]) {
        assert_eq!(scene.status(&path(content)).await, expected, "{content}");
    }
    assert_eq!(scene.status(&format!("/v2/b/blobs/{}", Digest::of("forgotten in one of two"))).await, 200);
}

#[tokio::test]
async fn of_manifests_without_a_tag_only_old_ones_that_nothing_needs_go() {
    let scene = Scene::with(|config| config.collect.untagged = Some(DAY)).await;
    let config = scene.blob("a", "{}").await;
    let descriptor = |manifest: &Value| json!({ "mediaType": IMAGE, "digest": digest_of(manifest), "size": manifest.to_string().len() });
    let mut images = Vec::new();
    for name in ["tagged", "part", "old", "young"] {
        images.push(image(&config, &[scene.blob("a", name).await]));
    }
    let [tagged, part, old, young] = images.try_into().expect("four");
    let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [descriptor(&part)] });
    let about = |subject: &Value| {
        let mut manifest = image(&config, &[]);
        manifest["artifactType"] = json!("application/x.signature");
        manifest["subject"] = descriptor(subject);
        manifest
    };
    let (signature, stale) = (about(&part), about(&old));
    let all = [&tagged, &part, &old, &young, &signature, &stale];
    for manifest in all {
        let name = if *manifest == tagged { "v1".to_owned() } else { digest_of(manifest).to_string() };
        assert_eq!(scene.manifest("a", &name, IMAGE, manifest).await.0, 201);
    }
    assert_eq!(scene.manifest("a", "index", INDEX, &index).await.0, 201);
    for manifest in all.into_iter().filter(|manifest| **manifest != young) {
        age(&scene.link("a", "_manifests", &digest_of(manifest)), 2 * DAY);
    }
    age(&scene.link("a", "_blobs", &Digest::of("old")), 2 * DAY);
    assert_eq!(collect_now(&scene).await["manifests"], json!(2));
    for (manifest, expected) in all.into_iter().zip([200, 200, 404, 200, 200, 404]) {
        assert_eq!(scene.status(&format!("/v2/a/manifests/{}", digest_of(manifest))).await, expected, "{manifest}");
    }
    assert_eq!(scene.status(&format!("/v2/a/blobs/{}", Digest::of("old"))).await, 404, "its layer goes with it");
    assert_eq!(scene.status("/v2/a/manifests/index").await, 200);
}

#[tokio::test]
async fn nothing_is_removed_where_a_manifest_is_not_understood() {
    let scene = Scene::with(|config| config.collect.untagged = Some(Duration::ZERO)).await;
    scene.blob("a", "kept").await;
    let config = scene.blob("a", "{}").await;
    let manifest = image(&config, &[]);
    assert_eq!(scene.manifest("a", "v1", IMAGE, &manifest).await.0, 201);
    for digest in [Digest::of("kept"), Digest::of("{}")] {
        age(&scene.link("a", "_blobs", &digest), 2 * DAY);
    }
    let hex = digest_of(&manifest).hex();
    std::fs::write(scene.folder.path().join("blobs/sha256").join(&hex[..2]).join(&hex), "{").expect("written");
    let Scene { folder, server, .. } = scene;
    server.shutdown().await;
    let policy = CollectPolicy { untagged: Some(Duration::ZERO), ..CollectPolicy::default() };
    let count = |mode| super::super::collect(folder.path(), policy, mode, &Limits::default()).expect("looked at");
    assert_eq!(count(CollectMode::Count), Collected { skipped: 1, ..Collected::default() });
    assert_eq!(count(CollectMode::Remove), Collected { skipped: 1, ..Collected::default() });
    assert!(folder.path().join("repositories/a/_blobs").join(Digest::of("kept").hex()).is_file());
}
