//! Looking at a container from an ephemeral container beside it: for targets that have no shell.
//!
//! It is gapscan's own image; process 1, which is the target's, leads to the target's files. It holds itself open, one command is
//! run in it by exec, and that command ends it. Nothing is written anywhere, and nothing of what is collected comes into the
//! pod's log.
//!
//! What could go wrong, and where it is seen:
//! * the target is restarted meanwhile: process 1 ends, and with it everything in its process namespace; the target's
//!   incarnation is compared before and after;
//! * admission refuses the container, or the image can't be pulled: the pod's status and the API server's answer say so;
//! * another pod of the same name: the patch names the UID, and the API server refuses it for any other.

use super::auto::ContainerFacts;
use super::collecting::Collecting;
use super::ephemeral::{END, Entries, Ephemeral, EphemeralReport, START};
use super::exec::{Place, exec_sent};
use crate::cluster::agent::parcel;
use crate::cluster::agent::protocol::OWN_SOCKETS;
use crate::cluster::canary::BINARY;
use crate::cluster::client::Cluster;
use crate::cluster::error::ClusterError;

/// What the agent sent.
#[derive(Debug)]
pub struct Collected {
    /// The facts about the target.
    pub facts: Vec<u8>,
    /// The sockets that the agent itself had meanwhile.
    pub sockets: Vec<u8>,
}

/// Adds the ephemeral container, has it collect facts about its target, and sees it end. `identity` is the connection of an
/// identity with [`Rights::Debug`](crate::cluster::identity::Rights); the target's user must be known of `facts`.
///
/// # Cancel safety
/// Dropped half-way, the ephemeral container ends by its own deadline.
pub async fn collect(
    identity: &Cluster,
    request: &Collecting<'_>,
    facts: &ContainerFacts,
) -> EphemeralReport<Collected> {
    let opened = Ephemeral::open(identity, (request.target, facts), (request.run, request.scan)).await;
    let mut beside = match opened {
        Ok(beside) => beside,
        Err(error) => return EphemeralReport { outcome: Err(error), entries: Entries::default() },
    };
    let outcome = attempt(&mut beside, request).await;
    EphemeralReport { outcome, entries: beside.close().await }
}

async fn attempt(beside: &mut Ephemeral<'_>, request: &Collecting<'_>) -> Result<Collected, ClusterError> {
    let name = beside.hold(request.image, START + request.deadline + END).await?;
    let argv = [BINARY, "agent", "facts", "--root", "/proc/1/root", "--release", &beside.word];
    let (sent, ended) = exec_sent(beside.identity, &beside.place(&name), &argv, request.caps, request.deadline).await;
    beside.unchanged().await?;
    received(&sent, ended.map(drop), &beside.target)
}

/// What arrived, if all of it did. The command ends its own container, and that may be noticed before its own end is told, so
/// that how it ended says something only where what it sent is not whole.
fn received(sent: &[u8], ended: Result<(), ClusterError>, place: &Place<'_>) -> Result<Collected, ClusterError> {
    match (parcel::open_with(sent, OWN_SOCKETS), ended) {
        (Ok((facts, sockets)), _) => Ok(Collected { facts, sockets }),
        (
            Err(_),
            Err(
                ClusterError::TargetGone { .. }
                | ClusterError::TargetChanged { .. }
                | ClusterError::TargetNotRunning { .. },
            ),
        ) => {
            let message = "its ephemeral container ended before all that was collected had arrived".to_owned();
            Err(ClusterError::ExecBroken { target: place.key(), message })
        }
        (Err(_), Err(error)) | (Err(error), Ok(())) => Err(error),
    }
}

#[cfg(test)]
mod tests;
