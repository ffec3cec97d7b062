//! From a request to a run: what there is, what is meant, what is expected of each; then the dispatcher.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use jiff::Timestamp;

use super::account::{close_interrupted, runs_over};
use super::budget::CpuBudget;
use super::content::Content;
use super::dispatch::{RunSummary, Stop, begin, dispatch, in_blackout, unless_stopped};
use super::egress;
use super::error::ScanError;
use super::expected::{check_names, check_parts, intent, plan_units, unasked, wants_jobs};
use super::image::LayerCache;
use super::known::Known;
use super::pull::Pulling;
use super::select::{needs_cluster, select};
use super::session::{self, ABANDONED, Intent, Session};
use super::unit::{Context, NotDone, Unit};
use crate::base::limits::Limits;
use crate::base::progress::Progress;
use crate::cluster::agent::upload::Uploads;
use crate::cluster::capacity::capacities;
use crate::cluster::client::Cluster;
use crate::cluster::sweep;
use crate::ledger::Ledger;
use crate::model::provenance::Cleanup;
use crate::model::record::{Event, RunId, RunStart, TaskRecord, Trigger};
use crate::model::scanner::ScannerDocument;
use crate::stage::plan::{Access, Policy, Selection};
use crate::stage::registries::Registries;
use crate::stage::seen;
use crate::stage::waivers::Waiving;
use crate::trust::remembered::OnLoss;

/// One scan, asked for by a person or a schedule.
#[derive(Clone, Debug)]
pub struct ScanRequest {
    /// What set it off.
    pub trigger: Trigger,
    /// What is scanned, and with what.
    pub selection: Selection,
    /// How everything is reached.
    pub access: Access,
    /// What is allowed.
    pub policy: Policy,
    /// What happens where the state knows less than the ledger.
    pub on_loss: OnLoss,
}

impl Access {
    /// Where versions of bundles are remembered unless said otherwise: beside the ledger.
    pub fn default_state(&self) -> PathBuf {
        let folder = self.ledger.parent().unwrap_or(std::path::Path::new("."));
        folder.join("gapscan-state")
    }
}

/// Runs one scan. Once it has begun, whatever goes wrong with a target is a record and not an error.
///
/// # Errors
/// When the request makes no sense, the bundle does not verify, or the ledger can't be written.
///
/// # Cancel safety
/// Dropped half-way, the run stays unfinished in the ledger and is accounted for by the next one; objects in the cluster are
/// removed by the next run's sweep. Use `stop` to end a run in order.
pub async fn scan(
    request: ScanRequest,
    ledger: &mut Ledger,
    stop: Stop,
    progress: &Progress,
) -> Result<RunSummary, ScanError> {
    Box::pin(scan_by(None, request, ledger, stop, progress)).await
}

/// The same with this definition in the place of the bundle's, for whoever tries one: what it leaves in the ledger is of a definition
/// that nobody signed.
///
/// # Errors
/// As [`scan`].
pub(crate) async fn scan_by(
    scanner: Option<&ScannerDocument>,
    request: ScanRequest,
    ledger: &mut Ledger,
    stop: Stop,
    progress: &Progress,
) -> Result<RunSummary, ScanError> {
    let started = Timestamp::now();
    for run in tokio::task::block_in_place(|| close_interrupted(ledger, started))? {
        progress.say(format!("run {run} had died; what it did not do is recorded as not evaluated"));
    }
    let trigger = request.trigger.clone();
    let pulling = Pulling::new(request.access.cluster.pull_config_file.as_deref(), &Limits::default())?;
    let prepared = prepare(scanner, request, ledger, started).await?;
    if trigger == Trigger::Manual && scanner.is_none() {
        unasked(&prepared.selection, &prepared.content).into_iter().for_each(|said| progress.say(said));
    }
    let scanners = prepared.content.external.iter().map(|external| &external.scanner);
    egress::idle(scanners, &prepared.policy).into_iter().for_each(|said| progress.say(said));
    let start = RunStart {
        run: prepared.run,
        trigger,
        started,
        requested: prepared.selection.words(),
        classification: prepared.content.classification.clone(),
        bundle: prepared.content.bundle.clone(),
        expected: prepared.units.iter().flat_map(Unit::expected).collect(),
    };

    // Before the run begins: where nobody can listen, nothing of it could come in.
    let uploads = uploads(&prepared).await?;
    begin(&start, &prepared.units, ledger)?;
    Box::pin(carry_out(prepared, Vec::new(), pulling, uploads, ledger, stop, progress)).await
}

/// Where results of this run come in, if they are not fetched.
///
/// # Errors
/// When nobody can listen there.
pub(super) async fn uploads(prepared: &Prepared) -> Result<Option<Uploads>, ScanError> {
    match intent(&prepared.units) {
        Some(Intent::Run) => super::upload::open(&prepared.policy.results).await,
        Some(Intent::ReadObjects) | None => Ok(None),
    }
}

/// Does what a run that was begun is to do, besides what it has results of already.
///
/// # Errors
/// When the ledger can't be written.
pub(super) async fn carry_out(
    prepared: Prepared,
    earlier: Vec<TaskRecord>,
    pulling: Pulling,
    uploads: Option<Uploads>,
    ledger: &mut Ledger,
    mut stop: Stop,
    progress: &Progress,
) -> Result<RunSummary, ScanError> {
    let Prepared { run, units, selection: _, policy, limits, registries, content, cluster } = prepared;
    let resumed = tokio::task::block_in_place(|| ledger.reader().run(run))?.is_some_and(|run| !run.resumed.is_empty());
    let opened = || Waiving::open(&policy.waivers, &limits, run, ledger, Timestamp::now());
    let (mut waiving, said) = tokio::task::block_in_place(opened)?;
    said.into_iter().for_each(|words| progress.say(words));
    let mut over = tokio::task::block_in_place(|| runs_over(ledger))?;
    if resumed {
        over.insert(run);
    }
    if let (Some(Ok(cluster)), true) = (&cluster, resumed || intent(&units).is_some()) {
        sweep_leftovers(cluster, &over, ledger, progress).await?;
    }
    let blackout = in_blackout(&policy);
    let session = match (&cluster, intent(&units)) {
        // Nothing of it will be started, and so nothing is set up for it.
        (Some(_), Some(_)) if blackout.is_some() => blackout.map(Err),
        (Some(Ok(cluster)), Some(intent)) => {
            if intent == Intent::Run {
                progress.say("proving that network policies are enforced");
            }
            let opening = async {
                let image = match content.own_image.as_deref() {
                    Some(image) if intent == Intent::Run => {
                        let pull = pulling.secret([image], &registries, &limits).await;
                        Some(pull.map(|pull| (image.to_owned(), pull)))
                    }
                    _ => None,
                };
                if let Some(Ok((image, None))) = &image
                    && let Some(hint) = Pulling::hint(image, &registries)
                {
                    progress.say(hint);
                }
                Session::open(cluster.clone(), run, intent, image, &policy).await
            };
            Some(unless_stopped(&mut stop, opening).await)
        }
        (Some(Err(why)), Some(_)) => Some(Err(why.clone())),
        _ => None,
    };
    if let Some(Ok(session)) = &session
        && intent(&units) == Some(Intent::Run)
        && let Some(detail) = session.unproven()
    {
        progress.say(format!("network policies are not proven to be enforced: {detail}"));
        let event = Event {
            at: Timestamp::now(),
            what: "policy-not-enforced".to_owned(),
            subject: run.to_string(),
            due: None,
            detail,
        };
        tokio::task::block_in_place(|| ledger.event(&event))?;
    }
    let cpu = match (&session, &cluster) {
        (Some(Ok(_)), Some(Ok(cluster))) if units.iter().any(|unit| unit.cpu_millis(&CpuBudget::Unknown) > 0) => {
            cpu_budget(cluster, run, policy.cpu_percent, &limits, ledger, progress).await?
        }
        _ => CpuBudget::Unknown,
    };
    let context = Arc::new(Context {
        cpu,
        limits,
        policy,
        registries,
        pulling,
        layers: LayerCache::default(),
        known: Known::of(ledger.reader()),
        spool: ledger.reader().folder().to_owned(),
        uploads: uploads.clone(),
        bundle: content.bundle,
        session,
    });
    let summary =
        dispatch(run, units, earlier, Arc::clone(&context), (&mut *ledger, &mut waiving), stop, progress).await;
    if let Some(Ok(session)) = &context.session {
        for event in session.take_events() {
            tokio::task::block_in_place(|| ledger.event(&event))?;
        }
    }
    // Whatever became of the run, what it made in the cluster goes.
    if let (Some(Ok(cluster)), Some(_)) = (&cluster, &context.session) {
        let session = Arc::into_inner(context).and_then(|c| c.session).and_then(Result::ok);
        let cleanup = session::close(session, cluster, run).await;
        record_cleanup(&cleanup, run, ledger, progress)?;
    }
    super::upload::close(uploads, run, ledger).await?;
    let summary = summary?;
    let said = tokio::task::block_in_place(|| waiving.conclude(run, ledger, Timestamp::now()))?;
    said.into_iter().for_each(|words| progress.say(words));
    Ok(summary)
}

/// What a scan would do with one target.
#[derive(Clone, Debug, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Explanation {
    /// The target's key.
    pub target: String,
    /// The engine.
    pub engine: String,
    /// The profiles.
    pub profiles: Vec<String>,
    /// The ways to it, in the order in which they would be tried, each with what it means. For a target that can be reached
    /// in one way only, that one.
    pub ways: Vec<(String, String)>,
    /// The ways that would not be taken, each with the reason; of a target that can't be reached, why.
    pub refused: Vec<(String, String)>,
}

/// Says how each target would be reached, and why so. Nothing is scanned, and nothing is made in the cluster.
///
/// # Errors
/// As [`scan`] before its run begins.
pub async fn explain(request: ScanRequest, ledger: &mut Ledger) -> Result<Vec<Explanation>, ScanError> {
    let prepared = prepare(None, request, ledger, Timestamp::now()).await?;
    Ok(prepared.units.iter().map(|unit| unit.explain(&prepared.policy)).collect())
}

/// All that is known before a run begins.
pub(super) struct Prepared {
    pub(super) run: RunId,
    pub(super) units: Vec<Unit>,
    pub(super) selection: Selection,
    pub(super) policy: Policy,
    pub(super) limits: Limits,
    pub(super) registries: Registries,
    pub(super) content: Content,
    pub(super) cluster: Option<Result<Cluster, NotDone>>,
}

/// Finds out what there is to scan with, what is meant, and how each target would be reached. Nothing is made anywhere.
async fn prepare(
    scanner: Option<&ScannerDocument>,
    request: ScanRequest,
    ledger: &mut Ledger,
    started: Timestamp,
) -> Result<Prepared, ScanError> {
    let ScanRequest { trigger: _, selection, access, policy, on_loss } = request;
    let limits = Limits::default();
    let registries = Registries::new(access.registries.clone(), limits.clone());
    let content = content_for(scanner, &access, on_loss, &registries, &limits, ledger, started).await?;
    check_names(&selection, &content)?;
    check_parts(&selection, &content)?;

    let run = RunId::new();
    let clustered = needs_cluster(&selection) || wants_jobs(&selection, &content);
    let cluster = cluster_for(clustered, &access, &limits, ledger).await?;
    let selected = select(&selection, cluster.as_ref(), &limits).await;
    let units = plan_units(selected, &selection, &content, &policy)?;
    Ok(Prepared { run, units, selection, policy, limits, registries, content, cluster })
}

/// The engines and profiles, with `scanner` in the place of the definition of its name; a bundle that is refused is recorded as
/// such.
pub(crate) async fn content_for(
    scanner: Option<&ScannerDocument>,
    access: &Access,
    on_loss: OnLoss,
    registries: &Registries,
    limits: &Limits,
    ledger: &mut Ledger,
    started: Timestamp,
) -> Result<Content, ScanError> {
    match &access.bundle {
        Some(source) => {
            let state = source.state.clone().unwrap_or_else(|| access.default_state());
            let remembered = tokio::task::block_in_place(|| seen::remembered(state, ledger.reader(), on_loss))?;
            let content = Content::of_bundle_but(scanner, source, &remembered, registries, limits, started).await;
            if let Err(error) = &content {
                let event = Event {
                    at: started,
                    what: "bundle-refused".to_owned(),
                    subject: source.name.clone(),
                    due: None,
                    detail: error.chain(),
                };
                tokio::task::block_in_place(|| ledger.event(&event))?;
            }
            content?.with_inputs(&access.inputs)
        }
        None => Content::shipped().with_inputs(&access.inputs),
    }
}

/// The cluster that this ledger is of, where one is needed; or why it can't be used.
pub(super) async fn cluster_for(
    needed: bool,
    access: &Access,
    limits: &Limits,
    ledger: &mut Ledger,
) -> Result<Option<Result<Cluster, NotDone>>, ScanError> {
    if !needed {
        return Ok(None);
    }
    match connect(access, limits).await {
        Ok(cluster) => of_this_ledger(cluster, ledger).await.map(Some),
        Err(why) => Ok(Some(Err(why))),
    }
}

/// How much CPU the pods of this run may ask for; what can't be known is recorded.
async fn cpu_budget(
    cluster: &Cluster,
    run: RunId,
    percent: u8,
    limits: &Limits,
    ledger: &mut Ledger,
    progress: &Progress,
) -> Result<CpuBudget, ScanError> {
    let why = match capacities(cluster, limits).await {
        Ok(capacities) => match CpuBudget::of(&capacities, percent) {
            CpuBudget::Unknown => "no schedulable node says how much it has".to_owned(),
            known @ CpuBudget::Known { .. } => return Ok(known),
        },
        Err(error) => super::error::chain(&error),
    };
    let detail = format!("how much CPU the nodes have is not known, so that one pod runs at a time: {why}");
    progress.say(&detail);
    let (at, what, subject) = (Timestamp::now(), "cpu-unknown".to_owned(), run.to_string());
    tokio::task::block_in_place(|| ledger.event(&Event { at, what, subject, due: None, detail }))?;
    Ok(CpuBudget::Unknown)
}

fn record_cleanup(cleanup: &Cleanup, run: RunId, ledger: &mut Ledger, progress: &Progress) -> Result<(), ScanError> {
    let (what, detail) = if cleanup.remaining.is_empty() {
        ("cleanup-verified", format!("{} objects were made for the run and are seen to be gone", cleanup.created.len()))
    } else {
        ("cleanup-incomplete", format!("these could not be seen to be gone: {}", cleanup.remaining.join(", ")))
    };
    if !cleanup.remaining.is_empty() {
        progress.say(&detail);
    }
    let event = Event { at: Timestamp::now(), what: what.to_owned(), subject: run.to_string(), due: None, detail };
    tokio::task::block_in_place(|| ledger.event(&event))?;
    Ok(())
}

/// The event by which a ledger remembers its cluster: the subject is the cluster's UID.
pub(crate) const CLUSTER_EVENT: &str = "cluster-first-seen";

/// Binds the ledger to the cluster. Targets are named within one cluster (`pod/NS/NAME`), so that in a ledger of two
/// clusters the results of one would pass for those of the other.
async fn of_this_ledger(cluster: Cluster, ledger: &mut Ledger) -> Result<Result<Cluster, NotDone>, ScanError> {
    let identity = match cluster.identity().await {
        Ok(identity) => identity,
        Err(error) => return Ok(Err(NotDone::because(error.reason(), &error))),
    };
    let events = tokio::task::block_in_place(|| ledger.reader().events())?;
    match events.iter().find(|event| event.what == CLUSTER_EVENT) {
        Some(first) if first.subject == identity.uid => Ok(Ok(cluster)),
        Some(first) => Err(ScanError::Request(format!(
            "cluster `{}` (UID {}) into ledger `{}`, which is of another cluster (UID {}, {}); each cluster has a ledger of \
             its own",
            identity.name,
            identity.uid,
            ledger.reader().path().display(),
            first.subject,
            first.detail
        ))),
        None => {
            let event = Event {
                at: Timestamp::now(),
                what: CLUSTER_EVENT.to_owned(),
                subject: identity.uid,
                due: None,
                detail: format!("context `{}`, Kubernetes {}", identity.name, identity.version),
            };
            tokio::task::block_in_place(|| ledger.event(&event))?;
            Ok(Ok(cluster))
        }
    }
}

async fn connect(access: &Access, limits: &Limits) -> Result<Cluster, NotDone> {
    Cluster::connect(access.cluster.kubeconfig.as_deref(), access.cluster.context.as_deref(), limits)
        .await
        .map_err(|error| NotDone::because(error.reason(), &error))
}

/// Removes what runs that are over left in the cluster; a failure to do so is recorded and keeps nothing from being scanned.
async fn sweep_leftovers(
    cluster: &Cluster,
    over: &BTreeSet<RunId>,
    ledger: &mut Ledger,
    progress: &Progress,
) -> Result<(), ScanError> {
    let (what, detail) = match sweep::sweep(cluster, over, ABANDONED, Timestamp::now()).await {
        Ok(swept) if swept.removed.is_empty() && swept.remaining.is_empty() => return Ok(()),
        Ok(swept) if swept.remaining.is_empty() => {
            ("leftovers-removed", format!("left by runs that are over: {}", swept.removed.join(", ")))
        }
        Ok(swept) => ("leftovers-remain", format!("could not be removed: {}", swept.remaining.join(", "))),
        Err(error) => ("leftovers-unknown", super::error::chain(&error)),
    };
    progress.say(&detail);
    let event =
        Event { at: Timestamp::now(), what: what.to_owned(), subject: cluster.context().to_owned(), due: None, detail };
    tokio::task::block_in_place(|| ledger.event(&event))?;
    Ok(())
}

#[cfg(test)]
mod tests;
