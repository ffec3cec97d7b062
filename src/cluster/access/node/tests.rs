use super::*;

fn node(taints: Value, unschedulable: bool, ready: &str) -> NodeFacts {
    let node: Node = serde_json::from_value(json!({
        "metadata": { "name": "a", "labels": { "kubernetes.io/os": "linux" } },
        "spec": { "taints": taints, "unschedulable": unschedulable },
        "status": { "conditions": [{ "type": "Ready", "status": ready, "message": "kubelet is posting ready status" }] },
    }))
    .expect("a node");
    NodeFacts::of(&node)
}

fn tolerate(texts: &[&str]) -> Vec<Toleration> {
    texts.iter().map(|text| text.parse().expect(text)).collect()
}

#[test]
fn a_taint_keeps_a_job_off_unless_it_is_tolerated_by_choice() {
    let plane = json!([{ "key": "node-role.kubernetes.io/control-plane", "effect": "NoSchedule" }]);
    let facts = node(plane, false, "True");
    let (reason, detail) = facts.obstacle(&[]).expect("nothing is tolerated");
    assert_eq!(reason, Reason::ScannerNotStarted);
    // What is recommended is understood, and does it.
    let (_, remedy) = detail.rsplit_once("--tolerate ").expect("a remedy");
    assert_eq!(facts.obstacle(&tolerate(&[remedy])), None);
    for enough in ["all", "node-role.kubernetes.io/control-plane", "node-role.kubernetes.io/control-plane=:NoSchedule"]
    {
        assert_eq!(facts.obstacle(&tolerate(&[enough])), None, "{enough}");
    }
    for other in
        ["control-plane", "node-role.kubernetes.io/control-plane=x", "node-role.kubernetes.io/control-plane:NoExecute"]
    {
        assert!(facts.obstacle(&tolerate(&[other])).is_some(), "{other}");
    }
}

#[test]
fn a_taint_that_only_advises_keeps_nothing_off() {
    let taints = json!([{ "key": "a", "value": "b", "effect": "PreferNoSchedule" }]);
    assert_eq!(node(taints, false, "True").obstacle(&[]), None);
}

#[test]
fn a_cordoned_node_says_so_before_it_is_tainted_for_it() {
    let facts = node(json!([]), true, "True");
    let (_, detail) = facts.obstacle(&[]).expect("it is cordoned");
    assert!(detail.starts_with("it is cordoned; ") && detail.contains(CORDONED), "{detail}");
    assert_eq!(facts.obstacle(&tolerate(&["all"])), None);
    let tainted = json!([{ "key": CORDONED, "effect": "NoSchedule" }]);
    assert_eq!(node(tainted, true, "True").taints.len(), 1);
}

#[test]
fn a_node_without_a_kubelet_is_not_waited_for_whatever_is_tolerated() {
    for ready in ["False", "Unknown"] {
        let taints = json!([{ "key": "node.kubernetes.io/not-ready", "effect": "NoExecute" }]);
        let (reason, _) = node(taints, false, ready).obstacle(&tolerate(&["all"])).expect("it is not ready");
        assert_eq!(reason, Reason::TargetNotRunning);
    }
    assert!(NodeFacts::of(&Node::default()).obstacle(&tolerate(&["all"])).is_some());
}

#[test]
fn taints_are_read_as_they_are_written_and_nothing_else_is() {
    for text in ["all", "a", "a.b/c", "a=b", "a=", "a:NoExecute", "example.com/a=b.c:NoSchedule"] {
        assert_eq!(text.parse::<Toleration>().expect(text).to_string(), text);
    }
    for text in ["", ":", "=", "a:", "a:noschedule", "a b", "/a", "a/", "a/b/c", "-a", "A_/b", "a=b=c", "a:b:NoExecute"]
    {
        assert!(text.parse::<Toleration>().is_err(), "{text}");
    }
}

#[test]
fn only_a_runtime_that_says_so_has_mounted_all_of_it_read_only() {
    let pod = |mounts: Value| -> Pod {
        let status = json!({ "name": "scanner", "image": "", "imageID": "", "ready": true, "restartCount": 0,
            "volumeMounts": mounts });
        serde_json::from_value(json!({ "status": { "containerStatuses": [status] } })).expect("a pod")
    };
    let mounted =
        |how: &str| pod(json!([{ "name": "target", "mountPath": ROOT, "readOnly": true, "recursiveReadOnly": how }]));
    assert_eq!(writable_below(&mounted("Enabled"), "scanner", ROOT), None);
    assert!(writable_below(&mounted("Disabled"), "scanner", ROOT).is_some());
    assert!(writable_below(&pod(json!([])), "scanner", ROOT).is_some());
    assert!(writable_below(&Pod::default(), "scanner", ROOT).is_some());
}
