//! Files that must not be half written, too large, or readable by others.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::exit::{Classify, ExitClass};

/// What went wrong with a file.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// Reading failed.
    #[error("read `{}`", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Writing failed.
    #[error("write `{}`", .path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is larger than its kind may be.
    #[error("read `{}`: it is larger than {limit} bytes", .path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The bound in bytes.
        limit: u64,
    },
}

impl Classify for FileError {
    fn class(&self) -> ExitClass {
        match self {
            Self::Write { source, .. } if source.kind() == io::ErrorKind::AlreadyExists => ExitClass::Usage,
            Self::Read { .. } | Self::Write { .. } => ExitClass::Unreachable,
            Self::TooLarge { .. } => ExitClass::Usage,
        }
    }

    fn remedy(&self) -> Option<String> {
        let (Self::Read { source, .. } | Self::Write { source, .. }) = self else { return None };
        match source.kind() {
            io::ErrorKind::AlreadyExists => Some("name another place, or remove what is there first".to_owned()),
            io::ErrorKind::PermissionDenied => Some("give the user that runs gapscan the right to it".to_owned()),
            _ => None,
        }
    }
}

/// All bytes of a regular file of at most `limit` bytes.
///
/// # Errors
/// When it can't be read, is no regular file (a FIFO would block for ever), or is larger.
pub fn read_capped(path: &Path, limit: u64) -> Result<Vec<u8>, FileError> {
    let failed = |source| FileError::Read { path: path.to_owned(), source };
    let meta = fs::metadata(path).map_err(failed)?;
    if !meta.is_file() {
        return Err(failed(io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file")));
    }
    let mut bytes = Vec::with_capacity(meta.len().min(limit) as usize);
    File::open(path).map_err(failed)?.take(limit + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > limit {
        return Err(FileError::TooLarge { path: path.to_owned(), limit });
    }
    Ok(bytes)
}

/// Replaces `path` by these bytes so that a reader, or a machine that lost power, sees the old content or the new, never
/// a part: written beside it, synced, renamed over it, and the folder synced. `mode` is the file's mode from its first byte on.
///
/// # Errors
/// When any step fails; then the old content is still there.
pub fn write_atomic(path: &Path, bytes: &[u8], mode: u32) -> Result<(), FileError> {
    let failed = |source| FileError::Write { path: path.to_owned(), source };
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let file = written_beside(path, folder, bytes, mode)?;
    file.persist(path).map_err(|e| failed(e.error))?;
    sync_folder(folder).map_err(failed)
}

/// Makes a file that must not exist yet, with this mode from its first byte on: whole or not at all, also where the
/// machine loses power; of several who try at once, one succeeds.
///
/// # Errors
/// When it exists, or can't be written.
pub fn write_new(path: &Path, bytes: &[u8], mode: u32) -> Result<(), FileError> {
    let failed = |source| FileError::Write { path: path.to_owned(), source };
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let file = written_beside(path, folder, bytes, mode)?;
    file.persist_noclobber(path).map_err(|e| failed(e.error))?;
    sync_folder(folder).map_err(failed)
}

/// A file in `folder` that is gone when it is dropped, with these bytes on the disk.
fn written_beside(path: &Path, folder: &Path, bytes: &[u8], mode: u32) -> Result<tempfile::NamedTempFile, FileError> {
    let failed = |source| FileError::Write { path: path.to_owned(), source };
    let mut file = tempfile::Builder::new()
        .prefix(".gapscan-")
        .permissions(fs::Permissions::from_mode(mode))
        .tempfile_in(folder)
        .map_err(failed)?;
    file.write_all(bytes).map_err(failed)?;
    // The umask may have taken bits from the mode that was asked for.
    file.as_file().set_permissions(fs::Permissions::from_mode(mode)).map_err(failed)?;
    file.as_file().sync_all().map_err(failed)?;
    Ok(file)
}

/// Makes a folder with all that lead to it, and makes their names durable: what is written into it later is not lost with
/// it where the machine loses power.
///
/// # Errors
/// When a folder can't be made or synced.
pub fn make_folder(folder: &Path) -> Result<(), FileError> {
    if folder.is_dir() {
        return Ok(());
    }
    let parent = folder.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    make_folder(parent)?;
    let failed = |source| FileError::Write { path: folder.to_owned(), source };
    match fs::create_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && folder.is_dir() => Ok(()),
        other => other.and_then(|()| sync_folder(parent)).map_err(failed),
    }
}

/// Makes the names in a folder durable.
///
/// # Errors
/// When the folder can't be opened or synced.
pub fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_whole_and_private() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("key");
        write_atomic(&path, b"one", 0o600).expect("first write");
        write_atomic(&path, b"two", 0o600).expect("second write");
        assert_eq!(fs::read(&path).expect("read"), b"two");
        assert_eq!(fs::metadata(&path).expect("stat").permissions().mode() & 0o7777, 0o600);
        assert_eq!(fs::read_dir(folder.path()).expect("list").count(), 1, "nothing is left beside it");
    }

    #[test]
    fn a_file_that_is_there_is_not_replaced() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("key");
        write_new(&path, b"one", 0o600).expect("first write");
        assert_eq!(write_new(&path, b"two", 0o600).expect_err("it exists").class(), ExitClass::Usage);
        assert_eq!(fs::read(&path).expect("read"), b"one");
        assert_eq!(fs::metadata(&path).expect("stat").permissions().mode() & 0o7777, 0o600);
        assert_eq!(fs::read_dir(folder.path()).expect("list").count(), 1, "nothing is left beside it");
    }

    #[test]
    fn a_file_over_its_limit_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("doc");
        fs::write(&path, [0; 11]).expect("write");
        assert!(matches!(read_capped(&path, 10), Err(FileError::TooLarge { .. })));
        assert_eq!(read_capped(&path, 11).expect("read").len(), 11);
        assert!(matches!(read_capped(folder.path(), 10), Err(FileError::Read { .. })));
    }
}
