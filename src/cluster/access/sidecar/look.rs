//! Facts about a copy, or about a container in whose own pod the agent is.

use k8s_openapi::api::core::v1::Pod;

use super::copy::Copy;
use super::running::{CopyReport, Copying, START, Wanted, container_id, not_running, read};
use super::{AGENT, RESULTS_FOLDER};
use crate::cluster::access::collecting::Collecting;
use crate::cluster::access::exec::{ExecEnd, Place, exec_sent, incarnation, incarnation_of};
use crate::cluster::agent::parcel;
use crate::cluster::canary::BINARY;
use crate::cluster::client::Cluster;
use crate::cluster::error::ClusterError;
use crate::cluster::namespace::ScanNamespace;
use crate::cluster::pull::PullSecret;
use crate::model::target::Target;

/// How often facts that arrive damaged, or whose connection broke, are asked for again. They are not collected again.
const ATTEMPTS: u32 = 3;

/// What was collected in a copy.
#[derive(Debug)]
pub struct Looked {
    /// The facts, whole.
    pub facts: Vec<u8>,
    /// What the agent said beside them.
    pub stderr: Vec<u8>,
    /// What the copy does not tell of the original.
    pub copy: Copy,
    /// Whether it ran on the original's node.
    pub same_node: bool,
}

/// Copies the target into `home`, which must be a namespace [for copies](ScanNamespace::create_for_copies), has the agent
/// collect facts about the copy, and removes it. `pull` is what the nodes pull both images with; `None` where no registry asks, or
/// the nodes know themselves.
///
/// # Cancel safety
/// Dropped half-way, the copy ends by its own deadline, and the namespace's end removes it.
pub async fn look_at_copy(
    cluster: &Cluster,
    home: &ScanNamespace,
    request: &Collecting<'_>,
    pull: Option<&PullSecret>,
) -> CopyReport<Looked> {
    let mut copying = Copying::new(cluster, home, request.target, request.scan);
    let outcome = Box::pin(attempt(&mut copying, request, pull)).await;
    Box::pin(copying.close(outcome)).await
}

async fn attempt(
    copying: &mut Copying<'_>,
    request: &Collecting<'_>,
    pull: Option<&PullSecret>,
) -> Result<Looked, ClusterError> {
    let wanted = Wanted { image: request.image, pull, life: START + request.deadline * ATTEMPTS };
    let made = copying.make(&wanted, |copied| Ok(copied.manifest.clone())).await?;
    let identity = copying.identify(&made, request.deadline * ATTEMPTS).await?;
    let sent = fetch(identity.cluster(), &made.place(AGENT), &made.id(), Rest::Wait, request).await;
    let (facts, stderr) = match sent {
        Ok(sent) => sent,
        Err(error) => return Err(copying.cause(&made, of_agent(error)).await),
    };
    copying.still_there(&made).await?;
    let node = |pod: &Pod| pod.spec.as_ref().and_then(|spec| spec.node_name.clone());
    let same_node = node(&made.running).is_some() && node(&made.running) == node(&made.there);
    Ok(Looked { facts, stderr, copy: made.copied, same_node })
}

/// The target of the exec was the agent beside the copy.
fn of_agent(error: ClusterError) -> ClusterError {
    match error {
        ClusterError::TargetGone { .. } => ClusterError::Evicted { message: "the copy is gone".to_owned() },
        ClusterError::TargetChanged { detail, .. } | ClusterError::TargetNotRunning { detail, .. } => {
            ClusterError::ScannerFailed { message: format!("the agent beside the copy: {detail}") }
        }
        other => other,
    }
}

/// Has the agent in the target's own pod collect facts about the target. `identity` is the connection of an identity with
/// [`Rights::Exec`](crate::cluster::identity::Rights) for that pod. Gives the facts, and what the
/// agent said beside them.
///
/// # Errors
/// As [`exec`](crate::cluster::access::exec::exec), and when what arrives is not whole.
///
/// # Cancel safety
/// Dropped, the connection is closed; the agent goes on to collect, and keeps the result until the next scan.
pub async fn look_at_injected(
    identity: &Cluster,
    request: &Collecting<'_>,
) -> Result<(Vec<u8>, Vec<u8>), ClusterError> {
    let Target::Container { namespace, pod, container, uid, .. } = request.target else {
        return Err(not_running(request.target, "it is no container"));
    };
    let place = Place { namespace, pod, container, uid: uid.as_deref() };
    let there = read(identity, namespace, pod).await;
    let there = match there {
        Err(ClusterError::Missing { .. }) => return Err(ClusterError::TargetGone { target: place.key() }),
        outcome => outcome?,
    };
    let before = incarnation(&there, &place)?;
    let own = Place { container: AGENT, ..place };
    let sent = fetch(identity, &own, &container_id(&there, container), Rest::Now, request).await;
    let after = incarnation_of(identity, &place).await?;
    if !before.is_same(&after) {
        let detail = "the container was restarted".to_owned();
        return Err(ClusterError::TargetChanged { target: place.key(), detail });
    }
    sent
}

/// Whether the container is waited for to come to rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rest {
    Wait,
    Now,
}

/// One exec in the agent's container, repeated if what it sends does not arrive whole. What arrived whole counts, however the
/// command was seen to end.
async fn fetch(
    identity: &Cluster,
    own: &Place<'_>,
    id: &str,
    rest: Rest,
    request: &Collecting<'_>,
) -> Result<(Vec<u8>, Vec<u8>), ClusterError> {
    let word = request.word();
    let mut argv = vec![BINARY, "agent", "beside", "--container-id", id, "--results", RESULTS_FOLDER, "--word", &word];
    if rest == Rest::Wait {
        argv.push("--settle");
    }
    let mut attempts = 0;
    loop {
        attempts += 1;
        let (sent, ended) = exec_sent(identity, own, &argv, request.caps, request.deadline).await;
        // What the agent could not do it says itself, and would say again.
        let told = ended.as_ref().is_ok_and(|end| end.code != Some(0));
        match received(&sent, ended, request.target) {
            Err(ClusterError::OutputTruncated { .. } | ClusterError::ExecBroken { .. })
                if !told && attempts < ATTEMPTS => {}
            outcome => return outcome,
        }
    }
}

fn received(
    sent: &[u8],
    ended: Result<ExecEnd, ClusterError>,
    target: &Target,
) -> Result<(Vec<u8>, Vec<u8>), ClusterError> {
    match (parcel::open(sent), ended) {
        (Ok(facts), ended) => Ok((facts, ended.map(|end| end.stderr).unwrap_or_default())),
        (Err(_), Ok(end)) if end.code != Some(0) => {
            let message = String::from_utf8_lossy(&end.stderr).trim().to_owned();
            Err(ClusterError::ExecBroken { target: target.key(), message })
        }
        (Err(_), Err(error)) | (Err(error), Ok(_)) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_arrived_whole_counts_though_the_agents_container_was_seen_to_end() {
        let target = Target::Host { name: "x".to_owned() };
        let mut whole = Vec::new();
        parcel::send(b"facts", &mut whole).expect("it is written to memory");
        let stopped = || Err(ClusterError::TargetChanged { target: "x".to_owned(), detail: "it stopped".to_owned() });
        let end = |code| Ok(ExecEnd { stderr: b"said".to_vec(), code: Some(code), stdout_truncated: false });
        for (ended, said) in [(stopped(), &b""[..]), (end(0), b"said"), (end(137), b"said")] {
            assert_eq!(received(&whole, ended, &target).expect("it is whole"), (b"facts".to_vec(), said.to_vec()));
        }
        let cut = &whole[..whole.len() - 9];
        assert!(matches!(received(cut, stopped(), &target), Err(ClusterError::TargetChanged { .. })));
        assert!(matches!(received(cut, end(0), &target), Err(ClusterError::OutputTruncated { .. })));
        assert!(matches!(received(cut, end(1), &target), Err(ClusterError::ExecBroken { .. })));
    }
}
