//! A result that the scanner's pod sends is the one that would have been fetched, and nobody got the right to run commands in it.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::enclave::enclave;
use crate::lab::lab;

/// The outcome of each control.
fn outcomes(lines: &[Value]) -> BTreeMap<String, String> {
    let findings = lines.iter().filter(|line| line["type"] == "finding");
    findings.map(|line| (line["control"].to_string(), line["outcome"].to_string())).collect()
}

#[test]
fn a_result_that_is_sent_is_the_one_that_would_be_fetched() {
    let Some(lab) = lab() else { return };
    let enclave = enclave(lab);
    let image = format!("image/{}/lab/web:1", lab.var("REGISTRY"));
    // The registry is at the node's own address, at which pods reach the enclave.
    let (node, _) = lab.var("REGISTRY").rsplit_once(':').expect("it has a port");
    let port = 20_000 + std::process::id() % 10_000;
    let address = format!("{node}:{port}");
    let scan = |ledger: &str, more: &[&str]| {
        let mut arguments = vec![image.as_str(), "-e", "openscap", "--fail-on", "never"];
        arguments.extend(more);
        enclave.scan(lab, ledger, &arguments)
    };
    let fetched = scan("fetched.sqlite", &[]);
    let mark = lab.audit_length();
    let sent = scan("sent.sqlite", &["--upload-address", &address]);
    assert_eq!(fetched.code, sent.code, "{}", sent.stderr);
    let (one, other) = (enclave.lines(lab, "fetched.sqlite"), enclave.lines(lab, "sent.sqlite"));
    let (one, other_outcomes) = (outcomes(&one), outcomes(&other));
    assert!(one.values().filter(|outcome| outcome.contains("passed")).count() > 10, "{one:?}");
    assert_eq!(one, other_outcomes);

    let task = other.iter().find(|line| line["type"] == "task").expect("a task");
    assert!(task["notes"].to_string().contains("came by upload"), "{task}");
    assert!(task["provenance"]["identity"].is_null(), "nobody was needed to fetch it: {task}");
    let cleanup = &task["provenance"]["cleanup"];
    let created = cleanup["created"].to_string();
    assert!(created.contains("networkpolicy/") && created.contains("secret/"), "{created}");
    assert!(cleanup.get("remaining").is_none(), "{cleanup}");
    // Nobody ran a command in a pod of the run.
    let execs = lab.audit(mark).into_iter().filter(|entry| {
        entry["objectRef"]["subresource"] == "exec"
            && entry["objectRef"]["name"].as_str().is_some_and(|name| name.starts_with("scan-"))
            && created.contains(entry["objectRef"]["namespace"].as_str().unwrap_or("-"))
    });
    assert_eq!(execs.count(), 0);
    assert!(!lab.kubectl(&["get", "networkpolicies", "-A"]).contains("upload-"));
}
