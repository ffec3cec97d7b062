//! Taking an image as an archive: what the runner sends over the connection of a command is written to a file, which is there
//! under its name only when all of it has arrived and has the digests that were announced.
//!
//! ```text
//! gapscan-archive 1 812
//! (812 bytes: the JSON of a plan)
//! (the bytes of its entries, one after the other)
//! ```
//!
//! The file is a tar with nothing in it but what the plan names, in its order. What can happen on the way, and where it is
//! noticed:
//!
//! | accident or attack | noticed by |
//! |---|---|
//! | the connection breaks, the runner is killed | fewer bytes than the plan says |
//! | a sender that stays silent | the longest silence, after which the receiver gives up |
//! | bits that were changed, bytes that were lost or doubled | the digest of each entry |
//! | an entry that is more than the node is to hold | the limit, before the first byte is written |
//! | a name that leads elsewhere | only names of an OCI image layout are taken |
//! | a plan without end | its length, before it is read |
//! | the disk is full | the error of the write; what was written is removed |
//! | two receivers, as the first one's connection broke | each has a file of its own until its end, and removes those of others |
//! | an agent of another version | the number in the first line |

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::error::AgentError;
use crate::base::digest::{Digest, Hasher};
use crate::base::text::brief;

/// The first word of the first line.
const NAME: &str = "gapscan-archive";
/// The version of what is sent.
const VERSION: &str = "1";

/// Bytes of the first line.
const LINE_BYTES: usize = 64;
/// Bytes of a plan. The manifest that it was made of has at most 4 MiB.
const PLAN_BYTES: usize = 16 << 20;
/// Bytes that are taken at once.
const PIECE: usize = 256 << 10;
/// Pieces between the connection and the disk.
const PIECES: usize = 4;
/// Bytes of a header of a tar, and what its parts are multiples of.
const BLOCK: u64 = 512;

/// The folders of an OCI image layout: some readers of tar files do not make those that have no entry.
const FOLDERS: [&str; 2] = ["blobs/", "blobs/sha256/"];

/// What an archive consists of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Plan {
    /// Its files, in order.
    pub entries: Vec<PlanEntry>,
}

/// One file of an archive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PlanEntry {
    /// Its name: one of an OCI image layout.
    pub name: String,
    /// Bytes.
    pub size: u64,
    /// Of these bytes.
    pub digest: Digest,
}

impl Plan {
    /// Bytes of the archive; `None` where no number can say it.
    pub fn archive_bytes(&self) -> Option<u64> {
        // The end of a tar is two empty blocks.
        let frame = BLOCK * (2 + FOLDERS.len() as u64);
        self.entries.iter().try_fold(frame, |sum, entry| {
            let padded = entry.size.checked_next_multiple_of(BLOCK)?;
            sum.checked_add(BLOCK)?.checked_add(padded)
        })
    }

    /// What is sent before the bytes of the entries.
    pub fn head(&self) -> Vec<u8> {
        let json = serde_json::to_vec(self).expect("names, numbers and digests are JSON");
        [format!("{NAME} {VERSION} {}\n", json.len()).as_bytes(), &json].concat()
    }
}

/// What the receiver says at its end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "kebab-case", rename_all_fields = "camelCase")]
pub enum Receipt {
    /// The archive is there: each entry has its size and its digest.
    Whole {
        /// Bytes of the archive.
        bytes: u64,
    },
    /// It is not.
    Refused {
        /// What was wrong.
        fault: Fault,
        /// In words.
        detail: String,
    },
}

/// Why an archive was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fault {
    /// It ended early.
    Cut,
    /// Nothing came for too long.
    Stalled,
    /// An entry has another digest than was announced.
    Mismatch,
    /// What was announced can't be taken.
    Malformed,
    /// It is larger than the limit.
    TooLarge,
    /// It can't be written.
    NotWritten,
}

/// Where an archive is put, and within which bounds.
#[derive(Clone, Debug)]
pub struct Place {
    /// The file.
    pub into: PathBuf,
    /// Bytes of the archive, at most.
    pub limit: u64,
    /// The longest silence of the sender.
    pub silence: Duration,
}

/// What went wrong, before it is told.
type Refusal = (Fault, String);

/// Takes an archive. Whatever is wrong with it is in the receipt, and nothing is left of it then.
pub fn receive(input: impl Read + Send + 'static, place: &Place) -> Receipt {
    match attempt(input, place) {
        Ok(bytes) => Receipt::Whole { bytes },
        Err((fault, detail)) => Receipt::Refused { fault, detail },
    }
}

fn attempt(input: impl Read + Send + 'static, place: &Place) -> Result<u64, Refusal> {
    let unwritten = |error: io::Error| (Fault::NotWritten, format!("`{}`: {error}", place.into.display()));
    // Nobody's: what an earlier receiver left, or still writes to. It will find its file gone.
    let folder = place.into.parent().unwrap_or(Path::new("/"));
    for entry in fs::read_dir(folder).map_err(unwritten)?.flatten() {
        if entry.path().extension().is_some_and(|extension| extension == "part") {
            fs::remove_file(entry.path()).map_err(unwritten)?;
        }
    }
    let part = place.into.with_extension(format!("{}.part", std::process::id()));
    let taken = take(&mut Arriving::begin(input, place.silence), &part, place).and_then(|taken| {
        if let Some(part) = &taken.file {
            fs::rename(part, &place.into).map_err(unwritten)?;
        }
        Ok(taken.bytes)
    });
    if taken.is_err() {
        // Its absence is what is wanted; the pod's end removes it otherwise.
        let _ = fs::remove_file(&part);
    }
    taken
}

/// What was taken, and the file that it was written to; none where it was there already.
struct Taken {
    bytes: u64,
    file: Option<PathBuf>,
}

fn take(arriving: &mut Arriving, part: &Path, place: &Place) -> Result<Taken, Refusal> {
    let malformed = |detail: String| (Fault::Malformed, detail);
    let plan = arriving.plan()?;
    if let Some(entry) = plan.entries.iter().find(|entry| !is_of_layout(&entry.name)) {
        return Err(malformed(format!("`{}` is no name of an OCI image layout", brief(&entry.name))));
    }
    let bytes = plan.archive_bytes().filter(|bytes| *bytes <= place.limit);
    let Some(bytes) = bytes else {
        return Err((Fault::TooLarge, format!("it has more than {} bytes", place.limit)));
    };
    // The receipt for it was lost on its way, and the scanner reads it by now.
    if fs::symlink_metadata(&place.into).is_ok_and(|meta| meta.len() == bytes) {
        return Ok(Taken { bytes, file: None });
    }
    let unwritten = |error: io::Error| (Fault::NotWritten, error.to_string());
    let mut file = File::create(part).map_err(unwritten)?;
    for folder in FOLDERS {
        file.write_all(&header(folder, 0)?).map_err(unwritten)?;
    }
    for PlanEntry { name, size, digest } in &plan.entries {
        file.write_all(&header(name, *size)?).map_err(unwritten)?;
        let (mut left, mut hasher) = (*size, Hasher::new());
        while left > 0 {
            let piece = arriving.piece(usize::try_from(left).unwrap_or(usize::MAX))?;
            if piece.is_empty() {
                return Err((Fault::Cut, format!("{left} of {size} bytes of `{name}` are missing")));
            }
            hasher.update(piece);
            file.write_all(piece).map_err(unwritten)?;
            left -= piece.len() as u64;
        }
        let found = hasher.finish();
        if found != *digest {
            return Err((Fault::Mismatch, format!("`{name}` arrived as {found}")));
        }
        let padding = size.next_multiple_of(BLOCK) - size;
        file.write_all(&[0; BLOCK as usize][..padding as usize]).map_err(unwritten)?;
    }
    file.write_all(&[0; 2 * BLOCK as usize]).map_err(unwritten)?;
    Ok(Taken { bytes, file: Some(part.to_owned()) })
}

/// Whether this is the name of a file of an OCI image layout with digests of SHA-256.
fn is_of_layout(name: &str) -> bool {
    let blob = |name: &str| name.strip_prefix("blobs/sha256/").is_some_and(|hex| Digest::from_hex(hex).is_ok());
    matches!(name, "oci-layout" | "index.json") || blob(name)
}

/// The header of one entry (POSIX ustar): nobody's, of no time, and a folder where its name ends so.
fn header(name: &str, size: u64) -> Result<[u8; BLOCK as usize], Refusal> {
    let mut header = tar::Header::new_ustar();
    let folder = name.ends_with('/');
    header.set_entry_type(if folder { tar::EntryType::Directory } else { tar::EntryType::Regular });
    header.set_path(name).map_err(|error| (Fault::Malformed, error.to_string()))?;
    header.set_mode(if folder { 0o755 } else { 0o644 });
    header.set_size(size);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_cksum();
    Ok(*header.as_bytes())
}

/// What arrives, a piece at a time. It is read by a thread of its own, so that its silence can be told; where that thread waits for
/// somebody who says nothing, the process ends around it.
struct Arriving {
    pieces: Receiver<io::Result<Vec<u8>>>,
    current: Vec<u8>,
    at: usize,
    silence: Duration,
}

impl Arriving {
    fn begin(input: impl Read + Send + 'static, silence: Duration) -> Self {
        let (sender, pieces) = sync_channel(PIECES);
        std::thread::spawn(move || read(input, &sender));
        Self { pieces, current: Vec::new(), at: 0, silence }
    }

    /// The next bytes, at most so many; none at the end.
    fn piece(&mut self, most: usize) -> Result<&[u8], Refusal> {
        if self.at == self.current.len() {
            self.current = match self.pieces.recv_timeout(self.silence) {
                Ok(Ok(piece)) => piece,
                Ok(Err(error)) => return Err((Fault::Cut, error.to_string())),
                Err(RecvTimeoutError::Disconnected) => Vec::new(),
                Err(RecvTimeoutError::Timeout) => {
                    return Err((Fault::Stalled, format!("nothing came for {} s", self.silence.as_secs())));
                }
            };
            self.at = 0;
        }
        let begin = self.at;
        self.at = self.current.len().min(begin.saturating_add(most));
        Ok(&self.current[begin..self.at])
    }

    fn plan(&mut self) -> Result<Plan, Refusal> {
        let malformed = |detail: String| (Fault::Malformed, detail);
        let cut = || (Fault::Cut, "it ends before its first entry".to_owned());
        let mut line = Vec::new();
        loop {
            match self.piece(1)? {
                [] => return Err(cut()),
                b"\n" => break,
                _ if line.len() == LINE_BYTES => return Err(malformed("its first line has no end".to_owned())),
                byte => line.extend_from_slice(byte),
            }
        }
        let line = String::from_utf8_lossy(&line).into_owned();
        let words: Vec<&str> = line.split(' ').collect();
        let length = match words[..] {
            [NAME, VERSION, length] => length.parse::<usize>().ok().filter(|length| *length <= PLAN_BYTES),
            _ => None,
        };
        let Some(length) = length else {
            return Err(malformed(format!("its first line is `{}`: it is of another version", brief(&line))));
        };
        let mut json = Vec::new();
        while json.len() < length {
            match self.piece(length - json.len())? {
                [] => return Err(cut()),
                piece => json.extend_from_slice(piece),
            }
        }
        serde_json::from_slice(&json).map_err(|error| malformed(format!("its plan makes no sense: {error}")))
    }
}

fn read(mut input: impl Read, pieces: &SyncSender<io::Result<Vec<u8>>>) {
    loop {
        let mut piece = vec![0; PIECE];
        let sent = match input.read(&mut piece) {
            Ok(0) => return,
            Ok(read) => {
                piece.truncate(read);
                pieces.send(Ok(piece))
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            Err(error) => pieces.send(Err(error)),
        };
        if sent.is_err() {
            return;
        }
    }
}

/// An archive that a scanner waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Awaited {
    /// The file.
    pub file: PathBuf,
    /// How long it is waited for.
    pub within: Duration,
}

/// Between two looks for the archive.
const LOOK: Duration = Duration::from_millis(50);

impl Awaited {
    /// Waits until it is there.
    ///
    /// # Errors
    /// A sentence that says so, when it did not come in time.
    pub async fn arrived(&self) -> Result<(), String> {
        let look = async {
            while !fs::symlink_metadata(&self.file).is_ok_and(|meta| meta.is_file()) {
                tokio::time::sleep(LOOK).await;
            }
        };
        let late = || format!("the image's archive did not arrive within {} s", self.within.as_secs());
        tokio::time::timeout(self.within, look).await.map_err(|_| late())
    }
}

/// Says what came of it, as a parcel.
///
/// # Errors
/// When nobody takes the bytes.
pub fn tell(receipt: &Receipt, out: &mut impl Write) -> Result<(), AgentError> {
    let json = serde_json::to_vec(receipt).expect("words and numbers are JSON");
    super::parcel::send(&json, out).map_err(AgentError::Send)
}

#[cfg(test)]
mod tests;
