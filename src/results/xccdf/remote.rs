//! Rules of a benchmark whose checks are on the internet.
//!
//! A SCAP data stream (NIST SP 800-126, 3.1) may name a component by an address instead of having it: the SCAP Security Guide
//! does so for the lists of security updates that vendors publish. Without the internet, `oscap` passes over such a check
//! with a warning. Which rules that concerns is known from the stream alone: a rule's check names a file, the catalog of the
//! stream leads from the file to a component reference, and that has the address.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;

use super::benchmark::BenchmarkError;
use super::xml::{Node, Xml, XmlError};
use crate::base::limits::Limits;

/// A rule that needs what is on the internet.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RemoteCheck {
    /// The rule's id.
    pub rule: String,
    /// The address of what it needs.
    pub address: String,
}

/// What checks a scanner evaluates by itself; questions for people (OCIL) are none.
const OVAL: &str = "oval.mitre.org";

/// The rules, in the order of their ids, that need something from the internet. Of a benchmark or a SCAP 1.2 or 1.3 data
/// stream collection.
///
/// # Errors
/// When the input can't be read or is no such XML.
pub fn remote_checks(reader: impl Read, limits: &Limits) -> Result<Vec<RemoteCheck>, BenchmarkError> {
    let mut xml = Xml::new(reader, limits.result_bytes);
    let mut found = Found::default();
    found.read(&mut xml)?;
    let mut remote = BTreeSet::new();
    for (rule, file) in &found.checks {
        let addresses = found.files.get(file).into_iter().flatten().filter_map(|component| found.remote.get(component));
        let own = is_remote(file).then_some(file);
        remote.extend(addresses.chain(own).map(|a| RemoteCheck { rule: rule.clone(), address: a.clone() }));
    }
    Ok(remote.into_iter().collect())
}

#[derive(Default)]
struct Found {
    /// Component references by id that are addresses.
    remote: BTreeMap<String, String>,
    /// What the catalogs say: file names and the ids of the component references that they stand for.
    files: BTreeMap<String, BTreeSet<String>>,
    /// Rules, and the files that their checks name.
    checks: BTreeSet<(String, String)>,
}

impl Found {
    fn read<R: Read>(&mut self, xml: &mut Xml<R>) -> Result<(), XmlError> {
        // The open elements: the rule where one is, and whether a check of OVAL.
        let mut open: Vec<(Option<String>, bool)> = Vec::new();
        loop {
            match xml.next()? {
                Node::Open(tag) => {
                    let (mut rule, mut oval) = open.last().cloned().unwrap_or_default();
                    match tag.name() {
                        "component-ref" => {
                            let address = tag.attribute_of_any_space("href")?.filter(|href| is_remote(href));
                            if let (Some(id), Some(address)) = (tag.attribute("id")?, address) {
                                self.remote.insert(id, address);
                            }
                        }
                        "uri" => {
                            if let (Some(name), Some(uri)) = (tag.attribute("name")?, tag.attribute("uri")?) {
                                let component = match uri.strip_prefix('#') {
                                    Some(id) => id.to_owned(),
                                    None => {
                                        // A catalog may name the address itself.
                                        if is_remote(&uri) {
                                            self.remote.insert(uri.clone(), uri.clone());
                                        }
                                        uri
                                    }
                                };
                                self.files.entry(name).or_default().insert(component);
                            }
                        }
                        "Rule" if tag.is("Rule") => rule = Some(tag.required("id")?),
                        "check" if tag.is("check") => {
                            oval = tag.attribute("system")?.is_some_and(|system| system.contains(OVAL));
                        }
                        "check-content-ref" if oval && tag.is("check-content-ref") => {
                            if let (Some(rule), Some(file)) = (&rule, tag.attribute("href")?) {
                                self.checks.insert((rule.clone(), file));
                            }
                        }
                        _ => {}
                    }
                    open.push((rule, oval));
                }
                Node::Text => {}
                Node::Close => {
                    open.pop();
                }
                Node::End => return Ok(()),
            }
        }
    }
}

fn is_remote(href: &str) -> bool {
    let scheme = href.split_once("://").map(|(scheme, _)| scheme.to_ascii_lowercase());
    scheme.is_some_and(|scheme| matches!(scheme.as_str(), "http" | "https" | "ftp"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(href: &str, check: &str) -> String {
        format!(
            "<ds:data-stream-collection xmlns:ds='http://scap.nist.gov/schema/scap/source/1.2' \
             xmlns:x='http://www.w3.org/1999/xlink' xmlns:c='urn:oasis:names:tc:entity:xmlns:xml:catalog'>\
             <ds:data-stream id='d'><ds:checklists><ds:component-ref id='b' x:href='#bench'><c:catalog>\
             <c:uri name='own.xml' uri='#own'/><c:uri name='updates.xml' uri='#updates'/></c:catalog></ds:component-ref>\
             </ds:checklists><ds:checks><ds:component-ref id='own' x:href='#comp'/>\
             <ds:component-ref id='updates' x:href='{href}'/></ds:checks></ds:data-stream>\
             <ds:component id='bench'><Benchmark xmlns='http://checklists.nist.gov/xccdf/1.2' id='b'><Group id='g'>\
             <Rule id='local'><check system='http://oval.mitre.org/XMLSchema/oval-definitions-5'>\
             <check-content-ref href='own.xml' name='o:1'/></check></Rule>\
             <Rule id='asked'><check system='http://scap.nist.gov/schema/ocil/2'>\
             <check-content-ref href='updates.xml'/></check></Rule>\
             <Rule id='updated'>{check}</Rule></Group></Benchmark></ds:component></ds:data-stream-collection>"
        )
    }

    const CHECK: &str = "<check system='http://oval.mitre.org/XMLSchema/oval-definitions-5'>\
                         <check-content-ref href='updates.xml'/></check>";

    fn rules(xml: &str) -> Vec<String> {
        let found = remote_checks(xml.as_bytes(), &Limits::default()).expect("a stream");
        found.into_iter().map(|check| format!("{} {}", check.rule, check.address)).collect()
    }

    #[test]
    fn rules_that_need_the_internet_are_found() {
        let address = "https://vendor.example/updates.xml";
        assert_eq!(rules(&stream(address, CHECK)), [format!("updated {address}")]);
        assert_eq!(rules(&stream("HTTP://vendor.example/x", CHECK)), ["updated HTTP://vendor.example/x"]);
        assert_eq!(rules(&stream("#comp", CHECK)), [""; 0]);
        let both = format!("<complex-check operator='OR'>{CHECK}{}</complex-check>", CHECK.replace("updates", "own"));
        assert_eq!(rules(&stream(address, &both)), [format!("updated {address}")]);
        let direct = CHECK.replace("updates.xml", "https://vendor.example/direct.xml");
        assert_eq!(rules(&stream("#comp", &direct)), ["updated https://vendor.example/direct.xml"]);
        assert!(remote_checks(&stream(address, CHECK).as_bytes()[..900], &Limits::default()).is_err());
    }
}
