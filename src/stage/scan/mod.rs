//! A scan: what is asked for becomes a list of expected tasks, each task is reached and judged, and every one of them ends in
//! the ledger.
//!
//! * [`content`](self): which engines and profiles there are, from the binary and from a verified bundle.
//! * `select`: which targets are meant, and which profiles fit them.
//! * `expected`: what is expected of each target, and how it is to be reached.
//! * `dispatch`: owns the run; one record for each expected task, whatever happens. What may start next is in `budget`, what
//!   is left alone for a while in `breaker`.
//! * `account`: the records of what was not evaluated at all.
//! * `unit`: one target by one engine; beside it one file for each way to reach a target.
//! * `reached`: what came of that, and the records of it.
//! * `known`: the images whose facts the ledger has already.
//! * `inputs`: what a profile is told, and how secret values are kept out of the record.
//! * `pull`: what the cluster's nodes pull the images with.
//! * `resume`: a run of which the runner died, taken up again.
//! * `upload`: where results come in, if they are not fetched.
//! * `session`: what a run sets up in the cluster, proves, and removes again.

pub mod account;
mod archive;
mod breaker;
mod budget;
mod container;
pub(crate) mod content;
pub mod dispatch;
mod egress;
mod error;
mod expected;
mod external;
mod host;
mod image;
mod inputs;
mod isolation;
mod known;
mod network;
mod node;
mod objects;
pub(crate) mod pull;
mod reached;
mod resume;
mod run;
mod select;
mod session;
mod unit;
mod upload;

pub use dispatch::{RunSummary, Stop, Stopping};
pub use error::ScanError;
pub(crate) use error::chain as error_chain;
pub(crate) use resume::by_itself;
pub use resume::{ResumeRequest, newest_unfinished, resume};
pub(crate) use run::{CLUSTER_EVENT, content_for, scan_by};
pub use run::{Explanation, ScanRequest, explain, scan};
pub(crate) use session::ABANDONED;

use crate::model::coverage::Coverage;
use crate::model::outcome::Status;

/// The counts in words: `12 expected = 3 failed + 1 not evaluated + 8 passed`.
pub fn words(coverage: Coverage) -> String {
    let parts: Vec<String> =
        Status::ALL.iter().filter(|s| coverage.count(**s) > 0).map(|s| format!("{} {s}", coverage.count(*s))).collect();
    if parts.is_empty() {
        return "nothing was expected".to_owned();
    }
    format!("{} expected = {}", coverage.expected(), parts.join(" + "))
}
