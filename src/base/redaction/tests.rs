use proptest::prelude::*;

use super::*;

/// Gives so many bytes at a time.
struct Slow<'a>(&'a [u8], usize);

impl Read for Slow<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.1.min(buffer.len()).min(self.0.len());
        buffer[..count].copy_from_slice(&self.0[..count]);
        self.0 = &self.0[count..];
        Ok(count)
    }
}

fn redacted(values: &[&str], text: &str) -> (String, u64) {
    Redaction::of(values.iter().copied()).text(text)
}

#[test]
fn a_value_is_taken_out_in_every_form() {
    let value = "pa\"s/s<&é\n#{x}😀";
    let json = serde_json::to_string(value).expect("a text");
    let again = serde_json::to_string(&json).expect("a text");
    let unicode: String = value.encode_utf16().map(|unit| format!("\\u{unit:04X}")).collect();
    let numbers: String = value.chars().map(|c| format!("&#{};", u32::from(c))).collect();
    let hex: String = value.chars().map(|c| format!("&#x{:x};", u32::from(c))).collect();
    for form in [
        value,
        &json[1..json.len() - 1],
        &again[3..again.len() - 3],
        &json[1..json.len() - 1].replace('/', "\\/"),
        &unicode,
        &numbers,
        &hex,
        &xml(value),
        serde_json::to_string(&xml(value)).expect("a text").trim_matches('"'),
        &percent(value.as_bytes()),
        &STANDARD.encode(value),
    ] {
        let (kept, count) = redacted(&[value], &format!("{{\"a\": \"x {form} y\"}}"));
        assert_eq!(count, 1, "{form}: {kept}");
        assert!(kept.starts_with("{\"a\": \"x [redacted]") && kept.ends_with(" y\"}"), "{form}: {kept}");
    }
}

#[test]
fn what_is_not_a_value_stays_byte_for_byte() {
    let text =
        "{\"a\\u0041\": \"\\\"x\\/ &amp; hunter &#65;\", \"b\": [0.47110, 14711, 4711.5, 47110, x4711]} \u{fffd} \\";
    assert_eq!(redacted(&["hunter2", "4711"], text), (text.to_owned(), 0));
    assert_eq!(redacted(&[], text), (text.to_owned(), 0));
    let (kept, count) = redacted(&["abc", "", "é€x"], "abc é€x");
    assert_eq!((kept.as_str(), count), ("abc é€x", 0));
    assert_eq!(Redaction::of(["abc", "", "é€x", "abcd"]).short(), 2);
}

#[test]
fn digits_alone_become_a_zero_that_is_valid_wherever_they_stood() {
    let (kept, count) = redacted(&["4711"], "{\"port\":4711,\"list\":[4711, 1],\"text\":\"pin 4711\"}");
    assert_eq!((kept.as_str(), count), ("{\"port\":0,\"list\":[0, 1],\"text\":\"pin 0\"}", 3));
    assert_eq!(redacted(&["4711"], "4711"), ("0".to_owned(), 1));
}

#[test]
fn values_that_overlap_go_as_one() {
    assert_eq!(redacted(&["abcdef", "defghi", "cdef"], "xabcdefghiy"), ("x[redacted]y".to_owned(), 1));
    assert_eq!(redacted(&["abab"], "xabababy abab"), ("x[redacted]y [redacted]".to_owned(), 2));
    // One that ends where the next begins.
    assert_eq!(redacted(&["abcd", "efgh"], "abcdefgh"), ("[redacted][redacted]".to_owned(), 2));
}

#[test]
fn base64_with_more_beside_it_and_hexadecimal_are_found() {
    let secret = "p\u{fb}ss\u{ff}w?rd~~";
    for alphabet in [&STANDARD, &URL_SAFE] {
        for before in ["", "a", "ab", "abc", "admin:"] {
            for behind in ["", "\n", "yz", "xyz"] {
                let text = format!("Basic {} end", alphabet.encode(format!("{before}{secret}{behind}")));
                let (kept, count) = redacted(&[secret], &text);
                assert!(count > 0 && kept.contains(MARKER), "{before} {behind}: {kept}");
                // What is left of it has less than a character of the value at either side.
                let left = kept.trim_start_matches("Basic ").replace(MARKER, "");
                assert!(left.len() <= (before.len() + behind.len()).div_ceil(3) * 4 + 4 + " end".len(), "{kept}");
            }
        }
    }
    let hex: String = secret.bytes().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(redacted(&[secret], &format!("0x{hex}, {}", hex.to_uppercase())).1, 2);
    // A value that is too short for that is found as it is, and not in every text that has a few of its characters.
    assert_eq!(redacted(&["abcd"], &STANDARD.encode("xabcdx")).1, 0);
}

#[test]
fn nothing_to_take_out_leaves_all_as_it_is() {
    assert_eq!(Redaction::default().text("a\\u0041&amp;"), ("a\\u0041&amp;".to_owned(), 0));
}

#[test]
fn the_end_of_a_value_counts_where_the_begin_was_cut() {
    let redaction = Redaction::of(["secret-value"]);
    let kept = |text: &str, cut| {
        let mut kept = Vec::new();
        redaction.copy(&mut text.as_bytes(), &mut kept, cut).expect("memory");
        String::from_utf8(kept).expect("text")
    };
    assert_eq!(kept("ret-value and so on", true), "[redacted] and so on");
    assert_eq!(kept("ret-value and so on", false), "ret-value and so on");
    assert_eq!(kept("lue", true), "lue");
}

#[test]
fn many_values_in_much_text_are_all_found() {
    let filler = "x".repeat(CHUNK / 3);
    let text = format!("{filler}hunter22{filler}hun\\u0074er22{filler}hunter22{filler}{filler}hunter2").repeat(3);
    let (kept, count) = redacted(&["hunter22"], &text);
    assert_eq!((count, kept.contains("hunter22")), (9, false));
    assert_eq!(kept.len(), text.len() + 6 * (MARKER.len() - 8) + 3 * MARKER.len() - 3 * "hun\\u0074er22".len());
}

proptest! {
    /// However the text is cut into reads, the same comes out, and no value is in what its escapes stand for.
    #[test]
    fn reads_make_no_difference(
        parts in proptest::collection::vec(prop_oneof![Just("s3cr3t\"x".to_owned()), "[a-z\"\\\\/&;#3]{0,6}"], 0..12),
        step in 1..9usize,
        escaped in any::<bool>(),
    ) {
        let plain: String = parts.concat();
        let text = if escaped { serde_json::to_string(&plain).expect("a text") } else { plain };
        let redaction = Redaction::of(["s3cr3t\"x"]);
        let (whole, count) = redaction.text(&text);
        let mut kept = Vec::new();
        let found = redaction.copy(&mut Slow(text.as_bytes(), step), &mut kept, false).expect("memory");
        prop_assert_eq!((&String::from_utf8(kept).expect("text"), found), (&whole, count));
        prop_assert!(!whole.contains("s3cr3t\"x"));
        if escaped {
            // It is still JSON.
            let read: String = serde_json::from_str(&whole).expect("still a text");
            prop_assert!(!read.contains("s3cr3t\"x"));
        }
    }
}
