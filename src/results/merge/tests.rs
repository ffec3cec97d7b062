use super::*;
use crate::model::control::{Control, Severity};
use crate::model::coverage::Coverage;
use crate::model::finding::Detail;
use crate::model::scanner::COMPLETE_CONTROL;
use crate::results::event::{Event, FindingKind, Reported, Sink as _, identity};

/// A profile of controls with these ids.
pub(crate) fn profile(ids: &[&str]) -> Profile {
    let control = |id: &&str| Control {
        id: (*id).to_owned(),
        title: String::new(),
        description: String::new(),
        check: String::new(),
        fix: String::new(),
        severity: Severity::High,
        references: Vec::new(),
    };
    Profile {
        name: "sample".to_owned(),
        version: "1".to_owned(),
        title: String::new(),
        summary: String::new(),
        controls: ids.iter().map(control).collect(),
    }
}

/// What a scanner would have reported with these verdicts.
fn reported(findings: Vec<Finding>) -> Collector {
    let mut collector = Collector::new(9);
    for finding in findings {
        collector.take(Event::Finding(Reported {
            identity: identity("sample", [&finding.control]),
            kind: FindingKind::Check,
            control: finding.control,
            outcome: finding.outcome,
            word: String::new(),
            severity: Severity::High,
            subject: "f".to_owned(),
            messages: finding.details.into_iter().map(|detail| detail.message).collect(),
            references: Vec::new(),
            ratings: Vec::new(),
        }));
    }
    collector
}

fn reduced(findings: Vec<Finding>, ids: &[&str]) -> Parsed {
    let profile = profile(ids);
    let parsed = reduce(reported(findings), &profile);
    Coverage::of(&profile, &parsed.findings).expect("each control has exactly one finding");
    parsed
}

fn reason(finding: &Finding) -> Option<Reason> {
    match &finding.outcome {
        Outcome::NotEvaluated { reason, .. } => Some(*reason),
        _ => None,
    }
}

fn not_applicable(id: &str) -> Finding {
    Finding::new(id, Outcome::NotApplicable { reason: String::new() })
}

#[test]
fn what_is_missing_doubled_or_foreign_is_said() {
    let pass = |id| Finding::new(id, Outcome::Passed);
    let fail = |id| Finding::new(id, Outcome::Failed).with_details([Detail::new("f", "seen")], 9);
    let parsed =
        reduced(vec![pass("b"), pass("c"), fail("c"), fail("d"), fail("d"), pass("z\u{1b}")], &["a", "b", "c", "d"]);
    assert_eq!(
        parsed.findings.iter().map(reason).collect::<Vec<_>>(),
        [Some(Reason::ControlMissing), None, Some(Reason::ControlAmbiguous), None]
    );
    assert_eq!(parsed.findings[3].outcome, Outcome::Failed);
    assert_eq!(parsed.findings[3].details.len(), 2, "nothing is lost");
    assert_eq!(parsed.notes.len(), 1);
    assert!(parsed.notes[0].contains("z\\u{1b}"), "{}", parsed.notes[0]);
}

#[test]
fn all_not_applicable_is_not_evaluated() {
    let parsed = reduced(vec![not_applicable("a"), not_applicable("b")], &["a", "b"]);
    assert!(parsed.findings.iter().all(|f| reason(f) == Some(Reason::WrongTarget)));
    let parsed = reduced(vec![not_applicable("a"), Finding::new("b", Outcome::Passed)], &["a", "b"]);
    assert_eq!(parsed.findings[0].outcome.status(), Status::NotApplicable);
}

#[test]
fn the_control_that_no_scanner_reports_does_not_make_content_for_another_target_fit() {
    let ids = ["a", "b", COMPLETE_CONTROL];
    let parsed = reduced(vec![not_applicable("a"), not_applicable("b")], &ids);
    let wrong = Some(Reason::WrongTarget);
    assert_eq!(
        parsed.findings.iter().map(reason).collect::<Vec<_>>(),
        [wrong, wrong, Some(Reason::ControlMissing)],
        "the last one is judged by whoever looked"
    );
    // Nor does the scanner make it fit by reporting that control itself.
    let reported = vec![not_applicable("a"), not_applicable("b"), Finding::new(COMPLETE_CONTROL, Outcome::Passed)];
    assert_eq!(reduced(reported, &ids).findings.iter().filter(|f| reason(f) == wrong).count(), 2);
}

#[test]
fn nothing_reported_is_nothing_evaluated() {
    let parsed = reduced(Vec::new(), &["a", "b"]);
    assert!(parsed.findings.iter().all(|f| reason(f) == Some(Reason::ControlMissing)));
}
