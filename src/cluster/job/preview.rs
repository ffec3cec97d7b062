//! The pods that a scanner's definition leads to, before there is a cluster or a bundle: for whoever writes one.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use serde_json::{Value, json};

use super::in_target::UID;
use super::manifest;
use super::scanning::{ImageMount, Program, Scanning};
use super::{JobRequest, JobTarget, START};
use crate::cluster::access::beside;
use crate::cluster::access::node::NodePlace;
use crate::cluster::access::sidecar;
use crate::cluster::access::transport::{ApiAccess, KUBECONFIG};
use crate::cluster::egress::Destination;
use crate::cluster::error::ClusterError;
use crate::model::record::RunId;
use crate::model::scanner::{self as placeholder, Offered, ScannerDocument};

/// One approach of a definition, and what would be run.
#[derive(Debug)]
pub struct Preview {
    /// The approach's field in the definition.
    pub approach: &'static str,
    /// A pod's specification; of `debug` the ephemeral container alone. What comes from a bundle, a target or a cluster is named
    /// in capitals.
    pub made: Value,
}

/// What each approach of the definition leads to. Parameters that are not given stay as they are written.
///
/// # Errors
/// When a placeholder of a command is not closed.
pub fn preview(scanner: &ScannerDocument, parameters: &BTreeMap<String, String>) -> Result<Vec<Preview>, ClusterError> {
    let approaches = scanner.approaches.offered();
    approaches
        .into_iter()
        .map(|offered| Ok(Preview { approach: offered.field, made: of(scanner, offered, parameters)? }))
        .collect()
}

/// Somebody whom the scanner talks to, at an address that is nobody's (RFC 5737).
fn destination(name: &str) -> Destination {
    Destination {
        name: name.to_owned(),
        service: "namespace/service:443".parse().expect("a port of a service"),
        addresses: [IpAddr::from([192, 0, 2, 2])].into(),
        selector: BTreeMap::new(),
        pods: BTreeSet::new(),
    }
}

fn of(
    scanner: &ScannerDocument,
    offered: Offered<'_>,
    parameters: &BTreeMap<String, String>,
) -> Result<Value, ClusterError> {
    let named = |name: &str| name.to_uppercase();
    let dependencies = scanner.dependencies.iter();
    let mut mounts: Vec<ImageMount> = dependencies
        .map(|dependency| ImageMount { reference: named(&dependency.name), path: dependency.mount.clone() })
        .collect();
    let profile = scanner.profile_mount.iter();
    mounts.extend(profile.map(|path| ImageMount { reference: "PROFILE".to_owned(), path: path.clone() }));
    let mut values = parameters.clone();
    for (name, value) in [
        (placeholder::KUBECONFIG, KUBECONFIG),
        (placeholder::NAMESPACE, "NAMESPACE"),
        (placeholder::POD, "POD"),
        (placeholder::CONTAINER, "CONTAINER"),
        (UID, "UID"),
    ] {
        values.insert(name.to_owned(), value.to_owned());
    }
    for name in offered.names() {
        values.entry(name.to_owned()).or_insert_with(|| format!("${{{name}}}"));
    }
    let scanning = Scanning {
        run: RunId::new(),
        scan: 1,
        program: Program::of(scanner, offered),
        scanner_image: named(&scanner.image),
        agent_image: "GAPSCAN".to_owned(),
        mounts,
        parameters: values,
        egress: offered.egress().into_iter().map(destination).collect(),
        pull: None,
        inputs: None,
        result_limit: crate::base::limits::Limits::default().result_bytes,
        spool: std::env::temp_dir(),
    };
    let target = match offered.field {
        "debug" => return beside::container(&scanning, "/proc/HOLDER/root/gapscan"),
        "sidecar" => return sidecar::beside_copy(&scanning),
        "image" => JobTarget::Image("TARGET".to_owned()),
        "node" => JobTarget::Node(NodePlace { node: "NODE".to_owned(), tolerated: Vec::new() }),
        _ => JobTarget::Api(ApiAccess {
            account: "ACCOUNT".to_owned(),
            servers: [std::net::SocketAddr::from(([192, 0, 2, 1], 6443))].into(),
            namespace: "NAMESPACE".to_owned(),
        }),
    };
    let job = manifest::job(&JobRequest { scanning, target, archive: None, uploads: None }, START)?;
    Ok(json!({ "spec": job["spec"]["template"]["spec"] }))
}
