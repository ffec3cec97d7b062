//! Cutting an archive into parts for media that are smaller than it ("Parts" in docs/bundle-format.md).

use std::ops::Range;
use std::path::{Path, PathBuf};

use super::archive::BLOCK;
use crate::base::quantity::ByteCount;

/// The most parts that a bundle is cut into. A courier with more media than this would rather have larger ones.
pub const MOST_PARTS: u64 = 9_999;
/// Digits of a part's number; more where there are more parts than these can count.
const DIGITS: usize = 3;

/// The length of every part but the last, in bytes: a multiple of 512, and never 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartSize(u64);

/// A part would be shorter than one block of the archive.
#[derive(Debug, thiserror::Error)]
#[error("cut a bundle into parts of {0} bytes: a part has at least {BLOCK}")]
pub struct PartTooSmall(u64);

impl PartSize {
    /// The largest length that is not more than this and can be that of a part.
    ///
    /// # Errors
    /// When it is less than one block.
    pub fn at_most(size: ByteCount) -> Result<Self, PartTooSmall> {
        let bytes = size.bytes() / BLOCK as u64 * BLOCK as u64;
        if bytes == 0 { Err(PartTooSmall(size.bytes())) } else { Ok(Self(bytes)) }
    }

    /// In bytes.
    pub fn bytes(self) -> u64 {
        self.0
    }

    /// How many parts an archive of this length has.
    pub fn count(self, total: u64) -> u64 {
        total.div_ceil(self.0).max(1)
    }

    /// Which bytes of an archive of this length are in the part of this number, counted from 1.
    pub fn span(self, number: u64, total: u64) -> Range<u64> {
        let start = (number - 1).saturating_mul(self.0).min(total);
        start..start.saturating_add(self.0).min(total)
    }
}

/// The file of a part: `OUT.tar.001`, with as many digits as the last of `count` needs.
pub fn part_path(whole: &Path, number: u64, count: u64) -> PathBuf {
    let digits = DIGITS.max(count.to_string().len());
    let mut name = whole.as_os_str().to_owned();
    name.push(format!(".{number:0digits$}"));
    PathBuf::from(name)
}

/// Whether `name` is what a part of the archive `whole` is called.
pub fn is_part_name(name: &str, whole: &str) -> bool {
    name.strip_prefix(whole)
        .and_then(|rest| rest.strip_prefix('.'))
        .is_some_and(|digits| digits.len() >= DIGITS && digits.bytes().all(|b| b.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size(bytes: u64) -> PartSize {
        PartSize::at_most(ByteCount::of(bytes)).expect("a size")
    }

    #[test]
    fn parts_cover_the_archive_once() {
        for (part, total) in [(512, 512), (512, 513), (1023, 4096), (4096, 4095), (1 << 20, (1 << 30) + 1)] {
            let part = size(part);
            assert_eq!(part.bytes() % 512, 0);
            let mut at = 0;
            for number in 1..=part.count(total) {
                let span = part.span(number, total);
                assert_eq!(span.start, at);
                assert!(span.end > span.start);
                at = span.end;
            }
            assert_eq!(at, total);
        }
        assert!(PartSize::at_most(ByteCount::of(511)).is_err());
    }

    #[test]
    fn numbers_have_as_many_digits_as_the_last_needs() {
        let whole = Path::new("a/x.tar");
        assert_eq!(part_path(whole, 1, 12), Path::new("a/x.tar.001"));
        assert_eq!(part_path(whole, 999, 999), Path::new("a/x.tar.999"));
        assert_eq!(part_path(whole, 1, 1000), Path::new("a/x.tar.0001"));
        assert!(is_part_name("x.tar.001", "x.tar") && is_part_name("x.tar.0001", "x.tar"));
        for other in ["x.tar", "x.tar.01", "x.tar.sha256", "x.tar.001.part", "y.tar.001", "x.tar.0a1"] {
            assert!(!is_part_name(other, "x.tar"), "{other}");
        }
    }
}
