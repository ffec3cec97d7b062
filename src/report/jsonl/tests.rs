use super::*;
use crate::report::sample;

fn lines(report: &Report) -> Vec<Value> {
    let text = String::from_utf8(render(report)).expect("UTF-8");
    assert!(text.ends_with('\n'));
    text.lines().map(|line| serde_json::from_str(line).expect("each line is one object")).collect()
}

fn of_type<'a>(lines: &'a [Value], name: &str) -> Vec<&'a Value> {
    lines.iter().filter(|l| l["type"] == name).collect()
}

#[test]
fn the_first_line_has_the_totals_and_the_last_the_count() {
    for report in [sample::report(), sample::hostile()] {
        let lines = lines(&report);
        let (head, end) = (&lines[0], &lines[lines.len() - 1]);
        assert_eq!(head["type"], "report");
        assert_eq!(end["type"], "end");
        assert_eq!(end["lines"], json!(lines.len() - 1));
        let findings = of_type(&lines, "finding");
        assert_eq!(head["findings"], json!(findings.len()));
        assert_eq!(head["unrecorded"], json!(of_type(&lines, "unrecorded").len()));
        for (field, code) in [
            ("passed", "passed"),
            ("failed", "failed"),
            ("notApplicable", "not-applicable"),
            ("waived", "waived"),
            ("notEvaluated", "not-evaluated"),
        ] {
            let count = findings.iter().filter(|l| l["outcome"] == code).count();
            assert_eq!(head["coverage"][field], json!(count), "{code}");
        }
    }
}

#[test]
fn what_was_not_evaluated_says_why() {
    for line in of_type(&lines(&sample::report()), "finding") {
        assert_eq!(line["outcome"] == "not-evaluated", line["reason"].is_string(), "{line}");
        assert_eq!(line["outcome"] == "waived", line["waiver"].is_object(), "{line}");
    }
}

#[test]
fn hostile_texts_make_no_lines_and_steer_no_terminal() {
    let report = sample::hostile();
    let text = String::from_utf8(render(&report)).expect("UTF-8");
    assert!(text.chars().all(|c| c == '\n' || !c.is_control()), "a control character is in it");
    assert!(!text.contains(['\u{202e}', '\u{2028}', '\u{2066}']));
    assert_eq!(of_type(&lines(&report), "end").len(), 1);
}

#[test]
fn a_finding_stays_what_it_is() {
    let report = sample::report();
    let lines = lines(&report);
    let findings = of_type(&lines, "finding");
    let waived = findings.iter().find(|l| l["outcome"] == "waived").expect("one is waived");
    let missing = findings.iter().find(|l| l["outcome"] == "not-evaluated").expect("one is not evaluated");
    insta::assert_json_snapshot!([&lines[0], waived, missing]);
}
