//! A certificate from files for whoever serves something else by HTTPS, used and renewed as the registry's own is.

use std::path::PathBuf;
use std::sync::Arc;

use jiff::Timestamp;
use rustls::ServerConfig;

use super::error::ServeError;
use super::server::Tls;
use super::tls::{Certificate, Renewal};

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
