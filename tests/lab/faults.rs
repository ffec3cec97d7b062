//! What goes wrong during a scan is in the record with a reason, and the rest of the batch is finished.

use std::fs;
use std::process::Stdio;

use crate::enclave::{assert_not_evaluated, enclave, sources};
use crate::lab::{GAPSCAN, lab, wait_until};

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

#[test]
fn a_frozen_api_server_does_not_end_the_batch() {
    let Some(lab) = lab() else { return };
    let enclave = enclave(lab);
    let mark = lab.audit_length();
    let arguments = enclave.scan_arguments(lab, "frozen.sqlite", &["ns/shop", "host"]);
    let mut scan = lab
        .command(GAPSCAN)
        .args(&arguments)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("gapscan runs");
    wait_until("an exec", || lab.audit(mark).iter().any(|l| l["objectRef"]["subresource"] == "exec"));
    lab.control(&["pause", "apiserver"]);
    std::thread::sleep(std::time::Duration::from_secs(20));
    lab.control(&["resume", "apiserver"]);
    let code = scan.wait().expect("gapscan ends").code();

    assert_eq!(code, Some(3));
    let lines = enclave.lines(lab, "frozen.sqlite");
    assert!(lines.iter().any(|l| l["target"] == "host" && l["outcome"] == "passed"), "the rest was finished");
    let end = lines.last().expect("there are lines");
    assert_eq!(end["type"], "end");
    assert_eq!(lines[0]["unrecorded"], 0, "everything that was expected is accounted for");
    lab.inside(&["ledger", "verify", "--ledger", &enclave.file("frozen.sqlite")]).exits(0);
}

#[test]
fn a_scanner_that_says_nothing_and_exits_with_0_is_not_evaluated() {
    let Some(lab) = lab() else { return };
    let enclave = enclave(lab);
    let scanner = fs::read_to_string(sources().join("bundle/scanners/openscap.yaml")).expect("the definition is there");
    let mut silent = String::new();
    let mut in_command = false;
    for line in scanner.lines() {
        let indent = line.len() - line.trim_start().len();
        if line.trim_start().starts_with("command:") {
            silent += &format!("{}command: [/usr/bin/true]\n", " ".repeat(indent));
            in_command = !line.contains('[') || !line.contains(']');
            continue;
        }
        if in_command
            && (line.trim_start().starts_with("- ") || line.trim_start().starts_with(']') || line.trim().ends_with(','))
        {
            continue;
        }
        in_command = false;
        silent += line;
        silent.push('\n');
    }
    let path = enclave.path.join("silent.yaml");
    fs::write(&path, silent).expect("the scanner is written");
    let upstream = lab.var("UPSTREAM");
    let definition = format!(
        "registries: {{'{upstream}': {{caFile: {ca}}}}}\nimages:\n- {{name: openscap, from: '{upstream}/lab/openscap:1'}}\n\
         scanners:\n- {path}\nprofiles:\n- {{path: {mirror}/debian12-standard}}\n",
        ca = lab.ca().display(),
        path = path.display(),
        mirror = sources().join("profiles-mirror").display(),
    );
    fs::write(
        enclave.path.join("silent-bundle.yaml"),
        format!("apiVersion: gapscan/v1\nkind: Bundle\nname: silent\nversion: 1\nvalidFor: 30d\n{definition}"),
    )
    .expect("the definition is written");
    enclave.build(lab, "silent-bundle.yaml", "silent.tar");
    enclave.load_from_pipe(lab, "silent.tar").exits(0);

    let image = format!("image/{}/lab/web:1", lab.var("REGISTRY"));
    let mut arguments =
        enclave.scan_arguments(lab, "silent.sqlite", &[&image, "--engine", "openscap", "--engine", "builtin"]);
    let name = arguments.iter().position(|a| a == "--bundle").expect("it names a bundle") + 1;
    arguments[name] = "silent".to_owned();
    lab.inside(&arguments.iter().map(String::as_str).collect::<Vec<_>>()).exits(3);

    let lines = enclave.lines(lab, "silent.sqlite");
    let silent: Vec<_> = lines.iter().filter(|l| l["type"] == "finding" && l["engine"] == "openscap").collect();
    assert!(!silent.is_empty(), "what was expected of the scanner is in the record");
    for line in silent {
        assert_eq!(
            (line["outcome"].as_str(), line["reason"].as_str()),
            (Some("not-evaluated"), Some("no-output")),
            "{line}"
        );
    }
    assert!(lines.iter().any(|l| l["engine"] == "builtin" && l["outcome"] == "passed"), "the rest was finished");
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
