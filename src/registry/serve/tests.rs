mod bounds;
mod collect;
mod rights;
mod upload;

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::base::digest::Digest;
use crate::base::limits::Limits;
use crate::registry::testing::embedded;

const IMAGE: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

struct Scene {
    folder: tempfile::TempDir,
    server: RunningServer,
    http: reqwest::Client,
}

impl Scene {
    async fn new() -> Self {
        Self::with(|_| {}).await
    }

    async fn with(change: impl FnOnce(&mut ServeConfig)) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let loopback = "127.0.0.1:0".parse().expect("an address");
        let mut config = ServeConfig::new(folder.path(), loopback, Tls::PlainHttp);
        config.collect_every = None;
        change(&mut config);
        let server = Server::start(config).await.expect("a registry");
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        Self { folder, server, http: reqwest::Client::builder().no_proxy().build().expect("a client") }
    }

    fn link(&self, repository: &str, kind: &str, digest: &Digest) -> PathBuf {
        self.folder.path().join("repositories").join(repository).join(kind).join(digest.hex())
    }

    async fn status(&self, rest: &str) -> u16 {
        self.http.get(self.url(rest)).send().await.expect("an answer").status().as_u16()
    }

    fn url(&self, rest: &str) -> String {
        format!("http://{}{rest}", self.server.address())
    }

    async fn blob(&self, repository: &str, bytes: impl Into<Vec<u8>>) -> Value {
        let bytes = bytes.into();
        let (digest, size) = (Digest::of(&bytes), bytes.len());
        let url = self.url(&format!("/v2/{repository}/blobs/uploads/?digest={digest}"));
        let answer = self.http.post(url).body(bytes).send().await.expect("an answer");
        assert_eq!(answer.status(), 201);
        json!({ "mediaType": "application/octet-stream", "digest": digest, "size": size })
    }

    /// The status and the error code, if there is one.
    async fn manifest(&self, repository: &str, name: &str, media_type: &str, manifest: &Value) -> (u16, String) {
        let url = self.url(&format!("/v2/{repository}/manifests/{name}"));
        let request = self.http.put(url).header("content-type", media_type).body(manifest.to_string());
        code(request.send().await.expect("an answer")).await
    }
}

async fn code(answer: reqwest::Response) -> (u16, String) {
    let status = answer.status().as_u16();
    let body: Value = serde_json::from_slice(&answer.bytes().await.expect("a body")).unwrap_or_default();
    (status, body["errors"][0]["code"].as_str().unwrap_or_default().to_owned())
}

#[tokio::test]
async fn a_manifest_is_taken_only_if_it_is_one_thing_and_whole() {
    let scene = Scene::new().await;
    let (config, layer) = (scene.blob("a", b"{}").await, scene.blob("a", b"layer").await);
    let image = json!({ "schemaVersion": 2, "mediaType": IMAGE, "config": config, "layers": [layer] });
    assert_eq!(scene.manifest("a", "v1", IMAGE, &image).await.0, 201);
    let absent = json!({ "mediaType": "x", "digest": Digest::of(b"absent"), "size": 6 });
    let cases = [
        ("v1", INDEX, image.clone(), "MANIFEST_INVALID"),
        (
            "v1",
            IMAGE,
            json!({ "schemaVersion": 2, "config": config, "layers": [layer], "manifests": [] }),
            "MANIFEST_INVALID",
        ),
        ("v1", INDEX, json!({ "schemaVersion": 2, "manifests": [], "layers": [] }), "MANIFEST_INVALID"),
        ("v1", IMAGE, json!({ "schemaVersion": 1, "config": config, "layers": [] }), "MANIFEST_INVALID"),
        ("v1", IMAGE, json!({ "schemaVersion": 2, "config": config, "layers": [absent] }), "MANIFEST_BLOB_UNKNOWN"),
        ("v1", INDEX, json!({ "schemaVersion": 2, "manifests": [absent] }), "MANIFEST_BLOB_UNKNOWN"),
        ("v1", "text/html", image.clone(), "MANIFEST_INVALID"),
        (".v1", IMAGE, image.clone(), "MANIFEST_INVALID"),
        (&Digest::of(b"other").to_string(), IMAGE, image.clone(), "DIGEST_INVALID"),
    ];
    for (name, media_type, manifest, expected) in cases {
        assert_eq!(scene.manifest("a", name, media_type, &manifest).await.1, expected, "{manifest}");
    }
    // Another repository does not have the parts, and gets them by a mount.
    assert_eq!(scene.manifest("b", "v1", IMAGE, &image).await.1, "MANIFEST_BLOB_UNKNOWN");
    for part in [&config, &layer] {
        let mount = format!("/v2/b/blobs/uploads/?mount={}&from=a", part["digest"].as_str().expect("a digest"));
        assert_eq!(scene.http.post(scene.url(&mount)).send().await.expect("an answer").status(), 201);
    }
    assert_eq!(scene.manifest("b", "v1", IMAGE, &image).await.0, 201);
}

#[tokio::test]
async fn referrers_are_listed_by_type() {
    let scene = Scene::new().await;
    let config = scene.blob("a", b"{}").await;
    let subject = json!({ "mediaType": IMAGE, "digest": Digest::of(b"need not be there"), "size": 17 });
    for (tag, artifact_type) in [("one", "application/x.one"), ("two", "application/x.two")] {
        let artifact = json!({
            "schemaVersion": 2, "mediaType": IMAGE, "artifactType": artifact_type,
            "config": config, "layers": [], "subject": subject, "annotations": { "tag": tag },
        });
        assert_eq!(scene.manifest("a", tag, IMAGE, &artifact).await.0, 201);
    }
    let url = scene.url(&format!("/v2/a/referrers/{}", Digest::of(b"need not be there")));
    let all: Value =
        serde_json::from_slice(&scene.http.get(&url).send().await.expect("an answer").bytes().await.expect("a body"))
            .expect("JSON");
    assert_eq!(all["manifests"].as_array().map(Vec::len), Some(2));
    let answer = scene.http.get(format!("{url}?artifactType=application/x.two")).send().await.expect("an answer");
    assert_eq!(answer.headers()["oci-filters-applied"], "artifactType");
    let one: Value = serde_json::from_slice(&answer.bytes().await.expect("a body")).expect("JSON");
    assert_eq!(one["manifests"][0]["annotations"]["tag"], "two");
    assert_eq!(one["manifests"].as_array().map(Vec::len), Some(1));
}

#[tokio::test]
async fn an_upload_belongs_to_its_repository_and_goes_on_after_a_restart() {
    let scene = Scene::new().await;
    let start = scene.http.post(scene.url("/v2/a/blobs/uploads/")).send().await.expect("an answer");
    let location = start.headers()["location"].to_str().expect("text").to_owned();
    let patched = scene.http.patch(scene.url(&location)).body("half").send().await.expect("an answer");
    assert_eq!((patched.status().as_u16(), patched.headers()["range"].to_str().expect("text")), (202, "0-3"));
    let foreign = location.replace("/v2/a/", "/v2/b/");
    assert_eq!(scene.http.get(scene.url(&foreign)).send().await.expect("an answer").status(), 404);
    let wrong = scene
        .http
        .patch(scene.url(&location))
        .header("content-range", "9-12")
        .body("more")
        .send()
        .await
        .expect("an answer");
    assert_eq!(wrong.status(), 416);
    let digest = Digest::of(b"something else");
    let completed = scene.http.put(scene.url(&format!("{location}?digest={digest}"))).send().await.expect("an answer");
    assert_eq!(code(completed).await, (400, "DIGEST_INVALID".to_owned()));

    let open = scene.http.post(scene.url("/v2/a/blobs/uploads/")).send().await.expect("an answer");
    let location = open.headers()["location"].to_str().expect("text").to_owned();
    assert_eq!(scene.http.patch(scene.url(&location)).body("first, ").send().await.expect("an answer").status(), 202);
    let Scene { folder, server, http } = scene;
    server.shutdown().await;
    std::fs::write(folder.path().join("uploads/left-by-a-crash"), "x").expect("write");
    let server = embedded(folder.path()).await;
    assert_eq!(std::fs::read_dir(folder.path().join("uploads")).expect("the folder").count(), 2, "content and state");
    let url = format!("http://{}{location}", server.address());
    let answer = http.get(&url).send().await.expect("an answer");
    assert_eq!((answer.status().as_u16(), &answer.headers()["range"]), (204, &"0-6".parse().expect("a value")));
    let digest = Digest::of(b"first, second");
    let put = http.put(format!("{url}?digest={digest}")).body("second").send().await.expect("an answer");
    assert_eq!(put.status(), 201);
    let gone = http.get(url).send().await.expect("an answer");
    assert_eq!(code(gone).await, (404, "BLOB_UPLOAD_UNKNOWN".to_owned()));
    let blob = http.get(format!("http://{}/v2/a/blobs/{digest}", server.address())).send().await.expect("an answer");
    assert_eq!(blob.bytes().await.expect("a body"), "first, second");
    assert_eq!(std::fs::read_dir(folder.path().join("uploads")).expect("the folder").count(), 0);
}

#[tokio::test]
async fn a_folder_has_one_server_and_a_public_address_has_tls() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = |listen: &str, tls| ServeConfig::new(folder.path(), listen.parse().expect("an address"), tls);
    assert!(matches!(Server::start(config("0.0.0.0:0", Tls::PlainHttp)).await, Err(ServeError::PlainHttp { .. })));
    let first = Server::start(config("127.0.0.1:0", Tls::Own(Vec::new()))).await.expect("a registry");
    assert!(matches!(Server::start(config("127.0.0.1:0", Tls::PlainHttp)).await, Err(ServeError::Busy { .. })));
    let ca = first.ca_pem().expect("a CA").to_owned();
    let mode = |name: &str| std::fs::metadata(folder.path().join(name)).expect(name).permissions().mode() & 0o777;
    assert_eq!((mode("tls"), mode("tls/ca.key")), (0o700, 0o600));
    first.shutdown().await;
    let second =
        Server::start(config("127.0.0.1:0", Tls::Own(vec!["registry.internal".to_owned()]))).await.expect("a registry");
    assert_eq!(second.ca_pem(), Some(ca.as_str()), "clients keep their trust");
}

#[tokio::test]
async fn a_body_that_stops_is_not_waited_for() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = Server::start(ServeConfig {
        limits: Limits { stall: Duration::from_millis(100), ..Limits::default() },
        ..ServeConfig::new(folder.path(), "127.0.0.1:0".parse().expect("an address"), Tls::PlainHttp)
    })
    .await
    .expect("a registry");
    let mut stream = tokio::net::TcpStream::connect(server.address()).await.expect("connected");
    let head = format!(
        "POST /v2/a/blobs/uploads/?digest={} HTTP/1.1\r\nhost: r\r\ncontent-length: 100\r\n\r\nbegin",
        Digest::of(b"")
    );
    stream.write_all(head.as_bytes()).await.expect("sent");
    let mut answer = vec![0; 12];
    tokio::time::timeout(Duration::from_secs(20), stream.read_exact(&mut answer))
        .await
        .expect("in time")
        .expect("an answer");
    assert_eq!(answer, b"HTTP/1.1 408");
}

#[tokio::test]
async fn a_start_removes_what_no_repository_has_and_nothing_else() {
    let scene = Scene::new().await;
    let (config, layer) = (scene.blob("deep/er/name", b"{}").await, scene.blob("deep/er/name", b"layer").await);
    let image = json!({ "schemaVersion": 2, "mediaType": IMAGE, "config": config, "layers": [layer] });
    assert_eq!(scene.manifest("deep/er/name", "v1", IMAGE, &image).await.0, 201);
    scene.blob("a", b"deleted").await;
    scene.blob("a", b"deleted in one of two").await;
    scene.blob("b", b"deleted in one of two").await;
    for bytes in [b"deleted".as_slice(), b"deleted in one of two"] {
        let url = scene.url(&format!("/v2/a/blobs/{}", Digest::of(bytes)));
        assert_eq!(scene.http.delete(&url).send().await.expect("an answer").status(), 202);
        assert_eq!(scene.http.get(&url).send().await.expect("an answer").status(), 404);
    }
    let Scene { folder, server, http } = scene;
    server.shutdown().await;
    let content = |bytes: &[u8]| {
        let hex = Digest::of(bytes).hex();
        folder.path().join("blobs/sha256").join(&hex[..2]).join(hex)
    };
    assert!(content(b"deleted").is_file());
    let server = embedded(folder.path()).await;
    assert!(!content(b"deleted").exists());
    assert!(content(b"deleted in one of two").is_file());
    for path in [
        "/v2/deep/er/name/manifests/v1".to_owned(),
        format!("/v2/deep/er/name/blobs/{}", Digest::of(b"layer")),
        format!("/v2/b/blobs/{}", Digest::of(b"deleted in one of two")),
    ] {
        let answer = http.get(format!("http://{}{path}", server.address())).send().await.expect("an answer");
        assert_eq!(answer.status(), 200, "{path}");
    }
    let names: Value = serde_json::from_slice(
        &http
            .get(format!("http://{}/v2/_catalog", server.address()))
            .send()
            .await
            .expect("an answer")
            .bytes()
            .await
            .expect("a body"),
    )
    .expect("JSON");
    assert_eq!(names["repositories"], json!(["deep/er/name"]));
}
