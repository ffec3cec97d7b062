//! The agent's end.

use std::io::{self, BufWriter, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, ClientConnection, DigitallySignedStruct, Error, SignatureScheme, StreamOwned,
};
use zeroize::Zeroizing;

use super::{NAME, PATH};
use crate::base::digest::Digest;
use crate::base::file;
use crate::cluster::agent::collect::collect;
use crate::cluster::agent::error::AgentError;
use crate::cluster::agent::run::ResultAt;

/// Bytes of the file with the token.
const TOKEN_BYTES: u64 = 4096;
/// How long connecting may take in all. The allowance is there before the pod is, but a network may be slow to learn of it.
const CONNECT: Duration = Duration::from_secs(60);
/// How long one attempt may take.
const ATTEMPT: Duration = Duration::from_secs(5);
/// Between two attempts.
const PAUSE: Duration = Duration::from_secs(1);
/// How long the runner may take none of the bytes, or not answer.
const STALL: Duration = Duration::from_secs(60);
/// Bytes of an answer's head.
const HEAD: usize = 4096;
/// Bytes of one chunk of the body.
const CHUNK: usize = 64 << 10;

/// Where a result is sent to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination {
    /// The runner.
    pub address: SocketAddr,
    /// The scan's slot.
    pub id: String,
    /// The SHA-256 of the runner's certificate (DER).
    pub pin: Digest,
    /// The file with the scan's token.
    pub token: PathBuf,
}

/// Accepts exactly one certificate, whoever signed it and whatever it says.
#[derive(Debug)]
struct Pinned {
    pin: Digest,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        match Digest::of(end_entity) == self.pin {
            true => Ok(ServerCertVerified::assertion()),
            false => Err(Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure)),
        }
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("both ends speak TLS 1.3".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        // That it has the certificate's key.
        verify_tls13_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

impl Destination {
    /// Sends what the scanner left, which must have ended. Blocks.
    ///
    /// # Errors
    /// When the token can't be read, the runner can't be reached, it is somebody else, or it refuses.
    pub fn send(&self, spool: &Path, result: &ResultAt, limit: u64) -> Result<(), AgentError> {
        let failed = |source| AgentError::Upload { address: self.address, source };
        let token =
            file::read_capped(&self.token, TOKEN_BYTES).map_err(|error| failed(io::Error::other(error.to_string())))?;
        let token = Zeroizing::new(token);
        let mut stream = self.connect().map_err(failed)?;
        let head = Zeroizing::new(format!(
            "PUT {PATH}{} HTTP/1.1\r\nhost: {NAME}\r\nauthorization: Bearer {}\r\ntransfer-encoding: chunked\r\n\
             content-type: application/octet-stream\r\nexpect: 100-continue\r\nconnection: close\r\n\r\n",
            self.id,
            String::from_utf8_lossy(&token).trim()
        ));
        stream.write_all(head.as_bytes()).and_then(|()| stream.flush()).map_err(failed)?;
        // Nothing of the result goes out before the token is accepted (RFC 9110, 10.1.1).
        let refused = |code| failed(io::Error::other(format!("the runner answered {code}")));
        match status(&mut stream).map_err(failed)? {
            100 => {}
            code => return Err(refused(code)),
        }
        let mut body = BufWriter::with_capacity(CHUNK, Chunked(&mut stream));
        let sent = collect(spool, result, limit, &mut body);
        let flushed = if sent.is_ok() { body.flush() } else { Ok(()) };
        // What is still in it, where that failed, is not for anybody.
        let _ = body.into_parts();
        let ended = match (&sent, flushed) {
            (Ok(()), Ok(())) => stream.write_all(b"0\r\n\r\n").and_then(|()| stream.flush()),
            // What could not be sent whole has no end, so that it counts for nothing.
            (_, flushed) => flushed,
        };
        // Why the bytes were not taken is in the answer, if there is one.
        match (status(&mut stream), sent, ended) {
            (Ok(204), Ok(()), Ok(())) => Ok(()),
            (Ok(code), ..) => Err(refused(code)),
            (Err(_), Err(error), _) => Err(error),
            (Err(_), Ok(()), Err(error)) | (Err(error), Ok(()), Ok(())) => Err(failed(error)),
        }
    }

    fn connect(&self) -> io::Result<StreamOwned<ClientConnection, TcpStream>> {
        let began = Instant::now();
        let stream = loop {
            match TcpStream::connect_timeout(&self.address, ATTEMPT) {
                Ok(stream) => break stream,
                Err(error) if began.elapsed() + PAUSE >= CONNECT => return Err(error),
                Err(_) => std::thread::sleep(PAUSE),
            }
        };
        stream.set_read_timeout(Some(STALL))?;
        stream.set_write_timeout(Some(STALL))?;
        let config = configuration(self.pin).map_err(io::Error::other)?;
        let name = ServerName::try_from(NAME).map_err(io::Error::other)?;
        let mut connection = ClientConnection::new(config, name).map_err(io::Error::other)?;
        let mut stream = stream;
        while connection.is_handshaking() {
            connection.complete_io(&mut stream)?;
        }
        Ok(StreamOwned::new(connection, stream))
    }
}

/// TLS 1.3 with whoever has this certificate.
pub(super) fn configuration(pin: Digest) -> Result<Arc<ClientConfig>, Error> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        // Stricter than a CA: one certificate is accepted, by its digest.
        .with_custom_certificate_verifier(Arc::new(Pinned { pin, provider }))
        .with_no_client_auth();
    Ok(Arc::new(config))
}

/// The status of the next answer, which has no body that matters.
fn status(stream: &mut impl io::Read) -> io::Result<u16> {
    let wrong = || io::Error::new(io::ErrorKind::InvalidData, "the answer is none of HTTP");
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() >= HEAD {
            return Err(wrong());
        }
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    let line = String::from_utf8_lossy(&head);
    line.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)?.parse().ok()).ok_or_else(wrong)
}

/// Writes each piece as a chunk (RFC 9112, 7.1).
struct Chunked<W>(W);

impl<W: Write> Write for Chunked<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.is_empty() {
            // That would be the last chunk.
            return Ok(0);
        }
        write!(self.0, "{:x}\r\n", bytes.len())?;
        self.0.write_all(bytes)?;
        self.0.write_all(b"\r\n")?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}
