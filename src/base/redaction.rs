//! Takes secret values out of what is to be kept: text, JSON and XML, while it streams by.
//!
//! | how a value may stand there | how it is found |
//! |---|---|
//! | as it is | the first pass |
//! | with JSON's escapes, whichever (`\"`, `\/`, `\u0041`) | the second pass, on what the escapes stand for |
//! | with XML's (`&amp;`, `&#x41;`) | the third |
//! | quoted once more inside a text, percent-encoded, in hexadecimal | as further values to look for, in the form that tools write |
//! | as base64, alone or amid more (`user:password`), in either alphabet | as the part of it that does not depend on what is beside it, at each of three places |
//! | across two reads | what may be the begin of a value is held back |
//! | cut at the begin of what was kept | the end of a value counts there, where the caller says that something was cut |
//! | overlapping another one | what is covered by either is taken out as one |
//!
//! Values of less than four characters would be found everywhere and are not looked for; who asks is told how many these are. A
//! value of digits alone counts only where no letter, digit or point is beside it. What is taken out becomes [`MARKER`], or
//! `0` for digits alone, so that the rest can still be read; in no format do these say that anything passed.

use std::io::{self, Read, Write};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use zeroize::{Zeroize as _, Zeroizing};

/// What stands for a value that was taken out.
pub const MARKER: &str = "[redacted]";

/// Characters of the shortest value that is looked for.
pub const SHORTEST: usize = 4;

/// Bytes after which what can't be part of a value any more is handed on.
const CHUNK: usize = 64 << 10;

/// The longest escape: a pair of surrogates in JSON, a number with some zeros in XML.
const ESCAPE: usize = 16;

/// Values that are to be taken out. `Debug` does not show them.
#[derive(Clone, Default)]
pub struct Redaction {
    values: Vec<Zeroizing<Vec<u8>>>,
    longest: usize,
    short: usize,
    /// Those that end with each byte.
    ends: Vec<Vec<usize>>,
}

impl std::fmt::Debug for Redaction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Redaction({} values)", self.values.len())
    }
}

impl Redaction {
    /// What takes out these values, in every form that is looked for.
    pub fn of<'v>(values: impl IntoIterator<Item = &'v str>) -> Self {
        let mut all = Self { ends: vec![Vec::new(); 256], ..Self::default() };
        for value in values {
            if value.chars().count() < SHORTEST {
                all.short += usize::from(!value.is_empty());
                continue;
            }
            let bytes = value.as_bytes();
            all.add(bytes.to_vec());
            let quoted = serde_json::Value::from(value).to_string();
            let quoted = quoted.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or_default();
            all.add(quoted.as_bytes().to_vec());
            // As Ruby shows a text.
            all.add(quoted.replace("#{", "\\#{").replace("#$", "\\#$").replace("#@", "\\#@").into_bytes());
            all.add(xml(value).into_bytes());
            all.add(percent(bytes).into_bytes());
            let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            all.add(hex.to_ascii_uppercase().into_bytes());
            all.add(hex.into_bytes());
            for alphabet in [&STANDARD, &URL_SAFE] {
                all.add(alphabet.encode(bytes).trim_end_matches('=').as_bytes().to_vec());
                (0..3).filter_map(|before| amid(alphabet, bytes, before)).for_each(|part| all.add(part));
            }
        }
        all
    }

    fn add(&mut self, value: Vec<u8>) {
        let value = Zeroizing::new(value);
        if value.len() < SHORTEST || self.values.contains(&value) {
            return;
        }
        self.longest = self.longest.max(value.len());
        if let Some(last) = value.last() {
            self.ends[usize::from(*last)].push(self.values.len());
        }
        self.values.push(value);
    }

    /// Whether there is nothing to take out.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// How many values are too short to be looked for.
    pub fn short(&self) -> usize {
        self.short
    }

    /// Copies `from` to `to` without the values, and says how often one was taken out. `cut` says that the begin of `from` was
    /// cut off, so that only the end of a value may stand there.
    ///
    /// # Errors
    /// When reading or writing fails.
    pub fn copy(&self, from: &mut impl Read, to: &mut impl Write, cut: bool) -> io::Result<u64> {
        let mut xml = Pass::new(self, Escapes::Xml, to, cut);
        let mut json = Pass::new(self, Escapes::Json, &mut xml, cut);
        let mut plain = Pass::new(self, Escapes::None, &mut json, cut);
        io::copy(from, &mut plain)?;
        let mut count = plain.finish()?;
        count += json.finish()?;
        count += xml.finish()?;
        Ok(count)
    }

    /// A text without the values, and how often one was taken out.
    pub fn text(&self, text: &str) -> (String, u64) {
        let mut kept = Vec::new();
        let count = self.copy(&mut text.as_bytes(), &mut kept, false).unwrap_or_default();
        (String::from_utf8_lossy(&kept).into_owned(), count)
    }
}

/// Characters of base64 of which no one would say that they are in a text by chance.
const BASE64: usize = 6;

/// The base64 of the bytes after so many others, and before some: without the characters at both ends that depend on these.
fn amid(alphabet: &impl base64::Engine, bytes: &[u8], before: usize) -> Option<Vec<u8>> {
    let mut text = vec![0; before];
    text.extend_from_slice(bytes);
    let encoded = Zeroizing::new(alphabet.encode(&text).into_bytes());
    text.zeroize();
    // Six bits each: the first that has none of what is before, up to the last that has none of what is behind.
    let (begin, end) = ((before * 8).div_ceil(6), (before + bytes.len()) * 8 / 6);
    encoded.get(begin..end).filter(|part| part.len() >= BASE64).map(<[u8]>::to_vec)
}

fn xml(value: &str) -> String {
    let mut escaped = String::new();
    for c in value.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&apos;"),
            other => escaped.push(other),
        }
    }
    escaped
}

/// RFC 3986, with all but unreserved characters encoded.
fn percent(bytes: &[u8]) -> String {
    let mut encoded = String::new();
    for byte in bytes {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => encoded.push(char::from(*byte)),
            other => encoded.push_str(&format!("%{other:02X}")),
        }
    }
    encoded
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Escapes {
    None,
    Json,
    Xml,
}

/// One pass: what comes in, what its escapes stand for, and what of it is covered by a value.
struct Pass<'r, W> {
    redaction: &'r Redaction,
    escapes: Escapes,
    out: W,
    /// What came in and was not handed on.
    raw: Vec<u8>,
    /// How much of it is decoded.
    read: usize,
    /// What it stands for, with the begin and end in `raw` of what each byte stands for.
    decoded: Vec<u8>,
    from: Vec<usize>,
    to: Vec<usize>,
    /// Parts of `raw` that are values, in the order of their ends, and whether they are digits alone.
    covered: Vec<(usize, usize, bool)>,
    /// The end of digits that are one only if nothing that belongs to them follows.
    open: Vec<(usize, usize)>,
    count: u64,
    /// The last byte that was handed on.
    before: u8,
    /// Whether the begin was cut off and is not looked at yet.
    cut: bool,
}

impl<'r, W: Write> Pass<'r, W> {
    fn new(redaction: &'r Redaction, escapes: Escapes, out: W, cut: bool) -> Self {
        Self {
            redaction,
            escapes,
            out,
            raw: Vec::new(),
            read: 0,
            decoded: Vec::new(),
            from: Vec::new(),
            to: Vec::new(),
            covered: Vec::new(),
            open: Vec::new(),
            count: 0,
            before: 0,
            cut,
        }
    }

    /// Decodes what is there; an escape whose end has not come waits, unless nothing more comes.
    fn decode(&mut self, last: bool) {
        while self.read < self.raw.len() {
            let rest = &self.raw[self.read..];
            let escape = match (self.escapes, rest[0]) {
                (Escapes::Json, b'\\') => json_escape(rest),
                (Escapes::Xml, b'&') => xml_escape(rest),
                _ => None,
            };
            let escapes = matches!((self.escapes, rest[0]), (Escapes::Json, b'\\') | (Escapes::Xml, b'&'));
            if escapes && rest.len() < ESCAPE && !last {
                return;
            }
            let mut buffer = [0; 4];
            let (length, stands_for) = match escape {
                Some((length, c)) => (length, c.encode_utf8(&mut buffer).len()),
                None => {
                    buffer[0] = rest[0];
                    (1, 1)
                }
            };
            let (begin, end) = (self.read, self.read + length);
            self.read = end;
            for byte in buffer.into_iter().take(stands_for) {
                self.decoded.push(byte);
                self.from.push(begin);
                self.to.push(end);
                self.settle(byte);
                self.find();
            }
        }
    }

    /// Whether the byte belongs to a number or word.
    fn belongs(byte: u8) -> bool {
        byte.is_ascii_alphanumeric() || byte == b'.' || byte == b'_'
    }

    /// Digits that ended just before this byte.
    fn settle(&mut self, byte: u8) {
        for (begin, end) in std::mem::take(&mut self.open) {
            if !Self::belongs(byte) {
                self.covered.push((begin, end, true));
            }
        }
    }

    /// Finds values that end with the last decoded byte.
    fn find(&mut self) {
        let Some(last) = self.decoded.last() else { return };
        let Some(ends) = self.redaction.ends.get(usize::from(*last)) else { return };
        for value in ends.iter().map(|at| &self.redaction.values[*at]) {
            if !self.decoded.ends_with(value) {
                continue;
            }
            let begin = self.decoded.len() - value.len();
            let place = (self.from[begin], self.to[self.decoded.len() - 1]);
            if !value.iter().all(u8::is_ascii_digit) {
                self.covered.push((place.0, place.1, false));
                continue;
            }
            let before = begin.checked_sub(1).map_or(self.before, |at| self.decoded[at]);
            if !Self::belongs(before) {
                self.open.push(place);
            }
        }
    }

    /// The ends of values at the begin of what was cut.
    fn find_cut(&mut self) {
        self.cut = false;
        let mut covered = 0;
        for value in &self.redaction.values {
            for length in (SHORTEST..value.len()).rev() {
                if self.decoded.starts_with(&value[value.len() - length..]) {
                    covered = covered.max(length);
                    break;
                }
            }
        }
        if covered > 0 {
            self.covered.insert(0, (0, self.to[covered - 1], false));
        }
    }

    /// Hands on what can't be part of a value any more; all of it at the end.
    fn hand_on(&mut self, last: bool) -> io::Result<()> {
        if self.cut && (last || self.decoded.len() >= self.redaction.longest) {
            self.find_cut();
        }
        if last {
            self.settle(b' ');
        }
        let keep = if last { 0 } else { self.redaction.longest };
        let Some(settled) = self.decoded.len().checked_sub(keep).filter(|settled| *settled > 0) else { return Ok(()) };
        let mut end = if last { self.raw.len() } else { self.to[settled - 1] };
        // A value that goes on beyond it is handed on as a whole later, and so is what it overlaps.
        loop {
            let crossing = self.covered.iter().find(|(begin, until, _)| *begin < end && *until > end);
            let open = self.open.iter().map(|(begin, _)| *begin).find(|begin| *begin < end);
            match (crossing.map(|(begin, ..)| *begin), open) {
                (Some(begin), _) | (None, Some(begin)) => end = begin,
                (None, None) => break,
            }
        }
        self.covered.sort_unstable();
        let mut at = 0;
        // In the order of their begins; none crosses `end`.
        let taken = self.covered.partition_point(|(begin, ..)| *begin < end);
        let mut parts = self.covered.drain(..taken).peekable();
        while let Some((begin, mut until, mut digits)) = parts.next() {
            while let Some((_, other, alone)) = parts.next_if(|(next, ..)| *next < until) {
                until = until.max(other);
                digits &= alone;
            }
            self.out.write_all(&self.raw[at..begin])?;
            self.out.write_all(if digits { b"0" } else { MARKER.as_bytes() })?;
            self.count += 1;
            at = until;
        }
        drop(parts);
        self.out.write_all(&self.raw[at..end])?;
        if let Some(last) = end.checked_sub(1) {
            self.before = self.raw[last];
        }
        self.raw.drain(..end);
        self.read -= end;
        let gone = self.from.partition_point(|begin| *begin < end);
        self.decoded.drain(..gone);
        self.from.drain(..gone);
        self.to.drain(..gone);
        let back = |place: &mut usize| *place -= end;
        self.from.iter_mut().chain(self.to.iter_mut()).for_each(back);
        self.covered.iter_mut().for_each(|(begin, until, _)| {
            *begin -= end;
            *until -= end;
        });
        self.open.iter_mut().for_each(|(begin, until)| {
            *begin -= end;
            *until -= end;
        });
        Ok(())
    }

    fn finish(mut self) -> io::Result<u64> {
        self.decode(true);
        self.hand_on(true)?;
        Ok(self.count)
    }
}

impl<W: Write> Write for Pass<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.raw.extend_from_slice(bytes);
        self.decode(false);
        if self.raw.len() >= CHUNK + self.redaction.longest {
            self.hand_on(false)?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The length of an escape of JSON and the character that it stands for.
fn json_escape(rest: &[u8]) -> Option<(usize, char)> {
    let unit = |at: usize| {
        let digits = rest.get(at..at + 6)?.strip_prefix(b"\\u")?;
        u32::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
    };
    Some(match rest.get(1)? {
        b'n' => (2, '\n'),
        b't' => (2, '\t'),
        b'r' => (2, '\r'),
        b'b' => (2, '\u{8}'),
        b'f' => (2, '\u{c}'),
        simple @ (b'"' | b'\\' | b'/') => (2, char::from(*simple)),
        b'u' => match (unit(0)?, unit(6)) {
            (high @ 0xd800..=0xdbff, Some(low @ 0xdc00..=0xdfff)) => {
                (12, char::from_u32(0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00))?)
            }
            (code, _) => (6, char::from_u32(code)?),
        },
        _ => return None,
    })
}

/// The same of XML.
fn xml_escape(rest: &[u8]) -> Option<(usize, char)> {
    let end = rest.iter().take(ESCAPE).position(|byte| *byte == b';')?;
    let name = std::str::from_utf8(&rest[1..end]).ok()?;
    let c = match name {
        "amp" => '&',
        "lt" => '<',
        "gt" => '>',
        "quot" => '"',
        "apos" => '\'',
        _ => {
            let code = name.strip_prefix('#')?;
            let code = match code.strip_prefix(['x', 'X']) {
                Some(hex) => u32::from_str_radix(hex, 16),
                None => code.parse(),
            };
            char::from_u32(code.ok()?)?
        }
    };
    Some((end + 1, c))
}

#[cfg(test)]
mod tests;
