//! Role keys: ECDSA P-256, in PKCS#8 PEM files, encrypted at rest.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use p256::ecdsa::signature::Signer;
use p256::ecdsa::{DerSignature, SigningKey};
use p256::elliptic_curve::Generate;
use pkcs8::{DecodePrivateKey, EncodePrivateKey, LineEnding};
use tough::schema::decoded::{Decoded, Hex};
use tough::schema::key::Key;
use zeroize::Zeroizing;

use super::error::TrustError;
use super::passphrase::Passphrase;
use super::public;
use crate::base::file;

/// Bytes of a key file; an encrypted P-256 key takes about 400.
const KEY_FILE_BYTES: u64 = 16 << 10;

/// A key that signs metadata. Its signatures are deterministic (RFC 6979): the same content gives the same bytes, which
/// makes a bundle reproducible.
pub struct RoleKey {
    key: SigningKey,
    public: Key,
    id: Decoded<Hex>,
}

impl std::fmt::Debug for RoleKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RoleKey({})", self.id_hex())
    }
}

impl RoleKey {
    /// A new key from the operating system's random numbers.
    pub fn generate() -> Self {
        Self::of(SigningKey::generate())
    }

    fn of(key: SigningKey) -> Self {
        let (public, id) = public::of_point(key.verifying_key().to_sec1_point(false).as_bytes());
        Self { key, public, id }
    }

    /// The public half as the root lists it.
    pub fn public(&self) -> &Key {
        &self.public
    }

    /// The public half as the uncompressed point.
    pub fn point(&self) -> Vec<u8> {
        self.key.verifying_key().to_sec1_point(false).as_bytes().to_vec()
    }

    /// Its TUF key id.
    pub fn id(&self) -> &Decoded<Hex> {
        &self.id
    }

    /// Its TUF key id as 64 hexadecimal digits.
    pub fn id_hex(&self) -> String {
        hex(&self.id)
    }

    /// The ASN.1 signature over the SHA-256 of `message`.
    pub fn sign(&self, message: &[u8]) -> Vec<u8> {
        let signature: DerSignature = self.key.sign(message);
        signature.as_bytes().to_vec()
    }

    /// Writes the key to a new file of mode 0600: encrypted (scrypt and AES-256-CBC) when there is a passphrase.
    ///
    /// # Errors
    /// When the file exists or can't be written.
    pub fn write(&self, path: &Path, passphrase: Option<&Passphrase>) -> Result<(), TrustError> {
        let failed = |e: pkcs8::Error| TrustError::Key { path: path.to_owned(), reason: e.to_string() };
        let pem: Zeroizing<String> = match passphrase {
            Some(passphrase) => self.key.to_pkcs8_encrypted_pem(passphrase.bytes(), LineEnding::LF),
            None => self.key.to_pkcs8_pem(LineEnding::LF),
        }
        .map_err(failed)?;
        Ok(file::write_new(path, pem.as_bytes(), 0o600)?)
    }

    /// Reads a key file; `passphrase` is asked only for an encrypted one.
    ///
    /// # Errors
    /// When others may read the file, it holds no P-256 key in PKCS#8 PEM, or the passphrase does not open it.
    pub fn read(
        path: &Path,
        passphrase: &mut dyn FnMut() -> Result<Passphrase, TrustError>,
    ) -> Result<Self, TrustError> {
        let refuse = |reason: &str| TrustError::Key { path: path.to_owned(), reason: reason.to_owned() };
        let bytes = Zeroizing::new(file::read_capped(path, KEY_FILE_BYTES)?);
        // Looked at after the bytes were read: a mode that was right only before says nothing.
        let mode = fs::metadata(path)
            .map_err(|source| file::FileError::Read { path: path.to_owned(), source })?
            .permissions()
            .mode()
            & 0o7777;
        if mode & 0o077 != 0 {
            return Err(TrustError::KeyExposed { path: path.to_owned(), mode });
        }
        let pem = std::str::from_utf8(&bytes).map_err(|_| refuse("it is no PEM file"))?;
        if pem.starts_with("-----BEGIN ENCRYPTED PRIVATE KEY-----") {
            let passphrase = passphrase()?;
            SigningKey::from_pkcs8_encrypted_pem(pem, passphrase.bytes())
                .map(Self::of)
                .map_err(|_| refuse("the passphrase does not open it, or it is damaged"))
        } else {
            SigningKey::from_pkcs8_pem(pem).map(Self::of).map_err(|_| refuse("it is no P-256 key in PKCS#8 PEM form"))
        }
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passphrase(text: &str) -> impl FnMut() -> Result<Passphrase, TrustError> {
        move || Passphrase::new(text.to_owned())
    }

    #[test]
    fn an_encrypted_key_opens_with_its_passphrase_only_and_signs_the_same_again() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("root.pem");
        let key = RoleKey::generate();
        key.write(&path, Some(&passphrase("open sesame")().expect("a passphrase"))).expect("write");
        assert!(fs::read_to_string(&path).expect("read").starts_with("-----BEGIN ENCRYPTED PRIVATE KEY-----"));
        let read = RoleKey::read(&path, &mut passphrase("open sesame")).expect("it opens");
        assert_eq!(read.id_hex(), key.id_hex());
        assert_eq!(read.sign(b"x"), key.sign(b"x"));
        assert!(matches!(RoleKey::read(&path, &mut passphrase("sesame")), Err(TrustError::Key { .. })));
    }

    #[test]
    fn a_key_that_others_can_read_is_refused_and_none_is_overwritten() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("root.pem");
        let key = RoleKey::generate();
        key.write(&path, None).expect("write");
        assert!(key.write(&path, None).is_err(), "it exists");
        RoleKey::read(&path, &mut passphrase("not asked")).expect("it opens");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).expect("chmod");
        assert!(matches!(RoleKey::read(&path, &mut passphrase("-")), Err(TrustError::KeyExposed { .. })));
    }
}
