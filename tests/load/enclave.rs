//! A bundle that was built, and a registry to load it into.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

/// The embedded registry as a process.
pub(crate) struct Served {
    process: Child,
    pub(crate) address: String,
}

impl Served {
    pub(crate) fn start(data: &Path) -> Self {
        Self::with(data, &["--plain-http"])
    }

    pub(crate) fn with(data: &Path, options: &[&str]) -> Self {
        let mut process = Command::new(env!("CARGO_BIN_EXE_gapscan"))
            .args(["registry", "serve", "--listen", "127.0.0.1:0", "--data"])
            .arg(data)
            .args(options)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("it starts");
        let mut line = String::new();
        BufReader::new(process.stdout.take().expect("a pipe")).read_line(&mut line).expect("its address");
        let address = line.trim().split_once("://").expect("an address").1.to_owned();
        Self { process, address }
    }

    /// The tags of each repository below `a/`, without those of the metadata beside the catalog.
    pub(crate) fn tags(&self) -> BTreeMap<String, Vec<String>> {
        let mut tags = BTreeMap::new();
        for repository in ["catalog", "images/gapscan", "dependencies/db", "dependencies/other"] {
            let runtime = tokio::runtime::Runtime::new().expect("a runtime");
            let client = gapscan::registry::Client::new(gapscan::registry::ClientConfig {
                transport: gapscan::registry::Transport::PlainHttp,
                ..gapscan::registry::ClientConfig::new(self.address.parse().expect("an address"))
            })
            .expect("a client");
            let name = format!("a/{repository}").parse().expect("a repository");
            let found = runtime.block_on(client.tags(&name)).expect("tags");
            let found = found.iter().map(ToString::to_string).filter(|tag| !tag.starts_with("sha256-"));
            tags.insert(repository.to_owned(), found.collect());
        }
        tags
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A built bundle, and a registry to load it into.
pub(crate) struct Enclave {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) served: Served,
}

impl Enclave {
    /// With a layer of so many bytes, and one of half as many.
    pub(crate) fn new(layer_bytes: usize) -> Self {
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
        enclave.build(1, "", "out.tar");
        enclave
    }

    /// Builds a version of the bundle, with `more` in its definition.
    pub(crate) fn build(&self, version: u64, more: &str, tar: &str) {
        let yaml = format!(
            "apiVersion: gapscan/v1\nkind: Bundle\nname: content\nversion: {version}\nvalidFor: 36500d\n{more}\
             dependencies:\n- {{name: db, from: 'dir:db', built: 2026-01-01T00:00:00Z, maxAge: 7d}}\n\
             - {{name: other, from: 'dir:other', built: 2026-01-01T00:00:00Z, maxAge: 7d}}\n"
        );
        self.write("bundle.yaml", yaml.as_bytes());
        success(&self.gapscan(&["bundle", "lock", "--agent", "agent"]));
        success(&self.gapscan(&["bundle", "build", "--agent", "agent", "--keys", "trust", "-o", tar]));
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, bytes: &[u8]) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        fs::write(path, bytes).expect("a file");
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_gapscan"));
        command.current_dir(self.folder.path()).args(arguments).env_remove("GAPSCAN_PASSPHRASE");
        command.env("SOURCE_DATE_EPOCH", "1767225600").env_remove("GAPSCAN_LEDGER");
        command
    }

    pub(crate) fn gapscan(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().expect("gapscan runs")
    }

    /// A load into `a` of this registry, which speaks plain HTTP.
    pub(crate) fn load_command_into(&self, served: &Served, arguments: &[&str]) -> Command {
        let registry = format!("{}/a", served.address);
        let to = ["--root", "trust/root.json", "--plain-http", "--registry", &registry];
        self.command(&[&["load"], arguments, &to].concat())
    }

    pub(crate) fn load_command(&self, arguments: &[&str]) -> Command {
        self.load_command_into(&self.served, arguments)
    }

    pub(crate) fn load(&self, arguments: &[&str]) -> Output {
        self.load_command(arguments).stdin(Stdio::null()).output().expect("gapscan runs")
    }

    /// A load into `a` of the registry at this address, over TLS.
    pub(crate) fn load_over_tls(&self, address: &str, arguments: &[&str]) -> Output {
        let registry = format!("{address}/a");
        self.gapscan(&[&["load", "--root", "trust/root.json", "--registry", &registry], arguments].concat())
    }

    pub(crate) fn cut(&self, part_bytes: usize) -> usize {
        let bytes = fs::read(self.path("out.tar")).expect("the bundle");
        let pieces = bytes.chunks(part_bytes);
        let count = pieces.len();
        for (at, piece) in pieces.enumerate() {
            // On two media, every other part on each.
            self.write(&format!("media-{}/out.tar.{:03}", at % 2, at + 1), piece);
        }
        count
    }

    /// The tags of each repository.
    pub(crate) fn tags(&self) -> BTreeMap<String, Vec<String>> {
        self.served.tags()
    }
}

#[track_caller]
pub(crate) fn success(output: &Output) {
    assert!(output.status.success(), "{output:?}");
}

#[track_caller]
pub(crate) fn refused(output: &Output, code: i32, words: &str) {
    let said = message(output);
    assert_eq!(output.status.code(), Some(code), "{said}");
    assert!(said.contains(words), "{words:?} is not in {said:?}");
}

pub(crate) fn message(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Whether a program that a test needs is there; says so where it is not.
pub(crate) fn on_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let there = std::env::split_paths(&path).any(|folder| folder.join(program).is_file());
    if !there {
        println!("skipped: needs {program}");
    }
    there
}
