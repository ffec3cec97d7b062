//! Containers are looked at in copies of them and from sidecars that were injected, and nothing of that is left.

use std::collections::BTreeSet;
use std::fs;
use std::process::Stdio;

use serde_json::Value;

use crate::enclave::{Enclave, assert_not_evaluated, enclave};
use crate::lab::{GAPSCAN, Lab, lab};

/// Objects of a test, until it is dropped.
struct Own {
    lab: &'static Lab,
    namespace: &'static str,
    kind: &'static str,
    name: &'static str,
}

impl Drop for Own {
    fn drop(&mut self) {
        // Also when the test panics, which another panic would only hide.
        let arguments = ["delete", self.kind, self.name, "-n", self.namespace, "--ignore-not-found", "--wait=false"];
        let _ = self.lab.command("kubectl").args(arguments).args(["--grace-period=1"]).output();
    }
}

fn apply(lab: &Lab, enclave: &Enclave, namespace: &str, file: &str, text: &str) {
    let path = enclave.file(file);
    fs::write(&path, text).expect("it is written");
    lab.kubectl(&["apply", "-n", namespace, "-f", &path]);
}

fn task<'a>(lines: &'a [Value], target: &str) -> &'a Value {
    let is_it = |l: &&Value| l["type"] == "task" && l["targetKey"].as_str().is_some_and(|key| key.starts_with(target));
    lines.iter().find(is_it).unwrap_or_else(|| panic!("{target} is not in the record"))
}

fn notes(task: &Value) -> String {
    task["notes"].to_string()
}

/// The controls of a target that ended so.
fn controls(lines: &[Value], target: &str, outcome: &str) -> BTreeSet<String> {
    lines
        .iter()
        .filter(|l| l["type"] == "finding" && l["outcome"] == outcome)
        .filter(|l| l["target"].as_str().is_some_and(|t| t.starts_with(target)))
        .filter_map(|l| l["control"].as_str().map(str::to_owned))
        .collect()
}

/// Nothing of a run is in the cluster, and what its record says of that agrees.
fn assert_nothing_left(lab: &Lab, lines: &[Value]) {
    assert!(
        lines.iter().any(|l| l["type"] == "event" && l["what"] == "cleanup-verified"),
        "that all is gone is verified"
    );
    for task in lines.iter().filter(|l| l["type"] == "task") {
        assert!(task["provenance"]["cleanup"].get("remaining").is_none(), "{task}");
        let identity = task["provenance"]["identity"].as_str().unwrap_or_default();
        let Some(namespace) = identity.split(':').nth(2) else { continue };
        let there = lab.kubectl(&["get", "namespace", namespace, "--ignore-not-found", "-o", "name"]);
        assert_eq!(there, "", "{namespace}");
    }
}

#[test]
fn a_copy_shows_the_files_that_exec_shows_and_only_the_copy_is_touched() {
    let Some(lab) = lab() else { return };
    let enclave = enclave(lab);
    let pods = lab.kubectl(&["get", "pods", "-n", "shop", "-l", "app=web", "-o", "jsonpath={.items[0].metadata.name}"]);
    let web = format!("pod/shop/{pods}/web");
    let mark = lab.audit_length();
    let ran = enclave.scan(
        lab,
        "copies.sqlite",
        &[&web, "pod/shop/api-0/api", "pod/vault/keeper/keeper", "--approach", "sidecar"],
    );
    assert_eq!(ran.code, 3, "what a copy can't tell is not evaluated: {}", ran.stderr);
    let log = lab.audit(mark);
    let lines = enclave.lines(lab, "copies.sqlite");
    assert_nothing_left(lab, &lines);
    for target in [web.as_str(), "pod/shop/api-0/api", "pod/vault/keeper/keeper"] {
        let task = task(&lines, target);
        assert_eq!(task["provenance"]["approach"], "sidecar", "{task}");
        assert_eq!(task["provenance"]["network"]["enforced"], true, "{task}");
        let made = task["provenance"]["cleanup"]["created"].to_string();
        assert!(made.contains("pod/gapscan-") && made.contains("-copy/copy-"), "{made}");
        assert!(notes(task).contains("a copy of the container was judged"), "{task}");
        assert!(!controls(&lines, target, "passed").is_empty(), "{target}");
        // What a copy does not share with the container is never passed.
        assert!(controls(&lines, target, "not-evaluated").len() < 27, "{target}");
    }

    // The same container by exec: what both judged, they judged the same.
    enclave.scan(lab, "copied-exec.sqlite", &[&web, "--approach", "exec"]);
    let by_exec = enclave.lines(lab, "copied-exec.sqlite");
    let failed = controls(&lines, &web, "failed");
    assert!(!failed.is_empty());
    assert!(failed.is_subset(&controls(&by_exec, &web, "failed")), "{failed:?}");
    assert!(controls(&lines, &web, "passed").is_subset(&controls(&by_exec, &web, "passed")));
    for path in ["/etc/lab-world-writable", "/usr/local/bin/lab-setuid-id"] {
        for lines in [&lines, &by_exec] {
            let named = lines.iter().filter(|l| l["type"] == "finding" && l["outcome"] == "failed");
            let named = named.filter(|l| l["target"] == web.as_str() && l["details"].to_string().contains(path));
            assert_eq!(named.count(), 1, "{path}");
        }
    }

    // In the namespaces of the targets nothing was made, and their secrets were not looked at.
    let writes = ["create", "update", "patch", "delete"];
    for line in &log {
        let object = &line["objectRef"];
        let user = line["user"]["username"].as_str().unwrap_or_default();
        let of_target = ["shop", "vault"].contains(&object["namespace"].as_str().unwrap_or_default());
        if of_target && line["userAgent"].as_str().is_some_and(|agent| agent.starts_with("gapscan/")) {
            let verb = line["verb"].as_str().unwrap_or_default();
            assert!(!writes.contains(&verb), "{user} {verb} {object}");
            assert_ne!(object["resource"], "secrets", "{user} {verb}");
        }
    }
}

/// A pod that asks for its configuration, from a secret and a config map, and ends without.
const NEEDY: &str = "
apiVersion: v1
kind: Secret
metadata: {name: sidecar-needy}
stringData: {password: p4ssw0rd}
---
apiVersion: v1
kind: Pod
metadata: {name: sidecar-needy, labels: {app: sidecar-needy}}
spec:
  containers:
  - name: app
    image: IMAGE
    command: [sh, -c, 'test \"$PASSWORD\" || { echo no password >&2; exit 7; }; while :; do sleep 1; done']
    env: [{name: PASSWORD, valueFrom: {secretKeyRef: {name: sidecar-needy, key: password}}}]
    securityContext: {runAsUser: 7, runAsGroup: 8, runAsNonRoot: true}
";

#[test]
fn a_copy_that_ends_at_once_is_not_evaluated_and_says_why() {
    let Some(lab) = lab() else { return };
    let enclave = enclave(lab);
    let _own = ["pod", "secret"].map(|kind| Own { lab, namespace: "shop", kind, name: "sidecar-needy" });
    let image = format!("{}/lab/busybox:1", lab.var("REGISTRY"));
    apply(lab, enclave, "shop", "needy.yaml", &NEEDY.replace("IMAGE", &image));
    lab.kubectl(&["wait", "-n", "shop", "--for=condition=Ready", "pod/sidecar-needy", "--timeout=60s"]);
    let target = "pod/shop/sidecar-needy/app";
    let mark = lab.audit_length();
    enclave.scan(lab, "needy.sqlite", &[target, "--approach", "sidecar"]).exits(3);
    let log = lab.audit(mark);
    let lines = enclave.lines(lab, "needy.sqlite");
    assert_not_evaluated(&lines, target, &["target-not-running"]);
    let said = lines.iter().find(|l| l["type"] == "finding").expect("findings")["detail"].to_string();
    assert!(said.contains("exit code 7") && said.contains("no password"), "{said}");
    assert!(notes(task(&lines, target)).contains("`PASSWORD` from a secret"), "{}", task(&lines, target));
    assert_nothing_left(lab, &lines);
    // Not a word of the secret was asked for, and it is in no copy.
    assert!(!log.iter().any(|line| line.to_string().contains("p4ssw0rd")));
    // By exec it is itself that is looked at, and it has its password.
    let by_both = enclave.scan(lab, "needy-both.sqlite", &[target, "--approach", "sidecar,exec"]);
    assert!([1, 3].contains(&by_both.code), "{}", by_both.stderr);
    let lines = enclave.lines(lab, "needy-both.sqlite");
    assert_eq!(task(&lines, target)["provenance"]["approach"], "exec");
    assert!(notes(task(&lines, target)).contains("by sidecar: target-not-running"), "{}", task(&lines, target));
}

/// Somebody's manifest: a Deployment with a user of its own, and what is none of gapscan's business.
const MANIFEST: &str = "
# Somebody's.
apiVersion: v1
kind: ConfigMap
metadata: {name: sidecar-app}
data: {mode: '0644'}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: sidecar-app}
spec:
  selector: {matchLabels: {app: sidecar-app}}
  template:
    metadata: {labels: {app: sidecar-app}}
    spec:
      automountServiceAccountToken: false
      terminationGracePeriodSeconds: 1
      securityContext: {runAsNonRoot: true, runAsUser: 101, runAsGroup: 0, seccompProfile: {type: RuntimeDefault}}
      containers:
      - name: web
        image: WEB
        securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}
      - name: idle
        image: BUSYBOX
        command: [sh, -c, 'while :; do sleep 1; done']
        securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}
";

/// `gapscan inject` in the enclave with the bundle.
fn inject(lab: &Lab, enclave: &Enclave, text: Option<&str>, arguments: &[&str]) -> (i32, String, String) {
    let mut command = lab.command(GAPSCAN);
    let registry = enclave.registry(lab);
    let (root, state) = (enclave.file("trust/root.json"), enclave.file("state"));
    command.args(["inject", "--bundle", crate::enclave::BUNDLE, "--registry", &registry, "--root", &root]);
    command.args(["--state", &state, "--ca", &lab.ca().display().to_string()]).args(arguments);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("gapscan runs");
    let mut input = child.stdin.take().expect("its input is piped");
    std::io::Write::write_all(&mut input, text.unwrap_or_default().as_bytes()).expect("it reads");
    drop(input);
    let output = child.wait_with_output().expect("it ends");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    let (stdout, stderr) = (text(output.stdout), text(output.stderr));
    println!("{stdout}{stderr}");
    (output.status.code().unwrap_or(-1), stdout, stderr)
}

#[test]
fn what_runs_with_an_injected_sidecar_is_looked_at_through_it() {
    let Some(lab) = lab() else { return };
    let enclave = enclave(lab);
    let _own = [("deployment", "sidecar-app"), ("configmap", "sidecar-app"), ("pod", "keeper-copy")]
        .map(|(kind, name)| Own { lab, namespace: "vault", kind, name });
    let image = |name: &str| format!("{}/lab/{name}:1", lab.var("REGISTRY"));
    let text = MANIFEST.replace("WEB", &image("web")).replace("BUSYBOX", &image("busybox"));
    let (code, _, said) = inject(lab, enclave, Some(&text), &["-"]);
    assert!(
        code == 2 && said.contains("document 2, Deployment `sidecar-app`") && said.contains("--container"),
        "{said}"
    );
    let (code, manifest, said) = inject(lab, enclave, Some(&text), &["-", "--container", "web"]);
    assert!(code == 0 && said.contains("as its user 101 and group 0"), "{said}");
    let (_, again, said) = inject(lab, enclave, Some(&manifest), &["-", "--container", "web"]);
    assert!(again == manifest && said.contains("nothing is changed"), "{said}");
    // In a namespace with the restricted standard.
    apply(lab, enclave, "vault", "injected.yaml", &manifest);
    lab.kubectl(&["rollout", "status", "-n", "vault", "deployment/sidecar-app", "--timeout=60s"]);
    let pod = lab.kubectl(&[
        "get",
        "pods",
        "-n",
        "vault",
        "-l",
        "app=sidecar-app",
        "-o",
        "jsonpath={.items[0].metadata.name}",
    ]);
    let target = format!("pod/vault/{pod}/web");

    let mark = lab.audit_length();
    let ran = enclave.scan(lab, "injected.sqlite", &[&target, "--approach", "sidecar"]);
    assert!([1, 3].contains(&ran.code), "{}", ran.stderr);
    let log = lab.audit(mark);
    let lines = enclave.lines(lab, "injected.sqlite");
    assert_nothing_left(lab, &lines);
    let by_sidecar = task(&lines, &target);
    assert_eq!(by_sidecar["provenance"]["approach"], "sidecar", "{by_sidecar}");
    assert!(notes(by_sidecar).contains("in its own pod") && !notes(by_sidecar).contains("copy"), "{by_sidecar}");
    let made = by_sidecar["provenance"]["cleanup"]["created"].to_string();
    assert!(!made.contains("pod/"), "no pod was made for it: {made}");
    let execs = log.iter().filter(|l| l["objectRef"]["subresource"] == "exec" && l["stage"] == "ResponseStarted");
    let execs: Vec<&Value> = execs.filter(|l| l["objectRef"]["name"] == pod.as_str()).collect();
    assert_eq!(execs.len(), 1, "one command in its pod: {execs:#?}");
    assert!(execs[0]["requestURI"].as_str().is_some_and(|uri| uri.contains("container=gapscan")), "{}", execs[0]);
    // It is itself that was looked at, so that all that exec can tell is told.
    enclave.scan(lab, "injected-exec.sqlite", &[&target, "--approach", "exec"]);
    let by_exec = enclave.lines(lab, "injected-exec.sqlite");
    for outcome in ["passed", "failed"] {
        assert_eq!(controls(&lines, &target, outcome), controls(&by_exec, &target, outcome), "{outcome}");
    }

    // A copy that is written out is a pod that can be applied, with the agent in it.
    let (code, copy, said) = inject(lab, enclave, None, &["pod/vault/keeper"]);
    assert!(code == 0 && copy.contains("name: keeper-copy"), "{said}");
    apply(lab, enclave, "vault", "copy.yaml", &copy);
    lab.kubectl(&["wait", "-n", "vault", "--for=condition=Ready", "pod/keeper-copy", "--timeout=60s"]);
    enclave.scan(lab, "written.sqlite", &["pod/vault/keeper-copy/target", "--approach", "sidecar"]);
    let lines = enclave.lines(lab, "written.sqlite");
    let written = task(&lines, "pod/vault/keeper-copy/target");
    assert!(notes(written).contains("in its own pod"), "{written}");
    assert!(!controls(&lines, "pod/vault/keeper-copy/target", "passed").is_empty());
}
