//! `gapscan load` as a process: in parts, killed, rehearsed, and with its receipt.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;

/// The embedded registry as a process.
struct Served {
    process: Child,
    address: String,
}

impl Served {
    fn start(data: &Path) -> Self {
        let mut process = Command::new(env!("CARGO_BIN_EXE_gapscan"))
            .args(["registry", "serve", "--plain-http", "--listen", "127.0.0.1:0", "--data"])
            .arg(data)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("it starts");
        let mut line = String::new();
        BufReader::new(process.stdout.take().expect("a pipe")).read_line(&mut line).expect("its address");
        let address = line.trim().strip_prefix("http://").expect("plain HTTP").to_owned();
        Self { process, address }
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A built bundle, and a registry to load it into.
struct Enclave {
    folder: tempfile::TempDir,
    served: Served,
}

impl Enclave {
    /// With a layer of so many bytes.
    fn new(layer_bytes: usize) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let served = Served::start(&folder.path().join("registry"));
        let enclave = Self { folder, served };
        let init = [
            "trust",
            "init",
            "trust",
            "--unencrypted",
            "--expires",
            "root=36500d,targets=36500d,snapshot=36500d,timestamp=36500d",
        ];
        success(&enclave.gapscan(&init));
        // The smallest thing that counts as a static program: an ELF header with one segment to load.
        let mut elf = vec![0; 64 + 56];
        elf[..6].copy_from_slice(b"\x7fELF\x02\x01");
        (elf[18], elf[32], elf[54], elf[56], elf[64]) = (0x3e, 64, 56, 1, 1);
        enclave.write("agent", &elf);
        enclave.write("db/vulnerability.db", &(0..layer_bytes).map(|n| (n / 7 * 13) as u8).collect::<Vec<_>>());
        enclave.write("other/file", &(0..layer_bytes / 2).map(|n| (n / 3 * 5) as u8).collect::<Vec<_>>());
        let yaml = "apiVersion: gapscan/v1\nkind: Bundle\nname: content\nversion: 1\nvalidFor: 36500d\n\
                    dependencies:\n- {name: db, from: 'dir:db', built: 2026-01-01T00:00:00Z, maxAge: 7d}\n\
                    - {name: other, from: 'dir:other', built: 2026-01-01T00:00:00Z, maxAge: 7d}\n";
        enclave.write("bundle.yaml", yaml.as_bytes());
        success(&enclave.gapscan(&["bundle", "lock", "--agent", "agent"]));
        success(&enclave.gapscan(&["bundle", "build", "--agent", "agent", "--keys", "trust", "-o", "out.tar"]));
        enclave
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        fs::write(path, bytes).expect("a file");
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_gapscan"));
        command.current_dir(self.folder.path()).args(arguments).env_remove("GAPSCAN_PASSPHRASE");
        command.env("SOURCE_DATE_EPOCH", "1767225600");
        command
    }

    fn gapscan(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().expect("gapscan runs")
    }

    fn load_command(&self, arguments: &[&str]) -> Command {
        let registry = format!("{}/a", self.served.address);
        let to = ["--root", "trust/root.json", "--plain-http", "--registry", &registry];
        self.command(&[&["load"], arguments, &to].concat())
    }

    fn load(&self, arguments: &[&str]) -> Output {
        self.load_command(arguments).stdin(Stdio::null()).output().expect("gapscan runs")
    }

    fn cut(&self, part_bytes: usize) -> usize {
        let bytes = fs::read(self.path("out.tar")).expect("the bundle");
        let pieces = bytes.chunks(part_bytes);
        let count = pieces.len();
        for (at, piece) in pieces.enumerate() {
            // On two media, every other part on each.
            self.write(&format!("media-{}/out.tar.{:03}", at % 2, at + 1), piece);
        }
        count
    }

    /// Whether some version is remembered.
    fn remembered(&self) -> bool {
        let Ok(lineages) = fs::read_dir(self.path("gapscan-state")) else { return false };
        lineages.flatten().any(|lineage| lineage.path().join("content.json").exists())
    }

    /// The tags of each repository.
    fn tags(&self) -> BTreeMap<String, Vec<String>> {
        let mut tags = BTreeMap::new();
        for repository in ["catalog", "images/gapscan", "dependencies/db", "dependencies/other"] {
            let runtime = tokio::runtime::Runtime::new().expect("a runtime");
            let client = gapscan::registry::Client::new(gapscan::registry::ClientConfig {
                transport: gapscan::registry::Transport::PlainHttp,
                ..gapscan::registry::ClientConfig::new(self.served.address.parse().expect("an address"))
            })
            .expect("a client");
            let name = format!("a/{repository}").parse().expect("a repository");
            let found = runtime.block_on(client.tags(&name)).expect("tags");
            // That of the metadata beside the catalog is none of an item.
            let found = found.iter().map(ToString::to_string).filter(|tag| !tag.starts_with("sha256-"));
            tags.insert(repository.to_owned(), found.collect());
        }
        tags
    }
}

fn success(output: &Output) {
    assert!(output.status.success(), "{output:?}");
}

fn message(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn parts_on_two_media_are_loaded_in_any_order_and_a_missing_one_is_named() {
    let enclave = Enclave::new(30_000);
    let count = enclave.cut(8192);
    // One that has neither the metadata nor the end.
    let number = count - 3;
    let part = format!("media-{}/out.tar.{number:03}", (number - 1) % 2);
    fs::rename(enclave.path(&part), enclave.path("kept")).expect("taken out");
    let output = enclave.load(&["media-1", "media-0"]);
    assert_eq!(output.status.code(), Some(5), "{}", message(&output));
    let text = message(&output);
    assert!(text.contains(&format!("missing: part {number} of {count}")), "{text}");
    assert!(text.contains(&format!("bring part {number} again")) && text.contains("not whole:"), "{text}");
    assert!(enclave.tags().values().all(Vec::is_empty));
    assert!(!enclave.path("gapscan-state/receipts").exists(), "no receipt of what did not come to its end");

    let rehearsed = enclave.load(&["media-1", "media-0", "--dry-run"]);
    assert_eq!(rehearsed.status.code(), Some(5), "{}", message(&rehearsed));
    fs::rename(enclave.path("kept"), enclave.path(&part)).expect("put in");
    let output = enclave.load(&["media-1", "media-0/out.tar.001", &part, "media-0"]);
    success(&output);
    assert!(enclave.tags().values().all(|tags| tags == &["content", "content.1"]), "{:?}", enclave.tags());
}

#[test]
fn parts_in_a_pipe_are_the_whole() {
    let enclave = Enclave::new(20_000);
    let count = enclave.cut(4096);
    let names: Vec<String> = (0..count).map(|at| format!("media-{}/out.tar.{:03}", at % 2, at + 1)).collect();
    let mut cat = Command::new("cat")
        .current_dir(enclave.folder.path())
        .args(&names)
        .stdout(Stdio::piped())
        .spawn()
        .expect("cat");
    let output = enclave.load_command(&["-"]).stdin(cat.stdout.take().expect("a pipe")).output().expect("gapscan runs");
    cat.wait().expect("cat ended");
    success(&output);
}

#[test]
fn a_load_leaves_a_signed_receipt_each_time() {
    let enclave = Enclave::new(20_000);
    let output = enclave.load(&["out.tar", "--receipt", "copy"]);
    success(&output);
    let text = message(&output);
    let root = enclave.gapscan(&["trust", "show", "trust"]);
    let root = String::from_utf8_lossy(&root.stdout).into_owned();
    for line in ["fingerprint  ", "spoken       "].map(|name| root.lines().find_map(|line| line.strip_prefix(name))) {
        let said = line.expect("trust show says it");
        assert!(text.contains(said), "{said}: {text}");
    }
    assert!(text.contains("receipt: gapscan-state/receipts/content.1.receipt"), "{text}");
    assert!(text.contains("runner's public key: gapscan-state/runner.pub"), "{text}");
    let receipt = enclave.path("gapscan-state/receipts/content.1.receipt");
    assert_eq!(fs::read(&receipt).expect("it"), fs::read(enclave.path("copy")).expect("its copy"));
    let shown = enclave.gapscan(&["bundle", "receipt", "copy", "--key", "gapscan-state/runner.pub", "-o", "json"]);
    success(&shown);
    let first: Value = serde_json::from_slice(&shown.stdout).expect("JSON");
    assert_eq!(first["kind"], "LoadReceipt");
    assert_eq!(first["sources"][0], "out.tar");
    assert!(first["blobs"].as_array().is_some_and(|blobs| !blobs.is_empty()));

    let again = enclave.load(&["out.tar"]);
    success(&again);
    assert!(!message(&again).contains("runner's public key"), "it is said once");
    let shown = enclave.gapscan(&[
        "bundle",
        "receipt",
        "gapscan-state/receipts/content.1.receipt",
        "--key",
        "gapscan-state/runner.pub",
        "-o",
        "json",
    ]);
    let second: Value = serde_json::from_slice(&shown.stdout).expect("JSON");
    let digests = |receipt: &Value| -> Vec<Value> {
        receipt["blobs"].as_array().expect("blobs").iter().map(|blob| blob["digest"].clone()).collect()
    };
    assert_eq!(digests(&first), digests(&second), "a full one");
    let outcomes = |receipt: &Value| -> Vec<Value> {
        let blobs = receipt["blobs"].as_array().expect("blobs").iter();
        blobs
            .flat_map(|blob| blob["repositories"].as_object().expect("places").values().cloned().collect::<Vec<_>>())
            .collect()
    };
    assert!(outcomes(&second).iter().all(|outcome| outcome == "present"), "{second}");

    success(&enclave.gapscan(&["trust", "init", "another", "--unencrypted"]));
    let table = enclave.gapscan(&["bundle", "receipt", "copy", "--key", "gapscan-state/runner.pub"]);
    assert!(String::from_utf8_lossy(&table.stdout).contains("dependencies/db"), "{table:?}");
}

#[test]
fn a_dry_run_prints_what_would_happen_and_writes_nothing() {
    let enclave = Enclave::new(20_000);
    let output = enclave.load(&["out.tar", "--dry-run", "-o", "json"]);
    success(&output);
    let found: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert!(found["blobs"]["push"].as_u64().is_some_and(|push| push > 0), "{found}");
    assert!(!enclave.path("gapscan-state").exists(), "the state is untouched");
    assert!(enclave.tags().values().all(Vec::is_empty));
    let table = enclave.load(&["out.tar", "--dry-run"]);
    assert!(String::from_utf8_lossy(&table.stdout).contains("nothing was written"), "{table:?}");
}

#[test]
fn a_load_killed_at_any_instant_goes_on_when_it_is_repeated_and_had_tagged_nothing() {
    let enclave = Enclave::new(24 << 20);
    let mut killed = 0;
    for milliseconds in [1, 20, 60, 120, 200, 300, 450, 700] {
        let mut load = enclave.load_command(&["out.tar", "-q"]).stdin(Stdio::null()).spawn().expect("it starts");
        std::thread::sleep(std::time::Duration::from_millis(milliseconds));
        let over = load.try_wait().expect("its state").is_some();
        let _ = load.kill();
        load.wait().expect("gone");
        if over {
            break;
        }
        killed += 1;
        // Whenever it died: what finds the catalog finds all items, and what was tagged was remembered before.
        let tags = enclave.tags();
        for tag in ["content.1", "content"] {
            let all = tags.values().all(|tags| tags.iter().any(|t| t == tag));
            assert!(all || !tags["catalog"].iter().any(|t| t == tag), "{tags:?}");
        }
        let tagged = tags.values().any(|tags| !tags.is_empty());
        assert!(!tagged || enclave.remembered(), "tagged before the version was remembered");
    }
    assert!(killed > 0, "at least one was killed");
    success(&enclave.load(&["out.tar", "--read-back", "all"]));
    assert!(enclave.tags().values().all(|tags| tags == &["content", "content.1"]), "{:?}", enclave.tags());
    // Nothing is left to do.
    let again = enclave.load(&["out.tar"]);
    success(&again);
    assert!(
        message(&again).contains("pushed: 0 B") && message(&again).contains("tags moved: 0"),
        "{}",
        message(&again)
    );
}
