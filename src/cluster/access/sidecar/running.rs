//! A copy that runs: made, waited for, seen to be whole, and removed.

use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Pod;

use super::AGENT;
use super::copy::{self, Copy, Making, TARGET};
use crate::cluster::access::exec::{Incarnation, Place, incarnation, incarnation_of};
use crate::cluster::client::Cluster;
use crate::cluster::error::ClusterError;
use crate::cluster::identity::{Rights, ScanIdentity};
use crate::cluster::job::CONTAINER as SCANNER;
use crate::cluster::namespace::{POD_ACCOUNT, ScanNamespace};
use crate::cluster::object::{Inventory, Kind, ObjectRef};
use crate::cluster::patience::Patience;
use crate::cluster::pod::{ContainerStage, container_stage, credentials};
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

/// What came of a copy.
#[derive(Debug)]
pub struct CopyReport<T> {
    /// What was done with it.
    pub outcome: Result<T, ClusterError>,
    /// What was made, and what of it could not be seen to be gone.
    pub cleanup: Cleanup,
    /// Who ran the command in the copy.
    pub identity: Option<String>,
    /// What the copy lacks, as soon as it is known.
    pub notes: Vec<String>,
}

/// What a copy is made with.
pub(super) struct Wanted<'a> {
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
    before: Incarnation,
    /// The copy, its namespace and name, and what it tells of the original.
    pub(super) running: Pod,
    namespace: String,
    name: String,
    pub(super) copied: Copy,
}

impl Made {
    /// One of its containers.
    pub(super) fn place<'m>(&'m self, container: &'m str) -> Place<'m> {
        Place { namespace: &self.namespace, pod: &self.name, container, uid: self.running.metadata.uid.as_deref() }
    }

    /// The id of the copied container.
    pub(super) fn id(&self) -> String {
        container_id(&self.running, TARGET)
    }
}

/// One copy and what is made for it, until it is closed.
pub(super) struct Copying<'a> {
    pub(super) cluster: &'a Cluster,
    pub(super) home: &'a ScanNamespace,
    target: &'a Target,
    scan: u32,
    inventory: Inventory,
    identity: Option<ScanIdentity>,
    notes: Vec<String>,
}

impl<'a> Copying<'a> {
    pub(super) fn new(cluster: &'a Cluster, home: &'a ScanNamespace, target: &'a Target, scan: u32) -> Self {
        let inventory = Inventory::new(home.mark(Some(scan)));
        Self { cluster, home, target, scan, inventory, identity: None, notes: Vec::new() }
    }

    /// Makes the copy with the manifest that comes of it, and waits until it runs.
    pub(super) async fn make(
        &mut self,
        wanted: &Wanted<'_>,
        manifest: impl FnOnce(&Copy) -> Result<serde_json::Value, ClusterError> + Send,
    ) -> Result<Made, ClusterError> {
        let original = self.original()?;
        let there = match read(self.cluster, original.namespace, original.pod).await {
            Err(ClusterError::Missing { .. }) => return Err(ClusterError::TargetGone { target: self.target.key() }),
            outcome => outcome?,
        };
        let before = incarnation(&there, &original)?;
        let pull = wanted.pull.map(|_| format!("pull-{}", self.scan));
        let making = Making {
            agent_image: wanted.image,
            life: Some(wanted.life),
            pull: pull.as_deref(),
            account: Some(POD_ACCOUNT),
        };
        let copied = copy::copy(&there, original.container, &making)
            .map_err(|why| not_running(self.target, &format!("it can't be copied: {why}")))?;
        self.notes.extend(copied.notes.iter().cloned());
        let manifest = manifest(&copied)?;
        if let (Some(secret), Some(name)) = (wanted.pull, &pull) {
            secret.create(self.cluster, self.home, name, &mut self.inventory).await?;
        }
        let (namespace, name) = (self.home.name().to_owned(), format!("copy-{}", self.scan));
        let object = ObjectRef::namespaced(Kind::Pod, &namespace, &name);
        match self.inventory.create(self.cluster, object, manifest).await {
            Err(ClusterError::Rejected { message, .. } | ClusterError::Denied { code: 403, message, .. }) => {
                return Err(ClusterError::NotStarted { message });
            }
            outcome => outcome?,
        };
        let running = self.started(&name).await?;
        Ok(Made { there, before, running, namespace, name, copied })
    }

    /// An identity that may run commands in the copy.
    pub(super) async fn identify(&mut self, made: &Made, life: Duration) -> Result<&mut ScanIdentity, ClusterError> {
        let pod = (self.home.name(), made.name.as_str());
        let made = ScanIdentity::create_for(self.cluster, self.home, self.scan, pod, Rights::Exec, life).await?;
        Ok(self.identity.insert(made))
    }

    /// That the copied container still runs, and that the original is the one that was copied: a copy that ended meanwhile was
    /// not whole.
    pub(super) async fn still_there(&self, made: &Made) -> Result<(), ClusterError> {
        let pod = self.read(&made.name).await?;
        if let Some(lost) = lost(&pod) {
            return Err(lost);
        }
        match stage_of(&pod, TARGET) {
            Some(ContainerStage::Running) => {}
            Some(ContainerStage::Waiting(_) | ContainerStage::Ended(_)) | None => return Err(ended(&pod, self.target)),
        }
        let after = incarnation_of(self.cluster, &self.original()?).await?;
        if made.before.is_same(&after) {
            return Ok(());
        }
        let detail = "the container was restarted while its copy was looked at".to_owned();
        Err(ClusterError::TargetChanged { target: self.target.key(), detail })
    }

    /// Why a command in the copy failed: what became of the copy tells more than the command.
    pub(super) async fn cause(&self, made: &Made, error: ClusterError) -> ClusterError {
        let began = Instant::now();
        loop {
            let pod = match self.read(&made.name).await {
                Ok(pod) => pod,
                Err(gone) => return gone,
            };
            match stage(&pod, self.target) {
                Ok(ContainerStage::Running) if began.elapsed() < SETTLE => tokio::time::sleep(LOOK).await,
                Ok(ContainerStage::Running) => return error,
                // The scanner beside it, where there is one.
                Ok(ContainerStage::Ended(ended)) | Err(ended) => return ended,
                Ok(ContainerStage::Waiting(_)) => return ended(&pod, self.target),
            }
        }
    }

    /// Removes all of it.
    pub(super) async fn close<T>(self, outcome: Result<T, ClusterError>) -> CopyReport<T> {
        let identity = self.identity.as_ref().map(|identity| identity.username().to_owned());
        let mut cleanup = match self.identity {
            Some(identity) => identity.remove(self.cluster, self.home).await,
            None => Cleanup { created: Vec::new(), remaining: Vec::new() },
        };
        let made = self.inventory.remove(self.cluster).await;
        cleanup.created.extend(made.created);
        cleanup.remaining.extend(made.remaining);
        CopyReport { outcome, cleanup, identity, notes: self.notes }
    }

    fn original(&self) -> Result<Place<'a>, ClusterError> {
        match self.target {
            Target::Container { namespace, pod, container, uid, .. } => {
                Ok(Place { namespace, pod, container, uid: uid.as_deref() })
            }
            _ => Err(not_running(self.target, "it is no container")),
        }
    }

    /// Waits until the copied container runs.
    async fn started(&self, name: &str) -> Result<Pod, ClusterError> {
        let mut patience = Patience::new("the copy", START);
        loop {
            let pod = self.read(name).await?;
            let why = match stage(&pod, self.target) {
                Ok(ContainerStage::Running) => return Ok(pod),
                Ok(ContainerStage::Ended(error)) | Err(error) => patience.bear(error, credentials(&pod))?,
                Ok(ContainerStage::Waiting(why)) => why,
            };
            patience.wait(&why, LOOK).await?;
        }
    }

    /// The copy.
    async fn read(&self, name: &str) -> Result<Pod, ClusterError> {
        match read(self.cluster, self.home.name(), name).await {
            Err(ClusterError::Missing { .. }) => Err(ClusterError::Evicted { message: "the copy is gone".to_owned() }),
            outcome => outcome,
        }
    }
}

pub(super) async fn read(cluster: &Cluster, namespace: &str, pod: &str) -> Result<Pod, ClusterError> {
    let object = ObjectRef::namespaced(Kind::Pod, namespace, pod);
    cluster.get(&format!("read {object}"), object.path()).await
}

/// Whether the pod was taken from its node.
fn lost(pod: &Pod) -> Option<ClusterError> {
    let status = pod.status.as_ref()?;
    let evicted = matches!(status.reason.as_deref(), Some("Evicted" | "NodeLost" | "Preempting" | "NodeShutdown"));
    evicted.then(|| ClusterError::Evicted { message: status.message.clone().unwrap_or_default() })
}

fn stage_of(pod: &Pod, container: &str) -> Option<ContainerStage> {
    statuses(pod).get(container).map(|status| container_stage(status))
}

/// How far the copied container is; an error where the pod can't get there.
fn stage(pod: &Pod, target: &Target) -> Result<ContainerStage, ClusterError> {
    if let Some(lost) = lost(pod) {
        return Err(lost);
    }
    let target_stage = stage_of(pod, TARGET);
    // First, for the kubelet ends the agent as soon as the container beside it has ended.
    if let Some(ContainerStage::Ended(ClusterError::ScannerFailed { .. } | ClusterError::OutOfMemory { .. })) =
        target_stage
    {
        return Err(ended(pod, target));
    }
    // The agent is started before it, so that where it can't be, nothing is told of the other.
    if let Some(ContainerStage::Ended(error)) = stage_of(pod, AGENT) {
        return Err(match error {
            ClusterError::ScannerFailed { message } => ClusterError::NotStarted { message },
            other => other,
        });
    }
    match target_stage {
        // Nothing is looked at before the scanner runs, where there is one.
        Some(ContainerStage::Running) => Ok(stage_of(pod, SCANNER).unwrap_or(ContainerStage::Running)),
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

/// The id of the pod's container of this name, without the runtime's.
pub(super) fn container_id(pod: &Pod, name: &str) -> String {
    let statuses = statuses(pod);
    let id = statuses.get(name).and_then(|status| status.container_id.as_deref()).unwrap_or_default();
    id.split_once("://").map_or(id, |(_, id)| id).to_owned()
}

pub(super) fn not_running(target: &Target, detail: &str) -> ClusterError {
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
