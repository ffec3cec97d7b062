//! Clair 4's vulnerability report as JSON (`clairctl report --out json`, and the matcher's API).
//!
//! Clair lists packages, vulnerabilities, and which package has which: each such pair is a finding, and fails the control of
//! its normalised severity ([`super::vulnerabilities`]). A severity without any counts as passed only where a package of the
//! distribution itself was found (its environment names the distribution; that of a language's package names none), where
//! advisories are published of that release, and where another vulnerability shows that the database has them: of an empty
//! database Clair says nothing, and ends as it does for an image without vulnerabilities. A pair whose package or vulnerability the report does not describe
//! is a gap: it is cut, or put together wrongly.
//!
//! Which package has which vulnerability comes after these, so that the file is read twice: vulnerabilities are most of it, and
//! none of them is held.
//!
//! Identity of a finding: the vulnerability's name and updater, the package's name, version, kind and architecture. Never
//! their ids, which are those of one database.

use std::collections::{HashMap, HashSet};
use std::io::Read;

use super::ResultsError;
use super::event::{
    Budget, Component, FindingKind, Out, Reported, cut, first_bytes, identity, reference, vulnerability_reference,
};
use super::json::{Json, Kind};
use super::releases::has_advisories;
use super::vulnerabilities::{self, CONTROLS, control_of};
use crate::base::limits::Limits;
use crate::base::spool::Content;
use crate::base::text::brief;
use crate::model::control::Reference;
use crate::model::outcome::Outcome;
use crate::model::reason::Reason;

const FORMAT: &str = "Clair JSON";

/// Distributions of one report that are looked at: an image has one, or one for each layer that changed it.
const DISTRIBUTIONS: usize = 256;

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
    /// The distribution that its advisory is for.
    distribution: String,
    fixed: String,
    references: Vec<Reference>,
}

/// All of a report but its vulnerabilities.
#[derive(Default)]
struct Report {
    manifest: Option<String>,
    /// Packages by their numbers here; none where one is only named.
    packages: Vec<Option<Package>>,
    /// Those numbers by ids of the report.
    numbers: HashMap<String, u32>,
    has_packages: bool,
    has_vulnerabilities: bool,
    /// Id in the report, name, release.
    distributions: Vec<(String, String, String)>,
    /// Ids of those of which there are packages.
    found_in: HashSet<String>,
    /// Vulnerabilities, by what stands for their ids, with numbers of packages that have them, in order.
    pairs: Option<Vec<(u64, u32)>>,
}

/// Reads a report.
pub(crate) fn read<C: Content + ?Sized>(content: &C, out: &mut Out<'_>, limits: &Limits) -> Result<(), ResultsError> {
    let report = report(content, limits)?;
    let (Some(manifest), true, true, Some(pairs)) =
        (report.manifest, report.has_packages, report.has_vulnerabilities, report.pairs)
    else {
        let detail = "it lacks its manifest's hash, packages, vulnerabilities, or which package has which";
        return Err(ResultsError::Foreign { format: FORMAT, detail: detail.to_owned() });
    };
    out.scanner(Some("clair".to_owned()), None, None);
    out.target(manifest)?;
    let described = report.packages.iter().flatten();
    let count = described.clone().count();
    for package in described {
        out.component(Component {
            name: package.name.clone(),
            version: package.version.clone(),
            kind: package.kind.clone(),
            ..Component::default()
        })?;
    }
    let mut failed = [false; 5];
    let mut reported = 0;
    let distributions = report.distributions;
    let mut shown = vec![false; distributions.len()];
    let mut json = Json::new(content.reader(), FORMAT, limits.result_bytes);
    json.object(|json, key| match key {
        "vulnerabilities" => json.object(|json, id| {
            let which = stands_for(id);
            let vulnerability = vulnerability(json)?;
            let from = pairs.partition_point(|(known, _)| *known < which);
            for (_, package) in pairs[from..].iter().take_while(|(known, _)| *known == which) {
                let Some(package) = &report.packages[*package as usize] else { continue };
                failed[control_of(&vulnerability.severity).0] = true;
                reported += 1;
                for ((_, name, _), shown) in distributions.iter().zip(&mut shown) {
                    *shown |= vulnerability.is_of(name);
                }
                out.finding(vulnerability.report(package))?;
            }
            Ok(())
        }),
        _ => json.skip(),
    })?;
    json.end()?;
    let undescribed = pairs.len() - reported;
    if undescribed > 0 {
        let detail = format!("{undescribed} pairs of a package and a vulnerability name one that it does not describe");
        out.gap("the report", Reason::ControlMissing, detail)?;
    }
    let names: Vec<String> =
        distributions.iter().map(|(_, name, version)| brief(format!("{name} {version}").trim())).collect();
    let names = if names.is_empty() { "no distribution".to_owned() } else { names.join(", ") };
    let advised =
        distributions.iter().any(|(id, name, version)| report.found_in.contains(id) && has_advisories(name, version));
    let without = if undescribed > 0 {
        Outcome::not_evaluated(Reason::ControlMissing, "vulnerabilities that the report does not describe may be of it")
    } else if !advised || count == 0 {
        let detail =
            format!("there is none, and of {names}, with {count} packages, nothing says that one could be found");
        Outcome::not_evaluated(Reason::ScannerSkipped, detail)
    } else if shown.contains(&false) {
        let detail = format!(
            "there is none, and no other vulnerability shows that the database has advisories for {names}: Clair says the same \
             of {count} packages where it has none"
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

/// Reads over the vulnerabilities.
fn report<C: Content + ?Sized>(content: &C, limits: &Limits) -> Result<Report, ResultsError> {
    let mut json = Json::new(content.reader(), FORMAT, limits.result_bytes);
    if json.kind()? != Kind::Object {
        return Err(json.foreign("it is no object"));
    }
    let (mut report, mut budget) = (Report::default(), Budget::of(limits));
    json.object(|json, key| match key {
        "manifest_hash" => json.text().map(|hash| report.manifest = hash),
        "packages" => {
            report.has_packages = true;
            json.object(|json, id| {
                let package = package(json)?;
                budget.hold(package.bytes())?;
                let number = report.number(id, &mut budget)?;
                report.packages[number as usize] = Some(package);
                Ok(())
            })
        }
        "environments" => json.object(|json, _| {
            json.array(|json| {
                json.object(|json, key| match key {
                    "distribution_id" => {
                        let id = json.scalar()?.unwrap_or_default();
                        if !id.is_empty() && report.found_in.len() < DISTRIBUTIONS {
                            report.found_in.insert(cut(id));
                        }
                        Ok(())
                    }
                    _ => json.skip(),
                })
            })
        }),
        "distributions" => json.object(|json, id| {
            let which = cut(id.to_owned());
            let (mut name, mut version) = (String::new(), String::new());
            json.object(|json, key| match key {
                "did" => json.text_or_empty().map(|text| name = text),
                "version_id" => json.text_or_empty().map(|text| version = text),
                _ => json.skip(),
            })?;
            if report.distributions.len() < DISTRIBUTIONS {
                report.distributions.push((which, cut(name), cut(version)));
            }
            Ok(())
        }),
        "vulnerabilities" => {
            report.has_vulnerabilities = true;
            json.skip()
        }
        "package_vulnerabilities" => {
            let mut pairs = Vec::new();
            json.object(|json, package| {
                let package = report.number(package, &mut budget)?;
                json.array(|json| {
                    if pairs.len() >= limits.result_items {
                        return Err(ResultsError::TooMany { limit: limits.result_items });
                    }
                    let id = json.scalar()?.unwrap_or_default();
                    pairs.push((stands_for(&id), package));
                    Ok(())
                })
            })?;
            pairs.sort_unstable();
            report.pairs = Some(pairs);
            Ok(())
        }
        _ => json.skip(),
    })?;
    json.end()?;
    Ok(report)
}

impl Report {
    /// The number of the package of this id.
    fn number(&mut self, id: &str, budget: &mut Budget) -> Result<u32, ResultsError> {
        if let Some(number) = self.numbers.get(id) {
            return Ok(*number);
        }
        budget.hold(id.len() + size_of::<(String, u32)>() + size_of::<Option<Package>>())?;
        let number = u32::try_from(self.packages.len()).expect("what is held is less than that");
        self.packages.push(None);
        self.numbers.insert(id.to_owned(), number);
        Ok(number)
    }
}

/// What stands for the id of a vulnerability, of which there may be very many.
fn stands_for(id: &str) -> u64 {
    first_bytes(identity("clair", [id]))
}

impl Package {
    fn bytes(&self) -> usize {
        self.name.len() + self.version.len() + self.kind.len() + self.arch.len()
    }
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
        "distribution" if json.kind()? == Kind::Object => json.object(|json, key| match key {
            "did" => json.text_or_empty().map(|text| found.distribution = text),
            _ => json.skip(),
        }),
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
    /// Whether its advisory is for this distribution: those of Red Hat name products instead, by updaters of its name.
    fn is_of(&self, distribution: &str) -> bool {
        let red_hat = |id: &str| matches!(id, "rhel" | "rhcos");
        self.distribution == distribution
            || self.distribution.is_empty()
                && red_hat(distribution)
                && self.updater.to_ascii_lowercase().contains("rhel")
    }

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
