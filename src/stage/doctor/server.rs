//! What the API server and its nodes can do, and what scans need of it.

use jiff::{SignedDuration, Timestamp};

use super::check::{Check, Omitted};
use super::expiry::words;
use crate::cluster::error::ClusterError;
use crate::cluster::inspect::server::{NodeFacts, ServerFacts, Tried};

/// The minor version of Kubernetes 1 that gapscan's types are of.
const BUILT_FOR: u32 = 36;
/// Versions after it that its authors have seen.
const SEEN: u32 = 37;
/// Since this minor version policies for admission are there in version 1, which `gapscan install` writes.
const ADMISSION_POLICIES: u32 = 30;
/// Since this one image volumes can't be switched off.
const IMAGE_VOLUMES: u32 = 36;
/// Since this one containers that go on beside others can't be switched off.
const NATIVE_SIDECARS: u32 = 33;

/// Clocks that differ by more make entries of the ledger and of the audit log hard to put side by side.
const ASKEW: SignedDuration = SignedDuration::from_secs(30);
/// By more than this, tokens may be taken for expired or not yet valid.
const ASTRAY: SignedDuration = SignedDuration::from_secs(300);

pub(super) fn judge(subject: &str, facts: &ServerFacts) -> (Vec<Check>, Vec<Omitted>) {
    let (mut checks, mut omitted) = (vec![version(subject, facts)], Vec::new());
    let feature = |name, what: &str, tried: &Tried, since: u32, remedy: &str| match tried {
        Tried::Kept => Check::ok(name, subject, format!("{what}: the server takes them")),
        Tried::Dropped => Check::bad(name, subject, format!("{what}: the server drops them")).with_remedy(remedy),
        Tried::Refused(_) | Tried::Not(_) if facts.minor.is_some_and(|minor| minor >= since) => {
            Check::ok(name, subject, format!("{what}: in every server of this version"))
        }
        Tried::Refused(why) => Check::unknown(name, subject, format!("{what}: the trial was refused: {why}")),
        Tried::Not(why) => Check::unknown(name, subject, format!("{what}: it could not be tried: {why}")),
    };
    checks.push(feature(
        "server-image-volumes",
        "images as volumes, for targets and databases of scanners in pods",
        &facts.image_volume,
        IMAGE_VOLUMES,
        "switch on the feature gate ImageVolume (Kubernetes 1.33), or scan with the builtin engine only",
    ));
    checks.push(feature(
        "server-native-sidecars",
        "containers that start first and go on beside the others",
        &facts.native_sidecar,
        NATIVE_SIDECARS,
        "use Kubernetes 1.29 or later",
    ));
    let has = |name, group: &'static str, resource: &str, what: &str, remedy: &str| match facts.resources.get(group) {
        Some(Ok(all)) if all.contains(resource) => {
            Check::ok(name, subject, format!("{what}: the server has {resource}"))
        }
        Some(Ok(_)) => Check::bad(name, subject, format!("{what}: the server has no {resource}")).with_remedy(remedy),
        Some(Err(why)) => Check::unknown(name, subject, format!("{what}: {why}")),
        None => Check::unknown(name, subject, format!("{what}: not asked for")),
    };
    checks.push(has(
        "server-ephemeral-containers",
        "v1",
        "pods/ephemeralcontainers",
        "the approach debug",
        "use Kubernetes 1.25 or later, or allow only other approaches in policy.approaches",
    ));
    checks.push(has(
        "server-projected-tokens",
        "v1",
        "serviceaccounts/token",
        "identities for one scan",
        "use Kubernetes 1.22 or later",
    ));
    checks.push(has(
        "server-network-policies",
        "networking.k8s.io/v1",
        "networkpolicies",
        "default-deny for scans",
        "without it the network can't be closed, and nothing runs unless policy.unenforcedNetwork is record",
    ));
    let policies = has(
        "server-admission-policies",
        "admissionregistration.k8s.io/v1",
        "validatingadmissionpolicies",
        "what holds the runner back beyond RBAC",
        "use Kubernetes 1.30 or later; before it `gapscan install` can't bind the runner",
    );
    checks.push(policies);
    match &facts.privileged {
        Tried::Refused(why) if why.contains("violates PodSecurity") => {
            checks.push(Check::ok(
                "server-pod-security",
                subject,
                "a privileged pod was refused in a restricted namespace",
            ));
        }
        Tried::Kept | Tried::Dropped => checks.push(
            Check::bad("server-pod-security", subject, "a privileged pod was accepted in a restricted namespace")
                .with_remedy("switch on the admission plugin PodSecurity"),
        ),
        Tried::Refused(why) => checks.push(Check::unknown(
            "server-pod-security",
            subject,
            format!("a privileged pod was refused, though not for being one: {why}"),
        )),
        Tried::Not(why) => {
            omitted
                .push(Omitted::new("server-pod-security", format!("{why}; --canary makes such a namespace and tries")));
        }
    }
    match &facts.nodes {
        Ok(nodes) if nodes.is_empty() => {
            checks.push(Check::bad("server-nodes", subject, "the cluster has no node, and nothing can run"));
        }
        Ok(nodes) => checks.extend(nodes.iter().map(|one| node(one, facts.minor))),
        Err(ClusterError::Denied { .. }) => {
            omitted.push(Omitted::new("server-nodes", "this identity may not list nodes, and scans need not"));
        }
        Err(error) => checks.push(Check::unseen("server-nodes", subject, error)),
    }
    (checks, omitted)
}

fn version(subject: &str, facts: &ServerFacts) -> Check {
    const NAME: &str = "server-version";
    let shown = format!("Kubernetes {}", facts.version);
    match facts.minor {
        None => Check::unknown(NAME, subject, format!("{shown}, whose minor version is no number")),
        Some(minor) if minor > SEEN => {
            let detail = format!("{shown}, and this gapscan was made for 1.{BUILT_FOR} and knows up to 1.{SEEN}");
            Check::warn(NAME, subject, detail).with_remedy("look for a newer gapscan")
        }
        Some(minor) if minor < ADMISSION_POLICIES => {
            let detail = format!("{shown}, before 1.{ADMISSION_POLICIES}: nothing binds the runner beyond RBAC");
            Check::warn(NAME, subject, detail).with_remedy("use a version that its makers still mend")
        }
        Some(_) => Check::ok(NAME, subject, format!("{shown}; this gapscan was made for 1.{BUILT_FOR}")),
    }
}

/// The first version of a runtime that mounts images as volumes.
fn mounts_images(runtime: &str) -> Option<bool> {
    let (name, version) = runtime.split_once("://")?;
    let mut numbers = version.split(['.', '-', '+']).map(|part| part.parse::<u32>().ok());
    let version = (numbers.next()??, numbers.next()??);
    match name {
        "containerd" => Some(version >= (2, 1)),
        "cri-o" => Some(version >= (1, 31)),
        _ => None,
    }
}

fn node(node: &NodeFacts, server: Option<u32>) -> Check {
    const NAME: &str = "server-nodes";
    let subject = format!("node/{}", node.name);
    let shown = format!("kubelet {}, {}", node.kubelet, node.runtime);
    if !node.ready {
        let check = Check::warn(NAME, subject, format!("{shown}; it is not ready, and nothing on it can be reached"));
        return check.with_remedy("see what it lacks: kubectl describe node");
    }
    let minor = node.kubelet.trim_start_matches('v').split('.').nth(1).and_then(|minor| minor.parse::<u32>().ok());
    // Kubernetes version skew policy: a kubelet may be up to three minor versions older, and not newer.
    if let (Some(minor), Some(server)) = (minor, server)
        && (minor > server || minor + 3 < server)
    {
        let detail = format!("{shown}, which Kubernetes does not support with a server of 1.{server}");
        return Check::warn(NAME, subject, detail).with_remedy("bring the node to the server's version");
    }
    match mounts_images(&node.runtime) {
        Some(true) => Check::ok(NAME, subject, shown),
        Some(false) => {
            Check::bad(NAME, subject, format!("{shown}, which mounts no images: scanners in pods can't start"))
                .with_remedy("use containerd 2.1 or CRI-O 1.31 or later, or scan with the builtin engine only")
        }
        None => Check::unknown(NAME, subject, format!("{shown}: whether it mounts images is not known")),
    }
}

/// The server's clock beside this machine's, `now` being read right after the answer came.
pub(super) fn judge_clock(subject: &str, server: Option<Timestamp>, now: Timestamp) -> Check {
    const NAME: &str = "server-clock";
    let Some(server) = server else {
        return Check::unknown(NAME, subject, "its answers have no date");
    };
    let apart = now.duration_since(server);
    let (apart, which) =
        if apart < SignedDuration::ZERO { (-apart, "behind the server's") } else { (apart, "ahead of the server's") };
    let detail = format!("this machine's clock is {} {which}", words(apart));
    let remedy = "set both by one time service";
    match apart {
        apart if apart > ASTRAY => {
            Check::bad(NAME, subject, format!("{detail}: tokens may be refused")).with_remedy(remedy)
        }
        apart if apart > ASKEW => Check::warn(NAME, subject, detail).with_remedy(remedy),
        _ => Check::ok(NAME, subject, format!("it says {server}, as this machine's clock does")),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::super::check::State;
    use super::*;

    fn good() -> ServerFacts {
        let set = |names: &[&str]| Ok(names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>());
        ServerFacts {
            version: "v1.36.2".to_owned(),
            minor: Some(36),
            resources: BTreeMap::from([
                ("v1", set(&["pods/ephemeralcontainers", "serviceaccounts/token"])),
                ("networking.k8s.io/v1", set(&["networkpolicies"])),
                ("admissionregistration.k8s.io/v1", set(&["validatingadmissionpolicies"])),
            ]),
            image_volume: Tried::Kept,
            native_sidecar: Tried::Kept,
            privileged: Tried::Refused("pods x is forbidden: violates PodSecurity \"restricted\"".to_owned()),
            nodes: Ok(vec![NodeFacts {
                name: "n".to_owned(),
                kubelet: "v1.36.0".to_owned(),
                runtime: "containerd://2.1.4".to_owned(),
                ready: true,
            }]),
        }
    }

    fn worse(change: impl FnOnce(&mut ServerFacts)) -> Vec<(&'static str, State)> {
        let mut facts = good();
        change(&mut facts);
        let (checks, _) = judge("s", &facts);
        checks.into_iter().filter(|check| check.state != State::Ok).map(|check| (check.name, check.state)).collect()
    }

    #[test]
    fn what_scans_need_is_there_or_named() {
        use State::{Bad, Unknown, Warn};
        assert_eq!(worse(|_| {}), []);
        let far = worse(|f| {
            f.minor = Some(99);
            f.nodes = Err(ClusterError::from_status("list", 403, String::new()));
        });
        assert_eq!(far, [("server-version", Warn)]);
        assert_eq!(worse(|f| f.minor = None), [("server-version", Unknown)]);
        assert_eq!(worse(|f| f.image_volume = Tried::Dropped), [("server-image-volumes", Bad)]);
        let refused = || Tried::Refused("no".to_owned());
        assert_eq!(worse(|f| f.image_volume = refused()), [], "by its version it has them");
        let old = worse(|f| {
            f.minor = Some(34);
            f.image_volume = refused();
            f.nodes = Err(ClusterError::from_status("list", 403, String::new()));
        });
        assert_eq!(old, [("server-image-volumes", Unknown)]);
        assert_eq!(worse(|f| f.privileged = Tried::Kept), [("server-pod-security", Bad)]);
        assert_eq!(worse(|f| f.privileged = refused()), [("server-pod-security", Unknown)]);
        assert_eq!(worse(|f| f.privileged = Tried::Not(String::new())), [], "it is among what was not looked at");
        let without = worse(|f| {
            f.resources.insert("networking.k8s.io/v1", Ok(BTreeSet::new()));
            f.resources.insert("admissionregistration.k8s.io/v1", Err("silent".to_owned()));
        });
        assert_eq!(without, [("server-network-policies", Bad), ("server-admission-policies", Unknown)]);
        let node = |change: fn(&mut NodeFacts)| worse(|f| change(&mut f.nodes.as_mut().expect("nodes")[0]));
        assert_eq!(node(|n| n.ready = false), [("server-nodes", Warn)]);
        assert_eq!(node(|n| n.kubelet = "v1.31.0".to_owned()), [("server-nodes", Warn)]);
        assert_eq!(node(|n| n.runtime = "containerd://1.7.20".to_owned()), [("server-nodes", Bad)]);
        assert_eq!(node(|n| n.runtime = "docker://99".to_owned()), [("server-nodes", Unknown)]);
        assert_eq!(worse(|f| f.nodes = Ok(Vec::new())), [("server-nodes", Bad)]);
    }

    #[test]
    fn clocks_are_compared() {
        let at = |second| Timestamp::from_second(second).expect("a time");
        let state = |server: i64, now: i64| judge_clock("s", Some(at(server)), at(now)).state;
        assert_eq!(state(1000, 1001), State::Ok);
        assert_eq!(state(1000, 1031), State::Warn);
        assert_eq!(state(1031, 1000), State::Warn);
        assert_eq!(state(1000, 1301), State::Bad);
        assert_eq!(judge_clock("s", None, at(0)).state, State::Unknown);
    }
}
