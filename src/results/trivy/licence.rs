//! A licence of a package or file, as Trivy judges it.

use std::io::Read;

use super::Part;
use crate::base::text::brief;
use crate::model::control::Severity;
use crate::model::outcome::Outcome;
use crate::model::reason::Reason;
use crate::results::event::{FindingKind, Out, Reported, identity, reference};
use crate::results::json::Json;
use crate::results::{ResultsError, severity};

/// The control that a licence passes or fails.
const LICENCES: &str = "acceptable-licences";

pub(super) fn licence(json: &mut Json<impl Read>, part: &Part, out: &mut Out<'_>) -> Result<(), ResultsError> {
    let (mut name, mut category, mut word) = (String::new(), String::new(), String::new());
    let (mut package, mut file) = (String::new(), String::new());
    json.object(|json, key| match key {
        "Name" => json.text_or_empty().map(|text| name = text),
        "Category" => json.text_or_empty().map(|text| category = text),
        "Severity" => json.text_or_empty().map(|text| word = text),
        "PkgName" => json.text_or_empty().map(|text| package = text),
        "FilePath" => json.text_or_empty().map(|text| file = text),
        _ => json.skip(),
    })?;
    let outcome = match category.as_str() {
        "forbidden" | "restricted" => Outcome::Failed,
        "reciprocal" | "notice" | "permissive" | "unencumbered" => Outcome::Passed,
        "unknown" => {
            Outcome::not_evaluated(Reason::ScannerSkipped, format!("the scanner does not know `{}`", brief(&name)))
        }
        other => Outcome::not_evaluated(Reason::StatusUnknown, format!("the category is `{}`", brief(other))),
    };
    let subject = [package.as_str(), file.as_str(), part.target.as_str()].into_iter().find(|text| !text.is_empty());
    out.finding(Reported {
        identity: identity("trivy", ["licence", &part.target, &name, &package, &file]),
        kind: FindingKind::Licence,
        control: LICENCES.to_owned(),
        messages: if outcome == Outcome::Passed { Vec::new() } else { vec![format!("{name}, {category}")] },
        outcome,
        severity: if word.is_empty() { Severity::Medium } else { severity::of_word(&word) },
        word: category,
        subject: subject.unwrap_or_default().to_owned(),
        references: reference("spdx-licence", &name).into_iter().collect(),
        ratings: Vec::new(),
    })
}
