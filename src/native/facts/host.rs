//! Facts about this machine, or about one whose root is mounted here: natively, without child processes.
//!
//! With `/` as the root, `/proc` speaks of this process' namespaces. With another root (a node's file system in a pod)
//! its `/proc/1` is asked for mounts and sockets, for they are the node's. The parameters of its network (`net.*`) are absent
//! then: `/proc/sys/net` speaks of the network of whoever reads it, wherever it is mounted, and that is not the node's.
//!
//! The search for special files enters local file systems only, each once: not network and pseudo file systems, not bind
//! mounts of what it walks anyway, not containers' overlays, and not the folders in which container runtimes keep images
//! and pods (`host/walk.rs` lists them), for those are targets of their own. Of rpm's database it can only say that it is
//! there: `packages` is absent then.

mod root;
#[cfg(test)]
mod tests;
mod walk;

use std::collections::BTreeMap;
use std::io::BufReader;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use self::root::{Gone, Root};
use super::files::{self, Owners};
use super::packages::{self, Manager};
use super::parts::{Parts, owners};
use super::proc::{self, MountLine, Seen};
use super::{
    Collected, Configs, Files, Missing, Package, Process, Socket, SystemFacts, config, name, os_release, passwd, wanted,
};
use crate::base::limits::Limits;
use crate::model::reason::Reason;

/// Collects the facts of the machine whose root folder this is. It blocks while it reads; on a machine with a million
/// files for some seconds.
pub fn collect(root: &Path, limits: &Limits) -> SystemFacts {
    match Root::open(root) {
        Ok(opened) => {
            let process = walk::process_of(root).map(|process| process.display().to_string());
            let host = Host { root: opened, whose: Whose::of(root), process, limits };
            host.collect(root)
        }
        Err(error) => nothing(&Missing::unreadable(format!("the root folder can't be opened: {error}"))),
    }
}

fn nothing(why: &Missing) -> SystemFacts {
    fn none<T>(why: &Missing) -> Collected<T> {
        Err(why.clone())
    }
    Parts {
        os: none(why),
        packages: none(why),
        users: none(why),
        groups: none(why),
        passwords: none(why),
        special_files: none(why),
        files: none(why),
        configs: none(why),
        processes: none(why),
        sockets: none(why),
        mounts: none(why),
        sysctls: none(why),
        image: none(why),
    }
    .assemble()
}

struct Host<'a> {
    root: Root,
    whose: Whose,
    /// Where the root is that of a process beside this one, that process' folder in `/proc`, theirs as well as this one's.
    process: Option<String>,
    limits: &'a Limits,
}

/// Whose root it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Whose {
    /// That of this process.
    Own,
    /// That of a process beside this one (`/proc/PID/root`), which has the same network.
    Neighbour,
    /// That of another machine or of a node, of whose namespaces this process is in none.
    Foreign,
}

impl Whose {
    fn of(root: &Path) -> Self {
        match root {
            root if root == Path::new("/") => Self::Own,
            root if walk::process_of(root).is_some() => Self::Neighbour,
            _ => Self::Foreign,
        }
    }
}

impl Host<'_> {
    fn collect(&self, root: &Path) -> SystemFacts {
        let users = self.list("/etc/passwd", passwd::users);
        let groups = self.list("/etc/group", passwd::groups);
        let owners = owners(&users, &groups);
        let mounts = self.mounts();
        let special_files = owners.as_ref().map_err(Missing::clone).and_then(|owners| {
            let plan = walk::Plan::for_root(root, self.limits);
            walk::special(&self.root, &plan, owners, self.limits)
        });
        Parts {
            os: self.os(),
            packages: self.packages(),
            passwords: self.list("/etc/shadow", passwd::passwords),
            special_files,
            files: self.files(&owners),
            configs: self.configs(),
            processes: self.processes(&mounts),
            sockets: self.sockets(),
            sysctls: Ok(self.sysctls()),
            image: Err(Missing::new(Reason::FactMissing, "a machine is no image")),
            mounts: mounts.map(|list| list.into_iter().map(|line| line.fact).collect()),
            users,
            groups,
        }
        .assemble()
    }

    /// The process whose view of mounts and sockets counts.
    fn process(&self) -> &str {
        match (&self.process, self.whose) {
            (Some(process), _) => process,
            (None, Whose::Own) => "/proc/self",
            (None, Whose::Neighbour | Whose::Foreign) => "/proc/1",
        }
    }

    fn read(&self, path: &str) -> Collected<Option<Vec<u8>>> {
        self.root.read(path.as_bytes(), self.limits.fact_file_bytes)
    }

    fn list<T>(&self, path: &str, read: impl Fn(&[u8], &Limits) -> Collected<Vec<T>>) -> Collected<Vec<T>> {
        read(&self.read(path)?.unwrap_or_default(), self.limits)
    }

    fn os(&self) -> Collected<BTreeMap<String, String>> {
        for path in wanted::OS_RELEASE {
            if let Some(content) = self.read(path)? {
                return Ok(os_release::parse(&content));
            }
        }
        Err(Missing::new(Reason::FactMissing, "there is no os-release file"))
    }

    fn mounts(&self) -> Collected<Vec<MountLine>> {
        let path = format!("{}/mountinfo", self.process());
        let content = self.read(&path)?.ok_or_else(|| Missing::unreadable(format!("there is no `{path}`")))?;
        proc::mountinfo(&content, self.limits)
    }

    fn processes(&self, mounts: &Collected<Vec<MountLine>>) -> Collected<Vec<Process>> {
        let hidden = mounts.as_ref().map_or(true, |mounts| proc::hides_processes(mounts));
        if hidden && !sees_all() {
            return Err(Missing::unreadable("`/proc` hides the processes of other users, or may do so"));
        }
        let pids = self.root.names(b"/proc")?.unwrap_or_default();
        let mut list = Vec::new();
        let mut any = false;
        for pid in pids.iter().filter_map(|name| name.to_str()?.parse::<u32>().ok()) {
            any = true;
            if self.whose == Whose::Own && pid == std::process::id() {
                continue;
            }
            let status = match self.root.read(format!("/proc/{pid}/status").as_bytes(), self.limits.fact_file_bytes) {
                Ok(Some(status)) => status,
                Ok(None) => continue,
                // A process that ends while it is read answers ESRCH.
                Err(_) if matches!(self.root.find(format!("/proc/{pid}").as_bytes()), Err(Gone::Absent)) => continue,
                Err(missing) => return Err(missing),
            };
            if let Seen::Process(process) = proc::status(pid, &status)? {
                if list.len() == self.limits.fact_items {
                    return Err(Missing::truncated("the list of processes", self.limits));
                }
                list.push(process);
            }
        }
        if any { Ok(list) } else { Err(Missing::unreadable("`/proc` shows no process")) }
    }

    fn sockets(&self) -> Collected<Vec<Socket>> {
        let mut list = Vec::new();
        for protocol in ["tcp", "tcp6", "udp", "udp6"] {
            let path = format!("{}/net/{protocol}", self.process());
            // A busy machine has more connections than the limit for a file has room for.
            match self.root.read(path.as_bytes(), self.limits.fact_file_bytes.max(64 << 20))? {
                Some(content) => list.extend(proc::sockets(protocol, &content, self.limits)?),
                None if protocol.ends_with('6') => {}
                None => return Err(Missing::unreadable(format!("there is no `{path}`"))),
            }
        }
        Ok(list)
    }

    /// What can't be read is not in it, and a rule that asks for it is not evaluated.
    fn sysctls(&self) -> BTreeMap<String, String> {
        let read = |path: &&str| {
            let value = self.root.read(format!("/proc/sys/{path}").as_bytes(), 4096).ok()??;
            Some((wanted::sysctl_name(path), String::from_utf8_lossy(value.trim_ascii()).into_owned()))
        };
        let there = |path: &&&str| self.whose != Whose::Foreign || !path.starts_with("net/");
        wanted::SYSCTLS.iter().filter(there).filter_map(read).collect()
    }

    /// What a pattern stands for here; `None` where its folder can't be listed.
    fn expand(&self, pattern: &str) -> Option<Vec<Vec<u8>>> {
        let Some((folder, before, after)) = wanted::split(pattern) else {
            return Some(vec![pattern.as_bytes().to_vec()]);
        };
        let mut names = self.root.names(folder.as_bytes()).ok()?.unwrap_or_default();
        names.sort();
        let fits = names.iter().filter(|name| wanted::fits(&name.to_string_lossy(), before, after));
        Some(fits.map(|name| [folder.as_bytes(), b"/", name.as_bytes()].concat()).collect())
    }

    fn configs(&self) -> Collected<Configs> {
        let mut configs = BTreeMap::new();
        let mut unread = Vec::new();
        for pattern in wanted::CONFIGS {
            let Some(paths) = self.expand(pattern) else {
                unread.push(wanted::split(pattern).map_or(*pattern, |(folder, ..)| folder).to_owned());
                continue;
            };
            for path in paths {
                if self.root.find(&path).is_ok_and(|found| found.kind() == Some("dir")) {
                    continue;
                }
                match self.root.read(&path, self.limits.fact_file_bytes) {
                    Ok(Some(content)) => drop(configs.insert(name::text(&path), config::lines(&content))),
                    Ok(None) => {}
                    Err(_) => unread.push(name::text(&path)),
                }
            }
            if configs.len() + unread.len() > self.limits.fact_items {
                return Err(Missing::truncated("the list of configuration files", self.limits));
            }
        }
        Ok((configs, unread))
    }

    fn files(&self, owners: &Collected<Owners>) -> Collected<Files> {
        let owners = owners.as_ref().map_err(Missing::clone)?;
        let mut files = BTreeMap::new();
        let mut unread = Vec::new();
        for pattern in wanted::FILES {
            let Some(paths) = self.expand(pattern) else {
                unread.push(wanted::split(pattern).map_or(*pattern, |(folder, ..)| folder).to_owned());
                continue;
            };
            for path in paths {
                let text = name::text(&path);
                let found = match self.root.find(&path) {
                    Ok(found) => found,
                    Err(Gone::Absent) => continue,
                    Err(Gone::Dangling(link)) => *link,
                    Err(Gone::Unknown(_)) => {
                        unread.push(text);
                        continue;
                    }
                };
                let Some(kind) = found.kind() else { continue };
                let stat = &found.stat;
                let mut fact = files::fact(text.clone(), kind, stat.st_mode, (stat.st_uid, stat.st_gid), owners);
                fact.symlink = found.symlink;
                files.insert(text, fact);
            }
            if files.len() + unread.len() > self.limits.fact_items {
                return Err(Missing::truncated("the list of well-known files", self.limits));
            }
        }
        Ok((files, unread))
    }

    fn packages(&self) -> Collected<Vec<Package>> {
        let mut sources: Vec<(Vec<u8>, Manager)> = vec![(wanted::DPKG_STATUS.into(), Manager::Dpkg)];
        for file in self.root.names(wanted::DPKG_STATUS_D.as_bytes())?.unwrap_or_default() {
            if !file.as_bytes().ends_with(b".md5sums") {
                sources.push(([wanted::DPKG_STATUS_D.as_bytes(), b"/", file.as_bytes()].concat(), Manager::Dpkg));
            }
        }
        sources.extend(wanted::APK.map(|path| (path.into(), Manager::Apk)));
        let mut list = Vec::new();
        // With /lib a link to /usr/lib both places are one file.
        let mut seen = std::collections::HashSet::new();
        for (path, manager) in sources {
            let Some((file, id)) = self.root.file(&path)? else { continue };
            if seen.insert(id) {
                list.extend(packages::read(BufReader::new(file), manager, self.limits)?);
            }
            if list.len() > self.limits.fact_items {
                return Err(Missing::truncated("the list of packages", self.limits));
            }
        }
        let rpm = || wanted::RPM.iter().any(|path| !matches!(self.root.find(path.as_bytes()), Err(Gone::Absent)));
        if seen.is_empty() { Err(packages::none_found(rpm())) } else { Ok(list) }
    }
}

/// Whether this process may look at all others, whatever `hidepid` says: to be root alone is not enough (proc(5), ptrace(2)).
fn sees_all() -> bool {
    let status = std::fs::read("/proc/self/status").map(|raw| proc::status(std::process::id(), &raw));
    matches!(status, Ok(Ok(Seen::Process(own))) if own.capabilities.iter().any(|name| name == "CAP_SYS_PTRACE"))
}
