//! What a scanner's container needs besides its image.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The user and group that a scanner runs as, in a pod of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct ScannerUser {
    /// Never 0: the restricted Pod Security Standard knows no root.
    pub uid: u32,
    /// The group, also of the folders that can be written to.
    pub gid: u32,
}

/// A folder that a scanner may write to, empty when it starts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct WritableFolder {
    /// The folder, as an absolute path.
    pub path: String,
    /// How much it may hold, as a Kubernetes quantity. A pod that writes more is evicted.
    pub size: String,
}

/// A capability (capabilities(7)) of the scanner on a node, beside the one that lets it read what is others'
/// (`DAC_READ_SEARCH`), which it always has. Only those that let it see more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Capability {
    /// Looking into processes of others: `/proc/PID/root`, `exe`, `environ` and `fd`.
    SysPtrace,
    /// Reading the kernel's log.
    Syslog,
    /// Loading BPF programs, which, with `PERFMON`, see what every process of the node asks the kernel for.
    Bpf,
    /// Tracing the kernel.
    Perfmon,
    /// Locking more memory than the limit, as older kernels count what BPF uses.
    SysResource,
}

impl Capability {
    /// As Kubernetes names it.
    pub fn name(self) -> &'static str {
        match self {
            Self::SysPtrace => "SYS_PTRACE",
            Self::Syslog => "SYSLOG",
            Self::Bpf => "BPF",
            Self::Perfmon => "PERFMON",
            Self::SysResource => "SYS_RESOURCE",
        }
    }
}
