//! By a scanner that talks to the API server: to run commands in one container, or to list what its definition names.

use super::{Left, Seen, judge, needed, parameters, scanning, take, talking, within, without_secrets};
use crate::cluster::access::exec::Place;
use crate::cluster::access::in_target;
use crate::cluster::access::transport::{self, KUBECONFIG, Transport};
use crate::cluster::agent::protocol::Unreadable;
use crate::cluster::identity::Reach;
use crate::cluster::job::{self, JobOutput, JobRequest, JobTarget, UID};
use crate::model::reason::Reason;
use crate::model::scanner::{self as placeholder, Offered};
use crate::model::target::Target;
use crate::stage::scan::container::session;
use crate::stage::scan::content::External;
use crate::stage::scan::inputs;
use crate::stage::scan::network::Allowance;
use crate::stage::scan::unit::{Context, NotDone, Reached, Task};

/// What can't be known of a scanner that runs commands in its target.
const UNSEEN: &str =
    "what the scanner's commands could not read in the container is not known: they ran there as the container's user";

/// A container, by commands in it.
pub(super) async fn of_container(
    reached: &mut Reached,
    tasks: &[Task],
    external: &External,
    context: &Context,
) -> Result<(), NotDone> {
    let approach = needed(external.scanner.approaches.exec.as_ref(), "containers by exec")?;
    let Target::Container { namespace, pod, container, uid, .. } = reached.target.clone() else {
        return Err(NotDone::new(Reason::TargetUnsupported, "only a container can be reached by exec"));
    };
    let place = Place { namespace: &namespace, pod: &pod, container: &container, uid: uid.as_deref() };
    let reach = Reach::Pod { namespace: namespace.clone(), pod: pod.clone() };
    let (mut output, peers, _) =
        Box::pin(run(reached, external, context, approach.into(), (reach, Some(&place)))).await?;
    if approach.in_target().is_some() {
        within::take(&mut output)?;
    }
    let allowance = Allowance { tcp: &peers };
    judge(reached, tasks, external, context, Left { output, allowance, seen: Seen::Unknown(UNSEEN) })
}

/// The cluster, by lists.
pub(super) async fn of_cluster(
    reached: &mut Reached,
    tasks: &[Task],
    external: &External,
    context: &Context,
) -> Result<(), NotDone> {
    let approach = needed(external.scanner.approaches.cluster.as_ref(), "the cluster")?;
    let reach = Reach::Lists(approach.resources.clone());
    let (output, peers, unlisted) = Box::pin(run(reached, external, context, approach.into(), (reach, None))).await?;
    let allowance = Allowance { tcp: &peers };
    judge(reached, tasks, external, context, Left { output, allowance, seen: Seen::Looked(unlisted) })
}

/// What the scanner left, whom it may have talked to, and what it could not list.
type Ran = (JobOutput, Vec<std::net::SocketAddr>, Unreadable);

/// Runs the scanner with a way to the API server, and takes that away again.
async fn run<'e>(
    reached: &mut Reached,
    external: &'e External,
    context: &Context,
    approach: Offered<'e>,
    (reach, place): (Reach, Option<&Place<'_>>),
) -> Result<Ran, NotDone> {
    let failed = |error| NotDone::because(crate::cluster::ClusterError::reason(&error), &error);
    let (session, network) = session(context)?;
    reached.network = Some(network);
    let (cluster, home) = (&session.cluster, &session.home);
    let mut parameters = parameters(external, &reached.target);
    parameters.insert(placeholder::KUBECONFIG.to_owned(), KUBECONFIG.to_owned());
    let inputs = inputs::gather(external, approach, cluster).await?;
    let mut scanning = scanning(external, approach, parameters, (None, None), (session, context)).await?;
    scanning.inputs = inputs.as_ref().map(|inputs| inputs.files.clone());
    let peers = talking(reached, external, &scanning);
    let (word, guest) = (scanning.word(), approach.in_target);
    if guest.is_some() {
        // The program that would answer in the scanner's pod is not the one that is run.
        scanning.program.version = &[];
    }
    let mut transport = Transport::open(cluster, home, scanning.scan, reach).await.map_err(failed)?;
    let outcome = async {
        let identity = transport.identity().ok_or_else(|| NotDone::new(Reason::InternalError, "it has no identity"))?;
        reached.identity = Some(identity.username().to_owned());
        let unlisted = identity.unlisted().await.map_err(failed)?;
        let before = match place {
            Some(place) => Some(transport::look(identity, place).await.map_err(failed)?),
            None => None,
        };
        let found = match (guest, place) {
            (Some(guest), Some(place)) => Some(within::look(reached, identity, place, external, guest).await?),
            _ => None,
        };
        if let Some(before) = &before {
            scanning.parameters.insert(UID.to_owned(), before.uid().to_owned());
        }
        Ok((unlisted, before, found))
    }
    .await;
    let peers: Vec<_> = transport.access().servers.iter().copied().chain(peers).collect();
    let outcome = match outcome {
        Ok((unlisted, before, found)) => {
            let target = JobTarget::Api(transport.access().clone());
            let request = JobRequest { scanning, target, archive: None, uploads: context.uploads.clone() };
            let mut same = Ok(());
            let mut folder = None;
            // The pod may take some seconds to go; its rights need not last so long.
            let ended = async {
                if let (Some(identity), Some(place), Some(before)) = (transport.identity(), place, &before) {
                    same = transport::unchanged(identity, place, before).await;
                    if guest.is_some_and(|guest| guest.delivers.is_some()) {
                        folder = Some(in_target::tidy(identity.cluster(), place, &word).await);
                    }
                }
                transport.revoke(cluster, home).await;
            };
            let report = Box::pin(job::run_job_then(cluster, home, &request, ended)).await;
            let output = take(reached, report);
            if let (Some(place), Some(folder)) = (place, folder) {
                within::account(reached, place, &word, folder);
            }
            let output = without_secrets(reached, output, inputs.as_ref(), context).map(|mut output| {
                output.version = found.or(output.version);
                output
            });
            same.map_err(failed).and(output).map(|output| (output, peers, unlisted))
        }
        Err(why) => {
            transport.revoke(cluster, home).await;
            Err(why)
        }
    };
    let closed = transport.close(cluster).await;
    match &mut reached.cleanup {
        Some(cleanup) => {
            cleanup.created.extend(closed.created);
            cleanup.remaining.extend(closed.remaining);
        }
        none => *none = Some(closed),
    }
    outcome
}
