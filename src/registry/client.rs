//! A client for one registry (OCI distribution-spec 1.1).
//!
//! What a registry may do to us, and where it ends: other bytes than the digest names ([`Client::manifest`],
//! [`super::BlobReader`]); endless or huge answers (every document is capped, every blob has a length); an upload or a token
//! service on another host (`upload.rs`, `auth.rs`); a HEAD that lies (presence needs the right length, and what is pulled
//! is verified anyway); 201 and other bytes stored ([`Client::push_manifest`] reads back); silence (every wait has an end);
//! foreign layer addresses (no code here reads them); bad certificates (there is no switch to accept them).

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use oci_client::manifest::{
    IMAGE_MANIFEST_LIST_MEDIA_TYPE, IMAGE_MANIFEST_MEDIA_TYPE, OCI_IMAGE_INDEX_MEDIA_TYPE, OCI_IMAGE_MEDIA_TYPE,
};
use reqwest::header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE};
use reqwest::{Method, StatusCode};
use serde::Deserialize;
use url::Url;
use zeroize::Zeroizing;

use super::auth::{Authenticator, Scope};
use super::credentials::Credentials;
use super::error::{Action, RegistryError};
use super::http::{read_capped, text_header};
use super::reference::{Authority, ManifestName, Repository, Tag};
use super::upload::{OpenUpload, Upload, UploadMode};
use crate::base::digest::Digest;
use crate::base::limits::Limits;

/// Every kind of manifest that is asked for.
const MANIFEST_TYPES: [&str; 4] =
    [OCI_IMAGE_MEDIA_TYPE, OCI_IMAGE_INDEX_MEDIA_TYPE, IMAGE_MANIFEST_MEDIA_TYPE, IMAGE_MANIFEST_LIST_MEDIA_TYPE];
/// Bytes of one page of a list of tags.
const TAG_PAGE: u64 = 4 << 20;
/// Tags of one repository; more is a registry that never ends its list.
const TAGS: usize = 100_000;

/// How a registry is reached. TLS is 1.2 or newer, and can't be told to accept a bad certificate.
#[derive(Clone, Debug, Default)]
pub enum Transport {
    /// TLS, trusting the CAs of this machine.
    #[default]
    Tls,
    /// TLS, trusting these CAs (PEM) and no other.
    TlsWithCa(Vec<u8>),
    /// No TLS. Only for this machine's loopback addresses; [`Client::new`] refuses any other host.
    PlainHttp,
}

/// How often what passes is tried again.
#[derive(Clone, Copy, Debug)]
pub struct Retry {
    /// How often it is repeated after the first failure.
    pub repeats: usize,
    /// The pause before the first repeat; each next one is twice as long, plus up to that much again at random.
    pub first_pause: Duration,
}

impl Default for Retry {
    /// Five repeats over about 10 to 20 seconds: a registry that restarts is back by then.
    fn default() -> Self {
        Self { repeats: 5, first_pause: Duration::from_millis(300) }
    }
}

/// A client certificate with its key, for a registry that asks for one (mutual TLS). `Debug` shows neither.
#[derive(Clone)]
pub struct Identity {
    pem: Arc<Zeroizing<Vec<u8>>>,
}

impl Identity {
    /// The certificate, with the chain that belongs to it, and its unencrypted key (PKCS#8, SEC1 or PKCS#1); both PEM.
    pub fn new(certificate: &[u8], key: &[u8]) -> Self {
        let pem = [key, b"\n", certificate].concat();
        Self { pem: Arc::new(Zeroizing::new(pem)) }
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").finish_non_exhaustive()
    }
}

/// All that a client needs to know. `Debug` shows no secret.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// The registry.
    pub registry: Authority,
    /// How it is reached.
    pub transport: Transport,
    /// Who asks.
    pub credentials: Option<Credentials>,
    /// The certificate that this client shows, where TLS is used.
    pub identity: Option<Identity>,
    /// Hosts besides the registry that credentials may be sent to for a token.
    pub token_hosts: Vec<Authority>,
    /// How blobs are sent.
    pub upload: Upload,
    /// Bounds on answers and waiting.
    pub limits: Limits,
    /// How often what passes is tried again.
    pub retry: Retry,
}

impl ClientConfig {
    /// TLS with this machine's CAs, no credentials, default limits.
    pub fn new(registry: Authority) -> Self {
        Self {
            registry,
            transport: Transport::default(),
            credentials: None,
            identity: None,
            token_hosts: Vec::new(),
            upload: Upload::default(),
            limits: Limits::default(),
            retry: Retry::default(),
        }
    }
}

/// A client for one registry. Clones share connections and tokens.
#[derive(Clone)]
pub struct Client {
    pub(super) inner: Arc<Inner>,
}

pub(super) struct Inner {
    pub(super) registry: Authority,
    pub(super) origin: Url,
    pub(super) http: reqwest::Client,
    pub(super) auth: Authenticator,
    pub(super) upload: UploadMode,
    pub(super) limits: Limits,
    pub(super) retry: Retry,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("registry", &self.inner.registry).finish_non_exhaustive()
    }
}

/// A manifest as the registry sent it, byte for byte.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManifestBody {
    /// The bytes.
    pub bytes: Vec<u8>,
    /// The media type that the registry names, without parameters.
    pub media_type: String,
    /// The digest of the bytes, computed here.
    pub digest: Digest,
}

/// What came of asking a registry to take a blob from another of its repositories.
#[derive(Debug)]
pub enum Mount {
    /// The blob is there now.
    Mounted,
    /// The registry does not do that, or does not have the blob there: it must be pushed, and this upload was opened for it.
    Declined(OpenUpload),
}

#[derive(Deserialize)]
struct TagList {
    /// Some registries write `null` for a repository without tags.
    #[serde(default)]
    tags: Option<Vec<String>>,
}

impl Client {
    /// A client. Nothing is sent yet.
    ///
    /// # Errors
    /// When the CA certificates are unusable, or plain HTTP is asked for beyond this machine.
    pub fn new(config: ClientConfig) -> Result<Self, RegistryError> {
        let ClientConfig { registry, transport, credentials, identity, mut token_hosts, upload, limits, retry } =
            config;
        let setup = |source| RegistryError::Setup { registry: registry.clone(), source };
        // An error means that some provider is the default already; the tree holds only this one.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("gapscan/", env!("CARGO_PKG_VERSION")))
            .tls_version_min(reqwest::tls::Version::TLS_1_2)
            .redirect(reqwest::redirect::Policy::none())
            .referer(false)
            // A large body costs the client a third of the time that it costs over HTTP/2, whose flow control and frames
            // gain nothing where one blob goes over one connection.
            .http1_only()
            // Repeats are decided in one place, here.
            .retry(reqwest::retry::never())
            .connect_timeout(limits.connect);
        if registry.is_loopback() {
            builder = builder.no_proxy();
        }
        let scheme = match &transport {
            Transport::Tls => "https",
            Transport::TlsWithCa(pem) => {
                let bad = |reason: String| RegistryError::Ca { registry: registry.clone(), reason };
                let certificates =
                    reqwest::Certificate::from_pem_bundle(pem).map_err(|_| bad("they are no PEM".to_owned()))?;
                if certificates.is_empty() {
                    return Err(bad("there is none in the file".to_owned()));
                }
                builder = builder.tls_certs_only(certificates);
                "https"
            }
            Transport::PlainHttp if registry.is_loopback() => "http",
            Transport::PlainHttp => return Err(RegistryError::PlainHttp { registry }),
        };
        if let Some(identity) = identity {
            let unusable = |_| RegistryError::ClientCertificate { registry: registry.clone() };
            builder = builder.identity(reqwest::Identity::from_pem(&identity.pem).map_err(unusable)?);
        }
        let http = builder.build().map_err(|source| match transport {
            Transport::TlsWithCa(_) => {
                RegistryError::Ca { registry: registry.clone(), reason: "one of them is no certificate".to_owned() }
            }
            Transport::Tls | Transport::PlainHttp => setup(source),
        })?;
        // Docker Hub is the one registry whose API lives elsewhere than its name says.
        let address = if registry.host() == "docker.io" {
            token_hosts.push("auth.docker.io".parse()?);
            "registry-1.docker.io".parse()?
        } else {
            registry.clone()
        };
        let origin = Url::parse(&format!("{scheme}://{address}")).map_err(|error| RegistryError::Protocol {
            action: Action::new(format!("prepare the connection to registry `{registry}`")),
            reason: error.to_string(),
        })?;
        let auth = Authenticator::new(registry.clone(), origin.clone(), credentials, token_hosts);
        Ok(Self {
            inner: Arc::new(Inner { registry, origin, http, auth, upload: UploadMode::new(upload), limits, retry }),
        })
    }

    /// The registry.
    pub fn registry(&self) -> &Authority {
        &self.inner.registry
    }

    pub(super) fn pull_scope(repository: &Repository) -> Scope {
        Scope(vec![format!("repository:{repository}:pull")])
    }

    pub(super) fn push_scope(repository: &Repository) -> Scope {
        Scope(vec![format!("repository:{repository}:pull,push")])
    }

    pub(super) fn action(
        &self,
        verb: &str,
        object: impl fmt::Display,
        preposition: &str,
        repository: &Repository,
    ) -> Action {
        Action::at(verb, object, preposition, &self.inner.registry, repository)
    }

    /// Asks whether the registry is there, speaks the protocol and accepts the credentials.
    ///
    /// # Errors
    /// When it can't be reached, is no registry, or refuses.
    pub async fn ping(&self) -> Result<(), RegistryError> {
        let action = Action::new(format!("reach registry `{}`", self.inner.registry));
        self.ask(&action, &Scope::default(), &[StatusCode::OK], Method::GET, self.url(""), |request| request)
            .await
            .map(|_| ())
    }

    /// The manifest of this name. By digest, its bytes have that digest; by tag, the digest is that of the bytes.
    ///
    /// # Errors
    /// When there is none ([`RegistryError::is_not_found`]), it is too large, or its bytes are others than the digest, or
    /// than the registry itself says.
    pub async fn manifest(&self, repository: &Repository, name: &ManifestName) -> Result<ManifestBody, RegistryError> {
        let action = self.action("pull manifest", name, "from", repository);
        let limit = self.inner.limits.manifest_bytes;
        self.retry(|| async {
            let response = self.manifest_answer(Method::GET, &action, repository, name).await?;
            let media_type = media_type(&response);
            let claimed = claimed_digest(&response);
            let bytes = read_capped(response, limit, &action, &self.inner.limits).await?;
            let digest = Digest::of(&bytes);
            let expected = match name {
                ManifestName::Digest(expected) => Some(*expected),
                ManifestName::Tag(_) => claimed,
            };
            if let Some(expected) = expected.filter(|expected| *expected != digest) {
                return Err(RegistryError::Digest { action: action.clone(), expected, found: digest });
            }
            let media_type = media_type.ok_or_else(|| RegistryError::Protocol {
                action: action.clone(),
                reason: "the answer has no Content-Type".to_owned(),
            })?;
            Ok(ManifestBody { bytes, media_type, digest })
        })
        .await
    }

    async fn manifest_answer(
        &self,
        method: Method,
        action: &Action,
        repository: &Repository,
        name: &ManifestName,
    ) -> Result<reqwest::Response, RegistryError> {
        let url = self.url(&format!("{repository}/manifests/{name}"));
        let accept = MANIFEST_TYPES.join(", ");
        let response = self
            .send(action, &Self::pull_scope(repository), method, url, |request| request.header(ACCEPT, &accept))
            .await?;
        if response.status() == StatusCode::OK { Ok(response) } else { Err(self.refusal(response, action).await) }
    }

    /// The digest that a tag points to now, as the registry says; what is then pulled by it is verified.
    ///
    /// # Errors
    /// When there is no such tag, or the registry can't be asked.
    pub async fn resolve(&self, repository: &Repository, tag: &Tag) -> Result<Digest, RegistryError> {
        let name = ManifestName::Tag(tag.clone());
        let action = self.action("resolve tag", tag, "in", repository);
        let said = self
            .retry(|| async {
                let response = self.manifest_answer(Method::HEAD, &action, repository, &name).await?;
                Ok(claimed_digest(&response))
            })
            .await?;
        match said {
            Some(digest) => Ok(digest),
            // The header is optional; the bytes say it too.
            None => Ok(self.manifest(repository, &name).await?.digest),
        }
    }

    /// Whether the repository has this manifest, as the registry says.
    ///
    /// # Errors
    /// When the registry can't be asked.
    pub async fn manifest_exists(&self, repository: &Repository, digest: &Digest) -> Result<bool, RegistryError> {
        let name = ManifestName::Digest(*digest);
        let action = self.action("look for manifest", digest, "in", repository);
        let answer = self
            .retry(|| async { self.manifest_answer(Method::HEAD, &action, repository, &name).await.map(|_| ()) })
            .await;
        match answer {
            Ok(()) => Ok(true),
            Err(error) if error.is_not_found() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Whether the repository has this blob, as the registry says, with this many bytes. A blob of another length, or of
    /// none that is told, counts as absent: pushing it again is always right.
    ///
    /// # Errors
    /// When the registry can't be asked.
    pub async fn blob_exists(
        &self,
        repository: &Repository,
        digest: &Digest,
        size: u64,
    ) -> Result<bool, RegistryError> {
        let action = self.action("look for blob", digest, "in", repository);
        let url = self.url(&format!("{repository}/blobs/{digest}"));
        let expected = [StatusCode::OK, StatusCode::NOT_FOUND];
        let response =
            self.ask(&action, &Self::pull_scope(repository), &expected, Method::HEAD, url, |request| request).await?;
        let length = text_header(response.headers(), CONTENT_LENGTH.as_str()).and_then(|text| text.parse::<u64>().ok());
        Ok(response.status() == StatusCode::OK && length == Some(size))
    }

    /// Stores a manifest, byte for byte, under a digest or a tag, and reads it back.
    ///
    /// # Errors
    /// When the bytes don't have the digest, the registry refuses them, or has other bytes afterwards.
    pub async fn push_manifest(
        &self,
        repository: &Repository,
        name: &ManifestName,
        media_type: &str,
        bytes: &[u8],
    ) -> Result<Digest, RegistryError> {
        let action = self.action("push manifest", name, "to", repository);
        let digest = Digest::of(bytes);
        if let ManifestName::Digest(expected) = name
            && *expected != digest
        {
            return Err(RegistryError::Digest { action, expected: *expected, found: digest });
        }
        let url = self.url(&format!("{repository}/manifests/{name}"));
        let body = bytes::Bytes::copy_from_slice(bytes);
        let scope = Self::push_scope(repository);
        let response = self
            .ask(&action, &scope, &[StatusCode::CREATED], Method::PUT, url, |request| {
                request.header(CONTENT_TYPE, media_type).body(body.clone())
            })
            .await?;
        if let Some(found) = claimed_digest(&response).filter(|found| *found != digest) {
            return Err(RegistryError::Digest { action, expected: digest, found });
        }
        let found = self.manifest(repository, name).await?.digest;
        if found != digest {
            return Err(RegistryError::Digest { action, expected: digest, found });
        }
        Ok(digest)
    }

    /// All tags of a repository, sorted; none for a repository that is not there.
    ///
    /// # Errors
    /// When the registry can't be asked, or its list has no end.
    pub async fn tags(&self, repository: &Repository) -> Result<Vec<Tag>, RegistryError> {
        let action = self.action("list", "tags", "of", repository);
        let protocol = |reason: &str| RegistryError::Protocol { action: action.clone(), reason: reason.to_owned() };
        let mut tags = Vec::new();
        let mut url = self.url(&format!("{repository}/tags/list"));
        loop {
            let expected = [StatusCode::OK, StatusCode::NOT_FOUND];
            let scope = Self::pull_scope(repository);
            let response = self.ask(&action, &scope, &expected, Method::GET, url.clone(), |request| request).await?;
            if response.status() == StatusCode::NOT_FOUND {
                return Ok(Vec::new());
            }
            let next = text_header(response.headers(), "link").and_then(next_page).map(str::to_owned);
            let bytes = read_capped(response, TAG_PAGE, &action, &self.inner.limits).await?;
            let page: TagList =
                serde_json::from_slice(&bytes).map_err(|_| protocol("the answer is no list of tags"))?;
            let page = page.tags.unwrap_or_default();
            let empty = page.is_empty();
            for tag in page {
                tags.push(tag.parse()?);
            }
            match next {
                Some(next) if !empty && tags.len() <= TAGS => {
                    url = url.join(&next).map_err(|_| protocol("the next page has no address"))?;
                    if url.origin() != self.inner.origin.origin() {
                        return Err(protocol("the next page is on another host"));
                    }
                }
                Some(_) => return Err(protocol("the list of tags has no end")),
                None => break,
            }
        }
        tags.sort();
        tags.dedup();
        Ok(tags)
    }
}

fn media_type(response: &reqwest::Response) -> Option<String> {
    let text = text_header(response.headers(), CONTENT_TYPE.as_str())?;
    Some(text.split(';').next().unwrap_or(text).trim().to_owned())
}

/// The digest that the registry names for its answer, if it is one that gapscan uses.
pub(super) fn claimed_digest(response: &reqwest::Response) -> Option<Digest> {
    text_header(response.headers(), "docker-content-digest")?.parse().ok()
}

/// The address of the next page (RFC 8288, `rel="next"`).
pub(super) fn next_page(link: &str) -> Option<&str> {
    link.split(',').find_map(|link| {
        let (address, parameters) = link.trim().strip_prefix('<')?.split_once('>')?;
        parameters.split(';').any(|p| matches!(p.trim(), "rel=\"next\"" | "rel=next")).then_some(address)
    })
}

#[cfg(test)]
mod tests;
