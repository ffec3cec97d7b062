//! The runner itself: one pod of gapscan's own image that serves the plan, with a volume for the ledger, the state and the
//! runner's key. It has no shell, a read-only root and the restricted Pod Security Standard, and no way in but for
//! results where they come by upload, and for Falco's alerts where the plan takes them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use super::{ALERTS, ALERTS_FOLDER, Manifest, Settings, labels};
use crate::base::digest::Digest;
use crate::cluster::canary::BINARY;
use crate::cluster::object::{Kind, ObjectRef};
use crate::cluster::pod;

/// The name of the account, of the StatefulSet and of what belongs to them.
pub(super) const RUNNER: &str = "runner";
/// The label that tells the runner's pod from any other of the namespace.
pub(super) const COMPONENT: &str = "app.kubernetes.io/component";
/// The volume.
pub(super) const DATA: &str = "data";
/// Credentials for the registry.
const REGISTRY: &str = "registry";
/// What nodes pull with.
const PULL: &str = "pull";

/// Where the plan and what it names are.
pub const PLAN_FOLDER: &str = "/etc/gapscan";
/// The pinned root, below [`PLAN_FOLDER`].
pub const ROOT_FILE: &str = "root.json";
/// The CA of the registry, below [`PLAN_FOLDER`].
pub const CA_FILE: &str = "ca.crt";
/// The folder with credentials for the registry.
pub const REGISTRY_FOLDER: &str = "/etc/gapscan-registry";
/// What nodes pull with.
pub const PULL_FILE: &str = "/etc/gapscan-pull/config.json";

const PULL_FOLDER: &str = "/etc/gapscan-pull";
const DATA_FOLDER: &str = "/var/lib/gapscan";
const LEDGER: &str = "/var/lib/gapscan/ledger.sqlite";

/// Where the runner answers whoever is in its own pod.
const ENDPOINT: &str = "127.0.0.1:9464";

/// The variable with the address of the runner's pod.
const ADDRESS: &str = "POD_IP";

/// How long the runner may take to end what runs and to remove what it made, before it is killed.
const GRACE_SECONDS: u32 = 180;

pub(super) fn runner(settings: &Settings) -> Vec<Manifest> {
    let inside = |kind, name: &str| ObjectRef::namespaced(kind, &settings.namespace, name);
    let files = files(settings);
    let mut given = json!({ "data": files });
    if !settings.waivers.is_empty() {
        // Signatures are no text, and documents have to arrive byte for byte.
        let encoded = |(name, bytes): (&String, &Vec<u8>)| (name.clone(), json!(STANDARD.encode(bytes)));
        given["binaryData"] = Value::Object(settings.waivers.iter().map(encoded).collect());
    }
    let mut all = vec![Manifest::new(settings, inside(Kind::ConfigMap, RUNNER), given)];
    if !settings.credentials.is_empty() {
        let data: Map<String, Value> = settings
            .credentials
            .iter()
            .map(|(name, bytes)| (name.clone(), json!(STANDARD.encode(bytes.as_slice()))))
            .collect();
        all.push(Manifest::new(settings, inside(Kind::Secret, REGISTRY), json!({ "type": "Opaque", "data": data })));
    }
    if let Some(config) = &settings.pull_config {
        let body = json!({
            "type": "kubernetes.io/dockerconfigjson",
            "data": { ".dockerconfigjson": STANDARD.encode(config.as_slice()) },
        });
        all.push(Manifest::new(settings, inside(Kind::Secret, PULL), body));
    }
    let mut claim = json!({
        "accessModes": ["ReadWriteOnce"],
        "resources": { "requests": { "storage": settings.storage.size } },
    });
    if let Some(class) = &settings.storage.class {
        claim["storageClassName"] = json!(class);
    }
    all.push(Manifest::new(settings, inside(Kind::PersistentVolumeClaim, DATA), json!({ "spec": claim })));
    all.push(Manifest::new(settings, inside(Kind::StatefulSet, RUNNER), json!({ "spec": set(settings, &files) })));
    all
}

fn files(settings: &Settings) -> Map<String, Value> {
    let mut files = Map::new();
    files.insert("plan.yaml".to_owned(), json!(settings.plan));
    files.insert(ROOT_FILE.to_owned(), json!(settings.root));
    if let Some(ca) = &settings.ca {
        files.insert(CA_FILE.to_owned(), json!(ca));
    }
    files
}

fn set(settings: &Settings, files: &Map<String, Value>) -> Value {
    let own = json!({
        super::NAME: "gapscan",
        super::INSTANCE: settings.namespace,
        COMPONENT: RUNNER,
    });
    let mut of_pod = own.clone();
    for (label, value) in labels(&settings.namespace) {
        of_pod[label] = json!(value);
    }
    json!({
        "replicas": 1,
        "serviceName": RUNNER,
        // With the ordered kind a pod that can't start is never replaced by one of a better template.
        "podManagementPolicy": "Parallel",
        "selector": { "matchLabels": own },
        "template": {
            "metadata": {
                "labels": of_pod,
                // The runner reads its files when it starts: other content is another pod.
                "annotations": { "gapscan.dev/content": content(settings, files) },
            },
            "spec": pod_of(settings),
        },
    })
}

/// The digest of all that the runner is given.
fn content(settings: &Settings, files: &Map<String, Value>) -> String {
    let mut text = serde_json::to_vec(files).expect("texts by name are JSON");
    let secret = settings.credentials.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice()));
    let pull = settings.pull_config.iter().map(|bytes| (PULL, bytes.as_slice()));
    let waivers = settings.waivers.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice()));
    let alerts = settings.alerts.iter().flat_map(|alerts| &alerts.files);
    let alerts = alerts.map(|(name, bytes)| (name.as_str(), bytes.as_slice()));
    for (name, bytes) in secret.chain(pull).chain(waivers).chain(alerts) {
        // Digests one by one, so that nothing can move from one file to the next.
        text.extend(format!("\n{name} {}", Digest::of(bytes)).into_bytes());
    }
    Digest::of(text).to_string()
}

fn pod_of(settings: &Settings) -> Value {
    let mut volumes = vec![
        json!({ "name": "config", "configMap": { "name": RUNNER } }),
        json!({ "name": DATA, "persistentVolumeClaim": { "claimName": DATA } }),
        json!({ "name": "tmp", "emptyDir": { "sizeLimit": "1Gi" } }),
    ];
    let mut mounts = vec![
        json!({ "name": "config", "mountPath": PLAN_FOLDER, "readOnly": true }),
        json!({ "name": DATA, "mountPath": DATA_FOLDER }),
        json!({ "name": "tmp", "mountPath": "/tmp" }),
    ];
    if !settings.credentials.is_empty() {
        volumes.push(json!({ "name": REGISTRY, "secret": { "secretName": REGISTRY, "defaultMode": 0o440 } }));
        mounts.push(json!({ "name": REGISTRY, "mountPath": REGISTRY_FOLDER, "readOnly": true }));
    }
    if settings.pull_config.is_some() {
        let items = json!([{ "key": ".dockerconfigjson", "path": "config.json" }]);
        let source = json!({ "secretName": PULL, "defaultMode": 0o440, "items": items });
        volumes.push(json!({ "name": PULL, "secret": source }));
        mounts.push(json!({ "name": PULL, "mountPath": PULL_FOLDER, "readOnly": true }));
    }
    if settings.alerts.is_some() {
        volumes.push(json!({ "name": ALERTS, "secret": { "secretName": ALERTS, "defaultMode": 0o440 } }));
        mounts.push(json!({ "name": ALERTS, "mountPath": ALERTS_FOLDER, "readOnly": true }));
    }
    let mut command = vec![json!(BINARY), json!("serve"), json!("-f"), json!(format!("{PLAN_FOLDER}/plan.yaml"))];
    command.extend([json!("--listen"), json!(ENDPOINT)]);
    // For `serve`, and for whoever asks `gapscan results` in the pod.
    let mut env = vec![json!({ "name": "GAPSCAN_LEDGER", "value": LEDGER })];
    if let Some(port) = settings.upload_port {
        // The pod's own address, which only the kubelet knows; what is behind it is proven by a certificate's digest.
        env.push(json!({ "name": ADDRESS, "valueFrom": { "fieldRef": { "apiVersion": "v1", "fieldPath": "status.podIP" } } }));
        command.extend([json!("--upload-address"), json!(format!("$({ADDRESS}):{port}"))]);
    }
    let ports: Vec<Value> = settings
        .alerts
        .iter()
        .map(|alerts| json!({ "name": "alerts", "containerPort": alerts.port, "protocol": "TCP" }))
        .collect();
    let mut container = json!({
        "name": RUNNER,
        "image": settings.image,
        "imagePullPolicy": "IfNotPresent",
        "command": command,
        "env": env,
        "securityContext": pod::security(),
        "resources": {
            "requests": { "cpu": "50m", "memory": "64Mi" },
            "limits": { "cpu": "1", "memory": "1Gi" },
        },
        // By exec, because nothing else may connect to it: whether a kubelet's own requests get through default-deny differs from
        // network to network. It is ready when its ledger can be written and its schedule's loop turns; it is alive when it
        // answers at all, so that a long run is never taken for a dead one.
        "readinessProbe": {
            "exec": { "command": [BINARY, "serve", "--listen", ENDPOINT, "--ask", "/readyz"] },
            "periodSeconds": 15, "timeoutSeconds": 15,
        },
        "livenessProbe": {
            "exec": { "command": [BINARY, "serve", "--listen", ENDPOINT, "--ask", "/healthz"] },
            "initialDelaySeconds": 60, "periodSeconds": 60, "timeoutSeconds": 15, "failureThreshold": 5,
        },
        "volumeMounts": mounts,
    });
    if !ports.is_empty() {
        container["ports"] = json!(ports);
    }
    let mut specification = pod::specification(json!([container]));
    specification["serviceAccountName"] = json!(RUNNER);
    specification["automountServiceAccountToken"] = json!(true);
    specification["restartPolicy"] = json!("Always");
    specification["terminationGracePeriodSeconds"] = json!(GRACE_SECONDS);
    // The ledger's key stays readable for its owner only: modes are changed where the volume is new, and never again.
    specification["securityContext"]["fsGroupChangePolicy"] = json!("OnRootMismatch");
    specification["volumes"] = json!(volumes);
    let aliases: Vec<Value> = settings
        .registries
        .iter()
        .flat_map(|host| host.name.iter().flat_map(|name| host.addresses.iter().map(move |at| (at, name))))
        .map(|(address, name)| json!({ "ip": address, "hostnames": [name] }))
        .collect();
    if !aliases.is_empty() {
        specification["hostAliases"] = json!(aliases);
    }
    if settings.pull_config.is_some() {
        specification["imagePullSecrets"] = json!([{ "name": PULL }]);
    }
    specification
}
