//! The Job's manifest: a pure function of the request.

use std::time::Duration;

use serde_json::{Value, json};

use super::{HOLD, ImageArchive, JobRequest, JobTarget, Run, START, Scanning, Unread};
use crate::base::limits::Limits;
use crate::cluster::access::node;
use crate::cluster::agent::unreadable::LOOK;
use crate::cluster::canary::BINARY;
use crate::cluster::egress;
use crate::cluster::error::ClusterError;
use crate::cluster::inputs::InputFiles;
use crate::cluster::pod;
use crate::cluster::pull::PullSecret;

/// The scanner's container.
pub(crate) const CONTAINER: &str = "scanner";
/// Where gapscan's binary is in the scanner's container.
pub(crate) const AGENT: &str = "/agent/gapscan";
/// Where the scanner leaves its result.
pub(crate) const RESULTS: &str = "/results";

/// Where the profile's inputs are, one file each, where the scanner asks for them.
pub(super) const INPUTS: &str = "/inputs";

/// The image as an archive, where the scanner asks for it.
pub(super) const ARCHIVE: &str = "/archive/image.tar";
/// The folder that it is in.
const ARCHIVE_FOLDER: &str = "/archive";

/// How the agent runs it.
pub(super) const RUN: Run<'_> = Run { agent: AGENT, results: RESULTS, hold: HOLD, root: None };

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

/// The name of the policy that lets the scan's pod through to whom its scanner talks to.
pub(super) fn egress_name(scan: u32) -> String {
    format!("scan-{scan}-egress")
}

/// The name of the secret with the profile's inputs.
pub(super) fn inputs_name(scan: u32) -> String {
    format!("inputs-{scan}")
}

/// `beyond` is how much longer than the scanner the pod may live.
pub(super) fn job(request: &JobRequest<'_>, beyond: Duration) -> Result<Value, ClusterError> {
    let Scanning { program, pull, scan, inputs, .. } = &request.scanning;
    let deadline = program.deadline;
    let mount = program.approach.mount.unwrap_or_default();
    let mut told = Vec::new();
    // Behind the API server there are no files to look for.
    if program.unread == Unread::Silent && program.approach.mount.is_some() {
        told.extend(["--target-mount", mount].map(str::to_owned));
    }
    if let JobTarget::Api(access) = &request.target {
        told.extend(access.arguments());
    }
    let archived = program.approach.archive.is_some();
    if archived {
        let within = request.archive.as_ref().map_or(START, ImageArchive::within).as_secs().to_string();
        told.extend(["--archive", ARCHIVE, "--archive-within", &within].map(str::to_owned));
    }
    let told: Vec<&str> = told.iter().map(String::as_str).collect();
    let command = request.scanning.command(RUN, &told)?;
    let (target, target_mounts, security) = match &request.target {
        JobTarget::Image(_) if program.approach.mount.is_none() => (Vec::new(), Vec::new(), pod::security()),
        JobTarget::Image(image) => (
            vec![image_volume("target", image)],
            vec![json!({ "name": "target", "mountPath": mount, "readOnly": true })],
            pod::security(),
        ),
        JobTarget::Node(_) => {
            let security = node::security(program.approach.capabilities);
            (node::volumes().into(), node::mounts(mount).into(), security)
        }
        // The pod is started and its images are pulled with the token mounted already.
        JobTarget::Api(access) => (access.volumes(START + deadline).into(), access.mounts().into(), pod::security()),
    };
    let installing = json!({ "cpu": program.cpu, "memory": "64Mi" });
    let mut furniture = furnish(&request.scanning, "", json!({ "requests": installing, "limits": installing }));
    furniture.volumes.extend(target);
    furniture.mounts.extend(target_mounts);
    if inputs.is_some() || program.approach.wants_inputs() {
        furniture.volumes.push(match inputs {
            Some(_) => InputFiles::volume("inputs", &inputs_name(*scan)),
            // What the scanner is told to look at is there, even where the plan has nothing for it.
            None => json!({ "name": "inputs", "emptyDir": { "sizeLimit": "1Mi" } }),
        });
        furniture.mounts.push(json!({ "name": "inputs", "mountPath": INPUTS, "readOnly": true }));
    }
    if archived {
        let bytes = request.archive.as_ref().map_or(Limits::default().archive_bytes, ImageArchive::bytes);
        furniture.volumes.push(json!({ "name": "archive", "emptyDir": { "sizeLimit": room(bytes) } }));
        furniture.mounts.push(json!({ "name": "archive", "mountPath": ARCHIVE_FOLDER }));
    }
    let container = container(&request.scanning, command, security, furniture.mounts);
    let mut specification = pod::specification(json!([container]));
    specification["initContainers"] = json!([furniture.installer]);
    specification["volumes"] = json!(furniture.volumes);
    match &request.target {
        JobTarget::Node(place) => place.bind(&mut specification),
        JobTarget::Api(access) => specification["serviceAccountName"] = json!(access.account),
        JobTarget::Image(_) => {}
    }
    // On a node it is root in a container of its own.
    if let (Some(user), JobTarget::Image(_) | JobTarget::Api(_)) = (program.user, &request.target) {
        pod::run_as(&mut specification, user.uid, user.gid);
    }
    if !request.scanning.egress.is_empty() {
        specification["hostAliases"] = egress::host_aliases(&request.scanning.egress);
    }
    if pull.is_some() {
        specification["imagePullSecrets"] = PullSecret::reference(&pull_name(*scan));
    }
    Ok(json!({ "spec": {
        "backoffLimit": 0,
        "activeDeadlineSeconds": (deadline + LOOK + beyond).as_secs(),
        "ttlSecondsAfterFinished": LEFT_SECONDS,
        "template": { "spec": specification },
    } }))
}

/// What a scanner's pod has besides its target.
pub(crate) struct Furniture {
    pub(crate) volumes: Vec<Value>,
    /// Where the scanner has them.
    pub(crate) mounts: Vec<Value>,
    /// The init container that puts the agent there.
    pub(crate) installer: Value,
}

/// The agent, a place for results, `/tmp`, the content, and what else the scanner's definition asks for. The volumes' names begin with `prefix`.
pub(crate) fn furnish(scanning: &Scanning<'_>, prefix: &str, resources: Value) -> Furniture {
    let name = |name: &str| format!("{prefix}{name}");
    let mut volumes = vec![
        json!({ "name": name("agent"), "emptyDir": { "sizeLimit": "256Mi" } }),
        json!({ "name": name("results"), "emptyDir": { "sizeLimit": size(scanning.result_limit) } }),
        json!({ "name": name("tmp"), "emptyDir": { "sizeLimit": "4Gi" } }),
    ];
    let mut mounts = vec![
        json!({ "name": name("agent"), "mountPath": "/agent", "readOnly": true }),
        json!({ "name": name("results"), "mountPath": RESULTS }),
        json!({ "name": name("tmp"), "mountPath": "/tmp" }),
    ];
    for (index, image) in scanning.mounts.iter().enumerate() {
        let name = name(&format!("content-{index}"));
        volumes.push(image_volume(&name, &image.reference));
        mounts.push(json!({ "name": name, "mountPath": image.path, "readOnly": true }));
    }
    for (index, folder) in scanning.program.writable.iter().enumerate() {
        let name = name(&format!("writable-{index}"));
        volumes.push(json!({ "name": name, "emptyDir": { "sizeLimit": folder.size } }));
        mounts.push(json!({ "name": name, "mountPath": folder.path }));
    }
    let installer = json!({
        "name": "agent",
        "image": scanning.agent_image,
        "imagePullPolicy": "IfNotPresent",
        "command": [BINARY, "agent", "install", AGENT],
        "securityContext": pod::security(),
        "resources": resources,
        "volumeMounts": [{ "name": name("agent"), "mountPath": "/agent" }],
    });
    Furniture { volumes, mounts, installer }
}

/// The scanner's container. What is asked for is what may be used, so that the scheduler knows.
pub(crate) fn container(
    scanning: &Scanning<'_>,
    (command, env): (Vec<String>, Vec<Value>),
    security: Value,
    mounts: Vec<Value>,
) -> Value {
    let resources = json!({ "cpu": scanning.program.cpu, "memory": scanning.program.memory });
    json!({
        "name": CONTAINER,
        "image": scanning.scanner_image,
        "imagePullPolicy": "IfNotPresent",
        "command": command,
        "env": env,
        "securityContext": security,
        "resources": { "requests": resources, "limits": resources },
        "volumeMounts": mounts,
    })
}

fn image_volume(name: &str, reference: &str) -> Value {
    json!({ "name": name, "image": { "reference": reference, "pullPolicy": "IfNotPresent" } })
}

/// The archive, and what a file system needs for it.
fn room(archive_bytes: u64) -> String {
    format!("{}Mi", (archive_bytes >> 20) + 16)
}

/// The folder for results holds the result and a little more; the kubelet evicts a pod that writes beyond it.
fn size(result_limit: u64) -> String {
    format!("{}Mi", (result_limit >> 20) + 64)
}
