//! From the ledger to a report: read, verified, rendered, written.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use crate::base::exit::{Classify, ExitClass};
use crate::base::file::{self, FileError};
use crate::ledger::{LedgerError, LedgerReader, VerifyReport};
use crate::model::coverage::Coverage;
use crate::model::record::{Event, ExpectedTask, RunId, TaskRecord};
use crate::model::target::{Target, TargetKind, TargetSpec};
use crate::report::contents::{LedgerRef, LedgerState, Report, ReportError, ReportRun, ReportTask, Scope, Selection};
use crate::report::{hdf, html, jsonl};

/// Reports name what is weak in a system: not for everybody on the machine.
const FILE_MODE: u32 = 0o640;
const FOLDER_MODE: u32 = 0o750;
/// How often reading starts again because a runner recorded something meanwhile, before a report is made of what there is.
const READS: usize = 8;

/// A run owes results and there is none yet: HDF, which has one file for each result, can't say that.
const NO_FILE: &str = "yet that this format can show";

/// What is asked for.
#[derive(Clone, Debug)]
pub struct ExportRequest {
    /// The ledger.
    pub ledger: PathBuf,
    /// Of which runs.
    pub selection: Selection,
    /// Of which targets; all where empty.
    pub targets: Vec<TargetSpec>,
    /// The report's title; a plain one where absent.
    pub title: Option<String>,
    /// A marking shown first and last, before those of the bundles that the results come from.
    pub classification: Option<String>,
}

/// The formats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExportFormat {
    /// Heimdall Data Format: one file for each target and profile.
    Hdf,
    /// JSON lines.
    Jsonl,
    /// One HTML page.
    Html,
}

/// A report in one format, not written yet.
#[derive(Clone, Debug)]
pub enum Rendered {
    /// One file.
    One(Vec<u8>),
    /// Files that belong together in one folder, by name.
    Folder(Vec<(String, Vec<u8>)>),
}

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The ledger can't be read.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// What it holds does not fit together.
    #[error(transparent)]
    Report(#[from] ReportError),
    /// A result names a profile that the ledger does not hold.
    #[error("report on `{target}`: its profile `{profile}` is not in the ledger")]
    ProfileMissing {
        /// The target's key.
        target: String,
        /// The profile's name.
        profile: String,
    },
    /// There is no such run.
    #[error("find run {0} in the ledger")]
    NoRun(RunId),
    /// Nothing in the ledger is asked for.
    #[error("make a report: the ledger holds no result {0}")]
    Nothing(&'static str),
    /// Several files can't go to one stream.
    #[error("write {0} files to the standard output")]
    SeveralFiles(usize),
    /// The folder for several files can't be made.
    #[error("make folder `{}`", .path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file can't be written.
    #[error(transparent)]
    File(#[from] FileError),
}

impl Classify for ExportError {
    fn class(&self) -> ExitClass {
        match self {
            Self::Ledger(error) => error.class(),
            Self::Report(error) => error.class(),
            Self::ProfileMissing { .. } => ExitClass::Ledger,
            Self::NoRun(_) | Self::Nothing(_) | Self::SeveralFiles(_) => ExitClass::Usage,
            Self::Folder { .. } => ExitClass::Unreachable,
            Self::File(error) => error.class(),
        }
    }

    fn remedy(&self) -> Option<String> {
        match self {
            Self::Ledger(error) => error.remedy(),
            Self::Report(error) => error.remedy(),
            Self::ProfileMissing { .. } => Some("run `gapscan ledger verify` and restore a backup".to_owned()),
            Self::NoRun(_) => Some("`gapscan history` lists the runs".to_owned()),
            Self::Nothing(_) => {
                Some("scan first, or ask for other targets; `gapscan results` lists what there is".to_owned())
            }
            Self::SeveralFiles(_) => Some(
                "HDF has one file for each target and profile: name a folder with -o, or choose one with --target"
                    .to_owned(),
            ),
            Self::Folder { source, .. } => match source.kind() {
                io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::AlreadyExists | io::ErrorKind::NotADirectory => Some(
                    "name a folder that is empty or does not exist yet, so that nothing old is mistaken for new"
                        .to_owned(),
                ),
                _ => None,
            },
            Self::File(error) => error.remedy(),
        }
    }
}

/// Reads and verifies the ledger, and makes a report of what is asked for. A ledger that is not intact gives a report that
/// says so first.
///
/// # Errors
/// When the ledger can't be read, holds nothing of what is asked for, or holds results that don't fit their profiles.
pub fn collect(request: &ExportRequest, now: Timestamp) -> Result<Report, ExportError> {
    let reader = LedgerReader::open(&request.ledger)?;
    let mut attempt = 1;
    let (head, contents) = loop {
        let before = reader.head()?;
        let contents = Contents::read(&reader, request)?;
        let head = reader.head()?;
        if before == head || attempt == READS {
            break (head, contents);
        }
        attempt += 1;
    };
    if contents.tasks.is_empty() && contents.runs.iter().all(|run| run.unrecorded.is_empty()) {
        return Err(ExportError::Nothing(if request.targets.is_empty() { "yet" } else { "of these targets" }));
    }
    // Verified after it was read: entries are only ever appended, so that what was read is part of what is verified.
    let state = state(&reader.verify()?);
    let name = request.ledger.file_name().map_or_else(|| "ledger".into(), |n| n.to_string_lossy());
    let title = match (&request.title, contents.tasks.as_slice()) {
        (Some(title), _) => title.clone(),
        (None, [only]) => format!("Compliance of {}", only.record().target.key()),
        (None, _) => "Compliance report".to_owned(),
    };
    Ok(Report {
        generated: now,
        gapscan: env!("CARGO_PKG_VERSION").to_owned(),
        title,
        classification: marking(request.classification.as_deref(), &contents.runs),
        scope: Scope {
            selection: request.selection,
            targets: request.targets.iter().map(TargetSpec::to_string).collect(),
        },
        ledger: LedgerRef {
            name: name.into_owned(),
            id: head.ledger.to_string(),
            sequence: head.seq,
            head: head.digest,
            state,
        },
        tasks: contents.tasks,
        earlier: contents.earlier,
        runs: contents.runs,
        events: contents.events,
    })
}

/// The marking of a report: what the reader asks for, and what the bundles of its runs are marked with, each once; also of a
/// run that owes its results. Which of several is the highest only people can say, so that all are shown.
fn marking(asked: Option<&str>, runs: &[ReportRun]) -> Option<String> {
    let of_bundles: BTreeSet<&str> = runs.iter().filter_map(|run| run.start.classification.as_deref()).collect();
    let mut all: Vec<&str> = asked.into_iter().collect();
    all.extend(of_bundles.into_iter().filter(|marking| asked != Some(*marking)));
    (!all.is_empty()).then(|| all.join(" + "))
}

fn state(report: &VerifyReport) -> LedgerState {
    if report.is_intact() {
        return LedgerState::Intact;
    }
    let mut problems: Vec<String> = report
        .problems
        .iter()
        .take(10)
        .map(|problem| match problem.entry {
            Some(entry) => format!("entry {entry}, {}: {}", problem.place, problem.what),
            None => format!("{}: {}", problem.place, problem.what),
        })
        .collect();
    let more = (report.problems.len() - problems.len()) as u64 + report.problems_omitted;
    if more > 0 {
        problems.push(format!("and {more} more; `gapscan ledger verify` lists them"));
    }
    LedgerState::NotIntact(problems.join("\n"))
}

struct Contents {
    tasks: Vec<ReportTask>,
    earlier: Vec<TaskRecord>,
    runs: Vec<ReportRun>,
    events: Vec<Event>,
}

impl Contents {
    fn read(reader: &LedgerReader, request: &ExportRequest) -> Result<Self, ExportError> {
        let wanted = |target: &Target| request.targets.is_empty() || request.targets.iter().any(|s| names(s, target));
        let records = match request.selection {
            Selection::Latest => reader.latest()?,
            Selection::Run(run) => {
                reader.run(run)?.ok_or(ExportError::NoRun(run))?;
                reader.tasks_of(run)?
            }
        };
        let records: Vec<TaskRecord> = records.into_iter().filter(|r| wanted(&r.target)).collect();
        let mut shown: Vec<RunId> = records.iter().map(|r| r.run).collect();
        shown.sort_unstable();
        shown.dedup();
        let mut runs = Vec::new();
        for (start, unrecorded) in reader.unfinished_runs()? {
            let belongs = match request.selection {
                // What a run still owes may be newer than the latest result that there is.
                Selection::Latest => true,
                Selection::Run(run) => run == start.run,
            };
            let unrecorded: Vec<ExpectedTask> = unrecorded.into_iter().filter(|t| wanted(&t.target)).collect();
            if belongs && (!unrecorded.is_empty() || shown.contains(&start.run)) {
                shown.retain(|run| *run != start.run);
                let resumed = reader.run(start.run)?.map(|run| run.resumed).unwrap_or_default();
                runs.push(ReportRun { start, end: None, resumed, unrecorded });
            }
        }
        for run in shown {
            let run = reader.run(run)?.ok_or(ExportError::NoRun(run))?;
            let end = run.end.map(|ended| (ended.end, ended.at));
            runs.push(ReportRun { start: run.start, end, resumed: run.resumed, unrecorded: Vec::new() });
        }
        runs.sort_by_key(|run| (run.start.started, run.start.run));
        let mut earlier = Vec::new();
        if request.selection == Selection::Latest {
            // Only a container can be reached in several ways.
            for record in records.iter().filter(|record| record.target.kind() == TargetKind::Container) {
                earlier.extend(reader.in_other_ways(record)?);
            }
        }
        let mut tasks = Vec::with_capacity(records.len());
        for record in records {
            let profile = reader.profile(&record.profile.digest)?.ok_or_else(|| ExportError::ProfileMissing {
                target: crate::base::text::brief(&record.target.key()),
                profile: crate::base::text::brief(&record.profile.name),
            })?;
            tasks.push(ReportTask::new(record, profile)?);
        }
        Ok(Self { tasks, earlier, runs, events: reader.events()? })
    }
}

/// Whether this is one of the targets that the text names.
fn names(spec: &TargetSpec, target: &Target) -> bool {
    match (spec, target) {
        (TargetSpec::Host, Target::Host { .. }) | (TargetSpec::Cluster, Target::Cluster { .. }) => true,
        (TargetSpec::Image(asked), Target::Image { reference, .. }) => asked == reference,
        (TargetSpec::Node(asked), Target::Node { name, .. }) => asked == name,
        (TargetSpec::Namespace(asked), Target::Container { namespace, .. }) => asked == namespace,
        (
            TargetSpec::Pod { namespace: in_namespace, pod: asked, container: part },
            Target::Container { namespace, pod, container, .. },
        ) => in_namespace == namespace && asked == pod && part.as_ref().is_none_or(|part| part == container),
        (
            TargetSpec::Host
            | TargetSpec::Cluster
            | TargetSpec::Image(_)
            | TargetSpec::Node(_)
            | TargetSpec::Namespace(_)
            | TargetSpec::Pod { .. },
            _,
        ) => false,
    }
}

/// The report in this format.
pub fn render(report: &Report, format: ExportFormat) -> Rendered {
    match format {
        ExportFormat::Jsonl => Rendered::One(jsonl::render(report)),
        ExportFormat::Html => Rendered::One(html::render(report).into_bytes()),
        ExportFormat::Hdf => {
            let mut files = hdf::render(report);
            match (files.pop(), files.is_empty()) {
                (Some(only), true) => Rendered::One(only.json),
                (last, _) => Rendered::Folder(files.into_iter().chain(last).map(|f| (f.name, f.json)).collect()),
            }
        }
    }
}

impl Rendered {
    /// The bytes for a stream.
    ///
    /// # Errors
    /// When there are several files, or none.
    pub fn into_bytes(self) -> Result<Vec<u8>, ExportError> {
        match self {
            Self::One(bytes) => Ok(bytes),
            Self::Folder(files) if files.is_empty() => Err(ExportError::Nothing(NO_FILE)),
            Self::Folder(files) => Err(ExportError::SeveralFiles(files.len())),
        }
    }

    /// Writes one file at `path`, or a folder there, so that there is either the whole of it or nothing. One file replaces
    /// a file that is there; a folder replaces only an empty one.
    ///
    /// # Errors
    /// When it can't be written, the folder has something in it, or there is no file to write.
    pub fn write(self, path: &Path) -> Result<(), ExportError> {
        match self {
            Self::One(bytes) => Ok(file::write_atomic(path, &bytes, FILE_MODE)?),
            Self::Folder(files) if files.is_empty() => Err(ExportError::Nothing(NO_FILE)),
            Self::Folder(files) => write_folder(path, files),
        }
    }
}

fn write_folder(path: &Path, files: Vec<(String, Vec<u8>)>) -> Result<(), ExportError> {
    let failed = |source| ExportError::Folder { path: path.to_owned(), source };
    let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // Beside its place, then renamed into it: rename(2) replaces an empty folder and refuses any other.
    let beside = tempfile::Builder::new().prefix(".gapscan-").tempdir_in(parent).map_err(failed)?;
    for (name, bytes) in files {
        file::write_new(&beside.path().join(name), &bytes, FILE_MODE)?;
    }
    fs::set_permissions(beside.path(), fs::Permissions::from_mode(FOLDER_MODE)).map_err(failed)?;
    file::sync_folder(beside.path()).map_err(failed)?;
    fs::rename(beside.path(), path).map_err(failed)?;
    // It has its place now, so that there is nothing to clean up.
    let _ = beside.keep();
    file::sync_folder(parent).map_err(failed)
}

/// What was exported, in one line for people.
pub fn summary(coverage: &Coverage) -> String {
    use crate::model::outcome::Status;
    let parts: Vec<String> = Status::ALL.iter().map(|s| format!("{} {s}", coverage.count(*s))).collect();
    let score = coverage.score().map_or_else(|| "no score".to_owned(), |score| format!("score {score} %"));
    format!("{} expected: {}; {score}", coverage.expected(), parts.join(", "))
}

#[cfg(test)]
mod tests;
