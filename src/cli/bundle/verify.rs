//! `gapscan bundle verify`

use std::path::PathBuf;

use jiff::Timestamp;

use super::ReadArgs;
use crate::base::exit::{ExitClass, Outcome};
use crate::base::progress::Progress;
use crate::base::quantity::bytes_for_people;
use crate::trust::remembered::Remembered;

/// Verify a bundle to its last byte
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
        Ok(ExitClass::Success)
    }
}
