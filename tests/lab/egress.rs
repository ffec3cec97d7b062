//! A scanner that has to talk to a service of the cluster: not without policy, to nobody else with it, and only where the service
//! leads to pods of its own namespace. Parts of the flow in `external.rs`, with its bundle.

use std::path::Path;

use serde_json::{Value, json};

use crate::external::{Loaded, NAME, outcome, profile, task, write};
use crate::lab::Lab;

/// A scanner that asks whom its definition names for a page, and looks for nobody else's name. It writes a test result of XCCDF.
const SCRIPT: &str = r#"
r() { echo "<rule-result idref=\"$1\"><result>$2</result></rule-result>" >> /tmp/rules; }
host=$(echo "$PEER" | cut -d: -f1) port=$(echo "$PEER" | cut -d: -f2)
while read -r ip names; do for n in $names; do [ "$n" = "$host" ] && at=$ip; done; done < /etc/hosts
[ "$at" ] && r named pass || r named fail
printf 'GET / HTTP/1.0\r\n\r\n' | timeout 10 nc "$at" "$port" | grep -q '^HTTP/1' && r answers pass || r answers fail
[ -z "$ELSEWHERE" ] || timeout 3 nc $ELSEWHERE < /dev/null
{ echo '<TestResult xmlns="http://checklists.nist.gov/xccdf/1.2" id="t" end-time="2026-01-01T00:00:00"><benchmark id="b"/>'; cat /tmp/rules; echo '</TestResult>'; } > "$RESULTS/r.xml"
"#;

/// The controls of the script, and gapscan's own.
const CONTROLS: [&str; 3] = ["named", "answers", "gapscan-network-silent"];

/// A service that selects nothing, and a slice by which a pod is behind it, at an address that is the registry's.
fn forged(lab: &Lab, folder: &Path) {
    let pod = lab.kubectl(&["get", "pod", "-n", "shop", "-l", "app=web", "-o", "jsonpath={.items[0].metadata.name}"]);
    let objects = json!({ "apiVersion": "v1", "kind": "List", "items": [
        { "apiVersion": "v1", "kind": "Service", "metadata": { "name": "forged", "namespace": "shop" },
          "spec": { "ports": [{ "port": 80, "targetPort": 5000 }] } },
        { "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
          "metadata": { "name": "forged", "namespace": "shop", "labels": { "kubernetes.io/service-name": "forged" } },
          "ports": [{ "port": 5000 }],
          "endpoints": [{ "addresses": [lab.var("LAB_NODE_IP")], "conditions": { "ready": true },
                          "targetRef": { "kind": "Pod", "namespace": "shop", "name": pod } }] },
    ] });
    write(folder, "forged.json", &objects.to_string());
    lab.kubectl(&["apply", "-f", &folder.join("forged.json").display().to_string()]);
}

/// The scanner and its profiles, as lines of a bundle's definition. Each approach talks to somebody else.
pub(crate) fn prepare(lab: &Lab, folder: &Path) -> (String, String) {
    let script = serde_json::to_string(SCRIPT).expect("it is text");
    let approach = |peer: &str| {
        format!(
            "    command: [/bin/sh, -c, {script}]\n    env: {{PATH: /bin, PEER: '${{egress.{peer}}}', RESULTS: \
             '${{target.results}}', ELSEWHERE: '${{elsewhere}}'}}\n"
        )
    };
    let scanner = format!(
        "apiVersion: gapscan/v1\nkind: Scanner\nname: asker\ntitle: A scanner that asks a service\nimage: pryer\negress:\n\
         - {{name: page, why: it serves the page}}\n- {{name: other, why: it serves another}}\n\
         - {{name: server, why: it knows the cluster}}\napproaches:\n  image:\n    mount: /target\n{}  exec:\n{}  \
         cluster:\n    resources: [pods]\n{}result: {{path: r.xml, format: arf}}\nexitCodes: {{0: complete}}\n\
         deadline: 1m\nmemory: 64Mi\ncpu: 100m\n",
        approach("page"),
        approach("other"),
        approach("server"),
    );
    write(folder, "asker.yaml", &scanner);
    let elsewhere = format!("{} 5000", lab.var("LAB_NODE_IP"));
    let asker = ("asker", &CONTROLS[..2]);
    profile(folder, "asks", asker, "image", "");
    profile(folder, "asks-elsewhere", asker, "image", &elsewhere);
    profile(folder, "asks-other", asker, "container", "");
    profile(folder, "asks-server", asker, "cluster", "");
    let path = folder.display();
    let profiles =
        ["asks", "asks-elsewhere", "asks-other", "asks-server"].map(|name| format!("{{path: {path}/{name}}}"));
    (format!("{path}/asker.yaml"), profiles.join(", "))
}

/// From the command line.
pub(crate) fn asks_whom_policy_names_and_nobody_else(lab: &Lab, loaded: &Loaded<'_>, container: &str) {
    let image = format!("image/{}/lab/web:1", lab.var("REGISTRY"));
    let ways = ["--approach", "exec", "--approach", "image"];
    let scan = |ledger: &str, more: &[&str]| -> (String, Vec<Value>) {
        let ledger = loaded.file(ledger);
        let what = ["scan", &image, container, "cluster", "--bundle", NAME, "-e", "asker", "--ledger", &ledger];
        let ran = loaded.inside(&[&what[..], &ways, more].concat()).exits(3);
        let lines = lab.inside(&["export", "--format", "jsonl", "--ledger", &ledger]).exits(0).stdout;
        (ran.stderr, lines.lines().map(|line| serde_json::from_str(line).expect("each line is JSON")).collect())
    };
    let refused = |lines: &[Value], profile: &str, said: &str| {
        for control in CONTROLS {
            let found = outcome(lines, profile, control);
            assert!(found["reason"] == "egress-refused" && found.to_string().contains(said), "{said}: {found}");
        }
    };
    // Policy says nothing: nothing is run, and whoever reads the record knows what to decide on.
    let (_, lines) = scan("unasked.sqlite", &[]);
    refused(&lines, "asks", "has to talk to `page` (it serves the page)");
    refused(&lines, "asks", "--scanner-egress asker/page=NAMESPACE/SERVICE:PORT");
    refused(&lines, "asks-server", "`server`");
    let other = outcome(&lines, "asks-other", "answers");
    assert!(other.to_string().contains("has to talk to `other`"), "{other}");

    forged(lab, Path::new(&loaded.file("")));
    let grants = ["asker/page=shop/web:80", "asker/other=shop/forged:80", "asker/server=default/kubernetes:443"];
    let grants = grants.map(|grant| ["--scanner-egress", grant]).concat();
    let (said, lines) = scan("asked.sqlite", &grants);
    lab.kubectl(&["delete", "-n", "shop", "service/forged", "endpointslice/forged"]);
    // By its name, at the service's address; and to nobody else.
    for profile in ["asks", "asks-elsewhere"] {
        for control in ["named", "answers"] {
            let found = outcome(&lines, profile, control);
            assert_eq!(found["outcome"], "passed", "{found}\n{said}");
        }
        let task = task(&lines, profile);
        let notes = task["notes"].to_string();
        assert!(
            notes.contains("might talk to service `shop/web:80` (") && notes.contains("it serves the page"),
            "{notes}"
        );
        assert!(task["provenance"]["cleanup"]["created"].to_string().contains("-egress"), "{task}");
        assert!(task["provenance"]["cleanup"].get("remaining").is_none(), "{task}");
    }
    let quiet = outcome(&lines, "asks", "gapscan-network-silent");
    assert_eq!(quiet["outcome"], "passed", "{quiet}");
    let loud = outcome(&lines, "asks-elsewhere", "gapscan-network-silent");
    let registry = format!("tcp {}:5000", lab.var("LAB_NODE_IP"));
    assert_eq!((&loud["outcome"], &loud["details"][0]["subject"]), (&json!("failed"), &json!(registry)), "{loud}");
    assert_eq!(loud["details"].as_array().map(Vec::len), Some(1), "{loud}");
    assert!(loud["details"][0]["message"].to_string().contains("did not answer"), "{loud}");
    // What leads elsewhere than to pods of its namespace is not let through to, whoever says so.
    refused(&lines, "asks-other", "it selects no pods");
    refused(&lines, "asks-server", "it selects no pods");
}

/// What the plan of an installed runner says for it.
pub(crate) const POLICY: &str = "policy: {scannerEgress: {asker: {other: 'shop/web:80'}}}\n";

/// An installed runner, by the API server and to the service at once.
pub(crate) fn asks_when_installed(lines: &[Value]) {
    for control in CONTROLS {
        let found = outcome(lines, "asks-other", control);
        assert_eq!(found["outcome"], "passed", "{found}\n{}", task(lines, "asks-other"));
    }
    let task = task(lines, "asks-other");
    assert!(task["provenance"]["cleanup"].get("remaining").is_none(), "{task}");
}
