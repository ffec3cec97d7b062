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

use std::collections::{HashMap, HashSet};
use std::io::Read;

use super::xml::{Node, Tag, Xml, XmlError, XmlErrorKind};
use crate::base::exit::{Classify, ExitClass};
use crate::base::limits::Limits;
use crate::base::text::brief;
use crate::model::control::{Control, Reference, Severity};

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

#[derive(Default)]
struct Benchmark {
    disa: bool,
    profiles: HashMap<String, Profile>,
    /// `selected` of each group, and the one around it.
    groups: Vec<Item>,
    rules: Vec<Rule>,
    /// The ids of its values.
    values: HashSet<String>,
}

#[derive(Default)]
struct Profile {
    extends: Option<String>,
    /// Ids or cluster ids with what the profile says of them, in its order.
    selects: Vec<(String, bool)>,
    severities: Vec<(String, Severity)>,
    /// Rules that it refines, and values that it sets or refines.
    refined: Vec<String>,
    valued: Vec<String>,
}

struct Item {
    id: String,
    cluster: Option<String>,
    selected: bool,
    /// The index of the group around it.
    parent: Option<usize>,
}

struct Rule {
    item: Item,
    is_abstract: bool,
    control: Control,
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

/// The profiles of a tailoring file.
fn tailoring(reader: impl Read, limits: &Limits) -> Result<HashMap<String, Profile>, XmlError> {
    let mut xml = Xml::new(reader, limits.result_bytes);
    let mut profiles = HashMap::new();
    let mut is_one = false;
    loop {
        match xml.next()? {
            Node::Open(tag) if tag.is("Tailoring") && !is_one => is_one = true,
            Node::Open(tag) if tag.is("Profile") && is_one => {
                let id = tag.required("id")?;
                let profile = profile(&mut xml, &tag)?;
                if profiles.insert(id.clone(), profile).is_some() {
                    return Err(xml.refuse(format!("profile `{}` is there twice", brief(&id))));
                }
            }
            Node::Open(_) if is_one => xml.skip()?,
            Node::Open(_) => return Err(xml.refuse("it is no XCCDF 1.2 Tailoring".to_owned())),
            Node::Text | Node::Close => {}
            Node::End if profiles.is_empty() => return Err(xml.refuse("it has no profile".to_owned())),
            Node::End => return Ok(profiles),
        }
    }
}

fn benchmarks<R: Read>(xml: &mut Xml<R>) -> Result<Vec<Benchmark>, XmlError> {
    let mut benchmarks = Vec::new();
    loop {
        match xml.next()? {
            Node::Open(tag) if tag.is("Benchmark") => benchmarks.push(benchmark(xml, &tag)?),
            // A data stream collection has its benchmarks in components.
            Node::Open(tag) if matches!(tag.name(), "data-stream-collection" | "component") => {}
            Node::Open(_) => xml.skip()?,
            Node::Text | Node::Close => {}
            Node::End => return Ok(benchmarks),
        }
    }
}

fn benchmark<R: Read>(xml: &mut Xml<R>, tag: &Tag) -> Result<Benchmark, XmlError> {
    let disa = tag.attribute("id")?.is_some_and(|id| id.contains("mil.disa.stig"));
    let mut benchmark = Benchmark { disa, ..Benchmark::default() };
    // The group that is open, innermost last.
    let mut around: Vec<usize> = Vec::new();
    loop {
        match xml.next()? {
            Node::Open(tag) if tag.is("Profile") && around.is_empty() => {
                let id = tag.required("id")?;
                let profile = profile(xml, &tag)?;
                if benchmark.profiles.insert(id.clone(), profile).is_some() {
                    return Err(xml.refuse(format!("profile `{}` is there twice", brief(&id))));
                }
            }
            Node::Open(tag) if tag.is("Group") => {
                let item = item(&tag, around.last().copied())?;
                around.push(benchmark.groups.len());
                benchmark.groups.push(item);
            }
            Node::Open(tag) if tag.is("Value") => {
                benchmark.values.extend(tag.attribute("id")?);
                xml.skip()?;
            }
            Node::Open(tag) if tag.is("Rule") => {
                let rule = rule(xml, &tag, around.last().copied(), benchmark.disa)?;
                benchmark.rules.push(rule);
            }
            Node::Open(_) => xml.skip()?,
            Node::Text => {}
            // Everything but groups was read to its end: this closes the innermost one, or the benchmark.
            Node::Close | Node::End => {
                if around.pop().is_none() {
                    return Ok(benchmark);
                }
            }
        }
    }
}

fn item(tag: &Tag, parent: Option<usize>) -> Result<Item, XmlError> {
    Ok(Item {
        id: tag.required("id")?,
        cluster: tag.attribute("cluster-id")?,
        selected: tag.attribute("selected")?.as_deref().is_none_or(is_true),
        parent,
    })
}

/// An `xs:boolean`.
fn is_true(text: &str) -> bool {
    matches!(text.trim(), "true" | "1")
}

/// The severity of XCCDF's word. What is not rated counts as medium, so that it neither hides nor alarms.
fn severity(word: Option<&str>) -> Severity {
    match word {
        Some("high") => Severity::High,
        Some("low") => Severity::Low,
        Some("info") => Severity::None,
        _ => Severity::Medium,
    }
}

fn profile<R: Read>(xml: &mut Xml<R>, tag: &Tag) -> Result<Profile, XmlError> {
    let mut profile = Profile { extends: tag.attribute("extends")?, ..Profile::default() };
    loop {
        match xml.next()? {
            Node::Open(tag) if tag.is("select") => {
                let selected = is_true(&tag.required("selected")?);
                profile.selects.push((tag.required("idref")?, selected));
                xml.skip()?;
            }
            Node::Open(tag) if tag.is("set-value") || tag.is("refine-value") => {
                profile.valued.push(tag.required("idref")?);
                xml.skip()?;
            }
            Node::Open(tag) if tag.is("refine-rule") => {
                profile.refined.push(tag.required("idref")?);
                if let Some(word) = tag.attribute("severity")? {
                    profile.severities.push((tag.required("idref")?, severity(Some(&word))));
                }
                xml.skip()?;
            }
            Node::Open(_) => xml.skip()?,
            Node::Text => {}
            Node::Close | Node::End => return Ok(profile),
        }
    }
}

fn rule<R: Read>(xml: &mut Xml<R>, tag: &Tag, parent: Option<usize>, disa: bool) -> Result<Rule, XmlError> {
    let item = item(tag, parent)?;
    let is_abstract = tag.attribute("abstract")?.as_deref().is_some_and(is_true);
    let severity = severity(tag.attribute("severity")?.as_deref());
    let (mut title, mut description, mut rationale) = (String::new(), String::new(), String::new());
    let (mut fixtext, mut script, mut other_fix) = (String::new(), String::new(), String::new());
    let (mut references, mut checks) = (Vec::new(), Vec::new());
    loop {
        match xml.next()? {
            Node::Open(tag) if tag.is("title") && title.is_empty() => title = xml.line()?,
            Node::Open(tag) if tag.is("description") => description = paragraph(&xml.text()?),
            Node::Open(tag) if tag.is("rationale") => rationale = paragraph(&xml.text()?),
            Node::Open(tag) if tag.is("version") => {
                let version = xml.line()?;
                if disa && !version.is_empty() {
                    references.push(Reference { scheme: "stig".to_owned(), id: version });
                }
            }
            Node::Open(tag) if tag.is("reference") => {
                let href = tag.attribute("href")?.unwrap_or_default();
                references.extend(reference(&href, xml.line()?));
            }
            Node::Open(tag) if tag.is("ident") => {
                let system = tag.attribute("system")?.unwrap_or_default();
                references.extend(reference(&system, xml.line()?));
            }
            Node::Open(tag) if tag.is("fixtext") && fixtext.is_empty() => fixtext = paragraph(&xml.text()?),
            Node::Open(tag) if tag.is("fix") => {
                let shell = tag.attribute("system")?.as_deref() == Some("urn:xccdf:fix:script:sh");
                let text = paragraph(&xml.text()?);
                let kept = if shell { &mut script } else { &mut other_fix };
                if kept.is_empty() {
                    *kept = text;
                }
            }
            Node::Open(tag) if tag.is("check") || tag.is("complex-check") => check(xml, &mut checks)?,
            Node::Open(_) => xml.skip()?,
            Node::Text => {}
            Node::Close | Node::End => break,
        }
    }
    if !rationale.is_empty() {
        description = format!("{description}\n\n{rationale}").trim().to_owned();
    }
    let mut seen = HashSet::new();
    references.retain(|reference| seen.insert(reference.clone()));
    let fix = [fixtext, script, other_fix].into_iter().find(|text| !text.is_empty()).unwrap_or_default();
    let title = if title.is_empty() { item.id.clone() } else { title };
    let control =
        Control { id: item.id.clone(), title, description, check: checks.join("\n"), fix, severity, references };
    Ok(Rule { item, is_abstract, control })
}

/// The names of what a check refers to, one a line.
fn check<R: Read>(xml: &mut Xml<R>, checks: &mut Vec<String>) -> Result<(), XmlError> {
    let mut depth = 1;
    while depth > 0 {
        match xml.next()? {
            Node::Open(tag) => {
                depth += 1;
                if tag.is("check-content-ref") {
                    let href = tag.attribute("href")?.unwrap_or_default();
                    checks.push(match tag.attribute("name")? {
                        Some(name) => format!("{name} in {href}"),
                        None => format!("all of {href}"),
                    });
                }
            }
            Node::Text => {}
            Node::Close | Node::End => depth -= 1,
        }
    }
    Ok(())
}

/// Text without what only the markup needed: spaces at the ends of lines, and more than one empty line.
fn paragraph(text: &str) -> String {
    let mut lines: Vec<&str> = Vec::new();
    for line in text.lines().map(str::trim_end) {
        if !(line.is_empty() && lines.last().is_none_or(|last| last.is_empty())) {
            lines.push(line);
        }
    }
    lines.join("\n").trim().to_owned()
}

/// What a reference or an identifier is called here, by the address of the document or system that it points into.
pub(super) fn reference(address: &str, text: String) -> Option<Reference> {
    const SCHEMES: [(&str, &str); 20] = [
        ("NIST.SP.800-53", "nist"),
        ("NIST.SP.800-171", "nist-800-171"),
        ("NIST.CSWP", "nist-csf"),
        ("/cci", "cci"),
        ("cce", "cce"),
        ("cve", "cve"),
        ("cisecurity.org/benchmark", "cis"),
        ("cisecurity.org/controls", "cis-controls"),
        ("cyber.mil/legacy", "stig"),
        ("cyber.mil/stigs", "stig"),
        ("cyber.gouv.fr", "anssi"),
        ("pcisecuritystandards.org", "pci-dss"),
        ("iso.org", "iso"),
        ("isa.org", "isa-62443"),
        ("isaca.org", "cobit"),
        ("nerc.com", "nerc-cip"),
        ("CFR-2007-title45", "hipaa"),
        ("fbi.gov", "cjis"),
        ("bsi.bund.de", "bsi"),
        ("cyber.gov.au", "ism"),
    ];
    let reference = |scheme: &str, id: String| Some(Reference { scheme: scheme.to_owned(), id });
    match (text.is_empty(), address.is_empty()) {
        // Who published it, as DISA writes it; no identifier of anything.
        (_, true) => None,
        (true, false) => reference("url", address.to_owned()),
        (false, _) if text.starts_with("SRG-") => reference("srg", text),
        (false, _) => match SCHEMES.iter().find(|(part, _)| address.contains(part)) {
            Some((_, scheme)) => reference(scheme, text),
            None => {
                let host = address.split("//").nth(1).and_then(|rest| rest.split('/').next()).unwrap_or("other");
                reference(host, text)
            }
        },
    }
}

#[cfg(test)]
mod tests;
