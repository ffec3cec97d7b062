//! Entries and how they are chained.
//!
//! The digest of an entry is the SHA-256 of these bytes in this order. Every field has a fixed length or is preceded by
//! its length, so that no two entries have the same bytes.
//!
//! | bytes | what |
//! |---|---|
//! | 24 | the ASCII text `gapscan-ledger-entry-v1` and a zero byte |
//! | 8 | the entry's number, big-endian; the first is 1 and each is one more than the one before |
//! | 8 + n | the length of the kind, big-endian, and the kind |
//! | 8 + n | the length of the time, big-endian, and the time as RFC 3339 |
//! | 32 | the digest of the entry before; zeros for the first |
//! | 8 + n | the length of the body, big-endian, and the body |

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::checkpoint::Checkpoint;
use crate::base::digest::{Digest, Hasher};
use crate::model::profile::Profile;
use crate::model::record::{Event, RunEnd, RunId, RunStart, TaskRecord};

const DOMAIN: &[u8; 24] = b"gapscan-ledger-entry-v1\0";

/// What stands in the place of the digest before the first entry.
pub(super) fn before_first() -> Digest {
    Digest::from_bytes([0; 32])
}

/// The first entry of a ledger.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Genesis {
    /// Names the ledger.
    pub ledger: Uuid,
    /// When it was made.
    pub created: Timestamp,
    /// The schema it was made with.
    pub schema: i64,
    /// The gapscan that made it.
    pub gapscan: String,
    /// The public key of its runner: SubjectPublicKeyInfo (RFC 5480) in DER and base64.
    pub key: String,
}

/// The end of a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RunEnded {
    /// The run.
    pub run: RunId,
    /// How it ended.
    pub end: RunEnd,
    /// When.
    pub at: Timestamp,
}

/// What an entry holds. The body is the JSON of the type inside.
#[derive(Clone, Debug)]
pub enum Body {
    /// `genesis`: the first entry.
    Genesis(Genesis),
    /// `run-start`
    RunStart(RunStart),
    /// `profile`: a whole profile, once for each digest.
    Profile(Profile),
    /// `task`: the result of one task.
    Task(Box<TaskRecord>),
    /// `run-end`
    RunEnd(RunEnded),
    /// `event`
    Event(Event),
    /// `checkpoint`
    Checkpoint(Checkpoint),
}

impl Body {
    /// The kind's word.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Genesis(_) => "genesis",
            Self::RunStart(_) => "run-start",
            Self::Profile(_) => "profile",
            Self::Task(_) => "task",
            Self::RunEnd(_) => "run-end",
            Self::Event(_) => "event",
            Self::Checkpoint(_) => "checkpoint",
        }
    }

    pub(super) fn to_json(&self) -> Vec<u8> {
        let json = match self {
            Self::Genesis(body) => serde_json::to_vec(body),
            Self::RunStart(body) => serde_json::to_vec(body),
            // The digest of a profile is that of these bytes.
            Self::Profile(body) => Ok(body.to_json()),
            Self::Task(body) => serde_json::to_vec(body),
            Self::RunEnd(body) => serde_json::to_vec(body),
            Self::Event(body) => serde_json::to_vec(body),
            Self::Checkpoint(body) => serde_json::to_vec(body),
        };
        json.expect("bodies are strings, numbers, lists and maps with string keys, which always have a JSON form")
    }

    /// The body of this kind.
    ///
    /// # Errors
    /// When the kind is unknown or the bytes are no JSON of it.
    pub fn parse(kind: &str, json: &[u8]) -> Result<Self, serde_json::Error> {
        Ok(match kind {
            "genesis" => Self::Genesis(serde_json::from_slice(json)?),
            "run-start" => Self::RunStart(serde_json::from_slice(json)?),
            "profile" => Self::Profile(serde_json::from_slice(json)?),
            "task" => Self::Task(serde_json::from_slice(json)?),
            "run-end" => Self::RunEnd(serde_json::from_slice(json)?),
            "event" => Self::Event(serde_json::from_slice(json)?),
            "checkpoint" => Self::Checkpoint(serde_json::from_slice(json)?),
            other => {
                let other = crate::base::text::brief(other);
                return Err(serde::de::Error::custom(format!("`{other}` is no kind of entry")));
            }
        })
    }
}

/// One row of the table `entry`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) seq: u64,
    pub(super) kind: String,
    pub(super) at: String,
    pub(super) prev: Digest,
    pub(super) digest: Digest,
    pub(super) body: Vec<u8>,
}

/// The digest of an entry, as the head of this file says.
pub(super) fn digest(seq: u64, kind: &str, at: &str, prev: &Digest, body: &[u8]) -> Digest {
    let mut hasher = Hasher::new();
    hasher.update(DOMAIN);
    hasher.update(&seq.to_be_bytes());
    for text in [kind.as_bytes(), at.as_bytes()] {
        hasher.update(&(text.len() as u64).to_be_bytes());
        hasher.update(text);
    }
    hasher.update(prev.bytes());
    hasher.update(&(body.len() as u64).to_be_bytes());
    hasher.update(body);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_preimage_is_what_the_documentation_says() {
        let mut bytes = b"gapscan-ledger-entry-v1\0".to_vec();
        bytes.extend([0, 0, 0, 0, 0, 0, 0, 7]);
        bytes.extend([0, 0, 0, 0, 0, 0, 0, 5]);
        bytes.extend(b"event");
        bytes.extend([0, 0, 0, 0, 0, 0, 0, 20]);
        bytes.extend(b"2026-01-02T03:04:05Z");
        bytes.extend([9; 32]);
        bytes.extend([0, 0, 0, 0, 0, 0, 0, 2]);
        bytes.extend(b"{}");
        let made = digest(7, "event", "2026-01-02T03:04:05Z", &Digest::from_bytes([9; 32]), b"{}");
        assert_eq!(made, Digest::of(bytes));
    }
}
