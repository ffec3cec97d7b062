//! The requests that bring a blob (distribution-spec 1.1, "Pushing blobs"). What runs while a body comes in is a task of its
//! own: a connection that breaks off drops the request, and what had arrived must still be written.

use std::net::IpAddr;
use std::sync::Arc;

use axum::body::Body;
use axum::response::Response;
use http::header::{CONTENT_LENGTH, CONTENT_RANGE, HeaderMap, HeaderValue, LOCATION, RANGE};
use http::{StatusCode, header::HeaderName};
use uuid::Uuid;

use super::auth::Access;
use super::content::{Algorithm, ContentDigest};
use super::error::Refusal;
use super::manifest::empty;
use super::router::{Query, Registry, created, parse_digest, text};
use super::token::Right;
use super::upload::Kept;
use crate::registry::reference::Repository;

/// What a request's head says of the body.
pub(super) struct Announced {
    range: Option<String>,
    length: Option<u64>,
}

impl Announced {
    pub(super) fn of(headers: &HeaderMap) -> Self {
        Self {
            range: text(headers, CONTENT_RANGE.as_str()).map(str::to_owned),
            length: text(headers, CONTENT_LENGTH.as_str()).and_then(|text| text.parse().ok()),
        }
    }
}

impl Registry {
    pub(super) async fn start_upload(
        self: Arc<Self>,
        repository: Repository,
        access: &Access,
        from: IpAddr,
        query: &Query,
        announced: Announced,
        body: Body,
    ) -> Result<Response, Refusal> {
        let algorithm = match query.value("digest-algorithm") {
            None => Algorithm::default(),
            Some(name) => Algorithm::ALL
                .into_iter()
                .find(|algorithm| algorithm.name() == name)
                .ok_or_else(|| Refusal::digest_invalid("this registry knows the algorithms sha256 and sha512"))?,
        };
        if let Some(digest) = query.value("mount") {
            let digest = parse_digest(digest)?;
            if self.mount(&repository, access, query.value("from"), digest).await? {
                return Ok(created(&repository, &digest));
            }
            return self.open_upload(&repository, from, digest.algorithm());
        }
        let Some(digest) = query.value("digest").map(parse_digest).transpose()? else {
            return self.open_upload(&repository, from, algorithm);
        };
        self.check_length(announced.length.unwrap_or(0))?;
        self.check_room(announced.length.unwrap_or(0))?;
        let id = self.uploads.start(&repository, from, Kept::Once, digest.algorithm())?;
        let registry = self.clone();
        let result = self
            .owned(async move {
                let result = registry.receive(&repository, id, Some(digest), &announced, body).await;
                // Whatever came of it, nobody else knows this session.
                let _ = registry.uploads.end(&repository, id);
                result
            })
            .await?;
        result.map_err(|(refusal, _)| refusal)
    }

    fn open_upload(&self, repository: &Repository, from: IpAddr, algorithm: Algorithm) -> Result<Response, Refusal> {
        let id = self.uploads.start(repository, from, Kept::Across, algorithm)?;
        Ok(session(StatusCode::ACCEPTED, repository, id, 0))
    }

    async fn mount(
        self: &Arc<Self>,
        repository: &Repository,
        access: &Access,
        from: Option<&str>,
        digest: ContentDigest,
    ) -> Result<bool, Refusal> {
        let from = match from {
            // Where it comes from must be said by who may not read everything.
            None if *access != Access::All => return Ok(false),
            None => None,
            Some(from) => match from.parse::<Repository>() {
                Ok(from) if access.allows(&from, Right::Pull) => Some(from),
                // As if it was not there: that it is would already be telling.
                _ => return Ok(false),
            },
        };
        let repository = repository.clone();
        self.blocking(move |r| Ok(r.store.mount(&repository, from.as_ref(), &digest)?)).await
    }

    /// The rest of an upload, or a part: a PUT names the digest, a PATCH does not.
    pub(super) async fn continue_upload(
        self: Arc<Self>,
        repository: Repository,
        id: Uuid,
        digest: Option<ContentDigest>,
        announced: Announced,
        body: Body,
    ) -> Result<Response, Refusal> {
        let registry = self.clone();
        let name = repository.clone();
        let result =
            self.owned(async move { registry.receive(&repository, id, digest, &announced, body).await }).await?;
        result.map_err(|(refusal, length)| match length {
            // Whoever is told this can go on.
            Some(length) => refusal.with_session(location(&name, id), length),
            None => refusal,
        })
    }

    /// Takes the body and, with a digest, completes the upload. An error comes with the length where the session stays.
    async fn receive(
        &self,
        repository: &Repository,
        id: Uuid,
        digest: Option<ContentDigest>,
        announced: &Announced,
        body: Body,
    ) -> Result<Response, (Refusal, Option<u64>)> {
        let upload = self.uploads.get(repository, id).map_err(|refusal| (refusal, None))?;
        let (mut session_, interrupted) = upload.take_over().await;
        let before = session_.length();
        let received = async {
            let length = session_.check_range(announced.range.as_deref(), announced.length)?;
            self.check_length(before.saturating_add(length.unwrap_or(0)))?;
            self.check_room(length.unwrap_or(0))?;
            session_.append(body, length, &self.limits, &|bytes| self.check_room(bytes), &interrupted).await
        };
        let received = received.await;
        self.metrics.received(session_.length().saturating_sub(before));
        received.map_err(|refusal| (refusal, Some(session_.length())))?;
        let Some(digest) = digest else {
            return Ok(session(StatusCode::ACCEPTED, repository, id, session_.length()));
        };
        let completed = session_.complete(self.store.clone(), repository.clone(), digest).await;
        let length = session_.length();
        drop(session_);
        match completed {
            Ok(()) => {
                let _ = self.uploads.end(repository, id);
                Ok(created(repository, &digest))
            }
            Err(refusal) if refusal.status().is_server_error() => Err((refusal, Some(length))),
            Err(refusal) => {
                let _ = self.uploads.end(repository, id);
                Err((refusal, None))
            }
        }
    }

    /// That a blob may be so long.
    fn check_length(&self, length: u64) -> Result<(), Refusal> {
        let most = self.limits.blob_bytes;
        if length > most { Err(Refusal::too_large(most)) } else { Ok(()) }
    }

    /// That so many more bytes can be kept.
    fn check_room(&self, bytes: u64) -> Result<(), Refusal> {
        let available = self.available_bytes()?;
        if bytes > available { Err(Refusal::full(available)) } else { Ok(()) }
    }

    pub(super) fn upload_status(&self, repository: &Repository, id: Uuid) -> Result<Response, Refusal> {
        let length = self.uploads.get(repository, id)?.written();
        Ok(session(StatusCode::NO_CONTENT, repository, id, length))
    }

    pub(super) fn cancel_upload(&self, repository: &Repository, id: Uuid) -> Result<Response, Refusal> {
        self.uploads.end(repository, id)?;
        Ok(empty(StatusCode::NO_CONTENT))
    }
}

fn location(repository: &Repository, id: Uuid) -> String {
    format!("/v2/{repository}/blobs/uploads/{id}")
}

fn session(status: StatusCode, repository: &Repository, id: Uuid, length: u64) -> Response {
    let mut response = empty(status);
    say_where(response.headers_mut(), &location(repository, id), length);
    let id = HeaderValue::from_str(&id.to_string()).expect("an id is a header value");
    response.headers_mut().insert(HeaderName::from_static("docker-upload-uuid"), id);
    response
}

/// Where an upload goes on, and what is there of it. There is no way to write an empty range: a client that sees `0-0` has
/// to take it as nothing or as one byte, and is told the truth when it goes on from the wrong place.
pub(super) fn say_where(headers: &mut HeaderMap, location: &str, length: u64) {
    let value = |text: &str| HeaderValue::from_str(text).expect("names and numbers are header values");
    headers.insert(LOCATION, value(location));
    headers.insert(RANGE, value(&format!("0-{}", length.saturating_sub(1))));
}
