//! Trivy's JSON, schema 2 (`trivy --format json`): vulnerabilities, misconfigurations, secrets and licences.
//!
//! | what | control | counts as |
//! |---|---|---|
//! | vulnerability | by its severity, as in [`super::vulnerabilities`] | failed; `not_affected` not applicable; `under_investigation` not evaluated |
//! | misconfiguration | its check's id | `PASS` passed; `FAIL` failed; `EXCEPTION` not evaluated, `scanner-skipped` |
//! | secret | `no-secrets` | failed |
//! | licence | `acceptable-licences` | forbidden, restricted: failed; reciprocal, notice, permissive, unencumbered: passed; unknown: not evaluated |
//!
//! Any other status word is not evaluated, `status-unknown`.
//!
//! A severity of which there is no vulnerability counts as passed only where packages of an operating system were looked at
//! for which Trivy has advisories that still come: it lists a package, and has a vulnerability of one or the release is one
//! of which its advisories are known to exist. That nothing was found in a system that Trivy does not know, in a release
//! that is newer than its database, or where somebody removed the package manager's database, looks the same in the file.
//! Packages of languages alone are enough for what has no system: a repository. Nothing says whether secrets or licences
//! were looked for, so that their controls never pass without any. Checks that passed are only counted in most files; what is not named is no control.
//!
//! `trivy k8s --compliance` reports checks as passed that it could not look at: its output is another format, which is not
//! read.
//!
//! What a result says of itself may come after what was found, so that the file is read twice.
//!
//! Identity of a finding: the kind, the target in the file, and: the vulnerability's id, the package's name, version and
//! path; the check's id, the resource, the message, and which one it is of those; the secret's rule, and which one it is; the
//! licence, the package and the file.

mod licence;
mod misconfiguration;
mod package;
mod secret;
mod vulnerability;

use std::io::Read;

use self::licence::licence;
use self::misconfiguration::misconfiguration;
use self::package::package;
use self::secret::secret;
use self::vulnerability::{Vulnerability, vulnerability};
use super::ResultsError;
use super::event::{Budget, Numbers, Out, cut};
use super::json::{Json, Kind};
use super::releases::has_advisories;
use super::vulnerabilities::{self, CONTROLS};
use crate::base::limits::Limits;
use crate::base::spool::Content;
use crate::base::text::brief;
use crate::model::outcome::Outcome;
use crate::model::reason::Reason;

const FORMAT: &str = "Trivy JSON";

/// The class of results with packages of the operating system.
const SYSTEM: &str = "os-pkgs";

/// What the file says of itself.
#[derive(Default)]
struct About {
    schema: Option<u64>,
    version: Option<String>,
    artifact: Option<String>,
    /// What it is: an image, a folder, a repository.
    artifact_kind: String,
    family: String,
    release: String,
    end_of_life: bool,
    results: Vec<Part>,
}

/// What one of its results says of itself.
#[derive(Default)]
struct Part {
    target: String,
    class: String,
    kind: String,
}

/// What was found so far.
#[derive(Default)]
struct Seen {
    failed: [bool; 5],
    vulnerabilities: u64,
    /// Packages of the operating system, and how many vulnerabilities they have.
    system_packages: u64,
    system_vulnerabilities: u64,
    checks_passed_unnamed: u64,
    numbers: Numbers,
}

/// Reads a report.
pub(crate) fn read<C: Content + ?Sized>(content: &C, out: &mut Out<'_>, limits: &Limits) -> Result<(), ResultsError> {
    let about = about(content, limits)?;
    out.scanner(Some("trivy".to_owned()), about.version.clone(), None);
    out.target(about.artifact.clone().unwrap_or_default())?;
    let mut seen = Seen::default();
    let mut json = Json::new(content.reader(), FORMAT, limits.result_bytes);
    let mut at = 0;
    json.object(|json, key| match key {
        "Results" => json.array(|json| {
            let empty = Part::default();
            let part = about.results.get(at).unwrap_or(&empty);
            at += 1;
            result(json, part, &mut seen, out)
        }),
        _ => json.skip(),
    })?;
    json.end()?;
    about.judge_silence(&seen, out)?;
    if seen.checks_passed_unnamed > 0 {
        out.note(format!("{} checks passed that the file counts and does not name", seen.checks_passed_unnamed));
    }
    Ok(())
}

fn about<C: Content + ?Sized>(content: &C, limits: &Limits) -> Result<About, ResultsError> {
    let mut json = Json::new(content.reader(), FORMAT, limits.result_bytes);
    if json.kind()? != Kind::Object {
        return Err(json.foreign("it is no object"));
    }
    let (mut about, mut budget) = (About::default(), Budget::of(limits));
    json.object(|json, key| match key {
        "SchemaVersion" => json.count().map(|schema| about.schema = schema),
        "Trivy" => json.object(|json, key| match key {
            "Version" => json.scalar().map(|version| about.version = version),
            _ => json.skip(),
        }),
        "ArtifactName" => json.text().map(|name| about.artifact = name),
        "ArtifactType" => json.text_or_empty().map(|kind| about.artifact_kind = kind),
        "Metadata" => json.object(|json, key| match key {
            "OS" => json.object(|json, key| match key {
                "Family" => json.text_or_empty().map(|family| about.family = family),
                "Name" => json.text_or_empty().map(|name| about.release = name),
                "EOSL" => json.boolean().map(|ended| about.end_of_life = ended == Some(true)),
                _ => json.skip(),
            }),
            _ => json.skip(),
        }),
        "Results" => {
            if !matches!(json.kind()?, Kind::Array | Kind::Null) {
                return Err(json.foreign("its results are no list"));
            }
            json.array(|json| {
                let mut part = Part::default();
                json.object(|json, key| match key {
                    "Target" => json.text_or_empty().map(|target| part.target = target),
                    "Class" => json.text_or_empty().map(|class| part.class = class),
                    "Type" => json.text_or_empty().map(|kind| part.kind = kind),
                    _ => json.skip(),
                })?;
                let part = Part { target: cut(part.target), ..part };
                budget.hold(size_of::<Part>() + part.target.len() + part.class.len() + part.kind.len())?;
                about.results.push(part);
                Ok(())
            })
        }
        _ => json.skip(),
    })?;
    json.end()?;
    match (about.schema, &about.artifact) {
        (Some(2), Some(_)) => Ok(about),
        (Some(other), Some(_)) => Err(json.foreign(format!("its schema is {other}, and 2 is read"))),
        _ => Err(json.foreign("it has no schema version or no artifact's name")),
    }
}

impl About {
    /// Says how the severities end of which no vulnerability was found.
    fn judge_silence(&self, seen: &Seen, out: &mut Out<'_>) -> Result<(), ResultsError> {
        let system = self.results.iter().any(|part| part.class == SYSTEM);
        let language = self.results.iter().any(|part| part.class == "lang-pkgs");
        if !system && !language && seen.vulnerabilities == 0 {
            return Ok(());
        }
        let name = match self.family.as_str() {
            "" | "none" => "no operating system".to_owned(),
            family => brief(format!("{family} {}", self.release).trim()),
        };
        let silent = |detail: String| Outcome::not_evaluated(Reason::ScannerSkipped, detail);
        let without = if !system && language && self.artifact_kind == "repository" {
            Outcome::Passed
        } else if !system {
            silent(format!(
                "there is none, and the scanner, which recognised {name}, looked at no packages of an operating system"
            ))
        } else if self.end_of_life {
            silent(format!("there is none, and {name} gets no advisories any more"))
        } else if seen.system_packages == 0 && seen.system_vulnerabilities == 0 {
            silent(format!(
                "there is none, and the scanner lists no package of {name}: it was not told to, or somebody removed the \
                 package manager's database"
            ))
        } else if seen.system_vulnerabilities == 0 && !has_advisories(&self.family, &self.release) {
            silent(format!("there is none, and nothing says that the scanner has advisories of {name}"))
        } else {
            Outcome::Passed
        };
        if !system && !self.family.is_empty() {
            out.note(format!("no package of the operating system was looked at, which is {name}"));
        }
        if self.end_of_life {
            out.note(format!("{name} gets no advisories any more: what was found since is not known"));
        }
        for (control, failed) in seen.failed.into_iter().enumerate() {
            vulnerabilities::declare(out, control)?;
            if !failed {
                out.verdict(CONTROLS[control], without.clone());
            }
        }
        Ok(())
    }
}

fn result(json: &mut Json<impl Read>, part: &Part, seen: &mut Seen, out: &mut Out<'_>) -> Result<(), ResultsError> {
    let (mut successes, mut failures) = (0_u64, 0_u64);
    let (mut passed, mut failed) = (0_u64, 0_u64);
    json.object(|json, key| match key {
        "Packages" => json.array(|json| {
            seen.system_packages += u64::from(part.class == SYSTEM);
            let component = package(json, part)?;
            out.component(component)
        }),
        "Vulnerabilities" => json.array(|json| {
            let found = vulnerability(json)?.report(part);
            if matches!(found.outcome, Outcome::Failed | Outcome::NotEvaluated { .. })
                && let Some(control) = CONTROLS.iter().position(|control| *control == found.control)
            {
                seen.failed[control] = true;
            }
            seen.vulnerabilities += 1;
            seen.system_vulnerabilities += u64::from(part.class == SYSTEM);
            out.finding(found)
        }),
        "ExperimentalModifiedFindings" => json.array(|json| {
            let mut found = Vulnerability::default();
            json.object(|json, key| match key {
                "Finding" => vulnerability(json).map(|finding| found = finding),
                _ => json.skip(),
            })?;
            out.suppressed(found.report(part))
        }),
        "MisconfSummary" => json.object(|json, key| match key {
            "Successes" => json.count().map(|count| successes = count.unwrap_or(0)),
            "Failures" => json.count().map(|count| failures = count.unwrap_or(0)),
            _ => json.skip(),
        }),
        "Misconfigurations" => json.array(|json| {
            let check = misconfiguration(json)?;
            passed += u64::from(check.status == "PASS");
            failed += u64::from(check.status == "FAIL");
            check.report(part, &mut seen.numbers, out)
        }),
        "Secrets" => json.array(|json| secret(json, part, &mut seen.numbers, out)),
        "Licenses" => json.array(|json| licence(json, part, out)),
        _ => json.skip(),
    })?;
    seen.checks_passed_unnamed += successes.saturating_sub(passed);
    if failures > failed {
        let detail = format!("it counts {failures} checks that failed and lists {failed}");
        out.gap(part.target.as_str(), Reason::ControlMissing, detail)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
