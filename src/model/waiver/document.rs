//! Reading a `kind: Waivers` document: every problem at once, each with its line and column.
//!
//! Whoever wrote it may be hostile or in a hurry, and each of these is a problem that is named:
//! * a waiver for everything because something was left out: `targets` has to be written, `targets: all` where all are meant,
//!   and a pattern that leaves everything open is refused;
//! * a key that is misspelt, so that a bound would silently not hold: unknown keys are refused;
//! * a date that another reader takes for another: RFC 3339, or a day alone, which ends at its end in UTC;
//! * a waiver for the controls by which gapscan judges the scan itself;
//! * a target by its labels, which whoever runs it can set without anybody's approval;
//! * so many waivers, patterns or characters that matching them takes for ever: the constants below.
//!
//! Texts are kept as they are; whoever shows them neutralises them.

mod entry;
mod targets;

use std::collections::BTreeMap;
use std::path::Path;

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use schemars::JsonSchema;
use serde::Deserialize;

use self::entry::WaiverEntry;
use super::{WaivedTargets, Waiver};
use crate::base::document::{self, ApiVersion, Document, DocumentError};
use crate::base::text::brief;

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

/// A `kind: Waivers` document: failures that people accept until a date. Its fields are optional for the reader alone, so that
/// all that is wrong is told at once: [`read`] refuses a document in which one is missing or not known.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields)]
pub struct WaiversDocument {
    /// `gapscan/v1`
    #[serde(rename = "apiVersion")]
    _api_version: ApiVersion,
    /// `Waivers`
    #[serde(rename = "kind")]
    _kind: String,
    /// The waivers, at most 10,000.
    waivers: Vec<WaiverEntry>,
}

impl Document for WaiversDocument {
    const KIND: &'static str = "Waivers";
}

/// The waivers of a document; `path` is only for messages.
///
/// # Errors
/// When it is no such document, or what it says can't be: all problems at once.
pub fn read(path: &Path, text: &str) -> Result<Vec<Waiver>, DocumentError> {
    let document = document::parse_checked(path, text, |document: &WaiversDocument| document.checked().1)?;
    Ok(document.checked().0)
}

impl WaiversDocument {
    /// The waivers, and all that is wrong with them, each with the field that it is about.
    fn checked(&self) -> (Vec<Waiver>, Vec<String>) {
        let mut problems = Vec::new();
        if self.waivers.len() > WAIVERS {
            problems.push(format!("waivers[{WAIVERS}]: there are more than {WAIVERS} waivers"));
        }
        let mut waivers: Vec<Waiver> = Vec::with_capacity(self.waivers.len().min(WAIVERS));
        let mut ids: BTreeMap<String, usize> = BTreeMap::new();
        let mut patterns = 0;
        for (at, entry) in self.waivers.iter().take(WAIVERS).enumerate() {
            let field = format!("waivers[{at}]");
            let waiver = entry.checked(&field, &mut problems);
            if let Some(first) = ids.get(&waiver.id).filter(|_| !waiver.id.is_empty()) {
                problems.push(format!("{field}.id: waivers[{first}] has the id `{}`, too", brief(&waiver.id)));
            }
            ids.entry(waiver.id.clone()).or_insert(at);
            let targets = match &waiver.targets {
                WaivedTargets::All => 0,
                WaivedTargets::These(targets) => targets.len(),
            };
            let before = patterns;
            patterns += waiver.controls.len() + targets;
            if before <= PATTERNS && patterns > PATTERNS {
                problems.push(format!("{field}: there are more than {PATTERNS} patterns of controls and targets"));
            }
            waivers.push(waiver);
        }
        (waivers, problems)
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
