use std::path::Path;

use proptest::prelude::*;

use super::*;
use crate::model::coverage::Coverage;
use crate::model::finding::Finding;
use crate::model::outcome::{Outcome, Status};
use crate::model::profile::Profile;
use crate::model::reason::Reason;
use crate::model::scanner::SILENT_CONTROL;

fn time(text: &str) -> Timestamp {
    text.parse().expect("a time")
}

const NOW: &str = "2027-01-15T12:00:00Z";

fn waiver(id: &str, controls: &[&str], expires: &str) -> Waiver {
    Waiver {
        id: id.to_owned(),
        controls: controls.iter().map(|c| (*c).to_owned()).collect(),
        profile: WaivedProfile { name: "p".to_owned(), version: None },
        targets: WaivedTargets::All,
        reason: "it is known".to_owned(),
        requested_by: "somebody".to_owned(),
        expires: expiry(expires).expect("a time"),
        max_severity: None,
    }
}

fn document(waivers: Vec<Waiver>) -> WaiverDocument {
    let bytes = format!("{waivers:?}");
    WaiverDocument {
        reference: WaiverRef {
            digest: Digest::of(&bytes),
            file: "w.yaml".to_owned(),
            approvals: vec!["aa".to_owned(), "bb".to_owned()],
        },
        waivers,
        longest: None,
        evidence: vec![Evidence::new("waivers", "application/yaml", bytes.into_bytes())],
    }
}

fn control(id: &str, severity: Severity) -> Control {
    Control {
        id: id.to_owned(),
        title: String::new(),
        description: String::new(),
        check: String::new(),
        fix: String::new(),
        severity,
        references: Vec::new(),
    }
}

fn profile(ids: &[&str]) -> Profile {
    Profile {
        name: "p".to_owned(),
        version: "1".to_owned(),
        title: String::new(),
        summary: String::new(),
        controls: ids.iter().map(|id| control(id, Severity::High)).collect(),
    }
}

fn host() -> Target {
    Target::Host { name: "h".to_owned() }
}

fn container(namespace: &str, pod: &str, image: &str) -> Target {
    Target::Container {
        namespace: namespace.to_owned(),
        pod: pod.to_owned(),
        container: "web".to_owned(),
        uid: None,
        image: Some(image.to_owned()),
        digest: Some(Digest::of("it")),
        node: None,
    }
}

fn one(outcome: Outcome, waivers: Vec<Waiver>, now: &str) -> Applied {
    apply(vec![Finding::new("a", outcome)], &[document(waivers)], &host(), &profile(&["a"]), time(now))
}

fn ended(applied: &Applied) -> Status {
    applied.findings[0].outcome.status()
}

#[test]
fn only_what_failed_is_waived_and_the_rest_says_why_not() {
    let counts = || vec![waiver("w", &["a"], "2027-01-31")];
    let failed = one(Outcome::Failed, counts(), NOW);
    let Outcome::Waived { id, justification, until, waiver: digest } = &failed.findings[0].outcome else {
        panic!("{failed:?}")
    };
    assert_eq!((id.as_str(), justification.as_str()), ("w", "it is known"));
    assert_eq!((*until, *digest), (time("2027-01-31T23:59:59Z"), document(counts()).reference.digest));
    assert_eq!((failed.notes.len(), failed.documents), (0, vec![0]));

    let passed = one(Outcome::Passed, counts(), NOW);
    assert_eq!(ended(&passed), Status::Passed);
    assert!(passed.notes[0].contains("is not needed"), "{passed:?}");

    let open = one(Outcome::not_evaluated(Reason::Timeout, "slow"), counts(), NOW);
    assert_eq!(ended(&open), Status::NotEvaluated);
    assert!(open.notes[0].contains("never waived"), "{open:?}");

    let other = one(Outcome::Failed, vec![waiver("w", &["b"], "2027-01-31")], NOW);
    assert_eq!((ended(&other), other.notes.len(), other.documents.len()), (Status::Failed, 0, 0));
}

#[test]
fn a_waiver_ends_at_its_moment_and_the_failure_says_so() {
    let day = || vec![waiver("w", &["a"], "2027-01-15")];
    for (now, status) in [
        ("2027-01-15T00:00:00Z", Status::Waived),
        ("2027-01-15T23:59:58Z", Status::Waived),
        ("2027-01-15T23:59:59Z", Status::Failed),
        ("2027-01-16T00:00:00Z", Status::Failed),
        ("2099-01-01T00:00:00Z", Status::Failed),
    ] {
        assert_eq!(ended(&one(Outcome::Failed, day(), now)), status, "{now}");
    }
    let over = one(Outcome::Failed, day(), "2027-01-16T00:00:00Z");
    assert!(over.findings[0].details[0].message.contains("it expired at 2027-01-15T23:59:59Z"), "{over:?}");
    assert!(over.notes[0].contains("expired at"), "{over:?}");
    // What is not missed is not told of with the result.
    assert_eq!(one(Outcome::Passed, day(), "2027-01-16T00:00:00Z").notes.len(), 0);
}

#[test]
fn the_waiver_that_lasts_longest_counts_and_an_expired_one_beside_it_is_no_matter() {
    let waivers = vec![
        waiver("old", &["a"], "2027-01-01"),
        waiver("short", &["a"], "2027-02-01"),
        waiver("long", &["*"], "2027-03-01"),
        waiver("as-long", &["a"], "2027-03-01"),
    ];
    let applied = one(Outcome::Failed, waivers, NOW);
    assert!(matches!(&applied.findings[0].outcome, Outcome::Waived { id, .. } if id == "long"), "{applied:?}");
    assert_eq!(applied.findings[0].details.len(), 0);
}

#[test]
fn what_is_too_severe_too_far_or_of_another_version_is_not_waived() {
    let mut severe = waiver("w", &["a"], "2027-01-31");
    severe.max_severity = Some(Severity::Medium);
    let applied = one(Outcome::Failed, vec![severe.clone()], NOW);
    assert_eq!(ended(&applied), Status::Failed);
    assert!(applied.findings[0].details[0].message.contains("severity medium at most"), "{applied:?}");
    severe.max_severity = Some(Severity::High);
    assert_eq!(ended(&one(Outcome::Failed, vec![severe], NOW)), Status::Waived);

    let mut far = document(vec![waiver("w", &["a"], "2027-06-01")]);
    far.longest = Some(SignedDuration::from_hours(24 * 90));
    let at = |now| {
        let findings = vec![Finding::new("a", Outcome::Failed)];
        apply(findings, std::slice::from_ref(&far), &host(), &profile(&["a"]), time(now))
    };
    assert_eq!(ended(&at(NOW)), Status::Failed);
    assert!(at(NOW).findings[0].details[0].message.contains("later than policy allows"));
    assert_eq!(ended(&at("2027-04-01T00:00:00Z")), Status::Waived);

    let mut versioned = waiver("w", &["a"], "2027-01-31");
    versioned.profile.version = Some("2".to_owned());
    assert_eq!(ended(&one(Outcome::Failed, vec![versioned], NOW)), Status::Failed);
    let mut other = waiver("w", &["a"], "2027-01-31");
    other.profile.name = "q".to_owned();
    assert_eq!(ended(&one(Outcome::Failed, vec![other], NOW)), Status::Failed);
}

#[test]
fn the_controls_that_judge_the_scan_itself_are_never_waived() {
    let findings = vec![Finding::new(SILENT_CONTROL, Outcome::Failed), Finding::new("a", Outcome::Failed)];
    let documents = [document(vec![waiver("w", &["*", SILENT_CONTROL], "2027-01-31")])];
    let applied = apply(findings, &documents, &host(), &profile(&[SILENT_CONTROL, "a"]), time(NOW));
    let statuses: Vec<Status> = applied.findings.iter().map(|f| f.outcome.status()).collect();
    assert_eq!(statuses, [Status::Failed, Status::Waived]);
}

#[test]
fn waivers_that_nobody_signed_say_so_in_each_result() {
    let mut unsigned = document(vec![waiver("w", &["a"], "2027-01-31")]);
    unsigned.reference.approvals.clear();
    let applied = apply(vec![Finding::new("a", Outcome::Failed)], &[unsigned], &host(), &profile(&["a"]), time(NOW));
    assert_eq!(ended(&applied), Status::Waived);
    assert!(applied.notes[0].contains("unsigned"), "{applied:?}");
}

fn outcome() -> impl Strategy<Value = Outcome> {
    prop_oneof![
        Just(Outcome::Passed),
        Just(Outcome::Failed),
        Just(Outcome::NotApplicable { reason: "no".to_owned() }),
        Just(Outcome::not_evaluated(Reason::FactMissing, "gone")),
        Just(Outcome::not_evaluated(Reason::DatabaseStale, "old")),
    ]
}

fn any_waiver() -> impl Strategy<Value = Waiver> {
    let controls = prop::collection::vec(prop::sample::select(vec!["a", "b", "c*", "*", "x", "*1"]), 1..4);
    let expires = prop::sample::select(vec!["2027-01-01", "2027-01-15", "2027-02-01", "2028-01-01"]);
    let severity = prop::option::of(prop::sample::select(Severity::WORST_FIRST.to_vec()));
    let targets = prop_oneof![
        Just(WaivedTargets::All),
        Just(WaivedTargets::These(vec![TargetPattern { kind: Some(TargetKind::Node), ..TargetPattern::default() }])),
    ];
    (controls, expires, severity, targets).prop_map(|(controls, expires, max_severity, targets)| Waiver {
        max_severity,
        targets,
        ..waiver("w", &controls, expires)
    })
}

proptest! {
    #[test]
    fn nothing_but_what_failed_ever_becomes_waived_and_counts_add_up(
        outcomes in prop::collection::vec((outcome(), prop::sample::select(Severity::WORST_FIRST.to_vec())), 1..12),
        waivers in prop::collection::vec(any_waiver(), 0..6),
        days in 0_i64..800,
    ) {
        let ids: Vec<String> =
            (0..outcomes.len()).map(|at| ["a", "b", "c1", "c2"].get(at).map_or(format!("d{at}"), |id| (*id).to_owned())).collect();
        let mut profile = profile(&ids.iter().map(String::as_str).collect::<Vec<_>>());
        for (control, (_, severity)) in profile.controls.iter_mut().zip(&outcomes) {
            control.severity = *severity;
        }
        let findings: Vec<Finding> =
            ids.iter().zip(&outcomes).map(|(id, (outcome, _))| Finding::new(id, outcome.clone())).collect();
        let now = time("2026-12-01T00:00:00Z") + SignedDuration::from_hours(days * 24);
        let before = Coverage::of(&profile, &findings).expect("accounted");
        let applied = apply(findings.clone(), &[document(waivers.clone())], &host(), &profile, now);
        let after = Coverage::of(&profile, &applied.findings).expect("still accounted");
        prop_assert_eq!(before.expected(), after.expected());
        prop_assert_eq!(before.count(Status::Failed), after.count(Status::Failed) + after.count(Status::Waived));
        for status in [Status::Passed, Status::NotApplicable, Status::NotEvaluated] {
            prop_assert_eq!(before.count(status), after.count(status));
        }
        prop_assert!(after.score() <= before.score() || before.score() == after.score());
        for ((old, new), control) in findings.iter().zip(&applied.findings).zip(&profile.controls) {
            prop_assert_eq!(&old.control, &new.control);
            // An oracle in another way: some waiver lets it be.
            let lets = waivers.iter().any(|w| {
                let named = w.controls.iter().any(|pattern| match pattern.as_str() {
                    "*" => true,
                    "c*" => old.control.starts_with('c'),
                    "*1" => old.control.ends_with('1'),
                    exact => exact == old.control,
                });
                named
                    && w.targets == WaivedTargets::All
                    && now < w.expires
                    && w.max_severity.is_none_or(|most| control.severity <= most)
            });
            let failed = old.outcome == Outcome::Failed;
            prop_assert_eq!(new.outcome.status() == Status::Waived, failed && lets);
            if !(failed && lets) {
                prop_assert_eq!(&old.outcome, &new.outcome);
            }
        }
    }
}

fn read_one(targets: &str) -> Result<Waiver, String> {
    let text = format!(
        "apiVersion: gapscan/v1\nkind: Waivers\nwaivers:\n- id: w\n  controls: [a]\n  profile: p\n  targets: {targets}\n  \
         reason: r\n  requestedBy: b\n  expires: 2027-01-31\n"
    );
    read(Path::new("w.yaml"), &text).map(|mut all| all.remove(0)).map_err(|error| error.to_string())
}

#[test]
fn targets_are_named_as_in_plans_or_by_what_they_are() {
    let web = container("shop", "web-6f7c-x", "registry.example:5000/shop/web:1.2");
    let image = Target::Image { reference: "registry.example:5000/shop/web:1.2".to_owned(), digest: None };
    let node = Target::Node { name: "lab-1".to_owned(), uid: None };
    let cluster = Target::Cluster { name: "lab".to_owned(), uid: None };
    let all = [&host(), &web, &image, &node, &cluster];
    let it = Digest::of("it");
    for (written, fitting) in [
        ("all", vec![0, 1, 2, 3, 4]),
        ("[host]", vec![0]),
        ("[cluster, host]", vec![0, 4]),
        ("[node/lab-*]", vec![3]),
        ("[node/lab]", vec![]),
        ("[ns/shop]", vec![1]),
        ("[ns/sho]", vec![]),
        ("[pod/shop/web-*]", vec![1]),
        ("[pod/shop/web-*/web]", vec![1]),
        ("[pod/shop/web-*/sidecar]", vec![]),
        ("['image/registry.example:5000/shop/web']", vec![2]),
        ("['image/registry.example:5000/shop/web:1.2']", vec![2]),
        ("['image/registry.example:5000/shop/web:1.3']", vec![]),
        ("['image/registry.example:5000/*']", vec![2]),
        ("[{image: 'registry.example:5000/shop/web'}]", vec![1, 2]),
        ("[{kind: container, image: 'registry.example:5000/shop/web'}]", vec![1]),
        ("[{kind: container}]", vec![1]),
        ("[{namespace: shop, image: 'registry.example:5000/*'}]", vec![1]),
        ("[{namespace: other, image: 'registry.example:5000/*'}]", vec![]),
        ("[{kind: node, name: lab-1}]", vec![3]),
        (&format!("[{{image: 'registry.example:5000/shop/web@{it}'}}]"), vec![1]),
    ] {
        let waiver = read_one(written).expect(written);
        let fits: Vec<usize> = (0..all.len()).filter(|at| waiver.targets.fit(all[*at])).collect();
        assert_eq!(fits, fitting, "{written}");
    }
    for open in [
        "[]",
        "every",
        "['*']",
        "[{}]",
        "[{name: '*'}]",
        "[{image: '*'}]",
        "[{kind: pod}]",
        "[{kind: node, namespace: shop}]",
        "[{kind: host, image: x}]",
        "[{name: web}]",
        "[ns/]",
        "[pod/shop]",
        "[image/]",
        "[{kind: container, label: x}]",
        "[{kind: container, name: ''}]",
    ] {
        assert!(read_one(open).is_err(), "{open}");
    }
}

#[test]
fn all_problems_are_told_at_once_with_their_places() {
    let text = "apiVersion: gapscan/v1\nkind: Waivers\nwaivers:\n- id: RISK 1\n  controls: []\n  profile: {name: p, verion: 1}\n  \
                reasn: x\n  reason:\n  requestedBy: me\n  expires: 31.12.2027\n  maxSeverity: huge\n- id: two\n  controls: \
                [gapscan-network-silent]\n  profile: p\n  targets: [{kind: node, image: x}]\n  reason: r\n  requestedBy: me\n  \
                expires: 2027-02-30\n- id: two\n";
    let error = read(Path::new("w.yaml"), text).expect_err("a bad document").to_string();
    for part in [
        "line 4, column 3: waivers[0].id: id `RISK 1`",
        "line 5, column 3: waivers[0].controls: controls names none",
        "line 6, column 22: waivers[0].profile.verion: there is no such field; there are name, version",
        "line 7, column 3: waivers[0].reasn: there is no such field",
        "line 8, column",
        "waivers[0].reason: it must be a text, and is empty",
        "line 10, column 3: waivers[0].expires: expires `31.12.2027`",
        "waivers[0].maxSeverity: `huge` is none of",
        "waivers[0].targets: it is missing",
        "`gapscan-network-silent` is by what gapscan judges the scan itself",
        "of kind node has no image",
        "expires `2027-02-30`",
        "line 19, column 3: waivers[2].id: waivers[1] has the id `two`, too",
        "waivers[2].controls: it is missing",
    ] {
        assert!(error.contains(part), "{part}: {error}");
    }
    assert!(!error.contains("RISK 1\n"), "on one line");
    let labels = read_one("[{kind: container, namespace: shop, labels: {app: web}}]").expect_err("labels");
    assert!(labels.contains("targets[0].labels: labels choose no target") && labels.contains("line 7"), "{labels}");
    let empty = read_one("[{kind: node, name: }]").expect_err("an empty name");
    assert!(empty.contains("targets[0].name"), "{empty}");
}

#[test]
fn a_day_ends_in_utc_and_a_time_has_an_offset() {
    for (text, means) in [
        ("2027-01-31", Some("2027-01-31T23:59:59Z")),
        ("2027-01-31T12:00:00Z", Some("2027-01-31T12:00:00Z")),
        ("2027-01-31T12:00:00+02:00", Some("2027-01-31T10:00:00Z")),
        ("2027-01-31T12:00:00", None),
        ("2027-01-31 12:00:00Z", None),
        ("2027-01-31T12:00:00+01:00[Europe/Berlin]", None),
        ("20270131", None),
        ("2027-1-31", None),
        ("never", None),
        ("", None),
        ("9999-99-99", None),
    ] {
        assert_eq!(expiry(text), means.map(time), "{text}");
    }
}

#[test]
fn a_document_is_bounded() {
    let head = "apiVersion: gapscan/v1\nkind: Waivers\nwaivers:\n";
    let waiver = |id: usize, controls: &str, reason: &str| {
        format!(
            "- {{id: w{id}, controls: [{controls}], profile: p, targets: all, reason: '{reason}', requestedBy: b, \
             expires: 2027-01-31}}\n"
        )
    };
    let read = |text: String| read(Path::new("w.yaml"), &text).map_err(|error| error.to_string());
    assert_eq!(read(format!("{head}{}", waiver(1, "a", &"x".repeat(4096)))).expect("a document").len(), 1);
    assert!(read(format!("{head}{}", waiver(1, "a", &"x".repeat(4097)))).expect_err("long").contains("4096"));
    let many: String = (0..10_001).map(|id| waiver(id, "a", "r")).collect();
    assert!(read(format!("{head}{many}")).expect_err("many").contains("more than 10000 waivers"));
    let patterns = vec!["a"; 20_001].join(",");
    assert!(read(format!("{head}{}", waiver(1, &patterns, "r"))).expect_err("patterns").contains("20000 patterns"));
    assert!(read("apiVersion: gapscan/v1\nkind: Waivers\nwaivers: []\n".to_owned()).expect("none").is_empty());
    assert!(read("apiVersion: gapscan/v1\nkind: Waiver\nwaivers: []\n".to_owned()).is_err(), "another kind");
}

#[test]
fn ids_that_look_like_numbers_stay_what_they_are() {
    let text = "apiVersion: gapscan/v1\nkind: Waivers\nwaivers:\n- {id: 1.10, controls: [1.10, 010, 1e3], profile: p, targets: \
                all, reason: r, requestedBy: b, expires: 2027-01-31}\n";
    let waivers = read(Path::new("w.yaml"), text).expect("a document");
    assert_eq!(waivers[0].id, "1.10");
    assert_eq!(waivers[0].controls, ["1.10", "010", "1e3"]);
}

#[test]
fn what_is_to_be_known_of_waivers_is_told_once_in_order() {
    use crate::model::record::{Event, RunId};
    use serde_json::json;

    let run = RunId::new();
    let waived = |control: &str, id: &str, until: &str| json!({ "control": control, "outcome": "waived", "waiver": Digest::of("w"), "id": id, "justification": "j", "until": until });
    // As a ledger has it that knew no ids of waivers yet.
    let mut nameless = waived("d", "", "2027-01-20T00:00:00Z");
    nameless.as_object_mut().expect("an object").remove("id");
    let record: TaskRecord = serde_json::from_value(json!({
        "run": run,
        "target": { "kind": "host", "name": "h" },
        "profile": { "name": "p", "version": "1", "digest": Digest::of("p") },
        "provenance": { "gapscan": "0", "engine": { "name": "builtin" }, "approach": "local", "started": NOW, "finished": NOW },
        "coverage": { "expected": 5, "passed": 0, "failed": 0, "notApplicable": 0, "waived": 5, "notEvaluated": 0 },
        "findings": [
            waived("a", "soon", "2027-02-01T00:00:00Z"),
            waived("b", "soon", "2027-02-01T00:00:00Z"),
            waived("c", "over", NOW),
            nameless,
            waived("e", "later", "2027-12-01T00:00:00Z"),
        ],
        "evidence": [],
    }))
    .expect("a record");
    let event = |what: &str, subject: String| Event {
        at: time(NOW),
        what: what.to_owned(),
        subject,
        due: None,
        detail: format!("about {what}"),
    };
    let events = [
        event(WAIVER_UNMATCHED, run.to_string()),
        event(WAIVERS_REFUSED, run.to_string()),
        event(WAIVERS_REFUSED, run.to_string()),
        event(WAIVERS_UNSIGNED, RunId::new().to_string()),
        event("schedule-missed", run.to_string()),
    ];
    let told: Vec<(&str, String)> =
        notices([&record], &events, time(NOW)).into_iter().map(|n| (n.state.word(), n.detail)).collect();
    let words: Vec<&str> = told.iter().map(|(word, _)| *word).collect();
    assert_eq!(words, ["refused", "expired-since", "expires-soon", "expires-soon", "unmatched"], "{told:?}");
    assert!(told[1].1.contains("`over`, by which 1 control counted"), "{told:?}");
    assert!(told.iter().any(|(_, detail)| detail.contains("`soon`, by which 2 controls")), "{told:?}");
    assert!(told.iter().any(|(_, detail)| detail.contains("a waiver, by which 1 control")), "{told:?}");
    assert_eq!(notices(&[], &events, time(NOW)), []);
    let words: std::collections::BTreeSet<&str> = NoticeState::ALL.iter().map(|state| state.word()).collect();
    assert_eq!(words.len(), NoticeState::ALL.len());
}
