//! What changed between two bundles, in words that somebody can approve.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use serde_json::Value;

use super::catalog;
use super::survey::Survey;
use crate::base::quantity::bytes_for_people;
use crate::base::text::brief;
use crate::model::catalog::{Catalog, CatalogDependency, CatalogItem};
use crate::model::notice::Notices;
use crate::model::provenance::BundleRef;

/// How many ids of controls are named in words; the JSON has all.
const NAMED: usize = 12;

/// Two bundles compared.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Comparison {
    /// The one before.
    pub before: BundleRef,
    /// The one after.
    pub after: BundleRef,
    /// Whether nothing but version and times is different.
    pub same: bool,
    /// What is different, section by section.
    pub changes: Vec<Difference>,
}

/// One difference.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Difference {
    /// `bundle`, `items`, `companions`, `databases`, `scanners`, `profiles`, `notices`, `catalog`
    /// (what no other section speaks of) or `signers`.
    pub section: &'static str,
    /// What it is about: an item's repository, a scanner's name, a field of the bundle.
    pub subject: String,
    /// What happened to it.
    pub kind: Kind,
    /// What it was, where that is one value.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<String>,
    /// What it is now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
    /// The ids of controls, digests of companions and the like that came.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub added: Vec<String>,
    /// Those that went.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub removed: Vec<String>,
    /// All of it in one sentence.
    pub words: String,
}

/// What happened to something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// It was not there.
    Added,
    /// It is not there any more.
    Removed,
    /// It is another one, or has other properties.
    Changed,
}

/// Compares two verified bundles. Version and times always differ and are no change.
pub fn compare(before: &Survey, after: &Survey) -> Comparison {
    let mut list = List { section: "bundle", changes: Vec::new() };
    let (old, new) = (before.verified.catalog(), after.verified.catalog());
    list.value("name", Some(old.name.clone()), Some(new.name.clone()));
    list.value("classification", old.classification.clone(), new.classification.clone());
    list.value("required gapscan", old.requires.gapscan.clone(), new.requires.gapscan.clone());
    let root = |survey: &Survey| Some(survey.verified.bundle().root.to_string());
    list.value("root", root(before), root(after));
    list.items(before, after);
    list.companions(before, after);
    list.databases(old, new);
    list.scanners(old, new);
    list.profiles(before, after);
    list.notices(&old.notices, &new.notices);
    list.rest(old, new);
    list.section = "signers";
    let signers = |survey: &Survey| survey.signers.iter().cloned().collect::<BTreeSet<_>>();
    list.sets("the list of contents", "signed by", &signers(before), &signers(after));
    Comparison {
        before: before.verified.bundle().clone(),
        after: after.verified.bundle().clone(),
        same: list.changes.is_empty(),
        changes: list.changes,
    }
}

struct List {
    section: &'static str,
    changes: Vec<Difference>,
}

impl List {
    fn push(&mut self, subject: &str, kind: Kind, words: String) -> &mut Difference {
        self.changes.push(Difference {
            section: self.section,
            subject: subject.to_owned(),
            kind,
            before: None,
            after: None,
            added: Vec::new(),
            removed: Vec::new(),
            words,
        });
        self.changes.last_mut().expect("one was added")
    }

    fn value(&mut self, subject: &str, before: Option<String>, after: Option<String>) {
        if before == after {
            return;
        }
        let (kind, words) = match (&before, &after) {
            (None, Some(now)) => (Kind::Added, format!("{subject} is {} and was not given", brief(now))),
            (Some(was), None) => (Kind::Removed, format!("{subject} is not given any more and was {}", brief(was))),
            (was, now) => {
                let text = |value: &Option<String>| brief(value.as_deref().unwrap_or_default());
                (Kind::Changed, format!("{subject} was {} and is {}", text(was), text(now)))
            }
        };
        let change = self.push(subject, kind, words);
        (change.before, change.after) = (before, after);
    }

    fn sets(&mut self, subject: &str, verb: &str, before: &BTreeSet<String>, after: &BTreeSet<String>) {
        let added: Vec<String> = after.difference(before).cloned().collect();
        let removed: Vec<String> = before.difference(after).cloned().collect();
        let mut parts = Vec::new();
        for (what, list) in [("now", &added), ("no longer", &removed)] {
            if !list.is_empty() {
                parts.push(format!("{what} {verb} {}", named(list)));
            }
        }
        if !parts.is_empty() {
            let change = self.push(subject, Kind::Changed, format!("{subject} is {}", parts.join(", and ")));
            (change.added, change.removed) = (added, removed);
        }
    }

    fn items(&mut self, before: &Survey, after: &Survey) {
        self.section = "items";
        let by_repository = |survey: &Survey| -> BTreeMap<String, CatalogItem> {
            let items = catalog::items(survey.verified.catalog());
            items.map(|item| (item.repository.clone(), item.clone())).collect()
        };
        let size = |survey: &Survey, repository: &str| {
            bytes_for_people(survey.sizes.get(repository).copied().unwrap_or_default())
        };
        let (old, new) = (by_repository(before), by_repository(after));
        for (name, item) in &new {
            let size_now = size(after, name);
            let Some(was) = old.get(name) else {
                let words = format!("{name} is new: {} from {} ({size_now})", item.digest, brief(&item.source));
                self.push(name, Kind::Added, words).after = Some(item.digest.to_string());
                continue;
            };
            if was.digest != item.digest {
                let from = match was.source == item.source {
                    true => String::new(),
                    false => format!("; it came from {} and comes from {}", brief(&was.source), brief(&item.source)),
                };
                let words = format!(
                    "{name} was {} ({}) and is {} ({size_now}){from}",
                    was.digest,
                    size(before, name),
                    item.digest
                );
                let change = self.push(name, Kind::Changed, words);
                (change.before, change.after) = (Some(was.digest.to_string()), Some(item.digest.to_string()));
            } else if was.source != item.source {
                let words =
                    format!("{name} is the same and comes from {}, not {}", brief(&item.source), brief(&was.source));
                self.push(name, Kind::Changed, words);
            }
            let licences = |item: &CatalogItem| item.licences.iter().cloned().collect();
            self.sets(name, "licensed as", &licences(was), &licences(item));
            let key = |item: &CatalogItem| item.verified.as_ref().map(|v| v.key.to_string());
            self.value(&format!("the upstream key of {name}"), key(was), key(item));
            let identity = |item: &CatalogItem| item.verified.as_ref().and_then(|v| v.identity.clone());
            self.value(&format!("the upstream signer's name for {name}"), identity(was), identity(item));
        }
        for (name, item) in old.iter().filter(|(name, _)| !new.contains_key(*name)) {
            let words = format!("{name} is left out; it was {} ({})", item.digest, size(before, name));
            self.push(name, Kind::Removed, words).before = Some(item.digest.to_string());
        }
        let charts = |catalog: &Catalog| -> BTreeMap<String, String> {
            catalog.charts.iter().map(|c| (c.item.repository.clone(), format!("{} {}", c.chart, c.version))).collect()
        };
        let (old, new) = (charts(before.verified.catalog()), charts(after.verified.catalog()));
        for (name, chart) in &new {
            if let Some(was) = old.get(name) {
                self.value(&format!("the chart in {name}"), Some(was.clone()), Some(chart.clone()));
            }
        }
    }

    fn companions(&mut self, before: &Survey, after: &Survey) {
        self.section = "companions";
        let repositories: BTreeSet<&str> =
            before.companions.iter().chain(&after.companions).map(|c| c.repository.as_str()).collect();
        for repository in repositories {
            let of = |survey: &Survey| -> BTreeSet<String> {
                let shown = survey.companions_of(repository).map(|companion| {
                    let kind = companion.artifact_type.as_deref().unwrap_or("of no named kind");
                    format!("{} ({})", companion.digest, brief(kind))
                });
                shown.collect()
            };
            self.sets(repository, "accompanied by", &of(before), &of(after));
        }
    }

    fn databases(&mut self, old: &Catalog, new: &Catalog) {
        self.section = "databases";
        for now in &new.dependencies {
            let Some(was) = old.dependencies.iter().find(|d| d.item.name == now.item.name) else { continue };
            let name = &now.item.repository;
            if let (Some(before), Some(after)) = (was.built, now.built)
                && before != after
            {
                let days = after.duration_since(before).as_hours() / 24;
                let newer = match days {
                    0 => "less than a day apart".to_owned(),
                    days if days > 0 => format!("{days} days newer"),
                    days => format!("{} days OLDER", -days),
                };
                let words = format!("{name} was built {before} and is of {after}: {newer}");
                let change = self.push(name, Kind::Changed, words);
                (change.before, change.after) = (Some(before.to_string()), Some(after.to_string()));
            } else {
                let text = |d: &CatalogDependency| d.built.map(|t| t.to_string());
                self.value(&format!("the build date of {name}"), text(was), text(now));
            }
            let age = |d: &CatalogDependency| d.max_age.map(|age| age.to_string());
            self.value(&format!("the greatest age of {name}"), age(was), age(now));
            let on_old = |d: &CatalogDependency| Some(d.on_old.word().to_owned());
            self.value(&format!("what happens when {name} is too old"), on_old(was), on_old(now));
        }
    }

    fn scanners(&mut self, old: &Catalog, new: &Catalog) {
        self.section = "scanners";
        for now in &new.scanners {
            match old.scanners.iter().find(|scanner| scanner.name == now.name) {
                None => {
                    let words =
                        format!("scanner {} is new: {}, in the image {}", now.name, brief(&now.title), now.image);
                    self.push(&now.name, Kind::Added, words);
                }
                Some(was) => {
                    let field_values = |scanner| {
                        let mut fields = BTreeMap::new();
                        flatten(&serde_json::to_value(scanner).unwrap_or_default(), String::new(), &mut fields);
                        fields
                    };
                    let (before, after) = (field_values(was), field_values(now));
                    let fields: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
                    for field in fields {
                        let subject = format!("{} of scanner {}", brief(field), now.name);
                        self.value(&subject, before.get(field).cloned(), after.get(field).cloned());
                    }
                }
            }
        }
        for was in old.scanners.iter().filter(|was| new.scanners.iter().all(|now| now.name != was.name)) {
            self.push(&was.name, Kind::Removed, format!("scanner {} is left out", was.name));
        }
    }

    fn profiles(&mut self, before: &Survey, after: &Survey) {
        self.section = "profiles";
        let (old, new) = (before.verified.catalog(), after.verified.catalog());
        for now in &new.profiles {
            let repository = &now.item.repository;
            let Some(was) = old.profiles.iter().find(|p| p.item.name == now.item.name) else { continue };
            let about = |field: &str| format!("the {field} of {repository}");
            self.value(&about("version"), Some(was.version.clone()), Some(now.version.clone()));
            self.value(&about("engine"), Some(was.engine.clone()), Some(now.engine.clone()));
            let targets = |list: &[crate::model::target::TargetKind]| {
                Some(list.iter().map(|kind| kind.word()).collect::<Vec<_>>().join(", "))
            };
            self.value(&about("targets"), targets(&was.targets), targets(&now.targets));
            if was.profile == now.profile {
                continue;
            }
            let (Some(one), Some(other)) = (before.profiles.get(repository), after.profiles.get(repository)) else {
                let words = format!(
                    "{repository} has {} controls and had {}; which, can't be seen where a delta leaves the profile out, or where it is very large",
                    now.controls, was.controls
                );
                self.push(repository, Kind::Changed, words);
                continue;
            };
            let ids = |profile: &crate::model::profile::Profile| -> BTreeMap<String, Value> {
                let text = |control| serde_json::to_value(control).unwrap_or_default();
                profile.controls.iter().map(|control| (control.id.clone(), text(control))).collect()
            };
            let (one, other) = (ids(one), ids(other));
            let added: Vec<String> = other.keys().filter(|id| !one.contains_key(*id)).cloned().collect();
            let removed: Vec<String> = one.keys().filter(|id| !other.contains_key(*id)).cloned().collect();
            let reworded: Vec<String> = other
                .iter()
                .filter(|(id, c)| one.get(*id).is_some_and(|was| was != *c))
                .map(|(id, _)| id.clone())
                .collect();
            let mut parts = Vec::new();
            for (what, list) in
                [("asks now for", &added), ("no longer asks for", &removed), ("says otherwise", &reworded)]
            {
                if !list.is_empty() {
                    parts.push(format!("{what} {}", named(list)));
                }
            }
            let what = if parts.is_empty() { "has its controls in another order".to_owned() } else { parts.join(", ") };
            let change = self.push(repository, Kind::Changed, format!("{repository} {what}"));
            (change.added, change.removed) = (added, removed);
        }
    }

    fn notices(&mut self, old: &Notices, new: &Notices) {
        self.section = "notices";
        let said = |notices: &Notices| -> BTreeSet<(String, String)> {
            let revoked = notices.revocations.iter().map(|revocation| {
                let what = match (&revocation.bundle, revocation.version, revocation.content, revocation.item) {
                    (Some(bundle), Some(version), ..) => format!("{} version {version}", brief(bundle)),
                    (Some(bundle), None, Some(content), _) => format!("{} with content {content}", brief(bundle)),
                    (.., Some(item)) => format!("every bundle with {item}"),
                    _ => "nothing".to_owned(),
                };
                let words = format!("{what} is revoked for ever: {}", brief(&revocation.reason));
                (what, words)
            });
            let permitted = notices.permits.iter().map(|permit| {
                let what = format!("{} version {}", brief(&permit.bundle), permit.version);
                let (content, until, reason) = (permit.content, permit.until, brief(&permit.reason));
                let words = format!("{what} with content {content} is permitted until {until}: {reason}");
                (what, words)
            });
            revoked.chain(permitted).collect()
        };
        let (old, new) = (said(old), said(new));
        for (what, words) in new.difference(&old) {
            self.push(what, Kind::Added, format!("it says now that {words}")).after = Some(words.clone());
        }
        for (what, words) in old.difference(&new) {
            // An enclave that loaded the one before goes on keeping it.
            self.push(what, Kind::Removed, format!("it does not say any more that {words}")).before =
                Some(words.clone());
        }
    }

    /// What is different in the catalogs and was not told: nothing may be called the same because nobody thought of it.
    fn rest(&mut self, old: &Catalog, new: &Catalog) {
        if !self.changes.is_empty() {
            return;
        }
        self.section = "catalog";
        let fields = |catalog: &Catalog| {
            let mut value = serde_json::to_value(catalog).unwrap_or_default();
            if let Some(fields) = value.as_object_mut() {
                fields.retain(|name, _| !matches!(name.as_str(), "version" | "created"));
                // In which order things are listed means nothing.
                for list in fields.values_mut().filter_map(Value::as_array_mut) {
                    list.sort_by_key(|item| item["name"].as_str().unwrap_or_default().to_owned());
                }
            }
            let mut fields = BTreeMap::new();
            flatten(&value, String::new(), &mut fields);
            fields
        };
        let (old, new) = (fields(old), fields(new));
        for field in old.keys().chain(new.keys()).collect::<BTreeSet<_>>() {
            self.value(&brief(field), old.get(field).cloned(), new.get(field).cloned());
        }
    }
}

/// The first of a list, and how many more there are.
fn named(list: &[String]) -> String {
    let shown: Vec<String> = list.iter().take(NAMED).map(|id| brief(id)).collect();
    match list.len().saturating_sub(NAMED) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

/// The leaves of a JSON value by their paths. A list of plain values is one leaf: a command reads as one.
fn flatten(value: &Value, path: String, into: &mut BTreeMap<String, String>) {
    let below = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
    match value {
        Value::Object(fields) => fields.iter().for_each(|(name, value)| flatten(value, below(name), into)),
        Value::Array(list) if list.iter().any(|v| v.is_object() || v.is_array()) => {
            list.iter().enumerate().for_each(|(at, value)| flatten(value, below(&at.to_string()), into));
        }
        Value::Array(list) => {
            let plain = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            into.insert(path, list.iter().map(plain).collect::<Vec<_>>().join(" "));
        }
        Value::String(text) => {
            into.insert(path, text.clone());
        }
        other => {
            into.insert(path, other.to_string());
        }
    }
}
