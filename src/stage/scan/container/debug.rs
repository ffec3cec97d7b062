//! By an ephemeral container beside it, for containers without a shell.

use std::time::Duration;

use super::Ways;
use crate::cluster::access::collecting::Collecting;
use crate::cluster::access::debug::collect;
use crate::cluster::access::exec::Caps;
use crate::cluster::access::pod_network;
use crate::cluster::agent::own_sockets::OwnSockets;
use crate::cluster::error::ClusterError;
use crate::cluster::identity::{Rights, ScanIdentity};
use crate::cluster::object::Inventory;
use crate::model::provenance::{Approach, Cleanup, NetworkProof};
use crate::model::reason::Reason;
use crate::model::target::Target;
use crate::native::facts::SystemFacts;
use crate::stage::plan::Isolate;
use crate::stage::scan::session::Session;
use crate::stage::scan::unit::{Context, NotDone, Reached, Task, facts_evidence, judge_system};

/// How long collecting may take.
const COLLECT: Duration = Duration::from_secs(180);

/// Bytes of its standard error that are kept.
const STDERR: usize = 64 * 1024;

pub(super) async fn reach(target: &Target, ways: &Ways, tasks: &[Task], context: &Context) -> Reached {
    let nothing = |why| Reached::nothing(target.clone(), Approach::Debug, why);
    let Target::Container { namespace, pod, .. } = target else {
        return nothing(NotDone::new(Reason::TargetUnsupported, "only a container can be reached from beside it"));
    };
    let Some(image) = &ways.own_image else {
        let why = "an ephemeral container needs gapscan's image, and no bundle was given";
        return nothing(NotDone::new(Reason::TargetUnsupported, why));
    };
    // Another way may have been tried before, which takes a while.
    let kept = match context.session() {
        Ok(session) => session.keep_proven().await,
        Err(why) => Err(why),
    };
    let (session, network) = match kept.and_then(|()| super::session(context)) {
        Ok(open) => open,
        Err(why) => return nothing(why),
    };
    let scan = session.next_scan();
    let mut cut = Cut::new(session, scan);
    let shared = match cut.prepare((namespace, pod), context.policy.debug.isolate, &network).await {
        Ok(note) => note,
        Err(why) => {
            let cleanup = Some(cut.remove().await);
            return Reached { network: Some(network), cleanup, ..nothing(why) };
        }
    };
    let made = ScanIdentity::create(&session.cluster, &session.home, scan, (namespace, pod), Rights::Debug).await;
    let identity = match made {
        Ok(identity) => identity,
        Err(error) => {
            let cleanup = Some(cut.remove().await);
            let why = NotDone::because(error.reason(), &error);
            return Reached { network: Some(network), cleanup, ..nothing(why) };
        }
    };
    let name = identity.username().to_owned();
    let request = Collecting {
        target,
        run: session.home.run(),
        scan,
        image,
        caps: Caps { stdout: usize::try_from(context.limits.collector_bytes).unwrap_or(usize::MAX), stderr: STDERR },
        deadline: COLLECT,
    };
    let report = collect(identity.cluster(), &request, &ways.facts).await;
    // First, since the application waits for it.
    let uncut = cut.remove().await;
    let mut cleanup = identity.remove(&session.cluster, &session.home).await;
    cleanup.created.extend(uncut.created);
    cleanup.remaining.extend(uncut.remaining);
    let mut notes = vec![shared];
    notes.extend(report.entries.account(&mut cleanup));
    if let Ok(collected) = &report.outcome {
        let sockets: OwnSockets = serde_json::from_slice(&collected.sockets).unwrap_or_default();
        notes.push(sockets.note());
    }
    let reached = Reached {
        identity: Some(name),
        network: Some(network),
        cleanup: Some(cleanup),
        notes,
        ..nothing(NotDone::new(Reason::InternalError, "not collected"))
    };
    let collected = report.outcome.map_err(|error| NotDone::because(error.reason(), &error));
    match collected.and_then(|collected| read(&collected.facts)) {
        Ok(facts) => Reached {
            evidence: vec![facts_evidence(&facts)],
            verdict: Ok(judge_system(&facts, tasks, target, &context.limits)),
            ..reached
        },
        Err(why) => Reached { verdict: Err(why), ..reached },
    }
}

/// What cuts the target's pod off from the network, where that is asked for. However the scan ends, it is removed.
struct Cut<'a> {
    session: &'a Session,
    scan: u32,
    inventory: Option<Inventory>,
}

impl<'a> Cut<'a> {
    fn new(session: &'a Session, scan: u32) -> Self {
        Self { session, scan, inventory: Some(Inventory::new(session.home.mark(Some(scan)))) }
    }

    /// Looks at the pod's network, and cuts it off where that is asked for. Gives what the record is to say.
    async fn prepare(
        &mut self,
        (namespace, pod): (&str, &str),
        isolate: Isolate,
        proof: &NetworkProof,
    ) -> Result<String, NotDone> {
        let Self { session, scan, inventory } = self;
        let required = isolate == Isolate::Required;
        let failed = |error: ClusterError| NotDone::because(error.reason(), &error);
        let shared = match pod_network::look(&session.cluster, namespace, pod).await {
            Ok(shared) => shared,
            // What can be denied is no reason not to scan, unless what it would show is asked for.
            Err(error @ ClusterError::Denied { .. }) if !required => {
                let why = failed(error).detail;
                return Ok(format!(
                    "what restricts the network that the ephemeral container shared is not known: {why}"
                ));
            }
            Err(error) => return Err(failed(error)),
        };
        let note = shared.note();
        if !required {
            return Ok(note);
        }
        let refused = |why: &str| {
            let detail = format!(
                "policy.debug.isolate asks to cut its pod off from the network, and that is not possible: {why}"
            );
            Err(NotDone::new(Reason::TargetUnsupported, detail))
        };
        if !proof.enforced {
            return refused("network policies are not proven to be enforced");
        }
        let Some(inventory) = inventory else { return refused("it was removed already") };
        match pod_network::cut(&session.cluster, &session.home, &shared, *scan, inventory).await {
            Ok(Ok(done)) => Ok(format!("{note}; {done}")),
            Ok(Err(why)) => refused(&why),
            Err(error) => Err(failed(error)),
        }
    }

    async fn remove(mut self) -> Cleanup {
        match self.inventory.take() {
            Some(inventory) => {
                // Dropped in the middle of this, it is found by its label at the end of the run.
                inventory.remove(&self.session.cluster).await
            }
            None => Cleanup { created: Vec::new(), remaining: Vec::new() },
        }
    }
}

impl Drop for Cut<'_> {
    fn drop(&mut self) {
        if let Some(inventory) = self.inventory.take().filter(|inventory| !inventory.is_empty()) {
            self.session.remove_later(inventory);
        }
    }
}

fn read(bytes: &[u8]) -> Result<SystemFacts, NotDone> {
    serde_json::from_slice(bytes).map_err(|error| NotDone::because(Reason::CollectorFailed, &error))
}
