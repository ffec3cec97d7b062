//! `gapscan export`: one report.

use std::io::Write;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use jiff::Timestamp;

use super::access::LedgerPath;
use crate::base::exit::{ExitClass, Failure, Outcome};
use crate::base::text::printable;
use crate::model::record::RunId;
use crate::model::target::TargetSpec;
use crate::report::contents::Selection;
use crate::stage::export::{self, ExportFormat, ExportRequest};

/// Write one report of what the ledger says
///
/// The ledger is verified first; when it is not intact the report says so and the exit code is 6. An export is no gate:
/// failed or unevaluated controls do not change its exit code.
#[derive(Debug, Args)]
pub(crate) struct Export {
    /// The format of the report
    #[arg(long, value_name = "FORMAT")]
    format: Format,
    /// Where to write it, `-` for the standard output. HDF has one file for each target and profile: several go into a new
    /// folder of this name
    #[arg(short, long, value_name = "PATH", default_value = "-")]
    output: PathBuf,
    #[command(flatten)]
    ledger: LedgerPath,
    /// Only the results of this run
    #[arg(long, value_name = "ID", conflicts_with = "latest")]
    run: Option<RunId>,
    /// The latest result of each target and profile (the default)
    #[arg(long)]
    latest: bool,
    /// Only these targets: host, cluster, image/REF, node/NAME, pod/NS/NAME[/CONTAINER], ns/NAME. Can be given several times
    #[arg(long = "target", value_name = "TARGET")]
    targets: Vec<TargetSpec>,
    /// The title of the report
    #[arg(long, value_name = "TEXT")]
    title: Option<String>,
    /// A classification marking, shown first and last and on each printed page, before those of the bundles that the results
    /// come from
    #[arg(long, value_name = "MARKING", env = "GAPSCAN_CLASSIFICATION")]
    classification: Option<String>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    /// Heimdall Data Format, for SAF CLI and Heimdall
    Hdf,
    /// JSON lines, for a SIEM
    Jsonl,
    /// One page for people, without scripts, for screen and print
    Html,
}

impl Export {
    pub(crate) fn run(self, now: Timestamp) -> Outcome {
        let format = match self.format {
            Format::Hdf => ExportFormat::Hdf,
            Format::Jsonl => ExportFormat::Jsonl,
            Format::Html => ExportFormat::Html,
        };
        let request = ExportRequest {
            ledger: self.ledger.path,
            selection: self.run.map_or(Selection::Latest, Selection::Run),
            targets: self.targets,
            title: self.title,
            classification: self.classification,
        };
        let report = export::collect(&request, now)?;
        let rendered = export::render(&report, format);
        if self.output == Path::new("-") {
            let bytes = rendered.into_bytes()?;
            let mut stdout = std::io::stdout().lock();
            stdout.write_all(&bytes).and_then(|()| stdout.flush()).map_err(|error| {
                Failure::new(ExitClass::Unreachable, format!("write to the standard output: {error}"))
            })?;
        } else {
            rendered.write(&self.output)?;
            let path = self.output.display().to_string();
            eprintln!("wrote {}: {}", printable(&path), export::summary(&report.coverage()));
        }
        let owed = report.unrecorded().count();
        if owed > 0 {
            let owed = super::table::count(owed, "task");
            eprintln!("gapscan: {owed} of unfinished runs without a result; the report lists what is missing");
        }
        match report.ledger.state.problem() {
            None => Ok(ExitClass::Success),
            Some(problem) => {
                let first = problem.lines().next().unwrap_or_default();
                eprintln!("gapscan: the ledger is not intact, and the report says so: {}", printable(first));
                Ok(ExitClass::Ledger)
            }
        }
    }
}
