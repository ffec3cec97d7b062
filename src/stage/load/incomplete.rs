//! What is told of a bundle of which not everything could be had: which blobs and items are whole, which are not, and which
//! parts that lies in. There is often no way back to ask a second time.

use std::collections::BTreeSet;
use std::fmt;
use std::ops::Range;
use std::path::PathBuf;

use crate::base::digest::Digest;
use crate::base::exit::{Classify, ExitClass};
use crate::base::quantity::bytes_for_people;
use crate::bundle::BundleError;
use crate::bundle::archive::BLOCK;
use crate::bundle::contents::Entry;
use crate::bundle::head::Head;
use crate::bundle::parts::{Blamed, Lack, Parts, SumsSay, list, missing_part};

/// How many items a message names.
const SHOWN: usize = 6;

/// A bundle of which not everything could be had. No tag was moved.
#[derive(Debug, Default)]
pub struct Incomplete {
    /// The blobs that are not in the registry because of that, in the order of the archive.
    pub blobs: Vec<PutAside>,
    /// How many blobs the archive has.
    pub of: usize,
    /// The items whose blobs are all there, by repository below the prefix.
    pub whole: Vec<String>,
    /// The items that lack at least one.
    pub broken: Vec<String>,
    /// What is wrong with the parts, where it came in parts.
    pub parts: Option<PartsTrouble>,
    /// What was seen first, where it is no blob's own.
    pub cause: Option<BundleError>,
}

/// A blob whose bytes could not be had, or were not the right ones.
#[derive(Debug)]
pub struct PutAside {
    /// Which.
    pub digest: Digest,
    /// Its length in bytes.
    pub size: u64,
    /// The repositories below the prefix that need it.
    pub repositories: Vec<String>,
    /// Where its content begins in the archive; unknown for what did not come by.
    pub offset: Option<u64>,
    /// What is wrong with it; `None` when it did not come by.
    pub reason: Option<BundleError>,
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

impl PutAside {
    /// Whether its bytes were seen and are wrong.
    pub fn is_damaged(&self) -> bool {
        self.reason.as_ref().is_some_and(|reason| reason.class() == ExitClass::Refused && !is_cut(reason))
    }

    /// Where in the archive the trouble is.
    fn range(&self) -> Option<Range<u64>> {
        match (&self.reason, self.offset) {
            (Some(BundleError::Digest { .. } | BundleError::Io { .. }), Some(offset)) => {
                Some(offset - BLOCK as u64..offset + self.size.max(1))
            }
            (Some(reason), _) => reason.offset().map(|at| at..at + BLOCK as u64),
            (None, _) => None,
        }
    }
}

fn is_cut(error: &BundleError) -> bool {
    matches!(error, BundleError::Truncated { .. })
}

impl Incomplete {
    /// What is told when these blobs, of those in `head`, were put aside.
    pub fn of(head: &Head, mut blobs: Vec<PutAside>) -> Self {
        blobs.sort_by_key(|blob| head.blobs().iter().position(|entry| entry.digest == blob.digest));
        let broken: BTreeSet<&String> = blobs.iter().flat_map(|blob| &blob.repositories).collect();
        let items = head.items();
        let (broken, whole) = items.into_iter().map(|item| item.repository).partition(|name| broken.contains(name));
        Self { of: head.blobs().len(), whole, broken, blobs, parts: None, cause: None }
    }

    /// A blob that did not come by.
    pub fn not_seen(head: &Head, entry: &Entry) -> PutAside {
        let repositories = head.blob_repositories(&entry.digest);
        PutAside { digest: entry.digest, size: entry.size, repositories, offset: None, reason: None }
    }

    /// The same with the parts that the trouble lies in.
    #[must_use]
    pub fn in_parts(mut self, parts: &Parts) -> Self {
        let ranges: Vec<Range<u64>> = self.blobs.iter().filter_map(PutAside::range).collect();
        let cause = self.cause.as_ref().and_then(BundleError::offset).map(|at| at..at + 1);
        let mut lacking = BTreeSet::new();
        let mut damaged: Vec<Blamed> = Vec::new();
        for range in ranges.iter().chain(&cause) {
            let missing: Vec<u32> =
                parts.holding(range).filter(|number| parts.lacking().contains_key(number)).collect();
            if missing.is_empty() {
                damaged.extend(parts.blame(range));
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
        self.parts = Some(PartsTrouble {
            name: parts.name().to_owned(),
            count: Some(parts.count()),
            lacking: lacking.into_iter().map(|number| (number, parts.lacking()[&number].clone())).collect(),
            damaged,
        });
        self
    }

    /// What could not even be begun because this part is not there.
    pub fn without_beginning(name: &str, number: u32) -> Self {
        let lacking = vec![(number, Lack::Absent)];
        let parts = PartsTrouble { name: name.to_owned(), count: None, lacking, damaged: Vec::new() };
        Self { parts: Some(parts), ..Self::default() }
    }

    /// What is not tried because of parts that are not there.
    pub fn lacking(parts: &Parts) -> Self {
        let lacking = parts.lacking().iter().map(|(number, lack)| (*number, lack.clone())).collect();
        let name = parts.name().to_owned();
        let parts = PartsTrouble { name, count: Some(parts.count()), lacking, damaged: Vec::new() };
        Self { parts: Some(parts), ..Self::default() }
    }

    /// Refused when something was seen to be wrong, and else only out of reach.
    pub fn class(&self) -> ExitClass {
        let reasons = self.blobs.iter().filter_map(|blob| blob.reason.as_ref()).chain(&self.cause);
        let refused = reasons.into_iter().any(|reason| reason.class() == ExitClass::Refused);
        let wrong_length = self.parts.as_ref().is_some_and(|parts| {
            parts.lacking.iter().any(|(_, lack)| matches!(lack, Lack::Length { .. })) || !parts.damaged.is_empty()
        });
        if refused || wrong_length { ExitClass::Refused } else { ExitClass::Unreachable }
    }

    /// What can be done.
    pub fn remedy(&self) -> String {
        match &self.parts {
            Some(parts) => format!(
                "bring part {} again and repeat the load with all parts, in any order: what arrived is in the registry and is not sent again",
                list(parts.numbers())
            ),
            None => "copy or send the bundle again and repeat the load: what arrived is in the registry and is not sent again".to_owned(),
        }
    }

    /// One line for each blob that is not there, then one for all items that are whole and one for those that are not.
    pub fn lines(&self) -> Vec<String> {
        let mut lines: Vec<String> = self
            .blobs
            .iter()
            .map(|blob| {
                let state = match &blob.reason {
                    None => "not seen",
                    Some(_) if blob.is_damaged() => "damaged ",
                    Some(_) => "missing ",
                };
                let size = bytes_for_people(blob.size);
                format!("{state}  {}  {size:>10}  of {}", blob.digest, blob.repositories.join(", "))
            })
            .collect();
        if self.of > 0 {
            lines.push(format!("whole:     {}", some(&self.whole, usize::MAX)));
            lines.push(format!("not whole: {}", some(&self.broken, usize::MAX)));
        }
        lines
    }
}

impl PartsTrouble {
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

impl fmt::Display for Incomplete {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.parts {
            Some(parts) => write!(f, "read all parts of {parts}")?,
            None => write!(f, "read all of the bundle")?,
        }
        if self.of == 0 {
            return Ok(());
        }
        write!(
            f,
            "; {} of {} blobs are not there, and without them {}",
            self.blobs.len(),
            self.of,
            some(&self.broken, SHOWN)
        )?;
        write!(f, "; everything else is in the registry, and no tag was moved")
    }
}

impl std::error::Error for Incomplete {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        let of_blobs = self.blobs.iter().find_map(|blob| blob.reason.as_ref());
        match self.cause.as_ref().or(of_blobs) {
            // The message says it already.
            Some(BundleError::Io { source, .. }) if missing_part(source).is_some() => None,
            Some(error) => Some(error),
            None => None,
        }
    }
}

fn some(names: &[String], most: usize) -> String {
    match names.len() {
        0 => "nothing".to_owned(),
        number if number > most => format!("{} and {} more", names[..most].join(", "), number - most),
        _ => names.join(", "),
    }
}
