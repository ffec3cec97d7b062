//! By the scanner in an ephemeral container beside its target.

use super::{Left, Seen, judge, needed, parameters, scanning};
use crate::cluster::access::beside;
use crate::cluster::identity::{Rights, ScanIdentity};
use crate::model::reason::Reason;
use crate::model::target::Target;
use crate::stage::scan::container::{Ways, session};
use crate::stage::scan::content::External;
use crate::stage::scan::network::Allowance;
use crate::stage::scan::unit::{Context, NotDone, Reached, Task};

pub(super) async fn of_container(
    reached: &mut Reached,
    ways: &Ways,
    tasks: &[Task],
    external: &External,
    context: &Context,
) -> Result<(), NotDone> {
    let failed = |error| NotDone::because(crate::cluster::ClusterError::reason(&error), &error);
    let approach = needed(external.scanner.approaches.debug.as_ref(), "containers by debug")?;
    let target = reached.target.clone();
    let Target::Container { namespace, pod, .. } = &target else {
        return Err(NotDone::new(Reason::TargetUnsupported, "only a container can be reached from beside it"));
    };
    let (session, network) = session(context)?;
    reached.network = Some(network);
    let parameters = parameters(external, &target);
    let scanning = scanning(external, approach, parameters, (None, None), (session, context)).await?;
    let life = beside::patience(scanning.program.deadline);
    let place = (namespace.as_str(), pod.as_str());
    let identity =
        ScanIdentity::create_for(&session.cluster, &session.home, scanning.scan, place, Rights::Debug, life).await;
    let identity = identity.map_err(failed)?;
    reached.identity = Some(identity.username().to_owned());
    let report = beside::scan(identity.cluster(), (&target, &ways.facts), &scanning).await;
    let mut cleanup = identity.remove(&session.cluster, &session.home).await;
    let before = cleanup.created.len();
    reached.notes.extend(report.entries.account(&mut cleanup));
    if cleanup.created.len() > before {
        let limits = "the scanner's limits of memory and CPU did not hold: an ephemeral container has none of its own";
        reached.notes.push(limits.to_owned());
    }
    reached.cleanup = Some(cleanup);
    let output = report.outcome.map_err(failed)?;
    let seen = Seen::Looked(output.unreadable.clone());
    judge(reached, tasks, external, context, Left { output, allowance: Allowance::NOBODY, seen })
}
