//! Writing blobs: streamed in constant memory, and never completed with content that did not verify.
//!
//! A blob goes up as one POST that opens a session and one PUT with the whole content. The last piece is held back until the
//! reader has reported its end without an error, so a reader that verifies at its end keeps unverified content from ever
//! being complete. Where that one PUT is refused before the kept beginning is used up, the content goes up in chunks.
//! Where it is cut, the registry is asked how much it has, and the rest follows, from there. A 201 that names the digest is
//! the acknowledgement; where it names none, the registry is asked whether it has the blob.

use std::io;
use std::num::NonZeroUsize;
use std::sync::Arc;
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
use super::content::{Content, Flow, Pieces, Sending};
use super::error::{Action, RegistryError};
use super::http::{LONGEST_PAUSE, text_header};
use super::reference::Repository;
use super::sessions::{Sessions, WORTH_KEEPING};
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

/// How often in all one blob may be taken up again. A link that breaks more often than this will not carry it.
const RESUMES: usize = 50;
/// A registry may still be writing what the broken connection brought: its answer counts once it stays the same.
const SETTLE: Duration = Duration::from_millis(100);
/// How often it is asked until then.
const SETTLES: usize = 50;

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

/// An upload that a registry opened, into which nothing was sent yet.
#[derive(Debug)]
#[must_use = "it is used for an upload, or cancelled"]
pub struct OpenUpload {
    repository: Repository,
    scope: Scope,
    address: Url,
}

/// A blob that is to be stored.
#[derive(Clone, Copy)]
pub struct BlobToPush<'a> {
    /// The repository that it goes to.
    pub repository: &'a Repository,
    /// Its digest.
    pub digest: &'a Digest,
    /// Its length in bytes.
    pub size: u64,
    /// Its bytes.
    pub content: &'a dyn Content,
}

/// What an upload took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sent {
    /// Bytes that were sent, also those that had to be sent again.
    pub bytes: u64,
    /// The offset at which an upload of an earlier process was continued.
    pub resumed_at: u64,
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
            if let Some(found) = claimed_digest(&response).filter(|found| found != digest) {
                return Err(RegistryError::Digest { action, expected: *digest, found });
            }
            return Ok(Mount::Mounted);
        }
        let job = Job { client: self, scope: scope.clone(), action, digest: *digest, size: 0 };
        let address = job.location(&response)?;
        Ok(Mount::Declined(OpenUpload { repository: repository.clone(), scope, address }))
    }

    /// Gives up an upload that nothing was sent into.
    pub async fn cancel(&self, upload: OpenUpload) {
        let OpenUpload { repository, scope, address } = upload;
        let action = Action::at("cancel", "an upload", "to", &self.inner.registry, &repository);
        Job { client: self, action, scope, digest: Digest::of([]), size: 0 }.cancel(&address).await;
    }

    /// Stores a blob that can be read again, into `opened` where that is given. As [`Client::push_blob`], and where the
    /// connection breaks it goes on from what the registry has. With `sessions`, it goes on too when an earlier process was
    /// killed.
    ///
    /// # Errors
    /// [`RegistryError::Content`] when the content can't be read or does not verify; else when the registry refuses or fails.
    ///
    /// # Cancel safety
    /// Dropped, it leaves at most an upload session that the registry will purge, or that the next call goes on with.
    pub async fn push_content(
        &self,
        blob: BlobToPush<'_>,
        opened: Option<OpenUpload>,
        sessions: Option<&Sessions>,
    ) -> Result<Sent, RegistryError> {
        let BlobToPush { repository, digest, size, content } = blob;
        let action = self.action("push blob", digest, "to", repository);
        let mut job = Job { client: self, scope: Self::push_scope(repository), action, digest: *digest, size };
        let registry = &self.inner.registry;
        let sessions = sessions.filter(|_| size >= WORTH_KEEPING);
        let mut sent = Sent::default();
        // Whether this call opened it, and not one before.
        let mut own = false;
        let (mut session, mut offset) = match opened {
            Some(opened) if opened.repository == *repository => {
                job.scope = opened.scope;
                (opened.address, 0)
            }
            _ => match job.kept(repository, sessions).await? {
                Some((session, offset)) => {
                    sent.resumed_at = offset;
                    (session, offset)
                }
                None => {
                    own = true;
                    (job.open(repository).await?, 0)
                }
            },
        };
        let mut failures = 0;
        let mut resumes = 0;
        loop {
            if let Some(sessions) = sessions {
                sessions.keep(registry, repository, digest, size, &session);
            }
            let before = sent.bytes;
            let result = match (self.inner.upload.chunk(), offset) {
                (None, 0) => job.put_whole(&session, content.pieces(0), &mut sent).await,
                (None, _) => job.patch_rest(&session, content.pieces(offset), offset, &mut sent).await,
                (Some(bytes), _) => {
                    let mut counted = Counted { pieces: content.pieces(offset), sent: &mut sent };
                    job.send_chunks(session.clone(), &mut counted, offset, bytes).await
                }
            };
            let error = match result {
                Ok(acknowledged) => {
                    if let Some(sessions) = sessions {
                        sessions.forget(registry, repository, digest);
                    }
                    if acknowledged == Acknowledged::ByStatus && !self.blob_stored(repository, digest, size).await? {
                        return Err(job.not_stored());
                    }
                    return Ok(sent);
                }
                Err(error) => error,
            };
            let moved = sent.bytes - before;
            // The blob may be there although the answer was lost.
            if error.is_transient() && offset + moved >= size && self.blob_exists(repository, digest, size).await? {
                if let Some(sessions) = sessions {
                    sessions.forget(registry, repository, digest);
                }
                return Ok(sent);
            }
            failures = if moved > CHUNK as u64 { 1 } else { failures + 1 };
            resumes += 1;
            let again = match &error {
                // The token ran out while the blob was on its way; opening an upload gets another.
                RegistryError::Unauthorized { .. } => failures == 1,
                // An upload that the registry forgot meanwhile.
                error if error.is_not_found() && !own => true,
                error => error.is_transient() || self.learned_chunks(error),
            };
            if !again || failures > self.inner.retry.repeats || resumes > RESUMES {
                if sessions.is_none() || !error.is_transient() {
                    if let Some(sessions) = sessions {
                        sessions.forget(registry, repository, digest);
                    }
                    job.cancel(&session).await;
                }
                return Err(error);
            }
            tracing::debug!(%error, moved, "going on with a blob");
            tokio::time::sleep(self.pause(&error, failures)).await;
            let reached = match error.is_transient() && moved + offset > CHUNK as u64 {
                true => job.reached(&session).await?,
                false => None,
            };
            (session, offset) = match reached {
                Some(reached) => reached,
                None => {
                    job.cancel(&session).await;
                    own = true;
                    (job.open(repository).await?, 0)
                }
            };
        }
    }

    fn pause(&self, error: &RegistryError, failures: usize) -> Duration {
        let pause = self.inner.retry.first_pause * failures as u32;
        error.retry_after().unwrap_or_default().min(LONGEST_PAUSE).max(pause)
    }

    /// Whether this error says that content must go up in chunks, and that was not known.
    fn learned_chunks(&self, error: &RegistryError) -> bool {
        let refused =
            matches!(error, RegistryError::Status { status, .. } if matches!(status.as_u16(), 405 | 411 | 413));
        refused && self.inner.upload.chunk().is_none() && {
            self.inner.upload.refused_whole.store(true, Ordering::Relaxed);
            true
        }
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
        self.push_blob_into(None, repository, digest, size, content).await
    }

    /// [`Client::push_blob`] into an upload that was opened already.
    ///
    /// # Errors
    /// As there.
    pub async fn push_blob_into(
        &self,
        opened: Option<OpenUpload>,
        repository: &Repository,
        digest: &Digest,
        size: u64,
        content: impl AsyncRead + Send + Unpin,
    ) -> Result<(), RegistryError> {
        let action = self.action("push blob", digest, "to", repository);
        let mut job = Job { client: self, scope: Self::push_scope(repository), action, digest: *digest, size };
        let mut source = Source::new(content, size);
        let mut attempts = 0;
        let mut given = None;
        if let Some(opened) = opened.filter(|opened| opened.repository == *repository) {
            // The token that opened it is for this scope, and the one request with the content can't be asked for another.
            job.scope = opened.scope;
            given = Some(opened.address);
        }
        let acknowledged = loop {
            let (opened, own) = match given.take() {
                Some(given) => (given, false),
                None => (job.open(repository).await?, true),
            };
            let sent = match self.inner.upload.chunk() {
                None => job.send_whole(opened.clone(), &mut source).await,
                Some(bytes) => job.send_chunks(opened.clone(), &mut source, 0, bytes).await,
            };
            let error = match sent {
                Ok(acknowledged) => break acknowledged,
                Err(error) => error,
            };
            // The blob may be there although the answer was lost.
            if error.is_transient() && source.is_done() && self.blob_exists(repository, digest, size).await? {
                return Ok(());
            }
            job.cancel(&opened).await;
            attempts += 1;
            let forgotten = error.is_not_found() && !own;
            let again = forgotten || self.learned_chunks(&error) || error.is_transient();
            if !again || attempts > self.inner.retry.repeats || !source.rewind() {
                return Err(error);
            }
            tracing::debug!(%error, "sending a blob again");
            tokio::time::sleep(self.pause(&error, attempts)).await;
        };
        if acknowledged == Acknowledged::ByDigest || self.blob_stored(repository, digest, size).await? {
            return Ok(());
        }
        Err(job.not_stored())
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

/// Where chunks come from.
trait Feed: Send {
    fn next_piece(&mut self) -> impl Future<Output = io::Result<Option<Bytes>>> + Send;
}

impl<R: AsyncRead + Send + Unpin> Feed for Source<R> {
    async fn next_piece(&mut self) -> io::Result<Option<Bytes>> {
        self.piece().await
    }
}

/// Pieces that are counted as sent.
struct Counted<'a> {
    pieces: Pieces,
    sent: &'a mut Sent,
}

impl Feed for Counted<'_> {
    async fn next_piece(&mut self) -> io::Result<Option<Bytes>> {
        let piece = self.pieces.next().await?;
        self.sent.bytes += piece.as_ref().map_or(0, |piece| piece.len() as u64);
        Ok(piece)
    }
}

/// How a registry said that it has the blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Acknowledged {
    /// It named the digest.
    ByDigest,
    /// By nothing but 201.
    ByStatus,
}

impl Job<'_> {
    /// The upload of an earlier process, if the registry still has it, and how far it came.
    async fn kept(
        &self,
        repository: &Repository,
        sessions: Option<&Sessions>,
    ) -> Result<Option<(Url, u64)>, RegistryError> {
        let inner = &self.client.inner;
        let found = sessions.and_then(|sessions| sessions.find(&inner.registry, repository, &self.digest, self.size));
        match found.filter(|address| address.origin() == inner.origin.origin()) {
            Some(address) => self.reached(&address).await,
            None => Ok(None),
        }
    }

    /// How far an upload came, as the registry says, and where it goes on (distribution-spec 1.1, "Pushing a blob in
    /// chunks"); `None` where it knows nothing of it.
    async fn reached(&self, session: &Url) -> Result<Option<(Url, u64)>, RegistryError> {
        let mut before = None;
        for _ in 0..SETTLES {
            let asked = self
                .client
                .retry(|| self.client.send(&self.action, &self.scope, Method::GET, session.clone(), |request| request));
            let response = asked.await?;
            if response.status() != StatusCode::NO_CONTENT {
                return Ok(None);
            }
            let range = text_header(response.headers(), "range").unwrap_or_default();
            let last =
                range.trim_start_matches("bytes=").split_once('-').and_then(|(_, last)| last.parse::<u64>().ok());
            // `0-0` says nothing or one byte.
            let Some(offset) = last.filter(|last| *last > 0).map(|last| last + 1) else { return Ok(None) };
            if offset > self.size {
                return Ok(None);
            }
            let address = match text_header(response.headers(), "location") {
                Some(_) => self.location(&response)?,
                None => session.clone(),
            };
            if before == Some(offset) {
                return Ok(Some((address, offset)));
            }
            before = Some(offset);
            tokio::time::sleep(SETTLE).await;
        }
        Ok(None)
    }

    /// Sends all of it and completes it, in one request.
    async fn put_whole(
        &self,
        session: &Url,
        mut pieces: Pieces,
        sent: &mut Sent,
    ) -> Result<Acknowledged, RegistryError> {
        if self.size == 0 {
            // No piece waits for the verdict, so that it has to be heard before.
            self.verdict(&mut pieces).await?;
            return self.complete(session.clone()).await;
        }
        let request = self.client.inner.http.put(self.completion(session.clone()));
        let response = self.send_pieces(request, pieces, self.size, sent).await?;
        self.completed(response).await
    }

    /// Sends what the registry has not yet, and completes it with another request: the first is refused where it would not
    /// continue exactly where the registry is.
    async fn patch_rest(
        &self,
        session: &Url,
        mut pieces: Pieces,
        offset: u64,
        sent: &mut Sent,
    ) -> Result<Acknowledged, RegistryError> {
        let mut session = session.clone();
        if offset < self.size {
            let range = format!("{offset}-{}", self.size - 1);
            let request = self.client.inner.http.patch(session).header(CONTENT_RANGE, range);
            let response = self.send_pieces(request, pieces, self.size - offset, sent).await?;
            if response.status() != StatusCode::ACCEPTED {
                return Err(self.client.refusal(response, &self.action).await);
            }
            session = self.location(&response)?;
        } else {
            // Nothing is left to send, and still nothing is completed that did not verify here.
            self.verdict(&mut pieces).await?;
        }
        self.complete(session).await
    }

    /// Waits for the end of content of which nothing is left to send.
    async fn verdict(&self, pieces: &mut Pieces) -> Result<(), RegistryError> {
        loop {
            match pieces.next().await {
                Ok(Some(_)) => {}
                Ok(None) => return Ok(()),
                Err(source) => return Err(RegistryError::Content { action: self.action.clone(), source }),
            }
        }
    }

    async fn complete(&self, session: Url) -> Result<Acknowledged, RegistryError> {
        let url = self.completion(session);
        let response = self
            .client
            .send(&self.action, &self.scope, Method::PUT, url, |request| request.header(CONTENT_LENGTH, 0))
            .await?;
        self.completed(response).await
    }

    /// Sends a request with these pieces as its body, for as long as they move.
    async fn send_pieces(
        &self,
        request: reqwest::RequestBuilder,
        pieces: Pieces,
        length: u64,
        sent: &mut Sent,
    ) -> Result<Response, RegistryError> {
        let inner = &self.client.inner;
        let (body, flow) = Sending::new(pieces);
        let mut request = request
            .header(CONTENT_TYPE, "application/octet-stream")
            .header(CONTENT_LENGTH, length)
            .body(Body::wrap_stream(body));
        if let Some(header) = inner.auth.latest(&self.scope).await {
            request = request.header(AUTHORIZATION, header);
        }
        let answered = self.while_moving(request.send(), &flow, length).await;
        sent.bytes += flow.taken();
        if let Some(source) = flow.failure() {
            return Err(RegistryError::Content { action: self.action.clone(), source });
        }
        answered?
            .map_err(|source| RegistryError::Connection { action: self.action.clone(), source: source.without_url() })
    }

    /// Waits for an answer until nothing has moved for too long, or it takes too long once everything was sent.
    async fn while_moving<T>(
        &self,
        answer: impl Future<Output = T>,
        flow: &Arc<Flow>,
        length: u64,
    ) -> Result<T, RegistryError> {
        let mut answer = std::pin::pin!(answer);
        let mut before = 0;
        loop {
            let taken = flow.taken();
            let all = taken >= length;
            let waited = if all { self.store_time() } else { self.client.inner.limits.stall };
            match tokio::time::timeout(waited, &mut answer).await {
                Ok(answered) => return Ok(answered),
                Err(_) if all || flow.taken() == before => {
                    return Err(RegistryError::Stalled { action: self.action.clone(), waited });
                }
                Err(_) => before = flow.taken(),
            }
        }
    }

    fn not_stored(&self) -> RegistryError {
        self.protocol("the registry acknowledged it, and then does not have it with that length")
    }

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
    ) -> Result<Acknowledged, RegistryError> {
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
        let acknowledged = self.completed(response).await?;
        if was_early {
            // It had the blob already and said so before it took all of it. The reader's verdict still counts.
            source.drain().await.map_err(|source| RegistryError::Content { action: self.action.clone(), source })?;
        }
        Ok(acknowledged)
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

    /// Sends what `feed` yields, which continues at `offset`, in chunks.
    async fn send_chunks(
        &self,
        mut session: Url,
        feed: &mut impl Feed,
        mut offset: u64,
        bytes: usize,
    ) -> Result<Acknowledged, RegistryError> {
        let mut rest = Bytes::new();
        loop {
            let mut chunk = BytesMut::with_capacity(bytes.min(CHUNK));
            while chunk.len() < bytes {
                if rest.is_empty() {
                    let piece = feed.next_piece().await;
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
        self.complete(session).await
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

    async fn completed(&self, response: Response) -> Result<Acknowledged, RegistryError> {
        if response.status() != StatusCode::CREATED {
            return Err(self.client.refusal(response, &self.action).await);
        }
        match claimed_digest(&response) {
            Some(found) if found != self.digest => {
                Err(RegistryError::Digest { action: self.action.clone(), expected: self.digest, found })
            }
            Some(_) => Ok(Acknowledged::ByDigest),
            None => Ok(Acknowledged::ByStatus),
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
