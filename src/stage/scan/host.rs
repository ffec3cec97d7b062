//! Reaching this machine.

use std::path::Path;

use super::unit::{Context, NotDone, Reached, Task, facts_evidence, judge_system};
use crate::model::provenance::Approach;
use crate::model::reason::Reason;
use crate::model::target::Target;
use crate::native::facts;

pub(crate) async fn reach(target: &Target, tasks: &[Task], context: &Context) -> Reached {
    let limits = context.limits.clone();
    // Collecting walks the file systems: it belongs on a thread that may block.
    let facts = tokio::task::spawn_blocking(move || facts::host::collect(Path::new("/"), &limits)).await;
    let facts = match facts {
        Ok(facts) => facts,
        Err(error) => {
            let why = NotDone::because(Reason::InternalError, &error);
            return Reached::nothing(target.clone(), Approach::Local, why);
        }
    };
    let user = rustix::process::geteuid();
    let mut notes = Vec::new();
    if !user.is_root() {
        notes.push(format!("collected as user {}, who may not see everything", user.as_raw()));
    }
    Reached {
        identity: Some(format!("local user {}", user.as_raw())),
        evidence: vec![facts_evidence(&facts)],
        notes,
        verdict: Ok(judge_system(&facts, tasks, target, &context.limits)),
        ..Reached::nothing(target.clone(), Approach::Local, NotDone::new(Reason::InternalError, "not collected"))
    }
}
