//! The rights of the runner's account: what the code asks the API server for, and what it hands out to the identities that it
//! makes, since the API server lets nobody grant what they have not got themselves. `docs/permissions.md` is this table for
//! people.
//!
//! RBAC can't say "only in namespaces of runs", because their names are not known before: the policy in
//! [`super::admission`] that binds the runner says so.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::runner::RUNNER;
use super::{Manifest, Settings};
use crate::cluster::network::standing::ABOVE;
use crate::cluster::object::{Kind, ObjectRef};
use crate::cluster::objects::ResourceKey;

/// Where the API server's own EndpointSlice is.
const SERVER_NAMESPACE: &str = "default";

/// Where a right holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// In all namespaces, and above them.
    Cluster,
    /// In the namespace `default`.
    Default,
}

/// What may be done with one resource.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Permission {
    /// Where.
    pub scope: Scope,
    /// The API group; empty for the core group.
    pub group: String,
    /// The resource, with its subresource.
    pub resource: String,
    /// The verbs, in alphabetical order.
    pub verbs: Vec<&'static str>,
}

const RBAC: &str = "rbac.authorization.k8s.io";

/// Without what the profiles read.
const OWN: [(Scope, &str, &str, &[&str]); 17] = [
    (Scope::Cluster, "", "namespaces", &["create", "delete", "get", "list"]),
    (Scope::Cluster, "", "nodes", &["get", "list"]),
    (Scope::Cluster, "", "pods", &["create", "delete", "get", "list"]),
    (Scope::Cluster, "", "pods/ephemeralcontainers", &["patch"]),
    (Scope::Cluster, "", "pods/exec", &["create", "get"]),
    (Scope::Cluster, "", "secrets", &["create", "delete"]),
    (Scope::Cluster, "", "serviceaccounts", &["create", "delete"]),
    (Scope::Cluster, "", "serviceaccounts/token", &["create"]),
    (Scope::Cluster, "batch", "jobs", &["create", "delete", "get"]),
    (Scope::Cluster, "networking.k8s.io", "networkpolicies", &["create", "delete", "list"]),
    (Scope::Cluster, ABOVE, "adminnetworkpolicies", &["list"]),
    (Scope::Cluster, ABOVE, "clusternetworkpolicies", &["list"]),
    (Scope::Cluster, RBAC, "clusterrolebindings", &["create", "delete", "list"]),
    (Scope::Cluster, RBAC, "clusterroles", &["create", "delete", "list"]),
    (Scope::Cluster, RBAC, "rolebindings", &["create", "delete", "list"]),
    (Scope::Cluster, RBAC, "roles", &["create", "delete", "list"]),
    (Scope::Default, "discovery.k8s.io", "endpointslices", &["list"]),
];

/// The rights of the runner where profiles read these resources, one for each resource, without duplicates.
pub fn permissions(resources: &BTreeSet<ResourceKey>) -> Vec<Permission> {
    let mut all: Vec<Permission> = OWN
        .iter()
        .map(|(scope, group, resource, verbs)| Permission {
            scope: *scope,
            group: (*group).to_owned(),
            resource: (*resource).to_owned(),
            verbs: verbs.to_vec(),
        })
        .collect();
    for key in resources {
        let same =
            |p: &&mut Permission| p.scope == Scope::Cluster && p.group == key.group && p.resource == key.resource;
        match all.iter_mut().find(same) {
            Some(there) if there.verbs.contains(&"list") => {}
            Some(there) => {
                there.verbs.push("list");
                there.verbs.sort_unstable();
            }
            None => all.push(Permission {
                scope: Scope::Cluster,
                group: key.group.clone(),
                resource: key.resource.clone(),
                verbs: vec!["list"],
            }),
        }
    }
    all.sort();
    all
}

pub(super) fn roles(settings: &Settings) -> Vec<Manifest> {
    let all = permissions(&settings.resources);
    let rules = |scope: Scope| -> Vec<Value> {
        all.iter()
            .filter(|permission| permission.scope == scope)
            .map(|p| json!({ "apiGroups": [p.group], "resources": [p.resource], "verbs": p.verbs }))
            .collect()
    };
    let wide = format!("{}-{RUNNER}", settings.namespace);
    let subject = json!([{ "kind": "ServiceAccount", "name": RUNNER, "namespace": settings.namespace }]);
    let binding =
        |kind: &str| json!({ "roleRef": { "apiGroup": RBAC, "kind": kind, "name": wide }, "subjects": subject });
    let account = ObjectRef::namespaced(Kind::ServiceAccount, &settings.namespace, RUNNER);
    let beside = |kind| ObjectRef::namespaced(kind, SERVER_NAMESPACE, &wide);
    let above = |kind| ObjectRef::cluster_wide(kind, &wide);
    let make = |object, body| Manifest::new(settings, object, body);
    // What the plan names in other namespaces, one role in each.
    let there = |suffix: &str, namespace: &str, rules: Value| {
        let name = format!("{wide}-{suffix}");
        let bound = json!({ "roleRef": { "apiGroup": RBAC, "kind": "Role", "name": name }, "subjects": subject });
        let object = |kind| ObjectRef::namespaced(kind, namespace, &name);
        [make(object(Kind::Role), json!({ "rules": rules })), make(object(Kind::RoleBinding), bound)]
    };
    let of_inputs = by_namespace(&settings.inputs).into_iter().flat_map(|(namespace, names)| {
        let read = json!({ "apiGroups": [""], "resources": ["secrets"], "resourceNames": names, "verbs": ["get"] });
        there("inputs", namespace, json!([read]))
    });
    let of_services = by_namespace(&settings.services).into_iter().flat_map(|(namespace, names)| {
        let read = json!({ "apiGroups": [""], "resources": ["services"], "resourceNames": names, "verbs": ["get"] });
        there("egress", namespace, json!([read]))
    });
    let mut all = vec![
        make(account, json!({ "automountServiceAccountToken": false })),
        make(above(Kind::ClusterRole), json!({ "rules": rules(Scope::Cluster) })),
        make(above(Kind::ClusterRoleBinding), binding("ClusterRole")),
        make(beside(Kind::Role), json!({ "rules": rules(Scope::Default) })),
        make(beside(Kind::RoleBinding), binding("Role")),
    ];
    all.extend(of_inputs.chain(of_services));
    all
}

/// The names in each namespace.
fn by_namespace(all: &BTreeSet<(String, String)>) -> BTreeMap<&str, Vec<&str>> {
    let mut named: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (namespace, name) in all {
        named.entry(namespace).or_default().push(name);
    }
    named
}
