//! How far an archive is written without a gap, for those who read behind: it is written at several places at once.

use std::ops::Range;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// The level below which every byte is written, and how much is written at all.
pub(super) struct Tide {
    state: Mutex<State>,
    moved: Condvar,
}

struct State {
    spans: Vec<Range<u64>>,
    reached: Vec<u64>,
    front: usize,
    level: u64,
    written: u64,
    abandoned: bool,
}

impl Tide {
    /// These spans, which follow each other, are to be written; what lies before and behind them is.
    pub(super) fn new(head: Range<u64>, spans: impl Iterator<Item = Range<u64>>, end: Range<u64>) -> Self {
        let mut spans: Vec<Range<u64>> = spans.collect();
        let mut reached: Vec<u64> = spans.iter().map(|span| span.start).collect();
        reached.push(end.end);
        spans.push(end);
        let state = State { spans, reached, front: 0, level: head.end, written: 0, abandoned: false };
        let tide = Self { state: Mutex::new(state), moved: Condvar::new() };
        tide.lock().settle();
        tide
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere leaves numbers that were right when they were written.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The span of this index is written up to here.
    pub(super) fn reach(&self, index: usize, at: u64) {
        let mut state = self.lock();
        state.written += at.saturating_sub(state.reached[index]);
        state.reached[index] = at;
        state.settle();
        drop(state);
        self.moved.notify_all();
    }

    /// Nothing more will be written.
    pub(super) fn abandon(&self) {
        self.lock().abandoned = true;
        self.moved.notify_all();
    }

    /// Waits until the level is above this, and gives it. `None` when nothing more will be written.
    pub(super) fn above(&self, level: u64) -> Option<u64> {
        let mut state = self.lock();
        while state.level <= level && !state.abandoned {
            state = self.moved.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        (!state.abandoned).then_some(state.level)
    }

    /// Waits until more than this is written in all, and gives how much. `None` when that will never be.
    pub(super) fn more(&self, than: u64) -> Option<u64> {
        let mut state = self.lock();
        loop {
            if state.abandoned || state.front == state.spans.len() {
                return None;
            }
            if state.written > than {
                return Some(state.written);
            }
            state = self.moved.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl State {
    fn settle(&mut self) {
        while let (Some(span), Some(reached)) = (self.spans.get(self.front), self.reached.get(self.front)) {
            self.level = *reached;
            if *reached < span.end {
                break;
            }
            self.front += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_level_rises_only_without_a_gap() {
        let tide = Tide::new(0..10, [10..20, 20..20, 20..30, 30..40].into_iter(), 40..50);
        assert_eq!(tide.above(9), Some(10));
        tide.reach(2, 30);
        assert_eq!(tide.more(9), Some(10));
        tide.reach(0, 15);
        assert_eq!(tide.above(10), Some(15));
        tide.reach(0, 20);
        assert_eq!(tide.above(15), Some(30), "what was written before counts now");
        tide.reach(3, 40);
        assert_eq!(tide.above(30), Some(50), "the end was there before");
        assert_eq!(tide.more(u64::MAX), None, "it is all there");
        tide.abandon();
        assert_eq!(tide.above(50), None);
    }
}
