//! What this cluster, registry and identity can and can't do, before anything runs. Facts are collected by `cluster::inspect`,
//! the registry's client, the ledger's reader and `handshake`; what they mean is said here by pure functions, one file a
//! family.

pub mod check;
mod expiry;
mod handshake;
mod kubeconfig;
mod ledger;
mod leftovers;
mod registry;
mod rights;
pub mod run;
mod server;
mod tls;
mod trust;
mod waivers;
