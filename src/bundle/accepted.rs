//! Metadata that was verified and is no older than what was accepted before: which bundle it is, and what must be in it.

use jiff::Timestamp;

use super::contents::{Contents, content_digest};
use super::error::BundleError;
use crate::base::limits::Limits;
use crate::model::provenance::BundleRef;
use crate::trust::metadata::{self, MetadataFiles, VerifiedMetadata};
use crate::trust::remembered::{Candidate, Offer, Remembered};
use crate::trust::root::TrustRoot;

/// A bundle by its metadata alone.
pub(super) struct Accepted {
    pub(super) verified: VerifiedMetadata,
    pub(super) contents: Contents,
    pub(super) bundle: BundleRef,
    /// To be remembered before anything of the bundle is used.
    pub(super) offer: Offer,
}

impl Accepted {
    /// Verifies metadata against the pinned root, the clock and the remembered versions.
    pub(super) async fn verify(
        files: MetadataFiles,
        root: &TrustRoot,
        remembered: &Remembered,
        limits: &Limits,
        now: Timestamp,
    ) -> Result<Self, BundleError> {
        let verified = metadata::verify(files, root, limits, now).await?;
        let contents = Contents::from_targets(verified.targets(), limits)?;
        let bundle = contents.bundle(content_digest(verified.targets()), verified.fingerprint());
        let candidate = Candidate::of(&verified, &bundle.name, bundle.digest, contents.created);
        let offer = remembered.check(candidate, now)?;
        Ok(Self { verified, contents, bundle, offer })
    }
}
