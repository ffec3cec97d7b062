//! Removing what nobody needs, while others push.
//!
//! A load pushes blobs first and the manifests that name them last, maybe hours later, and counts on blobs that it was told
//! are there. So a link is removed only if no manifest of its repository names it *and* no client heard of it for the grace
//! period; hearing of it sets its time (`store.rs`). Content goes when no repository links it.
//!
//! What could go wrong, and where it ends: a manifest that is stored while this runs (a link is looked at again, alone, just
//! before it is removed, and storing a manifest touches all it names); content that gets its first link at that moment
//! (naming it touches it); a manifest that can't be read or understood (its repository is left alone); a clock that was set
//! (`Clock`, in `upkeep.rs`).

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime};

use serde::Serialize;

use super::content::{Algorithm, ContentDigest};
use super::manifest::Manifest;
use super::store::{Store, names};
use crate::registry::reference::Repository;

/// File systems stamp with a clock that is read some milliseconds late.
const STAMP_LAG: Duration = Duration::from_secs(1);

/// What may be removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CollectPolicy {
    /// How long a blob that no manifest names stays after a client last heard of it.
    pub grace: Duration,
    /// How long a manifest without a tag stays after a client last heard of it; `None` keeps them all. One that a kept
    /// index names, or that refers to a kept manifest, stays.
    pub untagged: Option<Duration>,
}

impl Default for CollectPolicy {
    fn default() -> Self {
        Self { grace: Duration::from_secs(24 * 3600), untagged: None }
    }
}

/// What was removed, or would be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Collected {
    /// Manifests taken from a repository.
    pub manifests: u64,
    /// Blobs taken from a repository.
    pub blobs: u64,
    /// Contents that no repository had any more.
    pub contents: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Repositories that were left alone because a manifest in them could not be understood.
    pub skipped: u64,
}

/// Whether anything is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CollectMode {
    /// It is.
    Remove,
    /// It is only counted.
    Count,
}

/// What the manifests of one repository say.
struct Named {
    manifests: HashMap<ContentDigest, Manifest>,
    tagged: HashSet<ContentDigest>,
}

impl Store {
    /// Removes what the policy lets go; others may use the store at the same time.
    pub(super) fn collect(&self, policy: CollectPolicy, mode: CollectMode, limit: u64) -> io::Result<Collected> {
        // Whoever is storing a manifest right now is done after this, and seen; whoever begins later touches its parts.
        drop(self.removing());
        let begun = SystemTime::now().checked_sub(STAMP_LAG).unwrap_or(SystemTime::UNIX_EPOCH);
        let before = |age: Duration| begun.min(SystemTime::now().checked_sub(age).unwrap_or(SystemTime::UNIX_EPOCH));
        let mut done = Collected::default();
        for name in self.folders()? {
            let Ok(repository) = name.parse::<Repository>() else { continue };
            let mut named = match self.named(&repository, limit) {
                Ok(named) => named,
                Err(error) => {
                    tracing::error!(%repository, %error, "nothing is removed from a repository that can't be read");
                    done.skipped += 1;
                    continue;
                }
            };
            if let Some(age) = policy.untagged {
                done.manifests += self.collect_manifests(&repository, &mut named, before(age), mode)?;
            }
            done.blobs += self.collect_blobs(&repository, &named, before(policy.grace), mode)?;
        }
        let contents = self.collect_contents(begun, mode)?;
        Ok(Collected { contents: contents.contents, bytes: contents.bytes, ..done })
    }

    /// Removes what a crash left. Only for a store that nobody uses yet.
    pub(super) fn remove_left_over(&self) -> io::Result<Collected> {
        for name in self.folders()? {
            let repository = self.root().join("repositories").join(name);
            for kind in ["_blobs", "_manifests", "_tags"] {
                for name in names(&repository.join(kind))? {
                    if name.starts_with('.') {
                        fs::remove_file(repository.join(kind).join(name))?;
                    }
                }
            }
        }
        self.collect_contents(SystemTime::now() + STAMP_LAG, CollectMode::Remove)
    }

    fn named(&self, repository: &Repository, limit: u64) -> io::Result<Named> {
        let mut manifests = HashMap::new();
        for name in names(&self.repository_path(repository).join("_manifests"))? {
            let Some(digest) = ContentDigest::from_hex(&name) else { continue };
            // One that was deleted since is no reason to stop.
            let Some((media_type, bytes)) = self.read_manifest(repository, &digest, limit)? else { continue };
            let manifest = Manifest::parse(&media_type, &bytes)
                .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, format!("{digest} is no manifest")))?;
            manifests.insert(digest, manifest);
        }
        let mut tagged = HashSet::new();
        for tag in self.tags(repository)? {
            tagged.extend(self.tag(repository, &tag)?);
        }
        Ok(Named { manifests, tagged })
    }

    fn collect_manifests(
        &self,
        repository: &Repository,
        named: &mut Named,
        before: SystemTime,
        mode: CollectMode,
    ) -> io::Result<u64> {
        let path = |digest: &ContentDigest| self.link_path(repository, "_manifests", &digest.hex());
        let young = named.manifests.keys().filter(|digest| !unused_since(&path(digest), before));
        let kept = named.closure(named.tagged.iter().chain(young).copied().collect());
        let mut removed = 0;
        let old: Vec<_> = named.manifests.keys().filter(|digest| !kept.contains(digest)).copied().collect();
        for digest in old {
            if !self.remove_unused(&path(&digest), before, mode)? {
                continue;
            }
            let manifest = named.manifests.remove(&digest);
            if let (Some(subject), CollectMode::Remove) = (manifest.and_then(|manifest| manifest.subject()), mode) {
                let _ = fs::remove_file(self.link_path(repository, "_referrers", &subject.hex()).join(digest.hex()));
            }
            removed += 1;
        }
        Ok(removed)
    }

    fn collect_blobs(
        &self,
        repository: &Repository,
        named: &Named,
        before: SystemTime,
        mode: CollectMode,
    ) -> io::Result<u64> {
        let used: HashSet<ContentDigest> = named.manifests.values().flat_map(Manifest::blobs).collect();
        let folder = self.repository_path(repository).join("_blobs");
        let mut removed = 0;
        for name in names(&folder)? {
            let Some(digest) = ContentDigest::from_hex(&name) else { continue };
            if !used.contains(&digest) && self.remove_unused(&folder.join(name), before, mode)? {
                removed += 1;
            }
        }
        Ok(removed)
    }

    /// Content whose last link went before it was looked for, and which nobody named since.
    fn collect_contents(&self, before: SystemTime, mode: CollectMode) -> io::Result<Collected> {
        let mut used = HashSet::new();
        for repository in self.folders()? {
            for kind in ["_blobs", "_manifests"] {
                used.extend(names(&self.root().join("repositories").join(&repository).join(kind))?);
            }
        }
        let mut removed = Collected::default();
        for algorithm in Algorithm::ALL {
            let content = self.root().join("blobs").join(algorithm.name());
            for folder in names(&content)? {
                for name in names(&content.join(&folder))? {
                    let path = content.join(&folder).join(&name);
                    let bytes = fs::metadata(&path).map_or(0, |metadata| metadata.len());
                    if !used.contains(&name) && self.remove_unused(&path, before, mode)? {
                        removed.contents += 1;
                        removed.bytes += bytes;
                    }
                }
            }
        }
        Ok(removed)
    }

    /// Removes the file if nobody heard of it since. Nobody hears of it between the look and the removal.
    fn remove_unused(&self, path: &Path, before: SystemTime, mode: CollectMode) -> io::Result<bool> {
        if !unused_since(path, before) {
            return Ok(false);
        }
        let _alone = self.removing();
        if !unused_since(path, before) {
            return Ok(false);
        }
        match mode {
            CollectMode::Count => Ok(true),
            CollectMode::Remove => match fs::remove_file(path) {
                Ok(()) => Ok(true),
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
                Err(error) => Err(error),
            },
        }
    }
}

impl Named {
    /// These manifests with all that they name and all that refers to them.
    fn closure(&self, mut kept: HashSet<ContentDigest>) -> HashSet<ContentDigest> {
        let mut open: Vec<ContentDigest> = kept.iter().copied().collect();
        let mut referrers: HashMap<ContentDigest, Vec<ContentDigest>> = HashMap::new();
        for (digest, manifest) in &self.manifests {
            if let Some(subject) = manifest.subject() {
                referrers.entry(subject).or_default().push(*digest);
            }
        }
        while let Some(digest) = open.pop() {
            let parts = self.manifests.get(&digest).into_iter().flat_map(Manifest::manifests);
            for next in parts.chain(referrers.get(&digest).into_iter().flatten().copied()) {
                if kept.insert(next) {
                    open.push(next);
                }
            }
        }
        kept
    }
}

/// Whether the file was last used before this moment. A file that is gone, or whose time can't be read, was not.
fn unused_since(path: &Path, before: SystemTime) -> bool {
    fs::symlink_metadata(path).and_then(|metadata| metadata.modified()).is_ok_and(|used| used < before)
}
