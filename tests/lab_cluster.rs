//! The cluster layer against a real cluster: least privilege, enforcement, faults, and nothing left behind.
//!
//! Runs where `GAPSCAN_E2E_CLUSTER=1` and `KUBECONFIG` are set, one test after the other, with cluster admin's rights. The
//! tests use the workloads in the namespaces `shop` and `vault` and make namespaces of their own. Those that start pods
//! need `GAPSCAN_E2E_IMAGE`, a reference by digest to gapscan's image in a registry that the nodes can pull from.
// What a test awaits has the whole stack for itself.
#![allow(clippy::large_futures)]

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use gapscan::base::limits::Limits;
use gapscan::cluster::access::exec::{Caps, ExecOutput, exec};
use gapscan::cluster::access::node::NodePlace;
use gapscan::cluster::canary::{CanaryImage, prove};
use gapscan::cluster::identity::{Rights, ScanIdentity};
use gapscan::cluster::job::{ImageMount, JobReport, JobRequest, JobTarget, Program, Scanning, Unread, run_job};
use gapscan::cluster::objects::{ResourceKey, collect};
use gapscan::cluster::sweep::sweep;
use gapscan::cluster::targets::{Selector, everything, resolve};
use gapscan::cluster::{Cluster, ClusterError, ScanNamespace};
use gapscan::model::provenance::NetworkProof;
use gapscan::model::reason::Reason;
use gapscan::model::record::RunId;
use gapscan::model::scanner::{MountApproach, ScannerDocument};
use gapscan::model::target::{Target, TargetSpec};
use jiff::Timestamp;

const CAPS: Caps = Caps { stdout: 1 << 20, stderr: 64 << 10 };

/// The cluster, or a printed reason why the test does not run.
async fn lab() -> Option<Cluster> {
    if std::env::var("GAPSCAN_E2E_CLUSTER").as_deref() != Ok("1") || std::env::var_os("KUBECONFIG").is_none() {
        println!("skipped: needs the lab (GAPSCAN_E2E_CLUSTER=1 and KUBECONFIG)");
        return None;
    }
    Some(connect(Limits::default()).await)
}

async fn connect(limits: Limits) -> Cluster {
    Cluster::connect(None, None, &limits).await.expect("the lab answers")
}

/// kubectl, for what only the tests do to the cluster.
fn kubectl(args: &[&str]) -> String {
    let output = std::process::Command::new("kubectl").args(args).output().expect("kubectl is on PATH");
    assert!(output.status.success(), "kubectl {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

async fn containers(cluster: &Cluster, labels: &str) -> Vec<Target> {
    let selector = Selector { labels: Some(labels.to_owned()), namespace: Some("shop".to_owned()) };
    resolve(cluster, &[], &selector, &Limits::default())
        .await
        .expect("pods are listed")
        .found
        .into_iter()
        .map(|found| found.target)
        .collect()
}

fn names(target: &Target) -> (&str, &str) {
    match target {
        Target::Container { namespace, pod, .. } => (namespace, pod),
        other => panic!("{other} is no container"),
    }
}

/// One command in a target, by an identity that lives for it.
async fn scan(cluster: &Cluster, target: &Target, argv: &[&str]) -> Result<ExecOutput, ClusterError> {
    let home = ScanNamespace::create(cluster, RunId::new()).await.expect("a namespace");
    let (namespace, pod) = names(target);
    let began = Instant::now();
    let identity = ScanIdentity::create(cluster, &home, 1, (namespace, pod), Rights::Exec).await.expect("an identity");
    let made = began.elapsed();
    let output = exec(identity.cluster(), target, argv, None, CAPS, Duration::from_secs(60)).await;
    let done = began.elapsed();
    let cleanup = identity.remove(cluster, &home).await;
    println!("identity in {made:?}, command until {done:?}, removed at {:?}", began.elapsed());
    assert_eq!(cleanup.remaining, [""; 0]);
    assert_eq!(cleanup.created.len(), 3, "{:?}", cleanup.created);
    let cleanup = home.remove(cluster).await;
    assert_eq!(cleanup.remaining, [""; 0]);
    output
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_runs_in_a_container_and_nothing_is_left() {
    let Some(cluster) = lab().await else { return };
    let identity = cluster.identity().await.expect("a cluster has a name");
    println!("{identity:?}");
    let web = containers(&cluster, "app=web").await;
    let target = web.iter().find(|t| t.key().ends_with("/web")).expect("web runs");
    let began = Instant::now();
    let output = scan(&cluster, target, &["sh", "-c", "id; echo oops >&2; exit 3"]).await.expect("it runs");
    println!("in {:?}", began.elapsed());
    assert!(output.stdout.starts_with(b"uid="), "{output:?}");
    assert_eq!((output.stderr.as_slice(), output.code), (&b"oops\n"[..], Some(3)));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_identity_reaches_its_pod_and_no_other() {
    let Some(cluster) = lab().await else { return };
    let web = containers(&cluster, "app=web").await;
    let home = ScanNamespace::create(&cluster, RunId::new()).await.expect("a namespace");
    let (namespace, pod) = names(&web[0]);
    let identity = ScanIdentity::create(&cluster, &home, 1, (namespace, pod), Rights::Exec).await.expect("an identity");
    let other = web.iter().find(|t| names(t).1 != pod).expect("there are two replicas");
    let run = |target: &Target| {
        let target = target.clone();
        let cluster = identity.cluster().clone();
        async move { exec(&cluster, &target, &["true"], None, CAPS, Duration::from_secs(30)).await }
    };
    run(&web[0]).await.expect("its own pod");
    let error = run(other).await.expect_err("another pod");
    assert_eq!(error.reason(), Reason::AccessDenied, "{error}");
    identity.remove(&cluster, &home).await;
    assert_eq!(home.remove(&cluster).await.remaining, [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_without_a_shell_says_so() {
    let Some(cluster) = lab().await else { return };
    let api = containers(&cluster, "app=api").await;
    let error = scan(&cluster, &api[0], &["sh", "-c", "id"]).await.expect_err("distroless");
    println!("{error}");
    assert_eq!(error.reason(), Reason::NoShell);
}

/// gapscan's own image in the lab's registry, or a printed reason why the test does not run.
fn own_image() -> Option<String> {
    let image = std::env::var("GAPSCAN_E2E_IMAGE").ok();
    if image.is_none() {
        println!("skipped: needs GAPSCAN_E2E_IMAGE");
    }
    image
}

async fn canary(cluster: &Cluster, image: &str) -> NetworkProof {
    let home = ScanNamespace::create(cluster, RunId::new()).await.expect("a namespace");
    let began = Instant::now();
    let image = CanaryImage { name: image, pull: None };
    let proof = prove(cluster, &home, &[], image, 0).await.proof;
    println!("in {:?}: {proof:?}", began.elapsed());
    assert_eq!(home.remove(cluster).await.remaining, [""; 0]);
    proof
}

#[tokio::test(flavor = "multi_thread")]
async fn the_canary_sees_that_policies_are_enforced() {
    let (Some(cluster), Some(image)) = (lab().await, own_image()) else { return };
    assert!(canary(&cluster, &image).await.enforced);
}

/// Needs the network to ignore policies, which the caller arranges and says so by `GAPSCAN_E2E_NETPOL=off`.
#[tokio::test(flavor = "multi_thread")]
async fn the_canary_sees_that_policies_are_ignored() {
    let (Some(cluster), Some(image)) = (lab().await, own_image()) else { return };
    if std::env::var("GAPSCAN_E2E_NETPOL").as_deref() != Ok("off") {
        println!("skipped: needs policies to be ignored (GAPSCAN_E2E_NETPOL=off)");
        return;
    }
    let proof = canary(&cluster, &image).await;
    assert!(!proof.enforced && proof.detail.starts_with("not enforced"), "{}", proof.detail);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_canary_that_can_not_start_proves_nothing() {
    let (Some(cluster), Some(image)) = (lab().await, own_image()) else { return };
    let proof = canary(&cluster, &image.replace("@sha256:", "-none@sha256:")).await;
    assert!(!proof.enforced && proof.detail.starts_with("could not be decided"), "{}", proof.detail);
}

/// An image of the lab by its digest, as `REGISTRY/lab/NAME@sha256:…`.
fn lab_image(name: &str) -> String {
    let registry = std::env::var("REGISTRY").expect("the lab says where its registry is");
    let output = std::process::Command::new("crane")
        .args(["digest", &format!("{registry}/lab/{name}:1")])
        .output()
        .expect("crane is on PATH");
    assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
    format!("{registry}/lab/{name}@{}", String::from_utf8_lossy(&output.stdout).trim())
}

/// A scanner that runs this command, and leaves its result in `/results/out`.
fn scanner(command: &[&str], deadline: &str, memory: &str) -> ScannerDocument {
    let yaml = format!(
        "apiVersion: gapscan/v1\nkind: Scanner\nname: trial\ntitle: Trial\nimage: trial\n\
         approaches: {{ image: {{ mount: /target, command: {command:?}, env: {{ OSCAP_PROBE_ROOT: /target }} }} }}\n\
         result: {{ path: out, format: arf }}\nexitCodes: {{ 0: complete, 2: complete, 1: failed }}\n\
         deadline: {deadline}\nmemory: {memory}\ncpu: '1'\n"
    );
    gapscan::base::document::parse(std::path::Path::new("scanner.yaml"), &yaml).expect("a scanner")
}

/// One scan of `target` in a namespace of its own; `meanwhile` is called with the namespace's name.
async fn job(
    cluster: &Cluster,
    scanner: &ScannerDocument,
    image: &str,
    target: String,
    meanwhile: impl FnOnce(String) + Send + 'static,
) -> JobReport {
    let home = ScanNamespace::create(cluster, RunId::new()).await.expect("a namespace");
    let scanning = Scanning {
        run: home.run(),
        scan: 1,
        program: Program::of(scanner, scanner.approaches.image.as_ref().expect("it has one")),
        scanner_image: lab_image(image),
        agent_image: own_image().expect("was looked for"),
        mounts: vec![ImageMount { reference: lab_image("busybox"), path: "/content".to_owned() }],
        parameters: Default::default(),
        pull: None,
        egress: Vec::new(),
        inputs: None,
        result_limit: 256 << 20,
        spool: std::env::temp_dir(),
    };
    let request = JobRequest { scanning, target: JobTarget::Image(target), uploads: None, archive: None };
    let name = home.name().to_owned();
    let other = tokio::task::spawn_blocking(move || meanwhile(name));
    let began = Instant::now();
    let report = run_job(cluster, &home, &request).await;
    other.await.expect("it did not panic");
    println!("in {:?}: {:?}", began.elapsed(), report.outcome.as_ref().map(|o| (&o.exit, &o.unreadable)));
    println!("{:?} {:?}", report.identity, report.cleanup);
    assert_eq!(report.cleanup.remaining, [""; 0]);
    assert_eq!(home.remove(cluster).await.remaining, [""; 0]);
    report
}

async fn job_fails(scanner: &ScannerDocument, image: &str, wanted: Reason) {
    let (Some(cluster), Some(_)) = (lab().await, own_image()) else { return };
    let report = job(&cluster, scanner, image, lab_image("web"), |_| ()).await;
    let error = match report.outcome {
        Ok(output) => output.into_result(&scanner.exit_codes).expect_err("it fails"),
        Err(error) => error,
    };
    println!("{error}");
    assert_eq!(error.reason(), wanted);
}

/// Root in the scanner's container tries what it can, on every kind of file system that a node has.
const INTRUDER: &str = "exec > /results/out
cat /host/etc/shadow > /dev/null && echo read shadow
test -d /host/proc/1 && echo saw process 1
test -z \"$(ls /host/proc/sys/net)\" && echo found no network but its own
for file in /host /host/tmp /host/run /host/dev/shm /host/proc/sys/kernel /host/sys/fs/cgroup; do
    (echo x > $file/gapscan-was-here) 2> /dev/null && echo wrote $file
    mkdir $file/gapscan-was-there 2> /dev/null && echo made $file
done
(cat /host/proc/sys/kernel/printk > /host/proc/sys/kernel/printk) 2> /dev/null && echo wrote printk
mount -o remount,rw /host 2> /dev/null && echo remounted
mknod /tmp/disk b 8 0 2> /dev/null && echo made a device
kill -0 2 2> /dev/null && echo reached a process
echo end";

#[tokio::test(flavor = "multi_thread")]
async fn a_job_on_a_node_reads_what_is_roots_and_changes_nothing() {
    let (Some(cluster), Some(agent_image)) = (lab().await, own_image()) else { return };
    let home = ScanNamespace::create_for_nodes(&cluster, RunId::new()).await.expect("a namespace");
    assert!(home.name().ends_with("-node"), "{}", home.name());
    let mut scanner = scanner(&["sh", "-c", INTRUDER], "1m", "64Mi");
    let approach = scanner.approaches.image.take().expect("it has one");
    let approach = MountApproach { mount: Some("/host".to_owned()), ..approach };
    let scanning = Scanning {
        run: home.run(),
        scan: 1,
        program: Program { unread: Unread::Told, ..Program::of(&scanner, &approach) },
        scanner_image: lab_image("debian"),
        agent_image,
        mounts: Vec::new(),
        parameters: Default::default(),
        pull: None,
        egress: Vec::new(),
        inputs: None,
        result_limit: 1 << 20,
        spool: std::env::temp_dir(),
    };
    let node = NodePlace { node: "lab".to_owned(), tolerated: Vec::new() };
    let request = JobRequest { scanning, target: JobTarget::Node(node), uploads: None, archive: None };
    let report = run_job(&cluster, &home, &request).await;
    println!("{:?} {:?} {:?}", report.identity, report.cleanup, report.notes);
    let output = report.outcome.expect("it ran");
    let result = output.into_result(&scanner.exit_codes).expect("it succeeded").into_bytes().expect("it is read");
    let seen: Vec<&str> = std::str::from_utf8(&result).expect("text").lines().collect();
    assert_eq!(seen, ["read shadow", "saw process 1", "found no network but its own", "end"]);
    assert_eq!(report.cleanup.remaining, [""; 0]);
    assert_eq!(report.notes, [""; 0], "all that is mounted below the node's root is read-only, too");
    let name = home.name().to_owned();
    assert_eq!(home.remove(&cluster).await.remaining, [""; 0]);
    assert!(!kubectl(&["get", "namespaces", "-o", "name"]).contains(&name));
}

const OSCAP: &[&str] = &[
    "oscap",
    "xccdf",
    "eval",
    "--profile",
    "xccdf_org.ssgproject.content_profile_standard",
    "--results-arf",
    "/results/out",
    "/usr/share/xml/scap/ssg/content/ssg-debian12-ds.xml",
];

#[tokio::test(flavor = "multi_thread")]
async fn openscap_scans_an_image_as_a_job() {
    let (Some(cluster), Some(_)) = (lab().await, own_image()) else { return };
    let scanner = scanner(OSCAP, "5m", "1Gi");
    let report = job(&cluster, &scanner, "openscap", lab_image("web"), |_| ()).await;
    let output = report.outcome.expect("it runs");
    assert!(output.unreadable.sample.iter().any(|path| path == "/etc/shadow"), "{:?}", output.unreadable);
    let arf = output.result.as_ref().expect("a result").clone().into_bytes().expect("it is read");
    assert!(arf.len() > 1 << 20 && arf.ends_with(b">\n"), "{} bytes", arf.len());
    assert!(output.into_result(&scanner.exit_codes).is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_without_output_is_none() {
    job_fails(&scanner(&["true"], "1m", "64Mi"), "debian", Reason::NoOutput).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_with_an_unknown_exit_code_failed() {
    job_fails(&scanner(&["sh", "-c", "echo oh >&2; exit 7"], "1m", "64Mi"), "debian", Reason::ScannerFailed).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_hangs_times_out() {
    job_fails(&scanner(&["sleep", "600"], "3s", "64Mi"), "debian", Reason::Timeout).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_eats_memory_is_told_so() {
    job_fails(&scanner(&["tail", "/dev/zero"], "1m", "64Mi"), "debian", Reason::ScannerOutOfMemory).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_definition_that_kubernetes_refuses_is_told_at_once() {
    let began = Instant::now();
    job_fails(&scanner(&["true"], "1m", "lots"), "debian", Reason::ScannerNotStarted).await;
    assert!(began.elapsed() < Duration::from_secs(60));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_image_that_is_missing_can_not_be_pulled() {
    let (Some(cluster), Some(_)) = (lab().await, own_image()) else { return };
    let missing = lab_image("web").replace("/web@", "/nothing@");
    let report = job(&cluster, &scanner(&["true"], "1m", "64Mi"), "debian", missing, |_| ()).await;
    let error = report.outcome.expect_err("it can't start");
    println!("{error}");
    assert_eq!(error.reason(), Reason::ImagePullFailed);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_whose_pod_is_deleted_was_evicted() {
    let (Some(cluster), Some(_)) = (lab().await, own_image()) else { return };
    let scanner = scanner(&["sleep", "600"], "5m", "64Mi");
    let report = job(&cluster, &scanner, "debian", lab_image("web"), |namespace| {
        for _ in 0..300 {
            let phase = kubectl(&["get", "pods", "-n", &namespace, "-o", "jsonpath={.items[*].status.phase}"]);
            if phase == "Running" {
                kubectl(&["delete", "pods", "--all", "-n", &namespace, "--wait=false"]);
                return;
            }
            std::thread::sleep(Duration::from_millis(200));
        }
    })
    .await;
    let error = report.outcome.expect_err("its pod is gone");
    println!("{error}");
    assert_eq!(error.reason(), Reason::ScannerEvicted);
}

/// A pod of the lab's `debian` image that sleeps, in a namespace that only this test uses.
struct Sleeper {
    namespace: String,
}

impl Sleeper {
    fn start(name: &str) -> Self {
        let namespace = format!("gapscan-e2e-{name}");
        kubectl(&["create", "namespace", &namespace]);
        let this = Self { namespace };
        this.pod();
        this
    }

    fn pod(&self) {
        let image = lab_image("debian");
        // Ends at once when it is told to, and starts again after it was killed.
        let command = "trap 'exit 0' TERM; sleep 600 & wait";
        let namespace = &self.namespace;
        kubectl(&["run", "sleeper", "-n", namespace, "--image", &image, "--restart=Always", "--", "sh", "-c", command]);
        kubectl(&["wait", "-n", namespace, "--for=condition=Ready", "pod/sleeper", "--timeout=60s"]);
    }

    async fn target(&self, cluster: &Cluster) -> Target {
        let spec = TargetSpec::Namespace(self.namespace.clone());
        let found = resolve(cluster, &[spec], &Selector::default(), &Limits::default()).await.expect("listed").found;
        assert_eq!(found.len(), 1, "{found:?}");
        found.into_iter().next().expect("one").target
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        let _ = std::process::Command::new("kubectl")
            .args(["delete", "namespace", &self.namespace, "--wait=false"])
            .status();
    }
}

/// A command that takes long in a sleeping pod, and what is done to that pod meanwhile.
async fn disturbed(name: &str, disturb: impl FnOnce(&Sleeper) + Send + 'static) -> Option<ClusterError> {
    let cluster = lab().await?;
    let sleeper = Sleeper::start(name);
    let target = sleeper.target(&cluster).await;
    let other = tokio::task::spawn_blocking(move || {
        let begun = ["exec", "sleeper", "-n", &sleeper.namespace, "--", "test", "-f", "/tmp/begun"];
        let seen = (0..300).any(|_| {
            std::thread::sleep(Duration::from_millis(200));
            std::process::Command::new("kubectl").args(begun).output().is_ok_and(|output| output.status.success())
        });
        assert!(seen, "the command began");
        disturb(&sleeper);
        sleeper
    });
    let outcome = scan(&cluster, &target, &["sh", "-c", "touch /tmp/begun; sleep 120; echo done"]).await;
    drop(other.await.expect("it did not panic"));
    let error = outcome.expect_err("it can't be whole");
    println!("{error}");
    Some(error)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_is_deleted_during_a_command_is_gone() {
    let error = disturbed("deleted", |sleeper| {
        kubectl(&["delete", "pod", "sleeper", "-n", &sleeper.namespace]);
    })
    .await;
    assert!(error.is_none_or(|error| error.reason() == Reason::TargetGone));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_is_replaced_under_its_name_has_changed() {
    let error = disturbed("replaced", |sleeper| {
        kubectl(&["delete", "pod", "sleeper", "-n", &sleeper.namespace, "--force", "--grace-period=0"]);
        sleeper.pod();
    })
    .await;
    assert!(error.is_none_or(|error| matches!(error.reason(), Reason::TargetChanged | Reason::TargetGone)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_was_replaced_before_has_changed() {
    let Some(cluster) = lab().await else { return };
    let sleeper = Sleeper::start("before");
    let target = sleeper.target(&cluster).await;
    kubectl(&["delete", "pod", "sleeper", "-n", &sleeper.namespace]);
    sleeper.pod();
    let error = scan(&cluster, &target, &["true"]).await.expect_err("it is another");
    assert_eq!(error.reason(), Reason::TargetChanged, "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_that_is_restarted_during_a_command_has_changed() {
    let error = disturbed("restarted", |sleeper| {
        // The container takes this command with it, which is no failure.
        let _ = std::process::Command::new("kubectl")
            .args(["exec", "sleeper", "-n", &sleeper.namespace, "--", "sh", "-c", "kill -TERM 1"])
            .output();
    })
    .await;
    let reasons = [Reason::TargetChanged, Reason::TargetNotRunning];
    assert!(error.is_none_or(|error| reasons.contains(&error.reason())));
}

#[tokio::test(flavor = "multi_thread")]
async fn long_output_is_cut_and_marked() {
    let Some(cluster) = lab().await else { return };
    let web = containers(&cluster, "app=web").await;
    let target = web.iter().find(|t| t.key().ends_with("/web")).expect("web runs");
    let output = scan(&cluster, target, &["head", "-c", "3000000", "/dev/zero"]).await.expect("it runs");
    assert_eq!((output.stdout.len(), output.code, output.stdout_truncated), (CAPS.stdout, Some(0), true));
}

/// The API server's process, named by its pid in `GAPSCAN_E2E_APISERVER`.
struct ApiServer(String);

impl ApiServer {
    fn find() -> Option<Self> {
        let pid = std::env::var("GAPSCAN_E2E_APISERVER").ok();
        if pid.is_none() {
            println!("skipped: needs GAPSCAN_E2E_APISERVER");
        }
        pid.map(Self)
    }

    /// Nothing answers, and nothing is closed, until what it gives is dropped.
    fn freeze(self) -> Frozen {
        signal("-STOP", &self.0);
        Frozen(self.0)
    }
}

struct Frozen(String);

impl Drop for Frozen {
    fn drop(&mut self) {
        signal("-CONT", &self.0);
    }
}

fn signal(name: &str, pid: &str) {
    assert!(std::process::Command::new("kill").args([name, pid]).status().expect("kill runs").success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_outlives_an_api_server_that_is_frozen() {
    let (Some(cluster), Some(_)) = (lab().await, own_image()) else { return };
    let Some(api_server) = ApiServer::find() else { return };
    let scanner = scanner(&["sh", "-c", "sleep 20; ls /content/bin >&2 && echo whole > /results/out"], "2m", "64Mi");
    let report = job(&cluster, &scanner, "debian", lab_image("web"), |namespace| {
        for _ in 0..300 {
            let phase = kubectl(&["get", "pods", "-n", &namespace, "-o", "jsonpath={.items[*].status.phase}"]);
            if phase == "Running" {
                break;
            }
            std::thread::sleep(Duration::from_millis(200));
        }
        std::thread::sleep(Duration::from_secs(5));
        let frozen = api_server.freeze();
        std::thread::sleep(Duration::from_secs(18));
        drop(frozen);
    })
    .await;
    let output = report.outcome.expect("it is fetched");
    let result = output.into_result(&scanner.exit_codes).expect("it is whole");
    assert_eq!(result.in_memory(), Some(&b"whole\n"[..]));
}

/// A command that an API server does not answer for in time.
#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_api_server_is_survived_or_said() {
    let Some(cluster) = lab().await else { return };
    let Some(api_server) = ApiServer::find() else { return };
    let web = containers(&cluster, "app=web").await;
    let target = web.iter().find(|t| t.key().ends_with("/web")).expect("web runs");
    let home = ScanNamespace::create(&cluster, RunId::new()).await.expect("a namespace");
    let (namespace, pod) = names(target);
    let identity = ScanIdentity::create(&cluster, &home, 1, (namespace, pod), Rights::Exec).await.expect("an identity");
    let frozen = api_server.freeze();
    let thaw = tokio::task::spawn_blocking(move || {
        std::thread::sleep(Duration::from_secs(18));
        drop(frozen);
    });
    let began = Instant::now();
    // Patient enough, it is done when the server answers again; impatient, it says so in time.
    let hasty = connect_as_hasty(&identity, target);
    let patient = exec(identity.cluster(), target, &["id"], None, CAPS, Duration::from_secs(60));
    let (hasty, patient) = tokio::join!(hasty, patient);
    println!("in {:?}: {:?}", began.elapsed(), patient.as_ref().map(|o| o.code));
    thaw.await.expect("it did not panic");
    let error = hasty.expect_err("it was not answered");
    println!("{error}");
    assert!(matches!(error.reason(), Reason::Timeout | Reason::ApiUnreachable), "{error}");
    assert_eq!(patient.expect("it survives").code, Some(0));
    identity.remove(&cluster, &home).await;
    assert_eq!(home.remove(&cluster).await.remaining, [""; 0]);
}

async fn connect_as_hasty(identity: &ScanIdentity, target: &Target) -> Result<ExecOutput, ClusterError> {
    let cluster = identity.cluster().with_limits(&Limits { api_call: Duration::from_secs(2), ..Limits::default() });
    let began = Instant::now();
    let outcome = exec(&cluster, target, &["id"], None, CAPS, Duration::from_secs(5)).await;
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
    outcome
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_are_read_by_an_identity_of_their_own() {
    let Some(cluster) = lab().await else { return };
    let home = ScanNamespace::create(&cluster, RunId::new()).await.expect("a namespace");
    let keys: Vec<ResourceKey> =
        ["v1/pods", "v1/nothings", "rbac.authorization.k8s.io/v1/clusterroles", "example.org/v1/things"]
            .map(|text| text.parse().expect("a key"))
            .into();
    let objects = collect(&cluster, &home, &keys, &Limits::default(), |object| object).await.expect("they are read");
    println!("{} {:?}", objects.identity, objects.cleanup);
    assert_eq!(objects.cleanup.remaining, [""; 0]);
    let pods = objects.by_resource[&keys[0]].as_ref().expect("pods are read");
    assert!(pods.iter().any(|pod| pod["metadata"]["namespace"] == "shop" && pod["kind"] == "Pod"));
    assert!(objects.by_resource[&keys[2]].as_ref().expect("roles are read").len() > 30);
    for missing in [&keys[1], &keys[3]] {
        let (reason, detail) = objects.by_resource[missing].as_ref().expect_err("there is none");
        println!("{missing}: {reason} {detail}");
    }
    assert_eq!(home.remove(&cluster).await.remaining, [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_crash_left_is_swept() {
    let Some(cluster) = lab().await else { return };
    let (dead, living) = (RunId::new(), RunId::new());
    let home = ScanNamespace::create(&cluster, dead).await.expect("a namespace");
    let other = ScanNamespace::create(&cluster, living).await.expect("a namespace");
    let web = containers(&cluster, "app=web").await;
    let (namespace, pod) = names(&web[0]);
    drop(ScanIdentity::create(&cluster, &home, 1, (namespace, pod), Rights::Exec).await.expect("an identity"));
    // Other runs may be going on in this cluster: only what is known to be dead goes, for nothing is a day old.
    let day = Duration::from_secs(24 * 3600);
    let swept = sweep(&cluster, &BTreeSet::from([dead]), day, Timestamp::now()).await.expect("it sweeps");
    println!("{swept:?}");
    assert_eq!(swept.remaining, [""; 0]);
    for kind in ["role/shop/", "rolebinding/shop/", "namespace/"] {
        assert!(swept.removed.iter().any(|o| o.starts_with(kind) && o.contains(&dead.short())), "{kind}");
    }
    assert!(!swept.removed.iter().any(|object| object.contains(&living.short())));
    assert_eq!(other.remove(&cluster).await.remaining, [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_images_that_run_are_named_by_digest() {
    let Some(cluster) = lab().await else { return };
    let (containers, images) = everything(&cluster, &Limits::default()).await.expect("pods are listed");
    assert!(containers.found.len() >= images.images.len());
    for image in images.images.values() {
        println!("{} {}", image.reference, image.used_by.len());
        assert!(image.reference.ends_with(&image.digest.to_string()));
    }
    assert!(images.unnamed.is_empty(), "{:?}", images.unnamed);
    // A runtime that pulled an image in two ways names it by its index for one container and by its manifest for another.
    let of_web = images.images.values().filter(|image| image.reference.contains("/lab/web@"));
    assert!(of_web.map(|image| image.used_by.len()).sum::<usize>() >= 2);
}

/// What the API server wrote down, in the file that `GAPSCAN_E2E_AUDIT` names: of all that gapscan asked for.
#[tokio::test(flavor = "multi_thread")]
async fn the_audit_log_shows_least_privilege() {
    let Some(cluster) = lab().await else { return };
    let Ok(path) = std::env::var("GAPSCAN_E2E_AUDIT") else {
        println!("skipped: needs GAPSCAN_E2E_AUDIT");
        return;
    };
    let before = std::fs::metadata(&path).expect("the log is there").len();
    let web = containers(&cluster, "app=web").await;
    scan(&cluster, &web[0], &["true"]).await.expect("it runs");
    let log = std::fs::read(&path).expect("the log is read");
    let new = String::from_utf8_lossy(&log[usize::try_from(before).expect("it fits")..]).into_owned();
    let mut execs = 0;
    for event in new.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok()) {
        if !event["userAgent"].as_str().is_some_and(|agent| agent.starts_with("gapscan/")) {
            continue;
        }
        let resource = &event["objectRef"];
        assert_ne!(resource["resource"], "secrets", "{event}");
        if resource["subresource"] == "exec" {
            execs += 1;
            let user = event["user"]["username"].as_str().unwrap_or_default();
            assert!(user.starts_with("system:serviceaccount:gapscan-"), "{event}");
        }
    }
    assert!(execs > 0, "the log tells of the exec");
}
