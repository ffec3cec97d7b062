//! Reaching an image or a node by a scanner of its own: a Job with the target's files mounted read-only, whose result is parsed
//! and reduced to what was expected.

use jiff::Timestamp;

use super::content::External;
use super::image::{self, Platformed};
use super::network::{self, Allowance};
use super::node;
use super::unit::{Context, NotDone, Reached, Task};
use crate::cluster::agent::protocol::Unreadable;
use crate::cluster::job::{self, ImageMount, JobRequest, JobTarget, Program};
use crate::model::evidence::Evidence;
use crate::model::finding::{Detail, Finding};
use crate::model::outcome::Outcome;
use crate::model::provenance::{Approach, Engine};
use crate::model::reason::Reason;
use crate::model::scanner::{COMPLETE_CONTROL, MountApproach, ResultFormat};
use crate::model::target::Target;
use crate::results;

/// How a scanner reaches a target of this kind.
pub(crate) fn approach(target: &Target) -> Approach {
    match target {
        Target::Node { .. } => Approach::Node,
        Target::Image { .. } | Target::Host { .. } | Target::Container { .. } | Target::Cluster { .. } => {
            Approach::ImageVolume
        }
    }
}

pub(crate) async fn reach(target: &Target, tasks: &[Task], external: &External, context: &Context) -> Reached {
    let engine =
        Engine { name: external.scanner.name.clone(), version: String::new(), image: Some(external.image_digest) };
    let content = external.mounts.iter().map(|m| m.content.clone()).collect();
    let mut reached = Reached {
        engine: Some(engine),
        content,
        ..Reached::nothing(target.clone(), approach(target), NotDone::new(Reason::InternalError, "not scanned"))
    };
    if let Err(why) = attempt(&mut reached, tasks, external, context).await {
        reached.verdict = Err(why);
    }
    reached
}

async fn attempt(reached: &mut Reached, tasks: &[Task], external: &External, context: &Context) -> Result<(), NotDone> {
    let approach = offered(external, &reached.target)?;
    let session = context.session()?;
    let (home, job_target) = match &reached.target {
        Target::Node { name, .. } => {
            let (home, network) = node::home(session).await?;
            let place = node::place(name, &context.policy);
            reached.network = Some(network);
            reached.notes.push(node::NETWORK_HIDDEN.to_owned());
            (home, place)
        }
        Target::Image { reference, .. } => {
            reached.network = Some(session.may_run()?);
            let Platformed { reference: pinned, digest, note, .. } = image::resolve(reference, context).await?;
            reached.notes.extend(note);
            reached.target = Target::Image { reference: reference.clone(), digest: Some(digest) };
            (&session.home, JobTarget::Image(pinned.to_string()))
        }
        Target::Host { .. } | Target::Container { .. } | Target::Cluster { .. } => return Err(unsupported()),
    };

    let mounts: Vec<ImageMount> =
        external.mounts.iter().map(|m| ImageMount { reference: m.image.clone(), path: m.path.clone() }).collect();
    let target_image = match &job_target {
        JobTarget::Image(image) => Some(image),
        JobTarget::Node(_) => None,
    };
    let images = [&external.image, &external.own_image].into_iter().chain(target_image);
    let images = images.chain(mounts.iter().map(|m| &m.reference)).map(String::as_str);
    let pull = context.pulling.secret(images, &context.registries, &context.limits).await?;
    let node = match &job_target {
        JobTarget::Image(_) => None,
        JobTarget::Node(place) => Some(place.node.as_str()),
    };
    let cpu = context.cpu(&external.scanner.cpu, node);
    let request = JobRequest {
        scan: session.next_scan(),
        program: Program { cpu: &cpu, ..Program::of(&external.scanner, approach) },
        scanner_image: external.image.clone(),
        agent_image: external.own_image.clone(),
        target: job_target,
        mounts,
        pull,
        parameters: external.document.parameters.clone(),
        result_limit: context.limits.result_bytes,
        spool: context.spool.clone(),
    };
    let report = job::run_job(&session.cluster, home, &request).await;
    reached.identity = report.identity;
    reached.cleanup = Some(report.cleanup);
    reached.notes.extend(report.notes);
    let output = report.outcome.map_err(|e| NotDone::because(e.reason(), &e))?;
    if let Ok(result) = &output.result {
        reached.evidence.push(Evidence::new("result", media_type(external.scanner.result.format), result.clone()));
    }
    for (name, bytes) in [("stdout", &output.stdout_tail), ("stderr", &output.stderr_tail)] {
        if !bytes.is_empty() {
            reached.evidence.push(Evidence::new(name, "text/plain", bytes.clone()));
        }
    }
    let (unreadable, sockets) = (output.unreadable.clone(), output.sockets.clone());
    reached.notes.extend(network::note(&sockets, Allowance::NOBODY));
    let result = output.into_result(&external.scanner.exit_codes).map_err(|e| NotDone::because(e.reason(), &e))?;
    let task = tasks.first().ok_or_else(|| NotDone::new(Reason::InternalError, "there is no task"))?;
    // A large result takes seconds, during which other scans wait for their connections.
    let parse = || results::parse(external.scanner.result.format, &result, &task.profile, &context.limits);
    let mut parsed = tokio::task::block_in_place(parse).map_err(|e| NotDone::because(e.reason(), &e))?;
    if let Some(engine) = &mut reached.engine {
        engine.version = parsed.scanner_version.unwrap_or_default();
    }
    // With several, the scanner does not say which of them it means.
    if let (Some(built), [content]) = (parsed.database_built, &mut reached.content[..]) {
        content.built = Some(built);
    }
    reached.notes.extend(external.check_age(parsed.database_built, &context.policy, Timestamp::now())?);
    account_for_unreadable(&mut parsed.findings, &unreadable, context.limits.finding_details)?;
    network::judge(&mut parsed.findings, &sockets, Allowance::NOBODY, context.limits.finding_details);
    reached.notes.extend(parsed.notes);
    reached.verdict = Ok(vec![parsed.findings]);
    Ok(())
}

/// How the scanner looks at a target of this kind.
pub(super) fn offered<'e>(external: &'e External, target: &Target) -> Result<&'e MountApproach, NotDone> {
    let (approach, kind) = match target {
        Target::Image { .. } => (&external.scanner.approaches.image, "images"),
        Target::Node { .. } => (&external.scanner.approaches.node, "nodes"),
        Target::Host { .. } | Target::Container { .. } | Target::Cluster { .. } => return Err(unsupported()),
    };
    let missing = || format!("the scanner's definition has no approach for {kind}");
    approach.as_ref().ok_or_else(|| NotDone::new(Reason::TargetUnsupported, missing()))
}

fn unsupported() -> NotDone {
    NotDone::new(Reason::TargetUnsupported, "this scanner scans images and nodes only")
}

/// Judges the control that asks whether the scanner could read all of the target: a scanner passes over what it may not read
/// in silence, so that its other verdicts are about the rest.
fn account_for_unreadable(findings: &mut [Finding], unreadable: &Unreadable, most: usize) -> Result<(), NotDone> {
    let more = if unreadable.incomplete { "at least " } else { "" };
    let detail = format!("the scanner's user may not read {more}{} paths of the target", unreadable.count);
    let whole = unreadable.count == 0 && !unreadable.incomplete;
    let Some(finding) = findings.iter_mut().find(|f| f.control == COMPLETE_CONTROL) else {
        // Without a control that could say so, the verdicts would be taken for ones on the whole target.
        return if whole { Ok(()) } else { Err(NotDone::new(Reason::UnreadablePaths, detail)) };
    };
    if whole {
        *finding = Finding::new(COMPLETE_CONTROL, Outcome::Passed);
        return Ok(());
    }
    let paths = unreadable.sample.iter().map(|path| Detail::new(path, "not readable for the scanner's user"));
    *finding = Finding::new(COMPLETE_CONTROL, Outcome::not_evaluated(Reason::UnreadablePaths, detail))
        .with_details(paths, most);
    finding.details_omitted = unreadable.count.saturating_sub(finding.details.len() as u64);
    Ok(())
}

fn media_type(format: ResultFormat) -> &'static str {
    match format {
        ResultFormat::Arf => "application/xml",
        ResultFormat::Grype => "application/json",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_scanner_could_not_read_is_never_passed_over() {
        let some = Unreadable { count: 2, sample: vec!["/a".to_owned()], incomplete: false };
        let unknown = Unreadable { count: 0, sample: Vec::new(), incomplete: true };
        let none = Unreadable { count: 0, sample: Vec::new(), incomplete: false };
        let control = || vec![Finding::new("x", Outcome::Passed), Finding::new(COMPLETE_CONTROL, Outcome::Passed)];
        for unreadable in [&some, &unknown] {
            let mut findings = control();
            account_for_unreadable(&mut findings, unreadable, 10).expect("a control says so");
            assert!(matches!(findings[1].outcome, Outcome::NotEvaluated { reason: Reason::UnreadablePaths, .. }));
            let why = account_for_unreadable(&mut control()[..1], unreadable, 10).expect_err("nothing says so");
            assert_eq!(why.reason, Reason::UnreadablePaths);
        }
        let mut findings = control();
        findings[1] = Finding::new(COMPLETE_CONTROL, Outcome::Failed);
        account_for_unreadable(&mut findings, &none, 10).expect("all was read");
        assert_eq!(findings[1].outcome, Outcome::Passed);
    }
}
