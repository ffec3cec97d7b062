//! How bytes come out of a pod, whatever they come through: in numbered blocks, with the length and digest of everything
//! after them. `docs/results-transport.md` specifies it.
//!
//! ```text
//! gapscan-parcel 1
//! block 0 status 412
//! (412 bytes)
//! block 1 result 65536
//! (65536 bytes)
//! end {"blocks":2,"parts":[{"name":"status","length":412,"digest":"sha256:…"}, …]}
//! ```
//!
//! The digest comes last, so that nothing has to be read twice or held before it is sent. What can happen on the way, and
//! where it is noticed:
//!
//! | accident or attack | noticed by |
//! |---|---|
//! | the connection breaks, the pod ends, the disk of a log is full: a cut | there is no line `end` |
//! | a log was rotated, or is read from its middle | the first line is not `gapscan-parcel 1` |
//! | a line is doubled, lost or put in between, within a block | after the block's bytes there is no line break where there should be one, or its digest |
//! | a block is doubled, lost, or out of its order | its number |
//! | noise before the first line or after the last | it is no such line |
//! | bits that were changed | the digest |
//! | a part without end | the limit of each part, before its bytes are kept |
//! | an agent of another version | the number in the first line |

use std::io::{self, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::base::digest::{Digest, Hasher};
use crate::base::spool::{Content as _, Spool, Spooled};
use crate::base::text::brief;
use crate::cluster::error::ClusterError;

/// The first line, but for the version.
const NAME: &str = "gapscan-parcel";

/// The version of the framing.
const VERSION: &str = "1";

/// Bytes of one block, at most.
pub const BLOCK_BYTES: usize = 64 << 10;

/// Bytes of a line that is no content. The last one has some 150 for each part.
const LINE_BYTES: usize = 4096;

/// The part of a parcel that has only one.
const CONTENT: &str = "content";

/// The last line.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Trailer {
    blocks: u64,
    parts: Vec<Sum>,
}

/// One part, in all its blocks.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Sum {
    name: String,
    length: u64,
    digest: Digest,
}

/// Writes a parcel.
pub struct Sender<W> {
    out: W,
    blocks: u64,
    parts: Vec<(&'static str, Hasher)>,
}

impl<W: Write> Sender<W> {
    /// Begins one. Line breaks before it mean nothing.
    ///
    /// # Errors
    /// When nobody takes the bytes.
    pub fn begin(mut out: W) -> io::Result<Self> {
        writeln!(out, "{NAME} {VERSION}")?;
        Ok(Self { out, blocks: 0, parts: Vec::new() })
    }

    /// Adds these bytes to a part, whose name is of lower-case letters. A part without bytes is there too.
    ///
    /// # Errors
    /// When nobody takes the bytes.
    pub fn add(&mut self, part: &'static str, bytes: &[u8]) -> io::Result<()> {
        let index = self.parts.iter().position(|(name, _)| *name == part).unwrap_or_else(|| {
            self.parts.push((part, Hasher::new()));
            self.parts.len() - 1
        });
        for block in bytes.chunks(BLOCK_BYTES) {
            writeln!(self.out, "block {} {part} {}", self.blocks, block.len())?;
            self.out.write_all(block)?;
            self.out.write_all(b"\n")?;
            self.blocks += 1;
            self.parts[index].1.update(block);
        }
        Ok(())
    }

    /// Ends it.
    ///
    /// # Errors
    /// When nobody takes the bytes.
    pub fn end(mut self) -> io::Result<()> {
        let sum = |(name, hasher): (&'static str, Hasher)| Sum {
            name: name.to_owned(),
            length: hasher.length(),
            digest: hasher.finish(),
        };
        let trailer = Trailer { blocks: self.blocks, parts: self.parts.into_iter().map(sum).collect() };
        writeln!(self.out, "end {}", serde_json::to_string(&trailer)?)?;
        self.out.flush()
    }
}

/// Writes a parcel of this content alone.
///
/// # Errors
/// When nobody takes the bytes.
pub fn send(content: &[u8], out: &mut impl Write) -> io::Result<()> {
    let mut sender = Sender::begin(out)?;
    sender.add(CONTENT, content)?;
    sender.end()
}

/// Writes a parcel of this content and one more part.
///
/// # Errors
/// When nobody takes the bytes.
pub fn send_with(content: &[u8], part: &'static str, bytes: &[u8], out: &mut impl Write) -> io::Result<()> {
    let mut sender = Sender::begin(out)?;
    sender.add(CONTENT, content)?;
    sender.add(part, bytes)?;
    sender.end()
}

/// The content of a parcel that has this part besides and nothing else, and the part, if it is whole.
///
/// # Errors
/// [`ClusterError::OutputTruncated`] when it is not, or when it is no parcel.
pub fn open_with(received: &[u8], part: &'static str) -> Result<(Vec<u8>, Vec<u8>), ClusterError> {
    // What arrived is bounded already.
    let of = |name| Part { name, limit: u64::MAX, spool: Spool::in_memory() };
    let mut receiver = Receiver::of(vec![of(CONTENT), of(part)]);
    receiver.take(received);
    let mut parts = receiver.finish()?;
    let mut bytes = |name| parts.take(name)?.into_bytes().map_err(ClusterError::Spool);
    Ok((bytes(CONTENT)?, bytes(part)?))
}

/// The content of a parcel that has nothing else, if it is whole.
///
/// # Errors
/// [`ClusterError::OutputTruncated`] when it is not, or when it is no parcel.
pub fn open(received: &[u8]) -> Result<Vec<u8>, ClusterError> {
    let spool = Spool::in_memory();
    // What arrived is bounded already.
    let mut receiver = Receiver::of(vec![Part { name: CONTENT, limit: u64::MAX, spool }]);
    receiver.take(received);
    receiver.finish()?.take(CONTENT)?.into_bytes().map_err(ClusterError::Spool)
}

/// Takes a parcel apart while it arrives. Each part goes to a [`Spool`]; what comes after the first thing that is wrong is
/// dropped.
pub struct Receiver {
    parts: Vec<Part>,
    state: State,
    /// A line that has not ended yet.
    line: Vec<u8>,
    next: u64,
    received: u64,
    trailer: Option<Trailer>,
    wrong: Option<ClusterError>,
}

struct Part {
    name: &'static str,
    limit: u64,
    spool: Spool,
}

#[derive(Clone, Copy)]
enum State {
    /// Nothing but line breaks came.
    Before,
    /// A line of the framing comes.
    Line,
    /// So many bytes of a part come.
    Bytes { part: usize, left: usize },
    /// The line break after a block comes.
    Closing,
    /// Nothing comes any more.
    Ended,
}

/// The parts of a parcel that arrived whole.
pub struct Parts(Vec<(&'static str, Spooled)>);

impl Parts {
    /// The part of this name.
    ///
    /// # Errors
    /// When the parcel has none.
    pub fn take(&mut self, name: &str) -> Result<Spooled, ClusterError> {
        match self.0.iter().position(|(known, _)| *known == name) {
            Some(index) => Ok(self.0.swap_remove(index).1),
            None => Err(refuse(format!("it has no part `{name}`"))),
        }
    }
}

fn refuse(detail: impl Into<String>) -> ClusterError {
    ClusterError::OutputTruncated { detail: detail.into() }
}

/// Digits only: no sign, no spaces.
fn number<T: std::str::FromStr>(text: &str) -> Option<T> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

impl Receiver {
    /// Takes these parts and no others, each up to so many bytes. What is large goes to files in `folder`.
    pub fn new(parts: &[(&'static str, u64)], folder: &Path) -> Self {
        Self::of(parts.iter().map(|(name, limit)| Part { name, limit: *limit, spool: Spool::new(folder) }).collect())
    }

    fn of(parts: Vec<Part>) -> Self {
        Self { parts, state: State::Before, line: Vec::new(), next: 0, received: 0, trailer: None, wrong: None }
    }

    /// Takes what arrived.
    pub fn take(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() && self.wrong.is_none() {
            match self.step(bytes) {
                Ok(taken) => {
                    self.received += taken as u64;
                    bytes = &bytes[taken..];
                }
                Err(error) => self.wrong = Some(error),
            }
        }
    }

    /// What is wrong with what arrived so far: nothing that follows can mend it.
    pub(crate) fn failure(&self) -> Option<&ClusterError> {
        self.wrong.as_ref()
    }

    /// The parts, if everything came that its sender had, and nothing else.
    ///
    /// # Errors
    /// [`ClusterError::OutputTruncated`] when not; [`ClusterError::OutputTooLarge`] when a part goes beyond its limit;
    /// [`ClusterError::Spool`] when it could not be kept.
    pub fn finish(self) -> Result<Parts, ClusterError> {
        if let Some(error) = self.wrong {
            return Err(error);
        }
        let Some(trailer) = self.trailer else {
            let what = match self.state {
                State::Before if self.line.is_empty() => "nothing arrived".to_owned(),
                _ => format!("it ends after {} bytes and {} blocks, before its last line", self.received, self.next),
            };
            return Err(refuse(what));
        };
        if trailer.blocks != self.next {
            return Err(refuse(format!("{} blocks arrived of {}", self.next, trailer.blocks)));
        }
        let mut arrived = Vec::new();
        for part in self.parts {
            let named = trailer.parts.iter().filter(|sum| sum.name == part.name).collect::<Vec<_>>();
            let spooled = part.spool.finish();
            match named[..] {
                [] if spooled.length() == 0 => {}
                [sum] if sum.length != spooled.length() => {
                    let (name, came, sent) = (part.name, spooled.length(), sum.length);
                    return Err(refuse(format!("{came} bytes of its part `{name}` arrived of {sent}")));
                }
                [sum] if sum.digest == spooled.digest() => arrived.push((part.name, spooled)),
                _ => {
                    let name = part.name;
                    return Err(refuse(format!("its part `{name}` arrived with another digest than it was sent with")));
                }
            }
        }
        match trailer.parts.iter().find(|sum| arrived.iter().all(|(name, _)| *name != sum.name)) {
            None => Ok(Parts(arrived)),
            Some(sum) => Err(refuse(format!("its part `{}` is not one that was asked for", brief(&sum.name)))),
        }
    }

    /// Takes the next bytes; how many.
    fn step(&mut self, bytes: &[u8]) -> Result<usize, ClusterError> {
        match self.state {
            State::Before if self.line.is_empty() && bytes[0] == b'\n' => Ok(1),
            State::Before | State::Line => {
                let end = bytes.iter().take(LINE_BYTES).position(|b| *b == b'\n');
                let taken = end.unwrap_or_else(|| bytes.len().min(LINE_BYTES));
                self.line.extend_from_slice(&bytes[..taken]);
                if self.line.len() >= LINE_BYTES {
                    return Err(self.strange());
                }
                if end.is_none() {
                    return Ok(taken);
                }
                self.line_ended()?;
                self.line.clear();
                Ok(taken + 1)
            }
            State::Bytes { part, left } => {
                let taken = left.min(bytes.len());
                self.parts[part].spool.write_all(&bytes[..taken]).map_err(ClusterError::Spool)?;
                let left = left - taken;
                self.state = if left == 0 { State::Closing } else { State::Bytes { part, left } };
                Ok(taken)
            }
            State::Closing if bytes[0] == b'\n' => {
                self.state = State::Line;
                Ok(1)
            }
            State::Closing => {
                let last = self.next - 1;
                Err(refuse(format!("block {last} goes on beyond its length: something came in between or twice")))
            }
            State::Ended => Err(refuse("something follows its last line")),
        }
    }

    /// What to say of a line that is none of the framing's.
    fn strange(&self) -> ClusterError {
        let line = brief(&String::from_utf8_lossy(&self.line[..self.line.len().min(200)]));
        match self.state {
            State::Before => refuse(format!(
                "its first line is not gapscan's but `{line}`: something came before it, or its begin is gone"
            )),
            _ => refuse(format!("after {} blocks there is a line that is none of gapscan's: `{line}`", self.next)),
        }
    }

    fn line_ended(&mut self) -> Result<(), ClusterError> {
        let Ok(line) = std::str::from_utf8(&self.line) else { return Err(self.strange()) };
        if matches!(self.state, State::Before) {
            return match line.strip_prefix(NAME).and_then(|rest| rest.strip_prefix(' ')) {
                Some(VERSION) => {
                    self.state = State::Line;
                    Ok(())
                }
                Some(other) => Err(refuse(format!(
                    "it was sent in version `{}` of gapscan's framing, and this program reads version {VERSION}: the \
                     bundle's gapscan image is of another version than the runner",
                    brief(other)
                ))),
                None => Err(self.strange()),
            };
        }
        if let Some(json) = line.strip_prefix("end ") {
            let trailer: Trailer = serde_json::from_str(json)
                .map_err(|error| refuse(format!("its last line makes no sense: {}", brief(&error.to_string()))))?;
            self.trailer = Some(trailer);
            self.state = State::Ended;
            return Ok(());
        }
        let words: Vec<&str> = line.split(' ').collect();
        let ["block", place, name, length] = words[..] else { return Err(self.strange()) };
        let (Some(place), Some(length)) = (number::<u64>(place), number::<usize>(length)) else {
            return Err(self.strange());
        };
        if place != self.next {
            let what = if place < self.next { "came a second time" } else { "came before its time" };
            return Err(refuse(format!("block {place} {what}: block {} is the next", self.next)));
        }
        let Some(part) = self.parts.iter().position(|part| part.name == name) else {
            return Err(refuse(format!("its part `{}` is not one that was asked for", brief(name))));
        };
        if length == 0 || length > BLOCK_BYTES {
            return Err(refuse(format!("block {place} has {length} bytes, and 1 to {BLOCK_BYTES} are allowed")));
        }
        let limit = self.parts[part].limit;
        let total = self.parts[part].spool.length() + length as u64;
        if total > limit {
            return Err(ClusterError::OutputTooLarge { length: total, limit });
        }
        self.next += 1;
        self.state = State::Bytes { part, left: length };
        Ok(())
    }
}

#[cfg(test)]
mod tests;
