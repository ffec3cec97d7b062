//! Public keys as files that other tools make and read: SubjectPublicKeyInfo (RFC 5480) in PEM.

use std::collections::HashMap;
use std::path::Path;

use p256::PublicKey;
use p256::elliptic_curve::sec1::ToSec1Point;
use pkcs8::{DecodePublicKey, EncodePublicKey, LineEnding};
use tough::schema::decoded::{Decoded, Hex};
use tough::schema::key::{EcdsaKey, EcdsaScheme, Key};

use super::error::TrustError;
use super::key::hex;
use crate::base::file;

/// Bytes of a file with a public key; one of P-256 takes 178.
const PUBLIC_KEY_FILE_BYTES: u64 = 16 << 10;

/// The ECDSA P-256 key in a PEM file, as the uncompressed point: what [`super::envelope::open`] takes.
///
/// # Errors
/// When it can't be read, or is no such key.
pub fn read_public_key(path: &Path) -> Result<Vec<u8>, TrustError> {
    let refuse = |reason: &str| TrustError::PublicKey { path: path.to_owned(), reason: reason.to_owned() };
    let bytes = file::read_capped(path, PUBLIC_KEY_FILE_BYTES)?;
    let text = std::str::from_utf8(&bytes).map_err(|_| refuse("it is no PEM file"))?;
    if text.contains("PRIVATE KEY-----") {
        return Err(refuse("it holds a private key, which has no business here; give its public half"));
    }
    let key = PublicKey::from_public_key_pem(text.trim())
        .map_err(|_| refuse("it is no public key of ECDSA P-256 in PEM form (SubjectPublicKeyInfo)"))?;
    Ok(key.to_sec1_point(false).as_bytes().to_vec())
}

/// A P-256 key, given as a point, as the metadata writes it, and its id.
pub(super) fn of_point(point: &[u8]) -> (Key, Decoded<Hex>) {
    let public = Key::Ecdsa {
        keyval: EcdsaKey { public: point.to_vec().into(), _extra: HashMap::new() },
        scheme: EcdsaScheme::EcdsaSha2Nistp256,
        _extra: HashMap::new(),
    };
    let id = public.key_id().expect("a key is strings, which always have a JSON form");
    (public, id)
}

/// A key of the metadata in PEM; `None` for what is no usable P-256 key.
pub fn to_pem(key: &Key) -> Option<String> {
    let Key::Ecdsa { keyval, .. } = key else { return None };
    PublicKey::from_sec1_bytes(&keyval.public).ok()?.to_public_key_pem(LineEnding::LF).ok()
}

/// The name under which a courier has a key: the first eight digits of its id.
pub fn short_id(id: &Decoded<Hex>) -> String {
    hex(id)[..8].to_owned()
}

#[cfg(test)]
mod tests {
    use super::super::key::RoleKey;
    use super::*;

    #[test]
    fn a_public_key_comes_back_from_its_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("key.pem");
        let key = RoleKey::generate();
        std::fs::write(&path, to_pem(key.public()).expect("a P-256 key")).expect("write");
        let (public, id) = of_point(&read_public_key(&path).expect("a key"));
        assert_eq!((&public, &id), (key.public(), key.id()));

        let private = folder.path().join("private.pem");
        key.write(&private, None).expect("write");
        assert!(matches!(read_public_key(&private), Err(TrustError::PublicKey { .. })));
        for (name, content) in [("empty", ""), ("text", "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n")]
        {
            let path = folder.path().join(name);
            std::fs::write(&path, content).expect("write");
            assert!(matches!(read_public_key(&path), Err(TrustError::PublicKey { .. })), "{name}");
        }
    }
}
