//! The sums beside a bundle, for couriers who have `sha256sum` and `openssl` ("Sums" in docs/bundle-format.md).

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use tough::schema::RoleType;

use super::split::is_part_name;
use crate::base::digest::Digest;
use crate::base::file::{self, FileError};
use crate::trust::signer::Signer;

/// Bytes of a file of sums; one with the most parts has less than this.
const SUMS_BYTES: u64 = 8 << 20;
/// Digits of the key id in the name of a signature.
const KEY_DIGITS: usize = 8;

/// The digest of one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sum {
    /// The file; only its name is written.
    pub path: PathBuf,
    /// Its digest.
    pub digest: Digest,
}

/// The files that were written beside a bundle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SumsFiles {
    /// The sums.
    pub sums: PathBuf,
    /// A signature for each targets key.
    pub signatures: Vec<PathBuf>,
}

/// The sums of the bundle `archive`: `OUT.tar.sha256`.
pub fn sums_path(archive: &Path) -> PathBuf {
    beside(archive, ".sha256")
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

fn name_of(path: &Path) -> String {
    path.file_name().unwrap_or(OsStr::new("")).to_string_lossy().into_owned()
}

/// The text of the sums, as `sha256sum` writes and reads it (GNU coreutils manual, "md5sum invocation"): a name with a
/// backslash or a line's end in it is written with escapes, and its line begins with a backslash.
fn text(sums: &[Sum]) -> String {
    let line = |sum: &Sum| {
        let name = name_of(&sum.path);
        let escaped = name.replace('\\', "\\\\").replace('\n', "\\n").replace('\r', "\\r");
        let mark = if escaped == name { "" } else { "\\" };
        format!("{mark}{}  {escaped}\n", sum.digest.hex())
    };
    sums.iter().map(line).collect()
}

/// Writes the sums of the bundle `archive` and a detached signature over them for each targets key of `signer`, where there
/// is one. What an earlier bundle of this name left of both is removed or replaced.
///
/// # Errors
/// When a file can't be written.
pub fn write(archive: &Path, sums: &[Sum], signer: Option<&Signer>) -> Result<SumsFiles, FileError> {
    remove(archive)?;
    let path = sums_path(archive);
    let text = text(sums);
    let mut signatures = Vec::new();
    let signed = signer.map(|signer| signer.sign_detached(RoleType::Targets, text.as_bytes()));
    for (key, signature) in signed.unwrap_or_default() {
        let file = beside(&path, &format!(".{}.sig", &key[..KEY_DIGITS]));
        file::write_atomic(&file, &signature, 0o644)?;
        signatures.push(file);
    }
    // Last: sums that are there have their signatures.
    file::write_atomic(&path, text.as_bytes(), 0o644)?;
    Ok(SumsFiles { sums: path, signatures })
}

/// Removes the sums of `archive` and the signatures over them, which are wrong once it is replaced.
///
/// # Errors
/// When one is there and can't be removed.
pub fn remove(archive: &Path) -> Result<(), FileError> {
    let path = sums_path(archive);
    let sums = name_of(&path);
    let is_signature = |name: &str| {
        let key = name.strip_prefix(&sums).and_then(|rest| rest.strip_prefix('.')?.strip_suffix(".sig"));
        key.is_some_and(|key| key.len() == KEY_DIGITS && key.bytes().all(|b| b.is_ascii_hexdigit()))
    };
    remove_files(&path, |name| name == sums || is_signature(name))
}

/// The files of an earlier bundle of this name that the new one, which is written to `written`, does not replace: the
/// whole archive where the new one is in parts, and parts that the new one has not. They would look as if they belonged to
/// it. Only what the sums of the earlier bundle name is one.
pub fn leftovers(archive: &Path, written: &[PathBuf]) -> Vec<PathBuf> {
    let whole = name_of(archive);
    let ours = |name: &str| name == whole || is_part_name(name, &whole);
    read(archive)
        .into_iter()
        .map(|(_, name)| name)
        .filter(|name| ours(name))
        .map(|name| archive.with_file_name(name))
        .filter(|path| !written.contains(path) && path.is_file())
        .collect()
}

/// The digests with their names, as `sha256sum` reads them; none where there are no sums.
fn read(archive: &Path) -> Vec<(Digest, String)> {
    let bytes = file::read_capped(&sums_path(archive), SUMS_BYTES).unwrap_or_default();
    String::from_utf8_lossy(&bytes).lines().filter_map(line).collect()
}

/// `DIGEST  NAME`, or `DIGEST *NAME`; after a backslash, the name has escapes.
fn line(line: &str) -> Option<(Digest, String)> {
    let escaped = line.strip_prefix('\\');
    let (digest, name) = escaped.unwrap_or(line).split_once(' ')?;
    let name = name.strip_prefix([' ', '*'])?;
    let name = if escaped.is_some() { unescaped(name)? } else { name.to_owned() };
    Some((Digest::from_hex(digest).ok()?, name))
}

fn unescaped(name: &str) -> Option<String> {
    let mut text = String::new();
    let mut characters = name.chars();
    while let Some(character) = characters.next() {
        text.push(match character {
            '\\' => match characters.next()? {
                'n' => '\n',
                'r' => '\r',
                '\\' => '\\',
                _ => return None,
            },
            other => other,
        });
    }
    Some(text)
}

fn remove_files(beside: &Path, which: impl Fn(&str) -> bool) -> Result<(), FileError> {
    let folder = beside.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let entries = fs::read_dir(folder).map_err(|source| FileError::Read { path: folder.to_owned(), source })?;
    for entry in entries.filter_map(Result::ok) {
        if entry.file_name().to_str().is_some_and(&which) && entry.file_type().is_ok_and(|t| t.is_file()) {
            let path = entry.path();
            fs::remove_file(&path).map_err(|source| FileError::Write { path, source })?;
        }
    }
    Ok(())
}

/// What the sums beside `archive` say of the file at `path`; `None` where they are not there, or don't say.
pub fn expected(archive: &Path, path: &Path) -> Option<Digest> {
    let wanted = name_of(path);
    read(archive).into_iter().find(|(_, name)| *name == wanted).map(|(digest, _)| digest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_sha256sum_escapes_are_escaped_and_found_again() {
        let folder = tempfile::tempdir().expect("a folder");
        for name in ["a.tar", "two words.tar", "back\\slash.tar", "new\nline.tar", "two  blanks.tar"] {
            let archive = folder.path().join(name);
            let sums = [("", "whole"), (".001", "part")]
                .map(|(end, of)| Sum { path: beside(&archive, end), digest: Digest::of(of) });
            fs::write(sums_path(&archive), text(&sums)).expect("write");
            for sum in &sums {
                assert_eq!(expected(&archive, &sum.path), Some(sum.digest), "{name:?}");
            }
            assert_eq!(expected(&archive, &beside(&archive, ".002")), None);
        }
        assert_eq!(text(&[]), "");
    }

    #[test]
    fn what_another_sha256sum_wrote_is_read_and_what_is_left_of_an_earlier_bundle_is_found() {
        let folder = tempfile::tempdir().expect("a folder");
        for name in ["a.tar", "back\\slash.tar"] {
            let archive = folder.path().join(name);
            let part = beside(&archive, ".001");
            let digest = Digest::of("x");
            fs::write(&part, "x").expect("write");
            let lines = text(&[Sum { path: part.clone(), digest }, Sum { path: folder.path().join("other"), digest }]);
            fs::write(sums_path(&archive), lines.replacen("  ", " *", 1)).expect("write");
            assert_eq!(expected(&archive, &part), Some(digest), "{name}");
            assert_eq!(leftovers(&archive, &[]), std::slice::from_ref(&part), "{name}");
            assert_eq!(leftovers(&archive, &[part]), Vec::<PathBuf>::new(), "{name}");
        }
    }
}
