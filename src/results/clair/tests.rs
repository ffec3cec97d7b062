use serde_json::{Value, json};

use super::*;
use crate::model::scanner::ResultFormat;
use crate::results::Summary;
use crate::results::tests::{refuses_what_is_no_result, summary, verdicts};

fn report(distribution: &str, pairs: Value) -> Value {
    let release = if distribution == "rhel" { "9.4" } else { "12" };
    json!({
        "manifest_hash": "sha256:1",
        "packages": {"10": {"id": "10", "name": "openssl", "version": "1", "kind": "binary", "arch": "x86_64"}},
        "distributions": {"1": {"id": "1", "did": distribution, "name": "x", "version_id": release}},
        "repository": {}, "environments": {"10": [{"distribution_id": "1"}]},
        "vulnerabilities": {
            "7": {"id": "7", "updater": "rhel-vex", "distribution": {"did": ""}, "name": "RHSA-1", "links": "https://a.example/CVE-2026-1 https://b.example/CVE-2026-1",
                  "severity": "Important", "normalized_severity": "High", "fixed_in_version": "2"},
            "8": {"id": "8", "name": "CVE-2026-2", "normalized_severity": "Odd"},
        },
        "package_vulnerabilities": pairs, "enrichments": {},
    })
}

fn read_all(report: &Value) -> Summary {
    summary(ResultFormat::Clair, &report.to_string()).expect("a result")
}

fn words(read: &Summary) -> Vec<&'static str> {
    verdicts(read).into_iter().map(|(_, word)| word).collect()
}

#[test]
fn each_pair_is_a_finding() {
    let read = read_all(&report("rhel", json!({"10": ["7", "8"]})));
    assert_eq!((read.findings.failed, read.components, read.controls.passed), (2, 1, 3));
    let failed: Vec<&str> =
        verdicts(&read).into_iter().filter(|(_, word)| *word == "failed").map(|(id, _)| id).collect();
    assert_eq!(failed, [CONTROLS[1], CONTROLS[4]]);
    let first = &read.finding_list[0];
    assert_eq!((first.messages[0].as_str(), first.subject.as_str()), ("RHSA-1, High, fixed in 2", "openssl 1"));
    assert_eq!((first.references.len(), first.references[0].id.as_str()), (1, "CVE-2026-1"));
    // The ids are those of one database.
    let other =
        report("rhel", json!({"10": ["7", "8"]})).to_string().replace("\"7\"", "\"71\"").replace("\"10\"", "\"11\"");
    let other = summary(ResultFormat::Clair, &other).expect("a result");
    assert_eq!(other.finding_list[0].identity, first.identity);
}

#[test]
fn nothing_found_is_a_pass_only_where_something_could_be() {
    // As of an empty database, which Clair takes without a word.
    assert_eq!(words(&read_all(&report("debian", json!({})))), ["scanner-skipped"; 5]);
    // An advisory of another distribution's shows nothing.
    let other = report("debian", json!({"10": ["7"]}));
    assert_eq!(
        words(&read_all(&other)),
        ["failed", "scanner-skipped", "scanner-skipped", "scanner-skipped", "scanner-skipped"]
    );
    let mut own = other;
    own["vulnerabilities"]["7"]["distribution"]["did"] = json!("debian");
    assert_eq!(words(&read_all(&own)), ["failed", "passed", "passed", "passed", "passed"]);
    own["distributions"]["2"] = json!({"id": "2", "did": "alpine"});
    assert_eq!(words(&read_all(&own))[1], "scanner-skipped", "and of the other one nothing is known");
    assert_eq!(words(&read_all(&report("templeos", json!({})))), ["scanner-skipped"; 5]);
    // A release that is newer than what it has advisories of, and packages of a language alone.
    let mut newer = report("debian", json!({}));
    newer["distributions"]["1"]["version_id"] = "99".into();
    assert_eq!(words(&read_all(&newer)), ["scanner-skipped"; 5]);
    for environments in [json!({"10": [{"package_db": "python:x", "distribution_id": ""}]}), json!({}), Value::Null] {
        let mut without = report("debian", json!({}));
        without["environments"] = environments;
        assert_eq!(words(&read_all(&without)), ["scanner-skipped"; 5]);
    }
    let mut empty = report("debian", json!({}));
    empty["packages"] = json!({});
    assert_eq!(words(&read_all(&empty)), ["scanner-skipped"; 5]);
    let read = read_all(&report("debian", json!({"10": ["99"], "11": ["7"]})));
    assert_eq!((words(&read), read.not_evaluated.len()), (vec!["control-missing"; 5], 6));
}

#[test]
fn anything_else_is_refused() {
    refuses_what_is_no_result(ResultFormat::Clair, &report("debian", json!({"10": ["7"]})).to_string());
    let whole = report("debian", json!({}));
    for key in ["manifest_hash", "packages", "vulnerabilities", "package_vulnerabilities"] {
        let mut less = whole.clone();
        less.as_object_mut().expect("an object").remove(key);
        assert!(summary(ResultFormat::Clair, &less.to_string()).is_err(), "{key}");
    }
}
