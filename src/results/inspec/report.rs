//! The controls of all profiles of a result, put together.

use std::collections::HashMap;

use super::check::one_line;
use super::control::Part;
use super::profile::About;
use crate::base::limits::Limits;
use crate::base::text::brief;
use crate::model::control::{Reference, Severity};
use crate::model::reason::Reason;
use crate::results::ResultsError;
use crate::results::event::{Budget, Declared, Numbers, Out, cut, keep};

/// How many profiles a result may have. Real ones have a handful.
const PROFILES: usize = 4096;
/// How many waivers are named.
const WAIVERS: usize = 20;

/// A control, of all profiles that have it.
#[derive(Default)]
pub(super) struct Merged {
    title: String,
    references: Vec<Reference>,
    /// What each profile says of its impact.
    impacts: Vec<(usize, f64)>,
    pub(super) has_checks: bool,
    skip_message: String,
}

/// What is known so far.
pub(super) struct Report {
    order: Vec<String>,
    controls: HashMap<String, Merged>,
    profiles: Vec<About>,
    waived: Vec<String>,
    waivers: u64,
    budget: Budget,
}

impl Report {
    /// Nothing yet; holds as much as the limits allow.
    pub(super) fn new(limits: &Limits) -> Self {
        Self {
            order: Vec::new(),
            controls: HashMap::new(),
            profiles: Vec::new(),
            waived: Vec::new(),
            waivers: 0,
            budget: Budget::of(limits),
        }
    }

    /// Another profile, and which one it is. What it is called may come after its controls: [`Report::describe`] says it.
    pub(super) fn profile(&mut self) -> Result<usize, ResultsError> {
        if self.profiles.len() >= PROFILES {
            return Err(ResultsError::TooMany { limit: PROFILES });
        }
        self.profiles.push(About::default());
        Ok(self.profiles.len() - 1)
    }

    /// Says what the profile is.
    pub(super) fn describe(&mut self, profile: usize, about: About) {
        self.profiles[profile] = about;
    }

    /// Whether a profile of this name was there.
    pub(super) fn has(&self, name: &str) -> bool {
        self.profiles.iter().any(|about| about.name == name)
    }

    /// The control of this id.
    pub(super) fn entry(&mut self, id: &str) -> Result<&mut Merged, ResultsError> {
        if !self.controls.contains_key(id) {
            self.budget.hold(2 * id.len() + size_of::<Merged>())?;
            self.order.push(id.to_owned());
        }
        Ok(self.controls.entry(id.to_owned()).or_default())
    }

    /// Takes what one profile says of a control.
    pub(super) fn add(&mut self, profile: usize, part: Part, out: &mut Out<'_>) -> Result<(), ResultsError> {
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
        let (id, title) = (cut(id), cut(title));
        let before = self.entry(&id)?;
        let is_titled = !before.title.is_empty();
        let mut new: Vec<Reference> = Vec::new();
        for reference in references.iter().filter(|reference| !before.references.contains(reference)) {
            if !new.contains(reference) {
                new.push(reference.clone());
            }
        }
        let named: usize = new.iter().map(|reference| size_of::<Reference>() + reference.id.len()).sum();
        self.budget.hold(named + if is_titled { 0 } else { title.len() })?;
        let merged = self.entry(&id)?;
        if !is_titled {
            merged.title = title;
        }
        keep(&mut merged.references, new);
        merged.impacts.extend(impact.map(|impact| (profile, impact)));
        // What profiles say that include others comes before what the innermost one says.
        let severity = merged.impacts.first().map_or(Severity::Medium, |(_, impact)| Severity::of_impact(*impact));
        merged.has_checks |= !checks.is_empty();
        if let Some(skipped) = checks.iter().find(|check| check.status == "skipped" && !check.skip_message.is_empty()) {
            merged.skip_message = cut(one_line(&skipped.skip_message));
        }
        let mut numbers = Numbers::default();
        for check in checks {
            out.finding(check.report(&id, &mut numbers, severity, references.clone()))?;
        }
        Ok(())
    }

    /// How many profiles include each. A profile can't include itself; a document can say so.
    fn depths(&self) -> Vec<usize> {
        let mut by_name: HashMap<&str, usize> = HashMap::new();
        for (at, about) in self.profiles.iter().enumerate() {
            by_name.entry(&about.name).or_insert(at);
        }
        let parent = |at: usize| Some(self.profiles[at].parent.as_str()).filter(|parent| !parent.is_empty());
        let above = |at: &usize| parent(*at).and_then(|name| by_name.get(name).copied());
        let depth = |profile| std::iter::successors(Some(profile), above).take(self.profiles.len() + 1).count() - 1;
        (0..self.profiles.len()).map(depth).collect()
    }

    /// Hands on each control as the outermost profile that has it says, and what did not load.
    pub(super) fn finish(mut self, out: &mut Out<'_>) -> Result<(), ResultsError> {
        let depths = self.depths();
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
                if status.is_empty() && self.has(name) {
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
