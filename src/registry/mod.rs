//! OCI registries: references, a client, and the embedded server.

mod auth;
mod blob;
pub mod client;
mod content;
pub mod credentials;
mod error;
mod http;
mod pull;
pub mod reference;
mod referrers;
mod referrers_push;
pub mod serve;
mod sessions;
mod source;
mod space;
#[cfg(test)]
pub(crate) mod testing;
mod upload;

pub use blob::BlobReader;
pub use client::{Client, ClientConfig, Identity, ManifestBody, Mount, Retry, Transport};
pub use content::{Content, Pieces};
pub use credentials::Credentials;
pub use error::{Action, RegistryError};
pub use pull::PullCredentials;
pub use reference::{Authority, ManifestName, Prefix, Reference, Repository, Tag};
pub use referrers::Referrer;
pub use referrers_push::AboutSubject;
pub use sessions::Sessions;
pub use upload::{BlobToPush, OpenUpload, Sent, Upload};

#[cfg(test)]
mod upload_tests;
