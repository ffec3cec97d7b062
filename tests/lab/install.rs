//! gapscan installed in the cluster: what is printed is what is applied; the runner scans by schedule; its account may do what
//! its scans need and nothing more; the API server refuses what is no part of a scan; nothing is left in the end.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::enclave::{BUNDLE, enclave};
use crate::installation::{Installation, NAMESPACE};
use crate::lab::{Lab, lab, wait_until};

/// An installation of the bundle that all tests share, whose one scan has this schedule.
fn installation(lab: &'static Lab, name: &'static str, schedule: &str) -> Installation {
    let plan =
        format!("scans:\n- {{name: web, selector: 'app=web', schedule: {{cron: '{schedule}', timeZone: UTC}}}}\n");
    planned(lab, name, &plan)
}

fn planned(lab: &'static Lab, name: &'static str, plan: &str) -> Installation {
    let enclave = enclave(lab);
    let (registry, ca) = (enclave.registry(lab), lab.ca().display().to_string());
    let (root, state) = (enclave.file("trust/root.json"), enclave.file("state"));
    let bundle = ["--bundle", BUNDLE, "--registry", &registry, "--ca", &ca, "--root", &root, "--state", &state];
    Installation::new(lab, name, &enclave.path, bundle.map(str::to_owned).into(), plan)
}

/// The objects that kubectl prints, one after another or as a list.
fn objects(text: &str) -> Vec<Value> {
    let all = serde_json::Deserializer::from_str(text).into_iter::<Value>();
    let all = all.map(|object| object.expect("JSON"));
    all.flat_map(|object| match object["items"].as_array() {
        Some(items) => items.clone(),
        None => vec![object],
    })
    .collect()
}

/// Whether all of `wanted` is in `there`, which may have more.
#[track_caller]
fn assert_within(wanted: &Value, there: &Value, at: &str) {
    match (wanted, there) {
        (Value::Object(wanted), Value::Object(there)) => {
            for (key, value) in wanted {
                let found = there.get(key).unwrap_or_else(|| panic!("{at}.{key} is not there"));
                assert_within(value, found, &format!("{at}.{key}"));
            }
        }
        (Value::Array(wanted), Value::Array(there)) => {
            assert_eq!(wanted.len(), there.len(), "{at}");
            for (index, (wanted, there)) in wanted.iter().zip(there).enumerate() {
                assert_within(wanted, there, &format!("{at}[{index}]"));
            }
        }
        _ => assert_eq!(wanted, there, "{at}"),
    }
}

#[test]
fn what_is_printed_is_applied_and_serves_and_goes() {
    let Some(lab) = lab() else { return };
    // A container, as what it is; and an image by a scanner in a pod, which sends its result.
    let image = format!("image/{}/lab/web:1", lab.var("REGISTRY"));
    let plan = format!(
        "scans:\n- {{name: web, selector: 'app=web', schedule: {{cron: '*/10 * * * * *', timeZone: UTC}}}}\n\
         - {{name: image, targets: ['{image}'], engines: [openscap], schedule: {{cron: '*/10 * * * * *', timeZone: UTC}}}}\n"
    );
    let one = planned(lab, "serves", &plan);
    let port = "9465";
    let sent = ["--upload-port", port];
    let printed = one.install(&[&sent[..], &["--dry-run"]].concat()).exits(0).stdout;
    assert_eq!(one.left(), Vec::<String>::new(), "a dry run changes nothing");
    let path = one.file("printed.yaml");
    fs::write(&path, &printed).expect("written");

    let mark = lab.audit_length();
    let first = one.install(&sent).exits(0);
    assert!(first.stdout.lines().all(|line| line.starts_with("created ")), "{}", first.stdout);
    let shown = lab.kubectl(&["get", "-f", &path, "-o", "json"]);
    // kubectl reads what was printed, and shows it as JSON.
    let read = lab.kubectl(&["create", "--dry-run=client", "-f", &path, "-o", "json"]);
    let (wanted, there) = (objects(&read), objects(&shown));
    assert_eq!([wanted.len(), there.len()], [first.stdout.lines().count(); 2]);
    for (wanted, there) in wanted.iter().zip(&there) {
        assert_within(wanted, there, &format!("{}/{}", wanted["kind"], wanted["metadata"]["name"]));
    }

    let again = one.install(&sent).exits(0);
    assert!(again.stdout.lines().all(|line| line.starts_with("unchanged ")), "{}", again.stdout);
    assert!(again.stderr.contains("nothing was changed"), "{}", again.stderr);

    // What somebody else set is not overruled.
    lab.kubectl(&["label", "--overwrite", "namespace", NAMESPACE, "pod-security.kubernetes.io/warn=baseline"]);
    let refused = one.install(&sent).exits(5);
    assert!(refused.stderr.contains("kubectl"), "the other manager is named: {}", refused.stderr);
    lab.kubectl(&["label", "--overwrite", "namespace", NAMESPACE, "pod-security.kubernetes.io/warn=restricted"]);
    one.install(&sent).exits(0);

    // The policies hold while it scans.
    let of_image = |l: &&Value| l["type"] == "task" && l["targetKey"].as_str().is_some_and(|t| t.starts_with("image/"));
    let lines = one.results("a container and an image that the installed runner scanned", |lines| {
        let seen = lines.iter().any(|l| {
            l["outcome"] == "passed" && l["target"].as_str().is_some_and(|target| target.starts_with("pod/shop/web-"))
        });
        seen && lines.iter().any(|l| of_image(&l))
    });
    let task = lines.iter().find(of_image).expect("it is there");
    assert!(task["notes"].to_string().contains("came by upload"), "{task}");
    assert!(task["coverage"]["passed"].as_u64() > Some(5), "{task}");
    assert!(task["provenance"]["identity"].is_null(), "nobody was needed to fetch it: {task}");
    assert!(task["provenance"]["cleanup"].get("remaining").is_none(), "{task}");
    let pod = lab.kubectl(&["get", "pod", "-n", NAMESPACE, "runner-0", "-o", "json"]);
    let pod: Value = serde_json::from_str(&pod).expect("JSON");
    assert_eq!(pod["spec"]["containers"][0]["securityContext"]["readOnlyRootFilesystem"], true);
    assert!(pod["spec"]["containers"][0]["image"].as_str().is_some_and(|image| image.contains("@sha256:")));

    // Whoever is no pod of a scan does not get through to where results are taken, nor to anything else of it.
    let address = pod["status"]["podIP"].as_str().expect("an address");
    let call = format!("exec 3<>/dev/tcp/{address}/{port}");
    let mut command = lab.command("kubectl");
    command.args(["exec", "-n", "shop", "deploy/web", "-c", "web", "--", "timeout", "2", "bash", "-c", &call]);
    let stranger = command.output().expect("kubectl runs");
    assert_eq!(stranger.status.code(), Some(124), "{}", String::from_utf8_lossy(&stranger.stderr));

    let gone = lab.inside(&["uninstall"]).exits(0);
    assert!(gone.stdout.contains("kept persistentvolumeclaim/gapscan/data"), "{}", gone.stdout);
    let left: BTreeSet<String> = one.left().into_iter().collect();
    let kept = ["\"Namespace\"/\"gapscan\"", "\"PersistentVolumeClaim\"/\"data\""];
    assert_eq!(left, kept.map(str::to_owned).into());
    assert!(Path::new(&one.file("volume")).join("ledger.sqlite").is_file(), "the ledger is kept");
    let rest = lab.inside(&["uninstall", "--delete-data"]).exits(0);
    assert!(rest.stdout.contains("removed namespace/gapscan"), "{}", rest.stdout);
    assert_eq!(one.left(), Vec::<String>::new());
    let made = namespaces_made(&lab.audit(mark));
    assert!(!made.is_empty(), "it ran");
    let there = one.list("namespaces", "gapscan.dev/run");
    let there = there.iter().filter_map(|namespace| namespace["metadata"]["name"].as_str());
    assert_eq!(there.filter(|name| made.contains(*name)).count(), 0, "and nothing of its runs");
    lab.inside(&["uninstall", "--delete-data"]).exits(0);
}

/// The namespaces that the runner made.
fn namespaces_made(log: &[Value]) -> BTreeSet<String> {
    log.iter()
        .filter(|line| line["user"]["username"] == format!("system:serviceaccount:{NAMESPACE}:runner"))
        .filter(|line| line["verb"] == "create" && line["objectRef"]["resource"] == "namespaces")
        .filter(|line| line["responseStatus"]["code"] == 201)
        .filter_map(|line| line["objectRef"]["name"].as_str().map(str::to_owned))
        .collect()
}

type Right = (String, String, String);

/// Group, resource and verb of every rule of the runner's roles.
fn granted(lab: &Lab) -> BTreeSet<Right> {
    let mut granted = BTreeSet::new();
    for arguments in [&["clusterrole", "gapscan-runner"][..], &["role", "-n", "default", "gapscan-runner"]] {
        let role = lab.kubectl(&[&["get"], arguments, &["-o", "json"]].concat());
        let role: Value = serde_json::from_str(&role).expect("JSON");
        let texts = |rule: &Value, key: &str| -> Vec<String> {
            let list = rule[key].as_array().expect("a list");
            list.iter().map(|text| text.as_str().expect("text").to_owned()).collect()
        };
        for rule in role["rules"].as_array().expect("rules") {
            for verb in texts(rule, "verbs") {
                let (group, resource) = (texts(rule, "apiGroups").remove(0), texts(rule, "resources").remove(0));
                granted.insert((group, resource, verb));
            }
        }
    }
    granted
}

/// What was asked for, by the runner and by the identities that it made, and whatever of the runner's was denied.
fn used(log: &[Value]) -> (BTreeSet<Right>, Vec<&Value>) {
    let (mut used, mut denied) = (BTreeSet::new(), Vec::new());
    for line in log {
        let user = line["user"]["username"].as_str().unwrap_or_default();
        let is_runner = user == format!("system:serviceaccount:{NAMESPACE}:runner");
        if !is_runner && !user.starts_with("system:serviceaccount:gapscan-") {
            continue;
        }
        if is_runner && line["responseStatus"]["code"] == 403 {
            denied.push(line);
        }
        let object = &line["objectRef"];
        let Some(resource) = object["resource"].as_str() else { continue };
        let resource = match object["subresource"].as_str() {
            Some(sub) => format!("{resource}/{sub}"),
            None => resource.to_owned(),
        };
        let group = object["apiGroup"].as_str().unwrap_or_default().to_owned();
        used.insert((group, resource, line["verb"].as_str().unwrap_or_default().to_owned()));
    }
    (used, denied)
}

fn right(group: &str, resource: &str, verb: &str) -> Right {
    (group.to_owned(), resource.to_owned(), verb.to_owned())
}

#[test]
fn the_runner_may_do_what_scans_need_and_nothing_more() {
    let Some(lab) = lab() else { return };
    // Never due while the test runs.
    let one = installation(lab, "rights", "0 0 1 1 *");
    let mark = lab.audit_length();
    one.install(&[]).exits(0);
    let kubeconfig = one.kubeconfig();
    let pull = one.pull_config();
    let as_runner = ["--kubeconfig", kubeconfig.as_str(), "--pull-config", pull.as_str()];
    let scan = |ledger: &str, arguments: &[&str]| {
        let arguments = [arguments, &as_runner].concat();
        enclave(lab).scan(lab, ledger, &arguments)
    };
    // Not everything can be evaluated in the lab, but everything is tried.
    let all = scan("rights.sqlite", &["--all"]);
    assert!([1, 3].contains(&all.code), "{}", all.stderr);
    let image = format!("image/{}/lab/debian:1", lab.var("REGISTRY"));
    // The registry is at the node's own address, at which pods reach whoever scans here.
    let (node, _) = lab.var("REGISTRY").rsplit_once(':').expect("it has a port");
    let sent = format!("{node}:{}", 20_000 + std::process::id() % 10_000);
    let external = scan("rights.sqlite", &[image.as_str(), "--engine", "openscap", "--upload-address", sent.as_str()]);
    assert!([0, 1, 3].contains(&external.code), "{}", external.stderr);
    scan("rights.sqlite", &["node/lab"]);
    let copy = scan("rights-copy.sqlite", &["pod/vault/keeper", "--approach", "sidecar"]);
    assert!(copy.stdout.contains("container-baseline"), "{}", copy.stderr);
    let copied = enclave(lab).lines(lab, "rights-copy.sqlite");
    let passed = copied.iter().filter(|l| l["type"] == "finding" && l["outcome"] == "passed").count();
    assert!(passed > 10, "a copy was looked at with the policies in place: {}", copy.stderr);
    let lines = enclave(lab).lines(lab, "rights.sqlite");
    assert!(lines.iter().any(|l| l["what"] == "cleanup-verified"), "that all is gone was verified");
    for target in ["cluster", "pod/shop/web-", "pod/shop/api-0", "image/"] {
        let judged = |l: &&Value| {
            l["type"] == "finding"
                && l["target"].as_str().is_some_and(|t| t.starts_with(target))
                && ["passed", "failed"].contains(&l["outcome"].as_str().unwrap_or_default())
        };
        assert!(lines.iter().any(|l| judged(&l)), "{target} was scanned with the policies in place");
    }

    let log = lab.audit(mark);
    let (used, denied) = used(&log);
    assert!(denied.is_empty(), "{denied:#?}");
    let granted = granted(lab);
    // A WebSocket exec is one request, for which Kubernetes checks `create` too; the log has it as `get`.
    // A Job is read only where its pod is not there yet, or never comes.
    let checked_beside = BTreeSet::from([right("", "pods/exec", "create"), right("batch", "jobs", "get")]);
    // Where the API has no policies above NetworkPolicies, nobody asks for them.
    let above = ["adminnetworkpolicies", "clusternetworkpolicies"];
    let above = above.map(|resource| right("policy.networking.k8s.io", resource, "list"));
    let unused: Vec<&Right> =
        granted.difference(&used).filter(|right| !checked_beside.contains(*right) && !above.contains(*right)).collect();
    assert!(unused.is_empty(), "granted and used by no scan: {unused:?}");
    // Every account may ask who it is.
    let open = BTreeSet::from([right("authentication.k8s.io", "selfsubjectreviews", "create")]);
    let more: Vec<&Right> = used.difference(&granted).filter(|right| !open.contains(*right)).collect();
    assert!(more.is_empty(), "used and not granted: {more:?}");

    // What RBAC allows and the policies don't.
    let refused = |arguments: &[&str], why: &str| {
        let mut command = lab.command("kubectl");
        let output = command.args(["--kubeconfig", &kubeconfig]).args(arguments).output().expect("kubectl runs");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains(why), "{arguments:?}: {said}");
    };
    refused(&["create", "token", "default", "-n", "kube-system"], "only in the namespace of a run");
    refused(&["create", "serviceaccount", "mine", "-n", "shop"], "carries the label of a run");
    refused(&["create", "namespace", "mine"], "carries the label of a run");
    refused(&["delete", "namespace", "vault"], "carries the label of a run");
    refused(&["delete", "pod", "-n", "shop", "legacy"], "carries the label of a run");
    refused(&["exec", "-n", "shop", "legacy", "--", "true"], "does not use it itself");
    let labelled = json!({
        "apiVersion": "v1", "kind": "ServiceAccount",
        "metadata": { "name": "mine", "namespace": "shop", "labels": { "gapscan.dev/run": "x" } },
    });
    refused(&["create", "-f", &one.write("labelled.json", &labelled)], "only in the namespace of a run");
    let wide = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role",
        "metadata": { "name": "mine", "namespace": "shop", "labels": { "gapscan.dev/run": "x" } },
        "rules": [{ "apiGroups": [""], "resources": ["pods/exec"], "verbs": ["get", "create"] }],
    });
    refused(&["create", "-f", &one.write("wide.json", &wide)], "names one object");
}

const TRIED: &str = "gapscan-tried";
const TRIED_NODE: &str = "gapscan-tried-node";
const TRIED_COPY: &str = "gapscan-tried-copy";

/// A pod as scans make them, of this image.
fn pod(image: &str, mounted: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "tried", "namespace": TRIED },
        "spec": {
            "automountServiceAccountToken": false,
            "securityContext": {
                "runAsNonRoot": true, "runAsUser": 65532, "seccompProfile": { "type": "RuntimeDefault" } },
            "containers": [{
                "name": "c", "image": image,
                "securityContext": { "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true,
                                     "capabilities": { "drop": ["ALL"] } },
                "volumeMounts": [{ "name": "target", "mountPath": "/target" }],
            }],
            "volumes": [{ "name": "target", "image": { "reference": mounted } }],
        },
    })
}

#[test]
fn only_restricted_pods_of_the_loaded_bundle_run_in_namespaces_of_scans() {
    let Some(lab) = lab() else { return };
    let one = installation(lab, "admission", "0 0 1 1 *");
    one.install(&[]).exits(0);
    // Without Pod Security's labels, so that it is the policy that refuses.
    let labels = json!({ "app.kubernetes.io/managed-by": "gapscan", "gapscan.dev/run": "tried" });
    let mut of_nodes = labels.clone();
    of_nodes["pod-security.kubernetes.io/enforce"] = json!("privileged");
    let mut of_copies = labels.clone();
    of_copies["gapscan.dev/copies"] = json!("true");
    for (name, labels) in [(TRIED, labels), (TRIED_NODE, of_nodes), (TRIED_COPY, of_copies)] {
        let metadata = json!({ "name": name, "labels": labels });
        one.apply(&json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": metadata }));
    }
    for name in [TRIED, TRIED_NODE, TRIED_COPY] {
        wait_until("the account that a pod has where it names none", || {
            let mut command = lab.command("kubectl");
            command.args(["get", "serviceaccount", "-n", name, "default"]).output().is_ok_and(|o| o.status.success())
        });
    }
    let runner = lab.kubectl(&["get", "statefulset", "-n", NAMESPACE, "runner", "-o", "json"]);
    let runner: Value = serde_json::from_str(&runner).expect("JSON");
    let own = runner["spec"]["template"]["spec"]["containers"][0]["image"].as_str().expect("text").to_owned();
    let (repository, digest) = own.split_once('@').expect("a digest");
    let other = format!("{repository}@sha256:{}", "0".repeat(64));
    let tagged = format!("{repository}:{BUNDLE}");
    let both = format!("{repository}:{BUNDLE}@{digest}");

    let mut cases: BTreeMap<&str, (Value, Option<&str>)> = BTreeMap::from([
        ("the bundle's own image", (pod(&own, &other), None)),
        ("a tag beside the digest", (pod(&both, &other), None)),
        ("another image", (pod(&other, &own), Some("only images of the loaded bundle"))),
        ("a tag", (pod(&tagged, &own), Some("only images of the loaded bundle"))),
        ("a mounted tag", (pod(&own, &tagged), Some("mounted in a namespace of a scan by their digests"))),
    ]);
    let mut change = |name: &'static str, path: &str, value: Value, why: &'static str| {
        let mut changed = pod(&own, &other);
        let (parent, key) = path.rsplit_once('/').expect("a path");
        changed.pointer_mut(parent).expect("it is there")[key] = value;
        cases.insert(name, (changed, Some(why)));
    };
    let container = "/spec/containers/0";
    change("privileged", &format!("{container}/securityContext"), json!({ "privileged": true }), "privileged");
    change("host network", "/spec/hostNetwork", json!(true), "shares the host's");
    change("host process ids", "/spec/hostPID", json!(true), "shares the host's");
    change(
        "a capability",
        &format!("{container}/securityContext/capabilities"),
        json!({ "drop": ["ALL"], "add": ["NET_BIND_SERVICE"] }),
        "drops all capabilities",
    );
    change(
        "a writable root",
        &format!("{container}/securityContext/readOnlyRootFilesystem"),
        json!(false),
        "read-only root",
    );
    change("root", "/spec/securityContext/runAsUser", json!(0), "runs as root");
    change("root in the container", &format!("{container}/securityContext/runAsNonRoot"), json!(false), "runs as root");
    change("no seccomp", "/spec/securityContext/seccompProfile", json!({ "type": "Unconfined" }), "seccomp");
    change(
        "the node's files",
        "/spec/volumes",
        json!([{ "name": "target", "hostPath": { "path": "/" } }]),
        "what is the node's",
    );
    change(
        "another image first",
        "/spec/initContainers",
        json!([{ "name": "i", "image": other, "securityContext": { "allowPrivilegeEscalation": false,
            "readOnlyRootFilesystem": true, "capabilities": { "drop": ["ALL"] } } }]),
        "only images of the loaded bundle",
    );

    // A pod that looks at a node.
    let mut node = pod(&own, &other);
    node["metadata"]["namespace"] = json!(TRIED_NODE);
    node["spec"]["volumes"] = json!([{ "name": "target", "hostPath": { "path": "/" } }]);
    let context = &mut node["spec"]["containers"][0]["securityContext"];
    context["runAsUser"] = json!(0);
    context["runAsNonRoot"] = json!(false);
    context["capabilities"]["add"] = json!(["DAC_READ_SEARCH"]);
    node["spec"]["containers"][0]["volumeMounts"][0]["readOnly"] = json!(true);
    let mut writing = node.clone();
    writing["spec"]["containers"][0]["volumeMounts"][0]["readOnly"] = json!(false);
    let mut mighty = node.clone();
    mighty["spec"]["containers"][0]["securityContext"]["capabilities"]["add"] = json!(["SYS_ADMIN"]);
    let mut foreign = node.clone();
    foreign["spec"]["containers"][0]["image"] = json!(other);
    let mut networked = node.clone();
    networked["spec"]["hostNetwork"] = json!(true);
    cases.extend([
        ("a node is looked at", (node, None)),
        ("a node is written to", (writing, Some("mounted read-only"))),
        ("a capability for a node", (mighty, Some("none that it does not need"))),
        ("another image for a node", (foreign, Some("only images of the loaded bundle"))),
        ("a node's network", (networked, Some("shares the host's"))),
    ]);

    // A copy of a container: what it runs is in no bundle and may write to its root; all else holds, for it and beside it.
    let copied = |image: &str, agent: &str| {
        let mut copy = pod(image, &own);
        copy["metadata"]["namespace"] = json!(TRIED_COPY);
        copy["spec"]["containers"][0]["name"] = json!("target");
        copy["spec"]["containers"][0]["securityContext"]["readOnlyRootFilesystem"] = json!(false);
        let restricted = json!({ "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "capabilities": { "drop": ["ALL"] } });
        copy["spec"]["initContainers"] =
            json!([{ "name": "gapscan", "image": agent, "restartPolicy": "Always", "securityContext": restricted }]);
        copy
    };
    let mut mighty_copy = copied(&other, &own);
    mighty_copy["spec"]["containers"][0]["securityContext"]["capabilities"] =
        json!({ "drop": ["ALL"], "add": ["SYS_ADMIN"] });
    let mut root_copy = copied(&other, &own);
    root_copy["spec"]["containers"][0]["securityContext"]["runAsUser"] = json!(0);
    let mut writing_agent = copied(&other, &own);
    writing_agent["spec"]["initContainers"][0]["securityContext"]["readOnlyRootFilesystem"] = json!(false);
    let mut host_copy = copied(&other, &own);
    host_copy["spec"]["volumes"] = json!([{ "name": "target", "hostPath": { "path": "/" } }]);
    let mut elsewhere = copied(&other, &own);
    elsewhere["metadata"]["namespace"] = json!(TRIED);
    cases.extend([
        ("a copy of a container", (copied(&other, &own), None)),
        ("a copy by a tag", (copied(&tagged, &own), Some("that it was copied from, by its digest"))),
        ("a foreign image beside a copy", (copied(&other, &other), Some("only images of the loaded bundle"))),
        ("a capability for a copy", (mighty_copy, Some("drops all capabilities"))),
        ("root in a copy", (root_copy, Some("runs as root"))),
        ("an agent that may write", (writing_agent, Some("read-only root"))),
        ("the node's files in a copy", (host_copy, Some("what is the node's"))),
        ("a copy where none belongs", (elsewhere, Some("only images of the loaded bundle"))),
    ]);

    let attempt = |manifest: &Value| {
        let path = one.write("tried.json", manifest);
        let output = lab.command("kubectl").args(["create", "--dry-run=server", "-f", &path]).output();
        let output = output.expect("kubectl runs");
        (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    // The API server enforces a policy some time after it took it, each when it gets to it: what may not be is tried first, and
    // what may be when all of them are in force.
    let (refused, allowed): (Vec<_>, Vec<_>) = cases.into_iter().partition(|(_, (_, why))| why.is_some());
    for (name, (manifest, why)) in refused {
        let why = why.expect("that is what makes it one of these");
        let mut last = String::new();
        wait_until(&format!("that {name} is refused because of `{why}`"), || {
            let (created, said) = attempt(&manifest);
            let is_so = !created && said.contains(why);
            if !is_so && said != last {
                println!("{name}: {said}");
                last = said;
            }
            is_so
        });
    }
    let tried: Vec<(&str, bool, String)> = allowed
        .into_iter()
        .map(|(name, (manifest, _))| {
            let (created, said) = attempt(&manifest);
            (name, created, said)
        })
        .collect();
    lab.kubectl(&["delete", "namespace", TRIED, TRIED_NODE, TRIED_COPY, "--wait=false"]);
    for (name, created, said) in tried {
        assert!(created, "{name}: {said}");
    }
}
