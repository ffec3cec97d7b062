//! From what is asked for to the targets that are meant, each reachable or with the reason why not.

use super::budget::Rank;
use super::unit::NotDone;
use crate::base::limits::Limits;
use crate::cluster::access::auto::ContainerFacts;
use crate::cluster::access::node::NodeFacts;
use crate::cluster::client::Cluster;
use crate::cluster::error::ClusterError;
use crate::cluster::targets::{self, RunningImages, Selector};
use crate::model::reason::Reason;
use crate::model::target::{Target, TargetKind, TargetSpec};
use crate::stage::plan::Selection;

/// One target that is meant.
pub(crate) struct Selected {
    pub(crate) target: Target,
    /// Of a container that runs, what decides how it can be reached.
    pub(crate) facts: Option<ContainerFacts>,
    /// Of a node, what decides whether it can be reached.
    pub(crate) node: Option<NodeFacts>,
    /// Of a container that runs, what controls its pod.
    pub(crate) workload: Option<String>,
    /// Whether it was named.
    pub(crate) rank: Rank,
    /// Why it can't be reached, where that is known already.
    pub(crate) missed: Option<NotDone>,
}

impl Selected {
    fn found(target: Target) -> Self {
        Self { target, facts: None, node: None, workload: None, rank: Rank::Selected, missed: None }
    }

    fn missed(target: Target, why: NotDone) -> Self {
        Self { missed: Some(why), ..Self::found(target) }
    }
}

/// Whether a cluster is needed to find these targets.
pub(crate) fn needs_cluster(selection: &Selection) -> bool {
    let of_cluster = |spec: &TargetSpec| match spec {
        TargetSpec::Host | TargetSpec::Image(_) => false,
        TargetSpec::Cluster | TargetSpec::Node(_) | TargetSpec::Pod { .. } | TargetSpec::Namespace(_) => true,
    };
    selection.all || selection.nodes || selection.selector.is_some() || selection.targets.iter().any(of_cluster)
}

/// The targets that are meant. What can't be found out because the cluster does not answer stands for itself with `*` in the
/// place of what is not known, so that it is in the record as not evaluated.
pub(crate) async fn select(
    selection: &Selection,
    cluster: Option<&Result<Cluster, NotDone>>,
    limits: &Limits,
) -> Vec<Selected> {
    let mut selected = Vec::new();
    for spec in &selection.targets {
        match spec {
            TargetSpec::Host => selected.push(Selected::found(Target::Host { name: host_name() })),
            TargetSpec::Image(reference) => {
                selected.push(Selected::found(Target::Image { reference: reference.clone(), digest: None }));
            }
            TargetSpec::Cluster | TargetSpec::Node(_) | TargetSpec::Pod { .. } | TargetSpec::Namespace(_) => {}
        }
    }
    match cluster {
        None => {}
        Some(Err(why)) => selected.extend(unreachable(selection, why)),
        Some(Ok(cluster)) => {
            if let Err(why) = in_cluster(selection, cluster, limits, &mut selected).await {
                selected.extend(unreachable(selection, &why));
            }
        }
    }
    let mut seen = std::collections::HashSet::new();
    selected.retain(|s| seen.insert(s.target.key()));
    for one in &mut selected {
        one.rank = rank(&one.target, selection);
    }
    selected
}

/// Whether the target was named, or is one of many that a selector stands for.
fn rank(target: &Target, selection: &Selection) -> Rank {
    let is_it = |spec: &TargetSpec| match (spec, target) {
        (TargetSpec::Host, Target::Host { .. }) | (TargetSpec::Cluster, Target::Cluster { .. }) => true,
        (TargetSpec::Image(named), Target::Image { reference, .. }) => named == reference,
        (TargetSpec::Node(named), Target::Node { name, .. }) => named == name,
        (
            TargetSpec::Pod { namespace, pod, container },
            Target::Container { namespace: ns, pod: p, container: c, .. },
        ) => namespace == ns && pod == p && container.as_ref().is_none_or(|named| named == c),
        _ => false,
    };
    if selection.targets.iter().any(is_it) { Rank::Named } else { Rank::Selected }
}

/// Each part of what is asked for is looked up by itself: what one of them finds must not stand for another that finds
/// nothing.
async fn in_cluster(
    selection: &Selection,
    cluster: &Cluster,
    limits: &Limits,
    selected: &mut Vec<Selected>,
) -> Result<(), NotDone> {
    let mut specs = selection.targets.clone();
    if selection.all {
        specs.push(TargetSpec::Cluster);
    }
    let failed = |error: ClusterError| NotDone::because(error.reason(), &error);
    let absent = |what| NotDone::new(Reason::TargetNotFound, what);
    let before = selected.len();
    let found = targets::resolve(cluster, &specs, &Selector::default(), limits).await.map_err(failed)?;
    take(found, selected);
    let mut images = None;
    if selection.all {
        let (found, running) = targets::everything(cluster, limits).await.map_err(failed)?;
        take(found, selected);
        images = Some(running);
    }
    for spec in &selection.targets {
        let TargetSpec::Namespace(wanted) = spec else { continue };
        let is_in = |s: &Selected| matches!(&s.target, Target::Container { namespace, .. } if namespace == wanted);
        if !selected[before..].iter().any(is_in) {
            selected.push(Selected::missed(unknown(wanted, "*", "*"), absent("no pod runs in this namespace")));
        }
    }
    if selection.all && !selected[before..].iter().any(|s| s.target.kind() == TargetKind::Container) {
        selected.push(Selected::missed(unknown("*", "*", "*"), absent("no pod runs in the cluster")));
    }
    if selection.nodes {
        match targets::nodes(cluster, limits).await.map_err(failed) {
            Err(why) => selected.push(Selected::missed(unknown_node(), why)),
            Ok(found) if found.is_empty() => {
                selected.push(Selected::missed(unknown_node(), absent("the cluster has no node")));
            }
            Ok(found) => take(targets::Selection { found, missed: Vec::new() }, selected),
        }
    }
    if let Some(labels) = &selection.selector {
        let selector = Selector { labels: Some(labels.clone()), ..Selector::default() };
        match targets::resolve(cluster, &[], &selector, limits).await.map_err(failed) {
            Err(why) => selected.push(Selected::missed(labelled(labels), why)),
            Ok(found) if found.found.is_empty() && found.missed.is_empty() => {
                selected.push(Selected::missed(labelled(labels), absent("no pod that runs has these labels")));
            }
            Ok(found) => take(found, selected),
        }
    }
    match images {
        None => {}
        Some(images) if images.images.is_empty() && images.unnamed.is_empty() => {
            selected.push(Selected::missed(unknown_image(), absent("no container runs in the cluster")));
        }
        Some(images) => take_images(images, selected),
    }
    Ok(())
}

fn take(found: targets::Selection, selected: &mut Vec<Selected>) {
    let one = |f: targets::Found| Selected {
        facts: f.facts,
        node: f.node,
        workload: f.workload,
        ..Selected::found(f.target)
    };
    selected.extend(found.found.into_iter().map(one));
    selected
        .extend(found.missed.into_iter().map(|(t, reason, detail)| Selected::missed(t, NotDone::new(reason, detail))));
}

fn take_images(images: RunningImages, selected: &mut Vec<Selected>) {
    for image in images.images.into_values() {
        selected.push(Selected::found(Target::Image { reference: image.reference, digest: Some(image.digest) }));
    }
    for (used_by, id) in images.unnamed {
        let why = NotDone::new(
            Reason::TargetNotFound,
            format!("`{used_by}` runs image `{id}`, which no registry can be asked for"),
        );
        selected.push(Selected::missed(Target::Image { reference: format!("unnamed/{used_by}"), digest: None }, why));
    }
}

/// What was asked of a cluster that does not answer.
fn unreachable(selection: &Selection, why: &NotDone) -> Vec<Selected> {
    let cluster = || Target::Cluster { name: String::new(), uid: None };
    let named = selection.targets.iter().filter_map(|spec| match spec {
        TargetSpec::Host | TargetSpec::Image(_) | TargetSpec::Namespace(_) => None,
        TargetSpec::Cluster => Some(cluster()),
        TargetSpec::Node(name) => Some(Target::Node { name: name.clone(), uid: None }),
        TargetSpec::Pod { namespace, pod, container } => {
            Some(unknown(namespace, pod, container.as_deref().unwrap_or("*")))
        }
    });
    let all = selection.all.then(|| [cluster(), unknown("*", "*", "*"), unknown_image()]).into_iter().flatten();
    let nodes = selection.nodes.then(unknown_node);
    named
        .chain(all)
        .chain(nodes)
        .chain(wildcards(selection))
        .map(|target| Selected::missed(target, why.clone()))
        .collect()
}

/// The selectors, each as one target of unknown name.
fn wildcards(selection: &Selection) -> impl Iterator<Item = Target> + '_ {
    let namespaces = selection.targets.iter().filter_map(|spec| match spec {
        TargetSpec::Namespace(namespace) => Some(unknown(namespace, "*", "*")),
        TargetSpec::Host
        | TargetSpec::Cluster
        | TargetSpec::Image(_)
        | TargetSpec::Node(_)
        | TargetSpec::Pod { .. } => None,
    });
    namespaces.chain(selection.selector.iter().map(|labels| labelled(labels)))
}

/// The pods with these labels, whichever they are.
fn labelled(labels: &str) -> Target {
    unknown("*", &format!("[{labels}]"), "*")
}

/// The images that run, whichever they are.
fn unknown_image() -> Target {
    Target::Image { reference: "*".to_owned(), digest: None }
}

/// The nodes, whichever they are.
fn unknown_node() -> Target {
    Target::Node { name: "*".to_owned(), uid: None }
}

fn unknown(namespace: &str, pod: &str, container: &str) -> Target {
    Target::Container {
        namespace: namespace.to_owned(),
        pod: pod.to_owned(),
        container: container.to_owned(),
        uid: None,
        image: None,
        digest: None,
        node: None,
    }
}

fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::client::testing::Api;

    fn selection(targets: &[&str]) -> Selection {
        Selection { targets: targets.iter().map(|t| t.parse().expect(t)).collect(), ..Selection::default() }
    }

    #[test]
    fn only_targets_of_a_cluster_need_one() {
        assert!(!needs_cluster(&selection(&["host", "image/registry:5000/a:1"])));
        for spec in ["cluster", "node/a", "pod/a/b", "ns/a"] {
            assert!(needs_cluster(&selection(&["host", spec])), "{spec}");
        }
        assert!(needs_cluster(&Selection { all: true, ..selection(&[]) }));
        assert!(needs_cluster(&Selection { nodes: true, ..selection(&[]) }));
        assert!(needs_cluster(&Selection { selector: Some("app=web".to_owned()), ..selection(&[]) }));
    }

    #[test]
    fn what_a_silent_cluster_hides_is_named_and_not_lost() {
        let why = NotDone::new(Reason::ApiUnreachable, "no answer");
        let asked = Selection {
            all: true,
            nodes: true,
            selector: Some("app=web".to_owned()),
            ..selection(&["host", "cluster", "pod/shop/web", "ns/vault"])
        };
        let keys: Vec<String> = unreachable(&asked, &why).iter().map(|s| s.target.key()).collect();
        for key in ["cluster", "pod/shop/web/*", "pod/*/*/*", "image/*", "node/*", "pod/vault/*/*", "pod/*/[app=web]/*"]
        {
            assert!(keys.iter().any(|k| k == key), "{key}: {keys:?}");
        }
    }

    fn pod(namespace: &str, name: &str, state: serde_json::Value) -> serde_json::Value {
        let image = format!("registry.example/{name}@{}", crate::base::digest::Digest::of(name));
        serde_json::json!({
            "metadata": { "name": name, "namespace": namespace, "uid": name, "labels": { "app": name } },
            "spec": { "containers": [{ "name": "c", "image": "x" }] },
            "status": { "phase": "Running", "containerStatuses": [{
                "name": "c", "image": "x", "imageID": image, "ready": true, "restartCount": 0, "state": state,
            }] },
        })
    }

    async fn selected(api: &Api, selection: &Selection) -> Vec<(String, Option<Reason>)> {
        let cluster = Ok(api.cluster());
        let selected = select(selection, Some(&cluster), &Limits::default()).await;
        selected.into_iter().map(|s| (s.target.key(), s.missed.map(|why| why.reason))).collect()
    }

    #[tokio::test]
    async fn a_namespace_without_pods_is_not_covered_up_by_what_others_find() {
        let api = Api::default();
        let running = serde_json::json!({ "running": {} });
        api.put("/api/v1/namespaces/shop/pods/web", pod("shop", "web", running));
        let found = selected(&api, &selection(&["ns/shop", "ns/typo"])).await;
        assert_eq!(
            found,
            [("pod/shop/web/c".to_owned(), None), ("pod/typo/*/*".to_owned(), Some(Reason::TargetNotFound))]
        );
    }

    #[tokio::test]
    async fn nodes_are_scanned_only_when_they_are_asked_for() {
        let api = Api::default();
        let running = serde_json::json!({ "running": {} });
        api.put("/api/v1/namespaces/shop/pods/web", pod("shop", "web", running));
        for name in ["one", "two"] {
            api.put(&format!("/api/v1/nodes/{name}"), serde_json::json!({ "metadata": { "name": name, "uid": name } }));
        }
        let is_node = |found: &[(String, Option<Reason>)]| found.iter().filter(|(k, _)| k.starts_with("node/")).count();
        let asked = |nodes: bool| Selection { nodes, ..selection(&["ns/shop"]) };
        assert_eq!(is_node(&selected(&api, &asked(false)).await), 0);
        assert_eq!(is_node(&selected(&api, &asked(true)).await), 2);
        let named = Selection { nodes: true, ..selection(&["node/one", "node/three"]) };
        let found = selected(&api, &named).await;
        assert_eq!(found.len(), 3, "one is named and found, and counts once: {found:?}");
        assert!(found.contains(&("node/three".to_owned(), Some(Reason::TargetNotFound))));
        api.deny("/api/v1/nodes");
        let found = selected(&api, &asked(true)).await;
        assert!(found.contains(&("node/*".to_owned(), Some(Reason::AccessDenied))), "{found:?}");
    }

    #[tokio::test]
    async fn what_of_a_cluster_can_not_be_listed_is_named_beside_what_was_found() {
        let api = Api::default();
        api.deny("/api/v1/pods");
        let running = serde_json::json!({ "running": {} });
        api.put("/api/v1/namespaces/shop/pods/web", pod("shop", "web", running));
        let asked = Selection { selector: Some("app=web".to_owned()), ..selection(&["ns/shop"]) };
        let found = selected(&api, &asked).await;
        assert_eq!(
            found,
            [("pod/shop/web/c".to_owned(), None), ("pod/*/[app=web]/*".to_owned(), Some(Reason::AccessDenied))]
        );
    }
}
