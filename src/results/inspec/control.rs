//! One control of one profile, as the reporter `json` writes it.

use std::io::Read;

use super::check::{Check, check};
use crate::model::control::Reference;
use crate::results::ResultsError;
use crate::results::event::{keep, reference};
use crate::results::json::{Json, Kind};

/// Bytes of the results of one control that are held until its id is known.
const HELD_BYTES: usize = 64 << 20;

/// One control of one profile.
#[derive(Default)]
pub(super) struct Part {
    pub(super) id: String,
    pub(super) title: String,
    pub(super) impact: Option<f64>,
    pub(super) references: Vec<Reference>,
    pub(super) waiver: Option<Waiver>,
    pub(super) checks: Vec<Check>,
}

#[derive(Default)]
pub(super) struct Waiver {
    pub(super) justification: String,
    pub(super) expires: String,
    pub(super) skipped: bool,
}

pub(super) fn control(json: &mut Json<impl Read>) -> Result<Part, ResultsError> {
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

/// What the names under a tag are names of, where they name the control elsewhere.
pub(in crate::results) fn scheme(tag: &str) -> Option<&'static str> {
    Some(match tag {
        "nist" => "nist",
        "cci" => "cci",
        "stig_id" | "gid" | "rid" => "stig",
        "cis" | "cis_controls" | "cis_rid" => "cis",
        "cve" => "cve",
        "cwe" => "cwe",
        "gtitle" | "satisfies" => "srg",
        _ => return None,
    })
}

/// The tags that name the control elsewhere.
fn tags(json: &mut Json<impl Read>, references: &mut Vec<Reference>) -> Result<(), ResultsError> {
    json.object(|json, key| {
        let Some(scheme) = scheme(key) else { return json.skip() };
        let texts = json.texts()?;
        // `Rev_4` says of which revision the others are.
        let names = texts.iter().filter(|text| !(scheme == "nist" && text.starts_with("Rev")));
        keep(references, names.filter_map(|text| reference(scheme, text)));
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
            "url" | "uri" => json.scalar().map(|url| keep(references, url.and_then(|url| reference("url", &url)))),
            _ => json.skip(),
        })
    })
}
