//! What was proven of the network is kept true: a policy that somebody else makes voids it, one above NetworkPolicies is seen, and
//! a pod that is looked at from beside it is cut off only where that is asked for and can be done.

use std::fs;
use std::io::{BufRead as _, BufReader, Lines};
use std::process::{ChildStderr, Stdio};

use serde_json::{Value, json};

use crate::enclave::{BUNDLE, Enclave, enclave};
use crate::lab::{GAPSCAN, Lab, lab};

/// A plan with this policy and these targets.
fn plan(lab: &Lab, enclave: &Enclave, name: &str, policy: &Value, targets: &[&str]) -> String {
    let plan = json!({
        "apiVersion": "gapscan/v1", "kind": "Plan", "name": name,
        "bundle": { "name": BUNDLE, "registry": enclave.registry(lab), "root": enclave.file("trust/root.json"),
                    "state": enclave.file("state") },
        "registries": { lab.var("REGISTRY"): { "caFile": lab.ca() } },
        "policy": policy,
        "scans": [{ "name": name, "targets": targets }],
    });
    let path = enclave.file(&format!("{name}.plan.yaml"));
    fs::write(&path, plan.to_string()).expect("written");
    path
}

fn apply(lab: &Lab, enclave: &Enclave, object: &Value) {
    let path = enclave.file("object.json");
    fs::write(&path, object.to_string()).expect("written");
    lab.kubectl(&["apply", "-f", &path]);
}

fn events<'a>(lines: &'a [Value], what: &str) -> Vec<&'a str> {
    let events = lines.iter().filter(|line| line["type"] == "event" && line["what"] == what);
    events.filter_map(|line| line["detail"].as_str()).collect()
}

fn tasks(lines: &[Value]) -> Vec<&Value> {
    lines.iter().filter(|line| line["type"] == "task").collect()
}

/// Reads what a scan says until it says this.
#[track_caller]
fn says(said: &mut Lines<BufReader<ChildStderr>>, what: &str) {
    let mut all = Vec::new();
    for line in said.by_ref().map_while(Result::ok) {
        println!("{line}");
        if line.contains(what) {
            return;
        }
        all.push(line);
    }
    panic!("`{what}` is not said: {all:#?}");
}

#[test]
fn a_policy_that_somebody_else_makes_voids_the_proof() {
    let Some(lab) = lab() else { return };
    let enclave = enclave(lab);
    let policy = json!({ "parallel": 1, "approaches": ["exec", "debug"] });
    let plan = plan(lab, enclave, "voided", &policy, &["ns/shop", "ns/vault"]);
    let ledger = enclave.file("voided.sqlite");
    let mut scan = lab
        .command(GAPSCAN)
        .args(["scan", "-f", &plan, "--ledger", &ledger])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("gapscan runs");
    let mut said = BufReader::new(scan.stderr.take().expect("a pipe")).lines();
    says(&mut said, "[1/");
    let run = &gapscan::ledger::LedgerReader::open(ledger.as_ref()).expect("it is read").runs(1).expect("runs")[0];
    let namespace = format!("gapscan-{}", run.start.run.short());
    let made = |name: &str, spec: Value| {
        let metadata = json!({ "name": name, "namespace": namespace });
        let api = "networking.k8s.io/v1";
        apply(lab, enclave, &json!({ "apiVersion": api, "kind": "NetworkPolicy", "metadata": metadata, "spec": spec }));
    };
    // One that denies takes nothing away, but whether that is so has to be seen.
    made("strict", json!({ "podSelector": {}, "policyTypes": ["Ingress", "Egress"] }));
    says(&mut said, "/strict` was made, or changed, by somebody else");
    // What is denied to all is enforced.
    says(&mut said, "policies that allow nothing");
    // One that allows goes beyond what was tried, whatever the canary would see.
    made("open", json!({ "podSelector": {}, "policyTypes": ["Egress"], "egress": [{ "ports": [{ "port": 4444 }] }] }));
    says(&mut said, "/open` was made, or changed, by somebody else");
    while let Some(Ok(line)) = said.next() {
        println!("{line}");
    }
    assert_eq!(scan.wait().expect("it ends").code(), Some(3));

    let lines = enclave.lines(lab, "voided.sqlite");
    assert_eq!(events(&lines, "network-policies-changed").len(), 2, "{lines:#?}");
    assert_eq!(events(&lines, "network-proven-again").len(), 1);
    let refused = events(&lines, "policy-not-enforced");
    assert!(refused.iter().any(|why| why.contains("/open`, which is none of gapscan's")), "{refused:?}");
    let enforced = |task: &&Value| task["provenance"]["network"]["enforced"] == true;
    let (open, rest): (Vec<&Value>, Vec<&Value>) = tasks(&lines).into_iter().partition(enforced);
    assert!(open.len() >= 2 && !rest.is_empty(), "some before and some after: {} and {}", open.len(), rest.len());
    for task in open {
        assert_eq!(task["provenance"]["network"]["allowance"], "exact", "{task}");
    }
    // Nothing was begun on what could not be proven again.
    for task in rest {
        assert!(task["provenance"]["identity"].is_null() && task["coverage"]["passed"] == 0, "{task}");
    }
    assert!(lines.iter().any(|l| l["type"] == "finding" && l["reason"] == "policy-not-enforced"));
    assert!(lines.iter().any(|l| l["type"] == "event" && l["what"] == "cleanup-verified"));
}

const ABOVE: &str = "adminnetworkpolicies.policy.networking.k8s.io";

/// The API with AdminNetworkPolicies, until it is dropped.
struct Above(&'static Lab);

impl Above {
    fn new(lab: &'static Lab, enclave: &Enclave) -> Self {
        let above = Self(lab);
        let schema = json!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true });
        let version =
            json!({ "name": "v1alpha1", "served": true, "storage": true, "schema": { "openAPIV3Schema": schema } });
        apply(
            lab,
            enclave,
            &json!({
                "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
                "metadata": { "name": ABOVE, "annotations": { "api-approved.kubernetes.io": "unapproved, for a test" } },
                "spec": {
                    "group": "policy.networking.k8s.io", "scope": "Cluster", "versions": [version],
                    "names": { "kind": "AdminNetworkPolicy", "plural": "adminnetworkpolicies", "singular": "adminnetworkpolicy" },
                },
            }),
        );
        lab.kubectl(&["wait", "--for=condition=Established", "--timeout=60s", "crd", ABOVE]);
        above
    }
}

impl Drop for Above {
    fn drop(&mut self) {
        // Also when the test panics, which another panic would only hide.
        let _ = self.0.command("kubectl").args(["delete", "crd", ABOVE, "--wait=true", "--timeout=60s"]).output();
    }
}

#[test]
fn a_policy_above_network_policies_that_may_allow_something_is_no_isolation() {
    let Some(lab) = lab() else { return };
    let enclave = enclave(lab);
    let _above = Above::new(lab, enclave);
    let policy = |action: &str| {
        let runs = json!({ "matchExpressions": [{ "key": "gapscan.dev/run", "operator": "Exists" }] });
        json!({
            "apiVersion": "policy.networking.k8s.io/v1alpha1", "kind": "AdminNetworkPolicy",
            "metadata": { "name": "tried" },
            "spec": { "priority": 1, "subject": { "namespaces": runs },
                      "egress": [{ "action": action, "to": [{ "namespaces": {} }] }] },
        })
    };
    apply(lab, enclave, &policy("Allow"));
    let ran = enclave.scan(lab, "above.sqlite", &["pod/shop/legacy"]);
    assert_eq!(ran.code, 3, "{}", ran.stderr);
    let lines = enclave.lines(lab, "above.sqlite");
    let why = events(&lines, "policy-not-enforced");
    assert!(why.iter().any(|why| why.contains("adminnetworkpolicy/tried")), "{why:?}");
    assert!(tasks(&lines)[0]["provenance"]["identity"].is_null(), "nothing was run");

    apply(lab, enclave, &policy("Deny"));
    enclave.scan(lab, "above.sqlite", &["pod/shop/legacy"]);
    let lines = enclave.lines(lab, "above.sqlite");
    let network = &tasks(&lines)[0]["provenance"]["network"];
    assert_eq!(network["enforced"], true, "{network}");
    let detail = network["detail"].to_string();
    assert!(detail.contains("1 policies stand above NetworkPolicies, and none allows anything here"), "{detail}");
}

#[test]
fn a_pod_is_cut_off_while_it_is_looked_at_only_if_that_is_asked_for_and_can_be_done() {
    let Some(lab) = lab() else { return };
    let enclave = enclave(lab);
    let mark = lab.audit_length();
    let policy = json!({ "approaches": ["debug"], "debug": { "isolate": "required" } });
    // One pod of a StatefulSet has a label of its own; two of a Deployment have the same.
    let plan = plan(lab, enclave, "cut", &policy, &["ns/shop"]);
    lab.inside(&["scan", "-f", &plan, "--ledger", &enclave.file("cut.sqlite")]).exits(3);
    let lines = enclave.lines(lab, "cut.sqlite");
    let of = |pod: &str| -> Vec<&Value> {
        tasks(&lines)
            .into_iter()
            .filter(|task| task["target"]["pod"].as_str().is_some_and(|p| p.starts_with(pod)))
            .collect()
    };
    let api = of("api-0");
    assert_eq!(api.len(), 1, "{lines:#?}");
    let notes = api[0]["notes"].to_string();
    assert!(notes.contains("was cut off from the network by `shop/gapscan-"), "{notes}");
    assert!(notes.contains("egress is not restricted, since no policy selects the pod"), "{notes}");
    assert!(notes.contains("the collector itself had no socket in the target's network at any of"), "{notes}");
    let cleanup = &api[0]["provenance"]["cleanup"];
    assert!(cleanup["created"].to_string().contains("networkpolicy/shop/gapscan-"), "{cleanup}");
    assert!(cleanup.get("remaining").is_none(), "{cleanup}");
    let web = of("web-");
    assert!(!web.is_empty());
    for task in web {
        assert_eq!(task["coverage"]["passed"], 0, "{task}");
        assert!(task["provenance"]["identity"].is_null(), "nothing was begun: {task}");
    }
    let why = lines.iter().any(|l| {
        l["reason"] == "target-unsupported" && l["detail"].to_string().contains("1 more pods have all of its labels")
    });
    assert!(why, "{lines:#?}");
    let beside = |verb: &str| {
        let log = lab.audit(mark);
        let of_policies = |line: &&Value| {
            line["objectRef"]["resource"] == "networkpolicies"
                && line["objectRef"]["namespace"] == "shop"
                && line["verb"] == verb
                && line["userAgent"].as_str().is_some_and(|agent| agent.contains("gapscan"))
        };
        log.iter().filter(of_policies).count()
    };
    // Others of `shop` may have labels of their own as well.
    let cut = tasks(&lines).iter().filter(|task| task["notes"].to_string().contains("was cut off")).count();
    assert_eq!((beside("create"), beside("delete")), (cut, cut));
    assert_eq!(lab.kubectl(&["get", "networkpolicies", "-n", "shop", "-o", "name"]).trim(), "");
}
