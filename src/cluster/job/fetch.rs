//! Fetching the result: one exec that waits for the scanner's end, repeated if its connection breaks.

use std::path::Path;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Pod;

use super::manifest::{self, AGENT, CONTAINER};
use super::{HOLD, JobOutput, JobRequest};
use crate::base::spool::Content as _;
use crate::cluster::access::exec::{Caps, ExecEnd, Place, exec_into};
use crate::cluster::agent::parcel::{BLOCK_BYTES, Parts, Receiver};
use crate::cluster::agent::protocol::{
    ExitStatus, HEADER_BYTES, Header, RESULT, ResultState, STATUS, STDERR, STDOUT, TAIL_BYTES,
};
use crate::cluster::agent::unreadable::LOOK;
use crate::cluster::client::Cluster;
use crate::cluster::error::ClusterError;
use crate::cluster::identity::ScanIdentity;
use crate::cluster::object::{Kind, ObjectRef};
use crate::cluster::pod::{self, Stage};

/// Between two attempts.
const PAUSE: Duration = Duration::from_secs(2);

/// Bytes of the line before a block, generously.
const LINE: usize = 64;

/// How often a result that arrives damaged is asked for again. A connection that breaks is another matter.
const DAMAGED: u32 = 3;

/// How long the result may be waited for.
pub(super) fn patience(request: &JobRequest<'_>) -> Duration {
    request.program.deadline + LOOK + HOLD
}

pub(super) async fn fetch(
    cluster: &Cluster,
    identity: &mut ScanIdentity,
    request: &JobRequest<'_>,
    pod: &Pod,
) -> Result<JobOutput, ClusterError> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let place = Place { namespace, pod: name, container: CONTAINER, uid: pod.metadata.uid.as_deref() };
    let mut argv = vec![AGENT.to_owned(), "agent".to_owned(), "collect".to_owned()];
    argv.extend(manifest::kept(request));
    let argv: Vec<&str> = argv.iter().map(String::as_str).collect();
    let over = HandOver::of(request);
    let deadline = patience(request);
    let began = Instant::now();
    let mut damaged = 0;
    loop {
        let left = deadline.saturating_sub(began.elapsed());
        let mut receiver = over.receiver();
        let mut sink = |bytes: &[u8]| receiver.take(bytes);
        let finished = exec_into(identity.cluster(), &place, &argv, None, over.caps(), left, &mut sink).await;
        let error = match finished {
            Ok(end) => match over.read(&end, receiver) {
                // A connection that broke without being noticed may give less at first and all at the next attempt.
                Err(error @ ClusterError::OutputTruncated { .. }) => {
                    damaged += 1;
                    error
                }
                outcome => return outcome,
            },
            Err(error) => error,
        };
        let worth_another = match &error {
            ClusterError::OutputTruncated { .. } => damaged < DAMAGED,
            ClusterError::ExecBroken { .. } => true,
            // The token has expired: the API server need not grant the life that was asked for.
            ClusterError::Denied { code: 401, .. } => true,
            other => other.is_silence(),
        };
        if !worth_another || began.elapsed() + PAUSE >= deadline {
            return Err(cause(cluster, request, &place, error).await);
        }
        tracing::debug!(error = %error, "fetching the result again");
        tokio::time::sleep(PAUSE).await;
        // The pod may be what ended; then there is nothing to wait for.
        if let Some(ended) = ended(cluster, request, &place).await {
            return Err(ended);
        }
        if matches!(error, ClusterError::Denied { .. }) {
            identity.renew(cluster).await?;
        }
    }
}

/// Why there is no result: what became of the pod tells more than how the exec failed.
async fn cause(cluster: &Cluster, request: &JobRequest<'_>, place: &Place<'_>, error: ClusterError) -> ClusterError {
    if let Some(ended) = ended(cluster, request, place).await {
        return ended;
    }
    match error {
        ClusterError::ExecTimeout { .. } => ClusterError::ScannerTimeout { after: request.program.deadline },
        // The target of this exec is the scanner's own pod.
        ClusterError::TargetGone { .. } => ClusterError::Evicted { message: "its pod is gone".to_owned() },
        ClusterError::NoShell { message, .. } => ClusterError::NotStarted { message },
        ClusterError::TargetChanged { detail, .. } | ClusterError::TargetNotRunning { detail, .. } => {
            ClusterError::ScannerFailed { message: detail }
        }
        other => other,
    }
}

/// How the pod ended, if it did.
pub(super) async fn ended(cluster: &Cluster, request: &JobRequest<'_>, place: &Place<'_>) -> Option<ClusterError> {
    let object = ObjectRef::namespaced(Kind::Pod, place.namespace, place.pod);
    match cluster.get::<Pod>(&format!("read {object}"), object.path()).await {
        Ok(pod) => match pod::stage(&pod, CONTAINER, request.program.memory) {
            Stage::Ended(error) => Some(error),
            Stage::Running if pod.metadata.deletion_timestamp.is_some() => {
                Some(ClusterError::Evicted { message: "its pod is being removed".to_owned() })
            }
            Stage::Running | Stage::Starting(_) => None,
        },
        Err(ClusterError::Missing { .. }) => Some(ClusterError::Evicted { message: "its pod is gone".to_owned() }),
        Err(_) => None,
    }
}

/// What takes a parcel with a result of at most so many bytes; what is large of it is kept in `spool`.
pub(super) fn receiver(limit: u64, spool: &Path) -> Receiver {
    let (header, tail) = (HEADER_BYTES as u64, TAIL_BYTES as u64);
    Receiver::new(&[(STATUS, header), (RESULT, limit), (STDOUT, tail), (STDERR, tail)], spool)
}

/// What is to be handed over by the agent, and within which bounds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HandOver<'a> {
    /// The result's place, for messages.
    pub(crate) result: &'a str,
    /// Bytes of the result, at most.
    pub(crate) limit: u64,
    /// The folder in which a large result is kept while it arrives.
    pub(crate) spool: &'a Path,
    /// When the scanner was to be killed.
    pub(crate) deadline: Duration,
    /// Its memory limit.
    pub(crate) memory: &'a str,
}

impl<'a> HandOver<'a> {
    pub(super) fn of(request: &'a JobRequest<'_>) -> Self {
        Self {
            result: request.program.result,
            limit: request.result_limit,
            spool: &request.spool,
            deadline: request.program.deadline,
            memory: request.program.memory,
        }
    }

    /// How much of the agent's output is taken. A line for each block comes on top, and for the keep-alive a line break every
    /// ten seconds. Each part has its own limit.
    pub(crate) fn caps(&self) -> Caps {
        let limit = usize::try_from(self.limit).unwrap_or(usize::MAX);
        let lines = limit / BLOCK_BYTES * LINE;
        Caps { stdout: limit.saturating_add(lines + 2 * HEADER_BYTES + 2 * TAIL_BYTES), stderr: TAIL_BYTES }
    }

    /// What takes the agent's parcel.
    pub(crate) fn receiver(&self) -> Receiver {
        receiver(self.limit, self.spool)
    }

    /// Takes what arrived, if it is all that the agent sent and what it had announced.
    pub(crate) fn read(&self, end: &ExecEnd, receiver: Receiver) -> Result<JobOutput, ClusterError> {
        let cut = |detail: String| ClusterError::OutputTruncated { detail };
        if end.stdout_truncated {
            return Err(cut("the hand-over went on beyond all limits".to_owned()));
        }
        if end.code != Some(0) {
            let said = String::from_utf8_lossy(&end.stderr).into_owned();
            return Err(cut(format!("the hand-over ended with exit code {:?}: {}", end.code, said.trim())));
        }
        self.unpack(receiver.finish()?)
    }

    /// What the agent had announced, in a parcel that arrived whole.
    pub(crate) fn unpack(&self, mut parts: Parts) -> Result<JobOutput, ClusterError> {
        let cut = |detail: String| ClusterError::OutputTruncated { detail };
        let mut bytes = |part: &str| parts.take(part)?.into_bytes().map_err(ClusterError::Spool);
        let (status, stdout_tail, stderr_tail) = (bytes(STATUS)?, bytes(STDOUT)?, bytes(STDERR)?);
        let header: Header =
            serde_json::from_slice(&status).map_err(|error| cut(format!("its header makes no sense: {error}")))?;
        let result = match header.result {
            ResultState::Present { length, .. } if length > self.limit => {
                Err(ClusterError::OutputTooLarge { length, limit: self.limit })
            }
            ResultState::Present { length, .. } => {
                let result = parts.take(RESULT)?;
                if result.length() != length {
                    return Err(cut(format!("it has {} bytes where {length} were announced", result.length())));
                }
                Ok(result)
            }
            ResultState::Missing { detail } => Err(ClusterError::NoOutput { path: self.result.to_owned(), detail }),
        };
        match &header.exit {
            ExitStatus::TimedOut => {
                return Err(ClusterError::ScannerTimeout { after: self.deadline });
            }
            // A scanner that ends as if nothing was, although one of its processes was killed, can't be believed either.
            ExitStatus::Signalled { .. } | ExitStatus::Exited { .. } if header.oom_killed => {
                return Err(ClusterError::OutOfMemory { limit: self.memory.to_owned() });
            }
            ExitStatus::Signalled { .. } | ExitStatus::Exited { .. } | ExitStatus::NotStarted { .. } => {}
        }
        let Header { exit, unreadable, sockets, .. } = header;
        Ok(JobOutput { exit, result, stdout_tail, stderr_tail, unreadable, sockets })
    }
}
