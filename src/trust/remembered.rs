//! The versions that were accepted before: what makes an old bundle unacceptable.
//!
//! One small file for each pair of root lineage and bundle name, replaced atomically. [`Remembered::check`] looks before
//! anything is written to a registry; [`Offer::remember`] writes after everything was verified and before any tag moves,
//! so that a crash in between leaves a bundle that can be loaded again (the same version with the same content is
//! accepted), never one that was forgotten.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::error::TrustError;
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

/// A version on offer that was found acceptable by [`Remembered::check`].
#[derive(Clone, Debug)]
#[must_use = "an accepted version protects against rollback only when it is remembered"]
pub struct Offer {
    remembered: Remembered,
    what: String,
    lineage: Digest,
    name: String,
    seen: Seen,
    created: Timestamp,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Seen {
    version: u64,
    targets: Digest,
    clock: Timestamp,
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
    /// When a higher version or other content of the same version was accepted before, or the clock can't be right.
    pub fn check(
        &self,
        lineage: Digest,
        name: &str,
        version: u64,
        targets: Digest,
        created: Timestamp,
        now: Timestamp,
    ) -> Result<Offer, TrustError> {
        let offer = Offer {
            remembered: self.clone(),
            what: format!("bundle `{}` version {version}", brief(name)),
            lineage,
            name: name.to_owned(),
            seen: Seen { version, targets, clock: now },
            created,
        };
        offer.compare()?;
        Ok(offer)
    }

    fn path(&self, lineage: Digest, name: &str) -> Result<Option<PathBuf>, TrustError> {
        let Some(folder) = &self.folder else { return Ok(None) };
        let unfit = name.is_empty()
            || name.len() > 63
            || !name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
            || name.starts_with('-');
        if unfit {
            let reason = format!("`{}` can't be the name of a bundle", brief(name));
            return Err(TrustError::State { path: folder.clone(), reason });
        }
        Ok(Some(folder.join(lineage.hex()).join(format!("{name}.json"))))
    }
}

impl Offer {
    /// Remembers the version; from now on older ones are refused. Looks again first, in case another process was quicker.
    ///
    /// # Errors
    /// As [`Remembered::check`], and when the file can't be written.
    pub fn remember(&self) -> Result<(), TrustError> {
        let Some(path) = self.remembered.path(self.lineage, &self.name)? else { return Ok(()) };
        let folder = path.parent().unwrap_or(Path::new("."));
        let failed = |source| FileError::Write { path: path.clone(), source };
        fs::create_dir_all(folder).map_err(failed)?;
        // Two loads at once must not both read the old version and then write in the wrong order.
        let lock = File::create(folder.join(format!("{}.lock", self.name))).map_err(failed)?;
        lock.lock().map_err(failed)?;
        let known = self.compare()?;
        let mut seen = self.seen.clone();
        // The newest time that is known for certain: the clock, or the moment the bundle was made.
        seen.clock = seen.clock.max(known.map_or(seen.clock, |k| k.clock));
        let json = serde_json::to_vec(&seen).expect("numbers and strings have a JSON form");
        Ok(file::write_atomic(&path, &json, 0o600)?)
    }

    fn compare(&self) -> Result<Option<Seen>, TrustError> {
        let now = self.seen.clock;
        if self.created.as_second() > now.as_second().saturating_add(CLOCK_TOLERANCE_SECONDS) {
            return Err(TrustError::NotYetValid { what: self.what.clone(), created: self.created, now });
        }
        let Some(path) = self.remembered.path(self.lineage, &self.name)? else { return Ok(None) };
        // Only a file that is certainly not there means that nothing is known; one that can't be reached is an error.
        if !path.try_exists().map_err(|source| FileError::Read { path: path.clone(), source })? {
            return Ok(None);
        }
        let bytes = file::read_capped(&path, 4096)?;
        // A file that can't be understood is no reason to begin anew: that is what an attacker would wish for.
        let known: Seen = serde_json::from_slice(&bytes)
            .map_err(|e| TrustError::State { path: path.clone(), reason: e.to_string() })?;
        let what = || self.what.clone();
        if now < known.clock {
            return Err(TrustError::ClockBack { what: what(), now, known: known.clock });
        }
        if self.seen.version < known.version {
            let what = format!("bundle `{}`", self.name);
            return Err(TrustError::Rollback { what, offered: self.seen.version, known: known.version });
        }
        if self.seen.version == known.version && self.seen.targets != known.targets {
            return Err(TrustError::OtherContent {
                what: format!("bundle `{}`", self.name),
                version: known.version,
                known: known.targets.to_string(),
                offered: self.seen.targets.to_string(),
            });
        }
        Ok(Some(known))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().expect("a time")
    }

    #[test]
    fn only_newer_versions_or_the_same_content_are_accepted() {
        let folder = tempfile::tempdir().expect("a folder");
        let remembered = Remembered::in_folder(folder.path().join("state"));
        let (root, a, b) = (Digest::of("root"), Digest::of("a"), Digest::of("b"));
        let (made, now) = (at("2026-01-01T00:00:00Z"), at("2026-01-02T00:00:00Z"));
        let check = |version, targets, now| remembered.check(root, "content", version, targets, made, now);

        check(5, a, now).expect("the first").remember().expect("remembered");
        check(5, a, now).expect("the same again").remember().expect("remembered");
        assert!(matches!(check(4, a, now), Err(TrustError::Rollback { offered: 4, known: 5, .. })));
        assert!(matches!(check(5, b, now), Err(TrustError::OtherContent { version: 5, .. })));
        assert!(matches!(check(6, b, at("2026-01-01T23:59:59Z")), Err(TrustError::ClockBack { .. })));
        assert!(matches!(check(6, b, at("1970-01-01T00:00:00Z")), Err(TrustError::NotYetValid { .. })));
        check(6, b, now).expect("newer").remember().expect("remembered");
        assert!(check(5, a, now).is_err());
        // Another lineage and another name have their own memory.
        let _ = remembered.check(Digest::of("other"), "content", 1, a, made, now).expect("another root");
        let _ = remembered.check(root, "other", 1, a, made, now).expect("another name");
    }

    #[test]
    fn two_offers_made_at_once_can_not_bring_the_older_one_back() {
        let folder = tempfile::tempdir().expect("a folder");
        let remembered = Remembered::in_folder(folder.path());
        let now = at("2026-01-02T00:00:00Z");
        let check = |version| remembered.check(Digest::of("r"), "c", version, Digest::of("t"), now, now);
        let (older, newer) = (check(1).expect("nothing known"), check(2).expect("nothing known"));
        newer.remember().expect("remembered");
        assert!(matches!(older.remember(), Err(TrustError::Rollback { .. })));
    }

    #[test]
    fn a_damaged_memory_and_a_name_that_is_a_path_are_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let remembered = Remembered::in_folder(folder.path());
        let now = at("2026-01-02T00:00:00Z");
        let check = |name: &str| remembered.check(Digest::of("r"), name, 1, Digest::of("t"), now, now);
        for name in ["../x", "a/b", "", "-a", "A", "a\0", "a.b"] {
            assert!(matches!(check(name), Err(TrustError::State { .. })), "{name:?}");
        }
        check("c").expect("new").remember().expect("remembered");
        let path = folder.path().join(Digest::of("r").hex()).join("c.json");
        fs::write(&path, b"{").expect("write");
        assert!(matches!(check("c"), Err(TrustError::State { .. })));
    }
}
