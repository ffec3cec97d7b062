//! How blobs are sent: as it was set, and as the registry taught.

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, Ordering};

/// Bytes of a chunk where content goes up in chunks because the registry refused it in one piece.
pub(super) const CHUNK: u64 = 8 << 20;

/// How blobs are sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Upload {
    /// In one piece; in chunks once the registry has refused a piece as too large.
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
}

impl UploadMode {
    pub(crate) fn new(setting: Upload) -> Self {
        Self { setting, refused_whole: AtomicBool::new(false) }
    }

    /// The bytes of a chunk; `None` where content goes up in one piece.
    pub(super) fn chunk(&self) -> Option<u64> {
        match self.setting {
            Upload::Chunks(bytes) => Some(bytes.get() as u64),
            Upload::Whole if self.refused_whole.load(Ordering::Relaxed) => Some(CHUNK),
            Upload::Whole => None,
        }
    }

    /// The registry refused a request as too large; whether that was news.
    pub(super) fn learn_chunks(&self) -> bool {
        let news = self.chunk().is_none();
        self.refused_whole.store(true, Ordering::Relaxed);
        news
    }
}
