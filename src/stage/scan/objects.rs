//! Reaching the objects of the cluster: exactly the resources that the rules ask for, read as an identity that may read
//! these and nothing else.

use std::collections::BTreeSet;
use std::io::BufWriter;
use std::path::Path;

use super::unit::{Context, NotDone, Reached, Task};
use crate::base::spool::Spool;
use crate::cluster::objects::{self, ResourceKey};
use crate::model::evidence::Evidence;
use crate::model::provenance::Approach;
use crate::model::reason::Reason;
use crate::model::target::Target;
use crate::native::facts::Missing;
use crate::native::facts::cluster::{ClusterFacts, Object, Resource};
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
    let read = match objects::collect(&session.cluster, &session.home, &wanted, &context.limits, Object::lean).await {
        Ok(read) => read,
        Err(error) => return nothing(NotDone::because(error.reason(), &error)),
    };
    let mut facts = ClusterFacts::default();
    for (key, outcome) in read.by_resource {
        let resource = Resource::new(&key.group, &key.version, &key.resource);
        match outcome {
            Ok(list) => facts.add_objects(&resource, list),
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
    let reached = Reached {
        identity: Some(read.identity),
        cleanup: Some(read.cleanup),
        ..nothing(NotDone::new(Reason::InternalError, "not judged"))
    };
    // Rules may take seconds, during which other scans wait for their connections.
    match tokio::task::block_in_place(|| Ok((evidence(&facts, &context.spool)?, judge()))) {
        Ok((facts, verdict)) => Reached { evidence: vec![facts], verdict: Ok(verdict), ..reached },
        Err(error) => {
            let error: std::io::Error = error;
            let detail = format!("the cluster's facts could not be kept in {}: {error}", context.spool.display());
            Reached { verdict: Err(NotDone::new(Reason::InternalError, detail)), ..reached }
        }
    }
}

/// The facts as evidence: of a large cluster they have tens of megabytes, which are written to disk as they are put into words.
fn evidence(facts: &ClusterFacts, spool: &Path) -> std::io::Result<Evidence> {
    let mut out = BufWriter::new(Spool::new(spool));
    serde_json::to_writer(&mut out, facts)?;
    let spool = out.into_inner().map_err(std::io::IntoInnerError::into_error)?;
    Ok(Evidence::new("facts", "application/json", spool.finish()))
}
