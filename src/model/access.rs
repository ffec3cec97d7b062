//! The ways to reach a container, in the words of users.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::provenance::Approach;

/// A way to reach a container. Every other kind of target is reached in one way only: an image from its registry, a node by
/// a Job on it, the cluster through its API.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, clap::ValueEnum, JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Way {
    /// A command in the container itself, which needs a shell there.
    Exec,
    /// An ephemeral container beside it, with its user; its ended entry stays in the pod's status.
    Debug,
    /// A scanner in a copy of its pod, with a shared process namespace.
    Sidecar,
    /// The image that it was started from: what only a running container has is not evaluated.
    Image,
}

impl Way {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Exec, Self::Debug, Self::Sidecar, Self::Image];

    /// The word for it on the command line and in documents.
    pub fn word(self) -> &'static str {
        match self {
            Self::Exec => "exec",
            Self::Debug => "debug",
            Self::Sidecar => "sidecar",
            Self::Image => "image",
        }
    }

    /// What the record of a result says of it, where gapscan's own collector looks.
    pub fn approach(self) -> Approach {
        match self {
            Self::Exec => Approach::Exec,
            Self::Debug => Approach::Debug,
            Self::Sidecar => Approach::Sidecar,
            Self::Image => Approach::Image,
        }
    }
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}
