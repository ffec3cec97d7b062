//! In parts, rehearsed, and with its receipt.

use std::fs;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::enclave::{Enclave, Served, message, success};

#[test]
fn parts_on_two_media_are_loaded_in_any_order_and_a_missing_one_is_named() {
    let enclave = Enclave::new(30_000);
    let count = enclave.cut(8192);
    // One that has neither the metadata nor the end.
    let number = count - 3;
    let part = format!("media-{}/out.tar.{number:03}", (number - 1) % 2);
    fs::rename(enclave.path(&part), enclave.path("kept")).expect("taken out");
    let output = enclave.load(&["media-1", "media-0"]);
    assert_eq!(output.status.code(), Some(5), "{}", message(&output));
    let text = message(&output);
    assert!(text.contains(&format!("missing: part {number} of {count}")), "{text}");
    assert!(text.contains(&format!("bring part {number} again")) && text.contains("not whole:"), "{text}");
    assert!(enclave.tags().values().all(Vec::is_empty));
    assert!(!enclave.path("gapscan-state/receipts").exists(), "no receipt of what did not come to its end");

    let rehearsed = enclave.load(&["media-1", "media-0", "--dry-run"]);
    assert_eq!(rehearsed.status.code(), Some(5), "{}", message(&rehearsed));
    fs::rename(enclave.path("kept"), enclave.path(&part)).expect("put in");
    let output = enclave.load(&["media-1", "media-0/out.tar.001", &part, "media-0"]);
    success(&output);
    assert!(enclave.tags().values().all(|tags| tags == &["content", "content.1"]), "{:?}", enclave.tags());
}

#[test]
fn parts_in_a_pipe_are_the_whole() {
    let enclave = Enclave::new(20_000);
    let count = enclave.cut(4096);
    let names: Vec<String> = (0..count).map(|at| format!("media-{}/out.tar.{:03}", at % 2, at + 1)).collect();
    let mut cat = Command::new("cat")
        .current_dir(enclave.folder.path())
        .args(&names)
        .stdout(Stdio::piped())
        .spawn()
        .expect("cat");
    let output = enclave.load_command(&["-"]).stdin(cat.stdout.take().expect("a pipe")).output().expect("gapscan runs");
    cat.wait().expect("cat ended");
    success(&output);
}

#[test]
fn a_load_leaves_a_signed_receipt_each_time() {
    let enclave = Enclave::new(20_000);
    let output = enclave.load(&["out.tar", "--receipt", "copy"]);
    success(&output);
    let text = message(&output);
    let registry = enclave.served.address.replace(':', "=");
    let place = format!("gapscan-state/receipts/content.1.{registry}+a.receipt");
    assert!(text.contains(&format!("receipt: {place}\n")), "{text}");
    assert!(text.contains("runner's public key: gapscan-state/runner.pub"), "{text}");
    let receipt = enclave.path(&place);
    assert_eq!(fs::read(&receipt).expect("it"), fs::read(enclave.path("copy")).expect("its copy"));
    let shown = enclave.gapscan(&["bundle", "receipt", "copy", "--key", "gapscan-state/runner.pub", "-o", "json"]);
    success(&shown);
    let first: Value = serde_json::from_slice(&shown.stdout).expect("JSON");
    assert_eq!(first["kind"], "LoadReceipt");
    assert_eq!(first["sources"][0], "out.tar");
    assert!(first["blobs"].as_array().is_some_and(|blobs| !blobs.is_empty()));

    let again = enclave.load(&["out.tar"]);
    success(&again);
    assert!(!message(&again).contains("runner's public key"), "it is said once");
    let shown = enclave.gapscan(&["bundle", "receipt", &place, "--key", "gapscan-state/runner.pub", "-o", "json"]);
    let second: Value = serde_json::from_slice(&shown.stdout).expect("JSON");
    let digests = |receipt: &Value| -> Vec<Value> {
        receipt["blobs"].as_array().expect("blobs").iter().map(|blob| blob["digest"].clone()).collect()
    };
    assert_eq!(digests(&first), digests(&second), "a full one");
    let outcomes = |receipt: &Value| -> Vec<Value> {
        let blobs = receipt["blobs"].as_array().expect("blobs").iter();
        blobs
            .flat_map(|blob| blob["repositories"].as_object().expect("places").values().cloned().collect::<Vec<_>>())
            .collect()
    };
    assert!(outcomes(&second).iter().all(|outcome| outcome == "present"), "{second}");

    success(&enclave.gapscan(&["trust", "init", "another", "--unencrypted"]));
    let table = enclave.gapscan(&["bundle", "receipt", "copy", "--key", "gapscan-state/runner.pub"]);
    assert!(String::from_utf8_lossy(&table.stdout).contains("dependencies/db"), "{table:?}");
}

#[test]
fn a_dry_run_prints_what_would_happen_and_writes_nothing() {
    let enclave = Enclave::new(20_000);
    let output = enclave.load(&["out.tar", "--dry-run", "-o", "json"]);
    success(&output);
    let found: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert!(found["blobs"]["push"].as_u64().is_some_and(|push| push > 0), "{found}");
    assert!(!enclave.path("gapscan-state").exists(), "the state is untouched");
    assert!(enclave.tags().values().all(Vec::is_empty));
    let table = enclave.load(&["out.tar", "--dry-run"]);
    assert!(String::from_utf8_lossy(&table.stdout).contains("nothing was written"), "{table:?}");
}

#[test]
fn loads_into_two_registries_leave_two_receipts() {
    let enclave = Enclave::new(10_000);
    let other = Served::start(&enclave.path("other-registry"));
    success(&enclave.load(&["out.tar"]));
    let receipts = || -> Vec<(String, Vec<u8>)> {
        let folder = fs::read_dir(enclave.path("gapscan-state/receipts")).expect("a folder");
        let paths = folder.map(|entry| entry.expect("an entry").path());
        let mut all: Vec<_> =
            paths.map(|path| (path.display().to_string(), fs::read(&path).expect("a receipt"))).collect();
        all.sort();
        all
    };
    let first = receipts();
    success(&enclave.load_command_into(&other, &["out.tar"]).output().expect("gapscan runs"));
    let both = receipts();
    assert_eq!((first.len(), both.len()), (1, 2));
    assert!(both.contains(&first[0]), "the first is as it was");
    for (path, _) in both {
        let shown = enclave.gapscan(&["bundle", "receipt", &path, "--key", "gapscan-state/runner.pub", "-o", "json"]);
        success(&shown);
        let receipt: Value = serde_json::from_slice(&shown.stdout).expect("JSON");
        let registry = receipt["registry"].as_str().expect("a registry").replace(':', "=").replace('/', "+");
        assert!(path.ends_with(&format!("/content.1.{registry}.receipt")), "{path}");
    }
}
