//! What the nodes pull a scan's images with, where the registry asks: a secret in the run's namespace, for one scan.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::client::Cluster;
use super::error::ClusterError;
use super::namespace::ScanNamespace;
use super::object::{Inventory, Kind, ObjectRef};

/// Credentials for the nodes, as Docker's tools write them in a `config.json`. `Debug` does not show them.
#[derive(Clone)]
pub struct PullSecret(Zeroizing<String>);

impl fmt::Debug for PullSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PullSecret").finish_non_exhaustive()
    }
}

impl PullSecret {
    /// The secret with this `config.json` in it.
    pub fn new(docker_config: Zeroizing<String>) -> Self {
        Self(docker_config)
    }

    /// Makes the secret, for pods that are given [`PullSecret::reference`].
    pub(super) async fn create(
        &self,
        cluster: &Cluster,
        home: &ScanNamespace,
        name: &str,
        inventory: &mut Inventory,
    ) -> Result<(), ClusterError> {
        let manifest = json!({
            "type": "kubernetes.io/dockerconfigjson",
            "immutable": true,
            "data": { ".dockerconfigjson": STANDARD.encode(self.0.as_bytes()) },
        });
        inventory.create(cluster, ObjectRef::namespaced(Kind::Secret, home.name(), name), manifest).await.map(|_| ())
    }

    /// What a pod's specification has in `imagePullSecrets`.
    pub(super) fn reference(name: &str) -> Value {
        json!([{ "name": name }])
    }
}
