//! Facts from an image: one streaming pass over each layer, and each layer once however many images share it.
//!
//! [`read_layer`] makes [`LayerFacts`] from a layer's blob, [`merge`] puts the layers of an image on top of each other as
//! a container runtime would (OCI image-spec, layer.md). Nothing is written to a disk, nothing in a layer is followed.
//!
//! # Attacks, and where each is stopped
//!
//! | attack | stopped by |
//! |---|---|
//! | content that is not what the image's configuration names | the hash of the whole inflated stream is compared with the diff id; a layer that differs gives no facts |
//! | a gzip bomb, ten million entries, names of 4 KiB each | `Limits::layer_inflated_bytes`, `Limits::layer_entries`, `KEPT_BYTES` |
//! | a PAX or GNU long-name record of a gigabyte | `entries`: 1 MiB and the longest path, checked before it is read |
//! | PAX size other than the header's, two headers for one entry, PAX name and GNU name at once, sparse files | `entries` refuses what readers understand differently; of a sparse file the content is not taken |
//! | `..` in a name, NUL in a name | `entries`: refused |
//! | an archive after the archive, bytes after its end | `entries`: anything but zeros after the end is refused |
//! | a file written through a link of a layer below (`x -> etc`, then `x/passwd`) | `merge`: found by the hashes of all names, and what it may have changed is absent |
//! | a list or a file that is replaced, removed or hidden by a later layer, an opaque folder | `merge` |
//! | a FIFO or a device where a file should be, endless files | its type is in the header; content is cut at `Limits::fact_file_bytes` and then counts as not collected |
//!
//! Removing is done with care and reporting is not: where two runtimes differ, a setuid file is rather reported that a
//! runtime would have removed than the other way round.

mod config;
mod entries;
mod layer;
mod merge;
#[cfg(test)]
mod tests;

use crate::base::digest::Digest;
use crate::base::exit::{Classify, ExitClass};

use crate::model::reason::Reason;

pub use config::diff_ids;
pub use layer::{LayerFacts, read_layer};
pub use merge::merge;

/// Why a layer or an image gives no facts.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The blob can't be read or inflated.
    #[error("read a layer")]
    Read(#[source] std::io::Error),
    /// The layer is compressed in a way that is not supported.
    #[error("read a layer that is compressed with {0}: only gzip and uncompressed layers are supported")]
    Compression(&'static str),
    /// The layer is not the one that the image's configuration names.
    #[error("read layer {expected}: its content is {found}")]
    DiffId {
        /// In the configuration.
        expected: Digest,
        /// Of what was read.
        found: Digest,
    },
    /// The layer inflates to more than the limit.
    #[error("read a layer: it inflates to more than {0} bytes")]
    Inflated(u64),
    /// The layer has more entries than the limit.
    #[error("read a layer: it has more than {0} entries")]
    Entries(u64),
    /// What must be kept of the layer is more than there is room for.
    #[error("read a layer: its names of links and removed files are larger than {0} bytes")]
    Kept(usize),
    /// An entry is malformed, or readers would understand it differently.
    #[error("read entry {number} of a layer (`{}`): {why}", crate::base::text::brief(.name))]
    Entry {
        /// Counted from 1.
        number: u64,
        /// Its name, as far as known.
        name: String,
        /// What is wrong.
        why: &'static str,
    },
    /// There is something after the end of the archive.
    #[error("read a layer: there is data after the end of the archive")]
    Trailing,
    /// The configuration is not JSON of the right shape.
    #[error("read the configuration of an image")]
    Config(#[source] serde_json::Error),
    /// The configuration is larger than the limit.
    #[error("read the configuration of an image: it is larger than {0} bytes")]
    ConfigSize(u64),
    /// The configuration names something that is no digest.
    #[error("read the layers that the configuration of an image names")]
    ConfigDigest(#[source] crate::base::digest::DigestError),
    /// The layers are not those that the configuration names, in its order.
    #[error(
        "put the layers of an image together: the configuration names {expected} layers, and layer {at} is another"
    )]
    Layers {
        /// How many are named.
        expected: usize,
        /// The first that differs or is missing, counted from 1.
        at: usize,
    },
}

impl ImageError {
    /// The reason with which every control on this image is not evaluated.
    pub fn reason(&self) -> Reason {
        Reason::ImageUnreadable
    }
}

impl Classify for ImageError {
    fn class(&self) -> ExitClass {
        match self {
            Self::Read(_) => ExitClass::Unreachable,
            Self::Compression(_) => ExitClass::NotEvaluated,
            Self::DiffId { .. }
            | Self::Inflated(_)
            | Self::Entries(_)
            | Self::Kept(_)
            | Self::Entry { .. }
            | Self::Trailing
            | Self::Config(_)
            | Self::ConfigSize(_)
            | Self::ConfigDigest(_)
            | Self::Layers { .. } => ExitClass::Refused,
        }
    }

    fn remedy(&self) -> Option<String> {
        match self {
            Self::Compression(_) => Some("push the image with gzip layers".to_owned()),
            Self::DiffId { .. } | Self::Layers { .. } => Some("load the image again from a verified bundle".to_owned()),
            Self::Read(_)
            | Self::Inflated(_)
            | Self::Entries(_)
            | Self::Kept(_)
            | Self::Entry { .. }
            | Self::Trailing
            | Self::Config(_)
            | Self::ConfigSize(_)
            | Self::ConfigDigest(_) => None,
        }
    }
}
