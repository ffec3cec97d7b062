//! The rules about a cluster's objects.

use super::*;

/// A cluster that no rule has anything against.
fn good_cluster() -> Json {
    let container = |name: &str| {
        json!({"name": name, "image": format!("r/{name}@sha256:{}", "0".repeat(64)), "resources": {"limits": {"memory": "64Mi"}},
            "env": [{"name": "TOKEN_FILE", "value": "/t"}, {"name": "PASSWORD", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}],
            "ports": [{"containerPort": 8080}],
            "securityContext": {"allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "capabilities": {"drop": ["ALL"]}}})
    };
    let rbac = |kind: &str, subject: Json| json!([{"metadata": {"name": "b", "namespace": "app"}, "roleRef": {"kind": kind, "name": "viewer"}, "subjects": [subject]}]);
    let group = json!({"kind": "Group", "name": "team"});
    json!({
        "v1/namespaces": [{"metadata": {"name": "app", "labels": {"pod-security.kubernetes.io/enforce": "restricted"}}}],
        "v1/pods": [{
            "metadata": {"name": "web", "namespace": "app"},
            "spec": {
                "serviceAccountName": "web",
                "securityContext": {"runAsNonRoot": true, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"},
                    "seLinuxOptions": {"level": "s0:c1"}, "sysctls": [{"name": "net.ipv4.tcp_syncookies", "value": "1"}]},
                "initContainers": [container("init")],
                "containers": [container("web"), container("side")],
                "ephemeralContainers": [container("debug")],
                "volumes": [{"name": "e", "emptyDir": {}}, {"name": "i", "image": {"reference": "r/x"}}]}}],
        "networking.k8s.io/v1/networkpolicies": [{"metadata": {"name": "deny", "namespace": "app"},
            "spec": {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}}],
        "rbac.authorization.k8s.io/v1/clusterroles": [{"metadata": {"name": "viewer"},
            "rules": [{"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}, {"verbs": ["get"], "nonResourceURLs": ["/x"]}]},
            {"metadata": {"name": "admin", "labels": {"kubernetes.io/bootstrapping": "rbac-defaults"}}, "rules": null}],
        "rbac.authorization.k8s.io/v1/roles": [{"metadata": {"name": "r", "namespace": "app"}, "rules": null}],
        "rbac.authorization.k8s.io/v1/clusterrolebindings": [
            rbac("ClusterRole", group.clone())[0],
            {"metadata": {"name": "cluster-admin"}, "roleRef": {"kind": "ClusterRole", "name": "cluster-admin"},
                "subjects": [{"kind": "Group", "name": "system:masters"}]},
            {"metadata": {"name": "system:public-info-viewer"}, "roleRef": {"kind": "ClusterRole", "name": "system:public-info-viewer"},
                "subjects": [{"kind": "Group", "name": "system:unauthenticated"}]}],
        "rbac.authorization.k8s.io/v1/rolebindings": rbac("Role", group),
    })
}

fn cluster_facts(objects: &Json) -> ClusterFacts {
    let mut facts = ClusterFacts::default();
    for resource in profile("cluster-baseline").resources() {
        let listed = objects.get(resource.to_string()).and_then(Json::as_array).cloned().unwrap_or_default();
        facts.add(&resource, listed);
    }
    facts
}

/// What makes each rule about a cluster fail. `P` stands for the pod's specification, `C` for the context of a container.
fn bad_clusters() -> Vec<(&'static str, String, Json)> {
    let p = |rest: &str| format!("/v1~1pods/0/spec{rest}");
    let init = |rest: &str| p(&format!("/initContainers/0{rest}"));
    let debug = |rest: &str| p(&format!("/ephemeralContainers/0{rest}"));
    let r = |rest: &str| format!("/rbac.authorization.k8s.io~1v1~1{rest}");
    vec![
        ("pod-not-privileged", init("/securityContext/privileged"), json!(true)),
        ("pod-no-host-namespaces", p("/hostIPC"), json!(true)),
        ("pod-no-host-path", p("/volumes/0"), json!({"name": "h", "hostPath": {"path": "/"}})),
        ("pod-no-host-ports", init("/ports/0/hostPort"), json!(8080)),
        ("pod-capabilities-baseline", debug("/securityContext/capabilities/add"), json!(["SYS_PTRACE"])),
        ("pod-seccomp-not-unconfined", debug("/securityContext/seccompProfile"), json!({"type": "Unconfined"})),
        ("pod-apparmor-not-unconfined", p("/securityContext/appArmorProfile"), json!({"type": "Unconfined"})),
        ("pod-selinux-not-weakened", init("/securityContext/seLinuxOptions"), json!({"type": "spc_t"})),
        ("pod-proc-mount-default", init("/securityContext/procMount"), json!("Unmasked")),
        ("pod-sysctls-safe", p("/securityContext/sysctls/0/name"), json!("kernel.msgmax")),
        ("pod-no-privilege-escalation", debug("/securityContext"), json!({})),
        ("pod-runs-as-non-root", init("/securityContext/runAsNonRoot"), json!(false)),
        ("pod-user-not-root", debug("/securityContext/runAsUser"), json!(0)),
        ("pod-seccomp-set", p("/securityContext/seccompProfile"), json!({"type": "Unconfined"})),
        ("pod-drops-all-capabilities", init("/securityContext/capabilities/add"), json!(["CHOWN"])),
        ("pod-volume-types-restricted", p("/volumes/0"), json!({"name": "n", "nfs": {"server": "s", "path": "/"}})),
        ("pod-read-only-root", debug("/securityContext/readOnlyRootFilesystem"), json!(false)),
        ("pod-images-pinned", init("/image"), json!("r/web:latest")),
        ("pod-memory-limited", init("/resources"), json!({"limits": {"cpu": "1"}})),
        ("pod-no-default-token", p("/serviceAccountName"), json!("default")),
        ("pod-env-no-secrets", debug("/env/0"), json!({"name": "db_password", "value": "x"})),
        ("pod-not-in-default-namespace", "/v1~1pods/0/metadata/namespace".to_owned(), json!("default")),
        ("rbac-cluster-admin", r("clusterrolebindings/1/subjects/0/name"), json!("team")),
        ("rbac-no-wildcards", r("roles/0/rules"), json!([{"verbs": ["*"], "apiGroups": [""], "resources": ["pods"]}])),
        ("rbac-no-anonymous", r("rolebindings/0/subjects/0/name"), json!("system:unauthenticated")),
        (
            "rbac-default-account-unused",
            r("rolebindings/0/subjects/0"),
            json!({"kind": "ServiceAccount", "name": "default"}),
        ),
        ("rbac-nothing-for-all", r("clusterrolebindings/0/subjects/0/name"), json!("system:authenticated")),
        ("namespace-enforces-pod-security", "/v1~1namespaces/0/metadata/labels".to_owned(), json!({})),
        (
            "namespace-default-deny-ingress",
            "/networking.k8s.io~1v1~1networkpolicies/0/spec/podSelector".to_owned(),
            json!({"matchLabels": {"app": "web"}}),
        ),
        (
            "namespace-default-deny-egress",
            "/networking.k8s.io~1v1~1networkpolicies/0/spec/policyTypes".to_owned(),
            json!(["Ingress"]),
        ),
    ]
}

#[test]
fn cluster_rules_pass_fail_and_know_when_they_can_not_tell() {
    let profile = profile("cluster-baseline");
    let judge = |facts: &ClusterFacts| judge_cluster(profile, facts, &Limits::default());
    let mut good = good_cluster();
    assert_all(&judge(&cluster_facts(&good)), Status::Passed);

    good["v1/namespaces"].as_array_mut().expect("a list").push(json!({"metadata": {"name": "default",
        "labels": {"pod-security.kubernetes.io/enforce": "baseline"}}}));
    let mount = json!([{"name": "t", "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount"}]);
    let mut shown = BTreeSet::new();
    for (id, pointer, value) in bad_clusters() {
        let mut bad = good.clone();
        set(&mut bad, &pointer, value);
        if id == "pod-no-default-token" {
            set(&mut bad, "/v1~1pods/0/spec/containers/0/volumeMounts", mount.clone());
        }
        let findings = judge(&cluster_facts(&bad));
        let finding = findings.iter().find(|f| f.control == id).unwrap_or_else(|| panic!("there is no {id}"));
        assert_eq!(finding.outcome, Outcome::Failed, "{id}");
        assert!(
            finding.details.iter().all(|d| d.subject.contains('/') && !d.message.is_empty()),
            "{id}: {:?}",
            finding.details
        );
        shown.insert(id.to_owned());
    }
    let ids: BTreeSet<_> = profile.profile().controls.iter().map(|c| c.id.clone()).collect();
    assert_eq!(shown, ids, "every rule has a failing sample");

    // What was not listed, whatever it is, makes nothing pass that needs it.
    assert_all(&judge(&ClusterFacts::default()), Status::NotEvaluated);
    let mut denied = ClusterFacts::default();
    for resource in profile.resources() {
        denied.miss(&resource, Missing { reason: Reason::AccessDenied, detail: "forbidden".to_owned() });
    }
    for finding in judge(&denied) {
        assert!(
            matches!(finding.outcome, Outcome::NotEvaluated { reason: Reason::AccessDenied, .. }),
            "{}",
            finding.control
        );
    }
    // An empty cluster has nothing to judge, and that is no pass.
    let mut empty = ClusterFacts::default();
    profile.resources().iter().for_each(|resource| empty.add(resource, []));
    assert_all(&judge(&empty), Status::NotApplicable);
    // An object without any of the fields that a rule asks for.
    let mut hollow = cluster_facts(&good_cluster());
    hollow.add(&Resource::new("", "v1", "pods"), [json!({"metadata": {"name": "hollow", "namespace": "app"}})]);
    for finding in
        judge(&hollow).iter().filter(|f| f.control.starts_with("pod-") && f.control != "pod-not-in-default-namespace")
    {
        assert!(
            matches!(finding.outcome, Outcome::NotEvaluated { reason: Reason::FactMissing, .. }),
            "{}",
            finding.control
        );
    }
}

#[test]
fn namespaces_of_gapscan_itself_are_left_out() {
    let mut objects = good_cluster();
    objects["v1/namespaces"] =
        json!([{"metadata": {"name": "app", "labels": {"app.kubernetes.io/managed-by": "gapscan"}}}]);
    let findings = judge_cluster(profile("cluster-baseline"), &cluster_facts(&objects), &Limits::default());
    for finding in findings.iter().filter(|f| !f.control.starts_with("rbac")) {
        assert_eq!(finding.outcome.status(), Status::NotApplicable, "{}", finding.control);
    }
}

/// Random pods with the verdicts that the Pod Security admission of a Kubernetes 1.36 API server gave: another program's
/// reading of the same standard.
#[test]
fn pods_are_judged_as_pod_security_admission_judges_them() {
    let profile = profile("cluster-baseline");
    let asks = |control: &str, level: &str| {
        let references = &profile.profile().control(control).expect("it is judged").references;
        references.iter().any(|r| r.scheme == "pss" && r.id.starts_with(level))
    };
    for (line, text) in include_str!("../testdata/pod-security-1.36.jsonl").lines().enumerate() {
        let case: Json = serde_json::from_str(text).expect("a line of JSON");
        let mut facts = ClusterFacts::default();
        facts.add(&Resource::namespaces(), [json!({"metadata": {"name": "app"}})]);
        let pod = json!({"metadata": {"name": "p", "namespace": "app"}, "spec": case["spec"]});
        facts.add(&Resource::new("", "v1", "pods"), [pod]);
        let findings = judge_cluster(profile, &facts, &Limits::default());
        let meets = |level: &str| {
            findings.iter().filter(|f| asks(&f.control, level)).all(|f| match f.outcome {
                Outcome::Passed => true,
                Outcome::Failed => false,
                ref other => panic!("line {}: {}: {other:?}", line + 1, f.control),
            })
        };
        // What is restricted is baseline too.
        let verdict = json!({"baseline": meets("baseline"), "restricted": meets("baseline") && meets("restricted")});
        let wanted = json!({"baseline": case["baseline"], "restricted": case["restricted"]});
        assert_eq!(verdict, wanted, "line {}", line + 1);
    }
}
