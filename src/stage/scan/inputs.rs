//! What a profile is told: files from this machine or from secrets of the cluster, read when a scan begins and held no longer
//! than it lasts; and how their values are kept out of what is recorded.
//!
//! Secret values are taken out of the scanner's result and of its two outputs before these are parsed or kept, so that what is
//! judged is what is kept, and out of the words for why something failed. Where that made an id or a status unreadable, the
//! control is not evaluated.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use serde_json::Value;
use zeroize::Zeroizing;

use super::content::External;
use super::unit::{Context, NotDone, Reached};
use crate::base::document;
use crate::base::file;
use crate::base::redaction::{Redaction, SHORTEST};
use crate::base::spool::{Content as _, Spool};
use crate::base::text::brief;
use crate::cluster::Cluster;
use crate::cluster::agent::protocol::{Asked, ExitStatus, TAIL_BYTES};
use crate::cluster::inputs::{self, INPUT_BYTES, InputFiles};
use crate::cluster::job::{JobOutput, TakenOut};
use crate::model::reason::Reason;
use crate::model::scanner::{self as placeholder, Offered};
use crate::stage::plan::{InputContent, InputEntry};

/// Values of one profile's inputs that are taken out, at most.
const VALUES: usize = 2000;

/// Characters of the shortest line of a longer value that is looked for by itself.
const LINE: usize = 8;

/// The inputs of one scan. `Debug` does not show them.
#[derive(Debug)]
pub(crate) struct Inputs {
    /// For the pod.
    pub(crate) files: InputFiles,
    redaction: Redaction,
    notes: Vec<String>,
}

/// The profile's inputs for a scan by this approach; `None` where the plan has none for it.
pub(crate) async fn gather<'e>(
    external: &External,
    approach: impl Into<Offered<'e>>,
    cluster: &Cluster,
) -> Result<Option<Inputs>, NotDone> {
    if external.inputs.is_empty() {
        return Ok(None);
    }
    if !takes_inputs(&approach.into()) {
        let detail = format!(
            "the plan has inputs for the profile, and the scanner's command does not ask for their folder (${{{}}})",
            placeholder::INPUTS
        );
        return Err(NotDone::new(Reason::InputMissing, detail));
    }
    let mut files = BTreeMap::new();
    let mut secrets = Vec::new();
    let mut unsearchable = Vec::new();
    let mut length = 0;
    for entry in &external.inputs {
        let bytes = value(entry, cluster).await?;
        length += bytes.len();
        if length > INPUT_BYTES {
            return Err(missing(entry, &format!("the profile's inputs have more than {INPUT_BYTES} bytes")));
        }
        match (entry.content, std::str::from_utf8(&bytes)) {
            (InputContent::Secret, Ok(text)) => values(text, &mut secrets),
            (InputContent::Secret, Err(_)) => unsearchable.push(brief(&entry.name)),
            (InputContent::Plain, _) => {}
        }
        if secrets.len() > VALUES {
            return Err(missing(entry, &format!("the profile's inputs have more than {VALUES} secret values")));
        }
        files.insert(entry.name.clone(), bytes);
    }
    let redaction = Redaction::of(secrets.iter().map(|value| value.as_str()));
    let mut notes = Vec::new();
    if redaction.short() > 0 {
        notes.push(format!(
            "{} secret values of the profile's inputs have less than {SHORTEST} characters, and are not taken out of what was recorded",
            redaction.short()
        ));
    }
    if !unsearchable.is_empty() {
        let names = unsearchable.join(", ");
        notes.push(format!("inputs that are no text ({names}) are not taken out of what was recorded"));
    }
    Ok(Some(Inputs { files: InputFiles::new(files), redaction, notes }))
}

/// Whether the command or the environment asks for the folder of the inputs.
fn takes_inputs(approach: &Offered<'_>) -> bool {
    let asked = format!("${{{}}}", placeholder::INPUTS);
    approach.command.iter().chain(approach.env.values()).any(|text| text.contains(&asked))
}

fn missing(entry: &InputEntry, why: &str) -> NotDone {
    NotDone::new(Reason::InputMissing, format!("input `{}`: {why}", brief(&entry.name)))
}

async fn value(entry: &InputEntry, cluster: &Cluster) -> Result<Zeroizing<Vec<u8>>, NotDone> {
    let because = |error: &(dyn std::error::Error + 'static)| missing(entry, &super::error::chain(error));
    match (&entry.secret, &entry.file) {
        (Some(key), _) => match inputs::read(cluster, key.namespace(), key.name(), key.key()).await {
            Ok(Some(value)) => Ok(value),
            Ok(None) => Err(missing(entry, &format!("secret `{key}` has no such key"))),
            Err(error) => Err(because(&error)),
        },
        (None, Some(path)) => {
            let bytes = file::read_capped(path, INPUT_BYTES as u64).map(Zeroizing::new).map_err(|e| because(&e))?;
            if entry.content == InputContent::Secret {
                private(path).map_err(|why| missing(entry, &why))?;
            }
            Ok(bytes)
        }
        (None, None) => Err(missing(entry, "it has no source")),
    }
}

/// Refuses a file that others than its owner can read or change. Looked at after the bytes were read: a mode that was right
/// only before says nothing.
fn private(path: &Path) -> Result<(), String> {
    let mode = std::fs::metadata(path).map_err(|e| format!("`{}`: {e}", path.display()))?.permissions().mode() & 0o7777;
    match mode & 0o077 {
        0 => Ok(()),
        _ => Err(format!(
            "the mode of `{}` is {mode:04o}, so that others than its owner can read or change it; `chmod 600` it, or say `content: plain`",
            path.display()
        )),
    }
}

/// What is secret of a text: all of it, its longer lines, and where it is YAML or JSON, every text and number in it.
fn values(text: &str, into: &mut Vec<Zeroizing<String>>) {
    let mut add = |value: &str| {
        let value = value.trim_end_matches(['\n', '\r']);
        into.push(Zeroizing::new(value.to_owned()));
        if value.contains('\n') {
            let lines = value.lines().map(str::trim).filter(|line| line.chars().count() >= LINE);
            into.extend(lines.map(|line| Zeroizing::new(line.to_owned())));
        }
    };
    match document::from_yaml::<Value>(Path::new("input"), "input", text) {
        Ok(tree @ (Value::Object(_) | Value::Array(_))) => {
            let mut left = vec![&tree];
            while let Some(value) = left.pop() {
                match value {
                    Value::Object(fields) => left.extend(fields.values()),
                    Value::Array(items) => left.extend(items),
                    Value::String(text) => add(text),
                    Value::Number(number) => add(&number.to_string()),
                    Value::Bool(_) | Value::Null => {}
                }
            }
            into.push(Zeroizing::new(text.trim_end_matches(['\n', '\r']).to_owned()));
            // Numbers as they stand there, too: 0x1F, 1.50 and one of thirty digits are other texts when they were read.
            let words = text.split(|c: char| c.is_whitespace() || ",:[]{}".contains(c));
            let begins = |word: &str| word.starts_with(|c: char| c.is_ascii_digit() || "+-.".contains(c));
            for word in words.filter(|word| begins(word) && word.contains(|c: char| c.is_ascii_digit())) {
                if word.chars().count() >= SHORTEST && into.iter().all(|known| known.as_str() != word) {
                    into.push(Zeroizing::new(word.to_owned()));
                }
            }
        }
        _ => {
            add(text);
            // As in files of variables: NAME=value, export NAME="value".
            for (_, value) in text.lines().filter_map(|line| line.split_once('=')) {
                let value = value.trim();
                let bare = ['"', '\''].into_iter().find_map(|quote| value.strip_prefix(quote)?.strip_suffix(quote));
                let value = bare.unwrap_or(value);
                if value.chars().count() >= SHORTEST {
                    into.push(Zeroizing::new(value.to_owned()));
                }
            }
        }
    }
}

impl Inputs {
    /// What the scanner left, without the secret values.
    ///
    /// # Errors
    /// When it can't be written anew.
    pub(crate) fn redact(
        &self,
        reached: &mut Reached,
        output: JobOutput,
        context: &Context,
    ) -> Result<JobOutput, NotDone> {
        reached.notes.extend(self.notes.iter().cloned());
        let failed = |error: std::io::Error| NotDone::because(Reason::InternalError, &error);
        let JobOutput { result, stdout_tail, stderr_tail, mut unreadable, version, exit, .. } = output;
        let tail = |bytes: Vec<u8>| {
            let mut kept = Vec::new();
            let cut = bytes.len() >= TAIL_BYTES;
            let count = self.redaction.copy(&mut bytes.as_slice(), &mut kept, cut)?;
            Ok::<_, std::io::Error>((kept, count))
        };
        let (stdout_tail, of_stdout) = tail(stdout_tail).map_err(failed)?;
        let (stderr_tail, of_stderr) = tail(stderr_tail).map_err(failed)?;
        let mut taken_out = TakenOut { result: 0, stdout: of_stdout, stderr: of_stderr };
        // What the record says in gapscan's own words of what the scanner, or its target, says: a version, names of files.
        let mut elsewhere = 0;
        let mut hide = |text: &mut String| {
            let (kept, count) = self.redaction.text(text);
            *text = kept;
            elsewhere += count;
        };
        unreadable.sample.iter_mut().chain(&mut unreadable.left_out_sample).for_each(&mut hide);
        let version = version.map(|asked| match asked {
            Asked::Answered { mut printed } => {
                hide(&mut printed);
                Asked::Answered { printed }
            }
            Asked::Unanswered { mut detail } => {
                hide(&mut detail);
                Asked::Unanswered { detail }
            }
        });
        let exit = match exit {
            ExitStatus::NotStarted { mut message } => {
                hide(&mut message);
                ExitStatus::NotStarted { message }
            }
            other => other,
        };
        let result = match result {
            Ok(result) => {
                let mut kept = Spool::new(&context.spool);
                // A large result takes seconds, during which other scans wait for their connections.
                let copy = || self.redaction.copy(&mut result.reader(), &mut kept, false);
                taken_out.result = tokio::task::block_in_place(copy).map_err(failed)?;
                // Untouched, it is the one whose digest the agent knew.
                Ok(if taken_out.result == 0 { result } else { kept.finish() })
            }
            Err(error) => Err(error),
        };
        let counts = [
            ("result", taken_out.result),
            ("stdout", taken_out.stdout),
            ("stderr", taken_out.stderr),
            ("elsewhere", elsewhere),
        ];
        let counted =
            counts.iter().filter(|(_, count)| *count > 0).map(|(name, count)| format!("{name}: {count} times"));
        let counted: Vec<String> = counted.collect();
        if !counted.is_empty() {
            let note = "secret values of the profile's inputs were taken out before anything was recorded";
            reached.notes.push(format!("{note} ({})", counted.join(", ")));
        }
        Ok(JobOutput { result, stdout_tail, stderr_tail, unreadable, version, exit, taken_out, ..output })
    }

    /// Why nothing was evaluated, without the secret values.
    pub(crate) fn hide(&self, why: NotDone) -> NotDone {
        NotDone { detail: self.redaction.text(&why.detail).0, ..why }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_that_is_written_in_an_input_is_secret() {
        let found = |text: &str| {
            let mut found = Vec::new();
            values(text, &mut found);
            found.iter().map(|value| value.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(found("hunter2\n"), ["hunter2"]);
        let mut all = found("db:\n  password: hunter2\n  port: 54321\n  tls: true\nlist: [one, null]\n");
        all.sort();
        assert_eq!(
            all,
            ["54321", "db:\n  password: hunter2\n  port: 54321\n  tls: true\nlist: [one, null]", "hunter2", "one"]
        );
        // A value of a file of variables stands alone in results, and a number as it was written.
        assert!(found("A=x\nexport PASSWORD=\"hunter 22\"\n").contains(&"hunter 22".to_owned()));
        assert_eq!(found("PASSWORD=hunter2"), ["PASSWORD=hunter2", "hunter2"]);
        for number in ["0x1F2E", "123456789012345678901234567890", "01.50"] {
            assert!(found(&format!("pin: {number}\nb: [x]\n")).contains(&number.to_owned()), "{number}");
        }
        let key = "-----BEGIN X-----\nAAAABBBBCCCC\nDD\n-----END X-----\n";
        assert_eq!(found(key)[1..], ["-----BEGIN X-----", "AAAABBBBCCCC", "-----END X-----"]);
    }

    #[test]
    fn what_inspec_prints_of_its_inputs_does_not_get_through() {
        let mut secrets = Vec::new();
        values("db_password: 'it\'\'s <\"s3cret\">'\napi_token: tok-0123456789\n", &mut secrets);
        let redaction = Redaction::of(secrets.iter().map(|value| value.as_str()));
        let secret = "it's <\"s3cret\">";
        // As its reporter `json` has them: among the profile's attributes, in code, and in a message that quotes what it saw.
        let result = serde_json::json!({
            "platform": {"name": "debian", "release": "12"},
            "profiles": [{
                "name": "p", "attributes": [
                    {"name": "db_password", "options": {"type": "String", "value": secret}},
                    {"name": "api_token", "options": {"value": "tok-0123456789"}},
                ],
                "controls": [{"id": "c-1", "impact": 0.7, "tags": {}, "code": "", "results": [{
                    "status": "failed", "code_desc": format!("Command: `psql` stdout is expected to eq {secret:?}"),
                    "message": format!("expected: {secret:?}\n     got: \"other\"\n\n(compared using ==)"), "run_time": 0.1, "start_time": "x",
                }]}],
            }],
            "statistics": {"duration": 0.1}, "version": "6.0.0",
        });
        for text in [
            result.to_string(),
            serde_json::to_string_pretty(&result).expect("JSON"),
            result.to_string().replace('<', "\\u003c"),
        ] {
            let (kept, count) = redaction.text(&text);
            assert_eq!(count, 4, "{kept}");
            assert!(!kept.contains("s3cret") && !kept.contains("tok-0"), "{kept}");
            let read: Value = serde_json::from_str(&kept).expect("it is still JSON");
            assert_eq!(read["profiles"][0]["controls"][0]["results"][0]["status"], "failed");
        }
    }

    #[test]
    fn a_secret_file_that_others_can_read_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("s");
        std::fs::write(&path, "hunter2").expect("a file");
        for (mode, fine) in [(0o600, true), (0o400, true), (0o640, false), (0o604, false), (0o620, false)] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).expect("chmod");
            assert_eq!(private(&path).is_ok(), fine, "{mode:o}");
        }
    }
}
