//! XCCDF 1.2 test results: in an asset report collection (`oscap --results-arf`), in a benchmark (`oscap --results`), or alone.
//!
//! The meaning of a rule's result (NIST IR 7275 revision 4, table 26) here:
//!
//! | result | counts as | why |
//! |---|---|---|
//! | pass | passed | |
//! | fail | failed | |
//! | fixed | failed | it failed, and the scanner changed the target, which it was not asked to |
//! | notapplicable | not applicable | |
//! | notselected | not part of the result | the profile does not ask for it |
//! | error, unknown, notchecked | not evaluated, `scanner-skipped` | |
//! | informational | not evaluated, `scanner-skipped` | by its definition it is for a person to judge |
//! | any other word | not evaluated, `status-unknown` | |
//!
//! A rule that has several checks (`multi-check`) has one result for each, and each is a finding. The worst counts. Two results
//! for the same check and instance of one rule that differ make it ambiguous.
//! A verdict that somebody overrode in the file counts as the scanner gave it: waivers are gapscan's, and expire.
//!
//! Identity of a finding: the rule's id, and the names of what was checked, with its instances.
//!
//! A file with more than one test result is refused: nothing would say which one counts.

use std::collections::HashSet;
use std::io::Read;

use super::benchmark::reference;
use super::xml::{Node, Tag, Xml, XmlError};
use crate::base::limits::Limits;
use crate::base::text::brief;
use crate::model::control::{Reference, Severity};
use crate::model::outcome::Outcome;
use crate::model::reason::Reason;
use crate::results::event::{Declared, FindingKind, Out, Reported, first_bytes, identity, keep};
use crate::results::{ResultsError, severity};

const FORMAT: &str = "XCCDF or ARF";

/// Where test results may be: the tags from the root to the parent of one.
const PLACES: [&[&str]; 3] = [&["asset-report-collection", "reports", "report", "content"], &["Benchmark"], &[]];

/// One `rule-result`.
struct RuleResult {
    rule: String,
    result: String,
    severity: Severity,
    /// What was checked: tells the results of a rule with several checks apart.
    checks: Vec<String>,
    messages: Vec<String>,
    references: Vec<Reference>,
    overridden: bool,
}

/// What a test result says besides its rules.
#[derive(Default)]
struct About {
    profile: Option<String>,
    benchmark: Option<String>,
    version: Option<String>,
    overridden: u64,
    not_selected: u64,
}

/// Reads the one test result of a file.
pub(crate) fn read(source: impl Read, out: &mut Out<'_>, limits: &Limits) -> Result<(), ResultsError> {
    let mut xml = Xml::new(source, limits.result_bytes);
    let Some(about) = test_result(&mut xml, out)? else {
        return Err(ResultsError::Foreign { format: FORMAT, detail: "it has no test result".to_owned() });
    };
    if let (Some(profile), Some(benchmark)) = (&about.profile, &about.benchmark) {
        out.note(format!("the scanner evaluated profile {} of benchmark {}", brief(profile), brief(benchmark)));
    }
    if about.not_selected > 0 {
        out.note(format!("{} rules of the benchmark are not selected by the profile", about.not_selected));
    }
    if about.overridden > 0 {
        let count = about.overridden;
        out.note(format!("{count} verdicts were overridden in the file, and count as the scanner gave them"));
    }
    Ok(())
}

impl From<XmlError> for ResultsError {
    fn from(error: XmlError) -> Self {
        error.of(FORMAT)
    }
}

fn test_result(xml: &mut Xml<impl Read>, out: &mut Out<'_>) -> Result<Option<About>, ResultsError> {
    let mut path: Vec<String> = Vec::new();
    let mut found = None;
    loop {
        match xml.next()? {
            Node::Open(tag)
                if tag.is("TestResult")
                    && PLACES.contains(&&path.iter().map(String::as_str).collect::<Vec<_>>()[..]) =>
            {
                if found.is_some() {
                    return Err(xml.refuse("it has more than one test result").into());
                }
                found = Some(one(xml, &tag, out)?);
            }
            Node::Open(tag) => {
                path.push(tag.name().to_owned());
                let leads_on = PLACES.iter().any(|place| {
                    place.len() >= path.len() && place.iter().zip(&path).all(|(expected, name)| expected == name)
                });
                if !leads_on {
                    path.pop();
                    xml.skip()?;
                }
            }
            Node::Close => {
                path.pop();
            }
            Node::Text => {}
            Node::End => return Ok(found),
        }
    }
}

fn one(xml: &mut Xml<impl Read>, tag: &Tag, out: &mut Out<'_>) -> Result<About, ResultsError> {
    // It is written last; without it the scan did not come to its end.
    tag.required("end-time")?;
    let system = tag.attribute("test-system")?;
    let mut about = About::default();
    let mut declared = HashSet::new();
    loop {
        match xml.next()? {
            Node::Open(tag) if tag.is("rule-result") => {
                let result = rule_result(xml, &tag)?;
                about.overridden += u64::from(result.overridden);
                if result.result == "notselected" {
                    about.not_selected += 1;
                    continue;
                }
                if declared.insert(first_bytes(identity("xccdf", [&result.rule]))) {
                    out.control(Declared {
                        id: result.rule.clone(),
                        title: String::new(),
                        severity: result.severity,
                        references: result.references.clone(),
                        not_applicable: None,
                    })?;
                }
                out.finding(finding(result))?;
            }
            Node::Open(tag) if tag.is("profile") => {
                about.profile = tag.attribute("idref")?;
                xml.skip()?;
            }
            Node::Open(tag) if tag.is("benchmark") => {
                about.benchmark = match tag.attribute("id")? {
                    Some(id) => Some(id),
                    None => tag.attribute("href")?,
                };
                xml.skip()?;
            }
            Node::Open(tag) if tag.is("target") => out.target(xml.line()?)?,
            Node::Open(tag) if tag.is("target-facts") => facts(xml, &mut about)?,
            Node::Open(_) => xml.skip()?,
            Node::Text => {}
            Node::Close | Node::End => break,
        }
    }
    // As in `cpe:/a:redhat:openscap:1.3.7`: the program's name comes before its version.
    let mut parts =
        system.as_deref().and_then(|cpe| cpe.strip_prefix("cpe:/a:")).into_iter().flat_map(|cpe| cpe.split(':'));
    let (name, version) = (parts.nth(1), parts.next());
    let version = about.version.clone().or(version.map(str::to_owned)).or(system.clone());
    out.scanner(name.map(str::to_owned), version, None);
    Ok(about)
}

fn facts(xml: &mut Xml<impl Read>, about: &mut About) -> Result<(), XmlError> {
    loop {
        match xml.next()? {
            Node::Open(tag) => {
                let version = tag.attribute("name")?.as_deref() == Some("urn:xccdf:fact:scanner:version");
                let text = xml.line()?;
                if version && !text.is_empty() {
                    about.version = Some(text);
                }
            }
            Node::Text => {}
            Node::Close | Node::End => return Ok(()),
        }
    }
}

fn rule_result(xml: &mut Xml<impl Read>, tag: &Tag) -> Result<RuleResult, XmlError> {
    let rule = tag.required("idref")?;
    let severity = severity::of_word(&tag.attribute("severity")?.unwrap_or_default());
    let (mut result, mut before_override) = (None, None);
    let (mut checks, mut messages, mut references) = (Vec::new(), Vec::new(), Vec::new());
    // DISA's rules have the STIG's id there; what others have there is a version.
    if let Some(version) = tag.attribute("version")?.filter(|_| rule.contains("mil.disa.stig")) {
        references.push(Reference { scheme: "stig".to_owned(), id: version });
    }
    loop {
        match xml.next()? {
            Node::Open(tag) if tag.is("result") => {
                if result.replace(xml.line()?).is_some() {
                    return Err(xml.refuse(format!("rule `{}` has two results in one", brief(&rule))));
                }
            }
            Node::Open(tag) if tag.is("override") => {
                let old = old_result(xml)?;
                // The first override has what the scanner said; later ones have what the one before said.
                before_override = before_override.or(Some(old));
            }
            Node::Open(tag) if tag.is("ident") => {
                let system = tag.attribute("system")?.unwrap_or_default();
                keep(&mut references, reference(&system, xml.line()?));
            }
            Node::Open(tag) if tag.is("message") => keep(&mut messages, [xml.line()?]),
            Node::Open(tag) if tag.is("instance") => keep(&mut checks, [format!("instance {}", xml.line()?)]),
            Node::Open(tag) if tag.is("check") || tag.is("complex-check") => check(xml, &mut checks)?,
            Node::Open(_) => xml.skip()?,
            Node::Text => {}
            Node::Close | Node::End => break,
        }
    }
    let Some(result) = result else {
        return Err(xml.refuse(format!("rule `{}` has no result", brief(&rule))));
    };
    let overridden = before_override.is_some();
    let result = before_override.unwrap_or(result);
    Ok(RuleResult { rule, result, severity, checks, messages, references, overridden })
}

fn old_result(xml: &mut Xml<impl Read>) -> Result<String, XmlError> {
    let mut old = String::new();
    loop {
        match xml.next()? {
            Node::Open(tag) if tag.is("old-result") => old = xml.line()?,
            Node::Open(_) => xml.skip()?,
            Node::Text => {}
            Node::Close | Node::End => return Ok(old),
        }
    }
}

fn check(xml: &mut Xml<impl Read>, checks: &mut Vec<String>) -> Result<(), XmlError> {
    let mut depth = 1;
    while depth > 0 {
        match xml.next()? {
            Node::Open(tag) => {
                depth += 1;
                if tag.is("check-content-ref") {
                    let (href, name) = (tag.attribute("href")?, tag.attribute("name")?);
                    keep(checks, [format!("{} {}", href.unwrap_or_default(), name.unwrap_or_default())]);
                }
            }
            Node::Text => {}
            Node::Close | Node::End => depth -= 1,
        }
    }
    Ok(())
}

fn finding(result: RuleResult) -> Reported {
    let skipped = |what: &str| Outcome::not_evaluated(Reason::ScannerSkipped, what);
    let outcome = match result.result.as_str() {
        "pass" => Outcome::Passed,
        "fail" | "fixed" => Outcome::Failed,
        "notapplicable" => Outcome::NotApplicable { reason: "the scanner reports it as not applicable".to_owned() },
        "error" => skipped("the scanner reports an error in its check"),
        "unknown" => skipped("the scanner reports that it could not tell"),
        "notchecked" => skipped("the scanner reports that it did not check it"),
        "informational" => skipped("the scanner reports it as informational, which is no verdict"),
        other => Outcome::not_evaluated(Reason::StatusUnknown, format!("the scanner reports `{}`", brief(other))),
    };
    let mut messages = Vec::new();
    if result.result == "fixed" {
        messages.push("it failed, and the scanner changed it".to_owned());
    }
    messages.extend(result.messages.into_iter().filter(|message| !message.is_empty()));
    Reported {
        identity: identity("xccdf", std::iter::once(&result.rule).chain(&result.checks)),
        kind: FindingKind::Check,
        control: result.rule,
        outcome,
        word: result.result,
        severity: result.severity,
        subject: result.checks.into_iter().next().unwrap_or_default(),
        messages,
        references: result.references,
        ratings: Vec::new(),
    }
}

#[cfg(test)]
mod tests;
