//! `gapscan bundle diff`

use std::path::{Path, PathBuf};

use jiff::Timestamp;

use super::read::survey;
use crate::base::exit::{ExitClass, Failure, Outcome};
use crate::base::text::printable;
use crate::bundle::difference::{Comparison, compare};
use crate::cli::source::one;
use crate::cli::table::{self, Format};
use crate::model::provenance::BundleRef;

/// Verify two bundles and say what changed, in words to be approved
///
/// Ends with 0 when they differ in nothing but version and times, with 1 when anything else changed.
#[derive(Debug, clap::Args)]
pub(super) struct DiffArgs {
    /// The bundle before; `-` for standard input. Of one in parts, the folder that has them, or one that lies with the others
    #[arg(value_name = "BEFORE|-")]
    before: PathBuf,
    /// The bundle after, in the same ways
    #[arg(value_name = "AFTER|-")]
    after: PathBuf,
    /// The pinned root that vouches for both; never taken from a bundle
    #[arg(long, value_name = "FILE")]
    root: PathBuf,
    /// How to print it
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    output: Format,
}

impl DiffArgs {
    pub(super) async fn run(self, now: Timestamp) -> Outcome {
        if [&self.before, &self.after].iter().all(|file| *file == Path::new("-")) {
            return Err(Failure::usage("read two bundles from standard input: only one can come from there"));
        }
        // Nothing is said before both were verified to their last byte.
        let before = survey(&one(&[self.before])?, &self.root, now).await?;
        let after = survey(&one(&[self.after])?, &self.root, now).await?;
        let compared = compare(&before, &after);
        match self.output {
            Format::Json => table::emit_json(&compared)?,
            Format::Table => table::emit(&words(&compared))?,
        }
        Ok(if compared.same { ExitClass::Success } else { ExitClass::ThresholdNotMet })
    }
}

fn words(compared: &Comparison) -> String {
    let named =
        |bundle: &BundleRef| format!("{} version {}, {}", printable(&bundle.name), bundle.version, bundle.digest);
    let mut text = format!("before  {}\nafter   {}\n", named(&compared.before), named(&compared.after));
    if compared.same {
        text += "Nothing but version and times is different.\n";
    }
    let mut section = "";
    for change in &compared.changes {
        if change.section != section {
            section = change.section;
            text += &format!("\n{}\n", section.to_uppercase());
        }
        text += &table::paragraph(2, &change.words);
    }
    text
}
