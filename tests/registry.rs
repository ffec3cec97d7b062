//! The embedded registry as a process: with other people's tools, and killed.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use gapscan::base::digest::Digest;
use gapscan::registry::{Blob, Client, ClientConfig, Repository, Transport};
use tokio::io::AsyncReadExt;

struct Served {
    process: Child,
    address: String,
}

impl Served {
    fn start(data: &Path) -> Self {
        Self::with(data, &[])
    }

    fn with(data: &Path, options: &[&str]) -> Self {
        let mut process = Command::new(env!("CARGO_BIN_EXE_gapscan"))
            .args(["registry", "serve", "--listen", "127.0.0.1:0", "--data"])
            .arg(data)
            .args(options)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("it starts");
        let mut line = String::new();
        BufReader::new(process.stdout.take().expect("a pipe")).read_line(&mut line).expect("its address");
        let address = line.trim().split_once("://").expect("an address").1.to_owned();
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
        let blob = Blob { repository: &repository, digest: &digest, size: content.len() as u64 };
        client.push_stream(blob, content.as_slice(), None, None).await.expect("acknowledged");
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

/// `gapscan scan` of an image into a ledger; gives the exit code and the lines of its export.
fn scan_image(reference: &str, ca: &Path, ledger: &Path) -> (Option<i32>, Vec<serde_json::Value>) {
    let gapscan = |arguments: &[&std::ffi::OsStr]| {
        Command::new(env!("CARGO_BIN_EXE_gapscan")).args(arguments).output().expect("gapscan runs")
    };
    let target = format!("image/{reference}");
    let scan = gapscan(&[
        "scan".as_ref(),
        target.as_ref(),
        "--ca".as_ref(),
        ca.as_ref(),
        "--ledger".as_ref(),
        ledger.as_ref(),
    ]);
    let export =
        gapscan(&["export".as_ref(), "--format".as_ref(), "jsonl".as_ref(), "--ledger".as_ref(), ledger.as_ref()]);
    assert!(export.status.success(), "{}", String::from_utf8_lossy(&export.stderr));
    let lines = String::from_utf8(export.stdout).expect("text");
    (scan.status.code(), lines.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect())
}

#[tokio::test]
async fn an_image_whose_facts_are_in_the_ledger_is_not_read_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("registry");
    let served = Served::start(&data);
    let client = served.client(&data);
    let repository: Repository = "some/image".parse().expect("a name");
    let layout = folder.path().join("layout");
    write_layout(&layout);
    for blob in std::fs::read_dir(layout.join("blobs/sha256")).expect("a folder") {
        let bytes = std::fs::read(blob.expect("an entry").path()).expect("read");
        let digest = Digest::of(&bytes);
        let blob = Blob { repository: &repository, digest: &digest, size: bytes.len() as u64 };
        client.push_stream(blob, bytes.as_slice(), None, None).await.expect("pushed");
    }
    let index: serde_json::Value =
        serde_json::from_slice(&std::fs::read(layout.join("index.json")).expect("an index")).expect("JSON");
    let manifest: Digest = index["manifests"][0]["digest"].as_str().expect("a digest").parse().expect("a digest");
    let bytes = std::fs::read(layout.join("blobs/sha256").join(manifest.hex())).expect("the manifest");
    let media_type = "application/vnd.oci.image.manifest.v1+json";
    let tag = gapscan::registry::ManifestName::Tag("1".parse().expect("a tag"));
    client.push_manifest(&repository, &tag, media_type, &bytes).await.expect("pushed");

    let reference = format!("{}/some/image:1", served.address);
    let (ca, ledger) = (data.join("tls/ca.crt"), folder.path().join("ledger.sqlite"));
    let verdicts = |lines: &[serde_json::Value]| -> Vec<(String, String)> {
        let findings = lines.iter().filter(|line| line["type"] == "finding");
        findings.map(|line| (line["control"].to_string(), line["outcome"].to_string())).collect()
    };
    let (code, first) = scan_image(&reference, &ca, &ledger);
    let first = verdicts(&first);
    assert!(first.iter().any(|(_, outcome)| outcome.contains("passed")), "{first:?}");
    // From now on nobody can read its layers, and only who asks for them notices.
    let kept = data.join("repositories/some/image/_blobs").join(Digest::of([0; 1024]).hex());
    std::fs::remove_file(&kept).expect("the layer was there");
    let (again, lines) = scan_image(&reference, &ca, &ledger);
    assert_eq!((again, verdicts(&lines)), (code, first));
    let says = |lines: &[serde_json::Value]| lines.iter().any(|line| line.to_string().contains("not read again"));
    assert!(says(&lines), "the record says where the facts are from");
    let (_, lines) = scan_image(&reference, &ca, &folder.path().join("other.sqlite"));
    assert!(!says(&lines) && verdicts(&lines).iter().all(|(_, outcome)| outcome.contains("not-evaluated")));
}

#[test]
fn a_terminated_server_ends_in_good_order_and_a_folder_in_use_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut served = Served::start(folder.path());
    // Collecting needs the folder alone, too.
    let gc = Command::new(env!("CARGO_BIN_EXE_gapscan"))
        .args(["registry", "gc", "--data"])
        .arg(folder.path())
        .output()
        .expect("it runs");
    assert_eq!(gc.status.code(), Some(5));
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
    let gc = Command::new(env!("CARGO_BIN_EXE_gapscan"))
        .args(["registry", "gc", "-o", "json", "--dry-run", "--data"])
        .arg(folder.path())
        .output()
        .expect("it runs");
    assert_eq!(gc.status.code(), Some(0));
    let counts: serde_json::Value = serde_json::from_slice(&gc.stdout).expect("JSON");
    assert_eq!(counts["bytes"], 0);
}

/// Prints a token for a repository with the folder's key.
fn token(data: &Path, repository: &str, options: &[&str]) -> String {
    let printed = Command::new(env!("CARGO_BIN_EXE_gapscan"))
        .args(["registry", "token", "--repository", repository, "--data"])
        .arg(data)
        .args(options)
        .output()
        .expect("it runs");
    assert!(printed.status.success(), "{}", String::from_utf8_lossy(&printed.stderr));
    String::from_utf8(printed.stdout).expect("text").trim().to_owned()
}

#[test]
fn skopeo_and_crane_read_one_repository_with_a_token_and_write_none() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("registry");
    let password = folder.path().join("password");
    std::fs::write(&password, "s3cr3t\n").expect("written");
    let served = Served::with(&data, &["--username", "kim", "--password-file", password.to_str().expect("text")]);
    let layout = folder.path().join("layout");
    write_layout(&layout);
    let ca = data.join("tls/ca.crt");
    let certificates = folder.path().join("certificates");
    std::fs::create_dir(&certificates).expect("a folder");
    std::fs::copy(&ca, certificates.join("ca.crt")).expect("copied");
    let web = token(&data, "images/web", &["--for", "10m"]);
    let image = |name: &str| format!("{}/images/{name}:1", served.address);

    let secret: serde_json::Value = serde_json::from_str(&token(
        &data,
        "images/web",
        &["-o", "secret", "--server", &served.address, "--namespace", "scans"],
    ))
    .expect("JSON");
    assert_eq!(secret["type"], "kubernetes.io/dockerconfigjson");
    let config = base64::Engine::decode(
        &base64::engine::general_purpose::STANDARD,
        secret["data"][".dockerconfigjson"].as_str().expect("a text"),
    )
    .expect("base64");
    let docker = folder.path().join("docker");
    std::fs::create_dir(&docker).expect("a folder");
    std::fs::write(docker.join("config.json"), config).expect("written");

    if on_path("skopeo") {
        let skopeo = |arguments: &[&str]| {
            let mut command = Command::new("skopeo");
            command.args(["copy", "--quiet", "--insecure-policy", "--preserve-digests"]).args(arguments);
            command.stderr(Stdio::null()).status().expect("skopeo runs").success()
        };
        let certificates = certificates.to_str().expect("text");
        let local = format!("oci:{}:1", layout.display());
        let out = |name: &str| format!("oci:{}:1", folder.path().join(name).display());
        let remote = |name: &str| format!("docker://{}", image(name));
        for name in ["web", "db"] {
            let options = ["--dest-cert-dir", certificates, "--dest-creds", "kim:s3cr3t"];
            assert!(skopeo(&[&options[..], &[&local, &remote(name)]].concat()));
        }
        let creds = format!("token:{web}");
        let read = ["--src-cert-dir", certificates, "--src-creds", &creds];
        assert!(skopeo(&[&read[..], &[&remote("web"), &out("one")]].concat()));
        assert!(!skopeo(&[&read[..], &[&remote("db"), &out("two")]].concat()));
        let write = ["--dest-cert-dir", certificates, "--dest-creds", &creds];
        assert!(!skopeo(&[&write[..], &[&local, &remote("web")]].concat()));
        let auth_file = docker.join("config.json");
        let read = ["--src-cert-dir", certificates, "--src-authfile", auth_file.to_str().expect("text")];
        assert!(skopeo(&[&read[..], &[&remote("web"), &out("three")]].concat()));
    }
    if on_path("crane") && on_path("skopeo") {
        let crane = |arguments: &[&str]| {
            let mut command = Command::new("crane");
            command.args(arguments).env("SSL_CERT_FILE", &ca).env("DOCKER_CONFIG", &docker);
            command.stdout(Stdio::null()).stderr(Stdio::null()).status().expect("crane runs").success()
        };
        assert!(crane(&["manifest", &image("web")]));
        assert!(!crane(&["manifest", &image("db")]));
        assert!(!crane(&["tag", &image("web"), "2"]));
        assert!(!crane(&["delete", &image("web")]));
    }
}

#[test]
fn who_has_no_folder_gets_a_token_from_the_registry_itself() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("registry");
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).expect("written");
        path.to_str().expect("text").to_owned()
    };
    let password = file("password", "s3cr3t\n");
    let served = Served::with(&data, &["--username", "kim", "--password-file", &password]);
    let ca = data.join("tls/ca.crt");
    let ask = |registry: &str, arguments: &[&str]| {
        Command::new(env!("CARGO_BIN_EXE_gapscan"))
            .args(["registry", "token", "--repository", "images/web", "--registry", registry])
            .args(arguments)
            .env("DOCKER_CONFIG", folder.path())
            .output()
            .expect("it runs")
    };
    let ca = ca.to_str().expect("text");
    let as_kim = ["--ca", ca, "--username", "kim", "--password-file", &password];
    let printed = ask(&served.address, &as_kim);
    assert!(printed.status.success(), "{printed:?}");
    let token = String::from_utf8(printed.stdout).expect("text").trim().to_owned();
    assert!(token.starts_with("gapscan1.") && printed.stderr.is_empty(), "{token}");

    // As the manifest of a secret, for as long as was asked for; the registry is named as it was asked.
    let secret = ask(&served.address, &[&as_kim[..], &["-o", "secret", "--for", "2h"]].concat());
    let secret: serde_json::Value = serde_json::from_slice(&secret.stdout).expect("JSON");
    let config = base64::Engine::decode(
        &base64::engine::general_purpose::STANDARD,
        secret["data"][".dockerconfigjson"].as_str().expect("a text"),
    )
    .expect("base64");
    let config: serde_json::Value = serde_json::from_slice(&config).expect("JSON");
    assert_eq!(config["auths"][&served.address]["username"], "token");

    // Whoever has a token gives on as much of it, and no more, and for no longer.
    let limited = file("token", &token);
    let as_holder = ["--ca", ca, "--username", "token", "--password-file", &limited];
    let given = ask(&served.address, &[&as_holder[..], &["--for", "30d"]].concat());
    assert!(given.status.success() && String::from_utf8_lossy(&given.stderr).contains("none for longer"), "{given:?}");
    let more = ask(&served.address, &[&as_holder[..], &["--repository", "images/db"]].concat());
    assert!(!more.status.success() && more.stdout.is_empty(), "{more:?}");
    let wrong = file("wrong", "wrong");
    let wrong = ask(&served.address, &["--ca", ca, "--username", "kim", "--password-file", &wrong]);
    assert!(!wrong.status.success() && wrong.stdout.is_empty(), "{wrong:?}");

    // A registry that asks nobody has nothing to give, and says so instead of printing something.
    let open = Served::with(&folder.path().join("open"), &["--plain-http"]);
    let none = ask(&open.address, &["--plain-http", "--username", "kim", "--password-file", &password]);
    assert_eq!(none.status.code(), Some(4), "{none:?}");
    assert!(none.stdout.is_empty() && String::from_utf8_lossy(&none.stderr).contains("gives none that may only read"));
    let both = ask(&served.address, &["--data", data.to_str().expect("text")]);
    assert_eq!(both.status.code(), Some(2), "{both:?}");
    let nameless = Command::new(env!("CARGO_BIN_EXE_gapscan"))
        .args(["registry", "token", "--repository", "images/web", "-o", "secret", "--data"])
        .arg(&data)
        .output()
        .expect("it runs");
    assert_eq!(nameless.status.code(), Some(2), "{nameless:?}");
    assert!(String::from_utf8_lossy(&nameless.stderr).contains("--server"));
}

/// What a client was told is stored: contents by digest, and manifests by repository and tag.
#[derive(Default)]
struct Acknowledged {
    blobs: Vec<(Digest, Vec<u8>)>,
    tags: Vec<(String, Digest, String)>,
}

/// Numbers that look random, the same at every run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % below
    }

    fn bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| (self.roll(256)) as u8).collect()
    }
}

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// Pushes images until the server is gone, and notes what it acknowledged.
async fn push_until_killed(http: reqwest::Client, url: String, pusher: u64, noted: Arc<Mutex<Acknowledged>>) {
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15 ^ (pusher + 1));
    for number in 0_u64.. {
        let mut parts = Vec::new();
        for part in 0..3 {
            let length = if part == 0 { 64 } else { dice.roll(400_000) as usize };
            let content = dice.bytes(length);
            let digest = Digest::of(&content);
            let target = match part {
                2 => {
                    let Ok(open) = http.post(format!("{url}/v2/a/b/blobs/uploads/")).send().await else { return };
                    let location = open.headers()["location"].to_str().expect("text").to_owned();
                    http.put(format!("{url}{location}?digest={digest}"))
                }
                _ => http.post(format!("{url}/v2/a/b/blobs/uploads/?digest={digest}")),
            };
            let Ok(answer) = target.body(content.clone()).send().await else { return };
            assert_eq!(answer.status(), 201);
            parts.push(serde_json::json!({ "mediaType": "x", "digest": digest, "size": length }));
            noted.lock().expect("no panic").blobs.push((digest, content));
        }
        let manifest = serde_json::json!({
            "schemaVersion": 2, "mediaType": MANIFEST, "config": parts[0], "layers": &parts[1..],
        })
        .to_string();
        let tag = format!("p{pusher}-{number}");
        let put = http.put(format!("{url}/v2/a/b/manifests/{tag}")).header("content-type", MANIFEST);
        let Ok(answer) = put.body(manifest.clone()).send().await else { return };
        assert_eq!(answer.status(), 201);
        noted.lock().expect("no panic").tags.push((tag, Digest::of(&manifest), manifest));
    }
}

/// That every name in the folder names content which is what it says, and every tag a manifest.
fn check_store(data: &Path) {
    let names = |folder: PathBuf| -> Vec<String> {
        std::fs::read_dir(folder).map_or_else(
            |_| Vec::new(),
            |entries| {
                entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect()
            },
        )
    };
    let repository = data.join("repositories/a/b");
    for kind in ["_blobs", "_manifests"] {
        for hex in names(repository.join(kind)).into_iter().filter(|name| !name.starts_with('.')) {
            let content = std::fs::read(data.join("blobs/sha256").join(&hex[..2]).join(&hex)).expect("content");
            assert_eq!(Digest::of(content).hex(), hex);
        }
    }
    for tag in names(repository.join("_tags")).into_iter().filter(|name| !name.starts_with('.')) {
        let digest: Digest =
            std::fs::read_to_string(repository.join("_tags").join(tag)).expect("a tag").parse().expect("a digest");
        assert!(repository.join("_manifests").join(digest.hex()).is_file());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_server_that_is_killed_again_and_again_loses_nothing_it_acknowledged() {
    const ROUNDS: u64 = 24;
    let folder = tempfile::tempdir().expect("a folder");
    let noted = Arc::new(Mutex::new(Acknowledged::default()));
    let mut kept = Acknowledged::default();
    let mut dice = Dice(42);
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    for round in 0..=ROUNDS {
        check_store(folder.path());
        // It collects all the time, too.
        let served = Served::with(folder.path(), &["--plain-http", "--gc-every", "0s"]);
        let url = format!("http://{}", served.address);
        let http = reqwest::Client::builder().no_proxy().build().expect("a client");
        let Acknowledged { blobs, tags } = std::mem::take(&mut *noted.lock().expect("no panic"));
        // What is new; in the end all of it.
        let new = if round == ROUNDS { 0 } else { kept.blobs.len() };
        kept.blobs.extend(blobs);
        kept.tags.extend(tags);
        for (digest, content) in &kept.blobs[new..] {
            let answer = http.get(format!("{url}/v2/a/b/blobs/{digest}")).send().await.expect("an answer");
            assert_eq!(answer.status(), 200, "round {round}: {digest}");
            assert!(answer.bytes().await.expect("whole") == content);
        }
        for (tag, digest, manifest) in &kept.tags {
            let answer = http.get(format!("{url}/v2/a/b/manifests/{tag}")).send().await.expect("an answer");
            assert_eq!(answer.status(), 200, "round {round}: {tag}");
            assert_eq!(answer.headers()["docker-content-digest"], digest.to_string());
            assert_eq!(answer.text().await.expect("whole"), *manifest);
        }
        if round == ROUNDS {
            println!("{} blobs and {} manifests in {ROUNDS} rounds", kept.blobs.len(), kept.tags.len());
            assert!(!kept.tags.is_empty(), "the test tested something");
            served.kill();
            break;
        }
        let pushers: Vec<_> = (0..4)
            .map(|pusher| {
                let noted = noted.clone();
                tokio::spawn(push_until_killed(http.clone(), url.clone(), round * 4 + pusher, noted))
            })
            .collect();
        tokio::time::sleep(Duration::from_micros(20_000 + dice.roll(400_000))).await;
        served.kill();
        for pusher in pushers {
            pusher.await.expect("it ended with the server");
        }
    }
    check_store(folder.path());
}
