//! Files below a root folder, found as a process with that root would find them.
//!
//! Each component of a path is opened by itself and without following links (`O_PATH | O_NOFOLLOW`); links are read and
//! resolved here, with the root as `/`. So a link never leads out of the root, `..` stops at it, a loop ends after 40
//! links as in the kernel, and a component that is exchanged meanwhile is at worst not found. What a path leads to is
//! opened only when it is a regular file, and looked at again after opening: no FIFO and no device is ever opened.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::Path;

use rustix::fs::{self, AtFlags, Dir, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::super::{Collected, Missing, files, name};

const LOOK: OFlags = OFlags::PATH.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
const LIST: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
const READ: OFlags =
    OFlags::RDONLY.union(OFlags::NOFOLLOW).union(OFlags::NONBLOCK).union(OFlags::NOCTTY).union(OFlags::CLOEXEC);

/// A root folder, held open.
pub(super) struct Root(OwnedFd);

/// What a path leads to.
#[derive(Debug)]
pub(super) struct Found {
    /// The folder that it is in, and its name there; the folder itself for the root.
    folder: OwnedFd,
    file: OsString,
    pub(super) stat: Stat,
    /// The path itself is a link.
    pub(super) symlink: bool,
}

impl Found {
    /// Its type, as facts name it.
    pub(super) fn kind(&self) -> Option<&'static str> {
        files::kind(self.stat.st_mode)
    }
}

/// Why a path leads to nothing.
#[derive(Debug)]
pub(super) enum Gone {
    /// It does not exist.
    Absent,
    /// It is this link, and what it leads to does not exist.
    Dangling(Box<Found>),
    /// Nobody knows: a folder may not be entered, or links go round.
    Unknown(Errno),
}

impl Root {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        Ok(Self(fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?))
    }

    /// The root folder, to be listed.
    pub(super) fn list(&self) -> Result<OwnedFd, Errno> {
        fs::openat(&self.0, ".", LIST, Mode::empty())
    }

    /// What an absolute path leads to.
    pub(super) fn find(&self, path: &[u8]) -> Result<Found, Gone> {
        let mut dangling = None;
        self.follow(path, &mut dangling).map_err(|error| match (error, dangling) {
            (Errno::NOENT | Errno::NOTDIR, Some(link)) => Gone::Dangling(Box::new(link)),
            (Errno::NOENT | Errno::NOTDIR, None) => Gone::Absent,
            (other, _) => Gone::Unknown(other),
        })
    }

    fn follow(&self, path: &[u8], last_link: &mut Option<Found>) -> Result<Found, Errno> {
        let components = |path: &[u8]| path.split(|b| *b == b'/').rev().map(<[u8]>::to_vec).collect::<Vec<_>>();
        let mut folders: Vec<OwnedFd> = vec![fs::openat(&self.0, ".", LOOK | OFlags::DIRECTORY, Mode::empty())?];
        let mut todo = components(path);
        // Once the path itself turned out to be a link, what follows is its target.
        let mut links = 0;
        while let Some(part) = todo.pop() {
            match &part[..] {
                b"" | b"." => continue,
                b".." => {
                    folders.truncate((folders.len() - 1).max(1));
                    continue;
                }
                _ => {}
            }
            let folder = folders.last().expect("the root is never removed");
            let file = OsStr::from_bytes(&part);
            let fd = fs::openat(folder, file, LOOK, Mode::empty())?;
            let stat = fs::fstat(&fd)?;
            let at_end = todo.iter().all(|rest| rest.is_empty() || rest == b".");
            match FileType::from_raw_mode(stat.st_mode) {
                FileType::Symlink => {
                    links += 1;
                    if links > 40 || todo.len() > 4096 {
                        return Err(Errno::LOOP);
                    }
                    if at_end && last_link.is_none() {
                        let folder = folder.try_clone().map_err(|_| Errno::MFILE)?;
                        *last_link = Some(Found { folder, file: file.to_owned(), stat, symlink: true });
                    }
                    let target = fs::readlinkat(&fd, "", Vec::new())?.into_bytes();
                    if target.starts_with(b"/") {
                        folders.truncate(1);
                    }
                    todo.extend(components(&target));
                }
                _ if at_end => {
                    let folder = folders.pop().expect("the root is never removed");
                    return Ok(Found { folder, file: file.to_owned(), stat, symlink: last_link.is_some() });
                }
                FileType::Directory => folders.push(fd),
                _ => return Err(Errno::NOTDIR),
            }
        }
        let folder = folders.pop().expect("the root is never removed");
        let stat = fs::fstat(&folder)?;
        Ok(Found { folder, file: ".".into(), stat, symlink: last_link.is_some() })
    }

    /// A regular file to read, and what tells it from others; `None` where there is none.
    pub(super) fn file(&self, path: &[u8]) -> Collected<Option<(File, (u64, u64))>> {
        let text = || name::text(path);
        let found = match self.find(path) {
            Ok(found) => found,
            Err(Gone::Absent) => return Ok(None),
            Err(Gone::Dangling(_)) => return Err(Missing::unreadable(format!("`{}` is a link to nowhere", text()))),
            Err(Gone::Unknown(error)) => {
                return Err(Missing::unreadable(format!("`{}` can't be looked at: {error}", text())));
            }
        };
        let id = |stat: &Stat| (stat.st_dev, stat.st_ino);
        let regular = |stat: &Stat| FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
        if !regular(&found.stat) {
            return Err(Missing::unreadable(format!("`{}` is no regular file", text())));
        }
        let fd = match fs::openat(&found.folder, &found.file, READ, Mode::empty()) {
            Ok(fd) => fd,
            Err(Errno::NOENT) => return Ok(None),
            Err(error) => return Err(Missing::unreadable(format!("`{}` can't be opened: {error}", text()))),
        };
        let stat = fs::fstat(&fd).map_err(|error| Missing::failed(format!("`{}`: {error}", text())))?;
        if !regular(&stat) || id(&stat) != id(&found.stat) {
            return Err(Missing::failed(format!("`{}` was exchanged while it was read", text())));
        }
        Ok(Some((File::from(fd), id(&stat))))
    }

    /// The content of a regular file of at most `limit` bytes; `None` where there is none.
    pub(super) fn read(&self, path: &[u8], limit: u64) -> Collected<Option<Vec<u8>>> {
        let Some((file, _)) = self.file(path)? else { return Ok(None) };
        let mut content = Vec::new();
        file.take(limit + 1)
            .read_to_end(&mut content)
            .map_err(|error| Missing::unreadable(format!("`{}` can't be read: {error}", name::text(path))))?;
        if content.len() as u64 > limit { Err(Missing::too_large(&name::text(path), limit)) } else { Ok(Some(content)) }
    }

    /// The names in a folder; `None` where there is none.
    pub(super) fn names(&self, path: &[u8]) -> Collected<Option<Vec<OsString>>> {
        let failed = |error: Errno| Missing::unreadable(format!("`{}` can't be listed: {error}", name::text(path)));
        let found = match self.find(path) {
            Ok(found) => found,
            Err(Gone::Absent | Gone::Dangling(_)) => return Ok(None),
            Err(Gone::Unknown(error)) => return Err(failed(error)),
        };
        if FileType::from_raw_mode(found.stat.st_mode) != FileType::Directory {
            return Ok(None);
        }
        let fd = fs::openat(&found.folder, &found.file, LIST, Mode::empty()).map_err(failed)?;
        let mut names = Vec::new();
        for entry in Dir::new(fd).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name().to_bytes().to_vec();
            if name != b"." && name != b".." {
                names.push(OsString::from_vec(name));
            }
        }
        Ok(Some(names))
    }
}

/// Opens a folder in another one to be listed, without following a link.
pub(super) fn enter(folder: impl std::os::fd::AsFd, file: &std::ffi::CStr) -> Result<OwnedFd, Errno> {
    fs::openat(folder, file, LIST, Mode::empty())
}

/// Looks at a file in a folder, without following a link.
pub(super) fn look(folder: impl std::os::fd::AsFd, file: &std::ffi::CStr) -> Result<Stat, Errno> {
    fs::statat(folder, file, AtFlags::SYMLINK_NOFOLLOW)
}
