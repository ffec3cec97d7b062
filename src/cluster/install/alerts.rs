//! What lets Falco's alerts reach the runner, where its plan takes them: a service, so that Falco has a name to send to; a policy
//! that lets Falco's own pods in, to that one port, and nobody else; and the certificate, the key and the token in a secret.

use std::collections::BTreeMap;
use std::num::NonZeroU16;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};
use zeroize::Zeroizing;

use super::runner::{COMPONENT, RUNNER};
use super::{Manifest, NAME, Settings};
use crate::cluster::object::{Kind, ObjectRef};

/// The name of the service, the policy and the secret. Falco sends to `https://falco.NAMESPACE.svc:PORT/alerts`.
pub const ALERTS: &str = "falco";
/// The folder with what alerts are taken with.
pub const ALERTS_FOLDER: &str = "/etc/gapscan-falco";

/// How Falco's alerts reach the runner.
pub struct Alerts {
    /// The port of the runner's pod, and of the service.
    pub port: NonZeroU16,
    /// The namespace of Falco's pods, which have the label `app.kubernetes.io/name: falco`, as Falco's Helm chart gives it.
    pub from: String,
    /// The certificate, its key, the CAs of clients and the token by name; below [`ALERTS_FOLDER`] in the container.
    pub files: BTreeMap<String, Zeroizing<Vec<u8>>>,
}

pub(super) fn objects(settings: &Settings) -> Vec<Manifest> {
    let Some(alerts) = &settings.alerts else { return Vec::new() };
    let make = |kind, body| Manifest::new(settings, ObjectRef::namespaced(kind, &settings.namespace, ALERTS), body);
    let data: Map<String, Value> =
        alerts.files.iter().map(|(name, bytes)| (name.clone(), json!(STANDARD.encode(bytes.as_slice())))).collect();
    vec![
        make(Kind::NetworkPolicy, ingress(alerts)),
        make(Kind::Secret, json!({ "type": "Opaque", "data": data })),
        make(Kind::Service, service(settings, alerts)),
    ]
}

/// Ingress to the one port from Falco's pods, and from nobody else.
fn ingress(alerts: &Alerts) -> Value {
    json!({ "spec": {
        "podSelector": { "matchLabels": { COMPONENT: RUNNER } },
        "policyTypes": ["Ingress"],
        "ingress": [{
            "from": [{
                "namespaceSelector": { "matchLabels": { "kubernetes.io/metadata.name": alerts.from } },
                "podSelector": { "matchLabels": { NAME: "falco" } },
            }],
            "ports": [{ "protocol": "TCP", "port": alerts.port }],
        }],
    } })
}

fn service(settings: &Settings, alerts: &Alerts) -> Value {
    json!({ "spec": {
        "selector": { super::INSTANCE: settings.namespace, COMPONENT: RUNNER },
        "ports": [{ "name": "alerts", "protocol": "TCP", "port": alerts.port, "targetPort": alerts.port }],
        // Falco sends nothing again: a runner that takes alerts takes them also while it is not ready for anything else.
        "publishNotReadyAddresses": true,
    } })
}
