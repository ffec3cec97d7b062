use serde_json::{Value, json};

use crate::model::scanner::ResultFormat;
use crate::results::Summary;
use crate::results::tests::{refuses_what_is_no_result, summary, verdicts};

fn test(number: &str, status: &str, seen: &str) -> Value {
    json!({
        "test_number": number, "test_desc": format!("Ensure {number}"), "audit": "ps", "type": "", "remediation": "Do it.",
        "status": status, "actual_value": seen, "scored": true,
    })
}

fn group(id: &str, results: Vec<Value>, totals: [u64; 4]) -> Value {
    let [pass, fail, warn, info] = totals;
    json!({
        "id": id, "version": "cis-1.8", "text": "Node", "node_type": "node",
        "tests": [{"section": id, "pass": pass, "fail": fail, "warn": warn, "info": info, "desc": "d", "results": results}],
        "total_pass": pass, "total_fail": fail, "total_warn": warn, "total_info": info,
    })
}

fn read_all(document: &Value) -> Summary {
    summary(ResultFormat::KubeBench, &document.to_string()).expect("a result")
}

fn four() -> Value {
    let tests = vec![
        test("4.1.1", "PASS", "permissions=600 TOKEN=secret"),
        test("4.1.2", "PASS", "stat: File not found"),
        test("4.1.3", "FAIL", "TOKEN=secret"),
        test("4.1.4", "WARN", ""),
        test("4.1.5", "INFO", ""),
        test("4.1.6", "pass", ""),
        test("4.1.7", "PASS", " "),
    ];
    group("4", tests, [4, 1, 1, 1])
}

#[test]
fn each_status_means_what_the_table_says() {
    let with =
        json!({"Controls": [four()], "Totals": {"total_pass": 4, "total_fail": 1, "total_warn": 1, "total_info": 1}});
    for document in [with, json!([four()])] {
        let read = read_all(&document);
        assert_eq!(
            verdicts(&read),
            [
                ("4.1.1", "passed"),
                ("4.1.2", "scanner-skipped"),
                ("4.1.3", "failed"),
                ("4.1.4", "scanner-skipped"),
                ("4.1.5", "scanner-skipped"),
                ("4.1.6", "status-unknown"),
                ("4.1.7", "scanner-skipped"),
            ]
        );
        assert_eq!(read.not_evaluated.len(), 5, "{:?}", read.not_evaluated);
        assert_eq!(read.targets, ["kube-bench group 4 node cis-1.8"]);
        let shown = serde_json::to_string(&read).expect("it has a JSON form");
        assert!(!shown.contains("secret") && shown.contains("Do it."), "{shown}");
    }
}

#[test]
fn what_is_counted_and_not_listed_was_not_evaluated() {
    let read = read_all(&json!([group("1", vec![test("1.1", "PASS", "600")], [9, 0, 0, 0])]));
    assert_eq!((read.controls.passed, read.not_evaluated[0].detail.as_str()), (1, "it counts 9 verdicts and lists 1"));
    let read = read_all(&json!({"Controls": [four()], "Totals": {"total_pass": 70, "total_fail": 1}}));
    assert!(read.not_evaluated.iter().any(|gap| gap.detail.contains("counts 71")), "{:?}", read.not_evaluated);
    let read = read_all(&json!([group("1", vec![], [0, 0, 0, 0])]));
    assert_eq!(read.not_evaluated.len(), 1, "no test at all");
}

#[test]
fn a_test_with_two_verdicts_is_ambiguous() {
    let both = vec![test("1.1", "PASS", ""), test("1.1", "FAIL", "")];
    assert_eq!(verdicts(&read_all(&json!([group("1", both, [1, 1, 0, 0])]))), [("1.1", "control-ambiguous")]);
}

#[test]
fn anything_else_is_refused() {
    refuses_what_is_no_result(ResultFormat::KubeBench, &json!([four()]).to_string());
    let whole = json!({"Controls": [four()], "Totals": {}}).to_string();
    refuses_what_is_no_result(ResultFormat::KubeBench, &whole);
    for text in [
        r#"[{"tests":[{"results":[{"status":"PASS"}]}]}]"#,
        r#"[{"tests":{}}]"#,
        r#"{"Controls":{}}"#,
        r#"{"Totals":{}}"#,
    ] {
        assert!(summary(ResultFormat::KubeBench, text).is_err(), "{text}");
    }
}
