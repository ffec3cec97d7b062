//! A scanner that wants to talk to somebody: it gets through to nobody, and that it tried is a finding.

use std::fs;

use serde_json::Value;

use crate::enclave::findings;
use crate::lab::{Lab, Ran, lab};

const NAME: &str = "caller";

/// What the scanner leaves as its result: nothing critical was found, and something was.
const RESULT: &str = r#"{"descriptor":{"name":"grype"},"distro":{"name":"debian"},"matches":[{"vulnerability":{"id":"CVE-1","severity":"Low","namespace":"debian:distro:debian:12"},"artifact":{"name":"a"}}]}"#;

/// A bundle with a scanner that runs this script before it leaves its result.
fn bundle(lab: &Lab, folder: &str, script: &str) {
    fs::create_dir_all(format!("{folder}/{NAME}")).expect("a folder");
    let command = serde_json::to_string(&["/bin/sh", "-c", &format!("{script}; echo '{RESULT}' > /results/r.json")]);
    let scanner = format!(
        "apiVersion: gapscan/v1\nkind: Scanner\nname: {NAME}\ntitle: A scanner that calls\nimage: busybox\n\
         approaches: {{image: {{mount: /target, command: {}}}}}\n\
         result: {{path: r.json, format: grype}}\nexitCodes: {{0: complete}}\n\
         deadline: 2m\nmemory: 64Mi\ncpu: '1'\n",
        command.expect("it is text")
    );
    let profile = format!(
        "apiVersion: gapscan/v1\nkind: Profile\nname: {NAME}\nversion: '1'\ntitle: Sample\nengine: {NAME}\ntargets: [image]\n\
         controls:\n- {{id: no-critical-vulnerabilities, title: A, description: A, check: A, fix: A, severity: high}}\n"
    );
    let upstream = lab.var("UPSTREAM");
    let definition = format!(
        "apiVersion: gapscan/v1\nkind: Bundle\nname: {NAME}\nversion: 1\nvalidFor: 30d\n\
         registries: {{'{upstream}': {{caFile: {}}}}}\nimages:\n- {{name: busybox, from: '{upstream}/lab/busybox:1'}}\n\
         scanners: [{folder}/scanner.yaml]\nprofiles: [{{path: {folder}/{NAME}}}]\n",
        lab.ca().display()
    );
    fs::write(format!("{folder}/scanner.yaml"), scanner).expect("written");
    fs::write(format!("{folder}/{NAME}/profile.yaml"), profile).expect("written");
    fs::write(format!("{folder}/bundle.yaml"), definition).expect("written");
}

/// Carries the bundle over the gap and scans an image by it.
fn scan(lab: &Lab, folder: &str) -> (Ran, Vec<Value>) {
    let file = |name: &str| format!("{folder}/{name}");
    let ca = lab.ca().display().to_string();
    let registry = format!("{}/{NAME}", lab.var("REGISTRY"));
    lab.outside(&["trust", "init", &file("trust"), "--unencrypted"]).exits(0);
    lab.outside(&["bundle", "lock", "-f", &file("bundle.yaml")]).exits(0);
    let build = ["bundle", "build", "-f", &file("bundle.yaml"), "--keys", &file("trust"), "-o", &file("b.tar")];
    lab.outside(&build).exits(0);
    let trusted = ["--root", &file("trust/root.json"), "--registry", &registry, "--ca", &ca, "--state", &file("state")];
    lab.inside(&[&["load", &file("b.tar")], &trusted[..]].concat()).exits(0);
    let target = format!("image/{}/lab/web:1", lab.var("REGISTRY"));
    let ledger = file("ledger.sqlite");
    let ran =
        lab.inside(&[&["scan", &target, "--bundle", NAME, "--ledger", &ledger, "-e", NAME], &trusted[..]].concat());
    let lines = lab.inside(&["export", "--format", "jsonl", "--ledger", &ledger]).exits(0).stdout;
    (ran, lines.lines().map(|line| serde_json::from_str(line).expect("each line is JSON")).collect())
}

#[test]
fn a_scanner_that_calls_somebody_is_found_out() {
    let Some(lab) = lab() else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path().display().to_string();
    let node = lab.var("LAB_NODE_IP");
    // The policy drops what it sends, so that it waits for an answer for as long as it is let.
    bundle(lab, &folder, &format!("/bin/timeout 3 /bin/nc {node} 6443 < /dev/null; true"));
    let (ran, lines) = scan(lab, &folder);
    let found = findings(&lines, "image/", "gapscan-network-silent");
    assert_eq!(found.len(), 1, "{}", ran.stderr);
    assert_eq!(found[0]["outcome"], "failed", "{}", found[0]);
    assert_eq!(found[0]["details"][0]["subject"], format!("tcp {node}:6443"), "{}", found[0]);
    assert!(found[0]["details"][0]["message"].to_string().contains("did not answer"), "{}", found[0]);
    let task = lines.iter().find(|l| l["type"] == "task").expect("a task");
    assert!(task["notes"].to_string().contains("did not keep to itself"), "{task}");
    // What it said of its target stands.
    assert_eq!(findings(&lines, "image/", "no-critical-vulnerabilities")[0]["outcome"], "passed");
}
