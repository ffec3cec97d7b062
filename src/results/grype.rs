//! Grype's JSON, schemas 5 and 6 of its database (`grype -o json`).
//!
//! Grype lists matches of packages with vulnerabilities, and no controls: those are the ones of [`super::vulnerabilities`].
//!
//! A list without matches is also what Grype prints for a target in which it saw no package, and for one of a distribution
//! that publishes no advisories (an image of BusyBox is of the "distribution" `busybox`). Its output does not say how many
//! packages it saw; the only sign is the distribution that it recognised. So without a match nothing counts as passed unless
//! the distribution is one that publishes advisories, and the database says that it has them (where it says what it has:
//! schema 5 does not); and then a note says what that rests on.
//!
//! Identity of a finding: the vulnerability's id and namespace, the package's name, version, type, and its first location.

use std::collections::{BTreeSet, HashSet};
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

/// Providers of one database. There are some thirty.
const PROVIDERS: usize = 1000;

/// What a Grype that was built without a version says.
const NO_VERSION: &str = "[not provided]";

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

#[derive(Default)]
struct Descriptor {
    name: Option<String>,
    version: Option<String>,
    built: Option<Timestamp>,
    /// Whose advisories the database has.
    providers: Option<BTreeSet<String>>,
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
}

/// Reads Grype's output.
pub(crate) fn read(source: impl Read, out: &mut Out<'_>, limits: &Limits) -> Result<(), ResultsError> {
    let mut json = Json::new(source, FORMAT, limits.result_bytes);
    if json.kind()? != Kind::Object {
        return Err(json.foreign("it is no object"));
    }
    let (mut descriptor, mut matches, mut alerts) = (None, None, 0_u64);
    let (mut distribution, mut release) = (String::new(), String::new());
    let mut failed = [false; 5];
    json.object(|json, key| match key {
        "descriptor" => self::descriptor(json).map(|found| descriptor = Some(found)),
        "matches" => {
            if json.kind()? != Kind::Array {
                return Err(json.foreign("its matches are no list"));
            }
            let mut count = 0_u64;
            json.array(|json| {
                count += 1;
                let found = one(json)?;
                failed[control_of(&found.severity).0] = true;
                out.finding(found.report())
            })?;
            matches = Some(count);
            Ok(())
        }
        "ignoredMatches" => json.array(|json| {
            let found = one(json)?;
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
    let (Some(descriptor), Some(matches)) = (descriptor, matches) else {
        return Err(json.foreign("it has no descriptor or no matches"));
    };
    match descriptor.name.as_deref() {
        Some("grype") => {}
        Some(other) => return Err(json.foreign(format!("it is the output of `{}`", brief(other)))),
        None => return Err(json.foreign("it does not say which program wrote it")),
    }
    let version = descriptor.version.filter(|version| version != NO_VERSION);
    out.scanner(descriptor.name, version, descriptor.built);

    let has_advisories = DISTRIBUTIONS.iter().any(|(known, from)| {
        let provided = |providers: &BTreeSet<String>| from.iter().any(|name| providers.contains(*name));
        distribution == *known && descriptor.providers.as_ref().is_none_or(provided)
    });
    let name = match distribution.as_str() {
        "" => "no distribution".to_owned(),
        name => brief(format!("{name} {release}").trim()),
    };
    let without_match = match (has_advisories, matches == 0) {
        (false, true) => Outcome::not_evaluated(
            Reason::ScannerSkipped,
            format!(
                "there is no match, and the scanner, which recognised {name}, has no advisories for that: nothing says that it could have found one"
            ),
        ),
        (true, true) => {
            out.note(format!("no match in {name}; the scanner's output does not say how many packages it saw"));
            Outcome::Passed
        }
        (false, false) => {
            out.note(format!(
                "the scanner recognised {name}: packages of a distribution, if there are any, were not matched"
            ));
            Outcome::Passed
        }
        (true, false) => Outcome::Passed,
    };
    for (control, failed) in failed.into_iter().enumerate() {
        vulnerabilities::declare(out, control)?;
        if !failed {
            out.verdict(CONTROLS[control], without_match.clone());
        }
    }
    if alerts > 0 {
        out.note(format!("the scanner has alerts on {alerts} packages; the raw result has them"));
    }
    Ok(())
}

fn descriptor(json: &mut Json<impl Read>) -> Result<Descriptor, ResultsError> {
    let mut found = Descriptor::default();
    json.object(|json, key| match key {
        "name" => json.text().map(|name| found.name = name),
        "version" => json.text().map(|version| found.version = version),
        "db" => json.object(|json, key| match key {
            "status" => json.object(|json, key| match key {
                "built" => built(json).map(|built| found.built = built),
                _ => json.skip(),
            }),
            // Where schema 5 has it.
            "built" => built(json).map(|built| found.built = found.built.or(built)),
            "providers" if json.kind()? == Kind::Object => {
                let mut providers = BTreeSet::new();
                json.object(|json, name| {
                    if providers.len() < PROVIDERS {
                        providers.insert(name.to_owned());
                    }
                    json.skip()
                })?;
                found.providers = Some(providers);
                Ok(())
            }
            _ => json.skip(),
        }),
        _ => json.skip(),
    })?;
    Ok(found)
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
        _ => json.skip(),
    })?;
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
