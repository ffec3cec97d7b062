use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use super::*;

const MARK: &str = "m4rk";

/// Runs it here, as a container's shell would, with a folder of its own to write to.
fn run(places: &Path, delivered: Option<(&str, usize)>, sent: &[u8], from: From, program: &str) -> Output {
    let variables = ["COLOUR=a b".to_owned()];
    let words = ["sh", "-c", program].map(str::to_owned);
    let guest =
        Guest { word: "w0rd-1", mark: MARK, delivered, from, limit: 20, variables: &variables, command: &words };
    let argv = command(&guest);
    let script = argv[2].replace(PLACES, &places.display().to_string());
    let mut child = Command::new("sh")
        .arg("-c")
        .arg(script)
        .args(&argv[3..])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("sh runs");
    // One that needs nothing may be gone already.
    let _ = child.stdin.take().expect("it is piped").write_all(sent);
    child.wait_with_output().expect("it ends")
}

fn ended(output: &Output) -> Option<Ended> {
    last_line(&output.stdout, output.stdout.len() as u64, MARK)
}

fn is_empty(folder: &Path) -> bool {
    std::fs::read_dir(folder).expect("it is there").next().is_none()
}

#[test]
fn a_program_gets_its_file_and_gives_its_result_and_nothing_stays() {
    let folder = tempfile::tempdir().expect("a folder");
    let program = "cat ./c.xml ./c.xml > /dev/fd/3; echo progress; echo \"$COLOUR $TMPDIR\" >&2; touch litter; exit 2";
    let output = run(folder.path(), Some(("c.xml", 7)), b"content", From::Pipe, program);
    let end = ended(&output).expect("a last line");
    assert_eq!(end, Ended { result: 14, code: Some(2), left: false });
    assert_eq!(&output.stdout[..14], b"contentcontent");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("progress") && said.contains("a b ") && said.contains("gapscan-w0rd-1"), "{said}");
    assert!(is_empty(folder.path()), "the folder is removed, with what the program left");

    let output = run(folder.path(), None, b"", From::Stdout, "echo out; echo err >&2");
    assert_eq!(ended(&output), Some(Ended { result: 4, code: Some(0), left: false }));
    assert!(is_empty(folder.path()), "nothing is made where nothing is delivered");
}

#[test]
fn what_arrives_cut_or_can_not_be_written_is_not_evaluated_and_leaves_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let program = "echo result > /dev/fd/3";
    let output = run(folder.path(), Some(("c.xml", 8)), b"content", From::Pipe, program);
    assert_eq!(ended(&output), Some(Ended { result: 0, code: None, left: false }));
    assert!(String::from_utf8_lossy(&output.stderr).contains("of 8 bytes of content 7 arrived"));
    assert!(is_empty(folder.path()));

    let missing = folder.path().join("missing");
    let output = run(&missing, Some(("c.xml", 7)), b"content", From::Pipe, program);
    assert_eq!(ended(&output).map(|end| end.code), Some(None));
    assert!(String::from_utf8_lossy(&output.stderr).contains("no folder that can be written to"));

    // A link that waits there is not followed.
    let (victim, trap) = (folder.path().join("victim"), folder.path().join("trap"));
    std::fs::create_dir_all(&victim).expect("a folder");
    std::fs::create_dir_all(&trap).expect("a folder");
    std::os::unix::fs::symlink(&victim, trap.join("gapscan-w0rd-1")).expect("a link");
    let output = run(&trap, Some(("c.xml", 7)), b"content", From::Pipe, program);
    assert_eq!(ended(&output).map(|end| end.code), Some(None));
    assert!(is_empty(&victim));
}

#[test]
fn a_program_that_is_not_there_or_is_killed_says_so_by_its_code() {
    let folder = tempfile::tempdir().expect("a folder");
    for (program, code) in [("exec /no/such/program", 127), ("kill -9 $$", 137)] {
        let output = run(folder.path(), Some(("c.xml", 1)), b"c", From::Pipe, program);
        assert_eq!(ended(&output).and_then(|end| end.code), Some(code), "{program}");
        assert!(is_empty(folder.path()));
    }
}

#[test]
fn a_last_line_is_of_this_scan_and_whole() {
    let read = |text: &str| last_line(text.as_bytes(), 1000 + text.len() as u64, MARK);
    assert_eq!(read("<x/>\nm4rk 0 gone\n"), Some(Ended { result: 1004, code: Some(0), left: false }));
    assert_eq!(read("\nm4rk none left\n"), Some(Ended { result: 1000, code: None, left: true }));
    for cut in [
        "",
        "m4rk 0 gone\n",
        "\nm4rk 0 gone",
        "\nm4rk 0\n",
        "\nother 0 gone\n",
        "\nm4rk 256 gone\n",
        "\nm4rk 0 x\n",
        "\nm4rk 0 gone x\n",
    ] {
        assert_eq!(read(cut), None, "{cut:?}");
    }
}

#[test]
fn what_is_said_of_the_folder_counts_only_if_it_is_whole() {
    assert_eq!(tidied("done\n"), Some(Tidied::default()));
    let found = tidied("removed /dev/shm/gapscan-a\nleft /tmp/gapscan-a\ndone\n").expect("an answer");
    assert_eq!((found.removed.len(), found.left.len()), (1, 1));
    for cut in ["", "removed /x\n", "left\ndone\n", "whatever\ndone\n", "done"] {
        assert_eq!(tidied(cut), None, "{cut:?}");
    }
}
