//! Why a bundle is not accepted.

use std::ops::Range;

use super::archive::BLOCK;
use super::parts::PartsError;
use crate::base::digest::Digest;
use crate::base::exit::{Classify, ExitClass};
use crate::trust::TrustError;

/// Why a bundle is not accepted. Offsets are bytes from the start of the archive.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// Reading the archive failed.
    #[error("read the bundle at byte {offset}")]
    Io {
        /// How far it was read.
        offset: u64,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The archive ends too early.
    #[error("read `{entry}` at byte {offset}: the archive ends there, so it was truncated")]
    Truncated {
        /// What was being read.
        entry: String,
        /// Where it ends.
        offset: u64,
    },
    /// A header is not the one that follows from the signed metadata.
    #[error("accept the header at byte {offset}: expected that of `{entry}`, found {found}; {hint}")]
    Header {
        /// The entry that must be there.
        entry: String,
        /// Where the header begins.
        offset: u64,
        /// What is there instead.
        found: String,
        /// What may have happened.
        hint: &'static str,
    },
    /// The bytes between two entries are not zero.
    #[error("accept the padding of `{entry}` at byte {offset}: it is not zero, so that something may be hidden in it")]
    Padding {
        /// The entry before.
        entry: String,
        /// Where the padding begins.
        offset: u64,
    },
    /// The end marker is not there where everything signed has been read.
    #[error(
        "accept what is at byte {offset}: everything that is signed has been read and the end marker must follow, so an entry was added"
    )]
    EndMarker {
        /// Where the marker must begin.
        offset: u64,
    },
    /// There are bytes after the end marker.
    #[error("accept what is at byte {offset}: the archive ended there, so something was appended")]
    Trailing {
        /// Where it begins.
        offset: u64,
    },
    /// Content does not have the signed digest.
    #[error(
        "accept `{entry}`, which ends at byte {offset}: its digest is {found}, and {expected} is signed; it was changed or damaged"
    )]
    Digest {
        /// The entry.
        entry: String,
        /// Where its content ends.
        offset: u64,
        /// The length of its content in bytes.
        size: u64,
        /// The signed digest.
        expected: Digest,
        /// What was found.
        found: Digest,
    },
    /// The parts that it came in are not all there, or are not what they must be.
    #[error(transparent)]
    Parts(#[from] PartsError),
    /// The metadata is not trusted.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// What is signed is no list of contents of a bundle.
    #[error("read the signed list of contents: {0}")]
    Contents(String),
    /// Something is larger than it may be.
    #[error("accept {what}: {found} is more than {limit}")]
    TooLarge {
        /// What.
        what: String,
        /// How much it is.
        found: u64,
        /// How much it may be.
        limit: u64,
    },
    /// A manifest or index is not what it must be.
    #[error("read manifest {digest}: {reason}")]
    Manifest {
        /// Which.
        digest: Digest,
        /// What is wrong.
        reason: String,
    },
    /// The image layout's index or marker is not what it must be.
    #[error("read `{entry}`: {reason}")]
    Layout {
        /// Which file.
        entry: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// The catalog is not what it must be.
    #[error("read the catalog: {0}")]
    Catalog(String),
    /// The bundle is for other versions of this program.
    #[error("use this bundle with gapscan {own}: it asks for {wanted}")]
    Requires {
        /// What it asks for.
        wanted: String,
        /// This program's version.
        own: String,
    },
    /// The content is not what somebody else got from the same lock.
    #[error("accept the bundle for signing: its content is {found}, and {wanted} was asked for")]
    OtherContent {
        /// What was asked for.
        wanted: Digest,
        /// What it is.
        found: Digest,
    },
    /// The program asked for the proof before it had read everything.
    #[error("finish the bundle: {0} blobs were not read yet")]
    Unread(usize),
    /// The reader is asked again after it failed.
    #[error("go on with a bundle that was refused")]
    Dead,
}

impl BundleError {
    /// Where in the archive it was seen, if it is about a place in it.
    pub fn offset(&self) -> Option<u64> {
        match self {
            Self::Io { offset, .. }
            | Self::Truncated { offset, .. }
            | Self::Header { offset, .. }
            | Self::Padding { offset, .. }
            | Self::EndMarker { offset }
            | Self::Trailing { offset }
            | Self::Digest { offset, .. } => Some(*offset),
            Self::Parts(_)
            | Self::Trust(_)
            | Self::Contents(_)
            | Self::TooLarge { .. }
            | Self::Manifest { .. }
            | Self::Layout { .. }
            | Self::Catalog(_)
            | Self::Requires { .. }
            | Self::OtherContent { .. }
            | Self::Unread(_)
            | Self::Dead => None,
        }
    }

    /// The bytes of the archive of which some are wrong or can't be had, if it is about any.
    pub fn range(&self) -> Option<Range<u64>> {
        let block = BLOCK as u64;
        match self {
            // Its header was found right.
            Self::Digest { offset, size, .. } => Some(offset.saturating_sub(*size)..*offset),
            Self::Header { offset, .. } | Self::Padding { offset, .. } => Some(*offset..offset.saturating_add(block)),
            Self::EndMarker { offset } => Some(*offset..offset.saturating_add(2 * block)),
            other => other.offset().map(|at| at..at.saturating_add(1)),
        }
    }
}

impl Classify for BundleError {
    fn class(&self) -> ExitClass {
        match self {
            Self::Io { .. } => ExitClass::Unreachable,
            Self::Parts(error) => error.class(),
            Self::Trust(error) => error.class(),
            Self::Unread(_) | Self::Dead => ExitClass::Bug,
            Self::Truncated { .. }
            | Self::Header { .. }
            | Self::Padding { .. }
            | Self::EndMarker { .. }
            | Self::Trailing { .. }
            | Self::Digest { .. }
            | Self::Contents(_)
            | Self::TooLarge { .. }
            | Self::Manifest { .. }
            | Self::Layout { .. }
            | Self::Catalog(_)
            | Self::OtherContent { .. }
            | Self::Requires { .. } => ExitClass::Refused,
        }
    }

    fn remedy(&self) -> Option<String> {
        match self {
            Self::Parts(error) => error.remedy(),
            Self::Trust(error) => error.remedy(),
            Self::Truncated { .. }
            | Self::Header { .. }
            | Self::Padding { .. }
            | Self::EndMarker { .. }
            | Self::Trailing { .. }
            | Self::Digest { .. } => {
                Some("compare the file's SHA-256 with the one on the connected host and copy it again".to_owned())
            }
            Self::Requires { .. } => {
                Some("use a gapscan of such a version, or a bundle that was made for this one".to_owned())
            }
            Self::OtherContent { .. } => {
                Some("say what differs with `gapscan bundle diff` before anybody signs either".to_owned())
            }
            Self::Io { .. }
            | Self::Contents(_)
            | Self::TooLarge { .. }
            | Self::Manifest { .. }
            | Self::Layout { .. }
            | Self::Catalog(_)
            | Self::Unread(_)
            | Self::Dead => None,
        }
    }
}
