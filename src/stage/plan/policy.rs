//! What is allowed: how much at once, in which ways, how long, and what happens when something goes wrong again and again.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::waivers::WaiverPolicy;
use crate::base::quantity::Span;
use crate::cluster::access::node::Toleration;
use crate::model::access::Way;
use crate::model::scanner::ServicePort;
use crate::stage::blackout::Blackout;

/// What is allowed, and how much at once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
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
    /// Whether a program that a container has itself may judge it, where a scanner's definition says so (`runs: in-target`).
    #[serde(skip_serializing_if = "TargetPrograms::is_default")]
    pub target_programs: TargetPrograms,
    /// Whom scanners may talk to: by the scanner's name, and by what its definition calls whom it talks to (`egress`), a service
    /// of the cluster. A scanner that needs somebody who is not named here is not run in that way.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub scanner_egress: ScannerEgress,
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
    /// Which waivers count.
    #[serde(skip_serializing_if = "WaiverPolicy::is_default")]
    pub waivers: WaiverPolicy,
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
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

impl Policy {
    /// All that makes no sense in it.
    pub(super) fn problems(&self) -> Vec<String> {
        let ways = &self.approaches;
        let doubled = ways.iter().enumerate().find(|(at, way)| ways[..*at].contains(way));
        let doubled = doubled.map(|(_, way)| format!("policy.approaches names {way} twice"));
        let mut problems: Vec<String> = doubled.into_iter().collect();
        let mut unless = |holds: bool, problem: &str| {
            if !holds {
                problems.push(problem.to_owned());
            }
        };
        unless(!ways.is_empty(), "policy.approaches allows none; name some of exec, debug, sidecar and image");
        let is_upload = self.results.transport == Transport::Upload;
        unless(
            is_upload == self.results.address.is_some(),
            "policy.results names an address if, and only if, its transport is upload",
        );
        unless(self.parallel > 0, "policy.parallel must be at least 1");
        unless(self.network.prove_every >= Span::seconds(10), "policy.network.proveEvery must be at least 10s");
        unless((1..=100).contains(&self.cpu_percent), "policy.cpuPercent must be from 1 to 100");
        unless(self.breakers.pause >= Span::seconds(1), "policy.breakers.pause must be at least 1s");
        problems.extend(self.waivers.problems());
        problems
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
            target_programs: TargetPrograms::default(),
            scanner_egress: ScannerEgress::new(),
            node: NodePolicy::default(),
            database_max_age: Span::days(30),
            parallel: 4,
            per_node: FOUR,
            per_workload: FOUR,
            cpu_percent: 50,
            breakers: BreakerPolicy::default(),
            resume: ResumePolicy::default(),
            results: ResultsPolicy::default(),
            waivers: WaiverPolicy::default(),
            blackout: Vec::new(),
            deadline: Span::seconds(15 * 60),
        }
    }
}

/// Services that scanners may talk to, by scanner and by what its definition calls them.
pub type ScannerEgress = BTreeMap<String, BTreeMap<String, ServicePort>>;

/// Whether a program that a container has itself may judge it. No bundle has its digest: whoever can change the container can
/// change what it says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum TargetPrograms {
    /// No: the scanner's other ways are taken, if there are any.
    #[default]
    Refuse,
    /// Yes, and the record says so each time.
    Allow,
}

impl TargetPrograms {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// How it is kept proven that NetworkPolicies are enforced. Whatever is said here, it is proven before anything runs, and again
/// when somebody else changed policies in the run's namespaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct DebugPolicy {
    /// Whether the target's pod is cut off from the network while it is looked at.
    pub isolate: Isolate,
}

/// Whether the target's pod is cut off from the network while it is looked at from beside it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
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
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Transport {
    /// The runner fetches them by running a command in the scanner's pod.
    #[default]
    Exec,
    /// The pod sends them to the runner by HTTPS.
    Upload,
}

/// How nodes may be reached.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct NodePolicy {
    /// The taints that do not keep a scan off a node. Without any, a node that is tainted or cordoned is not evaluated.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Vec<String>")]
    pub tolerate: Vec<Toleration>,
}

/// What happens where NetworkPolicies are not proven to be enforced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Unenforced {
    /// Nothing is run in the cluster; what was expected is recorded as not evaluated.
    Refuse,
    /// It is run, and the record says that the network was open.
    Record,
}
