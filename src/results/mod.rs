//! Parsers of scanner results, and their reduction to what was expected.
//!
//! A result comes from a scanner that ran on somebody else's files. What it may do, and where each is stopped:
//!
//! | attack or accident | stopped in |
//! |---|---|
//! | no output, an empty file | [`parse`]: [`ResultsError::Empty`] |
//! | gigabytes of output, millions of findings | [`parse`] and the parsers: [`Limits::result_bytes`], [`Limits::result_items`] |
//! | output that was cut | the parsers: a document that ends early is no document |
//! | valid JSON or XML of another tool | the parsers look for what only theirs has |
//! | invalid UTF-8 | the parsers: refused |
//! | XML: DTD, entities, nesting, huge tags | `xccdf::xml`: refused before anything is made of them |
//! | JSON: nesting, keys that are there twice | serde_json stops at 128 levels; a struct field may be there once |
//! | a control that is missing, there twice, or not expected | [`merge`] |
//! | a status word that is not known | the parsers: not evaluated |
//! | nothing was applicable, no package was seen, and all is green | [`merge`], [`grype`]: not evaluated |
//! | escapes, HTML, formulas in names | kept as they are, neutralised by whoever shows them |

mod error;
pub mod grype;
pub mod merge;
pub mod xccdf;

use std::io::{self, BufReader, Read as _};

use jiff::Timestamp;

use crate::base::limits::Limits;
use crate::base::spool::Content;
use crate::model::finding::Finding;
use crate::model::profile::Profile;
use crate::model::scanner::ResultFormat;

pub use error::ResultsError;

/// What a result file says.
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
}

/// What a parser found, before it is held against what was expected.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Reported {
    /// Any number of findings for any control.
    pub(crate) findings: Vec<Finding>,
    pub(crate) notes: Vec<String>,
    pub(crate) scanner_version: Option<String>,
    pub(crate) database_built: Option<Timestamp>,
}

/// Reads a result file and reduces it to one finding for each control of `profile`. It is read as a stream: what takes memory
/// is what it says of controls, and not what else is in it.
///
/// # Errors
/// When the bytes are no whole result in this format; [`ResultsError::reason`] says as what all controls then count.
pub fn parse<C: Content + ?Sized>(
    format: ResultFormat,
    content: &C,
    profile: &Profile,
    limits: &Limits,
) -> Result<Parsed, ResultsError> {
    if content.length() > limits.result_bytes {
        return Err(ResultsError::TooLarge { limit: limits.result_bytes });
    }
    if is_blank(content).map_err(ResultsError::Io)? {
        return Err(ResultsError::Empty);
    }
    let reported = match format {
        ResultFormat::Arf => xccdf::arf::read(content.reader(), limits)?,
        ResultFormat::Grype => grype::read(content, limits)?,
    };
    Ok(merge::reduce(reported, profile, limits))
}

/// Whether there is nothing in it but white space.
fn is_blank<C: Content + ?Sized>(content: &C) -> io::Result<bool> {
    for byte in BufReader::new(content.reader()).bytes() {
        if !byte?.is_ascii_whitespace() {
            return Ok(false);
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests;
