use serde_json::{Value, json};

use crate::model::control::Severity;
use crate::model::reason::Reason;
use crate::model::scanner::ResultFormat;
use crate::results::Summary;
use crate::results::tests::{refuses_what_is_no_result, summary, verdicts};

fn log(rules: Value, results: Value) -> Value {
    json!({
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json", "version": "2.1.0",
        "runs": [{"results": results, "tool": {"driver": {"name": "x", "version": "1.2", "rules": rules}}}],
    })
}

fn read_all(log: &Value) -> Summary {
    summary(ResultFormat::Sarif, &log.to_string()).expect("a result")
}

#[test]
fn each_kind_means_what_the_table_says() {
    for (kind, expected) in [
        (Value::Null, "failed"),
        ("fail".into(), "failed"),
        ("pass".into(), "passed"),
        ("notApplicable".into(), "not-applicable"),
        ("open".into(), "scanner-skipped"),
        ("review".into(), "scanner-skipped"),
        ("informational".into(), "scanner-skipped"),
        ("Pass".into(), "status-unknown"),
    ] {
        let read = read_all(&log(json!([]), json!([{"ruleId": "a", "kind": kind, "message": {"text": "m"}}])));
        assert_eq!(verdicts(&read), [("a", expected)], "{kind}");
    }
    let read = read_all(&log(json!([{"id": "a"}, {"id": "b"}]), json!([{"ruleId": "a", "kind": "pass"}])));
    assert_eq!(verdicts(&read), [("a", "passed"), ("b", "control-missing")], "a rule without a result is no pass");
}

#[test]
fn a_result_is_rated_and_named_by_its_rule() {
    let rules = json!([
        {"id": "CVE-2026-1", "defaultConfiguration": {"level": "note"}, "shortDescription": {"text": "t"},
         "properties": {"security-severity": "9.8", "tags": ["security", "external/cwe/cwe-79"]},
         "relationships": [{"target": {"id": "AC-6", "toolComponent": {"name": "NIST"}}}]},
        {"id": "b", "defaultConfiguration": {"level": "error"}},
    ]);
    let place = json!([{"physicalLocation": {"artifactLocation": {"uri": "a.c"}, "region": {"startLine": 7}}}]);
    let results = json!([
        {"ruleIndex": 0, "locations": place, "message": {"text": "m"}},
        {"ruleId": "b/1"}, {"ruleId": "b", "level": "none"}, {"ruleId": "c"}, {"ruleIndex": -1}, {"ruleIndex": 99},
    ]);
    let read = read_all(&log(rules, results));
    let seen: Vec<(&str, Severity)> = read.finding_list.iter().map(|f| (f.control.as_str(), f.severity)).collect();
    use Severity::{Critical, High, Medium};
    assert_eq!(
        seen,
        [
            ("CVE-2026-1", Critical),
            ("b", High),
            ("b", Severity::None),
            ("c", Medium),
            ("no-rule", Medium),
            ("no-rule", Medium)
        ]
    );
    assert_eq!(read.finding_list[0].subject, "a.c:7");
    let names: Vec<String> = read.finding_list[0].references.iter().map(|r| format!("{} {}", r.scheme, r.id)).collect();
    assert_eq!(names, ["cve CVE-2026-1", "cwe cwe-79", "nist AC-6"]);
    assert_eq!((read.scanner.name.as_deref(), read.scanner.version.as_deref()), (Some("x"), Some("1.2")));
}

#[test]
fn an_identity_does_not_depend_on_lines() {
    let result = |line: u64, print: Value| {
        json!({"ruleId": "a", "message": {"text": "m"}, "fingerprints": print,
               "locations": [{"physicalLocation": {"artifactLocation": {"uri": "a.c"}, "region": {"startLine": line}}}]})
    };
    let identities = |results: Value| -> Vec<String> {
        read_all(&log(json!([]), results)).finding_list.iter().map(|f| f.identity.to_string()).collect()
    };
    let none = Value::Null;
    let (before, after) = (
        identities(json!([result(1, none.clone()), result(5, none.clone())])),
        identities(json!([result(2, none.clone()), result(6, none)])),
    );
    assert_eq!(before, after);
    assert_ne!(before[0], before[1]);
    let printed = |value: &str, line| identities(json!([result(line, json!({"x/v1": value}))]));
    assert_eq!(printed("p", 1), printed("p", 9));
    assert_ne!(printed("p", 1), printed("q", 1));
}

#[test]
fn what_was_left_out_or_did_not_run_is_said() {
    let mut log = log(
        json!([]),
        json!([{"ruleId": "a", "suppressions": [{"kind": "external"}]}, {"ruleId": "b", "baselineState": "absent"}]),
    );
    log["runs"][0]["invocations"] = json!([{"executionSuccessful": false, "toolExecutionNotifications": [
        {"level": "error", "message": {"text": "boom"}}, {"level": "note", "message": {"text": "fine"}},
        {"level": "warning", "message": {"text": "a.py: passed over"}}, {"message": {"text": "b.py: passed over"}}]}]);
    let read = read_all(&log);
    assert_eq!(verdicts(&read), [("a", "failed")]);
    assert_eq!((read.not_evaluated.len(), read.notes.len()), (4, 2), "{read:?}");
    assert!(read.not_evaluated[1].detail.ends_with("boom"));
    assert!(read.not_evaluated[3].detail.ends_with("b.py: passed over"), "without a level it is a warning");
    log["runs"][0].as_object_mut().expect("an object").remove("results");
    assert!(read_all(&log).not_evaluated.iter().any(|gap| gap.reason == Reason::NoOutput));
}

#[test]
fn anything_else_is_refused() {
    refuses_what_is_no_result(
        ResultFormat::Sarif,
        &log(json!([{"id": "a"}]), json!([{"ruleId": "a", "message": {"text": "é"}}])).to_string(),
    );
    for text in [
        r#"{"version":"2.0.0","runs":[{"tool":{"driver":{"name":"x"}}}]}"#,
        r#"{"version":"2.1.0","runs":{}}"#,
        r#"{"version":"2.1.0","runs":[{"results":[]}]}"#,
        r#"{"version":"2.1.0","runs":[{"tool":{"driver":{"name":"x","rules":[{}]}},"results":[]}]}"#,
    ] {
        assert!(summary(ResultFormat::Sarif, text).is_err(), "{text}");
    }
}
