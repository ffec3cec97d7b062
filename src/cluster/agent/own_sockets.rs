//! Which sockets the collector opens itself, where the network is somebody else's.
//!
//! Beside a target the network namespace is the target's: its tables show the target's connections, and its counters count them.
//! What is whose is told by the numbers of the sockets behind a process's own descriptors (proc_pid_fd(5), `socket:[inode]`). They
//! are looked at again and again while the collector works, by a thread of its own. Sockets of the local kind (unix(7)), which
//! the collector's runtime has for signals, lead nowhere and are left out; what is of no kind that the tables name, counts.
//!
//! What this can't see is a socket that was open for less than [`LOOK`]. The looks are counted, so that a reader can tell.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Read as _};
use std::path::Path;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::base::text::brief;

/// How often the descriptors are looked at.
pub const LOOK: Duration = Duration::from_millis(10);

/// How many sockets are named.
const NAMED: usize = 20;

/// Bytes of one table, at most.
const TABLE_BYTES: u64 = 8 << 20;

/// Where a process sees itself.
const OWN: &str = "/proc/self";

/// What a process was seen to have opened.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OwnSockets {
    /// Why not everything could be seen; then nothing says that there was none.
    pub unseen: Option<String>,
    /// How often it was looked.
    pub looks: u64,
    /// The sockets that lead out of the machine or may, by their kind as far as it is known. At most 20.
    pub opened: Vec<String>,
}

impl OwnSockets {
    /// A sentence for the record.
    pub fn note(&self) -> String {
        let every = LOOK.as_millis();
        match (&self.unseen, self.opened.is_empty()) {
            (_, false) => {
                let opened: Vec<String> = self.opened.iter().map(|socket| brief(socket)).collect();
                format!("the collector itself had sockets in the target's network: {}", opened.join(", "))
            }
            (Some(why), true) => {
                format!("whether the collector itself had sockets in the target's network is not known: {}", brief(why))
            }
            (None, true) if self.looks == 0 => {
                "whether the collector itself had sockets in the target's network was not looked at".to_owned()
            }
            (None, true) => format!(
                "the collector itself had no socket in the target's network at any of {} looks, one every {every} ms",
                self.looks
            ),
        }
    }
}

/// Looks at the own descriptors until it is told to end.
pub struct OwnWatch {
    end: Sender<()>,
    thread: JoinHandle<OwnSockets>,
}

impl OwnWatch {
    /// Begins.
    pub fn begin() -> Self {
        let (end, ended) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            let mut seen = Seen::default();
            loop {
                seen.look(Path::new(OWN));
                match ended.recv_timeout(LOOK) {
                    Err(RecvTimeoutError::Timeout) => {}
                    Ok(()) | Err(RecvTimeoutError::Disconnected) => {
                        seen.look(Path::new(OWN));
                        return seen.sockets;
                    }
                }
            }
        });
        Self { end, thread }
    }

    /// Looks a last time, and says what was seen.
    pub fn end(self) -> OwnSockets {
        // It may have panicked, which the join tells.
        let _ = self.end.send(());
        self.thread
            .join()
            .unwrap_or_else(|_| OwnSockets { unseen: Some("the look broke off".to_owned()), ..OwnSockets::default() })
    }
}

#[derive(Default)]
struct Seen {
    sockets: OwnSockets,
    known: BTreeSet<u64>,
}

impl Seen {
    fn look(&mut self, process: &Path) {
        if let Err(error) = self.try_look(process) {
            self.sockets.unseen.get_or_insert_with(|| format!("{}: {error}", process.display()));
        }
    }

    fn try_look(&mut self, process: &Path) -> io::Result<()> {
        let inodes = sockets(&process.join("fd"))?;
        self.sockets.looks += 1;
        let new: Vec<u64> = inodes.into_iter().filter(|inode| !self.known.contains(inode)).collect();
        if new.is_empty() {
            return Ok(());
        }
        let kinds = kinds(&process.join("net"))?;
        for inode in new {
            self.known.insert(inode);
            let kind = kinds.get(&inode).map_or("of no kind that is listed", String::as_str);
            if kind != LOCAL && self.sockets.opened.len() < NAMED {
                self.sockets.opened.push(kind.to_owned());
            }
        }
        Ok(())
    }
}

/// The numbers of the sockets among the descriptors in this folder.
pub(super) fn sockets(descriptors: &Path) -> io::Result<BTreeSet<u64>> {
    let mut inodes = BTreeSet::new();
    for entry in fs::read_dir(descriptors)? {
        // The descriptor that lists this folder is gone by the time it is asked for.
        let Ok(target) = fs::read_link(entry?.path()) else { continue };
        let number = target.to_str().and_then(|text| text.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok());
        inodes.extend::<Option<u64>>(number);
    }
    Ok(inodes)
}

const LOCAL: &str = "unix";

/// What the tables of the network namespace say of each socket, by its number.
fn kinds(tables: &Path) -> io::Result<BTreeMap<u64, String>> {
    let mut kinds = BTreeMap::new();
    // The column of the number, and of the address of the other side where there is one.
    for (table, inode, remote) in [
        (LOCAL, 6, None),
        ("tcp", 9, Some(2)),
        ("tcp6", 9, Some(2)),
        ("udp", 9, Some(2)),
        ("udp6", 9, Some(2)),
        ("raw", 9, Some(2)),
        ("raw6", 9, Some(2)),
        ("icmp", 9, Some(2)),
        ("icmp6", 9, Some(2)),
        ("packet", 8, None),
        ("netlink", 9, None),
    ] {
        let Some(text) = read(&tables.join(table))? else { continue };
        for line in text.lines().skip(1) {
            let words: Vec<&str> = line.split_ascii_whitespace().collect();
            let Some(number) = words.get(inode).and_then(|word| word.parse().ok()) else { continue };
            let to = remote.and_then(|column| super::sockets::address(words.get(column)?));
            kinds.insert(number, to.map_or_else(|| table.to_owned(), |to| format!("{table} to {to}")));
        }
    }
    Ok(kinds)
}

/// A table, where there is one.
fn read(path: &Path) -> io::Result<Option<String>> {
    let file = match fs::File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        outcome => outcome?,
    };
    let mut text = String::new();
    if file.take(TABLE_BYTES).read_to_string(&mut text)? as u64 == TABLE_BYTES {
        return Err(io::Error::other(format!("`{}` has more than {TABLE_BYTES} bytes", path.display())));
    }
    Ok(Some(text))
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream, UdpSocket};
    use std::os::unix::net::UnixStream;

    use super::*;

    /// What the own sockets are. Other tests of this process have some as well.
    fn own() -> Vec<String> {
        let inodes = sockets(&Path::new(OWN).join("fd")).expect("descriptors");
        let all = kinds(&Path::new(OWN).join("net")).expect("tables");
        inodes.iter().filter_map(|inode| all.get(inode).cloned()).collect()
    }

    #[test]
    fn a_connection_is_named_by_its_other_side_and_a_local_pair_as_such() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let to = listener.local_addr().expect("an address");
        let _stream = TcpStream::connect(to).expect("connected");
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
        socket.connect(to).expect("bound to a peer");
        let _pair = UnixStream::pair().expect("a pair");
        let own = own();
        for kind in [format!("tcp to {to}"), format!("udp to {to}"), LOCAL.to_owned()] {
            assert!(own.contains(&kind), "{kind} is not in {own:?}");
        }
    }

    #[test]
    fn nothing_is_claimed_of_what_could_not_be_seen() {
        let mut seen = Seen::default();
        seen.look(Path::new("/nowhere"));
        assert!(seen.sockets.note().contains("is not known"), "{}", seen.sockets.note());
        assert!(OwnSockets::default().note().contains("was not looked at"));
        let silent = OwnSockets { looks: 7, ..OwnSockets::default() };
        assert!(silent.note().contains("no socket in the target's network at any of 7 looks"));
        let loud = OwnSockets { looks: 7, opened: vec!["tcp to 10.0.0.1:443".to_owned()], unseen: Some(String::new()) };
        assert!(loud.note().contains("tcp to 10.0.0.1:443"));
    }

    #[test]
    fn it_looks_until_it_is_told_to_end() {
        let seen = OwnWatch::begin().end();
        assert!(seen.looks >= 2 && seen.unseen.is_none(), "{seen:?}");
    }
}
