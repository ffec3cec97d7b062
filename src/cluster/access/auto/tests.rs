use super::*;
use serde_json::json;

const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
const DEFAULT: [Way; 3] = [Way::Exec, Way::Debug, Way::Image];

fn pod(change: impl FnOnce(&mut serde_json::Value)) -> Pod {
    let mut pod = json!({
        "metadata": { "name": "keeper", "namespace": "vault" },
        "spec": { "containers": [{ "name": "app", "image": "r/app:1" }] },
        "status": { "containerStatuses": [{
            "name": "app", "image": "r/app:1", "imageID": format!("r:5000/app@{DIGEST}"), "ready": true, "restartCount": 0,
            "state": { "running": {} }, "user": { "linux": { "uid": 65532, "gid": 65530 } },
        }] },
    });
    change(&mut pod);
    serde_json::from_value(pod).expect("a pod")
}

fn chosen(change: impl FnOnce(&mut serde_json::Value)) -> (Vec<Way>, String) {
    let facts = ContainerFacts::of(&pod(change), "app").expect("it has the container");
    let choice = choose(&facts, &DEFAULT, &DEFAULT);
    (choice.ways.iter().map(|c| c.way).collect(), choice.refusals())
}

#[test]
fn a_plain_container_is_reached_in_all_ways_that_are_allowed_in_their_order() {
    let facts = ContainerFacts::of(&pod(|_| {}), "app").expect("it has the container");
    assert_eq!(facts.user, Some(User { uid: 65532, gid: 65530 }));
    assert_eq!(facts.image.as_deref(), Some(format!("r:5000/app@{DIGEST}").as_str()));
    let choice = choose(&facts, &DEFAULT, &[Way::Image, Way::Exec]);
    assert_eq!(choice.ways.iter().map(|c| c.way).collect::<Vec<_>>(), [Way::Image, Way::Exec]);
    assert_eq!(choice.refusals(), "debug: policy does not allow it");
    let choice = choose(&facts, &[Way::Image], &DEFAULT);
    assert_eq!(choice.refusals(), "exec: the scanner does not offer it; debug: the scanner does not offer it");
    assert!(ContainerFacts::of(&pod(|_| {}), "other").is_none());
}

#[test]
fn each_obstacle_to_an_ephemeral_container_is_seen_and_named() {
    let context = |pod: &mut serde_json::Value, context: serde_json::Value| {
        pod["spec"]["containers"][0]["securityContext"] = context;
        pod["status"]["containerStatuses"][0]["user"] = json!({ "linux": { "uid": 0, "gid": 0 } });
    };
    type Change<'a> = &'a dyn Fn(&mut serde_json::Value);
    let cases: [(&str, Change); 7] = [
        ("static", &|pod| pod["metadata"]["annotations"] = json!({ "kubernetes.io/config.mirror": "x" })),
        ("the node's", &|pod| pod["spec"]["hostPID"] = json!(true)),
        ("none of the container's", &|pod| pod["spec"]["shareProcessNamespace"] = json!(true)),
        ("which user", &|pod| {
            pod["status"]["containerStatuses"][0]["user"] = json!(null);
            pod["spec"]["securityContext"] = json!({ "runAsUser": 7 });
        }),
        ("privileged", &|pod| context(pod, json!({ "privileged": true }))),
        ("NET_ADMIN", &|pod| context(pod, json!({ "capabilities": { "add": ["NET_ADMIN"] } }))),
        ("has had 20", &|pod| {
            let many: Vec<_> = (0..20).map(|n| json!({ "name": format!("gapscan-{n}"), "image": "r/g" })).collect();
            pod["spec"]["ephemeralContainers"] = json!(many);
        }),
    ];
    for (sign, change) in cases {
        let (ways, refusals) = chosen(change);
        assert_eq!(ways, [Way::Exec, Way::Image], "{sign}");
        assert!(refusals.starts_with("debug: ") && refusals.contains(sign), "{sign}: {refusals}");
    }
}

#[test]
fn what_a_user_without_privileges_was_given_can_not_keep_it_from_being_looked_at() {
    let (ways, _) = chosen(|pod| {
        pod["spec"]["containers"][0]["securityContext"] = json!({ "capabilities": { "add": ["NET_BIND_SERVICE"] } });
    });
    assert_eq!(ways, DEFAULT, "its user is not root, who alone holds capabilities");
}

#[test]
fn without_a_report_of_the_runtime_the_pod_is_believed_where_it_names_user_and_group() {
    let (ways, _) = chosen(|pod| {
        pod["status"]["containerStatuses"][0]["user"] = json!(null);
        pod["spec"]["securityContext"] = json!({ "runAsUser": 7, "runAsGroup": 8 });
        pod["spec"]["containers"][0]["securityContext"] = json!({ "runAsUser": 9 });
    });
    assert_eq!(ways, DEFAULT);
}

#[test]
fn what_can_not_be_reached_at_all_says_why() {
    let (ways, refusals) = chosen(|pod| pod["spec"]["os"] = json!({ "name": "windows" }));
    assert!(ways.is_empty());
    assert_eq!(refusals.matches("Windows").count(), 3, "{refusals}");
    let (ways, refusals) = chosen(|pod| pod["status"]["containerStatuses"][0]["imageID"] = json!(DIGEST));
    assert_eq!(ways, [Way::Exec, Way::Debug]);
    assert!(refusals.starts_with("image: "), "{refusals}");
}
