use std::path::Path;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::record::{Came, ENGINE, record};
use super::*;
use crate::base::text::printable;
use crate::model::outcome::{Outcome, Status};
use crate::model::record::TaskRecord;

const TOKEN: &str = "0123456789abcdef";

fn now() -> Timestamp {
    "2026-03-01T00:00:00Z".parse().expect("a time")
}

/// As Falco writes it.
fn alert(rule: &str, pod: Option<&str>, at: &str) -> Value {
    json!({
        "hostname": "node-1", "output": format!("{at}: Notice a shell (user=root \u{1b}[2J <b>)"), "priority": "Notice",
        "rule": rule, "source": "syscall", "tags": ["container", "T1059"], "time": at,
        "output_fields": {
            "container.id": "3ad7b26ded6d", "container.name": pod.map(|_| "web"), "evt.time": 1_507_591_916_991_165_u64,
            "k8s.ns.name": pod.map(|_| "shop"), "k8s.pod.name": pod, "proc.name": "bash", "user.name": "root",
        },
    })
}

fn lines(alerts: &[Value]) -> Vec<u8> {
    alerts.iter().map(|alert| format!("{alert}\n")).collect::<String>().into_bytes()
}

fn measure(profile: Option<crate::model::profile::Profile>) -> Measure {
    Measure { profile, keep: SignedDuration::from_hours(24), limits: Limits::default() }
}

fn latest(ledger: &Ledger) -> Vec<TaskRecord> {
    ledger.reader().latest().expect("results")
}

fn controls(record: &TaskRecord, status: Status) -> Vec<&str> {
    record.with_status(status).map(|finding| finding.control.as_str()).collect()
}

#[test]
fn an_alert_fails_its_rule_on_its_target_until_it_is_old_whatever_else_comes() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut ledger = Ledger::open(&folder.path().join("ledger"), now()).expect("a ledger");
    let measure = measure(None);
    let first = lines(&[
        alert("Shell in container", Some("web-1"), "2026-02-28T23:00:00Z"),
        alert("Shell in container", Some("web-1"), "2026-02-28T23:00:01Z"),
        alert("Odd host", None, "2026-02-28T23:30:00Z"),
        alert("From the future", Some("../x"), "2199-01-01T00:00:00Z"),
    ]);
    assert_eq!(record(RunId::new(), &first, &measure, &mut ledger, now()).expect("recorded"), Came::Whole);
    let records = latest(&ledger);
    let keys: Vec<String> = records.iter().map(|record| record.target.key()).collect();
    assert_eq!(keys, ["node/node-1", "pod/shop/web-1/web"], "what is no name names nobody");
    assert_eq!(controls(&records[1], Status::Failed), ["Shell_in_container"]);
    assert_eq!(records[1].findings[0].details.len(), 2);
    assert!(records.iter().all(|record| record.coverage.count(Status::Passed) == 0));
    assert!(records.iter().all(|record| record.notes.iter().any(|note| note.starts_with("self-declared"))));

    // Another rule takes nothing back.
    let second = lines(&[alert("Write below etc", Some("web-1"), "2026-03-01T01:00:00Z")]);
    let later = now() + SignedDuration::from_hours(2);
    assert_eq!(record(RunId::new(), &second, &measure, &mut ledger, later).expect("recorded"), Came::Whole);
    let records = latest(&ledger);
    assert_eq!(records.len(), 2, "the node's is still there");
    assert_eq!(controls(&records[1], Status::Failed).len(), 2);
    assert_eq!(records[1].evidence.len(), 1);

    // A day later the first is too old to count, and no pass for that.
    let third = lines(&[alert("Write below etc", Some("web-1"), "2026-03-02T00:30:00Z")]);
    let later = now() + SignedDuration::from_hours(25);
    assert_eq!(record(RunId::new(), &third, &measure, &mut ledger, later).expect("recorded"), Came::Whole);
    let newest = latest(&ledger).remove(1);
    assert_eq!(controls(&newest, Status::Failed), ["Write_below_etc"]);
    assert_eq!(newest.coverage.count(Status::Passed), 0);
    assert!(ledger.reader().verify().expect("verified").is_intact());
    assert!(ledger.reader().events().expect("events").is_empty(), "no clock was moved");
}

#[test]
fn a_rule_of_the_profile_without_an_alert_was_not_evaluated() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut ledger = Ledger::open(&folder.path().join("ledger"), now()).expect("a ledger");
    let control = crate::results::whole_control();
    let controls_of = ["a", "b"].map(|id| crate::model::control::Control { id: id.to_owned(), ..control.clone() });
    let profile = crate::model::profile::Profile {
        name: "rules".to_owned(),
        version: "1".to_owned(),
        title: String::new(),
        summary: String::new(),
        controls: controls_of.to_vec(),
    };
    let at = "2026-02-28T23:00:00Z";
    let lost = alert("Falco internal: syscall event drop", Some("web-1"), at);
    let batch = lines(&[alert("b", Some("web-1"), at), alert("c", Some("web-1"), at), lost]);
    assert_eq!(
        record(RunId::new(), &batch, &measure(Some(profile)), &mut ledger, now()).expect("recorded"),
        Came::Whole
    );
    let [newest] = &latest(&ledger)[..] else { panic!("one target") };
    assert_eq!(controls(newest, Status::Failed), ["b", "c"]);
    assert_eq!(controls(newest, Status::NotEvaluated), ["a", crate::results::WHOLE_CONTROL]);
    assert_eq!((newest.profile.name.as_str(), newest.provenance.engine.name.as_str()), ("rules", ENGINE));
}

#[test]
fn a_batch_that_was_recorded_by_halves_is_recorded_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("ledger");
    let at = "2026-02-28T23:00:00Z";
    let batch = lines(&[alert("a", Some("web-1"), at), alert("a", Some("web-2"), at)]);
    let run = RunId::new();
    let mut whole = Ledger::open(&folder.path().join("whole"), now()).expect("a ledger");
    assert_eq!(record(run, &batch, &measure(None), &mut whole, now()).expect("recorded"), Came::Whole);

    // As a process leaves it that dies after the first of two results.
    let mut ledger = Ledger::open(&path, now()).expect("a ledger");
    let start = whole.reader().run(run).expect("read").expect("a run").start;
    let profiles: Vec<_> =
        start.expected.iter().map(|task| whole.profile(&task.profile.digest).expect("read")).collect();
    let profiles: Vec<_> = profiles.into_iter().flatten().collect();
    ledger.begin_run(&start, &profiles).expect("begun");
    drop(ledger);
    let mut ledger = Ledger::open(&path, now()).expect("a ledger");
    for _ in 0..3 {
        assert_eq!(record(run, &batch, &measure(None), &mut ledger, now()).expect("gone on with"), Came::Whole);
    }
    assert_eq!(ledger.reader().runs(10).expect("runs").len(), 1);
    let tasks = ledger.reader().tasks_of(run).expect("results");
    assert_eq!(tasks.len(), 2);
    assert!(tasks.iter().all(|task| task.coverage.count(Status::Failed) == 1));
}

#[test]
fn a_batch_whose_run_somebody_closed_is_recorded_anew_and_no_alert_counts_twice() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("ledger");
    let mut ledger = Ledger::open(&path, now()).expect("a ledger");
    let journal = Journal::open(&super::folder(&path)).expect("a journal");
    let at = "2026-02-28T23:00:00Z";
    for pod in ["web-1", "web-2"] {
        journal.append(alert("a", Some(pod), at).to_string().as_bytes()).expect("kept");
    }
    let run = RunId::new();
    journal.seal(run).expect("sealed");
    let batch = journal.read(run).expect("a batch");
    // A first result was recorded, then a scan closed what was left of the run.
    let mut whole = Ledger::open(&folder.path().join("whole"), now()).expect("a ledger");
    assert_eq!(record(run, &batch, &measure(None), &mut whole, now()).expect("recorded"), Came::Whole);
    let start = whole.reader().run(run).expect("read").expect("a run").start;
    let profiles = start.expected.iter().map(|task| whole.profile(&task.profile.digest).expect("read").expect("there"));
    ledger.begin_run(&start, &profiles.collect::<Vec<_>>()).expect("begun");
    crate::stage::scan::account::close_interrupted(&mut ledger, now()).expect("closed");
    assert!(controls(&latest(&ledger)[0], Status::Failed).is_empty(), "what was missing was not evaluated");

    assert_eq!(record(run, &batch, &measure(None), &mut ledger, now()).expect("looked at"), Came::ByHalves);
    let anew = RunId::new();
    journal.rename(run, anew).expect("renamed");
    assert_eq!(journal.batches().expect("batches"), [anew]);
    for run in [anew, RunId::new()] {
        assert_eq!(record(run, &batch, &measure(None), &mut ledger, now()).expect("recorded"), Came::Whole);
        let records = latest(&ledger);
        assert_eq!(records.len(), 2);
        assert!(records.iter().all(|record| record.findings[0].details.len() == 1), "{records:?}");
    }
}

/// A server's certificate, a CA, and a client's certificate by that CA, in files.
struct Keys {
    ca: String,
    client: (Vec<u8>, Vec<u8>),
}

fn keys(folder: &Path) -> Keys {
    let mut params = CertificateParams::new(Vec::<String>::new()).expect("parameters");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("a CA");
    let issue = |name: &str| {
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(vec![name.to_owned()]).expect("parameters");
        (params.signed_by(&key, &ca).expect("a certificate"), key)
    };
    let (server, key) = issue("localhost");
    std::fs::write(folder.join("server.crt"), server.pem()).expect("written");
    std::fs::write(folder.join("server.key"), key.serialize_pem()).expect("written");
    std::fs::write(folder.join("ca.crt"), ca.pem()).expect("written");
    std::fs::write(folder.join("token"), format!("{TOKEN}\n")).expect("written");
    let (client, key) = issue("falco");
    Keys { ca: ca.pem(), client: (client.der().to_vec(), key.serialize_der()) }
}

fn connector(keys: &Keys, with_certificate: bool) -> TlsConnector {
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject as _;
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(keys.ca.as_bytes()).expect("a CA")).expect("added");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots);
    let config = match with_certificate {
        true => builder
            .with_client_auth_cert(
                vec![CertificateDer::from(keys.client.0.clone())],
                PrivateKeyDer::Pkcs8(keys.client.1.clone().into()),
            )
            .expect("a client"),
        false => builder.with_no_client_auth(),
    };
    TlsConnector::from(Arc::new(config))
}

/// The status of the answer to these bytes; 0 where none came.
async fn ask(at: SocketAddr, connector: &TlsConnector, request: &[u8]) -> u16 {
    let asked = async {
        let stream = TcpStream::connect(at).await.ok()?;
        let mut stream = connector.connect(ServerName::try_from("localhost").ok()?, stream).await.ok()?;
        stream.write_all(request).await.ok()?;
        let mut said = Vec::new();
        // What comes after the answer, or instead of a close, does not matter.
        let _ = stream.read_to_end(&mut said).await;
        String::from_utf8_lossy(&said).split(' ').nth(1)?.parse().ok()
    };
    asked.await.unwrap_or(0)
}

fn post(body: &[u8], authorization: &str) -> Vec<u8> {
    let length = body.len();
    let head = format!(
        "POST /alerts HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n{authorization}Content-Length: {length}\r\n\r\n"
    );
    [head.as_bytes(), body].concat()
}

fn plan(folder: &Path, token: bool, certificate: bool, rate: u32) -> FalcoIntake {
    FalcoIntake {
        address: "127.0.0.1:0".parse().expect("an address"),
        certificate_file: folder.join("server.crt"),
        key_file: folder.join("server.key"),
        client_ca_file: certificate.then(|| folder.join("ca.crt")),
        token_file: token.then(|| folder.join("token")),
        profile: None,
        keep: crate::base::quantity::Span::days(30),
        rate: rate.try_into().expect("not zero"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn alerts_come_over_tls_and_into_the_ledger_and_nothing_else_does() {
    let folder = tempfile::tempdir().expect("a folder");
    let keys = keys(folder.path());
    let mut ledger = Ledger::open(&folder.path().join("ledger"), Timestamp::now()).expect("a ledger");
    let intake = Intake::open(&plan(folder.path(), true, false, 1000), None, &ledger).await.expect("it listens");
    let (at, tls) = (intake.address(), connector(&keys, false));
    let bearer = format!("Authorization: Bearer {TOKEN}\r\n");
    let good = alert("Shell in container", Some("web-1"), "2026-01-01T00:00:00Z").to_string();
    assert_eq!(ask(at, &tls, &post(good.as_bytes(), &bearer)).await, 200);
    // As curl sends what is in a URL.
    let basic = "Authorization: Basic ZmFsY286MDEyMzQ1Njc4OWFiY2RlZg==\r\n";
    assert_eq!(ask(at, &tls, &post(good.as_bytes(), basic)).await, 200);

    let huge = format!("POST /alerts HTTP/1.1\r\nHost: x\r\n{bearer}Content-Length: 10000000000\r\n\r\n");
    let endless = format!("POST /alerts HTTP/1.1\r\nHost: x\r\n{bearer}Transfer-Encoding: chunked\r\n\r\n");
    let chunk = [b"10000\r\n".as_slice(), &[b' '; 0x10000], b"\r\n"].concat();
    let endless = [endless.as_bytes(), &chunk.repeat(5)].concat();
    let deep = "[".repeat(10_000);
    let two = format!("{good}{good}");
    let mut refused = 0;
    for (case, request, status) in [
        ("no token", post(good.as_bytes(), ""), 401),
        ("a wrong one", post(good.as_bytes(), "Authorization: Bearer 0123456789abcdee\r\n"), 401),
        ("another's JSON", post(b"{\"matches\":[]}", &bearer), 400),
        ("no UTF-8", post(b"{\"rule\":\"\xff\",\"priority\":\"x\",\"time\":1}", &bearer), 400),
        ("nothing", post(b"", &bearer), 400),
        ("deep", post(deep.as_bytes(), &bearer), 400),
        ("two at once", post(two.as_bytes(), &bearer), 400),
        ("a key twice", post(b"{\"rule\":\"a\",\"rule\":\"b\",\"priority\":\"x\",\"time\":1}", &bearer), 400),
        ("ten gigabytes", huge.into_bytes(), 413),
        ("a body without end", endless, 413),
        ("a question", format!("GET /alerts HTTP/1.1\r\nHost: x\r\n{bearer}\r\n").into_bytes(), 400),
    ] {
        assert_eq!(ask(at, &tls, &request).await, status, "{case}");
        refused += u64::from(status != 200);
    }
    // Without TLS there is nobody.
    let mut plain = TcpStream::connect(at).await.expect("it listens");
    plain.write_all(&post(good.as_bytes(), &bearer)).await.expect("sent");
    let mut said = Vec::new();
    let _ = plain.read_to_end(&mut said).await;
    assert!(!said.starts_with(b"HTTP"));

    // Not due yet, and recorded at the end.
    intake.record_due(&mut ledger, &Progress::quiet()).expect("looked");
    assert!(latest(&ledger).is_empty());
    intake.close(&mut ledger, &Progress::quiet()).await.expect("recorded");
    let [record] = &latest(&ledger)[..] else { panic!("one target") };
    assert_eq!(record.target.key(), "pod/shop/web-1/web");
    assert_eq!(record.findings[0].outcome, Outcome::Failed);
    assert_eq!(record.findings[0].details.len(), 2);
    let kept = ledger.reader().evidence(&record.evidence[0].digest).expect("read").expect("kept");
    assert_eq!(kept, format!("{good}\n").repeat(2).into_bytes(), "byte for byte");
    assert!(!printable(&record.findings[0].details[0].message).contains('\u{1b}'));
    let events = ledger.reader().events().expect("events");
    let told = events.iter().find(|event| event.what == "falco-refused").expect("it is told");
    assert!(told.detail.starts_with(&format!("{refused} requests were refused")), "{}", told.detail);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_needs_the_certificate_that_is_asked_for_and_a_flood_is_counted() {
    let folder = tempfile::tempdir().expect("a folder");
    let keys = keys(folder.path());
    let mut ledger = Ledger::open(&folder.path().join("ledger"), Timestamp::now()).expect("a ledger");
    let intake = Intake::open(&plan(folder.path(), false, true, 1), None, &ledger).await.expect("it listens");
    let at = intake.address();
    let request = post(alert("a", None, "2026-01-01T00:00:00Z").to_string().as_bytes(), "");
    assert_eq!(ask(at, &connector(&keys, false), &request).await, 0, "no handshake");
    let tls = connector(&keys, true);
    let mut answers = Vec::new();
    for _ in 0..25 {
        answers.push(ask(at, &tls, &request).await);
    }
    let (taken, flooded) = (
        answers.iter().filter(|status| **status == 200).count(),
        answers.iter().filter(|status| **status == 429).count(),
    );
    assert!(taken >= 10 && flooded > 0 && taken + flooded == 25, "{answers:?}");
    // A process that ends here has all that it answered.
    drop(intake);
    let next = Intake::open(&plan(folder.path(), false, true, 1), None, &ledger).await.expect("it listens");
    // It is recorded at once: a process that is killed within half a minute, again and again, loses none.
    next.record_due(&mut ledger, &Progress::quiet()).expect("recorded");
    let [record] = &latest(&ledger)[..] else { panic!("one target") };
    assert_eq!(record.findings[0].details.len(), taken);
    let events = ledger.reader().events().expect("events");
    assert_eq!(events.iter().filter(|event| event.what == "falco-refused").count(), 1, "{events:?}");
    next.close(&mut ledger, &Progress::quiet()).await.expect("closed");
}
