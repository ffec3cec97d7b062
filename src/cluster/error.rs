//! What goes wrong with a cluster, and what that means for what was to be scanned.

use std::error::Error as StdError;
use std::path::PathBuf;
use std::time::Duration;

use crate::base::exit::{Classify, ExitClass};
use crate::base::text::brief;
use crate::model::reason::Reason;

/// What went wrong with a cluster, a pod in it, or a scanner that ran there.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// The kubeconfig can't be read, or lacks what is needed.
    #[error("read the kubeconfig{}", place(.path.as_ref()))]
    Config {
        /// The file; absent when it was looked for in the usual places.
        path: Option<PathBuf>,
        /// Why.
        source: Box<dyn StdError + Send + Sync>,
    },
    /// The configuration asks to talk to a server without verifying it.
    #[error("connect to `{server}`: {why}")]
    Insecure {
        /// The server's address.
        server: String,
        /// What is insecure about it.
        why: &'static str,
    },
    /// The API server is older than what gapscan needs.
    #[error("work with this cluster: its API server is {found}, and {needed} is needed")]
    TooOld {
        /// Its version.
        found: String,
        /// What is needed.
        needed: &'static str,
    },
    /// No answer from the API server.
    #[error("{what}: the API server can't be reached")]
    Unreachable {
        /// What was asked for.
        what: String,
        /// Why.
        source: Box<dyn StdError + Send + Sync>,
    },
    /// No answer from the API server in time.
    #[error("{what}: no answer within {} s", .after.as_secs())]
    NoAnswer {
        /// What was asked for.
        what: String,
        /// How long one request was waited for.
        after: Duration,
    },
    /// The API server is too busy, even after waiting as it asked.
    #[error("{what}: the API server is overloaded (HTTP {code})")]
    Overloaded {
        /// What was asked for.
        what: String,
        /// HTTP status.
        code: u16,
    },
    /// Not allowed.
    #[error("{what}: denied: {}", brief_message(.message))]
    Denied {
        /// What was asked for.
        what: String,
        /// HTTP status: 401 for who asks, 403 for what is asked.
        code: u16,
        /// As the API server says it.
        message: String,
    },
    /// There is no such object.
    #[error("{what}: it does not exist")]
    Missing {
        /// What was asked for.
        what: String,
    },
    /// There is another object by this name, or it changed meanwhile.
    #[error("{what}: conflict: {}", brief_message(.message))]
    Conflict {
        /// What was asked for.
        what: String,
        /// As the API server says it.
        message: String,
    },
    /// A list was read so slowly that its snapshot is gone.
    #[error("{what}: the list expired while it was read")]
    Expired {
        /// What was asked for.
        what: String,
    },
    /// Any other refusal.
    #[error("{what}: HTTP {code}: {}", brief_message(.message))]
    Rejected {
        /// What was asked for.
        what: String,
        /// HTTP status.
        code: u16,
        /// As the API server says it.
        message: String,
    },
    /// The answer is not what the API promises.
    #[error("{what}: the answer makes no sense")]
    Malformed {
        /// What was asked for.
        what: String,
        /// Why.
        source: Box<dyn StdError + Send + Sync>,
    },
    /// The answer is larger than the limit.
    #[error("{what}: the answer is larger than {limit} bytes")]
    AnswerTooLarge {
        /// What was asked for.
        what: String,
        /// The limit in bytes.
        limit: usize,
    },
    /// A list that gapscan must never ask for.
    #[error("list `{0}`: gapscan never reads secrets")]
    SecretsRefused(String),

    /// The target went away.
    #[error("reach `{target}`: it is gone")]
    TargetGone {
        /// The target's key.
        target: String,
    },
    /// The target was restarted or replaced.
    #[error("reach `{target}`: {detail}")]
    TargetChanged {
        /// The target's key.
        target: String,
        /// What is different.
        detail: String,
    },
    /// The target is there and does not run.
    #[error("reach `{target}`: {detail}")]
    TargetNotRunning {
        /// The target's key.
        target: String,
        /// The state it is in.
        detail: String,
    },
    /// The target has not the program that was to be run.
    #[error("run `{program}` in `{target}`: {}", brief_message(.message))]
    NoShell {
        /// The target's key.
        target: String,
        /// The program.
        program: String,
        /// As the runtime says it.
        message: String,
    },
    /// A command in the target took longer than its deadline.
    #[error("run a command in `{target}`: it took longer than {} s", .after.as_secs())]
    ExecTimeout {
        /// The target's key.
        target: String,
        /// The deadline.
        after: Duration,
    },
    /// The connection to a command in the target broke, and the target is still there.
    #[error("run a command in `{target}`: the connection broke: {}", brief_message(.message))]
    ExecBroken {
        /// The target's key.
        target: String,
        /// How.
        message: String,
    },

    /// A service that a scanner is to talk to can't be let through to.
    #[error("let the scanner talk to service `{service}`: {}", brief_message(.why))]
    Egress {
        /// The service, as `NAMESPACE/SERVICE:PORT`.
        service: String,
        /// What it leads to instead of pods of its namespace.
        why: String,
    },
    /// A command asks for a parameter that the profile does not give.
    #[error("fill in `${{{name}}}` in `{template}`: the profile gives no such parameter")]
    Parameter {
        /// The parameter.
        name: String,
        /// Where it is asked for.
        template: String,
    },
    /// The target did not get to the scanner as an archive.
    #[error("give the scanner its target as an archive: {}", brief_message(.detail))]
    Archive {
        /// What that means for the target.
        reason: Reason,
        /// What went wrong.
        detail: String,
    },
    /// The target's blobs can't be had.
    #[error("give the scanner its target as an archive")]
    ArchiveSource {
        /// What that means for the target.
        reason: Reason,
        /// What went wrong.
        source: Box<dyn StdError + Send + Sync>,
    },
    /// An image could not be pulled.
    #[error("start a pod: image `{image}` can't be pulled: {}", brief_message(.message))]
    ImagePull {
        /// The image, where the kubelet names it.
        image: String,
        /// As the kubelet says it.
        message: String,
    },
    /// The scanner's pod did not start in time.
    #[error("start a pod: {}", brief_message(.message))]
    NotStarted {
        /// What it was waiting for.
        message: String,
    },
    /// The scanner's pod was evicted or lost.
    #[error("run the scanner: its pod was lost: {}", brief_message(.message))]
    Evicted {
        /// As Kubernetes says it.
        message: String,
    },
    /// The scanner was killed for its memory.
    #[error("run the scanner: it was killed because it used more than its {limit} of memory")]
    OutOfMemory {
        /// The limit.
        limit: String,
    },
    /// The scanner did not end in time.
    #[error("run the scanner: it did not end within {} s", .after.as_secs())]
    ScannerTimeout {
        /// The deadline.
        after: Duration,
    },
    /// The scanner's container ended in a way that left nothing to collect.
    #[error("run the scanner: {}", brief_message(.message))]
    ScannerFailed {
        /// How it ended.
        message: String,
    },
    /// The scanner said that it succeeded and left no result.
    #[error("collect the result: `{path}`: {}", brief_message(.detail))]
    NoOutput {
        /// Where it was looked for.
        path: String,
        /// What is there instead.
        detail: String,
    },
    /// The result arrived shorter or other than announced.
    #[error("collect the result: {detail}")]
    OutputTruncated {
        /// What differs.
        detail: String,
    },
    /// What arrives can't be kept on this machine.
    #[error("keep the result while it arrives")]
    Spool(#[source] std::io::Error),
    /// Results can't be taken from pods.
    #[error("take results at {address}")]
    Uploads {
        /// Where.
        address: std::net::SocketAddr,
        /// Why.
        source: Box<dyn StdError + Send + Sync>,
    },
    /// The result is larger than the limit.
    #[error("collect the result: it has {length} bytes, and the limit is {limit}")]
    OutputTooLarge {
        /// Its length in bytes.
        length: u64,
        /// The limit in bytes.
        limit: u64,
    },
}

fn place(path: Option<&PathBuf>) -> String {
    path.map(|p| format!(" `{}`", p.display())).unwrap_or_default()
}

/// At most 400 characters of a message from outside, printable.
fn brief_message(message: &str) -> String {
    let mut short: String = message.trim().chars().take(400).collect();
    if short.len() < message.trim().len() {
        short.push('…');
    }
    crate::base::text::printable(&short).into_owned()
}

impl ClusterError {
    /// Why what was to be scanned is not evaluated because of this.
    pub fn reason(&self) -> Reason {
        match self {
            Self::Config { .. }
            | Self::Insecure { .. }
            | Self::TooOld { .. }
            | Self::Unreachable { .. }
            | Self::NoAnswer { .. }
            | Self::Overloaded { .. } => Reason::ApiUnreachable,
            Self::Denied { .. } | Self::SecretsRefused(_) => Reason::AccessDenied,
            Self::Missing { .. } => Reason::TargetNotFound,
            Self::Conflict { .. }
            | Self::Expired { .. }
            | Self::Rejected { .. }
            | Self::Malformed { .. }
            | Self::AnswerTooLarge { .. }
            | Self::Parameter { .. }
            | Self::Uploads { .. }
            | Self::Spool(_) => Reason::InternalError,
            Self::TargetGone { .. } => Reason::TargetGone,
            Self::TargetChanged { .. } => Reason::TargetChanged,
            Self::TargetNotRunning { .. } => Reason::TargetNotRunning,
            Self::NoShell { .. } => Reason::NoShell,
            Self::ExecTimeout { .. } | Self::ScannerTimeout { .. } => Reason::Timeout,
            Self::ExecBroken { .. } => Reason::CollectorFailed,
            Self::Archive { reason, .. } | Self::ArchiveSource { reason, .. } => *reason,
            Self::Egress { .. } => Reason::EgressRefused,
            Self::ImagePull { .. } => Reason::ImagePullFailed,
            Self::NotStarted { .. } => Reason::ScannerNotStarted,
            Self::Evicted { .. } => Reason::ScannerEvicted,
            Self::OutOfMemory { .. } => Reason::ScannerOutOfMemory,
            Self::ScannerFailed { .. } => Reason::ScannerFailed,
            Self::NoOutput { .. } => Reason::NoOutput,
            Self::OutputTruncated { .. } => Reason::OutputTruncated,
            Self::OutputTooLarge { .. } => Reason::OutputTooLarge,
        }
    }

    /// Whether the request surely had no effect: the API server answered and said no.
    pub(crate) fn is_refusal(&self) -> bool {
        matches!(
            self,
            Self::Denied { .. } | Self::Missing { .. } | Self::Conflict { .. } | Self::Rejected { code: 400..=499, .. }
        )
    }

    /// Whether the API server was not heard at all.
    pub(crate) fn is_silence(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::NoAnswer { .. } | Self::Overloaded { .. })
    }

    /// An answer that does not fit, with what is wrong about it.
    pub(crate) fn malformed(what: impl Into<String>, why: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self::Malformed { what: what.into(), source: why.into() }
    }

    /// Which API server message, shown shortly.
    pub(crate) fn from_status(what: &str, code: u16, message: String) -> Self {
        let what = what.to_owned();
        match code {
            401 | 403 => Self::Denied { what, code, message },
            404 => Self::Missing { what },
            409 => Self::Conflict { what, message },
            410 => Self::Expired { what },
            429 | 503 | 504 => Self::Overloaded { what, code },
            _ => Self::Rejected { what, code, message },
        }
    }
}

impl Classify for ClusterError {
    fn class(&self) -> ExitClass {
        match self {
            Self::Config { .. } | Self::Insecure { .. } | Self::Parameter { .. } | Self::SecretsRefused(_) => {
                ExitClass::Usage
            }
            Self::TooOld { .. }
            | Self::Unreachable { .. }
            | Self::NoAnswer { .. }
            | Self::Overloaded { .. }
            | Self::Denied { .. }
            | Self::Missing { .. }
            | Self::Conflict { .. }
            | Self::Expired { .. }
            | Self::Rejected { .. }
            | Self::Malformed { .. }
            | Self::AnswerTooLarge { .. }
            | Self::Uploads { .. }
            | Self::Spool(_) => ExitClass::Unreachable,
            Self::TargetGone { .. }
            | Self::TargetChanged { .. }
            | Self::TargetNotRunning { .. }
            | Self::NoShell { .. }
            | Self::ExecTimeout { .. }
            | Self::ExecBroken { .. }
            | Self::Archive { .. }
            | Self::ArchiveSource { .. }
            | Self::Egress { .. }
            | Self::ImagePull { .. }
            | Self::NotStarted { .. }
            | Self::Evicted { .. }
            | Self::OutOfMemory { .. }
            | Self::ScannerTimeout { .. }
            | Self::ScannerFailed { .. }
            | Self::NoOutput { .. }
            | Self::OutputTruncated { .. }
            | Self::OutputTooLarge { .. } => ExitClass::NotEvaluated,
        }
    }

    fn remedy(&self) -> Option<String> {
        match self {
            Self::Config { .. } => {
                Some("name a kubeconfig with --kubeconfig or KUBECONFIG, and a context in it".to_owned())
            }
            Self::Insecure { .. } => Some(
                "put the cluster's CA into the kubeconfig as certificate-authority-data; there is no off switch"
                    .to_owned(),
            ),
            Self::Unreachable { .. } | Self::NoAnswer { .. } => Some(
                "see that the address in the kubeconfig can be reached from here, and that the API server runs"
                    .to_owned(),
            ),
            Self::Denied { .. } => Some("`gapscan doctor` lists what gapscan needs to be allowed".to_owned()),
            Self::ImagePull { image, .. } => Some(format!(
                "see that the node can pull `{}` from the registry: address, CA and credentials in the node's runtime",
                brief(image)
            )),
            Self::Spool(_) => Some("see that there is room in the folder of the ledger".to_owned()),
            Self::Uploads { .. } => {
                Some("name an address of this machine that pods reach, with a port that nobody listens on".to_owned())
            }
            Self::OutOfMemory { .. } => Some("raise `memory` in the scanner's definition".to_owned()),
            Self::ScannerTimeout { .. } => Some("raise `deadline` in the scanner's definition".to_owned()),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_server_says_is_shown_clean_and_short() {
        let error = ClusterError::from_status("get pod a/b", 403, format!("no\u{1b}[2J{}", "x".repeat(1000)));
        let text = error.to_string();
        assert!(text.starts_with("get pod a/b: denied: no\\u{1b}[2Jxxx") && text.len() < 500, "{text}");
        assert_eq!(error.reason(), Reason::AccessDenied);
    }

    #[test]
    fn a_parameter_is_named_as_it_is_written() {
        let error = ClusterError::Parameter { name: "level".to_owned(), template: "--level=${level}".to_owned() };
        assert_eq!(error.to_string(), "fill in `${level}` in `--level=${level}`: the profile gives no such parameter");
    }
}
