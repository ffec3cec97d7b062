//! Registries that ask for credentials: the nodes get what they pull a scan's images with, for as long as the scan lasts, and
//! reach the registry by the printed `hosts.toml`.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::enclave::{BUNDLE, Enclave, assert_not_evaluated, enclave};
use crate::lab::{GAPSCAN, Lab, lab, wait_until};

const USER: &str = "kim";
const PASSWORD: &str = "s3cr3t";

/// A registry in the enclave that asks for a password, with the bundle in it.
struct Closed<'a> {
    lab: &'static Lab,
    enclave: &'a Enclave,
    /// `HOST:PORT`
    host: String,
    /// The CA of its certificate.
    ca: String,
    /// Its name for the files of this test.
    name: &'static str,
    process: Option<Child>,
}

impl<'a> Closed<'a> {
    /// Debian's registry, which knows users and no tokens.
    fn docker(lab: &'static Lab, enclave: &'a Enclave) -> Self {
        let credentials = format!("{USER}:{PASSWORD}");
        lab.control(&["registry", "closed", "5002", "--auth", &credentials, "--enclave"]);
        let host = format!("{}:5002", lab.var("LAB_NODE_IP"));
        Self { lab, enclave, host, ca: lab.ca().display().to_string(), name: "docker", process: None }.ready()
    }

    /// gapscan's own.
    fn embedded(lab: &'static Lab, enclave: &'a Enclave) -> Self {
        let host = format!("{}:5003", lab.var("LAB_NODE_IP"));
        let data = enclave.file("embedded");
        let password = enclave.file("embedded.password");
        fs::write(&password, PASSWORD).expect("written");
        let process = lab
            .command(GAPSCAN)
            .args(["registry", "serve", "--data", &data, "--listen", &host])
            .args(["--username", USER, "--password-file", &password])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("gapscan runs");
        let ca = format!("{data}/tls/ca.crt");
        let closed = Self { lab, enclave, host, ca, name: "embedded", process: Some(process) };
        wait_until("the registry", || {
            let url = format!("https://{}/livez", closed.host);
            let asked = lab.command("curl").args(["-sf", "-o", "/dev/null", "--cacert", &closed.ca, &url]).status();
            asked.is_ok_and(|status| status.success())
        });
        closed.ready()
    }

    /// Loads the bundle and copies the image that is scanned, and tells the node how to reach the registry.
    fn ready(self) -> Self {
        fs::write(self.file("password"), PASSWORD).expect("written");
        let auth = STANDARD.encode(format!("{USER}:{PASSWORD}"));
        fs::create_dir_all(self.file("docker")).expect("a folder");
        // One entry too many: it must not come to the nodes.
        let config = json!({ "auths": { &self.host: { "auth": auth }, "elsewhere.example": { "auth": auth } } });
        fs::write(self.config(), config.to_string()).expect("written");
        let root = self.enclave.file("trust/root.json");
        let tar = self.enclave.file("bundle.tar");
        let registry = self.registry();
        let mut load = vec!["load", &tar, "--root", &root, "--registry", &registry, "--ca", &self.ca, "-q"];
        let (state, password) = (self.file("load-state"), self.file("password"));
        load.extend(["--state", &state, "--username", USER, "--password-file", &password]);
        self.lab.inside(&load).exits(0);
        let mapping = ["bundle", "mapping", &tar, "--root", &root, "--registry", &registry];
        let print = ["--print", "containerd-hosts", "--node-ca", &self.ca];
        let printed = self.lab.outside(&[&mapping[..], &print].concat()).exits(0);
        let hosts = self.hosts();
        fs::create_dir_all(hosts.parent().expect("a folder")).expect("a folder");
        fs::write(hosts, printed.stdout).expect("written");
        let copied = self
            .lab
            .command("skopeo")
            .args(["copy", "--quiet", "--insecure-policy", "--preserve-digests", "--src-cert-dir"])
            .arg(self.certificates("from", self.lab.ca().to_str().expect("text")))
            .arg("--dest-cert-dir")
            .arg(self.certificates("to", &self.ca))
            .args(["--dest-creds", &format!("{USER}:{PASSWORD}")])
            .arg(format!("docker://{}/lab/web:1", self.lab.var("REGISTRY")))
            .arg(format!("docker://{}/lab/web:1", self.host))
            .status()
            .expect("skopeo runs");
        assert!(copied.success(), "the image was not copied");
        self
    }

    /// What tells the node whose certificate the registry has.
    fn hosts(&self) -> PathBuf {
        PathBuf::from(self.lab.var("LAB_RUN")).join("containerd/certs.d").join(&self.host).join("hosts.toml")
    }

    fn certificates(&self, name: &str, ca: &str) -> String {
        let folder = self.file(name);
        fs::create_dir_all(&folder).expect("a folder");
        fs::copy(ca, format!("{folder}/ca.crt")).expect("a copy");
        folder
    }

    fn file(&self, name: &str) -> String {
        self.enclave.file(&format!("{}.{name}", self.name))
    }

    /// The Docker configuration.
    fn config(&self) -> String {
        self.file("docker/config.json")
    }

    fn registry(&self) -> String {
        format!("{}/gapscan", self.host)
    }

    /// A scan of the image by Grype in a Job, as the user.
    fn scan(&self, ledger: &str, more: &[&str]) -> Vec<String> {
        let (registry, root, password) = (self.registry(), self.enclave.file("trust/root.json"), self.file("password"));
        let image = format!("image/{}/lab/web:1", self.host);
        ["scan", &image, "--engine", "grype", "--bundle", BUNDLE, "--registry", &registry, "--ca", &self.ca]
            .into_iter()
            .chain(["--root", &root, "--state", &self.file("state"), "--ledger", &self.enclave.file(ledger)])
            .chain(["--username", USER, "--password-file", &password])
            .chain(more.iter().copied())
            .map(str::to_owned)
            .collect()
    }

    fn run(&self, ledger: &str, more: &[&str]) -> crate::lab::Ran {
        let arguments = self.scan(ledger, more);
        self.lab.inside(&arguments.iter().map(String::as_str).collect::<Vec<_>>())
    }

    fn begin(&self, ledger: &str, more: &[&str]) -> Child {
        let mut command = self.lab.command(GAPSCAN);
        command.args(self.scan(ledger, more)).stdout(Stdio::null()).stderr(Stdio::piped());
        command.spawn().expect("gapscan runs")
    }

    /// The secrets for pulling that are in the cluster now, by name.
    fn secrets(&self) -> Vec<Value> {
        let list = self.lab.kubectl(&["get", "secrets", "-A", "-l", "gapscan.dev/run", "-o", "json"]);
        let list: Value = serde_json::from_str(&list).expect("JSON");
        list["items"].as_array().expect("a list").clone()
    }

    /// Waits until the kubelet of a run's pod has tried to pull in vain.
    fn pull_in_vain(&self) {
        wait_until("a pull in vain", || {
            let pods = self.lab.kubectl(&["get", "pods", "-A", "-l", "gapscan.dev/run", "-o", "json"]);
            pods.contains("ImagePullBackOff")
        });
    }

    /// Waits for the secret of the first scan of a run.
    fn secret(&self) -> Value {
        let mut found = None;
        wait_until("the secret of the scan", || {
            found = self.secrets().into_iter().find(|secret| secret["metadata"]["name"] == "pull-0");
            found.is_some()
        });
        found.expect("it was waited for")
    }
}

impl Drop for Closed<'_> {
    fn drop(&mut self) {
        match &mut self.process {
            Some(process) => {
                let _ = kill_process(gapscan(process), Signal::KILL);
                let _ = process.wait();
            }
            None => self.lab.control(&["stop", "closed"]),
        }
    }
}

/// gapscan, which the lab's script runs as its child.
fn gapscan(script: &Child) -> Pid {
    let mut found = None;
    wait_until("gapscan", || {
        let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", script.id())).unwrap_or_default();
        let is_gapscan =
            |id: &&str| fs::read_to_string(format!("/proc/{id}/comm")).is_ok_and(|name| name.trim() == "gapscan");
        found = children.split_whitespace().find(is_gapscan).and_then(|id| Pid::from_raw(id.parse().ok()?));
        found.is_some()
    });
    found.expect("it was waited for")
}

/// What a secret tells the kubelet: the credentials by registry.
fn auths(secret: &Value) -> Value {
    assert_eq!(secret["type"], "kubernetes.io/dockerconfigjson");
    assert_eq!(secret["immutable"], true);
    let data = STANDARD.decode(secret["data"][".dockerconfigjson"].as_str().expect("text")).expect("base64");
    let config: Value = serde_json::from_slice(&data).expect("JSON");
    config["auths"].clone()
}

fn assert_scanned(closed: &Closed<'_>, ledger: &str) {
    let lines = closed.enclave.lines(closed.lab, ledger);
    let control = |line: &&Value| line["type"] == "finding" && line["control"] == "no-critical-vulnerabilities";
    let found: Vec<&Value> = lines.iter().filter(control).collect();
    assert_eq!(found.len(), 1);
    assert_eq!(found[0]["outcome"], "failed", "{}", found[0]);
    let cleaned = lines.iter().any(|line| line["type"] == "event" && line["what"] == "cleanup-verified");
    assert!(cleaned, "that all is gone was verified");
}

/// What the API server saw: secrets were made and removed in the runs' own namespaces, and never read.
#[track_caller]
fn assert_least(log: &[Value]) {
    let mut verbs = BTreeSet::new();
    for line in log.iter().filter(|line| line["objectRef"]["resource"] == "secrets") {
        if !line["userAgent"].as_str().is_some_and(|agent| agent.contains("gapscan")) {
            continue;
        }
        assert!(line["objectRef"]["namespace"].as_str().is_some_and(|n| n.starts_with("gapscan-")), "{line}");
        verbs.insert(line["verb"].as_str().unwrap_or_default().to_owned());
    }
    assert_eq!(verbs, BTreeSet::from(["create".to_owned(), "delete".to_owned()]));
}

/// Waits until the cluster has no namespace of a run.
#[track_caller]
fn assert_nothing_left(closed: &Closed<'_>) {
    assert!(closed.secrets().is_empty(), "no secret is left");
    let namespaces = closed.lab.kubectl(&["get", "namespaces", "-l", "gapscan.dev/run", "-o", "name"]);
    assert_eq!(namespaces.trim(), "");
}

#[test]
fn nodes_pull_with_the_entry_of_the_operators_configuration() {
    let Some(lab) = lab() else { return };
    let closed = Closed::docker(lab, enclave(lab));

    // The runner's own password is not given away, and so the nodes have none.
    let without = closed.run("closed.sqlite", &[]).exits(3);
    assert!(without.stderr.contains("--pull-config"), "{}", without.stderr);
    let lines = closed.enclave.lines(lab, "closed.sqlite");
    assert_not_evaluated(&lines, "image/", &["policy-not-enforced", "image-pull-failed"]);
    assert!(lines.iter().any(|line| line["detail"].as_str().is_some_and(|detail| detail.contains("denied"))));

    let mark = lab.audit_length();
    let config = closed.config();
    // The node's first attempt fails, and the next does not.
    let (hosts, aside) = (closed.hosts(), closed.hosts().with_extension("aside"));
    fs::rename(&hosts, &aside).expect("moved");
    let mut scan = closed.begin("named.sqlite", &["--pull-config", &config]);
    closed.pull_in_vain();
    fs::rename(&aside, &hosts).expect("moved back");
    let auths = auths(&closed.secret());
    let names: Vec<&String> = auths.as_object().expect("an object").keys().collect();
    assert_eq!(names, [&closed.host], "its entry and no other");
    assert_eq!(auths[&closed.host]["username"], USER);
    assert_eq!(scan.wait().expect("gapscan ends").code(), Some(3), "what Grype's user may not read");
    assert_scanned(&closed, "named.sqlite");
    assert_nothing_left(&closed);
    assert_least(&lab.audit(mark));

    let absent = closed.run("absent.sqlite", &["--pull-config", &closed.file("absent.json")]).exits(2);
    assert!(absent.stderr.contains("there is no such file"), "{}", absent.stderr);
}

#[test]
fn nodes_pull_from_the_embedded_registry_with_a_token_for_one_scan() {
    let Some(lab) = lab() else { return };
    let closed = Closed::embedded(lab, enclave(lab));
    let mark = lab.audit_length();
    let mut scan = closed.begin("token.sqlite", &[]);
    let auths = auths(&closed.secret());
    let entry = &auths[&closed.host];
    assert_eq!(entry["username"], "token");
    let token = entry["password"].as_str().expect("text").to_owned();
    let payload = URL_SAFE_NO_PAD.decode(token.split('.').nth(1).expect("a payload")).expect("base64");
    let rights: Value = serde_json::from_slice(&payload).expect("JSON");
    let grants = rights["grants"].as_array().expect("a list");
    let read: BTreeSet<&str> = grants.iter().map(|grant| grant["repository"].as_str().expect("a name")).collect();
    let mut expected = BTreeSet::from(["lab/web", "gapscan/images/gapscan", "gapscan/images/grype"]);
    expected.insert("gapscan/dependencies/grype-db");
    assert_eq!(read, expected, "what the pods are pulled from, and nothing else");
    assert!(grants.iter().all(|grant| grant["rights"] == json!(["pull"])), "{rights}");
    let until: jiff::Timestamp = rights["until"].as_str().expect("a time").parse().expect("a time");
    assert!(until < jiff::Timestamp::now() + jiff::SignedDuration::from_mins(10), "it is short-lived");

    assert_eq!(scan.wait().expect("gapscan ends").code(), Some(3), "what Grype's user may not read");
    assert_scanned(&closed, "token.sqlite");
    assert_nothing_left(&closed);
    assert_least(&lab.audit(mark));
}

#[test]
fn a_secret_for_pulling_goes_when_a_scan_is_aborted_or_killed() {
    let Some(lab) = lab() else { return };
    let closed = Closed::embedded(lab, enclave(lab));
    let signal = |process: &Child, signal: Signal| kill_process(gapscan(process), signal).expect("signalled");
    let mut scan = closed.begin("aborted.sqlite", &[]);
    closed.secret();
    signal(&scan, Signal::TERM);
    // The second counts as such once the first was heard.
    let mut said = BufReader::new(scan.stderr.take().expect("a pipe")).lines().map_while(Result::ok);
    assert!(said.any(|line| line.contains("told to stop")));
    signal(&scan, Signal::TERM);
    assert!(said.any(|line| line.contains("told again")));
    assert_eq!(scan.wait().expect("gapscan ends").code(), Some(3));
    assert_not_evaluated(&closed.enclave.lines(lab, "aborted.sqlite"), "image/", &["runner-interrupted"]);
    assert_nothing_left(&closed);

    let mut scan = closed.begin("aborted.sqlite", &[]);
    closed.secret();
    signal(&scan, Signal::KILL);
    scan.wait().expect("it is dead");
    assert!(!closed.secrets().is_empty(), "nobody was there to remove it");
    closed.run("aborted.sqlite", &[]).exits(3);
    assert_nothing_left(&closed);
    assert_scanned(&closed, "aborted.sqlite");
}

#[test]
fn containerd_pulls_what_was_loaded_by_the_printed_hosts_file() {
    let Some(lab) = lab() else { return };
    let enclave = enclave(lab);
    let root = enclave.file("trust/root.json");
    let tar = enclave.file("bundle.tar");
    let registry = enclave.registry(lab);
    let mapping = ["bundle", "mapping", &tar, "--root", &root, "--registry", &registry];
    let ca = lab.ca().display().to_string();
    let printed = lab.outside(&[&mapping[..], &["--print", "containerd-hosts", "--node-ca", &ca]].concat()).exits(0);
    let folder = enclave.path.join("hosts").join(lab.var("REGISTRY"));
    fs::create_dir_all(&folder).expect("a folder");
    fs::write(folder.join("hosts.toml"), &printed.stdout).expect("written");
    // The names that pods are to use are in the file as comments.
    let names: Vec<&str> = printed.stdout.lines().filter_map(|line| line.strip_prefix("#   ")).collect();
    assert!(names.iter().any(|name| name.contains("/images/gapscan@sha256:")), "{names:?}");
    let gapscan = names.iter().find(|name| name.contains("/images/gapscan@")).expect("it is there");

    let socket = PathBuf::from(lab.var("LAB_RUN")).join("containerd/containerd.sock");
    let ctr = |arguments: &[&str]| {
        // Nothing but the file tells it of the lab's CA.
        let mut command = lab.command("env");
        command.args(["-u", "SSL_CERT_DIR", "ctr", "-a"]).arg(&socket).args(["-n", "gapscan-test"]).args(arguments);
        command.output().expect("ctr runs")
    };
    let hosts = enclave.file("hosts");
    fs::create_dir_all(enclave.file("no-hosts")).expect("a folder");
    let pull = |hosts: &str, image: &str| ctr(&["images", "pull", "--local", "--hosts-dir", hosts, image]);
    let without = pull(&enclave.file("no-hosts"), gapscan);
    let pulled = pull(&hosts, gapscan);
    let listed = ctr(&["images", "ls", "-q"]);
    ctr(&["images", "rm", "--sync", gapscan]);
    assert!(!without.status.success(), "it is the file that does it");
    assert!(pulled.status.success(), "{}", String::from_utf8_lossy(&pulled.stderr));
    assert!(String::from_utf8_lossy(&listed.stdout).contains(*gapscan));
}
