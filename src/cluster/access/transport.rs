//! A scanner that reaches its target through the API server by itself: in a pod of its own, as an identity for this one scan,
//! with no way through the network but to the API server.
//!
//! What could go wrong, and where it is seen:
//! * the scanner looks at other pods, or at secrets: its role names the one pod, or the lists;
//! * it takes the token with it: the token is bound to its pod, and its account is removed when the scan ends;
//! * it talks to others: the policy has the API server's addresses only, and what its sockets show is held against them;
//! * the target is restarted or replaced meanwhile: its incarnation is compared before and after, as this identity;
//! * the container has no shell: looked for before anything is started, since scanners fail in many ways without one.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Value, json};

use super::exec::{Caps, Incarnation, Place, exec_at, incarnation_of};
use crate::cluster::agent::kubeconfig::{CA_FILE, TOKEN_FILE};
use crate::cluster::canary::api_servers;
use crate::cluster::client::Cluster;
use crate::cluster::error::ClusterError;
use crate::cluster::identity::{Reach, ScannerIdentity};
use crate::cluster::namespace::ScanNamespace;
use crate::cluster::network;
use crate::cluster::object::{Inventory, Kind, ObjectRef, SCAN};
use crate::model::provenance::Cleanup;

/// Where the kubelet mounts token and CA.
const IDENTITY: &str = "/access/identity";
/// Where the agent writes the kubeconfig: a folder in memory, which no disk of the node keeps.
const FOLDER: &str = "/access/kubeconfig";
/// The kubeconfig.
pub const KUBECONFIG: &str = "/access/kubeconfig/config";

/// The ConfigMap with the cluster's CA, which Kubernetes puts into every namespace.
const ROOT_CA: &str = "kube-root-ca.crt";

/// The shortest life that the API server grants a token.
const SHORTEST: Duration = Duration::from_secs(600);
/// Asked for exactly so long, an API server may grant a year instead: it takes the request for one of old clients that do not
/// renew (kube-apiserver, `service-account-extend-token-expiration`).
const EXTENDED: Duration = Duration::from_secs(3607);

/// How long the look for a shell may take.
const SHELL: Duration = Duration::from_secs(30);

/// What a pod needs to talk to the API server as an account of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiAccess {
    /// The pod's service account.
    pub account: String,
    /// The API server's addresses.
    pub servers: BTreeSet<SocketAddr>,
    /// The namespace of the kubeconfig's context.
    pub namespace: String,
}

impl ApiAccess {
    /// The volumes: token and CA, and a place for the kubeconfig. `life` is how long the pod may need the token.
    pub(crate) fn volumes(&self, life: Duration) -> [Value; 2] {
        let mut life = life.max(SHORTEST);
        if life == EXTENDED {
            life += Duration::from_secs(1);
        }
        let token = json!({ "serviceAccountToken": { "path": TOKEN_FILE, "expirationSeconds": life.as_secs() } });
        let ca = json!({ "configMap": { "name": ROOT_CA, "items": [{ "key": CA_FILE, "path": CA_FILE }] } });
        [
            json!({ "name": "identity", "projected": { "defaultMode": 0o440, "sources": [token, ca] } }),
            json!({ "name": "kubeconfig", "emptyDir": { "medium": "Memory", "sizeLimit": "1Mi" } }),
        ]
    }

    /// Where they are in the scanner's container, and in no other.
    pub(crate) fn mounts(&self) -> [Value; 2] {
        [
            json!({ "name": "identity", "mountPath": IDENTITY, "readOnly": true }),
            json!({ "name": "kubeconfig", "mountPath": FOLDER }),
        ]
    }

    /// What tells the agent to write the kubeconfig.
    pub(crate) fn arguments(&self) -> Vec<String> {
        let mut arguments: Vec<String> = ["--identity", IDENTITY, "--kubeconfig", KUBECONFIG, "--namespace"]
            .map(str::to_owned)
            .into_iter()
            .chain([self.namespace.clone()])
            .collect();
        arguments.extend(self.servers.iter().flat_map(|server| ["--api-server".to_owned(), server.to_string()]));
        arguments
    }
}

/// A way to the API server for one scan, from its set-up to its end.
#[derive(Debug)]
pub struct Transport {
    identity: Option<ScannerIdentity>,
    policy: Inventory,
    access: ApiAccess,
    cleanup: Cleanup,
}

impl Transport {
    /// Makes the identity, and lets the pods of scan number `scan` through to the API server's addresses.
    ///
    /// # Errors
    /// When the cluster refuses or can't be reached; what was made until then is removed again, and what could not be is
    /// reported by [`ScanNamespace::remove`].
    ///
    /// # Cancel safety
    /// Dropped half-way it leaves objects with the run's label; the namespace's end or the sweeper removes them.
    pub async fn open(cluster: &Cluster, home: &ScanNamespace, scan: u32, reach: Reach) -> Result<Self, ClusterError> {
        let servers = api_servers(cluster).await?;
        let namespace = match &reach {
            Reach::Pod { namespace, .. } => namespace.clone(),
            Reach::Lists(_) => "default".to_owned(),
        };
        let identity = ScannerIdentity::create(cluster, home, scan, reach).await?;
        let account = identity.account().to_owned();
        let mut policy = Inventory::new(home.mark(Some(scan)));
        let object = ObjectRef::namespaced(Kind::NetworkPolicy, home.name(), format!("scan-{scan}-api"));
        let label = scan.to_string();
        let made = policy.create(cluster, object, network::egress_to((SCAN, &label), &servers)).await;
        let nothing = Cleanup { created: Vec::new(), remaining: Vec::new() };
        let access = ApiAccess { account, servers, namespace };
        let mut transport = Self { identity: Some(identity), policy, access, cleanup: nothing };
        match made {
            Ok(_) => Ok(transport),
            Err(error) => {
                transport.revoke(cluster, home).await;
                home.leave(transport.close(cluster).await.remaining);
                Err(error)
            }
        }
    }

    /// What the scanner's pod needs.
    pub fn access(&self) -> &ApiAccess {
        &self.access
    }

    /// The scanner's identity, until it is revoked.
    pub fn identity(&self) -> Option<&ScannerIdentity> {
        self.identity.as_ref()
    }

    /// Takes the identity's rights away, with its account, at once: its token is worth nothing from then on.
    pub async fn revoke(&mut self, cluster: &Cluster, home: &ScanNamespace) {
        if let Some(identity) = self.identity.take() {
            let cleanup = identity.remove(cluster, home).await;
            self.cleanup.created.extend(cleanup.created);
            self.cleanup.remaining.extend(cleanup.remaining);
        }
    }

    /// Closes the way through the network, when the pod that it was for is gone, and says what became of all that was made.
    pub async fn close(mut self, cluster: &Cluster) -> Cleanup {
        let policy = self.policy.remove(cluster).await;
        self.cleanup.created.extend(policy.created);
        self.cleanup.remaining.extend(policy.remaining);
        // What was never revoked still has its rights.
        if let Some(identity) = self.identity {
            self.cleanup.remaining.push(format!("rights/{}", identity.username()));
        }
        self.cleanup
    }
}

/// A container that a scanner runs commands in, as it was before.
#[derive(Debug)]
pub struct Before(Incarnation);

impl Before {
    /// The UID of its pod.
    pub(crate) fn uid(&self) -> &str {
        &self.0.uid
    }
}

/// Looks at the container, and whether it has a shell, as the scanner will.
///
/// # Errors
/// When it is gone, does not run, is another one than was meant, or has no shell.
pub(crate) async fn look(identity: &ScannerIdentity, place: &Place<'_>) -> Result<Before, ClusterError> {
    let before = incarnation_of(identity.cluster(), place).await?;
    let caps = Caps { stdout: 1024, stderr: 4096 };
    let tried = exec_at(identity.cluster(), place, &["sh", "-c", ":"], None, caps, SHELL).await?;
    match tried.code {
        Some(126 | 127) | None => {
            let message = String::from_utf8_lossy(&tried.stderr).trim().to_owned();
            Err(ClusterError::NoShell { target: place.key(), program: "sh".to_owned(), message })
        }
        Some(_) => Ok(Before(before)),
    }
}

/// Sees that the container is the same as before.
///
/// # Errors
/// When it is gone, was restarted, or was replaced.
pub(crate) async fn unchanged(
    identity: &ScannerIdentity,
    place: &Place<'_>,
    before: &Before,
) -> Result<(), ClusterError> {
    let after = incarnation_of(identity.cluster(), place).await?;
    match before.0.is_same(&after) {
        true => Ok(()),
        false => {
            let detail = "the container was restarted".to_owned();
            Err(ClusterError::TargetChanged { target: place.key(), detail })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_lives_as_long_as_the_scan_may_take_and_never_for_a_year() {
        let access = ApiAccess {
            account: "a".to_owned(),
            servers: ["192.0.2.1:6443".parse().expect("an address"), "192.0.2.2:6443".parse().expect("an address")]
                .into(),
            namespace: "shop".to_owned(),
        };
        let life = |seconds: u64| {
            let [identity, kubeconfig] = access.volumes(Duration::from_secs(seconds));
            assert_eq!(kubeconfig["emptyDir"]["medium"], "Memory");
            identity["projected"]["sources"][0]["serviceAccountToken"]["expirationSeconds"].as_u64()
        };
        assert_eq!([life(5), life(900), life(3607)], [Some(600), Some(900), Some(3608)]);
        let arguments = access.arguments().join(" ");
        assert!(
            arguments.ends_with("--namespace shop --api-server 192.0.2.1:6443 --api-server 192.0.2.2:6443"),
            "{arguments}"
        );
    }
}
