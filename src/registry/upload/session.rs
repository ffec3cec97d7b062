//! One session of an upload (distribution-spec 1.1, "Pushing blobs"): opened, asked for its place, completed, cancelled.

use std::time::Duration;

use reqwest::header::CONTENT_LENGTH;
use reqwest::{Method, Response, StatusCode};
use url::Url;

use super::{Blob, CLEAN_UP, Sessions};
use crate::registry::auth::Scope;
use crate::registry::client::{Client, claimed_digest};
use crate::registry::error::{Action, RegistryError};
use crate::registry::http::text_header;

/// A registry may still be writing what a broken connection brought: its answer counts once it stays the same.
const SETTLE: Duration = Duration::from_millis(100);
/// How often it is asked until then.
const SETTLES: usize = 50;

/// What is pushed, and how that is said and allowed.
pub(super) struct Target<'a> {
    pub(super) client: &'a Client,
    pub(super) blob: Blob<'a>,
    pub(super) action: Action,
    pub(super) scope: Scope,
}

/// A session that the registry has open.
pub(super) struct Session {
    pub(super) address: Url,
    /// Whether it was opened for this upload, and not before it. One that was may be forgotten meanwhile.
    pub(super) fresh: bool,
}

/// How a registry said that it has the blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Acknowledged {
    /// It named the digest.
    ByDigest,
    /// By nothing but 201.
    ByStatus,
}

impl Session {
    pub(super) fn given(address: Url) -> Self {
        Self { address, fresh: false }
    }
}

impl<'a> Target<'a> {
    pub(super) fn new(client: &'a Client, blob: Blob<'a>) -> Self {
        let action = client.action("push blob", blob.digest, "to", blob.repository);
        Self { client, blob, action, scope: Client::push_scope(blob.repository) }
    }

    pub(super) async fn open(&self) -> Result<Session, RegistryError> {
        let url = self.client.url(&format!("{}/blobs/uploads/", self.blob.repository));
        let response = self
            .client
            .ask(&self.action, &self.scope, &[StatusCode::ACCEPTED], Method::POST, url, |request| {
                request.header(CONTENT_LENGTH, 0)
            })
            .await?;
        Ok(Session { address: self.location(&response)?, fresh: true })
    }

    /// The upload of an earlier process, if the registry still has it, and how far it came.
    pub(super) async fn kept(&self, sessions: Option<&Sessions>) -> Result<Option<(Url, u64)>, RegistryError> {
        let inner = &self.client.inner;
        let Blob { repository, digest, size } = self.blob;
        let found = sessions.and_then(|sessions| sessions.find(&inner.registry, repository, digest, size));
        match found.filter(|address| address.origin() == inner.origin.origin()) {
            Some(address) => {
                let reached = self.reached(&address).await?;
                if reached.is_none() {
                    inner.upload.learn_loss();
                }
                Ok(reached)
            }
            None => Ok(None),
        }
    }

    /// How far an upload came, as the registry says, and where it goes on; `None` where it knows nothing of it.
    pub(super) async fn reached(&self, session: &Url) -> Result<Option<(Url, u64)>, RegistryError> {
        let mut before = None;
        for _ in 0..SETTLES {
            let Some(response) = self.client.retry(|| self.state(session)).await? else { return Ok(None) };
            let range = text_header(response.headers(), "range").unwrap_or_default();
            let last =
                range.trim_start_matches("bytes=").split_once('-').and_then(|(_, last)| last.parse::<u64>().ok());
            // `0-0` says nothing or one byte.
            let Some(offset) = last.filter(|last| (1..self.blob.size).contains(last)).map(|last| last + 1) else {
                return Ok(None);
            };
            if before == Some(offset) {
                let address = match text_header(response.headers(), "location") {
                    Some(_) => self.location(&response)?,
                    None => session.clone(),
                };
                return Ok(Some((address, offset)));
            }
            before = Some(offset);
            tokio::time::sleep(SETTLE).await;
        }
        Ok(None)
    }

    /// What the registry says of a session; `None` when it has none. One that only stumbles has not said so.
    async fn state(&self, session: &Url) -> Result<Option<Response>, RegistryError> {
        let response =
            self.client.send(&self.action, &self.scope, Method::GET, session.clone(), |request| request).await?;
        if response.status() == StatusCode::NO_CONTENT {
            return Ok(Some(response));
        }
        let error = self.client.refusal(response, &self.action).await;
        if error.is_transient() { Err(error) } else { Ok(None) }
    }

    /// Where the session is. Content goes to the registry's own address only; a proxy that loses scheme or port is common,
    /// and the same host without a port is taken for it.
    pub(super) fn location(&self, response: &Response) -> Result<Url, RegistryError> {
        let origin = &self.client.inner.origin;
        let text = text_header(response.headers(), "location")
            .ok_or_else(|| self.protocol("the registry opened an upload without an address"))?;
        let mut url =
            origin.join(text).map_err(|_| self.protocol("the registry opened an upload at what is no address"))?;
        if url.origin() == origin.origin() {
            return Ok(url);
        }
        let same_host = url.host_str() == origin.host_str()
            && matches!(url.scheme(), "http" | "https")
            && url.port().is_none_or(|port| Some(port) == origin.port_or_known_default());
        let moved = same_host && url.set_scheme(origin.scheme()).is_ok() && url.set_port(origin.port()).is_ok();
        if moved {
            return Ok(url);
        }
        let target = url.origin().ascii_serialization();
        Err(RegistryError::ForeignHost { action: self.action.clone(), what: "upload", target })
    }

    /// The address of the request that completes the session.
    pub(super) fn completion(&self, session: &Url) -> Url {
        let mut url = session.clone();
        url.query_pairs_mut().append_pair("digest", &self.blob.digest.to_string());
        url
    }

    /// Completes a session that has everything. Only what verified may have come there.
    pub(super) async fn complete(&self, session: &Session) -> Result<Acknowledged, RegistryError> {
        let url = self.completion(&session.address);
        let response = self
            .client
            .send(&self.action, &self.scope, Method::PUT, url, |request| request.header(CONTENT_LENGTH, 0))
            .await?;
        self.completed(response).await
    }

    /// What the answer to the completing request says.
    pub(super) async fn completed(&self, response: Response) -> Result<Acknowledged, RegistryError> {
        if response.status() != StatusCode::CREATED {
            return Err(self.client.refusal(response, &self.action).await);
        }
        match claimed_digest(&response) {
            Some(found) if found != *self.blob.digest => {
                Err(RegistryError::Digest { action: self.action.clone(), expected: *self.blob.digest, found })
            }
            Some(_) => Ok(Acknowledged::ByDigest),
            None => Ok(Acknowledged::ByStatus),
        }
    }

    /// Ends a session that will not be completed. What fails here is the registry's to purge.
    pub(super) async fn cancel(&self, address: &Url) {
        let send = self.client.send(&self.action, &self.scope, Method::DELETE, address.clone(), |request| request);
        if !matches!(tokio::time::timeout(CLEAN_UP, send).await, Ok(Ok(_))) {
            tracing::debug!(action = %self.action, "an upload session was left for the registry to purge");
        }
    }

    /// Like [`Client::blob_exists`], but a registry that names no length is believed.
    pub(super) async fn is_stored(&self) -> Result<bool, RegistryError> {
        let Blob { repository, digest, size } = self.blob;
        let length = self.client.blob_length(repository, digest).await?;
        Ok(length.is_some_and(|length| length.is_none_or(|length| length == size)))
    }

    pub(super) fn protocol(&self, reason: &str) -> RegistryError {
        RegistryError::Protocol { action: self.action.clone(), reason: reason.to_owned() }
    }

    pub(super) fn unreadable(&self, source: std::io::Error) -> RegistryError {
        RegistryError::Content { action: self.action.clone(), source }
    }
}
