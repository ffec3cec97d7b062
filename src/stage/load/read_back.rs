//! What the registry has afterwards, read back and hashed: some of what was sent, or everything.

use futures::stream::{self, StreamExt, TryStreamExt};
use tokio::io::AsyncReadExt;

use super::error::LoadError;
use super::{Done, Load};
use crate::base::digest::Hasher;
use crate::bundle::graph::PushManifest;
use crate::model::receipt::{Outcome, ReadBack, ReceiptBlob};
use crate::registry::{ManifestName, RegistryError};

/// One byte of this many that were sent is read back in a sample.
const SAMPLE: u64 = 100;
/// A sample has at least so many bytes, where there are as many, and at most so many.
const SAMPLE_LEAST: u64 = 1 << 20;
const SAMPLE_MOST: u64 = 64 << 20;
/// Bytes that are read at once.
const PIECE: usize = 256 << 10;

impl Load<'_> {
    /// Reads blobs back, and with [`ReadBack::All`] manifests too: those that were sent were read back already.
    pub(super) async fn read_back(&self, manifests: &[PushManifest], done: &mut Done) -> Result<(), LoadError> {
        let chosen: Vec<usize> = match self.read_back {
            ReadBack::All => (0..done.blobs.len()).collect(),
            ReadBack::Sample => sample(&done.blobs, &seed()),
        };
        let blobs = &done.blobs;
        stream::iter(&chosen)
            .map(|at| self.read_blob_back(&blobs[*at]))
            .buffer_unordered(self.jobs.get())
            .try_collect::<()>()
            .await?;
        for at in chosen {
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

    async fn read_blob_back(&self, blob: &ReceiptBlob) -> Result<(), LoadError> {
        let Some(name) = blob.repositories.keys().next() else { return Ok(()) };
        let repository = self.prefix.repository(name)?;
        let mut reader = self.client.blob(&repository, &blob.digest, blob.size).await?;
        let mut piece = vec![0; PIECE];
        loop {
            match reader.read(&mut piece).await {
                Ok(0) => return Ok(()),
                Ok(_) => {}
                Err(error) => return Err(RegistryError::from_reader(error, &repository, &blob.digest).into()),
            }
        }
    }
}

/// The blobs of a sample: of those that were sent, in an order that follows from `seed`, as many as fit. One that is larger
/// than what is left is passed over; smaller ones still have their chance.
fn sample(blobs: &[ReceiptBlob], seed: &[u8; 32]) -> Vec<usize> {
    let sent = |blob: &ReceiptBlob| blob.repositories.values().any(|outcome| *outcome == Outcome::Pushed);
    let mut candidates: Vec<usize> = (0..blobs.len()).filter(|at| sent(&blobs[*at])).collect();
    let total: u64 = candidates.iter().map(|at| blobs[*at].size).sum();
    candidates.sort_by_cached_key(|at| {
        let mut hasher = Hasher::new();
        hasher.update(seed);
        hasher.update(blobs[*at].digest.bytes());
        hasher.finish()
    });
    let mut left = (total / SAMPLE).clamp(SAMPLE_LEAST, SAMPLE_MOST);
    let mut chosen = Vec::new();
    for at in candidates {
        if blobs[at].size <= left {
            left -= blobs[at].size;
            chosen.push(at);
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
        assert!(one.iter().all(|at| *at < 200), "what was there is not looked at");
        assert_ne!(one, sample(&all, &[2; 32]));
        let small: Vec<ReceiptBlob> = (0..10).map(|n| blob(n, 1000, Outcome::Pushed)).collect();
        assert_eq!(sample(&small, &[1; 32]).len(), 10, "of little, all");
        let huge: Vec<ReceiptBlob> = (0..10_000).map(|n| blob(n, 1 << 20, Outcome::Pushed)).collect();
        assert_eq!(sample(&huge, &[1; 32]).len(), 64);
        let mixed = [blob(1, 1 << 40, Outcome::Pushed), blob(2, 10, Outcome::Pushed)];
        assert_eq!(sample(&mixed, &[1; 32]), [1]);
        assert!(sample(&[], &[0; 32]).is_empty());
    }
}
