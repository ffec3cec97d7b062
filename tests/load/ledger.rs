//! Beside a ledger: a state that was removed, or replaced by an older copy, is noticed where the ledger knows better.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::enclave::{Enclave, refused, success};

const LEDGER: [&str; 2] = ["--ledger", "ledger.sqlite"];

impl Enclave {
    /// Scans gapscan's own image with what was loaded, so that the ledger has a result of that version.
    fn scan(&self) {
        let registry = format!("{}/a", self.served.address);
        let image = format!("image/{registry}/images/gapscan:content");
        let scanned = self.gapscan(
            &[
                &["scan", "-q", &image, "--bundle", "content", "--root", "trust/root.json", "--plain-http"][..],
                &["--registry", &registry, "--state", "gapscan-state"],
                &LEDGER,
            ]
            .concat(),
        );
        // An image without a system in it leaves controls that were not evaluated.
        assert!(matches!(scanned.status.code(), Some(0 | 1 | 3)), "{scanned:?}");
    }

    /// The marking of a report on the latest results.
    fn marking(&self) -> Value {
        let exported = self.gapscan(&[&["export", "--format", "jsonl"], &LEDGER[..]].concat());
        success(&exported);
        let text = String::from_utf8(exported.stdout).expect("UTF-8");
        let head: Value = serde_json::from_str(text.lines().next().expect("a line")).expect("JSON");
        head["classification"].clone()
    }

    fn load_beside(&self, tar: &str, more: &[&str]) -> std::process::Output {
        self.load(&[&[tar, "-q"], &LEDGER[..], more].concat())
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder");
    for entry in fs::read_dir(from).expect("a folder") {
        let entry = entry.expect("an entry");
        let to = to.join(entry.file_name());
        match entry.file_type().expect("a type").is_dir() {
            true => copy(&entry.path(), &to),
            false => drop(fs::copy(entry.path(), &to).expect("a copy")),
        }
    }
}

#[test]
fn a_copied_an_older_and_a_deleted_state_are_noticed_and_mended_by_the_ledger() {
    let enclave = Enclave::new(4000);
    enclave.build(2, "classification: CUI\n", "out2.tar");
    enclave.build(3, "", "out3.tar");
    success(&enclave.load(&["out.tar"]));
    enclave.scan();
    copy(&enclave.path("gapscan-state"), &enclave.path("older"));
    assert_eq!(enclave.marking(), Value::Null);
    success(&enclave.load_beside("out2.tar", &[]));
    enclave.scan();
    assert_eq!(enclave.marking(), "CUI", "as the catalog says that was loaded");
    // Both know the same: an older bundle is an older bundle, and the same one is loaded again.
    success(&enclave.load_beside("out2.tar", &[]));
    refused(&enclave.load_beside("out.tar", &[]), 4, "version 2 was accepted before");

    // The state of another enclave, that never saw this bundle.
    let elsewhere = Enclave::new(100);
    success(&elsewhere.load(&["out.tar"]));
    let foreign = elsewhere.path("gapscan-state");

    let state = enclave.path("gapscan-state");
    let older = enclave.path("older");
    for (case, source) in
        [("an older copy", Some(&older)), ("a copy from elsewhere", Some(&foreign)), ("deleted", None)]
    {
        fs::remove_dir_all(&state).expect("removed");
        if let Some(source) = source {
            copy(source, &state);
        }
        let before = enclave.tags();
        for tar in ["out.tar", "out2.tar", "out3.tar"] {
            let output = enclave.load_beside(tar, &[]);
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!(output.status.code(), Some(4), "{case}, {tar}: {said}");
        }
        refused(&enclave.load_beside("out2.tar", &[]), 4, "--state-from-ledger");
        assert_eq!(enclave.tags(), before, "{case}: no tag moved");
        // A rehearsal ends as the load would.
        refused(&enclave.load_beside("out2.tar", &["--dry-run"]), 4, "--state-from-ledger");

        let from_ledger = ["--state-from-ledger"];
        refused(&enclave.load_beside("out.tar", &from_ledger), 4, "version 2");
        success(&enclave.load_beside("out2.tar", &from_ledger));
        // From then on the state knows it again, with the ledger and without.
        success(&enclave.load_beside("out2.tar", &[]));
        refused(&enclave.load_beside("out.tar", &[]), 4, "version 2 was accepted before");
        refused(&enclave.load(&["out.tar", "-q"]), 4, "version 2 was accepted before");
        assert_eq!(enclave.tags(), before, "{case}: no tag moved");
    }

    // That it is the ledger which notices: without it, an older copy of the state lets the older bundle in.
    fs::remove_dir_all(&state).expect("removed");
    copy(&older, &state);
    success(&enclave.load(&["out.tar", "-q"]));
}

#[test]
fn a_ledger_that_can_not_be_asked_stops_the_load() {
    let enclave = Enclave::new(100);
    refused(&enclave.load(&["out.tar", "--state-from-ledger"]), 2, "--ledger");
    let output = enclave.load_beside("out.tar", &[]);
    assert_eq!(output.status.code(), Some(5), "{output:?}");
    assert!(!enclave.path("ledger.sqlite").exists(), "none is made");
    assert!(enclave.tags().values().all(Vec::is_empty));
}
