//! The signed tarball: definition, lock, collection, archive, verification, catalog.

mod accepted;
pub mod agent;
pub mod archive;
pub mod assembly;
pub mod cache;
pub mod catalog;
pub mod chart;
pub mod collect;
mod companions;
pub mod contents;
pub mod cosign;
pub mod database;
pub mod definition;
pub mod delta;
pub mod difference;
mod error;
mod front;
pub mod graph;
pub mod head;
pub mod image_file;
mod input;
pub mod inspec;
pub mod layer;
mod licence;
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
pub mod split;
pub mod sums;
pub mod survey;
pub mod writer;

pub use error::BundleError;

#[cfg(test)]
mod companion_tests;
#[cfg(test)]
pub(crate) mod sample;
#[cfg(test)]
mod tests;
