//! What a load did: the document that a runner signs, and that a delta bundle is built from.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::provenance::BundleRef;
use crate::base::digest::Digest;
use crate::base::document::ApiVersion;

/// The payload type of the envelope that a receipt is signed in.
pub const RECEIPT_MEDIA_TYPE: &str = "application/vnd.gapscan.receipt.v1+json";
/// The `kind` of a receipt.
pub const RECEIPT_KIND: &str = "LoadReceipt";

/// A `kind: LoadReceipt` document: what came, from where, what was there, what was pushed, when, by whom. It lists all
/// content of the bundle, also what was there before, so that a delta can be built from it alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct LoadReceipt {
    /// `gapscan/v1`
    pub api_version: ApiVersion,
    /// [`RECEIPT_KIND`]
    pub kind: String,
    /// The bundle that was loaded.
    pub bundle: BundleRef,
    /// The content digest of the bundle that it was a delta against.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<Digest>,
    /// `HOST[:PORT][/PREFIX]` that it was loaded into.
    pub registry: String,
    /// When the load began.
    pub started: Timestamp,
    /// When the last tag had moved.
    pub finished: Timestamp,
    /// Who loaded it.
    pub by: Runner,
    /// The files that it came from, as they were named; `-` is standard input.
    pub sources: Vec<String>,
    /// How much of what was pushed was read back from the registry and hashed again.
    pub read_back: ReadBack,
    /// The images and artifacts, by repository below the prefix.
    pub items: Vec<ReceiptItem>,
    /// Every blob that the items need, by digest.
    pub blobs: Vec<ReceiptBlob>,
    /// The tags that point to the items.
    pub tags: Vec<ReceiptTag>,
}

/// Who ran gapscan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Runner {
    /// The version of gapscan.
    pub gapscan: String,
    /// The machine's name, as it says itself.
    pub host: String,
    /// The user's name, or the number where there is no name.
    pub user: String,
}

/// How much was read back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ReadBack {
    /// All manifests, and some of the blobs.
    Sample,
    /// Everything, also what was there before.
    All,
}

/// One image or artifact.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct ReceiptItem {
    /// Its repository below the prefix.
    pub repository: String,
    /// The digest of its manifest or index.
    pub digest: Digest,
    /// What came of it.
    pub outcome: Outcome,
}

/// One blob, in all repositories that need it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct ReceiptBlob {
    /// Its digest.
    pub digest: Digest,
    /// Its length in bytes.
    pub size: u64,
    /// The repositories below the prefix that have it, and how it came there.
    pub repositories: BTreeMap<String, Outcome>,
    /// Whether it was read back and hashed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub read_back: bool,
}

/// How content came to be in a repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// It was there.
    Present,
    /// It was sent.
    Pushed,
    /// The registry took it from another of its repositories.
    Mounted,
    /// It was copied from another repository, because the registry does not mount.
    Copied,
}

/// One tag.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct ReceiptTag {
    /// The repository below the prefix.
    pub repository: String,
    /// The tag.
    pub tag: String,
    /// Whether it pointed elsewhere before.
    pub moved: bool,
}
