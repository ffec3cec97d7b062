//! A rule, and what rules and results have in common.

use std::io::Read;

use super::run::Run;
use crate::model::control::{Reference, Severity};
use crate::results::event::{Budget, Declared, cut, keep, reference, vulnerability_reference};
use crate::results::json::Json;
use crate::results::{ResultsError, severity};

/// What a result counts as of which neither it nor its rule says a level (section 3.27.10).
pub(super) const DEFAULT_LEVEL: &str = "warning";

/// What a tool looks for.
#[derive(Clone, Default)]
pub(super) struct Rule {
    pub(super) id: String,
    pub(super) title: String,
    pub(super) level: Option<String>,
    /// A CVSS score, as code hosts read it.
    pub(super) score: Option<f64>,
    pub(super) references: Vec<Reference>,
}

pub(super) fn rules(json: &mut Json<impl Read>, run: &mut Run, budget: &mut Budget) -> Result<(), ResultsError> {
    json.array(|json| {
        let rule = rule(json)?;
        budget.hold(2 * rule.id.len() + rule.declared().bytes())?;
        run.index.entry(rule.id.clone()).or_insert(run.rules.len());
        run.rules.push(rule);
        Ok(())
    })
}

fn rule(json: &mut Json<impl Read>) -> Result<Rule, ResultsError> {
    let mut rule = Rule::default();
    let (mut name, mut short) = (String::new(), String::new());
    json.object(|json, key| match key {
        "id" => json.text_or_empty().map(|id| rule.id = id),
        "name" => json.text_or_empty().map(|text| name = text),
        "shortDescription" => text_of(json).map(|text| short = text),
        "defaultConfiguration" => json.object(|json, key| match key {
            "level" => json.text().map(|level| rule.level = level),
            _ => json.skip(),
        }),
        "properties" => properties(json, &mut rule.score, &mut rule.references),
        "relationships" => json.array(|json| {
            json.object(|json, key| match key {
                "target" => taxon(json, &mut rule.references),
                _ => json.skip(),
            })
        }),
        _ => json.skip(),
    })?;
    if rule.id.is_empty() {
        return Err(json.foreign("a rule has no id"));
    }
    if let Some(known) = vulnerability_reference(&rule.id).filter(|known| known.scheme != "advisory") {
        rule.references.insert(0, known);
    }
    rule.title = cut(if short.is_empty() { name } else { short });
    Ok(rule)
}

/// `{"text": ...}`.
pub(super) fn text_of(json: &mut Json<impl Read>) -> Result<String, ResultsError> {
    let mut message = String::new();
    json.object(|json, key| match key {
        "text" => json.text_or_empty().map(|text| message = text),
        _ => json.skip(),
    })?;
    Ok(message)
}

/// A category of a taxonomy, as `{"id": "CWE-120", "toolComponent": {"name": "CWE"}}`.
pub(super) fn taxon(json: &mut Json<impl Read>, references: &mut Vec<Reference>) -> Result<(), ResultsError> {
    let (mut id, mut taxonomy) = (String::new(), String::new());
    json.object(|json, key| match key {
        "id" => json.scalar().map(|text| id = text.unwrap_or_default()),
        "toolComponent" => json.object(|json, key| match key {
            "name" => json.scalar().map(|text| taxonomy = text.unwrap_or_default().to_ascii_lowercase()),
            _ => json.skip(),
        }),
        _ => json.skip(),
    })?;
    if !taxonomy.is_empty() {
        keep(references, reference(&taxonomy, &id));
    }
    Ok(())
}

/// The property bag: `security-severity` and tags, as code hosts read them.
pub(super) fn properties(
    json: &mut Json<impl Read>,
    score: &mut Option<f64>,
    references: &mut Vec<Reference>,
) -> Result<(), ResultsError> {
    json.object(|json, key| match key {
        "security-severity" => {
            let text = json.scalar()?;
            *score = text.and_then(|text| text.trim().parse().ok()).filter(|score| (0.0..=10.0).contains(score));
            Ok(())
        }
        "tags" => {
            for tag in json.texts()? {
                let known = tag.rsplit('/').next().unwrap_or_default();
                let scheme = known.get(..4).map(str::to_ascii_lowercase);
                if scheme.is_some_and(|begin| ["cwe-", "cve-", "ghsa"].contains(&&*begin)) {
                    keep(references, vulnerability_reference(known));
                }
            }
            Ok(())
        }
        _ => json.skip(),
    })
}

impl Rule {
    pub(super) fn declared(&self) -> Declared {
        Declared {
            id: self.id.clone(),
            title: self.title.clone(),
            severity: rated(self.score, self.level.as_deref().unwrap_or(DEFAULT_LEVEL)),
            references: self.references.clone(),
            not_applicable: None,
        }
    }
}

/// The score counts before the level: it is about security, and the level about how loud the tool is.
pub(super) fn rated(score: Option<f64>, level: &str) -> Severity {
    score.map_or_else(|| severity::of_word(level), severity::of_cvss)
}
