use super::*;

fn parcel(parts: &[(&'static str, &[u8])]) -> Vec<u8> {
    let mut sent = Vec::new();
    let mut sender = Sender::begin(&mut sent).expect("it is written");
    for (name, bytes) in parts {
        sender.add(name, bytes).expect("it is written");
    }
    sender.end().expect("it is written");
    sent
}

/// A parcel of two blocks and a bit.
fn sample() -> (Vec<u8>, Vec<u8>) {
    let content: Vec<u8> =
        (0..150_000_u32).flat_map(|n| if n % 80 == 79 { *b"\n" } else { [b'a' + (n % 26) as u8] }).collect();
    (parcel(&[(CONTENT, &content)]), content)
}

#[track_caller]
fn refused(received: &[u8], why: &str) {
    match open(received) {
        Err(ClusterError::OutputTruncated { detail }) => assert!(detail.contains(why), "{detail}"),
        other => panic!("it was taken as {:?} bytes", other.map(|bytes| bytes.len())),
    }
}

fn line_of(sent: &[u8], begin: &str) -> std::ops::Range<usize> {
    let start = sent.windows(begin.len()).position(|w| w == begin.as_bytes()).expect("the line is there");
    let length = sent[start..].iter().position(|b| *b == b'\n').expect("the line ends");
    start..start + length + 1
}

#[test]
fn what_arrives_is_what_was_sent_or_nothing() {
    for content in [&b""[..], b"facts", b"two\nlines\n", b"\n", b"block 0 content 5\n", b"end {}"] {
        let mut sent = Vec::new();
        send(content, &mut sent).expect("it is written");
        assert_eq!(open(&sent).expect("it is whole"), content);
        for cut in 0..sent.len() {
            assert!(open(&sent[..cut]).is_err(), "cut at {cut}");
        }
        for at in 0..sent.len() {
            let mut other = sent.clone();
            other[at] ^= 1;
            assert!(open(&other).is_err(), "changed at {at}");
        }
    }
}

#[test]
fn it_does_not_matter_in_which_pieces_it_arrives() {
    let (sent, content) = sample();
    for size in [1, 7, 4096, 65_536, 1 << 20] {
        let mut receiver = Receiver::new(&[(CONTENT, 1 << 20)], &std::env::temp_dir());
        sent.chunks(size).for_each(|piece| receiver.take(piece));
        let arrived = receiver.finish().and_then(|mut parts| parts.take(CONTENT)).expect("it is whole");
        assert!(arrived.into_bytes().expect("it is read") == content, "in pieces of {size}");
    }
}

#[test]
fn a_cut_is_noticed_wherever_it_is() {
    let (sent, _) = sample();
    refused(b"", "nothing arrived");
    refused(b"\n\n", "nothing arrived");
    for cut in [1, 16, 17, 30, 70_000, sent.len() - 200, sent.len() - 1] {
        refused(&sent[..cut], "before its last line");
    }
}

#[test]
fn a_log_that_was_rotated_is_noticed() {
    let (sent, _) = sample();
    // The begin is gone: what is left begins with some line of the content, or with a block.
    let second = line_of(&sent, "block 1 ");
    refused(&sent[50_001..], "its begin is gone");
    refused(&sent[second.start..], "its begin is gone");
    // Both ends are there, and a piece in the middle is not.
    let gap = [&sent[..1000], &sent[second.start + 500..]].concat();
    assert!(open(&gap).is_err());
    let whole_block = [&sent[..line_of(&sent, "block 0 ").start], &sent[second.start..]].concat();
    refused(&whole_block, "block 1 came before its time");
}

#[test]
fn a_line_or_block_that_is_doubled_or_lost_is_noticed() {
    let (sent, _) = sample();
    let (first, second, end) = (line_of(&sent, "block 0 "), line_of(&sent, "block 1 "), line_of(&sent, "end "));
    // A line of the content.
    let line = first.end + 80..first.end + 160;
    let doubled = [&sent[..line.end], &sent[line.start..]].concat();
    refused(&doubled, "goes on beyond its length");
    let lost = [&sent[..line.start], &sent[line.end..]].concat();
    assert!(open(&lost).is_err());
    // A doubled line that takes the place of another of its length.
    let mut replaced = sent.clone();
    replaced.copy_within(line.clone(), line.end);
    refused(&replaced, "another digest");
    // A line of the framing, and a whole block.
    refused(&[&sent[..first.end], &sent[first.start..]].concat(), "beyond its length");
    refused(&[&sent[..second.start], &sent[first.start..]].concat(), "block 0 came a second time");
    refused(&[&sent[..], &sent[end]].concat(), "follows its last line");
    refused(&[&sent[..], &sent[..]].concat(), "follows its last line");
}

#[test]
fn noise_is_noticed_before_between_and_after() {
    let (sent, content) = sample();
    let second = line_of(&sent, "block 1 ");
    refused(&[b"warning: x\n", &sent[..]].concat(), "`warning: x`");
    refused(
        &[&sent[..second.start], b"warning: x\n", &sent[second.start..]].concat(),
        "none of gapscan's: `warning: x`",
    );
    refused(&[&sent[..], b"warning: x\n"].concat(), "follows its last line");
    refused(&[0xff; 10_000], "its first line is not gapscan's");
    // But for line breaks before it, which keep a connection alive.
    assert!(open(&[b"\n\n\n", &sent[..]].concat()).expect("it is whole") == content);
}

#[test]
fn a_sender_of_another_version_is_told_apart() {
    refused(b"gapscan-parcel 2\n", "version `2`");
}

#[test]
fn parts_are_bounded_and_only_those_that_were_asked_for() {
    let sent = parcel(&[("status", b"12345"), ("result", &[b'x'; 200_000]), ("status", b"6"), ("empty", b"")]);
    let receive = |parts: &[(&'static str, u64)]| {
        let mut receiver = Receiver::new(parts, &std::env::temp_dir());
        receiver.take(&sent);
        receiver.finish()
    };
    let mut parts = receive(&[("status", 6), ("result", 200_000), ("empty", 0), ("other", 9)]).expect("it is whole");
    assert_eq!(
        parts.take("status").and_then(|p| p.into_bytes().map_err(ClusterError::Spool)).expect("it is there"),
        b"123456"
    );
    assert_eq!(parts.take("result").expect("it is there").length(), 200_000);
    assert_eq!(parts.take("empty").expect("it is there").length(), 0);
    assert!(parts.take("other").is_err());
    let large = receive(&[("status", 6), ("result", 199_999), ("empty", 0)]).err();
    assert!(matches!(large, Some(ClusterError::OutputTooLarge { limit: 199_999, .. })), "{large:?}");
    assert!(matches!(receive(&[("status", 6)]).err(), Some(ClusterError::OutputTruncated { .. })));
    assert!(matches!(receive(&[("status", 6), ("result", 200_000)]).err(), Some(ClusterError::OutputTruncated { .. })));
}

#[test]
fn numbers_are_digits() {
    for line in [
        "block +0 content 1",
        "block 0 content 0",
        "block 0 content 65537",
        "block 0 content 99999999999999999999",
        "block 0  content 1",
    ] {
        assert!(open(format!("gapscan-parcel 1\n{line}\nx\nend {{}}\n").as_bytes()).is_err(), "{line}");
    }
}
