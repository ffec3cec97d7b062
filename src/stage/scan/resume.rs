//! Taking up a run of which the runner died: what has a result keeps it, what has none is scanned if it still is the target
//! that was meant, and the run ends as one.
//!
//! It is the same run, with the same id: its results are told apart by target, engine and profile, and the ledger takes one
//! of each, so that nothing can be counted twice. What the dead runner left in the cluster is removed before anything of the
//! run is made there again.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};

use super::account::{close, close_interrupted_but, not_done};
use super::content::Content;
use super::dispatch::{RunSummary, Stop};
use super::error::ScanError;
use super::expected::plan_units;
use super::pull::Pulling;
use super::run::{Prepared, carry_out, cluster_for, content_for, uploads};
use super::select::{needs_cluster, select};
use super::unit::{Unit, Work};
use crate::base::limits::Limits;
use crate::base::progress::Progress;
use crate::base::text::brief;
use crate::ledger::{Ledger, RunRecord};
use crate::model::coverage::Coverage;
use crate::model::profile::ProfileRef;
use crate::model::reason::Reason;
use crate::model::record::{Event, ExpectedTask, RUN_RESUMED, RunEnd, RunStart};
use crate::model::scanner::BUILTIN;
use crate::model::target::{Target, TargetSpec};
use crate::stage::plan::{Access, Policy, ResumePolicy, Selection};
use crate::stage::registries::Registries;
use crate::trust::remembered::OnLoss;

/// How a run is taken up again. What is scanned, and with what, the ledger says.
#[derive(Clone, Debug)]
pub struct ResumeRequest {
    /// How everything is reached.
    pub access: Access,
    /// What is allowed.
    pub policy: Policy,
    /// What happens where the state knows less than the ledger.
    pub on_loss: OnLoss,
}

/// The newest run that has no end.
///
/// # Errors
/// When the ledger can't be read.
pub fn newest_unfinished(ledger: &Ledger) -> Result<Option<RunRecord>, ScanError> {
    let newest = ledger.unfinished_runs()?.into_iter().rfind(|(start, _)| start.is_scan());
    Ok(newest.map(|(start, _)| ledger.reader().run(start.run)).transpose()?.flatten())
}

/// Takes up the newest run that has no end; others without one are ended as interrupted. A run whose bundle or profiles are
/// not what they were when it began is ended as interrupted, too, for half of its results would rest on something else.
///
/// # Errors
/// When there is no such run; when the bundle does not verify or can't be read, in which case the run can still be resumed;
/// when the ledger can't be written.
///
/// # Cancel safety
/// As [`super::scan`]: the run can be resumed again.
pub async fn resume(
    request: ResumeRequest,
    ledger: &mut Ledger,
    stop: Stop,
    progress: &Progress,
) -> Result<RunSummary, ScanError> {
    let ResumeRequest { access, policy, on_loss } = request;
    let now = Timestamp::now();
    let Some((start, missing)) =
        tokio::task::block_in_place(|| ledger.unfinished_runs())?.into_iter().rfind(|(start, _)| start.is_scan())
    else {
        return Err(ScanError::Request("no run is unfinished, and so none can be resumed".to_owned()));
    };
    let run = start.run;
    for other in tokio::task::block_in_place(|| close_interrupted_but(Some(run), ledger, now))? {
        progress.say(format!("run {other} had died; what it did not do is recorded as not evaluated"));
    }
    let pulling = Pulling::new(access.cluster.pull_config_file.as_deref(), &Limits::default())?;
    let limits = Limits::default();
    let registries = Registries::new(access.registries.clone(), limits.clone());
    let content = content_for(None, &access, on_loss, &registries, &limits, ledger, now).await?;
    let mut earlier = ledger.reader().tasks_of(run)?;
    if let Err(why) = unchanged(&start, &content) {
        progress.say(format!("run {run} is not resumed: {why}; what it did not do is recorded as not evaluated"));
        let detail = format!("the runner ended before this was done, and the run could not be resumed: {why}");
        earlier.extend(tokio::task::block_in_place(|| close(&start, missing, &detail, ledger, now))?);
        let coverage = earlier.iter().map(|task| task.coverage).fold(Coverage::default(), Coverage::plus);
        return Ok(RunSummary { run, end: RunEnd::Interrupted, coverage, tasks: earlier, waivers_refused: 0 });
    }

    let (found, done) = (missing.len(), earlier.len());
    let selection = selection_of(&missing);
    // What the dead runner left there is removed, even if what is left to do needs no cluster.
    let clustered = needs_cluster(&selection_of(&start.expected)) || start.expected.iter().any(|t| t.engine != BUILTIN);
    let cluster = cluster_for(clustered, &access, &limits, ledger).await?;
    let selected = select(&selection, cluster.as_ref(), &limits).await;
    let units = match selected.is_empty() {
        true => Vec::new(),
        false => plan_units(selected, &selection, &content, &policy)?,
    };
    let (units, lost) = still_meant(missing, units);
    let detail = format!(
        "its runner had died: {done} of {} tasks have a result, {} are scanned now, {} of {found} can't be any more",
        start.expected.len(),
        found - lost.len(),
        lost.len()
    );
    progress.say(format!("run {run} is resumed; {detail}"));
    let event = Event { at: now, what: RUN_RESUMED.to_owned(), subject: run.to_string(), due: None, detail };
    tokio::task::block_in_place(|| ledger.event(&event))?;
    for Lost { task, reason, detail } in lost {
        earlier.extend(tokio::task::block_in_place(|| not_done(run, task, reason, &detail, ledger))?);
    }
    let prepared = Prepared { run, units, selection, policy, limits, registries, content, cluster };
    let uploads = uploads(&prepared).await?;
    Box::pin(carry_out(prepared, earlier, pulling, uploads, ledger, stop, progress)).await
}

/// Whether a runner that starts takes up this run by itself.
pub(crate) fn by_itself(run: &RunRecord, policy: &ResumePolicy, now: Timestamp) -> bool {
    let age = now.duration_since(run.start.started);
    let young = SignedDuration::try_from(policy.within.duration()).is_ok_and(|within| age < within);
    run.end.is_none() && young && run.resumed.len() < policy.times
}

/// Whether the run's bundle and profiles are what they were when it began.
fn unchanged(start: &RunStart, content: &Content) -> Result<(), String> {
    let named = |bundle: &Option<crate::model::provenance::BundleRef>| match bundle {
        Some(bundle) => format!("bundle `{}` version {} ({})", brief(&bundle.name), bundle.version, bundle.digest),
        None => "no bundle".to_owned(),
    };
    if start.bundle != content.bundle {
        return Err(format!("it began with {}, and there is {} now", named(&start.bundle), named(&content.bundle)));
    }
    let builtin = content.builtin.iter().map(|rules| (BUILTIN, rules.profile().reference()));
    let external = content.external.iter().map(|e| (e.scanner.name.as_str(), e.profile.reference()));
    let known: Vec<(&str, ProfileRef)> = builtin.chain(external).collect();
    let is_known = |task: &&ExpectedTask| {
        known.iter().any(|(engine, profile)| *engine == task.engine && profile.digest == task.profile.digest)
    };
    match start.expected.iter().find(|task| !is_known(task)) {
        Some(task) => Err(format!(
            "profile `{}` of {} is not what it was when the run began",
            brief(&task.profile.name),
            brief(&task.engine)
        )),
        None => Ok(()),
    }
}

/// Exactly these targets, by name.
fn selection_of(tasks: &[ExpectedTask]) -> Selection {
    let mut targets: Vec<TargetSpec> = Vec::new();
    for spec in tasks.iter().filter_map(|task| spec_of(&task.target)) {
        if !targets.contains(&spec) {
            targets.push(spec);
        }
    }
    let distinct = |names: &mut dyn Iterator<Item = &String>| -> Vec<String> {
        names.collect::<BTreeSet<_>>().into_iter().cloned().collect()
    };
    Selection {
        targets,
        engines: distinct(&mut tasks.iter().map(|task| &task.engine)),
        profiles: distinct(&mut tasks.iter().map(|task| &task.profile.name)),
        ..Selection::default()
    }
}

/// The target in the form in which a user names it; `None` for what stands for targets that were never found.
fn spec_of(target: &Target) -> Option<TargetSpec> {
    match target {
        Target::Image { reference, .. } if reference == "*" || reference.starts_with("unnamed/") => None,
        _ => target.key().parse().ok(),
    }
}

/// A task that is not scanned any more.
#[derive(Debug)]
struct Lost {
    task: ExpectedTask,
    reason: Reason,
    detail: String,
}

/// From what the run still owes, and what would be scanned under these names now: what is the same, and the rest with the
/// reason.
fn still_meant(mut missing: Vec<ExpectedTask>, units: Vec<Unit>) -> (Vec<Unit>, Vec<Lost>) {
    let (mut left, mut lost) = (Vec::new(), Vec::new());
    for mut unit in units {
        let is_of_unit = |task: &ExpectedTask| {
            task.target.key() == unit.target.key()
                && unit.tasks.iter().any(|t| t.engine == task.engine && t.profile.digest() == task.profile.digest)
        };
        let (owed, others): (Vec<_>, Vec<_>) = missing.into_iter().partition(is_of_unit);
        missing = others;
        let Some(first) = owed.first() else { continue };
        match difference(first, &unit) {
            None => {
                // What is known of it from then and not now, as an image's digest, is part of what was meant.
                if unit.incarnation().is_none() {
                    unit.target = first.target.clone();
                }
                unit.tasks.retain(|t| owed.iter().any(|o| o.profile.digest == t.profile.digest()));
                left.push(unit);
            }
            Some((reason, detail)) => {
                lost.extend(owed.into_iter().map(|task| Lost { task, reason, detail: detail.clone() }));
            }
        }
    }
    lost.extend(missing.into_iter().map(|task| {
        let detail =
            "the runner ended before this was done, and nothing of this name was found when the run was resumed";
        let reason = if has_identity(&task.target) { Reason::TargetGone } else { Reason::RunnerInterrupted };
        Lost { task, reason, detail: detail.to_owned() }
    }));
    (left, lost)
}

/// Why what has the name now is not what was meant; `None` where it is, as far as anybody can know.
fn difference(then: &ExpectedTask, unit: &Unit) -> Option<(Reason, String)> {
    if let Work::Impossible(why) = &unit.work
        && why.reason == Reason::TargetNotFound
        && has_identity(&then.target)
    {
        return Some((Reason::TargetGone, format!("it was there when the run began: {}", why.detail)));
    }
    let differ = |what: &str, then: Option<String>, now: Option<String>| match (then, now) {
        (Some(then), Some(now)) if then != now => {
            let detail = format!("{what} was {} when the run began, and is {} now", brief(&then), brief(&now));
            Some((Reason::TargetChanged, detail))
        }
        _ => None,
    };
    match (&then.target, &unit.target) {
        (Target::Container { uid, digest, .. }, Target::Container { uid: uid_now, digest: digest_now, .. }) => {
            differ("the pod's UID", uid.clone(), uid_now.clone())
                .or_else(|| differ("the image", digest.map(|d| d.to_string()), digest_now.map(|d| d.to_string())))
                .or_else(|| differ("the container", then.incarnation.clone(), unit.incarnation()))
        }
        (Target::Node { uid, .. }, Target::Node { uid: now, .. })
        | (Target::Cluster { uid, .. }, Target::Cluster { uid: now, .. }) => {
            differ("its UID", uid.clone(), now.clone())
        }
        (Target::Host { name }, Target::Host { name: now }) => {
            differ("the machine", Some(name.clone()), Some(now.clone()))
        }
        _ => None,
    }
}

/// Whether the target was found when it was recorded.
fn has_identity(target: &Target) -> bool {
    match target {
        Target::Container { uid, .. } | Target::Node { uid, .. } | Target::Cluster { uid, .. } => uid.is_some(),
        Target::Image { digest, .. } => digest.is_some(),
        Target::Host { .. } => true,
    }
}

#[cfg(test)]
mod tests;
