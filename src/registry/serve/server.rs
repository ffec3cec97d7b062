//! Sockets: listening, TLS, limits on what a connection may hold, and the orderly end.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;

use super::auth::Gate;
use super::error::ServeError;
use super::router::{Registry, router};
use super::store::Store;
use super::tls;
use super::upload::Uploads;
use crate::base::limits::Limits;
use crate::registry::Credentials;

/// Connections at a time; more wait in the kernel's queue.
const CONNECTIONS: usize = 512;
/// For a handshake and for a request's headers: both are a few packets.
const GREETING: Duration = Duration::from_secs(15);
/// For requests under way when the server is told to stop.
const DRAIN: Duration = Duration::from_secs(30);
/// The pause after the kernel refused a connection, usually for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

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
}

/// The embedded registry.
#[derive(Debug)]
pub struct Server;

/// A registry that is being served. Dropped, it stops at once; [`RunningServer::shutdown`] lets requests end.
#[derive(Debug)]
#[must_use = "dropped, the registry stops"]
pub struct RunningServer {
    address: SocketAddr,
    ca_pem: Option<String>,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
}

impl Server {
    /// Opens the folder, listens, and serves until the result is shut down or dropped.
    ///
    /// # Errors
    /// When the folder is in use or can't be written, the address is taken, a certificate is unusable, or plain HTTP is
    /// asked for on an address that others reach.
    pub async fn start(config: ServeConfig) -> Result<RunningServer, ServeError> {
        let ServeConfig { data, listen, tls, credentials, limits } = config;
        if matches!(tls, Tls::PlainHttp) && !listen.ip().is_loopback() {
            return Err(ServeError::PlainHttp { address: listen });
        }
        let store = Store::open(&data)?;
        let listening = |source| ServeError::Listen { address: listen, source };
        let listener = TcpListener::bind(listen).await.map_err(listening)?;
        let address = listener.local_addr().map_err(listening)?;
        let (acceptor, ca_pem) = match tls {
            Tls::PlainHttp => (None, None),
            Tls::Given { chain, key } => (Some(TlsAcceptor::from(tls::given(&chain, &key)?)), None),
            Tls::Own(mut names) => {
                names.extend(host_name());
                let (config, ca) = tls::own(store.root(), address, &names, jiff::Timestamp::now())?;
                (Some(TlsAcceptor::from(config)), Some(ca))
            }
        };
        let registry = Arc::new(Registry {
            store: Arc::new(store),
            uploads: Uploads::default(),
            gate: Gate::new(credentials.as_ref()),
            limits,
        });
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(accept(listener, acceptor, registry, stopped));
        Ok(RunningServer { address, ca_pem, stop: Some(stop), task })
    }
}

impl RunningServer {
    /// The address that is listened on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The CA certificate (PEM) that clients need, where the registry made its own.
    pub fn ca_pem(&self) -> Option<&str> {
        self.ca_pem.as_deref()
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

async fn accept(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    registry: Arc<Registry>,
    mut stop: oneshot::Receiver<()>,
) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let graceful = GracefulShutdown::new();
    let mut connections = JoinSet::new();
    loop {
        let accepted = async {
            let place = places.clone().acquire_owned().await.expect("the semaphore is never closed");
            listener.accept().await.map(|(stream, _)| (stream, place))
        };
        let (stream, place) = tokio::select! {
            _ = &mut stop => break,
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
        connections.spawn(connection(stream, tls.clone(), registry.clone(), graceful.watcher(), place));
    }
    drop(listener);
    if tokio::time::timeout(DRAIN, graceful.shutdown()).await.is_err() {
        tracing::warn!("requests that did not end are cut off");
    }
    connections.shutdown().await;
}

async fn connection(
    stream: TcpStream,
    tls: Option<TlsAcceptor>,
    registry: Arc<Registry>,
    watcher: hyper_util::server::graceful::Watcher,
    _place: OwnedSemaphorePermit,
) {
    // Answers are small or streamed in large pieces; waiting to fill packets only delays them.
    let _ = stream.set_nodelay(true);
    match tls {
        None => serve(stream, registry, watcher).await,
        Some(acceptor) => match tokio::time::timeout(GREETING, acceptor.accept(stream)).await {
            Ok(Ok(stream)) => serve(stream, registry, watcher).await,
            Ok(Err(error)) => tracing::debug!(%error, "a TLS handshake failed"),
            Err(_) => tracing::debug!("a TLS handshake took too long"),
        },
    }
}

async fn serve<S>(stream: S, registry: Arc<Registry>, watcher: hyper_util::server::graceful::Watcher)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(GREETING);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(64)
        .adaptive_window(true)
        .keep_alive_interval(GREETING)
        .keep_alive_timeout(GREETING);
    let service = TowerToHyperService::new(router(registry));
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
