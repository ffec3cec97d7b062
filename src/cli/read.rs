//! `gapscan read`: what a scanner's result file says.

use std::path::{Path, PathBuf};

use clap::Args as Arguments;
use clap::builder::PossibleValuesParser;

use super::table::{self, Format, Table, count};
use crate::base::exit::{ExitClass, Failure, Outcome};
use crate::base::limits::Limits;
use crate::base::text::printable;
use crate::model::outcome::{Outcome as Verdict, Status};
use crate::model::scanner::ResultFormat;
use crate::stage::read::{FileSummary, ResultSource, read_result};

/// How many things that were not evaluated a table lists.
const LISTED: usize = 100;

/// Say what scanners' result files say, without a ledger
///
/// What is in a file tells its format. The exit code is 3 when anything was not evaluated or a file is no whole result, and 0
/// otherwise: reading is no gate, and what failed does not change it.
#[derive(Debug, Arguments)]
pub(super) struct Args {
    /// The files, `-` for the standard input
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// The format of the files, where it does not show
    #[arg(long, value_name = "FORMAT", value_parser = PossibleValuesParser::new(ResultFormat::ALL.iter().map(|format| format.name())))]
    format: Option<String>,
    /// How many findings and components the JSON lists; all are counted
    #[arg(long, value_name = "NUMBER", default_value_t = 1000)]
    list: usize,
    /// How to print it; as JSON each file is a document of its own
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    output: Format,
}

impl Args {
    /// Prints what each file says. What is wrong with one does not keep the others from being read.
    pub(super) fn run(self) -> Outcome {
        if self.files.iter().filter(|file| file.as_path() == Path::new("-")).count() > 1 {
            return Err(Failure::usage("read two results from standard input: it has only one"));
        }
        let format =
            self.format.as_deref().and_then(|name| ResultFormat::ALL.iter().find(|f| f.name() == name)).copied();
        let listed = if self.output == Format::Json { self.list } else { 0 };
        let (limits, folder) = (Limits::default(), std::env::temp_dir());
        let mut class = ExitClass::Success;
        let mut failure: Option<Failure> = None;
        for (at, file) in self.files.into_iter().enumerate() {
            let source = if file.as_path() == Path::new("-") { ResultSource::Stdin } else { ResultSource::File(file) };
            match read_result(&source, format, listed, &folder, &limits) {
                Ok(summary) => {
                    if !summary.summary.not_evaluated.is_empty() {
                        class = ExitClass::NotEvaluated;
                    }
                    match self.output {
                        Format::Json => table::emit_json(&summary)?,
                        Format::Table => {
                            let gap = if at == 0 { "" } else { "\n" };
                            table::emit(&format!("{gap}{}", render(&summary)))?;
                        }
                    }
                }
                // The last one is printed by whoever gets it.
                Err(error) => {
                    if let Some(before) = failure.replace(error.into()) {
                        eprintln!("gapscan: failed to {before}");
                    }
                }
            }
        }
        failure.map_or(Ok(class), Err)
    }
}

fn render(file: &FileSummary) -> String {
    let summary = &file.summary;
    let mut text = format!("{}: {}, {}\n", printable(&file.file), summary.format.name(), count(summary.length, "byte"));
    let mut facts = Table::new(&["", ""]);
    let mut fact = |name: &str, value: String| facts.row([name.to_owned(), value]);
    fact("digest", summary.digest.to_string());
    let scanner = &summary.scanner;
    let name = scanner.name.as_deref().unwrap_or("it does not say which");
    fact("scanner", format!("{name} {}", scanner.version.as_deref().unwrap_or("(it does not say which version)")));
    if let Some(built) = scanner.database_built {
        fact("database", format!("built {}", table::when(built)));
    }
    for target in &summary.targets {
        fact("target", target.clone());
    }
    if summary.components > 0 {
        fact("components", summary.components.to_string());
    }
    if summary.suppressed > 0 {
        fact("left out", format!("{} by the scanner's rules", count(summary.suppressed, "finding")));
    }
    let severities: Vec<String> =
        summary.failed_by_severity.iter().rev().map(|(severity, number)| format!("{number} {severity}")).collect();
    if !severities.is_empty() {
        fact("failed", severities.join(", "));
    }
    // The first line has no titles.
    text += facts.render(2).split_once('\n').map_or("", |(_, rows)| rows);
    let mut counts = Table::new(&["", ">PASS", ">FAIL", ">NOT EVAL", ">WAIVED", ">N/A", ">ALL", ""]);
    const COLUMNS: [Status; 5] =
        [Status::Passed, Status::Failed, Status::NotEvaluated, Status::Waived, Status::NotApplicable];
    for (what, tally) in [("controls", summary.controls), ("findings", summary.findings)] {
        let numbers = COLUMNS.map(|status| tally.count(status)).into_iter().chain([tally.total()]);
        let numbers = numbers.map(|number| number.to_string());
        counts.row([what.to_owned()].into_iter().chain(numbers).chain([String::new()]));
    }
    text += &counts.render(2);
    let failed = summary.control_list.iter().filter(|control| control.outcome == Verdict::Failed);
    let mut table = Table::new(&["FAILED", "SEVERITY", "TITLE"]);
    let (mut rows, mut more) = (0, 0);
    for control in failed {
        if rows == LISTED {
            more += 1;
            continue;
        }
        rows += 1;
        let severity = control.severity.map_or_else(String::new, |severity| severity.to_string());
        table.row([control.id.clone(), severity, control.title.clone()]);
    }
    if rows > 0 {
        text += &format!("\n{}", table.render(2));
    }
    if more > 0 {
        text += &format!("  and {more} more; `-o json` has them all\n");
    }
    let mut table = Table::new(&["NOT EVALUATED", "REASON", "WHY"]);
    for one in summary.not_evaluated.iter().take(LISTED) {
        let what = one.control.clone().or_else(|| one.subject.clone()).unwrap_or_default();
        table.row([what, one.reason.to_string(), one.detail.clone()]);
    }
    if !summary.not_evaluated.is_empty() {
        text += &format!("\n{}", table.render(2));
    }
    if summary.not_evaluated.len() > LISTED {
        text += &format!("  and {} more; `-o json` has them all\n", summary.not_evaluated.len() - LISTED);
    }
    for (at, note) in summary.notes.iter().enumerate() {
        let gap = if at == 0 { "\n" } else { "" };
        text += &format!("{gap}{}", table::paragraph(2, &format!("note: {note}")));
    }
    text
}
