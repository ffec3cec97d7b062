//! Keeping true what the canary proved: before anything is started, what stands in the run's namespaces is compared with what
//! stood there when the network was proven. Where somebody else changed it, or the proof is old, it is void: it is proven again,
//! with pods that are new, before anything more is started.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::task::JoinSet;

use super::unit::NotDone;
use crate::cluster::canary::{self, CanaryImage, Proven, Remains, Used};
use crate::cluster::client::Cluster;
use crate::cluster::namespace::ScanNamespace;
use crate::cluster::network::standing::{self, Standing};
use crate::cluster::pull::PullSecret;
use crate::model::provenance::NetworkProof;
use crate::model::record::{Event, RunId};

/// What was looked at so long ago is looked at again. It bounds the requests of a run that starts much at once; what a change
/// lets through that is younger than this, it would let through a moment after a start as well.
const FRESH: Duration = Duration::from_secs(1);

/// gapscan's own image as the nodes pull it, with what they need for that; or why there can be no canary.
pub(crate) type OwnImage = Result<(String, Option<PullSecret>), NotDone>;

pub(crate) struct Isolation {
    image: OwnImage,
    /// How long a proof is good for.
    every: Duration,
    /// Held by who looks and proves; everybody else waits for what comes of it.
    watch: tokio::sync::Mutex<Watch>,
    proof: Mutex<Result<NetworkProof, NotDone>>,
    events: Mutex<Vec<Event>>,
    /// What is being removed: canaries, and what was left by who could not wait.
    removals: Mutex<JoinSet<Remains>>,
}

struct Watch {
    round: u32,
    /// What stood there when it was proven; `None` where that was not found out.
    standing: Option<Standing>,
    looked: Instant,
    proven: Instant,
}

impl Isolation {
    /// The first proof.
    pub(crate) async fn prove(cluster: &Cluster, home: &ScanNamespace, image: OwnImage, every: Duration) -> Self {
        let now = Instant::now();
        let watch = Watch { round: 0, standing: None, looked: now, proven: now };
        let unproven = image.as_ref().err().cloned();
        let made = Self {
            image,
            every,
            watch: tokio::sync::Mutex::new(watch),
            proof: Mutex::new(Err(unproven.unwrap_or_else(|| {
                NotDone::new(crate::model::reason::Reason::PolicyNotEnforced, "it was not looked at yet")
            }))),
            events: Mutex::default(),
            removals: Mutex::default(),
        };
        made.prove_now(&mut *made.watch.lock().await, cluster, home, &[]).await;
        made
    }

    /// What is known now.
    pub(crate) fn proof(&self) -> Result<NetworkProof, NotDone> {
        lock(&self.proof).clone()
    }

    /// What happened to the proof since this was asked last.
    pub(crate) fn take_events(&self) -> Vec<Event> {
        std::mem::take(&mut *lock(&self.events))
    }

    /// Looks whether the proof still holds, and proves it again where it does not: when this returns, [`Self::proof`] is of what
    /// stands there.
    ///
    /// # Errors
    /// When the API server can't be asked. Then nothing is known, and nothing should be started.
    ///
    /// # Cancel safety
    /// Dropped half-way, the next caller does it again.
    pub(crate) async fn keep(
        &self,
        cluster: &Cluster,
        home: &ScanNamespace,
        others: &[&str],
        run: RunId,
    ) -> Result<(), NotDone> {
        if self.image.is_err() {
            return Ok(());
        }
        let mut watch = self.watch.lock().await;
        if watch.looked.elapsed() < FRESH {
            return Ok(());
        }
        let namespaces: Vec<&str> = std::iter::once(home.name()).chain(others.iter().copied()).collect();
        let now = match standing::look(cluster, &namespaces).await {
            Ok(standing) => standing,
            Err(error) => return Err(NotDone::because(error.reason(), &error)),
        };
        let changed = watch.standing.as_ref().and_then(|before| now.changed_since(before));
        let aged = watch.proven.elapsed() >= self.every;
        let why = match (changed, aged) {
            (Some(change), _) => change,
            (None, true) => format!("it was proven {} s ago", watch.proven.elapsed().as_secs()),
            (None, false) => {
                watch.looked = Instant::now();
                return Ok(());
            }
        };
        let what = if aged { "network-proof-aged" } else { "network-policies-changed" };
        self.tell(what, run, format!("the proof that network policies are enforced is void: {why}"));
        self.prove_now(&mut watch, cluster, home, others).await;
        match self.proof() {
            Ok(proof) if proof.enforced => self.tell("network-proven-again", run, proof.detail),
            Ok(proof) => self.tell("policy-not-enforced", run, proof.detail),
            Err(why) => self.tell("policy-not-enforced", run, why.detail),
        }
        Ok(())
    }

    async fn prove_now(&self, watch: &mut Watch, cluster: &Cluster, home: &ScanNamespace, others: &[&str]) {
        let Ok((name, pull)) = &self.image else { return };
        let image = CanaryImage { name, pull: pull.as_ref() };
        let round = watch.round;
        // One that is given up half-way has used its names.
        watch.round += 1;
        let Proven { proof, standing, used } = Box::pin(canary::prove(cluster, home, others, image, round)).await;
        self.remove_later(cluster, used);
        watch.standing = standing;
        (watch.looked, watch.proven) = (Instant::now(), Instant::now());
        *lock(&self.proof) = Ok(proof);
    }

    /// Removes it in a task of its own, which [`Self::end`] waits for.
    pub(super) fn remove_later(&self, cluster: &Cluster, used: Used) {
        let cluster = cluster.clone();
        lock(&self.removals).spawn(async move { Box::pin(used.remove(&cluster)).await });
    }

    fn tell(&self, what: &str, run: RunId, detail: String) {
        let event = Event { at: Timestamp::now(), what: what.to_owned(), subject: run.to_string(), due: None, detail };
        lock(&self.events).push(event);
    }

    /// Waits until all that is removed beside the run is, and leaves to the namespace what is to be looked after at its end.
    pub(crate) async fn end(self, home: &ScanNamespace) {
        let mut removals = self.removals.into_inner().unwrap_or_else(PoisonError::into_inner);
        while let Some(removed) = removals.join_next().await {
            match removed {
                Ok(Remains { remaining, tokens }) => {
                    home.leave(remaining);
                    for (identity, token) in tokens {
                        home.retire(identity, token);
                    }
                }
                Err(error) => home.leave(vec![format!("what was to be removed beside the run ({error})")]),
            }
        }
    }
}

/// A panic elsewhere does not make what is known wrong.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
