//! From the bytes of a result to what it says: of the controls that were expected, or of everything.

use std::io::{self, BufReader, Read as _};

use jiff::Timestamp;

use super::by_severity::BySeverity;
use super::collect::Collector;
use super::event::{Out, Sink};
use super::inventory::Inventory;
use super::summary::{Summariser, Summary};
use super::{
    ResultsError, clair, cyclonedx, falco, grype, inspec, junit, kube_bench, merge, sarif, spdx, syft, trivy, xccdf,
};
use crate::base::digest::Digest;
use crate::base::limits::Limits;
use crate::base::spool::Content;
use crate::model::finding::Finding;
use crate::model::profile::Profile;
use crate::model::scanner::{ControlsOf, Reading, ResultFormat};
use crate::model::tally::Tally;

/// What a result file says of what was expected.
#[derive(Clone, Debug, PartialEq)]
pub struct Parsed {
    /// Exactly one finding for each control of the profile, in its order.
    pub findings: Vec<Finding>,
    /// What belongs in the record and is no verdict on an expected control.
    pub notes: Vec<String>,
    /// The scanner's version, as it says itself.
    pub scanner_version: Option<String>,
    /// When the database that the verdicts depend on was built, as the scanner says. Whether that is too long ago is not
    /// decided here.
    pub database_built: Option<Timestamp>,
    /// How all controls ended that the result names, whether they were expected or not.
    pub reported: Tally,
}

/// Reads a result file and reduces it to one finding for each control of `profile`. It is read as a stream: what takes memory
/// is what it says of controls, and not what else is in it.
///
/// # Errors
/// When the bytes are no whole result in this format; [`ResultsError::reason`] says as what all controls then count.
pub fn parse<C: Content + ?Sized>(
    how: impl Into<Reading>,
    content: &C,
    profile: &Profile,
    limits: &Limits,
) -> Result<Parsed, ResultsError> {
    let Reading { format, controls, unmentioned } = how.into();
    let mut collector = Collector::new(limits.finding_details);
    match controls {
        ControlsOf::Scanner => read(format, content, &mut collector, limits)?,
        ControlsOf::Severity => read(format, content, &mut BySeverity(&mut collector), limits)?,
        ControlsOf::Inventory => {
            let mut inventory = Inventory::new(&mut collector);
            read(format, content, &mut inventory, limits)?;
            inventory.finish();
        }
    }
    Ok(merge::reduce(collector, profile, unmentioned))
}

/// Reads a result file and says all that is in it, with the first `listed` findings and components. `digest` is that of its
/// bytes.
///
/// # Errors
/// When the bytes are no whole result in this format.
pub fn summarise<C: Content + ?Sized>(
    format: ResultFormat,
    content: &C,
    digest: Digest,
    listed: usize,
    limits: &Limits,
) -> Result<Summary, ResultsError> {
    let mut summariser = Summariser::new(listed);
    read(format, content, &mut summariser, limits)?;
    Ok(summariser.finish(format, digest, content.length()))
}

/// Reads a whole result in this format, and hands out what it says.
pub(super) fn read<C: Content + ?Sized>(
    format: ResultFormat,
    content: &C,
    sink: &mut dyn Sink,
    limits: &Limits,
) -> Result<(), ResultsError> {
    if content.length() > limits.result_bytes {
        return Err(ResultsError::TooLarge { limit: limits.result_bytes });
    }
    if is_blank(content).map_err(ResultsError::Io)? {
        return Err(ResultsError::Empty);
    }
    let mut out = Out::new(sink, limits);
    match format {
        ResultFormat::Arf => xccdf::arf::read(content.reader(), &mut out, limits),
        ResultFormat::Inspec => inspec::read(content.reader(), &mut out, limits),
        ResultFormat::KubeBench => kube_bench::read(content.reader(), &mut out, limits),
        ResultFormat::Sarif => sarif::read(content, &mut out, limits),
        ResultFormat::Trivy => trivy::read(content, &mut out, limits),
        ResultFormat::CycloneDx => cyclonedx::read(content, &mut out, limits),
        ResultFormat::Junit => junit::read(content.reader(), &mut out, limits),
        ResultFormat::Syft => syft::read(content.reader(), &mut out, limits),
        ResultFormat::Spdx => spdx::read(content.reader(), &mut out, limits),
        ResultFormat::Falco => falco::read(content.reader(), &mut out, limits),
        ResultFormat::Clair => clair::read(content, &mut out, limits),
        ResultFormat::Grype => grype::read(content.reader(), &mut out, limits),
    }
}

/// Whether there is nothing in it but white space.
pub(super) fn is_blank<C: Content + ?Sized>(content: &C) -> io::Result<bool> {
    for byte in BufReader::new(content.reader()).bytes() {
        if !byte?.is_ascii_whitespace() {
            return Ok(false);
        }
    }
    Ok(true)
}
