//! A check of configuration, as Trivy tells how it ended.

use std::io::Read;

use super::Part;
use crate::base::text::brief;
use crate::model::control::Reference;
use crate::model::outcome::Outcome;
use crate::model::reason::Reason;
use crate::results::event::{Declared, FindingKind, Numbers, Out, Reported, reference};
use crate::results::json::Json;
use crate::results::{ResultsError, severity};

#[derive(Default)]
pub(super) struct Misconfiguration {
    id: String,
    avd: String,
    title: String,
    message: String,
    remedy: String,
    severity: String,
    pub(super) status: String,
    resource: String,
    line: Option<u64>,
}

pub(super) fn misconfiguration(json: &mut Json<impl Read>) -> Result<Misconfiguration, ResultsError> {
    let mut check = Misconfiguration::default();
    json.object(|json, key| {
        let place = match key {
            "ID" => &mut check.id,
            "AVDID" => &mut check.avd,
            "Title" => &mut check.title,
            "Message" => &mut check.message,
            "Resolution" => &mut check.remedy,
            "Severity" => &mut check.severity,
            "Status" => &mut check.status,
            "CauseMetadata" => {
                return json.object(|json, key| match key {
                    "Resource" => json.text_or_empty().map(|resource| check.resource = resource),
                    "StartLine" => json.count().map(|line| check.line = line),
                    _ => json.skip(),
                });
            }
            _ => return json.skip(),
        };
        *place = json.text_or_empty()?;
        Ok(())
    })?;
    if check.id.is_empty() { Err(json.foreign("a misconfiguration has no id")) } else { Ok(check) }
}

impl Misconfiguration {
    pub(super) fn report(self, part: &Part, numbers: &mut Numbers, out: &mut Out<'_>) -> Result<(), ResultsError> {
        let outcome = match self.status.as_str() {
            "PASS" => Outcome::Passed,
            "FAIL" => Outcome::Failed,
            "EXCEPTION" => {
                let detail = "an exception in the scanner's own configuration leaves it out";
                Outcome::not_evaluated(Reason::ScannerSkipped, detail)
            }
            "" => Outcome::not_evaluated(Reason::StatusUnknown, "the scanner reports no status"),
            other => Outcome::not_evaluated(Reason::StatusUnknown, format!("the scanner reports `{}`", brief(other))),
        };
        let severity = severity::of_word(&self.severity);
        let references: Vec<Reference> = reference("avd", &self.avd).into_iter().collect();
        out.control(Declared {
            id: self.id.clone(),
            title: self.title,
            severity,
            references: references.clone(),
            not_applicable: None,
        })?;
        let which = format!("{}\n{}", self.resource, self.message);
        let identity = numbers.identity("trivy", &["misconfiguration", &part.target, &self.id, &which]);
        let place = match (self.resource.as_str(), self.line) {
            ("", None) => String::new(),
            ("", Some(line)) => format!(":{line}"),
            (resource, None) => format!(" {resource}"),
            (resource, Some(line)) => format!(":{line} {resource}"),
        };
        let said =
            [self.message, self.remedy].into_iter().filter(|text| !text.is_empty()).collect::<Vec<_>>().join("; ");
        let quiet = said.is_empty() || outcome == Outcome::Passed;
        out.finding(Reported {
            identity,
            kind: FindingKind::Check,
            control: self.id,
            outcome,
            word: self.status,
            severity,
            subject: format!("{}{place}", part.target),
            messages: if quiet { Vec::new() } else { vec![said] },
            references,
            ratings: Vec::new(),
        })
    }
}
