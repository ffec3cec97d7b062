use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;

use super::receive::Patience;
use super::*;
use crate::base::digest::Digest;
use crate::base::spool::Content as _;
use crate::cluster::agent::error::AgentError;
use crate::cluster::agent::parcel::Receiver;
use crate::cluster::agent::protocol::{
    ExitStatus, Header, RESULT, ResultState, STATUS, STATUS_FILE, STDERR, STDERR_TAIL, STDOUT, STDOUT_TAIL, Unreadable,
};
use crate::cluster::agent::run::{ResultAt, stamp};
use crate::cluster::agent::sockets::Sockets;
use crate::cluster::error::ClusterError;

const LIMIT: u64 = 200 << 20;

/// What a scanner left that ended, with a result of so many bytes.
struct Left {
    folder: TempDir,
    digest: Digest,
}

impl Left {
    fn new(bytes: usize) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let content: Vec<u8> = (0..bytes).map(|at| (at % 251) as u8).collect();
        let path = folder.path().join("result");
        std::fs::write(&path, &content).expect("written");
        let meta = std::fs::metadata(&path).expect("there");
        let header = Header {
            exit: ExitStatus::Exited { code: 0 },
            oom_killed: false,
            result: ResultState::Present { length: bytes as u64, stamp: stamp(&meta) },
            unreadable: Unreadable::default(),
            sockets: Sockets::default(),
        };
        std::fs::write(folder.path().join(STATUS_FILE), serde_json::to_vec(&header).expect("JSON")).expect("written");
        for tail in [STDOUT_TAIL, STDERR_TAIL] {
            std::fs::write(folder.path().join(tail), b"said").expect("written");
        }
        Self { digest: Digest::of(&content), folder }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn receiver(&self, limit: u64) -> Receiver {
        Receiver::new(&[(STATUS, 1 << 20), (RESULT, limit), (STDOUT, 100), (STDERR, 100)], self.path())
    }

    fn token(&self, text: &str) -> PathBuf {
        let path = self.path().join("token");
        std::fs::write(&path, text).expect("written");
        path
    }

    async fn send(&self, to: Destination) -> Result<(), AgentError> {
        let (spool, result) = (self.path().to_owned(), ResultAt::File(self.path().join("result")));
        tokio::task::spawn_blocking(move || to.send(&spool, &result, LIMIT)).await.expect("it does not panic")
    }
}

async fn uploads() -> Uploads {
    uploads_with(Patience::default()).await
}

async fn uploads_with(patience: Patience) -> Uploads {
    let here: SocketAddr = "127.0.0.1:0".parse().expect("an address");
    Uploads::open_with(here, patience).await.expect("a port")
}

fn destination(uploads: &Uploads, ticket: &Ticket, left: &Left) -> Destination {
    Destination {
        address: uploads.address(),
        id: ticket.id().to_owned(),
        pin: uploads.pin(),
        token: left.token(ticket.token()),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_result_arrives_as_it_was_and_its_token_is_dead() {
    let (uploads, left) = (uploads().await, Left::new(100 << 20));
    let mut ticket = uploads.expect(left.receiver(LIMIT)).expect("a ticket");
    let to = destination(&uploads, &ticket, &left);
    let (sent, arrived) = tokio::join!(left.send(to.clone()), ticket.arrived());
    sent.expect("it is taken");
    let mut parts = arrived.expect("it arrived").finish().expect("whole");
    let result = parts.take(RESULT).expect("a result");
    assert_eq!((result.length(), result.digest()), (100 << 20, left.digest));

    // A second time, while the scan goes on and when it is over.
    let again = left.send(to.clone()).await.expect_err("the token was used");
    assert!(chain(&again).contains("409"), "{}", chain(&again));
    assert!(ticket.refused().iter().any(|one| one.contains("second time")), "{:?}", ticket.refused());
    drop(ticket);
    let later = left.send(to).await.expect_err("the scan is over");
    assert!(chain(&later).contains("401"), "{}", chain(&later));
    assert_eq!(uploads.strangers(), 1);
    uploads.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_not_the_runner_gets_no_token_and_whoever_has_no_token_sends_nothing() {
    let (uploads, left) = (uploads().await, Left::new(1000));
    let mut ticket = uploads.expect(left.receiver(LIMIT)).expect("a ticket");
    let to = destination(&uploads, &ticket, &left);
    let wrong = Destination { pin: Digest::of("another certificate"), ..to.clone() };
    let error = left.send(wrong).await.expect_err("it is another certificate");
    assert!(chain(&error).contains("certificate"), "{}", chain(&error));
    assert!(ticket.refused().is_empty(), "it did not come so far");

    let other = Destination { token: left.path().join("other"), ..to.clone() };
    for token in ["", "x", &"0".repeat(64)] {
        std::fs::write(&other.token, token).expect("written");
        let error = left.send(other.clone()).await.expect_err("it is another token");
        assert!(chain(&error).contains("401"), "{}", chain(&error));
    }
    assert_eq!(ticket.refused().len(), 3, "{:?}", ticket.refused());
    // Nobody else's attempt takes the token's one use.
    let (sent, arrived) = tokio::join!(left.send(to), ticket.arrived());
    sent.expect("it is taken");
    arrived.expect("it arrived").finish().expect("whole");
}

#[tokio::test(flavor = "multi_thread")]
async fn too_much_is_refused_before_it_is_kept() {
    let (uploads, left) = (uploads().await, Left::new(1 << 20));
    let mut ticket = uploads.expect(left.receiver(1000)).expect("a ticket");
    let to = destination(&uploads, &ticket, &left);
    let (sent, arrived) = tokio::join!(left.send(to), ticket.arrived());
    sent.expect_err("it is not taken");
    let error = arrived.expect("something came").finish().err().expect("it is too much");
    assert!(matches!(error, ClusterError::OutputTooLarge { limit: 1000, .. }), "{error}");
}

/// Speaks to the runner by hand: the head, and then what the test says.
async fn by_hand(uploads: &Uploads, ticket: &Ticket, body: &[u8], after: After) -> String {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let to = Destination {
        address: uploads.address(),
        id: ticket.id().to_owned(),
        pin: uploads.pin(),
        token: PathBuf::new(),
    };
    let stream = tokio::net::TcpStream::connect(to.address).await.expect("connected");
    let config = send::configuration(to.pin).expect("a configuration");
    let connector = tokio_rustls::TlsConnector::from(config);
    let name = rustls::pki_types::ServerName::try_from(NAME).expect("a name");
    let mut stream = connector.connect(name, stream).await.expect("a handshake");
    let head = format!(
        "PUT {PATH}{} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\ncontent-length: 100000\r\n\r\n",
        ticket.id(),
        ticket.token()
    );
    stream.write_all(head.as_bytes()).await.expect("sent");
    stream.write_all(body).await.expect("sent");
    stream.flush().await.expect("sent");
    if after == After::Close {
        drop(stream);
        return String::new();
    }
    let mut said = Vec::new();
    let _ = stream.read_to_end(&mut said).await;
    String::from_utf8_lossy(&said).into_owned()
}

#[derive(PartialEq, Eq)]
enum After {
    Close,
    Wait,
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_and_a_slow_sender_bring_nothing() {
    let left = Left::new(10);
    let mut begun = Vec::new();
    writeln!(begun, "gapscan-parcel 1").expect("written");
    let quick = Patience { stall: Duration::from_millis(300), least: 64 << 10 };
    for (after, status) in [(After::Close, ""), (After::Wait, "408")] {
        let uploads = uploads_with(quick).await;
        let mut ticket = uploads.expect(left.receiver(LIMIT)).expect("a ticket");
        let said = by_hand(&uploads, &ticket, &begun, after).await;
        assert!(said.contains(status), "{said}");
        let error = ticket.arrived().await.expect("something came").finish().err().expect("it is not whole");
        assert!(matches!(error, ClusterError::OutputTruncated { .. }), "{error}");
        uploads.close().await;
    }
    // What is no parcel is refused at once.
    let uploads = uploads().await;
    let ticket = uploads.expect(left.receiver(LIMIT)).expect("a ticket");
    let said = by_hand(&uploads, &ticket, b"<html>\n", After::Wait).await;
    assert!(said.contains("400"), "{said}");
    // When the scan is over, its upload is broken off.
    let ticket = uploads.expect(left.receiver(LIMIT)).expect("a ticket");
    let id = ticket.id().to_owned();
    drop(ticket);
    assert!(!format!("{uploads:?}").contains(&id));
    uploads.close().await;
}

#[test]
fn neither_token_nor_pin_is_short() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let (uploads, left) = (uploads().await, Left::new(1));
        let one = uploads.expect(left.receiver(1)).expect("a ticket");
        let two = uploads.expect(left.receiver(1)).expect("a ticket");
        assert_eq!(one.token().len(), 64, "256 bits");
        assert!(one.token() != two.token() && one.id() != two.id());
        assert!(!format!("{one:?}").contains(one.token()));
    });
}

fn chain(error: &AgentError) -> String {
    let source = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
    format!("{error}: {source}")
}
