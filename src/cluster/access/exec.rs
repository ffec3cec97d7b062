//! Running a command in a container that is a target, over WebSocket, as an identity that may do that in this pod alone.
//!
//! What could go wrong, and where it is seen:
//! * the container was restarted or its pod replaced under the same name: UID, container id and restart count are read
//!   before and after, as the same identity;
//! * endless output: [`Caps`]; standard output beyond its cap (of bytes in memory, or on disk with `exec_into`) is dropped and marked, and far beyond it the command is given
//!   up. It stays in the container then, blocked, so a command that may print much should limit itself;
//! * a command that hangs, a connection that stays silent: the deadline, and then a look at what is the matter;
//! * output that is cut by a broken connection: without the exit status that the API server sends last, nothing counts.

use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;
use kube::api::AttachParams;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _, BufReader};

use crate::cluster::client::{Cluster, unreachable};
use crate::cluster::error::ClusterError;
use crate::cluster::object::{Kind, ObjectRef};
use crate::cluster::targets::{describe, statuses};
use crate::model::target::Target;

/// Bytes between the connection and the reader. kube's default of 1 KiB makes a large output slow.
const PIPE: usize = 256 * 1024;

/// How long the look at a silent or broken connection's cause may take.
const LOOK: Duration = Duration::from_secs(5);

/// The exit code of a command that was ended by SIGKILL.
const KILLED: i32 = 137;

/// How long a kubelet may take to report that a container ended: it looks every second, and writes the status then.
const SETTLE: Duration = Duration::from_secs(5);

/// Bytes beyond the cap of standard output that are read and dropped. Kubernetes has no way to kill a command: one whose
/// output nobody reads stays in the container, blocked. So one that is near its end is let come to it.
const OVERRUN: usize = 16 << 20;

/// How many bytes are kept of each stream.
#[derive(Clone, Copy, Debug)]
pub struct Caps {
    /// Of standard output; what goes on far beyond it is no longer read.
    pub stdout: usize,
    /// Of standard error; the rest is dropped.
    pub stderr: usize,
}

/// What a command gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecOutput {
    /// Its standard output, up to the cap.
    pub stdout: Vec<u8>,
    /// The beginning of its standard error.
    pub stderr: Vec<u8>,
    /// Its exit code. Absent when the output went on so far beyond the cap that the command was given up.
    pub code: Option<i32>,
    /// Whether standard output went on beyond the cap.
    pub stdout_truncated: bool,
}

/// How a command ended whose standard output went elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ExecEnd {
    /// The beginning of its standard error.
    pub(crate) stderr: Vec<u8>,
    /// As in [`ExecOutput`].
    pub(crate) code: Option<i32>,
    /// As in [`ExecOutput`].
    pub(crate) stdout_truncated: bool,
}

/// Takes standard output while it arrives. It is called between two reads of the connection, so that it must not take long;
/// what goes wrong in it, it keeps for itself.
pub(crate) type Sink<'a> = dyn FnMut(&[u8]) + Send + 'a;

/// A container's incarnation: if any of this differs, it is not the same any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Incarnation {
    pub(super) uid: String,
    container_id: String,
    restarts: i32,
    terminating: bool,
}

/// One container as exec needs it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place<'a> {
    pub(crate) namespace: &'a str,
    pub(crate) pod: &'a str,
    pub(crate) container: &'a str,
    pub(crate) uid: Option<&'a str>,
}

impl Place<'_> {
    pub(super) fn key(&self) -> String {
        format!("pod/{}/{}/{}", self.namespace, self.pod, self.container)
    }
}

/// Runs `argv` in the target as the identity of `cluster`, feeds it `stdin`, and waits for its end.
///
/// # Errors
/// When the target is no container, is gone, changed, or does not run; has not the program (`argv[0]`); when the identity
/// is denied; when the command takes longer than `deadline`, or the API server does not answer.
///
/// # Cancel safety
/// Dropped, the connection is closed. The command in the container is not killed by that, as Kubernetes has no way to.
pub async fn exec(
    cluster: &Cluster,
    target: &Target,
    argv: &[&str],
    stdin: Option<&[u8]>,
    caps: Caps,
    deadline: Duration,
) -> Result<ExecOutput, ClusterError> {
    let Target::Container { namespace, pod, container, uid, .. } = target else {
        return Err(ClusterError::TargetNotRunning { target: target.key(), detail: "it is no container".to_owned() });
    };
    exec_at(cluster, &Place { namespace, pod, container, uid: uid.as_deref() }, argv, stdin, caps, deadline).await
}

/// The same in a target whose pod was just read as this identity, so that it need not be read again before.
///
/// # Errors
/// As [`exec`].
pub(crate) async fn exec_since(
    cluster: &Cluster,
    target: &Target,
    seen: &Pod,
    argv: &[&str],
    caps: Caps,
    deadline: Duration,
) -> Result<ExecOutput, ClusterError> {
    let Target::Container { namespace, pod, container, uid, .. } = target else {
        return Err(ClusterError::TargetNotRunning { target: target.key(), detail: "it is no container".to_owned() });
    };
    let place = Place { namespace, pod, container, uid: uid.as_deref() };
    let before = incarnation(seen, &place)?;
    let mut stdout = Vec::new();
    let mut sink = |bytes: &[u8]| stdout.extend_from_slice(bytes);
    let end = exec_in(cluster, &place, &before, argv, None::<&[u8]>, caps, deadline, &mut sink).await?;
    let ExecEnd { stderr, code, stdout_truncated } = end;
    Ok(ExecOutput { stdout, stderr, code, stdout_truncated })
}

pub(crate) async fn exec_at(
    cluster: &Cluster,
    place: &Place<'_>,
    argv: &[&str],
    stdin: Option<&[u8]>,
    caps: Caps,
    deadline: Duration,
) -> Result<ExecOutput, ClusterError> {
    let mut stdout = Vec::new();
    let mut sink = |bytes: &[u8]| stdout.extend_from_slice(bytes);
    let end = exec_into(cluster, place, argv, stdin, caps, deadline, &mut sink).await?;
    let ExecEnd { stderr, code, stdout_truncated } = end;
    Ok(ExecOutput { stdout, stderr, code, stdout_truncated })
}

/// The same for a command that says itself in its output whether that is whole: what arrived, beside how it ended.
pub(super) async fn exec_sent(
    cluster: &Cluster,
    place: &Place<'_>,
    argv: &[&str],
    caps: Caps,
    deadline: Duration,
) -> (Vec<u8>, Result<ExecEnd, ClusterError>) {
    let mut sent = Vec::new();
    let mut sink = |bytes: &[u8]| sent.extend_from_slice(bytes);
    let ended = exec_into(cluster, place, argv, None::<&[u8]>, caps, deadline, &mut sink).await;
    (sent, ended)
}

/// The same with standard output, up to its cap, given to `sink` as it arrives. In case of an error it may have been given
/// some. Standard input is read a piece at a time, as fast as the command takes it. Whoever gives a stream has to see to it that an
/// end that came too early is noticed; an error of it ends the input.
pub(crate) async fn exec_into(
    cluster: &Cluster,
    place: &Place<'_>,
    argv: &[&str],
    stdin: Option<impl AsyncRead + Send + Unpin>,
    caps: Caps,
    deadline: Duration,
    sink: &mut Sink<'_>,
) -> Result<ExecEnd, ClusterError> {
    let began = Instant::now();
    let before = look(cluster, place).await?;
    let left = deadline.saturating_sub(began.elapsed());
    exec_in(cluster, place, &before, argv, stdin, caps, left, sink).await
}

/// The same in a container that was seen to run.
#[expect(clippy::too_many_arguments, reason = "it is what all others of this file come to")]
async fn exec_in(
    cluster: &Cluster,
    place: &Place<'_>,
    before: &Incarnation,
    argv: &[&str],
    stdin: Option<impl AsyncRead + Send + Unpin>,
    caps: Caps,
    deadline: Duration,
    sink: &mut Sink<'_>,
) -> Result<ExecEnd, ClusterError> {
    let place = &Place { uid: Some(&before.uid), ..*place };
    let ended = match tokio::time::timeout(deadline, run(cluster, place, argv, stdin, caps, sink)).await {
        Ok(Ok(ended)) => ended,
        Ok(Err(error @ ClusterError::Denied { .. })) => return Err(error),
        // The runtime said so itself, and soon: there is no report to wait for.
        Ok(Err(error @ ClusterError::NoShell { .. })) => {
            again(cluster, place, before).await?;
            return Err(error);
        }
        Ok(Err(error)) => return Err(cause(cluster, place, before, error).await),
        Err(_) => {
            let error = ClusterError::ExecTimeout { target: place.key(), after: deadline };
            return Err(cause(cluster, place, before, error).await);
        }
    };
    if ended.code == Some(KILLED) {
        // A container that ends takes its commands with it by SIGKILL, before anyone reports that it ended.
        settle(cluster, place, before).await?;
    } else {
        again(cluster, place, before).await?;
    }
    Ok(ended)
}

/// Watches for some time whether the target changes or goes; an error if it does.
async fn settle(cluster: &Cluster, place: &Place<'_>, before: &Incarnation) -> Result<(), ClusterError> {
    let began = Instant::now();
    loop {
        if again(cluster, place, before).await?.terminating && !before.terminating {
            return Err(ClusterError::TargetGone { target: place.key() });
        }
        if began.elapsed() >= SETTLE {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

/// Why it failed: often the target or the API server is the matter, and not what failed first.
async fn cause(cluster: &Cluster, place: &Place<'_>, before: &Incarnation, error: ClusterError) -> ClusterError {
    match settle(&cluster.impatient(LOOK), place, before).await {
        Ok(()) => match error {
            // The API server answers and the target is as it was: what failed lies between, most often the node.
            ClusterError::NoAnswer { .. } | ClusterError::Unreachable { .. } | ClusterError::Rejected { .. } => {
                let source = std::error::Error::source(&error).map(|source| format!(": {source}"));
                let message = format!("{error}{}", source.unwrap_or_default());
                ClusterError::ExecBroken { target: place.key(), message }
            }
            other => other,
        },
        Err(reason) => reason,
    }
}

/// Which container of this name runs now.
pub(super) async fn incarnation_of(cluster: &Cluster, place: &Place<'_>) -> Result<Incarnation, ClusterError> {
    look(cluster, place).await
}

impl Incarnation {
    /// Whether the other is the same container, started once.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        self.uid == other.uid && self.restarts == other.restarts && self.container_id == other.container_id
    }
}

/// Looks once more at a target that ran before.
async fn again(cluster: &Cluster, place: &Place<'_>, before: &Incarnation) -> Result<Incarnation, ClusterError> {
    let changed = |detail: String| Err(ClusterError::TargetChanged { target: place.key(), detail });
    match look(cluster, place).await {
        Ok(after) if !before.is_same(&after) => changed("the container was restarted".to_owned()),
        Err(ClusterError::TargetNotRunning { detail, .. }) => changed(format!("the container stopped: {detail}")),
        outcome => outcome,
    }
}

async fn look(cluster: &Cluster, place: &Place<'_>) -> Result<Incarnation, ClusterError> {
    let object = ObjectRef::namespaced(Kind::Pod, place.namespace, place.pod);
    let pod: Pod = match cluster.get(&format!("read {object}"), object.path()).await {
        Err(ClusterError::Missing { .. }) => return Err(ClusterError::TargetGone { target: place.key() }),
        outcome => outcome?,
    };
    incarnation(&pod, place)
}

pub(super) fn incarnation(pod: &Pod, place: &Place<'_>) -> Result<Incarnation, ClusterError> {
    // Before its state: what another pod of this name does is of no interest.
    if place.uid.is_some_and(|uid| pod.metadata.uid.as_deref() != Some(uid)) {
        let detail = "the pod was replaced by another of the same name".to_owned();
        return Err(ClusterError::TargetChanged { target: place.key(), detail });
    }
    let statuses = statuses(pod);
    let status = statuses.get(place.container).copied();
    let state = status.and_then(|status| status.state.as_ref());
    let Some(status) = status.filter(|_| state.is_some_and(|state| state.running.is_some())) else {
        return Err(match pod.metadata.deletion_timestamp {
            Some(_) => ClusterError::TargetGone { target: place.key() },
            None => ClusterError::TargetNotRunning { target: place.key(), detail: describe(pod, state) },
        });
    };
    Ok(Incarnation {
        uid: pod.metadata.uid.clone().unwrap_or_default(),
        container_id: status.container_id.clone().unwrap_or_default(),
        restarts: status.restart_count,
        terminating: pod.metadata.deletion_timestamp.is_some(),
    })
}

async fn run(
    cluster: &Cluster,
    place: &Place<'_>,
    argv: &[&str],
    stdin: Option<impl AsyncRead + Send + Unpin>,
    caps: Caps,
    sink: &mut Sink<'_>,
) -> Result<ExecEnd, ClusterError> {
    let what = format!("run a command in `{}`", place.key());
    let parameters = AttachParams::default()
        .container(place.container)
        .stdin(stdin.is_some())
        .max_stdin_buf_size(PIPE)
        .max_stdout_buf_size(PIPE)
        .max_stderr_buf_size(PIPE);
    let pods: kube::Api<Pod> = kube::Api::namespaced(cluster.raw(), place.namespace);
    let connecting = pods.exec(place.pod, argv.iter().map(|arg| (*arg).to_owned()), &parameters);
    let mut process = match tokio::time::timeout(cluster.api_call(), connecting).await {
        Ok(connected) => connected.map_err(|source| unreachable(&what, source))?,
        Err(_) => return Err(ClusterError::NoAnswer { what, after: cluster.api_call() }),
    };
    let status = process.take_status();
    let writer = process.stdin();
    let feed = async {
        if let (Some(mut writer), Some(input)) = (writer, stdin) {
            // A command may end without reading all of it; its exit code tells.
            let _ = tokio::io::copy_buf(&mut BufReader::with_capacity(PIPE, input), &mut writer).await;
            let _ = writer.shutdown().await;
        }
    };
    let out = process.stdout().expect("standard output was asked for");
    let err = process.stderr().expect("standard error was asked for");
    // Both streams are drained while the end is waited for: the connection stands still as soon as one pipe is full.
    let (printed, stderr, end) = drain(out, err, caps, feed, sink).await;
    if end == End::GivenUp {
        process.abort();
        return Ok(ExecEnd { stderr, code: None, stdout_truncated: true });
    }
    let status = match status {
        Some(status) => status.await,
        None => None,
    };
    let joined = process.join().await;
    let Some(status) = status else {
        let message = joined.err().map_or_else(|| "it ended without a status".to_owned(), |error| error.to_string());
        return Err(ClusterError::ExecBroken { target: place.key(), message });
    };
    let code = exit_code(place, argv, &status, printed)?;
    Ok(ExecEnd { stderr, code: Some(code), stdout_truncated: end == End::Cut })
}

/// How standard output ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// Within its cap.
    Whole,
    /// Beyond its cap.
    Cut,
    /// It did not.
    GivenUp,
}

/// Reads both streams to their ends while `feed` goes on, or until standard output goes far beyond its cap. A stream that
/// breaks just ends here: whether the output is whole is told by the exit status. Gives the bytes of standard output that
/// the sink got, and standard error.
async fn drain(
    mut out: impl AsyncRead + Unpin,
    mut err: impl AsyncRead + Unpin,
    caps: Caps,
    feed: impl Future<Output = ()>,
    sink: &mut Sink<'_>,
) -> (usize, Vec<u8>, End) {
    tokio::pin!(feed);
    let mut beyond = 0;
    let (mut printed, mut stderr) = (0, Vec::new());
    let (mut out_open, mut err_open, mut feeding) = (true, true, true);
    let (mut out_buffer, mut err_buffer) = (vec![0; 64 * 1024], vec![0; 4 * 1024]);
    while out_open || err_open {
        tokio::select! {
            read = out.read(&mut out_buffer), if out_open => match read {
                Ok(n) if n > 0 => {
                    let fits = n.min(caps.stdout - printed);
                    sink(&out_buffer[..fits]);
                    printed += fits;
                    beyond += n - fits;
                    if beyond > OVERRUN {
                        return (printed, stderr, End::GivenUp);
                    }
                }
                Ok(_) | Err(_) => out_open = false,
            },
            read = err.read(&mut err_buffer), if err_open => match read {
                Ok(n) if n > 0 => {
                    let room = caps.stderr - stderr.len();
                    stderr.extend_from_slice(&err_buffer[..n.min(room)]);
                }
                Ok(_) | Err(_) => err_open = false,
            },
            () = &mut feed, if feeding => feeding = false,
        }
    }
    (printed, stderr, if beyond > 0 { End::Cut } else { End::Whole })
}

/// The exit code from the status that the API server sends last (`remotecommand.StatusCause ExitCode`).
///
/// A program that is not there shows in two ways: as an error of the runtime's, or as 126 or 127, which containerd reports
/// like an exit of the program itself. A shell that ran has printed something before it could end so.
fn exit_code(place: &Place<'_>, argv: &[&str], status: &Status, printed: usize) -> Result<i32, ClusterError> {
    if status.status.as_deref() == Some("Success") {
        return Ok(0);
    }
    let message = status.message.clone().unwrap_or_default();
    let causes = status.details.as_ref().and_then(|details| details.causes.as_ref());
    let code = causes
        .into_iter()
        .flatten()
        .find(|cause| cause.reason.as_deref() == Some("ExitCode"))
        .and_then(|cause| cause.message.as_deref()?.parse::<i32>().ok());
    let missing = ["no such file or directory", "executable file not found", "permission denied"];
    let not_there = match code {
        Some(126 | 127) => printed == 0,
        Some(_) => false,
        None => missing.iter().any(|sign| message.contains(sign)),
    };
    if not_there {
        let program = argv.first().copied().unwrap_or_default().to_owned();
        return Err(ClusterError::NoShell { target: place.key(), program, message });
    }
    code.ok_or_else(|| ClusterError::ExecBroken { target: place.key(), message })
}

#[cfg(test)]
mod tests;
