//! One control of one target, as the page shows it.

use super::shown::{Shown, When, digest};
use super::{FIRST_DETAILS, MAX_DETAILS};
use crate::model::control::{Control, Reference};
use crate::model::finding::{Detail, Finding};
use crate::model::outcome::Outcome;

/// One control of one target.
#[derive(Debug)]
pub(super) struct FindingView {
    /// Where links to it go.
    pub(super) anchor: String,
    pub(super) control: Shown,
    pub(super) title: Shown,
    pub(super) severity: &'static str,
    pub(super) why: Shown,
    pub(super) check: Shown,
    pub(super) fix: Shown,
    pub(super) references: Vec<ReferenceView>,
    pub(super) found: Found,
    /// Only of what does not apply.
    pub(super) reason: Shown,
    pub(super) waiver: Option<WaiverView>,
}

/// What a verdict rests on.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) first: Vec<DetailView>,
    pub(super) more: Vec<DetailView>,
    /// What is only in the ledger.
    pub(super) omitted: u64,
}

#[derive(Debug)]
pub(super) struct DetailView {
    pub(super) subject: Shown,
    pub(super) message: Shown,
}

#[derive(Debug)]
pub(super) struct ReferenceView {
    pub(super) scheme: Shown,
    pub(super) id: Shown,
    pub(super) is_link: bool,
}

#[derive(Debug)]
pub(super) struct WaiverView {
    pub(super) id: Shown,
    pub(super) justification: Shown,
    pub(super) until: When,
    pub(super) digest: Shown,
    /// Whether it has run out since the result was recorded.
    pub(super) expired: bool,
}

impl FindingView {
    pub(super) fn new(anchor: String, control: &Control, finding: &Finding, now: jiff::Timestamp) -> Self {
        let (reason, waiver) = match &finding.outcome {
            Outcome::Passed | Outcome::Failed => (Shown::line(""), None),
            Outcome::NotApplicable { reason } => (Shown::said(reason), None),
            Outcome::NotEvaluated { detail, .. } => (Shown::said(detail), None),
            Outcome::Waived { waiver, id, justification, until } => {
                let waiver = WaiverView {
                    id: Shown::line(id),
                    justification: Shown::said(justification),
                    until: When::new(*until),
                    digest: digest(waiver),
                    expired: *until <= now,
                };
                (Shown::line(""), Some(waiver))
            }
        };
        let title = if control.title.is_empty() { &control.id } else { &control.title };
        Self {
            anchor,
            control: Shown::line(&control.id),
            title: Shown::line(title),
            severity: control.severity.word(),
            why: Shown::lines(&control.description),
            check: Shown::lines(&control.check),
            fix: Shown::lines(&control.fix),
            references: control.references.iter().map(ReferenceView::new).collect(),
            found: Found::new(finding),
            reason,
            waiver,
        }
    }
}

impl Found {
    fn new(finding: &Finding) -> Self {
        let view = |detail: &Detail| DetailView {
            subject: Shown::line(&detail.subject),
            message: Shown::said(&detail.message),
        };
        let shown = finding.details.len().min(MAX_DETAILS);
        // A click to see one line more would be a bad deal.
        let first = if shown <= FIRST_DETAILS + 2 { shown } else { FIRST_DETAILS };
        Self {
            first: finding.details[..first].iter().map(view).collect(),
            more: finding.details[first..shown].iter().map(view).collect(),
            omitted: (finding.details.len() - shown) as u64 + finding.details_omitted,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.first.is_empty() && self.omitted == 0
    }
}

impl ReferenceView {
    fn new(reference: &Reference) -> Self {
        let is_link = reference.scheme == "url"
            && ["https://", "http://"].iter().any(|p| reference.id.starts_with(p))
            && reference.id.len() <= 300;
        Self { scheme: Shown::line(&reference.scheme), id: Shown::line(&reference.id), is_link }
    }
}
