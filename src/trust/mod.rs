//! Keys, signatures, the pinned root, and the versions that were seen before.

pub mod approval;
pub mod cosign;
pub mod envelope;
mod error;
pub mod key;
pub mod metadata;
pub mod passphrase;
pub mod public;
pub mod remembered;
pub mod root;
pub mod rotate;
pub mod runner;
pub mod signer;
pub mod spoken;

pub use error::TrustError;
pub use public::read_public_key;
pub use runner::runner_key;
pub use spoken::spoken;
