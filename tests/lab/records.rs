//! What goes into the ledger besides what scanners find, from a real cluster: waivers, replicas that do not agree, results of
//! others, values that nobody may see, and Falco's alerts. Nothing of it turns a failure green, and nothing of it is lost.

use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::sync::{Arc, OnceLock};

use gapscan::ledger::LedgerReader;
use gapscan::trust::key::RoleKey;
use gapscan::trust::public::to_pem;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustix::process::{Pid, Signal, kill_process};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use serde_json::{Value, json};

use crate::enclave::{enclave, findings, sources};
use crate::installation::{Installation, NAMESPACE};
use crate::lab::{Lab, lab, wait_until};

const NAME: &str = "records";

fn lines(lab: &Lab, ledger: &str) -> Vec<Value> {
    let exported = lab.inside(&["export", "--format", "jsonl", "--ledger", ledger]).exits(0).stdout;
    exported.lines().map(|line| serde_json::from_str(line).expect("each line is JSON")).collect()
}

/// The one finding of a control on a target whose key begins so.
#[track_caller]
fn one<'l>(lines: &'l [Value], target: &str, control: &str) -> &'l Value {
    let found = findings(lines, target, control);
    assert_eq!(found.len(), 1, "{control} of {target}");
    found[0]
}

/// Two replicas, removed however the test ends.
struct Pair<'a>(&'a Lab);

impl<'a> Pair<'a> {
    const APP: &'static str = "records-pair";

    fn new(lab: &'a Lab, folder: &Path) -> Self {
        let pair = Self(lab);
        let labels = json!({ "app": Self::APP });
        let container = json!({
            "name": "c", "image": format!("{}/lab/debian:1", lab.var("REGISTRY")), "command": ["sleep", "infinity"],
        });
        let deployment = json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": { "name": Self::APP, "namespace": "shop", "labels": labels },
            "spec": {
                "replicas": 2, "selector": { "matchLabels": labels },
                "template": {
                    "metadata": { "labels": labels },
                    "spec": { "terminationGracePeriodSeconds": 0, "containers": [container] },
                },
            },
        });
        let path = folder.join("pair.json");
        fs::write(&path, deployment.to_string()).expect("written");
        lab.kubectl(&["apply", "-f", &path.display().to_string()]);
        lab.kubectl(&["rollout", "status", "-n", "shop", &format!("deploy/{}", Self::APP), "--timeout=60s"]);
        pair
    }

    fn names(&self) -> Vec<String> {
        let path = "jsonpath={.items[*].metadata.name}";
        let names = self.0.kubectl(&["get", "pods", "-n", "shop", "-l", &format!("app={}", Self::APP), "-o", path]);
        names.split_whitespace().map(str::to_owned).collect()
    }
}

impl Drop for Pair<'_> {
    fn drop(&mut self) {
        let _ = self.0.command("kubectl").args(["delete", "deploy", "-n", "shop", Self::APP, "--wait=false"]).output();
    }
}

/// Waivers, two of which do nothing, and the keys of those who approve, in a folder with a plan that asks for two of them.
fn waivers(lab: &Lab, folder: &Path) {
    for name in ["alice", "bob"] {
        let key = RoleKey::generate();
        key.write(&folder.join(format!("{name}.pem")), None).expect("a key");
        fs::write(folder.join(format!("{name}.pub")), to_pem(key.public()).expect("a P-256 key")).expect("written");
    }
    let waiver = |id: &str, controls: &str, targets: &str, expires: &str| {
        format!(
            "- {{id: {id}, controls: ['{controls}'], profile: container-baseline, targets: {targets}, reason: the printer needs it, \
             requestedBy: kim, expires: {expires}}}\n"
        )
    };
    let head = "apiVersion: gapscan/v1\nkind: Waivers\nwaivers:\n";
    let both = [
        waiver("RISK-1", "container-not-root", "[ns/shop]", "2200-01-01"),
        waiver("RISK-OLD", "container-no-new-privs", "all", "2020-01-01"),
        waiver("RISK-OPEN", "*", "[pod/shop/api-*]", "2200-01-01"),
    ];
    fs::write(folder.join("both.yaml"), head.to_owned() + &both.concat()).expect("written");
    let alone = waiver("RISK-ALONE", "container-no-setuid", "all", "2200-01-01");
    fs::write(folder.join("alone.yaml"), head.to_owned() + &alone).expect("written");
    for (document, who) in [("both", "alice"), ("both", "bob"), ("alone", "alice")] {
        let path = |name: String| folder.join(name).display().to_string();
        let (document, key) = (path(format!("{document}.yaml")), path(format!("{who}.pem")));
        lab.outside(&["waive", "sign", &document, "--key", &key]).exits(0);
    }
    let plan = format!(
        "apiVersion: gapscan/v1\nkind: Plan\nname: {NAME}\nledger: ledger.sqlite\npolicy:\n  unenforcedNetwork: record\n  \
         waivers: {{files: [both.yaml, alone.yaml], approvers: [alice.pub, bob.pub]}}\n\
         scans: [{{name: pair, selector: 'app in ({}, api)'}}]\n",
        Pair::APP
    );
    fs::write(folder.join("plan.yaml"), plan).expect("written");
}

#[test]
fn what_people_accept_is_waived_and_replicas_that_differ_are_inconsistent() {
    let Some(lab) = lab() else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let file = |name: &str| folder.path().join(name).display().to_string();
    waivers(lab, folder.path());
    let pair = Pair::new(lab, folder.path());
    let [odd, even] = &pair.names()[..] else { panic!("two replicas") };
    lab.kubectl(&["exec", "-n", "shop", odd, "--", "chmod", "0666", "/etc/passwd"]);

    let ran = lab.inside(&["scan", "-f", &file("plan.yaml")]);
    assert_eq!(ran.code, 4, "a document that does not count is refused: {}", ran.stderr);
    assert!(ran.stderr.contains("1 of those who may approve it have signed it, and 2 have to"), "{}", ran.stderr);
    let ledger = file("ledger.sqlite");
    let lines = lines(lab, &ledger);
    let of = |pod: &str, control: &str| one(&lines, &format!("pod/shop/{pod}/"), control);
    for pod in [odd, even] {
        let waived = of(pod, "container-not-root");
        assert_eq!((&waived["outcome"], &waived["detail"]), (&"waived".into(), &"the printer needs it".into()));
        let waiver = &waived["waiver"];
        assert_eq!((&waiver["id"], &waiver["until"]), (&"RISK-1".into(), &"2200-01-01T23:59:59Z".into()), "{waived}");
        let expired = of(pod, "container-no-new-privs");
        assert_eq!(expired["outcome"], "failed", "{expired}");
        assert!(expired["details"].to_string().contains("expired at 2020-01-01"), "{expired}");
        assert_eq!(of(pod, "container-no-setuid")["outcome"], "failed", "one signature is not two");
    }
    // What was not evaluated stays so, whoever accepts it.
    let open = findings(&lines, "pod/shop/api-", "container-not-root");
    assert!(open.iter().all(|finding| finding["outcome"] == "not-evaluated") && !open.is_empty(), "{open:?}");
    let task = lines.iter().find(|l| l["type"] == "task" && l["targetKey"].to_string().contains("pod/shop/api-"));
    let notes = task.expect("it is in the record")["notes"].to_string();
    assert!(notes.contains("RISK-OPEN") && notes.contains("never waived"), "{notes}");
    // One of two replicas fails, so that neither stands for both.
    let passwd = "container-passwd-mode";
    assert_eq!((&of(odd, passwd)["outcome"], &of(even, passwd)["outcome"]), (&"failed".into(), &"passed".into()));
    let differ = lines.iter().find(|l| l["type"] == "inconsistent").expect("they do not agree").to_string();
    for part in [passwd, odd, even, Pair::APP] {
        assert!(differ.contains(part), "{part}: {differ}");
    }
    assert!(!differ.contains("container-not-root"), "what is waived on both is the same: {differ}");

    let results = lab.inside(&["results", "-L", &ledger]);
    let html = lab.inside(&["export", "--format", "html", "-L", &ledger]).exits(0).stdout;
    for (report, parts) in [(&results.stdout, &[][..]), (&html, &["the printer needs it", "2200-01-01"])] {
        for part in [&["inconsistent", passwd, "RISK-OLD", "alone.yaml"], parts].concat() {
            assert!(report.to_lowercase().contains(&part.to_lowercase()), "{part}: {report}");
        }
    }
    lab.inside(&["ledger", "verify", "-L", &ledger]).exits(0);
}

#[test]
fn a_result_of_others_stands_beside_a_scan_and_never_for_it() {
    let Some(lab) = lab() else { return };
    let enclave = enclave(lab);
    let ledger = enclave.file("beside.sqlite");
    let image = format!("image/{}/lab/web:1", lab.var("REGISTRY"));
    enclave.scan(lab, "beside.sqlite", &[&image, "-e", "openscap", "-e", "grype"]);
    let of_scan = lines(lab, &ledger);
    let tasks = |lines: &[Value]| -> Vec<Value> { lines.iter().filter(|l| l["type"] == "task").cloned().collect() };
    let own = tasks(&of_scan);
    assert_eq!(own.len(), 2);

    // The very files that OpenSCAP and Grype wrote come in once more, from somebody who says what they are.
    let reader = LedgerReader::open(Path::new(&ledger)).expect("the ledger is read");
    for task in &own {
        let result = task["evidence"].as_array().expect("evidence").iter().find(|e| e["name"] == "result");
        let digest = result.expect("its result is kept")["digest"].as_str().and_then(|d| d.parse().ok());
        let bytes = reader.evidence(&digest.expect("a digest")).expect("it is read").expect("it is kept");
        let profile = task["profile"]["name"].as_str().expect("a name");
        let path = enclave.file(&format!("beside-{profile}"));
        fs::write(&path, bytes).expect("written");
        let ran = lab.inside(&["import", &path, "--target", &image, "--profile", profile, "-L", &ledger]);
        assert!([0, 3].contains(&ran.code), "{}", ran.stderr);
        assert!(ran.stdout.to_lowercase().contains("imported"), "{}", ran.stdout);
    }
    let both = lines(lab, &ledger);
    let imported: Vec<Value> = tasks(&both).into_iter().filter(|t| !t["provenance"]["imported"].is_null()).collect();
    let mut engines: Vec<&str> =
        imported.iter().filter_map(|task| task["provenance"]["engine"]["name"].as_str()).collect();
    engines.sort_unstable();
    assert_eq!((tasks(&both).len(), &engines[..]), (4, &["import:arf", "import:grype"][..]));
    for task in &imported {
        assert_eq!(task["provenance"]["approach"], "imported");
        assert!(task["notes"].to_string().contains("gapscan did not run this scan"), "{task}");
        let like = own.iter().find(|one| one["profile"]["name"] == task["profile"]["name"]).expect("its like");
        assert_eq!(like["coverage"]["failed"], task["coverage"]["failed"], "they say the same of what failed");
    }
    // Its own results are what they were.
    let findings_of = |lines: &[Value], own: bool| -> Vec<Value> {
        let of = |l: &&Value| l["type"] == "finding" && l["imported"].is_null() == own;
        lines.iter().filter(of).cloned().collect()
    };
    assert_eq!(findings_of(&of_scan, true), findings_of(&both, true));
    let html = lab.inside(&["export", "--format", "html", "-L", &ledger]).exits(0).stdout;
    assert!(html.contains("import:arf") && html.to_lowercase().contains("imported"));
    let hdf = enclave.file("beside-hdf");
    lab.inside(&["export", "--format", "hdf", "-L", &ledger, "-o", &hdf]).exits(0);
    let files = fs::read_dir(&hdf).expect("a folder").map(|file| file.expect("a file").path());
    let texts: Vec<String> = files.map(|file| fs::read_to_string(file).expect("it is text")).collect();
    let marked = |text: &&String| text.contains("gapscan did not run this scan");
    assert_eq!((texts.len(), texts.iter().filter(marked).count()), (4, 2));
    let results = lab.inside(&["results", "-L", &ledger]).stdout;
    assert!(results.contains("imported by import:arf") && results.contains("image-volume by openscap"), "{results}");

    lab.inside(&["ledger", "verify", "-L", &ledger]).exits(0);
}

/// A scanner that tells all that it was told, in every place that it can write to.
const WHISPER: &str = r#"
secret=$(cat "$INPUTS/password")
[ -n "$secret" ] || exit 7
echo "stdout $secret $(printf %s "$secret" | base64)"; echo "stderr $secret" >&2
echo "<TestResult xmlns=\"http://checklists.nist.gov/xccdf/1.2\" id=\"t\" end-time=\"2026-01-01T00:00:00\"><benchmark id=\"b\"/>\
<target>$secret</target><rule-result idref=\"x\"><result>fail</result><message severity=\"error\">it is $secret</message></rule-result></TestResult>" > "$RESULTS/r.xml"
"#;

/// A bundle with a scanner that whispers, and rules of Falco, loaded once.
struct Loaded {
    folder: PathBuf,
}

impl Loaded {
    fn get(lab: &'static Lab) -> &'static Self {
        static LOADED: OnceLock<Loaded> = OnceLock::new();
        LOADED.get_or_init(|| {
            let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(NAME);
            if folder.exists() {
                fs::remove_dir_all(&folder).expect("the folder of an earlier run is removed");
            }
            fs::create_dir_all(folder.join("whispers")).expect("a folder");
            let loaded = Self { folder };
            loaded.prepare(lab);
            loaded
        })
    }

    fn file(&self, name: &str) -> String {
        self.folder.join(name).display().to_string()
    }

    fn prepare(&self, lab: &Lab) {
        let script = serde_json::to_string(WHISPER).expect("it is text");
        let scanner = format!(
            "apiVersion: gapscan/v1\nkind: Scanner\nname: whisper\ntitle: A scanner that tells all\nimage: whisper\napproaches:\n  \
             image:\n    mount: /target\n    command: [/bin/sh, -c, {script}]\n    env: {{PATH: /bin, INPUTS: '${{target.inputs}}', \
             RESULTS: /results}}\nresult: {{path: r.xml, format: arf}}\nexitCodes: {{0: complete}}\ndeadline: 1m\nmemory: 64Mi\n\
             cpu: 100m\n"
        );
        fs::write(self.file("whisper.yaml"), scanner).expect("written");
        let profile = "apiVersion: gapscan/v1\nkind: Profile\nname: whispers\nversion: '1'\ntitle: Sample\nengine: whisper\n\
                       targets: [image]\ncontrols: [{id: x, title: A, description: A, check: A, fix: A, severity: high}]\n";
        fs::write(self.file("whispers/profile.yaml"), profile).expect("written");
        let (upstream, sources, folder) = (lab.var("UPSTREAM"), sources().display(), self.folder.display());
        // Falco's image is not here; its rules are what the runner knows of it.
        let images = ["whisper", "falco"].map(|name| format!("- {{name: {name}, from: '{upstream}/lab/busybox:1'}}\n"));
        let definition = format!(
            "apiVersion: gapscan/v1\nkind: Bundle\nname: {NAME}\nversion: 1\nvalidFor: 30d\n\
             registries: {{'{upstream}': {{caFile: {ca}}}}}\nimages:\n{images}\
             scanners: [{folder}/whisper.yaml, {sources}/bundle/scanners/falco.yaml]\n\
             profiles: [{{path: {folder}/whispers}}, {{path: {sources}/profiles-mirror/example-falco}}]\n",
            ca = lab.ca().display(),
            images = images.concat(),
        );
        let path = self.file("bundle.yaml");
        fs::write(&path, definition).expect("written");
        let (trust, tar) = (self.file("trust"), self.file("b.tar"));
        lab.outside(&["trust", "init", &trust, "--unencrypted"]).exits(0);
        lab.outside(&["bundle", "lock", "-f", &path]).exits(0);
        lab.outside(&["bundle", "build", "-f", &path, "--keys", &trust, "-o", &tar]).exits(0);
        let trusted = self.trusted(lab);
        let trusted: Vec<&str> = trusted.iter().map(String::as_str).collect();
        lab.inside(&[&["load", &tar][..], &trusted].concat()).exits(0);
    }

    fn registry(lab: &Lab) -> String {
        let prefix = std::env::var("GAPSCAN_TEST_PREFIX").unwrap_or_else(|_| NAME.to_owned());
        format!("{}/{prefix}", lab.var("REGISTRY"))
    }

    fn trusted(&self, lab: &Lab) -> Vec<String> {
        let (root, ca) = (self.file("trust/root.json"), lab.ca().display().to_string());
        ["--root", &root, "--registry", &Self::registry(lab), "--ca", &ca, "--state", &self.file("state")]
            .map(str::to_owned)
            .into()
    }
}

/// A secret in the cluster, gone however the test ends.
struct Password<'a>(&'a Lab);

impl Drop for Password<'_> {
    fn drop(&mut self) {
        let _ = self.0.command("kubectl").args(["delete", "secret", "-n", "shop", NAME, "--ignore-not-found"]).output();
    }
}

#[test]
fn a_secret_that_a_scanner_tells_is_in_nothing_that_is_kept_or_left() {
    use base64::Engine as _;

    let Some(lab) = lab() else { return };
    let loaded = Loaded::get(lab);
    let secret = format!("pa55-{}", gapscan::model::record::RunId::new());
    let encoded = base64::engine::general_purpose::STANDARD.encode(&secret);
    let password = Password(lab);
    lab.kubectl(&["create", "secret", "generic", "-n", "shop", NAME, &format!("--from-literal=password={secret}")]);
    let (host, ca) = (lab.var("REGISTRY"), lab.ca().display());
    let plan = format!(
        "apiVersion: gapscan/v1\nkind: Plan\nname: {NAME}\nledger: told.sqlite\n\
         bundle: {{name: {NAME}, registry: '{registry}', root: trust/root.json, state: state}}\n\
         registries: {{'{host}': {{caFile: {ca}}}}}\n\
         inputs: {{whispers: [{{name: password, secret: shop/{NAME}/password}}]}}\npolicy: {{unenforcedNetwork: record}}\n\
         scans: [{{name: told, targets: ['image/{host}/lab/web:1'], engines: [whisper]}}]\n",
        registry = Loaded::registry(lab),
    );
    fs::write(loaded.file("told.yaml"), plan).expect("written");
    let ran = lab.inside(&["scan", "-f", &loaded.file("told.yaml")]);
    drop(password);

    let ledger = loaded.file("told.sqlite");
    let lines = lines(lab, &ledger);
    let failed = one(&lines, "image/", "x");
    assert_eq!(failed["outcome"], "failed", "the rest of what it said counts: {failed} {}", ran.stderr);
    assert!(failed["details"].to_string().contains("it is "), "{failed}");
    let task = lines.iter().find(|l| l["type"] == "task").expect("a result");
    assert!(task["notes"].to_string().contains("secret"), "that something was taken out is said: {task}");
    let evidence = task["evidence"].as_array().expect("evidence");
    assert!(["result", "stdout", "stderr"].iter().all(|name| evidence.iter().any(|e| e["name"] == *name)), "{task}");

    let mut kept =
        vec![("what it printed", ran.stdout + &ran.stderr), ("lines", serde_json::to_string(&lines).expect("JSON"))];
    for format in ["html", "hdf"] {
        kept.push((format, lab.inside(&["export", "--format", format, "-L", &ledger]).exits(0).stdout));
    }
    for file in fs::read_dir(&loaded.folder).expect("a folder").map(|entry| entry.expect("an entry").path()) {
        if file.file_name().is_some_and(|name| name.to_string_lossy().starts_with("told.sqlite")) && file.is_file() {
            kept.push(("the ledger", String::from_utf8_lossy(&fs::read(&file).expect("it is read")).into_owned()));
        }
    }
    let reader = LedgerReader::open(Path::new(&ledger)).expect("the ledger is read");
    for one in evidence {
        let digest = one["digest"].as_str().and_then(|digest| digest.parse().ok()).expect("a digest");
        let bytes = reader.evidence(&digest).expect("it is read").expect("it is kept");
        kept.push(("evidence", String::from_utf8_lossy(&bytes).into_owned()));
    }
    let there = lab.kubectl(&["get", "pods,jobs,secrets,configmaps,events", "-A", "-o", "yaml"]);
    kept.push(("what is left in the cluster", there));
    assert!(kept.iter().filter(|(what, _)| *what == "the ledger").count() > 0);
    for (what, text) in &kept {
        assert!(!text.contains(&secret) && !text.contains(&encoded), "{what}");
    }
}

/// Alerts come from a pod, as Falco's would, by the service and through the network policy; the runner is killed in between.
struct Falco<'a> {
    lab: &'a Lab,
    tls: Arc<ClientConfig>,
    address: String,
}

impl Drop for Falco<'_> {
    fn drop(&mut self) {
        let _ = self.lab.command("kubectl").args(["delete", "namespace", Self::NAMESPACE, "--wait=false"]).output();
    }
}

/// A connection that goes through a command in a pod.
struct Tunnel {
    child: Child,
    into: ChildStdin,
    out: ChildStdout,
}

impl Read for Tunnel {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        self.out.read(bytes)
    }
}

impl Write for Tunnel {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.into.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.into.flush()
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl<'a> Falco<'a> {
    const NAMESPACE: &'static str = "records-falco";
    const PORT: u16 = 9467;

    /// Two pods of a namespace, one of which is Falco's by its label.
    fn new(lab: &'a Lab, folder: &Path, ca: &str) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(ca.as_bytes()).expect("a CA")).expect("added");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        let falco = Self { lab, tls: Arc::new(tls), address: String::new() };
        let image = format!("{}/lab/busybox:1", lab.var("REGISTRY"));
        let pod = |name: &str, labels: Value| {
            json!({
                "apiVersion": "v1", "kind": "Pod",
                "metadata": { "name": name, "namespace": Self::NAMESPACE, "labels": labels },
                "spec": {
                    "terminationGracePeriodSeconds": 0,
                    "containers": [{ "name": "c", "image": image, "command": ["sleep", "3600"] }],
                },
            })
        };
        let namespace = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": Self::NAMESPACE } });
        let items = [
            namespace,
            pod("falco", json!({ "app.kubernetes.io/name": "falco" })),
            pod("stranger", json!({ "app": "stranger" })),
        ];
        let path = folder.join("falco.json");
        let list = json!({ "apiVersion": "v1", "kind": "List", "items": items });
        fs::write(&path, list.to_string()).expect("written");
        lab.kubectl(&["apply", "-f", &path.display().to_string()]);
        falco
    }

    fn is_up(&mut self) {
        let ready = ["wait", "-n", Self::NAMESPACE, "--for=condition=Ready", "pod", "--all", "--timeout=60s"];
        self.lab.kubectl(&ready);
        self.address =
            self.lab.kubectl(&["get", "service", "-n", NAMESPACE, "falco", "-o", "jsonpath={.spec.clusterIP}"]);
    }

    /// A connection to the service from this pod, by `nc`.
    fn tunnel(&self, pod: &str) -> Tunnel {
        let port = Self::PORT.to_string();
        let nc = ["exec", "-i", "-n", Self::NAMESPACE, pod, "--", "timeout", "20", "nc", &self.address, &port];
        let mut child = self
            .lab
            .command("kubectl")
            .args(nc)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("kubectl runs");
        let (into, out) = (child.stdin.take().expect("piped"), child.stdout.take().expect("piped"));
        Tunnel { child, into, out }
    }

    /// The status of the answer to an alert that is sent as curl does with a token in the URL; 0 where none comes.
    fn post(&self, alert: &Value, token: &str) -> u16 {
        use base64::Engine as _;

        let name = ServerName::try_from("falco.gapscan.svc").expect("a name");
        let client = ClientConnection::new(Arc::clone(&self.tls), name).expect("a client");
        let mut stream = StreamOwned::new(client, self.tunnel("falco"));
        let basic = base64::engine::general_purpose::STANDARD.encode(format!("falco:{token}"));
        let body = alert.to_string();
        let request = format!(
            "POST /alerts HTTP/1.1\r\nHost: falco.gapscan.svc\r\nAuthorization: Basic {basic}\r\nUser-Agent: falcosecurity/falco\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        if stream.write_all(request.as_bytes()).and_then(|()| stream.flush()).is_err() {
            return 0;
        }
        let mut said = Vec::new();
        let mut byte = [0];
        // The head's first line says it.
        while !said.ends_with(b"\r\n") && stream.read(&mut byte).is_ok_and(|read| read > 0) {
            said.push(byte[0]);
        }
        String::from_utf8_lossy(&said).split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0)
    }
}

/// An alert as Falco 0.43 writes it.
fn alert(rule: &str, number: usize) -> Value {
    let at = jiff::Timestamp::now();
    json!({
        "hostname": "lab", "priority": "Notice", "rule": rule, "source": "syscall", "tags": ["container", "mitre_execution"],
        "output": format!("{at}: Notice alert-{number} | evt_type=execve user=root container_id=3ad7b26ded6d"),
        "output_fields": {
            "container.id": "3ad7b26ded6d", "container.name": "web", "evt.time": at.as_nanosecond().to_string(),
            "k8s.ns.name": "shop", "k8s.pod.name": "records-attacked", "proc.name": "bash", "user.name": "root",
        },
        "time": at.to_string(),
    })
}

/// The process of the runner, by its container.
fn runner(lab: &Lab) -> (String, Pid) {
    let path = "jsonpath={.status.containerStatuses[0].containerID}";
    let id = lab.kubectl(&["get", "pod", "-n", NAMESPACE, "runner-0", "-o", path]);
    let id = id.rsplit('/').next().expect("an id").trim().to_owned();
    let of_it = |entry: io::Result<fs::DirEntry>| -> Option<i32> {
        let process = entry.ok()?;
        let number = process.file_name().to_str()?.parse().ok()?;
        fs::read_to_string(process.path().join("cgroup")).ok()?.contains(&id).then_some(number)
    };
    let process = fs::read_dir("/proc").expect("/proc").find_map(of_it).expect("it runs");
    (id, Pid::from_raw(process).expect("a process"))
}

#[test]
fn alerts_reach_an_installed_runner_by_its_service_and_outlive_it() {
    const TOKEN: &str = "0123456789abcdef0123";

    let Some(lab) = lab() else { return };
    let loaded = Loaded::get(lab);
    let mut params = CertificateParams::new(Vec::<String>::new()).expect("parameters");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("a CA");
    let key = KeyPair::generate().expect("a key");
    let params = CertificateParams::new(vec!["falco.gapscan.svc".to_owned()]).expect("parameters");
    fs::write(loaded.file("tls.crt"), params.signed_by(&key, &ca).expect("a certificate").pem()).expect("written");
    fs::write(loaded.file("tls.key"), key.serialize_pem()).expect("written");
    fs::write(loaded.file("token"), TOKEN).expect("written");

    let mut falco = Falco::new(lab, &loaded.folder, &ca.pem());
    let port = Falco::PORT;
    let plan = format!(
        "falco: {{address: '0.0.0.0:{port}', certificateFile: tls.crt, keyFile: tls.key, tokenFile: token, profile: example-falco}}\n\
         scans: []\n"
    );
    let bundle = [vec!["--bundle".to_owned(), NAME.to_owned()], loaded.trusted(lab)].concat();
    let one = Installation::new(lab, "alerts", &loaded.folder, bundle, &plan);
    let from = ["--falco-namespace", Falco::NAMESPACE];
    one.install(&from).exits(0);
    // What is printed for kubectl is what the API server takes.
    let printed = one.file("printed.yaml");
    fs::write(&printed, one.install(&[&from[..], &["--dry-run"]].concat()).exits(0).stdout).expect("written");
    let taken = lab.kubectl(&[
        "apply",
        "--server-side",
        "--dry-run=server",
        "--field-manager=gapscan",
        "-f",
        &printed,
        "-o",
        "name",
    ]);
    for object in ["service/falco", "networkpolicy.networking.k8s.io/falco", "secret/falco"] {
        assert!(taken.lines().any(|line| line == object), "{object}: {taken}");
    }
    falco.is_up();

    // The service's rules come a moment after it.
    wait_until("the way to the runner", || falco.post(&alert("Shell in a container", 0), TOKEN) == 200);
    assert_eq!(falco.post(&alert("Shell in a container", 1), TOKEN), 200);
    assert_eq!(falco.post(&alert("A rule of nobody", 2), TOKEN), 200);
    assert_eq!(falco.post(&alert("Shell in a container", 99), "0123456789abcdef0124"), 401);
    // Answered is on the disk, and not in the ledger yet.
    let journal = Path::new(&one.file("volume")).join("ledger.sqlite.falco");
    let kept: String = fs::read_dir(&journal)
        .expect("the journal is there")
        .map(|entry| String::from_utf8_lossy(&fs::read(entry.expect("an entry").path()).expect("read")).into_owned())
        .collect();
    for number in 0..3 {
        assert!(kept.contains(&format!("alert-{number} ")), "{number}: {kept}");
    }
    assert!(!kept.contains("alert-99"), "{kept}");
    // Whoever is not Falco does not get through, in the same namespace.
    let mut stranger = falco.tunnel("stranger");
    assert!(stranger.write_all(b"x").is_ok());
    let (id, process) = runner(lab);
    kill_process(process, Signal::KILL).expect("it is killed");
    let target = "pod/shop/records-attacked/web";
    let lines = one.results("the alerts of before", |lines| lines.iter().any(|l| l["targetKey"] == target));
    assert_ne!(runner(lab).0, id, "it is another one");
    let rule = |control: &str| crate::enclave::findings(&lines, target, control);
    let failed = rule("Shell_in_a_container");
    assert_eq!((failed.len(), &failed[0]["outcome"]), (1, &"failed".into()), "{failed:?}");
    let told = failed[0]["details"].to_string();
    for number in 0..2 {
        assert_eq!(told.matches(&format!("alert-{number} ")).count(), 1, "{number}: {told}");
    }
    assert!(!serde_json::to_string(&lines).expect("JSON").contains("alert-99"));
    assert_eq!(rule("A_rule_of_nobody")[0]["outcome"], "failed");
    let task = lines.iter().find(|l| l["targetKey"] == target && l["type"] == "task").expect("a result");
    assert_eq!((&task["profile"]["name"], &task["coverage"]["passed"]), (&"example-falco".into(), &0.into()), "{task}");
    assert!(task["coverage"]["notEvaluated"].as_u64() > Some(0), "a rule without an alert was not evaluated: {task}");
    // It goes on where it was.
    assert_eq!(falco.post(&alert("Shell in a container", 3), TOKEN), 200);
    let mut answer = Vec::new();
    let _ = stranger.read_to_end(&mut answer);
    assert_eq!(stranger.child.wait().expect("it ends").code(), Some(143), "no way in: {answer:?}");
}
