//! What the reporter `json-min` writes.

use std::io::Read;

use super::check::Check;
use super::profile::About;
use super::report::Report;
use crate::model::control::Severity;
use crate::results::ResultsError;
use crate::results::event::{Numbers, Out};
use crate::results::json::Json;

/// Whether there are results that say of which control they are, and others.
#[derive(Clone, Copy, Default)]
pub(super) struct Listed {
    pub(super) named: bool,
    pub(super) nameless: bool,
}

/// The list of `json-min`: one entry for each result, with the control's id.
pub(super) fn minimal(
    json: &mut Json<impl Read>,
    report: &mut Report,
    out: &mut Out<'_>,
) -> Result<Listed, ResultsError> {
    let mut listed = Listed::default();
    let mut numbers = Numbers::default();
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
        if !report.has(&profile) {
            let at = report.profile()?;
            report.describe(at, About { name: profile, status: Some("loaded".to_owned()), ..About::default() });
        }
        report.entry(&id)?.has_checks = true;
        out.finding(check.report(&id, &mut numbers, Severity::Medium, Vec::new()))
    })?;
    Ok(listed)
}
