//! The whole output for a small result of each format, and what a hostile one does to a terminal and to this machine.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::{gapscan, read};

/// The samples, with the exit code that reading each has.
const SAMPLES: [(&str, i32); 12] = [
    ("arf.xml", 3),
    ("clair.json", 3),
    ("cyclonedx.json", 3),
    ("falco.jsonl", 3),
    ("grype.json", 3),
    ("inspec.json", 3),
    ("junit.xml", 3),
    ("kube-bench.json", 3),
    ("sarif.json", 3),
    ("spdx.json", 0),
    ("syft.json", 0),
    ("trivy.json", 3),
];

fn sample(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/results").join(name)
}

/// What docs/formats.md describes, in full.
#[test]
fn the_json_of_each_format_is_as_it_was() {
    for (name, code) in SAMPLES {
        let path = sample(name);
        let output = gapscan(&[&path.display().to_string(), "-o", "json"]);
        assert_eq!(output.status.code(), Some(code), "{name}");
        let mut said: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        said["file"] = name.into();
        let format = said["format"].as_str().expect("a word").to_owned();
        insta::assert_json_snapshot!(format, said);
        assert!(!String::from_utf8_lossy(&output.stdout).contains("hunter2"), "{name}: secrets stay in the file");
    }
}

#[test]
fn the_json_of_each_format_has_the_same_keys() {
    let keys =
        |name: &str| -> Vec<String> { read(&sample(name)).as_object().expect("an object").keys().cloned().collect() };
    let first = keys(SAMPLES[0].0);
    for (name, _) in SAMPLES {
        assert_eq!(keys(name), first, "{name}");
    }
}

#[test]
fn no_name_steers_the_terminal() {
    for (name, code) in SAMPLES {
        let output = gapscan(&[&sample(name).display().to_string()]);
        assert_eq!(output.status.code(), Some(code), "{name}");
        let shown = String::from_utf8(output.stdout).expect("UTF-8");
        let steers =
            |c: char| (c.is_control() && c != '\n') || matches!(c, '\u{200e}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        assert!(!shown.chars().any(steers), "{name}: {shown}");
        assert!(
            shown.contains("\\u{1b}") || shown.contains("\\u{202e}"),
            "{name} has something to neutralise: {shown}"
        );
        assert!(!shown.contains("hunter2"), "{name}");
    }
}

#[test]
fn ten_gibibytes_are_refused_unread() {
    let folder = tempfile::tempdir().expect("a folder");
    for name in ["zeros", "begins-well"] {
        let path = folder.path().join(name);
        if name == "begins-well" {
            fs::copy(sample("trivy.json"), &path).expect("a file");
        }
        // It has that length and takes no room.
        let file = File::options().write(true).create(true).truncate(false).open(&path).expect("a file");
        file.set_len(10 << 30).expect("a length");
        for format in [&["-o", "json"][..], &["--format", "trivy"]] {
            let output = gapscan(&[&[path.to_str().expect("UTF-8")], format].concat());
            let message = String::from_utf8(output.stderr).expect("UTF-8");
            assert_eq!((output.status.code(), output.stdout.len()), (Some(3), 0), "{message}");
            assert!(message.contains("larger than 1073741824 bytes"), "{message}");
        }
    }
}

#[test]
fn several_files_say_the_worst() {
    let [good, open] = ["syft.json", "trivy.json"].map(|name| sample(name).display().to_string());
    assert_eq!(gapscan(&[&good, &good]).status.code(), Some(0));
    assert_eq!(gapscan(&[&good, &open]).status.code(), Some(3));
    assert_eq!(gapscan(&[&open, &good, "-o", "json"]).status.code(), Some(3));
    let absent = sample("absent.json").display().to_string();
    let output = gapscan(&[&good, &absent, "-o", "json"]);
    assert_eq!(output.status.code(), Some(5));
    let said: Value = serde_json::from_slice(&output.stdout).expect("what could be read is said");
    assert_eq!(said["format"], "syft");
    let few: Value = serde_json::from_slice(&gapscan(&[&open, "-o", "json", "--list", "1"]).stdout).expect("JSON");
    assert_eq!(few["findingList"].as_array().map(Vec::len), Some(1));
    assert_eq!(few["findings"]["total"], 10, "all are counted");
}
