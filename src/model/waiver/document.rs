//! Reading a `kind: Waivers` document: every problem at once, each with its line and column.
//!
//! Whoever wrote it may be hostile or in a hurry, and each of these is a problem that is named:
//! * a waiver for everything because something was left out: `targets` has to be written, `targets: all` where all are meant,
//!   and a pattern that leaves everything open is refused;
//! * a key that is misspelt, so that a bound would silently not hold: unknown keys are refused;
//! * a date that another reader takes for another: RFC 3339, or a day alone, which ends at its end in UTC;
//! * a waiver for the controls by which gapscan judges the scan itself;
//! * so many waivers, patterns or characters that matching them takes for ever: the constants below.
//!
//! Texts are kept as they are; whoever shows them neutralises them.

mod raw;
mod targets;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use serde_saphyr::Spanned;

use self::raw::{Fields, Raw, RawDocument, RawProfile, TEXTS, Text};
use self::targets::targets;
use super::{WaivedProfile, WaivedTargets, Waiver};
use crate::base::document::{self, DocumentError};
use crate::base::exit::{Classify, ExitClass};
use crate::base::text::brief;
use crate::model::control::Severity;
use crate::model::scanner::is_own_control;

/// Waivers of one document.
const WAIVERS: usize = 10_000;
/// Patterns of controls and targets of one document, all of which may be compared with each control of each result.
const PATTERNS: usize = 20_000;
/// Characters of a pattern.
const PATTERN: usize = 512;
/// Characters of an id.
const ID: usize = 128;
/// Characters of a name of somebody or something.
const NAME: usize = 256;
/// Characters of a reason.
const REASON: usize = 4096;
/// So many problems are told.
const TOLD: usize = 50;

/// Why a document of waivers can't be used.
#[derive(Debug, thiserror::Error)]
pub enum WaiverError {
    /// It can't be read, or is no such document.
    #[error(transparent)]
    Document(#[from] DocumentError),
    /// What it says can't be; all problems, each with its place.
    #[error("use waivers `{}`: {}", .path.display(), .problems.join("; "))]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong, as `line 3, column 5: ...`.
        problems: Vec<String>,
    },
}

impl Classify for WaiverError {
    fn class(&self) -> ExitClass {
        match self {
            Self::Document(error) => error.class(),
            Self::Content { .. } => ExitClass::Usage,
        }
    }
}

/// A place in the text: line and column.
type At = (u64, u64);

fn at<T>(spanned: &Spanned<T>) -> At {
    (spanned.referenced.line(), spanned.referenced.column())
}

/// Collects what is wrong.
#[derive(Default)]
struct Problems(Vec<(At, String)>);

impl Problems {
    fn add(&mut self, at: At, what: impl Into<String>) {
        self.0.push((at, what.into()));
    }
}

/// The waivers of a document; `path` is only for messages.
///
/// # Errors
/// When it is no such document, or what it says can't be: all problems at once.
pub fn read(path: &Path, text: &str) -> Result<Vec<Waiver>, WaiverError> {
    let raw: RawDocument = document::parse(path, text)?;
    let mut problems = Problems::default();
    if raw.waivers.len() > WAIVERS {
        problems.add(at(&raw.waivers[WAIVERS]), format!("there are more than {WAIVERS} waivers"));
    }
    let mut waivers: Vec<Waiver> = Vec::with_capacity(raw.waivers.len().min(WAIVERS));
    let mut ids: BTreeMap<String, At> = BTreeMap::new();
    let mut patterns = 0;
    for raw in raw.waivers.into_iter().take(WAIVERS) {
        let begin = at(&raw);
        let waiver = raw.value.checked(begin, &mut problems);
        if let Some((first, _)) = ids.get(&waiver.id).filter(|_| !waiver.id.is_empty()) {
            problems.add(begin, format!("the waiver of line {first} has the id `{}`, too", brief(&waiver.id)));
        }
        ids.entry(waiver.id.clone()).or_insert(begin);
        let targets = match &waiver.targets {
            WaivedTargets::All => 0,
            WaivedTargets::These(targets) => targets.len(),
        };
        let before = patterns;
        patterns += waiver.controls.len() + targets;
        if before <= PATTERNS && patterns > PATTERNS {
            problems.add(begin, format!("there are more than {PATTERNS} patterns of controls and targets"));
        }
        waivers.push(waiver);
    }
    if problems.0.is_empty() {
        return Ok(waivers);
    }
    let Problems(mut found) = problems;
    found.sort();
    let more = found.len().saturating_sub(TOLD);
    let mut problems: Vec<String> = found
        .into_iter()
        .take(TOLD)
        .map(|((line, column), what)| format!("line {line}, column {column}: {what}"))
        .collect();
    if more > 0 {
        problems.push(format!("and {more} more"));
    }
    Err(WaiverError::Content { path: path.to_owned(), problems })
}

impl Raw {
    /// The waiver, if nothing is added to the problems.
    fn checked(self, begin: At, problems: &mut Problems) -> Waiver {
        for key in &self.unknown {
            let known = TEXTS.join(", ");
            problems.add(
                at(key),
                format!(
                    "`{}` is no part of a waiver, which has {known}, controls, profile, targets",
                    brief(&key.value)
                ),
            );
        }
        let mut text = |key: &'static str, most: usize| {
            let Some(text) = self.texts.get(key) else {
                problems.add(begin, format!("{key} is missing"));
                return None;
            };
            let place = at(text);
            let value = text.value.as_deref().unwrap_or_default().trim();
            if value.is_empty() {
                problems.add(place, format!("{key} is empty"));
            } else if value.chars().count() > most {
                problems.add(place, format!("{key} is longer than {most} characters"));
            }
            Some((place, value.to_owned()))
        };
        let id = text("id", ID);
        let reason = text("reason", REASON).unwrap_or_default().1;
        let requested_by = text("requestedBy", NAME).unwrap_or_default().1;
        let expires = text("expires", NAME);
        if let Some((place, id)) = &id
            && !id.bytes().all(|b| b.is_ascii_graphic())
        {
            problems.add(*place, format!("id `{}` must be printable ASCII without spaces", brief(id)));
        }
        let expires = expires.and_then(|(place, text)| {
            let read = expiry(&text);
            if read.is_none() && !text.is_empty() {
                problems.add(place, format!("expires `{}` is neither a day, as 2027-01-31, nor a time as in RFC 3339, as 2027-01-31T12:00:00Z", brief(&text)));
            }
            read
        });
        let max_severity = self.texts.get("maxSeverity").and_then(|text| {
            let word = text.value.as_deref().unwrap_or_default();
            let found = Severity::WORST_FIRST.into_iter().find(|severity| severity.word() == word);
            if found.is_none() {
                let known = Severity::WORST_FIRST.map(Severity::word).join(", ");
                problems.add(at(text), format!("maxSeverity `{}` is none of {known}", brief(word)));
            }
            found
        });
        Waiver {
            id: id.unwrap_or_default().1,
            controls: controls(self.controls, begin, problems),
            profile: profile(self.profile, begin, problems),
            targets: targets(self.targets, begin, problems),
            reason,
            requested_by,
            expires: expires.unwrap_or(Timestamp::MIN),
            max_severity,
        }
    }
}

/// A day is over when it ends in UTC; anything else is a time with its offset.
pub fn expiry(text: &str) -> Option<Timestamp> {
    // `2027-01-31T...` has 20 characters at least; a day has 10.
    if text.len() == 10 {
        let day: Date = text.parse().ok()?;
        return Some(day.at(23, 59, 59, 0).to_zoned(TimeZone::UTC).ok()?.timestamp());
    }
    let rfc3339 =
        text.is_ascii() && text.as_bytes().get(10).is_some_and(|b| matches!(b, b'T' | b't')) && !text.contains('[');
    rfc3339.then(|| text.parse().ok()).flatten()
}

fn controls(raw: Option<Spanned<Vec<Text>>>, begin: At, problems: &mut Problems) -> Vec<String> {
    let Some(raw) = raw else {
        problems.add(begin, "controls is missing");
        return Vec::new();
    };
    if raw.value.is_empty() {
        problems.add(at(&raw), "controls names none; write `[\"*\"]` for all of the profile");
    }
    let mut controls = Vec::with_capacity(raw.value.len());
    for control in raw.value {
        let place = at(&control);
        let id = control.value.unwrap_or_default();
        if id.is_empty() || id.len() > PATTERN || !id.bytes().all(|b| b.is_ascii_graphic()) {
            problems.add(
                place,
                format!(
                    "`{}` is no id of a control: printable ASCII without spaces, at most {PATTERN} characters",
                    brief(&id)
                ),
            );
        }
        if is_own_control(&id) {
            problems.add(place, format!("`{id}` is by what gapscan judges the scan itself, and can't be waived"));
        }
        controls.push(id);
    }
    controls
}

fn profile(raw: Option<Spanned<RawProfile>>, begin: At, problems: &mut Problems) -> WaivedProfile {
    let mut profile = WaivedProfile { name: String::new(), version: None };
    let Some(raw) = raw else {
        problems.add(begin, "profile is missing");
        return profile;
    };
    let place = at(&raw);
    match raw.value {
        RawProfile::Name(name) => profile.name = name,
        RawProfile::Fields(Fields(fields)) => {
            for (key, value) in fields {
                let text = value.value.clone().unwrap_or_default();
                match key.value.as_str() {
                    "name" => profile.name = text,
                    "version" if text.is_empty() || text.chars().count() > NAME => {
                        problems.add(at(&value), "the profile's version is empty or too long");
                    }
                    "version" => profile.version = Some(text),
                    other => problems
                        .add(at(&key), format!("`{}` is no part of a profile, which has name, version", brief(other))),
                }
            }
        }
    }
    if profile.name.is_empty() || profile.name.chars().count() > NAME {
        problems.add(place, "the profile's name is missing, empty or too long");
    }
    profile
}
