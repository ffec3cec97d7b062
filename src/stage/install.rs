//! Installing gapscan into a cluster: the loaded bundle is verified as before a scan, and what the manifests need is found out;
//! what they are is [`crate::cluster::install`]'s.

mod alerts;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::num::NonZeroU16;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use zeroize::Zeroizing;

use super::plan::{
    BundleSource, ClusterAccess, Plan, PlanDocument, PlanError, RegistryAccess, Transport, WaiverPolicy,
};
use super::registries::Registries;
use super::scan::ScanError;
use super::scan::content::Content;
use super::serve::falco::IntakeError;
use crate::base::document::{self, DocumentError};
use crate::base::exit::{Classify, ExitClass};
use crate::base::file::{self, FileError};
use crate::base::limits::Limits;
use crate::base::text::brief;
use crate::cluster::install::{self, Applied, Data, Host, Manifest, Removed, Settings, Storage};
use crate::cluster::objects::ResourceKey;
use crate::cluster::{Cluster, ClusterError};
use crate::model::target::TargetKind;
use crate::registry::{Authority, Prefix};
use crate::trust::approval;
use crate::trust::remembered::Remembered;

/// Bytes of waivers that are given to the runner: a ConfigMap has 1 MiB (Kubernetes, "ConfigMaps"), in base64 and beside the
/// plan.
const WAIVER_BYTES: usize = 600 << 10;

/// What is served where no plan is given.
const PLAN: &str = "\
apiVersion: gapscan/v1
kind: Plan
name: gapscan
scans:
- name: nightly
  all: true
  schedule: {cron: '0 2 * * *', timeZone: UTC, missed: run}
";

/// How long looking up a registry's name may take.
const LOOK_UP: Duration = Duration::from_secs(10);

/// Names of the files with credentials.
const PASSWORD: &str = "password";
const CLIENT_CERT: &str = "client.crt";
const CLIENT_KEY: &str = "client.key";

/// An installation, asked for by a person.
#[derive(Clone, Debug)]
pub struct InstallRequest {
    /// The namespace of the runner.
    pub namespace: String,
    /// The loaded bundle.
    pub bundle: BundleSource,
    /// How its registry is reached.
    pub registry: RegistryAccess,
    /// The cluster, and what its nodes pull with.
    pub cluster: ClusterAccess,
    /// The plan; a scan of everything each night without it.
    pub plan: Option<PathBuf>,
    /// The runner's volume.
    pub storage: Storage,
    /// The port of the runner's pod at which results come by upload; without it they are fetched.
    pub upload_port: Option<NonZeroU16>,
    /// The namespace of Falco's pods, where the plan takes its alerts.
    pub falco_namespace: String,
}

/// Why nothing can be installed.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// What is asked for makes no sense; all problems at once.
    #[error("install: {}", .0.join("; "))]
    Request(Vec<String>),
    /// The plan.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The plan as a document.
    #[error(transparent)]
    Document(#[from] DocumentError),
    /// A file that is to be given to the runner.
    #[error(transparent)]
    File(#[from] FileError),
    /// The bundle.
    #[error(transparent)]
    Bundle(#[from] ScanError),
    /// The cluster.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// A registry's name means nothing here.
    #[error("look up registry `{host}`")]
    LookUp {
        /// Its name.
        host: String,
        /// Why.
        source: std::io::Error,
    },
    /// What Falco's alerts are to be taken with.
    #[error(transparent)]
    Alerts(#[from] IntakeError),
    /// A manifest has no YAML form.
    #[error("write the manifests")]
    Yaml(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl Classify for InstallError {
    fn class(&self) -> ExitClass {
        match self {
            Self::Request(_) => ExitClass::Usage,
            Self::Plan(error) => error.class(),
            Self::Document(error) => error.class(),
            Self::File(error) => error.class(),
            Self::Bundle(error) => error.class(),
            Self::Cluster(error) => error.class(),
            Self::LookUp { .. } => ExitClass::Unreachable,
            Self::Alerts(error) => error.class(),
            Self::Yaml(_) => ExitClass::Bug,
        }
    }

    fn remedy(&self) -> Option<String> {
        match self {
            Self::Bundle(error) => error.remedy(),
            Self::File(error) => error.remedy(),
            Self::Alerts(error) => error.remedy(),
            Self::Cluster(ClusterError::Conflict { .. }) => Some(
                "somebody else set a field of this object: have them give it up, or `gapscan uninstall` and install anew"
                    .to_owned(),
            ),
            Self::Cluster(ClusterError::Missing { .. }) => {
                Some("ValidatingAdmissionPolicies, which bind the runner, need Kubernetes 1.30 or later".to_owned())
            }
            Self::Cluster(error) => error.remedy(),
            Self::LookUp { .. } => Some("name the registry by its address, or see that its name is known here".to_owned()),
            Self::Request(_) | Self::Plan(_) | Self::Document(_) | Self::Yaml(_) => None,
        }
    }
}

/// An installation that is ready to be applied: the bundle verified, the addresses known.
pub struct Prepared {
    cluster: Cluster,
    namespace: String,
    manifests: Vec<Manifest>,
    holds_secrets: bool,
}

impl Prepared {
    /// Verifies the bundle and finds out what the manifests need. Nothing is changed in the cluster.
    ///
    /// # Errors
    /// When the request or the plan makes no sense, the bundle does not verify, or cluster or registry can't be reached.
    pub async fn new(request: InstallRequest, limits: &Limits, now: Timestamp) -> Result<Self, InstallError> {
        let prefix: Prefix =
            request.bundle.registry.parse().map_err(|error: crate::registry::reference::NameError| {
                InstallError::Request(vec![error.to_string()])
            })?;
        let host = prefix.registry.to_string();
        let path = request.plan.as_deref().unwrap_or(Path::new("plan.yaml"));
        let mut document = match &request.plan {
            Some(path) => document::load::<PlanDocument>(path, limits)?,
            None => document::parse(path, PLAN)?,
        };
        let problems = fit(&mut document, &request, &host);
        if !problems.is_empty() {
            return Err(InstallError::Request(problems));
        }
        let waivers = given_waivers(&mut document.policy.waivers, path, limits)?;
        let alerts = alerts::given(&mut document.falco, path, &request, limits)?;
        // As the runner will read it: the bundle that it may ask scanners of is in it now.
        Plan::validated(path, document.clone())?;
        let plan = document::to_yaml(&document).map_err(|error| InstallError::Yaml(error.into()))?;

        let root = text(&request.bundle.root, limits)?;
        let ca = request.registry.ca_file.as_deref().map(|path| text(path, limits)).transpose()?;
        let mut credentials = BTreeMap::new();
        let given = [
            (PASSWORD, &request.registry.password_file),
            (CLIENT_CERT, &request.registry.client_cert_file),
            (CLIENT_KEY, &request.registry.client_key_file),
        ];
        for (name, path) in given {
            if let Some(path) = path {
                let bytes = Zeroizing::new(file::read_capped(path, limits.document_bytes)?);
                credentials.insert(name.to_owned(), bytes);
            }
        }
        let pull_config = match &request.cluster.pull_config_file {
            Some(path) => Some(Zeroizing::new(file::read_capped(path, limits.document_bytes)?)),
            None => None,
        };

        let registries = Registries::new(BTreeMap::from([(host.clone(), request.registry.clone())]), limits.clone());
        let state = request.bundle.state.clone().unwrap_or_else(|| PathBuf::from("gapscan-state"));
        let remembered = Remembered::in_folder(state);
        let content = Content::of_bundle(&request.bundle, &remembered, &registries, limits, now).await?;
        alerts::known(&document, &content, &request.bundle.name)?;
        let image = content.own_image.clone().ok_or_else(|| {
            InstallError::Request(vec![format!("bundle `{}` has no image of gapscan", request.bundle.name)])
        })?;
        let bundle = content.bundle.as_ref().map(|b| format!("{} {}", b.name, b.version)).unwrap_or_default();

        let cluster =
            Cluster::connect(request.cluster.kubeconfig.as_deref(), request.cluster.context.as_deref(), limits).await?;
        let mut hosts = Vec::new();
        for name in document.registries.keys() {
            hosts.push(look_up(name).await?);
        }
        let holds_secrets = !credentials.is_empty() || pull_config.is_some() || alerts.is_some();
        let settings = Settings {
            namespace: request.namespace.clone(),
            image,
            bundle,
            digests: content.images.iter().copied().collect(),
            resources: resources(&content),
            capabilities: content.external.iter().flat_map(|external| external.capabilities()).collect(),
            inputs: secrets(&document),
            services: services(&document),
            plan,
            root,
            ca,
            waivers,
            credentials,
            pull_config,
            storage: request.storage.clone(),
            servers: install::api_servers(&cluster).await?,
            registries: hosts,
            upload_port: request.upload_port,
            alerts,
        };
        let manifests = install::manifests(&settings);
        Ok(Self { cluster, namespace: request.namespace, manifests, holds_secrets })
    }

    /// The manifests as YAML documents, for kubectl.
    ///
    /// # Errors
    /// When one has no YAML form, which would be a bug.
    pub fn yaml(&self) -> Result<String, InstallError> {
        let mut text = String::new();
        for manifest in &self.manifests {
            let document = document::to_yaml(manifest.body()).map_err(|error| InstallError::Yaml(error.into()))?;
            text.push_str("---\n");
            text.push_str(&document);
            if !document.ends_with('\n') {
                text.push('\n');
            }
        }
        Ok(text)
    }

    /// Whether the manifests hold credentials.
    pub fn holds_secrets(&self) -> bool {
        self.holds_secrets
    }

    /// Applies the manifests.
    ///
    /// # Errors
    /// As [`install::apply`].
    pub async fn apply(&self) -> Result<Vec<Applied>, InstallError> {
        Ok(install::apply(&self.cluster, &self.namespace, &self.manifests).await?)
    }

    /// Waits until the runner is ready.
    ///
    /// # Errors
    /// As [`install::ready`].
    pub async fn ready(&self) -> Result<(), InstallError> {
        Ok(install::ready(&self.cluster, &self.namespace).await?)
    }
}

/// Removes the installation of this namespace.
///
/// # Errors
/// When the cluster can't be reached, or denies to look.
pub async fn uninstall(
    access: &ClusterAccess,
    namespace: &str,
    data: Data,
    limits: &Limits,
) -> Result<Removed, InstallError> {
    let cluster = Cluster::connect(access.kubeconfig.as_deref(), access.context.as_deref(), limits).await?;
    Ok(install::remove(&cluster, namespace, data).await?)
}

/// What the cluster profiles of this content read, and what its scanners list there: the runner can hand on only what it has.
pub(crate) fn resources(content: &Content) -> BTreeSet<ResourceKey> {
    let builtin = content
        .builtin
        .iter()
        .filter(|profile| profile.document().targets.contains(&TargetKind::Cluster))
        .flat_map(|profile| profile.resources())
        .map(|r| ResourceKey { group: r.group, version: r.version, resource: r.resource });
    let scanners = content.external.iter().filter(|e| e.document.targets.contains(&TargetKind::Cluster));
    let listed = scanners.filter_map(|e| e.scanner.approaches.cluster.as_ref()).flat_map(|cluster| &cluster.resources);
    // Rights know no versions, and neither do definitions.
    let listed = listed.map(|r| ResourceKey {
        group: r.group().to_owned(),
        version: String::new(),
        resource: r.resource().to_owned(),
    });
    builtin.chain(listed).collect()
}

/// Makes the plan one of the runner's container; what can't be so is said.
fn fit(document: &mut PlanDocument, request: &InstallRequest, host: &str) -> Vec<String> {
    let mut problems = Vec::new();
    if document.ledger.is_some() {
        problems.push("the plan names a ledger, and the runner has its own, on its volume".to_owned());
    }
    if document.cluster != ClusterAccess::default() {
        problems.push(
            "the plan says how the cluster is reached, and the runner is in it; name pullConfigFile by --pull-config"
                .to_owned(),
        );
    }
    if let Some(bundle) = &document.bundle
        && (bundle.name != request.bundle.name || bundle.registry != request.bundle.registry)
    {
        let (name, registry) = (brief(&bundle.name), brief(&bundle.registry));
        problems.push(format!("the plan is for bundle `{name}` in `{registry}`, and another one is named"));
    }
    if document.policy.results.transport == Transport::Upload {
        problems.push(
            "the plan names an address for results, and the runner's own is that of its pod: name a port by --upload-port"
                .to_owned(),
        );
    }
    if request.registry.plain_http {
        problems.push("plain HTTP is for loopback addresses, and those of a pod are its own".to_owned());
    }
    for (name, access) in &document.registries {
        let files = [&access.ca_file, &access.password_file, &access.client_cert_file, &access.client_key_file];
        if name != host && files.iter().any(|file| file.is_some()) {
            problems
                .push(format!("the plan names files for registry `{}`, which the runner does not have", brief(name)));
        }
    }
    for (profile, entries) in &document.inputs {
        let files = entries.iter().filter(|entry| entry.file.is_some());
        problems.extend(files.map(|entry| {
            let (profile, name) = (brief(profile), brief(&entry.name));
            format!(
                "input `{name}` of profile `{profile}` is a file, which the runner does not have; put it into a secret"
            )
        }));
    }
    document.bundle = Some(BundleSource {
        name: request.bundle.name.clone(),
        registry: request.bundle.registry.clone(),
        root: PathBuf::from(install::ROOT_FILE),
        state: None,
    });
    document.cluster.pull_config_file =
        request.cluster.pull_config_file.as_ref().map(|_| PathBuf::from(install::PULL_FILE));
    let secret =
        |given: &Option<PathBuf>, name: &str| given.as_ref().map(|_| Path::new(install::REGISTRY_FOLDER).join(name));
    let registry = &request.registry;
    let access = RegistryAccess {
        ca_file: registry.ca_file.as_ref().map(|_| PathBuf::from(install::CA_FILE)),
        password_file: secret(&registry.password_file, PASSWORD),
        client_cert_file: secret(&registry.client_cert_file, CLIENT_CERT),
        client_key_file: secret(&registry.client_key_file, CLIENT_KEY),
        ..registry.clone()
    };
    document.registries.insert(host.to_owned(), access);
    problems
}

/// The secrets that the plan takes inputs from.
fn secrets(document: &PlanDocument) -> BTreeSet<(String, String)> {
    let keys = document.inputs.values().flatten().filter_map(|entry| entry.secret.as_ref());
    keys.map(|key| (key.namespace().to_owned(), key.name().to_owned())).collect()
}

/// The services that the plan lets scanners talk to.
fn services(document: &PlanDocument) -> BTreeSet<(String, String)> {
    let all = document.policy.scanner_egress.values().flat_map(|names| names.values());
    all.map(|port| (port.namespace().to_owned(), port.service().to_owned())).collect()
}

/// What the plan's waivers need, by the names that the runner has it under, which the plan names then.
fn given_waivers(
    policy: &mut WaiverPolicy,
    plan: &Path,
    limits: &Limits,
) -> Result<BTreeMap<String, Vec<u8>>, InstallError> {
    let folder = plan.parent().unwrap_or(Path::new("."));
    let mut given = BTreeMap::new();
    for (number, file) in (1..).zip(&mut policy.files) {
        let (path, name) = (folder.join(&*file), format!("waivers-{number}.yaml"));
        given.insert(name.clone(), file::read_capped(&path, limits.document_bytes)?);
        for signature in approval::beside(&path)? {
            given.insert(format!("{name}.{}.sig", signature.digits), signature.bytes);
        }
        *file = PathBuf::from(name);
    }
    for (number, file) in (1..).zip(&mut policy.approvers) {
        let name = format!("approver-{number}.pub");
        given.insert(name.clone(), file::read_capped(&folder.join(&*file), limits.document_bytes)?);
        *file = PathBuf::from(name);
    }
    let bytes: usize = given.values().map(Vec::len).sum();
    if bytes > WAIVER_BYTES {
        let why = format!(
            "the plan's waivers have {bytes} bytes with their signatures, and a ConfigMap takes {WAIVER_BYTES}"
        );
        return Err(InstallError::Request(vec![why]));
    }
    Ok(given)
}

fn text(path: &Path, limits: &Limits) -> Result<String, InstallError> {
    Ok(document::text(path, limits)?)
}

/// The addresses of a registry.
async fn look_up(name: &str) -> Result<Host, InstallError> {
    let refuse = |why: String| InstallError::Request(vec![why]);
    let authority: Authority =
        name.parse().map_err(|error: crate::registry::reference::NameError| refuse(error.to_string()))?;
    let port = authority.port().unwrap_or(443);
    if authority.is_loopback() {
        return Err(refuse(format!("registry `{authority}` is a loopback address, which is another one in a pod")));
    }
    if let Ok(address) = authority.host().parse::<IpAddr>() {
        return Ok(Host { name: None, addresses: BTreeSet::from([address]), port });
    }
    let failed = |source| InstallError::LookUp { host: authority.to_string(), source };
    let looking = tokio::time::timeout(LOOK_UP, tokio::net::lookup_host((authority.host(), port)));
    let found = looking.await.map_err(|_| failed(std::io::ErrorKind::TimedOut.into()))?.map_err(failed)?;
    let addresses = found.map(|address| address.ip()).collect();
    Ok(Host { name: Some(authority.host().to_owned()), addresses, port })
}

#[cfg(test)]
mod tests;
