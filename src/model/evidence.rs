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
    /// How often a secret value was taken out of it before it was kept: what the scanner wrote had other bytes then.
    #[serde(default, skip_serializing_if = "is_none")]
    pub redacted: u64,
}

fn is_none(count: &u64) -> bool {
    *count == 0
}

/// Evidence with its bytes, on the way to the ledger. A clone holds the same bytes, not a copy.
#[derive(Clone, PartialEq, Eq)]
pub struct Evidence {
    name: String,
    media_type: String,
    content: Spooled,
    redacted: u64,
}

impl Evidence {
    /// Evidence of these bytes.
    pub fn new(name: impl Into<String>, media_type: impl Into<String>, content: impl Into<Spooled>) -> Self {
        Self { name: name.into(), media_type: media_type.into(), content: content.into(), redacted: 0 }
    }

    /// The same, where a secret value was taken out of it so often.
    #[must_use]
    pub fn redacted(self, times: u64) -> Self {
        Self { redacted: times, ..self }
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
            redacted: self.redacted,
        }
    }
}

impl std::fmt::Debug for Evidence {
    /// Without the bytes: they may be megabytes, and may hold what must not be printed.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.reference().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn evidence_says_of_itself_that_something_was_taken_out_of_it() {
        let whole = Evidence::new("result", "text/plain", b"a".to_vec()).reference();
        let text = serde_json::to_string(&whole).expect("it has a JSON form");
        assert!(!text.contains("redacted"), "as it always was: {text}");
        assert_eq!(serde_json::from_str::<EvidenceRef>(&text).expect("it reads"), whole);
        let redacted = Evidence::new("result", "text/plain", b"a".to_vec()).redacted(3).reference();
        let text = serde_json::to_string(&redacted).expect("it has a JSON form");
        assert!(text.contains("\"redacted\":3"), "{text}");
        assert_eq!(serde_json::from_str::<EvidenceRef>(&text).expect("it reads"), redacted);
    }
}
