//! A profile's files and those of what it depends on, found where InSpec finds them offline: at a path inside, or in `vendor/`
//! by the pins of `inspec.lock`.

use std::collections::BTreeMap;
use std::io::Read;

use serde::Deserialize;

use super::{Metadata, metadata};
use crate::base::text::brief;
use crate::results::expected::{Files, below, text, yaml};

/// How deep profiles may include others.
pub(super) const DEPTH: usize = 16;
/// Bytes that a vendored archive may inflate to.
const INFLATED_BYTES: u64 = 256 << 20;
/// Entries of a vendored archive.
const ENTRIES: usize = 20_000;
/// Bytes of a file in it that is looked into.
const FILE_BYTES: u64 = 16 << 20;

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Lock {
    depends: Vec<Locked>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Locked {
    name: String,
    resolved_source: BTreeMap<String, serde_json::Value>,
    dependencies: Vec<Locked>,
}

/// One profile.
pub(super) struct Tree {
    /// Its files, relative to its folder.
    pub(super) files: Files,
    pub(super) metadata: Metadata,
    /// What it depends on, by the pins of the outermost profile.
    locked: Vec<Locked>,
    /// The outermost profile's `vendor/`.
    vendor: Files,
}

impl Tree {
    /// The profile in this folder.
    pub(super) fn of(files: &Files, folder: &str) -> Result<Self, String> {
        let files = within(files, folder);
        let lock: Lock = match files.contains_key("inspec.lock") {
            true => yaml("inspec.lock", "inspec.lock", text(&files, "inspec.lock")?)?,
            false => Lock::default(),
        };
        let vendor = within(&files, "vendor");
        let metadata = metadata(&below(folder, "inspec.yml"), text(&files, "inspec.yml")?)?;
        let tree = Self { files, metadata, locked: lock.depends, vendor };
        for depends in &tree.metadata.depends {
            tree.dependency(&depends.name)?;
        }
        Ok(tree)
    }

    /// What this profile calls `name`.
    pub(super) fn dependency(&self, name: &str) -> Result<Self, String> {
        let shown = brief(name);
        let depends = self.metadata.depends.iter().find(|depends| depends.name == name);
        let depends = depends.ok_or_else(|| format!("inspec.yml names no `{shown}`"))?;
        let (files, locked) = match &depends.path {
            Some(path) => {
                let files = within(&self.files, path);
                let locked = self.locked.iter().find(|locked| locked.name == name);
                (files, locked.map(|locked| locked.dependencies.clone()).unwrap_or_default())
            }
            None => {
                let locked = self.locked.iter().find(|locked| locked.name == name);
                let locked = locked.ok_or_else(|| format!("inspec.lock does not pin `{shown}`"))?;
                (self.vendored(locked)?, locked.dependencies.clone())
            }
        };
        let path = format!("{shown}: inspec.yml");
        let text = text(&files, "inspec.yml").map_err(|_| format!("what is vendored of `{shown}` is no profile"))?;
        let metadata = metadata(&path, text)?;
        Ok(Self { files, metadata, locked, vendor: self.vendor.clone() })
    }

    fn vendored(&self, locked: &Locked) -> Result<Files, String> {
        let shown = brief(&locked.name);
        let keys = ["sha256", "ref"].into_iter().filter_map(|key| locked.resolved_source.get(key)?.as_str());
        for key in keys {
            let folder = within(&self.vendor, key);
            if !folder.is_empty() {
                return Ok(folder);
            }
            for ending in ["tar.gz", "tgz"] {
                if let Some(bytes) = self.vendor.get(&format!("{key}.{ending}")) {
                    return unpack(bytes)
                        .map_err(|e| format!("read vendor/{}.{ending}: {}", brief(key), brief(&e.to_string())));
                }
            }
            if self.vendor.contains_key(&format!("{key}.zip")) {
                return Err(format!(
                    "`{shown}` is vendored as a ZIP, which is not looked into; vendor it as a folder or .tar.gz"
                ));
            }
        }
        Err(format!("vendor/ does not have what inspec.lock pins for `{shown}`"))
    }
}

/// The files below a folder, relative to it.
fn within(files: &Files, folder: &str) -> Files {
    let parts: Vec<&str> = folder.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    if parts.is_empty() {
        return files.clone();
    }
    let prefix = format!("{}/", parts.join("/"));
    let below = files.range(prefix.clone()..).take_while(|(path, _)| path.starts_with(&prefix));
    below.map(|(path, bytes)| (path[prefix.len()..].to_owned(), bytes.clone())).collect()
}

/// The files of an archive that matter here. People pack with a folder around the files, `inspec archive` without.
fn unpack(bytes: &[u8]) -> std::io::Result<Files> {
    let mut files = Files::new();
    let inflated = flate2::read::MultiGzDecoder::new(bytes).take(INFLATED_BYTES);
    for (count, entry) in tar::Archive::new(inflated).entries()?.enumerate() {
        let mut entry = entry?;
        if count >= ENTRIES {
            return Err(std::io::Error::other("it has too many entries"));
        }
        let Ok(path) = String::from_utf8(entry.path_bytes().into_owned()) else { continue };
        let path = path.trim_start_matches("./").to_owned();
        if entry.header().entry_type().is_file() && [".rb", ".yml", ".lock"].iter().any(|ending| path.ends_with(ending))
        {
            let mut content = Vec::new();
            entry.by_ref().take(FILE_BYTES + 1).read_to_end(&mut content)?;
            if content.len() as u64 > FILE_BYTES {
                return Err(std::io::Error::other(format!("{} is larger than {FILE_BYTES} bytes", brief(&path))));
            }
            files.insert(path, content);
        }
    }
    if files.contains_key("inspec.yml") {
        return Ok(files);
    }
    let around = files.keys().find_map(|path| path.strip_suffix("/inspec.yml").filter(|folder| !folder.contains('/')));
    Ok(around.map(|folder| within(&files, folder)).unwrap_or_default())
}
