//! The catalog: what is in a bundle, as the enclave sees it.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::notice::Notices;
use super::scanner::ScannerDocument;
use super::target::TargetKind;
use crate::base::digest::Digest;
use crate::base::quantity::Span;

/// The media type of the catalog's JSON, the one layer of the catalog artifact.
pub const CATALOG_MEDIA_TYPE: &str = "application/vnd.gapscan.catalog.v1+json";
/// The repository of the catalog artifact, below the prefix that `load` was given.
pub const CATALOG_REPOSITORY: &str = "catalog";
/// The name, in every bundle, of gapscan's own image.
pub const GAPSCAN_IMAGE: &str = "gapscan";

/// What is in a bundle. An OCI artifact of its own, signed and loaded with the rest, and verified again from the registry
/// at every run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Catalog {
    /// The bundle's name.
    pub name: String,
    /// The bundle's version; higher is newer.
    pub version: u64,
    /// When the lock was made.
    pub created: Timestamp,
    /// Shown on every report, as `UNCLASSIFIED`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub classification: Option<String>,
    /// Images, gapscan's own among them.
    pub images: Vec<CatalogItem>,
    /// Scanners, whole.
    pub scanners: Vec<ScannerDocument>,
    /// Profiles.
    pub profiles: Vec<CatalogProfile>,
    /// Databases, content, anything else.
    pub dependencies: Vec<CatalogDependency>,
    /// What it says about other bundles.
    #[serde(default, skip_serializing_if = "Notices::is_empty")]
    pub notices: Notices,
}

/// One OCI image or artifact of the bundle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CatalogItem {
    /// Its name in the bundle: lower-case letters, digits and hyphens; unique among all items.
    pub name: String,
    /// The repository that it is loaded into, below the prefix: `images/NAME`, `profiles/NAME`, `dependencies/NAME`.
    pub repository: String,
    /// Where it was pinned from, for people.
    pub source: String,
    /// The media type of its manifest or index.
    pub media_type: String,
    /// The digest of its manifest or index.
    pub digest: Digest,
    /// The length of its manifest or index in bytes.
    pub size: u64,
}

/// One profile of the bundle: an image of one uncompressed tar layer, which can be mounted as an image volume. The layer
/// holds the profile's folder and `controls.json`, the JSON form of [`super::profile::Profile`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CatalogProfile {
    /// The image.
    #[serde(flatten)]
    pub item: CatalogItem,
    /// The profile's own version.
    pub version: String,
    /// [`super::scanner::BUILTIN`] or a scanner's name.
    pub engine: String,
    /// The kinds of target that it applies to.
    pub targets: Vec<TargetKind>,
    /// How many controls it has.
    pub controls: u64,
    /// The digest of `controls.json`.
    pub profile: Digest,
}

/// One dependency of the bundle.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CatalogDependency {
    /// The image or artifact.
    #[serde(flatten)]
    pub item: CatalogItem,
    /// When its content was built, as the definition of the bundle says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub built: Option<Timestamp>,
    /// How old it may be when it is used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_age: Option<Span>,
}
