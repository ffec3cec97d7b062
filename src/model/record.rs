//! What is recorded: runs, and the result of each (target x engine x profile).

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::coverage::{Coverage, CoverageError};
use super::evidence::{Evidence, EvidenceRef};
use super::finding::Finding;
use super::outcome::{Outcome, Status};
use super::profile::{Profile, ProfileRef};
use super::provenance::{BundleRef, Provenance};
use super::reason::Reason;
use super::target::Target;
use super::waiver::{self, WaiverDocument, WaiverRef};
use crate::base::digest::Digest;

/// Names a run. Sorts by time (UUID version 7, RFC 9562).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RunId(Uuid);

impl RunId {
    /// A new one.
    pub fn new() -> Self {
        Self(Uuid::now_v7())
    }

    /// Twelve hexadecimal digits from the random end, for names of objects in a cluster.
    pub fn short(&self) -> String {
        self.0.simple().to_string()[20..].to_owned()
    }
}

impl Default for RunId {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for RunId {
    type Err = uuid::Error;

    fn from_str(text: &str) -> Result<Self, uuid::Error> {
        Uuid::from_str(text).map(Self)
    }
}

/// What set a run off.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "by", rename_all = "kebab-case", rename_all_fields = "camelCase")]
pub enum Trigger {
    /// Somebody asked for it.
    Manual,
    /// A schedule.
    Schedule {
        /// The plan's name.
        plan: String,
        /// The time it was due.
        due: Timestamp,
    },
    /// Somebody had a result already, as a file: nothing was scanned.
    Import {
        /// The user of the operating system.
        user: String,
    },
    /// Alerts that came by themselves: nothing was scanned.
    Alerts {
        /// Who sent them: `falco`.
        source: String,
    },
}

/// One task that a run is to do: recorded before it starts, so that a run that dies leaves a trace of all it did not do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExpectedTask {
    /// What is to be scanned.
    pub target: Target,
    /// The engine's or scanner's name.
    pub engine: String,
    /// By which profile.
    pub profile: ProfileRef,
    /// Of a container that ran when the run began, its ID at the runtime: it tells whether the container was started anew
    /// since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub incarnation: Option<String>,
    /// Of a container that ran when the run began, what controls its pod, as `NAMESPACE/ReplicaSet/NAME`: what its replicas
    /// have in common.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workload: Option<String>,
}

/// The start of a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RunStart {
    /// The run.
    pub run: RunId,
    /// What set it off.
    pub trigger: Trigger,
    /// When.
    pub started: Timestamp,
    /// The targets as they were asked for.
    pub requested: Vec<String>,
    /// The classification marking of the bundle that it uses, which is that of all that comes of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub classification: Option<String>,
    /// The verified bundle that its scanners and profiles come from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bundle: Option<BundleRef>,
    /// Everything that it is to do.
    pub expected: Vec<ExpectedTask>,
}

impl RunStart {
    /// Whether it is to scan anything: what came as a file or as alerts can't be gone on with.
    pub fn is_scan(&self) -> bool {
        match self.trigger {
            Trigger::Manual | Trigger::Schedule { .. } => true,
            Trigger::Import { .. } | Trigger::Alerts { .. } => false,
        }
    }

    /// Names the series of runs that ask the same question: the same targets in the same words, by the same engines and
    /// profiles. A later run of a series replaces an earlier one as the answer.
    pub fn series(&self) -> Digest {
        let requested: BTreeSet<&str> = self.requested.iter().map(String::as_str).collect();
        let asked: BTreeSet<(&str, &str)> =
            self.expected.iter().map(|task| (task.engine.as_str(), task.profile.name.as_str())).collect();
        let question = serde_json::to_vec(&(requested, asked)).expect("lists of texts always have a JSON form");
        Digest::of(question)
    }
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RunEnd {
    /// Every expected task has a result.
    Completed,
    /// It was told to stop; what it had not done is recorded as not evaluated.
    Drained,
    /// It died; what it had not done was recorded as not evaluated by a later process.
    Interrupted,
}

/// The event that says that a run, its subject, was taken up again after its runner had died. What had a result then has it
/// still, and nothing of that was done twice.
pub const RUN_RESUMED: &str = "run-resumed";

/// Something that belongs in the record and is no result: a schedule that was missed, a load, a refusal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Event {
    /// When it was noticed.
    pub at: Timestamp,
    /// A kebab-case word: `schedule-missed`, `schedule-overlap`, `bundle-loaded`, `policy-not-enforced` ...
    pub what: String,
    /// What it is about: a scan of a plan as `PLAN/SCAN`, a bundle, a run.
    pub subject: String,
    /// The due time that it is about, where it is about one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub due: Option<Timestamp>,
    /// A sentence.
    pub detail: String,
}

/// The result of one task as the ledger keeps it. Made only by [`CheckedTask`], and by reading the ledger.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TaskRecord {
    /// The run that it belongs to.
    pub run: RunId,
    /// What was scanned.
    pub target: Target,
    /// By which profile.
    pub profile: ProfileRef,
    /// Where the verdicts come from.
    pub provenance: Provenance,
    /// The count of outcomes.
    pub coverage: Coverage,
    /// One finding for each control of the profile, in the profile's order.
    pub findings: Vec<Finding>,
    /// What it rests on.
    pub evidence: Vec<EvidenceRef>,
    /// The documents of waivers that had to do with it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub waivers: Vec<WaiverRef>,
    /// Things worth knowing that are no verdicts: what could not be seen, what was cut.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// A result that accounts for every expected control exactly once. The only way to one is [`CheckedTask::new`], and the
/// ledger records nothing else.
#[derive(Clone, Debug)]
#[must_use = "a result that is not recorded is lost"]
pub struct CheckedTask {
    record: TaskRecord,
    profile: Profile,
    evidence: Vec<Evidence>,
}

impl CheckedTask {
    /// Accounts for `findings` against `profile`.
    ///
    /// # Errors
    /// When a control of the profile has no finding or two, or a finding is for no control of it.
    pub fn new(
        run: RunId,
        target: Target,
        profile: Profile,
        provenance: Provenance,
        mut findings: Vec<Finding>,
        evidence: Vec<Evidence>,
        notes: Vec<String>,
    ) -> Result<Self, CoverageError> {
        let coverage = Coverage::of(&profile, &findings)?;
        let order: std::collections::HashMap<&str, usize> =
            profile.controls.iter().enumerate().map(|(i, c)| (c.id.as_str(), i)).collect();
        findings.sort_by_key(|f| order[f.control.as_str()]);
        let record = TaskRecord {
            run,
            target,
            profile: profile.reference(),
            provenance,
            coverage,
            findings,
            evidence: evidence.iter().map(Evidence::reference).collect(),
            waivers: Vec::new(),
            notes,
        };
        Ok(Self { record, profile, evidence })
    }

    /// The result of a task of which nothing was evaluated: every control of the profile, for this one reason.
    pub fn not_evaluated(
        run: RunId,
        target: Target,
        profile: Profile,
        provenance: Provenance,
        reason: Reason,
        detail: &str,
        evidence: Vec<Evidence>,
    ) -> Self {
        let findings =
            profile.controls.iter().map(|c| Finding::new(&*c.id, Outcome::not_evaluated(reason, detail))).collect();
        Self::new(run, target, profile, provenance, findings, evidence, Vec::new())
            .expect("one finding was made for each control of a checked profile, whose ids are unique")
    }

    /// The same with these notes.
    pub fn with_notes(mut self, notes: Vec<String>) -> Self {
        self.record.notes = notes;
        self
    }

    /// The same with one more note.
    pub fn with_note(mut self, note: impl Into<String>) -> Self {
        self.record.notes.push(note.into());
        self
    }

    /// The same after these waivers at `now`: see [`waiver::apply`]. The documents that had to do with it are evidence then.
    pub fn waived(mut self, documents: &[WaiverDocument], now: Timestamp) -> Self {
        if documents.is_empty() {
            return self;
        }
        let findings = std::mem::take(&mut self.record.findings);
        let applied = waiver::apply(findings, documents, &self.record.target, &self.profile, now);
        self.record.coverage = Coverage::of(&self.profile, &applied.findings)
            .expect("a waiver changes how a control ended, and never which controls there are");
        self.record.findings = applied.findings;
        self.record.notes.extend(applied.notes);
        for document in applied.documents.iter().filter_map(|at| documents.get(*at)) {
            self.record.waivers.push(document.reference.clone());
            self.record.evidence.extend(document.evidence.iter().map(Evidence::reference));
            self.evidence.extend(document.evidence.iter().cloned());
        }
        self
    }

    /// What is recorded.
    pub fn record(&self) -> &TaskRecord {
        &self.record
    }

    /// The profile, whole.
    pub fn profile(&self) -> &Profile {
        &self.profile
    }

    /// The evidence, with its bytes.
    pub fn evidence(&self) -> &[Evidence] {
        &self.evidence
    }
}

impl TaskRecord {
    /// The findings that ended so.
    pub fn with_status(&self, status: Status) -> impl Iterator<Item = &Finding> {
        self.findings.iter().filter(move |f| f.outcome.status() == status)
    }
}
