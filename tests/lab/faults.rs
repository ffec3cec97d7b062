//! What goes wrong during a scan is in the record with a reason, and the rest of the batch is finished.

use std::fs;
use std::process::Stdio;

use gapscan::model::record::RunId;
use serde_json::Value;

use crate::enclave::{Enclave, assert_not_evaluated, enclave};
use crate::lab::{GAPSCAN, Lab, lab, wait_until};
use crate::runner::{Runner, assert_accounted, next_run};

const VICTIM: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: victim, namespace: shop, labels: {app: victim}}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - {name: victim, image: "REGISTRY/lab/debian:1", command: [sleep, infinity]}
"#;

#[test]
fn a_pod_deleted_during_its_scan_is_not_evaluated() {
    let Some(lab) = lab() else { return };
    let enclave = enclave(lab);
    let manifest = enclave.path.join("victim.yaml");
    fs::write(&manifest, VICTIM.replace("REGISTRY", lab.var("REGISTRY"))).expect("the manifest is written");
    lab.kubectl(&["apply", "-f", &manifest.display().to_string()]);
    lab.kubectl(&["wait", "-n", "shop", "--for=condition=Ready", "pod/victim", "--timeout=60s"]);

    let mark = lab.audit_length();
    let arguments = enclave.scan_arguments(lab, "victim.sqlite", &["pod/shop/victim", "host"]);
    let mut scan = lab
        .command(GAPSCAN)
        .args(&arguments)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("gapscan runs");
    // The identity for the exec is made: the scan of the pod has begun, and the pod goes before it can end.
    wait_until("the scan's identity", || {
        lab.audit(mark).iter().any(|l| {
            l["objectRef"]["resource"] == "rolebindings"
                && l["objectRef"]["namespace"] == "shop"
                && l["verb"] == "create"
        })
    });
    lab.kubectl(&["delete", "pod", "-n", "shop", "victim", "--grace-period=0", "--force", "--wait=false"]);
    assert_eq!(scan.wait().expect("gapscan ends").code(), Some(3));

    let lines = enclave.lines(lab, "victim.sqlite");
    let reasons = ["target-gone", "target-changed", "target-not-found", "target-not-running", "access-denied"];
    assert_not_evaluated(&lines, "pod/shop/victim", &reasons);
    assert!(lines.iter().any(|l| l["target"] == "host" && l["outcome"] == "passed"), "the rest was finished");
}

/// Scanners that fail, each with its command, what else its definition says, and the reason that the record gives.
const BROKEN: [(&str, &str, &str, &str); 4] = [
    ("silent", "[/bin/true]", "deadline: 2m\nmemory: 64Mi", "no-output"),
    ("hung", "[/bin/sleep, infinity]", "deadline: 10s\nmemory: 64Mi", "timeout"),
    // `tail` keeps a line until it ends, and this one never does.
    ("hungry", "[/bin/tail, /dev/zero]", "deadline: 2m\nmemory: 64Mi", "scanner-out-of-memory"),
    ("evicted", "[/bin/sleep, '100000']", "deadline: 3m\nmemory: 64Mi", "scanner-evicted"),
];

/// The bundle `broken` with these scanners, loaded.
fn load_broken(lab: &Lab, enclave: &Enclave) {
    let (mut scanners, mut profiles) = (String::new(), String::new());
    for (name, command, more, _) in BROKEN {
        let scanner = format!(
            "apiVersion: gapscan/v1\nkind: Scanner\nname: {name}\ntitle: One that fails\nimage: busybox\n\
             approaches: {{image: {{mount: /target, command: {command}}}}}\nresult: {{path: r.json, format: grype}}\n\
             exitCodes: {{0: complete}}\n{more}\ncpu: 100m\n"
        );
        let profile = format!(
            "apiVersion: gapscan/v1\nkind: Profile\nname: {name}\nversion: '1'\ntitle: Sample\nengine: {name}\n\
             targets: [image]\ncontrols:\n\
             - {{id: no-critical-vulnerabilities, title: A, description: A, check: A, fix: A, severity: high}}\n"
        );
        let folder = enclave.path.join("broken").join(name);
        fs::create_dir_all(&folder).expect("a folder");
        fs::write(folder.join("profile.yaml"), profile).expect("written");
        let path = enclave.file(&format!("broken/{name}.yaml"));
        fs::write(&path, scanner).expect("written");
        scanners += &format!("- {path}\n");
        profiles += &format!("- {{path: {}}}\n", folder.display());
    }
    let definition = format!(
        "apiVersion: gapscan/v1\nkind: Bundle\nname: broken\nversion: 1\nvalidFor: 30d\n\
         registries: {{'{upstream}': {{caFile: {ca}}}}}\nimages:\n- {{name: busybox, from: '{upstream}/lab/busybox:1'}}\n\
         scanners:\n{scanners}profiles:\n{profiles}",
        upstream = lab.var("UPSTREAM"),
        ca = lab.ca().display(),
    );
    fs::write(enclave.path.join("broken.yaml"), definition).expect("written");
    enclave.build(lab, "broken.yaml", "broken.tar");
    enclave.load_from_pipe(lab, "broken.tar").exits(0);
}

/// Evicts the pod of this run that has this word in its command, once it runs.
fn evict(lab: &Lab, enclave: &Enclave, run: RunId, word: &str) {
    let selector = format!("gapscan.dev/run={run}");
    let mut found = None;
    wait_until("the scanner that is evicted", || {
        let pods = lab.kubectl(&["get", "pods", "-A", "-l", &selector, "-o", "json"]);
        let pods: Value = serde_json::from_str(&pods).expect("it is JSON");
        let is_it =
            |pod: &&Value| pod["spec"]["containers"].to_string().contains(word) && pod["status"]["phase"] == "Running";
        let pod = pods["items"].as_array().into_iter().flatten().find(is_it);
        found = pod.map(|pod| pod["metadata"].clone());
        found.is_some()
    });
    let found = found.expect("it was waited for");
    let [namespace, name] = ["namespace", "name"].map(|key| found[key].as_str().expect("it has one").to_owned());
    let eviction = serde_json::json!({ "apiVersion": "policy/v1", "kind": "Eviction",
        "metadata": { "name": name, "namespace": namespace } });
    let file = enclave.path.join("eviction.json");
    fs::write(&file, eviction.to_string()).expect("written");
    let path = format!("/api/v1/namespaces/{namespace}/pods/{name}/eviction");
    lab.kubectl(&["create", "--raw", &path, "-f", &file.display().to_string()]);
}

#[test]
fn scanners_that_say_nothing_hang_take_too_much_memory_or_are_evicted_are_not_evaluated() {
    let Some(lab) = lab() else { return };
    let enclave = enclave(lab);
    load_broken(lab, enclave);
    let image = format!("image/{}/lab/busybox:1", lab.var("REGISTRY"));
    let engines = BROKEN.iter().flat_map(|(name, ..)| ["--engine", name]);
    let words: Vec<&str> =
        [image.as_str(), "--engine", "builtin", "--parallel", "5"].into_iter().chain(engines).collect();
    let mut arguments = enclave.scan_arguments(lab, "broken.sqlite", &words);
    let bundle = arguments.iter().position(|a| a == "--bundle").expect("it names a bundle") + 1;
    arguments[bundle] = "broken".to_owned();
    let runner = Runner::start(lab, &arguments);
    let ledger = enclave.path.join("broken.sqlite");
    let run = next_run(&ledger, 0);
    evict(lab, enclave, run, "100000");
    assert_eq!(runner.ends(), Some(3));

    let lines = enclave.lines(lab, "broken.sqlite");
    for (name, _, _, reason) in BROKEN {
        let of_scanner: Vec<_> = lines.iter().filter(|l| l["type"] == "finding" && l["engine"] == name).collect();
        assert!(!of_scanner.is_empty(), "what was expected of {name} is in the record");
        for line in of_scanner {
            let outcome = (line["outcome"].as_str(), line["reason"].as_str());
            assert_eq!(outcome, (Some("not-evaluated"), Some(reason)), "{line}");
        }
    }
    assert!(lines.iter().any(|l| l["engine"] == "builtin" && l["outcome"] == "passed"), "the rest was finished");
    assert_accounted(lab, &ledger);
}

#[test]
fn a_network_that_is_not_enforced_is_refused_or_recorded() {
    let Some(lab) = lab() else { return };
    let enclave = enclave(lab);
    lab.control(&["netpol", "off"]);
    let refused = enclave.scan(lab, "open.sqlite", &["ns/shop"]);
    let recorded = enclave.scan(lab, "recorded.sqlite", &["ns/shop", "--unenforced-network", "record"]);
    lab.control(&["netpol", "on"]);

    assert_eq!(refused.code, 3);
    let lines = enclave.lines(lab, "open.sqlite");
    assert_not_evaluated(&lines, "pod/shop/", &["policy-not-enforced"]);
    assert!(lines.iter().any(|l| l["type"] == "event" && l["what"] == "policy-not-enforced"));

    assert_eq!(recorded.code, 3, "the pod without a shell is not evaluated");
    let lines = enclave.lines(lab, "recorded.sqlite");
    let ran: Vec<_> = lines.iter().filter(|l| l["type"] == "task" && l["provenance"]["identity"].is_string()).collect();
    assert!(!ran.is_empty(), "it was scanned");
    for task in ran {
        assert_eq!(task["provenance"]["network"]["enforced"], false, "{task}");
    }
}
