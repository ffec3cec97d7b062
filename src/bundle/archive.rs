//! The archive's outer form: POSIX ustar (IEEE Std 1003.1, pax, "ustar Interchange Format") with headers that are a pure
//! function of name and size.

/// The length of a header and the unit of padding.
pub const BLOCK: usize = 512;
/// The end marker: two blocks of zeros, and nothing after.
pub const END: [u8; 2 * BLOCK] = [0; 2 * BLOCK];
/// The largest size that eleven octal digits can say.
pub const MAX_SIZE: u64 = (1 << 33) - 1;
/// The longest name without a prefix field.
const MAX_NAME: usize = 100;

/// The one header that an entry of this name and size has: a regular file of mode 0644, owned by root, from 1970.
/// `None` when the name or the size has no place in it.
pub fn header(name: &str, size: u64) -> Option<[u8; BLOCK]> {
    if name.is_empty() || name.len() > MAX_NAME || size > MAX_SIZE || !name.bytes().all(|b| b.is_ascii_graphic()) {
        return None;
    }
    let mut block = [0; BLOCK];
    let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, name.as_bytes());
    put(100, b"0000644\0");
    put(108, b"0000000\0");
    put(116, b"0000000\0");
    put(124, format!("{size:011o}\0").as_bytes());
    put(136, b"00000000000\0");
    put(148, b"        ");
    put(156, b"0");
    put(257, b"ustar\x0000");
    put(329, b"0000000\0");
    put(337, b"0000000\0");
    let sum: u32 = block.iter().map(|b| u32::from(*b)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    Some(block)
}

/// How many zeros follow content of this size.
pub fn padding(size: u64) -> usize {
    ((BLOCK as u64 - size % BLOCK as u64) % BLOCK as u64) as usize
}

/// The size that a header claims. It means nothing until the header was compared with [`header`] of that size.
pub fn claimed_size(block: &[u8; BLOCK]) -> Option<u64> {
    let digits = std::str::from_utf8(&block[124..135]).ok()?;
    // from_str_radix would take a sign.
    if block[135] == 0 && digits.bytes().all(|b| b.is_ascii_digit()) {
        u64::from_str_radix(digits, 8).ok()
    } else {
        None
    }
}

/// What a block that should have been another header looks like, for an error message.
pub fn describe(block: &[u8; BLOCK]) -> String {
    if block.iter().all(|b| *b == 0) {
        return "zeros, as at the end of an archive".to_owned();
    }
    if &block[257..262] != b"ustar" {
        return "no header at all".to_owned();
    }
    let end = block[..MAX_NAME].iter().position(|b| *b == 0).unwrap_or(MAX_NAME);
    let name = crate::base::text::brief(&String::from_utf8_lossy(&block[..end]));
    let kind = match block[156] {
        b'0' | 0 => "file",
        b'1' => "hard link",
        b'2' => "symbolic link",
        b'3' | b'4' => "device",
        b'5' => "folder",
        b'6' => "FIFO",
        b'x' | b'g' => "extended header",
        b'L' | b'K' => "long name",
        _ => "entry of an unknown kind",
    };
    match claimed_size(block) {
        Some(size) => format!("a {kind} `{name}` of {size} bytes"),
        None => format!("a {kind} `{name}` with an unreadable size"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_independent_reader_agrees() {
        let mut bytes = header("blobs/sha256/abc", 5).expect("a header").to_vec();
        bytes.extend_from_slice(b"hello");
        bytes.resize(1024, 0);
        bytes.extend_from_slice(&END);
        let mut archive = tar::Archive::new(&bytes[..]);
        let mut entries = archive.entries().expect("an archive");
        let entry = entries.next().expect("one entry").expect("readable");
        let header = entry.header();
        assert_eq!(entry.path().expect("a path").to_str(), Some("blobs/sha256/abc"));
        assert_eq!(entry.size(), 5);
        assert_eq!(header.mode().expect("a mode"), 0o644);
        assert!(header.as_ustar().is_some() && header.entry_type().is_file());
        assert!(entries.next().is_none());
    }

    #[test]
    fn what_has_no_place_has_no_header() {
        assert!(header(&"x".repeat(100), MAX_SIZE).is_some());
        assert!(header(&"x".repeat(101), 0).is_none());
        assert!(header("x", MAX_SIZE + 1).is_none());
        assert!(header("a\0b", 0).is_none() && header("", 0).is_none());
        assert_eq!(padding(0), 0);
        assert_eq!(padding(1), 511);
        assert_eq!(padding(512), 0);
    }

    #[test]
    fn sizes_in_other_spellings_are_no_sizes() {
        let mut block = header("x", 8).expect("a header");
        assert_eq!(claimed_size(&block), Some(8));
        for spelling in [b"+0000000010\0", b"\x80\0\0\0\0\0\0\0\0\0\0\x08", b"         10\0", b"-0000000010\0"] {
            block[124..136].copy_from_slice(spelling);
            assert_eq!(claimed_size(&block), None);
        }
    }
}
