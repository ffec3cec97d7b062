//! Handing an image to a scanner as an archive: one command of the agent's in the scanner's pod, which reads it from the connection
//! and says what came of it. The scanner waits until it is there.
//!
//! What could go wrong, and where it ends:
//! * the registry has other bytes, stops to answer, or has no such blob: the stream from it says so, the command is given up, and the
//!   registry is what is blamed;
//! * the connection to the pod breaks, or is cut on its way: the agent says what is missing, or nobody says anything, and another
//!   attempt is made, with all of the archive;
//! * the pod is evicted, or its container killed, meanwhile: its state is looked at before anything else is blamed;
//! * the node's disk is full: the agent says so; or the kubelet evicts the pod for it;
//! * all of it takes too long: one deadline for all attempts, which the agent has as well.

use std::time::Instant;

use k8s_openapi::api::core::v1::Pod;

use super::archive::{ImageArchive, SourceError};
use super::fetch::{ended, renewed};
use super::manifest::{AGENT, ARCHIVE, CONTAINER};
use super::{JobRequest, LOOK};
use crate::base::text::brief;
use crate::cluster::access::exec::{Caps, ExecEnd, Place, exec_into};
use crate::cluster::agent::archive::{Fault, Receipt};
use crate::cluster::agent::parcel;
use crate::cluster::agent::protocol::{HEADER_BYTES, TAIL_BYTES};
use crate::cluster::client::Cluster;
use crate::cluster::error::ClusterError;
use crate::cluster::identity::ScanIdentity;
use crate::model::reason::Reason;

/// How often in all it is sent.
const ATTEMPTS: u32 = 3;

/// How long the agent listens to nothing: longer than a registry may be silent until that is noticed here.
const SILENCE_SECONDS: u64 = 600;

/// What is kept of what the agent says.
const CAPS: Caps = Caps { stdout: HEADER_BYTES, stderr: TAIL_BYTES };

/// Hands the archive over; what is to be noted of it.
pub(super) async fn deliver(
    cluster: &Cluster,
    identity: &mut ScanIdentity,
    request: &JobRequest<'_>,
    pod: &Pod,
    archive: &ImageArchive,
) -> Result<String, ClusterError> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let place = Place { namespace, pod: name, container: CONTAINER, uid: pod.metadata.uid.as_deref() };
    let (limit, silence) = (archive.bytes().to_string(), SILENCE_SECONDS.to_string());
    let argv = [AGENT, "agent", "receive", "--into", ARCHIVE, "--limit", &limit, "--silence", &silence];
    let (began, within) = (Instant::now(), archive.within());
    let mut attempt = 1;
    loop {
        let left = within.saturating_sub(began.elapsed());
        let error = match once(identity.cluster(), &place, &argv, archive, left).await {
            Ok(bytes) => {
                return Ok(format!(
                    "the image was handed to the scanner as an archive of {bytes} bytes, each blob with its digest"
                ));
            }
            // What is said of the image stays true, whatever became of the pod.
            Err(Failure::Source(SourceError { reason, error })) => {
                return Err(ClusterError::ArchiveSource { reason, source: error });
            }
            Err(Failure::Final(error) | Failure::Passing(error)) if began.elapsed() + LOOK >= within => {
                let detail = format!("it was not there within {} s: {error}", within.as_secs());
                let late = ClusterError::Archive { reason: Reason::Timeout, detail };
                return Err(ended(cluster, request, &place).await.unwrap_or(late));
            }
            Err(Failure::Final(error)) => return Err(ended(cluster, request, &place).await.unwrap_or(error)),
            Err(Failure::Passing(error)) => error,
        };
        if let Some(ended) = ended(cluster, request, &place).await {
            return Err(ended);
        }
        if attempt == ATTEMPTS {
            return Err(error);
        }
        attempt += 1;
        tracing::debug!(error = %error, "handing the archive over again");
        tokio::time::sleep(LOOK).await;
        renewed(cluster, identity, &error).await?;
    }
}

/// Why one attempt failed.
enum Failure {
    /// The image can't be had.
    Source(SourceError),
    /// Another attempt would end the same way.
    Final(ClusterError),
    /// Another attempt may do better.
    Passing(ClusterError),
}

async fn once(
    connection: &Cluster,
    place: &Place<'_>,
    argv: &[&str],
    archive: &ImageArchive,
    left: std::time::Duration,
) -> Result<u64, Failure> {
    let (feed, failure) = archive.stream();
    let mut said = Vec::new();
    let mut sink = |bytes: &[u8]| said.extend_from_slice(bytes);
    let ended = tokio::select! {
        biased;
        // The other branch is dropped, and with it the connection.
        Ok(error) = failure => return Err(Failure::Source(error)),
        ended = exec_into(connection, place, argv, Some(feed), CAPS, left, &mut sink) => ended,
    };
    outcome(ended, &said)
}

/// What an attempt came to, by what the agent said and how its command ended.
fn outcome(ended: Result<ExecEnd, ClusterError>, said: &[u8]) -> Result<u64, Failure> {
    let not = |detail: String| ClusterError::Archive { reason: Reason::ScannerNotStarted, detail };
    let receipt = parcel::open(said).ok().and_then(|json| serde_json::from_slice::<Receipt>(&json).ok());
    match (receipt, ended) {
        // What it says counts, however its end was seen.
        (Some(Receipt::Whole { bytes }), _) => Ok(bytes),
        (Some(Receipt::Refused { fault, detail }), _) => {
            let error = not(format!("the agent did not take it: {}", brief(&detail)));
            match fault {
                Fault::Cut | Fault::Stalled | Fault::Mismatch => Err(Failure::Passing(error)),
                Fault::Malformed | Fault::TooLarge | Fault::NotWritten => Err(Failure::Final(error)),
            }
        }
        (None, Ok(end)) => {
            let said = String::from_utf8_lossy(&end.stderr).into_owned();
            Err(Failure::Passing(not(format!("the agent ended with exit code {:?}: {}", end.code, brief(said.trim())))))
        }
        (None, Err(error)) => {
            let passing = match &error {
                ClusterError::ExecBroken { .. } | ClusterError::Denied { code: 401, .. } => true,
                other => other.is_silence(),
            };
            Err(match error {
                error if passing => Failure::Passing(error),
                ClusterError::ExecTimeout { after, .. } => Failure::Final(ClusterError::Archive {
                    reason: Reason::Timeout,
                    detail: format!("it took longer than {} s", after.as_secs()),
                }),
                ClusterError::TargetGone { .. } => {
                    Failure::Final(ClusterError::Evicted { message: "its pod is gone".to_owned() })
                }
                ClusterError::NoShell { message, .. } => Failure::Final(ClusterError::NotStarted { message }),
                ClusterError::TargetChanged { detail, .. } | ClusterError::TargetNotRunning { detail, .. } => {
                    Failure::Final(ClusterError::ScannerFailed { message: detail })
                }
                other => Failure::Final(other),
            })
        }
    }
}

#[cfg(test)]
mod tests;
