//! Making the copy, having the agent look, and seeing that the copy is gone.

use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Pod;

use super::copy::{self, Copy, Making, TARGET};
use super::scan::SCANNER;
use super::{AGENT, RESULTS_FOLDER};
use crate::cluster::access::exec::{Caps, Incarnation, Place, exec_at, incarnation, incarnation_of};
use crate::cluster::agent::parcel;
use crate::cluster::canary::BINARY;
use crate::cluster::client::Cluster;
use crate::cluster::error::ClusterError;
use crate::cluster::identity::{Rights, ScanIdentity};
use crate::cluster::namespace::{POD_ACCOUNT, ScanNamespace};
use crate::cluster::object::{Inventory, Kind, ObjectRef};
use crate::cluster::pod::{ContainerStage, container_stage};
use crate::cluster::pull::PullSecret;
use crate::cluster::targets::{describe, statuses};
use crate::model::provenance::Cleanup;
use crate::model::target::Target;

/// How long the images may take to be pulled and the copy to start.
pub(super) const START: Duration = Duration::from_secs(300);

/// How often the copy is looked at while it starts.
const LOOK: Duration = Duration::from_millis(200);

/// How long a kubelet may take to report that a container ended: the agent beside it sees it at once.
const SETTLE: Duration = Duration::from_secs(5);

/// How often facts that arrive damaged, or whose connection broke, are asked for again. They are not collected again.
const ATTEMPTS: u32 = 3;

/// One look at a copy.
#[derive(Clone, Debug)]
pub struct CopyRequest<'a> {
    /// What is copied.
    pub target: &'a Target,
    /// The scan's number in its run: it names the copy.
    pub scan: u32,
    /// gapscan's own image, as `HOST/REPOSITORY@sha256:…`.
    pub image: &'a str,
    /// What the nodes pull both images with; `None` where no registry asks, or the nodes know themselves.
    pub pull: Option<PullSecret>,
    /// How much is kept of what the agent sends.
    pub caps: Caps,
    /// How long the agent may take.
    pub deadline: Duration,
}

/// What came of it.
#[derive(Debug)]
pub struct CopyReport {
    /// What was collected.
    pub outcome: Result<Looked, ClusterError>,
    /// What was made, and what of it could not be seen to be gone.
    pub cleanup: Cleanup,
    /// Who ran the command in the copy.
    pub identity: Option<String>,
    /// What the copy lacks, as soon as it is known.
    pub notes: Vec<String>,
}

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
/// collect facts about the copy, and removes it.
///
/// # Cancel safety
/// Dropped half-way, the copy ends by its own deadline, and the namespace's end removes it.
pub async fn look_at_copy(cluster: &Cluster, home: &ScanNamespace, request: &CopyRequest<'_>) -> CopyReport {
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
    CopyReport { outcome, cleanup, identity: username, notes }
}

async fn attempt(
    cluster: &Cluster,
    home: &ScanNamespace,
    request: &CopyRequest<'_>,
    inventory: &mut Inventory,
    identity: &mut Option<ScanIdentity>,
    notes: &mut Vec<String>,
) -> Result<Looked, ClusterError> {
    let life = START + request.deadline * ATTEMPTS;
    let wanted =
        Wanted { target: request.target, scan: request.scan, image: request.image, pull: request.pull.as_ref(), life };
    let made = make(cluster, home, &wanted, inventory, notes, |copied| Ok(copied.manifest.clone())).await?;
    let Made { there, running, name, copied, .. } = &made;
    let own = Place { namespace: home.name(), pod: name, container: AGENT, uid: running.metadata.uid.as_deref() };
    let identity =
        identity.insert(ScanIdentity::create(cluster, home, request.scan, (home.name(), name), Rights::Exec).await?);
    let id = container_id(running, TARGET);
    let word = format!("{}-{}", home.run(), request.scan);
    let sent = fetch(identity.cluster(), &own, &id, &word, Rest::Wait, request).await;
    still_there(cluster, home, name, request.target, sent.is_err()).await?;
    let (facts, stderr) = match sent {
        Err(ClusterError::TargetGone { .. }) => {
            return Err(ClusterError::Evicted { message: "the copy is gone".to_owned() });
        }
        Err(ClusterError::TargetChanged { detail, .. } | ClusterError::TargetNotRunning { detail, .. }) => {
            return Err(ClusterError::ScannerFailed { message: format!("the agent beside the copy: {detail}") });
        }
        outcome => outcome?,
    };
    unchanged(cluster, request.target, &made.before).await?;
    let node = |pod: &Pod| pod.spec.as_ref().and_then(|spec| spec.node_name.clone());
    let same_node = node(running).is_some() && node(running) == node(there);
    Ok(Looked { facts, stderr, copy: copied.clone(), same_node })
}

/// What is to be copied, and with what.
pub(super) struct Wanted<'a> {
    pub(super) target: &'a Target,
    pub(super) scan: u32,
    /// gapscan's own image.
    pub(super) image: &'a str,
    pub(super) pull: Option<&'a PullSecret>,
    /// When the copy ends by itself.
    pub(super) life: Duration,
}

/// A copy that runs.
pub(super) struct Made {
    /// The original, and which of its incarnations it was.
    pub(super) there: Pod,
    pub(super) before: Incarnation,
    /// The copy, its name, and what it tells of the original.
    pub(super) running: Pod,
    pub(super) name: String,
    pub(super) copied: Copy,
}

/// Makes the copy with the manifest that comes of it, and waits until it runs.
pub(super) async fn make(
    cluster: &Cluster,
    home: &ScanNamespace,
    wanted: &Wanted<'_>,
    inventory: &mut Inventory,
    notes: &mut Vec<String>,
    manifest: impl FnOnce(&Copy) -> Result<serde_json::Value, ClusterError> + Send,
) -> Result<Made, ClusterError> {
    let target = wanted.target;
    let Target::Container { namespace, pod, container, uid, .. } = target else {
        return Err(not_running(target, "it is no container"));
    };
    let original = Place { namespace, pod, container, uid: uid.as_deref() };
    let there: Pod = match read(cluster, namespace, pod).await {
        Err(ClusterError::Missing { .. }) => return Err(ClusterError::TargetGone { target: target.key() }),
        outcome => outcome?,
    };
    let before = incarnation(&there, &original)?;
    let pull = wanted.pull.map(|_| format!("pull-{}", wanted.scan));
    let making = Making {
        agent_image: wanted.image,
        life: Some(wanted.life),
        pull: pull.as_deref(),
        account: Some(POD_ACCOUNT),
    };
    let copied = copy::copy(&there, container, &making)
        .map_err(|why| not_running(target, &format!("it can't be copied: {why}")))?;
    notes.extend(copied.notes.iter().cloned());
    let manifest = manifest(&copied)?;
    if let (Some(secret), Some(name)) = (wanted.pull, &pull) {
        secret.create(cluster, home, name, inventory).await?;
    }
    let name = format!("copy-{}", wanted.scan);
    let object = ObjectRef::namespaced(Kind::Pod, home.name(), &name);
    match inventory.create(cluster, object, manifest).await {
        Err(ClusterError::Rejected { message, .. } | ClusterError::Denied { code: 403, message, .. }) => {
            return Err(ClusterError::NotStarted { message });
        }
        outcome => outcome?,
    };
    let running = started(cluster, home, &name, target).await?;
    Ok(Made { there, before, running, name, copied })
}

/// That the copied container still runs: what became of it tells more than how a command failed, and a copy that ended
/// meanwhile was not whole.
pub(super) async fn still_there(
    cluster: &Cluster,
    home: &ScanNamespace,
    name: &str,
    target: &Target,
    failed: bool,
) -> Result<(), ClusterError> {
    let began = Instant::now();
    loop {
        match stage_of(cluster, home.name(), name, target).await? {
            (_, ContainerStage::Running) if failed && began.elapsed() < SETTLE => tokio::time::sleep(LOOK).await,
            (_, ContainerStage::Running) => return Ok(()),
            // The scanner beside it, where there is one.
            (_, ContainerStage::Ended(error)) => return Err(error),
            (pod, ContainerStage::Waiting(_)) => return Err(ended(&pod, target)),
        }
    }
}

/// That the original is the one that was copied.
pub(super) async fn unchanged(cluster: &Cluster, target: &Target, before: &Incarnation) -> Result<(), ClusterError> {
    let Target::Container { namespace, pod, container, uid, .. } = target else {
        return Err(not_running(target, "it is no container"));
    };
    let original = Place { namespace, pod, container, uid: uid.as_deref() };
    let after = incarnation_of(cluster, &original).await?;
    if before.is_same(&after) {
        return Ok(());
    }
    let detail = "the container was restarted while its copy was looked at".to_owned();
    Err(ClusterError::TargetChanged { target: target.key(), detail })
}

/// Has the agent in the target's own pod collect facts about the target. `identity` is the connection of an identity with
/// [`Rights::Exec`] for that pod; `word` names the scan. Gives the facts, and what the agent said beside them.
///
/// # Errors
/// As [`exec`](crate::cluster::access::exec::exec), and when what arrives is not whole.
///
/// # Cancel safety
/// Dropped, the connection is closed; the agent goes on to collect, and keeps the result until the next scan.
pub async fn look_at_injected(
    identity: &Cluster,
    request: &CopyRequest<'_>,
    word: &str,
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
    let sent = fetch(identity, &own, &container_id(&there, container), word, Rest::Now, request).await;
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

/// One exec in the agent's container, repeated if what it sends does not arrive whole.
async fn fetch(
    identity: &Cluster,
    own: &Place<'_>,
    id: &str,
    word: &str,
    rest: Rest,
    request: &CopyRequest<'_>,
) -> Result<(Vec<u8>, Vec<u8>), ClusterError> {
    let mut argv = vec![BINARY, "agent", "beside", "--container-id", id, "--results", RESULTS_FOLDER, "--word", word];
    if rest == Rest::Wait {
        argv.push("--settle");
    }
    let mut attempts = 0;
    loop {
        attempts += 1;
        let outcome = match exec_at(identity, own, &argv, None, request.caps, request.deadline).await {
            Ok(output) if output.code == Some(0) => parcel::open(&output.stdout).map(|facts| (facts, output.stderr)),
            Ok(output) => {
                // It told so itself: another attempt would tell the same.
                let message = String::from_utf8_lossy(&output.stderr).trim().to_owned();
                return Err(ClusterError::ExecBroken { target: request.target.key(), message });
            }
            Err(error) => Err(error),
        };
        match outcome {
            Err(ClusterError::OutputTruncated { .. } | ClusterError::ExecBroken { .. }) if attempts < ATTEMPTS => {}
            outcome => return outcome,
        }
    }
}

async fn read(cluster: &Cluster, namespace: &str, pod: &str) -> Result<Pod, ClusterError> {
    let object = ObjectRef::namespaced(Kind::Pod, namespace, pod);
    cluster.get(&format!("read {object}"), object.path()).await
}

/// The copy, and how far its copied container is.
async fn stage_of(
    cluster: &Cluster,
    namespace: &str,
    name: &str,
    target: &Target,
) -> Result<(Pod, ContainerStage), ClusterError> {
    let pod = match read(cluster, namespace, name).await {
        Err(ClusterError::Missing { .. }) => {
            return Err(ClusterError::Evicted { message: "the copy is gone".to_owned() });
        }
        outcome => outcome?,
    };
    let stage = stage(&pod, target)?;
    Ok((pod, stage))
}

/// How far the copied container is; an error where the pod can't get there.
fn stage(pod: &Pod, target: &Target) -> Result<ContainerStage, ClusterError> {
    let status = pod.status.as_ref();
    let evicted = status.is_some_and(|status| {
        matches!(status.reason.as_deref(), Some("Evicted" | "NodeLost" | "Preempting" | "NodeShutdown"))
    });
    if evicted {
        let message = status.and_then(|status| status.message.clone()).unwrap_or_default();
        return Err(ClusterError::Evicted { message });
    }
    let statuses = statuses(pod);
    let of = |name: &str| statuses.get(name).map(|status| container_stage(status));
    let target_stage = of(TARGET);
    // First, for the kubelet ends the agent as soon as the container beside it has ended.
    if let Some(ContainerStage::Ended(ClusterError::ScannerFailed { .. } | ClusterError::OutOfMemory { .. })) =
        target_stage
    {
        return Err(ended(pod, target));
    }
    // The agent is started before it, so that where it can't be, nothing is told of the other.
    if let Some(ContainerStage::Ended(error)) = of(AGENT) {
        return Err(match error {
            ClusterError::ScannerFailed { message } => ClusterError::NotStarted { message },
            other => other,
        });
    }
    match target_stage {
        // Nothing is looked at before the scanner runs, where there is one.
        Some(ContainerStage::Running) => Ok(of(SCANNER).unwrap_or(ContainerStage::Running)),
        Some(stage) => Ok(stage),
        None => Ok(ContainerStage::Waiting(describe(pod, None))),
    }
}

/// What is said of a copy that did not last: with what it lacks in the record's notes, it tells why.
fn ended(pod: &Pod, target: &Target) -> ClusterError {
    let statuses = statuses(pod);
    let state = statuses.get(TARGET).and_then(|status| status.state.as_ref());
    let ended = state.and_then(|state| state.terminated.as_ref());
    let detail = match ended {
        Some(ended) => {
            let words = ended.message.as_deref().unwrap_or_default().trim();
            let last =
                words.lines().last().map(|line| format!(", with the last words `{}`", crate::base::text::brief(line)));
            format!(
                "its copy ended by itself with exit code {} ({}){}: a copy lacks what the notes name, and what did not run can't be judged",
                ended.exit_code,
                ended.reason.as_deref().unwrap_or("unknown"),
                last.unwrap_or_default()
            )
        }
        None => "its copy ended by itself".to_owned(),
    };
    not_running(target, &detail)
}

/// Waits until the copied container runs.
async fn started(cluster: &Cluster, home: &ScanNamespace, name: &str, target: &Target) -> Result<Pod, ClusterError> {
    let began = Instant::now();
    loop {
        let why = match stage_of(cluster, home.name(), name, target).await? {
            (pod, ContainerStage::Running) => return Ok(pod),
            (_, ContainerStage::Ended(error)) => return Err(error),
            (_, ContainerStage::Waiting(why)) => why,
        };
        if began.elapsed() >= START {
            let message = format!("the copy did not start within {} s: {why}", START.as_secs());
            return Err(ClusterError::NotStarted { message });
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// The id of the pod's container of this name, without the runtime's.
pub(super) fn container_id(pod: &Pod, name: &str) -> String {
    let statuses = statuses(pod);
    let id = statuses.get(name).and_then(|status| status.container_id.as_deref()).unwrap_or_default();
    id.split_once("://").map_or(id, |(_, id)| id).to_owned()
}

fn not_running(target: &Target, detail: &str) -> ClusterError {
    ClusterError::TargetNotRunning { target: target.key(), detail: detail.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::reason::Reason;
    use serde_json::{Value, json};

    fn judged(agent: Value, target: Value) -> Result<ContainerStage, ClusterError> {
        let status = |name: &str, state: Value| {
            json!({
                "name": name, "image": "r/x", "imageID": "", "ready": false, "restartCount": 0, "state": state,
            })
        };
        let pod = json!({ "metadata": {}, "status": {
            "initContainerStatuses": [status(AGENT, agent)], "containerStatuses": [status(TARGET, target)],
        } });
        stage(&serde_json::from_value(pod).expect("a pod"), &Target::Host { name: "x".to_owned() })
    }

    #[test]
    fn a_copy_that_ends_is_no_running_target_and_says_why() {
        let running = || json!({ "running": {} });
        assert!(matches!(judged(running(), running()), Ok(ContainerStage::Running)));
        assert!(matches!(judged(running(), json!({ "waiting": {} })), Ok(ContainerStage::Waiting(_))));
        for code in [0, 1] {
            let reason = if code == 0 { "Completed" } else { "Error" };
            let message = "starting\nno DATABASE_URL\n";
            let state = json!({ "terminated": { "exitCode": code, "reason": reason, "message": message } });
            let error = judged(running(), state).expect_err("it ended");
            assert_eq!(error.reason(), Reason::TargetNotRunning);
            let text = error.to_string();
            assert!(
                text.contains(&format!("exit code {code} ({reason})")) && text.contains("`no DATABASE_URL`"),
                "{text}"
            );
        }
        let killed = json!({ "terminated": { "exitCode": 137, "reason": "OOMKilled" } });
        assert_eq!(judged(running(), killed.clone()).expect_err("it ended").reason(), Reason::TargetNotRunning);
        let agent = json!({ "terminated": { "exitCode": 0, "reason": "Completed" } });
        assert_eq!(judged(agent, killed).expect_err("both ended").reason(), Reason::TargetNotRunning);
    }

    #[test]
    fn what_keeps_the_copy_from_starting_is_not_said_of_the_target() {
        let waiting = |reason: &str| json!({ "waiting": { "reason": reason } });
        let no_pull = judged(waiting("ImagePullBackOff"), waiting("PodInitializing")).expect_err("no image");
        assert_eq!(no_pull.reason(), Reason::ImagePullFailed);
        let agent = json!({ "terminated": { "exitCode": 1, "reason": "Error" } });
        assert_eq!(judged(agent, json!({ "running": {} })).expect_err("no agent").reason(), Reason::ScannerNotStarted);
        let refused = judged(json!({ "running": {} }), waiting("CreateContainerError")).expect("a stage");
        assert!(matches!(refused, ContainerStage::Ended(ClusterError::NotStarted { .. })));
    }
}
