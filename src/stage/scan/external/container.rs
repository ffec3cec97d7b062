//! Reaching a container by a scanner, in the ways that its definition offers.

use super::{begin, beside, by_image, copied, transport};
use crate::cluster::access::auto::{ContainerFacts, choose};
use crate::model::access::Way;
use crate::model::provenance::Approach;
use crate::model::reason::Reason;
use crate::model::scanner::Offered;
use crate::model::target::Target;
use crate::stage::plan::{Policy, TargetPrograms};
use crate::stage::scan::container::{OF_IMAGE, Ways};
use crate::stage::scan::content::External;
use crate::stage::scan::egress;
use crate::stage::scan::unit::{Context, NotDone, Reached, Task};

/// The ways to a container that the scanner's definition offers, of those that policy allows.
pub(crate) fn offers(external: &External, facts: &ContainerFacts, policy: &Policy) -> Ways {
    // Whatever gapscan's own sidecar in its pod could tell, a scanner is put beside a copy.
    let facts = &ContainerFacts { injected: None, ..facts.clone() };
    let mut choice = choose(facts, &external.scanner.approaches.ways(), &policy.approaches);
    if let Some(needed) = external.scanner.needs_volume() {
        choice.refuse(Way::Debug, &format!("the scanner needs {needed}, and an ephemeral container can mount nothing"));
    }
    if !external.inputs.is_empty() {
        choice.refuse(Way::Debug, "the plan has inputs for the profile, and an ephemeral container can mount nothing");
        choice.refuse(
            Way::Sidecar,
            "the plan has inputs for the profile, and the copied program could read them: it runs as the scanner's user",
        );
    }
    let within = external.scanner.approaches.exec.as_ref().is_some_and(|exec| exec.in_target().is_some());
    if within {
        match (policy.target_programs, external.inputs.is_empty()) {
            (TargetPrograms::Refuse, _) => choice.refuse(
                Way::Exec,
                "the scanner's program would be the target's own, and policy does not allow that (policy.targetPrograms)",
            ),
            (TargetPrograms::Allow, false) => choice.refuse(
                Way::Exec,
                "the plan has inputs for the profile, and they are not given to programs of the target's own",
            ),
            (TargetPrograms::Allow, true) => {}
        }
    }
    for (way, approach) in [
        (Way::Exec, external.scanner.approaches.exec.as_ref().map(Offered::from)),
        (Way::Image, external.scanner.approaches.image.as_ref().map(Offered::from)),
    ] {
        let allowed = approach.map(|approach| egress::allowed(&external.scanner, &approach, policy));
        if let Some(Err(why)) = allowed {
            choice.refuse(way, &why.detail);
        }
    }
    for chosen in &mut choice.ways {
        let how = match chosen.way {
            Way::Exec if within => {
                "the container's own program, with the bundle's content; the container needs a shell, and nobody vouches for \
                 the program"
                    .to_owned()
            }
            Way::Exec => {
                "a pod of the scanner that may run commands in this one pod; the container needs a shell".to_owned()
            }
            Way::Debug => format!("{} (one of gapscan holds the agent for the scanner's)", chosen.why),
            Way::Image => format!("a Job of the scanner, with {}", chosen.why),
            Way::Sidecar => "a copy of it with the scanner beside it, without its secrets, configuration and traffic; the container \
                 itself is not looked at"
                .to_owned(),
        };
        chosen.why = how;
    }
    Ways { facts: facts.clone(), choice, own_image: Some(external.own_image.clone()) }
}

/// The container in one of its ways.
pub(crate) async fn reach_container(
    way: Way,
    target: &Target,
    ways: &Ways,
    tasks: &[Task],
    external: &External,
    context: &Context,
) -> Reached {
    let mut reached = begin(target, if way == Way::Image { Approach::ImageVolume } else { way.approach() }, external);
    let outcome = match way {
        Way::Exec => transport::of_container(&mut reached, tasks, external, context).await,
        Way::Debug => Box::pin(beside::of_container(&mut reached, ways, tasks, external, context)).await,
        Way::Image => of_image(&mut reached, ways, tasks, external, context).await,
        Way::Sidecar => Box::pin(copied::of_container(&mut reached, ways, tasks, external, context)).await,
    };
    if let Err(why) = outcome {
        reached.verdict = Err(why);
    }
    reached
}

/// The container by the image that it was started from.
async fn of_image(
    reached: &mut Reached,
    ways: &Ways,
    tasks: &[Task],
    external: &External,
    context: &Context,
) -> Result<(), NotDone> {
    reached.notes.push(OF_IMAGE.to_owned());
    match &ways.facts.image {
        Some(reference) => Box::pin(by_image(reached, reference, tasks, external, context)).await,
        None => Err(NotDone::new(Reason::TargetUnsupported, "no registry can be asked for its image")),
    }
}
