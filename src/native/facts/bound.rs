//! What facts about one system do not tell of another one that they stand for: a copy's of its original.

use super::{Missing, SystemFacts, wanted};
use crate::model::reason::Reason;

/// What only a running system has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Live {
    /// [`SystemFacts::processes`]
    Processes,
    /// [`SystemFacts::sockets`]
    Sockets,
    /// [`SystemFacts::mounts`]
    Mounts,
    /// [`SystemFacts::sysctls`]
    Sysctls,
}

impl SystemFacts {
    /// Makes absent what only a running system has, where what was looked at does not run as the target does: a rule that asks
    /// for it is not evaluated.
    pub fn withhold(&mut self, fact: Live, detail: &str) {
        let name = match fact {
            Live::Processes => {
                self.processes = None;
                "processes"
            }
            Live::Sockets => {
                self.sockets = None;
                "sockets"
            }
            Live::Mounts => {
                self.mounts = None;
                "mounts"
            }
            Live::Sysctls => {
                self.sysctls = None;
                "sysctls"
            }
        };
        // Why it could not be collected says more than why it would not count.
        self.missing.entry(name.to_owned()).or_insert_with(|| Missing::new(Reason::FactMissing, detail));
    }

    /// Takes out what is at these paths and below them, as if it could not be read: there the target has files that were not
    /// seen.
    pub fn put_out_of_reach(&mut self, paths: &[String]) {
        let hidden = |path: &str| {
            let inside =
                |folder: &str| path.strip_prefix(folder).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
            paths.iter().any(|folder| inside(folder.strip_suffix('/').unwrap_or(folder)))
        };
        if let Some(special) = &mut self.special_files {
            special.retain(|file| !hidden(&file.path));
        }
        let why = |path: &str| Missing::unreadable(format!("what the target has at `{path}` was not seen"));
        let mut gone = |fact: &str, sources: &[&str]| {
            // What hides a folder above a source hides the source, and what lies in a source is part of it.
            let source = sources.iter().find(|s| {
                hidden(s) || paths.iter().any(|path| path.strip_prefix(**s).is_some_and(|rest| rest.starts_with('/')))
            });
            source.map(|source| self.missing.insert(fact.to_owned(), why(source))).is_some()
        };
        let packages: Vec<&str> = [wanted::DPKG_STATUS, wanted::DPKG_STATUS_D]
            .into_iter()
            .chain(wanted::APK.iter().copied())
            .chain(wanted::RPM.iter().copied())
            .collect();
        if gone("os", &wanted::OS_RELEASE) {
            self.os = None;
        }
        if gone("packages", &packages) {
            self.packages = None;
        }
        if gone("users", &["/etc/passwd"]) {
            self.users = None;
        }
        if gone("groups", &["/etc/group"]) {
            self.groups = None;
        }
        if gone("passwords", &["/etc/shadow"]) {
            self.passwords = None;
        }
        if let (Some(files), Some(unread)) = (&mut self.files, &mut self.unreadable_files) {
            files.retain(|path, _| !hidden(path));
            unread.extend_from_slice(paths);
        }
        if let (Some(configs), Some(unread)) = (&mut self.configs, &mut self.unreadable_configs) {
            configs.retain(|path, _| !hidden(path));
            unread.extend_from_slice(paths);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::limits::Limits;

    /// Of a folder with some files in it.
    fn facts() -> SystemFacts {
        let root = tempfile::tempdir().expect("a folder");
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().expect("a folder"))
                .and_then(|()| std::fs::write(path, text))
                .expect("it is written");
        };
        write("etc/passwd", "root:x:0:0::/:/bin/sh\n");
        write("etc/group", "root:x:0:\n");
        write("etc/os-release", "ID=x\n");
        write("etc/ssh/sshd_config", "PermitRootLogin yes\n");
        write("var/lib/dpkg/status", "Package: a\nStatus: install ok installed\nVersion: 1\n");
        super::super::host::collect(root.path(), &Limits::default())
    }

    #[test]
    fn what_only_runs_is_absent_and_says_why() {
        let mut facts =
            SystemFacts { processes: Some(Vec::new()), sockets: Some(Vec::new()), ..SystemFacts::default() };
        let earlier = Missing::new(Reason::Timeout, "too slow");
        facts.missing.insert("mounts".to_owned(), earlier.clone());
        for fact in [Live::Processes, Live::Sockets, Live::Mounts, Live::Sysctls] {
            facts.withhold(fact, "it is a copy");
        }
        assert_eq!((&facts.processes, &facts.sockets), (&None, &None));
        assert_eq!(facts.missing["processes"], Missing::new(Reason::FactMissing, "it is a copy"));
        assert_eq!(facts.missing["mounts"], earlier, "why it could not be collected says more");
    }

    #[test]
    fn what_the_original_has_somewhere_else_is_neither_there_nor_known_to_be_absent() {
        let whole = facts();
        assert!(whole.configs.as_ref().is_some_and(|configs| configs.contains_key("/etc/ssh/sshd_config")));
        let mut facts = whole.clone();
        facts.put_out_of_reach(&["/etc/ssh".to_owned(), "/data/".to_owned()]);
        assert!(!facts.configs.as_ref().expect("they are there").contains_key("/etc/ssh/sshd_config"));
        assert!(!facts.files.as_ref().expect("they are there").contains_key("/etc/ssh/sshd_config"));
        for unread in [&facts.unreadable_configs, &facts.unreadable_files] {
            assert!(unread.as_ref().expect("it is there").contains(&"/etc/ssh".to_owned()));
        }
        assert_eq!((&facts.users, &facts.packages, &facts.os), (&whole.users, &whole.packages, &whole.os));
        let mut none = whole.clone();
        none.put_out_of_reach(&[]);
        assert_eq!(none, whole);
    }

    #[test]
    fn what_is_read_from_one_file_is_absent_where_that_is_another_one() {
        for (path, gone) in [
            ("/etc/passwd", "users"),
            ("/etc", "users"),
            ("/etc/", "groups"),
            ("/var/lib/dpkg", "packages"),
            ("/var/lib/dpkg/status", "packages"),
            ("/var/lib/rpm/Packages", "packages"),
            ("/usr/lib/os-release", "os"),
        ] {
            let mut facts = facts();
            facts.put_out_of_reach(&[path.to_owned()]);
            assert_eq!(facts.missing[gone].reason, Reason::UnreadablePaths, "{path}");
            let there = serde_json::to_value(&facts).expect("JSON");
            assert!(there.get(gone).is_none(), "{path}");
        }
        let mut facts = facts();
        facts.put_out_of_reach(&["/etc/passwd-".to_owned(), "/et".to_owned()]);
        assert!(facts.users.is_some());
    }
}
