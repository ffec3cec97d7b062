//! What the end of a piece of work says of all that it depended on.

use std::fmt;

use crate::model::provenance::Approach;
use crate::model::reason::Reason;

/// What a breaker is for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Scope {
    /// The API server.
    Cluster,
    /// A registry, as `HOST[:PORT]`.
    Registry(String),
    /// A node.
    Node(String),
    /// What the pods of a workload have in common.
    Workload(String),
    /// A target.
    Target(String),
}

impl Scope {
    /// Whether it is asked by a request of the run's own when it is time to try, so that no target is risked for it.
    pub(crate) fn has_own_probe(&self) -> bool {
        match self {
            Self::Cluster | Self::Registry(_) => true,
            Self::Node(_) | Self::Workload(_) | Self::Target(_) => false,
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cluster => f.write_str("the cluster"),
            Self::Registry(host) => write!(f, "registry `{host}`"),
            Self::Node(name) => write!(f, "node `{name}`"),
            Self::Workload(name) => write!(f, "workload `{name}`"),
            Self::Target(key) => write!(f, "target `{key}`"),
        }
    }
}

/// What a result says of something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sign {
    /// It works.
    Works,
    /// It fails, by this reason.
    Fails(Reason),
    /// Nothing.
    Nothing,
}

/// What a result says of all that it depended on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Signs {
    pub(super) cluster: Sign,
    pub(super) registry: Sign,
    /// Of the node, and of the workload.
    pub(super) node: Sign,
    pub(super) target: Sign,
}

impl Signs {
    pub(super) fn of(&self, scope: &Scope) -> Sign {
        match scope {
            Scope::Cluster => self.cluster,
            Scope::Registry(_) => self.registry,
            Scope::Node(_) | Scope::Workload(_) => self.node,
            Scope::Target(_) => self.target,
        }
    }
}

/// What the end of a piece of work says: it was judged, or not for this reason, and this was the way that led to it.
pub(crate) fn signs(approach: Approach, outcome: Result<(), Reason>) -> Signs {
    use Sign::{Fails, Nothing, Works};
    let registry = match (approach, outcome) {
        // A node that can't pull may have a reason of its own; if so, the registry's own probe soon says that it is there.
        (_, Err(reason @ (Reason::RegistryUnreachable | Reason::ImagePullFailed))) => Fails(reason),
        (Approach::Image | Approach::ImageArchive, Ok(()) | Err(Reason::ImageUnreadable | Reason::TargetNotFound)) => {
            Works
        }
        // What runs in a pod may have come from the node's own store.
        _ => Nothing,
    };
    let signs = |cluster, node, target| Signs { cluster, registry, node, target };
    match approach {
        Approach::Exec
        | Approach::Debug
        | Approach::Sidecar
        | Approach::Node
        | Approach::ImageVolume
        | Approach::ImageArchive
        | Approach::Objects => {}
        // What the registry or this machine gave says nothing of the cluster.
        Approach::Image | Approach::Local | Approach::Imported | Approach::Alerts | Approach::None => {
            return signs(Nothing, Nothing, Nothing);
        }
    }
    let Err(reason) = outcome else { return signs(Works, Works, Works) };
    let fails = Fails(reason);
    match reason {
        Reason::ApiUnreachable => signs(fails, Nothing, Nothing),
        // A broken connection to a command, or one that hangs: the API server may be the cause, or the node.
        Reason::CollectorFailed | Reason::Timeout => signs(Nothing, fails, fails),
        Reason::ImagePullFailed | Reason::ScannerNotStarted | Reason::ScannerEvicted => signs(Works, fails, fails),
        Reason::TargetGone | Reason::TargetChanged | Reason::TargetNotRunning => signs(Works, Nothing, fails),
        Reason::OutputTruncated => signs(Works, Nothing, fails),
        Reason::ScannerFailed
        | Reason::ScannerOutOfMemory
        | Reason::NoOutput
        | Reason::OutputTooLarge
        | Reason::OutputUnparsable
        | Reason::WrongTarget => signs(Works, Works, fails),
        Reason::NoShell
        | Reason::ToolMissing
        | Reason::FactMissing
        | Reason::FactTruncated
        | Reason::RuleError
        | Reason::RuleBudget
        | Reason::ControlMissing
        | Reason::ExitContradicted
        | Reason::ControlAmbiguous
        | Reason::ScannerSkipped
        | Reason::StatusUnknown
        | Reason::UnreadablePaths => signs(Works, Works, Works),
        // Either it was known before anything was tried, or it may come from elsewhere.
        Reason::TargetNotFound
        | Reason::TargetUnsupported
        | Reason::TargetTooLarge
        | Reason::AccessDenied
        | Reason::RegistryUnreachable
        | Reason::ImageUnreadable
        | Reason::DatabaseStale
        | Reason::InputMissing
        | Reason::PolicyNotEnforced
        | Reason::EgressRefused
        | Reason::BundleUnverified
        | Reason::BreakerOpen
        | Reason::RunnerInterrupted
        | Reason::ScheduleMissed
        | Reason::ScheduleOverlap
        | Reason::Blackout
        | Reason::InternalError => signs(Nothing, Nothing, Nothing),
    }
}
