//! Text that came from outside, made safe to show.

use std::borrow::Cow;

/// The same text with every control, bidirectional or otherwise invisible formatting character written as `\u{..}`, so
/// that a hostile name can't steer the reader's terminal or reorder what is read. A line break counts as one.
pub fn printable(text: &str) -> Cow<'_, str> {
    neutralise(text, |_| false)
}

/// Like [`printable`], but line breaks and tabs stay.
pub fn printable_lines(text: &str) -> Cow<'_, str> {
    neutralise(text, |c| c == '\n' || c == '\t')
}

/// At most 80 characters of the text, printable, for an error message.
pub fn brief(text: &str) -> String {
    let mut short: String = text.chars().take(80).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    printable(&short).into_owned()
}

fn neutralise(text: &str, keep: impl Fn(char) -> bool) -> Cow<'_, str> {
    let unsafe_char = |c: char| !keep(c) && is_unsafe(c);
    if !text.chars().any(unsafe_char) {
        return Cow::Borrowed(text);
    }
    let mut clean = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if unsafe_char(c) { clean.extend(c.escape_unicode()) } else { clean.push(c) }
    }
    Cow::Owned(clean)
}

fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}' | '\u{e0000}'..='\u{e007f}')
}

/// A key of a JSON document that other readers take for a known one: names are compared without their case by Go's
/// `encoding/json`, which most of what runs containers is written with, and the last one counts. What we read and what
/// is run would then be two things. `nested` are the keys whose values are looked into; lists are, too.
pub fn key_read_otherwise<'a>(value: &'a serde_json::Value, known: &[&str], nested: &[&str]) -> Option<&'a str> {
    match value {
        serde_json::Value::Array(items) => items.iter().find_map(|item| key_read_otherwise(item, known, nested)),
        serde_json::Value::Object(fields) => fields.iter().find_map(|(key, value)| {
            if known.contains(&key.as_str()) {
                return nested.contains(&key.as_str()).then(|| key_read_otherwise(value, known, nested)).flatten();
            }
            // These two fold to ASCII letters.
            let folded = key.replace('\u{212a}', "k").replace('\u{17f}', "s");
            known.iter().any(|name| folded.eq_ignore_ascii_case(name)).then_some(key.as_str())
        }),
        serde_json::Value::Null
        | serde_json::Value::Bool(_)
        | serde_json::Value::Number(_)
        | serde_json::Value::String(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_and_overrides_are_shown_not_obeyed() {
        assert_eq!(printable("a\u{1b}]0;x\u{7}\u{202e}b\n"), "a\\u{1b}]0;x\\u{7}\\u{202e}b\\u{a}");
        assert_eq!(printable_lines("a\n\tb"), "a\n\tb");
        assert!(matches!(printable("ordinary ünïcode"), Cow::Borrowed(_)));
    }
}
