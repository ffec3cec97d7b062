//! Bringing the blobs to their places in the archive: several at once, each hashed while it is written.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::io::AsyncReadExt;
use tokio::sync::mpsc::{self, Receiver, Sender};
use tokio::task::{JoinError, JoinSet, spawn_blocking};

use super::output::Output;
use super::plan::{self, Plan, Slot};
use super::tide::Tide;
use super::{BuildError, PIECE_BYTES};
use crate::base::digest::{Digest, Hasher};
use crate::base::exit::ExitClass;
use crate::base::progress::{Counter, Step};
use crate::bundle::archive::{self, BLOCK};
use crate::bundle::cache::Cache;
use crate::bundle::source::{BlobStream, Distance, Source, SourceError};

/// Blobs that are moved at once. Whoever hashes the archive behind them comes to a blob only when those before it are
/// complete, and what is left to hash at the end is waited for. With four, that was 0.5 to 0.9 s of a build of 1 GB from the
/// same machine (two busy cores), with two 0.1 to 0.2 s, and two took 3 MiB less memory. A link on which one connection is
/// slow would be filled better by more; that was not measured.
const AT_ONCE: usize = 2;
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
    /// Brings all blobs that have a place in the output. The first error ends the others.
    pub(super) async fn run(&self) -> Result<Came, BuildError> {
        let slots = &self.plan.slots;
        let mut waiting = order(slots).into_iter().filter(|at| self.output.wants(&slots[*at].span));
        // Each is a task, and so runs where its connection is read: the thread that waits here would have to be woken for
        // every few kilobytes.
        let mut moving = JoinSet::new();
        let mut sum = Came::default();
        loop {
            while moving.len() < AT_ONCE
                && let Some(at) = waiting.next()
            {
                moving.spawn(self.carrier(at).bring());
            }
            let Some(brought) = moving.join_next().await else { return Ok(sum) };
            match joined(self.output, brought).flatten() {
                Ok(came) => {
                    sum.fetched += came.fetched;
                    sum.reused += came.reused;
                }
                Err(error) => {
                    moving.shutdown().await;
                    return Err(error);
                }
            }
        }
    }

    fn carrier(&self, index: usize) -> Carrier {
        let slot = self.plan.slots[index].clone();
        let source = Arc::clone(&self.sources[&slot.entry.digest]);
        let place = Place { output: Arc::clone(self.output), tide: Arc::clone(self.tide), index, slot };
        Carrier { place, source, cache: self.cache.cloned(), counter: self.step.counter() }
    }
}

/// Brings one blob.
struct Carrier {
    place: Place,
    source: Arc<dyn Source>,
    cache: Option<Arc<Cache>>,
    counter: Counter,
}

impl Carrier {
    async fn bring(self) -> Result<Came, BuildError> {
        let (digest, size) = (self.place.slot.entry.digest, self.place.slot.entry.size);
        let remote = self.source.distance() == Distance::Away;
        if let Some(cache) = self.cache.as_ref().filter(|_| remote) {
            while let Some(stored) = cache.find(&digest, size) {
                let place = self.place.clone();
                let copied = spawn_blocking(move || place.copy(stored)).await;
                if joined(&self.place.output, copied).flatten()? {
                    self.counter.advance(size);
                    return Ok(Came { fetched: 0, reused: size });
                }
                // Another file lies there now, or a damaged one: the registry has the right one.
                cache.distrust(&digest);
            }
        }
        self.pull().await?;
        Ok(Came { fetched: if remote { size } else { 0 }, reused: 0 })
    }

    async fn pull(&self) -> Result<(), BuildError> {
        let entry = &self.place.slot.entry;
        let stream = self.source.blob(&entry.digest, entry.size).await?;
        let (filled, to_write) = mpsc::channel(PIECES);
        let (written, empty) = mpsc::channel(PIECES);
        let place = self.place.clone();
        // It ends when `filled` is dropped, also when this future is.
        let writing = spawn_blocking(move || place.write(to_write, &written));
        let fed = self.feed(stream, filled, empty).await;
        let written = joined(&self.place.output, writing.await).flatten();
        // What was read is told first: a source that fails is why there is too little to write.
        fed.and(written)
    }

    /// Hands the blob on in pieces, until it or whoever takes them ends.
    async fn feed(
        &self,
        stream: BlobStream,
        filled: Sender<Piece>,
        mut empty: Receiver<Piece>,
    ) -> Result<(), BuildError> {
        let (digest, expected) = (self.place.slot.entry.digest, self.place.slot.entry.size);
        // One byte more than there may be, so that a longer blob is seen.
        let mut stream = stream.take(expected + 1);
        let mut left = expected + 1;
        let mut fresh = PIECES;
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
            self.counter.advance(piece.length as u64);
            if filled.send(piece).await.is_err() {
                // Its error says why.
                break;
            }
        }
        Ok(())
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

pub(super) fn joined<T>(output: &Output, ended: Result<T, JoinError>) -> Result<T, BuildError> {
    ended.map_err(|source| BuildError::Broke { path: output.whole().to_owned(), source })
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
#[derive(Clone)]
struct Place {
    output: Arc<Output>,
    tide: Arc<Tide>,
    index: usize,
    slot: Slot,
}

impl Place {
    fn frame(&self) -> Result<(), BuildError> {
        let (entry, span) = (&self.slot.entry, &self.slot.span);
        self.output.write_at(span.start, &plan::header(&entry.name, entry.size)?)?;
        self.output.write_at(self.slot.content + entry.size, &[0; BLOCK][..archive::padding(entry.size)])
    }

    /// The whole blob is there and right. Those who read behind go on while the disk is waited for.
    fn finish(&self) -> Result<(), BuildError> {
        self.tide.reach(self.index, self.slot.span.end);
        self.output.complete(&self.slot.span)
    }

    /// Writes what comes, and tells of it before the blob is known to be right; a wrong one ends the build.
    fn write(self, mut pieces: Receiver<Piece>, empty: &Sender<Piece>) -> Result<(), BuildError> {
        let (digest, expected) = (self.slot.entry.digest, self.slot.entry.size);
        self.frame()?;
        let mut hasher = Hasher::new();
        while let Some(piece) = pieces.blocking_recv() {
            let bytes = &piece.bytes[..piece.length];
            self.output.write_at(self.slot.content + hasher.length(), bytes)?;
            hasher.update(bytes);
            self.tide.reach(self.index, self.slot.content + hasher.length());
            // There is room for all of them; and nobody to take it when the blob has ended.
            let _ = empty.try_send(piece);
        }
        if hasher.length() != expected {
            return Err(BuildError::Length { digest, expected });
        }
        let found = hasher.finish();
        if found != digest {
            return Err(BuildError::Changed { what: self.slot.entry.name.clone(), expected: digest, found });
        }
        self.finish()
    }

    /// Whether the stored blob is the right one; if so, it is written. Nobody is told of it before that is known, for it may
    /// have to be written again.
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
        if hasher.finish() != digest {
            return Ok(false);
        }
        self.finish()?;
        Ok(true)
    }
}
