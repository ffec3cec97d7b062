//! `gapscan load`: a bundle into a registry.

mod media;
mod report;

use std::io;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::ValueEnum;
use jiff::Timestamp;

use self::media::Terminal;
use super::access::{ConnectArgs, REGISTRY};
use super::source::{self, Source};
use super::table::Format;
use crate::base::document::ApiVersion;
use crate::base::exit::{ExitClass, Failure, Outcome};
use crate::base::file::FileError;
use crate::base::limits::Limits;
use crate::base::progress::Progress;
use crate::bundle::read_at::OneFile;
use crate::ledger::LedgerReader;
use crate::model::receipt::{LoadReceipt, RECEIPT_KIND, ReadBack};
use crate::registry::{Prefix, Sessions};
use crate::stage::load::dry_run::Rehearsal;
use crate::stage::load::piped::piped;
use crate::stage::load::receipt::{runner, write_receipt};
use crate::stage::load::{Load, LoadError, LoadedBundle};
use crate::stage::plan::RegistryAccess;
use crate::stage::{registries, seen};
use crate::trust::remembered::{OnLoss, Remembered};
use crate::trust::root::TrustRoot;
use crate::trust::runner::RUNNER_PUBLIC_KEY;

/// What is read from a pipe or device at a time.
const READ_BYTES: usize = 1 << 20;

/// Verify bundles and load them into a registry, in one pass
///
/// Nothing is sent before the signed metadata verified, and no tag moves before everything did. A load that was
/// interrupted is repeated: what is there already is skipped. Each load leaves a receipt, signed by the runner's key, in
/// the folder of the state: receipts/BUNDLE.VERSION.REGISTRY.receipt, with `+` for `/` and `=` for `:` in the registry.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The bundles, in this order; `-` for standard input. Of a bundle in parts (NAME.001, NAME.002, ...), the parts in any
    /// order, or the folders that they are in
    #[arg(value_name = "FILE|FOLDER|-", required = true)]
    files: Vec<PathBuf>,
    /// The pinned root that vouches for the bundles; never taken from the bundle
    #[arg(long, value_name = "FILE", help_heading = REGISTRY)]
    root: PathBuf,
    /// The registry to load into
    #[arg(long, value_name = "HOST[:PORT][/PREFIX]", help_heading = REGISTRY)]
    registry: Prefix,
    #[command(flatten)]
    connect: ConnectArgs,
    /// Push blobs in chunks of this many bytes, for a proxy that limits the size of a request
    #[arg(long, value_name = "BYTES", help_heading = REGISTRY)]
    chunk_size: Option<NonZeroUsize>,
    /// The folder that remembers which versions were seen, so that no older one is accepted; receipts are in it, too
    #[arg(long, value_name = "DIR", default_value = "gapscan-state", help_heading = REGISTRY)]
    state: PathBuf,
    /// Compare the state with this ledger first: whoever removes the state, or puts back an older copy of it, is noticed
    #[arg(long, value_name = "FILE", help_heading = REGISTRY)]
    ledger: Option<PathBuf>,
    /// Where the state knows less than the ledger, go by the ledger
    #[arg(long, requires = "ledger", help_heading = REGISTRY)]
    state_from_ledger: bool,
    /// Blobs, manifests or tags that may be under way at the same time
    #[arg(long, value_name = "N", default_value = "3")]
    jobs: NonZeroUsize,
    /// Read back what the registry has stored before any tag moves: all manifests and some of the blobs that were sent, or
    /// everything, what was there before and what the archive holds for it included
    #[arg(long, value_name = "HOW MUCH", default_value = "sample")]
    read_back: HowMuch,
    /// Verify the bundle and say what a load would do, without writing anything anywhere
    #[arg(long, conflicts_with = "receipt")]
    dry_run: bool,
    /// How to print what --dry-run found
    #[arg(short, long, value_name = "FORMAT", default_value = "table", requires = "dry_run")]
    output: Format,
    /// Write the receipt here as well; only for one bundle
    #[arg(long, value_name = "FILE")]
    receipt: Option<PathBuf>,
    /// Never ask for a part that is missing, even at a terminal
    #[arg(long)]
    no_input: bool,
    /// Show no progress on stderr
    #[arg(short, long)]
    quiet: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum HowMuch {
    // Documented at the argument, as the formats of lists are.
    Sample,
    All,
}

impl Args {
    pub(super) async fn run(self) -> Outcome {
        let sources = source::of(&self.files)?;
        if self.receipt.is_some() && sources.len() > 1 {
            return Err(Failure::usage("write the receipts of several bundles to one file"));
        }
        let limits = Limits::default();
        let root = TrustRoot::read(&self.root)?;
        let access = RegistryAccess { chunk_bytes: self.chunk_size, ..self.connect.access() };
        let client = registries::client(&self.registry.registry, &access, &limits)?;
        let remembered = self.remembered()?;
        let sessions = Sessions::in_folder(self.state.join("uploads"));
        let progress = if self.quiet { Progress::quiet() } else { Progress::stderr() };
        progress.say(format!("root {}, spoken {}", root.fingerprint(), crate::trust::spoken(&root.fingerprint())));
        // Before a long stream begins, whether there is anybody to send it to.
        client.ping().await?;
        for source in &sources {
            let load = Load {
                client: &client,
                prefix: &self.registry,
                root: &root,
                remembered: &remembered,
                limits: &limits,
                now: Timestamp::now(),
                jobs: self.jobs,
                progress: &progress,
                sessions: Some(&sessions),
                read_back: match self.read_back {
                    HowMuch::Sample => ReadBack::Sample,
                    HowMuch::All => ReadBack::All,
                },
            };
            let shown = source.shown();
            if self.dry_run {
                let found =
                    rehearse(&load, source).await.map_err(|error| failure(error, &shown, "rehearse the load of"))?;
                report::rehearsal(&found, self.output)?;
                continue;
            }
            let terminal = if self.no_input { None } else { Terminal::new(&progress) };
            let loaded = run(&load, source, terminal).await.map_err(|error| failure(error, &shown, "load"))?;
            progress.say(report::summary(&loaded, &self.registry));
            self.leave_receipt(&loaded, source, &progress)?;
        }
        Ok(ExitClass::Success)
    }

    fn remembered(&self) -> Outcome<Remembered> {
        let Some(ledger) = &self.ledger else { return Ok(Remembered::in_folder(&self.state)) };
        let on_loss = if self.state_from_ledger { OnLoss::Adopt } else { OnLoss::Refuse };
        Ok(seen::remembered(&self.state, &LedgerReader::open(ledger)?, on_loss)?)
    }

    fn leave_receipt(&self, loaded: &LoadedBundle, source: &Source, progress: &Progress) -> Outcome<()> {
        let bundle = loaded.bundle();
        let receipt = LoadReceipt {
            api_version: ApiVersion::V1,
            kind: RECEIPT_KIND.to_owned(),
            bundle: bundle.bundle().clone(),
            base: bundle.base().map(|base| base.content),
            registry: self.registry.to_string(),
            started: loaded.started(),
            finished: Timestamp::now(),
            by: runner(),
            sources: source.names(),
            read_back: match self.read_back {
                HowMuch::Sample => ReadBack::Sample,
                HowMuch::All => ReadBack::All,
            },
            items: loaded.items().to_vec(),
            blobs: loaded.blobs().to_vec(),
            tags: loaded.tags().to_vec(),
        };
        let key = self.state.join(RUNNER_PUBLIC_KEY);
        let new = !key.exists();
        let path = write_receipt(&receipt, &self.state, self.receipt.as_deref())?;
        progress.say(format!("receipt: {}", path.display()));
        if new {
            progress.say(format!("receipts are verified with the runner's public key: {}", key.display()));
        }
        Ok(())
    }
}

/// Loads from wherever the bundle is. Where parts are missing or damaged and somebody is there to ask, it is repeated with
/// what they bring.
async fn run(load: &Load<'_>, source: &Source, terminal: Option<Terminal>) -> Result<LoadedBundle, LoadError> {
    match source {
        Source::Stdin => load.run_stream(piped(io::stdin())).await,
        Source::File(path) => match open(path).await? {
            Opened::File(file) => load.run_file(Arc::new(file)).await,
            Opened::Stream(stream) => load.run_stream(stream).await,
        },
        Source::Parts(media) => {
            let mut media = media.clone();
            loop {
                let result = load.run_parts(&media, terminal.clone()).await;
                match (result, &terminal) {
                    (Err(LoadError::Incomplete(trouble)), Some(terminal)) => {
                        if !terminal.bring(&trouble, &mut media).await {
                            return Err(LoadError::Incomplete(trouble));
                        }
                    }
                    (result, _) => return result,
                }
            }
        }
    }
}

async fn rehearse(load: &Load<'_>, source: &Source) -> Result<Rehearsal, LoadError> {
    match source {
        Source::Stdin => load.rehearse(piped(io::stdin())).await,
        Source::File(path) => match open(path).await? {
            Opened::File(file) => load.rehearse_file(Arc::new(file)).await,
            Opened::Stream(stream) => load.rehearse(stream).await,
        },
        Source::Parts(media) => load.rehearse_parts(media).await,
    }
}

enum Opened {
    File(OneFile),
    /// A named pipe, or a device.
    Stream(tokio::io::BufReader<tokio::fs::File>),
}

async fn open(path: &Path) -> Result<Opened, FileError> {
    let failed = |source| FileError::Read { path: path.to_owned(), source };
    let opened = source::open_file(path).await.map_err(failed)?.into_std().await;
    match opened.metadata().map_err(failed)?.is_file() {
        true => Ok(Opened::File(OneFile::new(opened).map_err(failed)?)),
        false => {
            let opened = tokio::fs::File::from_std(opened);
            Ok(Opened::Stream(tokio::io::BufReader::with_capacity(READ_BYTES, opened)))
        }
    }
}

/// The failure of a load, after the list of what is missing where there is one.
fn failure(error: LoadError, shown: &str, doing: &str) -> Failure {
    if let LoadError::Incomplete(incomplete) = &error {
        for line in incomplete.lines() {
            eprintln!("{}", crate::base::text::printable(&line));
        }
    }
    Failure::from(error).during(format!("{doing} {shown}"))
}
