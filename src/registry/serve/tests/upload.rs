use http::StatusCode;
use reqwest::Response;

use super::*;

async fn open(scene: &Scene) -> String {
    let answer = scene.http.post(scene.url("/v2/a/blobs/uploads/")).send().await.expect("an answer");
    assert_eq!(answer.status(), 202);
    location(&answer)
}

fn location(answer: &Response) -> String {
    answer.headers()["location"].to_str().expect("text").to_owned()
}

/// Sends the head and a part of the body on a connection of its own.
async fn begin(scene: &Scene, method: &str, path: &str, announced: usize, body: &[u8]) -> tokio::net::TcpStream {
    let mut stream = tokio::net::TcpStream::connect(scene.server.address()).await.expect("connected");
    let head = format!("{method} {path} HTTP/1.1\r\nhost: r\r\ncontent-length: {announced}\r\n\r\n");
    stream.write_all(head.as_bytes()).await.expect("sent");
    stream.write_all(body).await.expect("sent");
    stream
}

async fn range(scene: &Scene, location: &str) -> String {
    let answer = scene.http.get(scene.url(location)).send().await.expect("an answer");
    assert_eq!(answer.status(), 204);
    answer.headers()["range"].to_str().expect("text").to_owned()
}

/// Asks until the server has seen that a connection is gone.
async fn range_becomes(scene: &Scene, location: &str, expected: &str) {
    let asking = async {
        while range(scene, location).await != expected {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), asking).await.expect(expected);
}

#[tokio::test]
async fn what_arrived_of_a_put_or_patch_that_was_cut_stays() {
    let scene = Scene::new().await;
    let content: Vec<u8> = (0..3_000_000_u32).map(|n| (n % 251) as u8).collect();
    let digest = Digest::of(&content);
    for method in ["PUT", "PATCH"] {
        let location = open(&scene).await;
        let path = if method == "PUT" { format!("{location}?digest={digest}") } else { location.clone() };
        drop(begin(&scene, method, &path, content.len(), &content[..2_000_000]).await);
        range_becomes(&scene, &location, "0-1999999").await;
        let rest = scene
            .http
            .put(scene.url(&format!("{location}?digest={digest}")))
            .header("content-range", format!("2000000-{}", content.len() - 1))
            .body(content[2_000_000..].to_vec())
            .send()
            .await
            .expect("an answer");
        assert_eq!(rest.status(), 201, "{method}");
        let url = scene.url(&format!("/v2/a/blobs/{digest}"));
        let blob = scene.http.get(&url).send().await.expect("an answer").bytes().await.expect("a body");
        assert!(blob == content);
        assert_eq!(scene.http.delete(url).send().await.expect("an answer").status(), 202);
    }
}

#[tokio::test]
async fn a_client_that_comes_back_need_not_wait_for_its_lost_connection() {
    let scene = Scene::new().await;
    let location = open(&scene).await;
    // To the server it looks as if this one was still sending.
    let lost = begin(&scene, "PATCH", &location, 1000, b"first, ").await;
    let wrong = scene.http.patch(scene.url(&location)).header("content-range", "3-8").body("second");
    let answer = wrong.send().await.expect("an answer");
    assert_eq!(answer.status(), 416);
    assert_eq!(answer.headers()["range"], "0-6", "it is told where to go on");
    let right = scene.http.patch(scene.url(&location)).header("content-range", "7-12").body("second");
    assert_eq!(right.send().await.expect("an answer").status(), 202);
    let digest = Digest::of("first, second");
    let url = scene.url(&format!("{location}?digest={digest}"));
    assert_eq!(scene.http.put(url).send().await.expect("an answer").status(), 201);
    drop(lost);
}

#[tokio::test]
async fn the_digest_at_the_end_may_be_of_the_other_algorithm() {
    let scene = Scene::new().await;
    let session = open(&scene).await;
    assert_eq!(scene.http.patch(scene.url(&session)).body("content").send().await.expect("an answer").status(), 202);
    let digest = super::super::content::Algorithm::Sha512.digest(b"content");
    let put = scene.http.put(scene.url(&format!("{session}?digest={digest}"))).send().await.expect("an answer");
    assert_eq!((put.status(), location(&put)), (StatusCode::CREATED, format!("/v2/a/blobs/{digest}")));
    assert_eq!(scene.status(&format!("/v2/a/blobs/{digest}")).await, 200);
    assert_eq!(scene.status(&format!("/v2/a/blobs/{}", Digest::of("content"))).await, 404, "it was not named so");
    let wrong = super::super::content::Algorithm::Sha512.digest(b"other");
    let post = scene.http.post(scene.url(&format!("/v2/a/blobs/uploads/?digest={wrong}"))).body("content");
    assert_eq!(code(post.send().await.expect("an answer")).await.1, "DIGEST_INVALID");
}

#[tokio::test]
async fn a_full_disk_is_said_before_anything_is_sent_and_leaves_the_upload() {
    let scene = Scene::with(|config| config.reserve_bytes = u64::MAX).await;
    let space = scene.http.get(scene.url("/v2/_gapscan/space")).send().await.expect("an answer");
    assert_eq!(space.bytes().await.expect("a body"), r#"{"availableBytes":0}"#);
    assert_eq!((scene.status("/livez").await, scene.status("/readyz").await), (200, 503));
    let location = open(&scene).await;
    let digest = Digest::of("content");
    for path in [format!("{location}?digest={digest}"), location.clone()] {
        let method = if path == location { reqwest::Method::PATCH } else { reqwest::Method::PUT };
        let answer = scene.http.request(method, scene.url(&path)).body("content").send().await.expect("an answer");
        assert_eq!(answer.status(), 507);
        assert_eq!(code(answer).await.1, "INSUFFICIENT_STORAGE");
    }
    assert_eq!(range(&scene, &location).await, "0-0", "it can still be gone on with");
    assert_eq!(scene.status(&format!("/v2/a/blobs/{digest}")).await, 404);
    let ready = scene.http.get(scene.url("/readyz")).send().await.expect("an answer");
    assert_eq!(ready.text().await.expect("text"), "not ready: the disk is full\n");
}

#[tokio::test]
async fn a_body_that_comes_drop_by_drop_is_given_up() {
    let scene = Scene::with(|config| config.limits.stall = Duration::from_millis(300)).await;
    let location = open(&scene).await;
    let mut stream = begin(&scene, "PATCH", &location, 1_000_000, b"").await;
    let dripping = async {
        // Never silent for as long as would be too long.
        let mut drops = tokio::time::interval(Duration::from_millis(20));
        loop {
            drops.tick().await;
            let mut answer = [0; 12];
            tokio::select! {
                biased;
                read = stream.read_exact(&mut answer) => { read.expect("an answer"); return answer; }
                () = std::future::ready(()) => {}
            }
            let _ = stream.write_all(b".").await;
        }
    };
    let answer = tokio::time::timeout(Duration::from_secs(20), dripping).await.expect("in time");
    assert_eq!(&answer, b"HTTP/1.1 408");
}

#[tokio::test]
async fn one_address_does_not_open_sessions_without_end() {
    let scene = Scene::new().await;
    let mut statuses = Vec::new();
    for _ in 0..257 {
        let answer = scene.http.post(scene.url("/v2/a/blobs/uploads/")).send().await.expect("an answer");
        statuses.push(answer.status().as_u16());
    }
    assert_eq!((statuses[255], statuses[256]), (202, 429));
}

#[tokio::test]
async fn bodies_that_could_never_be_kept_are_refused_before_they_are_sent() {
    let scene = Scene::new().await;
    for announced in [usize::MAX / 2, 9 << 30] {
        let path = format!("/v2/a/blobs/uploads/?digest={}", Digest::of(b""));
        let mut stream = begin(&scene, "POST", &path, announced, b"").await;
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).await.expect("an answer");
        assert_eq!(&answer, b"HTTP/1.1 413");
    }
    for range in ["18446744073709551615-0", "0-18446744073709551615", "-", "5", "1-0", "0-x"] {
        let location = open(&scene).await;
        let answer =
            scene.http.patch(scene.url(&location)).header("content-range", range).body("x").send().await.expect("one");
        assert!(matches!(answer.status().as_u16(), 400 | 416), "{range}: {}", answer.status());
    }
}
