//! `gapscan inject`: gapscan's agent as a sidecar in somebody's manifest.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use clap::{Args as ClapArgs, ValueEnum};
use jiff::Timestamp;

use super::access::{ConnectArgs, REGISTRY, bundle_name};
use crate::base::document;
use crate::base::exit::{ExitClass, Failure, Outcome};
use crate::base::limits::Limits;
use crate::base::text::printable;
use crate::cluster::access::auto::User;
use crate::model::target::TargetSpec;
use crate::registry::Prefix;
use crate::stage::inject::{InjectRequest, OwnImage, Subject, json, run, yaml};
use crate::stage::plan::{BundleSource, ClusterAccess};

/// Add gapscan as a sidecar to a manifest, or write out a copy of a running pod with it
///
/// What is printed is for kubectl apply; what was changed is told on stderr, and nothing is changed in a cluster. Pods,
/// Deployments, StatefulSets, DaemonSets, ReplicaSets, Jobs, CronJobs and lists of them get the sidecar (Kubernetes 1.29 or
/// later); other objects stay as they are, and comments go. A second time changes nothing. Pods that run with it are
/// scanned through it by `gapscan scan pod/NS/NAME --approach sidecar`.
#[derive(Debug, ClapArgs)]
pub(super) struct Args {
    /// The manifests, as YAML or JSON; - for standard input; pod/NS/NAME[/CONTAINER] for a copy of that pod, without its
    /// labels, secrets, configuration and account
    #[arg(value_name = "FILE")]
    subject: String,
    /// The container that is to be looked at, where a pod has several
    #[arg(short, long, value_name = "NAME")]
    container: Option<String>,
    /// The user and group that it runs as, where the manifest does not name them: the agent must run as the same
    #[arg(long, value_name = "UID:GID")]
    user: Option<UserArgument>,
    /// gapscan's own image, by its digest as HOST/REPOSITORY@sha256:...
    #[arg(long, value_name = "REF", required_unless_present = "bundle", conflicts_with = "bundle")]
    image: Option<String>,
    /// The loaded bundle to take the image from, verified; needs --registry and --root
    #[arg(long, value_name = "NAME", value_parser = bundle_name, requires = "registry", requires = "root", help_heading = REGISTRY)]
    bundle: Option<String>,
    /// The registry that the bundle was loaded into, as the cluster's nodes name it
    #[arg(long, value_name = "HOST[:PORT][/PREFIX]", help_heading = REGISTRY)]
    registry: Option<Prefix>,
    /// The pinned root that vouches for the bundle
    #[arg(long, value_name = "FILE", help_heading = REGISTRY)]
    root: Option<PathBuf>,
    /// The folder that remembers which versions were seen
    #[arg(long, value_name = "DIR", default_value = "gapscan-state", help_heading = REGISTRY)]
    state: PathBuf,
    #[command(flatten)]
    connect: ConnectArgs,
    /// The kubeconfig [default: $KUBECONFIG, ~/.kube/config, or the pod's own service account]
    #[arg(long, value_name = "FILE", help_heading = "Cluster")]
    kubeconfig: Option<PathBuf>,
    /// The context of the kubeconfig [default: its current one]
    #[arg(long, value_name = "NAME", help_heading = "Cluster")]
    context: Option<String>,
    /// How to print the manifests
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value_t = Form::Yaml)]
    output: Form,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Form {
    /// YAML documents
    Yaml,
    /// JSON; several documents as a list
    Json,
}

/// `UID:GID`.
#[derive(Clone, Copy, Debug)]
struct UserArgument(User);

impl FromStr for UserArgument {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = |text: &str| text.parse::<u32>().ok().map(i64::from);
        let parsed = text.split_once(':').and_then(|(uid, gid)| Some(User { uid: number(uid)?, gid: number(gid)? }));
        parsed.map(Self).ok_or_else(|| "it must be two numbers, as 65532:65532".to_owned())
    }
}

impl Args {
    pub(super) async fn run(self) -> Outcome {
        let limits = Limits::default();
        let (subject, named) = self.subject(&limits)?;
        let container = match (named, &self.container) {
            (Some(named), Some(asked)) if named != *asked => {
                return Err(Failure::usage("inject: the target names one container, and --container another"));
            }
            (named, asked) => named.or_else(|| asked.clone()),
        };
        let image = match (self.image, self.bundle, self.registry, self.root) {
            (Some(image), ..) => OwnImage::Named(image),
            (None, Some(name), Some(registry), Some(root)) => OwnImage::OfBundle {
                bundle: BundleSource { name, registry: registry.to_string(), root, state: Some(self.state) },
                registry: Box::new(self.connect.access()),
            },
            _ => return Err(Failure::usage("inject: neither --image nor --bundle is given")),
        };
        let request = InjectRequest { subject, image, container, user: self.user.map(|user| user.0) };
        let injected = run(request, &limits, Timestamp::now()).await?;
        for one in &injected.changed {
            match one.changes.is_empty() {
                true => say(&format!("{}: all is there, nothing is changed", one.at)),
                false => say(&format!("{}: {}", one.at, one.changes.join("; "))),
            }
        }
        for at in &injected.passed_over {
            say(&format!("{at}: it has no such container, and stays as it is"));
        }
        for note in &injected.notes {
            say(&format!("other than the original: {note}"));
        }
        match self.output {
            Form::Yaml => print!("{}", yaml(&injected.documents)?),
            Form::Json => println!("{:#}", json(&injected.documents)),
        }
        Ok(ExitClass::Success)
    }

    /// What is to have the agent, and the container that its name names.
    fn subject(&self, limits: &Limits) -> Result<(Subject, Option<String>), Failure> {
        if self.subject.starts_with("pod/") {
            let target: TargetSpec = self.subject.parse().map_err(|error| {
                Failure::usage(format!("{error}")).with_remedy("a file in a folder `pod` is named as ./pod/...")
            })?;
            if let TargetSpec::Pod { namespace, pod, container } = target {
                if self.user.is_some() {
                    return Err(Failure::usage("inject: a running pod says itself as whom it runs; leave out --user"));
                }
                let cluster = ClusterAccess {
                    kubeconfig: self.kubeconfig.clone(),
                    context: self.context.clone(),
                    pull_config_file: None,
                };
                return Ok((Subject::Pod { cluster, namespace, pod }, container));
            }
        }
        if self.subject == "-" {
            let mut bytes = Vec::new();
            let mut input = std::io::stdin().lock().take(limits.document_bytes + 1);
            let failed = |error: &dyn std::fmt::Display| {
                Failure::new(ExitClass::Unreachable, format!("read standard input: {error}"))
            };
            input.read_to_end(&mut bytes).map_err(|error| failed(&error))?;
            if bytes.len() as u64 > limits.document_bytes {
                return Err(Failure::usage(format!(
                    "read standard input: it has more than {} bytes",
                    limits.document_bytes
                )));
            }
            let text = String::from_utf8(bytes).map_err(|_| Failure::usage("read standard input: it is no UTF-8"))?;
            return Ok((Subject::Manifests { path: PathBuf::from("standard input"), text }, None));
        }
        let path = Path::new(&self.subject);
        Ok((Subject::Manifests { path: path.to_owned(), text: document::text(path, limits)? }, None))
    }
}

fn say(text: &str) {
    eprintln!("{}", printable(text));
}
