//! The identity that a scanner in a pod of its own has: the pod's service account, whose token the kubelet mounts into that pod
//! alone, bound to it, so that it dies with the pod. What it may do is granted for one scan, and taken away when that ends.
//!
//! The runner never sees the pod's token. It has one of the same account, to see that the rights are known before the pod is
//! made, and gone afterwards; that one is refused at the run's end, as every token of a removed account is.

use super::{Account, Power, SHORTEST, binding, finish, pod_path, wait_for_rights};
use crate::cluster::agent::protocol::Unreadable;
use crate::cluster::client::Cluster;
use crate::cluster::error::ClusterError;
use crate::cluster::namespace::ScanNamespace;
use crate::cluster::object::{Inventory, Kind, ObjectRef};
use crate::model::provenance::Cleanup;
use crate::model::scanner::ListedResource;
use serde_json::{Value, json};

/// What a scanner may reach through the API server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reach {
    /// One pod: read it, and run commands in its containers.
    Pod {
        /// Its namespace.
        namespace: String,
        /// Its name.
        pod: String,
    },
    /// Lists of these resources in all namespaces.
    Lists(Vec<ListedResource>),
}

/// The identity of one scanner's pod.
#[derive(Debug)]
pub struct ScannerIdentity {
    account: Account,
    username: String,
    reach: Reach,
}

impl ScannerIdentity {
    /// Makes it for scan number `scan` of the run, and waits until its rights are known.
    ///
    /// # Errors
    /// When the cluster refuses or can't be reached; what was made until then is removed again, and what could not be is
    /// reported by [`ScanNamespace::remove`].
    ///
    /// # Cancel safety
    /// Dropped half-way it leaves objects with the run's label; the namespace's end or the sweeper removes them.
    pub async fn create(
        cluster: &Cluster,
        home: &ScanNamespace,
        scan: u32,
        reach: Reach,
    ) -> Result<Self, ClusterError> {
        let name = format!("gapscan-{}-{scan}-scanner", home.run().short());
        let mut inventory = Inventory::new(home.mark(Some(scan)));
        let made = async {
            let account = Account::create(cluster, home, &name, SHORTEST, &mut inventory).await?;
            for (object, body) in grants(&reach, &name, home.name()) {
                inventory.create(cluster, object, body).await?;
            }
            for power in powers(&reach) {
                wait_for_rights(&account, &power).await?;
            }
            Ok(account)
        }
        .await;
        let (account, username) = finish(cluster, home, name, inventory, made).await?;
        Ok(Self { account, username, reach })
    }

    /// The service account's name, for the pod.
    pub(crate) fn account(&self) -> &str {
        &self.account.name
    }

    /// `system:serviceaccount:NAMESPACE:NAME`, as the audit log names it.
    pub fn username(&self) -> &str {
        &self.username
    }

    /// The cluster as this identity.
    pub(crate) fn cluster(&self) -> &Cluster {
        &self.account.cluster
    }

    /// Which of the resources it may not list after all: a scanner may pass over them in silence.
    ///
    /// # Errors
    /// When it can't be asked.
    pub(crate) async fn unlisted(&self) -> Result<Unreadable, ClusterError> {
        let mut found = Unreadable::default();
        if let Reach::Lists(resources) = &self.reach {
            for resource in resources {
                if !Power::List(resource).holds(&self.account.cluster).await? {
                    found.count += 1;
                    found.sample.push(resource.to_string());
                }
            }
        }
        Ok(found)
    }

    /// Removes all of it and sees that it is gone, as [`ScanIdentity::remove`](super::ScanIdentity::remove).
    pub(crate) async fn remove(self, cluster: &Cluster, home: &ScanNamespace) -> Cleanup {
        // All rights come with one binding, so the last of them stands for the others.
        match powers(&self.reach).pop() {
            Some(power) => self.account.remove(cluster, home, &power).await,
            None => self.account.remove(cluster, home, &Power::Read(String::new())).await,
        }
    }
}

/// The role and its binding.
fn grants(reach: &Reach, name: &str, home: &str) -> Vec<(ObjectRef, Value)> {
    match reach {
        Reach::Pod { namespace, pod } => vec![
            (ObjectRef::namespaced(Kind::Role, namespace, name), json!({ "rules": super::Rights::Exec.rules(pod) })),
            (ObjectRef::namespaced(Kind::RoleBinding, namespace, name), binding("Role", name, home)),
        ],
        Reach::Lists(resources) => {
            let rule = |resource: &ListedResource| json!({ "apiGroups": [resource.group()], "resources": [resource.resource()], "verbs": ["list"] });
            let rules: Vec<Value> = resources.iter().map(rule).collect();
            vec![
                (ObjectRef::cluster_wide(Kind::ClusterRole, name), json!({ "rules": rules })),
                (ObjectRef::cluster_wide(Kind::ClusterRoleBinding, name), binding("ClusterRole", name, home)),
            ]
        }
    }
}

/// What can be tried to see whether the rights are there.
fn powers(reach: &Reach) -> Vec<Power<'_>> {
    match reach {
        Reach::Pod { namespace, pod } => vec![Power::Read(pod_path(namespace, pod))],
        Reach::Lists(resources) => resources.iter().map(Power::List).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scanner_may_do_what_its_definition_needs_and_nothing_else() {
        let pod = Reach::Pod { namespace: "shop".to_owned(), pod: "web".to_owned() };
        let [(role, rules), (binding, bound)] = &grants(&pod, "x", "home")[..] else { panic!("a role and a binding") };
        assert_eq!((role.to_string().as_str(), binding.to_string().as_str()), ("role/shop/x", "rolebinding/shop/x"));
        let rules = rules["rules"].as_array().expect("rules");
        assert!(rules.iter().all(|rule| rule["resourceNames"] == json!(["web"])), "{rules:?}");
        let verbs: Vec<_> = rules.iter().map(|rule| (&rule["resources"][0], &rule["verbs"])).collect();
        assert_eq!(verbs, [(&json!("pods"), &json!(["get"])), (&json!("pods/exec"), &json!(["get", "create"]))]);
        assert_eq!(bound["subjects"][0]["namespace"], "home");

        let lists =
            Reach::Lists(vec!["pods".parse().expect("it is one"), "apps/deployments".parse().expect("it is one")]);
        let [(role, rules), _] = &grants(&lists, "x", "home")[..] else { panic!("a role and a binding") };
        assert_eq!(role.to_string(), "clusterrole/x");
        let expected = json!([
            { "apiGroups": [""], "resources": ["pods"], "verbs": ["list"] },
            { "apiGroups": ["apps"], "resources": ["deployments"], "verbs": ["list"] },
        ]);
        assert_eq!(rules["rules"], expected);
    }
}
