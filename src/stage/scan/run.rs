//! From a request to a run: what there is, what is meant, what is expected of each; then the dispatcher.

use std::collections::{BTreeSet, HashSet};
use std::path::PathBuf;
use std::sync::Arc;

use jiff::Timestamp;

use super::container::Ways;
use super::content::Content;
use super::dispatch::{RunSummary, Stop, begin, close_interrupted, dispatch, runs_over, unless_stopped};
use super::error::ScanError;
use super::image::LayerCache;
use super::select::{Selected, needs_cluster, select};
use super::session::{self, ABANDONED, Intent, Session};
use super::unit::{Context, NotDone, Task, Unit, Work};
use crate::base::limits::Limits;
use crate::base::progress::Progress;
use crate::cluster::access::auto::{ContainerFacts, choose};
use crate::cluster::client::Cluster;
use crate::cluster::sweep;
use crate::ledger::Ledger;
use crate::model::access::Way;
use crate::model::provenance::Cleanup;
use crate::model::reason::Reason;
use crate::model::record::{Event, RunId, RunStart, Trigger};
use crate::model::scanner::BUILTIN;
use crate::model::target::{TargetKind, TargetSpec};
use crate::stage::plan::{Access, Policy, Selection};
use crate::stage::registries::Registries;
use crate::stage::seen;
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
    mut stop: Stop,
    progress: &Progress,
) -> Result<RunSummary, ScanError> {
    let started = Timestamp::now();
    for run in tokio::task::block_in_place(|| close_interrupted(ledger, started))? {
        progress.say(format!("run {run} had died; what it did not do is recorded as not evaluated"));
    }
    let ScanRequest { trigger, selection, access, policy, on_loss } = request;
    let limits = Limits::default();
    let registries = Registries::new(access.registries.clone(), limits.clone());
    let content = match &access.bundle {
        Some(source) => {
            let state = source.state.clone().unwrap_or_else(|| access.default_state());
            let remembered = tokio::task::block_in_place(|| seen::remembered(state, ledger.reader(), on_loss))?;
            let content = Content::of_bundle(source, &remembered, &registries, &limits, started).await;
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
            content?
        }
        None => Content::shipped(),
    };
    check_names(&selection, &content)?;
    check_parts(&selection, &content)?;

    let run = RunId::new();
    let cluster = match needs_cluster(&selection) || wants_jobs(&selection, &content) {
        true => Some(connect(&access, &limits).await),
        false => None,
    };
    let cluster = match cluster {
        Some(Ok(cluster)) => Some(of_this_ledger(cluster, ledger).await?),
        other => other,
    };
    let selected = select(&selection, cluster.as_ref(), &limits).await;
    let units = plan_units(selected, &selection, &content, &policy)?;
    let start = RunStart {
        run,
        trigger,
        started,
        requested: selection.words(),
        expected: units.iter().flat_map(Unit::expected).collect(),
    };

    begin(&start, &units, ledger)?;

    let session = match (&cluster, intent(&units)) {
        (Some(Ok(cluster)), Some(intent)) => {
            let over = tokio::task::block_in_place(|| runs_over(ledger))?;
            sweep_leftovers(cluster, &over, ledger, progress).await?;
            if intent == Intent::Run {
                progress.say("proving that network policies are enforced");
            }
            let image = content.own_image.as_deref();
            let opening = Session::open(cluster.clone(), run, intent, image, policy.unenforced_network);
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
    let context = Arc::new(Context {
        limits,
        policy,
        registries,
        layers: LayerCache::default(),
        bundle: content.bundle,
        session,
    });
    let summary = dispatch(run, units, Arc::clone(&context), ledger, stop, progress).await;
    // Whatever became of the run, what it made in the cluster goes.
    if let (Some(Ok(cluster)), Some(_)) = (&cluster, &context.session) {
        let session = Arc::into_inner(context).and_then(|c| c.session).and_then(Result::ok);
        let cleanup = session::close(session, cluster, run).await;
        record_cleanup(&cleanup, run, ledger, progress)?;
    }
    Ok(summary?)
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
const CLUSTER_EVENT: &str = "cluster-first-seen";

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

/// Every engine and profile that is named must exist: one that does not would be a scan that silently did less.
fn check_names(selection: &Selection, content: &Content) -> Result<(), ScanError> {
    let engines: HashSet<&str> =
        content.external.iter().map(|e| e.scanner.name.as_str()).chain([BUILTIN, "all"]).collect();
    let profiles: HashSet<&str> = content
        .external
        .iter()
        .map(|e| e.profile.name.as_str())
        .chain(content.builtin.iter().map(|p| p.profile().name.as_str()))
        .collect();
    let unknown = |what: &str, name: &str, known: &HashSet<&str>| {
        let mut known: Vec<&str> = known.iter().copied().collect();
        known.sort_unstable();
        let from = if content.bundle.is_some() { "" } else { " (no bundle was given)" };
        ScanError::Request(format!("there is no {what} `{name}`; there are {}{from}", known.join(", ")))
    };
    if let Some(name) = selection.engines.iter().find(|e| !engines.contains(e.as_str())) {
        return Err(unknown("engine", name, &engines));
    }
    match selection.profiles.iter().find(|p| !profiles.contains(p.as_str())) {
        Some(name) => Err(unknown("profile", name, &profiles)),
        None => Ok(()),
    }
}

/// Every engine, profile and target that is named must have a part in the scan: one that fits nothing else would be passed
/// over in silence.
fn check_parts(selection: &Selection, content: &Content) -> Result<(), ScanError> {
    let of_spec = |spec: &TargetSpec| match spec {
        TargetSpec::Host => TargetKind::Host,
        TargetSpec::Cluster => TargetKind::Cluster,
        TargetSpec::Image(_) => TargetKind::Image,
        TargetSpec::Node(_) => TargetKind::Node,
        TargetSpec::Pod { .. } | TargetSpec::Namespace(_) => TargetKind::Container,
    };
    let named: Vec<(String, TargetKind)> = selection
        .targets
        .iter()
        .map(|spec| (spec.to_string(), of_spec(spec)))
        .chain(selection.selector.iter().map(|labels| (format!("-l {labels}"), TargetKind::Container)))
        .collect();
    let mut kinds: BTreeSet<TargetKind> = named.iter().map(|(_, kind)| *kind).collect();
    if selection.all {
        kinds.extend([TargetKind::Cluster, TargetKind::Container, TargetKind::Image]);
    }
    let builtin = content.builtin.iter().map(|p| (BUILTIN, p.profile().name.as_str(), &p.document().targets));
    let external =
        content.external.iter().map(|e| (e.scanner.name.as_str(), e.profile.name.as_str(), &e.document.targets));
    let parts: Vec<_> = builtin
        .chain(external)
        .filter(|(engine, profile, targets)| {
            wants(selection, engine, profile) && targets.iter().any(|kind| kinds.contains(kind))
        })
        .collect();
    let chosen = match selection.profiles.is_empty() {
        true => selection.engines.join(", "),
        false => format!("{}: {}", selection.engines.join(", "), selection.profiles.join(", ")),
    };
    let refuse = |what: String| Err(ScanError::Request(format!("{what} has no part in this scan ({chosen})")));
    if let Some((target, _)) = named.iter().find(|(_, kind)| !parts.iter().any(|(_, _, of)| of.contains(kind))) {
        return refuse(format!("no profile of the chosen engines fits `{target}`, which"));
    }
    if let Some(engine) = selection.engines.iter().find(|e| *e != "all" && !parts.iter().any(|(of, _, _)| of == e)) {
        return refuse(format!("engine `{engine}` has no chosen profile that fits a target, and so it"));
    }
    match selection.profiles.iter().find(|p| !parts.iter().any(|(_, of, _)| of == p)) {
        Some(profile) => refuse(format!("profile `{profile}` is of no chosen engine or fits no target, and so it")),
        None => Ok(()),
    }
}

fn wants(selection: &Selection, engine: &str, profile: &str) -> bool {
    let engine = selection.engines.iter().any(|e| e == engine || e == "all");
    engine && (selection.profiles.is_empty() || selection.profiles.iter().any(|p| p == profile))
}

/// Whether a scanner's Job may have to run, which needs a cluster even for an image.
fn wants_jobs(selection: &Selection, content: &Content) -> bool {
    content.external.iter().any(|e| wants(selection, &e.scanner.name, &e.profile.name))
}

fn intent(units: &[Unit]) -> Option<Intent> {
    let mut intent = None;
    for unit in units {
        match &unit.work {
            Work::Container(ways) if ways.only_image() => {}
            Work::Container(_) | Work::External(_) => return Some(Intent::Run),
            Work::Objects => intent = Some(Intent::ReadObjects),
            Work::Host | Work::Image | Work::Impossible(_) => {}
        }
    }
    intent
}

/// Every profile that fits a target's kind, for every target that is meant.
fn plan_units(
    selected: Vec<Selected>,
    selection: &Selection,
    content: &Content,
    policy: &Policy,
) -> Result<Vec<Unit>, ScanError> {
    let mut units = Vec::new();
    for Selected { target, facts, missed } in selected {
        let kind = target.kind();
        let builtin: Vec<Task> = content
            .builtin
            .iter()
            .filter(|p| p.document().targets.contains(&kind) && wants(selection, BUILTIN, &p.profile().name))
            .map(|p| Task { engine: BUILTIN.to_owned(), profile: p.profile().clone(), rules: Some(Arc::clone(p)) })
            .collect();
        if !builtin.is_empty() {
            let work = match &missed {
                Some(why) => Work::Impossible(why.clone()),
                None => builtin_work(kind, facts.as_ref(), content, policy),
            };
            units.push(Unit { target: target.clone(), work, tasks: builtin });
        }
        let external = content
            .external
            .iter()
            .filter(|e| e.document.targets.contains(&kind) && wants(selection, &e.scanner.name, &e.profile.name));
        for external in external {
            let task = Task { engine: external.scanner.name.clone(), profile: external.profile.clone(), rules: None };
            let work = match &missed {
                Some(why) => Work::Impossible(why.clone()),
                None => Work::External(Arc::clone(external)),
            };
            units.push(Unit { target: target.clone(), work, tasks: vec![task] });
        }
    }
    if units.is_empty() {
        return Err(ScanError::Request("nothing is to be scanned: no profile fits what was asked for".to_owned()));
    }
    Ok(units)
}

/// The ways to a container that the builtin engine knows.
const BUILTIN_WAYS: [Way; 3] = [Way::Exec, Way::Debug, Way::Image];

fn builtin_work(kind: TargetKind, facts: Option<&ContainerFacts>, content: &Content, policy: &Policy) -> Work {
    let unsupported = |why: &str| Work::Impossible(NotDone::new(Reason::TargetUnsupported, why));
    match kind {
        TargetKind::Host => Work::Host,
        TargetKind::Image => Work::Image,
        TargetKind::Cluster => Work::Objects,
        TargetKind::Container => match facts {
            Some(facts) => {
                let choice = choose(facts, &BUILTIN_WAYS, &policy.approaches);
                Work::Container(Box::new(Ways { facts: facts.clone(), choice, own_image: content.own_image.clone() }))
            }
            None => unsupported("nothing is known of the container"),
        },
        TargetKind::Node => unsupported("the builtin engine does not reach nodes yet; run `scan host` on the node"),
    }
}

#[cfg(test)]
mod tests;
