//! A secret that should not be where Trivy found it.

use std::io::Read;

use super::Part;
use crate::model::outcome::Outcome;
use crate::results::event::{FindingKind, Numbers, Out, Reported};
use crate::results::json::Json;
use crate::results::{ResultsError, severity};

/// The control that a secret fails.
const NO_SECRETS: &str = "no-secrets";

pub(super) fn secret(
    json: &mut Json<impl Read>,
    part: &Part,
    numbers: &mut Numbers,
    out: &mut Out<'_>,
) -> Result<(), ResultsError> {
    let (mut rule, mut title, mut word, mut line) = (String::new(), String::new(), String::new(), None);
    // What was found (`Match`, `Code`) is not taken over.
    json.object(|json, key| match key {
        "RuleID" => json.text_or_empty().map(|text| rule = text),
        "Title" => json.text_or_empty().map(|text| title = text),
        "Severity" => json.text_or_empty().map(|text| word = text),
        "StartLine" => json.count().map(|count| line = count),
        _ => json.skip(),
    })?;
    if rule.is_empty() {
        return Err(json.foreign("a secret has no rule"));
    }
    let identity = numbers.identity("trivy", &["secret", &part.target, &rule, ""]);
    out.finding(Reported {
        identity,
        kind: FindingKind::Secret,
        control: NO_SECRETS.to_owned(),
        outcome: Outcome::Failed,
        severity: severity::of_word(&word),
        word,
        subject: line.map_or_else(|| part.target.clone(), |line| format!("{}:{line}", part.target)),
        messages: vec![if title.is_empty() { rule } else { format!("{rule}: {title}") }],
        references: Vec::new(),
        ratings: Vec::new(),
    })
}
