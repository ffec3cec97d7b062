use serde_json::{Value, json};

use super::*;
use crate::model::coverage::Coverage;
use crate::model::outcome::Status;
use crate::model::scanner::ResultFormat;
use crate::results::merge::tests::profile;
use crate::results::{Parsed, parse};

fn found(severity: Value, id: &str) -> Value {
    json!({
        "vulnerability": {"id": id, "severity": severity, "namespace": "debian:distro:debian:12", "fix": {"versions": ["1.2"], "state": "fixed"}},
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
fn no_match_is_no_pass_unless_the_result_shows_that_there_could_have_been_one() {
    use Status::{Failed, NotEvaluated, Passed};
    let of = |namespace: &str| {
        let mut found = found(json!("Low"), "CVE-1");
        found["vulnerability"]["namespace"] = namespace.into();
        found
    };
    for (case, matches, distribution, wanted) in [
        ("no distribution and no match", vec![], "", [NotEvaluated; 5]),
        ("one without advisories", vec![], "busybox", [NotEvaluated; 5]),
        // A removed database of packages, and a release that the database lacks, look the same.
        ("a known one and no match", vec![], "debian", [NotEvaluated; 5]),
        ("a library alone", vec![of("github:language:python")], "debian", {
            [NotEvaluated, NotEvaluated, NotEvaluated, Failed, NotEvaluated]
        }),
        ("a library in an unknown system", vec![of("github:language:python")], "void", {
            [NotEvaluated, NotEvaluated, NotEvaluated, Failed, NotEvaluated]
        }),
        ("a package of the distribution", vec![of("debian:distro:debian:12")], "debian", {
            [Passed, Passed, Passed, Failed, Passed]
        }),
        ("a package of one built from another", vec![of("redhat:distro:redhat:9")], "rockylinux", {
            [Passed, Passed, Passed, Failed, Passed]
        }),
    ] {
        assert_eq!(statuses(&read_all(&document(matches, distribution))), wanted, "{case}");
    }
    let mut nothing = document(Vec::new(), "");
    nothing["distro"] = Value::Null;
    assert_eq!(statuses(&read_all(&nothing)), [NotEvaluated; 5]);
}

#[test]
fn what_it_was_told_to_leave_out_and_what_it_warns_of_keeps_severities_from_passing() {
    use Status::{Failed, NotEvaluated};
    let whole = document(vec![found(json!("Low"), "CVE-1")], "debian");
    let wanted = [NotEvaluated, NotEvaluated, NotEvaluated, Failed, NotEvaluated];
    let mut excluding = whole.clone();
    excluding["descriptor"]["configuration"] = json!({"exclude": ["/opt/**"], "only-fixed": false});
    assert_eq!(statuses(&read_all(&excluding)), wanted);
    let mut old = whole.clone();
    old["alertsByPackage"] =
        json!([{"package": {"name": "openssl"}, "alerts": [{"type": "distro-eol", "message": "m"}]}]);
    let read = read_all(&old);
    assert_eq!(statuses(&read), wanted);
    assert!(format!("{:?}", read.findings[0].outcome).contains("debian 12 gets no advisories any more"));
}

#[test]
fn what_the_scanner_ignored_is_no_pass() {
    let mut ignoring = document(vec![found(json!("Low"), "CVE-1")], "debian");
    ignoring["ignoredMatches"] = json!([found(json!("Critical"), "CVE-2"), found(json!("Critical"), "CVE-3")]);
    let parsed = read_all(&ignoring);
    assert!(parsed.notes[0].contains("2 for no-critical-vulnerabilities"), "{:?}", parsed.notes);
    assert_eq!(statuses(&parsed)[..3], [Status::NotEvaluated, Status::Passed, Status::Passed]);
    // What the distribution says to be fixed, and what is known of the kernel and not of its headers, was no match.
    for (rules, status) in [
        (json!([{"namespace": "", "reason": "Distro Fixed", "vulnerability": "CVE-2"}]), Status::Passed),
        (
            json!([{"package": {"name": "linux-libc-dev", "type": "deb"}, "match-type": "exact-indirect-match"}]),
            Status::Passed,
        ),
        (json!([{"package": {"name": "linux-libc-dev"}}]), Status::NotEvaluated),
        (json!([{"reason": "we know", "vulnerability": "CVE-2"}]), Status::NotEvaluated),
        (json!([{"reason": "Distro Fixed"}, {"fix-state": "wont-fix"}]), Status::NotEvaluated),
        (json!([{"reason": "Distro Fixed", "vex-status": "fixed"}]), Status::NotEvaluated),
        (json!([]), Status::NotEvaluated),
    ] {
        ignoring["ignoredMatches"] = json!([found(json!("Critical"), "CVE-2")]);
        ignoring["ignoredMatches"][0]["appliedIgnoreRules"] = rules.clone();
        assert_eq!(statuses(&read_all(&ignoring))[0], status, "{rules}");
    }
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
