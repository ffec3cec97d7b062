//! A pull reader for JSON from outside (RFC 8259), from its begin to its end, of which nothing is held but what is asked for.
//!
//! | attack | what happens |
//! |---|---|
//! | deep nesting | refused below 128 levels |
//! | a key that is there twice in an object that is read | refused |
//! | an object that is read, of more keys than can be told apart in memory | refused above 4 million |
//! | a text of gigabytes | cut at 64 KiB, marked with `…`; a key of more than 64 KiB is refused |
//! | a list of millions of texts | the first 256 count |
//! | invalid UTF-8, raw control characters, half a surrogate pair | refused |
//! | a document that ends early, or goes on after its end | refused |
//! | more bytes than the limit | refused |

mod keys;
mod plain;
mod skip;
mod source;
mod text;
mod utf8;

use std::io::Read;

use self::keys::{Entry, Keys};
use self::source::Source;
use super::ResultsError;

const DEPTH: usize = 128;
const TEXT_BYTES: usize = 64 << 10;
/// Texts of one list.
const TEXTS: usize = 256;

/// Reads one document, or several after each other.
pub(crate) struct Json<R> {
    source: Source<R>,
    format: &'static str,
    depth: usize,
    keys: Keys,
    /// Where a text is put together.
    scratch: String,
    /// Where keys are put that are not in use.
    names: Vec<String>,
}

/// What begins at the place that is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Object,
    Array,
    Text,
    Number,
    Boolean,
    Null,
}

impl Kind {
    fn words(self) -> &'static str {
        match self {
            Self::Object => "an object",
            Self::Array => "a list",
            Self::Text => "a text",
            Self::Number => "a number",
            Self::Boolean => "true or false",
            Self::Null => "null",
        }
    }
}

type Read_<T> = Result<T, ResultsError>;

impl<R: Read> Json<R> {
    /// Reads at most `limit` bytes from `source`; `format` is how errors name it.
    pub(crate) fn new(source: R, format: &'static str, limit: u64) -> Self {
        let source = Source::new(source, limit);
        Self { source, format, depth: 0, keys: Keys::default(), scratch: String::new(), names: Vec::new() }
    }

    /// An error at this place: it is no JSON, or none that could be in this format.
    pub(crate) fn malformed(&self, detail: impl Into<String>) -> ResultsError {
        ResultsError::Malformed { format: self.format, offset: self.source.offset(), detail: detail.into() }
    }

    /// It is JSON, and not in this format.
    pub(crate) fn foreign(&self, detail: impl Into<String>) -> ResultsError {
        ResultsError::Foreign { format: self.format, detail: detail.into() }
    }

    fn space(&mut self) -> Read_<()> {
        loop {
            let held = self.source.held()?;
            let blank = plain::blank(held);
            let goes_on = blank > 0 && blank == held.len();
            self.source.consume(blank);
            if !goes_on {
                return Ok(());
            }
        }
    }

    /// The next byte that is no white space, which stays.
    #[inline]
    fn next(&mut self) -> Read_<u8> {
        if let Some(byte @ 0x21..) = self.source.peek()? {
            return Ok(byte);
        }
        self.space()?;
        self.source.peek()?.ok_or_else(|| self.truncated())
    }

    /// Whether nothing follows but white space.
    pub(crate) fn is_at_end(&mut self) -> Read_<bool> {
        self.space()?;
        Ok(self.source.peek()?.is_none())
    }

    /// Checks that nothing follows but white space.
    pub(crate) fn end(&mut self) -> Read_<()> {
        if self.is_at_end()? { Ok(()) } else { Err(self.malformed("it goes on after its end")) }
    }

    /// What the next value is.
    pub(crate) fn kind(&mut self) -> Read_<Kind> {
        Ok(match self.next()? {
            b'{' => Kind::Object,
            b'[' => Kind::Array,
            b'"' => Kind::Text,
            b'-' | b'0'..=b'9' => Kind::Number,
            b't' | b'f' => Kind::Boolean,
            b'n' => Kind::Null,
            0xef if self.source.offset() == 0 => {
                return Err(self.malformed("it begins with a byte order mark, which JSON must not have"));
            }
            _ => return Err(self.malformed("there should be a value")),
        })
    }

    fn enter(&mut self) -> Read_<()> {
        self.source.consume(1);
        self.depth += 1;
        if self.depth > DEPTH { Err(self.malformed("it is nested deeper than 128 levels")) } else { Ok(()) }
    }

    fn leave(&mut self) {
        self.source.consume(1);
        self.depth -= 1;
    }

    /// Whether another item follows. After the last one, the closing bracket is consumed.
    fn another(&mut self, first: &mut bool, close: u8) -> Read_<bool> {
        let next = self.next()?;
        if next == close {
            self.leave();
            return Ok(false);
        }
        if !std::mem::take(first) {
            if next != b',' {
                return Err(self.malformed("there should be a comma"));
            }
            self.source.consume(1);
            if self.next()? == close {
                return Err(self.malformed("there is a comma after the last item"));
            }
        }
        Ok(true)
    }

    fn key(&mut self, name: &mut String) -> Read_<()> {
        if self.next()? != b'"' {
            return Err(self.malformed("there should be a key"));
        }
        self.string_into(name)?;
        self.colon()?;
        if name.len() > TEXT_BYTES { Err(self.malformed("it has a key of more than 64 KiB")) } else { Ok(()) }
    }

    fn colon(&mut self) -> Read_<()> {
        if self.next()? != b':' {
            return Err(self.malformed("there should be a colon"));
        }
        self.source.consume(1);
        Ok(())
    }

    /// Reads an object: `field` gets each key, and reads or skips its value. `null` counts as one without keys.
    pub(crate) fn object(&mut self, mut field: impl FnMut(&mut Self, &str) -> Read_<()>) -> Read_<()> {
        match self.kind()? {
            Kind::Object => {}
            Kind::Null => return self.skip(),
            other => return Err(self.wrong("an object", other)),
        }
        self.enter()?;
        let mut first = true;
        let mut keys = self.keys.open();
        let mut name = self.names.pop().unwrap_or_default();
        while self.another(&mut first, b'}')? {
            self.key(&mut name)?;
            match self.keys.insert(&mut keys, &name) {
                Entry::New => field(self, &name)?,
                Entry::Twice => {
                    let key = crate::base::text::brief(&name);
                    return Err(self.malformed(format!("the key `{key}` is there twice")));
                }
                Entry::TooMany => return Err(self.malformed("it has an object of more than 4 million keys")),
            }
        }
        self.keys.close(keys);
        self.names.push(name);
        Ok(())
    }

    /// Reads a list: `item` reads or skips each of its items. `null` counts as one without items.
    pub(crate) fn array(&mut self, mut item: impl FnMut(&mut Self) -> Read_<()>) -> Read_<()> {
        match self.kind()? {
            Kind::Array => {}
            Kind::Null => return self.skip(),
            other => return Err(self.wrong("a list", other)),
        }
        self.enter()?;
        let mut first = true;
        while self.another(&mut first, b']')? {
            item(self)?;
        }
        Ok(())
    }

    fn wrong(&self, wanted: &str, found: Kind) -> ResultsError {
        self.foreign(format!("there is {} where {wanted} should be, at byte {}", found.words(), self.source.offset()))
    }

    /// A text; `None` for `null`.
    pub(crate) fn text(&mut self) -> Read_<Option<String>> {
        match self.kind()? {
            Kind::Text => self.string().map(Some),
            Kind::Null => self.skip().map(|()| None),
            other => Err(self.wrong("a text", other)),
        }
    }

    /// A text, or an empty one for `null`.
    pub(crate) fn text_or_empty(&mut self) -> Read_<String> {
        self.text().map(Option::unwrap_or_default)
    }

    /// A text, or a number, `true` or `false` as they stand there; `None` for anything else, which is skipped.
    pub(crate) fn scalar(&mut self) -> Read_<Option<String>> {
        match self.kind()? {
            Kind::Text => self.string().map(Some),
            Kind::Number => self.number_text().map(|number| Some(number.as_str().to_owned())),
            Kind::Boolean => self.boolean().map(|value| value.map(|value| value.to_string())),
            Kind::Null | Kind::Object | Kind::Array => self.skip().map(|()| None),
        }
    }

    /// The first 256 texts and numbers of a list, or the only one where there is no list. Whatever else is in it is skipped.
    pub(crate) fn texts(&mut self) -> Read_<Vec<String>> {
        let mut texts = Vec::new();
        if self.kind()? == Kind::Array {
            self.array(|json| match texts.len() < TEXTS {
                true => json.scalar().map(|text| texts.extend(text)),
                false => json.skip(),
            })?;
        } else {
            texts.extend(self.scalar()?);
        }
        Ok(texts)
    }

    /// A number; `None` for `null`.
    pub(crate) fn number(&mut self) -> Read_<Option<f64>> {
        match self.kind()? {
            Kind::Number => {
                let text = self.number_text()?;
                let number: f64 = text.as_str().parse().map_err(|_| self.malformed("it has a number that is none"))?;
                if number.is_finite() { Ok(Some(number)) } else { Err(self.malformed("it has a number out of range")) }
            }
            Kind::Null => self.skip().map(|()| None),
            other => Err(self.wrong("a number", other)),
        }
    }

    /// A count; `None` for `null`.
    pub(crate) fn count(&mut self) -> Read_<Option<u64>> {
        match self.kind()? {
            Kind::Number => {
                let text = self.number_text()?;
                text.as_str()
                    .parse()
                    .map(Some)
                    .map_err(|_| self.foreign("it has another number where a count should be"))
            }
            Kind::Null => self.skip().map(|()| None),
            other => Err(self.wrong("a count", other)),
        }
    }

    /// `true` or `false`; `None` for `null`.
    pub(crate) fn boolean(&mut self) -> Read_<Option<bool>> {
        match self.kind()? {
            Kind::Boolean if self.source.peek()? == Some(b't') => self.word("true").map(|()| Some(true)),
            Kind::Boolean => self.word("false").map(|()| Some(false)),
            Kind::Null => self.skip().map(|()| None),
            other => Err(self.wrong("true or false", other)),
        }
    }

    fn word(&mut self, word: &str) -> Read_<()> {
        for expected in word.bytes() {
            if self.byte()? != expected {
                return Err(self.malformed("it has a word that JSON does not know"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
