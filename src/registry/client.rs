//! A client for one registry (OCI distribution-spec 1.1).
//!
//! What a registry may do to us, and where it ends: other bytes than the digest names ([`Client::manifest`],
//! [`super::BlobReader`]); endless or huge answers (every document is capped, every blob has a length); an upload or a token
//! service on another host (`upload/session.rs`, `auth.rs`); a HEAD that lies (presence needs the right length, and what is pulled
//! is verified anyway); 201 and other bytes stored ([`Client::push_manifest`] reads back); silence (every wait has an end);
//! foreign layer addresses (no code here reads them); bad certificates (there is no switch to accept them).

mod config;
mod manifests;
mod presence;
mod tags;

use std::fmt;
use std::sync::Arc;

use reqwest::{Method, StatusCode};
use url::Url;

use super::auth::{Authenticator, Scope};
use super::error::{Action, RegistryError};
use super::reference::{Authority, Repository};
use super::upload::{UploadMode, WindowSpace};
use crate::base::limits::Limits;

pub use config::{ClientConfig, Identity, Retry, Transport};
pub use manifests::ManifestBody;
pub(super) use manifests::claimed_digest;
pub(super) use tags::next_page;

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
    pub(super) window_space: WindowSpace,
    pub(super) limits: Limits,
    pub(super) retry: Retry,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("registry", &self.inner.registry).finish_non_exhaustive()
    }
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
            builder = builder.identity(identity.for_tls().map_err(unusable)?);
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
        let (upload, window_space) = (UploadMode::new(upload), WindowSpace::default());
        Ok(Self { inner: Arc::new(Inner { registry, origin, http, auth, upload, window_space, limits, retry }) })
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
}

#[cfg(test)]
mod tests;
