//! What `bundle mapping` prints, read by the programs that it is for.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use gapscan::base::digest::Digest;
use serde_json::json;

use crate::enclave::{Enclave, Served, message, on_path, success};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// An OCI layout with one image under the tag `1`; gives the digest of its manifest.
fn layout(folder: &Path) -> Digest {
    let blobs = folder.join("blobs/sha256");
    fs::create_dir_all(&blobs).expect("a folder");
    let put = |media_type: &str, bytes: &[u8]| {
        let digest = Digest::of(bytes);
        fs::write(blobs.join(digest.hex()), bytes).expect("written");
        json!({ "mediaType": media_type, "digest": digest, "size": bytes.len() })
    };
    let layer_bytes = [0; 1024];
    let layer = put("application/vnd.oci.image.layer.v1.tar", &layer_bytes);
    let config = json!({
        "architecture": "amd64", "os": "linux",
        "rootfs": { "type": "layers", "diff_ids": [Digest::of(layer_bytes)] },
    });
    let config = put("application/vnd.oci.image.config.v1+json", config.to_string().as_bytes());
    let manifest =
        json!({ "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": [layer] }).to_string();
    let mut described = put(MANIFEST, manifest.as_bytes());
    described["annotations"] = json!({ "org.opencontainers.image.ref.name": "1" });
    fs::write(folder.join("index.json"), json!({ "schemaVersion": 2, "manifests": [described] }).to_string())
        .expect("written");
    fs::write(folder.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).expect("written");
    Digest::of(manifest)
}

#[test]
fn skopeo_finds_upstream_names_in_the_enclave_by_the_printed_configuration() {
    if !on_path("skopeo") {
        return;
    }
    let enclave = Enclave::new(100);
    let digest = layout(&enclave.path("layout"));
    // Upstream is there while the bundle is built, and gone after that.
    let upstream = Served::start(&enclave.path("upstream"));
    let name = format!("{}/team/web", upstream.address);
    let pushed = Command::new("skopeo")
        .args(["copy", "--quiet", "--insecure-policy", "--preserve-digests", "--dest-tls-verify=false"])
        .args([format!("oci:{}:1", enclave.path("layout").display()), format!("docker://{name}:1")])
        .output()
        .expect("skopeo runs");
    success(&pushed);
    let more = format!(
        "registries: {{'{}': {{plainHttp: true}}}}\nimages:\n- {{name: web, from: '{name}:1'}}\n",
        upstream.address
    );
    enclave.build(2, &more, "web.tar");
    drop(upstream);

    let data = enclave.path("closed");
    let closed = Served::with(&data, &[]);
    let ca = data.join("tls/ca.crt");
    success(&enclave.load_over_tls(&closed.address, &["web.tar", "--ca", ca.to_str().expect("text")]));
    let registry = format!("{}/a", closed.address);
    let printed = enclave.gapscan(&[
        "bundle",
        "mapping",
        "web.tar",
        "--root",
        "trust/root.json",
        "--registry",
        &registry,
        "--print",
        "containers-registries",
    ]);
    success(&printed);
    enclave.write("registries.conf", &printed.stdout);
    enclave.write("none.conf", b"");
    enclave.write("certificates/ca.crt", &fs::read(&ca).expect("the CA"));
    let inspect = |configuration: &str, image: &str| -> Output {
        Command::new("skopeo")
            .arg("--registries-conf")
            .arg(enclave.path(configuration))
            .args(["inspect", "--raw", "--cert-dir"])
            .arg(enclave.path("certificates"))
            .arg(format!("docker://{image}"))
            .stdin(Stdio::null())
            .output()
            .expect("skopeo runs")
    };
    let by_digest = format!("{name}@{digest}");
    let found = inspect("registries.conf", &by_digest);
    assert!(found.status.success(), "{}", message(&found));
    assert_eq!(Digest::of(&found.stdout), digest, "byte for byte what was upstream");
    // It is the file that does it, for what was signed, and for nothing else.
    assert!(!inspect("none.conf", &by_digest).status.success());
    assert!(!inspect("registries.conf", &format!("{name}:1")).status.success(), "a tag is nothing that was signed");
    assert!(!inspect("registries.conf", &format!("{name}@{}", Digest::of("other"))).status.success());
}
