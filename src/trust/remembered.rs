//! The versions that were accepted before: what makes an old bundle unacceptable.
//!
//! One small file for each pair of root lineage and bundle name, and one for the newest root of a lineage (a bundle under
//! an older root could be signed by keys that were revoked since); replaced atomically. [`Remembered::check`] looks before
//! anything is written to a registry; [`Offer::remember`] writes after everything was verified and before any tag moves,
//! so that a crash in between leaves a bundle that can be loaded again (the same version with the same content is
//! accepted), never one that was forgotten.

use std::fs::{self, File};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::error::TrustError;
use super::metadata::VerifiedMetadata;
use crate::base::digest::Digest;
use crate::base::file::{self, FileError};
use crate::base::text::brief;

/// How far the clocks of the two sides of the gap may be apart.
const CLOCK_TOLERANCE_SECONDS: i64 = 3600;

/// Where versions are remembered.
#[derive(Clone, Debug)]
pub struct Remembered {
    folder: Option<PathBuf>,
}

/// How far back the clock may go unnoticed: a time service that corrects a drift, or two commands that started at once
/// and remember in the other order.
const DRIFT_SECONDS: i64 = 60;

/// What is on offer.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// The digest of the first root of its chain.
    pub lineage: Digest,
    /// The version and the digest of the last root of its chain.
    pub root: (u64, Digest),
    /// The bundle's name.
    pub name: String,
    /// The bundle's version.
    pub version: u64,
    /// The digest of its content: of what is signed, whoever signed it.
    pub content: Digest,
    /// When it was made.
    pub created: Timestamp,
}

impl Candidate {
    /// A bundle of this name under verified metadata.
    pub fn of(metadata: &VerifiedMetadata, name: &str, content: Digest, created: Timestamp) -> Self {
        Self {
            lineage: metadata.lineage(),
            root: (metadata.root_version(), metadata.root_digest()),
            name: name.to_owned(),
            version: metadata.version(),
            content,
            created,
        }
    }
}

/// A version on offer that was found acceptable by [`Remembered::check`].
#[derive(Clone, Debug)]
#[must_use = "an accepted version protects against rollback only when it is remembered"]
pub struct Offer {
    remembered: Remembered,
    candidate: Candidate,
    now: Timestamp,
}

/// What is remembered of a bundle's name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Seen {
    version: u64,
    content: Digest,
    clock: Timestamp,
}

/// What is remembered of a lineage.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct SeenRoot {
    version: u64,
    digest: Digest,
}

/// The files of one lineage.
struct Files {
    bundle: PathBuf,
    /// No bundle's name has a capital letter.
    root: PathBuf,
    lock: PathBuf,
}

impl Remembered {
    /// Versions are remembered in this folder, which is made when it is needed.
    pub fn in_folder(folder: impl Into<PathBuf>) -> Self {
        Self { folder: Some(folder.into()) }
    }

    /// Nothing is remembered: no protection against rollback. For looking at a bundle that is not going to be used.
    pub fn nothing() -> Self {
        Self { folder: None }
    }

    /// Whether this version may be accepted. Nothing is written.
    ///
    /// # Errors
    /// When a higher version, other content of the same version or a newer root was accepted before, or the clock can't be
    /// right.
    pub fn check(&self, candidate: Candidate, now: Timestamp) -> Result<Offer, TrustError> {
        let offer = Offer { remembered: self.clone(), candidate, now };
        if let Some(known) = offer.compare()?
            && now.as_second() < known.as_second().saturating_sub(DRIFT_SECONDS)
        {
            return Err(TrustError::ClockBack {
                what: format!("bundle `{}`", brief(&offer.candidate.name)),
                now,
                known,
            });
        }
        Ok(offer)
    }

    fn files(&self, candidate: &Candidate) -> Result<Option<Files>, TrustError> {
        let Some(folder) = &self.folder else { return Ok(None) };
        let name = &candidate.name;
        let unfit = name.is_empty()
            || name.len() > 63
            || !name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
            || name.starts_with('-');
        if unfit {
            let reason = format!("`{}` can't be the name of a bundle", brief(name));
            return Err(TrustError::State { path: folder.clone(), reason });
        }
        let lineage = folder.join(candidate.lineage.hex());
        Ok(Some(Files {
            bundle: lineage.join(format!("{name}.json")),
            root: lineage.join("ROOT"),
            lock: lineage.join("LOCK"),
        }))
    }
}

impl Offer {
    /// Remembers the version; from now on older ones are refused. Looks again first, in case another process was quicker.
    ///
    /// # Errors
    /// As [`Remembered::check`], and when a file can't be written.
    pub fn remember(&self) -> Result<(), TrustError> {
        let Some(files) = self.remembered.files(&self.candidate)? else { return Ok(()) };
        let failed = |source| FileError::Write { path: files.lock.clone(), source };
        fs::create_dir_all(files.lock.parent().unwrap_or(Path::new("."))).map_err(failed)?;
        // Two loads at once must not both read the old version and then write in the wrong order.
        // Through a link that somebody put there, a file elsewhere could be emptied or made.
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .custom_flags(rustix::fs::OFlags::NOFOLLOW.bits().cast_signed())
            .open(&files.lock)
            .map_err(failed)?;
        lock.lock().map_err(failed)?;
        let clock = self.compare()?.map_or(self.now, |latest| latest.max(self.now));
        let (version, digest) = self.candidate.root;
        write(&files.root, &SeenRoot { version, digest })?;
        write(&files.bundle, &Seen { version: self.candidate.version, content: self.candidate.content, clock })
    }

    /// Gives the latest time that is known for this name.
    fn compare(&self) -> Result<Option<Timestamp>, TrustError> {
        let (offered, now) = (&self.candidate, self.now);
        let what = || format!("bundle `{}`", brief(&offered.name));
        if offered.created.as_second() > now.as_second().saturating_add(CLOCK_TOLERANCE_SECONDS) {
            return Err(TrustError::NotYetValid { what: what(), created: offered.created, now });
        }
        let Some(files) = self.remembered.files(offered)? else { return Ok(None) };
        if let Some(known) = read::<SeenRoot>(&files.root)? {
            let (version, digest) = offered.root;
            if version < known.version {
                return Err(TrustError::RootRollback { what: what(), offered: version, known: known.version });
            }
            if version == known.version && digest != known.digest {
                return Err(TrustError::OtherRoot(format!(
                    "its root {version} is {digest}, and {} was accepted before",
                    known.digest
                )));
            }
        }
        let Some(known) = read::<Seen>(&files.bundle)? else { return Ok(None) };
        if offered.version < known.version {
            return Err(TrustError::Rollback { what: what(), offered: offered.version, known: known.version });
        }
        if offered.version == known.version && offered.content != known.content {
            return Err(TrustError::OtherContent {
                what: what(),
                version: known.version,
                known: known.content.to_string(),
                offered: offered.content.to_string(),
            });
        }
        Ok(Some(known.clock))
    }
}

fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, TrustError> {
    // Only a file that is certainly not there means that nothing is known; one that can't be reached is an error.
    if !path.try_exists().map_err(|source| FileError::Read { path: path.to_owned(), source })? {
        return Ok(None);
    }
    let bytes = file::read_capped(path, 4096)?;
    // A file that can't be understood is no reason to begin anew: that is what an attacker would wish for.
    serde_json::from_slice(&bytes)
        .map(Some)
        .map_err(|e| TrustError::State { path: path.to_owned(), reason: e.to_string() })
}

fn write<T: Serialize>(path: &Path, seen: &T) -> Result<(), TrustError> {
    let json = serde_json::to_vec(seen).expect("numbers and strings have a JSON form");
    Ok(file::write_atomic(path, &json, 0o600)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().expect("a time")
    }

    fn candidate(name: &str, version: u64) -> Candidate {
        Candidate {
            lineage: Digest::of("lineage"),
            root: (1, Digest::of("root 1")),
            name: name.to_owned(),
            version,
            content: Digest::of("a"),
            created: at("2026-01-01T00:00:00Z"),
        }
    }

    #[test]
    fn only_newer_versions_or_the_same_content_are_accepted() {
        let folder = tempfile::tempdir().expect("a folder");
        let remembered = Remembered::in_folder(folder.path().join("state"));
        let (a, b) = (Digest::of("a"), Digest::of("b"));
        let now = at("2026-01-02T00:00:00Z");
        let check =
            |version, content, now| remembered.check(Candidate { content, ..candidate("content", version) }, now);

        check(5, a, now).expect("the first").remember().expect("remembered");
        check(5, a, now).expect("the same again").remember().expect("remembered");
        assert!(matches!(check(4, a, now), Err(TrustError::Rollback { offered: 4, known: 5, .. })));
        assert!(matches!(check(5, b, now), Err(TrustError::OtherContent { version: 5, .. })));
        assert!(matches!(check(6, b, at("2026-01-01T23:58:59Z")), Err(TrustError::ClockBack { .. })));
        assert!(matches!(check(6, b, at("1970-01-01T00:00:00Z")), Err(TrustError::NotYetValid { .. })));
        check(6, b, at("2026-01-01T23:59:30Z")).expect("newer; a drift").remember().expect("remembered");
        assert!(check(6, b, at("2026-01-01T23:58:59Z")).is_err(), "a drift does not move the latest known time back");
        assert!(check(5, a, now).is_err());
        // Another lineage and another name have their own memory.
        let other = Candidate { lineage: Digest::of("other"), ..candidate("content", 1) };
        let _ = remembered.check(other, now).expect("another lineage");
        let _ = remembered.check(candidate("other", 1), now).expect("another name");
    }

    #[test]
    fn a_bundle_under_an_older_root_could_be_signed_by_a_revoked_key() {
        let folder = tempfile::tempdir().expect("a folder");
        let remembered = Remembered::in_folder(folder.path());
        let now = at("2026-01-02T00:00:00Z");
        let under = |root: u64, text: &str, name: &str| {
            remembered.check(Candidate { root: (root, Digest::of(text)), ..candidate(name, 9) }, now)
        };
        under(1, "root 1", "content").expect("the first").remember().expect("remembered");
        under(2, "root 2", "content").expect("rotated").remember().expect("remembered");
        assert!(matches!(under(1, "root 1", "content"), Err(TrustError::RootRollback { offered: 1, known: 2, .. })));
        assert!(matches!(under(1, "root 1", "another"), Err(TrustError::RootRollback { .. })), "whatever its name");
        assert!(matches!(under(2, "a fork", "another"), Err(TrustError::OtherRoot(_))));
        let _ = under(3, "root 3", "another").expect("rotated again");
    }

    #[test]
    fn two_offers_made_at_once_can_not_bring_the_older_one_back() {
        let folder = tempfile::tempdir().expect("a folder");
        let remembered = Remembered::in_folder(folder.path());
        let now = at("2026-01-02T00:00:00Z");
        let check = |version| remembered.check(candidate("c", version), now);
        let (older, newer) = (check(1).expect("nothing known"), check(2).expect("nothing known"));
        newer.remember().expect("remembered");
        assert!(matches!(older.remember(), Err(TrustError::Rollback { .. })));
    }

    #[test]
    fn a_damaged_memory_and_a_name_that_is_a_path_are_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let remembered = Remembered::in_folder(folder.path());
        let now = at("2026-01-02T00:00:00Z");
        let check = |name: &str| remembered.check(candidate(name, 1), now);
        for name in ["../x", "a/b", "", "-a", "A", "a\0", "a.b", "ROOT"] {
            assert!(matches!(check(name), Err(TrustError::State { .. })), "{name:?}");
        }
        check("c").expect("new").remember().expect("remembered");
        for file in ["c.json", "ROOT"] {
            let path = folder.path().join(Digest::of("lineage").hex()).join(file);
            let good = fs::read(&path).expect("remembered");
            fs::write(&path, b"{").expect("write");
            assert!(matches!(check("c"), Err(TrustError::State { .. })), "{file}");
            fs::write(&path, good).expect("write");
        }
    }
}
