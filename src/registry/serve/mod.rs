//! The embedded registry: OCI distribution-spec 1.1 over TLS, with its content in a folder.
//!
//! What a client may try, and where it ends: names that leave the folder (every name is parsed by its grammar before it
//! becomes a path, `route.rs`); content that is not what its digest says (hashed as it arrives, checked before it gets its
//! name, `upload.rs`); manifests whose parts are missing or that are image and index at once (`manifest.rs`); endless
//! headers, bodies and silence (`server.rs`, `upload.rs`); a power cut after a 201 (content and names are synced first,
//! `store.rs`).

mod auth;
mod download;
mod error;
mod manifest;
mod route;
mod router;
mod server;
mod store;
mod tls;
mod upload;

pub use error::ServeError;
pub use server::{RunningServer, ServeConfig, Server, Tls};

#[cfg(test)]
mod tests;
