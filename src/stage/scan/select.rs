//! From what is asked for to the targets that are meant, each reachable or with the reason why not.

use super::unit::NotDone;
use crate::base::limits::Limits;
use crate::cluster::client::Cluster;
use crate::cluster::targets::{self, Selector};
use crate::model::reason::Reason;
use crate::model::target::{Target, TargetSpec};
use crate::stage::plan::Selection;

/// One target that is meant.
pub(crate) struct Selected {
    pub(crate) target: Target,
    /// Why it can't be reached, where that is known already.
    pub(crate) missed: Option<NotDone>,
}

impl Selected {
    fn found(target: Target) -> Self {
        Self { target, missed: None }
    }

    fn missed(target: Target, why: NotDone) -> Self {
        Self { target, missed: Some(why) }
    }
}

/// Whether a cluster is needed to find these targets.
pub(crate) fn needs_cluster(selection: &Selection) -> bool {
    let of_cluster = |spec: &TargetSpec| match spec {
        TargetSpec::Host | TargetSpec::Image(_) => false,
        TargetSpec::Cluster | TargetSpec::Node(_) | TargetSpec::Pod { .. } | TargetSpec::Namespace(_) => true,
    };
    selection.all || selection.selector.is_some() || selection.targets.iter().any(of_cluster)
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
    selected
}

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
    let selector = Selector { labels: selection.selector.clone(), namespace: None, all: selection.all };
    let failed = |error: crate::cluster::error::ClusterError| NotDone::because(error.reason(), &error);
    let found = targets::resolve(cluster, &specs, &selector, limits).await.map_err(failed)?;
    let images = match selection.all {
        true => Some(targets::running_images(cluster, limits).await.map_err(failed)?),
        false => None,
    };
    let nothing_matched = found.found.is_empty() && found.missed.is_empty();
    selected.extend(found.found.into_iter().map(Selected::found));
    selected
        .extend(found.missed.into_iter().map(|(t, reason, detail)| Selected::missed(t, NotDone::new(reason, detail))));
    if let Some(images) = images {
        for image in images.images {
            selected.push(Selected::found(Target::Image { reference: image.reference, digest: Some(image.digest) }));
        }
        for (used_by, id) in images.unnamed {
            let why = NotDone::new(
                Reason::TargetNotFound,
                format!("`{used_by}` runs image `{id}`, which no registry can be asked for"),
            );
            selected
                .push(Selected::missed(Target::Image { reference: format!("unnamed/{used_by}"), digest: None }, why));
        }
    }
    if nothing_matched && (selection.selector.is_some() || has_namespace(selection)) {
        let why = NotDone::new(Reason::TargetNotFound, "no pod matches");
        selected.extend(wildcards(selection).map(|target| Selected::missed(target, why.clone())));
    }
    Ok(())
}

fn has_namespace(selection: &Selection) -> bool {
    selection.targets.iter().any(|spec| matches!(spec, TargetSpec::Namespace(_)))
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
    let all = selection.all.then(|| [cluster(), unknown("*", "*", "*")]).into_iter().flatten();
    named.chain(all).chain(wildcards(selection)).map(|target| Selected::missed(target, why.clone())).collect()
}

/// The selectors, each as one target of unknown name.
fn wildcards(selection: &Selection) -> impl Iterator<Item = Target> + '_ {
    let namespaces = selection.targets.iter().filter_map(|spec| match spec {
        TargetSpec::Namespace(namespace) => Some(unknown(namespace, "*", "*")),
        _ => None,
    });
    let labels = selection.selector.iter().map(|labels| unknown("*", &format!("[{labels}]"), "*"));
    namespaces.chain(labels)
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
        assert!(needs_cluster(&Selection { selector: Some("app=web".to_owned()), ..selection(&[]) }));
    }

    #[test]
    fn what_a_silent_cluster_hides_is_named_and_not_lost() {
        let why = NotDone::new(Reason::ApiUnreachable, "no answer");
        let asked = Selection {
            all: true,
            selector: Some("app=web".to_owned()),
            ..selection(&["host", "cluster", "pod/shop/web", "ns/vault"])
        };
        let keys: Vec<String> = unreachable(&asked, &why).iter().map(|s| s.target.key()).collect();
        for key in ["cluster", "pod/shop/web/*", "pod/*/*/*", "pod/vault/*/*", "pod/*/[app=web]/*"] {
            assert!(keys.iter().any(|k| k == key), "{key}: {keys:?}");
        }
    }
}
