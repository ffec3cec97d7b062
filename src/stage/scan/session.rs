//! What a run sets up in the cluster before it touches anything there: a namespace of its own, and the proof that network
//! policies are enforced in it. Everything is removed at the end, and that is verified too.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::sync::OnceCell;

use super::isolation::{Isolation, OwnImage};
use super::unit::NotDone;
use crate::cluster::client::Cluster;
use crate::cluster::namespace::ScanNamespace;
use crate::cluster::object::Inventory;
use crate::cluster::sweep;
use crate::model::provenance::{Cleanup, NetworkProof};
use crate::model::reason::Reason;
use crate::model::record::{Event, RunId};
use crate::stage::plan::{Policy, Unenforced};

/// No run takes this long: older objects of a run that this ledger does not know were left by one that died elsewhere.
pub(crate) const ABANDONED: Duration = Duration::from_secs(24 * 3600);

pub(crate) struct Session {
    pub(crate) cluster: Cluster,
    pub(crate) home: ScanNamespace,
    /// Made for the first node that is scanned.
    nodes: OnceCell<ScanNamespace>,
    /// Made for the first container that is copied.
    copies: OnceCell<ScanNamespace>,
    network: Isolation,
    unenforced: Unenforced,
    scans: AtomicU32,
}

/// Whether anything will be run in the cluster, so that its network has to be proven first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Intent {
    /// Objects are read through the API server; nothing runs.
    ReadObjects,
    /// Commands or pods run.
    Run,
}

impl Session {
    /// Makes the run's namespace and, where anything is to run, lets the canary prove the network. `image` is gapscan's own
    /// image as the nodes pull it, with what they need for that; without it there is no canary, and so no proof.
    pub(crate) async fn open(
        cluster: Cluster,
        run: RunId,
        intent: Intent,
        image: Option<OwnImage>,
        policy: &Policy,
    ) -> Result<Self, NotDone> {
        let home = ScanNamespace::create(&cluster, run).await.map_err(|e| NotDone::because(e.reason(), &e))?;
        let without = |detail: &str| Err(NotDone::new(Reason::PolicyNotEnforced, detail));
        let image = match intent {
            Intent::ReadObjects => without("nothing was to run, so it was not looked at"),
            Intent::Run => image.unwrap_or_else(|| {
                without("network policies are not proven to be enforced: the canary needs gapscan's image, and no bundle was given")
            }),
        };
        let network = Isolation::prove(&cluster, &home, image, policy.network.prove_every.duration()).await;
        let unenforced = policy.unenforced_network;
        Ok(Self {
            cluster,
            home,
            nodes: OnceCell::new(),
            copies: OnceCell::new(),
            network,
            unenforced,
            scans: AtomicU32::new(0),
        })
    }

    /// Looks whether what the canary proved still holds, before anything is started, and proves it again where policies changed.
    ///
    /// # Errors
    /// When that can't be known because the API server can't be asked.
    pub(crate) async fn keep_proven(&self) -> Result<(), NotDone> {
        let nodes: Vec<&str> = self.nodes.get().into_iter().map(ScanNamespace::name).collect();
        self.network.keep(&self.cluster, &self.home, &nodes, self.home.run()).await
    }

    /// Removes something in a task of its own, which the session's end waits for: for what must not stay although nobody waits
    /// for it any more.
    pub(crate) fn remove_later(&self, inventory: Inventory) {
        self.network.remove_later(&self.cluster, inventory.into());
    }

    /// What happened to the proof since this was asked last, for the ledger.
    pub(crate) fn take_events(&self) -> Vec<Event> {
        self.network.take_events()
    }

    /// The namespace for Jobs on nodes; made when it is asked for first.
    ///
    /// # Cancel safety
    /// Dropped half-way, it leaves the namespace as far as it was made, which the next caller completes or [`close`] removes.
    pub(crate) async fn for_nodes(&self) -> Result<&ScanNamespace, NotDone> {
        let make = || ScanNamespace::create_for_nodes(&self.cluster, self.home.run());
        self.nodes.get_or_try_init(make).await.map_err(|e| NotDone::because(e.reason(), &e))
    }

    /// The namespace for copies of containers; made when it is asked for first.
    ///
    /// # Cancel safety
    /// As of [`Session::for_nodes`].
    pub(crate) async fn for_copies(&self) -> Result<&ScanNamespace, NotDone> {
        let make = || ScanNamespace::create_for_copies(&self.cluster, self.home.run());
        self.copies.get_or_try_init(make).await.map_err(|e| NotDone::because(e.reason(), &e))
    }

    /// Removes all that the run made; what could not be seen to be gone is in the answer.
    async fn remove(self, cluster: &Cluster) -> Cleanup {
        self.network.end(&self.home).await;
        let removed = async |made: Option<ScanNamespace>| match made {
            Some(made) => made.remove(cluster).await,
            None => Cleanup { created: Vec::new(), remaining: Vec::new() },
        };
        let (nodes, copies) = (removed(self.nodes.into_inner()), removed(self.copies.into_inner()));
        let (mut cleanup, nodes, copies) = tokio::join!(self.home.remove(cluster), nodes, copies);
        for other in [nodes, copies] {
            cleanup.created.extend(other.created);
            cleanup.remaining.extend(other.remaining);
        }
        cleanup
    }

    /// What is known of the network, where that is good enough for the policy to run anything; else the reason to refuse.
    pub(crate) fn may_run(&self) -> Result<NetworkProof, NotDone> {
        let proof = match self.network.proof() {
            Ok(proof) if proof.enforced => return Ok(proof),
            Ok(proof) => proof,
            Err(why) => {
                NetworkProof { enforced: false, at: jiff::Timestamp::now(), detail: why.detail, allowance: None }
            }
        };
        match self.unenforced {
            Unenforced::Record => Ok(proof),
            Unenforced::Refuse => Err(NotDone::new(Reason::PolicyNotEnforced, proof.detail)),
        }
    }

    /// What the canary saw, for the record; `None` where it was not asked.
    pub(crate) fn unproven(&self) -> Option<String> {
        match self.network.proof() {
            Ok(proof) if proof.enforced => None,
            Ok(proof) => Some(proof.detail),
            Err(why) => Some(why.detail),
        }
    }

    /// A number for the next scan of this run, for the names of its objects.
    pub(crate) fn next_scan(&self) -> u32 {
        self.scans.fetch_add(1, Ordering::Relaxed)
    }
}

/// Removes everything that the run made, and looks whether it is gone. What a task that was ended half-way left beside its
/// target is in nobody's inventory, and neither is what a set-up that was given up made: it is found by the run's label.
pub(crate) async fn close(session: Option<Session>, cluster: &Cluster, run: RunId) -> Cleanup {
    let mut cleanup = match session {
        Some(session) => Box::pin(session.remove(cluster)).await,
        None => Cleanup { created: Vec::new(), remaining: Vec::new() },
    };
    match sweep::sweep(cluster, &BTreeSet::from([run]), ABANDONED, jiff::Timestamp::now()).await {
        Ok(swept) => {
            cleanup.created.extend(swept.removed);
            cleanup.remaining.extend(swept.remaining);
        }
        Err(error) => {
            cleanup.remaining.push(format!("what else may be there of run {run} ({})", super::error::chain(&error)));
        }
    }
    cleanup.remaining.sort_unstable();
    cleanup.remaining.dedup();
    cleanup
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::cluster::client::testing::Api;

    #[tokio::test]
    async fn what_a_task_that_timed_out_left_beside_its_target_is_removed_and_counted() {
        let run = RunId::new();
        let api = Api::default();
        let labels = json!({ "app.kubernetes.io/managed-by": "gapscan", "gapscan.dev/run": run.to_string() });
        let role = json!({ "metadata": { "name": "gapscan-x-0", "namespace": "shop", "uid": "u1", "labels": labels,
                                         "creationTimestamp": "2026-01-01T00:00:00Z" } });
        api.put("/apis/rbac.authorization.k8s.io/v1/namespaces/shop/roles/gapscan-x-0", role);
        let cleanup = close(None, &api.cluster(), run).await;
        assert_eq!(cleanup, Cleanup { created: vec!["role/shop/gapscan-x-0".to_owned()], remaining: Vec::new() });
        assert_eq!(api.paths(), Vec::<String>::new());
    }

    #[tokio::test]
    async fn what_can_not_be_looked_for_does_not_count_as_gone() {
        let api = Api::default();
        api.deny("/apis/rbac.authorization.k8s.io/v1/rolebindings");
        let cleanup = close(None, &api.cluster(), RunId::new()).await;
        assert_eq!(cleanup.remaining.len(), 1, "{cleanup:?}");
    }
}
