//! The controls of scanners that list vulnerabilities and have no controls of their own: the absence of any of one severity.
//!
//! | control | the scanner's severity |
//! |---|---|
//! | `no-critical-vulnerabilities` | critical |
//! | `no-high-vulnerabilities` | high, important |
//! | `no-medium-vulnerabilities` | medium, moderate |
//! | `no-low-vulnerabilities` | low, minor, negligible |
//! | `no-unrated-vulnerabilities` | unknown, none, and any word that is not known |

use super::event::{Declared, Out};
use super::{ResultsError, severity};
use crate::model::control::Severity;

/// The controls, in the order of severity.
pub const CONTROLS: [&str; 5] = [
    "no-critical-vulnerabilities",
    "no-high-vulnerabilities",
    "no-medium-vulnerabilities",
    "no-low-vulnerabilities",
    "no-unrated-vulnerabilities",
];

/// Which of [`CONTROLS`] a vulnerability of this severity fails, and the severity that it has here.
pub(crate) fn control_of(word: &str) -> (usize, Severity) {
    match severity::rated(word) {
        Some(severity @ Severity::Critical) => (0, severity),
        Some(severity @ Severity::High) => (1, severity),
        Some(severity @ Severity::Medium) => (2, severity),
        Some(severity @ Severity::Low) => (3, severity),
        Some(severity @ Severity::None) => (4, severity),
        None => (4, Severity::Medium),
    }
}

/// Says that there is this one of [`CONTROLS`].
pub(crate) fn declare(out: &mut Out<'_>, control: usize) -> Result<(), ResultsError> {
    let severity = [Severity::Critical, Severity::High, Severity::Medium, Severity::Low, Severity::Medium][control];
    let word = ["critical", "high", "medium", "low", "unrated"][control];
    out.control(Declared {
        id: CONTROLS[control].to_owned(),
        title: format!("No component has a known vulnerability of {word} severity"),
        severity,
        references: Vec::new(),
        not_applicable: None,
    })
}
