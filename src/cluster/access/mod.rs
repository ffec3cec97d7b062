//! Ways to reach a target.

pub mod auto;
pub mod beside;
pub mod debug;
pub mod exec;
pub mod node;
pub mod transport;
