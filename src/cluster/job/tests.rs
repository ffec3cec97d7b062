use serde_json::{Value, json};

use super::fetch::HandOver;
use super::*;
use crate::base::document;
use crate::base::spool::Content as _;
use crate::cluster::access::exec::ExecEnd;
use crate::cluster::agent::parcel::Sender;
use crate::cluster::agent::protocol::{Header, RESULT, ResultState, STATUS, STDERR, STDOUT};
use crate::cluster::pull::PullSecret;
use crate::model::reason::Reason;
use crate::model::record::RunId;
use crate::model::scanner::ScannerDocument;

const SCANNER: &str = "
apiVersion: gapscan/v1
kind: Scanner
name: openscap
title: OpenSCAP
image: openscap
approaches:
  image:
    mount: /target
    command: [oscap, --profile, '${profile}', $HOME]
    env: { OSCAP_PROBE_ROOT: /target }
result: { path: arf.xml, format: arf }
exitCodes: { 0: complete, 2: complete, 1: failed }
deadline: 5m
memory: 512Mi
cpu: '1'
";

fn scanner() -> ScannerDocument {
    document::parse(std::path::Path::new("scanner.yaml"), SCANNER).expect("a scanner")
}

fn request(scanner: &ScannerDocument) -> JobRequest<'_> {
    let scanning = Scanning {
        run: RunId::new(),
        scan: 7,
        program: Program::of(scanner, scanner.approaches.image.as_ref().expect("it has one")),
        scanner_image: "r/scanner@sha256:1".to_owned(),
        agent_image: "r/gapscan@sha256:2".to_owned(),
        mounts: vec![ImageMount { reference: "r/db@sha256:4".to_owned(), path: "/db".to_owned() }],
        parameters: BTreeMap::from([("profile".to_owned(), "standard ${other}".to_owned())]),
        pull: None,
        egress: Vec::new(),
        inputs: None,
        result_limit: 1 << 20,
        spool: std::env::temp_dir(),
    };
    JobRequest { scanning, target: JobTarget::Image("r/target@sha256:3".to_owned()), archive: None, uploads: None }
}

#[test]
fn the_manifest_is_what_kubernetes_knows_and_has_no_shell() {
    let scanner = scanner();
    let manifest = manifest::job(&request(&scanner), Duration::from_secs(60)).expect("a manifest");
    let read: Job = serde_json::from_value(manifest.clone()).expect("a Job");
    let again = serde_json::to_value(&read).expect("the same");
    // Kubernetes leaves out an environment without entries; ours has one.
    assert_eq!(again["spec"], manifest["spec"]);
    insta::assert_json_snapshot!(manifest);
}

#[test]
fn inputs_are_files_of_a_secret_of_the_scan_and_in_no_argument_or_variable() {
    let text = SCANNER.replace("$HOME]", "'--input-file', '${target.inputs}/inputs.yaml']");
    let scanner: ScannerDocument = document::parse(std::path::Path::new("s.yaml"), &text).expect("a scanner");
    let mut request = request(&scanner);
    let files = BTreeMap::from([("inputs.yaml".to_owned(), zeroize::Zeroizing::new(b"password: hunter2".to_vec()))]);
    request.scanning.inputs = Some(crate::cluster::inputs::InputFiles::new(files));
    let manifest = manifest::job(&request, Duration::from_secs(60)).expect("a manifest");
    let read: Job = serde_json::from_value(manifest.clone()).expect("a Job");
    assert_eq!(serde_json::to_value(&read).expect("the same")["spec"], manifest["spec"]);
    let pod = &manifest["spec"]["template"]["spec"];
    let of = |list: &Value, name: &str| -> Vec<Value> {
        list.as_array().into_iter().flatten().filter(|one| one["name"] == name).cloned().collect()
    };
    let secret = json!({ "name": "inputs", "secret": { "secretName": "inputs-7", "defaultMode": 0o440 } });
    assert_eq!(of(&pod["volumes"], "inputs"), [secret]);
    let mount = json!({ "name": "inputs", "mountPath": "/inputs", "readOnly": true });
    assert_eq!(of(&pod["containers"][0]["volumeMounts"], "inputs"), [mount]);
    assert!(of(&pod["initContainers"][0]["volumeMounts"], "inputs").is_empty());
    let command: Vec<&str> =
        pod["containers"][0]["command"].as_array().expect("words").iter().filter_map(Value::as_str).collect();
    assert!(command.contains(&"/inputs/inputs.yaml"));
    assert!(!manifest.to_string().contains("hunter2") && !format!("{request:?}").contains("hunter2"));
}

#[test]
fn a_job_on_a_node_reads_all_of_it_and_gets_nothing_else() {
    let scanner = scanner();
    let place = NodePlace { node: "lab".to_owned(), tolerated: vec!["a=b:NoSchedule".parse().expect("a taint")] };
    let request = JobRequest { target: JobTarget::Node(place), ..request(&scanner) };
    let manifest = manifest::job(&request, Duration::from_secs(60)).expect("a manifest");
    let read: Job = serde_json::from_value(manifest.clone()).expect("a Job");
    assert_eq!(serde_json::to_value(&read).expect("the same")["spec"], manifest["spec"]);
    let of_image = manifest::job(
        &JobRequest { target: JobTarget::Image("r/i".to_owned()), ..request.clone() },
        Duration::from_secs(60),
    );
    let of_image = of_image.expect("a manifest");
    let (pod, other) = (&manifest["spec"]["template"]["spec"], &of_image["spec"]["template"]["spec"]);
    for none in ["hostNetwork", "hostPID", "hostIPC", "nodeName"] {
        assert!(pod.get(none).is_none(), "{none}");
    }
    // Only the scanner itself is root.
    assert_eq!(
        (&pod["initContainers"], &pod["securityContext"]),
        (&other["initContainers"], &other["securityContext"])
    );
    let container = &pod["containers"][0];
    assert_eq!(container["securityContext"]["capabilities"], json!({ "drop": ["ALL"], "add": ["DAC_READ_SEARCH"] }));
    assert_eq!(container["securityContext"]["allowPrivilegeEscalation"], json!(false));
    assert_eq!(container["securityContext"]["readOnlyRootFilesystem"], json!(true));
    let target = container["volumeMounts"].as_array().expect("mounts").iter().find(|m| m["name"] == "target");
    let mounted =
        json!({ "name": "target", "mountPath": "/target", "readOnly": true, "recursiveReadOnly": "IfPossible" });
    assert_eq!(target, Some(&mounted));
    let hidden = container["volumeMounts"].as_array().expect("mounts").iter().find(|m| m["name"] == "nothing");
    assert_eq!(hidden.expect("it is hidden")["mountPath"], "/target/proc/sys/net");
    let host_paths: Vec<&Value> =
        pod["volumes"].as_array().expect("volumes").iter().filter(|v| v.get("hostPath").is_some()).collect();
    assert_eq!(host_paths, [&json!({ "name": "target", "hostPath": { "path": "/", "type": "Directory" } })]);
    assert_eq!(pod["tolerations"], json!([{ "key": "a", "operator": "Equal", "value": "b", "effect": "NoSchedule" }]));
    let terms = &pod["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"];
    assert_eq!(*terms, json!([{ "matchFields": [{ "key": "metadata.name", "operator": "In", "values": ["lab"] }] }]));
}

#[test]
fn what_a_definition_asks_for_is_in_its_pod() {
    let text = SCANNER.replace(
        "deadline: 5m",
        "deadline: 5m\nversion: {command: [oscap, --version]}\nuser: {uid: 1000, gid: 0}\nwritable: [{path: /var/cache/x, \
         size: 64Mi}]",
    );
    let text = text.replace("$HOME]", "'${target.inputs}/inputs.yaml']");
    let scanner: ScannerDocument = document::parse(std::path::Path::new("s.yaml"), &text).expect("a scanner");
    let request = request(&scanner);
    let manifest = manifest::job(&request, Duration::from_secs(60)).expect("a manifest");
    let read: Job = serde_json::from_value(manifest.clone()).expect("a Job");
    assert_eq!(serde_json::to_value(&read).expect("the same")["spec"], manifest["spec"]);
    let pod = &manifest["spec"]["template"]["spec"];
    let user = |key: &str| pod["securityContext"][key].as_u64();
    assert_eq!((user("runAsUser"), user("runAsGroup"), user("fsGroup")), (Some(1000), Some(0), Some(0)));
    let container = &pod["containers"][0];
    let of = |list: &Value, name: &str| {
        list.as_array().expect("a list").iter().find(|one| one["name"] == name).cloned().unwrap_or_default()
    };
    let (volumes, mounts) = (&pod["volumes"], &container["volumeMounts"]);
    assert_eq!(of(volumes, "writable-0")["emptyDir"], json!({ "sizeLimit": "64Mi" }));
    assert_eq!(of(mounts, "writable-0"), json!({ "name": "writable-0", "mountPath": "/var/cache/x" }));
    assert_eq!(of(mounts, "inputs"), json!({ "name": "inputs", "mountPath": "/inputs", "readOnly": true }));
    let command: Vec<&str> = container["command"].as_array().expect("words").iter().filter_map(Value::as_str).collect();
    let own = command.iter().position(|word| *word == "--").expect("the scanner's own");
    assert_eq!(command[own + 1..].last(), Some(&"/inputs/inputs.yaml"));
    let asked: Vec<&&str> = command[..own].iter().filter(|word| word.starts_with("--version-word=")).collect();
    assert_eq!(asked, [&"--version-word=oscap", &"--version-word=--version"]);

    // On a node it is root, with what it asks to see.
    let text = text.replace("  image:\n", "  node:\n    capabilities: [SYS_PTRACE, SYS_PTRACE]\n");
    let scanner: ScannerDocument = document::parse(std::path::Path::new("s.yaml"), &text).expect("a scanner");
    let place = NodePlace { node: "lab".to_owned(), tolerated: Vec::new() };
    let with_image = self::scanner();
    let other = self::request(&with_image);
    let program = Program::of(&scanner, scanner.approaches.node.as_ref().expect("it has one"));
    let scanning = Scanning { program, ..other.scanning };
    let request = JobRequest { scanning, target: JobTarget::Node(place), archive: None, uploads: None };
    let manifest = manifest::job(&request, Duration::from_secs(60)).expect("a manifest");
    let pod = &manifest["spec"]["template"]["spec"];
    assert_eq!(pod["securityContext"]["runAsUser"], 65532);
    let security = &pod["containers"][0]["securityContext"];
    assert_eq!(security["runAsUser"], 0);
    assert_eq!(security["capabilities"], json!({ "drop": ["ALL"], "add": ["DAC_READ_SEARCH", "SYS_PTRACE"] }));
}

#[test]
fn only_a_scanner_with_a_transport_gets_a_token_and_only_its_own_container() {
    let text = SCANNER
        .replace("  image:\n    mount: /target", "  exec:")
        .replace("OSCAP_PROBE_ROOT: /target", "KUBECONFIG: '${target.kubeconfig}', AT: '${target.results}'");
    let scanner: ScannerDocument = document::parse(std::path::Path::new("s.yaml"), &text).expect("a scanner");
    let access = ApiAccess {
        account: "gapscan-x-7-scanner".to_owned(),
        servers: ["192.0.2.1:6443".parse().expect("an address")].into(),
        namespace: "shop".to_owned(),
    };
    let with_image = self::scanner();
    let mut request = request(&with_image);
    request.scanning.program = Program::of(&scanner, scanner.approaches.exec.as_ref().expect("it has one"));
    request.target = JobTarget::Api(access);
    request.scanning.parameters.insert("target.kubeconfig".to_owned(), "/k".to_owned());
    let manifest = manifest::job(&request, Duration::from_secs(60)).expect("a manifest");
    let read: Job = serde_json::from_value(manifest.clone()).expect("a Job");
    assert_eq!(serde_json::to_value(&read).expect("the same")["spec"], manifest["spec"]);
    let pod = &manifest["spec"]["template"]["spec"];
    assert_eq!(pod["serviceAccountName"], "gapscan-x-7-scanner");
    assert_eq!(pod["automountServiceAccountToken"], json!(false), "only what is mounted by name");
    let volume = pod["volumes"].as_array().expect("volumes").iter().find(|v| v["name"] == "identity").expect("a token");
    let token = &volume["projected"]["sources"][0]["serviceAccountToken"];
    // Five minutes to start, five to scan.
    assert_eq!(*token, json!({ "path": "token", "expirationSeconds": 600 }));
    let mounts = |container: &Value| container["volumeMounts"].to_string();
    assert!(mounts(&pod["containers"][0]).contains("identity"));
    assert!(!mounts(&pod["initContainers"][0]).contains("identity"), "the agent's installer needs none");
    let container = &pod["containers"][0];
    assert_eq!(
        container["env"],
        json!([{ "name": "AT", "value": "/results" }, { "name": "KUBECONFIG", "value": "/k" }])
    );
    assert!(!container["command"].to_string().contains("--target-mount"), "there are no files to look for");
    assert!(container["command"].to_string().contains("\"--api-server\",\"192.0.2.1:6443\""));
}

#[test]
fn only_a_job_with_credentials_names_a_secret_and_no_manifest_holds_them() {
    let scanner = scanner();
    let secret = PullSecret::new(zeroize::Zeroizing::new("s3cr3t".to_owned()));
    assert!(!format!("{secret:?}").contains("s3cr3t"));
    let mut with = request(&scanner);
    with.scanning.pull = Some(secret);
    let made = |request: &JobRequest<'_>| manifest::job(request, Duration::from_secs(60)).expect("a manifest");
    assert_eq!(made(&with)["spec"]["template"]["spec"]["imagePullSecrets"], json!([{ "name": "pull-7" }]));
    assert!(!made(&with).to_string().contains("s3cr3t"));
    assert!(made(&request(&scanner))["spec"]["template"]["spec"]["imagePullSecrets"].is_null());
}

#[test]
fn parameters_are_filled_in_once_and_all_are_needed() {
    let parameters = BTreeMap::from([("a".to_owned(), "${b}".to_owned()), ("b".to_owned(), "2".to_owned())]);
    assert_eq!(substitute("x${a}-${b}$c", &parameters).expect("both are given"), "x${b}-2$c");
    for template in ["${c}", "${a", "${}", "${A}"] {
        let error = substitute(template, &parameters).expect_err(template);
        assert!(matches!(error, ClusterError::Parameter { .. }));
    }
}

fn header(change: impl FnOnce(&mut Header)) -> Header {
    let mut header = Header {
        exit: ExitStatus::Exited { code: 0 },
        oom_killed: false,
        result: present(6),
        unreadable: Unreadable::default(),
        sockets: Sockets::default(),
        version: None,
    };
    change(&mut header);
    header
}

fn present(length: u64) -> ResultState {
    ResultState::Present { length, stamp: "1.2.3".to_owned() }
}

/// What the agent sends of a scanner that printed `out`.
fn sent(header: &Header, result: Option<&[u8]>) -> Vec<u8> {
    let mut sent = b"\n\n".to_vec();
    let mut parcel = Sender::begin(&mut sent).expect("it is written");
    let status = serde_json::to_vec(header).expect("it is JSON");
    for (part, bytes) in
        [(STATUS, Some(&*status)), (RESULT, result), (STDOUT, Some(&b"out"[..])), (STDERR, Some(&b""[..]))]
    {
        bytes.map(|bytes| parcel.add(part, bytes)).transpose().expect("it is written");
    }
    parcel.end().expect("it is written");
    sent
}

fn taken(sent: &[u8], ended: Result<ExecEnd, ClusterError>) -> Result<JobOutput, ClusterError> {
    let scanner = scanner();
    let request = request(&scanner);
    let over = HandOver::of(&request.scanning);
    let mut receiver = over.receiver();
    receiver.take(sent);
    over.taken(ended, receiver)
}

fn receive(sent: &[u8], code: Option<i32>) -> Result<JobOutput, ClusterError> {
    taken(sent, Ok(ExecEnd { stderr: Vec::new(), code, stdout_truncated: false }))
}

fn read(header: &Header, result: &[u8]) -> Result<JobOutput, ClusterError> {
    receive(&sent(header, (!result.is_empty()).then_some(result)), Some(0))
}

fn reason(outcome: Result<JobOutput, ClusterError>) -> Reason {
    match outcome {
        Ok(output) => output.into_result(&scanner().exit_codes).expect_err("it is no result").reason(),
        Err(error) => error.reason(),
    }
}

#[test]
fn what_was_announced_must_arrive_exactly() {
    let whole = header(|_| {});
    let output = read(&whole, b"result").expect("it is whole");
    assert_eq!(output.stdout_tail, b"out");
    let result = output.into_result(&scanner().exit_codes).expect("complete");
    assert_eq!((result.length(), result.in_memory()), (6, Some(&b"result"[..])));
    for bytes in [&b"resul"[..], b"", b"results"] {
        assert_eq!(reason(read(&whole, bytes)), Reason::OutputTruncated, "{bytes:?}");
    }
    let sent = sent(&whole, Some(b"result"));
    for cut in 0..sent.len() {
        assert_eq!(reason(receive(&sent[..cut], Some(0))), Reason::OutputTruncated, "{cut}");
    }
    // However the command was seen to end: it ends its own container.
    let gone = || ClusterError::TargetChanged { target: "x".to_owned(), detail: "it stopped".to_owned() };
    for ended in [receive(&sent, Some(137)), receive(&sent, None), taken(&sent, Err(gone()))] {
        assert_eq!(ended.expect("it is whole").stdout_tail, b"out");
    }
    assert!(matches!(taken(&sent[..9], Err(gone())), Err(ClusterError::TargetChanged { .. })));
    let beyond = ExecEnd { stderr: Vec::new(), code: Some(0), stdout_truncated: true };
    assert_eq!(reason(taken(&sent, Ok(beyond))), Reason::OutputTruncated);
    let large = header(|h| h.result = present(2 << 20));
    assert_eq!(reason(read(&large, b"")), Reason::OutputTooLarge);
    assert_eq!(reason(read(&whole, &vec![0; (1 << 20) + 1])), Reason::OutputTooLarge);
}

#[test]
fn each_end_has_its_reason() {
    let with = |exit: ExitStatus| header(|h| h.exit = exit);
    let missing = || ResultState::Missing { detail: "it is empty".to_owned() };
    assert_eq!(reason(read(&with(ExitStatus::Exited { code: 1 }), b"result")), Reason::ScannerFailed);
    assert_eq!(reason(read(&with(ExitStatus::Exited { code: 99 }), b"result")), Reason::ScannerFailed);
    assert_eq!(reason(read(&with(ExitStatus::Signalled { signal: 11 }), b"result")), Reason::ScannerFailed);
    assert_eq!(reason(read(&with(ExitStatus::TimedOut), b"result")), Reason::Timeout);
    assert_eq!(reason(read(&header(|h| h.result = missing()), b"")), Reason::NoOutput);
    let killed = header(|h| {
        h.exit = ExitStatus::Signalled { signal: 9 };
        h.oom_killed = true;
    });
    assert_eq!(reason(read(&killed, b"result")), Reason::ScannerOutOfMemory);
}

#[test]
fn the_snapshot_has_no_token_and_no_rights() {
    let scanner = scanner();
    let manifest: Value = manifest::job(&request(&scanner), Duration::ZERO).expect("a manifest");
    let pod = &manifest["spec"]["template"]["spec"];
    assert_eq!(pod["automountServiceAccountToken"], json!(false));
    assert_eq!(pod["containers"][0]["securityContext"]["capabilities"], json!({ "drop": ["ALL"] }));
}

#[tokio::test]
async fn an_upload_adds_the_token_as_a_file_and_never_as_a_word() {
    use crate::cluster::agent::upload::Uploads;
    let scanner = scanner();
    let uploads = Uploads::open("127.0.0.1:0".parse().expect("an address")).await.expect("a port");
    let request = JobRequest { uploads: Some(uploads.clone()), ..request(&scanner) };
    let mut manifest = manifest::job(&request, Duration::from_secs(60)).expect("a manifest");
    let ticket = upload::ticket(&request).expect("a ticket").expect("one");
    upload::dress(&mut manifest, request.scanning.scan, &ticket);
    let read: Job = serde_json::from_value(manifest.clone()).expect("a Job");
    assert_eq!(serde_json::to_value(&read).expect("the same")["spec"], manifest["spec"]);
    assert!(!manifest.to_string().contains(ticket.0.token()));
    let command = &manifest["spec"]["template"]["spec"]["containers"][0]["command"];
    let words: Vec<&str> = command.as_array().expect("words").iter().filter_map(Value::as_str).collect();
    let (at, own) = (words.iter().position(|w| *w == "--upload"), words.iter().position(|w| *w == "--"));
    assert!(at < own && at.is_some(), "{words:?}");
    let pin = uploads.pin().to_string();
    assert!(words.contains(&pin.as_str()) && words.contains(&"/upload/token"));
    assert_eq!(manifest["spec"]["template"]["metadata"]["labels"]["gapscan.dev/results"], "upload");
    uploads.close().await;
}
