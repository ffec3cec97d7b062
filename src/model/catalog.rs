//! The catalog: what is in a bundle, as the enclave sees it.

use jiff::Timestamp;
use schemars::JsonSchema;
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
    /// Helm charts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub charts: Vec<CatalogChart>,
    /// Which programs may use the bundle. Looked at before anything else of the catalog is.
    #[serde(default, skip_serializing_if = "Requires::is_empty")]
    pub requires: Requires,
    /// What it says about other bundles.
    #[serde(default, skip_serializing_if = "Notices::is_empty")]
    pub notices: Notices,
}

/// Which programs may use a bundle.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Requires {
    /// Versions of gapscan, as `>=0.1.0, <0.3.0` (the form of Cargo's version requirements).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gapscan: Option<String>,
}

impl Requires {
    /// Whether it asks for nothing.
    pub fn is_empty(&self) -> bool {
        self.gapscan.is_none()
    }
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
    /// Its licences, as SPDX expressions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub licences: Vec<String>,
    /// The upstream signature that was verified when it was collected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verified: Option<UpstreamSignature>,
}

/// A signature of whoever made an item, verified by the bundler with a key that the definition names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UpstreamSignature {
    /// The SHA-256 of the key's SubjectPublicKeyInfo (DER), as `openssl pkey -pubin -outform DER | sha256sum` gives it.
    pub key: Digest,
    /// What was signed: the item, or the index that it was chosen from.
    pub subject: Digest,
    /// The manifest that holds the signature.
    pub signature: Digest,
    /// The name that the signer gave to what was signed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<String>,
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
    /// When its content was built: what the content itself says, where it says it, or else the definition of the bundle.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub built: Option<Timestamp>,
    /// How old it may be when it is used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_age: Option<Span>,
    /// What happens when it is older.
    #[serde(default, skip_serializing_if = "OnOld::is_refuse")]
    pub on_old: OnOld,
}

/// What happens to a scan whose database is older than it may be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum OnOld {
    /// Nothing that it says counts: the controls are not evaluated.
    #[default]
    Refuse,
    /// Its verdicts count, with a note that says how old it is.
    Warn,
}

impl OnOld {
    /// Whether it is [`OnOld::Refuse`].
    pub fn is_refuse(&self) -> bool {
        *self == Self::Refuse
    }

    /// As it is written.
    pub fn word(self) -> &'static str {
        match self {
            Self::Refuse => "refuse",
            Self::Warn => "warn",
        }
    }
}

/// One Helm chart of the bundle.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CatalogChart {
    /// The artifact.
    #[serde(flatten)]
    pub item: CatalogItem,
    /// The chart's own name.
    pub chart: String,
    /// The chart's own version (SemVer 2).
    pub version: String,
    /// The version of what it installs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub app_version: Option<String>,
}

impl CatalogChart {
    /// The tag by which Helm asks for it: its version, with `_` for the `+` that no tag may have.
    pub fn tag(&self) -> String {
        self.version.replace('+', "_")
    }
}
