use serde_json::{Value, json};

use super::*;
use crate::model::scanner::ResultFormat;
use crate::results::Summary;
use crate::results::tests::{refuses_what_is_no_result, summary, verdicts};

fn bom(vulnerabilities: Value) -> Value {
    json!({
        "bomFormat": "CycloneDX", "specVersion": "1.6",
        "metadata": {"tools": {"components": [{"name": "syft", "version": "1.2"}]}, "component": {"name": "img", "version": "7", "bom-ref": "root"}},
        "components": [
            {"bom-ref": "a-1", "type": "library", "group": "org", "name": "a", "version": "1", "licenses": [{"license": {"id": "MIT"}}, {"expression": "A OR B"}],
             "components": [{"type": "library", "name": "b", "purl": "pkg:npm/b@2"}]},
            {"bom-ref": "c-3", "type": "library", "name": "c", "version": "3", "purl": "pkg:npm/c@3"},
        ],
        "vulnerabilities": vulnerabilities,
    })
}

fn read_all(bom: &Value) -> Summary {
    summary(ResultFormat::CycloneDx, &bom.to_string()).expect("a result")
}

fn found(state: Value) -> Value {
    json!({
        "id": "CVE-2026-1", "source": {"name": "nvd"}, "cwes": [79], "analysis": {"state": state},
        "ratings": [{"severity": "low"}, {"method": "CVSSv31", "score": 9.8, "vector": "CVSS:3.1/AV:N", "severity": "critical"}, {"severity": "unknown"}],
        "affects": [{"ref": "c-3"}, {"ref": "pkg:npm/b@2"}, {"ref": "a-1"}],
    })
}

#[test]
fn an_inventory_has_components_and_no_control() {
    for vulnerabilities in [Value::Null, json!([])] {
        let read = read_all(&bom(vulnerabilities));
        assert_eq!((read.components, read.controls.total(), read.not_evaluated.len()), (3, 0, 0));
        let names: Vec<&str> = read.component_list.iter().map(|component| component.name.as_str()).collect();
        assert_eq!(names, ["b", "org/a", "c"]);
        assert_eq!(read.component_list[1].licences, ["MIT", "A OR B"]);
        assert_eq!((read.targets[0].as_str(), read.scanner.name.as_deref()), ("img 7", Some("syft")));
    }
    let mut old = bom(Value::Null);
    old["metadata"]["tools"] = json!([{"vendor": "v", "name": "t", "version": "1"}]);
    assert_eq!(read_all(&old).scanner.name.as_deref(), Some("t"));
    old["components"] = json!([]);
    assert_eq!(read_all(&old).not_evaluated.len(), 1, "nothing at all");
}

#[test]
fn a_vulnerability_is_a_finding_for_each_that_it_affects() {
    for (state, expected) in [
        (Value::Null, Some("failed")),
        ("exploitable".into(), Some("failed")),
        ("in_triage".into(), Some("scanner-skipped")),
        ("odd".into(), Some("status-unknown")),
        // What may be left out is for waivers to say.
        ("not_affected".into(), None),
        ("false_positive".into(), None),
    ] {
        let read = read_all(&bom(json!([found(state.clone())])));
        let wanted = [(CONTROLS[0], expected.unwrap_or("scanner-skipped"))];
        assert_eq!(verdicts(&read), wanted, "{state}");
        assert_eq!((read.findings.total(), read.suppressed), if expected.is_some() { (3, 0) } else { (0, 3) });
    }
    let read = read_all(&bom(json!([found(Value::Null)])));
    let subjects: Vec<&str> = read.finding_list.iter().map(|finding| finding.subject.as_str()).collect();
    assert_eq!(
        subjects,
        ["pkg:npm/c@3", "pkg:npm/b@2", "a 1"].map(|name| if name == "a 1" { "org/a 1" } else { name })
    );
    let names: Vec<&str> = read.finding_list[0].references.iter().map(|r| r.scheme.as_str()).collect();
    assert_eq!((names, read.finding_list[0].ratings[0].score), (vec!["cve", "cwe", "purl"], Some(9.8)));
    let unrated = read_all(&bom(json!([{"id": "X-1"}])));
    assert_eq!(verdicts(&unrated), [(CONTROLS[4], "failed")]);
}

#[test]
fn an_identity_does_not_depend_on_references_of_the_file() {
    let read = read_all(&bom(json!([found(Value::Null)])));
    let renamed = bom(json!([found(Value::Null)])).to_string().replace("c-3", "other").replace("a-1", "another");
    let renamed = summary(ResultFormat::CycloneDx, &renamed).expect("a result");
    let identities = |read: &Summary| read.finding_list.iter().map(|finding| finding.identity).collect::<Vec<_>>();
    assert_eq!(identities(&read), identities(&renamed));
}

#[test]
fn anything_else_is_refused() {
    refuses_what_is_no_result(ResultFormat::CycloneDx, &bom(json!([found(Value::Null)])).to_string());
    for text in [
        r#"{"bomFormat":"SPDX","specVersion":"1.6"}"#,
        r#"{"bomFormat":"CycloneDX","specVersion":"2.0"}"#,
        r#"{"bomFormat":"CycloneDX","specVersion":"1.6","components":{}}"#,
        r#"{"bomFormat":"CycloneDX","specVersion":"1.6","components":[{"version":"1"}]}"#,
        r#"{"bomFormat":"CycloneDX","specVersion":"1.6","vulnerabilities":[{}]}"#,
    ] {
        assert!(summary(ResultFormat::CycloneDx, text).is_err(), "{text}");
    }
    let deep = format!(
        "{}{}",
        r#"{"bomFormat":"CycloneDX","specVersion":"1.6","components":["#,
        r#"{"name":"x","components":["#.repeat(500)
    );
    assert!(summary(ResultFormat::CycloneDx, &deep).is_err());
}
