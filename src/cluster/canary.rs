//! The canary: sees that NetworkPolicies are enforced, before anything else runs and whenever that may have changed.
//!
//! A network that does not enforce them accepts them in silence. So three pods of gapscan's own image are set up in the run's
//! namespace, and what they can reach of each other and of the API server is compared with what policies allow them: in both
//! directions, and with an allowance for one address and port as scans get it. `trial` says who tries what. All three listen, and
//! try to connect when they are told to by exec, so that nothing has to be started once their addresses are known.
//!
//! What no canary can try is looked at: policies of others in the namespace, which would allow more than gapscan asked for, and
//! policies that stand above NetworkPolicies.
//!
//! Whatever can't be decided counts as not enforced.

mod trial;

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde_json::{Value, json};

use self::trial::{OTHER_PORT, PORT, Role, Trial, Verdict, judge, trials};
use super::access::exec::{Caps, Place, exec_at};
use super::agent::probe::{Expected, ProbeReport};
use super::client::{Cluster, Token};
use super::error::ClusterError;
use super::identity::{Rights, ScanIdentity};
use super::namespace::ScanNamespace;
use super::network;
use super::network::standing::{self, Above, Standing};
use super::object::{Inventory, Kind, ObjectRef};
use super::objects::list;
use super::patience::Patience;
use super::pod::{self, Stage};
use super::pull::PullSecret;
use crate::model::provenance::NetworkProof;

/// The label that tells the canary's pods apart.
const ROLE: &str = "gapscan.dev/canary";
const MEMORY: &str = "64Mi";

/// How long the image may take to be pulled and a pod to start.
const START: Duration = Duration::from_secs(120);

/// How long the pods try: policies take a while to be programmed.
const PROBE: Duration = Duration::from_secs(20);

/// How long the command to try may take in all, with a busy node.
const ANSWER: Duration = Duration::from_secs(40);

/// How long a pod listens at most. It is removed long before; a runner that dies leaves one behind that ends.
const LIFE: Duration = Duration::from_secs(600);

/// How often the pods are looked at: one small answer.
const LOOK: Duration = Duration::from_millis(100);

/// Bytes of a report, far more than it has.
const REPORT: Caps = Caps { stdout: 256 << 10, stderr: 4 << 10 };

/// Where the gapscan image has its binary.
pub(crate) const BINARY: &str = "/gapscan";

/// gapscan's own image, and what the nodes pull it with.
#[derive(Clone, Copy, Debug)]
pub struct CanaryImage<'a> {
    /// By digest.
    pub name: &'a str,
    /// Where its registry asks.
    pub pull: Option<&'a PullSecret>,
}

/// What the canary found out.
#[derive(Debug)]
pub struct Proven {
    /// Whether policies are enforced.
    pub proof: NetworkProof,
    /// What stood in the namespaces when that was seen: if it is otherwise, the proof is void. `None` where it is not known.
    pub(crate) standing: Option<Standing>,
    /// What is to be removed.
    pub used: Used,
}

/// What a canary made. Nothing of it is needed any more, and nobody has to wait for it to be gone.
#[derive(Debug)]
pub struct Used {
    inventory: Inventory,
    identity: Option<ScanIdentity>,
}

/// What a removed canary leaves to be looked after at the end of the run.
#[derive(Debug)]
pub(crate) struct Remains {
    pub(crate) remaining: Vec<String>,
    pub(crate) tokens: Vec<(String, Token)>,
}

impl From<Inventory> for Used {
    fn from(inventory: Inventory) -> Self {
        Self { inventory, identity: None }
    }
}

impl Used {
    /// Removes what the canary made, and looks whether it is gone.
    pub(crate) async fn remove(self, cluster: &Cluster) -> Remains {
        let Self { inventory, identity } = self;
        let dismiss = async {
            match identity {
                Some(identity) => {
                    let (cleanup, tokens) = identity.dismiss(cluster).await;
                    (cleanup.remaining, tokens)
                }
                None => (Vec::new(), Vec::new()),
            }
        };
        let (made, (mut remaining, tokens)) = tokio::join!(inventory.remove(cluster), dismiss);
        remaining.extend(made.remaining);
        Remains { remaining, tokens }
    }
}

/// Sees whether NetworkPolicies are enforced in the run's namespace. `round` is a number that no other canary of the run has;
/// `others` are more namespaces of the run.
///
/// Never fails: what could not be decided is not enforced, and the detail says why.
///
/// # Cancel safety
/// Dropped half-way it leaves objects in the run's namespace, which go with it.
pub async fn prove(
    cluster: &Cluster,
    home: &ScanNamespace,
    others: &[&str],
    image: CanaryImage<'_>,
    round: u32,
) -> Proven {
    let mut canary = Canary {
        cluster,
        home,
        image,
        round,
        used: Used { inventory: Inventory::new(home.mark(None)), identity: None },
    };
    let namespaces: Vec<&str> = std::iter::once(home.name()).chain(others.iter().copied()).collect();
    let found = canary.find_out(&namespaces).await;
    let at = Timestamp::now();
    let undecided = |error: &ClusterError| NetworkProof {
        enforced: false,
        at,
        detail: format!("could not be decided: failed to {}", chain(error)),
        allowance: None,
    };
    let (proof, standing) = match found {
        Ok((verdict, standing)) => {
            let Verdict { enforced, allowance, detail } = verdict;
            (NetworkProof { enforced, at, detail, allowance }, Some(standing))
        }
        Err(error) => (undecided(&error), None),
    };
    Proven { proof, standing, used: canary.used }
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

struct Canary<'a> {
    cluster: &'a Cluster,
    home: &'a ScanNamespace,
    image: CanaryImage<'a>,
    round: u32,
    used: Used,
}

impl Canary<'_> {
    async fn find_out(&mut self, namespaces: &[&str]) -> Result<(Verdict, Standing), ClusterError> {
        // Before anything is tried: what changes while it is tried is found to have changed.
        let standing = standing::look(self.cluster, namespaces).await?;
        if let Some(why) = standing.refutes() {
            let detail = format!("not enforced: {why}");
            return Ok((Verdict { enforced: false, allowance: None, detail }, standing));
        }
        let above = match standing::above(self.cluster, self.home.name()).await? {
            Above::Nothing(note) => note,
            Above::MayAllow(names) => {
                let detail = format!(
                    "not enforced: these stand above NetworkPolicies and may let through what they deny: {}",
                    names.join(", ")
                );
                return Ok((Verdict { enforced: false, allowance: None, detail }, standing));
            }
        };
        let mut verdict = self.watch().await?;
        for note in std::iter::once(above).chain(standing.note()) {
            verdict.detail.push_str("; ");
            verdict.detail.push_str(&note);
        }
        Ok((verdict, standing))
    }

    async fn watch(&mut self) -> Result<Verdict, ClusterError> {
        let began = Instant::now();
        let servers = self.set_up().await?;
        tracing::debug!(after = ?began.elapsed(), "the canary's pods are asked for");
        let names = Role::ALL.map(|role| self.pod(role));
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let name = format!("canary-{}", self.round);
        let identity = ScanIdentity::of_run(self.cluster, self.home, &name, &names, Rights::Exec);
        let (addresses, identity) = tokio::join!(self.running(), identity);
        let identity = self.used.identity.insert(identity?);
        let addresses = addresses?;
        tracing::debug!(after = ?began.elapsed(), "the canary's pods run");
        let trials = trials(&addresses, &servers);
        let [prober, open, closed] = &trials;
        let (image, home, round) = (identity.cluster(), self.home.name(), self.round);
        let (prober, open, closed) = tokio::try_join!(
            tried(image, home, round, prober),
            tried(image, home, round, open),
            tried(image, home, round, closed)
        )?;
        tracing::debug!(after = ?began.elapsed(), "the canary has tried");
        Ok(judge(&trials, &[prober, open, closed]))
    }

    /// Makes policies and pods; gives the API server's addresses.
    async fn set_up(&mut self) -> Result<BTreeSet<SocketAddr>, ClusterError> {
        if let Some(pull) = self.image.pull {
            pull.create(self.cluster, self.home, &self.pull(), &mut self.used.inventory).await?;
        }
        let servers = api_servers(self.cluster).await?;
        let label = |role: Role| label(role, self.round);
        let [prober, open, closed] = Role::ALL.map(label);
        let [prober, open, closed] = [&prober, &open, &closed].map(|value| (ROLE, value.as_str()));
        let allowances = [
            ("egress", network::egress(prober, &[open, closed], PORT)),
            ("address", network::egress_to(prober, &servers)),
            ("reached", network::ingress(prober, &[open, closed], &[PORT])),
            ("open", network::ingress(open, &[prober], &[PORT, OTHER_PORT])),
            ("closed", network::egress(closed, &[prober], PORT)),
        ];
        for (name, policy) in allowances {
            let name = format!("canary-{}-{name}", self.round);
            let object = ObjectRef::namespaced(Kind::NetworkPolicy, self.home.name(), name);
            self.used.inventory.create(self.cluster, object, policy).await?;
        }
        for role in Role::ALL {
            let labels = json!({ ROLE: label(role) });
            let manifest = json!({ "metadata": { "labels": labels }, "spec": self.specification() });
            let object = ObjectRef::namespaced(Kind::Pod, self.home.name(), self.pod(role));
            self.used.inventory.create(self.cluster, object, manifest).await?;
        }
        Ok(servers)
    }

    fn pod(&self, role: Role) -> String {
        pod_name(role, self.round)
    }

    fn pull(&self) -> String {
        format!("pull-canary-{}", self.round)
    }

    fn specification(&self) -> Value {
        let (port, other, life) = (PORT.to_string(), OTHER_PORT.to_string(), LIFE.as_secs().to_string());
        let container = json!({
            "name": "canary",
            "image": self.image.name,
            "imagePullPolicy": "IfNotPresent",
            "command": [BINARY, "agent", "listen", "--port", port, "--port", other, "--deadline", life],
            "securityContext": pod::security(),
            "resources": { "requests": { "cpu": "10m", "memory": "16Mi" }, "limits": { "cpu": "500m", "memory": MEMORY } },
        });
        let mut specification = pod::specification(json!([container]));
        if self.image.pull.is_some() {
            specification["imagePullSecrets"] = PullSecret::reference(&self.pull());
        }
        specification
    }

    /// Waits until all pods run; gives the addresses of each, in the order of [`Role::ALL`].
    async fn running(&self) -> Result<[Vec<IpAddr>; 3], ClusterError> {
        let mut patience = Patience::new("the canary", START);
        let words: Vec<String> = Role::ALL.iter().map(|role| label(*role, self.round)).collect();
        let selector = format!("{ROLE} in ({})", words.join(","));
        let path = Kind::Pod.collection(Some(self.home.name()));
        loop {
            let query = [("labelSelector", selector.as_str())];
            let pods = list::<Pod>(self.cluster, "look at the canary's pods", &path, &query, 100).await?;
            let mut last = String::new();
            let mut found = [Vec::new(), Vec::new(), Vec::new()];
            for (role, ips) in Role::ALL.iter().zip(&mut found) {
                let name = self.pod(*role);
                let Some(pod) = pods.iter().find(|pod| pod.metadata.name.as_deref() == Some(&name)) else {
                    return Err(ClusterError::Evicted { message: format!("canary pod `{name}` is gone") });
                };
                match pod::stage(pod, "canary", MEMORY) {
                    Stage::Ended(error) => last = patience.bear(error, pod::credentials(pod))?,
                    Stage::Running => *ips = addresses(pod)?,
                    Stage::Starting(why) => last = why,
                }
            }
            if found.iter().all(|ips| !ips.is_empty()) {
                return Ok(found);
            }
            patience.wait(&last, LOOK).await?;
        }
    }
}

fn label(role: Role, round: u32) -> String {
    format!("{}-{round}", role.word())
}

fn pod_name(role: Role, round: u32) -> String {
    format!("canary-{round}-{}", role.word())
}

fn addresses(pod: &Pod) -> Result<Vec<IpAddr>, ClusterError> {
    let ips = pod.status.iter().flat_map(|status| status.pod_ips.iter().flatten());
    let parsed: Result<Vec<IpAddr>, _> = ips.map(|ip| ip.ip.parse()).collect();
    parsed.map_err(|source| ClusterError::malformed("read the canary's addresses", source))
}

/// Has one pod try, and reads what it saw.
async fn tried(cluster: &Cluster, namespace: &str, round: u32, trial: &Trial) -> Result<ProbeReport, ClusterError> {
    let pod = pod_name(trial.role, round);
    let deadline = PROBE.as_secs().to_string();
    let mut command =
        vec![BINARY.to_owned(), "agent".to_owned(), "probe".to_owned(), "--deadline".to_owned(), deadline];
    for (address, expected) in trial.wanted() {
        let flag = match expected {
            Expected::Open => "--open",
            Expected::Blocked => "--blocked",
        };
        command.extend([flag.to_owned(), address.to_string()]);
    }
    let command: Vec<&str> = command.iter().map(String::as_str).collect();
    let place = Place { namespace, pod: &pod, container: "canary", uid: None };
    let output = exec_at(cluster, &place, &command, None, REPORT, ANSWER).await?;
    let what = "read what the canary saw";
    if output.code != Some(0) {
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        return Err(ClusterError::malformed(what, format!("`{pod}` ended with {:?}: {said}", output.code)));
    }
    serde_json::from_slice(&output.stdout).map_err(|source| ClusterError::malformed(what, source))
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
