//! How blobs are sent: as it was set, and as the registry taught.

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, Ordering};

/// Bytes of a chunk where content goes up in chunks because the registry refused it in one piece.
pub(super) const CHUNK: u64 = 8 << 20;
/// Bytes of a chunk where a registry lost what a broken connection had brought. This much is lost then, while smaller ones
/// cost more than they save: a registry may write all of a chunk to its disk before it answers.
const CHUNK_OF_LOSER: u64 = 64 << 20;

/// How blobs are sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Upload {
    /// In one piece; in chunks once the registry has refused a piece as too large, or lost what had come of one.
    #[default]
    Whole,
    /// In chunks of this many bytes.
    Chunks(NonZeroUsize),
}

/// The setting with what was learned.
#[derive(Debug)]
pub(crate) struct UploadMode {
    setting: Upload,
    refused_whole: AtomicBool,
    loses_cut: AtomicBool,
}

impl UploadMode {
    pub(crate) fn new(setting: Upload) -> Self {
        Self { setting, refused_whole: AtomicBool::new(false), loses_cut: AtomicBool::new(false) }
    }

    /// The bytes of a chunk of content of which this much can be had again; `None` where it goes up in one piece.
    pub(super) fn chunk(&self, again: u64) -> Option<u64> {
        match self.setting {
            Upload::Chunks(bytes) => Some(bytes.get() as u64),
            Upload::Whole if self.refused_whole.load(Ordering::Relaxed) => Some(CHUNK),
            Upload::Whole if self.loses_cut.load(Ordering::Relaxed) => Some(CHUNK_OF_LOSER.min(again)),
            Upload::Whole => None,
        }
    }

    /// The registry refused a request as too large, in which so many bytes were to go; whether there are smaller ones.
    pub(super) fn learn_chunks(&self, refused: Option<u64>) -> bool {
        // Several uploads may learn it at the same time, and all of them have to begin again.
        let smaller = self.setting == Upload::Whole && refused.is_none_or(|bytes| bytes > CHUNK);
        if smaller {
            self.refused_whole.store(true, Ordering::Relaxed);
        }
        smaller
    }

    /// The registry knows nothing of what a broken connection had brought: as one behind a proxy that hands on whole requests
    /// alone.
    pub(super) fn learn_loss(&self) {
        self.loses_cut.store(true, Ordering::Relaxed);
    }
}
