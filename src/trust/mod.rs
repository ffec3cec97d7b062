//! Keys, signatures, the pinned root, and the versions that were seen before.

pub mod envelope;
mod error;
pub mod key;
pub mod metadata;
pub mod passphrase;
pub mod remembered;
pub mod root;
pub mod signer;

pub use error::TrustError;
