//! The signed tarball: definition, lock, collection, archive, verification, catalog.

pub mod agent;
pub mod archive;
pub mod assembly;
pub mod catalog;
pub mod collect;
pub mod contents;
pub mod definition;
mod error;
pub mod graph;
pub mod head;
pub mod image_file;
mod input;
pub mod layer;
pub mod lock;
pub mod made;
pub mod media;
pub mod name;
mod notice;
pub mod oci;
pub mod parts;
pub mod platform;
pub mod profile;
pub mod random;
pub mod read_at;
pub mod reader;
pub mod resign;
pub mod scanner;
pub mod source;
pub mod writer;

pub use error::BundleError;

#[cfg(test)]
pub(crate) mod sample;
#[cfg(test)]
mod tests;
