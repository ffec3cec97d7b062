//! What a benchmark or a tailoring file says, read from its XML.

use std::collections::{HashMap, HashSet};
use std::io::Read;

use crate::base::limits::Limits;
use crate::base::text::brief;
use crate::model::control::{Control, Reference, Severity};
use crate::results::xccdf::xml::{Node, Tag, Xml, XmlError};

/// A benchmark, as far as it says which rules there are.
#[derive(Default)]
pub(super) struct Benchmark {
    pub(super) disa: bool,
    pub(super) profiles: HashMap<String, Profile>,
    /// `selected` of each group, and the one around it.
    pub(super) groups: Vec<Item>,
    pub(super) rules: Vec<Rule>,
    /// The ids of its values.
    pub(super) values: HashSet<String>,
}

/// What a profile selects and refines.
#[derive(Default)]
pub(super) struct Profile {
    pub(super) extends: Option<String>,
    /// Ids or cluster ids with what the profile says of them, in its order.
    pub(super) selects: Vec<(String, bool)>,
    pub(super) severities: Vec<(String, Severity)>,
    /// Rules that it refines, and values that it sets or refines.
    pub(super) refined: Vec<String>,
    pub(super) valued: Vec<String>,
}

/// What groups and rules have in common.
pub(super) struct Item {
    pub(super) id: String,
    pub(super) cluster: Option<String>,
    pub(super) selected: bool,
    /// The index of the group around it.
    pub(super) parent: Option<usize>,
}

/// A rule, as the control that it is.
pub(super) struct Rule {
    pub(super) item: Item,
    pub(super) is_abstract: bool,
    pub(super) control: Control,
}

/// The profiles of a tailoring file.
pub(super) fn tailoring(reader: impl Read, limits: &Limits) -> Result<HashMap<String, Profile>, XmlError> {
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

/// The benchmarks of a file.
pub(super) fn benchmarks<R: Read>(xml: &mut Xml<R>) -> Result<Vec<Benchmark>, XmlError> {
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
pub(in crate::results::xccdf) fn reference(address: &str, text: String) -> Option<Reference> {
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
