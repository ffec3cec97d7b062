//! Reaching an image by a scanner of its own: a Job with the image mounted read-only, whose result is parsed and reduced to
//! what was expected.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::content::External;
use super::image::{self, Platformed};
use super::unit::{Context, NotDone, Reached, Task};
use crate::cluster::job::{self, ImageMount, JobRequest};
use crate::model::evidence::Evidence;
use crate::model::provenance::{Approach, Engine};
use crate::model::reason::Reason;
use crate::model::scanner::ExitMeaning;
use crate::model::target::Target;
use crate::results;

pub(crate) async fn reach(target: &Target, tasks: &[Task], external: &External, context: &Context) -> Reached {
    let engine = Engine {
        name: external.scanner.name.clone(),
        version: String::new(),
        image: Some(external.image_digest),
    };
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
    let Platformed { reference: pinned, digest, .. } = image::resolve(reference, context).await?;
    reached.target = Target::Image { reference: reference.clone(), digest: Some(digest) };

    let fill = |text: &str| {
        job::substitute(text, &external.document.parameters).map_err(|e| NotDone::because(Reason::ScannerNotStarted, &e))
    };
    let command = approach.command.iter().map(|word| fill(word)).collect::<Result<Vec<_>, _>>()?;
    let env: BTreeMap<String, String> =
        approach.env.iter().map(|(name, value)| Ok((name.clone(), fill(value)?))).collect::<Result<_, NotDone>>()?;
    let mut mounts = vec![ImageMount { image: pinned.to_string(), path: approach.mount.clone() }];
    mounts.extend(external.mounts.iter().map(|m| ImageMount { image: m.image.clone(), path: m.path.clone() }));
    let request = JobRequest {
        scan: session.next_scan(),
        scanner: &external.scanner,
        agent_image: &external.own_image,
        scanner_image: &external.image,
        command,
        env,
        mounts,
        result_bytes: context.limits.result_bytes,
    };
    let output = job::run_job(&session.cluster, &session.home, request).await;
    let output = match output {
        Ok(output) => output,
        Err(error) => return Err(NotDone::because(error.reason(), &error)),
    };
    reached.identity = Some(output.identity);
    reached.cleanup = Some(output.cleanup);
    let media = "application/octet-stream";
    if !output.result.is_empty() {
        reached.evidence.push(Evidence::new("result", media, output.result.clone()));
    }
    for (name, bytes) in [("stdout", output.stdout_tail), ("stderr", output.stderr_tail)] {
        if !bytes.is_empty() {
            reached.evidence.push(Evidence::new(name, "text/plain", bytes));
        }
    }
    if output.unreadable.count > 0 {
        reached.notes.push(format!(
            "the scanner ran as a user who may not read {} paths of the image, and could not judge them: {}",
            output.unreadable.count,
            output.unreadable.sample.join(", ")
        ));
    }
    match output.exit.code() {
        Some(code) => match external.scanner.exit_codes.get(&code) {
            Some(ExitMeaning::Complete) => {}
            Some(ExitMeaning::Failed) => {
                return Err(NotDone::new(Reason::ScannerFailed, format!("the scanner ended with exit code {code}")));
            }
            None => {
                let detail = format!("the scanner ended with exit code {code}, which its definition does not know");
                return Err(NotDone::new(Reason::ScannerFailed, detail));
            }
        },
        None => return Err(NotDone::new(Reason::ScannerFailed, format!("the scanner was ended by {}", output.exit))),
    }
    let task = tasks.first().ok_or_else(|| NotDone::new(Reason::InternalError, "there is no task"))?;
    let parsed = results::parse(external.scanner.result.format, &output.result, &task.profile, &context.limits)
        .map_err(|e| NotDone::because(e.reason(), &e))?;
    if let Some(engine) = &mut reached.engine {
        engine.version = parsed.scanner_version.unwrap_or_default();
    }
    if let (Some(built), Some(content)) = (parsed.database_built, reached.content.first_mut()) {
        content.built = Some(built);
    }
    external.check_age(parsed.database_built, &context.policy, Timestamp::now())?;
    reached.notes.extend(parsed.notes);
    reached.verdict = Ok(vec![parsed.findings]);
    Ok(())
}
