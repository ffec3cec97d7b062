//! Bundles that were cut into parts (docs/bundle-format.md, "Parts"), read without joining them.
//!
//! What hostile or unlucky parts may try, and where it stops: a number twice with other bytes ([`PartSet::find`]); parts of
//! two bundles in one folder ([`PartSet::find`]); a part that is cut, too long, or one too many ([`PartSet::arrange`], for
//! only the signed metadata says how long the whole is); parts of two bundles under one name, or changed bytes (what comes
//! out is verified as any archive is, and [`Parts::blame`] says in which part a place lies). A FIFO or a device is no part.
//! Nothing is trusted because of the sums beside the parts: they only help to tell which of two parts is the damaged one.

mod blame;
mod error;
mod set;

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::ops::{Range, RangeInclusive};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use self::blame::accuse;
use super::error::BundleError;
use super::read_at::ReadAt;

pub use self::blame::{Blamed, PartsTrouble, SumsSay};
pub use self::error::PartsError;
pub use self::set::{Beginning, PartName, PartSet};

/// How many numbers a message lists.
const LISTED: usize = 20;

/// The parts of one bundle whose length is known: the whole archive, with holes where parts are missing.
#[derive(Debug)]
pub struct Parts {
    name: String,
    files: BTreeMap<u32, Open>,
    lacking: BTreeMap<u32, Lack>,
    part_bytes: u64,
    bytes: u64,
}

#[derive(Debug)]
struct Open {
    path: PathBuf,
    file: File,
}

/// Why a part can't be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lack {
    /// It was not found.
    Absent,
    /// It has another length than it must have.
    Length {
        /// The file.
        path: PathBuf,
        /// How many bytes it has.
        found: u64,
        /// How many it must have.
        expected: u64,
    },
}

/// Inside the [`io::Error`] of a read that needs a part which is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("part {number} is missing")]
pub struct MissingPart {
    /// The part.
    pub number: u32,
}

impl Parts {
    /// The name of the whole archive's file.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The length of the whole archive in bytes.
    pub fn length(&self) -> u64 {
        self.bytes
    }

    /// The length of all parts but the last, in bytes.
    pub fn part_bytes(&self) -> u64 {
        self.part_bytes
    }

    /// How many parts the archive has.
    pub fn count(&self) -> u32 {
        (self.files.len() + self.lacking.len()) as u32
    }

    /// The parts that can't be used, and why.
    pub fn lacking(&self) -> &BTreeMap<u32, Lack> {
        &self.lacking
    }

    /// The parts that these bytes lie in.
    pub fn holding(&self, range: &Range<u64>) -> RangeInclusive<u32> {
        let number = |at: u64| (at.min(self.bytes.saturating_sub(1)) / self.part_bytes) as u32 + 1;
        number(range.start)..=number(range.end.saturating_sub(1).max(range.start))
    }

    /// Whether all of these bytes can be read.
    pub fn has(&self, range: &Range<u64>) -> bool {
        self.holding(range).all(|number| self.files.contains_key(&number))
    }

    /// The parts that a damaged place lies in, with what the sums beside them say. Where the sums know which part is
    /// damaged, only those that are.
    pub fn blame(&self, range: &Range<u64>) -> Vec<Blamed> {
        let files = self.holding(range).filter_map(|number| Some((number, self.files.get(&number)?.path.as_path())));
        accuse(&self.name, files)
    }

    /// These errors of one reading of the archive as one, with the parts that they lie in. An error that is about no place
    /// stays as it is.
    pub fn in_parts(&self, errors: Vec<BundleError>) -> BundleError {
        let ranges: Vec<Range<u64>> = errors.iter().filter_map(BundleError::range).collect();
        let first = errors.into_iter().next().unwrap_or(BundleError::Dead);
        if ranges.is_empty() {
            return first;
        }
        PartsError::Broken { trouble: PartsTrouble::of(self, ranges), cause: Some(Box::new(first)) }.into()
    }
}

impl ReadAt for Parts {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        if offset >= self.bytes || buffer.is_empty() {
            return Ok(0);
        }
        let number = (offset / self.part_bytes) as u32 + 1;
        let within = offset % self.part_bytes;
        let left = self.part_bytes.min(self.bytes - (offset - within)) - within;
        let length = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let part = self.files.get(&number).ok_or_else(|| missing(number))?;
        match part.file.read_at(&mut buffer[..length], within)? {
            // It had its full length when it was opened.
            0 => Err(io::Error::new(io::ErrorKind::UnexpectedEof, format!("part {number} became shorter"))),
            count => Ok(count),
        }
    }

    fn bytes(&self) -> u64 {
        self.bytes
    }
}

/// `1, 3, 5-9`, for people.
pub fn list(numbers: impl IntoIterator<Item = u32>) -> String {
    let mut runs: Vec<(u32, u32)> = Vec::new();
    for number in numbers {
        match runs.last_mut() {
            Some((_, last)) if *last + 1 == number => *last = number,
            _ => runs.push((number, number)),
        }
    }
    let more = runs.len().saturating_sub(LISTED);
    let shown = runs.iter().take(LISTED).map(|(first, last)| match last - first {
        0 => first.to_string(),
        1 => format!("{first}, {last}"),
        _ => format!("{first}-{last}"),
    });
    let text = shown.collect::<Vec<_>>().join(", ");
    if more == 0 { text } else { format!("{text} and {more} more") }
}

/// The part that an error is about, if it is about a missing one.
pub fn missing_part(error: &io::Error) -> Option<MissingPart> {
    error.get_ref().and_then(|inner| inner.downcast_ref::<MissingPart>()).copied()
}

fn missing(number: u32) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, MissingPart { number })
}

#[cfg(test)]
mod tests;
