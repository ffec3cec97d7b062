//! InSpec's and CINC Auditor's JSON: the reporters `json` and `json-min`.
//!
//! The meaning of a result's status here:
//!
//! | status | counts as |
//! |---|---|
//! | passed | passed |
//! | failed | failed |
//! | failed, with an exception other than several failures in one | not evaluated, `rule-error`: the check broke |
//! | skipped | not evaluated, `scanner-skipped` |
//! | any other word | not evaluated, `status-unknown` |
//!
//! The worst result of a control counts, as it does for InSpec's own summary: a control of which a part was skipped was not
//! evaluated. A control of impact 0.0 whose results all passed or were skipped is not applicable, which is how profiles say
//! it (and how the Heimdall Data Format has it); one that failed stays failed.
//!
//! A profile that includes others has their controls once more, without results; the same control of all of them is one here.
//! Its impact is that of the outermost profile that has it. A control of which none has results was not evaluated.
//!
//! A waiver of InSpec does not turn a failure into anything else: waivers are gapscan's, signed, and expire. It is noted.
//!
//! Identity of a finding: the control's id, the resource, the result's description, and which one it is of those of the
//! control that have both in common.

use std::collections::HashMap;
use std::io::Read;

use super::ResultsError;
use super::event::{Declared, FindingKind, Out, Reported, identity, reference};
use super::json::{Json, Kind};
use crate::base::limits::Limits;
use crate::base::text::brief;
use crate::model::control::{Reference, Severity};
use crate::model::outcome::Outcome;
use crate::model::reason::Reason;

const FORMAT: &str = "InSpec JSON";

/// What RSpec raises when one check found several things wrong.
const SEVERAL_FAILURES: &str = "RSpec::Core::MultipleExceptionError";

/// Bytes of the results of one control that are held until its id is known.
const HELD_BYTES: usize = 64 << 20;

/// How many waivers are named.
const WAIVERS: usize = 20;

/// One result of a control.
#[derive(Default)]
struct Check {
    status: String,
    description: String,
    resource: String,
    message: String,
    skip_message: String,
    exception: String,
}

/// One control of one profile.
#[derive(Default)]
struct Part {
    id: String,
    title: String,
    impact: Option<f64>,
    references: Vec<Reference>,
    waiver: Option<Waiver>,
    checks: Vec<Check>,
}

#[derive(Default)]
struct Waiver {
    justification: String,
    expires: String,
    skipped: bool,
}

/// A control, of all profiles that have it.
struct Merged {
    title: String,
    references: Vec<Reference>,
    /// What each profile says of its impact.
    impacts: Vec<(usize, f64)>,
    has_checks: bool,
    skip_message: String,
}

/// One profile.
#[derive(Default)]
struct About {
    name: String,
    parent: String,
    status: Option<String>,
    message: String,
    dependencies: Vec<(String, String, String)>,
}

#[derive(Default)]
struct Report {
    order: Vec<String>,
    controls: HashMap<String, Merged>,
    profiles: Vec<About>,
    waived: Vec<String>,
    waivers: u64,
}

/// Reads either of the two.
pub(crate) fn read(source: impl Read, out: &mut Out<'_>, limits: &Limits) -> Result<(), ResultsError> {
    let mut json = Json::new(source, FORMAT, limits.result_bytes);
    if json.kind()? != Kind::Object {
        return Err(json.foreign("it is no object"));
    }
    let mut report = Report::default();
    let (mut profiles, mut controls, mut statistics) = (false, None, false);
    let mut version = None;
    json.object(|json, key| match key {
        "platform" => platform(json, out),
        "version" => json.scalar().map(|text| version = text),
        "statistics" => {
            statistics = true;
            json.skip()
        }
        "profiles" => {
            if json.kind()? != Kind::Array {
                return Err(json.foreign("its profiles are no list"));
            }
            profiles = true;
            json.array(|json| profile(json, &mut report, out))
        }
        "controls" => {
            if json.kind()? != Kind::Array {
                return Err(json.foreign("its controls are no list"));
            }
            controls = Some(minimal(json, &mut report, out)?);
            Ok(())
        }
        _ => json.skip(),
    })?;
    json.end()?;
    // Old versions list all results a second time, without saying of which control.
    let told = match controls {
        None | Some(Listed { named: false, nameless: true }) => profiles,
        Some(Listed { named: true, nameless: false }) => !profiles,
        Some(Listed { named: false, nameless: false }) => true,
        Some(Listed { named: true, nameless: true }) => false,
    };
    if !statistics || !told {
        return Err(json.foreign("it has no statistics, or not either profiles or controls"));
    }
    out.scanner(Some("inspec".to_owned()), version, None);
    report.finish(out)
}

fn platform(json: &mut Json<impl Read>, out: &mut Out<'_>) -> Result<(), ResultsError> {
    let (mut name, mut release, mut target) = (String::new(), String::new(), String::new());
    json.object(|json, key| match key {
        "name" => json.scalar().map(|text| name = text.unwrap_or_default()),
        "release" => json.scalar().map(|text| release = text.unwrap_or_default()),
        "target_id" => json.scalar().map(|text| target = text.unwrap_or_default()),
        _ => json.skip(),
    })?;
    let words = [name, release, target];
    out.target(words.iter().filter(|word| !word.is_empty()).map(String::as_str).collect::<Vec<_>>().join(" "))
}

fn profile(json: &mut Json<impl Read>, report: &mut Report, out: &mut Out<'_>) -> Result<(), ResultsError> {
    let at = report.profiles.len();
    report.profiles.push(About::default());
    let mut about = About::default();
    let (mut status_message, mut skip_message) = (String::new(), String::new());
    let mut controls = false;
    json.object(|json, key| match key {
        "name" => json.scalar().map(|text| about.name = text.unwrap_or_default()),
        "parent_profile" => json.scalar().map(|text| about.parent = text.unwrap_or_default()),
        "status" => json.scalar().map(|text| about.status = text),
        "status_message" => json.scalar().map(|text| status_message = text.unwrap_or_default()),
        "skip_message" => json.scalar().map(|text| skip_message = text.unwrap_or_default()),
        "depends" => json.array(|json| {
            let (mut name, mut status, mut message) = (String::new(), String::new(), String::new());
            json.object(|json, key| match key {
                "name" => json.scalar().map(|text| name = text.unwrap_or_default()),
                "status" => json.scalar().map(|text| status = text.unwrap_or_default()),
                "skip_message" | "status_message" => {
                    let text = json.scalar()?.unwrap_or_default();
                    if message.is_empty() {
                        message = text;
                    }
                    Ok(())
                }
                _ => json.skip(),
            })?;
            if about.dependencies.len() < 1000 {
                about.dependencies.push((name, status, message));
            }
            Ok(())
        }),
        "controls" => {
            controls = true;
            json.array(|json| {
                let part = control(json)?;
                report.add(at, part, out)
            })
        }
        _ => json.skip(),
    })?;
    if !controls && about.name.is_empty() {
        return Err(json.foreign("a profile has neither a name nor controls"));
    }
    about.message = if status_message.is_empty() { skip_message } else { status_message };
    report.profiles[at] = about;
    Ok(())
}

fn control(json: &mut Json<impl Read>) -> Result<Part, ResultsError> {
    let mut part = Part::default();
    let mut held = 0;
    json.object(|json, key| match key {
        "id" => json.scalar().map(|text| part.id = text.unwrap_or_default()),
        "title" => json.scalar().map(|text| part.title = text.unwrap_or_default()),
        "impact" => json.number().map(|impact| part.impact = impact),
        "refs" => refs(json, &mut part.references),
        "tags" if json.kind()? == Kind::Object => tags(json, &mut part.references),
        "waiver_data" if json.kind()? == Kind::Object => waiver(json).map(|waiver| part.waiver = waiver),
        "results" => json.array(|json| {
            let check = check(json)?;
            held += check.bytes();
            if held > HELD_BYTES {
                return Err(ResultsError::TooLarge { limit: HELD_BYTES as u64 });
            }
            part.checks.push(check);
            Ok(())
        }),
        _ => json.skip(),
    })?;
    if part.id.is_empty() { Err(json.foreign("a control has no id")) } else { Ok(part) }
}

fn check(json: &mut Json<impl Read>) -> Result<Check, ResultsError> {
    let mut check = Check::default();
    json.object(|json, key| check.field(json, key))?;
    Ok(check)
}

impl Check {
    /// Takes this key where it is one of a result.
    fn field<R: Read>(&mut self, json: &mut Json<R>, key: &str) -> Result<(), ResultsError> {
        let place = match key {
            "status" => &mut self.status,
            "code_desc" => &mut self.description,
            "resource_id" => &mut self.resource,
            "message" => &mut self.message,
            "skip_message" => &mut self.skip_message,
            "exception" => &mut self.exception,
            _ => return json.skip(),
        };
        *place = json.scalar()?.unwrap_or_default();
        Ok(())
    }

    fn bytes(&self) -> usize {
        let texts =
            [&self.status, &self.description, &self.resource, &self.message, &self.skip_message, &self.exception];
        texts.iter().map(|text| text.len()).sum::<usize>() + size_of::<Self>()
    }

    fn outcome(&self) -> Outcome {
        match self.status.as_str() {
            "passed" => Outcome::Passed,
            "failed" if self.exception.is_empty() || self.exception == SEVERAL_FAILURES => Outcome::Failed,
            "failed" => {
                let detail = format!("its check broke: {}: {}", self.exception, first_line(&self.message));
                Outcome::not_evaluated(Reason::RuleError, detail)
            }
            "skipped" => {
                let why = if self.skip_message.is_empty() { &self.message } else { &self.skip_message };
                let why = if why.is_empty() { "the scanner does not say why" } else { why };
                Outcome::not_evaluated(Reason::ScannerSkipped, one_line(why))
            }
            "" => Outcome::not_evaluated(Reason::StatusUnknown, "the scanner reports no status"),
            other => Outcome::not_evaluated(Reason::StatusUnknown, format!("the scanner reports `{}`", brief(other))),
        }
    }

    fn report(self, control: &str, number: usize, severity: Severity, references: Vec<Reference>) -> Reported {
        let number = number.to_string();
        let outcome = self.outcome();
        let mut messages = Vec::new();
        // What passed rests on nothing that is worth naming but the check itself.
        if outcome != Outcome::Passed {
            let said = [&self.message, &self.skip_message].into_iter().find(|text| !text.is_empty());
            messages.push(match (said, self.exception.as_str()) {
                (Some(said), "") => format!("{}: {said}", self.description),
                (None, "") => self.description.clone(),
                (said, exception) => {
                    format!("{}: {exception}: {}", self.description, said.map_or("", String::as_str))
                }
            });
        }
        Reported {
            identity: identity("inspec", [control, &self.resource, &self.description, &number]),
            kind: FindingKind::Check,
            control: control.to_owned(),
            outcome,
            word: self.status,
            severity,
            subject: self.resource,
            messages,
            references,
            ratings: Vec::new(),
        }
    }
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

fn waiver(json: &mut Json<impl Read>) -> Result<Option<Waiver>, ResultsError> {
    let mut waiver = Waiver::default();
    let mut any = false;
    json.object(|json, key| {
        any = true;
        match key {
            "justification" => json.scalar().map(|text| waiver.justification = text.unwrap_or_default()),
            "expiration_date" => json.scalar().map(|text| waiver.expires = text.unwrap_or_default()),
            // Sometimes it is a text.
            "skipped_due_to_waiver" => json.scalar().map(|text| waiver.skipped = text.as_deref() == Some("true")),
            _ => json.skip(),
        }
    })?;
    Ok(any.then_some(waiver))
}

/// The tags that name the control elsewhere.
fn tags(json: &mut Json<impl Read>, references: &mut Vec<Reference>) -> Result<(), ResultsError> {
    json.object(|json, key| {
        let scheme = match key {
            "nist" => "nist",
            "cci" => "cci",
            "stig_id" | "gid" | "rid" => "stig",
            "cis" | "cis_controls" | "cis_rid" => "cis",
            "cve" => "cve",
            "cwe" => "cwe",
            "gtitle" | "satisfies" => "srg",
            _ => return json.skip(),
        };
        let texts = json.texts()?;
        // `Rev_4` says of which revision the others are.
        let names = texts.iter().filter(|text| !(scheme == "nist" && text.starts_with("Rev")));
        references.extend(names.filter_map(|text| reference(scheme, text)));
        Ok(())
    })
}

fn refs(json: &mut Json<impl Read>, references: &mut Vec<Reference>) -> Result<(), ResultsError> {
    if json.kind()? != Kind::Array {
        return json.skip();
    }
    json.array(|json| {
        if json.kind()? != Kind::Object {
            return json.skip();
        }
        json.object(|json, key| match key {
            "url" | "uri" => json.scalar().map(|url| references.extend(url.and_then(|url| reference("url", &url)))),
            _ => json.skip(),
        })
    })
}

/// Whether there are results that say of which control they are, and others.
#[derive(Clone, Copy, Default)]
struct Listed {
    named: bool,
    nameless: bool,
}

/// The list of `json-min`: one entry for each result, with the control's id.
fn minimal(json: &mut Json<impl Read>, report: &mut Report, out: &mut Out<'_>) -> Result<Listed, ResultsError> {
    let mut listed = Listed::default();
    let mut numbers: HashMap<(String, String, String), usize> = HashMap::new();
    json.array(|json| {
        let (mut id, mut profile) = (String::new(), String::new());
        let mut check = Check::default();
        json.object(|json, key| match key {
            "id" => json.scalar().map(|text| id = text.unwrap_or_default()),
            "profile_id" => json.scalar().map(|text| profile = text.unwrap_or_default()),
            _ => check.field(json, key),
        })?;
        if check.status.is_empty() && check.description.is_empty() {
            return Err(json.foreign("an entry has neither a status nor a description"));
        }
        if id.is_empty() {
            listed.nameless = true;
            return Ok(());
        }
        listed.named = true;
        if !report.profiles.iter().any(|about| about.name == profile) && report.profiles.len() < 1000 {
            report.profiles.push(About { name: profile, status: Some("loaded".to_owned()), ..About::default() });
        }
        let number = numbers.entry((id.clone(), check.resource.clone(), check.description.clone())).or_default();
        let merged = report.entry(&id);
        merged.has_checks = true;
        let reported = check.report(&id, *number, Severity::Medium, Vec::new());
        *number += 1;
        out.finding(reported)
    })?;
    Ok(listed)
}

impl Report {
    fn entry(&mut self, id: &str) -> &mut Merged {
        self.controls.entry(id.to_owned()).or_insert_with(|| {
            self.order.push(id.to_owned());
            Merged {
                title: String::new(),
                references: Vec::new(),
                impacts: Vec::new(),
                has_checks: false,
                skip_message: String::new(),
            }
        })
    }

    /// Takes what one profile says of a control.
    fn add(&mut self, profile: usize, part: Part, out: &mut Out<'_>) -> Result<(), ResultsError> {
        let Part { id, title, impact, references, waiver, checks } = part;
        if let Some(waiver) = waiver {
            self.waivers += 1;
            if self.waived.len() < WAIVERS {
                let until = if waiver.expires.is_empty() {
                    String::new()
                } else {
                    format!(" until {}", brief(&waiver.expires))
                };
                let how = if waiver.skipped { "skipped" } else { "run" };
                self.waived.push(format!("{}{until} ({how}: {})", brief(&id), brief(&waiver.justification)));
            }
        }
        let merged = self.entry(&id);
        if merged.title.is_empty() {
            merged.title = title;
        }
        for reference in &references {
            if merged.references.len() < 256 && !merged.references.contains(reference) {
                merged.references.push(reference.clone());
            }
        }
        merged.impacts.extend(impact.map(|impact| (profile, impact)));
        // What profiles say that include others comes before what the innermost one says.
        let severity = merged.impacts.first().map_or(Severity::Medium, |(_, impact)| Severity::of_impact(*impact));
        merged.has_checks |= !checks.is_empty();
        if let Some(skipped) = checks.iter().find(|check| check.status == "skipped" && !check.skip_message.is_empty()) {
            merged.skip_message = one_line(&skipped.skip_message);
        }
        let mut numbers: HashMap<(String, String), usize> = HashMap::new();
        for check in checks {
            let number = numbers.entry((check.resource.clone(), check.description.clone())).or_default();
            let reported = check.report(&id, *number, severity, references.clone());
            *number += 1;
            out.finding(reported)?;
        }
        Ok(())
    }

    fn finish(mut self, out: &mut Out<'_>) -> Result<(), ResultsError> {
        // How many profiles include each: the outermost one has the last word.
        let depth = |profile: usize| {
            let (mut depth, mut at) = (0, profile);
            while let Some(parent) =
                self.profiles.get(at).map(|about| &about.parent).filter(|parent| !parent.is_empty())
            {
                match self.profiles.iter().position(|about| about.name == *parent) {
                    // A profile can't include itself; a document can say so.
                    Some(next) if depth <= self.profiles.len() => (depth, at) = (depth + 1, next),
                    _ => break,
                }
            }
            depth
        };
        let depths: Vec<usize> = (0..self.profiles.len().min(4096)).map(depth).collect();
        for id in std::mem::take(&mut self.order) {
            let Some(merged) = self.controls.remove(&id) else { continue };
            let outermost =
                merged.impacts.iter().min_by_key(|(profile, _)| depths.get(*profile).copied().unwrap_or(usize::MAX));
            let impact = outermost.map(|(_, impact)| *impact);
            let no_bearing = impact.is_some_and(|impact| impact <= 0.0);
            let why = match merged.skip_message.as_str() {
                "" => "its impact is 0.0".to_owned(),
                message => message.to_owned(),
            };
            out.control(Declared {
                title: merged.title,
                severity: impact.map_or(Severity::Medium, Severity::of_impact),
                references: merged.references,
                not_applicable: (no_bearing && merged.has_checks).then_some(why),
                id,
            })?;
        }
        for about in &self.profiles {
            match about.status.as_deref() {
                None | Some("loaded") => {}
                Some(status @ ("failed" | "skipped")) => {
                    let detail = format!("the profile was {status}: {}", one_line(&about.message));
                    out.gap(format!("profile {}", about.name), Reason::ScannerSkipped, detail)?;
                }
                Some(other) => {
                    let detail = format!("the profile's status is `{}`: {}", brief(other), one_line(&about.message));
                    out.gap(format!("profile {}", about.name), Reason::StatusUnknown, detail)?;
                }
            }
            for (name, status, message) in about.dependencies.iter().filter(|(_, status, _)| status != "loaded") {
                // Old versions say nothing of it.
                if status.is_empty() && self.profiles.iter().any(|about| about.name == *name) {
                    continue;
                }
                let status = if status.is_empty() { "no status".to_owned() } else { format!("`{}`", brief(status)) };
                let detail = format!("a dependency of {} has {status}: {}", brief(&about.name), one_line(message));
                out.gap(format!("profile {name}"), Reason::ScannerSkipped, detail)?;
            }
        }
        if self.waivers > 0 {
            let names = self.waived.join(", ");
            let more = self.waivers - self.waived.len() as u64;
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            out.note(format!("the scanner has waivers for {names}{more}: the verdicts count as it gave them"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
