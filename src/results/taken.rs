//! A result that was read to its end, before it is known what it is measured against: a profile, or its own word.

use std::collections::HashSet;

use super::collect::{Account, Collector};
use super::event::{Event, Scanner, Sink};
use super::read::read;
use super::{Parsed, ResultsError, merge};
use crate::base::digest::Digest;
use crate::base::limits::Limits;
use crate::base::spool::Content;
use crate::model::control::{Control, Severity};
use crate::model::finding::{Detail, Finding};
use crate::model::outcome::{Outcome, Status};
use crate::model::profile::Profile;
use crate::model::reason::Reason;
use crate::model::scanner::{ResultFormat, Unmentioned};

/// The control that stands for what a result says was not looked at, and is no control of its own.
pub const WHOLE_CONTROL: &str = "gapscan-result-whole";

/// How many names of what was scanned are kept.
const SUBJECTS: usize = 64;
/// Characters of a control's id.
const ID: usize = 256;

/// A result that was read to its end.
pub struct Taken {
    collector: Collector,
    subjects: Vec<String>,
    components: u64,
    details: usize,
}

struct Taking(Taken);

impl Sink for Taking {
    fn take(&mut self, event: Event) {
        let taken = &mut self.0;
        match &event {
            Event::Target(name) if taken.subjects.len() < SUBJECTS && !taken.subjects.contains(name) => {
                taken.subjects.push(name.clone());
            }
            Event::Component(_) => taken.components += 1,
            _ => {}
        }
        taken.collector.take(event);
    }

    fn held(&self) -> usize {
        self.0.collector.held()
    }
}

impl Taken {
    /// Reads a result file as a stream.
    ///
    /// # Errors
    /// When the bytes are no whole result in this format.
    pub fn read<C: Content + ?Sized>(format: ResultFormat, content: &C, limits: &Limits) -> Result<Self, ResultsError> {
        let details = limits.finding_details;
        let collector = Collector::new(details);
        let mut taking = Taking(Self { collector, subjects: Vec::new(), components: 0, details });
        read(format, content, &mut taking, limits)?;
        Ok(taking.0)
    }

    /// Who wrote it.
    pub fn scanner(&self) -> &Scanner {
        &self.collector.scanner
    }

    /// What was scanned, in the scanner's words, the first of them.
    pub fn subjects(&self) -> &[String] {
        &self.subjects
    }

    /// How many controls it mentions.
    pub fn controls(&self) -> usize {
        self.collector.controls()
    }

    /// What it says of the controls of this profile; what it lacks was not evaluated.
    pub fn against(self, profile: &Profile) -> Parsed {
        merge::reduce(self.collector, profile, Unmentioned::NotEvaluated)
    }

    /// What it says of the controls that it mentions itself, as a profile of this name and version. Where it says that anything
    /// else was not looked at, where nothing was looked at, or all of it has no bearing, [`WHOLE_CONTROL`] is one more control
    /// that was not evaluated.
    pub fn at_its_word(mut self, name: &str, version: &str) -> (Profile, Parsed) {
        let mut ids = HashSet::from([WHOLE_CONTROL.to_owned()]);
        let (mut controls, mut findings) = (Vec::new(), Vec::new());
        for Account { id, declared, mut finding, .. } in self.collector.accounts() {
            let fitting = fitting(&id, &mut ids);
            finding.control.clone_from(&fitting);
            let (title, severity, references) = match declared {
                Some(declared) => (declared.title, declared.severity, declared.references),
                None => (String::new(), Severity::Medium, Vec::new()),
            };
            controls.push(Control {
                id: fitting,
                title: title.split_whitespace().collect::<Vec<_>>().join(" "),
                description: String::new(),
                check: String::new(),
                fix: String::new(),
                severity,
                references,
            });
            findings.push(finding);
        }
        let all = findings.len();
        if all > 0 && findings.iter().all(|finding| finding.outcome.status() == Status::NotApplicable) {
            for finding in &mut findings {
                let detail = format!("all {all} controls are not applicable: the content is for another target");
                finding.outcome = Outcome::not_evaluated(Reason::WrongTarget, detail);
            }
        }
        let notes = self.collector.notes();
        if let Some(finding) = self.whole(all) {
            controls.push(whole_control());
            findings.push(finding);
        }
        let reported = findings.iter().map(|finding| finding.outcome.status()).collect();
        let profile = Profile {
            name: name.to_owned(),
            version: version.to_owned(),
            title: "Controls that the result itself names (self-declared)".to_owned(),
            summary: "Nobody knows what was expected: what the file does not mention is not missed.".to_owned(),
            controls,
        };
        let Scanner { version, database_built, .. } = self.collector.scanner;
        (profile, Parsed { findings, notes, scanner_version: version, database_built, reported })
    }

    /// What was not looked at besides the controls.
    fn whole(&self, controls: usize) -> Option<Finding> {
        let gaps = &self.collector.gaps;
        let (reason, detail) = match (gaps.first(), controls, self.components) {
            (Some(gap), _, _) => (gap.reason, format!("{} more than its controls were not evaluated", gaps.len())),
            (None, 0, 0) => {
                let detail = "it has no control and no component: nothing says that anything was looked at";
                (Reason::ControlMissing, detail.to_owned())
            }
            (None, 0, parts) => {
                (Reason::ControlMissing, format!("it is an inventory of {parts} components, without a verdict on any"))
            }
            (None, _, _) => return None,
        };
        let details = gaps.iter().map(|gap| Detail::new(&gap.subject, format!("{}: {}", gap.reason, gap.detail)));
        Some(Finding::new(WHOLE_CONTROL, Outcome::not_evaluated(reason, detail)).with_details(details, self.details))
    }
}

/// The profile of a file that says nothing, for what nobody else said what is expected of.
pub fn nothing_declared(name: &str) -> Profile {
    Profile {
        name: name.to_owned(),
        version: String::new(),
        title: "Controls that the result itself names (self-declared)".to_owned(),
        summary: "It names none that can be read.".to_owned(),
        controls: vec![whole_control()],
    }
}

/// [`WHOLE_CONTROL`], for a profile.
pub fn whole_control() -> Control {
    Control {
        id: WHOLE_CONTROL.to_owned(),
        title: "The result is whole, and all that it tells of was evaluated".to_owned(),
        description: String::new(),
        check: "What the scanner's result says it left out, could not load or did not look at.".to_owned(),
        fix: "Scan again, so that what is named here is looked at.".to_owned(),
        severity: Severity::Medium,
        references: Vec::new(),
    }
}

/// The id as a profile may have it, and none that is taken: what it loses tells its digest.
fn fitting(id: &str, taken: &mut HashSet<String>) -> String {
    let fits = |c: char| c.is_ascii_graphic();
    let plain: String = id.chars().map(|c| if fits(c) { c } else { '_' }).take(ID).collect();
    if plain == id && !id.is_empty() && taken.insert(plain.clone()) {
        return plain;
    }
    let digest = Digest::of(id);
    let mut name = format!("{}-{}", &plain[..plain.len().min(ID - 80)], digest.short());
    if !taken.insert(name.clone()) {
        // No two ids have one digest, and whoever wrote an id that looks like this one has its digest in the name as well.
        name = format!("{}-{}", &plain[..plain.len().min(ID - 80)], digest.hex());
        taken.insert(name.clone());
    }
    name
}

/// The id that a profile may have, of one that a result has: the same where it fits.
pub fn control_id(id: &str) -> String {
    fitting(id, &mut HashSet::from([WHOLE_CONTROL.to_owned()]))
}

/// A name that a profile may have, from a text of a file: lower-case letters, digits and hyphens.
pub fn profile_name(text: &str) -> String {
    const LONGEST: usize = 100;
    let lower = text.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { ' ' });
    let name = lower.collect::<String>().split_whitespace().collect::<Vec<_>>().join("-");
    if name.is_empty() {
        return "unnamed".to_owned();
    }
    if name.len() <= LONGEST {
        return name;
    }
    format!("{}-{}", name[..LONGEST].trim_end_matches('-'), Digest::of(text).short())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(format: ResultFormat, text: &str) -> (Profile, Parsed) {
        let taken = Taken::read(format, text.as_bytes(), &Limits::default()).expect("a result");
        let (profile, parsed) = taken.at_its_word("p", "1");
        let profile = profile.checked().expect("a profile");
        crate::model::coverage::Coverage::of(&profile, &parsed.findings).expect("each control once");
        (profile, parsed)
    }

    #[test]
    fn a_result_at_its_word_has_its_controls_and_what_it_left_out() {
        let alert =
            |rule: &str| format!("{{\"rule\":\"{rule}\",\"priority\":\"Error\",\"time\":\"x\",\"output\":\"o\"}}\n");
        let (profile, parsed) = taken(ResultFormat::Falco, &alert("a b"));
        assert_eq!((profile.controls.len(), parsed.findings[0].outcome.clone()), (1, Outcome::Failed));
        // A gap is one more control that was not evaluated.
        let lost = alert("Falco internal: syscall event drop");
        let (profile, parsed) = taken(ResultFormat::Falco, &(alert("a") + &lost + &lost));
        assert_eq!(profile.controls.last().map(|c| c.id.as_str()), Some(WHOLE_CONTROL));
        assert_eq!(parsed.findings.last().map(|f| f.details.len()), Some(2));
    }

    #[test]
    fn an_inventory_evaluates_nothing() {
        let text = "{\"bomFormat\":\"CycloneDX\",\"specVersion\":\"1.5\",\"components\":[{\"type\":\"library\",\"name\":\"a\"}]}";
        let (profile, parsed) = taken(ResultFormat::CycloneDx, text);
        assert_eq!(profile.controls.len(), 1);
        assert!(
            matches!(&parsed.findings[0].outcome, Outcome::NotEvaluated { detail, .. } if detail.contains("inventory")),
            "{parsed:?}"
        );
    }

    #[test]
    fn ids_that_no_profile_may_have_are_made_fitting_and_stay_apart() {
        let mut taken = HashSet::from([WHOLE_CONTROL.to_owned()]);
        assert_eq!(fitting("CIS-1.1", &mut taken), "CIS-1.1");
        let long = "x".repeat(5000);
        let odd = ["\u{1b}[2J", "\u{1b}]2J", "", &long, "CIS-1.1", WHOLE_CONTROL, "ä", "ö"];
        for id in odd {
            let id = fitting(id, &mut taken);
            assert!(id.len() <= ID && id.chars().all(|c| c.is_ascii_graphic()), "{id}");
        }
        assert_eq!(taken.len(), 2 + odd.len());
    }

    #[test]
    fn names_of_profiles_are_names() {
        assert_eq!(profile_name("xccdf_org.ssgproject_profile_standard"), "xccdf-org-ssgproject-profile-standard");
        assert_eq!(profile_name("../\u{1b}"), "unnamed");
        let long = profile_name(&"A b".repeat(100));
        assert!(long.len() <= 120 && !long.contains(' '), "{long}");
    }
}
