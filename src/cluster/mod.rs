//! The cluster: its targets, its objects, and scans in it with least privilege that leave nothing behind.

pub mod access;
pub mod agent;
pub mod canary;
pub mod capacity;
pub mod client;
pub mod egress;
pub mod error;
pub mod identity;
pub mod inputs;
pub mod inspect;
pub mod install;
pub mod job;
pub mod namespace;
pub mod network;
pub mod object;
pub mod objects;
mod patience;
mod pod;
pub mod pull;
pub mod sweep;
pub mod targets;

pub use client::Cluster;
pub use error::ClusterError;
pub use namespace::ScanNamespace;
