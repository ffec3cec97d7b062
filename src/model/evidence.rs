//! What a result rests on, byte for byte.

use serde::{Deserialize, Serialize};

use crate::base::digest::Digest;
use crate::base::spool::{Content as _, Spooled};

/// Names kept evidence by its content.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EvidenceRef {
    /// What it is: `facts`, `result`, `stderr`, `image-config` ...
    pub name: String,
    /// Its media type.
    pub media_type: String,
    /// Its digest.
    pub digest: Digest,
    /// Its length in bytes.
    pub length: u64,
}

/// Evidence with its bytes, on the way to the ledger. A clone holds the same bytes, not a copy.
#[derive(Clone, PartialEq, Eq)]
pub struct Evidence {
    name: String,
    media_type: String,
    content: Spooled,
}

impl Evidence {
    /// Evidence of these bytes.
    pub fn new(name: impl Into<String>, media_type: impl Into<String>, content: impl Into<Spooled>) -> Self {
        Self { name: name.into(), media_type: media_type.into(), content: content.into() }
    }

    /// The bytes.
    pub fn content(&self) -> &Spooled {
        &self.content
    }

    /// Its name by content.
    pub fn reference(&self) -> EvidenceRef {
        EvidenceRef {
            name: self.name.clone(),
            media_type: self.media_type.clone(),
            digest: self.content.digest(),
            length: self.content.length(),
        }
    }
}

impl std::fmt::Debug for Evidence {
    /// Without the bytes: they may be megabytes, and may hold what must not be printed.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.reference().fmt(f)
    }
}
