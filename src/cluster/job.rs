//! A scanner as a Job in a namespace of the run: started, waited for, its result fetched by one exec, all removed.
//!
//! The scanner talks to nothing, but to the API server where its approach needs it (see
//! [`access::transport`](super::access::transport)), and to services that policy names (see [`egress`]). gapscan's own binary is
//! put beside it (an init container copies it from gapscan's image), runs it, and holds the pod until the result was fetched
//! through the kubelet. The profile and the databases are image volumes, which the kubelet mounts read-only; so is a target that
//! is an image. A target that is a node is the node's file system, mounted read-only in a pod on it (see
//! [`access::node`](super::access::node)).

mod archive;
mod deliver;
mod fetch;
mod in_target;
mod manifest;
mod parameters;
mod preview;
mod scanning;
mod upload;

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;

use super::access::node::{self, NodePlace};
use super::access::transport::ApiAccess;
use super::agent::protocol::{Asked, ExitStatus, Unreadable};
use super::agent::sockets::Sockets;
use super::agent::upload::Uploads;
use super::client::{Cluster, poll_until};
use super::egress;
use super::error::ClusterError;
use super::identity::{Rights, ScanIdentity};
use super::namespace::ScanNamespace;
use super::object::{self, Inventory, Kind, ObjectRef, SCAN};
use super::objects::list;
use super::patience::Patience;
use super::pod::{self, Stage};
use crate::base::spool::Spooled;
use crate::base::text::brief;
use crate::model::provenance::Cleanup;
use crate::model::scanner::ExitMeaning;

pub use archive::{BlobSource, ImageArchive, ImageManifest, SourceError};
pub(crate) use fetch::{Again, Fetching, fetch, renewed};
pub(crate) use in_target::UID;
pub(crate) use manifest::{AGENT, CONTAINER, Furniture, RESULTS, container, furnish};
pub use parameters::substitute;
pub use preview::{Preview, preview};
pub(crate) use scanning::Run;
pub use scanning::{ImageMount, Program, Scanning, Unread};
pub(crate) use upload::SENDER;

/// How long the images may take to be pulled and the pod to start. A target image can have gigabytes.
const START: Duration = Duration::from_secs(300);

/// How long the pod is held after the scanner ended: longer than an API server takes to restart.
pub(crate) const HOLD: Duration = Duration::from_secs(300);

/// How often the pod is looked at while it starts.
const LOOK: Duration = Duration::from_millis(300);

/// What is scanned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JobTarget {
    /// An image, as `HOST/REPOSITORY@sha256:…`.
    Image(String),
    /// A node. The namespace must be one that was [made for nodes](ScanNamespace::create_for_nodes).
    Node(NodePlace),
    /// What the scanner reaches through the API server.
    Api(ApiAccess),
}

/// One scan of one target by a scanner in a Job.
#[derive(Clone, Debug)]
pub struct JobRequest<'a> {
    /// The scanner, and what it needs.
    pub scanning: Scanning<'a>,
    /// What is scanned.
    pub target: JobTarget,
    /// The image as an archive, where the scanner wants it so.
    pub archive: Option<ImageArchive>,
    /// Where results are taken by upload; `None` to fetch them by exec.
    pub uploads: Option<Uploads>,
}

/// What a scanner left.
#[derive(Debug)]
pub struct JobOutput {
    /// How it ended.
    pub exit: ExitStatus,
    /// Its result, byte for byte; length and digest were compared with what the pod said.
    pub result: Result<Spooled, ClusterError>,
    /// The end of its standard output, at most 64 KiB.
    pub stdout_tail: Vec<u8>,
    /// The end of its standard error, at most 64 KiB.
    pub stderr_tail: Vec<u8>,
    /// What it could not read in the target.
    pub unreadable: Unreadable,
    /// To whom it talked.
    pub sockets: Sockets,
    /// What it said of its version, where it was asked.
    pub version: Option<Asked>,
    /// What was taken out of this since it arrived.
    pub taken_out: TakenOut,
}

/// How often secret values were taken out of what a scanner left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TakenOut {
    /// Of its result.
    pub result: u64,
    /// Of the end of its standard output.
    pub stdout: u64,
    /// Of the end of its standard error.
    pub stderr: u64,
}

impl JobOutput {
    /// What its exit code means; `None` where it has none, or one that its definition does not know.
    pub fn meaning(&self, exit_codes: &BTreeMap<u8, ExitMeaning>) -> Option<(u8, ExitMeaning)> {
        match self.exit {
            ExitStatus::Exited { code } => exit_codes.get(&code).map(|meaning| (code, *meaning)),
            ExitStatus::Signalled { .. } | ExitStatus::TimedOut | ExitStatus::NotStarted { .. } => None,
        }
    }

    /// The result, if the scanner says by its exit code that the scan is whole.
    ///
    /// # Errors
    /// When it ended by a signal or with a code that means failure or that its definition does not know; when there is no
    /// result, or not the one that was announced.
    pub fn into_result(self, exit_codes: &BTreeMap<u8, ExitMeaning>) -> Result<Spooled, ClusterError> {
        let said = String::from_utf8_lossy(&self.stderr_tail);
        let last: Vec<&str> = said.trim().lines().rev().take(3).collect();
        let said: String = last.into_iter().rev().collect::<Vec<_>>().join(" / ");
        let failed = |how: String| Err(ClusterError::ScannerFailed { message: format!("{how}: {}", brief(&said)) });
        match self.exit {
            ExitStatus::Exited { code } => match exit_codes.get(&code) {
                Some(ExitMeaning::Complete | ExitMeaning::Findings | ExitMeaning::Clean | ExitMeaning::Skipped) => {
                    self.result
                }
                Some(ExitMeaning::Failed) => failed(format!("it ended with exit code {code}, which means failure")),
                None => failed(format!("it ended with exit code {code}, which its definition does not know")),
            },
            ExitStatus::Signalled { signal } => failed(format!("it was ended by signal {signal}")),
            ExitStatus::TimedOut => failed("it did not end in time".to_owned()),
            ExitStatus::NotStarted { message } => failed(format!("it could not be started: {message}")),
        }
    }
}

/// What became of a Job, with what became of the objects that it needed; these are known however it ended.
#[derive(Debug)]
pub struct JobReport {
    /// What the scanner left, or why there is nothing.
    pub outcome: Result<JobOutput, ClusterError>,
    /// What was made for it, and whether it is gone.
    pub cleanup: Cleanup,
    /// As whom its result was fetched.
    pub identity: Option<String>,
    /// What has to be said of it besides, in words.
    pub notes: Vec<String>,
}

/// Runs the scanner as a Job and fetches its result; then removes the Job and its pod, and sees that they are gone.
///
/// # Cancel safety
/// Dropped half-way it leaves the Job, which ends by its own deadline; the namespace's end or the sweeper removes it.
pub async fn run_job(cluster: &Cluster, home: &ScanNamespace, request: &JobRequest<'_>) -> JobReport {
    Box::pin(run_job_then(cluster, home, request, async {})).await
}

/// The same, with something that is done as soon as the scanner has ended, however it ended, and before anything is removed.
///
/// # Cancel safety
/// As [`run_job`].
pub(crate) async fn run_job_then(
    cluster: &Cluster,
    home: &ScanNamespace,
    request: &JobRequest<'_>,
    ended: impl Future<Output = ()>,
) -> JobReport {
    let mut inventory = Inventory::new(home.mark(Some(request.scanning.scan)));
    let (mut identity, mut notes) = (None, Vec::new());
    // On the heap, as of everything that is as deep as this: what waits on top of each other must fit a thread's stack.
    let outcome = Box::pin(scan(cluster, home, request, &mut inventory, &mut identity, &mut notes)).await;
    ended.await;
    let username = identity.as_ref().map(|identity| identity.username().to_owned());
    let mut cleanup = match identity {
        Some(identity) => identity.remove(cluster, home).await,
        None => Cleanup { created: Vec::new(), remaining: Vec::new() },
    };
    let pod = pod_of(cluster, home, request.scanning.scan).await.ok().flatten().and_then(|pod| pod.metadata.name);
    let job = inventory.remove(cluster).await;
    cleanup.created.extend(job.created);
    cleanup.remaining.extend(job.remaining);
    // The Job's pod is removed after the Job, by the cluster's garbage collector.
    let name = pod.clone().unwrap_or_else(|| format!("{}-*", manifest::name(request.scanning.scan)));
    let object = ObjectRef::namespaced(Kind::Pod, home.name(), name).to_string();
    let gone = poll_until(object::GONE, || async {
        Ok(pod_of(cluster, home, request.scanning.scan).await?.is_none().then_some(()))
    })
    .await;
    if !matches!(gone, Ok(Some(()))) {
        cleanup.remaining.push(object.clone());
    }
    cleanup.created.extend(pod.map(|_| object));
    JobReport { outcome, cleanup, identity: username, notes }
}

async fn scan(
    cluster: &Cluster,
    home: &ScanNamespace,
    request: &JobRequest<'_>,
    inventory: &mut Inventory,
    identity: &mut Option<ScanIdentity>,
    notes: &mut Vec<String>,
) -> Result<JobOutput, ClusterError> {
    let within = request.archive.as_ref().map_or(Duration::ZERO, ImageArchive::within);
    let mut manifest = manifest::job(request, START + within + HOLD)?;
    let ticket = upload::ticket(request)?;
    if let Some(ticket) = &ticket {
        upload::dress(&mut manifest, request.scanning.scan, ticket);
    }
    let pod = ObjectRef::namespaced(Kind::Pod, home.name(), manifest::name(request.scanning.scan));
    let template = manifest["spec"]["template"].clone();
    match object::rehearse(cluster, &pod, &home.mark(Some(request.scanning.scan)), template).await {
        Err(ClusterError::Rejected { message, .. } | ClusterError::Denied { code: 403, message, .. }) => {
            return Err(ClusterError::NotStarted { message });
        }
        outcome => outcome?,
    }
    let job = ObjectRef::namespaced(Kind::Job, home.name(), manifest::name(request.scanning.scan));
    if let Some(pull) = &request.scanning.pull {
        pull.create(cluster, home, &manifest::pull_name(request.scanning.scan), inventory).await?;
    }
    if let Some(inputs) = &request.scanning.inputs {
        inputs.create(cluster, home, &manifest::inputs_name(request.scanning.scan), inventory).await?;
    }
    if !request.scanning.egress.is_empty() {
        let scan = request.scanning.scan;
        let policy = ObjectRef::namespaced(Kind::NetworkPolicy, home.name(), manifest::egress_name(scan));
        let allowance = egress::allowance((SCAN, &scan.to_string()), &request.scanning.egress);
        inventory.create(cluster, policy, allowance).await?;
    }
    if let Some(ticket) = &ticket {
        upload::prepare(cluster, home, request.scanning.scan, ticket, inventory).await?;
    }
    inventory.create(cluster, job.clone(), manifest).await?;
    let pod = started(cluster, home, request).await?;
    if let JobTarget::Node(_) = &request.target {
        notes.extend(node::writable_below(
            &pod,
            manifest::CONTAINER,
            request.scanning.program.approach.mount.unwrap_or_default(),
        ));
    }
    match (&request.archive, ticket) {
        (None, Some(ticket)) => upload::receive(cluster, request, &pod, ticket, notes).await,
        (None, None) => {
            let identity = identity.insert(identify(cluster, home, request, &pod).await?);
            fetch::of_job(cluster, identity, request, &pod).await
        }
        (Some(archive), ticket) => {
            let identity = identity.insert(identify(cluster, home, request, &pod).await?);
            notes.push(deliver::deliver(cluster, identity, request, &pod, archive).await?);
            match ticket {
                Some(ticket) => upload::receive(cluster, request, &pod, ticket, notes).await,
                None => fetch::of_job(cluster, identity, request, &pod).await,
            }
        }
    }
}

/// An identity that may run commands in the scanner's pod, for as long as that may take.
async fn identify(
    cluster: &Cluster,
    home: &ScanNamespace,
    request: &JobRequest<'_>,
    pod: &Pod,
) -> Result<ScanIdentity, ClusterError> {
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let life = fetch::patience(request) + request.archive.as_ref().map_or(Duration::ZERO, ImageArchive::within);
    ScanIdentity::create_for(cluster, home, request.scanning.scan, (home.name(), name), Rights::Exec, life).await
}

/// Waits until the scanner's container runs.
async fn started(cluster: &Cluster, home: &ScanNamespace, request: &JobRequest<'_>) -> Result<Pod, ClusterError> {
    let mut patience = Patience::new("it", START);
    loop {
        let why = match pod_of(cluster, home, request.scanning.scan).await? {
            None => refused(cluster, home, request.scanning.scan).await?,
            Some(pod) => match pod::stage(&pod, manifest::CONTAINER, request.scanning.program.memory) {
                Stage::Running => return Ok(pod),
                Stage::Ended(error) => patience.bear(error, pod::credentials(&pod))?,
                Stage::Starting(why) => why,
            },
        };
        patience.wait(&why, LOOK).await?;
    }
}

async fn pod_of(cluster: &Cluster, home: &ScanNamespace, scan: u32) -> Result<Option<Pod>, ClusterError> {
    let selector = format!("batch.kubernetes.io/job-name={}", manifest::name(scan));
    let path = Kind::Pod.collection(Some(home.name()));
    let query = [("labelSelector", selector.as_str())];
    let pods = list::<Pod>(cluster, "find the scanner's pod", &path, &query, 100).await?;
    Ok(pods.into_iter().next())
}

/// What a Job without a pod waits for; the Job's own failure is an error.
async fn refused(cluster: &Cluster, home: &ScanNamespace, scan: u32) -> Result<String, ClusterError> {
    let object = ObjectRef::namespaced(Kind::Job, home.name(), manifest::name(scan));
    let job: Job = cluster.get(&format!("read {object}"), object.path()).await?;
    let conditions = job.status.and_then(|status| status.conditions).unwrap_or_default();
    match conditions.into_iter().find(|condition| condition.type_ == "Failed" && condition.status == "True") {
        Some(failed) => {
            let message = format!("{}: {}", failed.reason.unwrap_or_default(), failed.message.unwrap_or_default());
            Err(ClusterError::NotStarted { message })
        }
        None => Ok("the Job has no pod; is its namespace's Pod Security or a quota against it?".to_owned()),
    }
}

#[cfg(test)]
mod tests;
