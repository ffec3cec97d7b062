//! Verifying a server's certificate in the two ways that need more than a CA to trust: by its digest alone, or by a CA while
//! keeping what was shown.
//!
//! What a hostile server may do, and where it ends: show another certificate than the pinned one, or show that one without having
//! its key (the handshake fails, and nothing was sent); show certificates without number (only so many are kept). rustls has
//! nothing older than TLS 1.2.

use std::sync::{Arc, Mutex, PoisonError};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{VerifierBuilderError, WebPkiServerVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

use super::digest::Digest;

/// How many certificates of a server are kept.
const SHOWN: usize = 16;

/// Which certificate is accepted.
#[derive(Debug)]
enum Rule {
    /// The one with this SHA-256 (DER), whoever signed it and whatever it says: stricter than any CA.
    Pinned(Digest),
    /// What WebPKI says of it.
    Vouched(Arc<WebPkiServerVerifier>),
}

/// Decides about a server's certificate, and remembers what it showed.
#[derive(Debug)]
pub(crate) struct Verifier {
    rule: Rule,
    provider: Arc<CryptoProvider>,
    shown: Mutex<Vec<Vec<u8>>>,
}

impl Verifier {
    /// Accepts the certificate with this digest and no other, by TLS 1.3 alone: both ends are gapscan.
    pub(crate) fn pinned(pin: Digest) -> Arc<Self> {
        Arc::new(Self { rule: Rule::Pinned(pin), provider: provider(), shown: Mutex::default() })
    }

    /// Accepts what one of these vouches for, as every other connection of gapscan does.
    ///
    /// # Errors
    /// When there are none.
    pub(crate) fn vouched(roots: RootCertStore) -> Result<Arc<Self>, VerifierBuilderError> {
        let provider = provider();
        let rule = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider)).build()?;
        Ok(Arc::new(Self { rule: Rule::Vouched(rule), provider, shown: Mutex::default() }))
    }

    /// A client that asks this verifier.
    ///
    /// # Errors
    /// When the provider has not what these versions of TLS need.
    pub(crate) fn client(self: &Arc<Self>) -> Result<Arc<ClientConfig>, Error> {
        let versions: &[&rustls::SupportedProtocolVersion] = match self.rule {
            Rule::Pinned(_) => &[&rustls::version::TLS13],
            Rule::Vouched(_) => &[&rustls::version::TLS13, &rustls::version::TLS12],
        };
        let config = ClientConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_protocol_versions(versions)?
            .dangerous()
            // One rule is stricter than the usual one, and the other is the usual one.
            .with_custom_certificate_verifier(Arc::clone(self) as Arc<dyn ServerCertVerifier>)
            .with_no_client_auth();
        Ok(Arc::new(config))
    }

    /// The server's certificate and those that came with it (DER), accepted or not; empty where none came.
    pub(crate) fn shown(&self) -> Vec<Vec<u8>> {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let chain = std::iter::once(end_entity).chain(intermediates).take(SHOWN).map(|one| one.to_vec()).collect();
        *self.shown.lock().unwrap_or_else(PoisonError::into_inner) = chain;
        match &self.rule {
            Rule::Pinned(pin) if Digest::of(end_entity) == *pin => Ok(ServerCertVerified::assertion()),
            Rule::Pinned(_) => Err(Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure)),
            Rule::Vouched(usual) => {
                usual.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
            }
        }
    }

    // That it has the certificate's key.
    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
