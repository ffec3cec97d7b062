//! Looking for what is not plain text or white space, eight bytes at a time: most of a result is read over, and all of its
//! bytes pass here.

const ONES: u64 = u64::from_ne_bytes([1; 8]);
const HIGH: u64 = u64::from_ne_bytes([0x80; 8]);
const SPACES: u64 = u64::from_ne_bytes([b' '; 8]);

/// The text at the begin of some bytes that needs no attention.
pub(super) struct Plain {
    /// How many bytes come before the first quote, backslash or control character.
    pub(super) length: usize,
    /// Whether all of them are ASCII.
    pub(super) is_ascii: bool,
}

/// What of these bytes stands in a text for itself.
pub(super) fn plain(bytes: &[u8]) -> Plain {
    let (words, rest) = bytes.as_chunks::<8>();
    let mut high = 0;
    for (number, word) in words.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        let stop = stops(word);
        if stop != 0 {
            let within = stop.trailing_zeros() / 8;
            high |= word & !(u64::MAX << (8 * within));
            return Plain { length: number * 8 + within as usize, is_ascii: high & HIGH == 0 };
        }
        high |= word;
    }
    let mut length = bytes.len() - rest.len();
    let mut is_ascii = high & HIGH == 0;
    for byte in rest {
        if matches!(byte, b'"' | b'\\' | 0..=0x1f) {
            break;
        }
        is_ascii &= byte.is_ascii();
        length += 1;
    }
    Plain { length, is_ascii }
}

/// The high bit of the first byte, counted from the lowest, that is a quote, a backslash or a control character; that of later
/// bytes means nothing.
fn stops(word: u64) -> u64 {
    let zero = |word: u64| word.wrapping_sub(ONES) & !word;
    let control = word.wrapping_sub(ONES * 0x20) & !word;
    (control | zero(word ^ (ONES * b'"' as u64)) | zero(word ^ (ONES * b'\\' as u64))) & HIGH
}

/// How many bytes at the begin of these are white space.
pub(super) fn blank(bytes: &[u8]) -> usize {
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        match byte {
            // What people read is set in by many.
            b' ' => {
                at += 1;
                while bytes.get(at..at + 8).is_some_and(|word| word == SPACES.to_ne_bytes()) {
                    at += 8;
                }
            }
            b'\n' | b'\t' | b'\r' => at += 1,
            _ => break,
        }
    }
    at
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig { cases: 4096, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn what_is_found_is_what_byte_by_byte_is_found(
            bytes in proptest::collection::vec(prop_oneof![8 => 0x20_u8..0x80, 1 => any::<u8>(), 1 => Just(b'"'), 1 => Just(0x1f)], 0..60),
        ) {
            let length = bytes.iter().position(|byte| matches!(byte, b'"' | b'\\' | 0..=0x1f)).unwrap_or(bytes.len());
            let found = plain(&bytes);
            prop_assert_eq!((found.length, found.is_ascii), (length, bytes[..length].is_ascii()));
        }

        #[test]
        fn white_space_ends_where_something_else_begins(text in "[ \n\t\r]{0,40}[x \u{a0}]{0,3}") {
            let length = text.bytes().position(|byte| !matches!(byte, b' ' | b'\n' | b'\t' | b'\r')).unwrap_or(text.len());
            prop_assert_eq!(blank(text.as_bytes()), length);
        }
    }
}
