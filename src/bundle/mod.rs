//! The signed tarball: definition, lock, collection, archive, verification, catalog.

pub mod archive;
pub mod catalog;
pub mod contents;
mod error;
pub mod graph;
pub mod name;
pub mod oci;
pub mod reader;

pub use error::BundleError;
