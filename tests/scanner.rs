//! Scanner definitions on the command line: listed, checked and tried without a cluster.

use std::fs;
use std::path::{Path, PathBuf};

use assert_cmd::Command;
use serde_json::Value;

fn shipped(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("bundle/scanners").join(name)
}

/// What `gapscan ARGUMENTS` prints, after this exit code.
fn gapscan<S: AsRef<std::ffi::OsStr>>(arguments: &[S], code: i32) -> (String, String) {
    let output =
        Command::cargo_bin("gapscan").expect("the binary").args(arguments).assert().code(code).get_output().clone();
    (String::from_utf8(output.stdout).expect("UTF-8"), String::from_utf8(output.stderr).expect("UTF-8"))
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).expect("JSON")
}

#[test]
fn what_ships_is_listed_and_can_be_shown_as_pods() {
    let folder = shipped("");
    let (out, err) = gapscan(&["scanner", "list", folder.to_str().expect("UTF-8"), "-o", "json"], 0);
    assert_eq!(err, "");
    let names: Vec<String> = json(&out)
        .as_array()
        .expect("a list")
        .iter()
        .map(|one| format!("{}.yaml", one["name"]).replace('"', ""))
        .collect();
    let mut files: Vec<String> = std::fs::read_dir(&folder)
        .expect("a folder")
        .map(|entry| entry.expect("an entry").file_name().into_string().expect("UTF-8"))
        .collect();
    files.sort();
    assert_eq!(names, files);
    let openscap = shipped("openscap.yaml");
    let (out, _) = gapscan(&["scanner", "test", openscap.to_str().expect("UTF-8"), "--show", "pod"], 0);
    for part in [
        "# image",
        "# node",
        "# exec",
        "# debug",
        "# sidecar",
        "OPENSCAP",
        "${profile}",
        "--version-word=oscap",
        "DAC_READ_SEARCH",
    ] {
        assert!(out.contains(part), "{part}: {out}");
    }
}

#[test]
fn all_that_is_wrong_with_definitions_is_told_line_by_line() {
    let folder = tempfile::tempdir().expect("a folder");
    let text = fs::read_to_string(shipped("grype.yaml")).expect("it ships");
    fs::write(folder.path().join("a.yaml"), text.replace("cpu: \"1\"", "cpu: none\ncpus: 2")).expect("written");
    fs::write(folder.path().join("b.yaml"), "kind: Plan\n").expect("written");
    fs::write(folder.path().join("c.yaml"), text).expect("written");
    let (out, err) = gapscan(&["scanner", "list", folder.path().to_str().expect("UTF-8")], 2);
    assert!(out.contains("grype") && !out.contains("Plan"), "{out}");
    let lines: Vec<&str> = err.lines().filter(|line| line.contains("a.yaml: line ")).collect();
    assert!(
        matches!(lines[..], [cpu, cpus] if cpu.contains(": cpu: `none`") && cpus.contains(": cpus: there is no")),
        "{err}"
    );
}

#[test]
fn schemas_are_printed_for_editors() {
    for kind in ["scanner", "bundle"] {
        let schema = json(&gapscan(&["schema", kind], 0).0);
        assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
        assert!(schema["properties"]["name"]["description"].is_string() && schema["additionalProperties"] == false);
    }
}

#[test]
fn a_result_is_tried_with_its_exit_code() {
    let folder = tempfile::tempdir().expect("a folder");
    let result = folder.path().join("r.json");
    let control = |id: &str, status: &str| {
        serde_json::json!({ "id": id, "title": id, "impact": 0.5, "tags": {},
            "results": [{ "status": status, "code_desc": "it is" }] })
    };
    let document = serde_json::json!({
        "platform": { "name": "debian", "release": "12" }, "statistics": { "duration": 1.0 }, "version": "6.8.1",
        "profiles": [{ "name": "p", "sha256": "x", "status": "loaded",
            "controls": [control("a", "passed"), control("b", "failed")] }],
    });
    fs::write(&result, document.to_string()).expect("written");
    let definition = shipped("cinc-auditor.yaml");
    let tried = |code: &str, exits: i32| {
        let words =
            ["scanner", "test", definition.to_str().expect("UTF-8"), "-o", "json", "--exit-code", code, "--result"];
        json(&gapscan(&[&words[..], &[result.to_str().expect("UTF-8")]].concat(), exits).0)
    };
    let found = tried("100", 0);
    assert_eq!((&found["meaning"], &found["coverage"]["passed"]), (&"findings".into(), &1.into()), "{found}");
    let clean = tried("0", 3);
    assert_eq!((&clean["coverage"]["passed"], &clean["coverage"]["failed"]), (&0.into(), &1.into()), "{clean}");
    assert_eq!(clean["findings"][0]["reason"], "exit-contradicted", "{clean}");
    assert_eq!(tried("102", 3)["refused"]["reason"], "scanner-failed");
    assert_eq!(tried("7", 3)["refused"]["reason"], "scanner-failed");
}

/// What InSpec and OpenSCAP really left, with the exit codes that they really ended with.
#[test]
fn real_results_agree_with_their_exit_codes() {
    let Some(corpus) = std::env::var_os("GAPSCAN_TEST_CORPUS").map(PathBuf::from) else {
        println!("skipped: needs GAPSCAN_TEST_CORPUS");
        return;
    };
    for (definition, file, code, contradicted) in [
        ("cinc-auditor", "inspec/passed-only.json", "0", false),
        ("cinc-auditor", "inspec/skipped-only.json", "101", false),
        ("cinc-auditor", "inspec/k8s-node-stig-live.json", "100", false),
        ("cinc-auditor", "inspec/waived.json", "100", false),
        ("cinc-auditor", "inspec/k8s-node-stig-live.json", "0", true),
        ("cinc-auditor", "inspec/passed-only.json", "100", true),
        ("cinc-auditor", "inspec/no-control-matched.json", "0", true),
    ] {
        let path = corpus.join(file);
        if !path.exists() {
            println!("skipped: needs {file}");
            continue;
        }
        let definition = shipped(&format!("{definition}.yaml"));
        let mut command = Command::cargo_bin("gapscan").expect("the binary");
        command
            .args(["scanner", "test", "-o", "json", "--exit-code", code])
            .arg(&definition)
            .arg("--result")
            .arg(&path);
        let output = command.output().expect("it runs");
        let trial = json(std::str::from_utf8(&output.stdout).expect("UTF-8"));
        let told = trial["notes"].to_string().contains("contradict");
        assert_eq!(told, contradicted, "{file} with {code}: {} {}", trial["notes"], trial["coverage"]);
        assert!(trial.get("refused").is_none(), "{file}: {}", trial["refused"]);
    }
}
