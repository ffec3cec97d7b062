//! Taking the result by HTTPS instead of fetching it: nobody runs a command in the scanner's pod, and so nobody gets the right
//! to. The pod gets a token in a secret, and may call the runner and nobody else.
//!
//! The token is the scan's and not the scanner's secret: it is mounted where the agent reads it, and the scanner could, too. With
//! it, it could say about its own scan what it could write into its result anyway.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use super::fetch::{self, HandOver};
use super::{JobOutput, JobRequest, LOOK, manifest};
use crate::cluster::access::exec::Place;
use crate::cluster::agent::upload::{Ticket, Uploads};
use crate::cluster::client::Cluster;
use crate::cluster::error::ClusterError;
use crate::cluster::namespace::ScanNamespace;
use crate::cluster::network::egress_to;
use crate::cluster::object::{Inventory, Kind, ObjectRef, SCAN};

/// Where the secret is mounted.
const FOLDER: &str = "/upload";
/// The token in it.
const FILE: &str = "token";
/// The volume.
const VOLUME: &str = "upload";

/// The label of pods that send their results: the runner's own policies let these call it, and no others.
pub(crate) const SENDER: (&str, &str) = ("gapscan.dev/results", "upload");

/// How long after the pod's end a result may still be on its way through this process.
const LAST: Duration = Duration::from_secs(2);

fn name(scan: u32) -> String {
    format!("upload-{scan}")
}

/// A ticket for the request's scan, where results are taken by upload.
pub(super) fn ticket(request: &JobRequest<'_>) -> Result<Option<(Ticket, Uploads)>, ClusterError> {
    let Some(uploads) = &request.uploads else { return Ok(None) };
    let (limit, spool) = (request.scanning.result_limit, request.scanning.spool.clone());
    let ticket = uploads.expect(move || fetch::receiver(limit, &spool))?;
    Ok(Some((ticket, uploads.clone())))
}

/// Adds to the Job what its agent needs to send the result.
pub(super) fn dress(job: &mut Value, scan: u32, (ticket, uploads): &(Ticket, Uploads)) {
    let (label, value) = SENDER;
    job["spec"]["template"]["metadata"]["labels"][label] = json!(value);
    let specification = &mut job["spec"]["template"]["spec"];
    let words = [
        "--upload".to_owned(),
        uploads.address().to_string(),
        "--slot".to_owned(),
        ticket.id().to_owned(),
        "--pin".to_owned(),
        uploads.pin().to_string(),
        "--token".to_owned(),
        format!("{FOLDER}/{FILE}"),
    ];
    let container = &mut specification["containers"][0];
    // The agent's own words: what the scanner writes is captured. Whoever looks for the result that did not come reads them.
    container["terminationMessagePolicy"] = json!("FallbackToLogsOnError");
    if let Some(command) = container["command"].as_array_mut() {
        // Before the scanner's own.
        let at = command.iter().position(|word| word == "--").unwrap_or(command.len());
        command.splice(at..at, words.map(Value::from));
    }
    if let Some(mounts) = container["volumeMounts"].as_array_mut() {
        mounts.push(json!({ "name": VOLUME, "mountPath": FOLDER, "readOnly": true }));
    }
    if let Some(volumes) = specification["volumes"].as_array_mut() {
        volumes.push(json!({ "name": VOLUME, "secret": { "secretName": name(scan), "defaultMode": 0o440 } }));
    }
}

/// Makes the secret, and lets the scan's pod, and no other, call the runner.
pub(super) async fn prepare(
    cluster: &Cluster,
    home: &ScanNamespace,
    scan: u32,
    (ticket, uploads): &(Ticket, Uploads),
    inventory: &mut Inventory,
) -> Result<(), ClusterError> {
    let secret = json!({ "type": "Opaque", "immutable": true, "stringData": { FILE: ticket.token() } });
    inventory.create(cluster, ObjectRef::namespaced(Kind::Secret, home.name(), name(scan)), secret).await?;
    let to = BTreeSet::from([uploads.address()]);
    let allowance = egress_to((SCAN, &scan.to_string()), &to);
    let policy = ObjectRef::namespaced(Kind::NetworkPolicy, home.name(), name(scan));
    inventory.create(cluster, policy, allowance).await.map(|_| ())
}

/// Waits for the result; what else came for this scan is noted.
pub(super) async fn receive(
    cluster: &Cluster,
    request: &JobRequest<'_>,
    pod: &Pod,
    (mut ticket, _uploads): (Ticket, Uploads),
    notes: &mut Vec<String>,
) -> Result<JobOutput, ClusterError> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let place = Place { namespace, pod: name, container: manifest::CONTAINER, uid: pod.metadata.uid.as_deref() };
    let outcome = wait(cluster, request, &place, &mut ticket).await;
    if outcome.is_ok() {
        let commands = match request.archive {
            None => "nobody ran a command in the scanner's pod",
            Some(_) => "the only command that was run in the scanner's pod took the image's archive",
        };
        notes.push(format!("the result came by upload; {commands}"));
    }
    notes.extend(ticket.notes());
    outcome
}

async fn wait(
    cluster: &Cluster,
    request: &JobRequest<'_>,
    place: &Place<'_>,
    ticket: &mut Ticket,
) -> Result<JobOutput, ClusterError> {
    let (began, deadline) = (Instant::now(), fetch::patience(request));
    loop {
        if let Ok(arrived) = tokio::time::timeout(LOOK * 4, ticket.arrived()).await {
            return HandOver::of(&request.scanning).unpack(arrived?);
        }
        if let Some(ended) = fetch::ended(cluster, request, place).await {
            // It may have ended because its result is here.
            if let Ok(Ok(arrived)) = tokio::time::timeout(LAST, ticket.arrived()).await {
                return HandOver::of(&request.scanning).unpack(arrived);
            }
            return Err(cause(ended, ticket));
        }
        if began.elapsed() >= deadline {
            return Err(cause(ClusterError::ScannerTimeout { after: request.scanning.program.deadline }, ticket));
        }
    }
}

/// Why there is no result: an agent that gave up sending it ends like a scanner that failed.
fn cause(ended: ClusterError, ticket: &Ticket) -> ClusterError {
    match (ended, ticket.broken()) {
        (ClusterError::ScannerFailed { .. } | ClusterError::ScannerTimeout { .. }, Some(broken)) => broken,
        (ended, _) => ended,
    }
}
