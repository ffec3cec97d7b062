//! Durations and byte counts as people write them.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A length of time written as a whole number and one of `s`, `m`, `h`, `d`, `w` (`90d`, `15m`). A day has 24 hours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span(Duration);

/// Why a text is no quantity.
#[derive(Debug, thiserror::Error)]
#[error("`{}` is not {expected}", crate::base::text::brief(.text))]
pub struct QuantityError {
    text: String,
    expected: &'static str,
}

impl Span {
    /// So many seconds.
    pub const fn seconds(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }

    /// So many days of 24 hours.
    pub const fn days(days: u64) -> Self {
        Self::seconds(days * 86_400)
    }

    /// The same as a standard duration.
    pub const fn duration(self) -> Duration {
        self.0
    }
}

impl FromStr for Span {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let refuse = || QuantityError {
            text: text.to_owned(),
            expected: "a duration: write a whole number and one of s, m, h, d, w, as in `90d`",
        };
        let unit = text.chars().last().ok_or_else(refuse)?;
        let seconds = match unit {
            's' => 1,
            'm' => 60,
            'h' => 3600,
            'd' => 86_400,
            'w' => 7 * 86_400,
            _ => return Err(refuse()),
        };
        let number = &text[..text.len() - unit.len_utf8()];
        if number.is_empty() || !number.bytes().all(|b| b.is_ascii_digit()) {
            return Err(refuse());
        }
        let count: u64 = number.parse().map_err(|_| refuse())?;
        Ok(Self::seconds(count.checked_mul(seconds).ok_or_else(refuse)?))
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        for (unit, length) in [("w", 604_800), ("d", 86_400), ("h", 3600), ("m", 60)] {
            if seconds != 0 && seconds.is_multiple_of(length) {
                return write!(f, "{}{unit}", seconds / length);
            }
        }
        write!(f, "{seconds}s")
    }
}

crate::base::schema::text_schema!(
    Span,
    "Span",
    "A length of time: a whole number and one of s, m, h, d, w, as 90d.",
    "^[0-9]+[smhdw]$"
);

impl Serialize for Span {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// A number of bytes written as a number with at most nine decimals and a unit: `B`, the decimal `kB`, `MB`, `GB`, `TB`
/// (1000 each), or the binary `KiB`, `MiB`, `GiB`, `TiB` (1024 each); without a unit it is a whole number of bytes. A
/// fraction of a byte is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteCount(u64);

impl ByteCount {
    /// So many bytes.
    pub const fn of(bytes: u64) -> Self {
        Self(bytes)
    }

    /// As a number.
    pub const fn bytes(self) -> u64 {
        self.0
    }
}

impl FromStr for ByteCount {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let refuse = || QuantityError {
            text: text.to_owned(),
            expected: "a size: write a number and one of B, kB, MB, GB, TB, KiB, MiB, GiB, TiB, as in `4.7GB`",
        };
        let end = text.bytes().position(|b| !b.is_ascii_digit() && b != b'.').unwrap_or(text.len());
        let (number, unit) = text.split_at(end);
        let scale: u128 = match unit.trim_start_matches(' ') {
            "" | "B" => 1,
            "kB" | "KB" => 1000,
            "MB" => 1000 * 1000,
            "GB" => 1000 * 1000 * 1000,
            "TB" => 1000 * 1000 * 1000 * 1000,
            "KiB" => 1 << 10,
            "MiB" => 1 << 20,
            "GiB" => 1 << 30,
            "TiB" => 1 << 40,
            _ => return Err(refuse()),
        };
        let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
        let digits = |text: &str, most: usize| {
            let good = (1..=most).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
            if good { text.parse::<u128>().map_err(|_| refuse()) } else { Err(refuse()) }
        };
        if scale == 1 && number.contains('.') {
            return Err(refuse());
        }
        // In integers, so that a size means the same bytes everywhere.
        let parts = 10_u128.pow(fraction.len().min(9) as u32);
        let bytes = digits(whole, 20)? * scale + digits(fraction, 9)? * scale / parts;
        u64::try_from(bytes).map(Self).map_err(|_| refuse())
    }
}

/// A byte count for people: `1.2 GiB`.
pub fn bytes_for_people(bytes: u64) -> String {
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64;
    let mut unit = "B";
    for next in ["KiB", "MiB", "GiB", "TiB"] {
        if value < 1024.0 {
            break;
        }
        value /= 1024.0;
        unit = next;
    }
    format!("{value:.1} {unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_read_what_they_write() {
        for text in ["90d", "1w", "15m", "36h", "45s", "0s"] {
            let span: Span = text.parse().expect(text);
            assert_eq!(span.to_string().parse::<Span>().expect("own text"), span);
        }
        for text in ["", "d", "1.5h", "-1d", "10", "10 d", "99999999999999999w", "+3d", "3é"] {
            assert!(text.parse::<Span>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn sizes_are_exact() {
        let sizes = [
            ("4.7GB", 4_700_000_000),
            ("700MB", 700_000_000),
            ("650 MiB", 650 << 20),
            ("1.5KiB", 1536),
            ("512", 512),
            ("0.000000001GB", 1),
            ("2TB", 2_000_000_000_000),
            ("1kB", 1000),
        ];
        for (text, bytes) in sizes {
            assert_eq!(text.parse::<ByteCount>().expect(text).bytes(), bytes, "{text}");
        }
        for text in [
            "",
            "GB",
            "1.GB",
            ".5GB",
            "1.5",
            "1.5B",
            "-1GB",
            "+1GB",
            "1gb",
            "1 G",
            "1e3",
            "99999999999TB",
            "1..2GB",
            "1GB ",
        ] {
            assert!(text.parse::<ByteCount>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn bytes_read_well() {
        assert_eq!(bytes_for_people(1023), "1023 B");
        assert_eq!(bytes_for_people(1 << 30), "1.0 GiB");
    }
}
