//! What people do wrong: one message that names the file, the place, the reason and the remedy, the documented exit code,
//! and nothing on stdout that could be taken for a result.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;

/// A working folder of somebody who makes mistakes.
struct Desk {
    folder: tempfile::TempDir,
}

impl Desk {
    fn new() -> Self {
        let desk = Self { folder: tempfile::tempdir().expect("a folder") };
        desk.write("passphrase", "right\n");
        desk.write("wrong-passphrase", "wrong\n");
        desk.write("text", "no document at all\n");
        // The smallest thing that counts as a static program: an ELF header with one segment to load.
        let mut elf = vec![0; 64 + 56];
        elf[..6].copy_from_slice(b"\x7fELF\x02\x01");
        (elf[18], elf[32], elf[54], elf[56], elf[64]) = (0x3e, 64, 56, 1, 1);
        fs::write(desk.path("agent"), elf).expect("a file");
        desk
    }

    /// With keys, a bundle `x` in `x.tar`, and another root in `other`.
    fn with_bundle() -> Self {
        let desk = Self::new();
        for folder in ["trust", "other"] {
            desk.works(&["trust", "init", folder, "--passphrase-file", "passphrase"]);
        }
        desk.define("dependencies: [{name: db, from: 'file:text'}]\n");
        desk.works(&["bundle", "lock", "--agent", "agent"]);
        desk.works(&[&BUILD[..], &["--passphrase-file", "passphrase", "-o", "x.tar"]].concat());
        desk
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        fs::write(path, text).expect("a file");
    }

    fn define(&self, more: &str) {
        self.write("bundle.yaml", &format!("apiVersion: gapscan/v1\nkind: Bundle\nname: x\nversion: 1\n{more}"));
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_gapscan"));
        command.current_dir(self.folder.path()).args(arguments).stdin(Stdio::null());
        for name in ["GAPSCAN_PASSPHRASE", "GAPSCAN_LEDGER", "SOURCE_DATE_EPOCH", "DOCKER_CONFIG"] {
            command.env_remove(name);
        }
        command.env("HOME", self.folder.path()).env("KUBECONFIG", self.path("no-kubeconfig"));
        command
    }

    fn gapscan(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().expect("gapscan runs")
    }

    fn works(&self, arguments: &[&str]) {
        let output = self.gapscan(arguments);
        assert!(output.status.success(), "{arguments:?}: {output:?}");
    }

    /// Ends with this code, says all of these words once, and nothing on stdout.
    fn fails(&self, arguments: &[&str], code: i32, words: &[&str]) {
        let output = self.gapscan(arguments);
        let message = String::from_utf8(output.stderr).expect("a message is UTF-8");
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {message}");
        for word in words {
            assert!(message.contains(word), "{arguments:?}: {word:?} is not in {message:?}");
        }
        let messages = message.lines().filter(|l| l.starts_with("gapscan: failed to ") || l.starts_with("error: "));
        assert_eq!(messages.count(), 1, "{arguments:?}: {message}");
        assert!(!message.contains("panicked") && !message.contains("backtrace"), "{message}");
        assert!(output.stdout.is_empty(), "{arguments:?} claims {:?}", String::from_utf8_lossy(&output.stdout));
    }

    /// The definition with this can't be locked.
    fn unlockable(&self, more: &str, code: i32, words: &[&str]) {
        self.define(more);
        self.fails(&["bundle", "lock", "-q", "--agent", "agent"], code, words);
    }

    /// The plan with this can't be served.
    fn unservable(&self, more: &str, words: &[&str]) {
        self.write("plan.yaml", &format!("apiVersion: gapscan/v1\nkind: Plan\nname: p\n{more}"));
        self.fails(&["serve"], 2, &[words, &["`plan.yaml`"]].concat());
    }
}

const BUILD: [&str; 7] = ["bundle", "build", "-q", "--agent", "agent", "--keys", "trust"];

/// An embedded registry that asks for a password, killed at the end.
struct Registry {
    process: Child,
    address: String,
}

impl Registry {
    fn start(desk: &Desk) -> Self {
        let arguments = ["registry", "serve", "--data", "reg", "--listen", "127.0.0.1:0"];
        let user = ["--username", "me", "--password-file", "passphrase"];
        Self::serve(desk, &[&arguments[..], &user].concat())
    }

    fn serve(desk: &Desk, arguments: &[&str]) -> Self {
        let mut command = desk.command(arguments);
        let mut process = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("it starts");
        let mut line = String::new();
        BufReader::new(process.stdout.take().expect("a pipe")).read_line(&mut line).expect("its address");
        Self { process, address: line.trim().rsplit('/').next().unwrap_or_default().to_owned() }
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn a_definition_that_is_none() {
    let desk = Desk::new();
    let lock = |file: &'static str| ["bundle", "lock", "-f", file];
    desk.fails(&lock("nope.yaml"), 5, &["`nope.yaml`", "No such file"]);
    desk.fails(&lock("."), 5, &["`.`", "no regular file"]);
    desk.fails(&lock("text"), 2, &["`text`", "as Bundle", "line 1"]);
    desk.write("plan.yaml", "apiVersion: gapscan/v1\nkind: Plan\nname: p\nscans: []\n");
    desk.fails(&lock("plan.yaml"), 2, &["`plan.yaml`", "its kind is `Plan`"]);
    desk.define("");
    desk.fails(&["bundle", "new", "."], 2, &["`./bundle.yaml`", "File exists", "name another place"]);
}

#[test]
fn a_definition_with_a_mistake() {
    let desk = Desk::new();
    desk.unlockable("imges: []\n", 2, &["`bundle.yaml`", "line 5, column 1", "imges", "images"]);
    desk.unlockable("images: [{name: a, from: debian}]\n", 2, &["line 5", "`debian`", "HOST/REPOSITORY"]);
    let (no_tag, bad_digest) = ("r.example/a/b", "r.example/a/b@sha256:12");
    desk.unlockable(&format!("images: [{{name: a, from: {no_tag}}}]\n"), 2, &[no_tag, "neither a tag nor a digest"]);
    desk.unlockable(&format!("images: [{{name: a, from: '{bad_digest}'}}]\n"), 2, &[bad_digest, "64 lower-case"]);
    desk.unlockable("images: [{name: a, from: 'oci:nope'}]\n", 5, &["nope/index.json", "No such file"]);
    desk.unlockable("dependencies: [{name: a, from: 'file:nope'}]\n", 5, &["nope", "No such file"]);
    desk.unlockable("dependencies: [{name: a, from: 'file:text', maxAge: 3x}]\n", 2, &["line 5", "`3x`", "90d"]);
    desk.unlockable("platforms: [linux/s390x]\n", 2, &["linux/s390x", "linux/amd64"]);
    desk.unlockable("profiles: [{path: nope}]\n", 5, &["nope/profile.yaml"]);
    desk.unlockable("scanners: [nope.yaml]\n", 5, &["nope.yaml"]);
    desk.unlockable("scanners: [bundle.yaml]\n", 2, &["bundle.yaml", "as Scanner", "its kind is `Bundle`"]);
}

#[test]
fn a_scanner_and_a_profile_with_a_mistake() {
    let desk = Desk::new();
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR"));
    let grype = fs::read_to_string(shipped.join("bundle/scanners/grype.yaml")).expect("a scanner");
    desk.write("s.yaml", &grype.replace("format: grype", "format: nessus"));
    desk.unlockable("scanners: [s.yaml]\n", 2, &["s.yaml", "line 30", "nessus", "arf"]);
    desk.write("s.yaml", &grype.replace("path: grype.json", "path: ../x").replace("mount: /grype-db", "mount: db"));
    desk.unlockable("scanners: [s.yaml]\n", 2, &["s.yaml", "result.path", "../x", "dependencies.grype-db.mount"]);
    desk.write("s.yaml", &grype);
    desk.unlockable("scanners: [s.yaml]\n", 4, &["grype", "the image `grype`", "not in the bundle"]);

    let profile = fs::read_to_string(shipped.join("profiles-mirror/image-baseline/profile.yaml")).expect("a profile");
    let rules = fs::read_to_string(shipped.join("profiles-mirror/image-baseline/rules/accounts.yaml")).expect("rules");
    desk.write("image-baseline/profile.yaml", &profile);
    for file in ["configuration", "files", "software"] {
        let from = shipped.join(format!("profiles-mirror/image-baseline/rules/{file}.yaml"));
        desk.write(&format!("image-baseline/rules/{file}.yaml"), &fs::read_to_string(from).expect("rules"));
    }
    desk.write("image-baseline/rules/accounts.yaml", &rules.replace("u.uid == 0", "u.uid == "));
    let broken = ["`image-baseline`", "rules/accounts.yaml"];
    desk.unlockable("profiles: [{path: image-baseline}]\n", 2, &broken);
}

#[test]
fn keys_and_passphrases() {
    let desk = Desk::with_bundle();
    let build = |more: &[&'static str]| [&BUILD[..], more].concat();
    desk.fails(&build(&["-o", "y.tar"]), 2, &["passphrase", "no terminal", "--passphrase-file"]);
    let wrong = ["--passphrase-file", "wrong-passphrase", "-o", "y.tar"];
    desk.fails(&build(&wrong), 2, &["trust/keys/", "the passphrase does not open it"]);
    desk.fails(&["bundle", "build", "--keys", "nope", "-o", "y.tar"], 2, &["`nope`", "no such folder", "--keys"]);
    desk.fails(&build(&["--passphrase-file", "passphrase", "-o", "trust"]), 5, &["write `trust`", "no regular file"]);
    for entry in fs::read_dir(desk.path("trust/keys")).expect("keys") {
        let path = entry.expect("a key").path();
        fs::set_permissions(path, fs::Permissions::from_mode(0o644)).expect("its mode");
    }
    let right = ["--passphrase-file", "passphrase", "-o", "y.tar"];
    desk.fails(&build(&right), 2, &["trust/keys/", "0644", "chmod 600"]);
    desk.fails(&["trust", "init", "trust", "--unencrypted"], 2, &["`trust/root.json`", "there already"]);
    desk.fails(&["trust", "init", "t", "--unencrypted", "--threshold", "foo=1"], 2, &["foo=1", "root, targets"]);
    desk.define("");
    desk.fails(&build(&right), 2, &["`bundle.lock`", "bundle.yaml was changed", "gapscan bundle lock"]);
    fs::remove_file(desk.path("bundle.lock")).expect("it is there");
    desk.fails(&build(&right), 2, &["`bundle.lock`", "there is none", "gapscan bundle lock"]);
}

#[test]
fn what_is_no_bundle_or_not_trusted() {
    let desk = Desk::with_bundle();
    let whole = fs::read(desk.path("x.tar")).expect("the bundle");
    fs::write(desk.path("cut.tar"), &whole[..whole.len() / 2]).expect("a file");
    for command in [&["bundle", "verify"][..], &["bundle", "inspect"]] {
        let verify = |file: &'static str, root: &'static str| [command, &[file, "--root", root]].concat();
        desk.fails(&verify("nope.tar", "trust/root.json"), 5, &["`nope.tar`", "No such file"]);
        desk.fails(&verify("trust", "trust/root.json"), 2, &["`trust`", "NAME.001"]);
        desk.fails(&verify("text", "trust/root.json"), 4, &["verify `text`", "truncated"]);
        desk.fails(&verify("cut.tar", "trust/root.json"), 4, &["verify `cut.tar`", "truncated", "SHA-256"]);
        desk.fails(&verify("x.tar", "other/root.json"), 4, &["verify `x.tar`", "fingerprint", "trust show"]);
        desk.fails(&verify("x.tar", "nope.json"), 5, &["`nope.json`"]);
        desk.fails(&verify("x.tar", "text"), 2, &["`text` as a root", "trust init"]);
    }
    desk.fails(&["bundle", "verify", "x.tar"], 2, &["--root"]);
    desk.fails(&["trust", "show", "other/keys"], 5, &["other/keys/root.json"]);
}

#[test]
fn a_registry_that_does_not_answer_as_hoped() {
    let desk = Desk::with_bundle();
    let registry = Registry::start(&desk);
    let at = &*registry.address;
    let load = |more: &[&'static str]| -> Vec<String> {
        let fixed = ["load", "-q", "x.tar", "--root", "trust/root.json", "--registry"];
        fixed.iter().chain(&[at]).chain(more).map(|word| (*word).to_owned()).collect()
    };
    let fails = |more: &[&'static str], code, words: &[&str]| {
        let words_of = load(more);
        desk.fails(&words_of.iter().map(String::as_str).collect::<Vec<_>>(), code, words);
    };
    fails(&[], 5, &[at, "UnknownIssuer", "--ca"]);
    fails(&["--ca", "nope.crt"], 5, &["`nope.crt`", "No such file"]);
    fails(&["--ca", "text"], 2, &[at, "CA", "PEM"]);
    fails(&["--ca", "reg/tls/ca.crt"], 5, &[at, "asks for credentials", "--username"]);
    let wrong = ["--ca", "reg/tls/ca.crt", "--username", "me", "--password-file", "wrong-passphrase"];
    fails(&wrong, 5, &[at, "did not accept the credentials", "--username"]);
    fails(&["--username", "me"], 2, &["--password-file"]);

    let serve = |data: &'static str| ["registry", "serve", "--data", data, "--listen", at];
    desk.fails(&serve("other-data"), 5, &[at, "Address already in use", "--listen"]);
    desk.fails(&serve("reg"), 5, &["`reg`", "another process"]);
    desk.fails(&serve("text"), 5, &["`text`"]);
    let open = ["registry", "serve", "--data", "d", "--listen", "0.0.0.0:0", "--plain-http"];
    desk.fails(&open, 2, &["0.0.0.0", "loopback"]);
    let plain =
        Registry::serve(&desk, &["registry", "serve", "--data", "plain", "--listen", "127.0.0.1:0", "--plain-http"]);
    let load = ["load", "x.tar", "--root", "trust/root.json", "--registry", &plain.address];
    desk.fails(&load, 5, &["does not speak TLS", "--plain-http"]);
    desk.fails(&["load", "x.tar", "--root", "trust/root.json", "--registry", "https://r/x"], 2, &["scheme"]);
}

#[test]
fn what_a_scan_can_not_begin_with() {
    let desk = Desk::new();
    desk.fails(&["scan"], 2, &["no target", "gapscan scan host"]);
    desk.fails(&["scan", "hots"], 2, &["`hots`", "pod/NS/NAME"]);
    desk.fails(&["scan", "pod/shop"], 2, &["`pod/shop`", "its namespace and its name"]);
    desk.fails(&["scan", "image/debian"], 2, &["`image/debian`", "docker.io/library/debian"]);
    desk.fails(&["scan", "image/r.example/a"], 2, &["`image/r.example/a`", "neither a tag nor a digest"]);
    desk.fails(&["scan", "host", "-e", "grpye"], 2, &["no engine `grpye`", "builtin"]);
    desk.fails(&["scan", "host", "-p", "host-basline"], 2, &["no profile `host-basline`", "host-baseline"]);
    desk.fails(&["scan", "host", "--bundle", "x"], 2, &["--registry", "--root"]);
    let versioned = ["scan", "host", "--bundle", "x.1", "--registry", "r.example", "--root", "text"];
    desk.fails(&versioned, 2, &["x.1", "without its version"]);
    desk.fails(&["scan", "-f", "nope.yaml"], 5, &["`nope.yaml`"]);
    desk.fails(&["scan", "host", "-L", "text"], 6, &["`text`", "no ledger"]);
    desk.fails(&["scan", "host", "-L", "."], 6, &["`.`", "a folder"]);
    desk.fails(&["scan", "host", "-L", "nope/ledger"], 6, &["nope/ledger", "must exist"]);
    let _held = gapscan::ledger::Ledger::open(&desk.path("held"), jiff::Timestamp::now()).expect("a ledger");
    desk.fails(&["scan", "host", "-L", "held"], 6, &["`held`", "writing to it", "wait"]);
}

#[test]
fn a_plan_with_a_mistake() {
    let desk = Desk::new();
    desk.fails(&["serve"], 5, &["`plan.yaml`", "No such file"]);
    let scan = |more: &str| format!("scans: [{{name: a, targets: [host], {more}}}]\n");
    desk.unservable(
        &scan("schedule: {cron: '61 * * * *', timeZone: UTC}"),
        &["line 4", "`61 * * * *`", "30 2 * * 1-5"],
    );
    desk.unservable(&scan("schedule: {cron: '0 0 30 2 *', timeZone: UTC}"), &["never due"]);
    desk.unservable(&scan("schedule: {cron: '0 0 * * *', timeZone: Mars/Phobos}"), &["`Mars/Phobos`", "Europe/Berlin"]);
    desk.unservable(&scan("schedule: {cron: '0 0 * * *'}"), &["timeZone"]);
    desk.unservable(&scan("shedule: {}"), &["shedule"]);
    desk.unservable(&scan("engines: [grype]"), &["`grype`", "no bundle"]);
    desk.unservable("scans: [{name: a, targets: [image/debian]}]\n", &["scan `a`", "`image/debian`"]);
    desk.unservable("scans: [{name: a, targets: [hots]}]\n", &["`hots`"]);
}

#[test]
fn a_ledger_that_is_none_or_has_no_such_thing() {
    let desk = Desk::new();
    let export: &[&str] = &["export", "--format", "html"];
    for command in [&["results"][..], &["history"], &["ledger", "verify"], export] {
        let on = |ledger: &'static str| [command, &["-L", ledger]].concat();
        desk.fails(&on("nope"), 5, &["`nope`", "there is none", "--ledger"]);
        desk.fails(&on("text"), 6, &["`text`", "no ledger"]);
        desk.fails(&on("."), 6, &["`.`", "a folder"]);
    }
    drop(gapscan::ledger::Ledger::open(&desk.path("empty"), jiff::Timestamp::now()).expect("a ledger"));
    let run = "01890000-0000-7000-8000-000000000000";
    desk.fails(&["results", "-L", "empty", "--run", run], 2, &[run, "no such run", "gapscan history"]);
    desk.fails(&["results", "-L", "empty", "--target", "host"], 2, &["`host`", "none"]);
    desk.fails(&["history", "-L", "empty", "host"], 2, &["`host`", "none"]);
    desk.fails(&[export, &["-L", "empty", "--target", "host"]].concat(), 2, &["no result", "gapscan results"]);
    desk.fails(&["export", "-L", "empty", "--format", "pdf"], 2, &["pdf", "hdf, jsonl, html"]);
}

#[test]
fn what_a_scan_prints_is_data_and_what_it_says_is_not() {
    let desk = Desk::new();
    let json = desk.gapscan(&["scan", "node/n1", "-L", "l", "-o", "json"]);
    assert_eq!(json.status.code(), Some(3), "{json:?}");
    let runs: Value = serde_json::from_slice(&json.stdout).expect("nothing but JSON");
    assert_eq!(runs[0]["results"][0]["target"], "node/n1");
    assert_eq!(runs[0]["coverage"]["notEvaluated"], runs[0]["coverage"]["expected"]);
    assert!(String::from_utf8_lossy(&json.stderr).contains("gapscan results -L l"), "{json:?}");

    let table = desk.gapscan(&["scan", "node/n1", "-L", "l", "-q"]);
    assert!(table.stderr.is_empty(), "{table:?}");
    let text = String::from_utf8(table.stdout).expect("UTF-8");
    assert!(text.starts_with("SCORE") && text.contains("node/n1") && text.contains("not evaluated,"), "{text}");
}
