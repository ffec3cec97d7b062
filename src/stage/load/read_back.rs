//! What the registry has afterwards, read back and hashed: some of what was sent, or everything.
//!
//! What a registry may do, and where it ends: acknowledge content and store nothing, or something else (a sample, which it
//! can't foresee, of all that it acknowledged, also of what it said to have mounted; the catalog and the metadata beside it
//! always: they are what a run starts from); say that it has what it has not (with [`ReadBack::All`], each blob is read from
//! each repository that must have it, each manifest and each tag too).

use futures::stream::{self, StreamExt, TryStreamExt};
use tokio::io::AsyncReadExt;

use super::error::LoadError;
use super::{Done, Load};
use crate::base::digest::{Digest, Hasher};
use crate::bundle::graph::PushManifest;
use crate::model::catalog::CATALOG_REPOSITORY;
use crate::model::receipt::{Outcome, ReadBack, ReceiptBlob};
use crate::registry::{ManifestName, RegistryError, Repository};

/// One byte of this many that were sent is read back in a sample.
const SAMPLE: u64 = 100;
/// A sample has at least so many bytes, where there are as many, and at most so many.
const SAMPLE_LEAST: u64 = 1 << 20;
const SAMPLE_MOST: u64 = 64 << 20;
/// Of many small blobs, which are few bytes together, one of so many is read back; each is a request.
const SAMPLE_SHARE: usize = 4;
/// So many blobs are read back all the same, where they fit.
const SAMPLE_FEW: usize = 16;
/// Bytes that are read at once.
const PIECE: usize = 256 << 10;

impl Load<'_> {
    /// Reads blobs back, and with [`ReadBack::All`] manifests too: those that were sent were read back already.
    pub(super) async fn read_back(&self, manifests: &[PushManifest], done: &mut Done) -> Result<(), LoadError> {
        let chosen: Vec<(usize, String)> = match self.read_back {
            ReadBack::All => everywhere(&done.blobs),
            ReadBack::Sample => sample(&done.blobs, &seed()),
        };
        let blobs = &done.blobs;
        stream::iter(&chosen)
            .map(|(at, name)| async move {
                let repository = self.prefix.repository(name)?;
                self.read_blob_back(&repository, &blobs[*at].digest, blobs[*at].size).await
            })
            .buffer_unordered(self.jobs.get())
            .try_collect::<()>()
            .await?;
        for (at, _) in chosen {
            done.blobs[at].read_back = true;
        }
        if self.read_back == ReadBack::Sample {
            return Ok(());
        }
        for manifest in manifests {
            for name in &manifest.repositories {
                let repository = self.prefix.repository(name)?;
                self.client.manifest(&repository, &ManifestName::Digest(manifest.digest)).await?;
            }
        }
        Ok(())
    }

    /// Reads a blob from where it must be, to its end.
    pub(super) async fn read_blob_back(
        &self,
        repository: &Repository,
        digest: &Digest,
        size: u64,
    ) -> Result<(), LoadError> {
        let mut reader = self.client.blob(repository, digest, size).await?;
        let mut piece = vec![0; PIECE];
        loop {
            match reader.read(&mut piece).await {
                Ok(0) => return Ok(()),
                Ok(_) => {}
                Err(error) => return Err(RegistryError::from_reader(error, repository, digest).into()),
            }
        }
    }
}

/// Every blob in every repository.
fn everywhere(blobs: &[ReceiptBlob]) -> Vec<(usize, String)> {
    let places = |(at, blob): (usize, &ReceiptBlob)| -> Vec<_> {
        blob.repositories.keys().map(|name| (at, name.clone())).collect()
    };
    blobs.iter().enumerate().flat_map(places).collect()
}

/// The blobs of a sample, each with the repository that it is read from: of those that were not there before, in an order
/// that follows from `seed`, as many as fit. One that is larger than what is left is passed over; smaller ones still have
/// their chance. The catalog is always among them.
fn sample(blobs: &[ReceiptBlob], seed: &[u8; 32]) -> Vec<(usize, String)> {
    let new = |blob: &ReceiptBlob| -> Vec<String> {
        let placed = blob.repositories.iter().filter(|(_, outcome)| **outcome != Outcome::Present);
        placed.map(|(name, _)| name.clone()).collect()
    };
    let drawn = |blob: &ReceiptBlob| {
        let mut hasher = Hasher::new();
        hasher.update(seed);
        hasher.update(blob.digest.bytes());
        hasher.finish()
    };
    let mut candidates: Vec<(usize, Vec<String>)> =
        blobs.iter().map(new).enumerate().filter(|(_, places)| !places.is_empty()).collect();
    let total: u64 = candidates.iter().map(|(at, _)| blobs[*at].size).sum();
    candidates.sort_by_cached_key(|(at, _)| drawn(&blobs[*at]));
    let mut left = (total / SAMPLE).clamp(SAMPLE_LEAST, SAMPLE_MOST);
    let most = SAMPLE_FEW.max(candidates.len() / SAMPLE_SHARE);
    let mut drawn_so_far = 0;
    let mut chosen = Vec::new();
    for (at, mut places) in candidates {
        if places.iter().any(|name| name == CATALOG_REPOSITORY) {
            chosen.push((at, CATALOG_REPOSITORY.to_owned()));
        } else if blobs[at].size <= left && drawn_so_far < most {
            left -= blobs[at].size;
            drawn_so_far += 1;
            // Not by the bytes that the order goes by.
            let last = drawn(&blobs[at]).bytes()[31];
            let place = usize::from(last) % places.len();
            chosen.push((at, places.swap_remove(place)));
        }
    }
    chosen
}

/// A seed that the registry can't foresee: it must not know what will be looked at.
fn seed() -> [u8; 32] {
    let mut seed = [0; 32];
    aws_lc_rs::rand::fill(&mut seed).expect("the operating system gives random numbers");
    seed
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::base::digest::Digest;

    fn blob(name: usize, size: u64, outcome: Outcome) -> ReceiptBlob {
        let repositories = BTreeMap::from([("images/web".to_owned(), outcome)]);
        ReceiptBlob { digest: Digest::of(name.to_string()), size, repositories, read_back: false }
    }

    #[test]
    fn a_sample_is_of_what_was_sent_and_bounded_and_another_each_time() {
        let mut all: Vec<ReceiptBlob> = (0..200).map(|n| blob(n, 1 << 20, Outcome::Pushed)).collect();
        all.extend((200..300).map(|n| blob(n, 1, Outcome::Present)));
        let one = sample(&all, &[1; 32]);
        assert_eq!(one.len(), 2, "a hundredth");
        assert!(one.iter().all(|(at, _)| *at < 200), "what was there is not looked at");
        assert_ne!(one, sample(&all, &[2; 32]));
        let small: Vec<ReceiptBlob> = (0..10).map(|n| blob(n, 1000, Outcome::Pushed)).collect();
        assert_eq!(sample(&small, &[1; 32]).len(), 10, "of little, all");
        let many: Vec<ReceiptBlob> = (0..200).map(|n| blob(n, 10, Outcome::Pushed)).collect();
        assert_eq!(sample(&many, &[1; 32]).len(), 50, "of many, not all, however small");
        let huge: Vec<ReceiptBlob> = (0..10_000).map(|n| blob(n, 1 << 20, Outcome::Pushed)).collect();
        assert_eq!(sample(&huge, &[1; 32]).len(), 64);
        let mixed = [blob(1, 1 << 40, Outcome::Pushed), blob(2, 10, Outcome::Pushed)];
        assert_eq!(sample(&mixed, &[1; 32]), [(1, "images/web".to_owned())]);
        assert!(sample(&[], &[0; 32]).is_empty());
    }

    #[test]
    fn what_was_mounted_may_be_looked_at_and_the_catalog_always_is() {
        let mut mounted = blob(1, 10, Outcome::Pushed);
        mounted.repositories.insert("images/twin".to_owned(), Outcome::Mounted);
        mounted.repositories.insert("images/old".to_owned(), Outcome::Present);
        let mut places: Vec<String> = (0..64)
            .flat_map(|seed| sample(std::slice::from_ref(&mounted), &[seed; 32]))
            .map(|(_, name)| name)
            .collect();
        places.sort();
        places.dedup();
        assert_eq!(places, ["images/twin", "images/web"], "each in its turn, and not where it was before");
        assert_eq!(everywhere(std::slice::from_ref(&mounted)).len(), 3);
        let large = 1 << 40;
        let repositories = BTreeMap::from([(CATALOG_REPOSITORY.to_owned(), Outcome::Pushed)]);
        let catalog = ReceiptBlob { digest: Digest::of("c"), size: large, repositories, read_back: false };
        assert_eq!(sample(&[blob(1, large, Outcome::Pushed), catalog], &[0; 32]).len(), 1);
    }
}
