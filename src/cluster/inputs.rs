//! Files for a scanner's pod: inputs of a profile, some of them secret. They are in a secret of the run's namespace that is made
//! before the pod, mounted where the scanner's definition asks for it, and removed with the pod; in no argument and no
//! variable.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};
use zeroize::Zeroizing;

use super::client::Cluster;
use super::error::ClusterError;
use super::namespace::ScanNamespace;
use super::object::{Inventory, Kind, ObjectRef};

/// Bytes of all inputs of a scan. A secret ends at 1 MiB.
pub const INPUT_BYTES: usize = 900 << 10;

/// Files by their names, which must be keys of a secret: letters, digits, `-`, `_` and `.`. `Debug` shows the names.
#[derive(Clone)]
pub struct InputFiles(Arc<BTreeMap<String, Zeroizing<Vec<u8>>>>);

impl fmt::Debug for InputFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl InputFiles {
    /// These files.
    pub fn new(files: BTreeMap<String, Zeroizing<Vec<u8>>>) -> Self {
        Self(Arc::new(files))
    }

    /// Makes the secret with the files in it.
    pub(super) async fn create(
        &self,
        cluster: &Cluster,
        home: &ScanNamespace,
        name: &str,
        inventory: &mut Inventory,
    ) -> Result<(), ClusterError> {
        let data: Map<String, Value> =
            self.0.iter().map(|(name, bytes)| (name.clone(), json!(STANDARD.encode(bytes.as_slice())))).collect();
        let manifest = json!({ "type": "Opaque", "immutable": true, "data": data });
        inventory.create(cluster, ObjectRef::namespaced(Kind::Secret, home.name(), name), manifest).await.map(|_| ())
    }

    /// The volume that has them, for the pod's group alone.
    pub(super) fn volume(volume: &str, secret: &str) -> Value {
        json!({ "name": volume, "secret": { "secretName": secret, "defaultMode": 0o440 } })
    }
}

/// The value of one key of one secret, by a `get` on its name; `None` where it has no such key.
///
/// # Errors
/// When there is no such secret, or the identity may not read it.
pub async fn read(
    cluster: &Cluster,
    namespace: &str,
    name: &str,
    key: &str,
) -> Result<Option<Zeroizing<Vec<u8>>>, ClusterError> {
    let object = ObjectRef::namespaced(Kind::Secret, namespace, name);
    let secret = cluster.secret(&format!("read {object}"), object.path()).await?;
    let data = secret.data.unwrap_or_default().into_iter().map(|(name, value)| (name, Zeroizing::new(value.0)));
    Ok(data.filter(|(name, _)| name == key).map(|(_, value)| value).next())
}
