//! The bytes of an archive by their place, so that several workers can read at once.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

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
