use std::io;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use oci_client::manifest::OCI_IMAGE_MEDIA_TYPE;
use tokio::io::{AsyncRead, AsyncReadExt, ReadBuf};

use super::*;
use crate::base::digest::Digest;
use crate::base::exit::Classify;
use crate::registry::credentials::Credentials;
use crate::registry::http::text_header;
use crate::registry::reference::{ManifestName, Tag};
use crate::registry::serve::{ServeConfig, Server, Tls};
use crate::registry::testing::{Between, DockerRegistry, client, embedded, limits, lost, never, plain, status};
use crate::registry::{Blob, Mount, Upload};

fn repository(name: &str) -> Repository {
    name.parse().expect(name)
}

/// Bytes that compress to nothing and repeat nowhere.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64 ^ length as u64;
    (0..length)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state as u8
        })
        .collect()
}

async fn push(client: &Client, repository: &Repository, bytes: &[u8]) -> Result<Digest, RegistryError> {
    let digest = Digest::of(bytes);
    let blob = Blob { repository, digest: &digest, size: bytes.len() as u64 };
    client.push_stream(blob, bytes, None, None).await.map(|_| digest)
}

async fn pull(client: &Client, repository: &Repository, digest: &Digest, size: u64) -> Result<Vec<u8>, RegistryError> {
    let mut bytes = Vec::new();
    let mut reader = client.blob(repository, digest, size).await?;
    match reader.read_to_end(&mut bytes).await {
        Ok(_) => Ok(bytes),
        Err(error) => Err(RegistryError::from_reader(error, repository, digest)),
    }
}

fn manifest(config: &[u8], layer: &[u8]) -> Vec<u8> {
    let part = |media_type: &str, bytes: &[u8]| serde_json::json!({ "mediaType": media_type, "digest": Digest::of(bytes), "size": bytes.len() });
    serde_json::to_vec(&serde_json::json!({
        "schemaVersion": 2, "mediaType": OCI_IMAGE_MEDIA_TYPE,
        "config": part("application/vnd.oci.image.config.v1+json", config),
        "layers": [part("application/vnd.oci.image.layer.v1.tar", layer)],
    }))
    .expect("JSON")
}

/// All that a bundle needs of a registry, in whole pieces and in chunks.
async fn exercise(config: ClientConfig) {
    for upload in [Upload::Whole, Upload::Chunks(NonZeroUsize::new(100_000).expect("not zero"))] {
        let client = client(ClientConfig { upload, ..config.clone() });
        client.ping().await.expect("it answers");
        let (one, two) = (repository("a/one"), repository("b/two"));
        let mut last = Vec::new();
        for length in [0, 1, 256 << 10, (256 << 10) + 1, 5 << 20] {
            last = noise(length);
            let digest = push(&client, &one, &last).await.expect("pushed");
            assert_eq!(pull(&client, &one, &digest, length as u64).await.expect("pulled"), last);
            assert!(client.blob_exists(&one, &digest, length as u64).await.expect("asked"));
            assert!(!client.blob_exists(&one, &digest, length as u64 + 1).await.expect("asked"));
        }
        let digest = Digest::of(&last);
        assert!(matches!(client.mount(&two, &digest, &one).await.expect("asked"), Mount::Mounted));
        assert_eq!(pull(&client, &two, &digest, last.len() as u64).await.expect("pulled"), last);
        let absent = Digest::of(b"not there");
        let Mount::Declined(opened) = client.mount(&two, &absent, &one).await.expect("asked") else {
            panic!("there was nothing to mount");
        };
        client.cancel(opened).await;
        let late = noise(last.len() + 1);
        let digest = Digest::of(&late);
        let Mount::Declined(opened) = client.mount(&two, &digest, &one).await.expect("asked") else {
            panic!("there was nothing to mount");
        };
        let size = late.len() as u64;
        client
            .push_stream(Blob { repository: &two, digest: &digest, size }, late.as_slice(), Some(opened), None)
            .await
            .expect("pushed");
        assert_eq!(pull(&client, &two, &digest, size).await.expect("pulled"), late);
        assert!(pull(&client, &one, &absent, 9).await.expect_err("absent").is_not_found());

        push(&client, &one, b"{}").await.expect("pushed");
        let bytes = manifest(b"{}", &last);
        let digest = Digest::of(&bytes);
        client.push_manifest(&one, &digest.into(), OCI_IMAGE_MEDIA_TYPE, &bytes).await.expect("pushed by digest");
        for tag in ["v1", "latest"] {
            let tag: Tag = tag.parse().expect(tag);
            client.push_manifest(&one, &tag.clone().into(), OCI_IMAGE_MEDIA_TYPE, &bytes).await.expect("tagged");
            assert_eq!(client.resolve(&one, &tag).await.expect("resolved"), digest);
        }
        let read = client.manifest(&one, &digest.into()).await.expect("read");
        assert_eq!(read, ManifestBody { bytes, media_type: OCI_IMAGE_MEDIA_TYPE.to_owned(), digest });
        let tags = client.tags(&one).await.expect("listed");
        assert_eq!(tags.iter().map(Tag::as_str).collect::<Vec<_>>(), ["latest", "v1"]);
        assert!(client.tags(&repository("no/such")).await.expect("listed").is_empty());
    }
}

#[tokio::test]
async fn the_embedded_registry_does_all_that_is_needed_with_tls_and_a_password() {
    let folder = tempfile::tempdir().expect("a folder");
    let credentials = Credentials::new("kim", "s3cr3t");
    let server = Server::start(ServeConfig {
        credentials: Some(credentials.clone()),
        ..ServeConfig::new(folder.path(), "127.0.0.1:0".parse().expect("an address"), Tls::Own(Vec::new()))
    })
    .await
    .expect("a registry");
    let ca = server.ca_pem().expect("its own CA").as_bytes().to_vec();
    let config = ClientConfig {
        transport: Transport::TlsWithCa(ca),
        credentials: Some(credentials.clone()),
        ..plain(server.address())
    };
    assert!(!format!("{config:?}").contains("s3cr3t"));
    exercise(config.clone()).await;

    for (wrong, had_credentials) in [(None, false), (Some(Credentials::new("kim", "wr0ng")), true)] {
        let error = client(ClientConfig { credentials: wrong, ..config.clone() }).ping().await.expect_err("refused");
        assert!(matches!(&error, RegistryError::Unauthorized { had_credentials: had, .. } if *had == had_credentials));
        assert!(!format!("{error:?} {error}").contains("wr0ng"));
    }
    let stranger = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    for transport in [Transport::Tls, Transport::TlsWithCa(stranger.cert.pem().into_bytes())] {
        let error = client(ClientConfig { transport, ..config.clone() }).ping().await.expect_err("not trusted");
        assert!(!error.is_transient());
        assert!(error.remedy().is_some_and(|remedy| remedy.contains("--ca")), "{error:?}");
    }
    for pem in ["", "no PEM", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
        let transport = Transport::TlsWithCa(pem.into());
        assert!(
            matches!(Client::new(ClientConfig { transport, ..config.clone() }), Err(RegistryError::Ca { .. })),
            "{pem:?}"
        );
    }
    server.shutdown().await;
}

#[tokio::test]
async fn docker_registry_does_all_that_is_needed() {
    if let Some(registry) = DockerRegistry::start().await {
        exercise(plain(registry.address)).await;
    }
}

#[test]
fn plain_http_stays_on_this_machine() {
    let config = ClientConfig {
        transport: Transport::PlainHttp,
        ..ClientConfig::new("registry.internal:5000".parse().expect("a name"))
    };
    assert!(matches!(Client::new(config), Err(RegistryError::PlainHttp { .. })));
}

#[tokio::test]
async fn a_registry_that_asks_for_time_gets_it_and_one_that_stumbles_is_asked_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = embedded(folder.path()).await;
    let busy = Between::start(Some(server.address()), |seen, before| {
        let first_blob = seen.is("POST", "/blobs/uploads/") && before == 0;
        first_blob
            .then(|| Response::builder().status(429).header("retry-after", "1").body(Body::empty()).expect("an answer"))
    })
    .await;
    let started = Instant::now();
    push(&client(plain(busy.address)), &repository("a"), b"x").await.expect("pushed");
    assert!(started.elapsed() >= Duration::from_secs(1), "{:?}", started.elapsed());

    // Every method fails three times before it works, uploads included.
    let failures = std::sync::Mutex::new(std::collections::HashMap::<String, usize>::new());
    let stumbling = Between::start(Some(server.address()), move |seen, _| {
        let mut failures = failures.lock().expect("no test panics in here");
        let count = failures.entry(seen.method.clone()).or_default();
        *count += 1;
        (*count <= 3).then(|| status(503))
    })
    .await;
    let config = plain(stumbling.address);
    let client = client(ClientConfig { retry: Retry { repeats: 12, ..config.retry }, ..config });
    let bytes = noise(700_000);
    let digest = push(&client, &repository("b"), &bytes).await.expect("pushed");
    assert_eq!(pull(&client, &repository("b"), &digest, 700_000).await.expect("pulled"), bytes);
}

#[tokio::test]
async fn a_failure_that_does_not_pass_is_not_repeated_for_ever() {
    let broken = Between::start(None, |_, _| Some(status(500))).await;
    let error = client(plain(broken.address)).ping().await.expect_err("it never works");
    assert!(matches!(error, RegistryError::Status { status, .. } if status == 500));
    assert_eq!(broken.seen().len(), 5, "one try and four repeats");
    let refusing = Between::start(None, |_, _| Some(status(403))).await;
    client(plain(refusing.address)).ping().await.expect_err("it is refused");
    assert_eq!(refusing.seen().len(), 1);
}

/// Serves `content`, half of it and then a broken connection the first time. `ranges`: whether the rest can be asked for.
async fn cutting(content: Vec<u8>, ranges: bool) -> Between {
    Between::start(None, move |seen, before| {
        let start = match text_header(&seen.headers, "range").filter(|_| ranges) {
            Some(text) => text.trim_start_matches("bytes=").trim_end_matches('-').parse().expect("an offset"),
            None => 0,
        };
        let rest = content[start..].to_vec();
        let length = rest.len();
        let mut answer = Response::builder().header("content-length", length);
        if start > 0 {
            answer = answer
                .status(206)
                .header("content-range", format!("bytes {start}-{}/{}", content.len() - 1, content.len()));
        }
        let body = match before {
            0 => {
                let half = Bytes::from(rest[..length / 2].to_vec());
                let cut = futures::stream::once(async {
                    // Lets the server send what it has first.
                    tokio::task::yield_now().await;
                    Err(io::Error::other("cut"))
                });
                Body::from_stream(futures::StreamExt::chain(futures::stream::iter([Ok(half)]), cut))
            }
            _ => Body::from(rest),
        };
        Some(answer.body(body).expect("an answer"))
    })
    .await
}

#[tokio::test]
async fn a_blob_that_is_cut_is_taken_up_where_it_broke_off() {
    let content = noise(300_000);
    let digest = Digest::of(&content);
    for ranges in [true, false] {
        let server = cutting(content.clone(), ranges).await;
        let pulled = pull(&client(plain(server.address)), &repository("a"), &digest, 300_000).await.expect("pulled");
        assert_eq!(pulled, content);
        let seen = server.seen();
        assert_eq!(seen.len(), 2);
        assert!(text_header(&seen[1].headers, "range").is_some());
    }
}

#[tokio::test]
async fn a_blob_of_other_bytes_or_another_length_is_never_whole() {
    let digest = Digest::of(b"what it should be");
    for (content, expected_size) in [
        (b"what it isn't, no".to_vec(), 17_u64),
        (b"too long for what it should be".to_vec(), 17),
        (b"short".to_vec(), 17),
    ] {
        let declared = Between::start(None, {
            let content = content.clone();
            move |_, _| Some(Response::new(Body::from(content.clone())))
        })
        .await;
        let chunked = Between::start(None, move |_, _| {
            let pieces = futures::stream::iter([Ok::<_, io::Error>(Bytes::from(content.clone()))]);
            Some(Response::new(Body::from_stream(pieces)))
        })
        .await;
        for server in [declared, chunked] {
            let error = pull(&client(plain(server.address)), &repository("a"), &digest, expected_size)
                .await
                .expect_err("refused");
            assert!(matches!(error, RegistryError::Digest { .. } | RegistryError::Size { .. }), "{error:?}");
            assert_eq!(error.class(), crate::base::exit::ExitClass::Refused);
        }
    }
}

#[tokio::test]
async fn a_blob_without_an_end_is_refused_where_it_should_have_ended() {
    let endless = Between::start(None, |_, _| {
        let pieces = futures::stream::repeat_with(|| Ok::<_, std::io::Error>(vec![7; 1000]));
        Some(Response::new(Body::from_stream(pieces)))
    })
    .await;
    let client = client(plain(endless.address));
    let (digest, repository) = (Digest::of([7; 5000]), repository("a"));
    let pulled = tokio::time::timeout(Duration::from_secs(20), pull(&client, &repository, &digest, 5000)).await;
    assert!(matches!(pulled.expect("in time"), Err(RegistryError::Size { found: 5001.., .. })));
}

#[tokio::test]
async fn silence_has_an_end_wherever_it_begins() {
    let config = |address: SocketAddr| {
        let limits = Limits { stall: Duration::from_millis(200), ..limits() };
        ClientConfig { limits, retry: Retry { repeats: 1, first_pause: Duration::from_millis(1) }, ..plain(address) }
    };
    let stalled = |error: RegistryError| matches!(error, RegistryError::Stalled { .. });
    // The kernel accepts, and nobody answers.
    let deaf = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    assert!(stalled(client(config(deaf.local_addr().expect("its address"))).ping().await.expect_err("silence")));

    let folder = tempfile::tempdir().expect("a folder");
    let server = embedded(folder.path()).await;
    let after_upload = Between::start(Some(server.address()), |seen, _| (seen.method == "PUT").then(never)).await;
    // Small enough to be on its way at once, and large enough to fill every buffer between.
    for length in [10, 30 << 20] {
        let started = Instant::now();
        let error =
            push(&client(config(after_upload.address)), &repository("a"), &noise(length)).await.expect_err("silence");
        assert!(stalled(error));
        assert!(started.elapsed() < Duration::from_secs(30));
    }
    let mid_body = Between::start(None, |_, _| {
        let pieces = futures::StreamExt::chain(
            futures::stream::iter([Ok::<_, io::Error>(Bytes::from_static(b"begin"))]),
            futures::stream::pending(),
        );
        Some(Response::builder().header("content-length", 100).body(Body::from_stream(pieces)).expect("an answer"))
    })
    .await;
    let error =
        pull(&client(config(mid_body.address)), &repository("a"), &Digest::of(b""), 100).await.expect_err("silence");
    assert!(!matches!(error, RegistryError::Content { .. }), "{error:?}");
}

#[tokio::test]
async fn a_registry_that_stores_other_bytes_than_it_acknowledges_is_found_out() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = embedded(folder.path()).await;
    let lying = Between::start(Some(server.address()), |seen, _| {
        if seen.is("HEAD", "/blobs/") {
            return Some(Response::builder().header("content-length", 5).body(Body::empty()).expect("an answer"));
        }
        let silent = [Digest::of(b"longer than five"), Digest::of(b"{}")];
        if seen.is("PUT", "/blobs/") && silent.iter().any(|digest| seen.query.contains(&digest.hex())) {
            // It acknowledges without saying what.
            return Some(status(201));
        }
        seen.is("GET", "/manifests/").then(|| {
            Response::builder().header("content-type", OCI_IMAGE_MEDIA_TYPE).body(Body::from("{}")).expect("an answer")
        })
    })
    .await;
    let client = client(plain(lying.address));
    let error = push(&client, &repository("a"), b"longer than five").await.expect_err("another length");
    assert!(matches!(error, RegistryError::Protocol { .. }), "{error:?}");
    push(&client, &repository("a"), b"layer").await.expect("its length fits");
    let two = push(&client, &repository("a"), b"{}").await;
    assert!(two.is_err(), "five is not two");
    let bytes = manifest(b"layer", b"layer");
    for name in [ManifestName::Digest(Digest::of(&bytes)), ManifestName::Tag("v1".parse().expect("a tag"))] {
        let error =
            client.push_manifest(&repository("a"), &name, OCI_IMAGE_MEDIA_TYPE, &bytes).await.expect_err("other bytes");
        assert!(matches!(error, RegistryError::Digest { .. }), "{error:?}");
    }
    // A HEAD that lies about presence is found out by whoever reads.
    let liar = Between::start(None, |seen, _| {
        (seen.method == "HEAD")
            .then(|| Response::builder().header("content-length", 5).body(Body::empty()).expect("an answer"))
    })
    .await;
    let client = crate::registry::testing::client(plain(liar.address));
    assert!(client.blob_exists(&repository("a"), &Digest::of(b"layer"), 5).await.expect("asked"));
    assert!(pull(&client, &repository("a"), &Digest::of(b"layer"), 5).await.expect_err("absent").is_not_found());
}

#[tokio::test]
async fn credentials_and_content_stay_with_their_registry() {
    let other = Between::start(None, |seen, _| {
        Some(match seen.path.as_str() {
            "/token" => Response::new(Body::from("{\"token\":\"t0k3n\"}")),
            _ => Response::new(Body::from("blob")),
        })
    })
    .await;
    let elsewhere = other.address;
    let credentials = Some(Credentials::new("kim", "s3cr3t"));

    // An upload elsewhere: nothing goes there, with or without credentials.
    let moving = Between::start(None, move |seen, _| {
        let location = format!("http://{elsewhere}{}x", seen.path);
        (seen.method == "POST").then(|| {
            Response::builder().status(202).header("location", location).body(Body::empty()).expect("an answer")
        })
    })
    .await;
    let error = push(&client(plain(moving.address)), &repository("a"), b"x").await.expect_err("refused");
    assert!(matches!(error, RegistryError::ForeignHost { what: "upload", .. }), "{error:?}");
    assert!(other.seen().is_empty());

    // A token service elsewhere.
    let asking = Between::start(None, move |seen, _| {
        let known = seen.headers.get("authorization").is_some_and(|value| value == "Bearer t0k3n");
        let challenge = format!("Bearer realm=\"http://{elsewhere}/token\",service=\"r\"");
        Some(match known {
            true => status(200),
            false => Response::builder()
                .status(401)
                .header("www-authenticate", challenge)
                .body(Body::empty())
                .expect("an answer"),
        })
    })
    .await;
    let with = ClientConfig { credentials: credentials.clone(), ..plain(asking.address) };
    let error = client(with.clone()).ping().await.expect_err("refused");
    assert!(matches!(error, RegistryError::ForeignHost { what: "token service", .. }), "{error:?}");
    assert!(other.seen().is_empty());
    // Nobody's token may come from anywhere; and the operator may vouch for the host.
    client(plain(asking.address)).ping().await.expect("an anonymous token");
    assert!(!other.seen()[0].headers.contains_key("authorization"));
    let vouched = ClientConfig { token_hosts: vec![elsewhere.to_string().parse().expect("a host")], ..with };
    client(vouched).ping().await.expect("a token for a user");
    assert!(other.seen()[1].headers.contains_key("authorization"));
    other.forget();

    // A blob elsewhere is read without credentials, since its digest says what it is.
    let sending = Between::start(None, move |seen, _| {
        Some(
            match seen.headers.contains_key("authorization") {
                true => Response::builder()
                    .status(307)
                    .header("location", format!("http://{elsewhere}/blob"))
                    .body(Body::empty()),
                false => {
                    Response::builder().status(401).header("www-authenticate", "Basic realm=\"r\"").body(Body::empty())
                }
            }
            .expect("an answer"),
        )
    })
    .await;
    let client = client(ClientConfig { credentials, ..plain(sending.address) });
    assert_eq!(pull(&client, &repository("a"), &Digest::of(b"blob"), 4).await.expect("pulled"), b"blob");
    assert!(!other.seen()[0].headers.contains_key("authorization"));
    assert!(sending.seen().iter().any(|seen| seen.headers.contains_key("authorization")));
}

#[tokio::test]
async fn where_a_proxy_limits_requests_content_goes_up_in_chunks() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = embedded(folder.path()).await;
    let limited = Between::start(Some(server.address()), |seen, _| {
        let length =
            text_header(&seen.headers, "content-length").and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
        (seen.method == "PUT" && length > 0).then(|| status(413))
    })
    .await;
    let client = client(plain(limited.address));
    let bytes = noise(1 << 20);
    let digest = push(&client, &repository("a"), &bytes).await.expect("pushed");
    assert_eq!(pull(&client, &repository("a"), &digest, 1 << 20).await.expect("pulled"), bytes);
    push(&client, &repository("a"), b"the next one").await.expect("pushed");
    let whole = limited.seen().iter().filter(|s| s.method == "PUT" && s.headers["content-length"] != "0").count();
    assert_eq!(whole, 1, "it was tried once and remembered");
    // Several that find it out at the same time all begin again.
    let client = crate::registry::testing::client(plain(limited.address));
    let (to, contents) = (repository("b"), (0..6).map(|at| noise(100 + at)).collect::<Vec<_>>());
    let pushed = futures::future::join_all(contents.iter().map(|bytes| push(&client, &to, bytes))).await;
    for digest in pushed {
        digest.expect("pushed");
    }
}

/// Yields its content, and then an error instead of an end: a reader whose content did not verify.
struct Unverified<'a>(&'a [u8]);

impl AsyncRead for Unverified<'_> {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.0.is_empty() {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, "it did not verify")));
        }
        let count = self.0.len().min(buf.remaining());
        let (now, later) = self.0.split_at(count);
        buf.put_slice(now);
        self.0 = later;
        Poll::Ready(Ok(()))
    }
}

#[tokio::test]
async fn content_that_does_not_verify_is_never_completed_even_with_the_right_digest() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = embedded(folder.path()).await;
    // With TLS, over HTTP/2: a body is broken off in another way there.
    let secured = Server::start(ServeConfig::new(
        folder.path().join("secured"),
        "127.0.0.1:0".parse().expect("an address"),
        Tls::Own(Vec::new()),
    ))
    .await
    .expect("a registry");
    let ca = secured.ca_pem().expect("its own CA").as_bytes().to_vec();
    let docker = DockerRegistry::start().await;
    let configs = [
        Some(plain(server.address())),
        Some(ClientConfig { transport: Transport::TlsWithCa(ca), ..plain(secured.address()) }),
        docker.as_ref().map(|docker| plain(docker.address)),
    ];
    for config in configs.into_iter().flatten() {
        for (upload, length) in [Upload::Whole, Upload::Chunks(NonZeroUsize::new(64 << 10).expect("not zero"))]
            .into_iter()
            .flat_map(|upload| [(upload, 10_usize), (upload, 256 << 10), (upload, 6 << 20)])
        {
            let client = client(ClientConfig { upload, ..config.clone() });
            let bytes = noise(length);
            let digest = Digest::of(&bytes);
            let repository = repository("a");
            let blob = Blob { repository: &repository, digest: &digest, size: length as u64 };
            let error = client.push_stream(blob, Unverified(&bytes), None, None).await.expect_err("refused");
            assert!(
                matches!(&error, RegistryError::Content { source, .. } if source.to_string() == "it did not verify"),
                "{error:?}"
            );
            for size in [length as u64 - 1, length as u64 + 1] {
                client
                    .push_stream(Blob { size, ..blob }, bytes.as_slice(), None, None)
                    .await
                    .expect_err("another length");
            }
            assert!(
                !client.blob_exists(&repository, &digest, length as u64).await.expect("asked"),
                "{} {length}",
                client.registry()
            );
        }
    }
}

#[tokio::test]
async fn an_upload_whose_answer_was_lost_is_not_sent_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = embedded(folder.path()).await;
    let losing = Between::start(Some(server.address()), |seen, _| (seen.method == "PUT").then(lost)).await;
    // The second is too long to be kept for another attempt.
    for length in [1000, 9 << 20] {
        losing.forget();
        push(&client(plain(losing.address)), &repository("a"), &noise(length)).await.expect("it is there");
        assert_eq!(losing.seen().iter().filter(|seen| seen.method == "PUT").count(), 1);
    }
}

#[tokio::test]
async fn only_a_valid_certificate_of_this_name_is_accepted() {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, KeyUsagePurpose};

    let mut params = CertificateParams::new(Vec::<String>::new()).expect("parameters");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let key = KeyPair::generate().expect("a key");
    let ca = params.self_signed(&key).expect("a CA").pem();
    let issuer = Issuer::new(params, key);
    for (name, until, accepted) in
        [("127.0.0.1", 2900, true), ("registry.internal", 2900, false), ("127.0.0.1", 2001, false)]
    {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(vec![name.to_owned()]).expect("parameters");
        params.not_before = rcgen::date_time_ymd(2000, 1, 1);
        params.not_after = rcgen::date_time_ymd(until, 1, 1);
        let certificate = params.signed_by(&key, &issuer).expect("a certificate");
        let folder = tempfile::tempdir().expect("a folder");
        let (chain_file, key_file) = (folder.path().join("chain.pem"), folder.path().join("key.pem"));
        std::fs::write(&chain_file, certificate.pem()).expect("written");
        std::fs::write(&key_file, key.serialize_pem()).expect("written");
        let server = Server::start(ServeConfig::new(
            folder.path().join("data"),
            "127.0.0.1:0".parse().expect("an address"),
            Tls::Given { chain: chain_file, key: key_file },
        ))
        .await
        .expect("a registry");
        let transport = Transport::TlsWithCa(ca.clone().into_bytes());
        let answer = client(ClientConfig { transport, ..plain(server.address()) }).ping().await;
        assert_eq!(answer.is_ok(), accepted, "{name} until {until}: {answer:?}");
    }
}
