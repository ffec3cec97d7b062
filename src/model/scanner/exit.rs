//! What a scanner says by its exit code, and whether its result says the same.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::model::outcome::Status;
use crate::model::tally::Tally;

/// What an exit code means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ExitMeaning {
    /// The scan is whole; what it found is in the result. For scanners whose code says nothing of what they found.
    Complete,
    /// The scan is whole, and not everything was as it should be.
    Findings,
    /// The scan is whole, and nothing failed.
    Clean,
    /// The scan is whole and nothing failed, but something was not evaluated.
    Skipped,
    /// The scan failed; whatever result there is does not count.
    Failed,
}

impl ExitMeaning {
    /// The word in documents.
    pub fn word(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::Findings => "findings",
            Self::Clean => "clean",
            Self::Skipped => "skipped",
            Self::Failed => "failed",
        }
    }

    /// Whether a scanner that ends so did all its work, so that what it does not tell of may mean something.
    pub fn is_whole(self) -> bool {
        match self {
            Self::Complete | Self::Findings | Self::Clean => true,
            Self::Skipped | Self::Failed => false,
        }
    }

    /// How a whole result contradicts it; `None` where it doesn't. `reported` counts all controls that the result names,
    /// expected or not.
    ///
    /// What a scanner counts as a failure and gapscan as not evaluated (a check that broke) fits [`Self::Findings`]. A result
    /// without any control fits [`Self::Skipped`]: InSpec skips whole profiles so.
    pub fn contradiction(self, reported: &Tally) -> Option<String> {
        let count = |status| reported.count(status);
        let (failed, unclear) = (count(Status::Failed), count(Status::NotEvaluated) + count(Status::Waived));
        match self {
            Self::Complete | Self::Failed => None,
            Self::Clean | Self::Findings if reported.total() == 0 => {
                Some("its result does not name a single control".to_owned())
            }
            Self::Clean | Self::Skipped if failed > 0 => {
                Some(format!("in its result {failed} of {} controls failed", reported.total()))
            }
            Self::Findings if failed + unclear == 0 => {
                Some(format!("in its result none of {} controls failed", reported.total()))
            }
            Self::Skipped if reported.total() > 0 && unclear + count(Status::NotApplicable) == 0 => {
                Some(format!("in its result all {} controls passed", reported.total()))
            }
            Self::Clean | Self::Findings | Self::Skipped => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_and_a_result_that_can_not_both_be_true_contradict_each_other() {
        use ExitMeaning::{Clean, Complete, Failed, Findings, Skipped};
        use Status::{Failed as F, NotApplicable as N, NotEvaluated as E, Passed as P, Waived as W};
        let cases: [(&[Status], &[ExitMeaning]); 8] = [
            (&[], &[Clean, Findings]),
            (&[P], &[Findings, Skipped]),
            (&[P, F], &[Clean, Skipped]),
            (&[P, E], &[]),
            (&[P, N], &[Findings]),
            (&[P, W], &[]),
            (&[E, F], &[Clean, Skipped]),
            (&[N], &[Findings]),
        ];
        for (statuses, contradicted) in cases {
            let reported: Tally = statuses.iter().copied().collect();
            for meaning in [Complete, Findings, Clean, Skipped, Failed] {
                let found = meaning.contradiction(&reported);
                assert_eq!(found.is_some(), contradicted.contains(&meaning), "{statuses:?} {meaning:?}: {found:?}");
            }
        }
    }
}
