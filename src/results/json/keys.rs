//! The keys of objects that are open, so that one that is there twice is noticed.

use std::collections::HashSet;

/// Keys of one object that are compared one by one; beyond, they are hashed.
const FEW: usize = 32;
/// Keys of one object. They are held as long as it is open.
const MOST: usize = 4_000_000;

/// The keys of all open objects, those of the outermost first.
#[derive(Default)]
pub(super) struct Keys {
    few: Vec<u64>,
}

/// The keys of one open object.
pub(super) struct Level {
    /// Where its own begin.
    start: usize,
    many: Option<HashSet<u64>>,
}

/// Whether a key may be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Entry {
    New,
    Twice,
    TooMany,
}

impl Keys {
    pub(super) fn open(&self) -> Level {
        Level { start: self.few.len(), many: None }
    }

    pub(super) fn insert(&mut self, level: &mut Level, key: &str) -> Entry {
        let hash = hash(key);
        let few = &self.few[level.start..];
        if few.contains(&hash) {
            return Entry::Twice;
        }
        if few.len() < FEW {
            self.few.push(hash);
            return Entry::New;
        }
        let many = level.many.get_or_insert_default();
        match (many.len() < MOST, many.insert(hash)) {
            (_, false) => Entry::Twice,
            (true, true) => Entry::New,
            (false, true) => Entry::TooMany,
        }
    }

    pub(super) fn close(&mut self, level: Level) {
        self.few.truncate(level.start);
    }
}

/// FNV-1a. That two keys can be made to collide only lets somebody have his own document refused.
fn hash(key: &str) -> u64 {
    key.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}
