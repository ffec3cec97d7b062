//! Renderings of what the ledger says; one file a format.
//!
//! Every renderer is a pure function of a [`contents::Report`]. None of them decides anything: verdicts, counts and reasons
//! are those of the ledger. Texts may come from a hostile target, so each renderer neutralises every one that it shows.

pub mod contents;
pub mod hdf;
pub mod html;
pub mod jsonl;
mod neutral;

#[cfg(test)]
mod sample;
