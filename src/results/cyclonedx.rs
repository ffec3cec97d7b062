//! CycloneDX as JSON, 1.2 to 1.7: an inventory, with or without vulnerabilities.
//!
//! A component is a component; one that holds others counts beside them. An inventory alone has no control. A vulnerability
//! is a finding for each component that it affects, and fails the control of its severity ([`super::vulnerabilities`]); none
//! passes by the absence of vulnerabilities, since nothing says that any were looked for. The meaning of its analysis
//! (`analysis.state`) here:
//!
//! | state | counts as |
//! |---|---|
//! | exploitable, or none | failed |
//! | in_triage | not evaluated, `scanner-skipped` |
//! | resolved, resolved_with_pedigree, false_positive, not_affected | left out, which is counted; no pass |
//! | any other word | not evaluated, `status-unknown` |
//!
//! The worst of its ratings counts.
//!
//! Identity of a finding: the vulnerability's id and source, and the reference of what it affects: the package URL where that
//! is one, since other references are new in each file, else the component's name and version.

use std::collections::HashMap;
use std::io::Read;

use super::event::{
    Budget, Component, FindingKind, Out, Rating, Reported, identity, keep, reference, vulnerability_reference,
};
use super::json::{Json, Kind};
use super::vulnerabilities::{self, CONTROLS, control_of};
use super::{ResultsError, severity};
use crate::base::limits::Limits;
use crate::base::spool::Content;
use crate::base::text::brief;
use crate::model::control::{Reference, Severity};
use crate::model::outcome::Outcome;
use crate::model::reason::Reason;

const FORMAT: &str = "CycloneDX";

/// What the file says of itself.
#[derive(Default)]
struct About {
    format: Option<String>,
    version: Option<String>,
    tool: Option<String>,
    tool_version: Option<String>,
    subject: Option<String>,
    /// The names of components by their references, where there are vulnerabilities that may refer to them.
    names: HashMap<String, String>,
}

/// Reads a bill of materials.
pub(crate) fn read<C: Content + ?Sized>(content: &C, out: &mut Out<'_>, limits: &Limits) -> Result<(), ResultsError> {
    let about = about(content, limits)?;
    out.scanner(about.tool.clone(), about.tool_version.clone(), None);
    out.target(about.subject.clone().unwrap_or_default())?;
    let mut declared = [false; 5];
    let mut json = Json::new(content.reader(), FORMAT, limits.result_bytes);
    json.object(|json, key| match key {
        "components" => json.array(|json| component(json, &mut |_, component| out.component(component))),
        "vulnerabilities" => json.array(|json| vulnerability(json, &about, &mut declared, out, limits)),
        _ => json.skip(),
    })?;
    json.end()
}

fn about<C: Content + ?Sized>(content: &C, limits: &Limits) -> Result<About, ResultsError> {
    let mut json = Json::new(content.reader(), FORMAT, limits.result_bytes);
    if json.kind()? != Kind::Object {
        return Err(json.foreign("it is no object"));
    }
    let mut about = About::default();
    let (mut lists, mut budget) = (true, Budget::of(limits));
    json.object(|json, key| match key {
        "bomFormat" => json.text().map(|format| about.format = format),
        "specVersion" => json.scalar().map(|version| about.version = version),
        "metadata" => json.object(|json, key| match key {
            "tools" => tools(json, &mut about),
            "component" => {
                let mut whole = None;
                component(json, &mut |reference, component| {
                    // The one around all others comes last.
                    whole = Some(format!("{} {}", component.name, component.version).trim().to_owned());
                    if !reference.is_empty() {
                        let name = named(&component);
                        budget.hold(reference.len() + name.len())?;
                        about.names.insert(reference.to_owned(), name);
                    }
                    Ok(())
                })?;
                about.subject = whole;
                Ok(())
            }
            _ => json.skip(),
        }),
        "components" => {
            lists &= matches!(json.kind()?, Kind::Array | Kind::Null);
            json.array(|json| {
                component(json, &mut |reference, component| {
                    // What a package URL refers to needs no other name.
                    if !reference.is_empty() && !reference.starts_with("pkg:") {
                        let name = named(&component);
                        budget.hold(reference.len() + name.len())?;
                        about.names.insert(reference.to_owned(), name);
                    }
                    Ok(())
                })
            })
        }
        "vulnerabilities" => {
            lists &= matches!(json.kind()?, Kind::Array | Kind::Null);
            json.skip()
        }
        _ => json.skip(),
    })?;
    json.end()?;
    if !lists {
        return Err(json.foreign("its components or vulnerabilities are no list"));
    }
    match (about.format.as_deref(), about.version.as_deref()) {
        (Some("CycloneDX"), Some(version)) if version.starts_with("1.") => Ok(about),
        (Some("CycloneDX"), version) => {
            Err(json.foreign(format!("its version is `{}`, and 1.2 to 1.7 are read", brief(version.unwrap_or("none")))))
        }
        _ => Err(json.foreign("its bomFormat is not CycloneDX")),
    }
}

/// What a finding about it shows, and what its identity has where its reference is no package URL.
fn named(component: &Component) -> String {
    match component.purl.as_str() {
        "" => format!("{} {}", component.name, component.version).trim().to_owned(),
        purl => purl.to_owned(),
    }
}

/// A list of tools, or since 1.5 an object with components and services.
fn tools(json: &mut Json<impl Read>, about: &mut About) -> Result<(), ResultsError> {
    let mut take = |json: &mut Json<_>| {
        let (mut name, mut version) = (None, None);
        json.object(|json, key| match key {
            "name" => json.scalar().map(|text| name = text),
            "version" => json.scalar().map(|text| version = text),
            _ => json.skip(),
        })?;
        if about.tool.is_none() {
            (about.tool, about.tool_version) = (name, version);
        }
        Ok(())
    };
    match json.kind()? {
        Kind::Array => json.array(take),
        Kind::Object => json.object(|json, key| match key {
            "components" => json.array(&mut take),
            _ => json.skip(),
        }),
        _ => json.skip(),
    }
}

/// One component and those in it, with their references.
fn component<R: Read>(
    json: &mut Json<R>,
    take: &mut dyn FnMut(&str, Component) -> Result<(), ResultsError>,
) -> Result<(), ResultsError> {
    let mut component = Component::default();
    let (mut reference, mut group) = (String::new(), String::new());
    json.object(|json, key| match key {
        "bom-ref" => json.text_or_empty().map(|text| reference = text),
        "type" => json.text_or_empty().map(|text| component.kind = text),
        "group" => json.text_or_empty().map(|text| group = text),
        "name" => json.text_or_empty().map(|text| component.name = text),
        "version" => json.text_or_empty().map(|text| component.version = text),
        "purl" => json.text_or_empty().map(|text| component.purl = text),
        "licenses" => json.array(|json| licence(json, &mut component.licences)),
        "components" => json.array(|json| self::component(json, take)),
        _ => json.skip(),
    })?;
    if component.name.is_empty() {
        return Err(json.foreign("a component has no name"));
    }
    if !group.is_empty() {
        component.name = format!("{group}/{}", component.name);
    }
    take(&reference, component)
}

/// `{"license": {"id": ...}}`, `{"license": {"name": ...}}` or `{"expression": ...}`.
fn licence(json: &mut Json<impl Read>, licences: &mut Vec<String>) -> Result<(), ResultsError> {
    let mut take = |name: String| {
        if !name.is_empty() && licences.len() < 256 {
            licences.push(name);
        }
    };
    json.object(|json, key| match key {
        "license" => json.object(|json, key| match key {
            "id" | "name" => json.text_or_empty().map(&mut take),
            _ => json.skip(),
        }),
        "expression" => json.text_or_empty().map(&mut take),
        _ => json.skip(),
    })
}

#[derive(Default)]
struct Found {
    id: String,
    source: String,
    ratings: Vec<Rating>,
    worst: Option<Severity>,
    word: String,
    references: Vec<Reference>,
    affects: Vec<String>,
    state: String,
    message: String,
}

fn vulnerability(
    json: &mut Json<impl Read>,
    about: &About,
    declared: &mut [bool; 5],
    out: &mut Out<'_>,
    limits: &Limits,
) -> Result<(), ResultsError> {
    // Each of them is a finding, so that none may be left out.
    let (mut found, mut budget) = (Found::default(), Budget::of(limits));
    json.object(|json, key| match key {
        "id" => json.text_or_empty().map(|id| found.id = id),
        "source" => json.object(|json, key| match key {
            "name" => json.text_or_empty().map(|name| found.source = name),
            _ => json.skip(),
        }),
        "ratings" => json.array(|json| rating(json, &mut found)),
        "cwes" => {
            let numbers = json.texts()?;
            keep(&mut found.references, numbers.iter().filter_map(|number| reference("cwe", &format!("CWE-{number}"))));
            Ok(())
        }
        "references" => json.array(|json| {
            json.object(|json, key| match key {
                "id" => json.text_or_empty().map(|id| keep(&mut found.references, vulnerability_reference(&id))),
                _ => json.skip(),
            })
        }),
        "affects" => json.array(|json| {
            json.object(|json, key| match key {
                "ref" => {
                    let reference = json.text_or_empty()?;
                    budget.hold(size_of::<String>() + reference.len())?;
                    found.affects.push(reference);
                    Ok(())
                }
                _ => json.skip(),
            })
        }),
        "analysis" => json.object(|json, key| match key {
            "state" => json.text_or_empty().map(|state| found.state = state),
            _ => json.skip(),
        }),
        "recommendation" => json.text_or_empty().map(|text| found.message = text),
        _ => json.skip(),
    })?;
    if found.id.is_empty() {
        return Err(json.foreign("a vulnerability has no id"));
    }
    found.report(about, declared, out)
}

fn rating(json: &mut Json<impl Read>, found: &mut Found) -> Result<(), ResultsError> {
    let (mut rating, mut word, mut method) = (Rating::default(), String::new(), String::new());
    json.object(|json, key| match key {
        "score" => json.number().map(|score| rating.score = score),
        "severity" => json.text_or_empty().map(|text| word = text),
        "method" => json.text_or_empty().map(|text| method = text),
        "vector" => json.text_or_empty().map(|vector| rating.vector = vector),
        "source" => json.object(|json, key| match key {
            "name" => json.text_or_empty().map(|name| rating.source = name),
            _ => json.skip(),
        }),
        _ => json.skip(),
    })?;
    let is_cvss = method.to_ascii_lowercase().starts_with("cvss");
    rating.scheme = if is_cvss { "cvss".to_owned() } else { method };
    let severity =
        severity::rated(&word).or(rating.score.filter(|_| is_cvss && word.is_empty()).map(severity::of_cvss));
    if severity > found.worst {
        found.worst = severity;
        found.word = severity.map_or("", Severity::word).to_owned();
    }
    if found.ratings.len() < 256 && (rating.score.is_some() || !rating.vector.is_empty()) {
        found.ratings.push(rating);
    }
    Ok(())
}

impl Found {
    fn report(mut self, about: &About, declared: &mut [bool; 5], out: &mut Out<'_>) -> Result<(), ResultsError> {
        let (control, severity) = control_of(&self.word);
        let outcome = match self.state.as_str() {
            "" | "exploitable" => Outcome::Failed,
            "in_triage" => Outcome::not_evaluated(
                Reason::ScannerSkipped,
                format!("{}: somebody still looks into it", brief(&self.id)),
            ),
            "resolved" | "resolved_with_pedigree" | "false_positive" | "not_affected" => {
                Outcome::NotApplicable { reason: format!("the file says that it is {}", self.state) }
            }
            other => Outcome::not_evaluated(Reason::StatusUnknown, format!("its state is `{}`", brief(other))),
        };
        let left_out = matches!(outcome, Outcome::NotApplicable { .. });
        if !left_out && !std::mem::replace(&mut declared[control], true) {
            vulnerabilities::declare(out, control)?;
        }
        self.references.splice(0..0, vulnerability_reference(&self.id));
        // A vulnerability that names nothing is about the whole.
        if self.affects.is_empty() {
            self.affects.push(String::new());
        }
        let rated = if self.word.is_empty() { "unrated" } else { &self.word };
        let remedy = if self.message.is_empty() { String::new() } else { format!(", {}", self.message) };
        let message = format!("{}, {rated}{remedy}", self.id);
        for affected in &self.affects {
            let subject = about.names.get(affected).cloned().unwrap_or_else(|| affected.clone());
            let mut references = self.references.clone();
            references.extend(
                Some(&subject).filter(|name| name.starts_with("pkg:")).and_then(|purl| reference("purl", purl)),
            );
            let reported = Reported {
                identity: identity("cyclonedx", [&self.id, &self.source, &subject]),
                kind: FindingKind::Vulnerability,
                control: CONTROLS[control].to_owned(),
                outcome: outcome.clone(),
                word: self.state.clone(),
                severity,
                subject,
                messages: vec![message.clone()],
                references,
                ratings: self.ratings.clone(),
            };
            if left_out { out.suppressed(reported)? } else { out.finding(reported)? }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
