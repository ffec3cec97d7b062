//! `bundle.lock`: everything in a bundle, pinned. The same lock and keys give the same bytes.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::definition::wrong;
use super::oci::Descriptor;
use super::writer::BuildError;
use crate::base::digest::Digest;
use crate::base::document::{self, ApiVersion, Document};
use crate::base::file;
use crate::base::limits::Limits;
use crate::model::catalog::UpstreamSignature;

/// A `kind: BundleLock` document. Written by `gapscan bundle lock`, made to be compared line by line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct BundleLock {
    /// `gapscan/v1`
    pub api_version: ApiVersion,
    /// `BundleLock`
    pub kind: String,
    /// The bundle's name.
    pub name: String,
    /// The bundle's version.
    pub version: u64,
    /// When it was locked, in whole seconds. Every time in the bundle follows from this one.
    pub created: Timestamp,
    /// The digest of the `bundle.yaml` that was locked.
    pub definition: Digest,
    /// Everything in the bundle: images (gapscan's own first), profiles, dependencies, charts.
    pub items: Vec<LockedItem>,
    /// The scanner definitions.
    pub scanners: Vec<LockedFile>,
}

impl Document for BundleLock {
    const KIND: &'static str = "BundleLock";
}

/// One pinned item.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct LockedItem {
    /// Its repository in the bundle.
    pub repository: String,
    /// Where it comes from, with its digest where it comes from a registry.
    pub source: String,
    /// The digest of the index that the platform's manifest was chosen from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index: Option<Digest>,
    /// The media type of its manifest or index.
    pub media_type: String,
    /// The digest of its manifest or index.
    pub digest: Digest,
    /// The length of its manifest or index in bytes.
    pub size: u64,
    /// The digest of what the definition says of it: where it comes from, for what platforms, with what signature.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wanted: Option<Digest>,
    /// The layer of an image that is made here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layer: Option<LockedLayer>,
    /// The digest of a profile's controls.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub controls: Option<Digest>,
    /// When a dependency's content was built.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub built: Option<Timestamp>,
    /// What a chart says that it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chart: Option<LockedChart>,
    /// Its licences.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub licences: Vec<String>,
    /// The upstream signature that was verified.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verified: Option<UpstreamSignature>,
    /// Signatures, SBOMs and the like that travel with it, by digest.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub companions: Vec<LockedCompanion>,
}

/// What a chart says that it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct LockedChart {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// The version of what it installs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub app_version: Option<String>,
}

/// A pinned companion of an item.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct LockedCompanion {
    /// The digest of its manifest or index.
    pub digest: Digest,
    /// The media type of its manifest or index.
    pub media_type: String,
    /// The length of its manifest or index in bytes.
    pub size: u64,
    /// The tag that it is found by, where it is not found by its subject.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
}

impl LockedCompanion {
    /// Its descriptor.
    pub fn descriptor(&self) -> Descriptor {
        Descriptor {
            media_type: self.media_type.clone(),
            digest: self.digest,
            size: self.size,
            platform: None,
            annotations: Default::default(),
        }
    }
}

impl LockedItem {
    /// Its name in the bundle.
    pub fn name(&self) -> &str {
        self.repository.rsplit('/').next().unwrap_or_default()
    }

    /// How it came to be another one than `self`, which was locked before.
    fn why(&self, now: &Self) -> String {
        if self.digest != now.digest || self.layer != now.layer {
            return match (self.wanted == now.wanted, &now.layer) {
                (false, _) => "the definition asks for something else",
                (true, Some(_)) => "its files were changed",
                (true, None) => "upstream has another one under that name",
            }
            .to_owned();
        }
        let set = |item: &Self| item.companions.iter().map(|c| c.digest).collect::<BTreeSet<_>>();
        let (before, after) = (set(self), set(now));
        let mut what = Vec::new();
        if before != after || self.companions != now.companions {
            let (more, fewer) = (after.difference(&before).count(), before.difference(&after).count());
            what.push(format!("signatures and the like: {more} more, {fewer} fewer"));
        }
        for (name, same) in [
            ("the signature that was verified", self.verified == now.verified),
            ("when it was built", self.built == now.built),
            ("licences", self.licences == now.licences),
            ("where it comes from", self.source == now.source && self.index == now.index),
            ("what the definition says of it", self.wanted == now.wanted),
            ("its controls", self.controls == now.controls),
            ("the chart's version", self.chart == now.chart),
        ] {
            if !same {
                what.push(name.to_owned());
            }
        }
        format!("the content is the same, and this is not: {}", what.join(", "))
    }
}

/// What of a lock is other than in the one before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The item's repository, or the path of a scanner's definition.
    pub what: String,
    /// Its digest before; nothing for what is new.
    pub was: Option<Digest>,
    /// Its digest now; nothing for what is gone.
    pub now: Option<Digest>,
    /// Why, in words.
    pub why: String,
    /// Whether it stayed asked for, and in the same words.
    pub asked_the_same: bool,
}

impl std::fmt::Display for Change {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.was, self.now) {
            (Some(was), Some(now)) if was != now => write!(f, "{}: {was} -> {now}, {}", self.what, self.why),
            (_, Some(digest)) | (Some(digest), None) => write!(f, "{}: {digest}, {}", self.what, self.why),
            (None, None) => write!(f, "{}: {}", self.what, self.why),
        }
    }
}

/// A pinned layer of an image that is made here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct LockedLayer {
    /// Its digest.
    pub digest: Digest,
    /// Its length in bytes.
    pub size: u64,
}

/// A pinned file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct LockedFile {
    /// Its path, relative to the definition.
    pub path: PathBuf,
    /// Its digest.
    pub digest: Digest,
}

impl BundleLock {
    /// Reads a lock.
    ///
    /// # Errors
    /// When it can't be read or is none.
    pub fn read(path: &Path, limits: &Limits) -> Result<Self, BuildError> {
        document::load(path, limits).map_err(wrong)
    }

    /// Writes the lock, replacing an older one.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn write(&self, path: &Path) -> Result<(), BuildError> {
        let yaml =
            document::to_yaml(self).map_err(|e| BuildError::Definition(format!("write `{}`: {e}", path.display())))?;
        let text = format!("# Written by `gapscan bundle lock`; changes are overwritten.\n{yaml}");
        Ok(file::write_atomic(path, text.as_bytes(), 0o644)?)
    }

    /// The pinned item of this repository.
    pub fn item(&self, repository: &str) -> Option<&LockedItem> {
        self.items.iter().find(|item| item.repository == repository)
    }

    /// The items and scanner definitions that are others in `now`, those that were here before first.
    pub fn changes(&self, now: &Self) -> Vec<Change> {
        let mut changes = Vec::new();
        for item in &self.items {
            let what = item.repository.clone();
            match now.item(&item.repository) {
                None => changes.push(Change {
                    what,
                    was: Some(item.digest),
                    now: None,
                    why: "it is no longer in the definition".to_owned(),
                    asked_the_same: false,
                }),
                Some(new) if new != item => changes.push(Change {
                    what,
                    was: Some(item.digest),
                    now: Some(new.digest),
                    why: item.why(new),
                    asked_the_same: item.wanted == new.wanted,
                }),
                Some(_) => {}
            }
        }
        let new = now.items.iter().filter(|item| self.item(&item.repository).is_none());
        changes.extend(new.map(|item| Change {
            what: item.repository.clone(),
            was: None,
            now: Some(item.digest),
            why: "it is new in the definition".to_owned(),
            asked_the_same: false,
        }));
        let digest = |files: &[LockedFile], path: &Path| files.iter().find(|f| f.path == path).map(|f| f.digest);
        let paths: BTreeSet<&PathBuf> = self.scanners.iter().chain(&now.scanners).map(|file| &file.path).collect();
        for path in paths {
            let (was, new) = (digest(&self.scanners, path), digest(&now.scanners, path));
            if was != new {
                let why = match (was, new) {
                    (None, _) => "it is new in the definition",
                    (_, None) => "it is no longer in the definition",
                    (Some(_), Some(_)) => "the scanner's definition was changed",
                };
                let both = was.is_some() && new.is_some();
                let what = path.display().to_string();
                changes.push(Change { what, was, now: new, why: why.to_owned(), asked_the_same: both });
            }
        }
        changes
    }

    /// What differs between this lock and what was collected now, one line each.
    pub fn differences(&self, now: &Self) -> Vec<String> {
        let mut lines = Vec::new();
        if self.definition != now.definition {
            lines.push("bundle.yaml was changed after it was locked".to_owned());
        }
        if (&self.name, self.version) != (&now.name, now.version) {
            lines
                .push(format!("{} {} is locked, and {} {} is defined", self.name, self.version, now.name, now.version));
        }
        lines.extend(self.changes(now).iter().map(Change::to_string));
        if lines.is_empty() && self != now {
            lines.push("the order of the items was changed after they were locked".to_owned());
        }
        lines
    }
}
