//! Parsers of scanner results, and their reduction to what was expected.
//!
//! A result comes from a scanner that ran on somebody else's files. What it may do, and where each is stopped:
//!
//! | attack or accident | stopped in |
//! |---|---|
//! | no output, an empty file | [`parse`]: [`ResultsError::Empty`] |
//! | gigabytes of output, millions of findings | [`parse`] and the parsers: [`result_bytes`](crate::base::limits::Limits::result_bytes), [`result_items`](crate::base::limits::Limits::result_items) |
//! | names and messages that fill the memory | `event`: [`result_held_bytes`](crate::base::limits::Limits::result_held_bytes) |
//! | output that was cut | the parsers: a document that ends early is no document |
//! | valid JSON or XML of another tool | [`detect`], and the parsers: they look for what only theirs has |
//! | invalid UTF-8 | the parsers: refused |
//! | XML: DTD, entities, nesting, huge tags | `xml`: refused before anything is made of them |
//! | JSON: nesting, keys that are there twice, endless texts | `json`: refused, or cut |
//! | a control that is missing, there twice, or not expected | `collect`, [`merge`] |
//! | a status word that is not known | the parsers: not evaluated |
//! | nothing was applicable, no package was seen, and all is green | [`merge`], [`grype`]: not evaluated |
//! | escapes, HTML, formulas in names | kept as they are, neutralised by whoever shows them |

mod by_severity;
mod clair;
mod collect;
mod cyclonedx;
pub mod detect;
mod error;
mod event;
pub mod expected;
mod falco;
pub mod grype;
mod inspec;
mod inventory;
mod json;
mod junit;
mod kube_bench;
pub mod merge;
mod origin;
mod read;
mod releases;
mod sarif;
mod severity;
mod spdx;
mod summary;
mod syft;
mod taken;
mod trivy;
pub mod vulnerabilities;
pub mod xccdf;
mod xml;

pub use error::ResultsError;
pub use event::{Component, FindingKind, Rating, Reported, Scanner};
pub use falco::Alert;
pub use origin::{Origin, Subject, origin};
pub use read::{Parsed, parse, summarise};
pub use summary::{ControlView, NotEvaluated, Summary};
pub use taken::{Taken, WHOLE_CONTROL, control_id, nothing_declared, profile_name, whole_control};

#[cfg(test)]
mod tests;
