//! Plans: what is scanned, with what, when, and under which policy.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::blackout::Blackout;
use super::schedule::Schedule;
use crate::base::document::{self, ApiVersion, Document, DocumentError};
use crate::base::exit::{Classify, ExitClass};
use crate::base::limits::Limits;
use crate::base::quantity::Span;
use crate::base::text::brief;
use crate::cluster::access::node::Toleration;
use crate::model::access::Way;
use crate::model::scanner::BUILTIN;
use crate::model::target::TargetSpec;
use crate::registry::{Authority, Prefix, Reference};

/// A `kind: Plan` document. Paths in it are relative to its own folder.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct PlanDocument {
    /// `gapscan/v1`
    pub api_version: ApiVersion,
    /// `Plan`
    pub kind: String,
    /// Lower-case letters, digits and hyphens.
    pub name: String,
    /// The ledger; [`Access::ledger`] without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ledger: Option<PathBuf>,
    /// The cluster. Without it: the kubeconfig that kubectl would use, or the pod's own service account.
    #[serde(default)]
    pub cluster: ClusterAccess,
    /// The loaded bundle that scanners, profiles and databases come from. Without it only the built-in profiles are there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bundle: Option<BundleSource>,
    /// How registries are reached, by `HOST[:PORT]`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub registries: BTreeMap<String, RegistryAccess>,
    /// What is allowed, and how much at once.
    #[serde(default)]
    pub policy: Policy,
    /// The scans, each with its own targets and schedule.
    pub scans: Vec<PlannedScan>,
}

impl Document for PlanDocument {
    const KIND: &'static str = "Plan";
}

/// How the cluster is reached.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct ClusterAccess {
    /// A kubeconfig file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kubeconfig: Option<PathBuf>,
    /// A context in it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub context: Option<String>,
    /// A Docker configuration (`config.json`) for the nodes. Of each registry that the pods of a scan are pulled from, its
    /// entry, and no other, is in a secret of the scan's namespace while the scan goes on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pull_config_file: Option<PathBuf>,
}

/// Where a loaded bundle is, and who vouches for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct BundleSource {
    /// The bundle's name.
    pub name: String,
    /// The registry that it was loaded into: `HOST[:PORT][/PREFIX]`.
    pub registry: String,
    /// The pinned root.
    pub root: PathBuf,
    /// Where versions that were seen are remembered; [`Access::default_state`] without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<PathBuf>,
}

/// How one registry is reached.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct RegistryAccess {
    /// CA certificates in PEM that its certificate must chain to, besides those of the system.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// A user; needs `passwordFile`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// A file with the password.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password_file: Option<PathBuf>,
    /// The certificate (PEM, with its chain) that this client shows; needs `clientKeyFile`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_cert_file: Option<PathBuf>,
    /// The unencrypted key of that certificate (PEM).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_key_file: Option<PathBuf>,
    /// Other hosts that the credentials may be sent to for a token.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub token_hosts: Vec<String>,
    /// Blobs are pushed in chunks of so many bytes, for a proxy that limits the size of a request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chunk_bytes: Option<NonZeroUsize>,
    /// HTTP without TLS. Refused for anything but loopback addresses.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub plain_http: bool,
}

/// What is allowed, and how much at once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct Policy {
    /// What happens where NetworkPolicies are not proven to be enforced.
    pub unenforced_network: Unenforced,
    /// How it is kept proven that they are.
    pub network: NetworkWatch,
    /// How containers are looked at from beside them.
    pub debug: DebugPolicy,
    /// The ways in which a container may be reached, those that are tried first in front.
    pub approaches: Vec<Way>,
    /// How nodes may be reached.
    pub node: NodePolicy,
    /// How old a database may be where the bundle does not say it. A database without a date is always too old.
    pub database_max_age: Span,
    /// How many targets are scanned at once, in all.
    pub parallel: usize,
    /// How many of them on one node.
    pub per_node: NonZeroUsize,
    /// How many of them of one workload: pods that have one controller.
    pub per_workload: NonZeroUsize,
    /// The share of the nodes' CPU that the pods of scans may ask for at once, in percent: of all nodes together and of each.
    /// A scanner that asks for more gets no more than that.
    pub cpu_percent: u8,
    /// When what fails again and again is left alone for a while.
    pub breakers: BreakerPolicy,
    /// When a runner that starts takes up a run whose runner had died.
    pub resume: ResumePolicy,
    /// How results come out of pods.
    #[serde(skip_serializing_if = "ResultsPolicy::is_default")]
    pub results: ResultsPolicy,
    /// When nothing is started.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub blackout: Vec<Blackout>,
    /// How long one target may take, its clean-up not counted.
    pub deadline: Span,
}

const TWO: NonZeroUsize = NonZeroUsize::new(2).expect("two is not zero");
const THREE: NonZeroUsize = NonZeroUsize::new(3).expect("three is not zero");
const FOUR: NonZeroUsize = NonZeroUsize::new(4).expect("four is not zero");

/// When what fails again and again is left alone for a while, instead of failing for each target anew. Then one may try; if
/// that fails too, the pause doubles, up to a minute.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct BreakerPolicy {
    /// After so many failures in a row to reach the API server, the cluster is.
    pub cluster: NonZeroUsize,
    /// After so many failures in a row to reach or pull from it, a registry is.
    pub registry: NonZeroUsize,
    /// After failures of so many different targets on it, with no success between them, a node is.
    pub node: NonZeroUsize,
    /// The same of a workload.
    pub workload: NonZeroUsize,
    /// After so many failures in a row, a target is.
    pub target: NonZeroUsize,
    /// For so long at first. At least 1s.
    pub pause: Span,
    /// What waits is given up when it has not worked again for so long.
    pub patience: Span,
}

impl Default for BreakerPolicy {
    fn default() -> Self {
        Self {
            cluster: THREE,
            registry: THREE,
            node: THREE,
            workload: THREE,
            target: TWO,
            pause: Span::seconds(10),
            patience: Span::seconds(5 * 60),
        }
    }
}

/// When `serve` takes up a run whose runner had died, instead of recording what is missing of it as not evaluated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct ResumePolicy {
    /// A run that began longer ago is not: what it found then and what it would find now are no one picture. `0s` for never.
    pub within: Span,
    /// A run is taken up so often at most: one during which the runner dies again and again may be the cause of it.
    pub times: usize,
}

impl Default for ResumePolicy {
    fn default() -> Self {
        Self { within: Span::seconds(6 * 3600), times: 3 }
    }
}

impl Policy {
    /// Until when at least nothing is to be started, if that is so at `now`.
    pub fn blackout_until(&self, now: Timestamp) -> Option<Timestamp> {
        self.blackout.iter().filter_map(|blackout| blackout.until(now)).max()
    }
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            unenforced_network: Unenforced::Refuse,
            network: NetworkWatch::default(),
            debug: DebugPolicy::default(),
            // Not by the image: what was changed in the running container since it started would pass unseen. Whoever wants that says so.
            approaches: vec![Way::Exec, Way::Debug],
            node: NodePolicy::default(),
            database_max_age: Span::days(30),
            parallel: 4,
            per_node: FOUR,
            per_workload: FOUR,
            cpu_percent: 50,
            breakers: BreakerPolicy::default(),
            resume: ResumePolicy::default(),
            results: ResultsPolicy::default(),
            blackout: Vec::new(),
            deadline: Span::seconds(15 * 60),
        }
    }
}

/// How it is kept proven that NetworkPolicies are enforced. Whatever is said here, it is proven before anything runs, and again
/// when somebody else changed policies in the run's namespaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct NetworkWatch {
    /// How long a proof is good for in a run that takes longer. At least 10s.
    pub prove_every: Span,
}

impl Default for NetworkWatch {
    fn default() -> Self {
        Self { prove_every: Span::seconds(30 * 60) }
    }
}

/// How containers are looked at from beside them, by an ephemeral container, which lives in the target's own network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct DebugPolicy {
    /// Whether the target's pod is cut off from the network while it is looked at.
    pub isolate: Isolate,
}

/// Whether the target's pod is cut off from the network while it is looked at from beside it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Isolate {
    /// No: what policies restrict of its network is recorded.
    #[default]
    Never,
    /// Yes, by a temporary policy for that pod alone: **the application in it has no network for as long as this takes**. Where
    /// another policy allows it anything, or another pod has the same labels, it is not looked at in this way.
    Required,
}

/// How the results of scanners in pods of their own get to the runner.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct ResultsPolicy {
    /// Which way.
    pub transport: Transport,
    /// `HOST:PORT` at which pods reach the runner, for `upload`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
}

impl ResultsPolicy {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// A way for results.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Transport {
    /// The runner fetches them by running a command in the scanner's pod.
    #[default]
    Exec,
    /// The pod sends them to the runner by HTTPS.
    Upload,
}

/// How nodes may be reached.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct NodePolicy {
    /// The taints that do not keep a scan off a node. Without any, a node that is tainted or cordoned is not evaluated.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tolerate: Vec<Toleration>,
}

/// What happens where NetworkPolicies are not proven to be enforced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Unenforced {
    /// Nothing is run in the cluster; what was expected is recorded as not evaluated.
    Refuse,
    /// It is run, and the record says that the network was open.
    Record,
}

/// One scan of a plan.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct PlannedScan {
    /// Unique in the plan.
    pub name: String,
    /// What is scanned.
    #[serde(flatten)]
    pub selection: Selection,
    /// Which of the scans that are to run at the same time goes first.
    #[serde(default)]
    pub priority: Priority,
    /// When. Without it the scan runs only when it is asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<Schedule>,
}

/// Which scan of a plan goes first. Those of the same priority go in the order in which they are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Priority {
    /// Before the others.
    High,
    /// Neither.
    #[default]
    Normal,
    /// After the others.
    Low,
}

/// What is scanned, and with what.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Selection {
    /// Targets by name.
    pub targets: Vec<TargetSpec>,
    /// The cluster's objects, every container of every pod, and every image that runs.
    pub all: bool,
    /// Every node of the cluster, which `all` does not include.
    pub nodes: bool,
    /// Every container of the pods with these labels, as `app=web,tier!=db`, in all namespaces.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub selector: Option<String>,
    /// The engines: `builtin` and names of scanners in the bundle; `all` for all of them.
    pub engines: Vec<String>,
    /// The profiles by name. Without any, all that the engines have for the target's kind.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub profiles: Vec<String>,
}

impl Default for Selection {
    fn default() -> Self {
        Self {
            targets: Vec::new(),
            all: false,
            nodes: false,
            selector: None,
            engines: vec![BUILTIN.to_owned()],
            profiles: Vec::new(),
        }
    }
}

impl Selection {
    /// Why targets can't be scanned whatever happens: images that are named as no registry knows them.
    pub fn unusable(&self) -> impl Iterator<Item = String> {
        self.targets.iter().filter_map(|target| {
            let TargetSpec::Image(text) = target else { return None };
            match text.parse::<Reference>() {
                Ok(reference) if reference.manifest().is_none() => {
                    Some(format!("`{target}`: the image has neither a tag nor a digest; write one, as `{target}:1.0`"))
                }
                Ok(_) => None,
                Err(error) => Some(format!("`{target}`: {error}; {}", error.remedy().unwrap_or_default())),
            }
        })
    }

    /// The selection in the words of the command line, for the record.
    pub fn words(&self) -> Vec<String> {
        let mut words: Vec<String> = self.targets.iter().map(ToString::to_string).collect();
        if self.all {
            words.push("--all".to_owned());
        }
        if self.nodes {
            words.push("--nodes".to_owned());
        }
        if let Some(selector) = &self.selector {
            words.push(format!("-l {selector}"));
        }
        words
    }
}

/// Everything that a scan needs to reach, with nothing relative left.
#[derive(Clone, Debug)]
pub struct Access {
    /// The ledger.
    pub ledger: PathBuf,
    /// The cluster.
    pub cluster: ClusterAccess,
    /// The bundle.
    pub bundle: Option<BundleSource>,
    /// The registries.
    pub registries: BTreeMap<String, RegistryAccess>,
}

/// Why a plan can't be used.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// The document itself.
    #[error(transparent)]
    Document(#[from] DocumentError),
    /// What it says makes no sense; all problems at once.
    #[error("use plan `{}`: {}", .path.display(), .problems.join("; "))]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problems: Vec<String>,
    },
}

impl Classify for PlanError {
    fn class(&self) -> ExitClass {
        match self {
            Self::Document(error) => error.class(),
            Self::Content { .. } => ExitClass::Usage,
        }
    }
}

/// A plan whose content makes sense and whose paths are whole.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Its name.
    pub name: String,
    /// What it reaches; the ledger only where the plan names one.
    pub ledger: Option<PathBuf>,
    /// The cluster.
    pub cluster: ClusterAccess,
    /// The bundle.
    pub bundle: Option<BundleSource>,
    /// The registries.
    pub registries: BTreeMap<String, RegistryAccess>,
    /// The policy.
    pub policy: Policy,
    /// The scans, those that go first in front.
    pub scans: Vec<PlannedScan>,
}

impl Plan {
    /// Reads a plan.
    ///
    /// # Errors
    /// When the document can't be read, or says what makes no sense: all such problems are named at once.
    pub fn load(path: &Path, limits: &Limits) -> Result<Self, PlanError> {
        let document: PlanDocument = document::load(path, limits)?;
        Self::validated(path, document)
    }

    fn validated(path: &Path, mut document: PlanDocument) -> Result<Self, PlanError> {
        let mut problems = Vec::new();
        if !is_name(&document.name) {
            problems.push(format!("its name `{}` must be lower-case letters, digits and hyphens", document.name));
        }
        if document.scans.is_empty() {
            problems.push("it has no scan".to_owned());
        }
        let ways = &document.policy.approaches;
        if ways.is_empty() {
            problems.push("policy.approaches allows none; name some of exec, debug, sidecar and image".to_owned());
        }
        if let Some(way) = ways.iter().enumerate().find(|(at, way)| ways[..*at].contains(way)) {
            problems.push(format!("policy.approaches names {} twice", way.1));
        }
        let results = &document.policy.results;
        if (results.transport == Transport::Upload) != results.address.is_some() {
            problems.push("policy.results names an address if, and only if, its transport is upload".to_owned());
        }
        if document.policy.parallel == 0 {
            problems.push("policy.parallel must be at least 1".to_owned());
        }
        if document.policy.network.prove_every < Span::seconds(10) {
            problems.push("policy.network.proveEvery must be at least 10s".to_owned());
        }
        if !(1..=100).contains(&document.policy.cpu_percent) {
            problems.push("policy.cpuPercent must be from 1 to 100".to_owned());
        }
        if document.policy.breakers.pause < Span::seconds(1) {
            problems.push("policy.breakers.pause must be at least 1s".to_owned());
        }
        let mut names = std::collections::HashSet::new();
        for scan in &document.scans {
            let name = &scan.name;
            if !is_name(name) {
                problems.push(format!("the scan's name `{name}` must be lower-case letters, digits and hyphens"));
            }
            if !names.insert(name) {
                problems.push(format!("there are two scans named `{name}`"));
            }
            if scan.selection.words().is_empty() {
                problems.push(format!("scan `{name}` has no target"));
            }
            if scan.selection.engines.is_empty() {
                problems.push(format!("scan `{name}` has no engine"));
            }
            problems.extend(scan.selection.unusable().map(|why| format!("scan `{name}`: {why}")));
            let external = scan.selection.engines.iter().find(|e| *e != BUILTIN && *e != "all");
            if let (Some(engine), None) = (external, &document.bundle) {
                problems.push(format!("scan `{name}` asks for scanner `{engine}`, and the plan names no bundle"));
            }
        }
        if let Some(Err(error)) = document.bundle.as_ref().map(|b| b.registry.parse::<Prefix>()) {
            problems.push(error.to_string());
        }
        for (host, access) in &document.registries {
            // One in another spelling would never be used, and the registry be reached without what is said here.
            match host.parse::<Authority>().map(|authority| authority.to_string()) {
                Ok(written) if written != *host => {
                    problems.push(format!("registry `{}` is written `{written}`", brief(host)));
                }
                Ok(_) => {}
                Err(error) => problems.push(error.to_string()),
            }
            if access.username.is_some() != access.password_file.is_some() {
                problems.push(format!("registry `{host}` needs both username and passwordFile, or none"));
            }
        }
        if !problems.is_empty() {
            return Err(PlanError::Content { path: path.to_owned(), problems });
        }
        document.scans.sort_by_key(|scan| scan.priority);
        let folder = path.parent().unwrap_or(Path::new("."));
        let whole = |p: PathBuf| folder.join(p);
        Ok(Self {
            name: document.name,
            ledger: document.ledger.map(whole),
            cluster: ClusterAccess {
                kubeconfig: document.cluster.kubeconfig.map(whole),
                context: document.cluster.context,
                pull_config_file: document.cluster.pull_config_file.map(whole),
            },
            bundle: document.bundle.map(|b| BundleSource { root: whole(b.root), state: b.state.map(whole), ..b }),
            registries: document
                .registries
                .into_iter()
                .map(|(host, r)| {
                    let access = RegistryAccess {
                        ca_file: r.ca_file.map(whole),
                        password_file: r.password_file.map(whole),
                        client_cert_file: r.client_cert_file.map(whole),
                        client_key_file: r.client_key_file.map(whole),
                        ..r
                    };
                    (host, access)
                })
                .collect(),
            policy: document.policy,
            scans: document.scans,
        })
    }
}

/// Whether a text is a name: lower-case letters, digits and hyphens, a letter first, at most 63 characters.
pub fn is_name(text: &str) -> bool {
    text.len() <= 63
        && text.starts_with(|c: char| c.is_ascii_lowercase())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(text: &str) -> Result<Plan, PlanError> {
        let path = Path::new("/etc/gapscan/plan.yaml");
        Plan::validated(path, document::parse(path, text)?)
    }

    #[test]
    fn a_plan_is_read_with_its_paths_made_whole() {
        let plan = plan(
            "apiVersion: gapscan/v1\nkind: Plan\nname: enclave\nledger: ledger.sqlite\n\
             bundle: {name: lab, registry: 'registry:5000/gapscan', root: root.json}\n\
             cluster: {pullConfigFile: pull.json}\n\
             registries: {'registry:5000': {caFile: ca.crt}}\n\
             scans:\n- name: nightly\n  targets: [cluster, ns/shop]\n  engines: [builtin, openscap]\n  \
             schedule: {cron: '0 2 * * *', timeZone: Europe/Berlin}\n",
        )
        .expect("a good plan");
        assert_eq!(plan.ledger.as_deref(), Some(Path::new("/etc/gapscan/ledger.sqlite")));
        assert_eq!(plan.cluster.pull_config_file.as_deref(), Some(Path::new("/etc/gapscan/pull.json")));
        assert_eq!(plan.bundle.expect("there is one").root, Path::new("/etc/gapscan/root.json"));
        assert_eq!(plan.scans[0].selection.words(), ["cluster", "ns/shop"]);
        assert_eq!(plan.policy, Policy::default());
    }

    #[test]
    fn a_plan_says_which_nodes_are_scanned_and_which_taints_are_tolerated() {
        let head = "apiVersion: gapscan/v1\nkind: Plan\nname: a\n";
        let read = |scan: &str, tolerate: &str| {
            plan(&format!("{head}policy: {{node: {{tolerate: [{tolerate}]}}}}\nscans: [{{name: a, {scan}}}]\n"))
        };
        let plan = read("nodes: true", "'node-role.kubernetes.io/control-plane:NoSchedule', a=b").expect("a good plan");
        assert_eq!(plan.scans[0].selection.words(), ["--nodes"]);
        let tolerated: Vec<String> = plan.policy.node.tolerate.iter().map(ToString::to_string).collect();
        assert_eq!(tolerated, ["node-role.kubernetes.io/control-plane:NoSchedule", "a=b"]);
        assert!(!read("all: true", "all").expect("a good plan").scans[0].selection.nodes);
        assert!(read("nodes: true", "'a:noschedule'").is_err());
    }

    #[test]
    fn the_example_is_a_plan() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("bundle/plan.yaml");
        assert_eq!(Plan::load(&path, &Limits::default()).expect("a good plan").scans.len(), 3);
    }

    #[test]
    fn all_that_makes_no_sense_is_named_at_once() {
        let error = plan(
            "apiVersion: gapscan/v1\nkind: Plan\nname: Bad\npolicy: {parallel: 0}\n\
             scans:\n- {name: a}\n- {name: a, targets: [host], engines: [grype]}\n",
        )
        .expect_err("a bad plan")
        .to_string();
        for part in ["`Bad`", "parallel", "no target", "two scans named `a`", "names no bundle"] {
            assert!(error.contains(part), "{part}: {error}");
        }
    }

    #[test]
    fn scans_of_high_priority_go_first_and_budgets_are_never_nothing() {
        let head = "apiVersion: gapscan/v1\nkind: Plan\nname: a\n";
        let scans = "scans:\n- {name: a, targets: [host], priority: low}\n- {name: b, targets: [host]}\n\
                     - {name: c, targets: [host], priority: high}\n- {name: d, targets: [host]}\n";
        let read = plan(&format!("{head}{scans}")).expect("a good plan");
        let order: Vec<&str> = read.scans.iter().map(|scan| scan.name.as_str()).collect();
        assert_eq!(order, ["c", "b", "d", "a"]);
        for policy in ["perNode: 0", "perWorkload: 0", "breakers: {node: 0}", "breakers: {pause: 0s}"] {
            assert!(plan(&format!("{head}policy: {{{policy}}}\n{scans}")).is_err(), "{policy}");
        }
    }

    #[test]
    fn a_registry_that_would_never_be_looked_up_is_refused() {
        let head = "apiVersion: gapscan/v1\nkind: Plan\nname: a\nscans: [{name: a, targets: [host]}]\n";
        let read = |host: &str| plan(&format!("{head}registries: {{'{host}': {{plainHttp: true}}}}\n"));
        read("registry.example:5000").expect("a good plan");
        for host in ["Registry.example:5000", "https://registry.example", "registry.example/gapscan"] {
            assert!(read(host).is_err(), "{host}");
        }
        let bundle = format!("{head}bundle: {{name: a, registry: 'no registry', root: root.json}}\n");
        assert!(plan(&bundle).is_err());
    }

    #[test]
    fn unknown_keys_are_refused_at_every_depth() {
        for text in ["polcy: {}\n", "policy: {unenforced: record}\n", "cluster: {kubecfg: x}\n"] {
            let head = "apiVersion: gapscan/v1\nkind: Plan\nname: a\nscans: [{name: a, targets: [host]}]\n";
            assert!(plan(&format!("{head}{text}")).is_err(), "{text}");
        }
        let misspelt = "apiVersion: gapscan/v1\nkind: Plan\nname: a\nscans: [{name: a, targets: [host], selectr: x}]\n";
        assert!(plan(misspelt).expect_err("an unknown key").to_string().contains("selectr"));
    }
}
