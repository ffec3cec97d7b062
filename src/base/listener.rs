//! Taking connections that bring one request each: what the runner's own endpoint and its place for results have in common.
//!
//! What a client may do, and where it ends:
//!
//! | accident or attack | where it ends |
//! |---|---|
//! | connections without number | no more than there are places are taken; the rest waits in the kernel's queue, which has an end |
//! | no handshake, or half of one | [`greeted`]: a limit of time |
//! | half a request's head, or one byte by byte | [`answer_one`]: a limit of time |
//! | a head without end | [`answer_one`]: a limit of bytes |
//! | a connection that is kept for ever after its answer | one request each |
//! | file descriptors run out | a short pause, then the next one |

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How long a handshake may take, and then a request's head.
pub(crate) const GREETING: Duration = Duration::from_secs(10);

/// Bytes of a request's head, and of what is read of a body at a time.
const HEAD_BYTES: usize = 64 << 10;

/// How long to wait after a connection that could not be taken.
const PAUSE: Duration = Duration::from_millis(100);

/// Somebody who takes connections. Dropped, it ends, and with it what it serves.
#[derive(Debug)]
pub(crate) struct Listener {
    address: SocketAddr,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Listener {
    /// Does `each` for every connection, for so many of them at a time.
    ///
    /// # Errors
    /// When the socket has no address.
    pub(crate) fn begin<F, Served>(listener: TcpListener, places: usize, each: F) -> io::Result<Self>
    where
        F: Fn(TcpStream) -> Served + Send + 'static,
        Served: Future<Output = ()> + Send + 'static,
    {
        let address = listener.local_addr()?;
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        tasks.spawn(accept(listener, places, each, stop.clone(), tasks.clone()));
        Ok(Self { address, stop, tasks })
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Takes no more, breaks off what is served, and waits until every connection has ended.
    pub(crate) async fn close(&self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn accept<F, Served>(listener: TcpListener, places: usize, each: F, stop: CancellationToken, tasks: TaskTracker)
where
    F: Fn(TcpStream) -> Served + Send + 'static,
    Served: Future<Output = ()> + Send + 'static,
{
    let places = Arc::new(Semaphore::new(places));
    loop {
        let next = async {
            let place = Arc::clone(&places).acquire_owned().await.ok()?;
            Some((listener.accept().await, place))
        };
        let (stream, place) = tokio::select! {
            () = stop.cancelled() => return,
            next = next => match next {
                Some((Ok((stream, _)), place)) => (stream, place),
                // As when there are no more file descriptors: the next one may find some.
                Some((Err(_), _)) => {
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
                None => return,
            },
        };
        let (served, stop) = (each(stream), stop.clone());
        tasks.spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = served => {}
            }
            drop(place);
        });
    }
}

/// The connection after its TLS handshake, if there was one in time.
pub(crate) async fn greeted(stream: TcpStream, acceptor: &TlsAcceptor) -> Option<TlsStream<TcpStream>> {
    tokio::time::timeout(GREETING, acceptor.accept(stream)).await.ok()?.ok()
}

/// Answers one request (HTTP/1.1) on this connection, and ends it.
pub(crate) async fn answer_one<Answered>(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    answer: impl Fn(Request<Incoming>) -> Answered,
) where
    Answered: Future<Output = Response<String>>,
{
    let service = service_fn(|request| {
        let answered = answer(request);
        async move { Ok::<_, std::convert::Infallible>(answered.await) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(GREETING)
        .max_buf_size(HEAD_BYTES)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "a connection ended");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    async fn ask(at: SocketAddr) -> (TcpStream, String) {
        let mut stream = TcpStream::connect(at).await.expect("it listens");
        stream.write_all(b"GET /a HTTP/1.1\r\nhost: x\r\n\r\n").await.expect("sent");
        let mut said = [0; 12];
        stream.read_exact(&mut said).await.expect("an answer");
        (stream, String::from_utf8_lossy(&said).into_owned())
    }

    #[tokio::test]
    async fn who_comes_when_all_places_are_taken_waits_and_is_served_then() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let (tell, leave) = tokio::sync::watch::channel(false);
        let each = move |stream| {
            let mut leave = leave.clone();
            async move {
                answer_one(stream, |request| async move { Response::new(request.uri().path().to_owned()) }).await;
                // Nobody tells any more: it is over as well.
                let _ = leave.wait_for(|go| *go).await;
            }
        };
        let one = Listener::begin(listener, 1, each).expect("it listens");
        let (first, said) = ask(one.address()).await;
        assert_eq!(said, "HTTP/1.1 200");
        let at = one.address();
        let second = tokio::spawn(async move { ask(at).await.1 });
        assert!(!second.is_finished(), "the one place is taken");
        tell.send(true).expect("somebody listens");
        assert_eq!(second.await.expect("it ends"), "HTTP/1.1 200");
        drop(first);
        one.close().await;
        assert!(TcpStream::connect(at).await.is_err(), "nobody listens any more");
    }
}
