//! `gapscan scanner`: definitions of scanners, before they are in a bundle.

use std::path::{Path, PathBuf};

use clap::{Args as Arguments, Subcommand, ValueEnum};
use serde::Serialize;

use super::access::{DEFAULT_LEDGER, ReachArgs};
use super::bundle::read::survey;
use super::egress::granted;
use super::table::{self, Format, Table, count};
use super::{signal, source};
use crate::base::document::{self, DocumentError};
use crate::base::exit::{ExitClass, Failure, Outcome};
use crate::base::limits::Limits;
use crate::base::progress::Progress;
use crate::base::text::printable;
use crate::bundle::scanner;
use crate::cluster::job::preview;
use crate::model::access::Way;
use crate::model::finding::Finding;
use crate::model::outcome::{Outcome as Verdict, Status};
use crate::model::profile_document::ProfileDocument;
use crate::model::provenance::Provenance;
use crate::model::scanner::{EgressGrant, ScannerDocument};
use crate::model::target::TargetSpec;
use crate::registry::Reference;
use crate::stage::plan::{Policy, Selection, TargetPrograms};
use crate::stage::read::ResultSource;
use crate::stage::trial::{self, LiveRequest, LiveTrial, Trial, TrialRequest, live};

/// How many controls a table lists.
const LISTED: usize = 100;

/// Look at definitions of scanners, and try them without a cluster
#[derive(Debug, Arguments)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    List(List),
    Test(Box<Test>),
}

impl Args {
    pub(super) async fn run(self) -> Outcome {
        match self.command {
            Command::List(list) => list.run().await,
            Command::Test(test) => test.run().await,
        }
    }
}

/// List the scanners that a bundle or a folder defines
///
/// All that is wrong with a definition is told, with line and column; the exit code is 2 then.
#[derive(Debug, Arguments)]
struct List {
    /// Definitions, folders with definitions, or, with --root, a bundle
    #[arg(value_name = "FILE|FOLDER", default_value = "bundle/scanners")]
    paths: Vec<PathBuf>,
    /// The pinned root that vouches for the bundle
    #[arg(long, value_name = "FILE")]
    root: Option<PathBuf>,
    /// How to print it
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    output: Format,
}

/// What is said of a definition.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Listed {
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<PathBuf>,
    name: String,
    title: String,
    image: String,
    approaches: Vec<&'static str>,
    format: &'static str,
    dependencies: Vec<String>,
    takes_profile: bool,
    takes_inputs: bool,
}

impl Listed {
    fn of(scanner: &ScannerDocument, file: Option<&Path>) -> Self {
        let offered = scanner.approaches.offered();
        Self {
            file: file.map(Path::to_owned),
            name: scanner.name.clone(),
            title: scanner.title.clone(),
            image: scanner.image.clone(),
            approaches: offered.iter().map(|approach| approach.field).collect(),
            format: scanner.result.format.name(),
            dependencies: scanner.dependencies.iter().map(|dependency| dependency.name.clone()).collect(),
            takes_profile: scanner.profile_mount.is_some(),
            takes_inputs: offered.iter().any(|approach| approach.wants_inputs()),
        }
    }

    fn needs(&self) -> String {
        let mut needs: Vec<&str> = self.dependencies.iter().map(String::as_str).collect();
        needs.extend(self.takes_profile.then_some("the profile's folder"));
        needs.extend(self.takes_inputs.then_some("inputs"));
        needs.join(", ")
    }
}

impl List {
    async fn run(self) -> Outcome {
        let (listed, wrong) = match &self.root {
            Some(root) => {
                let survey = survey(&source::one(&self.paths)?, root, jiff::Timestamp::now()).await?;
                let scanners = survey.verified.catalog().scanners.iter();
                (scanners.map(|scanner| Listed::of(scanner, None)).collect(), 0)
            }
            None => self.definitions()?,
        };
        match self.output {
            Format::Json => table::emit_json(&listed)?,
            Format::Table => {
                let mut rows = Table::new(&["SCANNER", "IMAGE", "FORMAT", "APPROACHES", "NEEDS", "TITLE"]);
                for one in &listed {
                    let needs = one.needs();
                    rows.row([
                        one.name.clone(),
                        one.image.clone(),
                        one.format.to_owned(),
                        one.approaches.join(" "),
                        needs,
                        one.title.clone(),
                    ]);
                }
                table::emit(&rows.render(0))?;
            }
        }
        match wrong {
            0 => Ok(ExitClass::Success),
            wrong => Err(Failure::usage(format!("use {}", count(wrong, "definition")))),
        }
    }

    /// What the files and folders define, and how many of them can't be used.
    fn definitions(&self) -> Result<(Vec<Listed>, usize), Failure> {
        let (mut listed, mut wrong) = (Vec::new(), 0);
        for path in &self.paths {
            let folder = path.is_dir();
            let files = if folder { yaml_files(path)? } else { vec![path.clone()] };
            for file in files {
                match read(&file) {
                    Ok(scanner) => listed.push(Listed::of(&scanner, Some(&file))),
                    // A folder may hold other documents too.
                    Err(DocumentError::Kind { .. }) if folder => {}
                    Err(error) => {
                        wrong += 1;
                        tell(&error);
                    }
                }
            }
        }
        Ok((listed, wrong))
    }
}

/// The YAML files of a folder, by name.
fn yaml_files(folder: &Path) -> Result<Vec<PathBuf>, Failure> {
    let failed = |error: std::io::Error| {
        Failure::new(ExitClass::Unreachable, format!("read folder `{}`: {error}", folder.display()))
    };
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.extension().is_some_and(|end| end == "yaml" || end == "yml") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn read(path: &Path) -> Result<ScannerDocument, DocumentError> {
    scanner::read(path, &document::text(path, &Limits::default())?)
}

/// Tells of a definition that can't be used, one problem a line.
fn tell(error: &DocumentError) {
    match error {
        DocumentError::Problems { path, problems } => {
            for problem in problems {
                eprintln!("{}", printable(&format!("{}: {problem}", path.display())));
            }
        }
        other => eprintln!("gapscan: failed to {}", printable(&other.to_string())),
    }
}

/// Try a definition: what a result would be recorded as, what would be run, and what a scan of a target would record
///
/// Without a profile, the controls are those that the result itself names. The controls that gapscan judges itself, in the
/// cluster, are left out. With --target it scans, as `gapscan scan` would by all profiles of the bundle that name the scanner, with
/// this definition instead of the bundle's; nothing gets into a ledger, and all that was made in the cluster is removed. The exit
/// code is 3 where something would not be evaluated, or something is left.
#[derive(Debug, Arguments)]
struct Test {
    /// The definition
    definition: PathBuf,
    /// A result that the scanner left, `-` for the standard input
    #[arg(long, value_name = "FILE")]
    result: Option<PathBuf>,
    /// The exit code that the scanner ended with
    #[arg(long, value_name = "NUMBER", default_value_t = 0, requires = "result")]
    exit_code: u8,
    /// The folder of the profile that says what is expected
    #[arg(long, value_name = "FOLDER")]
    profile: Option<PathBuf>,
    /// Show what would be run, for each approach
    #[arg(long, value_name = "WHAT")]
    show: Option<Show>,
    /// Scan this target by it, as image/REF, pod/NS/NAME[/CONTAINER], node/NAME or cluster; can be given several times
    #[arg(long, value_name = "TARGET", requires = "bundle", conflicts_with_all = ["result", "profile", "show"])]
    target: Vec<TargetSpec>,
    /// The ways in which a container may be reached, those that are tried first in front: exec, debug, sidecar, image
    #[arg(long, value_enum, value_name = "WAYS", value_delimiter = ',', help_heading = "Cluster", requires = "target",
          default_values_t = Policy::default().approaches)]
    approach: Vec<Way>,
    /// Whether a program that a container has itself may judge it, where the definition says so. No bundle has its digest
    #[arg(long, value_enum, value_name = "ACTION", help_heading = "Cluster", requires = "target",
          default_value_t = TargetPrograms::Refuse)]
    target_programs: TargetPrograms,
    /// A service that the scanner may talk to, as SCANNER/NAME=NAMESPACE/SERVICE:PORT, where NAME is what the definition calls it; can
    /// be given several times
    #[arg(long, value_name = "EGRESS", help_heading = "Cluster", requires = "target")]
    scanner_egress: Vec<EgressGrant>,
    #[command(flatten)]
    reach: ReachArgs,
    /// How to print it
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    output: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Show {
    /// The pods, as YAML
    Pod,
}

impl Test {
    async fn run(self) -> Outcome {
        let limits = Limits::default();
        let scanner = match read(&self.definition) {
            Ok(scanner) => scanner,
            Err(error @ DocumentError::Problems { .. }) => {
                tell(&error);
                return Err(Failure::usage(format!("use scanner `{}`", self.definition.display())));
            }
            Err(error) => return Err(error.into()),
        };
        if !self.target.is_empty() {
            return Box::pin(self.scan(scanner)).await;
        }
        if self.show == Some(Show::Pod) {
            self.show_pods(&scanner, &limits)?;
        }
        let Some(result) = &self.result else {
            if self.show.is_none() {
                table::emit(&format!("`{}` has no problem\n", scanner.name))?;
            }
            return Ok(ExitClass::Success);
        };
        let result = match result.as_path() == Path::new("-") {
            true => ResultSource::Stdin,
            false => ResultSource::File(result.clone()),
        };
        let folder = std::env::temp_dir();
        let request = TrialRequest {
            scanner: &scanner,
            result: &result,
            exit_code: self.exit_code,
            profile: self.profile.as_deref(),
            folder: &folder,
        };
        let trial = trial::attempt(&request, &limits)?;
        match self.output {
            Format::Json => table::emit_json(&trial)?,
            Format::Table => table::emit(&render(&trial))?,
        }
        let named = trial.coverage.expected();
        let evaluated = trial.refused.is_none() && named > 0 && trial.coverage.count(Status::NotEvaluated) == 0;
        Ok(if evaluated { ExitClass::Success } else { ExitClass::NotEvaluated })
    }

    /// Scans the targets, and tells what a scan would have recorded.
    async fn scan(self, scanner: ScannerDocument) -> Outcome {
        let of_image = |target: &TargetSpec| match target {
            TargetSpec::Image(reference) => reference.parse::<Reference>().ok().map(|r| r.registry.to_string()),
            _ => None,
        };
        let access = self.reach.access(DEFAULT_LEDGER.into(), self.target.iter().filter_map(of_image));
        let policy = Policy {
            approaches: self.approach,
            target_programs: self.target_programs,
            scanner_egress: granted(&self.scanner_egress)?,
            ..Policy::default()
        };
        let selection = Selection { targets: self.target, ..Selection::default() };
        let progress = Progress::stderr();
        let stop = signal::stop_on_signals(progress.clone())?;
        let trial = live(LiveRequest { scanner, selection, access, policy }, stop, &progress).await?;
        match self.output {
            Format::Json => table::emit_json(&trial)?,
            Format::Table => table::emit(&render_live(&trial))?,
        }
        let evaluated = trial.coverage.expected() > 0 && trial.coverage.is_complete();
        Ok(if evaluated && trial.left_nothing() { ExitClass::Success } else { ExitClass::NotEvaluated })
    }

    fn show_pods(&self, scanner: &ScannerDocument, limits: &Limits) -> Outcome<()> {
        let parameters = match &self.profile {
            Some(folder) => document::load::<ProfileDocument>(&folder.join("profile.yaml"), limits)?.parameters,
            None => Default::default(),
        };
        let shown = preview(scanner, &parameters)
            .map_err(|error| Failure::usage(format!("show what `{}` would run: {error}", scanner.name)))?;
        for one in shown {
            let yaml = document::to_kubernetes(&one.made)
                .map_err(|error| Failure::new(ExitClass::Bug, format!("write a pod as YAML: {error}")))?;
            table::emit(&format!("# {}\n---\n{yaml}", one.approach))?;
        }
        Ok(())
    }
}

fn render(trial: &Trial) -> String {
    let meaning = trial.meaning.map_or("which the definition does not know", |meaning| meaning.word());
    let expected = trial.profile.as_deref().unwrap_or("the controls that the result itself names");
    let version = if trial.version.is_empty() { "no version" } else { &trial.version };
    let mut text = printable(&format!(
        "{} ({version}), a result of format {}, exit code {}: {meaning}; expected: {expected}",
        trial.scanner,
        trial.format.name(),
        trial.exit_code,
    ))
    .into_owned();
    text.push('\n');
    if let Some(refused) = &trial.refused {
        let detail = format!("nothing of it would count ({}): {}", refused.reason, refused.detail);
        return text + &table::paragraph(0, &detail);
    }
    let mut counts = Table::new(&table::COUNTS);
    counts.row(table::counts(&trial.coverage));
    text += &counts.render(2);
    for (title, status) in [("FAILED", Status::Failed), ("NOT EVALUATED", Status::NotEvaluated)] {
        text += &listed(&trial.findings, title, status);
    }
    for note in &trial.notes {
        text += &table::paragraph(2, &format!("note: {note}"));
    }
    text
}

fn render_live(trial: &LiveTrial) -> String {
    let mut text = String::new();
    for task in &trial.tasks {
        let Provenance { engine, approach, identity, cleanup, .. } = &task.provenance;
        let version = if engine.version.is_empty() { "no version" } else { &engine.version };
        let key = task.target.key();
        let whose = identity.as_deref().unwrap_or("nobody");
        let head =
            format!("{key}: {} by {} ({version}), by {}, as {whose}", task.profile.name, engine.name, approach.word());
        text += &format!("{}\n", printable(&head));
        let mut counts = Table::new(&table::COUNTS);
        counts.row(table::counts(&task.coverage));
        text += &counts.render(2);
        for (title, status) in [("FAILED", Status::Failed), ("NOT EVALUATED", Status::NotEvaluated)] {
            text += &listed(&task.findings, title, status);
        }
        for evidence in &task.evidence {
            let line = format!("evidence: {}, {} bytes, {}", evidence.name, evidence.length, evidence.digest);
            text += &table::paragraph(2, &line);
        }
        for note in &task.notes {
            text += &table::paragraph(2, &format!("note: {note}"));
        }
        if let Some(cleanup) = cleanup {
            text += &table::paragraph(2, &format!("made, and to be gone: {}", cleanup.created.join(", ")));
            if !cleanup.remaining.is_empty() {
                text += &table::paragraph(2, &format!("not seen to be gone: {}", cleanup.remaining.join(", ")));
            }
        }
        text.push('\n');
    }
    for event in &trial.events {
        text += &table::paragraph(0, &format!("{}: {}", event.what, event.detail));
    }
    text
}

/// The controls that ended so, the first of many.
fn listed(findings: &[Finding], title: &'static str, status: Status) -> String {
    let of: Vec<&Finding> = findings.iter().filter(|finding| finding.outcome.status() == status).collect();
    if of.is_empty() {
        return String::new();
    }
    let mut rows = Table::new(&[title, "WHY"]);
    for finding in of.iter().take(LISTED) {
        let why = match &finding.outcome {
            Verdict::NotEvaluated { reason, detail } => format!("{reason}: {detail}"),
            _ => finding.details.first().map(|detail| detail.message.clone()).unwrap_or_default(),
        };
        rows.row([finding.control.clone(), why]);
    }
    let more = match of.len().saturating_sub(LISTED) {
        0 => String::new(),
        more => format!("  and {more} more; `-o json` has them all\n"),
    };
    format!("\n{}{more}", rows.render(2))
}
