//! Fetching the result: one exec that waits for the scanner's end, repeated if its connection breaks.

use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Pod;

use super::manifest::{self, AGENT, CONTAINER};
use super::{HOLD, JobOutput, JobRequest};
use crate::base::digest::Digest;
use crate::cluster::access::exec::{Caps, ExecOutput, Place, exec_at};
use crate::cluster::agent::protocol::{ExitStatus, HEADER_BYTES, Header, ResultState, TAIL_BYTES};
use crate::cluster::agent::unreadable::LOOK;
use crate::cluster::client::Cluster;
use crate::cluster::error::ClusterError;
use crate::cluster::identity::ScanIdentity;
use crate::cluster::object::{Kind, ObjectRef};
use crate::cluster::pod::{self, Stage};

/// Between two attempts.
const PAUSE: Duration = Duration::from_secs(2);

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
    let limit = usize::try_from(request.result_limit).unwrap_or(usize::MAX);
    // The keep-alive's line breaks come on top: one every ten seconds.
    let caps = Caps { stdout: limit.saturating_add(2 * HEADER_BYTES + 2 * TAIL_BYTES), stderr: TAIL_BYTES };
    let deadline = patience(request);
    let began = Instant::now();
    loop {
        let left = deadline.saturating_sub(began.elapsed());
        let error = match exec_at(identity.cluster(), &place, &argv, None, caps, left).await {
            Ok(output) => match read(request, output) {
                // A connection that broke without being noticed may give less at first and all at the next attempt.
                Err(error @ ClusterError::OutputTruncated { .. }) => error,
                outcome => return outcome,
            },
            Err(error) => error,
        };
        let worth_another = match &error {
            ClusterError::ExecBroken { .. } | ClusterError::OutputTruncated { .. } => true,
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
async fn ended(cluster: &Cluster, request: &JobRequest<'_>, place: &Place<'_>) -> Option<ClusterError> {
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

/// Takes apart what the agent sent, and compares it with what it announced.
pub(super) fn read(request: &JobRequest<'_>, output: ExecOutput) -> Result<JobOutput, ClusterError> {
    let cut = |detail: String| ClusterError::OutputTruncated { detail };
    if output.stdout_truncated {
        return Err(ClusterError::OutputTooLarge { length: output.stdout.len() as u64, limit: request.result_limit });
    }
    if output.code != Some(0) {
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        return Err(cut(format!("the hand-over ended with exit code {:?}: {}", output.code, said.trim())));
    }
    let mut sent = output.stdout;
    let start = sent.iter().position(|byte| *byte != b'\n').unwrap_or(sent.len());
    let line = sent[start..].iter().take(HEADER_BYTES).position(|byte| *byte == b'\n');
    let Some(line) = line.map(|length| start..start + length) else {
        return Err(cut("there is no header".to_owned()));
    };
    let mut at = line.end + 1;
    let header: Header =
        serde_json::from_slice(&sent[line]).map_err(|error| cut(format!("its header makes no sense: {error}")))?;
    let mut part = |length: u64, what: &str| {
        let there = sent.len() - at;
        match usize::try_from(length).ok().filter(|length| *length <= there) {
            Some(length) => {
                at += length;
                Ok(at - length..at)
            }
            None => Err(cut(format!("{what} has {there} bytes where {length} were announced"))),
        }
    };
    let announced = match &header.result {
        ResultState::Present { length, .. } if *length <= request.result_limit => Some(part(*length, "it")?),
        ResultState::Present { .. } | ResultState::Missing { .. } => None,
    };
    let stdout_tail = part(header.stdout_tail, "standard output")?;
    let stderr_tail = part(header.stderr_tail, "standard error")?;
    if at < sent.len() {
        return Err(cut(format!("{} bytes follow that were not announced", sent.len() - at)));
    }
    let (stdout_tail, stderr_tail) = (sent[stdout_tail].to_vec(), sent[stderr_tail].to_vec());
    let result = match (header.result, announced) {
        (ResultState::Present { digest, .. }, Some(range)) => {
            // What is around it is cut off in place: a result may be large, and there is one copy of it.
            sent.truncate(range.end);
            sent.drain(..range.start);
            if Digest::of(&sent) != digest {
                return Err(cut(format!("its digest is not {digest}, which was announced")));
            }
            Ok(sent)
        }
        (ResultState::Present { length, .. }, None) => {
            Err(ClusterError::OutputTooLarge { length, limit: request.result_limit })
        }
        (ResultState::Missing { detail }, _) => {
            Err(ClusterError::NoOutput { path: request.program.result.to_owned(), detail })
        }
    };
    match &header.exit {
        ExitStatus::TimedOut => {
            return Err(ClusterError::ScannerTimeout { after: request.program.deadline });
        }
        // A scanner that ends as if nothing was, although one of its processes was killed, can't be believed either.
        ExitStatus::Signalled { .. } | ExitStatus::Exited { .. } if header.oom_killed => {
            return Err(ClusterError::OutOfMemory { limit: request.program.memory.to_owned() });
        }
        ExitStatus::Signalled { .. } | ExitStatus::Exited { .. } | ExitStatus::NotStarted { .. } => {}
    }
    Ok(JobOutput { exit: header.exit, result, stdout_tail, stderr_tail, unreadable: header.unreadable })
}
