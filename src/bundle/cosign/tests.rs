use p256::ecdsa::signature::Signer;
use p256::ecdsa::{DerSignature, SigningKey};
use p256::elliptic_curve::Generate;
use p256::pkcs8::LineEnding;
use serde_json::json;

use super::*;
use crate::base::exit::Classify;
use crate::bundle::source::Memory;

struct Scene {
    key: SigningKey,
    subject: Digest,
}

impl Scene {
    fn new() -> Self {
        Self { key: SigningKey::generate(), subject: Digest::of("an image") }
    }

    fn public(&self) -> UpstreamKey {
        let pem = self.key.verifying_key().to_public_key_pem(LineEnding::LF).expect("PEM");
        UpstreamKey::parse(&pem).expect("a key")
    }

    fn sign(&self, message: &[u8]) -> String {
        let signature: DerSignature = self.key.sign(message);
        STANDARD.encode(signature.as_bytes())
    }

    fn payload(&self) -> serde_json::Value {
        json!({
            "critical": {
                "identity": { "docker-reference": "registry.example/web" },
                "image": { "docker-manifest-digest": self.subject },
                "type": SIGNS[0],
            },
            "optional": null,
        })
    }

    /// A source that has a signature manifest about the subject with this layer.
    fn source(&self, media_type: &str, content: &[u8], signature: Option<&str>) -> Arc<dyn Source> {
        let mut layer = Descriptor::of(media_type, content);
        layer.annotations.extend(signature.map(|s| (SIGNATURE.to_owned(), s.to_owned())));
        let manifest = json!({
            "schemaVersion": 2, "mediaType": oci::MANIFEST, "config": Descriptor::of(oci::EMPTY, b"{}"),
            "layers": [layer], "subject": Descriptor { digest: self.subject, ..Descriptor::of(oci::MANIFEST, b"x") },
        });
        let mut memory = Memory::default();
        memory.insert(content.to_vec());
        memory.insert(serde_json::to_vec(&manifest).expect("JSON"));
        Arc::new(memory)
    }

    async fn try_source(&self, key: &UpstreamKey, source: &Arc<dyn Source>) -> Result<UpstreamSignature, SourceError> {
        let limits = Limits::default();
        let found = verify(key, &[Digest::of("an index"), self.subject], source, &limits).await?;
        let subjects = [self.subject];
        assert_eq!(verify_pinned(key, &found, &subjects, source, &limits).await.expect("pinned"), found);
        assert!(verify_pinned(key, &found, &[Digest::of("other")], source, &limits).await.is_err());
        Ok(found)
    }

    fn bundle(&self, statement: &serde_json::Value, kind: &str, change: impl Fn(&mut Vec<u8>)) -> Vec<u8> {
        let payload = serde_json::to_vec(statement).expect("JSON");
        let mut message = format!("DSSEv1 {} {kind} {} ", kind.len(), payload.len()).into_bytes();
        message.extend_from_slice(&payload);
        let signature = self.sign(&message);
        let mut shown = payload;
        change(&mut shown);
        serde_json::to_vec(&json!({
            "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
            "verificationMaterial": { "publicKey": { "hint": "x" } },
            "dsseEnvelope": {
                "payload": STANDARD.encode(shown), "payloadType": kind, "signatures": [{ "sig": signature }],
            },
        }))
        .expect("JSON")
    }
}

#[tokio::test]
async fn a_signature_by_the_key_over_the_digest_is_accepted_and_named() {
    let scene = Scene::new();
    let payload = serde_json::to_vec(&scene.payload()).expect("JSON");
    let source = scene.source(SIMPLE_SIGNING, &payload, Some(&scene.sign(&payload)));
    let found = scene.try_source(&scene.public(), &source).await.expect("verified");
    assert_eq!((found.subject, found.key), (scene.subject, scene.public().fingerprint));
    assert_eq!(found.identity.as_deref(), Some("registry.example/web"));
}

#[tokio::test]
async fn a_forged_a_foreign_and_a_misplaced_signature_are_refused() {
    let scene = Scene::new();
    let payload = serde_json::to_vec(&scene.payload()).expect("JSON");
    let good = scene.sign(&payload);
    let refused = async |case: &str, key: &UpstreamKey, source: Arc<dyn Source>| {
        let error = scene.try_source(key, &source).await.expect_err(case);
        assert_eq!(error.class(), ExitClass::Refused, "{case}: {error}");
    };
    let key = scene.public();
    refused("another key", &Scene::new().public(), scene.source(SIMPLE_SIGNING, &payload, Some(&good))).await;
    refused("no signature", &key, scene.source(SIMPLE_SIGNING, &payload, None)).await;
    refused("no base64", &key, scene.source(SIMPLE_SIGNING, &payload, Some("!"))).await;
    refused("another layer", &key, scene.source("application/octet-stream", &payload, Some(&good))).await;
    refused("none at all", &key, Arc::new(Memory::default())).await;
    let mut touched = payload.clone();
    touched.push(b' ');
    refused("changed payload", &key, scene.source(SIMPLE_SIGNING, &touched, Some(&good))).await;
    for (case, pointer, value) in [
        ("another digest", "/critical/image/docker-manifest-digest", json!(Digest::of("other"))),
        ("another type", "/critical/type", json!("atomic container signature")),
    ] {
        let mut changed = scene.payload();
        *changed.pointer_mut(pointer).expect("a field") = value;
        let changed = serde_json::to_vec(&changed).expect("JSON");
        let signature = scene.sign(&changed);
        refused(case, &key, scene.source(SIMPLE_SIGNING, &changed, Some(&signature))).await;
    }
}

#[tokio::test]
async fn a_sigstore_bundle_counts_only_as_a_signature_of_the_image() {
    let scene = Scene::new();
    let statement = |kind: &str, digest: &Digest| {
        json!({
            "_type": "https://in-toto.io/Statement/v1", "predicateType": kind, "predicate": {},
            "subject": [{ "name": "", "digest": { "sha256": digest.hex() } }],
        })
    };
    let media_type = "application/vnd.dev.sigstore.bundle.v0.3+json";
    let key = scene.public();
    let good = statement(SIGNS[1], &scene.subject);
    let bundle = scene.bundle(&good, STATEMENT, |_| {});
    let found = scene.try_source(&key, &scene.source(media_type, &bundle, None)).await.expect("verified");
    assert_eq!(found.identity, None);
    for (case, bundle) in [
        ("an attestation", scene.bundle(&statement("https://spdx.dev/Document", &scene.subject), STATEMENT, |_| {})),
        ("another digest", scene.bundle(&statement(SIGNS[1], &Digest::of("other")), STATEMENT, |_| {})),
        ("another payload type", scene.bundle(&good, "text/plain", |_| {})),
        ("a changed payload", scene.bundle(&good, STATEMENT, |payload| payload.push(b' '))),
        ("another key", Scene::new().bundle(&good, STATEMENT, |_| {})),
        ("no JSON", b"{".to_vec()),
    ] {
        assert!(scene.try_source(&key, &scene.source(media_type, &bundle, None)).await.is_err(), "{case}");
    }
}

#[test]
fn only_a_p256_public_key_is_a_key() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("cosign.pub");
    let pem = SigningKey::generate().verifying_key().to_public_key_pem(LineEnding::LF).expect("PEM");
    std::fs::write(&path, format!("{pem}\n")).expect("write");
    UpstreamKey::read(&path).expect("a key");
    for text in ["", "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEA\n-----END PUBLIC KEY-----\n", &pem[..60]] {
        std::fs::write(&path, text).expect("write");
        assert!(UpstreamKey::read(&path).is_err(), "{text}");
    }
}
