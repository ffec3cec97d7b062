//! `gapscan registry gc`.

use std::path::PathBuf;

use crate::base::exit::{ExitClass, Outcome};
use crate::base::limits::Limits;
use crate::base::quantity::{Span, bytes_for_people};
use crate::cli::table::{self, Format};
use crate::registry::serve::{CollectMode, CollectPolicy, Collected, collect};

/// Remove what nobody needs from the folder of a registry that is stopped
///
/// A registry that runs does this by itself: see `gapscan registry serve --gc-every`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The folder of the content
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Keep a blob that no manifest names for this long after a client last heard that it is there
    #[arg(long, value_name = "TIME", default_value = "24h")]
    gc_grace: Span,
    /// Remove a manifest without a tag this long after a client last heard of it. One that a kept index names, or that
    /// refers to a kept manifest, stays. Without this option, all stay
    #[arg(long, value_name = "TIME")]
    remove_untagged: Option<Span>,
    /// Remove nothing; say how much would be
    #[arg(long)]
    dry_run: bool,
    /// How to print it
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    output: Format,
}

impl Args {
    pub(super) fn run(self) -> Outcome {
        let policy =
            CollectPolicy { grace: self.gc_grace.duration(), untagged: self.remove_untagged.map(Span::duration) };
        let mode = if self.dry_run { CollectMode::Count } else { CollectMode::Remove };
        let collected = collect(&self.data, policy, mode, &Limits::default())?;
        match self.output {
            Format::Json => table::emit_json(&collected)?,
            Format::Table => table::emit(&render(&collected, mode))?,
        }
        Ok(if collected.skipped > 0 { ExitClass::Refused } else { ExitClass::Success })
    }
}

fn render(collected: &Collected, mode: CollectMode) -> String {
    let Collected { manifests, blobs, contents, bytes, skipped } = collected;
    let verb = match mode {
        CollectMode::Remove => "removed",
        CollectMode::Count => "would remove",
    };
    let mut text = format!(
        "{verb} {manifests} manifests and {blobs} blobs from their repositories, and {contents} contents that none has ({})\n",
        bytes_for_people(*bytes)
    );
    if *skipped > 0 {
        text += &format!("left {skipped} repositories alone: a manifest in them could not be understood\n");
    }
    text
}
