//! A fingerprint that is short enough to read over a telephone.

use crate::base::digest::Digest;

/// Forty digits in eight groups of five: each group is four bytes of the digest, as a number (big-endian), modulo 100,000.
///
/// Digits, because they sound unlike each other in every language, which letters do not. They carry 132 bits: whoever
/// wants another root to have the same digits must try some 2^132 of them. Whoever makes a root can make two with the same
/// digits by some 2^66 tries, so they protect from everybody but the one who reads them out; the whole fingerprint
/// protects from that one, too.
pub fn spoken(fingerprint: &Digest) -> String {
    let groups = fingerprint.bytes().chunks_exact(4).map(|four| {
        let number = four.iter().fold(0u32, |number, byte| number << 8 | u32::from(*byte));
        format!("{:05}", number % 100_000)
    });
    groups.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_spoken_is_of_one_length_and_uses_every_byte() {
        let mut bytes = [0; 32];
        assert_eq!(spoken(&Digest::from_bytes(bytes)), ["00000"; 8].join(" "));
        for at in 0..32 {
            let before = spoken(&Digest::from_bytes(bytes));
            bytes[at] = 0xff;
            let after = spoken(&Digest::from_bytes(bytes));
            assert_ne!(before, after, "byte {at}");
            assert_eq!(after.len(), 47);
        }
        // 2^32 - 1 = 4294967295
        assert_eq!(spoken(&Digest::from_bytes(bytes)), ["67295"; 8].join(" "));
    }
}
