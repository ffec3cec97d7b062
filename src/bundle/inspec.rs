//! InSpec profiles among the dependencies: whether they find offline what they depend on.
//!
//! A profile names others in `inspec.yml` (`depends`). Offline they come from inside the profile (`path`), or from its
//! `vendor/` folder by the pins of `inspec.lock`; an entry without any source means a server on the internet. What is not
//! there would fail only in the enclave, so it is refused where it is collected. The bounds: sizes of the documents, names in
//! an archive, what it inflates to, and how deep locked dependencies are nested.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Read};
use std::path::Path;

use serde::Deserialize;

use super::source::SourceError;
use crate::base::exit::ExitClass;
use crate::base::file;
use crate::base::text::brief;

/// Bytes of `inspec.yml` and of `inspec.lock`.
const DOCUMENT_BYTES: u64 = 4 << 20;
/// Bytes that an archive may inflate to.
const INFLATED_BYTES: u64 = 1 << 30;
/// Names in an archive, or in `vendor/`.
const NAMES: usize = 200_000;
/// Profiles right below a dependency's folder that are looked at.
const PROFILES: usize = 1000;
/// How deep locked dependencies may be nested.
const DEPTH: usize = 16;

#[derive(Default, Deserialize)]
#[serde(default)]
struct Profile {
    name: String,
    depends: Vec<Depends>,
}

/// What a profile says of another one that it needs. What it does not say here (`url`, `git`, `supermarket`, `compliance`)
/// makes no difference offline.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Depends {
    name: String,
    path: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Lock {
    depends: Vec<Locked>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Locked {
    name: String,
    resolved_source: BTreeMap<String, serde_json::Value>,
    dependencies: Vec<Locked>,
}

/// A profile's files, as far as they matter: two documents, and names.
#[derive(Default)]
struct Files {
    yml: Option<Vec<u8>>,
    lock: Option<Vec<u8>>,
    /// Names in `vendor/`, without endings.
    vendored: BTreeSet<String>,
    /// Folders that have an `inspec.yml`.
    profiles: BTreeSet<String>,
}

/// Refuses a dependency that is an InSpec profile, or a folder of such, and would not find offline what it depends on.
///
/// # Errors
/// When it would not, or can't be read.
pub fn check(path: &Path) -> Result<(), SourceError> {
    let refuse = |at: &Path, reason: String| {
        SourceError::new(ExitClass::Usage, format!("use the InSpec profile `{}`: {reason}", at.display())).with_remedy(
            "run `inspec vendor` (or `cinc-auditor vendor`) in its folder where the internet is, and bundle the folder with \
             its vendor/ and inspec.lock",
        )
    };
    if path.is_dir() {
        let below = fs::read_dir(path).map_err(|e| unreadable(path, e))?;
        let mut folders = vec![path.to_owned()];
        for entry in below.take(PROFILES) {
            folders.push(entry.map_err(|e| unreadable(path, e))?.path());
        }
        for folder in folders.iter().filter(|folder| folder.join("inspec.yml").is_file()) {
            Files::of_folder(folder)?.check().map_err(|reason| refuse(folder, reason))?;
        }
        return Ok(());
    }
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    if [".tar.gz", ".tgz", ".tar"].iter().any(|ending| name.ends_with(ending)) {
        let files = Files::of_archive(path).map_err(|e| unreadable(path, e))?;
        files.check().map_err(|reason| refuse(path, reason))?;
    }
    Ok(())
}

fn unreadable(path: &Path, error: io::Error) -> SourceError {
    SourceError::new(ExitClass::Unreachable, format!("read `{}`", path.display())).because(error)
}

/// The name of a vendored profile without what archives end in.
fn stem(name: &str) -> &str {
    [".tar.gz", ".tgz", ".zip"].iter().find_map(|ending| name.strip_suffix(ending)).unwrap_or(name)
}

impl Files {
    fn of_folder(folder: &Path) -> Result<Self, SourceError> {
        let read = |name: &str| match file::read_capped(&folder.join(name), DOCUMENT_BYTES) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(_) if !folder.join(name).exists() => Ok(None),
            Err(error) => Err(SourceError::of(error)),
        };
        let mut files = Self { yml: read("inspec.yml")?, lock: read("inspec.lock")?, ..Self::default() };
        let vendor = folder.join("vendor");
        if vendor.is_dir() {
            for entry in fs::read_dir(&vendor).map_err(|e| unreadable(&vendor, e))?.take(NAMES) {
                let name = entry.map_err(|e| unreadable(&vendor, e))?.file_name();
                files.vendored.extend(name.to_str().map(|name| stem(name).to_owned()));
            }
        }
        // A path is followed only where it stays inside: what is outside is not bundled.
        let named = files.yml.as_ref().and_then(|yml| parse::<Profile>(yml).ok()).unwrap_or_default();
        for path in named.depends.iter().filter_map(|d| d.path.as_deref()).filter_map(inside) {
            if folder.join(&path).join("inspec.yml").is_file() {
                files.profiles.insert(path);
            }
        }
        Ok(files)
    }

    fn of_archive(path: &Path) -> io::Result<Self> {
        let mut file = fs::File::open(path)?;
        let mut magic = [0; 2];
        let count = file.read(&mut magic)?;
        let start = io::Cursor::new(magic[..count].to_vec());
        let whole: Box<dyn Read> = match &magic {
            [0x1f, 0x8b] => Box::new(flate2::read::MultiGzDecoder::new(start.chain(file))),
            _ => Box::new(start.chain(file)),
        };
        let mut all = Self::default();
        for (count, entry) in tar::Archive::new(whole.take(INFLATED_BYTES)).entries()?.enumerate() {
            if count > NAMES {
                return Err(io::Error::other("it has too many entries"));
            }
            let mut entry = entry?;
            let Ok(name) = String::from_utf8(entry.path_bytes().into_owned()) else { continue };
            let name = name.trim_start_matches("./").trim_end_matches('/').to_owned();
            // `inspec archive` packs with the files at the top, people with a folder around them.
            let parts: Vec<&str> = name.split('/').collect();
            let mut document = |limit: u64| {
                let mut bytes = Vec::new();
                entry.by_ref().take(limit).read_to_end(&mut bytes).map(|_| bytes)
            };
            match parts[..] {
                ["inspec.yml"] | [_, "inspec.yml"] if all.yml.is_none() => all.yml = Some(document(DOCUMENT_BYTES)?),
                ["inspec.lock"] | [_, "inspec.lock"] if all.lock.is_none() => {
                    all.lock = Some(document(DOCUMENT_BYTES)?)
                }
                _ => {}
            }
            if let Some(at) = parts.iter().take(2).position(|part| *part == "vendor") {
                all.vendored.extend(parts.get(at + 1).map(|name| stem(name).to_owned()));
            }
            if parts.last() == Some(&"inspec.yml") && parts.len() > 1 {
                let folder = &parts[..parts.len() - 1];
                all.profiles.insert(folder.join("/"));
                all.profiles.insert(folder[1..].join("/"));
            }
        }
        Ok(all)
    }

    fn check(&self) -> Result<(), String> {
        let Some(yml) = &self.yml else { return Ok(()) };
        let profile: Profile = parse(yml).map_err(|e| format!("its inspec.yml can't be read: {e}"))?;
        let lock: Option<Lock> = match &self.lock {
            Some(lock) => Some(parse(lock).map_err(|e| format!("its inspec.lock can't be read: {e}"))?),
            None => None,
        };
        let mut missing = Vec::new();
        for wanted in &profile.depends {
            let shown = brief(&wanted.name);
            if let Some(path) = &wanted.path {
                match inside(path) {
                    Some(path) if self.profiles.contains(&path) => {}
                    Some(_) => missing.push(format!("`{shown}` (nothing is at its path `{}`)", brief(path))),
                    None => missing.push(format!("`{shown}` (its path `{}` leads out of the profile)", brief(path))),
                }
                continue;
            }
            let locked = lock.as_ref().and_then(|lock| lock.depends.iter().find(|l| l.name == wanted.name));
            match locked {
                Some(locked) => self.check_locked(locked, 0, &mut missing),
                None if lock.is_some() => missing.push(format!("`{shown}` (inspec.lock does not pin it)")),
                None => missing.push(format!("`{shown}` (there is no inspec.lock)")),
            }
        }
        match missing.is_empty() {
            true => Ok(()),
            false => {
                Err(format!("`{}` can't be used offline, it depends on {}", brief(&profile.name), missing.join(", ")))
            }
        }
    }

    /// A pinned dependency is in `vendor/` under the digest of its archive, or the commit of its repository.
    fn check_locked(&self, locked: &Locked, depth: usize, missing: &mut Vec<String>) {
        let shown = brief(&locked.name);
        if depth > DEPTH || missing.len() > DEPTH {
            missing.push(format!("`{shown}` (nested too deep)"));
            return;
        }
        let keys = ["sha256", "ref"].into_iter().filter_map(|key| locked.resolved_source.get(key)?.as_str());
        let path = locked.resolved_source.get("path").and_then(|path| inside(path.as_str()?));
        let there = keys.into_iter().any(|key| self.vendored.contains(key))
            || path.is_some_and(|path| self.profiles.contains(&path));
        if !there {
            missing.push(format!("`{shown}` (vendor/ does not have what inspec.lock pins)"));
        }
        for nested in &locked.dependencies {
            self.check_locked(nested, depth + 1, missing);
        }
    }
}

/// A relative path that stays inside, without `.` and such.
fn inside(path: &str) -> Option<String> {
    if path.starts_with('/') {
        return None;
    }
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    (!parts.is_empty() && !parts.contains(&"..")).then(|| parts.join("/"))
}

fn parse<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    let text = std::str::from_utf8(bytes).map_err(|e| e.to_string())?;
    // Ruby's symbols and tags are no business of a profile that is read here.
    serde_saphyr::from_str(text).map_err(|e| brief(&e.without_snippet().to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(folder: &Path, files: &[(&str, &str)]) {
        for (name, content) in files {
            let path = folder.join(name);
            fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
            fs::write(path, content).expect("a file");
        }
    }

    fn yml(depends: &str) -> String {
        format!("name: top\nversion: 1.0.0\n{depends}")
    }

    const LOCK: &str = "lockfile_version: 1\ndepends:\n- name: a\n  resolved_source:\n    url: https://x.example/a.tar.gz\n    \
                        sha256: abc1\n  version_constraints: []\n  dependencies:\n  - name: deep\n    resolved_source:\n      \
                        git: https://x.example/deep.git\n      ref: def2\n";

    fn all_ways(files: &[(&str, &str)]) -> Vec<Result<(), SourceError>> {
        let root = tempfile::tempdir().expect("a folder");
        let profile = root.path().join("profiles/top");
        write(&profile, files);
        let archive = root.path().join("top.tar.gz");
        let around = root.path().join("around.tgz");
        for (path, prefix) in [(&archive, "."), (&around, "top")] {
            let gzip =
                flate2::write::GzEncoder::new(fs::File::create(path).expect("a file"), flate2::Compression::fast());
            let mut tar = tar::Builder::new(gzip);
            tar.append_dir_all(prefix, &profile).expect("an archive");
            tar.into_inner().expect("a tar").finish().expect("gzip");
        }
        [profile.clone(), root.path().join("profiles"), archive, around].iter().map(|path| check(path)).collect()
    }

    #[test]
    fn what_is_vendored_is_found() {
        let depends = yml("depends:\n- name: a\n  url: https://x.example/a.tar.gz\n- {name: in, path: libraries/in}\n");
        let files = [
            ("inspec.yml", depends.as_str()),
            ("inspec.lock", LOCK),
            ("vendor/abc1.tar.gz", "x"),
            ("vendor/def2/inspec.yml", "name: deep\n"),
            ("libraries/in/inspec.yml", "name: in\n"),
        ];
        for (way, result) in all_ways(&files).into_iter().enumerate() {
            assert!(result.is_ok(), "{way}: {result:?}");
        }
        for result in all_ways(&[("inspec.yml", &yml(""))]) {
            assert!(result.is_ok(), "{result:?}");
        }
        for result in all_ways(&[("README", "no profile")]) {
            assert!(result.is_ok(), "{result:?}");
        }
    }

    #[test]
    fn what_is_not_vendored_is_named() {
        let remote = yml("depends:\n- name: a\n  url: https://x.example/a.tar.gz\n");
        let market = yml("depends:\n- name: a\n");
        for (case, files) in [
            ("no inspec.lock", vec![("inspec.yml", remote.as_str())]),
            ("no inspec.lock", vec![("inspec.yml", market.as_str()), ("vendor/abc1.tar.gz", "x")]),
            ("vendor/ does not have", vec![("inspec.yml", &remote), ("inspec.lock", LOCK)]),
            ("`deep`", vec![("inspec.yml", &remote), ("inspec.lock", LOCK), ("vendor/abc1.tar.gz", "x")]),
            ("does not pin", vec![("inspec.yml", &market), ("inspec.lock", "depends: []\n")]),
            ("can't be read", vec![("inspec.yml", "depends: {a")]),
        ] {
            for (way, result) in all_ways(&files).into_iter().enumerate() {
                let error = result.expect_err(case).to_string();
                assert!(error.contains(case), "{case} {way}: {error}");
            }
        }
        for path in ["../other", "/srv/other", "gone"] {
            let depends = yml(&format!("depends:\n- {{name: in, path: {path}}}\n"));
            for result in all_ways(&[("inspec.yml", &depends)]) {
                let error = result.expect_err(path).to_string();
                assert!(error.contains("path"), "{error}");
            }
        }
    }
}
