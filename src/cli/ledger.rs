//! `gapscan ledger`: the ledger itself.

use clap::{Args as Arguments, Subcommand};

use super::access::LedgerPath;
use super::table::{self, Format, Table, count};
use crate::base::exit::{ExitClass, Outcome};
use crate::ledger::{LedgerReader, VerifyReport};

/// Verify the ledger itself
#[derive(Debug, Arguments)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Check that nothing in the ledger was edited, removed, added or lost; exit code 6 if something was
    Verify(Verify),
}

#[derive(Debug, Arguments)]
struct Verify {
    #[command(flatten)]
    ledger: LedgerPath,
    /// How to print it
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    output: Format,
}

impl Args {
    /// Runs the subcommand.
    pub(super) fn run(self) -> Outcome {
        match self.command {
            Command::Verify(verify) => verify.run(),
        }
    }
}

impl Verify {
    /// Prints what was found. Ends as [`ExitClass::Ledger`] when something is wrong.
    fn run(self) -> Outcome {
        let report = LedgerReader::open(&self.ledger.path)?.verify()?;
        match self.output {
            Format::Json => table::emit_json(&report)?,
            Format::Table => table::emit(&render(&report))?,
        }
        Ok(if report.is_intact() { ExitClass::Success } else { ExitClass::Ledger })
    }
}

fn render(report: &VerifyReport) -> String {
    let mut text = String::new();
    let verdict = if report.is_intact() { "intact" } else { "NOT INTACT" };
    text += &match (report.ledger, &report.head) {
        (Some(ledger), Some(head)) => {
            format!("ledger {ledger}: {verdict}\nlast entry {}: {}\n", head.seq, head.digest)
        }
        _ => format!("ledger: {verdict}\n"),
    };
    text += &format!(
        "{}: {}, {}, {}; evidence: {}\n",
        if report.entries == 1 { "1 entry".to_owned() } else { format!("{} entries", report.entries) },
        count(report.runs, "run"),
        count(report.tasks, "result"),
        count(report.checkpoints, "signed checkpoint"),
        count(report.evidence, "piece"),
    );
    if report.after_head_file > 0 {
        text += &format!(
            "{} entries are newer than the head file: a writer is at work or was killed, or somebody else appended them\n",
            report.after_head_file
        );
    }
    for run in &report.unfinished {
        text += &format!("run {run} has no end\n");
    }
    if !report.problems.is_empty() {
        let mut problems = Table::new(&[">ENTRY", "WHERE", "WHAT"]);
        for problem in &report.problems {
            let entry = problem.entry.map_or("-".to_owned(), |entry| entry.to_string());
            problems.row([entry, problem.place.clone(), problem.what.clone()]);
        }
        text.push('\n');
        text += &problems.render(0);
    }
    if report.problems_omitted > 0 {
        text += &format!("and {} problems more\n", report.problems_omitted);
    }
    text
}
