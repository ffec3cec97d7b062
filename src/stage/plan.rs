//! Plans: what is scanned, with what, when, and under which policy.

mod falco;
mod inputs;
mod policy;
mod waivers;

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::schedule::Schedule;
use crate::base::document::{self, ApiVersion, Document, DocumentError};
use crate::base::exit::{Classify, ExitClass};
use crate::base::limits::Limits;
use crate::base::text::brief;
use crate::model::scanner::BUILTIN;
use crate::model::target::TargetSpec;
use crate::registry::{Authority, Prefix, Reference};

pub use falco::FalcoIntake;
pub use inputs::{InputContent, InputEntry, SecretKey, SecretKeyError};
pub use policy::{
    BreakerPolicy, DebugPolicy, Isolate, NetworkWatch, NodePolicy, Policy, ResultsPolicy, ResumePolicy, ScannerEgress,
    TargetPrograms, Transport, Unenforced,
};
pub use waivers::{Unsigned, WaiverPolicy};

/// A `kind: Plan` document. Paths in it are relative to its own folder.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
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
    /// Files for the scanners of profiles, by the profile's name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub inputs: BTreeMap<String, Vec<InputEntry>>,
    /// Where Falco's alerts are taken, while the plan is served.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub falco: Option<FalcoIntake>,
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
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
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
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
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
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
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

/// One scan of a plan.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
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
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Selection {
    /// Targets by name.
    #[schemars(with = "Vec<String>")]
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
    /// Files for the scanners of profiles, by the profile's name.
    pub inputs: BTreeMap<String, Vec<InputEntry>>,
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
    /// Files for the scanners of profiles, by the profile's name.
    pub inputs: BTreeMap<String, Vec<InputEntry>>,
    /// Where Falco's alerts are taken.
    pub falco: Option<FalcoIntake>,
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

    /// The plan that this document at `path` says.
    ///
    /// # Errors
    /// When it says what makes no sense.
    pub(super) fn validated(path: &Path, mut document: PlanDocument) -> Result<Self, PlanError> {
        let mut problems = Vec::new();
        if !is_name(&document.name) {
            problems.push(format!("its name `{}` must be lower-case letters, digits and hyphens", document.name));
        }
        if document.scans.is_empty() && document.falco.is_none() {
            problems.push("it has no scan".to_owned());
        }
        problems.extend(document.policy.problems());
        problems.extend(inputs::problems(&document.inputs));
        if let (false, None) = (document.inputs.is_empty(), &document.bundle) {
            problems.push("it has inputs, and names no bundle whose profiles could take them".to_owned());
        }
        problems.extend(document.falco.iter().flat_map(FalcoIntake::problems));
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
            inputs: document
                .inputs
                .into_iter()
                .map(|(profile, entries)| {
                    let whole = |entry: InputEntry| InputEntry { file: entry.file.map(whole), ..entry };
                    (profile, entries.into_iter().map(whole).collect())
                })
                .collect(),
            falco: document.falco.map(|falco| falco.below(folder)),
            policy: Policy { waivers: document.policy.waivers.below(folder), ..document.policy },
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
