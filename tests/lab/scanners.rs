//! Scanners that nobody wrote code for: three that come as packages run for real, and for four that can't be had a stand-in in
//! their place looks at what the shipped definition gives it, and leaves a real result with the real exit code.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::enclave::sources;
use crate::lab::{Lab, Ran, lab};

const NAME: &str = "scanners";

/// What each stand-in makes sure of before it leaves its result: `r NAME` says what was wrong, on standard error, and fails.
const STAND_INS: [(&str, &str); 4] = [
    (
        "trivy",
        r#"for o in rootfs --cache-dir=/trivy --skip-db-update --skip-java-db-update --skip-check-update --offline-scan \
--skip-version-check --list-all-pkgs --format=json /target; do case " $* " in *" $o "*) ;; *) r "$o" ;; esac; done
[ -f /trivy/db/metadata.json ] || r database
[ -f /target/etc/passwd ] || r target
touch /trivy/db/x 2>/dev/null && r writable
for o; do case $o in --output=*) cp /replay/trivy.json "${o#--output=}" ;; esac; done"#,
    ),
    (
        "kube-bench",
        r#"[ "$1" = version ] && { echo v0.15.0; exit 0; }
for o in run --config-dir=/profile --json; do case " $* " in *" $o "*) ;; *) r "$o" ;; esac; done
[ -f /profile/config.yaml ] || r profile
[ -d /host/proc/1 ] || r node
for o; do case $o in --outputfile=*) cp /replay/kube-bench.json "${o#--outputfile=}" ;; esac; done"#,
    ),
    (
        "cinc-auditor",
        r#"[ "$1" = version ] && { echo 6.8.24; exit 0; }
for o in exec /profile --no-create-lockfile --distinct-exit; do case " $* " in *" $o "*) ;; *) r "$o" ;; esac; done
[ "$TRAIN_K8S_SESSION_MODE" = false ] || r session
[ -f /profile/inspec.yml ] || r profile
for o; do case $o in
--target=k8s-container:///shop/web-*/web) t=1 ;;
--reporter=json:*) cp /replay/inspec.json "${o#--reporter=json:}" ;;
esac; done
[ "$t" ] || r target
exit 100"#,
    ),
    (
        "falco",
        r#"[ "$1" = --version ] && { echo 'Falco version: 0.43.0 (x86_64)'; exit 0; }
[ -f /profile/rules.yaml ] || r profile
[ -d "$HOST_ROOT/proc/1" ] || r node
cat /replay/falco.json"#,
    ),
];

/// What each finds when something is missing: it fails, and nothing is evaluated.
pub(crate) const HEAD: &str = "#!/bin/sh\nr() { echo \"wrong: $1\" >&2; exit 77; }\n";

/// A definition of the test's own, for a scanner that gapscan has never heard of. Its findings exit 1.
const RUFF: &str = "apiVersion: gapscan/v1\nkind: Scanner\nname: ruff\ntitle: Ruff's rules on security\nimage: packages\n\
    approaches:\n  image:\n    mount: /target\n    command: [ruff, check, --isolated, --no-cache, --no-respect-gitignore, \
    --ignore-noqa, '--config=exclude=[]', --select=S, --output-format=sarif, '--output-file=${target.results}/ruff.sarif', /target]\n    env: {PATH: /bin, HOME: /tmp}\n\
    result: {path: ruff.sarif, format: sarif, unmentioned: passed}\nexitCodes: {0: clean, 1: findings}\n\
    deadline: 2m\nmemory: 512Mi\ncpu: '1'\n";

/// Falco's alerts have the form of its `json_output`.
const ALERT: &str = r#"{"hostname":"lab","output":"a shell","output_fields":{"container.id":"host","proc.name":"sh"},"priority":"Notice","rule":"Terminal shell in container","source":"syscall","tags":["shell"],"time":"2026-11-21T00:00:00.000000000Z"}"#;

pub(crate) fn write(folder: &Path, name: &str, text: impl AsRef<[u8]>) {
    let path = folder.join(name);
    fs::create_dir_all(path.parent().expect("it is in a folder")).expect("a folder");
    fs::write(path, text).expect("written");
}

/// BusyBox with these files, of mode 0755, as the reference of an OCI layout.
pub(crate) fn image(lab: &Lab, folder: &Path, name: &str, files: &[(&Path, &str)]) -> String {
    let layout = folder.join(name);
    let copied =
        Command::new("cp").arg("-a").arg(Path::new(lab.var("LAB_IMAGES")).join("busybox")).arg(&layout).status();
    assert!(copied.expect("cp runs").success());
    let index: Value =
        serde_json::from_slice(&fs::read(layout.join("index.json")).expect("an image layout")).expect("an index");
    let tag = index["manifests"][0]["annotations"]["org.opencontainers.image.ref.name"].as_str().expect("a tag");
    let reference = format!("{}:{tag}", layout.display());
    for (file, place) in files {
        fs::set_permissions(file, fs::Permissions::from_mode(0o755)).expect("its mode is changed");
        let inserted =
            Command::new("umoci").args(["insert", "--rootless", "--image", &reference]).arg(file).arg(place).status();
        assert!(inserted.expect("umoci runs").success(), "{place}");
    }
    format!("oci:{reference}")
}

/// A profile with these controls, and files beside it.
pub(crate) fn profile(folder: &Path, name: &str, (engine, target): (&str, &str), controls: &[String], more: &str) {
    let controls: Vec<Value> = controls
        .iter()
        .map(|id| json!({"id": id, "title": "A", "description": "A", "check": "A", "fix": "A", "severity": "high"}))
        .collect();
    let head = format!(
        "apiVersion: gapscan/v1\nkind: Profile\nname: {name}\nversion: '1'\ntitle: Sample\nengine: {engine}\n\
         targets: [{target}]\n{more}controls: {}\n",
        Value::from(controls)
    );
    write(folder, &format!("{name}/profile.yaml"), head);
}

fn corpus(name: &str) -> Option<Vec<u8>> {
    let folder =
        std::env::var_os("GAPSCAN_TEST_CORPUS").map_or_else(|| sources().join("../shared/corpus"), PathBuf::from);
    fs::read(folder.join(name)).ok()
}

/// The bundle of this test, loaded.
pub(crate) struct Loaded<'a> {
    lab: &'a Lab,
    folder: PathBuf,
}

impl<'a> Loaded<'a> {
    /// A bundle with these images, scanners and profiles, each as a line of its definition.
    pub(crate) fn new(lab: &'a Lab, folder: &Path, parts: (&str, &str, &str), more: &str) -> Self {
        let loaded = Self { lab, folder: folder.to_owned() };
        lab.outside(&["trust", "init", &loaded.file("trust"), "--unencrypted"]).exits(0);
        loaded.load(1, parts, more);
        loaded
    }

    fn load(&self, version: u32, (images, scanners, profiles): (&str, &str, &str), more: &str) {
        let (lab, folder, loaded) = (self.lab, &self.folder, self);
        let definition = format!(
            "apiVersion: gapscan/v1\nkind: Bundle\nname: {NAME}\nversion: {version}\nvalidFor: 30d\nimages:\n{images}\
             scanners:\n{scanners}profiles:\n{profiles}{more}"
        );
        write(folder, "bundle.yaml", definition);
        let (definition, trust, tar) = (loaded.file("bundle.yaml"), loaded.file("trust"), loaded.file("b.tar"));
        lab.outside(&["bundle", "lock", "-f", &definition]).exits(0);
        lab.outside(&["bundle", "build", "-f", &definition, "--keys", &trust, "-o", &tar]).exits(0);
        loaded.inside(&["load", &tar]).exits(0);
    }

    pub(crate) fn file(&self, name: &str) -> String {
        self.folder.join(name).display().to_string()
    }

    pub(crate) fn registry(&self) -> String {
        let prefix = std::env::var("GAPSCAN_TEST_PREFIX").unwrap_or_else(|_| NAME.to_owned());
        format!("{}/{prefix}", self.lab.var("REGISTRY"))
    }

    fn inside(&self, arguments: &[&str]) -> Ran {
        let (root, state, ca) = (self.file("trust/root.json"), self.file("state"), self.lab.ca().display().to_string());
        let trusted = ["--root", &root, "--registry", &self.registry(), "--ca", &ca, "--state", &state];
        self.lab.inside(&[arguments, &trusted].concat())
    }

    /// Scans, and gives the lines of the record.
    pub(crate) fn scan(&self, ledger: &str, what: &[&str]) -> (Ran, Vec<Value>) {
        let ledger = self.file(ledger);
        let ran = self.inside(&[&["scan", "--bundle", NAME, "--ledger", &ledger], what].concat());
        let lines = self.lab.inside(&["export", "--format", "jsonl", "--ledger", &ledger]).exits(0).stdout;
        (ran, lines.lines().map(|line| serde_json::from_str(line).expect("each line is JSON")).collect())
    }
}

/// The task of a scanner.
#[track_caller]
pub(crate) fn task<'l>(lines: &'l [Value], engine: &str) -> &'l Value {
    let is_it = |l: &&Value| l["type"] == "task" && l["provenance"]["engine"]["name"] == engine;
    lines.iter().find(is_it).unwrap_or_else(|| panic!("{engine} is not in the record"))
}

/// How a control of a scanner ended, as `outcome` or `outcome reason`.
#[track_caller]
pub(crate) fn ended(lines: &[Value], engine: &str, control: &str) -> String {
    let is_it = |l: &&Value| l["type"] == "finding" && l["engine"] == engine && l["control"] == control;
    let line = lines.iter().find(is_it).unwrap_or_else(|| panic!("{control} of {engine} is not in the record"));
    [&line["outcome"], &line["reason"]].iter().filter_map(|word| word.as_str()).collect::<Vec<_>>().join(" ")
}

#[test]
fn scanners_from_packages_run_without_any_code_for_them() {
    let Some(lab) = lab() else { return };
    let Some(packages) = std::env::var_os("GAPSCAN_TEST_SCANNERS").map(PathBuf::from) else {
        println!("skipped: needs kingfisher, ruff and syft (GAPSCAN_TEST_SCANNERS)");
        return;
    };
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path();
    write(path, "ruff.yaml", RUFF);
    profile(path, "python-security", ("ruff", "image"), &["S602".to_owned(), "S307".to_owned()], "");
    // Nobody's key: put together here, so that nothing that looks for keys finds one in this file.
    let key = format!("aws_access_key_id = {}\naws_secret_access_key = {}\n", "AKIAQYLPMN5HHHFPZAM2", {
        ["1tUm636uS1yOEcfP5pvf", "qJ/ml36mF7AkyHsEU0IU"].concat()
    });
    write(path, "key", key);
    write(path, "shell.py", "import subprocess\nsubprocess.call(input(), shell=True)  # noqa\n");
    write(path, "package.json", r#"{"name": "left-pad", "version": "1.0.0"}"#);
    let tool = |name: &str| packages.join(name);
    let tools = image(
        lab,
        path,
        "packages",
        &[(&tool("kingfisher"), "/bin/kingfisher"), (&tool("ruff"), "/bin/ruff"), (&tool("syft"), "/bin/syft")],
    );
    let leaky = image(
        lab,
        path,
        "leaky",
        &[
            (&path.join("key"), "/etc/key"),
            (&path.join("shell.py"), "/lib/site-packages/shell.py"),
            (&path.join("package.json"), "/app/node_modules/left-pad/package.json"),
        ],
    );
    // The shipped definitions name an image of their own each; here one image is all of them.
    let images: String =
        ["packages", "kingfisher", "syft"].map(|name| format!("- {{name: {name}, from: '{tools}'}}\n")).concat();
    let images = format!("{images}- {{name: leaky, from: '{leaky}'}}\n");
    let (shipped, here) = (sources().display(), path.display());
    let scanners = format!(
        "- {shipped}/bundle/scanners/kingfisher.yaml\n- {shipped}/bundle/scanners/syft.yaml\n- {here}/ruff.yaml\n"
    );
    let profiles = format!(
        "- {{path: {shipped}/profiles-mirror/no-secrets}}\n- {{path: {shipped}/profiles-mirror/software-inventory}}\n\
         - {{path: {here}/python-security}}\n"
    );
    let loaded = Loaded::new(lab, path, (&images, &scanners, &profiles), "");

    let leaky = format!("{}/images/leaky", loaded.registry());
    let tag = lab.tags(leaky.split_once('/').expect("a repository").1).into_iter().next().expect("it has a tag");
    let leaky = format!("image/{leaky}:{tag}");
    let web = format!("image/{}/lab/web:1", lab.var("REGISTRY"));
    let engines = ["-e", "kingfisher", "-e", "ruff", "-e", "syft"];
    let (ran, lines) = loaded.scan("leaky.sqlite", &[&[leaky.as_str()][..], &engines].concat());
    assert_eq!(ran.code, 3, "what looks like a key has to be looked at: {}", ran.stderr);
    // A possible key is no pass, and what it is does not get into the record.
    let found: Vec<String> = ["critical", "high", "medium", "low", "unrated"]
        .iter()
        .map(|severity| ended(&lines, "kingfisher", &format!("no-{severity}-findings")))
        .collect();
    assert!(found.contains(&"not-evaluated scanner-skipped".to_owned()), "{found:?}");
    // It leaves out folders without saying so, so that nothing passes by its silence.
    assert!(found.contains(&"not-evaluated control-missing".to_owned()), "{found:?}");
    assert!(!found.contains(&"passed".to_owned()), "{found:?}");
    assert!(!serde_json::to_string(&lines).expect("JSON").contains("AKIAQYLPMN5HHHFPZAM2"));
    let whole = "gapscan-target-read-whole";
    assert_eq!(ended(&lines, "kingfisher", whole), "not-evaluated scanner-skipped", "there is a node_modules");
    assert!(
        task(&lines, "syft")["notes"].to_string().contains("names 3 components"),
        "two of BusyBox's, and an installed package of npm"
    );
    assert_eq!(ended(&lines, "syft", whole), "passed");
    assert_eq!(ended(&lines, "ruff", "S602"), "failed");
    assert_eq!(ended(&lines, "ruff", "S307"), "passed", "it was looked for, and the definition vouches for that");
    assert!(task(&lines, "ruff")["notes"].to_string().contains("tells of failures alone"), "{}", task(&lines, "ruff"));
    for engine in ["kingfisher", "ruff", "syft"] {
        assert_eq!(ended(&lines, engine, "gapscan-network-silent"), "passed", "{engine}");
        let version = task(&lines, engine)["provenance"]["engine"]["version"].as_str().unwrap_or_default();
        assert!(version.contains('.'), "{engine} `{version}`");
    }

    let (_, lines) = loaded.scan("web.sqlite", &[web.as_str(), "-e", "syft", "-e", "ruff"]);
    assert_eq!(ended(&lines, "syft", "software-inventory"), "passed");
    assert_eq!(ended(&lines, "ruff", "S602"), "passed");
    lab.inside(&["ledger", "verify", "--ledger", &loaded.file("leaky.sqlite")]).exits(0);
}

#[test]
fn a_stand_in_gets_what_its_definition_promises_and_its_result_is_recorded() {
    let Some(lab) = lab() else { return };
    let results = [
        ("trivy.json", corpus("trivy/debian-buster.json")),
        ("kube-bench.json", corpus("kube-bench/result.json")),
        ("inspec.json", corpus("inspec/small.json")),
    ];
    if results.iter().any(|(_, bytes)| bytes.is_none()) {
        println!("skipped: needs results of real scanners (GAPSCAN_TEST_CORPUS)");
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path();
    let mut results: BTreeMap<&str, Vec<u8>> =
        results.into_iter().map(|(name, bytes)| (name, bytes.unwrap_or_default())).collect();
    results.insert("falco.json", format!("{ALERT}\n").into_bytes());
    let mut files = Vec::new();
    for (name, bytes) in &results {
        write(path, &format!("replay/{name}"), bytes);
        files.push((path.join("replay").join(name), format!("/replay/{name}")));
    }
    for (name, checks) in STAND_INS {
        write(path, &format!("bin/{name}"), format!("{HEAD}{checks}\n"));
        files.push((path.join("bin").join(name), format!("/bin/{name}")));
    }
    let files: Vec<(&Path, &str)> = files.iter().map(|(file, place)| (file.as_path(), place.as_str())).collect();
    let image = image(lab, path, "stand-ins", &files);

    // The controls of each profile are what the result names, and one that it does not.
    let read = |name: &str| -> Value { serde_json::from_slice(&results[name]).expect("JSON") };
    let mut inspec: Vec<String> = Vec::new();
    for profile in read("inspec.json")["profiles"].as_array().expect("profiles") {
        for control in profile["controls"].as_array().expect("controls") {
            inspec.push(control["id"].as_str().expect("an id").to_owned());
        }
    }
    let (mut kube_bench, mut statuses) = (Vec::new(), Vec::new());
    for group in read("kube-bench.json")["Controls"].as_array().expect("groups") {
        for test in group["tests"].as_array().expect("tests") {
            for result in test["results"].as_array().expect("results") {
                kube_bench.push(result["test_number"].as_str().expect("a number").to_owned());
                statuses.push(result["status"].as_str().expect("a word").to_owned());
            }
        }
    }
    let forgotten = "never-heard-of".to_owned();
    inspec.push(forgotten.clone());
    kube_bench.push(forgotten.clone());
    profile(path, "stig", ("cinc-auditor", "container"), &inspec, "");
    write(path, "stig/inspec.yml", "name: lab-k8s\nversion: 1.0.0\n");
    profile(path, "cis", ("kube-bench", "node"), &kube_bench, "parameters: {benchmark: lab, targets: node}\n");
    write(path, "cis/config.yaml", "---\n");
    write(path, "cis/lab/node.yaml", "---\n");
    let severities = ["critical", "high", "medium", "low", "unrated"].map(|s| format!("no-{s}-vulnerabilities"));
    profile(path, "vulnerabilities", ("trivy", "image"), &severities, "");
    let alerts = ["Terminal_shell_in_container".to_owned(), forgotten.clone()];
    profile(path, "runtime", ("falco", "node"), &alerts, "parameters: {seconds: '1'}\n");
    write(path, "runtime/rules.yaml", "[]\n");
    write(path, "trivy-db/trivy.db", "nothing");
    write(path, "trivy-db/metadata.json", r#"{"Version":2,"UpdatedAt":"2026-11-21T00:00:00Z"}"#);

    let images: String = STAND_INS.map(|(name, _)| format!("- {{name: {name}, from: '{image}'}}\n")).concat();
    // What lets Falco see all system calls not every machine that this runs on can give away, and its stand-in needs none of it.
    let falco = fs::read_to_string(sources().join("bundle/scanners/falco.yaml")).expect("it ships");
    let (with, without): (Vec<&str>, Vec<&str>) = falco.lines().partition(|line| line.contains("capabilities: ["));
    assert_eq!(with.len(), 1, "{with:?}");
    write(path, "falco.yaml", without.join("\n"));
    let scanners: String = STAND_INS
        .map(|(name, _)| match name {
            "falco" => format!("- {}/falco.yaml\n", path.display()),
            name => format!("- {}/bundle/scanners/{name}.yaml\n", sources().display()),
        })
        .concat();
    let profiles: String = ["stig", "cis", "vulnerabilities", "runtime"]
        .map(|name| format!("- {{path: {}/{name}}}\n", path.display()))
        .concat();
    let database = format!(
        "dependencies:\n- {{name: trivy-db, from: 'dir:{}/trivy-db', built: 2026-11-21T00:00:00Z, maxAge: 36500d}}\n",
        path.display()
    );
    let loaded = Loaded::new(lab, path, (&images, &scanners, &profiles), &database);

    let pod = lab.kubectl(&["get", "pod", "-n", "shop", "-l", "app=web", "-o", "jsonpath={.items[0].metadata.name}"]);
    let container = format!("pod/shop/{pod}/web");
    let web = format!("image/{}/lab/web:1", lab.var("REGISTRY"));
    let engines = ["-e", "trivy", "-e", "kube-bench", "-e", "cinc-auditor", "-e", "falco", "--approach", "exec"];
    let (ran, lines) = loaded.scan("all.sqlite", &[&[&container, &web, "node/lab"][..], &engines].concat());
    assert_eq!(ran.code, 3, "{}", ran.stderr);

    // InSpec: two passed, one failed, one skipped; exit code 100 fits.
    let of = |engine: &str| {
        let coverage = &task(&lines, engine)["coverage"];
        ["passed", "failed", "notApplicable", "notEvaluated"].map(|name| coverage[name].as_u64().unwrap_or(u64::MAX))
    };
    assert_eq!(ended(&lines, "cinc-auditor", "SV-1"), "passed");
    assert_eq!(ended(&lines, "cinc-auditor", "SV-2"), "failed");
    assert_eq!(ended(&lines, "cinc-auditor", "SV-3"), "not-evaluated scanner-skipped");
    assert_eq!(task(&lines, "cinc-auditor")["provenance"]["approach"], "exec");
    for engine in ["cinc-auditor", "kube-bench", "falco"] {
        assert_eq!(ended(&lines, engine, &forgotten), "not-evaluated control-missing", "{engine}");
    }
    // kube-bench: what it lists, besides gapscan's own controls; and what it counts and does not list is told.
    let listed = |word: &str| statuses.iter().filter(|status| *status == word).count() as u64;
    let [passed, failed, _, not_evaluated] = of("kube-bench");
    let kube_bench = task(&lines, "kube-bench");
    assert_eq!((failed, not_evaluated), (listed("FAIL"), listed("WARN") + 1), "{kube_bench}");
    assert_eq!(passed, listed("PASS") + 2, "{kube_bench}");
    assert!(kube_bench["notes"].to_string().contains("it counts 65 verdicts and lists 1"), "{kube_bench}");
    assert_eq!(task(&lines, "kube-bench")["provenance"]["engine"]["version"], "0.15.0");
    // Trivy: the vulnerabilities of its result.
    assert!(of("trivy")[1] > 0, "{}", task(&lines, "trivy"));
    assert_eq!(ended(&lines, "falco", "Terminal_shell_in_container"), "failed");
    for (name, _) in STAND_INS {
        let task = task(&lines, name);
        assert!(task["provenance"]["cleanup"].get("remaining").is_none(), "{task}");
        assert!(!task["notes"].to_string().contains("wrong:"), "{task}");
    }
    lab.inside(&["ledger", "verify", "--ledger", &loaded.file("all.sqlite")]).exits(0);
}

#[test]
fn grype_counts_only_with_a_database_that_is_there_and_is_not_too_old() {
    let Some(lab) = lab() else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path();
    lab.control(&["grype-db", &path.join("db").display().to_string(), "--built", "2026-01-01T00:00:00Z"]);
    write(path, "nothing/README", "no database is here");
    let upstream = lab.var("UPSTREAM");
    let images = format!("- {{name: grype, from: '{upstream}/lab/grype:1'}}\n");
    let scanners = format!("- {}/bundle/scanners/grype.yaml\n", sources().display());
    let profiles = format!("- {{path: {}/profiles-mirror/known-vulnerabilities}}\n", sources().display());
    let parts = (images.as_str(), scanners.as_str(), profiles.as_str());
    let of = |folder: &str, more: &str| {
        format!(
            "registries: {{'{upstream}': {{caFile: {}}}}}\ndependencies:\n- {{name: grype-db, from: 'dir:{}/{folder}'{more}}}\n",
            lab.ca().display(),
            path.display()
        )
    };
    let loaded = Loaded::new(lab, path, parts, &of("db/cache", ""));
    let web = format!("image/{}/lab/web:1", lab.var("REGISTRY"));
    let critical = "no-critical-vulnerabilities";
    // Policy decides, where the bundle says nothing: too old is not evaluated, whatever Grype found.
    let (ran, lines) = loaded.scan("old.sqlite", &[&web, "-e", "grype", "--database-max-age", "30d"]);
    assert_eq!((ran.code, ended(&lines, "grype", critical).as_str()), (3, "not-evaluated database-stale"));
    let (_, lines) = loaded.scan("allowed.sqlite", &[&web, "-e", "grype", "--database-max-age", "36500d"]);
    assert_eq!(ended(&lines, "grype", critical), "failed");
    assert_eq!(task(&lines, "grype")["provenance"]["content"][0]["built"], "2026-01-01T00:00:00Z");
    // Without one Grype fails, and says so.
    loaded.load(2, parts, &of("nothing", ", built: 2026-11-01T00:00:00Z, maxAge: 36500d"));
    let (ran, lines) = loaded.scan("none.sqlite", &[&web, "-e", "grype"]);
    assert_eq!(ran.code, 3, "{}", ran.stderr);
    assert!(ended(&lines, "grype", critical).starts_with("not-evaluated "), "{}", task(&lines, "grype"));
    assert!(task(&lines, "grype")["coverage"]["passed"].as_u64() <= Some(1), "{}", task(&lines, "grype"));
}

/// Containers with an OpenSCAP of their own: the real one, where nothing but memory and its own /tmp can be written to; one that is too old; one that
/// gives half a result and says that all is well.
const GUESTS: &str = r#"apiVersion: v1
kind: Pod
metadata: {name: @NAME@, namespace: shop}
spec:
  terminationGracePeriodSeconds: 0
  automountServiceAccountToken: false
  containers:
  - name: own
    image: @OPENSCAP@
    command: [sleep, "3600"]
    securityContext: {runAsUser: 65532, runAsGroup: 65532, readOnlyRootFilesystem: true, allowPrivilegeEscalation: false}
    volumeMounts: [{name: tmp, mountPath: /tmp}]
  - name: old
    image: @BUSYBOX@
    command: [sh, -c, "printf '#!/bin/sh\\necho oscap command line tool \\\\(oscap\\\\) 1.2.16\\n' > /fake/oscap; chmod 755 /fake/oscap; sleep 3600"]
    env: [{name: PATH, value: "/fake:/bin"}]
    volumeMounts: [{name: old, mountPath: /fake}]
  - name: liar
    image: @BUSYBOX@
    command: [sh, -c, "printf '#!/bin/sh\\nif [ $# = 1 ]; then echo \\\\(oscap\\\\) 1.3.7; else head -c 99 ./*.xml > /dev/fd/3; fi\\n' > /fake/oscap; chmod 755 /fake/oscap; sleep 3600"]
    env: [{name: PATH, value: "/fake:/bin"}]
    volumeMounts: [{name: liar, mountPath: /fake}]
  volumes: [{name: tmp, emptyDir: {}}, {name: old, emptyDir: {}}, {name: liar, emptyDir: {}}]
"#;

/// Removes its pod, however the test ends.
struct Guests<'a>(&'a Lab, String);

impl Drop for Guests<'_> {
    fn drop(&mut self) {
        let _ = self.0.command("kubectl").args(["delete", "pod", "-n", "shop", &self.1, "--wait=false"]).status();
    }
}

/// A definition on a live target: what a scan by the bundle's records, but for what was changed in it; without a ledger.
fn a_trial_tells_what_a_scan_records(lab: &Lab, loaded: &Loaded<'_>, image: &str, scanned: &[Value]) {
    let scanned = of_target(scanned, image);
    let passed =
        |l: &&&Value| l["type"] == "finding" && l["outcome"] == "passed" && l["control"] != "gapscan-network-silent";
    let control = scanned.iter().find(passed).expect("something passed")["control"].as_str().expect("an id");
    let text = fs::read_to_string(sources().join("bundle/scanners/openscap.yaml")).expect("it ships");
    let blind = format!("blindSpots:\n  - {{controls: [{control}], why: it is tried}}\n");
    let changed = text.replace("blindSpots:\n", &blind);
    assert_ne!(changed, text);
    write(&loaded.folder, "changed.yaml", changed);
    let definition = loaded.file("changed.yaml");
    let ran =
        loaded.inside(&["scanner", "test", &definition, "--target", image, "--bundle", NAME, "-o", "json"]).exits(3);
    let trial: Value = serde_json::from_str(&ran.stdout).expect("JSON");
    let task = &trial["tasks"][0];
    let recorded = &scanned.iter().find(|l| l["type"] == "task").expect("it was scanned")["coverage"];
    let count = |coverage: &Value, name: &str| coverage[name].as_i64().unwrap_or(-1);
    for (name, more) in [("expected", 0), ("passed", -1), ("failed", 0), ("notApplicable", 0), ("notEvaluated", 1)] {
        assert_eq!(count(&task["coverage"], name), count(recorded, name) + more, "{name}: {task}");
    }
    assert!(task["findings"].to_string().contains("it is tried"), "{task}");
    let cleanup = &task["provenance"]["cleanup"];
    assert!(cleanup["created"].as_array().is_some_and(|made| made.len() > 1), "{cleanup}");
    assert!(cleanup.get("remaining").is_none(), "{cleanup}");
    assert!(trial["events"].to_string().contains("cleanup-verified"), "{}", trial["events"]);
    let run = format!("gapscan.dev/run={}", task["run"].as_str().expect("a run"));
    assert_eq!(lab.kubectl(&["get", "namespaces", "-o", "name", "-l", &run]).trim(), "");
}

/// The lines of one target by its key.
fn of_target<'l>(lines: &'l [Value], key: &str) -> Vec<&'l Value> {
    lines.iter().filter(|l| l["target"] == key || l["targetKey"] == key).collect()
}

#[test]
fn an_openscap_of_the_targets_own_says_what_the_bundles_says_of_its_image() {
    let Some(lab) = lab() else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path();
    let shipped =
        fs::read_to_string(sources().join("profiles-mirror/debian12-standard/profile.yaml")).expect("it ships");
    let both = shipped.replace("targets: [image, node]", "targets: [image, container]");
    assert_ne!(both, shipped);
    write(path, "debian12-standard/profile.yaml", both);
    let upstream = lab.var("UPSTREAM");
    let images = format!("- {{name: openscap, from: '{upstream}/lab/openscap:1'}}\n");
    let scanners = format!("- {}/bundle/scanners/openscap.yaml\n", sources().display());
    let profiles = format!("- {{path: {}/debian12-standard}}\n", path.display());
    let more = format!("registries: {{'{upstream}': {{caFile: {}}}}}\n", lab.ca().display());
    let loaded = Loaded::new(lab, path, (&images, &scanners, &profiles), &more);
    let repository = format!("{}/images/openscap", loaded.registry());
    let tag = lab.tags(repository.split_once('/').expect("a repository").1).into_iter().next().expect("it has a tag");
    let openscap = format!("{repository}:{tag}");
    let busybox = format!("{}/lab/busybox:1", lab.var("REGISTRY"));
    let guests = Guests(lab, format!("guests-{}", std::process::id()));
    let pod = GUESTS.replace("@NAME@", &guests.1).replace("@OPENSCAP@", &openscap).replace("@BUSYBOX@", &busybox);
    write(path, "guests.yaml", pod);
    lab.kubectl(&["apply", "-f", &loaded.file("guests.yaml")]);
    lab.kubectl(&["wait", "-n", "shop", "--for=condition=Ready", "--timeout=60s", &format!("pod/{}", guests.1)]);
    let web = lab.kubectl(&["get", "pod", "-n", "shop", "-l", "app=web", "-o", "jsonpath={.items[0].metadata.name}"]);

    let all = format!("pod/shop/{}", guests.1);
    let [own, old, liar] = ["own", "old", "liar"].map(|name| format!("{all}/{name}"));
    let (web, image) = (format!("pod/shop/{web}/web"), format!("image/{openscap}"));
    let way = ["-e", "openscap", "--approach", "exec"];
    let explain = ["scan", "--bundle", NAME, "--ledger", &loaded.file("e.sqlite"), &own, "--explain", "-o", "json"];
    let explained = loaded.inside(&[&explain[..], &way].concat()).exits(0).stdout;
    assert!(explained.contains("policy does not allow that (policy.targetPrograms)"), "{explained}");
    let allowed = [&way[..], &["--target-programs", "allow"]].concat();
    let mark = lab.audit_length();
    let (ran, lines) = loaded.scan("own.sqlite", &[&[all.as_str(), &web, &image][..], &allowed].concat());
    assert_eq!(ran.code, 3, "{}", ran.stderr);

    // Of its own program's word nothing is vouched for, and what was delivered is gone.
    let its = of_target(&lines, &own);
    let task = its.iter().find(|l| l["type"] == "task").expect("it is recorded");
    let provenance = &task["provenance"];
    assert_eq!(
        (&provenance["approach"], &provenance["engine"]["version"]),
        (&json!("exec"), &json!("1.3.7")),
        "{task}"
    );
    assert!(provenance["engine"].get("image").is_none(), "{task}");
    assert!(task["notes"].to_string().contains("`/usr/bin/oscap`: no bundle has its digest"), "{task}");
    assert!(provenance["cleanup"].get("remaining").is_none(), "{task}");
    let made = provenance["cleanup"]["created"].to_string();
    assert!(made.contains(&format!("folder/shop/{}/own/gapscan-", guests.1)), "{made}");
    let left = lab.kubectl(&[
        "exec",
        "-n",
        "shop",
        &guests.1,
        "-c",
        "own",
        "--",
        "find",
        "/dev/shm",
        "/tmp",
        "-mindepth",
        "1",
    ]);
    assert_eq!(left.trim(), "");
    let outcomes = |key: &str| -> BTreeMap<String, String> {
        let findings = of_target(&lines, key).into_iter().filter(|l| l["type"] == "finding");
        findings.map(|l| (l["control"].to_string(), l["outcome"].to_string())).collect()
    };
    let (here, there) = (outcomes(&own), outcomes(&image));
    assert!(
        here.values().any(|word| word.contains("passed")) && here.values().any(|word| word.contains("failed")),
        "{here:?}"
    );
    // In the container `/tmp` is a mount, and whom the program talked to nobody saw.
    let differ: Vec<_> = there.iter().filter(|(control, word)| here.get(*control) != Some(word)).collect();
    let [(silent, _), (mounted, _)] = &differ[..] else { panic!("{differ:?}") };
    assert!(silent.contains("gapscan-network-silent") && mounted.contains("partition_for_tmp"), "{differ:?}");

    // What has none, what is too old, and what gives half a result is not evaluated, each with its reason.
    for (key, reason, said) in [
        (&web, "tool-missing", "has no `oscap`"),
        (&old, "tool-missing", "is 1.2.16, and the scanner's definition asks for 1.3.0"),
        (&liar, "output-", ""),
    ] {
        let findings: Vec<_> = of_target(&lines, key).into_iter().filter(|l| l["type"] == "finding").collect();
        assert!(!findings.is_empty(), "{key}");
        for finding in findings {
            assert!(finding["reason"].as_str().is_some_and(|word| word.starts_with(reason)), "{finding}");
            assert!(finding.to_string().contains(said), "{finding}");
        }
    }
    // As the one pod's, and nothing else.
    let mut commands = 0;
    let log = lab.audit(mark);
    a_trial_tells_what_a_scan_records(lab, &loaded, &image, &lines);
    for line in log.iter().filter(|l| l["stage"] == "ResponseComplete") {
        let who = line["user"]["username"].as_str().unwrap_or_default();
        if !(who.starts_with("system:serviceaccount:gapscan-") && who.ends_with("-scanner")) {
            continue;
        }
        let object = &line["objectRef"];
        if object["resource"] == "pods" {
            assert_eq!((&object["namespace"], &line["verb"]), (&json!("shop"), &json!("get")), "{line}");
            assert!(
                [&guests.1, web.split('/').nth(2).expect("a name")].iter().any(|name| object["name"] == **name),
                "{line}"
            );
            commands += usize::from(object["subresource"] == "exec");
        } else {
            assert!(object["resource"].as_str().is_none_or(|what| what.starts_with("selfsubject")), "{line}");
        }
    }
    assert!(commands >= 10, "{commands}");
}
