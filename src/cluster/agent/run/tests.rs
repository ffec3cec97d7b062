use super::*;
use crate::cluster::agent::collect::collect;
use crate::cluster::agent::parcel::Receiver;
use crate::cluster::agent::protocol::{RESULT, STATUS, STDERR, STDOUT};

fn request(folder: &Path, result: ResultAt, script: &str) -> RunRequest {
    RunRequest {
        result,
        spool: folder.join("spool"),
        beside: None,
        target_mount: None,
        archive: None,
        leaves_out: Vec::new(),
        api: None,
        network: Network::Own,
        upload: None,
        deadline: Duration::from_secs(20),
        hold: Duration::ZERO,
        limit: 1000,
        command: vec!["sh".into(), "-c".into(), script.into()],
        version: Vec::new(),
    }
}

/// What the runner would receive: the header, the result, and the ends of both outputs.
struct Received {
    header: Header,
    result: Option<Vec<u8>>,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
}

async fn ran(request: &RunRequest) -> Received {
    run(request).await.expect("it runs");
    let mut sent = Vec::new();
    collect(&request.spool, &request.result, request.limit, &mut sent).expect("it is collected");
    let mut receiver =
        Receiver::new(&[STATUS, RESULT, STDOUT, STDERR].map(|part| (part, 1 << 20)), &std::env::temp_dir());
    receiver.take(&sent);
    let mut parts = receiver.finish().expect("it is whole");
    let mut part = |name: &str| parts.take(name).ok().map(|part| part.into_bytes().expect("it is in memory"));
    Received {
        header: serde_json::from_slice(&part(STATUS).expect("a header")).expect("a header"),
        result: part(RESULT),
        stdout: part(STDOUT).expect("standard output"),
        stderr: part(STDERR).expect("standard error"),
    }
}

#[tokio::test]
async fn a_file_and_both_outputs_arrive() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("result.json");
    let script = format!("echo out; echo err >&2; printf '{{}}' > {}; exit 2", file.display());
    let received = ran(&request(folder.path(), ResultAt::File(file), &script)).await;
    assert_eq!(received.header.exit, ExitStatus::Exited { code: 2 });
    assert!(matches!(received.header.result, ResultState::Present { length: 2, .. }));
    assert_eq!(received.result.as_deref(), Some(&b"{}"[..]));
    assert_eq!((received.stdout, received.stderr), (b"out\n".to_vec(), b"err\n".to_vec()));
    assert!(received.header.sockets.looks > 0 && received.header.sockets.unseen.is_none());
}

#[tokio::test]
async fn standard_output_can_be_the_result_and_too_much_of_it_is_none() {
    let folder = tempfile::tempdir().expect("a folder");
    let received = ran(&request(folder.path(), ResultAt::Stdout, "printf result")).await;
    assert_eq!(received.result.as_deref(), Some(&b"result"[..]));
    assert_eq!(received.stdout, b"result");
    let folder = tempfile::tempdir().expect("a folder");
    let endless = request(folder.path(), ResultAt::Stdout, "head -c 5000 /dev/zero");
    let header = ran(&endless).await.header;
    assert!(matches!(header.result, ResultState::Missing { .. }), "{:?}", header.result);
}

#[tokio::test]
async fn a_result_that_is_written_to_after_the_end_is_none() {
    for change in ["printf xx > R", "printf x >> R", "cp R S; mv S R", "rm R; ln -s /etc/passwd R", "rm R; mkfifo R"] {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("R");
        let request = request(folder.path(), ResultAt::File(file.clone()), &format!("printf ab > {}", file.display()));
        run(&request).await.expect("it runs");
        let changed = Command::new("sh").arg("-c").arg(change).current_dir(folder.path()).status().await;
        assert!(changed.expect("there is a shell").success());
        let mut sent = Vec::new();
        let collected = collect(&request.spool, &request.result, request.limit, &mut sent);
        assert!(matches!(collected, Err(AgentError::Changed { .. })), "{change}: {collected:?}");
        assert!(!String::from_utf8_lossy(&sent).contains("\nend "), "what was sent has no end");
    }
}

#[tokio::test]
async fn no_result_a_link_an_empty_one_and_a_pipe_are_none() {
    for script in ["true", "ln -s /etc/passwd R", ": > R", "mkfifo R", "mkdir R"] {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("R");
        let script = script.replace('R', &file.display().to_string());
        let received = ran(&request(folder.path(), ResultAt::File(file), &script)).await;
        assert_eq!(received.header.exit, ExitStatus::Exited { code: 0 }, "{script}");
        assert!(matches!(received.header.result, ResultState::Missing { .. }), "{script}");
        assert_eq!(received.result, None);
    }
}

#[tokio::test]
async fn ends_are_told_apart() {
    let at = |folder: &Path| ResultAt::File(folder.join("none"));
    let folder = tempfile::tempdir().expect("a folder");
    let killed = ran(&request(folder.path(), at(folder.path()), "kill -9 $$")).await;
    assert_eq!(killed.header.exit, ExitStatus::Signalled { signal: 9 });
    let folder = tempfile::tempdir().expect("a folder");
    let mut hung = request(folder.path(), at(folder.path()), "exec sleep 600");
    hung.deadline = Duration::from_millis(200);
    assert_eq!(ran(&hung).await.header.exit, ExitStatus::TimedOut);
    let folder = tempfile::tempdir().expect("a folder");
    let mut none = request(folder.path(), at(folder.path()), "");
    none.command = vec!["/no/such/program".into()];
    assert!(matches!(ran(&none).await.header.exit, ExitStatus::NotStarted { .. }));
}

#[test]
fn only_the_end_of_a_long_output_is_kept() {
    let mut kept = Kept::new(None, 0);
    kept.take(&vec![b'a'; TAIL_BYTES]);
    kept.take(b"end");
    assert_eq!(kept.tail.len(), TAIL_BYTES);
    assert!(kept.tail.ends_with(b"aend"));
}

#[tokio::test]
async fn a_scanner_that_is_asked_for_its_version_answers_before_it_scans_and_need_not() {
    let folder = tempfile::tempdir().expect("a folder");
    let asked = |words: &[&str]| RunRequest {
        version: words.iter().map(Into::into).collect(),
        ..request(folder.path(), ResultAt::Stdout, "echo result")
    };
    let answer = |received: Received| {
        assert_eq!(received.header.exit, ExitStatus::Exited { code: 0 }, "the scan goes on whatever it says");
        assert_eq!(received.result.as_deref(), Some(&b"result\n"[..]), "and none of it is in the result");
        received.header.version
    };
    let printed = |text: &str| Some(Asked::Answered { printed: text.to_owned() });
    let both = ["sh", "-c", "echo x >&2; echo 1.2; exit 3"];
    assert_eq!(answer(ran(&asked(&both)).await), printed("1.2\nx\n"));
    let long = answer(ran(&asked(&["sh", "-c", "head -c 300000 /dev/zero"])).await);
    assert!(matches!(long, Some(Asked::Answered { printed }) if printed.len() == ANSWER_BYTES));
    let none = answer(ran(&asked(&["/none/such"])).await);
    assert!(matches!(none, Some(Asked::Unanswered { detail }) if detail.starts_with("`/none/such`: ")));
    assert_eq!(answer(ran(&asked(&[])).await), None);
}
