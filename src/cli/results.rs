//! `gapscan results`: what the ledger says now.

use std::collections::{HashMap, HashSet};

use clap::Args as Arguments;
use serde::Serialize;

use super::access::LedgerPath;
use super::agreement;
use super::table::{self, COUNTS, Format, Table, counts, lies_below, when};
use crate::base::digest::Digest;
use crate::base::exit::{ExitClass, Failure, Outcome};
use crate::ledger::LedgerReader;
use crate::model::agreement::{Comparison, approaches, replicas, workloads};
use crate::model::control::Severity;
use crate::model::coverage::Coverage;
use crate::model::finding::Finding;
use crate::model::outcome::{Outcome as Verdict, Status};
use crate::model::profile::Profile;
use crate::model::provenance::Provenance;
use crate::model::reason::Reason;
use crate::model::record::{ExpectedTask, RunId, RunStart, TaskRecord};
use crate::model::target::{Target, TargetKind};
use crate::model::waiver::{self, WaiverNotice, WaiverRef};

/// How many details of one finding a table shows.
const SHOWN: usize = 5;

/// So many controls that were not evaluated for the very same reason are told of together.
const TOGETHER: usize = 4;

/// Show the latest result of each target, and what in it needs attention
#[derive(Debug, Arguments)]
pub(super) struct Args {
    #[command(flatten)]
    ledger: LedgerPath,
    /// Only this target, or what lies below it: pod/NS/NAME, ns/NAME
    #[arg(long, value_name = "TARGET")]
    target: Option<String>,
    /// Only controls that ended so: failed, not-evaluated, waived, passed, not-applicable
    #[arg(long, value_name = "STATUS,...", value_delimiter = ',', value_parser = status,
        default_values = ["failed", "not-evaluated"])]
    status: Vec<Status>,
    /// Only controls of this severity: critical, high, medium, low, none
    #[arg(long, value_name = "SEVERITY,...", value_delimiter = ',', value_parser = severity)]
    severity: Vec<Severity>,
    /// The results of this run instead of the latest
    #[arg(long, value_name = "ID")]
    run: Option<RunId>,
    /// How to print it
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    output: Format,
}

fn status(word: &str) -> Result<Status, String> {
    let known = || Status::ALL.map(Status::code).join(", ");
    Status::ALL.into_iter().find(|s| s.code() == word).ok_or_else(|| format!("it is one of {}", known()))
}

fn severity(word: &str) -> Result<Severity, String> {
    let known = || Severity::WORST_FIRST.map(Severity::word).join(", ");
    Severity::WORST_FIRST.into_iter().find(|s| s.word() == word).ok_or_else(|| format!("it is one of {}", known()))
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Document<'r> {
    results: Vec<ResultView<'r>>,
    waivers: &'r [WaiverNotice],
    /// Replicas of one workload, and results of one target by several ways, side by side; each has its own verdicts above.
    compared: &'r [Comparison],
    unfinished_runs: Vec<Unfinished<'r>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ResultView<'r> {
    run: RunId,
    key: String,
    target: &'r Target,
    profile: &'r crate::model::profile::ProfileRef,
    coverage: Coverage,
    score: Option<u64>,
    provenance: &'r Provenance,
    #[serde(skip_serializing_if = "<[WaiverRef]>::is_empty")]
    waiver_documents: &'r [WaiverRef],
    notes: &'r [String],
    findings: Vec<FindingView<'r>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct FindingView<'r> {
    severity: Severity,
    title: &'r str,
    #[serde(flatten)]
    finding: &'r Finding,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Unfinished<'r> {
    run: RunId,
    started: jiff::Timestamp,
    missing: &'r [ExpectedTask],
}

impl Args {
    /// Prints the results. Succeeds when they could be read, whatever they are.
    pub(super) fn run(self) -> Outcome {
        let reader = LedgerReader::open(&self.ledger.path)?;
        let records = match self.run {
            None => reader.latest()?,
            Some(run) if reader.run(run)?.is_none() => {
                return Err(Failure::usage(format!("show run {run}: the ledger has no such run"))
                    .with_remedy("`gapscan history` lists the runs"));
            }
            Some(run) => reader.tasks_of(run)?,
        };
        let asked = |record: &TaskRecord| self.target.as_ref().is_none_or(|t| lies_below(&record.target.key(), t));
        let records: Vec<TaskRecord> = records.into_iter().filter(asked).collect();
        if let (Some(target), true) = (&self.target, records.is_empty()) {
            return Err(table::no_result(target));
        }
        let mut profiles: HashMap<Digest, Profile> = HashMap::new();
        for record in &records {
            let digest = record.profile.digest;
            if let Some(profile) = reader.profile(&digest)? {
                profiles.insert(digest, profile);
            }
        }
        let waivers = waiver::notices(&records, &reader.events()?, jiff::Timestamp::now());
        let compared = compared(&reader, &records)?;
        let unfinished = reader.unfinished_runs()?;
        let concerns = |run: RunId| self.run.is_none_or(|asked| asked == run);
        let unfinished: Vec<_> = unfinished.into_iter().filter(|(start, _)| concerns(start.run)).collect();
        let views: Vec<ResultView<'_>> =
            records.iter().map(|record| self.view(record, profiles.get(&record.profile.digest))).collect();
        match self.output {
            Format::Json => {
                let unfinished_runs = unfinished.iter().map(|(start, missing)| Unfinished {
                    run: start.run,
                    started: start.started,
                    missing,
                });
                table::emit_json(&Document {
                    results: views,
                    waivers: &waivers,
                    compared: &compared,
                    unfinished_runs: unfinished_runs.collect(),
                })?;
            }
            Format::Table => {
                if views.is_empty() {
                    eprintln!("no result");
                }
                table::emit(&(render(&views) + &waiver_lines(&waivers)))?;
                table::emit(&agreement::render(&compared))?;
                warn(&unfinished);
            }
        }
        Ok(ExitClass::Success)
    }

    fn view<'r>(&self, record: &'r TaskRecord, profile: Option<&'r Profile>) -> ResultView<'r> {
        let controls: HashMap<&str, (Severity, &str)> =
            profile.iter().flat_map(|p| &p.controls).map(|c| (&*c.id, (c.severity, &*c.title))).collect();
        let mut findings: Vec<FindingView<'r>> = record
            .findings
            .iter()
            .filter(|finding| self.status.contains(&finding.outcome.status()))
            .map(|finding| {
                let (severity, title) = controls.get(&*finding.control).copied().unwrap_or((Severity::Critical, ""));
                FindingView { severity, title, finding }
            })
            .filter(|view| self.severity.is_empty() || self.severity.contains(&view.severity))
            .collect();
        // The worst first; what is alike stays in the profile's order.
        findings.sort_by_key(|view| (std::cmp::Reverse(view.severity), view.finding.outcome.status()));
        ResultView {
            run: record.run,
            key: record.target.key(),
            target: &record.target,
            profile: &record.profile,
            coverage: record.coverage,
            score: record.coverage.score(),
            provenance: &record.provenance,
            waiver_documents: &record.waivers,
            notes: &record.notes,
            findings,
        }
    }
}

/// What of these results is compared with each other, and with earlier results that were come by in another way.
fn compared(reader: &LedgerReader, records: &[TaskRecord]) -> Outcome<Vec<Comparison>> {
    let mut runs: Vec<RunId> = records.iter().map(|record| record.run).collect();
    runs.sort_unstable();
    runs.dedup();
    let mut starts = Vec::with_capacity(runs.len());
    for run in runs {
        starts.extend(reader.run(run)?.map(|run| run.start));
    }
    let mut compared = replicas(records, &workloads(&starts));
    let mut earlier = Vec::new();
    // Only a container can be reached in several ways.
    for record in records.iter().filter(|record| record.target.kind() == TargetKind::Container) {
        earlier.extend(reader.in_other_ways(record)?);
    }
    compared.extend(approaches(records.iter().chain(&earlier)));
    Ok(compared)
}

fn render(views: &[ResultView<'_>]) -> String {
    if views.is_empty() {
        return String::new();
    }
    let mut summary = Table::new(&[&COUNTS[..], &["WHEN", "TARGET"]].concat());
    for view in views {
        let target = format!("{}\n{}", view.key, by(view));
        summary.row(counts(&view.coverage).into_iter().chain([when(view.provenance.finished), target]));
    }
    let mut text = summary.render(0);
    for view in views.iter().filter(|view| !(view.findings.is_empty() && view.notes.is_empty())) {
        text += &format!("\n{}\n", crate::base::text::printable(&format!("{}, {}", view.key, by(view))));
        let mut findings = Table::new(&["STATUS", "SEVERITY", "CONTROL"]);
        let alike = alike(&view.findings);
        let mut told = HashSet::new();
        for finding in &view.findings {
            let status = finding.finding.outcome.status().to_string();
            match why(finding).and_then(|why| Some((why, *alike.get(&why)?))) {
                Some((why, count)) if count >= TOGETHER => {
                    // The worst comes first, so that its severity is that of all of them.
                    if told.insert(why) {
                        let (reason, detail) = why;
                        let together = format!("{count} controls, for one reason\n{reason}: {}", line(detail));
                        findings.row([status, finding.severity.to_string(), together]);
                    }
                }
                _ => findings.row([status, finding.severity.to_string(), explain(finding)]),
            }
        }
        if !view.findings.is_empty() {
            text += &findings.render(2);
        }
        for note in view.notes {
            text += &table::paragraph(2, &format!("note: {note}"));
        }
    }
    text
}

/// What is to be known of waivers, a line each.
fn waiver_lines(notices: &[WaiverNotice]) -> String {
    if notices.is_empty() {
        return String::new();
    }
    let mut table = Table::new(&["WAIVERS", "WHAT"]);
    for notice in notices {
        table.row([notice.state.word().replace('-', " "), line(&notice.detail)]);
    }
    format!("\n{}", table.render(0))
}

/// Why this was not evaluated, where nothing more is to be said of it.
fn why<'v>(view: &FindingView<'v>) -> Option<(Reason, &'v str)> {
    match &view.finding.outcome {
        Verdict::NotEvaluated { reason, detail } if view.finding.details.is_empty() => Some((*reason, detail)),
        _ => None,
    }
}

/// How many findings were not evaluated for each reason.
fn alike<'v>(findings: &[FindingView<'v>]) -> HashMap<(Reason, &'v str), usize> {
    let mut counts = HashMap::new();
    for why in findings.iter().filter_map(why) {
        *counts.entry(why).or_default() += 1;
    }
    counts
}

/// The text on one line: line breaks would look like lines of the table.
fn line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn by(view: &ResultView<'_>) -> String {
    format!("{} {} by {}", view.profile.name, view.profile.version, view.provenance.engine.name)
}

/// The control, its title, the reason, and what was seen: one a line.
fn explain(view: &FindingView<'_>) -> String {
    let mut lines = vec![line(&view.finding.control)];
    if !view.title.is_empty() && view.title != view.finding.control {
        lines.push(line(view.title));
    }
    match &view.finding.outcome {
        Verdict::Passed | Verdict::Failed => {}
        Verdict::NotApplicable { reason } => lines.push(line(reason)),
        Verdict::Waived { id, justification, until, .. } => {
            let by = if id.is_empty() { String::new() } else { format!(" by {}", line(id)) };
            lines.push(format!("until {}{by}: {}", when(*until), line(justification)));
        }
        Verdict::NotEvaluated { reason, detail } if detail.is_empty() => lines.push(reason.to_string()),
        Verdict::NotEvaluated { reason, detail } => lines.push(format!("{reason}: {}", line(detail))),
    }
    for detail in view.finding.details.iter().take(SHOWN) {
        let (subject, message) = (line(&detail.subject), line(&detail.message));
        lines.push(match (subject.is_empty(), message.is_empty()) {
            // Some messages begin with what they are about.
            (true, _) => format!("- {message}"),
            (_, false) if message.starts_with(&subject) => format!("- {message}"),
            (_, true) => format!("- {subject}"),
            _ => format!("- {subject}: {message}"),
        });
    }
    let more = view.finding.details.len().saturating_sub(SHOWN) as u64 + view.finding.details_omitted;
    if more > 0 {
        lines.push(format!("- and {more} more"));
    }
    lines.join("\n")
}

/// Says on stderr which runs have no end, and how much of them is missing.
fn warn(unfinished: &[(RunStart, Vec<ExpectedTask>)]) {
    for (start, missing) in unfinished {
        let (run, begun, all) = (start.run, when(start.started), start.expected.len());
        eprintln!("run {run} of {begun} has no end: {} of its {all} tasks have no result", missing.len());
    }
}
