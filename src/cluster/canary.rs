//! The canary: sees that NetworkPolicies are enforced, before anything else runs.
//!
//! A network that does not enforce them accepts them in silence. So four pods of gapscan's own image are set up in the
//! run's namespace: a listener that may be reached and one that may not; a prober that may reach both as far as egress
//! goes, and one that may reach nothing. It must hold that
//! 1. the first prober reaches the first listener: without this, "blocked" would mean nothing;
//! 2. it does not reach the second, which is known to listen: ingress is enforced;
//! 3. the second prober does not reach the first listener: egress is enforced;
//! 4. neither prober reaches the API server.
//!
//! Whatever can't be decided counts as not enforced.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde_json::{Value, json};

use super::agent::probe::{Expected, ProbeReport, Seen};
use super::client::Cluster;
use super::error::ClusterError;
use super::namespace::ScanNamespace;
use super::network;
use super::object::{Inventory, Kind, ObjectRef};
use super::objects::list;
use super::pod::{self, Stage};
use super::pull::PullSecret;
use crate::model::provenance::NetworkProof;

/// The label that tells the canary's pods apart.
const ROLE: &str = "gapscan.dev/canary";
const PORT: u16 = 8080;
const MEMORY: &str = "64Mi";

/// How long the image may take to be pulled and a pod to start.
const START: Duration = Duration::from_secs(120);

/// How long the probers wait for policies to be programmed.
const PROBE: Duration = Duration::from_secs(20);

/// How often a pod is looked at.
const LOOK: Duration = Duration::from_millis(300);

/// The secret that the canary's image is pulled with.
const PULL: &str = "pull-canary";

/// Where the gapscan image has its binary.
pub(crate) const BINARY: &str = "/gapscan";

/// Sees whether NetworkPolicies are enforced in the run's namespace. `image` is gapscan's own, by digest; `pull` is what the
/// nodes pull it with, where its registry asks.
///
/// Never fails: what could not be decided is not enforced, and the detail says why. What it could not remove again is
/// reported by [`ScanNamespace::remove`].
pub async fn prove(
    cluster: &Cluster,
    home: &ScanNamespace,
    image: &str,
    pull: Option<&PullSecret>,
    now: Timestamp,
) -> NetworkProof {
    let mut inventory = Inventory::new(home.mark(None));
    let outcome = watch(cluster, home, &Image { name: image, pull }, &mut inventory).await;
    home.leave(inventory.remove(cluster).await.remaining);
    let (enforced, detail) = match outcome {
        Ok(verdict) => (verdict.enforced, verdict.detail),
        Err(error) => (false, format!("could not be decided: failed to {}", chain(&error))),
    };
    NetworkProof { enforced, at: now, detail }
}

fn chain(error: &ClusterError) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    crate::base::text::printable(&text).into_owned()
}

/// gapscan's own image, and what it is pulled with.
struct Image<'a> {
    name: &'a str,
    pull: Option<&'a PullSecret>,
}

#[derive(Debug, PartialEq, Eq)]
struct Verdict {
    enforced: bool,
    detail: String,
}

async fn watch(
    cluster: &Cluster,
    home: &ScanNamespace,
    image: &Image<'_>,
    inventory: &mut Inventory,
) -> Result<Verdict, ClusterError> {
    if let Some(pull) = image.pull {
        pull.create(cluster, home, PULL, inventory).await?;
    }
    let servers = api_servers(cluster).await?;
    let allowances = [
        ("canary-egress", network::egress((ROLE, "prober"), &[(ROLE, "open"), (ROLE, "closed")], PORT)),
        ("canary-ingress", network::ingress((ROLE, "open"), &[(ROLE, "prober"), (ROLE, "stranger")], PORT)),
    ];
    for (name, policy) in allowances {
        inventory.create(cluster, ObjectRef::namespaced(Kind::NetworkPolicy, home.name(), name), policy).await?;
    }
    for role in ["open", "closed"] {
        start(cluster, home, inventory, role, listener(image)).await?;
    }
    let open = ready(cluster, home, "open").await?;
    let closed = ready(cluster, home, "closed").await?;
    let mut prober: Vec<(SocketAddr, Expected)> = open.iter().map(|at| (*at, Expected::Open)).collect();
    prober.extend(closed.iter().chain(&servers).map(|at| (*at, Expected::Blocked)));
    let stranger: Vec<_> = open.iter().chain(&servers).map(|at| (*at, Expected::Blocked)).collect();
    start(cluster, home, inventory, "prober", prober_pod(image, &prober)).await?;
    start(cluster, home, inventory, "stranger", prober_pod(image, &stranger)).await?;
    let first = report(cluster, home, "prober").await?;
    let second = report(cluster, home, "stranger").await?;
    let asked = |wanted: &[(SocketAddr, Expected)], got: &ProbeReport| {
        wanted.len() == got.probes.len()
            && wanted.iter().zip(&got.probes).all(|(want, got)| *want == (got.address, got.expected))
    };
    if !asked(&prober, &first) || !asked(&stranger, &second) {
        return Err(ClusterError::malformed("read what the canary saw", "it is not about what was asked"));
    }
    Ok(judge(&first, &second, &servers))
}

/// Pure: what both reports mean.
fn judge(prober: &ProbeReport, stranger: &ProbeReport, servers: &BTreeSet<SocketAddr>) -> Verdict {
    let is_server = |at: SocketAddr| servers.contains(&at);
    let mut done = Vec::new();
    let mut wrong = Vec::new();
    let mut undecided = Vec::new();
    for (who, report) in [("an allowed pod", prober), ("a pod without allowance", stranger)] {
        for probe in &report.probes {
            let whom = match (is_server(probe.address), probe.expected, who) {
                (true, ..) => "the API server",
                (_, Expected::Open, _) => "a listener that it may reach",
                (_, Expected::Blocked, "an allowed pod") => "a listener without ingress",
                (_, Expected::Blocked, _) => "a listener, without egress",
            };
            let line = format!("{who} to {whom} at {}", probe.address);
            match (probe.holds(), probe.expected, probe.seen) {
                (true, Expected::Open, _) => done.push(format!("{line}: connected")),
                (true, Expected::Blocked, _) => done.push(format!("{line}: blocked")),
                (false, Expected::Blocked, Seen::Open) => wrong.push(format!("{line}: connected")),
                (false, _, seen) => undecided.push(format!("{line}: {seen:?}, not stable").to_lowercase()),
            }
        }
    }
    // With nothing that must connect or nothing that must not, there is no proof, whatever holds.
    let has = |expected| prober.probes.iter().any(|probe| probe.expected == expected);
    if !has(Expected::Open) || !has(Expected::Blocked) || servers.is_empty() || stranger.probes.is_empty() {
        undecided.push("there was not enough to try".to_owned());
    }
    if !wrong.is_empty() {
        return Verdict { enforced: false, detail: format!("not enforced: {}", wrong.join("; ")) };
    }
    if !undecided.is_empty() {
        return Verdict { enforced: false, detail: format!("could not be decided: {}", undecided.join("; ")) };
    }
    Verdict { enforced: true, detail: done.join("; ") }
}

/// The API server's own addresses: most networks match policies after the service's address was translated to them.
///
/// # Errors
/// When the cluster denies to list them, or can't be reached, or there are none.
pub async fn api_servers(cluster: &Cluster) -> Result<BTreeSet<SocketAddr>, ClusterError> {
    let what = "read the API server's addresses";
    let path = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices";
    let query = [("labelSelector", "kubernetes.io/service-name=kubernetes")];
    let slices = list::<EndpointSlice>(cluster, what, path, &query, 100).await?;
    let mut addresses = BTreeSet::new();
    for slice in &slices {
        let ports = slice.ports.iter().flatten().filter_map(|port| u16::try_from(port.port?).ok());
        for port in ports {
            for ip in slice.endpoints.iter().flatten().flat_map(|endpoint| &endpoint.addresses) {
                let ip: IpAddr = ip.parse().map_err(|source| ClusterError::malformed(what, source))?;
                addresses.insert(SocketAddr::new(ip, port));
            }
        }
    }
    if addresses.is_empty() {
        return Err(ClusterError::malformed(what, "there are none"));
    }
    Ok(addresses)
}

async fn start(
    cluster: &Cluster,
    home: &ScanNamespace,
    inventory: &mut Inventory,
    role: &str,
    specification: Value,
) -> Result<(), ClusterError> {
    let manifest = json!({ "metadata": { "labels": { ROLE: role } }, "spec": specification });
    inventory.create(cluster, object(home, role), manifest).await.map(|_| ())
}

fn object(home: &ScanNamespace, role: &str) -> ObjectRef {
    ObjectRef::namespaced(Kind::Pod, home.name(), format!("canary-{role}"))
}

fn container(image: &Image<'_>, arguments: Vec<String>) -> Value {
    let mut command = vec![BINARY.to_owned(), "agent".to_owned()];
    command.extend(arguments);
    json!({
        "name": "canary",
        "image": image.name,
        "imagePullPolicy": "IfNotPresent",
        "command": command,
        "securityContext": pod::security(),
        "resources": { "requests": { "cpu": "10m", "memory": "16Mi" }, "limits": { "cpu": "500m", "memory": MEMORY } },
    })
}

fn specification(image: &Image<'_>, container: Value) -> Value {
    let mut specification = pod::specification(json!([container]));
    if image.pull.is_some() {
        specification["imagePullSecrets"] = PullSecret::reference(PULL);
    }
    specification
}

fn listener(image: &Image<'_>) -> Value {
    let port = PORT.to_string();
    let mut container = container(image, vec!["listen".to_owned(), "--port".to_owned(), port]);
    // By exec, since the kubelet's network probes may be blocked themselves. A pod reaches its own loopback always.
    let local = format!("127.0.0.1:{PORT}");
    container["readinessProbe"] = json!({
        "exec": { "command": [BINARY, "agent", "probe", "--open", local, "--deadline", "5"] },
        "periodSeconds": 1, "timeoutSeconds": 8,
    });
    specification(image, container)
}

fn prober_pod(image: &Image<'_>, wanted: &[(SocketAddr, Expected)]) -> Value {
    let report = "/dev/termination-log";
    let mut arguments = vec!["probe".to_owned(), "--report".to_owned(), report.to_owned(), "--deadline".to_owned()];
    arguments.push(PROBE.as_secs().to_string());
    for (address, expected) in wanted {
        let flag = match expected {
            Expected::Open => "--open",
            Expected::Blocked => "--blocked",
        };
        arguments.extend([flag.to_owned(), address.to_string()]);
    }
    let mut container = container(image, arguments);
    container["terminationMessagePath"] = json!(report);
    specification(image, container)
}

/// Waits for a listener to take connections; gives all its addresses.
async fn ready(cluster: &Cluster, home: &ScanNamespace, role: &str) -> Result<Vec<SocketAddr>, ClusterError> {
    let object = object(home, role);
    let mut last = String::new();
    let pod = follow(cluster, &object, START, |pod| {
        let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
        let is_ready = conditions.into_iter().any(|one| one.type_ == "Ready" && one.status == "True");
        match pod::stage(pod, "canary", MEMORY) {
            Stage::Ended(error) => return Err(error),
            Stage::Running => last = "it is not ready".to_owned(),
            Stage::Starting(why) => last = why,
        }
        Ok(is_ready)
    })
    .await?;
    let Some(pod) = pod else {
        return Err(ClusterError::NotStarted { message: format!("canary pod `{role}`: {last}") });
    };
    let ips = pod.status.and_then(|status| status.pod_ips).unwrap_or_default();
    let parsed: Result<Vec<IpAddr>, _> = ips.iter().map(|ip| ip.ip.parse()).collect();
    let what = "read the canary's addresses";
    let ips = parsed.map_err(|source| ClusterError::malformed(what, source))?;
    Ok(ips.into_iter().map(|ip| SocketAddr::new(ip, PORT)).collect())
}

/// Waits for a prober to end; gives what it saw.
async fn report(cluster: &Cluster, home: &ScanNamespace, role: &str) -> Result<ProbeReport, ClusterError> {
    let object = object(home, role);
    let ended = follow(cluster, &object, START + PROBE, |pod| match termination(pod) {
        Some((0, _)) => Ok(true),
        _ => match pod::stage(pod, "canary", MEMORY) {
            Stage::Ended(error) => Err(error),
            Stage::Running | Stage::Starting(_) => Ok(false),
        },
    })
    .await?;
    let Some(pod) = ended else {
        return Err(ClusterError::NotStarted { message: format!("canary pod `{role}` did not end") });
    };
    let (_, message) = termination(&pod).unwrap_or_default();
    serde_json::from_str(&message).map_err(|source| ClusterError::malformed("read what the canary saw", source))
}

fn termination(pod: &Pod) -> Option<(i32, String)> {
    let ended = pod.status.as_ref()?.container_statuses.as_ref()?.first()?.state.as_ref()?.terminated.as_ref()?;
    Some((ended.exit_code, ended.message.clone().unwrap_or_default()))
}

/// Reads the pod again and again until `done` says so.
async fn follow(
    cluster: &Cluster,
    object: &ObjectRef,
    deadline: Duration,
    mut done: impl FnMut(&Pod) -> Result<bool, ClusterError>,
) -> Result<Option<Pod>, ClusterError> {
    let began = Instant::now();
    loop {
        let pod: Pod = cluster.get(&format!("read {object}"), object.path()).await?;
        if done(&pod)? {
            return Ok(Some(pod));
        }
        if began.elapsed() >= deadline {
            return Ok(None);
        }
        tokio::time::sleep(LOOK).await;
    }
}

#[cfg(test)]
mod tests;
