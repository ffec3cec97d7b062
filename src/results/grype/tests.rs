use serde_json::{Value, json};

use super::*;
use crate::model::coverage::Coverage;
use crate::model::outcome::Status;
use crate::model::scanner::ResultFormat;
use crate::results::merge::tests::profile;
use crate::results::{Parsed, parse};

fn found(severity: Value, id: &str) -> Value {
    json!({
        "vulnerability": {"id": id, "severity": severity, "fix": {"versions": ["1.2"], "state": "fixed"}},
        "artifact": {"name": "openssl", "version": "1.1"},
    })
}

fn document(matches: Vec<Value>, distribution: &str) -> Value {
    json!({
        "matches": matches,
        "source": {"type": "directory", "target": "/target"},
        "distro": {"name": distribution, "version": "12", "idLike": []},
        "descriptor": {
            "name": "grype", "version": "0.100.0",
            "db": {"status": {"schemaVersion": "v6.1.0", "built": "2026-01-02T03:04:05Z", "valid": true}},
        },
    })
}

fn read_all(document: &Value) -> Parsed {
    let profile = profile(&CONTROLS);
    let parsed = parse(ResultFormat::Grype, document.to_string().as_bytes(), &profile, &Limits::default());
    let parsed = parsed.expect("a result");
    Coverage::of(&profile, &parsed.findings).expect("each control has exactly one finding");
    parsed
}

fn statuses(parsed: &Parsed) -> Vec<Status> {
    parsed.findings.iter().map(|finding| finding.outcome.status()).collect()
}

#[test]
fn each_severity_fails_its_control() {
    use Status::{Failed, Passed};
    for (severity, control) in [
        (json!("Critical"), 0),
        (json!("High"), 1),
        (json!("Medium"), 2),
        (json!("Low"), 3),
        (json!("Negligible"), 3),
        (json!("Unknown"), 4),
        (json!("Terrible"), 4),
        (json!(""), 4),
        (Value::Null, 4),
    ] {
        let parsed = read_all(&document(vec![found(severity.clone(), "CVE-1")], "debian"));
        let mut expected = [Passed; 5];
        expected[control] = Failed;
        assert_eq!(statuses(&parsed), expected, "{severity}");
        let detail = &parsed.findings[control].details[0];
        assert_eq!(detail.subject, "openssl 1.1");
        assert!(
            detail.message.starts_with("CVE-1, ") && detail.message.ends_with("fixed in 1.2"),
            "{}",
            detail.message
        );
    }
}

#[test]
fn versions_and_dates_are_read() {
    let parsed = read_all(&document(Vec::new(), "debian"));
    assert_eq!(parsed.scanner_version.as_deref(), Some("0.100.0"));
    assert_eq!(parsed.database_built, Some("2026-01-02T03:04:05Z".parse().expect("a time")));
    let mut old = document(Vec::new(), "debian");
    old["descriptor"]["db"] = json!({"built": "2025-01-02T03:04:05Z", "schemaVersion": 5});
    assert!(read_all(&old).database_built.is_some());
    old["descriptor"]["db"] = Value::Null;
    assert_eq!(read_all(&old).database_built, None);
}

#[test]
fn no_match_in_nothing_that_is_known_is_no_pass() {
    let mut nothing = document(Vec::new(), "");
    assert_eq!(statuses(&read_all(&nothing)), [Status::NotEvaluated; 5]);
    nothing["distro"] = Value::Null;
    assert_eq!(statuses(&read_all(&nothing)), [Status::NotEvaluated; 5]);
    let busybox = read_all(&document(Vec::new(), "busybox"));
    assert_eq!(statuses(&busybox), [Status::NotEvaluated; 5], "it publishes no advisories");
    let mut alpine = document(Vec::new(), "alpine");
    alpine["descriptor"]["db"]["providers"] = json!({"debian": {"captured": "2026-01-01T00:00:00Z"}});
    assert_eq!(statuses(&read_all(&alpine)), [Status::NotEvaluated; 5], "the database has none of it");
    alpine["descriptor"]["db"]["providers"]["alpine"] = json!({});
    assert_eq!(statuses(&read_all(&alpine)), [Status::Passed; 5]);
    let known = read_all(&document(Vec::new(), "debian"));
    assert_eq!(statuses(&known), [Status::Passed; 5]);
    assert!(known.notes[0].contains("debian 12"), "{:?}", known.notes);
}

#[test]
fn what_the_scanner_ignored_is_noted() {
    let mut ignoring = document(vec![found(json!("Low"), "CVE-1")], "debian");
    ignoring["ignoredMatches"] = json!([found(json!("Critical"), "CVE-2"), found(json!("Critical"), "CVE-3")]);
    let parsed = read_all(&ignoring);
    assert!(parsed.notes[0].contains("2 for no-critical-vulnerabilities"), "{:?}", parsed.notes);
}

#[test]
fn anything_else_is_refused_with_its_reason() {
    let limits = Limits { result_items: 2, result_bytes: 4096, ..Limits::default() };
    let whole = document(vec![found(json!("Low"), "CVE-1")], "debian").to_string();
    let another = whole.replace("\"grype\"", "\"trivy\"");
    let three = document(vec![found(json!("Low"), "CVE-1"); 3], "debian").to_string();
    let deep = format!("{}1{}", "[".repeat(1000), "]".repeat(1000));
    let twice = whole.replacen('{', "{\"matches\":[],", 1);
    let after = format!("{whole}{whole}");
    let large = format!("{whole}{}", " ".repeat(5000));
    for (text, reason) in [
        ("", Reason::NoOutput),
        (" \n", Reason::NoOutput),
        ("{}", Reason::OutputUnparsable),
        ("[]", Reason::OutputUnparsable),
        ("null", Reason::OutputUnparsable),
        (r#"{"SchemaVersion":2,"Results":[]}"#, Reason::OutputUnparsable),
        (r#"{"descriptor":{"name":"grype"}}"#, Reason::OutputUnparsable),
        (r#"{"descriptor":{"name":"grype"},"matches":null}"#, Reason::OutputUnparsable),
        (r#"{"descriptor":{"name":"grype"},"matches":[{}]}"#, Reason::OutputUnparsable),
        (&another, Reason::OutputUnparsable),
        (&three, Reason::OutputTooLarge),
        (&deep, Reason::OutputUnparsable),
        (&twice, Reason::OutputUnparsable),
        (&after, Reason::OutputUnparsable),
        (&large, Reason::OutputTooLarge),
    ] {
        let error = parse(ResultFormat::Grype, text.as_bytes(), &profile(&CONTROLS), &limits).expect_err(text);
        assert_eq!(error.reason(), reason, "{text}: {error}");
    }
    for cut in 1..whole.len() {
        let error = parse(ResultFormat::Grype, &whole.as_bytes()[..cut], &profile(&CONTROLS), &limits);
        let error = error.expect_err("a part of a result");
        assert!(matches!(error.reason(), Reason::OutputTruncated | Reason::OutputUnparsable), "{cut}: {error}");
    }
    let broken = whole.replace("openssl", "\u{1}").into_bytes();
    let mut invalid = whole.clone().into_bytes();
    invalid[whole.find("openssl").expect("there")] = 0xff;
    for bytes in [broken, invalid] {
        // Raw control characters are no JSON; serde_json writes them escaped, so that only the second is broken.
        let result = parse(ResultFormat::Grype, &bytes, &profile(&CONTROLS), &limits);
        assert_eq!(result.expect_err("no JSON").reason(), Reason::OutputUnparsable);
    }
}

#[test]
fn details_are_bounded_and_counted() {
    let limits = Limits { finding_details: 3, ..Limits::default() };
    let many = document((0..10).map(|n| found(json!("High"), &format!("CVE-{n}"))).collect(), "debian").to_string();
    let parsed = parse(ResultFormat::Grype, many.as_bytes(), &profile(&CONTROLS), &limits).expect("a result");
    assert_eq!((parsed.findings[1].details.len(), parsed.findings[1].details_omitted), (3, 7));
}
