//! `gapscan results`, `history` and `ledger verify` on a ledger of two runs.

use std::path::{Path, PathBuf};

use assert_cmd::Command;
use gapscan::ledger::Ledger;
use gapscan::model::control::{Control, Severity};
use gapscan::model::evidence::Evidence;
use gapscan::model::finding::{Detail, Finding};
use gapscan::model::outcome::Outcome;
use gapscan::model::profile::Profile;
use gapscan::model::provenance::{Approach, Engine, Provenance};
use gapscan::model::reason::Reason;
use gapscan::model::record::{CheckedTask, ExpectedTask, RunEnd, RunId, RunStart, Trigger};
use gapscan::model::target::Target;
use jiff::Timestamp;
use serde_json::Value;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_767_322_000 + second).expect("a time")
}

fn profile() -> Profile {
    let control = |id: &str, title: &str, severity| Control {
        id: id.to_owned(),
        title: title.to_owned(),
        description: String::new(),
        check: String::new(),
        fix: String::new(),
        severity,
        references: Vec::new(),
    };
    Profile {
        name: "pod-security".to_owned(),
        version: "1".to_owned(),
        title: "Pod Security".to_owned(),
        summary: String::new(),
        controls: vec![
            control("no-host-network", "The pod does not use the network of its node", Severity::Medium),
            control("runs-as-non-root", "No process of the container runs as root", Severity::High),
            control("packages-are-current", "No package has a known vulnerability", Severity::Critical),
        ],
    }
}

fn container(pod: &str) -> Target {
    Target::Container {
        namespace: "shop".to_owned(),
        pod: pod.to_owned(),
        container: "web".to_owned(),
        uid: None,
        image: None,
        digest: None,
        node: None,
    }
}

fn run(ledger: &mut Ledger, second: i64, pods: &[&str], second_control: Outcome, end: Option<RunEnd>) -> RunId {
    let expected = |pod: &&str| ExpectedTask {
        target: container(pod),
        engine: "builtin".to_owned(),
        profile: profile().reference(),
        incarnation: None,
        workload: None,
    };
    let start = RunStart {
        run: RunId::new(),
        trigger: Trigger::Schedule { plan: "nightly".to_owned(), due: at(second) },
        started: at(second),
        requested: vec!["ns/shop".to_owned()],
        classification: None,
        bundle: None,
        expected: pods.iter().map(expected).collect(),
    };
    ledger.begin_run(&start, &[profile()]).expect("begin");
    for pod in pods.iter().take(if end.is_some() { pods.len() } else { 1 }) {
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
            started: at(second),
            finished: at(second + 1),
        };
        let findings = vec![
            Finding::new("no-host-network", Outcome::Passed),
            Finding::new("runs-as-non-root", second_control.clone())
                .with_details([Detail::new("pid 1 \u{1b}[2J\u{202e}nginx", "uid 0")], 9),
            Finding::new(
                "packages-are-current",
                Outcome::not_evaluated(Reason::ToolMissing, "no dpkg in the container"),
            ),
        ];
        let evidence = vec![Evidence::new("facts", "application/json", b"{}".to_vec())];
        let task = CheckedTask::new(start.run, container(pod), profile(), provenance, findings, evidence, Vec::new());
        ledger.record(&task.expect("all accounted for")).expect("record");
    }
    if let Some(end) = end {
        ledger.end_run(start.run, end, at(second + 2)).expect("end");
    }
    start.run
}

fn sample() -> (tempfile::TempDir, PathBuf, RunId) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("ledger");
    let mut ledger = Ledger::open(&path, at(0)).expect("a ledger");
    let first = run(&mut ledger, 0, &["web-1", "web-2"], Outcome::Passed, Some(RunEnd::Completed));
    run(&mut ledger, 3600, &["web-1", "web-2"], Outcome::Failed, None);
    (folder, path, first)
}

struct Ran {
    code: i32,
    out: String,
    err: String,
}

fn gapscan(ledger: &Path, arguments: &[&str]) -> Ran {
    let mut command = Command::cargo_bin("gapscan").expect("the binary");
    let output = command.args(arguments).env("GAPSCAN_LEDGER", ledger).output().expect("run");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    Ran { code: output.status.code().expect("a code"), out: text(output.stdout), err: text(output.stderr) }
}

fn json(ledger: &Path, arguments: &[&str]) -> Value {
    let ran = gapscan(ledger, &[arguments, &["-o", "json"]].concat());
    assert_eq!(ran.code, 0, "{}", ran.err);
    serde_json::from_str(&ran.out).expect("JSON")
}

#[test]
fn results_show_what_needs_attention_first() {
    let (_folder, path, first) = sample();
    let ran = gapscan(&path, &["results"]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    insta::assert_snapshot!(ran.out);
    assert!(ran.out.lines().all(|line| line.chars().count() <= 100), "{}", ran.out);
    assert!(ran.err.contains("has no end: 1 of its 2 tasks have no result"), "{}", ran.err);

    let all = json(&path, &["results"]);
    let results = all["results"].as_array().expect("results");
    assert_eq!(results.len(), 2);
    assert_eq!(results[0]["key"], "pod/shop/web-1/web");
    assert_eq!(results[0]["findings"][0]["control"], "packages-are-current");
    assert_eq!(results[0]["findings"][0]["reason"], "tool-missing");
    assert_eq!(results[0]["score"], 33);
    assert_eq!(all["unfinishedRuns"][0]["missing"].as_array().map(Vec::len), Some(1));

    let count = |arguments: &[&str]| -> Vec<usize> {
        let list = json(&path, arguments)["results"].as_array().expect("results").clone();
        list.iter().map(|result| result["findings"].as_array().map_or(0, Vec::len)).collect()
    };
    assert_eq!(count(&["results", "--status", "failed"]), [1, 0]);
    assert_eq!(count(&["results", "--status", "passed,failed,not-evaluated"]), [3, 3]);
    assert_eq!(count(&["results", "--severity", "critical"]), [1, 1]);
    assert_eq!(count(&["results", "--target", "pod/shop/web-2"]), [1]);
    assert_eq!(count(&["results", "--target", "ns/shop"]).len(), 2);
    assert_eq!(count(&["results", "--run", &first.to_string(), "--status", "failed"]), [0, 0]);
}

#[test]
fn history_shows_runs_and_changes() {
    let (_folder, path, _) = sample();
    let runs = json(&path, &["history"]);
    assert_eq!(runs[0]["end"], Value::Null);
    assert_eq!((&runs[0]["tasksExpected"], &runs[0]["tasksRecorded"]), (&Value::from(2), &Value::from(1)));
    assert_eq!(runs[1]["end"], "completed");
    let results = json(&path, &["history", "pod/shop/web-1"]);
    assert_eq!(results[0]["changes"][0]["control"], "runs-as-non-root");
    assert_eq!(results[0]["changes"][0]["before"], "passed");
    assert_eq!(results[1]["changes"], Value::Null);
    let ran = gapscan(&path, &["history", "pod/shop/web-1/web"]);
    insta::assert_snapshot!(ran.out);
    let ran = gapscan(&path, &["history"]);
    let lines: Vec<&str> = ran.out.lines().collect();
    assert!(lines[1].ends_with(runs[0]["run"].as_str().expect("an id")), "an id is never broken: {}", ran.out);
    assert!(ran.out.contains("no end") && ran.out.contains("completed"), "{}", ran.out);
}

#[test]
fn verify_ends_with_6_when_something_is_wrong() {
    let (_folder, path, _) = sample();
    let ran = gapscan(&path, &["ledger", "verify"]);
    assert_eq!(ran.code, 0, "{}{}", ran.out, ran.err);
    assert!(ran.out.contains("intact") && ran.out.contains("2 runs, 3 results, 1 signed checkpoint;"), "{}", ran.out);

    let conn = rusqlite::Connection::open(&path).expect("open");
    conn.execute_batch("DROP TRIGGER finding_no_update; UPDATE finding SET status = 'passed' WHERE status = 'failed'")
        .expect("edit");
    drop(conn);
    let ran = gapscan(&path, &["ledger", "verify"]);
    assert_eq!(ran.code, 6, "{}{}", ran.out, ran.err);
    assert!(ran.out.contains("NOT INTACT"), "{}", ran.out);
    assert!(ran.out.contains("finding") && ran.out.contains("trigger finding_no_update is missing"), "{}", ran.out);
    let ran = gapscan(&path, &["ledger", "verify", "-o", "json"]);
    let report: Value = serde_json::from_str(&ran.out).expect("JSON");
    assert_eq!((ran.code, &report["intact"]), (6, &Value::Bool(false)));
}

#[test]
fn what_can_not_be_read_is_said_with_its_code() {
    let (folder, path, _) = sample();
    let none = folder.path().join("none");
    let ran = gapscan(&none, &["results"]);
    assert_eq!((ran.code, ran.out.as_str()), (5, ""));
    assert!(ran.err.contains("there is none") && ran.err.contains("GAPSCAN_LEDGER"), "{}", ran.err);
    std::fs::write(&none, "no ledger\n".repeat(500)).expect("write");
    assert_eq!(gapscan(&none, &["history"]).code, 6);
    assert_eq!(gapscan(&none, &["ledger", "verify"]).code, 6);
    assert_eq!(gapscan(&path, &["results", "--run", &RunId::new().to_string()]).code, 2);
    assert_eq!(gapscan(&path, &["results", "--status", "green"]).code, 2);
}

/// A ledger of schema 1 is kept here (without its key, which readers do not need) and must be readable for ever.
#[test]
fn a_ledger_of_schema_1_is_read_and_verifies() {
    let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/ledger-schema-1");
    let folder = tempfile::tempdir().expect("a folder");
    for name in ["ledger", "ledger.head"] {
        std::fs::copy(kept.join(name), folder.path().join(name)).expect("copy");
    }
    let path = folder.path().join("ledger");
    let ran = gapscan(&path, &["ledger", "verify"]);
    assert_eq!(ran.code, 0, "{}{}", ran.out, ran.err);
    assert!(ran.out.contains("9 entries: 2 runs, 3 results, 1 signed checkpoint;"), "{}", ran.out);
    assert_eq!(json(&path, &["results"])["results"].as_array().map(Vec::len), Some(2));
    assert_eq!(json(&path, &["history"]).as_array().map(Vec::len), Some(2));
}
