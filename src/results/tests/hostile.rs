//! What a scanner's output may do to us, for every format alike.

use super::samples::{SAMPLES, sample};
use super::*;

fn read_bytes(format: ResultFormat, bytes: &[u8]) -> Result<Summary, ResultsError> {
    summarise(format, bytes, Digest::of(bytes), 1000, &Limits::default())
}

fn is_xml(format: ResultFormat) -> bool {
    matches!(format, ResultFormat::Arf | ResultFormat::Junit)
}

/// The sample with something put after the first of these.
fn with(format: ResultFormat, after: &str, more: &str) -> String {
    let text = sample(format);
    let at = text.find(after).unwrap_or_else(|| panic!("{}: {after}", format.name())) + after.len();
    format!("{}{more}{}", &text[..at], &text[at..])
}

#[test]
fn output_that_was_cut_anywhere_is_none() {
    for (format, text) in SAMPLES {
        let whole = summary(format, text).expect("a result");
        let bytes = text.trim_end().as_bytes();
        for cut in 0..bytes.len() {
            match read_bytes(format, &bytes[..cut]) {
                Err(error) => assert!(
                    matches!(error.reason(), Reason::NoOutput | Reason::OutputTruncated | Reason::OutputUnparsable),
                    "{}, {cut}: {error}",
                    format.name()
                ),
                // Lines are whole each for itself; and an alert never passes.
                Ok(part) => {
                    assert_eq!(format, ResultFormat::Falco, "the first {cut} bytes count as a result");
                    assert!(part.controls.passed == 0 && part.findings.total() < whole.findings.total() + 1);
                }
            }
        }
    }
}

#[test]
fn output_of_another_tool_is_refused_whatever_it_is_called() {
    for (format, _) in SAMPLES {
        for (other, text) in SAMPLES {
            if other != format {
                assert!(summary(format, text).is_err(), "{} as {}", other.name(), format.name());
            }
        }
        for text in ["", " \n\t", "null", "{}", "[]", "[{}]", "\"x\"", "hello", "\0", "<a/>", "<a>", "{\"items\":[{}]}"]
        {
            assert!(summary(format, text).is_err(), "{text:?} as {}", format.name());
        }
    }
}

#[test]
fn bytes_that_are_no_utf_8_are_refused_wherever_they_are() {
    for (format, text) in SAMPLES {
        for at in (0..text.trim_end().len()).step_by(3) {
            let mut bytes = text.as_bytes().to_vec();
            bytes[at] = 0xff;
            let error = read_bytes(format, &bytes).expect_err("no UTF-8");
            assert!(
                matches!(error.reason(), Reason::OutputUnparsable | Reason::OutputTruncated),
                "{}, {at}: {error}",
                format.name()
            );
        }
    }
}

#[test]
fn a_byte_order_mark_changes_nothing_or_is_refused() {
    for (format, text) in SAMPLES {
        let marked = summary(format, &format!("\u{feff}{text}"));
        match is_xml(format) {
            true => {
                assert_eq!(marked.expect("XML may have one").controls, summary(format, text).expect("one").controls)
            }
            false => {
                let error = marked.expect_err("JSON must not have one").to_string();
                assert!(error.contains("byte order mark"), "{}: {error}", format.name());
            }
        }
    }
}

#[test]
fn what_follows_the_end_is_refused() {
    for (format, text) in SAMPLES {
        for more in [" x", "{", "]", "<a/>", "\0", "1"] {
            let error = summary(format, &format!("{}{more}", text.trim_end())).expect_err(more);
            assert!(
                matches!(error.reason(), Reason::OutputUnparsable | Reason::OutputTruncated),
                "{} {more}: {error}",
                format.name()
            );
        }
        let twice = summary(format, &format!("{text}{text}"));
        match format {
            // Lines may come as often as they like.
            ResultFormat::Falco => {
                assert_eq!(twice.expect("lines").controls, summary(format, text).expect("lines").controls)
            }
            _ => assert!(twice.is_err(), "{}", format.name()),
        }
    }
}

#[test]
fn keys_and_attributes_that_are_there_twice_are_refused() {
    for (format, text) in SAMPLES {
        let twice = match is_xml(format) {
            true => {
                text.replacen(" name=\"", " name=\"x\" name=\"", 2).replacen(" idref=\"", " idref=\"x\" idref=\"", 2)
            }
            false => {
                let key = text.split('"').nth(1).expect("it has a key");
                let open = text.trim_end().strip_suffix('}').expect("an object ends it");
                format!("{open},\"{key}\":null}}")
            }
        };
        let error = summary(format, &twice).expect_err(format.name());
        assert!(error.to_string().contains("is there twice"), "{}: {error}", format.name());
    }
}

#[test]
fn deep_nesting_is_refused_before_it_takes_a_stack() {
    for (format, _) in SAMPLES {
        let deep = match format {
            ResultFormat::Arf => with(format, "<x>", &"<a>".repeat(100_000)),
            ResultFormat::Junit => with(format, "<properties>", &"<a>".repeat(100_000)),
            _ => with(format, "{", &format!("\"deep\":{}", "[".repeat(100_000))),
        };
        let error = summary(format, &deep).expect_err(format.name());
        assert!(error.to_string().contains("nested deeper"), "{}: {error}", format.name());
    }
}

#[test]
fn numbers_that_no_scanner_writes_are_refused_where_they_are_read() {
    for (format, number, others) in [
        (ResultFormat::Grype, "\"baseScore\": 9.8", &["1e999", "-", "01", "1e", "0x10", "NaN", "\"9.8\""][..]),
        (ResultFormat::Trivy, "\"V3Score\": 9.8", &["1e999", "Infinity", "\"high\""]),
        (ResultFormat::Trivy, "\"Failures\": 2", &["-1", "2.5", "99999999999999999999", "1e3"]),
        (ResultFormat::KubeBench, "\"total_pass\": 2", &["-2", "2.0", "18446744073709551616"]),
        (ResultFormat::Inspec, "\"impact\": 0.9", &["1e400", "\"critical\"", "true"]),
        (ResultFormat::CycloneDx, "\"score\": 9.8", &["-1e999", "[9.8]"]),
        (ResultFormat::Sarif, "\"ruleIndex\": 0", &["1e999", "\"0\""]),
    ] {
        let (key, _) = number.split_once(": ").expect("a key");
        for other in others {
            let text = sample(format).replacen(number, &format!("{key}: {other}"), 1);
            assert_ne!(text, sample(format), "{number}");
            assert!(summary(format, &text).is_err(), "{}: {key} {other}", format.name());
        }
    }
    // Where a tool writes a number as text, one that is none counts for nothing.
    for score in ["1e999", "-1", "11", "high", ""] {
        let text = sample(ResultFormat::Sarif).replace("\"9.8\"", &format!("\"{score}\""));
        let read = summary(ResultFormat::Sarif, &text).expect("a result");
        assert_eq!(read.finding_list[0].severity, crate::model::control::Severity::Low, "its level counts: {score}");
    }
}

/// One control with two verdicts never passes.
#[test]
fn a_control_that_is_there_twice_never_passes() {
    for (format, one, other, control) in [
        (
            ResultFormat::Arf,
            "<rule-result idref=\"xccdf_mil.disa.stig_rule_SV-1r1_rule\"",
            "<rule-result idref=\"xccdf_mil.disa.stig_rule_SV-1r1_rule\"><result>fail</result><check system=\"oval\">\
             <check-content-ref name=\"oval:1\" href=\"#oval0\"/></check></rule-result>",
            "xccdf_mil.disa.stig_rule_SV-1r1_rule",
        ),
        (
            ResultFormat::KubeBench,
            "{\"test_number\": \"4.1.1\"",
            "{\"test_number\": \"4.1.1\", \"status\": \"FAIL\"},",
            "4.1.1",
        ),
        (
            ResultFormat::Sarif,
            "{\"ruleId\": \"passes\"",
            "{\"ruleId\": \"passes\", \"message\": {\"text\": \"fine\"}},",
            "passes",
        ),
        (ResultFormat::Trivy, "{\"ID\": \"DS-0003\"", "{\"ID\": \"DS-0003\", \"Status\": \"FAIL\"},", "DS-0003"),
        (
            ResultFormat::Inspec,
            "{\"id\": \"SV-2\"",
            "{\"id\": \"SV-2\", \"impact\": 0.3, \"results\": [{\"status\": \"failed\", \"code_desc\": \"d\"}]},",
            "SV-2",
        ),
        (
            ResultFormat::Junit,
            "<testcase classname=\"a b\" name=\"passes\"",
            "<testcase classname=\"a b\" name=\"passes\"><failure/></testcase>",
            "a_b.passes",
        ),
    ] {
        let verdict = |text: &str| {
            let read = summary(format, text).expect("a result");
            let control = read.control_list.iter().find(|known| known.id == control).expect("it is there");
            control.outcome.status()
        };
        assert_eq!(verdict(sample(format)), Status::Passed, "{}", format.name());
        let text = sample(format).replacen(one, &format!("{other}{one}"), 1);
        assert_ne!(text, sample(format), "{one}");
        assert!(matches!(verdict(&text), Status::Failed | Status::NotEvaluated), "{}", format.name());
    }
}

#[test]
fn too_many_and_too_much_are_refused() {
    for (format, text) in SAMPLES {
        for limits in [
            Limits { result_items: 0, ..Limits::default() },
            Limits { result_bytes: text.len() as u64 - 1, ..Limits::default() },
        ] {
            let error = summarise(format, text.as_bytes(), Digest::of(text), 9, &limits).expect_err(format.name());
            assert_eq!(error.reason(), Reason::OutputTooLarge, "{}: {error}", format.name());
        }
        let little = Limits { result_held_bytes: 10, ..Limits::default() };
        let error = summarise(format, text.as_bytes(), Digest::of(text), 9, &little).expect_err(format.name());
        assert!(matches!(error, ResultsError::TooMuch { limit: 10 }), "{}: {error}", format.name());
    }
}

/// What a list of one finding has beyond what anybody needs is read over, and does not stay in memory.
#[test]
fn lists_without_end_are_cut() {
    let many = |one: &str| vec![one; 5000].join(",");
    for (format, one, other) in [
        (ResultFormat::Grype, "\"cvss\": [", many("{\"vector\":\"v\"}") + ","),
        (ResultFormat::Grype, "\"cwes\": [", many("{\"cwe\":\"CWE-1\"}") + ","),
        (ResultFormat::Trivy, "\"CweIDs\": [", many("\"CWE-1\"") + ","),
        (ResultFormat::Falco, "\"tags\":[", many("\"T1\"") + ","),
        (ResultFormat::Inspec, "\"cci\": [", many("\"CCI-1\"") + ","),
        (ResultFormat::Sarif, "\"tags\": [", many("\"cwe-1\"") + ","),
        (ResultFormat::CycloneDx, "\"cwes\": [", many("1") + ","),
    ] {
        let read = summary(format, &with(format, one, &other)).expect("a result");
        let of_findings =
            read.finding_list.iter().flat_map(|finding| [finding.references.len(), finding.ratings.len()]);
        let of_controls = read.control_list.iter().map(|control| control.references.len());
        let most = of_findings.chain(of_controls).max().unwrap_or_default();
        assert!((1..=256).contains(&most), "{} {one}: {most}", format.name());
    }
}
