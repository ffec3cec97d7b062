use super::*;
use crate::model::finding::{Detail, Finding};
use crate::model::scanner::ResultFormat;
use crate::results::merge::tests::profile;
use crate::results::{Parsed, parse};

fn rule(id: &str, result: &str, more: &str) -> String {
    format!("<rule-result idref=\"{id}\" severity=\"high\"><result>{result}</result>{more}</rule-result>")
}

fn check(name: &str) -> String {
    format!("<check system=\"oval\"><check-content-ref name=\"{name}\" href=\"o.xml\"/></check>")
}

fn test_result(rules: &str) -> String {
    format!(
        "<TestResult xmlns=\"{}\" id=\"t\" start-time=\"2026-01-02T03:04:05\" end-time=\"2026-01-02T03:04:06\" \
         test-system=\"cpe:/a:x\"><benchmark id=\"b\"/><profile idref=\"p\"/><target>vm</target><target-facts>\
         <fact name=\"urn:xccdf:fact:scanner:version\">1.3.7</fact></target-facts>{rules}<score>1</score></TestResult>",
        super::super::xml::XCCDF
    )
}

fn arf(result: &str) -> String {
    format!(
        "<?xml version=\"1.0\"?><arf:asset-report-collection xmlns:arf=\"a\"><arf:report-requests><arf:report-request>\
         <arf:content>{}</arf:content></arf:report-request></arf:report-requests><arf:reports><arf:report id=\"1\"><arf:content>\
         {result}</arf:content></arf:report><arf:report id=\"2\"><arf:content><oval_results/></arf:content></arf:report>\
         </arf:reports></arf:asset-report-collection>",
        test_result(&rule("a", "fail", "")).replace("TestResult", "Decoy")
    )
}

fn read_all(text: &str, ids: &[&str]) -> Parsed {
    parse(ResultFormat::Arf, text.as_bytes(), &profile(ids), &Limits::default()).expect("a result")
}

fn error(text: &str) -> Reason {
    let result = parse(ResultFormat::Arf, text.as_bytes(), &profile(&["a"]), &Limits::default());
    result.expect_err(&crate::base::text::brief(text)).reason()
}

fn words(parsed: &Parsed) -> Vec<String> {
    let word = |finding: &Finding| match &finding.outcome {
        Outcome::NotEvaluated { reason, .. } => reason.to_string(),
        other => other.status().code().to_owned(),
    };
    parsed.findings.iter().map(word).collect()
}

#[test]
fn every_status_word_means_what_the_table_says() {
    let statuses = [
        ("pass", "passed"),
        ("fail", "failed"),
        ("fixed", "failed"),
        ("notapplicable", "not-applicable"),
        ("notselected", "control-missing"),
        ("error", "scanner-skipped"),
        ("unknown", "scanner-skipped"),
        ("notchecked", "scanner-skipped"),
        ("informational", "scanner-skipped"),
        ("PASS", "status-unknown"),
        ("", "status-unknown"),
        ("passed", "status-unknown"),
    ];
    let ids: Vec<String> = (0..statuses.len()).map(|n| format!("r{n}")).collect();
    let rules: String = ids.iter().zip(&statuses).map(|(id, (word, _))| rule(id, word, "")).collect();
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    let expected: Vec<&str> = statuses.iter().map(|(_, word)| *word).collect();
    for text in [
        arf(&test_result(&rules)),
        test_result(&rules),
        format!("<Benchmark xmlns=\"{}\"><Rule/>{}</Benchmark>", super::super::xml::XCCDF, test_result(&rules)),
    ] {
        let parsed = read_all(&text, &ids);
        assert_eq!(words(&parsed), expected);
        assert_eq!(parsed.scanner_version.as_deref(), Some("1.3.7"));
        assert_eq!(
            parsed.notes,
            [
                "the scanner evaluated profile p of benchmark b",
                "1 rules of the benchmark are not selected by the profile"
            ]
        );
    }
}

#[test]
fn several_checks_of_one_rule_count_as_the_worst() {
    let two = |a, b| rule("a", a, &check("x")) + &rule("a", b, &check("y"));
    for (a, b, expected) in [
        ("pass", "fail", "failed"),
        ("fail", "error", "failed"),
        ("pass", "error", "scanner-skipped"),
        ("notapplicable", "pass", "passed"),
        ("pass", "pass", "passed"),
        ("notselected", "pass", "passed"),
    ] {
        for rules in [two(a, b), two(b, a)] {
            assert_eq!(words(&read_all(&arf(&test_result(&rules)), &["a"])), [expected], "{a} {b}");
        }
    }
}

#[test]
fn one_check_with_two_verdicts_is_ambiguous() {
    for more in [String::new(), check("x")] {
        let rules = rule("a", "pass", &more) + &rule("a", "fail", &more);
        assert_eq!(words(&read_all(&arf(&test_result(&rules)), &["a"])), ["control-ambiguous"]);
        let rules = rule("a", "pass", &more) + &rule("a", "pass", &more);
        assert_eq!(words(&read_all(&arf(&test_result(&rules)), &["a"])), ["passed"]);
    }
}

#[test]
fn an_override_in_the_file_does_not_count() {
    let by_hand = "<override time=\"t\" authority=\"me\"><old-result>fail</old-result><new-result>pass</new-result>\
                   <remark>fine</remark></override>";
    let parsed = read_all(&arf(&test_result(&rule("a", "pass", by_hand))), &["a"]);
    assert_eq!(words(&parsed), ["failed"]);
    assert!(parsed.notes.iter().any(|note| note.contains("overridden")), "{:?}", parsed.notes);
}

#[test]
fn messages_are_kept() {
    let more = format!("<message severity=\"error\">can't\n look</message>{}", check("oval:1"));
    let parsed = read_all(&arf(&test_result(&rule("a", "error", &more))), &["a"]);
    assert_eq!(parsed.findings[0].details, [Detail::new("o.xml oval:1", "can't look")]);
}

#[test]
fn all_not_applicable_is_the_wrong_content() {
    let rules = rule("a", "notapplicable", "") + &rule("b", "notapplicable", "");
    assert_eq!(words(&read_all(&arf(&test_result(&rules)), &["a", "b"])), ["wrong-target", "wrong-target"]);
}

#[test]
fn anything_else_is_refused() {
    let good = test_result(&rule("a", "pass", ""));
    assert_eq!(error(""), Reason::NoOutput);
    assert_eq!(error("{\"matches\":[]}"), Reason::OutputUnparsable);
    assert_eq!(error("<testsuite/>"), Reason::OutputUnparsable);
    assert_eq!(error(&arf("")), Reason::OutputUnparsable);
    assert_eq!(error(&arf(&format!("{good}{good}"))), Reason::OutputUnparsable);
    assert_eq!(error(&good.replace(super::super::xml::XCCDF, "other")), Reason::OutputUnparsable);
    assert_eq!(error(&good.replace("<result>pass</result>", "")), Reason::OutputUnparsable);
    assert_eq!(error(&good.replace("</result>", "</result><result>pass</result>")), Reason::OutputUnparsable);
    assert_eq!(error(&good.replace(" idref=\"a\"", "")), Reason::OutputUnparsable);
    assert_eq!(error(&good.replace(" end-time=\"2026-01-02T03:04:06\"", "")), Reason::OutputUnparsable);
    assert_eq!(error(&format!("<!DOCTYPE x>{good}")), Reason::OutputUnparsable);
    let limits = Limits { result_items: 1, ..Limits::default() };
    let two = test_result(&(rule("a", "pass", "") + &rule("b", "pass", "")));
    let error = parse(ResultFormat::Arf, two.as_bytes(), &profile(&["a"]), &limits).expect_err("two");
    assert_eq!(error.reason(), Reason::OutputTooLarge);
}

#[test]
fn a_result_elsewhere_in_the_file_does_not_count() {
    let good = test_result(&rule("a", "pass", ""));
    assert_eq!(error(&format!("<x>{good}</x>")), Reason::OutputUnparsable);
    let requests = format!(
        "<asset-report-collection><report-requests><content>{good}</content></report-requests></asset-report-collection>"
    );
    assert_eq!(error(&requests), Reason::OutputUnparsable);
}

#[test]
fn a_result_cut_anywhere_is_refused() {
    let whole = arf(&test_result(&rule("a", "pass", &check("x"))));
    for cut in 1..whole.len() {
        assert!(matches!(error(&whole[..cut]), Reason::OutputTruncated | Reason::OutputUnparsable), "{cut}");
    }
}

#[test]
fn results_of_the_version_before_are_read_too() {
    let old =
        test_result(&rule("a", "fail", "")).replace(super::super::xml::XCCDF, "http://checklists.nist.gov/xccdf/1.1");
    assert_eq!(words(&read_all(&old, &["a"])), ["failed"]);
}
