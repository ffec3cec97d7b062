//! What a result file says, for people and programs: without a profile, and without a ledger.

use std::collections::BTreeMap;

use serde::Serialize;

use super::collect::Collector;
use super::event::{Component, Event, Gap, Reported, Scanner, Sink};
use crate::base::digest::Digest;
use crate::model::control::{Reference, Severity};
use crate::model::outcome::Outcome;
use crate::model::reason::Reason;
use crate::model::scanner::ResultFormat;
use crate::model::tally::Tally;

/// Everything that a result file says, but for findings and components beyond the first.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Summary {
    /// In which format it is.
    pub format: ResultFormat,
    /// The digest of its bytes.
    pub digest: Digest,
    /// How many bytes it has.
    pub length: u64,
    /// Who wrote it.
    pub scanner: Scanner,
    /// What was scanned, in the scanner's words.
    pub targets: Vec<String>,
    /// How the controls ended.
    pub controls: Tally,
    /// What the findings are.
    pub findings: Tally,
    /// How many findings of each kind there are.
    pub kinds: BTreeMap<String, u64>,
    /// How many failed findings there are of each severity.
    pub failed_by_severity: BTreeMap<Severity, u64>,
    /// How many findings the scanner left out by rules of its own.
    pub suppressed: u64,
    /// How many components there are.
    pub components: u64,
    /// Everything that was not evaluated.
    pub not_evaluated: Vec<NotEvaluated>,
    /// What is worth knowing and is no verdict.
    pub notes: Vec<String>,
    /// Each control.
    pub control_list: Vec<ControlView>,
    /// The first findings.
    pub finding_list: Vec<Reported>,
    /// The first components.
    pub component_list: Vec<Component>,
}

/// Something that was not evaluated.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NotEvaluated {
    /// The control, where it is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub control: Option<String>,
    /// What else it is: a profile, a run, a file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// Why, as a code.
    pub reason: Reason,
    /// Why, in this case.
    pub detail: String,
}

/// One control, as a result has it.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ControlView {
    /// Its id.
    pub id: String,
    /// Its title, where the result has one.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub title: String,
    /// How bad a failure is, where the result says it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub severity: Option<Severity>,
    /// How it ended.
    #[serde(flatten)]
    pub outcome: Outcome,
    /// How many findings that rests on.
    pub findings: u64,
    /// Where else it is known.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub references: Vec<Reference>,
}

/// Takes events, and makes a summary of them.
pub(super) struct Summariser {
    collector: Collector,
    listed: usize,
    targets: Vec<String>,
    findings: Tally,
    kinds: BTreeMap<String, u64>,
    failed_by_severity: BTreeMap<Severity, u64>,
    suppressed: u64,
    components: u64,
    finding_list: Vec<Reported>,
    component_list: Vec<Component>,
    /// About how many bytes the lists take.
    listed_bytes: usize,
}

impl Summariser {
    /// Lists at most so many findings and components; all are counted.
    pub(super) fn new(listed: usize) -> Self {
        Self {
            collector: Collector::new(0),
            listed,
            targets: Vec::new(),
            findings: Tally::default(),
            kinds: BTreeMap::new(),
            failed_by_severity: BTreeMap::new(),
            suppressed: 0,
            components: 0,
            finding_list: Vec::new(),
            component_list: Vec::new(),
            listed_bytes: 0,
        }
    }

    /// The summary of a result that was read to its end.
    pub(super) fn finish(mut self, format: ResultFormat, digest: Digest, length: u64) -> Summary {
        let mut controls = Tally::default();
        let mut not_evaluated = Vec::new();
        let mut control_list = Vec::new();
        for account in self.collector.accounts() {
            let outcome = account.finding.outcome;
            controls.add(outcome.status());
            if let Outcome::NotEvaluated { reason, detail } = &outcome {
                let (control, detail) = (Some(account.id.clone()), detail.clone());
                not_evaluated.push(NotEvaluated { control, subject: None, reason: *reason, detail });
            }
            let (title, severity, references) = match account.declared {
                Some(declared) => (declared.title, Some(declared.severity), declared.references),
                None => (String::new(), None, Vec::new()),
            };
            let findings = account.findings;
            control_list.push(ControlView { id: account.id, title, severity, outcome, findings, references });
        }
        let gaps = std::mem::take(&mut self.collector.gaps).into_iter();
        not_evaluated.extend(gaps.map(|Gap { subject, reason, detail }| NotEvaluated {
            control: None,
            subject: Some(subject),
            reason,
            detail,
        }));
        if controls.total() == 0 && self.components == 0 {
            let detail = "the result has no control and no component: nothing says that anything was looked at";
            let (control, subject) = (None, Some("the result".to_owned()));
            not_evaluated.push(NotEvaluated {
                control,
                subject,
                reason: Reason::ControlMissing,
                detail: detail.to_owned(),
            });
        } else if controls.total() > 0 && controls.not_applicable == controls.total() {
            let detail =
                format!("all {} controls are not applicable: the content is for another target", controls.total());
            let (control, subject) = (None, Some("the result".to_owned()));
            not_evaluated.push(NotEvaluated { control, subject, reason: Reason::WrongTarget, detail });
        }
        Summary {
            format,
            digest,
            length,
            notes: self.collector.notes(),
            scanner: self.collector.scanner,
            targets: self.targets,
            controls,
            findings: self.findings,
            kinds: self.kinds,
            failed_by_severity: self.failed_by_severity,
            suppressed: self.suppressed,
            components: self.components,
            not_evaluated,
            control_list,
            finding_list: self.finding_list,
            component_list: self.component_list,
        }
    }
}

impl Sink for Summariser {
    fn take(&mut self, event: Event) {
        match &event {
            Event::Target(name) => {
                if self.targets.len() < self.listed.max(1) && !self.targets.contains(name) {
                    self.listed_bytes += size_of::<String>() + name.len();
                    self.targets.push(name.clone());
                }
            }
            Event::Finding(finding) => {
                self.findings.add(finding.outcome.status());
                match self.kinds.get_mut(finding.kind.code()) {
                    Some(count) => *count += 1,
                    None => drop(self.kinds.insert(finding.kind.code().to_owned(), 1)),
                }
                if finding.outcome == Outcome::Failed {
                    *self.failed_by_severity.entry(finding.severity).or_default() += 1;
                }
                if self.finding_list.len() < self.listed {
                    self.listed_bytes += finding.bytes();
                    self.finding_list.push(finding.clone());
                }
            }
            Event::Suppressed(_) => self.suppressed += 1,
            Event::Component(component) => {
                self.components += 1;
                if self.component_list.len() < self.listed {
                    self.listed_bytes += component.bytes();
                    self.component_list.push(component.clone());
                }
            }
            Event::Scanner(_) | Event::Control(_) | Event::Verdict { .. } | Event::Gap(_) | Event::Note(_) => {}
        }
        self.collector.take(event);
    }

    fn held(&self) -> usize {
        self.collector.held() + self.listed_bytes
    }
}
