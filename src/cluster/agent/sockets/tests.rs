use super::*;

const HEAD: &str = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n";

/// A namespace made of files.
struct Namespace(tempfile::TempDir);

impl Namespace {
    fn new() -> Self {
        let space = Self(tempfile::tempdir().expect("a folder"));
        space.tcp(&[]);
        space.table("tcp6", HEAD);
        space.udp(&[]);
        space.table("udp6", HEAD);
        space.counters(5, 7);
        space.table("snmp6", "Icmp6OutEchos                   \t0\nUdp6OutDatagrams                \t0\n");
        space
    }

    fn table(&self, name: &str, text: &str) {
        fs::write(self.0.path().join(name), text).expect("it is written");
    }

    fn tcp(&self, lines: &[&str]) {
        self.table("tcp", &lines.iter().fold(HEAD.to_owned(), |all, line| format!("{all}   0: {line} 0 0 0 0 0 0\n")));
    }

    fn udp(&self, lines: &[&str]) {
        self.table("udp", &lines.iter().fold(HEAD.to_owned(), |all, line| format!("{all}   0: {line} 0 0 0 0 0 0\n")));
    }

    fn counters(&self, opens: u64, datagrams: u64) {
        let text = format!(
            "Ip: Forwarding\nIp: 1\nIcmp: InMsgs OutEchos\nIcmp: 0 0\nIcmpMsg: OutType3\nIcmpMsg: 4\n\
             Tcp: RtoAlgorithm MaxConn ActiveOpens\nTcp: 1 -1 {opens}\nUdp: InDatagrams OutDatagrams\nUdp: 0 {datagrams}\n"
        );
        self.table("snmp", &text);
    }

    fn watch(&self) -> Watch {
        Watch::begin(self.0.path(), self.0.path(), Network::Own)
    }
}

fn peer(transport: Transport, address: &str, contact: Contact) -> Peer {
    Peer { transport, address: address.parse().expect("an address"), contact }
}

#[test]
fn addresses_are_read_as_the_kernel_writes_them() {
    let read = |text: &str| address(text).map(|a| a.to_string());
    // On a machine with the other order of bytes the kernel writes the other one, too.
    if cfg!(target_endian = "little") {
        assert_eq!(read("0100007F:1F90").as_deref(), Some("127.0.0.1:8080"));
        assert_eq!(read("B80D01200000000000000000010000000:01BB"), None);
        assert_eq!(read("B80D0120000000000000000001000000:01BB").as_deref(), Some("[2001:db8::1]:443"));
        assert_eq!(read("0000000000000000FFFF00000100000A:0035").as_deref(), Some("10.0.0.1:53"));
    }
    for text in ["", ":", "0100007F", "0100007F:", "010007F:1F90", "0100007F:1F90F", "ÄÄÄÄ:0001"] {
        assert_eq!(read(text), None, "{text}");
    }
}

#[test]
fn nothing_is_silent() {
    let space = Namespace::new();
    space.tcp(&["0100000A:1000 0200000A:01BB 01"]);
    let mut watch = space.watch();
    watch.look();
    let seen = watch.end();
    assert!(seen.is_silent(), "what was there before does not count: {seen:?}");
    assert_eq!(seen.looks, 2);
}

#[test]
fn peers_are_told_apart_by_what_came_of_them() {
    let space = Namespace::new();
    let mut watch = space.watch();
    // Two calls; one of them is answered later. A datagram's socket; and somebody who calls.
    space.tcp(&[
        "0100000A:1000 0200000A:01BB 02",
        "0100000A:1001 0300000A:01BB 02",
        "00000000:1F90 00000000:0000 0A",
        "0100000A:1F90 0400000A:C000 01",
    ]);
    watch.look();
    space.tcp(&["0100000A:1001 0300000A:01BB 06"]);
    space.udp(&["0100000A:2000 0500000A:0035 01", "00000000:2001 00000000:0000 07"]);
    watch.look();
    space.tcp(&[]);
    space.counters(7, 9);
    let seen = watch.end();
    if cfg!(target_endian = "little") {
        let expected = [
            peer(Transport::Tcp, "10.0.0.2:443", Contact::Tried),
            peer(Transport::Tcp, "10.0.0.3:443", Contact::Connected),
            peer(Transport::Tcp, "10.0.0.4:49152", Contact::Accepted),
            peer(Transport::Udp, "10.0.0.5:53", Contact::Connected),
        ];
        assert_eq!(seen.peers, expected);
    }
    assert_eq!((seen.brief_connections, seen.datagrams, seen.is_silent()), (0, 0, false));
}

#[test]
fn what_is_too_short_to_be_seen_is_counted() {
    let space = Namespace::new();
    let watch = space.watch();
    space.counters(8, 9);
    let seen = watch.end();
    assert_eq!((seen.brief_connections, seen.datagrams), (3, 2));
    assert!(!seen.is_silent());
}

#[test]
fn a_namespace_may_talk_to_itself() {
    let space = Namespace::new();
    let mut watch = space.watch();
    // Both ends of one connection over loopback, and one to its own address.
    space.tcp(&["0100007F:1000 0100007F:1F90 01", "0100007F:1F90 0100007F:1000 01", "0100000A:1002 0100000A:1F90 06"]);
    watch.look();
    space.counters(7, 7);
    let seen = watch.end();
    assert!(seen.is_silent(), "{seen:?}");
}

#[test]
fn what_can_not_be_seen_is_said() {
    let space = Namespace::new();
    let watch = space.watch();
    space.table("tcp", &format!("{HEAD}nonsense\n"));
    assert!(watch.end().unseen.is_some());
    let missing = Watch::begin(Path::new("/nonexistent"), Path::new("/proc"), Network::Own).end();
    assert!(missing.unseen.is_some() && missing.looks == 0);
    let without_six = Namespace::new();
    for name in ["tcp6", "udp6", "snmp6"] {
        fs::remove_file(without_six.0.path().join(name)).expect("it is removed");
    }
    assert!(without_six.watch().end().is_silent(), "a kernel may have no IPv6");
}

#[test]
fn many_peers_are_counted_and_some_named() {
    let space = Namespace::new();
    let mut watch = space.watch();
    let lines: Vec<String> = (0..PEERS + 20).map(|n| format!("0100000A:1000 {n:02X}00010A:01BB 02")).collect();
    space.tcp(&lines.iter().map(String::as_str).collect::<Vec<_>>());
    watch.look();
    let seen = watch.end();
    assert_eq!((seen.peers.len(), seen.peers_omitted), (PEERS, 20));
}

#[test]
fn the_tables_of_this_machine_are_understood() {
    let mut watch = Watch::begin(Path::new(OWN), Path::new("/proc"), Network::Own);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("it listens");
    let stream = std::net::TcpStream::connect(listener.local_addr().expect("an address")).expect("it connects");
    watch.look();
    assert!(!watch.own.is_empty(), "a connection over loopback is in the table");
    drop(stream);
    let seen = watch.end();
    assert_eq!(seen.unseen, None);
}

/// A namespace of a target (process 1 and 20) and of its scanner (process 30, and the agent itself).
fn shared() -> Namespace {
    let space = Namespace::new();
    space.process("self", "0::/scanner\n", &[]);
    space.process("1", "0::/../target\n", &[]);
    space.process("20", "0::/../target\n", &[201]);
    space.process("30", "0::/scanner\n", &[301]);
    fs::write(space.0.path().join("self/status"), "CapBnd:\t0000000000000000\n").expect("written");
    space
}

impl Namespace {
    fn process(&self, name: &str, group: &str, inodes: &[u64]) {
        let folder = self.0.path().join(name);
        fs::create_dir_all(folder.join("fd")).expect("a folder");
        fs::write(folder.join("cgroup"), group).expect("written");
        for inode in inodes {
            std::os::unix::fs::symlink(format!("socket:[{inode}]"), folder.join(format!("fd/{inode}")))
                .expect("a link");
        }
    }

    /// A table of TCP, with the numbers of its sockets.
    fn owned(&self, lines: &[(&str, u64)]) {
        let line = |all, (line, inode): &(&str, u64)| format!("{all}   0: {line} 0 0 0 101 0 {inode}\n");
        self.table("tcp", &lines.iter().fold(HEAD.to_owned(), line));
    }

    fn shared_watch(&self) -> Watch {
        Watch::begin(self.0.path(), self.0.path(), Network::Shared)
    }
}

#[test]
fn what_the_target_talks_is_not_the_scanners() {
    let space = shared();
    let mut watch = space.shared_watch();
    space.owned(&[
        ("00000000:1F90 00000000:0000 0A", 201),
        ("0100000A:1000 0200000A:01BB 01", 201),
        ("0100000A:1F90 0400000A:C000 01", 201),
    ]);
    watch.look();
    space.counters(7, 7);
    space.owned(&[("0100000A:1F90 0400000A:C000 06", 0)]);
    let seen = watch.end();
    // The target called for one of the two that were counted; who listens has not called.
    assert_eq!((seen.peers.as_slice(), seen.brief_connections, seen.unseen.as_ref()), (&[][..], 1, None));
    let silent = shared();
    let mut watch = silent.shared_watch();
    silent.owned(&[("0100000A:1000 0200000A:01BB 01", 201)]);
    watch.look();
    silent.counters(6, 7);
    assert!(watch.end().is_silent());
}

#[test]
fn what_the_scanner_talks_in_its_targets_network_is_named() {
    let space = shared();
    let mut watch = space.shared_watch();
    space.owned(&[("0100000A:1000 0200000A:01BB 02", 301), ("0100000A:1001 0300000A:01BB 01", 201)]);
    watch.look();
    // Closed by its process, the socket has no number any more; what was seen of it stays.
    space.owned(&[("0100000A:1000 0200000A:01BB 06", 0)]);
    space.counters(7, 7);
    let seen = watch.end();
    assert_eq!((seen.peers.len(), seen.brief_connections), (1, 0), "{seen:?}");
    assert_eq!(seen.peers[0].contact, Contact::Tried);
    assert_eq!(seen.network, Network::Shared);
}

#[test]
fn what_nobody_was_seen_to_have_is_not_taken_for_the_targets() {
    let space = shared();
    let mut watch = space.shared_watch();
    space.owned(&[("0100000A:1000 0200000A:01BB 06", 0), ("0100000A:1001 0300000A:01BB 01", 999)]);
    watch.look();
    space.counters(7, 9);
    let seen = watch.end();
    assert_eq!((seen.peers.len(), seen.brief_connections, seen.datagrams), (0, 2, 2));
    assert!(!seen.is_silent());
}

#[test]
fn where_the_scanners_processes_can_not_be_told_nothing_is_claimed() {
    let space = shared();
    space.process("1", "0::/scanner\n", &[]);
    assert!(space.shared_watch().end().unseen.expect("a reason").contains("control group"));
    let space = shared();
    fs::write(space.0.path().join("self/status"), "CapBnd:\t00000000a80425fb\n").expect("written");
    assert!(space.shared_watch().end().unseen.expect("a reason").contains("raw sockets"));
    for (parent, unseen) in [("0", false), ("1", true)] {
        let space = shared();
        let (watch, process) = (space.shared_watch(), space.0.path().join("30"));
        fs::write(process.join("stat"), format!("30 (a) b) S {parent} 1\n")).expect("written");
        fs::remove_dir_all(process.join("fd")).and_then(|()| fs::write(process.join("fd"), "")).expect("made");
        // Only what the runtime has just put there may keep its descriptors to itself.
        assert_eq!(watch.end().unseen.is_some(), unseen, "{parent}");
    }
}
