use super::*;
use crate::model::control::{Control, Severity};
use crate::model::outcome::Outcome;
use crate::model::reason::Reason;

fn profile(ids: &[&str]) -> Profile {
    let control = |id: &&str| Control {
        id: (*id).to_owned(),
        title: String::new(),
        description: String::new(),
        check: String::new(),
        fix: String::new(),
        severity: Severity::Medium,
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

fn finding(id: &str, outcome: Outcome) -> Finding {
    Finding::new(id, outcome)
}

#[test]
fn expected_is_the_sum_of_outcomes() {
    let findings = [
        finding("a", Outcome::Passed),
        finding("b", Outcome::Failed),
        finding("c", Outcome::not_evaluated(Reason::Timeout, "")),
        finding("d", Outcome::NotApplicable { reason: String::new() }),
    ];
    let coverage = Coverage::of(&profile(&["a", "b", "c", "d"]), &findings).expect("all accounted for");
    assert_eq!(coverage.expected(), 4);
    assert_eq!(Status::ALL.iter().map(|s| coverage.count(*s)).sum::<u64>(), 4);
    assert!(!coverage.is_complete());
    assert_eq!(coverage.score(), Some(33));
}

#[test]
fn a_lost_a_doubled_and_a_foreign_control_are_noticed() {
    let two = profile(&["a", "b"]);
    let pass = |id| finding(id, Outcome::Passed);
    assert_eq!(Coverage::of(&two, &[pass("a")]), Err(CoverageError::Missing("b".to_owned())));
    assert_eq!(Coverage::of(&two, &[pass("a"), pass("a"), pass("b")]), Err(CoverageError::Twice("a".to_owned())));
    assert_eq!(Coverage::of(&two, &[pass("a"), pass("b"), pass("c")]), Err(CoverageError::Unexpected("c".to_owned())));
}

#[test]
fn nothing_expected_is_not_complete_and_has_no_score() {
    assert!(!Coverage::default().is_complete());
    assert_eq!(Coverage::default().score(), None);
}

#[test]
fn stored_counts_that_do_not_add_up_are_refused() {
    let text = r#"{"expected":2,"passed":3,"failed":0,"notApplicable":0,"waived":0,"notEvaluated":0}"#;
    assert!(serde_json::from_str::<Coverage>(text).is_err());
}
