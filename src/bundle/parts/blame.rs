//! Which parts a missing or damaged place lies in, and what the sums beside them say.

use std::collections::BTreeSet;
use std::fmt;
use std::fs::File;
use std::io::Read;
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::{Lack, Parts, list};
use crate::base::digest::{Digest, Hasher};
use crate::base::file::FileError;
use crate::bundle::sums;

/// What is read at once where whole parts are compared or hashed.
const PIECE: usize = 1 << 20;

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

/// What is wrong with the parts of a bundle.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PartsTrouble {
    /// The name of the whole archive's file.
    pub name: String,
    /// How many parts there are; unknown while the first ones are missing.
    pub count: Option<u32>,
    /// The parts that were not found, or have a wrong length, and are needed.
    pub lacking: Vec<(u32, Lack)>,
    /// The parts that a damaged place lies in.
    pub damaged: Vec<Blamed>,
}

impl PartsTrouble {
    /// Those of the parts that these bytes of the archive lie in: the ones that can't be used, and where all can be, those
    /// that are damaged as far as anybody can tell.
    pub fn of(parts: &Parts, ranges: impl IntoIterator<Item = Range<u64>>) -> Self {
        let mut lacking = BTreeSet::new();
        let mut damaged: Vec<Blamed> = Vec::new();
        for range in ranges {
            let missing: Vec<u32> =
                parts.holding(&range).filter(|number| parts.lacking().contains_key(number)).collect();
            if missing.is_empty() {
                damaged.extend(parts.blame(&range));
            }
            lacking.extend(missing);
        }
        damaged.sort_by_key(|blamed| blamed.number);
        damaged.dedup();
        // Of a place that lies over two parts nobody knows which is the damaged one, unless another place tells.
        let certain: BTreeSet<u32> =
            damaged.iter().filter(|blamed| blamed.sums == SumsSay::Damaged).map(|blamed| blamed.number).collect();
        if !certain.is_empty() {
            damaged.retain(|blamed| blamed.sums != SumsSay::Intact || certain.contains(&blamed.number));
        }
        let lacking = lacking.into_iter().map(|number| (number, parts.lacking()[&number].clone())).collect();
        Self { name: parts.name().to_owned(), count: Some(parts.count()), lacking, damaged }
    }

    /// All parts that can't be used.
    pub fn lacking_of(parts: &Parts) -> Self {
        let lacking = parts.lacking().iter().map(|(number, lack)| (*number, lack.clone())).collect();
        Self { name: parts.name().to_owned(), count: Some(parts.count()), lacking, damaged: Vec::new() }
    }

    /// Whether something that is there is wrong, and not only out of reach.
    pub fn is_bad(&self) -> bool {
        !self.damaged.is_empty() || self.lacking.iter().any(|(_, lack)| matches!(lack, Lack::Length { .. }))
    }

    /// All numbers, each once.
    pub fn numbers(&self) -> impl Iterator<Item = u32> {
        let lacking = self.lacking.iter().map(|(number, _)| *number);
        let all: BTreeSet<u32> = lacking.chain(self.damaged.iter().map(|blamed| blamed.number)).collect();
        all.into_iter()
    }

    /// The files that are of no use.
    pub fn bad_files(&self) -> impl Iterator<Item = &PathBuf> {
        let short = self.lacking.iter().filter_map(|(_, lack)| match lack {
            Lack::Length { path, .. } => Some(path),
            Lack::Absent => None,
        });
        short.chain(self.damaged.iter().map(|blamed| &blamed.path))
    }
}

impl fmt::Display for PartsTrouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let absent = self.lacking.iter().filter(|(_, lack)| *lack == Lack::Absent).map(|(number, _)| *number);
        let absent = list(absent);
        let count = self.count.map_or(String::new(), |count| format!(" of {count}"));
        let mut said = Vec::new();
        if !absent.is_empty() {
            said.push(format!("missing: part {absent}{count}"));
        }
        for (number, lack) in &self.lacking {
            if let Lack::Length { path, found, expected } = lack {
                let path = path.display();
                said.push(format!("part {number}{count} (`{path}`) has {found} bytes instead of {expected}"));
            }
        }
        let shown: Vec<String> = self
            .damaged
            .iter()
            .map(|blamed| {
                let sums = match blamed.sums {
                    SumsSay::Damaged => ", as the sums beside it say too",
                    SumsSay::Intact => ", though the sums beside it do not say so",
                    SumsSay::Nothing => "",
                };
                format!("part {}{count} (`{}`{sums})", blamed.number, blamed.path.display())
            })
            .collect();
        if !shown.is_empty() {
            said.push(format!("damaged: {}", shown.join(" or ")));
        }
        write!(f, "`{}`: {}", self.name, said.join("; "))
    }
}

/// Those of these parts that are damaged: the ones of which the sums say so, and all of them where the sums know of none.
pub(super) fn accuse<'a>(name: &str, parts: impl Iterator<Item = (u32, &'a Path)>) -> Vec<Blamed> {
    let suspects: Vec<Blamed> =
        parts.map(|(number, path)| Blamed { number, path: path.to_owned(), sums: ask_sums(name, path) }).collect();
    let damaged: Vec<Blamed> = suspects.iter().filter(|s| s.sums == SumsSay::Damaged).cloned().collect();
    if damaged.is_empty() { suspects } else { damaged }
}

pub(super) fn hash(path: &Path) -> Result<Digest, FileError> {
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
pub(super) fn ask_sums(name: &str, part: &Path) -> SumsSay {
    match (sums::expected(&part.with_file_name(name), part), hash(part)) {
        (Some(expected), Ok(found)) if expected == found => SumsSay::Intact,
        (Some(_), Ok(_)) => SumsSay::Damaged,
        _ => SumsSay::Nothing,
    }
}

pub(super) fn twice_hint(name: &str, number: u32, first: &Path, second: &Path) -> String {
    let good = [first, second].into_iter().filter(|path| ask_sums(name, path) == SumsSay::Intact).collect::<Vec<_>>();
    match good.as_slice() {
        [good] => format!("going by the sums beside them, `{}` is part {number} as it was made", good.display()),
        _ => "the sums beside them do not tell which is right".to_owned(),
    }
}
