//! A pull reader for JSON from outside (RFC 8259), from its begin to its end, of which nothing is held but what is asked for.
//!
//! | attack | what happens |
//! |---|---|
//! | deep nesting | refused below 128 levels |
//! | a key that is there twice in an object that is read | refused |
//! | a text of gigabytes | cut at 64 KiB, marked with `…`; a key of more than 64 KiB is refused |
//! | invalid UTF-8, raw control characters, half a surrogate pair | refused |
//! | a document that ends early, or goes on after its end | refused |
//! | more bytes than the limit | refused |

use std::collections::HashSet;
use std::io::{self, BufRead, BufReader, Read};

use super::ResultsError;

const DEPTH: usize = 128;
const TEXT_BYTES: usize = 64 << 10;
const BUFFER_BYTES: usize = 64 << 10;
/// Keys of one object that are compared one by one; beyond, they are hashed.
const FEW_KEYS: usize = 32;

/// Reads one document, or several after each other.
pub(crate) struct Json<R> {
    input: BufReader<R>,
    format: &'static str,
    offset: u64,
    limit: u64,
    depth: usize,
    scratch: Vec<u8>,
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

/// The keys of an object that were seen so far.
#[derive(Default)]
struct Keys {
    few: Vec<u64>,
    many: HashSet<u64>,
}

impl Keys {
    /// Whether it was not there yet.
    fn insert(&mut self, key: &str) -> bool {
        let hash = hash(key);
        if self.few.len() < FEW_KEYS {
            let is_new = !self.few.contains(&hash);
            self.few.push(hash);
            return is_new;
        }
        !self.few.contains(&hash) && self.many.insert(hash)
    }
}

/// FNV-1a. That two keys can be made to collide only lets somebody have his own document refused.
fn hash(key: &str) -> u64 {
    key.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

impl<R: Read> Json<R> {
    /// Reads at most `limit` bytes from `source`; `format` is how errors name it.
    pub(crate) fn new(source: R, format: &'static str, limit: u64) -> Self {
        let input = BufReader::with_capacity(BUFFER_BYTES, source);
        Self { input, format, offset: 0, limit, depth: 0, scratch: Vec::new() }
    }

    /// An error at this place: it is no JSON, or none that could be in this format.
    pub(crate) fn malformed(&self, detail: impl Into<String>) -> ResultsError {
        ResultsError::Malformed { format: self.format, offset: self.offset, detail: detail.into() }
    }

    /// It is JSON, and not in this format.
    pub(crate) fn foreign(&self, detail: impl Into<String>) -> ResultsError {
        ResultsError::Foreign { format: self.format, detail: detail.into() }
    }

    fn fill(&mut self) -> Read_<&[u8]> {
        loop {
            match self.input.fill_buf() {
                Ok(_) => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(ResultsError::Io(error)),
            }
        }
        Ok(self.input.buffer())
    }

    fn consume(&mut self, bytes: usize) -> Read_<()> {
        self.input.consume(bytes);
        self.offset += bytes as u64;
        if self.offset > self.limit { Err(ResultsError::TooLarge { limit: self.limit }) } else { Ok(()) }
    }

    fn peek(&mut self) -> Read_<Option<u8>> {
        Ok(self.fill()?.first().copied())
    }

    fn byte(&mut self) -> Read_<u8> {
        match self.peek()? {
            Some(byte) => {
                self.consume(1)?;
                Ok(byte)
            }
            None => Err(ResultsError::Truncated { offset: self.offset }),
        }
    }

    fn space(&mut self) -> Read_<()> {
        loop {
            let buffer = self.fill()?;
            let blank = buffer.iter().take_while(|byte| matches!(byte, b' ' | b'\t' | b'\n' | b'\r')).count();
            let all = blank == buffer.len();
            if blank == 0 {
                return Ok(());
            }
            self.consume(blank)?;
            if !all {
                return Ok(());
            }
        }
    }

    /// The next byte that is no white space, which stays.
    fn next(&mut self) -> Read_<u8> {
        self.space()?;
        self.peek()?.ok_or(ResultsError::Truncated { offset: self.offset })
    }

    /// Whether nothing follows but white space.
    pub(crate) fn is_at_end(&mut self) -> Read_<bool> {
        self.space()?;
        Ok(self.peek()?.is_none())
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
            _ => return Err(self.malformed("there should be a value")),
        })
    }

    fn enter(&mut self) -> Read_<()> {
        self.consume(1)?;
        self.depth += 1;
        if self.depth > DEPTH { Err(self.malformed("it is nested deeper than 128 levels")) } else { Ok(()) }
    }

    fn leave(&mut self) -> Read_<()> {
        self.depth -= 1;
        self.consume(1)
    }

    /// Whether another item follows. After the last one, the closing bracket is consumed.
    fn another(&mut self, first: &mut bool, close: u8) -> Read_<bool> {
        let next = self.next()?;
        if next == close {
            self.leave()?;
            return Ok(false);
        }
        if !std::mem::take(first) {
            if next != b',' {
                return Err(self.malformed("there should be a comma"));
            }
            self.consume(1)?;
            if self.next()? == close {
                return Err(self.malformed("there is a comma after the last item"));
            }
        }
        Ok(true)
    }

    fn key(&mut self) -> Read_<String> {
        if self.next()? != b'"' {
            return Err(self.malformed("there should be a key"));
        }
        let key = self.string()?;
        if self.next()? != b':' {
            return Err(self.malformed("there should be a colon"));
        }
        self.consume(1)?;
        if key.len() > TEXT_BYTES {
            return Err(self.malformed("it has a key of more than 64 KiB"));
        }
        Ok(key)
    }

    /// Reads an object: `field` gets each key, and reads or skips its value. `null` counts as one without keys.
    pub(crate) fn object(&mut self, mut field: impl FnMut(&mut Self, &str) -> Read_<()>) -> Read_<()> {
        match self.kind()? {
            Kind::Object => {}
            Kind::Null => return self.skip(),
            other => return Err(self.wrong("an object", other)),
        }
        self.enter()?;
        let (mut first, mut keys) = (true, Keys::default());
        while self.another(&mut first, b'}')? {
            let key = self.key()?;
            if !keys.insert(&key) {
                let key = crate::base::text::brief(&key);
                return Err(self.malformed(format!("the key `{key}` is there twice")));
            }
            field(self, &key)?;
        }
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
        self.foreign(format!("there is {} where {wanted} should be, at byte {}", found.words(), self.offset))
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
            Kind::Number => self.number_text().map(Some),
            Kind::Boolean => self.boolean().map(|value| value.map(|value| value.to_string())),
            Kind::Null | Kind::Object | Kind::Array => self.skip().map(|()| None),
        }
    }

    /// The texts and numbers of a list, or the only one where there is no list. Whatever else is in it is skipped.
    pub(crate) fn texts(&mut self) -> Read_<Vec<String>> {
        let mut texts = Vec::new();
        if self.kind()? == Kind::Array {
            self.array(|json| json.scalar().map(|text| texts.extend(text)))?;
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
                let number: f64 = text.parse().map_err(|_| self.malformed("it has a number that is none"))?;
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
                text.parse().map(Some).map_err(|_| self.foreign("it has another number where a count should be"))
            }
            Kind::Null => self.skip().map(|()| None),
            other => Err(self.wrong("a count", other)),
        }
    }

    /// `true` or `false`; `None` for `null`.
    pub(crate) fn boolean(&mut self) -> Read_<Option<bool>> {
        match self.kind()? {
            Kind::Boolean if self.peek()? == Some(b't') => self.word("true").map(|()| Some(true)),
            Kind::Boolean => self.word("false").map(|()| Some(false)),
            Kind::Null => self.skip().map(|()| None),
            other => Err(self.wrong("true or false", other)),
        }
    }

    /// Reads over the next value.
    pub(crate) fn skip(&mut self) -> Read_<()> {
        match self.kind()? {
            Kind::Text => self.skip_string(),
            Kind::Number => self.number_text().map(drop),
            Kind::Boolean if self.peek()? == Some(b't') => self.word("true"),
            Kind::Boolean => self.word("false"),
            Kind::Null => self.word("null"),
            Kind::Array => {
                self.enter()?;
                let mut first = true;
                while self.another(&mut first, b']')? {
                    self.skip()?;
                }
                Ok(())
            }
            Kind::Object => {
                self.enter()?;
                let mut first = true;
                while self.another(&mut first, b'}')? {
                    if self.next()? != b'"' {
                        return Err(self.malformed("there should be a key"));
                    }
                    self.skip_string()?;
                    if self.next()? != b':' {
                        return Err(self.malformed("there should be a colon"));
                    }
                    self.consume(1)?;
                    self.skip()?;
                }
                Ok(())
            }
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

    /// RFC 8259, section 6.
    fn number_text(&mut self) -> Read_<String> {
        let mut text = String::new();
        while let Some(byte @ (b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E')) = self.peek()? {
            self.consume(1)?;
            if text.len() >= 64 {
                return Err(self.malformed("it has a number of more than 64 digits"));
            }
            text.push(char::from(byte));
        }
        let (mantissa, exponent) = match text.split_once(['e', 'E']) {
            Some((mantissa, exponent)) => (mantissa, Some(exponent.strip_prefix(['+', '-']).unwrap_or(exponent))),
            None => (text.as_str(), None),
        };
        let (whole, fraction) = match mantissa.split_once('.') {
            Some((whole, fraction)) => (whole, Some(fraction)),
            None => (mantissa, None),
        };
        let whole = whole.strip_prefix('-').unwrap_or(whole);
        let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        let fits = digits(whole)
            && (whole == "0" || !whole.starts_with('0'))
            && fraction.is_none_or(digits)
            && exponent.is_none_or(digits);
        match (fits, self.peek()?) {
            // A number may go on.
            (false, None) => Err(ResultsError::Truncated { offset: self.offset }),
            (false, Some(_)) => Err(self.malformed("it has a number that is none")),
            (true, _) => Ok(text),
        }
    }

    /// The text at this place, cut where it is too long; its bytes are checked to the end.
    fn string(&mut self) -> Read_<String> {
        let mut text = std::mem::take(&mut self.scratch);
        text.clear();
        self.read_string(Some(&mut text))?;
        let cut = text.len() > TEXT_BYTES;
        if cut {
            // Not in the middle of a character: the bytes were checked to be UTF-8.
            let mut end = TEXT_BYTES;
            while text[end] & 0b1100_0000 == 0b1000_0000 {
                end -= 1;
            }
            text.truncate(end);
        }
        let mut owned = match std::str::from_utf8(&text) {
            Ok(text) => text.to_owned(),
            Err(_) => return Err(self.malformed("it has a text that is not UTF-8")),
        };
        if cut {
            owned.push('…');
        }
        text.clear();
        self.scratch = text;
        Ok(owned)
    }

    fn skip_string(&mut self) -> Read_<()> {
        self.read_string(None)
    }

    /// Reads over a text, and keeps its first bytes where somebody wants them.
    fn read_string(&mut self, mut kept: Option<&mut Vec<u8>>) -> Read_<()> {
        self.consume(1)?;
        let mut utf8 = Utf8::default();
        let mut keep = |bytes: &[u8]| {
            if let Some(kept) = kept.as_deref_mut() {
                // One more than fits, so that it shows that it is too long, and then the rest of its character.
                let room = (TEXT_BYTES + 8).saturating_sub(kept.len());
                kept.extend_from_slice(&bytes[..bytes.len().min(room)]);
            }
        };
        loop {
            let buffer = self.fill()?;
            if buffer.is_empty() {
                return Err(ResultsError::Truncated { offset: self.offset });
            }
            let plain = buffer.iter().position(|byte| matches!(byte, b'"' | b'\\' | 0..=0x1f)).unwrap_or(buffer.len());
            let is_text = utf8.take(&buffer[..plain]);
            keep(&buffer[..plain]);
            let stop = buffer.get(plain).copied();
            self.consume(plain)?;
            if !is_text || (stop.is_some() && !utf8.is_whole()) {
                return Err(self.malformed("it has a text that is not UTF-8"));
            }
            match stop {
                None => {}
                Some(b'"') => return self.consume(1),
                Some(b'\\') => {
                    self.consume(1)?;
                    let character = self.escape()?;
                    keep(character.encode_utf8(&mut [0; 4]).as_bytes());
                }
                Some(_) => return Err(self.malformed("it has a control character in a text")),
            }
        }
    }

    fn escape(&mut self) -> Read_<char> {
        Ok(match self.byte()? {
            b'"' => '"',
            b'\\' => '\\',
            b'/' => '/',
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                let first = self.hex()?;
                let code = match first {
                    0xd800..=0xdbff => {
                        let pair = (self.byte()?, self.byte()?) == (b'\\', b'u');
                        match if pair { self.hex()? } else { 0 } {
                            second @ 0xdc00..=0xdfff => 0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00),
                            _ => return Err(self.malformed("it has half a surrogate pair")),
                        }
                    }
                    code => code,
                };
                char::from_u32(code).ok_or_else(|| self.malformed("it has half a surrogate pair"))?
            }
            _ => return Err(self.malformed("it has an escape that JSON does not know")),
        })
    }

    fn hex(&mut self) -> Read_<u32> {
        let mut code = 0;
        for _ in 0..4 {
            let byte = self.byte()?;
            let digit = char::from(byte).to_digit(16);
            code = code << 4 | digit.ok_or_else(|| self.malformed("it has an escape that is no number"))?;
        }
        Ok(code)
    }
}

/// Checks bytes that come in pieces for UTF-8.
#[derive(Default)]
struct Utf8 {
    /// The begin of a character whose rest did not come yet.
    begun: Vec<u8>,
}

impl Utf8 {
    fn is_whole(&self) -> bool {
        self.begun.is_empty()
    }

    /// Whether all so far may be UTF-8.
    fn take(&mut self, mut bytes: &[u8]) -> bool {
        while !self.begun.is_empty() {
            let Some((first, rest)) = bytes.split_first() else { return true };
            self.begun.push(*first);
            bytes = rest;
            match std::str::from_utf8(&self.begun) {
                Ok(_) => self.begun.clear(),
                Err(error) if error.error_len().is_some() => return false,
                Err(_) => {}
            }
        }
        match std::str::from_utf8(bytes) {
            Ok(_) => true,
            Err(error) if error.error_len().is_some() => false,
            Err(error) => {
                self.begun.extend_from_slice(&bytes[error.valid_up_to()..]);
                true
            }
        }
    }
}

#[cfg(test)]
mod tests;
