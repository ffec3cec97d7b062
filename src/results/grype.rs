//! Grype's JSON, schema 6 of its database (`grype -o json`).
//!
//! Grype lists matches of packages with vulnerabilities, and no controls. Here the controls are the absence of matches of one
//! severity each:
//!
//! | control | Grype's severity |
//! |---|---|
//! | `no-critical-vulnerabilities` | Critical |
//! | `no-high-vulnerabilities` | High |
//! | `no-medium-vulnerabilities` | Medium |
//! | `no-low-vulnerabilities` | Low, Negligible |
//! | `no-unrated-vulnerabilities` | Unknown, none, and any word that is not known |
//!
//! A list without matches is also what Grype prints for a target in which it saw no package, and for one of a distribution
//! that publishes no advisories (an image of BusyBox is of the "distribution" `busybox`). Its output does not say how many
//! packages it saw; the only sign is the distribution that it recognised. So without a match nothing counts as passed unless
//! the distribution is one that publishes advisories, and the database says that it has them (where it says what it has:
//! schema 5 does not); and then a note says what that rests on.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, BufRead as _, BufReader};
use std::marker::PhantomData;

use jiff::Timestamp;
use serde::de::{IgnoredAny, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::{Reported, ResultsError};
use crate::base::limits::Limits;
use crate::base::spool::Content;
use crate::base::text::brief;
use crate::model::finding::{Detail, Finding};
use crate::model::outcome::Outcome;
use crate::model::reason::Reason;

const FORMAT: &str = "Grype JSON";

/// What a Grype that was built without a version says.
const NO_VERSION: &str = "[not provided]";

/// The controls, in the order of severity.
pub const CONTROLS: [&str; 5] = [
    "no-critical-vulnerabilities",
    "no-high-vulnerabilities",
    "no-medium-vulnerabilities",
    "no-low-vulnerabilities",
    "no-unrated-vulnerabilities",
];

/// Distributions that Grype's database may have advisories of, by the name that Grype gives them, with the providers of
/// these. One that is missing here only makes a result without a match count as not evaluated.
const DISTRIBUTIONS: [(&str, &[&str]); 17] = [
    ("almalinux", &["alma", "rhel"]),
    ("alpine", &["alpine"]),
    ("amazonlinux", &["amazon"]),
    ("azurelinux", &["mariner"]),
    ("centos", &["rhel"]),
    ("chainguard", &["chainguard"]),
    ("debian", &["debian"]),
    ("echo", &["echo"]),
    ("mariner", &["mariner"]),
    ("minimos", &["minimos"]),
    ("opensuse-leap", &["sles"]),
    ("oraclelinux", &["oracle"]),
    ("redhat", &["rhel"]),
    ("rockylinux", &["rhel"]),
    ("sles", &["sles"]),
    ("ubuntu", &["ubuntu"]),
    ("wolfi", &["wolfi"]),
];

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    descriptor: Descriptor,
    matches: Listed<Match>,
    #[serde(default)]
    ignored_matches: Option<Listed<Match>>,
    #[serde(default)]
    distro: Option<Distro>,
    #[serde(default)]
    alerts_by_package: Option<Listed<IgnoredAny>>,
}

/// Items that are held at once, at most: whatever the limit is, a list of a gigabyte must not become several in memory.
const HELD: usize = 1_000_000;

/// A list of which the first items are held and all are counted.
struct Listed<T> {
    held: Vec<T>,
    count: usize,
}

impl<T> Default for Listed<T> {
    fn default() -> Self {
        Self { held: Vec::new(), count: 0 }
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Listed<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Items<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Items<T> {
            type Value = Listed<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Listed<T>, A::Error> {
                let mut listed = Listed::default();
                while listed.held.len() < HELD {
                    match items.next_element()? {
                        Some(item) => listed.held.push(item),
                        None => break,
                    }
                }
                listed.count = listed.held.len();
                if listed.count == HELD {
                    while items.next_element::<IgnoredAny>()?.is_some() {
                        listed.count += 1;
                    }
                }
                Ok(listed)
            }
        }
        deserializer.deserialize_seq(Items(PhantomData))
    }
}

#[derive(Deserialize)]
struct Descriptor {
    name: String,
    #[serde(default)]
    version: Option<String>,
    #[serde(default)]
    db: Option<Database>,
}

#[derive(Default, Deserialize)]
struct Database {
    #[serde(default)]
    status: Option<DatabaseStatus>,
    /// Whose advisories it has, by provider.
    #[serde(default)]
    providers: Option<BTreeMap<String, IgnoredAny>>,
    /// Where schema 5 has it.
    #[serde(default)]
    built: Option<Timestamp>,
}

#[derive(Deserialize)]
struct DatabaseStatus {
    #[serde(default)]
    built: Option<Timestamp>,
}

#[derive(Deserialize)]
struct Match {
    vulnerability: Vulnerability,
    artifact: Artifact,
}

#[derive(Deserialize)]
struct Vulnerability {
    id: String,
    #[serde(default)]
    severity: Option<String>,
    #[serde(default)]
    fix: Option<Fix>,
}

#[derive(Deserialize)]
struct Fix {
    #[serde(default)]
    versions: Option<Vec<String>>,
    #[serde(default)]
    state: Option<String>,
}

#[derive(Deserialize)]
struct Artifact {
    name: String,
    #[serde(default)]
    version: Option<String>,
}

#[derive(Default, Deserialize)]
struct Distro {
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    version: Option<String>,
}

/// Reads Grype's output.
pub(crate) fn read<C: Content + ?Sized>(content: &C, limits: &Limits) -> Result<Reported, ResultsError> {
    let document = document(content)?;
    if document.descriptor.name != "grype" {
        let detail = format!("it is the output of `{}`", brief(&document.descriptor.name));
        return Err(ResultsError::Foreign { format: FORMAT, detail });
    }
    let ignored = document.ignored_matches.unwrap_or_default();
    if document.matches.count.saturating_add(ignored.count) > limits.result_items.min(HELD) {
        return Err(ResultsError::TooMany { limit: limits.result_items });
    }
    let distribution = document.distro.unwrap_or_default();
    let database = document.descriptor.db.unwrap_or_default();
    let has_advisories = DISTRIBUTIONS.iter().any(|(known, from)| {
        let provided = |providers: &BTreeMap<String, _>| from.iter().any(|name| providers.contains_key(*name));
        distribution.name.as_deref() == Some(*known) && database.providers.as_ref().is_none_or(provided)
    });
    let name = match distribution.name.as_deref() {
        None | Some("") => "no distribution".to_owned(),
        Some(name) => brief(format!("{name} {}", distribution.version.unwrap_or_default()).trim()),
    };

    let mut notes = Vec::new();
    let without_match = match (has_advisories, document.matches.count == 0) {
        (false, true) => Outcome::not_evaluated(
            Reason::ScannerSkipped,
            format!(
                "there is no match, and the scanner, which recognised {name}, has no advisories for that: nothing says that it could have found one"
            ),
        ),
        (true, true) => {
            notes.push(format!("no match in {name}; the scanner's output does not say how many packages it saw"));
            Outcome::Passed
        }
        (false, false) => {
            notes.push(format!(
                "the scanner recognised {name}: packages of a distribution, if there are any, were not matched"
            ));
            Outcome::Passed
        }
        (true, false) => Outcome::Passed,
    };
    if ignored.count > 0 {
        let mut counts: BTreeMap<usize, u64> = BTreeMap::new();
        for found in &ignored.held {
            *counts.entry(control_of(found)).or_default() += 1;
        }
        let counts: Vec<String> = counts.iter().map(|(i, n)| format!("{n} for {}", CONTROLS[*i])).collect();
        notes.push(format!("the scanner left out {} matches by its rules: {}", ignored.count, counts.join(", ")));
    }
    let alerts = document.alerts_by_package.map_or(0, |alerts| alerts.count);
    if alerts > 0 {
        notes.push(format!("the scanner has alerts on {alerts} packages; the raw result has them"));
    }

    let mut details: [Vec<Detail>; 5] = Default::default();
    for found in &document.matches.held {
        details[control_of(found)].push(detail(found));
    }
    let findings = CONTROLS.iter().zip(details).map(|(control, details)| {
        let outcome = if details.is_empty() { without_match.clone() } else { Outcome::Failed };
        Finding::new(*control, outcome).with_details(details, limits.finding_details)
    });
    let built = database.status.and_then(|status| status.built).or(database.built);
    Ok(Reported {
        findings: findings.collect(),
        notes,
        scanner_version: document.descriptor.version.filter(|version| !matches!(version.as_str(), "" | NO_VERSION)),
        database_built: built,
    })
}

fn document<C: Content + ?Sized>(content: &C) -> Result<Document, ResultsError> {
    serde_json::from_reader(BufReader::with_capacity(64 << 10, content.reader())).map_err(|error| {
        match error.classify() {
            serde_json::error::Category::Eof => ResultsError::Truncated { offset: content.length() },
            serde_json::error::Category::Data => {
                ResultsError::Foreign { format: FORMAT, detail: brief(&error.to_string()) }
            }
            serde_json::error::Category::Syntax => match offset_of(content, error.line(), error.column()) {
                Ok(offset) => ResultsError::Malformed { format: FORMAT, offset, detail: brief(&error.to_string()) },
                Err(error) => ResultsError::Io(error),
            },
            serde_json::error::Category::Io => ResultsError::Io(error.into()),
        }
    })
}

/// Reads it once more, up to that place.
fn offset_of<C: Content + ?Sized>(content: &C, line: usize, column: usize) -> io::Result<u64> {
    let mut reader = BufReader::new(content.reader());
    let mut before = 0;
    for _ in 1..line {
        before += reader.skip_until(b'\n')?;
    }
    Ok((before + column) as u64)
}

fn control_of(found: &Match) -> usize {
    match found.vulnerability.severity.as_deref() {
        Some("Critical") => 0,
        Some("High") => 1,
        Some("Medium") => 2,
        Some("Low" | "Negligible") => 3,
        _ => 4,
    }
}

fn detail(found: &Match) -> Detail {
    let Match { vulnerability, artifact } = found;
    let subject = match artifact.version.as_deref() {
        Some(version) if !version.is_empty() => format!("{} {version}", artifact.name),
        _ => artifact.name.clone(),
    };
    let severity = vulnerability.severity.as_deref().filter(|s| !s.is_empty()).unwrap_or("Unknown");
    let fix = vulnerability.fix.as_ref();
    let versions = fix.and_then(|fix| fix.versions.as_deref()).unwrap_or_default();
    let state = fix.and_then(|fix| fix.state.as_deref()).unwrap_or_default();
    let remedy = match (versions.is_empty(), state) {
        (false, _) => format!("fixed in {}", versions.join(", ")),
        (true, "wont-fix") => "will not be fixed".to_owned(),
        (true, _) => "no fix known".to_owned(),
    };
    Detail::new(subject, format!("{}, {severity}, {remedy}", vulnerability.id))
}

#[cfg(test)]
mod tests;
