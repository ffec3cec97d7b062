//! Which verdict each finding had, in eight bytes a finding: there may be a million, and nothing else is kept of most.

use std::collections::HashSet;
use std::hash::{BuildHasherDefault, Hash, Hasher};

use crate::model::outcome::Status;

/// Verdicts by the first 61 bits of identities, which are digests.
#[derive(Default)]
pub(super) struct Seen(HashSet<Entry, BuildHasherDefault<Spread>>);

/// An identity, and in its lowest three bits the status.
#[derive(Clone, Copy)]
struct Entry(u64);

const STATUS_BITS: u32 = 3;

impl Entry {
    fn identity(self) -> u64 {
        self.0 >> STATUS_BITS
    }

    fn status(self) -> Status {
        Status::ALL[(self.0 & ((1 << STATUS_BITS) - 1)) as usize]
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.identity() == other.identity()
    }
}

impl Eq for Entry {}

impl Hash for Entry {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.identity());
    }
}

/// Spreads the bits of what is a digest already.
#[derive(Default)]
struct Spread(u64);

impl Hasher for Spread {
    fn write_u64(&mut self, bits: u64) {
        self.0 = bits.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(self.0 ^ u64::from(*byte));
        }
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

impl Seen {
    /// What one finding takes: the table is between half and nearly full, and is there twice while it grows.
    pub(super) const ENTRY_BYTES: usize = 24;

    /// Keeps a verdict, and gives the one that the same finding had before.
    pub(super) fn insert(&mut self, identity: u64, status: Status) -> Option<Status> {
        let at = Status::ALL.iter().position(|known| *known == status).unwrap_or_default() as u64;
        self.0.replace(Entry(identity << STATUS_BITS | at)).map(Entry::status)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_verdict_of_each_identity_is_kept() {
        let mut seen = Seen::default();
        for identity in 0..1000 {
            assert_eq!(seen.insert(identity, Status::Passed), None);
        }
        for status in Status::ALL {
            let before = seen.insert(7, status);
            assert_eq!(before, Some(if status == Status::ALL[0] { Status::Passed } else { seen_before(status) }));
        }
        assert_eq!(seen.insert(999, Status::Failed), Some(Status::Passed));
    }

    fn seen_before(status: Status) -> Status {
        let at = Status::ALL.iter().position(|known| *known == status).expect("all are there");
        Status::ALL[at - 1]
    }
}
