//! The files of a profile: its folder, and what lies elsewhere and belongs into it. Links and such are refused, sizes and numbers
//! are bounded, and archives are unpacked into memory, never to disk.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use crate::base::exit::ExitClass;
use crate::base::file;
use crate::base::text::brief;
use crate::bundle::definition::From;
use crate::bundle::source::SourceError;

/// Bytes of all files of one profile.
const BYTES: u64 = 64 << 20;
/// Files of one profile.
const FILES: usize = 10_000;
/// Entries of an archive, folders among them.
const ENTRIES: usize = 100_000;
/// Bytes that an archive may inflate to, with its headers.
const INFLATED: u64 = 512 << 20;

/// Content that lies elsewhere.
#[derive(Clone, Copy, Debug)]
pub struct Elsewhere<'a> {
    /// What it is, as the definition says.
    pub from: &'a From,
    /// Where that is.
    pub path: &'a Path,
    /// The folder below the profile's that it is put into.
    pub at: &'a str,
}

/// Whether a folder's `.git` belongs to it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Git {
    Kept,
    Left,
}

/// Files by their paths below the profile's folder.
#[derive(Default)]
pub(super) struct Gathered {
    files: BTreeMap<String, Vec<u8>>,
    bytes: u64,
}

fn refuse(path: &Path, reason: &str) -> SourceError {
    SourceError::new(ExitClass::Usage, format!("pack `{}`: {reason}", path.display()))
}

fn unreadable(path: &Path, error: io::Error) -> SourceError {
    SourceError::new(ExitClass::Unreachable, format!("read `{}`", path.display())).because(error)
}

impl Gathered {
    pub(super) fn into_files(self) -> BTreeMap<String, Vec<u8>> {
        self.files
    }

    fn left(&self) -> u64 {
        BYTES.saturating_sub(self.bytes)
    }

    fn add(&mut self, from: &Path, name: String, bytes: Vec<u8>) -> Result<(), SourceError> {
        self.bytes += bytes.len() as u64;
        if self.bytes > BYTES {
            return Err(refuse(from, "the profile's folder is larger than 64 MiB"));
        }
        if self.files.contains_key(&name) {
            return Err(refuse(from, &format!("the profile has `{}` already", brief(&name))));
        }
        self.files.insert(name, bytes);
        if self.files.len() > FILES {
            return Err(refuse(from, "the profile's folder has too many files"));
        }
        Ok(())
    }

    /// Takes all files below a folder.
    pub(super) fn folder(&mut self, folder: &Path, prefix: &str, git: Git) -> Result<(), SourceError> {
        for entry in std::fs::read_dir(folder).map_err(|e| unreadable(folder, e))? {
            let entry = entry.map_err(|e| unreadable(folder, e))?;
            let path = entry.path();
            let name = entry.file_name().into_string().map_err(|_| refuse(&path, "its name is no UTF-8"))?;
            if git == Git::Left && name == ".git" {
                continue;
            }
            let kind = entry.file_type().map_err(|e| unreadable(&path, e))?;
            if kind.is_dir() {
                self.folder(&path, &format!("{prefix}{name}/"), Git::Kept)?;
            } else if kind.is_file() {
                let bytes = file::read_capped(&path, self.left()).map_err(|e| {
                    refuse(&path, "the profile's folder is larger than 64 MiB, or can't be read").because(e)
                })?;
                self.add(&path, format!("{prefix}{name}"), bytes)?;
            } else {
                return Err(refuse(&path, "it is neither a file nor a folder, and a bundle carries only these"));
            }
        }
        Ok(())
    }

    /// Takes content that lies elsewhere.
    pub(super) fn elsewhere(&mut self, content: &Elsewhere<'_>) -> Result<(), SourceError> {
        let Elsewhere { from, path, at } = content;
        let prefix = match inside(at) {
            Some(folder) => format!("{folder}/"),
            None if *at == "." => String::new(),
            None => return Err(refuse(path, &format!("`{}` is no folder below the profile's", brief(at)))),
        };
        match from {
            From::Folder(_) => self.folder(path, &prefix, Git::Left),
            From::File(_) => {
                let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
                if [".tar.gz", ".tgz", ".tar"].iter().any(|ending| name.ends_with(ending)) {
                    return self.archive(path, &prefix);
                }
                let bytes = file::read_capped(path, self.left()).map_err(SourceError::of)?;
                self.add(path, format!("{prefix}{name}"), bytes)
            }
            From::Registry(_) | From::Layout(..) => {
                Err(refuse(path, "content of a profile is `dir:PATH` or `file:PATH`"))
            }
        }
    }

    fn archive(&mut self, path: &Path, prefix: &str) -> Result<(), SourceError> {
        let failed = |error: io::Error| unreadable(path, error);
        let mut file = File::open(path).map_err(failed)?;
        let mut magic = [0; 2];
        let count = file.read(&mut magic).map_err(failed)?;
        let start = io::Cursor::new(magic[..count].to_vec()).chain(file);
        let whole: Box<dyn Read> = match &magic {
            [0x1f, 0x8b] => Box::new(flate2::read::MultiGzDecoder::new(start)),
            _ => Box::new(start),
        };
        let mut archive = tar::Archive::new(whole.take(INFLATED));
        let mut found: Vec<(String, Vec<u8>)> = Vec::new();
        let mut bytes = 0;
        for (count, entry) in archive.entries().map_err(failed)?.enumerate() {
            let mut entry = entry.map_err(failed)?;
            if count >= ENTRIES {
                return Err(refuse(path, "it has too many entries"));
            }
            let kind = entry.header().entry_type();
            if kind.is_dir() || kind.is_pax_global_extensions() {
                continue;
            }
            let name = String::from_utf8(entry.path_bytes().into_owned())
                .map_err(|_| refuse(path, "a name in it is no UTF-8"))?;
            let shown = brief(&name);
            if !kind.is_file() {
                let reason = format!("`{shown}` in it is neither a file nor a folder, and a bundle carries only these");
                return Err(refuse(path, &reason));
            }
            let name = inside(&name).ok_or_else(|| refuse(path, &format!("`{shown}` in it leads out of it")))?;
            let mut content = Vec::new();
            entry.by_ref().take(self.left() + 1).read_to_end(&mut content).map_err(failed)?;
            bytes += content.len() as u64;
            if bytes > self.left() {
                return Err(refuse(path, "with what is in it, the profile's folder is larger than 64 MiB"));
            }
            found.push((name, content));
        }
        if found.is_empty() {
            return Err(refuse(path, "there is no file in it"));
        }
        // Archives of a repository have one folder around everything.
        let around = found[0].0.split_once('/').map(|(folder, _)| format!("{folder}/"));
        let around = around.filter(|folder| found.iter().all(|(name, _)| name.starts_with(folder)));
        for (name, content) in found {
            let name = name.strip_prefix(around.as_deref().unwrap_or_default()).unwrap_or(&name).to_owned();
            self.add(path, format!("{prefix}{name}"), content)?;
        }
        Ok(())
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

#[cfg(test)]
mod tests {
    use super::*;

    fn gathered(from: &str, at: &str) -> Result<Vec<String>, SourceError> {
        let from: From = from.parse().expect("a source");
        let path = match &from {
            From::File(path) | From::Folder(path) | From::Layout(path, _) => path.clone(),
            From::Registry(name) => name.into(),
        };
        let mut gathered = Gathered::default();
        gathered.add(Path::new("profile.yaml"), "profile.yaml".to_owned(), Vec::new())?;
        gathered.elsewhere(&Elsewhere { from: &from, path: &path, at })?;
        Ok(gathered.into_files().into_keys().collect())
    }

    fn archive(path: &Path, entries: &[(&str, tar::EntryType)]) {
        let gzip = flate2::write::GzEncoder::new(File::create(path).expect("a file"), flate2::Compression::fast());
        let mut tar = tar::Builder::new(gzip);
        for (name, kind) in entries {
            let mut header = tar::Header::new_ustar();
            header.set_entry_type(*kind);
            header.set_size(0);
            header.set_mode(0o644);
            header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
            header.set_cksum();
            tar.append(&header, io::empty()).expect("an entry");
        }
        tar.into_inner().expect("a tar").finish().expect("gzip");
    }

    #[test]
    fn a_checkout_and_an_archive_are_the_same() {
        let folder = tempfile::tempdir().expect("a folder");
        let checkout = folder.path().join("checkout");
        for file in ["inspec.yml", "controls/a.rb", ".git/config"] {
            std::fs::create_dir_all(checkout.join(file).parent().expect("a folder")).expect("a folder");
            std::fs::write(checkout.join(file), "x").expect("a file");
        }
        let packed = folder.path().join("a.tar.gz");
        let regular = tar::EntryType::Regular;
        archive(
            &packed,
            &[("top-1/", tar::EntryType::Directory), ("top-1/inspec.yml", regular), ("top-1/controls/a.rb", regular)],
        );
        let wanted = ["in/controls/a.rb", "in/inspec.yml", "profile.yaml"];
        assert_eq!(gathered(&format!("dir:{}", checkout.display()), "in").expect("files"), wanted);
        assert_eq!(gathered(&format!("file:{}", packed.display()), "./in/").expect("files"), wanted);
        archive(&packed, &[("inspec.yml", regular), ("controls/a.rb", regular)]);
        assert_eq!(gathered(&format!("file:{}", packed.display()), "in").expect("files"), wanted);
        assert_eq!(
            gathered(&format!("file:{}", packed.display()), ".").expect("files"),
            ["controls/a.rb", "inspec.yml", "profile.yaml"]
        );
        let one = format!("file:{}", checkout.join("inspec.yml").display());
        assert_eq!(gathered(&one, "in").expect("files"), ["in/inspec.yml", "profile.yaml"]);
    }

    #[test]
    fn what_a_bundle_can_not_carry_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let packed = folder.path().join("a.tgz");
        let from = format!("file:{}", packed.display());
        let regular = tar::EntryType::Regular;
        for (entries, words) in [
            (&[("../x", regular)][..], "leads out of it"),
            (&[("/x", regular)], "leads out of it"),
            (&[("a", tar::EntryType::Symlink)], "neither a file nor a folder"),
            (&[("a", tar::EntryType::Fifo)], "neither a file nor a folder"),
            (&[("a", regular), ("a", regular)], "has `in/a` already"),
            (&[], "no file in it"),
        ] {
            archive(&packed, entries);
            let error = gathered(&from, "in").err().unwrap_or_else(|| panic!("{words}: accepted")).to_string();
            assert!(error.contains(words), "{words}: {error}");
        }
        archive(&packed, &[("a", regular)]);
        for at in ["", "/in", "../in", ".."] {
            assert!(gathered(&from, at).is_err(), "{at}");
        }
        assert!(
            gathered("oci:somewhere", "in").expect_err("an image").to_string().contains("`dir:PATH` or `file:PATH`")
        );
    }
}
