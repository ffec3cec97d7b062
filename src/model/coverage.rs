//! How much of what was expected was evaluated.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use super::finding::Finding;
use super::outcome::Status;
use super::profile::Profile;
use super::tally::Tally;

/// Counts of outcomes. `expected` is always their sum: the only constructors see to it, and reading one checks it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "RawCoverage", into = "RawCoverage")]
pub struct Coverage {
    tally: Tally,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RawCoverage {
    expected: u64,
    passed: u64,
    failed: u64,
    not_applicable: u64,
    waived: u64,
    not_evaluated: u64,
}

/// Findings that don't fit what was expected.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum CoverageError {
    /// A control that was expected has no finding.
    #[error("account for control `{0}`: it was expected and has no outcome")]
    Missing(String),
    /// A control has two findings.
    #[error("account for control `{0}`: it has two outcomes")]
    Twice(String),
    /// A finding for a control that was not expected.
    #[error("account for control `{0}`: it was not expected")]
    Unexpected(String),
    /// Stored counts don't add up.
    #[error("account for controls: {expected} were expected, and {sum} have an outcome")]
    Sum {
        /// What was expected.
        expected: u64,
        /// The sum of outcomes.
        sum: u64,
    },
}

impl Coverage {
    /// Counts the findings of one target against the profile that was expected of it.
    ///
    /// # Errors
    /// When a control of the profile has no finding or two, or a finding is for no control of it.
    pub fn of(profile: &Profile, findings: &[Finding]) -> Result<Self, CoverageError> {
        let mut open: HashMap<&str, bool> = profile.controls.iter().map(|c| (c.id.as_str(), false)).collect();
        let mut coverage = Self::default();
        for finding in findings {
            match open.get_mut(finding.control.as_str()) {
                None => return Err(CoverageError::Unexpected(finding.control.clone())),
                Some(done) if *done => return Err(CoverageError::Twice(finding.control.clone())),
                Some(done) => *done = true,
            }
            coverage.tally.add(finding.outcome.status());
        }
        match profile.controls.iter().find(|c| !open[c.id.as_str()]) {
            Some(control) => Err(CoverageError::Missing(control.id.clone())),
            None => Ok(coverage),
        }
    }

    /// Counts outcomes as they are, whatever was expected.
    pub fn counted(statuses: impl IntoIterator<Item = Status>) -> Self {
        Self { tally: statuses.into_iter().collect() }
    }

    /// How many outcomes were expected.
    pub fn expected(&self) -> u64 {
        self.tally.total()
    }

    /// How many ended so.
    pub fn count(&self, status: Status) -> u64 {
        self.tally.count(status)
    }

    /// Both together.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self { tally: self.tally.plus(other.tally) }
    }

    /// Whether something was expected and all of it was evaluated.
    pub fn is_complete(&self) -> bool {
        self.expected() > 0 && self.tally.not_evaluated == 0
    }

    /// Passed of all that has a bearing, in percent rounded down, so that 100 means all: `passed / (passed + failed +
    /// waived + not evaluated)`. What was not evaluated and what is only waived lower it. `None` where nothing has a bearing.
    pub fn score(&self) -> Option<u64> {
        let bearing = self.expected() - self.tally.not_applicable;
        (bearing > 0).then(|| self.tally.passed * 100 / bearing)
    }
}

impl TryFrom<RawCoverage> for Coverage {
    type Error = CoverageError;

    fn try_from(raw: RawCoverage) -> Result<Self, CoverageError> {
        let RawCoverage { expected, passed, failed, not_applicable, waived, not_evaluated } = raw;
        let tally = Tally { passed, failed, not_applicable, waived, not_evaluated };
        let sum = tally.total();
        if sum != expected {
            return Err(CoverageError::Sum { expected, sum });
        }
        Ok(Self { tally })
    }
}

impl From<Coverage> for RawCoverage {
    fn from(coverage: Coverage) -> Self {
        let Tally { passed, failed, not_applicable, waived, not_evaluated } = coverage.tally;
        Self { expected: coverage.expected(), passed, failed, not_applicable, waived, not_evaluated }
    }
}

#[cfg(test)]
mod tests;
