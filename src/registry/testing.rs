//! Registries for tests: real ones, and one in between that misbehaves.

use std::io::Write;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use http::HeaderMap;

use super::serve::{RunningServer, ServeConfig, Server, Tls};
use super::{Client, ClientConfig, Retry, Transport};
use crate::base::limits::Limits;

/// Short waits, so that a test of silence is over soon.
pub(crate) fn limits() -> Limits {
    Limits { stall: Duration::from_millis(1500), connect: Duration::from_secs(5), ..Limits::default() }
}

/// A client over plain HTTP that repeats quickly.
pub(crate) fn plain(address: SocketAddr) -> ClientConfig {
    ClientConfig {
        transport: Transport::PlainHttp,
        limits: limits(),
        retry: Retry { repeats: 4, first_pause: Duration::from_millis(5) },
        ..ClientConfig::new(address.to_string().parse().expect("an address"))
    }
}

pub(crate) fn client(config: ClientConfig) -> Client {
    Client::new(config).expect("a client")
}

/// The embedded registry over plain HTTP in this folder.
pub(crate) async fn embedded(folder: &Path) -> RunningServer {
    Server::start(ServeConfig::new(folder, "127.0.0.1:0".parse().expect("an address"), Tls::PlainHttp))
        .await
        .expect("a registry")
}

/// Debian's docker-registry over plain HTTP.
pub(crate) struct DockerRegistry {
    pub(crate) address: SocketAddr,
    process: Child,
    _folder: tempfile::TempDir,
}

impl DockerRegistry {
    /// Started and answering; `None`, with a line that says so, where it is not installed.
    pub(crate) async fn start() -> Option<Self> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        if !std::env::split_paths(&path).any(|folder| folder.join("docker-registry").is_file()) {
            println!("skipped: needs docker-registry");
            return None;
        }
        let folder = tempfile::tempdir().expect("a folder");
        // Free when it was asked for; nothing else here asks for fixed ports.
        let address = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a free port");
        let config = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {:?}}}, delete: {{enabled: true}}}}\nhttp: {{addr: \"{address}\"}}\n",
            folder.path().join("data"),
        );
        let file = folder.path().join("config.yml");
        std::fs::File::create(&file).and_then(|mut f| f.write_all(config.as_bytes())).expect("a configuration");
        let process = Command::new("docker-registry")
            .arg("serve")
            .arg(&file)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("docker-registry starts");
        let registry = Self { address, process, _folder: folder };
        let patient =
            ClientConfig { retry: Retry { repeats: 60, first_pause: Duration::from_millis(50) }, ..plain(address) };
        client(patient).ping().await.expect("docker-registry answers");
        Some(registry)
    }
}

impl Drop for DockerRegistry {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A request as it arrived.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) query: String,
    pub(crate) headers: HeaderMap,
}

impl Seen {
    pub(crate) fn is(&self, method: &str, part: &str) -> bool {
        self.method == method && self.path.contains(part)
    }
}

type Rule = Box<dyn Fn(&Seen, usize) -> Option<Response> + Send + Sync>;

/// A server that writes down every request, answers some by its rule, and hands the others to the registry behind it.
pub(crate) struct Between {
    pub(crate) address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    task: tokio::task::JoinHandle<()>,
}

struct Inside {
    seen: Arc<Mutex<Vec<Seen>>>,
    /// Whether requests are handed on only once all of them is there, as nginx does where it is not told otherwise.
    buffering: bool,
    behind: Option<SocketAddr>,
    rule: Rule,
    http: reqwest::Client,
}

impl Between {
    /// `rule` gets the request and how many of the same method and path came before it.
    pub(crate) async fn start(
        behind: Option<SocketAddr>,
        rule: impl Fn(&Seen, usize) -> Option<Response> + Send + Sync + 'static,
    ) -> Self {
        Self::start_as(behind, false, Box::new(rule)).await
    }

    /// One that hands on whole requests alone, and all of them.
    pub(crate) async fn buffering(behind: SocketAddr) -> Self {
        Self::start_as(Some(behind), true, Box::new(|_, _| None)).await
    }

    async fn start_as(behind: Option<SocketAddr>, buffering: bool, rule: Rule) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("its address");
        let seen = Arc::new(Mutex::new(Vec::new()));
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let http = reqwest::Client::builder().no_proxy().build().expect("a client");
        let inside = Arc::new(Inside { seen: seen.clone(), buffering, behind, rule, http });
        let router = Router::new().fallback(pass).with_state(inside);
        let task = tokio::spawn(serve(listener, router));
        Self { address, seen, task }
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().expect("no test panics in here").clone()
    }

    pub(crate) fn forget(&self) {
        self.seen.lock().expect("no test panics in here").clear();
    }
}

impl Drop for Between {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(listener: tokio::net::TcpListener, router: Router) {
    use hyper_util::rt::{TokioExecutor, TokioIo};
    let mut connections = tokio::task::JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let service = hyper_util::service::TowerToHyperService::new(router.clone());
        connections.spawn(async move {
            let builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
            let _ = builder.serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

async fn pass(State(inside): State<Arc<Inside>>, request: Request) -> Response {
    let seen = Seen {
        method: request.method().to_string(),
        path: request.uri().path().to_owned(),
        query: request.uri().query().unwrap_or_default().to_owned(),
        headers: request.headers().clone(),
    };
    let before = {
        let mut all = inside.seen.lock().expect("no test panics in here");
        let before = all.iter().filter(|s| s.method == seen.method && s.path == seen.path).count();
        all.push(seen.clone());
        before
    };
    if let Some(response) = (inside.rule)(&seen, before) {
        if response.headers().contains_key(NEVER) {
            std::future::pending::<()>().await;
        }
        if response.headers().contains_key(LOST) {
            inside.forward(request).await;
        }
        return response;
    }
    inside.forward(request).await
}

impl Inside {
    async fn forward(&self, request: Request) -> Response {
        let Some(behind) = self.behind else { return status(404) };
        let (parts, body) = request.into_parts();
        let url = format!("http://{behind}{}", parts.uri);
        let mut headers = parts.headers;
        headers.remove("host");
        let body = match self.buffering {
            false => reqwest::Body::wrap_stream(body.into_data_stream()),
            true => match axum::body::to_bytes(body, usize::MAX).await {
                Ok(bytes) => reqwest::Body::from(bytes),
                Err(_) => return status(400),
            },
        };
        let sent = self.http.request(parts.method, url).headers(headers).body(body).send().await;
        let Ok(answer) = sent else { return status(502) };
        let mut response = Response::builder().status(answer.status());
        for (name, value) in answer.headers() {
            response = response.header(name, value);
        }
        response.body(Body::from_stream(answer.bytes_stream())).expect("a response")
    }
}

const NEVER: &str = "x-never";

/// No answer, and no end of the connection either.
pub(crate) fn never() -> Response {
    Response::builder().header(NEVER, "1").body(Body::empty()).expect("a mark")
}

const LOST: &str = "x-lost";

/// The request is carried out, and its answer is lost: the client sees a gateway's error.
pub(crate) fn lost() -> Response {
    Response::builder().status(502).header(LOST, "1").body(Body::empty()).expect("a mark")
}

/// An answer with nothing but a status.
pub(crate) fn status(code: u16) -> Response {
    Response::builder().status(code).body(Body::empty()).expect("a status")
}
