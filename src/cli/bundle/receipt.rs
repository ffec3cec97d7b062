//! `gapscan bundle receipt`

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::base::exit::{ExitClass, Outcome};
use crate::base::limits::Limits;
use crate::base::quantity::bytes_for_people;
use crate::base::text::printable;
use crate::cli::table::{self, Format, Table, count};
use crate::model::receipt::{LoadReceipt, Outcome as Came, ReadBack};
use crate::stage::load::receipt::read_receipt;

/// Verify the receipt of a load and show what it says
#[derive(Debug, clap::Args)]
pub(super) struct ReceiptArgs {
    /// The receipt, as `load` left it in the folder of its state
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The public key of the runner that loaded the bundle, as it is beside its receipts in runner.pub
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// How to print it
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    output: Format,
}

impl ReceiptArgs {
    pub(super) fn run(self) -> Outcome {
        let receipt = read_receipt(&self.file, &self.key, &Limits::default())?;
        match self.output {
            Format::Json => table::emit_json(&receipt)?,
            Format::Table => table::emit(&shown(&receipt))?,
        }
        Ok(ExitClass::Success)
    }
}

fn shown(receipt: &LoadReceipt) -> String {
    let mut lines = Vec::new();
    let mut line = |label: &str, text: String| lines.push(format!("{label:<10}{}", printable(&text)));
    let bundle = &receipt.bundle;
    line("bundle", format!("{} version {}", bundle.name, bundle.version));
    line("content", bundle.digest.to_string());
    if let Some(base) = receipt.base {
        line("base", base.to_string());
    }
    line("root", bundle.root.to_string());
    line("registry", receipt.registry.clone());
    line("from", receipt.sources.join(", "));
    line("loaded", format!("{} to {}", receipt.started, receipt.finished));
    let by = &receipt.by;
    line("by", format!("{} on {} with gapscan {}", by.user, by.host, by.gapscan));
    let mut came: BTreeMap<Came, (u64, u64)> = BTreeMap::new();
    for blob in &receipt.blobs {
        for outcome in blob.repositories.values() {
            let (number, bytes) = came.entry(*outcome).or_default();
            *number += 1;
            *bytes += blob.size;
        }
    }
    for (outcome, (number, bytes)) in came {
        line(word(outcome), format!("{} ({})", count(number, "blob"), bytes_for_people(bytes)));
    }
    let read: Vec<u64> = receipt.blobs.iter().filter(|blob| blob.read_back).map(|blob| blob.size).collect();
    let how = match receipt.read_back {
        ReadBack::Sample => "a sample",
        ReadBack::All => "everything",
    };
    let total = bytes_for_people(read.iter().sum());
    line("read back", format!("{how}: {} ({total}) and the manifests", count(read.len() as u64, "blob")));
    let mut table = Table::new(&["ITEM", "CAME", "DIGEST"]);
    for item in &receipt.items {
        table.row([item.repository.clone(), word(item.outcome).to_owned(), item.digest.to_string()]);
    }
    format!("{}\n\n{}", lines.join("\n"), table.render(0))
}

fn word(outcome: Came) -> &'static str {
    match outcome {
        Came::Present => "present",
        Came::Pushed => "pushed",
        Came::Mounted => "mounted",
        Came::Copied => "copied",
    }
}
