//! Reading and verifying a bundle from a medium where every byte can be reached, by several workers in any order.
//!
//! What a hostile archive may try stops where it does in [`super::reader`], with these differences: the end marker and the
//! length are checked before the first blob is read ([`BundleFile::open`]); each blob is read with its header and its
//! padding, both compared with what must be there, and its last piece is handed on only when its digest was found right
//! ([`FileBlob::each_piece`]); an archive that changes between two readings of a blob fails the second, since each reading
//! verifies anew; and nothing is proven for a blob that was neither verified nor vouched for ([`BundleFile::finish`]).

use std::io;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use bytes::Bytes;
use jiff::Timestamp;

use super::archive::{self, BLOCK};
use super::contents::Entry;
use super::error::BundleError;
use super::head::{Head, VerifiedBundle};
use super::input::{self, Input};
use super::read_at::{Buffers, FromStart, PIECE, ReadAt, fill};
use crate::base::digest::{Digest, Hasher};
use crate::base::limits::Limits;
use crate::trust::remembered::Remembered;
use crate::trust::root::TrustRoot;

/// Nothing is known of a blob's bytes in the archive.
const UNREAD: u8 = 0;
/// They are not needed: the registry is known to have the blob.
const VOUCHED: u8 = 1;
/// They were read, and have the signed digest.
const VERIFIED: u8 = 2;

/// A bundle whose metadata, manifests and catalog were verified, and whose blobs can be read in any order.
pub struct BundleFile {
    head: Head,
    archive: Arc<dyn ReadAt>,
    blobs: Arc<Vec<Place>>,
    end: u64,
    buffers: Buffers,
}

/// Where a blob is.
struct Place {
    entry: Entry,
    /// Where its content begins.
    offset: u64,
    state: AtomicU8,
}

/// One blob of a [`BundleFile`]. Clones are the same blob.
#[derive(Clone)]
pub struct FileBlob {
    archive: Arc<dyn ReadAt>,
    blobs: Arc<Vec<Place>>,
    at: usize,
    buffers: Buffers,
}

impl BundleFile {
    /// Reads and verifies everything but the blobs: metadata, image layout, manifests, catalog, and the end.
    ///
    /// # Errors
    /// When anything is not as the pinned root, the remembered versions, the clock `now` and the limits ask for, or the
    /// archive does not end where it must. That the end can't be read is left to [`BundleFile::finish`].
    pub async fn open(
        archive: Arc<dyn ReadAt>,
        root: &TrustRoot,
        remembered: &Remembered,
        limits: &Limits,
        now: Timestamp,
    ) -> Result<Self, BundleError> {
        let mut input = Input { reader: FromStart::new(archive.clone()), offset: 0 };
        let head = Head::read(&mut input, root, remembered, limits, now).await?;
        let (offsets, end) = head.contents.blob_offsets(input.offset);
        let places = head.contents.blobs.iter().zip(offsets).map(|(entry, offset)| Place {
            entry: entry.clone(),
            offset,
            state: AtomicU8::new(UNREAD),
        });
        let blobs = Arc::new(places.collect());
        let file = Self { head, archive, blobs, end, buffers: Buffers::default() };
        match file.check_end() {
            // What can't be read now may be in a part that comes later.
            Ok(()) | Err(BundleError::Io { .. }) => Ok(file),
            Err(error) => Err(error),
        }
    }

    /// What was verified.
    pub fn head(&self) -> &Head {
        &self.head
    }

    /// All large blobs, in the order of the archive.
    pub fn blobs(&self) -> impl ExactSizeIterator<Item = FileBlob> {
        (0..self.blobs.len()).map(|at| FileBlob {
            archive: self.archive.clone(),
            blobs: self.blobs.clone(),
            at,
            buffers: self.buffers.clone(),
        })
    }

    /// Ends the reading, and gives the proof. It names the blobs that were not read because the registry has them.
    ///
    /// # Errors
    /// When a blob was neither verified nor vouched for, or the end could not be read or is not what it must be.
    pub fn finish(self) -> Result<VerifiedBundle, BundleError> {
        self.check_end()?;
        let in_state = |wanted| self.blobs.iter().filter(move |place| place.state.load(Ordering::Acquire) == wanted);
        let unread = in_state(UNREAD).count();
        if unread > 0 {
            return Err(BundleError::Unread(unread));
        }
        let vouched = in_state(VOUCHED).map(|place| place.entry.digest).collect();
        Ok(self.head.verified(self.end + archive::END.len() as u64, vouched))
    }

    fn check_end(&self) -> Result<(), BundleError> {
        let expected = self.end + archive::END.len() as u64;
        let bytes = self.archive.bytes();
        if bytes < expected {
            return Err(BundleError::Truncated { entry: "the end marker".to_owned(), offset: bytes });
        }
        let mut end = [1; archive::END.len()];
        let failed = |source| BundleError::Io { offset: self.end, source };
        let count = fill(self.archive.as_ref(), &mut end, self.end).map_err(failed)?;
        if count < end.len() {
            return Err(BundleError::Truncated { entry: "the end marker".to_owned(), offset: self.end + count as u64 });
        }
        if end != archive::END {
            return Err(BundleError::EndMarker { offset: self.end });
        }
        if bytes > expected {
            return Err(BundleError::Trailing { offset: expected });
        }
        Ok(())
    }
}

impl FileBlob {
    fn place(&self) -> &Place {
        &self.blobs[self.at]
    }

    /// Its name, length, digest and media type.
    pub fn entry(&self) -> &Entry {
        &self.place().entry
    }

    /// Where its content begins in the archive.
    pub fn offset(&self) -> u64 {
        self.place().offset
    }

    /// Takes it as right without reading it: for a blob that the caller knows the registry to have with this digest and
    /// length, so that nothing of the archive is used for it. What is proven in the end says so.
    pub fn vouched_by_registry(&self) {
        let state = &self.place().state;
        // One that was read and verified stays so.
        let _ = state.compare_exchange(UNREAD, VOUCHED, Ordering::AcqRel, Ordering::Acquire);
    }

    /// Reads it from its start, with header and padding, and hands `sink` the bytes from `from` on. The piece that ends it
    /// is handed on only after all of it verified. A sink that breaks off ends the reading without a verdict.
    ///
    /// This blocks: it is for a thread on which that does no harm.
    ///
    /// # Errors
    /// When the bytes can't be read ([`BundleError::Io`]), or are not those that are signed.
    pub fn each_piece(&self, from: u64, mut sink: impl FnMut(Bytes) -> ControlFlow<()>) -> Result<(), BundleError> {
        let Place { entry, offset, state } = self.place();
        self.check_header(entry, *offset)?;
        let mut hasher = Hasher::new();
        let mut at = 0;
        loop {
            let wanted = usize::try_from(entry.size - at).unwrap_or(usize::MAX).min(PIECE);
            let mut buffer = self.buffers.take();
            let place = offset + at;
            let count = buffer
                .fill(self.archive.as_ref(), wanted, place)
                .map_err(|source| BundleError::Io { offset: place, source })?;
            if count < wanted {
                return Err(BundleError::Truncated { entry: entry.name.clone(), offset: place + count as u64 });
            }
            hasher.update(buffer.as_ref());
            let before = at;
            at += count as u64;
            let last = at == entry.size;
            if last {
                self.check_digest(entry, std::mem::take(&mut hasher).finish(), offset + at)?;
                self.check_padding(entry, offset + at)?;
                state.store(VERIFIED, Ordering::Release);
            }
            if at > from {
                let mut piece = Bytes::from_owner(buffer);
                let skipped = usize::try_from(from.saturating_sub(before)).unwrap_or(usize::MAX);
                if sink(piece.split_off(skipped)).is_break() {
                    return Ok(());
                }
            }
            if last {
                return Ok(());
            }
        }
    }

    fn check_header(&self, entry: &Entry, offset: u64) -> Result<(), BundleError> {
        let at = offset - BLOCK as u64;
        let mut block = [0; BLOCK];
        let count =
            fill(self.archive.as_ref(), &mut block, at).map_err(|source| BundleError::Io { offset: at, source })?;
        if count < BLOCK {
            return Err(BundleError::Truncated { entry: entry.name.clone(), offset: at + count as u64 });
        }
        input::check_header(&entry.name, entry.size, &block, at)
    }

    fn check_digest(&self, entry: &Entry, found: Digest, offset: u64) -> Result<(), BundleError> {
        if found == entry.digest {
            return Ok(());
        }
        Err(BundleError::Digest { entry: entry.name.clone(), offset, size: entry.size, expected: entry.digest, found })
    }

    fn check_padding(&self, entry: &Entry, offset: u64) -> Result<(), BundleError> {
        let mut zeros = [1; BLOCK];
        let zeros = &mut zeros[..archive::padding(entry.size)];
        let count = fill(self.archive.as_ref(), zeros, offset).map_err(|source| BundleError::Io { offset, source })?;
        if count < zeros.len() {
            return Err(BundleError::Truncated { entry: entry.name.clone(), offset: offset + count as u64 });
        }
        if zeros.iter().any(|byte| *byte != 0) {
            return Err(BundleError::Padding { entry: entry.name.clone(), offset });
        }
        Ok(())
    }
}

/// The reader's error as an [`io::Error`], for code that knows nothing of bundles; [`from_io`] takes it out again.
pub fn to_io(error: BundleError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

/// The reader's error that an [`io::Error`] carries, or the error itself.
///
/// # Errors
/// When it carries none.
pub fn from_io(error: io::Error) -> Result<BundleError, io::Error> {
    error.downcast::<BundleError>()
}
