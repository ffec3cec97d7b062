//! Importing a scanner's result that gapscan did not make: what the file says goes into the ledger, marked as imported.
//!
//! gapscan vouches for the bytes, which are kept as evidence, for who gave them and when; the record says so, and says who knows
//! what was scanned, when, and what was expected. What is imported has a name of its own for what judged it
//! ([`crate::model::provenance::IMPORT`]), so that it neither replaces nor is replaced by a result of gapscan's own.
//!
//! | accident or attack | where it ends |
//! |---|---|
//! | a file that is changed while it is read | `take_whole`: it is read once, into a file without a name; all else reads that |
//! | gigabytes, a stream without end | `take_whole`: bounded; memory does not grow with it |
//! | a file that names controls without number | `CONTROLS`, and for findings the parsers |
//! | a file that is cut, empty, another tool's, hostile | the parsers; it is recorded as not evaluated, with its bytes |
//! | a file that names a time to come, or none | `times`: the time of the import counts, and the record says so |
//! | a file that names no target, or several | `target`: refused, and nothing is recorded |
//! | the same file twice | [`ImportError::There`] |
//! | an older result after a newer one | a note |
//! | ids, names and titles that steer a terminal | `results::taken` makes ids fit; whoever shows the rest neutralises it |

mod expected;
mod target;
#[cfg(test)]
mod tests;

use std::time::Duration;

use jiff::Timestamp;

use self::target::{TargetError, resolve};
use super::read::{ReadError, ResultSource, take_whole};
use crate::base::digest::Digest;
use crate::base::exit::{Classify, ExitClass};
use crate::base::limits::Limits;
use crate::base::spool::{Content as _, Spooled};
use crate::base::text::brief;
use crate::ledger::{Ledger, LedgerError};
use crate::model::evidence::Evidence;
use crate::model::finding::Finding;
use crate::model::outcome::Outcome;
use crate::model::profile::{Profile, ProfileError};
use crate::model::provenance::{Approach, Engine, Expectation, IMPORT, Imported, Provenance, Said};
use crate::model::reason::Reason;
use crate::model::record::{CheckedTask, Event, ExpectedTask, RunEnd, RunId, RunStart, TaskRecord, Trigger};
use crate::model::scanner::{ResultFormat, is_own_control};
use crate::model::target::{Target, TargetSpec};
use crate::results::detect::detect;
use crate::results::{Origin, Parsed, ResultsError, Taken, nothing_declared, origin, profile_name};

pub use expected::{ExpectedError, expected};

/// How many controls a file may name itself, each of which the ledger keeps: more than any profile has, and what a file of test
/// cases that nobody counted may come to.
const CONTROLS: usize = 100_000;

/// How far a scan's time may lie ahead of this machine's clock.
const AHEAD: Duration = Duration::from_secs(5 * 60);

/// One file that is to be imported.
#[derive(Clone, Debug)]
pub struct ImportRequest {
    /// The file.
    pub source: ResultSource,
    /// Its format; what is in it tells where none is named.
    pub format: Option<ResultFormat>,
    /// What was scanned; what the file says where nothing is named.
    pub target: Option<TargetSpec>,
    /// The profile whose controls were expected; without one the file is taken at its word.
    pub profile: Option<Profile>,
    /// When the scan was, where the file does not say.
    pub at: Option<Timestamp>,
    /// What to do where it was imported before.
    pub known: Known,
}

/// What to do with a file that was imported for the same target before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    /// Refuse it: nothing is there twice.
    Refuse,
    /// Import it again, as with another profile or format.
    Again,
}

/// Why a file was not imported.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// It can't be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// It is not known what was scanned.
    #[error("import `{}`", brief(.file))]
    Target {
        /// The file.
        file: String,
        /// Why not.
        source: TargetError,
    },
    /// It was imported before.
    #[error("import `{}`: it was imported for `{}` at {at}, in run {run}", brief(.file), brief(.target))]
    There {
        /// The file.
        file: String,
        /// The target's key.
        target: String,
        /// The run that recorded it.
        run: RunId,
        /// When that was.
        at: Timestamp,
    },
    /// The controls that were found can't be recorded.
    #[error("import `{}`", brief(.file))]
    Profile {
        /// The file.
        file: String,
        /// Why not.
        source: ProfileError,
    },
    /// The ledger can't be written.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

impl Classify for ImportError {
    fn class(&self) -> ExitClass {
        match self {
            Self::Read(error) => error.class(),
            Self::Target { .. } | Self::There { .. } => ExitClass::Usage,
            Self::Profile { .. } => ExitClass::Bug,
            Self::Ledger(error) => error.class(),
        }
    }

    fn remedy(&self) -> Option<String> {
        match self {
            Self::Read(error) => error.remedy(),
            Self::Target { source, .. } => source.remedy(),
            Self::There { .. } => {
                Some("`--again` imports it once more, as with another --profile or --format".to_owned())
            }
            Self::Profile { .. } => None,
            Self::Ledger(error) => error.remedy(),
        }
    }
}

/// Reads a file and records what it says, as a run of its own with one result. A file that is no whole result is recorded as
/// not evaluated, with its bytes as evidence, where its target is known; without one, and where there is too much of it to be
/// kept, an event `import-refused` says that it was there. `by` is who imports it.
///
/// # Errors
/// When the file can't be read, or what was scanned is not known; when it was imported for the same target before; when the
/// ledger can't be written. Then there is no result of it.
pub fn import(
    request: ImportRequest,
    by: &str,
    ledger: &mut Ledger,
    limits: &Limits,
    now: Timestamp,
) -> Result<TaskRecord, ImportError> {
    let file = request.source.name();
    let folder = ledger.reader().folder().to_owned();
    let content = match take_whole(&request.source, &folder, limits) {
        Ok(content) => content,
        Err(error @ ReadError::Unusable { .. }) => {
            refused(&file, None, &error, ledger, now)?;
            return Err(error.into());
        }
        Err(error) => return Err(error.into()),
    };
    let most = if request.profile.is_some() { usize::MAX } else { CONTROLS };
    let read = match read(request.format, &content, most, limits) {
        // What lies on this machine's own disk could not be read back: that says nothing of the file.
        Err((_, ResultsError::Io(source))) => {
            return Err(ReadError::Unreadable { file: format!("`{file}`"), source }.into());
        }
        read => read,
    };
    let resolved = match &read {
        Ok(read) => resolve(request.target.as_ref(), Some(&read.origin), read.taken.subjects()),
        Err(_) => resolve(request.target.as_ref(), None, &[]),
    };
    let ((target, said), read) = match (resolved, read) {
        (Ok(resolved), read) => (resolved, read),
        (Err(source), Ok(_)) => return Err(ImportError::Target { file, source }),
        // Nothing says what it would be the result of.
        (Err(_), Err((_, source))) => {
            let error = ReadError::Unusable { file: format!("`{file}`"), source };
            refused(&file, Some(content.digest()), &error, ledger, now)?;
            return Err(error.into());
        }
    };
    if request.known == Known::Refuse {
        refuse_twice(&file, &content, &target, ledger)?;
    }
    let about = About { request: &request, file: &file, by, now, content: &content, target, said };
    let task = match read {
        Ok(read) => about.of(read, ledger)?,
        Err((format, source)) => about.of_nothing(format, &source),
    };
    record(&task, by, ledger, now)?;
    Ok(task.record().clone())
}

struct ReadResult {
    format: ResultFormat,
    taken: Taken,
    origin: Origin,
}

fn read(
    format: Option<ResultFormat>,
    content: &Spooled,
    most: usize,
    limits: &Limits,
) -> Result<ReadResult, (Option<ResultFormat>, ResultsError)> {
    let format = match format {
        Some(format) => format,
        None => detect(content).map_err(|error| (None, error))?,
    };
    let failed = |error| (Some(format), error);
    let taken = Taken::read(format, content, limits).map_err(failed)?;
    if taken.controls() > most {
        return Err(failed(ResultsError::TooMany { limit: most }));
    }
    let origin = origin(format, content, limits).map_err(failed)?;
    Ok(ReadResult { format, taken, origin })
}

/// Records that a file was there of which there is no result.
fn refused(
    file: &str,
    digest: Option<Digest>,
    error: &ReadError,
    ledger: &mut Ledger,
    now: Timestamp,
) -> Result<(), LedgerError> {
    let why = std::error::Error::source(error).map_or_else(|| error.to_string(), ToString::to_string);
    let digest = digest.map_or_else(String::new, |digest| format!(", {digest}"));
    let detail = format!("the file `{}`{digest} is not in the ledger: {why}", brief(name_of(file)));
    let subject = brief(name_of(file));
    ledger.event(&Event { at: now, what: "import-refused".to_owned(), subject, due: None, detail })
}

/// The name without the folders above it.
fn name_of(file: &str) -> &str {
    file.rsplit('/').find(|part| !part.is_empty()).unwrap_or(file)
}

fn refuse_twice(file: &str, content: &Spooled, target: &Target, ledger: &Ledger) -> Result<(), ImportError> {
    let target = target.key();
    let before = ledger.reader().resting_on(&content.digest(), &target)?;
    match before.into_iter().find_map(|task| task.provenance.imported.map(|imported| (task.run, imported.at))) {
        Some((run, at)) => Err(ImportError::There { file: file.to_owned(), target, run, at }),
        None => Ok(()),
    }
}

/// When the scan was, who says so, and what to note of it.
fn times(
    origin: Option<&Origin>,
    told: Option<Timestamp>,
    now: Timestamp,
) -> ((Timestamp, Timestamp), Option<Said>, Vec<String>) {
    let mut notes = Vec::new();
    let latest = now.checked_add(AHEAD).unwrap_or(now);
    if let Some(origin) = origin {
        if let (Some(started), Some(finished)) = (origin.started, origin.finished) {
            if finished <= latest {
                if let Some(told) = told.filter(|told| *told != finished) {
                    notes.push(format!(
                        "whoever imported it says that the scan was at {told}: the file's own time counts"
                    ));
                }
                return ((started, finished), Some(Said::ByFile), notes);
            }
            notes.push(format!(
                "the file says that the scan ended at {finished}, which was yet to come when it was imported"
            ));
        } else if let Some(text) = &origin.unclear_time {
            notes
                .push(format!("the file says of its time `{text}`, which names no moment: it has no zone, or is none"));
        }
    }
    match told {
        Some(told) => ((told, told), Some(Said::ByImporter), notes),
        None => ((now, now), None, notes),
    }
}

/// All that is known of an import besides what its file says.
struct About<'a> {
    request: &'a ImportRequest,
    file: &'a str,
    by: &'a str,
    now: Timestamp,
    content: &'a Spooled,
    target: Target,
    said: Said,
}

impl About<'_> {
    /// The result of a file that is a whole one.
    fn of(self, ReadResult { format, taken, origin }: ReadResult, ledger: &Ledger) -> Result<CheckedTask, ImportError> {
        let ((started, finished), time, mut notes) = times(Some(&origin), self.request.at, self.now);
        let scanner = taken.scanner().clone();
        let name = scanner.name.clone().unwrap_or_default();
        let subjects = taken.subjects().to_vec();
        let (profile, parsed) = match &self.request.profile {
            Some(profile) => {
                let mut parsed = taken.against(profile);
                parsed.findings.iter_mut().for_each(unseen);
                (profile.clone(), parsed)
            }
            None => {
                let version = scanner.version.clone().unwrap_or_default();
                let (said, version) = origin.profile.clone().unwrap_or_else(|| (name.clone(), version));
                let said = if said.is_empty() { format.name().to_owned() } else { said };
                let (profile, parsed) = taken.at_its_word(&profile_name(&said), &brief(&version));
                let profile =
                    profile.checked().map_err(|source| ImportError::Profile { file: self.file.to_owned(), source })?;
                (profile, parsed)
            }
        };
        let Parsed { findings, notes: said, database_built, .. } = parsed;
        let engine = engine(Some(format), &scanner.version.clone().unwrap_or_default());
        notes.extend(
            database_built.map(|built| format!("the database that its verdicts depend on was built at {built}")),
        );
        notes.extend(said);
        let before = ledger.reader().history(&self.target.key())?;
        let newest = before.iter().filter(|one| one.engine == engine.name && one.profile.name == profile.name);
        if let Some(newer) = newest.max_by_key(|one| one.finished).filter(|one| one.finished > finished) {
            notes.push(format!(
                "an older result than one that was imported before: that scan ended at {}, in run {}",
                newer.finished, newer.run
            ));
        }
        let imported = self.imported(Some(format), name, subjects, time);
        let notes = imported.notes().into_iter().chain(notes).collect();
        let provenance = provenance(engine, imported, started, finished);
        let evidence = vec![Evidence::new("result", format.media_type(), self.content.clone())];
        let task = CheckedTask::new(RunId::new(), self.target, profile, provenance, findings, evidence, notes);
        Ok(task.expect("both ways of measuring give one finding for each control of the profile"))
    }

    /// The record of a file that is no result.
    fn of_nothing(self, format: Option<ResultFormat>, why: &ResultsError) -> CheckedTask {
        let (_, time, mut notes) = times(None, self.request.at, self.now);
        let (started, finished) = self.request.at.map_or((self.now, self.now), |at| (at, at));
        let profile = match &self.request.profile {
            Some(profile) => profile.clone(),
            None => nothing_declared(format.map_or("unknown", ResultFormat::name)),
        };
        let imported = self.imported(format, String::new(), Vec::new(), time);
        let media_type = format.map_or("application/octet-stream", ResultFormat::media_type);
        let evidence = vec![Evidence::new("result", media_type, self.content.clone())];
        let detail = format!("failed to {why}");
        notes.splice(0..0, imported.notes());
        let provenance = provenance(engine(format, ""), imported, started, finished);
        let task =
            CheckedTask::not_evaluated(RunId::new(), self.target, profile, provenance, why.reason(), &detail, evidence);
        task.with_notes(notes)
    }

    fn imported(
        &self,
        format: Option<ResultFormat>,
        scanner: String,
        subjects: Vec<String>,
        time: Option<Said>,
    ) -> Imported {
        Imported {
            file: name_of(self.file).to_owned(),
            digest: self.content.digest(),
            length: self.content.length(),
            by: self.by.to_owned(),
            at: self.now,
            format: format.map(|format| format.name().to_owned()),
            scanner,
            subjects,
            target: self.said,
            expected: match self.request.profile {
                Some(_) => Expectation::Profile,
                None => Expectation::SelfDeclared,
            },
            time,
        }
    }
}

/// What gapscan judges itself when it runs a scanner, it can't judge of one that it did not run.
fn unseen(finding: &mut Finding) {
    if is_own_control(&finding.control) {
        let detail = "gapscan did not run this scanner: nobody saw it";
        finding.outcome = Outcome::not_evaluated(Reason::FactMissing, detail);
    }
}

fn engine(format: Option<ResultFormat>, version: &str) -> Engine {
    let name = format!("{IMPORT}{}", format.map_or("unknown", ResultFormat::name));
    Engine { name, version: version.to_owned(), image: None }
}

fn provenance(engine: Engine, imported: Imported, started: Timestamp, finished: Timestamp) -> Provenance {
    Provenance {
        gapscan: env!("CARGO_PKG_VERSION").to_owned(),
        engine,
        bundle: None,
        content: Vec::new(),
        approach: Approach::Imported,
        identity: Some(imported.by.clone()),
        imported: Some(Box::new(imported)),
        network: None,
        cleanup: None,
        started,
        finished,
    }
}

/// One run with this one result: nothing of it is in the ledger before all of it is known.
fn record(task: &CheckedTask, by: &str, ledger: &mut Ledger, now: Timestamp) -> Result<(), LedgerError> {
    let record = task.record();
    let start = RunStart {
        run: record.run,
        trigger: Trigger::Import { user: by.to_owned() },
        started: now,
        requested: vec![record.target.key()],
        classification: None,
        bundle: None,
        expected: vec![ExpectedTask {
            target: record.target.clone(),
            engine: record.provenance.engine.name.clone(),
            profile: record.profile.clone(),
            incarnation: None,
            workload: None,
        }],
    };
    ledger.begin_run(&start, std::slice::from_ref(task.profile()))?;
    ledger.record(task)?;
    ledger.end_run(record.run, RunEnd::Completed, now)
}
