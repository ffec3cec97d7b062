//! From a request to its answer.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use futures::StreamExt;
use http::header::{CONTENT_TYPE, HOST, HeaderMap, RANGE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderValue, Method, StatusCode};
use jiff::Timestamp;
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;

use super::auth::{Access, Gate, SERVICE};
use super::collect::{CollectMode, CollectPolicy, Collected};
use super::content::{ContentDigest, NotADigest};
use super::error::Refusal;
use super::manifest::{Parts, Put, Wanted};
use super::metrics::{self, Metrics};
use super::receive::Announced;
use super::route::{Name, Route};
use super::store::Store;
use super::token::Right;
use super::upload::Uploads;
use super::{download, manifest};
use crate::base::limits::Limits;
use crate::registry::reference::{Authority, Repository, Tag};

/// Entries of a list that are sent at once where the client does not say.
const PAGE: usize = 1000;
/// Tags that one PUT may give a manifest.
const TAGS: usize = 32;
/// Manifests that are received at a time: each is held in memory until it is whole.
pub(super) const MANIFESTS: usize = 64;

/// All that a request is answered from.
#[derive(Debug)]
pub(super) struct Registry {
    pub(super) store: Arc<Store>,
    pub(super) uploads: Uploads,
    pub(super) gate: Gate,
    pub(super) limits: Limits,
    pub(super) parts: Parts,
    /// Bytes of the disk that are not for content.
    pub(super) reserve_bytes: u64,
    pub(super) collect: CollectPolicy,
    pub(super) metrics: Arc<Metrics>,
    /// Whether connections have TLS.
    pub(super) secured: bool,
    /// What must be written although its request is gone.
    pub(super) tasks: TaskTracker,
    pub(super) stopping: AtomicBool,
    /// Places for manifests that are being received.
    pub(super) manifests: Semaphore,
}

/// Answers a request that came from this address.
pub(super) async fn answer(registry: Arc<Registry>, from: IpAddr, request: Request) -> Response {
    let method = request.method().clone();
    let path = request.uri().path().to_owned();
    let route = Route::of(&path);
    let kind = metrics::kind(route.as_ref().ok());
    let challenge = registry.challenge(&method, route.as_ref().ok(), &request);
    let result = Box::pin(registry.clone().handle(route, from, request)).await;
    let mut response = result.unwrap_or_else(IntoResponse::into_response);
    let headers = response.headers_mut();
    headers.insert("docker-distribution-api-version", HeaderValue::from_static("registry/2.0"));
    headers.insert("x-content-type-options", HeaderValue::from_static("nosniff"));
    match response.status() {
        StatusCode::UNAUTHORIZED => {
            // Bearer first: some clients take the first that they know.
            let headers = response.headers_mut();
            if let Some(bearer) = challenge {
                headers.append(WWW_AUTHENTICATE, bearer);
            }
            headers.append(WWW_AUTHENTICATE, HeaderValue::from_static("Basic realm=\"gapscan registry\""));
        }
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("5"));
        }
        _ => {}
    }
    registry.metrics.answered(&method, kind, response.status());
    tracing::debug!(%method, path = %crate::base::text::printable(&path), status = response.status().as_u16(), "registry request");
    response
}

/// Answers what only a machine's supervisor asks, on an address of its own.
pub(super) async fn answer_supervisor(registry: Arc<Registry>, request: Request) -> Response {
    match (request.method() == Method::GET, Route::of(request.uri().path())) {
        (true, Ok(Route::Live)) => "ok\n".into_response(),
        (true, Ok(Route::Ready)) => registry.ready().await,
        (true, Ok(Route::Metrics)) => registry.metrics_text().await,
        _ => Refusal::unsupported(StatusCode::NOT_FOUND).into_response(),
    }
}

impl Registry {
    async fn handle(
        self: Arc<Self>,
        route: Result<Route, Refusal>,
        from: IpAddr,
        request: Request,
    ) -> Result<Response, Refusal> {
        let (parts, body) = request.into_parts();
        let (method, headers) = (parts.method, parts.headers);
        match (&method, &route) {
            (&Method::GET, Ok(Route::Live)) => return Ok("ok\n".into_response()),
            (&Method::GET, Ok(Route::Ready)) => return Ok(self.ready().await),
            _ => {}
        }
        let access = self.gate.access(&headers, Timestamp::now());
        let access = access.ok_or_else(|| Refusal::unauthorized("name a user and its password, or bring a token"))?;
        let route = route?;
        if let Some(repository) = route.repository() {
            access.demand(repository, right(&method, &route))?;
        }
        let query = Query::of(parts.uri.query());
        let reads = matches!(method, Method::GET | Method::HEAD);
        match (method.as_str(), route) {
            (_, Route::Base) if reads => Ok(json("{}".to_owned())),
            ("GET", Route::Token) => self.token(&access, &query),
            ("GET", Route::Space) => self.space().await,
            ("GET", Route::Metrics) => {
                access.demand_all()?;
                Ok(self.metrics_text().await)
            }
            ("POST", Route::Collect) => {
                access.demand_all()?;
                let collected = self.collect(self.collect).await?;
                Ok(json(serde_json::to_string(&collected).expect("numbers are JSON")))
            }
            ("GET", Route::Catalog) => {
                access.demand_catalog()?;
                self.catalog(query).await
            }
            ("GET", Route::Tags(repository)) => self.tags(repository, query).await,
            (_, Route::Manifest(repository, name)) if reads => {
                let response =
                    self.blocking(move |r| manifest::get(&r.store, &repository, name, r.limits.manifest_bytes)).await?;
                if method == Method::GET {
                    self.metrics.sent(content_length(response.headers()).unwrap_or(0));
                }
                Ok(response)
            }
            ("PUT", Route::Manifest(repository, name)) => {
                self.put_manifest(repository, name, &query, &headers, body).await
            }
            ("DELETE", Route::Manifest(repository, name)) => {
                self.blocking(move |r| manifest::delete(&r.store, &repository, name)).await
            }
            (_, Route::Blob(repository, digest)) if reads => {
                // RFC 9110, 14.2: it means nothing for other methods.
                let range = text(&headers, RANGE.as_str()).filter(|_| method == Method::GET).map(str::to_owned);
                let metrics = self.metrics.clone();
                self.blocking(move |r| download::get(&r.store, metrics, &repository, &digest, range.as_deref())).await
            }
            ("DELETE", Route::Blob(repository, digest)) => {
                self.blocking(move |r| match r.store.unlink_blob(&repository, &digest)? {
                    true => Ok(manifest::empty(StatusCode::ACCEPTED)),
                    false => Err(Refusal::blob_unknown()),
                })
                .await
            }
            ("GET", Route::Referrers(repository, subject)) => {
                let artifact_type = query.value("artifactType").map(str::to_owned);
                let after = query.value("last").map(parse_digest).transpose()?;
                let wanted = Wanted { subject, artifact_type, after };
                self.blocking(move |r| manifest::referrers(&r.store, &repository, &wanted, r.limits.manifest_bytes))
                    .await
            }
            ("POST", Route::Uploads(repository)) => {
                self.start_upload(repository, &access, from, &query, Announced::of(&headers), body).await
            }
            ("PATCH", Route::Upload(repository, id)) => {
                self.continue_upload(repository, id, None, Announced::of(&headers), body).await
            }
            ("PUT", Route::Upload(repository, id)) => {
                let digest = query.value("digest").ok_or_else(|| Refusal::digest_invalid("the digest is missing"))?;
                let digest = parse_digest(digest)?;
                self.continue_upload(repository, id, Some(digest), Announced::of(&headers), body).await
            }
            ("GET", Route::Upload(repository, id)) => self.upload_status(&repository, id),
            ("DELETE", Route::Upload(repository, id)) => self.cancel_upload(&repository, id),
            _ => Err(Refusal::unsupported(StatusCode::METHOD_NOT_ALLOWED)),
        }
    }

    /// Where and for what a client gets a token (Docker's token authentication specification).
    fn challenge(&self, method: &Method, route: Option<&Route>, request: &Request) -> Option<HeaderValue> {
        let Gate::Closed { .. } = self.gate else { return None };
        // Under the name that the client knows the server by, if that is one. HTTP/2 has it in the address.
        let name =
            request.uri().authority().map(|name| name.as_str()).or_else(|| text(request.headers(), HOST.as_str()));
        let host: Authority = name?.parse().ok()?;
        let scheme = if self.secured { "https" } else { "http" };
        let scope = match route {
            Some(Route::Catalog) => ",scope=\"registry:catalog:*\"".to_owned(),
            Some(route) => route.repository().map_or_else(String::new, |repository| {
                let actions = match right(method, route) {
                    Right::Pull => "pull",
                    Right::Push => "pull,push",
                    Right::Delete => "delete",
                };
                format!(",scope=\"repository:{repository}:{actions}\"")
            }),
            None => String::new(),
        };
        let challenge = format!("Bearer realm=\"{scheme}://{host}/token\",service=\"{SERVICE}\"{scope}");
        HeaderValue::from_str(&challenge).ok()
    }

    fn token(&self, access: &Access, query: &Query) -> Result<Response, Refusal> {
        let now = Timestamp::now();
        let lasts =
            match query.value("lasts") {
                None => None,
                Some(text) => Some(text.parse().map_err(|_| {
                    Refusal::new(StatusCode::BAD_REQUEST, "UNSUPPORTED", "`lasts` is a number of seconds")
                })?),
            };
        let (token, seconds) = self.gate.issue(access, query.values("scope"), lasts, now)?;
        let answer = serde_json::json!({
            "token": token, "access_token": token, "expires_in": seconds, "issued_at": now.to_string(),
        });
        let mut response = json(answer.to_string());
        response.headers_mut().insert(http::header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        Ok(response)
    }

    /// Bytes that content may still take.
    pub(super) fn available_bytes(&self) -> Result<u64, Refusal> {
        Ok(self.store.available_bytes()?.saturating_sub(self.reserve_bytes))
    }

    async fn space(self: &Arc<Self>) -> Result<Response, Refusal> {
        let available = self.blocking(Self::available_bytes).await?;
        Ok(json(serde_json::json!({ "availableBytes": available }).to_string()))
    }

    /// Why no content can be taken now; `None` if it can.
    async fn not_ready(self: &Arc<Self>) -> Option<&'static str> {
        if self.stopping.load(Ordering::Relaxed) {
            return Some("stopping");
        }
        let checked = self.blocking(|r| Ok((r.store.is_writable(), r.available_bytes()?))).await;
        match checked {
            Ok((true, 1..)) => None,
            Ok((true, 0)) => Some("the disk is full"),
            Ok((false, _)) | Err(_) => Some("the folder can't be written"),
        }
    }

    pub(super) async fn ready(self: &Arc<Self>) -> Response {
        match self.not_ready().await {
            None => "ok\n".into_response(),
            Some(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {why}\n")).into_response(),
        }
    }

    pub(super) async fn metrics_text(self: &Arc<Self>) -> Response {
        let ready = self.not_ready().await.is_none();
        let available_bytes = self.blocking(Self::available_bytes).await.ok();
        let now = metrics::Now { uploads: self.uploads.count(), available_bytes, ready };
        ([(CONTENT_TYPE, metrics::CONTENT_TYPE)], self.metrics.text(&now)).into_response()
    }

    /// Removes what nobody needs, while others go on.
    pub(super) async fn collect(self: &Arc<Self>, policy: CollectPolicy) -> Result<Collected, Refusal> {
        let collected =
            self.blocking(move |r| Ok(r.store.collect(policy, CollectMode::Remove, r.limits.manifest_bytes)?)).await;
        self.metrics.collected(collected.as_ref().ok(), Timestamp::now());
        collected
    }

    /// Runs what touches the disk where it does not hold up others.
    pub(super) async fn blocking<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Self) -> Result<T, Refusal> + Send + 'static,
    ) -> Result<T, Refusal> {
        let registry = self.clone();
        tokio::task::spawn_blocking(move || work(&registry)).await.map_err(std::io::Error::other)?
    }

    /// Runs what must come to its end although nobody waits for it any more. The server does, when it stops.
    pub(super) async fn owned<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, Refusal> {
        Ok(self.tasks.spawn(work).await.map_err(std::io::Error::other)?)
    }

    async fn put_manifest(
        self: &Arc<Self>,
        repository: Repository,
        name: Option<Name>,
        query: &Query,
        headers: &HeaderMap,
        body: Body,
    ) -> Result<Response, Refusal> {
        let media_type = text(headers, CONTENT_TYPE.as_str())
            .map(|text| text.split(';').next().unwrap_or(text).trim().to_owned())
            .ok_or_else(|| Refusal::manifest_invalid("it has no Content-Type"))?;
        let tags: Vec<Tag> = query
            .values("tag")
            .map(|tag| tag.parse().map_err(|_| Refusal::manifest_invalid("a `tag` parameter is no tag")))
            .collect::<Result<_, _>>()?;
        if tags.len() > TAGS {
            return Err(Refusal::new(StatusCode::URI_TOO_LONG, "SIZE_INVALID", format!("at most {TAGS} tags at once")));
        }
        let Ok(_place) = self.manifests.try_acquire() else {
            return Err(Refusal::too_many("too many manifests are being received"));
        };
        let bytes = read_capped(body, self.limits.manifest_bytes, self.limits.stall).await?;
        // What is kept free of blobs is for small files such as this, but not all of it.
        if self.store.available_bytes()? < self.reserve_bytes / 2 + bytes.len() as u64 {
            return Err(Refusal::full(0));
        }
        self.metrics.received(bytes.len() as u64);
        let put = Put { repository, name, tags, media_type, parts: self.parts };
        self.blocking(move |r| manifest::put(&r.store, &put, &bytes)).await
    }

    async fn tags(self: &Arc<Self>, repository: Repository, query: Query) -> Result<Response, Refusal> {
        let name = repository.clone();
        let tags = self
            .blocking(move |r| {
                if !r.store.has_repository(&name) {
                    return Err(Refusal::name_unknown());
                }
                Ok(r.store.tags(&name)?.iter().map(ToString::to_string).collect::<Vec<_>>())
            })
            .await?;
        let (page, link) = query.page(tags, &format!("/v2/{repository}/tags/list"))?;
        Ok(with_link(json(serde_json::json!({ "name": repository.as_str(), "tags": page }).to_string()), link))
    }

    async fn catalog(self: &Arc<Self>, query: Query) -> Result<Response, Refusal> {
        let names =
            self.blocking(|r| Ok(r.store.repositories()?.iter().map(ToString::to_string).collect::<Vec<_>>())).await?;
        let (page, link) = query.page(names, "/v2/_catalog")?;
        Ok(with_link(json(serde_json::json!({ "repositories": page }).to_string()), link))
    }
}

/// The right that a request needs in its repository.
fn right(method: &Method, route: &Route) -> Right {
    match (method, route) {
        (_, Route::Uploads(_) | Route::Upload(..)) => Right::Push,
        (&Method::GET | &Method::HEAD, _) => Right::Pull,
        (&Method::DELETE, _) => Right::Delete,
        _ => Right::Push,
    }
}

/// The parameters of a request.
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    fn of(text: Option<&str>) -> Self {
        Self(url::form_urlencoded::parse(text.unwrap_or_default().as_bytes()).into_owned().collect())
    }

    pub(super) fn value(&self, name: &str) -> Option<&str> {
        self.values(name).next()
    }

    fn values(&self, name: &str) -> impl Iterator<Item = &str> {
        self.0.iter().filter(move |(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The part of a sorted list that `n` and `last` ask for, and the address of the next.
    fn page(&self, mut all: Vec<String>, address: &str) -> Result<(Vec<String>, Option<String>), Refusal> {
        let count = match self.value("n") {
            None => PAGE,
            Some(text) => text
                .parse::<usize>()
                .map_err(|_| Refusal::new(StatusCode::BAD_REQUEST, "PAGINATION_NUMBER_INVALID", "n is no number"))?
                .min(PAGE),
        };
        if let Some(last) = self.value("last") {
            all.retain(|name| name.as_str() > last);
        }
        let more = all.len() > count;
        all.truncate(count);
        let link = all.last().filter(|_| more).map(|last| format!("<{address}?n={count}&last={last}>; rel=\"next\""));
        Ok((all, link))
    }
}

pub(super) fn parse_digest(text: &str) -> Result<ContentDigest, Refusal> {
    text.parse().map_err(|error: NotADigest| Refusal::digest_invalid(error.to_string()))
}

pub(super) fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

fn content_length(headers: &HeaderMap) -> Option<u64> {
    text(headers, http::header::CONTENT_LENGTH.as_str())?.parse().ok()
}

async fn read_capped(body: Body, limit: u64, stall: Duration) -> Result<Vec<u8>, Refusal> {
    let mut pieces = body.into_data_stream();
    let mut bytes = Vec::new();
    // A manifest is small: all of it has the time that others have for a piece.
    let end = tokio::time::Instant::now() + stall;
    loop {
        match tokio::time::timeout_at(end, pieces.next()).await {
            Ok(Some(Ok(piece))) if (bytes.len() + piece.len()) as u64 <= limit => bytes.extend_from_slice(&piece),
            Ok(Some(Ok(_))) => {
                let message = format!("a manifest has at most {limit} bytes");
                return Err(Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, "MANIFEST_INVALID", message));
            }
            Ok(None) => return Ok(bytes),
            Ok(Some(Err(_))) => return Err(Refusal::manifest_invalid("the body broke off")),
            Err(_) => return Err(Refusal::new(StatusCode::REQUEST_TIMEOUT, "MANIFEST_INVALID", "the body stopped")),
        }
    }
}

fn json(text: String) -> Response {
    ([(CONTENT_TYPE, "application/json")], text).into_response()
}

fn with_link(mut response: Response, link: Option<String>) -> Response {
    if let Some(link) = link.and_then(|link| HeaderValue::from_str(&link).ok()) {
        response.headers_mut().insert("link", link);
    }
    response
}

pub(super) fn created(repository: &Repository, digest: &ContentDigest) -> Response {
    Response::builder()
        .status(StatusCode::CREATED)
        .header("location", format!("/v2/{repository}/blobs/{digest}"))
        .header("docker-content-digest", digest.to_string())
        .body(Body::empty())
        .expect("digests and names are header values")
}
