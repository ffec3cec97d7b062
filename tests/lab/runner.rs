//! What tests of failures share: a pod of their own, a runner whose process is known, and what must hold of a ledger after it.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use gapscan::ledger::{LedgerReader, RunRecord};
use gapscan::model::record::RunId;
use serde_json::Value;

use crate::enclave::Enclave;
use crate::lab::{GAPSCAN, Lab, wait_until};

const POD: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: NAME, namespace: shop, labels: {app: NAME}}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - {name: c, image: "REGISTRY/lab/debian:1", command: [sleep, infinity]}
"#;

/// A pod of this name that runs.
pub(crate) fn pod(lab: &Lab, enclave: &Enclave, name: &str) {
    let manifest = enclave.path.join(format!("{name}.yaml"));
    let text = POD.replace("NAME", name).replace("REGISTRY", lab.var("REGISTRY"));
    fs::write(&manifest, text).expect("the manifest is written");
    lab.kubectl(&["apply", "-f", &manifest.display().to_string()]);
    lab.kubectl(&["wait", "-n", "shop", "--for=condition=Ready", &format!("pod/{name}"), "--timeout=60s"]);
}

/// gapscan in the enclave, of which the process itself is known and not only the way there.
pub(crate) struct Runner {
    child: Child,
    pid: String,
    _stdout: BufReader<ChildStdout>,
}

impl Runner {
    pub(crate) fn start(lab: &Lab, arguments: &[String]) -> Self {
        let mut child = lab
            .command("sh")
            .args(["-c", "echo $$; exec \"$@\"", "sh", GAPSCAN])
            .args(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .expect("gapscan runs");
        let mut stdout = BufReader::new(child.stdout.take().expect("it is piped"));
        let mut pid = String::new();
        stdout.read_line(&mut pid).expect("it says its process id");
        Self { child, pid: pid.trim().to_owned(), _stdout: stdout }
    }

    /// Sends a signal; by then it may have ended by itself.
    pub(crate) fn signal(&self, signal: &str) {
        let _ = Command::new("kill").args([signal, &self.pid]).stderr(Stdio::null()).status().expect("kill runs");
    }

    /// Holds it still until what `meanwhile` does is done.
    pub(crate) fn holds_still(&self, meanwhile: impl FnOnce()) {
        self.signal("-STOP");
        meanwhile();
        self.signal("-CONT");
    }

    pub(crate) fn ends(mut self) -> Option<i32> {
        self.child.wait().expect("it ends").code()
    }
}

/// No pod of this name any more; nobody waits for it.
pub(crate) fn no_pod(lab: &Lab, name: &str) {
    lab.kubectl(&["delete", "pod", "-n", "shop", name, "--grace-period=0", "--force", "--wait=false"]);
}

/// `gapscan scan` without a bundle, and so without the canary, which is not what these tests are about.
pub(crate) fn bare_arguments(lab: &Lab, enclave: &Enclave, ledger: &str, arguments: &[&str]) -> Vec<String> {
    let ca = lab.ca().display().to_string();
    ["scan", "--unenforced-network", "record", "--ca", &ca, "--ledger", &enclave.file(ledger)]
        .into_iter()
        .chain(arguments.iter().copied())
        .map(str::to_owned)
        .collect()
}

/// The newest run, once there is one after those that are known.
pub(crate) fn next_run(ledger: &Path, known: usize) -> RunId {
    let mut found = None;
    wait_until("the run's beginning", || {
        let runs = LedgerReader::open(ledger).and_then(|reader| reader.runs(usize::MAX)).unwrap_or_default();
        found = (runs.len() > known).then(|| runs[0].start.run);
        found.is_some()
    });
    found.expect("it was waited for")
}

/// Whether the API server was asked for this by the run, or for the run.
pub(crate) fn was_asked(lab: &Lab, mark: u64, run: RunId, verb: &str, resource: &str) -> bool {
    let of_run = |line: &Value| {
        line["requestURI"]
            .as_str()
            .into_iter()
            .chain(line["user"]["username"].as_str())
            .any(|text| text.contains(&run.short()))
    };
    // What is created has no name in its address: its name is in the answer's object.
    let named = |line: &Value| line["objectRef"]["name"].as_str().is_some_and(|name| name.contains(&run.short()));
    let (resource, sub) = resource.split_once('/').map_or((resource, None), |(r, s)| (r, Some(s)));
    lab.audit(mark).iter().any(|line| {
        line["verb"] == verb
            && line["objectRef"]["resource"] == resource
            && line["objectRef"]["subresource"].as_str() == sub
            && (of_run(line) || named(line))
    })
}

/// Each run is ended and has one record for each task that it expected, and nothing in the cluster is of any of them.
#[track_caller]
pub(crate) fn assert_accounted(lab: &Lab, ledger: &Path) -> Vec<RunRecord> {
    let reader = LedgerReader::open(ledger).expect("the ledger is there");
    assert!(reader.verify().expect("the ledger can be checked").is_intact());
    let runs = reader.runs(usize::MAX).expect("runs");
    for run in &runs {
        assert!(run.end.is_some(), "run {} is left open", run.start.run);
        let tasks = reader.tasks_of(run.start.run).expect("tasks");
        let mut keys: Vec<_> = tasks
            .iter()
            .map(|task| (task.target.key(), task.provenance.engine.name.clone(), task.profile.digest))
            .collect();
        let recorded = keys.len();
        keys.sort();
        keys.dedup();
        assert_eq!((recorded, keys.len()), (run.start.expected.len(), recorded), "one record for each expected task");
        let selector = format!("gapscan.dev/run={}", run.start.run);
        let kinds = "namespaces,roles,rolebindings,clusterroles,clusterrolebindings";
        let left = lab.kubectl(&["get", kinds, "-A", "-l", &selector, "-o", "name"]);
        assert_eq!(left.trim(), "", "run {} left something", run.start.run);
    }
    runs
}
