//! Reaching the objects of the cluster: exactly the resources that the rules ask for, read as an identity that may read
//! these and nothing else.

use std::collections::BTreeSet;

use super::unit::{Context, NotDone, Reached, Task, facts_evidence};
use crate::cluster::objects::{self, ResourceKey};
use crate::model::provenance::Approach;
use crate::model::reason::Reason;
use crate::model::target::Target;
use crate::native::facts::Missing;
use crate::native::facts::cluster::{ClusterFacts, Resource};
use crate::native::rules;

pub(crate) async fn reach(target: &Target, tasks: &[Task], context: &Context) -> Reached {
    let nothing = |why| Reached::nothing(target.clone(), Approach::Objects, why);
    let session = match &context.session {
        Some(Ok(session)) => session,
        Some(Err(why)) => return nothing(why.clone()),
        None => return nothing(NotDone::new(Reason::InternalError, "no cluster was connected for this")),
    };
    let resources: BTreeSet<Resource> =
        tasks.iter().filter_map(|t| t.rules.as_ref()).flat_map(|rules| rules.resources()).collect();
    let key =
        |r: &Resource| ResourceKey { group: r.group.clone(), version: r.version.clone(), resource: r.resource.clone() };
    let wanted: Vec<ResourceKey> = resources.iter().map(key).collect();
    let read = match objects::collect(&session.cluster, &session.home, &wanted, &context.limits).await {
        Ok(read) => read,
        Err(error) => return nothing(NotDone::because(error.reason(), &error)),
    };
    let mut facts = ClusterFacts::default();
    for (key, outcome) in read.by_resource {
        let resource = Resource::new(&key.group, &key.version, &key.resource);
        match outcome {
            Ok(list) => facts.add(&resource, list),
            Err((reason, detail)) => facts.miss(&resource, Missing { reason, detail }),
        }
    }
    let judge = || {
        let by_task = tasks.iter().map(|task| match &task.rules {
            Some(profile) => rules::judge_cluster(profile, &facts, &context.limits),
            None => Vec::new(),
        });
        by_task.collect()
    };
    // Rules may take seconds, during which other scans wait for their connections.
    let verdict = tokio::task::block_in_place(judge);
    Reached {
        identity: Some(read.identity),
        cleanup: Some(read.cleanup),
        evidence: vec![facts_evidence(&facts)],
        verdict: Ok(verdict),
        ..nothing(NotDone::new(Reason::InternalError, "not judged"))
    }
}
