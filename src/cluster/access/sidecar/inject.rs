//! The agent in somebody's manifest: a pure function from a manifest to a manifest, and what was changed, or why it can't be.
//!
//! Of an object everything stays as it is but four things in its pod's specification: the agent's container, the volume for
//! its results, the shared process namespace, and an agent of an earlier version. So a second time changes nothing.

use std::fmt;

use k8s_openapi::api::core::v1::{Container, PodSpec, Volume};
use serde_json::{Value, json};

use super::injected::stands_for;
use super::{AGENT, RESULTS, agent, results};
use crate::base::text::brief;
use crate::cluster::access::auto::User;

/// What is put in.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// gapscan's own image, as `HOST/REPOSITORY@sha256:…`.
    pub image: &'a str,
    /// The container that is to be looked at; needed where a pod has several.
    pub container: Option<&'a str>,
    /// As whom that one runs, for manifests that do not say.
    pub user: Option<User>,
}

/// Where something is: which object of which document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct At {
    /// The document's number in its file, from 1 on.
    pub document: usize,
    /// The object's kind.
    pub kind: String,
    /// Its name; what stands for it where its name is made when it is.
    pub name: String,
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "document {}, {} `{}`", self.document, brief(&self.kind), brief(&self.name))
    }
}

/// Why the agent can't be put into an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Which object.
    pub at: At,
    /// The field that stands against it.
    pub field: String,
    /// Why.
    pub why: String,
    /// What can be done about it.
    pub remedy: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {}: {}; {}", self.at, self.field, self.why, self.remedy)
    }
}

/// What became of one object that has pods.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Injection {
    /// Which object.
    pub at: At,
    /// The container that the agent looks at.
    pub container: String,
    /// What was changed, each in a few words; nothing where all was there.
    pub changes: Vec<String>,
}

/// What became of all objects of one document.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Injections {
    /// Those that have pods, and have the agent now.
    pub done: Vec<Injection>,
    /// Those that have pods without a container of the name that was asked for: they are as they were.
    pub passed_over: Vec<At>,
    /// Why it can't be, of those that it can't be of.
    pub refused: Vec<Refusal>,
}

/// The kinds that have pods, with their groups, and where they have the pods' specification.
const KINDS: [(&str, &[&str], &str); 7] = [
    ("Pod", &["v1"], "/spec"),
    ("Deployment", &["apps/v1"], "/spec/template/spec"),
    ("StatefulSet", &["apps/v1"], "/spec/template/spec"),
    ("DaemonSet", &["apps/v1"], "/spec/template/spec"),
    ("ReplicaSet", &["apps/v1"], "/spec/template/spec"),
    ("Job", &["batch/v1"], "/spec/template/spec"),
    ("CronJob", &["batch/v1"], "/spec/jobTemplate/spec/template/spec"),
];

/// Lists in lists are no manifests of anybody.
const DEPTH: usize = 4;

/// Puts the agent into every object of the document that has pods. Where an object is refused, the document is not to be used.
pub fn inject(document: &mut Value, number: usize, wanted: &Wanted<'_>) -> Injections {
    let mut injections = Injections::default();
    walk(document, number, wanted, DEPTH, &mut injections);
    injections
}

fn walk(object: &mut Value, document: usize, wanted: &Wanted<'_>, depth: usize, injections: &mut Injections) {
    let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
    let kind = text("/kind").unwrap_or_default();
    let version = text("/apiVersion").unwrap_or_default();
    let name = text("/metadata/name")
        .or_else(|| text("/metadata/generateName"))
        .unwrap_or_else(|| "without a name".to_owned());
    let at = At { document, kind: kind.clone(), name };
    if version == "v1" && kind.ends_with("List") && depth > 0 {
        for item in object.get_mut("items").and_then(Value::as_array_mut).into_iter().flatten() {
            walk(item, document, wanted, depth - 1, injections);
        }
        return;
    }
    let Some((_, versions, place)) = KINDS.iter().find(|(known, ..)| *known == kind) else { return };
    let refuse = |field: &str, why: String, remedy: &str| Refusal {
        at: at.clone(),
        field: field.to_owned(),
        why,
        remedy: remedy.to_owned(),
    };
    if !versions.contains(&version.as_str()) {
        // Of another group it is something else. One of an old version of its own group would go without a scanner.
        if ["extensions/", "apps/", "batch/", "v1"].iter().any(|group| version.starts_with(group)) {
            let why = format!("`{}` is no version that is served", brief(&version));
            injections.refused.push(refuse("apiVersion", why, "write it for a version that the API server serves"));
        }
        return;
    }
    let preferred = object
        .pointer(&format!(
            "{}/metadata/annotations/kubectl.kubernetes.io~1default-container",
            place.trim_end_matches("/spec")
        ))
        .and_then(Value::as_str)
        .map(str::to_owned);
    let field = place[1..].replace('/', ".");
    let Some(spec) = object.pointer_mut(place).filter(|spec| spec.is_object()) else {
        injections.refused.push(refuse(&field, "it is not there".to_owned(), "complete the manifest"));
        return;
    };
    match put_in(spec, &field, preferred.as_deref(), wanted) {
        Ok(Put::In { container, changes }) => injections.done.push(Injection { at, container, changes }),
        Ok(Put::PassedOver) => injections.passed_over.push(at),
        Err((field, why, remedy)) => injections.refused.push(refuse(&field, why, &remedy)),
    }
}

enum Put {
    In { container: String, changes: Vec<String> },
    PassedOver,
}

/// Field, reason, remedy.
type Against = (String, String, String);

fn put_in(spec: &mut Value, field: &str, preferred: Option<&str>, wanted: &Wanted<'_>) -> Result<Put, Against> {
    let against = |name: &str, why: String, remedy: &str| {
        let field = if name.is_empty() { field.to_owned() } else { format!("{field}.{name}") };
        Err((field, why, remedy.to_owned()))
    };
    // What can't be read as Kubernetes would read it is not understood well enough to be changed.
    let typed: PodSpec = match serde_json::from_value(spec.clone()) {
        Ok(typed) => typed,
        Err(error) => {
            return against("", format!("it is no pod: {}", brief(&error.to_string())), "correct the manifest");
        }
    };
    if typed.os.as_ref().is_some_and(|os| os.name == "windows") {
        return against("os", "its pods are for Windows, and gapscan's agent is for Linux".to_owned(), "leave it out");
    }
    if typed.host_pid == Some(true) {
        let why = "its pods see the node's processes, which excludes that they share their own".to_owned();
        return against("hostPID", why, "scan it by exec, or leave out hostPID");
    }
    let inits = typed.init_containers.as_deref().unwrap_or_default();
    let lasting: Vec<&Container> = typed
        .containers
        .iter()
        .chain(inits.iter().filter(|init| init.restart_policy.as_deref() == Some("Always")))
        .filter(|container| stands_for(container).is_none())
        .collect();
    let there = inits.iter().chain(&typed.containers).find(|container| container.name == AGENT);
    let earlier = there.and_then(stands_for);
    if there.is_some() && earlier.is_none() {
        let why = format!("there is a container `{AGENT}` already, and it is not gapscan's agent");
        return against("containers", why, "rename it");
    }
    let container = match (wanted.container, earlier, &lasting[..]) {
        (Some(name), Some(earlier), _) if name != earlier => {
            let why = format!("the agent is there for container `{}` already", brief(earlier));
            return against("initContainers", why, "take it out of the manifest to have it look at another one");
        }
        (Some(name), ..) => match lasting.iter().find(|container| container.name == name) {
            Some(found) => *found,
            None => return Ok(Put::PassedOver),
        },
        (None, Some(earlier), _) => match lasting.iter().find(|container| container.name == earlier) {
            Some(found) => *found,
            None => {
                let why = format!("the agent is there for container `{}`, which is not", brief(earlier));
                return against("initContainers", why, "take it out of the manifest, or name --container");
            }
        },
        (None, None, [only]) => *only,
        (None, None, several) => match several.iter().find(|container| Some(container.name.as_str()) == preferred) {
            Some(found) => *found,
            None => {
                let names: Vec<String> = several.iter().map(|container| brief(&container.name)).collect();
                let why = format!("there are several containers: {}", names.join(", "));
                return against("containers", why, "name one with --container");
            }
        },
    };
    let user =
        user(&typed, container, wanted).map_err(|(name, why, remedy)| (format!("{field}.{name}"), why, remedy))?;
    let volume = results();
    let same = |there: &Volume| serde_json::from_value::<Volume>(volume.clone()).is_ok_and(|own| own == *there);
    let volume_there = typed.volumes.iter().flatten().find(|volume| volume.name == RESULTS);
    if volume_there.is_some_and(|there| earlier.is_none() && !same(there)) {
        return against("volumes", format!("there is a volume `{RESULTS}` already"), "rename it");
    }

    let container = container.name.clone();
    let mut changes = Vec::new();
    if typed.share_process_namespace != Some(true) {
        let was = if typed.share_process_namespace == Some(false) { ", which was false" } else { "" };
        changes.push(format!(
            "shareProcessNamespace is true{was}: its containers see each other's processes, and none has process 1"
        ));
        spec["shareProcessNamespace"] = json!(true);
    }
    if !volume_there.is_some_and(same) {
        changes.push(format!("volume `{RESULTS}` for results"));
        replace(spec, "volumes", RESULTS, volume);
    }
    let manifest = agent(wanted.image, &container, user, None);
    let own = serde_json::from_value::<Container>(manifest.clone()).ok();
    let in_place = inits.iter().find(|init| init.name == AGENT);
    if own.as_ref() != in_place {
        let what = if there.is_some() { "renewed" } else { "added" };
        changes.push(format!(
            "container `{AGENT}` {what}, for container `{}`, as its user {} and group {}",
            brief(&container),
            user.uid,
            user.gid
        ));
        remove(spec, "containers", AGENT);
        replace(spec, "initContainers", AGENT, manifest);
    }
    Ok(Put::In { container, changes })
}

/// As whom the container runs: as the manifest says, or whoever asks.
fn user(spec: &PodSpec, container: &Container, wanted: &Wanted<'_>) -> Result<User, Against> {
    let own = container.security_context.as_ref();
    let of_pod = spec.security_context.as_ref();
    let uid = own.and_then(|c| c.run_as_user).or_else(|| of_pod?.run_as_user);
    let gid = own.and_then(|c| c.run_as_group).or_else(|| of_pod?.run_as_group);
    let field = format!("containers[{}].securityContext", brief(&container.name));
    let refuse = |name: &str, why: String, remedy: &str| Err((format!("{field}.{name}"), why, remedy.to_owned()));
    let named = match (uid, gid) {
        (Some(uid), Some(gid)) => Some(User { uid, gid }),
        _ => None,
    };
    let user = match (named, wanted.user) {
        (Some(named), Some(asked)) if named != asked => {
            let why = format!("it names user {} and group {}, and --user another", named.uid, named.gid);
            return refuse("runAsUser", why, "leave out --user");
        }
        (None, Some(asked)) if uid.is_some_and(|uid| uid != asked.uid) || gid.is_some_and(|gid| gid != asked.gid) => {
            return refuse("runAsUser", "it names another user or group than --user".to_owned(), "correct --user");
        }
        (Some(user), _) | (None, Some(user)) => user,
        (None, None) => {
            let name = if uid.is_none() { "runAsUser" } else { "runAsGroup" };
            let why = "it is not there, and the agent must run as the same user and group, or Linux does not let it see the \
                       container's files";
            return refuse(
                name,
                why.to_owned(),
                "name it there, or with --user UID:GID as a running pod's status has it",
            );
        }
    };
    match user.uid {
        0 => refuse(
            "runAsUser",
            "it runs as root, and the agent is restricted and does not".to_owned(),
            "scan it by exec or by an ephemeral container (--approach exec,debug)",
        ),
        _ => Ok(user),
    }
}

/// Puts an entry into a list of named ones: in the place of the one of its name, else at the end.
fn replace(spec: &mut Value, list: &str, name: &str, entry: Value) {
    if !spec[list].is_array() {
        spec[list] = json!([]);
    }
    let Some(entries) = spec[list].as_array_mut() else { return };
    match entries.iter_mut().find(|there| there["name"] == name) {
        Some(there) => *there = entry,
        None => entries.push(entry),
    }
}

fn remove(spec: &mut Value, list: &str, name: &str) {
    if let Some(entries) = spec[list].as_array_mut() {
        entries.retain(|there| there["name"] != name);
    }
}

#[cfg(test)]
mod tests;
