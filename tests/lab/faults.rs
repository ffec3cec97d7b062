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

/// OpenSCAP's definition with another command, and with other values for keys at its end.
fn broken_scanner(command: &str, values: &[(&str, &str)]) -> String {
    let scanner = fs::read_to_string(sources().join("bundle/scanners/openscap.yaml")).expect("the definition is there");
    let mut broken = String::new();
    let mut in_command = false;
    for line in scanner.lines() {
        let (indent, text) = (line.len() - line.trim_start().len(), line.trim_start());
        if text.starts_with("command:") {
            broken += &format!("{}command: {command}\n", " ".repeat(indent));
            in_command = true;
            continue;
        }
        if in_command && text.starts_with("- ") {
            continue;
        }
        in_command = false;
        match values.iter().find(|(key, _)| line.starts_with(&format!("{key}:"))) {
            Some((key, value)) => broken += &format!("{key}: {value}\n"),
            None => broken += &format!("{line}\n"),
        }
    }
    broken
}

/// What a scan of an image by this scanner and by the builtin engine comes to: the former is not evaluated for this reason,
/// the latter goes on.
#[track_caller]
fn assert_broken(name: &str, scanner: &str, reason: &str) {
    let Some(lab) = lab() else { return };
    let enclave = enclave(lab);
    let path = enclave.path.join(format!("{name}-scanner.yaml"));
    fs::write(&path, scanner).expect("the scanner is written");
    let upstream = lab.var("UPSTREAM");
    let definition = format!(
        "registries: {{'{upstream}': {{caFile: {ca}}}}}\nimages:\n- {{name: openscap, from: '{upstream}/lab/openscap:1'}}\n\
         scanners:\n- {path}\nprofiles:\n- {{path: {mirror}/debian12-standard}}\n",
        ca = lab.ca().display(),
        path = path.display(),
        mirror = sources().join("profiles-mirror").display(),
    );
    let (document, tar, ledger) = (format!("{name}.yaml"), format!("{name}.tar"), format!("{name}.sqlite"));
    fs::write(
        enclave.path.join(&document),
        format!("apiVersion: gapscan/v1\nkind: Bundle\nname: {name}\nversion: 1\nvalidFor: 30d\n{definition}"),
    )
    .expect("the definition is written");
    enclave.build(lab, &document, &tar);
    enclave.load_from_pipe(lab, &tar).exits(0);

    let image = format!("image/{}/lab/web:1", lab.var("REGISTRY"));
    let mut arguments = enclave.scan_arguments(lab, &ledger, &[&image, "--engine", "openscap", "--engine", "builtin"]);
    let bundle = arguments.iter().position(|a| a == "--bundle").expect("it names a bundle") + 1;
    arguments[bundle] = name.to_owned();
    lab.inside(&arguments.iter().map(String::as_str).collect::<Vec<_>>()).exits(3);

    let lines = enclave.lines(lab, &ledger);
    let broken: Vec<_> = lines.iter().filter(|l| l["type"] == "finding" && l["engine"] == "openscap").collect();
    assert!(!broken.is_empty(), "what was expected of the scanner is in the record");
    for line in broken {
        let outcome = (line["outcome"].as_str(), line["reason"].as_str());
        assert_eq!(outcome, (Some("not-evaluated"), Some(reason)), "{line}");
    }
    assert!(lines.iter().any(|l| l["engine"] == "builtin" && l["outcome"] == "passed"), "the rest was finished");
}

#[test]
fn a_scanner_that_says_nothing_and_exits_with_0_is_not_evaluated() {
    assert_broken("silent", &broken_scanner("[/usr/bin/true]", &[]), "no-output");
}

#[test]
fn a_scanner_that_hangs_is_ended_at_its_deadline() {
    assert_broken("hung", &broken_scanner("[/usr/bin/sleep, infinity]", &[("deadline", "10s")]), "timeout");
}

#[test]
fn a_scanner_that_takes_too_much_memory_is_killed_and_said_to_be() {
    // `tail` keeps a line until it ends, and this one never does.
    let hungry = broken_scanner("[/usr/bin/tail, /dev/zero]", &[("memory", "64Mi")]);
    assert_broken("hungry", &hungry, "scanner-out-of-memory");
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
