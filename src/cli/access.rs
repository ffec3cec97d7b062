//! The arguments by which a scan reaches ledger, cluster, bundle and registries, shared by the commands that need them.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::Args;

use crate::base::exit::Failure;
use crate::registry::Prefix;
use crate::stage::plan::{Access, BundleSource, ClusterAccess, RegistryAccess};

/// The ledger without `--ledger` and `GAPSCAN_LEDGER`: in the current folder.
pub(crate) const DEFAULT_LEDGER: &str = "gapscan-ledger.sqlite";

/// How everything that a scan needs is reached.
#[derive(Debug, Args)]
pub(crate) struct AccessArgs {
    /// The ledger; made if it is not there.
    #[arg(short = 'L', long, env = "GAPSCAN_LEDGER", default_value = DEFAULT_LEDGER, value_name = "FILE")]
    pub(crate) ledger: PathBuf,
    /// The kubeconfig; without it KUBECONFIG, ~/.kube/config, or the pod's own service account.
    #[arg(long, value_name = "FILE")]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// A context of the kubeconfig.
    #[arg(long, value_name = "NAME")]
    pub(crate) context: Option<String>,
    /// A loaded bundle to take scanners, profiles and databases from; needs --registry and --root.
    #[arg(long, value_name = "NAME", requires = "registry", requires = "root")]
    pub(crate) bundle: Option<String>,
    /// The registry that the bundle was loaded into.
    #[arg(long, value_name = "HOST[:PORT][/PREFIX]")]
    pub(crate) registry: Option<String>,
    /// The pinned root that vouches for the bundle.
    #[arg(long, value_name = "FILE")]
    pub(crate) root: Option<PathBuf>,
    /// The folder that remembers which versions were seen; without it `gapscan-state` beside the ledger.
    #[arg(long, value_name = "FOLDER")]
    pub(crate) state: Option<PathBuf>,
    /// CA certificates (PEM) for --registry and for the registries of image targets; no other CA is trusted for these then.
    #[arg(long, value_name = "FILE")]
    pub(crate) ca: Option<PathBuf>,
    /// A user for --registry; needs --password-file.
    #[arg(long, value_name = "NAME", requires = "password_file")]
    pub(crate) username: Option<String>,
    /// A file with that user's password.
    #[arg(long, value_name = "FILE", requires = "username")]
    pub(crate) password_file: Option<PathBuf>,
    /// HTTP without TLS, which is refused for anything but loopback addresses.
    #[arg(long)]
    pub(crate) plain_http: bool,
}

impl AccessArgs {
    /// The access that these arguments describe. `images` are the registries of image targets: they share --ca and
    /// --plain-http, and get no credentials that were meant for another registry.
    pub(crate) fn access(&self, images: impl Iterator<Item = String>) -> Result<Access, Failure> {
        let mut registries = BTreeMap::new();
        for host in images {
            let access = RegistryAccess { ca_file: self.ca.clone(), plain_http: self.plain_http, ..RegistryAccess::default() };
            registries.insert(host, access);
        }
        let bundle = match (&self.bundle, &self.registry, &self.root) {
            (Some(name), Some(registry), Some(root)) => Some(BundleSource {
                name: name.clone(),
                registry: registry.clone(),
                root: root.clone(),
                state: self.state.clone(),
            }),
            _ => None,
        };
        if let Some(registry) = &self.registry {
            let prefix: Prefix = registry.parse().map_err(|e: crate::registry::reference::NameError| Failure::usage(e.to_string()))?;
            let access = RegistryAccess {
                ca_file: self.ca.clone(),
                username: self.username.clone(),
                password_file: self.password_file.clone(),
                plain_http: self.plain_http,
            };
            registries.insert(prefix.registry.to_string(), access);
        }
        Ok(Access {
            ledger: self.ledger.clone(),
            cluster: ClusterAccess { kubeconfig: self.kubeconfig.clone(), context: self.context.clone() },
            bundle,
            registries,
        })
    }
}
