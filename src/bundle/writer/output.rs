//! The files that an archive is written to: one, or its parts; under other names until all is there.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::BuildError;
use crate::base::file;
use crate::bundle::split::{self, PartSize};

/// How an archive is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// As one file.
    Whole,
    /// As parts of this size.
    Parts(PartSize),
    /// Only the part of this number, counted from 1.
    Part(PartSize, u64),
}

/// Where an archive is written. It ends by [`Output::commit`] or [`Output::give_up`]; the second one after the first does nothing.
pub(in crate::bundle) struct Output {
    whole: PathBuf,
    targets: Vec<Target>,
    /// Holds the lock against another build that writes here; the archive itself where it is one file.
    guard: Arc<File>,
    guard_path: PathBuf,
    total: u64,
}

/// One file.
pub(in crate::bundle) struct Target {
    pub(in crate::bundle) path: PathBuf,
    /// The bytes of the archive that are in it.
    pub(in crate::bundle) span: Range<u64>,
    unfinished: PathBuf,
    state: Mutex<State>,
}

enum State {
    /// Nothing was written.
    Untouched,
    /// So many bytes are to come until it is complete.
    Open(Arc<File>, u64),
    /// Complete and durable.
    Complete,
    /// Renamed, or given up.
    Over,
}

/// What the name of a file that is not complete ends with.
const UNFINISHED: &str = ".part";

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// The folder that a file is in.
pub(in crate::bundle) fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Bytes that are free for us where `path` is to be; `None` where the file system does not tell.
fn free(path: &Path) -> Option<u64> {
    let found = rustix::fs::statvfs(folder_of(path)).ok()?;
    (found.f_blocks > 0).then(|| found.f_bavail.saturating_mul(found.f_frsize))
}

impl Output {
    /// Makes ready to write an archive of `total` bytes, as `cut` says, at `whole`.
    pub(in crate::bundle) fn create(whole: &Path, cut: Cut, total: u64) -> Result<Self, BuildError> {
        let guard_path = with_suffix(whole, UNFINISHED);
        let targets = match cut {
            Cut::Whole => vec![Target::new(whole.to_owned(), guard_path.clone(), 0..total)],
            Cut::Parts(size) => {
                let count = counted(size, total)?;
                (1..=count).map(|number| Target::part(whole, size, number, total)).collect()
            }
            Cut::Part(size, number) => {
                let count = counted(size, total)?;
                if number == 0 || number > count {
                    return Err(BuildError::NoSuchPart { number, count, part_bytes: size.bytes() });
                }
                vec![Target::part(whole, size, number, total)]
            }
        };
        let guard = Arc::new(lock(&guard_path, whole)?);
        let output = Self { whole: whole.to_owned(), targets, guard, guard_path, total };
        match output.make_ready() {
            Ok(()) => Ok(output),
            Err(error) => {
                output.give_up();
                Err(error)
            }
        }
    }

    fn make_ready(&self) -> Result<(), BuildError> {
        let failed = |source| self.failed(source);
        self.guard.set_len(0).map_err(failed)?;
        self.remove_old_parts().map_err(failed)?;
        if let [target] = &self.targets[..]
            && target.unfinished == self.guard_path
        {
            *target.lock() = State::Open(Arc::clone(&self.guard), target.span.end - target.span.start);
        }
        self.targets.iter().try_for_each(Target::can_be_replaced)?;
        let needed = self.needed();
        match free(&self.whole) {
            Some(free) if free < needed => Err(BuildError::NoRoom { path: self.whole.clone(), needed, free }),
            Some(_) | None => Ok(()),
        }
    }

    /// Removes the unfinished parts that a build which was killed left. Who has the lock is the only one to write any.
    fn remove_old_parts(&self) -> io::Result<()> {
        let whole = self.whole.file_name().unwrap_or_default().to_string_lossy();
        for entry in std::fs::read_dir(folder_of(&self.whole))?.filter_map(Result::ok) {
            let name = entry.file_name();
            let part = name.to_str().and_then(|name| name.strip_suffix(UNFINISHED));
            if part.is_some_and(|part| split::is_part_name(part, &whole)) {
                std::fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }

    fn needed(&self) -> u64 {
        self.targets.iter().map(|target| target.span.end - target.span.start).sum()
    }

    /// The error of a failed write.
    pub(in crate::bundle) fn failed(&self, source: io::Error) -> BuildError {
        let path = self.whole.clone();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                BuildError::NoRoom { needed: self.needed(), free: free(&path).unwrap_or(0), path }
            }
            _ => BuildError::Write { path, source },
        }
    }

    /// The archive as it was named.
    pub(in crate::bundle) fn whole(&self) -> &Path {
        &self.whole
    }

    /// The files, in the order of the archive.
    pub(in crate::bundle) fn targets(&self) -> &[Target] {
        &self.targets
    }

    /// Whether every byte of the archive is in one of the files.
    pub(in crate::bundle) fn is_whole(&self) -> bool {
        self.needed() == self.total
    }

    /// Whether any byte of this span is in one of the files.
    pub(in crate::bundle) fn wants(&self, span: &Range<u64>) -> bool {
        self.overlaps(span.start, span.end).next().is_some()
    }

    /// The files that have bytes of this span, with the bytes that each has.
    fn overlaps(&self, start: u64, end: u64) -> impl Iterator<Item = (&Target, Range<u64>)> {
        let first = self.targets.partition_point(|target| target.span.end <= start);
        self.targets[first..]
            .iter()
            .take_while(move |target| target.span.start < end)
            .map(move |target| (target, target.span.start.max(start)..target.span.end.min(end)))
            .filter(|(_, both)| both.start < both.end)
    }

    /// Writes bytes at their place. Those that are in none of the files are left out.
    pub(in crate::bundle) fn write_at(&self, at: u64, bytes: &[u8]) -> Result<(), BuildError> {
        for (target, both) in self.overlaps(at, at + bytes.len() as u64) {
            let piece = &bytes[(both.start - at) as usize..(both.end - at) as usize];
            let file = target.open().map_err(|e| self.failed(e))?;
            file.write_all_at(piece, both.start - target.span.start).map_err(|e| self.failed(e))?;
        }
        Ok(())
    }

    /// Every byte of this span is written and right. A file that is complete by it is made durable and closed.
    pub(in crate::bundle) fn complete(&self, span: &Range<u64>) -> Result<(), BuildError> {
        for (target, both) in self.overlaps(span.start, span.end) {
            if let Some(file) = target.complete(both.end - both.start) {
                file.sync_all().map_err(|e| self.failed(e))?;
            }
        }
        Ok(())
    }

    /// Hands what was written so far to the disk, so that not all of it is left for the end.
    pub(in crate::bundle) fn flush(&self) -> Result<(), BuildError> {
        for target in &self.targets {
            let file = match &*target.lock() {
                State::Open(file, _) => Arc::clone(file),
                State::Untouched | State::Complete | State::Over => continue,
            };
            file.sync_data().map_err(|e| self.failed(e))?;
        }
        Ok(())
    }

    /// A second look at a file that something was written to.
    pub(in crate::bundle) fn reader(&self, target: &Target) -> Result<File, BuildError> {
        File::open(&target.unfinished).map_err(|e| self.failed(e))
    }

    /// Gives the files their names. `before` is called when nothing can go wrong any more but the renaming itself.
    pub(in crate::bundle) fn commit(&self, before: impl FnOnce() -> Result<(), BuildError>) -> Result<(), BuildError> {
        before()?;
        for target in &self.targets {
            let mut state = target.lock();
            std::fs::rename(&target.unfinished, &target.path).map_err(|e| self.failed(e))?;
            *state = State::Over;
        }
        file::sync_folder(folder_of(&self.whole)).map_err(|e| self.failed(e))
    }

    /// Takes away what has not got its name. A thread that is not stopped yet can write nothing any more that stays.
    pub(in crate::bundle) fn give_up(&self) {
        for target in &self.targets {
            // Under its lock, so that it is not made again.
            let mut state = target.lock();
            if !matches!(*state, State::Over) {
                *state = State::Over;
                let _ = std::fs::remove_file(&target.unfinished);
            }
        }
        if self.targets.iter().all(|target| target.unfinished != self.guard_path) {
            let _ = std::fs::remove_file(&self.guard_path);
        }
    }
}

impl Target {
    fn new(path: PathBuf, unfinished: PathBuf, span: Range<u64>) -> Self {
        Self { path, span, unfinished, state: Mutex::new(State::Untouched) }
    }

    fn part(whole: &Path, size: PartSize, number: u64, total: u64) -> Self {
        let path = split::part_path(whole, number, size.count(total));
        let unfinished = with_suffix(&path, UNFINISHED);
        Self::new(path, unfinished, size.span(number, total))
    }

    /// Refuses what is no file: a folder, to which nothing can be renamed when all is done (of several parts some would have
    /// their names by then), and a device, which would be gone.
    fn can_be_replaced(&self) -> Result<(), BuildError> {
        let there = self.path.symlink_metadata().map(|found| found.file_type());
        match there {
            Ok(kind) if !kind.is_file() && !kind.is_symlink() => {
                let source = io::Error::new(io::ErrorKind::AlreadyExists, "what is there is no regular file");
                Err(BuildError::Write { path: self.path.clone(), source })
            }
            Ok(_) | Err(_) => Ok(()),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing that is done under the lock can leave it half done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open(&self) -> io::Result<Arc<File>> {
        let mut state = self.lock();
        match &*state {
            State::Open(file, _) => Ok(Arc::clone(file)),
            State::Untouched => {
                let file = Arc::new(File::options().write(true).create(true).truncate(true).open(&self.unfinished)?);
                *state = State::Open(Arc::clone(&file), self.span.end - self.span.start);
                Ok(file)
            }
            State::Complete | State::Over => Err(io::Error::other("the build is over")),
        }
    }

    /// The file, if it is complete now.
    fn complete(&self, bytes: u64) -> Option<Arc<File>> {
        let mut state = self.lock();
        let State::Open(file, left) = &mut *state else { return None };
        *left = left.saturating_sub(bytes);
        if *left > 0 {
            return None;
        }
        let file = Arc::clone(file);
        *state = State::Complete;
        Some(file)
    }
}

fn counted(size: PartSize, total: u64) -> Result<u64, BuildError> {
    let count = size.count(total);
    if count > split::MOST_PARTS {
        return Err(BuildError::TooManyParts { count, most: split::MOST_PARTS, part_bytes: size.bytes() });
    }
    Ok(count)
}

/// Opens and locks a file without changing it. Of two builds that write to one place the second one is refused; the lock
/// ends with the process.
fn lock(path: &Path, whole: &Path) -> Result<File, BuildError> {
    let failed = |source| BuildError::Write { path: whole.to_owned(), source };
    loop {
        let file = File::options().read(true).write(true).create(true).truncate(false).open(path).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(std::fs::TryLockError::WouldBlock) => return Err(BuildError::Busy { path: whole.to_owned() }),
            Err(std::fs::TryLockError::Error(error)) => return Err(failed(error)),
        }
        // It may have become somebody's finished bundle between opening and locking.
        let (held, named) = (file.metadata().map_err(failed)?, std::fs::metadata(path));
        if named.is_ok_and(|named| (named.dev(), named.ino()) == (held.dev(), held.ino())) {
            return Ok(file);
        }
    }
}
