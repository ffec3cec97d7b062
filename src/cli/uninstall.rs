//! `gapscan uninstall`: what `install` put into a cluster, removed.

use std::path::PathBuf;

use clap::Args as ClapArgs;

use super::install::namespace;
use crate::base::exit::{ExitClass, Failure, Outcome};
use crate::base::limits::Limits;
use crate::base::text::printable;
use crate::cluster::install::Data;
use crate::stage::install::uninstall;
use crate::stage::plan::ClusterAccess;

/// Remove what install put into the cluster, and wait until it is gone
///
/// The runner ends what runs and removes what its scans made, before its rights go. The volume with the ledger stays, and
/// its namespace with it, unless --delete-data is given.
#[derive(Debug, ClapArgs)]
pub(super) struct Args {
    /// The namespace of the runner
    #[arg(short, long, value_name = "NAME", default_value = "gapscan", value_parser = namespace)]
    namespace: String,
    /// Remove the volume, too: the ledger with every result, the runner's key and what it remembers
    #[arg(long)]
    delete_data: bool,
    /// The kubeconfig [default: $KUBECONFIG, ~/.kube/config, or the pod's own service account]
    #[arg(long, value_name = "FILE", help_heading = "Cluster")]
    kubeconfig: Option<PathBuf>,
    /// The context of the kubeconfig [default: its current one]
    #[arg(long, value_name = "NAME", help_heading = "Cluster")]
    context: Option<String>,
}

impl Args {
    pub(super) async fn run(self) -> Outcome {
        let access = ClusterAccess { kubeconfig: self.kubeconfig, context: self.context, pull_config_file: None };
        let data = if self.delete_data { Data::Delete } else { Data::Keep };
        let outcome = uninstall(&access, &self.namespace, data, &Limits::default()).await?;
        for (word, objects) in
            [("removed", &outcome.removed), ("kept", &outcome.kept), ("remaining", &outcome.remaining)]
        {
            for object in objects {
                println!("{word} {}", printable(object));
            }
        }
        if outcome.removed.is_empty() && outcome.remaining.is_empty() {
            eprintln!("nothing was there to remove");
        }
        if !outcome.runs.is_empty() {
            let runs = printable(&outcome.runs.join(", ")).into_owned();
            eprintln!("there are namespaces of runs, which a scan from elsewhere may still need: {runs}");
        }
        match outcome.remaining.is_empty() {
            true => Ok(ExitClass::Success),
            false => Err(Failure::new(ExitClass::Unreachable, "see that everything is gone")
                .with_remedy("see what holds the objects that remain, and run it again")),
        }
    }
}
