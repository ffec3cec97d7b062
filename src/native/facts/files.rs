//! Modes, types and owners of files.

use std::collections::HashSet;

use super::{FileFact, Group, User};

/// `S_IFMT` and the types in it (inode(7)).
const TYPE_MASK: u32 = 0o170_000;

/// The type of a file by its raw mode; `None` for one that Linux does not have.
pub(crate) fn kind(raw_mode: u32) -> Option<&'static str> {
    Some(match raw_mode & TYPE_MASK {
        0o140_000 => "socket",
        0o120_000 => "link",
        0o100_000 => "file",
        0o060_000 => "block",
        0o040_000 => "dir",
        0o020_000 => "char",
        0o010_000 => "fifo",
        _ => return None,
    })
}

/// The ids that have a name.
#[derive(Debug)]
pub(crate) struct Owners {
    uids: HashSet<u32>,
    gids: HashSet<u32>,
}

impl Owners {
    /// Id 0 is always known: an image without `/etc/passwd` still has root.
    pub(crate) fn new(users: &[User], groups: &[Group]) -> Self {
        Self {
            uids: users.iter().map(|u| u.uid).chain([0]).collect(),
            gids: groups.iter().map(|g| g.gid).chain([0]).collect(),
        }
    }

    /// Whether an owner or a group has no name.
    pub(crate) fn unowned(&self, uid: u32, gid: u32) -> bool {
        !self.uids.contains(&uid) || !self.gids.contains(&gid)
    }
}

/// Whether permission bits alone make a file special: setuid, setgid, or writable for all.
pub(crate) fn special_mode(mode: u32) -> bool {
    mode & 0o6002 != 0
}

/// The fact of one file.
pub(crate) fn fact(path: String, kind: &str, mode: u32, (uid, gid): (u32, u32), owners: &Owners) -> FileFact {
    let mode = mode & 0o7777;
    FileFact {
        path,
        kind: kind.to_owned(),
        mode,
        perm: format!("{mode:04o}"),
        uid,
        gid,
        unowned: owners.unowned(uid, gid),
        symlink: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fact_says_the_same_in_both_notations() {
        let owners = Owners::new(&[], &[]);
        let fact = fact("/x".to_owned(), kind(0o104_755).expect("type"), 0o104_755, (0, 7), &owners);
        assert_eq!((fact.kind.as_str(), fact.mode, fact.perm.as_str(), fact.unowned), ("file", 2541, "4755", true));
        assert!(kind(0).is_none());
    }
}
