//! What can go wrong with a ledger.

use std::path::{Path, PathBuf};

use rusqlite::ErrorCode;

use crate::base::exit::{Classify, ExitClass};
use crate::base::file::FileError;

/// Why a ledger can't be used. Whatever it is: the run stops, since what is not recorded would be lost.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// There is no ledger to read.
    #[error("open ledger `{}`: there is none", .path.display())]
    Absent {
        /// Where.
        path: PathBuf,
    },
    /// It can't be opened.
    #[error("open ledger `{}`", .path.display())]
    Open {
        /// Where.
        path: PathBuf,
        /// Why.
        source: rusqlite::Error,
    },
    /// The file is something else.
    #[error("open ledger `{}`: the file is no ledger of gapscan", .path.display())]
    NotLedger {
        /// Where.
        path: PathBuf,
    },
    /// The path is a folder's.
    #[error("open ledger `{}`: it is a folder", .path.display())]
    Folder {
        /// Where.
        path: PathBuf,
    },
    /// A newer gapscan made it.
    #[error("open ledger `{}`: its schema is {found}, and this gapscan knows {known}", .path.display())]
    Newer {
        /// Where.
        path: PathBuf,
        /// The schema of the file.
        found: i64,
        /// The newest schema that this program knows.
        known: i64,
    },
    /// Another process writes to it.
    #[error("open ledger `{}`: process {pid} is writing to it", .path.display())]
    Locked {
        /// Where.
        path: PathBuf,
        /// The process that holds the lock, as it wrote itself.
        pid: String,
    },
    /// The lock file can't be made or locked.
    #[error("lock ledger `{}`", .path.display())]
    Lock {
        /// The lock file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The database is damaged.
    #[error("{what} in ledger `{}`: the file is damaged", .path.display())]
    Corrupt {
        /// Where.
        path: PathBuf,
        /// What was tried.
        what: String,
        /// What SQLite says.
        source: rusqlite::Error,
    },
    /// Reading failed.
    #[error("{what} in ledger `{}`", .path.display())]
    Read {
        /// Where.
        path: PathBuf,
        /// What was tried.
        what: String,
        /// Why.
        source: rusqlite::Error,
    },
    /// Writing failed: the disk is full, the folder is read-only. Nothing of it was recorded.
    #[error("{what} in ledger `{}`", .path.display())]
    Write {
        /// Where.
        path: PathBuf,
        /// What was tried.
        what: String,
        /// Why.
        source: rusqlite::Error,
    },
    /// Kept evidence is not what its digest says.
    #[error("read evidence {digest} in ledger `{}`: {detail}", .path.display())]
    Evidence {
        /// Where.
        path: PathBuf,
        /// The evidence.
        digest: crate::base::digest::Digest,
        /// What is wrong with it.
        detail: String,
    },
    /// The database does not reach what the head file says, or one of the two is missing.
    #[error("open ledger `{}`: {detail}", .path.display())]
    Head {
        /// Where.
        path: PathBuf,
        /// What does not fit.
        detail: String,
    },
    /// The runner's key can't be used.
    #[error("use the runner's key `{}`: {detail}", .path.display())]
    Key {
        /// The key file.
        path: PathBuf,
        /// Why.
        detail: String,
    },
    /// A file beside the database can't be read or written.
    #[error("keep ledger `{}`", .path.display())]
    File {
        /// Where.
        path: PathBuf,
        /// Why.
        source: FileError,
    },
    /// What was to be recorded contradicts what is recorded; a bug in the caller. Nothing of it was recorded.
    #[error("{what} in ledger `{}`: {why}", .path.display())]
    Contradiction {
        /// Where.
        path: PathBuf,
        /// What was tried.
        what: String,
        /// What speaks against it.
        why: String,
    },
}

impl LedgerError {
    /// A failed read, told apart from a damaged file.
    pub(super) fn read(path: &Path, what: impl Into<String>) -> impl FnOnce(rusqlite::Error) -> Self {
        let (path, what) = (path.to_owned(), what.into());
        move |source| {
            if is_damage(&source) { Self::Corrupt { path, what, source } } else { Self::Read { path, what, source } }
        }
    }

    /// A failed write, told apart from a damaged file.
    pub(super) fn write(path: &Path, what: impl Into<String>) -> impl FnOnce(rusqlite::Error) -> Self {
        let (path, what) = (path.to_owned(), what.into());
        move |source| {
            if is_damage(&source) { Self::Corrupt { path, what, source } } else { Self::Write { path, what, source } }
        }
    }
}

/// Whether SQLite, or the reader of a body, says that what is stored is not what was written.
pub(super) fn is_damage(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase))
        || matches!(
            error,
            rusqlite::Error::FromSqlConversionFailure(..)
                | rusqlite::Error::InvalidColumnType(..)
                | rusqlite::Error::IntegralValueOutOfRange(..)
                | rusqlite::Error::Utf8Error(..)
        )
}

impl Classify for LedgerError {
    fn class(&self) -> ExitClass {
        match self {
            Self::Absent { .. } => ExitClass::Unreachable,
            Self::Open { .. }
            | Self::NotLedger { .. }
            | Self::Folder { .. }
            | Self::Newer { .. }
            | Self::Locked { .. }
            | Self::Lock { .. }
            | Self::Corrupt { .. }
            | Self::Read { .. }
            | Self::Write { .. }
            | Self::Evidence { .. }
            | Self::Head { .. }
            | Self::Key { .. }
            | Self::File { .. } => ExitClass::Ledger,
            Self::Contradiction { .. } => ExitClass::Bug,
        }
    }

    fn remedy(&self) -> Option<String> {
        match self {
            Self::Absent { .. } => Some("give its path with --ledger or in GAPSCAN_LEDGER".to_owned()),
            Self::Open { .. } | Self::Lock { .. } => {
                Some("the folder must exist and be writable for the user that runs gapscan".to_owned())
            }
            Self::NotLedger { .. } | Self::Folder { .. } => Some("give the path of a ledger, or of a file that does not exist yet".to_owned()),
            Self::Newer { .. } => Some("use the gapscan that wrote it, or a newer one".to_owned()),
            Self::Locked { .. } => Some("wait for it to end, or give this runner a ledger of its own".to_owned()),
            Self::Corrupt { .. } | Self::Evidence { .. } => Some(
                "move the ledger's files aside, all together, and bring back a backup; `gapscan ledger verify` says what is damaged"
                    .to_owned(),
            ),
            Self::Write { source, .. } if source.sqlite_error_code() == Some(ErrorCode::DiskFull) => {
                Some("free space on the ledger's file system; nothing was recorded by halves".to_owned())
            }
            Self::Write { .. } => Some("the ledger's folder and files must be writable for the user that runs gapscan".to_owned()),
            Self::Head { .. } => Some(
                "bring back the newest copy of the ledger's files, all of one time; to begin anew, move them aside all together"
                    .to_owned(),
            ),
            Self::Key { .. } => Some("the key belongs beside its ledger, with mode 0600".to_owned()),
            Self::Read { .. } | Self::File { .. } | Self::Contradiction { .. } => None,
        }
    }
}
