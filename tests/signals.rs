//! The first signal drains, the second one ends what runs; either way everything that was expected is in the ledger.

use std::io::{BufRead, BufReader, Lines, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;

use gapscan::ledger::LedgerReader;
use gapscan::model::outcome::Outcome;
use gapscan::model::record::RunEnd;

/// A registry that answers nothing until it is told to, and then that there is no such image.
struct Registry {
    address: SocketAddr,
    asked: Receiver<String>,
    gate: Arc<(Mutex<bool>, Condvar)>,
}

impl Registry {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("it has an address");
        let (tell, asked) = channel();
        let gate = Arc::new((Mutex::new(false), Condvar::new()));
        let door = Arc::clone(&gate);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (tell, door) = (tell.clone(), Arc::clone(&door));
                thread::spawn(move || answer(stream, &tell, &door));
            }
        });
        Self { address, asked, gate }
    }

    fn open(&self) {
        *self.gate.0.lock().expect("nobody panicked with it") = true;
        self.gate.1.notify_all();
    }
}

fn answer(mut stream: TcpStream, tell: &Sender<String>, (open, opened): &(Mutex<bool>, Condvar)) {
    let mut request = Vec::new();
    let mut byte = [0];
    while !request.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|count| count == 1) {
        request.push(byte[0]);
    }
    // When the test is over nobody asks for it any more.
    let _ = tell.send(String::from_utf8_lossy(&request).lines().next().unwrap_or_default().to_owned());
    let guard = open.lock().expect("nobody panicked with it");
    let _guard = opened.wait_while(guard, |open| !*open).expect("nobody panicked with it");
    let _ = stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
}

struct Scan {
    child: Child,
    said: Lines<BufReader<ChildStderr>>,
    ledger: PathBuf,
}

impl Scan {
    /// Two images of this registry, one after the other.
    fn start(folder: &Path, registry: &Registry) -> Self {
        let ledger = folder.join("ledger.sqlite");
        let image = |name: &str| format!("image/{}/{name}:1", registry.address);
        let mut child = Command::new(env!("CARGO_BIN_EXE_gapscan"))
            .args(["scan", "--plain-http", "--parallel", "1", "--ledger"])
            .arg(&ledger)
            .args([image("first"), image("second")])
            .env_remove("DOCKER_CONFIG")
            .env("HOME", folder)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("gapscan runs");
        let said = BufReader::new(child.stderr.take().expect("it is piped")).lines();
        Self { child, said, ledger }
    }

    /// Sends SIGTERM, and waits until gapscan says that it heard it.
    fn tell(&mut self, answer: &str) {
        let killed = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status().expect("kill runs");
        assert!(killed.success());
        let heard = self.said.by_ref().map(|line| line.expect("a line")).find(|line| line.contains(answer));
        assert!(heard.is_some(), "it ended without saying {answer:?}");
    }

    /// Why nothing of each target was evaluated, when it has ended.
    fn reasons(mut self) -> Vec<(String, String)> {
        self.said.by_ref().for_each(drop);
        assert_eq!(self.child.wait().expect("it ends").code(), Some(3));
        let reader = LedgerReader::open(&self.ledger).expect("the ledger is there");
        assert!(reader.verify().expect("the ledger can be checked").is_intact());
        let runs = reader.runs(10).expect("runs");
        assert_eq!(
            runs.iter().map(|run| run.end.as_ref().map(|end| end.end)).collect::<Vec<_>>(),
            [Some(RunEnd::Drained)]
        );
        let tasks = reader.tasks_of(runs[0].start.run).expect("tasks");
        assert_eq!(tasks.len(), runs[0].start.expected.len(), "each expected task has one record");
        let mut reasons: Vec<(String, String)> = tasks
            .iter()
            .map(|task| match &task.findings[0].outcome {
                Outcome::NotEvaluated { reason, .. } => {
                    let key = task.target.key();
                    let name = key.rsplit('/').next().unwrap_or_default().to_owned();
                    (name, reason.code().to_owned())
                }
                other => panic!("{other:?}"),
            })
            .collect();
        reasons.sort();
        reasons.dedup();
        reasons
    }
}

fn pair(target: &str, reason: &str) -> (String, String) {
    (target.to_owned(), reason.to_owned())
}

#[test]
fn the_first_signal_lets_what_runs_end_by_itself_and_starts_nothing_new() {
    let folder = tempfile::tempdir().expect("a folder");
    let registry = Registry::start();
    let mut scan = Scan::start(folder.path(), &registry);
    registry.asked.recv().expect("the first image is asked for");
    scan.tell("nothing new is started");
    registry.open();
    let reasons = scan.reasons();
    assert_eq!(reasons, [pair("first:1", "target-not-found"), pair("second:1", "runner-interrupted")]);
    assert!(registry.asked.try_iter().all(|request| !request.contains("second")), "it was not asked for");
}

#[test]
fn the_second_signal_ends_what_runs() {
    let folder = tempfile::tempdir().expect("a folder");
    let registry = Registry::start();
    let mut scan = Scan::start(folder.path(), &registry);
    registry.asked.recv().expect("the first image is asked for");
    scan.tell("nothing new is started");
    scan.tell("what runs is ended");
    assert_eq!(scan.reasons(), [pair("first:1", "runner-interrupted"), pair("second:1", "runner-interrupted")]);
}
