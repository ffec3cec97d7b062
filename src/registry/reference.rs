//! Names in a registry: `HOST[:PORT]/REPOSITORY[:TAG][@DIGEST]` and its parts.
//!
//! The grammar is that of the OCI distribution-spec 1.1 ("Pulling manifests"). Nothing is guessed: a reference without a
//! host is refused instead of meaning Docker Hub, and one without a tag means no tag instead of `latest`.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::base::digest::Digest;
use crate::base::exit::{Classify, ExitClass};
use crate::base::text::brief;

/// A text that names nothing in a registry.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("read {kind} `{}`: {reason}", brief(.text))]
pub struct NameError {
    kind: &'static str,
    text: String,
    reason: &'static str,
}

impl NameError {
    fn new(kind: &'static str, text: &str, reason: &'static str) -> Self {
        Self { kind, text: text.to_owned(), reason }
    }
}

impl Classify for NameError {
    fn class(&self) -> ExitClass {
        ExitClass::Usage
    }

    fn remedy(&self) -> Option<String> {
        Some(match self.kind {
            "registry" => "name it as HOST or HOST:PORT, for example registry.internal:5000".to_owned(),
            "prefix" => "write HOST[:PORT][/PREFIX], for example registry.internal:5000/gapscan".to_owned(),
            "repository" => {
                "a repository is lower-case letters, digits and the separators . _ - / between them".to_owned()
            }
            "tag" => "a tag is at most 128 letters, digits, and . _ - after the first character".to_owned(),
            _ => {
                "write HOST[:PORT]/REPOSITORY[:TAG][@sha256:DIGEST]; for Docker Hub that is docker.io/library/debian:12"
                    .to_owned()
            }
        })
    }
}

/// `HOST` or `HOST:PORT` of a registry: a host name (RFC 1123, lower-cased here), an IPv4 address, or an IPv6 address in
/// brackets. Without a port it is that of the scheme. Ordering is that of the text.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Authority {
    host: String,
    port: Option<u16>,
}

impl Authority {
    /// The host, an IPv6 address without its brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port, where one is named.
    pub fn port(&self) -> Option<u16> {
        self.port
    }

    /// Whether the text can only mean this machine: `localhost` or an address of the loopback interface.
    pub fn is_loopback(&self) -> bool {
        is_loopback_host(&self.host)
    }
}

/// Whether a host name or address can only mean this machine.
pub(crate) fn is_loopback_host(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    bare == "localhost"
        || bare.parse::<Ipv4Addr>().is_ok_and(|ip| ip.is_loopback())
        || bare.parse::<Ipv6Addr>().is_ok_and(|ip| ip.is_loopback())
}

impl FromStr for Authority {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let refuse = |reason| NameError::new("registry", text, reason);
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (host, rest) = rest.split_once(']').ok_or_else(|| refuse("its bracket is not closed"))?;
                let address: Ipv6Addr = host.parse().map_err(|_| refuse("it is no IPv6 address"))?;
                let port = match rest {
                    "" => None,
                    _ => Some(rest.strip_prefix(':').ok_or_else(|| refuse("its port is no number"))?),
                };
                (address.to_string(), port)
            }
            None => {
                let (host, port) = match text.split_once(':') {
                    Some((host, port)) => (host, Some(port)),
                    None => (text, None),
                };
                let host = host.to_ascii_lowercase();
                let label = |label: &str| {
                    (1..=63).contains(&label.len())
                        && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
                        && !label.starts_with('-')
                        && !label.ends_with('-')
                };
                if host.len() > 253 || !host.split('.').all(label) {
                    return Err(refuse("it is no host name"));
                }
                (host, port)
            }
        };
        let port = match port {
            None => None,
            Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => match digits.parse() {
                Ok(0) | Err(_) => return Err(refuse("its port is not between 1 and 65535")),
                Ok(port) => Some(port),
            },
            Some(_) => return Err(refuse("its port is no number")),
        };
        Ok(Self { host, port })
    }
}

impl fmt::Display for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]", self.host)?;
        } else {
            f.write_str(&self.host)?;
        }
        self.port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

/// The name of a repository: `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`, one or more of these separated by `/`, at most 255
/// characters. As a path below a folder it can't leave it. Ordering is that of the text.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Repository(String);

impl Repository {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Repository {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        if text.len() > 255 {
            return Err(NameError::new("repository", text, "it is longer than 255 characters"));
        }
        if !text.split('/').all(is_component) {
            return Err(NameError::new("repository", text, "it is not a name that a registry takes"));
        }
        Ok(Self(text.to_owned()))
    }
}

fn is_component(text: &str) -> bool {
    let alphanumeric = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let mut separator = String::new();
    for byte in text.as_bytes() {
        match byte {
            b if alphanumeric(b) => {
                let fits = matches!(separator.as_str(), "" | "." | "_" | "__") || separator.bytes().all(|b| b == b'-');
                if !fits {
                    return false;
                }
                separator.clear();
            }
            b'.' | b'_' | b'-' => separator.push(char::from(*byte)),
            _ => return false,
        }
    }
    separator.is_empty() && text.as_bytes().first().is_some_and(alphanumeric)
}

/// A tag: `[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}`. Ordering is that of the text.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tag(String);

impl Tag {
    /// The tag.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Tag {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
        let fits = (1..=128).contains(&text.len())
            && text.bytes().all(|b| word(b) || b == b'.' || b == b'-')
            && text.bytes().next().is_some_and(word);
        if fits { Ok(Self(text.to_owned())) } else { Err(NameError::new("tag", text, "it is not a tag")) }
    }
}

/// What a manifest is asked for by.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ManifestName {
    /// A tag, which may move.
    Tag(Tag),
    /// A digest.
    Digest(Digest),
}

impl fmt::Display for ManifestName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tag(tag) => fmt::Display::fmt(tag, f),
            Self::Digest(digest) => fmt::Display::fmt(digest, f),
        }
    }
}

impl From<Digest> for ManifestName {
    fn from(digest: Digest) -> Self {
        Self::Digest(digest)
    }
}

impl From<Tag> for ManifestName {
    fn from(tag: Tag) -> Self {
        Self::Tag(tag)
    }
}

/// `HOST[:PORT]/REPOSITORY[:TAG][@sha256:DIGEST]`. The first component counts as a host only if it has a dot, a port, or
/// brackets, or is `localhost`, as everywhere; what has none is refused.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Reference {
    /// The registry.
    pub registry: Authority,
    /// The repository in it.
    pub repository: Repository,
    /// The tag, where one is named.
    pub tag: Option<Tag>,
    /// The digest, where one is named.
    pub digest: Option<Digest>,
}

impl Reference {
    /// What to ask the registry for: the digest if there is one, else the tag, else nothing.
    pub fn manifest(&self) -> Option<ManifestName> {
        self.digest.map(ManifestName::Digest).or_else(|| self.tag.clone().map(ManifestName::Tag))
    }

    /// The same repository and tag with this digest.
    #[must_use]
    pub fn pinned(&self, digest: Digest) -> Self {
        Self { digest: Some(digest), ..self.clone() }
    }
}

impl FromStr for Reference {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let refuse = |reason| NameError::new("reference", text, reason);
        let (name, digest) = match text.split_once('@') {
            Some((name, digest)) => (
                name,
                Some(
                    digest
                        .parse()
                        .map_err(|_| refuse("its digest is not `sha256:` and 64 lower-case hexadecimal digits"))?,
                ),
            ),
            None => (text, None),
        };
        let (host, rest) = name.split_once('/').ok_or_else(|| refuse("it names no registry"))?;
        if !(host.contains(['.', ':', '[']) || host.eq_ignore_ascii_case("localhost")) {
            return Err(refuse("it names no registry"));
        }
        let registry = host.parse::<Authority>().map_err(|error| refuse(error.reason))?;
        let (repository, tag) = match rest.split_once(':') {
            Some((repository, tag)) => {
                (repository, Some(tag.parse::<Tag>().map_err(|_| refuse("its tag is not one that a registry takes"))?))
            }
            None => (rest, None),
        };
        let repository =
            repository.parse::<Repository>().map_err(|_| refuse("its repository is not one that a registry takes"))?;
        Ok(Self { registry, repository, tag, digest })
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        self.tag.as_ref().map_or(Ok(()), |tag| write!(f, ":{tag}"))?;
        self.digest.as_ref().map_or(Ok(()), |digest| write!(f, "@{digest}"))
    }
}

/// `HOST[:PORT][/PREFIX]`: a registry, and the path in it that repositories are put below. Here the first component is
/// always the host.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Prefix {
    /// The registry.
    pub registry: Authority,
    /// The path below it.
    pub path: Option<Repository>,
}

impl Prefix {
    /// The repository of this name below the prefix.
    ///
    /// # Errors
    /// When both together are no repository name.
    pub fn repository(&self, name: &str) -> Result<Repository, NameError> {
        match &self.path {
            Some(path) => format!("{path}/{name}").parse(),
            None => name.parse(),
        }
    }
}

impl FromStr for Prefix {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let refuse = |reason| NameError::new("prefix", text, reason);
        if text.contains("://") {
            return Err(refuse("it has a scheme, which is chosen by flags"));
        }
        let (host, path) = match text.split_once('/') {
            Some((host, path)) => (host, Some(path)),
            None => (text, None),
        };
        Ok(Self {
            registry: host.parse::<Authority>().map_err(|error| refuse(error.reason))?,
            path: path.map(str::parse::<Repository>).transpose().map_err(|error| refuse(error.reason))?,
        })
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.registry, f)?;
        self.path.as_ref().map_or(Ok(()), |path| write!(f, "/{path}"))
    }
}

impl fmt::Display for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

macro_rules! as_its_text {
    ($($name:ident),*) => {$(
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
            }
        }
    )*};
}

as_its_text!(Authority, Repository, Tag, Reference, Prefix);

#[cfg(test)]
mod tests;
