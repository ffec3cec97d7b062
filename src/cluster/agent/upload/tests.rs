use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;

use super::receive::Patience;
use super::*;
use crate::base::digest::Digest;
use crate::base::spool::Content as _;
use crate::base::tls::Verifier;
use crate::cluster::agent::error::AgentError;
use crate::cluster::agent::parcel::{Receiver, Sender};
use crate::cluster::agent::protocol::{
    ExitStatus, Header, RESULT, ResultState, STATUS, STATUS_FILE, STDERR, STDERR_TAIL, STDOUT, STDOUT_TAIL, Unreadable,
};
use crate::cluster::agent::run::{ResultAt, stamp};
use crate::cluster::agent::sockets::Sockets;
use crate::cluster::error::ClusterError;

const LIMIT: u64 = 200 << 20;

/// How long the agent goes on.
const HOLD: Duration = Duration::from_secs(60);

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
            version: None,
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

    fn receiver(&self, limit: u64) -> impl Fn() -> Receiver + Send + 'static {
        let path = self.path().to_owned();
        move || Receiver::new(&[(STATUS, 1 << 20), (RESULT, limit), (STDOUT, 100), (STDERR, 100)], &path)
    }

    fn token(&self, text: &str) -> PathBuf {
        let path = self.path().join("token");
        std::fs::write(&path, text).expect("written");
        path
    }

    async fn send(&self, to: Destination) -> Result<(), AgentError> {
        let (spool, result) = (self.path().to_owned(), ResultAt::File(self.path().join("result")));
        let sent = tokio::task::spawn_blocking(move || to.send(&spool, &result, LIMIT, HOLD));
        sent.await.expect("it does not panic")
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
    let mut parts = arrived.expect("it arrived whole");
    let result = parts.take(RESULT).expect("a result");
    assert_eq!((result.length(), result.digest()), (100 << 20, left.digest));

    // A second time, while the scan goes on and when it is over.
    let again = left.send(to.clone()).await.expect_err("the token was used");
    assert!(chain(&again).contains("410"), "{}", chain(&again));
    assert!(ticket.notes().iter().any(|one| one.contains("after its result")), "{:?}", ticket.notes());
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
    assert!(ticket.notes().is_empty(), "it did not come so far");

    let other = Destination { token: left.path().join("other"), ..to.clone() };
    for token in ["", "x", &"0".repeat(64)] {
        std::fs::write(&other.token, token).expect("written");
        let error = left.send(other.clone()).await.expect_err("it is another token");
        assert!(chain(&error).contains("401"), "{}", chain(&error));
    }
    assert_eq!(ticket.notes().len(), 3, "{:?}", ticket.notes());
    // Nobody else's attempt takes the token's one use.
    let (sent, arrived) = tokio::join!(left.send(to), ticket.arrived());
    sent.expect("it is taken");
    arrived.expect("it arrived whole");
}

#[tokio::test(flavor = "multi_thread")]
async fn too_much_is_refused_before_it_is_kept() {
    let (uploads, left) = (uploads().await, Left::new(1 << 20));
    let mut ticket = uploads.expect(left.receiver(1000)).expect("a ticket");
    let to = destination(&uploads, &ticket, &left);
    let (sent, arrived) = tokio::join!(left.send(to), ticket.arrived());
    sent.expect_err("it is not taken");
    let error = arrived.err().expect("it is too much");
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
    let config = Verifier::pinned(to.pin).client().expect("a configuration");
    let connector = tokio_rustls::TlsConnector::from(config);
    let name = rustls::pki_types::ServerName::try_from(NAME).expect("a name");
    let mut stream = connector.connect(name, stream).await.expect("a handshake");
    let length = if after == After::End { body.len() } else { 100_000 };
    let head = format!(
        "PUT {PATH}{} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\ncontent-length: {length}\r\n\r\n",
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
    /// The connection is closed before the body's end.
    Close,
    /// Nothing more comes of the body.
    Wait,
    /// It was all.
    End,
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_and_a_slow_sender_bring_nothing_and_leave_the_token_good() {
    let left = Left::new(10);
    let mut begun = Vec::new();
    writeln!(begun, "gapscan-parcel 1").expect("written");
    let quick = Patience { stall: Duration::from_millis(300), least: 64 << 10 };
    for (after, status, word) in [(After::Close, "", "broke off"), (After::Wait, "408", "too slow")] {
        let uploads = uploads_with(quick).await;
        let mut ticket = uploads.expect(left.receiver(LIMIT)).expect("a ticket");
        let said = by_hand(&uploads, &ticket, &begun, after).await;
        assert!(said.contains(status), "{said}");
        // Who comes while the runner has not yet noticed is told so, and comes again.
        let to = destination(&uploads, &ticket, &left);
        let (sent, arrived) = tokio::join!(left.send(to), ticket.arrived());
        sent.expect("it is taken");
        arrived.expect("it arrived whole");
        assert!(ticket.notes().iter().any(|note| note.contains(word)), "{:?}", ticket.notes());
        assert!(ticket.broken().is_none(), "what broke off was mended");
        uploads.close().await;
    }
    // When the scan is over, its upload is broken off.
    let uploads = uploads().await;
    let ticket = uploads.expect(left.receiver(LIMIT)).expect("a ticket");
    let id = ticket.id().to_owned();
    drop(ticket);
    assert!(!format!("{uploads:?}").contains(&id));
    uploads.close().await;
}

/// A parcel that is whole for its connection, and whose result is not what its last line says.
fn damaged() -> Vec<u8> {
    let mut parcel = Vec::new();
    let mut sender = Sender::begin(&mut parcel).expect("begun");
    sender.add(RESULT, b"what was found").expect("added");
    sender.end().expect("ended");
    let at = parcel.windows(5).position(|part| part == b"found").expect("it is there");
    parcel[at] = b'b';
    parcel
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_upload_is_refused_and_may_come_again_but_not_for_ever() {
    let (uploads, left) = (uploads().await, Left::new(10));
    // One, and then the agent's own.
    let mut ticket = uploads.expect(left.receiver(LIMIT)).expect("a ticket");
    let said = by_hand(&uploads, &ticket, &damaged(), After::End).await;
    assert!(said.contains("400"), "{said}");
    assert!(ticket.broken().is_some_and(|error| error.to_string().contains("another digest")), "{:?}", ticket.notes());
    let to = destination(&uploads, &ticket, &left);
    let (sent, arrived) = tokio::join!(left.send(to), ticket.arrived());
    sent.expect("it is taken");
    arrived.expect("it arrived whole");

    // What is no parcel is refused before its end; and the third is the last.
    let mut ticket = uploads.expect(left.receiver(LIMIT)).expect("a ticket");
    let said = by_hand(&uploads, &ticket, b"<html>\n", After::Wait).await;
    assert!(said.contains("400"), "{said}");
    for status in ["400", "422"] {
        let said = by_hand(&uploads, &ticket, &damaged(), After::End).await;
        assert!(said.contains(status), "{said}");
    }
    let error = ticket.arrived().await.err().expect("it is damaged");
    assert!(matches!(&error, ClusterError::OutputTruncated { detail } if detail.contains("another digest")), "{error}");
    let said = by_hand(&uploads, &ticket, &damaged(), After::End).await;
    assert!(said.contains("410"), "{said}");
    uploads.close().await;
}

/// What becomes of the first connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// It is cut after so many bytes from the agent.
    CutAfter(u64),
    /// After so many bytes from the agent nothing of what the runner says gets through, to its end.
    DeafAfter(u64),
}

/// Between agent and runner: the first connection has this fate, and all others none.
async fn network(runner: SocketAddr, fate: Fate) -> SocketAddr {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        let mut fate = Some(fate);
        while let Ok((near, _)) = listener.accept().await {
            let fate = fate.take();
            tokio::spawn(async move {
                let far = tokio::net::TcpStream::connect(runner).await.expect("the runner listens");
                let ((mut near_in, mut near_out), (mut far_in, mut far_out)) = (near.into_split(), far.into_split());
                let passed = std::sync::atomic::AtomicU64::new(0);
                let up = async {
                    let mut buffer = vec![0; 16 << 10];
                    while let Ok(read @ 1..) = near_in.read(&mut buffer).await {
                        let so_far = passed.fetch_add(read as u64, std::sync::atomic::Ordering::Relaxed);
                        if matches!(fate, Some(Fate::CutAfter(bytes)) if so_far >= bytes) {
                            return;
                        }
                        if far_out.write_all(&buffer[..read]).await.is_err() {
                            return;
                        }
                    }
                };
                let down = async {
                    let mut buffer = vec![0; 16 << 10];
                    while let Ok(read @ 1..) = far_in.read(&mut buffer).await {
                        let so_far = passed.load(std::sync::atomic::Ordering::Relaxed);
                        let is_deaf = matches!(fate, Some(Fate::DeafAfter(bytes)) if so_far >= bytes);
                        if !is_deaf && near_out.write_all(&buffer[..read]).await.is_err() {
                            break;
                        }
                    }
                };
                // Whoever ends first ends both, as a connection does that breaks.
                tokio::select! {
                    () = up => {}
                    () = down => {}
                }
            });
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_broke_off_is_sent_again_and_a_lost_answer_loses_nothing() {
    const BYTES: usize = 8 << 20;
    let left = Left::new(BYTES);
    for fate in [Fate::CutAfter(3 << 20), Fate::CutAfter(0), Fate::DeafAfter(BYTES as u64)] {
        let uploads = uploads().await;
        let mut ticket = uploads.expect(left.receiver(LIMIT)).expect("a ticket");
        let address = network(uploads.address(), fate).await;
        let to = Destination { address, ..destination(&uploads, &ticket, &left) };
        let (sent, arrived) = tokio::join!(left.send(to.clone()), ticket.arrived());
        sent.unwrap_or_else(|error| panic!("{fate:?}: {}", chain(&error)));
        let result = arrived.expect("it arrived whole").take(RESULT).expect("a result");
        assert_eq!((result.length(), result.digest()), (BYTES as u64, left.digest), "{fate:?}");
        let notes = ticket.notes().join("; ");
        match fate {
            Fate::CutAfter(0) => assert_eq!(notes, "", "it did not come so far"),
            Fate::CutAfter(_) => assert!(notes.contains("broke off") || notes.contains("ended after"), "{notes}"),
            // The agent came again, and was told.
            Fate::DeafAfter(_) => assert!(notes.contains("after its result"), "{notes}"),
        }
        // Mended or not, it can't be used again.
        let replayed = left.send(to).await.expect_err("the token was used");
        assert!(chain(&replayed).contains("410"), "{}", chain(&replayed));
        uploads.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_reaches_nobody_gives_up_when_its_time_is_over() {
    let left = Left::new(10);
    let gone = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port").local_addr().expect("an address");
    let to = Destination { address: gone, id: "0".to_owned(), pin: Digest::of("nobody's"), token: left.token("x") };
    let (spool, result) = (left.path().to_owned(), ResultAt::File(left.path().join("result")));
    let began = std::time::Instant::now();
    // Long enough for the first pause, and not for the second.
    let patience = Duration::from_millis(1200);
    let sent = tokio::task::spawn_blocking(move || to.send(&spool, &result, LIMIT, patience)).await;
    let error = sent.expect("it does not panic").expect_err("nobody is there");
    assert!(chain(&error).contains("refused"), "{}", chain(&error));
    assert!(began.elapsed() >= Duration::from_millis(500), "it tried again");
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
