//! `gapscan inject` as people run it, without a cluster: what goes to stdout is for kubectl, what is said goes to stderr.

use std::io::Write as _;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

const IMAGE: &str = "registry.example:5000/gapscan/images/gapscan@sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

const MANIFEST: &str = "\
apiVersion: v1
kind: Service
metadata: {name: app}
spec: {ports: [{port: 80}]}
---
apiVersion: batch/v1
kind: CronJob
metadata: {name: app}
spec:
  schedule: '@daily'
  jobTemplate:
    spec:
      template:
        spec:
          restartPolicy: Never
          containers:
          - name: app
            image: app:1
            securityContext: {runAsUser: 7}
";

fn inject(input: &str, arguments: &[&str]) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_gapscan"))
        .arg("inject")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("gapscan runs");
    // One that refuses its arguments reads nothing.
    let _ = child.stdin.take().expect("its input is piped").write_all(input.as_bytes());
    child.wait_with_output().expect("it ends")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("text")
}

#[test]
fn what_is_printed_is_for_kubectl_and_what_is_said_is_on_stderr() {
    let output = inject(MANIFEST, &["-", "--image", IMAGE, "--user", "7:8"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let said = text(&output.stderr);
    assert!(said.contains("document 2, CronJob `app`: shareProcessNamespace is true"), "{said}");
    let printed = text(&output.stdout);
    assert!(printed.starts_with("apiVersion: v1\nkind: Service\n"), "{printed}");
    let again = inject(&printed, &["-", "--image", IMAGE, "--user", "7:8"]);
    assert_eq!(text(&again.stdout), printed);
    assert!(text(&again.stderr).contains("nothing is changed"));

    let output = inject(MANIFEST, &["-", "--image", IMAGE, "--user", "7:8", "-o", "json"]);
    let list: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let spec = &list["items"][1]["spec"]["jobTemplate"]["spec"]["template"]["spec"];
    assert_eq!(spec["initContainers"][0]["image"], IMAGE);
    assert_eq!(spec["initContainers"][0]["restartPolicy"], "Always", "or the job would never be done");
}

#[test]
fn what_can_not_be_done_is_said_with_its_place_and_remedy_and_nothing_is_printed() {
    let image = ["--image", IMAGE];
    let tagged = ["--image", "registry.example:5000/gapscan:1"];
    let cases: [(&str, &[&str], &[&str], &str); 6] = [
        (
            MANIFEST,
            &["-"],
            &image,
            "document 2, CronJob `app`, spec.jobTemplate.spec.template.spec.containers[app].securityContext.runAsGroup",
        ),
        (MANIFEST, &["-", "--user", "7:8", "--container", "other"], &image, "no pod in it has a container `other`"),
        (MANIFEST, &["-", "--user", "7:8"], &tagged, "it has no digest"),
        (MANIFEST, &["-", "--user", "7"], &image, "two numbers"),
        ("a: [", &["-"], &image, "read `standard input` as a Kubernetes manifest: line 1"),
        ("", &["none.yaml"], &image, "none.yaml"),
    ];
    for (input, arguments, more, sign) in cases {
        let output = inject(input, &[arguments, more].concat());
        assert!([Some(2), Some(5)].contains(&output.status.code()), "{sign}: {output:?}");
        assert!(output.stdout.is_empty(), "{sign}");
        assert!(text(&output.stderr).contains(sign), "{sign}: {}", text(&output.stderr));
    }
    assert_eq!(inject(MANIFEST, &["-"]).status.code(), Some(2), "an image must be named");
}
