//! The controls of an InSpec profile, from the list that InSpec wrote of it (`inspec json`), checked against the profile.
//!
//! The list is what InSpec would run, with the controls of profiles that are included. It is somebody's file, made at some time,
//! so it must fit what is bundled: name and version, and every control that the Ruby files name, in both directions. What the
//! files do not name as a whole (`"a-#{n}"`, a variable) may be any control that fits; where one is left out by a condition,
//! the list must have been made where it is not.
//!
//! What would need the network in the enclave is refused: dependencies that are not vendored, and those from a Supermarket.

mod vendored;

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use super::ruby::{self, Name, Named, Scan};
use super::{ContentError, Files, below, line, text, unusable_id, yaml};
use crate::base::text::brief;
use crate::model::control::{Control, Reference, Severity};
use crate::model::profile_document::InspecSource;
use crate::results::inspec::scheme;
use vendored::Tree;

const WHAT: &str = "an InSpec profile";
const REMEDY: &str = "run `cinc-auditor json --legacy-export` (or `inspec json --legacy-export`) on this very profile, with its \
                      vendor/ and inspec.lock; without --legacy-export controls of included profiles are left out";

/// `inspec.yml`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Metadata {
    name: String,
    version: String,
    depends: Vec<Depends>,
}

/// Another profile that one needs.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Depends {
    name: String,
    path: Option<String>,
    url: Option<serde_json::Value>,
    git: Option<serde_json::Value>,
    compliance: Option<serde_json::Value>,
}

/// What InSpec wrote.
#[derive(Deserialize)]
struct Listing {
    #[serde(default)]
    name: String,
    #[serde(default)]
    version: Option<String>,
    #[serde(default)]
    status: Option<String>,
    #[serde(default)]
    status_message: Option<String>,
    controls: Vec<Listed>,
}

#[derive(Deserialize)]
struct Listed {
    id: String,
    #[serde(default)]
    title: Option<String>,
    #[serde(default)]
    desc: Option<String>,
    #[serde(default)]
    descriptions: Option<Descriptions>,
    #[serde(default)]
    impact: Option<f64>,
    #[serde(default)]
    refs: Option<Vec<serde_json::Value>>,
    #[serde(default)]
    tags: BTreeMap<String, serde_json::Value>,
}

/// Profiles have them as an object, results as a list.
#[derive(Deserialize)]
#[serde(untagged)]
enum Descriptions {
    Named(BTreeMap<String, serde_json::Value>),
    Labelled(Vec<Labelled>),
}

#[derive(Deserialize)]
struct Labelled {
    label: String,
    data: serde_json::Value,
}

/// What the Ruby files of a profile, and of those that it includes, say.
#[derive(Default)]
struct Said {
    /// Controls that must be in the list, with the place that names them.
    needed: BTreeMap<String, String>,
    /// All names that one in the list may have.
    known: Vec<Name>,
    skipped: BTreeSet<String>,
    problems: Vec<String>,
}

/// The controls of the profile that `source` names, in the order of InSpec's list.
///
/// # Errors
/// When the profile or the list can't be read, do not fit together, or the profile needs what is not in it.
pub fn controls(files: &Files, source: &InspecSource) -> Result<Vec<Control>, ContentError> {
    let fail = |problems| ContentError { what: WHAT, problems, remedy: Some(REMEDY) };
    let tree = Tree::of(files, &source.path).map_err(|problem| fail(vec![problem]))?;
    let list = text(files, &source.json).map_err(|problem| fail(vec![problem]))?;
    let list: Listing = serde_json::from_str(list).map_err(|e| {
        fail(vec![format!("`{}`: it is no list of controls: {}", brief(&source.json), brief(&e.to_string()))])
    })?;
    let mut said = Said::default();
    for depends in &tree.metadata.depends {
        let sources = [depends.url.is_some(), depends.git.is_some(), depends.compliance.is_some()];
        if depends.path.is_none() && !sources.contains(&true) {
            said.problems.push(format!(
                "`{}`: `{}` comes from a Supermarket; name its url or its path, and vendor it",
                below(&source.path, "inspec.yml"),
                brief(&depends.name)
            ));
        }
    }
    said.add(&tree, "", 0);
    let mut problems = std::mem::take(&mut said.problems);
    let shown = brief(&source.json);
    for (what, listed, own) in [
        ("name", list.name.as_str(), &tree.metadata.name),
        ("version", list.version.as_deref().unwrap_or(""), &tree.metadata.version),
    ] {
        if listed != own {
            let (listed, own) = (brief(listed), brief(own));
            problems.push(format!("`{shown}`: its {what} is `{listed}`, that of the profile is `{own}`"));
        }
    }
    if list.status.as_deref().is_some_and(|status| status != "loaded") {
        let why = list.status_message.as_deref().unwrap_or_default();
        let status = list.status.as_deref().unwrap_or_default();
        problems.push(format!("`{shown}`: InSpec did not load the profile ({}): {}", brief(status), brief(why)));
    }
    let ids: BTreeSet<&str> = list.controls.iter().map(|control| control.id.as_str()).collect();
    for (id, place) in said.needed.iter().filter(|(id, _)| !ids.contains(id.as_str()) && !said.skipped.contains(*id)) {
        problems.push(format!("{place} names control `{}`, which `{shown}` lacks", brief(id)));
    }
    let mut seen = BTreeSet::new();
    for control in &list.controls {
        let id = brief(&control.id);
        if control.id.starts_with("(generated from ") {
            problems.push(format!("`{shown}`: a check outside any control has no name of its own: {id}"));
        } else if let Some(why) = unusable_id(&control.id) {
            problems.push(format!("`{shown}`: control `{id}` can't be the name of a control: {why}"));
        } else if !said.known.iter().any(|name| name.fits(&control.id)) {
            problems.push(format!("`{shown}`: it has control `{id}`, which no file of the profile names"));
        } else if !seen.insert(&control.id) {
            problems.push(format!("`{shown}`: control `{id}` is in it twice"));
        }
    }
    if list.controls.is_empty() {
        problems.push(format!("`{shown}`: it has no control"));
    }
    match problems.is_empty() {
        true => Ok(list.controls.into_iter().map(control).collect()),
        false => Err(fail(problems)),
    }
}

impl Said {
    /// What this profile says; `within` names the one that includes it.
    fn add(&mut self, tree: &Tree, within: &str, depth: usize) {
        let mut scans: Vec<(String, Scan)> = Vec::new();
        for (path, bytes) in &tree.files {
            if !path.starts_with("controls/") || !path.ends_with(".rb") {
                continue;
            }
            let place = format!("`{within}{path}`");
            let Ok(text) = std::str::from_utf8(bytes) else {
                self.problems.push(format!("{place} is no UTF-8"));
                continue;
            };
            let scan = ruby::scan(text);
            match scan.lost_at {
                Some(line) => self.problems.push(format!("{place}, line {line}: what begins there has no end")),
                None => scans.push((place, scan)),
            }
        }
        for (place, scan) in &scans {
            for Named { name, line } in &scan.controls {
                if let Some(id) = name.exact() {
                    self.needed.entry(id.to_owned()).or_insert_with(|| format!("{place}, line {line}"));
                }
                self.known.push(name.clone());
            }
            self.skipped.extend(scan.skips.iter().filter_map(|named| named.name.exact()).map(str::to_owned));
        }
        for (place, scan) in &scans {
            let all = scan.includes.iter().map(|named| (named, true));
            for (Named { name, line }, all) in all.chain(scan.requires.iter().map(|named| (named, false))) {
                let place = format!("{place}, line {line}");
                let Some(profile) = name.exact() else {
                    self.problems.push(format!("{place}: which profile is included is not written there"));
                    continue;
                };
                if !tree.metadata.depends.iter().any(|depends| depends.name == profile) {
                    let profile = brief(profile);
                    self.problems.push(format!("{place}: it includes `{profile}`, which inspec.yml does not name"));
                    continue;
                }
                // Of a profile of which some are required, these are named here, and nothing else of it is run.
                if !all {
                    continue;
                }
                match tree.dependency(profile) {
                    Ok(_) if depth >= vendored::DEPTH => self.problems.push(format!("{place}: it is nested too deep")),
                    Ok(included) => self.add(&included, &format!("{within}{profile}: "), depth + 1),
                    Err(problem) => self.problems.push(format!("{place}: {problem}")),
                }
            }
        }
    }
}

fn control(listed: Listed) -> Control {
    let mut texts: BTreeMap<String, String> = BTreeMap::new();
    let mut put = |label: String, data: serde_json::Value| {
        if let Some(text) = plain(&data) {
            texts.entry(label).or_insert_with(|| text.trim().to_owned());
        }
    };
    match listed.descriptions {
        Some(Descriptions::Named(named)) => named.into_iter().for_each(|(label, data)| put(label, data)),
        Some(Descriptions::Labelled(list)) => list.into_iter().for_each(|each| put(each.label, each.data)),
        None => {}
    }
    // Older profiles have them as tags.
    for label in ["check", "fix", "rationale"] {
        if let Some(data) = listed.tags.get(label) {
            put(label.to_owned(), data.clone());
        }
    }
    let mut text = |label: &str| texts.remove(label).unwrap_or_default();
    let default = listed.desc.map(|text| text.trim().to_owned()).filter(|text| !text.is_empty());
    let default = default.unwrap_or_else(|| text("default"));
    let description = [default, text("rationale")].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>();
    let mut references = Vec::new();
    for (tag, value) in &listed.tags {
        let Some(scheme) = scheme(tag) else { continue };
        // `Rev_4` says of which revision the others are.
        let ids = strings(value).into_iter().filter(|id| !(scheme == "nist" && id.starts_with("Rev")));
        references.extend(ids.map(|id| Reference { scheme: scheme.to_owned(), id }));
    }
    for each in listed.refs.iter().flatten() {
        let url = ["url", "uri"].iter().find_map(|key| each.get(key)?.as_str());
        references.extend(url.map(|url| Reference { scheme: "url".to_owned(), id: url.to_owned() }));
    }
    let mut seen = BTreeSet::new();
    references.retain(|reference| !reference.id.is_empty() && seen.insert(reference.clone()));
    let title = listed.title.as_deref().map(line).filter(|title| !title.is_empty());
    Control {
        title: title.unwrap_or_else(|| listed.id.clone()),
        id: listed.id,
        description: description.join("\n\n"),
        check: text("check"),
        fix: text("fix"),
        // As InSpec takes what does not say it.
        severity: Severity::of_impact(listed.impact.unwrap_or(0.5)),
        references,
    }
}

fn plain(value: &serde_json::Value) -> Option<String> {
    match value {
        serde_json::Value::String(text) => Some(text.clone()),
        serde_json::Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

fn strings(value: &serde_json::Value) -> Vec<String> {
    match value {
        serde_json::Value::Array(list) => list.iter().filter_map(plain).map(|text| text.trim().to_owned()).collect(),
        other => plain(other).into_iter().map(|text| text.trim().to_owned()).collect(),
    }
}

fn metadata(path: &str, text: &str) -> Result<Metadata, String> {
    yaml(path, "inspec.yml", text)
}

#[cfg(test)]
mod tests;
