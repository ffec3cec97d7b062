//! Texts and times in the form in which a page shows them.

use std::fmt;

use jiff::{Timestamp, tz::TimeZone};

use crate::base::digest::Digest;
use crate::base::text::{printable, printable_lines};

/// A text that is safe to show once it is escaped for HTML: neutralised and of bounded length.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Shown(String);

impl Shown {
    /// Names, titles, paths: on one line, at most 300 characters.
    pub(super) fn line(text: &str) -> Self {
        Self(cut(&printable(text), 300))
    }

    /// What a target or a scanner said: line breaks stay, at most 800 characters.
    pub(super) fn said(text: &str) -> Self {
        Self(cut(&printable_lines(text.trim()), 800))
    }

    /// What a profile explains: line breaks stay, at most 6000 characters.
    pub(super) fn lines(text: &str) -> Self {
        Self(cut(&printable_lines(text.trim()), 6000))
    }

    /// Whether nothing is left to show.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The text.
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

fn cut(text: &str, limit: usize) -> String {
    match text.char_indices().nth(limit) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}… ({} more characters)", &text[..end], text[end..].chars().count()),
    }
}

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A moment: for people to the second in UTC, for machines in full.
#[derive(Clone, Debug)]
pub(super) struct When(Timestamp);

impl When {
    /// This moment.
    pub(super) fn new(at: Timestamp) -> Self {
        Self(at)
    }

    /// The `datetime` attribute of HTML's `time` element.
    pub(super) fn machine(&self) -> String {
        self.0.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
    }
}

impl fmt::Display for When {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.to_zoned(TimeZone::UTC).strftime("%Y-%m-%d %H:%M:%S UTC").fmt(f)
    }
}

/// A digest in full, shown in a way that wraps.
pub(super) fn digest(digest: &Digest) -> Shown {
    Shown::line(&digest.to_string())
}

/// Characters of a marking in the margin of a printed page.
const LINE: usize = 100;

/// A classification marking, or several.
#[derive(Clone, Debug)]
pub(super) struct Marking {
    /// The marking.
    pub(super) text: Shown,
    /// The class that colours it as is customary for its first word.
    pub(super) class: &'static str,
    /// The marking as the content of a CSS string, in hexadecimal escapes only, so that no text can leave the string.
    pub(super) css: String,
    /// Whether a page's margin has no room for all of it.
    pub(super) is_long: bool,
}

impl Marking {
    /// The marking of this text.
    pub(super) fn new(text: &str) -> Self {
        let text = Shown::line(text);
        let upper = text.as_str().to_uppercase();
        let class = [
            ("TOP SECRET", "top-secret"),
            ("SECRET", "secret"),
            ("CONFIDENTIAL", "confidential"),
            ("CUI", "cui"),
            ("CONTROLLED", "cui"),
            ("UNCLASSIFIED", "unclassified"),
        ]
        .into_iter()
        // Of several, the highest of those that are known gives the colour.
        .find_map(|(word, class)| upper.split(" + ").any(|one| one.starts_with(word)).then_some(class))
        .unwrap_or("other");
        // The margin of a page has room for one line. What does not fit is printed on the first and the last page.
        let is_long = text.as_str().chars().count() > LINE;
        let line = text.as_str().chars().take(LINE).chain(is_long.then_some('…'));
        let css = line.map(|c| format!("\\{:06x}", u32::from(c))).collect();
        Self { text, class, css, is_long }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_cut_says_so() {
        let text = "é".repeat(400);
        assert!(Shown::line(&text).as_str().ends_with("é… (100 more characters)"));
        assert_eq!(Shown::line("short").as_str(), "short");
    }

    #[test]
    fn a_marking_can_not_leave_its_string() {
        let marking = Marking::new("\"}</style><script>");
        assert!(marking.css.chars().all(|c| c == '\\' || c.is_ascii_hexdigit()), "{}", marking.css);
        assert_eq!(Marking::new("Top Secret//NOFORN").class, "top-secret");
        assert_eq!(Marking::new("VS-NfD").class, "other");
    }

    #[test]
    fn times_are_in_utc_to_the_second() {
        let when = When::new("2026-11-21T02:00:03.999999999Z".parse().expect("a time"));
        assert_eq!(when.to_string(), "2026-11-21 02:00:03 UTC");
        assert_eq!(when.machine(), "2026-11-21T02:00:03Z");
    }
}
