//! Why a bundle is not built.

use std::path::PathBuf;

use crate::base::digest::Digest;
use crate::base::exit::{Classify, ExitClass};
use crate::base::file::FileError;
use crate::base::quantity::bytes_for_people;
use crate::bundle::error::BundleError;
use crate::bundle::source::SourceError;
use crate::trust::TrustError;

/// Why a bundle is not built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// A source does not give something.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// What was assembled is no bundle.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// Keys or roots can't be used.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// A file can't be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// Content is not what was locked.
    #[error("collect {what}: its digest is {found}, and {expected} is locked")]
    Changed {
        /// What.
        what: String,
        /// The locked digest.
        expected: Digest,
        /// What was found.
        found: Digest,
    },
    /// A blob ends before or goes on after its length.
    #[error("collect {digest}: it has not the {expected} bytes that its manifest says")]
    Length {
        /// Which.
        digest: Digest,
        /// How many it must have.
        expected: u64,
    },
    /// A blob has no place in the archive.
    #[error("collect {digest}: it has {}, and an archive entry ends at 8 GiB", bytes_for_people(*.bytes))]
    BlobTooLarge {
        /// Which.
        digest: Digest,
        /// Its length.
        bytes: u64,
    },
    /// Writing failed.
    #[error("write `{}`", .path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file system has no room for the bundle, or for the next byte of it.
    #[error("write `{}`: {} are needed, and {} are free", .path.display(), bytes_for_people(*.needed), bytes_for_people(*.free))]
    NoRoom {
        /// What was to be written.
        path: PathBuf,
        /// How many bytes it has.
        needed: u64,
        /// How many are free.
        free: u64,
    },
    /// Somebody else writes there.
    #[error("write `{}`: another gapscan is writing it", .path.display())]
    Busy {
        /// What was to be written.
        path: PathBuf,
    },
    /// A part that the bundle has not.
    #[error("make part {number}: the bundle has {count} parts of {}", bytes_for_people(*.part_bytes))]
    NoSuchPart {
        /// Which was asked for.
        number: u64,
        /// How many there are.
        count: u64,
        /// How long each is.
        part_bytes: u64,
    },
    /// The bundle would be cut into more parts than anybody can carry.
    #[error("cut the bundle into parts of {}: these would be {count} parts, and {most} is the most", bytes_for_people(*.part_bytes))]
    TooManyParts {
        /// How many there would be.
        count: u64,
        /// How many there may be.
        most: u64,
        /// How long each would be.
        part_bytes: u64,
    },
    /// A part that was made again is not the one that was made before.
    #[error("make `{}` again: its digest is {found}, and the sums beside it say {expected}", .path.display())]
    OtherPart {
        /// The part.
        path: PathBuf,
        /// What the sums say.
        expected: Digest,
        /// What came out.
        found: Digest,
    },
    /// A receipt can't be the base of a delta.
    #[error("use `{}` as the base of a delta: {reason}", .path.display())]
    Base {
        /// The receipt.
        path: PathBuf,
        /// Why not.
        reason: String,
        /// What to do about it.
        remedy: String,
        /// The class: a receipt that is wrong, or the wrong receipt.
        class: ExitClass,
    },
    /// A task of the build broke.
    #[error("write `{}`: a part of this program broke", .path.display())]
    Broke {
        /// The file.
        path: PathBuf,
        /// How.
        #[source]
        source: tokio::task::JoinError,
    },
    /// The definition or the lock asks for something that can't be.
    #[error("{0}")]
    Definition(String),
}

impl Classify for BuildError {
    fn class(&self) -> ExitClass {
        match self {
            Self::Source(error) => error.class(),
            Self::Bundle(error) => error.class(),
            Self::Trust(error) => error.class(),
            Self::File(error) => error.class(),
            Self::Changed { .. } | Self::Length { .. } => ExitClass::Refused,
            Self::BlobTooLarge { .. }
            | Self::Definition(_)
            | Self::NoSuchPart { .. }
            | Self::TooManyParts { .. }
            | Self::Busy { .. } => ExitClass::Usage,
            Self::OtherPart { .. } => ExitClass::Refused,
            Self::Base { class, .. } => *class,
            Self::Write { .. } | Self::NoRoom { .. } => ExitClass::Unreachable,
            Self::Broke { .. } => ExitClass::Bug,
        }
    }

    fn remedy(&self) -> Option<String> {
        match self {
            Self::Source(error) => error.remedy(),
            Self::Bundle(error) => error.remedy(),
            Self::Trust(error) => error.remedy(),
            Self::File(error) => error.remedy(),
            Self::Changed { .. } | Self::Length { .. } => {
                Some("if the change is wanted, run `gapscan bundle lock` again".to_owned())
            }
            Self::BlobTooLarge { .. } => Some("build the image with smaller layers".to_owned()),
            Self::NoRoom { .. } => Some(
                "free space there, or name another place; with --split and --part one part is written at a time".to_owned(),
            ),
            Self::Busy { .. } => Some("wait for it to end, or name another file".to_owned()),
            Self::NoSuchPart { count, .. } => Some(format!("name one from 1 to {count}, with the same --split as before")),
            Self::TooManyParts { .. } => Some("name a larger size".to_owned()),
            Self::OtherPart { .. } => Some(
                "use the lock, the keys, the program and the --split that the other parts were made with, or make all anew"
                    .to_owned(),
            ),
            Self::Base { remedy, .. } => Some(remedy.clone()),
            Self::Write { source, .. } => match source.kind() {
                std::io::ErrorKind::FileTooLarge => {
                    Some("the file system or a limit allows no larger file: cut the bundle with --split".to_owned())
                }
                std::io::ErrorKind::AlreadyExists => Some("name a file that is not there yet, or a bundle".to_owned()),
                std::io::ErrorKind::PermissionDenied => Some("give the user that runs gapscan the right to it".to_owned()),
                _ => None,
            },
            Self::Broke { .. } | Self::Definition(_) => None,
        }
    }
}
