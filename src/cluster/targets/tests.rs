use super::*;
use serde_json::json;

const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

fn pod(phase: &str, statuses: serde_json::Value) -> Pod {
    serde_json::from_value(json!({
        "metadata": { "namespace": "shop", "name": "web-1", "uid": "u-1" },
        "spec": {
            "nodeName": "lab",
            "initContainers": [{ "name": "setup", "image": "r/setup" }, { "name": "mesh", "image": "r/mesh", "restartPolicy": "Always" }],
            "containers": [{ "name": "web", "image": "r/web:1" }, { "name": "side", "image": "r/side" }],
        },
        "status": { "phase": phase, "containerStatuses": statuses["main"], "initContainerStatuses": statuses["init"] },
    }))
    .expect("a pod")
}

fn status(name: &str, image_id: &str, state: serde_json::Value) -> serde_json::Value {
    json!({ "name": name, "image": "i", "imageID": image_id, "ready": true, "restartCount": 0, "state": state })
}

fn sample() -> Pod {
    let running = json!({ "running": {} });
    pod(
        "Running",
        json!({
            "main": [
                status("web", &format!("reg.example:5000/lab/web@{DIGEST}"), running.clone()),
                status("side", "", json!({ "waiting": { "reason": "CrashLoopBackOff", "message": "back\u{1b}off" } })),
            ],
            "init": [status("setup", "", json!({ "terminated": { "exitCode": 0 } })), status("mesh", DIGEST, running)],
        }),
    )
}

#[test]
fn what_runs_is_found_and_what_should_run_is_missed() {
    let mut selection = Selection::default();
    take(&sample(), None, &mut selection);
    let found: Vec<String> = selection.found.iter().map(|found| found.target.key()).collect();
    assert_eq!(found, ["pod/shop/web-1/web", "pod/shop/web-1/mesh"], "an init container that is done is no target");
    let Target::Container { uid, digest, node, image, .. } = &selection.found[0].target else { panic!("a container") };
    assert_eq!((uid.as_deref(), node.as_deref(), image.as_deref()), (Some("u-1"), Some("lab"), Some("r/web:1")));
    assert_eq!(digest.expect("a digest").to_string(), DIGEST);
    let [(target, reason, detail)] = &selection.missed[..] else { panic!("one is missed") };
    assert_eq!((target.key().as_str(), *reason), ("pod/shop/web-1/side", Reason::TargetNotRunning));
    assert_eq!(detail, "it waits: CrashLoopBackOff: back\\u{1b}off");
}

#[test]
fn a_pod_without_any_status_misses_all_that_should_run() {
    let mut selection = Selection::default();
    take(&pod("Pending", json!({})), None, &mut selection);
    assert!(selection.found.is_empty());
    let missed: Vec<String> = selection.missed.iter().map(|(target, ..)| target.key()).collect();
    assert_eq!(missed, ["pod/shop/web-1/web", "pod/shop/web-1/side", "pod/shop/web-1/mesh"]);
    assert_eq!(selection.missed[0].2, "its pod is Pending");
}

#[test]
fn an_image_without_a_registry_name_is_reported_not_guessed() {
    let (mut selection, mut images) = (Selection::default(), RunningImages::default());
    take(&sample(), None, &mut selection);
    // Twice, as when a list was begun again.
    images.take(&sample(), &selection.found);
    images.take(&sample(), &selection.found);
    let named: Vec<&RunningImage> = images.images.values().collect();
    let [web] = named[..] else { panic!("one has a name: {named:?}") };
    assert_eq!(web.reference, format!("reg.example:5000/lab/web@{DIGEST}"));
    assert_eq!(web.used_by, BTreeSet::from(["pod/shop/web-1/web".to_owned()]));
    assert_eq!(images.unnamed, BTreeSet::from([("pod/shop/web-1/mesh".to_owned(), DIGEST.to_owned())]));
    assert!(image_reference(&format!("docker-pullable://reg/a@{DIGEST}")).expect("named").0.starts_with("reg/a@"));
    assert!(image_reference(&format!("a@{DIGEST}")).is_none());
}
