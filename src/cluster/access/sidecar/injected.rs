//! A pod that has the agent in it already: somebody put it into its manifest (`gapscan inject`).
//!
//! Only what is as `gapscan inject` writes it is used. That its image is gapscan's is for the caller to see, who knows the
//! bundle: whoever can change the pod can put anything under that name.

use k8s_openapi::api::core::v1::{Container, ContainerStatus, Pod};

use super::{AGENT, RESULTS, RESULTS_FOLDER};
use crate::base::digest::Digest;
use crate::cluster::access::auto::{User, reported_user};
use crate::cluster::canary::BINARY;
use crate::cluster::targets::{image_reference, statuses};

/// The agent in the target's own pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Injected {
    /// The digest of the image that it runs, where the node reports one.
    pub digest: Option<Digest>,
}

/// How the words begin that the agent stands by with; the name of the container that it is for follows.
const STANDS_BY: [&str; 4] = [BINARY, "agent", "stand-by", "--for"];

/// Whether this is the agent's container, and for which other one.
pub(super) fn stands_for(container: &Container) -> Option<&str> {
    let words = container.command.as_deref()?;
    let (begin, rest) = words.split_at_checked(STANDS_BY.len())?;
    (container.name == AGENT && begin == STANDS_BY).then(|| rest.first().map(String::as_str)).flatten()
}

/// The agent beside the container of this name; why it can't be used, where it is there; `None` where there is none.
pub(crate) fn injected(pod: &Pod, name: &str, user: Option<User>) -> Option<Result<Injected, String>> {
    let spec = pod.spec.as_ref()?;
    let mut all = spec.init_containers.iter().flatten().chain(&spec.containers);
    let agent = all.find(|container| stands_for(container) == Some(name))?;
    let statuses = statuses(pod);
    let status = statuses.get(AGENT).copied();
    Some(usable(agent, status, spec.share_process_namespace == Some(true), user))
}

fn usable(
    agent: &Container,
    status: Option<&ContainerStatus>,
    shared: bool,
    user: Option<User>,
) -> Result<Injected, String> {
    if !shared {
        return Err("its pod does not share one process namespace".to_owned());
    }
    let mounts = agent.volume_mounts.iter().flatten();
    let foreign = mounts.clone().any(|mount| mount.name != RESULTS || mount.mount_path != RESULTS_FOLDER);
    if foreign || mounts.count() != 1 || agent.volume_devices.is_some() {
        return Err("it has other mounts than `gapscan inject` gives it".to_owned());
    }
    let running = status.filter(|status| status.state.as_ref().is_some_and(|state| state.running.is_some()));
    let Some(status) = running else { return Err("it does not run".to_owned()) };
    let asked = agent.security_context.as_ref().and_then(|c| Some(User { uid: c.run_as_user?, gid: c.run_as_group? }));
    match (reported_user(status).or(asked), user) {
        (Some(own), Some(user)) if own == user => {}
        (Some(own), Some(user)) => {
            return Err(format!(
                "it runs as user {} and group {}, and the container as {} and {}: Linux does not let it see the container's files",
                own.uid, own.gid, user.uid, user.gid
            ));
        }
        _ => return Err("it is not known as whom it and the container run".to_owned()),
    }
    Ok(Injected { digest: image_reference(&status.image_id).map(|(_, digest)| digest) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::access::auto::ContainerFacts;
    use serde_json::{Value, json};

    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn of(change: impl FnOnce(&mut Value)) -> Option<Result<Injected, String>> {
        let user = User { uid: 7, gid: 8 };
        let linux = json!({ "linux": { "uid": 7, "gid": 8 } });
        let status = |name: &str| {
            json!({
                "name": name, "image": "r/x", "imageID": format!("r:5000/x@{DIGEST}"), "ready": true, "restartCount": 0,
                "state": { "running": {} }, "user": linux,
            })
        };
        let mut pod = json!({
            "metadata": { "name": "p", "namespace": "n" },
            "spec": {
                "shareProcessNamespace": true,
                "initContainers": [super::super::agent("r:5000/x@sha256:0", "app", user, None)],
                "containers": [{ "name": "app", "image": "r/app:1" }],
            },
            "status": { "initContainerStatuses": [status("gapscan")], "containerStatuses": [status("app")] },
        });
        change(&mut pod);
        let pod: Pod = serde_json::from_value(pod).expect("a pod");
        ContainerFacts::of(&pod, "app").expect("it has the container").injected
    }

    #[test]
    fn what_inject_wrote_is_recognised_and_used() {
        let found = of(|_| {}).expect("it is there").expect("it can be used");
        assert_eq!(found.digest, DIGEST.parse().ok());
        assert_eq!(of(|pod| pod["spec"]["initContainers"][0]["command"][4] = json!("other")), None);
        assert_eq!(of(|pod| pod["spec"]["initContainers"][0]["name"] = json!("mine")), None);
        assert_eq!(of(|pod| pod["spec"]["initContainers"] = json!([])), None);
    }

    #[test]
    fn what_was_changed_since_is_not_used() {
        type Change<'a> = &'a dyn Fn(&mut Value);
        let cases: [(&str, Change); 5] = [
            ("process namespace", &|pod| pod["spec"]["shareProcessNamespace"] = json!(false)),
            ("other mounts", &|pod| {
                let over = json!({ "name": "mine", "mountPath": "/gapscan" });
                pod["spec"]["initContainers"][0]["volumeMounts"].as_array_mut().expect("a list").push(over);
            }),
            ("other mounts", &|pod| pod["spec"]["initContainers"][0]["volumeMounts"] = json!([])),
            ("does not run", &|pod| pod["status"]["initContainerStatuses"][0]["state"] = json!({ "waiting": {} })),
            ("as user 9", &|pod| pod["status"]["initContainerStatuses"][0]["user"]["linux"]["uid"] = json!(9)),
        ];
        for (sign, change) in cases {
            let why = of(change).expect("it is there").expect_err(sign);
            assert!(why.contains(sign), "{sign}: {why}");
        }
    }
}
