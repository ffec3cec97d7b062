//! What is kept of one layer.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, BufReader, Read};

use base64::Engine as _;
use flate2::read::MultiGzDecoder;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::super::packages::{self, Manager};
use super::super::{
    Collected, Group, Missing, Package, Password, User, config, files, name, os_release, passwd, wanted,
};
use super::ImageError;
use super::entries::{self, Entry, Kind};
use crate::base::ahead::read_ahead;
use crate::base::digest::{Digest, Hasher};
use crate::base::limits::Limits;
use crate::model::reason::Reason;

/// Bytes of names and configuration that are kept of one layer.
const KEPT_BYTES: usize = 64 << 20;

/// What one layer does to the facts of an image: which files it has, in so far as they matter, and what it hides. It
/// depends on nothing but the layer, and can be kept (as JSON) and used for every image that has it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LayerFacts {
    /// The digest of the layer, uncompressed: verified while it was read.
    pub diff_id: Digest,
    /// Special files, files that are not root's, and well-known files, by absolute path.
    pub(super) nodes: BTreeMap<String, Node>,
    /// Nodes were left out, because there are too many.
    pub(super) truncated: bool,
    /// Symbolic links and their targets.
    pub(super) links: BTreeMap<String, String>,
    /// What was read from files whose content matters.
    pub(super) contents: BTreeMap<String, Content>,
    /// Paths in layers below that this one removes.
    pub(super) whiteouts: BTreeSet<String>,
    /// Folders whose content in layers below this one hides.
    pub(super) opaque: BTreeSet<String>,
    /// It has something where rpm keeps its database.
    pub(super) rpm: bool,
    /// All names of folders.
    pub(super) dirs: Names,
    /// All other names.
    pub(super) others: Names,
    /// All names that have an entry below them.
    pub(super) parents: Names,
}

/// Mode and owner of one file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Node {
    pub(super) kind: String,
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
}

/// What a file's content says, or why that is not known.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum Content {
    Os(BTreeMap<String, String>),
    Users(Vec<User>),
    Groups(Vec<Group>),
    Passwords(Vec<Password>),
    Packages(Vec<Package>),
    Config(Vec<String>),
    Unknown(Missing),
}

/// A set of paths, as the first half of their SHA-256: a later layer must be asked whether it replaces a path, and a name
/// each would be too much to keep. Sixteen bytes, so that nobody finds a harmless path that hides another.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Names(Vec<[u8; 16]>);

impl Names {
    pub(super) fn has(&self, path: &str) -> bool {
        !self.0.is_empty() && self.0.binary_search(&short(path)).is_ok()
    }

    fn sorted(mut self) -> Self {
        self.0.sort_unstable();
        self.0.dedup();
        self
    }
}

fn short(path: &str) -> [u8; 16] {
    let digest = Digest::of(path);
    let mut half = [0; 16];
    half.copy_from_slice(&digest.bytes()[..16]);
    half
}

impl Serialize for Names {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&base64::engine::general_purpose::STANDARD_NO_PAD.encode(self.0.as_flattened()))
    }
}

impl<'de> Deserialize<'de> for Names {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use serde::de::Error;
        let text = String::deserialize(deserializer)?;
        let bytes = base64::engine::general_purpose::STANDARD_NO_PAD.decode(text).map_err(D::Error::custom)?;
        let (names, []) = bytes.as_chunks::<16>() else { return Err(D::Error::custom("names are cut")) };
        Ok(Self(names.to_vec()).sorted())
    }
}

/// Hashes and counts what goes through it.
struct Counted<R> {
    inner: R,
    hasher: Hasher,
    limit: u64,
}

/// Inside of an [`io::Error`].
#[derive(Debug, thiserror::Error)]
#[error("the layer inflates to too much")]
struct TooMuch;

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.hasher.update(&buffer[..n]);
        if self.hasher.length() > self.limit {
            return Err(io::Error::other(TooMuch));
        }
        Ok(n)
    }
}

/// Reads a layer's blob, gzip or uncompressed (told by its first bytes, as runtimes do), in one pass and with memory that
/// does not depend on its size.
///
/// # Errors
/// When the blob can't be read or inflated; when it is compressed otherwise; when it does not have this digest; when it
/// is beyond a limit; when an entry is malformed or ambiguous. Nothing of such a layer counts.
pub fn read_layer(blob: impl Read + Send, diff_id: &Digest, limits: &Limits) -> Result<LayerFacts, ImageError> {
    let mut blob = BufReader::with_capacity(64 << 10, blob);
    let mut magic = Vec::with_capacity(6);
    blob.by_ref().take(6).read_to_end(&mut magic).map_err(ImageError::Read)?;
    let blob = io::Cursor::new(magic.clone()).chain(blob);
    match magic[..] {
        // Inflating takes as long as everything that is done with what comes of it.
        [0x1f, 0x8b, ..] => read_ahead(MultiGzDecoder::new(blob), |tar| read_tar(tar, diff_id, limits)),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Err(ImageError::Compression("zstd")),
        [0x42, 0x5a, 0x68, ..] => Err(ImageError::Compression("bzip2")),
        [0xfd, b'7', b'z', b'X', b'Z', 0] => Err(ImageError::Compression("xz")),
        _ => read_tar(blob, diff_id, limits),
    }
}

fn read_tar(tar: impl Read, diff_id: &Digest, limits: &Limits) -> Result<LayerFacts, ImageError> {
    let mut stream = Counted { inner: tar, hasher: Hasher::new(), limit: limits.layer_inflated_bytes };
    let mut layer = Builder::new(*diff_id, limits);
    entries::walk(&mut stream, limits, |entry, data| layer.add(entry, data)).map_err(|error| match error {
        ImageError::Read(io) if io.get_ref().is_some_and(|inner| inner.is::<TooMuch>()) => {
            ImageError::Inflated(limits.layer_inflated_bytes)
        }
        other => other,
    })?;
    let found = stream.hasher.finish();
    if found != *diff_id {
        return Err(ImageError::DiffId { expected: *diff_id, found });
    }
    Ok(layer.finish())
}

/// Paths whose content matters.
fn reads_content(path: &str) -> bool {
    ["/etc/passwd", "/etc/group", "/etc/shadow", wanted::DPKG_STATUS].contains(&path)
        || wanted::OS_RELEASE.contains(&path)
        || wanted::APK.contains(&path)
        || is_status_d(path)
        || wanted::matches(wanted::CONFIGS, path)
        || wanted::matches(wanted::LINK_TARGETS, path)
}

pub(super) fn is_status_d(path: &str) -> bool {
    path.strip_prefix(wanted::DPKG_STATUS_D)
        .and_then(|rest| rest.strip_prefix('/'))
        .is_some_and(|name| !name.contains('/') && !name.ends_with(".md5sums"))
}

struct Builder<'a> {
    facts: LayerFacts,
    limits: &'a Limits,
    kept_bytes: usize,
    last_parent: String,
    parents_room: usize,
}

impl<'a> Builder<'a> {
    fn new(diff_id: Digest, limits: &'a Limits) -> Self {
        let facts = LayerFacts {
            diff_id,
            nodes: BTreeMap::new(),
            truncated: false,
            links: BTreeMap::new(),
            contents: BTreeMap::new(),
            whiteouts: BTreeSet::new(),
            opaque: BTreeSet::new(),
            rpm: false,
            dirs: Names::default(),
            others: Names::default(),
            parents: Names::default(),
        };
        Self { facts, limits, kept_bytes: 0, last_parent: String::new(), parents_room: 1 << 16 }
    }

    fn add(&mut self, entry: Entry, data: &mut dyn Read) -> Result<(), ImageError> {
        let path = format!("/{}", name::text(&entry.path));
        let (folder, file) = path.rsplit_once('/').unwrap_or(("", ""));
        if let Some(hidden) = file.strip_prefix(".wh.") {
            let folder = if folder.is_empty() { "/" } else { folder }.to_owned();
            match hidden {
                ".wh..opq" => drop(self.facts.opaque.insert(folder)),
                // Other names of aufs, which mean nothing in a layer.
                hidden if hidden.starts_with(".wh.") || hidden.is_empty() => {}
                hidden => drop(self.facts.whiteouts.insert(format!("{}/{hidden}", folder.trim_end_matches('/')))),
            }
            return self.keep(path.len());
        }
        self.note(&path, folder, entry.kind);
        self.replace(&path, entry.kind);
        self.facts.rpm |= wanted::RPM.iter().any(|rpm| path.starts_with(rpm));
        match entry.kind {
            Kind::Symlink => {
                self.keep(path.len() + entry.link.len())?;
                self.facts.links.insert(path, name::text(&entry.link));
            }
            Kind::Hardlink => self.hardlink(path, &entry)?,
            _ => {
                if reads_content(&path) && entry.kind != Kind::Dir {
                    let content = self.content(&path, &entry, data)?;
                    self.facts.contents.insert(path.clone(), content);
                }
                self.node(
                    path,
                    Node { kind: kind(entry.kind).to_owned(), mode: entry.mode, uid: entry.uid, gid: entry.gid },
                );
            }
        }
        Ok(())
    }

    /// Remembers that the layer has this path, and folders above it.
    fn note(&mut self, path: &str, folder: &str, kind: Kind) {
        let names = if kind == Kind::Dir { &mut self.facts.dirs } else { &mut self.facts.others };
        names.0.push(short(path));
        if self.last_parent != folder {
            self.last_parent = folder.to_owned();
            let mut parent = folder;
            while !parent.is_empty() {
                self.facts.parents.0.push(short(parent));
                parent = parent.rsplit_once('/').map_or("", |(above, _)| above);
            }
            // Each folder is pushed again whenever another one came between: keep the list near the number of folders.
            if self.facts.parents.0.len() > self.parents_room {
                self.facts.parents = std::mem::take(&mut self.facts.parents).sorted();
                self.parents_room = self.facts.parents.0.len() * 2 + (1 << 16);
            }
        }
    }

    /// A name that is there twice replaces the first; what is no folder replaces a whole tree.
    fn replace(&mut self, path: &str, kind: Kind) {
        self.facts.links.remove(path);
        self.facts.contents.remove(path);
        self.facts.nodes.remove(path);
        if kind != Kind::Dir {
            let below = format!("{path}/");
            drop_below(&mut self.facts.links, &below);
            drop_below(&mut self.facts.contents, &below);
            drop_below(&mut self.facts.nodes, &below);
        }
    }

    /// Both names get the mode of either: whether the header of a hard link changes the file depends on the runtime.
    fn hardlink(&mut self, path: String, entry: &Entry) -> Result<(), ImageError> {
        let target = match entries::normal(&entry.link) {
            Ok(target) => format!("/{}", name::text(&target)),
            Err(why) => return Err(ImageError::Entry { number: entry.number, name: path, why }),
        };
        let known = self.facts.nodes.get(&target).cloned();
        if reads_content(&path) {
            let elsewhere =
                || Content::Unknown(unreadable(&path, "is a hard link to a file whose content was not kept"));
            let content = self.facts.contents.get(&target).cloned().unwrap_or_else(elsewhere);
            self.facts.contents.insert(path.clone(), content);
        }
        let node = Node {
            kind: known.as_ref().map_or_else(|| "file".to_owned(), |node| node.kind.clone()),
            mode: entry.mode | known.as_ref().map_or(0, |node| node.mode & 0o6002),
            uid: entry.uid,
            gid: entry.gid,
        };
        self.node(target, node.clone());
        self.node(path, node);
        Ok(())
    }

    fn node(&mut self, path: String, node: Node) {
        let matters =
            files::special_mode(node.mode) || node.uid != 0 || node.gid != 0 || wanted::matches(wanted::FILES, &path);
        if !matters {
            return;
        }
        if self.facts.nodes.len() >= self.limits.fact_items || self.keep(path.len() + 32).is_err() {
            self.facts.truncated = true;
        } else {
            self.facts.nodes.insert(path, node);
        }
    }

    fn keep(&mut self, bytes: usize) -> Result<(), ImageError> {
        self.kept_bytes += bytes;
        if self.kept_bytes > KEPT_BYTES { Err(ImageError::Kept(KEPT_BYTES)) } else { Ok(()) }
    }

    fn content(&mut self, path: &str, entry: &Entry, data: &mut dyn Read) -> Result<Content, ImageError> {
        if entry.kind != Kind::File {
            return Ok(Content::Unknown(unreadable(path, "is no regular file")));
        }
        if entry.sparse {
            return Ok(Content::Unknown(unreadable(path, "is a sparse file")));
        }
        let database = if path == wanted::DPKG_STATUS || is_status_d(path) {
            Some(Manager::Dpkg)
        } else {
            wanted::APK.contains(&path).then_some(Manager::Apk)
        };
        if let Some(manager) = database {
            let packages = packages::read(BufReader::new(data), manager, self.limits);
            return Ok(packages.map_or_else(Content::Unknown, Content::Packages));
        }
        let cap = self.limits.fact_file_bytes;
        let mut raw = Vec::new();
        data.take(cap + 1).read_to_end(&mut raw).map_err(ImageError::Read)?;
        if raw.len() as u64 > cap {
            return Ok(Content::Unknown(Missing::too_large(path, cap)));
        }
        let limits = self.limits;
        fn known<T>(content: Collected<T>, as_content: impl Fn(T) -> Content) -> Content {
            content.map_or_else(Content::Unknown, as_content)
        }
        Ok(match path {
            "/etc/passwd" => known(passwd::users(&raw, limits), Content::Users),
            "/etc/group" => known(passwd::groups(&raw, limits), Content::Groups),
            "/etc/shadow" => known(passwd::passwords(&raw, limits), Content::Passwords),
            path if wanted::OS_RELEASE.contains(&path) => Content::Os(os_release::parse(&raw)),
            _ if self.keep(raw.len()).is_err() => {
                Content::Unknown(unreadable(path, "is one configuration file too many"))
            }
            _ => Content::Config(config::lines(&raw)),
        })
    }

    fn finish(mut self) -> LayerFacts {
        self.facts.dirs = self.facts.dirs.sorted();
        self.facts.others = self.facts.others.sorted();
        self.facts.parents = self.facts.parents.sorted();
        self.facts
    }
}

fn drop_below<T>(map: &mut BTreeMap<String, T>, prefix: &str) {
    while let Some(key) =
        map.range(prefix.to_owned()..).next().map(|(key, _)| key).filter(|key| key.starts_with(prefix))
    {
        let key = key.clone();
        map.remove(&key);
    }
}

fn kind(kind: Kind) -> &'static str {
    match kind {
        Kind::File | Kind::Hardlink => "file",
        Kind::Dir => "dir",
        Kind::Symlink => "link",
        Kind::Char => "char",
        Kind::Block => "block",
        Kind::Fifo => "fifo",
    }
}

pub(super) fn unreadable(path: &str, why: &str) -> Missing {
    Missing::new(Reason::ImageUnreadable, format!("`{path}` in the image {why}"))
}
