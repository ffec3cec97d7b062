//! Reading a scanner's result file: what it says, without a cluster, a bundle or a ledger.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use serde::Serialize;

use crate::base::digest::{Digest, Hasher};
use crate::base::exit::{Classify, ExitClass};
use crate::base::limits::Limits;
use crate::base::spool::{Content, Spool, Spooled};
use crate::base::text::printable;
use crate::model::scanner::ResultFormat;
use crate::results::detect::detect;
use crate::results::{ResultsError, Summary, summarise};

/// Why a result file says nothing.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// It can't be opened or read.
    #[error("read {}", printable(.file))]
    Unreadable {
        /// Which.
        file: String,
        /// Why.
        source: io::Error,
    },
    /// It is no result that can be used.
    #[error("read {}", printable(.file))]
    Unusable {
        /// Which.
        file: String,
        /// Why.
        source: ResultsError,
    },
}

impl Classify for ReadError {
    fn class(&self) -> ExitClass {
        match self {
            Self::Unreadable { .. } => ExitClass::Unreachable,
            Self::Unusable { source, .. } => source.class(),
        }
    }

    fn remedy(&self) -> Option<String> {
        match self {
            Self::Unreadable { .. } => None,
            Self::Unusable { source, .. } => source.remedy(),
        }
    }
}

/// What one file says.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FileSummary {
    /// The file as it was named.
    pub file: String,
    /// What is in it.
    #[serde(flatten)]
    pub summary: Summary,
}

/// Where a result comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ResultSource {
    /// A file.
    File(PathBuf),
    /// The standard input.
    Stdin,
}

impl ResultSource {
    /// As it was named, `-` for the standard input.
    pub fn name(&self) -> String {
        match self {
            Self::File(path) => path.display().to_string(),
            Self::Stdin => "-".to_owned(),
        }
    }
}

/// Reads one result of up to [`Limits::read_bytes`], and says all that is in it, with the first `listed` findings and components. Without a format, what is in
/// it tells which it has. Memory does not grow with the file; what is no regular file is kept in a file without a name in
/// `folder` meanwhile.
///
/// # Errors
/// When it can't be read, or is no whole result in a known format.
pub fn read_result(
    source: &ResultSource,
    format: Option<ResultFormat>,
    listed: usize,
    folder: &Path,
    limits: &Limits,
) -> Result<FileSummary, ReadError> {
    let file = source.name();
    // Nothing is kept, so that what fits into a ledger is no bound here.
    let limits = &Limits { result_bytes: limits.read_bytes, ..limits.clone() };
    let unreadable = |source| ReadError::Unreadable { file: format!("`{file}`"), source };
    let unusable = |source| match source {
        ResultsError::Io(source) => ReadError::Unreadable { file: format!("`{file}`"), source },
        source => ReadError::Unusable { file: format!("`{file}`"), source },
    };
    let summary = match source {
        ResultSource::File(path) => {
            let opened = File::open(path).map_err(unreadable)?;
            let about = opened.metadata().map_err(unreadable)?;
            if about.is_dir() {
                return Err(unreadable(io::Error::new(io::ErrorKind::IsADirectory, "it is a folder")));
            }
            if about.is_file() {
                let content = OnDisk { file: opened, length: about.len(), read: Mutex::default() };
                if content.length > limits.result_bytes {
                    return Err(unusable(ResultsError::TooLarge { limit: limits.result_bytes }));
                }
                let format = format.map_or_else(|| detect(&content), Ok).map_err(unusable)?;
                let unknown = Digest::of([]);
                let summary = summarise(format, &content, unknown, listed, limits).map_err(unusable)?;
                Summary { digest: content.digest().map_err(unreadable)?, ..summary }
            } else {
                let content = spooled(opened, folder, limits).map_err(unreadable)?.map_err(unusable)?;
                of_spooled(&content, format, listed, limits).map_err(unusable)?
            }
        }
        ResultSource::Stdin => {
            let content = spooled(io::stdin().lock(), folder, limits).map_err(unreadable)?.map_err(unusable)?;
            of_spooled(&content, format, listed, limits).map_err(unusable)?
        }
    };
    Ok(FileSummary { file, summary })
}

/// Takes a result from a file or from standard input, and keeps what is large in a file without a name in `folder`.
///
/// # Errors
/// When it can't be read, or is larger than a result may be.
pub(super) fn spool_result(source: &ResultSource, folder: &Path, limits: &Limits) -> Result<Spooled, ReadError> {
    let file = source.name();
    let unreadable = |source| ReadError::Unreadable { file: format!("`{file}`"), source };
    let taken = match source {
        ResultSource::File(path) => spooled(File::open(path).map_err(unreadable)?, folder, limits),
        ResultSource::Stdin => spooled(io::stdin().lock(), folder, limits),
    };
    taken.map_err(unreadable)?.map_err(|source| ReadError::Unusable { file: format!("`{file}`"), source })
}

fn of_spooled(
    content: &Spooled,
    format: Option<ResultFormat>,
    listed: usize,
    limits: &Limits,
) -> Result<Summary, ResultsError> {
    let format = format.map_or_else(|| detect(content), Ok)?;
    summarise(format, content, content.digest(), listed, limits)
}

/// Takes a result whole, hashed on the way: what it is copied to has no name, so that nobody changes it between being read
/// and being kept. Beyond 4 MiB that is a file in `folder`.
///
/// # Errors
/// When it can't be read, is a folder, or is larger than a result may be.
pub(super) fn take_whole(source: &ResultSource, folder: &Path, limits: &Limits) -> Result<Spooled, ReadError> {
    let file = format!("`{}`", source.name());
    let taken = match source {
        ResultSource::File(path) => File::open(path).and_then(|opened| match opened.metadata()?.is_dir() {
            true => Err(io::Error::new(io::ErrorKind::IsADirectory, "it is a folder")),
            false => spooled(opened, folder, limits),
        }),
        ResultSource::Stdin => spooled(io::stdin().lock(), folder, limits),
    };
    match taken {
        Ok(Ok(content)) => Ok(content),
        Ok(Err(source)) => Err(ReadError::Unusable { file, source }),
        Err(source) => Err(ReadError::Unreadable { file, source }),
    }
}

/// Takes what can be read only once, and no more than a result may have.
fn spooled(source: impl Read, folder: &Path, limits: &Limits) -> io::Result<Result<Spooled, ResultsError>> {
    let mut spool = Spool::new(folder);
    let taken = io::copy(&mut source.take(limits.result_bytes + 1), &mut spool)?;
    if taken > limits.result_bytes {
        return Ok(Err(ResultsError::TooLarge { limit: limits.result_bytes }));
    }
    Ok(Ok(spool.finish()))
}

/// A regular file, read where it is: somebody may write to it meanwhile. So what is read is hashed as it is read.
struct OnDisk {
    file: File,
    length: u64,
    /// What it was each time that it was read to its end.
    read: Mutex<Vec<Digest>>,
}

impl OnDisk {
    /// The digest of the bytes that were read.
    ///
    /// # Errors
    /// When they were not the same each time, or it was never read to its end.
    fn digest(&self) -> io::Result<Digest> {
        let read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        match read.split_first() {
            Some((first, others)) if others.iter().all(|other| other == first) => Ok(*first),
            _ => Err(io::Error::other("it was changed while it was read")),
        }
    }
}

impl Content for OnDisk {
    fn length(&self) -> u64 {
        self.length
    }

    fn reader(&self) -> impl Read + '_ {
        Reader { of: self, at: 0, hasher: Some(Hasher::new()) }
    }
}

struct Reader<'a> {
    of: &'a OnDisk,
    at: u64,
    /// None when its end was reached.
    hasher: Option<Hasher>,
}

impl Read for Reader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.of.length - self.at).unwrap_or(usize::MAX);
        let wanted = buffer.len().min(left);
        let read = self.of.file.read_at(&mut buffer[..wanted], self.at)?;
        if read == 0 && wanted > 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it became shorter while it was read"));
        }
        self.at += read as u64;
        if let Some(hasher) = &mut self.hasher {
            hasher.update(&buffer[..read]);
        }
        if self.at == self.of.length
            && let Some(hasher) = self.hasher.take()
        {
            self.of.read.lock().unwrap_or_else(PoisonError::into_inner).push(hasher.finish());
        }
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_is_that_of_the_bytes_that_were_read() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("r.json");
        std::fs::write(&path, "0123456789").expect("written");
        let opened = || OnDisk { file: File::open(&path).expect("there"), length: 10, read: Mutex::default() };
        let whole = |content: &OnDisk| {
            let mut bytes = Vec::new();
            content.reader().read_to_end(&mut bytes).expect("it is read");
            bytes
        };
        let content = opened();
        assert!(content.digest().is_err(), "nobody read it");
        content.reader().read_exact(&mut [0; 9]).expect("most of it");
        assert!(content.digest().is_err(), "nobody read all of it");
        assert_eq!((whole(&content), whole(&content)), (b"0123456789".to_vec(), b"0123456789".to_vec()));
        assert_eq!(content.digest().expect("the same each time"), Digest::of("0123456789"));
        // Somebody writes to it between two looks of a parser that needs two.
        std::fs::write(&path, "01234x6789").expect("written");
        whole(&content);
        assert!(content.digest().is_err(), "it was not the same each time");
        assert_eq!(
            {
                let content = opened();
                whole(&content);
                content.digest().expect("once")
            },
            Digest::of("01234x6789")
        );
        std::fs::write(&path, "0").expect("written");
        assert!(opened().reader().read_to_end(&mut Vec::new()).is_err(), "it became shorter");
    }
}
