//! Ephemeral containers beside one target: added, waited for until they run, and seen to end.
//!
//! Each runs as the target's user and group with no more rights than the target has, and sees the target's processes. Kubernetes
//! has no way to remove one: its ended entry stays in the pod's status until the pod goes.

use std::time::Duration;

use hyper::http::Method;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use serde_json::{Value, json};

use super::auto::{ContainerFacts, DEBUG_NAME};
use super::exec::{Incarnation, Place, incarnation_of};
use crate::cluster::canary::BINARY;
use crate::cluster::client::{Call, Cluster, poll_until};
use crate::cluster::error::ClusterError;
use crate::cluster::object::{Kind, ObjectRef};
use crate::cluster::patience::{Credentials, Patience};
use crate::cluster::pod::{ContainerStage, container_stage};
use crate::cluster::targets::statuses;
use crate::model::provenance::Cleanup;
use crate::model::record::RunId;
use crate::model::target::Target;

/// How long the image may take to be pulled and the container to start.
pub(super) const START: Duration = Duration::from_secs(120);

/// How often it is looked at while it starts.
const LOOK: Duration = Duration::from_millis(200);

/// How long it may take to end once it was told to.
pub(super) const END: Duration = Duration::from_secs(20);

/// What came of ephemeral containers, and what became of them.
#[derive(Debug)]
pub struct EphemeralReport<T> {
    /// What was done by them.
    pub outcome: Result<T, ClusterError>,
    /// Those that were made.
    pub entries: Entries,
}

/// The ephemeral containers that were made, as `ephemeralcontainer/namespace/pod/name`.
#[derive(Debug, Default)]
pub struct Entries {
    /// Those that were seen to have ended.
    pub ended: Vec<String>,
    /// Those that were not.
    pub running: Vec<String>,
}

impl Entries {
    /// Puts them into the account of what was made. Gives what else has to be said of them.
    pub fn account(self, cleanup: &mut Cleanup) -> impl Iterator<Item = String> {
        cleanup.created.extend(self.ended.iter().chain(&self.running).cloned());
        cleanup.remaining.extend(self.running);
        self.ended
            .into_iter()
            .map(|entry| format!("`{entry}` has ended, and its entry stays in the pod's status until the pod goes"))
    }
}

/// The ephemeral containers of one scan.
pub(super) struct Ephemeral<'a> {
    pub(super) identity: &'a Cluster,
    pub(super) target: Place<'a>,
    before: Incarnation,
    context: Value,
    /// What their names begin with: the run and the scan.
    name: String,
    /// By which the processes in them are found.
    pub(super) word: String,
    made: Vec<String>,
}

impl<'a> Ephemeral<'a> {
    /// Looks at the target. `identity` is the connection of an identity with
    /// [`Rights::Debug`](crate::cluster::identity::Rights); its user must be known.
    pub(super) async fn open(
        identity: &'a Cluster,
        (target, facts): (&'a Target, &ContainerFacts),
        (run, scan): (RunId, u32),
    ) -> Result<Self, ClusterError> {
        let Target::Container { namespace, pod, container, uid, .. } = target else {
            let detail = "it is no container".to_owned();
            return Err(ClusterError::TargetNotRunning { target: target.key(), detail });
        };
        let context = context(facts, target)?;
        let target = Place { namespace, pod, container, uid: uid.as_deref() };
        let before = incarnation_of(identity, &target).await?;
        let name = format!("{DEBUG_NAME}{}-{scan}", run.short());
        Ok(Self { identity, target, before, context, name, word: format!("{run}-{scan}"), made: Vec::new() })
    }

    /// Starts one of gapscan's image that holds itself open for so long. Gives its name.
    pub(super) async fn hold(&mut self, image: &str, life: Duration) -> Result<String, ClusterError> {
        let life = life.as_secs().to_string();
        let command = [BINARY, "agent", "hold", "--deadline", &life, "--word", &self.word];
        let manifest = json!({ "image": image, "command": command });
        self.start("", manifest, Root::ReadOnly).await
    }

    /// Starts one of this image and command, and waits until it runs. Gives its name.
    pub(super) async fn start(
        &mut self,
        suffix: &str,
        mut manifest: Value,
        root: Root,
    ) -> Result<String, ClusterError> {
        let name = format!("{}{suffix}", self.name);
        manifest["securityContext"] = self.context.clone();
        dress(&mut manifest, &name, self.target.container, root);
        let Place { namespace, pod, .. } = self.target;
        let call = Call {
            what: format!("add an ephemeral container to pod `{namespace}/{pod}`"),
            method: Method::PATCH,
            path: format!(
                "{}/ephemeralcontainers?fieldValidation=Strict",
                ObjectRef::namespaced(Kind::Pod, namespace, pod).path()
            ),
            body: Some(patch(&self.before.uid, manifest).to_string().into_bytes()),
        };
        // An answer that is lost does not say whether it was made.
        match self.identity.call::<Value>(call).await {
            Err(error) if error.is_refusal() => return Err(error),
            outcome => {
                self.made.push(name.clone());
                outcome?;
            }
        }
        self.started(&name).await?;
        Ok(name)
    }

    /// The container of this name, for commands in it.
    pub(super) fn place<'n>(&self, name: &'n str) -> Place<'n>
    where
        'a: 'n,
    {
        Place { container: name, ..self.target }
    }

    /// Waits until it runs.
    pub(super) async fn started(&self, name: &str) -> Result<(), ClusterError> {
        let mut patience = Patience::new("the ephemeral container", START);
        loop {
            let why = match self.status(name).await?.as_ref().map(container_stage) {
                Some(ContainerStage::Running) => return Ok(()),
                // The kubelet has had the secrets of the target's pod since that was started.
                Some(ContainerStage::Ended(error)) => patience.bear(error, Credentials::None)?,
                Some(ContainerStage::Waiting(why)) => why,
                None => "the kubelet has not seen it".to_owned(),
            };
            patience.wait(&why, LOOK).await?;
        }
    }

    /// That the target is the one that it was.
    pub(super) async fn unchanged(&self) -> Result<(), ClusterError> {
        let after = incarnation_of(self.identity, &self.target).await?;
        match self.before.is_same(&after) {
            true => Ok(()),
            false => {
                let detail = "the container was restarted".to_owned();
                Err(ClusterError::TargetChanged { target: self.target.key(), detail })
            }
        }
    }

    /// Sees each of them end, or its pod.
    pub(super) async fn close(self) -> Entries {
        let mut entries = Entries::default();
        for name in &self.made {
            let Place { namespace, pod, .. } = self.target;
            let entry = format!("ephemeralcontainer/{namespace}/{pod}/{name}");
            match self.has_ended(name).await {
                true => entries.ended.push(entry),
                false => entries.running.push(entry),
            }
        }
        entries
    }

    async fn has_ended(&self, name: &str) -> bool {
        let over = poll_until(END, || async {
            match self.status(name).await {
                Ok(status) => {
                    let state = status.and_then(|status| status.state);
                    Ok(state.is_some_and(|state| state.terminated.is_some()).then_some(()))
                }
                Err(ClusterError::TargetGone { .. }) => Ok(Some(())),
                Err(error) => Err(error),
            }
        })
        .await;
        matches!(over, Ok(Some(())))
    }

    async fn status(&self, name: &str) -> Result<Option<ContainerStatus>, ClusterError> {
        let object = ObjectRef::namespaced(Kind::Pod, self.target.namespace, self.target.pod);
        let pod: Pod = match self.identity.get(&format!("read {object}"), object.path()).await {
            Err(ClusterError::Missing { .. }) => {
                return Err(ClusterError::TargetGone { target: self.place(name).key() });
            }
            outcome => outcome?,
        };
        Ok(statuses(&pod).get(name).map(|status| (*status).clone()))
    }
}

/// Whether a container can write to its own files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Root {
    ReadOnly,
    /// The only writable place that an ephemeral container can have is its own.
    Writable,
}

/// What each has besides image, command, environment and rights.
fn dress(manifest: &mut Value, name: &str, target: &str, root: Root) {
    manifest["name"] = json!(name);
    manifest["imagePullPolicy"] = json!("IfNotPresent");
    manifest["targetContainerName"] = json!(target);
    manifest["securityContext"]["readOnlyRootFilesystem"] = json!(root == Root::ReadOnly);
}

/// Names the UID: for another pod of this name the API server refuses it.
fn patch(uid: &str, container: Value) -> Value {
    json!({ "metadata": { "uid": uid }, "spec": { "ephemeralContainers": [container] } })
}

/// What an ephemeral container beside the target may do: it has the target's user and group, and the capabilities that the
/// target has, because without them Linux would not let it see the target's files; of these only root has any.
fn context(facts: &ContainerFacts, target: &Target) -> Result<Value, ClusterError> {
    let Some(user) = facts.user else {
        let detail = "which user it runs as is not known".to_owned();
        return Err(ClusterError::TargetNotRunning { target: target.key(), detail });
    };
    let dropped = match user.uid {
        0 => facts.dropped_capabilities.clone(),
        _ => vec!["ALL".to_owned()],
    };
    Ok(json!({
        "runAsUser": user.uid,
        "runAsGroup": user.gid,
        "runAsNonRoot": user.uid != 0,
        "allowPrivilegeEscalation": false,
        "readOnlyRootFilesystem": true,
        "capabilities": { "drop": dropped },
        "seccompProfile": { "type": "RuntimeDefault" },
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::EphemeralContainer;

    fn facts(uid: i64, dropped: &[&str]) -> ContainerFacts {
        let pod = json!({
            "spec": { "containers": [{ "name": "app", "securityContext": {
                "runAsUser": uid, "runAsGroup": 7, "capabilities": { "drop": dropped },
            } }] },
        });
        ContainerFacts::of(&serde_json::from_value(pod).expect("a pod"), "app").expect("it has the container")
    }

    fn made(facts: &ContainerFacts, root: Root) -> Value {
        let context = context(facts, &Target::Host { name: String::new() }).expect("its user is known");
        let mut manifest = json!({ "image": "r/x@sha256:1", "command": ["x"], "securityContext": context });
        dress(&mut manifest, "gapscan-x-3", "app", root);
        manifest
    }

    #[test]
    fn it_is_what_kubernetes_knows_and_the_restricted_standard_takes() {
        let manifest = made(&facts(65532, &[]), Root::ReadOnly);
        let read: EphemeralContainer = serde_json::from_value(manifest.clone()).expect("an ephemeral container");
        assert_eq!(serde_json::to_value(read).expect("the same"), manifest);
        let context = &manifest["securityContext"];
        assert_eq!(context["capabilities"], json!({ "drop": ["ALL"] }));
        assert_eq!((&context["runAsNonRoot"], &context["allowPrivilegeEscalation"]), (&json!(true), &json!(false)));
        assert_eq!((&context["runAsUser"], &context["runAsGroup"]), (&json!(65532), &json!(7)));
        assert_eq!(context["readOnlyRootFilesystem"], json!(true));
        assert_eq!(manifest["targetContainerName"], "app");
        let writable = made(&facts(65532, &[]), Root::Writable);
        assert_eq!(writable["securityContext"]["readOnlyRootFilesystem"], json!(false));
    }

    #[test]
    fn beside_root_it_has_the_capabilities_that_the_target_was_left() {
        let of = |dropped: &[&str]| made(&facts(0, dropped), Root::ReadOnly)["securityContext"].clone();
        assert_eq!(of(&[])["capabilities"], json!({ "drop": [] }));
        assert_eq!(of(&["ALL"])["capabilities"], json!({ "drop": ["ALL"] }));
        assert_eq!(of(&["ALL"])["runAsNonRoot"], json!(false));
    }

    #[test]
    fn what_has_ended_is_told_and_what_has_not_remains() {
        let mut cleanup = Cleanup { created: vec!["x".to_owned()], remaining: Vec::new() };
        let entries = Entries { ended: vec!["a".to_owned()], running: vec!["b".to_owned()] };
        let notes: Vec<String> = entries.account(&mut cleanup).collect();
        assert!(notes.len() == 1 && notes[0].starts_with("`a` has ended"), "{notes:?}");
        assert_eq!(
            cleanup,
            Cleanup { created: ["x", "a", "b"].map(str::to_owned).into(), remaining: vec!["b".to_owned()] }
        );
    }
}
