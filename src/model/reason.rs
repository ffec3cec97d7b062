//! Why something was not evaluated.

use std::fmt;
use std::str::FromStr;

/// Defines the codes with their descriptions in one place, so that none can lack one.
macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $name:ident = $code:literal,)+) => {
        /// Why a control was not evaluated. Each code is kebab-case, unique and stays what it means for ever: ledgers
        /// and reports carry it.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Reason {
            $($(#[doc = $doc])+ $name,)+
        }

        impl Reason {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name),+];

            /// The code in reports and in the ledger.
            pub fn code(self) -> &'static str {
                match self { $(Self::$name => $code),+ }
            }

            /// What the code means, one sentence.
            pub fn description(self) -> &'static str {
                match self { $(Self::$name => concat!($($doc),+).trim_ascii()),+ }
            }
        }
    };
}

reasons! {
    /// The target does not exist.
    TargetNotFound = "target-not-found",
    /// The target went away while it was scanned.
    TargetGone = "target-gone",
    /// The target was restarted or replaced under the same name while it was scanned.
    TargetChanged = "target-changed",
    /// The target exists but does not run.
    TargetNotRunning = "target-not-running",
    /// No approach that the scanner supports reaches this kind of target.
    TargetUnsupported = "target-unsupported",
    /// The target is larger than what a scanner can be given.
    TargetTooLarge = "target-too-large",
    /// The cluster or the registry denied access.
    AccessDenied = "access-denied",
    /// The container has no shell, so that the collector can't run in it.
    NoShell = "no-shell",
    /// A tool that the collector needs for this fact is missing in the target.
    ToolMissing = "tool-missing",
    /// The collector failed or its output is not whole.
    CollectorFailed = "collector-failed",
    /// The rule asks for a fact that could not be collected.
    FactMissing = "fact-missing",
    /// The list of facts was longer than the limit, so that a rule over all of them can't say yes.
    FactTruncated = "fact-truncated",
    /// The rule itself failed: it does not compile, has a type error or did not give a boolean.
    RuleError = "rule-error",
    /// The rule took longer than its budget.
    RuleBudget = "rule-budget",
    /// It took longer than its deadline.
    Timeout = "timeout",
    /// The API server did not answer.
    ApiUnreachable = "api-unreachable",
    /// The registry did not answer, or not with what it should.
    RegistryUnreachable = "registry-unreachable",
    /// The image, or what is in it, is not what its digest says or can't be read.
    ImageUnreadable = "image-unreadable",
    /// The node could not pull an image.
    ImagePullFailed = "image-pull-failed",
    /// The scanner's pod could not be scheduled or started.
    ScannerNotStarted = "scanner-not-started",
    /// The scanner ended with an exit code that means failure, or that its definition does not know.
    ScannerFailed = "scanner-failed",
    /// The scanner's exit code and its result contradict each other.
    ExitContradicted = "exit-contradicted",
    /// The scanner was killed because it used too much memory.
    ScannerOutOfMemory = "scanner-out-of-memory",
    /// The scanner's pod was evicted or lost with its node.
    ScannerEvicted = "scanner-evicted",
    /// The scanner said that it succeeded, but there is no result, or an empty one.
    NoOutput = "no-output",
    /// The result is shorter or other than what was announced.
    OutputTruncated = "output-truncated",
    /// The result is larger than the limit.
    OutputTooLarge = "output-too-large",
    /// The result is not in the format that the scanner's definition names.
    OutputUnparsable = "output-unparsable",
    /// The result does not mention this control.
    ControlMissing = "control-missing",
    /// The result mentions this control more than once, with verdicts that differ.
    ControlAmbiguous = "control-ambiguous",
    /// The scanner reports that it did not, or could not, check this control.
    ScannerSkipped = "scanner-skipped",
    /// The result has a status word that is not known.
    StatusUnknown = "status-unknown",
    /// There are files in the target that the scanner's identity may not read.
    UnreadablePaths = "unreadable-paths",
    /// The result is about another target than the one that was asked for.
    WrongTarget = "wrong-target",
    /// The vulnerability database is older than policy allows, has no date, or is from the future.
    DatabaseStale = "database-stale",
    /// An input of the profile could not be had, or not be given to the scanner.
    InputMissing = "input-missing",
    /// NetworkPolicies are not enforced here, and policy refuses to scan without them.
    PolicyNotEnforced = "policy-not-enforced",
    /// The scanner needs to talk to a service that policy does not name, or that leads elsewhere than to pods of its namespace.
    EgressRefused = "egress-refused",
    /// Scanner, profile or database is missing from the bundle, or does not verify.
    BundleUnverified = "bundle-unverified",
    /// The breaker for this target, or for what it needs (its node, workload or registry, the cluster), is open after repeated failures.
    BreakerOpen = "breaker-open",
    /// The runner was stopped or killed before this was done.
    RunnerInterrupted = "runner-interrupted",
    /// The scheduled time passed while no runner ran.
    ScheduleMissed = "schedule-missed",
    /// The scheduled time came while the run before it was still going on.
    ScheduleOverlap = "schedule-overlap",
    /// It was due in a blackout of the policy, in which nothing is started.
    Blackout = "blackout",
    /// Something failed in gapscan itself.
    InternalError = "internal-error",
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.code())
    }
}

/// A text that is no reason code.
#[derive(Debug, thiserror::Error)]
#[error("`{}` is no reason code", crate::base::text::brief(.0))]
pub struct UnknownReason(String);

impl FromStr for Reason {
    type Err = UnknownReason;

    fn from_str(text: &str) -> Result<Self, UnknownReason> {
        Self::ALL.iter().find(|r| r.code() == text).copied().ok_or_else(|| UnknownReason(text.to_owned()))
    }
}

impl serde::Serialize for Reason {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.code())
    }
}

impl<'de> serde::Deserialize<'de> for Reason {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn codes_are_unique_kebab_case_and_described() {
        let mut seen = HashSet::new();
        for reason in Reason::ALL {
            assert!(seen.insert(reason.code()), "{reason} is there twice");
            assert!(reason.code().bytes().all(|b| b.is_ascii_lowercase() || b == b'-'), "{reason}");
            assert!(reason.description().ends_with('.'), "{reason}");
            assert_eq!(reason.code().parse::<Reason>().expect("own code"), *reason);
        }
    }

    #[test]
    fn the_documented_list_is_this_list() {
        let page = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/reasons.md"));
        let rows: Vec<Vec<&str>> = page
            .lines()
            .filter(|line| line.starts_with("| `"))
            .map(|line| line.trim_matches('|').split('|').map(str::trim).collect())
            .collect();
        let listed: Vec<(&str, &str)> = rows.iter().map(|row| (row[0].trim_matches('`'), row[1])).collect();
        let defined: Vec<(&str, &str)> = Reason::ALL.iter().map(|r| (r.code(), r.description())).collect();
        assert_eq!(listed, defined);
        assert!(rows.iter().all(|row| row.len() == 3 && row[2].ends_with('.')), "each says what to do about it");
    }

    #[test]
    fn codes_stay_what_they_are() {
        let list: Vec<String> = Reason::ALL.iter().map(|r| format!("{r}: {}", r.description())).collect();
        insta::assert_snapshot!(list.join("\n"));
    }
}
