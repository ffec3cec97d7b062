//! What a whole bundle holds, gathered while it is verified: for people who look at it, and for the comparison of two.

use std::collections::BTreeMap;
use std::io::Read;

use tokio::io::{AsyncRead, AsyncReadExt};

use super::error::BundleError;
use super::graph::Companion;
use super::oci::Manifest;
use super::profile::CONTROLS_FILE;
use super::reader::{BundleReader, VerifiedBundle};
use crate::base::digest::Digest;
use crate::model::profile::Profile;

/// Bytes of a profile's layer that is looked into.
const PROFILE_BYTES: u64 = 64 << 20;

/// A verified bundle, and what is in it beyond the catalog.
#[derive(Debug)]
pub struct Survey {
    /// The proof.
    pub verified: VerifiedBundle,
    /// The bytes that each repository needs.
    pub sizes: BTreeMap<String, u64>,
    /// What travels with the items.
    pub companions: Vec<Companion>,
    /// Profiles by their repositories. One that a delta leaves out is not here.
    pub profiles: BTreeMap<String, Profile>,
    /// The ids of the keys that signed the list of contents.
    pub signers: Vec<String>,
}

impl Survey {
    /// Reads and verifies a bundle to its last byte; `passed` hears the length of each blob.
    ///
    /// # Errors
    /// When it is refused.
    pub async fn of<R: AsyncRead + Unpin + Send>(
        mut reader: BundleReader<R>,
        mut passed: impl FnMut(u64),
    ) -> Result<Self, BundleError> {
        // The layers of profiles, with the digests of the controls that the catalog promises.
        let mut wanted: BTreeMap<Digest, Vec<(String, Digest)>> = BTreeMap::new();
        for entry in &reader.catalog().profiles {
            if let Some(layer) = one_layer(&reader, entry.item.digest) {
                wanted.entry(layer).or_default().push((entry.item.repository.clone(), entry.profile));
            }
        }
        let (sizes, companions) = (reader.sizes(), reader.companions().to_vec());
        let mut profiles = BTreeMap::new();
        while let Some(mut blob) = reader.next_blob().await? {
            let (digest, size) = (blob.descriptor().digest, blob.descriptor().size);
            if let Some(wanted) = wanted.get(&digest).filter(|_| size <= PROFILE_BYTES) {
                let mut bytes = Vec::new();
                if blob.read_to_end(&mut bytes).await.is_ok() {
                    let found = controls(&bytes);
                    for (repository, promised) in wanted {
                        if let Some((digest, profile)) = &found
                            && digest == promised
                        {
                            profiles.insert(repository.clone(), profile.clone());
                        }
                    }
                }
            }
            blob.skip().await?;
            passed(size);
        }
        let verified = reader.finish().await?;
        let signers = signers(&verified);
        Ok(Self { verified, sizes, companions, profiles, signers })
    }

    /// What travels with the item in this repository.
    pub fn companions_of(&self, repository: &str) -> impl Iterator<Item = &Companion> {
        self.companions.iter().filter(move |companion| companion.repository == repository)
    }
}

/// The one layer of an image that was made by a bundler; the first one of its index where it is for several platforms.
fn one_layer<R: AsyncRead + Unpin + Send>(reader: &BundleReader<R>, digest: Digest) -> Option<Digest> {
    match reader.manifest(&digest)? {
        Manifest::Image { layers, .. } => layers.first().map(|layer| layer.digest),
        Manifest::Index { manifests, .. } => match reader.manifest(&manifests.first()?.digest)? {
            Manifest::Image { layers, .. } => layers.first().map(|layer| layer.digest),
            Manifest::Index { .. } => None,
        },
    }
}

fn controls(layer: &[u8]) -> Option<(Digest, Profile)> {
    for entry in tar::Archive::new(layer).entries().ok()? {
        let mut entry = entry.ok()?;
        if *entry.path_bytes() == *CONTROLS_FILE.as_bytes() {
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).ok()?;
            let profile: Profile = serde_json::from_slice(&bytes).ok()?;
            return Some((Digest::of(&bytes), profile));
        }
    }
    None
}

fn signers(verified: &VerifiedBundle) -> Vec<String> {
    #[derive(serde::Deserialize)]
    struct Signed {
        signatures: Vec<Signature>,
    }
    #[derive(serde::Deserialize)]
    struct Signature {
        keyid: String,
    }
    let targets = verified.metadata().iter().find(|(name, _)| name.ends_with("targets.json"));
    let signed = targets.and_then(|(_, bytes)| serde_json::from_slice::<Signed>(bytes).ok());
    signed.map_or(Vec::new(), |signed| signed.signatures.into_iter().map(|s| s.keyid).collect())
}
