//! One writer at a time.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::error::LedgerError;
use super::schema::beside;

/// The exclusive lock on a ledger, held until it is dropped. The kernel lets go of it when the process dies in whatever
/// way, so that a lock can't be left behind; the file stays, and its content is only for people.
#[derive(Debug)]
pub(super) struct WriterLock {
    file: File,
}

impl Drop for WriterLock {
    fn drop(&mut self) {
        // Closing is not enough: a process that another thread has forked, and that has not become its program yet, has the
        // file open as well, and the lock would be its as long.
        let _ = self.file.unlock();
    }
}

impl WriterLock {
    /// Takes the lock of the ledger at `path` without waiting.
    pub(super) fn take(path: &Path) -> Result<Self, LedgerError> {
        let lock_path = beside(path, "lock");
        let failed = |source| LedgerError::Lock { path: lock_path.clone(), source };
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&lock_path)
            .map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut pid = String::new();
                let _ = Read::by_ref(&mut file).take(20).read_to_string(&mut pid);
                let pid = pid.trim();
                let known = !pid.is_empty() && pid.bytes().all(|b| b.is_ascii_digit());
                let pid = if known { pid } else { "of unknown number" }.to_owned();
                return Err(LedgerError::Locked { path: path.to_owned(), pid });
            }
            Err(TryLockError::Error(source)) => return Err(failed(source)),
        }
        file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id())).map_err(failed)?;
        Ok(Self { file })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_done_lets_go_of_it_whoever_else_has_the_file_open() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("ledger.sqlite");
        let lock = WriterLock::take(&path).expect("nobody has it");
        // As a forked process has it.
        let inherited = lock.file.try_clone().expect("the file can be opened again");
        assert!(matches!(WriterLock::take(&path), Err(LedgerError::Locked { .. })));
        drop(lock);
        WriterLock::take(&path).expect("nobody has it any more");
        drop(inherited);
    }
}
