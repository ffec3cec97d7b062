use super::*;
use crate::model::control::{Control, Severity};
use crate::model::coverage::Coverage;
use crate::model::finding::Detail;
use crate::model::scanner::COMPLETE_CONTROL;
use crate::results::by_severity::BySeverity;
use crate::results::event::{Component, Event, FindingKind, Gap, Reported, Sink as _, identity};
use crate::results::inventory::Inventory;

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
    let parsed = reduce(reported(findings), &profile, Unmentioned::NotEvaluated);
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

#[test]
fn silence_passes_only_where_the_definition_vouches_for_it_and_all_was_evaluated() {
    let profile = profile(&["a", "b", COMPLETE_CONTROL]);
    let ended = |unmentioned, gap: bool| {
        let mut collector = reported(vec![Finding::new("a", Outcome::Failed)]);
        if gap {
            let detail = "it did not load".to_owned();
            collector.take(Event::Gap(Gap { subject: "rules".to_owned(), reason: Reason::RuleError, detail }));
        }
        let parsed = reduce(collector, &profile, unmentioned);
        assert_eq!(parsed.findings[0].outcome, Outcome::Failed);
        assert_eq!(reason(&parsed.findings[2]), Some(Reason::ControlMissing), "it is not the scanner's to pass");
        let told = parsed.notes.iter().any(|note| note.starts_with("1 controls passed because"));
        assert_eq!(told, parsed.findings[1].outcome == Outcome::Passed, "{:?}", parsed.notes);
        parsed.findings[1].outcome.status()
    };
    assert_eq!(ended(Unmentioned::Passed, false), Status::Passed);
    assert_eq!(ended(Unmentioned::Passed, true), Status::NotEvaluated);
    assert_eq!(ended(Unmentioned::NotEvaluated, false), Status::NotEvaluated);
}

#[test]
fn what_the_scanner_left_out_by_its_own_rules_passes_nothing() {
    let ids: Vec<String> = (0..3000).map(|n| format!("c{n}")).collect();
    let names: Vec<&str> = ids.iter().map(String::as_str).collect();
    for unmentioned in [Unmentioned::Passed, Unmentioned::NotEvaluated] {
        // The first is said to pass, too, and the second fails.
        let passes = Finding::new("c0", Outcome::Passed);
        let mut collector = reported(vec![passes, Finding::new("c1", Outcome::Failed)]);
        for id in &names[..2999] {
            collector.take(Event::Suppressed(Reported {
                identity: identity("sample", ["left out", id]),
                kind: FindingKind::Check,
                control: (*id).to_owned(),
                outcome: Outcome::Failed,
                word: String::new(),
                severity: Severity::High,
                subject: String::new(),
                messages: vec!["m".to_owned()],
                references: Vec::new(),
                ratings: Vec::new(),
            }));
        }
        let parsed = reduce(collector, &profile(&names), unmentioned);
        assert_eq!(reason(&parsed.findings[0]), Some(Reason::ScannerSkipped));
        assert_eq!(parsed.findings[1].outcome, Outcome::Failed);
        assert!(parsed.findings[2..2999].iter().all(|finding| reason(finding) == Some(Reason::ScannerSkipped)));
        assert_eq!(parsed.findings[2999].outcome == Outcome::Passed, unmentioned == Unmentioned::Passed);
        assert!(parsed.notes.iter().any(|note| note.contains("left out 2999 findings")), "{:?}", parsed.notes);
    }
}

#[test]
fn a_rule_that_is_met_says_nothing_of_the_others_of_its_severity() {
    let mut collector = Collector::new(9);
    let mut severities = BySeverity(&mut collector);
    for (rule, outcome) in [("a", Outcome::Passed), ("b", Outcome::NotApplicable { reason: "no".to_owned() })] {
        severities.take(Event::Finding(Reported {
            identity: identity("sample", [rule]),
            kind: FindingKind::Check,
            control: rule.to_owned(),
            outcome,
            word: String::new(),
            severity: Severity::High,
            subject: String::new(),
            messages: Vec::new(),
            references: Vec::new(),
            ratings: Vec::new(),
        }));
    }
    let parsed = reduce(collector, &profile(&["no-high-findings"]), Unmentioned::NotEvaluated);
    assert_eq!(reason(&parsed.findings[0]), Some(Reason::ControlMissing));
}

#[test]
fn findings_by_severity_fail_the_control_of_theirs() {
    let ids = ["no-critical-findings", "no-high-findings", "no-low-findings"];
    let mut collector = Collector::new(9);
    let found = |rule: &str, severity, outcome| Reported {
        identity: identity("sample", [rule]),
        kind: FindingKind::Check,
        control: rule.to_owned(),
        outcome,
        word: String::new(),
        severity,
        subject: "f".to_owned(),
        messages: vec!["seen".to_owned()],
        references: Vec::new(),
        ratings: Vec::new(),
    };
    let mut sink = BySeverity(&mut collector);
    sink.take(Event::Finding(found("r1", Severity::High, Outcome::Failed)));
    sink.take(Event::Finding(found("r2", Severity::High, Outcome::Passed)));
    sink.take(Event::Finding(found("r3", Severity::Low, Outcome::not_evaluated(Reason::ScannerSkipped, "review"))));
    let parsed = reduce(collector, &profile(&ids), Unmentioned::Passed);
    let ended: Vec<Status> = parsed.findings.iter().map(|f| f.outcome.status()).collect();
    assert_eq!(ended, [Status::Passed, Status::Failed, Status::NotEvaluated]);
    assert!(parsed.findings[1].details.contains(&Detail::new("f", "r1: seen")), "{:?}", parsed.findings[1]);

    // A rule that could not be evaluated may have been about anything.
    let mut collector = Collector::new(9);
    let outcome = Outcome::not_evaluated(Reason::RuleError, "it broke");
    BySeverity(&mut collector).take(Event::Verdict { control: "r4".to_owned(), outcome });
    let parsed = reduce(collector, &profile(&ids), Unmentioned::Passed);
    assert!(parsed.findings.iter().all(|f| f.outcome.status() == Status::NotEvaluated), "{:?}", parsed.findings);
}

#[test]
fn an_inventory_passes_when_it_names_something_and_lacks_nothing() {
    let ended = |events: Vec<Event>| {
        let mut collector = Collector::new(9);
        let mut inventory = Inventory::new(&mut collector);
        events.into_iter().for_each(|event| inventory.take(event));
        inventory.finish();
        reduce(collector, &profile(&["software-inventory"]), Unmentioned::NotEvaluated).findings[0].outcome.status()
    };
    let component = || Event::Component(Component { name: "a".to_owned(), ..Component::default() });
    let gap = Gap { subject: "b".to_owned(), reason: Reason::RuleError, detail: "unreadable".to_owned() };
    let verdict = Event::Verdict { control: "software-inventory".to_owned(), outcome: Outcome::Passed };
    assert_eq!(ended(vec![component()]), Status::Passed);
    assert_eq!(ended(vec![verdict]), Status::NotEvaluated, "what a scanner says of itself is no inventory");
    assert_eq!(ended(vec![component(), Event::Gap(gap)]), Status::NotEvaluated);
}
