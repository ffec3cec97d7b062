//! SHA-256 digests in the form that OCI descriptors write them.

use std::fmt;
use std::io::{self, Read};
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::Digest as _;

/// A SHA-256 digest, written `sha256:` and 64 lower-case hexadecimal digits
/// (OCI image-spec, descriptor.md, "Digests"). No other algorithm and no other spelling is accepted, so a digest is
/// always safe as a file name after [`Digest::hex`]. Ordering is that of the bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest([u8; 32]);

/// Why a text is no digest.
#[derive(Debug, thiserror::Error)]
#[error("`{}` is not a digest: it must be `sha256:` and 64 lower-case hexadecimal digits", crate::base::text::brief(.text))]
pub struct DigestError {
    text: String,
}

impl Digest {
    /// The digest of these bytes.
    pub fn of(bytes: impl AsRef<[u8]>) -> Self {
        Self(sha2::Sha256::digest(bytes.as_ref()).into())
    }

    /// The raw 32 bytes.
    pub fn bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// A digest from its raw bytes.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// 64 lower-case hexadecimal digits, without the algorithm.
    pub fn hex(&self) -> String {
        use fmt::Write as _;
        self.0.iter().fold(String::with_capacity(64), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
    }

    /// The first twelve hexadecimal digits, for people. Never compare these.
    pub fn short(&self) -> String {
        self.hex()[..12].to_owned()
    }

    /// A digest from 64 lower-case hexadecimal digits, without the algorithm.
    ///
    /// # Errors
    /// For any other text.
    pub fn from_hex(hex: &str) -> Result<Self, DigestError> {
        let refuse = || DigestError { text: hex.to_owned() };
        let digits = hex.as_bytes();
        if digits.len() != 64 {
            return Err(refuse());
        }
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            let nibble = |digit: u8| match digit {
                b'0'..=b'9' => Ok(digit - b'0'),
                b'a'..=b'f' => Ok(digit - b'a' + 10),
                _ => Err(refuse()),
            };
            *byte = nibble(pair[0])? << 4 | nibble(pair[1])?;
        }
        Ok(Self(bytes))
    }
}

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, DigestError> {
        let refuse = || DigestError { text: text.to_owned() };
        Self::from_hex(text.strip_prefix("sha256:").ok_or_else(refuse)?).map_err(|_| refuse())
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Digest {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

crate::base::schema::text_schema!(
    Digest,
    "Digest",
    "A SHA-256 digest: sha256: and 64 lower-case hexadecimal digits.",
    "^sha256:[0-9a-f]{64}$"
);

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Hashes what is fed to it piece by piece, and counts it.
#[derive(Clone, Default)]
pub struct Hasher {
    inner: sha2::Sha256,
    length: u64,
}

impl Hasher {
    /// Nothing hashed yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds these bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.inner.update(bytes);
        self.length += bytes.len() as u64;
    }

    /// How many bytes were fed so far.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// The digest of all that was fed.
    pub fn finish(self) -> Digest {
        Digest(self.inner.finalize().into())
    }
}

/// The digest and the length in bytes of all that `reader` yields, with constant memory.
///
/// # Errors
/// When reading fails.
pub fn digest_reader(mut reader: impl Read) -> io::Result<(Digest, u64)> {
    let mut hasher = Hasher::new();
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match reader.read(&mut buffer)? {
            0 => {
                let length = hasher.length();
                return Ok((hasher.finish(), length));
            }
            n => hasher.update(&buffer[..n]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_writes() {
        let digest = Digest::of(b"gapscan");
        assert_eq!(digest.to_string().parse::<Digest>().expect("own text"), digest);
    }

    #[test]
    fn refuses_every_other_spelling() {
        let hex = Digest::of(b"").hex();
        for text in [
            hex.clone(),
            format!("sha256:{}", hex.to_uppercase()),
            format!("SHA256:{hex}"),
            format!("sha512:{hex}"),
            format!("md5:{}", &hex[..32]),
            format!("sha256:{}", &hex[..63]),
            format!("sha256:{hex}0"),
            "sha256:../../../../../../../../../../../../../../../../../../../etc/passwd".to_owned(),
            format!("sha256:+{}", &hex[1..]),
            format!("sha256:{hex}\n"),
        ] {
            assert!(text.parse::<Digest>().is_err(), "{text:?}");
        }
    }
}
