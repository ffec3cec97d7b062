use super::*;

const IMAGE: &str = "r:5000/gapscan@sha256:1";

fn wanted() -> Wanted<'static> {
    Wanted { image: IMAGE, container: None, user: None }
}

fn spec() -> Value {
    json!({
        "containers": [{ "name": "app", "image": "r/app:1", "securityContext": { "runAsUser": 7, "runAsGroup": 8 } }],
        "volumes": [{ "name": "data", "emptyDir": {} }],
    })
}

fn pod(change: impl FnOnce(&mut Value)) -> Value {
    let mut spec = spec();
    change(&mut spec);
    json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "p" }, "spec": spec, "x-unknown": { "kept": [1] } })
}

fn refusal(object: Value, wanted: &Wanted<'_>) -> Refusal {
    let mut changed = object;
    let injections = inject(&mut changed, 3, wanted);
    assert!(injections.done.is_empty(), "{injections:?}");
    injections.refused.into_iter().next().expect("it is refused")
}

#[test]
fn every_kind_with_pods_gets_the_agent_and_nothing_else_changes() {
    let template = json!({ "metadata": { "labels": { "a": "b" } }, "spec": spec() });
    let workload = |kind: &str, version: &str, spec: Value| json!({ "apiVersion": version, "kind": kind, "metadata": { "name": "w" }, "spec": spec });
    let objects = [
        (workload("Deployment", "apps/v1", json!({ "replicas": 2, "template": template })), "/spec/template/spec"),
        (workload("StatefulSet", "apps/v1", json!({ "template": template })), "/spec/template/spec"),
        (workload("DaemonSet", "apps/v1", json!({ "template": template })), "/spec/template/spec"),
        (workload("ReplicaSet", "apps/v1", json!({ "template": template })), "/spec/template/spec"),
        (workload("Job", "batch/v1", json!({ "template": template })), "/spec/template/spec"),
        (
            workload("CronJob", "batch/v1", json!({ "jobTemplate": { "spec": { "template": template } } })),
            "/spec/jobTemplate/spec/template/spec",
        ),
        (pod(|_| {}), "/spec"),
    ];
    for (object, place) in objects {
        let mut changed = object.clone();
        let injections = inject(&mut changed, 1, &wanted());
        assert_eq!((injections.done.len(), injections.refused.len()), (1, 0), "{object}");
        assert_eq!(injections.done[0].changes.len(), 3, "{injections:?}");
        let spec = changed.pointer(place).expect("a specification");
        assert_eq!(spec["shareProcessNamespace"], true);
        let agent = &spec["initContainers"][0];
        assert_eq!(
            (&agent["name"], &agent["restartPolicy"], &agent["image"]),
            (&json!(AGENT), &json!("Always"), &json!(IMAGE))
        );
        assert_eq!(agent["command"], json!(["/gapscan", "agent", "stand-by", "--for", "app"]));
        assert_eq!(agent["securityContext"]["runAsGroup"], 8);
        assert_eq!(spec["volumes"].as_array().map(Vec::len), Some(2));
        // Taken out again, it is what it was.
        let spec = changed.pointer_mut(place).and_then(Value::as_object_mut).expect("a specification");
        spec.remove("initContainers");
        spec.remove("shareProcessNamespace");
        spec["volumes"].as_array_mut().expect("a list").pop();
        assert_eq!(changed, object);
    }
}

#[test]
fn what_it_writes_is_what_kubernetes_knows() {
    let mut object = pod(|_| {});
    inject(&mut object, 1, &wanted());
    let read: PodSpec = serde_json::from_value(object["spec"].clone()).expect("a pod");
    assert_eq!(serde_json::to_value(read).expect("the same"), object["spec"]);
}

#[test]
fn a_second_time_changes_nothing() {
    let mut once = pod(|_| {});
    inject(&mut once, 1, &wanted());
    for container in [None, Some("app")] {
        let mut twice = once.clone();
        let injections = inject(&mut twice, 1, &Wanted { container, ..wanted() });
        assert_eq!(injections.done[0].changes, [""; 0]);
        assert_eq!(twice, once);
    }
}

#[test]
fn an_agent_of_an_earlier_bundle_is_renewed_in_its_place() {
    let mut object = pod(|spec| spec["initContainers"] = json!([{ "name": "setup", "image": "r/s" }]));
    inject(&mut object, 1, &wanted());
    let newer = Wanted { image: "r:5000/gapscan@sha256:2", ..wanted() };
    let injections = inject(&mut object, 1, &newer);
    assert_eq!(injections.done[0].changes.len(), 1, "{injections:?}");
    let inits = object["spec"]["initContainers"].as_array().expect("a list");
    assert_eq!(inits.len(), 2);
    assert_eq!((&inits[0]["name"], &inits[1]["image"]), (&json!("setup"), &json!("r:5000/gapscan@sha256:2")));
}

#[test]
fn lists_are_gone_through_and_what_has_no_pods_is_left_alone() {
    let service =
        json!({ "apiVersion": "v1", "kind": "Service", "metadata": { "name": "s" }, "spec": { "ports": [] } });
    let foreign =
        json!({ "apiVersion": "example.org/v1", "kind": "Deployment", "metadata": { "name": "f" }, "spec": {} });
    let mut list = json!({ "apiVersion": "v1", "kind": "List", "items": [service, pod(|_| {}), foreign] });
    let injections = inject(&mut list, 1, &wanted());
    assert_eq!((injections.done.len(), injections.refused.len(), injections.passed_over.len()), (1, 0, 0));
    assert_eq!((&list["items"][0], &list["items"][2]), (&service, &foreign));
    assert_eq!(list["items"][1]["spec"]["shareProcessNamespace"], true);
}

#[test]
fn of_several_containers_one_is_named_or_is_kubectls_default() {
    let two = |spec: &mut Value| {
        let proxy = json!({ "name": "proxy", "image": "r/p", "securityContext": { "runAsUser": 9, "runAsGroup": 9 } });
        spec["containers"].as_array_mut().expect("a list").push(proxy);
    };
    let why = refusal(pod(two), &wanted());
    assert!(why.to_string().contains("app, proxy; name one with --container"), "{why}");
    let mut named = pod(two);
    let injections = inject(&mut named, 1, &Wanted { container: Some("proxy"), ..wanted() });
    assert_eq!(injections.done[0].container, "proxy");
    assert_eq!(named["spec"]["initContainers"][0]["securityContext"]["runAsUser"], 9);
    let mut annotated = pod(two);
    annotated["metadata"]["annotations"] = json!({ "kubectl.kubernetes.io/default-container": "app" });
    assert_eq!(inject(&mut annotated, 1, &wanted()).done[0].container, "app");
    let none = inject(&mut pod(two), 1, &Wanted { container: Some("other"), ..wanted() });
    assert_eq!((none.done.len(), none.passed_over.len()), (0, 1));
}

#[test]
fn a_user_that_the_manifest_does_not_name_must_be_named_by_whoever_asks() {
    let without = |spec: &mut Value| spec["containers"][0]["securityContext"] = json!({ "runAsUser": 7 });
    let why = refusal(pod(without), &wanted());
    assert!(
        why.field.ends_with("containers[app].securityContext.runAsGroup") && why.remedy.contains("--user"),
        "{why}"
    );
    assert!(why.to_string().starts_with("document 3, Pod `p`, spec."), "{why}");
    let user = |uid, gid| Wanted { user: Some(User { uid, gid }), ..wanted() };
    let mut object = pod(without);
    assert_eq!(inject(&mut object, 1, &user(7, 0)).done.len(), 1);
    assert_eq!(object["spec"]["initContainers"][0]["securityContext"]["runAsGroup"], 0);
    refusal(pod(without), &user(9, 0));
    refusal(pod(|_| {}), &user(7, 9));
    let mut of_pod = pod(|spec| {
        spec["containers"][0]["securityContext"] = json!({});
        spec["securityContext"] = json!({ "runAsUser": 5, "runAsGroup": 6 });
    });
    assert_eq!(inject(&mut of_pod, 1, &wanted()).done.len(), 1);
    assert_eq!(of_pod["spec"]["initContainers"][0]["securityContext"]["runAsUser"], 5);
}

#[test]
fn what_can_not_have_the_agent_is_refused_with_place_and_remedy() {
    type Change<'a> = &'a dyn Fn(&mut Value);
    let cases: [(&str, &str, Change); 8] = [
        ("spec.os", "Windows", &|spec| spec["os"] = json!({ "name": "windows" })),
        ("spec.hostPID", "node's processes", &|spec| spec["hostPID"] = json!(true)),
        ("spec.containers[app].securityContext.runAsUser", "as root", &|spec| {
            spec["containers"][0]["securityContext"]["runAsUser"] = json!(0)
        }),
        ("spec.containers", "not gapscan's agent", &|spec| {
            let mine = json!({ "name": AGENT, "image": "r/mine" });
            spec["containers"].as_array_mut().expect("a list").push(mine);
        }),
        ("spec.volumes", "already", &|spec| spec["volumes"][0]["name"] = json!(RESULTS)),
        ("spec", "no pod", &|spec| spec["containers"] = json!("none")),
        ("spec", "no pod", &|spec| spec["hostPID"] = json!("yes")),
        ("spec.containers", "several", &|spec| spec["containers"] = json!([])),
    ];
    for (field, sign, change) in cases {
        let why = refusal(pod(change), &wanted());
        assert_eq!(why.field, field, "{why}");
        assert!(why.why.contains(sign) && !why.remedy.is_empty(), "{sign}: {why}");
    }
    let old =
        json!({ "apiVersion": "extensions/v1beta1", "kind": "Deployment", "metadata": { "name": "d" }, "spec": {} });
    assert_eq!(refusal(old, &wanted()).field, "apiVersion");
    let empty = json!({ "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": "d" } });
    assert_eq!(refusal(empty, &wanted()).field, "spec.template.spec");
}

#[test]
fn an_agent_for_another_container_is_not_taken_away_from_it() {
    let mut object = pod(|spec| {
        let proxy = json!({ "name": "proxy", "image": "r/p", "securityContext": { "runAsUser": 9, "runAsGroup": 9 } });
        spec["containers"].as_array_mut().expect("a list").push(proxy);
    });
    inject(&mut object, 1, &Wanted { container: Some("app"), ..wanted() });
    let why = refusal(object, &Wanted { container: Some("proxy"), ..wanted() });
    assert!(why.why.contains("for container `app` already"), "{why}");
}
