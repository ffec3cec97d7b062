//! How one expected control of one target ended.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::reason::Reason;
use crate::base::digest::Digest;

/// How one expected control of one target ended: exactly one of five. There is no sixth, no default, and nothing turns
/// into [`Outcome::Passed`] that was not evaluated as passed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "kebab-case", rename_all_fields = "camelCase")]
pub enum Outcome {
    /// Evaluated, and as it should be.
    Passed,
    /// Evaluated, and not as it should be.
    Failed,
    /// Evaluated to have no bearing on this target.
    NotApplicable {
        /// The scanner's reason.
        reason: String,
    },
    /// Failed, and accepted for now by a waiver that has not expired.
    Waived {
        /// The digest of the waiver document.
        waiver: Digest,
        /// The waiver's id in it.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        id: String,
        /// Why.
        justification: String,
        /// When it stops to count.
        until: Timestamp,
    },
    /// Not evaluated. Never a pass.
    NotEvaluated {
        /// Why, as a code.
        reason: Reason,
        /// Why, in this case.
        detail: String,
    },
}

impl Outcome {
    /// Not evaluated for this reason.
    pub fn not_evaluated(reason: Reason, detail: impl Into<String>) -> Self {
        Self::NotEvaluated { reason, detail: detail.into() }
    }

    /// Which of the five.
    pub fn status(&self) -> Status {
        match self {
            Self::Passed => Status::Passed,
            Self::Failed => Status::Failed,
            Self::NotApplicable { .. } => Status::NotApplicable,
            Self::Waived { .. } => Status::Waived,
            Self::NotEvaluated { .. } => Status::NotEvaluated,
        }
    }
}

/// The five outcomes without what goes with them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    /// [`Outcome::Failed`]
    Failed,
    /// [`Outcome::NotEvaluated`]
    NotEvaluated,
    /// [`Outcome::Waived`]
    Waived,
    /// [`Outcome::Passed`]
    Passed,
    /// [`Outcome::NotApplicable`]
    NotApplicable,
}

impl Status {
    /// All, what needs attention first.
    pub const ALL: [Self; 5] = [Self::Failed, Self::NotEvaluated, Self::Waived, Self::Passed, Self::NotApplicable];

    /// The kebab-case word in documents.
    pub fn code(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::NotEvaluated => "not-evaluated",
            Self::Waived => "waived",
            Self::Passed => "passed",
            Self::NotApplicable => "not-applicable",
        }
    }
}

impl std::fmt::Display for Status {
    /// The words for people: `not evaluated`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(&self.code().replace('-', " "))
    }
}
