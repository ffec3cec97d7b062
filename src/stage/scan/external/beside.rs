//! By the scanner in an ephemeral container beside its target.

use super::{Left, Seen, begin, judge, needed};
use crate::cluster::access::beside::{self, BesideRequest};
use crate::cluster::identity::{Rights, ScanIdentity};
use crate::cluster::job::Program;
use crate::model::provenance::Approach;
use crate::model::reason::Reason;
use crate::model::scanner as placeholder;
use crate::model::target::Target;
use crate::stage::scan::container::{Ways, session};
use crate::stage::scan::content::External;
use crate::stage::scan::network::Allowance;
use crate::stage::scan::unit::{Context, NotDone, Reached, Task};

pub(super) async fn of_container(
    target: &Target,
    ways: &Ways,
    tasks: &[Task],
    external: &External,
    context: &Context,
) -> Reached {
    let mut reached = begin(target, Approach::Debug, external);
    if let Err(why) = attempt(&mut reached, ways, tasks, external, context).await {
        reached.verdict = Err(why);
    }
    reached
}

async fn attempt(
    reached: &mut Reached,
    ways: &Ways,
    tasks: &[Task],
    external: &External,
    context: &Context,
) -> Result<(), NotDone> {
    let failed = |error| NotDone::because(crate::cluster::ClusterError::reason(&error), &error);
    let approach = needed(external.scanner.approaches.debug.as_ref(), "containers by debug")?;
    let target = reached.target.clone();
    let Target::Container { namespace, pod, container, .. } = &target else {
        return Err(NotDone::new(Reason::TargetUnsupported, "only a container can be reached from beside it"));
    };
    let (session, network) = session(context)?;
    reached.network = Some(network);
    let scan = session.next_scan();
    let mut parameters = external.document.parameters.clone();
    for (name, value) in
        [(placeholder::NAMESPACE, namespace), (placeholder::POD, pod), (placeholder::CONTAINER, container)]
    {
        parameters.insert(name.to_owned(), value.clone());
    }
    let request = BesideRequest {
        target: &target,
        facts: &ways.facts,
        run: session.home.run(),
        scan,
        agent_image: &external.own_image,
        scanner_image: &external.image,
        program: Program::of(&external.scanner, approach),
        parameters,
        result_limit: context.limits.result_bytes,
        spool: context.spool.clone(),
    };
    let life = beside::patience(request.program.deadline);
    let place = (namespace.as_str(), pod.as_str());
    let identity = ScanIdentity::create_for(&session.cluster, &session.home, scan, place, Rights::Debug, life).await;
    let identity = identity.map_err(failed)?;
    reached.identity = Some(identity.username().to_owned());
    let report = beside::scan(identity.cluster(), &request).await;
    let mut cleanup = identity.remove(&session.cluster, &session.home).await;
    let ended = report.containers.iter().filter(|container| !report.running.contains(container));
    let stays =
        |container| format!("`{container}` has ended, and its entry stays in the pod's status until the pod goes");
    reached.notes.extend(ended.map(stays));
    if !report.containers.is_empty() {
        let limits = "the scanner's limits of memory and CPU did not hold: an ephemeral container has none of its own";
        reached.notes.push(limits.to_owned());
    }
    cleanup.created.extend(report.containers);
    cleanup.remaining.extend(report.running);
    reached.cleanup = Some(cleanup);
    let output = report.outcome.map_err(failed)?;
    let seen = Seen::Looked(output.unreadable.clone());
    judge(reached, tasks, external, context, Left { output, allowance: Allowance::NOBODY, seen })
}
