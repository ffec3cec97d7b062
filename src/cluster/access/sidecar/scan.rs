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

use std::time::Duration;

use serde_json::{Value, json};

use super::copy::{self, Copy};
use super::running::{CopyReport, Copying, START, Wanted};
use crate::cluster::agent::unreadable::LOOK;
use crate::cluster::client::Cluster;
use crate::cluster::error::ClusterError;
use crate::cluster::identity::ScanIdentity;
use crate::cluster::job::{
    self, Again, CONTAINER as SCANNER, Fetching, Furniture, JobOutput, Run, Scanning, container, furnish,
};
use crate::cluster::namespace::ScanNamespace;
use crate::cluster::pod;
use crate::model::target::Target;

/// How long the target may take to come to rest.
const REST: Duration = Duration::from_secs(30);

/// Where the agent is told which container is the target.
const TOLD: &str = "/results/.gapscan-target";

/// How the agent runs the scanner. The target's root it finds out by itself: it stands in the command until then. The result
/// is fetched at once, so that it need not be held for long.
const RUN: Run<'_> =
    Run { agent: job::AGENT, results: job::RESULTS, hold: Duration::from_secs(60), root: Some("${target.root}") };

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
pub async fn scan_copy(
    cluster: &Cluster,
    home: &ScanNamespace,
    target: &Target,
    scanning: &Scanning<'_>,
) -> CopyReport<Scanned> {
    let mut copying = Copying::new(cluster, home, target, scanning.scan);
    let outcome = Box::pin(attempt(&mut copying, scanning)).await;
    let limit = || scanning.program.memory.to_owned();
    let outcome = outcome.map_err(|error| match error {
        ClusterError::OutOfMemory { limit: none } if none.is_empty() => ClusterError::OutOfMemory { limit: limit() },
        other => other,
    });
    Box::pin(copying.close(outcome)).await
}

async fn attempt(copying: &mut Copying<'_>, scanning: &Scanning<'_>) -> Result<Scanned, ClusterError> {
    let patience = REST + scanning.program.deadline + LOOK + RUN.hold;
    let wanted = Wanted { image: &scanning.agent_image, pull: scanning.pull.as_ref(), life: START + patience };
    let made = copying.make(&wanted, |copied| manifest(copied, scanning)).await?;
    let argv = scanning.collecting(RUN, &["--tell", TOLD, &made.id()]);
    let fetching = Fetching { place: made.place(SCANNER), argv, patience };
    let cluster = copying.cluster;
    let identity = copying.identify(&made, patience).await?;
    let connection = identity.cluster().clone();
    let output = match job::fetch(connection, scanning, &fetching, &mut Held(cluster, identity)).await {
        Ok(output) => output,
        Err(error) => return Err(copying.cause(&made, error).await),
    };
    copying.still_there(&made).await?;
    Ok(Scanned { output, copy: made.copied })
}

/// The copy while its scanner is held.
struct Held<'a>(&'a Cluster, &'a mut ScanIdentity);

impl Again for Held<'_> {
    async fn again(&mut self, error: &ClusterError) -> Result<Cluster, ClusterError> {
        job::renewed(self.0, self.1, error).await
    }
}

/// The copy with the scanner beside it, in the place of gapscan's agent that would collect facts.
fn manifest(copied: &Copy, scanning: &Scanning<'_>) -> Result<Value, ClusterError> {
    let mut manifest = copied.manifest.clone();
    let specification = &mut manifest["spec"];
    let (mut furniture, beside) = parts(scanning)?;
    let of_target = specification["volumes"].as_array().into_iter().flatten();
    furniture.volumes.extend(of_target.filter(|volume| volume["name"] != super::RESULTS).cloned());
    specification["volumes"] = json!(furniture.volumes);
    // User and group are the pod's, which are the target's.
    specification["initContainers"] = json!([furniture.installer]);
    if let Some(containers) = specification["containers"].as_array_mut() {
        containers.push(beside);
    }
    Ok(manifest)
}

/// What a copy gets besides: volumes with the agent's installer, and the scanner's container.
fn parts(scanning: &Scanning<'_>) -> Result<(Furniture, Value), ClusterError> {
    let command = scanning.command(RUN, &["--shared-network", "--beside", TOLD])?;
    let furniture = furnish(scanning, copy::OWN, copy::agent_resources());
    let beside = container(scanning, command, pod::security(), furniture.mounts.clone());
    Ok((furniture, beside))
}

/// What is put beside a copy, as a pod's specification without the copy.
pub(crate) fn beside_copy(scanning: &Scanning<'_>) -> Result<Value, ClusterError> {
    let (furniture, beside) = parts(scanning)?;
    Ok(json!({ "spec": {
        "initContainers": [furniture.installer],
        "containers": [beside],
        "volumes": furniture.volumes,
        "shareProcessNamespace": true,
    } }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::document;
    use crate::cluster::access::sidecar::written_out;
    use crate::cluster::job::{ImageMount, Program};
    use crate::model::record::RunId;
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
        let scanning = Scanning {
            run: RunId::new(),
            scan: 3,
            program: Program::of(&scanner, scanner.approaches.sidecar.as_ref().expect("it has one")),
            scanner_image: "r/openscap".to_owned(),
            agent_image: "r/gapscan".to_owned(),
            mounts: vec![ImageMount { reference: "r/p@sha256:1".to_owned(), path: "/p".to_owned() }],
            parameters: [("content".to_owned(), "/c.xml".to_owned())].into(),
            pull: None,
            egress: Vec::new(),
            inputs: None,
            result_limit: 1024,
            spool: std::env::temp_dir(),
        };
        let made = manifest(&copied, &scanning).expect("it is made");
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
