//! Documents that are made together with what has to be counted in them: no verdict is lost, and no word becomes a pass that
//! is none. The order of keys means nothing.

use serde_json::{Map, Value, json};

use super::*;

/// How many of each are expected: passed, failed, not applicable, not evaluated, and left out.
type Expected = [u64; 5];

/// A document, and what has to be counted.
#[derive(Clone, Debug)]
struct Case {
    format: ResultFormat,
    text: String,
    findings: Expected,
    components: u64,
}

const PASSED: usize = 0;
const FAILED: usize = 1;
const NOT_APPLICABLE: usize = 2;
const NOT_EVALUATED: usize = 3;
const LEFT_OUT: usize = 4;

/// Words with what each counts as, as docs/formats.md says; and some that nobody knows.
fn words(known: &'static [(&'static str, usize)]) -> impl Strategy<Value = Vec<(String, usize)>> {
    let known = proptest::sample::select(known).prop_map(|(word, at)| (word.to_owned(), at));
    let odd = "[a-zA-Z<=\u{1b}\u{202e}é]{3,9}".prop_map(|word| (format!("odd{word}"), NOT_EVALUATED));
    proptest::collection::vec(prop_oneof![6 => known, 1 => odd], 0..40)
}

fn tally(words: &[(String, usize)]) -> Expected {
    let mut expected = [0; 5];
    for (_, at) in words {
        expected[*at] += 1;
    }
    expected
}

/// The same with the keys of all objects in this or the other order.
fn written(value: &Value, reversed: bool) -> String {
    match value {
        Value::Object(fields) => {
            let mut fields: Vec<(&String, &Value)> = fields.iter().collect();
            if reversed {
                fields.reverse();
            }
            let field = |(key, value): (&String, &Value)| format!("{}: {}", json!(key), written(value, reversed));
            format!("{{\n{}}}", fields.into_iter().map(field).collect::<Vec<_>>().join(" ,\n\t"))
        }
        Value::Array(items) => {
            format!("[ {} ]", items.iter().map(|item| written(item, reversed)).collect::<Vec<_>>().join(","))
        }
        other => other.to_string(),
    }
}

fn case(format: ResultFormat, document: &Value, findings: Expected, components: u64, reversed: bool) -> Case {
    Case { format, text: written(document, reversed), findings, components }
}

fn inspec() -> impl Strategy<Value = Case> {
    let known = &[
        ("passed", PASSED),
        ("failed", FAILED),
        ("failed with an exception", NOT_EVALUATED),
        ("skipped", NOT_EVALUATED),
    ];
    (words(known), any::<bool>()).prop_map(|(words, reversed)| {
        let result = |(word, _): &(String, usize)| match word.strip_suffix(" with an exception") {
            Some(word) => json!({"status": word, "code_desc": "d", "exception": "E", "message": "m"}),
            None => json!({"status": word, "code_desc": "d"}),
        };
        let controls = words.chunks(3).enumerate().map(|(n, words)| {
            let results: Vec<Value> = words.iter().map(result).collect();
            json!({"id": format!("c{n}"), "impact": 0.5, "results": results, "code": "\"}]{\\"})
        });
        let controls: Vec<Value> = controls.collect();
        let document =
            json!({"profiles": [{"name": "p", "controls": controls}], "statistics": {}, "version": "5", "platform": {}});
        case(ResultFormat::Inspec, &document, tally(&words), 0, reversed)
    })
}

fn trivy() -> impl Strategy<Value = Case> {
    let vulnerabilities = words(&[
        ("", FAILED),
        ("unknown", FAILED),
        ("affected", FAILED),
        ("fixed", FAILED),
        ("will_not_fix", FAILED),
        ("end_of_life", FAILED),
        ("not_affected", NOT_APPLICABLE),
        ("under_investigation", NOT_EVALUATED),
    ]);
    let checks = words(&[("PASS", PASSED), ("FAIL", FAILED), ("EXCEPTION", NOT_EVALUATED), ("", NOT_EVALUATED)]);
    let licences = words(&[
        ("forbidden", FAILED),
        ("restricted", FAILED),
        ("notice", PASSED),
        ("permissive", PASSED),
        ("unknown", NOT_EVALUATED),
    ]);
    (vulnerabilities, checks, licences, 0..9_usize, any::<bool>()).prop_map(
        |(vulnerabilities, checks, licences, packages, reversed)| {
            let vulnerability = |(n, (word, _)): (usize, &(String, usize))| json!({"VulnerabilityID": format!("CVE-{n}"), "PkgName": "p", "Status": word, "Severity": "LOW"});
            let check = |(n, (word, _)): (usize, &(String, usize))| json!({"ID": format!("DS-{n}"), "Status": word});
            let licence = |(n, (word, _)): (usize, &(String, usize))| json!({"Name": format!("L{n}"), "Category": word});
            let document = json!({"SchemaVersion": 2, "ArtifactName": "a", "Results": [
                {"Target": "t", "Class": "os-pkgs", "Vulnerabilities": vulnerabilities.iter().enumerate().map(vulnerability).collect::<Vec<_>>(),
                 "Packages": (0..packages).map(|n| json!({"Name": format!("p{n}")})).collect::<Vec<_>>()},
                {"Target": "d", "Class": "config", "Misconfigurations": checks.iter().enumerate().map(check).collect::<Vec<_>>()},
                {"Target": "l", "Class": "license", "Licenses": licences.iter().enumerate().map(licence).collect::<Vec<_>>()},
            ]});
            let all = [vulnerabilities, checks, licences].concat();
            case(ResultFormat::Trivy, &document, tally(&all), packages as u64, reversed)
        },
    )
}

fn grype() -> impl Strategy<Value = Case> {
    let severities = words(&[("Critical", FAILED), ("High", FAILED), ("Negligible", FAILED), ("", FAILED)]);
    (severities, 0..9_u64, any::<bool>()).prop_map(|(severities, ignored, reversed)| {
        let found = |(n, word): (usize, &str)| json!({"vulnerability": {"id": format!("CVE-{n}"), "severity": word}, "artifact": {"name": "a"}});
        let matches: Vec<Value> = severities.iter().enumerate().map(|(n, (word, _))| found((n, word))).collect();
        let left_out: Vec<Value> = (0..ignored).map(|n| found((n as usize, "Low"))).collect();
        let document = json!({"matches": matches, "ignoredMatches": left_out, "descriptor": {"name": "grype"}, "distro": {"name": "debian"}});
        // Whatever word it has for how bad it is, a match is one.
        case(ResultFormat::Grype, &document, [0, severities.len() as u64, 0, 0, ignored], 0, reversed)
    })
}

fn kube_bench() -> impl Strategy<Value = Case> {
    let known = &[
        ("PASS", PASSED),
        ("PASS of nothing", NOT_EVALUATED),
        ("FAIL", FAILED),
        ("WARN", NOT_EVALUATED),
        ("INFO", NOT_EVALUATED),
    ];
    (words(known), any::<bool>(), any::<bool>()).prop_map(|(words, totals, reversed)| {
        let test = |(n, (word, _)): (usize, &(String, usize))| {
            let (word, seen) = word
                .strip_suffix(" of nothing")
                .map_or((&**word, "600"), |word| (word, "ls: No such file or directory"));
            json!({"test_number": format!("1.{n}"), "status": word, "actual_value": seen})
        };
        let tests: Vec<Value> = words.iter().enumerate().map(test).collect();
        let groups = json!([{"id": "1", "node_type": "n", "tests": [{"results": tests, "pass": words.len()}]}]);
        let document = if totals { json!({"Controls": groups, "Totals": {"total_pass": words.len()}}) } else { groups };
        case(ResultFormat::KubeBench, &document, tally(&words), 0, reversed)
    })
}

fn sarif() -> impl Strategy<Value = Case> {
    let known = &[
        ("fail", FAILED),
        ("pass", PASSED),
        ("notApplicable", NOT_APPLICABLE),
        ("open", NOT_EVALUATED),
        ("review", NOT_EVALUATED),
        ("informational", NOT_EVALUATED),
    ];
    (words(known), any::<bool>()).prop_map(|(words, reversed)| {
        let result = |(n, (word, _)): (usize, &(String, usize))| json!({"ruleId": format!("r{}", n % 7), "kind": word, "message": {"text": format!("m{n}")}});
        let results: Vec<Value> = words.iter().enumerate().map(result).collect();
        let document = json!({"version": "2.1.0", "runs": [{"tool": {"driver": {"name": "t"}}, "results": results}]});
        case(ResultFormat::Sarif, &document, tally(&words), 0, reversed)
    })
}

fn cyclonedx() -> impl Strategy<Value = Case> {
    let known = &[
        ("", FAILED),
        ("exploitable", FAILED),
        ("in_triage", NOT_EVALUATED),
        ("resolved", LEFT_OUT),
        ("false_positive", LEFT_OUT),
        ("not_affected", LEFT_OUT),
    ];
    (words(known), 0..9_usize, any::<bool>()).prop_map(|(words, components, reversed)| {
        let found = |(n, (word, _)): (usize, &(String, usize))| json!({"id": format!("CVE-{n}"), "analysis": {"state": word}, "affects": [{"ref": "pkg:a/b"}]});
        let document = json!({"bomFormat": "CycloneDX", "specVersion": "1.5", "vulnerabilities": words.iter().enumerate().map(found).collect::<Vec<_>>(),
            "components": (0..components).map(|n| json!({"name": format!("c{n}"), "bom-ref": n.to_string()})).collect::<Vec<_>>()});
        case(ResultFormat::CycloneDx, &document, tally(&words), components as u64, reversed)
    })
}

fn clair() -> impl Strategy<Value = Case> {
    (1..9_usize, proptest::collection::btree_set((0..9_usize, 0..9_usize), 0..40), any::<bool>()).prop_map(
        |(packages, pairs, reversed)| {
            // What is named and not described counts as no finding.
            let described = pairs.iter().filter(|(package, id)| *package < packages && *id < 6).count() as u64;
            let mut by_package = Map::new();
            for (package, id) in &pairs {
                let ids = by_package.entry(format!("p{package}")).or_insert_with(|| json!([]));
                ids.as_array_mut().expect("a list").push(format!("v{id}").into());
            }
            let known: Map<String, Value> =
                (0..packages).map(|n| (format!("p{n}"), json!({"name": format!("n{n}")}))).collect();
            let vulnerabilities: Map<String, Value> = (0..6)
                .map(|n| (format!("v{n}"), json!({"name": format!("CVE-{n}"), "normalized_severity": "Low"})))
                .collect();
            let document = json!({"manifest_hash": "h", "packages": known, "vulnerabilities": vulnerabilities,
                "package_vulnerabilities": by_package, "distributions": {}});
            case(ResultFormat::Clair, &document, [0, described, 0, 0, 0], packages as u64, reversed)
        },
    )
}

fn falco() -> impl Strategy<Value = Case> {
    let priorities = words(&[("Critical", FAILED), ("Warning", FAILED), ("Debug", FAILED)]);
    (priorities, any::<bool>()).prop_filter("there is a line", |(lines, _)| !lines.is_empty()).prop_map(
        |(priorities, reversed)| {
            let line = |(n, (word, _)): (usize, &(String, usize))| {
                written(&json!({"rule": format!("r{}", n % 5), "priority": word, "time": "t", "output": "o"}), reversed)
            };
            let lines: Vec<String> = priorities.iter().enumerate().map(line).collect();
            let findings = [0, lines.len() as u64, 0, 0, 0];
            Case { format: ResultFormat::Falco, text: lines.join("\n"), findings, components: 0 }
        },
    )
}

fn inventories() -> impl Strategy<Value = Case> {
    (0..40_usize, any::<bool>(), any::<bool>()).prop_map(|(count, is_syft, reversed)| {
        let parts: Vec<Value> = (0..count).map(|n| json!({"name": format!("p{n}")})).collect();
        let (format, document) = match is_syft {
            true => (ResultFormat::Syft, json!({"artifacts": parts, "descriptor": {"name": "syft"}})),
            false => (ResultFormat::Spdx, json!({"spdxVersion": "SPDX-2.3", "name": "n", "packages": parts})),
        };
        case(format, &document, [0; 5], count as u64, reversed)
    })
}

fn markup(word: &str) -> String {
    word.replace('\u{1b}', "").replace('<', "&lt;")
}

fn arf() -> impl Strategy<Value = Case> {
    let known = &[
        ("pass", PASSED),
        ("fail", FAILED),
        ("fixed", FAILED),
        ("notapplicable", NOT_APPLICABLE),
        ("error", NOT_EVALUATED),
        ("unknown", NOT_EVALUATED),
        ("notchecked", NOT_EVALUATED),
        ("informational", NOT_EVALUATED),
    ];
    words(known).prop_map(|words| {
        let rule = |(n, (word, _)): (usize, &(String, usize))| {
            format!("<x:rule-result idref='r{n}'><x:result>{}</x:result></x:rule-result>\n", markup(word))
        };
        let rules: String = words.iter().enumerate().map(rule).collect();
        let text =
            format!("<x:TestResult end-time='t' xmlns:x='http://checklists.nist.gov/xccdf/1.1'>{rules}</x:TestResult>");
        Case { format: ResultFormat::Arf, text, findings: tally(&words), components: 0 }
    })
}

fn junit() -> impl Strategy<Value = Case> {
    let known =
        &[("", PASSED), ("<failure/>", FAILED), ("<error>x</error>", NOT_EVALUATED), ("<skipped/>", NOT_EVALUATED)];
    words(known).prop_map(|words| {
        let case = |(n, (word, _)): (usize, &(String, usize))| match word.strip_prefix("odd") {
            Some(odd) => format!("<testcase name='c{n}' status='odd{}'/>", markup(odd)),
            None => format!("<testcase name='c{n}'>{word}</testcase>"),
        };
        let cases: String = words.iter().enumerate().map(case).collect();
        let text = format!("<testsuite name='s' tests='{}'>{cases}</testsuite>", words.len());
        Case { format: ResultFormat::Junit, text, findings: tally(&words), components: 0 }
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 384, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_was_put_in_is_counted(
        case in prop_oneof![inspec(), trivy(), grype(), kube_bench(), sarif(), cyclonedx(), clair(), falco(), inventories(), arf(), junit()],
    ) {
        let read = summary(case.format, &case.text);
        let read = read.map_err(|error| TestCaseError::fail(format!("{error}: {}", case.text)))?;
        let counts = read.findings;
        let found = [counts.passed, counts.failed, counts.not_applicable, counts.not_evaluated, read.suppressed];
        prop_assert_eq!(found, case.findings, "{}", case.text);
        prop_assert_eq!(read.components, case.components);
        // No control is better than the worst of what was found about it.
        for control in &read.control_list {
            let about = || read.finding_list.iter().filter(|finding| finding.control == control.id);
            let all_passed = about().all(|finding| finding.outcome == Outcome::Passed);
            prop_assert!(control.outcome != Outcome::Passed || all_passed || about().count() == 0
                || about().all(|finding| matches!(finding.outcome, Outcome::Passed | Outcome::NotApplicable { .. })), "{:?}", control);
        }
        // A word that nobody knows is named where it counts.
        for finding in read.finding_list.iter().filter(|finding| finding.word.starts_with("odd")) {
            if let Outcome::NotEvaluated { reason: Reason::StatusUnknown, detail } = &finding.outcome {
                prop_assert!(detail.contains("odd"), "{detail}");
            }
        }
    }
}
