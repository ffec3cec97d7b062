//! Running the scanner: its output is kept, its end is told apart, and the pod is held until the result was fetched.

use std::ffi::OsString;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use super::archive::Awaited;
use super::beside::{self, Neighbour};
use super::error::AgentError;
use super::kubeconfig::{self, ApiServer};
use super::protocol::{
    ANSWER_BYTES, Asked, ExitStatus, Header, ResultState, STATUS_FILE, STDERR_TAIL, STDOUT_FILE, STDOUT_TAIL,
    TAIL_BYTES, Unreadable,
};
use super::relay::Relay;
use super::sockets::{self, Network, Sockets, Watch};
use super::unreadable::unreadable;
use super::upload::Destination;

/// How long the scanner's output may stay open after the scanner itself ended: a child of its own that it left behind must
/// not hold the result.
const AFTERMATH: Duration = Duration::from_secs(5);

/// Where the scanner leaves its result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ResultAt {
    /// In this file.
    File(PathBuf),
    /// On its standard output.
    Stdout,
}

/// What to run.
#[derive(Clone, Debug)]
pub struct RunRequest {
    /// Where its result is.
    pub result: ResultAt,
    /// A folder for what is kept; made if it is not there.
    pub spool: PathBuf,
    /// Where the target's files are, to find out what can't be read.
    pub target_mount: Option<PathBuf>,
    /// Paths in the target that the scanner passes over; `*` stands for any characters.
    pub leaves_out: Vec<String>,
    /// The target is another container of the pod, whose id will be in this file; the scanner waits for it.
    pub beside: Option<PathBuf>,
    /// The target is an image that comes as an archive, which the scanner waits for.
    pub archive: Option<Awaited>,
    /// What it needs to talk to the API server, where it is to.
    pub api: Option<ApiServer>,
    /// Whose network it has.
    pub network: Network,
    /// Where the result is sent to as soon as it is there; `None` where somebody comes for it.
    pub upload: Option<Destination>,
    /// When the scanner is killed.
    pub deadline: Duration,
    /// How long the pod is held after the scanner's end.
    pub hold: Duration,
    /// Bytes of standard output that are kept where it is the result.
    pub limit: u64,
    /// The program and its arguments.
    pub command: Vec<OsString>,
    /// The command by which it is asked for its version before it runs; empty where it is not asked.
    pub version: Vec<OsString>,
}

/// Runs the scanner, leaves its status in the spool, and waits until SIGTERM or the end of the hold.
///
/// # Errors
/// When the spool can't be written or signals can't be listened for. However the scanner ends is no error.
pub async fn run(request: &RunRequest) -> Result<(), AgentError> {
    // As process 1 a SIGTERM without a handler is ignored, and the pod would take its whole grace period to end.
    let mut terminated = signal(SignalKind::terminate()).map_err(AgentError::Signals)?;
    fs::create_dir_all(&request.spool).map_err(AgentError::file("make", &request.spool))?;
    let kept = tokio::select! {
        header = work(request) => header?,
        _ = terminated.recv() => return Ok(()),
    };
    write_status(&request.spool, &kept)?;
    if let Some(to) = request.upload.clone() {
        let (spool, result, limit) = (request.spool.clone(), request.result.clone(), request.limit);
        // For as long as whoever came for it instead would find it here.
        let patience = request.hold;
        let sent = tokio::task::spawn_blocking(move || to.send(&spool, &result, limit, patience));
        tokio::select! {
            sent = sent => sent.unwrap_or_else(|error| Err(AgentError::Send(std::io::Error::other(error))))?,
            _ = terminated.recv() => return Ok(()),
        }
    }
    tokio::select! {
        () = tokio::time::sleep(request.hold) => {}
        _ = terminated.recv() => {}
    }
    Ok(())
}

/// Where the root of a container's files is, once the container is known: what the command and the environment name so.
const ROOT: &str = "${target.root}";

/// Between two looks for the id of the container that is the target.
const TOLD: Duration = Duration::from_millis(100);

async fn work(request: &RunRequest) -> Result<Header, AgentError> {
    if let Some(archive) = &request.archive
        && let Err(late) = archive.arrived().await
    {
        return Ok(not_run(late));
    }
    let Some(file) = &request.beside else { return attempt(request, &[]).await };
    let id = loop {
        match fs::read_to_string(file) {
            Ok(id) => break id,
            // Whoever waits for the pod ends it where nobody comes.
            Err(_) => tokio::time::sleep(TOLD).await,
        }
    };
    let look = tokio::task::spawn_blocking(move || {
        let neighbour = Neighbour::find(Path::new(beside::PROC), &id)?;
        // What still changes is looked at all the same.
        neighbour.settle()?;
        Ok::<_, AgentError>(neighbour)
    });
    let found = look.await.map_err(|error| AgentError::Send(std::io::Error::other(error)))?;
    let neighbour = match found {
        Ok(neighbour) => neighbour,
        Err(error) => return Ok(not_run(chain(&error))),
    };
    let root = neighbour.root();
    let named = root.to_string_lossy();
    let env: Vec<(String, String)> = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .filter(|(_, value)| value.contains(ROOT))
        .map(|(name, value)| (name, value.replace(ROOT, &named)))
        .collect();
    let in_place = |word: &OsString| match word.to_str() {
        Some(text) => text.replace(ROOT, &named).into(),
        None => word.clone(),
    };
    let command = request.command.iter().map(in_place).collect();
    let target_mount = Some(root.clone());
    let mut header = attempt(&RunRequest { command, target_mount, ..request.clone() }, &env).await?;
    if let Err(error) = neighbour.still_runs() {
        header.result = ResultState::Missing { detail: chain(&error) };
    }
    Ok(header)
}

fn chain(error: &AgentError) -> String {
    let source = std::error::Error::source(error).map(|source| format!(": {source}"));
    format!("{error}{}", source.unwrap_or_default())
}

/// What is handed over where there is no target to run the scanner on.
fn not_run(detail: String) -> Header {
    Header {
        exit: ExitStatus::NotStarted { message: detail.clone() },
        oom_killed: false,
        result: ResultState::Missing { detail },
        unreadable: Unreadable { incomplete: true, ..Unreadable::default() },
        sockets: Sockets { unseen: Some("it was not run".to_owned()), ..Sockets::default() },
        version: None,
    }
}

/// Runs it with these variables beside those that are set.
async fn attempt(request: &RunRequest, env: &[(String, String)]) -> Result<Header, AgentError> {
    // Before anything is watched: who connects here is gapscan itself.
    let ready = match &request.api {
        Some(api) => kubeconfig::write(api).await.map(Some),
        None => Ok(None),
    };
    let kills = oom_kills();
    let mut version = None;
    let (ended, sockets) = match ready {
        Err(message) => (not_started(message), Sockets::default()),
        Ok(relay) => {
            let work = async {
                version = ask(&request.version).await;
                execute(request, env).await
            };
            watched(work, relay, request.network).await
        }
    };
    let (exit, stdout, stderr, cut) = ended?;
    let tail = |name: &str, bytes: &[u8]| {
        let path = request.spool.join(name);
        fs::write(&path, bytes).map_err(AgentError::file("write", path))
    };
    tail(STDOUT_TAIL, &stdout)?;
    tail(STDERR_TAIL, &stderr)?;
    let mount = request.target_mount.clone();
    let left_out = request.leaves_out.clone();
    let look = tokio::task::spawn_blocking(move || mount.map(|mount| unreadable(&mount, &left_out)));
    let unreadable = match look.await {
        Ok(found) => found.unwrap_or_default(),
        // It panicked: what it would have found is not known.
        Err(_) => Unreadable { incomplete: true, ..Unreadable::default() },
    };
    let result = match &request.result {
        ResultAt::Stdout if cut => {
            ResultState::Missing { detail: format!("it went on beyond {} bytes", request.limit) }
        }
        ResultAt::Stdout => inspect(&request.spool.join(STDOUT_FILE)),
        ResultAt::File(path) => inspect(path),
    };
    Ok(Header { exit, oom_killed: oom_kills() > kills, result, unreadable, sockets, version })
}

/// How long a scanner may take to say its version.
const ANSWER: Duration = Duration::from_secs(30);

/// Asks the scanner for its version, if it is to be asked. That it does not answer is no failure of the scan.
async fn ask(command: &[OsString]) -> Option<Asked> {
    let (program, arguments) = command.split_first()?;
    let output = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn();
    let unanswered = |detail: String| Some(Asked::Unanswered { detail });
    let mut child = match output {
        Ok(child) => child,
        Err(error) => return unanswered(format!("`{}`: {error}", program.to_string_lossy())),
    };
    let stdout = child.stdout.take().expect("it was asked to be piped");
    let stderr = child.stderr.take().expect("it was asked to be piped");
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let answered = async {
        // Both are read to their ends, or the one that nobody reads would hold it.
        let (first, second) = tokio::join!(begin(stdout, &mut out), begin(stderr, &mut err));
        first.and(second)?;
        child.wait().await
    };
    match tokio::time::timeout(ANSWER, answered).await {
        Ok(Ok(_)) => {
            out.extend_from_slice(&err);
            out.truncate(ANSWER_BYTES);
            Some(Asked::Answered { printed: String::from_utf8_lossy(&out).into_owned() })
        }
        Ok(Err(error)) => unanswered(error.to_string()),
        Err(_) => unanswered(format!("it did not answer within {} s", ANSWER.as_secs())),
    }
}

/// Reads a stream to its end, and keeps its begin.
async fn begin(mut stream: impl AsyncRead + Unpin, kept: &mut Vec<u8>) -> std::io::Result<()> {
    let mut buffer = vec![0; 4096];
    loop {
        match stream.read(&mut buffer).await? {
            0 => return Ok(()),
            read => {
                let room = ANSWER_BYTES - kept.len();
                kept.extend_from_slice(&buffer[..read.min(room)]);
            }
        }
    }
}

/// Does it, and looks meanwhile to whom anything in this network namespace talks, or, where that is the target's too, anything of
/// the scanner's; what goes through the relay is known.
async fn watched<T>(work: impl Future<Output = T>, relay: Option<Relay>, network: Network) -> (T, Sockets) {
    let mut watch = Watch::begin(Path::new(sockets::OWN), Path::new(beside::PROC), network);
    let mut ticks = tokio::time::interval(sockets::LOOK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let (sender, mut known) = mpsc::unbounded_channel();
    let relaying = async {
        match relay {
            Some(relay) => relay.run(sender).await,
            None => std::future::pending().await,
        }
    };
    tokio::pin!(work, relaying);
    loop {
        tokio::select! {
            done = &mut work => {
                while let Ok((local, remote)) = known.try_recv() {
                    watch.know(local, remote);
                }
                return (done, watch.end());
            }
            () = &mut relaying => {}
            Some((local, remote)) = known.recv() => watch.know(local, remote),
            _ = ticks.tick() => watch.look(),
        }
    }
}

/// How the scanner ended, the ends of its output, and whether its standard output was cut at the limit.
type Ended = (ExitStatus, Vec<u8>, Vec<u8>, bool);

fn not_started(message: String) -> Result<Ended, AgentError> {
    Ok((ExitStatus::NotStarted { message }, Vec::new(), Vec::new(), false))
}

async fn execute(request: &RunRequest, env: &[(String, String)]) -> Result<Ended, AgentError> {
    let Some((program, arguments)) = request.command.split_first() else {
        return not_started("there is no command".to_owned());
    };
    let spawned = Command::new(program)
        .args(arguments)
        .envs(env.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn();
    let mut child: Child = match spawned {
        Ok(child) => child,
        Err(error) => return not_started(format!("`{}`: {error}", program.to_string_lossy())),
    };
    let path = request.spool.join(STDOUT_FILE);
    let whole = match request.result {
        ResultAt::Stdout => Some(fs::File::create(&path).map_err(AgentError::file("write", &path))?),
        ResultAt::File(_) => None,
    };
    let mut out = Kept::new(whole, request.limit);
    let mut err = Kept::new(None, 0);
    let stdout = child.stdout.take().expect("it was asked to be piped");
    let stderr = child.stderr.take().expect("it was asked to be piped");
    let exit = {
        let drained = async { tokio::join!(out.drain(stdout), err.drain(stderr)) };
        tokio::pin!(drained);
        let mut open = true;
        let ended = async {
            loop {
                tokio::select! {
                    status = child.wait() => return status,
                    _ = &mut drained, if open => open = false,
                }
            }
        };
        let exit = match tokio::time::timeout(request.deadline, ended).await.ok() {
            Some(Ok(status)) => match (status.code(), status.signal()) {
                (Some(code), _) => ExitStatus::Exited { code: u8::try_from(code).unwrap_or(u8::MAX) },
                (None, signal) => ExitStatus::Signalled { signal: signal.unwrap_or_default() },
            },
            Some(Err(error)) => ExitStatus::NotStarted { message: format!("it can't be waited for: {error}") },
            None => {
                // That it is dead already is what is wanted.
                let _ = child.kill().await;
                ExitStatus::TimedOut
            }
        };
        if open {
            let _ = tokio::time::timeout(AFTERMATH, &mut drained).await;
        }
        exit
    };
    if let Some(source) = out.failed.take() {
        return Err(AgentError::File { what: "write", path, source });
    }
    let cut = out.cut;
    Ok((exit, out.tail, err.tail, cut))
}

/// A stream of which the end is kept, and the whole up to a limit where there is a file for it.
struct Kept {
    tail: Vec<u8>,
    whole: Option<fs::File>,
    room: u64,
    cut: bool,
    failed: Option<std::io::Error>,
}

impl Kept {
    fn new(whole: Option<fs::File>, limit: u64) -> Self {
        Self { tail: Vec::new(), whole, room: limit, cut: false, failed: None }
    }

    async fn drain(&mut self, mut stream: impl AsyncRead + Unpin) {
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(read) = stream.read(&mut buffer).await {
            if read == 0 {
                break;
            }
            self.take(&buffer[..read]);
        }
    }

    fn take(&mut self, bytes: &[u8]) {
        self.tail.extend_from_slice(bytes);
        let excess = self.tail.len().saturating_sub(TAIL_BYTES);
        self.tail.drain(..excess);
        if let Some(file) = &mut self.whole {
            let fits = usize::try_from(self.room).unwrap_or(usize::MAX).min(bytes.len());
            self.room -= fits as u64;
            self.cut |= fits < bytes.len();
            if let Err(error) = file.write_all(&bytes[..fits]) {
                self.failed.get_or_insert(error);
            }
        }
    }
}

/// What is at the result's place. A link, a pipe or a folder is no result, and is not opened.
fn inspect(path: &Path) -> ResultState {
    let missing = |detail: String| ResultState::Missing { detail };
    match fs::symlink_metadata(path) {
        Ok(meta) if !meta.is_file() => missing("it is no regular file".to_owned()),
        Ok(meta) if meta.len() == 0 => missing("it is empty".to_owned()),
        Ok(meta) => match fs::File::open(path) {
            Ok(_) => ResultState::Present { length: meta.len(), stamp: stamp(&meta) },
            Err(error) => missing(error.to_string()),
        },
        Err(error) => missing(error.to_string()),
    }
}

/// Tells a file apart from another in its place, and from itself after it was written to. The time of change is the
/// kernel's own: no program can set it.
pub(super) fn stamp(meta: &fs::Metadata) -> String {
    format!("{}.{}.{:09}", meta.ino(), meta.ctime(), meta.ctime_nsec())
}

/// Whole or not at all: whoever waits for it must not read half of it.
fn write_status(spool: &Path, header: &Header) -> Result<(), AgentError> {
    let path = spool.join(STATUS_FILE);
    let part = spool.join("status.part");
    let text = serde_json::to_vec(header).map_err(|source| AgentError::Spool { path: path.clone(), source })?;
    fs::write(&part, text).map_err(AgentError::file("write", &part))?;
    fs::rename(&part, &path).map_err(AgentError::file("write", &path))
}

/// How many processes of this container the kernel has killed for their memory (cgroups(7): version 2, then version 1).
fn oom_kills() -> u64 {
    let count = |path: &str| {
        let text = fs::read_to_string(path).ok()?;
        text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok())
    };
    count("/sys/fs/cgroup/memory.events").or_else(|| count("/sys/fs/cgroup/memory/memory.oom_control")).unwrap_or(0)
}

#[cfg(test)]
mod tests;
