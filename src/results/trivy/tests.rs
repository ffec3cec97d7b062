use serde_json::{Value, json};

use super::*;
use crate::model::scanner::ResultFormat;
use crate::results::Summary;
use crate::results::tests::{refuses_what_is_no_result, summary, verdicts};

fn report(family: &str, results: Value) -> Value {
    json!({
        "SchemaVersion": 2, "Trivy": {"Version": "0.60.0"}, "ArtifactName": "img", "ArtifactType": "container_image",
        "Metadata": {"OS": {"Family": family, "Name": "12"}}, "Results": results,
    })
}

fn found(severity: &str, status: &str) -> Value {
    json!({
        "VulnerabilityID": "CVE-2026-1", "PkgName": "openssl", "InstalledVersion": "1", "FixedVersion": "2", "Status": status,
        "Severity": severity, "PkgIdentifier": {"PURL": "pkg:deb/openssl@1"}, "CweIDs": ["CWE-79"],
        "CVSS": {"nvd": {"V3Vector": "CVSS:3.1/AV:N", "V3Score": 9.8, "V2Score": 5}},
    })
}

fn packages(class: &str, vulnerabilities: Value) -> Value {
    let packages = json!([{"Name": "openssl", "Version": "1"}]);
    json!({
        "Target": "img (debian 12)", "Class": class, "Type": "debian", "Packages": packages, "Vulnerabilities": vulnerabilities,
    })
}

fn read_all(report: &Value) -> Summary {
    summary(ResultFormat::Trivy, &report.to_string()).expect("a result")
}

fn words(report: &Value) -> Vec<&'static str> {
    verdicts(&read_all(report)).into_iter().map(|(_, word)| word).collect()
}

#[test]
fn a_vulnerability_fails_the_control_of_its_severity() {
    for (severity, at) in [("CRITICAL", 0), ("HIGH", 1), ("MEDIUM", 2), ("LOW", 3), ("UNKNOWN", 4), ("", 4), ("odd", 4)]
    {
        let read = read_all(&report("debian", json!([packages("os-pkgs", json!([found(severity, "fixed")]))])));
        let failed: Vec<&str> =
            verdicts(&read).into_iter().filter(|(_, word)| *word == "failed").map(|(id, _)| id).collect();
        assert_eq!((failed, read.controls.passed), (vec![CONTROLS[at]], 4), "{severity}");
    }
    for (status, expected) in [
        ("affected", "failed"),
        ("will_not_fix", "failed"),
        ("unknown", "failed"),
        ("not_affected", "passed"),
        ("under_investigation", "scanner-skipped"),
        ("Fixed", "status-unknown"),
    ] {
        let read = read_all(&report("debian", json!([packages("os-pkgs", json!([found("HIGH", status)]))])));
        assert!(verdicts(&read).contains(&(CONTROLS[1], expected)), "{status}: {:?}", verdicts(&read));
    }
}

#[test]
fn nothing_found_is_a_pass_only_where_packages_of_a_known_system_were_looked_at() {
    let none = || json!([packages("os-pkgs", Value::Null)]);
    let release = |family: &str, release: &str, results: Value| {
        let mut report = report(family, results);
        report["Metadata"]["OS"]["Name"] = release.into();
        words(&report)
    };
    assert_eq!(words(&report("debian", none())), ["passed"; 5]);
    assert_eq!(words(&report("templeos", none())), ["scanner-skipped"; 5]);
    for (family, name, word) in [
        ("debian", "12.5", "passed"),
        ("debian", "99", "scanner-skipped"),
        ("debian", "", "scanner-skipped"),
        ("debian", "1", "scanner-skipped"),
        ("alpine", "3.20.3", "passed"),
        ("alpine", "3.2", "scanner-skipped"),
        ("amazon", "2 (Karoo)", "passed"),
        ("amazon", "2022", "scanner-skipped"),
        ("ubuntu", "22.04-ESM", "passed"),
        ("wolfi", "20230201", "passed"),
    ] {
        assert_eq!(release(family, name, none()), [word; 5], "{family} {name}");
    }
    // A vulnerability shows that there are advisories of the release.
    let shown = release("debian", "99", json!([packages("os-pkgs", json!([found("LOW", "fixed")]))]));
    assert_eq!(shown, ["failed", "passed", "passed", "passed", "passed"]);
    let mut ended = report("alpine", none());
    ended["Metadata"]["OS"]["EOSL"] = true.into();
    assert_eq!(words(&ended), ["scanner-skipped"; 5]);
    for nothing in [json!([]), Value::Null, json!([{"Target": "x", "Class": "secret"}])] {
        let read = read_all(&report("debian", nothing));
        assert_eq!((read.controls.total(), read.not_evaluated.len()), (0, 1));
    }
}

#[test]
fn nothing_found_where_the_systems_packages_are_not_there_is_no_pass() {
    // Somebody removed the package manager's database.
    let mut emptied = json!([packages("os-pkgs", Value::Null)]);
    emptied[0]["Packages"] = Value::Null;
    assert_eq!(words(&report("debian", emptied.clone())), ["scanner-skipped"; 5]);
    // That a library is there says nothing of them, whether the system is known or not.
    for family in ["", "none", "debian", "void"] {
        let alone = report(family, json!([packages("lang-pkgs", json!([]))]));
        assert_eq!(words(&alone), ["scanner-skipped"; 5], "{family}");
        let beside = report(family, json!([emptied[0], packages("lang-pkgs", json!([found("LOW", "fixed")]))]));
        let skipped = "scanner-skipped";
        assert_eq!(words(&beside), ["failed", skipped, skipped, skipped, skipped], "{family}");
    }
    // A repository has no system.
    let mut repository = report("", json!([packages("lang-pkgs", json!([]))]));
    repository["ArtifactType"] = "repository".into();
    assert_eq!(words(&repository), ["passed"; 5]);
}

#[test]
fn a_vulnerability_keeps_its_names_and_ratings() {
    let read = read_all(&report("debian", json!([packages("os-pkgs", json!([found("HIGH", "fixed")]))])));
    let finding = &read.finding_list[0];
    let names: Vec<&str> = finding.references.iter().map(|r| r.scheme.as_str()).collect();
    assert_eq!((names, finding.ratings.len()), (vec!["cve", "cwe", "purl"], 2));
    assert_eq!((finding.ratings[1].score, finding.ratings[1].vector.as_str()), (Some(9.8), "CVSS:3.1/AV:N"));
    assert_eq!(finding.messages, ["CVE-2026-1, HIGH, fixed in 2"]);
    assert_eq!(read.scanner.version.as_deref(), Some("0.60.0"));
}

#[test]
fn misconfigurations_secrets_licences_and_packages_are_read() {
    let check =
        |status: &str| json!({"ID": "DS-0002", "Title": "root", "Severity": "HIGH", "Status": status, "Message": "m"});
    for (statuses, expected) in [
        (&["PASS"][..], "passed"),
        (&["FAIL", "PASS"], "failed"),
        (&["EXCEPTION", "PASS"], "scanner-skipped"),
        (&["pass"], "status-unknown"),
    ] {
        let checks: Vec<Value> = statuses.iter().map(|status| check(status)).collect();
        let results = json!([{"Misconfigurations": checks, "Target": "Dockerfile", "Class": "config", "MisconfSummary": {"Successes": 26, "Failures": 1}}]);
        let read = read_all(&report("", results));
        assert_eq!(verdicts(&read), [("DS-0002", expected)], "{statuses:?}");
        assert!(read.notes[0].contains("checks passed that the file counts"), "{:?}", read.notes);
        let short = read.not_evaluated.iter().any(|gap| gap.subject.as_deref() == Some("Dockerfile"));
        assert_eq!(short, !statuses.contains(&"FAIL"), "a failure that is counted must be listed");
    }
    let results = json!([
        {"Target": "a.env", "Class": "secret", "Secrets": [{"RuleID": "aws", "Severity": "CRITICAL", "Title": "t", "StartLine": 3, "Match": "hunter2"}]},
        {"Target": "os", "Class": "license", "Licenses": [
            {"Name": "MIT", "Category": "notice"}, {"Name": "AGPL", "Category": "forbidden", "PkgName": "p"}, {"Name": "?", "Category": "unknown"}]},
        {"Target": "l", "Class": "lang-pkgs", "Type": "npm", "Packages": [{"Name": "a", "Version": "1", "Release": "2", "Epoch": 3, "Identifier": {"PURL": "pkg:npm/a"}}]},
    ]);
    let read = read_all(&report("", results));
    assert_eq!(verdicts(&read)[..2], [("no-secrets", "failed"), ("acceptable-licences", "failed")]);
    assert_eq!((read.components, read.component_list[0].version.as_str()), (1, "3:1-2"));
    assert!(!serde_json::to_string(&read).expect("JSON").contains("hunter2"));
    assert_eq!(read.kinds.get("licence"), Some(&3));
}

#[test]
fn what_the_scanner_left_out_is_counted() {
    let mut results = json!([packages("os-pkgs", json!([]))]);
    results[0]["ExperimentalModifiedFindings"] =
        json!([{"Type": "vulnerability", "Status": "ignored", "Finding": found("HIGH", "fixed")}]);
    let read = read_all(&report("debian", results));
    assert_eq!((read.suppressed, read.findings.total()), (1, 0));
    assert!(read.notes[0].contains("1 for no-high-vulnerabilities"), "{:?}", read.notes);
    assert!(verdicts(&read).contains(&("no-high-vulnerabilities", "scanner-skipped")), "{:?}", verdicts(&read));
}

#[test]
fn anything_else_is_refused() {
    refuses_what_is_no_result(
        ResultFormat::Trivy,
        &report("debian", json!([packages("os-pkgs", json!([found("HIGH", "fixed")]))])).to_string(),
    );
    for text in [
        r#"{"SchemaVersion":1,"ArtifactName":"x"}"#,
        r#"{"SchemaVersion":2,"Results":[]}"#,
        r#"{"SchemaVersion":2,"ArtifactName":"x","Results":{}}"#,
        r#"{"SchemaVersion":2,"ArtifactName":"x","Results":[{"Vulnerabilities":[{"PkgName":"p"}]}]}"#,
        r#"{"SchemaVersion":2,"ArtifactName":"x","Results":[{"Misconfigurations":[{"Status":"PASS"}]}]}"#,
    ] {
        assert!(summary(ResultFormat::Trivy, text).is_err(), "{text}");
    }
}
