//! What a run sets up in the cluster before it touches anything there: a namespace of its own, and the proof that network
//! policies are enforced in it. Everything is removed at the end, and that is verified too.

use std::sync::atomic::{AtomicU32, Ordering};

use super::unit::NotDone;
use crate::cluster::canary;
use crate::cluster::client::Cluster;
use crate::cluster::namespace::ScanNamespace;
use crate::model::provenance::{Cleanup, NetworkProof};
use crate::model::reason::Reason;
use crate::model::record::RunId;
use crate::stage::plan::Unenforced;

pub(crate) struct Session {
    pub(crate) cluster: Cluster,
    pub(crate) home: ScanNamespace,
    network: Result<NetworkProof, NotDone>,
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
    /// image as the nodes pull it; without it there is no canary, and so no proof.
    pub(crate) async fn open(
        cluster: Cluster,
        run: RunId,
        intent: Intent,
        image: Option<&str>,
        unenforced: Unenforced,
    ) -> Result<Self, NotDone> {
        let home = ScanNamespace::create(&cluster, run).await.map_err(|e| NotDone::because(e.reason(), &e))?;
        let network = match (intent, image) {
            (Intent::ReadObjects, _) => {
                Err(NotDone::new(Reason::PolicyNotEnforced, "nothing was to run, so it was not looked at"))
            }
            (Intent::Run, None) => Err(NotDone::new(
                Reason::PolicyNotEnforced,
                "network policies are not proven to be enforced: the canary needs gapscan's image, and no bundle was given",
            )),
            (Intent::Run, Some(image)) => Ok(canary::prove(&cluster, &home, image, jiff::Timestamp::now()).await),
        };
        Ok(Self { cluster, home, network, unenforced, scans: AtomicU32::new(0) })
    }

    /// What is known of the network, where that is good enough for the policy to run anything; else the reason to refuse.
    pub(crate) fn may_run(&self) -> Result<NetworkProof, NotDone> {
        let proof = match &self.network {
            Ok(proof) if proof.enforced => return Ok(proof.clone()),
            Ok(proof) => proof.clone(),
            Err(why) => NetworkProof { enforced: false, at: jiff::Timestamp::now(), detail: why.detail.clone() },
        };
        match self.unenforced {
            Unenforced::Record => Ok(proof),
            Unenforced::Refuse => Err(NotDone::new(Reason::PolicyNotEnforced, proof.detail)),
        }
    }

    /// What the canary saw, for the record; `None` where it was not asked.
    pub(crate) fn unproven(&self) -> Option<String> {
        match &self.network {
            Ok(proof) if proof.enforced => None,
            Ok(proof) => Some(proof.detail.clone()),
            Err(why) => Some(why.detail.clone()),
        }
    }

    /// A number for the next scan of this run, for the names of its objects.
    pub(crate) fn next_scan(&self) -> u32 {
        self.scans.fetch_add(1, Ordering::Relaxed)
    }

    /// Removes everything that the run made.
    pub(crate) async fn close(self) -> Cleanup {
        self.home.remove(&self.cluster).await
    }
}
