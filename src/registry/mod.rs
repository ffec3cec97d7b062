//! OCI registries: references, a client, and the embedded server.

mod auth;
mod blob;
pub mod client;
pub mod credentials;
mod error;
mod http;
mod pull;
pub mod reference;
mod referrers;
mod referrers_push;
pub mod serve;
mod space;
#[cfg(test)]
pub(crate) mod testing;
mod upload;

pub use blob::BlobReader;
pub use client::{Client, ClientConfig, Identity, ManifestBody, Retry, Transport};
pub use credentials::Credentials;
pub use error::{Action, RegistryError};
pub use pull::PullCredentials;
pub use reference::{Authority, ManifestName, Prefix, Reference, Repository, Tag};
pub use referrers::Referrer;
pub use referrers_push::AboutSubject;
pub use upload::{Blob, Content, Mount, OpenUpload, Pieces, Sent, Sessions, Upload};
