//! What a scan needs goes away while it goes on, and comes back or not: the API server, a kubelet, a registry, the runner's own
//! rights. The rest of the batch is finished, and what was not evaluated says why.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use gapscan::ledger::LedgerReader;
use gapscan::model::record::RunEnd;
use serde_json::Value;

use crate::enclave::{Enclave, assert_not_evaluated, enclave};
use crate::lab::{GAPSCAN, Lab, lab, wait_until};
use crate::runner::{Runner, assert_accounted, bare_arguments, next_run, no_pod, pod, was_asked};

/// One of the lab's processes, as it was started, so that it can be started again.
struct Process {
    lab: &'static Lab,
    name: &'static str,
    arguments: Vec<String>,
    folder: PathBuf,
}

impl Process {
    fn of(lab: &'static Lab, name: &'static str) -> Self {
        let pid = fs::read_to_string(Self::pid_file(lab, name)).expect("it runs");
        let process = Path::new("/proc").join(pid.trim());
        let text = fs::read_to_string(process.join("cmdline")).expect("it runs");
        let arguments = text.split_terminator('\0').map(str::to_owned).collect();
        let folder = fs::read_link(process.join("cwd")).expect("it is somewhere");
        Self { lab, name, arguments, folder }
    }

    fn pid_file(lab: &Lab, name: &str) -> PathBuf {
        Path::new(lab.var("LAB_RUN")).join(format!("{name}.pid"))
    }

    fn stop(&self) {
        self.lab.control(&["stop", self.name]);
    }

    /// Starts it as the lab does: in a session of its own, with its process id where the lab looks for it.
    fn start(&self) {
        let log = Path::new(self.lab.var("LAB_RUN")).join(format!("{}.log", self.name));
        // What whoever runs the tests holds open, a lock perhaps, is not for a process that outlives them.
        let script = "pid=$1 log=$2; shift 2; for n in 3 4 5 6 7 8 9; do eval \"exec $n>&-\"; done; setsid \"$@\" >>\"$log\" 2>&1 </dev/null & echo $! >\"$pid\"";
        let mut command = self.lab.command("sh");
        command.args(["-c", script, "sh"]).arg(Self::pid_file(self.lab, self.name)).arg(log).args(&self.arguments);
        let started = command.current_dir(&self.folder).status().expect("it can be started");
        assert!(started.success(), "{} did not start", self.name);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Also when the test panics: others need it. What is alive is left as it is.
        let pid = fs::read_to_string(Self::pid_file(self.lab, self.name)).unwrap_or_default();
        let _ = Command::new("kill").args(["-CONT", pid.trim()]).stderr(Stdio::null()).status();
        if pid.trim().is_empty() || !Path::new("/proc").join(pid.trim()).exists() {
            self.start();
        }
        let healthy = || {
            let wait = ["wait", "--for=condition=Ready", "node", "--all", "--timeout=10s"];
            let ready = self.lab.command("kubectl").args(["get", "--raw", "/readyz"]).output();
            let nodes = self.lab.command("kubectl").args(wait).output();
            [ready, nodes].into_iter().all(|asked| asked.is_ok_and(|output| output.status.success()))
        };
        if std::thread::panicking() {
            healthy();
        } else {
            wait_until("the lab's recovery", healthy);
        }
    }
}

/// An image that is soon scanned, and not in the cluster.
fn image(lab: &Lab) -> String {
    format!("image/{}/lab/busybox:1", lab.var("REGISTRY"))
}

/// The targets of which something passed.
fn judged(lines: &[Value]) -> Vec<String> {
    let passed = lines.iter().filter(|l| l["type"] == "finding" && l["outcome"] == "passed");
    let mut targets: Vec<String> = passed.filter_map(|l| l["target"].as_str().map(str::to_owned)).collect();
    targets.sort();
    targets.dedup();
    targets
}

fn has_event(ledger: &Path, what: &str) -> bool {
    let events = LedgerReader::open(ledger).and_then(|reader| reader.events()).unwrap_or_default();
    events.iter().any(|event| event.what == what)
}

#[test]
fn an_api_server_that_freezes_for_a_minute_and_is_restarted_does_not_end_the_batch() {
    let Some(lab) = lab() else { return };
    let enclave = enclave(lab);
    let api = Process::of(lab, "apiserver");
    let image = image(lab);
    let (ledger, mark) = (enclave.path.join("frozen.sqlite"), lab.audit_length());
    let arguments = bare_arguments(lab, enclave, "frozen.sqlite", &["ns/shop", &image, "--parallel", "2"]);
    let runner = Runner::start(lab, &arguments);
    let run = next_run(&ledger, 0);
    wait_until("an exec", || was_asked(lab, mark, run, "get", "pods/exec"));
    lab.control(&["pause", "apiserver"]);
    // Meanwhile nobody else may write what this run writes.
    let other = lab.inside(&["scan", "host", "--ledger", &enclave.file("frozen.sqlite")]).exits(6);
    assert!(other.stderr.contains("wait for it to end"), "{}", other.stderr);
    // This minute is what is tried.
    std::thread::sleep(Duration::from_secs(60));
    api.stop();
    api.start();
    let code = runner.ends();
    drop(api);

    assert!(matches!(code, Some(1 | 3)), "{code:?}");
    let lines = enclave.lines(lab, "frozen.sqlite");
    let judged = judged(&lines);
    assert!(judged.contains(&image), "what needs no cluster was finished: {judged:?}");
    assert!(judged.iter().any(|target| target.starts_with("pod/shop/")), "what had waited was scanned: {judged:?}");
    // Where nothing was judged, the record says that it was for the outage, or that the way there has no shell.
    let known = ["api-unreachable", "collector-failed", "timeout", "no-shell", "target-unsupported"];
    let lost =
        |l: &&Value| l["target"].as_str().is_some_and(|t| t.starts_with("pod/") && !judged.iter().any(|j| j == t));
    for line in lines.iter().filter(|l| l["type"] == "finding").filter(lost) {
        assert!(line["reason"].as_str().is_some_and(|reason| known.contains(&reason)), "{line}");
    }
    let runs = assert_accounted(lab, &ledger);
    assert_eq!(runs[0].end.as_ref().map(|end| end.end), Some(RunEnd::Completed));
    assert!(has_event(&ledger, "cleanup-verified"));
}

#[test]
fn on_a_node_whose_kubelet_is_dead_nothing_is_evaluated_and_the_rest_is() {
    let Some(lab) = lab() else { return };
    let enclave = enclave(lab);
    let kubelet = Process::of(lab, "kubelet");
    let image = image(lab);
    let (ledger, mark) = (enclave.path.join("kubelet.sqlite"), lab.audit_length());
    let targets = ["ns/shop", "--approach", "exec", &image, "--parallel", "2"];
    let runner = Runner::start(lab, &bare_arguments(lab, enclave, "kubelet.sqlite", &targets));
    let run = next_run(&ledger, 0);
    wait_until("its namespace", || was_asked(lab, mark, run, "create", "namespaces"));
    runner.holds_still(|| kubelet.stop());
    assert_eq!(runner.ends(), Some(3));
    drop(kubelet);

    let lines = enclave.lines(lab, "kubelet.sqlite");
    assert_not_evaluated(&lines, "pod/shop/", &["collector-failed", "api-unreachable", "timeout", "breaker-open"]);
    assert_eq!(judged(&lines), [image]);
    assert_accounted(lab, &ledger);
    assert!(has_event(&ledger, "cleanup-verified"));
}

/// gapscan's own registry, which can go and come back without anybody else noticing.
struct Registry<'a> {
    lab: &'static Lab,
    enclave: &'a Enclave,
    process: Option<Child>,
}

impl Registry<'_> {
    fn host(&self) -> String {
        format!("{}:5005", self.lab.var("LAB_NODE_IP"))
    }

    fn ca(&self) -> String {
        self.enclave.file("outage/tls/ca.crt")
    }

    fn comes(&mut self) {
        let serve = ["registry", "serve", "--data", &self.enclave.file("outage"), "--listen", &self.host()];
        let mut command = self.lab.command("sh");
        // The shell is replaced, so that what is killed is the registry.
        let process = command
            .args(["-c", "exec \"$@\"", "sh", GAPSCAN])
            .args(serve)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        self.process = Some(process.expect("gapscan runs"));
        wait_until("the registry", || {
            let url = format!("https://{}/livez", self.host());
            let asked =
                self.lab.command("curl").args(["-sf", "-o", "/dev/null", "--cacert", &self.ca(), &url]).status();
            asked.is_ok_and(|status| status.success())
        });
    }

    fn goes(&mut self) {
        if let Some(mut process) = self.process.take() {
            // The lab's script waits for it and ends with it.
            let children = format!("/proc/{0}/task/{0}/children", process.id());
            let child = fs::read_to_string(children).unwrap_or_default();
            let pid = child.split_whitespace().next().map_or(process.id().to_string(), str::to_owned);
            let _ = Command::new("kill").args(["-KILL", &pid]).status();
            let _ = process.wait();
        }
    }
}

impl Drop for Registry<'_> {
    fn drop(&mut self) {
        self.goes();
    }
}

#[test]
fn what_needs_a_registry_that_is_gone_waits_until_it_is_back() {
    let Some(lab) = lab() else { return };
    let enclave = enclave(lab);
    let mut registry = Registry { lab, enclave, process: None };
    registry.comes();
    let certificates = |name: &str, ca: &str| {
        let folder = enclave.file(&format!("outage-{name}"));
        fs::create_dir_all(&folder).expect("a folder");
        fs::copy(ca, format!("{folder}/ca.crt")).expect("a copy");
        folder
    };
    let (from, to) = (certificates("from", &lab.ca().display().to_string()), certificates("to", &registry.ca()));
    let mut targets = Vec::new();
    for tag in ["one", "two", "three", "four"] {
        let copied = lab
            .command("skopeo")
            .args(["copy", "--quiet", "--insecure-policy", "--src-cert-dir", &from, "--dest-cert-dir", &to])
            .arg(format!("docker://{}/lab/busybox:1", lab.var("REGISTRY")))
            .arg(format!("docker://{}/lab/busybox:{tag}", registry.host()))
            .status();
        assert!(copied.expect("skopeo runs").success(), "the image was not copied");
        targets.push(format!("image/{}/lab/busybox:{tag}", registry.host()));
    }
    registry.goes();
    let ledger = enclave.path.join("outage.sqlite");
    let mut arguments = vec!["scan".to_owned(), "--ca".to_owned(), registry.ca()];
    arguments.extend(["--ledger".to_owned(), ledger.display().to_string()]);
    arguments.extend(targets.iter().cloned());
    let runner = Runner::start(lab, &arguments);
    wait_until("the breaker", || has_event(&ledger, "breaker-opened"));
    registry.comes();
    // Some facts of such an image are no facts; what counts is that each image was judged.
    assert!(matches!(runner.ends(), Some(0 | 1 | 3)));
    let reader = LedgerReader::open(&ledger).expect("the ledger");
    let runs = reader.runs(1).expect("runs");
    assert_eq!(runs[0].tasks, 4);
    let lines = enclave.lines(lab, "outage.sqlite");
    targets.sort();
    assert_eq!(judged(&lines), targets, "everything was evaluated in the end");
    let lost = ["registry-unreachable", "breaker-open"];
    assert!(!lines.iter().any(|l| l["reason"].as_str().is_some_and(|reason| lost.contains(&reason))));
    assert!(has_event(&ledger, "breaker-closed"));
    let notes: Vec<String> =
        reader.tasks_of(runs[0].start.run).expect("tasks").into_iter().flat_map(|task| task.notes).collect();
    assert!(notes.iter().any(|note| note.contains("registry-unreachable")), "what happened is told: {notes:?}");

    // The nodes do not trust this registry: what the runner can read, they can't pull.
    let both = enclave.file("outage-both.pem");
    let text = |path: &str| fs::read_to_string(path).expect("a certificate");
    fs::write(&both, text(&lab.ca().display().to_string()) + &text(&registry.ca())).expect("written");
    let mut arguments = enclave.scan_arguments(lab, "pull.sqlite", &[&targets[0], "--engine", "grype"]);
    let ca = arguments.iter().position(|a| a == "--ca").expect("it names a CA") + 1;
    arguments[ca] = both;
    assert_eq!(Runner::start(lab, &arguments).ends(), Some(3));
    assert_not_evaluated(&enclave.lines(lab, "pull.sqlite"), &targets[0], &["image-pull-failed"]);
    assert_accounted(lab, &enclave.path.join("pull.sqlite"));
}

/// An account with all rights, for one runner.
struct Account<'a> {
    lab: &'static Lab,
    enclave: &'a Enclave,
    name: &'static str,
}

impl<'a> Account<'a> {
    fn new(lab: &'static Lab, enclave: &'a Enclave, name: &'static str) -> Self {
        let account = Self { lab, enclave, name };
        lab.kubectl(&["create", "serviceaccount", name, "-n", "default"]);
        let subject = format!("--serviceaccount=default:{name}");
        lab.kubectl(&["create", "clusterrolebinding", name, "--clusterrole=cluster-admin", &subject]);
        account
    }

    /// A kubeconfig with a token for it.
    fn kubeconfig(&self) -> String {
        use std::os::unix::fs::PermissionsExt as _;
        let token = self.lab.kubectl(&["create", "token", self.name, "-n", "default", "--duration=10m"]);
        let text = self.lab.kubectl(&["config", "view", "--raw", "--minify", "--flatten", "-o", "json"]);
        let mut config: Value = serde_json::from_str(&text).expect("it is JSON");
        config["users"][0]["user"] = serde_json::json!({ "token": token.trim() });
        let path = self.enclave.path.join(format!("{}.kubeconfig", self.name));
        fs::write(&path, config.to_string()).expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("its mode is set");
        path.display().to_string()
    }

    /// Whether its token may still do this.
    fn may(&self, kubeconfig: &str) -> bool {
        let ask = ["--kubeconfig", kubeconfig, "get", "pods", "-n", "shop"];
        self.lab.command("kubectl").args(ask).output().expect("kubectl runs").status.success()
    }
}

impl Drop for Account<'_> {
    fn drop(&mut self) {
        for kind in ["clusterrolebinding", "serviceaccount"] {
            let delete = ["delete", kind, self.name, "-n", "default", "--ignore-not-found", "--wait=false"];
            let _ = self.lab.command("kubectl").args(delete).output();
        }
    }
}

/// What comes of a scan whose runner loses its rights in the middle.
fn loses_rights(name: &'static str, take_away: impl FnOnce(&Lab)) {
    let Some(lab) = lab() else { return };
    let enclave = enclave(lab);
    pod(lab, enclave, name);
    let account = Account::new(lab, enclave, name);
    let (kubeconfig, image) = (account.kubeconfig(), image(lab));
    let ledger_name = format!("{name}.sqlite");
    let (ledger, mark) = (enclave.path.join(&ledger_name), lab.audit_length());
    let target = format!("pod/shop/{name}");
    let arguments = [target.as_str(), &image, "--approach", "exec", "--kubeconfig", &kubeconfig];
    let runner = Runner::start(lab, &bare_arguments(lab, enclave, &ledger_name, &arguments));
    let run = next_run(&ledger, 0);
    wait_until("its namespace", || was_asked(lab, mark, run, "create", "namespaces"));
    runner.holds_still(|| {
        take_away(lab);
        // The API server believes in a token for some seconds after its account is gone.
        wait_until("the loss of its rights", || !account.may(&kubeconfig));
    });
    assert_eq!(runner.ends(), Some(3));
    let lines = enclave.lines(lab, &ledger_name);
    assert_not_evaluated(&lines, &target, &["access-denied"]);
    assert_eq!(judged(&lines), [image], "the rest was finished");
    // It can't clean up any more and says so; who may do so, does it.
    assert!(has_event(&ledger, "cleanup-incomplete"));
    let next = Runner::start(lab, &bare_arguments(lab, enclave, &ledger_name, &["cluster"])).ends();
    assert!(matches!(next, Some(0 | 1)), "{next:?}");
    assert_accounted(lab, &ledger);
    no_pod(lab, name);
}

#[test]
fn a_runner_whose_rights_are_taken_away_midway_says_so_and_finishes_the_rest() {
    loses_rights("unbound", |lab| {
        lab.kubectl(&["delete", "clusterrolebinding", "unbound"]);
    });
}

#[test]
fn a_runner_whose_token_ends_midway_says_so_and_finishes_the_rest() {
    // A token ends with its account, and the API server refuses it as one that has expired: by 401.
    loses_rights("expired", |lab| {
        lab.kubectl(&["delete", "serviceaccount", "-n", "default", "expired"]);
    });
}
