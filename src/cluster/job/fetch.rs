//! Fetching the result: one exec that waits for the scanner's end, repeated if its connection breaks.

use std::path::Path;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Pod;

use super::manifest::{self, CONTAINER};
use super::{HOLD, JobOutput, JobRequest, Scanning, TakenOut};
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

/// One hand-over.
pub(crate) struct Fetching<'a> {
    /// The scanner's container.
    pub(crate) place: Place<'a>,
    /// The command in it.
    pub(crate) argv: Vec<String>,
    /// How long the result may be waited for.
    pub(crate) patience: Duration,
}

/// What is asked before each further attempt.
pub(crate) trait Again: Send {
    /// Given why the last one failed, the connection to go on with, or the reason not to.
    fn again(&mut self, error: &ClusterError) -> impl Future<Output = Result<Cluster, ClusterError>> + Send;
}

/// Waits for the scanner's end and takes what it left; again if the connection broke, as long as it is held.
///
/// # Errors
/// When what was handed over is not whole, or says that the scanner did not do its work; what is said of the container that
/// the command ran in is said of the scanner.
pub(crate) async fn fetch(
    mut connection: Cluster,
    scanning: &Scanning<'_>,
    fetching: &Fetching<'_>,
    holder: &mut impl Again,
) -> Result<JobOutput, ClusterError> {
    let over = HandOver::of(scanning);
    let argv: Vec<&str> = fetching.argv.iter().map(String::as_str).collect();
    let began = Instant::now();
    let mut damaged = 0;
    loop {
        let left = fetching.patience.saturating_sub(began.elapsed());
        let mut receiver = over.receiver();
        let mut sink = |bytes: &[u8]| receiver.take(bytes);
        let ended = exec_into(&connection, &fetching.place, &argv, None::<&[u8]>, over.caps(), left, &mut sink).await;
        let error = match over.taken(ended, receiver) {
            Ok(output) => return Ok(output),
            Err(error) => error,
        };
        let worth_another = match &error {
            // A connection that broke without being noticed may give less at first and all at the next attempt.
            ClusterError::OutputTruncated { .. } => {
                damaged += 1;
                damaged < DAMAGED
            }
            ClusterError::ExecBroken { .. } => true,
            // The token has expired: the API server need not grant the life that was asked for.
            ClusterError::Denied { code: 401, .. } => true,
            other => other.is_silence(),
        };
        if !worth_another || began.elapsed() + PAUSE >= fetching.patience {
            return Err(of_scanner(error, scanning.program.deadline));
        }
        tracing::debug!(error = %error, "fetching the result again");
        tokio::time::sleep(PAUSE).await;
        connection = holder.again(&error).await?;
    }
}

/// The target of the exec was the scanner's own container.
fn of_scanner(error: ClusterError, deadline: Duration) -> ClusterError {
    match error {
        ClusterError::ExecTimeout { .. } => ClusterError::ScannerTimeout { after: deadline },
        ClusterError::TargetGone { .. } => ClusterError::Evicted { message: "its pod is gone".to_owned() },
        ClusterError::NoShell { message, .. } => ClusterError::NotStarted { message },
        ClusterError::TargetChanged { detail, .. } | ClusterError::TargetNotRunning { detail, .. } => {
            ClusterError::ScannerFailed { message: detail }
        }
        other => other,
    }
}

/// How long the result of a Job may be waited for.
pub(super) fn patience(request: &JobRequest<'_>) -> Duration {
    request.scanning.program.deadline + LOOK + HOLD
}

pub(super) async fn of_job(
    cluster: &Cluster,
    identity: &mut ScanIdentity,
    request: &JobRequest<'_>,
    pod: &Pod,
) -> Result<JobOutput, ClusterError> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let place = Place { namespace, pod: name, container: CONTAINER, uid: pod.metadata.uid.as_deref() };
    let argv = request.scanning.collecting(manifest::RUN, &[]);
    let fetching = Fetching { place, argv, patience: patience(request) };
    let connection = identity.cluster().clone();
    let mut holder = JobPod { cluster, identity, request, place };
    match fetch(connection, &request.scanning, &fetching, &mut holder).await {
        // What became of the pod tells more than how the exec failed.
        Err(error) => Err(ended(cluster, request, &place).await.unwrap_or(error)),
        outcome => outcome,
    }
}

/// The pod of a Job that is held.
struct JobPod<'a> {
    cluster: &'a Cluster,
    identity: &'a mut ScanIdentity,
    request: &'a JobRequest<'a>,
    place: Place<'a>,
}

impl Again for JobPod<'_> {
    async fn again(&mut self, error: &ClusterError) -> Result<Cluster, ClusterError> {
        // The pod may be what ended; then there is nothing to wait for.
        if let Some(ended) = ended(self.cluster, self.request, &self.place).await {
            return Err(ended);
        }
        renewed(self.cluster, self.identity, error).await
    }
}

/// The identity's connection, with a new token where the old one was refused.
pub(crate) async fn renewed(
    cluster: &Cluster,
    identity: &mut ScanIdentity,
    error: &ClusterError,
) -> Result<Cluster, ClusterError> {
    if matches!(error, ClusterError::Denied { .. }) {
        identity.renew(cluster).await?;
    }
    Ok(identity.cluster().clone())
}

/// How the pod ended, if it did.
pub(super) async fn ended(cluster: &Cluster, request: &JobRequest<'_>, place: &Place<'_>) -> Option<ClusterError> {
    let object = ObjectRef::namespaced(Kind::Pod, place.namespace, place.pod);
    match cluster.get::<Pod>(&format!("read {object}"), object.path()).await {
        Ok(pod) => match pod::stage(&pod, CONTAINER, request.scanning.program.memory) {
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
pub(super) struct HandOver<'a> {
    /// The result's place, for messages.
    pub(super) result: &'a str,
    /// Bytes of the result, at most.
    pub(super) limit: u64,
    /// The folder in which a large result is kept while it arrives.
    pub(super) spool: &'a Path,
    /// When the scanner was to be killed.
    pub(super) deadline: Duration,
    /// Its memory limit.
    pub(super) memory: &'a str,
}

impl<'a> HandOver<'a> {
    pub(super) fn of(scanning: &'a Scanning<'_>) -> Self {
        Self {
            result: scanning.program.result,
            limit: scanning.result_limit,
            spool: &scanning.spool,
            deadline: scanning.program.deadline,
            memory: scanning.program.memory,
        }
    }

    /// How much of the agent's output is taken. A line for each block comes on top, and for the keep-alive a line break every
    /// ten seconds. Each part has its own limit.
    pub(super) fn caps(&self) -> Caps {
        let limit = usize::try_from(self.limit).unwrap_or(usize::MAX);
        let lines = limit / BLOCK_BYTES * LINE;
        Caps { stdout: limit.saturating_add(lines + 2 * HEADER_BYTES + 2 * TAIL_BYTES), stderr: TAIL_BYTES }
    }

    /// What takes the agent's parcel.
    pub(super) fn receiver(&self) -> Receiver {
        receiver(self.limit, self.spool)
    }

    /// Takes what arrived by a command. If it is whole it counts, however the command was seen to end: it may end its own
    /// container, which is noticed before its own end is told.
    pub(super) fn taken(
        &self,
        ended: Result<ExecEnd, ClusterError>,
        receiver: Receiver,
    ) -> Result<JobOutput, ClusterError> {
        let cut = |detail: String| ClusterError::OutputTruncated { detail };
        if ended.as_ref().is_ok_and(|end| end.stdout_truncated) {
            return Err(cut("the hand-over went on beyond all limits".to_owned()));
        }
        match (self.read(receiver), ended) {
            (Err(ClusterError::OutputTruncated { .. }), Err(error)) => Err(error),
            (Err(ClusterError::OutputTruncated { .. }), Ok(end)) if end.code != Some(0) => {
                let said = String::from_utf8_lossy(&end.stderr).into_owned();
                Err(cut(format!("the hand-over ended with exit code {:?}: {}", end.code, said.trim())))
            }
            (outcome, _) => outcome,
        }
    }

    /// Takes what arrived, if it is all that the agent sent and what it had announced.
    pub(super) fn read(&self, receiver: Receiver) -> Result<JobOutput, ClusterError> {
        self.unpack(receiver.finish()?)
    }

    /// What the agent had announced, in a parcel that arrived whole.
    pub(super) fn unpack(&self, mut parts: Parts) -> Result<JobOutput, ClusterError> {
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
        let Header { exit, unreadable, sockets, version, .. } = header;
        Ok(JobOutput {
            exit,
            result,
            stdout_tail,
            stderr_tail,
            unreadable,
            sockets,
            version,
            taken_out: TakenOut::default(),
        })
    }
}
