//! Files of proc(5): `PID/status`, `net/{tcp,tcp6,udp,udp6}`, `self/mountinfo`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{Collected, Missing, Mount, Process, Socket, name};
use crate::base::limits::Limits;

/// What a status file told.
#[derive(Debug, PartialEq)]
pub(crate) enum Seen {
    Process(Process),
    /// A thread of the kernel: it has no user memory, and no rule on programs is meant for it.
    KernelThread,
    /// The process ended while it was read.
    Gone,
}

/// The parent's number in `/proc/PID/status`; `None` where it is not told.
pub(crate) fn parent(raw: &[u8]) -> Option<u32> {
    let line = raw.split(|b| *b == b'\n').find_map(|line| line.strip_prefix(b"PPid:"))?;
    str::from_utf8(line.trim_ascii()).ok()?.parse().ok()
}

/// Reads `/proc/PID/status` (proc_pid_status(5)), or those lines of it that are needed.
///
/// # Errors
/// When a line that every Linux since 4.10 writes is not there.
pub(crate) fn status(pid: u32, raw: &[u8]) -> Collected<Seen> {
    if raw.trim_ascii().is_empty() {
        return Ok(Seen::Gone);
    }
    let field = |key: &str| {
        raw.split(|b| *b == b'\n')
            .find_map(|line| line.strip_prefix(key.as_bytes())?.strip_prefix(b":"))
            .map(<[u8]>::trim_ascii)
    };
    let need = |key: &str| field(key).ok_or_else(|| Missing::failed(format!("`/proc/{pid}/status` has no `{key}`")));
    let odd = |key: &str| Missing::failed(format!("`{key}` in `/proc/{pid}/status` is not what it should be"));
    let number =
        |key: &str, text: &[u8]| str::from_utf8(text).ok().and_then(|t| t.parse().ok()).ok_or_else(|| odd(key));
    // Real, effective, saved, of the file system.
    let effective = |key: &str| -> Collected<u32> {
        let line = need(key)?;
        let second = line.split(u8::is_ascii_whitespace).filter(|f| !f.is_empty()).nth(1).ok_or_else(|| odd(key))?;
        number(key, second)
    };
    let state = need("State")?;
    let zombie = matches!(state.first(), Some(b'Z' | b'X' | b'x'));
    let kernel = match field("Kthread") {
        Some(flag) => flag == b"1",
        None => !zombie && field("VmSize").is_none(),
    };
    if kernel {
        return Ok(Seen::KernelThread);
    }
    let mask = str::from_utf8(need("CapEff")?)
        .ok()
        .and_then(|t| u64::from_str_radix(t, 16).ok())
        .ok_or_else(|| odd("CapEff"))?;
    Ok(Seen::Process(Process {
        pid,
        name: name::text(need("Name")?),
        uid: effective("Uid")?,
        gid: effective("Gid")?,
        cap_eff: format!("{mask:016x}"),
        capabilities: capabilities(mask),
        seccomp: number("Seccomp", need("Seccomp")?)?,
        no_new_privs: number("NoNewPrivs", need("NoNewPrivs")?)? == 1,
    }))
}

/// The names of the bits in a capability mask (capabilities(7)), in the kernel's order; `CAP_41` for one without a name.
pub(crate) fn capabilities(mask: u64) -> Vec<String> {
    const NAMES: [&str; 41] = [
        "CHOWN",
        "DAC_OVERRIDE",
        "DAC_READ_SEARCH",
        "FOWNER",
        "FSETID",
        "KILL",
        "SETGID",
        "SETUID",
        "SETPCAP",
        "LINUX_IMMUTABLE",
        "NET_BIND_SERVICE",
        "NET_BROADCAST",
        "NET_ADMIN",
        "NET_RAW",
        "IPC_LOCK",
        "IPC_OWNER",
        "SYS_MODULE",
        "SYS_RAWIO",
        "SYS_CHROOT",
        "SYS_PTRACE",
        "SYS_PACCT",
        "SYS_ADMIN",
        "SYS_BOOT",
        "SYS_NICE",
        "SYS_RESOURCE",
        "SYS_TIME",
        "SYS_TTY_CONFIG",
        "MKNOD",
        "LEASE",
        "AUDIT_WRITE",
        "AUDIT_CONTROL",
        "SETFCAP",
        "MAC_OVERRIDE",
        "MAC_ADMIN",
        "SYSLOG",
        "WAKE_ALARM",
        "BLOCK_SUSPEND",
        "AUDIT_READ",
        "PERFMON",
        "BPF",
        "CHECKPOINT_RESTORE",
    ];
    (0..64)
        .filter(|bit| mask >> bit & 1 == 1)
        .map(|bit| NAMES.get(bit).map_or_else(|| format!("CAP_{bit}"), |name| format!("CAP_{name}")))
        .collect()
}

/// The sockets of one table that listen (TCP) or are bound and not connected (UDP).
pub(crate) fn sockets(protocol: &str, raw: &[u8], limits: &Limits) -> Collected<Vec<Socket>> {
    /// `TCP_LISTEN`, and `TCP_CLOSE`, which is what an unconnected UDP socket is in.
    const LISTEN: &[u8] = b"0A";
    const CLOSE: &[u8] = b"07";
    let wanted = if protocol.starts_with("tcp") { LISTEN } else { CLOSE };
    let mut list = Vec::new();
    for line in raw.split(|b| *b == b'\n').skip(1).filter(|line| !line.trim_ascii().is_empty()) {
        let fields: Vec<&[u8]> = line.split(u8::is_ascii_whitespace).filter(|f| !f.is_empty()).collect();
        let entry = (|| {
            let [_, local, _, state, _, _, _, uid, ..] = fields[..] else { return None };
            let (address, port) = local_address(str::from_utf8(local).ok()?)?;
            let uid = str::from_utf8(uid).ok()?.parse().ok()?;
            let loopback = match address {
                IpAddr::V6(v6) => v6.to_ipv4_mapped().map_or(v6.is_loopback(), |v4| v4.is_loopback()),
                IpAddr::V4(v4) => v4.is_loopback(),
            };
            let socket = Socket { protocol: protocol.to_owned(), address: address.to_string(), port, loopback, uid };
            Some((state == wanted).then_some(socket))
        })();
        let socket = entry
            .ok_or_else(|| Missing::failed(format!("`/proc/net/{protocol}` has a line that is not understood")))?;
        if list.len() == limits.fact_items {
            return Err(Missing::truncated("the list of sockets", limits));
        }
        list.extend(socket);
    }
    Ok(list)
}

/// `0100007F:1F90`: the address is in 32-bit words of the host's byte order. The targets that gapscan reaches and the
/// machine it runs on are little-endian (amd64, arm64).
fn local_address(text: &str) -> Option<(IpAddr, u32)> {
    let (address, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let word = |at: usize| u32::from_str_radix(address.get(at..at + 8)?, 16).ok().map(|w| w.to_le_bytes());
    let ip = match address.len() {
        8 => IpAddr::V4(Ipv4Addr::from(word(0)?)),
        32 => {
            let mut bytes = [0; 16];
            for (i, four) in bytes.chunks_exact_mut(4).enumerate() {
                four.copy_from_slice(&word(i * 8)?);
            }
            IpAddr::V6(Ipv6Addr::from(bytes))
        }
        _ => return None,
    };
    Some((ip, u32::from(port)))
}

/// One line of mountinfo with what a walk needs to know beyond the fact.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct MountLine {
    /// The path as it is, without octal escapes.
    pub(crate) path: Vec<u8>,
    /// `major:minor`.
    pub(crate) device: String,
    /// Which folder of the file system is mounted.
    pub(crate) root: Vec<u8>,
    /// What goes into the facts.
    pub(crate) fact: Mount,
}

/// Reads mountinfo (proc_pid_mountinfo(5)). Options are those of the mount and of the file system, each once.
pub(crate) fn mountinfo(raw: &[u8], limits: &Limits) -> Collected<Vec<MountLine>> {
    let mut list = Vec::new();
    for line in raw.split(|b| *b == b'\n').filter(|line| !line.is_empty()) {
        if list.len() == limits.fact_items {
            return Err(Missing::truncated("the list of mounts", limits));
        }
        let read = mount_line(line).ok_or_else(|| Missing::failed("mountinfo has a line that is not understood"))?;
        list.push(read);
    }
    if list.is_empty() {
        return Err(Missing::failed("mountinfo is empty"));
    }
    Ok(list)
}

fn mount_line(line: &[u8]) -> Option<MountLine> {
    let fields: Vec<&[u8]> = line.split(|b| *b == b' ').collect();
    let [_, _, device, root, path, options, optional @ ..] = &fields[..] else { return None };
    let dash = optional.iter().position(|field| *field == b"-")?;
    let [fstype, source, super_options @ ..] = optional.get(dash + 1..)? else { return None };
    let super_options = super_options.first().copied().unwrap_or_default();
    let mut all: Vec<String> = Vec::new();
    for option in options.split(|b| *b == b',').chain(super_options.split(|b| *b == b',')) {
        let option = name::text(&unescape(option));
        if !option.is_empty() && !all.contains(&option) {
            all.push(option);
        }
    }
    let path = unescape(path);
    Some(MountLine {
        device: str::from_utf8(device).ok()?.to_owned(),
        root: unescape(root),
        fact: Mount {
            source: name::text(&unescape(source)),
            path: name::text(&path),
            fstype: name::text(fstype),
            options: all,
        },
        path,
    })
}

/// Blanks, tabs, line breaks, `#` and backslashes are `\ooo` in mountinfo.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let [first, tail @ ..] = rest {
        let octal = |b: &u8| b.is_ascii_digit().then(|| u32::from(b - b'0')).filter(|d| *d < 8);
        if let (b'\\', [a, b, c, after @ ..]) = (first, tail)
            && let (Some(a), Some(b), Some(c)) = (octal(a), octal(b), octal(c))
            && let Ok(byte) = u8::try_from(a * 64 + b * 8 + c)
        {
            out.push(byte);
            rest = after;
        } else {
            out.push(*first);
            rest = tail;
        }
    }
    out
}

/// Whether `/proc` hides processes of others from a reader who is not root: `hidepid` in proc(5).
pub(crate) fn hides_processes(mounts: &[MountLine]) -> bool {
    let proc = mounts.iter().rev().find(|mount| mount.path == b"/proc");
    proc.is_some_and(|mount| {
        mount
            .fact
            .options
            .iter()
            .filter_map(|option| option.strip_prefix("hidepid="))
            .any(|value| !matches!(value, "0" | "off"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATUS: &[u8] = b"Name:\tnginx\nUmask:\t0022\nState:\tS (sleeping)\nPid:\t7\nUid:\t101\t102\t101\t101\nGid:\t0\t3\t0\t0\nVmSize:\t  5 kB\nCapEff:\t0000000000002400\nNoNewPrivs:\t1\nSeccomp:\t2\n";

    #[test]
    fn reads_a_process() {
        let Seen::Process(p) = status(7, STATUS).expect("status") else { panic!("a process") };
        assert_eq!((p.name.as_str(), p.uid, p.gid, p.seccomp, p.no_new_privs), ("nginx", 102, 3, 2, true));
        assert_eq!(p.capabilities, ["CAP_NET_BIND_SERVICE", "CAP_NET_RAW"]);
        assert_eq!(p.cap_eff, "0000000000002400");
    }

    #[test]
    fn kernel_threads_are_told_from_programs() {
        let text = String::from_utf8_lossy(STATUS);
        assert_eq!(status(2, text.replace("VmSize:\t  5 kB\n", "").as_bytes()).expect("status"), Seen::KernelThread);
        assert_eq!(
            status(2, text.replace("VmSize:\t  5 kB", "Kthread:\t1").as_bytes()).expect("status"),
            Seen::KernelThread
        );
        let zombie = text.replace("VmSize:\t  5 kB\n", "").replace("S (sleeping)", "Z (zombie)");
        assert!(matches!(status(2, zombie.as_bytes()).expect("status"), Seen::Process(_)));
        assert_eq!(status(2, b"").expect("status"), Seen::Gone);
        assert!(status(2, text.replace("CapEff", "CapXff").as_bytes()).is_err());
    }

    #[test]
    fn reads_listening_sockets() {
        let tcp = b"  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000   101        0 8 1 0 100 0 0 10 0\n   1: 0500A8C0:0016 0100A8C0:D431 01 00000000:00000000 00:00000000 00000000     0        0 9 1 0 20 4 30 10 -1\n";
        let list = sockets("tcp", tcp, &Limits::default()).expect("sockets");
        assert_eq!(
            list,
            [Socket { protocol: "tcp".into(), address: "127.0.0.1".into(), port: 8080, loopback: true, uid: 101 }]
        );
        let udp6 = b"h\n 1: 00000000000000000000000001000000:0035 00000000000000000000000000000000:0000 07 0:0 0:0 0 0 0 1\n 2: 0000000000000000FFFF00000100007F:0035 00000000000000000000000000000000:0000 07 0:0 0:0 0 5 0 1\n";
        let list = sockets("udp6", udp6, &Limits::default()).expect("sockets");
        assert_eq!((list[0].address.as_str(), list[0].port, list[0].loopback), ("::1", 53, true));
        assert_eq!((list[1].address.as_str(), list[1].uid, list[1].loopback), ("::ffff:127.0.0.1", 5, true));
        assert!(sockets("tcp", b"h\n 1: zz\n", &Limits::default()).is_err());
    }

    #[test]
    fn reads_mounts() {
        let raw = b"426 203 0:115 / / rw,relatime - overlay overlay rw,lowerdir=/a:/b\n427 426 0:119 / /proc rw,nosuid master:1 - proc proc rw,hidepid=2\n28 1 8:1 /data\\040x /mnt/a\\040b\\134 ro - ext4 /dev/sda1 rw\n";
        let list = mountinfo(raw, &Limits::default()).expect("mounts");
        assert_eq!(list[2].path, b"/mnt/a b\\");
        assert_eq!(list[2].root, b"/data x");
        assert_eq!(list[2].fact.options, ["ro", "rw"]);
        assert_eq!(list[0].fact.options, ["rw", "relatime", "lowerdir=/a:/b"]);
        assert!(hides_processes(&list));
        assert!(!hides_processes(&list[..1]));
        assert!(mountinfo(b"", &Limits::default()).is_err());
        assert!(mountinfo(b"1 2 3\n", &Limits::default()).is_err());
    }
}
