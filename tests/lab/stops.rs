//! A runner that is killed at any step, or told to stop, loses nothing, counts nothing twice and leaves nothing behind.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use gapscan::ledger::{LedgerReader, RunRecord};
use gapscan::model::outcome::Status;
use gapscan::model::record::{RunEnd, RunId};
use serde_json::Value;

use crate::enclave::{Enclave, enclave};
use crate::lab::{GAPSCAN, Lab, lab, wait_until};

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
fn pod(lab: &Lab, enclave: &Enclave, name: &str) {
    let manifest = enclave.path.join(format!("{name}.yaml"));
    let text = POD.replace("NAME", name).replace("REGISTRY", lab.var("REGISTRY"));
    fs::write(&manifest, text).expect("the manifest is written");
    lab.kubectl(&["apply", "-f", &manifest.display().to_string()]);
    lab.kubectl(&["wait", "-n", "shop", "--for=condition=Ready", &format!("pod/{name}"), "--timeout=60s"]);
}

/// gapscan in the enclave, of which the process itself is known and not only the way there.
struct Runner {
    child: Child,
    pid: String,
    _stdout: BufReader<ChildStdout>,
}

impl Runner {
    fn start(lab: &Lab, arguments: &[String]) -> Self {
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
    fn signal(&self, signal: &str) {
        let _ = Command::new("kill").args([signal, &self.pid]).stderr(Stdio::null()).status().expect("kill runs");
    }

    fn ends(mut self) -> Option<i32> {
        self.child.wait().expect("it ends").code()
    }
}

/// The newest run, once there is one after those that are known.
fn next_run(ledger: &Path, known: usize) -> RunId {
    let mut found = None;
    wait_until("the run's beginning", || {
        let runs = LedgerReader::open(ledger).and_then(|reader| reader.runs(usize::MAX)).unwrap_or_default();
        found = (runs.len() > known).then(|| runs[0].start.run);
        found.is_some()
    });
    found.expect("it was waited for")
}

/// Whether the API server was asked for this by the run, or for the run.
fn was_asked(lab: &Lab, mark: u64, run: RunId, verb: &str, resource: &str) -> bool {
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
fn assert_accounted(lab: &Lab, ledger: &Path) -> Vec<RunRecord> {
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

/// What a run asks the API server for, in the order in which it does.
const STEPS: [(&str, &str); 11] = [
    ("create", "namespaces"),
    ("create", "networkpolicies"),
    ("create", "pods"),
    ("delete", "pods"),
    ("create", "serviceaccounts"),
    ("create", "roles"),
    ("create", "rolebindings"),
    ("create", "serviceaccounts/token"),
    ("get", "pods/exec"),
    ("delete", "rolebindings"),
    ("delete", "namespaces"),
];

#[test]
fn a_runner_killed_at_any_step_is_accounted_for_and_cleaned_up_by_the_next() {
    let Some(lab) = lab() else { return };
    let enclave = enclave(lab);
    pod(lab, enclave, "killed");
    let arguments = enclave.scan_arguments(lab, "killed.sqlite", &["pod/shop/killed", "host", "--approach", "exec"]);
    let ledger = enclave.path.join("killed.sqlite");

    let mut killed = Vec::new();
    for step in [None].into_iter().chain(STEPS.into_iter().map(Some)) {
        let mark = lab.audit_length();
        let runner = Runner::start(lab, &arguments);
        let run = next_run(&ledger, killed.len());
        if let Some((verb, resource)) = step {
            // A run that ends before the step was seen has a record of all, which is as right.
            wait_until(&format!("{verb} {resource}"), || was_asked(lab, mark, run, verb, resource));
        }
        runner.signal("-KILL");
        println!("{step:?}: {:?}", runner.ends());
        killed.push(run);
    }
    Runner::start(lab, &arguments).ends();

    let runs = assert_accounted(lab, &ledger);
    let last = LedgerReader::open(&ledger).and_then(|reader| reader.tasks_of(runs[0].start.run)).expect("tasks");
    for task in last {
        assert!(task.with_status(Status::Passed).next().is_some(), "{} was judged in the end", task.target);
    }
    assert_eq!(runs.len(), killed.len() + 1);
    let interrupted = runs.iter().filter(|r| r.end.as_ref().is_some_and(|e| e.end == RunEnd::Interrupted)).count();
    assert!(interrupted >= STEPS.len() - 1, "{interrupted} of {} were killed while they went on", killed.len());
    lab.kubectl(&["delete", "pod", "-n", "shop", "killed", "--grace-period=0", "--force", "--wait=false"]);
}

#[test]
fn a_second_signal_ends_what_runs_and_cleans_up_all_the_same() {
    let Some(lab) = lab() else { return };
    let enclave = enclave(lab);
    pod(lab, enclave, "stopped");
    let arguments = enclave.scan_arguments(lab, "stopped.sqlite", &["pod/shop/stopped", "--approach", "exec"]);
    let ledger = enclave.path.join("stopped.sqlite");
    for step in [("create", "pods"), ("create", "roles"), ("get", "pods/exec")] {
        let known = LedgerReader::open(&ledger).and_then(|reader| reader.runs(usize::MAX)).unwrap_or_default().len();
        let mark = lab.audit_length();
        let runner = Runner::start(lab, &arguments);
        let run = next_run(&ledger, known);
        wait_until(&format!("{step:?}"), || was_asked(lab, mark, run, step.0, step.1));
        runner.signal("-TERM");
        runner.signal("-INT");
        let code = runner.ends();
        let runs = assert_accounted(lab, &ledger);
        let end = runs[0].end.as_ref().expect("it has ended").end;
        assert!(
            matches!((code, end), (Some(3), RunEnd::Drained) | (_, RunEnd::Completed)),
            "{step:?}: {code:?}, {end:?}"
        );
        let events = LedgerReader::open(&ledger).and_then(|reader| reader.events()).expect("events");
        let cleaned = |what: &str| events.iter().any(|e| e.what == what && e.subject == run.to_string());
        assert!(cleaned("cleanup-verified") && !cleaned("cleanup-incomplete"), "{step:?}: {events:?}");
    }
    lab.kubectl(&["delete", "pod", "-n", "shop", "stopped", "--grace-period=0", "--force", "--wait=false"]);
}

#[test]
fn a_pod_replaced_under_its_name_is_not_judged_as_the_one_that_was_asked_for() {
    let Some(lab) = lab() else { return };
    let enclave = enclave(lab);
    pod(lab, enclave, "replaced");
    let mark = lab.audit_length();
    let arguments =
        enclave.scan_arguments(lab, "replaced.sqlite", &["pod/shop/replaced", "host", "--approach", "exec"]);
    let ledger = enclave.path.join("replaced.sqlite");
    let runner = Runner::start(lab, &arguments);
    let run = next_run(&ledger, 0);
    // It was chosen with the UID that it had; the identity comes after.
    wait_until("the canary", || was_asked(lab, mark, run, "create", "pods"));
    lab.kubectl(&["delete", "pod", "-n", "shop", "replaced", "--grace-period=0", "--force"]);
    pod(lab, enclave, "replaced");
    assert_eq!(runner.ends(), Some(3));
    let lines = enclave.lines(lab, "replaced.sqlite");
    let reasons = ["target-gone", "target-changed", "target-not-found", "target-not-running"];
    crate::enclave::assert_not_evaluated(&lines, "pod/shop/replaced", &reasons);
    assert!(lines.iter().any(|l| l["target"] == "host" && l["outcome"] == "passed"), "the rest was finished");
    let notes = lines.iter().filter(|l| l["type"] == "task").map(|l| l["notes"].to_string()).collect::<String>();
    assert!(!notes.contains("second attempt"), "it is another pod, and not tried under its name: {notes}");
    lab.kubectl(&["delete", "pod", "-n", "shop", "replaced", "--grace-period=0", "--force", "--wait=false"]);
}
