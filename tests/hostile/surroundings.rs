//! The fourth section, as far as it is about what lies around: folders that somebody prepared, a registry that repeats what
//! it was told, a server that speaks a protocol of long ago. (What a registry may do to the client is in
//! `src/registry/client/tests.rs`, and to a load in `src/stage/load/tests.rs`.)

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex};

use serde_json::json;

use crate::attack::{chain, good, verify, verify_file};
use crate::base::digest::Digest;
use crate::metadata::Layout;
use crate::trust::remembered::Remembered;

/// Whoever can write into the folder of the state must not reach files elsewhere through it.
#[test]
fn staging_directory_pre_seeded_with_symlinks() {
    let good = good();
    for name in ["sample.json", "ROOT", "LOCK"] {
        for there in [true, false] {
            let folder = tempfile::tempdir().expect("a folder");
            let state = folder.path().join("state");
            let remembered = Remembered::in_folder(&state);
            let proof = verify(&good.bytes, &good.sample.root, &remembered, good.sample.now).expect("a good bundle");
            // The lineage is the digest of the first root, which is the pinned one here.
            let lineage = state.join(good.sample.root.fingerprint().hex());
            fs::create_dir_all(&lineage).expect("a folder");
            let precious = folder.path().join("precious");
            if there {
                fs::write(&precious, "precious").expect("a file");
            }
            symlink(&precious, lineage.join(name)).expect("a link");
            let done = proof.remember();
            match there {
                true => assert_eq!(fs::read_to_string(&precious).expect("it is there"), "precious", "{name}"),
                false => assert!(!precious.exists(), "{name}: {done:?}"),
            }
        }
    }
}

/// Answers like a registry that sends back whatever it is told, and keeps what it was told.
fn echoing(answer: impl Fn(&str) -> String + Send + 'static) -> (u16, Arc<Mutex<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("its address").port();
    let heard = Arc::new(Mutex::new(String::new()));
    let told = heard.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { break };
            let request = request(&mut stream);
            told.lock().expect("nobody panics in here").push_str(&request);
            let _ = stream.write_all(answer(&request).as_bytes());
        }
    });
    (port, heard)
}

fn request(stream: &mut TcpStream) -> String {
    let mut text = Vec::new();
    let mut byte = [0];
    while !text.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|count| count == 1) {
        text.push(byte[0]);
    }
    String::from_utf8_lossy(&text).into_owned()
}

fn load(port: u16, folder: &Path) -> Output {
    let good = good();
    let path = |name: &str| folder.join(name).display().to_string();
    fs::write(path("good.tar"), &good.bytes).expect("a file");
    fs::write(path("root.json"), good.sample.root.bytes()).expect("a file");
    fs::write(path("password"), "s3cr3t-pass\n").expect("a file");
    Command::new(env!("CARGO_BIN_EXE_gapscan"))
        .args(["load", &path("good.tar"), "--root", &path("root.json"), "--state", &path("state"), "--plain-http"])
        .args(["--registry", &format!("127.0.0.1:{port}/enclave"), "--username", "kim"])
        .args(["--password-file", &path("password")])
        .env("GAPSCAN_LOG", "trace")
        .output()
        .expect("gapscan runs")
}

/// Neither the password, nor what it is sent as, nor a token is shown, even at GAPSCAN_LOG=trace and when the registry repeats
/// the request in its answer.
#[test]
fn secrets_in_errors_and_logs() {
    // "kim:s3cr3t-pass" in base64
    const BASIC: &str = "a2ltOnMzY3IzdC1wYXNz";
    let close = "connection: close\r\ncontent-length";
    let basic = move |request: &str| match request.to_lowercase().contains("authorization: basic") {
        true => format!("HTTP/1.1 400 Bad Request\r\n{close}: {}\r\n\r\n{request}", request.len()),
        false => format!("HTTP/1.1 401 Unauthorized\r\nwww-authenticate: Basic realm=\"r\"\r\n{close}: 0\r\n\r\n"),
    };
    let bearer = move |request: &str| {
        let host = request.lines().find_map(|l| l.to_lowercase().strip_prefix("host: ").map(str::to_owned));
        let host = host.unwrap_or_default();
        if request.starts_with("GET /token") {
            let body = "{\"token\":\"t0k3n-s3cr3t\"}";
            format!("HTTP/1.1 200 OK\r\n{close}: {}\r\n\r\n{body}", body.len())
        } else if request.contains("t0k3n-s3cr3t") {
            format!("HTTP/1.1 403 Forbidden\r\n{close}: {}\r\n\r\n{request}", request.len())
        } else {
            let realm = format!("Bearer realm=\"http://{host}/token\",service=\"r\"");
            format!("HTTP/1.1 401 Unauthorized\r\nwww-authenticate: {realm}\r\n{close}: 0\r\n\r\n")
        }
    };
    for (what, (port, heard), sent) in [("basic", echoing(basic), BASIC), ("bearer", echoing(bearer), "t0k3n-s3cr3t")] {
        let folder = tempfile::tempdir().expect("a folder");
        let output = load(port, folder.path());
        let heard = heard.lock().expect("nobody panics in here").clone();
        assert!(heard.contains(sent), "{what}: the secret was sent, or this shows nothing: {heard}");
        assert!(!output.status.success());
        let shown = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(shown.contains("the registry"), "{what}: something is said: {shown}");
        // What carries the requests has its say, or it would show nothing that no secret is in it.
        let logged = shown.lines().any(|line| line.contains(" TRACE hyper_util::client"));
        assert!(logged, "{what}: nothing is logged: {shown}");
        for secret in ["s3cr3t-pass", BASIC, "t0k3n-s3cr3t"] {
            let at = shown.find(secret);
            assert!(at.is_none(), "{what}: {secret} is shown: {}", &shown[at.unwrap_or(0).saturating_sub(300)..]);
        }
    }
}

/// A layer that says where else it can be had (as Windows' base layers did) is taken from the bundle or not at all.
#[test]
fn urls_of_a_foreign_layer_are_never_fetched() {
    let elsewhere = TcpListener::bind("127.0.0.1:0").expect("a port");
    elsewhere.set_nonblocking(true).expect("it can be asked");
    let url = format!("http://{}/layer", elsewhere.local_addr().expect("its address"));
    let good = good();
    let foreign = "application/vnd.oci.image.layer.nondistributable.v1.tar";
    let of = |digest: Option<Digest>| {
        let mut layout = Layout::new();
        layout.image("images/foreign", |image| {
            let layer = &mut image["layers"][0];
            layer["urls"] = json!([url]);
            if let Some(digest) = digest {
                layer["mediaType"] = json!(foreign);
                layer["digest"] = json!(digest);
            }
        });
        layout.bytes(good)
    };
    let (root, now, nothing) = (&good.sample.root, good.sample.now, Remembered::nothing());
    let (there, absent) = (of(None), of(Some(Digest::of(b"elsewhere"))));
    for verify in [verify, verify_file] {
        verify(&there, root, &nothing, now).expect("the layer is in the bundle");
        let error = verify(&absent, root, &nothing, now).expect_err("the layer is not in the bundle");
        assert!(chain(&error).contains("which is not in the bundle"), "{}", chain(&error));
    }
    let asked = elsewhere.accept().expect_err("nobody asks elsewhere");
    assert_eq!(asked.kind(), std::io::ErrorKind::WouldBlock);
}

/// A server that speaks nothing newer than TLS 1.1 is not spoken to, though its certificate is good.
#[test]
fn tls_1_1() {
    if !Command::new("openssl").arg("version").output().is_ok_and(|o| o.status.success()) {
        println!("skipped: needs openssl");
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name).display().to_string();
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).expect("a certificate");
    fs::write(path("cert.pem"), made.cert.pem()).expect("a file");
    fs::write(path("key.pem"), made.signing_key.serialize_pem()).expect("a file");
    let port = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a free port").port();
    let mut server = Command::new("openssl")
        .args(["s_server", "-accept", &format!("127.0.0.1:{port}"), "-www", "-tls1_1", "-cipher", "ALL:@SECLEVEL=0"])
        .args(["-cert", &path("cert.pem"), "-key", &path("key.pem")])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("openssl");
    // It listens before it accepts; until then nobody is there.
    while TcpStream::connect(("127.0.0.1", port)).is_err() && server.try_wait().is_ok_and(|end| end.is_none()) {
        std::thread::yield_now();
    }
    fs::write(path("good.tar"), &good().bytes).expect("a file");
    fs::write(path("root.json"), good().sample.root.bytes()).expect("a file");
    let output = Command::new(env!("CARGO_BIN_EXE_gapscan"))
        .args(["load", &path("good.tar"), "--root", &path("root.json"), "--state", &path("state")])
        .args(["--registry", &format!("127.0.0.1:{port}/enclave"), "--ca", &path("cert.pem")])
        .output()
        .expect("gapscan runs");
    let _ = server.kill();
    let _ = server.wait();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "{said}");
    assert!(said.contains("ProtocolVersion"), "it is the protocol that is refused: {said}");
}
