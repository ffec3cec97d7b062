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
//! A rule that has several checks (`multi-check`) has one result for each. The worst counts: failed before not evaluated before
//! passed before not applicable. Two results for the same check and instance of one rule are left to [`crate::results::merge`].
//! A verdict that somebody overrode in the file counts as the scanner gave it: waivers are gapscan's, and expire.
//!
//! A file with more than one test result is refused: nothing would say which one counts.

use std::collections::{HashMap, HashSet};
use std::io::{self, Read};

use super::xml::{Node, Tag, Xml, XmlError, XmlErrorKind};
use crate::base::limits::Limits;
use crate::base::text::brief;
use crate::model::finding::{Detail, Finding};
use crate::model::outcome::{Outcome, Status};
use crate::model::reason::Reason;
use crate::results::{Reported, ResultsError};

const FORMAT: &str = "XCCDF or ARF";

/// Where test results may be: the tags from the root to the parent of one.
const PLACES: [&[&str]; 3] = [&["asset-report-collection", "reports", "report", "content"], &["Benchmark"], &[]];

/// One `rule-result`.
struct RuleResult {
    rule: String,
    result: String,
    /// What was checked: tells the results of a rule with several checks apart.
    checks: Vec<String>,
    messages: Vec<String>,
    overridden: bool,
}

#[derive(Default)]
struct TestResult {
    profile: Option<String>,
    benchmark: Option<String>,
    version: Option<String>,
    results: Vec<RuleResult>,
}

/// Reads the one test result of a file.
pub(crate) fn read(source: impl Read, limits: &Limits) -> Result<Reported, ResultsError> {
    let mut xml = Xml::new(source, limits.result_bytes);
    match test_result(&mut xml, limits) {
        Ok(Some(result)) => Ok(report(result)),
        Ok(None) => Err(ResultsError::Foreign { format: FORMAT, detail: "it has no test result".to_owned() }),
        Err(Failed::Xml(error)) => Err(error.into()),
        Err(Failed::TooMany) => Err(ResultsError::TooMany { limit: limits.result_items }),
    }
}

enum Failed {
    Xml(XmlError),
    TooMany,
}

impl From<XmlError> for Failed {
    fn from(error: XmlError) -> Self {
        Self::Xml(error)
    }
}

impl From<XmlError> for ResultsError {
    fn from(error: XmlError) -> Self {
        let offset = error.offset;
        match error.kind {
            XmlErrorKind::Truncated => Self::Truncated { offset },
            XmlErrorKind::TooLarge(limit) => Self::TooLarge { limit },
            XmlErrorKind::Malformed(detail) => Self::Malformed { format: FORMAT, offset, detail },
            // Bytes that are no UTF-8 come as such an error too.
            XmlErrorKind::Io(error) if error.kind() == io::ErrorKind::InvalidData => {
                Self::Malformed { format: FORMAT, offset, detail: error.to_string() }
            }
            XmlErrorKind::Io(error) => Self::Io(error),
        }
    }
}

fn test_result(xml: &mut Xml<impl Read>, limits: &Limits) -> Result<Option<TestResult>, Failed> {
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
                found = Some(one(xml, &tag, limits)?);
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
            Node::Text(_) => {}
            Node::End => return Ok(found),
        }
    }
}

fn one(xml: &mut Xml<impl Read>, tag: &Tag, limits: &Limits) -> Result<TestResult, Failed> {
    // It is written last; without it the scan did not come to its end.
    tag.required("end-time")?;
    let mut result = TestResult { version: tag.attribute("test-system")?, ..TestResult::default() };
    loop {
        match xml.next()? {
            Node::Open(tag) if tag.is("rule-result") => {
                if result.results.len() >= limits.result_items {
                    return Err(Failed::TooMany);
                }
                result.results.push(rule_result(xml, &tag)?);
            }
            Node::Open(tag) if tag.is("profile") => {
                result.profile = tag.attribute("idref")?;
                xml.skip()?;
            }
            Node::Open(tag) if tag.is("benchmark") => {
                result.benchmark = match tag.attribute("id")? {
                    Some(id) => Some(id),
                    None => tag.attribute("href")?,
                };
                xml.skip()?;
            }
            Node::Open(tag) if tag.is("target-facts") => facts(xml, &mut result)?,
            Node::Open(_) => xml.skip()?,
            Node::Text(_) => {}
            Node::Close | Node::End => return Ok(result),
        }
    }
}

fn facts(xml: &mut Xml<impl Read>, result: &mut TestResult) -> Result<(), XmlError> {
    loop {
        match xml.next()? {
            Node::Open(tag) => {
                let version = tag.attribute("name")?.as_deref() == Some("urn:xccdf:fact:scanner:version");
                let text = xml.line()?;
                if version && !text.is_empty() {
                    result.version = Some(text);
                }
            }
            Node::Text(_) => {}
            Node::Close | Node::End => return Ok(()),
        }
    }
}

fn rule_result(xml: &mut Xml<impl Read>, tag: &Tag) -> Result<RuleResult, XmlError> {
    let rule = tag.required("idref")?;
    let (mut result, mut before_override) = (None, None);
    let (mut checks, mut messages) = (Vec::new(), Vec::new());
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
            Node::Open(tag) if tag.is("message") => messages.push(xml.line()?),
            Node::Open(tag) if tag.is("instance") => checks.push(format!("instance {}", xml.line()?)),
            Node::Open(tag) if tag.is("check") || tag.is("complex-check") => check(xml, &mut checks)?,
            Node::Open(_) => xml.skip()?,
            Node::Text(_) => {}
            Node::Close | Node::End => break,
        }
    }
    let Some(result) = result else {
        return Err(xml.refuse(format!("rule `{}` has no result", brief(&rule))));
    };
    let overridden = before_override.is_some();
    Ok(RuleResult { rule, result: before_override.unwrap_or(result), checks, messages, overridden })
}

fn old_result(xml: &mut Xml<impl Read>) -> Result<String, XmlError> {
    let mut old = String::new();
    loop {
        match xml.next()? {
            Node::Open(tag) if tag.is("old-result") => old = xml.line()?,
            Node::Open(_) => xml.skip()?,
            Node::Text(_) => {}
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
                    checks.push(format!("{} {}", href.unwrap_or_default(), name.unwrap_or_default()));
                }
            }
            Node::Text(_) => {}
            Node::Close | Node::End => depth -= 1,
        }
    }
    Ok(())
}

fn report(result: TestResult) -> Reported {
    let mut notes = Vec::new();
    if let (Some(profile), Some(benchmark)) = (&result.profile, &result.benchmark) {
        notes.push(format!("the scanner evaluated profile {} of benchmark {}", brief(profile), brief(benchmark)));
    }
    let overridden = result.results.iter().filter(|result| result.overridden).count();
    if overridden > 0 {
        notes.push(format!("{overridden} verdicts were overridden in the file, and count as the scanner gave them"));
    }
    let mut rules: Vec<Vec<RuleResult>> = Vec::new();
    let mut index: HashMap<String, usize> = HashMap::new();
    for rule in result.results {
        if rule.result == "notselected" {
            continue;
        }
        match index.get(&rule.rule) {
            Some(at) => rules[*at].push(rule),
            None => {
                index.insert(rule.rule.clone(), rules.len());
                rules.push(vec![rule]);
            }
        }
    }
    let mut findings = Vec::new();
    for results in rules {
        let distinct: HashSet<&[String]> = results.iter().map(|result| result.checks.as_slice()).collect();
        let told_apart = distinct.len() == results.len();
        let several = results.into_iter().map(finding);
        if told_apart { findings.extend(several.reduce(worst)) } else { findings.extend(several) }
    }
    Reported { findings, notes, scanner_version: result.version, database_built: None }
}

fn finding(result: RuleResult) -> Finding {
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
    let mut finding = Finding::new(&*result.rule, outcome);
    let subject = result.checks.first().map_or("", String::as_str);
    if result.result == "fixed" {
        finding.details.push(Detail::new(subject, "it failed, and the scanner changed it"));
    }
    let messages = result.messages.into_iter().filter(|message| !message.is_empty());
    finding.details.extend(messages.map(|message| Detail::new(subject, message)));
    finding
}

/// The worse of two findings about one rule, with the details of both.
fn worst(a: Finding, b: Finding) -> Finding {
    let rank = |finding: &Finding| match finding.outcome.status() {
        Status::Failed => 0,
        Status::NotEvaluated => 1,
        Status::Waived => 2,
        Status::Passed => 3,
        Status::NotApplicable => 4,
    };
    let (mut worse, other) = if rank(&a) <= rank(&b) { (a, b) } else { (b, a) };
    worse.details.extend(other.details);
    worse
}

#[cfg(test)]
mod tests;
