//! Looking at a container from a sidecar: gapscan's agent in the same pod, where all containers see each other's processes.
//!
//! There are two such pods. One is a copy of the target's, made in a namespace of the run and removed again; the target
//! itself is not touched, and so it is not what is judged. The other is the target's own, where somebody put the agent into
//! its manifest before it was started (`injected`, `gapscan inject`); then the target itself is judged.
//!
//! In both, one exec in the agent's container collects the facts as the target's user and group through `/proc/PID/root`,
//! leaves them on a volume, with their length and digest behind them, and sends them from there. The volume is mounted in no
//! other container.
//!
//! What could go wrong, and where it is seen:
//! * the copy ends at once, as a program without its configuration does: it is not evaluated, with its exit code and last words;
//! * the copy, or what it is a copy of, is replaced meanwhile: UIDs and container ids are compared before and after;
//! * another container's process is taken for the target's: see [`agent::beside`](crate::cluster::agent::beside);
//! * the copied program attacks: it is restricted, under default-deny, and has no token and no secret. It runs as the same
//!   user as the agent beside it, as it would beside an ephemeral container, and could kill it or forge its answer; what it
//!   says of itself is as true as what any collector within the container's reach could find out.

pub(crate) mod copy;
pub mod inject;
pub(crate) mod injected;
mod look;
mod running;
mod scan;

use std::time::Duration;

use serde_json::{Value, json};

use super::auto::User;
use crate::cluster::canary::BINARY;

pub(crate) use copy::TARGET;
pub use copy::{Copy, Likeness, written_out};
pub use injected::Injected;
pub use look::{Looked, look_at_copy, look_at_injected};
pub use running::CopyReport;
pub(crate) use scan::beside_copy;
pub use scan::{Scanned, scan_copy};

/// The name of the agent's container.
pub(crate) const AGENT: &str = "gapscan";
/// The volume for results, and where it is mounted in the agent's container.
pub(crate) const RESULTS: &str = "gapscan-results";
pub(crate) const RESULTS_FOLDER: &str = "/gapscan-results";
/// What the volume may hold: facts have some ten megabytes at most.
const RESULTS_SIZE: &str = "256Mi";
/// The agent's memory: a container can have a great many files.
const MEMORY: &str = "256Mi";

/// The volume for results.
pub(crate) fn results() -> Value {
    json!({ "name": RESULTS, "emptyDir": { "sizeLimit": RESULTS_SIZE } })
}

/// The agent's container, for a pod's `initContainers`: one that goes on beside the others (Kubernetes 1.29), is started before
/// them, and keeps no Job from being done. It runs as the target's user and group, without which Linux does not let it see the
/// target's files (ptrace(2)).
pub(crate) fn agent(image: &str, target: &str, user: User, life: Option<Duration>) -> Value {
    let mut command =
        vec![BINARY, "agent", "stand-by", "--for", target].into_iter().map(str::to_owned).collect::<Vec<_>>();
    if let Some(life) = life {
        command.extend(["--deadline".to_owned(), life.as_secs().to_string()]);
    }
    json!({
        "name": AGENT,
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "restartPolicy": "Always",
        "command": command,
        "securityContext": {
            "runAsNonRoot": true,
            "runAsUser": user.uid,
            "runAsGroup": user.gid,
            "allowPrivilegeEscalation": false,
            "readOnlyRootFilesystem": true,
            "capabilities": { "drop": ["ALL"] },
            "seccompProfile": { "type": "RuntimeDefault" },
        },
        "resources": copy::agent_resources(),
        "volumeMounts": [{ "name": RESULTS, "mountPath": RESULTS_FOLDER }],
    })
}
