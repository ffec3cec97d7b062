//! The runner's end.

use std::collections::HashMap;
use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hyper::body::{Body as _, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use rcgen::{CertificateParams, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, oneshot};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use zeroize::Zeroizing;

use super::{NAME, PATH};
use crate::base::digest::Digest;
use crate::base::text::brief;
use crate::cluster::agent::parcel::Receiver;
use crate::cluster::error::ClusterError;

/// Bytes of a token: 256 bits.
const TOKEN: usize = 32;
/// Bytes of a slot's name, which is no secret.
const ID: usize = 8;

/// Connections that are served at a time. A run has at most 64 scans at once.
const CONNECTIONS: usize = 128;
/// How long a handshake and a request's head may take.
const HEAD: Duration = Duration::from_secs(10);
/// How many refused attempts of one scan are told.
const TOLD: usize = 8;

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
    shared: Arc<Shared>,
    address: SocketAddr,
    pin: Digest,
    stop: CancellationToken,
    tasks: TaskTracker,
}

/// What connections look at.
struct Shared {
    slots: Mutex<HashMap<String, Slot>>,
    strangers: AtomicU64,
    patience: Patience,
    stop: CancellationToken,
}

struct Slot {
    token: Zeroizing<String>,
    /// Gone once somebody came with the token.
    waiting: Option<(Receiver, oneshot::Sender<Receiver>)>,
    refused: Arc<Mutex<Vec<String>>>,
}

/// The right to send one result, for one scan. When it is dropped, its token is dead, and an upload that goes on is broken off.
pub struct Ticket {
    shared: Arc<Shared>,
    id: String,
    token: Zeroizing<String>,
    refused: Arc<Mutex<Vec<String>>>,
    answer: oneshot::Receiver<Receiver>,
}

impl fmt::Debug for Uploads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Uploads").field("address", &self.0.address).finish_non_exhaustive()
    }
}

impl fmt::Debug for Ticket {
    /// Without the token.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ticket").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.stop.cancel();
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
        let port = listener.local_addr().map_err(|error| failed(error.into()))?.port();
        let (config, pin) = identity().map_err(failed)?;
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        let shared =
            Arc::new(Shared { slots: Mutex::default(), strangers: AtomicU64::new(0), patience, stop: stop.clone() });
        tasks.spawn(serve(listener, TlsAcceptor::from(Arc::new(config)), Arc::clone(&shared), tasks.clone()));
        let address = SocketAddr::new(address.ip(), port);
        Ok(Self(Arc::new(Inner { shared, address, pin, stop, tasks })))
    }

    /// Where pods reach it.
    pub fn address(&self) -> SocketAddr {
        self.0.address
    }

    /// The SHA-256 of its certificate (DER).
    pub fn pin(&self) -> Digest {
        self.0.pin
    }

    /// A ticket for one scan, whose parcel goes to this receiver.
    ///
    /// # Errors
    /// When the system gives no random bytes.
    pub fn expect(&self, receiver: Receiver) -> Result<Ticket, ClusterError> {
        let failed =
            |_| ClusterError::Uploads { address: self.0.address, source: "the system gave no random bytes".into() };
        let (mut token, mut id) = (Zeroizing::new([0; TOKEN]), [0; ID]);
        aws_lc_rs::rand::fill(token.as_mut()).map_err(failed)?;
        aws_lc_rs::rand::fill(&mut id).map_err(failed)?;
        let (token, id) = (Zeroizing::new(hex(token.as_ref())), hex(&id));
        let (tell, answer) = oneshot::channel();
        let refused = Arc::new(Mutex::new(Vec::new()));
        let slot = Slot { token: token.clone(), waiting: Some((receiver, tell)), refused: Arc::clone(&refused) };
        lock(&self.0.shared.slots).insert(id.clone(), slot);
        Ok(Ticket { shared: Arc::clone(&self.0.shared), id, token, refused, answer })
    }

    /// How many requests came that were for no scan that went on.
    pub fn strangers(&self) -> u64 {
        self.0.shared.strangers.load(Ordering::Relaxed)
    }

    /// Takes no more, and waits until every connection has ended.
    pub async fn close(&self) {
        self.0.stop.cancel();
        self.0.tasks.close();
        self.0.tasks.wait().await;
    }
}

impl Ticket {
    /// Names the scan's slot; no secret.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The token, for the secret that the pod mounts.
    pub(crate) fn token(&self) -> &str {
        &self.token
    }

    /// Waits until somebody came with the token and sent something, whole or not; gives what took it.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub async fn arrived(&mut self) -> Result<Receiver, ClusterError> {
        let gone =
            |_| ClusterError::OutputTruncated { detail: "the place where results are taken was closed".to_owned() };
        (&mut self.answer).await.map_err(gone)
    }

    /// Attempts for this scan that were refused, in words.
    pub fn refused(&self) -> Vec<String> {
        lock(&self.refused).clone()
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        lock(&self.shared.slots).remove(&self.id);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic elsewhere leaves what is in it as it was.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
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

async fn serve(listener: TcpListener, acceptor: TlsAcceptor, shared: Arc<Shared>, tasks: TaskTracker) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        // Who comes when all places are taken waits in the kernel's queue, which has an end.
        let next = async {
            let place = Arc::clone(&places).acquire_owned().await.ok()?;
            Some((listener.accept().await, place))
        };
        let (stream, place) = tokio::select! {
            () = shared.stop.cancelled() => return,
            next = next => match next {
                Some((Ok((stream, _)), place)) => (stream, place),
                // As when there are no more file descriptors: the next one may find some.
                Some((Err(_), _)) => {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
                None => return,
            },
        };
        let (acceptor, shared) = (acceptor.clone(), Arc::clone(&shared));
        tasks.spawn(async move {
            let stop = shared.stop.clone();
            tokio::select! {
                () = stop.cancelled() => {}
                () = connection(stream, acceptor, shared) => {}
            }
            drop(place);
        });
    }
}

/// One connection, which has one request.
async fn connection(stream: TcpStream, acceptor: TlsAcceptor, shared: Arc<Shared>) {
    let Ok(Ok(stream)) = tokio::time::timeout(HEAD, acceptor.accept(stream)).await else { return };
    let service = service_fn(move |request| {
        let shared = Arc::clone(&shared);
        async move { Ok::<_, std::convert::Infallible>(take(request, &shared).await) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_buf_size(64 << 10)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "an upload's connection ended");
    }
}

fn answer(status: StatusCode) -> Response<String> {
    let mut response = Response::new(String::new());
    *response.status_mut() = status;
    response
}

async fn take(request: Request<Incoming>, shared: &Shared) -> Response<String> {
    let (receiver, tell) = match admit(&request, shared) {
        Ok(both) => both,
        Err(status) => return answer(status),
    };
    let (receiver, status) = read(request.into_body(), receiver, &tell, shared.patience).await;
    if receiver.failure().is_some_and(|error| matches!(error, ClusterError::OutputTooLarge { .. })) {
        let _ = tell.send(receiver);
        return answer(StatusCode::PAYLOAD_TOO_LARGE);
    }
    let status = if receiver.failure().is_some() { StatusCode::BAD_REQUEST } else { status };
    // Nobody waits any more where the scan is over.
    let _ = tell.send(receiver);
    answer(status)
}

/// The receiver of the scan that this request is for, if its token is the right one and comes for the first time.
fn admit(request: &Request<Incoming>, shared: &Shared) -> Result<(Receiver, oneshot::Sender<Receiver>), StatusCode> {
    let stranger = |status| {
        shared.strangers.fetch_add(1, Ordering::Relaxed);
        Err(status)
    };
    let Some(id) = request.uri().path().strip_prefix(PATH) else { return stranger(StatusCode::NOT_FOUND) };
    let given = request.headers().get(hyper::header::AUTHORIZATION).map(|value| value.as_bytes());
    let given = given.and_then(|value| value.strip_prefix(b"Bearer ")).unwrap_or_default();
    let mut slots = lock(&shared.slots);
    let Some(slot) = slots.get_mut(id) else { return stranger(StatusCode::UNAUTHORIZED) };
    let refuse = |slot: &Slot, why: &str, status| {
        let mut refused = lock(&slot.refused);
        if refused.len() < TOLD {
            refused.push(format!("an upload was refused: {}", brief(why)));
        }
        Err(status)
    };
    if aws_lc_rs::constant_time::verify_slices_are_equal(given, slot.token.as_bytes()).is_err() {
        return refuse(slot, "it had not the scan's token", StatusCode::UNAUTHORIZED);
    }
    if request.method() != Method::PUT {
        return refuse(slot, "it had the scan's token and was no PUT", StatusCode::METHOD_NOT_ALLOWED);
    }
    match slot.waiting.take() {
        Some(both) => Ok(both),
        None => refuse(slot, "the scan's token came a second time", StatusCode::CONFLICT),
    }
}

/// Takes the body, until its end, or until there is something wrong with it.
async fn read(
    mut body: Incoming,
    mut receiver: Receiver,
    tell: &oneshot::Sender<Receiver>,
    patience: Patience,
) -> (Receiver, StatusCode) {
    let began = Instant::now();
    let mut came = 0_u64;
    loop {
        let next = std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx));
        let frame = tokio::select! {
            // The scan is over.
            () = closed(tell) => return (receiver, StatusCode::GONE),
            frame = tokio::time::timeout(patience.stall, next) => frame,
        };
        let data = match frame {
            Ok(None) => return (receiver, StatusCode::NO_CONTENT),
            Ok(Some(Ok(frame))) => frame.into_data().unwrap_or_default(),
            // Its framing says that it is cut.
            Ok(Some(Err(_))) => return (receiver, StatusCode::BAD_REQUEST),
            Err(_) => return (receiver, StatusCode::REQUEST_TIMEOUT),
        };
        came += data.len() as u64;
        receiver.take(&data);
        if receiver.failure().is_some() {
            return (receiver, StatusCode::BAD_REQUEST);
        }
        let allowed = patience.stall + Duration::from_secs(came / patience.least.max(1));
        if began.elapsed() > allowed {
            return (receiver, StatusCode::REQUEST_TIMEOUT);
        }
    }
}

/// Ends when nobody waits for the answer any more.
async fn closed(tell: &oneshot::Sender<Receiver>) {
    /// How often it is looked at.
    const LOOK: Duration = Duration::from_millis(500);
    while !tell.is_closed() {
        tokio::time::sleep(LOOK).await;
    }
}
