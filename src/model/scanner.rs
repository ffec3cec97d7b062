//! Scanner definitions: scanners are data.

mod approach;
mod archive;
pub mod egress;
mod exit;
mod needs;
mod version;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::catalog::OnOld;
use crate::base::document::{ApiVersion, Document};
use crate::base::quantity::Span;

pub use approach::{
    ARCHIVE, Approaches, CONTAINER, ClusterApproach, CommandApproach, DELIVERED, ExecApproach, INPUTS, InTarget,
    KUBECONFIG, ListedResource, ListedResourceError, MountApproach, NAMESPACE, NOT_DONE, Offered, POD, RESULT, RESULTS,
    ROOT, RunsIn, TARGET, is_at_least,
};
pub use archive::{ArchiveNeeds, LayerForm};
pub use egress::{EGRESS, EgressGrant, EgressNeed, ServicePort};
pub use exit::ExitMeaning;
pub use needs::{Capability, ScannerUser, WritableFolder};
pub use version::VersionQuestion;

/// The name of the engine that is built in and needs no image.
pub const BUILTIN: &str = "builtin";

/// The control that every profile of a scanner gets besides its own: that the scanner could read all of the target. What a
/// scanner may not read it passes over in silence, so that without this its silence would count as a pass.
pub const COMPLETE_CONTROL: &str = "gapscan-target-read-whole";

/// The other one that every profile of a scanner gets: that nothing in the scanner's pod talked to anybody, or tried to.
/// Scanners have all they need; one that calls somewhere wants to report, to load what nobody verified, or worse.
pub const SILENT_CONTROL: &str = "gapscan-network-silent";

/// Whether gapscan judges this control of a scanner's profile, and not the scanner.
pub fn is_own_control(id: &str) -> bool {
    [COMPLETE_CONTROL, SILENT_CONTROL].contains(&id)
}

/// A `kind: Scanner` document: how one scanner image is run and how its result is read. Adding a scanner adds no code
/// unless its result format is new.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct ScannerDocument {
    /// `gapscan/v1`
    pub api_version: ApiVersion,
    /// `Scanner`
    pub kind: String,
    /// Lower-case letters, digits and hyphens; profiles name it as their engine.
    pub name: String,
    /// One line for people.
    pub title: String,
    /// The name, in the same bundle, of the image that it runs in.
    pub image: String,
    /// How it is asked for its version, where its result does not say it or may be wrong about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<VersionQuestion>,
    /// How it scans each kind of target that it supports.
    pub approaches: Approaches,
    /// Where its result is and in which format.
    pub result: ResultFile,
    /// What its exit codes mean. A code that is not here means failure; so does a signal.
    pub exit_codes: BTreeMap<u8, ExitMeaning>,
    /// Controls that it can't tell to be met, in any of its approaches.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub blind_spots: Vec<BlindSpot>,
    /// What it passes over without a word, in any of its approaches. Where there is any of it in the target,
    /// `gapscan-target-read-whole` is not evaluated, and names it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub leaves_out: Vec<LeftOut>,
    /// Whom it has to talk to, other than the API server: services of the cluster, by names that only policy can give a meaning. A
    /// scanner that needs nobody is always better: no digest vouches for what it is told.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub egress: Vec<EgressNeed>,
    /// Dependencies of the bundle that it needs, mounted read-only.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dependencies: Vec<DependencyMount>,
    /// Where the profile's own folder is mounted, read-only, as `/profile`: what lies beside its `profile.yaml` is there. Not
    /// mounted where this is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile_mount: Option<String>,
    /// Folders that it may write to, besides `/tmp` and the one for results.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub writable: Vec<WritableFolder>,
    /// As whom it runs in a pod of its own (`image`, `exec`, `cluster`); 65532 of group 65532 where this is absent. On a node it
    /// is root who may read and not write, and beside a container it is the container's user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<ScannerUser>,
    /// How long one scan may take.
    pub deadline: Span,
    /// Memory limit of the scanner's container as a Kubernetes quantity, as `512Mi`.
    pub memory: String,
    /// CPU limit of the scanner's container as a Kubernetes quantity, as `1`.
    pub cpu: String,
}

impl Document for ScannerDocument {
    const KIND: &'static str = "Scanner";
}

impl ScannerDocument {
    /// What it needs that only a volume can give; `None` where it needs nothing of the kind.
    pub fn needs_volume(&self) -> Option<String> {
        let dependency = self.dependencies.first().map(|dependency| format!("`{}`", dependency.name));
        let profile = || self.profile_mount.as_ref().map(|_| "the profile's folder".to_owned());
        let writable = || self.writable.first().map(|folder| format!("`{}` to write to", folder.path));
        dependency.or_else(profile).or_else(writable)
    }
}

/// Where a scanner leaves its result.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct ResultFile {
    /// The path of the result below `/results` (with `debug` and `sidecar` below what [`RESULTS`] stands for), the only
    /// writable folder besides `/tmp`, as `arf.xml`; `stdout` for the standard output.
    pub path: String,
    /// Which parser reads it.
    pub format: ResultFormat,
    /// What its controls are.
    #[serde(default, skip_serializing_if = "is_default")]
    pub controls: ControlsOf,
    /// What becomes of a control of the profile that a whole result does not mention.
    #[serde(default, skip_serializing_if = "is_default")]
    pub unmentioned: Unmentioned,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// What the controls of a result are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ControlsOf {
    /// What the scanner calls a control, a rule or a check.
    #[default]
    Scanner,
    /// One for each severity of findings, `no-critical-findings` to `no-unrated-findings`: for scanners with more rules than
    /// anybody lists.
    Severity,
    /// `software-inventory`: that the scanner named what the target consists of. Its verdicts, if it has any, don't count.
    Inventory,
}

/// What becomes of a control of the profile that a whole result does not mention.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Unmentioned {
    /// It was not evaluated.
    #[default]
    NotEvaluated,
    /// It passed, if the result tells of nothing that was not evaluated. The definition vouches for that: that the scanner
    /// evaluates every control of the profiles that name it, and tells of failures alone. The record says so.
    Passed,
}

/// How a result is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// Which parser reads it.
    pub format: ResultFormat,
    /// What its controls are.
    pub controls: ControlsOf,
    /// What becomes of what it does not mention.
    pub unmentioned: Unmentioned,
}

impl From<&ResultFile> for Reading {
    fn from(file: &ResultFile) -> Self {
        Self { format: file.format, controls: file.controls, unmentioned: file.unmentioned }
    }
}

impl From<ResultFormat> for Reading {
    /// Nothing is taken for granted.
    fn from(format: ResultFormat) -> Self {
        Self { format, controls: ControlsOf::default(), unmentioned: Unmentioned::default() }
    }
}

/// Result formats that gapscan reads; docs/formats.md says how.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ResultFormat {
    /// XCCDF 1.1 or 1.2 test results, alone, in a benchmark, or in the Asset Reporting Format (NIST IR 7694), as `oscap
    /// --results-arf` writes them.
    Arf,
    /// Grype's JSON, schemas 5 and 6 of its database.
    Grype,
    /// InSpec's and CINC Auditor's JSON: the reporters `json` and `json-min`.
    Inspec,
    /// kube-bench's JSON, with and without totals.
    KubeBench,
    /// SARIF 2.1.0 of any tool.
    Sarif,
    /// Trivy's JSON, schema 2: vulnerabilities, misconfigurations, secrets, licences.
    Trivy,
    /// CycloneDX as JSON: an inventory, with or without vulnerabilities.
    #[serde(rename = "cyclonedx")]
    CycloneDx,
    /// JUnit's XML of any tool.
    Junit,
    /// Syft's JSON: an inventory.
    Syft,
    /// SPDX 2.2 and 2.3 as JSON: an inventory.
    Spdx,
    /// Falco's alerts as JSON lines.
    Falco,
    /// Clair 4's vulnerability report as JSON.
    Clair,
}

impl ResultFormat {
    /// All of them.
    pub const ALL: &[Self] = &[
        Self::Arf,
        Self::Grype,
        Self::Inspec,
        Self::KubeBench,
        Self::Sarif,
        Self::Trivy,
        Self::CycloneDx,
        Self::Junit,
        Self::Syft,
        Self::Spdx,
        Self::Falco,
        Self::Clair,
    ];

    /// The word in documents.
    pub fn name(self) -> &'static str {
        match self {
            Self::Arf => "arf",
            Self::Grype => "grype",
            Self::Inspec => "inspec",
            Self::KubeBench => "kube-bench",
            Self::Sarif => "sarif",
            Self::Trivy => "trivy",
            Self::CycloneDx => "cyclonedx",
            Self::Junit => "junit",
            Self::Syft => "syft",
            Self::Spdx => "spdx",
            Self::Falco => "falco",
            Self::Clair => "clair",
        }
    }

    /// The media type of a result.
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Arf => "application/xml",
            Self::Grype | Self::Inspec | Self::KubeBench => "application/json",
            Self::Sarif => "application/json",
            Self::Trivy => "application/json",
            Self::CycloneDx => "application/json",
            Self::Junit => "application/xml",
            Self::Syft => "application/json",
            Self::Spdx => "application/json",
            Self::Falco => "application/json",
            Self::Clair => "application/json",
        }
    }
}

/// Controls that a scanner says to be met without having seen the target for it: what passes is not evaluated. What fails
/// stays failed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct BlindSpot {
    /// Their ids; `*` stands for any characters.
    pub controls: Vec<String>,
    /// Why, for the record: a sentence without its period.
    pub why: String,
}

impl BlindSpot {
    /// Whether this control is in it. Those that gapscan judges itself never are.
    pub fn covers(&self, control: &str) -> bool {
        !is_own_control(control) && self.controls.iter().any(|pattern| fits(pattern, control))
    }
}

/// Files or folders that a scanner passes over without a word: whoever reads its other verdicts would take them for ones on these, too.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct LeftOut {
    /// Their paths in the target, which begin with `/`, as `*/node_modules/*/package.json`; `*` stands for any characters.
    pub paths: Vec<String>,
    /// What of them it does not see, for the record: a sentence without its period.
    pub why: String,
}

impl LeftOut {
    /// Whether this path in the target is one of them.
    pub fn covers(&self, path: &str) -> bool {
        self.paths.iter().any(|pattern| fits(pattern, path))
    }
}

/// Whether the text is the pattern's, where `*` stands for any characters.
pub(crate) fn fits(pattern: &str, text: &str) -> bool {
    let Some((begin, rest)) = pattern.split_once('*') else { return pattern == text };
    let Some(mut text) = text.strip_prefix(begin) else { return false };
    let mut parts = rest.split('*');
    let end = parts.next_back().unwrap_or_default();
    for part in parts {
        // The first place is as good as any later one.
        let Some(at) = text.find(part) else { return false };
        text = &text[at + part.len()..];
    }
    text.ends_with(end)
}

/// A dependency that a scanner needs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct DependencyMount {
    /// Its name in the bundle.
    pub name: String,
    /// Where it is mounted, read-only.
    pub mount: String,
    /// How old it may be at most when it is used, whatever the bundle says; the bundle may say less. Where neither says
    /// anything, `policy.databaseMaxAge` does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_age: Option<Span>,
    /// `refuse`: when it is older, nothing that the scanner says counts, whatever the bundle says. Otherwise the bundle
    /// decides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_old: Option<OnOld>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blind_spot_is_of_the_controls_that_its_patterns_fit() {
        let spot = |pattern: &str| BlindSpot { controls: vec!["x".to_owned(), pattern.to_owned()], why: String::new() };
        for (pattern, control, covered) in [
            ("*_rule_partition_for_*", "org_content_rule_partition_for_tmp", true),
            ("*_rule_partition_for_*", "org_content_rule_partition", false),
            ("*_rule_no_files", "org_content_rule_no_files", true),
            ("*_rule_no_files", "org_content_rule_no_files_2", false),
            ("a*b*b", "ab", false),
            ("a*b*b", "a1b2b", true),
            ("a*a", "a", false),
            ("", "", true),
            ("y", "x", true),
            ("*", SILENT_CONTROL, false),
        ] {
            assert_eq!(spot(pattern).covers(control), covered, "{pattern} {control}");
        }
    }
}
