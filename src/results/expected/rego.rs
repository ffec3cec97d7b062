//! The checks of a bundle for Trivy: files in Rego whose annotations (`# METADATA`, YAML in comments before the package) say
//! what they check. A check is a control by its `custom.id`, which is its id in results.
//!
//! Libraries (`custom.library`, packages below `lib`) and tests are no checks. Deprecated ones are left out, as Trivy leaves them
//! out. A file that is none of these and names no id is refused: results would have a control that nobody expects, or none.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{ContentError, Files, below, line, text, unusable_id, yaml};
use crate::base::text::brief;
use crate::model::control::{Control, Reference};
use crate::model::profile_document::TrivyChecksSource;
use crate::results::severity;

const WHAT: &str = "checks for Trivy";

#[derive(Deserialize)]
struct Annotations {
    #[serde(default)]
    title: String,
    #[serde(default)]
    description: String,
    #[serde(default)]
    related_resources: Vec<Resource>,
    #[serde(default)]
    custom: Custom,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Custom {
    id: String,
    avd_id: String,
    aliases: Vec<String>,
    severity: String,
    recommended_action: String,
    recommended_actions: String,
    deprecated: bool,
    library: bool,
    input: Input,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Input {
    selector: Vec<Selector>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Selector {
    #[serde(rename = "type")]
    kind: String,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Resource {
    Address(String),
    Described {
        #[serde(default, rename = "ref")]
        address: String,
    },
}

/// The controls of the checks below `source`'s folder that are for one of its inputs, in the order of their files' names.
///
/// # Errors
/// When a file is neither a check with an id nor a library, two checks have one id, or there is no check.
pub fn controls(files: &Files, source: &TrivyChecksSource) -> Result<Vec<Control>, ContentError> {
    let folder = below(&source.path, "");
    let is_check = |path: &str| path.starts_with(&folder) && path.ends_with(".rego") && !path.ends_with("_test.rego");
    let mut problems = Vec::new();
    let mut found: BTreeMap<String, &str> = BTreeMap::new();
    let mut controls = Vec::new();
    for path in files.keys().map(String::as_str).filter(|path| is_check(path)) {
        match text(files, path).and_then(|text| check(path, text, &source.inputs)) {
            Err(problem) => problems.push(problem),
            Ok(None) => {}
            Ok(Some(control)) => match found.insert(control.id.clone(), path) {
                Some(other) => problems.push(format!("`{path}`: check `{}` is in `{other}` too", control.id)),
                None => controls.push(control),
            },
        }
    }
    if controls.is_empty() && problems.is_empty() {
        problems.push(format!("there is none below `{}` for these inputs", brief(&source.path)));
    }
    if problems.is_empty() { Ok(controls) } else { Err(ContentError { what: WHAT, problems, remedy: None }) }
}

fn check(path: &str, text: &str, inputs: &[String]) -> Result<Option<Control>, String> {
    let Some(package) = package(text) else {
        return Err(format!("`{path}`: it has no package"));
    };
    let annotations = match annotations(text) {
        Some((first, annotations)) => yaml::<Annotations>(path, "annotations", &annotations)
            .map_err(|problem| format!("{problem} (counted from line {first})"))?,
        None if is_library(package) => return Ok(None),
        None => return Err(format!("`{path}`: no METADATA says which check it is")),
    };
    let custom = annotations.custom;
    if custom.library || is_library(package) || custom.deprecated {
        return Ok(None);
    }
    if let Some(why) = unusable_id(&custom.id) {
        return Err(format!("`{path}`: its custom.id `{}` can't be the name of a control: {why}", brief(&custom.id)));
    }
    let kinds = &custom.input.selector;
    if !(inputs.is_empty() || kinds.is_empty() || kinds.iter().any(|selector| inputs.contains(&selector.kind))) {
        return Ok(None);
    }
    let reference = |scheme: &str, id: &str| Reference { scheme: scheme.to_owned(), id: id.to_owned() };
    let mut references = Vec::new();
    let aliases = custom.aliases.iter().filter(|alias| alias.starts_with("AVD-"));
    for id in aliases.chain(Some(&custom.avd_id).filter(|id| !id.is_empty())) {
        references.push(reference("avd", id));
    }
    for resource in &annotations.related_resources {
        let (Resource::Address(address) | Resource::Described { address }) = resource;
        if !address.is_empty() {
            references.push(reference("url", address));
        }
    }
    references.dedup();
    let fix = if custom.recommended_action.is_empty() { custom.recommended_actions } else { custom.recommended_action };
    Ok(Some(Control {
        title: if annotations.title.is_empty() { custom.id.clone() } else { line(&annotations.title) },
        id: custom.id,
        description: annotations.description.trim().to_owned(),
        check: format!("Rego package {package}"),
        fix: fix.trim().to_owned(),
        severity: severity::of_word(&custom.severity),
        references,
    }))
}

fn is_library(package: &str) -> bool {
    package == "lib" || package.starts_with("lib.")
}

fn package(text: &str) -> Option<&str> {
    let named = text.lines().find_map(|line| line.trim().strip_prefix("package "))?;
    Some(named.split('#').next().unwrap_or_default().trim()).filter(|name| !name.is_empty())
}

/// The annotations of the package as YAML, and the number of their first line. Those of rules come after the package.
fn annotations(text: &str) -> Option<(usize, String)> {
    let mut lines = text.lines().enumerate().take_while(|(_, line)| !line.trim().starts_with("package "));
    let (at, _) =
        lines.find(|(_, line)| line.trim().strip_prefix('#').is_some_and(|comment| comment.trim() == "METADATA"))?;
    let mut yaml = String::new();
    for (_, line) in lines {
        let Some(comment) = line.trim().strip_prefix('#') else { break };
        yaml.push_str(comment);
        yaml.push('\n');
    }
    Some((at + 2, yaml))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::control::Severity;

    fn rego(package: &str, metadata: &str) -> String {
        let comments: String = metadata.lines().map(|line| format!("# {line}\n")).collect();
        format!(
            "# METADATA\n{comments}package {package}\n\nimport rego.v1\n\n# METADATA\n# title: of a rule\ndeny contains 1 if input.x\n"
        )
    }

    fn metadata(id: &str, kind: &str, more: &str) -> String {
        format!(
            "title: \"Limits\"\ndescription: |\n  What\n  it is.\nscope: package\nrelated_resources:\n- https://x.example/a\n- {{ref: \
             https://x.example/b}}\ncustom:\n  id: {id}\n  aliases: [AVD-{id}, limits]\n  severity: HIGH\n  recommended_action: Set it.\n{more}  \
             input:\n    selector:\n    - type: {kind}\n"
        )
    }

    fn list(texts: &[(&str, String)], inputs: &[&str]) -> Result<Vec<Control>, ContentError> {
        let files: Files = texts.iter().map(|(path, t)| ((*path).to_owned(), t.clone().into_bytes())).collect();
        let inputs = inputs.iter().map(|input| (*input).to_owned()).collect();
        controls(&files, &TrivyChecksSource { path: "checks".to_owned(), inputs })
    }

    #[test]
    fn checks_are_expected_by_their_ids_and_libraries_tests_and_deprecated_ones_are_not() {
        let all = [
            ("checks/a.rego", rego("builtin.a", &metadata("KSV-0011", "kubernetes", ""))),
            ("checks/a_test.rego", "package builtin.a_test\n".to_owned()),
            ("checks/d.rego", rego("builtin.d", &metadata("DS-0001", "dockerfile", ""))),
            ("checks/lib/x.rego", "package lib.x\nf(x) := x\n".to_owned()),
            ("checks/l.rego", rego("data.l", "custom: {library: true}\n")),
            ("checks/old.rego", rego("builtin.old", &metadata("KSV-0001", "kubernetes", "  deprecated: true\n"))),
            ("elsewhere/b.rego", "no check".to_owned()),
        ];
        let ids = |inputs: &[&str]| -> Vec<String> {
            list(&all, inputs).expect("checks").into_iter().map(|control| control.id).collect()
        };
        assert_eq!(ids(&[]), ["KSV-0011", "DS-0001"]);
        assert_eq!(ids(&["dockerfile"]), ["DS-0001"]);
        assert!(list(&all, &["terraform"]).is_err());
        let first = list(&all, &[]).expect("checks").remove(0);
        assert_eq!((first.title.as_str(), first.severity, first.fix.as_str()), ("Limits", Severity::High, "Set it."));
        let names: Vec<(&str, &str)> = first.references.iter().map(|r| (&*r.scheme, &*r.id)).collect();
        assert_eq!(names, [("avd", "AVD-KSV-0011"), ("url", "https://x.example/a"), ("url", "https://x.example/b")]);
    }

    #[test]
    fn a_file_that_does_not_say_which_check_it_is_is_refused() {
        let good = || rego("builtin.a", &metadata("A-1", "kubernetes", ""));
        for (text, words) in [
            ("package user.x\ndeny contains 1\n".to_owned(), "no METADATA"),
            ("deny contains 1\n".to_owned(), "no package"),
            (rego("user.x", "title: x\n"), "custom.id `` can't be"),
            (rego("user.x", "title: [x\n"), "counted from line 2"),
            (good(), "check `A-1` is in `checks/a.rego` too"),
        ] {
            let all = [("checks/a.rego", good()), ("checks/b.rego", text)];
            let error = list(&all, &[]).err().unwrap_or_else(|| panic!("{words}: accepted")).to_string();
            assert!(error.contains(words), "{words}: {error}");
        }
    }
}
