//! The same attacks, handed to a reader that somebody else could have written: `tests/bundle_reader.py`, which knows nothing
//! but `docs/bundle-format.md`. It must say what gapscan says.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::attack::{Case, Expect, good};
use crate::{archive, metadata, state};

/// Runs the reader once for each line of arguments, in one process, for starting it takes longer than reading.
const DRIVER: &str = r#"
import contextlib, io, json, runpy, sys
script = sys.argv[1]
for line in sys.stdin:
    sys.argv, out, code = [sys.argv[0], script, *json.loads(line)][1:], io.StringIO(), 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        try:
            runpy.run_path(script, run_name="__main__")
        except SystemExit as end:
            code = end.code or 0
    print(json.dumps([code, out.getvalue().strip()]))
"#;

/// All cases whose attacks are whole bundles.
pub(crate) fn all() -> impl Iterator<Item = &'static Case> {
    archive::CASES.iter().chain(metadata::CASES).chain(state::CASES)
}

#[test]
fn another_reader_says_the_same_of_every_attack() {
    let available = Command::new("python3").args(["-c", "import tuf.api.metadata"]).output();
    if !available.is_ok_and(|o| o.status.success()) {
        println!("skipped: needs python3 with the module tuf");
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let mut lines = String::new();
    // What each line is about; nothing where it only makes the reader remember.
    let mut asked = Vec::new();
    for case in all() {
        for attack in (case.attacks)(good()) {
            let number = asked.len();
            let path = |name: &str| folder.path().join(format!("{number}.{name}")).display().to_string();
            let root = path("root.json");
            fs::write(&root, attack.root.bytes()).expect("write");
            let mut line = |name: &str, bytes: &[u8], now: jiff::Timestamp| {
                let file = path(name);
                fs::write(&file, bytes).expect("write");
                let arguments = [&file, "--root", &root, "--state", &path("state"), "--now", &now.to_string()];
                lines += &(serde_json::to_string(&arguments).expect("JSON") + "\n");
            };
            for (at, (bytes, when)) in attack.before.iter().enumerate() {
                line(&format!("{at}.tar"), bytes, *when);
                asked.push(None);
            }
            line("tar", &attack.bytes, attack.now);
            asked.push(Some((case.name, attack)));
        }
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/bundle_reader.py");
    let mut python = Command::new("python3")
        .args(["-c", DRIVER])
        .arg(&script)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python");
    let mut input = python.stdin.take().expect("a pipe");
    let writer = std::thread::spawn(move || input.write_all(lines.as_bytes()).expect("it reads"));
    let output = python.wait_with_output().expect("python");
    writer.join().expect("written");
    let answers: Vec<(i32, String)> = String::from_utf8(output.stdout)
        .expect("text")
        .lines()
        .map(|line| serde_json::from_str(line).expect("an answer"))
        .collect();
    assert_eq!(answers.len(), asked.len());
    let mut differ = Vec::new();
    for ((code, said), asked) in answers.iter().zip(&asked) {
        let Some((case, attack)) = asked else {
            assert_eq!(*code, 0, "{said}");
            continue;
        };
        // That gapscan does what is expected is what the test of the case holds.
        let (expected, words) = match attack.expect {
            Expect::Accepted => {
                let verified = attack.verdict().expect("a good bundle");
                let bundle = verified.bundle();
                (0, format!("{} {} {}", bundle.name, bundle.version, bundle.digest))
            }
            Expect::At(..) | Expect::Says(..) | Expect::Refused => (4, "refused".to_owned()),
        };
        if *code != expected || !said.starts_with(&words) {
            differ.push(format!("{case}, {}: {code}, {said}; gapscan says {:?}", attack.what, attack.expect));
        }
    }
    assert!(differ.is_empty(), "{} of {}:\n{}", differ.len(), asked.len(), differ.join("\n"));
}
