//! One profile, as the reporter `json` writes it.

use std::io::Read;

use super::control::control;
use super::report::Report;
use crate::results::ResultsError;
use crate::results::event::Out;
use crate::results::json::Json;

/// One profile.
#[derive(Default)]
pub(super) struct About {
    pub(super) name: String,
    pub(super) parent: String,
    pub(super) status: Option<String>,
    pub(super) message: String,
    /// Name, status and message of each that it includes.
    pub(super) dependencies: Vec<(String, String, String)>,
}

pub(super) fn profile(json: &mut Json<impl Read>, report: &mut Report, out: &mut Out<'_>) -> Result<(), ResultsError> {
    let at = report.profile()?;
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
    report.describe(at, about);
    Ok(())
}
