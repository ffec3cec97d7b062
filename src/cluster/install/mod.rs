//! What an installation puts into a cluster: manifests, which are a pure function of [`Settings`], and how they are applied
//! and removed.

mod admission;
mod alerts;
mod apply;
mod namespace;
mod network;
mod rbac;
mod remove;
mod runner;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU16;

use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::object::{MANAGED_BY, MANAGED_BY_VALUE, ObjectRef, named};
use super::objects::ResourceKey;
use crate::base::digest::Digest;
use crate::model::scanner::Capability;

pub use super::canary::api_servers;
pub use alerts::{ALERTS, ALERTS_FOLDER, Alerts};
pub use apply::{Applied, Change, apply, ready};
pub use rbac::{Permission, Scope, permissions};
pub use remove::{Data, Removed, remove};
pub use runner::{CA_FILE, PLAN_FOLDER, PULL_FILE, REGISTRY_FOLDER, ROOT_FILE};

/// The label that names the program.
pub(crate) const NAME: &str = "app.kubernetes.io/name";
/// The label that names the installation, by its namespace.
pub(crate) const INSTANCE: &str = "app.kubernetes.io/instance";

/// What an installation is made of.
pub struct Settings {
    /// The namespace of the runner, which names the installation.
    pub namespace: String,
    /// gapscan's own image, as `HOST/REPOSITORY@sha256:…`.
    pub image: String,
    /// The bundle's name and version, for people.
    pub bundle: String,
    /// The digests of the images that containers of scans may run.
    pub digests: BTreeSet<Digest>,
    /// What the profiles read of the cluster.
    pub resources: BTreeSet<ResourceKey>,
    /// What scanners of the bundle may do on nodes besides reading everything.
    pub capabilities: BTreeSet<Capability>,
    /// Secrets that the plan takes inputs from, by namespace and name: the runner may get these, each by its name.
    pub inputs: BTreeSet<(String, String)>,
    /// Services that the plan lets scanners talk to, by namespace and name: the runner may look where they lead.
    pub services: BTreeSet<(String, String)>,
    /// The plan, with paths as they are in the runner's container.
    pub plan: String,
    /// The pinned root.
    pub root: String,
    /// The CA of the registry.
    pub ca: Option<String>,
    /// The documents of waivers, the signatures over them, and the keys of those who may approve, by name.
    pub waivers: BTreeMap<String, Vec<u8>>,
    /// Files with credentials for the registry by name; below [`REGISTRY_FOLDER`] in the container.
    pub credentials: BTreeMap<String, Zeroizing<Vec<u8>>>,
    /// The Docker configuration that nodes pull with.
    pub pull_config: Option<Zeroizing<Vec<u8>>>,
    /// Where the ledger, the state and the runner's key are kept.
    pub storage: Storage,
    /// Where the API server is reached after any service's address was translated.
    pub servers: BTreeSet<SocketAddr>,
    /// The registries that the runner talks to.
    pub registries: Vec<Host>,
    /// The port of the runner's pod at which it takes results; without it nobody may connect to the runner.
    pub upload_port: Option<NonZeroU16>,
    /// How Falco's alerts reach the runner, where its plan takes them.
    pub alerts: Option<Alerts>,
}

/// The runner's volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Storage {
    /// Its storage class; the cluster's default one without it.
    pub class: Option<String>,
    /// Its size, as `10Gi`.
    pub size: String,
}

/// A host that the runner talks to, with what its name stood for when it was looked up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// Its name, where it is none of its addresses.
    pub name: Option<String>,
    /// Its addresses.
    pub addresses: BTreeSet<IpAddr>,
    /// The TCP port.
    pub port: u16,
}

/// One object as it is to be.
#[derive(Clone, Debug, PartialEq)]
pub struct Manifest {
    object: ObjectRef,
    body: Value,
}

impl Manifest {
    fn new(settings: &Settings, object: ObjectRef, body: Value) -> Self {
        let mut body = named(&object, body);
        for (label, value) in labels(&settings.namespace) {
            body["metadata"]["labels"][label] = json!(value);
        }
        Self { object, body }
    }

    /// The manifest itself, as kubectl takes it.
    pub fn body(&self) -> &Value {
        &self.body
    }
}

/// The labels that every object of an installation carries, and that it is found by.
fn labels(namespace: &str) -> [(&'static str, String); 3] {
    [(MANAGED_BY, MANAGED_BY_VALUE.to_owned()), (NAME, MANAGED_BY_VALUE.to_owned()), (INSTANCE, namespace.to_owned())]
}

/// All objects of an installation in the order in which they are to be made. The runner comes last: what holds it back is
/// there before it is.
pub fn manifests(settings: &Settings) -> Vec<Manifest> {
    let mut all = vec![namespace::namespace(settings)];
    all.extend(network::policies(settings));
    all.extend(alerts::objects(settings));
    all.extend(admission::policies(settings));
    all.extend(rbac::roles(settings));
    all.extend(runner::runner(settings));
    all
}

#[cfg(test)]
mod tests;
