//! Results that are inventories: they judge nothing, and that one was made is all that they show.
//!
//! | control | passed | otherwise |
//! |---|---|---|
//! | `software-inventory` | the result names a component, and of nothing that it did not look at | not evaluated |

use super::collect::Collector;
use super::event::{Event, Sink};
use crate::model::outcome::Outcome;
use crate::model::reason::Reason;

/// The one control of an inventory.
pub(super) const CONTROL: &str = "software-inventory";

/// Counts components, and hands on what is not about controls.
pub(super) struct Inventory<'c> {
    collector: &'c mut Collector,
    components: u64,
}

impl<'c> Inventory<'c> {
    pub(super) fn new(collector: &'c mut Collector) -> Self {
        Self { collector, components: 0 }
    }

    /// Judges what came, when all of it came.
    pub(super) fn finish(self) {
        let outcome = if let Some(gap) = self.collector.gaps.first() {
            Outcome::not_evaluated(gap.reason, format!("the inventory lacks {}: {}", gap.subject, gap.detail))
        } else if self.components == 0 {
            // What has no package that the scanner knows looks like what the scanner could not look into.
            Outcome::not_evaluated(Reason::FactMissing, "the inventory names no component")
        } else {
            self.collector.notes.push(format!("the inventory names {} components", self.components));
            Outcome::Passed
        };
        self.collector.take(Event::Verdict { control: CONTROL.to_owned(), outcome });
    }
}

impl Sink for Inventory<'_> {
    fn take(&mut self, event: Event) {
        match event {
            Event::Component(_) => self.components += 1,
            Event::Control(_) | Event::Verdict { .. } | Event::Finding(_) | Event::Suppressed(_) => {}
            other => self.collector.take(other),
        }
    }
    fn held(&self) -> usize {
        self.collector.held()
    }
}
