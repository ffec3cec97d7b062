//! Signatures on how far a ledger has come.
//!
//! The signed bytes are: a text that says what is signed, ended by a zero byte (`gapscan-ledger-checkpoint-v1` for an entry
//! of the kind `checkpoint`, `gapscan-ledger-head-v1` for the head file); the 16 bytes of the ledger's UUID; the number of
//! the entry, 8 bytes big-endian; the 32 bytes of its digest. The signature is ECDSA P-256 with SHA-256, in DER, so that
//! `openssl dgst -sha256 -verify` checks it too.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{self, EcdsaKeyPair, KeyPair, ParsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::error::LedgerError;
use super::head::Head;
use crate::base::file;

/// The body of a checkpoint: all entries up to `head` were there when the runner signed this.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Checkpoint {
    /// The entry before this one.
    #[serde(flatten)]
    pub head: Head,
    /// The signature, in DER and base64.
    pub signature: String,
}

/// What a signature is for. One for a head file can't be passed off as a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    Checkpoint,
    HeadFile,
}

/// Signs checkpoints and head files.
pub trait CheckpointSigner: Send {
    /// The public key: SubjectPublicKeyInfo in DER.
    fn public_key(&self) -> Vec<u8>;

    /// A signature over these bytes, in DER.
    ///
    /// # Errors
    /// When the key can't be used, in words for people.
    fn sign(&self, bytes: &[u8]) -> Result<Vec<u8>, String>;
}

/// The runner's key in a file beside the ledger.
pub struct RunnerKey {
    pair: EcdsaKeyPair,
    path: PathBuf,
}

impl RunnerKey {
    /// Makes a key and keeps it at `path` with mode 0600.
    ///
    /// # Errors
    /// When the file exists or can't be written.
    pub fn create(path: &Path) -> Result<Self, LedgerError> {
        let failed = |detail: &str| LedgerError::Key { path: path.to_owned(), detail: detail.to_owned() };
        let pair = EcdsaKeyPair::generate(&signature::ECDSA_P256_SHA256_ASN1_SIGNING)
            .map_err(|_| failed("the system gave no random bytes"))?;
        let der = pair.to_pkcs8v1().map_err(|_| failed("it has no PKCS#8 form"))?;
        let pem = pkcs8::SecretDocument::try_from(der.as_ref())
            .and_then(|document| document.to_pem("PRIVATE KEY", pkcs8::LineEnding::LF))
            .map_err(|_| failed("it has no PEM form"))?;
        if path.exists() {
            return Err(failed("there is one already"));
        }
        file::write_new(path, pem.as_bytes(), 0o600)
            .map_err(|source| LedgerError::File { path: path.to_owned(), source })?;
        Ok(Self { pair, path: path.to_owned() })
    }

    /// The key at `path`.
    ///
    /// # Errors
    /// When there is none, others may read it, or it is no ECDSA P-256 key in PKCS#8 PEM.
    pub fn load(path: &Path) -> Result<Self, LedgerError> {
        let failed = |detail: &str| LedgerError::Key { path: path.to_owned(), detail: detail.to_owned() };
        let bytes =
            file::read_capped(path, 16 << 10).map_err(|source| LedgerError::File { path: path.to_owned(), source })?;
        let bytes = zeroize::Zeroizing::new(bytes);
        let mode = std::fs::metadata(path).map_err(|_| failed("it went away"))?.permissions().mode();
        if mode & 0o077 != 0 {
            return Err(failed("others than its owner have access to it"));
        }
        let text = std::str::from_utf8(&bytes).map_err(|_| failed("it is no PEM"))?;
        let (label, document) = pkcs8::SecretDocument::from_pem(text).map_err(|_| failed("it is no PEM"))?;
        if label != "PRIVATE KEY" {
            return Err(failed("it is no unencrypted PKCS#8 key"));
        }
        let pair = EcdsaKeyPair::from_pkcs8(&signature::ECDSA_P256_SHA256_ASN1_SIGNING, document.as_bytes())
            .map_err(|_| failed("it is no ECDSA P-256 key"))?;
        Ok(Self { pair, path: path.to_owned() })
    }
}

impl std::fmt::Debug for RunnerKey {
    /// Where it is, never what it is.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RunnerKey").field("path", &self.path).finish_non_exhaustive()
    }
}

impl CheckpointSigner for RunnerKey {
    fn public_key(&self) -> Vec<u8> {
        let der = self.pair.public_key().as_der().expect("a valid P-256 key always has a SubjectPublicKeyInfo");
        der.as_ref().to_vec()
    }

    fn sign(&self, bytes: &[u8]) -> Result<Vec<u8>, String> {
        self.pair
            .sign(&SystemRandom::new(), bytes)
            .map(|signature| signature.as_ref().to_vec())
            .map_err(|_| "the system gave no random bytes".to_owned())
    }
}

/// The bytes that are signed.
pub(super) fn preimage(purpose: Purpose, head: &Head) -> Vec<u8> {
    let mut bytes = match purpose {
        Purpose::Checkpoint => b"gapscan-ledger-checkpoint-v1\0".to_vec(),
        Purpose::HeadFile => b"gapscan-ledger-head-v1\0".to_vec(),
    };
    bytes.extend_from_slice(head.ledger.as_bytes());
    bytes.extend_from_slice(&head.seq.to_be_bytes());
    bytes.extend_from_slice(head.digest.bytes());
    bytes
}

/// The signature over `head` for this purpose, in base64.
pub(super) fn sign(signer: &dyn CheckpointSigner, purpose: Purpose, head: &Head) -> Result<String, String> {
    signer.sign(&preimage(purpose, head)).map(|signature| STANDARD.encode(signature))
}

/// Whether the runner with this public key (base64 of its DER, as the first entry has it) signed `head` for this purpose.
pub(super) fn is_signed(purpose: Purpose, head: &Head, key: &str, signature: &str) -> bool {
    let check = || {
        let key = STANDARD.decode(key).ok()?;
        let signature = STANDARD.decode(signature).ok()?;
        let key = ParsedPublicKey::new(&signature::ECDSA_P256_SHA256_ASN1, key).ok()?;
        key.verify_sig(&preimage(purpose, head), &signature).ok()
    };
    check().is_some()
}

/// The base64 form of a public key that the first entry carries.
pub(super) fn key_text(signer: &dyn CheckpointSigner) -> String {
    STANDARD.encode(signer.public_key())
}

/// A new name for a ledger.
pub(super) fn new_ledger_id() -> Uuid {
    Uuid::now_v7()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::digest::Digest;

    #[test]
    fn a_key_signs_after_it_was_kept_and_only_what_it_signed_verifies() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("key");
        let made = RunnerKey::create(&path).expect("a key");
        let key = RunnerKey::load(&path).expect("the same key");
        assert_eq!(made.public_key(), key.public_key());

        let head = Head { ledger: Uuid::nil(), seq: 7, digest: Digest::of(b"x") };
        let text = key_text(&key);
        let signature = sign(&key, Purpose::Checkpoint, &head).expect("a signature");
        assert!(is_signed(Purpose::Checkpoint, &head, &text, &signature));
        assert!(!is_signed(Purpose::HeadFile, &head, &text, &signature), "another purpose");
        assert!(!is_signed(Purpose::Checkpoint, &Head { seq: 8, ..head.clone() }, &text, &signature));
        let other = RunnerKey::create(&folder.path().join("other")).expect("another key");
        assert!(!is_signed(Purpose::Checkpoint, &head, &key_text(&other), &signature));
        assert!(!is_signed(Purpose::Checkpoint, &head, &text, "AAAA"));
        assert!(RunnerKey::create(&path).is_err(), "a key is never overwritten");
    }

    #[test]
    fn a_key_that_others_can_read_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("key");
        let _ = RunnerKey::create(&path).expect("a key");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).expect("chmod");
        assert!(matches!(RunnerKey::load(&path), Err(LedgerError::Key { .. })));
    }
}
