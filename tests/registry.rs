//! The embedded registry as a process: with other people's tools, and killed.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use gapscan::base::digest::Digest;
use gapscan::registry::{Client, ClientConfig, Repository, Transport};
use tokio::io::AsyncReadExt;

struct Served {
    process: Child,
    address: String,
}

impl Served {
    fn start(data: &Path) -> Self {
        let mut process = Command::new(env!("CARGO_BIN_EXE_gapscan"))
            .args(["registry", "serve", "--listen", "127.0.0.1:0", "--data"])
            .arg(data)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("it starts");
        let mut line = String::new();
        BufReader::new(process.stdout.take().expect("a pipe")).read_line(&mut line).expect("its address");
        let address = line.trim().strip_prefix("https://").expect("with TLS").to_owned();
        Self { process, address }
    }

    fn client(&self, data: &Path) -> Client {
        let ca = std::fs::read(data.join("tls/ca.crt")).expect("the CA");
        let registry = self.address.parse().expect("an address");
        Client::new(ClientConfig { transport: Transport::TlsWithCa(ca), ..ClientConfig::new(registry) })
            .expect("a client")
    }

    fn kill(mut self) {
        self.process.kill().expect("killed");
        self.process.wait().expect("gone");
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn on_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let there = std::env::split_paths(&path).any(|folder| folder.join(program).is_file());
    if !there {
        println!("skipped: needs {program}");
    }
    there
}

#[tokio::test]
async fn what_was_acknowledged_survives_a_kill() {
    let folder = tempfile::tempdir().expect("a folder");
    let repository: Repository = "a/b".parse().expect("a name");
    let mut kept = Vec::new();
    for round in 0..4_u8 {
        let served = Served::start(folder.path());
        let client = served.client(folder.path());
        for (digest, content) in &kept {
            let mut read = Vec::new();
            let content: &Vec<u8> = content;
            client
                .blob(&repository, digest, content.len() as u64)
                .await
                .expect("there")
                .read_to_end(&mut read)
                .await
                .expect("whole");
            assert_eq!(&read, content);
        }
        let content = vec![round; 300_000];
        let digest = Digest::of(&content);
        client.push_blob(&repository, &digest, content.len() as u64, content.as_slice()).await.expect("acknowledged");
        kept.push((digest, content));
        served.kill();
    }
}

#[tokio::test]
async fn skopeo_copies_in_and_out() {
    if !on_path("skopeo") {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("registry");
    let served = Served::start(&data);
    let layout = folder.path().join("layout");
    write_layout(&layout);
    let certificates = folder.path().join("certificates");
    std::fs::create_dir(&certificates).expect("a folder");
    std::fs::copy(data.join("tls/ca.crt"), certificates.join("ca.crt")).expect("copied");
    let out = folder.path().join("out");
    let remote = format!("docker://{}/some/image:1", served.address);
    let local = |path: &Path| format!("oci:{}:1", path.display());
    for (from, to, flag) in
        [(local(&layout), remote.clone(), "--dest-cert-dir"), (remote, local(&out), "--src-cert-dir")]
    {
        let status = Command::new("skopeo")
            .args(["copy", "--quiet", "--insecure-policy", "--preserve-digests", flag])
            .arg(&certificates)
            .args([from, to])
            .status()
            .expect("skopeo runs");
        assert!(status.success());
    }
    let digests = |layout: &Path| {
        let index: serde_json::Value =
            serde_json::from_slice(&std::fs::read(layout.join("index.json")).expect("an index")).expect("JSON");
        index["manifests"][0]["digest"].clone()
    };
    assert_eq!(digests(&layout), digests(&out), "byte for byte");
}

fn write_layout(layout: &Path) {
    let blobs = layout.join("blobs/sha256");
    std::fs::create_dir_all(&blobs).expect("a folder");
    let put = |media_type: &str, bytes: &[u8]| {
        let digest = Digest::of(bytes);
        std::fs::write(blobs.join(digest.hex()), bytes).expect("written");
        serde_json::json!({ "mediaType": media_type, "digest": digest, "size": bytes.len() })
    };
    let layer_bytes = [0; 1024];
    let layer = put("application/vnd.oci.image.layer.v1.tar", &layer_bytes);
    let config = serde_json::json!({
        "architecture": "amd64", "os": "linux",
        "rootfs": { "type": "layers", "diff_ids": [Digest::of(layer_bytes)] },
    });
    let config = put("application/vnd.oci.image.config.v1+json", config.to_string().as_bytes());
    let media_type = "application/vnd.oci.image.manifest.v1+json";
    let manifest =
        serde_json::json!({ "schemaVersion": 2, "mediaType": media_type, "config": config, "layers": [layer] });
    let mut manifest = put(media_type, manifest.to_string().as_bytes());
    manifest["annotations"] = serde_json::json!({ "org.opencontainers.image.ref.name": "1" });
    let index = serde_json::json!({ "schemaVersion": 2, "manifests": [manifest] });
    std::fs::write(layout.join("index.json"), index.to_string()).expect("written");
    std::fs::write(layout.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).expect("written");
}

#[test]
fn a_terminated_server_ends_in_good_order_and_a_folder_in_use_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut served = Served::start(folder.path());
    let second = Command::new(env!("CARGO_BIN_EXE_gapscan"))
        .args(["registry", "serve", "--listen", "127.0.0.1:0", "--data"])
        .arg(folder.path())
        .output()
        .expect("it runs");
    assert_eq!(second.status.code(), Some(5));
    assert!(String::from_utf8_lossy(&second.stderr).contains("another process"));
    let pid = rustix::process::Pid::from_child(&served.process);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("signalled");
    assert_eq!(served.process.wait().expect("ended").code(), Some(0));
}
