//! Scanners reach containers and the cluster in the ways that their definitions offer: by commands through the API server, beside
//! the container, by its image, by lists. Each sees what it is to see and nothing else, and nothing of it is left.

use std::fs;
use std::path::Path;
use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use gapscan::ledger::LedgerReader;
use serde_json::Value;

use crate::egress;
use crate::enclave::{findings, sources};
use crate::installation::Installation;
use crate::lab::{Lab, Ran, lab};

pub(crate) const NAME: &str = "external";

/// A container without a shell, where Pod Security is restricted.
const KEEPER: &str = "pod/vault/keeper/keeper";

/// A scanner with a transport: it looks at its target by kubectl, and tries what it must not be able to do. It writes a test
/// result of XCCDF, and its token to its output, to be tried when the scan is over.
const SCRIPT: &str = r#"
r() { echo "<rule-result idref=\"$1\"><result>$2</result></rule-result>" >> /tmp/rules; }
yes() { n=$1; shift; if "$@" > /tmp/out 2>&1; then r "$n" pass; else r "$n" fail; cat /tmp/out >&2; fi; }
no() { n=$1; shift; if "$@" > /tmp/out 2>&1; then r "$n" fail; elif grep -q Forbidden /tmp/out; then r "$n" pass; else r "$n" error; cat /tmp/out >&2; fi; }
k() { kubectl --cache-dir /tmp/cache "$@"; }
[ "$(id -u):$(id -g)" = 1000:1001 ] && [ -f /profile/profile.yaml ] && ! touch /profile/x && [ -z "$(ls -A /inputs)" ] \
  && touch /var/own/x && r needs pass || r needs fail
[ "$(stat -c %a "$KUBECONFIG")" = 600 ] && r private pass || r private fail
if [ "$KIND" = pod ]; then
  yes sees k exec "$POD" -c "$CONTAINER" -- sh -c 'test -u /usr/local/bin/lab-setuid-id && test -f /etc/nginx/nginx.conf'
  no other k -n shop exec legacy -- true
  no lists k get pods
else
  yes sees sh -c 'kubectl --cache-dir /tmp/cache get pods -A | grep -q legacy'
  no other k -n shop exec legacy -- true
  no lists k get configmaps -A
fi
no secrets k -n kube-system get secrets
[ -z "$ELSEWHERE" ] || timeout 3 nc $ELSEWHERE < /dev/null
cat /access/identity/token
{ echo '<TestResult xmlns="http://checklists.nist.gov/xccdf/1.2" id="t" end-time="2026-01-01T00:00:00"><benchmark id="b"/>'; cat /tmp/rules; echo '</TestResult>'; } > "$RESULTS/r.xml"
"#;

/// A scanner beside its target that calls somewhere.
const CALLER: &str = r#"
sleep 2 | timeout 3 nc $ELSEWHERE
echo '<TestResult xmlns="http://checklists.nist.gov/xccdf/1.2" id="t" end-time="2026-01-01T00:00:00"><benchmark id="b"/><rule-result idref="x"><result>pass</result></rule-result></TestResult>' > "$RESULTS/r.xml"
"#;

/// The controls of the script.
const CONTROLS: [&str; 6] = ["needs", "private", "sees", "other", "lists", "secrets"];

/// An image with a shell and kubectl, from what the lab has.
fn image(lab: &Lab, folder: &Path) -> String {
    let layout = folder.join("image");
    let copied =
        Command::new("cp").arg("-a").arg(Path::new(lab.var("LAB_IMAGES")).join("busybox")).arg(&layout).status();
    assert!(copied.expect("cp runs").success());
    let tags: Value =
        serde_json::from_slice(&fs::read(layout.join("index.json")).expect("an image layout")).expect("an index");
    let tag =
        tags["manifests"][0]["annotations"]["org.opencontainers.image.ref.name"].as_str().expect("a tag").to_owned();
    let kubectl = lab.command("sh").args(["-c", "command -v kubectl"]).output().expect("the lab has kubectl");
    let kubectl = String::from_utf8(kubectl.stdout).expect("a path");
    let reference = format!("{}:{tag}", layout.display());
    let inserted = Command::new("umoci")
        .args(["insert", "--rootless", "--image", &reference, kubectl.trim(), "/bin/kubectl"])
        .status();
    assert!(inserted.expect("umoci runs").success());
    format!("oci:{reference}")
}

pub(crate) fn write(folder: &Path, name: &str, text: &str) {
    let path = folder.join(name);
    fs::create_dir_all(path.parent().expect("it is in a folder")).expect("a folder");
    fs::write(path, text).expect("written");
}

/// A profile of the script's controls.
pub(crate) fn profile(folder: &Path, name: &str, (engine, controls): (&str, &[&str]), target: &str, elsewhere: &str) {
    let controls: String = controls
        .iter()
        .map(|id| format!("- {{id: {id}, title: A, description: A, check: A, fix: A, severity: high}}\n"))
        .collect();
    let head = format!(
        "apiVersion: gapscan/v1\nkind: Profile\nname: {name}\nversion: '1'\ntitle: Sample\nengine: {engine}\n\
         targets: [{target}]\nparameters: {{elsewhere: '{elsewhere}'}}\ncontrols:\n"
    );
    write(folder, &format!("{name}/profile.yaml"), &(head + &controls));
}

/// A shipped profile, for containers.
fn for_containers(folder: &Path, shipped: &str, targets: &str, name: &str) {
    let text = fs::read_to_string(sources().join(format!("profiles-mirror/{shipped}/profile.yaml"))).expect("it ships");
    let text = text.replace(&format!("name: {shipped}\n"), &format!("name: {name}\n"));
    assert!(text.contains(targets), "{text}");
    write(folder, &format!("{name}/profile.yaml"), &text.replace(targets, "targets: [container]"));
}

fn prepare(lab: &Lab, folder: &Path) {
    let script = serde_json::to_string(SCRIPT).expect("it is text");
    let scanner = format!(
        "apiVersion: gapscan/v1\nkind: Scanner\nname: pryer\ntitle: A scanner with a transport\nimage: pryer\n\
         approaches:\n  exec:\n    command: [/bin/sh, -c, {script}]\n    env: {{KIND: pod, PATH: /bin, INPUTS: '${{target.inputs}}', KUBECONFIG: \
         '${{target.kubeconfig}}', POD: '${{target.pod}}', CONTAINER: '${{target.container}}', RESULTS: \
         '${{target.results}}', ELSEWHERE: '${{elsewhere}}'}}\n  cluster:\n    resources: [pods, apps/deployments]\n    \
         command: [/bin/sh, -c, {script}]\n    env: {{KIND: cluster, PATH: /bin, INPUTS: '${{target.inputs}}', KUBECONFIG: '${{target.kubeconfig}}', \
         RESULTS: '${{target.results}}', ELSEWHERE: '${{elsewhere}}'}}\n\
         version: {{command: [/bin/sh, -c, 'echo pryer 7.8.9']}}\nuser: {{uid: 1000, gid: 1001}}\n\
         profileMount: /profile\nwritable: [{{path: /var/own, size: 1Mi}}]\n\
         result: {{path: r.xml, format: arf}}\nexitCodes: {{0: clean}}\ndeadline: 2m\nmemory: 256Mi\ncpu: '1'\n"
    );
    write(folder, "pryer.yaml", &scanner);
    let script = serde_json::to_string(CALLER).expect("it is text");
    let approach = format!(
        "    command: [/bin/sh, -c, {script}]\n    env: {{PATH: /bin, RESULTS: '${{target.results}}', ELSEWHERE: '${{elsewhere}}'}}\n"
    );
    let scanner = format!(
        "apiVersion: gapscan/v1\nkind: Scanner\nname: caller\ntitle: A scanner that calls\nimage: pryer\napproaches:\n  \
         debug:\n{approach}  sidecar:\n{approach}result: {{path: r.xml, format: arf}}\nexitCodes: {{0: findings}}\n\
         deadline: 1m\nmemory: 64Mi\ncpu: 100m\n"
    );
    write(folder, "caller.yaml", &scanner);
    let elsewhere = format!("{} 5000", lab.var("LAB_NODE_IP"));
    let pryer = ("pryer", &CONTROLS[..]);
    profile(folder, "pries", pryer, "container", "");
    profile(folder, "calls", pryer, "container", &elsewhere);
    profile(folder, "lists", pryer, "cluster", "");
    profile(folder, "calls-beside", ("caller", &["x"]), "container", &elsewhere);
    for_containers(folder, "debian12-standard", "targets: [image, node]", "debian12-beside");
    for_containers(folder, "known-vulnerabilities", "targets: [image]", "vulnerable-containers");
    lab.control(&["grype-db", &folder.join("db").display().to_string()]);
    let (asker, asks) = egress::prepare(lab, folder);
    let (upstream, sources) = (lab.var("UPSTREAM"), sources().display());
    let folder = folder.display();
    let definition = format!(
        "apiVersion: gapscan/v1\nkind: Bundle\nname: {NAME}\nversion: 1\nvalidFor: 30d\n\
         registries: {{'{upstream}': {{caFile: {ca}}}}}\nimages:\n- {{name: pryer, from: '{image}'}}\n\
         - {{name: openscap, from: '{upstream}/lab/openscap:1'}}\n- {{name: grype, from: '{upstream}/lab/grype:1'}}\n\
         scanners: [{asker}, {folder}/pryer.yaml, {folder}/caller.yaml, {sources}/bundle/scanners/openscap.yaml, {sources}/bundle/scanners/grype.yaml]\n\
         profiles: [{{path: {folder}/pries}}, {{path: {folder}/calls}}, {{path: {folder}/lists}}, \
         {{path: {folder}/calls-beside}}, \
         {{path: {folder}/debian12-beside}}, {{path: {folder}/vulnerable-containers}}, {asks}]\n\
         dependencies:\n- {{name: grype-db, from: 'dir:{folder}/db/cache', maxAge: 30d}}\n",
        ca = lab.ca().display(),
        image = image(lab, Path::new(&folder.to_string())),
    );
    write(Path::new(&folder.to_string()), "bundle.yaml", &definition);
}

/// gapscan with the bundle.
pub(crate) struct Loaded<'a> {
    lab: &'a Lab,
    folder: String,
}

impl Loaded<'_> {
    pub(crate) fn file(&self, name: &str) -> String {
        format!("{}/{name}", self.folder)
    }

    fn trusted(&self) -> Vec<String> {
        let prefix = std::env::var("GAPSCAN_TEST_PREFIX").unwrap_or_else(|_| NAME.to_owned());
        let registry = format!("{}/{prefix}", self.lab.var("REGISTRY"));
        let ca = self.lab.ca().display().to_string();
        let root = self.file("trust/root.json");
        ["--root", &root, "--registry", &registry, "--ca", &ca, "--state", &self.file("state")]
            .map(str::to_owned)
            .into()
    }

    pub(crate) fn inside(&self, arguments: &[&str]) -> Ran {
        let trusted = self.trusted();
        let trusted: Vec<&str> = trusted.iter().map(String::as_str).collect();
        self.lab.inside(&[arguments, &trusted].concat())
    }
}

/// The task of an engine and profile.
pub(crate) fn task<'a>(lines: &'a [Value], profile: &str) -> &'a Value {
    let is_it = |l: &&Value| l["type"] == "task" && l["profile"]["name"] == profile;
    lines.iter().find(is_it).unwrap_or_else(|| panic!("{profile} is not in the record"))
}

/// The outcome of one control of a profile.
pub(crate) fn outcome<'a>(lines: &'a [Value], profile: &str, control: &str) -> &'a Value {
    let found = lines.iter().find(|l| l["type"] == "finding" && l["profile"] == profile && l["control"] == control);
    found.unwrap_or_else(|| panic!("{control} of {profile} is not in the record"))
}

#[test]
fn scanners_reach_containers_and_the_cluster_and_nothing_else() {
    let Some(lab) = lab() else { return };
    let folder = tempfile::tempdir().expect("a folder");
    prepare(lab, folder.path());
    let loaded = Loaded { lab, folder: folder.path().display().to_string() };
    lab.outside(&["trust", "init", &loaded.file("trust"), "--unencrypted"]).exits(0);
    let definition = loaded.file("bundle.yaml");
    lab.outside(&["bundle", "lock", "-f", &definition]).exits(0);
    let (trust, tar) = (loaded.file("trust"), loaded.file("b.tar"));
    lab.outside(&["bundle", "build", "-f", &definition, "--keys", &trust, "-o", &tar]).exits(0);
    loaded.inside(&["load", &tar]).exits(0);

    let name = lab.kubectl(&["get", "pod", "-n", "shop", "-l", "app=web", "-o", "jsonpath={.items[0].metadata.name}"]);
    let (target, ledger) = (format!("pod/shop/{name}/web"), loaded.file("ledger.sqlite"));
    let ways = ["--approach", "exec", "--approach", "debug", "--approach", "image"];
    let scan = [
        "scan", &target, KEEPER, "cluster", "--bundle", NAME, "-e", "pryer", "-e", "openscap", "-e", "grype", "-e",
        "caller",
    ];
    let explain = ["--explain", "-o", "json", "--ledger", &ledger];
    let explained = loaded.inside(&[&scan[..], &ways, &explain].concat()).exits(0).stdout;
    for way in ["a pod of the scanner that may run commands", "may list pods, apps/deployments", "holds the agent"] {
        assert!(explained.contains(way), "{way}: {explained}");
    }
    let mark = lab.audit_length();
    let ran = loaded.inside(&[&scan[..], &ways, &["--ledger", &ledger]].concat());
    let lines = lab.inside(&["export", "--format", "jsonl", "--ledger", &ledger]).exits(0).stdout;
    let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).expect("each line is JSON")).collect();
    let of_keeper = |l: &Value| l["target"] == KEEPER || l["targetKey"] == KEEPER;
    let (keeper, lines): (Vec<Value>, Vec<Value>) = lines.into_iter().partition(of_keeper);
    assert_eq!(ran.code, 3, "{}", ran.stderr);

    // Through the API server it saw its target, or its lists, and could do nothing else; it kept to itself.
    for profile in ["pries", "calls", "lists"] {
        for control in CONTROLS {
            assert_eq!(
                outcome(&lines, profile, control)["outcome"],
                "passed",
                "{control} of {profile}: {}",
                ran.stderr
            );
        }
    }
    for profile in ["pries", "lists"] {
        let silent = outcome(&lines, profile, "gapscan-network-silent");
        assert_eq!(silent["outcome"], "passed", "{silent}");
    }
    // What it may not talk to does not answer, and that it tried is a finding.
    let silent = outcome(&lines, "calls", "gapscan-network-silent");
    assert_eq!(silent["outcome"], "failed", "{silent}");
    let registry = format!("tcp {}:5000", lab.var("LAB_NODE_IP"));
    assert_eq!(silent["details"][0]["subject"], registry, "{silent}");
    assert!(silent["details"][0]["message"].to_string().contains("did not answer"), "{silent}");
    assert_eq!(silent["details"].as_array().map(Vec::len), Some(1), "the API server is allowed: {silent}");
    // Which files its commands could not read is not known, and not green; the lists are all that it names.
    let whole = |profile| &outcome(&lines, profile, "gapscan-target-read-whole")["outcome"];
    assert_eq!((whole("pries"), whole("lists")), (&"not-evaluated".into(), &"passed".into()));
    assert_eq!(task(&lines, "pries")["provenance"]["approach"], "exec");
    assert_eq!(task(&lines, "lists")["provenance"]["approach"], "objects");

    // They were asked for their versions, in their pods; one that says it found something, and passes all, is not believed.
    for (profile, version) in [("pries", "7.8.9"), ("lists", "7.8.9"), ("debian12-beside", "1.3.7")] {
        assert_eq!(task(&lines, profile)["provenance"]["engine"]["version"], version, "{profile}");
    }
    assert_eq!(outcome(&lines, "calls-beside", "x")["reason"], "exit-contradicted");

    // Beside its target, OpenSCAP finds what it finds in the image.
    let beside = task(&lines, "debian12-beside");
    assert_eq!(beside["provenance"]["approach"], "debug", "{beside}");
    assert!(
        beside["coverage"]["passed"].as_u64() > Some(0) && beside["coverage"]["failed"].as_u64() > Some(0),
        "{beside}"
    );
    let notes = beside["notes"].to_string();
    assert!(notes.contains("stays in the pod's status") && notes.contains("-scanner"), "{notes}");

    // Beside a copy it judges what was not left out of it.
    let copied = loaded.file("copied.sqlite");
    let by_copy = [
        "scan",
        &target,
        "--bundle",
        NAME,
        "-e",
        "openscap",
        "-e",
        "caller",
        "--approach",
        "sidecar",
        "--ledger",
        &copied,
    ];
    loaded.inside(&by_copy).exits(3);
    let there = lab.inside(&["export", "--format", "jsonl", "--ledger", &copied]).exits(0).stdout;
    let there: Vec<Value> = there.lines().map(|line| serde_json::from_str(line).expect("each line is JSON")).collect();
    let copy = task(&there, "debian12-beside");
    assert_eq!(copy["provenance"]["approach"], "sidecar", "{copy}");
    assert!(copy["provenance"]["cleanup"].get("remaining").is_none(), "{copy}");
    assert!(copy["provenance"]["cleanup"]["created"].to_string().contains("-copy/copy-"), "{copy}");
    let said = copy["notes"].to_string();
    assert!(said.contains("a copy of the container was judged") && said.contains("does not say which"), "{said}");
    // What the copy lacks can't fail in it: all that fails there fails in the container, and as many rules were judged.
    let failed = |lines: &[Value]| -> std::collections::BTreeSet<String> {
        let of_it =
            |l: &&Value| l["type"] == "finding" && l["profile"] == "debian12-beside" && l["outcome"] == "failed";
        lines.iter().filter(of_it).map(|l| l["control"].to_string()).collect()
    };
    let (of_copy, of_container) = (failed(&there), failed(&lines));
    println!("failed beside the container and not beside its copy: {:?}", of_container.difference(&of_copy));
    assert!(!of_copy.is_empty() && of_copy.is_subset(&of_container), "{of_copy:?} {of_container:?}");
    for counted in ["expected", "notApplicable"] {
        assert_eq!(copy["coverage"][counted], beside["coverage"][counted], "{counted}: {copy} {beside}");
    }
    // The account's token and the variables are not in the copy, so that no rule passes there.
    assert!(copy["coverage"]["passed"].as_u64() <= Some(1), "only that the scanner kept to itself: {copy}");
    let whole = outcome(&there, "debian12-beside", "gapscan-target-read-whole");
    assert_eq!(whole["outcome"], "not-evaluated", "{whole}");

    // In its target's network a scanner answers for itself: who calls is found, whoever else does not call is not.
    let silent = |lines: &[Value], profile| outcome(lines, profile, "gapscan-network-silent").clone();
    for (lines, way) in [(&lines, "debug"), (&keeper, "debug"), (&there, "sidecar")] {
        assert_eq!(task(lines, "calls-beside")["provenance"]["approach"], way);
        let called = silent(lines, "calls-beside");
        assert_eq!(
            (&called["outcome"], &called["details"][0]["subject"]),
            (&"failed".into(), &registry.as_str().into())
        );
        let quiet = silent(lines, "debian12-beside");
        assert_eq!(quiet["outcome"], "passed", "{way}: {quiet}");
    }
    // Which file systems are mounted OpenSCAP asks of its own pod, so that it can't tell that a partition is there.
    let mounted = "xccdf_org.ssgproject.content_rule_partition_for_tmp";
    for lines in [&lines, &there] {
        assert_ne!(outcome(lines, "debian12-beside", mounted)["outcome"], "passed");
    }

    // Where there is no shell, and under the restricted standard.
    assert_eq!(outcome(&keeper, "pries", "sees")["reason"], "no-shell");
    let beside = task(&keeper, "debian12-beside");
    assert_eq!(beside["provenance"]["approach"], "debug", "{beside}");
    assert!(beside["coverage"]["passed"].as_u64() > Some(0), "{beside}");
    for task in keeper.iter().filter(|l| l["type"] == "task") {
        assert!(task["provenance"]["cleanup"].get("remaining").is_none(), "{task}");
    }

    // By the image that the container was started from.
    let image = task(&lines, "vulnerable-containers");
    assert_eq!(image["provenance"]["approach"], "image-volume", "{image}");
    assert!(image["notes"].to_string().contains("judged by the image"), "{image}");
    let critical = findings(&lines, "pod/shop/", "no-critical-vulnerabilities");
    assert_eq!(critical.len(), 1);
    assert_eq!(critical[0]["outcome"], "failed", "{}", critical[0]);

    // Nothing is left, and what was made is in the record.
    for profile in ["pries", "calls", "lists", "calls-beside", "debian12-beside", "vulnerable-containers"] {
        assert!(task(&lines, profile)["provenance"]["cleanup"].get("remaining").is_none(), "{}", task(&lines, profile));
    }
    let made = task(&lines, "pries")["provenance"]["cleanup"]["created"].to_string();
    for kind in ["serviceaccount/", "role/shop/", "rolebinding/shop/", "networkpolicy/", "job/", "pod/"] {
        assert!(made.contains(kind), "{kind}: {made}");
    }
    assert!(lines.iter().any(|l| l["type"] == "event" && l["what"] == "cleanup-verified"));
    tokens_are_dead(lab, &loaded, &lines);
    audit(&lab.audit(mark), &name);
    egress::asks_whom_policy_names_and_nobody_else(lab, &loaded, &target);
    an_installed_runner_does_the_same(lab, &loaded, &target);
}

/// With no more rights than it is installed with, under the policies that bind it, and with what pods of its own find sent to it.
fn an_installed_runner_does_the_same(lab: &'static Lab, loaded: &Loaded<'_>, target: &str) {
    let plan = format!(
        "scans:\n- {{name: all, targets: [cluster, {target}], engines: [pryer, openscap, asker], profiles: [lists, pries, \
         debian12-beside, asks-other], schedule: {{cron: '*/10 * * * * *', timeZone: UTC}}}}\n{}",
        egress::POLICY,
    );
    let bundle = [vec!["--bundle".to_owned(), NAME.to_owned()], loaded.trusted()].concat();
    let one = Installation::new(lab, NAME, Path::new(&loaded.folder), bundle, &plan);
    one.install(&["--upload-port", "9466"]).exits(0);
    let profiles = ["lists", "pries", "debian12-beside", "asks-other"];
    let lines = one.results("what the installed runner found", |lines| {
        profiles.iter().all(|name| lines.iter().any(|l| l["type"] == "task" && l["profile"]["name"] == *name))
    });
    for profile in ["lists", "pries"] {
        // That the runner was called was after the scanner's end, and by the agent.
        for control in CONTROLS.into_iter().chain(["gapscan-network-silent"]) {
            let found = outcome(&lines, profile, control);
            assert_eq!(found["outcome"], "passed", "{found}");
        }
        let task = task(&lines, profile);
        assert!(task["notes"].to_string().contains("came by upload"), "{task}");
    }
    egress::asks_when_installed(&lines);
    let beside = task(&lines, "debian12-beside");
    assert!(beside["coverage"]["passed"].as_u64() > Some(0), "{beside}");
    for profile in profiles {
        let task = task(&lines, profile);
        assert!(task["provenance"]["cleanup"].get("remaining").is_none(), "{task}");
    }
}

/// The tokens that the scanners had were for their pods, short-lived, and are refused now.
fn tokens_are_dead(lab: &Lab, loaded: &Loaded<'_>, lines: &[Value]) {
    let reader = LedgerReader::open(Path::new(&loaded.file("ledger.sqlite"))).expect("the ledger is read");
    for profile in ["pries", "lists"] {
        let evidence = task(lines, profile)["evidence"].as_array().expect("evidence");
        let kept = evidence.iter().find(|e| e["name"] == "stdout").expect("its output");
        let digest = kept["digest"].as_str().and_then(|d| d.parse().ok()).expect("a digest");
        let token = reader.evidence(&digest).expect("it can be read").expect("it is kept");
        let token = String::from_utf8(token).expect("it is text");
        let claims = token.split('.').nth(1).and_then(|part| URL_SAFE_NO_PAD.decode(part).ok()).expect("claims");
        let claims: Value = serde_json::from_slice(&claims).expect("claims");
        let life = claims["exp"].as_u64().expect("an end") - claims["iat"].as_u64().expect("a beginning");
        assert_eq!(life, 600, "{claims}");
        assert!(claims["kubernetes.io"]["pod"]["name"].as_str().is_some_and(|n| n.starts_with("scan-")), "{claims}");
        let header = format!("Authorization: Bearer {}", token.trim());
        let server = format!("https://{}:6443/api/v1/namespaces/shop/pods", lab.var("LAB_NODE_IP"));
        let asked = lab
            .command("curl")
            .args(["-s", "-o", "/dev/null", "-w", "%{http_code}", "--cacert"])
            .arg(lab.ca())
            .args(["-H", &header, &server])
            .output()
            .expect("curl runs");
        assert_eq!(String::from_utf8_lossy(&asked.stdout), "401", "{profile}");
    }
}

/// What the API server saw of the scanners: commands in the one pod, and lists of what was named; the rest was denied.
fn audit(log: &[Value], pod: &str) {
    let theirs = log.iter().filter(|l| {
        let who = l["user"]["username"].as_str().unwrap_or_default();
        who.starts_with("system:serviceaccount:gapscan-") && who.ends_with("-scanner")
    });
    let (mut commands, mut lists, mut denied) = (0, 0, 0);
    for line in theirs.filter(|l| l["objectRef"].is_object() && l["stage"] == "ResponseComplete") {
        let object = &line["objectRef"];
        let what =
            (object["resource"].as_str().unwrap_or_default(), object["subresource"].as_str().unwrap_or_default());
        match line["responseStatus"]["code"].as_u64() {
            // Nobody any more.
            Some(401 | 403) => denied += 1,
            _ if what.1 == "exec" => {
                commands += 1;
                assert!(object["name"] == pod || object["name"] == "keeper", "{line}");
            }
            _ if line["verb"] == "list" => {
                lists += 1;
                assert!(["pods", "deployments"].contains(&what.0), "{line}");
            }
            _ if what.0 == "pods" => assert!(object["name"] == pod || object["name"] == "keeper", "{line}"),
            _ => assert!(what.0.starts_with("selfsubject"), "{line}"),
        }
    }
    assert!(commands >= 4 && lists >= 1 && denied >= 9, "{commands} commands, {lists} lists, {denied} denials");
}
