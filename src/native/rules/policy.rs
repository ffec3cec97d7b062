//! ValidatingAdmissionPolicy documents (admissionregistration.k8s.io/v1), as far as they can judge what is already there.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;

use crate::base::document::from_yaml;

const API_VERSION: &str = "admissionregistration.k8s.io/v1";
const KIND: &str = "ValidatingAdmissionPolicy";

/// A policy as it is written. A field that is not here (`paramKind`, `auditAnnotations`) is refused with its place.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Policy {
    api_version: String,
    kind: String,
    pub(super) metadata: Metadata,
    pub(super) spec: Spec,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Metadata {
    pub(super) name: String,
    #[serde(default)]
    pub(super) annotations: BTreeMap<String, String>,
    /// For the API server only.
    #[serde(default)]
    #[allow(dead_code)]
    labels: BTreeMap<String, String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Spec {
    /// What the API server does when an expression errs. Here that is always "not evaluated".
    #[serde(default)]
    #[allow(dead_code)]
    failure_policy: Option<FailurePolicy>,
    pub(super) match_constraints: MatchConstraints,
    #[serde(default)]
    pub(super) match_conditions: Vec<MatchCondition>,
    #[serde(default)]
    pub(super) variables: Vec<Variable>,
    pub(super) validations: Vec<Validation>,
}

#[derive(Debug, Deserialize)]
enum FailurePolicy {
    Fail,
    Ignore,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct MatchConstraints {
    pub(super) resource_rules: Vec<ResourceRule>,
    /// For the API server only: versions are listed one by one here.
    #[serde(default)]
    #[allow(dead_code)]
    match_policy: Option<MatchPolicy>,
}

#[derive(Debug, Deserialize)]
enum MatchPolicy {
    Exact,
    Equivalent,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct ResourceRule {
    pub(super) api_groups: Vec<String>,
    pub(super) api_versions: Vec<String>,
    pub(super) operations: Vec<Operation>,
    pub(super) resources: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub(super) enum Operation {
    #[serde(rename = "CREATE")]
    Create,
    #[serde(rename = "UPDATE")]
    Update,
    #[serde(rename = "DELETE")]
    Delete,
    #[serde(rename = "CONNECT")]
    Connect,
    #[serde(rename = "*")]
    Any,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct MatchCondition {
    pub(super) name: String,
    pub(super) expression: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Variable {
    pub(super) name: String,
    pub(super) expression: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Validation {
    pub(super) expression: String,
    #[serde(default)]
    pub(super) message: Option<String>,
    #[serde(default)]
    pub(super) message_expression: Option<String>,
    /// The HTTP reason that the API server gives.
    #[serde(default)]
    #[allow(dead_code)]
    reason: Option<String>,
}

/// Reads all policies in a file of YAML documents, each with the line that it starts on, or says what is wrong with one.
pub(super) fn read(file: &str, text: &str) -> Vec<Result<(usize, Policy), String>> {
    documents(text).map(|(line, document)| policy(file, line, &document).map(|policy| (line, policy))).collect()
}

fn policy(file: &str, line: usize, document: &str) -> Result<Policy, String> {
    let policy: Policy = from_yaml(Path::new(file), KIND, document).map_err(|error| error.to_string())?;
    if policy.api_version != API_VERSION || policy.kind != KIND {
        return Err(format!(
            "read `{file}`, line {line}: it is {} `{}`, not {API_VERSION} `{KIND}`",
            crate::base::text::brief(&policy.api_version),
            crate::base::text::brief(&policy.kind),
        ));
    }
    Ok(policy)
}

/// The documents in a stream that hold anything, with the line that each starts on. Each is preceded by as many empty
/// lines as there are lines before it, so that the reader's messages name the file's lines. A line that starts with
/// `---` is always a separator: inside a block scalar it would be indented.
fn documents(text: &str) -> impl Iterator<Item = (usize, String)> {
    let is_separator = |line: &str| line == "---" || line.starts_with("--- ") || line.starts_with("---\t");
    let mut found: Vec<(usize, String)> = vec![(1, String::new())];
    for (index, line) in text.lines().enumerate() {
        if is_separator(line.trim_end()) {
            found.push((index + 2, "\n".repeat(index + 1)));
        } else if let Some((_, document)) = found.last_mut() {
            document.push_str(line);
            document.push('\n');
        }
    }
    let holds_something =
        |document: &str| document.lines().map(str::trim_start).any(|line| !line.is_empty() && !line.starts_with('#'));
    found.into_iter().filter(move |(_, document)| holds_something(document))
}
