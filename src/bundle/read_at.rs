//! The bytes of an archive by their place, so that several workers can read at once.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, ReadBuf};

/// Bytes of one piece: it stays in a core's cache from reading over hashing to encryption.
pub const PIECE: usize = 256 << 10;

/// The bytes of an archive by their place. An error says that these bytes can't be had now, as those of a part that is
/// missing; others may be had all the same.
pub trait ReadAt: Send + Sync {
    /// Reads what is at `offset`, at least one byte unless the buffer is empty or the archive ends there.
    ///
    /// # Errors
    /// When the bytes can't be read.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;

    /// How many bytes the archive has.
    fn bytes(&self) -> u64;
}

/// An archive that is one file.
#[derive(Debug)]
pub struct OneFile {
    file: File,
    bytes: u64,
}

impl OneFile {
    /// The file at this path, which must be one that has a length and can be read at any place.
    ///
    /// # Errors
    /// When it can't be opened, or is a pipe or a device.
    pub fn open(path: &Path) -> io::Result<Self> {
        Self::new(File::open(path)?)
    }

    /// This file.
    ///
    /// # Errors
    /// When it is a folder, a pipe or a device.
    pub fn new(file: File) -> io::Result<Self> {
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file"));
        }
        Ok(Self { bytes: metadata.len(), file })
    }
}

impl ReadAt for OneFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(buffer, offset)
    }

    fn bytes(&self) -> u64 {
        self.bytes
    }
}

/// Fills the whole buffer with what is at `offset`; gives how much there was.
pub(super) fn fill(archive: &dyn ReadAt, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match archive.read_at(&mut buffer[filled..], offset + filled as u64) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// The archive from its beginning, one piece after the other. Reading is not handed to another thread: it is for the
/// metadata and the manifests, a few hundred kilobytes that no other work waits for.
pub struct FromStart {
    archive: Arc<dyn ReadAt>,
    offset: u64,
}

impl FromStart {
    /// From byte 0.
    pub fn new(archive: Arc<dyn ReadAt>) -> Self {
        Self { archive, offset: 0 }
    }
}

impl AsyncRead for FromStart {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let offset = self.offset;
        let count = fill(self.archive.as_ref(), buffer.initialize_unfilled(), offset)?;
        self.offset += count as u64;
        buffer.advance(count);
        Poll::Ready(Ok(()))
    }
}

/// Buffers of [`PIECE`] bytes that are used again once nobody holds what was read into them: asking the system for
/// fresh memory costs as much as filling it.
#[derive(Clone, Debug, Default)]
pub struct Buffers {
    free: Arc<Mutex<Vec<Box<[u8]>>>>,
}

/// One buffer, and how much of it is filled. It goes back when it is dropped.
pub(super) struct Buffer {
    bytes: Box<[u8]>,
    filled: usize,
    home: Buffers,
}

impl Buffers {
    pub(super) fn take(&self) -> Buffer {
        // A panic elsewhere leaves a list of buffers as it was.
        let bytes = self.free.lock().unwrap_or_else(PoisonError::into_inner).pop();
        Buffer { bytes: bytes.unwrap_or_else(|| vec![0; PIECE].into()), filled: 0, home: self.clone() }
    }
}

impl Buffer {
    /// Fills its first `length` bytes with what is at `offset`; gives how much there was.
    pub(super) fn fill(&mut self, archive: &dyn ReadAt, length: usize, offset: u64) -> io::Result<usize> {
        self.filled = fill(archive, &mut self.bytes[..length], offset)?;
        Ok(self.filled)
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[..self.filled]
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let bytes = std::mem::take(&mut self.bytes);
        self.home.free.lock().unwrap_or_else(PoisonError::into_inner).push(bytes);
    }
}
