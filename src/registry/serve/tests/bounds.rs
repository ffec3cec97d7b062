//! What a client may try to have more of than there is, and what a damaged disk may do to it.

use std::os::unix::fs::FileExt;

use reqwest::{Body, Method, Response};

use super::*;

async fn open(scene: &Scene) -> String {
    let answer = scene.http.post(scene.url("/v2/a/blobs/uploads/")).send().await.expect("an answer");
    answer.headers()["location"].to_str().expect("text").to_owned()
}

/// A body whose length is not announced.
fn unannounced(bytes: &'static [u8]) -> Body {
    Body::wrap_stream(futures::stream::iter([Ok::<_, std::io::Error>(bytes)]))
}

async fn patch(scene: &Scene, location: &str, range: Option<&str>, body: impl Into<Body>) -> u16 {
    let request = scene.http.patch(scene.url(location)).body(body);
    let request = range.into_iter().fold(request, |request, range| request.header("content-range", range));
    request.send().await.expect("an answer").status().as_u16()
}

async fn reached(scene: &Scene, location: &str) -> String {
    let answer = scene.http.get(scene.url(location)).send().await.expect("an answer");
    answer.headers()["range"].to_str().expect("text").to_owned()
}

async fn ask(scene: &Scene, method: Method, path: &str, range: &str) -> Response {
    scene.http.request(method, scene.url(path)).header("range", range).send().await.expect("an answer")
}

#[tokio::test]
async fn a_blob_does_not_grow_beyond_the_limit_by_one_body_after_the_other() {
    let scene = Scene::with(|config| config.limits.blob_bytes = 10).await;
    let location = open(&scene).await;
    assert_eq!(patch(&scene, &location, None, "12345678").await, 202);
    for _ in 0..3 {
        assert_eq!(patch(&scene, &location, None, unannounced(b"abcdefgh")).await, 413);
        assert_eq!(patch(&scene, &location, None, "abcdefgh").await, 413);
        assert_eq!(reached(&scene, &location).await, "0-7");
    }
    let url = scene.url(&format!("{location}?digest={}", Digest::of(b"1234567890")));
    assert_eq!(scene.http.put(url).body("90").send().await.expect("an answer").status(), 201);
}

#[tokio::test]
async fn a_body_that_nobody_announced_is_not_written_where_there_is_no_room() {
    let scene = Scene::with(|config| config.reserve_bytes = u64::MAX).await;
    let location = open(&scene).await;
    assert_eq!(patch(&scene, &location, None, unannounced(b"content")).await, 507);
    assert_eq!(reached(&scene, &location).await, "0-0");
    let image = json!({ "schemaVersion": 2, "manifests": [] });
    assert_eq!(scene.manifest("a", "v1", INDEX, &image).await, (507, "INSUFFICIENT_STORAGE".to_owned()));
}

#[tokio::test]
async fn a_chunk_is_as_long_as_its_range_says() {
    let scene = Scene::new().await;
    let location = open(&scene).await;
    assert_eq!(patch(&scene, &location, Some("0-9"), unannounced(b"short")).await, 400);
    assert_eq!(reached(&scene, &location).await, "0-4", "what came stays");
    assert_eq!(patch(&scene, &location, Some("5-6"), unannounced(b"too long")).await, 400);
    assert_eq!(reached(&scene, &location).await, "0-4", "nothing of what nobody asked to have stored");
    assert_eq!(patch(&scene, &location, Some("+5-8"), unannounced(b"sign")).await, 400);
    assert_eq!(patch(&scene, &location, Some("5-9"), unannounced(b"whole")).await, 202);
}

#[tokio::test]
async fn a_range_means_nothing_to_head_and_one_outside_is_told_the_length() {
    let scene = Scene::new().await;
    scene.blob("a", b"content").await;
    let path = format!("/v2/a/blobs/{}", Digest::of(b"content"));
    let head = ask(&scene, Method::HEAD, &path, "bytes=1-2").await;
    assert_eq!((head.status().as_u16(), &head.headers()["content-length"]), (200, &"7".parse().expect("a value")));
    let part = ask(&scene, Method::GET, &path, "bytes=1-2").await;
    assert_eq!((part.status().as_u16(), &part.headers()["content-range"]), (206, &"bytes 1-2/7".parse().expect("one")));
    let outside = ask(&scene, Method::GET, &path, "bytes=7-").await;
    assert_eq!(
        (outside.status().as_u16(), &outside.headers()["content-range"]),
        (416, &"bytes */7".parse().expect("one"))
    );
}

#[tokio::test]
async fn manifests_that_do_not_come_do_not_fill_the_memory() {
    let scene = Scene::with(|config| config.limits.stall = Duration::from_secs(20)).await;
    let mut waiting = Vec::new();
    for _ in 0..super::super::router::MANIFESTS {
        let mut stream = tokio::net::TcpStream::connect(scene.server.address()).await.expect("connected");
        let head = format!(
            "PUT /v2/a/manifests/v1 HTTP/1.1\r\nhost: r\r\ncontent-type: {INDEX}\r\ncontent-length: 99\r\n\r\n{{"
        );
        stream.write_all(head.as_bytes()).await.expect("sent");
        waiting.push(stream);
    }
    let refused = async {
        while scene.manifest("a", "v1", INDEX, &json!({})).await.0 != 429 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), refused).await.expect("no place is left");
    drop(waiting);
    let taken = async {
        while scene.manifest("a", "v1", INDEX, &json!({ "schemaVersion": 2, "manifests": [] })).await.0 != 201 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), taken).await.expect("there are places again");
}

#[tokio::test]
async fn who_does_not_say_what_it_speaks_keeps_no_place() {
    let scene = Scene::with(|config| config.limits.stall = Duration::from_millis(100)).await;
    // The last one is all that HTTP/2 begins with, and asks for nothing.
    let settings = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\u{4}\0\0\0\0\0";
    for beginning in ["", "PRI * HTTP/2.0\r\n", settings] {
        let mut stream = tokio::net::TcpStream::connect(scene.server.address()).await.expect("connected");
        stream.write_all(beginning.as_bytes()).await.expect("sent");
        let mut answer = Vec::new();
        let end = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut answer));
        // Whether it is closed or reset is the kernel's choice.
        let _ = end.await.expect("it ends");
    }
}

#[tokio::test]
async fn a_long_list_of_referrers_comes_in_pages() {
    let scene = Scene::with(|config| config.limits.manifest_bytes = 2000).await;
    let config = scene.blob("a", b"{}").await;
    let subject = Digest::of(b"need not be there");
    let about = json!({ "mediaType": IMAGE, "digest": subject, "size": 17 });
    for number in 0..9 {
        let kind = if number == 8 { "application/x.b&last=x" } else { "application/x.a" };
        let artifact = json!({
            "schemaVersion": 2, "mediaType": IMAGE, "artifactType": kind, "config": config, "layers": [],
            "subject": about, "annotations": { "number": number.to_string(), "long": "x".repeat(300) },
        });
        assert_eq!(scene.manifest("a", &format!("v{number}"), IMAGE, &artifact).await.0, 201);
    }
    let repository = "a".parse().expect("a name");
    let client = crate::registry::testing::client(crate::registry::testing::plain(scene.server.address()));
    assert_eq!(client.referrers(&repository, &subject).await.expect("a list").len(), 9);
    for (kind, expected) in [("application/x.a", 8), ("application/x.b&last=x", 1)] {
        let kind: String = url::form_urlencoded::byte_serialize(kind.as_bytes()).collect();
        let mut next = Some(format!("/v2/a/referrers/{subject}?artifactType={kind}"));
        let (mut found, mut pages) = (0, 0);
        while let Some(path) = next {
            let answer = scene.http.get(scene.url(&path)).send().await.expect("an answer");
            let link = answer.headers().get("link").map(|link| link.to_str().expect("text").to_owned());
            next = link.map(|link| link.trim_start_matches('<').split_once('>').expect("an address").0.to_owned());
            let bytes = answer.bytes().await.expect("a body");
            assert!(bytes.len() < 2000, "{}", bytes.len());
            let page: Value = serde_json::from_slice(&bytes).expect("JSON");
            found += page["manifests"].as_array().expect("a list").len();
            pages += 1;
        }
        assert_eq!((found, pages > 1), (expected, expected > 1), "{kind}");
    }
}

#[tokio::test]
async fn a_manifest_is_not_there_before_it_is_found_by_its_subject() {
    let scene = Scene::new().await;
    let config = scene.blob("a", b"{}").await;
    let subject = json!({ "mediaType": IMAGE, "digest": Digest::of(b"subject"), "size": 7 });
    let artifact =
        json!({ "schemaVersion": 2, "mediaType": IMAGE, "config": config, "layers": [], "subject": subject });
    let digest = Digest::of(artifact.to_string());
    let in_the_way = scene.folder.path().join("repositories/a/_referrers");
    std::fs::write(&in_the_way, "").expect("written");
    assert_eq!(scene.manifest("a", &digest.to_string(), IMAGE, &artifact).await.0, 500);
    assert_eq!(scene.status(&format!("/v2/a/manifests/{digest}")).await, 404);
    std::fs::remove_file(in_the_way).expect("removed");
    assert_eq!(scene.manifest("a", &digest.to_string(), IMAGE, &artifact).await.0, 201);
}

#[tokio::test]
async fn what_was_damaged_on_the_disk_is_mended_by_sending_it_again() {
    let scene = Scene::new().await;
    let config = scene.blob("a", b"{}").await;
    let layer = scene.blob("a", b"content of a layer").await;
    let image = json!({ "schemaVersion": 2, "mediaType": IMAGE, "config": config, "layers": [layer] });
    assert_eq!(scene.manifest("a", "v1", IMAGE, &image).await.0, 201);
    let (blob, manifest) = (Digest::of(b"content of a layer"), Digest::of(image.to_string()));
    for digest in [&blob, &manifest] {
        let hex = digest.hex();
        let path = scene.folder.path().join("blobs/sha256").join(&hex[..2]).join(&hex);
        let file = std::fs::File::options().write(true).open(path).expect("content");
        file.write_all_at(b"[", 0).expect("damaged");
    }
    for name in ["v1", &manifest.to_string()] {
        assert_eq!(scene.status(&format!("/v2/a/manifests/{name}")).await, 404, "it is not said to be there");
    }
    assert_eq!(scene.manifest("a", "v1", IMAGE, &image).await.0, 201);
    assert_eq!(scene.status("/v2/a/manifests/v1").await, 200);
    scene.blob("a", b"content of a layer").await;
    let answer = scene.http.get(scene.url(&format!("/v2/a/blobs/{blob}"))).send().await.expect("an answer");
    assert_eq!(answer.bytes().await.expect("a body"), "content of a layer");
}
