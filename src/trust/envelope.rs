//! Signed documents that are no TUF metadata: DSSE envelopes (Dead Simple Signing Envelope 1.0.2, "protocol.md" and
//! "envelope.md"), with ECDSA P-256 signatures.
//!
//! What a hostile envelope may try, and where it ends: a signature over another payload type (the type is part of what is
//! signed, and the caller names the one that it expects); a signature by a key that the caller did not name, or one that
//! does not fit ([`open`] asks for one that does and looks at no other claim); a payload that is parsed before it was
//! verified (only [`open`] gives the payload).

use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, ParsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use super::error::TrustError;
use super::key::RoleKey;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Envelope {
    payload: String,
    payload_type: String,
    signatures: Vec<EnvelopeSignature>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct EnvelopeSignature {
    #[serde(default)]
    keyid: String,
    sig: String,
}

/// The bytes that are signed ("PAE", the pre-authentication encoding).
fn signed_bytes(payload_type: &str, payload: &[u8]) -> Vec<u8> {
    let mut bytes = format!("DSSEv1 {} {payload_type} {} ", payload_type.len(), payload.len()).into_bytes();
    bytes.extend_from_slice(payload);
    bytes
}

/// The envelope of a payload of this type, signed with this key: JSON on one line, ended by a line feed.
pub fn seal(payload_type: &str, payload: &[u8], key: &RoleKey) -> Vec<u8> {
    let envelope = Envelope {
        payload: STANDARD.encode(payload),
        payload_type: payload_type.to_owned(),
        signatures: vec![EnvelopeSignature {
            keyid: key.id_hex(),
            sig: STANDARD.encode(key.sign(&signed_bytes(payload_type, payload))),
        }],
    };
    let mut bytes = serde_json::to_vec(&envelope).expect("strings have a JSON form");
    bytes.push(b'\n');
    bytes
}

/// The payload of an envelope, if it is of this type and signed by this key (SubjectPublicKeyInfo in DER, or the
/// uncompressed point). `what` names the document in errors.
///
/// # Errors
/// When it is no envelope, of another type, or not signed by this key.
pub fn open(what: &str, envelope: &[u8], payload_type: &str, key: &[u8]) -> Result<Vec<u8>, TrustError> {
    let refuse = |reason: &str| TrustError::Metadata { file: what.to_owned(), reason: reason.to_owned() };
    let envelope: Envelope =
        serde_json::from_slice(envelope).map_err(|e| refuse(&format!("it is no signed envelope: {e}")))?;
    if envelope.payload_type != payload_type {
        let found = crate::base::text::brief(&envelope.payload_type);
        return Err(refuse(&format!("its content is `{found}`, and `{payload_type}` is expected")));
    }
    let payload = STANDARD.decode(&envelope.payload).map_err(|_| refuse("its payload is no base64"))?;
    let key = ParsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, key).map_err(|_| refuse("the public key is unusable"))?;
    let message = signed_bytes(payload_type, &payload);
    let fits = |signature: &EnvelopeSignature| {
        STANDARD.decode(&signature.sig).is_ok_and(|signature| key.verify_sig(&message, &signature).is_ok())
    };
    if !envelope.signatures.iter().any(fits) {
        return Err(refuse("no signature on it is by the key that is expected"));
    }
    Ok(payload)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_named_key_over_the_named_type_opens_an_envelope() {
        let (key, other) = (RoleKey::generate(), RoleKey::generate());
        let sealed = seal("text/a", b"hello", &key);
        assert_eq!(open("it", &sealed, "text/a", &key.point()).expect("it opens"), b"hello");
        // The signature would not fit either; but who named the wrong file is told so.
        let error = open("it", &sealed, "text/b", &key.point()).expect_err("another type was asked for");
        assert!(error.to_string().contains("`text/b` is expected"), "{error}");
        assert!(open("it", &sealed, "text/a", &other.point()).is_err(), "another key was asked for");
        let text = String::from_utf8(sealed).expect("JSON");
        let retyped = text.replace("text/a", "text/b");
        assert!(open("it", retyped.as_bytes(), "text/b", &key.point()).is_err(), "the type is signed too");
        let changed = text.replace(&STANDARD.encode("hello"), &STANDARD.encode("hullo"));
        assert!(open("it", changed.as_bytes(), "text/a", &key.point()).is_err());
        for broken in ["", "{}", "[]", "\u{feff}{}"] {
            assert!(open("it", broken.as_bytes(), "text/a", &key.point()).is_err());
        }
    }
}
