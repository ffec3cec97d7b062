//! Upstream signatures by cosign, verified with a key that the definition names.
//!
//! Two forms are read: signatures in an image manifest (layers of `simplesigning`, found by the tag `sha256-HEX.sig` or as
//! a referrer), and Sigstore bundles (a DSSE envelope around an in-toto statement, found as a referrer). In both the key's
//! ECDSA P-256 signature over exact bytes counts, and those bytes must name the digest. Certificates and the transparency
//! log are not looked at: the key is all that is trusted, and is named by the definition.
//!
//! What a registry may try: a signature by another key, over other bytes, of another digest, of something that is no
//! signature of an image (an attestation says something about an image, and not that it is the right one), a huge or
//! malformed document. Whatever does not verify is passed over; when nothing does, the item is refused.

use std::path::Path;
use std::sync::Arc;

use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use p256::pkcs8::{DecodePublicKey, EncodePublicKey};
use serde::Deserialize;

use super::oci::{self, Descriptor, Manifest};
use super::source::{Source, SourceError, small_blob};
use crate::base::digest::Digest;
use crate::base::exit::ExitClass;
use crate::base::file;
use crate::base::limits::Limits;
use crate::base::text::brief;
use crate::model::catalog::UpstreamSignature;

/// The media type of what cosign signs.
const SIMPLE_SIGNING: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
/// The annotation of such a layer with the signature, in base64.
const SIGNATURE: &str = "dev.cosignproject.cosign/signature";
/// What the media type of a Sigstore bundle begins with; its version follows.
const SIGSTORE_BUNDLE: &str = "application/vnd.dev.sigstore.bundle";
/// What a payload or statement says that it is, when it is a signature of an image.
const SIGNS: [&str; 2] = ["cosign container image signature", "https://sigstore.dev/cosign/sign/v1"];
/// The payload type of an in-toto statement.
const STATEMENT: &str = "application/vnd.in-toto+json";
/// Bytes of a key file; a P-256 key has some 180.
const KEY_BYTES: u64 = 16 << 10;
/// Bytes of a signed payload or a bundle.
const PAYLOAD_BYTES: u64 = 1 << 20;
/// Signatures that are looked at for one item.
const MOST: usize = 64;

/// A public key of somebody upstream.
#[derive(Clone, Debug)]
pub struct UpstreamKey {
    /// The SHA-256 of its SubjectPublicKeyInfo (DER).
    pub fingerprint: Digest,
    point: Vec<u8>,
}

impl UpstreamKey {
    /// Reads a key from a PEM file.
    ///
    /// # Errors
    /// When the file can't be read, or holds no ECDSA P-256 public key.
    pub fn read(path: &Path) -> Result<Self, SourceError> {
        let bytes = file::read_capped(path, KEY_BYTES).map_err(SourceError::of)?;
        let key = std::str::from_utf8(&bytes).ok().and_then(Self::parse);
        key.ok_or_else(|| {
            SourceError::new(
                ExitClass::Usage,
                format!("use `{}` as cosignKey: it is no ECDSA P-256 public key in PEM form", path.display()),
            )
        })
    }

    fn parse(pem: &str) -> Option<Self> {
        let key = p256::ecdsa::VerifyingKey::from_public_key_pem(pem.trim()).ok()?;
        let der = key.to_public_key_der().ok()?;
        let point = key.to_sec1_point(false).as_bytes().to_vec();
        Some(Self { fingerprint: Digest::of(der.as_bytes()), point })
    }

    fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, &self.point).verify(message, signature).is_ok()
    }
}

/// Looks for a signature of one of `subjects` by this key.
///
/// # Errors
/// When there is none, or upstream can't be asked.
pub(super) async fn verify(
    key: &UpstreamKey,
    subjects: &[Digest],
    source: &Arc<dyn Source>,
    limits: &Limits,
) -> Result<UpstreamSignature, SourceError> {
    let mut looked_at = 0;
    for subject in subjects {
        for referrer in source.referrers(subject, limits).await?.into_iter().take(MOST) {
            looked_at += 1;
            if let Some(identity) = signs(key, subject, &referrer.descriptor, source, limits).await? {
                let signature = referrer.descriptor.digest;
                return Ok(UpstreamSignature { key: key.fingerprint, subject: *subject, signature, identity });
            }
        }
    }
    Err(missing(
        key,
        subjects,
        &match looked_at {
            0 => "upstream has none at all".to_owned(),
            count => format!("none of the {count} things that upstream has about it is one"),
        },
    ))
}

/// Verifies the pinned signature again.
///
/// # Errors
/// When it does not verify, or upstream does not have it any more.
pub(super) async fn verify_pinned(
    key: &UpstreamKey,
    pinned: &UpstreamSignature,
    subjects: &[Digest],
    source: &Arc<dyn Source>,
    limits: &Limits,
) -> Result<UpstreamSignature, SourceError> {
    let bytes = source.manifest(&pinned.signature, limits.manifest_bytes).await?;
    let descriptor = Descriptor { digest: pinned.signature, ..Descriptor::of(oci::MANIFEST, &bytes) };
    let identity = match subjects.contains(&pinned.subject) {
        true => signs(key, &pinned.subject, &descriptor, source, limits).await?,
        false => None,
    };
    let identity = identity.ok_or_else(|| missing(key, subjects, "the one that was locked is none"))?;
    Ok(UpstreamSignature { key: key.fingerprint, identity, ..pinned.clone() })
}

fn missing(key: &UpstreamKey, subjects: &[Digest], detail: &str) -> SourceError {
    let subject = subjects.first().map(Digest::to_string).unwrap_or_default();
    let message = format!("verify {subject}: there is no signature by the key {}; {detail}", key.fingerprint.short());
    SourceError::new(ExitClass::Refused, message)
        .with_remedy("ask who made it for the right key, or for an image that they signed")
}

/// Whether this manifest holds a signature of `subject` by the key, and the name that it gives.
async fn signs(
    key: &UpstreamKey,
    subject: &Digest,
    descriptor: &Descriptor,
    source: &Arc<dyn Source>,
    limits: &Limits,
) -> Result<Option<Option<String>>, SourceError> {
    let bytes = source.manifest(&descriptor.digest, limits.manifest_bytes).await?;
    if Digest::of(&bytes) != descriptor.digest {
        return Ok(None);
    }
    let Ok(Manifest::Image { layers, .. }) = Manifest::parse(oci::MANIFEST, &bytes) else { return Ok(None) };
    for layer in layers.iter().take(MOST) {
        let simple = layer.media_type == SIMPLE_SIGNING;
        if !simple && !layer.media_type.starts_with(SIGSTORE_BUNDLE) || layer.size > PAYLOAD_BYTES {
            continue;
        }
        let payload = small_blob(source.as_ref(), layer, PAYLOAD_BYTES).await?;
        let identity = match simple {
            true => {
                layer.annotations.get(SIGNATURE).and_then(|signature| simple_signing(key, subject, &payload, signature))
            }
            false => sigstore_bundle(key, subject, &payload),
        };
        if identity.is_some() {
            return Ok(identity);
        }
    }
    Ok(None)
}

/// The name in a payload of the simple signing format (containers/image, `containers-signature(5)`) for this digest.
fn simple_signing(key: &UpstreamKey, subject: &Digest, payload: &[u8], signature: &str) -> Option<Option<String>> {
    #[derive(Deserialize)]
    struct Payload {
        critical: Critical,
    }
    #[derive(Deserialize)]
    struct Critical {
        identity: Identity,
        image: Image,
        #[serde(rename = "type")]
        kind: String,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "kebab-case")]
    struct Identity {
        docker_reference: String,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "kebab-case")]
    struct Image {
        docker_manifest_digest: String,
    }
    // The signature first: nothing is read of what nobody signed.
    if !key.verifies(payload, &STANDARD.decode(signature).ok()?) {
        return None;
    }
    let Payload { critical } = serde_json::from_slice(payload).ok()?;
    let right = SIGNS.contains(&critical.kind.as_str()) && critical.image.docker_manifest_digest == subject.to_string();
    right.then(|| named(&critical.identity.docker_reference))
}

/// The same for a Sigstore bundle with a DSSE envelope (secure-systems-lab/dsse, protocol.md) around an in-toto statement.
fn sigstore_bundle(key: &UpstreamKey, subject: &Digest, bundle: &[u8]) -> Option<Option<String>> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Bundle {
        dsse_envelope: Envelope,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Envelope {
        payload: String,
        payload_type: String,
        signatures: Vec<Signature>,
    }
    #[derive(Deserialize)]
    struct Signature {
        sig: String,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Statement {
        subject: Vec<Subject>,
        predicate_type: String,
    }
    #[derive(Deserialize)]
    struct Subject {
        #[serde(default)]
        name: String,
        digest: std::collections::BTreeMap<String, String>,
    }
    let Bundle { dsse_envelope: envelope } = serde_json::from_slice(bundle).ok()?;
    let payload = STANDARD.decode(&envelope.payload).ok()?;
    let kind = &envelope.payload_type;
    let mut message = format!("DSSEv1 {} {kind} {} ", kind.len(), payload.len()).into_bytes();
    message.extend_from_slice(&payload);
    let by_key = |s: &Signature| STANDARD.decode(&s.sig).is_ok_and(|signature| key.verifies(&message, &signature));
    if kind != STATEMENT || !envelope.signatures.iter().take(MOST).any(by_key) {
        return None;
    }
    let statement: Statement = serde_json::from_slice(&payload).ok()?;
    if !SIGNS.contains(&statement.predicate_type.as_str()) {
        return None;
    }
    let hex = subject.hex();
    let found = statement.subject.iter().find(|s| s.digest.get("sha256") == Some(&hex))?;
    Some(named(&found.name))
}

fn named(name: &str) -> Option<String> {
    (!name.is_empty()).then(|| brief(name))
}

#[cfg(test)]
mod tests;
