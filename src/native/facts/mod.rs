//! Facts about a system: collected once, kept as evidence, judged by rules, and judged again when rules change.
//!
//! A fact that could not be collected is *absent*, with its reason in [`SystemFacts::missing`]. It is never an empty list:
//! a rule that asks for an absent fact is an error for the rule engine, and ends as not evaluated. Each field is either
//! there or in `missing`; `parts::Parts` holds that, for all collectors.
//!
//! | collector | how | what it can't see |
//! |---|---|---|
//! | [`container`] | one exec of a fixed POSIX script, one round trip | what the container's user may not read; a target whose programs work against it while it runs |
//! | [`host`] | natively, from `/etc`, `/proc` and the local file systems, without child processes | rpm's database |
//! | [`image`] | one streaming pass over each layer | what only exists at run time: processes, sockets, mounts, kernel parameters |
//!
//! # Attacks, and where each is stopped
//!
//! | attack or accident | stopped by |
//! |---|---|
//! | a file name or content that forges a part of the output | `container`: every marker begins with a random nonce, and a record ends only at the next marker |
//! | output cut anywhere | `container`: the last record never counts unless it is the end marker; a section counts when it was closed |
//! | a FIFO, a device or a folder where a file is expected | `collect.sh` (`test -f` first); `host::root` (type is read before it is opened, and compared after) |
//! | a huge file, an endless line, ten million packages | `Limits::fact_file_bytes` and `fact_items`; package databases are read by lines in constant memory |
//! | links that lead out of the root, loops of links | `host::root` (each component by itself, 40 links at most); `image::merge` (the same on names) |
//! | password hashes, proxy credentials | masked in the target by `collect.sh`, and by `passwd` and `config` |
//! | folders that may not be entered, and so look empty | [`SystemFacts::unreadable`], `unreadable_files`, `unreadable_configs` |
//! | processes hidden by `hidepid` | `processes` is absent |
//! | a tool that is missing in the target | the fact is absent, `tool-missing` |
//! | bind mounts, other systems' files, images of other containers below the root | `-xdev` and mountinfo in `collect.sh`; `host::walk` |
//! | hostile tar and gzip | `image::entries`, `image::layer`: see there |
//! | a line that one reader skips and glibc does not | `passwd`: the whole fact is absent |

pub mod cluster;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::base::limits::Limits;
use crate::model::reason::Reason;

mod bound;
mod config;
pub mod container;
mod files;
pub mod host;
pub mod image;

mod name;
mod os_release;
mod packages;
mod parts;
mod passwd;
mod proc;
mod wanted;

pub use bound::Live;

/// The version of what the collectors collect. It grows when a field's meaning changes or a list of paths gets longer.
pub const COLLECTOR: u32 = 1;

/// A fact, or why it is absent.
type Collected<T> = Result<T, Missing>;
/// Well-known files, and those of which it is not known whether they exist.
type Files = (BTreeMap<String, FileFact>, Vec<String>);
/// Special files, and folders that could not be looked into.
type Special = (Vec<FileFact>, Vec<String>);
/// Configuration files as lines, and those that could not be read.
type Configs = (BTreeMap<String, Vec<String>>, Vec<String>);

/// What was seen of one operating system: a host, a container, or the files of an image. As `object` in a rule, each
/// field has its name here in camelCase.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SystemFacts {
    /// The collector's version: rules can tell old facts from new.
    pub collector: u32,
    /// `/etc/os-release`, parsed (os-release(5)): keys as they are there (`ID`, `VERSION_ID`, `PRETTY_NAME` ...).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub os: Option<BTreeMap<String, String>>,
    /// Installed packages by the package database (dpkg, apk; rpm where it can be read).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub packages: Option<Vec<Package>>,
    /// `/etc/passwd` (passwd(5)); an empty list where that file is known not to exist.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub users: Option<Vec<User>>,
    /// `/etc/group` (group(5)); an empty list where that file is known not to exist.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub groups: Option<Vec<Group>>,
    /// The state of passwords in `/etc/shadow`, without any hash; an empty list where that file is known not to exist.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub passwords: Option<Vec<Password>>,
    /// Files and folders that deserve attention, on the root file system and not below pseudo file systems: setuid,
    /// setgid, writable for all, without a known owner or group ([`FileFact::unowned`]). Symbolic links are never in it.
    ///
    /// What is in the list is true. That nothing else exists is only true when [`SystemFacts::unreadable`] is empty: a
    /// rule that says "there is no such file" has failed when one is found, and when none is found it is evaluated only
    /// if `unreadable` is empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub special_files: Option<Vec<FileFact>>,
    /// Folders of the root file system that could not be looked into, so that [`SystemFacts::special_files`] can't know
    /// what is in them. Present whenever that is; empty when everything was seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unreadable: Option<Vec<String>>,
    /// Well-known files by path, with mode and owner; a path that does not exist is not in the map. A symbolic link is
    /// followed: the facts are those of what the system reaches by that path, and [`FileFact::symlink`] is set. A link
    /// that leads nowhere is there as itself, with type `link`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub files: Option<BTreeMap<String, FileFact>>,
    /// Well-known paths of which it could not be seen whether they exist (below a folder that may not be entered), or
    /// what they are; a folder stands for every name in it. They are not in [`SystemFacts::files`], and a rule on one of
    /// them is not evaluated. Present whenever `files` is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unreadable_files: Option<Vec<String>>,
    /// Content of well-known configuration files by path, as lines without comments and blank lines; a path that does
    /// not exist is not in the map.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub configs: Option<BTreeMap<String, Vec<String>>>,
    /// Well-known configuration files and folders that (may) exist and whose content was not collected: not readable,
    /// larger than the limit, or no regular file. They are not in [`SystemFacts::configs`], and a rule on one of them is
    /// not evaluated. Present whenever `configs` is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unreadable_configs: Option<Vec<String>>,
    /// Running processes, without threads of the kernel. Absent where some are hidden from the collector (`hidepid`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub processes: Option<Vec<Process>>,
    /// Listening TCP and bound UDP sockets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sockets: Option<Vec<Socket>>,
    /// Mounts of the process that was looked at (proc_pid_mounts(5)).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mounts: Option<Vec<Mount>>,
    /// Kernel parameters by dotted name (`net.ipv4.ip_forward`), as far as they are readable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sysctls: Option<BTreeMap<String, String>>,
    /// The configuration in an image: user, environment names, exposed ports. Only of images.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<ImageFacts>,
    /// Facts that could not be collected, by the field's name here, with the reason. A list that is longer than
    /// [`Limits::fact_items`] is absent as a whole, as [`Reason::FactTruncated`]: part of it could only pass by mistake.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub missing: BTreeMap<String, Missing>,
}

impl SystemFacts {
    /// Takes these out of the processes: whoever looks is no part of what is looked at.
    pub fn leave_out_processes(&mut self, pids: &[u32]) {
        if let Some(processes) = &mut self.processes {
            processes.retain(|process| !pids.contains(&process.pid));
        }
    }
}

/// Why a fact is absent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Missing {
    /// As a code.
    pub reason: Reason,
    /// In this case.
    pub detail: String,
}

impl Missing {
    fn new(reason: Reason, detail: impl Into<String>) -> Self {
        Self { reason, detail: detail.into() }
    }

    fn failed(detail: impl Into<String>) -> Self {
        Self::new(Reason::CollectorFailed, detail)
    }

    fn unreadable(detail: impl Into<String>) -> Self {
        Self::new(Reason::UnreadablePaths, detail)
    }

    fn truncated(what: &str, limits: &Limits) -> Self {
        Self::new(Reason::FactTruncated, format!("{what} has more than {} entries", limits.fact_items))
    }

    fn too_large(path: &str, bytes: u64) -> Self {
        Self::new(Reason::FactTruncated, format!("`{path}` is larger than {bytes} bytes"))
    }
}

/// An installed package.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Package {
    /// Its name.
    pub name: String,
    /// Its version, as the package manager writes it.
    pub version: String,
    /// Its architecture; empty where unknown.
    #[serde(default)]
    pub arch: String,
    /// `dpkg`, `apk` or `rpm`.
    pub manager: String,
}

/// A line of `/etc/passwd`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct User {
    /// Login name.
    pub name: String,
    /// What is in the password field is not kept, only whether it is `x` or locked (`shadowed`), empty (`empty`), or a hash
    /// in a file that all can read (`exposed`).
    pub password: String,
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
    /// Home folder.
    pub home: String,
    /// Login shell.
    pub shell: String,
}

/// A line of `/etc/group`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Group {
    /// Its name.
    pub name: String,
    /// Group id.
    pub gid: u32,
    /// Members.
    pub members: Vec<String>,
}

/// The state of one password. The hash itself never leaves the target.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Password {
    /// Login name.
    pub user: String,
    /// `locked`, `empty` or `set`.
    pub state: String,
    /// The hash's method by crypt(5), as `yescrypt`, `sha512`, `md5`, `des`; empty unless set.
    #[serde(default)]
    pub method: String,
    /// Maximum age in days; absent where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_days: Option<i64>,
    /// Minimum age in days; absent where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_days: Option<i64>,
    /// Days of warning before it expires; absent where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warn_days: Option<i64>,
    /// Days after its expiry until the account is disabled; absent where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inactive_days: Option<i64>,
}

/// A file or folder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FileFact {
    /// Absolute path in the target. Bytes that are no UTF-8, and backslashes, are written as `\xNN`, so that two
    /// names never look the same; control characters are kept as they are and must be neutralised where it is shown.
    pub path: String,
    /// `file`, `dir`, `link`, `char`, `block`, `fifo`, `socket`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Permission bits with setuid, setgid and sticky, as a number (0o4755 = 2541).
    pub mode: u32,
    /// The same as four octal digits, for people.
    pub perm: String,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Whether its owner is in no line of `/etc/passwd`, or its group in none of `/etc/group`. Id 0 is always known.
    #[serde(default)]
    pub unowned: bool,
    /// Whether the path itself is a symbolic link that was followed. Only in [`SystemFacts::files`].
    #[serde(default)]
    pub symlink: bool,
}

/// A running process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Process {
    /// Process id.
    pub pid: u32,
    /// The program's name (`comm`).
    pub name: String,
    /// Effective user id.
    pub uid: u32,
    /// Effective group id.
    pub gid: u32,
    /// Effective capabilities as a hexadecimal mask, 16 digits.
    pub cap_eff: String,
    /// Effective capabilities by name (`CAP_NET_RAW`).
    pub capabilities: Vec<String>,
    /// Seccomp mode: 0 off, 1 strict, 2 filter (proc_pid_status(5)).
    pub seccomp: u32,
    /// Whether `no_new_privs` is set.
    pub no_new_privs: bool,
}

/// A socket that listens or is bound.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Socket {
    /// `tcp`, `tcp6`, `udp`, `udp6`.
    pub protocol: String,
    /// The address it is bound to.
    pub address: String,
    /// The port.
    pub port: u32,
    /// Whether the address is loopback only.
    pub loopback: bool,
    /// The user id of its owner.
    pub uid: u32,
}

/// A mount.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Mount {
    /// What is mounted.
    pub source: String,
    /// Where.
    pub path: String,
    /// The file system's type.
    pub fstype: String,
    /// Options.
    pub options: Vec<String>,
}

/// The configuration in an image (OCI image-spec, config.md). Values of the environment may be secrets and are not kept.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ImageFacts {
    /// `User` as written; empty means root.
    pub user: String,
    /// Names of environment variables.
    pub env_names: Vec<String>,
    /// Names of environment variables whose name and value look like a secret (a password, a token, a private key).
    pub env_secrets: Vec<String>,
    /// Exposed ports, as `8080/tcp`.
    pub exposed_ports: Vec<String>,
    /// Entry point and command.
    pub command: Vec<String>,
    /// Whether there is a health check.
    pub healthcheck: bool,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// When it was created, as written; empty where absent.
    pub created: String,
    /// How many layers it has.
    pub layers: u32,
    /// Volumes that it declares.
    pub volumes: Vec<String>,
    /// History entries that add remote content with `ADD http`.
    pub remote_adds: Vec<String>,
}
