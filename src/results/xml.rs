//! A pull reader for XML from outside.
//!
//! | attack | what happens |
//! |---|---|
//! | a DTD: external entities, the billion laughs | refused |
//! | references to entities other than the five of XML itself | refused |
//! | deep nesting | refused below 256 levels |
//! | a tag with a million attributes or namespaces | refused above 64 KiB |
//! | a tag, comment or text that does not end | refused above 64 MiB, before it takes more memory than that |
//! | an attribute that is there twice | refused |
//! | more bytes than the limit, whatever is in them | refused |
//! | a document that ends early, or goes on after its end | refused |
//! | a text of megabytes | cut at 64 KiB, marked with `…` |
//!
//! What nobody asks for is read over without a copy of anything, and checked as strictly.

mod source;

use std::io::{self, Read};

use quick_xml::errors::{Error, IllFormedError, SyntaxError};
use quick_xml::events::{BytesCData, BytesStart, BytesText, Event};
use quick_xml::name::{NamespaceResolver, ResolveResult};
use quick_xml::{Reader, XmlVersion};

use self::source::{OverLimit, Source, TooLong};
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
    /// Something between tags; [`Xml::text`] gives all of it.
    Text,
    Close,
    /// The document has ended where it should.
    End,
}

/// One piece of the document, as it stands in a buffer.
enum Step<'b> {
    Open(BytesStart<'b>),
    Text(BytesText<'b>),
    Data(BytesCData<'b>),
    /// What a reference stands for.
    Character(char),
    Close,
    /// A comment, or white space around the root.
    Nothing,
    End,
}

/// Reads one document from its begin to its end.
pub(super) struct Xml<R> {
    reader: Reader<Source<R>>,
    /// The scopes of tags that were handed out and are open; what is read over has none.
    namespaces: NamespaceResolver,
    buffer: Vec<u8>,
    /// Where the last piece began.
    offset: u64,
    depth: usize,
    /// Whether the last tag ends where it begins, as `<a/>`.
    is_empty: bool,
    closed: bool,
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
        Self {
            reader: Reader::from_reader(Source::new(reader, limit)),
            namespaces: NamespaceResolver::default(),
            buffer: Vec::new(),
            offset: 0,
            depth: 0,
            is_empty: false,
            closed: false,
        }
    }

    /// An error at the place that was read last.
    pub(super) fn refuse(&self, detail: impl Into<String>) -> XmlError {
        XmlError { offset: self.reader.buffer_position(), kind: XmlErrorKind::Malformed(detail.into()) }
    }

    /// An error in the piece that was read last.
    fn wrong(&self, detail: &str) -> XmlError {
        XmlError { offset: self.offset, kind: XmlErrorKind::Malformed(detail.to_owned()) }
    }

    /// The next node. After [`Node::End`] nothing may be asked for.
    pub(super) fn next(&mut self) -> Result<Node, XmlError> {
        self.with_buffer(|xml, buffer| {
            loop {
                return Ok(match xml.step(buffer)? {
                    Step::Open(start) => Node::Open(xml.tag(start)?),
                    Step::Text(_) | Step::Data(_) | Step::Character(_) => Node::Text,
                    Step::Close => {
                        xml.namespaces.pop();
                        Node::Close
                    }
                    Step::Nothing => continue,
                    Step::End => Node::End,
                });
            }
        })
    }

    fn with_buffer<T>(&mut self, read: impl FnOnce(&mut Self, &mut Vec<u8>) -> T) -> T {
        let mut buffer = std::mem::take(&mut self.buffer);
        let result = read(self, &mut buffer);
        self.buffer = buffer;
        result
    }

    fn tag(&mut self, start: BytesStart<'_>) -> Result<Tag, XmlError> {
        self.namespaces.push(&start).map_err(|error| self.wrong(&error.to_string()))?;
        let (resolved, _) = self.namespaces.resolve_element(start.name());
        let xccdf = matches!(resolved, ResolveResult::Bound(namespace) if [XCCDF, XCCDF_1_1].contains(&namespace.0));
        let space = if xccdf { Space::Xccdf } else { Space::Other };
        Ok(Tag { space, start: start.into_owned(), offset: self.offset })
    }

    fn step<'b>(&mut self, buffer: &'b mut Vec<u8>) -> Result<Step<'b>, XmlError> {
        if std::mem::take(&mut self.is_empty) {
            return Ok(self.close());
        }
        buffer.clear();
        self.offset = self.reader.buffer_position();
        self.reader.get_mut().begin_piece();
        let event = self.reader.read_event_into(buffer).map_err(|error| failed(self.offset, error))?;
        match event {
            Event::Start(start) => {
                self.open(&start)?;
                Ok(Step::Open(start))
            }
            Event::Empty(start) => {
                self.open(&start)?;
                self.is_empty = true;
                Ok(Step::Open(start))
            }
            Event::End(_) => Ok(self.close()),
            Event::Text(text) if self.depth > 0 => Ok(Step::Text(text)),
            Event::Text(text) if text.trim().is_empty() => Ok(Step::Nothing),
            Event::CData(data) if self.depth > 0 => Ok(Step::Data(data)),
            Event::Text(_) | Event::CData(_) => Err(self.wrong("there is text outside of its root")),
            Event::GeneralRef(reference) => {
                let resolved = match reference.resolve_char_ref() {
                    Ok(Some(character)) => Some(character),
                    Ok(None) => {
                        quick_xml::escape::resolve_predefined_entity(&reference).and_then(|text| text.chars().next())
                    }
                    Err(_) => None,
                };
                match resolved {
                    Some(character) if self.depth > 0 => Ok(Step::Character(character)),
                    _ => Err(self.wrong("it refers to an entity that XML itself does not have")),
                }
            }
            Event::DocType(_) => Err(self.wrong("it has a document type definition")),
            Event::Eof if self.closed => Ok(Step::End),
            Event::Eof => Err(XmlError { offset: self.offset, kind: XmlErrorKind::Truncated }),
            Event::Comment(_) | Event::PI(_) | Event::Decl(_) => Ok(Step::Nothing),
        }
    }

    fn open(&mut self, start: &BytesStart<'_>) -> Result<(), XmlError> {
        if self.closed {
            return Err(self.wrong("it goes on after its end"));
        }
        if start.len() > TAG_BYTES {
            return Err(self.wrong("it has a tag of more than 64 KiB"));
        }
        self.depth += 1;
        if self.depth > DEPTH { Err(self.wrong("it is nested deeper than 256 levels")) } else { Ok(()) }
    }

    fn close<'b>(&mut self) -> Step<'b> {
        self.depth -= 1;
        self.closed = self.depth == 0;
        Step::Close
    }

    /// Reads on to the end of the tag that was opened last.
    pub(super) fn skip(&mut self) -> Result<(), XmlError> {
        let outside = self.depth - 1;
        self.with_buffer(|xml, buffer| {
            while xml.depth > outside {
                xml.step(buffer)?;
            }
            Ok(())
        })?;
        self.namespaces.pop();
        Ok(())
    }

    /// All text up to the end of the tag that was opened last, with line breaks where HTML has them, and the id of what a
    /// `<sub>` stands for in brackets.
    pub(super) fn text(&mut self) -> Result<String, XmlError> {
        let outside = self.depth - 1;
        let mut all = Text::default();
        self.with_buffer(|xml, buffer| {
            while xml.depth > outside {
                match xml.step(buffer)? {
                    Step::Text(text) => all.push(&text.xml10_content()),
                    Step::Data(data) => all.push(&data.xml10_content()),
                    Step::Character(character) => all.push(character.encode_utf8(&mut [0; 4])),
                    Step::Open(start) => match start.local_name().into_inner() {
                        "br" | "p" | "li" | "pre" => all.push("\n"),
                        "sub" => {
                            let tag = Tag { space: Space::Other, start: start.into_owned(), offset: xml.offset };
                            all.push(&format!("[{}]", tag.attribute("idref")?.unwrap_or_default()));
                        }
                        _ => {}
                    },
                    Step::Close | Step::Nothing | Step::End => {}
                }
            }
            Ok(())
        })?;
        self.namespaces.pop();
        Ok(all.finish())
    }

    /// The same as one line.
    pub(super) fn line(&mut self) -> Result<String, XmlError> {
        self.text().map(|text| text.split_whitespace().collect::<Vec<_>>().join(" "))
    }
}

/// A text of which only so much is kept.
#[derive(Default)]
struct Text {
    kept: String,
    is_cut: bool,
}

impl Text {
    fn push(&mut self, piece: &str) {
        if self.is_cut {
            return;
        }
        let room = TEXT_BYTES - self.kept.len();
        self.is_cut = piece.len() > room;
        self.kept.push_str(&piece[..piece.floor_char_boundary(room)]);
    }

    fn finish(mut self) -> String {
        if self.is_cut {
            self.kept.push('…');
        }
        self.kept
    }
}

fn failed(offset: u64, error: Error) -> XmlError {
    let kind = match error {
        Error::Io(error) => {
            let inner = error.get_ref();
            match inner.and_then(|inner| inner.downcast_ref::<OverLimit>()) {
                Some(OverLimit(limit)) => XmlErrorKind::TooLarge(*limit),
                None if inner.is_some_and(|inner| inner.is::<TooLong>()) => XmlErrorKind::Malformed(error.to_string()),
                None => XmlErrorKind::Io(io::Error::new(error.kind(), error.to_string())),
            }
        }
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
