//! Building from a registry by the command line: parts, sums, what is downloaded how often, and what is left when it fails.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Condvar, Mutex};

use gapscan::base::digest::Digest;

/// A registry with one image, which counts what it is asked for and can stop in the middle of a layer.
struct Upstream {
    address: String,
    shared: Arc<Shared>,
    layers: Vec<Vec<u8>>,
}

#[derive(Default)]
struct Shared {
    content: BTreeMap<String, (String, Vec<u8>)>,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    blobs: usize,
    /// Answers to requests for blobs stop after so many bytes.
    stalled: bool,
    /// How many answers have stopped.
    waiting: usize,
    /// Answers to requests for blobs break off once in the middle, if they are long.
    broken: usize,
}

impl Upstream {
    fn start() -> Self {
        let layers: Vec<Vec<u8>> =
            [3_000_000_usize, 700_000, 1].iter().enumerate().map(|(n, size)| noise(n as u64 + 1, *size)).collect();
        let mut content = BTreeMap::new();
        let mut blob = |path: &str, media_type: &str, bytes: Vec<u8>| {
            let digest = Digest::of(&bytes);
            let descriptor = serde_json::json!({ "mediaType": media_type, "digest": digest, "size": bytes.len() });
            content.insert(format!("/v2/a/{path}/{digest}"), (media_type.to_owned(), bytes));
            descriptor
        };
        let listed: Vec<_> =
            layers.iter().map(|l| blob("blobs", "application/vnd.oci.image.layer.v1.tar", l.clone())).collect();
        let diff_ids: Vec<Digest> = layers.iter().map(Digest::of).collect();
        let config = serde_json::json!({
            "architecture": "amd64", "os": "linux", "rootfs": { "type": "layers", "diff_ids": diff_ids },
        });
        let config = blob("blobs", "application/vnd.oci.image.config.v1+json", config.to_string().into_bytes());
        let media_type = "application/vnd.oci.image.manifest.v1+json";
        let manifest = serde_json::json!({
            "schemaVersion": 2, "mediaType": media_type, "config": config, "layers": listed,
        });
        let manifest = manifest.to_string().into_bytes();
        blob("manifests", media_type, manifest.clone());
        content.insert("/v2/a/manifests/1".to_owned(), (media_type.to_owned(), manifest));

        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("its address").to_string();
        let shared = Arc::new(Shared { content, ..Shared::default() });
        let serving = Arc::clone(&shared);
        // It ends with the test's process.
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let shared = Arc::clone(&serving);
                std::thread::spawn(move || shared.serve(stream));
            }
        });
        Self { address, shared, layers }
    }

    fn set(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.shared.state.lock().expect("no thread panics in here"));
        self.shared.changed.notify_all();
    }

    /// How many blobs were asked for since the last time.
    fn blobs(&self) -> usize {
        std::mem::take(&mut self.shared.state.lock().expect("no thread panics in here").blobs)
    }

    fn wait_for_a_stall(&self) {
        let state = self.shared.state.lock().expect("no thread panics in here");
        drop(self.shared.changed.wait_while(state, |state| state.waiting == 0).expect("no thread panics in here"));
    }
}

impl Shared {
    fn serve(&self, stream: TcpStream) -> Option<()> {
        let mut out = stream.try_clone().ok()?;
        let mut lines = BufReader::new(stream).lines();
        loop {
            let request = lines.next()?.ok()?;
            let mut from = 0;
            loop {
                let line = lines.next()?.ok()?.to_ascii_lowercase();
                if let Some(range) = line.strip_prefix("range: bytes=") {
                    from = range.trim_end_matches('-').parse().ok()?;
                }
                if line.is_empty() {
                    break;
                }
            }
            let mut words = request.split(' ');
            let (method, path) = (words.next()?, words.next()?);
            let Some((media_type, bytes)) = self.content.get(path) else {
                out.write_all(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n").ok()?;
                continue;
            };
            let status = if from > 0 { "206 Partial Content" } else { "200 OK" };
            let length = bytes.len() - from;
            let last = bytes.len().saturating_sub(1);
            write!(out, "HTTP/1.1 {status}\r\ncontent-type: {media_type}\r\ncontent-length: {length}\r\n").ok()?;
            write!(out, "content-range: bytes {from}-{last}/{}\r\n\r\n", bytes.len()).ok()?;
            if method == "HEAD" {
                continue;
            }
            let mut until = bytes.len();
            let mut cut = false;
            if path.contains("/blobs/") {
                let mut state = self.state.lock().expect("no thread panics in here");
                state.blobs += usize::from(from == 0);
                if state.broken > 0 && length > 1000 {
                    state.broken -= 1;
                    until = from + length / 2;
                    cut = true;
                } else if state.stalled && length > 100_000 {
                    out.write_all(&bytes[from..from + 50_000]).ok()?;
                    state.waiting += 1;
                    self.changed.notify_all();
                    drop(self.changed.wait_while(state, |state| state.stalled).expect("no thread panics in here"));
                    return None;
                }
            }
            out.write_all(&bytes[from..until]).ok()?;
            if cut {
                return None;
            }
        }
    }
}

/// Bytes that look like nothing else.
fn noise(seed: u64, size: usize) -> Vec<u8> {
    let mut state = seed;
    let mut bytes = Vec::with_capacity(size + 8);
    while bytes.len() < size {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(size);
    bytes
}

/// A working folder with a definition that takes its image from a registry.
struct Desk {
    folder: tempfile::TempDir,
    upstream: Upstream,
}

impl Desk {
    fn new() -> Self {
        let desk = Self { folder: tempfile::tempdir().expect("a folder"), upstream: Upstream::start() };
        let validity = "root=36500d,targets=36500d,snapshot=36500d,timestamp=36500d";
        assert_success(&desk.gapscan(&["trust", "init", "trust", "--unencrypted", "--expires", validity]));
        // The smallest thing that counts as a static program: an ELF header with one segment to load.
        let mut elf = vec![0; 64 + 56];
        elf[..6].copy_from_slice(b"\x7fELF\x02\x01");
        (elf[18], elf[32], elf[54], elf[56], elf[64]) = (0x3e, 64, 56, 1, 1);
        fs::write(desk.path("agent"), elf).expect("write");
        desk.define(1);
        assert_success(&desk.lock());
        desk
    }

    fn define(&self, version: u64) {
        let address = &self.upstream.address;
        let yaml = format!(
            "apiVersion: gapscan/v1\nkind: Bundle\nname: content\nversion: {version}\nvalidFor: 36500d\n\
             registries:\n  '{address}': {{plainHttp: true}}\nimages:\n- {{name: far, from: '{address}/a:1'}}\n"
        );
        fs::write(self.path("bundle.yaml"), yaml).expect("write");
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_gapscan"));
        command.current_dir(self.folder.path()).args(args).env_remove("GAPSCAN_PASSPHRASE");
        command.env("SOURCE_DATE_EPOCH", "1767225600").env("XDG_CACHE_HOME", self.path("caches"));
        command
    }

    fn gapscan(&self, args: &[&str]) -> Output {
        self.command(args).output().expect("gapscan runs")
    }

    fn lock(&self) -> Output {
        self.gapscan(&["bundle", "lock", "--agent", "agent"])
    }

    fn build(&self, output: &str, more: &[&str]) -> Output {
        let args = ["bundle", "build", "--agent", "agent", "--keys", "trust", "-o", output];
        self.gapscan(&[&args[..], more].concat())
    }

    /// The names that begin so.
    fn names(&self, prefix: &str) -> Vec<String> {
        let entries = fs::read_dir(self.folder.path()).expect("the folder");
        let names = entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned());
        let mut names: Vec<String> = names.filter(|name| name.starts_with(prefix)).collect();
        names.sort();
        names
    }
}

fn assert_success(output: &Output) {
    assert!(output.status.success(), "{output:?}");
}

fn refused(output: &Output, code: i32, words: &str) {
    let message = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{message}");
    assert!(message.contains(words), "{words:?} is not in {message:?}");
    assert!(output.stdout.is_empty(), "nothing is claimed: {output:?}");
}

fn text(output: &Output) -> String {
    assert_success(output);
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn nothing_is_downloaded_twice_unless_it_is_asked_for() {
    let desk = Desk::new();
    desk.upstream.blobs();
    assert!(text(&desk.build("one.tar", &[])).contains("0 B from bundles that are here"));
    assert!(desk.upstream.blobs() >= desk.upstream.layers.len());
    let bytes = fs::read(desk.path("one.tar")).expect("the bundle");
    for (output, more) in [("one.tar", &[][..]), ("two.tar", &[]), ("three.tar", &["--split", "500kB"])] {
        let said = text(&desk.build(output, more));
        assert!(said.contains("fetched  0 B, and 3.5 MiB from bundles"), "{said}");
        assert_eq!(desk.upstream.blobs(), 0, "{output}: no blob is downloaded twice");
    }
    // The next version of the same content needs nothing new either.
    desk.define(2);
    assert_success(&desk.lock());
    desk.upstream.blobs();
    assert!(text(&desk.build("next.tar", &[])).contains("fetched  0 B"));
    assert_eq!(desk.upstream.blobs(), 0);
    desk.define(1);
    assert_success(&desk.lock());
    desk.upstream.blobs();
    for more in [&["--no-cache"][..], &["--cache", "elsewhere"]] {
        assert_success(&desk.build("four.tar", more));
        assert!(desk.upstream.blobs() >= desk.upstream.layers.len(), "{more:?}");
    }
    for output in ["one.tar", "two.tar", "four.tar"] {
        assert!(fs::read(desk.path(output)).expect("the bundle") == bytes, "{output}: the same lock, the same bytes");
    }
}

#[test]
fn a_cache_that_cannot_be_written_fails_no_build() {
    let desk = Desk::new();
    fs::write(desk.path("caches"), b"a file where a folder should be").expect("write");
    assert_success(&desk.build("out.tar", &[]));
    assert_success(&desk.build("out.tar", &[]));
}

#[test]
fn parts_are_slices_with_sums_and_one_is_made_again_alone() {
    let desk = Desk::new();
    assert_success(&desk.build("whole.tar", &["--no-cache"]));
    let said = text(&desk.build("out.tar", &["--no-cache", "--split", "1MB"]));
    let parts = ["out.tar.001", "out.tar.002", "out.tar.003", "out.tar.004"];
    assert!(parts.iter().all(|part| said.contains(part)), "{said}");
    let mut expected = parts.map(str::to_owned).to_vec();
    expected.push("out.tar.sha256".to_owned());
    let names = desk.names("out.tar");
    assert_eq!(names[..5], expected);
    assert!(names.len() == 6 && names[5].ends_with(".sig"), "{names:?}");
    let read = |name: &str| fs::read(desk.path(name)).expect("a file");
    let whole = read("whole.tar");
    assert!(parts.map(read).concat() == whole);
    assert_eq!(read(parts[0]).len(), 999_936, "the largest multiple of 512 that is not more");
    let sums = String::from_utf8(read("out.tar.sha256")).expect("text");
    assert!(sums.starts_with(&format!("{}  out.tar\n", Digest::of(&whole).hex())), "{sums}");
    assert_eq!(sums.lines().count(), 5);

    let third = read(parts[2]);
    fs::write(desk.path(parts[2]), b"scratched").expect("write");
    desk.upstream.blobs();
    let said = text(&desk.build("out.tar", &["--no-cache", "--split", "1MB", "--part", "3"]));
    assert!(said.contains("same as  the sums say"), "{said}");
    assert!(read(parts[2]) == third && desk.names("out.tar") == names);
    assert!(desk.upstream.blobs() <= 2, "blobs of other parts are not downloaded");
    refused(&desk.build("out.tar", &["--split", "1MB", "--part", "5"]), 2, "the bundle has 4 parts");
    refused(&desk.build("out.tar", &["--split", "2MB", "--part", "2"]), 4, "the sums beside it say");
    desk.define(2);
    assert_success(&desk.lock());
    refused(&desk.build("out.tar", &["--split", "1MB", "--part", "1"]), 4, "the sums beside it say");
    assert!(read(parts[2]) == third && desk.names("out.tar") == names, "a refused part leaves the old one");
    refused(&desk.build("out.tar", &["--part", "2"]), 2, "--split");
    refused(&desk.build("out.tar", &["--split", "4.7"]), 2, "4.7GB");
    refused(&desk.build("out.tar", &["--split", "100"]), 2, "at least 512");
    refused(&desk.build("out.tar", &["--base", "receipt.json"]), 2, "--base-key");
}

#[test]
fn a_blob_that_breaks_off_is_taken_up_again() {
    let desk = Desk::new();
    assert_success(&desk.build("one.tar", &["--no-cache"]));
    desk.upstream.blobs();
    desk.upstream.set(|state| state.broken = 3);
    assert_success(&desk.build("two.tar", &["--no-cache"]));
    assert!(fs::read(desk.path("one.tar")).expect("read") == fs::read(desk.path("two.tar")).expect("read"));
    assert_eq!(desk.upstream.shared.state.lock().expect("no thread panics in here").broken, 0);
}

#[test]
fn an_interrupted_build_leaves_nothing_and_a_killed_one_nothing_that_looks_like_a_bundle() {
    let desk = Desk::new();
    for (signal, split) in [
        (rustix::process::Signal::INT, false),
        (rustix::process::Signal::TERM, true),
        (rustix::process::Signal::KILL, true),
        (rustix::process::Signal::KILL, false),
    ] {
        desk.upstream.set(|state| (state.stalled, state.waiting) = (true, 0));
        let mut args = vec!["bundle", "build", "--agent", "agent", "--keys", "trust", "-o", "out.tar"];
        if split {
            args.extend(["--split", "1MB"]);
        }
        let mut command = desk.command(&args);
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("gapscan runs");
        desk.upstream.wait_for_a_stall();
        let id = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process(id, signal).expect("it runs");
        let output = child.wait_with_output().expect("it ends");
        let left = desk.names("out.tar");
        if signal == rustix::process::Signal::KILL {
            assert!(left.iter().all(|name| name.ends_with(".part")), "{left:?}");
        } else {
            refused(&output, 5, "nothing is left of it");
            assert_eq!(left, [""; 0]);
        }
    }
    desk.upstream.set(|state| state.stalled = false);
    assert_success(&desk.build("out.tar", &[]));
    let left: Vec<String> = desk.names("out.tar").into_iter().filter(|name| !name.contains("sha256")).collect();
    assert_eq!(left, ["out.tar"], "what killed builds left is taken away");
    assert_success(&desk.build("out.tar", &["--split", "1MB"]));
    assert!(desk.names("out.tar").iter().all(|name| !name.ends_with(".part") && name != "out.tar"));
}

#[test]
fn a_disk_that_is_full_leaves_nothing() {
    let desk = Desk::new();
    // A limit on the length of files stands for a disk: in blocks of 512 or 1024 bytes, much less than the bundle.
    let script = "trap '' XFSZ; ulimit -f 1000; exec \"$0\" \"$@\"";
    let mut command = Command::new("sh");
    command.current_dir(desk.folder.path()).args(["-c", script, env!("CARGO_BIN_EXE_gapscan")]);
    command.args(["bundle", "build", "--agent", "agent", "--keys", "trust", "-o", "out.tar", "--no-cache"]);
    let output = command.output().expect("a shell");
    refused(&output, 5, "cut the bundle with --split");
    assert_eq!(desk.names("out.tar"), [""; 0]);
    let unwritable = desk.build("no/such/folder/out.tar", &[]);
    refused(&unwritable, 5, "no/such/folder/out.tar");
    assert!(!Path::new("no").exists());
}
