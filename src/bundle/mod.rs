//! The signed tarball: definition, lock, collection, archive, verification, catalog.

pub mod archive;
pub mod assembly;
pub mod catalog;
pub mod contents;
mod error;
pub mod graph;
pub mod name;
pub mod oci;
pub mod reader;
pub mod source;
pub mod writer;

pub use error::BundleError;

#[cfg(test)]
pub(crate) mod sample;
#[cfg(test)]
mod tests;
