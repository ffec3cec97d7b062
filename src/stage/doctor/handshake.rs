//! One TLS handshake with a server, as every connection of gapscan makes it, to see what comes of it. Nothing is sent.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

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

/// Verifies as WebPKI says, and keeps what was shown.
#[derive(Debug)]
struct Witness {
    verifier: Arc<WebPkiServerVerifier>,
    shown: Mutex<Vec<Vec<u8>>>,
}

impl ServerCertVerifier for Witness {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let chain = std::iter::once(end_entity).chain(intermediates).take(16).map(|one| one.to_vec()).collect();
        *self.shown.lock().unwrap_or_else(PoisonError::into_inner) = chain;
        self.verifier.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verifier.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verifier.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verifier.supported_verify_schemes()
    }
}

/// Shakes hands with the server at this address, whose certificate must be for `name`.
pub(super) async fn handshake(
    (host, port): (&str, u16),
    name: &str,
    authorities: &Authorities,
    patience: Duration,
) -> Handshake {
    let failed = |failure: String| Handshake { failure: Some(failure), ..Handshake::default() };
    let (config, witness) = match configuration(authorities) {
        Ok(both) => both,
        Err(why) => return failed(why),
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
    let connector = TlsConnector::from(Arc::new(config));
    let answer = tokio::time::timeout(patience, connector.connect(name, stream)).await;
    let chain = witness.shown.lock().unwrap_or_else(PoisonError::into_inner).clone();
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

fn configuration(authorities: &Authorities) -> Result<(ClientConfig, Arc<Witness>), String> {
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
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
        .build()
        .map_err(|error| format!("there is no CA to verify it with: {error}"))?;
    let witness = Arc::new(Witness { verifier, shown: Mutex::default() });
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(|error| error.to_string())?
        .dangerous()
        // It verifies all that the usual one does, and only looks besides.
        .with_custom_certificate_verifier(Arc::clone(&witness) as Arc<dyn ServerCertVerifier>)
        .with_no_client_auth();
    Ok((config, witness))
}
