//! OCI registries: references, a client, and the embedded server.

mod auth;
mod blob;
pub mod client;
pub mod credentials;
mod error;
mod http;
pub mod reference;
mod referrers;
pub mod serve;
mod source;
#[cfg(test)]
pub(crate) mod testing;
mod upload;

pub use blob::BlobReader;
pub use client::{Client, ClientConfig, ManifestBody, Mount, Retry, Transport};
pub use credentials::Credentials;
pub use error::{Action, RegistryError};
pub use reference::{Authority, ManifestName, Prefix, Reference, Repository, Tag};
pub use referrers::Referrer;
pub use upload::Upload;
