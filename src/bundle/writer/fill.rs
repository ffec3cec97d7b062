//! Bringing the blobs to their places in the archive: several at once, each hashed while it is written.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::stream::{self, StreamExt, TryStreamExt};
use tokio::io::AsyncReadExt;
use tokio::sync::mpsc::{self, Receiver, Sender};
use tokio::task::{JoinHandle, spawn_blocking};

use super::output::Output;
use super::plan::{self, Plan, Slot};
use super::tide::Tide;
use super::{BuildError, PIECE_BYTES};
use crate::base::digest::{Digest, Hasher};
use crate::base::exit::ExitClass;
use crate::base::progress::Step;
use crate::bundle::archive::{self, BLOCK};
use crate::bundle::cache::Cache;
use crate::bundle::source::{Distance, Source, SourceError};

/// Blobs that are moved at once. One connection seldom fills a link, and hashing takes a core of its own; with more than
/// this, memory grows and nothing else.
const AT_ONCE: usize = 4;
/// Pieces of one blob that are under way between its source and the disk.
const PIECES: usize = 3;

/// What one build brings together.
pub(super) struct Filling<'a> {
    pub(super) plan: &'a Plan,
    pub(super) sources: &'a BTreeMap<Digest, Arc<dyn Source>>,
    pub(super) output: &'a Arc<Output>,
    pub(super) tide: &'a Arc<Tide>,
    pub(super) cache: Option<&'a Arc<Cache>>,
    pub(super) step: &'a Step,
}

/// Bytes by where they came from.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Came {
    /// From registries.
    pub(super) fetched: u64,
    /// From bundles that were built before.
    pub(super) reused: u64,
}

impl Filling<'_> {
    /// Brings all blobs that have a place in the output.
    pub(super) async fn run(&self) -> Result<Came, BuildError> {
        let wanted = |slot: &Slot| self.output.wants(&slot.span);
        let slots = order(&self.plan.slots).into_iter().filter(|at| wanted(&self.plan.slots[*at]));
        stream::iter(slots)
            .map(|at| self.bring(at, &self.plan.slots[at]))
            .buffer_unordered(AT_ONCE)
            .try_fold(Came::default(), |sum, came| async move {
                Ok(Came { fetched: sum.fetched + came.fetched, reused: sum.reused + came.reused })
            })
            .await
    }

    async fn bring(&self, index: usize, slot: &Slot) -> Result<Came, BuildError> {
        let (digest, size) = (slot.entry.digest, slot.entry.size);
        let source = &self.sources[&digest];
        let remote = source.distance() == Distance::Away;
        if let Some(cache) = self.cache.filter(|_| remote) {
            while let Some(stored) = cache.find(&digest, size) {
                let place = Place { output: Arc::clone(self.output), slot: slot.clone(), live: None };
                let copied = joined(self.output, spawn_blocking(move || place.copy(stored))).await?;
                if copied? {
                    self.finish(index, slot)?;
                    self.step.advance(size);
                    return Ok(Came { fetched: 0, reused: size });
                }
                // Another file lies there now, or a damaged one: the registry has the right one.
                cache.distrust(&digest);
            }
        }
        self.pull(index, slot, source).await?;
        Ok(Came { fetched: if remote { size } else { 0 }, reused: 0 })
    }

    fn finish(&self, index: usize, slot: &Slot) -> Result<(), BuildError> {
        self.output.complete(&slot.span)?;
        self.tide.reach(index, slot.span.end);
        Ok(())
    }

    async fn pull(&self, index: usize, slot: &Slot, source: &Arc<dyn Source>) -> Result<(), BuildError> {
        let (digest, expected) = (slot.entry.digest, slot.entry.size);
        // One byte more than there may be, so that a longer blob is seen.
        let mut stream = source.blob(&digest, expected).await?.take(expected + 1);
        let (filled, to_write) = mpsc::channel(PIECES);
        let (written, mut empty) = mpsc::channel(PIECES);
        let live = Some((Arc::clone(self.tide), index));
        let place = Place { output: Arc::clone(self.output), slot: slot.clone(), live };
        // It ends when `filled` is dropped, also when this future is.
        let writing = spawn_blocking(move || place.write(to_write, &written));
        let mut fresh = PIECES;
        let mut left = expected + 1;
        let mut ended = false;
        while !ended {
            let mut piece = match empty.try_recv() {
                Ok(piece) => piece,
                Err(_) if fresh > 0 => {
                    fresh -= 1;
                    // A small blob needs no large buffer; one byte more shows that it ended.
                    Piece::new(usize::try_from(left).unwrap_or(PIECE_BYTES).min(PIECE_BYTES))
                }
                Err(_) => match empty.recv().await {
                    Some(piece) => piece,
                    None => break,
                },
            };
            piece.length = 0;
            while piece.length < piece.bytes.len() {
                let count = stream.read(&mut piece.bytes[piece.length..]).await.map_err(|e| {
                    SourceError::new(ExitClass::Unreachable, format!("read {digest} from its source")).because(e)
                })?;
                if count == 0 {
                    ended = true;
                    break;
                }
                piece.length += count;
            }
            left = left.saturating_sub(piece.length as u64);
            if left == 0 {
                return Err(BuildError::Length { digest, expected });
            }
            self.step.advance(piece.length as u64);
            if filled.send(piece).await.is_err() {
                // Its error says why.
                break;
            }
        }
        drop(filled);
        let (found, length) = joined(self.output, writing).await??;
        if length != expected {
            return Err(BuildError::Length { digest, expected });
        }
        if found != digest {
            return Err(BuildError::Changed { what: slot.entry.name.clone(), expected: digest, found });
        }
        self.finish(index, slot)
    }
}

/// The order in which blobs are begun: that of the archive, so that whoever reads behind keeps up; but one that alone is
/// more than its share of all comes first, for the others are done while it is moved.
fn order(slots: &[Slot]) -> Vec<usize> {
    let total: u64 = slots.iter().map(|slot| slot.entry.size).sum();
    let share = total / AT_ONCE as u64;
    let mut order: Vec<usize> = (0..slots.len()).collect();
    order.sort_by_key(|at| slots[*at].entry.size <= share);
    order
}

pub(super) async fn joined<T>(output: &Output, task: JoinHandle<T>) -> Result<T, BuildError> {
    task.await.map_err(|source| BuildError::Broke { path: output.whole().to_owned(), source })
}

/// A buffer on its way.
struct Piece {
    bytes: Vec<u8>,
    length: usize,
}

impl Piece {
    fn new(size: usize) -> Self {
        Self { bytes: vec![0; size], length: 0 }
    }
}

/// Where a blob is written. Its methods block.
struct Place {
    output: Arc<Output>,
    slot: Slot,
    /// Who is told of each byte before the blob is known to be right; a wrong one ends the build.
    live: Option<(Arc<Tide>, usize)>,
}

impl Place {
    fn frame(&self) -> Result<(), BuildError> {
        let (entry, span) = (&self.slot.entry, &self.slot.span);
        self.output.write_at(span.start, &plan::header(&entry.name, entry.size)?)?;
        self.output.write_at(self.slot.content + entry.size, &[0; BLOCK][..archive::padding(entry.size)])
    }

    fn write(self, mut pieces: Receiver<Piece>, empty: &Sender<Piece>) -> Result<(Digest, u64), BuildError> {
        self.frame()?;
        let mut hasher = Hasher::new();
        while let Some(piece) = pieces.blocking_recv() {
            let bytes = &piece.bytes[..piece.length];
            self.output.write_at(self.slot.content + hasher.length(), bytes)?;
            hasher.update(bytes);
            if let Some((tide, index)) = &self.live {
                tide.reach(*index, self.slot.content + hasher.length());
            }
            // There is room for all of them; and nobody to take it when the blob has ended.
            let _ = empty.try_send(piece);
        }
        let length = hasher.length();
        Ok((hasher.finish(), length))
    }

    /// Whether the stored blob is the right one; if so, it is written.
    fn copy(self, mut stored: impl std::io::Read) -> Result<bool, BuildError> {
        self.frame()?;
        let (digest, size) = (self.slot.entry.digest, self.slot.entry.size);
        let mut hasher = Hasher::new();
        let mut buffer = vec![0; PIECE_BYTES];
        while hasher.length() < size {
            let most = usize::try_from(size - hasher.length()).unwrap_or(PIECE_BYTES).min(PIECE_BYTES);
            // What can't be read is not there; the registry has it.
            let Ok(count @ 1..) = stored.read(&mut buffer[..most]) else { return Ok(false) };
            self.output.write_at(self.slot.content + hasher.length(), &buffer[..count])?;
            hasher.update(&buffer[..count]);
        }
        Ok(hasher.finish() == digest)
    }
}
