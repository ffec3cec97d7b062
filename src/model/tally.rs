//! How many ended in which way.

use serde::ser::{Serialize, SerializeStruct as _, Serializer};

use super::outcome::Status;

/// How many of some controls or findings ended in which way. The total is always the sum.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// As it should be.
    pub passed: u64,
    /// Not as it should be.
    pub failed: u64,
    /// Without a bearing.
    pub not_applicable: u64,
    /// Accepted for now.
    pub waived: u64,
    /// Not evaluated.
    pub not_evaluated: u64,
}

impl Tally {
    /// Counts one more.
    pub fn add(&mut self, status: Status) {
        *match status {
            Status::Passed => &mut self.passed,
            Status::Failed => &mut self.failed,
            Status::NotApplicable => &mut self.not_applicable,
            Status::Waived => &mut self.waived,
            Status::NotEvaluated => &mut self.not_evaluated,
        } += 1;
    }

    /// How many ended so.
    pub fn count(&self, status: Status) -> u64 {
        match status {
            Status::Passed => self.passed,
            Status::Failed => self.failed,
            Status::NotApplicable => self.not_applicable,
            Status::Waived => self.waived,
            Status::NotEvaluated => self.not_evaluated,
        }
    }

    /// How many there are. Numbers from outside that don't fit saturate, and so fit no other sum.
    pub fn total(&self) -> u64 {
        Status::ALL.iter().fold(0, |sum: u64, status| sum.saturating_add(self.count(*status)))
    }

    /// Both together.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            passed: self.passed + other.passed,
            failed: self.failed + other.failed,
            not_applicable: self.not_applicable + other.not_applicable,
            waived: self.waived + other.waived,
            not_evaluated: self.not_evaluated + other.not_evaluated,
        }
    }
}

impl FromIterator<Status> for Tally {
    fn from_iter<I: IntoIterator<Item = Status>>(statuses: I) -> Self {
        let mut tally = Self::default();
        statuses.into_iter().for_each(|status| tally.add(status));
        tally
    }
}

impl Serialize for Tally {
    /// `total` and the five counts.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut tally = serializer.serialize_struct("Tally", 6)?;
        tally.serialize_field("total", &self.total())?;
        tally.serialize_field("passed", &self.passed)?;
        tally.serialize_field("failed", &self.failed)?;
        tally.serialize_field("notApplicable", &self.not_applicable)?;
        tally.serialize_field("waived", &self.waived)?;
        tally.serialize_field("notEvaluated", &self.not_evaluated)?;
        tally.end()
    }
}
