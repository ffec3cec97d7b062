//! XCCDF 1.2 (NIST IR 7275 revision 4): benchmarks, and results alone or in the Asset Reporting Format (NIST IR 7694).

pub mod arf;
pub mod benchmark;
pub mod remote;

use super::xml;

/// The name of the outermost tag of what may be cut after it.
pub(super) fn root_of(text: &[u8]) -> Option<String> {
    let mut xml = xml::Xml::new(text, u64::MAX);
    match xml.next() {
        Ok(xml::Node::Open(tag)) => Some(tag.name().to_owned()),
        _ => None,
    }
}
