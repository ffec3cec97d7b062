//! JUnit's XML, as many tools write it: test suites, in one another or not, and test cases.
//!
//! A test case is a control, whose id is its class name and name joined by a point, with `_` for white space. Its meaning
//! here:
//!
//! | what is in it | counts as |
//! |---|---|
//! | `<failure>` | failed |
//! | `<error>` | not evaluated, `rule-error`: the test broke |
//! | `<skipped>`; a `status` or `result` that says that it did not run | not evaluated, `scanner-skipped` |
//! | a `status` or `result` that is not known | not evaluated, `status-unknown` |
//! | `<flakyFailure>`, `<flakyError>` (Maven's Surefire) | not evaluated, `control-ambiguous`: it ended in both ways |
//! | none of these | passed |
//!
//! A suite counts its cases, failures and errors. Where it lists fewer than it counts, the missing ones were not evaluated.
//!
//! Identity of a finding: the suite's name, the class name and the name; which one it is of the failures of one case.

use std::io::Read;

use super::ResultsError;
use super::event::{Declared, FindingKind, Out, Reported, identity, vulnerability_reference};
use super::xml::{Node, Tag, Xml, XmlError};
use crate::base::limits::Limits;
use crate::base::text::brief;
use crate::model::control::{Reference, Severity};
use crate::model::outcome::Outcome;
use crate::model::reason::Reason;

const FORMAT: &str = "JUnit XML";

/// Parts of one test case that say how it ended, at most.
const PARTS: usize = 1000;

/// A suite that is open.
#[derive(Default)]
struct Suite {
    name: String,
    /// The cases, failures and errors that it counts, where it does.
    tests: Option<u64>,
    failures: Option<u64>,
    errors: Option<u64>,
    listed: u64,
    failed: u64,
    broken: u64,
}

/// Reads a report.
pub(crate) fn read(source: impl Read, out: &mut Out<'_>, limits: &Limits) -> Result<(), ResultsError> {
    let mut xml = Xml::new(source, limits.result_bytes);
    let mut open: Vec<Suite> = Vec::new();
    let next = |xml: &mut Xml<_>| xml.next().map_err(|error| error.of(FORMAT));
    loop {
        match next(&mut xml)? {
            Node::Open(tag) if matches!(tag.name(), "testsuites" | "testsuite") => {
                let suite = suite(&tag).map_err(|error| error.of(FORMAT))?;
                if tag.name() == "testsuite" {
                    out.target(suite.name.as_str())?;
                } else if !suite.name.is_empty() {
                    out.scanner(Some(suite.name.clone()), None, None);
                }
                open.push(suite);
            }
            Node::Open(tag) if open.is_empty() => {
                let detail = format!("its root is <{}>", brief(tag.name()));
                return Err(ResultsError::Foreign { format: FORMAT, detail });
            }
            Node::Open(tag) if tag.name() == "testcase" => {
                let suite = open.last().map_or("", |suite| suite.name.as_str());
                let case = case(&mut xml, &tag, suite).map_err(|error| error.of(FORMAT))?;
                let count =
                    |is: fn(&Outcome) -> bool| case.parts.iter().filter(|(outcome, ..)| is(outcome)).count() as u64;
                let failed = count(|outcome| *outcome == Outcome::Failed);
                let broken =
                    count(|outcome| matches!(outcome, Outcome::NotEvaluated { reason: Reason::RuleError, .. }));
                case.report(out)?;
                for suite in &mut open {
                    suite.listed += 1;
                    suite.failed += failed;
                    suite.broken += broken;
                }
            }
            Node::Open(tag) if tag.name() == "error" => {
                let text = xml.line().map_err(|error| error.of(FORMAT))?;
                open.iter_mut().for_each(|suite| suite.broken += 1);
                let suite = open.last().map_or("", |suite| suite.name.as_str());
                out.gap(format!("suite {suite}"), Reason::ScannerFailed, format!("the suite broke: {text}"))?;
            }
            Node::Open(_) => xml.skip().map_err(|error| error.of(FORMAT))?,
            Node::Text => {}
            Node::Close => {
                if let Some(suite) = open.pop() {
                    suite.account(out)?;
                }
            }
            Node::End => return Ok(()),
        }
    }
}

fn suite(tag: &Tag) -> Result<Suite, XmlError> {
    let count = |name| Ok(tag.attribute(name)?.and_then(|text| text.trim().parse().ok()));
    Ok(Suite {
        name: tag.attribute("name")?.unwrap_or_default(),
        tests: count("tests")?,
        failures: count("failures")?,
        errors: count("errors")?,
        listed: 0,
        failed: 0,
        broken: 0,
    })
}

impl Suite {
    fn account(self, out: &mut Out<'_>) -> Result<(), ResultsError> {
        let name = format!("suite {}", self.name);
        for (what, counted, listed) in [
            ("cases", self.tests, self.listed),
            ("failures", self.failures, self.failed),
            ("errors", self.errors, self.broken),
        ] {
            if let Some(counted) = counted.filter(|counted| *counted > listed) {
                let detail = format!("it counts {counted} {what} and lists {listed}");
                out.gap(name.trim(), Reason::ControlMissing, detail)?;
            }
        }
        Ok(())
    }
}

struct Case {
    suite: String,
    class: String,
    name: String,
    /// How it ended, in which words, with which message: the cases of each.
    parts: Vec<(Outcome, &'static str, String)>,
}

fn case(xml: &mut Xml<impl Read>, tag: &Tag, suite: &str) -> Result<Case, XmlError> {
    let name = tag.required("name")?;
    let class = tag.attribute("classname")?.or(tag.attribute("class")?).unwrap_or_default();
    let mut case = Case { suite: suite.to_owned(), class, name, parts: Vec::new() };
    let mut words = Vec::new();
    for attribute in ["status", "result"] {
        words.extend(tag.attribute(attribute)?.map(|word| word.to_ascii_lowercase()));
    }
    loop {
        match xml.next()? {
            Node::Open(tag) => {
                let word = match tag.name() {
                    "failure" => "failure",
                    "error" => "error",
                    "skipped" => "skipped",
                    "flakyFailure" | "flakyError" => "flaky",
                    _ => {
                        xml.skip()?;
                        continue;
                    }
                };
                let message = tag.attribute("message")?.unwrap_or_default();
                let text = xml.text()?;
                let said =
                    [message.trim(), text.trim()].into_iter().filter(|said| !said.is_empty()).collect::<Vec<_>>();
                let said = said.join("\n");
                let why = || said.split_whitespace().collect::<Vec<_>>().join(" ");
                let outcome = match word {
                    "failure" => Outcome::Failed,
                    "error" => Outcome::not_evaluated(Reason::RuleError, format!("the test broke: {}", why())),
                    "flaky" => {
                        let detail = format!("the test failed, and passed when it was repeated: {}", why());
                        Outcome::not_evaluated(Reason::ControlAmbiguous, detail)
                    }
                    _ => Outcome::not_evaluated(Reason::ScannerSkipped, format!("the test was skipped: {}", why())),
                };
                if case.parts.len() >= PARTS {
                    return Err(xml.refuse("a test case ends in more than 1000 ways"));
                }
                case.parts.push((outcome, word, said));
            }
            Node::Text => {}
            Node::Close | Node::End => break,
        }
    }
    for word in words {
        let outcome = match word.as_str() {
            "" | "run" | "completed" | "passed" | "pass" | "success" | "successful" | "ok" => continue,
            "failed" | "failure" | "fail" => Outcome::Failed,
            "notrun" | "skipped" | "suppressed" | "disabled" | "ignored" => {
                Outcome::not_evaluated(Reason::ScannerSkipped, "the test did not run")
            }
            "error" => Outcome::not_evaluated(Reason::RuleError, "the test broke"),
            other => Outcome::not_evaluated(Reason::StatusUnknown, format!("the status is `{}`", brief(other))),
        };
        case.parts.push((outcome, "", String::new()));
    }
    Ok(case)
}

impl Case {
    fn report(self, out: &mut Out<'_>) -> Result<(), ResultsError> {
        let words: Vec<&str> = self.class.split_whitespace().collect();
        let name: Vec<&str> = self.name.split_whitespace().collect();
        let id =
            [words.join("_"), name.join("_")].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(".");
        let references: Vec<Reference> = self
            .name
            .split(|c: char| !c.is_ascii_alphanumeric() && c != '-')
            .filter(|word| word.starts_with("CVE-") || word.starts_with("GHSA-"))
            .filter_map(vulnerability_reference)
            .collect();
        out.control(Declared {
            id: id.clone(),
            title: self.name.clone(),
            severity: Severity::Medium,
            references: references.clone(),
            not_applicable: None,
        })?;
        let parts = if self.parts.is_empty() { vec![(Outcome::Passed, "", String::new())] } else { self.parts };
        for (number, (outcome, word, message)) in parts.into_iter().enumerate() {
            out.finding(Reported {
                identity: identity("junit", [&self.suite, &self.class, &self.name, &number.to_string()]),
                kind: FindingKind::Check,
                control: id.clone(),
                outcome,
                word: word.to_owned(),
                severity: Severity::Medium,
                subject: self.class.clone(),
                messages: if message.is_empty() { Vec::new() } else { vec![message] },
                references: references.clone(),
                ratings: Vec::new(),
            })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
