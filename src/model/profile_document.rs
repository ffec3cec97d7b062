//! Profile documents: what is expected of targets, and where that is said.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::control::Control;
use super::target::TargetKind;
use crate::base::document::{ApiVersion, Document};

/// A `kind: Profile` document: `profile.yaml` in a profile's folder. Exactly one of `rules`, `xccdf` and `controls` says
/// where its controls come from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct ProfileDocument {
    /// `gapscan/v1`
    pub api_version: ApiVersion,
    /// `Profile`
    pub kind: String,
    /// Lower-case letters, digits and hyphens; the folder's name.
    pub name: String,
    /// The profile's own version.
    pub version: String,
    /// One line.
    pub title: String,
    /// What it is for.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub summary: String,
    /// [`BUILTIN`](super::scanner::BUILTIN), or the name of the scanner that evaluates it.
    pub engine: String,
    /// The kinds of target that it applies to.
    pub targets: Vec<TargetKind>,
    /// Values for `${...}` in the scanner's command.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub parameters: BTreeMap<String, String>,
    /// Files in the folder with CEL rules, for the builtin engine.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<String>,
    /// An XCCDF benchmark inside an image of the bundle: its selected rules are the controls, and are listed when the
    /// bundle is built, so that what is expected is known before anything runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub xccdf: Option<XccdfSource>,
    /// The controls themselves.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub controls: Vec<Control>,
}

impl Document for ProfileDocument {
    const KIND: &'static str = "Profile";
}

/// Where an XCCDF benchmark is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct XccdfSource {
    /// The image's name in the bundle.
    pub image: String,
    /// The absolute path of the data stream or benchmark in that image.
    pub path: String,
    /// The id of the XCCDF profile whose selection counts.
    pub profile: String,
}
