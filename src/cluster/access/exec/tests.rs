use super::*;
use serde_json::json;

const PLACE: Place<'_> = Place { namespace: "shop", pod: "web", container: "web", uid: None };

fn status(value: serde_json::Value) -> Status {
    serde_json::from_value(value).expect("a status")
}

fn exited(code: &str) -> Status {
    status(json!({
        "status": "Failure", "reason": "NonZeroExitCode", "message": "command terminated",
        "details": { "causes": [{ "reason": "ExitCode", "message": code }] },
    }))
}

#[test]
fn an_exit_code_is_read_and_a_missing_program_is_told_apart() {
    let argv = ["sh", "-c", "x"];
    assert_eq!(exit_code(&PLACE, &argv, &status(json!({ "status": "Success" })), 0).expect("0"), 0);
    assert_eq!(exit_code(&PLACE, &argv, &exited("3"), 0).expect("3"), 3);
    assert_eq!(exit_code(&PLACE, &argv, &exited("127"), 5).expect("127"), 127);
    let gone = [
        exited("127"),
        status(json!({ "status": "Failure", "reason": "InternalError",
            "message": "exec: \"sh\": executable file not found in $PATH: unknown" })),
    ];
    for status in gone {
        let error = exit_code(&PLACE, &argv, &status, 0).expect_err("there is no shell");
        assert!(matches!(error, ClusterError::NoShell { .. }), "{error}");
    }
    let odd = status(json!({ "status": "Failure", "message": "something else" }));
    let error = exit_code(&PLACE, &argv, &odd, 0).expect_err("no code is no success");
    assert!(matches!(error, ClusterError::ExecBroken { .. }), "{error}");
}

#[tokio::test]
async fn output_is_capped_and_marked() {
    async fn drained(out: impl AsyncRead + Unpin, err: impl AsyncRead + Unpin) -> (Vec<u8>, Vec<u8>, End) {
        let mut kept = Vec::new();
        let mut sink = |bytes: &[u8]| kept.extend_from_slice(bytes);
        let caps = Caps { stdout: 10, stderr: 4 };
        let (printed, stderr, end) = drain(out, err, caps, async {}, &mut sink).await;
        assert_eq!(printed, kept.len());
        (kept, stderr, end)
    }
    let (out, err, end) = drained(&b"0123456789"[..], &b"errors"[..]).await;
    assert_eq!((out.as_slice(), err.as_slice(), end), (&b"0123456789"[..], &b"erro"[..], End::Whole));
    let (out, _, end) = drained(&b"0123456789a"[..], tokio::io::empty()).await;
    assert_eq!((out.as_slice(), end), (&b"0123456789"[..], End::Cut));
    let (out, _, end) = drained(tokio::io::repeat(b'x'), tokio::io::empty()).await;
    assert_eq!((out.len(), end), (10, End::GivenUp));
}

fn pod(uid: &str, restarts: i32, state: serde_json::Value) -> Pod {
    serde_json::from_value(json!({
        "metadata": { "uid": uid },
        "status": { "containerStatuses": [{ "name": "web", "image": "i", "imageID": "", "ready": true,
            "containerID": format!("containerd://{restarts}"), "restartCount": restarts, "state": state }] },
    }))
    .expect("a pod")
}

#[test]
fn another_pod_of_the_same_name_is_a_change_whatever_it_does() {
    let states = [json!({ "running": {} }), json!({ "waiting": { "reason": "ContainerCreating" } })];
    for state in states {
        let place = Place { uid: Some("a"), ..PLACE };
        let error = incarnation(&pod("b", 0, state), &place).expect_err("it is another");
        assert!(matches!(error, ClusterError::TargetChanged { .. }), "{error}");
    }
    let running = |restarts| incarnation(&pod("a", restarts, json!({ "running": {} })), &PLACE).expect("it runs");
    assert_ne!(running(0).container_id, running(1).container_id);
    let waits = pod("a", 0, json!({ "waiting": { "reason": "CrashLoopBackOff" } }));
    assert!(matches!(incarnation(&waits, &PLACE), Err(ClusterError::TargetNotRunning { .. })));
}
