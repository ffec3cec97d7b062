//! Reaching a target by a scanner of its own, in the way that its definition offers: in a Job with the target's files mounted
//! read-only, in one that talks to the API server, or beside its target. What it leaves is parsed and reduced to what was
//! expected.

mod beside;
mod container;
mod copied;
mod judge;
mod transport;
mod within;

use std::collections::BTreeMap;
use std::net::SocketAddr;

use super::archive;
use super::content::External;
use super::egress;
use super::image;
use super::inputs::{self, Inputs};
use super::network::Allowance;
use super::node;
use super::session::Session;
use super::unit::{Context, NotDone, Reached, Task};
use crate::cluster::ScanNamespace;
use crate::cluster::egress::Destination;
use crate::cluster::job::{self, ImageArchive, ImageMount, JobReport, JobRequest, JobTarget, Program, Scanning};
use crate::model::provenance::{Approach, Engine};
use crate::model::reason::Reason;
use crate::model::scanner::{self as placeholder, MountApproach, Offered};
use crate::model::target::Target;
use crate::stage::plan::Policy;
use judge::{Left, Seen, judge};

pub(crate) use container::{offers, reach_container};

/// How a scanner reaches a target of this kind, where there is one way only.
pub(crate) fn approach(target: &Target, external: &External) -> Approach {
    match target {
        Target::Node { .. } => Approach::Node,
        Target::Cluster { .. } => Approach::Objects,
        Target::Image { .. } if external.takes_archive_alone() => Approach::ImageArchive,
        Target::Image { .. } | Target::Host { .. } | Target::Container { .. } => Approach::ImageVolume,
    }
}

/// A target that is no container.
pub(crate) async fn reach(target: &Target, tasks: &[Task], external: &External, context: &Context) -> Reached {
    let mut reached = begin(target, approach(target, external), external);
    let outcome = match target {
        Target::Node { name, .. } => on_node(&mut reached, name, tasks, external, context).await,
        Target::Image { reference, .. } => by_image(&mut reached, reference, tasks, external, context).await,
        Target::Cluster { .. } => transport::of_cluster(&mut reached, tasks, external, context).await,
        Target::Host { .. } | Target::Container { .. } => Err(unsupported()),
    };
    if let Err(why) = outcome {
        reached.verdict = Err(why);
    }
    reached
}

fn begin(target: &Target, approach: Approach, external: &External) -> Reached {
    let engine =
        Engine { name: external.scanner.name.clone(), version: String::new(), image: Some(external.image_digest) };
    Reached {
        engine: Some(engine),
        content: external.mounts.iter().map(|m| m.content.clone()).collect(),
        ..Reached::nothing(target.clone(), approach, NotDone::new(Reason::InternalError, "not scanned"))
    }
}

async fn on_node(
    reached: &mut Reached,
    name: &str,
    tasks: &[Task],
    external: &External,
    context: &Context,
) -> Result<(), NotDone> {
    let approach = needed(external.scanner.approaches.node.as_ref(), "nodes")?;
    let session = context.session()?;
    let (home, network) = node::home(session).await?;
    reached.network = Some(network);
    reached.notes.push(node::NETWORK_HIDDEN.to_owned());
    let place = node::place(name, &context.policy);
    by_mount(reached, tasks, external, context, (home, approach, place, None)).await
}

/// By an image that is mounted, whatever the target is.
async fn by_image(
    reached: &mut Reached,
    reference: &str,
    tasks: &[Task],
    external: &External,
    context: &Context,
) -> Result<(), NotDone> {
    let approach = needed(external.scanner.approaches.image.as_ref(), "images")?;
    if external.takes_archive_alone() {
        reached.approach = Approach::ImageArchive;
    }
    let session = context.session()?;
    reached.network = Some(session.may_run()?);
    let mut image = image::resolve(reference, context).await?;
    reached.notes.extend(image.note.take());
    if let Target::Image { digest: known, .. } = &mut reached.target {
        *known = Some(image.digest);
    }
    let archive = match &approach.archive {
        None => None,
        Some(needs) => {
            let (archive, note) = archive::archive(&image, needs, &context.limits)?;
            reached.notes.extend(note);
            Some(archive)
        }
    };
    let target = JobTarget::Image(image.reference.to_string());
    by_mount(reached, tasks, external, context, (&session.home, approach, target, archive)).await
}

/// By files that are mounted, or by an archive.
async fn by_mount(
    reached: &mut Reached,
    tasks: &[Task],
    external: &External,
    context: &Context,
    (home, approach, target, archive): (&ScanNamespace, &MountApproach, JobTarget, Option<ImageArchive>),
) -> Result<(), NotDone> {
    let session = context.session()?;
    let (image, node) = match &target {
        // The nodes pull what they mount.
        JobTarget::Image(image) => (approach.mount.is_some().then_some(image.as_str()), None),
        JobTarget::Node(place) => (None, Some(place.node.as_str())),
        JobTarget::Api(_) => (None, None),
    };
    let parameters = parameters(external, &reached.target);
    let inputs = inputs::gather(external, approach, &session.cluster).await?;
    let mut scanning = scanning(external, approach, parameters, (image, node), (session, context)).await?;
    scanning.inputs = inputs.as_ref().map(|inputs| inputs.files.clone());
    let peers = talking(reached, external, &scanning);
    let request = JobRequest { scanning, target, archive, uploads: context.uploads.clone() };
    let report = job::run_job(&session.cluster, home, &request).await;
    let output = take(reached, report);
    let output = without_secrets(reached, output, inputs.as_ref(), context)?;
    let seen = Seen::Looked(output.unreadable.clone());
    judge(reached, tasks, external, context, Left { output, allowance: Allowance { tcp: &peers }, seen })
}

/// Whom the scan's pod is let through to besides the API server, with what the record says of each.
fn talking(reached: &mut Reached, external: &External, scanning: &Scanning<'_>) -> Vec<SocketAddr> {
    reached.notes.extend(scanning.egress.iter().map(|to| egress::note(&external.scanner, to)));
    scanning.egress.iter().flat_map(Destination::peers).collect()
}

/// A scan by the scanner, with what it needs besides its target. `target_image` is pulled for it too, and `node` is where it
/// must run.
async fn scanning<'e>(
    external: &'e External,
    approach: impl Into<Offered<'e>>,
    parameters: BTreeMap<String, String>,
    (target_image, node): (Option<&str>, Option<&str>),
    (session, context): (&Session, &Context),
) -> Result<Scanning<'e>, NotDone> {
    let dependencies = external.mounts.iter().map(|m| ImageMount { reference: m.image.clone(), path: m.path.clone() });
    let mounts: Vec<ImageMount> = dependencies.chain(external.profile_mount()).collect();
    let images = [external.image.as_str(), &external.own_image].into_iter().chain(target_image);
    let images: Vec<&str> = images.chain(mounts.iter().map(|m| m.reference.as_str())).collect();
    let pull = context.pulling.secret(images, &context.registries, &context.limits).await?;
    let approach = approach.into();
    let egress = egress::resolve(&external.scanner, &approach, &context.policy, &session.cluster).await?;
    let cpu = context.cpu(&external.scanner.cpu, node).into();
    Ok(Scanning {
        run: session.home.run(),
        scan: session.next_scan(),
        program: Program { cpu, ..Program::of(&external.scanner, approach) },
        scanner_image: external.image.clone(),
        agent_image: external.own_image.clone(),
        mounts,
        egress,
        pull,
        inputs: None,
        parameters,
        result_limit: context.limits.result_bytes,
        spool: context.spool.clone(),
    })
}

/// The profile's parameters, and what is filled in for this target.
fn parameters(external: &External, target: &Target) -> BTreeMap<String, String> {
    let mut parameters = external.document.parameters.clone();
    if let Target::Container { namespace, pod, container, .. } = target {
        let names = [(placeholder::NAMESPACE, namespace), (placeholder::POD, pod), (placeholder::CONTAINER, container)];
        parameters.extend(names.map(|(name, value)| (name.to_owned(), value.clone())));
    }
    parameters
}

/// What a Job left, or why nothing, without secret values of the profile's inputs.
fn without_secrets(
    reached: &mut Reached,
    output: Result<job::JobOutput, NotDone>,
    inputs: Option<&Inputs>,
    context: &Context,
) -> Result<job::JobOutput, NotDone> {
    match (output, inputs) {
        (Ok(output), Some(inputs)) => inputs.redact(reached, output, context),
        (Err(why), Some(inputs)) => Err(inputs.hide(why)),
        (outcome, None) => outcome,
    }
}

/// What a Job left, with what is to be recorded of it however it ended.
fn take(reached: &mut Reached, report: JobReport) -> Result<job::JobOutput, NotDone> {
    reached.identity = match (reached.identity.take(), report.identity) {
        (Some(one), Some(other)) => Some(format!("{one}, {other}")),
        (one, other) => one.or(other),
    };
    match &mut reached.cleanup {
        Some(cleanup) => {
            cleanup.created.extend(report.cleanup.created);
            cleanup.remaining.extend(report.cleanup.remaining);
        }
        none => *none = Some(report.cleanup),
    }
    reached.notes.extend(report.notes);
    report.outcome.map_err(|e| NotDone::because(e.reason(), &e))
}

/// How the cluster would be reached, in words.
pub(super) fn explain(external: &External) -> String {
    let resources = external.scanner.approaches.cluster.iter().flat_map(|cluster| &cluster.resources);
    let resources: Vec<String> = resources.map(ToString::to_string).collect();
    format!("a Job of the scanner, as an identity for this alone, which may list {}", resources.join(", "))
}

/// Why a target of this kind can't be scanned; `None` where it can.
pub(super) fn obstacle(external: &External, target: &Target, policy: &Policy) -> Option<NotDone> {
    let approaches = &external.scanner.approaches;
    let approach: Result<Offered<'_>, NotDone> = match target {
        Target::Image { .. } => needed(approaches.image.as_ref(), "images").map(Into::into),
        Target::Node { .. } => needed(approaches.node.as_ref(), "nodes").map(Into::into),
        Target::Cluster { .. } => needed(approaches.cluster.as_ref(), "the cluster").map(Into::into),
        // Each of its ways has its own reasons.
        Target::Container { .. } if !approaches.ways().is_empty() => return None,
        Target::Container { .. } => return needed::<()>(None, "containers").err(),
        Target::Host { .. } => return Some(unsupported()),
    };
    approach.and_then(|approach| egress::allowed(&external.scanner, &approach, policy)).err()
}

fn needed<'e, A>(approach: Option<&'e A>, kind: &str) -> Result<&'e A, NotDone> {
    let missing = || format!("the scanner's definition has no approach for {kind}");
    approach.ok_or_else(|| NotDone::new(Reason::TargetUnsupported, missing()))
}

fn unsupported() -> NotDone {
    NotDone::new(Reason::TargetUnsupported, "a scanner in a cluster can't look at this machine")
}
