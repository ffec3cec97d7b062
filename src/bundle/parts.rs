//! Bundles that were cut into parts (docs/bundle-format.md, "Parts"), read without joining them.
//!
//! What hostile or unlucky parts may try, and where it stops: a number twice with other bytes ([`PartSet::find`]); parts of
//! two bundles in one folder ([`PartSet::find`]); a part that is cut, too long, or one too many ([`PartSet::arrange`], for
//! only the signed metadata says how long the whole is); parts of two bundles under one name, or changed bytes (what comes
//! out is verified as any archive is, and [`Parts::blame`] says in which part a place lies). A FIFO or a device is no part.
//! Nothing is trusted because of the sums beside the parts: they only help to tell which of two parts is the damaged one.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Read};
use std::ops::{Range, RangeInclusive};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use super::read_at::ReadAt;
use crate::base::digest::{Digest, Hasher};
use crate::base::exit::{Classify, ExitClass};
use crate::base::file::{self, FileError};

/// The fewest digits of a part's number.
const DIGITS: usize = 3;
/// Bytes of a file with sums; each line is a digest and a name, so this is enough for ten thousand parts.
const SUMS_BYTES: u64 = 2 << 20;
/// What is read at once where whole parts are compared or hashed.
const PIECE: usize = 1 << 20;
/// How many numbers a message lists.
const LISTED: usize = 20;

/// Why parts can't be used.
#[derive(Debug, thiserror::Error)]
pub enum PartsError {
    /// A file or folder can't be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// A folder has no part of a bundle.
    #[error("find parts of a bundle in `{}`: no file there is named like `NAME.001`", .folder.display())]
    NoParts {
        /// The folder.
        folder: PathBuf,
    },
    /// Folders have the parts of several bundles.
    #[error("find the parts of one bundle: there are some of {}", .names.join(" and of "))]
    TwoBundles {
        /// Their names.
        names: Vec<String>,
    },
    /// One number, two files, two contents.
    #[error("use part {number} of `{name}`: `{}` and `{}` both claim to be it, and differ; {hint}", .first.display(), .second.display())]
    Twice {
        /// The name of the bundle's file.
        name: String,
        /// The part.
        number: u32,
        /// One of the files.
        first: PathBuf,
        /// The other.
        second: PathBuf,
        /// What the sums say, if there are any.
        hint: String,
    },
    /// There is a part that the bundle has not.
    #[error("use `{}`: it would be part {number}, and `{name}` has {count}; it belongs to another bundle, or part 1 does", .path.display())]
    TooMany {
        /// The name of the bundle's file.
        name: String,
        /// The part.
        number: u32,
        /// How many the bundle has.
        count: u32,
        /// The file.
        path: PathBuf,
    },
    /// The bundle would have more parts than can be counted: the first is hardly there.
    #[error(
        "use the parts of `{name}`: part 1 has {bytes} bytes, so that there would be more parts than can be numbered"
    )]
    Countless {
        /// The name of the bundle's file.
        name: String,
        /// The length of a part.
        bytes: u64,
    },
}

impl Classify for PartsError {
    fn class(&self) -> ExitClass {
        match self {
            Self::File(error) => error.class(),
            Self::NoParts { .. } | Self::TwoBundles { .. } => ExitClass::Usage,
            Self::Twice { .. } | Self::TooMany { .. } | Self::Countless { .. } => ExitClass::Refused,
        }
    }

    fn remedy(&self) -> Option<String> {
        Some(match self {
            Self::File(error) => return error.remedy(),
            Self::NoParts { .. } => "name the folder or the medium that has them, or the files".to_owned(),
            Self::TwoBundles { .. } => "name the files of one of them, as `MEDIUM/NAME.*`".to_owned(),
            Self::Twice { .. } => "take the one that is not meant away".to_owned(),
            Self::TooMany { .. } => "take it away".to_owned(),
            Self::Countless { .. } => "copy part 1 again".to_owned(),
        })
    }
}

/// What a file's name says when it is that of a part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartName {
    /// The name of the whole archive.
    pub whole: String,
    /// Which part it is, from 1.
    pub number: u32,
}

impl PartName {
    /// `NAME.NNN`, where NNN has at least three digits and is not zero; `None` for any other name.
    pub fn of(path: &Path) -> Option<Self> {
        let (whole, digits) = path.file_name()?.to_str()?.rsplit_once('.')?;
        let numeric = digits.len() >= DIGITS && digits.bytes().all(|b| b.is_ascii_digit());
        match digits.parse() {
            Ok(number) if numeric && number > 0 && !whole.is_empty() => Some(Self { whole: whole.to_owned(), number }),
            _ => None,
        }
    }
}

/// The parts of one bundle that were found, before it is known how many there must be.
#[derive(Debug)]
pub struct PartSet {
    name: String,
    files: BTreeMap<u32, PartFile>,
    /// The length of all parts but the last.
    part_bytes: u64,
}

#[derive(Clone, Debug)]
struct PartFile {
    path: PathBuf,
    bytes: u64,
}

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

/// A part that a damaged place lies in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blamed {
    /// The part.
    pub number: u32,
    /// Its file.
    pub path: PathBuf,
    /// What the sums beside it say.
    pub sums: SumsSay,
}

/// What a file with sums says about a part. A hint, never a proof: the sums are not what is trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SumsSay {
    /// It is not listed, or there are no sums.
    Nothing,
    /// It is as it was made.
    Intact,
    /// It is not as it was made.
    Damaged,
}

impl PartSet {
    /// The parts among these files and in these folders, of which all must belong to one bundle. Files that are no parts by
    /// their name are left out in folders.
    ///
    /// # Errors
    /// When there are none, or of several bundles; when one is there twice with other bytes; when one can't be read or is no
    /// regular file.
    pub fn find(places: &[PathBuf]) -> Result<Self, PartsError> {
        let mut found: Vec<(PartName, PathBuf)> = Vec::new();
        for place in places {
            if place.is_dir() {
                let before = found.len();
                found.extend(parts_in(place)?);
                if found.len() == before && places.len() == 1 {
                    return Err(PartsError::NoParts { folder: place.clone() });
                }
            } else if let Some(name) = PartName::of(place) {
                found.push((name, place.clone()));
            }
        }
        let names: BTreeSet<&str> = found.iter().map(|(name, _)| name.whole.as_str()).collect();
        let name = match names.len() {
            0 => return Err(PartsError::NoParts { folder: places.first().cloned().unwrap_or_default() }),
            1 => found[0].0.whole.clone(),
            _ => {
                let names = names.into_iter().map(|name| format!("`{}`", crate::base::text::brief(name))).collect();
                return Err(PartsError::TwoBundles { names });
            }
        };
        let mut files: BTreeMap<u32, PartFile> = BTreeMap::new();
        for (PartName { number, .. }, path) in found {
            let bytes = regular(&path)?.len();
            match files.get(&number) {
                None => {
                    files.insert(number, PartFile { path, bytes });
                }
                Some(first) if same(&first.path, &path)? => {}
                Some(first) => {
                    let hint = twice_hint(&name, number, &first.path, &path);
                    let (first, second) = (first.path.clone(), path);
                    return Err(PartsError::Twice { name, number, first, second, hint });
                }
            }
        }
        let part_bytes = usual_length(&files);
        Ok(Self { name, files, part_bytes })
    }

    /// The name of the whole archive's file.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The file of a part.
    pub fn path(&self, number: u32) -> Option<&Path> {
        self.files.get(&number).map(|part| part.path.as_path())
    }

    /// The numbers that were found.
    pub fn numbers(&self) -> impl Iterator<Item = u32> {
        self.files.keys().copied()
    }

    /// The bytes of the archive from its beginning, as far as the parts go without a gap: enough to read the metadata.
    ///
    /// # Errors
    /// [`MissingPart`] inside the reader's errors, where the gap begins.
    pub fn from_start(&self) -> FromStart<'_> {
        FromStart { parts: self, number: 1, file: None }
    }

    /// The archive of this length that these are parts of. A part of a wrong length is as good as absent.
    ///
    /// # Errors
    /// When there is one too many, or one can't be opened.
    pub fn arrange(self, bytes: u64) -> Result<Parts, PartsError> {
        let Self { name, files: found, part_bytes } = self;
        let countless = || PartsError::Countless { name: name.clone(), bytes: part_bytes };
        if part_bytes == 0 {
            return Err(countless());
        }
        // One part, and only one, may be as long as it likes: it is the whole.
        let part_bytes = if found.len() == 1 && part_bytes > bytes { bytes } else { part_bytes };
        let count = u32::try_from(bytes.div_ceil(part_bytes)).map_err(|_| countless())?;
        let (mut files, mut lacking) = (BTreeMap::new(), BTreeMap::new());
        for number in 1..=count {
            let expected = part_bytes.min(bytes - u64::from(number - 1) * part_bytes);
            match found.get(&number) {
                None => {
                    lacking.insert(number, Lack::Absent);
                }
                Some(part) if part.bytes != expected => {
                    let lack = Lack::Length { path: part.path.clone(), found: part.bytes, expected };
                    lacking.insert(number, lack);
                }
                Some(part) => {
                    let failed = |source| FileError::Read { path: part.path.clone(), source };
                    let file = File::open(&part.path).map_err(failed)?;
                    files.insert(number, Open { path: part.path.clone(), file });
                }
            }
        }
        if let Some((&number, part)) = found.range(count + 1..).next() {
            return Err(PartsError::TooMany { name, number, count, path: part.path.clone() });
        }
        Ok(Parts { name, files, lacking, part_bytes, bytes })
    }
}

/// The archive from its beginning to the first gap.
#[derive(Debug)]
pub struct FromStart<'a> {
    parts: &'a PartSet,
    number: u32,
    file: Option<File>,
}

impl Read for FromStart<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if let Some(file) = &mut self.file {
                let count = file.read(buffer)?;
                if count > 0 || buffer.is_empty() {
                    return Ok(count);
                }
                self.number += 1;
                self.file = None;
            }
            match self.parts.files.get(&self.number) {
                Some(part) => self.file = Some(File::open(&part.path)?),
                None => return Err(missing(self.number)),
            }
        }
    }
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
        let suspects: Vec<Blamed> = self
            .holding(range)
            .filter_map(|number| {
                let path = &self.files.get(&number)?.path;
                Some(Blamed { number, path: path.clone(), sums: ask_sums(&self.name, path) })
            })
            .collect();
        let damaged: Vec<Blamed> = suspects.iter().filter(|s| s.sums == SumsSay::Damaged).cloned().collect();
        if damaged.is_empty() { suspects } else { damaged }
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

fn parts_in(folder: &Path) -> Result<Vec<(PartName, PathBuf)>, FileError> {
    let failed = |source| FileError::Read { path: folder.to_owned(), source };
    let mut parts = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if let Some(name) = PartName::of(&path)
            && path.is_file()
        {
            parts.push((name, path));
        }
    }
    parts.sort_by(|a, b| a.1.cmp(&b.1));
    Ok(parts)
}

fn regular(path: &Path) -> Result<fs::Metadata, FileError> {
    let failed = |source| FileError::Read { path: path.to_owned(), source };
    let metadata = fs::metadata(path).map_err(failed)?;
    match metadata.is_file() {
        true => Ok(metadata),
        false => Err(failed(io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file"))),
    }
}

/// The length that all parts but the last have, as far as can be told: what most of them have that are not the last one
/// found. A part that was cut, the first even, does not decide it against the others.
fn usual_length(files: &BTreeMap<u32, PartFile>) -> u64 {
    let all_but_last = files.values().rev().skip(1);
    let mut lengths: BTreeMap<u64, usize> = BTreeMap::new();
    for part in all_but_last {
        *lengths.entry(part.bytes).or_default() += 1;
    }
    let usual = lengths.into_iter().max_by_key(|(bytes, count)| (*count, *bytes)).map(|(bytes, _)| bytes);
    // Of one part alone, or of the last, the length is at most that of the others.
    usual.or_else(|| files.values().next().map(|part| part.bytes)).unwrap_or(0)
}

/// Whether two files have the same bytes.
fn same(first: &Path, second: &Path) -> Result<bool, FileError> {
    let (a, b) = (regular(first)?, regular(second)?);
    if (a.dev(), a.ino()) == (b.dev(), b.ino()) {
        return Ok(true);
    }
    Ok(a.len() == b.len() && hash(first)? == hash(second)?)
}

fn hash(path: &Path) -> Result<Digest, FileError> {
    let failed = |source| FileError::Read { path: path.to_owned(), source };
    let mut file = File::open(path).map_err(failed)?;
    let mut hasher = Hasher::new();
    let mut buffer = vec![0; PIECE];
    loop {
        match file.read(&mut buffer).map_err(failed)? {
            0 => return Ok(hasher.finish()),
            count => hasher.update(&buffer[..count]),
        }
    }
}

/// What the sums beside this part say about it. A file that can't be read says nothing.
fn ask_sums(name: &str, part: &Path) -> SumsSay {
    let (Some(folder), Some(file_name)) = (part.parent(), part.file_name().and_then(|n| n.to_str())) else {
        return SumsSay::Nothing;
    };
    let Ok(text) = file::read_capped(&folder.join(format!("{name}.sha256")), SUMS_BYTES) else {
        return SumsSay::Nothing;
    };
    let text = String::from_utf8_lossy(&text);
    // `DIGEST  NAME`, or `DIGEST *NAME` (coreutils, "sha256sum").
    let listed = text.lines().find_map(|line| {
        let (digest, listed) = line.split_once(' ')?;
        (listed.get(1..) == Some(file_name)).then(|| Digest::from_hex(digest).ok()).flatten()
    });
    match (listed, hash(part)) {
        (Some(expected), Ok(found)) if expected == found => SumsSay::Intact,
        (Some(_), Ok(_)) => SumsSay::Damaged,
        _ => SumsSay::Nothing,
    }
}

fn twice_hint(name: &str, number: u32, first: &Path, second: &Path) -> String {
    let good = [first, second].into_iter().filter(|path| ask_sums(name, path) == SumsSay::Intact).collect::<Vec<_>>();
    match good.as_slice() {
        [good] => format!("going by the sums beside them, `{}` is part {number} as it was made", good.display()),
        _ => "the sums beside them do not tell which is right".to_owned(),
    }
}

#[cfg(test)]
mod tests;
