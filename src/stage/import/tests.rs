use std::path::Path;

use super::*;
use crate::model::outcome::Status;
use crate::model::provenance::Expectation;

const GRYPE: &str = r#"{"matches":[{"vulnerability":{"id":"CVE-2","severity":"Low","namespace":"debian:distro:debian:12"},
    "artifact":{"name":"b","version":"1","type":"deb","locations":[]}}],"source":{"type":"image","target":{"userInput":"registry.example/a:1"}},
    "distro":{"name":"debian","version":"12"},
    "descriptor":{"name":"grype","version":"0.110.0","timestamp":"2026-01-02T03:04:05Z","db":{"status":{"built":"2026-01-01T00:00:00Z"}}}}"#;

fn now() -> Timestamp {
    "2026-03-01T00:00:00Z".parse().expect("a time")
}

struct Desk {
    folder: tempfile::TempDir,
    ledger: Ledger,
}

impl Desk {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let ledger = Ledger::open(&folder.path().join("ledger"), now()).expect("a ledger");
        Self { folder, ledger }
    }

    fn request(&self, name: &str, text: &[u8]) -> ImportRequest {
        let path = self.folder.path().join(name);
        std::fs::write(&path, text).expect("written");
        ImportRequest {
            source: ResultSource::File(path),
            format: None,
            target: None,
            profile: None,
            at: None,
            known: Known::Refuse,
        }
    }

    fn import(&mut self, request: ImportRequest) -> Result<TaskRecord, ImportError> {
        import(request, "uid 0 (root)", &mut self.ledger, &Limits::default(), now())
    }
}

fn target(text: &str) -> Option<TargetSpec> {
    Some(text.parse().expect("a target"))
}

#[test]
fn a_file_is_recorded_with_its_bytes_and_who_gave_it_and_nothing_twice() {
    let mut desk = Desk::new();
    let request = desk.request("grype.json", GRYPE.as_bytes());
    let record = desk.import(request.clone()).expect("imported");
    assert_eq!(record.target.key(), "image/registry.example/a:1");
    assert_eq!((record.provenance.engine.name.as_str(), record.profile.name.as_str()), ("import:grype", "grype"));
    assert_eq!(record.provenance.finished.to_string(), "2026-01-02T03:04:05Z");
    let imported = record.provenance.imported.as_deref().expect("it says so");
    assert_eq!((imported.file.as_str(), imported.by.as_str()), ("grype.json", "uid 0 (root)"));
    assert_eq!(
        (imported.expected, imported.target, imported.time),
        (Expectation::SelfDeclared, Said::ByFile, Some(Said::ByFile))
    );
    let kept = desk.ledger.reader().evidence(&imported.digest).expect("read").expect("kept");
    assert_eq!(kept, GRYPE.as_bytes());
    assert!(record.notes.iter().any(|note| note.starts_with("self-declared")), "{:?}", record.notes);

    let refused = desk.import(request.clone()).expect_err("it is there");
    assert!(matches!(refused, ImportError::There { .. }) && refused.class() == ExitClass::Usage, "{refused}");
    desk.import(ImportRequest { target: target("image/registry.example/other:1"), ..request.clone() })
        .expect("another target");
    desk.import(ImportRequest { known: Known::Again, ..request }).expect("again");
    let runs = desk.ledger.reader().runs(10).expect("runs");
    assert_eq!(runs.len(), 3);
    assert!(runs.iter().all(|run| run.end.is_some() && !run.start.is_scan()));
    assert_eq!(desk.ledger.reader().latest().expect("latest").len(), 2);
    let report = desk.ledger.reader().verify().expect("verified");
    assert!(report.is_intact(), "{:?}", report.problems);
    // A scan of long ago moves no clock.
    let events = desk.ledger.reader().events().expect("events");
    assert!(events.is_empty(), "{events:?}");
}

#[test]
fn an_import_is_no_answer_to_what_a_scan_asks() {
    let mut desk = Desk::new();
    let request = desk.request("grype.json", GRYPE.as_bytes());
    let record = desk.import(request).expect("imported");
    let scanned = |engine: &str| RunStart {
        run: RunId::new(),
        trigger: Trigger::Manual,
        started: now(),
        requested: vec![record.target.key()],
        classification: None,
        bundle: None,
        expected: vec![ExpectedTask {
            target: record.target.clone(),
            engine: engine.to_owned(),
            profile: record.profile.clone(),
            incarnation: None,
            workload: None,
        }],
    };
    let runs = desk.ledger.reader().runs(1).expect("runs");
    assert_ne!(runs[0].start.series(), scanned("grype").series());
    assert_eq!(runs[0].start.series(), scanned("import:grype").series());
}

#[test]
fn two_imports_are_compared() {
    let mut desk = Desk::new();
    let found = GRYPE.replace(
        "\"matches\":[",
        r#""matches":[{"vulnerability":{"id":"CVE-1","severity":"High","namespace":"debian:distro:debian:12"},
           "artifact":{"name":"a","version":"1","type":"deb","locations":[]}},"#,
    );
    let first = desk.request("new.json", GRYPE.as_bytes());
    desk.import(first).expect("imported");
    let older = desk.request("old.json", found.replace("2026-01-02", "2025-12-01").as_bytes());
    let older = desk.import(older).expect("imported");
    assert!(older.notes.iter().any(|note| note.starts_with("an older result")), "{:?}", older.notes);
    let history = desk.ledger.reader().history("image/registry.example/a:1").expect("history");
    let changes = desk.ledger.reader().changes(history[0].seq, history[1].seq).expect("changes");
    let changed: Vec<_> = changes.iter().map(|change| (change.control.as_str(), change.before, change.after)).collect();
    assert_eq!(changed, [("no-high-vulnerabilities", Some(Status::Passed), Some(Status::Failed))]);
}

#[test]
fn what_a_profile_expects_and_the_file_lacks_was_not_evaluated() {
    let mut desk = Desk::new();
    let (full, _) = Taken::read(ResultFormat::Grype, GRYPE.as_bytes(), &Limits::default())
        .expect("a result")
        .at_its_word("known-vulnerabilities", "1");
    let mut profile = full;
    for id in ["more", crate::model::scanner::SILENT_CONTROL] {
        profile.controls.push(crate::model::control::Control { id: id.to_owned(), ..profile.controls[0].clone() });
    }
    let request = desk.request("grype.json", GRYPE.as_bytes());
    let record = desk.import(ImportRequest { profile: Some(profile.clone()), ..request.clone() }).expect("imported");
    assert_eq!(record.profile, profile.reference());
    assert_eq!(record.coverage.count(Status::NotEvaluated), 2);
    assert_eq!(record.provenance.imported.as_ref().map(|imported| imported.expected), Some(Expectation::Profile));
    // The ledger knows it now by its name.
    let known = expected("known-vulnerabilities", desk.ledger.reader(), &Limits::default()).expect("it is known");
    assert_eq!(known.digest(), profile.digest());
    assert!(expected("no-such", desk.ledger.reader(), &Limits::default()).is_err());
}

#[test]
fn what_is_no_result_is_recorded_as_not_evaluated_and_never_as_a_pass() {
    let alarm = "{\"rule\":\"a\",\"priority\":\"Error\",\"time\":\"x\"";
    let cut = &GRYPE.as_bytes()[..GRYPE.len() - 20];
    let cases: [(&str, &[u8], Reason); 6] = [
        ("empty", b"", Reason::NoOutput),
        ("blank", b" \n", Reason::NoOutput),
        ("cut", cut, Reason::OutputTruncated),
        ("another's", b"{\"hello\":1}", Reason::OutputUnparsable),
        ("no text", b"{\"matches\":[\"\xff\"]}", Reason::OutputUnparsable),
        ("a cut alert", alarm.as_bytes(), Reason::OutputTruncated),
    ];
    for (case, bytes, reason) in cases {
        let mut desk = Desk::new();
        let request = desk.request("x\u{1b}[2J.json", bytes);
        let record = desk.import(ImportRequest { target: target("node/n"), ..request.clone() }).expect(case);
        let all = record.coverage.expected();
        assert_eq!((all, record.coverage.count(Status::NotEvaluated)), (1, 1), "{case}");
        assert!(
            matches!(&record.findings[0].outcome, Outcome::NotEvaluated { reason: r, .. } if *r == reason),
            "{case}: {:?}",
            record.findings
        );
        assert_eq!(record.evidence[0].digest, Digest::of(bytes), "{case}");
        assert!(record.notes.iter().all(|note| !note.contains('\u{1b}')), "{:?}", record.notes);
        // Without a target nothing says what it would be the result of.
        let before = desk.ledger.reader().runs(10).expect("runs").len();
        let refused = desk.import(request).expect_err(case);
        assert_eq!(refused.class(), ExitClass::NotEvaluated, "{case}");
        let events = desk.ledger.reader().events().expect("events");
        assert!(events.iter().any(|event| event.what == "import-refused"), "{case}: {events:?}");
        assert_eq!(desk.ledger.reader().runs(10).expect("runs").len(), before);
    }
}

#[test]
fn a_file_that_names_controls_without_number_is_not_taken_at_its_word() {
    let mut desk = Desk::new();
    let case = |n: usize| format!("<testcase classname='c' name='n{n}'/>");
    let suite = |cases: usize| format!("<testsuite name='s'>{}</testsuite>", (0..cases).map(case).collect::<String>());
    let request = |desk: &Desk, cases| ImportRequest {
        target: target("node/n"),
        ..desk.request(&format!("{cases}.xml"), suite(cases).as_bytes())
    };
    let few = request(&desk, 3);
    assert_eq!(desk.import(few).expect("imported").coverage.count(Status::Passed), 3);
    let many = request(&desk, CONTROLS + 1);
    let record = desk.import(many).expect("recorded");
    assert_eq!((record.coverage.expected(), record.coverage.count(Status::NotEvaluated)), (1, 1));
    assert!(
        matches!(&record.findings[0].outcome, Outcome::NotEvaluated { reason: Reason::OutputTooLarge, .. }),
        "{:?}",
        record.findings
    );
}

#[test]
fn what_does_not_name_one_target_is_refused_and_leaves_nothing() {
    let mut desk = Desk::new();
    let text = "{\"rule\":\"a\",\"priority\":\"Error\",\"time\":\"x\",\"hostname\":\"n\"}";
    let request = desk.request("alerts.jsonl", text.as_bytes());
    let refused = desk.import(request.clone()).expect_err("a host, or a node");
    assert_eq!(refused.class(), ExitClass::Usage);
    assert!(desk.ledger.reader().runs(10).expect("runs").is_empty());
    desk.import(ImportRequest { target: target("ns/shop"), ..request.clone() }).expect_err("a namespace");
    let folder = ImportRequest { source: ResultSource::File(desk.folder.path().to_owned()), ..request.clone() };
    assert_eq!(desk.import(folder).expect_err("a folder").class(), ExitClass::Unreachable);
    let gone = ImportRequest { source: ResultSource::File(Path::new("/no/such").to_owned()), ..request };
    assert_eq!(desk.import(gone).expect_err("no file").class(), ExitClass::Unreachable);
}

#[test]
fn times_are_the_files_own_if_they_can_be() {
    let at = |text: &str| text.parse::<Timestamp>().expect("a time");
    let origin =
        |finished: &str| Origin { started: Some(at(finished)), finished: Some(at(finished)), ..Origin::default() };
    let (past, future) = (origin("2026-01-01T00:00:00Z"), origin("2199-01-01T00:00:00Z"));
    let told = at("2026-02-01T00:00:00Z");
    for (case, origin, given, wanted, said, noted) in [
        ("the file says it", Some(&past), None, at("2026-01-01T00:00:00Z"), Some(Said::ByFile), false),
        ("both say it", Some(&past), Some(told), at("2026-01-01T00:00:00Z"), Some(Said::ByFile), true),
        ("a time to come", Some(&future), None, now(), None, true),
        ("a time to come, and a better one", Some(&future), Some(told), told, Some(Said::ByImporter), true),
        ("nobody says it", None, None, now(), None, false),
    ] {
        let ((_, finished), by, notes) = times(origin, given, now());
        assert_eq!((finished, by, !notes.is_empty()), (wanted, said, noted), "{case}");
    }
    let unclear = Origin { unclear_time: Some("2021-12-17T10:39:29".to_owned()), ..Origin::default() };
    let (_, by, notes) = times(Some(&unclear), None, now());
    assert_eq!((by, notes.len()), (None, 1));
}
