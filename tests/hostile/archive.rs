//! The first section: what the archive itself may try. Most of it can't be said in a bundle at all, because no header is
//! parsed: each is compared with the only one that may come. So these tests show that the comparison is made, everywhere
//! and before anything is believed.

use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, ReadBuf};

use crate::attack::{Attack, Expect, Good, block, cases, good};
use crate::base::digest::Digest;
use crate::base::limits::Limits;
use crate::bundle::BundleError;
use crate::bundle::archive::{self, BLOCK, END};
use crate::bundle::oci;
use crate::bundle::reader::BundleReader;
use crate::bundle::sample::Images;
use crate::trust::remembered::Remembered;

cases! {
    /// CVE-2007-4559 and its many children.
    name_with_dot_dot => |good| named(good, b"../../etc/cron.d/x");
    name_absolute => |good| named(good, b"/etc/cron.d/x");
    name_unc => |good| named(good, br"\\server\share\x");
    name_with_backslash => |good| named(good, br"..\..\x");
    name_with_drive => |good| named(good, b"C:x");
    name_with_prefix_field => |good| header(good, "prefix", 345, b"../..");
    symlink => |good| inserted(good, "symlink", &entry(b"metadata/link", b'2', b"/etc", b""));
    symlink_and_then_a_file_through_it => |good| {
        let link = entry(b"out", b'2', b"/tmp", b"");
        inserted(good, "symlink and file", &[link, entry(b"out/x", b'0', b"", b"x")].concat())
    };
    /// CVE-2020-27833
    chained_symlinks => |good| {
        let (one, two) = (entry(b"a", b'2', b".", b""), entry(b"a/b", b'2', b"..", b""));
        inserted(good, "two links and a file", &[one, two, entry(b"a/b/x", b'0', b"", b"x")].concat())
    };
    hardlink_to_outside => |good| inserted(good, "hard link", &entry(b"passwd", b'1', b"/etc/passwd", b""));
    /// CVE-2026-33056: unpacking sets the mode of the directory that the link names.
    symlink_and_then_a_directory => |good| {
        let link = entry(b"d", b'2', b"/etc", b"");
        inserted(good, "symlink and directory", &[link, entry(b"d", b'5', b"", b"")].concat())
    };
    device => |good| {
        [b'3', b'4'].into_iter().flat_map(|kind| {
            let mut attacks = inserted(good, "device added", &entry(b"dev", kind, b"", b""));
            attacks.extend(header(good, "device", 156, &[kind]));
            attacks
        }).collect()
    };
    fifo => |good| header(good, "FIFO", 156, b"6");
    sparse_entry => |good| {
        let mut attacks = header(good, "GNU sparse", 156, b"S");
        attacks.extend(inserted(good, "PAX sparse", &pax(b'x', b"22 GNU.sparse.major=1\n")));
        attacks
    };
    setuid_mode => |good| header(good, "setuid", 100, b"0004755\0");
    other_owner => |good| header(good, "owner", 108, b"0001750\0");
    other_time => |good| header(good, "time", 136, b"14000000000\0");
    duplicate_names => |good| repeated(good, |name| name.to_owned());
    names_that_differ_by_case => |good| repeated(good, str::to_uppercase);
    /// The same letter composed and in two parts: one file on some file systems. Neither is ASCII, so neither has a header.
    names_that_differ_by_normal_form => |good| {
        ["blobs/sha256/\u{e9}", "blobs/sha256/e\u{301}"].into_iter().flat_map(|name| named(good, name.as_bytes())).collect()
    };
    name_with_trailing_dot => |good| {
        let mut attacks = repeated(good, |name| format!("{name}."));
        attacks.extend(repeated(good, |name| format!("{name} ")));
        attacks
    };
    /// CVE-2025-62518: whoever believes the one size sees other entries than whoever believes the other.
    pax_size_larger_than_the_header_size => |good| inserted(good, "PAX size", &pax(b'x', b"16 size=1048576\n"));
    /// CVE-2026-33055
    pax_size_smaller_than_the_header_size => |good| inserted(good, "PAX size", &pax(b'x', b"10 size=0\n"));
    pax_before_a_gnu_long_name => |good| {
        let name = entry(b"././@LongLink", b'L', b"", &[b'n'; 200]);
        inserted(good, "PAX and long name", &[pax(b'x', b"10 size=0\n"), name].concat())
    };
    gnu_long_name => |good| inserted(good, "long name", &entry(b"././@LongLink", b'L', b"", &[b'n'; 200]));
    malformed_pax_record => |good| {
        [&b"99 size=0\n"[..], b"x size=0\n", b"10 size=0", b"\n", b"0 \n", b"99999999999999999999 a=b\n"]
            .into_iter()
            .flat_map(|record| inserted(good, "malformed PAX record", &pax(b'x', record)))
            .collect()
    };
    pax_record_with_nul => |good| inserted(good, "PAX with NUL", &pax(b'x', b"14 path=a\0../b\n"));
    global_pax_header => |good| inserted(good, "global PAX", &pax(b'g', b"16 size=1048576\n"));
    /// A layer that is an archive, bundle headers and all, is content and nothing else.
    nested_tar_whose_payload_looks_like_headers => nested;
    bytes_after_the_end => |good| {
        let end = good.bytes.len() as u64;
        [vec![0], vec![1], vec![0; BLOCK], vec![0; 10_240]]
            .into_iter()
            .map(|tail| good.attack(format!("{} bytes", tail.len()), [&good.bytes[..], &tail].concat(), Expect::At("Trailing", end)))
            .collect()
    };
    second_archive_appended => |good| {
        let end = good.bytes.len();
        let twice = [&good.bytes[..], &good.bytes].concat();
        let merged = [&good.bytes[..end - END.len()], &good.bytes].concat();
        vec![
            good.attack("after the end", twice, Expect::At("Trailing", end as u64)),
            good.attack("instead of the end", merged, Expect::At("EndMarker", (end - END.len()) as u64)),
        ]
    };
    truncation_at_every_block => |good| {
        (0..good.bytes.len())
            .step_by(BLOCK)
            .chain([1, good.bytes.len() - 1])
            .map(|at| good.attack(format!("at {at}"), good.bytes[..at].to_vec(), Expect::At("Truncated", at as u64)))
            .collect()
    };
    negative_size => |good| {
        let mut attacks = header(good, "as two's complement", 124, &[0xff; 12]);
        attacks.extend(header(good, "with a sign", 124, b"-0000000001\0"));
        attacks
    };
    overflowing_size => |good| {
        let mut attacks = header(good, "no octal digits", 124, b"99999999999\0");
        attacks.extend(header(good, "twelve digits", 124, b"777777777777"));
        // What the field can say at most, with a checksum that fits: only the bound on metadata refuses it there.
        attacks.extend(header(good, "the most that there can be", 124, b"77777777777\0").into_iter().map(|attack| {
            let expect = match attack.expect {
                Expect::At(_, offset) if offset == good.header_of("timestamp.json") as u64 => {
                    Expect::Says("TooLarge", "8589934591 is more than 65536")
                }
                expect => expect,
            };
            Attack { expect, ..attack }
        }));
        attacks
    };
    base_256_size => |good| header(good, "base 256", 124, &[0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 30]);
    size_in_another_spelling => |good| header(good, "blanks for zeros", 124, b"         36\0");
    other_magic => |good| header(good, "GNU magic", 257, b"ustar  \0");
    padding_that_is_not_zero => |good| {
        good.victims().into_iter().map(|victim| {
            let at = good.header_of(&victim) + BLOCK;
            let (_, content) = good.parts().0.into_iter().find(|(name, _)| *name == victim).expect("an entry");
            let (start, last) = (at + content.len(), at + content.len() + archive::padding(content.len() as u64) - 1);
            let mut bytes = good.bytes.clone();
            bytes[last] = 1;
            good.attack(victim, bytes, Expect::At("Padding", start as u64))
        }).collect()
    };
    entry_removed => |good| {
        good.victims().into_iter().map(|victim| {
            let mut parts = good.parts();
            parts.0.retain(|(name, _)| !name.ends_with(&victim));
            good.attack(victim.clone(), parts.join(), Expect::At("Header", good.header_of(&victim) as u64))
        }).collect()
    };
    entries_swapped => |good| {
        (1..good.parts().0.len()).map(|at| {
            let mut parts = good.parts();
            let first = good.header_of(&parts.0[at - 1].0);
            parts.0.swap(at - 1, at);
            good.attack(good.parts().0[at].0.clone(), parts.join(), Expect::At("Header", first as u64))
        }).collect()
    };
    end_marker_missing => |good| {
        let end = good.bytes.len();
        vec![
            good.attack("none", good.bytes[..end - END.len()].to_vec(), Expect::At("Truncated", (end - END.len()) as u64)),
            good.attack("half of it", good.bytes[..end - BLOCK].to_vec(), Expect::At("Truncated", (end - BLOCK) as u64)),
        ]
    };
    end_marker_that_is_not_zero => |good| {
        let end = good.bytes.len() - END.len();
        [0, BLOCK, END.len() - 1].into_iter().map(|at| {
            let mut bytes = good.bytes.clone();
            bytes[end + at] = 1;
            good.attack(format!("byte {at}"), bytes, Expect::At("EndMarker", end as u64))
        }).collect()
    };
    /// More entries can't come than are signed, and more can't be signed than the limits allow.
    many_tiny_entries => |good| {
        let mut parts = good.parts();
        good.sample.resigned(&mut parts, |targets| {
            for number in 0_u32..4_097 {
                let name = tough::TargetName::new(format!("blobs/sha256/{}", Digest::of(number.to_be_bytes()).hex()));
                targets.add_target(name.expect("a name"), crate::metadata::target(&number.to_be_bytes(), oci::MANIFEST));
            }
        });
        vec![good.attack("4,097 manifests more", parts.join(), Expect::Says("TooLarge", "the number of manifests"))]
    };
}

/// Ten million entries that nobody signed are not counted: the first ends it, and nothing behind it is read.
#[test]
fn ten_million_tiny_entries() {
    let good = good();
    for victim in good.victims() {
        let at = good.header_of(&victim);
        let endless = Endless::new(good.bytes[..at].to_vec(), entry(b"x", b'0', b"", b"x"));
        let (error, read) = refuse(endless);
        assert!(matches!(error, BundleError::Header { offset, .. } if offset == at as u64), "{error}");
        assert_eq!(read, at + BLOCK, "not a byte more than the header that is refused");
    }
}

/// A metadata file that claims a size which nothing signed bounds is refused by its header.
#[test]
fn endless_archive() {
    let (error, read) = refuse(Endless::new(Vec::new(), vec![0x41; BLOCK]));
    assert!(matches!(error, BundleError::Header { offset: 0, .. }), "{error}");
    assert_eq!(read, BLOCK);
}

/// A stream that has a beginning and no end, and counts what is taken from it.
struct Endless {
    start: Vec<u8>,
    repeated: Vec<u8>,
    read: usize,
}

impl Endless {
    fn new(start: Vec<u8>, repeated: Vec<u8>) -> Self {
        Self { start, repeated, read: 0 }
    }
}

impl AsyncRead for &mut Endless {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        let rest = self.start.get(self.read..).filter(|rest| !rest.is_empty());
        let block = rest.unwrap_or_else(|| &self.repeated[(self.read - self.start.len()) % self.repeated.len()..]);
        let count = block.len().min(buffer.remaining());
        buffer.put_slice(&block[..count]);
        self.read += count;
        Poll::Ready(Ok(()))
    }
}

fn refuse(mut stream: Endless) -> (BundleError, usize) {
    let good = good();
    let error = block(async {
        let limits = Limits::default();
        let mut reader =
            BundleReader::open(&mut stream, &good.sample.root, &Remembered::nothing(), &limits, good.sample.now)
                .await?;
        while let Some(blob) = reader.next_blob().await? {
            blob.skip().await?;
        }
        reader.finish().await
    });
    (error.expect_err("an endless stream is no bundle"), stream.read)
}

fn nested(good: &Good) -> Vec<Attack> {
    let mut images = Images::usual();
    let tar =
        [entry(b"../../etc/passwd", b'0', b"", b"root::0:0"), entry(b"l", b'2', b"/", b""), END.to_vec()].concat();
    let layered = images.image(&[&good.bytes, &tar]);
    images.item("images/nested", layered);
    let bytes = std::fs::read(block(good.sample.file_of(images, 3))).expect("the bundle");
    let mut attacks = vec![good.attack("a bundle and an archive as layers", bytes.clone(), Expect::Accepted)];
    // The same where the payload is what follows a header that claims less.
    let at =
        bytes.windows(BLOCK).step_by(BLOCK).position(|b| b.starts_with(b"blobs/") && b[124..135] == *b"00000005000");
    let at = at.expect("the archive's header") * BLOCK;
    let name: Vec<u8> = bytes[at..at + 100].iter().copied().take_while(|b| *b != 0).collect();
    let mut changed = bytes;
    let header = archive::header(std::str::from_utf8(&name).expect("ASCII"), 0).expect("a header");
    changed[at..at + BLOCK].copy_from_slice(&header);
    attacks.push(good.attack("a size of zero before it", changed, Expect::At("Header", at as u64)));
    attacks
}

/// The header of each victim with these bytes in it and a checksum that fits.
fn header(good: &Good, what: &str, at: usize, value: &[u8]) -> Vec<Attack> {
    let attack = |victim: String| {
        let start = good.header_of(&victim);
        let mut bytes = good.bytes.clone();
        let header = &mut bytes[start..start + BLOCK];
        header[at..at + value.len()].copy_from_slice(value);
        count(header);
        good.attack(format!("{what}: {victim}"), bytes, Expect::At("Header", start as u64))
    };
    good.victims().into_iter().map(attack).collect()
}

/// Each victim under this name, and an entry of this name before it.
fn named(good: &Good, name: &[u8]) -> Vec<Attack> {
    let mut field = [0; 100];
    field[..name.len()].copy_from_slice(name);
    let mut attacks = header(good, "renamed", 0, &field);
    attacks.extend(inserted(good, "added", &entry(name, b'0', b"", b"x")));
    attacks
}

/// Each victim followed by itself under another name.
fn repeated(good: &Good, name: impl Fn(&str) -> String) -> Vec<Attack> {
    let attack = |victim: String| {
        let mut parts = good.parts();
        let at = parts.0.iter().position(|(n, _)| n.ends_with(&victim)).expect("an entry");
        let (original, content) = parts.0[at].clone();
        let next = parts.0.get(at + 1).map(|(n, _)| good.header_of(n)).unwrap_or(good.bytes.len() - END.len());
        parts.0.insert(at + 1, (name(&original), content));
        let bytes = join(&parts.0);
        let kind = if at + 2 == parts.0.len() { "EndMarker" } else { "Header" };
        good.attack(victim, bytes, Expect::At(kind, next as u64))
    };
    good.victims().into_iter().map(attack).collect()
}

/// These blocks before each victim, and before the end.
fn inserted(good: &Good, what: &str, blocks: &[u8]) -> Vec<Attack> {
    let at = |at: usize, kind| {
        let bytes = [&good.bytes[..at], blocks, &good.bytes[at..]].concat();
        good.attack(format!("{what} at {at}"), bytes, Expect::At(kind, at as u64))
    };
    let mut attacks: Vec<Attack> =
        good.victims().into_iter().map(|victim| at(good.header_of(&victim), "Header")).collect();
    attacks.push(at(good.bytes.len() - END.len(), "EndMarker"));
    attacks
}

/// An archive of these, whatever their names are.
fn join(parts: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut bytes: Vec<u8> =
        parts.iter().flat_map(|(name, content)| entry(name.as_bytes(), b'0', b"", content)).collect();
    bytes.extend_from_slice(&END);
    bytes
}

/// An entry as no bundle has it: header, content, padding.
fn entry(name: &[u8], kind: u8, link: &[u8], content: &[u8]) -> Vec<u8> {
    let mut block = archive::header("x", content.len() as u64).expect("a header").to_vec();
    block[0] = 0;
    block[..name.len()].copy_from_slice(name);
    block[156] = kind;
    block[157..157 + link.len()].copy_from_slice(link);
    count(&mut block);
    block.extend_from_slice(content);
    block.resize(block.len().next_multiple_of(BLOCK), 0);
    block
}

fn pax(kind: u8, records: &[u8]) -> Vec<u8> {
    entry(b"PaxHeaders/x", kind, b"", records)
}

/// Repairs the checksum.
fn count(header: &mut [u8]) {
    header[148..156].copy_from_slice(b"        ");
    let sum: u32 = header.iter().map(|b| u32::from(*b)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

/// The builder of entries writes what other readers read, so that the attacks are what they say they are.
#[test]
fn the_attacks_are_archives() {
    let tar = [
        entry(b"a/link", b'2', b"/etc", b""),
        pax(b'x', b"16 size=1048576\n"),
        entry(b"x", b'0', b"", b"x"),
        END.to_vec(),
    ]
    .concat();
    let mut archive = tar::Archive::new(&tar[..]);
    let mut entries = archive.entries().expect("an archive").raw(true);
    let link = entries.next().expect("an entry").expect("good");
    assert!(link.header().entry_type().is_symlink());
    assert_eq!(link.link_name().expect("a name").expect("a link").to_str(), Some("/etc"));
    assert!(entries.next().expect("an entry").expect("good").header().entry_type().is_pax_local_extensions());
    assert_eq!(entries.count(), 1);
}
