//! What a bundle says about other bundles: that something may not be used any more, or may be used although it is older.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::base::digest::Digest;

/// The notices of a bundle. An enclave keeps them once the bundle was verified and loaded; they count for all bundles under
/// the same first root, and for no others.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Notices {
    /// What may not be used any more. What was revoked stays revoked.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub revocations: Vec<Revocation>,
    /// Older versions that may be used again for a time.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub permits: Vec<Permit>,
}

/// Something that may not be used any more: a bundle by its version or its content, or anything in a bundle by its digest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Revocation {
    /// The bundle's name; with `version` or `content`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bundle: Option<String>,
    /// The bundle's version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u64>,
    /// The bundle's content digest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<Digest>,
    /// Anything in any bundle: a manifest, an index, a layer, a configuration. Stands alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub item: Option<Digest>,
    /// Why, for whoever finds it refused.
    pub reason: String,
}

/// An older version that may be loaded once, and used until a date.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Permit {
    /// The bundle's name.
    pub bundle: String,
    /// The older version.
    pub version: u64,
    /// Its content digest.
    pub content: Digest,
    /// Until when it may be loaded and used.
    #[schemars(with = "String")]
    pub until: Timestamp,
    /// Why, for the record.
    pub reason: String,
}

impl Notices {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.revocations.is_empty() && self.permits.is_empty()
    }
}

impl Revocation {
    /// Whether it is about the bundle of this name, version and content.
    pub fn names(&self, bundle: &str, version: u64, content: &Digest) -> bool {
        self.bundle.as_deref() == Some(bundle)
            && (self.version == Some(version) || self.content.as_ref() == Some(content))
    }
}

impl Permit {
    /// Names this permit: another date or another reason is another permit.
    pub fn id(&self) -> Digest {
        Digest::of(serde_json::to_vec(self).expect("strings and numbers have a JSON form"))
    }
}
