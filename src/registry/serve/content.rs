//! What content is named by here. The rest of gapscan trusts SHA-256 alone; a registry must also keep what other clients
//! name by SHA-512 (distribution-spec 1.1, "Pushing blobs"; image-spec, descriptor.md, "Registered algorithms").

use std::fmt;
use std::io::{self, Read};
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::Digest as _;

use crate::base::digest::{Digest, Hasher};

/// `sha256:` and 64, or `sha512:` and 128 lower-case hexadecimal digits. The hexadecimal part alone is safe as a file name,
/// and its length says the algorithm.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum ContentDigest {
    Sha256(Digest),
    Sha512([u8; 64]),
}

/// A registered algorithm.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Algorithm {
    #[default]
    Sha256,
    Sha512,
}

/// A text that is no digest of a registered algorithm.
#[derive(Debug, thiserror::Error)]
#[error("a digest here is `sha256:` and 64, or `sha512:` and 128 lower-case hexadecimal digits")]
pub(super) struct NotADigest;

impl Algorithm {
    pub(super) const ALL: [Self; 2] = [Self::Sha256, Self::Sha512];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha512 => "sha512",
        }
    }

    pub(super) fn digest(self, bytes: &[u8]) -> ContentDigest {
        let mut hasher = ContentHasher::new(self);
        hasher.update(bytes);
        hasher.finish()
    }
}

impl ContentDigest {
    pub(super) fn algorithm(&self) -> Algorithm {
        match self {
            Self::Sha256(_) => Algorithm::Sha256,
            Self::Sha512(_) => Algorithm::Sha512,
        }
    }

    pub(super) fn hex(&self) -> String {
        match self {
            Self::Sha256(digest) => digest.hex(),
            // Two digests of 32 bytes side by side are one of 64.
            Self::Sha512(bytes) => bytes
                .chunks_exact(32)
                .map(|half| Digest::from_bytes(half.try_into().expect("a half is 32 bytes")).hex())
                .collect(),
        }
    }

    /// The digest with these hexadecimal digits, as [`ContentDigest::hex`] writes them.
    pub(super) fn from_hex(hex: &str) -> Option<Self> {
        match hex.len() {
            64 => Digest::from_hex(hex).ok().map(Self::Sha256),
            128 if hex.is_ascii() => {
                let (first, second) = hex.split_at(64);
                let mut bytes = [0; 64];
                bytes[..32].copy_from_slice(Digest::from_hex(first).ok()?.bytes());
                bytes[32..].copy_from_slice(Digest::from_hex(second).ok()?.bytes());
                Some(Self::Sha512(bytes))
            }
            _ => None,
        }
    }
}

impl FromStr for ContentDigest {
    type Err = NotADigest;

    fn from_str(text: &str) -> Result<Self, NotADigest> {
        let (algorithm, hex) = text.split_once(':').ok_or(NotADigest)?;
        Self::from_hex(hex).filter(|digest| digest.algorithm().name() == algorithm).ok_or(NotADigest)
    }
}

impl fmt::Display for ContentDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.algorithm().name(), self.hex())
    }
}

impl fmt::Debug for ContentDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for ContentDigest {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ContentDigest {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Hashes what is fed to it piece by piece.
#[derive(Clone)]
pub(super) enum ContentHasher {
    Sha256(Hasher),
    Sha512(Box<sha2::Sha512>),
}

impl ContentHasher {
    pub(super) fn new(algorithm: Algorithm) -> Self {
        match algorithm {
            Algorithm::Sha256 => Self::Sha256(Hasher::new()),
            Algorithm::Sha512 => Self::Sha512(Box::default()),
        }
    }

    pub(super) fn algorithm(&self) -> Algorithm {
        match self {
            Self::Sha256(_) => Algorithm::Sha256,
            Self::Sha512(_) => Algorithm::Sha512,
        }
    }

    pub(super) fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(hasher) => hasher.update(bytes),
            Self::Sha512(hasher) => hasher.update(bytes),
        }
    }

    pub(super) fn finish(self) -> ContentDigest {
        match self {
            Self::Sha256(hasher) => ContentDigest::Sha256(hasher.finish()),
            Self::Sha512(hasher) => ContentDigest::Sha512(hasher.finalize().into()),
        }
    }

    /// A hasher that has seen all that `reader` yields, and how many bytes that was.
    pub(super) fn over(algorithm: Algorithm, mut reader: impl Read) -> io::Result<(Self, u64)> {
        let mut hasher = Self::new(algorithm);
        let mut buffer = vec![0; 256 << 10];
        let mut length = 0;
        loop {
            match reader.read(&mut buffer)? {
                0 => return Ok((hasher, length)),
                n => {
                    hasher.update(&buffer[..n]);
                    length += n as u64;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_algorithms_read_what_they_write_and_nothing_else() {
        // FIPS 180-4's example message.
        let long = Algorithm::Sha512.digest(b"abc");
        assert!(long.to_string().starts_with("sha512:ddaf35a193617abacc417349ae204131"));
        for digest in [Algorithm::Sha256.digest(b"abc"), long] {
            assert_eq!(digest.to_string().parse::<ContentDigest>().expect("own text"), digest);
            assert_eq!(ContentDigest::from_hex(&digest.hex()), Some(digest));
            assert!(digest.to_string().to_uppercase().parse::<ContentDigest>().is_err());
        }
        for text in [
            format!("sha256:{}", long.hex()),
            format!("sha512:{}", Digest::of(b"").hex()),
            format!("sha384:{}", Digest::of(b"").hex()),
            "sha512:".to_owned(),
            format!("sha512:{}", "é".repeat(64)),
            format!("sha512:{}", "../".repeat(43)),
        ] {
            assert!(text.parse::<ContentDigest>().is_err(), "{text:?}");
        }
    }
}
