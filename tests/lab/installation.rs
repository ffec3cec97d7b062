//! gapscan installed in the lab's cluster, with a volume that is given by hand, and removed however a test ends.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::lab::{Lab, Ran};

/// The runner's namespace.
pub(crate) const NAMESPACE: &str = "gapscan";
const CLASS: &str = "gapscan-lab";

/// Everything that an installation may have made.
const KINDS: &str = "namespaces,services,clusterroles,clusterrolebindings,roles,rolebindings,serviceaccounts,configmaps,secrets,\
                     networkpolicies,persistentvolumeclaims,statefulsets,pods,validatingadmissionpolicies,\
                     validatingadmissionpolicybindings";

/// An installation that is removed with its volume, however the test ends.
pub(crate) struct Installation {
    lab: &'static Lab,
    name: &'static str,
    /// Where its files are.
    folder: PathBuf,
    /// The arguments that name the loaded bundle, and who vouches for it.
    bundle: Vec<String>,
}

impl Installation {
    /// The files for one, with this plan; nothing is in the cluster but the volume.
    pub(crate) fn new(lab: &'static Lab, name: &'static str, folder: &Path, bundle: Vec<String>, plan: &str) -> Self {
        let one = Self { lab, name, folder: folder.to_owned(), bundle };
        let head = format!("apiVersion: gapscan/v1\nkind: Plan\nname: {name}\n");
        fs::write(one.file("plan.yaml"), head + plan).expect("the plan is written");
        one.volume();
        one
    }

    pub(crate) fn file(&self, name: &str) -> String {
        self.folder.join(format!("install-{}.{name}", self.name)).display().to_string()
    }

    /// The lab has nobody who makes volumes: one is given by hand.
    fn volume(&self) {
        let folder = self.file("volume");
        fs::create_dir_all(&folder).expect("a folder");
        let node = json!({ "matchExpressions": [
            { "key": "kubernetes.io/hostname", "operator": "In", "values": [self.lab.var("LAB_NODE")] }] });
        let volume = json!({
            "apiVersion": "v1", "kind": "PersistentVolume", "metadata": { "name": self.volume_name() },
            "spec": {
                "capacity": { "storage": "1Gi" }, "accessModes": ["ReadWriteOnce"], "storageClassName": CLASS,
                "persistentVolumeReclaimPolicy": "Retain", "local": { "path": folder },
                "nodeAffinity": { "required": { "nodeSelectorTerms": [node] } },
            },
        });
        self.apply(&volume);
    }

    fn volume_name(&self) -> String {
        format!("gapscan-lab-{}", self.name)
    }

    pub(crate) fn write(&self, name: &str, manifest: &Value) -> String {
        let path = self.file(name);
        fs::write(&path, manifest.to_string()).expect("the manifest is written");
        path
    }

    pub(crate) fn apply(&self, manifest: &Value) {
        let path = self.write("applied.json", manifest);
        self.lab.kubectl(&["apply", "-f", &path]);
    }

    pub(crate) fn install(&self, more: &[&str]) -> Ran {
        let (plan, pull) = (self.file("plan.yaml"), self.pull_config());
        let mut arguments = vec!["install"];
        arguments.extend(self.bundle.iter().map(String::as_str));
        arguments.extend(["--plan", &plan, "--storage-class", CLASS, "--storage-size", "1Gi", "--pull-config", &pull]);
        arguments.extend(more);
        self.lab.inside(&arguments)
    }

    /// The lab's registry asks nobody; what is given to nodes is used all the same.
    pub(crate) fn pull_config(&self) -> String {
        let path = self.file("pull.json");
        let config = json!({ "auths": { self.lab.var("REGISTRY"): { "auth": "a2ltOnMzY3IzdA==" } } });
        fs::write(&path, config.to_string()).expect("written");
        path
    }

    /// gapscan in the runner's pod.
    pub(crate) fn in_pod(&self, arguments: &[&str]) -> Ran {
        let mut command = self.lab.command("kubectl");
        command.args(["exec", "-n", NAMESPACE, "runner-0", "--", "/gapscan"]).args(arguments);
        let output = command.output().expect("kubectl runs");
        Ran {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// A kubeconfig of the runner's account.
    pub(crate) fn kubeconfig(&self) -> String {
        let token = self.lab.kubectl(&["create", "token", "-n", NAMESPACE, "runner"]);
        let admin = self.lab.kubectl(&["config", "view", "--raw", "-o", "json"]);
        let admin: Value = serde_json::from_str(&admin).expect("JSON");
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "lab", "clusters": admin["clusters"],
            "users": [{ "name": "runner", "user": { "token": token.trim() } }],
            "contexts": [{ "name": "lab", "context": { "cluster": admin["clusters"][0]["name"], "user": "runner" } }],
        });
        self.write("kubeconfig.json", &config)
    }

    /// What the runner's ledger says, once there is something for which this holds.
    #[track_caller]
    pub(crate) fn results(&self, what: &str, mut holds: impl FnMut(&[Value]) -> bool) -> Vec<Value> {
        let mut lines = Vec::new();
        wait_long(what, || {
            let exported = self.in_pod(&["export", "--format", "jsonl"]);
            lines = exported.stdout.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
            exported.code == 0 && holds(&lines)
        });
        lines
    }

    pub(crate) fn list(&self, kinds: &str, selector: &str) -> Vec<Value> {
        let list = self.lab.kubectl(&["get", kinds, "-A", "-l", selector, "-o", "json"]);
        let list: Value = serde_json::from_str(&list).expect("JSON");
        list["items"].as_array().expect("a list").clone()
    }

    pub(crate) fn left(&self) -> Vec<String> {
        let name = |object: &Value| format!("{}/{}", object["kind"], object["metadata"]["name"]);
        let left = self.list(KINDS, &format!("app.kubernetes.io/instance={NAMESPACE}"));
        left.iter().map(name).collect()
    }
}

impl Drop for Installation {
    fn drop(&mut self) {
        let gone = self.lab.inside(&["uninstall", "--delete-data"]);
        let _ = self.lab.command("kubectl").args(["delete", "pv", &self.volume_name()]).output();
        if !std::thread::panicking() {
            gone.exits(0);
        }
    }
}

/// Waits for what takes the runner longer than a minute.
#[track_caller]
pub(crate) fn wait_long(what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(240);
    while !condition() {
        assert!(Instant::now() < end, "{what} did not come about");
        std::thread::sleep(Duration::from_secs(1));
    }
}
