//! Which controls a scanner's content holds, so that a scan that silently evaluated half of them is noticed.
//!
//! The content comes from upstream and is read where the bundle is built; sizes and the number of files are bounded by
//! whoever read it into memory. Its controls have the ids that the parsers of results find in the scanner's results. What is
//! not understood is refused with its file and place, since a control that is not listed here is missed by nobody.

pub mod falco;
pub mod inspec;
pub mod kube_bench;
pub mod rego;
pub mod ruby;

use std::collections::BTreeMap;

use crate::base::exit::{Classify, ExitClass};
use crate::base::text::brief;

/// Files by their paths, relative to their folder.
pub type Files = BTreeMap<String, Vec<u8>>;

/// Problems that are named at once; the rest is counted.
const NAMED: usize = 20;

/// Why the controls of some content can't be listed.
#[derive(Debug, thiserror::Error)]
#[error("list the controls of {what}: {}", shown(.problems))]
pub struct ContentError {
    /// What the content is.
    pub what: &'static str,
    /// What is wrong, each with its place.
    pub problems: Vec<String>,
    /// What to do about it.
    pub remedy: Option<&'static str>,
}

fn shown(problems: &[String]) -> String {
    let more = problems.len().saturating_sub(NAMED);
    let named = problems.iter().take(NAMED).map(String::as_str).collect::<Vec<_>>().join("; ");
    if more == 0 { named } else { format!("{named}; and {more} more") }
}

impl Classify for ContentError {
    fn class(&self) -> ExitClass {
        ExitClass::Usage
    }

    fn remedy(&self) -> Option<String> {
        self.remedy.map(str::to_owned)
    }
}

/// The text of a file, or what is wrong with it.
fn text<'f>(files: &'f Files, path: &str) -> Result<&'f str, String> {
    let bytes = files.get(path).ok_or_else(|| format!("there is no `{}`", brief(path)))?;
    std::str::from_utf8(bytes).map_err(|e| format!("`{}`: byte {} is no UTF-8", brief(path), e.valid_up_to()))
}

/// Reads YAML with file, line and column in its errors.
fn yaml<T: serde::de::DeserializeOwned>(path: &str, kind: &'static str, text: &str) -> Result<T, String> {
    crate::base::document::from_yaml(std::path::Path::new(path), kind, text).map_err(|error| error.to_string())
}

/// Lines of one document that may be indented further, and bytes of such a document.
const INDENTED: usize = 500;
const INDENTED_BYTES: usize = 4 << 20;

/// The same with what YAML forbids and tools in Go read: lines of a text in quotes that are indented no further than what is
/// around it. White space at the begin of such a line is no part of the text, so that more of it changes nothing.
fn yaml_of_go<T: serde::de::DeserializeOwned>(path: &str, kind: &'static str, text: &str) -> Result<T, String> {
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    for _ in 0..INDENTED {
        let error = match serde_saphyr::from_str::<T>(&lines.join("\n")) {
            Ok(read) => return Ok(read),
            Err(error) => error,
        };
        let told = error.without_snippet().to_string();
        let place = error.location().and_then(|at| usize::try_from(at.line()).ok()?.checked_sub(1));
        match place.and_then(|at| lines.get_mut(at)) {
            Some(line) if told.contains("multiline quoted scalar") && text.len() <= INDENTED_BYTES => {
                *line = format!("{:64}{line}", "");
            }
            _ => break,
        }
    }
    yaml(path, kind, text)
}

/// A path below a folder, which may be the one that all paths are relative to.
fn below(folder: &str, path: &str) -> String {
    match folder.trim_end_matches('/') {
        "" | "." => path.to_owned(),
        folder => format!("{folder}/{path}"),
    }
}

/// Why a text can't be the name of a control.
fn unusable_id(id: &str) -> Option<&'static str> {
    match id {
        "" => Some("it is empty"),
        id if id.len() > 256 => Some("it is longer than 256 characters"),
        id if !id.bytes().all(|byte| byte.is_ascii_graphic()) => Some("it has spaces, or is not ASCII"),
        _ => None,
    }
}

/// A text as one line.
fn line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
