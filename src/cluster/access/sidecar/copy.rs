//! A copy of one container of a running pod, with gapscan's agent beside it: a pure function of the pod.
//!
//! The copy is made to be looked at and for nothing else, in a namespace of the run: nobody sends it traffic, nothing answers
//! it, and it holds none of the original's secrets. So it is not the original, and what differs is told:
//!
//! | of the original | in the copy |
//! |---|---|
//! | labels, annotations, owners, node, priority, host name, ports, probes, hooks | left out |
//! | service account and token | none |
//! | other containers, and what init containers prepared | left out |
//! | variables from secrets and config maps | left out |
//! | volumes | empty ones at the same places; what was mounted from a path within a volume, and raw devices, left out |
//! | security context | the same user and groups, and whatever the restricted Pod Security Standard asks for beside that |
//!
//! What can't be copied so that it still says something of the original is refused ([`obstacle`]): a copy without its
//! privileges, say, would look safer than what it is a copy of.

use std::collections::BTreeSet;
use std::time::Duration;

use k8s_openapi::api::core::v1::{
    Capabilities, Container, EmptyDirVolumeSource, EnvVar, Pod, PodSecurityContext, ResourceRequirements,
    SeccompProfile, SecurityContext, Volume, VolumeMount,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use serde_json::{Value, json};

use super::{MEMORY, RESULTS_FOLDER, agent};
use crate::base::text::brief;
use crate::cluster::access::auto::{ContainerFacts, ContainerKind, User};
use crate::cluster::pod;
use crate::cluster::pull::PullSecret;

/// The copied container's name in the copy, by which admission knows it.
pub(crate) const TARGET: &str = "target";

/// Where Kubernetes mounts a service account's token.
const TOKEN: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// What the names of volumes begin with that are gapscan's own.
pub(super) const OWN: &str = "gapscan-";

/// The one capability that the restricted Pod Security Standard lets a container keep.
const HARMLESS: &str = "NET_BIND_SERVICE";

/// What a copy of a container without limits may use.
const DEFAULT_CPU: &str = "1";
const DEFAULT_MEMORY: &str = "1Gi";

/// What a copy asks its node for, whatever the original does: it idles, and must find a place.
const ASKED_CPU: &str = "10m";
const ASKED_MEMORY: &str = "16Mi";

/// The limits that are kept. Others are of devices, which a copy does not get.
const LIMITS: [&str; 3] = ["cpu", "memory", "ephemeral-storage"];

/// A pod that is a copy, and what it does not tell of the original.
#[derive(Clone, Debug, PartialEq)]
pub struct Copy {
    /// The pod without its name and labels.
    pub(crate) manifest: Value,
    /// What is different, each in a sentence.
    pub notes: Vec<String>,
    /// Where the original has something mounted that the copy has not: nothing is known of what is there.
    pub out_of_reach: Vec<String>,
    /// Whether its processes are those of the original.
    pub processes: Likeness,
    /// Whether its mounts are those of the original.
    pub mounts: Likeness,
    /// Whether its kernel parameters are those of the original.
    pub sysctls: Likeness,
    /// Whether its files are those that the original was started with: nothing mounted, no variable was left out.
    pub files: Likeness,
}

/// Whether something of a copy is as in the original.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Likeness {
    /// Nothing that bears on it was changed.
    Same,
    /// It may be different.
    Different,
}

impl Likeness {
    fn unless(different: bool) -> Self {
        if different { Self::Different } else { Self::Same }
    }
}

/// A copy of a running pod's container as a whole manifest, for somebody to keep or to apply: with no namespace, account or
/// end, and under a name after the pod's.
///
/// # Errors
/// The reason why there can be none.
pub fn written_out(pod: &Pod, container: &str, agent_image: &str) -> Result<(Value, Copy), String> {
    let making = Making { agent_image, life: None, pull: None, account: None };
    let copy = copy(pod, container, &making)?;
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let name: String = name.chars().take(240).collect();
    let mut manifest = json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": format!("{name}-copy") } });
    manifest["spec"] = copy.manifest["spec"].clone();
    // Where it is applied is not known, and a node is meant only as long as the pod is there.
    manifest["spec"].as_object_mut().map(|spec| spec.remove("affinity"));
    Ok((manifest, copy))
}

/// What a copy is made with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Making<'a> {
    /// gapscan's own image, as `HOST/REPOSITORY@sha256:…`.
    pub(crate) agent_image: &'a str,
    /// When it ends by itself; never, where it is written out for somebody else.
    pub(crate) life: Option<Duration>,
    /// The secret that the images are pulled with.
    pub(crate) pull: Option<&'a str>,
    /// Its service account.
    pub(crate) account: Option<&'a str>,
}

/// Why there can't be an honest copy of this container; `None` where there can.
pub(crate) fn obstacle(pod: &Pod, name: &str, facts: &ContainerFacts) -> Option<String> {
    let spec = pod.spec.as_ref()?;
    if facts.windows {
        return Some("its pod is for Windows".to_owned());
    }
    if facts.kind == ContainerKind::Ephemeral {
        return Some("it is ephemeral: a copy of its pod has it not".to_owned());
    }
    if facts.mirror {
        return Some("its pod is static, the kubelet's own: what it is on its node, a copy is not".to_owned());
    }
    let shared = [(spec.host_network, "network"), (spec.host_pid, "processes"), (spec.host_ipc, "memory")];
    if let Some((_, what)) = shared.iter().find(|(of_host, _)| *of_host == Some(true)) {
        return Some(format!("its pod shares the node's {what}, and a copy does not"));
    }
    if facts.privileged {
        return Some("it is privileged, and a copy is not".to_owned());
    }
    let more: Vec<&str> = facts.added_capabilities.iter().map(String::as_str).filter(|c| *c != HARMLESS).collect();
    if !more.is_empty() {
        return Some(format!("it has {}, which the restricted standard forbids", brief(&more.join(", "))));
    }
    match facts.user {
        None => return Some("neither its pod nor its status says which user and group it runs as".to_owned()),
        Some(User { uid: 0, .. }) => return Some("it runs as root, which the restricted standard forbids".to_owned()),
        Some(_) => {}
    }
    let container = lasting(pod, name)?;
    let context = container.security_context.clone().unwrap_or_default();
    let of_pod = spec.security_context.clone().unwrap_or_default();
    if context.proc_mount.as_deref().is_some_and(|mount| mount != "Default") {
        return Some("it sees all of `/proc`, which the restricted standard forbids".to_owned());
    }
    let unconfined = |profile: Option<&SeccompProfile>| profile.is_some_and(|profile| profile.type_ == "Unconfined");
    if unconfined(context.seccomp_profile.as_ref().or(of_pod.seccomp_profile.as_ref())) {
        return Some(
            "it runs without a seccomp profile by its own wish, which the restricted standard forbids".to_owned(),
        );
    }
    let armor = context.app_armor_profile.as_ref().or(of_pod.app_armor_profile.as_ref());
    if armor.is_some_and(|profile| profile.type_ == "Unconfined") {
        return Some(
            "it runs without an AppArmor profile by its own wish, which the restricted standard forbids".to_owned(),
        );
    }
    if facts.image.is_none() {
        return Some("the node reports no name by which its image can be pulled again".to_owned());
    }
    None
}

fn lasting<'p>(pod: &'p Pod, name: &str) -> Option<&'p Container> {
    let spec = pod.spec.as_ref()?;
    spec.containers.iter().chain(spec.init_containers.iter().flatten()).find(|c| c.name == name)
}

/// The copy.
///
/// # Errors
/// The reason why there can be none.
pub(crate) fn copy(pod: &Pod, name: &str, making: &Making<'_>) -> Result<Copy, String> {
    let facts = ContainerFacts::of(pod, name).ok_or("the pod has no such container")?;
    if let Some(why) = obstacle(pod, name, &facts) {
        return Err(why);
    }
    let (Some(spec), Some(original)) = (pod.spec.as_ref(), lasting(pod, name)) else {
        return Err("the pod has no such container".to_owned());
    };
    let (Some(user), Some(image)) = (facts.user, facts.image.clone()) else {
        return Err("its user or its image is not known".to_owned());
    };
    let mut notes = Vec::new();
    let env = environment(original, &mut notes);
    let unset = !notes.is_empty();
    let mounted = mounts(spec.volumes.as_deref().unwrap_or_default(), original, &mut notes);
    let resources = resources(original.resources.as_ref(), &mut notes);
    let (context, changed) = restricted(pod, original, user, &mut notes);
    let left_out = !notes.is_empty();
    others(pod, original, &mut notes);
    let of_pod = spec.security_context.clone().unwrap_or_default();
    let has_sysctls = of_pod.sysctls.as_ref().is_some_and(|list| !list.is_empty());
    if has_sysctls {
        notes.push("its pod sets kernel parameters, and the copy does not".to_owned());
    }

    let target = Container {
        name: TARGET.to_owned(),
        image: Some(image),
        image_pull_policy: Some("IfNotPresent".to_owned()),
        command: original.command.clone(),
        args: original.args.clone(),
        working_dir: original.working_dir.clone(),
        env: (!env.is_empty()).then_some(env),
        tty: original.tty,
        resources: Some(resources),
        security_context: Some(context),
        // Why it ended is then in its status, and nobody needs the right to read logs.
        termination_message_policy: Some("FallbackToLogsOnError".to_owned()),
        volume_mounts: (!mounted.mounts.is_empty()).then_some(mounted.mounts),
        ..Container::default()
    };
    let mut manifest = pod::specification(json!([target]));
    manifest["initContainers"] = json!([agent(making.agent_image, TARGET, user, making.life)]);
    manifest["shareProcessNamespace"] = json!(true);
    let mut volumes = vec![super::results()];
    volumes.extend(mounted.volumes.iter().map(|volume| json!(volume)));
    manifest["volumes"] = json!(volumes);
    manifest["securityContext"] = json!(PodSecurityContext {
        run_as_non_root: Some(true),
        run_as_user: Some(user.uid),
        run_as_group: Some(user.gid),
        fs_group: of_pod.fs_group,
        supplemental_groups: of_pod.supplemental_groups,
        supplemental_groups_policy: of_pod.supplemental_groups_policy,
        seccomp_profile: Some(default_profile()),
        ..PodSecurityContext::default()
    });
    if let Some(class) = &spec.runtime_class_name {
        manifest["runtimeClassName"] = json!(class);
    }
    if spec.host_users == Some(false) {
        manifest["hostUsers"] = json!(false);
    }
    match making.account {
        Some(account) => manifest["serviceAccountName"] = json!(account),
        None => drop(manifest.as_object_mut().map(|spec| spec.remove("serviceAccountName"))),
    }
    if let Some(life) = making.life {
        manifest["activeDeadlineSeconds"] = json!(life.as_secs());
    }
    if let Some(pull) = making.pull {
        manifest["imagePullSecrets"] = PullSecret::reference(pull);
    }
    if let Some(node) = &spec.node_name {
        // The image is there already. It is a wish: where there is no room, another node does.
        let here = json!({ "key": "metadata.name", "operator": "In", "values": [node] });
        manifest["affinity"] = json!({ "nodeAffinity": { "preferredDuringSchedulingIgnoredDuringExecution": [
            { "weight": 100, "preference": { "matchFields": [here] } },
        ] } });
    }
    Ok(Copy {
        manifest: json!({ "spec": manifest }),
        notes,
        out_of_reach: mounted.places,
        processes: Likeness::unless(left_out || changed),
        mounts: Likeness::unless(mounted.changed || changed),
        sysctls: Likeness::unless(has_sysctls),
        files: Likeness::unless(unset || mounted.changed),
    })
}

/// What of the rest of the pod is not in the copy.
fn others(pod: &Pod, original: &Container, notes: &mut Vec<String>) {
    let Some(spec) = &pod.spec else { return };
    let names =
        |list: Vec<&Container>| list.iter().map(|c| format!("`{}`", brief(&c.name))).collect::<Vec<_>>().join(", ");
    let inits: Vec<&Container> = spec.init_containers.iter().flatten().filter(|c| c.name != original.name).collect();
    if !inits.is_empty() {
        notes.push(format!("what {} prepared is not in the copy", names(inits)));
    }
    let beside: Vec<&Container> = spec.containers.iter().filter(|c| c.name != original.name).collect();
    if !beside.is_empty() {
        notes.push(format!(
            "{} of its pod not copied: {}",
            if beside.len() == 1 { "one container is" } else { "some containers are" },
            names(beside)
        ));
    }
    if original.liveness_probe.is_some() || original.readiness_probe.is_some() || original.startup_probe.is_some() {
        notes.push("the copy is not probed".to_owned());
    }
    if original.lifecycle.is_some() {
        notes.push("what it runs when it starts and ends (lifecycle) is not run in the copy".to_owned());
    }
}

/// The variables that hold no secret and no configuration of others.
fn environment(original: &Container, notes: &mut Vec<String>) -> Vec<EnvVar> {
    let mut left = Vec::new();
    let mut kept = Vec::new();
    for variable in original.env.iter().flatten() {
        let Some(from) = &variable.value_from else {
            kept.push(variable.clone());
            continue;
        };
        let of_another = from.resource_field_ref.as_ref().and_then(|r| r.container_name.as_ref()).is_some();
        let source = match () {
            () if from.secret_key_ref.is_some() => "a secret",
            () if from.config_map_key_ref.is_some() => "a config map",
            // What its pod says of itself, the copy says of itself.
            () if from.field_ref.is_some() || (from.resource_field_ref.is_some() && !of_another) => {
                kept.push(variable.clone());
                continue;
            }
            () => "elsewhere",
        };
        left.push(format!("`{}` from {source}", brief(&variable.name)));
    }
    for source in original.env_from.iter().flatten() {
        left.push(match (&source.secret_ref, &source.config_map_ref) {
            (Some(secret), _) => format!("all of secret `{}`", brief(&secret.name)),
            (None, Some(map)) => format!("all of config map `{}`", brief(&map.name)),
            (None, None) => "all of a source".to_owned(),
        });
    }
    if !left.is_empty() {
        notes.push(format!("variables that the copy lacks: {}", left.join(", ")));
    }
    kept
}

/// What is mounted in the copy.
#[derive(Debug, Default)]
struct Mounted {
    volumes: Vec<Volume>,
    mounts: Vec<VolumeMount>,
    /// Where something is mounted in the original.
    places: Vec<String>,
    changed: bool,
}

fn mounts(volumes: &[Volume], original: &Container, notes: &mut Vec<String>) -> Mounted {
    let mut mounted = Mounted::default();
    let (mut emptied, mut left) = (Vec::new(), Vec::new());
    let mut named = BTreeSet::new();
    for mount in original.volume_mounts.iter().flatten() {
        let place = brief(&mount.mount_path);
        mounted.places.push(mount.mount_path.clone());
        mounted.changed = true;
        let whole =
            [&mount.sub_path, &mount.sub_path_expr].iter().all(|path| path.as_deref().unwrap_or_default().is_empty());
        let Some(volume) = volumes.iter().find(|volume| volume.name == mount.name) else {
            left.push(format!("`{place}`"));
            continue;
        };
        if mount.mount_path.trim_end_matches('/') == TOKEN {
            notes.push("the copy has no service account and no token".to_owned());
            continue;
        }
        // What is there may be a file, which an empty volume can't stand for.
        if !whole || mount.name.starts_with(OWN) || mount.mount_path.starts_with(RESULTS_FOLDER) {
            left.push(format!("`{place}` ({})", kind(volume)));
            continue;
        }
        if named.insert(mount.name.as_str()) {
            let size_limit = volume.empty_dir.as_ref().and_then(|dir| dir.size_limit.clone());
            let medium = volume.empty_dir.as_ref().and_then(|dir| dir.medium.clone());
            let empty_dir =
                EmptyDirVolumeSource { medium, size_limit: size_limit.or_else(|| Some(Quantity("1Gi".to_owned()))) };
            mounted.volumes.push(Volume { name: mount.name.clone(), empty_dir: Some(empty_dir), ..Volume::default() });
        }
        emptied.push(format!("`{place}` ({})", kind(volume)));
        mounted.mounts.push(VolumeMount {
            name: mount.name.clone(),
            mount_path: mount.mount_path.clone(),
            read_only: mount.read_only,
            ..VolumeMount::default()
        });
    }
    for device in original.volume_devices.iter().flatten() {
        mounted.places.push(device.device_path.clone());
        left.push(format!("`{}` (a raw device)", brief(&device.device_path)));
    }
    if !emptied.is_empty() {
        notes.push(format!("empty in the copy, whatever the container has there: {}", emptied.join(", ")));
    }
    if !left.is_empty() {
        notes.push(format!("not mounted in the copy: {}", left.join(", ")));
    }
    mounted
}

/// What a volume is of, in words.
fn kind(volume: &Volume) -> String {
    let value = serde_json::to_value(volume).unwrap_or_default();
    let source = value.as_object().and_then(|fields| fields.keys().find(|key| *key != "name").cloned());
    match source.as_deref() {
        Some("emptyDir") | None => "a volume of the pod".to_owned(),
        Some("secret") => "a secret".to_owned(),
        Some("configMap") => "a config map".to_owned(),
        Some("persistentVolumeClaim") => "a claim".to_owned(),
        Some("hostPath") => "the node's files".to_owned(),
        Some(other) => other.to_owned(),
    }
}

fn resources(original: Option<&ResourceRequirements>, notes: &mut Vec<String>) -> ResourceRequirements {
    let mut limits = original.and_then(|r| r.limits.clone()).unwrap_or_default();
    let devices: Vec<String> = limits.keys().filter(|key| !LIMITS.contains(&key.as_str())).cloned().collect();
    limits.retain(|key, _| LIMITS.contains(&key.as_str()));
    if !devices.is_empty() || original.is_some_and(|r| r.claims.as_ref().is_some_and(|claims| !claims.is_empty())) {
        let named = if devices.is_empty() { "claimed devices".to_owned() } else { brief(&devices.join(", ")) };
        notes.push(format!("the copy has no {named}"));
    }
    let quantity = |text: &str| Quantity(text.to_owned());
    limits.entry("cpu".to_owned()).or_insert_with(|| quantity(DEFAULT_CPU));
    limits.entry("memory".to_owned()).or_insert_with(|| quantity(DEFAULT_MEMORY));
    let requests = [("cpu", ASKED_CPU), ("memory", ASKED_MEMORY)];
    ResourceRequirements {
        limits: Some(limits),
        requests: Some(requests.map(|(name, asked)| (name.to_owned(), quantity(asked))).into()),
        ..ResourceRequirements::default()
    }
}

fn default_profile() -> SeccompProfile {
    SeccompProfile { type_: "RuntimeDefault".to_owned(), localhost_profile: None }
}

/// The restricted standard's security context for the copied container, and whether it differs from the original's.
fn restricted(pod: &Pod, original: &Container, user: User, notes: &mut Vec<String>) -> (SecurityContext, bool) {
    let own = original.security_context.clone().unwrap_or_default();
    let of_pod = pod.spec.as_ref().and_then(|spec| spec.security_context.clone()).unwrap_or_default();
    let mut differs = Vec::new();
    if own.allow_privilege_escalation != Some(false) {
        differs.push("can't gain privileges");
    }
    let drops_all =
        own.capabilities.as_ref().and_then(|c| c.drop.as_ref()).is_some_and(|list| list.iter().any(|c| c == "ALL"));
    let adds = own.capabilities.as_ref().and_then(|c| c.add.as_ref()).is_some_and(|list| !list.is_empty());
    if !drops_all || adds {
        differs.push("has no capabilities");
    }
    let profile = own.seccomp_profile.as_ref().or(of_pod.seccomp_profile.as_ref());
    if profile.is_none_or(|profile| profile.type_ != "RuntimeDefault") {
        differs.push("has the runtime's seccomp profile");
    }
    let labelled = own.se_linux_options.is_some() || of_pod.se_linux_options.is_some();
    if labelled || own.app_armor_profile.is_some() || of_pod.app_armor_profile.is_some() {
        differs.push("has the node's default confinement");
    }
    let changed = !differs.is_empty();
    if changed {
        notes.push(format!("other than the container, the copy {}", differs.join(", ")));
    }
    let context = SecurityContext {
        run_as_non_root: Some(true),
        run_as_user: Some(user.uid),
        run_as_group: Some(user.gid),
        allow_privilege_escalation: Some(false),
        read_only_root_filesystem: own.read_only_root_filesystem,
        capabilities: Some(Capabilities { drop: Some(vec!["ALL".to_owned()]), add: None }),
        seccomp_profile: Some(default_profile()),
        ..SecurityContext::default()
    };
    (context, changed)
}

/// What every container of gapscan's in a copy may use.
pub(super) fn agent_resources() -> Value {
    json!({ "requests": { "cpu": ASKED_CPU, "memory": ASKED_MEMORY }, "limits": { "cpu": "500m", "memory": MEMORY } })
}

#[cfg(test)]
mod tests;
