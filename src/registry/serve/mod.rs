//! The embedded registry: OCI distribution-spec 1.1 over TLS, with its content in a folder.
//!
//! What a client may try, and where it ends: names that leave the folder (every name is parsed by its grammar before it
//! becomes a path, `route.rs`); content that is not what its digest says (hashed as it arrives, checked before it gets its
//! name, `session.rs`); manifests whose parts are missing or that are image and index at once (`manifest.rs`); rights that
//! its token does not have (`auth.rs`, `token.rs`); endless headers, bodies, sessions, connections and silence (`server.rs`,
//! `connection.rs`, `upload.rs`, `session.rs`, `router.rs`); a power cut after a 201 (content and names are synced first,
//! `store.rs`); content that the disk lost (a manifest that is damaged is not said to be there; whatever is sent again
//! replaces what was there, `store.rs`); a full disk
//! (`receive.rs`, `session.rs`); waiting for its blobs to be removed under it (`collect.rs`).

mod auth;
mod certificate;
mod collect;
mod connection;
mod content;
mod download;
mod error;
mod manifest;
mod metrics;
mod receive;
mod route;
mod router;
mod served;
mod server;
mod session;
mod store;
mod tls;
mod token;
mod upkeep;
mod upload;

pub use collect::{CollectMode, CollectPolicy, Collected};
pub use error::ServeError;
pub use manifest::Parts;
pub use served::ServedCertificate;
pub use server::{RunningServer, ServeConfig, Server, Tls, collect};
pub use token::pull_token;

pub(super) use auth::SERVICE;
pub use auth::TOKEN_USER;
pub(super) use token::{PREFIX as TOKEN_PREFIX, claims_to_read};

#[cfg(test)]
mod tests;
