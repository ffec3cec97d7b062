//! From a request to its answer.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use futures::StreamExt;
use http::header::{CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HeaderMap, RANGE, WWW_AUTHENTICATE};
use http::{HeaderValue, Method, StatusCode};
use uuid::Uuid;

use super::auth::Gate;
use super::error::Refusal;
use super::route::Route;
use super::store::Store;
use super::upload::Uploads;
use super::{download, manifest};
use crate::base::digest::Digest;
use crate::base::limits::Limits;
use crate::registry::reference::{ManifestName, Repository};

/// Entries of a list that are sent at once where the client does not say.
const PAGE: usize = 1000;

/// All that a request is answered from.
#[derive(Debug)]
pub(super) struct Registry {
    pub(super) store: Arc<Store>,
    pub(super) uploads: Uploads,
    pub(super) gate: Gate,
    pub(super) limits: Limits,
}

pub(super) fn router(registry: Arc<Registry>) -> Router {
    Router::new().fallback(answer).with_state(registry)
}

async fn answer(State(registry): State<Arc<Registry>>, request: Request) -> Response {
    if matches!(request.uri().path(), "/livez" | "/readyz") && *request.method() == Method::GET {
        return "ok\n".into_response();
    }
    let method = request.method().clone();
    let path = request.uri().path().to_owned();
    let mut response = registry.handle(request).await.unwrap_or_else(IntoResponse::into_response);
    response.headers_mut().insert("docker-distribution-api-version", HeaderValue::from_static("registry/2.0"));
    response.headers_mut().insert("x-content-type-options", HeaderValue::from_static("nosniff"));
    if response.status() == StatusCode::UNAUTHORIZED {
        response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Basic realm=\"gapscan registry\""));
    }
    tracing::debug!(%method, path = %crate::base::text::printable(&path), status = response.status().as_u16(), "registry request");
    response
}

impl Registry {
    async fn handle(self: &Arc<Self>, request: Request) -> Result<Response, Refusal> {
        if !self.gate.admits(request.headers()) {
            return Err(Refusal::new(StatusCode::UNAUTHORIZED, "UNAUTHORIZED", "name a user and its password"));
        }
        let route = Route::of(request.uri().path())?;
        let query = Query::of(request.uri().query());
        let (parts, body) = request.into_parts();
        let headers = parts.headers;
        let reads = matches!(parts.method, Method::GET | Method::HEAD);
        match (parts.method.as_str(), route) {
            (_, Route::Base) if reads => Ok(json("{}".to_owned())),
            ("GET", Route::Catalog) => self.catalog(query).await,
            ("GET", Route::Tags(repository)) => self.tags(repository, query).await,
            (_, Route::Manifest(repository, name)) if reads => {
                self.blocking(move |r| manifest::get(&r.store, &repository, name, r.limits.manifest_bytes)).await
            }
            ("PUT", Route::Manifest(repository, name)) => self.put_manifest(repository, name, &headers, body).await,
            ("DELETE", Route::Manifest(repository, name)) => {
                self.blocking(move |r| manifest::delete(&r.store, &repository, name)).await
            }
            (_, Route::Blob(repository, digest)) if reads => {
                let range = text(&headers, RANGE.as_str()).map(str::to_owned);
                self.blocking(move |r| download::get(&r.store, &repository, &digest, range.as_deref())).await
            }
            ("DELETE", Route::Blob(repository, digest)) => {
                self.blocking(move |r| match r.store.unlink_blob(&repository, &digest)? {
                    true => Ok(manifest::empty(StatusCode::ACCEPTED)),
                    false => Err(Refusal::blob_unknown()),
                })
                .await
            }
            ("GET", Route::Referrers(repository, subject)) => {
                let wanted = query.value("artifactType").map(str::to_owned);
                self.blocking(move |r| {
                    manifest::referrers(&r.store, &repository, &subject, wanted.as_deref(), r.limits.manifest_bytes)
                })
                .await
            }
            ("POST", Route::Uploads(repository)) => self.start_upload(repository, query, body).await,
            ("PATCH", Route::Upload(repository, id)) => self.continue_upload(repository, id, &headers, body).await,
            ("PUT", Route::Upload(repository, id)) => self.complete_upload(repository, id, query, &headers, body).await,
            ("GET", Route::Upload(repository, id)) => {
                let length = self.uploads.get(&repository, id)?.lock().await.length()?;
                Ok(session(StatusCode::NO_CONTENT, &repository, id, length))
            }
            ("DELETE", Route::Upload(repository, id)) => {
                self.uploads.end(&repository, id)?;
                Ok(manifest::empty(StatusCode::NO_CONTENT))
            }
            _ => Err(Refusal::unsupported(StatusCode::METHOD_NOT_ALLOWED)),
        }
    }

    /// Runs what touches the disk where it does not hold up others.
    async fn blocking<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Self) -> Result<T, Refusal> + Send + 'static,
    ) -> Result<T, Refusal> {
        let registry = self.clone();
        tokio::task::spawn_blocking(move || work(&registry)).await.map_err(std::io::Error::other)?
    }

    async fn put_manifest(
        self: &Arc<Self>,
        repository: Repository,
        name: Option<ManifestName>,
        headers: &HeaderMap,
        body: Body,
    ) -> Result<Response, Refusal> {
        let media_type = text(headers, CONTENT_TYPE.as_str())
            .map(|text| text.split(';').next().unwrap_or(text).trim().to_owned())
            .ok_or_else(|| Refusal::manifest_invalid("it has no Content-Type"))?;
        let bytes = read_capped(body, self.limits.manifest_bytes, self.limits.stall).await?;
        self.blocking(move |r| manifest::put(&r.store, &repository, name, &media_type, &bytes)).await
    }

    async fn start_upload(
        self: &Arc<Self>,
        repository: Repository,
        query: Query,
        body: Body,
    ) -> Result<Response, Refusal> {
        if let Some(digest) = query.value("mount") {
            let digest = parse_digest(digest)?;
            let from = query.value("from").map(str::to_owned);
            let target = repository.clone();
            let mounted = self
                .blocking(move |r| {
                    let there = match from {
                        // Every user may read everything, so a blob may be taken from wherever it is.
                        None => r.store.has_content(&digest),
                        Some(from) => from.parse().is_ok_and(|from| r.store.has_blob(&from, &digest)),
                    };
                    if there {
                        r.store.link_blob(&target, &digest)?;
                    }
                    Ok(there)
                })
                .await?;
            if mounted {
                return Ok(created(&repository, &digest));
            }
            let id = self.uploads.start(&self.store, &repository)?;
            return Ok(session(StatusCode::ACCEPTED, &repository, id, 0));
        }
        let digest = query.value("digest").map(parse_digest).transpose()?;
        let id = self.uploads.start(&self.store, &repository)?;
        let Some(digest) = digest else { return Ok(session(StatusCode::ACCEPTED, &repository, id, 0)) };
        let result = self.finish(&repository, id, digest, body).await;
        // Whatever came of it, nobody else knows this session.
        let _ = self.uploads.end(&repository, id);
        result
    }

    async fn continue_upload(
        &self,
        repository: Repository,
        id: Uuid,
        headers: &HeaderMap,
        body: Body,
    ) -> Result<Response, Refusal> {
        let upload = self.uploads.get(&repository, id)?;
        let mut upload = upload.lock().await;
        upload.check_range(text(headers, CONTENT_RANGE.as_str()), content_length(headers))?;
        upload.append(body, self.limits.blob_bytes, self.limits.stall).await?;
        Ok(session(StatusCode::ACCEPTED, &repository, id, upload.length()?))
    }

    async fn complete_upload(
        &self,
        repository: Repository,
        id: Uuid,
        query: Query,
        headers: &HeaderMap,
        body: Body,
    ) -> Result<Response, Refusal> {
        let digest =
            parse_digest(query.value("digest").ok_or_else(|| Refusal::digest_invalid("the digest is missing"))?)?;
        let upload = self.uploads.get(&repository, id)?;
        upload.lock().await.check_range(text(headers, CONTENT_RANGE.as_str()), content_length(headers))?;
        self.finish(&repository, id, digest, body).await
    }

    async fn finish(&self, repository: &Repository, id: Uuid, digest: Digest, body: Body) -> Result<Response, Refusal> {
        let upload = self.uploads.get(repository, id)?;
        let mut upload = upload.lock().await;
        upload.append(body, self.limits.blob_bytes, self.limits.stall).await?;
        let completed = upload.complete(self.store.clone(), repository.clone(), digest).await;
        self.uploads.end(repository, id)?;
        completed?;
        Ok(created(repository, &digest))
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

/// The parameters of a request.
struct Query(Vec<(String, String)>);

impl Query {
    fn of(text: Option<&str>) -> Self {
        Self(url::form_urlencoded::parse(text.unwrap_or_default().as_bytes()).into_owned().collect())
    }

    fn value(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
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

fn parse_digest(text: &str) -> Result<Digest, Refusal> {
    text.parse().map_err(|_| Refusal::digest_invalid("a digest here is `sha256:` and 64 lower-case hexadecimal digits"))
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

fn content_length(headers: &HeaderMap) -> Option<u64> {
    text(headers, CONTENT_LENGTH.as_str())?.parse().ok()
}

async fn read_capped(body: Body, limit: u64, stall: Duration) -> Result<Vec<u8>, Refusal> {
    let mut pieces = body.into_data_stream();
    let mut bytes = Vec::new();
    loop {
        match tokio::time::timeout(stall, pieces.next()).await {
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

fn created(repository: &Repository, digest: &Digest) -> Response {
    Response::builder()
        .status(StatusCode::CREATED)
        .header("location", format!("/v2/{repository}/blobs/{digest}"))
        .header("docker-content-digest", digest.to_string())
        .body(Body::empty())
        .expect("digests and names are header values")
}

fn session(status: StatusCode, repository: &Repository, id: Uuid, length: u64) -> Response {
    Response::builder()
        .status(status)
        .header("location", format!("/v2/{repository}/blobs/uploads/{id}"))
        .header("docker-upload-uuid", id.to_string())
        .header("range", format!("0-{}", length.saturating_sub(1)))
        .body(Body::empty())
        .expect("names and numbers are header values")
}
