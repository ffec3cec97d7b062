//! A command in a container that is given a file and leaves a result, without anything else written there: what a scanner of
//! the target's own needs. It is what oscap-ssh does to a host, by exec.
//!
//! The program's result is read from a pipe while it is written ([`RESULT`]), and its standard output goes to standard error. The
//! file can't come through a pipe, since OpenSCAP reads it more than once: it is written into a folder of mode 0700 with an
//! unpredictable name, in memory (`/dev/shm`) where the container has that, and removed when the program has ended. Whether it
//! is gone is looked at once more, by a command of its own (`tidy`).
//!
//! What could go wrong, and where it is seen:
//! * the connection breaks: exec gives no status, and the result lacks its last line, which a word tells apart that was chosen
//!   for this one scan; the program is ended by the pipe that nobody reads, and the folder is removed all the same;
//! * the file arrives shorter: its length is compared there before anything is run;
//! * nothing can be written: no program is run;
//! * the program does not end: where the container has `timeout`, that ends it; the command is given up in any case;
//! * it leaves files where it runs: that is the folder which is removed, and is its `TMPDIR`;
//! * somebody put a link where the folder should be: `mkdir` does not follow one, and removing does not either;
//! * the container is restarted or replaced: exec sees it, and so does the runner, around all of it.
//!
//! What can't be seen: whether the program is what it says to be. It is the target's own.

use std::time::Duration;

use super::exec::{Caps, Place, exec_at};
use crate::base::text::brief;
use crate::cluster::client::Cluster;
use crate::cluster::error::ClusterError;

/// What the program writes its result to.
pub const RESULT: &str = "/dev/fd/3";

/// Folders in one of which the file's own folder is made, the first of them that can be written to.
const PLACES: &str = "/dev/shm /tmp /var/tmp /run";

/// What the names of folders begin with that are made in a target.
const FOLDER: &str = "gapscan-";

/// How long each look into the container may take.
const LOOK: Duration = Duration::from_secs(30);

/// Bytes of an answer.
const ANSWER: Caps = Caps { stdout: 16 * 1024, stderr: 4096 };

/// Bytes of the line behind a result, at most.
pub(crate) const LAST_LINE: usize = 512;

/// Runs the program. Arguments: the scan's word; the word that tells the last line apart; the length and the name of the file
/// on standard input, both empty without one; `pipe` or `stdout`, where the result is; seconds for the program; how many
/// variables follow; these; the program with its arguments.
///
/// The last line of standard output is `WORD CODE REMOVED`: the program's exit code, or `none` where it was not run; `gone`,
/// `left` or `unused` for the folder. What is said of a program that was not run is on standard error.
const SCRIPT: &str = r#"
word=$1 mark=$2 size=$3 name=$4 way=$5 limit=$6 count=$7
shift 7
home= state=unused
tidy() { if [ "$home" ]; then cd /; rm -rf "$home"; if [ -e "$home" ]; then state=left; else state=gone; fi; fi; }
trap 'tidy; exit 1' HUP INT TERM
end() { tidy; printf '\n%s %s %s\n' "$mark" "$1" "$state"; exit 0; }
no() { echo "$1" >&2; end none; }
while [ "$count" -gt 0 ]; do export "$1"; shift; count=$((count - 1)); done
if [ "$size" ]; then
  umask 077
  for place in @PLACES@; do
    if mkdir "$place/@FOLDER@$word" 2>/dev/null; then home=$place/@FOLDER@$word; break; fi
  done
  [ "$home" ] || no 'the container has no folder that can be written to (@PLACES@)'
  cd "$home" || no "the folder $home can't be entered"
  TMPDIR=$home; export TMPDIR
  cat > "$name" || no "the content can't be written to $home"
  got=$(wc -c < "$name")
  [ "$got" -eq "$size" ] || no "of $size bytes of content $got arrived in $home"
fi
if command -v timeout >/dev/null 2>&1; then set -- timeout "$limit" "$@"; fi
exec 5>&1
case $way in
pipe) code=$({ { "$@" </dev/null 3>&1 >&2 4>&- 5>&-; echo $? >&4; } | cat >&5 4>&-; } 4>&1) ;;
*) code=$({ { "$@" </dev/null 4>&- 5>&-; echo $? >&4; } | cat >&5 4>&-; } 4>&1) ;;
esac
exec 5>&-
end "${code:-none}"
"#;

/// Looks whether the folder of a scan is gone, and removes it where it is not. Argument: the scan's word. The last line is `done`.
const TIDY: &str = r#"
for place in @PLACES@; do
  f=$place/@FOLDER@$1
  if [ -e "$f" ] || [ -h "$f" ]; then
    rm -rf "$f"
    if [ -e "$f" ] || [ -h "$f" ]; then echo "left $f"; else echo "removed $f"; fi
  fi
done
echo done
"#;

/// What is run in a target.
#[derive(Clone, Debug)]
pub(crate) struct Guest<'a> {
    /// The scan's word, of letters, digits and hyphens.
    pub(crate) word: &'a str,
    /// What tells the last line apart.
    pub(crate) mark: &'a str,
    /// The file that is delivered: its name and its length.
    pub(crate) delivered: Option<(&'a str, usize)>,
    /// Whether the result is what the program writes to [`RESULT`], or its standard output.
    pub(crate) from: From,
    /// Seconds that the program has.
    pub(crate) limit: u64,
    /// Variables, as `NAME=VALUE`.
    pub(crate) variables: &'a [String],
    /// The program and its arguments.
    pub(crate) command: &'a [String],
}

/// Where a program in a target leaves its result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum From {
    /// What it writes to [`RESULT`].
    Pipe,
    /// Its standard output.
    Stdout,
}

fn filled(script: &str) -> String {
    script.replace("@PLACES@", PLACES).replace("@FOLDER@", FOLDER)
}

/// The command for a shell in the target.
pub(crate) fn command(guest: &Guest<'_>) -> Vec<String> {
    let (name, size) = guest.delivered.map_or((String::new(), String::new()), |(n, s)| (n.to_owned(), s.to_string()));
    let way = match guest.from {
        From::Pipe => "pipe",
        From::Stdout => "stdout",
    };
    let mut argv = vec!["sh".to_owned(), "-c".to_owned(), filled(SCRIPT), "sh".to_owned()];
    argv.extend([guest.word, guest.mark, &size, &name, way].map(str::to_owned));
    argv.extend([guest.limit.to_string(), guest.variables.len().to_string()]);
    argv.extend(guest.variables.iter().chain(guest.command).cloned());
    argv
}

/// How a command in a target ended, as its last line says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ended {
    /// Bytes of the result before the last line.
    pub(crate) result: u64,
    /// The program's exit code; `None` where it was not run.
    pub(crate) code: Option<u8>,
    /// Whether the folder of the file could not be removed.
    pub(crate) left: bool,
}

/// Reads the last line of what a command in a target left. `length` is of all of it, `end` the end of it, at least
/// [`LAST_LINE`] bytes where there are so many. `None` where there is no such line: it was cut.
pub(crate) fn last_line(end: &[u8], length: u64, mark: &str) -> Option<Ended> {
    let line = end.strip_suffix(b"\n")?;
    let begin = line.iter().rposition(|byte| *byte == b'\n')?;
    let text = std::str::from_utf8(&line[begin + 1..]).ok()?;
    let mut words = text.split(' ');
    if words.next()? != mark {
        return None;
    }
    let code = match words.next()? {
        "none" => None,
        code => Some(code.parse().ok()?),
    };
    let left = match words.next()? {
        "left" => true,
        "gone" | "unused" => false,
        _ => return None,
    };
    let behind = u64::try_from(end.len() - begin).ok()?;
    (words.next().is_none()).then_some(Ended { result: length.checked_sub(behind)?, code, left })
}

/// Where the container has this program; `None` where it has not.
///
/// # Errors
/// When the container is gone, changed, has no shell, or can't be asked.
pub(crate) async fn find(identity: &Cluster, place: &Place<'_>, program: &str) -> Result<Option<String>, ClusterError> {
    let argv = ["sh", "-c", "command -v -- \"$1\" || echo", "sh", program];
    let answer = exec_at(identity, place, &argv, None, ANSWER, LOOK).await?;
    let said = String::from_utf8_lossy(&answer.stdout).trim().to_owned();
    Ok((!said.is_empty()).then(|| brief(&said)))
}

/// What the program printed when it was asked for its version, standard output before standard error.
///
/// # Errors
/// As [`find`].
pub(crate) async fn ask(identity: &Cluster, place: &Place<'_>, command: &[String]) -> Result<String, ClusterError> {
    let argv: Vec<&str> = command.iter().map(String::as_str).collect();
    let mut answer = exec_at(identity, place, &argv, None, ANSWER, LOOK).await?;
    answer.stdout.extend_from_slice(&answer.stderr);
    Ok(String::from_utf8_lossy(&answer.stdout).into_owned())
}

/// What was found of the folder of a scan.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tidied {
    /// It was still there and is removed.
    pub(crate) removed: Vec<String>,
    /// It can't be removed.
    pub(crate) left: Vec<String>,
}

/// Sees that the folder of the scan with this word is gone.
///
/// # Errors
/// As [`find`], and when the answer is not whole: then it is not known.
pub(crate) async fn tidy(identity: &Cluster, place: &Place<'_>, word: &str) -> Result<Tidied, ClusterError> {
    let script = filled(TIDY);
    let argv = ["sh", "-c", &script, "sh", word];
    let answer = exec_at(identity, place, &argv, None, ANSWER, LOOK).await?;
    tidied(&String::from_utf8_lossy(&answer.stdout)).ok_or_else(|| ClusterError::OutputTruncated {
        detail: "whether the content is gone from the container was not told".to_owned(),
    })
}

fn tidied(said: &str) -> Option<Tidied> {
    let mut found = Tidied::default();
    let said = said.strip_suffix("done\n")?;
    for line in said.lines() {
        match line.split_once(' ')? {
            ("removed", folder) => found.removed.push(brief(folder)),
            ("left", folder) => found.left.push(brief(folder)),
            _ => return None,
        }
    }
    Some(found)
}

#[cfg(test)]
mod tests;
