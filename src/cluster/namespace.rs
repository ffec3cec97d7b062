//! The run's own namespaces: no traffic in either direction, removed at the end. Everything runs in one with restricted Pod
//! Security; only Jobs on nodes, which Kubernetes calls privileged because they see the node's files, run in another, which is
//! made only for them.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};

use super::client::{Cluster, Token, poll_until};
use super::error::ClusterError;
use super::identity;
use super::network;
use super::object::{Inventory, Kind, Mark, ObjectRef};
use crate::model::provenance::Cleanup;
use crate::model::record::RunId;

/// The service account of pods in the namespace. It has no rights, and no token of it is mounted. It is named because the
/// `default` one is made some time after the namespace, and a pod that asks for it before is refused.
pub(crate) const POD_ACCOUNT: &str = "scan";

/// The label of a namespace in which copies of containers run.
pub(crate) const COPIES: &str = "gapscan.dev/copies";

/// How long a token may still be accepted after its account is gone: the API server remembers a token's verdict for ten
/// seconds.
const TOKEN_DEATH: Duration = Duration::from_secs(20);

/// The Pod Security Standard that a namespace enforces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standard {
    Restricted,
    /// The same, for copies of containers, which run images that are in no bundle.
    RestrictedCopies,
    /// For pods that mount something of the node's, which no other standard allows.
    Privileged,
}

impl Standard {
    fn word(self) -> &'static str {
        match self {
            Self::Restricted | Self::RestrictedCopies => "restricted",
            Self::Privileged => "privileged",
        }
    }
}

/// A namespace that exists for one run. Everything that the run puts into the cluster is in it, except what must lie next
/// to a target (a Role) or above all (a ClusterRole).
#[derive(Debug)]
pub struct ScanNamespace {
    run: RunId,
    name: String,
    inventory: Inventory,
    ended: Mutex<Ended>,
}

/// What tasks of the run leave to be looked after at its end.
#[derive(Debug, Default)]
struct Ended {
    tokens: Vec<(String, Token)>,
    remaining: Vec<String>,
}

impl ScanNamespace {
    /// Makes the namespace `gapscan-` and the run's short id, with default-deny in both directions before anything else.
    ///
    /// # Errors
    /// When the cluster refuses or can't be reached; what was made until then is removed again.
    pub async fn create(cluster: &Cluster, run: RunId) -> Result<Self, ClusterError> {
        Self::make(cluster, run, format!("gapscan-{}", run.short()), Standard::Restricted).await
    }

    /// Makes the namespace `gapscan-`, the run's short id and `-node`, which is the same but for its Pod Security: for Jobs
    /// that look at nodes.
    ///
    /// # Errors
    /// As [`ScanNamespace::create`].
    pub async fn create_for_nodes(cluster: &Cluster, run: RunId) -> Result<Self, ClusterError> {
        Self::make(cluster, run, format!("gapscan-{}-node", run.short()), Standard::Privileged).await
    }

    /// Makes the namespace `gapscan-`, the run's short id and `-copy`, which is the same but for a label that tells admission
    /// what is made in it: copies of containers, beside gapscan's own image.
    ///
    /// # Errors
    /// As [`ScanNamespace::create`].
    pub async fn create_for_copies(cluster: &Cluster, run: RunId) -> Result<Self, ClusterError> {
        Self::make(cluster, run, format!("gapscan-{}-copy", run.short()), Standard::RestrictedCopies).await
    }

    async fn make(cluster: &Cluster, run: RunId, name: String, standard: Standard) -> Result<Self, ClusterError> {
        let mut inventory = Inventory::new(Mark { run, scan: None });
        match furnish(cluster, &name, standard, &mut inventory).await {
            Ok(()) => Ok(Self { run, name, inventory, ended: Mutex::default() }),
            Err(error) => {
                let cleanup = inventory.remove(cluster).await;
                if !cleanup.remaining.is_empty() {
                    tracing::warn!(remaining = ?cleanup.remaining, "could not remove what was made");
                }
                Err(error)
            }
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The run that it is for.
    pub fn run(&self) -> RunId {
        self.run
    }

    pub(crate) fn mark(&self, scan: Option<u32>) -> Mark {
        Mark { run: self.run, scan }
    }

    /// Keeps a token whose account was removed, to see at the end that it is refused.
    pub(crate) fn retire(&self, identity: String, token: Token) {
        self.ended().tokens.push((identity, token));
    }

    /// Keeps what a task could not remove and can't report itself, because it failed.
    pub(crate) fn leave(&self, remaining: Vec<String>) {
        self.ended().remaining.extend(remaining);
    }

    fn ended(&self) -> std::sync::MutexGuard<'_, Ended> {
        // A panic elsewhere does not make the list wrong.
        self.ended.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Removes the namespace with all that is in it, waits until it is gone, and sees that every token that was made for the
    /// run is refused. What could not be verified is in [`Cleanup::remaining`].
    pub async fn remove(self, cluster: &Cluster) -> Cleanup {
        let ended = self.ended.into_inner().unwrap_or_else(PoisonError::into_inner);
        // Beside each other: both take seconds, and neither needs the other.
        let (mut cleanup, alive) = tokio::join!(self.inventory.remove(cluster), alive(cluster, &ended.tokens));
        cleanup.remaining.extend(ended.remaining);
        cleanup.remaining.extend(alive.into_iter().map(|identity| format!("token/{identity}")));
        cleanup
    }
}

/// The identities of which a token was not seen to be refused. The newest is waited for first: when the API server has forgotten
/// it, it has forgotten the older ones too, so that each of these is asked about once.
async fn alive<'t>(cluster: &Cluster, tokens: &'t [(String, Token)]) -> Vec<&'t str> {
    let mut alive = Vec::new();
    let mut silent = false;
    for (identity, token) in tokens.iter().rev() {
        let refused = async || match silent {
            true => Ok(None),
            false => {
                poll_until(TOKEN_DEATH, || async { Ok(identity::is_refused(cluster, token).await?.then_some(())) })
                    .await
            }
        };
        match refused().await {
            Ok(Some(())) => {}
            Ok(None) => alive.push(identity.as_str()),
            Err(error) => {
                silent |= error.is_silence();
                alive.push(identity.as_str());
            }
        }
    }
    alive
}

async fn furnish(
    cluster: &Cluster,
    name: &str,
    standard: Standard,
    inventory: &mut Inventory,
) -> Result<(), ClusterError> {
    inventory.create(cluster, ObjectRef::cluster_wide(Kind::Namespace, name), manifest(standard)).await?;
    let deny = ObjectRef::namespaced(Kind::NetworkPolicy, name, network::standing::DEFAULT_DENY);
    inventory.create(cluster, deny, network::default_deny()).await?;
    let account = ObjectRef::namespaced(Kind::ServiceAccount, name, POD_ACCOUNT);
    inventory.create(cluster, account, json!({ "automountServiceAccountToken": false })).await?;
    Ok(())
}

fn manifest(standard: Standard) -> Value {
    let word = standard.word();
    let mut labels = json!({
        "pod-security.kubernetes.io/enforce": word,
        "pod-security.kubernetes.io/audit": word,
        "pod-security.kubernetes.io/warn": word,
    });
    if standard == Standard::RestrictedCopies {
        labels[COPIES] = json!("true");
    }
    json!({ "metadata": { "labels": labels } })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_enforces_the_standard_of_its_kind() {
        for (standard, word, copies) in [
            (Standard::Restricted, "restricted", None),
            (Standard::RestrictedCopies, "restricted", Some("true")),
            (Standard::Privileged, "privileged", None),
        ] {
            let labels = &manifest(standard)["metadata"]["labels"];
            assert_eq!(labels["pod-security.kubernetes.io/enforce"], word);
            assert_eq!(labels[COPIES].as_str(), copies);
        }
    }
}
