//! Handing over what the scanner left: waits for its end, then one header line and the bytes.

use std::fs;
use std::io::{self, Read, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use super::error::AgentError;
use super::protocol::{Header, ResultState, STATUS_FILE, STDERR_TAIL, STDOUT_FILE, STDOUT_TAIL};
use super::run::ResultAt;

/// How often something is sent while there is nothing to send: load balancers close idle connections, some after 30 s.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// How often the spool is looked at.
const LOOK: Duration = Duration::from_millis(100);

/// Waits until the scanner has ended, and writes header, result (if it has at most `limit` bytes) and the ends of its
/// output to `out`.
///
/// # Errors
/// When the spool can't be read or nobody takes the bytes.
pub fn collect(spool: &Path, result: &ResultAt, limit: u64, out: &mut impl Write) -> Result<(), AgentError> {
    let header = wait(&spool.join(STATUS_FILE), out)?;
    let mut line =
        serde_json::to_vec(&header).map_err(|source| AgentError::Spool { path: spool.join(STATUS_FILE), source })?;
    line.push(b'\n');
    out.write_all(&line).map_err(AgentError::Send)?;
    if let ResultState::Present { length, .. } = header.result
        && length <= limit
    {
        let stdout = spool.join(STDOUT_FILE);
        let path = match result {
            ResultAt::File(path) => path,
            ResultAt::Stdout => &stdout,
        };
        copy(path, length, out)?;
    }
    copy(&spool.join(STDOUT_TAIL), header.stdout_tail, out)?;
    copy(&spool.join(STDERR_TAIL), header.stderr_tail, out)?;
    out.flush().map_err(AgentError::Send)
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

fn copy(path: &Path, length: u64, out: &mut impl Write) -> Result<(), AgentError> {
    if length == 0 {
        return Ok(());
    }
    let file = fs::File::open(path).map_err(AgentError::file("read", path))?;
    io::copy(&mut file.take(length), out).map_err(AgentError::Send)?;
    Ok(())
}
