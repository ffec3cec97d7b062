//! One TLS handshake with a server, as every connection of gapscan makes it, to see what comes of it. Nothing is sent.

use std::sync::Arc;
use std::time::Duration;

use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::base::tls::Verifier;

/// Whose word counts for a server's certificate.
#[derive(Clone, Debug)]
pub(super) enum Authorities {
    /// These certificates (DER).
    These(Vec<Vec<u8>>),
    /// Those of a file (PEM).
    Pem(Vec<u8>),
    /// Those of this system.
    System,
}

/// What came of it.
#[derive(Clone, Debug, Default)]
pub(super) struct Handshake {
    /// The server's certificate and those that came with it (DER); empty where it did not come so far.
    pub(super) chain: Vec<Vec<u8>>,
    /// The protocol and the suite that were agreed on; absent where none were.
    pub(super) agreed: Option<(String, String)>,
    /// Why there is no connection.
    pub(super) failure: Option<String>,
    /// Whether the failure is one of reaching the server at all.
    pub(super) silent: bool,
}

/// Shakes hands with the server at this address, whose certificate must be for `name`.
pub(super) async fn handshake(
    (host, port): (&str, u16),
    name: &str,
    authorities: &Authorities,
    patience: Duration,
) -> Handshake {
    let failed = |failure: String| Handshake { failure: Some(failure), ..Handshake::default() };
    let verifier = match verifier(authorities) {
        Ok(verifier) => verifier,
        Err(why) => return failed(why),
    };
    let config = match verifier.client() {
        Ok(config) => config,
        Err(error) => return failed(error.to_string()),
    };
    let name = match ServerName::try_from(name.to_owned()) {
        Ok(name) => name,
        Err(_) => return failed("its name is none that a certificate could be for".to_owned()),
    };
    let stream = match tokio::time::timeout(patience, TcpStream::connect((host, port))).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return Handshake { silent: true, ..failed(error.to_string()) },
        Err(_) => {
            return Handshake { silent: true, ..failed(format!("no connection within {} s", patience.as_secs())) };
        }
    };
    let connector = TlsConnector::from(config);
    let answer = tokio::time::timeout(patience, connector.connect(name, stream)).await;
    let chain = verifier.shown();
    match answer {
        Ok(Ok(stream)) => {
            let connection = stream.get_ref().1;
            let protocol = connection.protocol_version().map(|version| format!("{version:?}"));
            let suite = connection.negotiated_cipher_suite().map(|suite| format!("{:?}", suite.suite()));
            Handshake { chain, agreed: protocol.zip(suite), failure: None, silent: false }
        }
        Ok(Err(error)) => Handshake { chain, ..failed(error.to_string()) },
        Err(_) => Handshake { chain, ..failed(format!("no handshake within {} s", patience.as_secs())) },
    }
}

fn verifier(authorities: &Authorities) -> Result<Arc<Verifier>, String> {
    let mut roots = RootCertStore::empty();
    match authorities {
        Authorities::These(all) => {
            for one in all {
                roots.add(CertificateDer::from(one.clone())).map_err(|error| format!("its CA is unusable: {error}"))?;
            }
        }
        Authorities::Pem(pem) => {
            for one in CertificateDer::pem_slice_iter(pem) {
                let one = one.map_err(|error| format!("its CA is unusable: {error}"))?;
                roots.add(one).map_err(|error| format!("its CA is unusable: {error}"))?;
            }
        }
        Authorities::System => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    Verifier::vouched(roots).map_err(|error| format!("there is no CA to verify it with: {error}"))
}
