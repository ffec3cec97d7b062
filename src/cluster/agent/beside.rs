//! Looking at a container from beside it, where all containers of a pod see each other's processes.
//!
//! Process 1 is then none of the container's, and process environments are what their programs make of them (some write
//! their title over them). What no program without privileges can change is its control group, and the kubelet's runtimes
//! put the container's id into its path: so a container's processes are those whose `/proc/PID/cgroup` names its id.
//!
//! What is collected lies on a volume before it is sent, so that after a broken connection it is sent again and not
//! collected again.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tokio::signal::unix::{SignalKind, signal};

use super::error::AgentError;

/// The file systems of processes as this one sees them.
pub const PROC: &str = "/proc";

/// How often it is looked whether the container has settled.
const LOOK: Duration = Duration::from_millis(200);

/// A container has settled when neither its processes nor its sockets changed for so long ...
const QUIET: Duration = Duration::from_secs(2);
/// ... and is looked at all the same when they still change after so long.
const RESTLESS: Duration = Duration::from_secs(15);

/// Characters of a container's id, at least: a short one may name several.
const ID_CHARACTERS: usize = 12;

/// A container, by its first process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Neighbour {
    proc: PathBuf,
    id: String,
    /// Its first process.
    pub pid: u32,
    /// When that was started, in ticks: another process may get its number.
    started: u64,
}

/// What of `/proc/PID/stat` counts (proc_pid_stat(5)): the parent, and the time of the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stat {
    parent: u32,
    started: u64,
}

impl Neighbour {
    /// The container with this id. `proc` is [`PROC`].
    ///
    /// # Errors
    /// When there is no process whose control group names the id, or none of them is a container's first.
    pub fn find(proc: &Path, id: &str) -> Result<Self, AgentError> {
        let missing = |why: &str| AgentError::Neighbour { id: id.to_owned(), why: why.to_owned() };
        let fits = id.len() >= ID_CHARACTERS && id.bytes().all(|b| b.is_ascii_alphanumeric());
        if !fits {
            return Err(missing("it is no id of a container"));
        }
        let members = members(proc, id);
        if members.is_empty() {
            return Err(missing(
                "no process here is in its control group: it has ended, or its processes are not shared",
            ));
        }
        // The runtime itself starts the first one, and those of an exec: their parents are outside of what is seen here.
        let first = members
            .into_iter()
            .filter_map(|pid| Some((stat(proc, pid)?, pid)))
            .filter(|(stat, _)| stat.parent == 0)
            .min_by_key(|(stat, pid)| (stat.started, *pid));
        let Some((stat, pid)) = first else { return Err(missing("its first process has ended")) };
        Ok(Self { proc: proc.to_owned(), id: id.to_owned(), pid, started: stat.started })
    }

    /// Where its files are.
    pub fn root(&self) -> PathBuf {
        self.proc.join(self.pid.to_string()).join("root")
    }

    /// Its processes now.
    pub fn processes(&self) -> BTreeSet<u32> {
        members(&self.proc, &self.id)
    }

    /// That its first process still is.
    ///
    /// # Errors
    /// When it has ended.
    pub fn still_runs(&self) -> Result<(), AgentError> {
        match stat(&self.proc, self.pid) {
            Some(stat) if stat.started == self.started => Ok(()),
            _ => {
                let why = "its first process ended while it was looked at".to_owned();
                Err(AgentError::Neighbour { id: self.id.clone(), why })
            }
        }
    }

    /// Waits until its processes and sockets stay as they are, at most for a while. Gives whether they do.
    ///
    /// # Errors
    /// When it ends meanwhile.
    pub fn settle(&self) -> Result<Settled, AgentError> {
        let began = Instant::now();
        let mut last = (self.processes(), self.listeners());
        let mut since = Instant::now();
        loop {
            std::thread::sleep(LOOK);
            self.still_runs()?;
            let now = (self.processes(), self.listeners());
            if now != last {
                last = now;
                since = Instant::now();
            }
            match () {
                () if since.elapsed() >= QUIET => return Ok(Settled::Yes),
                () if began.elapsed() >= RESTLESS => return Ok(Settled::No),
                () => {}
            }
        }
    }

    /// The inodes of sockets that listen in its network (state 0A in proc_pid_net(5)).
    fn listeners(&self) -> BTreeSet<String> {
        let mut inodes = BTreeSet::new();
        for table in ["tcp", "tcp6"] {
            let path = self.proc.join(self.pid.to_string()).join("net").join(table);
            let text = fs::read_to_string(path).unwrap_or_default();
            let words = text.lines().map(|line| line.split_ascii_whitespace().collect::<Vec<_>>());
            inodes.extend(words.filter(|w| w.get(3) == Some(&"0A")).filter_map(|w| w.get(9).map(|i| (*i).to_owned())));
        }
        inodes
    }
}

/// Whether a container came to rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    /// Its processes and sockets stay as they are.
    Yes,
    /// They still change.
    No,
}

/// The processes whose control group names this id. One that ends meanwhile is none of them.
fn members(proc: &Path, id: &str) -> BTreeSet<u32> {
    let Ok(entries) = fs::read_dir(proc) else { return BTreeSet::new() };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| {
        let text = fs::read_to_string(proc.join(pid.to_string()).join("cgroup")).unwrap_or_default();
        text.lines().any(|line| names(line, id))
    })
    .collect()
}

/// Whether a line of `/proc/PID/cgroup` (cgroups(7)) has a folder that is the id, or ends with it behind a hyphen or a colon,
/// with or without `.scope`, as runtimes name them. What is below it was made by the container itself, and is its own.
fn names(line: &str, id: &str) -> bool {
    let path = line.splitn(3, ':').nth(2).unwrap_or_default();
    path.split('/').any(|folder| {
        let folder = folder.strip_suffix(".scope").unwrap_or(folder);
        folder.strip_suffix(id).is_some_and(|before| before.is_empty() || before.ends_with(['-', ':']))
    })
}

fn stat(proc: &Path, pid: u32) -> Option<Stat> {
    let text = fs::read_to_string(proc.join(pid.to_string()).join("stat")).ok()?;
    // The program's name is in brackets and may hold anything, brackets too.
    let (_, rest) = text.rsplit_once(')')?;
    let words: Vec<&str> = rest.split_ascii_whitespace().collect();
    Some(Stat { parent: words.get(1)?.parse().ok()?, started: words.get(19)?.parse().ok()? })
}

/// The parcel of one scan on the shared volume.
#[derive(Clone, Debug)]
pub struct Kept(PathBuf);

/// What the names of parcels end with.
const PARCEL: &str = ".parcel";

impl Kept {
    /// In this folder, for the scan that this word names.
    ///
    /// # Errors
    /// When the word is none: it becomes part of a path.
    pub fn new(folder: &Path, word: &str) -> Result<Self, AgentError> {
        let fits =
            !word.is_empty() && word.len() <= 100 && word.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        match fits {
            true => Ok(Self(folder.join(format!("{word}{PARCEL}")))),
            false => Err(AgentError::Word),
        }
    }

    /// Its bytes, where it is there already.
    pub fn read(&self) -> Option<Vec<u8>> {
        fs::read(&self.0).ok()
    }

    /// Puts it there, whole or not at all, in the place of those of earlier scans.
    ///
    /// # Errors
    /// When the volume can't be written.
    pub fn write(&self, parcel: &[u8]) -> Result<(), AgentError> {
        let folder = self.0.parent().unwrap_or(Path::new("/"));
        for entry in fs::read_dir(folder).map_err(AgentError::file("list", folder))?.flatten() {
            if entry.path().extension().is_some_and(|extension| extension == &PARCEL[1..]) {
                // What can't be removed takes room, and nothing else.
                let _ = fs::remove_file(entry.path());
            }
        }
        let part = self.0.with_extension("part");
        fs::write(&part, parcel).map_err(AgentError::file("write", &part))?;
        fs::rename(&part, &self.0).map_err(AgentError::file("write", &self.0))
    }
}

/// Waits for SIGTERM, or for the end of `deadline` where there is one.
///
/// # Errors
/// When signals can't be listened for.
pub async fn stand_by(deadline: Option<Duration>) -> Result<(), AgentError> {
    let mut terminated = signal(SignalKind::terminate()).map_err(AgentError::Signals)?;
    let end = async {
        match deadline {
            Some(deadline) => tokio::time::sleep(deadline).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        _ = terminated.recv() => {}
        () = end => {}
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "82c882e84a401331fdf5d38da5368ff8caef146c9ecbb3ca7c1dbe79fb154ed8";
    const OTHER: &str = "99b9037ba7edfb949e2ac0cd4db44f72386d77defd7bb2a7da1313ed076fe2ea";

    /// Processes: number, name, parent, start, control group.
    fn proc(processes: &[(u32, &str, u32, u64, &str)]) -> tempfile::TempDir {
        let proc = tempfile::tempdir().expect("a folder");
        for (pid, name, parent, started, cgroup) in processes {
            let folder = proc.path().join(pid.to_string());
            fs::create_dir(&folder).expect("a folder");
            let stat = format!("{pid} ({name}) S {parent} 1 1 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 {started} 1 1\n");
            fs::write(folder.join("stat"), stat).expect("it is written");
            fs::write(folder.join("cgroup"), cgroup).expect("it is written");
        }
        fs::create_dir(proc.path().join("sys")).expect("a folder");
        proc
    }

    #[test]
    fn the_first_process_of_the_container_is_found_among_those_of_others() {
        let group = |id: &str| format!("4:memory:/kubepods/pod1/{id}\n0::/kubepods/pod1/{id}\n");
        let proc = proc(&[
            (1, "idle", 0, 5, "0::/kubepods/pod1/pause\n"),
            (7, "gapscan", 0, 6, &group(OTHER)),
            (20, "nginx) S 1 (x", 0, 8, &group(ID)),
            (26, "nginx", 20, 9, &group(ID)),
            // A command that was run in it later, with a smaller number because numbers began anew.
            (9, "sh", 0, 900, &group(ID)),
        ]);
        let found = Neighbour::find(proc.path(), ID).expect("it is there");
        assert_eq!((found.pid, found.root()), (20, proc.path().join("20/root")));
        assert_eq!(found.processes(), [9, 20, 26].into());
        found.still_runs().expect("it runs");
        fs::remove_dir_all(proc.path().join("20")).expect("it ends");
        found.still_runs().expect_err("it has ended");
        let stat = "20 (other) S 0 1 1 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 1000 1 1\n";
        fs::create_dir(proc.path().join("20"))
            .and_then(|()| fs::write(proc.path().join("20/stat"), stat))
            .expect("new");
        found.still_runs().expect_err("another process has its number");
    }

    #[test]
    fn a_container_that_is_not_there_is_not_mistaken_for_another() {
        let proc = proc(&[(7, "gapscan", 0, 6, &format!("0::/pod/{OTHER}")), (8, "x", 7, 9, &format!("0::/pod/{ID}"))]);
        for id in ["", "..", "82c882e84a40/../x", "99b9", &OTHER[..63], ID] {
            Neighbour::find(proc.path(), id).expect_err(id);
        }
        Neighbour::find(proc.path(), OTHER).expect("it is there");
    }

    #[test]
    fn runtimes_name_control_groups_in_their_ways() {
        for path in [
            format!("0::/kubepods/besteffort/pod1/{ID}"),
            format!("0::/../{ID}"),
            format!("0::/kubepods.slice/pod1.slice/cri-containerd-{ID}.scope"),
            format!("0::/kubepods.slice/crio-{ID}.scope/container"),
            format!("9:name=systemd:/system.slice/containerd.service/kubepods-pod1.slice:cri-containerd:{ID}"),
        ] {
            assert!(names(&path, ID), "{path}");
        }
        for path in [format!("0::/x{ID}"), format!("0::/{ID}0"), "0::/".to_owned(), String::new()] {
            assert!(!names(&path, ID), "{path}");
        }
    }

    #[test]
    fn a_parcel_is_kept_for_its_scan_and_replaces_those_before() {
        let folder = tempfile::tempdir().expect("a folder");
        let kept = |word: &str| Kept::new(folder.path(), word).expect("a word");
        assert_eq!(kept("run-1").read(), None);
        kept("run-1").write(b"one").expect("it is written");
        assert_eq!(kept("run-1").read().as_deref(), Some(&b"one"[..]));
        kept("run-2").write(b"two").expect("it is written");
        assert_eq!(kept("run-1").read(), None, "the volume holds one");
        for word in ["", "../x", "a/b", "a.b"] {
            Kept::new(folder.path(), word).expect_err(word);
        }
    }
}
