//! What the cluster's nodes pull the images of a scan with, where their registry asks for credentials.
//!
//! The runner's own credentials are never given away. Where the operator names a Docker configuration for the nodes, its entry
//! for the registry is used; else gapscan's own registry is asked for a token that may read exactly the repositories of these
//! images; else there is nothing, and the nodes pull with what they have.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::error::ScanError;
use super::image::registry_failed;
use super::unit::NotDone;
use crate::base::exit::Classify;
use crate::base::limits::Limits;
use crate::cluster::pull::PullSecret;
use crate::model::reason::Reason;
use crate::registry::{Authority, Credentials, Reference, Repository};
use crate::stage::registries::Registries;

/// How long a token lasts: twice as long as the pods of a scan may take to be started.
const LASTS: Duration = Duration::from_secs(600);

/// Where credentials for nodes come from.
#[derive(Clone, Debug)]
pub(crate) struct Pulling {
    config: Option<PathBuf>,
}

impl Pulling {
    /// `config` is the operator's Docker configuration for nodes.
    ///
    /// # Errors
    /// When it can't be read: nobody should wait for pods that can't be pulled.
    pub(crate) fn new(config: Option<&Path>, limits: &Limits) -> Result<Self, ScanError> {
        if let Some(path) = config {
            let refuse = |why: String| ScanError::Request(format!("no node can pull with `{}`: {why}", path.display()));
            if !path.is_file() {
                return Err(refuse("there is no such file".to_owned()));
            }
            let any: Authority = "registry.invalid".parse().expect("it is the name of a host");
            if let Err(error) = Credentials::from_docker_config(path, &any, limits) {
                let remedy = error.remedy().unwrap_or_default();
                return Err(refuse(format!("{} {remedy}", super::error::chain(&error)).trim_end().to_owned()));
            }
        }
        Ok(Self { config: config.map(Path::to_owned) })
    }

    /// What to tell the operator where there is no secret for this image: that the runner has a password for its registry, and
    /// the nodes were given none.
    pub(crate) fn hint(image: &str, registries: &Registries) -> Option<String> {
        let registry = image.parse::<Reference>().ok()?.registry;
        let client = registries.client(&registry).ok()?;
        client.has_credentials().then(|| {
            format!(
                "nodes get no credentials for registry `{registry}`; where they have none of their own and it asks for \
                 some, name them with --pull-config, or in a plan with cluster.pullConfigFile"
            )
        })
    }

    /// The secret that these images, each `HOST/REPOSITORY@DIGEST`, are pulled with; `None` where there is none to be had.
    pub(crate) async fn secret<'i>(
        &self,
        images: impl IntoIterator<Item = &'i str>,
        registries: &Registries,
        limits: &Limits,
    ) -> Result<Option<PullSecret>, NotDone> {
        let mut wanted: BTreeMap<Authority, Vec<Repository>> = BTreeMap::new();
        for image in images {
            let image: Reference = image.parse().map_err(|e| NotDone::because(Reason::ImagePullFailed, &e))?;
            let repositories = wanted.entry(image.registry).or_default();
            if !repositories.contains(&image.repository) {
                repositories.push(image.repository);
            }
        }
        let mut found = Vec::new();
        for (registry, repositories) in wanted {
            let named = match &self.config {
                Some(path) => Credentials::from_docker_config(path, &registry, limits)
                    .map_err(|e| NotDone::because(Reason::ImagePullFailed, &e))?,
                None => None,
            };
            let credentials = match named {
                Some(credentials) => Some(credentials),
                None => {
                    let client =
                        registries.client(&registry).map_err(|e| NotDone::because(Reason::RegistryUnreachable, &e))?;
                    let given = client.pull_credentials(&repositories, LASTS).await.map_err(|e| registry_failed(&e))?;
                    given.map(|given| given.credentials)
                }
            };
            found.extend(credentials.map(|credentials| (registry, credentials)));
        }
        let entries = found.iter().map(|(registry, credentials)| (registry, credentials));
        Ok((!found.is_empty()).then(|| PullSecret::new(Credentials::docker_config(entries))))
    }
}
