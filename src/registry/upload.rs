//! Writing blobs: streamed in constant memory, and never completed with content that did not verify.
//!
//! A blob goes up as one POST that opens a session and one PUT with the whole content. The last piece is held back until the
//! reader has reported its end without an error, so a reader that verifies at its end keeps unverified content from ever
//! being complete. Where that one PUT is refused before the kept beginning is used up, the content goes up in chunks.

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::stream;
use reqwest::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE};
use reqwest::{Body, Method, Response, StatusCode};
use tokio::io::AsyncRead;
use tokio::sync::mpsc;
use url::Url;

use super::auth::Scope;
use super::client::{Client, Mount, claimed_digest};
use super::error::{Action, RegistryError};
use super::http::text_header;
use super::reference::Repository;
use super::source::Source;
use crate::base::digest::Digest;

/// Bytes of a chunk where content goes up in chunks because the registry refused it in one piece.
const CHUNK: usize = 8 << 20;
/// Pieces on their way from the reader to the connection.
const PIECES: usize = 4;
/// Bytes a second that a registry is given for storing what it has received before it answers.
const STORE_RATE: u64 = 10 << 20;
/// How long is waited for clean-up that nothing depends on.
const CLEAN_UP: Duration = Duration::from_secs(5);

/// How blobs are sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Upload {
    /// In one piece; in chunks once the registry has refused a piece as too large.
    #[default]
    Whole,
    /// In chunks of this many bytes, each held in memory.
    Chunks(NonZeroUsize),
}

/// The upload setting with what was learned.
#[derive(Debug)]
pub(super) struct UploadMode {
    setting: Upload,
    refused_whole: AtomicBool,
}

impl UploadMode {
    pub(super) fn new(setting: Upload) -> Self {
        Self { setting, refused_whole: AtomicBool::new(false) }
    }

    fn chunk(&self) -> Option<usize> {
        match self.setting {
            Upload::Chunks(bytes) => Some(bytes.get()),
            Upload::Whole if self.refused_whole.load(Ordering::Relaxed) => Some(CHUNK),
            Upload::Whole => None,
        }
    }
}

/// One upload under way.
struct Job<'a> {
    client: &'a Client,
    action: Action,
    scope: Scope,
    digest: Digest,
    size: u64,
}

impl Client {
    /// Asks the registry to take a blob from another of its repositories.
    ///
    /// # Errors
    /// When the registry can't be asked. That it declines is no error.
    pub async fn mount(
        &self,
        repository: &Repository,
        digest: &Digest,
        from: &Repository,
    ) -> Result<Mount, RegistryError> {
        let action = self.action("mount blob", digest, "in", repository);
        let mut url = self.url(&format!("{repository}/blobs/uploads/"));
        url.query_pairs_mut().append_pair("mount", &digest.to_string()).append_pair("from", from.as_str());
        let mut scope = Self::push_scope(repository);
        scope.0.extend(Self::pull_scope(from).0);
        let expected = [StatusCode::CREATED, StatusCode::ACCEPTED];
        let response = self
            .ask(&action, &scope, &expected, Method::POST, url, |request| request.header(CONTENT_LENGTH, 0))
            .await?;
        if response.status() == StatusCode::CREATED {
            return Ok(Mount::Mounted);
        }
        let job = Job { client: self, scope: Self::push_scope(repository), action, digest: *digest, size: 0 };
        job.cancel(&job.location(&response)?).await;
        Ok(Mount::Declined)
    }

    /// Stores a blob. The registry has it, whole and with this length, when this returns without an error; and nothing is
    /// completed there unless `content` yields exactly `size` bytes and then its end without an error.
    ///
    /// # Errors
    /// [`RegistryError::Content`] when the reader fails or has another length; else when the registry refuses or fails.
    ///
    /// # Cancel safety
    /// Dropped, it leaves at most an upload session that the registry will purge.
    pub async fn push_blob(
        &self,
        repository: &Repository,
        digest: &Digest,
        size: u64,
        content: impl AsyncRead + Send + Unpin,
    ) -> Result<(), RegistryError> {
        let action = self.action("push blob", digest, "to", repository);
        let job = Job { client: self, scope: Self::push_scope(repository), action, digest: *digest, size };
        let mut source = Source::new(content, size);
        let mut attempts = 0;
        loop {
            let opened = job.open(repository).await?;
            let sent = match self.inner.upload.chunk() {
                None => job.send_whole(opened.clone(), &mut source).await,
                Some(bytes) => job.send_chunks(opened.clone(), &mut source, bytes).await,
            };
            let Err(error) = sent else { break };
            // The blob may be there although the answer was lost.
            if error.is_transient() && source.is_done() && self.blob_exists(repository, digest, size).await? {
                return Ok(());
            }
            job.cancel(&opened).await;
            attempts += 1;
            let again = match &error {
                RegistryError::Status { status, .. }
                    if matches!(status.as_u16(), 405 | 411 | 413) && self.inner.upload.chunk().is_none() =>
                {
                    self.inner.upload.refused_whole.store(true, Ordering::Relaxed);
                    true
                }
                error => error.is_transient(),
            };
            if !again || attempts > self.inner.retry.repeats || !source.rewind() {
                return Err(error);
            }
            tracing::debug!(%error, "sending a blob again");
            tokio::time::sleep(
                error.retry_after().unwrap_or_default().max(self.inner.retry.first_pause * attempts as u32),
            )
            .await;
        }
        if self.blob_stored(repository, digest, size).await? {
            return Ok(());
        }
        Err(job.protocol("the registry acknowledged it, and then does not have it with that length"))
    }

    /// Like [`Client::blob_exists`], but a registry that names no length is believed.
    async fn blob_stored(&self, repository: &Repository, digest: &Digest, size: u64) -> Result<bool, RegistryError> {
        let action = self.action("look for blob", digest, "in", repository);
        let url = self.url(&format!("{repository}/blobs/{digest}"));
        let expected = [StatusCode::OK, StatusCode::NOT_FOUND];
        let response =
            self.ask(&action, &Self::pull_scope(repository), &expected, Method::HEAD, url, |request| request).await?;
        let length = text_header(response.headers(), CONTENT_LENGTH.as_str()).and_then(|text| text.parse::<u64>().ok());
        Ok(response.status() == StatusCode::OK && length.is_none_or(|length| length == size))
    }
}

impl Job<'_> {
    async fn open(&self, repository: &Repository) -> Result<Url, RegistryError> {
        let url = self.client.url(&format!("{repository}/blobs/uploads/"));
        let response = self
            .client
            .ask(&self.action, &self.scope, &[StatusCode::ACCEPTED], Method::POST, url, |request| {
                request.header(CONTENT_LENGTH, 0)
            })
            .await?;
        self.location(&response)
    }

    /// Where the session is. Content goes to the registry's own address only; a proxy that loses scheme or port is common,
    /// and the same host without a port is taken for it.
    fn location(&self, response: &Response) -> Result<Url, RegistryError> {
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

    async fn send_whole<R: AsyncRead + Send + Unpin>(
        &self,
        session: Url,
        source: &mut Source<R>,
    ) -> Result<(), RegistryError> {
        let inner = &self.client.inner;
        let (pieces, mut body) = mpsc::channel::<std::io::Result<Bytes>>(PIECES);
        let body = stream::poll_fn(move |cx| body.poll_recv(cx));
        let mut request = inner
            .http
            .put(self.completion(session))
            .header(CONTENT_TYPE, "application/octet-stream")
            .header(CONTENT_LENGTH, self.size)
            .body(Body::wrap_stream(body));
        if let Some(header) = inner.auth.latest(&self.scope).await {
            request = request.header(AUTHORIZATION, header);
        }
        let mut answer = Box::pin(request.send());
        let early = {
            let mut pump = std::pin::pin!(self.pump(source, pieces));
            tokio::select! {
                answered = &mut answer => Some(answered),
                pumped = &mut pump => {
                    if pumped.is_err() {
                        // The body has ended with an error: the connection is being torn down, which is waited for so
                        // that the registry has surely not seen a whole request.
                        let _ = tokio::time::timeout(CLEAN_UP, &mut answer).await;
                    }
                    pumped?;
                    None
                }
            }
        };
        let was_early = early.is_some();
        let answered = match early {
            Some(answered) => answered,
            None => {
                let waited = self.store_time();
                tokio::time::timeout(waited, answer)
                    .await
                    .map_err(|_| RegistryError::Stalled { action: self.action.clone(), waited })?
            }
        };
        let response = answered.map_err(|source| RegistryError::Connection {
            action: self.action.clone(),
            source: source.without_url(),
        })?;
        self.completed(response).await?;
        if was_early {
            // It had the blob already and said so before it took all of it. The reader's verdict still counts.
            source.drain().await.map_err(|source| RegistryError::Content { action: self.action.clone(), source })?;
        }
        Ok(())
    }

    /// Moves the content into the request, one piece behind the reader.
    async fn pump<R: AsyncRead + Send + Unpin>(
        &self,
        source: &mut Source<R>,
        pieces: mpsc::Sender<std::io::Result<Bytes>>,
    ) -> Result<(), RegistryError> {
        let waited = self.client.inner.limits.stall;
        let mut held: Option<Bytes> = None;
        loop {
            let next = match source.piece().await {
                Ok(next) => next,
                Err(error) => {
                    let abort = std::io::Error::other("the content did not verify");
                    let _ = tokio::time::timeout(CLEAN_UP, pieces.send(Err(abort))).await;
                    return Err(RegistryError::Content { action: self.action.clone(), source: error });
                }
            };
            let ended = next.is_none();
            if let Some(piece) = std::mem::replace(&mut held, next) {
                let sent = tokio::time::timeout(waited, pieces.send(Ok(piece)))
                    .await
                    .map_err(|_| RegistryError::Stalled { action: self.action.clone(), waited })?;
                if sent.is_err() {
                    // The request is over; its answer says why.
                    std::future::pending::<()>().await;
                }
            }
            if ended {
                return Ok(());
            }
        }
    }

    async fn send_chunks<R: AsyncRead + Send + Unpin>(
        &self,
        mut session: Url,
        source: &mut Source<R>,
        bytes: usize,
    ) -> Result<(), RegistryError> {
        let mut offset = 0_u64;
        let mut rest = Bytes::new();
        loop {
            let mut chunk = BytesMut::with_capacity(bytes.min(CHUNK));
            while chunk.len() < bytes {
                if rest.is_empty() {
                    let piece = source.piece().await;
                    match piece.map_err(|source| RegistryError::Content { action: self.action.clone(), source })? {
                        Some(piece) => rest = piece,
                        None => break,
                    }
                }
                chunk.extend_from_slice(&rest.split_to(rest.len().min(bytes - chunk.len())));
            }
            if chunk.is_empty() {
                break;
            }
            let chunk = chunk.freeze();
            let end = offset + chunk.len() as u64;
            session = self.client.retry(|| self.send_chunk(&session, offset, &chunk)).await?;
            offset = end;
        }
        let scope = &self.scope;
        let url = self.completion(session);
        let send = self.client.send(&self.action, scope, Method::PUT, url, |request| request.header(CONTENT_LENGTH, 0));
        self.completed(send.await?).await
    }

    /// Sends one chunk, unless a lost answer hid that the registry has it already; gives where the next one goes.
    async fn send_chunk(&self, session: &Url, offset: u64, chunk: &Bytes) -> Result<Url, RegistryError> {
        let end = offset + chunk.len() as u64;
        let client = self.client;
        let response = client
            .send(&self.action, &self.scope, Method::PATCH, session.clone(), |request| {
                request
                    .header(CONTENT_TYPE, "application/octet-stream")
                    .header(CONTENT_RANGE, format!("{offset}-{}", end - 1))
                    .header(CONTENT_LENGTH, chunk.len())
                    .body(chunk.clone())
            })
            .await?;
        match response.status() {
            StatusCode::ACCEPTED => self.location(&response),
            StatusCode::RANGE_NOT_SATISFIABLE => {
                let state =
                    client.send(&self.action, &self.scope, Method::GET, session.clone(), |request| request).await?;
                let has =
                    text_header(state.headers(), "range").and_then(|text| text.split('-').nth(1)?.parse::<u64>().ok());
                match has {
                    Some(last) if last + 1 == end => self.location(&state),
                    _ => Err(self.protocol("the registry lost the place in an upload")),
                }
            }
            _ => Err(client.refusal(response, &self.action).await),
        }
    }

    fn completion(&self, mut session: Url) -> Url {
        session.query_pairs_mut().append_pair("digest", &self.digest.to_string());
        session
    }

    async fn completed(&self, response: Response) -> Result<(), RegistryError> {
        if response.status() != StatusCode::CREATED {
            return Err(self.client.refusal(response, &self.action).await);
        }
        match claimed_digest(&response) {
            Some(found) if found != self.digest => {
                Err(RegistryError::Digest { action: self.action.clone(), expected: self.digest, found })
            }
            _ => Ok(()),
        }
    }

    /// Ends a session that will not be completed. What fails here is the registry's to purge.
    async fn cancel(&self, session: &Url) {
        let send = self.client.send(&self.action, &self.scope, Method::DELETE, session.clone(), |request| request);
        if !matches!(tokio::time::timeout(CLEAN_UP, send).await, Ok(Ok(_))) {
            tracing::debug!(action = %self.action, "an upload session was left for the registry to purge");
        }
    }

    fn store_time(&self) -> Duration {
        self.client.inner.limits.stall + Duration::from_secs(self.size / STORE_RATE)
    }

    fn protocol(&self, reason: &str) -> RegistryError {
        RegistryError::Protocol { action: self.action.clone(), reason: reason.to_owned() }
    }
}
