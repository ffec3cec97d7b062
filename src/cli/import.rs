//! `gapscan import`: a scanner's result file into the ledger, marked as imported.

use std::path::{Path, PathBuf};

use clap::Args as Arguments;
use clap::builder::PossibleValuesParser;
use jiff::Timestamp;
use serde::Serialize;

use super::access::LedgerPath;
use super::table::{self, COUNTS, Format, Table, counts};
use crate::base::exit::{Classify as _, ExitClass, Failure, Outcome};
use crate::base::file::read_capped;
use crate::base::limits::Limits;
use crate::ledger::Ledger;
use crate::model::coverage::Coverage;
use crate::model::outcome::Outcome as Verdict;
use crate::model::profile::ProfileRef;
use crate::model::provenance::Imported;
use crate::model::record::{RunId, TaskRecord};
use crate::model::scanner::ResultFormat;
use crate::model::target::TargetSpec;
use crate::stage::import::{ImportRequest, Known, expected, import};
use crate::stage::read::ResultSource;

/// How many controls that were not evaluated a table names.
const LISTED: usize = 10;
/// Bytes of the list of the system's users.
const ACCOUNTS: u64 = 4 << 20;

/// Record what scanners' result files say, marked as imported
///
/// Each file is a run of its own, and its bytes are kept. Without --profile its controls are those that it mentions itself:
/// nobody knows then what was expected, and every report says so. The exit code is 3 when anything was not evaluated or a file
/// is no whole result, and 0 otherwise, whatever failed. A file that was imported for its target before is refused with 2.
#[derive(Debug, Arguments)]
pub(super) struct Args {
    /// The files, `-` for the standard input
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    #[command(flatten)]
    ledger: LedgerPath,
    /// The format of the files, where it does not show
    #[arg(long, value_name = "FORMAT", value_parser = PossibleValuesParser::new(ResultFormat::ALL.iter().map(|format| format.name())))]
    format: Option<String>,
    /// What was scanned: host, cluster, node/NAME, image/REF or pod/NS/NAME/CONTAINER. Needed where a file does not name one
    /// target and its kind
    #[arg(long, value_name = "TARGET")]
    target: Option<TargetSpec>,
    /// What was expected: the folder of a profile, or the name of one that the ledger has results by
    #[arg(long, value_name = "DIR|NAME")]
    profile: Option<String>,
    /// When the scan was, where a file does not say, as 2026-03-01T10:00:00Z
    #[arg(long, value_name = "TIME")]
    at: Option<Timestamp>,
    /// Record a file once more that was imported for its target before
    #[arg(long)]
    again: bool,
    /// How to print what was recorded; as JSON each file is a document of its own
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    output: Format,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct View<'r> {
    run: RunId,
    target: String,
    engine: &'r str,
    profile: &'r ProfileRef,
    coverage: Coverage,
    score: Option<u64>,
    imported: Option<&'r Imported>,
    notes: &'r [String],
}

impl Args {
    /// Imports each file. What is wrong with one does not keep the others from being imported.
    pub(super) fn run(self, now: Timestamp) -> Outcome {
        if self.files.iter().filter(|file| file.as_path() == Path::new("-")).count() > 1 {
            return Err(Failure::usage("import two results from standard input: it has only one"));
        }
        if self.at.is_some_and(|at| at > now) {
            return Err(Failure::usage("import a result of a time that is yet to come"));
        }
        let format =
            self.format.as_deref().and_then(|name| ResultFormat::ALL.iter().find(|f| f.name() == name)).copied();
        let limits = Limits::default();
        let mut ledger = Ledger::open(&self.ledger.path, now)?;
        let profile = match &self.profile {
            Some(name) => Some(expected(name, ledger.reader(), &limits)?),
            None => None,
        };
        let by = user();
        let mut class = ExitClass::Success;
        let mut failure: Option<Failure> = None;
        for (at, file) in self.files.into_iter().enumerate() {
            let source = if file.as_path() == Path::new("-") { ResultSource::Stdin } else { ResultSource::File(file) };
            let request = ImportRequest {
                source,
                format,
                target: self.target.clone(),
                profile: profile.clone(),
                at: self.at,
                known: if self.again { Known::Again } else { Known::Refuse },
            };
            match import(request, &by, &mut ledger, &limits, Timestamp::now()) {
                Ok(record) => {
                    if !record.coverage.is_complete() {
                        class = ExitClass::NotEvaluated;
                    }
                    match self.output {
                        Format::Json => table::emit_json(&view(&record))?,
                        Format::Table => {
                            let gap = if at == 0 { "" } else { "\n" };
                            table::emit(&format!("{gap}{}", render(&record)))?;
                        }
                    }
                }
                // Without the ledger nothing else can be recorded either.
                Err(error) if error.class() == ExitClass::Ledger => return Err(error.into()),
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

fn view(record: &TaskRecord) -> View<'_> {
    View {
        run: record.run,
        target: record.target.key(),
        engine: &record.provenance.engine.name,
        profile: &record.profile,
        coverage: record.coverage,
        score: record.coverage.score(),
        imported: record.provenance.imported.as_deref(),
        notes: &record.notes,
    }
}

fn render(record: &TaskRecord) -> String {
    let mut list = Table::new(&[&COUNTS[..], &["TARGET"]].concat());
    let words = [&record.profile.name, &record.profile.version].into_iter().filter(|word| !word.is_empty());
    let profile = words.map(String::as_str).collect::<Vec<_>>().join(" ");
    let by = format!("{profile} by {}", record.provenance.engine.name);
    let mut lines = vec![record.target.key(), by, format!("run {}", record.run)];
    let open = record.findings.iter().filter_map(|finding| match &finding.outcome {
        Verdict::NotEvaluated { reason, detail } => {
            let detail = detail.split_whitespace().collect::<Vec<_>>().join(" ");
            Some(format!("- {} not evaluated, {reason}: {detail}", finding.control))
        }
        Verdict::Passed | Verdict::Failed | Verdict::NotApplicable { .. } | Verdict::Waived { .. } => None,
    });
    let open: Vec<String> = open.collect();
    lines.extend(open.iter().take(LISTED).cloned());
    if open.len() > LISTED {
        lines.push(format!("- and {} more", table::count(open.len() - LISTED, "control")));
    }
    list.row(counts(&record.coverage).into_iter().chain([lines.join("\n")]));
    let mut text = list.render(0);
    for note in &record.notes {
        text += &table::paragraph(2, &format!("note: {note}"));
    }
    text
}

/// The user of the operating system, as the system knows it: nothing that the environment says.
fn user() -> String {
    let id = rustix::process::getuid().as_raw();
    let accounts = read_capped(Path::new("/etc/passwd"), ACCOUNTS).unwrap_or_default();
    match name_of(&String::from_utf8_lossy(&accounts), id) {
        Some(name) => format!("uid {id} ({name})"),
        None => format!("uid {id}"),
    }
}

/// The first name of this id in passwd(5).
fn name_of(accounts: &str, id: u32) -> Option<String> {
    accounts.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next().filter(|name| !name.is_empty())?;
        (fields.nth(1)?.parse() == Ok(id)).then(|| crate::base::text::brief(name))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_named_as_the_system_knows_it() {
        let accounts = "+\nroot:x:0:0:root:/root:/bin/sh\nops:x:1000:1000::/:\ntoor:x:0:0::/:\n";
        assert_eq!(name_of(accounts, 0).as_deref(), Some("root"));
        assert_eq!(name_of(accounts, 1000).as_deref(), Some("ops"));
        assert_eq!(name_of(accounts, 7), None);
    }
}
