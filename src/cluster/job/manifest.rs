//! The Job's manifest: a pure function of the request.

use std::time::Duration;

use serde_json::{Value, json};

use super::parameters::substitute;
use super::{HOLD, JobRequest, JobTarget, START, Unread};
use crate::cluster::access::node;
use crate::cluster::agent::unreadable::LOOK;
use crate::cluster::canary::BINARY;
use crate::cluster::error::ClusterError;
use crate::cluster::pod;
use crate::cluster::pull::PullSecret;
use crate::model::scanner as placeholder;

/// The scanner's container.
pub(super) const CONTAINER: &str = "scanner";
/// Where gapscan's binary is in the scanner's container.
pub(crate) const AGENT: &str = "/agent/gapscan";
/// Where the scanner leaves its result.
const RESULTS: &str = "/results";
/// Where the agent keeps what it hands over.
pub(super) const SPOOL: &str = "/results/.gapscan";

/// How long a finished Job that nobody removed stays, for whoever wants to look at it.
const LEFT_SECONDS: u32 = 600;

/// The Job's name.
pub(super) fn name(scan: u32) -> String {
    format!("scan-{scan}")
}

/// The name of the secret that its images are pulled with.
pub(super) fn pull_name(scan: u32) -> String {
    format!("pull-{scan}")
}

/// Arguments that tell the agent where the result is.
pub(super) fn kept(request: &JobRequest<'_>) -> Vec<String> {
    let limit = request.result_limit.to_string();
    let path = request.program.result;
    // Anything but the standard output is a path below the folder for results.
    let path = if path == "stdout" { path.to_owned() } else { format!("{RESULTS}/{path}") };
    ["--result", &path, "--spool", SPOOL, "--limit", &limit].map(str::to_owned).into()
}

/// `beyond` is how much longer than the scanner the pod may live.
pub(super) fn job(request: &JobRequest<'_>, beyond: Duration) -> Result<Value, ClusterError> {
    let program = &request.program;
    let deadline = program.deadline;
    let mut command: Vec<String> = vec![AGENT.to_owned(), "agent".to_owned(), "run".to_owned()];
    command.extend(kept(request));
    let (deadline_seconds, hold_seconds) = (deadline.as_secs().to_string(), HOLD.as_secs().to_string());
    let mount = program.approach.mount.unwrap_or_default();
    // Behind the API server there are no files to look for.
    if program.unread == Unread::Silent && program.approach.mount.is_some() {
        command.extend(["--target-mount", mount].map(str::to_owned));
    }
    if let JobTarget::Api(access) = &request.target {
        command.extend(access.arguments());
    }
    let more = ["--deadline", &deadline_seconds, "--hold", &hold_seconds, "--"];
    command.extend(more.map(str::to_owned));
    let mut values = request.parameters.clone();
    values.insert(placeholder::RESULTS.to_owned(), RESULTS.to_owned());
    for argument in program.approach.command {
        command.push(substitute(argument, &values)?);
    }
    let mut env = Vec::new();
    for (name, value) in program.approach.env {
        env.push(json!({ "name": name, "value": substitute(value, &values)? }));
    }
    let (target, target_mounts, security) = match &request.target {
        JobTarget::Image(image) => (
            vec![image_volume("target", image)],
            vec![json!({ "name": "target", "mountPath": mount, "readOnly": true })],
            pod::security(),
        ),
        JobTarget::Node(_) => (node::volumes().into(), node::mounts(mount).into(), node::security()),
        // The pod is started and its images are pulled with the token mounted already.
        JobTarget::Api(access) => (access.volumes(START + deadline).into(), access.mounts().into(), pod::security()),
    };
    let mut volumes = vec![
        json!({ "name": "agent", "emptyDir": { "sizeLimit": "256Mi" } }),
        json!({ "name": "results", "emptyDir": { "sizeLimit": size(request.result_limit) } }),
        json!({ "name": "tmp", "emptyDir": { "sizeLimit": "4Gi" } }),
    ];
    volumes.extend(target);
    let mut mounts = vec![
        json!({ "name": "agent", "mountPath": "/agent", "readOnly": true }),
        json!({ "name": "results", "mountPath": RESULTS }),
        json!({ "name": "tmp", "mountPath": "/tmp" }),
    ];
    mounts.extend(target_mounts);
    for (index, image) in request.mounts.iter().enumerate() {
        let name = format!("content-{index}");
        volumes.push(image_volume(&name, &image.reference));
        mounts.push(json!({ "name": name, "mountPath": image.path, "readOnly": true }));
    }
    // What is asked for is what may be used, so that the scheduler knows; and the pod as a whole asks for no more than its
    // scanner does.
    let resources = json!({ "cpu": program.cpu, "memory": program.memory });
    let installing = json!({ "cpu": program.cpu, "memory": "64Mi" });
    let mut specification = pod::specification(json!([{
        "name": CONTAINER,
        "image": request.scanner_image,
        "imagePullPolicy": "IfNotPresent",
        "command": command,
        "env": env,
        "securityContext": security,
        "resources": { "requests": resources, "limits": resources },
        "volumeMounts": mounts,
    }]));
    specification["initContainers"] = json!([{
        "name": "agent",
        "image": request.agent_image,
        "imagePullPolicy": "IfNotPresent",
        "command": [BINARY, "agent", "install", AGENT],
        "securityContext": pod::security(),
        "resources": { "requests": installing, "limits": installing },
        "volumeMounts": [{ "name": "agent", "mountPath": "/agent" }],
    }]);
    specification["volumes"] = json!(volumes);
    match &request.target {
        JobTarget::Node(place) => place.bind(&mut specification),
        JobTarget::Api(access) => specification["serviceAccountName"] = json!(access.account),
        JobTarget::Image(_) => {}
    }
    if request.pull.is_some() {
        specification["imagePullSecrets"] = PullSecret::reference(&pull_name(request.scan));
    }
    Ok(json!({ "spec": {
        "backoffLimit": 0,
        "activeDeadlineSeconds": (deadline + LOOK + beyond).as_secs(),
        "ttlSecondsAfterFinished": LEFT_SECONDS,
        "template": { "spec": specification },
    } }))
}

fn image_volume(name: &str, reference: &str) -> Value {
    json!({ "name": name, "image": { "reference": reference, "pullPolicy": "IfNotPresent" } })
}

/// The folder for results holds the result and a little more; the kubelet evicts a pod that writes beyond it.
fn size(result_limit: u64) -> String {
    format!("{}Mi", (result_limit >> 20) + 64)
}
