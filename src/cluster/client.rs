//! The way to one API server: every call has a timeout, a byte cap, and retries within a budget.
//!
//! kube's own retry layer is switched off: it retries 429, 503 and 504 up to fifteen times with delays that no caller can
//! bound, and the two would multiply. Here one loop does it all and obeys `Retry-After`.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::time::{Duration, Instant};

use backon::BackoffBuilder as _;
use hyper::body::Body as _;
use hyper::http;
use k8s_openapi::api::core::v1::{Namespace, Secret};
use kube::client::Body;
use kube::config::{AuthInfo, KubeConfigOptions, Kubeconfig};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use zeroize::Zeroizing;

use super::agent::kubeconfig::{CA_FILE, SERVER_NAME, TOKEN_FILE};
use super::error::ClusterError;
use crate::base::limits::Limits;

/// The oldest minor version of Kubernetes 1 that is known to have what gapscan relies on: validated field names on
/// creation, Pod Security admission, the `kubernetes` EndpointSlice.
const OLDEST_MINOR: u32 = 27;
const OLDEST: &str = "1.27";

/// Bytes of one answer. A page of 500 objects of at most 1.5 MiB (etcd's limit) each would be more, but a page that large
/// is an accident, and it must not fill the memory.
const ANSWER_BYTES: usize = 256 << 20;

/// As the audit log names the program.
const USER_AGENT: &str = concat!("gapscan/", env!("CARGO_PKG_VERSION"));

/// What is asked for of secrets, whatever is done with them: their content never comes back (Kubernetes API concepts,
/// "Receiving resources as metadata"), but for one that is read by its name to be handed to a scanner ([`Cluster::secret`]).
const METADATA: &str = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json";
/// The same for a list of them.
const METADATA_LIST: &str = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";

/// How long the first request may be repeated: a wrong address should be told soon.
const FIRST_PATIENCE: Duration = Duration::from_secs(3);

/// A connection to one cluster as one identity. Clones share the connection pool.
#[derive(Clone)]
pub struct Cluster {
    client: kube::Client,
    config: kube::Config,
    context: String,
    api_call: Duration,
    patience: Duration,
}

/// A bearer token. It is wiped from memory when dropped, and never printed.
pub struct Token(Zeroizing<String>);

/// What names a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterIdentity {
    /// The context's name in the kubeconfig, or the server's address.
    pub name: String,
    /// The UID of the namespace `kube-system`.
    pub uid: String,
    /// The API server's version, as `v1.36.3`.
    pub version: String,
}

/// Where an API server is.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// Whether it is an `https` address.
    pub secure: bool,
    /// The host's name or address.
    pub host: String,
    /// The port.
    pub port: u16,
    /// The name that its certificate must be for.
    pub name: String,
    /// The CAs (DER) that its certificate must chain to; those of the system where none are named.
    pub authorities: Option<Vec<Vec<u8>>>,
    /// Whether a proxy is between.
    pub by_proxy: bool,
}

/// One request, which can be built again for each attempt.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    /// What it is for, as a fragment that fits after "failed to".
    pub(crate) what: String,
    pub(crate) method: http::Method,
    /// Path and query.
    pub(crate) path: String,
    pub(crate) body: Option<Vec<u8>>,
}

/// What comes back of secrets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Secrets {
    /// Their names.
    Metadata,
    /// What is in them.
    Content,
}

impl Token {
    /// A token from its text.
    pub fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token(..)")
    }
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cluster")
            .field("context", &self.context)
            .field("server", &self.server())
            .finish_non_exhaustive()
    }
}

impl Cluster {
    /// Connects with this kubeconfig, or with the one that `KUBECONFIG` or the home folder has, or as a pod of the cluster;
    /// by this context of it, or by its current one. The server's version is checked, so that the connection works.
    ///
    /// # Errors
    /// When the configuration can't be used, asks for a connection that is not verified TLS, or the server does not answer
    /// or is too old.
    pub async fn connect(
        kubeconfig: Option<&Path>,
        context: Option<&str>,
        limits: &Limits,
    ) -> Result<Self, ClusterError> {
        let (config, context) = configuration(kubeconfig, context).await?;
        let cluster = Self::new(config, context, limits)?;
        let first = Self { patience: FIRST_PATIENCE, ..cluster.clone() };
        let version = first.version().await?;
        if version.minor_number().is_none_or(|minor| version.major == "1" && minor < OLDEST_MINOR) {
            return Err(ClusterError::TooOld { found: version.git_version, needed: OLDEST });
        }
        Ok(cluster)
    }

    fn new(mut config: kube::Config, context: String, limits: &Limits) -> Result<Self, ClusterError> {
        let server = config.cluster_url.to_string();
        if config.accept_invalid_certs {
            return Err(ClusterError::Insecure { server, why: "insecure-skip-tls-verify is set" });
        }
        if config.cluster_url.scheme() != Some(&http::uri::Scheme::HTTPS) {
            return Err(ClusterError::Insecure { server, why: "it is no https address" });
        }
        // The only provider in the tree; a builder that finds none would panic.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        config.headers = vec![(http::header::USER_AGENT, http::HeaderValue::from_static(USER_AGENT))];
        config.default_retry = false;
        config.connect_timeout = Some(limits.connect);
        let failed = |source: kube::Error| ClusterError::Config { path: None, source: Box::new(source) };
        let client = kube::Client::try_from(config.clone()).map_err(failed)?;
        Ok(Self { client, config, context, api_call: limits.api_call, patience: limits.api_call * 2 })
    }

    /// The cluster of this pod at one of its API server's addresses, as the account whose token and CA the kubelet mounted in
    /// `identity`. Nothing is asked yet.
    ///
    /// # Errors
    /// When these can't be read or used.
    pub(crate) fn of_pod(server: std::net::SocketAddr, identity: &Path, limits: &Limits) -> Result<Self, ClusterError> {
        let failed = |source: Box<dyn std::error::Error + Send + Sync>| ClusterError::Config { path: None, source };
        let url = format!("https://{server}").parse::<http::Uri>().map_err(|error| failed(Box::new(error)))?;
        let mut config = kube::Config::new(url);
        let authorities: Result<Vec<_>, _> = CertificateDer::pem_file_iter(identity.join(CA_FILE))
            .map_err(|error| failed(Box::new(error)))?
            .map(|one| one.map(|certificate| certificate.as_ref().to_vec()))
            .collect();
        config.root_cert = Some(authorities.map_err(|error| failed(Box::new(error)))?);
        config.tls_server_name = Some(SERVER_NAME.to_owned());
        let token = identity.join(TOKEN_FILE).display().to_string();
        config.auth_info = AuthInfo { token_file: Some(token), ..AuthInfo::default() };
        Self::new(config, server.to_string(), limits)
    }

    /// The same cluster as whoever this token stands for, and with nothing of the identity that this connection has.
    ///
    /// # Errors
    /// When the token has characters that can't be in a header.
    pub fn as_token(&self, token: &Token) -> Result<Self, ClusterError> {
        let mut config = self.config.clone();
        config.auth_info = AuthInfo { token: Some(token.0.as_str().to_owned().into()), ..AuthInfo::default() };
        let failed = |source: kube::Error| ClusterError::Config { path: None, source: Box::new(source) };
        let client = kube::Client::try_from(config.clone()).map_err(failed)?;
        Ok(Self { client, config, context: self.context.clone(), api_call: self.api_call, patience: self.patience })
    }

    /// The same connection with other limits.
    #[must_use]
    pub fn with_limits(&self, limits: &Limits) -> Self {
        Self { api_call: limits.api_call, patience: limits.api_call * 2, ..self.clone() }
    }

    /// What names this cluster.
    ///
    /// # Errors
    /// When the server does not answer, or denies to read the namespace `kube-system`.
    pub async fn identity(&self) -> Result<ClusterIdentity, ClusterError> {
        let version = self.version().await?.git_version;
        let namespace: Namespace =
            self.get("read namespace `kube-system`", "/api/v1/namespaces/kube-system".to_owned()).await?;
        let uid = namespace
            .metadata
            .uid
            .ok_or_else(|| ClusterError::malformed("read namespace `kube-system`", "it has no UID"))?;
        Ok(ClusterIdentity { name: self.context.clone(), uid, version })
    }

    async fn version(&self) -> Result<Version, ClusterError> {
        self.get("read the API server's version", "/version".to_owned()).await
    }

    /// The context's name in the kubeconfig, or the server's address.
    pub fn context(&self) -> &str {
        &self.context
    }

    /// The server's address.
    pub fn server(&self) -> String {
        self.config.cluster_url.to_string()
    }

    /// How the server is reached: what [`Cluster::connect`] would connect to, before anything is connected.
    ///
    /// # Errors
    /// When the configuration can't be used.
    pub async fn endpoint(kubeconfig: Option<&Path>, context: Option<&str>) -> Result<Endpoint, ClusterError> {
        let (config, _) = configuration(kubeconfig, context).await?;
        let host = config.cluster_url.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        Ok(Endpoint {
            secure: config.cluster_url.scheme() == Some(&http::uri::Scheme::HTTPS),
            port: config.cluster_url.port_u16().unwrap_or(443),
            name: config.tls_server_name.unwrap_or_else(|| host.clone()),
            host,
            authorities: config.root_cert,
            by_proxy: config.proxy_url.is_some(),
        })
    }

    /// How long one request may take.
    pub(crate) fn api_call(&self) -> Duration {
        self.api_call
    }

    /// The client itself, for what is no plain request: exec.
    pub(crate) fn raw(&self) -> kube::Client {
        self.client.clone()
    }

    /// The same connection that tries each request for at most `patience`.
    pub(crate) fn impatient(&self, patience: Duration) -> Self {
        Self { patience, api_call: self.api_call.min(patience), ..self.clone() }
    }

    pub(crate) async fn get<T: DeserializeOwned>(&self, what: &str, path: String) -> Result<T, ClusterError> {
        self.call(Call { what: what.to_owned(), method: http::Method::GET, path, body: None }).await
    }

    /// Sends the request and reads the answer as `T`. Repeated on silence and overload until the budget is used up, so every
    /// caller must be able to stand that its request arrives twice.
    pub(crate) async fn call<T: DeserializeOwned>(&self, call: Call) -> Result<T, ClusterError> {
        let bytes = self.send(&call, Secrets::Metadata).await?;
        serde_json::from_slice(&bytes).map_err(|source| ClusterError::malformed(call.what, source))
    }

    /// One secret by its name, with its content. Nothing of that is in an error.
    pub(super) async fn secret(&self, what: &str, path: String) -> Result<Secret, ClusterError> {
        let call = Call { what: what.to_owned(), method: http::Method::GET, path, body: None };
        let bytes = Zeroizing::new(self.send(&call, Secrets::Content).await?);
        serde_json::from_slice(&bytes).map_err(|_| ClusterError::malformed(what, "it is no secret"))
    }

    async fn send(&self, call: &Call, secrets: Secrets) -> Result<Vec<u8>, ClusterError> {
        let began = Instant::now();
        let mut delays = backon::ExponentialBuilder::new()
            .with_min_delay(Duration::from_millis(100))
            .with_max_delay(Duration::from_secs(5))
            .without_max_times()
            .with_jitter()
            .build();
        loop {
            let (error, asked) = match tokio::time::timeout(self.api_call, self.attempt(call, secrets)).await {
                Ok(Ok(bytes)) => return Ok(bytes),
                Ok(Err(failed)) => failed,
                Err(_) => (ClusterError::NoAnswer { what: call.what.clone(), after: self.api_call }, None),
            };
            let delay = asked.or_else(|| delays.next()).unwrap_or(Duration::from_secs(5));
            if !error.is_silence() || began.elapsed() + delay >= self.patience {
                return Err(error);
            }
            tracing::debug!(what = call.what, error = %error, ?delay, "trying again");
            tokio::time::sleep(delay).await;
        }
    }

    /// One attempt; a failure comes with the delay that the server asks for.
    async fn attempt(&self, call: &Call, secrets: Secrets) -> Result<Vec<u8>, (ClusterError, Option<Duration>)> {
        let malformed = |source: http::Error| (ClusterError::malformed(&call.what, source), None);
        let mut request = http::Request::builder().method(call.method.clone()).uri(&call.path);
        if call.body.is_some() {
            let body = match call.method {
                // Whoever applies names itself. Like the other kind of patch, one that arrives twice changes nothing twice.
                http::Method::PATCH if call.path.contains("?fieldManager=") => "application/apply-patch+yaml",
                // A strategic merge patch adds to lists by their keys.
                http::Method::PATCH => "application/strategic-merge-patch+json",
                _ => "application/json",
            };
            request = request.header(http::header::CONTENT_TYPE, body);
        }
        if is_of_secrets(&call.path) && secrets == Secrets::Metadata {
            let accept = if call.method == http::Method::GET && is_list(&call.path) { METADATA_LIST } else { METADATA };
            request = request.header(http::header::ACCEPT, accept);
        }
        let request = request.body(Body::from(call.body.clone().unwrap_or_default())).map_err(malformed)?;
        let response = self.client.send(request).await.map_err(|source| (unreachable(&call.what, source), None))?;
        let status = response.status();
        let asked = response
            .headers()
            .get(http::header::RETRY_AFTER)
            .and_then(|value| value.to_str().ok()?.parse().ok())
            .map(Duration::from_secs);
        let bytes = read_body(&call.what, response.into_body()).await.map_err(|error| (error, None))?;
        if status.is_success() {
            return Ok(bytes);
        }
        let message = serde_json::from_slice::<kube::core::Status>(&bytes)
            .map(|status| status.message)
            .unwrap_or_else(|_| String::from_utf8_lossy(&bytes[..bytes.len().min(400)]).into_owned());
        Err((ClusterError::from_status(&call.what, status.as_u16(), message), asked))
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Version {
    major: String,
    minor: String,
    git_version: String,
}

impl Version {
    /// Some providers write the minor version as `27+`.
    fn minor_number(&self) -> Option<u32> {
        self.minor.trim_end_matches(|c: char| !c.is_ascii_digit()).parse().ok()
    }
}

async fn configuration(
    kubeconfig: Option<&Path>,
    context: Option<&str>,
) -> Result<(kube::Config, String), ClusterError> {
    let path: Option<PathBuf> = kubeconfig.map(Path::to_owned);
    let failed = |source: Box<dyn std::error::Error + Send + Sync>| ClusterError::Config { path: path.clone(), source };
    let given = std::env::var_os("KUBECONFIG").is_some_and(|value| !value.is_empty());
    let file = match kubeconfig {
        Some(path) => Kubeconfig::read_from(path),
        // In a pod there is no kubeconfig, but there is a mounted service account.
        None if !given && context.is_none() => match (Kubeconfig::read(), kube::Config::incluster()) {
            (Err(_), Ok(config)) => {
                let name = config.cluster_url.to_string();
                return Ok((config, name));
            }
            (file, _) => file,
        },
        None => Kubeconfig::read(),
    }
    .map_err(|error| failed(Box::new(error)))?;
    let name = context.map(str::to_owned).or_else(|| file.current_context.clone()).unwrap_or_default();
    let options = KubeConfigOptions { context: context.map(str::to_owned), ..KubeConfigOptions::default() };
    let config = kube::Config::from_custom_kubeconfig(file, &options).await.map_err(|error| failed(Box::new(error)))?;
    let name = if name.is_empty() { config.cluster_url.to_string() } else { name };
    Ok((config, name))
}

pub(crate) fn unreachable(what: &str, source: kube::Error) -> ClusterError {
    match source {
        kube::Error::Api(status) => ClusterError::from_status(what, status.code, status.message),
        source => ClusterError::Unreachable { what: what.to_owned(), source: Box::new(source) },
    }
}

/// Whether a path names secrets of the core group.
fn is_of_secrets(path: &str) -> bool {
    let path = path.split('?').next().unwrap_or(path);
    path.starts_with("/api/v1/") && path.split('/').any(|part| part == "secrets")
}

/// Whether a path that names secrets names all of a namespace or of the cluster.
fn is_list(path: &str) -> bool {
    path.split('?').next().unwrap_or(path).ends_with("/secrets")
}

async fn read_body(what: &str, mut body: Body) -> Result<Vec<u8>, ClusterError> {
    let mut bytes = Vec::new();
    while let Some(frame) = std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        let frame =
            frame.map_err(|source| ClusterError::Unreachable { what: what.to_owned(), source: Box::new(source) })?;
        if let Some(data) = frame.data_ref() {
            if bytes.len() + data.len() > ANSWER_BYTES {
                return Err(ClusterError::AnswerTooLarge { what: what.to_owned(), limit: ANSWER_BYTES });
            }
            bytes.extend_from_slice(data);
        }
    }
    Ok(bytes)
}

/// Asks `question` again and again, at first after 100 ms and then at most every second, until it gives an answer or the
/// deadline has passed. Errors end it.
pub(crate) async fn poll_until<T, F>(
    deadline: Duration,
    mut question: impl FnMut() -> F,
) -> Result<Option<T>, ClusterError>
where
    F: Future<Output = Result<Option<T>, ClusterError>>,
{
    let began = Instant::now();
    let mut delay = Duration::from_millis(100);
    loop {
        if let Some(answer) = question().await? {
            return Ok(Some(answer));
        }
        if began.elapsed() >= deadline {
            return Ok(None);
        }
        tokio::time::sleep(delay).await;
        delay = (delay * 3 / 2).min(Duration::from_secs(1));
    }
}

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
