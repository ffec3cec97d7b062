//! What the agent hands over to the runner: a [`parcel`](super::parcel) with these parts. `status` is the JSON of a
//! [`Header`]; the others are bytes.
//!
//! Line breaks before the parcel keep an idle connection alive and mean nothing.

use serde::{Deserialize, Serialize};

use super::sockets::Sockets;

/// The part with the header.
pub const STATUS: &str = "status";
/// The part with the result; it is there if the header says so and it is not larger than what was asked for.
pub const RESULT: &str = "result";
/// The part with the end of standard output.
pub const STDOUT: &str = "stdout";
/// The part with the end of standard error.
pub const STDERR: &str = "stderr";

/// The part, beside facts that were collected in somebody else's network, with the JSON of
/// [`OwnSockets`](super::own_sockets::OwnSockets).
pub const OWN_SOCKETS: &str = "sockets";

/// Bytes of the header. It holds at most [`SAMPLE`] and [`LEFT_OUT_SAMPLE`] paths of 4096 bytes.
pub const HEADER_BYTES: usize = 1 << 20;

/// Bytes that are kept of the end of standard output and of standard error.
pub const TAIL_BYTES: usize = 64 << 10;

/// How many unreadable paths are named.
pub const SAMPLE: usize = 100;

/// How many paths are named that the scanner leaves out.
pub const LEFT_OUT_SAMPLE: usize = 20;

/// The name of the file in the spool that is there when the scanner has ended.
pub const STATUS_FILE: &str = "status.json";
/// The end of the scanner's standard output, in the spool.
pub const STDOUT_TAIL: &str = "stdout.tail";
/// The end of the scanner's standard error, in the spool.
pub const STDERR_TAIL: &str = "stderr.tail";
/// The scanner's whole standard output, where that is the result.
pub const STDOUT_FILE: &str = "stdout";

/// How the scanner ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "how", rename_all = "kebab-case", rename_all_fields = "camelCase")]
pub enum ExitStatus {
    /// By itself.
    Exited {
        /// Its exit code.
        code: u8,
    },
    /// By a signal.
    Signalled {
        /// The signal's number.
        signal: i32,
    },
    /// It was killed because its time was up.
    TimedOut,
    /// It could not be started.
    NotStarted {
        /// Why.
        message: String,
    },
}

/// The result file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "kebab-case", rename_all_fields = "camelCase")]
pub enum ResultState {
    /// It is there.
    Present {
        /// Its length in bytes.
        length: u64,
        /// Its inode and the time of its last change, to notice a file that is written to after the scanner's end. Its digest
        /// is taken when it is sent.
        stamp: String,
    },
    /// It is not there, empty, or no regular file.
    Missing {
        /// What is there instead.
        detail: String,
    },
}

/// Paths in the target that the scanner's user may not read, or that it leaves out. A scanner passes over them in silence.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Unreadable {
    /// How many there are. What is below a folder that can't be read is not counted, as it can't be seen.
    pub count: u64,
    /// The first of them.
    pub sample: Vec<String>,
    /// How many paths there are that the scanner's definition says it passes over.
    #[serde(default)]
    pub left_out: u64,
    /// The first of these.
    #[serde(default)]
    pub left_out_sample: Vec<String>,
    /// Whether the search ended early, by number of entries or time, so that there may be more.
    pub incomplete: bool,
}

impl Unreadable {
    /// Whether all of the target could be looked at, and nothing in it is left out.
    pub fn is_none(&self) -> bool {
        self.count == 0 && self.left_out == 0 && !self.incomplete
    }
}

/// What the scanner said when it was asked for its version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "how", rename_all = "kebab-case", rename_all_fields = "camelCase")]
pub enum Asked {
    /// It answered, whatever its exit code was.
    Answered {
        /// The begin of what it printed: standard output before standard error, as text.
        printed: String,
    },
    /// It could not be asked.
    Unanswered {
        /// Why.
        detail: String,
    },
}

/// Bytes that are kept of an answer.
pub const ANSWER_BYTES: usize = 4 << 10;

/// The header.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Header {
    /// How the scanner ended.
    pub exit: ExitStatus,
    /// Whether the kernel killed a process of the container for its memory meanwhile.
    pub oom_killed: bool,
    /// The result.
    pub result: ResultState,
    /// What the scanner could not read.
    pub unreadable: Unreadable,
    /// To whom anything in the scanner's pod talked, or tried to, while it ran.
    pub sockets: Sockets,
    /// What it said of its version, where it was asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<Asked>,
}
