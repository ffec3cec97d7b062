//! `gapscan export` as it is run.

use std::path::{Path, PathBuf};

use assert_cmd::Command;
use gapscan::ledger::Ledger;
use gapscan::model::control::{Control, Severity};
use gapscan::model::profile::Profile;
use gapscan::model::provenance::{Approach, Engine, Provenance};
use gapscan::model::reason::Reason;
use gapscan::model::record::{CheckedTask, ExpectedTask, RunEnd, RunId, RunStart, Trigger};
use gapscan::model::target::Target;
use jiff::Timestamp;

fn ledger(folder: &Path, nodes: &[&str]) -> PathBuf {
    run(folder, nodes, None)
}

/// Adds a run with one result for each node to the ledger, by a bundle with this classification marking.
fn run(folder: &Path, nodes: &[&str], classification: Option<&str>) -> PathBuf {
    let path = folder.join("ledger.sqlite");
    let now = Timestamp::from_second(1_700_000_000).expect("a time");
    let profile = Profile {
        name: "sample".to_owned(),
        version: "1".to_owned(),
        title: "Sample".to_owned(),
        summary: String::new(),
        controls: vec![Control {
            id: "a".to_owned(),
            title: "One thing".to_owned(),
            description: String::new(),
            check: String::new(),
            fix: String::new(),
            severity: Severity::High,
            references: Vec::new(),
        }],
    };
    let target = |name: &&str| Target::Node { name: (*name).to_owned(), uid: None };
    let expected = |t| ExpectedTask {
        target: t,
        engine: "builtin".to_owned(),
        profile: profile.reference(),
        incarnation: None,
        workload: None,
    };
    let start = RunStart {
        run: RunId::new(),
        trigger: Trigger::Manual,
        started: now,
        requested: nodes.iter().map(|n| format!("node/{n}")).collect(),
        classification: classification.map(str::to_owned),
        bundle: None,
        expected: nodes.iter().map(target).map(expected).collect(),
    };
    let mut ledger = Ledger::open(&path, now).expect("a new ledger");
    ledger.begin_run(&start, std::slice::from_ref(&profile)).expect("begin");
    for node in nodes {
        let provenance = Provenance {
            gapscan: "0".to_owned(),
            engine: Engine { name: "builtin".to_owned(), version: String::new(), image: None },
            bundle: None,
            content: Vec::new(),
            approach: Approach::None,
            imported: None,
            identity: None,
            network: None,
            cleanup: None,
            started: now,
            finished: now,
        };
        let task = CheckedTask::not_evaluated(
            start.run,
            target(node),
            profile.clone(),
            provenance,
            Reason::TargetNotFound,
            "no such node",
            Vec::new(),
        );
        ledger.record(&task).expect("record");
    }
    ledger.end_run(start.run, RunEnd::Completed, now).expect("end");
    path
}

fn export(ledger: &Path, args: &[&str]) -> Command {
    let mut command = Command::cargo_bin("gapscan").expect("the binary");
    command.env_remove("GAPSCAN_LEDGER").env_remove("GAPSCAN_CLASSIFICATION");
    command.args(["export", "--ledger"]).arg(ledger).args(args);
    command
}

fn stderr(command: &mut Command) -> String {
    String::from_utf8(command.output().expect("it runs").stderr).expect("UTF-8")
}

#[test]
fn each_format_goes_to_stdout_and_is_no_gate() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = ledger(folder.path(), &["one"]);
    for (format, start) in [("hdf", "{"), ("jsonl", "{"), ("html", "<!DOCTYPE html>")] {
        let output = export(&path, &["--format", format]).assert().code(0).get_output().stdout.clone();
        let text = String::from_utf8(output).expect("UTF-8");
        assert!(text.starts_with(start), "{format}");
        assert!(text.contains("target-not-found"), "{format}: why it was not evaluated");
    }
}

#[test]
fn files_are_written_and_said() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = ledger(folder.path(), &["one", "two"]);
    let page = folder.path().join("report.html");
    let args = ["--format", "html", "--title", "Ours", "--classification", "CUI", "-o"];
    let said = stderr(export(&path, &args).arg(&page));
    assert!(said.contains("2 expected") && said.contains("2 not evaluated"), "{said}");
    let text = std::fs::read_to_string(&page).expect("the page");
    assert!(text.contains("<title>CUI: Ours</title>"));

    export(&path, &["--format", "hdf"]).assert().code(2);
    let out = folder.path().join("hdf");
    export(&path, &["--format", "hdf", "-o"]).arg(&out).assert().code(0);
    assert_eq!(std::fs::read_dir(&out).expect("a folder").count(), 2);
}

#[test]
fn the_markings_of_all_bundles_are_shown_first_and_last() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = run(folder.path(), &["one", "four"], Some("SECRET"));
    run(folder.path(), &["two"], Some("CUI"));
    run(folder.path(), &["three"], None);
    let exported = |args: &[&str]| {
        let output = export(&path, args).assert().code(0).get_output().stdout.clone();
        String::from_utf8(output).expect("UTF-8")
    };
    let page = exported(&["--format", "html"]);
    assert!(page.contains("<title>CUI + SECRET: "), "in the title");
    let banners: Vec<_> = page.match_indices("CUI + SECRET").map(|(at, _)| at).collect();
    let main = (page.find("<main").expect("a main part"), page.find("</main>").expect("its end"));
    let visible = |at: &&usize| !page[..**at].ends_with("<title>");
    assert!(banners.iter().filter(visible).any(|at| *at < main.0), "at the head");
    assert!(banners.iter().any(|at| *at > main.1), "at the foot");

    let lines = exported(&["--format", "jsonl"]);
    let head: serde_json::Value = serde_json::from_str(lines.lines().next().expect("a line")).expect("JSON");
    assert_eq!(head["classification"], "CUI + SECRET");
    let hdf: serde_json::Value =
        serde_json::from_str(&exported(&["--format", "hdf", "--target", "node/two"])).expect("JSON");
    assert_eq!(hdf["passthrough"]["gapscan"]["classification"], "CUI", "only of what is in it");

    // What a reader asks for is shown too, and hides nothing.
    let marked = exported(&["--format", "html", "--classification", "TOP SECRET"]);
    assert!(marked.contains("<title>TOP SECRET + CUI + SECRET: "));
    assert!(
        exported(&["--format", "html", "--target", "node/two", "--classification", "CUI"]).contains("<title>CUI: ")
    );
    let plain = exported(&["--format", "jsonl", "--target", "node/three"]);
    assert!(serde_json::from_str::<serde_json::Value>(plain.lines().next().expect("a line")).expect("JSON")["classification"].is_null());
}

#[test]
fn what_can_not_be_exported_ends_as_documented() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = ledger(folder.path(), &["one"]);
    export(&folder.path().join("absent"), &["--format", "html"]).assert().code(5);
    export(&path, &["--format", "pdf"]).assert().code(2);
    export(&path, &["--format", "html", "--target", "node/other"]).assert().code(2);
    export(&path, &["--format", "html", "--run", "01937b6e-5f00-7c31-8a4d-2f6f0c9be8d1"]).assert().code(2);
    export(&path, &["--format", "html", "-o", "/nowhere/at/all.html"]).assert().code(5);
}

#[test]
fn a_ledger_that_is_not_intact_is_exported_and_ends_with_6() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = ledger(folder.path(), &["one"]);
    std::fs::remove_file(folder.path().join("ledger.sqlite.head")).expect("remove");
    let page = folder.path().join("report.html");
    export(&path, &["--format", "html", "-o"]).arg(&page).assert().code(6);
    assert!(std::fs::read_to_string(&page).expect("the page").contains("The ledger is not intact"));
}
