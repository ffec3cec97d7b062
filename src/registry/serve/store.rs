//! The folder that the registry's content is in.
//!
//! ```text
//! DIR/lock                                  held while served
//! DIR/blobs/ALGORITHM/xx/HEX                content, by its digest
//! DIR/uploads/                              content that is on its way in, and what is known of it
//! DIR/repositories/NAME/_blobs/HEX          the repository has this blob
//! DIR/repositories/NAME/_manifests/HEX      the repository has this manifest; the file says its media type
//! DIR/repositories/NAME/_tags/TAG           the file says the digest
//! DIR/repositories/NAME/_referrers/HEX/HEX  the manifest refers to this subject
//! ```
//!
//! A name appears only after what it names is whole and synced, and is itself synced before a client hears of it. So what
//! was acknowledged survives a crash, and what was not leaves nothing but files in `uploads`. The folders of a repository
//! start with `_`, which no component of a repository's name does.
//!
//! The modification time of a blob's or manifest's link is when a client last heard of it: whoever was told that it is
//! there may count on it, and what `collect.rs` removes goes by that time.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, UTIME_NOW};

use super::content::{Algorithm, ContentDigest};
use super::error::ServeError;
use crate::base::file::{self, FileError};
use crate::registry::reference::{Repository, Tag};

/// Bytes of a link file.
const LINK: u64 = 1024;

#[derive(Debug)]
pub(super) struct Store {
    root: PathBuf,
    /// Shared by what tells a client that something is there; alone, what removes it.
    removal: RwLock<()>,
    _lock: File,
}

/// While this is held, nothing is removed that it was seen with.
#[derive(Debug)]
pub(super) struct Held<'a>(#[expect(dead_code, reason = "it is only held")] RwLockReadGuard<'a, ()>);

/// While this is held, nobody is told that something is there.
#[derive(Debug)]
pub(super) struct Removing<'a>(#[expect(dead_code, reason = "it is only held")] RwLockWriteGuard<'a, ()>);

impl Store {
    /// Opens the folder, makes what is missing, and removes content that no repository has.
    pub(super) fn open(root: &Path) -> Result<Self, ServeError> {
        let failed = |source| ServeError::Folder { path: root.to_owned(), source };
        make_folders(root).map_err(failed)?;
        let lock = File::options().create(true).truncate(false).write(true).open(root.join("lock")).map_err(failed)?;
        rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive).map_err(
            |errno| match errno {
                rustix::io::Errno::WOULDBLOCK => ServeError::Busy { path: root.to_owned() },
                errno => failed(errno.into()),
            },
        )?;
        make_folders(&root.join("uploads")).map_err(failed)?;
        make_folders(&root.join("repositories")).map_err(failed)?;
        for algorithm in Algorithm::ALL {
            make_folders(&root.join("blobs").join(algorithm.name())).map_err(failed)?;
        }
        let store = Self { root: root.to_owned(), removal: RwLock::new(()), _lock: lock };
        let removed = store.remove_left_over().map_err(failed)?;
        tracing::debug!(removed.contents, removed.bytes, "content that no repository has was removed");
        Ok(store)
    }

    /// Keeps what is found from being removed until the result is dropped. Not to be asked for twice at a time.
    pub(super) fn hold(&self) -> Held<'_> {
        Held(self.removal.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Waits until nobody holds anything.
    pub(super) fn removing(&self) -> Removing<'_> {
        Removing(self.removal.write().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// Bytes that can still be written, by whoever the server runs as.
    pub(super) fn available_bytes(&self) -> io::Result<u64> {
        let space = rustix::fs::statvfs(&self.root)?;
        Ok(space.f_bavail.saturating_mul(space.f_frsize))
    }

    /// Whether a file can be made.
    pub(super) fn is_writable(&self) -> bool {
        tempfile::Builder::new()
            .prefix("probe-")
            .tempfile_in(self.uploads_path())
            .is_ok_and(|file| file.close().is_ok())
    }

    pub(super) fn content_path(&self, digest: &ContentDigest) -> PathBuf {
        let hex = digest.hex();
        self.root.join("blobs").join(digest.algorithm().name()).join(&hex[..2]).join(hex)
    }

    pub(super) fn repository_path(&self, repository: &Repository) -> PathBuf {
        self.root.join("repositories").join(repository.as_str())
    }

    pub(super) fn link_path(&self, repository: &Repository, kind: &str, name: &str) -> PathBuf {
        self.repository_path(repository).join(kind).join(name)
    }

    /// Where content is kept that has no name yet.
    pub(super) fn uploads_path(&self) -> PathBuf {
        self.root.join("uploads")
    }

    /// Gives synced content its name. `digest` must be that of the file's bytes.
    fn name_content(&self, _held: &Held<'_>, content: &Path, digest: &ContentDigest) -> io::Result<()> {
        let path = self.content_path(digest);
        let folder = path.parent().expect("content is in a folder");
        make_folders(folder)?;
        // It was written before it was synced, which can take long; its time must be that of its name.
        touch(content)?;
        // Also over what has the name already: were that damaged, sending it again would not mend it.
        fs::rename(content, &path)?;
        file::sync_folder(folder)
    }

    /// Gives content its name and makes it the repository's blob. `digest` must be that of the file's bytes.
    pub(super) fn add_blob(
        &self,
        repository: &Repository,
        content: &File,
        path: &Path,
        digest: &ContentDigest,
    ) -> io::Result<()> {
        content.sync_all()?;
        let held = self.hold();
        self.name_content(&held, path, digest)?;
        write_link(&self.link_path(repository, "_blobs", &digest.hex()), b"")
    }

    /// Makes a blob of the repository `from`, or of any repository, this repository's too; whether it is there.
    pub(super) fn mount(
        &self,
        repository: &Repository,
        from: Option<&Repository>,
        digest: &ContentDigest,
    ) -> io::Result<bool> {
        let held = self.hold();
        let there = from.is_none_or(|from| self.has_blob(&held, from, digest)) && touch(&self.content_path(digest))?;
        if there {
            write_link(&self.link_path(repository, "_blobs", &digest.hex()), b"")?;
        }
        Ok(there)
    }

    /// Whether the repository has the blob, which is then kept for a while.
    pub(super) fn has_blob(&self, _held: &Held<'_>, repository: &Repository, digest: &ContentDigest) -> bool {
        touch(&self.link_path(repository, "_blobs", &digest.hex())).unwrap_or(false)
    }

    /// The repository's blob and its length.
    pub(super) fn blob(&self, repository: &Repository, digest: &ContentDigest) -> io::Result<Option<(File, u64)>> {
        let held = self.hold();
        if !self.has_blob(&held, repository, digest) {
            return Ok(None);
        }
        let Some(file) = open_if_there(&self.content_path(digest))? else { return Ok(None) };
        let length = file.metadata()?.len();
        Ok(Some((file, length)))
    }

    /// Takes the blob from the repository; whether it had it. The content stays until it is collected: other repositories
    /// may have it too.
    pub(super) fn unlink_blob(&self, repository: &Repository, digest: &ContentDigest) -> io::Result<bool> {
        remove(&self.link_path(repository, "_blobs", &digest.hex()))
    }

    /// Stores a manifest whose parts were seen under the same hold.
    pub(super) fn put_manifest(
        &self,
        held: &Held<'_>,
        repository: &Repository,
        digest: &ContentDigest,
        media_type: &str,
        bytes: &[u8],
    ) -> io::Result<()> {
        let mut content = tempfile::Builder::new().prefix("manifest-").tempfile_in(self.uploads_path())?;
        io::Write::write_all(&mut content, bytes)?;
        content.as_file().sync_all()?;
        self.name_content(held, content.path(), digest)?;
        write_link(&self.link_path(repository, "_manifests", &digest.hex()), media_type.as_bytes())
    }

    pub(super) fn has_manifest(&self, _held: &Held<'_>, repository: &Repository, digest: &ContentDigest) -> bool {
        touch(&self.link_path(repository, "_manifests", &digest.hex())).unwrap_or(false)
    }

    /// The repository's manifest: media type and bytes.
    pub(super) fn manifest(
        &self,
        held: &Held<'_>,
        repository: &Repository,
        digest: &ContentDigest,
        limit: u64,
    ) -> io::Result<Option<(String, Vec<u8>)>> {
        if !self.has_manifest(held, repository, digest) {
            return Ok(None);
        }
        self.read_manifest(repository, digest, limit)
    }

    /// The same without a client that hears of it. One whose content is gone or damaged is an error: it is not known what it
    /// names.
    pub(super) fn read_manifest(
        &self,
        repository: &Repository,
        digest: &ContentDigest,
        limit: u64,
    ) -> io::Result<Option<(String, Vec<u8>)>> {
        let Some(media_type) = read_link(&self.link_path(repository, "_manifests", &digest.hex()))? else {
            return Ok(None);
        };
        let bytes = file::read_capped(&self.content_path(digest), limit).map_err(unwrap_file)?;
        if digest.algorithm().digest(&bytes) != *digest {
            return Err(io::Error::new(io::ErrorKind::InvalidData, format!("the content of {digest} is damaged")));
        }
        Ok(Some((media_type, bytes)))
    }

    /// Takes the manifest from the repository, with the tags that point to it; whether it had it.
    pub(super) fn remove_manifest(&self, repository: &Repository, digest: &ContentDigest) -> io::Result<bool> {
        for tag in self.tags(repository)? {
            if self.tag(repository, &tag)? == Some(*digest) {
                self.remove_tag(repository, &tag)?;
            }
        }
        remove(&self.link_path(repository, "_manifests", &digest.hex()))
    }

    pub(super) fn put_tag(&self, repository: &Repository, tag: &Tag, digest: &ContentDigest) -> io::Result<()> {
        write_link(&self.link_path(repository, "_tags", tag.as_str()), digest.to_string().as_bytes())
    }

    pub(super) fn tag(&self, repository: &Repository, tag: &Tag) -> io::Result<Option<ContentDigest>> {
        let Some(text) = read_link(&self.link_path(repository, "_tags", tag.as_str()))? else { return Ok(None) };
        text.parse().map(Some).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
    }

    pub(super) fn remove_tag(&self, repository: &Repository, tag: &Tag) -> io::Result<bool> {
        remove(&self.link_path(repository, "_tags", tag.as_str()))
    }

    /// All tags, sorted as bytes.
    pub(super) fn tags(&self, repository: &Repository) -> io::Result<Vec<Tag>> {
        let mut tags: Vec<Tag> = names(&self.repository_path(repository).join("_tags"))?
            .iter()
            .filter_map(|name| name.parse().ok())
            .collect();
        tags.sort();
        Ok(tags)
    }

    /// Remembers that the manifest refers to the subject, which need not be there.
    pub(super) fn put_referrer(
        &self,
        repository: &Repository,
        subject: &ContentDigest,
        manifest: &ContentDigest,
    ) -> io::Result<()> {
        write_link(&self.link_path(repository, "_referrers", &subject.hex()).join(manifest.hex()), b"")
    }

    /// The repository's manifests that refer to the subject, sorted.
    pub(super) fn referrers(
        &self,
        held: &Held<'_>,
        repository: &Repository,
        subject: &ContentDigest,
    ) -> io::Result<Vec<ContentDigest>> {
        let mut digests: Vec<ContentDigest> = names(&self.link_path(repository, "_referrers", &subject.hex()))?
            .iter()
            .filter_map(|name| ContentDigest::from_hex(name))
            .filter(|digest| self.has_manifest(held, repository, digest))
            .collect();
        digests.sort();
        Ok(digests)
    }

    /// Whether anything was ever put there.
    pub(super) fn has_repository(&self, repository: &Repository) -> bool {
        let path = self.repository_path(repository);
        ["_manifests", "_blobs"].iter().any(|kind| path.join(kind).is_dir())
    }

    /// The names of all repositories that have a manifest, sorted.
    pub(super) fn repositories(&self) -> io::Result<Vec<Repository>> {
        let has_manifests = |name: &String| self.root.join("repositories").join(name).join("_manifests").is_dir();
        let mut found: Vec<Repository> =
            self.folders()?.iter().filter(|name| has_manifests(name)).filter_map(|name| name.parse().ok()).collect();
        found.sort();
        Ok(found)
    }

    /// Every folder below `repositories` that is part of a repository's name.
    pub(super) fn folders(&self) -> io::Result<Vec<String>> {
        let mut found = Vec::new();
        let mut open = vec![String::new()];
        while let Some(name) = open.pop() {
            let path = self.root.join("repositories").join(&name);
            for child in names(&path)? {
                if !child.starts_with('_') && path.join(&child).is_dir() {
                    let child = if name.is_empty() { child } else { format!("{name}/{child}") };
                    found.push(child.clone());
                    open.push(child);
                }
            }
        }
        Ok(found)
    }
}

/// One at a time: who finds a folder there must be able to count on its name being durable.
static MAKING_FOLDERS: Mutex<()> = Mutex::new(());

/// Makes the folder and those above it that are missing, each durable before the next.
pub(super) fn make_folders(path: &Path) -> io::Result<()> {
    fn make(path: &Path) -> io::Result<()> {
        if path.as_os_str().is_empty() || path.is_dir() {
            return Ok(());
        }
        let parent = path.parent().unwrap_or(Path::new(""));
        make(parent)?;
        match DirBuilder::new().mode(0o700).create(path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
            _ => file::sync_folder(if parent.as_os_str().is_empty() { Path::new(".") } else { parent }),
        }
    }
    let _one = MAKING_FOLDERS.lock().unwrap_or_else(PoisonError::into_inner);
    make(path)
}

/// Says that the file is used now; whether it is there.
fn touch(path: &Path) -> io::Result<bool> {
    let now = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
    let times = Timestamps { last_access: now, last_modification: now };
    match rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(()) => Ok(true),
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => Ok(false),
        // The disk may have become read-only: then nothing is removed from it either.
        Err(_) => Ok(path.is_file()),
    }
}

fn write_link(path: &Path, content: &[u8]) -> io::Result<()> {
    if read_link(path)?.is_some_and(|old| old.as_bytes() == content) && touch(path)? {
        // Whoever wrote it may not have synced its name yet.
        return file::sync_folder(path.parent().expect("a link is in a folder"));
    }
    make_folders(path.parent().expect("a link is in a folder"))?;
    file::write_atomic(path, content, 0o600).map_err(unwrap_file)
}

fn read_link(path: &Path) -> io::Result<Option<String>> {
    match file::read_capped(path, LINK) {
        Ok(bytes) => {
            String::from_utf8(bytes).map(Some).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
        }
        Err(FileError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(unwrap_file(error)),
    }
}

/// The kind must stay: a full disk is told from a broken one by it.
fn unwrap_file(error: FileError) -> io::Error {
    let (kind, text) = match &error {
        FileError::Read { source, .. } | FileError::Write { source, .. } => {
            (source.kind(), format!("{error}: {source}"))
        }
        FileError::TooLarge { .. } => (io::ErrorKind::FileTooLarge, error.to_string()),
    };
    io::Error::new(kind, text)
}

fn open_if_there(path: &Path) -> io::Result<Option<File>> {
    match File::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

pub(super) fn remove(path: &Path) -> io::Result<bool> {
    match fs::remove_file(path) {
        Ok(()) => {
            file::sync_folder(path.parent().expect("a link is in a folder"))?;
            Ok(true)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// The names in a folder; none if it is not there.
pub(super) fn names(folder: &Path) -> io::Result<Vec<String>> {
    match fs::read_dir(folder) {
        Ok(entries) => {
            entries.map(|entry| entry.map(|entry| entry.file_name().to_string_lossy().into_owned())).collect()
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}
