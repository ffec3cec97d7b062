//! What was found about one control of one target.

use serde::{Deserialize, Serialize};

use super::outcome::Outcome;

/// The verdict on one control of one target, and what it rests on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Finding {
    /// The control's id in its profile.
    pub control: String,
    /// The verdict.
    #[serde(flatten)]
    pub outcome: Outcome,
    /// What it rests on, item by item: the objects, files or packages that were judged and are worth naming.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub details: Vec<Detail>,
    /// How many more details there were than are kept here (the evidence has them all).
    #[serde(default, skip_serializing_if = "is_zero")]
    pub details_omitted: u64,
}

fn is_zero(n: &u64) -> bool {
    *n == 0
}

/// One item that a verdict rests on. Texts may come from a hostile target: whoever shows them neutralises them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Detail {
    /// What was judged: a path, a package, an object.
    pub subject: String,
    /// What was seen.
    pub message: String,
}

impl Detail {
    /// A detail.
    pub fn new(subject: impl Into<String>, message: impl Into<String>) -> Self {
        Self { subject: subject.into(), message: message.into() }
    }
}

impl Finding {
    /// A finding without details.
    pub fn new(control: impl Into<String>, outcome: Outcome) -> Self {
        Self { control: control.into(), outcome, details: Vec::new(), details_omitted: 0 }
    }

    /// The same with details, of which at most `limit` are kept and the others counted.
    #[must_use]
    pub fn with_details(mut self, details: impl IntoIterator<Item = Detail>, limit: usize) -> Self {
        for detail in details {
            if self.details.len() < limit { self.details.push(detail) } else { self.details_omitted += 1 }
        }
        self
    }
}
