//! One result of a control.

use std::io::Read;

use crate::base::text::brief;
use crate::model::control::{Reference, Severity};
use crate::model::outcome::Outcome;
use crate::model::reason::Reason;
use crate::results::ResultsError;
use crate::results::event::{FindingKind, Numbers, Reported};
use crate::results::json::Json;

/// What RSpec raises when one check found several things wrong.
pub(super) const SEVERAL_FAILURES: &str = "RSpec::Core::MultipleExceptionError";

/// One result of a control.
#[derive(Default)]
pub(super) struct Check {
    pub(super) status: String,
    pub(super) description: String,
    pub(super) resource: String,
    pub(super) message: String,
    pub(super) skip_message: String,
    pub(super) exception: String,
}

pub(super) fn check(json: &mut Json<impl Read>) -> Result<Check, ResultsError> {
    let mut check = Check::default();
    json.object(|json, key| check.field(json, key))?;
    Ok(check)
}

impl Check {
    /// Takes this key where it is one of a result.
    pub(super) fn field<R: Read>(&mut self, json: &mut Json<R>, key: &str) -> Result<(), ResultsError> {
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

    pub(super) fn bytes(&self) -> usize {
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

    pub(super) fn report(
        self,
        control: &str,
        numbers: &mut Numbers,
        severity: Severity,
        references: Vec<Reference>,
    ) -> Reported {
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
            identity: numbers.identity("inspec", &[control, &self.resource, &self.description]),
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

pub(super) fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}
