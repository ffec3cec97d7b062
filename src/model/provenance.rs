//! Where a result comes from: everything an assessor needs to repeat or to doubt it.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::base::digest::Digest;

/// Where one task's result comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Provenance {
    /// The version of gapscan that ran it.
    pub gapscan: String,
    /// What judged.
    pub engine: Engine,
    /// The verified bundle that scanner, profile and databases came from; absent for the built-in profiles.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bundle: Option<BundleRef>,
    /// Databases and other content that the verdicts depend on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub content: Vec<ContentRef>,
    /// How the target was reached.
    pub approach: Approach,
    /// As whom: a service account, a local user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<String>,
    /// Whether NetworkPolicies were seen to be enforced before anything ran in the cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<NetworkProof>,
    /// Whether what was created for this task is verified to be gone again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cleanup: Option<Cleanup>,
    /// When it began.
    pub started: Timestamp,
    /// When it ended.
    pub finished: Timestamp,
}

/// What judged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Engine {
    /// `builtin`, or the scanner definition's name.
    pub name: String,
    /// As the scanner says itself; empty where it says nothing.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub version: String,
    /// The digest of the scanner's image; absent for the builtin engine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<Digest>,
}

/// Names a verified bundle.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BundleRef {
    /// The bundle's name.
    pub name: String,
    /// The bundle's version; higher is newer.
    pub version: u64,
    /// The digest of its signed list of targets, which names all its content.
    pub digest: Digest,
    /// The fingerprint of the root that vouches for it.
    pub root: Digest,
}

/// Content that verdicts depend on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ContentRef {
    /// Its name in the bundle.
    pub name: String,
    /// The digest of its manifest.
    pub digest: Digest,
    /// When it was built, as it says itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub built: Option<Timestamp>,
}

/// How a target was reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Approach {
    /// By exec into the container.
    Exec,
    /// By an ephemeral container beside the container.
    Debug,
    /// By a scanner in a copy of the pod.
    Sidecar,
    /// By a Job on the node, with the node's files mounted read-only.
    Node,
    /// From the image in the registry.
    Image,
    /// By a scanner pod with the image mounted as a volume.
    ImageVolume,
    /// Through the API server.
    Objects,
    /// From the files and processes of this machine.
    Local,
    /// It was not reached at all.
    None,
}

impl Approach {
    /// The word for it in records.
    pub fn word(self) -> &'static str {
        match self {
            Self::Exec => "exec",
            Self::Debug => "debug",
            Self::Sidecar => "sidecar",
            Self::Node => "node",
            Self::Image => "image",
            Self::ImageVolume => "image-volume",
            Self::Objects => "objects",
            Self::Local => "local",
            Self::None => "none",
        }
    }
}

/// What the canary saw.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NetworkProof {
    /// Whether default-deny was seen to be enforced in both directions.
    pub enforced: bool,
    /// When it was looked at.
    pub at: Timestamp,
    /// What was tried and what happened, for people.
    pub detail: String,
    /// What an allowance for one address and port opens; absent where it was not tried.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allowance: Option<AllowanceProof>,
}

/// What a NetworkPolicy that names one address and one port by itself was seen to open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AllowanceProof {
    /// That address and port, and nothing else that was tried.
    Exact,
    /// Not even that: some networks don't match such rules with addresses of the cluster's own. What needs one will not get
    /// through here.
    Closed,
}

/// What became of the objects that a task created.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Cleanup {
    /// Objects that were created, as `kind/namespace/name`.
    pub created: Vec<String>,
    /// Objects of these that could not be verified to be gone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub remaining: Vec<String>,
}
