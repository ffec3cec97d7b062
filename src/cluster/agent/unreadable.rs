//! Which files of the target this user may not read: found out by looking, since a scanner that may not read a file most
//! often says nothing; and which files it leaves out by itself, as its definition tells.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{Access, access};

use super::protocol::{LEFT_OUT_SAMPLE, SAMPLE, Unreadable};
use crate::model::scanner::fits;

/// Entries that are looked at: a tree without end must not hold the pod.
const ENTRIES: u64 = 4_000_000;

/// How long the look may take.
pub const LOOK: Duration = Duration::from_secs(120);

/// Looks at everything below `root` without following symbolic links. Devices, pipes and sockets are passed over: nothing
/// should read them. So is what is mounted below `root` and is no file system that keeps files on the machine itself: a node's
/// `/proc` and `/sys`, shares of other machines, and the roots of its containers, which are targets of their own.
///
/// What is there that fits one of the patterns in `left_out` is counted apart, whatever it is.
pub fn unreadable(root: &Path, left_out: &[String]) -> Unreadable {
    let began = Instant::now();
    let mut found = Unreadable::default();
    let inside = |path: &Path| {
        let inside = path.strip_prefix(root).unwrap_or(path);
        format!("/{}", inside.to_string_lossy())
    };
    let named = |mut text: String| {
        text.truncate(text.floor_char_boundary(4096));
        text
    };
    let note = |path: &Path, found: &mut Unreadable| {
        found.count += 1;
        if found.sample.len() < SAMPLE {
            found.sample.push(named(inside(path)));
        }
    };
    let mut seen = 0u64;
    let mut folders: Vec<(PathBuf, u64)> = vec![(root.to_owned(), root.metadata().map_or(0, |meta| meta.dev()))];
    while let Some((folder, device)) = folders.pop() {
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
            if !left_out.is_empty() {
                let place = inside(&path);
                if left_out.iter().any(|pattern| fits(pattern, &place)) {
                    found.left_out += 1;
                    if found.left_out_sample.len() < LEFT_OUT_SAMPLE {
                        found.left_out_sample.push(named(place));
                    }
                }
            }
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => match entry.metadata() {
                    Ok(inside) if inside.dev() == device || is_local(&path) => folders.push((path, inside.dev())),
                    Ok(_) => {}
                    // Gone meanwhile is no matter here either.
                    Err(error) if error.kind() == ErrorKind::NotFound => {}
                    Err(_) => note(&path, &mut found),
                },
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
    found.left_out_sample.sort();
    found
}

/// Whether the folder is in a file system that keeps files on this machine: by the magic numbers of linux/magic.h and of the
/// file systems' own headers.
fn is_local(folder: &Path) -> bool {
    const LOCAL: [u32; 10] = [
        0xEF53,      // ext2, ext3, ext4
        0x5846_5342, // xfs
        0x9123_683E, // btrfs
        0x2FC1_2FC1, // zfs
        0xF2F5_2010, // f2fs
        0x3153_464A, // jfs
        0x5265_4973, // reiserfs
        0xCA45_1A4E, // bcachefs
        0x0102_1994, // tmpfs
        0x8584_58F6, // ramfs
    ];
    // One that does not tell what it is, is looked at: what can't be read in it is then seen.
    let Ok(found) = rustix::fs::statfs(folder) else { return true };
    u32::try_from(found.f_type & 0xFFFF_FFFF).is_ok_and(|magic| LOCAL.contains(&magic))
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
        assert_eq!(unreadable(folder.path(), &[]), Unreadable::default());
        assert_eq!(unreadable(&folder.path().join("nowhere"), &[]).count, 1);
    }

    #[test]
    fn what_the_scanner_leaves_out_is_named() {
        let folder = tempfile::tempdir().expect("a folder");
        for name in ["node_modules/a", "srv/node_modules/b/node_modules/c", "srv/other"] {
            fs::create_dir_all(folder.path().join(name)).expect("made");
            fs::write(folder.path().join(name).join("package.json"), "{}").expect("made");
        }
        let found = unreadable(folder.path(), &["*/node_modules/*/package.json".to_owned(), "/opt/*".to_owned()]);
        assert_eq!((found.left_out, found.count), (2, 0), "{found:?}");
        let paths = ["/node_modules/a/package.json", "/srv/node_modules/b/node_modules/c/package.json"];
        assert_eq!(found.left_out_sample, paths);
        assert!(!found.is_none() && unreadable(folder.path(), &["/opt/*".to_owned()]).is_none());
    }

    #[test]
    fn pseudo_file_systems_are_none_of_the_machine_and_what_tells_nothing_is_looked_at() {
        assert!(!is_local(Path::new("/proc")));
        assert!(is_local(Path::new("/nowhere/at/all")));
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
        let found = unreadable(folder.path(), &[]);
        assert_eq!((found.count, found.sample), (1, vec!["/secret".to_owned()]));
    }
}
