//! Heimdall Data Format: the JSON of InSpec's `json` reporter, as MITRE's SAF CLI and Heimdall read it
//! (schema "Exec JSON Output" of inspecjs).
//!
//! How outcomes are written follows from how those two read them (inspecjs 2.12, SAF CLI 1.5), not from the schema alone:
//!
//! | outcome | results | impact | they call it |
//! |---|---|---|---|
//! | passed | `passed` | as it is | Passed |
//! | failed | `failed`, one for each detail | as it is | Failed |
//! | waived | `skipped`, with `waiver_data` | as it is | Not Reviewed |
//! | not evaluated | `skipped`, with the reason code | as it is | Not Reviewed |
//! | not applicable | `skipped` | 0 | Not Applicable |
//!
//! * Impact 0 makes any control Not Applicable, which would take an informational control that failed out of the score; and
//!   `saf view summary` drops passed, failed and skipped controls of severity `none`. So a control of severity
//!   [`Severity::None`] that did not end as not applicable gets impact 0.1 and severity `low`; `tags.gapscan.severity` keeps `none`.
//! * `waiver_data.skipped_due_to_waiver: true` would make a waived control Not Applicable and raise the score: it is never set.
//! * An empty list of results is a Profile Error: there is always at least one.
//! * SAF counts only the first profile of a file. So a file holds one profile, and there is one file for each target and profile.
//! * They compute `compliance` as passed of (passed + failed + Not Reviewed), rounded; that is our score, which rounds down.

use std::collections::{BTreeMap, HashSet};

use serde_json::{Map, Value, json};

use super::contents::{Report, ReportTask};
use super::neutral::neutral;
use crate::base::digest::Digest;
use crate::model::control::{Control, Severity};
use crate::model::finding::Finding;
use crate::model::outcome::{Outcome, Status};
use crate::model::waiver::WaiverNotice;

/// One HDF file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HdfFile {
    /// A name for it: lower-case letters, digits, `.`, `_` and `-`, not starting with a dot, at most 200 bytes, ending in
    /// `.json`, and unique in one report.
    pub name: String,
    /// Its content.
    pub json: Vec<u8>,
}

/// The lowest impact that is neither Not Applicable nor of a severity that SAF's summary drops.
const LOWEST_COUNTED_IMPACT: f64 = 0.1;

/// One file for each target and profile, in the report's order.
pub fn render(report: &Report) -> Vec<HdfFile> {
    let mut names = HashSet::new();
    let notices = report.waiver_notices();
    report
        .tasks
        .iter()
        .map(|task| {
            let mut json = serde_json::to_vec_pretty(&neutral(document(report, task, &notices)))
                .expect("a JSON value with text keys always has a JSON form");
            json.push(b'\n');
            HdfFile { name: unique_name(&mut names, task), json }
        })
        .collect()
}

fn unique_name(taken: &mut HashSet<String>, task: &ReportTask) -> String {
    let record = task.record();
    let key = record.target.key();
    let engine = &record.provenance.engine.name;
    // What the readable part loses, the digest tells apart.
    let whole = json!([key, engine, record.profile.name, record.profile.digest.hex()]).to_string();
    let readable = |text: &str| {
        let safe = |c: char| if c.is_ascii_alphanumeric() || c == '-' { c.to_ascii_lowercase() } else { '_' };
        text.chars().take(70).map(safe).collect::<String>()
    };
    let stem =
        format!("{}.{}.{}", readable(&key), readable(&record.profile.name), &Digest::of(whole.as_bytes()).short());
    let mut name = format!("{stem}.json");
    let mut count = 1_u64;
    while !taken.insert(name.clone()) {
        count += 1;
        name = format!("{stem}-{count}.json");
    }
    name
}

fn document(report: &Report, task: &ReportTask, notices: &[WaiverNotice]) -> Value {
    let record = task.record();
    let provenance = &record.provenance;
    let identity = super::contents::identity(&record.target);
    let controls: Vec<Value> = task.judged().map(|(c, f)| control(task, c, f)).collect();
    let total = |status: Status| record.coverage.count(status);
    let skipped = total(Status::NotApplicable) + total(Status::NotEvaluated) + total(Status::Waived);
    json!({
        "platform": {
            // Heimdall shows the two as one text: `pod/shop/web/web@sha256:...`.
            "name": record.target.key(),
            "release": format!("@{identity}"),
            "target_id": record.target.key(),
        },
        "profiles": [{
            "name": record.profile.name,
            "version": record.profile.version,
            "title": task.profile().title,
            "summary": task.profile().summary,
            "sha256": record.profile.digest.hex(),
            "supports": [],
            "attributes": [],
            "groups": [{
                "id": record.profile.name,
                "title": task.profile().title,
                "controls": task.profile().controls.iter().map(|c| &c.id).collect::<Vec<_>>(),
            }],
            "status": "loaded",
            "controls": controls,
        }],
        "statistics": {
            "duration": provenance.started.duration_until(provenance.finished).as_secs_f64(),
            "controls": {
                "passed": { "total": total(Status::Passed) },
                "failed": { "total": total(Status::Failed) },
                "skipped": { "total": skipped },
            },
        },
        "version": provenance.gapscan,
        "passthrough": { "gapscan": {
            "title": report.title,
            "classification": report.classification,
            "generated": report.generated,
            "ledger": {
                "name": report.ledger.name,
                "id": report.ledger.id,
                "sequence": report.ledger.sequence,
                "head": report.ledger.head,
                "intact": report.ledger.state.problem().is_none(),
                "problem": report.ledger.state.problem(),
            },
            "run": record.run,
            "target": record.target,
            "coverage": record.coverage,
            "score": record.coverage.score(),
            "provenance": provenance,
            "evidence": record.evidence,
            "notes": record.notes,
            "waiverDocuments": record.waivers,
            // Of the whole report, too.
            "waivers": notices,
            // Of the whole report: what a run still owes has no file that could say so.
            "unrecorded": report
                .unrecorded()
                .map(|(run, t)| json!({ "run": run.start.run, "target": t.target.key(), "engine": t.engine, "profile": t.profile }))
                .collect::<Vec<_>>(),
        } },
    })
}

fn control(task: &ReportTask, control: &Control, finding: &Finding) -> Value {
    let not_applicable = finding.outcome.status() == Status::NotApplicable;
    let (impact, severity) = match (not_applicable, control.severity) {
        (true, severity) => (0.0, severity),
        (false, Severity::None) => (LOWEST_COUNTED_IMPACT, Severity::Low),
        (false, severity) => (severity.impact(), severity),
    };
    let descriptions: Vec<Value> =
        [("default", &control.description), ("check", &control.check), ("fix", &control.fix)]
            .into_iter()
            .filter(|(_, text)| !text.is_empty())
            .map(|(label, text)| json!({ "label": label, "data": text }))
            .collect();
    let urls: Vec<Value> =
        control.references.iter().filter(|r| r.scheme == "url").map(|r| json!({ "url": r.id })).collect();
    let mut value = json!({
        "id": control.id,
        "title": control.title,
        "desc": control.description,
        "descriptions": descriptions,
        "impact": impact,
        "refs": urls,
        "tags": tags(task, control, finding, severity),
        "code": control.check,
        "source_location": { "ref": format!("profile {}", task.record().profile.name), "line": 0 },
        "results": results(task, control, finding),
    });
    if let Outcome::Waived { waiver, id, justification, until } = &finding.outcome {
        value["waiver_data"] = json!({
            "justification": justification,
            "expiration_date": until,
            "run": true,
            "skipped_due_to_waiver": false,
            "message": if id.is_empty() { format!("waiver {waiver}") } else { format!("waiver {id} of {waiver}") },
        });
    }
    value
}

fn tags(task: &ReportTask, control: &Control, finding: &Finding, severity: Severity) -> Value {
    let mut lists: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for reference in control.references.iter().filter(|r| r.scheme != "url") {
        // The names under which SAF and the checklist formats look for the parts of a STIG.
        let tag = match (reference.scheme.as_str(), reference.id.as_bytes()) {
            ("stig", [b'V', b'-', ..]) => "gid",
            ("stig", [b'S', b'V', b'-', ..]) => "rid",
            ("stig", _) => "stig_id",
            // A reference must not be able to change what the control counts as.
            ("severity" | "severityoverride" | "gapscan" | "gid" | "rid" | "stig_id", _) => "reference",
            (scheme, _) => scheme,
        };
        lists.entry(tag.to_owned()).or_default().push(&reference.id);
    }
    let mut tags: Map<String, Value> = lists
        .into_iter()
        .map(|(tag, ids)| match (tag.as_str(), ids.as_slice()) {
            ("gid" | "rid" | "stig_id", [only]) => (tag, json!(only)),
            _ => (tag, json!(ids)),
        })
        .collect();
    tags.insert("severity".to_owned(), json!(severity.word()));
    let reason = match &finding.outcome {
        Outcome::NotEvaluated { reason, .. } => Some(reason.code()),
        Outcome::Passed | Outcome::Failed | Outcome::NotApplicable { .. } | Outcome::Waived { .. } => None,
    };
    let mut own = json!({
        "outcome": finding.outcome.status().code(),
        "severity": control.severity.word(),
        "reason": reason,
    });
    if let Some(imported) = &task.record().provenance.imported {
        own["imported"] = json!(imported.expected);
    }
    tags.insert("gapscan".to_owned(), own);
    Value::Object(tags)
}

fn results(task: &ReportTask, control: &Control, finding: &Finding) -> Vec<Value> {
    let started = task.record().provenance.started;
    let (status, why) = match &finding.outcome {
        Outcome::Passed => ("passed", None),
        Outcome::Failed => ("failed", None),
        Outcome::NotApplicable { reason } => ("skipped", Some(format!("Not applicable: {reason}"))),
        Outcome::Waived { justification, until, .. } => {
            ("skipped", Some(format!("Failed, and waived until {until}: {justification}")))
        }
        Outcome::NotEvaluated { reason, detail } => {
            ("skipped", Some(format!("Not evaluated: {}: {detail}", reason.code())))
        }
    };
    let name = if control.title.is_empty() { &control.id } else { &control.title };
    let one = |subject: &str, message: Option<&str>| {
        let mut result = json!({ "status": status, "code_desc": subject, "run_time": 0.0, "start_time": started });
        match (&why, message) {
            (Some(why), None) => result["skip_message"] = json!(why),
            (Some(why), Some(message)) => result["skip_message"] = json!(format!("{why} ({message})")),
            (None, Some(message)) => result["message"] = json!(message),
            (None, None) => {}
        }
        result
    };
    let mut results: Vec<Value> = finding
        .details
        .iter()
        .map(|d| one(if d.subject.is_empty() { name } else { &d.subject }, Some(&d.message)))
        .collect();
    if results.is_empty() {
        results.push(one(name, (finding.outcome == Outcome::Failed).then_some("The control failed.")));
    }
    if finding.details_omitted > 0 {
        let more = format!("{} more", finding.details_omitted);
        results.push(one(&more, Some("The evidence in the ledger has them all.")));
    }
    results
}

#[cfg(test)]
mod tests;
