//! A scanner beside a container: an ephemeral container of the scanner's own image, with its target's user, group and processes.
//!
//! Kubernetes gives an ephemeral container no volume and no init container, so gapscan's agent comes to it by another way. A first
//! ephemeral container, of gapscan's image, holds itself open. All three share the target's process namespace and user, so that
//! the agent's binary can be started in the scanner's container through `/proc/PID/root` of the holder. There it does what it
//! does in a Job: it runs the scanner, keeps its result below `/tmp` and hands it over by exec, with length and digest. Then
//! both are ended.
//!
//! What could go wrong, and where it is seen:
//! * what can go wrong in [`super::debug`], in the same way;
//! * the runtime, a security module or the scanner's image does not let the agent start there, or the user can't write to
//!   `/tmp`: the container's end says so, and the scan ends as not started;
//! * the scanner uses too much: an ephemeral container has no limits of its own, so that its pod's hold, and its target may be
//!   what is killed: the target's incarnation is compared before and after.

use std::time::Duration;

use serde_json::{Value, json};

use super::auto::ContainerFacts;
use super::ephemeral::{END, Entries, Ephemeral, EphemeralReport, Root, START};
use super::exec::{Caps, exec_at};
use crate::cluster::agent::unreadable::LOOK;
use crate::cluster::canary::BINARY;
use crate::cluster::client::Cluster;
use crate::cluster::error::ClusterError;
use crate::cluster::job::{self, Again, Fetching, JobOutput, Run, Scanning};
use crate::model::target::Target;

/// The root of the target's files: process 1 is its own.
const ROOT: &str = "/proc/1/root";
/// Where the scanner leaves its result.
const RESULTS: &str = "/tmp/gapscan-results";

/// How long the scanner's container is held after its end. The result is fetched at once.
const HOLD: Duration = Duration::from_secs(60);
/// How long the look for the holder's process may take.
const LOCATE: Duration = Duration::from_secs(30);

/// How long the identity of such a scan is needed.
pub fn patience(deadline: Duration) -> Duration {
    START * 2 + LOCATE + deadline + LOOK + HOLD + END * 2
}

/// Adds both ephemeral containers, fetches what the scanner left, and sees them end. `identity` is the connection of an
/// identity with [`Rights::Debug`](crate::cluster::identity::Rights); the target's user must be known of `facts`. Nothing is
/// pulled with a secret and nothing mounted: an ephemeral container can have neither.
///
/// # Cancel safety
/// Dropped half-way, both ephemeral containers end by their own deadlines.
pub async fn scan(
    identity: &Cluster,
    (target, facts): (&Target, &ContainerFacts),
    scanning: &Scanning<'_>,
) -> EphemeralReport<JobOutput> {
    let mut beside = match Ephemeral::open(identity, (target, facts), (scanning.run, scanning.scan)).await {
        Ok(beside) => beside,
        Err(error) => return EphemeralReport { outcome: Err(error), entries: Entries::default() },
    };
    let outcome = attempt(&mut beside, scanning).await;
    EphemeralReport { outcome, entries: beside.close().await }
}

async fn attempt(beside: &mut Ephemeral<'_>, scanning: &Scanning<'_>) -> Result<JobOutput, ClusterError> {
    let holder = beside.hold(&scanning.agent_image, patience(scanning.program.deadline)).await?;
    let outcome = beside_holder(beside, scanning, &holder).await;
    // The scanner's container is ended when its result is taken. Whatever became of it, what holds must not stay.
    let release = [BINARY, "agent", "locate", "--word", &beside.word, "--release"];
    let caps = Caps { stdout: 4096, stderr: 4096 };
    if let Err(error) = exec_at(beside.identity, &beside.place(&holder), &release, None, caps, LOCATE).await {
        // The holder ends by this very command, and its end may be all that comes back.
        tracing::debug!(error = %error, "the holder was told to end");
    }
    beside.unchanged().await?;
    outcome
}

/// Starts the scanner through the holder, and fetches what it leaves.
async fn beside_holder(
    beside: &mut Ephemeral<'_>,
    scanning: &Scanning<'_>,
    holder: &str,
) -> Result<JobOutput, ClusterError> {
    let agent = format!("/proc/{}/root{BINARY}", locate(beside, holder).await?);
    let name = beside.start("-scanner", container(scanning, &agent)?, Root::Writable).await?;
    let fetching = Fetching {
        place: beside.place(&name),
        argv: scanning.collecting(run(&agent), &["--release", &beside.word]),
        patience: scanning.program.deadline + LOOK + HOLD,
    };
    job::fetch(beside.identity.clone(), scanning, &fetching, &mut Held(beside, &name)).await
}

/// The scanner's container while it is held.
struct Held<'b, 't>(&'b Ephemeral<'t>, &'b str);

impl Again for Held<'_, '_> {
    async fn again(&mut self, _: &ClusterError) -> Result<Cluster, ClusterError> {
        self.0.started(self.1).await?;
        Ok(self.0.identity.clone())
    }
}

/// The number of the holder's process, in the namespace of processes that all share.
async fn locate(beside: &Ephemeral<'_>, holder: &str) -> Result<u32, ClusterError> {
    let caps = Caps { stdout: 4096, stderr: 4096 };
    let argv = [BINARY, "agent", "locate", "--word", &beside.word];
    let output = exec_at(beside.identity, &beside.place(holder), &argv, None, caps, LOCATE).await?;
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines().next().and_then(|line| line.trim().parse().ok()).ok_or_else(|| {
        let message = "the process that holds gapscan's agent can't be found among the target's".to_owned();
        ClusterError::NotStarted { message }
    })
}

fn run(agent: &str) -> Run<'_> {
    Run { agent, results: RESULTS, hold: HOLD, root: Some(ROOT) }
}

/// The scanner's ephemeral container.
pub(crate) fn container(scanning: &Scanning<'_>, agent: &str) -> Result<Value, ClusterError> {
    let word = scanning.word();
    let told = ["--shared-network", "--word", &word, "--target-mount", ROOT];
    let (command, env) = scanning.command(run(agent), &told)?;
    Ok(json!({ "image": scanning.scanner_image, "command": command, "env": env }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::document;
    use crate::cluster::job::Program;
    use crate::model::record::RunId;
    use crate::model::scanner::ScannerDocument;

    const SCANNER: &str = "
apiVersion: gapscan/v1
kind: Scanner
name: openscap
title: OpenSCAP
image: openscap
approaches:
  debug:
    command: [oscap, '${target.results}/arf.xml', '${content}']
    env: { OSCAP_PROBE_ROOT: '${target.root}' }
result: { path: arf.xml, format: arf }
exitCodes: { 0: complete }
deadline: 5m
memory: 512Mi
cpu: '1'
";

    #[test]
    fn the_scanner_is_started_by_the_agent_of_another_container() {
        let scanner: ScannerDocument = document::parse(std::path::Path::new("s.yaml"), SCANNER).expect("a scanner");
        let scanning = Scanning {
            run: RunId::new(),
            scan: 3,
            program: Program::of(&scanner, scanner.approaches.debug.as_ref().expect("it has one")),
            scanner_image: "r/openscap".to_owned(),
            agent_image: "r/gapscan".to_owned(),
            mounts: Vec::new(),
            parameters: [("content".to_owned(), "/c.xml".to_owned())].into(),
            pull: None,
            egress: Vec::new(),
            inputs: None,
            result_limit: 1024,
            spool: std::env::temp_dir(),
        };
        let made = container(&scanning, "/proc/7/root/gapscan").expect("it is made");
        let command: Vec<&str> = made["command"].as_array().expect("it").iter().filter_map(Value::as_str).collect();
        let ran = command.iter().position(|word| *word == "--").expect("the scanner's own");
        assert_eq!(command[ran + 1..], ["oscap", "/tmp/gapscan-results/arf.xml", "/c.xml"]);
        assert_eq!(command[..3], ["/proc/7/root/gapscan", "agent", "run"]);
        assert!(command.contains(&"--shared-network"));
        assert_eq!(made["env"], json!([{ "name": "OSCAP_PROBE_ROOT", "value": "/proc/1/root" }]));
        assert_eq!(made["image"], json!("r/openscap"));
        assert!(made.get("volumeMounts").is_none() && made.get("resources").is_none(), "it can have neither");
    }
}
