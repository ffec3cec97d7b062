//! The content of one upload.
//!
//! What a client may try, and where it ends: bodies without an end, or drop by drop (a byte limit, and a least rate); a blob
//! that grows beyond the limit by one body after the other (what is there already counts); bodies whose length nobody
//! announced, on a disk that has no room (looked at before each block); a body that is shorter or longer than was announced,
//! by its length or by its range (counted); content that is not what its digest says (`Session::complete`).

use std::fs::File;
use std::io::{self, IoSlice, Seek, SeekFrom, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use futures::StreamExt;
use http::StatusCode;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::content::{Algorithm, ContentDigest, ContentHasher};
use super::download::number;
use super::error::Refusal;
use super::store::Store;
use crate::base::limits::Limits;
use crate::registry::reference::Repository;

/// Bytes that are hashed and written at once.
const BLOCK: usize = 1 << 20;
/// Pieces that are written at once: each is a part of a buffer that stays as long as the piece does.
const PIECES: usize = 512;
/// Bytes that must come in each `Limits::stall`, or the body counts as stopped.
const LEAST: u64 = 16 << 10;

/// Refuses so many more bytes where there is no room for them.
pub(super) type Room<'a> = &'a (dyn Fn(u64) -> Result<(), Refusal> + Sync);

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

impl Session {
    /// One that is begun with this empty file.
    pub(super) fn begun(file: File, path: PathBuf, algorithm: Algorithm, written: Arc<AtomicU64>) -> Self {
        let writer = Writer { file, path, hasher: ContentHasher::new(algorithm), length: 0 };
        Self { content: Content::Open(writer), written }
    }

    /// One that a stopped server left in this file.
    pub(super) fn left(path: PathBuf, written: Arc<AtomicU64>) -> Self {
        Self { content: Content::Closed(path), written }
    }

    pub(super) fn length(&self) -> u64 {
        self.written.load(Ordering::Acquire)
    }

    /// That a chunk continues where the last one ended; gives its length. `Content-Range` here is `FIRST-LAST`
    /// (distribution-spec 1.1).
    pub(super) fn check_range(&self, header: Option<&str>, body: Option<u64>) -> Result<Option<u64>, Refusal> {
        let Some(text) = header else { return Ok(body) };
        let length = self.length();
        let refuse =
            |status| Refusal::new(status, "BLOB_UPLOAD_INVALID", format!("the upload has {length} bytes so far"));
        let range = text.strip_prefix("bytes ").unwrap_or(text);
        let parsed = range.split_once('-').and_then(|(first, last)| {
            let last = last.split('/').next()?;
            Some((number(first.trim())?, number(last.trim())?))
        });
        let (first, last) = parsed.ok_or_else(|| refuse(StatusCode::BAD_REQUEST))?;
        if first != length {
            return Err(refuse(StatusCode::RANGE_NOT_SATISFIABLE));
        }
        let count = last.checked_sub(first).and_then(|count| count.checked_add(1));
        match count {
            Some(count) if body.is_none_or(|body| body == count) => Ok(Some(count)),
            _ => Err(refuse(StatusCode::BAD_REQUEST)),
        }
    }

    /// Adds a body to the end. Receiving overlaps with hashing and writing. What arrived before a body broke off stays,
    /// and the client can go on from there.
    pub(super) async fn append(
        &mut self,
        body: Body,
        announced: Option<u64>,
        limits: &Limits,
        room: Room<'_>,
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
                    let after = received.saturating_add(piece.len() as u64);
                    // What goes beyond is not kept: the next request would begin there.
                    if after > limits.blob_bytes {
                        Some(Some(Refusal::too_large(limits.blob_bytes)))
                    } else if end.is_some_and(|end| after > end) {
                        Some(invalid(StatusCode::BAD_REQUEST, "the body is longer than was announced"))
                    } else {
                        received = after;
                        window.add(piece.len() as u64);
                        block.push(piece);
                        None
                    }
                }
                Err(why) => Some(why),
            };
            if block.is_full() || ended.is_some() {
                self.settle(writing.take()).await?;
                room(block.bytes as u64)?;
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
