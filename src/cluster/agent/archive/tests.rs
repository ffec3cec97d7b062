use std::io::Cursor;
use std::sync::mpsc;

use super::*;

fn entry(name: &str, bytes: &[u8]) -> PlanEntry {
    PlanEntry { name: name.to_owned(), size: bytes.len() as u64, digest: Digest::of(bytes) }
}

fn blob(bytes: &[u8]) -> PlanEntry {
    entry(&format!("blobs/sha256/{}", Digest::of(bytes).hex()), bytes)
}

/// A plan of a layout with two blobs, and all that is sent for it.
fn sent() -> (Plan, Vec<u8>) {
    let parts: [&[u8]; 4] = [b"{}", b"{\"manifests\":[]}", &[7; 512], &[8; 70_001]];
    let entries = vec![entry("oci-layout", parts[0]), entry("index.json", parts[1]), blob(parts[2]), blob(parts[3])];
    let plan = Plan { entries };
    let sent = [plan.head(), parts.concat()].concat();
    (plan, sent)
}

struct At {
    folder: tempfile::TempDir,
    place: Place,
}

impl At {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let into = folder.path().join("image.tar");
        Self { folder, place: Place { into, limit: 1 << 20, silence: Duration::from_secs(60) } }
    }

    fn receive(&self, sent: &[u8]) -> Receipt {
        receive(Cursor::new(sent.to_vec()), &self.place)
    }

    fn files(&self) -> usize {
        fs::read_dir(self.folder.path()).expect("the folder").count()
    }

    /// Why it was refused; nothing is left of it.
    #[track_caller]
    fn refuses(&self, sent: &[u8]) -> Fault {
        let Receipt::Refused { fault, .. } = self.receive(sent) else { panic!("it was taken") };
        assert_eq!(self.files(), 0);
        fault
    }
}

#[test]
fn what_arrives_whole_is_a_tar_that_others_read() {
    let (plan, sent) = sent();
    let at = At::new();
    let Receipt::Whole { bytes } = at.receive(&sent) else { panic!("it is whole") };
    assert_eq!(fs::metadata(&at.place.into).expect("it is there").len(), bytes);
    assert_eq!((plan.archive_bytes(), at.files()), (Some(bytes), 1));
    let mut archive = tar::Archive::new(File::open(&at.place.into).expect("it is there"));
    let mut found = Vec::new();
    for entry in archive.entries().expect("a tar") {
        let mut entry = entry.expect("an entry");
        let name = entry.path().expect("a name").display().to_string();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).expect("its bytes");
        if entry.header().entry_type().is_file() {
            found.push(PlanEntry { name, size: bytes.len() as u64, digest: Digest::of(&bytes) });
        } else {
            assert!(FOLDERS.iter().any(|folder| folder.trim_end_matches('/') == name.trim_end_matches('/')), "{name}");
        }
    }
    assert_eq!(found, plan.entries);
}

#[test]
fn a_cut_anywhere_is_seen() {
    let (_, sent) = sent();
    let at = At::new();
    // Every byte of what says what comes, and some of what then comes.
    for cut in (0..sent.len()).filter(|cut| *cut < 700 || cut % 4099 == 0 || *cut + 3 > sent.len()) {
        assert_eq!(at.refuses(&sent[..cut]), Fault::Cut, "{cut}");
    }
}

#[test]
fn what_was_changed_on_its_way_is_not_taken() {
    let (plan, sent) = sent();
    let at = At::new();
    let head = plan.head().len();
    for place in [head, head + 40, sent.len() - 1] {
        let mut changed = sent.clone();
        changed[place] ^= 1;
        assert_eq!(at.refuses(&changed), Fault::Mismatch, "{place}");
    }
    // A piece that came twice pushes another out.
    let twice = [&sent[..head + 600], &sent[head + 500..]].concat();
    assert_eq!(at.refuses(&twice), Fault::Mismatch);
    for other in [&b"gapscan-archive 2 10\n{}"[..], b"x\n", b"gapscan-archive 1 99999999999\n", &[b'x'; 100]] {
        assert_eq!(at.refuses(other), Fault::Malformed);
    }
}

#[test]
fn only_names_of_a_layout_are_written() {
    let at = At::new();
    for name in ["../x", "/etc/passwd", "blobs/sha256/../x", "blobs/sha256/ABC", "blobs/", "index.json/", ""] {
        let plan = Plan { entries: vec![entry(name, b"x")] };
        assert_eq!(at.refuses(&[plan.head(), b"x".to_vec()].concat()), Fault::Malformed, "{name}");
    }
}

#[test]
fn what_is_too_large_or_can_not_be_written_is_refused_before_it_is_read() {
    let (plan, sent) = sent();
    let mut at = At::new();
    at.place.limit = plan.archive_bytes().expect("it can be counted") - 1;
    assert_eq!(at.refuses(&sent[..plan.head().len()]), Fault::TooLarge);
    let endless = PlanEntry { size: u64::MAX - 3, ..entry("index.json", b"") };
    let plan = Plan { entries: vec![endless.clone(), endless] };
    assert_eq!(plan.archive_bytes(), None);
    assert_eq!(at.refuses(&plan.head()), Fault::TooLarge);
    at.place.into = PathBuf::from("/dev/full/image.tar");
    assert!(matches!(at.receive(&sent), Receipt::Refused { fault: Fault::NotWritten, .. }));
}

/// Gives what it has, and then nothing until it is dropped elsewhere.
struct Silent {
    has: Cursor<Vec<u8>>,
    until: mpsc::Receiver<()>,
}

impl Read for Silent {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.has.read(buffer)? {
            0 => {
                let _ = self.until.recv();
                Ok(0)
            }
            read => Ok(read),
        }
    }
}

#[test]
fn a_sender_that_stays_silent_is_given_up() {
    let (_, sent) = sent();
    let mut at = At::new();
    at.place.silence = Duration::from_millis(5);
    for length in [0, 10, sent.len() - 1] {
        let (_open, until) = mpsc::channel();
        let input = Silent { has: Cursor::new(sent[..length].to_vec()), until };
        let receipt = receive(input, &at.place);
        assert!(matches!(receipt, Receipt::Refused { fault: Fault::Stalled, .. }), "{receipt:?}");
        assert_eq!(at.files(), 0);
    }
}

#[test]
fn what_others_left_makes_way_and_what_is_there_stays() {
    let (_, sent) = sent();
    let at = At::new();
    fs::write(at.folder.path().join("image.1.part"), "half").expect("written");
    let first = at.receive(&sent);
    assert_eq!(at.files(), 1);
    let meta = |at: &At| {
        let meta = fs::metadata(&at.place.into).expect("it is there");
        std::os::unix::fs::MetadataExt::ino(&meta)
    };
    let before = meta(&at);
    assert_eq!((at.receive(&sent), meta(&at)), (first, before), "the scanner reads it by now");
}

#[tokio::test]
async fn a_scanner_waits_for_its_archive_and_not_for_ever() {
    let at = At::new();
    let awaited = Awaited { file: at.place.into.clone(), within: Duration::ZERO };
    let late = awaited.arrived().await.expect_err("it is not there");
    assert!(late.contains("0 s"), "{late}");
    fs::create_dir(&at.place.into).expect("a folder");
    awaited.arrived().await.expect_err("a folder is no archive");
    fs::remove_dir(&at.place.into).expect("removed");
    assert!(matches!(at.receive(&sent().1), Receipt::Whole { .. }));
    awaited.arrived().await.expect("it is there");
}
