//! A node is looked at by a Job on it, which leaves nothing; one that is closed to it is not evaluated.

use std::collections::BTreeSet;

use gapscan::ledger::LedgerReader;
use gapscan::native::facts::SystemFacts;
use serde_json::Value;

use crate::enclave::{Enclave, assert_not_evaluated, enclave, findings};
use crate::lab::{Lab, lab};

const NODE: &str = "lab";
const TAINT: &str = "gapscan.test/closed";

/// The node with a taint, until it is dropped.
struct Tainted(&'static Lab);

impl Tainted {
    fn new(lab: &'static Lab) -> Self {
        let tainted = Self(lab);
        lab.kubectl(&["taint", "node", NODE, &format!("{TAINT}=yes:NoSchedule"), "--overwrite"]);
        tainted
    }
}

impl Drop for Tainted {
    fn drop(&mut self) {
        // Also when the test panics, which another panic would only hide.
        let _ = self.0.command("kubectl").args(["taint", "node", NODE, &format!("{TAINT}-")]).output();
    }
}

fn task<'a>(lines: &'a [Value], engine: &str) -> &'a Value {
    let is_it = |l: &&Value| l["type"] == "task" && l["provenance"]["engine"]["name"] == engine;
    lines.iter().find(is_it).unwrap_or_else(|| panic!("{engine} is not in the record"))
}

/// The Job was where it says, under default-deny, and nothing of it is left.
fn was_a_job(lab: &Lab, lines: &[Value], engine: &str) {
    let task = task(lines, engine);
    assert_eq!(task["targetKey"], format!("node/{NODE}"), "{task}");
    assert!(task["target"]["uid"].is_string(), "{task}");
    let provenance = &task["provenance"];
    assert_eq!(provenance["approach"], "node", "{task}");
    assert_eq!(provenance["network"]["enforced"], true, "{task}");
    assert!(provenance["cleanup"].get("remaining").is_none(), "{task}");
    let made = provenance["cleanup"]["created"].to_string();
    assert!(made.contains("job/gapscan-") && made.contains("-node/scan-"), "{made}");
    let identity = provenance["identity"].as_str().unwrap_or_default();
    assert!(identity.starts_with("system:serviceaccount:gapscan-") && identity.contains("-node:"), "{identity}");
    assert!(lines.iter().any(|l| l["type"] == "event" && l["what"] == "cleanup-verified"));
    assert!(!lab.kubectl(&["get", "ns"]).contains("-node "));
}

fn facts(enclave: &Enclave, ledger: &str, task: &Value) -> SystemFacts {
    let kept = task["evidence"].as_array().expect("evidence").iter().find(|e| e["name"] == "facts").expect("facts");
    let digest = kept["digest"].as_str().and_then(|d| d.parse().ok()).expect("a digest");
    let reader = LedgerReader::open(&enclave.path.join(ledger)).expect("the ledger is read");
    let bytes = reader.evidence(&digest).expect("it can be read").expect("it is kept");
    serde_json::from_slice(&bytes).expect("facts")
}

#[test]
fn a_node_is_looked_at_by_a_job_that_leaves_nothing() {
    let Some(lab) = lab() else { return };
    let enclave = enclave(lab);
    let ran = enclave.scan(lab, "node.sqlite", &[&format!("node/{NODE}")]);
    // What the kernel says of its network is said of the pod's.
    assert_eq!(ran.code, 3, "{}", ran.stderr);
    let lines = enclave.lines(lab, "node.sqlite");
    was_a_job(lab, &lines, "builtin");
    let of_node = |outcome: &str| -> BTreeSet<&str> {
        let found = lines.iter().filter(|l| l["type"] == "finding" && l["outcome"] == outcome);
        found.filter_map(|l| l["control"].as_str()).collect()
    };
    assert!(of_node("passed").len() > 10, "{:?}", of_node("passed"));
    for control in of_node("not-evaluated") {
        let found = findings(&lines, "node/", control);
        assert_eq!(found[0]["reason"], "fact-missing", "{}", found[0]);
        // Not every kernel has Yama.
        let detail = found[0]["detail"].to_string();
        assert!(detail.contains("`net.ipv") || detail.contains("`kernel.yama."), "{}", found[0]);
    }

    let facts = facts(enclave, "node.sqlite", task(&lines, "builtin"));
    // The lab's node is this machine.
    let text = std::fs::read_to_string("/etc/os-release").expect("this machine says what it is");
    let os = facts.os.expect("what it is");
    assert!(text.contains(&os["PRETTY_NAME"]) && text.contains(&os["VERSION_ID"]), "{os:?}");
    let processes = facts.processes.expect("processes");
    for name in ["kubelet", "containerd"] {
        assert!(processes.iter().any(|process| process.name == name), "{name} runs on the node");
    }
    assert!(processes.iter().any(|process| process.pid == 1), "the node's first process is seen");
    assert!(!facts.passwords.expect("passwords").is_empty(), "what only root may read is read");
    assert!(facts.mounts.expect("mounts").iter().all(|mount| !mount.path.starts_with("/host")));
    let sysctls = facts.sysctls.expect("kernel parameters");
    assert!(sysctls.contains_key("kernel.kptr_restrict") && !sysctls.keys().any(|name| name.starts_with("net.")));
}

#[test]
fn openscap_scans_a_node_in_a_job_on_it() {
    let Some(lab) = lab() else { return };
    let enclave = enclave(lab);
    let ran = enclave.scan(lab, "node-scap.sqlite", &["--nodes", "--engine", "openscap"]);
    assert!([0, 1].contains(&ran.code), "{}", ran.stderr);
    let lines = enclave.lines(lab, "node-scap.sqlite");
    was_a_job(lab, &lines, "openscap");
    let count = |outcome: &str| lines.iter().filter(|l| l["type"] == "finding" && l["outcome"] == outcome).count();
    assert!(count("passed") + count("failed") > 10, "{}", ran.stdout);
    let whole = findings(&lines, "node/", "gapscan-target-read-whole");
    assert_eq!(whole.len(), 1);
    assert_eq!(whole[0]["outcome"], "passed", "root who may read all reads all: {}", whole[0]);
}

#[test]
fn a_tainted_node_is_not_evaluated_unless_its_taint_is_tolerated() {
    let Some(lab) = lab() else { return };
    let enclave = enclave(lab);
    let node = format!("node/{NODE}");
    let explain = |more: &[&str]| {
        let arguments = [&[node.as_str(), "--explain", "-o", "json"], more].concat();
        enclave.scan(lab, "tainted.sqlite", &arguments).exits(0).stdout
    };
    let tainted = Tainted::new(lab);
    let ran = enclave.scan(lab, "tainted.sqlite", &[&node]);
    let refused = explain(&[]);
    let tolerated = explain(&["--tolerate", TAINT]);
    drop(tainted);
    assert_eq!(ran.code, 3, "{}", ran.stderr);
    let lines = enclave.lines(lab, "tainted.sqlite");
    assert_not_evaluated(&lines, &node, &["scanner-not-started"]);
    let remedy = format!("--tolerate {TAINT}=yes:NoSchedule");
    let said = |l: &Value| l["detail"].as_str().is_some_and(|detail| detail.contains(&remedy));
    assert!(lines.iter().filter(|l| l["type"] == "finding").all(said), "what keeps the scan off is named");
    // Nothing was made for it.
    assert_eq!(task(&lines, "builtin")["provenance"]["approach"], "none");
    assert!(refused.contains("scanner-not-started") && refused.contains(&remedy), "{refused}");
    assert!(tolerated.contains(&format!("tolerated taints: {TAINT}")), "{tolerated}");
    assert!(!explain(&[]).contains(TAINT), "the taint is gone");
}
