//! A scan by a scanner, whichever way leads to its target: what runs, with what, within which bounds.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};

use super::in_target;
use super::manifest::{ARCHIVE, INPUTS};
use super::parameters::substitute;
use crate::cluster::egress::Destination;
use crate::cluster::error::ClusterError;
use crate::cluster::inputs::InputFiles;
use crate::cluster::pull::PullSecret;
use crate::model::record::RunId;
use crate::model::scanner::{self as placeholder, LeftOut, Offered, ScannerDocument, ScannerUser, WritableFolder};

/// An image that is mounted read-only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageMount {
    /// `HOST/REPOSITORY@sha256:…`
    pub reference: String,
    /// Where, as an absolute path.
    pub path: String,
}

/// What becomes of files that a scanner may not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unread {
    /// It passes over them in silence, so that somebody else has to look for them when it has ended.
    Silent,
    /// Its result says which they are.
    Told,
}

/// What is run, and within which bounds.
#[derive(Clone, Debug)]
pub struct Program<'a> {
    /// The command, and where it finds the target.
    pub approach: Offered<'a>,
    /// The path of its result below the folder for results; `stdout` for its standard output.
    pub result: &'a str,
    /// When it is killed.
    pub deadline: Duration,
    /// Its memory limit, as a Kubernetes quantity.
    pub memory: &'a str,
    /// Its CPU limit, likewise.
    pub cpu: Cow<'a, str>,
    /// What becomes of files that it may not read.
    pub unread: Unread,
    /// The command by which it is asked for its version; empty where it is not asked.
    pub version: &'a [String],
    /// What it passes over without a word, which somebody has to look for in the target.
    pub leaves_out: &'a [LeftOut],
    /// As whom it runs, where that is neither root on a node nor the user of what it is beside; gapscan's own user where this is
    /// absent.
    pub user: Option<ScannerUser>,
    /// Folders that it may write to.
    pub writable: &'a [WritableFolder],
}

impl<'a> Program<'a> {
    /// A scanner by its definition, in one of the ways that it offers.
    pub fn of(scanner: &'a ScannerDocument, approach: impl Into<Offered<'a>>) -> Self {
        Self {
            approach: approach.into(),
            result: &scanner.result.path,
            deadline: scanner.deadline.duration(),
            memory: &scanner.memory,
            cpu: Cow::Borrowed(&scanner.cpu),
            unread: Unread::Silent,
            version: scanner.version.as_ref().map_or(&[], |question| &question.command),
            leaves_out: &scanner.leaves_out,
            user: scanner.user,
            writable: &scanner.writable,
        }
    }
}

/// A scan by a scanner.
#[derive(Clone, Debug)]
pub struct Scanning<'a> {
    /// The run.
    pub run: RunId,
    /// The scan's number in the run, which names its objects.
    pub scan: u32,
    /// The scanner.
    pub program: Program<'a>,
    /// The scanner's image, as `HOST/REPOSITORY@sha256:…`.
    pub scanner_image: String,
    /// gapscan's own image, likewise.
    pub agent_image: String,
    /// Dependencies and the profile.
    pub mounts: Vec<ImageMount>,
    /// Values for `${...}` in the command and the environment.
    pub parameters: BTreeMap<String, String>,
    /// Whom it may talk to besides the API server, in a pod of its own.
    pub egress: Vec<Destination>,
    /// What the nodes pull these images with; `None` where the registry does not ask, or the nodes know themselves.
    pub pull: Option<PullSecret>,
    /// Files for the folder that [`INPUTS`](placeholder::INPUTS) stands for, in a pod of its own.
    pub inputs: Option<InputFiles>,
    /// Bytes of the result, at most.
    pub result_limit: u64,
    /// The folder in which a large result is kept while it arrives.
    pub spool: PathBuf,
}

/// How gapscan's agent runs the scanner in its container.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Run<'a> {
    /// Where the agent is.
    pub(crate) agent: &'a str,
    /// The folder for results.
    pub(crate) results: &'a str,
    /// How long the container is held after the scanner's end.
    pub(crate) hold: Duration,
    /// What the target's root is called, where the scanner's definition asks for that.
    pub(crate) root: Option<&'a str>,
}

impl Scanning<'_> {
    /// Names the scan among those of all runs.
    pub(crate) fn word(&self) -> String {
        format!("{}-{}", self.run, self.scan)
    }

    /// The container's command and environment; `told` is what the agent is told besides.
    ///
    /// # Errors
    /// When a placeholder has no value.
    pub(crate) fn command(&self, run: Run<'_>, told: &[&str]) -> Result<(Vec<String>, Vec<Value>), ClusterError> {
        let mut values = self.parameters.clone();
        values.insert(placeholder::RESULTS.to_owned(), run.results.to_owned());
        values.insert(placeholder::INPUTS.to_owned(), INPUTS.to_owned());
        values.insert(placeholder::ARCHIVE.to_owned(), ARCHIVE.to_owned());
        let talks = self.egress.iter().map(|to| (format!("{}{}", placeholder::EGRESS, to.name), to.authority()));
        values.extend(talks);
        if let Some(root) = run.root {
            values.insert(placeholder::ROOT.to_owned(), root.to_owned());
        }
        let mut command: Vec<String> = [run.agent, "agent", "run"].map(str::to_owned).into();
        command.extend(self.kept(run.results));
        command.extend(told.iter().map(|word| (*word).to_owned()));
        let (deadline, hold) = (self.program.deadline.as_secs().to_string(), run.hold.as_secs().to_string());
        command.extend(self.program.version.iter().map(|word| format!("--version-word={word}")));
        let left_out = self.program.leaves_out.iter().flat_map(|left_out| &left_out.paths);
        command.extend(left_out.map(|pattern| format!("--leaves-out={pattern}")));
        command.extend(["--deadline", &deadline, "--hold", &hold, "--"].map(str::to_owned));
        if let Some(in_target) = self.program.approach.in_target {
            // It is not this container that has the program, nor these variables.
            command.extend(in_target::command(self, run, in_target, told, &mut values)?);
            return Ok((command, Vec::new()));
        }
        for argument in self.program.approach.command {
            command.push(substitute(argument, &values)?);
        }
        let mut env = Vec::new();
        for (name, value) in self.program.approach.env {
            env.push(json!({ "name": name, "value": substitute(value, &values)? }));
        }
        Ok((command, env))
    }

    /// The command that hands over what the scanner left; `told` is what it is told besides.
    pub(crate) fn collecting(&self, run: Run<'_>, told: &[&str]) -> Vec<String> {
        let mut argv: Vec<String> = [run.agent, "agent", "collect"].map(str::to_owned).into();
        argv.extend(self.kept(run.results));
        argv.extend(told.iter().map(|word| (*word).to_owned()));
        argv
    }

    /// Arguments that tell the agent where the result is.
    fn kept(&self, results: &str) -> Vec<String> {
        let limit = self.result_limit.to_string();
        let spool = format!("{results}/.gapscan");
        // Anything but the standard output is a path below the folder for results.
        let path = match self.program.result {
            "stdout" => "stdout".to_owned(),
            path => format!("{results}/{path}"),
        };
        ["--result", &path, "--spool", &spool, "--limit", &limit].map(str::to_owned).into()
    }
}
