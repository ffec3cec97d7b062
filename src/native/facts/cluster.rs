//! Facts about a cluster: its objects as the API server lists them, without what has no business in evidence.
//!
//! What is taken out before anything is kept: `metadata.managedFields` (large, says nothing about the state), the
//! annotation in which kubectl keeps a copy of what was applied (it holds what is taken out elsewhere), and the literal
//! values of environment variables (they may be secrets; whether there is one stays visible). Arguments of commands are
//! kept. Secrets are never listed at all.
//!
//! An object is kept as its JSON text: as a tree it would take five to ten times the memory, and rules look at one at a time.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

use super::Missing;

/// What stands in the place of a literal value of an environment variable.
pub const NOT_KEPT: &str = "(not kept)";
/// How deep an object may be: the API server's own limit is far lower than what a stack bears.
const DEPTH: usize = 100;

/// A resource of the API server.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Resource {
    /// The API group; empty for the core group.
    pub group: String,
    /// The version, as `v1`.
    pub version: String,
    /// The plural name, as `pods`.
    pub resource: String,
}

impl Resource {
    /// A resource.
    pub fn new(group: &str, version: &str, resource: &str) -> Self {
        Self { group: group.to_owned(), version: version.to_owned(), resource: resource.to_owned() }
    }

    /// Core namespaces.
    pub fn namespaces() -> Self {
        Self::new("", "v1", "namespaces")
    }

    /// NetworkPolicies.
    pub fn network_policies() -> Self {
        Self::new("networking.k8s.io", "v1", "networkpolicies")
    }

    /// The `apiVersion` of its objects.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.clone() } else { format!("{}/{}", self.group, self.version) }
    }
}

impl fmt::Display for Resource {
    /// `v1/pods`, `apps/v1/deployments`: the key in [`ClusterFacts::resources`].
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.api_version(), self.resource)
    }
}

/// The objects of a cluster that rules judge.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ClusterFacts {
    /// The form of this document: 1.
    pub version: u32,
    /// What was listed, by `version/resource` or `group/version/resource`. A resource that was listed and has no object
    /// is here with an empty list; one that could not be listed is only in [`ClusterFacts::missing`]; one that is in
    /// both was listed in part.
    pub resources: BTreeMap<String, Vec<Object>>,
    /// What could not be listed, or not as a whole, by the same keys.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub missing: BTreeMap<String, Missing>,
}

/// An object without what has no business in evidence, as JSON text.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Object(Box<RawValue>);

impl Object {
    /// The object of this tree, without what has no business in evidence.
    pub fn lean(object: Value) -> Self {
        let text = serde_json::value::to_raw_value(&lean(object));
        Self(text.expect("a tree of JSON has text keys, and is written into memory"))
    }

    /// Its tree; null where a document that was read has one that is deeper than any object is.
    pub fn tree(&self) -> Value {
        serde_json::from_str(self.0.get()).unwrap_or_default()
    }
}

impl PartialEq for Object {
    fn eq(&self, other: &Self) -> bool {
        self.0.get() == other.0.get()
    }
}

impl Default for ClusterFacts {
    fn default() -> Self {
        Self { version: 1, resources: BTreeMap::new(), missing: BTreeMap::new() }
    }
}

impl ClusterFacts {
    /// Keeps the objects of a resource, without what has no business in evidence. Objects of pages that come one by one
    /// are added to those that are there.
    pub fn add(&mut self, resource: &Resource, objects: impl IntoIterator<Item = Value>) {
        self.add_objects(resource, objects.into_iter().map(Object::lean));
    }

    /// The same with objects that are kept already.
    pub fn add_objects(&mut self, resource: &Resource, objects: impl IntoIterator<Item = Object>) {
        self.resources.entry(resource.to_string()).or_default().extend(objects);
    }

    /// Notes that a resource could not be listed, or not as a whole.
    pub fn miss(&mut self, resource: &Resource, why: Missing) {
        self.missing.insert(resource.to_string(), why);
    }
}

/// The object without what has no business in evidence.
fn lean(mut object: Value) -> Value {
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("managedFields");
        if let Some(annotations) = metadata.get_mut("annotations").and_then(Value::as_object_mut) {
            annotations.remove("kubectl.kubernetes.io/last-applied-configuration");
        }
    }
    hide_env_values(&mut object, DEPTH);
    object
}

/// Replaces the values in every list named `env`, wherever a workload's type keeps its containers.
fn hide_env_values(value: &mut Value, depth: usize) {
    if depth == 0 {
        *value = Value::String(NOT_KEPT.to_owned());
        return;
    }
    match value {
        Value::Array(items) => items.iter_mut().for_each(|item| hide_env_values(item, depth - 1)),
        Value::Object(fields) => {
            for (name, field) in fields.iter_mut() {
                match field {
                    Value::Array(entries) if name == "env" => {
                        for entry in entries {
                            if let Some(literal @ Value::String(_)) = entry.get_mut("value")
                                && literal.as_str() != Some("")
                            {
                                *literal = Value::String(NOT_KEPT.to_owned());
                            }
                        }
                    }
                    other => hide_env_values(other, depth - 1),
                }
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_may_be_secret_or_is_only_bulk_is_not_kept() {
        let mut facts = ClusterFacts::default();
        let deployment = json!({
            "metadata": {"name": "web", "managedFields": [{}], "annotations": {
                "a": "b", "kubectl.kubernetes.io/last-applied-configuration": "{\"value\":\"s3cret\"}"}},
            "spec": {"template": {"spec": {
                "containers": [{"name": "c", "env": [{"name": "PASSWORD", "value": "s3cret"}, {"name": "E", "value": ""},
                    {"name": "R", "valueFrom": {"secretKeyRef": {"name": "n", "key": "k"}}}]}],
                "initContainers": [{"name": "i", "env": [{"name": "TOKEN", "value": "s3cret"}]}]}}}});
        facts.add(&Resource::new("apps", "v1", "deployments"), [deployment]);
        let text = serde_json::to_string(&facts).expect("JSON");
        assert!(!text.contains("s3cret") && !text.contains("managedFields"), "{text}");
        let kept = facts.resources["apps/v1/deployments"][0].tree();
        assert_eq!(kept["metadata"]["annotations"], json!({"a": "b"}));
        let env = &kept["spec"]["template"]["spec"]["containers"][0]["env"];
        assert_eq!(env[0], json!({"name": "PASSWORD", "value": NOT_KEPT}));
        assert_eq!(env[1]["value"], json!(""));
        assert_eq!(env[2]["valueFrom"]["secretKeyRef"]["key"], json!("k"));
    }

    #[test]
    fn resources_are_named_as_in_an_api_path() {
        assert_eq!(Resource::namespaces().to_string(), "v1/namespaces");
        assert_eq!(Resource::network_policies().to_string(), "networking.k8s.io/v1/networkpolicies");
    }
}
