//! The arguments by which a scan reaches ledger, cluster, bundle and registries, shared by the commands that need them.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::Args;

use crate::registry::{Authority, Prefix};
use crate::stage::plan::{Access, BundleSource, ClusterAccess, RegistryAccess};

/// The ledger without `--ledger` and `GAPSCAN_LEDGER`: in the current folder.
pub(crate) const DEFAULT_LEDGER: &str = "gapscan-ledger.sqlite";

/// The heading in the help of everything about bundles and registries.
pub(crate) const REGISTRY: &str = "Bundle and registry";

/// Where the ledger is.
#[derive(Clone, Debug, Args)]
pub(crate) struct LedgerPath {
    /// The ledger; its key, lock and head file are beside it
    #[arg(short = 'L', long = "ledger", env = "GAPSCAN_LEDGER", value_name = "FILE", default_value = DEFAULT_LEDGER)]
    pub(crate) path: PathBuf,
}

/// How everything that a scan needs is reached.
#[derive(Debug, Args)]
pub(crate) struct AccessArgs {
    #[command(flatten)]
    pub(crate) ledger: LedgerPath,
    #[command(flatten)]
    pub(crate) reach: ReachArgs,
}

/// How everything is reached but the ledger.
#[derive(Debug, Args)]
pub(crate) struct ReachArgs {
    /// The kubeconfig [default: $KUBECONFIG, ~/.kube/config, or the pod's own service account]
    #[arg(long, value_name = "FILE", help_heading = "Cluster")]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// The context of the kubeconfig [default: its current one]
    #[arg(long, value_name = "NAME", help_heading = "Cluster")]
    pub(crate) context: Option<String>,
    /// A Docker configuration (config.json) that the nodes pull with: of each registry that the scan's pods are pulled from,
    /// its entry is in a secret of the scan's namespace while the scan goes on. The embedded registry needs none: it is asked
    /// for a token
    #[arg(long, value_name = "FILE", help_heading = "Cluster")]
    pub(crate) pull_config: Option<PathBuf>,
    /// The loaded bundle to take scanners, profiles and databases from, verified again; needs --registry and --root
    #[arg(long, value_name = "NAME", value_parser = bundle_name, requires = "registry", requires = "root", help_heading = REGISTRY)]
    pub(crate) bundle: Option<String>,
    /// The registry that the bundle was loaded into
    #[arg(long, value_name = "HOST[:PORT][/PREFIX]", help_heading = REGISTRY)]
    pub(crate) registry: Option<Prefix>,
    /// The pinned root that vouches for the bundle
    #[arg(long, value_name = "FILE", help_heading = REGISTRY)]
    pub(crate) root: Option<PathBuf>,
    /// The folder that remembers which versions were seen [default: gapscan-state beside the ledger]
    #[arg(long, value_name = "DIR", help_heading = REGISTRY)]
    pub(crate) state: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) connect: ConnectArgs,
}

impl AccessArgs {
    /// The access that these arguments describe, as [`ReachArgs::access`].
    pub(crate) fn access(&self, images: impl Iterator<Item = String>) -> Access {
        self.reach.access(self.ledger.path.clone(), images)
    }
}

impl ReachArgs {
    /// The access that these arguments describe. `images` are the registries of image targets: they share --ca and
    /// --plain-http, and get no credentials that were meant for another registry.
    pub(crate) fn access(&self, ledger: PathBuf, images: impl Iterator<Item = String>) -> Access {
        let mut registries = BTreeMap::new();
        for host in images {
            registries.insert(host, self.connect.access_elsewhere());
        }
        let bundle = match (&self.bundle, &self.registry, &self.root) {
            (Some(name), Some(registry), Some(root)) => Some(BundleSource {
                name: name.clone(),
                registry: registry.to_string(),
                root: root.clone(),
                state: self.state.clone(),
            }),
            _ => None,
        };
        if let Some(registry) = &self.registry {
            registries.insert(registry.registry.to_string(), self.connect.access());
        }
        Access {
            ledger,
            cluster: ClusterAccess {
                kubeconfig: self.kubeconfig.clone(),
                context: self.context.clone(),
                pull_config_file: self.pull_config.clone(),
            },
            bundle,
            registries,
            inputs: BTreeMap::new(),
        }
    }
}

/// How a registry is reached.
#[derive(Clone, Debug, Args)]
pub(crate) struct ConnectArgs {
    /// Trust the CAs in this file (PEM) for the registry, and no other
    #[arg(long, value_name = "FILE", conflicts_with = "plain_http", help_heading = REGISTRY)]
    ca: Option<PathBuf>,
    /// The user at the registry [default: what `docker login` or `skopeo login` left in ~/.docker/config.json]
    #[arg(long, value_name = "NAME", requires = "password_file", help_heading = REGISTRY)]
    username: Option<String>,
    /// The file whose first line is the user's password
    #[arg(long, value_name = "FILE", requires = "username", help_heading = REGISTRY)]
    password_file: Option<PathBuf>,
    /// The certificate (PEM, with its chain) to show to a registry that asks for one
    #[arg(
        long,
        value_name = "FILE",
        requires = "client_key",
        conflicts_with = "plain_http",
        help_heading = REGISTRY
    )]
    client_cert: Option<PathBuf>,
    /// The unencrypted key of that certificate (PEM)
    #[arg(long, value_name = "FILE", requires = "client_cert", help_heading = REGISTRY)]
    client_key: Option<PathBuf>,
    /// Another host that the credentials may be sent to for a token; can be given several times
    #[arg(long, value_name = "HOST[:PORT]", help_heading = REGISTRY)]
    token_host: Vec<Authority>,
    /// Use plain HTTP; only for a registry on a loopback address
    #[arg(long, help_heading = REGISTRY)]
    plain_http: bool,
}

impl ConnectArgs {
    /// The access that these arguments describe.
    pub(crate) fn access(&self) -> RegistryAccess {
        RegistryAccess {
            ca_file: self.ca.clone(),
            username: self.username.clone(),
            password_file: self.password_file.clone(),
            client_cert_file: self.client_cert.clone(),
            client_key_file: self.client_key.clone(),
            token_hosts: self.token_host.iter().map(ToString::to_string).collect(),
            chunk_bytes: None,
            plain_http: self.plain_http,
        }
    }

    /// The same for another registry: without the credentials, which are not meant for it.
    fn access_elsewhere(&self) -> RegistryAccess {
        RegistryAccess {
            username: None,
            password_file: None,
            client_cert_file: None,
            client_key_file: None,
            token_hosts: Vec::new(),
            ..self.access()
        }
    }
}

/// A bundle is named without its version: the newest that was loaded is used, and none older than one seen before.
pub(super) fn bundle_name(text: &str) -> Result<String, String> {
    if crate::bundle::name::is_name(text) {
        return Ok(text.to_owned());
    }
    Err("a bundle's name is lower-case letters, digits and single hyphens, without its version".to_owned())
}
