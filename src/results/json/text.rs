//! Texts and numbers of JSON.

use std::io::Read;

use super::plain::plain;
use super::utf8::Utf8;
use super::{Json, Read_, TEXT_BYTES};
use crate::results::ResultsError;

/// Digits and signs of one number.
const NUMBER_BYTES: usize = 64;

/// A number as it stands there.
pub(super) struct Number {
    bytes: [u8; NUMBER_BYTES],
    length: usize,
}

impl Number {
    pub(super) fn as_str(&self) -> &str {
        std::str::from_utf8(&self.bytes[..self.length]).expect("digits and signs are ASCII")
    }
}

impl<R: Read> Json<R> {
    /// RFC 8259, section 6.
    pub(super) fn number_text(&mut self) -> Read_<Number> {
        let mut number = Number { bytes: [0; NUMBER_BYTES], length: 0 };
        while let Some(byte @ (b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E')) = self.source.peek()? {
            self.source.consume(1);
            if number.length >= NUMBER_BYTES {
                return Err(self.malformed("it has a number of more than 64 digits"));
            }
            number.bytes[number.length] = byte;
            number.length += 1;
        }
        match (is_number(number.as_str()), self.source.peek()?) {
            // A number may go on.
            (false, None) => Err(self.truncated()),
            (false, Some(_)) => Err(self.malformed("it has a number that is none")),
            (true, _) => Ok(number),
        }
    }

    /// The text at this place, cut where it is too long; its bytes are checked to the end.
    pub(super) fn string(&mut self) -> Read_<String> {
        let mut text = std::mem::take(&mut self.scratch);
        let read = self.string_into(&mut text);
        let owned = read.map(|()| text.as_str().to_owned());
        self.scratch = text;
        owned
    }

    /// Replaces what is in `text` by the text at this place.
    pub(super) fn string_into(&mut self, text: &mut String) -> Read_<()> {
        let mut bytes = std::mem::take(text).into_bytes();
        bytes.clear();
        self.read_string(Some(&mut bytes))?;
        let cut = bytes.len() > TEXT_BYTES;
        if cut {
            // Not in the middle of a character: the bytes were checked to be UTF-8.
            let mut end = TEXT_BYTES;
            while bytes[end] & 0b1100_0000 == 0b1000_0000 {
                end -= 1;
            }
            bytes.truncate(end);
        }
        *text = String::from_utf8(bytes).map_err(|_| self.malformed("it has a text that is not UTF-8"))?;
        if cut {
            text.push('…');
        }
        Ok(())
    }

    /// Reads over a text, and keeps its first bytes where somebody wants them.
    pub(super) fn read_string(&mut self, mut kept: Option<&mut Vec<u8>>) -> Read_<()> {
        self.source.consume(1);
        let mut utf8 = Utf8::default();
        let mut keep = |bytes: &[u8]| {
            if let Some(kept) = kept.as_deref_mut() {
                // More than fits, so that it shows that it is too long, and then the rest of its character.
                let room = (TEXT_BYTES + 8).saturating_sub(kept.len());
                kept.extend_from_slice(&bytes[..bytes.len().min(room)]);
            }
        };
        loop {
            let held = self.source.held()?;
            if held.is_empty() {
                return Err(self.truncated());
            }
            let found = plain(held);
            let begin = &held[..found.length];
            let is_text = (found.is_ascii && utf8.is_whole()) || utf8.take(begin);
            keep(begin);
            let stop = held.get(found.length).copied();
            self.source.consume(found.length);
            if !is_text || (stop.is_some() && !utf8.is_whole()) {
                return Err(self.malformed("it has a text that is not UTF-8"));
            }
            match stop {
                None => {}
                Some(b'"') => {
                    self.source.consume(1);
                    return Ok(());
                }
                Some(b'\\') => {
                    self.source.consume(1);
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

    pub(super) fn byte(&mut self) -> Read_<u8> {
        match self.source.peek()? {
            Some(byte) => {
                self.source.consume(1);
                Ok(byte)
            }
            None => Err(self.truncated()),
        }
    }

    pub(super) fn truncated(&self) -> ResultsError {
        ResultsError::Truncated { offset: self.source.offset() }
    }
}

/// Whether it is a number by RFC 8259, section 6.
fn is_number(text: &str) -> bool {
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent.strip_prefix(['+', '-']).unwrap_or(exponent))),
        None => (text, None),
    };
    let (whole, fraction) = match mantissa.split_once('.') {
        Some((whole, fraction)) => (whole, Some(fraction)),
        None => (mantissa, None),
    };
    let whole = whole.strip_prefix('-').unwrap_or(whole);
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    digits(whole)
        && (whole == "0" || !whole.starts_with('0'))
        && fraction.is_none_or(digits)
        && exponent.is_none_or(digits)
}
