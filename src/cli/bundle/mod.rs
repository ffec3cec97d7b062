//! `gapscan bundle`: define, lock, build, verify and look at bundles.

mod build;
mod diff;
mod inspect;
mod lock;
mod mapping;
mod new;
mod receipt;
mod sign;
mod verify;

use std::path::{Path, PathBuf};

use jiff::Timestamp;
use tokio::io::AsyncRead;

use crate::base::exit::{ExitClass, Failure, Outcome};
use crate::base::file::FileError;
use crate::base::limits::Limits;
use crate::base::progress::Progress;
use crate::base::quantity::bytes_for_people;
use crate::bundle::BundleError;
use crate::bundle::reader::{BundleReader, VerifiedBundle};
use crate::bundle::survey::Survey;
use crate::trust::remembered::Remembered;
use crate::trust::root::TrustRoot;

/// What is read from a bundle's file at once.
const READ_BYTES: usize = 1 << 20;

/// Define, lock, build, sign, verify, look at and compare bundles
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    New(new::NewArgs),
    Lock(lock::LockArgs),
    Build(build::BuildArgs),
    Sign(sign::SignArgs),
    Verify(verify::VerifyArgs),
    Inspect(inspect::InspectArgs),
    Mapping(mapping::MappingArgs),
    Receipt(receipt::ReceiptArgs),
    Diff(diff::DiffArgs),
}

#[derive(Debug, clap::Args)]
struct SourceArgs {
    /// The definition; its lock is bundle.lock beside it
    #[arg(short = 'f', long = "file", value_name = "FILE", default_value = "bundle.yaml")]
    definition: PathBuf,
    /// The static binary of gapscan that becomes its image [default: this program]
    #[arg(long, value_name = "FILE")]
    agent: Option<PathBuf>,
    /// Show no progress on stderr
    #[arg(short, long)]
    quiet: bool,
}

#[derive(Debug, clap::Args)]
struct ReadArgs {
    /// The bundle; `-` for standard input
    #[arg(value_name = "FILE|-")]
    file: PathBuf,
    /// The pinned root that vouches for the bundle; never taken from the bundle
    #[arg(long, value_name = "FILE")]
    root: PathBuf,
}

impl Args {
    pub(super) async fn run(self, now: Timestamp) -> Outcome {
        match self.command {
            Command::New(args) => args.run(),
            Command::Lock(args) => args.run(now).await,
            Command::Build(args) => args.run().await,
            Command::Sign(args) => args.run(now).await,
            Command::Verify(args) => args.run(now).await,
            Command::Inspect(args) => args.run(now).await,
            Command::Mapping(args) => args.run(now).await,
            Command::Receipt(args) => args.run(),
            Command::Diff(args) => args.run(now).await,
        }
    }
}

impl SourceArgs {
    fn agent(&self) -> Result<PathBuf, Failure> {
        match &self.agent {
            Some(path) => Ok(path.clone()),
            None => std::env::current_exe()
                .map_err(|e| Failure::new(ExitClass::Unreachable, format!("find this program's own file: {e}"))),
        }
    }

    fn progress(&self) -> Progress {
        if self.quiet { Progress::quiet() } else { Progress::stderr() }
    }
}

impl ReadArgs {
    /// Verifies the whole bundle.
    async fn verify(
        &self,
        remembered: &Remembered,
        progress: &Progress,
        now: Timestamp,
    ) -> Result<VerifiedBundle, Failure> {
        let root = TrustRoot::read(&self.root)?;
        let input = open(&self.file).await?;
        let verified = self.verify_by(&root, input, remembered, progress, now).await;
        verified.map_err(|error| Failure::from(error).during(format!("verify {}", shown(&self.file))))
    }

    async fn verify_by(
        &self,
        root: &TrustRoot,
        input: Box<dyn AsyncRead + Send + Unpin>,
        remembered: &Remembered,
        progress: &Progress,
        now: Timestamp,
    ) -> Result<VerifiedBundle, BundleError> {
        let mut reader = BundleReader::open(input, root, remembered, &Limits::default(), now).await?;
        let (_, total) = reader.blob_totals();
        let step = progress.bytes(format!("verify {}", self.file.display()), total);
        while let Some(blob) = reader.next_blob().await? {
            let size = blob.descriptor().size;
            blob.skip().await?;
            step.advance(size);
        }
        let verified = reader.finish().await?;
        step.done(bytes_for_people(verified.bytes()));
        Ok(verified)
    }
}

/// Verifies the whole bundle and gathers what is in it.
async fn survey(file: &Path, root: &Path, now: Timestamp) -> Result<Survey, Failure> {
    let root = TrustRoot::read(root)?;
    let input = open(file).await?;
    let surveyed = async {
        let reader = BundleReader::open(input, &root, &Remembered::nothing(), &Limits::default(), now).await?;
        Survey::of(reader, |_| {}).await
    };
    surveyed.await.map_err(|error: BundleError| Failure::from(error).during(format!("verify {}", shown(file))))
}

/// A bundle in messages.
pub(super) fn shown(path: &Path) -> String {
    if path == Path::new("-") { "the bundle on standard input".to_owned() } else { format!("`{}`", path.display()) }
}

/// A bundle's bytes, from a file or standard input.
async fn open(path: &Path) -> Result<Box<dyn AsyncRead + Send + Unpin>, Failure> {
    if path == Path::new("-") {
        return Ok(Box::new(tokio::io::stdin()));
    }
    let failed = |source| FileError::Read { path: path.to_owned(), source };
    let mut file = open_file(path).await.map_err(failed)?;
    file.set_max_buf_size(READ_BYTES);
    Ok(Box::new(file))
}

/// Opens what may be a bundle. A folder can be opened too, and only reading it would fail.
pub(super) async fn open_file(path: &Path) -> std::io::Result<tokio::fs::File> {
    let file = tokio::fs::File::open(path).await?;
    match file.metadata().await?.is_dir() {
        true => Err(std::io::Error::new(std::io::ErrorKind::IsADirectory, "it is a folder, and a bundle is one file")),
        false => Ok(file),
    }
}
