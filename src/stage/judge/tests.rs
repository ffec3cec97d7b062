use std::path::Path;

use super::*;
use crate::base::document;
use crate::model::outcome::Status;
use crate::model::scanner::{COMPLETE_CONTROL, VersionQuestion};

fn scanner() -> ScannerDocument {
    let text = include_str!("../../../bundle/scanners/openscap.yaml")
        .replace("format: arf", "format: inspec")
        .replace("  2: findings\n", "  2: findings\n  3: skipped\n  4: complete\n");
    document::parse(Path::new("s.yaml"), &text).expect("a scanner")
}

fn profile(controls: &[&str]) -> Profile {
    let controls: Vec<_> =
        controls.iter().map(|id| serde_json::json!({ "id": id, "title": id, "severity": "medium" })).collect();
    let profile = serde_json::json!({ "name": "p", "version": "1", "title": "P", "controls": controls });
    serde_json::from_value(profile).expect("a profile")
}

/// An InSpec result with these controls and the statuses of their one result.
fn result(controls: &[(&str, &str)]) -> Vec<u8> {
    let controls: Vec<_> = controls
        .iter()
        .map(|(id, status)| {
            let result = serde_json::json!({ "status": status, "code_desc": "it is" });
            serde_json::json!({ "id": id, "title": id, "impact": 0.5, "tags": {}, "results": [result] })
        })
        .collect();
    let document = serde_json::json!({
        "platform": { "name": "debian", "release": "12" },
        "profiles": [{ "name": "p", "sha256": "x", "status": "loaded", "controls": controls }],
        "statistics": { "duration": 1.0 },
        "version": "5.24.7",
    });
    serde_json::to_vec(&document).expect("it is JSON")
}

fn judged(code: u8, controls: &[(&str, &str)]) -> Parsed {
    let scanner = scanner();
    let meaning = scanner.exit_codes[&code];
    let profile = profile(&["a", "b", COMPLETE_CONTROL]);
    judge(&scanner, Some((code, meaning)), &result(controls)[..], &profile, &Limits::default()).expect("it is a result")
}

fn statuses(parsed: &Parsed) -> [Status; 2] {
    [parsed.findings[0].outcome.status(), parsed.findings[1].outcome.status()]
}

fn reason(finding: &Finding) -> Option<Reason> {
    match finding.outcome {
        Outcome::NotEvaluated { reason, .. } => Some(reason),
        _ => None,
    }
}

#[test]
fn what_passed_counts_only_if_the_exit_code_says_the_same() {
    use Status::{Failed, NotEvaluated, Passed};
    for (code, controls, wanted) in [
        (0, [("a", "passed"), ("b", "passed")], [Passed, Passed]),
        (0, [("a", "passed"), ("b", "failed")], [NotEvaluated, Failed]),
        (2, [("a", "passed"), ("b", "failed")], [Passed, Failed]),
        (2, [("a", "passed"), ("b", "passed")], [NotEvaluated, NotEvaluated]),
        (3, [("a", "passed"), ("b", "skipped")], [Passed, NotEvaluated]),
        (3, [("a", "passed"), ("b", "failed")], [NotEvaluated, Failed]),
        (4, [("a", "passed"), ("b", "failed")], [Passed, Failed]),
    ] {
        let parsed = judged(code, &controls);
        assert_eq!(statuses(&parsed), wanted, "{code} {controls:?}");
        let contradicted = parsed.notes.iter().any(|note| note.starts_with("exit code and result contradict"));
        let taken_back = parsed.findings.iter().any(|finding| reason(finding) == Some(Reason::ExitContradicted));
        assert_eq!(contradicted, taken_back, "{code} {controls:?}: {:?}", parsed.notes);
        assert_eq!(reason(&parsed.findings[2]), Some(Reason::ControlMissing), "gapscan judges that one itself");
    }
}

#[test]
fn a_failure_of_what_nobody_expected_contradicts_too() {
    let parsed = judged(0, &[("a", "passed"), ("b", "passed"), ("other", "failed")]);
    assert_eq!(statuses(&parsed), [Status::NotEvaluated; 2]);
    assert!(
        parsed.notes.iter().any(|note| note.contains("in its result 1 of 3 controls failed")),
        "{:?}",
        parsed.notes
    );
}

#[test]
fn a_scanner_that_says_all_is_well_and_names_no_control_is_not_believed() {
    for (code, wanted) in [
        (0, Reason::ExitContradicted),
        (2, Reason::ExitContradicted),
        (3, Reason::ControlMissing),
        (4, Reason::ControlMissing),
    ] {
        let parsed = judged(code, &[]);
        assert_eq!(reason(&parsed.findings[0]), Some(wanted), "{code}");
    }
}

#[test]
fn without_an_exit_code_nothing_is_compared() {
    let (scanner, profile) = (scanner(), profile(&["a", "b"]));
    let content = result(&[("a", "passed"), ("b", "failed")]);
    let parsed = judge(&scanner, None, &content[..], &profile, &Limits::default()).expect("it is a result");
    assert_eq!(statuses(&parsed), [Status::Passed, Status::Failed]);
}

#[test]
fn what_passes_in_a_blind_spot_is_no_pass_and_what_fails_there_fails() {
    let spots = [BlindSpot { controls: vec!["mount_*".to_owned()], why: "it sees its own".to_owned() }];
    let after = |control: &str, outcome: Outcome| {
        let mut finding = Finding::new(control, outcome);
        withhold(&mut finding, &spots);
        finding.outcome
    };
    let taken = after("mount_tmp", Outcome::Passed);
    assert!(
        matches!(taken, Outcome::NotEvaluated { ref detail, .. } if detail.contains("it sees its own")),
        "{taken:?}"
    );
    assert_eq!(after("mount_tmp", Outcome::Failed), Outcome::Failed);
    assert_eq!(after("other", Outcome::Passed), Outcome::Passed);
}

#[test]
fn a_version_is_what_the_result_says_or_else_what_the_scanner_answers() {
    let answered = |printed: &str| Some(Asked::Answered { printed: printed.to_owned() });
    let silent = Some(Asked::Unanswered { detail: "no such file".to_owned() });
    let question = VersionQuestion { command: vec!["x".to_owned()], pattern: None };
    let asking = ScannerDocument { version: Some(question), ..scanner() };
    let plain = ScannerDocument { version: None, ..scanner() };
    for (scanner, said, asked, version, note) in [
        (&plain, None, None, "", None),
        (&plain, Some("1.2"), answered("9.9"), "1.2", None),
        (&asking, None, answered("x v1.2.3"), "1.2.3", None),
        (&asking, Some("v1.2.3"), answered("1.2.3-4"), "v1.2.3", None),
        (
            &asking,
            Some("1.2.3"),
            answered("1.3.0"),
            "1.2.3",
            Some("says version 1.2.3, and the scanner, when asked, 1.3.0"),
        ),
        (&asking, Some("1.2"), answered("none"), "1.2", Some("there is no version in what it printed")),
        (&asking, None, silent, "", Some("no such file")),
    ] {
        let (found, noted) = super::version(scanner, said.map(str::to_owned), asked.as_ref());
        assert_eq!(found, version);
        match (&noted, note) {
            (None, None) => {}
            (Some(noted), Some(note)) => assert!(noted.contains(note), "{noted}"),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn silence_passes_nothing_where_the_scanner_skipped_something_or_its_end_is_not_known() {
    let mut scanner = scanner();
    scanner.result.unmentioned = Unmentioned::Passed;
    let profile = profile(&["a", "b", COMPLETE_CONTROL]);
    let ended = |ended: Option<(u8, ExitMeaning)>, status: &str| {
        let content = result(&[("a", status)]);
        let parsed = judge(&scanner, ended, &content[..], &profile, &Limits::default()).expect("it is a result");
        parsed.findings[1].outcome.status()
    };
    assert_eq!(ended(Some((4, ExitMeaning::Complete)), "failed"), Status::Passed);
    assert_eq!(ended(Some((2, ExitMeaning::Findings)), "failed"), Status::Passed);
    assert_eq!(ended(Some((3, ExitMeaning::Skipped)), "skipped"), Status::NotEvaluated);
    assert_eq!(ended(None, "failed"), Status::NotEvaluated);
}
