//! Clair 4's vulnerability report as JSON (`clairctl report --out json`, and the matcher's API).
//!
//! Clair lists packages, vulnerabilities, and which package has which: each such pair is a finding, and fails the control of
//! its normalised severity ([`super::vulnerabilities`]). A severity without any counts as passed only where packages were
//! found in a distribution that Clair has advisories of. A pair whose package or vulnerability the report does not describe
//! is a gap: it is cut, or put together wrongly.
//!
//! Identity of a finding: the vulnerability's name and updater, the package's name, version, kind and architecture. Never
//! their ids, which are those of one database.

use std::collections::HashMap;
use std::io::Read;

use super::ResultsError;
use super::event::{Component, FindingKind, Out, Reported, identity, reference, vulnerability_reference};
use super::json::{Json, Kind};
use super::vulnerabilities::{self, CONTROLS, control_of};
use crate::base::limits::Limits;
use crate::base::text::brief;
use crate::model::control::Reference;
use crate::model::outcome::Outcome;
use crate::model::reason::Reason;

const FORMAT: &str = "Clair JSON";

/// Distributions that Clair has advisories of, by the `did` of their os-release. One that is missing here only makes a report
/// without a vulnerability count as not evaluated.
const DISTRIBUTIONS: [&str; 13] = [
    "alpine",
    "amzn",
    "chainguard",
    "debian",
    "ol",
    "opensuse-leap",
    "photon",
    "rhel",
    "rhcos",
    "sles",
    "ubuntu",
    "wolfi",
    "opensuse",
];

struct Package {
    name: String,
    version: String,
    kind: String,
    arch: String,
}

#[derive(Default)]
struct Vulnerability {
    name: String,
    updater: String,
    severity: String,
    fixed: String,
    references: Vec<Reference>,
}

#[derive(Default)]
struct Report {
    manifest: Option<String>,
    packages: Option<HashMap<String, Package>>,
    vulnerabilities: Option<HashMap<String, Vulnerability>>,
    distributions: Vec<(String, String)>,
    /// Packages with their vulnerabilities, by id.
    pairs: Option<Vec<(String, Vec<String>)>>,
}

/// Reads a report.
pub(crate) fn read(source: impl Read, out: &mut Out<'_>, limits: &Limits) -> Result<(), ResultsError> {
    let mut json = Json::new(source, FORMAT, limits.result_bytes);
    if json.kind()? != Kind::Object {
        return Err(json.foreign("it is no object"));
    }
    let mut report = Report::default();
    let mut items = 0;
    let mut count = |more: usize| {
        items += more;
        if items > limits.result_items { Err(ResultsError::TooMany { limit: limits.result_items }) } else { Ok(()) }
    };
    json.object(|json, key| match key {
        "manifest_hash" => json.text().map(|hash| report.manifest = hash),
        "packages" => {
            let packages = report.packages.insert(HashMap::new());
            json.object(|json, id| {
                count(1)?;
                packages.insert(id.to_owned(), package(json)?);
                Ok(())
            })
        }
        "distributions" => json.object(|json, _| {
            let (mut id, mut version) = (String::new(), String::new());
            json.object(|json, key| match key {
                "did" => json.text_or_empty().map(|text| id = text),
                "version_id" => json.text_or_empty().map(|text| version = text),
                _ => json.skip(),
            })?;
            if report.distributions.len() < 256 {
                report.distributions.push((id, version));
            }
            Ok(())
        }),
        "vulnerabilities" => {
            let vulnerabilities = report.vulnerabilities.insert(HashMap::new());
            json.object(|json, id| {
                count(1)?;
                vulnerabilities.insert(id.to_owned(), vulnerability(json)?);
                Ok(())
            })
        }
        "package_vulnerabilities" => {
            let pairs = report.pairs.insert(Vec::new());
            json.object(|json, package| {
                let ids = json.texts()?;
                count(ids.len())?;
                pairs.push((package.to_owned(), ids));
                Ok(())
            })
        }
        _ => json.skip(),
    })?;
    json.end()?;
    let Report {
        manifest: Some(manifest),
        packages: Some(packages),
        vulnerabilities: Some(known),
        distributions,
        pairs: Some(pairs),
    } = report
    else {
        return Err(json.foreign("it lacks its manifest's hash, packages, vulnerabilities, or which package has which"));
    };
    out.scanner(Some("clair".to_owned()), None, None);
    out.target(manifest)?;
    for package in packages.values() {
        out.component(Component {
            name: package.name.clone(),
            version: package.version.clone(),
            kind: package.kind.clone(),
            ..Component::default()
        })?;
    }
    let mut failed = [false; 5];
    let mut undescribed = 0_u64;
    for (package, ids) in &pairs {
        for id in ids {
            let (Some(package), Some(vulnerability)) = (packages.get(package), known.get(id)) else {
                undescribed += 1;
                continue;
            };
            let finding = vulnerability.report(package);
            failed[control_of(&vulnerability.severity).0] = true;
            out.finding(finding)?;
        }
    }
    if undescribed > 0 {
        let detail = format!("{undescribed} pairs of a package and a vulnerability name one that it does not describe");
        out.gap("the report", Reason::ControlMissing, detail)?;
    }
    let names: Vec<String> =
        distributions.iter().map(|(id, version)| brief(format!("{id} {version}").trim())).collect();
    let names = if names.is_empty() { "no distribution".to_owned() } else { names.join(", ") };
    let advised = distributions.iter().any(|(id, _)| DISTRIBUTIONS.contains(&id.as_str()));
    let without = if undescribed > 0 {
        Outcome::not_evaluated(Reason::ControlMissing, "vulnerabilities that the report does not describe may be of it")
    } else if !advised || packages.is_empty() {
        let detail = format!(
            "there is none, and in {names} with {} packages nothing says that one could be found",
            packages.len()
        );
        Outcome::not_evaluated(Reason::ScannerSkipped, detail)
    } else {
        Outcome::Passed
    };
    for (control, failed) in failed.into_iter().enumerate() {
        vulnerabilities::declare(out, control)?;
        if !failed {
            out.verdict(CONTROLS[control], without.clone());
        }
    }
    Ok(())
}

fn package(json: &mut Json<impl Read>) -> Result<Package, ResultsError> {
    let mut package = Package { name: String::new(), version: String::new(), kind: String::new(), arch: String::new() };
    json.object(|json, key| match key {
        "name" => json.text_or_empty().map(|text| package.name = text),
        "version" => json.text_or_empty().map(|text| package.version = text),
        "kind" => json.text_or_empty().map(|text| package.kind = text),
        "arch" => json.text_or_empty().map(|text| package.arch = text),
        _ => json.skip(),
    })?;
    if package.name.is_empty() { Err(json.foreign("a package has no name")) } else { Ok(package) }
}

fn vulnerability(json: &mut Json<impl Read>) -> Result<Vulnerability, ResultsError> {
    let mut found = Vulnerability::default();
    let mut links = String::new();
    json.object(|json, key| match key {
        "name" => json.text_or_empty().map(|text| found.name = text),
        "updater" => json.text_or_empty().map(|text| found.updater = text),
        "normalized_severity" => json.text_or_empty().map(|text| found.severity = text),
        "fixed_in_version" => json.text_or_empty().map(|text| found.fixed = text),
        "links" => json.text_or_empty().map(|text| links = text),
        _ => json.skip(),
    })?;
    if found.name.is_empty() {
        return Err(json.foreign("a vulnerability has no name"));
    }
    // As `RHSA-2026:1` or `CVE-2026-1 on Alpine`; the links often have the other name.
    let words = found.name.split_whitespace().chain(links.split(|c: char| c == '/' || c.is_whitespace()));
    for name in words.filter(|word| word.starts_with("CVE-") || word.starts_with("GHSA-")) {
        let known = vulnerability_reference(name).filter(|known| !found.references.contains(known));
        if found.references.len() < 32 {
            found.references.extend(known);
        }
    }
    if found.references.is_empty() {
        found.references.extend(reference("advisory", &found.name));
    }
    Ok(found)
}

impl Vulnerability {
    fn report(&self, package: &Package) -> Reported {
        let (control, severity) = control_of(&self.severity);
        let word = if self.severity.is_empty() { "Unknown" } else { &self.severity };
        let remedy = match self.fixed.as_str() {
            "" => "no fix known".to_owned(),
            version => format!("fixed in {version}"),
        };
        let parts = [&self.name, &self.updater, &package.name, &package.version, &package.kind, &package.arch];
        Reported {
            identity: identity("clair", parts),
            kind: FindingKind::Vulnerability,
            control: CONTROLS[control].to_owned(),
            outcome: Outcome::Failed,
            word: self.severity.clone(),
            severity,
            subject: format!("{} {}", package.name, package.version).trim().to_owned(),
            messages: vec![format!("{}, {word}, {remedy}", self.name)],
            references: self.references.clone(),
            ratings: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests;
