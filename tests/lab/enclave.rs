//! One bundle, built, carried and loaded once for all tests: OpenSCAP, Grype with its database, and the builtin profiles.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use serde_json::Value;

use crate::lab::{Lab, Ran};

pub(crate) const BUNDLE: &str = "lab";

pub(crate) struct Enclave {
    pub(crate) path: PathBuf,
}

/// The enclave after the bundle crossed the gap.
pub(crate) fn enclave(lab: &'static Lab) -> &'static Enclave {
    static ENCLAVE: OnceLock<Enclave> = OnceLock::new();
    ENCLAVE.get_or_init(|| {
        // Nothing that is static is dropped at the end, and a bundle has hundreds of megabytes: it makes way for the next one.
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("lab");
        if path.exists() {
            fs::remove_dir_all(&path).expect("the folder of an earlier run is removed");
        }
        fs::create_dir_all(&path).expect("a folder");
        let enclave = Enclave { path };
        enclave.prepare(lab);
        enclave
    })
}

/// The folder of the sources, for profiles and scanners.
pub(crate) fn sources() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

impl Enclave {
    fn prepare(&self, lab: &Lab) {
        lab.outside(&["trust", "init", &self.file("trust"), "--unencrypted"]).exits(0);
        lab.control(&["grype-db", &self.file("grype-db")]);
        self.write_definition("bundle.yaml", 1, &self.definition(lab));
        self.build(lab, "bundle.yaml", "bundle.tar");
        self.load_from_pipe(lab, "bundle.tar").exits(0);
    }

    /// What is in the bundle, besides its head.
    pub(crate) fn definition(&self, lab: &Lab) -> String {
        let upstream = lab.var("UPSTREAM");
        let sources = sources().display();
        let profiles: String = [
            "host-baseline",
            "container-baseline",
            "image-baseline",
            "cluster-baseline",
            "debian12-standard",
            "known-vulnerabilities",
        ]
        .iter()
        .map(|name| format!("- {{path: {sources}/profiles-mirror/{name}}}\n"))
        .collect();
        format!(
            "registries: {{'{upstream}': {{caFile: {ca}}}}}\n\
             images:\n- {{name: openscap, from: '{upstream}/lab/openscap:1'}}\n- {{name: grype, from: '{upstream}/lab/grype:1'}}\n\
             scanners:\n- {sources}/bundle/scanners/openscap.yaml\n- {sources}/bundle/scanners/grype.yaml\n\
             profiles:\n{profiles}\
             dependencies:\n- {{name: grype-db, from: 'dir:{db}', maxAge: 30d}}\n",
            ca = lab.ca().display(),
            db = self.file("grype-db/cache"),
        )
    }

    pub(crate) fn write_definition(&self, name: &str, version: u64, content: &str) {
        let head = format!("apiVersion: gapscan/v1\nkind: Bundle\nname: {BUNDLE}\nversion: {version}\nvalidFor: 30d\n");
        fs::write(self.path.join(name), head + content).expect("the definition is written");
    }

    pub(crate) fn build(&self, lab: &Lab, definition: &str, tar: &str) {
        let definition = self.file(definition);
        lab.outside(&["bundle", "lock", "-f", &definition]).exits(0);
        lab.outside(&["bundle", "build", "-f", &definition, "--keys", &self.file("trust"), "-o", &self.file(tar)])
            .exits(0);
    }

    pub(crate) fn load_from_pipe(&self, lab: &Lab, tar: &str) -> Ran {
        lab.inside_from(
            &self.path.join(tar),
            &[
                "load",
                "-",
                "--root",
                &self.file("trust/root.json"),
                "--registry",
                &self.registry(lab),
                "--ca",
                &lab.ca().display().to_string(),
                "--state",
                &self.file("state"),
            ],
        )
    }

    /// The registry and prefix that the bundle was loaded into. Several who share one lab have prefixes of their own.
    pub(crate) fn registry(&self, lab: &Lab) -> String {
        let prefix = std::env::var("GAPSCAN_TEST_PREFIX").unwrap_or_else(|_| "gapscan".to_owned());
        format!("{}/{prefix}", lab.var("REGISTRY"))
    }

    pub(crate) fn file(&self, name: &str) -> String {
        self.path.join(name).display().to_string()
    }

    /// `gapscan scan` in the enclave with the bundle.
    pub(crate) fn scan_arguments(&self, lab: &Lab, ledger: &str, arguments: &[&str]) -> Vec<String> {
        let registry = self.registry(lab);
        let ca = lab.ca().display().to_string();
        ["scan", "--bundle", BUNDLE, "--registry", &registry, "--ca", &ca, "--root", &self.file("trust/root.json")]
            .into_iter()
            .chain(["--state", &self.file("state"), "--ledger", &self.file(ledger)])
            .chain(arguments.iter().copied())
            .map(str::to_owned)
            .collect()
    }

    pub(crate) fn scan(&self, lab: &Lab, ledger: &str, arguments: &[&str]) -> Ran {
        let arguments = self.scan_arguments(lab, ledger, arguments);
        lab.inside(&arguments.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// All lines of the JSON lines export of the latest results.
    pub(crate) fn lines(&self, lab: &Lab, ledger: &str) -> Vec<Value> {
        let ran = lab.inside(&["export", "--format", "jsonl", "--ledger", &self.file(ledger)]).exits(0);
        ran.stdout.lines().map(|line| serde_json::from_str(line).expect("each line is JSON")).collect()
    }
}

/// The findings of one control on targets whose key begins so.
pub(crate) fn findings<'a>(lines: &'a [Value], target: &str, control: &str) -> Vec<&'a Value> {
    lines
        .iter()
        .filter(|l| l["type"] == "finding" && l["control"] == control)
        .filter(|l| l["target"].as_str().is_some_and(|t| t.starts_with(target)))
        .collect()
}

/// Whether every finding on targets whose key begins so was not evaluated for one of these reasons, and there is one.
#[track_caller]
pub(crate) fn assert_not_evaluated(lines: &[Value], target: &str, reasons: &[&str]) {
    let found: Vec<&Value> = lines
        .iter()
        .filter(|l| l["type"] == "finding" && l["target"].as_str().is_some_and(|t| t.starts_with(target)))
        .collect();
    assert!(!found.is_empty(), "nothing is recorded of {target}");
    for line in found {
        assert_eq!(line["outcome"], "not-evaluated", "{line}");
        assert!(line["reason"].as_str().is_some_and(|r| reasons.contains(&r)), "{line}");
    }
}
