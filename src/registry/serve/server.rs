//! Sockets: listening, TLS, limits on what a connection may hold, and the orderly end.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::body::Body;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;
use tokio_util::task::TaskTracker;

use super::auth::Gate;
use super::collect::{CollectMode, CollectPolicy, Collected};
use super::connection::{Crowd, Greeted, Patient, Place, Requests};
use super::error::ServeError;
use super::manifest::Parts;
use super::metrics::Metrics;
use super::router::{MANIFESTS, Registry, answer, answer_supervisor};
use super::store::Store;
use super::tls::{Certificate, Renewal};
use super::token::TokenKey;
use super::upkeep::{keep_up, renew};
use super::upload::Uploads;
use crate::base::limits::Limits;
use crate::registry::Credentials;

/// Connections at a time; more wait in the kernel's queue.
const CONNECTIONS: usize = 512;
/// The same for who supervises the server.
const SUPERVISOR_CONNECTIONS: usize = 16;
/// For a handshake and for a request's headers: both are a few packets.
const GREETING: Duration = Duration::from_secs(15);
/// For requests under way when the server is told to stop.
const DRAIN: Duration = Duration::from_secs(30);
/// The pause after the kernel refused a connection, usually for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Bytes of the disk that are not for content, unless it is said otherwise: the folder's own small files need some.
const RESERVE: u64 = 64 << 20;

/// How connections are protected.
#[derive(Clone, Debug)]
pub enum Tls {
    /// By a certificate that is made on the first start; these names and addresses besides loopback and the one listened on.
    Own(Vec<String>),
    /// By this certificate chain and key (PEM files).
    Given {
        /// The chain, the server's certificate first.
        chain: PathBuf,
        /// Its key.
        key: PathBuf,
    },
    /// Not at all. Only on loopback addresses.
    PlainHttp,
}

/// What is served, and to whom. `Debug` shows no secret.
#[derive(Clone, Debug)]
pub struct ServeConfig {
    /// The folder of the content; made if it is not there.
    pub data: PathBuf,
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// How connections are protected.
    pub tls: Tls,
    /// The user that may do everything; without one, everybody may.
    pub credentials: Option<Credentials>,
    /// Bounds on content and waiting.
    pub limits: Limits,
    /// Whether a manifest may come without what it names.
    pub parts: Parts,
    /// What may be removed while the registry serves.
    pub collect: CollectPolicy,
    /// How often that is looked for; `None` for only when it is asked for.
    pub collect_every: Option<Duration>,
    /// Bytes of the disk that are not for content: below that the registry is not ready, and takes no blob.
    pub reserve_bytes: u64,
    /// Where `/metrics`, `/livez` and `/readyz` are answered too, over plain HTTP and to everybody.
    pub metrics: Option<SocketAddr>,
}

impl ServeConfig {
    /// A registry in this folder, at this address, for everybody: what a manifest names must be there, what nobody needs
    /// is looked for every hour and is a day old then.
    pub fn new(data: impl Into<PathBuf>, listen: SocketAddr, tls: Tls) -> Self {
        Self {
            data: data.into(),
            listen,
            tls,
            credentials: None,
            limits: Limits::default(),
            parts: Parts::Required,
            collect: CollectPolicy::default(),
            collect_every: Some(Duration::from_secs(3600)),
            reserve_bytes: RESERVE,
            metrics: None,
        }
    }
}

/// The embedded registry.
#[derive(Debug)]
pub struct Server;

/// A registry that is being served. Dropped, it stops at once; [`RunningServer::shutdown`] lets requests end.
#[derive(Debug)]
#[must_use = "dropped, the registry stops"]
pub struct RunningServer {
    address: SocketAddr,
    metrics_address: Option<SocketAddr>,
    registry: Arc<Registry>,
    certificate: Option<Arc<Certificate>>,
    ca_pem: Option<String>,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
}

/// Whom a listener is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Audience {
    Clients,
    Supervisor,
}

/// All that a connection needs.
#[derive(Clone)]
struct Desk {
    registry: Arc<Registry>,
    tls: Option<TlsAcceptor>,
    audience: Audience,
}

impl Server {
    /// Opens the folder, listens, and serves until the result is shut down or dropped.
    ///
    /// # Errors
    /// When the folder is in use or can't be written, the address is taken, a certificate is unusable, or plain HTTP is
    /// asked for on an address that others reach.
    pub async fn start(config: ServeConfig) -> Result<RunningServer, ServeError> {
        let ServeConfig { data, listen, mut tls, credentials, limits, parts, collect, collect_every, .. } = config;
        if matches!(tls, Tls::PlainHttp) && !listen.ip().is_loopback() {
            return Err(ServeError::PlainHttp { address: listen });
        }
        let store = Store::open(&data)?;
        let uploads = Uploads::open(&store).map_err(|source| ServeError::Folder { path: data.clone(), source })?;
        let (listener, address) = bind(listen).await?;
        let supervisor = match config.metrics {
            Some(address) => Some(bind(address).await?),
            None => None,
        };
        if let Tls::Own(names) = &mut tls {
            names.extend(host_name());
        }
        let now = jiff::Timestamp::now();
        let certificate = Certificate::open(tls, store.root(), address, now)?;
        let gate = match &credentials {
            None => Gate::Open,
            Some(credentials) => Gate::closed(credentials, TokenKey::open(store.root())?),
        };
        let metrics = Metrics::new(now);
        if let Some(certificate) = &certificate {
            metrics.certificate(certificate.end());
        }
        let registry = Arc::new(Registry {
            store: Arc::new(store),
            uploads,
            gate,
            limits,
            parts,
            reserve_bytes: config.reserve_bytes,
            collect,
            metrics: Arc::new(metrics),
            secured: certificate.is_some(),
            tasks: TaskTracker::new(),
            stopping: AtomicBool::new(false),
            manifests: Semaphore::new(MANIFESTS),
        });
        let tls = certificate.as_ref().map(Certificate::config).transpose()?.map(TlsAcceptor::from);
        let desk = Desk { registry: registry.clone(), tls, audience: Audience::Clients };
        let metrics_address = supervisor.as_ref().map(|(_, address)| *address);
        let supervised = supervisor.map(|(listener, _)| {
            (listener, Desk { registry: registry.clone(), tls: None, audience: Audience::Supervisor })
        });
        let upkeep = keep_up(registry.clone(), certificate.clone(), collect_every);
        let (stop, stopped) = oneshot::channel();
        let ca_pem = certificate.as_ref().and_then(|certificate| certificate.ca_pem());
        let task = tokio::spawn(run(listener, desk, supervised, upkeep, stopped));
        Ok(RunningServer { address, metrics_address, registry, certificate, ca_pem, stop: Some(stop), task })
    }
}

async fn bind(address: SocketAddr) -> Result<(TcpListener, SocketAddr), ServeError> {
    let failed = |source| ServeError::Listen { address, source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    Ok((listener, bound))
}

/// Removes what the policy lets go from a folder that no registry serves from.
///
/// # Errors
/// When the folder is in use, or can't be read or written.
pub fn collect(
    data: &Path,
    policy: CollectPolicy,
    mode: CollectMode,
    limits: &Limits,
) -> Result<Collected, ServeError> {
    let store = Store::open(data)?;
    let failed = |source| ServeError::Collect { path: data.to_owned(), source };
    store.collect(policy, mode, limits.manifest_bytes).map_err(failed)
}

impl RunningServer {
    /// The address that is listened on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where metrics are read, if that was asked for.
    pub fn metrics_address(&self) -> Option<SocketAddr> {
        self.metrics_address
    }

    /// The CA certificate (PEM) that clients need, where the registry made its own.
    pub fn ca_pem(&self) -> Option<&str> {
        self.ca_pem.as_deref()
    }

    /// Looks for a newer certificate now, instead of in a few seconds; whether one was taken into use.
    ///
    /// # Errors
    /// When there is one that can't be used. The one before stays.
    pub async fn reload_certificate(&self) -> Result<bool, ServeError> {
        let Some(certificate) = &self.certificate else { return Ok(false) };
        match renew(&self.registry, certificate).await {
            Renewal::Unchanged => Ok(false),
            Renewal::Used => Ok(true),
            Renewal::Refused(error) => Err(error),
        }
    }

    /// Takes no more connections, lets requests end for half a minute, and returns when all is closed.
    pub async fn shutdown(mut self) {
        if let Some(stop) = self.stop.take() {
            // The task may have ended already; then there is nothing to stop.
            let _ = stop.send(());
        }
        let _ = (&mut self.task).await;
    }
}

impl Drop for RunningServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn run(
    listener: TcpListener,
    desk: Desk,
    supervised: Option<(TcpListener, Desk)>,
    upkeep: impl Future<Output = ()> + Send + 'static,
    stop: oneshot::Receiver<()>,
) {
    let registry = desk.registry.clone();
    let mut beside = JoinSet::new();
    beside.spawn(upkeep);
    if let Some((listener, desk)) = supervised {
        beside.spawn(async move {
            accept(listener, desk, std::future::pending()).await;
        });
    }
    accept(listener, desk, async {
        let _ = stop.await;
        registry.stopping.store(true, Ordering::Relaxed);
    })
    .await;
    registry.tasks.close();
    registry.tasks.wait().await;
    beside.shutdown().await;
}

async fn accept(listener: TcpListener, desk: Desk, stop: impl Future<Output = ()>) {
    let places = Arc::new(Semaphore::new(match desk.audience {
        Audience::Clients => CONNECTIONS,
        Audience::Supervisor => SUPERVISOR_CONNECTIONS,
    }));
    let crowd = Crowd::default();
    let graceful = GracefulShutdown::new();
    let mut connections = JoinSet::new();
    let mut stop = std::pin::pin!(stop);
    loop {
        let accepted = async {
            let place = places.clone().acquire_owned().await.expect("the semaphore is never closed");
            listener.accept().await.map(|(stream, from)| (stream, from.ip().to_canonical(), place))
        };
        let (stream, from, place) = tokio::select! {
            () = &mut stop => break,
            Some(_) = connections.join_next() => continue,
            accepted = accepted => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            },
        };
        let Some(seat) = crowd.enter(from) else {
            desk.registry.metrics.refused_connection();
            continue;
        };
        connections.spawn(connection(stream, from, desk.clone(), graceful.watcher(), (place, seat)));
    }
    drop(listener);
    if tokio::time::timeout(DRAIN, graceful.shutdown()).await.is_err() {
        tracing::warn!("requests that did not end are cut off");
    }
    connections.shutdown().await;
}

async fn connection(
    stream: TcpStream,
    from: IpAddr,
    desk: Desk,
    watcher: Watcher,
    _places: (OwnedSemaphorePermit, Place),
) {
    /// Counted while the connection is open, however it ends.
    struct Counted(Arc<Metrics>);
    impl Drop for Counted {
        fn drop(&mut self) {
            self.0.connected(-1);
        }
    }
    let metrics = desk.registry.metrics.clone();
    metrics.connected(1);
    let _counted = Counted(metrics);
    // Answers are small or streamed in large pieces; waiting to fill packets only delays them.
    let _ = stream.set_nodelay(true);
    let stream = Patient::new(stream, desk.registry.limits.stall);
    match desk.tls.clone() {
        None => serve(stream, from, desk, watcher).await,
        Some(acceptor) => match tokio::time::timeout(GREETING, acceptor.accept(stream)).await {
            Ok(Ok(stream)) => serve(stream, from, desk, watcher).await,
            Ok(Err(error)) => tracing::debug!(%error, "a TLS handshake failed"),
            Err(_) => tracing::debug!("a TLS handshake took too long"),
        },
    }
}

async fn serve<S>(stream: S, from: IpAddr, desk: Desk, watcher: Watcher)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let stall = desk.registry.limits.stall;
    let requests = Requests::default();
    let stream = Greeted::new(stream, GREETING.min(stall), stall, requests.clone());
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(GREETING);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(64)
        .adaptive_window(true)
        .keep_alive_interval(GREETING)
        .keep_alive_timeout(GREETING);
    let service = service_fn(move |request: http::Request<Incoming>| {
        let (registry, audience) = (desk.registry.clone(), desk.audience);
        let answering = requests.begin();
        async move {
            let request = request.map(Body::new);
            let response = match audience {
                Audience::Clients => answer(registry, from, request).await,
                Audience::Supervisor => answer_supervisor(registry, request).await,
            };
            Ok::<_, Infallible>(response.map(|body| answering.with(body)))
        }
    });
    let connection = builder.serve_connection(TokioIo::new(stream), service).into_owned();
    if let Err(error) = watcher.watch(connection).await {
        tracing::debug!(%error, "a connection ended");
    }
}

/// This machine's name, where it is one that a certificate can carry.
fn host_name() -> Option<String> {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    name.parse::<crate::registry::Authority>().is_ok_and(|name| name.port().is_none()).then_some(name)
}
