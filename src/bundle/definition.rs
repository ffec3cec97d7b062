//! What somebody wants in a bundle: `kind: Bundle`, `bundle.yaml`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::name::is_name;
use super::oci::Platform;
use super::writer::BuildError;
use crate::base::digest::Digest;
use crate::base::document::{self, ApiVersion, Document, DocumentError};
use crate::base::exit::Classify;
use crate::base::limits::Limits;
use crate::base::quantity::Span;
use crate::base::text::brief;
use crate::model::catalog::{GAPSCAN_IMAGE, OnOld, Requires};
use crate::model::notice::{Notices, Permit, Revocation};
use crate::trust::metadata::MAX_VERSION;

/// A `kind: Bundle` document. Paths in it are relative to its folder.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
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
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
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

/// An image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct ImageEntry {
    /// Its name in the bundle.
    pub name: String,
    /// Where it comes from: a registry's reference, or `oci:PATH[:TAG]`.
    pub from: From,
    /// Its platforms, where they are others than the bundle's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platforms: Option<Platforms>,
    /// Whether its signatures and the like travel with it, where that is otherwise than the bundle says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub referrers: Option<Referrers>,
    /// The signature that it must have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verify: Option<Verify>,
    /// Its licences as SPDX expressions; those that it names itself where none is here.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub licences: Vec<String>,
}

/// A Helm chart.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct ChartEntry {
    /// Its name in the bundle. Helm takes the last part of a reference for the name of the chart, so it has to be that.
    pub name: String,
    /// Where it comes from: a registry's reference, `oci:PATH[:TAG]`, or `file:CHART.tgz`.
    pub from: From,
    /// As for an image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub referrers: Option<Referrers>,
    /// As for an image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verify: Option<Verify>,
    /// As for an image.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub licences: Vec<String>,
}

/// Whether signatures, SBOMs and attestations travel with what they are about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Referrers {
    /// They do.
    #[default]
    Carry,
    /// They stay behind.
    Leave,
}

/// The upstream signature that an item must have to be collected.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Verify {
    /// The file with the public key (PEM, ECDSA P-256) of a signature by cosign.
    pub cosign_key: PathBuf,
}

/// A profile.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct ProfileEntry {
    /// The folder with its `profile.yaml`.
    pub path: PathBuf,
    /// What to do when rules of it ask for content from the internet, which the enclave can't fetch.
    #[serde(default)]
    pub remote_content: RemoteContent,
    /// Its licences as SPDX expressions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub licences: Vec<String>,
}

/// What to do with a profile whose rules ask for content from the internet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RemoteContent {
    /// It is not bundled.
    #[default]
    Refuse,
    /// It is bundled, and those rules will be reported as not evaluated.
    NotEvaluated,
}

/// A dependency.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct DependencyEntry {
    /// Its name in the bundle.
    pub name: String,
    /// Where it comes from: a registry's reference, `oci:PATH[:TAG]`, `file:PATH` or `dir:PATH`.
    pub from: From,
    /// When its content was built, where the content does not say it. A date that is more than a day off what the content
    /// says is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub built: Option<Timestamp>,
    /// How old it may be when it is used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_age: Option<Span>,
    /// What happens to a scan when it is older.
    #[serde(default, skip_serializing_if = "OnOld::is_refuse")]
    pub on_old: OnOld,
    /// As for an image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platforms: Option<Platforms>,
    /// As for an image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub referrers: Option<Referrers>,
    /// As for an image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verify: Option<Verify>,
    /// As for an image.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub licences: Vec<String>,
}

/// Where an item comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum From {
    /// A registry.
    Registry(String),
    /// An OCI image layout in a folder, and the name of an image in it.
    Layout(PathBuf, Option<String>),
    /// One file.
    File(PathBuf),
    /// A folder with all that is in it.
    Folder(PathBuf),
}

impl FromStr for From {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let path = |path: &str| {
            if path.is_empty() { Err(format!("`{}` names no path", brief(text))) } else { Ok(PathBuf::from(path)) }
        };
        if let Some(rest) = text.strip_prefix("oci:") {
            return match rest.rsplit_once(':') {
                Some((folder, tag)) if !tag.contains('/') && !tag.is_empty() => {
                    Ok(Self::Layout(path(folder)?, Some(tag.to_owned())))
                }
                Some(_) | None => Ok(Self::Layout(path(rest)?, None)),
            };
        }
        if let Some(rest) = text.strip_prefix("file:") {
            return Ok(Self::File(path(rest)?));
        }
        if let Some(rest) = text.strip_prefix("dir:") {
            return Ok(Self::Folder(path(rest)?));
        }
        if !text.contains('/') {
            return Err(format!(
                "`{}` is no source: write HOST/REPOSITORY[:TAG][@DIGEST], oci:PATH[:TAG], file:PATH or dir:PATH",
                brief(text)
            ));
        }
        Ok(Self::Registry(text.to_owned()))
    }
}

impl std::fmt::Display for From {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Registry(reference) => f.write_str(reference),
            Self::Layout(path, None) => write!(f, "oci:{}", path.display()),
            Self::Layout(path, Some(tag)) => write!(f, "oci:{}:{tag}", path.display()),
            Self::File(path) => write!(f, "file:{}", path.display()),
            Self::Folder(path) => write!(f, "dir:{}", path.display()),
        }
    }
}

impl Serialize for From {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for From {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// A platform written `OS/ARCHITECTURE[/VARIANT]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlatformName(pub Platform);

impl FromStr for PlatformName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts: Vec<&str> = text.split('/').collect();
        let (os, architecture, variant) = match parts[..] {
            [os, architecture] => (os, architecture, None),
            [os, architecture, variant] => (os, architecture, Some(variant.to_owned())),
            _ => return Err(format!("`{}` is no platform: write it as linux/amd64", brief(text))),
        };
        if os != "linux" || !matches!(architecture, "amd64" | "arm64") {
            return Err(format!("`{}` is not supported: the platforms are linux/amd64 and linux/arm64", brief(text)));
        }
        Ok(Self(Platform { architecture: architecture.to_owned(), os: os.to_owned(), variant }))
    }
}

impl std::fmt::Display for PlatformName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.0.os, self.0.architecture)?;
        self.0.variant.as_ref().map_or(Ok(()), |variant| write!(f, "/{variant}"))
    }
}

impl Serialize for PlatformName {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for PlatformName {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// The platforms that are carried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Platforms {
    /// Every image as it is: an index keeps its digest, and with it the signatures of whoever made it.
    All,
    /// These.
    Chosen(Vec<PlatformName>),
}

impl Platforms {
    /// The platforms that something is made for here: those that are chosen, or all that gapscan knows.
    pub fn to_make(&self) -> Vec<Platform> {
        match self {
            Self::Chosen(platforms) => platforms.iter().map(|p| p.0.clone()).collect(),
            Self::All => ["amd64", "arm64"].map(linux).to_vec(),
        }
    }

    /// Whether an image that is for this architecture alone is wanted.
    pub fn has_architecture(&self, architecture: &str) -> bool {
        match self {
            Self::All => true,
            Self::Chosen(platforms) => platforms.iter().any(|p| p.0.architecture == architecture),
        }
    }
}

fn linux(architecture: &str) -> Platform {
    Platform { architecture: architecture.to_owned(), os: "linux".to_owned(), variant: None }
}

impl Default for Platforms {
    fn default() -> Self {
        Self::Chosen(vec![PlatformName(linux("amd64"))])
    }
}

impl Serialize for Platforms {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::All => serializer.collect_seq(["all"]),
            Self::Chosen(platforms) => serializer.collect_seq(platforms),
        }
    }
}

impl<'de> Deserialize<'de> for Platforms {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let names = Vec::<String>::deserialize(deserializer)?;
        if names.iter().any(|name| name == "all") {
            return match names.len() {
                1 => Ok(Self::All),
                _ => Err(serde::de::Error::custom("`all` platforms and single ones exclude each other")),
            };
        }
        let parsed: Result<Vec<PlatformName>, String> = names.iter().map(|name| name.parse()).collect();
        parsed.map(Self::Chosen).map_err(serde::de::Error::custom)
    }
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

impl BundleDocument {
    fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if !is_name(&self.name) {
            problems
                .push(format!("name `{}` must be lower-case letters, digits and single hyphens", brief(&self.name)));
        }
        if self.version == 0 || self.version > MAX_VERSION {
            problems.push(format!("version {} must be 1 to {MAX_VERSION}", self.version));
        }
        let own = self.images.iter().map(|i| &i.platforms).chain(self.dependencies.iter().map(|d| &d.platforms));
        if std::iter::once(&self.platforms).chain(own.flatten()).any(|p| *p == Platforms::Chosen(Vec::new())) {
            problems.push("platforms is empty".to_owned());
        }
        if let Some(wanted) = &self.requires.gapscan
            && let Err(error) = semver::VersionReq::parse(wanted)
        {
            let wanted = brief(wanted);
            problems.push(format!("requires.gapscan `{wanted}` names no versions: {error}; write it as `>=0.1, <0.3`"));
        }
        if self.classification.as_ref().is_some_and(|c| c.is_empty() || c.len() > 128 || c.contains(char::is_control)) {
            problems.push("classification must be one line of at most 128 bytes".to_owned());
        }
        let names: Vec<&String> = (self.images.iter().map(|i| &i.name))
            .chain(self.dependencies.iter().map(|d| &d.name))
            .chain(self.charts.iter().map(|c| &c.name))
            .collect();
        for (at, name) in names.iter().enumerate() {
            if !is_name(name) || *name == GAPSCAN_IMAGE {
                problems.push(format!("`{}` can't be the name of an item", brief(name)));
            }
            if names[..at].contains(name) {
                problems.push(format!("two items have the name `{}`", brief(name)));
            }
        }
        problems.extend(super::notice::problems(&self.notices()));
        for image in &self.images {
            if matches!(image.from, From::File(_) | From::Folder(_)) {
                problems.push(format!("image `{}` must come from a registry or an image layout", brief(&image.name)));
            }
        }
        for chart in &self.charts {
            if matches!(chart.from, From::Folder(_)) {
                problems.push(format!(
                    "chart `{}` must come from a registry, an image layout or an archive; pack a folder with `helm package`",
                    brief(&chart.name)
                ));
            }
        }
        let signed = (self.dependencies.iter().map(|d| (&d.name, &d.from, &d.verify)))
            .chain(self.charts.iter().map(|c| (&c.name, &c.from, &c.verify)));
        for (name, from, verify) in signed {
            if verify.is_some() && matches!(from, From::File(_) | From::Folder(_)) {
                problems.push(format!("`{}` comes from a file, for which no signature is looked up", brief(name)));
            }
        }
        for dependency in &self.dependencies {
            if !dependency.on_old.is_refuse() && dependency.max_age.is_none() {
                problems.push(format!("dependency `{}` has onOld and no maxAge", brief(&dependency.name)));
            }
        }
        let licences = (self.images.iter().flat_map(|i| &i.licences))
            .chain(self.profiles.iter().flat_map(|p| &p.licences))
            .chain(self.dependencies.iter().flat_map(|d| &d.licences))
            .chain(self.charts.iter().flat_map(|c| &c.licences));
        for licence in licences {
            if !is_licence(licence) {
                problems.push(format!("`{}` is no SPDX licence expression, as Apache-2.0", brief(licence)));
            }
        }
        problems
    }
}

/// Whether this has the letters of an SPDX licence expression (SPDX 2.3, annex D). Which licences there are is not known here.
pub(super) fn is_licence(text: &str) -> bool {
    !text.trim().is_empty()
        && text.len() <= 256
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-.+:() ".contains(&b))
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

    #[test]
    fn sources_read_what_they_write() {
        for text in ["oci:a/b", "oci:a/b:1.0", "dir:x", "file:../y", "r.example:5000/a/b:1@sha256:0", "localhost/x"] {
            assert_eq!(text.parse::<From>().expect(text).to_string(), text);
        }
        for text in ["", "debian", "oci:", "dir:", "file:"] {
            assert!(text.parse::<From>().is_err(), "{text}");
        }
    }

    #[test]
    fn all_problems_are_told_at_once() {
        let text = "apiVersion: gapscan/v1\nkind: Bundle\nname: A\nversion: 0\nplatforms: []\nimages:\n\
                    - {name: gapscan, from: 'dir:x'}\n- {name: b, from: 'oci:x'}\n- {name: b, from: 'oci:x'}\n";
        let document: BundleDocument = document::parse(Path::new("b.yaml"), text).expect("it parses");
        assert_eq!(document.problems().len(), 6, "{:?}", document.problems());
    }
}
