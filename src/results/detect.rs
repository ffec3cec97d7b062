//! Which format a result is in, by what is in it: never by its file's name.
//!
//! Only the begin of it is looked at. The parser of the format that is found looks at all, and refuses what is something
//! else.

use std::io::Read as _;

use super::ResultsError;
use super::read::is_blank;
use super::xccdf::root_of;
use crate::base::spool::Content;
use crate::base::text::brief;
use crate::model::scanner::ResultFormat;

/// Bytes that are looked at.
const LOOKED_AT: u64 = 256 << 10;
/// Keys that are remembered.
const KEYS: usize = 256;

/// Keys of the outermost object, any of which tells a format.
const BY_KEY: &[(&str, ResultFormat)] = &[
    ("matches", ResultFormat::Grype),
    ("ignoredMatches", ResultFormat::Grype),
    ("profiles", ResultFormat::Inspec),
    ("platform", ResultFormat::Inspec),
    ("controls", ResultFormat::Inspec),
    ("Controls", ResultFormat::KubeBench),
    ("Totals", ResultFormat::KubeBench),
    ("runs", ResultFormat::Sarif),
    ("SchemaVersion", ResultFormat::Trivy),
    ("ArtifactName", ResultFormat::Trivy),
    ("bomFormat", ResultFormat::CycloneDx),
    ("artifacts", ResultFormat::Syft),
    ("artifactRelationships", ResultFormat::Syft),
    ("spdxVersion", ResultFormat::Spdx),
    ("output_fields", ResultFormat::Falco),
    ("priority", ResultFormat::Falco),
    ("manifest_hash", ResultFormat::Clair),
    ("package_vulnerabilities", ResultFormat::Clair),
];

/// Keys of the objects in the outermost list, any of which tells a format.
const BY_KEY_IN_LIST: &[(&str, ResultFormat)] =
    &[("node_type", ResultFormat::KubeBench), ("tests", ResultFormat::KubeBench)];

/// Names of the outermost tag.
const BY_TAG: &[(&str, ResultFormat)] = &[
    ("asset-report-collection", ResultFormat::Arf),
    ("Benchmark", ResultFormat::Arf),
    ("TestResult", ResultFormat::Arf),
    ("testsuites", ResultFormat::Junit),
    ("testsuite", ResultFormat::Junit),
];

/// What begins so is no text.
const MAGIC: &[(usize, &[u8], &str)] = &[
    (0, b"\x1f\x8b", "it is compressed by gzip"),
    (0, b"\xfd7zXZ\0", "it is compressed by xz"),
    (0, b"\x28\xb5\x2f\xfd", "it is compressed by zstd"),
    (0, b"BZh", "it is compressed by bzip2"),
    (0, b"PK\x03\x04", "it is a zip archive"),
    (257, b"ustar", "it is a tar archive"),
    (0, b"%PDF", "it is a PDF"),
    (0, b"\xff\xfe", "it is UTF-16 and not UTF-8"),
    (0, b"\xfe\xff", "it is UTF-16 and not UTF-8"),
];

/// Finds the format.
///
/// # Errors
/// When there is nothing in it, it can't be read, or its begin is that of no format or of several.
pub fn detect<C: Content + ?Sized>(content: &C) -> Result<ResultFormat, ResultsError> {
    if is_blank(content).map_err(ResultsError::Io)? {
        return Err(ResultsError::Empty);
    }
    let mut begin = Vec::new();
    content.reader().take(LOOKED_AT).read_to_end(&mut begin).map_err(ResultsError::Io)?;
    let unknown = |detail: String| ResultsError::Unrecognised { detail };
    for (at, magic, what) in MAGIC {
        if begin.get(*at..).is_some_and(|rest| rest.starts_with(magic)) {
            return Err(unknown((*what).to_owned()));
        }
    }
    let text = begin.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&begin).trim_ascii_start();
    match text.first() {
        Some(b'<') => {
            let Some(root) = root_of(text) else {
                return Err(unknown("it begins like XML, and has no tag that can be read".to_owned()));
            };
            let found = BY_TAG.iter().find(|(name, _)| root == *name);
            found.map(|(_, format)| *format).ok_or_else(|| {
                unknown(match root.as_str() {
                    "data-stream-collection" => "it is a SCAP data stream, and no result of one".to_owned(),
                    "bom" => "it is CycloneDX as XML, which is read as JSON only".to_owned(),
                    "CHECKLIST" => "it is a checklist of STIG Viewer, and no result of a scanner".to_owned(),
                    "html" => "it is a page for people".to_owned(),
                    other => format!("it is XML whose root is <{}>", brief(other)),
                })
            })
        }
        Some(b'{' | b'[') => {
            let (table, keys) = match text.first() {
                Some(b'{') => (BY_KEY, keys(text, 1)),
                _ => (BY_KEY_IN_LIST, keys(text, 2)),
            };
            let mut found: Vec<ResultFormat> = Vec::new();
            for (key, format) in table {
                if keys.iter().any(|seen| seen == key) && !found.contains(format) {
                    found.push(*format);
                }
            }
            match found[..] {
                [format] => Ok(format),
                [] if keys.is_empty() => Err(unknown("it is JSON without a key at its begin".to_owned())),
                [] => {
                    let named: Vec<String> = keys.iter().take(8).map(|key| format!("`{}`", brief(key))).collect();
                    Err(unknown(format!("it is JSON with the keys {}", named.join(", "))))
                }
                _ => {
                    let named: Vec<&str> = found.iter().map(|format| format.name()).collect();
                    Err(unknown(format!("it could be {}", named.join(" or "))))
                }
            }
        }
        _ => Err(unknown("it is neither JSON nor XML".to_owned())),
    }
}

/// The keys of objects at this depth, as far as they are in what may be cut, or no JSON at all.
fn keys(text: &[u8], depth: usize) -> Vec<String> {
    let mut keys: Vec<String> = Vec::new();
    let (mut at, mut open) = (0, Vec::new());
    // A key comes after `{` or `,` in an object.
    let mut is_key = false;
    while let Some(byte) = text.get(at) {
        match byte {
            b'"' => {
                let mut end = at + 1;
                while let Some(byte) = text.get(end).filter(|byte| **byte != b'"') {
                    end += if *byte == b'\\' { 2 } else { 1 };
                }
                if is_key && open.len() == depth && end < text.len() && keys.len() < KEYS {
                    let key = String::from_utf8_lossy(&text[at + 1..end]).into_owned();
                    if !keys.contains(&key) {
                        keys.push(key);
                    }
                }
                is_key = false;
                at = end;
            }
            b'{' | b'[' => {
                open.push(*byte);
                is_key = *byte == b'{';
            }
            b'}' | b']' => {
                open.pop();
                is_key = false;
            }
            b',' => is_key = open.last() == Some(&b'{'),
            _ => {}
        }
        at += 1;
    }
    keys
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_format_is_told_by_what_is_in_it() {
        for (text, format) in [
            ("{\"x\":{\"artifacts\":1},\"matches\":[", ResultFormat::Grype),
            ("\u{feff} <?xml version='1.0'?><!-- <bom> --><a:TestResult xmlns:a='x'>", ResultFormat::Arf),
        ] {
            assert_eq!(detect(text.as_bytes()).expect(text), format);
        }
    }

    #[test]
    fn what_is_none_is_refused_with_what_it_is() {
        for (bytes, words) in [
            (&b"{}"[..], "JSON without a key"),
            (b"{\"a\\\"\":{\"matches\":[]}}", "`a\\\"`"),
            (b"[[[[", "without a key"),
            (b"<!DOCTYPE html><html>", "no tag that can be read"),
            (b"<html>", "for people"),
            (b"<x\xff\x1b>", "XML"),
            (b"\x1f\x8b\x08", "gzip"),
            (b"hello", "neither JSON nor XML"),
            (b"{\"\x1b[2J\":1}", "\\u{1b}"),
        ] {
            let error = detect(bytes).expect_err("no format");
            let shown = error.to_string();
            assert!(shown.contains(words) && !shown.contains('\u{1b}'), "{shown}");
        }
        assert!(matches!(detect(&b" \n"[..]), Err(ResultsError::Empty)));
    }
}
