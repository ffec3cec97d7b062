//! The runner's end: where it listens, and who is sent to. What comes in is [`super::slot`]'s.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::{Request, Response, StatusCode};
use rcgen::{CertificateParams, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::NAME;
use super::slot::{Desk, Ticket};
use crate::base::digest::Digest;
use crate::base::listener::{Listener, answer_one, greeted};
use crate::cluster::agent::parcel::Receiver;
use crate::cluster::error::ClusterError;

/// Connections that are served at a time. A run has at most 64 scans at once.
const CONNECTIONS: usize = 128;

/// How patient the receiver is with a body.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// How long the sender may be silent.
    pub(super) stall: Duration,
    /// Bytes a second that are the least on the whole, after a first `stall`.
    pub(super) least: u64,
}

impl Default for Patience {
    fn default() -> Self {
        // Slower than any network that a cluster works on; a gigabyte may take four hours, which the scan's own deadline ends.
        Self { stall: Duration::from_secs(30), least: 64 << 10 }
    }
}

/// A place where results are taken for one run. Clones are the same place; it closes when [`Uploads::close`] is called, or with
/// the last clone.
#[derive(Clone)]
pub struct Uploads(Arc<Inner>);

struct Inner {
    desk: Arc<Desk>,
    listener: Listener,
    address: SocketAddr,
    pin: Digest,
}

impl fmt::Debug for Uploads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Uploads").field("address", &self.0.address).finish_non_exhaustive()
    }
}

impl Uploads {
    /// Listens at the address that pods reach this machine at, with a key and a certificate that are only ever in memory. Where
    /// the address is not this machine's own, as behind a service, it listens on that port of all addresses.
    ///
    /// # Errors
    /// When nobody can listen there.
    pub async fn open(address: SocketAddr) -> Result<Self, ClusterError> {
        Self::open_with(address, Patience::default()).await
    }

    pub(super) async fn open_with(address: SocketAddr, patience: Patience) -> Result<Self, ClusterError> {
        let failed = |source: Box<dyn std::error::Error + Send + Sync>| ClusterError::Uploads { address, source };
        let listener = match TcpListener::bind(address).await {
            Ok(listener) => listener,
            Err(error) if error.kind() == std::io::ErrorKind::AddrNotAvailable => {
                let any = match address {
                    SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
                    SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
                };
                TcpListener::bind(SocketAddr::new(any, address.port())).await.map_err(|error| failed(error.into()))?
            }
            Err(error) => return Err(failed(error.into())),
        };
        let (config, pin) = identity().map_err(failed)?;
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let desk = Arc::new(Desk::new(patience));
        let served = Arc::clone(&desk);
        let each = move |stream| {
            let (acceptor, desk) = (acceptor.clone(), Arc::clone(&served));
            async move {
                let Some(stream) = greeted(stream, &acceptor).await else { return };
                answer_one(stream, |request: Request<Incoming>| {
                    let desk = Arc::clone(&desk);
                    async move { answer(desk.take(request).await) }
                })
                .await;
            }
        };
        let listener = Listener::begin(listener, CONNECTIONS, each).map_err(|error| failed(error.into()))?;
        let address = SocketAddr::new(address.ip(), listener.address().port());
        Ok(Self(Arc::new(Inner { desk, listener, address, pin })))
    }

    /// Where pods reach it.
    pub fn address(&self) -> SocketAddr {
        self.0.address
    }

    /// The SHA-256 of its certificate (DER).
    pub fn pin(&self) -> Digest {
        self.0.pin
    }

    /// A ticket for one scan. Each of its uploads goes to a receiver of its own, which `receiver` makes.
    ///
    /// # Errors
    /// When the system gives no random bytes.
    pub fn expect(&self, receiver: impl Fn() -> Receiver + Send + 'static) -> Result<Ticket, ClusterError> {
        let failed =
            |_| ClusterError::Uploads { address: self.0.address, source: "the system gave no random bytes".into() };
        self.0.desk.expect(Box::new(receiver)).map_err(failed)
    }

    /// How many requests came that were for no scan that went on.
    pub fn strangers(&self) -> u64 {
        self.0.desk.strangers()
    }

    /// Takes no more, and waits until every connection has ended.
    pub async fn close(&self) {
        self.0.listener.close().await;
    }
}

/// A key and a certificate of its own for this run, and the certificate's digest.
fn identity() -> Result<(ServerConfig, Digest), Box<dyn std::error::Error + Send + Sync>> {
    let key = KeyPair::generate()?;
    let certificate = CertificateParams::new(vec![NAME.to_owned()])?.self_signed(&key)?.der().clone();
    let pin = Digest::of(&certificate);
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        // Both ends are gapscan.
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_no_client_auth()
        .with_single_cert(vec![certificate], PrivateKeyDer::Pkcs8(key.serialize_der().into()))?;
    Ok((config, pin))
}

fn answer(status: StatusCode) -> Response<String> {
    let mut response = Response::new(String::new());
    *response.status_mut() = status;
    response
}
