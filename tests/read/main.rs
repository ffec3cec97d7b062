//! `gapscan read` on results of real scanners, against counts that are made another way, and on what is no result.
//!
//! The results are in the folder that `GAPSCAN_TEST_CORPUS` names, or in `../shared/corpus` beside the sources.

mod counts;
mod samples;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

/// What `gapscan read` does with these arguments.
fn gapscan(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gapscan"));
    command.arg("read").args(arguments).stdin(Stdio::null()).env_remove("GAPSCAN_LOG");
    command.output().expect("gapscan runs")
}

/// What it says of a file that is a result.
fn read(path: &Path) -> Value {
    let output = gapscan(&[&path.display().to_string(), "-o", "json"]);
    let said: Value =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{path:?}: {error}: {output:?}"));
    let open = said["notEvaluated"].as_array().expect("a list").len();
    assert_eq!(output.status.code(), Some(if open == 0 { 0 } else { 3 }), "{path:?}");
    let counts = &said["controls"];
    let listed =
        said["notEvaluated"].as_array().expect("a list").iter().filter(|one| one["control"].is_string()).count();
    assert_eq!(counts["notEvaluated"], listed as u64, "{path:?}: each control that was not evaluated is listed");
    for what in ["controls", "findings"] {
        let sum: u64 = ["passed", "failed", "notApplicable", "waived", "notEvaluated"]
            .iter()
            .map(|k| number(&said[what][k]))
            .sum();
        assert_eq!(number(&said[what]["total"]), sum, "{path:?}: {what}");
    }
    said
}

/// The folder with the results, or a line that says that the test is skipped.
fn corpus() -> Option<PathBuf> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/corpus");
    let folder = std::env::var_os("GAPSCAN_TEST_CORPUS").map_or(beside, PathBuf::from);
    if folder.is_dir() {
        return Some(folder);
    }
    println!("skipped: needs results of real scanners in {}", folder.display());
    None
}

/// The files below a folder of it whose names end so, as JSON.
fn documents(folder: &Path, name: &str, end: &str) -> Vec<(PathBuf, Value)> {
    let mut paths: Vec<PathBuf> =
        fs::read_dir(folder.join(name)).expect("a folder").map(|e| e.expect("a file").path()).collect();
    paths.sort();
    let json = |path: PathBuf| {
        let value = serde_json::from_slice(&fs::read(&path).expect("a file")).ok()?;
        Some((path, value))
    };
    let found: Vec<_> =
        paths.into_iter().filter(|path| path.display().to_string().ends_with(end)).filter_map(json).collect();
    assert!(!found.is_empty(), "{name} has results");
    found
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("{value} is a count"))
}

fn items<'a>(value: &'a Value, pointer: &str) -> &'a [Value] {
    value.pointer(pointer).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// How many of each status there are, from what `gapscan read` says.
fn counted(said: &Value) -> [u64; 4] {
    ["passed", "failed", "notApplicable", "notEvaluated"].map(|key| number(&said["controls"][key]))
}

#[test]
fn inspec_results_are_counted_as_their_controls_say() {
    let Some(corpus) = corpus() else { return };
    for (path, document) in documents(&corpus, "inspec", ".json") {
        let said = read(&path);
        assert_eq!(said["format"], "inspec", "{path:?}");
        // All that is said of a control in any profile, and the impact in the first that has it: these files have the outermost
        // profile first.
        let mut controls: Vec<(&str, f64, Vec<&Value>)> = Vec::new();
        for control in items(&document, "/profiles").iter().flat_map(|profile| items(profile, "/controls")) {
            let id = control["id"].as_str().expect("an id");
            let results = items(control, "/results");
            match controls.iter_mut().find(|(known, ..)| *known == id) {
                Some((_, _, all)) => all.extend(results),
                None => controls.push((id, control["impact"].as_f64().expect("an impact"), results.iter().collect())),
            }
        }
        let broke =
            |r: &&Value| r["exception"].as_str().is_some_and(|e| !e.starts_with("RSpec::Core::MultipleException"));
        let mut expected = [0; 4];
        for (_, impact, results) in &controls {
            let any = |status: &str| results.iter().any(|result| result["status"] == status && !broke(result));
            let at = if any("failed") {
                1
            } else if results.is_empty() || results.iter().any(broke) {
                3
            } else if *impact == 0.0 {
                2
            } else if any("skipped") {
                3
            } else {
                0
            };
            expected[at] += 1;
        }
        assert_eq!(counted(&said), expected, "{path:?}");
        let findings: usize = controls.iter().map(|(_, _, results)| results.len()).sum();
        assert_eq!(number(&said["findings"]["total"]), findings as u64, "{path:?}");
        assert_eq!(said["scanner"]["version"], document["version"], "{path:?}");
    }
}

#[test]
fn kube_bench_results_are_counted_as_their_tests_say() {
    let Some(corpus) = corpus() else { return };
    for (path, document) in documents(&corpus, "kube-bench", ".json") {
        let said = read(&path);
        assert_eq!(said["format"], "kube-bench", "{path:?}");
        let groups = document.as_array().or(document["Controls"].as_array()).expect("groups");
        let tests = || groups.iter().flat_map(|g| items(g, "/tests")).flat_map(|s| items(s, "/results"));
        let count = |word: &str| tests().filter(|test| test["status"] == word).count() as u64;
        assert_eq!(counted(&said), [count("PASS"), count("FAIL"), 0, count("WARN") + count("INFO")], "{path:?}");
        let claimed: u64 = groups
            .iter()
            .map(|g| ["pass", "fail", "warn", "info"].map(|w| number(&g[format!("total_{w}")])).iter().sum::<u64>())
            .sum();
        let gaps = items(&said, "/notEvaluated").iter().any(|gap| gap["subject"].is_string());
        assert_eq!(
            gaps,
            claimed != tests().count() as u64,
            "{path:?}: what is counted and not listed is not evaluated"
        );
    }
}

#[test]
fn grype_results_are_counted_as_their_matches_say() {
    let Some(corpus) = corpus() else { return };
    for (path, document) in documents(&corpus, "grype", ".json") {
        let said = read(&path);
        let matches = items(&document, "/matches");
        assert_eq!(
            (said["format"].as_str(), number(&said["findings"]["failed"])),
            (Some("grype"), matches.len() as u64)
        );
        for (severity, words) in [
            ("critical", &["Critical"][..]),
            ("high", &["High"]),
            ("medium", &["Medium", "Unknown"]),
            ("low", &["Low", "Negligible"]),
        ] {
            let found =
                matches.iter().filter(|m| m["vulnerability"]["severity"].as_str().is_some_and(|s| words.contains(&s)));
            assert_eq!(
                said["failedBySeverity"][severity].as_u64().unwrap_or(0),
                found.count() as u64,
                "{path:?} {severity}"
            );
        }
        let known: Vec<&Value> =
            items(&said, "/findingList").iter().map(|finding| &finding["references"][0]["id"]).collect();
        let ids: Vec<&Value> = matches.iter().map(|found| &found["vulnerability"]["id"]).collect();
        assert_eq!(known, ids, "{path:?}");
    }
}

#[test]
fn trivy_results_are_counted_as_their_findings_say() {
    let Some(corpus) = corpus() else { return };
    for (path, document) in documents(&corpus, "trivy", ".json") {
        if document["SchemaVersion"] != 2 {
            continue;
        }
        let said = read(&path);
        assert_eq!(said["format"], "trivy", "{path:?}");
        let of = |key: &str| items(&document, "/Results").iter().flat_map(|r| items(r, key)).collect::<Vec<_>>();
        let vulnerabilities = of("/Vulnerabilities");
        let failed_checks = of("/Misconfigurations").iter().filter(|check| check["Status"] == "FAIL").count();
        assert_eq!(number(&said["findings"]["failed"]), (vulnerabilities.len() + failed_checks) as u64, "{path:?}");
        assert_eq!(number(&said["components"]), of("/Packages").len() as u64, "{path:?}");
        for (severity, word) in [("critical", "CRITICAL"), ("high", "HIGH"), ("low", "LOW")] {
            let rated = |list: &[&Value]| list.iter().filter(|found| found["Severity"] == word).count();
            let expected = rated(&vulnerabilities) + rated(&of("/Misconfigurations"));
            let counted = said["failedBySeverity"][severity].as_u64().unwrap_or(0);
            assert_eq!(counted, expected as u64, "{path:?} {severity}");
        }
        let listed = items(&said, "/findingList");
        let known = |scheme: &str| -> Vec<&Value> {
            let all = listed.iter().flat_map(|finding| items(finding, "/references"));
            all.filter(|name| name["scheme"] == scheme).map(|name| &name["id"]).collect()
        };
        let purls: Vec<&Value> =
            vulnerabilities.iter().map(|v| &v["PkgIdentifier"]["PURL"]).filter(|p| p.is_string()).collect();
        assert_eq!(known("purl"), purls, "{path:?}");
        let scores = vulnerabilities.iter().filter_map(|v| v["CVSS"].as_object()).flat_map(|by| by.values());
        let scores =
            scores.flat_map(|rated| ["V2Vector", "V3Vector", "V40Vector"].map(|key| rated.get(key))).flatten().count();
        let ratings: usize = listed.iter().map(|finding| items(finding, "/ratings").len()).sum();
        assert_eq!(ratings, scores, "{path:?}");
        assert_eq!(said["targets"][0], document["ArtifactName"], "{path:?}");
    }
}

#[test]
fn cyclonedx_inventories_are_counted_as_their_components_say() {
    let Some(corpus) = corpus() else { return };
    for (path, document) in documents(&corpus, "trivy", ".cdx.json") {
        let said = read(&path);
        assert_eq!((said["format"].as_str(), number(&said["controls"]["total"])), (Some("cyclonedx"), 0), "{path:?}");
        let components = items(&document, "/components");
        assert_eq!(number(&said["components"]), components.len() as u64, "{path:?}");
        let purls = |list: &[Value]| list.iter().filter(|c| c["purl"].as_str().is_some_and(|p| !p.is_empty())).count();
        assert_eq!(purls(items(&said, "/componentList")), purls(components), "{path:?}");
        assert_eq!(said["scanner"]["name"], document["metadata"]["tools"]["components"][0]["name"], "{path:?}");
    }
}

#[test]
fn junit_results_are_counted_as_their_cases_say() {
    let Some(corpus) = corpus() else { return };
    let path = corpus.join("trivy/alpine-310.junit");
    let text = fs::read_to_string(&path).expect("XML is UTF-8");
    let said = read(&path);
    assert_eq!(said["format"], "junit");
    let count = |tag: &str| text.matches(tag).count() as u64;
    let (cases, failures) = (count("<testcase "), count("<failure "));
    assert_eq!(counted(&said), [cases - failures, failures, 0, 0]);
    assert_eq!(number(&said["findings"]["failed"]), failures);
    let named = items(&said, "/findingList").iter().filter(|f| f["references"][0]["scheme"] == "cve").count();
    assert_eq!(named as u64, count("name=\"[MEDIUM] CVE-"));
}

#[test]
fn sarif_results_are_counted_as_their_logs_say() {
    let Some(corpus) = corpus() else { return };
    for (folder, severities) in [("sarif", ["high", "medium", "low"]), ("trivy", ["", "", ""])] {
        for (path, document) in documents(&corpus, folder, ".sarif") {
            let said = read(&path);
            assert_eq!(said["format"], "sarif", "{path:?}");
            let results = items(&document, "/runs/0/results");
            assert_eq!(number(&said["findings"]["failed"]), results.len() as u64, "{path:?}");
            let ids: std::collections::BTreeSet<&str> =
                results.iter().filter_map(|result| result["ruleId"].as_str()).collect();
            assert_eq!(number(&said["controls"]["failed"]), ids.len() as u64, "{path:?}");
            let rules = items(&document, "/runs/0/tool/driver/rules");
            let silent = rules.iter().filter(|rule| !ids.contains(rule["id"].as_str().expect("an id"))).count();
            assert_eq!(number(&said["controls"]["notEvaluated"]), silent as u64, "{path:?}");
            // Levels alone say how bad it is where rules have no score; a result without one has that of its rule.
            for (severity, level) in
                severities.into_iter().zip(["error", "warning", "note"]).filter(|(s, _)| !s.is_empty())
            {
                let default = |result: &Value| {
                    let rule = rules.iter().find(|rule| rule["id"] == result["ruleId"]);
                    rule.and_then(|rule| rule["defaultConfiguration"]["level"].as_str()).unwrap_or("warning").to_owned()
                };
                let at =
                    |result: &&Value| result["level"].as_str().map_or_else(|| default(result), str::to_owned) == level;
                let expected = results.iter().filter(at).count() as u64;
                assert_eq!(said["failedBySeverity"][severity].as_u64().unwrap_or(0), expected, "{path:?} {severity}");
            }
        }
    }
}

/// The corpus' results of XCCDF, those that are compressed unpacked into the folder.
fn xccdf(corpus: &Path, folder: &Path) -> Vec<PathBuf> {
    let names =
        ["openscap-rhel7.xml", "scc-rhel8.xml", "debian12-anssi-arf.xml.xz", "wrong-os-all-notapplicable-arf.xml.xz"];
    let unpacked = |name: &str| {
        let path = corpus.join("xccdf").join(name);
        let Some(plain) = name.strip_suffix(".xz") else { return Some(path) };
        let Ok(unpacked) = Command::new("xz").arg("-dc").arg(&path).output() else {
            println!("skipped: needs xz");
            return None;
        };
        let path = folder.join(plain);
        fs::write(&path, unpacked.stdout).expect("a file");
        Some(path)
    };
    names.into_iter().filter_map(unpacked).collect()
}

#[test]
fn xccdf_results_are_counted_as_their_rules_say() {
    let Some(corpus) = corpus() else { return };
    let folder = tempfile::tempdir().expect("a folder");
    for path in xccdf(&corpus, folder.path()) {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let text = fs::read_to_string(&path).expect("XML is UTF-8");
        // These files have no result but those of the rules of their one test result.
        let count = |word: &str| {
            [format!("<result>{word}</result>"), format!("<cdf:result>{word}</cdf:result>")]
                .iter()
                .map(|tag| text.matches(tag.as_str()).count() as u64)
                .sum::<u64>()
        };
        let open: u64 = ["error", "unknown", "notchecked", "informational"].iter().map(|word| count(word)).sum();
        let said = read(&path);
        assert_eq!(said["format"], "arf");
        assert_eq!(counted(&said), [count("pass"), count("fail"), count("notapplicable"), open], "{name}");
        if name.starts_with("wrong-os") {
            assert!(items(&said, "/notEvaluated").iter().any(|gap| gap["reason"] == "wrong-target"), "{name}");
        }
    }
}

#[test]
fn what_is_no_result_is_refused_by_name_with_a_remedy() {
    let folder = tempfile::tempdir().expect("a folder");
    let whole = r#"{"Controls":[{"id":"1","tests":[{"results":[{"test_number":"1.1","status":"PASS"}]}]}],"Totals":{"total_pass":1}}"#;
    let write = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        fs::write(&path, bytes).expect("a file");
        path.display().to_string()
    };
    let good = write("good", whole.as_bytes());
    assert_eq!(gapscan(&[&good]).status.code(), Some(0));
    for (name, bytes, code, words) in [
        ("empty", &b""[..], 3, "it is empty"),
        ("blank", b" \n ", 3, "it is empty"),
        ("cut", &whole.as_bytes()[..70], 3, "it ends early, at byte 70"),
        ("gzip", b"\x1f\x8b\x08\x00", 3, "compressed by gzip"),
        ("text", b"hello", 3, "neither JSON nor XML"),
        ("other", b"{\"\x1b[2Jkind\":\"List\"}", 3, "\\u{1b}[2Jkind"),
        ("broken", b"{\"Controls\": 1}", 3, "its controls are no list"),
        ("dtd", b"<!DOCTYPE x [<!ENTITY a 'b'>]><TestResult/>", 3, "no tag that can be read"),
    ] {
        let path = write(name, bytes);
        let output = gapscan(&[&path, &good, "-o", "json"]);
        let message = String::from_utf8(output.stderr).expect("a message is UTF-8");
        assert_eq!(output.status.code(), Some(code), "{name}: {message}");
        assert!(
            message.contains(&path) && message.contains(words) && message.lines().count() == 2,
            "{name}: {message}"
        );
        assert!(!message.contains('\u{1b}'));
        let other: Value = serde_json::from_slice(&output.stdout).expect("the other one is read");
        assert_eq!(other["file"], good.as_str());
    }
    let absent = gapscan(&[&folder.path().join("absent").display().to_string()]);
    assert_eq!(absent.status.code(), Some(5));
    assert_eq!(gapscan(&[&folder.path().display().to_string()]).status.code(), Some(5));
    assert_eq!(gapscan(&["-", "-"]).status.code(), Some(2));
    assert_eq!(
        gapscan(&[&good, "--format", "grype"]).status.code(),
        Some(3),
        "a format that is named is taken at its word"
    );
    assert_eq!(gapscan(&[&good, "--format", "nothing"]).status.code(), Some(2));
}

#[test]
fn a_result_is_shown_to_people_without_obeying_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("x\u{1b}[2J");
    let text = r#"[{"id":"1","node_type":"node\u001b[2J","text":"=cmd()","tests":[{"results":[
        {"test_number":"1.1\u001b","test_desc":"t\u202e","status":"FAIL"},{"test_number":"1.2","status":"WARN","reason":"<b>\u0007"}]}],
        "total_pass":7,"total_fail":1,"total_warn":1,"total_info":0}]"#;
    fs::write(&path, text).expect("a file");
    let output = gapscan(&[&path.display().to_string()]);
    assert_eq!(output.status.code(), Some(3));
    let shown = String::from_utf8(output.stdout).expect("UTF-8");
    assert!(shown.chars().all(|c| c == '\n' || !c.is_control()) && !shown.contains('\u{202e}'), "{shown}");
    for words in ["1.1\\u{1b}", "a person has to look: <b>\\u{7}", "it counts 9 verdicts and lists 2", "kube-bench"] {
        assert!(shown.contains(words), "{words}: {shown}");
    }
}
