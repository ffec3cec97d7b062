//! A pull reader for XML from outside.
//!
//! | attack | what happens |
//! |---|---|
//! | a DTD: external entities, the billion laughs | refused |
//! | references to entities other than the five of XML itself | refused |
//! | deep nesting | refused below 256 levels |
//! | a tag with a million attributes or namespaces | refused above 64 KiB |
//! | an attribute that is there twice | refused |
//! | more bytes than the limit, whatever is in them | refused |
//! | a document that ends early, or goes on after its end | refused |
//! | a text of megabytes | cut at 64 KiB, marked with `…` |

use std::io::{self, BufReader, Read};

use quick_xml::errors::{Error, IllFormedError, SyntaxError};
use quick_xml::events::{BytesStart, Event};
use quick_xml::name::ResolveResult;
use quick_xml::{NsReader, XmlVersion};

use super::ResultsError;

/// The namespace of XCCDF 1.1, whose test results have the same tags.
const XCCDF_1_1: &str = "http://checklists.nist.gov/xccdf/1.1";

/// The namespace of XCCDF 1.2.
pub(super) const XCCDF: &str = "http://checklists.nist.gov/xccdf/1.2";

const DEPTH: usize = 256;
const TAG_BYTES: usize = 64 << 10;
const TEXT_BYTES: usize = 64 << 10;

/// What is wrong, and at which byte.
#[derive(Debug)]
pub(super) struct XmlError {
    pub(super) offset: u64,
    pub(super) kind: XmlErrorKind,
}

impl XmlError {
    /// As what is wrong with a result in this format.
    pub(super) fn of(self, format: &'static str) -> ResultsError {
        let offset = self.offset;
        match self.kind {
            XmlErrorKind::Truncated => ResultsError::Truncated { offset },
            XmlErrorKind::TooLarge(limit) => ResultsError::TooLarge { limit },
            XmlErrorKind::Malformed(detail) => ResultsError::Malformed { format, offset, detail },
            // Bytes that are no UTF-8 come as such an error too.
            XmlErrorKind::Io(error) if error.kind() == io::ErrorKind::InvalidData => {
                ResultsError::Malformed { format, offset, detail: error.to_string() }
            }
            XmlErrorKind::Io(error) => ResultsError::Io(error),
        }
    }
}

#[derive(Debug)]
pub(super) enum XmlErrorKind {
    Truncated,
    /// More than so many bytes.
    TooLarge(u64),
    Malformed(String),
    Io(io::Error),
}

/// Where a tag belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Space {
    Xccdf,
    Other,
}

/// A tag that was opened.
pub(super) struct Tag {
    pub(super) space: Space,
    start: BytesStart<'static>,
    offset: u64,
}

/// What comes next.
pub(super) enum Node {
    Open(Tag),
    Text(String),
    Close,
    /// The document has ended where it should.
    End,
}

/// Reads one document from its begin to its end.
pub(super) struct Xml<R> {
    reader: NsReader<BufReader<Bounded<R>>>,
    buffer: Vec<u8>,
    depth: usize,
    closed: bool,
}

/// Fails once more than so many bytes were read, instead of pretending that the input ended there.
pub(super) struct Bounded<R> {
    inner: R,
    left: u64,
    limit: u64,
}

#[derive(Debug, thiserror::Error)]
#[error("the limit of {0} bytes is reached")]
struct OverLimit(u64);

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        match self.left.checked_sub(read as u64) {
            Some(left) => self.left = left,
            None => return Err(io::Error::other(OverLimit(self.limit))),
        }
        Ok(read)
    }
}

impl Tag {
    /// The name without its prefix.
    pub(super) fn name(&self) -> &str {
        self.start.local_name().into_inner()
    }

    /// Whether it is this one of XCCDF.
    pub(super) fn is(&self, name: &str) -> bool {
        self.space == Space::Xccdf && self.name() == name
    }

    /// The value of the attribute without a prefix.
    pub(super) fn attribute(&self, name: &str) -> Result<Option<String>, XmlError> {
        self.attribute_where(name, |key| key == name)
    }

    /// The value of the attribute of this name, with whatever prefix.
    pub(super) fn attribute_of_any_space(&self, name: &str) -> Result<Option<String>, XmlError> {
        self.attribute_where(name, |key| key.rsplit(':').next() == Some(name))
    }

    fn attribute_where(&self, name: &str, is_it: impl Fn(&str) -> bool) -> Result<Option<String>, XmlError> {
        let refuse = |detail: String| XmlError { offset: self.offset, kind: XmlErrorKind::Malformed(detail) };
        let mut value = None;
        for attribute in self.start.attributes().with_checks(false) {
            let attribute = attribute.map_err(|error| refuse(error.to_string()))?;
            if is_it(attribute.key.as_ref()) {
                let text = attribute.normalized_value(XmlVersion::Implicit1_0);
                let text = text.map_err(|error| refuse(error.to_string()))?.into_owned();
                if value.replace(text).is_some() {
                    return Err(refuse(format!("the attribute {name} is there twice")));
                }
            }
        }
        Ok(value)
    }

    /// The value of an attribute that must be there.
    pub(super) fn required(&self, name: &str) -> Result<String, XmlError> {
        self.attribute(name)?.ok_or_else(|| XmlError {
            offset: self.offset,
            kind: XmlErrorKind::Malformed(format!(
                "<{}> lacks the attribute {name}",
                crate::base::text::brief(self.name())
            )),
        })
    }
}

impl<R: Read> Xml<R> {
    /// Reads at most `limit` bytes from `reader`.
    pub(super) fn new(reader: R, limit: u64) -> Self {
        let mut reader =
            NsReader::from_reader(BufReader::with_capacity(64 << 10, Bounded { inner: reader, left: limit, limit }));
        reader.config_mut().expand_empty_elements = true;
        Self { reader, buffer: Vec::new(), depth: 0, closed: false }
    }

    /// An error at the place that was read last.
    pub(super) fn refuse(&self, detail: impl Into<String>) -> XmlError {
        XmlError { offset: self.reader.buffer_position(), kind: XmlErrorKind::Malformed(detail.into()) }
    }

    /// The next node. After [`Node::End`] nothing may be asked for.
    pub(super) fn next(&mut self) -> Result<Node, XmlError> {
        let refuse = |offset, detail: &str| Err(XmlError { offset, kind: XmlErrorKind::Malformed(detail.to_owned()) });
        loop {
            self.buffer.clear();
            let offset = self.reader.buffer_position();
            let (space, event) = match self.reader.read_resolved_event_into(&mut self.buffer) {
                Ok((resolved, event)) => {
                    let xccdf = matches!(resolved, ResolveResult::Bound(namespace) if [XCCDF, XCCDF_1_1].contains(&namespace.0));
                    (if xccdf { Space::Xccdf } else { Space::Other }, event)
                }
                Err(error) => return Err(failed(offset, error)),
            };
            match event {
                Event::Start(start) => {
                    if self.closed {
                        return refuse(offset, "it goes on after its end");
                    }
                    if start.len() > TAG_BYTES {
                        return refuse(offset, "it has a tag of more than 64 KiB");
                    }
                    self.depth += 1;
                    if self.depth > DEPTH {
                        return refuse(offset, "it is nested deeper than 256 levels");
                    }
                    let start = start.into_owned();
                    return Ok(Node::Open(Tag { space, start, offset }));
                }
                Event::End(_) => {
                    self.depth -= 1;
                    self.closed = self.depth == 0;
                    return Ok(Node::Close);
                }
                Event::Text(text) => {
                    let text = text.xml10_content();
                    if self.depth > 0 {
                        return Ok(Node::Text(text.into_owned()));
                    }
                    if !text.trim().is_empty() {
                        return refuse(offset, "there is text outside of its root");
                    }
                }
                Event::CData(data) if self.depth > 0 => return Ok(Node::Text(data.xml10_content().into_owned())),
                Event::CData(_) => return refuse(offset, "there is text outside of its root"),
                Event::GeneralRef(reference) => {
                    let resolved = match reference.resolve_char_ref() {
                        Ok(Some(character)) => Some(character.to_string()),
                        Ok(None) => quick_xml::escape::resolve_predefined_entity(&reference).map(str::to_owned),
                        Err(_) => None,
                    };
                    match resolved {
                        Some(text) if self.depth > 0 => return Ok(Node::Text(text)),
                        _ => return refuse(offset, "it refers to an entity that XML itself does not have"),
                    }
                }
                Event::DocType(_) => return refuse(offset, "it has a document type definition"),
                Event::Eof if self.closed => return Ok(Node::End),
                Event::Eof => return Err(XmlError { offset, kind: XmlErrorKind::Truncated }),
                Event::Empty(_) | Event::Comment(_) | Event::PI(_) | Event::Decl(_) => {}
            }
        }
    }

    /// Reads on to the end of the tag that was opened last.
    pub(super) fn skip(&mut self) -> Result<(), XmlError> {
        let outside = self.depth - 1;
        while self.depth > outside {
            self.next()?;
        }
        Ok(())
    }

    /// All text up to the end of the tag that was opened last, with line breaks where HTML has them, and the id of what a
    /// `<sub>` stands for in brackets.
    pub(super) fn text(&mut self) -> Result<String, XmlError> {
        let outside = self.depth - 1;
        let mut all = String::new();
        let mut cut = false;
        while self.depth > outside {
            let piece = match self.next()? {
                Node::Text(text) => text,
                Node::Open(tag) => match tag.name() {
                    "br" | "p" | "li" | "pre" => "\n".to_owned(),
                    "sub" => format!("[{}]", tag.attribute("idref")?.unwrap_or_default()),
                    _ => continue,
                },
                Node::Close | Node::End => continue,
            };
            if all.len() + piece.len() <= TEXT_BYTES { all.push_str(&piece) } else { cut = true }
        }
        if cut {
            all.push('…');
        }
        Ok(all)
    }

    /// The same as one line.
    pub(super) fn line(&mut self) -> Result<String, XmlError> {
        self.text().map(|text| text.split_whitespace().collect::<Vec<_>>().join(" "))
    }
}

fn failed(offset: u64, error: Error) -> XmlError {
    let kind = match error {
        Error::Io(error) => match error.get_ref().and_then(|inner| inner.downcast_ref::<OverLimit>()) {
            Some(OverLimit(limit)) => XmlErrorKind::TooLarge(*limit),
            None => XmlErrorKind::Io(io::Error::new(error.kind(), error.to_string())),
        },
        // What is only half there when the input ends.
        Error::Syntax(
            SyntaxError::UnclosedTag
            | SyntaxError::UnclosedComment
            | SyntaxError::UnclosedCData
            | SyntaxError::UnclosedPI
            | SyntaxError::UnclosedXmlDecl
            | SyntaxError::UnclosedDoctype
            | SyntaxError::UnclosedSingleQuotedAttributeValue
            | SyntaxError::UnclosedDoubleQuotedAttributeValue,
        )
        | Error::IllFormed(IllFormedError::MissingEndTag(_)) => XmlErrorKind::Truncated,
        other => XmlErrorKind::Malformed(crate::base::text::brief(&other.to_string())),
    };
    XmlError { offset, kind }
}

#[cfg(test)]
mod tests;
