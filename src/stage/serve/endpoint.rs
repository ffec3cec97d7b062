//! `/healthz`, `/readyz` and `/metrics` of a runner that serves a plan. It tells nothing of targets and takes nothing in.
//!
//! What a client may do, and where it ends: hold a connection, or many of them (`base::listener`, and a limit for the whole of
//! it); ask again and again (one answer is made at a time, from the ledger as it is then, in a thread that the schedule's loop
//! does not wait for); send a body (it is not read).

use std::fs::OpenOptions;
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream as StdStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::{Method, Request, Response, StatusCode};
use jiff::Timestamp;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Mutex;
use tokio_rustls::TlsAcceptor;

use super::super::plan::Plan;
use super::metrics;
use super::pulse::{Pulse, stuck};
use crate::base::exit::{Classify, ExitClass};
use crate::base::listener::{GREETING, Listener, answer_one, greeted};
use crate::ledger::LedgerReader;
use crate::registry::serve::{ServeError as TlsError, ServedCertificate};

/// Connections at a time.
const CONNECTIONS: usize = 16;
/// For a whole connection: one question and its answer.
const WHOLE: Duration = Duration::from_secs(60);
/// Bytes of the disk below which the ledger can't go on.
const LEAST: u64 = 64 << 20;

/// Why there is no endpoint.
#[derive(Debug, thiserror::Error)]
pub enum EndpointError {
    /// Nobody can listen there.
    #[error("listen on {address}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The certificate can't be used.
    #[error(transparent)]
    Certificate(#[from] TlsError),
    /// Nobody answers there, or says that it is not as it should be.
    #[error("ask {address}: {why}")]
    Asked {
        /// Where.
        address: SocketAddr,
        /// What it says.
        why: String,
    },
}

impl Classify for EndpointError {
    fn class(&self) -> ExitClass {
        match self {
            Self::Listen { .. } | Self::Asked { .. } => ExitClass::Unreachable,
            Self::Certificate(error) => error.class(),
        }
    }
}

/// The endpoint, while it is there. Dropped, it ends.
#[derive(Debug)]
pub struct Endpoint(Listener);

/// What answers are made of.
struct Desk {
    plan: Plan,
    ledger: PathBuf,
    pulse: Pulse,
    /// One answer at a time reads the ledger.
    turn: Mutex<()>,
}

impl Endpoint {
    /// Answers at this address; with a certificate by HTTPS. `ledger` is the one that the plan is served with.
    ///
    /// # Errors
    /// When nobody can listen there, or the certificate can't be used.
    pub async fn open(
        address: SocketAddr,
        tls: Option<(PathBuf, PathBuf)>,
        plan: Plan,
        ledger: PathBuf,
        pulse: Pulse,
    ) -> Result<Self, EndpointError> {
        let certificate = match tls {
            Some((chain, key)) => Some(ServedCertificate::from_files(chain, key, Timestamp::now())?),
            None => None,
        };
        let acceptor = match &certificate {
            Some(certificate) => Some((TlsAcceptor::from(certificate.config()?), certificate.clone())),
            None => None,
        };
        let listener = TcpListener::bind(address).await.map_err(|source| EndpointError::Listen { address, source })?;
        let desk = Arc::new(Desk { plan, ledger, pulse, turn: Mutex::new(()) });
        let each = move |stream| {
            let greeted = greet(stream, acceptor.clone(), Arc::clone(&desk));
            async move {
                // Whoever takes longer gets no answer.
                let _ = tokio::time::timeout(WHOLE, greeted).await;
            }
        };
        let listener = Listener::begin(listener, CONNECTIONS, each);
        Ok(Self(listener.map_err(|source| EndpointError::Listen { address, source })?))
    }

    /// Where it answers.
    pub fn address(&self) -> SocketAddr {
        self.0.address()
    }

    /// Ends it, and waits until every connection has ended.
    pub async fn close(self) {
        self.0.close().await;
    }
}

async fn greet(stream: TcpStream, acceptor: Option<(TlsAcceptor, ServedCertificate)>, desk: Arc<Desk>) {
    let answer = |request: Request<Incoming>| {
        let desk = Arc::clone(&desk);
        async move { answer(&request, desk).await }
    };
    let Some((acceptor, certificate)) = acceptor else { return answer_one(stream, answer).await };
    if let Err(error) = certificate.renew(Timestamp::now()) {
        tracing::warn!(%error, "the certificate stays");
    }
    if let Some(stream) = greeted(stream, &acceptor).await {
        answer_one(stream, answer).await;
    }
}

async fn answer(request: &Request<Incoming>, desk: Arc<Desk>) -> Response<String> {
    const TEXT: &str = "text/plain; charset=utf-8";
    let say = |status: StatusCode, kind: &'static str, text: String| {
        let mut response = Response::new(text);
        *response.status_mut() = status;
        response.headers_mut().insert(hyper::header::CONTENT_TYPE, hyper::header::HeaderValue::from_static(kind));
        response
    };
    if request.method() != Method::GET && request.method() != Method::HEAD {
        return say(StatusCode::METHOD_NOT_ALLOWED, TEXT, String::new());
    }
    let path = request.uri().path().to_owned();
    match path.as_str() {
        // That it answers at all.
        "/healthz" => return say(StatusCode::OK, TEXT, "ok\n".to_owned()),
        "/readyz" | "/metrics" => {}
        _ => return say(StatusCode::NOT_FOUND, TEXT, String::new()),
    }
    let _turn = desk.turn.lock().await;
    let wanted = Arc::clone(&desk);
    let made = tokio::task::spawn_blocking(move || wanted.look(path == "/metrics", Timestamp::now())).await;
    match made {
        Ok((Ok(text), true)) => say(StatusCode::OK, metrics::CONTENT_TYPE, text),
        Ok((Ok(text), false)) => say(StatusCode::OK, TEXT, text),
        Ok((Err(why), _)) => say(StatusCode::SERVICE_UNAVAILABLE, TEXT, why + "\n"),
        Err(_) => say(StatusCode::INTERNAL_SERVER_ERROR, TEXT, String::new()),
    }
}

impl Desk {
    /// What to answer, or why it is not ready; and whether metrics were asked for.
    fn look(&self, metrics: bool, now: Timestamp) -> (Result<String, String>, bool) {
        let obstacle = self.obstacle(now);
        if !metrics {
            return (obstacle.map_or_else(|| Ok("ok\n".to_owned()), Err), false);
        }
        let text = LedgerReader::open(&self.ledger)
            .and_then(|reader| metrics::collect(&reader, &self.plan, obstacle.is_none(), now));
        (text.map_err(|error| error.to_string()), true)
    }

    /// Why it is not ready.
    fn obstacle(&self, now: Timestamp) -> Option<String> {
        if let Err(why) = writable(&self.ledger) {
            return Some(why);
        }
        let read = || -> Result<Option<Timestamp>, crate::ledger::LedgerError> {
            let reader = LedgerReader::open(&self.ledger)?;
            let going = reader.runs(1)?.first().is_some_and(|run| run.end.is_none());
            Ok(if going { Some(reader.last_at()?) } else { None })
        };
        match read() {
            Ok(run) => stuck(self.pulse.last(), run, &self.plan.policy, now),
            Err(error) => Some(error.to_string()),
        }
    }
}

/// Whether what is written to the ledger could be kept. Nothing is written: this process does that itself, elsewhere.
fn writable(ledger: &Path) -> Result<(), String> {
    let file =
        OpenOptions::new().write(true).open(ledger).map_err(|error| format!("the ledger can't be written: {error}"))?;
    let disk = rustix::fs::fstatvfs(&file).map_err(|error| format!("the ledger's disk can't be asked: {error}"))?;
    match disk.f_bavail.saturating_mul(disk.f_frsize) {
        free if free < LEAST => Err(format!("the ledger's disk has {free} bytes left")),
        _ => Ok(()),
    }
}

/// Asks an endpoint of this machine, without TLS, for a probe of whoever supervises the runner: nothing else may connect to it.
/// Blocks.
///
/// # Errors
/// When nobody answers, or the answer is not 200.
pub fn ask(address: SocketAddr, path: &str) -> Result<(), EndpointError> {
    let failed = |why: String| EndpointError::Asked { address, why };
    let asked = || -> io::Result<String> {
        let mut stream = StdStream::connect_timeout(&address, GREETING)?;
        stream.set_read_timeout(Some(GREETING))?;
        stream.set_write_timeout(Some(GREETING))?;
        write!(stream, "GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n")?;
        let mut text = Vec::new();
        stream.take(16 << 10).read_to_end(&mut text)?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    };
    let text = asked().map_err(|error| failed(error.to_string()))?;
    match text.starts_with("HTTP/1.1 200 ") {
        true => Ok(()),
        false => Err(failed(text.lines().last().unwrap_or_default().to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::limits::Limits;
    use crate::ledger::Ledger;
    use crate::model::record::Event;

    fn fetch(address: SocketAddr, path: &str) -> String {
        let mut stream = StdStream::connect(address).expect("it answers");
        write!(stream, "GET {path} HTTP/1.1\r\nhost: x\r\n\r\n").expect("asked");
        let mut text = String::new();
        stream.read_to_string(&mut text).expect("an answer");
        text
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn it_says_whether_it_is_ready_and_counts_what_the_ledger_has() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("plan.yaml");
        let text = "apiVersion: gapscan/v1\nkind: Plan\nname: p\nscans:\n\
                    - {name: s, targets: [host], schedule: {cron: '0 0 1 1 *', timeZone: UTC}}\n";
        std::fs::write(&path, text).expect("written");
        let plan = Plan::load(&path, &Limits::default()).expect("a plan");
        let file = folder.path().join("ledger.sqlite");
        let now = Timestamp::now();
        let mut ledger = Ledger::open(&file, now).expect("a ledger");
        let missed = Event {
            at: now,
            what: "schedule-missed".to_owned(),
            subject: "p/s".to_owned(),
            due: Some(now),
            detail: "secret/target".to_owned(),
        };
        ledger.event(&missed).expect("recorded");
        let pulse = Pulse::new(now);
        let here = "127.0.0.1:0".parse().expect("an address");
        let endpoint = Endpoint::open(here, None, plan, file.clone(), pulse.clone()).await.expect("it listens");
        let at = endpoint.address();
        let get = |path: &'static str| tokio::task::spawn_blocking(move || fetch(at, path));
        assert!(get("/healthz").await.expect("asked").starts_with("HTTP/1.1 200"));
        assert!(get("/readyz").await.expect("asked").starts_with("HTTP/1.1 200"));
        tokio::task::spawn_blocking(move || ask(at, "/readyz")).await.expect("asked").expect("ready");
        assert!(get("/etc/passwd").await.expect("asked").starts_with("HTTP/1.1 404"));
        let counted = get("/metrics").await.expect("asked");
        for line in [
            "gapscan_schedule_missed{schedule=\"p/s\"} 1",
            "gapscan_events{what=\"schedule-missed\"} 1",
            "gapscan_ready 1",
            "gapscan_runs{end=\"completed\"} 0",
            "gapscan_breakers_open 0",
        ] {
            assert!(counted.contains(line), "{line} is not in {counted}");
        }
        assert!(!counted.contains("secret"), "{counted}");
        assert!(!counted.contains("last_success"), "there was none");

        // A loop that no longer turns is not ready, and still alive.
        pulse.beat(now - jiff::SignedDuration::from_hours(1));
        let stuck = get("/readyz").await.expect("asked");
        assert!(stuck.starts_with("HTTP/1.1 503") && stuck.contains("has not turned"), "{stuck}");
        let asked = tokio::task::spawn_blocking(move || ask(at, "/readyz")).await.expect("asked");
        assert!(asked.expect_err("it is stuck").to_string().contains("has not turned"));
        assert!(get("/healthz").await.expect("asked").starts_with("HTTP/1.1 200"));
        assert!(get("/metrics").await.expect("asked").contains("gapscan_ready 0"));
        endpoint.close().await;
    }
}
