//! The rules that Falco loads from files, in their order: what is later replaces what is earlier under the same name, or
//! adds to it (`append`, `override`), or switches it on or off. An enabled rule is a control, with `_` for white space in its
//! name, as it has in results.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde_json::Value;

use super::{ContentError, Files, line, text, unusable_id, yaml};
use crate::base::text::brief;
use crate::model::control::{Control, Reference};
use crate::model::profile_document::FalcoSource;
use crate::results::severity;

const WHAT: &str = "rules of Falco";

/// What Falco calls its priorities, in any case.
const PRIORITIES: [&str; 10] =
    ["emergency", "alert", "critical", "error", "warning", "notice", "informational", "info", "debug", "warn"];

/// Anything in a file of rules; which one it is, is said by which of the first fields it has.
#[derive(Deserialize)]
struct Item {
    rule: Option<String>,
    #[serde(rename = "macro")]
    macro_: Option<String>,
    list: Option<String>,
    #[serde(default)]
    desc: Option<String>,
    #[serde(default)]
    condition: Option<Value>,
    #[serde(default)]
    output: Option<Value>,
    #[serde(default)]
    priority: Option<String>,
    #[serde(default)]
    enabled: Option<bool>,
    #[serde(default)]
    tags: Option<Vec<String>>,
    #[serde(default)]
    items: Option<Value>,
    #[serde(default)]
    append: Option<bool>,
    #[serde(default, rename = "override")]
    changes: BTreeMap<String, String>,
    required_engine_version: Option<Value>,
    required_plugin_versions: Option<Value>,
}

#[derive(Clone)]
struct Rule {
    desc: String,
    condition: String,
    priority: String,
    enabled: bool,
    tags: Vec<String>,
}

#[derive(Default)]
struct Loaded {
    /// In the order in which they were first named.
    order: Vec<String>,
    rules: BTreeMap<String, Rule>,
    macros: BTreeSet<String>,
    lists: BTreeSet<String>,
}

/// The controls of the files that `source` names.
///
/// # Errors
/// When one is not there, is none, adds to what is not there, or no rule is enabled.
pub fn controls(files: &Files, source: &FalcoSource) -> Result<Vec<Control>, ContentError> {
    let mut loaded = Loaded::default();
    let mut problems = Vec::new();
    for path in &source.rules {
        let items = text(files, path).and_then(|text| yaml::<Option<Vec<Item>>>(path, "rules of Falco", text));
        match items {
            Err(problem) => problems.push(problem),
            Ok(items) => {
                for (at, item) in items.unwrap_or_default().into_iter().enumerate() {
                    if let Err(problem) = loaded.load(item) {
                        problems.push(format!("`{path}`, item {}: {problem}", at + 1));
                    }
                }
            }
        }
    }
    let mut controls = Vec::new();
    let mut names: BTreeMap<String, &str> = BTreeMap::new();
    for name in &loaded.order {
        let rule = &loaded.rules[name];
        let id = name.split_whitespace().collect::<Vec<_>>().join("_");
        if let Some(why) = unusable_id(&id) {
            problems.push(format!("rule `{}` can't be the name of a control: {why}", brief(name)));
        } else if let Some(other) = names.insert(id.clone(), name) {
            let (name, other) = (brief(name), brief(other));
            problems.push(format!("rules `{name}` and `{other}` have one name without their white space"));
        } else if rule.enabled {
            controls.push(control(id, name, rule));
        }
    }
    if controls.is_empty() && problems.is_empty() {
        problems.push("no rule is enabled".to_owned());
    }
    if problems.is_empty() { Ok(controls) } else { Err(ContentError { what: WHAT, problems, remedy: None }) }
}

impl Loaded {
    fn load(&mut self, item: Item) -> Result<(), String> {
        let adds = item.append == Some(true) || item.changes.values().any(|how| how == "append");
        match (&item.rule, &item.macro_, &item.list) {
            (Some(name), None, None) => self.rule(name.clone(), item),
            (None, Some(name), None) => named(&mut self.macros, "macro", name, adds, item.condition.is_some()),
            (None, None, Some(name)) => named(&mut self.lists, "list", name, adds, item.items.is_some()),
            (None, None, None) if item.required_engine_version.is_some() || item.required_plugin_versions.is_some() => {
                Ok(())
            }
            _ => Err("it is not exactly one of rule, macro and list".to_owned()),
        }
    }

    fn rule(&mut self, name: String, item: Item) -> Result<(), String> {
        let shown = brief(&name);
        if let Some((field, how)) = item.changes.iter().find(|(_, how)| !["append", "replace"].contains(&how.as_str()))
        {
            return Err(format!("rule `{shown}`: `{}` can't be overridden by `{}`", brief(field), brief(how)));
        }
        if let Some(priority) =
            item.priority.as_deref().filter(|p| !PRIORITIES.contains(&p.to_ascii_lowercase().as_str()))
        {
            return Err(format!("rule `{shown}`: `{}` is no priority", brief(priority)));
        }
        let condition = item.condition.as_ref().and_then(Value::as_str).map(line);
        let before = self.rules.get_mut(&name);
        if item.append == Some(true) || !item.changes.is_empty() {
            let Some(rule) = before else {
                return Err(format!("it changes rule `{shown}`, which is not there yet"));
            };
            let how = |field: &str| match item.changes.get(field).map(String::as_str) {
                Some("append") => Some(true),
                Some(_) => Some(false),
                None => (item.append == Some(true)).then_some(true),
            };
            if let (Some(appends), Some(condition)) = (how("condition"), condition) {
                rule.condition = if appends { format!("{} {condition}", rule.condition) } else { condition };
            }
            if let (Some(appends), Some(desc)) = (how("desc"), item.desc) {
                rule.desc = if appends { format!("{} {desc}", rule.desc) } else { desc };
            }
            if let (Some(appends), Some(tags)) = (how("tags"), item.tags) {
                if !appends {
                    rule.tags.clear();
                }
                rule.tags.extend(tags);
            }
            if let (true, Some(priority)) = (item.changes.contains_key("priority"), item.priority) {
                rule.priority = priority;
            }
            if let (true, Some(enabled)) = (item.changes.contains_key("enabled"), item.enabled) {
                rule.enabled = enabled;
            }
            return Ok(());
        }
        let whole = (condition, item.priority, item.output.is_some());
        let (Some(condition), Some(priority), true) = whole else {
            // The short form: a name and whether it is enabled.
            return match (before, item.enabled) {
                (Some(rule), Some(enabled)) => {
                    rule.enabled = enabled;
                    Ok(())
                }
                (None, Some(_)) => Err(format!("it switches rule `{shown}`, which is not there yet")),
                (_, None) => Err(format!("rule `{shown}` lacks its condition, output or priority")),
            };
        };
        let rule = Rule {
            desc: item.desc.unwrap_or_default(),
            condition,
            priority,
            enabled: item.enabled.unwrap_or(true),
            tags: item.tags.unwrap_or_default(),
        };
        if self.rules.insert(name.clone(), rule).is_none() {
            self.order.push(name);
        }
        Ok(())
    }
}

/// A macro or a list.
fn named(known: &mut BTreeSet<String>, kind: &str, name: &str, adds: bool, whole: bool) -> Result<(), String> {
    let shown = brief(name);
    if !whole {
        return Err(format!("{kind} `{shown}` is empty"));
    }
    if adds && !known.contains(name) {
        return Err(format!("it adds to {kind} `{shown}`, which is not there yet"));
    }
    known.insert(name.to_owned());
    Ok(())
}

fn control(id: String, name: &str, rule: &Rule) -> Control {
    let reference = |scheme: &str, id: &str| Some(Reference { scheme: scheme.to_owned(), id: id.to_owned() });
    let mut references: Vec<Reference> = Vec::new();
    for tag in &rule.tags {
        // The same as in alerts.
        let technique = tag.strip_prefix('T').filter(|id| id.starts_with(|c: char| c.is_ascii_digit()));
        references.extend(technique.and_then(|_| reference("mitre-attack", tag)));
        references.extend(tag.strip_prefix("NIST_800-53_").and_then(|id| reference("nist", id)));
    }
    Control {
        id,
        title: line(name),
        description: line(&rule.desc),
        check: rule.condition.clone(),
        fix: String::new(),
        severity: severity::of_word(&rule.priority),
        references,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::control::Severity;

    fn list(texts: &[&str]) -> Result<Vec<Control>, ContentError> {
        let name = |at: usize| format!("rules/{at}.yaml");
        let files: Files = texts.iter().enumerate().map(|(at, t)| (name(at), t.as_bytes().to_vec())).collect();
        controls(&files, &FalcoSource { rules: (0..texts.len()).map(name).collect() })
    }

    fn rule(name: &str, more: &str) -> String {
        format!(
            "- rule: {name}\n  desc: >\n    What\n    it is.\n  condition: spawned and\n    x\n  output: \"%a\"\n  priority: WARNING\n  tags: [host, T1555, \
             NIST_800-53_AC-6]\n{more}"
        )
    }

    fn ids(controls: &[Control]) -> Vec<&str> {
        controls.iter().map(|control| control.id.as_str()).collect()
    }

    #[test]
    fn enabled_rules_are_expected_as_the_last_file_leaves_them() {
        let base = format!(
            "- required_engine_version: 0.57.0\n- required_plugin_versions:\n    - {{name: container, version: 0.4.0}}\n\
             - macro: spawned\n  condition: evt.type = execve\n- list: shells\n  items: [sh, bash]\n{}{}{}{}",
            rule("Shell in  container", ""),
            rule("Quiet", "  enabled: false\n"),
            rule("Loud", ""),
            rule("Changed", "")
        );
        let first = list(&[&base]).expect("rules");
        assert_eq!(ids(&first), ["Shell_in_container", "Loud", "Changed"]);
        assert_eq!((first[0].title.as_str(), first[0].description.as_str()), ("Shell in container", "What it is."));
        assert_eq!((first[0].check.as_str(), first[0].severity), ("spawned and x", Severity::Medium));
        let names: Vec<(&str, &str)> = first[0].references.iter().map(|r| (&*r.scheme, &*r.id)).collect();
        assert_eq!(names, [("mitre-attack", "T1555"), ("nist", "AC-6")]);

        let site = "- rule: Loud\n  enabled: false\n- rule: Quiet\n  enabled: true\n  override: {enabled: replace}\n\
                    - list: shells\n  items: [zsh]\n  override: {items: append}\n\
                    - rule: Changed\n  condition: and not y\n  priority: CRITICAL\n  tags: [T1]\n  \
                    override: {condition: append, priority: replace, tags: replace}\n\
                    - rule: Shell in  container\n  append: true\n  condition: and z\n";
        let both = list(&[&base, site]).expect("rules");
        assert_eq!(ids(&both), ["Shell_in_container", "Quiet", "Changed"]);
        assert_eq!((both[2].check.as_str(), both[2].severity), ("spawned and x and not y", Severity::Critical));
        assert_eq!((both[2].references.len(), both[0].check.as_str()), (1, "spawned and x and z"));
        // A rule that is written whole again counts as it is written then.
        let again = list(&[&base, site, &rule("Changed", "")]).expect("rules");
        assert_eq!(again[2].severity, Severity::Medium);
    }

    #[test]
    fn what_falco_would_not_load_is_refused_with_its_place() {
        let base = rule("a", "");
        for (text, words) in [
            ("- rule: b\n  enabled: false\n", "`rules/1.yaml`, item 1: it switches rule `b`, which is not there yet"),
            ("- rule: b\n  condition: x\n  append: true\n", "changes rule `b`"),
            ("- rule: b\n  condition: x\n  override: {condition: append}\n", "changes rule `b`"),
            ("- rule: a\n  condition: x\n  override: {condition: drop}\n", "can't be overridden by `drop`"),
            ("- list: l\n  items: [x]\n  append: true\n", "adds to list `l`"),
            ("- macro: m\n  condition: x\n  override: {condition: append}\n", "adds to macro `m`"),
            ("- macro: m\n", "macro `m` is empty"),
            ("- rule: b\n  condition: x\n", "lacks its condition, output or priority"),
            ("- rule: b\n  condition: x\n  output: o\n  priority: LOUD\n", "`LOUD` is no priority"),
            ("- {rules: x}\n", "not exactly one of rule, macro and list"),
            ("- rule: a\n  macro: b\n", "not exactly one"),
            ("rule: b\n", "line 1"),
            ("- rule: \"a \"\n  condition: x\n  output: o\n  priority: INFO\n", "have one name without"),
        ] {
            let error = list(&[&base, text]).err().unwrap_or_else(|| panic!("{words}: accepted")).to_string();
            assert!(error.contains(words), "{words}: {error}");
        }
        assert!(
            list(&[&rule("a", "  enabled: false\n")]).expect_err("none").to_string().contains("no rule is enabled")
        );
        assert!(list(&["# nothing\n"]).is_err());
    }
}
