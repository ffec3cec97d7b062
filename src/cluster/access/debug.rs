//! Looking at a container from an ephemeral container beside it: for targets that have no shell.
//!
//! It is gapscan's own image, runs as the target's user and group with no more rights than the target has, and sees the
//! target's processes; process 1 leads to its files. It holds itself open, one command is run in it by exec, and that
//! command ends it. Nothing is written anywhere, and nothing of what is collected comes into the pod's log.
//!
//! Kubernetes has no way to remove an ephemeral container: its ended entry stays in the pod's status until the pod goes.
//!
//! What could go wrong, and where it is seen:
//! * the target is restarted meanwhile: process 1 ends, and with it everything in its process namespace; the target's
//!   incarnation is compared before and after;
//! * admission refuses the container, or the image can't be pulled: the pod's status and the API server's answer say so;
//! * another pod of the same name: the patch names the UID, and the API server refuses it for any other.

use std::time::{Duration, Instant};

use hyper::http::Method;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use serde_json::{Value, json};

use super::auto::{ContainerFacts, DEBUG_NAME};
use super::exec::{Caps, Place, exec_into, incarnation_of};
use crate::cluster::agent::parcel;
use crate::cluster::agent::protocol::OWN_SOCKETS;
use crate::cluster::canary::BINARY;
use crate::cluster::client::{Call, Cluster, poll_until};
use crate::cluster::error::ClusterError;
use crate::cluster::object::{Kind, ObjectRef};
use crate::cluster::pod::{ContainerStage, container_stage};
use crate::cluster::targets::statuses;
use crate::model::record::RunId;
use crate::model::target::Target;

/// How long the image may take to be pulled and the container to start.
pub(super) const START: Duration = Duration::from_secs(120);

/// How often it is looked at while it starts.
const LOOK: Duration = Duration::from_millis(200);

/// How long it may take to end once it was told to.
pub(super) const END: Duration = Duration::from_secs(20);

/// One ephemeral container.
#[derive(Clone, Debug)]
pub struct DebugRequest<'a> {
    /// The container that is looked at.
    pub target: &'a Target,
    /// What is known of it; its user must be.
    pub facts: &'a ContainerFacts,
    /// The run, and the scan's number in it: they name the ephemeral container.
    pub run: RunId,
    /// See `run`.
    pub scan: u32,
    /// gapscan's own image, as `HOST/REPOSITORY@sha256:…`.
    pub image: &'a str,
    /// How much of the command's output is kept.
    pub caps: Caps,
    /// How long the command may take.
    pub deadline: Duration,
}

/// What came of it.
#[derive(Debug)]
pub struct DebugReport {
    /// What was collected, whole.
    pub outcome: Result<Collected, ClusterError>,
    /// The ephemeral container, as `ephemeralcontainer/namespace/pod/name`; absent when it was never made.
    pub container: Option<String>,
    /// Whether it was seen to have ended, where it was made.
    pub ended: bool,
}

/// What the agent sent.
#[derive(Debug)]
pub struct Collected {
    /// The facts about the target.
    pub facts: Vec<u8>,
    /// The sockets that the agent itself had meanwhile.
    pub sockets: Vec<u8>,
}

/// Adds the ephemeral container, has it collect facts about its target, and sees it end. `identity` is the connection of an
/// identity with [`Rights::Debug`](crate::cluster::identity::Rights).
///
/// # Cancel safety
/// Dropped half-way, the ephemeral container ends by its own deadline.
pub async fn collect(identity: &Cluster, request: &DebugRequest<'_>) -> DebugReport {
    let mut report = DebugReport { outcome: Err(no_container(request)), container: None, ended: false };
    let Target::Container { namespace, pod, container, uid, .. } = request.target else { return report };
    let place = Place { namespace, pod, container, uid: uid.as_deref() };
    let name = format!("{DEBUG_NAME}{}-{}", request.run.short(), request.scan);
    let own = Place { container: &name, ..place };
    let object = format!("ephemeralcontainer/{namespace}/{pod}/{name}");
    report.outcome = attempt(identity, request, &place, &own, &mut report.container, &object).await;
    if report.container.is_some() {
        report.ended = has_ended(identity, &own).await;
    }
    report
}

fn no_container(request: &DebugRequest<'_>) -> ClusterError {
    ClusterError::TargetNotRunning { target: request.target.key(), detail: "it is no container".to_owned() }
}

async fn attempt(
    identity: &Cluster,
    request: &DebugRequest<'_>,
    place: &Place<'_>,
    own: &Place<'_>,
    made: &mut Option<String>,
    object: &str,
) -> Result<Collected, ClusterError> {
    let context = context(request.facts, request.target)?;
    let before = incarnation_of(identity, place).await?;
    let word = format!("{}-{}", request.run, request.scan);
    let life = START + request.deadline + END;
    let manifest = manifest(request, context, own.container, place.container, &word, life);
    let call = Call {
        what: format!("add an ephemeral container to pod `{}/{}`", place.namespace, place.pod),
        method: Method::PATCH,
        path: format!(
            "{}/ephemeralcontainers?fieldValidation=Strict",
            ObjectRef::namespaced(Kind::Pod, place.namespace, place.pod).path()
        ),
        body: Some(patch(&before.uid, manifest).to_string().into_bytes()),
    };
    // An answer that is lost does not say whether it was made.
    match identity.call::<Value>(call).await {
        Err(error) if error.is_refusal() => return Err(error),
        outcome => {
            *made = Some(object.to_owned());
            outcome?;
        }
    }
    started(identity, own).await?;
    let argv = [BINARY, "agent", "facts", "--root", "/proc/1/root", "--release", &word];
    let mut sent = Vec::new();
    let mut sink = |bytes: &[u8]| sent.extend_from_slice(bytes);
    let ended = exec_into(identity, own, &argv, None, request.caps, request.deadline, &mut sink).await;
    let after = incarnation_of(identity, place).await?;
    if !before.is_same(&after) {
        let detail = "the container was restarted".to_owned();
        return Err(ClusterError::TargetChanged { target: place.key(), detail });
    }
    received(&sent, ended.map(drop), place)
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

pub(super) fn patch(uid: &str, container: Value) -> Value {
    json!({ "metadata": { "uid": uid }, "spec": { "ephemeralContainers": [container] } })
}

/// What an ephemeral container beside the target may do: it has the target's user and group, and the capabilities that the
/// target has, because without them Linux would not let it see the target's files; of these only root has any.
pub(super) fn context(facts: &ContainerFacts, target: &Target) -> Result<Value, ClusterError> {
    let Some(user) = facts.user else {
        let detail = "which user it runs as is not known".to_owned();
        return Err(ClusterError::TargetNotRunning { target: target.key(), detail });
    };
    let dropped = match user.uid {
        0 => facts.dropped_capabilities.clone(),
        _ => vec!["ALL".to_owned()],
    };
    Ok(json!({
        "runAsUser": user.uid,
        "runAsGroup": user.gid,
        "runAsNonRoot": user.uid != 0,
        "allowPrivilegeEscalation": false,
        "readOnlyRootFilesystem": true,
        "capabilities": { "drop": dropped },
        "seccompProfile": { "type": "RuntimeDefault" },
    }))
}

/// The ephemeral container.
fn manifest(request: &DebugRequest<'_>, context: Value, name: &str, target: &str, word: &str, life: Duration) -> Value {
    json!({
        "name": name,
        "image": request.image,
        "imagePullPolicy": "IfNotPresent",
        "targetContainerName": target,
        "command": [BINARY, "agent", "hold", "--deadline", life.as_secs().to_string(), "--word", word],
        "securityContext": context,
    })
}

async fn status(identity: &Cluster, own: &Place<'_>) -> Result<Option<ContainerStatus>, ClusterError> {
    let object = ObjectRef::namespaced(Kind::Pod, own.namespace, own.pod);
    let pod: Pod = match identity.get(&format!("read {object}"), object.path()).await {
        Err(ClusterError::Missing { .. }) => return Err(ClusterError::TargetGone { target: own.key() }),
        outcome => outcome?,
    };
    Ok(statuses(&pod).get(own.container).map(|status| (*status).clone()))
}

pub(super) async fn started(identity: &Cluster, own: &Place<'_>) -> Result<(), ClusterError> {
    let began = Instant::now();
    loop {
        let why = match status(identity, own).await?.as_ref().map(container_stage) {
            Some(ContainerStage::Running) => return Ok(()),
            Some(ContainerStage::Ended(error)) => return Err(error),
            Some(ContainerStage::Waiting(why)) => why,
            None => "the kubelet has not seen it".to_owned(),
        };
        if began.elapsed() >= START {
            let message = format!("the ephemeral container did not start within {} s: {why}", START.as_secs());
            return Err(ClusterError::NotStarted { message });
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Whether it is over, or its pod is.
pub(super) async fn has_ended(identity: &Cluster, own: &Place<'_>) -> bool {
    let over = poll_until(END, || async {
        match status(identity, own).await {
            Ok(status) => {
                let state = status.and_then(|status| status.state);
                Ok(state.is_some_and(|state| state.terminated.is_some()).then_some(()))
            }
            Err(ClusterError::TargetGone { .. }) => Ok(Some(())),
            Err(error) => Err(error),
        }
    })
    .await;
    matches!(over, Ok(Some(())))
}

#[cfg(test)]
mod tests;
