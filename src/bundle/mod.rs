//! The signed tarball: definition, lock, collection, archive, verification, catalog.

pub mod agent;
pub mod archive;
pub mod assembly;
pub mod cache;
pub mod catalog;
pub mod collect;
pub mod contents;
pub mod definition;
pub mod delta;
mod error;
pub mod graph;
pub mod image_file;
mod input;
pub mod layer;
pub mod lock;
pub mod made;
pub mod name;
mod notice;
pub mod oci;
pub mod platform;
pub mod profile;
pub mod reader;
pub mod resign;
pub mod scanner;
pub mod source;
pub mod split;
pub mod sums;
pub mod writer;

pub use error::BundleError;

#[cfg(test)]
mod companion_tests;
#[cfg(test)]
pub(crate) mod sample;
#[cfg(test)]
mod tests;
