//! Which ways lead to a container, and in which order they are tried: a pure function of what the pod says of itself, of
//! what the engine offers, and of what policy allows. Every way that is not taken has its reason.

use std::fmt;

use k8s_openapi::api::core::v1::{Container, Pod, SecurityContext};

use super::sidecar::copy;
use super::sidecar::injected::{Injected, injected};
use crate::cluster::targets::statuses;
use crate::model::access::Way;

/// How many ended ephemeral containers of gapscan a pod may collect: Kubernetes has no way to remove them, and each is
/// carried along in the pod's status.
pub const MOST_DEBUGGED: usize = 20;

/// What the names of gapscan's ephemeral containers begin with.
pub(crate) const DEBUG_NAME: &str = "gapscan-";

/// The user that a container's first process runs as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct User {
    /// Its user id.
    pub uid: i64,
    /// Its primary group's id.
    pub gid: i64,
}

/// What kind of container it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContainerKind {
    /// One of the pod's own, a sidecar among them.
    Lasting,
    /// An ephemeral one.
    Ephemeral,
}

/// What decides how a container can be reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerFacts {
    /// What kind it is.
    pub kind: ContainerKind,
    /// Its ID at the runtime, which another start of it does not have.
    pub id: Option<String>,
    /// The image that runs, as `HOST/REPOSITORY@sha256:…`; absent where no registry can be asked for it.
    pub image: Option<String>,
    /// Its pod is for Windows.
    pub windows: bool,
    /// Its pod is the mirror of a static one: the kubelet's own, and the API server can't change it.
    pub mirror: bool,
    /// Its pod sees the node's processes.
    pub host_processes: bool,
    /// All containers of its pod see each other's processes.
    pub shared_processes: bool,
    /// It is privileged.
    pub privileged: bool,
    /// Capabilities that it has beside those that its runtime gives to all.
    pub added_capabilities: Vec<String>,
    /// Capabilities of those that it was denied.
    pub dropped_capabilities: Vec<String>,
    /// Who its first process is, where that is known.
    pub user: Option<User>,
    /// How many ephemeral containers of gapscan its pod has had already.
    pub debugged: usize,
    /// gapscan's sidecar beside it, where its pod has one; or why that can't be used.
    pub injected: Option<Result<Injected, String>>,
    /// Why a copy of it would say nothing of it.
    pub uncopyable: Option<String>,
}

/// A way that can be taken, and why it has its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chosen {
    /// The way.
    pub way: Way,
    /// Why.
    pub why: String,
}

/// What was chosen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Choice {
    /// The ways to try, in this order: the next one where the one before finds that the container lacks what it needs.
    pub ways: Vec<Chosen>,
    /// The ways that are not taken, each with the reason.
    pub refused: Vec<Chosen>,
}

impl Choice {
    /// Does not take a way that it would have taken.
    pub(crate) fn refuse(&mut self, way: Way, why: &str) {
        let refused = self.ways.extract_if(.., |chosen| chosen.way == way);
        self.refused.extend(refused.map(|chosen| Chosen { why: why.to_owned(), ..chosen }));
    }

    /// Why no other way is there, as one text.
    pub fn refusals(&self) -> String {
        let each: Vec<String> = self.refused.iter().map(ToString::to_string).collect();
        each.join("; ")
    }
}

impl fmt::Display for Chosen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.way, self.why)
    }
}

impl ContainerFacts {
    /// What the pod says of its container of this name; `None` where it has none of it.
    pub fn of(pod: &Pod, name: &str) -> Option<Self> {
        let spec = pod.spec.as_ref()?;
        let lasting = spec.containers.iter().chain(spec.init_containers.iter().flatten()).find(|c| c.name == name);
        let ephemeral = || {
            let found = spec.ephemeral_containers.iter().flatten().find(|c| c.name == name)?;
            Some(Container { security_context: found.security_context.clone(), ..Container::default() })
        };
        let (container, kind) = match lasting {
            Some(container) => (container.clone(), ContainerKind::Lasting),
            None => (ephemeral()?, ContainerKind::Ephemeral),
        };
        let context = container.security_context.unwrap_or_default();
        let status = statuses(pod).get(name).copied();
        let capabilities = context.capabilities.clone().unwrap_or_default();
        let own = |name: &str| name.starts_with(DEBUG_NAME);
        let user = status.and_then(reported_user).or_else(|| asked_user(pod, &context));
        let facts = Self {
            kind,
            id: status.and_then(|status| status.container_id.clone()),
            image: status.and_then(|status| crate::cluster::targets::image_reference(&status.image_id)).map(|(r, _)| r),
            windows: spec.os.as_ref().is_some_and(|os| os.name == "windows"),
            mirror: pod
                .metadata
                .annotations
                .as_ref()
                .is_some_and(|all| all.contains_key("kubernetes.io/config.mirror")),
            host_processes: spec.host_pid == Some(true),
            shared_processes: spec.share_process_namespace == Some(true),
            privileged: context.privileged == Some(true),
            added_capabilities: capabilities.add.unwrap_or_default(),
            dropped_capabilities: capabilities.drop.unwrap_or_default(),
            user,
            debugged: spec.ephemeral_containers.iter().flatten().filter(|c| own(&c.name)).count(),
            injected: injected(pod, name, user),
            uncopyable: None,
        };
        Some(Self { uncopyable: copy::obstacle(pod, name, &facts), ..facts })
    }

    /// Why this way can't lead to the container, whatever policy says.
    fn obstacle(&self, way: Way) -> Option<String> {
        if self.windows {
            return Some("its pod is for Windows, and the collector knows Linux only".to_owned());
        }
        match way {
            Way::Exec => None,
            Way::Debug => self.debug_obstacle(),
            // One that is in its pod already needs no copy.
            Way::Sidecar if matches!(self.injected, Some(Ok(_))) => None,
            Way::Sidecar => self.uncopyable.clone(),
            Way::Image => self
                .image
                .is_none()
                .then(|| "the node reports no name by which a registry can be asked for it".to_owned()),
        }
    }

    fn debug_obstacle(&self) -> Option<String> {
        if self.mirror {
            return Some("its pod is static: the API server can't add to it".to_owned());
        }
        if self.kind == ContainerKind::Ephemeral {
            return Some("it is ephemeral itself".to_owned());
        }
        // Process 1 is what leads to the target's files.
        if self.host_processes {
            return Some("its pod sees the node's processes, so that process 1 is the node's".to_owned());
        }
        if self.shared_processes {
            return Some(
                "its pod shares one process namespace, so that process 1 is none of the container's".to_owned(),
            );
        }
        if self.debugged >= MOST_DEBUGGED {
            return Some(format!(
                "its pod has had {} ephemeral containers of gapscan, which Kubernetes keeps until the pod goes",
                self.debugged
            ));
        }
        let Some(user) = self.user else {
            return Some("neither its pod nor its status says which user and group it runs as".to_owned());
        };
        // Linux lets a process see another's files this way only if it has every capability of that one (ptrace(2)).
        if user.uid == 0 && self.privileged {
            return Some("it is privileged, and so would the ephemeral container have to be".to_owned());
        }
        if user.uid == 0 && !self.added_capabilities.is_empty() {
            return Some(format!(
                "it has {}, and so would the ephemeral container have to",
                crate::base::text::brief(&self.added_capabilities.join(", "))
            ));
        }
        None
    }

    fn recommendation(&self, way: Way) -> String {
        match (way, self.user) {
            (Way::Exec, _) => {
                "one command in the container, nothing is added to its pod; it needs a shell there".to_owned()
            }
            (Way::Debug, user) => {
                let user = user.map_or_else(String::new, |u| format!(" as user {} and group {}", u.uid, u.gid));
                format!("an ephemeral container beside it{user}, whose ended entry stays in the pod's status")
            }
            (Way::Sidecar, _) if matches!(self.injected, Some(Ok(_))) => {
                "the gapscan sidecar that is in its pod already: one command there, and nothing is added".to_owned()
            }
            (Way::Sidecar, _) => {
                "a copy of it with gapscan beside it, without its secrets, configuration and traffic; the container itself \
                 is not looked at"
                    .to_owned()
            }
            (Way::Image, _) => {
                "the image that it was started from; what only a running container has is not evaluated".to_owned()
            }
        }
    }
}

/// Chooses the ways to a container: of those that are allowed, in their order, the ones that the engine offers and the
/// container has no obstacle to.
pub fn choose(facts: &ContainerFacts, offered: &[Way], allowed: &[Way]) -> Choice {
    let mut choice = Choice::default();
    for &way in allowed {
        if !offered.contains(&way) {
            choice.refused.push(Chosen { way, why: "the scanner does not offer it".to_owned() });
        } else if let Some(why) = facts.obstacle(way) {
            choice.refused.push(Chosen { way, why });
        } else {
            choice.ways.push(Chosen { way, why: facts.recommendation(way) });
        }
    }
    for way in offered.iter().copied().filter(|way| !allowed.contains(way)) {
        choice.refused.push(Chosen { way, why: "policy does not allow it".to_owned() });
    }
    choice
}

/// Who the container runtime says that it is (`containerStatuses[].user`, Kubernetes 1.31).
pub(super) fn reported_user(status: &k8s_openapi::api::core::v1::ContainerStatus) -> Option<User> {
    let linux = status.user.as_ref()?.linux.as_ref()?;
    Some(User { uid: linux.uid, gid: linux.gid })
}

/// Who the pod asks it to be. A group that is not named may be any that the image says.
fn asked_user(pod: &Pod, context: &SecurityContext) -> Option<User> {
    let of_pod = pod.spec.as_ref()?.security_context.as_ref();
    let uid = context.run_as_user.or_else(|| of_pod?.run_as_user)?;
    let gid = context.run_as_group.or_else(|| of_pod?.run_as_group)?;
    Some(User { uid, gid })
}

#[cfg(test)]
mod tests;
