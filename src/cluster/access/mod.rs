//! Ways to reach a target.

pub mod auto;
pub mod beside;
pub mod collecting;
pub mod debug;
pub mod ephemeral;
pub mod exec;
pub mod in_target;
pub mod node;
pub(crate) mod pod_network;
pub mod sidecar;
pub mod transport;
