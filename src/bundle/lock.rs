//! `bundle.lock`: everything in a bundle, pinned. The same lock and keys give the same bytes.

use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::definition::wrong;
use super::writer::BuildError;
use crate::base::digest::Digest;
use crate::base::document::{self, ApiVersion, Document};
use crate::base::file;
use crate::base::limits::Limits;

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
    /// Everything in the bundle: images (gapscan's own first), profiles, dependencies.
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
    /// The layer of an image that is made here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layer: Option<LockedLayer>,
    /// The digest of a profile's controls.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub controls: Option<Digest>,
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
        for item in &self.items {
            match now.item(&item.repository) {
                None => lines.push(format!("{} is locked and no longer defined", item.repository)),
                Some(new) if new != item => lines.push(format!(
                    "{} is locked as {}{}, and is {}{} now",
                    item.repository,
                    item.digest,
                    item.layer.as_ref().map_or(String::new(), |l| format!(" (layer {})", l.digest.short())),
                    new.digest,
                    new.layer.as_ref().map_or(String::new(), |l| format!(" (layer {})", l.digest.short())),
                )),
                Some(_) => {}
            }
        }
        lines.extend(
            now.items
                .iter()
                .filter(|item| self.item(&item.repository).is_none())
                .map(|item| format!("{} is defined and not locked", item.repository)),
        );
        if self.scanners != now.scanners {
            lines.push("the scanner definitions were changed after they were locked".to_owned());
        }
        if lines.is_empty() && self != now {
            lines.push("the order of the items was changed after they were locked".to_owned());
        }
        lines
    }
}
