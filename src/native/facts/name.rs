//! File names and other bytes from a target, as text in which no two of them look the same.

/// The bytes as text: UTF-8 stays, every other byte and the backslash become `\xNN`. Control characters stay too: who
/// shows the text neutralises them.
pub(crate) fn text(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    let mut out = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for (i, part) in chunk.valid().split('\\').enumerate() {
            if i > 0 {
                out.push_str("\\x5c");
            }
            out.push_str(part);
        }
        for byte in chunk.invalid() {
            let _ = write!(out, "\\x{byte:02x}");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn odd_names_stay_apart() {
        assert_eq!(text(b"/tmp/a\xffb"), "/tmp/a\\xffb");
        assert_eq!(text(b"/tmp/a\\xffb"), "/tmp/a\\x5cxffb");
        assert_eq!(text("/tmp/ünï\n".as_bytes()), "/tmp/ünï\n");
    }

    proptest! {
        #[test]
        fn no_two_names_look_the_same(a in proptest::collection::vec(any::<u8>(), 0..12), b in proptest::collection::vec(any::<u8>(), 0..12)) {
            prop_assert_eq!(a == b, text(&a) == text(&b));
        }
    }
}
