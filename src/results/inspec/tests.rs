use serde_json::{Value, json};

use super::check::SEVERAL_FAILURES;
use crate::model::control::Severity;
use crate::model::scanner::ResultFormat;
use crate::results::Summary;
use crate::results::tests::{refuses_what_is_no_result, summary, verdicts};

fn check(status: &str, more: Value) -> Value {
    let mut check = json!({"status": status, "code_desc": "File /x is expected to exist", "run_time": 0.1});
    check.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
    check
}

fn control(id: &str, impact: f64, results: Vec<Value>) -> Value {
    json!({
        "id": id, "title": format!("title of {id}"), "desc": null, "impact": impact, "refs": [{"url": "https://a.example"}],
        "tags": {"nist": ["AC-6", "Rev_4"], "cci": ["CCI-000366", "CCI-000366"], "stig_id": "RHEL-1", "severity": null},
        "code": "control", "waiver_data": {}, "results": results,
    })
}

fn profile(name: &str, parent: Option<&str>, controls: Vec<Value>) -> Value {
    json!({"name": name, "parent_profile": parent, "status": "loaded", "depends": [], "controls": controls})
}

fn report(profiles: Vec<Value>) -> String {
    json!({
        "platform": {"name": "debian", "release": "12", "target_id": "t"}, "profiles": profiles,
        "statistics": {"duration": 0.1}, "version": "5.24.24",
    })
    .to_string()
}

fn read_all(profiles: Vec<Value>) -> Summary {
    summary(ResultFormat::Inspec, &report(profiles)).expect("a result")
}

#[test]
fn each_status_means_what_the_table_says() {
    let skipped = json!({"skip_message": "not \n here"});
    for (impact, checks, expected) in [
        (0.5, vec![check("passed", json!({}))], "passed"),
        (0.5, vec![check("passed", json!({})), check("failed", json!({"message": "m"}))], "failed"),
        (0.5, vec![check("passed", json!({})), check("skipped", skipped.clone())], "scanner-skipped"),
        (0.5, vec![check("failed", json!({"exception": "RuntimeError", "message": "m"}))], "rule-error"),
        (0.5, vec![check("failed", json!({"exception": SEVERAL_FAILURES}))], "failed"),
        (0.5, vec![check("maybe", json!({}))], "status-unknown"),
        (0.5, vec![check("", json!({}))], "status-unknown"),
        (0.5, vec![], "control-missing"),
        (0.0, vec![], "control-missing"),
        (0.0, vec![check("skipped", skipped)], "not-applicable"),
        (0.0, vec![check("passed", json!({}))], "not-applicable"),
        (0.0, vec![check("failed", json!({}))], "failed"),
        (0.0, vec![check("failed", json!({"exception": "RuntimeError"}))], "rule-error"),
        (0.0, vec![check("maybe", json!({}))], "status-unknown"),
    ] {
        let read = read_all(vec![profile("p", None, vec![control("a", impact, checks.clone())])]);
        assert_eq!(verdicts(&read), [("a", expected)], "{impact} {checks:?}");
        assert_eq!(read.findings.total(), checks.len() as u64);
    }
}

#[test]
fn all_that_is_said_of_a_control_is_kept() {
    let checks = vec![
        check("failed", json!({"message": "expected\nless", "resource_id": "/x"})),
        check("failed", json!({"message": "m", "exception": "NoMethodError", "backtrace": ["a"]})),
    ];
    let read = read_all(vec![profile("p", None, vec![control("a", 0.7, checks)])]);
    assert_eq!(read.scanner.version.as_deref(), Some("5.24.24"));
    assert_eq!(read.targets, ["debian 12 t"]);
    let control = &read.control_list[0];
    assert_eq!((control.title.as_str(), control.severity), ("title of a", Some(Severity::High)));
    let names: Vec<String> = control.references.iter().map(|r| format!("{} {}", r.scheme, r.id)).collect();
    for name in ["nist AC-6", "cci CCI-000366", "stig RHEL-1", "url https://a.example"] {
        assert!(names.iter().any(|known| known == name), "{names:?}");
    }
    assert_eq!(names.len(), 4);
    assert_eq!(read.finding_list[0].messages, ["File /x is expected to exist: expected\nless"]);
    assert_eq!(read.finding_list[1].messages, ["File /x is expected to exist: NoMethodError: m"]);
}

#[test]
fn a_control_of_several_profiles_is_one_of_the_outermost_ones_impact() {
    let inner = profile("inner", Some("middle"), vec![control("a", 0.9, vec![check("failed", json!({}))])]);
    let middle = profile("middle", Some("outer"), vec![control("a", 0.3, vec![])]);
    let outer = profile("outer", None, vec![control("a", 0.5, vec![]), control("b", 0.5, vec![])]);
    for order in [[&inner, &middle, &outer], [&outer, &middle, &inner]] {
        let read = read_all(order.into_iter().cloned().collect());
        let mut seen = verdicts(&read);
        seen.sort_unstable();
        assert_eq!(seen, [("a", "failed"), ("b", "control-missing")]);
        let severity = read.control_list.iter().find(|control| control.id == "a").expect("it is there").severity;
        assert_eq!((severity, read.findings.total()), (Some(Severity::Medium), 1));
    }
    let looped = [profile("x", Some("y"), vec![control("a", 0.5, vec![])]), profile("y", Some("x"), vec![])];
    assert_eq!(read_all(looped.to_vec()).controls.not_evaluated, 1);
}

#[test]
fn the_same_check_twice_is_two_findings_with_identities_that_stay() {
    let twice = || {
        vec![profile("p", None, vec![control("a", 0.5, vec![check("passed", json!({})), check("failed", json!({}))])])]
    };
    let (first, second) = (read_all(twice()), read_all(twice()));
    assert_eq!(verdicts(&first), [("a", "failed")]);
    let identities = |read: &Summary| read.finding_list.iter().map(|f| f.identity).collect::<Vec<_>>();
    assert_eq!(identities(&first), identities(&second));
    assert_ne!(identities(&first)[0], identities(&first)[1]);
}

#[test]
fn what_did_not_load_or_run_is_not_evaluated() {
    let mut skipped = profile("outer", None, vec![]);
    skipped["depends"] =
        json!([{"name": "windows", "status": "skipped", "skip_message": "on debian"}, {"name": "old"}]);
    let mut failed = profile("old", Some("outer"), vec![]);
    failed["status"] = "failed".into();
    failed["status_message"] = "boom".into();
    let mut odd = profile("odd", Some("outer"), vec![]);
    odd["status"] = "asleep".into();
    let read = read_all(vec![skipped, failed, odd]);
    let seen: Vec<(&str, &str)> =
        read.not_evaluated.iter().map(|gap| (gap.subject.as_deref().unwrap_or(""), gap.reason.code())).collect();
    assert_eq!(
        seen,
        [
            ("profile windows", "scanner-skipped"),
            ("profile old", "scanner-skipped"),
            ("profile odd", "status-unknown"),
            ("the result", "control-missing"),
        ]
    );
}

#[test]
fn a_waiver_in_the_file_does_not_turn_a_failure() {
    let mut waived = control("a", 0.5, vec![check("failed", json!({}))]);
    waived["waiver_data"] = json!({"justification": "\u{1b}[2J", "expiration_date": "2027-01-01", "run": true, "skipped_due_to_waiver": false});
    let read = read_all(vec![profile("p", None, vec![waived])]);
    assert_eq!(verdicts(&read), [("a", "failed")]);
    assert!(read.notes[0].contains("a until 2027-01-01 (run: \\u{1b}[2J)"), "{:?}", read.notes);
}

#[test]
fn the_small_reporter_is_read_too() {
    let entry = |id: &str, status: &str| json!({"id": id, "profile_id": "p", "status": status, "code_desc": "d", "message": "m"});
    let text = json!({
        "controls": [entry("a", "passed"), entry("a", "failed"), entry("b", "passed"), entry("c", "odd")],
        "statistics": {"duration": 1}, "version": "5",
    })
    .to_string();
    let read = summary(ResultFormat::Inspec, &text).expect("a result");
    assert_eq!(verdicts(&read), [("a", "failed"), ("b", "passed"), ("c", "status-unknown")]);
    refuses_what_is_no_result(ResultFormat::Inspec, &text);
    let nothing = summary(ResultFormat::Inspec, r#"{"controls":[],"statistics":{},"version":"5"}"#).expect("a result");
    assert_eq!(nothing.not_evaluated.len(), 1, "no control matched");
}

#[test]
fn results_that_are_listed_twice_count_once() {
    let mut twice: Value = serde_json::from_str(&report(vec![profile(
        "p",
        None,
        vec![control("a", 0.5, vec![check("passed", json!({}))])],
    )]))
    .expect("JSON");
    twice["controls"] = json!([check("passed", json!({})), check("failed", json!({}))]);
    let read = summary(ResultFormat::Inspec, &twice.to_string()).expect("a result");
    assert_eq!((verdicts(&read), read.findings.total()), (vec![("a", "passed")], 1));
}

#[test]
fn anything_else_is_refused() {
    let checks = vec![check("failed", json!({"message": "m"}))];
    refuses_what_is_no_result(ResultFormat::Inspec, &report(vec![profile("p", None, vec![control("a", 0.5, checks)])]));
    for text in [
        r#"{"profiles":[],"controls":[{"id":"a","status":"passed"}],"statistics":{}}"#,
        r#"{"controls":[{"status":"passed"}],"statistics":{}}"#,
        r#"{"profiles":[{"name":"p","controls":[{"title":"no id"}]}],"statistics":{}}"#,
        r#"{"profiles":[{"name":"p","controls":[{"id":"a","id":"b"}]}],"statistics":{}}"#,
        r#"{"profiles":[{"name":"p","controls":[{"id":"a","impact":"high"}]}],"statistics":{}}"#,
    ] {
        assert!(summary(ResultFormat::Inspec, text).is_err(), "{text}");
    }
}
