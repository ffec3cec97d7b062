//! Where each byte of an archive lies, known before any blob is.

use std::ops::Range;

use bytes::Bytes;

use super::BuildError;
use super::signed::NamedFiles;
use crate::bundle::archive::{self, BLOCK};
use crate::bundle::assembly::Assembled;
use crate::bundle::contents::{Entry, METADATA};
use crate::bundle::error::BundleError;
use crate::bundle::oci;

/// An archive that is to be written.
pub(super) struct Plan {
    /// What comes before the blobs: names and contents.
    head: Vec<(String, Bytes)>,
    /// The blobs in the order of the archive.
    pub(super) slots: Vec<Slot>,
    /// Where the first slot begins.
    start: u64,
    /// Where the end marker begins.
    end: u64,
}

/// The place of a blob.
#[derive(Clone, Debug)]
pub(super) struct Slot {
    pub(super) entry: Entry,
    /// Where its content begins.
    pub(super) content: u64,
    /// From its header to the end of its padding.
    pub(super) span: Range<u64>,
}

/// The header of an entry.
pub(super) fn header(name: &str, size: u64) -> Result<[u8; BLOCK], BundleError> {
    archive::header(name, size).ok_or_else(|| BundleError::TooLarge {
        what: format!("`{name}`"),
        found: size,
        limit: archive::MAX_SIZE,
    })
}

impl Plan {
    pub(super) fn new(assembled: &Assembled, metadata: NamedFiles) -> Result<Self, BuildError> {
        let contents = &assembled.contents;
        let mut head: Vec<(String, Bytes)> =
            metadata.into_iter().map(|(name, bytes)| (format!("{METADATA}{name}"), bytes.into())).collect();
        head.push((contents.layout.name.clone(), Bytes::from_static(oci::LAYOUT)));
        head.push((contents.index.name.clone(), assembled.index.clone().into()));
        let documents = contents.documents.iter();
        head.extend(documents.map(|entry| (entry.name.clone(), assembled.documents[&entry.digest].clone())));
        let start = head
            .iter()
            .map(|(_, bytes)| BLOCK as u64 + bytes.len() as u64 + archive::padding(bytes.len() as u64) as u64)
            .sum();
        let (offsets, end) = contents.blob_offsets(start);
        let slots = contents.blobs.iter().zip(offsets).map(|(entry, content)| Slot {
            entry: entry.clone(),
            content,
            span: content - BLOCK as u64..content + entry.size + archive::padding(entry.size) as u64,
        });
        let plan = Self { head, slots: slots.collect(), start, end };
        // Told before anything is written, and before a blob is asked for.
        for (name, bytes) in &plan.head {
            header(name, bytes.len() as u64)?;
        }
        for slot in &plan.slots {
            header(&slot.entry.name, slot.entry.size)?;
        }
        Ok(plan)
    }

    /// The length of the archive in bytes.
    pub(super) fn total(&self) -> u64 {
        self.end + archive::END.len() as u64
    }

    /// What comes before the first slot.
    pub(super) fn head_span(&self) -> Range<u64> {
        0..self.start
    }

    /// The end marker.
    pub(super) fn end_span(&self) -> Range<u64> {
        self.end..self.total()
    }

    /// All that is known already, with its place: everything before the blobs, and the end marker.
    pub(super) fn known(&self) -> Result<Vec<(u64, Bytes)>, BundleError> {
        let mut at = 0;
        let mut pieces = Vec::with_capacity(self.head.len() * 3 + 1);
        for (name, bytes) in &self.head {
            let size = bytes.len() as u64;
            let padding = Bytes::from_static(&[0; BLOCK]).slice(..archive::padding(size));
            for piece in [Bytes::copy_from_slice(&header(name, size)?), bytes.clone(), padding] {
                let length = piece.len() as u64;
                pieces.push((at, piece));
                at += length;
            }
        }
        pieces.push((self.end, Bytes::from_static(&archive::END)));
        Ok(pieces)
    }
}
