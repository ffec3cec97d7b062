//! What is expected of a scan: every profile that fits a target's kind, for every target that is meant; and how each target
//! is to be reached.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use super::container::Ways;
use super::content::{Content, External};
use super::error::ScanError;
use super::external::{self, obstacle};
use super::select::Selected;
use super::session::Intent;
use super::unit::{NotDone, Task, Unit, Work};
use crate::cluster::access::auto::{ContainerFacts, choose};
use crate::model::access::Way;
use crate::model::reason::Reason;
use crate::model::scanner::BUILTIN;
use crate::model::target::{Target, TargetKind, TargetSpec};
use crate::stage::plan::{Policy, Selection};

/// Every engine and profile that is named must exist: one that does not would be a scan that silently did less.
pub(super) fn check_names(selection: &Selection, content: &Content) -> Result<(), ScanError> {
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

/// Each target that is named, with its kind.
fn named(selection: &Selection) -> Vec<(String, TargetKind)> {
    let of_spec = |spec: &TargetSpec| match spec {
        TargetSpec::Host => TargetKind::Host,
        TargetSpec::Cluster => TargetKind::Cluster,
        TargetSpec::Image(_) => TargetKind::Image,
        TargetSpec::Node(_) => TargetKind::Node,
        TargetSpec::Pod { .. } | TargetSpec::Namespace(_) => TargetKind::Container,
    };
    let selector = selection.selector.iter().map(|labels| (format!("-l {labels}"), TargetKind::Container));
    let nodes = selection.nodes.then(|| ("--nodes".to_owned(), TargetKind::Node));
    selection.targets.iter().map(|spec| (spec.to_string(), of_spec(spec))).chain(selector).chain(nodes).collect()
}

/// The kinds of targets that are meant.
fn kinds(selection: &Selection) -> BTreeSet<TargetKind> {
    let all = [TargetKind::Cluster, TargetKind::Container, TargetKind::Image];
    let all = all.into_iter().filter(|_| selection.all);
    named(selection).into_iter().map(|(_, kind)| kind).chain(all).collect()
}

/// The bundle's scanners that have a profile for these kinds of targets, where nobody said which engines are meant, in words: who
/// packed them may take the scan for theirs.
pub(super) fn unasked(selection: &Selection, content: &Content) -> Option<String> {
    if selection.engines != [BUILTIN] || !selection.profiles.is_empty() {
        return None;
    }
    let kinds = kinds(selection);
    let fits = |external: &&Arc<External>| external.document.targets.iter().any(|kind| kinds.contains(kind));
    let names: BTreeSet<&str> =
        content.external.iter().filter(fits).map(|external| external.scanner.name.as_str()).collect();
    let names: Vec<&str> = names.into_iter().collect();
    (!names.is_empty())
        .then(|| format!("the bundle has scanners for this that were not asked for (-e all): {}", names.join(", ")))
}

/// Every engine, profile and target that is named must have a part in the scan: one that fits nothing else would be passed
/// over in silence.
pub(super) fn check_parts(selection: &Selection, content: &Content) -> Result<(), ScanError> {
    let named = named(selection);
    let kinds = kinds(selection);
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
pub(super) fn wants_jobs(selection: &Selection, content: &Content) -> bool {
    content.external.iter().any(|e| wants(selection, &e.scanner.name, &e.profile.name))
}

pub(super) fn intent(units: &[Unit]) -> Option<Intent> {
    let mut intent = None;
    for unit in units {
        match &unit.work {
            Work::Container(ways) if ways.only_image() => {}
            Work::ExternalContainer(_, ways) if ways.choice.ways.is_empty() => {}
            Work::Container(_) | Work::Node(_) | Work::External(_) | Work::ExternalContainer(..) => {
                return Some(Intent::Run);
            }
            Work::Objects => intent = Some(Intent::ReadObjects),
            Work::Host | Work::Image | Work::Impossible(_) => {}
        }
    }
    intent
}

/// Every profile that fits a target's kind, for every target that is meant.
pub(super) fn plan_units(
    selected: Vec<Selected>,
    selection: &Selection,
    content: &Content,
    policy: &Policy,
) -> Result<Vec<Unit>, ScanError> {
    let mut units = Vec::new();
    for Selected { target, facts, node, workload, rank, missed } in selected {
        let kind = target.kind();
        let closed = || node.as_ref()?.obstacle(&policy.node.tolerate);
        let missed = missed.or_else(|| closed().map(|(reason, detail)| NotDone::new(reason, detail)));
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
            units.push(Unit { target: target.clone(), workload: workload.clone(), rank, work, tasks: builtin });
        }
        let external = content
            .external
            .iter()
            .filter(|e| e.document.targets.contains(&kind) && wants(selection, &e.scanner.name, &e.profile.name));
        for external in external {
            let task = Task { engine: external.scanner.name.clone(), profile: external.profile.clone(), rules: None };
            let work = match &missed {
                Some(why) => Work::Impossible(why.clone()),
                None => external_work(&target, facts.as_ref(), external, policy),
            };
            units.push(Unit { target: target.clone(), workload: workload.clone(), rank, work, tasks: vec![task] });
        }
    }
    if units.is_empty() {
        return Err(ScanError::Request("nothing is to be scanned: no profile fits what was asked for".to_owned()));
    }
    Ok(units)
}

fn external_work(target: &Target, facts: Option<&ContainerFacts>, external: &Arc<External>, policy: &Policy) -> Work {
    if let Some(why) = obstacle(external, target, policy) {
        return Work::Impossible(why);
    }
    match (target.kind(), facts) {
        (TargetKind::Container, Some(facts)) => {
            let ways = Box::new(external::offers(external, facts, policy));
            Work::ExternalContainer(Arc::clone(external), ways)
        }
        (TargetKind::Container, None) => {
            Work::Impossible(NotDone::new(Reason::TargetUnsupported, "nothing is known of the container"))
        }
        _ => Work::External(Arc::clone(external)),
    }
}

/// The ways to a container that the builtin engine knows.
const BUILTIN_WAYS: [Way; 4] = [Way::Exec, Way::Debug, Way::Sidecar, Way::Image];

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
        TargetKind::Node => match &content.own_image {
            Some(image) => Work::Node(image.clone()),
            None => unsupported("a Job on a node needs gapscan's image, and no bundle was given"),
        },
    }
}
