//! The uploads under way.
//!
//! A session is a file in `uploads` and, beside it, the repository that it belongs to; so it outlives the connection that
//! broke off, and the server. What arrived stays and can be gone on from. What a client may try, and where it ends: more
//! sessions than there are places, alone or with others (limits for one address and for all; the longest unused goes first);
//! another repository's session (`Uploads::get`); a second request to a session while the first still runs, as after a
//! connection that only one side knows is gone (the second ends the first). What it may try with the content: `session.rs`.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::content::Algorithm;
use super::error::Refusal;
use super::session::Session;
use super::store::Store;
use crate::base::file;
use crate::registry::reference::Repository;

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
                return Err(Refusal::too_many("too many uploads are under way"));
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
        let upload =
            Upload::new(Some(from), repository.clone(), 0, |written| Session::begun(file, path, algorithm, written));
        open.insert(id, upload);
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
    (age < IDLE).then(|| Upload::new(None, repository, metadata.len(), |written| Session::left(path, written)))
}

impl Upload {
    fn new(
        from: Option<IpAddr>,
        repository: Repository,
        length: u64,
        session: impl FnOnce(Arc<AtomicU64>) -> Session,
    ) -> Self {
        let written = Arc::new(AtomicU64::new(length));
        Self {
            used: Instant::now(),
            from,
            repository,
            session: Arc::new(tokio::sync::Mutex::new(session(written.clone()))),
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
