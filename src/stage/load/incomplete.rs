//! What is told of a bundle of which not everything could be had: which blobs and items are whole, which are not, and which
//! parts that lies in. There is often no way back to ask a second time.

use std::collections::BTreeSet;
use std::fmt;
use std::ops::Range;

use crate::base::digest::Digest;
use crate::base::exit::{Classify, ExitClass};
use crate::base::quantity::bytes_for_people;
use crate::bundle::BundleError;
use crate::bundle::archive::BLOCK;
use crate::bundle::contents::Entry;
use crate::bundle::head::Head;
use crate::bundle::parts::{Parts, PartsTrouble, list, missing_part};

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
            (Some(reason), _) => reason.range(),
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
        let cause = self.cause.as_ref().and_then(BundleError::range);
        self.parts = Some(PartsTrouble::of(parts, ranges.into_iter().chain(cause)));
        self
    }

    /// What is not tried because of parts that are not there.
    pub fn lacking(parts: &Parts) -> Self {
        Self { parts: Some(PartsTrouble::lacking_of(parts)), ..Self::default() }
    }

    /// Refused when something was seen to be wrong, and else only out of reach.
    pub fn class(&self) -> ExitClass {
        let reasons = self.blobs.iter().filter_map(|blob| blob.reason.as_ref()).chain(&self.cause);
        let refused = reasons.into_iter().any(|reason| reason.class() == ExitClass::Refused);
        let wrong_length = self.parts.as_ref().is_some_and(PartsTrouble::is_bad);
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
