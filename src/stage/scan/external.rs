//! Reaching an image by a scanner of its own: a Job with the image mounted read-only, whose result is parsed and reduced to
//! what was expected.

use jiff::Timestamp;

use super::content::External;
use super::image::{self, Platformed};
use super::network::{self, Allowance};
use super::unit::{Context, NotDone, Reached, Task};
use crate::cluster::agent::protocol::Unreadable;
use crate::cluster::job::{self, ImageMount, JobRequest};
use crate::model::evidence::Evidence;
use crate::model::finding::{Detail, Finding};
use crate::model::outcome::Outcome;
use crate::model::provenance::{Approach, Engine};
use crate::model::reason::Reason;
use crate::model::scanner::{COMPLETE_CONTROL, ResultFormat};
use crate::model::target::Target;
use crate::results;

pub(crate) async fn reach(target: &Target, tasks: &[Task], external: &External, context: &Context) -> Reached {
    let engine =
        Engine { name: external.scanner.name.clone(), version: String::new(), image: Some(external.image_digest) };
    let content = external.mounts.iter().map(|m| m.content.clone()).collect();
    let mut reached = Reached {
        engine: Some(engine),
        content,
        ..Reached::nothing(target.clone(), Approach::ImageVolume, NotDone::new(Reason::InternalError, "not scanned"))
    };
    if let Err(why) = attempt(&mut reached, tasks, external, context).await {
        reached.verdict = Err(why);
    }
    reached
}

async fn attempt(reached: &mut Reached, tasks: &[Task], external: &External, context: &Context) -> Result<(), NotDone> {
    let Target::Image { reference, .. } = &reached.target else {
        return Err(NotDone::new(Reason::TargetUnsupported, "this scanner scans images only"));
    };
    let Some(approach) = &external.scanner.approaches.image else {
        return Err(NotDone::new(Reason::TargetUnsupported, "the scanner's definition has no approach for images"));
    };
    let session = match &context.session {
        Some(Ok(session)) => session,
        Some(Err(why)) => return Err(why.clone()),
        None => return Err(NotDone::new(Reason::InternalError, "no cluster was connected for this")),
    };
    reached.network = Some(session.may_run()?);
    let Platformed { reference: pinned, digest, note, .. } = image::resolve(reference, context).await?;
    reached.notes.extend(note);
    reached.target = Target::Image { reference: reference.clone(), digest: Some(digest) };

    let mounts: Vec<ImageMount> =
        external.mounts.iter().map(|m| ImageMount { reference: m.image.clone(), path: m.path.clone() }).collect();
    let target_image = pinned.to_string();
    let images = [&external.image, &external.own_image, &target_image];
    let images = images.into_iter().chain(mounts.iter().map(|m| &m.reference)).map(String::as_str);
    let pull = context.pulling.secret(images, &context.registries, &context.limits).await?;
    let request = JobRequest {
        scan: session.next_scan(),
        scanner: &external.scanner,
        approach,
        scanner_image: external.image.clone(),
        agent_image: external.own_image.clone(),
        target_image,
        mounts,
        pull,
        parameters: external.document.parameters.clone(),
        result_limit: context.limits.result_bytes,
        spool: context.spool.clone(),
    };
    let report = job::run_job(&session.cluster, &session.home, &request).await;
    reached.identity = report.identity;
    reached.cleanup = Some(report.cleanup);
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
