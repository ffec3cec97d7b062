//! Every shipped rule, shown facts that it passes, facts that it fails, and no facts.

mod cluster;
mod properties;

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
