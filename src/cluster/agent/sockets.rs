//! To whom a scanner talks, or tries to, as its own network namespace shows it (proc_pid_net(5)).
//!
//! Sockets are sampled, so that their addresses are known; what was too short for a sample shows in the kernel's counters of
//! the namespace (RFC 4022 `tcpActiveOpens`, RFC 4113 `udpOutDatagrams`, RFC 4293 echo requests), though not where it went. Both
//! together leave no way out unseen but for raw sockets, which a container without capabilities can't open, and other
//! transports than TCP, UDP and ICMP.
//!
//! Connections of the namespace with itself, over loopback, lead nowhere and are left out. Nothing here needs any right, and
//! no packet is sent.
//!
//! In a network that is the target's too, `Owners` tell whose a socket is. The counters count for both: what they count counts
//! as the scanner's, but for connections of sockets that were seen among the target's.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs;
use std::io::{self, Read as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::owners::{Owner, Owners};

/// The folder with the tables of the own network namespace.
pub const OWN: &str = "/proc/self/net";

/// How often the tables are read.
pub const LOOK: Duration = Duration::from_millis(250);

/// How many peers are named.
pub const PEERS: usize = 100;

/// How many sockets are told apart. Beyond it, nothing is known of those that come new.
const SOCKETS: usize = 20_000;

/// Bytes of one table, at most: some 40,000 sockets.
const TABLE_BYTES: u64 = 8 << 20;

/// Whose network a scanner has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Network {
    /// Its own pod's: what talks there is the scanner.
    #[default]
    Own,
    /// Its target's: what talks there may as well be the target.
    Shared,
}

/// The transport.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Transport {
    /// TCP.
    Tcp,
    /// UDP: only sockets that are bound to one peer show it.
    Udp,
}

/// What was seen of a peer. The later counts for more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Contact {
    /// It was called and, as far as was seen, did not answer: a refusal, or a policy that drops.
    Tried,
    /// It called, and was taken.
    Accepted,
    /// It was called, and a connection came about. With UDP: was to be sent to.
    Connected,
}

/// An address that was talked to, or tried.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Peer {
    /// By which transport.
    pub transport: Transport,
    /// Its address. Of one that called, the port is that of its own choice.
    pub address: SocketAddr,
    /// What came of it.
    pub contact: Contact,
}

/// What was seen in the time of a scan.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Sockets {
    /// Where it was looked. In a network that is the target's too, what is here is what is the scanner's, or may be.
    #[serde(default)]
    pub network: Network,
    /// Why not everything could be seen; then nothing says that there was no more.
    pub unseen: Option<String>,
    /// How often the tables were read.
    pub looks: u64,
    /// The peers, in their order.
    pub peers: Vec<Peer>,
    /// How many more there were.
    pub peers_omitted: u64,
    /// Attempts to connect that were too short to be seen, so that it is not known to whom.
    pub brief_connections: u64,
    /// Datagrams and echo requests that were sent to addresses that no socket names.
    pub datagrams: u64,
}

impl Sockets {
    /// Whether it is known that nothing was sent to anybody.
    pub fn is_silent(&self) -> bool {
        let Self { network: _, unseen, looks: _, peers, peers_omitted, brief_connections, datagrams } = self;
        unseen.is_none() && peers.is_empty() && *peers_omitted == 0 && *brief_connections == 0 && *datagrams == 0
    }
}

/// A socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Socket {
    transport: Transport,
    local: SocketAddr,
    remote: SocketAddr,
}

/// What a table says of it: its state, and its number, which is 0 of one that no process has any more.
struct Entry {
    socket: Socket,
    state: u8,
    inode: u64,
}

/// The states of RFC 9293 as Linux numbers them (`include/net/tcp_states.h`).
const ESTABLISHED: u8 = 1;
const SYN_SENT: u8 = 2;
const LISTEN: u8 = 10;

/// The counters of what went out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counters {
    active_opens: u64,
    datagrams: u64,
}

/// Looks at one network namespace for some time.
pub struct Watch {
    tables: PathBuf,
    /// Who has which socket, where not all are the scanner's.
    owners: Option<Owners>,
    network: Network,
    /// What was there before.
    before: HashSet<Socket>,
    counted: Option<Counters>,
    looks: u64,
    unseen: Option<String>,
    peers: BTreeMap<(Transport, SocketAddr), Contact>,
    /// Connections that were called for, to tell how many of those that were counted were seen too.
    called: HashSet<Socket>,
    /// Those of the namespace with itself, each once.
    own: BTreeSet<(SocketAddr, SocketAddr)>,
    /// Whether a socket of UDP had a peer, which is where datagrams went.
    bound: bool,
    listening: HashSet<u16>,
}

impl Watch {
    /// Begins, with what is there now as what does not count. `tables` is [`OWN`], and `proc` the file systems of processes.
    pub fn begin(tables: &Path, proc: &Path, network: Network) -> Self {
        let mut watch = Self {
            tables: tables.to_owned(),
            owners: None,
            network,
            before: HashSet::new(),
            counted: None,
            looks: 0,
            unseen: None,
            peers: BTreeMap::new(),
            called: HashSet::new(),
            own: BTreeSet::new(),
            bound: false,
            listening: HashSet::new(),
        };
        if network == Network::Shared {
            match Owners::begin(proc) {
                Ok(owners) => watch.owners = Some(owners),
                Err(why) => watch.unseen = Some(why),
            }
        }
        match watch.counters() {
            Ok(counters) => watch.counted = Some(counters),
            Err(error) => watch.miss(&error),
        }
        match watch.sockets() {
            Ok(sockets) => watch.before = sockets.into_iter().map(|entry| entry.socket).collect(),
            Err(error) => watch.miss(&error),
        }
        watch
    }

    /// Looks once.
    pub fn look(&mut self) {
        // Before the tables: a socket that is made in between is in the next tables, too, or was too short.
        if let Some(Err(why)) = self.owners.as_mut().map(Owners::look) {
            self.unseen.get_or_insert(why);
        }
        match self.sockets() {
            Ok(sockets) => {
                self.looks += 1;
                // Those that listen first: they tell who called whom.
                let listening = sockets.iter().filter(|e| e.socket.transport == Transport::Tcp && e.state == LISTEN);
                self.listening.extend(listening.map(|entry| entry.socket.local.port()));
                for entry in sockets {
                    if !self.before.contains(&entry.socket) {
                        self.see(entry.socket, entry.state, self.owner(entry.inode));
                    }
                }
            }
            Err(error) => self.miss(&error),
        }
    }

    fn owner(&self, inode: u64) -> Owner {
        match (self.network, &self.owners) {
            (Network::Own, _) => Owner::Scanner,
            (Network::Shared, Some(owners)) => owners.of(inode),
            (Network::Shared, None) => Owner::Unknown,
        }
    }

    /// Takes note of a connection that is known without looking, from this end to the other.
    pub fn know(&mut self, local: SocketAddr, remote: SocketAddr) {
        self.see(Socket { transport: Transport::Tcp, local, remote }, ESTABLISHED, Owner::Scanner);
    }

    /// Looks a last time, and says what was seen.
    pub fn end(mut self) -> Sockets {
        self.look();
        let mut sockets = Sockets { network: self.network, looks: self.looks, ..Sockets::default() };
        match (self.counted, self.counters()) {
            (Some(before), Ok(after)) => {
                let opened = after.active_opens.saturating_sub(before.active_opens);
                sockets.brief_connections = opened.saturating_sub((self.called.len() + self.own.len()) as u64);
                if !self.bound {
                    sockets.datagrams = after.datagrams.saturating_sub(before.datagrams);
                }
            }
            (Some(_), Err(error)) => self.miss(&error),
            (None, _) => {}
        }
        sockets.unseen = self.unseen;
        sockets.peers_omitted = self.peers.len().saturating_sub(PEERS) as u64;
        sockets.peers = self
            .peers
            .into_iter()
            .take(PEERS)
            .map(|((transport, address), contact)| Peer { transport, address, contact })
            .collect();
        sockets
    }

    fn miss(&mut self, error: &io::Error) {
        self.unseen.get_or_insert_with(|| format!("{}: {error}", self.tables.display()));
    }

    fn see(&mut self, socket: Socket, state: u8, owner: Owner) {
        let Socket { transport, local, remote } = socket;
        if remote.ip().is_unspecified() || remote.port() == 0 {
            return;
        }
        if remote.ip().is_loopback() || remote.ip() == local.ip() {
            if transport == Transport::Tcp && self.own.len() < SOCKETS {
                self.own.insert((local.min(remote), local.max(remote)));
            }
            return;
        }
        // Whose it is may show at the next look; until then the counters have it, as nobody's.
        if owner == Owner::Unknown {
            return;
        }
        let contact = match (transport, state) {
            (Transport::Udp, _) => Contact::Connected,
            (Transport::Tcp, _) if self.listening.contains(&local.port()) => Contact::Accepted,
            (Transport::Tcp, SYN_SENT) => Contact::Tried,
            (Transport::Tcp, _) => Contact::Connected,
        };
        if self.peers.len() >= SOCKETS || self.called.len() >= SOCKETS {
            self.unseen.get_or_insert_with(|| format!("there were more than {SOCKETS} sockets"));
            return;
        }
        if transport == Transport::Tcp && contact != Contact::Accepted {
            self.called.insert(socket);
        }
        if owner == Owner::Other {
            return;
        }
        self.bound |= transport == Transport::Udp;
        let known = self.peers.entry((transport, remote)).or_insert(contact);
        *known = contact.max(*known);
    }

    /// The sockets of all tables.
    fn sockets(&self) -> io::Result<Vec<Entry>> {
        let mut sockets = Vec::new();
        for (name, transport) in
            [("tcp", Transport::Tcp), ("tcp6", Transport::Tcp), ("udp", Transport::Udp), ("udp6", Transport::Udp)]
        {
            let Some(text) = self.table(name)? else { continue };
            for line in text.lines().skip(1) {
                let entry = entry(transport, line);
                sockets.push(entry.ok_or_else(|| io::Error::other(format!("a line of `{name}` makes no sense")))?);
            }
        }
        Ok(sockets)
    }

    fn counters(&self) -> io::Result<Counters> {
        let absent = |name: &str| io::Error::other(format!("there is no counter {name}"));
        let four = self.table("snmp")?.ok_or_else(|| absent("at all"))?;
        let of = |group: &str, name: &str| paired(&four, group, name).ok_or_else(|| absent(name));
        let mut datagrams = of("Udp", "OutDatagrams")? + of("Icmp", "OutEchos")?;
        if let Some(six) = self.table("snmp6")? {
            let of = |name: &str| listed(&six, name).ok_or_else(|| absent(name));
            datagrams += of("Udp6OutDatagrams")? + of("Icmp6OutEchos")?;
        }
        Ok(Counters { active_opens: of("Tcp", "ActiveOpens")?, datagrams })
    }

    /// A table, where there is one: a kernel without IPv6 has none of its.
    fn table(&self, name: &str) -> io::Result<Option<String>> {
        let file = match fs::File::open(self.tables.join(name)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && name.ends_with('6') => return Ok(None),
            outcome => outcome?,
        };
        let mut text = String::new();
        if file.take(TABLE_BYTES).read_to_string(&mut text)? as u64 == TABLE_BYTES {
            return Err(io::Error::other(format!("`{name}` has more than {TABLE_BYTES} bytes")));
        }
        Ok(Some(text))
    }
}

/// What a line says: `0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000 101 0 4711 ...`
fn entry(transport: Transport, line: &str) -> Option<Entry> {
    let mut words = line.split_ascii_whitespace().skip(1);
    let (local, remote) = (address(words.next()?)?, address(words.next()?)?);
    let state = u8::from_str_radix(words.next()?, 16).ok()?;
    let inode = words.nth(5)?.parse().ok()?;
    Some(Entry { socket: Socket { transport, local, remote }, state, inode })
}

/// An address as the tables write it: 32-bit words in the machine's order of bytes, and the port as a number. One of IPv4 in
/// a table of IPv6 is the same as in its own.
pub(super) fn address(text: &str) -> Option<SocketAddr> {
    let (ip, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let word = |at: usize| Some(u32::from_str_radix(ip.get(at..at + 8)?, 16).ok()?.to_ne_bytes());
    let ip = match ip.len() {
        8 => IpAddr::V4(Ipv4Addr::from(word(0)?)),
        32 => {
            let mut bytes = [0; 16];
            for (index, chunk) in bytes.chunks_exact_mut(4).enumerate() {
                chunk.copy_from_slice(&word(index * 8)?);
            }
            IpAddr::V6(Ipv6Addr::from(bytes)).to_canonical()
        }
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

/// A counter of `snmp`, where a line of names is followed by one of values.
fn paired(text: &str, group: &str, name: &str) -> Option<u64> {
    let mut lines = text.lines().filter_map(|line| line.strip_prefix(group)?.strip_prefix(": "));
    let index = lines.next()?.split(' ').position(|word| word == name)?;
    lines.next()?.split(' ').nth(index)?.parse().ok()
}

/// A counter of `snmp6`, where each line has a name and a value.
fn listed(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
}

#[cfg(test)]
mod tests;
