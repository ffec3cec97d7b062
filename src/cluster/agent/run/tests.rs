use super::*;
use crate::base::digest::Digest;
use crate::cluster::agent::collect::collect;

fn request(folder: &Path, result: ResultAt, script: &str) -> RunRequest {
    RunRequest {
        result,
        spool: folder.join("spool"),
        target_mount: None,
        deadline: Duration::from_secs(20),
        hold: Duration::ZERO,
        limit: 1000,
        command: vec!["sh".into(), "-c".into(), script.into()],
    }
}

/// What the runner would receive: the header, and the bytes after it.
async fn ran(request: &RunRequest) -> (Header, Vec<u8>) {
    run(request).await.expect("it runs");
    let mut bytes = Vec::new();
    collect(&request.spool, &request.result, request.limit, &mut bytes).expect("it is collected");
    let end = bytes.iter().position(|&b| b == b'\n').expect("a header line");
    let rest = bytes.split_off(end + 1);
    (serde_json::from_slice(&bytes).expect("a header"), rest)
}

#[tokio::test]
async fn a_file_and_both_outputs_arrive() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("result.json");
    let script = format!("echo out; echo err >&2; printf '{{}}' > {}; exit 2", file.display());
    let (header, rest) = ran(&request(folder.path(), ResultAt::File(file), &script)).await;
    assert_eq!(header.exit, ExitStatus::Exited { code: 2 });
    assert_eq!(header.result, ResultState::Present { length: 2, digest: Digest::of("{}") });
    assert_eq!(rest, b"{}out\nerr\n");
}

#[tokio::test]
async fn standard_output_can_be_the_result_and_too_much_of_it_is_none() {
    let folder = tempfile::tempdir().expect("a folder");
    let (header, rest) = ran(&request(folder.path(), ResultAt::Stdout, "printf result")).await;
    assert_eq!(header.result, ResultState::Present { length: 6, digest: Digest::of("result") });
    assert_eq!(rest, b"resultresult");
    let folder = tempfile::tempdir().expect("a folder");
    let endless = request(folder.path(), ResultAt::Stdout, "head -c 5000 /dev/zero");
    let (header, _) = ran(&endless).await;
    assert!(matches!(header.result, ResultState::Missing { .. }), "{:?}", header.result);
}

#[tokio::test]
async fn no_result_a_link_an_empty_one_and_a_pipe_are_none() {
    for script in ["true", "ln -s /etc/passwd R", ": > R", "mkfifo R", "mkdir R"] {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("R");
        let script = script.replace('R', &file.display().to_string());
        let (header, rest) = ran(&request(folder.path(), ResultAt::File(file), &script)).await;
        assert_eq!(header.exit, ExitStatus::Exited { code: 0 }, "{script}");
        assert!(matches!(header.result, ResultState::Missing { .. }), "{script}");
        assert!(rest.is_empty());
    }
}

#[tokio::test]
async fn ends_are_told_apart() {
    let at = |folder: &Path| ResultAt::File(folder.join("none"));
    let folder = tempfile::tempdir().expect("a folder");
    let (header, _) = ran(&request(folder.path(), at(folder.path()), "kill -9 $$")).await;
    assert_eq!(header.exit, ExitStatus::Signalled { signal: 9 });
    let folder = tempfile::tempdir().expect("a folder");
    let mut hung = request(folder.path(), at(folder.path()), "exec sleep 600");
    hung.deadline = Duration::from_millis(200);
    assert_eq!(ran(&hung).await.0.exit, ExitStatus::TimedOut);
    let folder = tempfile::tempdir().expect("a folder");
    let mut none = request(folder.path(), at(folder.path()), "");
    none.command = vec!["/no/such/program".into()];
    assert!(matches!(ran(&none).await.0.exit, ExitStatus::NotStarted { .. }));
}

#[test]
fn only_the_end_of_a_long_output_is_kept() {
    let mut kept = Kept::new(None, 0);
    kept.take(&vec![b'a'; TAIL_BYTES]);
    kept.take(b"end");
    assert_eq!(kept.tail.len(), TAIL_BYTES);
    assert!(kept.tail.ends_with(b"aend"));
}
