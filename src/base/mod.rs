//! What every layer stands on: digests, limits, exit classes, documents, files, spools, progress.

pub mod ahead;
pub mod certificate;
pub mod digest;
pub mod document;
pub mod exit;
pub mod file;
pub mod limits;
pub mod progress;
pub mod quantity;
pub mod spool;
pub mod text;
