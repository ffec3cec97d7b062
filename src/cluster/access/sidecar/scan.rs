//! A scanner beside a copy of a container: its own image, with the target's user, group and processes.
//!
//! gapscan's agent comes to it as it does in a Job: an init container copies it from gapscan's image. It waits until it is told
//! which container it is beside, by the id that the copy's status has, finds that one's first process by its control group,
//! and puts `/proc/PID/root` in the place of `${target.root}`. The result is fetched by one exec, which brings the id.
//!
//! What could go wrong, and where it is seen:
//! * what can go wrong with any copy ([`super`]), in the same way;
//! * another process is taken for the target's: see [`agent::beside`](crate::cluster::agent::beside);
//! * the target ends while the scanner looks at it: the agent says so in the place of a result, and so does the copy's status;
//! * the copied program, which runs as the same user, meddles with the scanner: it could, as it could with any collector within
//!   its reach. It has no volume of the scanner's mounted.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::copy::{Copy, TARGET};
use super::look::{Made, START, Wanted, container_id, make, still_there, unchanged};
use super::{RESULTS as VOLUME, copy};
use crate::cluster::access::exec::{Place, exec_into};
use crate::cluster::agent::unreadable::LOOK;
use crate::cluster::canary::BINARY;
use crate::cluster::client::Cluster;
use crate::cluster::error::ClusterError;
use crate::cluster::identity::{Rights, ScanIdentity};
use crate::cluster::job::{AGENT as INSTALLED, HandOver, ImageMount, JobOutput, Program, substitute};
use crate::cluster::namespace::ScanNamespace;
use crate::cluster::object::Inventory;
use crate::cluster::pod;
use crate::cluster::pull::PullSecret;
use crate::model::provenance::Cleanup;
use crate::model::scanner as placeholder;
use crate::model::target::Target;

/// The scanner's container.
pub(super) const SCANNER: &str = "scanner";

/// Where the scanner leaves its result, and the agent what it hands over.
const RESULTS: &str = "/results";
const SPOOL: &str = "/results/.gapscan";
/// Where the agent is told which container is the target.
const TOLD: &str = "/results/.gapscan-target";

/// What the agent finds out by itself: it stands in the command until then.
const LATER: &str = "${target.root}";

/// How long the scanner's container is held after its end. The result is fetched at once.
const HOLD: Duration = Duration::from_secs(60);
/// How long the target may take to come to rest.
const REST: Duration = Duration::from_secs(30);
/// Between two attempts to fetch.
const PAUSE: Duration = Duration::from_secs(2);

/// A scan of a copy.
#[derive(Clone, Debug)]
pub struct CopyScanRequest<'a> {
    /// What is copied.
    pub target: &'a Target,
    /// The scan's number in its run: it names the copy.
    pub scan: u32,
    /// gapscan's own image, as `HOST/REPOSITORY@sha256:…`.
    pub agent_image: &'a str,
    /// The scanner's, likewise.
    pub scanner_image: &'a str,
    /// The scanner.
    pub program: Program<'a>,
    /// Dependencies and the profile.
    pub mounts: Vec<ImageMount>,
    /// Values for `${...}`.
    pub parameters: BTreeMap<String, String>,
    /// What the nodes pull the images with; `None` where no registry asks, or the nodes know themselves.
    pub pull: Option<PullSecret>,
    /// Bytes of the result, at most.
    pub result_limit: u64,
    /// The folder in which a large result is kept while it arrives.
    pub spool: PathBuf,
}

/// What came of it.
#[derive(Debug)]
pub struct CopyScanReport {
    /// What the scanner left, or why there is nothing.
    pub outcome: Result<Scanned, ClusterError>,
    /// What was made, and what of it could not be seen to be gone.
    pub cleanup: Cleanup,
    /// Who fetched the result.
    pub identity: Option<String>,
    /// What the copy lacks, as soon as it is known.
    pub notes: Vec<String>,
}

/// What a scanner left that was beside a copy.
#[derive(Debug)]
pub struct Scanned {
    /// What it left.
    pub output: JobOutput,
    /// What the copy does not tell of the original.
    pub copy: Copy,
}

/// Copies the target into `home`, which must be a namespace [for copies](ScanNamespace::create_for_copies), with the scanner
/// beside it, fetches what it left, and removes the copy.
///
/// # Cancel safety
/// Dropped half-way, the copy ends by its own deadline, and the namespace's end removes it.
pub async fn scan_copy(cluster: &Cluster, home: &ScanNamespace, request: &CopyScanRequest<'_>) -> CopyScanReport {
    let mut inventory = Inventory::new(home.mark(Some(request.scan)));
    let (mut identity, mut notes) = (None, Vec::new());
    let outcome = attempt(cluster, home, request, &mut inventory, &mut identity, &mut notes).await;
    let username = identity.as_ref().map(|identity| identity.username().to_owned());
    let mut cleanup = match identity {
        Some(identity) => identity.remove(cluster, home).await,
        None => Cleanup { created: Vec::new(), remaining: Vec::new() },
    };
    let made = inventory.remove(cluster).await;
    cleanup.created.extend(made.created);
    cleanup.remaining.extend(made.remaining);
    let limit = || request.program.memory.to_owned();
    let outcome = outcome.map_err(|error| match error {
        ClusterError::OutOfMemory { limit: none } if none.is_empty() => ClusterError::OutOfMemory { limit: limit() },
        other => other,
    });
    CopyScanReport { outcome, cleanup, identity: username, notes }
}

async fn attempt(
    cluster: &Cluster,
    home: &ScanNamespace,
    request: &CopyScanRequest<'_>,
    inventory: &mut Inventory,
    identity: &mut Option<ScanIdentity>,
    notes: &mut Vec<String>,
) -> Result<Scanned, ClusterError> {
    let target = request.target;
    let wanted = Wanted {
        target,
        scan: request.scan,
        image: request.agent_image,
        pull: request.pull.as_ref(),
        life: START + patience(request),
    };
    let made = make(cluster, home, &wanted, inventory, notes, |copied| manifest(copied, request)).await?;
    let Made { running, name, .. } = &made;
    let own = Place { namespace: home.name(), pod: name, container: SCANNER, uid: running.metadata.uid.as_deref() };
    let place = (home.name(), name.as_str());
    let identity = identity
        .insert(ScanIdentity::create_for(cluster, home, request.scan, place, Rights::Exec, patience(request)).await?);
    let id = container_id(running, TARGET);
    let sent = fetch(identity.cluster(), &own, &id, request).await;
    still_there(cluster, home, name, target, sent.is_err()).await?;
    let output = match sent {
        Err(ClusterError::TargetGone { .. }) => {
            return Err(ClusterError::Evicted { message: "the copy is gone".to_owned() });
        }
        Err(ClusterError::TargetChanged { detail, .. } | ClusterError::TargetNotRunning { detail, .. }) => {
            return Err(ClusterError::ScannerFailed { message: detail });
        }
        Err(ClusterError::NoShell { message, .. }) => return Err(ClusterError::NotStarted { message }),
        Err(ClusterError::ExecTimeout { .. }) => {
            return Err(ClusterError::ScannerTimeout { after: request.program.deadline });
        }
        outcome => outcome?,
    };
    unchanged(cluster, target, &made.before).await?;
    Ok(Scanned { output, copy: made.copied })
}

/// How long the result may be waited for.
fn patience(request: &CopyScanRequest<'_>) -> Duration {
    REST + request.program.deadline + LOOK + HOLD
}

/// The copy with the scanner beside it, in the place of gapscan's agent that would collect facts.
fn manifest(copied: &Copy, request: &CopyScanRequest<'_>) -> Result<Value, ClusterError> {
    let program = &request.program;
    let mut manifest = copied.manifest.clone();
    let specification = &mut manifest["spec"];
    let (deadline, hold) = (program.deadline.as_secs().to_string(), HOLD.as_secs().to_string());
    let mut command: Vec<String> =
        [INSTALLED, "agent", "run", "--shared-network", "--beside", TOLD].map(str::to_owned).into();
    command.extend(kept(request));
    command.extend(["--deadline", &deadline, "--hold", &hold, "--"].map(str::to_owned));
    let mut values = request.parameters.clone();
    values.insert(placeholder::ROOT.to_owned(), LATER.to_owned());
    values.insert(placeholder::RESULTS.to_owned(), RESULTS.to_owned());
    for argument in program.approach.command {
        command.push(substitute(argument, &values)?);
    }
    let mut env = Vec::new();
    for (name, value) in program.approach.env {
        env.push(json!({ "name": name, "value": substitute(value, &values)? }));
    }
    let mut mounts = vec![
        json!({ "name": "gapscan-agent", "mountPath": "/agent", "readOnly": true }),
        json!({ "name": VOLUME, "mountPath": RESULTS }),
        json!({ "name": "gapscan-tmp", "mountPath": "/tmp" }),
    ];
    let size = format!("{}Mi", (request.result_limit >> 20) + 64);
    let mut volumes = vec![
        json!({ "name": "gapscan-agent", "emptyDir": { "sizeLimit": "256Mi" } }),
        json!({ "name": VOLUME, "emptyDir": { "sizeLimit": size } }),
        json!({ "name": "gapscan-tmp", "emptyDir": { "sizeLimit": "4Gi" } }),
    ];
    for (index, image) in request.mounts.iter().enumerate() {
        let name = format!("gapscan-content-{index}");
        volumes.push(json!({ "name": name, "image": { "reference": image.reference, "pullPolicy": "IfNotPresent" } }));
        mounts.push(json!({ "name": name, "mountPath": image.path, "readOnly": true }));
    }
    let of_target = specification["volumes"].as_array().into_iter().flatten();
    volumes.extend(of_target.filter(|volume| volume["name"] != VOLUME).cloned());
    specification["volumes"] = json!(volumes);
    // User and group are the pod's, which are the target's.
    specification["initContainers"] = json!([{
        "name": "agent",
        "image": request.agent_image,
        "imagePullPolicy": "IfNotPresent",
        "command": [BINARY, "agent", "install", INSTALLED],
        "securityContext": pod::security(),
        "resources": copy::agent_resources(),
        "volumeMounts": [{ "name": "gapscan-agent", "mountPath": "/agent" }],
    }]);
    let resources = json!({ "cpu": program.cpu, "memory": program.memory });
    let scanner = json!({
        "name": SCANNER,
        "image": request.scanner_image,
        "imagePullPolicy": "IfNotPresent",
        "command": command,
        "env": env,
        "securityContext": pod::security(),
        "resources": { "requests": resources, "limits": resources },
        "volumeMounts": mounts,
    });
    if let Some(containers) = specification["containers"].as_array_mut() {
        containers.push(scanner);
    }
    Ok(manifest)
}

/// Arguments that tell the agent where the result is.
fn kept(request: &CopyScanRequest<'_>) -> Vec<String> {
    let limit = request.result_limit.to_string();
    let path = request.program.result;
    let path = if path == "stdout" { path.to_owned() } else { format!("{RESULTS}/{path}") };
    ["--result", &path, "--spool", SPOOL, "--limit", &limit].map(str::to_owned).into()
}

/// Tells the agent its target, waits for the scanner's end and takes what it left; again if the connection broke, as long as
/// it is held.
async fn fetch(
    identity: &Cluster,
    own: &Place<'_>,
    id: &str,
    request: &CopyScanRequest<'_>,
) -> Result<JobOutput, ClusterError> {
    let program = &request.program;
    let over = HandOver {
        result: program.result,
        limit: request.result_limit,
        spool: &request.spool,
        deadline: program.deadline,
        memory: program.memory,
    };
    let mut argv: Vec<String> = [INSTALLED, "agent", "collect"].map(str::to_owned).into();
    argv.extend(kept(request));
    argv.extend(["--tell", TOLD, id].map(str::to_owned));
    let argv: Vec<&str> = argv.iter().map(String::as_str).collect();
    let patience = patience(request);
    let began = Instant::now();
    loop {
        let left = patience.saturating_sub(began.elapsed());
        let mut receiver = over.receiver();
        let mut sink = |bytes: &[u8]| receiver.take(bytes);
        let error = match exec_into(identity, own, &argv, None, over.caps(), left, &mut sink).await {
            Ok(end) => match over.read(&end, receiver) {
                Err(error @ ClusterError::OutputTruncated { .. }) => error,
                outcome => return outcome,
            },
            Err(error) => error,
        };
        let again = matches!(error, ClusterError::OutputTruncated { .. } | ClusterError::ExecBroken { .. })
            || error.is_silence();
        if !again || began.elapsed() + PAUSE >= patience {
            return Err(error);
        }
        tracing::debug!(error = %error, "fetching the result again");
        tokio::time::sleep(PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::document;
    use crate::cluster::access::sidecar::written_out;
    use crate::model::scanner::ScannerDocument;

    const SCANNER_DOCUMENT: &str = "
apiVersion: gapscan/v1
kind: Scanner
name: openscap
title: OpenSCAP
image: openscap
approaches:
  sidecar:
    command: [oscap, '${target.results}/arf.xml', '${content}']
    env: { OSCAP_PROBE_ROOT: '${target.root}' }
result: { path: arf.xml, format: arf }
exitCodes: { 0: complete }
deadline: 5m
memory: 512Mi
cpu: '1'
";

    #[test]
    fn the_scanner_is_beside_the_copy_with_its_content_and_bounds_and_the_target_has_none_of_it() {
        let scanner: ScannerDocument =
            document::parse(std::path::Path::new("s.yaml"), SCANNER_DOCUMENT).expect("a scanner");
        let image = format!("r:5000/app@sha256:{}", "a".repeat(64));
        let original = json!({
            "metadata": { "name": "p", "namespace": "n" },
            "spec": {
                "containers": [{ "name": "app", "image": "r/app", "volumeMounts": [
                    { "name": "v", "mountPath": "/v" }, { "name": "gapscan-tmp", "mountPath": "/w" },
                ] }],
                "volumes": [{ "name": "v", "secret": { "secretName": "s" } }, { "name": "gapscan-tmp", "emptyDir": {} }],
            },
            "status": { "containerStatuses": [{
                "name": "app", "image": "r/app", "imageID": image, "ready": true, "restartCount": 0,
                "state": { "running": {} }, "user": { "linux": { "uid": 7, "gid": 8 } },
            }] },
        });
        let original = serde_json::from_value(original).expect("a pod");
        let copied = written_out(&original, "app", "r/gapscan@sha256:1").expect("it can be copied").1;
        assert_eq!(copied.files, copy::Likeness::Different);
        let target = Target::Host { name: "x".to_owned() };
        let request = CopyScanRequest {
            target: &target,
            scan: 3,
            agent_image: "r/gapscan",
            scanner_image: "r/openscap",
            program: Program::of(&scanner, scanner.approaches.sidecar.as_ref().expect("it has one")),
            mounts: vec![ImageMount { reference: "r/p@sha256:1".to_owned(), path: "/p".to_owned() }],
            parameters: [("content".to_owned(), "/c.xml".to_owned())].into(),
            pull: None,
            result_limit: 1024,
            spool: std::env::temp_dir(),
        };
        let made = manifest(&copied, &request).expect("it is made");
        let spec = &made["spec"];
        let (app, beside) = (&spec["containers"][0], &spec["containers"][1]);
        assert_eq!((&app["name"], &beside["name"]), (&json!("target"), &json!("scanner")));
        assert_eq!(spec["shareProcessNamespace"], true);
        assert_eq!(
            (&spec["securityContext"]["runAsUser"], &spec["securityContext"]["runAsGroup"]),
            (&json!(7), &json!(8))
        );
        assert_eq!(beside["securityContext"], pod::security());
        assert_eq!(beside["resources"]["limits"], json!({ "cpu": "1", "memory": "512Mi" }));
        let command: Vec<&str> = beside["command"].as_array().expect("it").iter().filter_map(Value::as_str).collect();
        let ran = command.iter().position(|word| *word == "--").expect("the scanner's own");
        assert_eq!(command[ran + 1..], ["oscap", "/results/arf.xml", "/c.xml"]);
        assert_eq!(beside["env"], json!([{ "name": "OSCAP_PROBE_ROOT", "value": "${target.root}" }]));
        let names = |of: &Value| -> Vec<String> {
            of.as_array().into_iter().flatten().filter_map(|v| v["name"].as_str().map(str::to_owned)).collect()
        };
        assert_eq!(names(&app["volumeMounts"]), ["v"], "none of the scanner's");
        assert_eq!(
            names(&spec["volumes"]),
            ["gapscan-agent", "gapscan-results", "gapscan-tmp", "gapscan-content-0", "v"],
            "each name once"
        );
        assert!(spec["volumes"][4].get("secret").is_none());
    }
}
