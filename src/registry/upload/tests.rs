//! Uploads that are cut, content that does not verify, client certificates, and lists of referrers.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::base::digest::Digest;
use crate::base::exit::Classify;
use crate::registry::testing::{Between, client, embedded, plain, status};
use crate::registry::{
    AboutSubject, Blob, Client, ClientConfig, Content, Identity, Pieces, RegistryError, Repository, Retry, Sessions,
    Transport,
};

fn repository(name: &str) -> Repository {
    name.parse().expect(name)
}

/// Bytes in memory, in pieces; `wrong` ends them with an error instead of the last piece.
struct Bits {
    bytes: Bytes,
    wrong: bool,
}

impl Content for Bits {
    fn pieces(&self, from: u64) -> Pieces {
        let (mut rest, wrong) = (self.bytes.slice(usize::try_from(from).expect("small")..), self.wrong);
        Pieces::read_by(move |give| {
            while !rest.is_empty() {
                let piece = rest.split_to(rest.len().min(256 << 10));
                if rest.is_empty() && wrong {
                    return Err(io::Error::new(io::ErrorKind::InvalidData, "it did not verify"));
                }
                if give(piece).is_break() {
                    break;
                }
            }
            Ok(())
        })
    }
}

fn bits(length: usize) -> Bits {
    let bytes: Vec<u8> = (0..length).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    Bits { bytes: bytes.into(), wrong: false }
}

/// Passes connections on, counts what goes to the registry, and cuts each connection that brings it past the next limit.
struct Cutting {
    address: SocketAddr,
    up: Arc<AtomicU64>,
    task: tokio::task::JoinHandle<()>,
}

impl Cutting {
    async fn start(behind: SocketAddr, limits: &[u64]) -> Self {
        let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
        // So that no more is lost with a connection than a network would hold.
        socket.set_recv_buffer_size(256 << 10).expect("a small buffer");
        socket.bind("127.0.0.1:0".parse().expect("an address")).expect("a port");
        let listener = socket.listen(64).expect("it listens");
        let address = listener.local_addr().expect("its address");
        let up = Arc::new(AtomicU64::new(0));
        let counted = up.clone();
        let limits = Arc::new(Mutex::new(VecDeque::from_iter(limits.iter().copied())));
        let task = tokio::spawn(async move {
            let mut all = tokio::task::JoinSet::new();
            while let Ok((near, _)) = listener.accept().await {
                let far = TcpStream::connect(behind).await.expect("the registry");
                let (counted, limits) = (counted.clone(), limits.clone());
                all.spawn(async move {
                    let (mut from_client, mut to_client) = near.into_split();
                    let (mut from_server, mut to_server) = far.into_split();
                    let down = async { tokio::io::copy(&mut from_server, &mut to_client).await.map(|_| ()) };
                    let up = async {
                        let mut piece = vec![0; 64 << 10];
                        loop {
                            let count = from_client.read(&mut piece).await?;
                            if count == 0 {
                                return io::Result::Ok(());
                            }
                            to_server.write_all(&piece[..count]).await?;
                            let all = counted.fetch_add(count as u64, Ordering::SeqCst) + count as u64;
                            if limits.lock().expect("no panic in here").pop_front_if(|limit| all > *limit).is_some() {
                                return Ok(());
                            }
                        }
                    };
                    tokio::select! { _ = down => {}, _ = up => {} }
                });
            }
        });
        Self { address, up, task }
    }
}

impl Drop for Cutting {
    fn drop(&mut self) {
        self.task.abort();
    }
}

const LENGTH: usize = 40 << 20;

#[tokio::test]
async fn a_connection_that_is_cut_in_a_blob_costs_no_more_than_what_was_on_its_way() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = embedded(folder.path()).await;
    let cutting = Cutting::start(server.address(), &[LENGTH as u64 / 2]).await;
    let (content, to) = (bits(LENGTH), repository("a"));
    let digest = Digest::of(&content.bytes);
    let blob = Blob { repository: &to, digest: &digest, size: LENGTH as u64 };
    client(plain(cutting.address)).push_content(blob, &content, None, None).await.expect("pushed");
    let sent = cutting.up.load(Ordering::SeqCst);
    assert!(sent < LENGTH as u64 * 11 / 10, "{sent} bytes for {LENGTH}");
    assert!(client(plain(server.address())).blob_exists(&to, &digest, LENGTH as u64).await.expect("asked"));
}

#[tokio::test]
async fn a_process_that_died_in_a_blob_is_followed_by_one_that_goes_on_there() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = embedded(&folder.path().join("registry")).await;
    let cutting = Cutting::start(server.address(), &[LENGTH as u64 / 2]).await;
    let sessions = Sessions::in_folder(folder.path().join("uploads"));
    let (content, to) = (bits(LENGTH), repository("a"));
    let digest = Digest::of(&content.bytes);
    let blob = Blob { repository: &to, digest: &digest, size: LENGTH as u64 };
    let once = plain(cutting.address);
    let once = client(ClientConfig { retry: Retry { repeats: 0, ..once.retry }, ..once });
    once.push_content(blob, &content, None, Some(&sessions)).await.expect_err("cut");

    // What does not verify is not completed by going on with it either.
    let wrong = Bits { bytes: content.bytes.clone(), wrong: true };
    let before = std::fs::read_dir(folder.path().join("uploads")).expect("kept").count();
    assert_eq!(before, 1);
    let again = client(plain(cutting.address));
    let refused = again.push_content(blob, &wrong, None, None).await.expect_err("refused");
    assert!(matches!(refused, RegistryError::Content { .. }), "{refused:?}");
    assert!(!again.blob_exists(&to, &digest, LENGTH as u64).await.expect("asked"));

    let sent = again.push_content(blob, &content, None, Some(&sessions)).await.expect("pushed");
    assert!(sent.resumed_at > LENGTH as u64 * 4 / 10, "{sent:?}");
    assert_eq!(sent.bytes + sent.resumed_at, LENGTH as u64);
    assert_eq!(std::fs::read_dir(folder.path().join("uploads")).expect("the folder").count(), 0);
    assert!(again.blob_exists(&to, &digest, LENGTH as u64).await.expect("asked"));
}

#[tokio::test]
async fn a_stream_that_is_cut_goes_on_from_what_is_kept_of_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = embedded(folder.path()).await;
    let cutting = Cutting::start(server.address(), &[LENGTH as u64 / 2]).await;
    let (content, to) = (bits(LENGTH), repository("a"));
    let digest = Digest::of(&content.bytes);
    let blob = Blob { repository: &to, digest: &digest, size: LENGTH as u64 };
    let passing = client(plain(cutting.address));
    let sent = passing.push_stream(blob, content.bytes.as_ref(), None, None).await.expect("pushed");
    assert!(sent.bytes < LENGTH as u64 * 5 / 4, "{sent:?}");
    let mut stored = client(plain(server.address())).blob(&to, &digest, LENGTH as u64).await.expect("it is there");
    let mut bytes = Vec::new();
    stored.read_to_end(&mut bytes).await.expect("whole");
    assert_eq!(Digest::of(&bytes), digest);
}

#[tokio::test]
async fn a_stream_that_is_cut_before_what_is_kept_of_it_says_so() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = embedded(folder.path()).await;
    let (content, to) = (bits(LENGTH), repository("a"));
    let digest = Digest::of(&content.bytes);
    let blob = Blob { repository: &to, digest: &digest, size: LENGTH as u64 };
    for (range, expected) in [(Some("0-1048575"), 1 << 20), (None, 0)] {
        let forgetful = Between::start(Some(server.address()), move |seen, _| {
            let answer = Response::builder().status(if range.is_some() { 204 } else { 404 });
            let answer = answer.header("range", range.unwrap_or("none")).body(Body::empty()).expect("an answer");
            seen.is("GET", "/blobs/uploads/").then_some(answer)
        })
        .await;
        let cutting = Cutting::start(forgetful.address, &[LENGTH as u64 / 2]).await;
        let passing = client(plain(cutting.address));
        let error = passing.push_stream(blob, content.bytes.as_ref(), None, None).await.expect_err("it is gone");
        let RegistryError::StreamedBy { reached, kept_from, .. } = &error else { panic!("{error:?}") };
        assert_eq!(*reached, expected);
        assert!((8 << 20..LENGTH as u64).contains(kept_from), "{error}");
        assert!(error.remedy().is_some_and(|remedy| remedy.contains("from a file")));
        assert!(!passing.blob_exists(&to, &digest, LENGTH as u64).await.expect("asked"));
        // From a file it begins again, whatever the registry lost.
        let cutting = Cutting::start(forgetful.address, &[LENGTH as u64 / 2]).await;
        if range.is_none() {
            client(plain(cutting.address)).push_content(blob, &content, None, None).await.expect("pushed");
        }
    }
}

#[tokio::test]
async fn a_stream_whose_process_died_goes_on_where_that_one_was() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = embedded(&folder.path().join("registry")).await;
    let cutting = Cutting::start(server.address(), &[LENGTH as u64 / 2]).await;
    let sessions = Sessions::in_folder(folder.path().join("uploads"));
    let (content, to) = (bits(LENGTH), repository("a"));
    let digest = Digest::of(&content.bytes);
    let blob = Blob { repository: &to, digest: &digest, size: LENGTH as u64 };
    let once = plain(cutting.address);
    let once = client(ClientConfig { retry: Retry { repeats: 0, ..once.retry }, ..once });
    once.push_stream(blob, content.bytes.as_ref(), None, Some(&sessions)).await.expect_err("cut");
    let again = client(plain(cutting.address));
    // Another content is not mixed with what came before: the registry hashes all of it.
    let sent = again.push_stream(blob, content.bytes.as_ref(), None, Some(&sessions)).await.expect("pushed");
    assert!(sent.resumed_at > LENGTH as u64 * 3 / 10, "{sent:?}");
    assert_eq!(sent.bytes + sent.resumed_at, LENGTH as u64);
}

#[tokio::test]
async fn a_registry_that_lost_what_was_cut_is_given_less_at_a_time() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = embedded(&folder.path().join("registry")).await;
    let buffering = Between::buffering(server.address()).await;
    let to = repository("a");
    let length = 80_u64 << 20;
    let content = bits(length as usize);
    let digest = Digest::of(&content.bytes);
    let blob = Blob { repository: &to, digest: &digest, size: length };
    let sessions = Sessions::in_folder(folder.path().join("uploads"));
    // Twice the process ends in the middle: of the one piece, and of the second chunk.
    let cutting = Cutting::start(buffering.address, &[20 << 20, 88 << 20]).await;
    for _ in 0..2 {
        let config = plain(cutting.address);
        let once = client(ClientConfig { retry: Retry { repeats: 0, ..config.retry }, ..config });
        once.push_content(blob, &content, None, Some(&sessions)).await.expect_err("cut");
    }
    let again = client(plain(cutting.address));
    let sent = again.push_content(blob, &content, None, Some(&sessions)).await.expect("pushed");
    assert_eq!((sent.resumed_at, sent.bytes), (64 << 20, 16 << 20));
    assert!(again.blob_exists(&to, &digest, length).await.expect("asked"));
}

#[tokio::test]
async fn a_registry_that_stumbles_when_it_is_asked_for_its_place_has_not_lost_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = embedded(folder.path()).await;
    let stumbling = Between::start(Some(server.address()), |seen, before| {
        (seen.is("GET", "/blobs/uploads/") && before < 2).then(|| status(503))
    })
    .await;
    let cutting = Cutting::start(stumbling.address, &[LENGTH as u64 / 2]).await;
    let (content, to) = (bits(LENGTH), repository("a"));
    let digest = Digest::of(&content.bytes);
    let blob = Blob { repository: &to, digest: &digest, size: LENGTH as u64 };
    let sent = client(plain(cutting.address)).push_content(blob, &content, None, None).await.expect("pushed");
    assert!(sent.bytes < LENGTH as u64 * 5 / 4, "{sent:?}");
    assert_eq!(stumbling.seen().iter().filter(|seen| seen.is("POST", "/blobs/uploads/")).count(), 1, "one session");
}

#[tokio::test]
async fn a_remembered_upload_of_another_repository_is_not_taken_for_this_one() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = embedded(&folder.path().join("registry")).await;
    let cutting = Cutting::start(server.address(), &[LENGTH as u64 / 2]).await;
    let sessions = Sessions::in_folder(folder.path().join("uploads"));
    let (content, one, two) = (bits(LENGTH), repository("one"), repository("two"));
    let digest = Digest::of(&content.bytes);
    let size = LENGTH as u64;
    let once = plain(cutting.address);
    let registry = once.registry.clone();
    let once = client(ClientConfig { retry: Retry { repeats: 0, ..once.retry }, ..once });
    let blob = Blob { repository: &one, digest: &digest, size };
    once.push_content(blob, &content, None, Some(&sessions)).await.expect_err("cut");
    let address = sessions.find(&registry, &one, &digest, size).expect("kept");
    sessions.keep(&registry, &two, &digest, size, &address);
    let again = client(plain(cutting.address));
    let blob = Blob { repository: &two, ..blob };
    again.push_content(blob, &content, None, Some(&sessions)).await.expect_err("it went elsewhere");
    assert!(!again.blob_exists(&two, &digest, size).await.expect("asked"));
    again.push_content(blob, &content, None, Some(&sessions)).await.expect("pushed");
    assert!(again.blob_exists(&two, &digest, size).await.expect("asked"));
}

#[tokio::test]
async fn content_that_can_be_read_again_and_does_not_verify_is_never_completed() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = embedded(folder.path()).await;
    let client = client(plain(server.address()));
    for length in [1, 256 << 10, (256 << 10) + 1, 3 << 20] {
        let content = Bits { wrong: true, ..bits(length) };
        let (digest, to) = (Digest::of(&content.bytes), repository("a"));
        let blob = Blob { repository: &to, digest: &digest, size: length as u64 };
        let error = client.push_content(blob, &content, None, None).await.expect_err("refused");
        assert!(matches!(error, RegistryError::Content { .. }), "{error:?}");
        assert!(!client.blob_exists(&to, &digest, length as u64).await.expect("asked"));
    }
}

#[tokio::test]
async fn a_registry_without_the_referrers_api_lists_them_under_the_tag_of_their_subject() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = embedded(folder.path()).await;
    let without =
        Between::start(Some(server.address()), |seen, _| seen.path.contains("/referrers/").then(|| status(404))).await;
    let client = client(plain(without.address));
    let to = repository("a");
    let subject = Digest::of(b"what it is about");
    let config = Digest::of(b"{}");
    client
        .push_stream(Blob { repository: &to, digest: &config, size: 2 }, b"{}".as_slice(), None, None)
        .await
        .expect("a config");
    let mut expected = Vec::new();
    for name in ["one", "two"] {
        let kind = "application/vnd.oci.image.manifest.v1+json";
        let annotations = BTreeMap::from([("name".to_owned(), name.to_owned())]);
        let manifest = serde_json::to_vec(&serde_json::json!({
            "schemaVersion": 2, "mediaType": kind, "artifactType": "text/plain", "annotations": annotations, "layers": [],
            "config": { "mediaType": "application/vnd.oci.empty.v1+json", "digest": config, "size": 2 },
        }))
        .expect("JSON");
        let digest = Digest::of(&manifest);
        client.push_manifest(&to, &digest.into(), kind, &manifest).await.expect("pushed");
        expected.push(digest);
        let about = AboutSubject { subject: &subject, artifact_type: Some("text/plain"), annotations: &annotations };
        // Once is enough.
        for _ in 0..2 {
            client.list_referrer(&to, &digest, kind, manifest.len() as u64, about).await.expect("listed");
        }
    }
    expected.sort();
    let found = client.referrers(&to, &subject).await.expect("a list");
    assert_eq!(found.iter().map(|referrer| referrer.digest).collect::<Vec<_>>(), expected);
}

#[tokio::test]
async fn a_registry_that_asks_for_a_certificate_sees_the_one_that_was_named() {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = params.self_signed(&key).expect("a CA").pem();
    let issuer = Issuer::new(params, key);
    let issue = |name: &str| {
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(vec![name.to_owned()]).expect("parameters");
        (params.signed_by(&key, &issuer).expect("a certificate").pem(), key.serialize_pem())
    };
    let (chain, server_key) = issue("127.0.0.1");
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ca.as_bytes()).expect("a certificate")).expect("a root");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier =
        rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build();
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_client_cert_verifier(verifier.expect("a verifier"))
        .with_single_cert(
            vec![CertificateDer::from_pem_slice(chain.as_bytes()).expect("a certificate")],
            PrivateKeyDer::from_pem_slice(server_key.as_bytes()).expect("a key"),
        )
        .expect("a configuration");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("its address");
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let task = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let mut request = [0; 4096];
            let _ = stream.read(&mut request).await;
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").await;
            let _ = stream.shutdown().await;
        }
    });
    let (certificate, key) = issue("gapscan");
    let config = ClientConfig {
        // Several certificates in one file, the right one last.
        transport: Transport::TlsWithCa(format!("{}{ca}", issue("other").0).into_bytes()),
        retry: Retry { repeats: 0, ..Retry::default() },
        ..plain(address)
    };
    client(config.clone()).ping().await.expect_err("no certificate");
    let identity = Some(Identity::new(certificate.as_bytes(), key.as_bytes()));
    assert!(!format!("{identity:?}").contains("PRIVATE"));
    client(ClientConfig { identity, ..config.clone() }).ping().await.expect("the right one");
    let broken = Some(Identity::new(b"no PEM", b"no PEM"));
    let error = Client::new(ClientConfig { identity: broken, ..config }).expect_err("refused");
    assert!(matches!(error, RegistryError::ClientCertificate { .. }), "{error:?}");
    task.abort();
}
