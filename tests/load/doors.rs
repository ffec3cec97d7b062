//! Registries that do not take everything from everybody.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};

use crate::enclave::{Enclave, Served, message, on_path, refused, success};

/// A CA that signs for both ends.
struct Ca {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Ca {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::<String>::new()).expect("parameters");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let pem = params.self_signed(&key).expect("a certificate").pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    /// Writes `NAME.crt` and `NAME.key`.
    fn issue(&self, folder: &Path, name: &str, usage: ExtendedKeyUsagePurpose) {
        let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).expect("parameters");
        params.extended_key_usages = vec![usage];
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        fs::write(folder.join(format!("{name}.crt")), certificate.pem()).expect("written");
        fs::write(folder.join(format!("{name}.key")), key.serialize_pem()).expect("written");
    }
}

/// Debian's registry, which asks every client for a certificate by this CA.
struct Demanding {
    process: Child,
    address: String,
}

impl Demanding {
    fn start(folder: &Path) -> Self {
        let free = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = free.local_addr().expect("an address").to_string();
        drop(free);
        let folder = folder.display();
        let configuration = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {folder}/demanding}}}}\nhttp:\n  \
             addr: {address}\n  secret: test\n  tls: {{certificate: {folder}/server.crt, key: {folder}/server.key, \
             clientcas: [{folder}/ca.crt]}}\n"
        );
        let path = PathBuf::from(format!("{folder}/demanding.yml"));
        fs::write(&path, configuration).expect("written");
        let process = Command::new("docker-registry")
            .arg("serve")
            .arg(path)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("it starts");
        let end = Instant::now() + Duration::from_secs(30);
        while TcpStream::connect(&address).is_err() {
            assert!(Instant::now() < end, "it does not listen");
            std::thread::yield_now();
        }
        Self { process, address }
    }
}

impl Drop for Demanding {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn a_registry_that_asks_for_a_certificate_is_loaded_into_with_one_and_not_without() {
    if !on_path("docker-registry") {
        return;
    }
    let enclave = Enclave::new(20_000);
    let folder = enclave.folder.path();
    let ca = Ca::new();
    fs::write(folder.join("ca.crt"), &ca.pem).expect("written");
    ca.issue(folder, "server", ExtendedKeyUsagePurpose::ServerAuth);
    ca.issue(folder, "client", ExtendedKeyUsagePurpose::ClientAuth);
    ca.issue(folder, "other", ExtendedKeyUsagePurpose::ClientAuth);
    Ca::new().issue(folder, "stranger", ExtendedKeyUsagePurpose::ClientAuth);
    let demanding = Demanding::start(folder);
    let load =
        |more: &[&str]| enclave.load_over_tls(&demanding.address, &[&["out.tar", "--ca", "ca.crt"], more].concat());

    let without = load(&[]);
    assert_eq!(without.status.code(), Some(5), "{}", message(&without));
    let stranger = load(&["--client-cert", "stranger.crt", "--client-key", "stranger.key"]);
    assert_eq!(stranger.status.code(), Some(5), "{}", message(&stranger));
    assert!(!folder.join("demanding/docker").exists(), "nothing was sent");
    // What can't be a certificate with its key is said before anybody is asked.
    let other = load(&["--client-cert", "client.crt", "--client-key", "other.key"]);
    assert_eq!(other.status.code(), Some(2), "{}", message(&other));
    refused(&load(&["--client-cert", "client.crt"]), 2, "--client-key");
    refused(&load(&["--client-cert", "client.key", "--client-key", "client.key"]), 2, "certificate");
    assert_eq!(load(&["--client-cert", "absent.crt", "--client-key", "client.key"]).status.code(), Some(5));

    let with = load(&["--client-cert", "client.crt", "--client-key", "client.key"]);
    success(&with);
    let tags = folder.join("demanding/docker/registry/v2/repositories/a/catalog/_manifests/tags");
    assert!(tags.join("content").exists() && tags.join("content.1").exists(), "{}", message(&with));
    // It is shown on every connection, also when all is there and read back.
    success(&load(&["--client-cert", "client.crt", "--client-key", "client.key", "--read-back", "all"]));
}

/// A file system of its own, of so many bytes.
struct Small(PathBuf);

impl Small {
    fn mount(path: PathBuf, size: &str) -> Option<Self> {
        fs::create_dir(&path).expect("a folder");
        let mounted = rustix::process::getuid().is_root()
            && Command::new("mount")
                .args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"])
                .arg(&path)
                .stderr(Stdio::null())
                .status()
                .is_ok_and(|status| status.success());
        if !mounted {
            println!("skipped: needs to mount a tmpfs");
        }
        mounted.then_some(Self(path))
    }

    fn grow(&self, size: &str) {
        let grown = Command::new("mount").args(["-o", &format!("remount,size={size}")]).arg(&self.0).status();
        assert!(grown.expect("mount runs").success());
    }

    /// The bytes of all files.
    fn used(&self) -> u64 {
        fn bytes(folder: &Path) -> u64 {
            let entries = fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry"));
            entries
                .map(|entry| match entry.file_type().expect("a type").is_dir() {
                    true => bytes(&entry.path()),
                    false => entry.metadata().map_or(0, |metadata| metadata.len()),
                })
                .sum()
        }
        bytes(&self.0)
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_registry_without_room_is_asked_before_anything_is_sent() {
    let enclave = Enclave::new(6 << 20);
    let Some(small) = Small::mount(enclave.path("small"), "8m") else { return };
    let served = Served::with(&small.0, &["--plain-http", "--reserve", "1"]);
    let load = |arguments: &[&str]| {
        let mut load = enclave.load_command_into(&served, &[&["out.tar", "-q"], arguments].concat());
        load.stdin(Stdio::null()).output().expect("gapscan runs")
    };
    let before = small.used();
    // 9 MiB of content, 8 MiB of disk, of which one is kept free.
    let full = load(&[]);
    refused(&full, 5, "are needed there and");
    assert!(message(&full).contains("are free"), "{}", message(&full));
    refused(&load(&["--dry-run"]), 5, "are needed there and");
    assert_eq!(small.used(), before, "nothing was sent");
    assert!(served.tags().values().all(Vec::is_empty));

    small.grow("16m");
    success(&load(&[]));
    // What is there needs no room again.
    small.grow(&format!("{}k", small.used() / 1024 + 1400));
    success(&load(&["--read-back", "all"]));
    drop(served);
}
