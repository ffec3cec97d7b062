//! The parts of one bundle that can be found, before it is known how many there must be.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use jiff::Timestamp;
use tokio::io::{AsyncRead, ReadBuf};

use super::blame::{PartsTrouble, accuse, hash, twice_hint};
use super::{Lack, Open, Parts, PartsError, missing, missing_part};
use crate::base::file::FileError;
use crate::base::limits::Limits;
use crate::bundle::error::BundleError;
use crate::bundle::reader::BundleReader;
use crate::trust::remembered::Remembered;
use crate::trust::root::TrustRoot;

/// The fewest digits of a part's number.
const DIGITS: usize = 3;
/// Metadata ends before this: targets have at most half of it, and with them a few small files.
const BEGINNING_BYTES: u64 = 16 << 20;

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

    /// The bytes of the archive from its beginning, as far as the parts go without a gap: enough to read the metadata, from
    /// which it follows how long the whole is.
    ///
    /// # Errors
    /// [`super::MissingPart`] inside the reader's errors, where the gap begins.
    pub fn beginning(&self) -> Beginning<'_> {
        Beginning { parts: self, number: 1, file: None }
    }

    /// Why the beginning can't be read, with the parts that this lies in.
    pub fn in_beginning(&self, error: BundleError) -> BundleError {
        let trouble = PartsTrouble { name: self.name.clone(), ..PartsTrouble::default() };
        if let BundleError::Io { source, .. } = &error
            && let Some(missing) = missing_part(source)
        {
            let lacking = vec![(missing.number, Lack::Absent)];
            return PartsError::Broken { trouble: PartsTrouble { lacking, ..trouble }, cause: None }.into();
        }
        if self.part_bytes == 0 {
            return error;
        }
        // What is about no place, as a signature, may still be wrong because of a part that was cut.
        let place = error.range();
        let range = place.clone().unwrap_or(0..BEGINNING_BYTES);
        let number = |at: u64| u32::try_from(at / self.part_bytes).unwrap_or(u32::MAX).saturating_add(1);
        let last = number(range.end.saturating_sub(1));
        let lacking: Vec<(u32, Lack)> = self
            .files
            .range(..=last)
            // The last one of a bundle may be shorter.
            .filter(|(at, part)| part.bytes != self.part_bytes && self.files.range(*at + 1..).next().is_some())
            .map(|(at, part)| {
                let (path, found, expected) = (part.path.clone(), part.bytes, self.part_bytes);
                (*at, Lack::Length { path, found, expected })
            })
            .collect();
        // What comes behind a part of a wrong length is not at its place.
        let damaged = match (lacking.is_empty(), place) {
            (true, None) => return error,
            (true, Some(_)) => {
                let holding = number(range.start)..=last;
                accuse(&self.name, holding.filter_map(|number| Some((number, self.path(number)?))))
            }
            (false, _) => Vec::new(),
        };
        PartsError::Broken { trouble: PartsTrouble { lacking, damaged, ..trouble }, cause: Some(Box::new(error)) }
            .into()
    }

    /// All parts of the bundle in their places; how many there are follows from its metadata, which is verified.
    ///
    /// # Errors
    /// When the metadata, manifests or catalog are refused, and when any part is missing or has a wrong length.
    pub async fn complete(
        self,
        root: &TrustRoot,
        remembered: &Remembered,
        limits: &Limits,
        now: Timestamp,
    ) -> Result<Arc<Parts>, BundleError> {
        let opened = BundleReader::open(self.beginning(), root, remembered, limits, now).await;
        match opened.map(|reader| reader.archive_bytes()) {
            Ok(bytes) => Ok(self.whole(bytes)?),
            Err(error) => Err(self.in_beginning(error)),
        }
    }

    /// The archive of this length, if all parts of it are here.
    ///
    /// # Errors
    /// As [`PartSet::arrange`]; and with all parts that are missing or have a wrong length.
    pub fn whole(self, bytes: u64) -> Result<Arc<Parts>, PartsError> {
        let parts = self.arrange(bytes)?;
        match parts.lacking().is_empty() {
            true => Ok(Arc::new(parts)),
            false => Err(PartsError::Broken { trouble: PartsTrouble::lacking_of(&parts), cause: None }),
        }
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

/// The archive from its beginning to the first gap. Reading blocks: it is for the metadata and the manifests, a few hundred
/// kilobytes that no other work waits for.
#[derive(Debug)]
pub struct Beginning<'a> {
    parts: &'a PartSet,
    number: u32,
    file: Option<File>,
}

impl Read for Beginning<'_> {
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

impl AsyncRead for Beginning<'_> {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let count = self.read(buffer.initialize_unfilled())?;
        buffer.advance(count);
        Poll::Ready(Ok(()))
    }
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
