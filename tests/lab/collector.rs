//! The collector in containers that lack what it would like to have: what can't be collected is absent, with the reason, and never
//! an empty list; one exec session, and nothing is written.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use gapscan::ledger::LedgerReader;
use gapscan::model::reason::Reason;
use gapscan::native::facts::SystemFacts;
use serde_json::{Value, json};

use crate::enclave::{Enclave, enclave};
use crate::lab::{Lab, lab, wait_until};

const NAMESPACE: &str = "gapscan-test-poor";

/// A container: its image's programs, all of this machine's Debian, and whether it is root's with a root that can be written to.
struct Poor {
    name: &'static str,
    programs: &'static [&'static str],
    user: u32,
    read_only: bool,
}

const POOR: [Poor; 4] = [
    // A shell, and nothing else whatever.
    Poor { name: "shell-alone", programs: &["dash"], user: 0, read_only: true },
    Poor { name: "no-find", programs: &["dash", "stat", "head", "wc", "grep", "cat"], user: 0, read_only: false },
    Poor { name: "no-stat", programs: &["dash", "find", "head", "wc", "grep", "cat"], user: 0, read_only: true },
    Poor {
        name: "no-rights",
        programs: &["dash", "find", "stat", "head", "wc", "grep", "cat"],
        user: 1000,
        read_only: true,
    },
];

/// BusyBox and nothing else, from the lab.
const BUSYBOX: &str = "busybox";

/// Where a program of this machine is, with the libraries that it is linked to.
fn with_libraries(program: &str) -> Option<Vec<PathBuf>> {
    let path =
        std::env::split_paths(&std::env::var_os("PATH")?).map(|dir| dir.join(program)).find(|path| path.is_file())?;
    let ldd = Command::new("ldd").arg(&path).output().ok()?;
    let text = String::from_utf8(ldd.stdout).ok()?;
    let libraries = text.split_whitespace().filter(|word| word.starts_with('/')).map(PathBuf::from);
    Some(std::iter::once(path).chain(libraries).collect())
}

fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Makes the image of these programs, and pushes it. `false` where this machine has not what it needs.
fn make(lab: &Lab, enclave: &Enclave, poor: &Poor) -> bool {
    let folder = enclave.path.join("poor").join(poor.name);
    let root = folder.join("root");
    for inside in ["bin", "etc", "proc", "sys", "dev", "tmp"] {
        fs::create_dir_all(root.join(inside)).expect("a folder");
    }
    for program in poor.programs {
        let Some(files) = with_libraries(program) else {
            println!("skipped: needs {program}");
            return false;
        };
        let name = if *program == "dash" { "sh" } else { program };
        fs::copy(&files[0], root.join("bin").join(name)).expect("a copy");
        for library in &files[1..] {
            let to = root.join(library.strip_prefix("/").expect("it is absolute"));
            fs::create_dir_all(to.parent().expect("it is in a folder")).expect("a folder");
            fs::copy(library, to).expect("a copy");
        }
    }
    fs::write(root.join("etc/passwd"), "root:x:0:0:root:/:/bin/sh\nuser:x:1000:1000::/:/bin/sh\n").expect("written");
    fs::write(root.join("etc/group"), "root:x:0:\n").expect("written");
    fs::write(root.join("etc/shadow"), "root:*:19000:0:99999:7:::\n").expect("written");
    run(Command::new("chmod").arg("600").arg(root.join("etc/shadow")));
    let (layer, layout) = (folder.join("layer.tar"), folder.join("layout"));
    run(Command::new("tar").args(["--owner=0", "--group=0", "-C"]).arg(&root).arg("-cf").arg(&layer).arg("."));
    let tagged = format!("{}:1", layout.display());
    run(Command::new("umoci").args(["init", "--layout"]).arg(&layout));
    run(Command::new("umoci").args(["new", "--image", &tagged]));
    run(Command::new("umoci").args(["raw", "add-layer", "--image", &tagged]).arg(&layer));
    run(Command::new("umoci").args(["config", "--image", &tagged, "--config.env", "PATH=/bin"]));
    let to = format!("docker://{}", image(lab, enclave, poor.name));
    run(lab.command("skopeo").args(["copy", "--quiet", "--insecure-policy", &format!("oci:{tagged}"), &to]));
    true
}

fn image(lab: &Lab, enclave: &Enclave, name: &str) -> String {
    match name {
        BUSYBOX => format!("{}/lab/busybox:1", lab.var("REGISTRY")),
        _ => format!("{}/poor/{name}:1", enclave.registry(lab)),
    }
}

/// A pod with one container of each image, until it is dropped.
struct Pod(&'static Lab);

impl Pod {
    fn start(lab: &'static Lab, enclave: &Enclave) -> Self {
        let container = |name: &str, user: u32, read_only: bool| {
            json!({
                "name": name, "image": image(lab, enclave, name), "imagePullPolicy": "Always",
                // Nothing but the shell's own words keeps it going.
                "command": ["/bin/sh", "-c", "read line"], "stdin": true,
                "securityContext": { "runAsUser": user, "runAsGroup": user, "readOnlyRootFilesystem": read_only },
            })
        };
        let mut containers: Vec<Value> =
            POOR.iter().map(|poor| container(poor.name, poor.user, poor.read_only)).collect();
        containers.push(container(BUSYBOX, 0, false));
        let objects = json!({ "apiVersion": "v1", "kind": "List", "items": [
            { "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": NAMESPACE } },
            { "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "poor", "namespace": NAMESPACE },
              "spec": { "terminationGracePeriodSeconds": 0, "automountServiceAccountToken": false, "containers": containers } },
        ] });
        let path = enclave.file("poor.json");
        fs::write(&path, objects.to_string()).expect("written");
        let pod = Self(lab);
        // The account that a pod has where it names none is made a moment after its namespace.
        wait_until("the pod", || {
            lab.command("kubectl").args(["apply", "-f", &path]).output().is_ok_and(|output| output.status.success())
        });
        lab.kubectl(&["wait", "-n", NAMESPACE, "--for=condition=Ready", "--timeout=60s", "pod/poor"]);
        pod
    }

    /// Each container's name and id.
    fn containers(&self) -> Vec<(String, String)> {
        let pod = self.0.kubectl(&["get", "pod", "-n", NAMESPACE, "poor", "-o", "json"]);
        let pod: Value = serde_json::from_str(&pod).expect("JSON");
        let statuses = pod["status"]["containerStatuses"].as_array().expect("statuses").iter();
        let text = |value: &Value| value.as_str().expect("text").to_owned();
        statuses.map(|one| (text(&one["name"]), text(&one["containerID"]).replace("containerd://", ""))).collect()
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        // Also when the test panics, which another panic would only hide.
        let _ = self.0.command("kubectl").args(["delete", "namespace", NAMESPACE, "--wait=true"]).output();
    }
}

/// All that the container wrote since it was made, as the node's overlay has it, with the times of the last change.
fn written(id: &str) -> BTreeSet<(PathBuf, i64, i64)> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("mounts");
    let line =
        mounts.lines().find(|line| line.contains(id) && line.contains(" overlay ")).expect("its root is mounted here");
    let upper =
        line.split(&[' ', ',']).find_map(|word| word.strip_prefix("upperdir=")).expect("it has an upper folder");
    let mut found = BTreeSet::new();
    let mut folders = vec![PathBuf::from(upper)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            let meta = fs::symlink_metadata(&path).expect("it is there");
            found.insert((path.clone(), meta.ctime(), meta.ctime_nsec()));
            if meta.is_dir() {
                folders.push(path);
            }
        }
    }
    found
}

fn facts(ledger: &Path, lines: &[Value], container: &str) -> SystemFacts {
    let task = lines.iter().find(|l| l["type"] == "task" && l["target"]["container"] == container).expect("a task");
    assert_eq!(task["provenance"]["approach"], "exec", "{task}");
    let kept = task["evidence"].as_array().expect("evidence").iter().find(|e| e["name"] == "facts").expect("facts");
    let digest = kept["digest"].as_str().and_then(|d| d.parse().ok()).expect("a digest");
    let reader = LedgerReader::open(ledger).expect("the ledger is read");
    let bytes = reader.evidence(&digest).expect("it can be read").expect("it is kept");
    let facts: SystemFacts = serde_json::from_slice(&bytes).expect("facts");
    println!("{container}: {:#?}", facts.missing);
    facts
}

#[test]
fn what_a_poor_container_can_not_tell_is_absent_and_nothing_is_written() {
    let Some(lab) = lab() else { return };
    let enclave = enclave(lab);
    for program in ["umoci", "ldd", "tar"] {
        if Command::new(program).arg("--version").output().is_err() {
            println!("skipped: needs {program}");
            return;
        }
    }
    if !POOR.iter().all(|poor| make(lab, enclave, poor)) {
        return;
    }
    let pod = Pod::start(lab, enclave);
    let containers = pod.containers();
    let before: Vec<_> = containers.iter().map(|(_, id)| written(id)).collect();
    let mark = lab.audit_length();
    let target = format!("pod/{NAMESPACE}/poor");
    let ran = enclave.scan(lab, "poor.sqlite", &[&target, "--approach", "exec"]);
    assert_eq!(ran.code, 3, "what is absent is not evaluated: {}", ran.stderr);

    for ((name, id), before) in containers.iter().zip(&before) {
        assert_eq!(&written(id), before, "{name}: something was written");
    }
    let log = lab.audit(mark);
    let execs: BTreeSet<&str> = log
        .iter()
        .filter(|l| l["objectRef"]["subresource"] == "exec" && l["objectRef"]["namespace"] == NAMESPACE)
        .filter_map(|l| l["auditID"].as_str())
        .collect();
    assert_eq!(execs.len(), containers.len(), "one session for each container");

    let lines = enclave.lines(lab, "poor.sqlite");
    let ledger = enclave.path.join("poor.sqlite");
    let of = |name: &str| facts(&ledger, &lines, name);
    let missing = |facts: &SystemFacts, fact: &str| facts.missing.get(fact).map(|missing| missing.reason);

    let alone = of("shell-alone");
    assert!(alone.users.is_some() && alone.groups.is_some() && alone.mounts.is_some() && alone.sockets.is_some());
    assert!(alone.processes.as_ref().is_some_and(|list| !list.is_empty()), "builtins suffice");
    assert!(alone.files.is_none() && alone.special_files.is_none() && alone.sysctls.is_none());
    for fact in ["files", "specialFiles", "sysctls"] {
        assert!(missing(&alone, fact).is_some(), "{fact} is absent for a reason: {:?}", alone.missing);
    }
    let no_find = of("no-find");
    assert!(no_find.special_files.is_none() && no_find.files.is_some() && no_find.sysctls.is_some());
    let no_stat = of("no-stat");
    assert!(no_stat.special_files.is_none() && no_stat.files.is_none() && no_stat.sysctls.is_some());
    let no_rights = of("no-rights");
    assert!(no_rights.passwords.is_none(), "who may not read it does not know that there is none");
    assert_eq!(missing(&no_rights, "passwords"), Some(Reason::UnreadablePaths), "{:?}", no_rights.missing);
    assert!(no_rights.files.is_some() && no_rights.special_files.is_some());
    let busybox = of(BUSYBOX);
    for (fact, there) in [
        ("files", busybox.files.is_some()),
        ("special_files", busybox.special_files.is_some()),
        ("sysctls", busybox.sysctls.is_some()),
        ("processes", busybox.processes.is_some()),
    ] {
        assert!(there, "{fact}: {:?}", busybox.missing);
    }
    // A rule on what is absent is not evaluated, and none passes on it.
    for name in ["shell-alone", "no-find", "no-stat"] {
        let of_it = format!("{target}/{name}");
        let setuid = lines.iter().find(|l| {
            l["type"] == "finding" && l["target"] == of_it.as_str() && l["control"].to_string().contains("setuid")
        });
        assert_eq!(setuid.expect("the control is there")["outcome"], "not-evaluated", "{name}");
    }
}
