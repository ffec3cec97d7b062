//! Waivers in a run: which documents count, what they make of each result, and what is told of them.
//!
//! * `load`: reads documents and their signatures, and decides which count. A file that can't be used drops its waivers, and
//!   never in silence: it is an event, a note in every result of something that failed, and the exit code.
//! * `waiving`: what a run does with those that count.
//! * `check`: the same for people, before anything runs, beside what the ledger has.
//! * `import`: InSpec's own waiver file.

pub mod check;
pub mod import;
mod load;
mod waiving;

pub use load::{Loaded, Looked, Refusal, load, look};
pub use waiving::Waiving;
