//! The stages of the flow, each taking the proof that the one before it made.

pub mod load;
pub mod build;
pub mod export;
pub mod plan;
pub mod registries;
pub mod schedule;
