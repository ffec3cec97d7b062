//! A certificate from files for whoever serves something else by HTTPS, used and renewed as the registry's own is.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};

use super::error::ServeError;
use super::server::Tls;
use super::tls::{Certificate, Renewal};
use crate::base::file;

/// Bytes of a PEM file.
const PEM: u64 = 1 << 20;

/// A certificate that is read again when its files change. Clones are the same one.
#[derive(Clone, Debug)]
pub struct ServedCertificate(Arc<Certificate>);

impl ServedCertificate {
    /// The chain and the key (PEM) in these files.
    ///
    /// # Errors
    /// When they can't be read, or don't belong together.
    pub fn from_files(chain: PathBuf, key: PathBuf, now: Timestamp) -> Result<Self, ServeError> {
        let tls = Tls::Given { chain, key };
        // Neither folder nor address matter for a certificate that is given.
        let nowhere = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
        match Certificate::open(tls, std::path::Path::new("."), nowhere, now)? {
            Some(certificate) => Ok(Self(certificate)),
            None => Err(ServeError::Certificate { reason: "there is none".to_owned() }),
        }
    }

    /// TLS 1.2 or later, HTTP/1.1, with whatever certificate is in use when somebody connects.
    ///
    /// # Errors
    /// When the provider can't do it.
    pub fn config(&self) -> Result<Arc<ServerConfig>, ServeError> {
        let mut config = ServerConfig::clone(&*self.0.config()?);
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }

    /// The same, for nobody but clients whose certificate one of the CAs in this file (PEM) vouches for.
    ///
    /// # Errors
    /// When the file can't be read or has no certificate, or the provider can't do it.
    pub fn config_for_clients(&self, cas: &Path) -> Result<Arc<ServerConfig>, ServeError> {
        let bad = |reason: String| ServeError::Certificate { reason };
        let pem = file::read_capped(cas, PEM)?;
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(&pem) {
            let certificate = certificate.map_err(|_| bad(format!("`{}` is no PEM", cas.display())))?;
            roots.add(certificate).map_err(|error| bad(format!("`{}`: {error}", cas.display())))?;
        }
        if roots.is_empty() {
            return Err(bad(format!("there is no certificate in `{}`", cas.display())));
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
            .build()
            .map_err(|error| bad(error.to_string()))?;
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
            .map_err(|error| bad(error.to_string()))?
            .with_client_cert_verifier(clients)
            .with_cert_resolver(self.0.clone());
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }

    /// Takes newer files into use, if there are any.
    ///
    /// # Errors
    /// When there are, and they can't be used; then the certificate stays.
    pub fn renew(&self, now: Timestamp) -> Result<(), ServeError> {
        match self.0.renew(now) {
            Renewal::Unchanged | Renewal::Used => Ok(()),
            Renewal::Refused(error) => Err(error),
        }
    }
}
