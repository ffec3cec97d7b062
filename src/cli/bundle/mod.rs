//! `gapscan bundle`: define, lock, build, verify and look at bundles.

mod build;
mod diff;
mod inspect;
mod lock;
mod mapping;
mod new;
pub(super) mod read;
mod receipt;
mod sign;
mod verify;

use std::path::PathBuf;

use jiff::Timestamp;

use crate::base::exit::{ExitClass, Failure, Outcome};
use crate::base::progress::Progress;

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
