//! The rows for queries that follow from one entry. They are made here both when an entry is appended and when the ledger
//! is verified, so that the two can't differ.

use rusqlite::types::Value;

use super::chain::Body;
use crate::model::outcome::{Outcome, Status};

/// One row of a table for queries. Its first value is the number of the entry that it follows from.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Row {
    pub(super) table: Table,
    pub(super) values: Vec<Value>,
}

/// The tables for queries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Table {
    Profile,
    Run,
    RunEnd,
    Task,
    Finding,
    TaskEvidence,
    Event,
}

impl Table {
    pub(super) const ALL: [Self; 7] =
        [Self::Profile, Self::Run, Self::RunEnd, Self::Task, Self::Finding, Self::TaskEvidence, Self::Event];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Profile => "profile",
            Self::Run => "run",
            Self::RunEnd => "run_end",
            Self::Task => "task",
            Self::Finding => "finding",
            Self::TaskEvidence => "task_evidence",
            Self::Event => "event",
        }
    }

    pub(super) fn insert(self) -> &'static str {
        match self {
            Self::Profile => "INSERT INTO profile VALUES (?, ?, ?, ?, ?)",
            Self::Run => "INSERT INTO run VALUES (?, ?, ?, ?, ?)",
            Self::RunEnd => "INSERT INTO run_end VALUES (?, ?, ?, ?)",
            Self::Task => "INSERT INTO task VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            Self::Finding => "INSERT INTO finding VALUES (?, ?, ?, ?, ?)",
            Self::TaskEvidence => "INSERT INTO task_evidence VALUES (?, ?, ?, ?)",
            Self::Event => "INSERT INTO event VALUES (?, ?, ?)",
        }
    }

    /// All rows that follow from one entry, in their order.
    pub(super) fn select(self) -> &'static str {
        match self {
            Self::Profile => "SELECT * FROM profile WHERE seq = ?",
            Self::Run => "SELECT * FROM run WHERE seq = ?",
            Self::RunEnd => "SELECT * FROM run_end WHERE seq = ?",
            Self::Task => "SELECT * FROM task WHERE seq = ?",
            Self::Finding => "SELECT * FROM finding WHERE seq = ? ORDER BY ordinal",
            Self::TaskEvidence => "SELECT * FROM task_evidence WHERE seq = ? ORDER BY ordinal",
            Self::Event => "SELECT * FROM event WHERE seq = ?",
        }
    }
}

/// The rows that follow from the entry `seq` with this body.
pub(super) fn rows(seq: u64, body: &Body) -> Vec<Row> {
    let row = |table, values: Vec<Value>| {
        let values = std::iter::once(number(seq)).chain(values).collect();
        Row { table, values }
    };
    match body {
        Body::Genesis(_) | Body::Checkpoint(_) => Vec::new(),
        Body::Profile(profile) => vec![row(
            Table::Profile,
            vec![
                text(profile.digest()),
                text(&profile.name),
                text(&profile.version),
                number(profile.controls.len() as u64),
            ],
        )],
        Body::RunStart(start) => {
            let expected = number(start.expected.len() as u64);
            vec![row(Table::Run, vec![text(start.run), text(start.started), expected, text(start.series())])]
        }
        Body::RunEnd(ended) => {
            let how = serde_json::to_value(ended.end).ok();
            let how = how.as_ref().and_then(serde_json::Value::as_str).unwrap_or_default();
            vec![row(Table::RunEnd, vec![text(ended.run), text(how), text(ended.at)])]
        }
        Body::Event(event) => vec![row(Table::Event, vec![text(&event.what), text(&event.subject)])],
        Body::Task(task) => {
            let count = |status| number(task.coverage.count(status));
            let summary = vec![
                text(task.run),
                text(task.target.key()),
                text(task.target.kind()),
                text(&task.provenance.engine.name),
                text(&task.profile.name),
                text(&task.profile.version),
                text(task.profile.digest),
                text(task.provenance.started),
                text(task.provenance.finished),
                number(task.coverage.expected()),
                count(Status::Passed),
                count(Status::Failed),
                count(Status::NotApplicable),
                count(Status::Waived),
                count(Status::NotEvaluated),
            ];
            let findings = task.findings.iter().zip(0..).map(|(finding, ordinal)| {
                let reason = match &finding.outcome {
                    Outcome::NotEvaluated { reason, .. } => text(reason),
                    Outcome::Passed | Outcome::Failed | Outcome::NotApplicable { .. } | Outcome::Waived { .. } => {
                        Value::Null
                    }
                };
                let status = finding.outcome.status().code();
                row(Table::Finding, vec![number(ordinal), text(&finding.control), text(status), reason])
            });
            let evidence = task.evidence.iter().zip(0..).map(|(kept, ordinal)| {
                row(Table::TaskEvidence, vec![number(ordinal), text(&kept.name), text(kept.digest)])
            });
            std::iter::once(row(Table::Task, summary)).chain(findings).chain(evidence).collect()
        }
    }
}

fn text(value: impl ToString) -> Value {
    Value::Text(value.to_string())
}

fn number(value: u64) -> Value {
    Value::Integer(i64::try_from(value).unwrap_or(i64::MAX))
}
