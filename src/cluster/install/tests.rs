use k8s_openapi::api::admissionregistration::v1::{ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding};
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, PersistentVolumeClaim, Secret, Service, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use super::*;
use crate::cluster::object::Kind;

fn settings() -> Settings {
    let address = |text: &str| text.parse().expect("an address");
    Settings {
        namespace: "gapscan".to_owned(),
        image: format!("registry.example:5000/gapscan/images/gapscan@{}", Digest::of("gapscan")),
        bundle: "enclave 7".to_owned(),
        digests: BTreeSet::from([Digest::of("gapscan"), Digest::of("grype")]),
        resources: BTreeSet::from(["apps/v1/deployments".parse().expect("a resource")]),
        capabilities: BTreeSet::new(),
        inputs: BTreeSet::new(),
        services: BTreeSet::new(),
        plan: "kind: Plan\n".to_owned(),
        root: "{}".to_owned(),
        ca: Some("CA".to_owned()),
        credentials: BTreeMap::from([("password".to_owned(), Zeroizing::new(b"s3cr3t".to_vec()))]),
        pull_config: Some(Zeroizing::new(b"{\"auths\":{}}".to_vec())),
        storage: Storage { class: Some("fast".to_owned()), size: "10Gi".to_owned() },
        servers: BTreeSet::from([address("192.0.2.1:6443"), address("[2001:db8::1]:6443")]),
        registries: vec![Host {
            name: Some("registry.example".to_owned()),
            addresses: BTreeSet::from(["192.0.2.9".parse().expect("an address")]),
            port: 5000,
        }],
        upload_port: None,
        alerts: None,
        waivers: BTreeMap::new(),
    }
}

fn alerts(token: &[u8]) -> Option<Alerts> {
    let files = BTreeMap::from([("token".to_owned(), Zeroizing::new(token.to_vec()))]);
    Some(Alerts { port: NonZeroU16::new(9466)?, from: "runtime-security".to_owned(), files })
}

/// The manifest as Kubernetes reads it.
fn read<T: DeserializeOwned + Serialize>(body: &Value) -> Value {
    let read: T = serde_json::from_value(body.clone()).expect("Kubernetes reads it");
    serde_json::to_value(read).expect("JSON")
}

#[test]
fn on_nodes_only_those_capabilities_are_admitted_that_a_scanner_of_the_bundle_has() {
    let admitted = |capabilities: &[Capability]| {
        let settings = Settings { capabilities: capabilities.iter().copied().collect(), ..settings() };
        let policies = super::admission::policies(&settings);
        let nodes = policies.iter().find(|policy| policy.body().to_string().contains("DAC_READ_SEARCH"));
        nodes.expect("one is for nodes").body().to_string()
    };
    assert!(admitted(&[]).contains("['DAC_READ_SEARCH']"));
    assert!(admitted(&[Capability::SysPtrace, Capability::Bpf]).contains("['DAC_READ_SEARCH', 'SYS_PTRACE', 'BPF']"));
}

#[test]
fn every_field_is_one_that_kubernetes_knows() {
    for manifest in manifests(&Settings { upload_port: NonZeroU16::new(9465), alerts: alerts(b"t"), ..settings() }) {
        let body = manifest.body();
        let again = match manifest.object.kind {
            Kind::Namespace => read::<Namespace>(body),
            Kind::ServiceAccount => read::<ServiceAccount>(body),
            Kind::ClusterRole => read::<ClusterRole>(body),
            Kind::ClusterRoleBinding => read::<ClusterRoleBinding>(body),
            Kind::Role => read::<Role>(body),
            Kind::RoleBinding => read::<RoleBinding>(body),
            Kind::NetworkPolicy => read::<NetworkPolicy>(body),
            Kind::ConfigMap => read::<ConfigMap>(body),
            Kind::Secret => read::<Secret>(body),
            Kind::PersistentVolumeClaim => read::<PersistentVolumeClaim>(body),
            Kind::StatefulSet => read::<StatefulSet>(body),
            Kind::Service => read::<Service>(body),
            Kind::ValidatingAdmissionPolicy => read::<ValidatingAdmissionPolicy>(body),
            Kind::ValidatingAdmissionPolicyBinding => read::<ValidatingAdmissionPolicyBinding>(body),
            Kind::Pod | Kind::Job => panic!("an installation makes none by itself"),
        };
        assert_eq!(&again, body);
        assert_eq!(body["metadata"]["labels"][MANAGED_BY], "gapscan");
        assert_eq!(body["metadata"]["labels"][INSTANCE], "gapscan");
        assert_eq!(body["metadata"]["name"], manifest.object.name.as_str());
    }
}

fn found(settings: &Settings, kind: Kind, name: &str) -> Value {
    let all = manifests(settings);
    let found = all.into_iter().find(|m| m.object.kind == kind && m.object.name == name);
    found.expect("it is made").body
}

#[test]
fn the_runner_reaches_the_api_server_and_the_registries_and_nothing_else() {
    let policy = found(&settings(), Kind::NetworkPolicy, "runner");
    let egress = policy["spec"]["egress"].as_array().expect("rules");
    let ports: Vec<&Value> = egress.iter().map(|rule| &rule["ports"][0]["port"]).collect();
    assert_eq!(ports, [&json!(5000), &json!(6443)]);
    assert_eq!(egress[0]["to"], json!([{ "ipBlock": { "cidr": "192.0.2.9/32" } }]));
    assert_eq!(egress[1]["to"].as_array().map(Vec::len), Some(2));
    assert_eq!(policy["spec"]["policyTypes"], json!(["Egress"]));
    let spec = &found(&settings(), Kind::StatefulSet, "runner")["spec"]["template"]["spec"];
    assert_eq!(spec["hostAliases"], json!([{ "ip": "192.0.2.9", "hostnames": ["registry.example"] }]));
}

#[test]
fn nobody_connects_to_the_runner_unless_results_are_to_come_there() {
    let all = manifests(&settings());
    assert!(!all.iter().any(|manifest| manifest.object.name == "results"));
    assert!(!all.iter().any(|manifest| manifest.body.to_string().contains("upload")), "nothing is asked for");
    let open = Settings { upload_port: NonZeroU16::new(9465), ..settings() };
    let spec = found(&open, Kind::NetworkPolicy, "results")["spec"].clone();
    assert_eq!(spec["policyTypes"], json!(["Ingress"]));
    assert_eq!(spec["podSelector"], found(&open, Kind::NetworkPolicy, "runner")["spec"]["podSelector"]);
    let rules = spec["ingress"].as_array().expect("rules");
    assert_eq!((rules.len(), rules[0]["from"].as_array().map(Vec::len)), (1, Some(1)));
    assert_eq!(rules[0]["ports"], json!([{ "protocol": "TCP", "port": 9465 }]));
    let from = &rules[0]["from"][0];
    assert_eq!(from["podSelector"]["matchLabels"], json!({ "gapscan.dev/results": "upload" }));
    assert_eq!(
        from["namespaceSelector"]["matchExpressions"][1],
        json!({ "key": "gapscan.dev/run", "operator": "Exists" })
    );
    let container = &found(&open, Kind::StatefulSet, "runner")["spec"]["template"]["spec"]["containers"][0];
    let command = container["command"].as_array().expect("words");
    assert_eq!(command[command.len() - 2..], [json!("--upload-address"), json!("$(POD_IP):9465")]);
    assert_eq!(container["env"][1]["valueFrom"]["fieldRef"]["fieldPath"], "status.podIP");
}

#[test]
fn falco_reaches_the_runner_where_the_plan_takes_its_alerts_and_nobody_else_does() {
    let named = |settings: &Settings| manifests(settings).iter().filter(|m| m.object.name == ALERTS).count();
    assert_eq!(named(&settings()), 0, "nobody asked for it");
    let open = Settings { alerts: alerts(b"0123456789abcdef"), ..settings() };
    assert_eq!(named(&open), 3);
    let policy = found(&open, Kind::NetworkPolicy, ALERTS)["spec"].clone();
    assert_eq!(policy["policyTypes"], json!(["Ingress"]));
    assert_eq!(
        policy["ingress"],
        json!([{
            "from": [{
                "namespaceSelector": { "matchLabels": { "kubernetes.io/metadata.name": "runtime-security" } },
                "podSelector": { "matchLabels": { "app.kubernetes.io/name": "falco" } },
            }],
            "ports": [{ "protocol": "TCP", "port": 9466 }],
        }])
    );
    let set = found(&open, Kind::StatefulSet, "runner")["spec"]["template"].clone();
    // Both choose the runner's pod and no other.
    for selector in [&policy["podSelector"]["matchLabels"], &found(&open, Kind::Service, ALERTS)["spec"]["selector"]] {
        let labels = selector.as_object().expect("labels");
        assert!(labels.iter().all(|(name, value)| set["metadata"]["labels"][name] == *value), "{selector}");
        assert_eq!(selector[super::runner::COMPONENT], "runner");
    }
    assert_eq!(found(&open, Kind::Secret, ALERTS)["data"], json!({ "token": "MDEyMzQ1Njc4OWFiY2RlZg==" }));
    let container = &set["spec"]["containers"][0];
    assert!(container["volumeMounts"].to_string().contains(ALERTS_FOLDER));
    assert_eq!(container["ports"][0]["containerPort"], 9466);
    let other = Settings { alerts: alerts(b"another"), ..settings() };
    let content = |set: &Value| set["metadata"]["annotations"]["gapscan.dev/content"].clone();
    assert_ne!(content(&set), content(&found(&other, Kind::StatefulSet, "runner")["spec"]["template"]));
}

#[test]
fn the_runner_is_restricted_and_its_root_is_read_only() {
    let set = found(&settings(), Kind::StatefulSet, "runner");
    let spec = &set["spec"]["template"]["spec"];
    let container = &spec["containers"][0];
    assert_eq!(container["securityContext"], crate::cluster::pod::security());
    assert_eq!(spec["securityContext"]["runAsNonRoot"], true);
    assert_eq!(spec["securityContext"]["seccompProfile"]["type"], "RuntimeDefault");
    assert!(spec.get("hostNetwork").is_none() && spec.get("hostPID").is_none());
    let selector = set["spec"]["selector"]["matchLabels"].as_object().expect("labels");
    assert!(selector.iter().all(|(name, value)| set["spec"]["template"]["metadata"]["labels"][name] == *value));
}

#[test]
fn another_content_is_another_pod() {
    let content = |settings: &Settings| {
        let set = found(settings, Kind::StatefulSet, "runner");
        set["spec"]["template"]["metadata"]["annotations"]["gapscan.dev/content"].clone()
    };
    let before = content(&settings());
    assert_eq!(before, content(&settings()));
    let other = Settings { plan: "kind: Plan # other\n".to_owned(), ..settings() };
    assert_ne!(before, content(&other));
    let credentials = BTreeMap::from([("password".to_owned(), Zeroizing::new(b"other".to_vec()))]);
    assert_ne!(before, content(&Settings { credentials, ..settings() }));
    let waivers = BTreeMap::from([("waivers-1.yaml.0123abcd.sig".to_owned(), vec![0xff, 0])]);
    let signed = Settings { waivers, ..settings() };
    assert_ne!(before, content(&signed));
    let given = found(&signed, Kind::ConfigMap, "runner");
    assert_eq!(given["binaryData"], json!({ "waivers-1.yaml.0123abcd.sig": "/wA=" }));
    assert_eq!(read::<ConfigMap>(&given)["binaryData"], given["binaryData"]);
}

#[test]
fn nobody_is_made_mightier_than_the_table_says() {
    let all = permissions(&settings().resources);
    let verbs = all.iter().flat_map(|p| p.verbs.iter()).copied().collect::<BTreeSet<_>>();
    assert_eq!(verbs, BTreeSet::from(["create", "delete", "get", "list", "patch"]));
    for word in ["escalate", "bind", "impersonate", "*"] {
        assert!(!verbs.contains(word));
        assert!(all.iter().all(|p| p.resource != word && p.group != word));
    }
    let secrets = all.iter().find(|p| p.resource == "secrets").expect("they are made");
    assert_eq!(secrets.verbs, ["create", "delete"]);
    let read = all.iter().find(|p| p.resource == "deployments").expect("the profiles read them");
    assert_eq!((read.group.as_str(), &read.verbs[..]), ("apps", &["list"][..]));
}

#[test]
fn the_runner_may_get_the_secrets_that_the_plan_takes_inputs_from_and_no_others() {
    let pair = |namespace: &str, name: &str| (namespace.to_owned(), name.to_owned());
    let inputs = BTreeSet::from([pair("shop", "db"), pair("shop", "web"), pair("vault", "db")]);
    let all = manifests(&Settings { inputs, ..settings() });
    let names: Vec<(&str, String)> = rules(&all)
        .filter(|(_, rule)| rule["resources"] == json!(["secrets"]) && rule["verbs"] == json!(["get"]))
        .map(|(namespace, rule)| (namespace, rule["resourceNames"].to_string()))
        .collect();
    assert_eq!(names, [("shop", "[\"db\",\"web\"]".to_owned()), ("vault", "[\"db\"]".to_owned())]);
    assert_eq!(bound(&all, "gapscan-runner-inputs"), ["shop", "vault"]);
}

#[test]
fn the_runner_may_look_where_the_services_lead_that_the_plan_names_and_no_others() {
    let services = BTreeSet::from([("security".to_owned(), "clair".to_owned())]);
    let with = manifests(&Settings { services, ..settings() });
    let of_services = |all: &[Manifest]| -> Vec<(String, String)> {
        rules(all)
            .filter(|(_, rule)| rule["resources"] == json!(["services"]))
            .map(|(namespace, rule)| (namespace.to_owned(), format!("{} {}", rule["verbs"], rule["resourceNames"])))
            .collect()
    };
    let pair = |namespace: &str, said: &str| (namespace.to_owned(), said.to_owned());
    assert!(of_services(&manifests(&settings())).is_empty());
    assert_eq!(of_services(&with), [pair("security", "[\"get\"] [\"clair\"]")]);
    assert_eq!(bound(&with, "gapscan-runner-egress"), ["security"]);
}

/// All rules of roles, with the role's namespace.
fn rules(all: &[Manifest]) -> impl Iterator<Item = (&str, &Value)> {
    let roles = all.iter().map(Manifest::body).filter(|body| body["kind"] == "Role" || body["kind"] == "ClusterRole");
    roles.flat_map(|body| {
        let rules = body["rules"].as_array().into_iter().flatten();
        rules.map(move |rule| (body["metadata"]["namespace"].as_str().unwrap_or_default(), rule))
    })
}

/// The namespaces in which a role is bound.
fn bound<'a>(all: &'a [Manifest], role: &str) -> Vec<&'a Value> {
    let bindings = all.iter().map(Manifest::body).filter(|body| body["roleRef"]["name"] == role);
    bindings.map(|body| &body["metadata"]["namespace"]).collect()
}
