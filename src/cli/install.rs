//! `gapscan install`: gapscan into a cluster.

use std::num::NonZeroU16;
use std::path::PathBuf;

use clap::Args as ClapArgs;
use jiff::Timestamp;

use super::access::{ConnectArgs, REGISTRY, bundle_name};
use crate::base::exit::{ExitClass, Outcome};
use crate::base::limits::Limits;
use crate::base::text::printable;
use crate::cluster::install::{Change, Storage};
use crate::registry::Prefix;
use crate::stage::install::{InstallRequest, Prepared};
use crate::stage::plan::{BundleSource, ClusterAccess};

/// Install the runner into the cluster, which serves a plan there, and the policies that bind it
///
/// The loaded bundle is verified first, and its images are named by their digests. Run again after each load, it takes the
/// new bundle into use; where nothing is to be changed, nothing is. Fields that somebody else set are not overruled.
#[derive(Debug, ClapArgs)]
pub(super) struct Args {
    /// The loaded bundle to install from
    #[arg(long, value_name = "NAME", value_parser = bundle_name, help_heading = REGISTRY)]
    bundle: String,
    /// The registry that the bundle was loaded into, as the cluster's nodes and pods name it
    #[arg(long, value_name = "HOST[:PORT][/PREFIX]", help_heading = REGISTRY)]
    registry: Prefix,
    /// The pinned root that vouches for the bundle; the runner gets it, too
    #[arg(long, value_name = "FILE", help_heading = REGISTRY)]
    root: PathBuf,
    /// The folder that remembers which versions were seen
    #[arg(long, value_name = "DIR", default_value = "gapscan-state", help_heading = REGISTRY)]
    state: PathBuf,
    #[command(flatten)]
    connect: ConnectArgs,
    /// The plan to serve [default: the whole cluster, each night at 2:00 UTC]
    #[arg(short = 'f', long, value_name = "FILE")]
    plan: Option<PathBuf>,
    /// The namespace of the runner
    #[arg(short, long, value_name = "NAME", default_value = "gapscan", value_parser = namespace)]
    namespace: String,
    /// The storage class of the volume for ledger, state and key [default: the cluster's]
    #[arg(long, value_name = "NAME")]
    storage_class: Option<String>,
    /// The size of that volume
    #[arg(long, value_name = "QUANTITY", default_value = "10Gi")]
    storage_size: String,
    /// Let scanners in pods of their own send their results to the runner, at this port of its pod, instead of having the
    /// runner fetch them by a command in the pod. Without it nobody may connect to the runner
    #[arg(long, value_name = "PORT", value_parser = port)]
    upload_port: Option<NonZeroU16>,
    /// The namespace of Falco's pods, where the plan takes its alerts: those with the label `app.kubernetes.io/name: falco` may
    /// connect to the runner, at the port that the plan names
    #[arg(long, value_name = "NAME", default_value = "falco", value_parser = namespace)]
    falco_namespace: String,
    /// The kubeconfig [default: $KUBECONFIG, ~/.kube/config, or the pod's own service account]
    #[arg(long, value_name = "FILE", help_heading = "Cluster")]
    kubeconfig: Option<PathBuf>,
    /// The context of the kubeconfig [default: its current one]
    #[arg(long, value_name = "NAME", help_heading = "Cluster")]
    context: Option<String>,
    /// A Docker configuration (config.json) that the nodes pull with, the runner's own image, too
    #[arg(long, value_name = "FILE", help_heading = "Cluster")]
    pull_config: Option<PathBuf>,
    /// Print the manifests for kubectl, and change nothing in the cluster; with them the credentials that are given by files
    #[arg(long)]
    dry_run: bool,
}

/// The name of a namespace that leaves room for what is named after it (RFC 1123 label).
pub(super) fn namespace(text: &str) -> Result<String, String> {
    let fits = crate::stage::plan::is_name(text) && text.len() <= 40 && !text.ends_with('-');
    match fits {
        true => Ok(text.to_owned()),
        false => Err("a namespace is at most 40 lower-case letters, digits and hyphens, a letter first".to_owned()),
    }
}

/// A port that a process without privileges can listen on.
fn port(text: &str) -> Result<NonZeroU16, String> {
    let port: Option<NonZeroU16> = text.parse().ok();
    port.filter(|port| port.get() >= 1024).ok_or_else(|| "a port is a number from 1024 to 65535".to_owned())
}

impl Args {
    pub(super) async fn run(self) -> Outcome {
        let limits = Limits::default();
        let request = InstallRequest {
            namespace: self.namespace.clone(),
            bundle: BundleSource {
                name: self.bundle,
                registry: self.registry.to_string(),
                root: self.root,
                state: Some(self.state),
            },
            registry: self.connect.access(),
            cluster: ClusterAccess {
                kubeconfig: self.kubeconfig,
                context: self.context,
                pull_config_file: self.pull_config,
            },
            plan: self.plan,
            storage: Storage { class: self.storage_class, size: self.storage_size },
            upload_port: self.upload_port,
            falco_namespace: self.falco_namespace,
        };
        let prepared = Prepared::new(request, &limits, Timestamp::now()).await?;
        if self.dry_run {
            if prepared.holds_secrets() {
                eprintln!("gapscan: what is printed holds credentials");
            }
            print!("{}", prepared.yaml()?);
            return Ok(ExitClass::Success);
        }
        let applied = prepared.apply().await?;
        for one in &applied {
            println!("{} {}", word(one.change), printable(&one.object));
        }
        eprintln!("waiting for the runner");
        prepared.ready().await?;
        match applied.iter().all(|one| one.change == Change::Unchanged) {
            true => eprintln!("nothing was changed; the runner is ready"),
            false => eprintln!("installed; the runner is ready"),
        }
        Ok(ExitClass::Success)
    }
}

fn word(change: Change) -> &'static str {
    match change {
        Change::Created => "created",
        Change::Changed => "changed",
        Change::Unchanged => "unchanged",
        Change::Removed => "removed",
    }
}
