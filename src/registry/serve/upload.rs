//! Blobs on their way in.
//!
//! A session is a file in `uploads` and, beside it, the repository that it belongs to; so it outlives the connection that
//! broke off, and the server. What arrived stays and can be gone on from. What a client may try, and where it ends: bodies
//! without an end, or drop by drop (a byte limit, and a least rate); more sessions than there are places, alone or with
//! others (limits for one address and for all; the longest unused goes first); another repository's session (`Uploads::get`);
//! a second request to a session while the first still runs, as after a connection that only one side knows is gone (the
//! second ends the first); a body that is shorter than was announced (counted); content that is not what its digest says
//! (`Session::complete`).

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, IoSlice, Seek, SeekFrom, Write};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use axum::body::Body;
use bytes::Bytes;
use futures::StreamExt;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::content::{Algorithm, ContentDigest, ContentHasher};
use super::error::Refusal;
use super::store::Store;
use crate::base::file;
use crate::base::limits::Limits;
use crate::registry::reference::Repository;

/// Bytes that are hashed and written at once.
const BLOCK: usize = 1 << 20;
/// Pieces that are written at once: each is a part of a buffer that stays as long as the piece does.
const PIECES: usize = 512;
/// Bytes that must come in each `Limits::stall`, or the body counts as stopped.
const LEAST: u64 = 16 << 10;
/// How long a session that nobody uses is kept: a medium is changed, a link comes back the next morning.
const IDLE: Duration = Duration::from_secs(24 * 3600);
/// How long it is kept where its place is needed.
const IDLE_AT_LEAST: Duration = Duration::from_secs(900);
/// Sessions at a time; each may hold an open file.
const SESSIONS: usize = 512;
/// Of these from one address.
const SESSIONS_FROM_ONE: usize = 256;
/// Bytes of what is known of a session.
const STATE: u64 = 4096;
const STATE_SUFFIX: &str = "session";

/// The uploads under way.
#[derive(Debug)]
pub(super) struct Uploads {
    folder: PathBuf,
    open: Mutex<HashMap<Uuid, Upload>>,
}

/// One upload, as its requests find it.
#[derive(Clone, Debug)]
pub(super) struct Upload {
    used: Instant,
    /// Unknown after a restart.
    from: Option<IpAddr>,
    repository: Repository,
    session: Arc<tokio::sync::Mutex<Session>>,
    written: Arc<AtomicU64>,
    /// Ends the request that is using it.
    interrupt: Arc<Mutex<CancellationToken>>,
}

/// What is known of a session beside its content.
#[derive(Serialize, Deserialize)]
struct State {
    repository: Repository,
}

/// The content of one upload.
pub(super) struct Session {
    content: Content,
    written: Arc<AtomicU64>,
}

enum Content {
    /// As it was left by a server that was stopped, or after an error: it is read again before it is gone on with.
    Closed(PathBuf),
    Open(Writer),
    /// It is being written. For good, if that was given up.
    Busy,
    /// It has its name.
    Done,
}

struct Writer {
    file: File,
    path: PathBuf,
    hasher: ContentHasher,
    length: u64,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("written", &self.written).finish_non_exhaustive()
    }
}

impl Uploads {
    /// The uploads that a stopped server left in the store's folder; whatever else is there is removed.
    pub(super) fn open(store: &Store) -> io::Result<Self> {
        let folder = store.uploads_path();
        let mut open = HashMap::new();
        let mut known = Vec::new();
        for name in super::store::names(&folder)? {
            if let Some(id) = name.strip_suffix(STATE_SUFFIX).and_then(|id| Uuid::try_parse(id.strip_suffix('.')?).ok())
                && let Some(upload) = left_over(&folder, id)
            {
                known.extend([id.to_string(), name]);
                open.insert(id, upload);
            }
        }
        for name in super::store::names(&folder)? {
            if !known.contains(&name) {
                fs::remove_file(folder.join(name))?;
            }
        }
        Ok(Self { folder, open: Mutex::new(open) })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Uuid, Upload>> {
        // Nothing in here can panic halfway through a change.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.lock().len()
    }

    /// Removes those that nobody used for long.
    pub(super) fn remove_idle(&self) {
        let mut open = self.lock();
        let idle: Vec<Uuid> = open.iter().filter(|(_, upload)| upload.is_idle(IDLE)).map(|(id, _)| *id).collect();
        for id in idle {
            open.remove(&id);
            self.discard(id);
        }
    }

    /// Opens a session. It outlives the server if its client can know of it, which is when it is `Kept::Across`.
    pub(super) fn start(
        &self,
        repository: &Repository,
        from: IpAddr,
        kept: Kept,
        algorithm: Algorithm,
    ) -> Result<Uuid, Refusal> {
        self.remove_idle();
        let id = Uuid::now_v7();
        let mut open = self.lock();
        let theirs = open.values().filter(|upload| upload.from == Some(from)).count();
        if open.len() >= SESSIONS || theirs >= SESSIONS_FROM_ONE {
            let crowd = |upload: &Upload| open.len() >= SESSIONS || upload.from == Some(from);
            let oldest = open
                .iter()
                .filter(|(_, upload)| crowd(upload) && upload.is_idle(IDLE_AT_LEAST))
                .min_by_key(|(_, upload)| upload.used)
                .map(|(id, _)| *id);
            let Some(oldest) = oldest else {
                let message = "too many uploads are under way";
                return Err(Refusal::new(StatusCode::TOO_MANY_REQUESTS, "TOOMANYREQUESTS", message));
            };
            open.remove(&oldest);
            self.discard(oldest);
        }
        let path = self.folder.join(id.to_string());
        let file = File::options().read(true).write(true).create_new(true).open(&path)?;
        if kept == Kept::Across {
            let state = State { repository: repository.clone() };
            fs::write(state_path(&self.folder, id), serde_json::to_vec(&state).expect("a name is JSON"))?;
        }
        let writer = Writer { file, path, hasher: ContentHasher::new(algorithm), length: 0 };
        open.insert(id, Upload::new(Some(from), repository.clone(), Content::Open(writer), 0));
        Ok(id)
    }

    /// The session of this name in this repository.
    pub(super) fn get(&self, repository: &Repository, id: Uuid) -> Result<Upload, Refusal> {
        let mut open = self.lock();
        let upload = open.get_mut(&id).filter(|upload| upload.repository == *repository);
        let upload = upload.ok_or_else(Refusal::upload_unknown)?;
        upload.used = Instant::now();
        Ok(upload.clone())
    }

    pub(super) fn end(&self, repository: &Repository, id: Uuid) -> Result<(), Refusal> {
        self.get(repository, id)?.interrupt();
        self.lock().remove(&id);
        self.discard(id);
        Ok(())
    }

    /// Removes the files. What can't be removed now is removed at the next start.
    fn discard(&self, id: Uuid) {
        let _ = fs::remove_file(state_path(&self.folder, id));
        let _ = fs::remove_file(self.folder.join(id.to_string()));
    }
}

/// How long a session may be needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kept {
    /// For one request.
    Once,
    /// Across connections and restarts.
    Across,
}

fn state_path(folder: &Path, id: Uuid) -> PathBuf {
    folder.join(format!("{id}.{STATE_SUFFIX}"))
}

fn left_over(folder: &Path, id: Uuid) -> Option<Upload> {
    let state = file::read_capped(&state_path(folder, id), STATE).ok()?;
    let State { repository } = serde_json::from_slice(&state).ok()?;
    let path = folder.join(id.to_string());
    let metadata = fs::metadata(&path).ok().filter(fs::Metadata::is_file)?;
    let age = SystemTime::now().duration_since(metadata.modified().ok()?).unwrap_or_default();
    (age < IDLE).then(|| Upload::new(None, repository, Content::Closed(path), metadata.len()))
}

impl Upload {
    fn new(from: Option<IpAddr>, repository: Repository, content: Content, length: u64) -> Self {
        let written = Arc::new(AtomicU64::new(length));
        Self {
            used: Instant::now(),
            from,
            repository,
            session: Arc::new(tokio::sync::Mutex::new(Session { content, written: written.clone() })),
            written,
            interrupt: Arc::default(),
        }
    }

    fn is_idle(&self, long: Duration) -> bool {
        self.used.elapsed() >= long && Arc::strong_count(&self.session) == 1
    }

    fn token(&self) -> MutexGuard<'_, CancellationToken> {
        self.interrupt.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn interrupt(&self) {
        self.token().cancel();
    }

    /// How many bytes are here, without waiting for a request that brings more.
    pub(super) fn written(&self) -> u64 {
        self.written.load(Ordering::Acquire)
    }

    /// The session for a request that goes on with it. Another one that still uses it is ended: its client has given it up.
    pub(super) async fn take_over(&self) -> (tokio::sync::OwnedMutexGuard<Session>, CancellationToken) {
        self.interrupt();
        let session = self.session.clone().lock_owned().await;
        let token = CancellationToken::new();
        *self.token() = token.clone();
        (session, token)
    }
}

impl Session {
    pub(super) fn length(&self) -> u64 {
        self.written.load(Ordering::Acquire)
    }

    /// That a chunk continues where the last one ended. `Content-Range` here is `FIRST-LAST` (distribution-spec 1.1).
    pub(super) fn check_range(&self, header: Option<&str>, body: Option<u64>) -> Result<(), Refusal> {
        let Some(text) = header else { return Ok(()) };
        let length = self.length();
        let refuse =
            |status| Refusal::new(status, "BLOB_UPLOAD_INVALID", format!("the upload has {length} bytes so far"));
        let range = text.strip_prefix("bytes ").unwrap_or(text);
        let parsed = range.split_once('-').and_then(|(first, last)| {
            let last = last.split('/').next()?;
            Some((first.trim().parse::<u64>().ok()?, last.trim().parse::<u64>().ok()?))
        });
        let (first, last) = parsed.ok_or_else(|| refuse(StatusCode::BAD_REQUEST))?;
        let fits = last >= first && body.is_none_or(|body| body.checked_add(first) == last.checked_add(1));
        if first != length {
            Err(refuse(StatusCode::RANGE_NOT_SATISFIABLE))
        } else if fits {
            Ok(())
        } else {
            Err(refuse(StatusCode::BAD_REQUEST))
        }
    }

    /// Adds a body to the end. Receiving overlaps with hashing and writing. What arrived before a body broke off stays,
    /// and the client can go on from there.
    pub(super) async fn append(
        &mut self,
        body: Body,
        announced: Option<u64>,
        limits: &Limits,
        interrupted: &CancellationToken,
    ) -> Result<(), Refusal> {
        self.reopen().await?;
        let mut pieces = body.into_data_stream();
        let mut received = self.length();
        let end = announced.map(|announced| received.saturating_add(announced));
        let mut block = Block::default();
        let mut writing = None;
        let mut window = Window::new(limits.stall);
        let invalid = |status, reason: &str| Some(Refusal::new(status, "BLOB_UPLOAD_INVALID", reason));
        loop {
            let next = tokio::select! {
                biased;
                () = interrupted.cancelled() => Err(invalid(StatusCode::CONFLICT, "another request goes on with it")),
                next = tokio::time::timeout_at(window.end, pieces.next()) => match next {
                    Ok(Some(Ok(piece))) => Ok(piece),
                    // Some ways of breaking off look like an end.
                    Ok(None) if end.is_none_or(|end| end == received) => Err(None),
                    Ok(None | Some(Err(_))) => Err(invalid(StatusCode::BAD_REQUEST, "the body broke off")),
                    Err(_) => Err(invalid(StatusCode::REQUEST_TIMEOUT, "the body stopped")),
                },
            };
            let ended = match next {
                Ok(piece) => {
                    received += piece.len() as u64;
                    window.add(piece.len() as u64);
                    block.push(piece);
                    (received > limits.blob_bytes).then(|| {
                        let message = format!("a blob has at most {} bytes", limits.blob_bytes);
                        Some(Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, "SIZE_INVALID", message))
                    })
                }
                Err(why) => Some(why),
            };
            if block.is_full() || ended.is_some() {
                self.settle(writing.take()).await?;
                writing = Some(self.write(std::mem::take(&mut block))?);
            }
            if let Some(why) = ended {
                self.settle(writing.take()).await?;
                return why.map_or(Ok(()), Err);
            }
        }
    }

    /// Reads content again that no hasher has seen.
    async fn reopen(&mut self) -> Result<(), Refusal> {
        let Content::Closed(path) = &self.content else { return Ok(()) };
        let path = path.clone();
        let reading = tokio::task::spawn_blocking(move || {
            let file = File::options().read(true).write(true).open(&path)?;
            let (hasher, length) = ContentHasher::over(Algorithm::default(), &file)?;
            io::Result::Ok(Writer { file, path, hasher, length })
        });
        let writer = reading.await.map_err(io::Error::other)?.map_err(|error| match error.kind() {
            // It got its name, and only the repository's link could not be written.
            io::ErrorKind::NotFound => Refusal::upload_unknown(),
            _ => error.into(),
        })?;
        self.written.store(writer.length, Ordering::Release);
        self.content = Content::Open(writer);
        Ok(())
    }

    fn writer(&mut self) -> Result<Writer, Refusal> {
        match std::mem::replace(&mut self.content, Content::Busy) {
            Content::Open(writer) => Ok(writer),
            other => {
                self.content = other;
                Err(Refusal::upload_unknown())
            }
        }
    }

    fn write(&mut self, block: Block) -> Result<JoinHandle<(Writer, io::Result<()>)>, Refusal> {
        let mut writer = self.writer()?;
        Ok(tokio::task::spawn_blocking(move || {
            let result = writer.add(&block.pieces);
            (writer, result)
        }))
    }

    async fn settle(&mut self, writing: Option<JoinHandle<(Writer, io::Result<()>)>>) -> Result<(), Refusal> {
        let Some(writing) = writing else { return Ok(()) };
        let (writer, result) = writing.await.map_err(io::Error::other)?;
        self.written.store(writer.length, Ordering::Release);
        self.content = match &result {
            Ok(()) => Content::Open(writer),
            // Only the file itself says what is in it now.
            Err(_) => Content::Closed(writer.path),
        };
        Ok(result?)
    }

    /// Gives the content its name if it is what `expected` says, and the repository the blob. What could not be stored, for
    /// want of space for instance, can be completed again; what is something else is over.
    pub(super) async fn complete(
        &mut self,
        store: Arc<Store>,
        repository: Repository,
        expected: ContentDigest,
    ) -> Result<(), Refusal> {
        let writer = self.writer()?;
        let committing = tokio::task::spawn_blocking(move || {
            let result = writer.commit(&store, &repository, &expected);
            (writer, result)
        });
        let (writer, result) = committing.await.map_err(io::Error::other)?;
        self.content = match result {
            Ok(()) => Content::Done,
            Err(_) => Content::Closed(writer.path),
        };
        result
    }
}

impl Writer {
    /// Adds all of it, or nothing if that can still be done.
    fn add(&mut self, pieces: &[Bytes]) -> io::Result<()> {
        let mut slices: Vec<IoSlice<'_>> = pieces.iter().map(|piece| IoSlice::new(piece)).collect();
        if let Err(error) = write_all(&mut self.file, &mut slices) {
            self.file.set_len(self.length)?;
            self.file.seek(SeekFrom::Start(self.length))?;
            return Err(error);
        }
        for piece in pieces {
            self.hasher.update(piece);
            self.length += piece.len() as u64;
        }
        Ok(())
    }

    fn commit(&self, store: &Store, repository: &Repository, expected: &ContentDigest) -> Result<(), Refusal> {
        if self.file.metadata()?.len() != self.length {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "an upload's file has another length").into());
        }
        let hasher = match expected.algorithm() == self.hasher.algorithm() {
            true => self.hasher.clone(),
            false => {
                let mut whole = &self.file;
                whole.seek(SeekFrom::Start(0))?;
                ContentHasher::over(expected.algorithm(), whole)?.0
            }
        };
        let found = hasher.finish();
        if found != *expected {
            return Err(Refusal::digest_invalid(format!("the content has digest {found}")));
        }
        Ok(store.add_blob(repository, &self.file, &self.path, expected)?)
    }
}

fn write_all(file: &mut File, mut slices: &mut [IoSlice<'_>]) -> io::Result<()> {
    IoSlice::advance_slices(&mut slices, 0);
    while !slices.is_empty() {
        match file.write_vectored(slices) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(n) => IoSlice::advance_slices(&mut slices, n),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// What is written at once: the pieces as they came, none of them copied.
#[derive(Default)]
struct Block {
    pieces: Vec<Bytes>,
    bytes: usize,
}

impl Block {
    fn push(&mut self, piece: Bytes) {
        self.bytes += piece.len();
        self.pieces.push(piece);
    }

    fn is_full(&self) -> bool {
        self.bytes >= BLOCK || self.pieces.len() >= PIECES
    }
}

/// The time in which the least number of bytes must come.
struct Window {
    length: Duration,
    end: tokio::time::Instant,
    bytes: u64,
}

impl Window {
    fn new(length: Duration) -> Self {
        Self { length, end: tokio::time::Instant::now() + length, bytes: 0 }
    }

    fn add(&mut self, bytes: u64) {
        self.bytes += bytes;
        if self.bytes >= LEAST {
            *self = Self::new(self.length);
        }
    }
}
