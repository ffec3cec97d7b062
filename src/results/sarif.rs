//! SARIF 2.1.0 (OASIS): static analysis results of any tool.
//!
//! A rule is a control, a result is a finding. The meaning of a result's `kind` (section 3.27.9) here:
//!
//! | kind | counts as |
//! |---|---|
//! | fail, or none | failed |
//! | pass | passed |
//! | notApplicable | not applicable |
//! | open, review, informational | not evaluated, `scanner-skipped` |
//! | any other word | not evaluated, `status-unknown` |
//!
//! A rule that a tool lists and has no result of is not evaluated: nothing in the file says that it passed. A suppressed
//! result counts as the tool gave it, which is noted: waivers are gapscan's, and expire. One that a baseline says is absent
//! is left out, which is counted. A run that did not end well, or that tells of errors, is a gap.
//!
//! Results may come before the rules that they refer to, so that the file is read twice.
//!
//! Identity of a finding: its fingerprints where it has any, else its partial fingerprints; without either the artifact's
//! URI, the logical location, the message, and which one it is of those that have all of these in common. Always the tool's
//! name and the rule's id.

use std::collections::HashMap;
use std::io::Read;

use super::event::{Declared, FindingKind, Out, Rating, Reported, identity, reference, vulnerability_reference};
use super::json::{Json, Kind};
use super::{ResultsError, severity};
use crate::base::limits::Limits;
use crate::base::spool::Content;
use crate::base::text::brief;
use crate::model::control::{Reference, Severity};
use crate::model::outcome::Outcome;
use crate::model::reason::Reason;

const FORMAT: &str = "SARIF";

/// What a result counts as of which neither it nor its rule says a level (section 3.27.10).
const DEFAULT_LEVEL: &str = "warning";

/// One run without its results.
#[derive(Default)]
struct Run {
    tool: Option<String>,
    version: Option<String>,
    rules: Vec<Rule>,
    /// Where each rule is in `rules`, by its id.
    index: HashMap<String, usize>,
    artifacts: Vec<String>,
    problems: Vec<String>,
}

#[derive(Clone, Default)]
struct Rule {
    id: String,
    title: String,
    level: Option<String>,
    /// A CVSS score, as code hosts read it.
    score: Option<f64>,
    references: Vec<Reference>,
}

/// One result.
#[derive(Default)]
struct Found {
    rule: Option<String>,
    rule_index: Option<u64>,
    kind: Option<String>,
    level: Option<String>,
    message: String,
    place: Option<Place>,
    logical: String,
    fingerprints: Vec<(String, String)>,
    partial: Vec<(String, String)>,
    suppressed: bool,
    absent: bool,
    score: Option<f64>,
    references: Vec<Reference>,
}

/// Where it is.
#[derive(Default)]
struct Place {
    uri: String,
    index: Option<u64>,
    line: Option<u64>,
}

/// Reads a log file.
pub(crate) fn read<C: Content + ?Sized>(content: &C, out: &mut Out<'_>, limits: &Limits) -> Result<(), ResultsError> {
    let runs = self::runs(content, limits)?;
    for (number, run) in runs.iter().enumerate() {
        out.scanner(run.tool.clone(), run.version.clone(), None);
        for rule in &run.rules {
            out.control(rule.declared())?;
        }
        for problem in &run.problems {
            out.gap(format!("run {}", number + 1), Reason::ScannerFailed, problem.as_str())?;
        }
    }
    let mut json = Json::new(content.reader(), FORMAT, limits.result_bytes);
    let (mut suppressed, mut absent, mut at) = (0_u64, 0_u64, 0);
    json.object(|json, key| match key {
        "runs" => json.array(|json| {
            let empty = Run::default();
            let run = runs.get(at).unwrap_or(&empty);
            at += 1;
            let mut numbers: HashMap<[String; 4], u64> = HashMap::new();
            let mut has_results = false;
            json.object(|json, key| match key {
                "results" => {
                    has_results = json.kind()? == Kind::Array;
                    json.array(|json| {
                        let found = found(json)?;
                        if found.absent {
                            absent += 1;
                            return Ok(());
                        }
                        suppressed += u64::from(found.suppressed);
                        out.finding(found.report(run, &mut numbers))
                    })
                }
                _ => json.skip(),
            })?;
            if has_results {
                return Ok(());
            }
            // Section 3.14.23: without results, or with null, the tool did not look.
            out.gap(format!("run {at}"), Reason::NoOutput, "the run has no list of results: the tool did not look")
        }),
        _ => json.skip(),
    })?;
    json.end()?;
    if suppressed > 0 {
        out.note(format!("{suppressed} results are suppressed in the file, and count as the tool gave them"));
    }
    if absent > 0 {
        out.note(format!("{absent} results are of an earlier run, and absent in this one"));
    }
    Ok(())
}

/// All runs without their results.
fn runs<C: Content + ?Sized>(content: &C, limits: &Limits) -> Result<Vec<Run>, ResultsError> {
    let mut json = Json::new(content.reader(), FORMAT, limits.result_bytes);
    if json.kind()? != Kind::Object {
        return Err(json.foreign("it is no object"));
    }
    let (mut runs, mut version) = (None, None);
    json.object(|json, key| match key {
        "version" => json.scalar().map(|text| version = text),
        "runs" => {
            if json.kind()? != Kind::Array {
                return Err(json.foreign("its runs are no list"));
            }
            let mut found = Vec::new();
            json.array(|json| {
                if found.len() >= limits.result_items {
                    return Err(ResultsError::TooMany { limit: limits.result_items });
                }
                run(json, limits).map(|run| found.push(run))
            })?;
            runs = Some(found);
            Ok(())
        }
        _ => json.skip(),
    })?;
    json.end()?;
    match (version.as_deref(), runs) {
        (Some("2.1.0"), Some(runs)) => Ok(runs),
        (Some(other), Some(_)) => Err(json.foreign(format!("its version is `{}`, and 2.1.0 is read", brief(other)))),
        _ => Err(json.foreign("it has no version or no runs")),
    }
}

fn run(json: &mut Json<impl Read>, limits: &Limits) -> Result<Run, ResultsError> {
    let mut run = Run::default();
    json.object(|json, key| match key {
        "tool" => json.object(|json, key| match key {
            "driver" => driver(json, &mut run, limits),
            // Rules of plug-ins are known by their ids.
            "extensions" => json.array(|json| {
                json.object(|json, key| match key {
                    "rules" => rules(json, &mut run, limits),
                    _ => json.skip(),
                })
            }),
            _ => json.skip(),
        }),
        "artifacts" => json.array(|json| {
            let mut uri = String::new();
            json.object(|json, key| match key {
                "location" => json.object(|json, key| match key {
                    "uri" => json.text_or_empty().map(|text| uri = text),
                    _ => json.skip(),
                }),
                _ => json.skip(),
            })?;
            if run.artifacts.len() < limits.result_items {
                run.artifacts.push(uri);
            }
            Ok(())
        }),
        "invocations" => json.array(|json| invocation(json, &mut run.problems)),
        _ => json.skip(),
    })?;
    match run.tool {
        Some(_) => Ok(run),
        None => Err(json.foreign("a run does not name its tool")),
    }
}

fn driver(json: &mut Json<impl Read>, run: &mut Run, limits: &Limits) -> Result<(), ResultsError> {
    let (mut version, mut semantic) = (None, None);
    json.object(|json, key| match key {
        "name" => json.text().map(|name| run.tool = name),
        "version" => json.scalar().map(|text| version = text),
        "semanticVersion" => json.scalar().map(|text| semantic = text),
        "rules" => rules(json, run, limits),
        _ => json.skip(),
    })?;
    run.version = version.or(semantic);
    Ok(())
}

fn rules(json: &mut Json<impl Read>, run: &mut Run, limits: &Limits) -> Result<(), ResultsError> {
    json.array(|json| {
        let rule = rule(json)?;
        if run.rules.len() >= limits.result_items {
            return Err(ResultsError::TooMany { limit: limits.result_items });
        }
        run.index.entry(rule.id.clone()).or_insert(run.rules.len());
        run.rules.push(rule);
        Ok(())
    })
}

fn rule(json: &mut Json<impl Read>) -> Result<Rule, ResultsError> {
    let mut rule = Rule::default();
    let (mut name, mut short) = (String::new(), String::new());
    json.object(|json, key| match key {
        "id" => json.text_or_empty().map(|id| rule.id = id),
        "name" => json.text_or_empty().map(|text| name = text),
        "shortDescription" => text_of(json).map(|text| short = text),
        "defaultConfiguration" => json.object(|json, key| match key {
            "level" => json.text().map(|level| rule.level = level),
            _ => json.skip(),
        }),
        "properties" => properties(json, &mut rule.score, &mut rule.references),
        "relationships" => json.array(|json| {
            json.object(|json, key| match key {
                "target" => taxon(json, &mut rule.references),
                _ => json.skip(),
            })
        }),
        _ => json.skip(),
    })?;
    if rule.id.is_empty() {
        return Err(json.foreign("a rule has no id"));
    }
    if let Some(known) = vulnerability_reference(&rule.id).filter(|known| known.scheme != "advisory") {
        rule.references.insert(0, known);
    }
    rule.title = if short.is_empty() { name } else { short };
    Ok(rule)
}

/// `{"text": ...}`.
fn text_of(json: &mut Json<impl Read>) -> Result<String, ResultsError> {
    let mut message = String::new();
    json.object(|json, key| match key {
        "text" => json.text_or_empty().map(|text| message = text),
        _ => json.skip(),
    })?;
    Ok(message)
}

/// A category of a taxonomy, as `{"id": "CWE-120", "toolComponent": {"name": "CWE"}}`.
fn taxon(json: &mut Json<impl Read>, references: &mut Vec<Reference>) -> Result<(), ResultsError> {
    let (mut id, mut taxonomy) = (String::new(), String::new());
    json.object(|json, key| match key {
        "id" => json.scalar().map(|text| id = text.unwrap_or_default()),
        "toolComponent" => json.object(|json, key| match key {
            "name" => json.scalar().map(|text| taxonomy = text.unwrap_or_default().to_ascii_lowercase()),
            _ => json.skip(),
        }),
        _ => json.skip(),
    })?;
    if !taxonomy.is_empty() && references.len() < 256 {
        references.extend(reference(&taxonomy, &id));
    }
    Ok(())
}

/// The property bag: `security-severity` and tags, as code hosts read them.
fn properties(
    json: &mut Json<impl Read>,
    score: &mut Option<f64>,
    references: &mut Vec<Reference>,
) -> Result<(), ResultsError> {
    json.object(|json, key| match key {
        "security-severity" => {
            let text = json.scalar()?;
            *score = text.and_then(|text| text.trim().parse().ok()).filter(|score| (0.0..=10.0).contains(score));
            Ok(())
        }
        "tags" => {
            for tag in json.texts()? {
                let known = tag.rsplit('/').next().unwrap_or_default();
                let scheme = known.get(..4).map(str::to_ascii_lowercase);
                if references.len() < 256 && scheme.is_some_and(|begin| ["cwe-", "cve-", "ghsa"].contains(&&*begin)) {
                    references.extend(vulnerability_reference(known));
                }
            }
            Ok(())
        }
        _ => json.skip(),
    })
}

fn invocation(json: &mut Json<impl Read>, problems: &mut Vec<String>) -> Result<(), ResultsError> {
    let mut tell = |problem: String| {
        if problems.len() < 1000 {
            problems.push(problem);
        }
    };
    json.object(|json, key| match key {
        "executionSuccessful" => {
            if json.boolean()? == Some(false) {
                tell("the tool says that it did not end well".to_owned());
            }
            Ok(())
        }
        "toolExecutionNotifications" | "toolConfigurationNotifications" => json.array(|json| {
            let (mut level, mut message) = (None, String::new());
            json.object(|json, key| match key {
                "level" => json.text().map(|text| level = text),
                "message" => text_of(json).map(|text| message = text),
                _ => json.skip(),
            })?;
            if level.as_deref() == Some("error") {
                tell(format!("the tool tells of an error: {message}"));
            }
            Ok(())
        }),
        _ => json.skip(),
    })
}

fn found(json: &mut Json<impl Read>) -> Result<Found, ResultsError> {
    let mut found = Found::default();
    json.object(|json, key| match key {
        "ruleId" => json.text().map(|id| found.rule = id),
        "ruleIndex" => index(json).map(|index| found.rule_index = index),
        "rule" => json.object(|json, key| match key {
            "id" => {
                let id = json.text()?;
                found.rule = found.rule.take().or(id);
                Ok(())
            }
            "index" => {
                let index = index(json)?;
                found.rule_index = found.rule_index.or(index);
                Ok(())
            }
            _ => json.skip(),
        }),
        "kind" => json.text().map(|kind| found.kind = kind),
        "level" => json.text().map(|level| found.level = level),
        "message" => text_of(json).map(|text| found.message = text),
        "locations" => json.array(|json| {
            if found.place.is_some() {
                return json.skip();
            }
            location(json, &mut found)
        }),
        "fingerprints" => fingerprints(json, &mut found.fingerprints),
        "partialFingerprints" => fingerprints(json, &mut found.partial),
        "suppressions" => json.array(|json| {
            found.suppressed = true;
            json.skip()
        }),
        "baselineState" => json.text().map(|state| found.absent = state.as_deref() == Some("absent")),
        "properties" => properties(json, &mut found.score, &mut found.references),
        "taxa" => json.array(|json| taxon(json, &mut found.references)),
        _ => json.skip(),
    })?;
    Ok(found)
}

/// An index; -1 stands for none (section 3.7.4).
fn index(json: &mut Json<impl Read>) -> Result<Option<u64>, ResultsError> {
    let number = json.number()?;
    Ok(number.filter(|number| *number >= 0.0 && number.fract() == 0.0).map(|number| number as u64))
}

fn location(json: &mut Json<impl Read>, found: &mut Found) -> Result<(), ResultsError> {
    let mut place = Place::default();
    json.object(|json, key| match key {
        "physicalLocation" => json.object(|json, key| match key {
            "artifactLocation" => json.object(|json, key| match key {
                "uri" => json.text_or_empty().map(|uri| place.uri = uri),
                "index" => index(json).map(|index| place.index = index),
                _ => json.skip(),
            }),
            "region" => json.object(|json, key| match key {
                "startLine" => index(json).map(|line| place.line = line),
                _ => json.skip(),
            }),
            _ => json.skip(),
        }),
        "logicalLocations" => json.array(|json| {
            json.object(|json, key| match key {
                "fullyQualifiedName" | "name" => {
                    let name = json.text_or_empty()?;
                    if found.logical.is_empty() {
                        found.logical = name;
                    }
                    Ok(())
                }
                _ => json.skip(),
            })
        }),
        _ => json.skip(),
    })?;
    found.place = Some(place);
    Ok(())
}

fn fingerprints(json: &mut Json<impl Read>, into: &mut Vec<(String, String)>) -> Result<(), ResultsError> {
    json.object(|json, key| {
        let value = json.scalar()?.unwrap_or_default();
        if into.len() < 64 {
            into.push((key.to_owned(), value));
        }
        Ok(())
    })?;
    into.sort();
    Ok(())
}

impl Rule {
    fn declared(&self) -> Declared {
        Declared {
            id: self.id.clone(),
            title: self.title.clone(),
            severity: rated(self.score, self.level.as_deref().unwrap_or(DEFAULT_LEVEL)),
            references: self.references.clone(),
            not_applicable: None,
        }
    }
}

/// The score counts before the level: it is about security, and the level about how loud the tool is.
fn rated(score: Option<f64>, level: &str) -> Severity {
    score.map_or_else(|| severity::of_word(level), severity::of_cvss)
}

impl Found {
    fn report(self, run: &Run, numbers: &mut HashMap<[String; 4], u64>) -> Reported {
        let by_index = self.rule_index.and_then(|index| run.rules.get(usize::try_from(index).ok()?));
        let by_id = |id: &str| run.index.get(id).and_then(|at| run.rules.get(*at));
        // An id may go on below that of its rule, as `CA1000/1` (section 3.27.5).
        let rule = match self.rule.as_deref() {
            Some(id) => by_id(id).or_else(|| id.rsplit_once('/').and_then(|(above, _)| by_id(above))),
            None => by_index,
        };
        let control = rule.map(|rule| rule.id.clone()).or(self.rule).unwrap_or_else(|| "no-rule".to_owned());
        let outcome = match self.kind.as_deref() {
            None | Some("fail") => Outcome::Failed,
            Some("pass") => Outcome::Passed,
            Some("notApplicable") => {
                let reason =
                    if self.message.is_empty() { "the tool reports it as not applicable" } else { &self.message };
                Outcome::NotApplicable { reason: reason.to_owned() }
            }
            Some(word @ ("open" | "review" | "informational")) => Outcome::not_evaluated(
                Reason::ScannerSkipped,
                format!("the tool reports `{word}`, which is no verdict"),
            ),
            Some(other) => {
                Outcome::not_evaluated(Reason::StatusUnknown, format!("the tool reports `{}`", brief(other)))
            }
        };
        let place = self.place.unwrap_or_default();
        let uri = match place.index.and_then(|index| run.artifacts.get(usize::try_from(index).ok()?)) {
            Some(uri) if place.uri.is_empty() => uri.clone(),
            _ => place.uri,
        };
        let tool = run.tool.clone().unwrap_or_default();
        let prints = if self.fingerprints.is_empty() { self.partial } else { self.fingerprints };
        let identity = if prints.is_empty() {
            let key = [control.clone(), uri.clone(), self.logical.clone(), self.message.clone()];
            let number = numbers.entry(key.clone()).or_default();
            let parts = [&tool].into_iter().chain(&key).map(String::as_str);
            let which = identity("sarif", parts.chain([number.to_string().as_str()]));
            *number += 1;
            which
        } else {
            let parts = prints.iter().flat_map(|(name, value)| [name.as_str(), value.as_str()]);
            identity("sarif", [tool.as_str(), &control].into_iter().chain(parts))
        };
        let level = self.level.as_deref().or(rule.and_then(|rule| rule.level.as_deref())).unwrap_or(DEFAULT_LEVEL);
        let score = self.score.or(rule.and_then(|rule| rule.score));
        let subject = match (uri.as_str(), place.line) {
            ("", _) => self.logical,
            (uri, Some(line)) => format!("{uri}:{line}"),
            (uri, None) => uri.to_owned(),
        };
        let ratings = score.map(|score| Rating { scheme: "cvss".to_owned(), score: Some(score), ..Rating::default() });
        let mut references = rule.map(|rule| rule.references.clone()).unwrap_or_default();
        references.extend(self.references);
        Reported {
            identity,
            kind: FindingKind::Check,
            severity: rated(score, level),
            control,
            outcome,
            word: self.kind.unwrap_or_else(|| level.to_owned()),
            subject,
            messages: if self.message.is_empty() { Vec::new() } else { vec![self.message] },
            references,
            ratings: ratings.into_iter().collect(),
        }
    }
}

#[cfg(test)]
mod tests;
