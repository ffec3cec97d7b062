use super::*;
use k8s_openapi::api::core::v1::EphemeralContainer;

fn facts(uid: i64, dropped: &[&str]) -> ContainerFacts {
    let pod = json!({
        "spec": { "containers": [{ "name": "app", "securityContext": {
            "runAsUser": uid, "runAsGroup": 7, "capabilities": { "drop": dropped },
        } }] },
    });
    ContainerFacts::of(&serde_json::from_value(pod).expect("a pod"), "app").expect("it has the container")
}

fn made(facts: &ContainerFacts) -> Value {
    let target = Target::Host { name: String::new() };
    let request = DebugRequest {
        target: &target,
        facts,
        run: RunId::new(),
        scan: 3,
        image: "r/gapscan@sha256:1",
        caps: Caps { stdout: 1, stderr: 1 },
        deadline: Duration::from_secs(60),
    };
    manifest(
        &request,
        context(facts, &target).expect("its user is known"),
        "gapscan-x-3",
        "app",
        "word",
        Duration::from_secs(200),
    )
}

#[test]
fn it_is_what_kubernetes_knows_and_the_restricted_standard_takes() {
    let manifest = made(&facts(65532, &[]));
    let read: EphemeralContainer = serde_json::from_value(manifest.clone()).expect("an ephemeral container");
    assert_eq!(serde_json::to_value(read).expect("the same"), manifest);
    let context = &manifest["securityContext"];
    assert_eq!(context["capabilities"], json!({ "drop": ["ALL"] }));
    assert_eq!((&context["runAsNonRoot"], &context["allowPrivilegeEscalation"]), (&json!(true), &json!(false)));
    assert_eq!((&context["runAsUser"], &context["runAsGroup"]), (&json!(65532), &json!(7)));
    assert_eq!(manifest["targetContainerName"], "app");
    assert!(manifest.get("volumeMounts").is_none());
}

#[test]
fn beside_root_it_has_the_capabilities_that_the_target_was_left() {
    assert_eq!(made(&facts(0, &[]))["securityContext"]["capabilities"], json!({ "drop": [] }));
    let manifest = made(&facts(0, &["ALL"]));
    assert_eq!(manifest["securityContext"]["capabilities"], json!({ "drop": ["ALL"] }));
    assert_eq!(manifest["securityContext"]["runAsNonRoot"], json!(false));
}

#[test]
fn what_arrived_whole_counts_however_the_command_was_seen_to_end() {
    let place = Place { namespace: "n", pod: "p", container: "gapscan-x-3", uid: None };
    let mut whole = Vec::new();
    parcel::send_with(b"facts", OWN_SOCKETS, b"{}", &mut whole).expect("it is written to memory");
    let stopped = || Err(ClusterError::TargetChanged { target: place.key(), detail: "it stopped".to_owned() });
    for ended in [Ok(()), stopped()] {
        let collected = received(&whole, ended, &place).expect("it is whole");
        assert_eq!((&collected.facts[..], &collected.sockets[..]), (&b"facts"[..], &b"{}"[..]));
    }
    let cut = &whole[..whole.len() - 9];
    let of = |ended| received(cut, ended, &place).expect_err("it is cut");
    assert!(matches!(of(stopped()), ClusterError::ExecBroken { .. }), "the target itself has not changed");
    assert!(matches!(of(Ok(())), ClusterError::OutputTruncated { .. }));
    let late = Err(ClusterError::ExecTimeout { target: place.key(), after: Duration::from_secs(1) });
    assert!(matches!(of(late), ClusterError::ExecTimeout { .. }));
}
