//! Puts together what a result says of each control.

mod seen;

use std::collections::HashMap;

use self::seen::Seen;
use super::event::{Declared, Event, Gap, Reported, Scanner, Sink, first_bytes};
use crate::model::finding::{Detail, Finding};
use crate::model::outcome::{Outcome, Status};
use crate::model::reason::Reason;

/// How many verdicts that contradict each other are named.
const NAMED: usize = 20;
/// Controls whose left-out findings are counted apart.
const SUPPRESSED: usize = 1000;

/// What a result says of one control, of all that it says about it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Account {
    pub(crate) id: String,
    /// What the result says that it is, where it does.
    pub(crate) declared: Option<Declared>,
    /// How it ended, what it rests on.
    pub(crate) finding: Finding,
    /// How many verdicts that rests on.
    pub(crate) findings: u64,
}

/// Takes events, and gives one account of each control:
/// * the worst of its findings counts: failed before not evaluated before waived before passed before not applicable;
/// * two findings of one identity whose verdicts differ make it [`Reason::ControlAmbiguous`];
/// * with neither finding nor verdict it is [`Reason::ControlMissing`];
/// * what passed, or does not apply, is not evaluated ([`Reason::ScannerSkipped`]) where the scanner left findings about it out
///   by rules of its own: what may be accepted, and until when, is for waivers to say;
/// * one that the scanner holds to have no bearing is not applicable, unless a check failed or broke.
pub(crate) struct Collector {
    details: usize,
    order: Vec<Held>,
    index: HashMap<String, usize>,
    seen: Seen,
    /// About how many bytes all of this takes.
    bytes: usize,
    pub(crate) scanner: Scanner,
    pub(crate) gaps: Vec<Gap>,
    pub(crate) notes: Vec<String>,
    /// How many findings the scanner left out by rules of its own, for each control.
    pub(crate) suppressed: Vec<(String, u64)>,
}

struct Held {
    id: String,
    declared: Option<Declared>,
    worst: Option<Outcome>,
    verdict: Option<Outcome>,
    /// Words of verdicts that contradict each other.
    contradiction: Vec<Status>,
    /// Whether only checks that passed, were skipped or do not apply were seen.
    calm: bool,
    details: Vec<Detail>,
    omitted: u64,
    findings: u64,
    /// Findings that the scanner left out.
    left_out: u64,
}

impl Collector {
    /// Keeps at most so many details of each control.
    pub(crate) fn new(details: usize) -> Self {
        Self {
            details,
            order: Vec::new(),
            index: HashMap::new(),
            seen: Seen::default(),
            bytes: 0,
            scanner: Scanner::default(),
            gaps: Vec::new(),
            notes: Vec::new(),
            suppressed: Vec::new(),
        }
    }

    fn at(&mut self, id: &str) -> usize {
        if let Some(at) = self.index.get(id) {
            return *at;
        }
        let at = self.order.len();
        // Its id is there twice; the table has room to grow.
        self.bytes += size_of::<Held>() + 2 * (id.len() + size_of::<(String, usize)>());
        self.index.insert(id.to_owned(), at);
        self.order.push(Held {
            id: id.to_owned(),
            declared: None,
            worst: None,
            verdict: None,
            contradiction: Vec::new(),
            calm: true,
            details: Vec::new(),
            omitted: 0,
            findings: 0,
            left_out: 0,
        });
        at
    }

    fn finding(&mut self, reported: Reported) {
        let at = self.at(&reported.control);
        let status = reported.outcome.status();
        let key = key_of(&reported, at);
        let before = self.seen.insert(key, status);
        self.bytes += Seen::ENTRY_BYTES;
        let held = &mut self.order[at];
        held.findings += 1;
        held.calm &= match &reported.outcome {
            Outcome::Passed | Outcome::NotApplicable { .. } => true,
            Outcome::NotEvaluated { reason, .. } => *reason == Reason::ScannerSkipped,
            Outcome::Failed | Outcome::Waived { .. } => false,
        };
        if let Some(before) = before
            && before != status
            && held.contradiction.len() < NAMED
        {
            if held.contradiction.is_empty() {
                held.contradiction.push(before);
            }
            held.contradiction.push(status);
        }
        for message in reported.messages {
            if held.details.len() < self.details {
                self.bytes += size_of::<Detail>() + reported.subject.len() + message.len();
                held.details.push(Detail::new(reported.subject.as_str(), message));
            } else {
                held.omitted += 1;
            }
        }
        let said = text_of(held.worst.as_ref());
        held.worst = worse(held.worst.take(), Some(reported.outcome));
        self.bytes = self.bytes - said + text_of(held.worst.as_ref());
    }

    fn suppressed(&mut self, reported: &Reported) {
        let at = self.at(&reported.control);
        self.order[at].left_out += 1;
        let known = self.suppressed.iter().position(|(control, _)| *control == reported.control);
        // What is left out of very many controls is still counted: under the last of them.
        let at = known.or((self.suppressed.len() >= SUPPRESSED).then_some(SUPPRESSED - 1));
        match at {
            Some(at) => self.suppressed[at].1 += 1,
            None => self.suppressed.push((reported.control.clone(), 1)),
        }
    }

    /// How many controls there are so far.
    pub(crate) fn controls(&self) -> usize {
        self.order.len()
    }

    /// What is known of each control, in the order in which they came.
    pub(crate) fn accounts(&mut self) -> Vec<Account> {
        std::mem::take(&mut self.order).into_iter().map(Held::account).collect()
    }

    /// All notes: those of the parser, what was left out, and what was not evaluated and is no control.
    pub(crate) fn notes(&mut self) -> Vec<String> {
        let mut notes = std::mem::take(&mut self.notes);
        let count: u64 = self.suppressed.iter().map(|(_, count)| count).sum();
        if count > 0 {
            let named = self.suppressed.iter().take(NAMED);
            let named: Vec<String> =
                named.map(|(control, n)| format!("{n} for {}", crate::base::text::brief(control))).collect();
            notes.push(format!("the scanner left out {count} findings by its rules: {}", named.join(", ")));
        }
        notes
    }
}

impl Sink for Collector {
    fn take(&mut self, event: Event) {
        match event {
            Event::Scanner(Scanner { name, version, database_built }) => {
                self.scanner.name = name.or(self.scanner.name.take());
                self.scanner.version = version.or(self.scanner.version.take());
                self.scanner.database_built = database_built.or(self.scanner.database_built.take());
            }
            Event::Control(declared) => {
                let at = self.at(&declared.id);
                if self.order[at].declared.is_none() {
                    self.bytes += declared.bytes();
                    self.order[at].declared = Some(declared);
                }
            }
            Event::Verdict { control, outcome } => {
                let at = self.at(&control);
                let held = &mut self.order[at];
                held.verdict = worse(held.verdict.take(), Some(outcome));
            }
            Event::Finding(reported) => self.finding(reported),
            Event::Suppressed(reported) => self.suppressed(&reported),
            Event::Gap(gap) => {
                self.bytes += size_of::<Gap>() + gap.subject.len() + gap.detail.len();
                self.gaps.push(gap);
            }
            Event::Note(note) => self.notes.push(note),
            Event::Target(_) | Event::Component(_) => {}
        }
    }

    fn held(&self) -> usize {
        self.bytes
    }
}

/// The length of what an outcome says in words.
fn text_of(outcome: Option<&Outcome>) -> usize {
    match outcome {
        Some(Outcome::NotApplicable { reason: text } | Outcome::NotEvaluated { detail: text, .. }) => text.len(),
        Some(Outcome::Passed | Outcome::Failed | Outcome::Waived { .. }) | None => 0,
    }
}

impl Held {
    fn account(self) -> Account {
        let bearing = self.declared.as_ref().and_then(|declared| declared.not_applicable.as_ref());
        let outcome = if !self.contradiction.is_empty() {
            let words: Vec<String> = self.contradiction.iter().map(Status::to_string).collect();
            Outcome::not_evaluated(Reason::ControlAmbiguous, format!("it was reported as {}", words.join(", ")))
        } else if let (Some(reason), true, true) = (bearing, self.calm, self.findings > 0) {
            Outcome::NotApplicable { reason: reason.clone() }
        } else {
            worse(self.worst, self.verdict).unwrap_or_else(|| {
                Outcome::not_evaluated(Reason::ControlMissing, "the scanner's result does not say how it ended")
            })
        };
        let outcome = match outcome {
            Outcome::Passed
            | Outcome::NotApplicable { .. }
            | Outcome::NotEvaluated { reason: Reason::ControlMissing, .. }
                if self.left_out > 0 =>
            {
                let detail = format!("the scanner left out {} findings about it by rules of its own", self.left_out);
                Outcome::not_evaluated(Reason::ScannerSkipped, detail)
            }
            outcome => outcome,
        };
        let mut finding = Finding::new(&*self.id, outcome);
        finding.details = self.details;
        finding.details_omitted = self.omitted;
        Account { id: self.id, declared: self.declared, finding, findings: self.findings }
    }
}

/// Tells the finding from others about the same control.
fn key_of(reported: &Reported, control: usize) -> u64 {
    first_bytes(reported.identity) ^ (control as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// The worse of two, the first of two that are as bad.
fn worse(a: Option<Outcome>, b: Option<Outcome>) -> Option<Outcome> {
    let rank = |outcome: &Outcome| match outcome.status() {
        Status::Failed => 0,
        Status::NotEvaluated => 1,
        Status::Waived => 2,
        Status::Passed => 3,
        Status::NotApplicable => 4,
    };
    match (a, b) {
        (Some(a), Some(b)) => Some(if rank(&a) <= rank(&b) { a } else { b }),
        (one, other) => one.or(other),
    }
}
