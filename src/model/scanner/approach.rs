//! How a scanner reaches each kind of target: one command for each approach that its definition offers.

mod exec;
mod listed;
mod offered;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::archive::ArchiveNeeds;
use super::needs::Capability;
use crate::model::access::Way;

pub use exec::{ExecApproach, InTarget, RunsIn, is_at_least};
pub use listed::{ListedResource, ListedResourceError};
pub use offered::Offered;

/// What the names of placeholders begin with that stand for the target of a scan and not for a parameter of a profile.
pub const TARGET: &str = "target.";

/// The folder that the scanner leaves its result in, which every approach knows: `/results` in a pod of its own.
pub const RESULTS: &str = "target.results";
/// The folder with the inputs of the profile, one file each: `/inputs` in a pod of its own.
pub const INPUTS: &str = "target.inputs";
/// The folder that is the root of the target's files: `/proc/1/root`, as an example.
pub const ROOT: &str = "target.root";
/// The path of the target image as an archive: an OCI image layout in one tar file.
pub const ARCHIVE: &str = "target.archive";
/// The path of a kubeconfig that leads to the target and to nothing else.
pub const KUBECONFIG: &str = "target.kubeconfig";
/// The namespace of the target's pod.
pub const NAMESPACE: &str = "target.namespace";
/// The name of the target's pod.
pub const POD: &str = "target.pod";
/// The name of the target.
pub const CONTAINER: &str = "target.container";
/// The file that was delivered to the target, as its own program finds it there.
pub const DELIVERED: &str = "target.delivered";
/// What the target's own program writes its result to, and what is read while it is written: `/dev/fd/3`.
pub const RESULT: &str = "target.result";

/// The exit code by which gapscan says that a program in the target was not run, or that what it left is not whole. No definition
/// that runs one may give it a meaning.
pub const NOT_DONE: u8 = 93;

/// The approaches that a scanner supports; at least one.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Approaches {
    /// A scanner pod with the target image mounted read-only as an image volume, or beside it as an archive: for images, and for
    /// containers by the image that they were started from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<MountApproach>,
    /// A scanner pod on the node, as root who may read and not write, with the node's file system mounted read-only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<MountApproach>,
    /// Commands in the container through the API server, as an identity that may run some in that pod alone. Placeholders:
    /// [`NAMESPACE`], [`POD`], [`CONTAINER`]; where the scanner runs in a pod of its own, [`KUBECONFIG`]; where it runs in the
    /// target, [`DELIVERED`] and [`RESULT`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exec: Option<ExecApproach>,
    /// The scanner as an ephemeral container beside the container, with its user, group and processes. Placeholders:
    /// [`ROOT`], [`NAMESPACE`], [`POD`], [`CONTAINER`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub debug: Option<CommandApproach>,
    /// The scanner beside the container in a copy of its pod. Placeholders as for `debug`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sidecar: Option<CommandApproach>,
    /// A scanner pod that lists API objects, as an identity that may list what is named here and nothing else. Placeholder:
    /// [`KUBECONFIG`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<ClusterApproach>,
}

/// How a scanner is run on a target whose files are mounted read-only, or on an image that it gets as an archive.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct MountApproach {
    /// Where the target's files are mounted, as `/target`. An image that the scanner gets as an archive need not be mounted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mount: Option<String>,
    /// The image as an archive in the file that `${target.archive}` stands for, for scanners that read its layers: an OCI image
    /// layout in one tar file, with the blobs as the registry has them. Not there where this is absent; only `image` has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub archive: Option<ArchiveNeeds>,
    /// The command with its arguments; no shell is involved. `${parameter}` stands for a parameter of the profile.
    pub command: Vec<String>,
    /// Environment variables; `${parameter}` as in the command.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// What it may do besides, which only a pod on a node can be given.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub capabilities: Vec<Capability>,
}

/// How a scanner is run that finds the target by itself, from what its placeholders stand for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct CommandApproach {
    /// The command with its arguments; no shell is involved. `${parameter}` stands for a parameter of the profile, and
    /// `${target.…}` for one of the approach's placeholders.
    pub command: Vec<String>,
    /// Environment variables; placeholders as in the command.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
}

/// How a scanner is run that lists API objects.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct ClusterApproach {
    /// What it lists, in all namespaces; at least one.
    pub resources: Vec<ListedResource>,
    /// The command, as in [`CommandApproach`].
    pub command: Vec<String>,
    /// Environment variables, likewise.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
}

const MOUNTED: &[&str] = &[RESULTS, INPUTS];
const ARCHIVED: &[&str] = &[RESULTS, INPUTS, ARCHIVE];
const TRANSPORTED: &[&str] = &[RESULTS, INPUTS, KUBECONFIG, NAMESPACE, POD, CONTAINER];
/// Neither inputs nor a folder for results: nothing is written in the target but what is delivered.
const WITHIN: &[&str] = &[DELIVERED, RESULT, NAMESPACE, POD, CONTAINER];
/// No inputs: an ephemeral container can have no volume, and a copy runs as the scanner's user, which could read them.
const BESIDE: &[&str] = &[RESULTS, ROOT, NAMESPACE, POD, CONTAINER];
const LISTED: &[&str] = &[RESULTS, INPUTS, KUBECONFIG];

impl Approaches {
    /// The approaches that the definition names.
    pub fn offered(&self) -> Vec<Offered<'_>> {
        let Self { image, node, exec, debug, sidecar, cluster } = self;
        fn named<'o>(field: &'static str, placeholders: &'static [&'static str], offered: Offered<'o>) -> Offered<'o> {
            Offered { field, placeholders, ..offered }
        }
        let all = [
            image.as_ref().map(|a| named("image", if a.archive.is_some() { ARCHIVED } else { MOUNTED }, a.into())),
            node.as_ref().map(|a| named("node", MOUNTED, a.into())),
            exec.as_ref().map(|a| named("exec", if a.in_target().is_some() { WITHIN } else { TRANSPORTED }, a.into())),
            debug.as_ref().map(|a| named("debug", BESIDE, a.into())),
            sidecar.as_ref().map(|a| named("sidecar", BESIDE, a.into())),
            cluster.as_ref().map(|a| named("cluster", LISTED, a.into())),
        ];
        all.into_iter().flatten().collect()
    }

    /// What is wrong with what they say besides commands and environment.
    pub fn problems(&self) -> Vec<String> {
        self.exec.iter().flat_map(ExecApproach::problems).collect()
    }

    /// The ways to a container among them.
    pub fn ways(&self) -> Vec<Way> {
        let offers = |way: &Way| match way {
            Way::Exec => self.exec.is_some(),
            Way::Debug => self.debug.is_some(),
            Way::Sidecar => self.sidecar.is_some(),
            Way::Image => self.image.is_some(),
        };
        Way::ALL.into_iter().filter(offers).collect()
    }
}
