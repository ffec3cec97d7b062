//! The lab: commands on both sides of the gap.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

pub(crate) const GAPSCAN: &str = env!("CARGO_BIN_EXE_gapscan");

pub(crate) struct Lab {
    script: PathBuf,
    env: HashMap<String, String>,
}

/// What one command came to.
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ran {
    fn of(output: Output) -> Self {
        let ran = Self {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        };
        println!("{}{}-> exit {}", ran.stdout, ran.stderr, ran.code);
        ran
    }

    #[track_caller]
    pub(crate) fn exits(self, code: i32) -> Self {
        assert_eq!(self.code, code, "stdout:\n{}\nstderr:\n{}", self.stdout, self.stderr);
        self
    }
}

/// The lab, or `None` with a line that says so.
pub(crate) fn lab() -> Option<&'static Lab> {
    static LAB: OnceLock<Option<Lab>> = OnceLock::new();
    LAB.get_or_init(|| {
        let script = PathBuf::from(std::env::var_os("GAPSCAN_TEST_LAB")?);
        let output = Command::new(&script).arg("env").output().expect("the lab's script runs");
        let text = String::from_utf8(output.stdout).expect("its lines are text");
        let env = text
            .split_whitespace()
            .filter_map(|word| word.split_once('='))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        Some(Lab { script, env })
    })
    .as_ref()
    .or_else(|| {
        println!("skipped: needs the lab (GAPSCAN_TEST_LAB)");
        None
    })
}

impl Lab {
    pub(crate) fn var(&self, name: &str) -> &str {
        self.env.get(name).unwrap_or_else(|| panic!("the lab names no {name}"))
    }

    pub(crate) fn ca(&self) -> &Path {
        Path::new(self.var("LAB_CA"))
    }

    /// A command of the lab's script.
    pub(crate) fn control<S: AsRef<OsStr>>(&self, args: &[S]) {
        let status = Command::new(&self.script).args(args).status().expect("the lab's script runs");
        assert!(status.success(), "the lab's script failed");
    }

    /// gapscan on the connected side.
    pub(crate) fn outside(&self, args: &[&str]) -> Ran {
        println!("outside$ gapscan {}", args.join(" "));
        Ran::of(Command::new(GAPSCAN).args(args).output().expect("gapscan runs"))
    }

    /// A command in the enclave.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new(&self.script);
        command.arg("exec").arg(program);
        command
    }

    /// gapscan in the enclave.
    pub(crate) fn inside(&self, args: &[&str]) -> Ran {
        println!("inside$ gapscan {}", args.join(" "));
        Ran::of(self.command(GAPSCAN).args(args).output().expect("gapscan runs"))
    }

    /// gapscan in the enclave, with a file that comes over the gap by a pipe.
    pub(crate) fn inside_from(&self, file: &Path, args: &[&str]) -> Ran {
        println!("inside$ gapscan {} < a pipe", args.join(" "));
        let mut cat = Command::new("cat").arg(file).stdout(Stdio::piped()).spawn().expect("cat runs");
        let pipe = cat.stdout.take().expect("its output is piped");
        let output = self.command(GAPSCAN).args(args).stdin(pipe).output().expect("gapscan runs");
        // A reader that refuses closes the pipe early, and cat ends by that.
        let _ = cat.wait();
        Ran::of(output)
    }

    pub(crate) fn kubectl(&self, args: &[&str]) -> String {
        let output = self.command("kubectl").args(args).output().expect("kubectl runs");
        assert!(output.status.success(), "kubectl {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("kubectl prints text")
    }

    /// The tags of a repository of the enclave's registry; none where there is no such repository.
    pub(crate) fn tags(&self, repository: &str) -> Vec<String> {
        let reference = format!("{}/{repository}", self.var("REGISTRY"));
        let output = self.command("crane").args(["ls", &reference]).output().expect("crane runs");
        String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
    }

    /// The repositories of the enclave's registry.
    pub(crate) fn repositories(&self) -> Vec<String> {
        let output = self.command("crane").args(["catalog", self.var("REGISTRY")]).output().expect("crane runs");
        String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
    }

    /// The audit log from byte `from` on, as JSON values.
    pub(crate) fn audit(&self, from: u64) -> Vec<serde_json::Value> {
        use std::io::{Read, Seek, SeekFrom};
        let mut file = File::open(self.audit_path()).expect("the audit log is there");
        file.seek(SeekFrom::Start(from)).expect("the audit log can be read");
        let mut text = String::new();
        file.read_to_string(&mut text).expect("the audit log is text");
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    pub(crate) fn audit_length(&self) -> u64 {
        std::fs::metadata(self.audit_path()).expect("the audit log is there").len()
    }

    fn audit_path(&self) -> PathBuf {
        Path::new(self.var("LAB_RUN")).join("audit.log")
    }
}

/// Waits until `condition` holds, at most a minute.
#[track_caller]
pub(crate) fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(60);
    while !condition() {
        assert!(Instant::now() < end, "{what} did not come about in a minute");
        // The lab has the same two cores: who looks all the time slows down what is waited for.
        std::thread::sleep(Duration::from_millis(20));
    }
}
