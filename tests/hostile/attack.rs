//! An attack, what must come of it, and good bundles to begin with.

use std::ops::ControlFlow;
use std::sync::{Arc, OnceLock};

use jiff::Timestamp;

use crate::base::exit::{Classify, ExitClass};
use crate::base::limits::Limits;
use crate::bundle::BundleError;
use crate::bundle::archive::{BLOCK, padding};
use crate::bundle::random::BundleFile;
use crate::bundle::read_at::ReadAt;
use crate::bundle::reader::{BundleReader, VerifiedBundle};
use crate::bundle::sample::{Parts, Sample};
use crate::trust::remembered::Remembered;
use crate::trust::root::TrustRoot;

/// A signed bundle that is good, and the means to sign what is not.
pub(crate) struct Good {
    pub(crate) sample: Sample,
    pub(crate) bytes: Vec<u8>,
}

/// What must come of an attack.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Expect {
    /// It is refused with this variant of `BundleError` or `TrustError`, at this byte of the archive.
    At(&'static str, u64),
    /// It is refused with this variant, and the message (its causes included) has these words.
    Says(&'static str, &'static str),
    /// It is refused; what with depends on what the other parts of the attack are.
    Refused,
    /// It is no attack: whoever refuses it refuses too much.
    Accepted,
}

/// One bundle that somebody hands over.
#[derive(Clone, Debug)]
pub(crate) struct Attack {
    /// Which of the attacks of its case it is.
    pub(crate) what: String,
    pub(crate) bytes: Vec<u8>,
    /// Bundles that were accepted before, and when.
    pub(crate) before: Vec<(Vec<u8>, Timestamp)>,
    pub(crate) root: TrustRoot,
    pub(crate) now: Timestamp,
    pub(crate) expect: Expect,
}

/// A case of the list: its name is that of its test.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) attacks: fn(&Good) -> Vec<Attack>,
}

/// Defines a test for each case, and `CASES` with all of them.
macro_rules! cases {
    ($($(#[$doc:meta])* $name:ident => $attacks:expr;)*) => {
        pub(crate) const CASES: &[$crate::attack::Case] =
            &[$($crate::attack::Case { name: stringify!($name), attacks: $attacks }),*];
        $(
            $(#[$doc])*
            #[test]
            fn $name() {
                $crate::attack::check(stringify!($name), $attacks);
            }
        )*
    };
}
pub(crate) use cases;

/// Runs what is asynchronous in a test that is not.
pub(crate) fn block<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(future)
}

/// The good bundle that all attacks begin with.
pub(crate) fn good() -> &'static Good {
    static GOOD: OnceLock<Good> = OnceLock::new();
    GOOD.get_or_init(|| {
        let sample = Sample::new();
        let bytes = block(sample.bytes(1));
        Good { sample, bytes }
    })
}

impl Good {
    pub(crate) fn attack(&self, what: impl Into<String>, bytes: Vec<u8>, expect: Expect) -> Attack {
        let (root, now) = (self.sample.root.clone(), self.sample.now);
        Attack { what: what.into(), bytes, before: Vec::new(), root, now, expect }
    }

    pub(crate) fn parts(&self) -> Parts {
        Parts::of(&self.bytes)
    }

    /// Where the header of the first entry whose name ends so begins.
    pub(crate) fn header_of(&self, suffix: &str) -> usize {
        let mut at = 0;
        for (name, content) in self.parts().0 {
            if name.ends_with(suffix) {
                return at;
            }
            at += BLOCK + content.len() + padding(content.len() as u64);
        }
        panic!("no entry ends with {suffix}")
    }

    /// Three entries whose headers are checked in three ways, by the ends of their names: one of the metadata, whose size is
    /// not signed; one that is held in memory; one that streams by and has content.
    pub(crate) fn victims(&self) -> [String; 3] {
        let (last, _) = self.parts().0.into_iter().rfind(|(_, content)| !content.is_empty()).expect("an entry");
        ["metadata/timestamp.json".to_owned(), "oci-layout".to_owned(), last]
    }
}

/// Hands a bundle over and reads it to its end, as a load does.
pub(crate) fn verify(
    bytes: &[u8],
    root: &TrustRoot,
    remembered: &Remembered,
    now: Timestamp,
) -> Result<VerifiedBundle, BundleError> {
    block(async {
        let mut reader = BundleReader::open(bytes, root, remembered, &Limits::default(), now).await?;
        while let Some(blob) = reader.next_blob().await? {
            blob.skip().await?;
        }
        reader.finish().await
    })
}

/// A way of reading and verifying a bundle.
type Verify = fn(&[u8], &TrustRoot, &Remembered, Timestamp) -> Result<VerifiedBundle, BundleError>;

/// An archive in memory.
struct Flat(Vec<u8>);

impl ReadAt for Flat {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> std::io::Result<usize> {
        let rest = usize::try_from(offset).ok().and_then(|offset| self.0.get(offset..)).unwrap_or_default();
        // Less than asked for, as a part that ends there would give.
        let count = rest.len().min(buffer.len()).min(1000);
        buffer[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    }

    fn bytes(&self) -> u64 {
        self.0.len() as u64
    }
}

/// Hands a bundle over as a file, of which blobs are read from the last to the first. Whoever passes over an error must not
/// come to a proof in the end.
pub(crate) fn verify_file(
    bytes: &[u8],
    root: &TrustRoot,
    remembered: &Remembered,
    now: Timestamp,
) -> Result<VerifiedBundle, BundleError> {
    let archive = Arc::new(Flat(bytes.to_vec()));
    let file = block(BundleFile::open(archive, root, remembered, &Limits::default(), now))?;
    let mut blobs: Vec<_> = file.blobs().collect();
    blobs.reverse();
    let mut refused = None;
    for blob in blobs {
        let mut handed_on = 0;
        let read = blob.each_piece(0, |piece| {
            handed_on += piece.len() as u64;
            ControlFlow::Continue(())
        });
        if let Err(error) = read {
            assert!(
                blob.entry().size == 0 || handed_on < blob.entry().size,
                "all of a bad blob was handed on: {error}"
            );
            refused.get_or_insert(error);
        }
    }
    match (file.finish(), refused) {
        (Ok(_), Some(error)) => panic!("proven in spite of: {}", chain(&error)),
        (Err(_), Some(error)) => Err(error),
        (end, None) => end,
    }
}

impl Attack {
    /// What gapscan says to it when it comes as a stream.
    pub(crate) fn verdict(&self) -> Result<VerifiedBundle, BundleError> {
        self.verdict_by(verify)
    }

    fn verdict_by(&self, verify_by: Verify) -> Result<VerifiedBundle, BundleError> {
        let folder = tempfile::tempdir().expect("a folder");
        let remembered = Remembered::in_folder(folder.path().join("state"));
        for (bundle, when) in &self.before {
            let accepted = verify(bundle, &self.root, &remembered, *when);
            accepted.unwrap_or_else(|e| panic!("{}: what came before: {e}", self.what)).remember().expect("remembered");
        }
        verify_by(&self.bytes, &self.root, &remembered, self.now)
    }
}

/// Holds every attack of a case to what must come of it, as a stream and as a file.
pub(crate) fn check(case: &str, attacks: fn(&Good) -> Vec<Attack>) {
    let attacks = attacks(good());
    assert!(!attacks.is_empty(), "{case}: nothing is tried");
    for attack in attacks {
        check_file(case, &attack);
        let what = &attack.what;
        let error = match (attack.verdict(), &attack.expect) {
            (Ok(_), Expect::Accepted) => continue,
            (Ok(_), _) => panic!("{case}, {what}: accepted"),
            (Err(error), Expect::Accepted) => panic!("{case}, {what}: {}", chain(&error)),
            (Err(error), _) => error,
        };
        assert_eq!(error.class(), ExitClass::Refused, "{case}, {what}: {error}");
        let (kind, at) = kind_of(&error);
        match attack.expect {
            Expect::At(expected, offset) => {
                assert_eq!((kind.as_str(), at), (expected, Some(offset)), "{case}, {what}: {}", chain(&error));
            }
            Expect::Says(expected, words) => {
                assert_eq!(kind, expected, "{case}, {what}: {}", chain(&error));
                assert!(chain(&error).contains(words), "{case}, {what}: {}", chain(&error));
            }
            Expect::Refused | Expect::Accepted => {}
        }
    }
}

/// The same of one that comes as a file. Its end is looked at before its blobs, and these in another order, so that what is
/// found first in the archive itself may be something else.
fn check_file(case: &str, attack: &Attack) {
    let what = &attack.what;
    match (attack.verdict_by(verify_file), &attack.expect) {
        (Ok(proof), Expect::Accepted) => {
            assert!(proof.unread().is_empty(), "{case}, {what}");
            assert_eq!(proof.bytes(), attack.bytes.len() as u64, "{case}, {what}");
        }
        (Ok(_), _) => panic!("{case}, {what}: accepted as a file"),
        (Err(error), Expect::Accepted) => panic!("{case}, {what}: as a file: {}", chain(&error)),
        (Err(error), expect) => {
            assert_eq!(error.class(), ExitClass::Refused, "{case}, {what}: {error}");
            if let Expect::Says(kind, words) = expect {
                assert_eq!(kind_of(&error).0, *kind, "{case}, {what}: {}", chain(&error));
                assert!(chain(&error).contains(words), "{case}, {what}: {}", chain(&error));
            }
        }
    }
}

/// The message with its causes.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    std::iter::successors(Some(error), |e| e.source()).map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// The variant's name, and the byte that it speaks of.
fn kind_of(error: &BundleError) -> (String, Option<u64>) {
    let shown = match error {
        BundleError::Trust(error) => format!("{error:?}"),
        error => format!("{error:?}"),
    };
    let kind = shown.chars().take_while(|c| c.is_alphanumeric()).collect();
    let at = match error {
        BundleError::Truncated { offset, .. }
        | BundleError::Header { offset, .. }
        | BundleError::Padding { offset, .. }
        | BundleError::EndMarker { offset }
        | BundleError::Trailing { offset }
        | BundleError::Digest { offset, .. } => Some(*offset),
        _ => None,
    };
    (kind, at)
}
