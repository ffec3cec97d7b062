//! What came of reaching a target: how it was reached, what was found, or why nothing was; and the records of that.

use jiff::Timestamp;

use super::unit::{Context, Task};
use crate::base::limits::Limits;
use crate::model::evidence::Evidence;
use crate::model::finding::Finding;
use crate::model::provenance::{Approach, Cleanup, ContentRef, Engine, NetworkProof, Provenance};
use crate::model::reason::Reason;
use crate::model::record::{CheckedTask, RunId};
use crate::model::scanner::BUILTIN;
use crate::model::target::Target;

/// Why something was not evaluated.
#[derive(Clone, Debug)]
pub(crate) struct NotDone {
    pub(crate) reason: Reason,
    pub(crate) detail: String,
}

impl NotDone {
    pub(crate) fn new(reason: Reason, detail: impl Into<String>) -> Self {
        Self { reason, detail: detail.into() }
    }

    /// From an error, with its whole chain in the detail.
    pub(crate) fn because(reason: Reason, error: &(dyn std::error::Error + 'static)) -> Self {
        Self { reason, detail: super::error::chain(error) }
    }
}

/// What came of reaching a target: what is known of it now, how it was reached, and what was found there.
pub(crate) struct Reached {
    pub(crate) target: Target,
    pub(crate) approach: Approach,
    pub(crate) identity: Option<String>,
    pub(crate) network: Option<NetworkProof>,
    pub(crate) cleanup: Option<Cleanup>,
    pub(crate) evidence: Vec<Evidence>,
    pub(crate) notes: Vec<String>,
    pub(crate) engine: Option<Engine>,
    pub(crate) content: Vec<ContentRef>,
    /// The findings for each task of the unit, in their order; or why there are none.
    pub(crate) verdict: Result<Vec<Vec<Finding>>, NotDone>,
}

impl Reached {
    /// Nothing was reached yet.
    pub(crate) fn nothing(target: Target, approach: Approach, why: NotDone) -> Self {
        Self {
            target,
            approach,
            identity: None,
            network: None,
            cleanup: None,
            evidence: Vec::new(),
            notes: Vec::new(),
            engine: None,
            content: Vec::new(),
            verdict: Err(why),
        }
    }

    /// The same after another way had been tried, which is told of in the record.
    pub(crate) fn after(mut self, earlier: Self) -> Self {
        let mut notes = earlier.notes;
        if let Err(why) = &earlier.verdict {
            notes.push(format!("by {}: {} ({})", earlier.approach.word(), why.reason, why.detail));
        }
        notes.append(&mut self.notes);
        self.notes = notes;
        self.cleanup = match (earlier.cleanup, self.cleanup) {
            (Some(mut all), Some(own)) => {
                all.created.extend(own.created);
                all.remaining.extend(own.remaining);
                Some(all)
            }
            (one, other) => one.or(other),
        };
        self.identity = match (earlier.identity, self.identity) {
            (Some(one), Some(other)) => Some(format!("{one}, {other}")),
            (one, other) => one.or(other),
        };
        self.network = self.network.or(earlier.network);
        self
    }

    /// Whether it failed before anything was begun at the target, for something that may pass by itself. A target that was
    /// replaced is not the one that was asked for, and is never tried under its name.
    pub(super) fn may_be_repeated(&self) -> bool {
        let untouched = self.identity.is_none() && self.cleanup.as_ref().is_none_or(|made| made.created.is_empty());
        let passing = |why: &NotDone| matches!(why.reason, Reason::ApiUnreachable | Reason::RegistryUnreachable);
        untouched && self.verdict.as_ref().is_err_and(passing)
    }

    pub(super) fn into_tasks(
        self,
        run: RunId,
        tasks: &[Task],
        started: Timestamp,
        context: &Context,
    ) -> Vec<CheckedTask> {
        let Self { target, approach, identity, network, cleanup, evidence, notes, engine, content, verdict } = self;
        let provenance = |task: &Task| Provenance {
            gapscan: env!("CARGO_PKG_VERSION").to_owned(),
            engine: engine.clone().unwrap_or_else(|| Engine {
                name: task.engine.clone(),
                version: if task.engine == BUILTIN { env!("CARGO_PKG_VERSION").to_owned() } else { String::new() },
                image: None,
            }),
            bundle: context.bundle.clone(),
            content: content.clone(),
            approach,
            imported: None,
            identity: identity.clone(),
            network: network.clone(),
            cleanup: cleanup.clone(),
            started,
            finished: Timestamp::now(),
        };
        let (verdicts, why) = match verdict {
            Ok(verdicts) => (verdicts, NotDone::new(Reason::InternalError, "the engine gave no verdict")),
            Err(why) => (Vec::new(), why),
        };
        let mut verdicts = verdicts.into_iter();
        tasks
            .iter()
            .map(|task| {
                let provenance = provenance(task);
                let refuse = |why: &NotDone, provenance, evidence: &Vec<Evidence>| {
                    CheckedTask::not_evaluated(
                        run,
                        target.clone(),
                        task.profile.clone(),
                        provenance,
                        why.reason,
                        &why.detail,
                        evidence.clone(),
                    )
                    .with_notes(notes.clone())
                };
                let Some(findings) = verdicts.next() else { return refuse(&why, provenance, &evidence) };
                let profile = task.profile.clone();
                match CheckedTask::new(
                    run,
                    target.clone(),
                    profile,
                    provenance.clone(),
                    findings,
                    evidence.clone(),
                    notes.clone(),
                ) {
                    Ok(checked) => checked,
                    Err(error) => refuse(&NotDone::because(Reason::InternalError, &error), provenance, &evidence),
                }
            })
            .collect()
    }
}

/// Judges facts about a system by every profile of the unit.
pub(crate) fn judge_system(
    facts: &crate::native::facts::SystemFacts,
    tasks: &[Task],
    target: &Target,
    limits: &Limits,
) -> Vec<Vec<Finding>> {
    let judge = || {
        let value = serde_json::to_value(facts).expect("facts are strings, numbers, lists and maps with text keys");
        let by_task = tasks.iter().map(|task| match &task.rules {
            Some(rules) => crate::native::rules::judge_system(rules, &value, target.kind(), limits),
            None => Vec::new(),
        });
        by_task.collect()
    };
    // Rules may take seconds, during which other scans wait for their connections.
    tokio::task::block_in_place(judge)
}

/// The facts as evidence.
pub(crate) fn facts_evidence<T: serde::Serialize>(facts: &T) -> Evidence {
    let bytes = serde_json::to_vec(facts).expect("facts are strings, numbers, lists and maps with text keys");
    Evidence::new("facts", "application/json", bytes)
}
