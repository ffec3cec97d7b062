//! `gapscan bundle verify`

use std::path::PathBuf;

use jiff::Timestamp;

use super::read::ReadArgs;
use crate::base::exit::{ExitClass, Outcome};
use crate::base::progress::Progress;
use crate::base::quantity::bytes_for_people;
use crate::cli::table::count;
use crate::trust::remembered::Remembered;

/// Verify a bundle to its last byte
///
/// Of a delta, the blobs that it leaves out can't be looked at: then it ends with code 3, for what was not verified is no
/// success. `load --dry-run` looks whether the registry has them.
#[derive(Debug, clap::Args)]
pub(super) struct VerifyArgs {
    #[command(flatten)]
    read: ReadArgs,
    /// The folder that remembers which versions were seen: refuse what is older, and remember this one
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    /// Show no progress on stderr
    #[arg(short, long)]
    quiet: bool,
}

impl VerifyArgs {
    pub(super) async fn run(self, now: Timestamp) -> Outcome {
        let remembered = match &self.state {
            Some(folder) => Remembered::in_folder(folder),
            None => Remembered::nothing(),
        };
        let progress = if self.quiet { Progress::quiet() } else { Progress::stderr() };
        let verified = self.read.verify(&remembered, &progress, now).await?;
        if self.state.is_some() {
            verified.remember()?;
        }
        let bundle = verified.bundle();
        println!("verified {} version {} ({})", bundle.name, bundle.version, bytes_for_people(verified.bytes()));
        println!("content  {}", bundle.digest);
        println!("root     {}", bundle.root);
        println!("spoken   {}", crate::trust::spoken(&bundle.root));
        println!("created  {}", verified.created());
        println!("expires  {}", verified.expires());
        let Some(base) = verified.base() else { return Ok(ExitClass::Success) };
        let left_out = verified.left_out();
        println!(
            "left out {} ({}), not verified: they are in the base {} version {}, content {}",
            count(left_out.len(), "blob"),
            bytes_for_people(left_out.iter().map(|entry| entry.size).sum()),
            base.bundle,
            base.version,
            base.content
        );
        Ok(if left_out.is_empty() { ExitClass::Success } else { ExitClass::NotEvaluated })
    }
}
