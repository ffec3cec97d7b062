//! Handing over what the scanner left: waits for its end, then sends everything in one parcel.

use std::fs;
use std::io::{self, Read, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use super::error::AgentError;
use super::parcel::{BLOCK_BYTES, Sender};
use super::protocol::{
    Header, RESULT, ResultState, STATUS, STATUS_FILE, STDERR, STDERR_TAIL, STDOUT, STDOUT_FILE, STDOUT_TAIL,
};
use super::run::{ResultAt, stamp};

/// How often something is sent while there is nothing to send: load balancers close idle connections, some after 30 s.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// How often the spool is looked at.
const LOOK: Duration = Duration::from_millis(100);

/// Tells the scanner's agent which container it is beside: its id, whole or not at all.
///
/// # Errors
/// When the file can't be written.
pub fn tell(file: &Path, id: &str) -> Result<(), AgentError> {
    let part = file.with_extension("part");
    if let Some(folder) = file.parent() {
        fs::create_dir_all(folder).map_err(AgentError::file("make", folder))?;
    }
    fs::write(&part, id).map_err(AgentError::file("write", &part))?;
    fs::rename(&part, file).map_err(AgentError::file("write", file))
}

/// Waits until the scanner has ended, and writes header, result (if it has at most `limit` bytes) and the ends of its
/// output to `out`.
///
/// # Errors
/// When the spool can't be read, the result was changed meanwhile, or nobody takes the bytes. What was written then has no
/// end, so that it is taken for nothing.
pub fn collect(spool: &Path, result: &ResultAt, limit: u64, out: &mut impl Write) -> Result<(), AgentError> {
    let header = wait(&spool.join(STATUS_FILE), out)?;
    let status =
        serde_json::to_vec(&header).map_err(|source| AgentError::Spool { path: spool.join(STATUS_FILE), source })?;
    let mut parcel = Sender::begin(out).map_err(AgentError::Send)?;
    parcel.add(STATUS, &status).map_err(AgentError::Send)?;
    if let ResultState::Present { length, stamp } = &header.result
        && *length <= limit
    {
        let stdout = spool.join(STDOUT_FILE);
        let path = match result {
            ResultAt::File(path) => path,
            ResultAt::Stdout => &stdout,
        };
        send_file(RESULT, path, *length, Some(stamp), &mut parcel)?;
    }
    for (part, name) in [(STDOUT, STDOUT_TAIL), (STDERR, STDERR_TAIL)] {
        send_file(part, &spool.join(name), u64::MAX, None, &mut parcel)?;
    }
    parcel.end().map_err(AgentError::Send)
}

fn wait(status: &Path, out: &mut impl Write) -> Result<Header, AgentError> {
    let mut spoke = Instant::now();
    loop {
        match fs::read(status) {
            Ok(text) => {
                return serde_json::from_slice(&text)
                    .map_err(|source| AgentError::Spool { path: status.to_owned(), source });
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(AgentError::File { what: "read", path: status.to_owned(), source }),
        }
        if spoke.elapsed() >= KEEP_ALIVE {
            out.write_all(b"\n").and_then(|()| out.flush()).map_err(AgentError::Send)?;
            spoke = Instant::now();
        }
        std::thread::sleep(LOOK);
    }
}

/// Sends the first `length` bytes of a file, which must bear the stamp before and after.
fn send_file(
    part: &'static str,
    path: &Path,
    length: u64,
    expected: Option<&str>,
    parcel: &mut Sender<impl Write>,
) -> Result<(), AgentError> {
    let read = |source| AgentError::File { what: "read", path: path.to_owned(), source };
    let unchanged = |meta: io::Result<fs::Metadata>| {
        let found = stamp(&meta.map_err(read)?);
        match expected {
            Some(expected) if found != expected => Err(AgentError::Changed { path: path.to_owned() }),
            _ => Ok(()),
        }
    };
    // Before it is opened: a pipe in its place would be waited for.
    unchanged(fs::symlink_metadata(path))?;
    let file = fs::File::open(path).map_err(read)?;
    parcel.add(part, &[]).map_err(AgentError::Send)?;
    let mut content = (&file).take(length);
    let mut buffer = vec![0; BLOCK_BYTES];
    loop {
        match content.read(&mut buffer).map_err(read)? {
            0 => return unchanged(file.metadata()),
            n => parcel.add(part, &buffer[..n]).map_err(AgentError::Send)?,
        }
    }
}
