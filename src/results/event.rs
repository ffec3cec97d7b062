//! What a result file says, piece by piece, apart from what anybody expected of it.
//!
//! A parser hands out events while it reads, so that memory does not grow with the file. What it handed out counts only when
//! it came to the end of a whole result: until then a file may turn out to be cut, or something else.
//!
//! # Identity
//! Each finding has an identity that stays the same between two runs of one scanner on one target that find the same: it is
//! the SHA-256 of the format's name and the parts that the format's own page here names, each with its length in front. Never
//! in it: times, lengths, line numbers (where the format has anything else), versions of databases, texts that describe.

use std::collections::HashMap;

use jiff::Timestamp;
use serde::Serialize;

use super::ResultsError;
use crate::base::digest::{Digest, Hasher};
use crate::base::limits::Limits;
use crate::model::control::{Reference, Severity};
use crate::model::outcome::Outcome;
use crate::model::reason::Reason;

/// Bytes of one text of an event; the raw result has it whole.
const TEXT_BYTES: usize = 8 << 10;
/// References, ratings or messages of one event.
const PARTS: usize = 256;

/// Takes what a parser reads.
pub(crate) trait Sink {
    /// Takes one event.
    fn take(&mut self, event: Event);

    /// About how many bytes it holds of all that it took.
    fn held(&self) -> usize;
}

/// One thing that a result file says.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Event {
    /// Who wrote it. Later ones add to earlier ones.
    Scanner(Scanner),
    /// What was scanned, in the scanner's words.
    Target(String),
    /// That there is a control, and what is known of it. Findings about it may come before.
    Control(Declared),
    /// How a control ended, where that does not show from findings: the absence of any, for example.
    Verdict { control: String, outcome: Outcome },
    /// One verdict of the scanner on one thing.
    Finding(Reported),
    /// A finding that the scanner left out by rules of its own.
    Suppressed(Reported),
    /// A part of what was scanned.
    Component(Component),
    /// Something that is no control and was not evaluated.
    Gap(Gap),
    /// What is worth knowing and is no verdict.
    Note(String),
}

/// Who wrote a result.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Scanner {
    /// The name that it gives itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Its version, as it says itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// When the database that its verdicts depend on was built, as it says itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub database_built: Option<Timestamp>,
}

/// A control as the result names it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Declared {
    pub(crate) id: String,
    pub(crate) title: String,
    pub(crate) severity: Severity,
    pub(crate) references: Vec<Reference>,
    /// Why the scanner holds that it has no bearing, whatever its checks said; a check that failed or broke still counts.
    pub(crate) not_applicable: Option<String>,
}

/// What kind of verdict a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum FindingKind {
    /// A check of a control, which can also pass.
    Check,
    /// A known vulnerability of a component.
    Vulnerability,
    /// A secret that should not be there.
    Secret,
    /// A licence of a component.
    Licence,
    /// Something that happened.
    Alert,
}

/// One verdict of a scanner on one thing.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Reported {
    /// The same in every run that finds the same.
    pub identity: Digest,
    /// What kind of verdict it is.
    pub kind: FindingKind,
    /// The control that it is about.
    pub control: String,
    /// The verdict.
    #[serde(flatten)]
    pub outcome: Outcome,
    /// The scanner's own word for the verdict, where it has one.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub word: String,
    /// How bad it is, by the table in docs/formats.md.
    pub severity: Severity,
    /// What was judged: a package, a file, an object. It may come from a hostile target: whoever shows it neutralises it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub subject: String,
    /// What was seen. The same holds.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub messages: Vec<String>,
    /// Where else it is known.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub references: Vec<Reference>,
    /// How others rate it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ratings: Vec<Rating>,
}

/// A number that somebody gave a finding.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Rating {
    /// `cvss`, `epss` (a probability from 0 to 1), `kev` (known to be exploited) or what the scanner calls it.
    pub scheme: String,
    /// The number, where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub score: Option<f64>,
    /// What it rests on, as a CVSS vector, or a date.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub vector: String,
    /// Who gave it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub source: String,
}

/// A part of what was scanned: a package, a library, an operating system.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Component {
    /// Its name.
    pub name: String,
    /// Its version, in its own kind of numbers.
    pub version: String,
    /// What it is: the scanner's word.
    pub kind: String,
    /// Its package URL, where the scanner gives one.
    pub purl: String,
    /// Its licences.
    pub licences: Vec<String>,
}

/// Something that a result says was not evaluated, or that shows that something was not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Gap {
    /// What it is about: a profile, a run, a file.
    pub(crate) subject: String,
    /// Why, as a code.
    pub(crate) reason: Reason,
    /// Why, in this case.
    pub(crate) detail: String,
}

/// Where a parser puts what it read: counts it, and cuts what is too long.
pub(crate) struct Out<'a> {
    sink: &'a mut dyn Sink,
    limits: &'a Limits,
    /// How many of each kind there were.
    counts: [usize; 4],
}

/// What is counted apart: as many of each kind may be there as the limit for a result says.
#[derive(Clone, Copy)]
enum Item {
    Target,
    Control,
    Finding,
    Component,
}

impl<'a> Out<'a> {
    /// Hands on at most as many controls, findings and components as the limit for a result says, each, and no more than can
    /// be held.
    pub(crate) fn new(sink: &'a mut dyn Sink, limits: &'a Limits) -> Self {
        Self { sink, limits, counts: [0; 4] }
    }

    fn take(&mut self, item: Item, event: Event) -> Result<(), ResultsError> {
        let count = &mut self.counts[item as usize];
        *count += 1;
        if *count > self.limits.result_items {
            return Err(ResultsError::TooMany { limit: self.limits.result_items });
        }
        self.sink.take(event);
        if self.sink.held() > self.limits.result_held_bytes {
            return Err(ResultsError::TooMuch { limit: self.limits.result_held_bytes });
        }
        Ok(())
    }

    pub(crate) fn scanner(&mut self, name: Option<String>, version: Option<String>, database_built: Option<Timestamp>) {
        let text = |text: Option<String>| text.filter(|text| !text.is_empty()).map(cut);
        self.sink.take(Event::Scanner(Scanner { name: text(name), version: text(version), database_built }));
    }

    pub(crate) fn target(&mut self, name: impl Into<String>) -> Result<(), ResultsError> {
        let name = cut(name.into());
        if name.is_empty() {
            return Ok(());
        }
        self.take(Item::Target, Event::Target(name))
    }

    pub(crate) fn control(&mut self, mut control: Declared) -> Result<(), ResultsError> {
        control.id = cut(control.id);
        control.title = cut(control.title);
        control.references = references(control.references);
        control.not_applicable = control.not_applicable.map(cut);
        self.take(Item::Control, Event::Control(control))
    }

    pub(crate) fn verdict(&mut self, control: impl Into<String>, outcome: Outcome) {
        self.sink.take(Event::Verdict { control: cut(control.into()), outcome });
    }

    pub(crate) fn finding(&mut self, finding: Reported) -> Result<(), ResultsError> {
        self.take(Item::Finding, Event::Finding(bounded(finding)))
    }

    pub(crate) fn suppressed(&mut self, finding: Reported) -> Result<(), ResultsError> {
        self.take(Item::Finding, Event::Suppressed(bounded(finding)))
    }

    pub(crate) fn component(&mut self, component: Component) -> Result<(), ResultsError> {
        let Component { name, version, kind, purl, mut licences } = component;
        licences.truncate(PARTS);
        let licences = licences.into_iter().map(cut).collect();
        let [name, version, kind, purl] = [name, version, kind, purl].map(cut);
        self.take(Item::Component, Event::Component(Component { name, version, kind, purl, licences }))
    }

    pub(crate) fn gap(
        &mut self,
        subject: impl Into<String>,
        reason: Reason,
        detail: impl Into<String>,
    ) -> Result<(), ResultsError> {
        let gap = Gap { subject: cut(subject.into()), reason, detail: cut(detail.into()) };
        self.take(Item::Finding, Event::Gap(gap))
    }

    pub(crate) fn note(&mut self, note: impl Into<String>) {
        self.sink.take(Event::Note(cut(note.into())));
    }
}

fn bounded(mut finding: Reported) -> Reported {
    finding.control = cut(finding.control);
    finding.subject = cut(finding.subject);
    finding.word = cut(finding.word);
    finding.messages.truncate(PARTS);
    for message in &mut finding.messages {
        *message = cut(std::mem::take(message));
    }
    finding.references = references(finding.references);
    finding.ratings.truncate(PARTS);
    for rating in &mut finding.ratings {
        for text in [&mut rating.scheme, &mut rating.vector, &mut rating.source] {
            *text = cut(std::mem::take(text));
        }
    }
    match &mut finding.outcome {
        Outcome::NotApplicable { reason: text } | Outcome::NotEvaluated { detail: text, .. } => {
            *text = cut(std::mem::take(text));
        }
        Outcome::Passed | Outcome::Failed | Outcome::Waived { .. } => {}
    }
    finding
}

fn references(mut references: Vec<Reference>) -> Vec<Reference> {
    references.truncate(PARTS);
    for reference in &mut references {
        reference.id = cut(std::mem::take(&mut reference.id));
    }
    references
}

/// Adds to a list of one event what there is room for; the raw result has the rest.
pub(crate) fn keep<T>(list: &mut Vec<T>, more: impl IntoIterator<Item = T>) {
    let room = PARTS.saturating_sub(list.len());
    list.extend(more.into_iter().take(room));
}

/// How much of a whole result a parser may hold while it reads.
pub(crate) struct Budget {
    limit: usize,
    left: usize,
}

impl Budget {
    /// The bytes that the limits allow.
    pub(crate) fn of(limits: &Limits) -> Self {
        Self { limit: limits.result_held_bytes, left: limits.result_held_bytes }
    }

    /// Takes these bytes, and what holding anything costs.
    pub(crate) fn hold(&mut self, bytes: usize) -> Result<(), ResultsError> {
        const EACH: usize = 64;
        match self.left.checked_sub(bytes.saturating_add(EACH)) {
            Some(left) => {
                self.left = left;
                Ok(())
            }
            None => Err(ResultsError::TooMuch { limit: self.limit }),
        }
    }
}

/// At most so many bytes of a text, with `…` where some are left out.
pub(crate) fn cut(mut text: String) -> String {
    if text.len() > TEXT_BYTES {
        text.truncate(text.floor_char_boundary(TEXT_BYTES));
        text.push('…');
    }
    text
}

/// The identity of what these parts name in a format.
pub(crate) fn identity<T: AsRef<str>>(format: &str, parts: impl IntoIterator<Item = T>) -> Digest {
    let mut hasher = Hasher::new();
    let mut add = |part: &str| {
        hasher.update(&(part.len() as u64).to_be_bytes());
        hasher.update(part.as_bytes());
    };
    add(format);
    for part in parts {
        add(part.as_ref());
    }
    hasher.finish()
}

/// Which one a finding is of those that have all parts of their identity in common: 12 bytes for each of these.
#[derive(Default)]
pub(crate) struct Numbers(HashMap<u64, u32>);

impl Numbers {
    /// The identity of the next one that these parts name.
    pub(crate) fn identity(&mut self, format: &str, parts: &[&str]) -> Digest {
        let number = self.0.entry(first_bytes(identity(format, parts))).or_default();
        let which = identity(format, parts.iter().copied().chain([number.to_string().as_str()]));
        *number = number.saturating_add(1);
        which
    }
}

/// What tells an identity from others as long as these are not as many as a result can have.
pub(crate) fn first_bytes(identity: Digest) -> u64 {
    let mut first = [0; 8];
    first.copy_from_slice(&identity.bytes()[..8]);
    u64::from_be_bytes(first)
}

/// The name of a control elsewhere, where the text has one.
pub(crate) fn reference(scheme: &str, id: &str) -> Option<Reference> {
    let id = id.trim();
    (!id.is_empty()).then(|| Reference { scheme: scheme.to_owned(), id: id.to_owned() })
}

/// The name of a vulnerability, by the scheme that its begin shows.
pub(crate) fn vulnerability_reference(id: &str) -> Option<Reference> {
    let scheme = match id.split_once('-').map(|(begin, _)| begin.to_ascii_lowercase()).as_deref() {
        Some("cve") => "cve",
        Some("ghsa") => "ghsa",
        Some("cwe") => "cwe",
        _ => "advisory",
    };
    reference(scheme, id)
}

impl Declared {
    /// About how much memory it takes.
    pub(crate) fn bytes(&self) -> usize {
        let why = self.not_applicable.as_ref().map_or(0, String::len);
        size_of::<Self>() + self.id.len() + self.title.len() + why + of_references(&self.references)
    }
}

impl Reported {
    /// About how much memory it takes.
    pub(crate) fn bytes(&self) -> usize {
        let messages: usize = self.messages.iter().map(|message| size_of::<String>() + message.len()).sum();
        let rating = |rating: &Rating| size_of::<Rating>() + rating.vector.len() + rating.source.len();
        let ratings: usize = self.ratings.iter().map(rating).sum();
        let texts = self.control.len() + self.word.len() + self.subject.len();
        size_of::<Self>() + texts + messages + ratings + of_references(&self.references)
    }
}

impl Component {
    /// About how much memory it takes.
    pub(crate) fn bytes(&self) -> usize {
        let licences: usize = self.licences.iter().map(|licence| size_of::<String>() + licence.len()).sum();
        size_of::<Self>() + self.name.len() + self.version.len() + self.kind.len() + self.purl.len() + licences
    }
}

fn of_references(references: &[Reference]) -> usize {
    references.iter().map(|reference| size_of::<Reference>() + reference.scheme.len() + reference.id.len()).sum()
}

impl FindingKind {
    /// The word in documents.
    pub fn code(self) -> &'static str {
        match self {
            Self::Check => "check",
            Self::Vulnerability => "vulnerability",
            Self::Secret => "secret",
            Self::Licence => "licence",
            Self::Alert => "alert",
        }
    }
}
