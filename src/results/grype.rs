//! Grype's JSON, schemas 5 and 6 of its database (`grype -o json`).
//!
//! Grype lists matches of packages with vulnerabilities, and no controls: those are the ones of [`super::vulnerabilities`].
//!
//! A list without matches is also what Grype prints for a target in which it saw no package (somebody removed the package
//! manager's database), for one of a distribution that publishes no advisories (an image of BusyBox is of the "distribution"
//! `busybox`), and for a release of which its database has none: too old, or newer than the database. Its output says
//! nothing of what it saw. So a severity without a match counts as passed only where the result shows that it could have had
//! one: some package matched an advisory of the distribution, which Grype has for this release then. Whoever wants to know that
//! an image has nothing at all takes a scanner that lists what it saw.
//!
//! The same holds where Grype was told to leave something out (paths, states of fixes), and where it warns that a release
//! gets no advisories any more (`alertsByPackage`).
//!
//! Identity of a finding: the vulnerability's id and namespace, the package's name, version, type, and its first location.

use std::collections::HashSet;
use std::io::Read;

use jiff::Timestamp;

use super::ResultsError;
use super::event::{FindingKind, Out, Rating, Reported, identity, keep, reference, vulnerability_reference};
use super::json::{Json, Kind};
use super::vulnerabilities::{self, control_of};
use crate::base::limits::Limits;
use crate::base::text::brief;
use crate::model::control::Reference;
use crate::model::outcome::Outcome;
use crate::model::reason::Reason;

pub use super::vulnerabilities::CONTROLS;

const FORMAT: &str = "Grype JSON";

/// Paths that it was told to leave out, of those that are named.
const LEFT_OUT: usize = 20;

/// What a Grype that was built without a version says.
const NO_VERSION: &str = "[not provided]";

#[derive(Default)]
struct Descriptor {
    name: Option<String>,
    version: Option<String>,
    built: Option<Timestamp>,
    /// What it was told to leave out.
    left_out: Vec<String>,
}

/// One match of a package with a vulnerability.
#[derive(Default)]
struct Match {
    id: String,
    namespace: String,
    severity: String,
    fixed_in: Vec<String>,
    fix_state: String,
    package: String,
    version: String,
    kind: String,
    purl: String,
    location: String,
    references: Vec<Reference>,
    ratings: Vec<Rating>,
    /// Every rule that it is ignored by is one of Grype's own on what a match is.
    no_match_at_all: bool,
}

/// Why Grype's matchers take back a match themselves: the distribution says that its package has the fix, or never had the
/// flaw. (`reason` of `appliedIgnoreRules`.)
const TAKEN_BACK: [&str; 6] = [
    "Alma Unaffected",
    "Distro Fixed",
    "Distro Not Vulnerable",
    "DistroPackageFixed",
    "Explicit APK NAK",
    "UnaffectedPackageEntry",
];

/// The built-in rules by which packages with a kernel's headers alone don't match what is known of the kernel, by the package's
/// name; they hold for matches through the source package.
const HEADERS: [&str; 4] = ["kernel-headers", "linux(-.*)?-headers-.*", "linux-libc-dev", "linux-kbuild-.*"];

/// Reads Grype's output.
pub(crate) fn read(source: impl Read, out: &mut Out<'_>, limits: &Limits) -> Result<(), ResultsError> {
    let mut json = Json::new(source, FORMAT, limits.result_bytes);
    if json.kind()? != Kind::Object {
        return Err(json.foreign("it is no object"));
    }
    let (mut descriptor, mut matches, mut alerts) = (None, false, 0_u64);
    let (mut distribution, mut release) = (String::new(), String::new());
    let mut failed = [false; 5];
    let (mut seen_to_work, mut no_matches) = (false, 0_u64);
    json.object(|json, key| match key {
        "descriptor" => self::descriptor(json).map(|found| descriptor = Some(found)),
        "matches" => {
            if json.kind()? != Kind::Array {
                return Err(json.foreign("its matches are no list"));
            }
            matches = true;
            json.array(|json| {
                let found = one(json)?;
                failed[control_of(&found.severity).0] = true;
                seen_to_work |= is_of_distribution(&found.namespace);
                out.finding(found.report())
            })
        }
        "ignoredMatches" => json.array(|json| {
            let found = one(json)?;
            seen_to_work |= is_of_distribution(&found.namespace);
            if found.no_match_at_all {
                no_matches += 1;
                return Ok(());
            }
            out.suppressed(found.report())
        }),
        "alertsByPackage" => json.array(|json| {
            alerts += 1;
            json.skip()
        }),
        "distro" => json.object(|json, key| match key {
            "name" => json.text_or_empty().map(|name| distribution = name),
            "version" => json.text_or_empty().map(|version| release = version),
            _ => json.skip(),
        }),
        "source" => source_of(json, out),
        _ => json.skip(),
    })?;
    json.end()?;
    let Some(descriptor) = descriptor.filter(|_| matches) else {
        return Err(json.foreign("it has no descriptor or no matches"));
    };
    match descriptor.name.as_deref() {
        Some("grype") => {}
        Some(other) => return Err(json.foreign(format!("it is the output of `{}`", brief(other)))),
        None => return Err(json.foreign("it does not say which program wrote it")),
    }
    let version = descriptor.version.filter(|version| version != NO_VERSION);
    out.scanner(descriptor.name, version, descriptor.built);

    let name = match distribution.as_str() {
        "" => "no distribution".to_owned(),
        name => brief(format!("{name} {release}").trim()),
    };
    let silent = |detail: String| Outcome::not_evaluated(Reason::ScannerSkipped, detail);
    let without_match = if !descriptor.left_out.is_empty() {
        silent(format!("there is no match, and the scanner was told to leave out {}", descriptor.left_out.join(", ")))
    } else if alerts > 0 {
        silent(format!(
            "there is no match, and the scanner warns of {alerts} packages: {name} gets no advisories any more"
        ))
    } else if !seen_to_work {
        silent(format!(
            "there is no match, and none of the matches is by an advisory of what the scanner recognised, {name}: nothing \
             says that it saw its packages, and has advisories of them"
        ))
    } else {
        Outcome::Passed
    };
    for (control, failed) in failed.into_iter().enumerate() {
        vulnerabilities::declare(out, control)?;
        if !failed {
            out.verdict(CONTROLS[control], without_match.clone());
        }
    }
    if no_matches > 0 {
        out.note(format!("{no_matches} matches are none by the scanner's own rules on what a match is"));
    }
    if alerts > 0 {
        out.note(format!("the scanner has alerts on {alerts} packages; the raw result has them"));
    }
    Ok(())
}

/// Whether this is an advisory of a distribution, for one of its releases: `PROVIDER:distro:NAME:RELEASE`. Grype looks only
/// for those of the release that it recognised, or of the one that this is built from.
fn is_of_distribution(namespace: &str) -> bool {
    namespace.split(':').nth(1) == Some("distro")
}

fn descriptor(json: &mut Json<impl Read>) -> Result<Descriptor, ResultsError> {
    let mut found = Descriptor::default();
    json.object(|json, key| match key {
        "name" => json.text().map(|name| found.name = name),
        "version" => json.text().map(|version| found.version = version),
        "configuration" if json.kind()? == Kind::Object => configuration(json, &mut found.left_out),
        "db" => json.object(|json, key| match key {
            "status" => json.object(|json, key| match key {
                "built" => built(json).map(|built| found.built = built),
                _ => json.skip(),
            }),
            // Where schema 5 has it.
            "built" => built(json).map(|built| found.built = found.built.or(built)),
            _ => json.skip(),
        }),
        _ => json.skip(),
    })?;
    Ok(found)
}

/// What of its configuration keeps it from looking, or from telling. What its rules on matches left out is in the result.
fn configuration(json: &mut Json<impl Read>, left_out: &mut Vec<String>) -> Result<(), ResultsError> {
    json.object(|json, key| match key {
        "exclude" => json.array(|json| {
            if let Some(path) = json.scalar()?.filter(|_| left_out.len() < LEFT_OUT) {
                left_out.push(format!("`{}`", brief(&path)));
            }
            Ok(())
        }),
        _ => json.skip(),
    })
}

fn built(json: &mut Json<impl Read>) -> Result<Option<Timestamp>, ResultsError> {
    match json.text()?.filter(|text| !text.is_empty()) {
        None => Ok(None),
        Some(text) => match text.parse() {
            Ok(time) => Ok(Some(time)),
            Err(_) => Err(json.foreign(format!("its database was built at `{}`, which is no time", brief(&text)))),
        },
    }
}

fn source_of(json: &mut Json<impl Read>, out: &mut Out<'_>) -> Result<(), ResultsError> {
    let mut target = None;
    json.object(|json, key| match key {
        // A text for a folder or file, an object for an image.
        "target" if json.kind()? == Kind::Object => json.object(|json, key| match key {
            "userInput" => json.text().map(|name| target = name),
            _ => json.skip(),
        }),
        "target" => json.scalar().map(|name| target = name),
        _ => json.skip(),
    })?;
    target.map_or(Ok(()), |target| out.target(target))
}

fn one(json: &mut Json<impl Read>) -> Result<Match, ResultsError> {
    let mut found = Match::default();
    let (mut id, mut package) = (None, None);
    // Grype's own on what a match is, and all.
    let mut rules = (0_u64, 0_u64);
    json.object(|json, key| match key {
        "vulnerability" => vulnerability(json, &mut found, &mut id),
        "artifact" => json.object(|json, key| match key {
            "name" => json.text().map(|name| package = name),
            "version" => json.text_or_empty().map(|version| found.version = version),
            "type" => json.text_or_empty().map(|kind| found.kind = kind),
            "purl" => json.text_or_empty().map(|purl| found.purl = purl),
            "locations" => json.array(|json| {
                json.object(|json, key| match key {
                    "path" => {
                        let path = json.text_or_empty()?;
                        if found.location.is_empty() {
                            found.location = path;
                        }
                        Ok(())
                    }
                    _ => json.skip(),
                })
            }),
            _ => json.skip(),
        }),
        "relatedVulnerabilities" => json.array(|json| {
            json.object(|json, key| match key {
                "id" => json.text_or_empty().map(|id| keep(&mut found.references, vulnerability_reference(&id))),
                "cvss" => cvss(json, &mut found.ratings),
                "epss" => epss(json, &mut found.ratings),
                "knownExploited" => kev(json, &mut found.ratings),
                _ => json.skip(),
            })
        }),
        "appliedIgnoreRules" => json.array(|json| {
            rules.1 += 1;
            rules.0 += u64::from(is_own_rule(json)?);
            Ok(())
        }),
        _ => json.skip(),
    })?;
    found.no_match_at_all = rules.1 > 0 && rules.0 == rules.1;
    match (id, package) {
        (Some(id), Some(package)) => {
            found.references.splice(0..0, vulnerability_reference(&id));
            found.references.extend(reference("purl", &found.purl));
            let mut seen = HashSet::new();
            found.references.retain(|reference| seen.insert(reference.clone()));
            (found.id, found.package) = (id, package);
            Ok(found)
        }
        _ => Err(json.foreign("a match lacks the vulnerability's id or the package's name")),
    }
}

/// Whether a match is ignored by a rule of Grype's own on what a match is, and not because somebody does not want to see it.
fn is_own_rule(json: &mut Json<impl Read>) -> Result<bool, ResultsError> {
    let (mut reason, mut kind, mut package, mut wish) = (String::new(), String::new(), String::new(), false);
    json.object(|json, key| match key {
        "reason" => json.text_or_empty().map(|text| reason = text),
        "match-type" => json.text_or_empty().map(|text| kind = text),
        "package" => json.object(|json, key| match key {
            "name" => json.text_or_empty().map(|name| package = name),
            _ => json.skip(),
        }),
        "fix-state" | "vex-status" | "vex-justification" => {
            wish |= !json.text_or_empty()?.is_empty();
            Ok(())
        }
        _ => json.skip(),
    })?;
    let headers = HEADERS.contains(&package.as_str()) && kind == "exact-indirect-match";
    Ok(!wish && (headers || TAKEN_BACK.contains(&reason.as_str())))
}

fn vulnerability(json: &mut Json<impl Read>, found: &mut Match, id: &mut Option<String>) -> Result<(), ResultsError> {
    json.object(|json, key| match key {
        "id" => json.text().map(|text| *id = text),
        "namespace" => json.text_or_empty().map(|namespace| found.namespace = namespace),
        "severity" => json.text_or_empty().map(|severity| found.severity = severity),
        "fix" => json.object(|json, key| match key {
            "versions" => json.texts().map(|versions| found.fixed_in = versions),
            "state" => json.text_or_empty().map(|state| found.fix_state = state),
            _ => json.skip(),
        }),
        "cvss" => cvss(json, &mut found.ratings),
        "epss" => epss(json, &mut found.ratings),
        "knownExploited" => kev(json, &mut found.ratings),
        "cwes" => json.array(|json| {
            json.object(|json, key| match key {
                "cwe" => json.text_or_empty().map(|cwe| keep(&mut found.references, reference("cwe", &cwe))),
                _ => json.skip(),
            })
        }),
        _ => json.skip(),
    })
}

fn cvss(json: &mut Json<impl Read>, ratings: &mut Vec<Rating>) -> Result<(), ResultsError> {
    json.array(|json| {
        let mut rating = Rating { scheme: "cvss".to_owned(), ..Rating::default() };
        json.object(|json, key| match key {
            "vector" => json.text_or_empty().map(|vector| rating.vector = vector),
            "source" => json.text_or_empty().map(|source| rating.source = source),
            "metrics" => json.object(|json, key| match key {
                "baseScore" => json.number().map(|score| rating.score = score),
                _ => json.skip(),
            }),
            _ => json.skip(),
        })?;
        keep(ratings, [rating]);
        Ok(())
    })
}

fn epss(json: &mut Json<impl Read>, ratings: &mut Vec<Rating>) -> Result<(), ResultsError> {
    json.array(|json| {
        let mut rating = Rating { scheme: "epss".to_owned(), ..Rating::default() };
        json.object(|json, key| match key {
            "epss" => json.number().map(|score| rating.score = score),
            "date" => json.text_or_empty().map(|date| rating.vector = date),
            _ => json.skip(),
        })?;
        keep(ratings, [rating]);
        Ok(())
    })
}

fn kev(json: &mut Json<impl Read>, ratings: &mut Vec<Rating>) -> Result<(), ResultsError> {
    json.array(|json| {
        let mut rating = Rating { scheme: "kev".to_owned(), ..Rating::default() };
        json.object(|json, key| match key {
            "dateAdded" => json.text_or_empty().map(|date| rating.vector = date),
            _ => json.skip(),
        })?;
        keep(ratings, [rating]);
        Ok(())
    })
}

impl Match {
    fn report(self) -> Reported {
        let (control, severity) = control_of(&self.severity);
        let subject = match self.version.as_str() {
            "" => self.package.clone(),
            version => format!("{} {version}", self.package),
        };
        let word = if self.severity.is_empty() { "Unknown" } else { &self.severity };
        let remedy = match (self.fixed_in.is_empty(), self.fix_state.as_str()) {
            (false, _) => format!("fixed in {}", self.fixed_in.join(", ")),
            (true, "wont-fix") => "will not be fixed".to_owned(),
            (true, _) => "no fix known".to_owned(),
        };
        let parts = [&self.id, &self.namespace, &self.package, &self.version, &self.kind, &self.location];
        Reported {
            identity: identity("grype", parts),
            kind: FindingKind::Vulnerability,
            control: CONTROLS[control].to_owned(),
            outcome: Outcome::Failed,
            messages: vec![format!("{}, {word}, {remedy}", self.id)],
            word: self.severity,
            severity,
            subject,
            references: self.references,
            ratings: self.ratings,
        }
    }
}

#[cfg(test)]
mod tests;
