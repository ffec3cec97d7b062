//! Results of scanners with more rules than anybody lists: one control for each severity, as for vulnerabilities.
//!
//! | control | the finding's severity |
//! |---|---|
//! | `no-critical-findings` | critical |
//! | `no-high-findings` | high |
//! | `no-medium-findings` | medium |
//! | `no-low-findings` | low |
//! | `no-unrated-findings` | none |

use super::collect::Collector;
use super::event::{Event, Gap, Sink};
use crate::model::control::Severity;
use crate::model::outcome::Outcome;
use crate::model::reason::Reason;

/// Hands on each finding as one about the control of its severity.
pub(super) struct BySeverity<'c>(pub(super) &'c mut Collector);

/// The control that findings of this severity are about.
pub(super) fn control_of(severity: Severity) -> &'static str {
    match severity {
        Severity::Critical => "no-critical-findings",
        Severity::High => "no-high-findings",
        Severity::Medium => "no-medium-findings",
        Severity::Low => "no-low-findings",
        Severity::None => "no-unrated-findings",
    }
}

impl Sink for BySeverity<'_> {
    fn take(&mut self, event: Event) {
        match event {
            // That one rule is met says nothing of all the others of its severity.
            Event::Finding(found) if matches!(found.outcome, Outcome::Passed | Outcome::NotApplicable { .. }) => {}
            Event::Finding(mut found) => {
                let rule = std::mem::replace(&mut found.control, control_of(found.severity).to_owned());
                match found.messages.is_empty() {
                    true => found.messages.push(rule),
                    false => found.messages.iter_mut().for_each(|text| *text = format!("{rule}: {text}")),
                }
                self.0.take(Event::Finding(found));
            }
            Event::Suppressed(mut left_out) => {
                left_out.control = control_of(left_out.severity).to_owned();
                self.0.take(Event::Suppressed(left_out));
            }
            // A rule that was not evaluated is none of these controls, and keeps all of them from passing in silence.
            Event::Verdict { control, outcome: Outcome::NotEvaluated { reason, detail } } => {
                self.0.take(Event::Gap(Gap { subject: control, reason, detail }));
            }
            Event::Verdict { control, outcome: Outcome::Failed | Outcome::Waived { .. } } => {
                let detail = "it failed, and the result says of no finding why".to_owned();
                self.0.take(Event::Gap(Gap { subject: control, reason: Reason::ControlAmbiguous, detail }));
            }
            Event::Verdict { outcome: Outcome::Passed | Outcome::NotApplicable { .. }, .. } | Event::Control(_) => {}
            other => self.0.take(other),
        }
    }

    fn held(&self) -> usize {
        self.0.held()
    }
}
