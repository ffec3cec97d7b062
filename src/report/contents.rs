//! What a report is made of, whatever its format.

use jiff::Timestamp;

use crate::base::digest::Digest;
use crate::base::exit::{Classify, ExitClass};
use crate::model::agreement::{Comparison, approaches, replicas, workloads};
use crate::model::control::Control;
use crate::model::coverage::{Coverage, CoverageError};
use crate::model::finding::Finding;
use crate::model::profile::Profile;
use crate::model::record::{Event, ExpectedTask, RunEnd, RunId, RunStart, TaskRecord};
use crate::model::target::Target;
use crate::model::waiver::{self, WaiverNotice};

/// Everything that a report shows.
#[derive(Clone, Debug)]
pub struct Report {
    /// When it was made.
    pub generated: Timestamp,
    /// The version of gapscan that made it.
    pub gapscan: String,
    /// One line, the reader's name for this report.
    pub title: String,
    /// The marking that is shown first and last, as `UNCLASSIFIED`; where there are several, `CUI + SECRET`.
    pub classification: Option<String>,
    /// Which results are in it.
    pub scope: Scope,
    /// The ledger that it was made from.
    pub ledger: LedgerRef,
    /// The results, in the order in which they are shown.
    pub tasks: Vec<ReportTask>,
    /// Earlier results of the same targets and profiles that were come by in other ways: shown beside these, and in no count.
    pub earlier: Vec<TaskRecord>,
    /// The runs that the results come from, and those that still owe results.
    pub runs: Vec<ReportRun>,
    /// What else was recorded: missed schedules, loads, refusals.
    pub events: Vec<Event>,
}

/// Which results are in a report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope {
    /// Of which runs.
    pub selection: Selection,
    /// Of which targets, as they were asked for; empty for all.
    pub targets: Vec<String>,
}

/// Of which runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Selection {
    /// The latest result of each target, engine and profile, from whichever run.
    Latest,
    /// The results of one run.
    Run(RunId),
}

/// Names the ledger that a report was made from, at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LedgerRef {
    /// Its file name, without the folders above it.
    pub name: String,
    /// What tells this ledger from every other: the UUID in its first entry.
    pub id: String,
    /// The number of its last entry.
    pub sequence: u64,
    /// The digest of its last entry, which covers all entries before it.
    pub head: Digest,
    /// Whether it is intact.
    pub state: LedgerState,
}

/// What the check of the ledger came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LedgerState {
    /// The whole chain was checked and holds.
    Intact,
    /// It does not hold, for this reason. Nothing that was read from it can be relied on.
    NotIntact(String),
}

/// One result with the profile that it was judged by. Made only by [`ReportTask::new`], which counts again.
#[derive(Clone, Debug)]
pub struct ReportTask {
    record: TaskRecord,
    profile: Profile,
}

/// One run of the report.
#[derive(Clone, Debug)]
pub struct ReportRun {
    /// How it began.
    pub start: RunStart,
    /// How and when it ended; absent while it goes on, or when it died and nobody has noticed yet.
    pub end: Option<(RunEnd, Timestamp)>,
    /// When it was taken up again after its runner had died.
    pub resumed: Vec<Timestamp>,
    /// What it was to do and has recorded no result of.
    pub unrecorded: Vec<ExpectedTask>,
}

/// A result that a report can't be made from.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// The profile is another than the one that the result names.
    #[error("report on `{target}`: profile `{profile}` has another digest than the result names")]
    OtherProfile {
        /// The target's key.
        target: String,
        /// The profile's name.
        profile: String,
    },
    /// The findings are not what the profile asks for.
    #[error("report on `{target}` by profile `{profile}`")]
    Account {
        /// The target's key.
        target: String,
        /// The profile's name.
        profile: String,
        /// What does not fit.
        source: CoverageError,
    },
    /// The recorded counts are not those of the recorded findings.
    #[error("report on `{target}` by profile `{profile}`: the recorded counts are not those of its findings")]
    OtherCounts {
        /// The target's key.
        target: String,
        /// The profile's name.
        profile: String,
    },
}

impl Classify for ReportError {
    fn class(&self) -> ExitClass {
        match self {
            Self::OtherProfile { .. } | Self::Account { .. } | Self::OtherCounts { .. } => ExitClass::Ledger,
        }
    }

    fn remedy(&self) -> Option<String> {
        Some("what the ledger holds does not fit together: run `gapscan ledger verify` and restore a backup".to_owned())
    }
}

impl ReportTask {
    /// The result of one task, after its findings were counted again against its profile.
    ///
    /// # Errors
    /// When the profile is not the one that the result names, or the findings or counts don't fit it.
    pub fn new(record: TaskRecord, profile: Profile) -> Result<Self, ReportError> {
        let target = || crate::base::text::brief(&record.target.key());
        let name = || crate::base::text::brief(&profile.name);
        if profile.digest() != record.profile.digest {
            return Err(ReportError::OtherProfile { target: target(), profile: name() });
        }
        match Coverage::of(&profile, &record.findings) {
            Err(source) => Err(ReportError::Account { target: target(), profile: name(), source }),
            Ok(coverage) if coverage != record.coverage => {
                Err(ReportError::OtherCounts { target: target(), profile: name() })
            }
            Ok(_) => Ok(Self { record, profile }),
        }
    }

    /// The result.
    pub fn record(&self) -> &TaskRecord {
        &self.record
    }

    /// The profile that it was judged by.
    pub fn profile(&self) -> &Profile {
        &self.profile
    }

    /// Each control with its finding, in the profile's order.
    pub fn judged(&self) -> impl Iterator<Item = (&Control, &Finding)> {
        let findings: std::collections::HashMap<&str, &Finding> =
            self.record.findings.iter().map(|f| (f.control.as_str(), f)).collect();
        self.profile.controls.iter().map(move |control| {
            (control, *findings.get(control.id.as_str()).expect("the constructor found one finding for each control"))
        })
    }
}

impl Report {
    /// All counts of all results together.
    pub fn coverage(&self) -> Coverage {
        self.tasks.iter().fold(Coverage::default(), |sum, task| sum.plus(task.record.coverage))
    }

    /// What is to be known of the waivers of these results.
    pub fn waiver_notices(&self) -> Vec<WaiverNotice> {
        waiver::notices(self.tasks.iter().map(ReportTask::record), &self.events, self.generated)
    }

    /// The results that answer one question, side by side: replicas, and ways to one target.
    pub fn compared(&self) -> Vec<Comparison> {
        let records = || self.tasks.iter().map(ReportTask::record);
        let mut compared = replicas(records(), &workloads(self.runs.iter().map(|run| &run.start)));
        compared.extend(approaches(records().chain(&self.earlier)));
        compared
    }

    /// Tasks that a run was to do and has recorded no result of.
    pub fn unrecorded(&self) -> impl Iterator<Item = (&ReportRun, &ExpectedTask)> {
        self.runs.iter().flat_map(|run| run.unrecorded.iter().map(move |task| (run, task)))
    }
}

impl LedgerState {
    /// Why the ledger can't be relied on; `None` when it can.
    pub fn problem(&self) -> Option<&str> {
        match self {
            Self::Intact => None,
            Self::NotIntact(problem) => Some(problem),
        }
    }
}

/// What tells this target from another of the same name, as it was when it was scanned: a digest or a UID, and the host's
/// name for a host; `unknown` where it was never found.
pub(super) fn identity(target: &Target) -> String {
    let unknown = || "unknown".to_owned();
    match target {
        Target::Host { name } => name.clone(),
        Target::Container { digest: Some(digest), .. } | Target::Image { digest: Some(digest), .. } => {
            digest.to_string()
        }
        Target::Container { uid, digest: None, .. } => uid.clone().unwrap_or_else(unknown),
        Target::Image { digest: None, .. } => unknown(),
        Target::Node { uid, .. } | Target::Cluster { uid, .. } => uid.clone().unwrap_or_else(unknown),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample;

    #[test]
    fn a_result_is_counted_again() {
        let task = sample::report().tasks.swap_remove(0);
        let (record, profile) = (task.record, task.profile);

        let mut other = profile.clone();
        other.controls[0].title.push('!');
        assert!(matches!(ReportTask::new(record.clone(), other), Err(ReportError::OtherProfile { .. })));

        let mut lost = record.clone();
        lost.findings.pop();
        assert!(matches!(ReportTask::new(lost, profile.clone()), Err(ReportError::Account { .. })));

        let mut greener = record;
        greener.coverage = greener.coverage.plus(greener.coverage);
        assert!(matches!(ReportTask::new(greener, profile), Err(ReportError::OtherCounts { .. })));
    }

    #[test]
    fn the_sum_of_the_tasks_is_the_reports() {
        let report = sample::report();
        let expected: u64 = report.tasks.iter().map(|t| t.record().findings.len() as u64).sum();
        assert_eq!(report.coverage().expected(), expected);
        for task in &report.tasks {
            assert!(task.judged().all(|(control, finding)| control.id == finding.control));
        }
    }
}
