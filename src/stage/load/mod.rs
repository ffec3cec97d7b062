//! From a verified bundle into a registry, and back from there at every run.
//!
//! From a pipe it is one forward pass: a blob goes up while it is read and verified, so neither memory nor disk grows with
//! the bundle. From a file, several blobs go up at once, the largest first, and those that the registry has are not read.
//! The order makes any interruption harmless: nothing is sent before the signed metadata verified; a blob is completed only
//! when its digest did; manifests go up only with the [`VerifiedBundle`] in hand; the version is remembered before the
//! first tag moves; and the tag that a run starts from moves last. A load that was interrupted is repeated, finds most of
//! its work done, and goes on in the middle of a large blob.

pub mod base;
pub mod dry_run;
mod error;
mod finish;
mod from_file;
mod from_parts;
mod from_stream;
pub mod incomplete;
pub mod mapping;
pub mod piped;
mod place;
mod prepare;
mod read_back;
pub mod receipt;
mod survey;
mod vouch;

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::io::AsyncRead;

pub use error::LoadError;
pub use survey::Survey;
pub use vouch::read_catalog;

use crate::base::limits::Limits;
use crate::base::progress::{Progress, Step};
use crate::base::quantity::bytes_for_people;
use crate::bundle::head::Head;
use crate::bundle::random::BundleFile;
use crate::bundle::read_at::ReadAt;
use crate::bundle::reader::{BundleReader, VerifiedBundle};
use crate::model::receipt::{Outcome, ReadBack, ReceiptBlob, ReceiptItem, ReceiptTag};
use crate::registry::{Client, Prefix, Sessions};
use crate::trust::remembered::Remembered;
use crate::trust::root::TrustRoot;
use place::{Placed, Placer};

/// Where a bundle is loaded to, and what it must satisfy.
#[derive(Clone, Copy, Debug)]
pub struct Load<'a> {
    /// The registry.
    pub client: &'a Client,
    /// The registry again, and the path in it that repositories are put below.
    pub prefix: &'a Prefix,
    /// The pinned root.
    pub root: &'a TrustRoot,
    /// The versions that were accepted before.
    pub remembered: &'a Remembered,
    /// Bounds on what the bundle may be.
    pub limits: &'a Limits,
    /// What time it is.
    pub now: Timestamp,
    /// Blobs, manifests or tags that may be under way at the same time.
    pub jobs: NonZeroUsize,
    /// Where progress is shown.
    pub progress: &'a Progress,
    /// Where uploads under way are remembered, so that a load that was killed goes on in the middle of a blob.
    pub sessions: Option<&'a Sessions>,
    /// How much of what is in the registry afterwards is read back and hashed. With [`ReadBack::All`], all of the archive is
    /// read too.
    pub read_back: ReadBack,
}

/// The proof that a bundle was verified and is in the registry, and what that took. Only [`Load::run_stream`] and
/// [`Load::run_file`] make one.
#[derive(Debug)]
pub struct LoadedBundle {
    bundle: VerifiedBundle,
    done: Done,
    started: Timestamp,
    elapsed: Duration,
}

/// What was done, item by item and blob by blob.
#[derive(Debug, Default)]
struct Done {
    items: Vec<ReceiptItem>,
    blobs: Vec<ReceiptBlob>,
    tags: Vec<ReceiptTag>,
    manifests: u64,
    sent_bytes: u64,
}

/// What was done, in numbers; bytes are those of blobs, and a blob counts once for each repository.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Blobs that were sent.
    pub pushed: u64,
    /// Bytes that were sent: those of the blobs, where nothing had to be sent again and nothing was continued.
    pub pushed_bytes: u64,
    /// Blobs that the repository had already.
    pub skipped: u64,
    /// Their bytes.
    pub skipped_bytes: u64,
    /// Blobs that the registry took from another of its repositories.
    pub mounted: u64,
    /// Blobs that were copied from one repository to another, because the registry does not mount.
    pub copied: u64,
    /// Manifests that were sent.
    pub manifests: u64,
    /// Tags that were moved.
    pub tags: u64,
}

impl LoadedBundle {
    /// The bundle.
    pub fn bundle(&self) -> &VerifiedBundle {
        &self.bundle
    }

    /// What came of each image and artifact, by repository.
    pub fn items(&self) -> &[ReceiptItem] {
        &self.done.items
    }

    /// What came of each blob, by digest.
    pub fn blobs(&self) -> &[ReceiptBlob] {
        &self.done.blobs
    }

    /// What came of each tag, in the order in which they moved.
    pub fn tags(&self) -> &[ReceiptTag] {
        &self.done.tags
    }

    /// What was done, in numbers.
    pub fn counts(&self) -> Counts {
        let mut counts = Counts {
            manifests: self.done.manifests,
            tags: self.done.tags.iter().filter(|tag| tag.moved).count() as u64,
            pushed_bytes: self.done.sent_bytes,
            ..Counts::default()
        };
        for blob in &self.done.blobs {
            for outcome in blob.repositories.values() {
                match outcome {
                    Outcome::Present => {
                        counts.skipped += 1;
                        counts.skipped_bytes += blob.size;
                    }
                    Outcome::Pushed => counts.pushed += 1,
                    Outcome::Mounted => counts.mounted += 1,
                    Outcome::Copied => counts.copied += 1,
                }
            }
        }
        counts
    }

    /// When it began.
    pub fn started(&self) -> Timestamp {
        self.started
    }

    /// How long it took.
    pub fn elapsed(&self) -> Duration {
        self.elapsed
    }
}

impl Load<'_> {
    /// Verifies the bundle that `source` yields and puts it into the registry, in one forward pass.
    ///
    /// # Errors
    /// When the bundle is refused: then no tag was moved, and no repository is touched unless its metadata verified. When
    /// the registry fails: then the same can be repeated.
    ///
    /// # Cancel safety
    /// Dropped at any time, it leaves blobs and manifests that nothing points to, and can be repeated.
    pub async fn run_stream<R: AsyncRead + Unpin + Send>(&self, source: R) -> Result<LoadedBundle, LoadError> {
        let started = Instant::now();
        let reader = BundleReader::open(source, self.root, self.remembered, self.limits, self.now).await?;
        let prepared = self.prepare(reader.head()).await?;
        let step = self.announce(reader.head());
        let placer = self.placer(&prepared.survey, &step);
        let (reader, placed) = self.blobs_from_stream(reader, &prepared, &placer).await?;
        let head = reader.head().manifests().to_vec();
        let items = reader.head().items();
        let bundle = reader.finish().await?;
        self.complete(bundle, &head, &items, &placer, step, placed, started).await
    }

    /// Verifies the bundle in `archive` and puts it into the registry, several blobs at once. Blobs that the registry has
    /// are not read.
    ///
    /// # Errors
    /// As [`Load::run_stream`]; and when bytes of the archive can't be read, as those of a part that is missing: then all that
    /// can be read was put into the registry, and the error names what is missing.
    ///
    /// # Cancel safety
    /// As [`Load::run_stream`].
    pub async fn run_file(&self, archive: Arc<dyn ReadAt>) -> Result<LoadedBundle, LoadError> {
        let started = Instant::now();
        let file = BundleFile::open(archive, self.root, self.remembered, self.limits, self.now).await?;
        let prepared = self.prepare(file.head()).await?;
        let step = self.announce(file.head());
        let placer = self.placer(&prepared.survey, &step);
        let placed = self.blobs_from_file(&file, &prepared, &placer).await?;
        let manifests = file.head().manifests().to_vec();
        let items = file.head().items();
        let bundle = file.finish()?;
        self.complete(bundle, &manifests, &items, &placer, step, placed, started).await
    }

    fn announce(&self, head: &Head) -> Step {
        let (number, total) = head.blob_totals();
        let name = format!("{} {}", head.bundle().name, head.bundle().version);
        self.progress.say(format!(
            "bundle {name}: signatures verified; {} items, {number} blobs, {}",
            head.items().len().saturating_sub(1),
            bytes_for_people(total)
        ));
        self.progress.bytes(format!("blobs of {name}"), total)
    }

    fn placer(&self, survey: &Arc<Survey>, step: &Step) -> Placer {
        Placer {
            client: self.client.clone(),
            prefix: self.prefix.clone(),
            sessions: self.sessions.cloned(),
            survey: survey.clone(),
            counter: step.counter(),
        }
    }

    /// Everything after the blobs: manifests, metadata, the remembered version, tags.
    #[allow(clippy::too_many_arguments)]
    async fn complete(
        &self,
        bundle: VerifiedBundle,
        manifests: &[crate::bundle::graph::PushManifest],
        items: &[crate::bundle::graph::Item],
        placer: &Placer,
        step: Step,
        placed: Vec<Placed>,
        started: Instant,
    ) -> Result<LoadedBundle, LoadError> {
        let mut done = Done { sent_bytes: placed.iter().map(|placed| placed.sent_bytes).sum(), ..Done::default() };
        done.blobs = placed.into_iter().map(|placed| placed.blob).collect();
        done.blobs.sort_by_key(|blob| blob.digest);
        let sent = bytes_for_people(done.sent_bytes);
        step.done(format!("{} in the registry, {sent} sent", done.blobs.len()));
        let pushed = self.manifests(manifests, &placer.survey, &mut done).await?;
        done.items = finish::item_outcomes(items, &placer.survey, &pushed);
        self.metadata(&bundle, placer, &mut done).await?;
        self.read_back(manifests, &mut done).await?;
        bundle.remember()?;
        self.tags(&bundle, manifests, &placer.survey, &mut done).await?;
        Ok(LoadedBundle { bundle, done, started: self.now, elapsed: started.elapsed() })
    }
}

#[cfg(test)]
mod tests;
