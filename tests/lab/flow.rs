//! The main job: a bundle crosses the gap, the whole cluster is scanned, and the record says what is true of it.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::enclave::{assert_not_evaluated, enclave, findings};
use crate::lab::lab;

#[test]
fn a_cluster_is_scanned_and_reported_on() {
    let Some(lab) = lab() else { return };
    let enclave = enclave(lab);
    let mark = lab.audit_length();

    let ran = enclave.scan(lab, "all.sqlite", &["--all"]);
    // Some files may not be read by those who run there, and one image has no package database: that is not green.
    assert_eq!(ran.code, 3, "{}", ran.stderr);

    let lines = enclave.lines(lab, "all.sqlite");
    let failed = |target: &str, control: &str, subject: &str| {
        let found = findings(&lines, target, control);
        assert!(!found.is_empty(), "{control} of {target} is not in the record");
        for line in found {
            assert_eq!(line["outcome"], "failed", "{line}");
            assert!(line["details"].to_string().contains(subject), "{subject} is not named: {line}");
        }
    };
    let web_image = format!("image/{}/lab/web@", lab.var("REGISTRY"));
    for target in ["pod/shop/web-", web_image.as_str()] {
        let target = if target.starts_with("pod") { web_container(&lines) } else { target.to_owned() };
        failed(&target, &control_about(&lines, &target, "world-writable"), "/etc/lab-world-writable");
        failed(&target, &control_about(&lines, &target, "setuid"), "/usr/local/bin/lab-setuid-id");
    }
    failed("cluster", &control_about(&lines, "cluster", "privileged"), "shop/legacy");
    failed("cluster", &control_about(&lines, "cluster", "host-namespaces"), "shop/legacy");
    // Without a shell, and in `vault` under the restricted standard, containers are looked at from beside them.
    for (target, container) in [("pod/shop/api-0/api", "api"), ("pod/vault/keeper/keeper", "keeper")] {
        let task = lines.iter().find(|l| l["type"] == "task" && l["target"]["container"] == container);
        let task = task.unwrap_or_else(|| panic!("{target} is not in the record"));
        assert_eq!(task["provenance"]["approach"], "debug", "{task}");
        assert_eq!(task["coverage"]["notEvaluated"], 0, "{task}");
        let notes = task["notes"].to_string();
        assert!(notes.contains("no-shell") && notes.contains("stays in the pod's status"), "{notes}");
    }
    // With exec alone they are not evaluated, and not green.
    let ran = enclave.scan(lab, "exec.sqlite", &["ns/vault", "--approach", "exec"]);
    assert_eq!(ran.code, 3, "{}", ran.stderr);
    assert_not_evaluated(&enclave.lines(lab, "exec.sqlite"), "pod/vault/keeper/keeper", &["no-shell"]);

    // The canary saw the network policies enforced before anything ran, and all that was made is gone.
    for task in lines.iter().filter(|l| l["type"] == "task" && l["target"]["kind"] == "container") {
        assert_eq!(task["provenance"]["network"]["enforced"], true, "{task}");
        if task["provenance"]["identity"].is_string() {
            assert!(task["provenance"]["cleanup"].get("remaining").is_none(), "{task}");
        }
    }
    assert!(lines.iter().any(|l| l["type"] == "event" && l["what"] == "cleanup-verified"));
    assert!(!lab.kubectl(&["get", "ns"]).contains("gapscan-"));
    let left =
        lab.kubectl(&["get", "role,rolebinding,sa", "-A", "-l", "app.kubernetes.io/managed-by=gapscan", "-o", "name"]);
    assert_eq!(left.trim(), "", "objects were left");
    let left = lab.kubectl(&[
        "get",
        "clusterrole,clusterrolebinding",
        "-l",
        "app.kubernetes.io/managed-by=gapscan",
        "-o",
        "name",
    ]);
    assert_eq!(left.trim(), "", "objects were left");

    audit(&lab.audit(mark));
    lab.inside(&["ledger", "verify", "--ledger", &enclave.file("all.sqlite")]).exits(0);
    lab.inside(&["results", "--ledger", &enclave.file("all.sqlite")]).exits(0);
    lab.inside(&["history", "--ledger", &enclave.file("all.sqlite")]).exits(0);
    lab.inside(&[
        "export",
        "--format",
        "html",
        "--ledger",
        &enclave.file("all.sqlite"),
        "-o",
        &enclave.file("all.html"),
    ])
    .exits(0);
    lab.inside(&["export", "--format", "hdf", "--ledger", &enclave.file("all.sqlite"), "-o", &enclave.file("hdf")])
        .exits(0);
    hdf_is_understood(&enclave.path.join("hdf"), &lines);
}

/// The HDF files are valid by the schemas of their makers, and the SAF CLI counts what the ledger counts.
fn hdf_is_understood(folder: &Path, lines: &[Value]) {
    let files: Vec<PathBuf> =
        std::fs::read_dir(folder).expect("the folder is there").map(|e| e.expect("it can be listed").path()).collect();
    assert_eq!(files.len(), lines.iter().filter(|l| l["type"] == "task").count(), "one file for each result");
    match std::env::var_os("GAPSCAN_TEST_SCHEMAS") {
        None => println!("skipped: needs the schemas (GAPSCAN_TEST_SCHEMAS)"),
        Some(schemas) => {
            for name in ["inspec-exec-json-strict.schema.json", "inspecjs-exec-json.schema.json"] {
                let ran = Command::new("python3")
                    .args(["-m", "jsonschema"])
                    .args(files.iter().flat_map(|file| [OsStr::new("-i"), file.as_os_str()]))
                    .arg(Path::new(&schemas).join(name))
                    .output()
                    .expect("python3 runs");
                assert!(ran.status.success(), "{name}: {}", String::from_utf8_lossy(&ran.stderr));
            }
        }
    }
    let total = |name: &str, summary: &Value| summary[0][name]["total"].as_u64().unwrap_or_else(|| panic!("{summary}"));
    let (mut passed, mut failed, mut skipped, mut no_impact) = (0, 0, 0, 0);
    for file in &files {
        let arguments = ["view", "summary", "--stdout", "--format", "json", "--logLevel", "error", "-i"];
        let Ok(ran) = Command::new("saf").args(arguments).arg(file).output() else {
            println!("skipped: needs saf");
            return;
        };
        let text = String::from_utf8_lossy(&ran.stdout);
        let start = text.find('[').unwrap_or_else(|| panic!("saf says nothing of {}: {text}", file.display()));
        let summary: Value = serde_json::from_str(&text[start..]).expect("saf prints JSON");
        passed += total("passed", &summary);
        failed += total("failed", &summary);
        skipped += total("skipped", &summary);
        no_impact += total("no_impact", &summary);
    }
    let coverage = &lines[0]["coverage"];
    let counted = |name: &str| coverage[name].as_u64().expect("a count");
    assert_eq!(
        (passed, failed, skipped, no_impact),
        (counted("passed"), counted("failed"), counted("notEvaluated"), counted("notApplicable"))
    );
}

/// The target key of one container that runs the image `web`.
fn web_container(lines: &[Value]) -> String {
    lines
        .iter()
        .filter(|l| l["type"] == "finding")
        .filter_map(|l| l["target"].as_str())
        .find(|t| t.starts_with("pod/shop/web-") && t.ends_with("/web"))
        .expect("a web pod was scanned")
        .to_owned()
}

/// The id of the control whose name has this word in it, for a target.
fn control_about(lines: &[Value], target: &str, word: &str) -> String {
    let ids: BTreeSet<&str> = lines
        .iter()
        .filter(|l| l["type"] == "finding" && l["target"].as_str().is_some_and(|t| t.starts_with(target)))
        .filter_map(|l| l["control"].as_str())
        .filter(|id| id.contains(word))
        .collect();
    ids.first().unwrap_or_else(|| panic!("no control about {word} for {target}")).to_string()
}

/// What the API server saw: no request for secrets, every exec by an identity of one scan, and no such identity afterwards.
fn audit(log: &[Value]) {
    let ours: Vec<&Value> =
        log.iter().filter(|l| l["userAgent"].as_str().is_some_and(|a| a.contains("gapscan"))).collect();
    assert!(!ours.is_empty(), "the audit log shows nothing of gapscan");
    for line in log {
        let resource = line["objectRef"]["resource"].as_str();
        let user = line["user"]["username"].as_str().unwrap_or_default();
        let by_gapscan = line["userAgent"].as_str().is_some_and(|a| a.contains("gapscan")) || user.contains("gapscan-");
        assert!(!(by_gapscan && resource == Some("secrets")), "a secret was asked for: {line}");
        if by_gapscan && line["objectRef"]["subresource"] == "exec" {
            assert!(user.starts_with("system:serviceaccount:gapscan-"), "an exec by somebody else: {line}");
        }
    }
    let execs = log.iter().filter(|l| l["objectRef"]["subresource"] == "exec").count();
    assert!(execs > 0, "the audit log shows no exec");
}

#[test]
fn openscap_and_grype_scan_an_image_in_jobs() {
    let Some(lab) = lab() else { return };
    let enclave = enclave(lab);
    let image = format!("image/{}/lab/web:1", lab.var("REGISTRY"));

    let ran = enclave.scan(lab, "jobs.sqlite", &[&image, "--engine", "openscap", "--engine", "grype"]);
    let lines = enclave.lines(lab, "jobs.sqlite");
    let outcomes = |engine: &str, outcome: &str| {
        lines.iter().filter(|l| l["type"] == "finding" && l["engine"] == engine && l["outcome"] == outcome).count()
    };
    // OpenSCAP ran as a user who may not read all of the image, which is not evaluated, and said so.
    assert_eq!(ran.code, 3, "{}", ran.stderr);
    assert!(outcomes("openscap", "passed") > 0 && outcomes("openscap", "failed") > 0);
    for engine in ["openscap", "grype"] {
        assert_eq!(outcomes(engine, "not-evaluated"), 1, "only that {engine} could not read all of it");
    }
    for line in findings(&lines, "image/", "gapscan-target-read-whole") {
        assert_eq!(line["reason"], "unreadable-paths", "{line}");
    }
    let critical = findings(&lines, "image/", "no-critical-vulnerabilities");
    assert_eq!(critical.len(), 1);
    assert_eq!(critical[0]["outcome"], "failed");
    assert_eq!(critical[0]["details"].as_array().map(Vec::len), Some(3), "{}", critical[0]);
    for task in lines.iter().filter(|l| l["type"] == "task") {
        assert!(task["provenance"]["engine"]["image"].is_string(), "{task}");
        assert!(task["provenance"]["bundle"]["digest"].is_string(), "{task}");
        assert!(task["target"]["digest"].is_string(), "{task}");
    }
    lab.inside(&["ledger", "verify", "--ledger", &enclave.file("jobs.sqlite")]).exits(0);
}
