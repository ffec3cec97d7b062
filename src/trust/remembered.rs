//! What was accepted before: it makes an old bundle unacceptable, and keeps what bundles said about others.
//!
//! For each lineage (the first root of a chain) a folder with small files, each replaced whole: one for each bundle name,
//! `ROOT` for the newest root (a bundle under an older one could be signed by keys that were revoked since), `NOTICES` for
//! revocations and permits. [`Remembered::check`] looks before anything is written to a registry; [`Offer::remember`]
//! writes after everything was verified and before any tag moves, so that a crash in between leaves a bundle that can be
//! loaded again (the same version with the same content is accepted), never one that was forgotten. It writes the root
//! first, then the notices, then the version: whatever was written when it was killed refuses more than before, not less.
//!
//! What an attacker may try, and where it ends:
//!
//! * an older version, other content of the same version, an older root, another root of the same version, a clock that
//!   was set back: [`Remembered::check`];
//! * what was revoked, under this or another name: the same, by the digest of everything that is signed;
//! * a permit that is over, used, or for other content: the same;
//! * notices of another lineage: they are in another folder;
//! * the state removed, or replaced by an older copy of itself: what somebody else recorded, as the ledger, says so
//!   ([`Remembered::witnessed`]);
//! * a file that is damaged: it can't be understood, and nothing is accepted until it is restored.

mod state;

use std::collections::BTreeSet;
use std::fs::File;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::Arc;

use jiff::Timestamp;

use self::state::{Files, Seen, SeenRoot, UsedPermit, read, write};
use super::error::TrustError;
use super::metadata::VerifiedMetadata;
use crate::base::digest::Digest;
use crate::base::file::{self, FileError};
use crate::base::text::brief;
use crate::model::notice::{Notices, Permit};
use crate::model::provenance::BundleRef;

/// How far the clocks of the two sides of the gap may be apart.
const CLOCK_TOLERANCE_SECONDS: i64 = 3600;

/// How far back the clock may go unnoticed: a time service that corrects a drift, or two commands that started at once
/// and remember in the other order.
const DRIFT_SECONDS: i64 = 60;

/// Where versions are remembered.
#[derive(Clone, Debug)]
pub struct Remembered {
    folder: Option<PathBuf>,
    witnessed: Arc<[Witnessed]>,
    on_loss: OnLoss,
    writes: Writes,
}

/// What becomes of a version that was accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Writes {
    /// It is remembered.
    Kept,
    /// Nothing: somebody only looks.
    None,
}

/// A bundle that somebody else recorded as used: a ledger names the bundle that each of its results comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Witnessed {
    /// Which.
    pub bundle: BundleRef,
    /// When it was used.
    pub at: Timestamp,
}

/// What happens where the state knows less than somebody else recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnLoss {
    /// Nothing is accepted: the state was removed, or replaced by an older copy.
    Refuse,
    /// What was recorded counts as if it were remembered, and is remembered with the next bundle. For an operator who
    /// knows why the state is gone. Revocations, permits and the newest root are not recorded elsewhere: the bundles that
    /// carry them must be loaded again.
    Adopt,
}

/// What is on offer.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// The digests of the roots of its chain, from the first, which names the lineage.
    pub roots: Vec<Digest>,
    /// The bundle's name.
    pub name: String,
    /// The bundle's version.
    pub version: u64,
    /// The digest of its content: of what is signed, whoever signed it.
    pub content: Digest,
    /// When it was made.
    pub created: Timestamp,
    /// The digests of everything that is signed in it.
    pub items: BTreeSet<Digest>,
}

impl Candidate {
    /// A bundle of this name under verified metadata.
    pub fn of(metadata: &VerifiedMetadata, name: &str, content: Digest, created: Timestamp) -> Self {
        let targets = metadata.targets().targets.values();
        let digests = targets.filter_map(|target| <[u8; 32]>::try_from(&target.hashes.sha256[..]).ok());
        Self {
            roots: metadata.root_digests().to_vec(),
            name: name.to_owned(),
            version: metadata.version(),
            content,
            created,
            items: digests.map(Digest::from_bytes).collect(),
        }
    }

    fn shown(&self) -> String {
        format!("bundle `{}`", brief(&self.name))
    }

    fn root(&self) -> Result<(u64, Digest), TrustError> {
        let last = self.roots.last().ok_or_else(|| TrustError::OtherRoot("it has no root".to_owned()))?;
        Ok((self.roots.len() as u64, *last))
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

/// How a bundle that was accepted is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// It is brought in: from now on it is the one that is used, and an older one that was permitted is not any more.
    First,
    /// What was brought in before is read again.
    Again,
}

/// What is known when a bundle is on offer.
struct Known {
    root: Option<SeenRoot>,
    notices: Notices,
    seen: Option<Seen>,
    /// The permit that lets an older version in.
    permit: Option<Permit>,
}

impl Remembered {
    /// Versions are remembered in this folder, which is made when it is needed.
    pub fn in_folder(folder: impl Into<PathBuf>) -> Self {
        Self { folder: Some(folder.into()), witnessed: Arc::default(), on_loss: OnLoss::Refuse, writes: Writes::Kept }
    }

    /// Nothing is remembered: no protection against rollback. For looking at a bundle that is not going to be used.
    pub fn nothing() -> Self {
        Self { folder: None, witnessed: Arc::default(), on_loss: OnLoss::Refuse, writes: Writes::Kept }
    }

    /// The same for looking: what is remembered is compared with as ever, and nothing is remembered anew.
    #[must_use]
    pub fn for_looking(self) -> Self {
        Self { writes: Writes::None, ..self }
    }

    /// The same, compared with what somebody else recorded.
    #[must_use]
    pub fn witnessed(self, by: Vec<Witnessed>, on_loss: OnLoss) -> Self {
        Self { witnessed: by.into(), on_loss, ..self }
    }

    /// Whether this version may be accepted. Nothing is written.
    ///
    /// # Errors
    /// When a higher version, other content of the same version or a newer root was accepted before, it was revoked, the
    /// state knows less than was recorded elsewhere, or the clock can't be right.
    pub fn check(&self, candidate: Candidate, now: Timestamp) -> Result<Offer, TrustError> {
        let offer = Offer { remembered: self.clone(), candidate, now };
        if let Some(seen) = offer.compare()?.and_then(|known| known.seen)
            && now.as_second() < seen.clock.as_second().saturating_sub(DRIFT_SECONDS)
        {
            return Err(TrustError::ClockBack { what: offer.candidate.shown(), now, known: seen.clock });
        }
        Ok(offer)
    }

    fn files(&self, candidate: &Candidate) -> Result<Option<Files>, TrustError> {
        let Some(folder) = &self.folder else { return Ok(None) };
        let lineage = candidate.roots.first().ok_or_else(|| TrustError::OtherRoot("it has no root".to_owned()))?;
        Files::new(folder, lineage, &candidate.name).map(Some)
    }

    /// The newest version of this bundle that was recorded elsewhere, under any root of its chain.
    fn witness(&self, candidate: &Candidate) -> Option<&Witnessed> {
        self.witnessed
            .iter()
            .filter(|w| w.bundle.name == candidate.name && candidate.roots.contains(&w.bundle.root))
            .max_by_key(|w| (w.bundle.version, w.at))
    }
}

impl Offer {
    /// Remembers the version, and what the bundle says about others; from now on older ones are refused. Looks again
    /// first, in case another process was quicker.
    ///
    /// # Errors
    /// As [`Remembered::check`], and when the bundle revokes itself or a file can't be written.
    pub fn remember(&self, notices: &Notices, how: Use) -> Result<(), TrustError> {
        let Some(files) = self.remembered.files(&self.candidate)? else { return Ok(()) };
        if self.remembered.writes == Writes::None {
            return self.compare().map(|_| ());
        }
        file::make_folder(&files.lineage)?;
        let failed = |source| FileError::Write { path: files.lock.clone(), source };
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
        let Some(known) = self.compare()? else { return Ok(()) };
        let kept = files.with_notices(&known.notices, notices, self.now)?;
        self.check_revoked(&kept)?;
        let (version, digest) = self.candidate.root()?;
        let root = SeenRoot { version, digest };
        if known.root.as_ref() != Some(&root) {
            write(&files.root, &root)?;
        }
        if known.notices != kept {
            write(&files.notices, &kept)?;
        }
        write(&files.bundle, &self.seen_now(&known, how))
    }

    /// What is remembered of the name once this version was accepted.
    fn seen_now(&self, known: &Known, how: Use) -> Seen {
        let candidate = &self.candidate;
        let Some(before) = &known.seen else {
            let (version, content, clock) = (candidate.version, candidate.content, self.now);
            return Seen { version, content, clock, permitted: None, used: Vec::new() };
        };
        let mut seen = before.clone();
        seen.clock = before.clock.max(self.now);
        seen.used.retain(|used| used.until >= self.now);
        match &known.permit {
            Some(permit) => {
                let used = UsedPermit { id: permit.id(), until: permit.until };
                if !seen.used.contains(&used) {
                    seen.used.push(used);
                }
                seen.permitted = Some(permit.clone());
            }
            None => {
                if candidate.version > before.version || how == Use::First {
                    seen.permitted = None;
                }
                (seen.version, seen.content) = (candidate.version, candidate.content);
            }
        }
        seen
    }

    /// Compares with all that is known; `None` where nothing is remembered.
    fn compare(&self) -> Result<Option<Known>, TrustError> {
        let (offered, now) = (&self.candidate, self.now);
        if offered.created.as_second() > now.as_second().saturating_add(CLOCK_TOLERANCE_SECONDS) {
            return Err(TrustError::NotYetValid { what: offered.shown(), created: offered.created, now });
        }
        let Some(files) = self.remembered.files(offered)? else { return Ok(None) };
        let root = read::<SeenRoot>(&files.root)?;
        if let Some(known) = &root {
            let (version, digest) = offered.root()?;
            if version < known.version {
                return Err(TrustError::RootRollback { what: offered.shown(), offered: version, known: known.version });
            }
            if version == known.version && digest != known.digest {
                return Err(TrustError::OtherRoot(format!(
                    "its root {version} is {digest}, and {} was accepted before",
                    known.digest
                )));
            }
        }
        let notices = read::<Notices>(&files.notices)?.unwrap_or_default();
        self.check_revoked(&notices)?;
        let seen = self.with_witness(read::<Seen>(&files.bundle)?)?;
        let permit = match &seen {
            Some(seen) => self.check_version(seen, &notices)?,
            None => None,
        };
        Ok(Some(Known { root, notices, seen, permit }))
    }

    fn check_revoked(&self, notices: &Notices) -> Result<(), TrustError> {
        let offered = &self.candidate;
        for revocation in &notices.revocations {
            let item = revocation.item.filter(|item| offered.items.contains(item));
            if item.is_some() || revocation.names(&offered.name, offered.version, &offered.content) {
                let item = item.map_or(String::new(), |item| format!(", which contains {item}"));
                return Err(TrustError::Revoked {
                    what: format!("{} version {}{item}", offered.shown(), offered.version),
                    reason: brief(&revocation.reason),
                });
            }
        }
        Ok(())
    }

    /// What is remembered, compared with what was recorded elsewhere.
    fn with_witness(&self, seen: Option<Seen>) -> Result<Option<Seen>, TrustError> {
        let Some(Witnessed { bundle, at }) = self.remembered.witness(&self.candidate) else { return Ok(seen) };
        let other_content = seen.as_ref().is_some_and(|s| s.version == bundle.version && s.content != bundle.digest);
        let behind = seen.as_ref().is_none_or(|seen| seen.version < bundle.version);
        if !behind && !other_content {
            return Ok(seen);
        }
        if other_content || self.remembered.on_loss == OnLoss::Refuse {
            return Err(TrustError::StateLost {
                what: self.candidate.shown(),
                recorded: format!("version {} with content {}", bundle.version, bundle.digest),
                remembered: seen.map_or("nothing of it".to_owned(), |s| {
                    format!("version {} with content {}", s.version, s.content)
                }),
            });
        }
        let (permitted, used) = seen.map_or((None, Vec::new()), |seen| (seen.permitted, seen.used));
        Ok(Some(Seen { version: bundle.version, content: bundle.digest, clock: *at, permitted, used }))
    }

    /// The permit by which an older version is accepted; none for one that needs none.
    fn check_version(&self, seen: &Seen, notices: &Notices) -> Result<Option<Permit>, TrustError> {
        let (offered, now) = (&self.candidate, self.now);
        if offered.version > seen.version {
            return Ok(None);
        }
        if offered.version == seen.version {
            if offered.content == seen.content {
                return Ok(None);
            }
            return Err(TrustError::OtherContent {
                what: offered.shown(),
                version: seen.version,
                known: seen.content.to_string(),
                offered: offered.content.to_string(),
            });
        }
        let fits = |permit: &&Permit| {
            permit.bundle == offered.name && permit.version == offered.version && permit.content == offered.content
        };
        let is_used = |permit: &&Permit| seen.used.iter().any(|used| used.id == permit.id());
        let (what, version) = (offered.shown(), offered.version);
        let in_use = seen.permitted.as_ref().filter(fits);
        if let Some(permit) = in_use.filter(|permit| now <= permit.until) {
            return Ok(Some(permit.clone()));
        }
        let mut refused = TrustError::Rollback { what: what.clone(), offered: version, known: seen.version };
        for permit in notices.permits.iter().filter(fits).chain(in_use) {
            if now > permit.until {
                refused = TrustError::PermitOver { what: what.clone(), version, until: permit.until, now };
            } else if is_used(&permit) {
                refused = TrustError::PermitUsed { what: what.clone(), version };
            } else {
                return Ok(Some(permit.clone()));
            }
        }
        Err(refused)
    }
}

#[cfg(test)]
mod tests;
