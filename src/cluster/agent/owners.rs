//! Whose a socket is, where a scanner's network is its target's too: by the descriptors of processes (proc_pid_fd(5)).
//!
//! The scanner's processes are those in the agent's own control group: the runtime puts a container's processes there, and none
//! without privileges can leave it, whatever its parent. Those of the target, and of other containers whose processes are seen,
//! are the rest. It is looked again and again: what was open for less than a look is nobody's.
//!
//! What could go wrong, and where it is seen:
//! * the scanner hides its descriptors by a program that may not be read: said, and nothing is claimed;
//! * the runtime puts a command there, which nobody may look into until it runs: known by its parent, and passed over;
//! * control groups do not tell containers apart: their first process is not the agent's, and is in its group; said;
//! * raw sockets, which no counter counts: a scanner that may have the capability is not vouched for;
//! * the scanner, which has the target's user, makes a process of the target's talk for it: not seen. So could one in a pod of
//!   its own meddle with the agent beside it; what is looked for is a scanner that calls home, not an attack.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::own_sockets::sockets;

/// `CAP_NET_RAW` (capabilities(7), linux/capability.h).
const NET_RAW: u32 = 13;

/// How often a process is asked again that does not let its descriptors be seen: one that ends or begins is shut for a moment.
const ATTEMPTS: u32 = 5;
const PAUSE: Duration = Duration::from_millis(2);

/// Whose a socket is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    /// A process of the scanner's has it, or had.
    Scanner,
    /// Only others have it, or had.
    Other,
    /// No process was seen to have it.
    Unknown,
}

/// Who has which sockets.
pub(super) struct Owners {
    proc: PathBuf,
    group: String,
    scanners: HashSet<u64>,
    others: HashSet<u64>,
}

impl Owners {
    /// Begins, in the file systems of processes.
    ///
    /// # Errors
    /// The reason why a scanner's sockets can't be told from others.
    pub(super) fn begin(proc: &Path) -> Result<Self, String> {
        let read = |name: &str| {
            let path = proc.join(name);
            fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))
        };
        let group = read("self/cgroup")?;
        if group.trim().is_empty() || read("1/cgroup")? == group {
            return Err(
                "the scanner's control group is its target's too, so that nothing tells whose a socket is".to_owned()
            );
        }
        let status = read("self/status")?;
        let bounding =
            status.lines().find_map(|line| u64::from_str_radix(line.strip_prefix("CapBnd:")?.trim(), 16).ok());
        if bounding.is_none_or(|bounding| bounding >> NET_RAW & 1 == 1) {
            return Err("the scanner may open raw sockets, and nothing counts what they send".to_owned());
        }
        Ok(Self { proc: proc.to_owned(), group, scanners: HashSet::new(), others: HashSet::new() })
    }

    /// Looks at all processes once.
    ///
    /// # Errors
    /// The reason why the sockets of a process of the scanner's can't be seen.
    pub(super) fn look(&mut self) -> Result<(), String> {
        let failed = |path: &Path, error: io::Error| format!("{}: {error}", path.display());
        for entry in fs::read_dir(&self.proc).map_err(|error| failed(&self.proc, error))? {
            let process = entry.map_err(|error| failed(&self.proc, error))?.path();
            let number = process.file_name().and_then(|name| name.to_str()?.parse::<u32>().ok());
            if number.is_none() {
                continue;
            }
            let group = match fs::read_to_string(process.join("cgroup")) {
                Ok(group) => group,
                Err(error) if is_gone(&error) => continue,
                Err(error) => return Err(failed(&process, error)),
            };
            let is_scanners = group == self.group;
            match descriptors(&process, if is_scanners { ATTEMPTS } else { 1 }) {
                Ok(inodes) if is_scanners => self.scanners.extend(inodes),
                Ok(inodes) => self.others.extend(inodes),
                Err(error) if is_scanners && !is_of_runtime(&process) => return Err(failed(&process, error)),
                // What it has stays nobody's.
                Err(_) => {}
            }
        }
        Ok(())
    }

    /// Whose the socket with this number is.
    pub(super) fn of(&self, inode: u64) -> Owner {
        match inode {
            0 => Owner::Unknown,
            _ if self.scanners.contains(&inode) => Owner::Scanner,
            _ if self.others.contains(&inode) => Owner::Other,
            _ => Owner::Unknown,
        }
    }
}

/// The numbers of a process's sockets. One that has ended has none.
fn descriptors(process: &Path, attempts: u32) -> io::Result<impl Iterator<Item = u64> + use<>> {
    let mut attempt = 1;
    let found = loop {
        match sockets(&process.join("fd")) {
            Ok(found) => break found,
            Err(error) if is_gone(&error) || has_ended(process) => break Default::default(),
            Err(error) if attempt >= attempts => return Err(error),
            Err(_) => attempt += 1,
        }
        std::thread::sleep(PAUSE);
    };
    Ok(found.into_iter())
}

/// Whether the runtime put it there, as it does with a command that is run in the container: its parent is not seen here (0 in
/// proc_pid_stat(5)), as that of no process of the scanner's is. Until it has become the command, nobody may look into it.
fn is_of_runtime(process: &Path) -> bool {
    let text = fs::read_to_string(process.join("stat")).unwrap_or_default();
    let parent = text.rsplit_once(')').and_then(|(_, rest)| rest.split_ascii_whitespace().nth(1));
    parent == Some("0")
}

/// Whether nothing of it is left but that it ended (`Z` and `X` in proc_pid_stat(5)).
fn has_ended(process: &Path) -> bool {
    match fs::read_to_string(process.join("stat")) {
        Ok(text) => text.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with(['Z', 'X'])),
        Err(error) => is_gone(&error) && !process.exists(),
    }
}

/// Whether a process ended while it was looked at.
fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error())
}
