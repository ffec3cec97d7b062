//! The cluster layer against a real cluster: least privilege, enforcement, faults, and nothing left behind.
//!
//! Runs where `GAPSCAN_E2E_CLUSTER=1` and `KUBECONFIG` are set, one test after the other, with cluster admin's rights. The
//! tests use the workloads in the namespaces `shop` and `vault` and make namespaces of their own. Those that start pods
//! need `GAPSCAN_E2E_IMAGE`, a reference by digest to gapscan's image in a registry that the nodes can pull from.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use gapscan::base::limits::Limits;
use gapscan::cluster::access::exec::{Caps, ExecOutput, exec};
use gapscan::cluster::identity::ScanIdentity;
use gapscan::cluster::targets::{Selector, resolve};
use gapscan::cluster::{Cluster, ClusterError, ScanNamespace};
use gapscan::model::reason::Reason;
use gapscan::model::record::RunId;
use gapscan::model::target::Target;

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
    let selector = Selector { labels: Some(labels.to_owned()), namespace: Some("shop".to_owned()), all: false };
    resolve(cluster, &[], &selector, &Limits::default()).await.expect("pods are listed").found
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
    let identity = ScanIdentity::create(cluster, &home, 1, namespace, pod).await.expect("an identity");
    let output = exec(identity.cluster(), target, argv, None, CAPS, Duration::from_secs(60)).await;
    let cleanup = identity.remove(cluster, &home).await;
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
    let identity = ScanIdentity::create(&cluster, &home, 1, namespace, pod).await.expect("an identity");
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
