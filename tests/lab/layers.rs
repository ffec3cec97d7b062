//! Scanners that get an image as an archive: a stand-in for Clair looks at every byte of it, and the real Syft finds in it what it finds
//! in the same image as it is mounted.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use gapscan::base::digest::Digest;
use gapscan::ledger::LedgerReader;
use serde_json::{Value, json};

use crate::enclave::sources;
use crate::lab::lab;
use crate::scanners::{HEAD, Loaded, ended, image, profile, task, write};

/// What the stand-in makes sure of: the flags, the database, and that the archive is an OCI layout whose blobs have their digests and
/// whose manifest names no blob that is missing.
const CLAIR: &str = r#"[ "$1" = --version ] && { echo 'clair-action version v0.0.15 (claircore v1.5.53)'; exit 0; }
for o in report '--db-path=file:/clair-db/matcher.db?mode=ro&immutable=1' --format=clair; do case " $* " in *" $o "*) ;; *) r "$o" ;; esac; done
[ -f /clair-db/matcher.db ] || r database
[ "$HTTPS_PROXY" = http://127.0.0.1:9 ] || r proxy
for o; do case $o in --image-path=*) a=${o#--image-path=} ;; esac; done
mkdir "$TMPDIR/x" && cd "$TMPDIR/x" && tar -xf "$a" || r archive
[ "$(cat oci-layout)" = '{"imageLayoutVersion":"1.0.0"}' ] || r layout
for b in blobs/sha256/*; do [ "$(sha256sum <"$b")" = "${b##*/}  -" ] || r "$b"; done
m=$(grep -o 'sha256:[0-9a-f]*' index.json)
[ -f "blobs/sha256/${m#sha256:}" ] || r index
n=0
for d in $(grep -o 'sha256:[0-9a-f]*' "blobs/sha256/${m#sha256:}"); do [ -f "blobs/sha256/${d#sha256:}" ] || r "$d"; n=$((n + 1)); done
[ "$n" -ge 2 ] || r layers
touch /clair-db/x 2>/dev/null && r writable
sed "s/MANIFEST/$m/" /replay/clair.json"#;

/// Syft on the archive: as the shipped definition, with the other source.
const SYFT: &str = "apiVersion: gapscan/v1\nkind: Scanner\nname: syft-archive\ntitle: Syft on layers\nimage: syft\n\
    approaches:\n  image:\n    archive: {layers: [tar, gzip, zstd]}\n    command: [syft, scan, 'oci-archive:${target.archive}', \
    '--output=syft-json=${target.results}/syft.json']\n    env: {SYFT_CHECK_FOR_APP_UPDATE: 'false', HOME: /tmp, TMPDIR: /tmp, XDG_CACHE_HOME: /tmp, PATH: /bin}\n\
    result: {path: syft.json, format: syft, controls: inventory}\nexitCodes: {0: complete, 1: failed}\n\
    deadline: 5m\nmemory: 1Gi\ncpu: '1'\n";

/// A report of Clair's in its form: one high vulnerability of Debian's.
fn report() -> Value {
    let debian = json!({"id": "1", "did": "debian", "name": "Debian GNU/Linux", "version_id": "12"});
    json!({
        "manifest_hash": "MANIFEST",
        "packages": {"p": {"id": "p", "name": "libc6", "version": "2.36-9", "kind": "binary", "arch": "amd64"}},
        "distributions": {"1": debian},
        "repository": {}, "environments": {"p": [{"package_db": "var/lib/dpkg/status", "distribution_id": "1"}]},
        "vulnerabilities": {"v": {"id": "v", "updater": "debian/updater", "name": "CVE-2026-1", "severity": "high",
            "normalized_severity": "High", "fixed_in_version": "", "distribution": debian}},
        "package_vulnerabilities": {"p": ["v"]},
        "enrichments": {},
    })
}

/// The Debian packages, with versions, in the result of a scan by Syft.
fn packages(ledger: &str, task: &Value) -> BTreeSet<String> {
    let kept = task["evidence"].as_array().expect("evidence").iter().find(|e| e["name"] == "result").expect("a result");
    let digest: Digest = kept["digest"].as_str().expect("a digest").parse().expect("a digest");
    let reader = LedgerReader::open(Path::new(ledger)).expect("a ledger");
    let bytes = reader.evidence(&digest).expect("it can be read").expect("it is kept");
    let result: Value = serde_json::from_slice(&bytes).expect("Syft writes JSON");
    let artifacts = result["artifacts"].as_array().expect("artifacts").iter();
    artifacts.filter(|one| one["type"] == "deb").map(|one| format!("{} {}", one["name"], one["version"])).collect()
}

#[test]
fn a_scanner_of_layers_gets_them_whole() {
    let Some(lab) = lab() else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path();
    write(path, "replay/clair.json", report().to_string());
    write(path, "bin/clair-action", format!("{HEAD}{CLAIR}\n"));
    write(path, "clair-db/matcher.db", "nothing");
    let syft = std::env::var_os("GAPSCAN_TEST_SCANNERS").map(|folder| PathBuf::from(folder).join("syft"));
    let (script, replay) = (path.join("bin/clair-action"), path.join("replay/clair.json"));
    let mut files = vec![(script.as_path(), "/bin/clair-action"), (replay.as_path(), "/replay/clair.json")];
    files.extend(syft.iter().map(|syft| (syft.as_path(), "/bin/syft")));
    let tools = image(lab, path, "tools", &files);
    let shipped = sources().display();
    let mut images = format!("- {{name: clair, from: '{tools}'}}\n");
    let mut scanners = format!("- {shipped}/bundle/scanners/clair.yaml\n");
    let mut profiles = format!("- {{path: {shipped}/profiles-mirror/known-vulnerabilities-clair}}\n");
    if syft.is_some() {
        write(path, "syft-archive.yaml", SYFT);
        let inventory = ["software-inventory".to_owned()];
        profile(path, "inventory-of-layers", ("syft-archive", "image"), &inventory, "");
        images += &format!("- {{name: syft, from: '{tools}'}}\n");
        scanners += &format!("- {shipped}/bundle/scanners/syft.yaml\n- {}/syft-archive.yaml\n", path.display());
        profiles += &format!(
            "- {{path: {shipped}/profiles-mirror/software-inventory}}\n- {{path: {}/inventory-of-layers}}\n",
            path.display()
        );
    }
    let database = format!(
        "dependencies:\n- {{name: clair-db, from: 'dir:{}/clair-db', built: 2026-11-21T00:00:00Z, maxAge: 36500d}}\n",
        path.display()
    );
    let loaded = Loaded::new(lab, path, (&images, &scanners, &profiles), &database);
    let web = format!("image/{}/lab/web:1", lab.var("REGISTRY"));
    let engines: &[&str] =
        if syft.is_some() { &["-e", "clair", "-e", "syft", "-e", "syft-archive"] } else { &["-e", "clair"] };
    let (ran, lines) = loaded.scan("layers.sqlite", &[&[web.as_str()][..], engines].concat());

    let clair = task(&lines, "clair");
    assert_eq!(ended(&lines, "clair", "no-high-vulnerabilities"), "failed", "{}\n{clair}", ran.stderr);
    assert_eq!(ended(&lines, "clair", "no-critical-vulnerabilities"), "passed", "{clair}");
    for own in ["gapscan-target-read-whole", "gapscan-network-silent"] {
        assert_eq!(ended(&lines, "clair", own), "passed", "{clair}");
    }
    assert!(clair["notes"].to_string().contains("handed to the scanner as an archive"), "{clair}");
    assert_eq!(clair["provenance"]["approach"], "image-archive", "{clair}");
    assert_eq!(clair["provenance"]["engine"]["version"], "v0.0.15", "{clair}");
    assert!(clair["provenance"]["cleanup"].get("remaining").is_none(), "{clair}");
    let ledger = loaded.file("layers.sqlite");
    if syft.is_none() {
        println!("skipped: the rest needs syft (GAPSCAN_TEST_SCANNERS)");
        return;
    }
    let (mounted, archived) = (task(&lines, "syft"), task(&lines, "syft-archive"));
    assert_eq!(ended(&lines, "syft-archive", "software-inventory"), "passed", "{archived}");
    let found = packages(&ledger, archived);
    assert!(found.len() > 50, "{found:?}");
    assert_eq!(found, packages(&ledger, mounted));
}
