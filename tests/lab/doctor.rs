//! What doctor says of a good cluster, of an identity without rights, of a grant that was left, of a server that is not there.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use serde_json::{Value, json};

use crate::enclave::{BUNDLE, Enclave, enclave};
use crate::lab::{Lab, lab};

/// Objects that are removed however the test ends.
struct Made {
    lab: &'static Lab,
    objects: Vec<Vec<String>>,
}

impl Made {
    fn apply(&mut self, enclave: &Enclave, manifest: &Value) {
        let path = enclave.file("doctor.json");
        fs::write(&path, manifest.to_string()).expect("written");
        self.lab.kubectl(&["apply", "-f", &path]);
        let text = |key: &str| manifest["metadata"][key].as_str().unwrap_or("default").to_owned();
        let kind = manifest["kind"].as_str().expect("a kind").to_owned();
        self.objects.push(vec![kind, text("name"), "-n".to_owned(), text("namespace")]);
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        for object in &self.objects {
            let mut arguments = vec!["delete", "--ignore-not-found"];
            arguments.extend(object.iter().map(String::as_str));
            // A panic in a drop would hide what the test has to say.
            let _ = self.lab.command("kubectl").args(&arguments).output();
        }
    }
}

struct Told {
    code: i32,
    report: Value,
}

impl Told {
    fn checks<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Value> {
        let checks = self.report["checks"].as_array().expect("a list");
        checks.iter().filter(move |check| check["name"] == name)
    }

    #[track_caller]
    fn is(&self, name: &str, state: &str) {
        assert!(self.checks(name).any(|check| check["state"] == state), "{name} is not {state}: {:#}", self.report);
    }

    /// What is worse than a warning.
    fn worse(&self) -> Vec<&Value> {
        let checks = self.report["checks"].as_array().expect("a list");
        checks.iter().filter(|check| check["state"] == "bad" || check["state"] == "unknown").collect()
    }
}

fn doctor(lab: &Lab, enclave: &Enclave, ledger: &str, more: &[&str]) -> Told {
    let (registry, ca) = (enclave.registry(lab), lab.ca().display().to_string());
    let (root, state, ledger) = (enclave.file("trust/root.json"), enclave.file("state"), enclave.file(ledger));
    let mut arguments = vec!["doctor", "-o", "json", "--bundle", BUNDLE, "--registry", &registry, "--ca", &ca];
    arguments.extend(["--root", &root, "--state", &state, "--ledger", &ledger]);
    arguments.extend(more);
    let ran = lab.inside(&arguments);
    Told { code: ran.code, report: serde_json::from_str(&ran.stdout).expect("JSON") }
}

#[test]
fn doctor_tells_a_good_cluster_from_one_that_is_not() {
    let Some(lab) = lab() else { return };
    let enclave = enclave(lab);
    let mut made = Made { lab, objects: Vec::new() };

    // The lab is as it should be, and whoever asks is its administrator.
    let told = doctor(lab, enclave, "doctor.sqlite", &["--canary", "--push"]);
    assert!(told.worse().is_empty(), "{:#?}", told.worse());
    assert_eq!(told.code, 0);
    for name in [
        "tls-protocol",
        "tls-certificate",
        "server-reachable",
        "server-clock",
        "server-image-volumes",
        "server-native-sidecars",
        "server-pod-security",
        "server-nodes",
        "rights",
        "network-enforced",
        "canary-cleanup",
        "leftover-grants",
        "trust-root",
        "bundle",
        "registry",
        "ledger",
    ] {
        told.is(name, "ok");
    }
    told.is("rights-beyond", "warn");
    assert!(
        told.checks("registry").any(|check| check["detail"].to_string().contains("taken back")),
        "a push was tried"
    );
    let ledger = std::path::Path::new(&enclave.file("doctor.sqlite")).exists();
    assert!(!ledger, "looking makes no ledger");

    // A grant of a run that is over, by its label; and one whose label was taken off.
    lab.inside(&["scan", "host", "--ledger", &enclave.file("doctor.sqlite")]);
    let lines = enclave.lines(lab, "doctor.sqlite");
    let run = lines.iter().find_map(|line| line["run"].as_str()).expect("a run").to_owned();
    let home = format!("gapscan-{}", &run.replace('-', "")[run.replace('-', "").len() - 12..]);
    let binding = |name: &str, labels: Value| {
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
            "metadata": { "name": name, "namespace": "default", "labels": labels },
            "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view" },
            "subjects": [{ "kind": "ServiceAccount", "name": "doctor-nobody", "namespace": home }],
        })
    };
    let labels = json!({ "app.kubernetes.io/managed-by": "gapscan", "gapscan.dev/run": run });
    made.apply(enclave, &binding("doctor-left", labels));
    made.apply(enclave, &binding("doctor-hidden", json!({})));
    let told = doctor(lab, enclave, "doctor.sqlite", &[]);
    assert_eq!(told.code, 3, "{:#}", told.report);
    told.is("leftover-grants", "bad");
    let shown = told.checks("leftover-grants").map(ToString::to_string).collect::<String>();
    assert!(shown.contains("doctor-left") && shown.contains("doctor-hidden"), "{shown}");
    assert!(told.report["notLookedAt"].to_string().contains("network-enforced"), "{:#}", told.report);
    drop(made);
    let mut made = Made { lab, objects: Vec::new() };

    // An account without rights, by a kubeconfig that others may read.
    made.apply(
        enclave,
        &json!({ "apiVersion": "v1", "kind": "ServiceAccount",
                 "metadata": { "name": "doctor-poor", "namespace": "default" } }),
    );
    let token = lab.kubectl(&["create", "token", "doctor-poor", "-n", "default"]);
    let config: Value = serde_json::from_str(&lab.kubectl(&["config", "view", "--raw", "--flatten", "-o", "json"]))
        .expect("a kubeconfig");
    let poor = enclave.file("poor.json");
    let write = |server: &Value, mode: u32| {
        let mut cluster = config["clusters"][0]["cluster"].clone();
        cluster["server"] = server.clone();
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "poor",
            "contexts": [{ "name": "poor", "context": { "cluster": "lab", "user": "poor" } }],
            "clusters": [{ "name": "lab", "cluster": cluster }],
            "users": [{ "name": "poor", "user": { "token": token.trim() } }],
        });
        fs::write(&poor, config.to_string()).expect("written");
        fs::set_permissions(&poor, fs::Permissions::from_mode(mode)).expect("set");
    };
    let server = &config["clusters"][0]["cluster"]["server"];
    write(server, 0o644);
    let told = doctor(lab, enclave, "doctor.sqlite", &["--kubeconfig", &poor]);
    assert_eq!(told.code, 4, "{:#}", told.report);
    told.is("kubeconfig-mode", "bad");
    write(server, 0o600);
    let told = doctor(lab, enclave, "doctor.sqlite", &["--kubeconfig", &poor]);
    assert_eq!(told.code, 5, "it may not even read the cluster's name: {:#}", told.report);
    told.is("rights", "bad");
    told.is("rights-beyond", "ok");
    told.is("leftover-grants", "unknown");
    told.is("kubeconfig-token", "ok");
    assert!(!told.report.to_string().contains(token.trim()), "no token is told");

    // A server that is not there, and one whose certificate is for another name.
    let address = server.as_str().expect("an address").to_owned();
    write(&json!("https://127.0.0.1:1"), 0o600);
    let told = doctor(lab, enclave, "doctor.sqlite", &["--kubeconfig", &poor]);
    assert_eq!(told.code, 5, "{:#}", told.report);
    told.is("tls-handshake", "bad");
    told.is("server-reachable", "bad");
    told.is("bundle", "ok");
    write(&json!(address.replace("https://", "http://")), 0o600);
    let told = doctor(lab, enclave, "doctor.sqlite", &["--kubeconfig", &poor]);
    assert_eq!(told.code, 4, "{:#}", told.report);
    told.is("kubeconfig-server", "bad");
}
