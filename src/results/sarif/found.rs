//! One result of a run.

use std::io::Read;

use super::rule::{DEFAULT_LEVEL, properties, rated, taxon, text_of};
use super::run::Run;
use crate::base::text::brief;
use crate::model::control::Reference;
use crate::model::outcome::Outcome;
use crate::model::reason::Reason;
use crate::results::ResultsError;
use crate::results::event::{FindingKind, Numbers, Rating, Reported, identity};
use crate::results::json::Json;

/// One result.
#[derive(Default)]
pub(super) struct Found {
    pub(super) rule: Option<String>,
    pub(super) rule_index: Option<u64>,
    pub(super) kind: Option<String>,
    pub(super) level: Option<String>,
    pub(super) message: String,
    pub(super) place: Option<Place>,
    pub(super) logical: String,
    pub(super) fingerprints: Vec<(String, String)>,
    pub(super) partial: Vec<(String, String)>,
    pub(super) suppressed: bool,
    pub(super) absent: bool,
    pub(super) score: Option<f64>,
    pub(super) references: Vec<Reference>,
}

/// Where it is.
#[derive(Default)]
pub(super) struct Place {
    pub(super) uri: String,
    pub(super) index: Option<u64>,
    pub(super) line: Option<u64>,
}

pub(super) fn found(json: &mut Json<impl Read>) -> Result<Found, ResultsError> {
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

impl Found {
    pub(super) fn report(self, run: &Run, numbers: &mut Numbers) -> Reported {
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
            numbers.identity("sarif", &[&tool, &control, &uri, &self.logical, &self.message])
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
