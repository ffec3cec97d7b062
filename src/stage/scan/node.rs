//! Reaching a node: by a Job on it that collects its facts.

use std::time::Duration;

use super::network::{self, Allowance};
use super::session::Session;
use super::unit::{Context, NotDone, Reached, Task, facts_evidence, judge_system};
use crate::cluster::ScanNamespace;
use crate::cluster::access::node::{NodePlace, ROOT};
use crate::cluster::agent::parcel;
use crate::cluster::job::{self, AGENT, JobOutput, JobRequest, JobTarget, Program, Scanning, Unread};
use crate::model::evidence::Evidence;
use crate::model::provenance::{Approach, NetworkProof};
use crate::model::reason::Reason;
use crate::model::scanner::{ExitMeaning, MountApproach};
use crate::model::target::Target;
use crate::native::facts::SystemFacts;
use crate::stage::plan::Policy;

/// How long collecting may take: a node can have millions of files, and its disks be busy.
pub(super) const COLLECT: Duration = Duration::from_secs(600);

/// What collecting may use. The longest list of facts has some ten megabytes, the table of a busy node's connections more.
const MEMORY: &str = "512Mi";
pub(super) const CPU: &str = "500m";

/// What has to be said where a scanner judges a node, of which gapscan does not know what its rules ask for.
pub(super) const NETWORK_HIDDEN: &str = "the parameters of the node's network (/proc/sys/net) are hidden from the scanner, \
     because a pod would see its own there: rules on them find nothing";

/// How a node would be reached, in words.
pub(super) fn explain(what: &str, policy: &Policy) -> String {
    let tolerated: Vec<String> = policy.node.tolerate.iter().map(ToString::to_string).collect();
    let tolerated = match tolerated.is_empty() {
        true => "no taint is tolerated".to_owned(),
        false => format!("tolerated taints: {}", tolerated.join(", ")),
    };
    format!(
        "{what} in a Job on it, in a namespace of its own: root who may read and not write, the node's root mounted \
         read-only, no network ({tolerated})"
    )
}

/// Where Jobs on nodes are run, where they may be run.
pub(super) async fn home(session: &Session) -> Result<(&ScanNamespace, NetworkProof), NotDone> {
    let network = session.may_run()?;
    Ok((session.for_nodes().await?, network))
}

/// The place of a Job on this node.
pub(super) fn place(name: &str, policy: &Policy) -> JobTarget {
    JobTarget::Node(NodePlace { node: name.to_owned(), tolerated: policy.node.tolerate.clone() })
}

pub(crate) async fn reach(target: &Target, image: &str, tasks: &[Task], context: &Context) -> Reached {
    let nothing = NotDone::new(Reason::InternalError, "not collected");
    let mut reached = Reached::nothing(target.clone(), Approach::Node, nothing);
    match collect(&mut reached, image, context).await {
        Ok(facts) => {
            reached.evidence.push(facts_evidence(&facts));
            reached.verdict = Ok(judge_system(&facts, tasks, target, &context.limits));
        }
        Err(why) => reached.verdict = Err(why),
    }
    reached
}

async fn collect(reached: &mut Reached, image: &str, context: &Context) -> Result<SystemFacts, NotDone> {
    let Target::Node { name, .. } = &reached.target else {
        return Err(NotDone::new(Reason::TargetUnsupported, "only a node can be reached by a Job on it"));
    };
    let session = context.session()?;
    let (home, network) = home(session).await?;
    let command = [AGENT, "agent", "facts", "--root", ROOT].map(str::to_owned).into();
    let approach = MountApproach {
        mount: Some(ROOT.to_owned()),
        archive: None,
        command,
        env: Default::default(),
        capabilities: Vec::new(),
    };
    let cpu = context.cpu(CPU, Some(name));
    let program = Program {
        approach: (&approach).into(),
        result: "stdout",
        deadline: COLLECT,
        memory: MEMORY,
        cpu: cpu.into(),
        unread: Unread::Told,
        version: &[],
        leaves_out: &[],
        user: None,
        writable: &[],
    };
    let scanning = Scanning {
        run: session.home.run(),
        scan: session.next_scan(),
        program,
        scanner_image: image.to_owned(),
        agent_image: image.to_owned(),
        mounts: Vec::new(),
        parameters: Default::default(),
        egress: Vec::new(),
        inputs: None,
        pull: context.pulling.secret([image], &context.registries, &context.limits).await?,
        result_limit: context.limits.collector_bytes,
        spool: context.spool.clone(),
    };
    let target = place(name, &context.policy);
    let request = JobRequest { scanning, target, archive: None, uploads: context.uploads.clone() };
    reached.network = Some(network);
    let report = job::run_job(&session.cluster, home, &request).await;
    reached.identity = report.identity;
    reached.cleanup = Some(report.cleanup);
    reached.notes.extend(report.notes);
    let output = report.outcome.map_err(|error| NotDone::because(error.reason(), &error))?;
    reached.notes.extend(network::note(&output.sockets, Allowance::NOBODY));
    if !output.stderr_tail.is_empty() {
        reached.evidence.push(Evidence::new("stderr", "text/plain", output.stderr_tail.clone()));
    }
    read(output)
}

fn read(output: JobOutput) -> Result<SystemFacts, NotDone> {
    let codes = [(0, ExitMeaning::Complete)].into();
    let bytes = output.into_result(&codes).map_err(|error| NotDone::because(error.reason(), &error))?;
    let bytes = bytes.into_bytes().map_err(|error| NotDone::because(Reason::InternalError, &error))?;
    let facts = parcel::open(&bytes).map_err(|error| NotDone::because(error.reason(), &error))?;
    serde_json::from_slice(&facts).map_err(|error| NotDone::because(Reason::CollectorFailed, &error))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;
    use crate::base::spool::Spool;
    use crate::cluster::agent::protocol::{ExitStatus, Unreadable};
    use crate::cluster::agent::sockets::Sockets;
    use crate::cluster::job::TakenOut;

    fn output(code: u8, result: Vec<u8>) -> JobOutput {
        let mut spool = Spool::in_memory();
        spool.write_all(&result).expect("it is kept");
        JobOutput {
            exit: ExitStatus::Exited { code },
            result: Ok(spool.finish()),
            stdout_tail: Vec::new(),
            stderr_tail: Vec::new(),
            unreadable: Unreadable::default(),
            sockets: Sockets::default(),
            version: None,
            taken_out: TakenOut::default(),
        }
    }

    #[test]
    fn only_facts_that_arrive_whole_from_a_collector_that_succeeded_count() {
        let facts = SystemFacts {
            collector: 1,
            os: Some([("ID".to_owned(), "debian".to_owned())].into()),
            ..SystemFacts::default()
        };
        let mut sent = Vec::new();
        parcel::send(&serde_json::to_vec(&facts).expect("they are written"), &mut sent).expect("it is sent");
        assert_eq!(read(output(0, sent.clone())).expect("it is whole"), facts);
        let reason = |code, result: &[u8]| read(output(code, result.to_vec())).expect_err("it is not").reason;
        assert_eq!(reason(70, &sent), Reason::ScannerFailed);
        assert_eq!(reason(0, &sent[..sent.len() - 1]), Reason::OutputTruncated);
        let mut nonsense = Vec::new();
        parcel::send(b"[]", &mut nonsense).expect("it is sent");
        assert_eq!(reason(0, &nonsense), Reason::CollectorFailed);
    }
}
