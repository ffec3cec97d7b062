//! What somebody wants in a bundle: `kind: Bundle`, `bundle.yaml`.

mod entries;
mod from;
mod platforms;
mod problems;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::writer::BuildError;
use crate::base::digest::Digest;
use crate::base::document::{self, ApiVersion, Document, DocumentError};
use crate::base::exit::Classify;
use crate::base::limits::Limits;
use crate::base::quantity::Span;
use crate::model::catalog::Requires;
use crate::model::notice::{Notices, Permit, Revocation};

pub use self::entries::{
    ChartEntry, DependencyEntry, ImageEntry, ProfileContent, ProfileEntry, Referrers, RemoteContent, Upstream, Verify,
};
pub use self::from::From;
pub use self::platforms::{PlatformName, Platforms};
pub(super) use self::problems::is_licence;

/// A `kind: Bundle` document. Paths in it are relative to its folder.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct BundleDocument {
    /// `gapscan/v1`
    pub api_version: ApiVersion,
    /// `Bundle`
    pub kind: String,
    /// The bundle's name: lower-case letters, digits and single hyphens, at most 63.
    pub name: String,
    /// Higher is newer; an enclave that has seen a version takes no lower one.
    pub version: u64,
    /// How long the bundle may be used after it was locked. The root may allow less.
    #[serde(default = "default_validity")]
    pub valid_for: Span,
    /// Shown on every report, as `UNCLASSIFIED`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub classification: Option<String>,
    /// Which programs may use the bundle.
    #[serde(default, skip_serializing_if = "Requires::is_empty")]
    pub requires: Requires,
    /// The platforms of the nodes, as `linux/amd64`; `all` carries every image as it is.
    #[serde(default)]
    pub platforms: Platforms,
    /// Whether signatures, SBOMs and attestations travel with what they are about.
    #[serde(default)]
    pub referrers: Referrers,
    /// How registries are reached, by `HOST[:PORT]`. Others are asked with the machine's CAs and its docker login.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub registries: BTreeMap<String, RegistryAccess>,
    /// Images besides gapscan's own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub images: Vec<ImageEntry>,
    /// Files with `kind: Scanner` documents.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub scanners: Vec<PathBuf>,
    /// Folders of profiles.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub profiles: Vec<ProfileEntry>,
    /// Databases, content, anything else that scanners need.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dependencies: Vec<DependencyEntry>,
    /// Helm charts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub charts: Vec<ChartEntry>,
    /// What may not be used any more: `bundle` with `version` or `content`, or `item`, and a `reason`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub revocations: Vec<Revocation>,
    /// Older versions that may be loaded again.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub permits: Vec<Permit>,
}

impl BundleDocument {
    /// Everything that upstream has: images, dependencies, charts.
    fn upstream(&self) -> impl Iterator<Item = Upstream<'_>> {
        (self.images.iter().map(ImageEntry::upstream))
            .chain(self.dependencies.iter().map(DependencyEntry::upstream))
            .chain(self.charts.iter().map(ChartEntry::upstream))
    }

    /// What the bundle says about others.
    pub fn notices(&self) -> Notices {
        Notices { revocations: self.revocations.clone(), permits: self.permits.clone() }
    }

    /// Whether it has notices and no items: then not even gapscan's own image is in it.
    pub fn is_notices_only(&self) -> bool {
        let empty = self.images.is_empty()
            && self.scanners.is_empty()
            && self.profiles.is_empty()
            && self.dependencies.is_empty()
            && self.charts.is_empty();
        empty && !self.notices().is_empty()
    }
}

impl Document for BundleDocument {
    const KIND: &'static str = "Bundle";
}

fn default_validity() -> Span {
    Span::days(90)
}

/// How a registry is reached.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct RegistryAccess {
    /// CAs (PEM) to trust for it, and no others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// Who asks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// A file with the password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password_file: Option<PathBuf>,
    /// The certificate (PEM, with its chain) that this client shows; needs `clientKeyFile`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_cert_file: Option<PathBuf>,
    /// The unencrypted key of that certificate (PEM).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_key_file: Option<PathBuf>,
    /// Other hosts that the credentials may be sent to for a token.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub token_hosts: Vec<String>,
    /// HTTP without TLS. Refused for anything but loopback addresses.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub plain_http: bool,
}

/// A definition that was read from a file, with all its problems told at once.
#[derive(Clone, Debug)]
pub struct Definition {
    /// The document.
    pub document: BundleDocument,
    /// The folder that its paths are relative to.
    pub folder: PathBuf,
    /// The digest of the file.
    pub digest: Digest,
}

impl Definition {
    /// Reads `bundle.yaml`.
    ///
    /// # Errors
    /// When it can't be read, or asks for what can't be.
    pub fn read(path: &Path, limits: &Limits) -> Result<Self, BuildError> {
        let text = document::text(path, limits).map_err(wrong)?;
        let document: BundleDocument = document::parse(path, &text).map_err(wrong)?;
        let problems = document.problems();
        if !problems.is_empty() {
            return Err(BuildError::Definition(format!("use `{}`: {}", path.display(), problems.join("; "))));
        }
        let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new(".")).to_owned();
        Ok(Self { document, folder, digest: Digest::of(&text) })
    }

    /// A path of the document, from where the program runs.
    pub fn path(&self, path: &Path) -> PathBuf {
        self.folder.join(path)
    }
}

/// A document's problem as a problem of building.
pub(super) fn wrong(error: DocumentError) -> BuildError {
    match error {
        DocumentError::File(error) => BuildError::File(error),
        other => {
            debug_assert_eq!(other.class(), crate::base::exit::ExitClass::Usage);
            BuildError::Definition(other.to_string())
        }
    }
}

/// A commented `bundle.yaml` to start from.
pub const TEMPLATE: &str = include_str!("../../bundle/template.yaml");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_template_is_a_definition() {
        let document: BundleDocument = document::parse(Path::new("bundle.yaml"), TEMPLATE).expect("it parses");
        assert_eq!(document.problems(), Vec::<String>::new());
    }

    #[test]
    fn the_example_names_what_there_is() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("bundle/bundle.yaml");
        let definition = Definition::read(&path, &Limits::default()).expect("it parses");
        for scanner in &definition.document.scanners {
            document::load::<crate::model::scanner::ScannerDocument>(&definition.path(scanner), &Limits::default())
                .expect("a scanner");
        }
        for profile in &definition.document.profiles {
            super::super::profile::ProfileFolder::read(&definition.path(&profile.path), &Limits::default())
                .expect("a profile");
        }
    }
}
