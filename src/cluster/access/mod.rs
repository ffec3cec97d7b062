//! Ways to reach a target.

pub mod exec;
