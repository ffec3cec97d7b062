//! What the API server itself holds, whatever a scanner, a stolen token or a bug asks of it (ValidatingAdmissionPolicy,
//! admissionregistration.k8s.io/v1):
//! * in namespaces of runs, containers run images of the loaded bundle and no others, by digest;
//! * pods there are restricted, also where the Pod Security Standard's labels were changed; those that look at a node can't
//!   change it;
//! * the runner makes and removes only what carries the label of a run, asks for tokens and makes pods only in namespaces
//!   of runs, and never itself uses what it holds only to hand it on.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::runner::RUNNER;
use super::{Manifest, Settings};
use crate::cluster::access::sidecar::TARGET;
use crate::cluster::namespace::COPIES;
use crate::cluster::object::{Kind, MANAGED_BY, MANAGED_BY_VALUE, ObjectRef, RUN};
use crate::model::scanner::Capability;

/// The label by which Pod Security admission enforces a standard.
const ENFORCE: &str = "pod-security.kubernetes.io/enforce";

pub(super) fn policies(settings: &Settings) -> Vec<Manifest> {
    let make = |object, body| Manifest::new(settings, object, body);
    let wide = |kind, name: &str| ObjectRef::cluster_wide(kind, format!("{}-{name}", settings.namespace));
    let policy = |name: &str, spec: Value| make(wide(Kind::ValidatingAdmissionPolicy, name), json!({ "spec": spec }));
    let binding = |name: &str, mut spec: Value| {
        spec["policyName"] = json!(format!("{}-{name}", settings.namespace));
        spec["validationActions"] = json!(["Deny"]);
        make(wide(Kind::ValidatingAdmissionPolicyBinding, name), json!({ "spec": spec }))
    };
    let of_runs = |copies: &str, more: Option<(&str, &str)>| {
        let mut terms = vec![
            json!({ "key": MANAGED_BY, "operator": "In", "values": [MANAGED_BY_VALUE] }),
            json!({ "key": RUN, "operator": "Exists" }),
            // A copy of a container runs what the container runs, which is in no bundle.
            json!({ "key": COPIES, "operator": copies }),
        ];
        // A node can't be looked at by a restricted pod: namespaces for that are named so for Pod Security.
        terms.extend(
            more.map(|(operator, standard)| json!({ "key": ENFORCE, "operator": operator, "values": [standard] })),
        );
        json!({ "namespaceSelector": { "matchExpressions": terms } })
    };
    vec![
        policy("images", images(settings, Copies::None)),
        binding("images", json!({ "matchResources": of_runs("DoesNotExist", None) })),
        policy("restricted", Rules::restricted(Copies::None)),
        binding("restricted", json!({ "matchResources": of_runs("DoesNotExist", Some(("NotIn", "privileged"))) })),
        policy("nodes", Rules::on_nodes(&settings.capabilities)),
        binding("nodes", json!({ "matchResources": of_runs("DoesNotExist", Some(("In", "privileged"))) })),
        policy("copied-images", images(settings, Copies::Some)),
        binding("copied-images", json!({ "matchResources": of_runs("Exists", None) })),
        policy("copies", Rules::restricted(Copies::Some)),
        binding("copies", json!({ "matchResources": of_runs("Exists", None) })),
        policy(RUNNER, held(&settings.namespace)),
        binding(RUNNER, json!({})),
    ]
}

/// Whether a pod may have a container that is a copy of another one, under the name [`TARGET`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Copies {
    None,
    Some,
}

impl Copies {
    /// What holds of a copied container `c` and frees it from a rule; nothing where there are none.
    fn or_copied(self) -> String {
        match self {
            Self::None => String::new(),
            Self::Some => format!("c.name == '{TARGET}' || "),
        }
    }
}

/// Pods that are made, and pods whose specification is changed: what only their status or metadata tell is nobody's concern
/// here, and must go on where the list of images has changed meanwhile.
fn of_pods() -> Value {
    json!({
        "failurePolicy": "Fail",
        "matchConstraints": { "resourceRules": [{
            "apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE", "UPDATE"],
            "resources": ["pods", "pods/ephemeralcontainers"],
        }] },
        "matchConditions": [{
            "name": "specification",
            "expression": "request.operation == 'CREATE' || object.spec != oldObject.spec",
        }],
    })
}

/// The containers of all three kinds, one variable for each.
fn containers() -> Vec<Value> {
    let some = |name: &str, field: &str| {
        let expression = format!("has(object.spec.{field}) ? object.spec.{field} : []");
        json!({ "name": name, "expression": expression })
    };
    vec![
        some("main", "containers"),
        some("init", "initContainers"),
        some("ephemeral", "ephemeralContainers"),
        some("volumes", "volumes"),
    ]
}

/// The digests are in the policy itself. As its parameters in a ConfigMap they would be lost to API servers that once saw the
/// last policy with such parameters go (kubernetes/kubernetes#130887): they stop to watch ConfigMaps then, and find none again.
fn images(settings: &Settings, copies: Copies) -> Value {
    let mut spec = of_pods();
    let digests: Vec<String> = settings.digests.iter().map(|digest| format!("'{digest}'")).collect();
    let mut variables = containers();
    let named = "map(c, has(c.image) ? c.image : '')";
    let own = match copies {
        Copies::None => String::new(),
        Copies::Some => format!(".filter(c, c.name != '{TARGET}')"),
    };
    variables.extend([
        json!({ "name": "digests", "expression": format!("[{}]", digests.join(", ")) }),
        json!({ "name": "named", "expression":
            format!("variables.main{own}.{named} + variables.init.{named} + variables.ephemeral.{named}") }),
        json!({ "name": "foreign", "expression": "variables.named.filter(i, \
            !i.matches('^[^@]+@sha256:[0-9a-f]{64}$') || !(i.substring(i.indexOf('@') + 1) in variables.digests))" }),
        json!({ "name": "mounted", "expression": "variables.volumes.filter(v, has(v.image)).map(v, \
            has(v.image.reference) ? v.image.reference : '')" }),
    ]);
    spec["variables"] = json!(variables);
    let by_digest = "i.matches('^[^@]+@sha256:[0-9a-f]{64}$')";
    let mut validations = vec![
        json!({
            "expression": "variables.foreign.size() == 0",
            "messageExpression": format!(
                "'only images of the loaded bundle {}, by digest, may run in a namespace of a scan, and not ' + \
                 variables.foreign.join(', ')",
                settings.bundle
            ),
            "message": "only images of the loaded bundle, by digest, may run in a namespace of a scan",
        }),
        json!({
            // What is mounted is what is scanned, and can be any image. Nothing of it runs.
            "expression": format!("variables.mounted.all(i, {by_digest})"),
            "message": "images are mounted in a namespace of a scan by their digests only",
        }),
    ];
    if copies == Copies::Some {
        validations.push(json!({
            "expression": format!("variables.main.{named}.all(i, {by_digest})"),
            "message": "what is copied into a namespace of a scan runs the image that it was copied from, by its digest",
        }));
    }
    spec["validations"] = json!(validations);
    spec
}

/// What no container of a scan may have, wherever it runs.
struct Rules(Vec<Value>);

impl Rules {
    /// For pods of the restricted Pod Security Standard, and of a read-only root besides.
    fn restricted(copies: Copies) -> Value {
        let mut rules = Self::for_all("[]", copies);
        rules.add(
            "variables.volumes.all(v, has(v.emptyDir) || has(v.image) || has(v.configMap) || has(v.secret) || \
             has(v.projected) || has(v.downwardAPI))",
            "no pod mounts what is the node's",
        );
        let pod = |field: &str| format!("has(object.spec.securityContext) && has(object.spec.securityContext.{field})");
        let expression = format!(
            "({} && object.spec.securityContext.runAsNonRoot) && (!({}) || object.spec.securityContext.runAsUser != 0) && \
             {} && {}",
            pod("runAsNonRoot"),
            pod("runAsUser"),
            each("!has(c.securityContext.runAsNonRoot) || c.securityContext.runAsNonRoot"),
            each("!has(c.securityContext.runAsUser) || c.securityContext.runAsUser != 0"),
        );
        rules.add(&expression, "nothing runs as root");
        rules.spec()
    }

    /// For pods that look at a node: they see its files, can change none of them, and get nothing else of it.
    fn on_nodes(capabilities: &BTreeSet<Capability>) -> Value {
        let added = ["DAC_READ_SEARCH"].into_iter().chain(capabilities.iter().map(|capability| capability.name()));
        let added: Vec<String> = added.map(|name| format!("'{name}'")).collect();
        let mut rules = Self::for_all(&format!("[{}]", added.join(", ")), Copies::None);
        let node = "variables.volumes.exists(v, v.name == m.name && has(v.hostPath))";
        let expression =
            each(&format!("!has(c.volumeMounts) || c.volumeMounts.all(m, !{node} || (has(m.readOnly) && m.readOnly))"));
        rules.add(&expression, "what is the node's is mounted read-only");
        rules.spec()
    }

    /// `capabilities` is a list in CEL of those that may be added.
    fn for_all(capabilities: &str, copies: Copies) -> Self {
        let mut rules = Self(Vec::new());
        let none = |field: &str| format!("(!has(object.spec.{field}) || !object.spec.{field})");
        rules.add(
            &["hostNetwork", "hostPID", "hostIPC"].map(none).join(" && "),
            "no pod shares the host's network, processes or memory",
        );
        let own = |field: &str| format!("has(c.securityContext) && has(c.securityContext.{field})");
        let expression = each(&format!(
            "{} && !c.securityContext.allowPrivilegeEscalation && \
             (!has(c.securityContext.privileged) || !c.securityContext.privileged)",
            own("allowPrivilegeEscalation")
        ));
        rules.add(&expression, "no container is privileged or can become so");
        let expression = each(&format!(
            "{} && has(c.securityContext.capabilities.drop) && 'ALL' in c.securityContext.capabilities.drop && \
             (!has(c.securityContext.capabilities.add) || \
             c.securityContext.capabilities.add.all(a, a in {capabilities}))",
            own("capabilities")
        ));
        rules.add(&expression, "every container drops all capabilities and adds none that it does not need");
        // A program that writes to its root would not last in a copy.
        let read_only = format!("{} && c.securityContext.readOnlyRootFilesystem", own("readOnlyRootFilesystem"));
        let expression = each(&format!("{}({read_only})", copies.or_copied()));
        rules.add(&expression, "every container has a read-only root");
        let default = "securityContext.seccompProfile.type == 'RuntimeDefault'";
        let expression = format!(
            "(has(object.spec.securityContext) && has(object.spec.securityContext.seccompProfile) && \
             object.spec.{default}) && {}",
            each(&format!("!has(c.securityContext.seccompProfile) || c.{default}"))
        );
        rules.add(&expression, "every pod has the runtime's seccomp profile");
        rules
    }

    fn add(&mut self, expression: &str, what: &str) {
        self.0.push(json!({ "expression": expression, "message": format!("in a namespace of a scan {what}") }));
    }

    fn spec(self) -> Value {
        let mut spec = of_pods();
        spec["variables"] = json!(containers());
        spec["validations"] = Value::Array(self.0);
        spec
    }
}

/// The condition on `c` for containers of all kinds.
fn each(condition: &str) -> String {
    ["main", "init", "ephemeral"].map(|kind| format!("variables.{kind}.all(c, {condition})")).join(" && ")
}

/// What binds the runner's account.
fn held(namespace: &str) -> Value {
    let rule = |group: &str, operations: &[&str], resources: &[&str]| json!({ "apiGroups": [group], "apiVersions": ["*"], "operations": operations, "resources": resources });
    let change = &["CREATE", "DELETE"][..];
    let rbac = ["roles", "rolebindings", "clusterroles", "clusterrolebindings"];
    json!({
        "failurePolicy": "Fail",
        "matchConstraints": { "resourceRules": [
            rule("", change, &["namespaces", "serviceaccounts", "secrets", "pods"]),
            rule("", &["CREATE"], &["serviceaccounts/token"]),
            rule("", &["CONNECT"], &["pods/exec"]),
            rule("", &["UPDATE"], &["pods/ephemeralcontainers"]),
            rule("batch", change, &["jobs"]),
            rule("networking.k8s.io", change, &["networkpolicies"]),
            rule("rbac.authorization.k8s.io", change, &rbac),
        ] },
        "matchConditions": [{
            "name": "runner",
            "expression": format!("request.userInfo.username == 'system:serviceaccount:{namespace}:{RUNNER}'"),
        }],
        "variables": [
            { "name": "path", "expression":
                "has(request.subResource) && request.subResource != '' ? request.resource.resource + '/' + request.subResource \
                 : request.resource.resource" },
            { "name": "subject", "expression": "request.operation == 'DELETE' ? oldObject : object" },
            { "name": "home", "expression": format!(
                "has(namespaceObject.metadata.labels) && \
                 '{RUN}' in namespaceObject.metadata.labels") },
        ],
        "validations": [
            {
                "expression": "!(variables.path in ['pods/exec', 'pods/ephemeralcontainers'])",
                "message": "the runner hands this right on to the identity of one scan and does not use it itself",
            },
            {
                "expression": format!(
                    "variables.path in ['pods/exec', 'pods/ephemeralcontainers', 'serviceaccounts/token'] || \
                     (has(variables.subject.metadata.labels) && '{RUN}' in variables.subject.metadata.labels)"),
                "message": "the runner makes and removes only what carries the label of a run",
            },
            {
                "expression": "!(variables.path in ['serviceaccounts', 'serviceaccounts/token', 'secrets', 'pods', 'jobs']) || \
                               variables.home",
                "message": "the runner makes this only in the namespace of a run",
            },
            {
                // One that cuts a pod off while it is looked at from beside it lies beside that pod.
                "expression": "variables.path != 'networkpolicies' || variables.home || request.operation != 'CREATE' || \
                               ((!has(object.spec.ingress) || object.spec.ingress.size() == 0) && \
                               (!has(object.spec.egress) || object.spec.egress.size() == 0) && \
                               has(object.spec.podSelector.matchLabels) && object.spec.podSelector.matchLabels.size() > 0)",
                "message": "a network policy that the runner makes beside a pod is for some pods and allows nothing",
            },
            {
                // A Role beside a target names the one pod that it is about.
                "expression": "variables.path != 'roles' || request.operation != 'CREATE' || \
                               object.rules.all(r, has(r.resourceNames) && r.resourceNames.size() == 1)",
                "message": "a role that the runner makes names one object",
            },
            {
                "expression": "variables.path != 'clusterroles' || request.operation != 'CREATE' || \
                               object.rules.all(r, r.verbs == ['list'] && !('secrets' in r.resources))",
                "message": "a cluster role that the runner makes lists objects, and no secrets",
            },
        ],
    })
}
