//! All facts of one collector before they become a document: each is there or has its reason, none can be forgotten.

use std::collections::BTreeMap;

use super::files::Owners;
use super::{
    COLLECTOR, Collected, Configs, Files, Group, ImageFacts, Missing, Mount, Package, Password, Process, Socket,
    Special, SystemFacts, User,
};

/// Every field of [`SystemFacts`], collected or not. Pairs are a list and what could not be looked into for it.
pub(crate) struct Parts {
    pub(crate) os: Collected<BTreeMap<String, String>>,
    pub(crate) packages: Collected<Vec<Package>>,
    pub(crate) users: Collected<Vec<User>>,
    pub(crate) groups: Collected<Vec<Group>>,
    pub(crate) passwords: Collected<Vec<Password>>,
    pub(crate) special_files: Collected<Special>,
    pub(crate) files: Collected<Files>,
    pub(crate) configs: Collected<Configs>,
    pub(crate) processes: Collected<Vec<Process>>,
    pub(crate) sockets: Collected<Vec<Socket>>,
    pub(crate) mounts: Collected<Vec<Mount>>,
    pub(crate) sysctls: Collected<BTreeMap<String, String>>,
    pub(crate) image: Collected<ImageFacts>,
}

/// The known owners, or why they are not known: without them nobody can say which file has none.
pub(crate) fn owners(users: &Collected<Vec<User>>, groups: &Collected<Vec<Group>>) -> Collected<Owners> {
    match (users, groups) {
        (Ok(users), Ok(groups)) => Ok(Owners::new(users, groups)),
        (Err(missing), _) | (_, Err(missing)) => {
            Err(Missing::new(missing.reason, format!("the known owners are not known: {}", missing.detail)))
        }
    }
}

impl Parts {
    /// The document. Lists are sorted, so that the same system gives the same bytes.
    pub(crate) fn assemble(self) -> SystemFacts {
        let mut missing = BTreeMap::new();
        let (special_files, unreadable) = pair(&mut missing, ["specialFiles", "unreadable"], self.special_files);
        let (files, unreadable_files) = pair(&mut missing, ["files", "unreadableFiles"], self.files);
        let (configs, unreadable_configs) = pair(&mut missing, ["configs", "unreadableConfigs"], self.configs);
        let mut facts = SystemFacts {
            collector: COLLECTOR,
            os: keep(&mut missing, "os", self.os),
            packages: keep(&mut missing, "packages", self.packages),
            users: keep(&mut missing, "users", self.users),
            groups: keep(&mut missing, "groups", self.groups),
            passwords: keep(&mut missing, "passwords", self.passwords),
            special_files,
            unreadable,
            files,
            unreadable_files,
            configs,
            unreadable_configs,
            processes: keep(&mut missing, "processes", self.processes),
            sockets: keep(&mut missing, "sockets", self.sockets),
            mounts: keep(&mut missing, "mounts", self.mounts),
            sysctls: keep(&mut missing, "sysctls", self.sysctls),
            image: keep(&mut missing, "image", self.image),
            missing,
        };
        facts.packages.iter_mut().for_each(|list| {
            list.sort_by(|a, b| (&a.name, &a.version, &a.arch).cmp(&(&b.name, &b.version, &b.arch)));
        });
        facts.special_files.iter_mut().for_each(|list| list.sort_by(|a, b| a.path.cmp(&b.path)));
        facts.processes.iter_mut().for_each(|list| list.sort_by_key(|p| p.pid));
        for list in
            [&mut facts.unreadable, &mut facts.unreadable_files, &mut facts.unreadable_configs].into_iter().flatten()
        {
            list.sort();
            list.dedup();
        }
        facts
    }
}

fn keep<T>(missing: &mut BTreeMap<String, Missing>, name: &str, fact: Collected<T>) -> Option<T> {
    fact.map_err(|why| missing.insert(name.to_owned(), why)).ok()
}

fn pair<A, B>(
    missing: &mut BTreeMap<String, Missing>,
    names: [&str; 2],
    fact: Collected<(A, B)>,
) -> (Option<A>, Option<B>) {
    match fact {
        Ok((a, b)) => (Some(a), Some(b)),
        Err(why) => {
            missing.extend(names.map(|name| (name.to_owned(), why.clone())));
            (None, None)
        }
    }
}

/// Fields that are neither there nor missing, or both: there must be none.
#[cfg(test)]
pub(crate) fn inconsistent(facts: &SystemFacts) -> Vec<String> {
    const FIELDS: [&str; 16] = [
        "os",
        "packages",
        "users",
        "groups",
        "passwords",
        "specialFiles",
        "unreadable",
        "files",
        "unreadableFiles",
        "configs",
        "unreadableConfigs",
        "processes",
        "sockets",
        "mounts",
        "sysctls",
        "image",
    ];
    let json = serde_json::to_value(facts).expect("facts are JSON");
    let there = |name: &str| json.get(name).is_some();
    let unknown = facts.missing.keys().filter(|name| !FIELDS.contains(&name.as_str())).cloned();
    let both =
        FIELDS.iter().filter(|name| there(name) == facts.missing.contains_key(**name)).map(|name| (*name).to_owned());
    both.chain(unknown).collect()
}
