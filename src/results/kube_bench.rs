//! kube-bench's JSON, with totals (an object) and without (`--nototals`, a list).
//!
//! The meaning of a status here:
//!
//! | status | counts as |
//! |---|---|
//! | PASS | passed; not evaluated, `scanner-skipped`, where what it looked at was not there, or printed nothing |
//! | FAIL | failed |
//! | WARN | not evaluated, `scanner-skipped`: a person has to look |
//! | INFO | not evaluated, `scanner-skipped`: the benchmark's configuration leaves it out |
//! | any other word | not evaluated, `status-unknown` |
//!
//! It counts its own verdicts. Where it lists fewer than it counts, as a file does from which some were taken, the missing
//! ones are not evaluated, whatever they were.
//!
//! What it saw (`actual_value`) is not taken over: it can hold the whole environment of a process, with secrets.
//!
//! Identity of a finding: the benchmark's group, the kind of node, and the test's number.

use std::io::Read;

use super::ResultsError;
use super::event::{Declared, FindingKind, Out, Reported, identity};
use super::json::{Json, Kind};
use crate::base::limits::Limits;
use crate::base::text::brief;
use crate::model::control::{Reference, Severity};
use crate::model::outcome::Outcome;
use crate::model::reason::Reason;

const FORMAT: &str = "kube-bench JSON";

/// What tests print when what they look at is not there.
const NOT_THERE: [&str; 2] = ["file not found", "no such file or directory"];

/// What one group of tests says of itself.
#[derive(Default)]
struct Group {
    id: String,
    node_type: String,
    /// The verdicts that it counts, where it does.
    counted: Option<u64>,
    listed: u64,
}

#[derive(Default)]
struct Test {
    number: String,
    title: String,
    status: String,
    reason: String,
    remedy: String,
    kind: String,
    not_there: bool,
    /// What the test asked printed nothing.
    silent: bool,
}

/// Reads either of the two.
pub(crate) fn read(source: impl Read, out: &mut Out<'_>, limits: &Limits) -> Result<(), ResultsError> {
    let mut json = Json::new(source, FORMAT, limits.result_bytes);
    let mut groups = None;
    let mut total = None;
    match json.kind()? {
        Kind::Array => {
            let mut any = false;
            groups = Some(self::groups(&mut json, &mut any, out)?);
            if !any {
                return Err(json.foreign("it is an empty list, which anybody could have written"));
            }
        }
        Kind::Object => json.object(|json, key| match key {
            "Controls" => {
                groups = Some(self::groups(json, &mut false, out)?);
                Ok(())
            }
            "Totals" => totals(json).map(|counted| total = counted),
            _ => json.skip(),
        })?,
        _ => return Err(json.foreign("it is neither an object nor a list")),
    }
    json.end()?;
    let Some(listed) = groups else {
        return Err(json.foreign("it has no controls"));
    };
    if let Some(total) = total.filter(|total| *total != listed) {
        missing(out, "the result", total, listed)?;
    }
    out.scanner(Some("kube-bench".to_owned()), None, None);
    Ok(())
}

/// All groups; the sum of verdicts that they list, or count and do not list.
fn groups(json: &mut Json<impl Read>, any: &mut bool, out: &mut Out<'_>) -> Result<u64, ResultsError> {
    if json.kind()? != Kind::Array {
        return Err(json.foreign("its controls are no list"));
    }
    let mut sum = 0;
    json.array(|json| {
        *any = true;
        let group = group(json, out)?;
        sum += group.counted.unwrap_or(group.listed);
        Ok(())
    })?;
    Ok(sum)
}

fn group(json: &mut Json<impl Read>, out: &mut Out<'_>) -> Result<Group, ResultsError> {
    let mut group = Group::default();
    let (mut counts, mut sections) = (Counted::default(), Counted::default());
    let (mut version, mut title, mut tests) = (String::new(), String::new(), false);
    json.object(|json, key| match key {
        "id" => json.scalar().map(|text| group.id = text.unwrap_or_default()),
        "version" | "detected_version" if version.is_empty() => {
            json.scalar().map(|text| version = text.unwrap_or_default())
        }
        "text" => json.scalar().map(|text| title = text.unwrap_or_default()),
        "node_type" => json.scalar().map(|text| group.node_type = text.unwrap_or_default()),
        "tests" => {
            tests = true;
            json.array(|json| {
                let mut section = Counted::default();
                json.object(|json, key| match key {
                    "pass" | "fail" | "warn" | "info" => section.add(json),
                    "results" => json.array(|json| {
                        group.listed += 1;
                        let test = test(json)?;
                        test.report(&group, out)
                    }),
                    _ => json.skip(),
                })?;
                sections.join(section);
                Ok(())
            })
        }
        "total_pass" | "total_fail" | "total_warn" | "total_info" => counts.add(json),
        _ => json.skip(),
    })?;
    if !tests {
        return Err(json.foreign("a group has no tests"));
    }
    let words = ["kube-bench group", &group.id, &group.node_type, &version];
    out.target(words.into_iter().filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" "))?;
    group.counted = counts.0.or(sections.0);
    if let Some(counted) = group.counted.filter(|counted| *counted != group.listed) {
        missing(out, &format!("group {} {}", group.id, brief(&title)), counted, group.listed)?;
    }
    Ok(group)
}

/// A sum, where anything was counted.
#[derive(Default)]
struct Counted(Option<u64>);

impl Counted {
    fn add<R: Read>(&mut self, json: &mut Json<R>) -> Result<(), ResultsError> {
        self.join_count(json.count()?);
        Ok(())
    }

    fn join(&mut self, other: Self) {
        self.join_count(other.0);
    }

    fn join_count(&mut self, count: Option<u64>) {
        if let Some(count) = count {
            self.0 = Some(self.0.unwrap_or(0).saturating_add(count));
        }
    }
}

fn totals(json: &mut Json<impl Read>) -> Result<Option<u64>, ResultsError> {
    let mut counted = Counted::default();
    json.object(|json, key| match key {
        "total_pass" | "total_fail" | "total_warn" | "total_info" => counted.add(json),
        _ => json.skip(),
    })?;
    Ok(counted.0)
}

fn missing(out: &mut Out<'_>, what: &str, counted: u64, listed: u64) -> Result<(), ResultsError> {
    let detail = format!("it counts {counted} verdicts and lists {listed}");
    out.gap(what, Reason::ControlMissing, detail)
}

fn test(json: &mut Json<impl Read>) -> Result<Test, ResultsError> {
    let mut test = Test::default();
    json.object(|json, key| match key {
        "test_number" => json.scalar().map(|text| test.number = text.unwrap_or_default()),
        "test_desc" => json.scalar().map(|text| test.title = text.unwrap_or_default()),
        "status" => json.scalar().map(|text| test.status = text.unwrap_or_default()),
        "reason" => json.scalar().map(|text| test.reason = text.unwrap_or_default()),
        "remediation" => json.scalar().map(|text| test.remedy = text.unwrap_or_default()),
        "type" => json.scalar().map(|text| test.kind = text.unwrap_or_default()),
        "actual_value" => {
            let seen = json.scalar()?.unwrap_or_default().to_ascii_lowercase();
            // A test that wants a setting not to be there passes where there is no such process, too.
            test.silent = seen.trim().is_empty();
            test.not_there = NOT_THERE.iter().any(|words| seen.contains(words));
            Ok(())
        }
        _ => json.skip(),
    })?;
    if test.number.is_empty() { Err(json.foreign("a test has no number")) } else { Ok(test) }
}

impl Test {
    fn report(self, group: &Group, out: &mut Out<'_>) -> Result<(), ResultsError> {
        let skipped = |what: String| Outcome::not_evaluated(Reason::ScannerSkipped, what);
        let why =
            |what: &str| if self.reason.is_empty() { what.to_owned() } else { format!("{what}: {}", self.reason) };
        let outcome = match self.status.as_str() {
            "PASS" if self.not_there => skipped("it passed, and what it looked at was not there".to_owned()),
            "PASS" if self.silent => skipped("it passed, and what it asked printed nothing at all".to_owned()),
            "PASS" => Outcome::Passed,
            "FAIL" => Outcome::Failed,
            "WARN" => skipped(why("the scanner reports WARN: a person has to look")),
            "INFO" => skipped(why("the scanner reports INFO: its configuration leaves it out")),
            "" => Outcome::not_evaluated(Reason::StatusUnknown, "the scanner reports no status"),
            other => Outcome::not_evaluated(Reason::StatusUnknown, format!("the scanner reports `{}`", brief(other))),
        };
        out.control(Declared {
            id: self.number.clone(),
            title: self.title,
            severity: Severity::Medium,
            references: vec![Reference { scheme: "cis".to_owned(), id: self.number.clone() }],
            not_applicable: None,
        })?;
        let messages =
            if outcome == Outcome::Passed || self.remedy.is_empty() { Vec::new() } else { vec![self.remedy] };
        out.finding(Reported {
            identity: identity("kube-bench", [&group.id, &group.node_type, &self.number]),
            kind: FindingKind::Check,
            control: self.number,
            outcome,
            word: self.status,
            severity: Severity::Medium,
            subject: group.node_type.clone(),
            messages,
            references: Vec::new(),
            ratings: Vec::new(),
        })
    }
}

#[cfg(test)]
mod tests;
