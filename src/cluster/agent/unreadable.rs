//! Which files of the target this user may not read: found out by looking, since a scanner that may not read a file most
//! often says nothing.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{Access, access};

use super::protocol::{SAMPLE, Unreadable};

/// Entries that are looked at: a tree without end must not hold the pod.
const ENTRIES: u64 = 4_000_000;

/// How long the look may take.
pub const LOOK: Duration = Duration::from_secs(120);

/// Looks at everything below `root` without following symbolic links. Devices, pipes and sockets are passed over: nothing
/// should read them.
pub fn unreadable(root: &Path) -> Unreadable {
    let began = Instant::now();
    let mut found = Unreadable::default();
    let note = |path: &Path, found: &mut Unreadable| {
        found.count += 1;
        if found.sample.len() < SAMPLE {
            let inside = path.strip_prefix(root).unwrap_or(path);
            let mut text = format!("/{}", inside.to_string_lossy());
            text.truncate(text.floor_char_boundary(4096));
            found.sample.push(text);
        }
    };
    let mut seen = 0u64;
    let mut folders: Vec<PathBuf> = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) => {
                // Gone meanwhile is no matter; anything else is something that was not seen.
                if error.kind() != ErrorKind::NotFound || folder == root {
                    note(&folder, &mut found);
                }
                continue;
            }
        };
        for entry in entries {
            seen += 1;
            if seen > ENTRIES || began.elapsed() > LOOK {
                found.incomplete = true;
                return found;
            }
            let Ok(entry) = entry else {
                note(&folder, &mut found);
                break;
            };
            let path = entry.path();
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => folders.push(path),
                Ok(kind) if kind.is_file() => {
                    if access(&path, Access::READ_OK).is_err() {
                        note(&path, &mut found);
                    }
                }
                Ok(_) => {}
                Err(_) => note(&path, &mut found),
            }
        }
    }
    found.sample.sort();
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    #[test]
    fn links_and_loops_end_and_a_missing_root_is_noted() {
        let folder = tempfile::tempdir().expect("a folder");
        fs::create_dir(folder.path().join("a")).expect("made");
        symlink(folder.path(), folder.path().join("a/loop")).expect("made");
        fs::write(folder.path().join("a/file"), "x").expect("made");
        assert_eq!(unreadable(folder.path()), Unreadable::default());
        assert_eq!(unreadable(&folder.path().join("nowhere")).count, 1);
    }

    #[test]
    fn what_may_not_be_read_is_named() {
        if rustix::process::geteuid().is_root() {
            println!("skipped: needs a user other than root, who may read all");
            return;
        }
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("secret");
        fs::write(&file, "x").expect("made");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o000)).expect("set");
        let found = unreadable(folder.path());
        assert_eq!((found.count, found.sample), (1, vec!["/secret".to_owned()]));
    }
}
