//! A program of the target's own, run from the scanner's pod: the pod has the content, and an identity that may run commands in
//! that one container.
//!
//! To whoever started it this is the scanner: it ends with the program's exit code, and leaves the program's result where a
//! scanner would. Where that can't be had it ends with [`NOT_DONE`], and the last line of its standard error says why.

use std::fs;
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::kubeconfig;
use crate::base::digest::Digest;
use crate::base::limits::Limits;
use crate::cluster::access::exec::{Caps, Place, exec_into};
use crate::cluster::access::in_target::{self, From, Guest, LAST_LINE};
use crate::cluster::client::Cluster;
use crate::cluster::error::ClusterError;
use crate::model::reason::Reason;
use crate::model::scanner::NOT_DONE;

/// Bytes of what the program says that are kept.
const SAID: usize = 64 * 1024;

/// Bytes of a file that can be delivered: it is held in memory here, and in the target.
const DELIVERED: u64 = 128 << 20;

/// So long before the end the program is ended in the target, and the connection is given up.
const BEFORE: [Duration; 2] = [Duration::from_secs(20), Duration::from_secs(5)];

/// What is run, and where.
#[derive(Clone, Debug)]
pub struct GuestRequest {
    /// The API server's addresses.
    pub servers: Vec<SocketAddr>,
    /// The folder with token and CA.
    pub identity: PathBuf,
    /// The target's namespace.
    pub namespace: String,
    /// Its pod.
    pub pod: String,
    /// Its pod's UID.
    pub uid: String,
    /// Its container.
    pub container: String,
    /// The scan's word.
    pub word: String,
    /// Where the result is put; `None` to print it.
    pub result: Option<PathBuf>,
    /// Bytes of the result, at most.
    pub limit: u64,
    /// When whoever started this ends it.
    pub deadline: Duration,
    /// The file that is delivered.
    pub delivers: Option<PathBuf>,
    /// Variables for the program, as `NAME=VALUE`.
    pub variables: Vec<String>,
    /// The program and its arguments.
    pub command: Vec<String>,
}

/// Why there is no result: the last line of standard error.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestFailure {
    /// As what it counts.
    pub reason: Reason,
    /// Why, for people.
    pub detail: String,
}

impl GuestFailure {
    fn new(reason: Reason, detail: impl Into<String>) -> Self {
        Self { reason, detail: detail.into() }
    }

    fn of(error: &ClusterError) -> Self {
        let source = std::error::Error::source(error).map(|source| format!(": {source}")).unwrap_or_default();
        Self::new(error.reason(), format!("{error}{source}"))
    }

    fn file(what: &str, path: &Path, error: &std::io::Error) -> Self {
        Self::new(Reason::ScannerNotStarted, format!("{what} `{}`: {error}", path.display()))
    }

    /// What the end of standard error says, where it says it.
    pub(crate) fn read(stderr: &[u8]) -> Option<Self> {
        let last = stderr.trim_ascii_end().rsplit(|byte| *byte == b'\n').next()?;
        serde_json::from_slice(last).ok()
    }
}

/// Runs the program in the target, and gives the exit code to end with.
pub async fn run(request: &GuestRequest) -> u8 {
    match attempt(request).await {
        Ok(code) => code,
        Err(failure) => {
            let line = serde_json::to_string(&failure).expect("it is two texts");
            // The end of standard error is what is kept of it.
            eprintln!("\n{line}");
            NOT_DONE
        }
    }
}

async fn attempt(request: &GuestRequest) -> Result<u8, GuestFailure> {
    let content = request.delivers.as_deref().map(deliverable).transpose()?;
    let name = request.delivers.as_deref().and_then(Path::file_name).and_then(|name| name.to_str());
    let delivered = content.as_ref().map(|content| (name.unwrap_or("content"), content.len()));
    let server =
        kubeconfig::reachable(&request.servers).await.map_err(|why| GuestFailure::new(Reason::ApiUnreachable, why))?;
    let cluster = Cluster::of_pod(server, &request.identity, &Limits::default()).map_err(|e| GuestFailure::of(&e))?;
    // Chosen after the target's content was written, so that nothing in it can pretend to be the end.
    let mark = mark();
    let [inside, outside] = BEFORE.map(|before| request.deadline.saturating_sub(before).max(Duration::from_secs(1)));
    let argv = in_target::command(&Guest {
        word: &request.word,
        mark: &mark,
        delivered,
        from: if request.result.is_some() { From::Pipe } else { From::Stdout },
        limit: inside.as_secs(),
        variables: &request.variables,
        command: &request.command,
    });
    let argv: Vec<&str> = argv.iter().map(String::as_str).collect();
    let place = Place {
        namespace: &request.namespace,
        pod: &request.pod,
        container: &request.container,
        uid: Some(&request.uid),
    };
    let limit = usize::try_from(request.limit).unwrap_or(usize::MAX);
    let caps = Caps { stdout: limit.saturating_add(LAST_LINE), stderr: SAID };
    let mut kept = Kept::new()?;
    let mut sink = |bytes: &[u8]| kept.take(bytes);
    let ended = exec_into(&cluster, &place, &argv, content.as_deref(), caps, outside, &mut sink).await;
    let ended = ended.map_err(|error| GuestFailure::of(&error))?;
    // What the program said is evidence, however it ended.
    let _ = std::io::stderr().write_all(&ended.stderr);
    if ended.stdout_truncated {
        let detail = format!("the result goes on beyond {} bytes", request.limit);
        return Err(GuestFailure::new(Reason::OutputTooLarge, detail));
    }
    if ended.code != Some(0) {
        let detail = format!("the shell in the container ended with {:?}", ended.code);
        return Err(GuestFailure::new(Reason::OutputTruncated, detail));
    }
    let end = kept.end(&mark)?;
    if end.left {
        eprintln!("the folder with the content could not be removed by the command itself");
    }
    let Some(code) = end.code else {
        let said = String::from_utf8_lossy(&ended.stderr);
        let last = said.trim().lines().next_back().unwrap_or("it does not say why");
        return Err(GuestFailure::new(Reason::ScannerNotStarted, format!("in the container: {last}")));
    };
    if code == NOT_DONE {
        let detail = format!("the program ended with exit code {NOT_DONE}, which its definition can't know");
        return Err(GuestFailure::new(Reason::ScannerFailed, detail));
    }
    // An empty one is none, as where a scanner makes no file.
    if end.result > 0 || request.result.is_none() {
        kept.give(end.result, request.result.as_deref())?;
    }
    Ok(code)
}

/// The file, whose digest is told.
fn deliverable(path: &Path) -> Result<Vec<u8>, GuestFailure> {
    let failed = |error: std::io::Error| GuestFailure::file("read what is to be delivered,", path, &error);
    let mut file = fs::File::open(path).map_err(failed)?.take(DELIVERED + 1);
    let mut content = Vec::new();
    file.read_to_end(&mut content).map_err(failed)?;
    if content.len() as u64 > DELIVERED {
        let detail = format!("`{}` has more than the {DELIVERED} bytes that can be delivered", path.display());
        return Err(GuestFailure::new(Reason::ScannerNotStarted, detail));
    }
    eprintln!("delivered `{}`, {} bytes, {}", path.display(), content.len(), Digest::of(&content));
    Ok(content)
}

fn mark() -> String {
    let mut bytes = [0; 16];
    aws_lc_rs::rand::fill(&mut bytes).expect("the operating system gives random numbers");
    format!("{:032x}", u128::from_be_bytes(bytes))
}

/// What arrives of the result, with the last line behind it.
struct Kept {
    file: fs::File,
    failed: Option<std::io::Error>,
}

impl Kept {
    /// In a file that has no name.
    fn new() -> Result<Self, GuestFailure> {
        let file =
            tempfile::tempfile().map_err(|error| GuestFailure::file("make a file in", Path::new("/tmp"), &error))?;
        Ok(Self { file, failed: None })
    }

    fn take(&mut self, bytes: &[u8]) {
        if self.failed.is_none() {
            self.failed = self.file.write_all(bytes).err();
        }
    }

    fn end(&mut self, mark: &str) -> Result<in_target::Ended, GuestFailure> {
        let failed = |error: std::io::Error| GuestFailure::file("keep the result in", Path::new("/tmp"), &error);
        if let Some(error) = self.failed.take() {
            return Err(failed(error));
        }
        let length = self.file.seek(SeekFrom::End(0)).map_err(failed)?;
        self.file.seek(SeekFrom::Start(length.saturating_sub(LAST_LINE as u64))).map_err(failed)?;
        let mut end = Vec::with_capacity(LAST_LINE);
        self.file.read_to_end(&mut end).map_err(failed)?;
        in_target::last_line(&end, length, mark)
            .ok_or_else(|| GuestFailure::new(Reason::OutputTruncated, "what came from the container lacks its end"))
    }

    /// Copies the result, without the last line.
    fn give(&mut self, length: u64, to: Option<&Path>) -> Result<(), GuestFailure> {
        let place = to.unwrap_or(Path::new("stdout"));
        let failed = |error: std::io::Error| GuestFailure::file("write the result to", place, &error);
        self.file.rewind().map_err(failed)?;
        let mut result = (&self.file).take(length);
        let copied = match to {
            Some(path) => {
                if let Some(folder) = path.parent() {
                    fs::create_dir_all(folder).map_err(failed)?;
                }
                std::io::copy(&mut result, &mut fs::File::create(path).map_err(failed)?)
            }
            None => std::io::copy(&mut result, &mut std::io::stdout().lock()),
        };
        match copied.map_err(failed)? == length {
            true => Ok(()),
            false => Err(failed(std::io::ErrorKind::UnexpectedEof.into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(bytes: &[u8]) -> Kept {
        let mut kept = Kept::new().expect("a file");
        bytes.chunks(7).for_each(|chunk| kept.take(chunk));
        kept
    }

    #[test]
    fn a_result_is_what_is_before_its_last_line_and_none_without_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let to = folder.path().join("below/arf.xml");
        let mut whole = kept(&[&b"r".repeat(2000)[..], b"\nm 2 gone\n"].concat());
        let end = whole.end("m").expect("a last line");
        assert_eq!((end.result, end.code, end.left), (2000, Some(2), false));
        whole.give(end.result, Some(&to)).expect("it is written");
        assert_eq!(fs::read(&to).expect("it is there"), b"r".repeat(2000));
        for cut in [&b"r"[..], b"", b"r\nm 2 gon", b"r\nn 2 gone\n"] {
            assert_eq!(kept(cut).end("m").expect_err("it is cut").reason, Reason::OutputTruncated);
        }
    }

    #[test]
    fn why_there_is_none_is_the_last_line_of_what_was_said() {
        let failure = GuestFailure::new(Reason::TargetChanged, "it was restarted");
        let line = serde_json::to_string(&failure).expect("JSON");
        let said = format!("{{\"reason\":\"no-shell\",\"detail\":\"a program's\"}}\n{line}\n");
        assert_eq!(GuestFailure::read(said.as_bytes()), Some(failure));
        assert_eq!(GuestFailure::read(b"anything else"), None);
        assert_eq!(GuestFailure::read(b""), None);
    }

    #[tokio::test]
    async fn what_can_not_be_read_is_not_delivered() {
        let folder = tempfile::tempdir().expect("a folder");
        let failure = deliverable(&folder.path().join("none")).expect_err("there is none");
        assert_eq!(failure.reason, Reason::ScannerNotStarted);
        fs::write(folder.path().join("x"), "content").expect("written");
        assert_eq!(deliverable(&folder.path().join("x")).expect("it is read"), b"content");
        let large = fs::File::create(folder.path().join("large")).expect("made");
        large.set_len(DELIVERED + 1).expect("it has a length");
        assert!(deliverable(&folder.path().join("large")).expect_err("too much").detail.contains("more than"));
    }
}
