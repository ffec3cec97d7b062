//! Where blobs of bundles that were built here lie, so that a blob that is on this machine is not downloaded again.
//!
//! Nothing is kept twice: for each archive there is one small file that lists the places of its blobs in it. What it says is
//! a hint. A blob that is taken from there is hashed while it is copied; an archive that was moved, changed or damaged
//! costs a download and no more. Files are replaced as a whole, one for each archive, so that builds at the same time, and a
//! build that is killed, leave nothing wrong behind.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use tokio::io::AsyncReadExt;

use super::contents::Contents;
use super::source::BlobStream;
use crate::base::digest::{Digest, Hasher};
use crate::base::file;

/// The folder of the lists.
const FOLDER: &str = "bundles";
/// Archives that are remembered; the one that was built longest ago is forgotten first.
const ARCHIVES: usize = 64;
/// Bytes of one list, for about 60,000 blobs.
const LIST_BYTES: u64 = 8 << 20;
/// Blobs that are remembered in all, those of the newest archives first: each takes about 100 bytes of memory.
const BLOBS: usize = 50_000;
/// What is read at once to verify a blob.
const READ_BYTES: usize = 256 << 10;

/// The places of blobs in bundles that were built here. Clones of what it gives stay usable when an archive is replaced.
#[derive(Debug)]
pub struct Cache {
    folder: PathBuf,
    known: Mutex<HashMap<Digest, Known>>,
}

#[derive(Clone, Debug)]
struct Known {
    archive: Arc<Archive>,
    offset: u64,
    size: u64,
}

/// A list.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Archive {
    /// One file, or the parts in their order.
    files: Vec<ArchiveFile>,
    /// Where each blob's content begins, and how long it is.
    blobs: BTreeMap<Digest, (u64, u64)>,
}

/// A file with its length and time of change when it was written: another one was changed since.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct ArchiveFile {
    path: PathBuf,
    bytes: u64,
    modified: (i64, i64),
}

impl ArchiveFile {
    fn at(path: &Path) -> io::Result<Self> {
        // A symbolic link may point elsewhere tomorrow.
        let path = path.canonicalize()?;
        let found = fs::metadata(&path)?;
        if !found.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file"));
        }
        Ok(Self { bytes: found.len(), modified: (found.mtime(), found.mtime_nsec()), path })
    }

    fn is_there(&self) -> bool {
        Self::at(&self.path).is_ok_and(|found| found == *self)
    }
}

/// The bytes of a stored blob, not verified.
#[derive(Debug)]
pub struct Stored {
    /// What is left, from the last to the first: a file and the bytes in it.
    pieces: Vec<(File, Range<u64>)>,
}

impl Read for Stored {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while let Some((file, span)) = self.pieces.last_mut() {
            if span.start == span.end {
                self.pieces.pop();
                continue;
            }
            let most = usize::try_from(span.end - span.start).unwrap_or(usize::MAX).min(buffer.len());
            let count = file.read_at(&mut buffer[..most], span.start)?;
            if count == 0 && most > 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            span.start += count as u64;
            return Ok(count);
        }
        Ok(0)
    }
}

impl Stored {
    /// The same for those who read without blocking.
    ///
    /// # Errors
    /// When a file can't be positioned.
    pub fn into_stream(mut self) -> io::Result<BlobStream> {
        let mut stream: BlobStream = Box::new(tokio::io::empty());
        while let Some((mut file, span)) = self.pieces.pop() {
            file.seek(SeekFrom::Start(span.start))?;
            let mut file = tokio::fs::File::from_std(file);
            file.set_max_buf_size(READ_BYTES);
            stream = Box::new(stream.chain(file.take(span.end - span.start)));
        }
        Ok(stream)
    }
}

/// The folder that is used unless another one is named: `$XDG_CACHE_HOME/gapscan`, or `~/.cache/gapscan` (XDG Base
/// Directory Specification 0.8). `None` where there is no home.
pub fn default_folder() -> Option<PathBuf> {
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let caches = absolute("XDG_CACHE_HOME").or_else(|| Some(absolute("HOME")?.join(".cache")))?;
    Some(caches.join("gapscan"))
}

impl Cache {
    /// Reads the lists in this folder, and removes those whose archive is gone. A folder that is not there, or can't be
    /// read, is an empty cache.
    pub fn open(folder: &Path) -> Self {
        let folder = folder.join(FOLDER);
        let mut lists: Vec<(SystemTime, PathBuf)> = fs::read_dir(&folder)
            .into_iter()
            .flatten()
            .filter_map(Result::ok)
            .filter(|entry| is_list(&entry.path()))
            .filter_map(|entry| Some((entry.metadata().ok()?.modified().ok()?, entry.path())))
            .collect();
        lists.sort();
        let mut known = HashMap::new();
        for (at, (_, path)) in lists.iter().rev().enumerate() {
            let list = read_list(path).filter(|list| at < ARCHIVES && list.files.iter().all(ArchiveFile::is_there));
            let Some(archive) = list.map(Arc::new) else {
                // If another build has just written it anew, a download is lost, and nothing else.
                let _ = fs::remove_file(path);
                continue;
            };
            for (digest, (offset, size)) in &archive.blobs {
                if known.len() < BLOBS {
                    let place = Known { archive: Arc::clone(&archive), offset: *offset, size: *size };
                    known.entry(*digest).or_insert(place);
                }
            }
        }
        Self { folder, known: Mutex::new(known) }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Digest, Known>> {
        // Every change of the map is one call.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The bytes that are said to be this blob. Whoever reads them verifies them.
    pub fn find(&self, digest: &Digest, size: u64) -> Option<Stored> {
        let known = self.lock().get(digest).filter(|known| known.size == size).cloned()?;
        let end = known.offset.checked_add(size)?;
        let (mut pieces, mut start) = (Vec::new(), 0_u64);
        for file in &known.archive.files {
            let whole = start..start.checked_add(file.bytes)?;
            let (from, to) = (whole.start.max(known.offset), whole.end.min(end));
            if from < to {
                // What was replaced meanwhile by something that blocks is not opened.
                let opened = fs::metadata(&file.path).is_ok_and(|m| m.is_file()).then(|| File::open(&file.path));
                pieces.push((opened?.ok()?, from - start..to - start));
            }
            start = whole.end;
        }
        pieces.reverse();
        Some(Stored { pieces })
    }

    /// The bytes of this blob, verified. They are read twice; who reads them at once can do with [`Cache::find`]. Blocks.
    pub fn verified(&self, digest: &Digest, size: u64) -> Option<Stored> {
        let mut stored = self.find(digest, size)?;
        let mut hasher = Hasher::new();
        let mut buffer = vec![0; READ_BYTES];
        while let Ok(count @ 1..) = stored.read(&mut buffer) {
            hasher.update(&buffer[..count]);
        }
        if hasher.length() == size && hasher.finish() == *digest {
            return self.find(digest, size);
        }
        self.distrust(digest);
        None
    }

    /// Forgets where this blob is said to be: it is not there.
    pub fn distrust(&self, digest: &Digest) {
        self.lock().remove(digest);
    }

    /// Remembers the blobs of an archive that was written to these files, in their order; the first blob's header is at
    /// byte `start` of the archive.
    ///
    /// # Errors
    /// When the list can't be written; then a later build downloads again.
    pub fn record(&self, files: &[PathBuf], contents: &Contents, start: u64) -> io::Result<()> {
        let files = files.iter().map(|path| ArchiveFile::at(path)).collect::<io::Result<Vec<_>>>()?;
        let Some(first) = files.first() else { return Ok(()) };
        let name = Digest::of(first.path.as_os_str().as_encoded_bytes()).hex();
        let (offsets, _) = contents.blob_offsets(start);
        let blobs = contents.blobs.iter().zip(offsets).map(|(entry, at)| (entry.digest, (at, entry.size))).collect();
        let list = serde_json::to_vec(&Archive { files, blobs })?;
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.folder)?;
        file::write_atomic(&self.folder.join(format!("{name}.json")), &list, 0o600).map_err(io::Error::other)
    }
}

/// Only what was made here is ever removed.
fn is_list(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    name.strip_suffix(".json").is_some_and(|digits| Digest::from_hex(digits).is_ok())
}

fn read_list(path: &Path) -> Option<Archive> {
    serde_json::from_slice(&file::read_capped(path, LIST_BYTES).ok()?).ok()
}

#[cfg(test)]
mod tests;
