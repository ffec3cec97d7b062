//! What the registry has afterwards, read back and hashed: some of what was sent, or everything.

use futures::stream::{self, StreamExt, TryStreamExt};
use tokio::io::AsyncReadExt;

use super::error::LoadError;
use super::{Done, Load};
use crate::bundle::graph::PushManifest;
use crate::model::receipt::{Outcome, ReadBack, ReceiptBlob};
use crate::registry::{ManifestName, RegistryError};

/// One byte of this many that were sent is read back in a sample.
const SAMPLE: u64 = 100;
/// A sample has at least so many bytes, where there are as many.
const SAMPLE_BYTES: u64 = 1 << 20;
/// Bytes that are read at once.
const PIECE: usize = 256 << 10;

impl Load<'_> {
    /// Reads blobs back, and with [`ReadBack::All`] manifests too: those that were sent were read back already.
    pub(super) async fn read_back(&self, manifests: &[PushManifest], done: &mut Done) -> Result<(), LoadError> {
        let chosen: Vec<usize> = match self.read_back {
            ReadBack::All => (0..done.blobs.len()).collect(),
            ReadBack::Sample => sample(&done.blobs),
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

/// The blobs of a sample: of those that were sent, in the order of their digests, as many as fit.
fn sample(blobs: &[ReceiptBlob]) -> Vec<usize> {
    let sent = |blob: &ReceiptBlob| blob.repositories.values().any(|outcome| *outcome == Outcome::Pushed);
    let total: u64 = blobs.iter().filter(|blob| sent(blob)).map(|blob| blob.size).sum();
    let mut left = (total / SAMPLE).max(SAMPLE_BYTES);
    let mut chosen = Vec::new();
    for (at, blob) in blobs.iter().enumerate().filter(|(_, blob)| sent(blob)) {
        if blob.size <= left {
            left -= blob.size;
            chosen.push(at);
        }
    }
    chosen
}
