//! Bytes whose number is not known before they came: few stay in memory, many go to a file that has no name.

use std::fs::{File, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::digest::{Digest, Hasher};

/// Bytes that are held in memory before a file is made.
const IN_MEMORY: usize = 4 << 20;

/// Content of a known length that can be read more than once.
pub trait Content {
    /// How many bytes it has.
    fn length(&self) -> u64;

    /// Reads it from its begin.
    fn reader(&self) -> impl Read + '_;
}

impl Content for [u8] {
    fn length(&self) -> u64 {
        self.len() as u64
    }

    fn reader(&self) -> impl Read + '_ {
        self
    }
}

impl Content for Vec<u8> {
    fn length(&self) -> u64 {
        self.len() as u64
    }

    fn reader(&self) -> impl Read + '_ {
        self.as_slice()
    }
}

/// Takes bytes as they come, and hashes them on the way. What it wrote to disk is gone when it is dropped, or what it became
/// is, and also when the process is killed.
pub struct Spool {
    /// Where the file is made; `None` to keep everything in memory.
    folder: Option<PathBuf>,
    memory: Vec<u8>,
    file: Option<File>,
    hasher: Hasher,
}

impl Spool {
    /// An empty one that goes over to a file in `folder` beyond 4 MiB.
    pub fn new(folder: &Path) -> Self {
        Self { folder: Some(folder.to_owned()), ..Self::in_memory() }
    }

    /// An empty one that keeps everything in memory: for what is small by another bound.
    pub fn in_memory() -> Self {
        Self { folder: None, memory: Vec::new(), file: None, hasher: Hasher::new() }
    }

    /// How many bytes it took so far.
    pub fn length(&self) -> u64 {
        self.hasher.length()
    }

    /// What it took, for reading.
    pub fn finish(self) -> Spooled {
        let length = self.hasher.length();
        let kept = match self.file {
            Some(file) => Kept::File(file),
            None => Kept::Memory(self.memory),
        };
        Spooled { kept: Arc::new(kept), length, digest: self.hasher.finish() }
    }
}

impl Write for Spool {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let (None, Some(folder)) = (&self.file, &self.folder)
            && self.memory.len() + bytes.len() > IN_MEMORY
        {
            // Without a name nobody else comes to it, and it ends with the process, however that ends.
            let mut file = tempfile::tempfile_in(folder)?;
            file.set_permissions(Permissions::from_mode(0o600))?;
            file.write_all(&self.memory)?;
            self.memory = Vec::new();
            self.file = Some(file);
        }
        match &mut self.file {
            Some(file) => file.write_all(bytes)?,
            None => self.memory.extend_from_slice(bytes),
        }
        self.hasher.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Bytes that a [`Spool`] took. A clone is the same bytes and not a copy of them.
#[derive(Clone)]
pub struct Spooled {
    kept: Arc<Kept>,
    length: u64,
    digest: Digest,
}

enum Kept {
    Memory(Vec<u8>),
    File(File),
}

impl Spooled {
    /// Their digest, as it was taken when they came.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// The bytes, where they are in memory.
    pub fn in_memory(&self) -> Option<&[u8]> {
        match &*self.kept {
            Kept::Memory(bytes) => Some(bytes),
            Kept::File(_) => None,
        }
    }

    /// All bytes in memory: for what is small by another bound.
    ///
    /// # Errors
    /// When the file can't be read.
    pub fn into_bytes(self) -> io::Result<Vec<u8>> {
        match Arc::try_unwrap(self.kept) {
            Ok(Kept::Memory(bytes)) => Ok(bytes),
            Ok(file @ Kept::File(_)) => Self { kept: Arc::new(file), ..self }.read_all(),
            Err(kept) => Self { kept, ..self }.read_all(),
        }
    }

    fn read_all(&self) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.reader().read_to_end(&mut bytes)?;
        Ok(bytes)
    }
}

impl Content for Spooled {
    fn length(&self) -> u64 {
        self.length
    }

    fn reader(&self) -> impl Read + '_ {
        Reader { of: self, at: 0 }
    }
}

impl From<Vec<u8>> for Spooled {
    fn from(bytes: Vec<u8>) -> Self {
        let (length, digest) = (bytes.len() as u64, Digest::of(&bytes));
        Self { kept: Arc::new(Kept::Memory(bytes)), length, digest }
    }
}

impl PartialEq for Spooled {
    fn eq(&self, other: &Self) -> bool {
        self.length == other.length && self.digest == other.digest
    }
}

impl Eq for Spooled {}

impl std::fmt::Debug for Spooled {
    /// Without the bytes: they may be many, and may hold what must not be printed.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes, {}", self.length, self.digest)
    }
}

/// Has its own place in the bytes, so that several can read at once.
struct Reader<'a> {
    of: &'a Spooled,
    at: u64,
}

impl Read for Reader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.of.length - self.at).unwrap_or(usize::MAX);
        let wanted = buffer.len().min(left);
        let buffer = &mut buffer[..wanted];
        let read = match &*self.of.kept {
            Kept::Memory(bytes) => {
                let start = usize::try_from(self.at).expect("what is in memory has an address");
                buffer.copy_from_slice(&bytes[start..start + wanted]);
                wanted
            }
            Kept::File(file) => file.read_at(buffer, self.at)?,
        };
        if read == 0 && wanted > 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.at += read as u64;
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_bytes_and_many_are_read_back_as_often_as_wanted() {
        let folder = tempfile::tempdir().expect("a folder");
        for length in [0, 1, IN_MEMORY, IN_MEMORY + 1, IN_MEMORY + 100_000] {
            let bytes: Vec<u8> = (0..length).map(|n| (n % 251) as u8).collect();
            let mut spool = Spool::new(folder.path());
            for piece in bytes.chunks(65_000) {
                spool.write_all(piece).expect("it is written");
            }
            assert_eq!(spool.length(), length as u64);
            let spooled = spool.finish();
            assert_eq!(spooled.in_memory().is_none(), length > IN_MEMORY, "{length}");
            assert_eq!((spooled.length(), spooled.digest()), (length as u64, Digest::of(&bytes)));
            assert_eq!(spooled, Spooled::from(bytes.clone()));
            let (mut one, mut other) = (spooled.reader(), spooled.reader());
            let (mut first, mut second) = (Vec::new(), Vec::new());
            one.read_to_end(&mut first).expect("read");
            other.read_to_end(&mut second).expect("read");
            assert!(first == bytes && second == bytes);
            drop((one, other));
            assert!(spooled.clone().into_bytes().expect("read") == bytes);
            assert!(spooled.into_bytes().expect("read") == bytes);
            assert_eq!(std::fs::read_dir(folder.path()).expect("a folder").count(), 0, "the file has no name");
        }
    }

    #[test]
    fn a_folder_that_is_not_there_is_noticed_when_it_is_needed() {
        let mut spool = Spool::new(Path::new("/nonexistent"));
        spool.write_all(&[0; IN_MEMORY]).expect("it stays in memory");
        assert!(spool.write_all(&[0]).is_err());
        let mut memory = Spool::in_memory();
        memory.write_all(&vec![0; IN_MEMORY + 1]).expect("it stays in memory");
        assert!(memory.finish().in_memory().is_some());
    }
}
