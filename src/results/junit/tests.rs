use crate::model::scanner::ResultFormat;
use crate::results::Summary;
use crate::results::tests::{refuses_what_is_no_result, summary, verdicts};

fn read_all(cases: &str) -> Summary {
    summary(ResultFormat::Junit, &format!("<testsuite name=\"s\">{cases}</testsuite>")).expect("a result")
}

#[test]
fn each_end_means_what_the_table_says() {
    for (attributes, inside, expected) in [
        ("", "", "passed"),
        ("", "<system-out>failure</system-out>", "passed"),
        ("", "<failure message='m'>text</failure>", "failed"),
        ("", "<failure/>", "failed"),
        ("", "<error type='x'>boom</error>", "rule-error"),
        ("", "<skipped/>", "scanner-skipped"),
        ("", "<skipped/><failure/>", "failed"),
        ("", "<flakyFailure message='m'>text</flakyFailure>", "control-ambiguous"),
        ("", "<flakyError/>", "control-ambiguous"),
        ("", "<failure/><rerunFailure/>", "failed"),
        ("status='run' result='completed'", "", "passed"),
        ("status='notrun'", "", "scanner-skipped"),
        ("status='Failed'", "", "failed"),
        ("status='odd'", "", "status-unknown"),
    ] {
        let read =
            read_all(&format!("<testcase classname='a b' name='[HIGH] CVE-2026-1' {attributes}>{inside}</testcase>"));
        assert_eq!(verdicts(&read), [("a_b.[HIGH]_CVE-2026-1", expected)], "{attributes} {inside}");
        assert_eq!(read.control_list[0].references[0].id, "CVE-2026-1");
    }
}

#[test]
fn what_is_counted_and_not_listed_was_not_evaluated() {
    let whole = |tests: u32, failures: u32| {
        format!(
            "<?xml version='1.0'?><testsuites name='tool'><testsuite name='a' tests='{tests}' failures='{failures}'><testcase name='x'/>\
             <testsuite name='b' tests='1'><testcase name='y'/></testsuite></testsuite></testsuites>"
        )
    };
    let read = |text: &str| summary(ResultFormat::Junit, text).expect("a result");
    let fine = read(&whole(2, 0));
    assert_eq!((fine.controls.passed, fine.not_evaluated.len(), fine.targets.len()), (2, 0, 2));
    assert_eq!(read(&whole(7, 0)).not_evaluated[0].detail, "it counts 7 cases and lists 2");
    assert_eq!(read(&whole(2, 1)).not_evaluated[0].detail, "it counts 1 failures and lists 0");
    // Some of its failures are no fewer lost than all.
    let some = read("<testsuite name='s' failures='3' errors='2'><testcase name='x'><failure/></testcase></testsuite>");
    let lost: Vec<&str> = some.not_evaluated.iter().map(|gap| gap.detail.as_str()).collect();
    assert_eq!(lost, ["it counts 3 failures and lists 1", "it counts 2 errors and lists 0"]);
    assert_eq!(read("<testsuites/>").not_evaluated.len(), 1, "no test at all");
    assert_eq!(read("<testsuite><error>no such file</error></testsuite>").not_evaluated.len(), 2);
    refuses_what_is_no_result(ResultFormat::Junit, &whole(2, 0));
}

#[test]
fn the_same_case_twice_with_two_ends_is_ambiguous() {
    let read = read_all("<testcase name='x'/><testcase name='x'><failure/></testcase>");
    assert_eq!(verdicts(&read), [("x", "control-ambiguous")]);
}
