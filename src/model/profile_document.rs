//! Profile documents: what is expected of targets, and where that is said.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::control::Control;
use super::target::TargetKind;
use crate::base::document::{ApiVersion, Document};

/// A `kind: Profile` document: `profile.yaml` in a profile's folder. Exactly one [`Source`] says where its controls come
/// from; they are listed when the bundle is built, so that what is expected is known before anything runs. The scanner has
/// the folder, read-only, where its definition says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
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
    /// An XCCDF benchmark inside an image of the bundle: its selected rules are the controls.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub xccdf: Option<XccdfSource>,
    /// An InSpec profile in the folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inspec: Option<InspecSource>,
    /// A configuration of kube-bench in the folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kube_bench: Option<KubeBenchSource>,
    /// Rules of Falco in the folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub falco: Option<FalcoSource>,
    /// Checks for Trivy in the folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trivy_checks: Option<TrivyChecksSource>,
    /// The controls themselves; beside `trivyChecks` those of Trivy that are no checks, as `no-critical-vulnerabilities`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub controls: Vec<Control>,
}

impl Document for ProfileDocument {
    const KIND: &'static str = "Profile";
}

/// Where a profile's controls come from.
#[derive(Clone, Copy, Debug)]
pub enum Source<'a> {
    /// `rules`
    Rules,
    /// `xccdf`
    Xccdf(&'a XccdfSource),
    /// `inspec`
    Inspec(&'a InspecSource),
    /// `kubeBench`
    KubeBench(&'a KubeBenchSource),
    /// `falco`
    Falco(&'a FalcoSource),
    /// `trivyChecks`
    TrivyChecks(&'a TrivyChecksSource),
    /// `controls`
    Listed,
}

/// Names of the fields of a profile document that say where its controls come from.
pub const SOURCES: &str = "rules, xccdf, inspec, kubeBench, falco, trivyChecks and controls";

impl ProfileDocument {
    /// Where its controls come from; `None` unless exactly one source is named.
    pub fn source(&self) -> Option<Source<'_>> {
        let beside = self.trivy_checks.is_some();
        let named = [
            (!self.rules.is_empty()).then_some(Source::Rules),
            self.xccdf.as_ref().map(Source::Xccdf),
            self.inspec.as_ref().map(Source::Inspec),
            self.kube_bench.as_ref().map(Source::KubeBench),
            self.falco.as_ref().map(Source::Falco),
            self.trivy_checks.as_ref().map(Source::TrivyChecks),
            (!self.controls.is_empty() && !beside).then_some(Source::Listed),
        ];
        let mut named = named.into_iter().flatten();
        named.next().filter(|_| named.next().is_none())
    }
}

/// Where an XCCDF benchmark is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct XccdfSource {
    /// The image's name in the bundle.
    pub image: String,
    /// The absolute path of the data stream or benchmark in that image.
    pub path: String,
    /// The id of the XCCDF profile whose selection counts.
    pub profile: String,
    /// A file in the folder with XCCDF 1.2 tailoring, which has the XCCDF profile, or changes what it is built on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tailoring: Option<String>,
}

/// An InSpec profile, and the list of its controls.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct InspecSource {
    /// The folder with its `inspec.yml`, below the profile's; the profile's own without it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub path: String,
    /// The file that `cinc-auditor json --legacy-export` or `inspec json --legacy-export` wrote of it. It must be this
    /// profile's, control by control.
    pub json: String,
}

/// What kube-bench evaluates.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct KubeBenchSource {
    /// The folder with kube-bench's `config.yaml` and a folder for each benchmark.
    pub config: String,
    /// The benchmark, as `--benchmark` names it.
    pub benchmark: String,
    /// Which parts of it, as `--targets` names them; all that `config.yaml` gives it, without.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub targets: Vec<String>,
}

/// What Falco loads.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct FalcoSource {
    /// Files of rules, in the order in which Falco loads them: what is later can change what is earlier.
    pub rules: Vec<String>,
}

/// What Trivy loads with `--config-check`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct TrivyChecksSource {
    /// The folder with checks in Rego.
    pub path: String,
    /// The kinds of input whose checks are expected, as their `input.selector` names them (`kubernetes`, `dockerfile`); all,
    /// without. A check that names no kind is for all of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub inputs: Vec<String>,
}
