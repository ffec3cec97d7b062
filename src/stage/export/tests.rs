use super::*;
use crate::ledger::Ledger;
use crate::model::control::{Control, Severity};
use crate::model::finding::Finding;
use crate::model::outcome::{Outcome, Status};
use crate::model::profile::Profile;
use crate::model::provenance::{Approach, Engine, Provenance};
use crate::model::reason::Reason;
use crate::model::record::{CheckedTask, RunEnd, RunStart, Trigger};

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + second).expect("a time")
}

fn profile() -> Profile {
    let control = |id: &str| Control {
        id: id.to_owned(),
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
        title: "Sample".to_owned(),
        summary: String::new(),
        controls: ["a", "b"].map(control).to_vec(),
    }
}

fn container(pod: &str, name: &str) -> Target {
    Target::Container {
        namespace: "shop".to_owned(),
        pod: pod.to_owned(),
        container: name.to_owned(),
        uid: None,
        image: None,
        digest: None,
        node: None,
    }
}

/// A ledger with one run: these targets were expected, and the first `done` of them were recorded.
fn ledger(targets: &[Target], done: usize) -> (tempfile::TempDir, PathBuf, RunId) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("ledger.sqlite");
    let mut ledger = Ledger::open(&path, at(0)).expect("a new ledger");
    let expected = targets.iter().map(|target| ExpectedTask {
        target: target.clone(),
        engine: "builtin".to_owned(),
        profile: profile().reference(),
        incarnation: None,
        workload: None,
    });
    let start = RunStart {
        run: RunId::new(),
        trigger: Trigger::Manual,
        started: at(1),
        requested: vec!["ns/shop".to_owned()],
        classification: None,
        bundle: None,
        expected: expected.collect(),
    };
    ledger.begin_run(&start, &[profile()]).expect("begin");
    for target in &targets[..done] {
        let provenance = Provenance {
            gapscan: "0".to_owned(),
            engine: Engine { name: "builtin".to_owned(), version: String::new(), image: None },
            bundle: None,
            content: Vec::new(),
            approach: Approach::Exec,
            imported: None,
            identity: None,
            network: None,
            cleanup: None,
            started: at(2),
            finished: at(3),
        };
        let findings = vec![
            Finding::new("a", Outcome::Passed),
            Finding::new("b", Outcome::not_evaluated(Reason::Timeout, "after 5 s")),
        ];
        let task = CheckedTask::new(start.run, target.clone(), profile(), provenance, findings, Vec::new(), Vec::new());
        ledger.record(&task.expect("accounted")).expect("recorded");
    }
    if done == targets.len() {
        ledger.end_run(start.run, RunEnd::Completed, at(4)).expect("end");
    }
    (folder, path, start.run)
}

fn request(path: &Path) -> ExportRequest {
    ExportRequest {
        ledger: path.to_owned(),
        selection: Selection::Latest,
        targets: Vec::new(),
        title: None,
        classification: None,
    }
}

#[test]
fn what_the_ledger_holds_is_in_the_report() {
    let (_folder, path, run) = ledger(&[container("web", "a"), container("web", "b")], 2);
    let report = collect(&request(&path), at(10)).expect("a report");
    assert_eq!(report.tasks.len(), 2);
    assert_eq!(report.coverage().count(Status::NotEvaluated), 2);
    assert_eq!(report.ledger.state, LedgerState::Intact);
    assert_eq!(report.runs.len(), 1);
    assert_eq!(report.unrecorded().count(), 0);
    let of_run = ExportRequest { selection: Selection::Run(run), ..request(&path) };
    assert_eq!(collect(&of_run, at(10)).expect("a report").tasks.len(), 2);
    let unknown = ExportRequest { selection: Selection::Run(RunId::new()), ..request(&path) };
    assert!(matches!(collect(&unknown, at(10)), Err(ExportError::NoRun(_))));
}

#[test]
fn what_a_dead_run_owes_is_in_the_report() {
    let (_folder, path, run) = ledger(&[container("web", "a"), container("web", "b")], 1);
    for selection in [Selection::Latest, Selection::Run(run)] {
        let report = collect(&ExportRequest { selection, ..request(&path) }, at(10)).expect("a report");
        assert_eq!(report.unrecorded().map(|(_, t)| t.target.key()).collect::<Vec<_>>(), ["pod/shop/web/b"]);
        let page = html::render(&report);
        assert!(page.contains("Results are missing") && page.contains("pod/shop/web/b"));
    }
    let (_folder, path, _) = ledger(&[container("web", "a")], 0);
    let report = collect(&request(&path), at(10)).expect("a report about nothing but a debt");
    let page = html::render(&report);
    assert!(report.tasks.is_empty() && page.contains("1 result is not recorded yet"), "{page}");
    assert!(!page.contains("Everything passed") && !page.contains("Nothing was expected"));
    assert!(matches!(render(&report, ExportFormat::Hdf).into_bytes(), Err(ExportError::Nothing(_))));
}

#[test]
fn only_the_targets_that_were_asked_for_and_never_none() {
    let (_folder, path, _) = ledger(&[container("web", "a"), container("web", "b"), container("db", "a")], 3);
    let ask = |texts: &[&str]| {
        let targets = texts.iter().map(|t| t.parse().expect("a target")).collect();
        collect(&ExportRequest { targets, ..request(&path) }, at(10))
    };
    assert_eq!(ask(&["pod/shop/web"]).expect("two").tasks.len(), 2);
    assert_eq!(ask(&["pod/shop/web/a", "pod/shop/db"]).expect("two").tasks.len(), 2);
    assert_eq!(ask(&["ns/shop"]).expect("three").tasks.len(), 3);
    for nothing in ["host", "cluster", "node/web", "image/web", "ns/other", "pod/shop/web/c"] {
        assert!(matches!(ask(&[nothing]), Err(ExportError::Nothing(_))), "{nothing}");
    }
}

#[test]
fn a_ledger_that_is_not_intact_says_so_in_every_format() {
    let (_folder, path, _) = ledger(&[container("web", "a")], 1);
    let mut head = path.clone().into_os_string();
    head.push(".head");
    fs::remove_file(head).expect("remove");
    let report = collect(&request(&path), at(10)).expect("a report");
    let problem = report.ledger.state.problem().expect("a problem").to_owned();
    for format in [ExportFormat::Hdf, ExportFormat::Jsonl, ExportFormat::Html] {
        let bytes = render(&report, format).into_bytes().expect("one file");
        let text = String::from_utf8(bytes).expect("UTF-8");
        let words = if format == ExportFormat::Html { "The ledger is not intact" } else { "\"intact\"" };
        assert!(text.contains(words), "{format:?}: {problem}");
        assert!(!text.replace(' ', "").contains("\"intact\":true"));
    }
}

#[test]
fn several_files_go_into_a_folder_whole_or_not_at_all() {
    let (folder, path, _) = ledger(&[container("web", "a"), container("web", "b")], 2);
    let report = collect(&request(&path), at(10)).expect("a report");
    assert!(matches!(render(&report, ExportFormat::Hdf).into_bytes(), Err(ExportError::SeveralFiles(2))));

    let out = folder.path().join("out");
    render(&report, ExportFormat::Hdf).write(&out).expect("written");
    assert_eq!(fs::read_dir(&out).expect("list").count(), 2);
    let again = render(&report, ExportFormat::Hdf).write(&out).expect_err("it has something in it");
    assert!(again.remedy().expect("a remedy").contains("empty"), "{again}");
    assert_eq!(fs::read_dir(&out).expect("list").count(), 2);
    let left = fs::read_dir(folder.path()).expect("list").filter_map(Result::ok);
    assert!(left.into_iter().all(|e| !e.file_name().to_string_lossy().starts_with(".gapscan-")), "nothing is left");

    let one = ExportRequest { targets: vec!["pod/shop/web/a".parse().expect("a target")], ..request(&path) };
    let file = folder.path().join("one.json");
    let report = collect(&one, at(10)).expect("a report");
    render(&report, ExportFormat::Hdf).write(&file).expect("written");
    render(&report, ExportFormat::Hdf).write(&file).expect("replaced");
    assert_eq!(fs::metadata(&file).expect("stat").permissions().mode() & 0o777, 0o640);
}
