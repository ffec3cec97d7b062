//! The arguments by which a scan reaches ledger, cluster, bundle and registries, shared by the commands that need them.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::Args;

use crate::base::exit::Failure;
use crate::base::limits::Limits;
use crate::registry::{Authority, Client, Prefix};
use crate::stage::plan::{Access, BundleSource, ClusterAccess, RegistryAccess};
use crate::stage::registries;

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
    #[command(flatten)]
    pub(crate) connect: ConnectArgs,
}

impl AccessArgs {
    /// The access that these arguments describe. `images` are the registries of image targets: they share --ca and
    /// --plain-http, and get no credentials that were meant for another registry.
    pub(crate) fn access(&self, images: impl Iterator<Item = String>) -> Result<Access, Failure> {
        let mut registries = BTreeMap::new();
        for host in images {
            registries.insert(host, self.connect.access_elsewhere());
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
            let prefix: Prefix =
                registry.parse().map_err(|e: crate::registry::reference::NameError| Failure::usage(e.to_string()))?;
            registries.insert(prefix.registry.to_string(), self.connect.access());
        }
        Ok(Access {
            ledger: self.ledger.clone(),
            cluster: ClusterAccess { kubeconfig: self.kubeconfig.clone(), context: self.context.clone() },
            bundle,
            registries,
        })
    }
}

/// How a registry is reached.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct ConnectArgs {
    /// Trust the CAs in this file (PEM) for the registry, and no other
    #[arg(long, value_name = "FILE", conflicts_with = "plain_http")]
    ca: Option<PathBuf>,
    /// The user; without one, what `docker login` or `skopeo login` left in ~/.docker/config.json is used
    #[arg(long, alias = "user", value_name = "NAME", requires = "password_file")]
    username: Option<String>,
    /// The file whose first line is the user's password
    #[arg(long, value_name = "FILE", requires = "username")]
    password_file: Option<PathBuf>,
    /// Another host that the credentials may be sent to for a token (repeatable)
    #[arg(long, value_name = "HOST[:PORT]")]
    token_host: Vec<Authority>,
    /// Push blobs in chunks of this many bytes, for a proxy that limits the size of a request
    #[arg(long, value_name = "BYTES")]
    chunk_size: Option<NonZeroUsize>,
    /// Use plain HTTP; only for a registry on a loopback address
    #[arg(long)]
    plain_http: bool,
}

impl ConnectArgs {
    /// A client for the registry by these arguments.
    pub(crate) fn client(&self, registry: &Authority, limits: &Limits) -> Result<Client, Failure> {
        Ok(registries::client(registry, &self.access(), limits)?)
    }

    /// The access that these arguments describe.
    pub(crate) fn access(&self) -> RegistryAccess {
        RegistryAccess {
            ca_file: self.ca.clone(),
            username: self.username.clone(),
            password_file: self.password_file.clone(),
            token_hosts: self.token_host.iter().map(ToString::to_string).collect(),
            chunk_bytes: self.chunk_size,
            plain_http: self.plain_http,
        }
    }

    /// The same for another registry: without the credentials, which are not meant for it.
    fn access_elsewhere(&self) -> RegistryAccess {
        RegistryAccess { username: None, password_file: None, token_hosts: Vec::new(), ..self.access() }
    }
}
