//! Layers on top of each other: what the file system of a container from the image would hold.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::super::files::{self, Owners};
use super::super::parts::{Parts, owners};
use super::super::{Collected, Configs, FileFact, Files, Missing, Package, Special, SystemFacts, packages, wanted};
use super::layer::{Content, LayerFacts, Node, is_status_d, unreadable};
use super::{ImageError, config};
use crate::base::limits::Limits;
use crate::model::reason::Reason;

/// The facts of an image from those of its layers, from the bottom, and its configuration as it is in the registry.
///
/// What only a running system has (processes, sockets, mounts, kernel parameters) is absent.
///
/// # Errors
/// When the configuration can't be read, or the layers are not those that it names.
pub fn merge(layers: &[Arc<LayerFacts>], config: &[u8], limits: &Limits) -> Result<SystemFacts, ImageError> {
    let expected = config::diff_ids(config, limits)?;
    let found = || layers.iter().map(|layer| layer.diff_id);
    if !expected.iter().copied().eq(found()) {
        let same = expected.iter().copied().zip(found()).take_while(|(a, b)| a == b).count();
        return Err(ImageError::Layers { expected: expected.len(), at: same + 1 });
    }
    let image = config::facts(config, limits)?;
    let mut tree = Tree { layers, ..Tree::default() };
    for layer in layers {
        tree.put(layer);
    }
    let users = tree.list("/etc/passwd", |content| match content {
        Content::Users(users) => Some(users),
        _ => None,
    });
    let groups = tree.list("/etc/group", |content| match content {
        Content::Groups(groups) => Some(groups),
        _ => None,
    });
    let owners = owners(&users, &groups);
    let not_running = || Missing::new(Reason::FactMissing, "an image does not run");
    Ok(Parts {
        os: tree.os(),
        packages: tree.packages(limits),
        passwords: tree.list("/etc/shadow", |content| match content {
            Content::Passwords(passwords) => Some(passwords),
            _ => None,
        }),
        special_files: tree.special(&owners, limits),
        files: tree.files(&owners),
        configs: Ok(tree.configs()),
        processes: Err(not_running()),
        sockets: Err(not_running()),
        mounts: Err(not_running()),
        sysctls: Err(not_running()),
        image: Ok(image),
        users,
        groups,
    }
    .assemble())
}

/// The layers so far.
#[derive(Default)]
struct Tree<'a> {
    layers: &'a [Arc<LayerFacts>],
    nodes: BTreeMap<&'a str, &'a Node>,
    links: BTreeMap<&'a str, &'a str>,
    contents: BTreeMap<&'a str, &'a Content>,
    /// Paths that a layer may have changed through a link.
    doubtful: BTreeSet<String>,
    truncated: bool,
    rpm: bool,
}

/// Where a path leads to.
enum Lead {
    /// There.
    To(String),
    /// Round and round.
    Loop,
}

impl<'a> Tree<'a> {
    fn put(&mut self, layer: &'a LayerFacts) {
        let mut hidden = Hidden { layer, folders: HashMap::new() };
        self.nodes.retain(|path, _| !hidden.path(path) && !layer.dirs.has(path));
        self.links.retain(|path, _| !hidden.path(path) && !layer.dirs.has(path));
        self.contents.retain(|path, _| !hidden.path(path) && !layer.dirs.has(path));
        self.links.extend(layer.links.iter().map(|(path, target)| (path.as_str(), target.as_str())));
        self.doubt(layer);
        self.doubt_removals(layer);
        self.nodes.extend(layer.nodes.iter().map(|(path, node)| (path.as_str(), node)));
        self.contents.extend(layer.contents.iter().map(|(path, content)| (path.as_str(), content)));
        self.truncated |= layer.truncated;
        self.rpm |= layer.rpm;
    }

    /// A runtime follows the links of layers below when it writes: with `x -> etc` an entry `x/passwd` is `/etc/passwd`.
    /// Such an entry was not read as what it becomes, so that what it becomes is not known.
    fn doubt(&mut self, layer: &LayerFacts) {
        let written_through: Vec<&str> =
            self.links.keys().copied().filter(|link| layer.parents.has(link) && !layer.dirs.has(link)).collect();
        for link in written_through {
            let Lead::To(folder) = self.resolve(link) else { continue };
            let folder = folder.trim_end_matches('/');
            for pattern in well_known() {
                let (path, known) = wanted::split(pattern).map_or((pattern, false), |(folder, ..)| (folder, true));
                let Some(rest) = path.strip_prefix(folder).filter(|rest| rest.is_empty() || rest.starts_with('/'))
                else {
                    continue;
                };
                let alias = format!("{link}{rest}");
                let touched =
                    if known { layer.parents.has(&alias) } else { layer.others.has(&alias) || layer.dirs.has(&alias) };
                if touched {
                    self.doubtful.insert(pattern.to_owned());
                }
            }
        }
    }

    /// The same for what is removed through a link: `x/.wh.passwd`.
    fn doubt_removals(&mut self, layer: &LayerFacts) {
        let removed = layer.whiteouts.iter().filter_map(|path| {
            let (folder, file) = path.rsplit_once('/')?;
            match self.resolve(folder) {
                Lead::To(real) => Some((path, format!("{}/{file}", real.trim_end_matches('/')))),
                Lead::Loop => None,
            }
        });
        let hidden = layer.opaque.iter().filter_map(|path| match self.resolve(path) {
            Lead::To(real) => Some((path, real)),
            Lead::Loop => None,
        });
        let mut doubtful = BTreeSet::new();
        for (_, real) in removed.chain(hidden).filter(|(path, real)| *path != real) {
            let gone = real.trim_end_matches('/');
            let below =
                |path: &str| path.strip_prefix(gone).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
            // A pattern is in doubt when any name that fits it may be: `/etc/x.d/*` by `/etc/x.d/50-y`.
            let fits = |pattern: &&str| below(pattern) || wanted::matches(&[pattern], gone);
            doubtful.extend(well_known().filter(fits).map(str::to_owned));
        }
        self.doubtful.extend(doubtful);
    }

    /// Follows links as the kernel does, with the image's root as the root.
    fn resolve(&self, path: &str) -> Lead {
        let mut done = String::new();
        let mut todo: Vec<String> = path.split('/').rev().map(str::to_owned).collect();
        let mut hops = 0;
        while let Some(part) = todo.pop() {
            match part.as_str() {
                "" | "." => continue,
                ".." => {
                    done.truncate(done.rfind('/').unwrap_or(0));
                    continue;
                }
                part => {
                    done.push('/');
                    done.push_str(part);
                }
            }
            if let Some(target) = self.links.get(done.as_str()) {
                hops += 1;
                if hops > 40 || todo.len() > 4096 {
                    return Lead::Loop;
                }
                done.truncate(if target.starts_with('/') { 0 } else { done.rfind('/').unwrap_or(0) });
                todo.extend(target.split('/').rev().map(str::to_owned));
            }
        }
        if done.is_empty() {
            done.push('/');
        }
        Lead::To(done)
    }

    /// Whether any layer has the path, and no later one hides it.
    fn exists(&self, path: &str) -> bool {
        for layer in self.layers.iter().rev() {
            if layer.dirs.has(path) || layer.others.has(path) || layer.parents.has(path) {
                return true;
            }
            if (Hidden { layer, folders: HashMap::new() }).path(path) {
                return false;
            }
        }
        path == "/"
    }

    /// The content at a path; `None` where there is no such file.
    fn content(&self, path: &str) -> Collected<Option<(String, &'a Content)>> {
        if self.doubtful.contains(path) {
            return Err(unreadable(path, "may have been changed through a link"));
        }
        let Lead::To(real) = self.resolve(path) else {
            return Err(unreadable(path, "is a loop of links"));
        };
        if self.doubtful.contains(&real) {
            return Err(unreadable(&real, "may have been changed through a link"));
        }
        match self.contents.get(real.as_str()) {
            Some(Content::Unknown(missing)) => Err(missing.clone()),
            Some(content) => Ok(Some((real, content))),
            None if self.exists(&real) => Err(unreadable(path, "leads to a file whose content was not kept")),
            None => Ok(None),
        }
    }

    fn list<T: Clone + 'a>(&self, path: &str, read: impl Fn(&'a Content) -> Option<&'a Vec<T>>) -> Collected<Vec<T>> {
        match self.content(path)? {
            None => Ok(Vec::new()),
            Some((_, content)) => {
                read(content).cloned().ok_or_else(|| unreadable(path, "leads to a file of another kind"))
            }
        }
    }

    fn os(&self) -> Collected<BTreeMap<String, String>> {
        for path in wanted::OS_RELEASE {
            match self.content(path)? {
                Some((_, Content::Os(os))) => return Ok(os.clone()),
                Some(_) => return Err(unreadable(path, "leads to a file of another kind")),
                None if self.links.contains_key(path) => return Err(unreadable(path, "is a link to nowhere")),
                None => {}
            }
        }
        Err(Missing::new(Reason::FactMissing, "there is no os-release file"))
    }

    fn packages(&self, limits: &Limits) -> Collected<Vec<Package>> {
        let folder = wanted::DPKG_STATUS_D;
        let status_d = format!("{folder}/*");
        let Lead::To(real) = self.resolve(folder) else { return Err(unreadable(folder, "is a loop of links")) };
        if self.doubtful.contains(&status_d) || real != folder && self.exists(&real) {
            return Err(unreadable(folder, "is reached through a link"));
        }
        let below = self.contents.keys().copied().filter(|path| is_status_d(path));
        let single = [wanted::DPKG_STATUS, wanted::APK[0], wanted::APK[1]];
        let mut list: Vec<Package> = Vec::new();
        let mut seen = BTreeSet::new();
        let links = self.links.keys().copied().filter(|path| is_status_d(path));
        for path in single.into_iter().chain(below).chain(links) {
            match self.content(path)? {
                Some((real, Content::Packages(packages))) => {
                    let new: &[Package] = if seen.insert(real) { packages } else { &[] };
                    list.extend_from_slice(new);
                }
                Some(_) => return Err(unreadable(path, "leads to a file of another kind")),
                None => {}
            }
            if list.len() > limits.fact_items {
                return Err(Missing::truncated("the list of packages", limits));
            }
        }
        if seen.is_empty() { Err(packages::none_found(self.rpm)) } else { Ok(list) }
    }

    fn special(&self, owners: &Collected<Owners>, limits: &Limits) -> Collected<Special> {
        let owners = owners.as_ref().map_err(Missing::clone)?;
        self.whole()?;
        let pseudo = |path: &str| {
            wanted::PSEUDO.iter().any(|p| path.strip_prefix(p).is_some_and(|r| r.is_empty() || r.starts_with('/')))
        };
        let list: Vec<FileFact> = self
            .nodes
            .iter()
            .filter(|(path, node)| {
                !pseudo(path) && (files::special_mode(node.mode) || owners.unowned(node.uid, node.gid))
            })
            .take(limits.fact_items + 1)
            .map(|(path, node)| fact(path, node, owners))
            .collect();
        if list.len() > limits.fact_items {
            Err(Missing::truncated("the list of special files", limits))
        } else {
            Ok((list, Vec::new()))
        }
    }

    fn whole(&self) -> Collected<()> {
        let why = || Missing::new(Reason::FactTruncated, "a layer has more special files than there is room for");
        if self.truncated { Err(why()) } else { Ok(()) }
    }

    fn files(&self, owners: &Collected<Owners>) -> Collected<Files> {
        let owners = owners.as_ref().map_err(Missing::clone)?;
        self.whole()?;
        let mut files = BTreeMap::new();
        let mut unread = Vec::new();
        let mut add = |path: &str| {
            let linked = self.links.contains_key(path);
            let Lead::To(real) = self.resolve(path) else { return unread.push(path.to_owned()) };
            if self.doubtful.contains(path) || self.doubtful.contains(&real) {
                return unread.push(path.to_owned());
            }
            let root = |kind: &str, mode| Node { kind: kind.to_owned(), mode, uid: 0, gid: 0 };
            let node = match self.nodes.get(real.as_str()) {
                Some(node) => (*node).clone(),
                // A folder without an entry of its own, which runtimes make like this.
                None if real == "/" || self.only_implied(&real) => root("dir", 0o755),
                None if self.exists(&real) => return unread.push(path.to_owned()),
                None if linked => root("link", 0o777),
                None => return,
            };
            let mut fact = fact(path, &node, owners);
            fact.symlink = linked;
            files.insert(path.to_owned(), fact);
        };
        let mut unlisted = Vec::new();
        for pattern in wanted::FILES {
            match wanted::split(pattern) {
                None => add(pattern),
                Some((folder, ..)) if self.elsewhere(pattern, folder) => unlisted.push(folder.to_owned()),
                Some(_) => self.matching(pattern).iter().for_each(|path| add(path)),
            }
        }
        unread.extend(unlisted);
        Ok((files, unread))
    }

    /// Whether a path is only the folder of other entries.
    fn only_implied(&self, path: &str) -> bool {
        self.exists(path) && !self.layers.iter().any(|layer| layer.dirs.has(path) || layer.others.has(path))
    }

    /// Whether what is in a pattern's folder is not known by the folder's own name.
    fn elsewhere(&self, pattern: &str, folder: &str) -> bool {
        self.doubtful.contains(pattern)
            || match self.resolve(folder) {
                Lead::To(real) => real != folder && self.exists(&real),
                Lead::Loop => true,
            }
    }

    fn matching(&self, pattern: &str) -> BTreeSet<&'a str> {
        let known = self.nodes.keys().chain(self.links.keys()).chain(self.contents.keys());
        known.copied().filter(|path| wanted::matches(&[pattern], path)).collect()
    }

    fn configs(&self) -> Configs {
        let mut configs = BTreeMap::new();
        let mut unread = Vec::new();
        for pattern in wanted::CONFIGS {
            let paths: Vec<&str> = match wanted::split(pattern) {
                None => vec![pattern],
                Some((folder, ..)) if self.elsewhere(pattern, folder) => {
                    unread.push(folder.to_owned());
                    continue;
                }
                Some(_) => self.matching(pattern).into_iter().collect(),
            };
            for path in paths {
                let folder = self.nodes.get(path).is_some_and(|node| node.kind == "dir");
                match self.content(path) {
                    Ok(Some((_, Content::Config(lines)))) => drop(configs.insert(path.to_owned(), lines.clone())),
                    Ok(None) if !self.links.contains_key(path) => {}
                    Err(_) if folder => {}
                    Ok(_) | Err(_) => unread.push(path.to_owned()),
                }
            }
        }
        (configs, unread)
    }
}

/// Every path and pattern that a fact depends on.
fn well_known() -> impl Iterator<Item = &'static str> {
    let single = ["/etc/passwd", "/etc/group", "/etc/shadow", wanted::DPKG_STATUS, "/var/lib/dpkg/status.d/*"];
    let lists = wanted::FILES.iter().chain(wanted::CONFIGS).chain(wanted::LINK_TARGETS).copied();
    lists.chain(single).chain(wanted::OS_RELEASE).chain(wanted::APK)
}

fn fact(path: &str, node: &Node, owners: &Owners) -> FileFact {
    files::fact(path.to_owned(), &node.kind, node.mode, (node.uid, node.gid), owners)
}

/// What one layer hides of the layers below it.
struct Hidden<'a> {
    layer: &'a LayerFacts,
    /// Answers for folders, for most paths share theirs.
    folders: HashMap<String, bool>,
}

impl Hidden<'_> {
    /// Whether what was at this path is gone: removed, replaced by something that is no folder, or below such.
    fn path(&mut self, path: &str) -> bool {
        let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
        self.layer.whiteouts.contains(path) || self.layer.others.has(path) || path != "/" && self.inside(folder)
    }

    /// Whether all that was in this folder is gone.
    fn inside(&mut self, folder: &str) -> bool {
        if folder.is_empty() {
            return self.layer.opaque.contains("/");
        }
        if let Some(known) = self.folders.get(folder) {
            return *known;
        }
        let gone = self.layer.opaque.contains(folder) || self.path(folder);
        self.folders.insert(folder.to_owned(), gone);
        gone
    }
}
