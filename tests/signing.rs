//! Roots that follow each other, bundles that several people sign, keys that are elsewhere, and what bundles say about
//! others: by the command line, with openssl and an HSM in software.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

const LONG: &str = "root=36500d,targets=36500d,snapshot=36500d,timestamp=36500d";

/// A working folder with a root in `trust`, and a definition of a bundle with gapscan's own image alone.
struct Desk {
    folder: tempfile::TempDir,
}

impl Desk {
    fn new(init: &[&str]) -> Self {
        let desk = Self { folder: tempfile::tempdir().expect("a folder") };
        success(&desk.gapscan(&[&["trust", "init", "trust", "--unencrypted", "--expires", LONG], init].concat()));
        // The smallest thing that counts as a static program: an ELF header with one segment to load.
        let mut elf = vec![0; 64 + 56];
        elf[..6].copy_from_slice(b"\x7fELF\x02\x01");
        (elf[18], elf[32], elf[54], elf[56], elf[64]) = (0x3e, 64, 56, 1, 1);
        fs::write(desk.path("agent"), elf).expect("a file");
        desk.define("content", 1, "");
        desk
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn define(&self, name: &str, version: u64, more: &str) {
        let yaml =
            format!("apiVersion: gapscan/v1\nkind: Bundle\nname: {name}\nversion: {version}\nvalidFor: 36500d\n{more}");
        fs::write(self.path("bundle.yaml"), yaml).expect("a file");
    }

    fn run(&self, program: &str, args: &[&str]) -> Output {
        let mut command = Command::new(program);
        command.current_dir(self.folder.path()).args(args).env_remove("GAPSCAN_PASSPHRASE").stdin(Stdio::null());
        command.env("SOURCE_DATE_EPOCH", "1767225600").env("SOFTHSM2_CONF", self.path("softhsm.conf"));
        command.output().expect(program)
    }

    fn gapscan(&self, args: &[&str]) -> Output {
        self.run(env!("CARGO_BIN_EXE_gapscan"), args)
    }

    fn build(&self, keys: &str, output: &str, more: &[&str]) -> Output {
        success(&self.gapscan(&["bundle", "lock", "--agent", "agent", "-q"]));
        self.gapscan(&[&["bundle", "build", "--agent", "agent", "-q", "--keys", keys, "-o", output], more].concat())
    }

    /// Verifies with the root that was pinned first, and remembers.
    fn verify(&self, file: &str) -> Output {
        self.gapscan(&["bundle", "verify", "-q", file, "--root", "trust/1.root.json", "--state", "state"])
    }

    /// Another machine's folder: the roots of `trust` and some of its keys.
    fn machine(&self, name: &str, keys: &[&str]) {
        fs::create_dir_all(self.path(name).join("keys")).expect("a folder");
        let keys: Vec<String> = keys.iter().map(|key| format!("keys/{key}.pem")).collect();
        for file in ["root.json", "1.root.json"].into_iter().chain(keys.iter().map(String::as_str)) {
            fs::copy(self.path("trust").join(file), self.path(name).join(file)).expect("a copy");
        }
    }

    fn keys(&self, role: &str) -> Vec<String> {
        let shown = self.gapscan(&["trust", "show", "trust", "-o", "json"]);
        let shown: Value = serde_json::from_slice(&success(&shown).stdout).expect("JSON");
        let keys = shown["roles"][role]["keys"].as_array().expect("keys");
        keys.iter().map(|key| key.as_str().expect("an id").to_owned()).collect()
    }

    fn openssl(&self, args: &[&str]) {
        success(&self.run("openssl", args));
    }

    /// Makes a key with openssl: `NAME.pem` and `NAME.pub`.
    fn openssl_key(&self, name: &str) {
        let (private, public) = (format!("{name}.pem"), format!("{name}.pub"));
        let made = ["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", &private];
        self.openssl(&made);
        self.openssl(&["pkey", "-in", &private, "-pubout", "-out", &public]);
    }

    /// What the command prints, in a file.
    fn write_printed(&self, file: &str, args: &[&str]) {
        fs::write(self.path(file), &success(&self.gapscan(args)).stdout).expect("a file");
    }
}

#[track_caller]
fn success(output: &Output) -> &Output {
    assert!(output.status.success(), "{output:?}");
    output
}

#[track_caller]
fn refused(output: &Output, code: i32, words: &str) {
    let message = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{message}");
    assert!(message.contains(words), "{words:?} is not in {message:?}");
    assert!(output.stdout.is_empty(), "nothing is claimed: {output:?}");
}

/// The value of a line `NAME  VALUE` that a command printed.
fn value(output: &Output, name: &str) -> String {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let line =
        text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')).unwrap_or_else(|| panic!("{text}"));
    line.trim().to_owned()
}

fn there_is(program: &str) -> bool {
    Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
}

#[test]
fn an_enclave_follows_a_rotation_and_takes_nothing_from_before_it() {
    let desk = Desk::new(&[]);
    success(&desk.build("trust", "old.tar", &[]));
    success(&desk.verify("old.tar"));
    let before = value(&desk.gapscan(&["trust", "show", "trust"]), "spoken");
    assert_eq!((before.len(), before.split(' ').count()), (47, 8), "{before}");

    let rotated = desk.gapscan(&[
        "trust",
        "rotate",
        "trust",
        "--unencrypted",
        "--add",
        "targets",
        "--remove",
        "targets-1",
        "--threshold",
        "root=1",
        "--expires",
        "snapshot=36499d",
    ]);
    assert_eq!(value(success(&rotated), "root"), "version 2");
    assert_ne!(value(&rotated, "spoken"), before);
    success(&desk.gapscan(&["trust", "rotate", "trust"]));

    // The removed key is of no use, and what it signed before was let in by a root that is not the newest any more.
    fs::remove_file(desk.path("trust/keys/targets-2.pem")).expect("a key");
    refused(&desk.build("trust", "new.tar", &[]), 2, "0 of its keys");
    success(&desk.gapscan(&["trust", "rotate", "trust", "--unencrypted", "--add", "targets"]));
    desk.define("content", 2, "");
    success(&desk.build("trust", "new.tar", &[]));
    success(&desk.verify("new.tar"));
    refused(&desk.verify("old.tar"), 4, "root 3 was seen before");
}

#[test]
fn a_root_of_two_machines_waits_and_says_for_whom() {
    let desk = Desk::new(&["--threshold", "root=2"]);
    desk.machine("a", &["root-1", "targets-1"]);
    desk.machine("b", &["root-2"]);
    let begun = desk.gapscan(&["trust", "rotate", "a", "--add", "snapshot", "--unencrypted"]);
    assert_eq!(value(success(&begun), "pending"), "a/2.root.json.pending");
    assert!(String::from_utf8_lossy(&begun.stdout).contains("1 of 2 there"), "{begun:?}");
    refused(&desk.gapscan(&["trust", "rotate", "a", "--add", "targets", "--unencrypted"]), 2, "waits for signatures");
    refused(&desk.gapscan(&["trust", "rotate", "b", "--sign"]), 2, "there is no");
    fs::copy(desk.path("a/2.root.json.pending"), desk.path("b/2.root.json.pending")).expect("carried");
    let told = desk.gapscan(&["trust", "rotate", "b"]);
    assert!(String::from_utf8_lossy(&success(&told).stdout).contains("snapshot: key"), "{told:?}");
    let signed = desk.gapscan(&["trust", "rotate", "b", "--sign"]);
    assert_eq!(value(success(&signed), "root"), "version 2");
    assert!(!desk.path("b/2.root.json.pending").exists() && desk.path("b/2.root.json").exists());
    // Back on the first machine the finished root is taken in by its file.
    fs::copy(desk.path("b/2.root.json"), desk.path("a/2.root.json")).expect("carried");
    let told = desk.gapscan(&["trust", "rotate", "a"]);
    assert!(String::from_utf8_lossy(&success(&told).stdout).contains("root 2 is the newest"), "{told:?}");
    assert!(!desk.path("a/2.root.json.pending").exists());
    assert_eq!(
        fs::read(desk.path("a/root.json")).expect("a root"),
        fs::read(desk.path("b/root.json")).expect("a root")
    );
}

#[test]
fn two_builders_co_sign_what_both_got_from_one_lock() {
    let desk = Desk::new(&["--threshold", "targets=2"]);
    desk.machine("a", &["targets-1", "snapshot-1", "timestamp-1"]);
    desk.machine("b", &["targets-2", "snapshot-1", "timestamp-1"]);
    desk.machine("c", &["targets-2"]);
    let first = desk.build("a", "bundle.tar", &[]);
    let said = String::from_utf8_lossy(&success(&first).stderr).into_owned();
    assert!(said.contains("1 of 2 signatures on targets"), "{said}");
    refused(&desk.verify("bundle.tar"), 4, "asks for 2");
    let second = desk.build("b", "other.tar", &[]);
    let content = value(success(&second), "content");
    assert_eq!(content, value(&first, "content"));

    let sign = |more: &[&str]| desk.gapscan(&[&["bundle", "sign", "-q", "bundle.tar", "--keys", "c"], more].concat());
    let zeros = format!("sha256:{}", "0".repeat(64));
    refused(&sign(&["--content", &zeros]), 4, "was asked for");
    refused(&desk.verify("bundle.tar"), 4, "asks for 2");
    let signed = sign(&["--content", &content, "-o", "both.tar"]);
    assert_eq!(value(success(&signed), "content"), content);
    success(&desk.verify("both.tar"));
    success(&sign(&["--content", &content]));
    assert_eq!(fs::read(desk.path("bundle.tar")).expect("a file"), fs::read(desk.path("both.tar")).expect("a file"));
    assert!(String::from_utf8_lossy(&success(&sign(&[])).stdout).contains("already"));

    // A bundle with damage, and one of another root, get no signature.
    let mut bytes = fs::read(desk.path("other.tar")).expect("a file");
    let last = bytes.len() - 1024 - 512;
    bytes[last] ^= 1;
    fs::write(desk.path("bundle.tar"), &bytes).expect("write");
    refused(&sign(&[]), 4, "changed or damaged");
    assert_eq!(fs::read(desk.path("bundle.tar")).expect("a file"), bytes, "it is as it was");
    let other = Desk::new(&[]);
    let keys = other.path("trust");
    refused(
        &desk.gapscan(&["bundle", "sign", "other.tar", "--keys", keys.to_str().expect("a path")]),
        4,
        "chain of roots",
    );
}

/// The files in a folder that begin so.
fn listing(folder: &Path, begin: &str) -> Vec<String> {
    let entries = fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").file_name());
    let mut names: Vec<String> = entries.map(|name| name.to_string_lossy().into_owned()).collect();
    names.retain(|name| name.starts_with(begin));
    names.sort();
    names
}

#[test]
fn a_bundle_in_parts_is_signed_into_new_parts() {
    let desk = Desk::new(&["--threshold", "targets=2"]);
    desk.machine("a", &["targets-1", "snapshot-1", "timestamp-1"]);
    desk.machine("c", &["targets-2"]);
    for folder in ["media", "signed", "again"] {
        fs::create_dir(desk.path(folder)).expect("a folder");
    }
    success(&desk.build("a", "media/bundle.tar", &["--split", "2048"]));
    success(&desk.build("a", "whole.tar", &[]));
    let snapshot = |folder: &str| -> Vec<Vec<u8>> {
        let names = listing(&desk.path(folder), "bundle.tar.0");
        names.iter().map(|name| fs::read(desk.path(folder).join(name)).expect("a part")).collect()
    };
    let before = snapshot("media");
    assert!(before.len() > 3, "{}", before.len());
    let sign = |more: &[&str]| desk.gapscan(&[&["bundle", "sign", "-q", "--keys", "c"], more].concat());
    refused(&sign(&["media"]), 2, "name with -o");
    refused(&sign(&["media", "-o", "media/bundle.tar"]), 2, "is there already");
    refused(&sign(&["-"]), 2, "standard input");
    let signed = sign(&["media", "-o", "signed/bundle.tar"]);
    assert_eq!(value(success(&signed), "sums"), "signed/bundle.tar.sha256, signed by 1 key");
    let said = String::from_utf8_lossy(&signed.stderr).into_owned();
    assert!(said.contains("what others signed over the sums before"), "{said}");
    assert_eq!(snapshot("media"), before, "the old ones are as they were");
    success(&desk.verify("signed"));
    refused(&desk.verify("media"), 4, "asks for 2");

    // The same comes out as from one file, in parts of the old length, and the sums are of all of it.
    success(&sign(&["whole.tar"]));
    let after = snapshot("signed");
    assert_eq!(after.concat(), fs::read(desk.path("whole.tar")).expect("the bundle"));
    assert!(after[..after.len() - 1].iter().all(|part| part.len() == 2048));
    let mut sha256sum = Command::new("sha256sum");
    sha256sum.current_dir(desk.path("signed")).args(["--check", "--strict", "--ignore-missing", "bundle.tar.sha256"]);
    let checked = String::from_utf8_lossy(&success(&sha256sum.output().expect("sha256sum")).stdout).into_owned();
    assert_eq!(checked.lines().filter(|line| line.ends_with(": OK")).count(), after.len(), "{checked}");

    // Parts that are read for a payload, and a part that is missing.
    let payload = |bundle: &str| {
        let args = ["bundle", "sign", "-q", bundle, "--root", "trust/root.json", "--payload", "targets"];
        success(&desk.gapscan(&args)).stdout.clone()
    };
    assert_eq!(payload("signed"), payload("whole.tar"));
    // Behind the metadata, so that it is known how many there must be.
    let (count, number) = (before.len(), before.len() - 1);
    fs::remove_file(desk.path(&format!("media/bundle.tar.{number:03}"))).expect("removed");
    let missing = format!("missing: part {number} of {count}");
    refused(&sign(&["media", "-o", "again/bundle.tar"]), 5, &missing);
    assert_eq!(listing(&desk.path("again"), ""), Vec::<String>::new());
}

/// A signature of one more makes the archive another file, so that what was signed over its old sums says nothing of it.
#[test]
fn after_a_signature_the_sums_are_new_and_signed_by_who_was_there() {
    let desk = Desk::new(&["--threshold", "targets=2"]);
    desk.machine("a", &["targets-1", "snapshot-1", "timestamp-1"]);
    desk.machine("c", &["targets-2"]);
    let built = desk.build("a", "bundle.tar", &[]);
    let sums = fs::read(desk.path("bundle.tar.sha256")).expect("sums");
    let key = |of: &str| {
        success(&desk.gapscan(&["trust", "show", "trust", "--pem", "pem"]));
        let keys = desk.keys("targets");
        let there = listing(&desk.path(""), &format!("{of}.sha256."));
        keys.into_iter().filter(|key| there.contains(&format!("{of}.sha256.{}.sig", &key[..8]))).collect::<Vec<_>>()
    };
    let first = key("bundle.tar");
    assert_eq!(first.len(), 1);
    fs::copy(desk.path(&format!("bundle.tar.sha256.{}.sig", &first[0][..8])), desk.path("old.sig")).expect("a copy");
    let signed = desk.gapscan(&["bundle", "sign", "-q", "bundle.tar", "--keys", "c"]);
    assert_eq!(value(success(&signed), "sums"), "bundle.tar.sha256, signed by 1 key");
    assert_ne!(value(&signed, "digest"), value(&built, "digest"));
    assert!(String::from_utf8_lossy(&signed.stderr).contains("the keys that are here"), "{signed:?}");
    let second = key("bundle.tar");
    assert_eq!(second.len(), 1);
    assert_ne!(second, first, "the first signed other sums");
    assert_ne!(fs::read(desk.path("bundle.tar.sha256")).expect("sums"), sums);
    let verify = |key: &str, signature: &str| {
        let pem = format!("pem/{}.pem", &key[..8]);
        let args = ["dgst", "-sha256", "-verify", &pem, "-signature", signature, "bundle.tar.sha256"];
        desk.run("openssl", &args).status.success()
    };
    assert!(verify(&second[0], &format!("bundle.tar.sha256.{}.sig", &second[0][..8])));
    assert!(!verify(&first[0], "old.sig"), "it could not hold");
}

#[test]
fn openssl_reads_the_public_keys_and_signs_in_their_place() {
    let desk = Desk::new(&[]);
    success(&desk.gapscan(&["trust", "show", "trust", "--pem", "pem"]));
    for key in desk.keys("targets") {
        desk.openssl(&["pkey", "-pubin", "-in", &format!("pem/{}.pem", &key[..8]), "-noout"]);
    }
    // Targets and the root go over to keys that gapscan never sees.
    desk.openssl_key("targets");
    desk.openssl_key("root");
    let rotate = ["trust", "rotate", "trust"];
    let change = [
        "--add-public",
        "targets=targets.pub",
        "--remove",
        "targets-1",
        "--add-public",
        "root=root.pub",
        "--remove",
        "root-1",
    ];
    assert_eq!(value(success(&desk.gapscan(&[&rotate[..], &change].concat())), "pending"), "trust/2.root.json.pending");
    desk.write_printed("payload", &[&rotate[..], &["--payload"]].concat());
    desk.openssl(&["dgst", "-sha256", "-sign", "root.pem", "-out", "signature", "payload"]);
    let pending: Value =
        serde_json::from_slice(&fs::read(desk.path("trust/2.root.json.pending")).expect("a file")).expect("JSON");
    let root_key = pending["signed"]["roles"]["root"]["keyids"][0].as_str().expect("an id").to_owned();
    desk.openssl(&["dgst", "-sha256", "-sign", "targets.pem", "-out", "wrong", "payload"]);
    let add =
        |file: &str| desk.gapscan(&[&rotate[..], &["--signature", &format!("{}={file}", &root_key[..8])]].concat());
    assert_eq!(add("wrong").status.code(), Some(4));
    assert_eq!(value(success(&add("signature")), "root"), "version 2");

    refused(&desk.build("trust", "bundle.tar", &[]), 2, "0 of its keys");
    let built = desk.build("trust", "bundle.tar", &["--sign-later"]);
    assert!(String::from_utf8_lossy(&success(&built).stderr).contains("0 of 1 signatures on targets"), "{built:?}");
    refused(&desk.verify("bundle.tar"), 4, "asks for 1");
    let sign = ["bundle", "sign", "-q", "bundle.tar", "--root", "trust/root.json"];
    desk.write_printed("payload", &[&sign[..], &["--payload", "targets"]].concat());
    desk.openssl(&["dgst", "-sha256", "-sign", "targets.pem", "-out", "signature", "payload"]);
    let key = &desk.keys("targets")[0][..8];
    let add = |file: &str| desk.gapscan(&[&sign[..], &["--signature", &format!("{key}={file}")]].concat());
    refused(&add("wrong"), 4, "does not fit");
    success(&add("signature"));
    success(&desk.verify("bundle.tar"));
}

#[test]
fn a_key_in_an_hsm_signs_a_bundle() {
    let modules = [
        "/usr/lib/softhsm/libsofthsm2.so",
        "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so",
        "/usr/lib/aarch64-linux-gnu/softhsm/libsofthsm2.so",
    ];
    let module = modules.into_iter().find(|path| Path::new(path).exists());
    let (true, true, Some(module)) = (there_is("softhsm2-util"), there_is("pkcs11-tool"), module) else {
        println!("skipped: needs softhsm2-util and pkcs11-tool");
        return;
    };
    let desk = Desk::new(&[]);
    fs::create_dir(desk.path("tokens")).expect("a folder");
    let conf = format!("directories.tokendir = {}\nobjectstore.backend = file\n", desk.path("tokens").display());
    fs::write(desk.path("softhsm.conf"), conf).expect("a file");
    success(
        &desk.run(
            "softhsm2-util",
            &["--init-token", "--free", "--label", "gapscan", "--pin", "1234", "--so-pin", "1234"],
        ),
    );
    let token = ["--module", module, "--token-label", "gapscan", "--login", "--pin", "1234"];
    let tool = |more: &[&str]| success(&desk.run("pkcs11-tool", &[&token[..], more].concat())).clone();
    tool(&["--keypairgen", "--key-type", "EC:prime256v1", "--id", "01", "--label", "targets"]);
    tool(&["--read-object", "--type", "pubkey", "--id", "01", "--output-file", "hsm.der"]);
    desk.openssl(&["pkey", "-pubin", "-inform", "DER", "-in", "hsm.der", "-outform", "PEM", "-out", "hsm.pub"]);
    success(&desk.gapscan(&[
        "trust",
        "rotate",
        "trust",
        "--add-public",
        "targets=hsm.pub",
        "--threshold",
        "targets=2",
    ]));

    success(&desk.build("trust", "bundle.tar", &[]));
    refused(&desk.verify("bundle.tar"), 4, "asks for 2");
    let sign = ["bundle", "sign", "-q", "bundle.tar", "--root", "trust/root.json"];
    desk.write_printed("payload", &[&sign[..], &["--payload", "targets"]].concat());
    desk.openssl(&["dgst", "-sha256", "-binary", "-out", "digest", "payload"]);
    tool(&[
        "--sign",
        "--mechanism",
        "ECDSA",
        "--id",
        "01",
        "--signature-format",
        "openssl",
        "--input-file",
        "digest",
        "--output-file",
        "signature",
    ]);
    // Which of the two is the HSM's: the other has signed already, and its signature by the HSM does not count.
    let hsm = desk.keys("targets").into_iter().find(|key| {
        let added =
            desk.gapscan(&[&sign[..], &["-o", "signed.tar", "--signature", &format!("{key}=signature")]].concat());
        added.status.success() && String::from_utf8_lossy(&added.stdout).contains("2 of 2 signatures on targets")
    });
    hsm.expect("one of the keys made the signature");
    success(&desk.verify("signed.tar"));
}

#[test]
fn notices_revoke_a_bundle_and_permit_an_older_one() {
    let desk = Desk::new(&[]);
    let first = desk.build("trust", "1.tar", &[]);
    let content = value(success(&first), "content");
    success(&desk.verify("1.tar"));
    desk.define("content", 2, "");
    success(&desk.build("trust", "2.tar", &[]));
    success(&desk.verify("2.tar"));
    refused(&desk.verify("1.tar"), 4, "version 2 was accepted before");

    // Notices alone: not even gapscan's own image is in it.
    let permit = format!(
        "permits:\n- {{bundle: content, version: 1, content: '{content}', until: 2100-01-01T00:00:00Z, reason: a bad database}}\n"
    );
    desk.define("notices", 1, &permit);
    success(&desk.build("trust", "permit.tar", &[]));
    assert!(fs::metadata(desk.path("permit.tar")).expect("a file").len() < 20_000);
    success(&desk.verify("permit.tar"));
    success(&desk.verify("1.tar"));
    success(&desk.verify("2.tar"));
    refused(&desk.verify("1.tar"), 4, "was used already");

    desk.define("notices", 2, "revocations:\n- {bundle: content, version: 2, reason: its scanner reports nothing}\n");
    success(&desk.build("trust", "revoke.tar", &[]));
    success(&desk.verify("revoke.tar"));
    refused(&desk.verify("2.tar"), 4, "its scanner reports nothing");

    // Whoever looks at them sees what they say.
    let root = ["--root", "trust/root.json"];
    let shown = |file: &str| {
        let output = desk.gapscan(&[&["bundle", "inspect", file], &root[..]].concat());
        String::from_utf8_lossy(&success(&output).stdout).into_owned()
    };
    let text = shown("permit.tar");
    for words in ["NOTICE", "permitted  content version 1  2100-01-01 00:00Z", &content[7..19], "a bad database"] {
        assert!(text.contains(words), "{words}: {text}");
    }
    let text = shown("revoke.tar");
    assert!(text.contains("revoked  content version 2  for ever  its scanner reports nothing"), "{text}");
    assert!(!text.contains("ITEM"), "there is none: {text}");
    assert!(!shown("1.tar").contains("NOTICE"));
    let compared = desk.gapscan(&[&["bundle", "diff", "permit.tar", "revoke.tar"], &root[..]].concat());
    assert_eq!(compared.status.code(), Some(1), "{compared:?}");
    let text = String::from_utf8_lossy(&compared.stdout).split_whitespace().collect::<Vec<_>>().join(" ");
    for words in [
        "NOTICES it says now that content version 2 is revoked for ever: its scanner reports nothing",
        "it does not say any more that content version 1 with content",
    ] {
        assert!(text.contains(words), "{words}: {text}");
    }

    for (case, more) in [
        ("nothing named", "revocations:\n- {reason: why}\n"),
        ("two things named", "revocations:\n- {bundle: content, version: 1, item: 'sha256:0', reason: why}\n"),
        ("no reason", "revocations:\n- {bundle: content, version: 1, reason: ''}\n"),
        ("itself", "revocations:\n- {bundle: notices, version: 3, reason: why}\n"),
    ] {
        desk.define("notices", 3, more);
        let locked = desk.gapscan(&["bundle", "lock", "--agent", "agent", "-q"]);
        assert!(!locked.status.success(), "{case}");
    }
}

#[test]
fn a_state_survives_being_killed_at_any_instant() {
    let desk = Desk::new(&[]);
    let versions = 12;
    for version in 1..=versions {
        desk.define("notices", version, &format!("revocations:\n- {{bundle: x, version: {version}, reason: why}}\n"));
        success(&desk.build("trust", &format!("{version}.tar"), &[]));
    }
    let begin = |version: u64| {
        let file = format!("{version}.tar");
        Command::new(env!("CARGO_BIN_EXE_gapscan"))
            .current_dir(desk.folder.path())
            .args(["bundle", "verify", "-q", &file, "--root", "trust/root.json", "--state", "state"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("gapscan runs")
    };
    // How long one takes, so that the kills are spread over all of it, whatever the machine.
    let started = std::time::Instant::now();
    assert!(begin(1).wait().expect("it ends").success());
    let whole = started.elapsed();
    let mut acknowledged = 1;
    for version in 2..=versions {
        for step in 0..6 {
            let mut child = begin(version);
            std::thread::sleep(whole * (step * 2 + 1) / 10);
            let _ = child.kill();
            if child.wait().expect("it ends").success() {
                acknowledged = version;
            }
        }
        if acknowledged > 1 {
            let older = desk.verify(&format!("{}.tar", acknowledged - 1));
            refused(&older, 4, "was accepted before");
        }
        // Whatever it was killed at, the same can be done again.
        success(&desk.verify(&format!("{version}.tar")));
        acknowledged = version;
    }
}
