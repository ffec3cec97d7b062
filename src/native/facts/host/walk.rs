//! The search for special files on a machine.
//!
//! It enters local file systems only: those whose type is in [`LOCAL`], each once, where a mount shows most of it; a bind
//! mount of what is walked already, network and pseudo file systems, and containers' overlays are left out. So are
//! folders in which container runtimes keep the files of images and pods, for they are targets of their own:
//! [`RUNTIMES`], and the stores that the overlay mounts of running containers name.
//!
//! Folders are opened one below the other by descriptor and without following links, so that a folder that is exchanged
//! for a link meanwhile leads nowhere. A folder deeper than [`DEPTH`] counts as one that can't be looked into.

use std::collections::{HashMap, HashSet};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use rustix::fs::{self, Dir, FileType};
use rustix::io::Errno;

use super::super::files::{self, Owners};
use super::super::proc::{self, MountLine};
use super::super::{Collected, Missing, Special, name, wanted};
use super::root::{self, Root};
use crate::base::limits::Limits;

/// Types of file systems that keep owners and modes on this machine.
const LOCAL: [&str; 12] =
    ["ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "f2fs", "jfs", "reiserfs", "bcachefs", "tmpfs", "ramfs"];

/// Where container runtimes keep images, containers and pods, unless they are told otherwise.
const RUNTIMES: [&str; 7] = [
    "/run/containerd",
    "/run/k3s/containerd",
    "/var/lib/containerd",
    "/var/lib/containers/storage",
    "/var/lib/docker",
    "/var/lib/kubelet/pods",
    "/var/lib/rancher/k3s/agent/containerd",
];

/// Each level holds one descriptor open, and 1024 are usual for a process.
const DEPTH: usize = 256;

/// Which folders are entered, as paths below the root.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// Mount points, and whether to enter them.
    mounts: HashMap<Vec<u8>, bool>,
    /// Other folders that are left out.
    stores: HashSet<Vec<u8>>,
}

impl Plan {
    /// By the mounts that this process sees, or the process whose root (`/proc/PID/root`) it is. Without knowledge of them only the root's own device is walked.
    pub(super) fn for_root(root: &Path, limits: &Limits) -> Self {
        // The root of another process is in that one's mount namespace, of which this process' own mounts know nothing.
        let (seen_by, root) = match process_of(root) {
            Some(process) => (process.join("mountinfo"), Path::new("/").to_owned()),
            None => ("/proc/self/mountinfo".into(), root.canonicalize().unwrap_or_else(|_| root.to_owned())),
        };
        let mounts = std::fs::read(seen_by).ok().and_then(|raw| proc::mountinfo(&raw, limits).ok());
        Self::new(root.as_os_str().as_bytes(), &mounts.unwrap_or_default())
    }

    fn new(root: &[u8], mounts: &[MountLine]) -> Self {
        let root = root.strip_suffix(b"/").unwrap_or(root);
        let mut plan = Self::default();
        plan.stores.extend(RUNTIMES.iter().map(|path| path.as_bytes().to_vec()));
        plan.stores.extend(wanted::PSEUDO.iter().map(|path| path.as_bytes().to_vec()));
        // Of two mounts at one place the later one is seen.
        let seen: HashMap<&[u8], &MountLine> = mounts.iter().map(|mount| (&mount.path[..], mount)).collect();
        // The mount that the root is in, and which folder of its file system that is.
        let base = seen.values().filter_map(|m| Some((below(&m.path, root)?, *m))).max_by_key(|(_, m)| m.path.len());
        let folder =
            |mount: &MountLine, rest: &[u8]| [mount.root.strip_suffix(b"/").unwrap_or(&mount.root), rest].concat();
        let mut walked: Vec<(&str, Vec<u8>)> =
            base.into_iter().map(|(rest, m)| (m.device.as_str(), folder(m, rest))).collect();
        let mut inside: Vec<(&[u8], &MountLine)> =
            seen.values().filter_map(|m| Some((below(root, &m.path).filter(|rest| !rest.is_empty())?, *m))).collect();
        // What shows most of a file system comes first; its parts, mounted elsewhere, are then known already.
        inside.sort_by_key(|(path, m)| (m.root.len(), path.len(), path.to_vec()));
        for (path, mount) in inside {
            let local = LOCAL.contains(&mount.fact.fstype.as_str());
            let again =
                walked.iter().any(|(device, folder)| *device == mount.device && below(folder, &mount.root).is_some());
            plan.mounts.insert(path.to_vec(), local && !again);
            if local && !again {
                walked.push((&mount.device, folder(mount, b"")));
            }
            if mount.fact.fstype == "overlay" {
                plan.stores.extend(mount.fact.options.iter().flat_map(|option| overlay_stores(option)));
            }
        }
        plan
    }

    /// Whether to enter a folder, given whether its device differs from that of the folder above.
    fn enters(&self, path: &[u8], other_device: bool) -> bool {
        !self.stores.contains(path) && self.mounts.get(path).copied().unwrap_or(!other_device)
    }
}

/// `/proc/PID`, where this is the root of a process.
fn process_of(root: &Path) -> Option<&Path> {
    let process = root.strip_prefix("/proc").ok()?.to_str()?.strip_suffix("/root")?;
    process.bytes().all(|b| b.is_ascii_digit()).then(|| root.parent()).flatten()
}

/// The rest of a path below a folder, with its leading slash; empty for the folder itself.
fn below<'a>(folder: &[u8], path: &'a [u8]) -> Option<&'a [u8]> {
    let folder = folder.strip_suffix(b"/").unwrap_or(folder);
    let rest = path.strip_prefix(folder)?;
    if rest == b"/" {
        return Some(b"");
    }
    (rest.is_empty() || rest[0] == b'/').then_some(rest)
}

/// The stores of layers that an overlay mount's option names. Only folders that look like a store of containerd, Docker
/// or Podman are believed, so that an overlay over `/usr` does not hide `/usr`.
fn overlay_stores(option: &str) -> Vec<Vec<u8>> {
    let Some((key, value)) = option.split_once('=') else { return Vec::new() };
    if !["lowerdir", "upperdir", "workdir"].contains(&key) {
        return Vec::new();
    }
    let store = |folder: &str| {
        ["/snapshots/", "/overlay2/", "/overlay/"].iter().find_map(|mark| {
            let at = folder.rfind(mark)?;
            let store = &folder[..at + mark.len() - 1];
            (store.matches('/').count() > 2).then(|| store.as_bytes().to_vec())
        })
    };
    value.split(':').filter_map(store).collect()
}

/// A folder that is being walked.
struct Level {
    dir: Dir,
    path: Vec<u8>,
    device: u64,
}

/// Special files below the root, and folders that could not be looked into.
pub(super) fn special(root: &Root, plan: &Plan, owners: &Owners, limits: &Limits) -> Collected<Special> {
    let mut list = Vec::new();
    let mut unread: Vec<String> = Vec::new();
    let fd = root.list().map_err(|error| Missing::unreadable(format!("the root folder can't be listed: {error}")))?;
    let failed = |error: Errno| Missing::failed(format!("the root folder can't be listed: {error}"));
    let device = fs::fstat(&fd).map_err(failed)?.st_dev;
    let mut levels = vec![Level { dir: Dir::new(fd).map_err(failed)?, path: Vec::new(), device }];
    while let Some(level) = levels.last_mut() {
        let entry = match level.dir.read() {
            Some(Ok(entry)) => entry,
            Some(Err(_)) => {
                unread.push(shown(&level.path));
                levels.pop();
                continue;
            }
            None => {
                levels.pop();
                continue;
            }
        };
        let file = entry.file_name();
        if matches!(file.to_bytes(), b"." | b"..") || entry.file_type() == FileType::Symlink {
            continue;
        }
        let path = || [&level.path[..], b"/", file.to_bytes()].concat();
        let Ok(folder) = level.dir.fd() else {
            return Err(Missing::failed("a folder that was open is no longer"));
        };
        let stat = match root::look(folder, file) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => continue,
            Err(_) => {
                unread.push(shown(&path()));
                continue;
            }
        };
        let Some(kind) = files::kind(stat.st_mode).filter(|kind| *kind != "link") else { continue };
        let special = files::special_mode(stat.st_mode) || owners.unowned(stat.st_uid, stat.st_gid);
        if !special && kind != "dir" {
            continue;
        }
        let path = path();
        if special && !wanted::PSEUDO.iter().any(|pseudo| pseudo.as_bytes() == path) {
            list.push(files::fact(name::text(&path), kind, stat.st_mode, (stat.st_uid, stat.st_gid), owners));
        }
        if kind == "dir" && plan.enters(&path, stat.st_dev != level.device) {
            match root::enter(folder, file).and_then(Dir::new) {
                Ok(dir) if levels.len() < DEPTH => levels.push(Level { dir, path, device: stat.st_dev }),
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
                Ok(_) | Err(_) => unread.push(shown(&path)),
            }
        }
        if list.len().max(unread.len()) > limits.fact_items {
            return Err(Missing::truncated("the list of special files", limits));
        }
    }
    Ok((list, unread))
}

fn shown(path: &[u8]) -> String {
    if path.is_empty() { "/".to_owned() } else { name::text(path) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(root: &str, lines: &str) -> Plan {
        Plan::new(root.as_bytes(), &proc::mountinfo(lines.as_bytes(), &Limits::default()).expect("mounts"))
    }

    #[test]
    fn local_file_systems_are_entered_once() {
        let plan = plan(
            "/",
            "1 0 8:1 / / rw - ext4 /dev/a rw\n2 1 0:5 / /proc rw - proc proc rw\n3 1 0:6 / /tmp rw - tmpfs tmpfs rw\n\
             4 1 8:2 / /home rw - xfs /dev/b rw\n5 1 8:1 /srv /mnt/bind rw - ext4 /dev/a rw\n6 1 8:2 /me /mnt/me rw - xfs /dev/b rw\n\
             7 1 0:9 / /net rw - nfs4 h:/x rw\n8 1 8:3 /part /only rw - ext4 /dev/c rw\n\
             9 1 0:8 / /x/rootfs rw - overlay overlay rw,lowerdir=/x/io/snapshots/1/fs:/usr,upperdir=/x/io/snapshots/2/fs\n",
        );
        for (path, enters) in [
            ("/home", true),
            ("/tmp", true),
            ("/only", true),
            ("/mnt/bind", false),
            ("/mnt/me", false),
            ("/net", false),
            ("/x/rootfs", false),
            ("/x/io/snapshots", false),
            ("/x/io", true),
            ("/usr", true),
            ("/var/lib/docker", false),
            ("/proc", false),
        ] {
            assert_eq!(plan.enters(path.as_bytes(), plan.mounts.contains_key(path.as_bytes())), enters, "{path}");
        }
        assert!(!plan.enters(b"/just-mounted", true));
    }

    #[test]
    fn a_root_elsewhere_has_its_own_mounts() {
        let lines = "1 0 0:9 / / rw - overlay overlay rw\n2 1 8:1 / /host rw - ext4 /dev/a rw\n3 2 8:2 / /host/home rw - ext4 /dev/b rw\n4 2 8:1 /x /host/y rw - ext4 /dev/a rw\n";
        let plan = plan("/host", lines);
        assert!(plan.enters(b"/home", true));
        assert!(!plan.enters(b"/y", false));
        assert!(!plan.mounts.contains_key(&b"/host/home"[..]));
    }
}
