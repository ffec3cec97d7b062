//! By an ephemeral container beside it, for containers without a shell.

use std::time::Duration;

use super::Ways;
use crate::cluster::access::debug::{DebugRequest, collect};
use crate::cluster::access::exec::Caps;
use crate::cluster::agent::parcel;
use crate::cluster::identity::{Rights, ScanIdentity};
use crate::model::provenance::Approach;
use crate::model::reason::Reason;
use crate::model::target::Target;
use crate::native::facts::SystemFacts;
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
    let (session, network) = match super::session(context) {
        Ok(open) => open,
        Err(why) => return nothing(why),
    };
    let scan = session.next_scan();
    let made = ScanIdentity::create(&session.cluster, &session.home, scan, (namespace, pod), Rights::Debug).await;
    let identity = match made {
        Ok(identity) => identity,
        Err(error) => return Reached { network: Some(network), ..nothing(NotDone::because(error.reason(), &error)) },
    };
    let name = identity.username().to_owned();
    let request = DebugRequest {
        target,
        facts: &ways.facts,
        run: session.home.run(),
        scan,
        image,
        caps: Caps { stdout: usize::try_from(context.limits.collector_bytes).unwrap_or(usize::MAX), stderr: STDERR },
        deadline: COLLECT,
    };
    let report = collect(identity.cluster(), &request).await;
    let mut cleanup = identity.remove(&session.cluster, &session.home).await;
    let mut notes = Vec::new();
    if let Some(container) = report.container {
        notes.push(format!("`{container}` has ended, and its entry stays in the pod's status until the pod goes"));
        if !report.ended {
            notes.clear();
            cleanup.remaining.push(container.clone());
        }
        cleanup.created.push(container);
    }
    let reached = Reached {
        identity: Some(name),
        network: Some(network),
        cleanup: Some(cleanup),
        notes,
        ..nothing(NotDone::new(Reason::InternalError, "not collected"))
    };
    let facts = report.outcome.and_then(|output| Ok(parcel::open(&output.stdout)?.to_vec()));
    match facts.map_err(|error| NotDone::because(error.reason(), &error)).and_then(|bytes| read(&bytes)) {
        Ok(facts) => Reached {
            evidence: vec![facts_evidence(&facts)],
            verdict: Ok(judge_system(&facts, tasks, target, &context.limits)),
            ..reached
        },
        Err(why) => Reached { verdict: Err(why), ..reached },
    }
}

fn read(bytes: &[u8]) -> Result<SystemFacts, NotDone> {
    serde_json::from_slice(bytes).map_err(|error| NotDone::because(Reason::CollectorFailed, &error))
}
