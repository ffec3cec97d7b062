//! Every shipped rule, shown facts that it passes, facts that it fails, and no facts.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use serde_json::{Value as Json, json};

use super::{RuleProfile, shipped};
use crate::base::limits::Limits;
use crate::model::finding::Finding;
use crate::model::outcome::{Outcome, Status};
use crate::model::reason::Reason;
use crate::model::target::TargetKind;
use crate::native::facts::Missing;
use crate::native::facts::cluster::{ClusterFacts, Resource};
use crate::native::rules::{judge_cluster, judge_system};

fn profile(name: &str) -> &'static RuleProfile {
    static SHIPPED: LazyLock<Vec<RuleProfile>> = LazyLock::new(shipped);
    SHIPPED.iter().find(|p| p.profile().name == name).expect("it is shipped")
}

/// Sets one value by its JSON pointer; the last part may be a new key.
fn set(document: &mut Json, pointer: &str, value: Json) {
    let (parent, last) = pointer.rsplit_once('/').expect("a pointer");
    let last = last.replace("~1", "/");
    let parent = document.pointer_mut(parent).unwrap_or_else(|| panic!("{pointer} leads nowhere"));
    match parent {
        Json::Array(items) => items[last.parse::<usize>().expect("an index")] = value,
        Json::Object(fields) => {
            fields.insert(last, value);
        }
        other => panic!("{pointer}: {other} has no parts"),
    }
}

fn file(path: &str, perm: &str) -> Json {
    json!({"path": path, "type": "file", "perm": perm, "uid": 0, "gid": 0, "unowned": false})
}

fn special(kind: &str, perm: &str) -> Json {
    json!([{"path": "/opt/x", "type": kind, "perm": perm, "uid": 0, "gid": 0, "unowned": false}])
}

/// A system that no rule has anything against.
fn good_system() -> Json {
    let mut files = serde_json::Map::new();
    for (path, perm) in [
        ("/etc/passwd", "0644"),
        ("/etc/group", "0644"),
        ("/etc/shadow", "0640"),
        ("/etc/gshadow", "0640"),
        ("/etc/crontab", "0644"),
        ("/etc/cron.d", "0755"),
        ("/etc/cron.daily", "0755"),
        ("/etc/cron.hourly", "0755"),
        ("/etc/ssh/sshd_config", "0644"),
        ("/etc/ssh/ssh_host_ed25519_key", "0600"),
        ("/etc/ssh/ssh_host_ed25519_key.pub", "0644"),
        ("/usr/sbin/sshd", "0755"),
    ] {
        files.insert(path.to_owned(), file(path, perm));
    }
    json!({
        "collector": 1,
        "os": {"ID": "debian"},
        "packages": [{"name": "libc6", "version": "2.36", "arch": "amd64", "manager": "dpkg"}],
        "users": [
            {"name": "root", "password": "shadowed", "uid": 0, "gid": 0, "home": "/root", "shell": "/bin/bash"},
            {"name": "sync", "password": "shadowed", "uid": 4, "gid": 65534, "home": "/bin", "shell": "/bin/sync"},
            {"name": "app", "password": "shadowed", "uid": 65532, "gid": 65532, "home": "/", "shell": "/usr/sbin/nologin"}],
        "groups": [{"name": "root", "gid": 0, "members": []}],
        "passwords": [{"user": "root", "state": "locked", "method": ""}],
        "specialFiles": [{"path": "/tmp", "type": "dir", "perm": "1777", "uid": 0, "gid": 0, "unowned": false}],
        "unreadable": [],
        "files": files,
        "unreadableFiles": [],
        "configs": {
            "/etc/login.defs": ["UMASK 022", "ENCRYPT_METHOD YESCRYPT"],
            "/etc/ssh/sshd_config": ["Include /etc/ssh/sshd_config.d/*.conf", "PasswordAuthentication no", "Match User git", "AllowTcpForwarding no"],
            "/etc/ssh/sshd_config.d/10-site.conf": ["PermitRootLogin \"no\""]},
        "unreadableConfigs": [],
        "processes": [{"pid": 1, "name": "app", "uid": 65532, "gid": 65532, "capEff": "0000000000000000", "capabilities": [],
            "seccomp": 2, "noNewPrivs": true}],
        "sockets": [{"protocol": "tcp", "address": "0.0.0.0", "port": 8080, "loopback": false, "uid": 65532},
            {"protocol": "udp", "address": "127.0.0.1", "port": 53, "loopback": true, "uid": 0}],
        "mounts": [
            {"source": "overlay", "path": "/", "fstype": "overlay", "options": ["ro", "relatime"]},
            {"source": "tmpfs", "path": "/tmp", "fstype": "tmpfs", "options": ["rw", "nosuid", "nodev"]},
            {"source": "tmpfs", "path": "/dev/shm", "fstype": "tmpfs", "options": ["rw", "nosuid", "nodev", "noexec"]}],
        "sysctls": {
            "kernel.randomize_va_space": "2", "kernel.dmesg_restrict": "1", "kernel.kptr_restrict": "2",
            "kernel.yama.ptrace_scope": "1", "kernel.unprivileged_bpf_disabled": "2", "fs.suid_dumpable": "0",
            "fs.protected_hardlinks": "1", "fs.protected_symlinks": "1", "net.ipv4.tcp_syncookies": "1",
            "net.ipv4.conf.all.accept_redirects": "0", "net.ipv4.conf.default.accept_redirects": "0",
            "net.ipv4.conf.all.accept_source_route": "0", "net.ipv4.conf.default.accept_source_route": "0",
            "net.ipv4.conf.all.log_martians": "1", "net.ipv4.icmp_echo_ignore_broadcasts": "1"},
        "image": {"user": "65532:65532", "envNames": ["PATH"], "envSecrets": [], "exposedPorts": ["8080/tcp"], "command": ["/app"],
            "healthcheck": false, "labels": {"org.opencontainers.image.source": "https://example.org/app"},
            "created": "2026-01-01T00:00:00Z", "layers": 2, "volumes": ["/data"], "remoteAdds": []}
    })
}

/// What makes each rule about a system fail: the id without the kind in front, a place, and what is there.
fn bad_systems(kind: &str) -> Vec<(&'static str, &'static str, Json)> {
    let package = |name: &str| json!([{"name": name, "version": "1", "arch": "", "manager": "dpkg"}]);
    let user = |name: &str, uid: u32, password: &str, shell: &str| json!({"name": name, "password": password, "uid": uid, "gid": 0, "home": "/", "shell": shell});
    let unowned = json!([{"path": "/opt/x", "type": "file", "perm": "0644", "uid": 4711, "gid": 0, "unowned": true}]);
    let mut bad = vec![
        ("no-world-writable", "/specialFiles", special("dir", "0777")),
        ("no-unowned", "/specialFiles", unowned),
        ("passwd-mode", "/files/~1etc~1passwd/perm", json!("0666")),
        ("group-mode", "/files/~1etc~1group/uid", json!(1)),
        ("shadow-mode", "/files/~1etc~1shadow/perm", json!("0644")),
        ("one-root", "/users/2", user("toor", 0, "shadowed", "/bin/sh")),
        ("no-empty-password", "/passwords/0/state", json!("empty")),
        ("no-exposed-hash", "/users/2/password", json!("exposed")),
        ("unique-ids", "/users/2/uid", json!(4)),
    ];
    if kind != "host" {
        bad.extend([
            ("no-setuid", "/specialFiles", special("file", "2755")),
            ("no-passwords", "/passwords/0/state", json!("set")),
            ("no-ssh-server", "/packages", package("openssh-server")),
            ("no-sudo", "/packages", package("sudo")),
            ("no-compilers", "/packages", package("gcc")),
            ("no-network-tools", "/packages", package("nmap")),
            ("no-package-manager", "/packages", package("apk-tools")),
        ]);
    }
    if kind != "image" {
        bad.push(("gshadow-mode", "/files/~1etc~1gshadow/perm", json!("0660")));
    }
    bad.extend(match kind {
        "container" => vec![
            ("not-root", "/processes/0/uid", json!(0)),
            ("no-new-privs", "/processes/0/noNewPrivs", json!(false)),
            ("seccomp", "/processes/0/seccomp", json!(0)),
            ("no-dangerous-capabilities", "/processes/0/capabilities", json!(["CAP_CHOWN", "CAP_SYS_ADMIN"])),
            ("no-net-raw", "/processes/0/capabilities", json!(["CAP_NET_RAW"])),
            ("root-read-only", "/mounts/0/options", json!(["rw"])),
            ("no-runtime-socket", "/files/~1run~1docker.sock", file("/run/docker.sock", "0660")),
            (
                "no-host-root",
                "/mounts/1",
                json!({"source": "/dev/sda1", "path": "/host", "fstype": "ext4", "options": []}),
            ),
            ("no-sshd", "/processes/0/name", json!("sshd")),
            ("no-privileged-ports", "/sockets/0/port", json!(80)),
        ],
        "image" => vec![
            ("user-numeric", "/image/user", json!("nonroot")),
            ("env-no-secrets", "/image/envSecrets", json!(["DB_PASSWORD"])),
            ("no-remote-add", "/image/remoteAdds", json!(["ADD https://example.org/x /x"])),
            ("no-ssh-port", "/image/exposedPorts", json!(["22/tcp"])),
            ("no-privileged-ports", "/image/exposedPorts", json!(["443/tcp"])),
            ("created-known", "/image/created", json!("")),
            ("has-source-label", "/image/labels", json!({})),
            ("no-writable-volumes-over-system", "/image/volumes", json!(["/etc/app"])),
        ],
        _ => vec![
            ("no-setuid-outside-system", "/specialFiles", special("file", "4755")),
            ("crontab-mode", "/files/~1etc~1crontab/perm", json!("0664")),
            ("cron-d-mode", "/files/~1etc~1cron.d/perm", json!("0777")),
            ("cron-daily-mode", "/files/~1etc~1cron.daily/uid", json!(1000)),
            ("cron-hourly-mode", "/files/~1etc~1cron.hourly/perm", json!("0757")),
            ("tmp-mount-options", "/mounts/1/options", json!(["rw", "nosuid"])),
            ("dev-shm-mount-options", "/mounts/2/options", json!(["rw", "nodev"])),
            ("no-trust-files", "/files/~1root~1.rhosts", file("/root/.rhosts", "0600")),
            ("password-hashes-strong", "/passwords/0", json!({"user": "root", "state": "set", "method": "md5"})),
            ("login-defs-encrypt-method", "/configs/~1etc~1login.defs", json!(["ENCRYPT_METHOD MD5"])),
            ("system-accounts-no-shell", "/users/1", user("daemon", 1, "shadowed", "/bin/sh")),
            ("aslr", "/sysctls/kernel.randomize_va_space", json!("1")),
            ("dmesg-restricted", "/sysctls/kernel.dmesg_restrict", json!("0")),
            ("kptr-restricted", "/sysctls/kernel.kptr_restrict", json!("0")),
            ("ptrace-restricted", "/sysctls/kernel.yama.ptrace_scope", json!("0")),
            ("bpf-restricted", "/sysctls/kernel.unprivileged_bpf_disabled", json!("0")),
            ("no-suid-dumps", "/sysctls/fs.suid_dumpable", json!("2")),
            ("protected-links", "/sysctls/fs.protected_symlinks", json!("0")),
            ("syn-cookies", "/sysctls/net.ipv4.tcp_syncookies", json!("0")),
            ("no-redirects", "/sysctls/net.ipv4.conf.default.accept_redirects", json!("1")),
            ("no-source-routes", "/sysctls/net.ipv4.conf.all.accept_source_route", json!("1")),
            ("log-martians", "/sysctls/net.ipv4.conf.all.log_martians", json!("0")),
            ("ignore-broadcast-pings", "/sysctls/net.ipv4.icmp_echo_ignore_broadcasts", json!("0")),
            ("sshd-no-root-login", "/configs/~1etc~1ssh~1sshd_config.d~110-site.conf", json!(["PermitRootLogin yes"])),
            (
                "sshd-no-passwords",
                "/configs/~1etc~1ssh~1sshd_config",
                json!(["Match User a", "  PasswordAuthentication no"]),
            ),
            ("sshd-no-empty-passwords", "/configs/~1etc~1ssh~1sshd_config/3", json!("permitemptypasswords yes")),
            ("sshd-no-host-based", "/configs/~1etc~1ssh~1sshd_config/3", json!("HostbasedAuthentication=yes")),
            ("sshd-no-user-environment", "/configs/~1etc~1ssh~1sshd_config/3", json!("PermitUserEnvironment LANG")),
            ("sshd-no-x11-forwarding", "/configs/~1etc~1ssh~1sshd_config/3", json!("X11Forwarding\tyes")),
            ("sshd-strict-modes", "/configs/~1etc~1ssh~1sshd_config/3", json!("StrictModes no")),
            ("sshd-config-mode", "/files/~1etc~1ssh~1sshd_config/perm", json!("0666")),
            ("sshd-keys-mode", "/files/~1etc~1ssh~1ssh_host_ed25519_key/perm", json!("0644")),
        ],
    });
    bad
}

fn assert_all(findings: &[Finding], wanted: Status) {
    for finding in findings {
        assert_eq!(
            finding.outcome.status(),
            wanted,
            "{}: {:?} {:?}",
            finding.control,
            finding.outcome,
            finding.details
        );
    }
}

fn check_systems(kind: TargetKind) {
    let word = kind.word();
    let profile = profile(&format!("{word}-baseline"));
    let judge = |facts: &Json| judge_system(profile, facts, kind, &Limits::default());
    let good = good_system();
    assert_all(&judge(&good), Status::Passed);

    let mut shown = BTreeSet::new();
    for (rule, pointer, value) in bad_systems(word) {
        let id = format!("{word}-{rule}");
        let mut bad = good.clone();
        set(&mut bad, pointer, value);
        let findings = judge(&bad);
        let finding = findings.iter().find(|f| f.control == id).unwrap_or_else(|| panic!("there is no {id}"));
        assert_eq!(finding.outcome, Outcome::Failed, "{id}");
        assert!(!finding.details.is_empty() && finding.details.iter().all(|d| !d.subject.is_empty()), "{id}");
        assert!(shown.insert(id.clone()), "{id} is there twice");
    }
    let ids: BTreeSet<_> = profile.profile().controls.iter().map(|c| c.id.clone()).collect();
    assert_eq!(shown, ids, "every rule has a failing sample");

    // Without facts nothing is evaluated, and nothing but the facts decides whether it is.
    for finding in judge(&json!({})) {
        let absent = matches!(finding.outcome, Outcome::NotEvaluated { reason: Reason::FactMissing, .. });
        assert!(absent, "{}: {:?}", finding.control, finding.outcome);
    }
    for fact in good.as_object().expect("an object").keys() {
        let mut part = good.clone();
        part.as_object_mut().expect("an object").remove(fact);
        part["missing"] = json!({fact.as_str(): {"reason": "tool-missing", "detail": "d"}});
        for finding in judge(&part) {
            let status = finding.outcome.status();
            assert!(
                matches!(status, Status::Passed | Status::NotEvaluated),
                "without {fact}: {} {status}",
                finding.control
            );
        }
    }
    // What could not be looked into keeps rules from passing, and makes none fail.
    let mut hidden = good;
    for list in ["unreadable", "unreadableFiles", "unreadableConfigs"] {
        hidden[list] = json!(["/"]);
    }
    hidden["files"] = json!({});
    hidden["configs"] = json!({});
    for finding in judge(&hidden) {
        let check = &profile.profile().control(&finding.control).expect("a control for each finding").check;
        let about_files =
            ["object.specialFiles", "object.files", "object.configs"].iter().any(|fact| check.contains(fact));
        let unseen = matches!(finding.outcome, Outcome::NotEvaluated { reason: Reason::UnreadablePaths, .. });
        let as_it_should = if about_files { unseen } else { finding.outcome == Outcome::Passed };
        assert!(as_it_should, "{}: {:?}", finding.control, finding.outcome);
    }
}

#[test]
fn container_rules_pass_fail_and_know_when_they_can_not_tell() {
    check_systems(TargetKind::Container);
}

#[test]
fn image_rules_pass_fail_and_know_when_they_can_not_tell() {
    check_systems(TargetKind::Image);
}

#[test]
fn host_rules_pass_fail_and_know_when_they_can_not_tell() {
    check_systems(TargetKind::Host);
}

#[test]
fn ssh_rules_do_not_apply_without_a_server_and_do_not_guess_at_what_is_included() {
    let profile = profile("host-baseline");
    let outcome = |facts: &Json, id: &str| {
        let findings = judge_system(profile, facts, TargetKind::Node, &Limits::default());
        findings.into_iter().find(|f| f.control == id).expect("it is judged").outcome
    };
    let mut facts = good_system();
    facts["files"].as_object_mut().expect("an object").remove("/usr/sbin/sshd");
    assert_eq!(outcome(&facts, "host-sshd-no-root-login").status(), Status::NotApplicable);
    // A server without its configuration, and one that includes what was not collected.
    let mut facts = good_system();
    facts["configs"].as_object_mut().expect("an object").remove("/etc/ssh/sshd_config");
    assert_eq!(outcome(&facts, "host-sshd-no-empty-passwords").status(), Status::NotEvaluated);
    let mut facts = good_system();
    facts["configs"]["/etc/ssh/sshd_config"] = json!(["Include /srv/ssh.conf", "PermitRootLogin no"]);
    match outcome(&facts, "host-sshd-no-root-login") {
        Outcome::NotEvaluated { reason: Reason::FactMissing, detail } => {
            assert!(detail.contains("/srv/ssh.conf"), "{detail}")
        }
        other => panic!("{other:?}"),
    }
    let mut facts = good_system();
    facts["configs"]["/etc/ssh/sshd_config.d/10-site.conf"] = json!(["PermitRootLogin no", "include more"]);
    assert_eq!(outcome(&facts, "host-sshd-no-root-login").status(), Status::NotEvaluated);
    let mut facts = good_system();
    facts["configs"]["/etc/ssh/sshd_config"] = json!(["Match\tUser a", "PasswordAuthentication=no"]);
    assert_eq!(outcome(&facts, "host-sshd-no-passwords"), Outcome::Failed);
    facts["configs"]["/etc/ssh/sshd_config"] = json!(["PASSWORDAUTHENTICATION\t=\tno"]);
    assert_eq!(outcome(&facts, "host-sshd-no-passwords"), Outcome::Passed);
    // The first value counts, but a later one for some users does too.
    let mut facts = good_system();
    facts["configs"]["/etc/ssh/sshd_config"] =
        json!(["permitrootlogin no", "Match Address 10.0.0.0/8", "PermitRootLogin prohibit-password"]);
    assert_eq!(outcome(&facts, "host-sshd-no-root-login"), Outcome::Failed);
}

/// A cluster that no rule has anything against.
fn good_cluster() -> Json {
    let container = |name: &str| {
        json!({"name": name, "image": format!("r/{name}@sha256:{}", "0".repeat(64)), "resources": {"limits": {"memory": "64Mi"}},
            "env": [{"name": "TOKEN_FILE", "value": "/t"}, {"name": "PASSWORD", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}],
            "ports": [{"containerPort": 8080}],
            "securityContext": {"allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "capabilities": {"drop": ["ALL"]}}})
    };
    let rbac = |kind: &str, subject: Json| json!([{"metadata": {"name": "b", "namespace": "app"}, "roleRef": {"kind": kind, "name": "viewer"}, "subjects": [subject]}]);
    let group = json!({"kind": "Group", "name": "team"});
    json!({
        "v1/namespaces": [{"metadata": {"name": "app", "labels": {"pod-security.kubernetes.io/enforce": "restricted"}}}],
        "v1/pods": [{
            "metadata": {"name": "web", "namespace": "app"},
            "spec": {
                "serviceAccountName": "web",
                "securityContext": {"runAsNonRoot": true, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"},
                    "seLinuxOptions": {"level": "s0:c1"}, "sysctls": [{"name": "net.ipv4.tcp_syncookies", "value": "1"}]},
                "initContainers": [container("init")],
                "containers": [container("web"), container("side")],
                "ephemeralContainers": [container("debug")],
                "volumes": [{"name": "e", "emptyDir": {}}, {"name": "i", "image": {"reference": "r/x"}}]}}],
        "networking.k8s.io/v1/networkpolicies": [{"metadata": {"name": "deny", "namespace": "app"},
            "spec": {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}}],
        "rbac.authorization.k8s.io/v1/clusterroles": [{"metadata": {"name": "viewer"},
            "rules": [{"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}, {"verbs": ["get"], "nonResourceURLs": ["/x"]}]},
            {"metadata": {"name": "admin", "labels": {"kubernetes.io/bootstrapping": "rbac-defaults"}}, "rules": null}],
        "rbac.authorization.k8s.io/v1/roles": [{"metadata": {"name": "r", "namespace": "app"}, "rules": null}],
        "rbac.authorization.k8s.io/v1/clusterrolebindings": [
            rbac("ClusterRole", group.clone())[0],
            {"metadata": {"name": "cluster-admin"}, "roleRef": {"kind": "ClusterRole", "name": "cluster-admin"},
                "subjects": [{"kind": "Group", "name": "system:masters"}]},
            {"metadata": {"name": "system:public-info-viewer"}, "roleRef": {"kind": "ClusterRole", "name": "system:public-info-viewer"},
                "subjects": [{"kind": "Group", "name": "system:unauthenticated"}]}],
        "rbac.authorization.k8s.io/v1/rolebindings": rbac("Role", group),
    })
}

fn cluster_facts(objects: &Json) -> ClusterFacts {
    let mut facts = ClusterFacts::default();
    for resource in profile("cluster-baseline").resources() {
        let listed = objects.get(resource.to_string()).and_then(Json::as_array).cloned().unwrap_or_default();
        facts.add(&resource, listed);
    }
    facts
}

/// What makes each rule about a cluster fail. `P` stands for the pod's specification, `C` for the context of a container.
fn bad_clusters() -> Vec<(&'static str, String, Json)> {
    let p = |rest: &str| format!("/v1~1pods/0/spec{rest}");
    let init = |rest: &str| p(&format!("/initContainers/0{rest}"));
    let debug = |rest: &str| p(&format!("/ephemeralContainers/0{rest}"));
    let r = |rest: &str| format!("/rbac.authorization.k8s.io~1v1~1{rest}");
    vec![
        ("pod-not-privileged", init("/securityContext/privileged"), json!(true)),
        ("pod-no-host-namespaces", p("/hostIPC"), json!(true)),
        ("pod-no-host-path", p("/volumes/0"), json!({"name": "h", "hostPath": {"path": "/"}})),
        ("pod-no-host-ports", init("/ports/0/hostPort"), json!(8080)),
        ("pod-capabilities-baseline", debug("/securityContext/capabilities/add"), json!(["SYS_PTRACE"])),
        ("pod-seccomp-not-unconfined", debug("/securityContext/seccompProfile"), json!({"type": "Unconfined"})),
        ("pod-apparmor-not-unconfined", p("/securityContext/appArmorProfile"), json!({"type": "Unconfined"})),
        ("pod-selinux-not-weakened", init("/securityContext/seLinuxOptions"), json!({"type": "spc_t"})),
        ("pod-proc-mount-default", init("/securityContext/procMount"), json!("Unmasked")),
        ("pod-sysctls-safe", p("/securityContext/sysctls/0/name"), json!("kernel.msgmax")),
        ("pod-no-privilege-escalation", debug("/securityContext"), json!({})),
        ("pod-runs-as-non-root", init("/securityContext/runAsNonRoot"), json!(false)),
        ("pod-user-not-root", debug("/securityContext/runAsUser"), json!(0)),
        ("pod-seccomp-set", p("/securityContext/seccompProfile"), json!({"type": "Unconfined"})),
        ("pod-drops-all-capabilities", init("/securityContext/capabilities/add"), json!(["CHOWN"])),
        ("pod-volume-types-restricted", p("/volumes/0"), json!({"name": "n", "nfs": {"server": "s", "path": "/"}})),
        ("pod-read-only-root", debug("/securityContext/readOnlyRootFilesystem"), json!(false)),
        ("pod-images-pinned", init("/image"), json!("r/web:latest")),
        ("pod-memory-limited", init("/resources"), json!({"limits": {"cpu": "1"}})),
        ("pod-no-default-token", p("/serviceAccountName"), json!("default")),
        ("pod-env-no-secrets", debug("/env/0"), json!({"name": "db_password", "value": "x"})),
        ("pod-not-in-default-namespace", "/v1~1pods/0/metadata/namespace".to_owned(), json!("default")),
        ("rbac-cluster-admin", r("clusterrolebindings/1/subjects/0/name"), json!("team")),
        ("rbac-no-wildcards", r("roles/0/rules"), json!([{"verbs": ["*"], "apiGroups": [""], "resources": ["pods"]}])),
        ("rbac-no-anonymous", r("rolebindings/0/subjects/0/name"), json!("system:unauthenticated")),
        (
            "rbac-default-account-unused",
            r("rolebindings/0/subjects/0"),
            json!({"kind": "ServiceAccount", "name": "default"}),
        ),
        ("rbac-nothing-for-all", r("clusterrolebindings/0/subjects/0/name"), json!("system:authenticated")),
        ("namespace-enforces-pod-security", "/v1~1namespaces/0/metadata/labels".to_owned(), json!({})),
        (
            "namespace-default-deny-ingress",
            "/networking.k8s.io~1v1~1networkpolicies/0/spec/podSelector".to_owned(),
            json!({"matchLabels": {"app": "web"}}),
        ),
        (
            "namespace-default-deny-egress",
            "/networking.k8s.io~1v1~1networkpolicies/0/spec/policyTypes".to_owned(),
            json!(["Ingress"]),
        ),
    ]
}

#[test]
fn cluster_rules_pass_fail_and_know_when_they_can_not_tell() {
    let profile = profile("cluster-baseline");
    let judge = |facts: &ClusterFacts| judge_cluster(profile, facts, &Limits::default());
    let mut good = good_cluster();
    assert_all(&judge(&cluster_facts(&good)), Status::Passed);

    good["v1/namespaces"].as_array_mut().expect("a list").push(json!({"metadata": {"name": "default",
        "labels": {"pod-security.kubernetes.io/enforce": "baseline"}}}));
    let mount = json!([{"name": "t", "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount"}]);
    let mut shown = BTreeSet::new();
    for (id, pointer, value) in bad_clusters() {
        let mut bad = good.clone();
        set(&mut bad, &pointer, value);
        if id == "pod-no-default-token" {
            set(&mut bad, "/v1~1pods/0/spec/containers/0/volumeMounts", mount.clone());
        }
        let findings = judge(&cluster_facts(&bad));
        let finding = findings.iter().find(|f| f.control == id).unwrap_or_else(|| panic!("there is no {id}"));
        assert_eq!(finding.outcome, Outcome::Failed, "{id}");
        assert!(
            finding.details.iter().all(|d| d.subject.contains('/') && !d.message.is_empty()),
            "{id}: {:?}",
            finding.details
        );
        shown.insert(id.to_owned());
    }
    let ids: BTreeSet<_> = profile.profile().controls.iter().map(|c| c.id.clone()).collect();
    assert_eq!(shown, ids, "every rule has a failing sample");

    // What was not listed, whatever it is, makes nothing pass that needs it.
    assert_all(&judge(&ClusterFacts::default()), Status::NotEvaluated);
    let mut denied = ClusterFacts::default();
    for resource in profile.resources() {
        denied.miss(&resource, Missing { reason: Reason::AccessDenied, detail: "forbidden".to_owned() });
    }
    for finding in judge(&denied) {
        assert!(
            matches!(finding.outcome, Outcome::NotEvaluated { reason: Reason::AccessDenied, .. }),
            "{}",
            finding.control
        );
    }
    // An empty cluster has nothing to judge, and that is no pass.
    let mut empty = ClusterFacts::default();
    profile.resources().iter().for_each(|resource| empty.add(resource, []));
    assert_all(&judge(&empty), Status::NotApplicable);
    // An object without any of the fields that a rule asks for.
    let mut hollow = cluster_facts(&good_cluster());
    hollow.add(&Resource::new("", "v1", "pods"), [json!({"metadata": {"name": "hollow", "namespace": "app"}})]);
    for finding in
        judge(&hollow).iter().filter(|f| f.control.starts_with("pod-") && f.control != "pod-not-in-default-namespace")
    {
        assert!(
            matches!(finding.outcome, Outcome::NotEvaluated { reason: Reason::FactMissing, .. }),
            "{}",
            finding.control
        );
    }
}

#[test]
fn namespaces_of_gapscan_itself_are_left_out() {
    let mut objects = good_cluster();
    objects["v1/namespaces"] =
        json!([{"metadata": {"name": "app", "labels": {"app.kubernetes.io/managed-by": "gapscan"}}}]);
    let findings = judge_cluster(profile("cluster-baseline"), &cluster_facts(&objects), &Limits::default());
    for finding in findings.iter().filter(|f| !f.control.starts_with("rbac")) {
        assert_eq!(finding.outcome.status(), Status::NotApplicable, "{}", finding.control);
    }
}

/// Random pods with the verdicts that the Pod Security admission of a Kubernetes 1.36 API server gave: another program's
/// reading of the same standard.
#[test]
fn pods_are_judged_as_pod_security_admission_judges_them() {
    let profile = profile("cluster-baseline");
    let asks = |control: &str, level: &str| {
        let references = &profile.profile().control(control).expect("it is judged").references;
        references.iter().any(|r| r.scheme == "pss" && r.id.starts_with(level))
    };
    for (line, text) in include_str!("testdata/pod-security-1.36.jsonl").lines().enumerate() {
        let case: Json = serde_json::from_str(text).expect("a line of JSON");
        let mut facts = ClusterFacts::default();
        facts.add(&Resource::namespaces(), [json!({"metadata": {"name": "app"}})]);
        let pod = json!({"metadata": {"name": "p", "namespace": "app"}, "spec": case["spec"]});
        facts.add(&Resource::new("", "v1", "pods"), [pod]);
        let findings = judge_cluster(profile, &facts, &Limits::default());
        let meets = |level: &str| {
            findings.iter().filter(|f| asks(&f.control, level)).all(|f| match f.outcome {
                Outcome::Passed => true,
                Outcome::Failed => false,
                ref other => panic!("line {}: {}: {other:?}", line + 1, f.control),
            })
        };
        // What is restricted is baseline too.
        let verdict = json!({"baseline": meets("baseline"), "restricted": meets("baseline") && meets("restricted")});
        let wanted = json!({"baseline": case["baseline"], "restricted": case["restricted"]});
        assert_eq!(verdict, wanted, "line {}", line + 1);
    }
}

mod properties {
    use proptest::prelude::*;

    use super::*;

    fn json_value() -> impl Strategy<Value = Json> {
        let leaf = prop_oneof![
            Just(Json::Null),
            any::<bool>().prop_map(Json::from),
            any::<i64>().prop_map(Json::from),
            any::<u64>().prop_map(Json::from),
            any::<f64>().prop_map(|f| json!(f)),
            "[ -~]{0,12}".prop_map(Json::from),
            prop_oneof![Just("/etc/ssh/sshd_config"), Just("4755"), Just("no"), Just("/")].prop_map(Json::from),
        ];
        leaf.prop_recursive(4, 40, 6, |inner| {
            let key = prop_oneof![
                Just("path"),
                Just("perm"),
                Just("uid"),
                Just("name"),
                Just("type"),
                Just("/etc/ssh/sshd_config"),
                Just("/etc/passwd"),
            ];
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Json::from),
                prop::collection::hash_map(key.prop_map(str::to_owned), inner, 0..6)
                    .prop_map(|map| Json::Object(map.into_iter().collect())),
            ]
        })
    }

    const SYSTEMS: [(&str, TargetKind); 3] = [
        ("container-baseline", TargetKind::Container),
        ("image-baseline", TargetKind::Image),
        ("host-baseline", TargetKind::Host),
    ];

    proptest! {
        #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

        /// Knowing less never makes a verdict that knowing more does not make: it only takes verdicts away.
        #[test]
        fn taking_facts_away_only_takes_verdicts_away(spoiled in any::<u64>(), kept in any::<u32>()) {
            for (name, kind) in SYSTEMS {
                let mut all = good_system();
                for (i, (_, pointer, value)) in bad_systems(kind.word()).into_iter().enumerate() {
                    let into_list = pointer.rsplit('/').next().is_some_and(|last| last.parse::<usize>().is_ok());
                    if spoiled & (1 << i) != 0 && (!into_list || all.pointer(pointer).is_some()) {
                        set(&mut all, pointer, value);
                    }
                }
                let mut less = all.clone();
                let facts = less.as_object_mut().expect("an object");
                let mut bit = 0;
                facts.retain(|_, _| { bit += 1; kept & (1 << bit) != 0 });
                let judge = |facts: &Json| judge_system(profile(name), facts, kind, &Limits::default());
                for (more, less) in judge(&all).into_iter().zip(judge(&less)) {
                    let same = more.outcome.status() == less.outcome.status();
                    let unknown = matches!(less.outcome, Outcome::NotEvaluated { .. });
                    prop_assert!(same || unknown, "{}: {:?} became {:?}", more.control, more.outcome, less.outcome);
                }
            }
        }

        /// Whatever the facts are, there is one finding for each control, and always the same.
        #[test]
        fn any_facts_give_one_finding_for_each_control(
            fields in prop::collection::hash_map(prop::sample::select(crate::native::rules::fact_names()), json_value(), 0..17)
        ) {
            let facts = Json::Object(fields.into_iter().map(|(k, v)| (k.to_owned(), v)).collect());
            for (name, kind) in SYSTEMS {
                let findings = judge_system(profile(name), &facts, kind, &Limits::default());
                let ids: Vec<_> = findings.iter().map(|f| f.control.as_str()).collect();
                let wanted: Vec<_> = profile(name).profile().controls.iter().map(|c| c.id.as_str()).collect();
                prop_assert_eq!(ids, wanted);
                prop_assert_eq!(&findings, &judge_system(profile(name), &facts, kind, &Limits::default()));
            }
        }

        /// The same of a cluster, with objects in any form.
        #[test]
        fn any_objects_give_one_finding_for_each_control(objects in prop::collection::vec((0..7_usize, json_value()), 0..12)) {
            let profile = profile("cluster-baseline");
            let resources: Vec<_> = profile.resources().into_iter().collect();
            let mut facts = ClusterFacts::default();
            for (i, object) in objects {
                facts.add(&resources[i], [object]);
            }
            let findings = judge_cluster(profile, &facts, &Limits::default());
            prop_assert_eq!(findings.len(), profile.profile().controls.len());
            prop_assert_eq!(&findings, &judge_cluster(profile, &facts, &Limits::default()));
        }
    }
}
