//! The folder that the registry's content is in.
//!
//! ```text
//! DIR/lock                                  held while served
//! DIR/blobs/sha256/xx/HEX                   content, by its digest
//! DIR/uploads/                              what has no digest yet; emptied at every start
//! DIR/repositories/NAME/_blobs/HEX          the repository has this blob
//! DIR/repositories/NAME/_manifests/HEX      the repository has this manifest; the file says its media type
//! DIR/repositories/NAME/_tags/TAG           the file says the digest
//! DIR/repositories/NAME/_referrers/HEX/HEX  the manifest refers to this subject
//! ```
//!
//! A name appears only after what it names is whole and synced, and is itself synced before a client hears of it. So what
//! was acknowledged survives a crash, and what was not leaves nothing but files in `uploads`. The folders of a repository
//! start with `_`, which no component of a repository's name does.

use std::collections::HashSet;
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use super::error::ServeError;
use crate::base::digest::Digest;
use crate::base::file::{self, FileError};
use crate::registry::reference::{Repository, Tag};

/// Bytes of a link file.
const LINK: u64 = 1024;

#[derive(Debug)]
pub(super) struct Store {
    root: PathBuf,
    _lock: File,
}

impl Store {
    /// Opens the folder, makes what is missing, and removes uploads that a stopped server left.
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
        let uploads = root.join("uploads");
        match fs::remove_dir_all(&uploads) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
        for folder in [uploads, root.join("blobs/sha256"), root.join("repositories")] {
            make_folders(&folder).map_err(failed)?;
        }
        let store = Self { root: root.to_owned(), _lock: lock };
        let removed = store.remove_unused().map_err(failed)?;
        tracing::debug!(removed, "content that no repository has was removed");
        Ok(store)
    }

    /// Removes content that no repository has: what was deleted, and what a crash left between content and name.
    fn remove_unused(&self) -> io::Result<u64> {
        let mut used = HashSet::new();
        for repository in self.folders()? {
            for kind in ["_blobs", "_manifests"] {
                used.extend(names(&self.root.join("repositories").join(&repository).join(kind))?);
            }
        }
        let mut removed = 0;
        let content = self.root.join("blobs/sha256");
        for folder in names(&content)? {
            for name in names(&content.join(&folder))? {
                if !used.contains(&name) {
                    fs::remove_file(content.join(&folder).join(name))?;
                    removed += 1;
                }
            }
        }
        Ok(removed)
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    fn blob_path(&self, digest: &Digest) -> PathBuf {
        let hex = digest.hex();
        self.root.join("blobs/sha256").join(&hex[..2]).join(hex)
    }

    fn repository_path(&self, repository: &Repository) -> PathBuf {
        self.root.join("repositories").join(repository.as_str())
    }

    fn link_path(&self, repository: &Repository, kind: &str, name: &str) -> PathBuf {
        self.repository_path(repository).join(kind).join(name)
    }

    /// A file for content whose digest is not known yet.
    pub(super) fn new_upload(&self) -> io::Result<NamedTempFile> {
        tempfile::Builder::new().prefix("upload-").tempfile_in(self.root.join("uploads"))
    }

    /// Gives content its name. `digest` must be that of the file's bytes.
    pub(super) fn commit(&self, content: NamedTempFile, digest: &Digest) -> io::Result<()> {
        let path = self.blob_path(digest);
        if path.exists() {
            return Ok(());
        }
        content.as_file().sync_all()?;
        let folder = path.parent().expect("a blob is in a folder");
        make_folders(folder)?;
        content.persist(&path).map_err(|error| error.error)?;
        file::sync_folder(folder)
    }

    /// Whether any repository brought this blob here.
    pub(super) fn has_content(&self, digest: &Digest) -> bool {
        self.blob_path(digest).is_file()
    }

    /// Makes the blob, which must be here, one of the repository's.
    pub(super) fn link_blob(&self, repository: &Repository, digest: &Digest) -> io::Result<()> {
        write_link(&self.link_path(repository, "_blobs", &digest.hex()), b"")
    }

    pub(super) fn has_blob(&self, repository: &Repository, digest: &Digest) -> bool {
        self.link_path(repository, "_blobs", &digest.hex()).is_file()
    }

    /// The repository's blob and its length.
    pub(super) fn blob(&self, repository: &Repository, digest: &Digest) -> io::Result<Option<(File, u64)>> {
        if !self.has_blob(repository, digest) {
            return Ok(None);
        }
        let Some(file) = open_if_there(&self.blob_path(digest))? else { return Ok(None) };
        let length = file.metadata()?.len();
        Ok(Some((file, length)))
    }

    /// Takes the blob from the repository; whether it had it. The content stays
    /// until the next start: other repositories may have it too.
    pub(super) fn unlink_blob(&self, repository: &Repository, digest: &Digest) -> io::Result<bool> {
        remove(&self.link_path(repository, "_blobs", &digest.hex()))
    }

    pub(super) fn put_manifest(
        &self,
        repository: &Repository,
        digest: &Digest,
        media_type: &str,
        bytes: &[u8],
    ) -> io::Result<()> {
        let mut content = self.new_upload()?;
        io::Write::write_all(&mut content, bytes)?;
        self.commit(content, digest)?;
        write_link(&self.link_path(repository, "_manifests", &digest.hex()), media_type.as_bytes())
    }

    pub(super) fn has_manifest(&self, repository: &Repository, digest: &Digest) -> bool {
        self.link_path(repository, "_manifests", &digest.hex()).is_file()
    }

    /// The repository's manifest: media type and bytes.
    pub(super) fn manifest(
        &self,
        repository: &Repository,
        digest: &Digest,
        limit: u64,
    ) -> io::Result<Option<(String, Vec<u8>)>> {
        let Some(media_type) = read_link(&self.link_path(repository, "_manifests", &digest.hex()))? else {
            return Ok(None);
        };
        let bytes = file::read_capped(&self.blob_path(digest), limit).map_err(unwrap_file)?;
        Ok(Some((media_type, bytes)))
    }

    /// Takes the manifest from the repository, with the tags that point to it; whether it had it.
    pub(super) fn remove_manifest(&self, repository: &Repository, digest: &Digest) -> io::Result<bool> {
        for tag in self.tags(repository)? {
            if self.tag(repository, &tag)? == Some(*digest) {
                self.remove_tag(repository, &tag)?;
            }
        }
        remove(&self.link_path(repository, "_manifests", &digest.hex()))
    }

    pub(super) fn put_tag(&self, repository: &Repository, tag: &Tag, digest: &Digest) -> io::Result<()> {
        write_link(&self.link_path(repository, "_tags", tag.as_str()), digest.to_string().as_bytes())
    }

    pub(super) fn tag(&self, repository: &Repository, tag: &Tag) -> io::Result<Option<Digest>> {
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
    pub(super) fn put_referrer(&self, repository: &Repository, subject: &Digest, manifest: &Digest) -> io::Result<()> {
        write_link(&self.link_path(repository, "_referrers", &subject.hex()).join(manifest.hex()), b"")
    }

    /// The repository's manifests that refer to the subject, sorted.
    pub(super) fn referrers(&self, repository: &Repository, subject: &Digest) -> io::Result<Vec<Digest>> {
        let mut digests: Vec<Digest> = names(&self.link_path(repository, "_referrers", &subject.hex()))?
            .iter()
            .filter_map(|name| Digest::from_hex(name).ok())
            .filter(|digest| self.has_manifest(repository, digest))
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
    fn folders(&self) -> io::Result<Vec<String>> {
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

/// Makes the folder and those above it that are missing, each durable before the next.
pub(super) fn make_folders(path: &Path) -> io::Result<()> {
    if path.as_os_str().is_empty() || path.is_dir() {
        return Ok(());
    }
    let parent = path.parent().unwrap_or(Path::new(""));
    make_folders(parent)?;
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => file::sync_folder(if parent.as_os_str().is_empty() { Path::new(".") } else { parent }),
    }
}

fn write_link(path: &Path, content: &[u8]) -> io::Result<()> {
    if read_link(path)?.is_some_and(|old| old.as_bytes() == content) {
        return Ok(());
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

fn unwrap_file(error: FileError) -> io::Error {
    io::Error::other(match error.to_string() {
        text if std::error::Error::source(&error).is_none() => text,
        text => format!("{text}: {}", std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default()),
    })
}

fn open_if_there(path: &Path) -> io::Result<Option<File>> {
    match File::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn remove(path: &Path) -> io::Result<bool> {
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
fn names(folder: &Path) -> io::Result<Vec<String>> {
    match fs::read_dir(folder) {
        Ok(entries) => {
            entries.map(|entry| entry.map(|entry| entry.file_name().to_string_lossy().into_owned())).collect()
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}
