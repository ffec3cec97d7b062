//! XCCDF 1.2 benchmarks: which rules a profile selects, so that what is expected is known before anything runs.
//!
//! Selection (NIST IR 7275 revision 4, section 7.2.3): an item is selected unless its `selected` says otherwise; a profile's
//! `select` of the item's id, or of its `cluster-id`, says it anew, the last one counts, and those of the profile that it
//! extends come first. A rule is evaluated when it and all groups around it are selected. Abstract rules never are.
//! `requires` and `conflicts` are not applied: a rule that a scanner leaves out because of them shows as
//! [`crate::model::reason::Reason::ControlMissing`], never as passed.
//!
//! A tailoring file (section 6.7) has profiles of its own, which count before those of the benchmark, and extend one of
//! the benchmark, also one of the same id. What it selects or refines must be in the benchmark: a name that is not would
//! change nothing, silently.
//!
//! The attacks on the reader are those of `xml`; a profile that extends itself is refused.

mod document;

use std::collections::{HashMap, HashSet};
use std::io::Read;

pub(super) use self::document::reference;
use self::document::{Benchmark, Item, Profile, benchmarks, tailoring};

use super::xml::{Xml, XmlError, XmlErrorKind};
use crate::base::exit::{Classify, ExitClass};
use crate::base::limits::Limits;
use crate::base::text::brief;
use crate::model::control::{Control, Severity};

/// Why the controls of a profile can't be listed.
#[derive(Debug, thiserror::Error)]
pub enum BenchmarkError {
    /// It can't be read.
    #[error("read the benchmark, at byte {offset}")]
    Read {
        /// How far it came.
        offset: u64,
        /// Why.
        source: std::io::Error,
    },
    /// It is larger than the limit.
    #[error("read the benchmark: it is larger than {limit} bytes")]
    TooLarge {
        /// The bound in bytes.
        limit: u64,
    },
    /// It is no whole XML.
    #[error("read the benchmark: {detail} at byte {offset}")]
    Malformed {
        /// About where.
        offset: u64,
        /// What is wrong.
        detail: String,
    },
    /// There is no such profile in it.
    #[error("find profile `{}`: {}", brief(.profile), known_profiles(.known))]
    NoProfile {
        /// What was asked for.
        profile: String,
        /// What there is.
        known: Vec<String>,
    },
    /// Several benchmarks of the data stream have a profile of this name.
    #[error("find profile `{}`: {count} benchmarks in the file have it", brief(.profile))]
    Ambiguous {
        /// What was asked for.
        profile: String,
        /// How many.
        count: usize,
    },
    /// The profile selects no rule.
    #[error("list the rules of profile `{}`: it selects none", brief(.profile))]
    Empty {
        /// The profile.
        profile: String,
    },
    /// The tailoring can't be read.
    #[error("read the tailoring: {detail} at byte {offset}")]
    Tailoring {
        /// About where.
        offset: u64,
        /// What is wrong.
        detail: String,
    },
    /// Something in it contradicts itself.
    #[error("list the rules of profile `{}`: {detail}", brief(.profile))]
    Contradiction {
        /// The profile.
        profile: String,
        /// What.
        detail: String,
    },
}

impl Classify for BenchmarkError {
    fn class(&self) -> ExitClass {
        match self {
            Self::Read { .. } => ExitClass::Unreachable,
            Self::TooLarge { .. }
            | Self::Malformed { .. }
            | Self::NoProfile { .. }
            | Self::Ambiguous { .. }
            | Self::Empty { .. }
            | Self::Tailoring { .. }
            | Self::Contradiction { .. } => ExitClass::Usage,
        }
    }
}

fn known_profiles(known: &[String]) -> String {
    if known.is_empty() {
        return "the file has no profile".to_owned();
    }
    let listed: Vec<String> = known.iter().take(20).map(|id| brief(id)).collect();
    format!("the file has {}", listed.join(", "))
}

impl From<XmlError> for BenchmarkError {
    fn from(error: XmlError) -> Self {
        let offset = error.offset;
        match error.kind {
            XmlErrorKind::Truncated => Self::Malformed { offset, detail: "it ends early".to_owned() },
            XmlErrorKind::TooLarge(limit) => Self::TooLarge { limit },
            XmlErrorKind::Malformed(detail) => Self::Malformed { offset, detail },
            XmlErrorKind::Io(source) => Self::Read { offset, source },
        }
    }
}

/// The rules that the profile `profile_id` selects in a benchmark, or in the one benchmark of a SCAP 1.2 or 1.3 data stream
/// collection that has it, in the benchmark's order. Their ids are those of the `rule-result`s of a scan.
///
/// # Errors
/// When the input can't be read, is no such XML, has no such profile or several, or the profile selects nothing, or two rules of
/// one id.
pub fn selected_controls(reader: impl Read, profile_id: &str, limits: &Limits) -> Result<Vec<Control>, BenchmarkError> {
    listed(reader, &HashMap::new(), profile_id, limits)
}

/// The same with the profiles of a tailoring file, which count before those of the benchmark.
///
/// # Errors
/// Also when the tailoring can't be read, or names what the benchmark does not have.
pub fn tailored_controls(
    reader: impl Read,
    tailoring: impl Read,
    profile_id: &str,
    limits: &Limits,
) -> Result<Vec<Control>, BenchmarkError> {
    let tailored = self::tailoring(tailoring, limits).map_err(|error| match BenchmarkError::from(error) {
        BenchmarkError::Malformed { offset, detail } => BenchmarkError::Tailoring { offset, detail },
        other => other,
    })?;
    listed(reader, &tailored, profile_id, limits)
}

fn listed(
    reader: impl Read,
    tailored: &HashMap<String, Profile>,
    profile_id: &str,
    limits: &Limits,
) -> Result<Vec<Control>, BenchmarkError> {
    let mut xml = Xml::new(reader, limits.result_bytes);
    let benchmarks = benchmarks(&mut xml)?;
    let profile = profile_id.to_owned();
    let own = tailored.get(profile_id);
    // The profile of the benchmark that it starts from: its own, or that which the tailoring extends.
    let base = own.map_or(Some(profile_id), |own| own.extends.as_deref());
    if let Some(other) = base.filter(|base| *base != profile_id && tailored.contains_key(*base)) {
        // Versions of OpenSCAP differ in which one they take.
        let detail = format!("it extends `{}`, which is a profile of the tailoring too", brief(other));
        return Err(BenchmarkError::Contradiction { profile, detail });
    }
    let has = |b: &&Benchmark| base.is_none_or(|base| b.profiles.contains_key(base));
    let mut having: Vec<&Benchmark> = benchmarks.iter().filter(has).collect();
    let benchmark = match (having.len(), base) {
        (0, _) => {
            let mut known: Vec<String> = benchmarks.iter().flat_map(|b| b.profiles.keys().cloned()).collect();
            known.extend(tailored.keys().cloned());
            known.sort();
            return Err(BenchmarkError::NoProfile { profile: base.unwrap_or(profile_id).to_owned(), known });
        }
        (1, _) => having.remove(0),
        (count, _) => return Err(BenchmarkError::Ambiguous { profile, count }),
    };
    let mut chain = base.map_or(Ok(Vec::new()), |base| benchmark.chain(base))?;
    if let Some(own) = own {
        benchmark.check_named(profile_id, own)?;
        chain.push(own);
    }
    // What is said last of an id or a cluster id, and its place among all that is said.
    let mut said: HashMap<&str, (usize, bool)> = HashMap::new();
    for (place, (id, selected)) in chain.iter().flat_map(|profile| &profile.selects).enumerate() {
        said.insert(id, (place, *selected));
    }
    let severities: HashMap<&str, Severity> =
        chain.iter().flat_map(|profile| &profile.severities).map(|(id, severity)| (&**id, *severity)).collect();
    let says = |item: &Item| {
        let of_cluster = item.cluster.as_deref().and_then(|cluster| said.get(cluster));
        said.get(&*item.id).max(of_cluster).map_or(item.selected, |(_, selected)| *selected)
    };
    let groups: Vec<bool> = benchmark.groups.iter().map(says).collect();
    let mut controls = Vec::new();
    let mut seen = HashSet::new();
    for rule in &benchmark.rules {
        let mut around = rule.item.parent;
        let mut selected = says(&rule.item) && !rule.is_abstract;
        while let Some(group) = around {
            selected &= groups[group];
            around = benchmark.groups[group].parent;
        }
        if !selected {
            continue;
        }
        let mut control = rule.control.clone();
        let contradiction = |detail| BenchmarkError::Contradiction { profile: profile.clone(), detail };
        if control.id.len() > 256 || control.id.is_empty() || !control.id.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(contradiction(format!("the rule id `{}` can't be the name of a control", brief(&control.id))));
        }
        if !seen.insert(control.id.clone()) {
            return Err(contradiction(format!("rule `{}` is in it twice", brief(&control.id))));
        }
        if let Some(severity) = severities.get(&*control.id) {
            control.severity = *severity;
        }
        controls.push(control);
    }
    if controls.is_empty() { Err(BenchmarkError::Empty { profile }) } else { Ok(controls) }
}

impl Benchmark {
    /// Refuses a tailoring of what is not there.
    fn check_named(&self, id: &str, profile: &Profile) -> Result<(), BenchmarkError> {
        let items = || self.groups.iter().chain(self.rules.iter().map(|rule| &rule.item));
        let selectable: HashSet<&str> =
            items().flat_map(|item| [Some(item.id.as_str()), item.cluster.as_deref()]).flatten().collect();
        let rules: HashSet<&str> =
            self.rules.iter().flat_map(|r| [Some(&*r.item.id), r.item.cluster.as_deref()]).flatten().collect();
        let selects = profile.selects.iter().map(|(id, _)| id).find(|id| !selectable.contains(id.as_str()));
        let refines = profile.refined.iter().find(|id| !rules.contains(id.as_str()));
        let values = profile.valued.iter().find(|id| !self.values.contains(*id));
        let missing = [("selects", selects), ("refines", refines), ("sets", values)];
        match missing.into_iter().find_map(|(what, id)| id.map(|id| (what, id))) {
            None => Ok(()),
            Some((what, missing)) => Err(BenchmarkError::Contradiction {
                profile: id.to_owned(),
                detail: format!("the tailoring {what} `{}`, which the benchmark does not have", brief(missing)),
            }),
        }
    }

    /// The profile and those that it extends, the outermost first.
    fn chain(&self, id: &str) -> Result<Vec<&Profile>, BenchmarkError> {
        let mut chain: Vec<&Profile> = Vec::new();
        let mut next = Some(id);
        while let Some(current) = next {
            let contradiction = |detail| BenchmarkError::Contradiction { profile: id.to_owned(), detail };
            let profile = self
                .profiles
                .get(current)
                .ok_or_else(|| contradiction(format!("it extends `{}`, which is not there", brief(current))))?;
            if chain.len() > self.profiles.len() {
                return Err(contradiction("it extends itself".to_owned()));
            }
            chain.insert(0, profile);
            next = profile.extends.as_deref();
        }
        Ok(chain)
    }
}

#[cfg(test)]
mod tests;
