//! By one exec of the collector in the container, as an identity that is made for this and removed again.

use std::time::Duration;

use crate::cluster::access::exec::{Caps, exec, exec_since};
use crate::cluster::identity::{Rights, ScanIdentity};
use crate::model::evidence::Evidence;
use crate::model::provenance::Approach;
use crate::model::reason::Reason;
use crate::model::target::Target;
use crate::native::facts;
use crate::native::facts::container::Nonce;
use crate::stage::scan::unit::{Context, NotDone, Reached, Task, facts_evidence, judge_system};

/// How long the collector may take. It reads files and walks one file system; a container that needs longer is stuck.
const COLLECT: Duration = Duration::from_secs(180);

/// Bytes of the collector's standard error that are kept: it says why a tool failed.
const STDERR: usize = 64 * 1024;

pub(crate) async fn reach(target: &Target, tasks: &[Task], context: &Context) -> Reached {
    let nothing = |why| Reached::nothing(target.clone(), Approach::Exec, why);
    let Target::Container { namespace, pod, .. } = target else {
        return nothing(NotDone::new(Reason::TargetUnsupported, "only a container can be reached by exec"));
    };
    let (session, network) = match super::session(context) {
        Ok(open) => open,
        Err(why) => return nothing(why),
    };
    let scan = session.next_scan();
    let mut identity = match ScanIdentity::create(&session.cluster, &session.home, scan, (namespace, pod), Rights::Exec)
        .await
    {
        Ok(identity) => identity,
        Err(error) => return Reached { network: Some(network), ..nothing(NotDone::because(error.reason(), &error)) },
    };
    let name = identity.username().to_owned();
    let collected = collect(&mut identity, target, context).await;
    let cleanup = identity.remove(&session.cluster, &session.home).await;
    let reached = Reached {
        identity: Some(name),
        network: Some(network),
        cleanup: Some(cleanup),
        ..nothing(NotDone::new(Reason::InternalError, "not collected"))
    };
    match collected {
        Ok((facts, stderr)) => {
            let verdict = Ok(judge_system(&facts, tasks, target, &context.limits));
            let mut evidence = vec![facts_evidence(&facts)];
            if !stderr.is_empty() {
                evidence.push(Evidence::new("stderr", "text/plain", stderr));
            }
            Reached { evidence, verdict, ..reached }
        }
        Err(why) => Reached { verdict: Err(why), ..reached },
    }
}

async fn collect(
    identity: &mut ScanIdentity,
    target: &Target,
    context: &Context,
) -> Result<(facts::SystemFacts, Vec<u8>), NotDone> {
    // The target's content was written before this was chosen, so that nothing in it can pretend to be the collector.
    let nonce = Nonce::random();
    let argv = facts::container::command(&nonce, &context.limits);
    let argv: Vec<&str> = argv.iter().map(String::as_str).collect();
    let caps = Caps { stdout: usize::try_from(context.limits.collector_bytes).unwrap_or(usize::MAX), stderr: STDERR };
    let output = match identity.first_look() {
        Some(seen) => exec_since(identity.cluster(), target, &seen, &argv, caps, COLLECT).await,
        None => exec(identity.cluster(), target, &argv, None, caps, COLLECT).await,
    };
    let output = output.map_err(|error| NotDone::because(error.reason(), &error))?;
    if let Some(code @ (126 | 127)) = output.code {
        return Err(NotDone::new(Reason::NoShell, format!("the shell could not be started (exit code {code})")));
    }
    // Whether the output is whole shows in the output itself: the parser misses its end marker where it was cut.
    Ok((facts::container::parse(&output.stdout, &nonce, &context.limits), output.stderr))
}
