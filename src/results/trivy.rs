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
//! A severity of which there is no vulnerability counts as passed only where packages were looked at, those of an operating
//! system that Trivy has advisories of and that still gets them, or of a language. That nothing was found in a target that
//! Trivy does not know looks the same in the file. Nothing says whether secrets or licences were looked for, so that their
//! controls never pass without any. Checks that passed are only counted in most files; what is not named is no control.
//!
//! `trivy k8s --compliance` reports checks as passed that it could not look at: its output is another format, which is not
//! read.
//!
//! What a result says of itself may come after what was found, so that the file is read twice.
//!
//! Identity of a finding: the kind, the target in the file, and: the vulnerability's id, the package's name, version and
//! path; the check's id, the resource, the message, and which one it is of those; the secret's rule, and which one it is; the
//! licence, the package and the file.

use std::collections::HashMap;
use std::io::Read;

use super::ResultsError;
use super::event::{
    Component, Declared, FindingKind, Out, Rating, Reported, identity, reference, vulnerability_reference,
};
use super::json::{Json, Kind};
use super::severity;
use super::vulnerabilities::{self, CONTROLS, control_of};
use crate::base::limits::Limits;
use crate::base::spool::Content;
use crate::base::text::brief;
use crate::model::control::{Reference, Severity};
use crate::model::outcome::Outcome;
use crate::model::reason::Reason;

const FORMAT: &str = "Trivy JSON";

/// The control that a secret fails.
const NO_SECRETS: &str = "no-secrets";
/// The control that a licence passes or fails.
const LICENCES: &str = "acceptable-licences";

/// Families of operating systems that Trivy has advisories of. One that is missing here only makes a result without a
/// vulnerability count as not evaluated.
const FAMILIES: [&str; 24] = [
    "alma",
    "alpine",
    "amazon",
    "azurelinux",
    "bottlerocket",
    "cbl-mariner",
    "centos",
    "chainguard",
    "debian",
    "echo",
    "minimos",
    "opensuse",
    "opensuse-leap",
    "opensuse-tumbleweed",
    "opensuse.leap",
    "opensuse.tumbleweed",
    "oracle",
    "photon",
    "redhat",
    "rocky",
    "slem",
    "sles",
    "ubuntu",
    "wolfi",
];

/// What the file says of itself.
#[derive(Default)]
struct About {
    schema: Option<u64>,
    version: Option<String>,
    artifact: Option<String>,
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
    checks_passed_unnamed: u64,
    numbers: HashMap<[String; 4], u64>,
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
    let mut about = About::default();
    json.object(|json, key| match key {
        "SchemaVersion" => json.count().map(|schema| about.schema = schema),
        "Trivy" => json.object(|json, key| match key {
            "Version" => json.scalar().map(|version| about.version = version),
            _ => json.skip(),
        }),
        "ArtifactName" => json.text().map(|name| about.artifact = name),
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
                if about.results.len() >= limits.result_items {
                    return Err(ResultsError::TooMany { limit: limits.result_items });
                }
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
        let system = self.results.iter().any(|part| part.class == "os-pkgs");
        let language = self.results.iter().any(|part| part.class == "lang-pkgs");
        if !system && !language && seen.vulnerabilities == 0 {
            return Ok(());
        }
        let name = brief(format!("{} {}", self.family, self.release).trim());
        let silent = |detail: String| Outcome::not_evaluated(Reason::ScannerSkipped, detail);
        let without = if system && !FAMILIES.contains(&self.family.as_str()) {
            silent(format!("there is none, and nothing says that the scanner has advisories of `{name}`"))
        } else if system && self.end_of_life {
            silent(format!("there is none, and {name} gets no advisories any more"))
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

fn package(json: &mut Json<impl Read>, part: &Part) -> Result<Component, ResultsError> {
    let mut component = Component { kind: part.kind.clone(), ..Component::default() };
    let (mut release, mut epoch) = (String::new(), 0);
    json.object(|json, key| match key {
        "Name" => json.text_or_empty().map(|name| component.name = name),
        "Version" => json.text_or_empty().map(|version| component.version = version),
        "Release" => json.text_or_empty().map(|text| release = text),
        "Epoch" => json.count().map(|count| epoch = count.unwrap_or(0)),
        "Licenses" => json.texts().map(|licences| component.licences = licences),
        "Identifier" => json.object(|json, key| match key {
            "PURL" => json.text_or_empty().map(|purl| component.purl = purl),
            _ => json.skip(),
        }),
        _ => json.skip(),
    })?;
    if component.name.is_empty() {
        return Err(json.foreign("a package has no name"));
    }
    if !release.is_empty() {
        component.version = format!("{}-{release}", component.version);
    }
    if epoch > 0 {
        component.version = format!("{epoch}:{}", component.version);
    }
    Ok(component)
}

#[derive(Default)]
struct Vulnerability {
    id: String,
    package: String,
    path: String,
    version: String,
    fixed: String,
    status: String,
    severity: String,
    title: String,
    references: Vec<Reference>,
    ratings: Vec<Rating>,
}

fn vulnerability(json: &mut Json<impl Read>) -> Result<Vulnerability, ResultsError> {
    let mut found = Vulnerability::default();
    json.object(|json, key| {
        let place = match key {
            "VulnerabilityID" => &mut found.id,
            "PkgName" => &mut found.package,
            "PkgPath" => &mut found.path,
            "InstalledVersion" => &mut found.version,
            "FixedVersion" => &mut found.fixed,
            "Status" => &mut found.status,
            "Severity" => &mut found.severity,
            "Title" => &mut found.title,
            "CweIDs" => {
                let ids = json.texts()?;
                found.references.extend(ids.iter().filter_map(|id| reference("cwe", id)));
                return Ok(());
            }
            "PkgIdentifier" => {
                return json.object(|json, key| match key {
                    "PURL" => json.text_or_empty().map(|purl| found.references.extend(reference("purl", &purl))),
                    _ => json.skip(),
                });
            }
            "VendorIDs" => {
                let ids = json.texts()?;
                found.references.extend(ids.iter().filter_map(|id| vulnerability_reference(id)));
                return Ok(());
            }
            "CVSS" => return json.object(|json, source| cvss(json, source, &mut found.ratings)),
            _ => return json.skip(),
        };
        *place = json.text_or_empty()?;
        Ok(())
    })?;
    if found.id.is_empty() || found.package.is_empty() {
        return Err(json.foreign("a vulnerability lacks its id or the package's name"));
    }
    found.references.splice(0..0, vulnerability_reference(&found.id));
    Ok(found)
}

fn cvss(json: &mut Json<impl Read>, source: &str, ratings: &mut Vec<Rating>) -> Result<(), ResultsError> {
    // By version: vector and score.
    let mut found: [(String, Option<f64>); 3] = Default::default();
    json.object(|json, key| match key {
        "V2Vector" => json.text_or_empty().map(|vector| found[0].0 = vector),
        "V2Score" => json.number().map(|score| found[0].1 = score),
        "V3Vector" => json.text_or_empty().map(|vector| found[1].0 = vector),
        "V3Score" => json.number().map(|score| found[1].1 = score),
        "V40Vector" => json.text_or_empty().map(|vector| found[2].0 = vector),
        "V40Score" => json.number().map(|score| found[2].1 = score),
        _ => json.skip(),
    })?;
    let given = found.into_iter().filter(|(vector, score)| !vector.is_empty() || score.is_some());
    if ratings.len() < 256 {
        ratings.extend(given.map(|(vector, score)| Rating {
            scheme: "cvss".to_owned(),
            score,
            vector,
            source: source.to_owned(),
        }));
    }
    Ok(())
}

impl Vulnerability {
    fn report(self, part: &Part) -> Reported {
        let (control, severity) = control_of(&self.severity);
        let outcome = match self.status.as_str() {
            // Old versions say nothing of it.
            "" | "unknown" | "affected" | "fixed" | "will_not_fix" | "fix_deferred" | "end_of_life" => Outcome::Failed,
            "not_affected" => Outcome::NotApplicable { reason: "the vendor says that it is not affected".to_owned() },
            "under_investigation" => {
                Outcome::not_evaluated(Reason::ScannerSkipped, format!("{}: the vendor still looks into it", self.id))
            }
            other => {
                Outcome::not_evaluated(Reason::StatusUnknown, format!("{}: the status is `{}`", self.id, brief(other)))
            }
        };
        let remedy = match (self.fixed.as_str(), self.status.as_str()) {
            ("", "will_not_fix") => "will not be fixed".to_owned(),
            ("", _) => "no fix known".to_owned(),
            (versions, _) => format!("fixed in {versions}"),
        };
        let word = if self.severity.is_empty() { "UNKNOWN" } else { &self.severity };
        let title = if self.title.is_empty() { String::new() } else { format!(": {}", self.title) };
        let message = format!("{}, {word}, {remedy}{title}", self.id);
        let parts = ["vulnerability", &part.target, &self.id, &self.package, &self.version, &self.path];
        Reported {
            identity: identity("trivy", parts),
            kind: FindingKind::Vulnerability,
            control: CONTROLS[control].to_owned(),
            outcome,
            subject: format!("{} {}", self.package, self.version),
            word: self.status,
            severity,
            messages: vec![message],
            references: self.references,
            ratings: self.ratings,
        }
    }
}

#[derive(Default)]
struct Misconfiguration {
    id: String,
    avd: String,
    title: String,
    message: String,
    remedy: String,
    severity: String,
    status: String,
    resource: String,
    line: Option<u64>,
}

fn misconfiguration(json: &mut Json<impl Read>) -> Result<Misconfiguration, ResultsError> {
    let mut check = Misconfiguration::default();
    json.object(|json, key| {
        let place = match key {
            "ID" => &mut check.id,
            "AVDID" => &mut check.avd,
            "Title" => &mut check.title,
            "Message" => &mut check.message,
            "Resolution" => &mut check.remedy,
            "Severity" => &mut check.severity,
            "Status" => &mut check.status,
            "CauseMetadata" => {
                return json.object(|json, key| match key {
                    "Resource" => json.text_or_empty().map(|resource| check.resource = resource),
                    "StartLine" => json.count().map(|line| check.line = line),
                    _ => json.skip(),
                });
            }
            _ => return json.skip(),
        };
        *place = json.text_or_empty()?;
        Ok(())
    })?;
    if check.id.is_empty() { Err(json.foreign("a misconfiguration has no id")) } else { Ok(check) }
}

impl Misconfiguration {
    fn report(
        self,
        part: &Part,
        numbers: &mut HashMap<[String; 4], u64>,
        out: &mut Out<'_>,
    ) -> Result<(), ResultsError> {
        let outcome = match self.status.as_str() {
            "PASS" => Outcome::Passed,
            "FAIL" => Outcome::Failed,
            "EXCEPTION" => {
                let detail = "an exception in the scanner's own configuration leaves it out";
                Outcome::not_evaluated(Reason::ScannerSkipped, detail)
            }
            "" => Outcome::not_evaluated(Reason::StatusUnknown, "the scanner reports no status"),
            other => Outcome::not_evaluated(Reason::StatusUnknown, format!("the scanner reports `{}`", brief(other))),
        };
        let severity = severity::of_word(&self.severity);
        let references: Vec<Reference> = reference("avd", &self.avd).into_iter().collect();
        out.control(Declared {
            id: self.id.clone(),
            title: self.title,
            severity,
            references: references.clone(),
            not_applicable: None,
        })?;
        let identity = numbered(
            numbers,
            ["misconfiguration", &part.target, &self.id, &format!("{}\n{}", self.resource, self.message)],
        );
        let place = match (self.resource.as_str(), self.line) {
            ("", None) => String::new(),
            ("", Some(line)) => format!(":{line}"),
            (resource, None) => format!(" {resource}"),
            (resource, Some(line)) => format!(":{line} {resource}"),
        };
        let said =
            [self.message, self.remedy].into_iter().filter(|text| !text.is_empty()).collect::<Vec<_>>().join("; ");
        let quiet = said.is_empty() || outcome == Outcome::Passed;
        out.finding(Reported {
            identity,
            kind: FindingKind::Check,
            control: self.id,
            outcome,
            word: self.status,
            severity,
            subject: format!("{}{place}", part.target),
            messages: if quiet { Vec::new() } else { vec![said] },
            references,
            ratings: Vec::new(),
        })
    }
}

/// The identity of one of those that have all parts in common.
fn numbered(numbers: &mut HashMap<[String; 4], u64>, parts: [&str; 4]) -> crate::base::digest::Digest {
    let number = numbers.entry(parts.map(str::to_owned)).or_default();
    let which = identity("trivy", parts.into_iter().chain([number.to_string().as_str()]));
    *number += 1;
    which
}

fn secret(
    json: &mut Json<impl Read>,
    part: &Part,
    numbers: &mut HashMap<[String; 4], u64>,
    out: &mut Out<'_>,
) -> Result<(), ResultsError> {
    let (mut rule, mut title, mut word, mut line) = (String::new(), String::new(), String::new(), None);
    // What was found (`Match`, `Code`) is not taken over.
    json.object(|json, key| match key {
        "RuleID" => json.text_or_empty().map(|text| rule = text),
        "Title" => json.text_or_empty().map(|text| title = text),
        "Severity" => json.text_or_empty().map(|text| word = text),
        "StartLine" => json.count().map(|count| line = count),
        _ => json.skip(),
    })?;
    if rule.is_empty() {
        return Err(json.foreign("a secret has no rule"));
    }
    let identity = numbered(numbers, ["secret", &part.target, &rule, ""]);
    out.finding(Reported {
        identity,
        kind: FindingKind::Secret,
        control: NO_SECRETS.to_owned(),
        outcome: Outcome::Failed,
        severity: severity::of_word(&word),
        word,
        subject: line.map_or_else(|| part.target.clone(), |line| format!("{}:{line}", part.target)),
        messages: vec![if title.is_empty() { rule } else { format!("{rule}: {title}") }],
        references: Vec::new(),
        ratings: Vec::new(),
    })
}

fn licence(json: &mut Json<impl Read>, part: &Part, out: &mut Out<'_>) -> Result<(), ResultsError> {
    let (mut name, mut category, mut word) = (String::new(), String::new(), String::new());
    let (mut package, mut file) = (String::new(), String::new());
    json.object(|json, key| match key {
        "Name" => json.text_or_empty().map(|text| name = text),
        "Category" => json.text_or_empty().map(|text| category = text),
        "Severity" => json.text_or_empty().map(|text| word = text),
        "PkgName" => json.text_or_empty().map(|text| package = text),
        "FilePath" => json.text_or_empty().map(|text| file = text),
        _ => json.skip(),
    })?;
    let outcome = match category.as_str() {
        "forbidden" | "restricted" => Outcome::Failed,
        "reciprocal" | "notice" | "permissive" | "unencumbered" => Outcome::Passed,
        "unknown" => {
            Outcome::not_evaluated(Reason::ScannerSkipped, format!("the scanner does not know `{}`", brief(&name)))
        }
        other => Outcome::not_evaluated(Reason::StatusUnknown, format!("the category is `{}`", brief(other))),
    };
    let subject = [package.as_str(), file.as_str(), part.target.as_str()].into_iter().find(|text| !text.is_empty());
    out.finding(Reported {
        identity: identity("trivy", ["licence", &part.target, &name, &package, &file]),
        kind: FindingKind::Licence,
        control: LICENCES.to_owned(),
        messages: if outcome == Outcome::Passed { Vec::new() } else { vec![format!("{name}, {category}")] },
        outcome,
        severity: if word.is_empty() { Severity::Medium } else { severity::of_word(&word) },
        word: category,
        subject: subject.unwrap_or_default().to_owned(),
        references: reference("spdx-licence", &name).into_iter().collect(),
        ratings: Vec::new(),
    })
}

#[cfg(test)]
mod tests;
