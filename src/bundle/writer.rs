//! Signing and writing a bundle: the same assembled content and the same keys give the same bytes.
//!
//! The metadata says where each blob will lie, so all of them are brought to their places at once, in whatever order they
//! come: nothing is written twice, and no second copy is made anywhere. Three who read behind and ahead of each other share
//! the work: blobs are hashed while they are written (`fill`), the archive is hashed behind them (`follow`), and the
//! disk is kept busy meanwhile.

mod error;
mod fill;
mod follow;
mod output;
mod plan;
mod signed;
mod tide;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use tokio::task::{JoinSet, spawn_blocking};

use self::fill::{Came, Filling, joined};
use self::follow::Digests;
use self::plan::Plan;
use self::tide::Tide;
use super::assembly::Assembled;
use super::cache::Cache;
use super::sums::{self, Sum, SumsFiles};
use crate::base::digest::Digest;
use crate::base::progress::Step;
use crate::base::quantity::Span;
use crate::trust::root::TrustRoot;
use crate::trust::signer::Signer;

pub use self::error::BuildError;
pub use self::output::Cut;
pub(super) use self::output::Output;

/// What is moved at once.
const PIECE_BYTES: usize = 128 << 10;

/// How a bundle is signed.
pub struct Signing<'a> {
    /// The keys.
    pub signer: &'a Signer,
    /// The root that enclaves pin, or a newer one of its chain.
    pub root: &'a TrustRoot,
    /// The chain of roots, from the first.
    pub chain: Vec<Vec<u8>>,
    /// How long the bundle is valid from its creation; the root's policy may shorten it.
    pub valid_for: Span,
}

/// Where a bundle is written, and how.
pub struct Writing<'a> {
    /// The archive. Its parts and sums lie beside it.
    pub path: &'a Path,
    /// In one file, in parts, or one of the parts again.
    pub cut: Cut,
    /// Where blobs may be on this machine.
    pub cache: Option<&'a Arc<Cache>>,
    /// Who is told how far it is.
    pub step: &'a Step,
}

/// What was written.
#[derive(Clone, Debug)]
pub struct Written {
    /// The length of the archive in bytes.
    pub bytes: u64,
    /// The digest of the archive; not known where one part alone was made.
    pub digest: Option<Digest>,
    /// The files that were written, in the order of the archive: the archive itself, or its parts.
    pub files: Vec<Sum>,
    /// The sums beside them; none are written with one part alone.
    pub sums: Option<SumsFiles>,
    /// What became of a part that was made alone.
    pub compared: Option<Compared>,
    /// Bytes that came from registries.
    pub fetched_bytes: u64,
    /// Bytes that came from bundles that were built before.
    pub reused_bytes: u64,
    /// When the first of its metadata expires.
    pub expires: Timestamp,
}

/// Whether a part that was made alone is known to fit the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compared {
    /// The sums beside it name its digest.
    Same,
    /// There are no sums beside it that name it.
    Unknown,
}

/// The same time without its fraction: TUF metadata carries whole seconds.
pub fn whole_seconds(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).expect("a time without its fraction is a time")
}

/// Dropped before all is done, it lets those who wait for bytes go, and takes away what was written.
struct Attempt {
    output: Arc<Output>,
    tide: Arc<Tide>,
}

/// What those who read behind come to.
enum Behind {
    Hashed(Option<Digests>),
    Flushed,
}

impl Attempt {
    fn shared(&self) -> (Arc<Output>, Arc<Tide>) {
        (Arc::clone(&self.output), Arc::clone(&self.tide))
    }

    /// Brings the blobs, with those who read behind. The first error of any of them ends all, and all have ended then.
    async fn fill(&self, filling: Filling<'_>) -> Result<(Came, Digests), BuildError> {
        let (followed, flushed) = (self.shared(), self.shared());
        let mut behind = JoinSet::new();
        behind.spawn_blocking(move || follow::follow(&followed.0, &followed.1).map(Behind::Hashed));
        behind.spawn_blocking(move || follow::flush(&flushed.0, &flushed.1).map(|()| Behind::Flushed));
        let both = async { tokio::try_join!(filling.run(), self.hashed(&mut behind)) }.await;
        if both.is_err() {
            self.tide.abandon();
            while behind.join_next().await.is_some() {}
        }
        both
    }

    async fn hashed(&self, behind: &mut JoinSet<Result<Behind, BuildError>>) -> Result<Digests, BuildError> {
        let mut digests = None;
        while let Some(ended) = behind.join_next().await {
            if let Behind::Hashed(found) = joined(&self.output, ended).flatten()? {
                digests = found;
            }
        }
        digests.ok_or_else(|| self.output.failed(std::io::Error::other("the digests were given up")))
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        self.tide.abandon();
        self.output.give_up();
    }
}

/// Writes a bundle: first under other names (`OUT.part`), which are changed when all was verified, synced and closed, and
/// removed when anything fails.
///
/// # Errors
/// When content is not what was locked, keys are missing, there is no room, or writing fails.
///
/// # Cancel safety
/// A cancelled write leaves nothing. A killed one may leave `OUT.part`, which the next one replaces; never `OUT`.
pub async fn write(assembled: &Assembled, signing: &Signing<'_>, writing: &Writing<'_>) -> Result<Written, BuildError> {
    let (metadata, expires) = signed::sign(&assembled.contents, signing)?;
    let plan = Plan::new(assembled, metadata)?;
    let output = Arc::new(Output::create(writing.path, writing.cut, plan.total())?);
    let spans = plan.slots.iter().map(|slot| slot.span.clone());
    let tide = Arc::new(Tide::new(plan.head_span(), spans, plan.end_span()));
    for (index, slot) in plan.slots.iter().enumerate().filter(|(_, slot)| !output.wants(&slot.span)) {
        tide.reach(index, slot.span.end);
    }
    let attempt = Attempt { output, tide };
    let output = &attempt.output;

    let (known, head, end, begin) = (plan.known()?, plan.head_span(), plan.end_span(), Arc::clone(output));
    let begun = spawn_blocking(move || -> Result<(), BuildError> {
        for (at, bytes) in &known {
            begin.write_at(*at, bytes)?;
        }
        begin.complete(&head)?;
        begin.complete(&end)
    });
    joined(output, begun.await).flatten()?;

    let filling = Filling {
        plan: &plan,
        sources: &assembled.blobs,
        output,
        tide: &attempt.tide,
        cache: writing.cache,
        step: writing.step,
    };
    let (came, digests) = attempt.fill(filling).await?;

    let targets = output.targets().iter();
    let files: Vec<Sum> =
        targets.zip(digests.files).map(|(target, digest)| Sum { path: target.path.clone(), digest }).collect();
    let mut written = Written {
        bytes: plan.total(),
        digest: digests.whole.filter(|_| !matches!(writing.cut, Cut::Part(..))),
        files,
        sums: None,
        compared: None,
        fetched_bytes: came.fetched,
        reused_bytes: came.reused,
        expires,
    };
    match written.digest {
        Some(digest) => finish_all(output, &mut written, digest, signing, writing)?,
        None => finish_part(output, &mut written, writing)?,
    }
    if let Some(cache) = writing.cache.filter(|_| written.digest.is_some()) {
        let paths: Vec<PathBuf> = written.files.iter().map(|file| file.path.clone()).collect();
        if let Err(error) = cache.record(&paths, &assembled.contents, plan.head_span().end) {
            tracing::debug!(%error, "the next build can't use what this one downloaded");
        }
    }
    Ok(written)
}

fn finish_all(
    output: &Output,
    written: &mut Written,
    digest: Digest,
    signing: &Signing<'_>,
    writing: &Writing<'_>,
) -> Result<(), BuildError> {
    let paths: Vec<PathBuf> = written.files.iter().map(|file| file.path.clone()).collect();
    let leftovers = sums::leftovers(writing.path, &paths);
    // Sums that are wrong are never beside a bundle, only none for a moment.
    output.commit(|| Ok(sums::remove(writing.path)?))?;
    for path in leftovers {
        std::fs::remove_file(&path).map_err(|source| BuildError::Write { path, source })?;
    }
    let mut lines = vec![Sum { path: writing.path.to_owned(), digest }];
    if writing.cut != Cut::Whole {
        lines.extend(written.files.iter().cloned());
    }
    written.sums = Some(sums::write(writing.path, &lines, Some(signing.signer))?);
    Ok(())
}

/// A part that was made alone must be the one that the others were made with.
fn finish_part(output: &Output, written: &mut Written, writing: &Writing<'_>) -> Result<(), BuildError> {
    for file in &written.files {
        written.compared = Some(match sums::expected(writing.path, &file.path) {
            None => Compared::Unknown,
            Some(expected) if expected == file.digest => Compared::Same,
            Some(expected) => {
                return Err(BuildError::OtherPart { path: file.path.clone(), expected, found: file.digest });
            }
        });
    }
    output.commit(|| Ok(()))
}

#[cfg(test)]
mod tests;
