//! `gapscan import`: what it records of results of real scanners is what `gapscan read` says of them, and everything that shows
//! it says that it was imported.
//!
//! The results are in the folder that `GAPSCAN_TEST_CORPUS` names, or in `../shared/corpus` beside the sources.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

fn gapscan(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gapscan"));
    command.args(arguments).stdin(Stdio::null()).env_remove("GAPSCAN_LOG").env_remove("GAPSCAN_LEDGER");
    command.output().expect("gapscan runs")
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

/// The files of the corpus that are results, or a line that says that the test is skipped.
fn corpus() -> Vec<PathBuf> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/corpus");
    let folder = std::env::var_os("GAPSCAN_TEST_CORPUS").map_or(beside, PathBuf::from);
    if !folder.is_dir() {
        println!("skipped: needs results of real scanners in {}", folder.display());
        return Vec::new();
    }
    let files = ["inspec", "grype", "kube-bench", "sarif", "trivy", "xccdf"].iter().flat_map(|name| {
        let entries = fs::read_dir(folder.join(name)).expect("a folder");
        entries.map(|entry| entry.expect("an entry").path()).collect::<Vec<_>>()
    });
    let mut files: Vec<PathBuf> = files.filter(|path| path.extension().is_some_and(|end| end != "xz")).collect();
    files.sort();
    files
}

#[test]
fn what_is_imported_is_what_read_says() {
    let folder = tempfile::tempdir().expect("a folder");
    let ledger = folder.path().join("ledger").display().to_string();
    let mut imported = 0;
    for path in corpus() {
        let path = path.display().to_string();
        let said = gapscan(&["read", &path, "-o", "json"]);
        let output = gapscan(&["import", &path, "-L", &ledger, "--target", "node/n", "-o", "json"]);
        let recorded = json(&output);
        let coverage = &recorded["coverage"];
        if said.stdout.is_empty() {
            assert_eq!(output.status.code(), Some(3), "{path}");
            assert_eq!(coverage["notEvaluated"], coverage["expected"], "{path}: it is no result");
            continue;
        }
        let said = json(&said);
        let controls = &said["controls"];
        for what in ["passed", "failed"] {
            assert_eq!(coverage[what], controls[what], "{path}: {what}");
        }
        // What is no control of its own and was not evaluated is one more.
        let open = said["notEvaluated"].as_array().expect("a list").iter().any(|one| one["subject"].is_string());
        // So is an inventory, which judges nothing.
        let more = open || controls["total"] == 0;
        let most = controls["total"].as_u64().expect("a number") + u64::from(more);
        assert!((most - u64::from(more)..=most).contains(&coverage["expected"].as_u64().expect("a number")), "{path}");
        assert_eq!(recorded["imported"]["digest"], said["digest"], "{path}");
        assert_eq!(recorded["imported"]["expected"], "self-declared", "{path}");
        let open = coverage["notEvaluated"] != 0;
        assert_eq!(output.status.code(), Some(if open { 3 } else { 0 }), "{path}");
        let read_says_open = !said["notEvaluated"].as_array().expect("a list").is_empty();
        assert!(open || !read_says_open, "{path}: what read says was not evaluated is in the record");
        imported += 1;
        let again = gapscan(&["import", &path, "-L", &ledger, "--target", "node/n"]);
        assert_eq!(again.status.code(), Some(2), "{path}: {again:?}");
    }
    if imported > 0 {
        assert!(imported > 15, "{imported}");
        let verified = gapscan(&["ledger", "verify", "-L", &ledger]);
        assert_eq!(verified.status.code(), Some(0), "{verified:?}");
    }
}

/// A result of Grype's with so many critical matches.
fn grype(matches: usize, at: &str) -> String {
    let found: Vec<String> = (0..matches)
        .map(|n| {
            format!(
                "{{\"vulnerability\":{{\"id\":\"CVE-2026-{n}\",\"severity\":\"Critical\",\"namespace\":\"debian:distro:debian:12\"}},\
                 \"artifact\":{{\"name\":\"a\",\"version\":\"1\",\"type\":\"deb\",\"locations\":[]}}}}"
            )
        })
        .collect();
    format!(
        "{{\"matches\":[{}],\"source\":{{\"type\":\"image\",\"target\":{{\"userInput\":\"registry.example/a:1\"}}}},\
         \"distro\":{{\"name\":\"debian\",\"version\":\"12\"}},\"descriptor\":{{\"name\":\"grype\",\"version\":\"0.110.0\",\
         \"timestamp\":\"{at}\"}}}}",
        found.join(",")
    )
}

#[test]
fn everything_that_shows_an_import_says_so() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name).display().to_string();
    let ledger = path("ledger");
    fs::write(path("first.json"), grype(0, "2026-01-01T00:00:00Z")).expect("written");
    fs::write(path("second.json"), grype(2, "2026-01-02T00:00:00Z")).expect("written");
    let run = |arguments: &[&str]| gapscan(&[arguments, &["-L", &ledger]].concat());
    // What is wrong with one does not keep the others out.
    let output = run(&["import", &path("first.json"), &path("gone.json"), &path("second.json")]);
    assert_eq!(output.status.code(), Some(5), "{output:?}");
    // What a table wrapped is one line again.
    let text = |output: Output| {
        String::from_utf8(output.stdout).expect("UTF-8").split_whitespace().collect::<Vec<_>>().join(" ")
    };

    let results = text(run(&["results"]));
    for words in ["import:grype", "self-declared", "imported at", "second.json", "no-critical-vulnerabilities"] {
        assert!(results.contains(words), "{words}: {results}");
    }
    assert!(!results.contains("first.json"), "the later one is the latest: {results}");
    let history = text(run(&["history", "image/registry.example/a:1"]));
    assert!(history.contains("no-critical-vulnerabilities: failed, was not evaluated"), "{history}");
    assert!(text(run(&["history"])).contains("imported by uid "));
    let found = json(&run(&["results", "-o", "json"]));
    assert_eq!(found["results"][0]["provenance"]["imported"]["file"], "second.json");

    let html = text(run(&["export", "--format", "html"]));
    for words in ["Results were imported", "What was expected is not known", "second.json", "self-declared"] {
        assert!(html.contains(words), "{words}");
    }
    let hdf = json(&run(&["export", "--format", "hdf"]));
    assert_eq!(hdf["passthrough"]["gapscan"]["provenance"]["imported"]["expected"], "self-declared");
    assert_eq!(hdf["profiles"][0]["controls"][0]["tags"]["gapscan"]["imported"], "self-declared");
    let lines = String::from_utf8(run(&["export", "--format", "jsonl"]).stdout).expect("UTF-8");
    let mut findings = lines.lines().map(|line| serde_json::from_str::<Value>(line).expect("a line"));
    assert!(findings.any(|line| line["type"] == "finding" && line["imported"] == "self-declared"));

    // Who goes on with what died does not go on with an import.
    let resumed = run(&["scan", "--resume"]);
    assert_eq!(resumed.status.code(), Some(2), "{resumed:?}");
    let profile = run(&["import", &path("first.json"), "--profile", "grype", "--again", "-o", "json"]);
    assert_eq!(json(&profile)["imported"]["expected"], "profile");
    let future = run(&["import", &path("first.json"), "--at", "2999-01-01T00:00:00Z"]);
    assert_eq!(future.status.code(), Some(2), "{future:?}");
}
