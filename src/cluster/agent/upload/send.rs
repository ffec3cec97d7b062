//! The agent's end.

use std::io::{self, BufWriter, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use backon::{BackoffBuilder as _, ExponentialBuilder};
use rustls::pki_types::ServerName;
use rustls::{ClientConnection, StreamOwned};
use zeroize::Zeroizing;

use super::{NAME, PATH, status as answer};
use crate::base::digest::Digest;
use crate::base::file;
use crate::base::tls::Verifier;
use crate::cluster::agent::collect::collect;
use crate::cluster::agent::error::AgentError;
use crate::cluster::agent::run::ResultAt;

/// Bytes of the file with the token.
const TOKEN_BYTES: u64 = 4096;
/// How long connecting may take, each time. The allowance is there before the pod is, but a network may be slow to learn of it.
const CONNECT: Duration = Duration::from_secs(5);
/// Between two attempts, at first. It doubles, with as much again by chance.
const PAUSE: Duration = Duration::from_millis(500);
/// Between two attempts, at most, but for chance.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
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

/// Why an upload did not come to its end.
struct Failed {
    error: AgentError,
    then: Then,
}

/// What may follow a failed upload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    /// Another one.
    Again,
    /// Nothing: what failed would fail again.
    Never,
    /// Nothing: the runner has a result.
    Settled,
}

impl Destination {
    /// Sends what the scanner left, which must have ended; where that breaks off, sends it again, until `patience` is over. Blocks.
    ///
    /// # Errors
    /// When the token or the result can't be read, the runner can't be reached, it is somebody else, or it refuses.
    pub fn send(&self, spool: &Path, result: &ResultAt, limit: u64, patience: Duration) -> Result<(), AgentError> {
        let began = Instant::now();
        let pauses = ExponentialBuilder::new().with_min_delay(PAUSE).with_max_delay(LONGEST_PAUSE).without_max_times();
        let mut pauses = pauses.with_jitter().build();
        // Whether all of it went out at some time, so that the runner may have it although it did not say so.
        let mut went_out = false;
        loop {
            let Failed { error, then } = match self.attempt(spool, result, limit, &mut went_out) {
                Ok(()) => return Ok(()),
                Err(failed) => failed,
            };
            let pause = pauses.next().unwrap_or(LONGEST_PAUSE);
            match then {
                Then::Settled if went_out => return Ok(()),
                Then::Again if began.elapsed() + pause < patience => std::thread::sleep(pause),
                Then::Again | Then::Never | Then::Settled => return Err(error),
            }
        }
    }

    fn attempt(&self, spool: &Path, result: &ResultAt, limit: u64, went_out: &mut bool) -> Result<(), Failed> {
        let failed = |source| AgentError::Upload { address: self.address, source };
        let never = |source| Failed { error: failed(source), then: Then::Never };
        let broken = |source| Failed { error: failed(source), then: Then::Again };
        let token = file::read_capped(&self.token, TOKEN_BYTES).map_err(|error| never(io::Error::other(error)))?;
        let token = Zeroizing::new(token);
        let mut stream = self.connect().map_err(|error| match is_refusal(&error) {
            true => never(error),
            false => broken(error),
        })?;
        let head = Zeroizing::new(format!(
            "PUT {PATH}{} HTTP/1.1\r\nhost: {NAME}\r\nauthorization: Bearer {}\r\ntransfer-encoding: chunked\r\n\
             content-type: application/octet-stream\r\nexpect: 100-continue\r\nconnection: close\r\n\r\n",
            self.id,
            String::from_utf8_lossy(&token).trim()
        ));
        stream.write_all(head.as_bytes()).and_then(|()| stream.flush()).map_err(broken)?;
        // Nothing of the result goes out before the token is accepted (RFC 9110, 10.1.1).
        let refused = |code: u16| {
            let then = match code {
                code if code == answer::SETTLED.as_u16() => Then::Settled,
                code if answer::may_repeat(code) => Then::Again,
                _ => Then::Never,
            };
            Failed { error: failed(io::Error::other(format!("the runner answered {code}"))), then }
        };
        match status(&mut stream).map_err(broken)? {
            100 => {}
            code => return Err(refused(code)),
        }
        let mut body = BufWriter::with_capacity(CHUNK, Chunked(&mut stream));
        let sent = collect(spool, result, limit, &mut body);
        let flushed = if sent.is_ok() { body.flush() } else { Ok(()) };
        // What is still in it, where that failed, is not for anybody.
        let _ = body.into_parts();
        let ended = match (&sent, flushed) {
            (Ok(()), Ok(())) => {
                *went_out = true;
                stream.write_all(b"0\r\n\r\n").and_then(|()| stream.flush())
            }
            // What could not be sent whole has no end, so that it counts for nothing.
            (_, flushed) => flushed,
        };
        // What can't be read here can't be read the next time.
        let sent = match sent {
            Err(AgentError::Send(source)) => Err(broken(source)),
            Err(error) => return Err(Failed { error, then: Then::Never }),
            Ok(()) => Ok(()),
        };
        // Why the bytes were not taken is in the answer, if there is one.
        match (status(&mut stream), sent, ended) {
            (Ok(204), Ok(()), Ok(())) => Ok(()),
            (Ok(code), ..) => Err(refused(code)),
            (Err(_), Err(failed), _) => Err(failed),
            (Err(_), Ok(()), Err(error)) | (Err(error), Ok(()), Ok(())) => Err(broken(error)),
        }
    }

    fn connect(&self) -> io::Result<StreamOwned<ClientConnection, TcpStream>> {
        let mut stream = TcpStream::connect_timeout(&self.address, CONNECT)?;
        stream.set_read_timeout(Some(STALL))?;
        stream.set_write_timeout(Some(STALL))?;
        let config = Verifier::pinned(self.pin).client().map_err(io::Error::other)?;
        let name = ServerName::try_from(NAME).map_err(io::Error::other)?;
        let mut connection = ClientConnection::new(config, name).map_err(io::Error::other)?;
        while connection.is_handshaking() {
            connection.complete_io(&mut stream)?;
        }
        Ok(StreamOwned::new(connection, stream))
    }
}

/// Whether it is another certificate, or none of TLS 1.3: whoever is there is not the runner that made this scan.
fn is_refusal(error: &io::Error) -> bool {
    let source = error.get_ref().and_then(|source| source.downcast_ref::<rustls::Error>());
    matches!(source, Some(rustls::Error::InvalidCertificate(_) | rustls::Error::PeerIncompatible(_)))
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
