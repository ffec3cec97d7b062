//! What can be told of an X.509 certificate without trusting it: when it begins and ends to be valid.
//!
//! What a hostile certificate may do, and where it ends: lengths beyond the bytes and lengths of lengths (`element`), times
//! that are none (`time`). Nothing is allocated by what it says, and nothing recurses.

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

/// When a certificate (DER) begins and ends to be valid (RFC 5280, 4.1.2.5). What can't be read has none;
/// nothing more is checked.
pub fn validity(certificate: &[u8]) -> Option<(Timestamp, Timestamp)> {
    const SEQUENCE: u8 = 0x30;
    const VERSION: u8 = 0xa0;
    let (_, certificate, _) = element(certificate)?;
    let (_, mut fields, _) = element(certificate)?;
    if *fields.first()? == VERSION {
        fields = element(fields)?.2;
    }
    // Serial number, algorithm and issuer come before it.
    for _ in 0..3 {
        fields = element(fields)?.2;
    }
    let (SEQUENCE, validity, _) = element(fields)? else { return None };
    let (tag, begin, rest) = element(validity)?;
    let begin = time(tag, begin)?;
    let (tag, end, _) = element(rest)?;
    Some((begin, time(tag, end)?))
}

/// The tag and content of the first element (X.690), and what comes after it.
fn element(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&[tag, first], mut rest) = bytes.split_first_chunk::<2>()?;
    let mut length = usize::from(first);
    if first >= 0x80 {
        let count = usize::from(first & 0x7f);
        let (octets, after) = rest.split_at_checked(count).filter(|_| (1..=4).contains(&count))?;
        length = octets.iter().fold(0, |length, octet| length << 8 | usize::from(*octet));
        rest = after;
    }
    let (content, after) = rest.split_at_checked(length)?;
    Some((tag, content, after))
}

/// A UTCTime or a GeneralizedTime, which are in UTC and to the second here.
fn time(tag: u8, text: &[u8]) -> Option<Timestamp> {
    const UTC_TIME: u8 = 0x17;
    const GENERALIZED_TIME: u8 = 0x18;
    let text = std::str::from_utf8(text).ok()?.strip_suffix('Z')?;
    let text = match tag {
        // Two digits: from 1950 to 2049.
        UTC_TIME => format!("{}{text}", if text.get(..2)? < "50" { "20" } else { "19" }),
        GENERALIZED_TIME => text.to_owned(),
        _ => return None,
    };
    let time = DateTime::strptime("%Y%m%d%H%M%S", text).ok()?;
    Some(time.to_zoned(TimeZone::UTC).ok()?.timestamp())
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    #[test]
    fn validity_is_read_from_both_kinds_of_time_and_never_beyond_the_bytes() {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(vec!["r".to_owned()]).expect("params");
        params.not_before = rcgen::date_time_ymd(2026, 3, 4);
        params.not_after = rcgen::date_time_ymd(2055, 6, 7);
        let certificate = params.self_signed(&key).expect("signed").der().to_vec();
        let at = |text: &str| text.parse::<Timestamp>().expect(text);
        let expected = (at("2026-03-04T00:00:00Z"), at("2055-06-07T00:00:00Z"));
        assert_eq!(validity(&certificate), Some(expected));
        for end in 0..certificate.len() {
            let _ = validity(&certificate[..end]);
        }
        assert_eq!(validity(&[0x30, 0x84, 0xff, 0xff, 0xff, 0xff]), None);
        assert_eq!(validity(b""), None);
    }
}
