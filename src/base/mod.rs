//! What every layer stands on: digests, limits, exit classes, documents, files, spools, progress, and what is common to those
//! who take connections or verify a server.

pub mod ahead;
pub mod certificate;
pub mod digest;
pub mod document;
pub mod exit;
pub mod file;
pub mod limits;
pub(crate) mod listener;
pub mod progress;
pub mod quantity;
pub mod redaction;
pub mod schema;
pub mod spool;
pub mod text;
pub(crate) mod tls;
pub mod tree;
