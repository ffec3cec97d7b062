//! Trying a scanner's definition without a cluster: what a result and an exit code would be recorded as, and what would be run.

mod live;

use std::path::Path;

use serde::Serialize;

use super::judge;
use super::lock::Profiles;
use super::read::{ReadError, ResultSource, spool_result};
use crate::base::digest::Digest;
use crate::base::exit::{Classify, ExitClass};
use crate::base::limits::Limits;
use crate::base::spool::Spooled;
use crate::bundle::profile::ProfileFolder;
use crate::bundle::writer::BuildError;
use crate::cluster::agent::protocol::{ExitStatus, Unreadable};
use crate::cluster::agent::sockets::Sockets;
use crate::cluster::job::{JobOutput, TakenOut};
use crate::model::control::{Control, Severity};
use crate::model::coverage::Coverage;
use crate::model::finding::Finding;
use crate::model::profile::Profile;
use crate::model::reason::Reason;
use crate::model::scanner::{ExitMeaning, ResultFormat, ScannerDocument, is_own_control};
use crate::results::{self, ResultsError};

pub use live::{LiveRequest, LiveTrial, live};

/// What is tried.
#[derive(Clone, Debug)]
pub struct TrialRequest<'a> {
    /// The definition.
    pub scanner: &'a ScannerDocument,
    /// Where the result comes from.
    pub result: &'a ResultSource,
    /// The exit code that goes with it.
    pub exit_code: u8,
    /// The folder of the profile that says what is expected; without one, the controls are those that the result itself names.
    pub profile: Option<&'a Path>,
    /// Where a result that can be read only once is kept meanwhile.
    pub folder: &'a Path,
}

/// What would be recorded.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Trial {
    /// The scanner.
    pub scanner: String,
    /// The format that its definition names.
    pub format: ResultFormat,
    /// The digest of the result.
    pub digest: Digest,
    /// The exit code.
    pub exit_code: u8,
    /// What the definition says that it means, where it says anything.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub meaning: Option<ExitMeaning>,
    /// The profile, as `NAME VERSION`; absent where nobody said what was expected.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub profile: Option<String>,
    /// The version that the result says.
    pub version: String,
    /// Why nothing of it would count.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refused: Option<Refused>,
    /// How the controls would end; those that gapscan judges itself, in a cluster, are not among them.
    pub coverage: Coverage,
    /// Each control.
    pub findings: Vec<Finding>,
    /// Notes of the record.
    pub notes: Vec<String>,
}

/// Why nothing of a result would count.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Refused {
    /// As what all controls would count.
    pub reason: Reason,
    /// Why, in this case.
    pub detail: String,
}

/// Why nothing can be tried.
#[derive(Debug, thiserror::Error)]
pub enum TrialError {
    /// The result can't be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The profile can't be used.
    #[error(transparent)]
    Profile(#[from] BuildError),
    /// The profile's controls are not in its folder.
    #[error("use profile `{0}`: its controls are listed when a bundle is built, from an image of the bundle")]
    Elsewhere(String),
    /// The profile is for another scanner.
    #[error("use profile `{profile}`: it is for `{engine}`, and the definition is of `{scanner}`")]
    Engine {
        /// The profile.
        profile: String,
        /// Its engine.
        engine: String,
        /// The definition's scanner.
        scanner: String,
    },
}

impl Classify for TrialError {
    fn class(&self) -> ExitClass {
        match self {
            Self::Read(error) => error.class(),
            Self::Profile(error) => error.class(),
            Self::Elsewhere(_) | Self::Engine { .. } => ExitClass::Usage,
        }
    }

    fn remedy(&self) -> Option<String> {
        match self {
            Self::Read(error) => error.remedy(),
            Self::Profile(error) => error.remedy(),
            Self::Elsewhere(_) => Some("leave out the profile: the controls are then those of the result".to_owned()),
            Self::Engine { .. } => None,
        }
    }
}

/// Judges the result as a scan by this definition would.
///
/// # Errors
/// When result or profile can't be read. A result that says nothing is no error: it is what would be recorded.
pub fn attempt(request: &TrialRequest<'_>, limits: &Limits) -> Result<Trial, TrialError> {
    let scanner = request.scanner;
    let named = request.profile.map(|folder| profile(folder, scanner, limits)).transpose()?;
    let content = spool_result(request.result, request.folder, limits)?;
    let digest = content.digest();
    let mut trial = Trial {
        scanner: scanner.name.clone(),
        format: scanner.result.format,
        digest,
        exit_code: request.exit_code,
        meaning: None,
        profile: named.as_ref().map(|profile| format!("{} {}", profile.name, profile.version)),
        version: String::new(),
        refused: None,
        coverage: Coverage::default(),
        findings: Vec::new(),
        notes: Vec::new(),
    };
    // From here on it is what a scan does with what a pod left.
    let output = JobOutput {
        exit: ExitStatus::Exited { code: request.exit_code },
        result: Ok(content),
        stdout_tail: Vec::new(),
        stderr_tail: Vec::new(),
        unreadable: Unreadable::default(),
        sockets: Sockets::default(),
        version: None,
        taken_out: TakenOut::default(),
    };
    let ended = output.meaning(&scanner.exit_codes);
    trial.meaning = ended.map(|(_, meaning)| meaning);
    let outcome = output.into_result(&scanner.exit_codes).map_err(|error| refused(error.reason(), &error));
    let judged = outcome.and_then(|content| {
        let profile = match &named {
            Some(profile) => profile.clone(),
            None => own_profile(scanner, &content, digest, limits).map_err(|error| refused(error.reason(), &error))?,
        };
        judge::judge(scanner, ended, &content, &profile, limits).map_err(|error| refused(error.reason(), &error))
    });
    match judged {
        Ok(parsed) => {
            trial.findings = parsed.findings.into_iter().filter(|finding| !is_own_control(&finding.control)).collect();
            trial.coverage = Coverage::counted(trial.findings.iter().map(|finding| finding.outcome.status()));
            trial.notes = parsed.notes;
            trial.version = parsed.scanner_version.unwrap_or_default();
        }
        Err(why) => trial.refused = Some(why),
    }
    Ok(trial)
}

fn refused(reason: Reason, error: &dyn std::error::Error) -> Refused {
    let source = error.source().map(|source| format!(": {source}")).unwrap_or_default();
    Refused { reason, detail: format!("{error}{source}") }
}

/// The profile in a folder, as a bundle would have it.
fn profile(folder: &Path, scanner: &ScannerDocument, limits: &Limits) -> Result<Profile, TrialError> {
    let folder = ProfileFolder::read(folder, limits)?;
    let document = &folder.document;
    if document.engine != scanner.name {
        let (profile, engine) = (document.name.clone(), document.engine.clone());
        return Err(TrialError::Engine { profile, engine, scanner: scanner.name.clone() });
    }
    if document.xccdf.is_some() {
        return Err(TrialError::Elsewhere(document.name.clone()));
    }
    Ok(folder.resolve(None, &Profiles)?)
}

/// A profile of the controls that the result names.
fn own_profile(
    scanner: &ScannerDocument,
    content: &Spooled,
    digest: Digest,
    limits: &Limits,
) -> Result<Profile, ResultsError> {
    let summary = results::summarise(scanner.result.format, content, digest, 0, limits)?;
    let control = |control: results::ControlView| Control {
        id: control.id,
        title: control.title,
        description: String::new(),
        check: String::new(),
        fix: String::new(),
        severity: control.severity.unwrap_or(Severity::Medium),
        references: control.references,
    };
    Ok(Profile {
        name: "the-result-itself".to_owned(),
        version: String::new(),
        title: "What the result names".to_owned(),
        summary: String::new(),
        controls: summary.control_list.into_iter().map(control).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bundle::scanner;
    use crate::model::outcome::Status;

    const SARIF: &str = r#"{"version":"2.1.0","runs":[{"tool":{"driver":{"name":"lynis","version":"3.0.8",
        "rules":[{"id":"A-1"},{"id":"B-2"}]}},"results":[
        {"ruleId":"A-1","kind":"fail","message":{"text":"no"}},
        {"ruleId":"B-2","kind":"pass","message":{"text":"yes"}}]}]}"#;

    fn tried(code: u8, bytes: &str, change: impl Fn(&str) -> String) -> Trial {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("result.sarif");
        std::fs::write(&file, bytes).expect("it is written");
        let text = change(include_str!("../../bundle/scanners/generic.yaml"));
        let scanner = scanner::read(Path::new("s.yaml"), &text).expect("a definition");
        let request = TrialRequest {
            scanner: &scanner,
            result: &ResultSource::File(file),
            exit_code: code,
            profile: None,
            folder: folder.path(),
        };
        attempt(&request, &Limits::default()).expect("it is tried")
    }

    #[test]
    fn a_scanner_that_nobody_has_heard_of_needs_a_definition_and_no_code() {
        let lynis = |text: &str| text.replace("name: generic", "name: lynis");
        let trial = tried(0, SARIF, lynis);
        assert_eq!((trial.scanner.as_str(), trial.version.as_str()), ("lynis", "3.0.8"));
        assert_eq!((trial.coverage.count(Status::Failed), trial.coverage.count(Status::Passed)), (1, 1));
        assert_eq!(trial.refused, None);
        let clean = tried(0, SARIF, |text| lynis(text).replace("0: complete", "0: clean"));
        assert_eq!((clean.coverage.count(Status::Failed), clean.coverage.count(Status::NotEvaluated)), (1, 1));
        assert!(clean.notes.iter().any(|note| note.contains("contradict")), "{:?}", clean.notes);
    }

    #[test]
    fn what_would_not_count_is_told_as_it_would_be_recorded() {
        for (code, bytes, reason) in [
            (9, SARIF, Reason::ScannerFailed),
            (0, &SARIF[..SARIF.len() - 4], Reason::OutputTruncated),
            (0, "[]", Reason::OutputUnparsable),
            (0, " ", Reason::NoOutput),
        ] {
            let refused = tried(code, bytes, str::to_owned).refused.expect("it does not count");
            assert_eq!(refused.reason, reason, "{}", refused.detail);
        }
    }
}
