//! Reaching a container: in the first of the chosen ways that leads to it.

mod debug;
mod exec;
mod sidecar;

pub(super) use sidecar::OF_A_COPY;

use super::content::External;
use super::session::Session;
use super::unit::{Context, NotDone, Reached, Task};
use super::{external, image};
use crate::cluster::access::auto::{Choice, ContainerFacts};
use crate::model::access::Way;
use crate::model::provenance::{Approach, NetworkProof};
use crate::model::reason::Reason;
use crate::model::target::Target;

/// What has to be said where a container is judged by its image.
pub(super) const OF_IMAGE: &str =
    "judged by the image that it was started from: what was changed in the running container since is not seen";

/// How a container is reached.
#[derive(Clone, Debug)]
pub(crate) struct Ways {
    pub(crate) facts: ContainerFacts,
    pub(crate) choice: Choice,
    /// gapscan's own image as the nodes pull it, for the ways that start something.
    pub(crate) own_image: Option<String>,
}

impl Ways {
    /// Whether nothing is run in the cluster for it.
    pub(crate) fn only_image(&self) -> bool {
        self.choice.ways.iter().all(|chosen| chosen.way == Way::Image)
    }
}

/// In the first of its ways that leads to it: by gapscan itself, or by a scanner.
pub(crate) async fn reach(
    target: &Target,
    ways: &Ways,
    scanner: Option<&External>,
    tasks: &[Task],
    context: &Context,
) -> Reached {
    let mut earlier: Option<Reached> = None;
    for chosen in &ways.choice.ways {
        let mut reached = match (scanner, chosen.way) {
            (Some(scanner), way) => {
                Box::pin(external::reach_container(way, target, ways, tasks, scanner, context)).await
            }
            (None, Way::Exec) => Box::pin(exec::reach(target, tasks, context)).await,
            (None, Way::Debug) => Box::pin(debug::reach(target, ways, tasks, context)).await,
            (None, Way::Image) => of_image(target, ways, tasks, context).await,
            (None, Way::Sidecar) => Box::pin(sidecar::reach(target, ways, tasks, context)).await,
        };
        if let Some(before) = earlier.take() {
            reached = reached.after(before);
        }
        match &reached.verdict {
            // What does not run is the copy, and not the container.
            Err(why) if chosen.way == Way::Sidecar && why.reason == Reason::TargetNotRunning => earlier = Some(reached),
            Err(why) if another_way_may_do(why.reason) => earlier = Some(reached),
            _ => return reached,
        }
    }
    earlier.unwrap_or_else(|| {
        let why = NotDone::new(Reason::TargetUnsupported, ways.choice.refusals());
        Reached::nothing(target.clone(), Approach::None, why)
    })
}

/// Whether this way can't lead to the target, and another one might: not where the target is gone or the cluster is silent.
fn another_way_may_do(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::NoShell
            | Reason::ToolMissing
            | Reason::AccessDenied
            | Reason::TargetUnsupported
            | Reason::ImagePullFailed
            | Reason::ScannerNotStarted
    )
}

/// What is set up in the cluster, where something may be run in it.
pub(super) fn session(context: &Context) -> Result<(&Session, NetworkProof), NotDone> {
    let session = context.session()?;
    Ok((session, session.may_run()?))
}

/// The container by the image that it was started from.
async fn of_image(target: &Target, ways: &Ways, tasks: &[Task], context: &Context) -> Reached {
    let Some(reference) = &ways.facts.image else {
        let why = NotDone::new(Reason::TargetUnsupported, "no registry can be asked for its image");
        return Reached::nothing(target.clone(), Approach::Image, why);
    };
    let mut reached = image::reach_as(target, reference, tasks, context).await;
    reached.notes.push(OF_IMAGE.to_owned());
    reached
}
