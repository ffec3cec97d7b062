//! What every pod of gapscan has in common, and what its state means.

use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use serde_json::{Value, json};

use super::error::ClusterError;
use super::namespace::POD_ACCOUNT;
use super::patience::Credentials;

/// The user and group that pods of gapscan run as: nobody, by custom of distroless images.
const USER: u32 = 65532;

/// A pod's specification without its own containers: no rights, no token, nothing of the node's, the restricted Pod
/// Security Standard.
pub(crate) fn specification(containers: Value) -> Value {
    json!({
        "serviceAccountName": POD_ACCOUNT,
        "automountServiceAccountToken": false,
        "enableServiceLinks": false,
        "restartPolicy": "Never",
        "nodeSelector": { "kubernetes.io/os": "linux" },
        "terminationGracePeriodSeconds": 2,
        "securityContext": {
            "runAsNonRoot": true,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "seccompProfile": { "type": "RuntimeDefault" },
        },
        "containers": containers,
    })
}

/// Makes this the user of a pod's containers, and the group of its empty volumes.
pub(crate) fn run_as(specification: &mut Value, uid: u32, gid: u32) {
    let context = &mut specification["securityContext"];
    context["runAsUser"] = json!(uid);
    context["runAsGroup"] = json!(gid);
    context["fsGroup"] = json!(gid);
}

/// A container's security context by the restricted Pod Security Standard, and with a read-only root.
pub(crate) fn security() -> Value {
    json!({
        "allowPrivilegeEscalation": false,
        "readOnlyRootFilesystem": true,
        "capabilities": { "drop": ["ALL"] },
    })
}

/// How far a pod is.
#[derive(Debug)]
pub(crate) enum Stage {
    /// It may still start; this is what it waits for.
    Starting(String),
    /// The container of this name runs.
    Running,
    /// It has ended, or will never start.
    Ended(ClusterError),
}

/// How far the pod is with its container of this name. `memory` is that container's limit, for messages.
pub(crate) fn stage(pod: &Pod, container: &str, memory: &str) -> Stage {
    match reported(pod, container, memory) {
        // Its containers ended because the pod was told to, whatever they say of it themselves.
        Stage::Ended(ClusterError::ScannerFailed { message }) if pod.metadata.deletion_timestamp.is_some() => {
            Stage::Ended(ClusterError::Evicted { message: format!("its pod was deleted: {message}") })
        }
        stage => stage,
    }
}

/// What the pod's status says.
fn reported(pod: &Pod, container: &str, memory: &str) -> Stage {
    let status = pod.status.as_ref();
    let text = |text: Option<&String>| text.cloned().unwrap_or_default();
    let disrupted = status
        .and_then(|status| status.conditions.as_ref())
        .into_iter()
        .flatten()
        .find(|condition| condition.type_ == "DisruptionTarget" && condition.status == "True");
    let lost = status
        .is_some_and(|s| matches!(s.reason.as_deref(), Some("Evicted" | "NodeLost" | "Preempting" | "NodeShutdown")));
    if lost || disrupted.is_some() {
        let mut message = text(status.and_then(|status| status.message.as_ref()));
        if let (true, Some(condition)) = (message.is_empty(), disrupted) {
            message = text(condition.message.as_ref());
        }
        return Stage::Ended(ClusterError::Evicted { message });
    }
    let inits = status.and_then(|status| status.init_container_statuses.as_ref()).into_iter().flatten();
    let mains = status.and_then(|status| status.container_statuses.as_ref()).into_iter().flatten();
    let mut waits = None;
    for one in inits.chain(mains) {
        let is_main = one.name == container;
        match state(one, memory) {
            State::Running if is_main => return Stage::Running,
            State::Running | State::Done if !is_main => {}
            State::Waiting(why) => waits = waits.or(Some(why)),
            // The scanner itself was not even begun with.
            State::Failed(ClusterError::ScannerFailed { message }) if !is_main => {
                return Stage::Ended(ClusterError::NotStarted { message });
            }
            State::Failed(error) => return Stage::Ended(error),
            State::Running => {}
            State::Done => {
                let message = "its container ended before anything was collected".to_owned();
                return Stage::Ended(ClusterError::ScannerFailed { message });
            }
        }
    }
    let phase = status.and_then(|status| status.phase.as_deref()).unwrap_or_default();
    if matches!(phase, "Failed" | "Succeeded") {
        let message = text(status.and_then(|status| status.message.as_ref()));
        return Stage::Ended(ClusterError::ScannerFailed { message: format!("its pod ended: {message}") });
    }
    Stage::Starting(waits.unwrap_or_else(|| super::targets::describe(pod, None)))
}

/// Whether the pod names a secret that its images are pulled with.
pub(crate) fn credentials(pod: &Pod) -> Credentials {
    let secrets = pod.spec.as_ref().and_then(|spec| spec.image_pull_secrets.as_ref());
    if secrets.is_some_and(|secrets| !secrets.is_empty()) { Credentials::Given } else { Credentials::None }
}

/// How far one container is.
#[derive(Debug)]
pub(crate) enum ContainerStage {
    /// It may still start; this is what it waits for.
    Waiting(String),
    /// It runs.
    Running,
    /// It has ended, or will never start.
    Ended(ClusterError),
}

/// How far a container is that is to run until it is told to end.
pub(crate) fn container_stage(status: &ContainerStatus) -> ContainerStage {
    match state(status, "") {
        State::Running => ContainerStage::Running,
        State::Waiting(why) => ContainerStage::Waiting(why),
        State::Failed(error) => ContainerStage::Ended(error),
        State::Done => {
            let message = format!("container `{}` ended by itself", status.name);
            ContainerStage::Ended(ClusterError::ScannerFailed { message })
        }
    }
}

enum State {
    Running,
    Waiting(String),
    Done,
    Failed(ClusterError),
}

fn state(status: &ContainerStatus, memory: &str) -> State {
    let Some(state) = &status.state else { return State::Waiting(format!("`{}` has no state", status.name)) };
    if state.running.is_some() {
        return State::Running;
    }
    if let Some(waiting) = &state.waiting {
        let reason = waiting.reason.clone().unwrap_or_default();
        let message = waiting.message.clone().unwrap_or_default();
        // ErrImagePull is the failure itself; the kubelet goes on to ImagePullBackOff until its next attempt.
        return match reason.as_str() {
            "ImagePullBackOff"
            | "InvalidImageName"
            | "ErrImageNeverPull"
            | "ImageInspectError"
            | "SignatureValidationFailed" => {
                let image = named_image(&message).unwrap_or(&status.image).to_owned();
                State::Failed(ClusterError::ImagePull { image, message: format!("{reason}: {message}") })
            }
            "CreateContainerConfigError" | "CreateContainerError" | "RunContainerError" => {
                State::Failed(ClusterError::NotStarted { message: format!("{reason}: {message}") })
            }
            _ => State::Waiting(format!("`{}`: {reason} {message}", status.name)),
        };
    }
    match &state.terminated {
        Some(ended) if ended.reason.as_deref() == Some("OOMKilled") => {
            State::Failed(ClusterError::OutOfMemory { limit: memory.to_owned() })
        }
        Some(ended) if ended.exit_code != 0 => {
            let reason = ended.reason.clone().unwrap_or_default();
            let message = ended.message.clone().unwrap_or_default();
            let message =
                format!("container `{}` ended with exit code {} ({reason}) {message}", status.name, ended.exit_code);
            // A container that the runtime could not even start ends like one that failed.
            State::Failed(match reason.as_str() {
                "StartError" | "ContainerCannotRun" => ClusterError::NotStarted { message },
                _ => ClusterError::ScannerFailed { message },
            })
        }
        Some(_) => State::Done,
        None => State::Waiting(format!("`{}` waits", status.name)),
    }
}

/// The image that the kubelet's message is about. When an image volume can't be pulled it says so in the state of the
/// container, whose own image is another.
fn named_image(message: &str) -> Option<&str> {
    let (_, rest) = message.split_once("image \"")?;
    rest.split_once('"').map(|(image, _)| image).filter(|image| !image.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn staged(status: Value) -> Stage {
        let pod: Pod = serde_json::from_value(json!({ "metadata": {}, "status": status })).expect("a pod");
        stage(&pod, "scanner", "64Mi")
    }

    fn container(state: Value) -> Value {
        json!({ "containerStatuses": [{ "name": "scanner", "image": "r/s", "imageID": "", "ready": false,
            "restartCount": 0, "state": state }] })
    }

    fn ended(status: Value) -> crate::model::reason::Reason {
        match staged(status) {
            Stage::Ended(error) => error.reason(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn each_way_to_fail_has_its_reason() {
        use crate::model::reason::Reason;
        let waiting = |reason: &str| container(json!({ "waiting": { "reason": reason } }));
        let terminated =
            |reason: &str, code: i32| container(json!({ "terminated": { "reason": reason, "exitCode": code } }));
        assert_eq!(ended(waiting("ImagePullBackOff")), Reason::ImagePullFailed);
        assert_eq!(ended(waiting("InvalidImageName")), Reason::ImagePullFailed);
        assert_eq!(ended(waiting("CreateContainerError")), Reason::ScannerNotStarted);
        assert_eq!(ended(terminated("OOMKilled", 137)), Reason::ScannerOutOfMemory);
        assert_eq!(ended(terminated("StartError", 128)), Reason::ScannerNotStarted);
        assert_eq!(ended(terminated("Error", 1)), Reason::ScannerFailed);
        assert_eq!(ended(terminated("Completed", 0)), Reason::ScannerFailed);
        assert_eq!(ended(json!({ "phase": "Failed", "reason": "Evicted", "message": "disk" })), Reason::ScannerEvicted);
        let disrupted = json!({ "conditions": [{ "type": "DisruptionTarget", "status": "True" }] });
        assert_eq!(ended(disrupted), Reason::ScannerEvicted);
    }

    #[test]
    fn a_scanner_that_ends_because_its_pod_is_deleted_did_not_fail() {
        let mut pod: Pod = serde_json::from_value(json!({ "metadata": { "name": "x" },
            "status": container(json!({ "terminated": { "reason": "Completed", "exitCode": 0 } })) }))
        .expect("a pod");
        assert!(matches!(stage(&pod, "scanner", "1Gi"), Stage::Ended(ClusterError::ScannerFailed { .. })));
        let deleted = json!("2026-01-01T00:00:00Z");
        pod.metadata.deletion_timestamp = Some(serde_json::from_value(deleted).expect("a time"));
        assert!(matches!(stage(&pod, "scanner", "1Gi"), Stage::Ended(ClusterError::Evicted { .. })));
    }

    #[test]
    fn the_image_that_can_not_be_pulled_is_the_one_that_is_named() {
        let waiting = json!({ "reason": "ImagePullBackOff", "message": "Back-off pulling image \"r/volume@x\": no" });
        let Stage::Ended(ClusterError::ImagePull { image, .. }) = staged(container(json!({ "waiting": waiting })))
        else {
            panic!("it can't be pulled")
        };
        assert_eq!(image, "r/volume@x");
        assert_eq!(named_image("no image here"), None);
    }

    #[test]
    fn what_may_still_come_is_waited_for() {
        assert!(matches!(staged(container(json!({ "running": {} }))), Stage::Running));
        for status in [json!({}), container(json!({ "waiting": { "reason": "ErrImagePull" } }))] {
            assert!(matches!(staged(status), Stage::Starting(_)));
        }
        let unscheduled = json!({ "phase": "Pending",
            "conditions": [{ "type": "PodScheduled", "status": "False", "message": "0/1 nodes" }] });
        let Stage::Starting(why) = staged(unscheduled) else { panic!("it may still be scheduled") };
        assert_eq!(why, "its pod is Pending: 0/1 nodes");
    }
}
