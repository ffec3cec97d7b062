//! One result, as the page shows it.

use super::finding::FindingView;
use super::shown::{Shown, When, digest};
use crate::model::control::{Control, Severity};
use crate::model::coverage::Coverage;
use crate::model::evidence::EvidenceRef;
use crate::model::finding::Finding;
use crate::model::outcome::{Outcome, Status};
use crate::model::provenance::{Approach, Expectation, Imported, Provenance};
use crate::model::reason::Reason;
use crate::model::target::Target;
use crate::report::contents::ReportTask;

/// Counts of outcomes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tally {
    pub(super) expected: u64,
    pub(super) passed: u64,
    pub(super) failed: u64,
    pub(super) waived: u64,
    pub(super) not_evaluated: u64,
    pub(super) not_applicable: u64,
    pub(super) score: Option<u64>,
}

/// One result.
#[derive(Debug)]
pub(super) struct TaskView {
    /// Where links to it go.
    pub(super) anchor: String,
    pub(super) target: Shown,
    pub(super) kind: &'static str,
    pub(super) profile: Shown,
    pub(super) summary: Shown,
    pub(super) engine: Shown,
    pub(super) finished: When,
    pub(super) tally: Tally,
    pub(super) failed: Vec<FindingView>,
    pub(super) not_evaluated: Vec<ReasonGroup>,
    pub(super) waived: Vec<FindingView>,
    pub(super) passed: Vec<FindingView>,
    pub(super) not_applicable: Vec<FindingView>,
    pub(super) notes: Vec<Shown>,
    pub(super) facts: Vec<Fact>,
    pub(super) evidence: Vec<Fact>,
}

/// Controls of one target that were not evaluated for the same reason.
#[derive(Debug)]
pub(super) struct ReasonGroup {
    pub(super) code: &'static str,
    pub(super) description: &'static str,
    pub(super) detail: Shown,
    pub(super) findings: Vec<FindingView>,
}

/// A label and what goes with it.
#[derive(Debug)]
pub(super) struct Fact {
    pub(super) label: &'static str,
    pub(super) value: Shown,
    pub(super) is_code: bool,
}

impl Tally {
    pub(super) fn new(coverage: Coverage) -> Self {
        Self {
            expected: coverage.expected(),
            passed: coverage.count(Status::Passed),
            failed: coverage.count(Status::Failed),
            waived: coverage.count(Status::Waived),
            not_evaluated: coverage.count(Status::NotEvaluated),
            not_applicable: coverage.count(Status::NotApplicable),
            score: coverage.score(),
        }
    }
}

impl TaskView {
    pub(super) fn new(number: usize, task: &ReportTask, now: jiff::Timestamp) -> Self {
        let record = task.record();
        let mut judged: Vec<(usize, &Control, &Finding)> =
            task.judged().enumerate().map(|(i, (control, finding))| (i, control, finding)).collect();
        // The worst first; within a severity the profile's order stays.
        judged.sort_by_key(|(_, control, _)| rank(control.severity));
        let view = |(i, control, finding): &(usize, &Control, &Finding)| {
            FindingView::new(format!("r{number}c{}", i + 1), control, finding, now)
        };
        let of = |status| judged.iter().filter(|(_, _, f)| f.outcome.status() == status).map(view).collect();
        let mut groups: Vec<((Reason, &str), Vec<FindingView>)> = Vec::new();
        for item in &judged {
            if let Outcome::NotEvaluated { reason, detail } = &item.2.outcome {
                let key = (*reason, detail.as_str());
                match groups.iter_mut().find(|(known, _)| *known == key) {
                    Some((_, list)) => list.push(view(item)),
                    None => groups.push((key, vec![view(item)])),
                }
            }
        }
        let not_evaluated = groups
            .into_iter()
            .map(|((reason, detail), findings)| ReasonGroup {
                code: reason.code(),
                description: reason.description(),
                detail: Shown::said(detail),
                findings,
            })
            .collect();
        let title = if task.profile().title.is_empty() { &record.profile.name } else { &task.profile().title };
        Self {
            anchor: format!("r{number}"),
            target: Shown::line(&record.target.key()),
            kind: record.target.kind().word(),
            profile: Shown::line(title),
            summary: Shown::lines(&task.profile().summary),
            engine: Shown::line(&record.provenance.engine.name),
            finished: When::new(record.provenance.finished),
            tally: Tally::new(record.coverage),
            failed: of(Status::Failed),
            not_evaluated,
            waived: of(Status::Waived),
            passed: of(Status::Passed),
            not_applicable: of(Status::NotApplicable),
            notes: record.notes.iter().map(|n| Shown::said(n)).collect(),
            facts: facts(task),
            evidence: record
                .evidence
                .iter()
                .map(|e| Fact {
                    label: "Evidence",
                    value: Shown::line(&format!("{} {} ({} bytes{})", e.digest, e.name, e.length, redacted(e))),
                    is_code: true,
                })
                .collect(),
        }
    }
}

/// That it is not what the scanner wrote, byte for byte.
fn redacted(evidence: &EvidenceRef) -> String {
    match evidence.redacted {
        0 => String::new(),
        times => format!("; redacted: secret values were taken out {times} times"),
    }
}

/// 0 for the worst.
pub(super) fn rank(severity: Severity) -> usize {
    Severity::WORST_FIRST.iter().position(|s| *s == severity).unwrap_or(Severity::WORST_FIRST.len())
}

fn facts(task: &ReportTask) -> Vec<Fact> {
    let record = task.record();
    let Provenance {
        gapscan,
        engine,
        bundle,
        content,
        approach,
        imported,
        identity,
        network,
        cleanup,
        started,
        finished,
    } = &record.provenance;
    let mut facts = Vec::new();
    let mut add = |label, value: String, is_code| facts.push(Fact { label, value: Shown::line(&value), is_code });
    for (label, value) in target_facts(&record.target) {
        add(label, value, true);
    }
    add("Profile", format!("{} {}", record.profile.name, record.profile.version), false);
    add("Profile digest", record.profile.digest.to_string(), true);
    add("Engine", format!("{} {}", engine.name, engine.version).trim().to_owned(), false);
    if let Some(image) = engine.image {
        add("Scanner image", image.to_string(), true);
    }
    match bundle {
        Some(bundle) => {
            add("Bundle", format!("{} version {}", bundle.name, bundle.version), false);
            add("Bundle digest", bundle.digest.to_string(), true);
            add("Vouched for by root", bundle.root.to_string(), true);
        }
        None if imported.is_some() => add("Bundle", "none: gapscan did not run this scan".to_owned(), false),
        None => add("Bundle", "none: scanner and profile are those built into gapscan".to_owned(), false),
    }
    for item in content {
        let built = item.built.map_or("no build date".to_owned(), |b| format!("built {}", When::new(b)));
        add("Content", format!("{}, {built}, {}", item.name, item.digest), true);
    }
    if let Some(imported) = imported {
        let Imported { file, digest, length, scanner, subjects, .. } = &**imported;
        add("Imported", format!("at {}, from the file {file}", When::new(imported.at)), false);
        add("File", format!("{digest} ({length} bytes)"), true);
        add("Expected", expected_words(imported.expected).to_owned(), false);
        add("Scanner, as the file says", scanner.clone(), false);
        if !subjects.is_empty() {
            add("Scanned, as the file says", subjects.join(", "), false);
        }
    }
    for document in &record.waivers {
        let by = match document.approvals.len() {
            0 => "unsigned".to_owned(),
            approvals => format!("approved by {approvals}"),
        };
        add("Waivers", format!("{}, {by}, {}", document.file, document.digest), true);
    }
    add("Reached", approach_words(*approach).to_owned(), false);
    if let Some(identity) = identity {
        add("As", identity.clone(), true);
    }
    if let Some(network) = network {
        let words = if network.enforced { "enforced" } else { "NOT enforced" };
        add("Network policies", format!("{words}, seen at {}: {}", When::new(network.at), network.detail), false);
    }
    if let Some(cleanup) = cleanup {
        let made = cleanup.created.len();
        let value = match cleanup.remaining.as_slice() {
            [] => format!("all {made} objects that were created are verified to be gone"),
            left => format!("NOT verified to be gone: {} (of {made} created)", left.join(", ")),
        };
        add("Clean-up", value, false);
    }
    add("Started", When::new(*started).to_string(), false);
    let seconds = started.duration_until(*finished).as_secs_f64();
    add("Finished", format!("{}, after {seconds:.1} s", When::new(*finished)), false);
    add("Run", record.run.to_string(), true);
    add("gapscan", gapscan.clone(), false);
    facts
}

fn target_facts(target: &Target) -> Vec<(&'static str, String)> {
    let list = match target {
        Target::Host { name } => vec![("Host name", Some(name.clone()))],
        Target::Container { uid, image, digest: d, node, .. } => vec![
            ("Pod UID", uid.clone()),
            ("Image", image.clone()),
            ("Image digest", d.map(|d| digest(&d).to_string())),
            ("Node", node.clone()),
        ],
        Target::Image { digest: d, .. } => vec![("Image digest", d.map(|d| digest(&d).to_string()))],
        Target::Node { uid, .. } => vec![("Node UID", uid.clone())],
        Target::Cluster { name, uid } => {
            vec![("Cluster", Some(name.clone())), ("UID of kube-system", uid.clone())]
        }
    };
    list.into_iter().map(|(label, value)| (label, value.unwrap_or_else(|| "unknown".to_owned()))).collect()
}

fn expected_words(expected: Expectation) -> &'static str {
    match expected {
        Expectation::Profile => "the controls of the profile; what the file lacks was not evaluated",
        Expectation::SelfDeclared => {
            "self-declared: nobody knows what was expected, only what the file itself mentions"
        }
    }
}

fn approach_words(approach: Approach) -> &'static str {
    match approach {
        Approach::Exec => "by exec into the container",
        Approach::Debug => "by an ephemeral container beside the container",
        Approach::Sidecar => "by a scanner in a copy of the pod",
        Approach::Node => "by a Job on the node, with the node's files mounted read-only",
        Approach::Image => "from the image in the registry",
        Approach::ImageVolume => "by a scanner pod with the image mounted as a volume",
        Approach::ImageArchive => "by a scanner pod that was given the image as an archive",
        Approach::Objects => "through the API server",
        Approach::Local => "from the files and processes of this machine",
        Approach::Alerts => "by somebody who watches it, and sent alerts",
        Approach::Imported => "by somebody else; the result was imported",
        Approach::None => "not at all",
    }
}
