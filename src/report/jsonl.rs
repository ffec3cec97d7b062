//! JSON lines: one object a line, for a SIEM.
//!
//! The first line is `"type":"report"` with the totals; then come one `"type":"task"` for each result, one
//! `"type":"finding"` for each control of it, one `"type":"unrecorded"` for each task that a run owes, one
//! `"type":"inconsistent"` for results that answer one question and do not agree, one `"type":"event"` for each event, and one
//! `"type":"waiver"` for what is to be known of waivers (`state` is `refused`, `unsigned`, `expired`, `expired-since` the result,
//! `expires-soon` or `unmatched`); the last line is `"type":"end"` with the number of lines before it. A reader that finds no
//! last line, or another number, has a part of a report.

use serde_json::{Value, json};

use super::contents::{Report, ReportTask, Scope, Selection, identity};
use super::neutral::neutral;
use crate::model::control::Control;
use crate::model::finding::Finding;
use crate::model::outcome::Outcome;

/// Names the form of these lines. It changes when a field goes away or changes its meaning.
pub const SCHEMA: &str = "gapscan/report-lines/v1";

/// The whole report.
pub fn render(report: &Report) -> Vec<u8> {
    let mut lines = Lines::default();
    lines.push(head(report));
    for task in &report.tasks {
        lines.push(task_line(task));
        for (control, finding) in task.judged() {
            lines.push(finding_line(report, task, control, finding));
        }
    }
    for (run, task) in report.unrecorded() {
        lines.push(json!({
            "type": "unrecorded",
            "run": run.start.run,
            "time": run.start.started,
            "target": task.target.key(),
            "engine": task.engine,
            "profile": task.profile,
        }));
    }
    for compared in report.compared().iter().filter(|one| one.is_inconsistent()) {
        lines.push(json!({ "type": "inconsistent", "compared": compared }));
    }
    for event in &report.events {
        lines.push(json!({
            "type": "event",
            "time": event.at,
            "what": event.what,
            "subject": event.subject,
            "due": event.due,
            "detail": event.detail,
        }));
    }
    for notice in report.waiver_notices() {
        lines.push(json!({ "type": "waiver", "state": notice.state, "detail": notice.detail }));
    }
    let before = lines.count;
    lines.push(json!({ "type": "end", "lines": before }));
    lines.bytes
}

#[derive(Default)]
struct Lines {
    bytes: Vec<u8>,
    count: u64,
}

impl Lines {
    fn push(&mut self, value: Value) {
        serde_json::to_writer(&mut self.bytes, &neutral(value))
            .expect("a JSON value with text keys always has a JSON form, and a vector takes it");
        self.bytes.push(b'\n');
        self.count += 1;
    }
}

fn head(report: &Report) -> Value {
    let Scope { selection, targets } = &report.scope;
    let run = match selection {
        Selection::Latest => None,
        Selection::Run(run) => Some(run),
    };
    json!({
        "type": "report",
        "schema": SCHEMA,
        "title": report.title,
        "classification": report.classification,
        "generated": report.generated,
        "gapscan": report.gapscan,
        "run": run,
        "targets": targets,
        "ledger": {
            "name": report.ledger.name,
            "id": report.ledger.id,
            "sequence": report.ledger.sequence,
            "head": report.ledger.head,
            "intact": report.ledger.state.problem().is_none(),
            "problem": report.ledger.state.problem(),
        },
        "tasks": report.tasks.len(),
        "findings": report.coverage().expected(),
        "unrecorded": report.unrecorded().count(),
        "events": report.events.len(),
        "coverage": report.coverage(),
        "score": report.coverage().score(),
    })
}

fn task_line(task: &ReportTask) -> Value {
    let record = task.record();
    json!({
        "type": "task",
        "run": record.run,
        "time": record.provenance.finished,
        "target": record.target,
        "targetKey": record.target.key(),
        "profile": record.profile,
        "coverage": record.coverage,
        "score": record.coverage.score(),
        "provenance": record.provenance,
        "evidence": record.evidence,
        "notes": record.notes,
        "waiverDocuments": record.waivers,
    })
}

fn finding_line(report: &Report, task: &ReportTask, control: &Control, finding: &Finding) -> Value {
    let record = task.record();
    let provenance = &record.provenance;
    let (reason, detail) = match &finding.outcome {
        Outcome::Passed | Outcome::Failed => (None, None),
        Outcome::NotApplicable { reason } => (None, Some(reason)),
        Outcome::Waived { justification, .. } => (None, Some(justification)),
        Outcome::NotEvaluated { reason, detail } => (Some(reason.code()), Some(detail)),
    };
    let waiver = match &finding.outcome {
        Outcome::Waived { waiver, id, until, .. } => Some(json!({
            "digest": waiver,
            "id": id,
            "until": until,
            "expired": *until <= report.generated,
        })),
        Outcome::Passed | Outcome::Failed | Outcome::NotApplicable { .. } | Outcome::NotEvaluated { .. } => None,
    };
    json!({
        "type": "finding",
        "run": record.run,
        "time": provenance.finished,
        "classification": report.classification,
        "target": record.target.key(),
        "targetKind": record.target.kind(),
        "targetIdentity": identity(&record.target),
        "engine": provenance.engine.name,
        "engineImage": provenance.engine.image,
        "imported": provenance.imported.as_ref().map(|imported| imported.expected),
        "bundle": provenance.bundle,
        "profile": record.profile.name,
        "profileVersion": record.profile.version,
        "profileDigest": record.profile.digest,
        "control": control.id,
        "title": control.title,
        "severity": control.severity,
        "references": control.references,
        "outcome": finding.outcome.status().code(),
        "reason": reason,
        "detail": detail,
        "waiver": waiver,
        "details": finding.details,
        "detailsOmitted": finding.details_omitted,
    })
}

#[cfg(test)]
mod tests;
