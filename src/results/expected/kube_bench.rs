//! The checks of a benchmark of kube-bench (`cfg/config.yaml`, `cfg/BENCHMARK/TARGET.yaml`), as it loads them.
//!
//! Every check is a control, also those that kube-bench only lists (`type: manual`, `type: skip`): a person has to look at
//! them, and nobody did. The id is the check's number.

use std::collections::{BTreeMap, HashMap};

use serde::Deserialize;

use super::{ContentError, Files, below, line, text, unusable_id, yaml, yaml_of_go};
use crate::base::text::brief;
use crate::model::control::{Control, Reference, Severity};
use crate::model::profile_document::KubeBenchSource;

const WHAT: &str = "a configuration of kube-bench";

/// The parts that kube-bench knows, with the file of each.
const TARGETS: [&str; 6] = ["master", "node", "controlplane", "etcd", "policies", "managedservices"];

#[derive(Deserialize)]
struct Config {
    #[serde(default)]
    target_mapping: BTreeMap<String, Vec<String>>,
    #[serde(flatten)]
    sections: BTreeMap<String, serde_json::Value>,
}

#[derive(Deserialize)]
struct Benchmark {
    #[serde(rename = "type", default)]
    kind: String,
    #[serde(default)]
    groups: Vec<Group>,
}

#[derive(Deserialize)]
struct Group {
    #[serde(default)]
    text: String,
    #[serde(rename = "type", default)]
    kind: String,
    #[serde(default)]
    checks: Vec<Check>,
}

#[derive(Deserialize)]
struct Check {
    id: String,
    #[serde(default)]
    text: String,
    #[serde(rename = "type", default)]
    kind: String,
    #[serde(default)]
    audit: Option<String>,
    #[serde(default)]
    remediation: Option<String>,
    #[serde(default)]
    scored: bool,
}

/// The controls of the benchmark that `source` names, in the order of its targets and files.
///
/// # Errors
/// When the configuration, the benchmark or one of its targets is not there or can't be read, or two checks have one number.
pub fn controls(files: &Files, source: &KubeBenchSource) -> Result<Vec<Control>, ContentError> {
    let fail = |problems| ContentError { what: WHAT, problems, remedy: None };
    let targets = targets(files, source).map_err(|problem| fail(vec![problem]))?;
    let mut problems = Vec::new();
    let mut controls = Vec::new();
    let mut seen: HashMap<String, String> = HashMap::new();
    for target in targets {
        let path = below(&source.config, &format!("{}/{target}.yaml", source.benchmark));
        let benchmark: Benchmark = match text(files, &path).and_then(|text| yaml_of_go(&path, "benchmark", text)) {
            Ok(benchmark) => benchmark,
            Err(problem) => {
                problems.push(problem);
                continue;
            }
        };
        if benchmark.kind != target {
            problems.push(format!("`{path}`: its type is `{}`, and kube-bench refuses it", brief(&benchmark.kind)));
        }
        for (group, check) in benchmark.groups.iter().flat_map(|group| group.checks.iter().map(move |c| (group, c))) {
            if let Some(why) = unusable_id(&check.id) {
                problems.push(format!("`{path}`: check `{}` can't be the name of a control: {why}", brief(&check.id)));
            } else if let Some(other) = seen.insert(check.id.clone(), path.clone()) {
                let id = &check.id;
                problems
                    .push(format!("`{path}`: check `{id}` is in `{other}` too, and results would not tell them apart"));
            } else {
                controls.push(control(group, check));
            }
        }
    }
    // Benchmarks of managed clusters have files of targets without any.
    if controls.is_empty() && problems.is_empty() {
        problems.push(format!("benchmark `{}` has no check for these targets", brief(&source.benchmark)));
    }
    if problems.is_empty() { Ok(controls) } else { Err(fail(problems)) }
}

/// The targets whose files kube-bench loads.
fn targets(files: &Files, source: &KubeBenchSource) -> Result<Vec<String>, String> {
    let path = below(&source.config, "config.yaml");
    let config: Config = yaml(&path, "kube-bench configuration", text(files, &path)?)?;
    let name = &source.benchmark;
    let mapped = config.target_mapping.get(name).ok_or_else(|| {
        let known = config.target_mapping.keys().map(|name| brief(name)).collect::<Vec<_>>().join(", ");
        format!("`{path}`: its target_mapping has no benchmark `{}`; it has {known}", brief(name))
    })?;
    // A benchmark's name is a folder's: nothing else is opened by it.
    if name.contains('/') || name.starts_with('.') {
        return Err(format!("`{path}`: `{}` is no name of a benchmark", brief(name)));
    }
    let wanted = if source.targets.is_empty() { mapped } else { &source.targets };
    let of_benchmark = below(&source.config, &format!("{name}/config.yaml"));
    let own: BTreeMap<String, serde_json::Value> = match files.contains_key(&of_benchmark) {
        // A file of comments alone is none.
        true => yaml::<Option<_>>(&of_benchmark, "kube-bench configuration", text(files, &of_benchmark)?)?
            .unwrap_or_default(),
        false => BTreeMap::new(),
    };
    for (at, target) in wanted.iter().enumerate() {
        let why = if !TARGETS.contains(&target.as_str()) {
            "kube-bench knows no such target"
        } else if !mapped.contains(target) {
            "the benchmark has no such target"
        } else if wanted[..at].contains(target) {
            "the target is named twice"
        } else if [&config.sections, &own].iter().all(|all| all.get(target).is_none_or(serde_json::Value::is_null)) {
            "there is no section for it, and kube-bench ends where it comes to it"
        } else {
            continue;
        };
        return Err(format!("`{path}`: benchmark `{}`, target `{}`: {why}", brief(name), brief(target)));
    }
    Ok(wanted.clone())
}

fn control(group: &Group, check: &Check) -> Control {
    let mut about = vec![line(&group.text)];
    if [&group.kind, &check.kind].contains(&&"skip".to_owned()) {
        about.push("kube-bench is told to skip it.".to_owned());
    } else if check.kind == "manual" {
        about.push("A person has to check it.".to_owned());
    } else if !check.scored {
        about.push("It is not scored.".to_owned());
    }
    about.retain(|part| !part.is_empty());
    Control {
        id: check.id.clone(),
        title: if check.text.is_empty() { check.id.clone() } else { line(&check.text) },
        description: about.join("\n"),
        check: check.audit.as_deref().unwrap_or_default().trim().to_owned(),
        fix: check.remediation.as_deref().unwrap_or_default().trim().to_owned(),
        severity: Severity::Medium,
        references: vec![Reference { scheme: "cis".to_owned(), id: check.id.clone() }],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: &str = "---\nmaster: {components: [apiserver]}\nnode:\n  components: [kubelet]\npolicies: {}\n\
                          version_mapping: {\"1.30\": own-1}\n\
                          target_mapping:\n  own-1: [master, node]\n  own-2: [node, etcd]\n";

    fn benchmark(kind: &str, ids: &[&str]) -> String {
        let checks: String = ids
            .iter()
            .map(|id| {
                format!(
                    "      - id: {id}\n        text: \"Check that\n          {id} holds (Manual)\"\n        audit: \"stat x\"\n        \
                     type: \"manual\"\n        tests: {{test_items: [{{flag: root}}]}}\n        remediation: |\n          chmod x\n        scored: false\n"
                )
            })
            .collect();
        format!(
            "---\ncontrols:\nversion: 1.0\nid: 1\ntext: T\ntype: \"{kind}\"\ngroups:\n  - id: 1.1\n    text: \"A group\"\n    checks:\n{checks}"
        )
    }

    fn files(list: &[(&str, String)]) -> Files {
        list.iter().map(|(path, text)| ((*path).to_owned(), text.clone().into_bytes())).collect()
    }

    fn source(benchmark: &str, targets: &[&str]) -> KubeBenchSource {
        let targets = targets.iter().map(|t| (*t).to_owned()).collect();
        KubeBenchSource { config: "cfg/".to_owned(), benchmark: benchmark.to_owned(), targets }
    }

    #[test]
    fn every_check_of_every_target_is_expected_by_its_number_as_it_is_written() {
        let files = files(&[
            ("cfg/config.yaml", CONFIG.to_owned()),
            ("cfg/own-1/config.yaml", "---\n# nothing\n".to_owned()),
            ("cfg/own-1/master.yaml", benchmark("master", &["1.1.1", "1.10"])),
            ("cfg/own-1/node.yaml", benchmark("node", &["4.20"])),
        ]);
        let ids = |targets: &[&str]| -> Vec<String> {
            let found = controls(&files, &source("own-1", targets)).expect("controls");
            found.into_iter().map(|control| control.id).collect()
        };
        // 1.10 is a number in YAML, and must not become 1.1.
        assert_eq!(ids(&[]), ["1.1.1", "1.10", "4.20"]);
        assert_eq!(ids(&["node"]), ["4.20"]);
        let control = controls(&files, &source("own-1", &["node"])).expect("controls").remove(0);
        assert_eq!(
            (control.title.as_str(), control.description.as_str(), control.check.as_str(), control.fix.as_str()),
            ("Check that 4.20 holds (Manual)", "A group\nA person has to check it.", "stat x", "chmod x")
        );
    }

    #[test]
    fn texts_that_are_not_indented_as_yaml_asks_are_read_as_kube_bench_reads_them() {
        let text = "---\ntype: node\ngroups:\n- id: 1.1\n  checks:\n  - id: 1.1.1\n    text: \"one\n    two\n  three\"\n    \
                    remediation: |\n      \"as it\n      is\"\n  - id: 1.1.2\n    text: 'four\n    five'\n";
        let all = files(&[("cfg/config.yaml", CONFIG.to_owned()), ("cfg/own-1/node.yaml", text.to_owned())]);
        let found = controls(&all, &source("own-1", &["node"])).expect("controls");
        let texts: Vec<(&str, &str)> = found.iter().map(|c| (c.title.as_str(), c.fix.as_str())).collect();
        assert_eq!(texts, [("one two three", "\"as it\nis\""), ("four five", "")]);
        let none = files(&[("cfg/config.yaml", CONFIG.to_owned()), ("cfg/own-1/node.yaml", benchmark("node", &[]))]);
        assert!(controls(&none, &source("own-1", &["node"])).is_err());
    }

    #[test]
    fn what_kube_bench_would_not_load_is_refused_with_its_place() {
        let good = ("cfg/own-1/node.yaml", benchmark("node", &["4.1"]));
        let config = ("cfg/config.yaml", CONFIG.to_owned());
        for (list, wanted, words) in [
            (vec![good.clone()], source("own-1", &[]), "there is no `cfg/config.yaml`"),
            (vec![config.clone()], source("own-1", &["node"]), "there is no `cfg/own-1/node.yaml`"),
            (vec![config.clone()], source("own-9", &[]), "no benchmark `own-9`; it has own-1, own-2"),
            (vec![config.clone()], source("own-1", &["nodes"]), "knows no such target"),
            (vec![config.clone()], source("own-1", &["policies"]), "has no such target"),
            (vec![config.clone()], source("own-2", &["etcd"]), "no section"),
            (vec![config.clone()], source("own-1", &["node", "node"]), "named twice"),
            (
                vec![config.clone(), ("cfg/own-1/node.yaml", benchmark("master", &["4.1"]))],
                source("own-1", &["node"]),
                "its type is `master`",
            ),
            (
                vec![config.clone(), good.clone(), ("cfg/own-1/master.yaml", benchmark("master", &["4.1"]))],
                source("own-1", &[]),
                "would not tell them apart",
            ),
            (
                vec![config.clone(), ("cfg/own-1/node.yaml", "groups: [{checks: [{text: x}]}]".to_owned())],
                source("own-1", &["node"]),
                "line 1",
            ),
            (
                vec![config.clone(), ("cfg/own-1/node.yaml", benchmark("node", &["4 1"]))],
                source("own-1", &["node"]),
                "can't be the name",
            ),
        ] {
            let error = controls(&files(&list), &wanted).expect_err(words).to_string();
            assert!(error.contains(words), "{words}: {error}");
        }
    }
}
