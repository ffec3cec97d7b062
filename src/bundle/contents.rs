//! What is in a bundle, entry by entry: the signed list of targets, and the order that follows from it.

use std::collections::{BTreeMap, HashMap};
use std::num::NonZeroU64;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tough::TargetName;
use tough::schema::{Hashes, Target, Targets};

use super::archive;
use super::error::BundleError;
use super::name::{is_name, is_repository};
use super::oci;
use crate::base::digest::Digest;
use crate::base::limits::Limits;
use crate::model::catalog::CATALOG_MEDIA_TYPE;
use crate::model::provenance::BundleRef;
use crate::trust::metadata::{MAX_VERSION, SPEC_VERSION};

/// The extra field of the targets metadata that carries [`Label`].
const LABEL_FIELD: &str = "gapscan";
/// The field of a target with its media type.
const MEDIA_TYPE_FIELD: &str = "mediaType";
/// The field of the label with [`BaseRef`], and of a target with the repository of the base that has it.
const BASE_FIELD: &str = "base";
/// The folder of the metadata files.
pub const METADATA: &str = "metadata/";
/// The image layout's marker.
pub const OCI_LAYOUT: &str = "oci-layout";
/// The image layout's index.
pub const INDEX_JSON: &str = "index.json";
const BLOBS: &str = "blobs/sha256/";

/// The bundle that a delta bundle was made against: it leaves out blobs that a registry has once that one was loaded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct BaseRef {
    /// Its name.
    pub bundle: String,
    /// Its version.
    pub version: u64,
    /// Its content digest ([`Contents::digest`]).
    pub content: Digest,
}

/// A blob that is signed and not in the archive of a delta bundle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BaseBlob {
    /// What it would be in the archive.
    pub entry: Entry,
    /// A repository that has it once the base was loaded, below the prefix.
    pub repository: String,
}

/// One entry of the archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its name in the archive.
    pub name: String,
    /// Its length in bytes.
    pub size: u64,
    /// Its digest.
    pub digest: Digest,
    /// What it is.
    pub media_type: String,
}

impl Entry {
    /// A blob, manifests included: it is named by its digest.
    pub fn blob(digest: Digest, size: u64, media_type: impl Into<String>) -> Self {
        Self { name: format!("{BLOBS}{}", digest.hex()), size, digest, media_type: media_type.into() }
    }

    fn file(name: &str, bytes: &[u8], media_type: &str) -> Self {
        Self {
            name: name.to_owned(),
            size: bytes.len() as u64,
            digest: Digest::of(bytes),
            media_type: media_type.to_owned(),
        }
    }

    /// Whether it is held in memory and read before the large blobs: manifests, indexes and the catalog.
    pub fn is_document(&self) -> bool {
        oci::manifest_kind(&self.media_type).is_some() || self.media_type == CATALOG_MEDIA_TYPE
    }
}

/// Everything that follows the metadata in the archive, in order.
#[derive(Clone, Debug)]
pub struct Contents {
    /// The bundle's name.
    pub name: String,
    /// The bundle's version.
    pub version: u64,
    /// When it was locked.
    pub created: Timestamp,
    /// `oci-layout`
    pub layout: Entry,
    /// `index.json`
    pub index: Entry,
    /// Manifests, indexes and the catalog, by digest.
    pub documents: Vec<Entry>,
    /// All other blobs, by digest.
    pub blobs: Vec<Entry>,
    /// What a delta bundle was made against.
    pub base: Option<BaseRef>,
    /// Blobs that are signed and not in the archive, by digest; none unless there is a base.
    pub base_blobs: Vec<BaseBlob>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Label {
    bundle: String,
    created: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    base: Option<BaseRef>,
}

impl Contents {
    /// The contents of a bundle with this index and these blobs (manifests and catalog among them), each blob once.
    pub fn new(name: String, version: u64, created: Timestamp, index: &[u8], blobs: Vec<Entry>) -> Self {
        let layout = Entry::file(OCI_LAYOUT, oci::LAYOUT, oci::LAYOUT_HEADER);
        let index = Entry::file(INDEX_JSON, index, oci::INDEX);
        Self::sorted(name, version, created, layout, index, blobs)
    }

    fn sorted(
        name: String,
        version: u64,
        created: Timestamp,
        layout: Entry,
        index: Entry,
        mut blobs: Vec<Entry>,
    ) -> Self {
        blobs.sort_by_key(|entry| entry.digest);
        let (documents, blobs) = blobs.into_iter().partition(Entry::is_document);
        Self { name, version, created, layout, index, documents, blobs, base: None, base_blobs: Vec::new() }
    }

    /// The same as a delta against `base`: the blobs of `there` (by digest, with a repository of the base that has them)
    /// are left out of the archive. Manifests and the catalog always stay in it.
    #[must_use]
    pub fn leave_out(mut self, base: BaseRef, there: &BTreeMap<Digest, String>) -> Self {
        let (left_out, blobs) = self.blobs.into_iter().partition(|entry| there.contains_key(&entry.digest));
        self.blobs = blobs;
        self.base_blobs = left_out
            .into_iter()
            .map(|entry: Entry| BaseBlob { repository: there[&entry.digest].clone(), entry })
            .collect();
        self.base = Some(base);
        self
    }

    /// Where the content of each of `blobs` begins when the header of the first is at byte `start`, and where the end
    /// marker begins.
    pub fn blob_offsets(&self, start: u64) -> (Vec<u64>, u64) {
        let mut at = start;
        let offsets = self
            .blobs
            .iter()
            .map(|entry| {
                let content = at + archive::BLOCK as u64;
                at = content + entry.size + archive::padding(entry.size) as u64;
                content
            })
            .collect();
        (offsets, at)
    }

    /// Names the bundle that has these contents, by its content digest and the fingerprint of its root.
    pub(super) fn bundle(&self, content: Digest, root: Digest) -> BundleRef {
        BundleRef { name: self.name.clone(), version: self.version, digest: content, root }
    }

    /// What identifies the content, whoever signed it and whether it came whole or as a delta: the digest of the
    /// canonical JSON of the signed part of the targets metadata, without what only says how it travels.
    ///
    /// # Errors
    /// As [`Contents::to_targets`].
    pub fn digest(&self, expires: Timestamp) -> Result<Digest, BundleError> {
        Ok(content_digest(&self.to_targets(expires)?))
    }

    /// All entries in the order of the archive.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        [&self.layout, &self.index].into_iter().chain(&self.documents).chain(&self.blobs)
    }

    /// The targets metadata that lists them.
    ///
    /// # Errors
    /// When the version is zero.
    pub fn to_targets(&self, expires: Timestamp) -> Result<Targets, BundleError> {
        let version = NonZeroU64::new(self.version)
            .ok_or_else(|| BundleError::Contents("a bundle's version is 1 or higher".to_owned()))?;
        let mut targets = Targets::new(SPEC_VERSION.to_owned(), version, expires);
        targets.delegations = None;
        let label = Label { bundle: self.name.clone(), created: self.created, base: self.base.clone() };
        let label = serde_json::to_value(label).expect("strings have a JSON form");
        targets._extra = HashMap::from([(LABEL_FIELD.to_owned(), label)]);
        let here = self.entries().map(|entry| (entry, None));
        let elsewhere = self.base_blobs.iter().map(|blob| (&blob.entry, Some(&blob.repository)));
        for (entry, repository) in here.chain(elsewhere) {
            let name = TargetName::new(&entry.name).map_err(|e| BundleError::Contents(e.to_string()))?;
            let mut custom = HashMap::from([(MEDIA_TYPE_FIELD.to_owned(), entry.media_type.clone().into())]);
            custom.extend(repository.map(|repository| (BASE_FIELD.to_owned(), repository.clone().into())));
            let target = Target {
                length: entry.size,
                hashes: Hashes { sha256: entry.digest.bytes().to_vec().into(), _extra: HashMap::new() },
                custom,
                _extra: HashMap::new(),
            };
            targets.add_target(name, target);
        }
        Ok(targets)
    }

    /// The contents that verified targets metadata lists.
    ///
    /// # Errors
    /// When it lists anything that a bundle has not, or more than the limits allow.
    pub fn from_targets(targets: &Targets, limits: &Limits) -> Result<Self, BundleError> {
        let refuse = |reason: String| BundleError::Contents(reason);
        if targets._extra.len() != 1 {
            return Err(refuse("it has fields that a bundle's has not".to_owned()));
        }
        let label = targets
            ._extra
            .get(LABEL_FIELD)
            .ok_or_else(|| refuse("it names no bundle".to_owned()))
            .and_then(|value| Label::deserialize(value).map_err(|e| refuse(e.to_string())))?;
        if !is_name(&label.bundle) {
            return Err(refuse(format!("`{}` can't be a bundle's name", crate::base::text::brief(&label.bundle))));
        }
        // What is signed has one spelling, so that whoever compares texts and whoever compares times agree.
        if targets._extra[LABEL_FIELD]["created"].as_str() != Some(whole_seconds(label.created).as_str()) {
            return Err(refuse("its time is not written as `2026-01-02T03:04:05Z`".to_owned()));
        }
        let (mut layout, mut index, mut blobs, mut base_blobs) = (None, None, Vec::new(), Vec::new());
        for (name, target) in &targets.targets {
            let (entry, repository) = entry(name, target)?;
            match (entry.name.as_str(), repository) {
                (_, Some(repository)) => base_blobs.push(base_blob(label.base.as_ref(), entry, repository)?),
                (OCI_LAYOUT, None) => layout = Some(entry),
                (INDEX_JSON, None) => index = Some(entry),
                (_, None) => blobs.push(entry),
            }
        }
        if let Some(base) = &label.base
            && !(is_name(&base.bundle) && (1..=MAX_VERSION).contains(&base.version))
        {
            return Err(refuse(format!("`{}` can't be the base of a delta", crate::base::text::brief(&base.bundle))));
        }
        base_blobs.sort_by_key(|blob| blob.entry.digest);
        let missing = |name: &str| refuse(format!("`{name}` is not in it"));
        let layout = layout.ok_or_else(|| missing(OCI_LAYOUT))?;
        let index = index.ok_or_else(|| missing(INDEX_JSON))?;
        let mut contents = Self::sorted(label.bundle, targets.version.get(), label.created, layout, index, blobs);
        contents.base = label.base;
        contents.base_blobs = base_blobs;
        contents.check_limits(limits)?;
        Ok(contents)
    }

    fn check_limits(&self, limits: &Limits) -> Result<(), BundleError> {
        let check = |what: String, found: u64, limit: u64| {
            if found > limit { Err(BundleError::TooLarge { what, found, limit }) } else { Ok(()) }
        };
        check("the number of manifests".to_owned(), self.documents.len() as u64, limits.manifests as u64)?;
        for entry in [&self.layout, &self.index].into_iter().chain(&self.documents) {
            check(format!("`{}`", entry.name), entry.size, limits.manifest_bytes)?;
        }
        let total = self.documents.iter().map(|e| e.size).sum();
        check("the manifests together".to_owned(), total, limits.manifests_bytes)?;
        for entry in self.blobs.iter().chain(self.base_blobs.iter().map(|blob| &blob.entry)) {
            check(format!("`{}`", entry.name), entry.size, limits.blob_bytes)?;
        }
        Ok(())
    }
}

/// [`Contents::digest`] of verified targets metadata.
pub fn content_digest(targets: &Targets) -> Digest {
    let mut value = serde_json::to_value(targets).expect("metadata has a JSON form");
    if let Some(label) = value.get_mut(LABEL_FIELD).and_then(|label| label.as_object_mut()) {
        label.remove(BASE_FIELD);
    }
    let listed = value.get_mut("targets").and_then(|targets| targets.as_object_mut());
    for target in listed.into_iter().flat_map(|targets| targets.values_mut()) {
        if let Some(custom) = target.get_mut("custom").and_then(|custom| custom.as_object_mut()) {
            custom.remove(BASE_FIELD);
        }
    }
    Digest::of(serde_json::to_vec(&value).expect("a JSON value always has a text"))
}

/// The one spelling of a time in a bundle.
fn whole_seconds(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

fn base_blob(base: Option<&BaseRef>, entry: Entry, repository: String) -> Result<BaseBlob, BundleError> {
    let refuse = |reason: &str| {
        let name = crate::base::text::brief(&entry.name);
        Err(BundleError::Contents(format!("target `{name}`: {reason}")))
    };
    if base.is_none() {
        return refuse("it is said to be in the base of a delta, and this is none");
    }
    if entry.is_document() || !entry.name.starts_with(BLOBS) || !is_repository(&repository) {
        return refuse("it can't be in the base of a delta");
    }
    Ok(BaseBlob { entry, repository })
}

/// The entry, and the repository of the base that has it where it is not in the archive.
fn entry(name: &TargetName, target: &Target) -> Result<(Entry, Option<String>), BundleError> {
    let raw = name.raw();
    let refuse = |reason: &str| BundleError::Contents(format!("target `{}`: {reason}", crate::base::text::brief(raw)));
    let digest = <[u8; 32]>::try_from(&target.hashes.sha256[..])
        .map(Digest::from_bytes)
        .map_err(|_| refuse("its SHA-256 has not 32 bytes"))?;
    let repository = match target.custom.get(BASE_FIELD) {
        None => None,
        Some(value) => Some(value.as_str().ok_or_else(|| refuse("its base is no text"))?.to_owned()),
    };
    let fields = 1 + usize::from(repository.is_some());
    if !target._extra.is_empty() || !target.hashes._extra.is_empty() || target.custom.len() != fields {
        return Err(refuse("it has fields that a bundle's targets have not"));
    }
    let media_type = target
        .custom
        .get(MEDIA_TYPE_FIELD)
        .and_then(|value| value.as_str())
        .filter(|text| !text.is_empty() && text.len() <= 255 && text.bytes().all(|b| b.is_ascii_graphic()))
        .ok_or_else(|| refuse("it has no proper mediaType"))?;
    if raw != OCI_LAYOUT && raw != INDEX_JSON {
        // The name is compared with the one that the digest asks for, so that no path can be smuggled in.
        if raw != format!("{BLOBS}{}", digest.hex()) {
            return Err(refuse("it is not named by its digest, and is no file of an image layout"));
        }
    }
    let entry = Entry { name: raw.to_owned(), size: target.length, digest, media_type: media_type.to_owned() };
    Ok((entry, repository))
}
