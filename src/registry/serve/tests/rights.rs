use std::path::Path;

use jiff::{SignedDuration, Timestamp};
use reqwest::Certificate;

use super::*;
use crate::registry::testing::{client, plain};
use crate::registry::{ClientConfig, Credentials, Repository};

fn closed(config: &mut ServeConfig) {
    config.credentials = Some(Credentials::new("kim", "s3cr3t"));
}

fn token_for(folder: &Path, repository: &str) -> String {
    let repository: Repository = repository.parse().expect("a name");
    let hour = SignedDuration::from_hours(1);
    super::super::pull_token(folder, &[repository], hour, Timestamp::now()).expect("a token").to_string()
}

/// An image in each of two repositories, brought by the user.
async fn two_images() -> (Scene, Digest) {
    let scene = Scene::with(closed).await;
    for repository in ["images/web", "images/db"] {
        let push = |method, path: String, body: String| {
            let url = scene.url(&format!("/v2/{repository}/{path}"));
            let request = scene.http.request(method, url).basic_auth("kim", Some("s3cr3t"));
            request.header("content-type", IMAGE).body(body).send()
        };
        let digest = Digest::of("{}");
        let path = format!("blobs/uploads/?digest={digest}");
        assert_eq!(push(reqwest::Method::POST, path, "{}".to_owned()).await.expect("an answer").status(), 201);
        let config = json!({ "mediaType": "application/octet-stream", "digest": digest, "size": 2 });
        let image = json!({ "schemaVersion": 2, "config": config, "layers": [] }).to_string();
        let put = push(reqwest::Method::PUT, "manifests/v1".to_owned(), image).await.expect("an answer");
        assert_eq!(put.status(), 201);
    }
    (scene, Digest::of("{}"))
}

#[tokio::test]
async fn a_token_for_one_repository_reads_that_and_nothing_else() {
    let (scene, blob) = two_images().await;
    let token = token_for(scene.folder.path(), "images/web");
    let status = async |method: &str, path: &str, bearer: bool| {
        let method: reqwest::Method = method.parse().expect("a method");
        let request = scene.http.request(method, scene.url(path)).header("content-type", IMAGE);
        let request = if bearer { request.bearer_auth(&token) } else { request.basic_auth("token", Some(&token)) };
        request.send().await.expect("an answer").status().as_u16()
    };
    for bearer in [true, false] {
        for (method, path, expected) in [
            ("GET", "/v2/".to_owned(), 200),
            ("GET", "/v2/images/web/manifests/v1".to_owned(), 200),
            ("HEAD", format!("/v2/images/web/blobs/{blob}"), 200),
            ("GET", "/v2/images/web/tags/list".to_owned(), 200),
            ("GET", format!("/v2/images/web/referrers/{blob}"), 200),
            ("PUT", "/v2/images/web/manifests/v1".to_owned(), 403),
            ("DELETE", "/v2/images/web/manifests/v1".to_owned(), 403),
            ("DELETE", format!("/v2/images/web/blobs/{blob}"), 403),
            ("POST", "/v2/images/web/blobs/uploads/".to_owned(), 403),
            ("POST", format!("/v2/images/web/blobs/uploads/?mount={blob}&from=images/db"), 403),
            ("GET", "/v2/images/db/manifests/v1".to_owned(), 403),
            ("GET", "/v2/images/nothing/manifests/v1".to_owned(), 403),
            ("GET", format!("/v2/images/db/blobs/{blob}"), 403),
            ("GET", "/v2/images/db/tags/list".to_owned(), 403),
            ("GET", "/v2/_catalog".to_owned(), 403),
            ("GET", "/metrics".to_owned(), 403),
            ("POST", "/v2/_gapscan/collect".to_owned(), 403),
            ("GET", "/livez".to_owned(), 200),
        ] {
            assert_eq!(status(method, &path, bearer).await, expected, "{method} {path}, bearer: {bearer}");
        }
    }
    // It is as good after a restart, and to whoever reads as our client does.
    let Scene { folder, server, .. } = scene;
    server.shutdown().await;
    let loopback = "127.0.0.1:0".parse().expect("an address");
    let mut config = ServeConfig::new(folder.path(), loopback, Tls::PlainHttp);
    closed(&mut config);
    let server = Server::start(config).await.expect("a registry");
    let credentials = Some(Credentials::new("token", token));
    let reader = client(ClientConfig { credentials, ..plain(server.address()) });
    let repository = |name: &str| name.parse::<Repository>().expect(name);
    let mut read = Vec::new();
    let mut reading = reader.blob(&repository("images/web"), &blob, 2).await.expect("it may");
    reading.read_to_end(&mut read).await.expect("whole");
    assert_eq!(read, b"{}");
    assert!(reader.blob(&repository("images/db"), &blob, 2).await.is_err());
}

#[tokio::test]
async fn who_is_unknown_is_told_how_to_become_known() {
    let (scene, blob) = two_images().await;
    let answer = scene.http.get(scene.url("/v2/images/web/manifests/v1")).send().await.expect("an answer");
    assert_eq!(answer.status(), 401);
    let ways: Vec<&str> =
        answer.headers().get_all("www-authenticate").iter().map(|value| value.to_str().expect("text")).collect();
    let realm = scene.url("/token");
    let bearer = format!("Bearer realm=\"{realm}\",service=\"gapscan\",scope=\"repository:images/web:pull\"");
    assert_eq!(ways, [bearer.as_str(), "Basic realm=\"gapscan registry\""]);
    for path in ["/token?service=gapscan&scope=repository:images/web:pull", "/v2/", "/v2/_catalog", "/metrics"] {
        assert_eq!(scene.status(path).await, 401, "{path}");
    }

    let ask = async |scope: &str| {
        let url = scene.url(&format!("/token?service=gapscan&{scope}"));
        let answer = scene.http.get(url).basic_auth("kim", Some("s3cr3t")).send().await.expect("an answer");
        let answer: Value = serde_json::from_slice(&answer.bytes().await.expect("a body")).expect("JSON");
        assert_eq!(answer["expires_in"], json!(900));
        answer["token"].as_str().expect("a token").to_owned()
    };
    let pull = ask("scope=repository:images/web:pull").await;
    let with = async |token: &str, method: reqwest::Method, path: &str| {
        let request = scene.http.request(method, scene.url(path)).bearer_auth(token);
        request.send().await.expect("an answer").status().as_u16()
    };
    let get = reqwest::Method::GET;
    assert_eq!(with(&pull, get.clone(), "/v2/images/web/manifests/v1").await, 200);
    // Its holder can get more, and is asked to.
    assert_eq!(with(&pull, reqwest::Method::POST, "/v2/images/web/blobs/uploads/").await, 401);
    assert_eq!(with(&pull, get.clone(), "/v2/_catalog").await, 401);
    let both = ask("scope=repository:images/web:pull,push&scope=repository:images/db:pull").await;
    let mount = |from: &str| format!("/v2/images/web/blobs/uploads/?mount={blob}{from}");
    assert_eq!(with(&both, reqwest::Method::POST, &mount("&from=images/db")).await, 201);
    assert_eq!(
        with(&both, reqwest::Method::POST, &mount("")).await,
        202,
        "from anywhere is from where it may not read"
    );
    assert_eq!(with(&both, reqwest::Method::POST, &mount("&from=images/other")).await, 202);
    assert_eq!(with(&ask("scope=registry:catalog:*").await, get, "/v2/_catalog").await, 200);
    // The name in a challenge is a name, or there is none.
    let odd = scene.http.get(scene.url("/v2/")).header("host", "a\"b").send().await.expect("an answer");
    assert!(odd.headers().get_all("www-authenticate").iter().all(|value| !value.as_bytes().contains(&b'\\')));
}

#[tokio::test]
async fn a_client_gets_credentials_for_others_that_read_what_it_may_read_itself() {
    let (scene, blob) = two_images().await;
    let repository = |name: &str| name.parse::<Repository>().expect(name);
    let (web, db) = (repository("images/web"), repository("images/db"));
    let as_whom =
        |credentials: Option<Credentials>| client(ClientConfig { credentials, ..plain(scene.server.address()) });
    let hour = Duration::from_secs(3600);

    let user = as_whom(Some(Credentials::new("kim", "s3cr3t")));
    let given = user.pull_credentials(std::slice::from_ref(&web), hour).await.expect("an answer").expect("a token");
    assert_eq!(given.lasts, hour);
    let password = given.credentials.password().to_owned();
    let reader = as_whom(Some(given.credentials));
    assert!(reader.blob_exists(&web, &blob, 2).await.expect("it may"));
    assert!(reader.blob_exists(&db, &blob, 2).await.is_err());
    let write = scene.http.post(scene.url("/v2/images/web/blobs/uploads/")).basic_auth("token", Some(&password));
    assert_eq!(write.send().await.expect("an answer").status(), 403);

    // Who has a token gets another one for as much, for no longer, and not for more.
    let given =
        reader.pull_credentials(std::slice::from_ref(&web), 9 * hour).await.expect("an answer").expect("a token");
    assert!(given.lasts <= hour, "{:?}", given.lasts);
    let refused = reader.pull_credentials(&[web.clone(), db], hour).await.expect_err("not the other");
    assert!(matches!(refused, crate::registry::RegistryError::Unauthorized { .. }), "{refused}");
    let wrong = as_whom(Some(Credentials::new("kim", "wrong")));
    assert!(wrong.pull_credentials(std::slice::from_ref(&web), hour).await.is_err());
    assert!(as_whom(None).pull_credentials(std::slice::from_ref(&web), hour).await.expect("not asked").is_none());

    let open = Scene::new().await;
    let credentials = Some(Credentials::new("kim", "s3cr3t"));
    let known = client(ClientConfig { credentials, ..plain(open.server.address()) });
    assert!(known.pull_credentials(&[web], hour).await.expect("an answer").is_none(), "nobody is asked there");
}

#[tokio::test]
async fn a_new_certificate_is_used_without_a_restart_and_a_bad_one_is_not() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let folder = tempfile::tempdir().expect("a folder");
    let (chain, key) = (folder.path().join("chain.pem"), folder.path().join("key.pem"));
    let renew = || {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).expect("a certificate");
        std::fs::write(&chain, made.cert.pem()).expect("written");
        std::fs::write(&key, made.signing_key.serialize_pem()).expect("written");
        Certificate::from_pem(made.cert.pem().as_bytes()).expect("a certificate")
    };
    let trusting = |certificate: Certificate| {
        reqwest::Client::builder().no_proxy().tls_certs_only([certificate]).build().expect("a client")
    };
    let first = trusting(renew());
    let tls = Tls::Given { chain: chain.clone(), key: key.clone() };
    let loopback = "127.0.0.1:0".parse().expect("an address");
    let mut config = ServeConfig::new(folder.path().join("data"), loopback, tls);
    config.metrics = Some(loopback);
    let server = Server::start(config).await.expect("a registry");
    let url = format!("https://localhost:{}/v2/", server.address().port());
    assert_eq!(first.get(&url).send().await.expect("an answer").status(), 200);
    assert!(!server.reload_certificate().await.expect("the same"), "nothing new");
    std::fs::write(&chain, "no certificate").expect("written");
    assert!(server.reload_certificate().await.is_err());
    let second = trusting(renew());
    assert!(second.get(&url).send().await.is_err(), "not yet");
    // The files are looked at from time to time anyway; then this finds them in use already.
    server.reload_certificate().await.expect("a good one");
    assert_eq!(second.get(&url).send().await.expect("an answer").status(), 200);
    assert_eq!(first.get(&url).send().await.expect("an answer").status(), 200, "on the connection from before");

    let supervisor = format!("http://{}", server.metrics_address().expect("an address"));
    let plain = reqwest::Client::builder().no_proxy().build().expect("a client");
    let text = plain.get(format!("{supervisor}/metrics")).send().await.expect("an answer").text().await.expect("text");
    assert!(text.contains("gapscan_registry_certificate_reloads_total{outcome=\"done\"} 1\n"), "{text}");
    for (path, expected) in [("/livez", 200), ("/readyz", 200), ("/v2/", 404), ("/token", 404), ("/v2/_catalog", 404)] {
        let status = plain.get(format!("{supervisor}{path}")).send().await.expect("an answer").status();
        assert_eq!(status, expected, "{path}");
    }
}
