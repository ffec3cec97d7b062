//! Blobs on their way in. A session lives in memory and its bytes in a file without a name that anyone knows: a server that
//! is started again knows of none, and the client opens another.

use std::collections::HashMap;
use std::io::Write;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use http::StatusCode;
use tempfile::NamedTempFile;
use tokio::task::JoinHandle;
use uuid::Uuid;

use super::error::Refusal;
use super::store::Store;
use crate::base::digest::{Digest, Hasher};
use crate::registry::reference::Repository;

/// Bytes that are hashed and written at once.
const BLOCK: usize = 1 << 20;
/// How long a session that nobody uses is kept.
const IDLE: Duration = Duration::from_secs(3600);
/// Sessions at a time; each holds an open file.
const SESSIONS: usize = 512;

/// The uploads under way.
#[derive(Debug, Default)]
pub(super) struct Uploads {
    open: Mutex<HashMap<Uuid, Entry>>,
}

/// When it was last used, whose it is, and the session.
type Entry = (Instant, Repository, Arc<tokio::sync::Mutex<Session>>);

/// One upload.
pub(super) struct Session {
    /// Absent while a block is being written, and for good once that failed or was given up.
    content: Option<Content>,
    length: u64,
}

struct Content {
    file: NamedTempFile,
    hasher: Hasher,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("length", &self.length).finish_non_exhaustive()
    }
}

impl Uploads {
    fn lock(&self) -> MutexGuard<'_, HashMap<Uuid, Entry>> {
        // Nothing in here can panic halfway through a change.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn start(&self, store: &Store, repository: &Repository) -> Result<Uuid, Refusal> {
        let mut open = self.lock();
        open.retain(|_, (touched, _, session)| touched.elapsed() < IDLE || Arc::strong_count(session) > 1);
        if open.len() >= SESSIONS {
            return Err(Refusal::new(
                StatusCode::TOO_MANY_REQUESTS,
                "TOOMANYREQUESTS",
                "too many uploads are under way",
            ));
        }
        let content = Content { file: store.new_upload()?, hasher: Hasher::new() };
        let session = Session { content: Some(content), length: 0 };
        let id = Uuid::now_v7();
        open.insert(id, (Instant::now(), repository.clone(), Arc::new(tokio::sync::Mutex::new(session))));
        Ok(id)
    }

    /// The session of this name in this repository.
    pub(super) fn get(&self, repository: &Repository, id: Uuid) -> Result<Arc<tokio::sync::Mutex<Session>>, Refusal> {
        let mut open = self.lock();
        let (touched, owner, session) = open.get_mut(&id).ok_or_else(Refusal::upload_unknown)?;
        if owner != repository {
            return Err(Refusal::upload_unknown());
        }
        *touched = Instant::now();
        Ok(session.clone())
    }

    pub(super) fn end(&self, repository: &Repository, id: Uuid) -> Result<(), Refusal> {
        self.get(repository, id)?;
        self.lock().remove(&id);
        Ok(())
    }
}

impl Session {
    /// How many bytes are here. A session whose client vanished while a block was written is over.
    pub(super) fn length(&self) -> Result<u64, Refusal> {
        self.content.as_ref().map(|_| self.length).ok_or_else(Refusal::upload_unknown)
    }

    /// That a chunk continues where the last one ended. `Content-Range` here is `FIRST-LAST` (distribution-spec 1.1).
    pub(super) fn check_range(&self, header: Option<&str>, body: Option<u64>) -> Result<(), Refusal> {
        let Some(text) = header else { return Ok(()) };
        let refuse = |status| {
            Refusal::new(status, "BLOB_UPLOAD_INVALID", format!("the upload has {} bytes so far", self.length))
        };
        let range = text.strip_prefix("bytes ").unwrap_or(text);
        let parsed = range.split_once('-').and_then(|(first, last)| {
            let last = last.split('/').next()?;
            Some((first.trim().parse::<u64>().ok()?, last.trim().parse::<u64>().ok()?))
        });
        let (first, last) = parsed.ok_or_else(|| refuse(StatusCode::BAD_REQUEST))?;
        let fits = last >= first && body.is_none_or(|body| last - first + 1 == body);
        if first != self.length {
            Err(refuse(StatusCode::RANGE_NOT_SATISFIABLE))
        } else if fits {
            Ok(())
        } else {
            Err(refuse(StatusCode::BAD_REQUEST))
        }
    }

    /// Adds a body to the end. Receiving overlaps with hashing and writing. What arrived before a body broke off stays,
    /// and the client can go on from there.
    pub(super) async fn append(&mut self, body: Body, limit: u64, stall: Duration) -> Result<(), Refusal> {
        let mut pieces = body.into_data_stream();
        let mut block = BytesMut::with_capacity(BLOCK);
        let mut writing: Option<JoinHandle<std::io::Result<Content>>> = None;
        let mut failure = None;
        loop {
            let piece = match tokio::time::timeout(stall, pieces.next()).await {
                Ok(Some(Ok(piece))) => Some(piece),
                Ok(None) => None,
                Ok(Some(Err(_))) => {
                    failure = Some(Refusal::new(StatusCode::BAD_REQUEST, "BLOB_UPLOAD_INVALID", "the body broke off"));
                    None
                }
                Err(_) => {
                    failure =
                        Some(Refusal::new(StatusCode::REQUEST_TIMEOUT, "BLOB_UPLOAD_INVALID", "the body stopped"));
                    None
                }
            };
            let ended = piece.is_none();
            if let Some(piece) = piece {
                self.length += piece.len() as u64;
                block.extend_from_slice(&piece);
                if self.length > limit {
                    failure = Some(Refusal::new(
                        StatusCode::PAYLOAD_TOO_LARGE,
                        "SIZE_INVALID",
                        format!("a blob has at most {limit} bytes"),
                    ));
                }
            }
            let stop = ended || failure.is_some();
            if block.len() >= BLOCK || stop {
                self.settle(writing.take()).await?;
                if !block.is_empty() {
                    let full =
                        std::mem::replace(&mut block, BytesMut::with_capacity(if stop { 0 } else { BLOCK })).freeze();
                    writing = Some(self.write(full)?);
                }
            }
            if stop {
                self.settle(writing.take()).await?;
                return failure.map_or(Ok(()), Err);
            }
        }
    }

    fn write(&mut self, block: Bytes) -> Result<JoinHandle<std::io::Result<Content>>, Refusal> {
        let mut content = self.content.take().ok_or_else(Refusal::upload_unknown)?;
        Ok(tokio::task::spawn_blocking(move || {
            content.hasher.update(&block);
            content.file.write_all(&block)?;
            Ok(content)
        }))
    }

    async fn settle(&mut self, writing: Option<JoinHandle<std::io::Result<Content>>>) -> Result<(), Refusal> {
        if let Some(writing) = writing {
            self.content = Some(writing.await.map_err(std::io::Error::other)??);
        }
        Ok(())
    }

    /// Gives the content its name if it is what `expected` says, and the repository the blob.
    pub(super) async fn complete(
        &mut self,
        store: Arc<Store>,
        repository: Repository,
        expected: Digest,
    ) -> Result<(), Refusal> {
        let content = self.content.take().ok_or_else(Refusal::upload_unknown)?;
        let committed = tokio::task::spawn_blocking(move || {
            let found = content.hasher.finish();
            if found != expected {
                return Err(Refusal::digest_invalid(format!("the content has digest {found}")));
            }
            store.commit(content.file, &expected)?;
            Ok(store.link_blob(&repository, &expected)?)
        });
        committed.await.map_err(std::io::Error::other)?
    }
}
