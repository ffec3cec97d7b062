//! The entries of a definition: images, charts, profiles, dependencies.
//!
//! Some of their fields are the same, and each kind declares them for itself: with serde's `flatten` a key that is not known
//! would be passed over (it excludes `deny_unknown_fields`), and a misspelt `verify` would be a signature that nobody looks
//! at. Whoever works with what they share takes it as [`Upstream`].

use std::path::PathBuf;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::from::From;
use super::platforms::Platforms;
use crate::base::quantity::Span;
use crate::model::catalog::OnOld;

/// An image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
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
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Referrers {
    /// They do.
    #[default]
    Carry,
    /// They stay behind.
    Leave,
}

/// The upstream signature that an item must have to be collected.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Verify {
    /// The file with the public key (PEM, ECDSA P-256) of a signature by cosign.
    pub cosign_key: PathBuf,
}

/// A profile.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct ProfileEntry {
    /// The folder with its `profile.yaml`.
    pub path: PathBuf,
    /// What lies elsewhere and belongs into the folder: a checkout, or an archive, of what somebody else writes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub content: Vec<ProfileContent>,
    /// What to do when rules of it ask for content from the internet, which the enclave can't fetch.
    #[serde(default)]
    pub remote_content: RemoteContent,
    /// Its licences as SPDX expressions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub licences: Vec<String>,
}

/// Content of a profile that lies elsewhere.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct ProfileContent {
    /// `dir:PATH`, without its `.git`; or `file:PATH`, which is unpacked if it is a `.tar.gz`, `.tgz` or `.tar`.
    pub from: From,
    /// The folder below the profile's that it is put into, as `rules`; `.` for the profile's own.
    pub at: String,
}

/// What to do with a profile whose rules ask for content from the internet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RemoteContent {
    /// It is not bundled.
    #[default]
    Refuse,
    /// It is bundled, and those rules will be reported as not evaluated.
    NotEvaluated,
}

/// A dependency.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct DependencyEntry {
    /// Its name in the bundle.
    pub name: String,
    /// Where it comes from: a registry's reference, `oci:PATH[:TAG]`, `file:PATH` or `dir:PATH`.
    pub from: From,
    /// When its content was built, where the content does not say it. A date that is more than a day off what the content
    /// says is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
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

/// What a definition says of an item that upstream has: the same for an image, a chart and a dependency.
#[derive(Clone, Copy, Debug)]
pub struct Upstream<'a> {
    /// Its name in the bundle.
    pub name: &'a str,
    /// Where it comes from.
    pub from: &'a From,
    /// Its platforms, where they are others than the bundle's.
    pub platforms: Option<&'a Platforms>,
    /// Whether what is about it travels with it, where that is otherwise than the bundle says.
    pub referrers: Option<Referrers>,
    /// The signature that it must have.
    pub verify: Option<&'a Verify>,
    /// Its licences.
    pub licences: &'a [String],
    /// When its content was built, where somebody says so.
    pub built: Option<Timestamp>,
}

impl ImageEntry {
    /// What is said of it as of any item from upstream.
    pub fn upstream(&self) -> Upstream<'_> {
        Upstream {
            name: &self.name,
            from: &self.from,
            platforms: self.platforms.as_ref(),
            referrers: self.referrers,
            verify: self.verify.as_ref(),
            licences: &self.licences,
            built: None,
        }
    }
}

impl ChartEntry {
    /// What is said of it as of any item from upstream. A chart is the same for all platforms.
    pub fn upstream(&self) -> Upstream<'_> {
        Upstream {
            name: &self.name,
            from: &self.from,
            platforms: Some(&Platforms::All),
            referrers: self.referrers,
            verify: self.verify.as_ref(),
            licences: &self.licences,
            built: None,
        }
    }
}

impl DependencyEntry {
    /// What is said of it as of any item from upstream.
    pub fn upstream(&self) -> Upstream<'_> {
        Upstream {
            name: &self.name,
            from: &self.from,
            platforms: self.platforms.as_ref(),
            referrers: self.referrers,
            verify: self.verify.as_ref(),
            licences: &self.licences,
            built: self.built,
        }
    }
}
