//! The digests of an archive and of its parts, taken behind the front while blobs are still being written.
//!
//! SHA-256 wants the bytes in order, and they are written at several places at once. What is written is read again, which
//! comes from the page cache as long as it is near the front.

use std::os::unix::fs::FileExt;

use super::output::Output;
use super::tide::Tide;
use super::{BuildError, PIECE_BYTES};
use crate::base::digest::{Digest, Hasher};

/// After so many bytes the disk is given what there is. Two seconds of a slow disk, a tenth of one of a fast disk.
const FLUSH_BYTES: u64 = 128 << 20;

/// What the bytes of an archive hash to.
pub(super) struct Digests {
    /// The whole archive; `None` where only a part of it is written.
    pub(super) whole: Option<Digest>,
    /// Each of the files.
    pub(super) files: Vec<Digest>,
}

/// Follows the tide over all files. `None` when it was abandoned. Blocks.
pub(super) fn follow(output: &Output, tide: &Tide) -> Result<Option<Digests>, BuildError> {
    let one = output.is_whole() && output.targets().len() == 1;
    let mut whole = (output.is_whole() && !one).then(Hasher::new);
    let mut files = Vec::new();
    let mut buffer = vec![0; PIECE_BYTES];
    for target in output.targets() {
        let mut hasher = Hasher::new();
        let mut reader = None;
        let mut at = target.span.start;
        while at < target.span.end {
            let Some(level) = tide.above(at) else { return Ok(None) };
            let until = level.min(target.span.end);
            let file = match &reader {
                Some(file) => file,
                None => reader.insert(output.reader(target)?),
            };
            while at < until {
                let piece = &mut buffer[..usize::try_from(until - at).unwrap_or(usize::MAX).min(PIECE_BYTES)];
                file.read_exact_at(piece, at - target.span.start).map_err(|e| output.failed(e))?;
                hasher.update(piece);
                if let Some(whole) = &mut whole {
                    whole.update(piece);
                }
                at += piece.len() as u64;
            }
        }
        files.push(hasher.finish());
    }
    let whole = match whole {
        Some(hasher) => Some(hasher.finish()),
        None => files.first().copied().filter(|_| one),
    };
    Ok(Some(Digests { whole, files }))
}

/// Hands to the disk what is written, again and again, until all is. Blocks.
pub(super) fn flush(output: &Output, tide: &Tide) -> Result<(), BuildError> {
    let mut flushed = 0;
    while let Some(written) = tide.more(flushed + FLUSH_BYTES) {
        flushed = written;
        output.flush()?;
    }
    Ok(())
}
