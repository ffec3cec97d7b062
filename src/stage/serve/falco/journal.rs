//! Alerts on their way to the ledger: a file that each is on, synced, before its sender is told that it was taken.
//!
//! | file | what |
//! |---|---|
//! | `alerts.jsonl` | alerts that came since the last batch, one a line |
//! | `RUN.jsonl` | a batch that is being recorded as this run; removed when the run has ended |
//! | `refused.json` | how many were refused since that was recorded |
//!
//! A process that dies leaves these, and whoever serves next goes on with them: what was answered with 200 is in the ledger in
//! the end, and once. What was cut in the middle of being written was not answered, is taken off, and counted. Counts of what was
//! refused are on the disk within a second; a kill may lose those of the last one.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::base::file::{FileError, make_folder, read_capped, sync_folder, write_atomic};
use crate::model::record::RunId;

/// Bytes of alerts that wait to be recorded, which is also what a batch has at most.
pub(super) const WAITING: u64 = 32 << 20;
/// How often counts of what was refused are written.
const COUNTED: Duration = Duration::from_secs(1);

const OPEN: &str = "alerts.jsonl";
const REFUSED: &str = "refused.json";

/// Why an alert was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// Its sender has neither certificate nor token.
    Stranger,
    /// It is no alert.
    NoAlert,
    /// It is too large, or came too slowly, or not whole.
    Unfit,
    /// More came than are taken in a second.
    Flood,
    /// No more could be kept until what waits is recorded.
    Full,
    /// The disk did not take it.
    Disk,
}

/// How many were refused, of each kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Refused {
    stranger: u64,
    no_alert: u64,
    unfit: u64,
    flood: u64,
    full: u64,
    disk: u64,
    /// Cut while they were written, by whatever ended the process.
    torn: u64,
}

impl Refused {
    /// How many in all.
    pub(super) fn sum(&self) -> u64 {
        let Self { stranger, no_alert, unfit, flood, full, disk, torn } = self;
        [stranger, no_alert, unfit, flood, full, disk, torn].into_iter().fold(0, |sum, one| sum.saturating_add(*one))
    }

    fn add(&mut self, refusal: Refusal) {
        let count = match refusal {
            Refusal::Stranger => &mut self.stranger,
            Refusal::NoAlert => &mut self.no_alert,
            Refusal::Unfit => &mut self.unfit,
            Refusal::Flood => &mut self.flood,
            Refusal::Full => &mut self.full,
            Refusal::Disk => &mut self.disk,
        };
        *count = count.saturating_add(1);
    }

    /// What was refused, in words.
    pub(super) fn words(&self) -> String {
        let Self { stranger, no_alert, unfit, flood, full, disk, torn } = self;
        let kinds = [
            (stranger, "from senders without certificate or token"),
            (no_alert, "that are no alert"),
            (unfit, "that were too large, too slow or not whole"),
            (flood, "beyond what is taken in a second"),
            (full, "while too many waited to be recorded"),
            (disk, "that the disk did not take"),
            (torn, "cut while they were written"),
        ];
        let told: Vec<String> =
            kinds.iter().filter(|(count, _)| **count > 0).map(|(count, what)| format!("{count} {what}")).collect();
        format!("{} requests were refused: {}", self.sum(), told.join(", "))
    }
}

/// The files. One process has them: whoever holds the ledger's lock.
pub(super) struct Journal {
    folder: PathBuf,
    state: Mutex<State>,
}

struct State {
    file: Option<File>,
    bytes: u64,
    alerts: u64,
    /// When the first of them came.
    since: Option<Since>,
    refused: Refused,
    counted: Option<Instant>,
}

/// Since when alerts wait.
#[derive(Clone, Copy)]
enum Since {
    /// A process before this one took them, and they have waited for long enough: where each process dies young, they would wait
    /// for ever.
    Before,
    /// This one did.
    Instant(Instant),
}

impl Journal {
    /// The journal in this folder, which is made where there is none, with all that a process before left in it.
    ///
    /// # Errors
    /// When the folder or a file in it can't be made or read.
    pub(super) fn open(folder: &Path) -> Result<Self, FileError> {
        make_folder(folder)?;
        let refused = folder.join(REFUSED);
        let mut refused: Refused = match read_capped(&refused, 64 << 10) {
            // A file of counts that is no such thing loses counts, and no alert.
            Ok(bytes) => serde_json::from_slice(&bytes).unwrap_or_default(),
            Err(FileError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => Refused::default(),
            Err(error) => return Err(error),
        };
        let path = folder.join(OPEN);
        let failed = |source| FileError::Read { path: path.clone(), source };
        let (mut file, mut bytes, mut alerts) = (None, 0, 0);
        if path.exists() {
            let mut found = OpenOptions::new().read(true).write(true).open(&path).map_err(failed)?;
            let mut content = Vec::new();
            (&mut found).take(WAITING + (1 << 20)).read_to_end(&mut content).map_err(failed)?;
            let whole = content.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
            if whole < content.len() {
                refused.torn += 1;
            }
            bytes = whole as u64;
            alerts = content[..whole].iter().filter(|byte| **byte == b'\n').count() as u64;
            found.set_len(bytes).map_err(failed)?;
            found.seek(SeekFrom::Start(bytes)).map_err(failed)?;
            file = Some(found);
        }
        let since = (alerts > 0).then_some(Since::Before);
        let state = State { file, bytes, alerts, since, refused, counted: None };
        Ok(Self { folder: folder.to_owned(), state: Mutex::new(state) })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere leaves counts that are right: they are changed last.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps an alert: when this returns, it is on the disk. Blocks.
    ///
    /// # Errors
    /// When no more can wait, or the disk does not take it: then nothing of it is kept.
    pub(super) fn append(&self, alert: &[u8]) -> Result<(), Refusal> {
        let mut state = self.state();
        // One line: white space is all that a line break can be between the parts of a JSON document.
        let mut line: Vec<u8> =
            alert.trim_ascii().iter().map(|byte| if matches!(byte, b'\n' | b'\r') { b' ' } else { *byte }).collect();
        line.push(b'\n');
        if state.bytes + line.len() as u64 > WAITING {
            return Err(Refusal::Full);
        }
        let path = self.folder.join(OPEN);
        let (before, folder) = (state.bytes, self.folder.clone());
        let write = |state: &mut State| -> io::Result<()> {
            if state.file.is_none() {
                state.file = Some(OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?);
                sync_folder(&folder)?;
            }
            let file = state.file.as_mut().ok_or(io::ErrorKind::NotFound)?;
            file.write_all(&line)?;
            file.sync_data()
        };
        if let Err(error) = write(&mut state) {
            tracing::warn!(%error, "an alert could not be kept");
            // What was written of it must not stand in front of the next one.
            if let Some(file) = &mut state.file
                && file.set_len(before).and_then(|()| file.seek(SeekFrom::Start(before)).map(drop)).is_err()
            {
                state.bytes = WAITING;
            }
            return Err(Refusal::Disk);
        }
        state.bytes += line.len() as u64;
        state.alerts += 1;
        state.since.get_or_insert_with(|| Since::Instant(Instant::now()));
        Ok(())
    }

    /// Counts what was not taken. Blocks.
    pub(super) fn refuse(&self, refusal: Refusal) {
        let mut state = self.state();
        state.refused.add(refusal);
        if state.counted.is_none_or(|at| at.elapsed() >= COUNTED) {
            state.counted = Some(Instant::now());
            self.write_counts(&state.refused);
        }
    }

    /// Writes the counts that are not written yet.
    pub(super) fn settle(&self) {
        let state = self.state();
        self.write_counts(&state.refused);
    }

    fn write_counts(&self, refused: &Refused) {
        let bytes = serde_json::to_vec(refused).expect("counts have a JSON form");
        if let Err(error) = write_atomic(&self.folder.join(REFUSED), &bytes, 0o600) {
            tracing::warn!(%error, "counts of refused alerts are only in memory");
        }
    }

    /// How many alerts wait, and for how long the first of them does.
    pub(super) fn waiting(&self) -> (u64, Duration) {
        let state = self.state();
        let waited = match state.since {
            None => Duration::ZERO,
            Some(Since::Before) => Duration::MAX,
            Some(Since::Instant(since)) => since.elapsed(),
        };
        (state.alerts, waited)
    }

    /// What was refused and is not recorded yet.
    pub(super) fn refused(&self) -> Refused {
        self.state().refused
    }

    /// Takes off what was recorded of it.
    pub(super) fn forget(&self, recorded: Refused) {
        let mut state = self.state();
        let now = &mut state.refused;
        let less = |one: &mut u64, by: u64| *one = one.saturating_sub(by);
        let Refused { stranger, no_alert, unfit, flood, full, disk, torn } = recorded;
        less(&mut now.stranger, stranger);
        less(&mut now.no_alert, no_alert);
        less(&mut now.unfit, unfit);
        less(&mut now.flood, flood);
        less(&mut now.full, full);
        less(&mut now.disk, disk);
        less(&mut now.torn, torn);
        self.write_counts(&state.refused);
    }

    /// Makes what waits the batch of a run, if anything waits.
    ///
    /// # Errors
    /// When the file can't be renamed; then it goes on to wait.
    pub(super) fn seal(&self, run: RunId) -> Result<(), FileError> {
        let mut state = self.state();
        if state.alerts == 0 {
            return Ok(());
        }
        let (from, to) = (self.folder.join(OPEN), self.batch(run));
        let failed = |source| FileError::Write { path: to.clone(), source };
        fs::rename(&from, &to).map_err(failed)?;
        // From here on new ones go to a new file, whatever happens.
        (state.file, state.bytes, state.alerts, state.since) = (None, 0, 0, None);
        sync_folder(&self.folder).map_err(failed)
    }

    fn batch(&self, run: RunId) -> PathBuf {
        self.folder.join(format!("{run}.jsonl"))
    }

    /// The batches that are not recorded to their end, the oldest first.
    ///
    /// # Errors
    /// When the folder can't be read.
    pub(super) fn batches(&self) -> Result<Vec<RunId>, FileError> {
        let failed = |source| FileError::Read { path: self.folder.clone(), source };
        let mut runs = Vec::new();
        for entry in fs::read_dir(&self.folder).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            let name = name.to_string_lossy();
            runs.extend(name.strip_suffix(".jsonl").and_then(|name| name.parse::<RunId>().ok()));
        }
        runs.sort_unstable();
        Ok(runs)
    }

    /// The alerts of a batch, one a line.
    ///
    /// # Errors
    /// When it can't be read.
    pub(super) fn read(&self, run: RunId) -> Result<Vec<u8>, FileError> {
        read_capped(&self.batch(run), WAITING + (1 << 20))
    }

    /// Makes a batch that of another run.
    ///
    /// # Errors
    /// When it can't be renamed.
    pub(super) fn rename(&self, from: RunId, to: RunId) -> Result<(), FileError> {
        let path = self.batch(to);
        let renamed = fs::rename(self.batch(from), &path).and_then(|()| sync_folder(&self.folder));
        renamed.map_err(|source| FileError::Write { path, source })
    }

    /// Removes a batch that is in the ledger.
    ///
    /// # Errors
    /// When it can't be removed.
    pub(super) fn remove(&self, run: RunId) -> Result<(), FileError> {
        let path = self.batch(run);
        let removed = fs::remove_file(&path).and_then(|()| sync_folder(&self.folder));
        removed.map_err(|source| FileError::Write { path, source })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_kept_is_there_after_a_crash_and_what_was_cut_is_not() {
        let folder = tempfile::tempdir().expect("a folder");
        let at = folder.path().join("falco");
        let journal = Journal::open(&at).expect("a journal");
        journal.append(b"{\"a\":\n1}\n").expect("kept");
        journal.append(b"{\"b\":2}").expect("kept");
        journal.refuse(Refusal::Flood);
        drop(journal);
        let open = at.join(OPEN);
        let mut bytes = fs::read(&open).expect("a file");
        assert_eq!(bytes, b"{\"a\": 1}\n{\"b\":2}\n");
        bytes.extend(b"{\"torn");
        fs::write(&open, bytes).expect("written");

        let journal = Journal::open(&at).expect("a journal");
        assert_eq!((journal.waiting().0, journal.refused().sum()), (2, 2));
        assert!(journal.refused().words().contains("cut while they were written"), "{}", journal.refused().words());
        journal.append(b"{\"c\":3}").expect("kept");
        let run = RunId::new();
        journal.seal(run).expect("sealed");
        journal.seal(RunId::new()).expect("nothing waits");
        assert_eq!(journal.batches().expect("batches"), [run]);
        assert_eq!(journal.read(run).expect("a batch"), b"{\"a\": 1}\n{\"b\":2}\n{\"c\":3}\n");
        journal.append(b"{\"d\":4}").expect("kept");
        assert_eq!(journal.waiting().0, 1);
        journal.remove(run).expect("removed");
        assert!(journal.batches().expect("batches").is_empty());
        journal.forget(journal.refused());
        assert_eq!(Journal::open(&at).expect("a journal").refused(), Refused::default());
    }

    #[test]
    fn no_more_waits_than_may() {
        let folder = tempfile::tempdir().expect("a folder");
        let journal = Journal::open(folder.path()).expect("a journal");
        let large = vec![b'x'; 8 << 20];
        for _ in 0..3 {
            journal.append(&large).expect("kept");
        }
        assert_eq!(journal.append(&large), Err(Refusal::Full));
        journal.append(b"{}").expect("a small one still fits");
        journal.seal(RunId::new()).expect("sealed");
        journal.append(&large).expect("there is room again");
    }
}
