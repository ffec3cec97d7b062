//! One run of a tool, without its results.

use std::collections::HashMap;
use std::io::Read;

use super::rule::{Rule, rules, text_of};
use crate::model::reason::Reason;
use crate::results::ResultsError;
use crate::results::event::{Budget, cut};
use crate::results::json::Json;

/// One run without its results.
#[derive(Default)]
pub(super) struct Run {
    pub(super) tool: Option<String>,
    pub(super) version: Option<String>,
    pub(super) rules: Vec<Rule>,
    /// Where each rule is in `rules`, by its id.
    pub(super) index: HashMap<String, usize>,
    pub(super) artifacts: Vec<String>,
    pub(super) problems: Vec<(Reason, String)>,
}

pub(super) fn run(json: &mut Json<impl Read>, budget: &mut Budget) -> Result<Run, ResultsError> {
    let mut run = Run::default();
    json.object(|json, key| match key {
        "tool" => json.object(|json, key| match key {
            "driver" => driver(json, &mut run, budget),
            // Rules of plug-ins are known by their ids.
            "extensions" => json.array(|json| {
                json.object(|json, key| match key {
                    "rules" => rules(json, &mut run, budget),
                    _ => json.skip(),
                })
            }),
            _ => json.skip(),
        }),
        "artifacts" => json.array(|json| {
            let mut uri = String::new();
            json.object(|json, key| match key {
                "location" => json.object(|json, key| match key {
                    "uri" => json.text_or_empty().map(|text| uri = text),
                    _ => json.skip(),
                }),
                _ => json.skip(),
            })?;
            let uri = cut(uri);
            budget.hold(size_of::<String>() + uri.len())?;
            run.artifacts.push(uri);
            Ok(())
        }),
        "invocations" => json.array(|json| invocation(json, &mut run.problems)),
        _ => json.skip(),
    })?;
    match run.tool {
        Some(_) => Ok(run),
        None => Err(json.foreign("a run does not name its tool")),
    }
}

fn driver(json: &mut Json<impl Read>, run: &mut Run, budget: &mut Budget) -> Result<(), ResultsError> {
    let (mut version, mut semantic) = (None, None);
    json.object(|json, key| match key {
        "name" => json.text().map(|name| run.tool = name),
        "version" => json.scalar().map(|text| version = text),
        "semanticVersion" => json.scalar().map(|text| semantic = text),
        "rules" => rules(json, run, budget),
        _ => json.skip(),
    })?;
    run.version = version.or(semantic);
    Ok(())
}

fn invocation(json: &mut Json<impl Read>, problems: &mut Vec<(Reason, String)>) -> Result<(), ResultsError> {
    let mut tell = |reason: Reason, problem: String| {
        if problems.len() < 1000 {
            problems.push((reason, problem));
        }
    };
    json.object(|json, key| match key {
        "executionSuccessful" => {
            if json.boolean()? == Some(false) {
                tell(Reason::ScannerFailed, "the tool says that it did not end well".to_owned());
            }
            Ok(())
        }
        "toolExecutionNotifications" | "toolConfigurationNotifications" => json.array(|json| {
            let (mut level, mut message) = (None, String::new());
            json.object(|json, key| match key {
                "level" => json.text().map(|text| level = text),
                "message" => text_of(json).map(|text| message = text),
                _ => json.skip(),
            })?;
            // What has no level is a warning (section 3.58.6), and what a tool warns of may have kept it from looking.
            match level.as_deref() {
                Some("error") => tell(Reason::ScannerFailed, format!("the tool tells of an error: {message}")),
                Some("none" | "note") => {}
                Some(_) | None => tell(Reason::ScannerSkipped, format!("the tool warns: {message}")),
            }
            Ok(())
        }),
        _ => json.skip(),
    })
}
