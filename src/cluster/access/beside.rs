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

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use hyper::http::Method;
use serde_json::{Value, json};

use super::auto::{ContainerFacts, DEBUG_NAME};
use super::debug::{END, START, context, has_ended, patch, started};
use super::exec::{Caps, Place, exec_at, exec_into, incarnation_of};
use crate::cluster::agent::unreadable::LOOK;
use crate::cluster::canary::BINARY;
use crate::cluster::client::{Call, Cluster};
use crate::cluster::error::ClusterError;
use crate::cluster::job::{HandOver, JobOutput, Program, substitute};
use crate::cluster::object::{Kind, ObjectRef};
use crate::model::record::RunId;
use crate::model::scanner as placeholder;
use crate::model::target::Target;

/// The root of the target's files: process 1 is its own.
const ROOT: &str = "/proc/1/root";
/// Where the scanner leaves its result.
const RESULTS: &str = "/tmp/gapscan-results";
/// Where the agent keeps what it hands over.
const SPOOL: &str = "/tmp/gapscan-results/.gapscan";

/// How long the scanner's container is held after its end. The result is fetched at once.
const HOLD: Duration = Duration::from_secs(60);
/// How long the look for the holder's process may take.
const LOCATE: Duration = Duration::from_secs(30);
/// Between two attempts to fetch.
const PAUSE: Duration = Duration::from_secs(2);

/// A scan beside a container.
#[derive(Clone, Debug)]
pub struct BesideRequest<'a> {
    /// The container that is looked at.
    pub target: &'a Target,
    /// What is known of it; its user must be.
    pub facts: &'a ContainerFacts,
    /// The run, and the scan's number in it: they name the ephemeral containers.
    pub run: RunId,
    /// See `run`.
    pub scan: u32,
    /// gapscan's own image, as `HOST/REPOSITORY@sha256:…`.
    pub agent_image: &'a str,
    /// The scanner's, likewise.
    pub scanner_image: &'a str,
    /// The scanner.
    pub program: Program<'a>,
    /// Values for `${...}`.
    pub parameters: BTreeMap<String, String>,
    /// Bytes of the result, at most.
    pub result_limit: u64,
    /// The folder in which a large result is kept while it arrives.
    pub spool: PathBuf,
}

/// What came of it.
#[derive(Debug)]
pub struct BesideReport {
    /// What the scanner left, or why there is nothing.
    pub outcome: Result<JobOutput, ClusterError>,
    /// The ephemeral containers that were made, as `ephemeralcontainer/namespace/pod/name`.
    pub containers: Vec<String>,
    /// Those of them that were not seen to have ended.
    pub running: Vec<String>,
}

/// How long the identity of such a scan is needed.
pub fn patience(deadline: Duration) -> Duration {
    START * 2 + LOCATE + deadline + LOOK + HOLD + END * 2
}

/// Adds both ephemeral containers, fetches what the scanner left, and sees them end. `identity` is the connection of an
/// identity with [`Rights::Debug`](crate::cluster::identity::Rights).
///
/// # Cancel safety
/// Dropped half-way, both ephemeral containers end by their own deadlines.
pub async fn scan(identity: &Cluster, request: &BesideRequest<'_>) -> BesideReport {
    let Target::Container { namespace, pod, container, uid, .. } = request.target else {
        let detail = "it is no container".to_owned();
        let outcome = Err(ClusterError::TargetNotRunning { target: request.target.key(), detail });
        return BesideReport { outcome, containers: Vec::new(), running: Vec::new() };
    };
    let place = Place { namespace, pod, container, uid: uid.as_deref() };
    let name = format!("{DEBUG_NAME}{}-{}", request.run.short(), request.scan);
    let names = [name.clone(), format!("{name}-scanner")];
    let mut made = Vec::new();
    let outcome = attempt(identity, request, &place, &names, &mut made).await;
    let mut report = BesideReport { outcome, containers: Vec::new(), running: Vec::new() };
    for name in made {
        let own = Place { container: &name, ..place };
        let object = format!("ephemeralcontainer/{namespace}/{pod}/{name}");
        if !has_ended(identity, &own).await {
            report.running.push(object.clone());
        }
        report.containers.push(object);
    }
    report
}

async fn attempt(
    identity: &Cluster,
    request: &BesideRequest<'_>,
    place: &Place<'_>,
    [holder, scanner]: &[String; 2],
    made: &mut Vec<String>,
) -> Result<JobOutput, ClusterError> {
    let before = incarnation_of(identity, place).await?;
    let word = format!("{}-{}", request.run, request.scan);
    let context = context(request.facts, request.target)?;
    let life = patience(request.program.deadline).as_secs().to_string();
    let hold = [BINARY, "agent", "hold", "--deadline", &life, "--word", &word];
    let container = json!({
        "name": holder,
        "image": request.agent_image,
        "imagePullPolicy": "IfNotPresent",
        "targetContainerName": place.container,
        "command": hold,
        "securityContext": context,
    });
    add(identity, place, &before.uid, container, holder, made).await?;
    let holding = Place { container: holder, ..*place };
    started(identity, &holding).await?;
    let outcome =
        beside_holder(identity, request, place, (&holding, scanner), (&before.uid, &word, context), made).await;
    // The scanner's container is ended when its result is taken. Whatever became of it, what holds must not stay.
    let release = [BINARY, "agent", "locate", "--word", &word, "--release"];
    let caps = Caps { stdout: 4096, stderr: 4096 };
    if let Err(error) = exec_at(identity, &holding, &release, None, caps, LOCATE).await {
        // The holder ends by this very command, and its end may be all that comes back.
        tracing::debug!(error = %error, "the holder was told to end");
    }
    let after = incarnation_of(identity, place).await?;
    if !before.is_same(&after) {
        let detail = "the container was restarted".to_owned();
        return Err(ClusterError::TargetChanged { target: place.key(), detail });
    }
    outcome
}

/// Starts the scanner through the holder, and fetches what it leaves.
async fn beside_holder(
    identity: &Cluster,
    request: &BesideRequest<'_>,
    place: &Place<'_>,
    (holding, name): (&Place<'_>, &str),
    (uid, word, mut context): (&str, &str, Value),
    made: &mut Vec<String>,
) -> Result<JobOutput, ClusterError> {
    let pid = locate(identity, holding, word).await?;
    let agent = format!("/proc/{pid}/root{BINARY}");
    // The only writable place that an ephemeral container can have is its own.
    context["readOnlyRootFilesystem"] = json!(false);
    let container = container(request, name, place.container, (&agent, word, context))?;
    add(identity, place, uid, container, name, made).await?;
    let own = Place { container: name, ..*place };
    started(identity, &own).await?;
    fetch(identity, request, &own, &agent, word).await
}

/// The number of the holder's process, in the namespace of processes that all share.
async fn locate(identity: &Cluster, holding: &Place<'_>, word: &str) -> Result<u32, ClusterError> {
    let caps = Caps { stdout: 4096, stderr: 4096 };
    let argv = [BINARY, "agent", "locate", "--word", word];
    let output = exec_at(identity, holding, &argv, None, caps, LOCATE).await?;
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines().next().and_then(|line| line.trim().parse().ok()).ok_or_else(|| {
        let message = "the process that holds gapscan's agent can't be found among the target's".to_owned();
        ClusterError::NotStarted { message }
    })
}

/// The scanner's ephemeral container.
fn container(
    request: &BesideRequest<'_>,
    name: &str,
    target: &str,
    (agent, word, context): (&str, &str, Value),
) -> Result<Value, ClusterError> {
    let program = &request.program;
    let mut values = request.parameters.clone();
    values.insert(placeholder::ROOT.to_owned(), ROOT.to_owned());
    values.insert(placeholder::RESULTS.to_owned(), RESULTS.to_owned());
    let mut command: Vec<String> =
        [agent, "agent", "run", "--shared-network", "--word", word, "--target-mount", ROOT].map(str::to_owned).into();
    command.extend(kept(request));
    let (deadline, hold) = (program.deadline.as_secs().to_string(), HOLD.as_secs().to_string());
    command.extend(["--deadline", &deadline, "--hold", &hold, "--"].map(str::to_owned));
    for argument in program.approach.command {
        command.push(substitute(argument, &values)?);
    }
    let mut env = Vec::new();
    for (name, value) in program.approach.env {
        env.push(json!({ "name": name, "value": substitute(value, &values)? }));
    }
    Ok(json!({
        "name": name,
        "image": request.scanner_image,
        "imagePullPolicy": "IfNotPresent",
        "targetContainerName": target,
        "command": command,
        "env": env,
        "securityContext": context,
    }))
}

/// Arguments that tell the agent where the result is.
fn kept(request: &BesideRequest<'_>) -> Vec<String> {
    let limit = request.result_limit.to_string();
    let path = request.program.result;
    let path = if path == "stdout" { path.to_owned() } else { format!("{RESULTS}/{path}") };
    ["--result", &path, "--spool", SPOOL, "--limit", &limit].map(str::to_owned).into()
}

async fn add(
    identity: &Cluster,
    place: &Place<'_>,
    uid: &str,
    container: Value,
    name: &str,
    made: &mut Vec<String>,
) -> Result<(), ClusterError> {
    let call = Call {
        what: format!("add an ephemeral container to pod `{}/{}`", place.namespace, place.pod),
        method: Method::PATCH,
        path: format!(
            "{}/ephemeralcontainers?fieldValidation=Strict",
            ObjectRef::namespaced(Kind::Pod, place.namespace, place.pod).path()
        ),
        body: Some(patch(uid, container).to_string().into_bytes()),
    };
    // An answer that is lost does not say whether it was made.
    match identity.call::<Value>(call).await {
        Err(error) if error.is_refusal() => Err(error),
        outcome => {
            made.push(name.to_owned());
            outcome.map(drop)
        }
    }
}

/// Waits for the scanner's end and takes what it left; again if the connection broke, as long as it is held.
async fn fetch(
    identity: &Cluster,
    request: &BesideRequest<'_>,
    own: &Place<'_>,
    agent: &str,
    word: &str,
) -> Result<JobOutput, ClusterError> {
    let program = &request.program;
    let over = HandOver {
        result: program.result,
        limit: request.result_limit,
        spool: &request.spool,
        deadline: program.deadline,
        memory: program.memory,
    };
    let mut argv = vec![agent.to_owned(), "agent".to_owned(), "collect".to_owned()];
    argv.extend(kept(request));
    argv.extend(["--release".to_owned(), word.to_owned()]);
    let argv: Vec<&str> = argv.iter().map(String::as_str).collect();
    let patience = program.deadline + LOOK + HOLD;
    let began = Instant::now();
    loop {
        let left = patience.saturating_sub(began.elapsed());
        let mut receiver = over.receiver();
        let mut sink = |bytes: &[u8]| receiver.take(bytes);
        let error = match exec_into(identity, own, &argv, None, over.caps(), left, &mut sink).await {
            Ok(end) => match over.read(&end, receiver) {
                Err(error @ ClusterError::OutputTruncated { .. }) => error,
                outcome => return outcome,
            },
            // The command ends its own container, which may be noticed before the command's end is told: all that counts is
            // whether what came is whole.
            Err(
                error @ (ClusterError::TargetGone { .. }
                | ClusterError::TargetChanged { .. }
                | ClusterError::TargetNotRunning { .. }
                | ClusterError::ExecBroken { .. }),
            ) => {
                let end = crate::cluster::access::exec::ExecEnd {
                    stderr: Vec::new(),
                    code: Some(0),
                    stdout_truncated: false,
                };
                match over.read(&end, receiver) {
                    Err(ClusterError::OutputTruncated { .. }) => error,
                    outcome => return outcome,
                }
            }
            Err(error) => error,
        };
        let again = matches!(error, ClusterError::OutputTruncated { .. } | ClusterError::ExecBroken { .. })
            || error.is_silence();
        if !again || began.elapsed() + PAUSE >= patience {
            return Err(match error {
                ClusterError::TargetChanged { .. } | ClusterError::TargetNotRunning { .. } => {
                    let message = "its ephemeral container ended before its result was taken".to_owned();
                    ClusterError::ScannerFailed { message }
                }
                ClusterError::ExecTimeout { .. } => ClusterError::ScannerTimeout { after: program.deadline },
                other => other,
            });
        }
        tokio::time::sleep(PAUSE).await;
        started(identity, own).await?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::document;
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
        let pod = json!({ "spec": { "containers": [{ "name": "web" }] } });
        let pod = serde_json::from_value(pod).expect("a pod");
        let facts = ContainerFacts::of(&pod, "web").expect("it has the container");
        let target = Target::Container {
            namespace: "shop".to_owned(),
            pod: "web".to_owned(),
            container: "web".to_owned(),
            uid: None,
            image: None,
            digest: None,
            node: None,
        };
        let request = BesideRequest {
            target: &target,
            facts: &facts,
            run: RunId::new(),
            scan: 3,
            agent_image: "r/gapscan",
            scanner_image: "r/openscap",
            program: Program::of(&scanner, scanner.approaches.debug.as_ref().expect("it has one")),
            parameters: [("content".to_owned(), "/c.xml".to_owned())].into(),
            result_limit: 1024,
            spool: std::env::temp_dir(),
        };
        let context = json!({ "allowPrivilegeEscalation": false });
        let made = container(&request, "s", "web", ("/proc/7/root/gapscan", "w", context)).expect("it is made");
        let command: Vec<&str> = made["command"].as_array().expect("it").iter().filter_map(Value::as_str).collect();
        let ran = command.iter().position(|word| *word == "--").expect("the scanner's own");
        assert_eq!(command[ran + 1..], ["oscap", "/tmp/gapscan-results/arf.xml", "/c.xml"]);
        assert_eq!(command[..3], ["/proc/7/root/gapscan", "agent", "run"]);
        assert!(command.contains(&"--shared-network"));
        assert_eq!(made["env"], json!([{ "name": "OSCAP_PROBE_ROOT", "value": "/proc/1/root" }]));
        assert_eq!((&made["targetContainerName"], &made["image"]), (&json!("web"), &json!("r/openscap")));
        assert!(made.get("volumeMounts").is_none() && made.get("resources").is_none(), "it can have neither");
    }
}
